package onset

import (
	"bufio"
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"time"
)

// Format is the format of traces that Replay reads: JSON Lines, a header and
// then one record for each regular probe in the order of start.
const Format = "onset-trace/1"

// Bounds on a trace, so that a hostile one costs no more than its length.
const (
	maxLine     = 1 << 20
	maxProbes   = 1e10 // regular probes that a sparse trace may stand for
	maxSpan     = 100 * 365 * 24 * time.Hour
	maxTimeout  = 10 * time.Minute
	maxRecheck  = 4096 // on-demand outcomes behind one record
	replayEpoch = 4e9  // Unix seconds: the year 2096, the latest time a trace may speak of
)

// ErrTrace is wrapped by every error that blames the trace.
var ErrTrace = errors.New("bad trace")

// Replay reads a trace, plain or gzip, and writes the events that the detector
// finds as JSON Lines, in the trace's own time. It is the very engine that
// watches live; what it asks for is answered from the column re.
//
// The events of a prefix of a trace, as far as they were known by its last
// record, are those of the whole trace. A bad line ends the replay with an
// error that names line and field; the events before it have been written.
func Replay(ctx context.Context, r io.Reader, w io.Writer, cfg Config) (Stats, error) {
	in := bufio.NewReaderSize(r, 64<<10)
	if magic, _ := in.Peek(2); bytes.Equal(magic, []byte{0x1f, 0x8b}) {
		z, err := gzip.NewReader(in)
		if err != nil {
			return Stats{}, fmt.Errorf("%w: gzip: %w", ErrTrace, err)
		}
		defer z.Close()
		in = bufio.NewReaderSize(z, 64<<10)
	}
	t := &trace{in: in}
	if err := t.header(); err != nil {
		return Stats{}, err
	}
	// Every probe of a trace ends, so none need be given up.
	cfg.Interval, cfg.Timeout = t.interval, maxTimeout
	e, err := New(t.streams, cfg)
	if err != nil {
		return Stats{}, fmt.Errorf("%w: line 1: streams: %w", ErrTrace, err)
	}
	out := bufio.NewWriter(w)
	var werr error
	p := newPlayer(e, func(ev *Event) {
		b, err := ev.MarshalJSON()
		if err == nil {
			_, err = out.Write(append(b, '\n'))
		}
		if werr == nil {
			werr = err
		}
	})
	p.ask = t.ask
	err = t.records(func(s int, start int64, a answer) error {
		p.regular(s, start, a)
		if p.stats.Regular%4096 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		return werr
	})
	var st Stats
	if err == nil {
		st = p.finish()
		err = werr
	} else {
		st = p.stats
	}
	return st, errors.Join(err, out.Flush())
}

// trace is a trace file being read.
type trace struct {
	in    *bufio.Reader
	line  int
	spare []byte

	streams  []Stream
	interval time.Duration
	start    int64
	end      int64
	step     int64
	sparse   bool
	phase    []int64
	codes    map[byte]int64 // nanoseconds until a failure is known

	latest []latest // by stream
}

// latest is the last regular record of a stream, and what is left of its
// on-demand outcomes.
type latest struct {
	at   int64
	re   []byte
	read int64 // last one read
	any  bool
}

func (t *trace) fault(field string, format string, args ...any) error {
	return fmt.Errorf("%w: line %d: %s: %s", ErrTrace, t.line, field, fmt.Sprintf(format, args...))
}

// next is the next line; io.EOF after the last.
func (t *trace) next() ([]byte, error) {
	for {
		b, err := t.in.ReadSlice('\n')
		t.line++
		if errors.Is(err, bufio.ErrBufferFull) {
			t.spare = append(t.spare[:0], b...)
			for errors.Is(err, bufio.ErrBufferFull) {
				if len(t.spare) > maxLine {
					return nil, t.fault("line", "longer than %d bytes", maxLine)
				}
				b, err = t.in.ReadSlice('\n')
				t.spare = append(t.spare, b...)
			}
			b = t.spare
		}
		if err != nil && err != io.EOF {
			return nil, t.fault("line", "%v", err)
		}
		b = bytes.TrimSpace(b)
		if len(b) > 0 {
			return b, nil
		}
		if err == io.EOF {
			return nil, io.EOF
		}
	}
}

