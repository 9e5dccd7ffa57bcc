package agent

import (
	"cmp"
	"slices"
	"time"

	"github.com/messenger-probe/messenger-probe/probe"
	"github.com/messenger-probe/messenger-probe/probe/verdict"
)

// Limits of the judgement of the vantage.
const (
	// perRole is how many hosts of each role are asked whether the line lives.
	perRole = 3
	// inARow is how many controls must fail in a row to have them asked.
	inARow = 4
	// patience is how many base intervals the result of a control stands, and a
	// failure waits for sentinels that may not be asked beyond the schedule.
	patience = 6
	// settling is how long after one inquiry into the line alone another may
	// begin.
	settling = 15 * time.Second
)

// line is the vantage and what it is judged by.
type line struct {
	verdict.Vantage
	controls  []*verdict.Record    // all of them, in the order of the checks
	sentinels []*verdict.Record    // one for each host that tells quickly
	said      []probe.Result       // what they say, room to judge it each second
	addressed []*verdict.Record    // those that need no name
	called    map[string]time.Time // when each was last asked for beyond the schedule
	inquiries []inquiry
	alive     time.Time    // end of the newest answer that showed a line in order to be alive
	back      time.Time    // when the vantage was last found online again
	epoch     time.Time    // when the line was found alive again
	before    probe.Reason // why what was asked before that counts for nothing
	doubted   time.Time    // when the last inquiry into the line alone began
	lost      int          // controls that failed since one answered
	heard     bool         // a control has been asked at all
	lag       lagWindow
}

// An inquiry asks sentinels whether the line was alive after a moment.
type inquiry struct {
	since time.Time
	of    []string      // IDs of the sentinels
	about *probe.Result // the failure that is held back for it; nil: the line alone
	wide  bool          // controls that need no name are among them
}

// calibrates says that a check is one of those that the line is judged by. The
// other controls are judged like messengers.
func calibrates(c *probe.Check) bool {
	return c.Messenger == probe.Control && (c.Function == probe.Domestic || c.Function == probe.Foreign)
}

// telling says that the answer to a check shows that the line is alive.
func telling(c *probe.Check) bool {
	return calibrates(c) && c.Family == probe.IP4 && (c.Protocol == probe.ProtoTLS || c.Protocol == probe.ProtoHTTP)
}

// byAddress says that a control needs no name, so that a dead resolver is told
// from a dead line.
func byAddress(c *probe.Check) bool {
	d, ok := c.Prober.(probe.DNS)
	return ok && calibrates(c) && d.Server.Name != probe.System && d.Server.Transport != probe.OverUDP
}

// sentinel says that a control tells quickly whether the line is alive.
func sentinel(c *probe.Check) bool { return telling(c) && c.Protocol == probe.ProtoTLS }

// severed says that nothing, or nothing abroad, can be reached: the states that
// come and go at a stroke, after which older answers of controls mean nothing.
func severed(s verdict.VantageState) bool { return s == verdict.Offline || s == verdict.Whitelist }

// adopt takes over the records of new checks.
func (l *line) adopt(order []*verdict.Record) {
	l.controls, l.sentinels, l.addressed = nil, nil, nil
	if l.called == nil {
		l.called = map[string]time.Time{}
	}
	hosts := map[string]bool{}
	for _, rec := range order {
		c := &rec.Check
		if c.Messenger == probe.Control {
			l.controls = append(l.controls, rec)
		}
		if host := c.Function + "/" + c.Endpoint; sentinel(c) && !hosts[host] {
			hosts[host] = true
			l.sentinels = append(l.sentinels, rec)
		}
		if byAddress(c) {
			l.addressed = append(l.addressed, rec)
		}
	}
}

