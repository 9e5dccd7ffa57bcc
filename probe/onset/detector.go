package onset

import (
	"math"
	"slices"
)

// detector is the mathematics for one messenger.
//
// The null hypothesis is a hidden Markov chain over the product of two small
// sets of benign states: the vantage (fine, burst, down, lossy) and elsewhere
// (nothing, resolver down, a path down, the server down, …), filtered exactly.
// The hypothesis (g, j) says that scope g is blocked and that its probes fail
// with probability strengths[j]; the vantage may still be anything. For each a
// CUSUM of the filtered log-likelihood ratio is kept,
//
//	W = max(0, W + min(clip, log f1(x|past)/f0(x|past))),
//
// put to sleep when it is small and nothing in g fails. Page (1954) and Moustakides (1986) show that this
// is the quickest rule for a given rate of false alarms; Fuh (2003) that it
// stays so over hidden Markov models.
//
// Outcomes must come in the order in which the probes started: a time-out is
// known seconds after the successes that started with it, and whoever looks in
// order of completion sees the survivors first.
//
// All times are nanoseconds since 1970.
type detector struct {
	*model
	page     float64
	interval float64 // seconds
	emit     func(*Event)

	a       [][numV]float64 // joint posterior, by state of b and of the vantage, times mass
	mass    float64         // what a sums up to: dividing by it each time would cost as much as the rest
	last    int64           // start of the last outcome consumed
	begun   bool
	refSeen []int64 // by stream: last outcome of a reference
	mute    []bool  // by state of b: its references are silent, so that it cannot be told from a block

	base                  []baseline
	poolFailed, poolTried float64      // sums over the local streams
	hyp                   []hypothesis // [g*len(strengths)+j]
	awake                 int

	state   State
	since   int64
	episode int
	flaps   int
	scopeN  int // index into scopes; -1: none
	onset   int64
	known   bool // onset holds
	score   float64
	covered []bool  // streams declared blocked
	struck  []int64 // by stream: its last failure
	d       float64
	dFrom   int64
	dOK     int32
	dAsked  int32
	rate    float64 // of failure while blocked, learned
	settled int64   // start of recovering
	paged   int64   // last page
	overlay int     // index into b, or overlayVantage, or 0
	calls   tally

	sv, iv [numV]float64 // what of a vantage's state lasts, what of none comes to it
	sl     []float64     // survival by life
}

const (
	hSuspect = 6.0 // nats: ask for confirmation
	hClear   = 3.0 // nats: never mind
	hReset   = 1.0 // nats: below this a hypothesis may sleep; saves work, costs little
	clip     = 4.0 // nats: the most one outcome may add (Huber: minimax against a model that is a little wrong)

	tiny = 1e-60 // mass below which the posterior is made to sum up to one again

	p0Floor, p0Cap   = 0.01, 0.30
	p0Inflate        = 1.6
	baselineLife     = daySeconds / math.Ln2
	priorRate        = 0.01
	priorWeight      = 50.0
	dRecovering, dOK = 5.0, 10.0 // nats
	holdOK           = 600 * second
	widenPage        = 1800 * second
	allOfIt          = 0.8 // share of failures from which a block leaves nothing out
	overlayVantage   = -1

	second     = int64(1e9)
	drowsy     = 60 * second // without a failure in its scope a weak hypothesis sleeps
	partialAge = 25 * second
	abroadAge  = 35 * second
)

// baseline is what is known of a stream when nothing is wrong: decayed counts,
// half-life a day.
type baseline struct {
	Failed, Tried float64
	At            int64
	Worked        bool // ever
	p0            float64
}

type hypothesis struct {
	awake  bool
	w      float64
	since  int64 // when w left zero
	failed int64 // last failure in its scope
	b      [numV]float64
	counts tally
}

// tally is what an event tells a person: how many failed, and what the
// controls did meanwhile.
type tally struct {
	Failed int32 `json:"failed"`
	Asked  int32 `json:"asked"`
	CalmOK int32 `json:"calm_ok"`
	Calm   int32 `json:"calm"`
	RefOK  int32 `json:"ref_ok"`
	Ref    int32 `json:"ref"`
}

