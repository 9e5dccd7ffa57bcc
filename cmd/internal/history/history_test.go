package history

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// fresh is a history in memory.
func fresh(t *testing.T) *History {
	t.Helper()
	h, err := Open("", noon)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// last is the newest cells of Telegram's chat.
func last(h *History, now time.Time, n int) []Sum {
	return h.Read("telegram", "chat", now, Width, n)
}

func TestRecord(t *testing.T) {
	h := fresh(t)
	for i := range 60 {
		h.Record(noon.Add(time.Duration(i)*time.Second), "telegram", "chat", i%6 != 0, time.Duration(40+i)*time.Millisecond)
	}
	h.Record(noon, "telegram", "calls", true, time.Hour)
	h.Record(noon, "max", "calls", true, 0)
	h.Mark(noon, "telegram", "chat", Degraded)
	h.Mark(noon, "telegram", "chat", Blocked)
	h.Mark(noon, "telegram", "chat", OK)
	h.Mark(noon, "telegram", "chat", lastMark+1)
	got := last(h, noon.Add(time.Minute), 2)
	if s := got[0]; !s.Start.Equal(noon.Add(-Width)) || s.OK+s.Fail != 0 || s.Mark != None || s.Median != 0 {
		t.Errorf("before: %+v", s)
	}
	s := got[1]
	if !s.Start.Equal(noon) || s.OK != 50 || s.Fail != 10 || s.Mark != Blocked {
		t.Errorf("%+v", s)
	}
	// The middle of 41 … 99 ms.
	if s.Median < 66*time.Millisecond || s.Median > 75*time.Millisecond {
		t.Errorf("median %v", s.Median)
	}
	if s := h.Read("telegram", "calls", noon, Width, 1)[0]; s.OK != 1 || s.Median < time.Minute || s.Median > 70*time.Second {
		t.Errorf("an hour: %+v", s)
	}
	if s := h.Read("max", "calls", noon, Width, 1)[0]; s.OK != 1 || s.Median != 0 {
		t.Errorf("not timed: %+v", s)
	}
	if s := h.Read("max", "web", noon, Width, 1)[0]; s.OK+s.Fail != 0 {
		t.Errorf("never seen: %+v", s)
	}
}

// What comes out is what went in, for any width.
func TestRead(t *testing.T) {
	h := fresh(t)
	rng := rand.New(rand.NewPCG(1, 2))
	type count struct{ ok, fail int }
	in := map[int64]*count{}
	now := noon.Add(-8 * 24 * time.Hour)
	for now.Before(noon) {
		c := in[number(now)]
		if c == nil {
			c = new(count)
			in[number(now)] = c
		}
		ok := rng.IntN(5) > 0
		h.Record(now, "telegram", "chat", ok, 80*time.Millisecond)
		if ok {
			c.ok++
		} else {
			c.fail++
		}
		now = now.Add(time.Duration(rng.IntN(400)) * time.Second)
	}
	for _, tt := range []struct {
		width time.Duration
		n     int
	}{{Width, Kept}, {30 * time.Minute, 48}, {time.Hour, 168}, {24 * time.Hour, 7}, {Width, 1}} {
		sums := h.Read("telegram", "chat", now, tt.width, tt.n)
		if len(sums) != tt.n {
			t.Fatalf("%d of %d", len(sums), tt.n)
		}
		if s := sums[tt.n-1]; now.Before(s.Start) || !now.Before(s.Start.Add(tt.width)) {
			t.Errorf("%v: the last one, of %v, does not hold %v", tt.width, s.Start, now)
		}
		for i, s := range sums {
			var want count
			for n := number(s.Start); n < number(s.Start.Add(tt.width)); n++ {
				if c := in[n]; c != nil && n > number(now)-int64(Kept) {
					want.ok += c.ok
					want.fail += c.fail
				}
			}
			if s.OK != want.ok || s.Fail != want.fail {
				t.Fatalf("%v, %d (%v): %d and %d, want %+v", tt.width, i, s.Start, s.OK, s.Fail, want)
			}
			if i > 0 && s.Start.Sub(sums[i-1].Start) != tt.width {
				t.Fatalf("%v after %v", s.Start, sums[i-1].Start)
			}
			if timed := s.Median > 75*time.Millisecond && s.Median < 85*time.Millisecond; timed != (want.ok > 0) {
				t.Fatalf("median %v of %d", s.Median, want.ok)
			}
		}
	}
}

// The length of a bucket is near what falls into it.
func TestBuckets(t *testing.T) {
	for d := time.Millisecond; d < time.Minute; d += d/50 + 1 {
		got := length(uint8(bucket(d)))
		if off := float64(got)/float64(d) - 1; off > 0.05 || off < -0.05 {
			t.Errorf("%v becomes %v", d, got)
		}
	}
	for _, d := range []time.Duration{1, time.Microsecond, time.Hour} {
		if b := bucket(d); b < 0 || b >= buckets {
			t.Errorf("%v is in bucket %d", d, b)
		}
	}
}

// A clock that leaps costs no history, and what it leaves is true of its hours.
func TestClock(t *testing.T) {
	week := func() *History {
		h := fresh(t)
		for n := Kept - 1; n >= 0; n-- {
			h.Record(noon.Add(-time.Duration(n)*Width), "telegram", "chat", true, 0)
		}
		return h
	}
	counts := func(h *History, now time.Time) (ok, fail int) {
		for _, s := range last(h, now, Kept) {
			ok += s.OK
			fail += s.Fail
		}
		return ok, fail
	}
	fail := func(h *History, from time.Time, d time.Duration) (now time.Time) {
		for now = from; now.Before(from.Add(d)); now = now.Add(time.Minute) {
			h.Record(now, "telegram", "chat", false, 0)
		}
		return now
	}
	if ok, _ := counts(week(), noon); ok != Kept {
		t.Fatalf("%d cells of %d", ok, Kept)
	}
	for _, tt := range []struct {
		name     string
		leap     time.Duration
		lasts    time.Duration
		ok, fail int // at noon, once the clock is right again
	}{
		{"back by seconds", -30 * time.Second, 5 * time.Minute, Kept, 5},
		{"back by twenty minutes", -20 * time.Minute, 20 * time.Minute, Kept, 20},
		{"back by hours, for minutes", -5 * time.Hour, 30 * time.Minute, Kept, 30},
		{"to 1970, for minutes", -noon.Sub(time.Unix(0, 0)) + time.Minute, 30 * time.Minute, Kept, 0},
		{"before 1970", -noon.Sub(time.Unix(0, 0)) - time.Hour, 30 * time.Minute, Kept, 0},
		{"a year ahead, for minutes", 365 * 24 * time.Hour, 30 * time.Minute, Kept, 0},
		{"two days ahead, for minutes", 48 * time.Hour, 30 * time.Minute, Kept, 0},
	} {
		h := week()
		fail(h, noon.Add(tt.leap), tt.lasts)
		h.Record(noon, "telegram", "chat", true, 0)
		ok, fail := counts(h, noon)
		if ok != tt.ok+1 || fail != tt.fail {
			t.Errorf("%s: %d and %d, want %d and %d", tt.name, ok, fail, tt.ok+1, tt.fail)
		}
	}
	// A clock that stays where it leapt to was right in the end.
	for _, tt := range []struct {
		name string
		leap time.Duration
		ok   int
	}{
		{"back by five hours", -5 * time.Hour, Kept - 5*12},
		{"back by a year", -365 * 24 * time.Hour, 0},
		{"a year ahead", 365 * 24 * time.Hour, 0},
		{"three days ahead", 72 * time.Hour, Kept - 3*24*12},
	} {
		h := week()
		now := fail(h, noon.Add(tt.leap), 3*time.Hour)
		ok, fail := counts(h, now)
		// What was recorded before the clock was believed may be missing, and the
		// cells that the three hours took are gone from the other end.
		if fail < 119 || fail > 180 || ok > tt.ok+12 || ok < tt.ok-3*12-1 {
			t.Errorf("%s: %d and %d, want about %d and 120 to 180", tt.name, ok, fail, tt.ok)
		}
		if h.head > number(now) {
			t.Errorf("%s: there are cells of the future", tt.name)
		}
	}
}

// Names that a catalogue makes up do not fill the memory.
func TestBound(t *testing.T) {
	h := fresh(t)
	for i := range 3 * MaxSeries {
		h.Record(noon, "m", string(rune('a'+i%26))+string(rune('a'+i/26)), true, 0)
	}
	h.Record(noon, string(make([]byte, maxName+1)), "x", true, 0)
	if len(h.series) != MaxSeries {
		t.Errorf("%d series", len(h.series))
	}
	// A week on they are gone and make room.
	later := noon.Add(8 * 24 * time.Hour)
	for i := range 2 {
		h.Record(later.Add(time.Duration(i)*2*doubt), "telegram", "chat", true, 0)
	}
	if _, ok := h.series[key{"telegram", "chat"}]; !ok || len(h.series) != 1 {
		t.Errorf("%d series, %v", len(h.series), ok)
	}
}

// Counts stop at their end.
func TestSaturation(t *testing.T) {
	h := fresh(t)
	for range 70000 {
		h.Record(noon, "telegram", "chat", true, time.Millisecond)
		h.Record(noon, "telegram", "chat", false, 0)
	}
	if s := last(h, noon, 1)[0]; s.OK != 65535 || s.Fail != 65535 || s.Median != time.Millisecond {
		t.Errorf("%+v", s)
	}
}

// In any order of times nothing panics and nothing is counted that was not told.
func FuzzClock(f *testing.F) {
	f.Add([]byte{1, 2, 3, 200, 100, 0, 255, 7})
	f.Fuzz(func(t *testing.T, steps []byte) {
		h := fresh(t)
		now := noon
		told := 0
		for i, s := range steps {
			switch s % 8 {
			case 0:
				now = now.Add(-time.Duration(s) * 11 * time.Hour)
			case 1:
				now = now.Add(time.Duration(s) * 13 * time.Hour)
			default:
				now = now.Add(time.Duration(s) * time.Second)
			}
			h.Record(now, "telegram", []string{"chat", "calls"}[i%2], s%3 == 0, time.Duration(s)*time.Millisecond)
			told++
			n := 0
			for _, f := range []string{"chat", "calls"} {
				for _, x := range h.Read("telegram", f, now, Width, Kept) {
					n += x.OK + x.Fail
				}
			}
			if n > told {
				t.Fatalf("%d told, %d remembered", told, n)
			}
		}
		for _, s := range h.series {
			if !slices.ContainsFunc(s.cells[:], func(c cell) bool { return c.median > buckets }) {
				continue
			}
			t.Fatal("a median that is none")
		}
	})
}

func BenchmarkRecord(b *testing.B) {
	h, _ := Open("", noon)
	for i := 0; b.Loop(); i++ {
		h.Record(noon.Add(time.Duration(i)*time.Second), "telegram", "chat", i%7 != 0, 80*time.Millisecond)
	}
}

func BenchmarkRead(b *testing.B) {
	h, _ := Open("", noon)
	for n := Kept; n >= 0; n-- {
		h.Record(noon.Add(-time.Duration(n)*Width), "telegram", "chat", true, 80*time.Millisecond)
	}
	b.ReportAllocs()
	for b.Loop() {
		h.Read("telegram", "chat", noon, time.Hour, 168)
	}
}
