package onset

import "math"

// watch is one messenger under watch: its detector, the probes in flight, and
// the questions it wants asked again.
type watch struct {
	*detector
	limit int64 // a probe not finished by then is given up

	// flights are the probes not yet consumed, in the order in which they
	// started (of those that started together, controls first). The detector
	// sees a probe when all that started before it have been seen.
	flights []flight
	clock   int64 // when the last outcome consumed was known
	owed    bool  // outcomes were consumed that nothing was decided upon

	started []int64 // by stream: last start
	asked   []bool  // by stream: a confirmation was asked for and has not started
	waiting int     // how many of those there are
	open    int     // confirmations asked for and not yet consumed
	askedAt int64   // when the last round was asked for
	next    int64   // when the next round is due; 0: none is
	round   int     // rounds since the suspicion began
	recheck int     // the failed stream behind a light round; -1: none
	light   int     // light rounds for it so far

	tokens, rate, capacity float64 // extra probes allowed: now, a second, at most
	tokensAt               int64
	extra                  uint64
}

type flight struct {
	start, known int64
	stream       int32
	state        flightState
	extra        bool // a confirmation, anybody's
	ours         bool // a confirmation this watch waits for
}

type flightState uint8

const (
	flying flightState = iota
	worked
	failed
	void
)

const (
	recheckGap = second / 20 // from a failure to the first question about it
	// minSpacing is the least time between two starts of one stream: sooner
	// would be the same draw of the same burst of loss.
	minSpacing  = 5*second + 10*second/1000
	doubt       = 1200 * second // a suspicion that lasts so long is itself suspect
	lightRounds = 2
	hCurious    = 2.5
	hHopeful    = 1.9
	// After so many rounds only what is suspected is asked, and one control of
	// so many in turn.
	wideRounds, calmShare = 2, 3

	askGrace = 10 * second // a confirmation not started by then never will be
)

// gaps between the rounds of confirmation.
var gaps = [...]int64{second / 20, 2 * second, 3 * second, 4 * second, 6 * second, 8 * second, 10 * second,
	12 * second, 15 * second, 20 * second, 20 * second, 20 * second, 20 * second, 20 * second}

const pTwo, pOne, pCommon = .02, .04, .2

func newWatch(d *detector, cfg Config) *watch {
	n, probes := len(d.streams), 0
	for i := range d.streams {
		if d.local[i] {
			probes++
		}
	}
	rate := max(0, cfg.Confirmations) * float64(probes) / cfg.Interval.Seconds()
	return &watch{detector: d, limit: cfg.Timeout.Nanoseconds() + 2*second,
		flights: make([]flight, 0, 4*n+16), started: make([]int64, n), asked: make([]bool, n), recheck: -1,
		rate: rate, capacity: rate * daySeconds, tokens: rate * daySeconds}
}

func (w *watch) takeoff(i int, t int64, extra bool) {
	if w.begun && t < w.last-600*second {
		w.stepBack(t)
	}
	f := flight{start: t, stream: int32(i), extra: extra}
	if extra && w.asked[i] {
		w.asked[i], f.ours = false, true
		w.waiting--
		w.extra++
	}
	w.started[i] = max(w.started[i], t)
	if len(w.flights) == cap(w.flights) { // only a caller that starts and never finishes gets here
		w.flights[0].state = void
		w.release(w.clock)
	}
	k := len(w.flights)
	w.flights = append(w.flights, f)
	for ; k > 0 && w.before(&f, &w.flights[k-1]); k-- {
		w.flights[k] = w.flights[k-1]
	}
	w.flights[k] = f
}

func (w *watch) before(f, g *flight) bool {
	if f.start != g.start {
		return f.start < g.start
	}
	if c := w.calm[f.stream]; c != w.calm[g.stream] {
		return c
	}
	return f.stream < g.stream
}

// land notes the outcome of the flight of stream i that started at start, or
// about then: a stream is asked by one probe at a time. One that nobody
// announced is announced hereby.
func (w *watch) land(i int, start, known int64, s flightState) {
	f := w.flight(i, start)
	if f == nil {
		if w.begun && start < w.last-w.limit { // given up long ago
			return
		}
		w.takeoff(i, start, false)
		f = w.flight(i, start)
	}
	f.state, f.known = s, max(known, f.start)
	w.release(known)
}