func newDetector(m *model, cfg Config, emit func(*Event)) *detector {
	n, nb := len(m.streams), len(m.b)
	d := &detector{model: m, page: cfg.Page, interval: cfg.Interval.Seconds(), emit: emit,
		a: make([][numV]float64, nb), mass: 1, refSeen: make([]int64, n), mute: make([]bool, nb), base: make([]baseline, n),
		hyp: make([]hypothesis, len(m.scopes)*len(strengths)), state: OK, scopeN: -1,
		covered: make([]bool, n), struck: make([]int64, n), rate: .9, paged: math.MinInt64 / 2, sl: make([]float64, len(m.lives))}
	for b := range d.a {
		for v := range numV {
			d.a[b][v] = m.priorV[v] * m.priorB[b]
		}
	}
	for i := range d.base {
		d.rate0(i)
	}
	return d
}

// tick counts a regular outcome, just observed, into the stream's baseline.
func (d *detector) tick(i int, t int64, failed bool) {
	b := &d.base[i]
	f, n := b.Failed, b.Tried
	if b.At != 0 && t > b.At {
		// A stretch without outcomes is neither success nor failure: what was
		// learned before it fades no faster than if it had been short.
		k := decay(min(float64(t-b.At)*1e-9, 5*d.interval) / baselineLife)
		b.Failed *= k
		b.Tried *= k
	}
	b.At = max(b.At, t)
	// Only what no benign state but loss explains counts.
	own := 0.0
	for _, v := range [...]int{vFine, vLossy, vVeryLossy} {
		own += d.a[0][v]
	}
	own /= d.mass
	b.Tried += own
	if failed {
		b.Failed += own
	}
	if d.local[i] {
		d.poolFailed += b.Failed - f
		d.poolTried += b.Tried - n
	}
	d.rate0(i)
}

// rate0 sets the failure rate that a stream is held to have when nothing is
// wrong. What is not yet known of the stream is borrowed from all local ones:
// an access line that loses 5 % shows in a minute over all of them, in an hour
// over one. The least favourable rate is the safe one; an underestimated rate
// is what breaks a CUSUM (Unnikrishnan, Veeravalli, Meyn 2011).
func (d *detector) rate0(i int) {
	b := &d.base[i]
	mean := priorRate
	if d.local[i] {
		mean = (priorRate*priorWeight + max(0, d.poolFailed)) / (priorWeight + max(0, d.poolTried))
	}
	b.p0 = min(p0Cap, max(p0Floor, p0Inflate*(b.Failed+mean*priorWeight)/(b.Tried+priorWeight)))
}

// listen takes out of the reckoning the states whose references are silent.
func (d *detector) listen() {
	for _, b := range d.referred {
		d.mute[b] = !slices.ContainsFunc(d.b[b].references, d.heard)
	}
}

// heard says whether reference i has spoken of late.
func (d *detector) heard(i int) bool {
	return d.refSeen[i] != 0 && d.last-d.refSeen[i] < int64(3*d.interval*1e9)
}

// decay is exp(-x), x ≥ 0. From one outcome to the next hardly any time passes:
// below 1/4 the series is exact to 1e-11, and much cheaper.
func decay(x float64) float64 {
	if x >= 1./4 {
		return math.Exp(-x)
	}
	if x < 1./64 {
		return series(x)
	}
	y := series(x / 16)
	y *= y
	y *= y
	y *= y
	return y * y
}

// series is exp(-x) by the first terms of its series.
func series(x float64) float64 {
	return 1 - x*(1-x*(1./2-x*(1./6-x*(1./24-x*(1./120)))))
}

