package onset

import "math"

// decide draws the conclusion from everything observed so far. It is called
// after all outcomes of probes that started together, at the time when the last
// of them was known.
func (d *detector) decide(now int64) {
	k, w := d.best()
	d.name(now, w < hSuspect)
	if d.overlay == overlayVantage {
		// Evidence from before, or from the first moments of the outage, would
		// outlive it.
		d.forget()
		k, w = -1, 0
	}
	if d.state == OK || d.state == Suspect {
		d.score = w
		if k >= 0 {
			d.scopeN, d.onset, d.known = k/len(strengths), d.hyp[k].since, true
			d.calls = d.hyp[k].counts
		}
	}
	if w >= d.page {
		if k := d.guilty(now); k >= 0 {
			d.declare(now, k)
			return
		}
	}
	switch {
	case d.state == OK && w >= hSuspect:
		d.enter(now, Suspect, Event{})
	case d.state == Suspect && w < hClear:
		d.enter(now, OK, Event{})
	case d.state == Blocked && d.d >= dRecovering:
		d.settled = now
		d.enter(now, Recovering, Event{})
	case d.state == Recovering && d.d <= 0:
		d.flaps++
		d.enter(now, Blocked, Event{Relapse: true})
	case d.state == Recovering && d.d >= dOK && now-d.settled >= holdOK*int64(1+min(5, d.flaps)):
		d.enter(now, OK, Event{})
		d.scopeN, d.known, d.score = -1, false, 0
		clear(d.covered)
		d.forget()
	}
}

// guilty is the strongest hypothesis that has enough evidence to be declared,
// and has lasted long enough where that matters.
func (d *detector) guilty(now int64) int {
	best, top := -1, 0.0
	for k := range d.hyp {
		h := &d.hyp[k]
		if h.awake && h.w >= d.page && h.w > top && now-h.since >= d.patience(k) && h.counts.tell(k%len(strengths)) {
			best, top = k, h.w
		}
	}
	return best
}

// apartEnough is how many nats the accused and the controls must be apart, by
// strengths: what fails in part is the easiest to take for a lossy line.
var apartEnough = [len(strengths)]float64{8, 8, 4}

// enoughCalm is how many answers of controls it takes to compare at all.
const enoughCalm = 4

// tell says whether the accused fail otherwise than those whom nobody blocks,
// by the plain count of both: no state of the vantage fits every shape of an
// outage, but a block does not touch controls.
func (c *tally) tell(strength int) bool {
	return c.Calm < enoughCalm || !c.shared() && c.apart() >= apartEnough[strength]
}

// shared says that controls have failed half as often as the accused, and one
// time in five at the least. However sure it is that the two rates differ, the
// vantage is ill then.
func (c *tally) shared() bool {
	calm, accused := float64(c.Calm-c.CalmOK)/float64(max(c.Calm, 1)), float64(c.Failed)/float64(max(c.Asked, 1))
	return calm >= .2 && calm > accused/2
}

// apart is the evidence, in nats, that the accused fail at another rate than
// those whom nobody blocks: the log-likelihood ratio of two rates against one.
// It needs no story of what may ail the vantage.
func (c *tally) apart() float64 {
	f, n, g, m := float64(c.Failed), float64(c.Asked), float64(c.Calm-c.CalmOK), float64(c.Calm)
	if f*m <= g*n {
		return 0
	}
	return binomial(f, n) + binomial(g, m) - binomial(f+g, n+m)
}

// binomial is the log-likelihood of k failures in n at their own rate.
func binomial(k, n float64) float64 {
	x := 0.0
	if k > 0 {
		x += k * math.Log(k/n)
	}
	if k < n {
		x += (n - k) * math.Log((n-k)/n)
	}
	return x
}

// patience is how long what hypothesis k says must have lasted.
//
// What fails only in part: the edge of a short burst of loss, met by probes a
// few seconds apart, looks the same for a moment. And where someone abroad can
// say whether the messenger works there, an answer is worth waiting for, but
// not for long.
func (d *detector) patience(k int) (t int64) {
	h, sc := &d.hyp[k], &d.scopes[k/len(strengths)]
	if strengths[k%len(strengths)] < .9 {
		t = partialAge
	}
	if sc.net && 2*h.counts.RefOK <= h.counts.Ref && d.abroad() {
		t = max(t, abroadAge)
	}
	return t
}