// decode one line, naming the field where it is not what it should be.
func (t *trace) decode(b []byte, v any) error {
	err := json.Unmarshal(b, v)
	var te *json.UnmarshalTypeError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &te) && te.Field != "":
		return t.fault(te.Field, "a %s where a %s belongs", te.Value, te.Type)
	}
	return t.fault("line", "%v", err)
}

// unix is a time of the trace in nanoseconds, rounded to the microsecond.
func unix(s float64) (int64, bool) {
	if !(s >= 0 && s <= replayEpoch) {
		return 0, false
	}
	return int64(math.Round(s*1e6)) * 1e3, true
}

func (t *trace) header() error {
	b, err := t.next()
	if err == io.EOF {
		t.line = 1
		return t.fault("format", "an empty trace")
	} else if err != nil {
		return err
	}
	var h struct {
		Format   string                       `json:"format"`
		Start    float64                      `json:"start"`
		End      float64                      `json:"end"`
		Interval float64                      `json:"interval"`
		Timeout  float64                      `json:"timeout"`
		Encoding string                       `json:"encoding"`
		Step     float64                      `json:"recheck_step"`
		Codes    map[string][]json.RawMessage `json:"codes"`
		Streams  []struct {
			ID        int     `json:"id"`
			Messenger string  `json:"messenger"`
			Function  string  `json:"function"`
			Endpoint  string  `json:"endpoint"`
			Check     string  `json:"check"`
			Family    string  `json:"family"`
			Path      string  `json:"path"`
			Role      Role    `json:"role"`
			Phase     float64 `json:"phase"`
		} `json:"streams"`
	}
	if err := t.decode(b, &h); err != nil {
		return err
	}
	if h.Format != Format {
		return t.fault("format", "%q is not %s", h.Format, Format)
	}
	var ok bool
	if t.start, ok = unix(h.Start); !ok {
		return t.fault("start", "%v is not a time", h.Start)
	}
	if t.end, ok = unix(h.End); !ok || t.end < t.start || time.Duration(t.end-t.start) > maxSpan {
		return t.fault("end", "%v is not a time after start", h.End)
	}
	if !(h.Interval >= 1 && h.Interval <= 86400) {
		return t.fault("interval", "%v s is not between 1 and 86400", h.Interval)
	}
	if !(h.Timeout >= .01 && h.Timeout <= maxTimeout.Seconds()) {
		return t.fault("timeout", "%v s is not between 0.01 and 600", h.Timeout)
	}
	if !(h.Step >= 0 && h.Step <= 86400) || h.Step > 0 && h.Step < .001 {
		return t.fault("recheck_step", "%v s is not between 0.001 and 86400", h.Step)
	}
	t.interval = time.Duration(h.Interval * 1e9)
	t.step = int64(h.Step * 1e9)
	switch h.Encoding {
	case "dense", "":
	case "sparse":
		t.sparse = true
	default:
		return t.fault("encoding", "%q is neither dense nor sparse", h.Encoding)
	}
	if err := t.readCodes(h.Codes); err != nil {
		return err
	}
	n := len(h.Streams)
	if n == 0 || n > maxStreams {
		return t.fault("streams", "%d of them, not 1 to %d", n, maxStreams)
	}
	if t.sparse && float64(t.end-t.start)/float64(t.interval)*float64(n) > maxProbes {
		return t.fault("end", "a sparse trace of more than %g probes", maxProbes)
	}
	t.streams, t.phase, t.latest = make([]Stream, n), make([]int64, n), make([]latest, n)
	seen := make([]bool, n)
	for _, s := range h.Streams {
		if s.ID < 0 || s.ID >= n || seen[s.ID] {
			return t.fault("streams.id", "%d: ids count from 0, each once", s.ID)
		}
		seen[s.ID] = true
		if !(s.Phase >= 0 && s.Phase <= h.Interval) {
			return t.fault("streams.phase", "%v s of stream %d is not within the interval", s.Phase, s.ID)
		}
		t.phase[s.ID] = int64(math.Round(s.Phase*1e6)) * 1e3
		t.streams[s.ID] = Stream{Messenger: s.Messenger, Function: s.Function, Endpoint: s.Endpoint, Check: s.Check,
			Family: s.Family, Path: s.Path, Role: s.Role}
	}
	return nil
}