func (w *watch) flight(i int, start int64) *flight {
	var first *flight
	for k := range w.flights {
		f := &w.flights[k]
		if f.stream != int32(i) || f.state != flying {
			continue
		}
		if f.start == start {
			return f
		}
		if first == nil && abs(f.start-start) < w.limit {
			first = f
		}
	}
	return first
}

// stepBack is a clock that was set back: what was gathered cannot be ordered
// against what comes.
func (w *watch) stepBack(t int64) {
	w.ground()
	w.last, w.clock, w.tokensAt, w.askedAt = t, t, t, t
	clear(w.started)
	for i := range w.struck {
		w.struck[i] = max(w.struck[i], w.onset)
	}
	for i := range w.base {
		w.base[i].At = min(w.base[i].At, t)
	}
}

// release consumes, in order of start, what can be consumed.
func (w *watch) release(now int64) {
	done := 0
	for done < len(w.flights) {
		t, end := w.flights[done].start, done
		for ; end < len(w.flights) && w.flights[end].start == t; end++ {
			f := &w.flights[end]
			if f.state == flying && now >= t+w.limit {
				f.state, f.known = void, now
			}
			if f.state == flying {
				end = -1
				break
			}
		}
		if end < 0 {
			break
		}
		w.consume(w.flights[done:end])
		done = end
	}
	if done > 0 {
		w.flights = append(w.flights[:0], w.flights[done:]...)
	}
}

// consume takes in probes that started together.
func (w *watch) consume(group []flight) {
	t := group[0].start
	if w.begun && float64(t-w.last) > 5*w.interval*1e9 {
		w.forget() // a stretch without probes is neither success nor failure
		w.next = 0
	}
	blamed, news := -1, false
	for k := range group {
		f := &group[k]
		i := int(f.stream)
		w.clock = max(w.clock, f.known)
		if f.ours {
			w.open--
		}
		if f.state == void {
			continue
		}
		news = true
		fail := f.state == failed
		w.observe(t, i, fail)
		if f.extra {
			continue
		}
		// Under suspicion a target teaches nothing, so that a slow ramp cannot
		// teach the detector to accept it.
		if !w.target[i] || w.state == OK || w.state == Suspect && t-w.since > doubt {
			w.tick(i, t, fail)
		}
		if fail && w.target[i] {
			blamed = i
		}
	}
	w.owed = w.owed || news
	if w.open > 0 && t >= w.askedAt {
		return // half a round would show the failures before the controls
	}
	w.conclude(blamed)
}

// conclude decides, and plans the next confirmations.
func (w *watch) conclude(blamed int) {
	if !w.owed {
		return
	}
	w.owed = false
	was := w.state
	w.decide(w.clock)
	switch {
	case w.state == Blocked && was == Blocked:
		switch {
		case w.d == 0:
			w.light = 0
		case w.d >= hHopeful && w.light < lightRounds && w.next == 0 && w.open == 0:
			first := int64(math.MaxInt64)
			for i, in := range w.covered {
				if in {
					first = min(first, w.started[i])
				}
			}
			w.plan(max(w.clock+recheckGap, first+minSpacing))
		}
	case w.state != OK && w.state != Suspect:
		w.next, w.light = 0, 0
	case was == OK && w.state == Suspect:
		w.round, w.recheck = 0, -1
		w.plan(w.clock + gaps[0])
	case was == Suspect && w.state == OK:
		w.next = 0
	case was == OK && blamed >= 0 && w.next == 0 && w.open == 0:
		w.recheck, w.light = blamed, 0
		w.plan(w.clock + recheckGap)
	case w.state == OK && w.recheck >= 0 && w.light < lightRounds && w.next == 0 && w.open == 0:
		if _, x := w.best(); x >= hCurious {
			w.plan(max(w.clock+recheckGap, w.started[w.recheck]+minSpacing))
		} else {
			w.recheck = -1
		}
	case w.state == Suspect && w.next == 0 && w.open == 0 && w.round < len(gaps):
		w.plan(max(w.clock+gaps[w.round], w.last+minSpacing))
	}
}