// abroad says whether there are references and they are heard from.
func (d *detector) abroad() bool {
	for i := range d.streams {
		if !d.local[i] && d.heard(i) {
			return true
		}
	}
	return false
}

// declare a block, or that more of the messenger is blocked than was said.
func (d *detector) declare(now int64, k int) {
	h, g, p1 := &d.hyp[k], k/len(strengths), strengths[k%len(strengths)]
	ev := Event{Share: p1, Initial: true}
	if d.state == OK || d.state == Suspect {
		d.flaps = 0
		clear(d.covered)
		d.episode++
		d.paged = now
	} else if ev.Widened = true; now-d.paged >= widenPage {
		d.episode++
		d.paged = now
	} else {
		ev.Relapse = true
	}
	for i, in := range d.scopes[g].in {
		if in {
			d.covered[i] = true
			if d.base[i].Worked {
				ev.Initial = false
			}
		}
	}
	if !ev.Relapse {
		d.onset, d.known = h.since, true
	}
	d.scopeN, d.score, d.calls = g, h.w, h.counts
	d.d, d.rate = 0, max(.3, p1-.05)
	ev.Rival, ev.RivalP = d.rival()
	d.believe(h)
	d.forget()
	d.enter(now, Blocked, ev)
}

// believe takes over what hypothesis h holds of the vantage. The filter so far
// was that of a world without the block: it had to blame something else.
func (d *detector) believe(h *hypothesis) {
	for b := range d.a {
		for v := range numV {
			d.a[b][v] = h.b[v] * d.priorB[b]
		}
	}
	d.mass = 1
}

func (d *detector) enter(now int64, s State, ev Event) {
	d.state, d.since = s, now
	ev.State = s
	d.tell(now, ev)
}

// tell fills in what every event carries, and hands it on.
func (d *detector) tell(now int64, ev Event) {
	ev.Time, ev.Messenger = at(now), d.messenger
	ev.Episode = d.episode
	if ev.Rival == "" {
		ev.Rival, ev.RivalP = d.rival()
	}
	if ev.State != Outage && ev.State != VantageDown {
		ev.Score = d.score
		if d.scopeN >= 0 {
			ev.Scope = d.scopes[d.scopeN].name
		}
		if d.known {
			ev.Onset = at(d.onset)
		}
	}
	if ev.State == Blocked {
		ev.Attribution = d.attribution()
	}
	ev.Evidence = d.sentence(&ev)
	d.emit(&ev)
}

// attribution says whether someone abroad has seen the messenger work since
// the onset.
func (d *detector) attribution() string {
	if d.calls.RefOK > 0 && 2*d.calls.RefOK > d.calls.Ref {
		return Confirmed
	}
	return Unconfirmed
}

// rival is the likeliest benign story and its probability.
func (d *detector) rival() (name string, p float64) {
	v, b := 0, 0
	for w := range numV {
		for c := range d.a {
			if w+c > 0 && (d.a[c][w] > d.a[b][v] || v+b == 0) {
				v, b = w, c
			}
		}
	}
	switch {
	case v == 0:
		name = d.b[b].name
	case b == 0:
		name = vantageStates[v].name
	default:
		name = vantageStates[v].name + "+" + d.b[b].name
	}
	return name, d.a[b][v] / d.mass
}

// name tells of a benign cause that is all but certain, once. One that is not
// the vantage's only counts while the block story does not do better.
func (d *detector) name(now int64, elsewhere bool) {
	if d.overlay == 0 && d.a[0][vFine] > .5*d.mass {
		return // that nothing is wrong is likelier than all else together
	}
	over := 0
	switch down := d.vantage()[vDown]; {
	case down > .9 || d.overlay == overlayVantage && down > .5:
		over = overlayVantage
	case elsewhere:
		for b := 1; b < len(d.b); b++ {
			if p := d.elsewhere(b); d.b[b].lasting && (p > .97 || d.overlay == b && p > .5) {
				over = b
			}
		}
	}
	if over == d.overlay {
		return
	}
	d.overlay = over
	switch {
	case over == overlayVantage:
		d.tell(now, Event{State: VantageDown, Cause: vantageStates[vDown].name})
	case over > 0:
		d.tell(now, Event{State: Outage, Cause: d.b[over].name})
	}
}

// elsewhere is the probability of benign state b.
func (d *detector) elsewhere(b int) (p float64) {
	for _, x := range d.a[b] {
		p += x
	}
	return p / d.mass
}