// readCodes reads {"t":["timeout",5.0], …}: what it takes for a failure to be
// known. Its class is of no interest here.
func (t *trace) readCodes(codes map[string][]json.RawMessage) error {
	t.codes = make(map[byte]int64)
	for k, v := range codes {
		var class string
		var s float64
		if len(k) != 1 || k == "." || len(v) != 2 || json.Unmarshal(v[0], &class) != nil || json.Unmarshal(v[1], &s) != nil {
			return t.fault("codes", "%.20q: not one letter for [failure class, seconds]", k)
		}
		if !(s >= 0 && s <= maxTimeout.Seconds()) {
			return t.fault("codes", "%q: %v s is not between 0 and 600", k, s)
		}
		t.codes[k[0]] = int64(s * 1e9)
	}
	return nil
}

// record is a line after the header.
type record struct {
	Time  *float64 `json:"time"`
	ID    *int     `json:"id"`
	OK    *bool    `json:"ok"`
	Dur   float64  `json:"dur"`
	Re    string   `json:"re"`
	Gap   bool     `json:"gap"`
	Until *float64 `json:"until"`

	start, until int64
}

// read is the next record or gap; false at the end.
func (t *trace) read(r *record) (bool, error) {
	b, err := t.next()
	if err == io.EOF {
		return false, nil
	} else if err != nil {
		return false, err
	}
	*r = record{}
	if err := t.decode(b, r); err != nil {
		return false, err
	}
	if r.Time == nil {
		return false, t.fault("time", "missing")
	}
	var ok bool
	if r.start, ok = unix(*r.Time); !ok {
		return false, t.fault("time", "%v is not a time", *r.Time)
	}
	if r.Gap {
		if r.Until == nil {
			return false, t.fault("until", "missing")
		}
		if r.until, ok = unix(*r.Until); !ok || r.until < r.start {
			return false, t.fault("until", "%v is not a time after the gap's begin", *r.Until)
		}
		return true, nil
	}
	if r.start < t.start || r.start > t.end {
		return false, t.fault("time", "%v is outside start and end", *r.Time)
	}
	switch {
	case r.ID == nil:
		return false, t.fault("id", "missing")
	case *r.ID < 0 || *r.ID >= len(t.streams):
		return false, t.fault("id", "%d is no stream", *r.ID)
	case r.OK == nil:
		return false, t.fault("ok", "missing")
	case !(r.Dur >= 0 && r.Dur <= maxTimeout.Seconds()):
		return false, t.fault("dur", "%v s is not between 0 and 600", r.Dur)
	case len(r.Re) > maxRecheck:
		return false, t.fault("re", "longer than %d", maxRecheck)
	}
	for k := range len(r.Re) {
		if c := r.Re[k]; c != '.' {
			if _, known := t.codes[c]; !known {
				return false, t.fault("re", "%q is no code", c)
			}
		}
	}
	return true, nil
}

// records hands on every regular probe in the order of start.
func (t *trace) records(hand func(s int, start int64, a answer) error) error {
	if t.sparse {
		return t.fillIn(hand)
	}
	var r record
	last := int64(math.MinInt64)
	for {
		more, err := t.read(&r)
		if err != nil || !more {
			return err
		}
		if r.start < last {
			return t.fault("time", "%v is earlier than the line before", *r.Time)
		}
		last = r.start
		if r.Gap {
			continue // no probes: there is nothing to hand on
		}
		if err := t.hand(hand, *r.ID, r.start, &r); err != nil {
			return err
		}
	}
}

func (t *trace) hand(hand func(int, int64, answer) error, s int, start int64, r *record) error {
	a := answer{ok: true, took: okTook}
	if r != nil {
		a = answer{ok: *r.OK, took: int64(r.Dur * 1e9)}
	}
	// hand first plays what came before: until then the stream's record before
	// this one answers for it.
	if err := hand(s, start, a); err != nil {
		return err
	}
	l := &t.latest[s]
	*l = latest{at: start, re: l.re[:0], any: true}
	if r != nil {
		l.re = append(l.re, r.Re...)
	}
	return nil
}

