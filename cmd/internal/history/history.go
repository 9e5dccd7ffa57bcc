// Package history is what the status page remembers: seven days in cells of
// five minutes, for each function of each messenger how many checks worked and
// failed, what was said at worst, and how long worked checks took. It takes
// constant time a result, about 12 kB a function, and as much again on disk.
package history

import (
	"math"
	"slices"
	"sync"
	"time"
)

const (
	// Width is the time that a cell spans. Cells begin at multiples of it since
	// 1970, in UTC.
	Width = 5 * time.Minute
	// Kept is how many cells are kept: seven days.
	Kept = int(7 * 24 * time.Hour / Width)
	// MaxSeries is how many functions are remembered; further ones are not.
	MaxSeries = 128
	maxName   = 64 // bytes of a name; longer ones are not remembered
)

// A Mark is what was said of a function, or of the vantage, at worst within a
// cell. The greater is the worse, and stays. The numbers stand in files: they
// may be added to, and never change.
type Mark uint8

// Marks of functions, and of the vantage.
const (
	None        Mark = 0 // nothing was said
	Unknown     Mark = 1
	OK          Mark = 2
	Degraded    Mark = 3
	Unreachable Mark = 4
	Blocked     Mark = 5

	Online    Mark = 2
	Impaired  Mark = 3
	Whitelist Mark = 4
	Offline   Mark = 5

	lastMark = Blocked
)

// A Sum is what one or more cells hold together.
type Sum struct {
	Start    time.Time
	OK, Fail int           // checks that counted
	Mark     Mark          // the worst
	Median   time.Duration // of worked checks, to within 5 %; 0: none was timed
}

// cell is five minutes of one function. Counts stop at their end.
type cell struct {
	ok, fail uint16
	mark     Mark
	median   uint8 // a bucket, and one; 0: none
}

// series is one function's cells: cell number n stands at n % Kept.
type series struct {
	cells [Kept]cell
	// The cell that is filling: how many worked checks took how long.
	timed  int64 // its number
	times  [buckets]uint16
	worked int
}

// Buckets of the time that checks took are an eighth of a doubling wide, from a
// millisecond to a minute.
const (
	buckets = 128
	octave  = 8
)

func bucket(d time.Duration) int {
	b := math.Round(octave * math.Log2(float64(d)/float64(time.Millisecond)))
	return int(min(max(b, 0), buckets-1))
}

// length is the time in the middle of a bucket.
func length(bucket uint8) time.Duration {
	return time.Duration(float64(time.Millisecond) * math.Exp2(float64(bucket)/octave))
}

type key struct{ messenger, function string }

// A History is safe for concurrent use.
type History struct {
	mu     sync.Mutex
	series map[key]*series
	head   int64 // number of the newest cell; 0: there is none
	// doubted is since when the clock has been where it cannot be.
	doubted time.Time
	changed map[int64]bool // cells that the file does not have as they are

	file file
}

// Limits of trust in the clock. One that leaps is believed after a while: until
// then nothing is thrown away on its word.
const (
	doubt = time.Hour
	leap  = int64(24 * time.Hour / Width) // cells
)

func number(t time.Time) int64 { return t.Unix() / int64(Width/time.Second) }

// Record counts a check, where it worked with the time it took; 0 is not
// counted as a time.
func (h *History) Record(now time.Time, messenger, function string, ok bool, took time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	s, c, n := h.at(now, key{messenger, function})
	if c == nil {
		return
	}
	count := &c.fail
	if ok {
		count = &c.ok
	}
	if *count < math.MaxUint16 {
		*count++
	}
	if !ok || took <= 0 {
		return
	}
	if s.timed != n {
		s.timed, s.times, s.worked = n, [buckets]uint16{}, 0
	}
	if b := &s.times[bucket(took)]; *b < math.MaxUint16 {
		*b++
		s.worked++
	}
	c.median = s.median() + 1
}

// median is the bucket of the median of the cell that is filling.
func (s *series) median() uint8 {
	seen := 0
	for b, n := range s.times {
		if seen += int(n); 2*seen >= s.worked {
			return uint8(b)
		}
	}
	return 0
}

