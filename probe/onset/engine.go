package onset

import (
	"errors"
	"fmt"
	"iter"
	"math"
	"slices"
	"time"
)

// Engine watches any number of messengers over one set of streams. It is
// driven by its caller, who says what happened and what time it is; it reads
// no clock. It is not safe for concurrent use.
//
// The caller announces each probe when it starts (Started) and says how it
// ended (Finished, or Abandoned where the result says nothing), calls Advance
// at the latest when Next says so, carries out Requests, and takes Events.
type Engine struct {
	cfg     Config
	streams []Stream
	watches []*watch
	of      [][]place // by stream: who wants to see it
	reqs    []Request
	events  []Event
	down    bool // vantage_down was told
}

// place is a stream's position in a watch.
type place struct{ watch, pos int32 }

// New is a detector for the messengers of the streams. A stream is known by its
// index.
func New(streams []Stream, cfg Config) (*Engine, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	if len(streams) > maxStreams {
		return nil, fmt.Errorf("onset: %d streams, more than %d", len(streams), maxStreams)
	}
	e := &Engine{cfg: cfg, streams: slices.Clone(streams), of: make([][]place, len(streams))}
	var names []string
	for i, s := range streams {
		if err := s.validate(); err != nil {
			return nil, fmt.Errorf("onset: stream %d: %w", i, err)
		}
		if s.Role == Target {
			names = append(names, s.Messenger)
		}
	}
	slices.Sort(names)
	names = slices.Compact(names)
	if len(names) > maxMessengers {
		return nil, fmt.Errorf("onset: %d messengers, more than %d", len(names), maxMessengers)
	}
	if len(names) == 0 {
		return nil, errors.New("onset: no stream is a target")
	}
	for k, name := range names {
		var mine []Stream
		var ids []int
		for i, s := range streams {
			if s.Role == Control || s.Messenger == name {
				e.of[i] = append(e.of[i], place{int32(k), int32(len(mine))})
				mine, ids = append(mine, s), append(ids, i)
			}
		}
		m, err := newModel(name, mine, ids)
		if err != nil {
			return nil, err
		}
		e.watches = append(e.watches, newWatch(newDetector(m, cfg, e.hear), cfg))
	}
	return e, nil
}

// hear collects an event. What is said of the vantage is said once, not once a
// messenger.
func (e *Engine) hear(ev *Event) {
	if ev.State == VantageDown {
		if e.down {
			return
		}
		e.down = true
		ev.Messenger = Vantage
	}
	e.events = append(e.events, *ev)
}

// Started says that a probe of a stream began. One that was asked for and has
// not begun since is the answer to that Request.
func (e *Engine) Started(stream int, start time.Time) {
	if stream >= 0 && stream < len(e.of) {
		e.started(stream, start.UnixNano())
	}
}

func (e *Engine) started(stream int, start int64) {
	extra := false
	for _, p := range e.of[stream] {
		extra = extra || e.watches[p.watch].asked[p.pos]
	}
	for _, p := range e.of[stream] {
		e.watches[p.watch].takeoff(int(p.pos), start, extra)
	}
}

// Finished says how the probe that began at start, or about then, ended.
func (e *Engine) Finished(stream int, start time.Time, took time.Duration, ok bool) {
	s := failed
	if ok {
		s = worked
	}
	e.finished(stream, start, took, s)
}

// Abandoned says that the probe that began at start, or about then, ended and
// says nothing: it was cancelled, or failed for a reason of this machine's.
func (e *Engine) Abandoned(stream int, start time.Time, took time.Duration) {
	e.finished(stream, start, took, void)
}

func (e *Engine) finished(stream int, start time.Time, took time.Duration, s flightState) {
	if stream >= 0 && stream < len(e.of) {
		t := start.UnixNano()
		e.land(stream, t, t+max(0, took.Nanoseconds()), s)
	}
}

func (e *Engine) land(stream int, start, known int64, s flightState) {
	for _, p := range e.of[stream] {
		e.watches[p.watch].land(int(p.pos), start, known, s)
	}
	e.revive(known)
}

// revive tells that the vantage is well again.
func (e *Engine) revive(now int64) {
	if !e.down {
		return
	}
	for _, w := range e.watches {
		if w.overlay == overlayVantage {
			return
		}
	}
	e.down = false
	e.events = append(e.events, Event{Time: at(now), Messenger: Vantage, State: OK, Evidence: "the controls answer again"})
}