func (w *watch) plan(t int64) {
	if w.rate > 0 {
		w.next = t
	}
}

// advance lets time pass and appends the confirmations that are due.
func (w *watch) advance(now int64, reqs []Request) []Request {
	w.release(now)
	if w.waiting > 0 && now >= w.askedAt+askGrace {
		for i := range w.asked {
			w.skip(i)
		}
	}
	if w.next == 0 || now < w.next {
		return reqs
	}
	w.next = 0
	if w.state == Recovering {
		return reqs
	}
	w.tokens = min(w.capacity, w.tokens+w.rate*max(0, float64(now-w.tokensAt)*1e-9))
	w.tokensAt = now
	ask := func(i int) {
		if w.tokens < 1 || w.asked[i] || now-w.started[i] < minSpacing-10*second/1000 {
			return
		}
		w.tokens--
		w.asked[i] = true
		w.waiting++
		w.open++
		reqs = append(reqs, Request{Stream: w.ids[i], Messenger: w.messenger, NotBefore: at(now)})
	}
	w.askedAt = now
	if w.state == Blocked {
		w.light++
		for i, in := range w.covered {
			if in {
				ask(i)
			}
		}
		return reqs
	}
	if w.state == OK {
		if w.recheck >= 0 {
			w.light++
			ask(w.recheck)
			for range w.companions() {
				if i := w.companion(now); i >= 0 {
					ask(i)
				}
			}
		}
		if w.open == 0 {
			w.conclude(-1)
		}
		return reqs
	}
	w.round++
	calm := 0
	for i := range w.streams {
		if w.calm[i] {
			if calm++; w.round <= wideRounds || calm%calmShare == w.round%calmShare {
				ask(i)
			}
		}
	}
	for i := range w.streams {
		if w.target[i] && (w.round <= wideRounds || w.accused(i)) {
			ask(i)
		}
	}
	return reqs
}

// accused says whether a stream belongs to what is still suspected: the answers
// of others would tell nothing.
func (w *watch) accused(i int) bool {
	for _, g := range w.byStream[i] {
		for j := range strengths {
			if h := &w.hyp[g*len(strengths)+j]; h.awake && h.w >= hClear {
				return true
			}
		}
	}
	return false
}

// companions is how many other streams a failure is worth asking at once. The
// rarer failures are, the more at first; where they are common, others are
// asked once the evidence has held for a round, unless they are so common that
// two of them are no news.
func (w *watch) companions() int {
	p := w.base[w.recheck].p0
	switch {
	case w.light > 1 && p >= pTwo && p < pCommon:
		return 3
	case w.light > 1:
		return 0
	case p < pTwo:
		return 2
	case p < pOne:
		return 1
	}
	return 0
}

// companion is the stream most like the one that failed: of the smallest scope
// that has another one to ask, the one not asked for the longest time.
func (w *watch) companion(now int64) int {
	best, size := -1, math.MaxInt
	for _, g := range w.byStream[w.recheck] {
		n, c := 0, -1
		for i, in := range w.scopes[g].in {
			if !in {
				continue
			}
			n++
			if i != w.recheck && !w.asked[i] && now-w.started[i] >= minSpacing && (c < 0 || w.started[i] < w.started[c]) {
				c = i
			}
		}
		if c >= 0 && n < size {
			best, size = c, n
		}
	}
	return best
}

// skip is a confirmation that will not be had.
func (w *watch) skip(i int) {
	if !w.asked[i] {
		return
	}
	w.asked[i] = false
	w.waiting--
	w.open--
	if w.open == 0 {
		w.owed = true
		w.conclude(-1)
	}
}

// due is when advance has something to do.
func (w *watch) due() int64 {
	t := int64(math.MaxInt64)
	if w.next != 0 {
		t = w.next
	}
	if len(w.flights) > 0 {
		t = min(t, w.flights[0].start+w.limit)
	}
	if w.waiting > 0 {
		t = min(t, w.askedAt+askGrace)
	}
	return t
}