// pass lets time pass, in which the benign states come and go, and then takes
// the share of each state that lets a probe live: okB[b]·okV[v]. It is where a
// replay spends its time, hence one loop and no inner one.
func (d *detector) pass(dt float64, okB []float64, okV *[numV]float64) {
	for k, rate := range d.rates {
		d.sl[k] = decay(dt * rate)
	}
	var stay, come, leave [numV]float64 // each with what okV leaves of it
	stay[0] = 1
	for v := 1; v < numV; v++ {
		s := d.sl[d.lifeV[v]]
		c := d.priorV[v] * (1 - s)
		d.sv[v], d.iv[v] = s, c
		stay[0] -= c
		stay[v], come[v], leave[v] = s*okV[v], c*okV[v], (1-s)*okV[0]
	}
	stay[0] *= okV[0]

	none := d.a[0]
	var back [numV]float64 // what comes to none of b
	rest, mass := 1.0, 0.0
	a, states, okB := d.a[1:], d.waning[1:], okB[1:]
	for b := range min(len(a), len(states), len(okB)) {
		x := &a[b]
		s := d.sl[states[b].life]
		c, l := states[b].prior*(1-s), 1-s
		if d.mute[b+1] {
			s, c, l = 0, 0, 1
		}
		rest -= c
		ok := okB[b]
		s, c = s*ok, c*ok
		back[0] += x[0] * l
		back[1] += x[1] * l
		back[2] += x[2] * l
		back[3] += x[3] * l
		back[4] += x[4] * l
		back[5] += x[5] * l
		y0 := x[0]*s + none[0]*c
		y1 := x[1]*s + none[1]*c
		y2 := x[2]*s + none[2]*c
		y3 := x[3]*s + none[3]*c
		y4 := x[4]*s + none[4]*c
		y5 := x[5]*s + none[5]*c
		z0 := y0*stay[0] + y1*leave[1] + y2*leave[2] + y3*leave[3] + y4*leave[4] + y5*leave[5]
		z1 := y1*stay[1] + y0*come[1]
		z2 := y2*stay[2] + y0*come[2]
		z3 := y3*stay[3] + y0*come[3]
		z4 := y4*stay[4] + y0*come[4]
		z5 := y5*stay[5] + y0*come[5]
		x[0], x[1], x[2], x[3], x[4], x[5] = z0, z1, z2, z3, z4, z5
		mass += z0 + (z1 + z2) + (z3 + z4) + z5
	}
	x := &d.a[0]
	for v := range x {
		x[v] = none[v]*rest + back[v]
	}
	y0 := x[0]
	x[0] = y0 * stay[0]
	for v := 1; v < numV; v++ {
		x[0] += x[v] * leave[v]
		x[v] = x[v]*stay[v] + y0*come[v]
		mass += x[v]
	}
	d.mass = mass + x[0]
}

// scale makes the posterior sum up to one.
func (d *detector) scale() {
	inv := 1 / d.mass
	for b := range d.a {
		for v := range d.a[b] {
			d.a[b][v] *= inv
		}
	}
	d.mass = 1
}

// observe takes in one outcome of stream i that started at t.
func (d *detector) observe(t int64, i int, failed bool) {
	dt := 0.0
	if d.begun && t > d.last {
		dt = float64(t-d.last) * 1e-9
	}
	if !d.begun || t > d.last {
		d.last = t
	}
	d.begun = true
	if failed {
		d.struck[i] = t
	} else {
		d.base[i].Worked = true
	}
	if dt > 0 {
		d.listen()
	}

	p0 := d.base[i].p0
	known := d.covered[i] && (d.state == Blocked || d.state == Recovering)
	if known { // declared blocked already: that it fails is no news
		p0 = max(p0, d.rate)
	}
	var qv, okV [numV]float64
	if d.local[i] {
		qv = kills
	} else {
		d.refSeen[i] = t
	}
	for v := range okV {
		okV[v] = (1 - p0) * (1 - qv[v])
	}
	was := d.mass
	if failed {
		d.pass(dt, d.unhurt, &allLive)
		if d.target[i] && !known {
			d.wake(t, i)
		}
		d.fail(d.okB[i], &okV)
	} else {
		d.pass(dt, d.okB[i], &okV)
	}
	f0 := d.mass / was
	if d.mass < tiny {
		d.scale()
	}

	if d.awake > 0 {
		d.accuse(i, failed, known, dt, p0, f0, &qv)
	}
	if d.state == Blocked || d.state == Recovering {
		d.recover(t, i, failed)
		if !d.local[i] {
			d.calls.Ref++
			if !failed {
				d.calls.RefOK++
			}
		}
	}
}

// fail takes the share of each state that lets a probe fail.
func (d *detector) fail(okB []float64, okV *[numV]float64) {
	mass := 0.0
	for b := range d.a {
		x := &d.a[b]
		for v := range x {
			x[v] -= x[v] * okB[b] * okV[v]
			mass += x[v]
		}
	}
	d.mass = mass
}

