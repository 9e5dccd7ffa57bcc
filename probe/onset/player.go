package onset

import "math"

// player drives an engine through recorded time: it starts each regular probe
// when it started, ends it when it ended, and answers what the engine asks for
// in between, in the order in which all this would have happened.
type player struct {
	e      *Engine
	hear   func(*Event)
	ask    func(stream int, t int64) (answer, bool) // false: holds nothing new
	flying []landing                                // a heap by known, start, stream
	now    int64
	stats  Stats
}

// answer is how a probe ended.
type answer struct {
	ok   bool
	took int64
}

type landing struct {
	known, start int64
	stream       int
	answer
}

// Stats counts the probes of a replay.
type Stats struct {
	Extra   int // confirmations asked for and answered
	Regular int
}

func newPlayer(e *Engine, hear func(*Event)) *player {
	return &player{e: e, hear: hear, now: math.MinInt64}
}

// regular plays a probe of the schedule. Calls come in the order of start.
func (p *player) regular(stream int, start int64, a answer) {
	p.until(start)
	p.start(stream, start, a)
	p.stats.Regular++
}

func (p *player) start(stream int, start int64, a answer) {
	p.e.started(stream, start)
	p.push(landing{known: start + max(a.took, 1), start: start, stream: stream, answer: a})
}

// until lets time pass up to t: what ended by then has ended, what was due
// before then was asked.
func (p *player) until(t int64) {
	if t <= p.now {
		return
	}
	p.now = t
	for {
		known := int64(math.MaxInt64)
		if len(p.flying) > 0 {
			known = p.flying[0].known
		}
		due := p.e.due()
		switch {
		case known <= due && known <= t:
			l := p.pop()
			s := worked
			if !l.ok {
				s = failed
			}
			p.e.land(l.stream, l.start, l.known, s)
		case due < t:
			p.e.advance(due)
			for _, r := range p.e.Requests() {
				a, ok := p.ask(r.Stream, due)
				if !ok {
					p.e.Skipped(r)
					continue
				}
				p.stats.Extra++
				p.start(r.Stream, due, a)
			}
		default:
			return
		}
		if len(p.e.events) > 0 {
			for i := range p.e.events {
				p.hear(&p.e.events[i])
			}
			p.e.events = p.e.events[:0]
		}
	}
}

// finish lets the probes in flight end. Nothing more is asked: there is no one
// left to answer.
func (p *player) finish() Stats {
	p.ask = func(int, int64) (answer, bool) { return answer{}, false }
	for len(p.flying) > 0 {
		p.until(p.flying[0].known)
	}
	return p.stats
}

func (p *player) push(l landing) {
	h := append(p.flying, l)
	k := len(h) - 1
	for k > 0 {
		up := (k - 1) / 2
		if !h[k].before(&h[up]) {
			break
		}
		h[k], h[up] = h[up], h[k]
		k = up
	}
	p.flying = h
}

func (p *player) pop() landing {
	h := p.flying
	top, n := h[0], len(h)-1
	h[0] = h[n]
	h = h[:n]
	for k := 0; ; {
		c := 2*k + 1
		if c >= n {
			break
		}
		if c+1 < n && h[c+1].before(&h[c]) {
			c++
		}
		if !h[c].before(&h[k]) {
			break
		}
		h[k], h[c] = h[c], h[k]
		k = c
	}
	p.flying = h
	return top
}

func (l *landing) before(o *landing) bool {
	switch {
	case l.known != o.known:
		return l.known < o.known
	case l.start != o.start:
		return l.start < o.start
	}
	return l.stream < o.stream
}