// Mark says what is said now.
func (h *History) Mark(now time.Time, messenger, function string, m Mark) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if m > lastMark {
		return
	}
	if _, c, _ := h.at(now, key{messenger, function}); c != nil {
		c.mark = max(c.mark, m)
	}
}

// at is the cell of a moment, nil where nothing is to be remembered.
func (h *History) at(now time.Time, k key) (*series, *cell, int64) {
	n := number(now)
	if !h.tick(now, n) {
		return nil, nil, 0
	}
	s := h.series[k]
	if s == nil {
		if s = h.add(k); s == nil {
			return nil, nil, 0
		}
	}
	if h.file.path != "" {
		h.changed[n] = true
	}
	return s, &s.cells[n%int64(Kept)], n
}

// tick takes note of the time, and says whether a cell with this number can be
// filled.
//
// A clock that goes back a little fills older cells once more. One that goes
// back by more than that, or a day ahead, is set wrong or was: what it would
// throw away is kept for an hour, in which it may be set right again.
func (h *History) tick(now time.Time, n int64) bool {
	switch {
	case n <= 0:
		return false
	case h.head == 0:
		h.head = n
	case n < h.head-1 || n > h.head+leap:
		if h.doubted.IsZero() || now.Before(h.doubted) {
			h.doubted = now
		}
		if now.Sub(h.doubted) < doubt {
			return n <= h.head && n > h.head-int64(Kept)
		}
		if n < h.head {
			h.rewind(n)
		}
		h.advance(n)
		h.doubted = time.Time{}
	default:
		h.doubted = time.Time{}
		h.advance(n)
	}
	return true
}

// advance makes n the newest cell, where it is not older.
func (h *History) advance(n int64) {
	if n <= h.head {
		return
	}
	for _, s := range h.series {
		if n-h.head >= int64(Kept) {
			s.cells = [Kept]cell{}
			continue
		}
		for c := h.head + 1; c <= n; c++ {
			s.cells[c%int64(Kept)] = cell{}
		}
	}
	h.head = n
}

// rewind drops what is newer than n.
func (h *History) rewind(n int64) {
	for _, s := range h.series {
		for c := max(n+1, h.head-int64(Kept)+1); c <= h.head; c++ {
			s.cells[c%int64(Kept)] = cell{}
		}
	}
	h.head = n
	h.file.stale = true
}

// add makes a series. Where there are too many, those that hold nothing go.
func (h *History) add(k key) *series {
	if len(k.messenger) > maxName || len(k.function) > maxName || len(h.series) >= MaxSeries && !h.purge() {
		return nil
	}
	s := new(series)
	h.series[k] = s
	return s
}

// purge forgets the series that hold nothing, and says whether any did.
func (h *History) purge() bool {
	before := len(h.series)
	for k, s := range h.series {
		if s.cells == [Kept]cell{} {
			delete(h.series, k)
		}
	}
	return len(h.series) < before
}

// Read is the last n spans of a width, a multiple of [Width], oldest first. They
// begin at multiples of it, and the last one holds now.
func (h *History) Read(messenger, function string, now time.Time, width time.Duration, n int) []Sum {
	h.mu.Lock()
	defer h.mu.Unlock()
	per := int64(width / Width)
	last := number(now) / per
	s := h.series[key{messenger, function}]
	out := make([]Sum, n)
	var medians []uint8
	for i := range out {
		from := (last - int64(n-1-i)) * per
		sum := Sum{Start: time.Unix(from*int64(Width/time.Second), 0).UTC()}
		medians = medians[:0]
		for c := from; s != nil && c < from+per; c++ {
			if c > h.head || c <= h.head-int64(Kept) || c < 0 {
				continue
			}
			x := &s.cells[c%int64(Kept)]
			sum.OK += int(x.ok)
			sum.Fail += int(x.fail)
			sum.Mark = max(sum.Mark, x.mark)
			if x.median > 0 {
				medians = append(medians, x.median-1)
			}
		}
		if len(medians) > 0 {
			slices.Sort(medians)
			sum.Median = length(medians[len(medians)/2])
		}
		out[i] = sum
	}
	return out
}