// Skipped says that a request will not be carried out.
func (e *Engine) Skipped(r Request) {
	if r.Stream < 0 || r.Stream >= len(e.of) {
		return
	}
	for _, p := range e.of[r.Stream] {
		if w := e.watches[p.watch]; w.messenger == r.Messenger {
			w.skip(int(p.pos))
		}
	}
}

// Advance says what time it is.
func (e *Engine) Advance(now time.Time) {
	e.advance(now.UnixNano())
}

func (e *Engine) advance(now int64) {
	for _, w := range e.watches {
		e.reqs = w.advance(now, e.reqs)
	}
}

// Next is when Advance has something to do; false: not before the next probe.
func (e *Engine) Next() (time.Time, bool) {
	t := e.due()
	return at(t), t != math.MaxInt64
}

func (e *Engine) due() int64 {
	t := int64(math.MaxInt64)
	for _, w := range e.watches {
		t = min(t, w.due())
	}
	return t
}

// Requests are the extra probes asked for since the last call, controls before
// targets. Each is answered by Started or by Skipped. The slice is good until
// the next call of Advance.
func (e *Engine) Requests() []Request {
	r := e.reqs
	e.reqs = e.reqs[:0]
	return r
}

// Events are the changes since the last call, in order of time. The slice is
// good until the next call of another method.
func (e *Engine) Events() []Event {
	ev := e.events
	e.events = e.events[:0]
	return ev
}

// Messengers are the names of what is watched, sorted.
func (e *Engine) Messengers() iter.Seq[string] {
	return func(yield func(string) bool) {
		for _, w := range e.watches {
			if !yield(w.messenger) {
				return
			}
		}
	}
}

// Status is what is thought of a messenger; false: it is not watched.
func (e *Engine) Status(messenger string) (Status, bool) {
	w := e.watch(messenger)
	if w == nil {
		return Status{}, false
	}
	s := Status{Messenger: messenger, State: w.state, Score: w.score, Episode: w.episode, Flaps: w.flaps,
		Extra: w.extra, Tokens: w.tokens}
	if w.since != 0 {
		s.Since = at(w.since)
	}
	if w.state != OK {
		if w.scopeN >= 0 {
			s.Scope = w.scopes[w.scopeN].name
		}
		if w.known {
			s.Onset = at(w.onset)
		}
	}
	if w.state == Blocked || w.state == Recovering {
		s.Attribution = w.attribution()
	}
	return s, true
}

// Covered says whether a stream belongs to what is declared blocked, or was
// until it began to recover.
func (e *Engine) Covered(stream int) bool {
	if stream < 0 || stream >= len(e.of) || e.streams[stream].Role != Target {
		return false
	}
	p := e.of[stream][0]
	w := e.watches[p.watch]
	return w.covered[p.pos] && (w.state == Blocked || w.state == Recovering)
}

// Evidence is, for each scope of a messenger, the strongest evidence for a
// block of it, in nats. Of a scope that is declared blocked it is the evidence
// at which that was declared.
func (e *Engine) Evidence(messenger string) iter.Seq2[string, float64] {
	return func(yield func(string, float64) bool) {
		w := e.watch(messenger)
		if w == nil {
			return
		}
		for g := range w.scopes {
			x := 0.0
			for j := range strengths {
				if h := &w.hyp[g*len(strengths)+j]; h.awake {
					x = max(x, h.w)
				}
			}
			if g == w.scopeN && (w.state == Blocked || w.state == Recovering) {
				x = max(x, w.score)
			}
			if !yield(w.scopes[g].name, x) {
				return
			}
		}
	}
}

// Benign is the probability of each benign explanation of a messenger's
// failures, by Explanations.
func (e *Engine) Benign(messenger string) (p [len(Explanations)]float64) {
	w := e.watch(messenger)
	if w == nil {
		return p
	}
	p[0] = 1 - w.vantage()[vFine]
	for b := 1; b < len(w.b); b++ {
		for k, x := range Explanations {
			if w.b[b].kind == x {
				p[k] += w.elsewhere(b)
			}
		}
	}
	for k := range p {
		p[k] = min(1, max(0, p[k]))
	}
	return p
}

func (e *Engine) watch(messenger string) *watch {
	for _, w := range e.watches {
		if w.messenger == messenger {
			return w
		}
	}
	return nil
}