const okTook = int64(200e6) // a success that no record times

// fillIn reads a sparse trace: a regular probe without a line succeeded.
func (t *trace) fillIn(hand func(s int, start int64, a answer) error) error {
	order := make([]int, len(t.streams))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int {
		c := func(i int) int {
			if t.streams[i].Role == Control {
				return 0
			}
			return 1
		}
		return cmp.Or(cmp.Compare(t.phase[a], t.phase[b]), cmp.Compare(c(a), c(b)))
	})
	const slack = int64(1e6)
	var r record
	more, err := t.read(&r)
	if err != nil {
		return err
	}
	last, gap := int64(math.MinInt64), int64(math.MinInt64)
	advance := func() error {
		last = r.start
		if more, err = t.read(&r); err == nil && more && r.start < last {
			err = t.fault("time", "%v is earlier than the line before", *r.Time)
		}
		return err
	}
	// A stream of phase 0 and one whose phase is the interval start together;
	// periods are walked by time, not by phase, so this cannot misorder.
	for base := t.start; base < t.end; base += int64(t.interval) {
		for _, s := range order {
			at := base + t.phase[s]
			if at >= t.end {
				continue
			}
			for more && r.Gap && r.start <= at {
				gap = max(gap, r.until)
				if err := advance(); err != nil {
					return err
				}
			}
			if more && !r.Gap && *r.ID == s && abs(r.start-at) <= slack {
				if err := t.hand(hand, s, at, &r); err != nil {
					return err
				}
				if err := advance(); err != nil {
					return err
				}
				continue
			}
			if at < gap {
				continue
			}
			if more && !r.Gap && r.start < at-slack {
				return t.fault("time", "stream %d has no regular probe at %v", *r.ID, *r.Time)
			}
			if err := t.hand(hand, s, at, nil); err != nil {
				return err
			}
		}
	}
	return nil
}

func abs(x int64) int64 { return max(x, -x) }

// ask answers a confirmation that starts at time at: the character of the
// latest record's re. The one that is the regular outcome itself, and one that
// was read before, hold nothing new.
func (t *trace) ask(s int, at int64) (answer, bool) {
	l := &t.latest[s]
	if !l.any || t.step == 0 {
		return answer{}, false
	}
	k := (at - l.at + 1000) / t.step
	if k <= l.read || k == 0 {
		return answer{}, false
	}
	l.read = k
	if k > int64(len(l.re)) || l.re[k-1] == '.' {
		return answer{ok: true, took: okTook}, true
	}
	return answer{took: t.codes[l.re[k-1]]}, true
}

// MarshalJSON is the event as a line of an event log: times are Unix seconds.
func (e *Event) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		Time        float64  `json:"time"`
		Messenger   string   `json:"messenger"`
		State       State    `json:"state"`
		Scope       string   `json:"scope,omitempty"`
		Onset       *float64 `json:"onset,omitempty"`
		Score       float64  `json:"score"`
		Episode     int      `json:"episode"`
		Relapse     bool     `json:"relapse,omitempty"`
		Widened     bool     `json:"widened,omitempty"`
		Initial     bool     `json:"initial,omitempty"`
		Share       float64  `json:"share,omitempty"`
		Cause       string   `json:"cause,omitempty"`
		Rival       string   `json:"rival,omitempty"`
		RivalP      float64  `json:"rival_p"`
		Attribution string   `json:"attribution,omitempty"`
		Evidence    string   `json:"evidence"`
	}{seconds(e.Time), e.Messenger, e.State, e.Scope, onset(e.Onset), round(e.Score, 100), e.Episode, e.Relapse,
		e.Widened, e.Initial, e.Share, e.Cause, e.Rival, round(e.RivalP, 1e5), e.Attribution, e.Evidence})
}

// seconds is a time as Unix seconds to the millisecond.
func seconds(t time.Time) float64 { return float64(t.UnixMilli()) / 1e3 }

func onset(t time.Time) *float64 {
	if t.IsZero() {
		return nil
	}
	s := seconds(t)
	return &s
}

func round(x, unit float64) float64 { return math.Round(x*unit) / unit }