// control takes what a control has said into account.
func (a *Agent) control(rec *verdict.Record, r probe.Result) {
	l := &a.line
	l.heard = true
	if telling(&r.Check) {
		switch o, reason := r.Judge(); {
		case o == probe.OK:
			l.lost = 0
			if end := r.Start.Add(r.Took); l.State == verdict.Online && end.After(l.alive) {
				l.alive = end
			}
			// A sign of life.
			if l.State == verdict.Offline || l.State == verdict.Whitelist && r.Check.Function == probe.Foreign {
				a.doubtLine(r.Start)
			}
		case o == probe.Fail || reason == probe.ReasonLocal:
			if l.lost++; l.lost%inARow == 0 && l.State != verdict.Offline {
				a.doubtLine(r.Start)
			}
		}
	}
	now := time.Now()
	if len(rec.Results) < 2 || rec.Results[1].Outcome() != r.Outcome() {
		a.judgeVantage(now) // else the next second is soon enough
	}
	if sentinel(&r.Check) {
		a.settle(now)
	}
}

// doubtLine has the line looked into for its own sake, now and then.
func (a *Agent) doubtLine(since time.Time) {
	if now := time.Now(); now.Sub(a.line.doubted) >= settling {
		a.line.doubted = now
		a.inquire(since, nil)
	}
}

// inquire asks sentinels whether the line was alive after since: three of each
// role, rather those that answered when they were last asked.
func (a *Agent) inquire(since time.Time, about *probe.Result) {
	q := inquiry{since: since, about: about}
	a.call(&q, a.line.sentinels)
	a.line.inquiries = append(a.line.inquiries, q)
}

// nameless says that a run did not get as far as an address.
func nameless(r probe.Result) bool {
	f := r.Failed()
	return f != nil && f.Op == probe.OpResolve
}

// call has some of these controls of each role asked for an inquiry.
func (a *Agent) call(q *inquiry, controls []*verdict.Record) {
	n := map[string]int{}
	for _, well := range []bool{true, false} {
		for _, rec := range controls {
			role := rec.Check.Function
			if well != (len(rec.Results) == 0 || rec.Results[0].Outcome() == probe.OK) || n[role] == perRole {
				continue
			}
			n[role]++
			id := rec.Check.ID()
			q.of = append(q.of, id)
			if len(rec.Results) > 0 && !rec.Results[0].Start.Before(q.since) || !a.line.called[id].Before(q.since) {
				continue // has answered, or will
			}
			if a.runner.Request(id) {
				a.line.called[id] = time.Now()
			}
		}
	}
}

// hear is what the sentinels of an inquiry have said, and whether they have all
// spoken.
func (a *Agent) hear(q *inquiry) (said []probe.Result, all bool) {
	all = true
	for _, id := range q.of {
		rec := a.records[id]
		switch {
		case rec == nil: // removed by a reload
		case len(rec.Results) > 0 && !rec.Results[0].Start.Before(q.since):
			said = append(said, rec.Results[0])
		default:
			all = false
		}
	}
	return said, all
}

// settle closes the inquiries that have an answer, and those that will not get
// one: what could not be asked again counts for nothing.
func (a *Agent) settle(now time.Time) {
	l := &a.line
	open := l.inquiries
	l.inquiries = nil
	for i := range open {
		q := &open[i]
		said, all := a.hear(q)
		if !q.wide && slices.ContainsFunc(said, nameless) {
			q.wide = true
			a.call(q, a.line.addressed)
			said, all = a.hear(q)
		}
		v := verdict.JudgeVantage(said, 0)
		alive := v.State == verdict.Online && (all || foreign(said) >= 2)
		known := q.about != nil && severed(l.State)
		if !alive && !all && !known && now.Sub(q.since) < patience*a.interval {
			l.inquiries = append(l.inquiries, *q)
			continue
		}
		if all && severed(v.State) {
			a.become(v)
		} else if alive && severed(l.State) && q.about == nil {
			l.epoch, l.before = oldest(said), l.State.Reason()
			a.become(a.standing(now))
		}
		if r := q.about; r != nil {
			r.Void = voided(&l.Vantage, *r)
			if !alive && r.Void == "" {
				r.Void = cmp.Or(v.State.Reason(), probe.ReasonImpaired)
			}
			a.release(*r)
		}
	}
}