// wake starts the hypotheses of a failing stream's scopes.
func (d *detector) wake(t int64, i int) {
	var fresh [numV]float64
	summed := false
	for _, g := range d.byStream[i] {
		for j := range strengths {
			h := &d.hyp[g*len(strengths)+j]
			if h.awake {
				continue
			}
			if !summed {
				fresh, summed = d.vantage(), true
			}
			*h = hypothesis{awake: true, since: t, failed: t, b: fresh}
			d.awake++
		}
	}
}

// vantage is the posterior of the vantage's states.
func (d *detector) vantage() (p [numV]float64) {
	for b := range d.a {
		x := &d.a[b]
		for v := range x {
			p[v] += x[v]
		}
	}
	for v := range p {
		p[v] /= d.mass
	}
	return p
}

// accuse moves every waking hypothesis by one outcome.
func (d *detector) accuse(i int, failed, known bool, dt, p0, f0 float64, qv *[numV]float64) {
	for g := range d.scopes {
		in := d.scopes[g].in[i]
		for j, p1 := range strengths {
			h := &d.hyp[g*len(strengths)+j]
			if !h.awake {
				continue
			}
			b := h.b
			if dt > 0 {
				z, rest := b[0], 0.0
				for v := 1; v < numV; v++ {
					b[v] = b[v]*d.sv[v] + z*d.iv[v]
					rest += b[v]
				}
				b[0] = 1 - rest
			}
			if known || !in {
				p1 = p0
			} else if p1 < 4*p0 {
				p1 = min(.95, 4*p0)
			}
			f1 := 0.0
			for v := range numV {
				// While the vantage is down a block would change nothing: the
				// last per cent of failures must not add up to evidence for one.
				p := p1
				if v == vBurst || v == vHalf || v == vDown {
					p = p0
				}
				y := b[v] * (1 - p) * (1 - qv[v])
				if failed {
					y = b[v] - y
				}
				b[v] = y
				f1 += y
			}
			if in && failed {
				h.failed = d.last
			}
			h.w += min(clip, math.Log(f1/f0))
			if h.w < hReset && d.last-h.failed > drowsy {
				h.awake = false
				d.awake--
				continue
			}
			if h.w <= 0 { // begin anew: what counts is what comes
				*h = hypothesis{awake: true, since: d.last, failed: h.failed, b: d.vantage()}
				continue
			}
			inv := 1 / f1
			for v := range b {
				b[v] *= inv
			}
			h.b = b
			switch {
			case in:
				h.counts.Asked++
				if failed {
					h.counts.Failed++
				}
			case d.calm[i]:
				h.counts.Calm++
				if !failed {
					h.counts.CalmOK++
				}
			case !d.local[i]:
				h.counts.Ref++
				if !failed {
					h.counts.RefOK++
				}
			}
		}
	}
}

// recover weighs an outcome of a blocked stream for the end of the block.
func (d *detector) recover(t int64, i int, failed bool) {
	if !d.covered[i] {
		return
	}
	if !failed && d.rate >= allOfIt && d.struck[i] < d.onset {
		// Where nearly all fails, one that never did is no recovery: the scope was
		// drawn too wide.
		d.covered[i] = false
		return
	}
	if v := d.vantage(); v[vBurst]+v[vHalf]+v[vDown] > .5 {
		return
	}
	p0, pb := d.base[i].p0, d.rate
	inc := math.Log((1 - p0) / (1 - pb))
	if failed {
		inc = math.Log(p0 / pb)
	}
	if d.d == 0 {
		d.dFrom, d.dAsked, d.dOK = t, 0, 0
	}
	// No more than enough: else a relapse would first have to undo a long calm.
	d.d = min(dOK+2.5, max(0, d.d+max(-2.5, min(2, inc))))
	d.dAsked++
	if !failed {
		d.dOK++
	}
	if d.d < dRecovering {
		x := 0.0
		if failed {
			x = 1
		}
		d.rate = min(.97, max(.2, d.rate+.03*(x-d.rate)))
	}
}

// forget drops the evidence gathered so far, not what was decided.
func (d *detector) forget() {
	for k := range d.hyp {
		d.hyp[k].awake = false
	}
	d.awake = 0
}

// best is the strongest hypothesis.
func (d *detector) best() (k int, w float64) {
	k = -1
	if d.awake == 0 {
		return k, 0
	}
	for i := range d.hyp {
		if h := &d.hyp[i]; h.awake && h.w > w {
			k, w = i, h.w
		}
	}
	return k, w
}