// foreign is how many foreign hosts have answered.
func foreign(said []probe.Result) int {
	n := 0
	for i := range said {
		if said[i].Check.Function == probe.Foreign && said[i].Outcome() == probe.OK {
			n++
		}
	}
	return n
}

func oldest(rs []probe.Result) time.Time {
	return slices.MinFunc(rs, func(a, b probe.Result) int { return a.Start.Compare(b.Start) }).Start
}

// release lets a failure go that was held back, and has the check asked again
// where it is the first.
func (a *Agent) release(r probe.Result) {
	rec := a.records[r.Check.ID()]
	a.keep(rec, r)
	if failing(rec) == 2 {
		a.askBeside(rec, &r)
	}
	if r.Outcome() == probe.Fail && failing(rec) == 1 && a.runner.Request(r.Check.ID()) {
		a.o.Sink.Confirming(r.Check.Messenger)
	}
}

// askBeside asks again what else was asked of the address of a failure, and has
// not been since it began: only answers of the same time can be held against
// each other.
func (a *Agent) askBeside(rec *verdict.Record, r *probe.Result) {
	to := r.Addr().Addr()
	if !to.IsValid() {
		return
	}
	for _, other := range a.order {
		if other == rec || len(other.Results) == 0 || other.Check.Messenger != rec.Check.Messenger {
			continue
		}
		if last := &other.Results[0]; last.Addr().Addr() == to && last.Start.Before(rec.Since) {
			a.runner.Request(other.Check.ID())
		}
	}
}

// judgeVantage judges from what the controls said when they were last asked. A
// line that is severed stays so until an inquiry finds it alive: single answers
// would make it come and go.
func (a *Agent) judgeVantage(now time.Time) {
	v := a.standing(now)
	if severed(a.line.State) && len(a.line.sentinels) > 0 {
		v.State, v.Evidence, v.Down = a.line.State, a.line.Evidence, nil
	}
	a.become(v)
}

// standing is the vantage as the newest results of all controls have it, as far
// as they still stand.
func (a *Agent) standing(now time.Time) verdict.Vantage {
	rs := a.line.said[:0]
	for _, rec := range a.line.controls {
		if len(rec.Results) == 0 {
			continue
		}
		r := &rec.Results[0]
		stands := rec.Check.Interval*3/2 + 2*settling
		if calibrates(&rec.Check) {
			stands = min(stands, patience*a.interval+2*settling)
			if r.Start.Before(a.line.epoch) {
				continue
			}
		}
		if now.Sub(r.Start) < stands {
			rs = append(rs, *r)
		}
	}
	a.line.said = rs
	return verdict.JudgeVantage(rs, a.line.lag.worst(now))
}

// become makes v the vantage.
func (a *Agent) become(v verdict.Vantage) {
	if v.State != a.line.State {
		why := ""
		if len(v.Evidence) > 0 {
			why = v.Evidence[0]
		}
		a.o.Log.Info("vantage", "state", v.State, "was", a.line.State, "why", why)
		a.dirty = true
		if v.State == verdict.Online {
			a.line.back = time.Now()
			a.unask()
		}
	}
	a.line.Vantage = v
}

// unask forgets the answers to questions that the line did not outlive: their
// silence may have been its own.
func (a *Agent) unask() {
	for k, arm := range a.arms {
		if arm.Result.Start.Add(arm.Result.Took).After(a.line.alive) {
			a.forget(k)
		}
	}
}

// lagWindow is how late the schedule ran in the last minute.
type lagWindow struct {
	slots [6]struct {
		at    int64 // tens of seconds
		worst time.Duration
	}
}

func (w *lagWindow) add(now time.Time, d time.Duration) {
	at := now.Unix() / 10
	s := &w.slots[at%6]
	if s.at != at {
		s.at, s.worst = at, 0
	}
	s.worst = max(s.worst, d)
}

func (w *lagWindow) worst(now time.Time) time.Duration {
	var d time.Duration
	for _, s := range w.slots {
		if now.Unix()/10-s.at < 6 {
			d = max(d, s.worst)
		}
	}
	return d
}
