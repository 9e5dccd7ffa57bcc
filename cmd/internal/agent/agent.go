// Package agent measures and judges: it lets the schedule run the checks, holds
// back what cannot be told yet, and keeps what is known. `run` and `check` walk
// the same path through it; only the schedule differs.
package agent

import (
	"cmp"
	"context"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/messenger-probe/messenger-probe/probe"
	"github.com/messenger-probe/messenger-probe/probe/schedule"
	"github.com/messenger-probe/messenger-probe/probe/verdict"
)

// A Sink is told what the agent finds. Its methods are called one at a time
// and must not block.
type Sink interface {
	// Record is told each result once, as it counts.
	Record(probe.Result)
	// Judged is told what all results mean, at most once a second.
	Judged(Snapshot)
	// Confirming is told of each run that was asked for beyond the schedule.
	Confirming(messenger string)
	// Changed is told each change of the state of a function.
	Changed(Change)
}

// A Snapshot is everything known at one moment.
type Snapshot struct {
	Time     time.Time
	Vantage  verdict.Vantage
	Verdicts []verdict.Verdict
	Results  []probe.Result // the newest of each check, in the order of the checks; a Sink is not told them again
	Arms     []verdict.Arm  // the follow-up questions that the verdicts rest on; not told to a Sink either
	Doubts   []Doubt        // what the onset detector makes of each messenger
	Measured bool           // there are results
}

// Options are an agent's surroundings.
type Options struct {
	Net    probe.Net
	Sink   Sink
	Log    *slog.Logger
	Lag    func(time.Duration) // told how late each run starts; may be nil
	Memory Memory              // of an earlier run; may be zero

	// Parallel is how many runs are in flight at once, all hosts together; default
	// 64. Check, for which a person waits, takes twice as many.
	Parallel int
}

// Limits of the agent.
const (
	extraPerDay = 5000 // runs beyond the schedule a day
	// history is how many results of a check are kept.
	history = 3
	// armsEvery is how long the answer to a follow-up question stands. Filters
	// hold a connection's fate against its addresses for up to seven minutes;
	// asking sooner could measure the last answer's shadow.
	armsEvery = 10 * time.Minute
	// calmShare is the part of an interval after which all is judged anew although
	// nothing but more of the same came in: it may be slower than before.
	calmShare = 6
	// burstsEvery is how many base intervals it stands whether the packets of a
	// call are lost. It is asked on its schedule far more seldom.
	burstsEvery = 5
	// armSpacing is the least time between the starts of two questions about one
	// address.
	armSpacing = time.Second
	// unprovenEvery is how long it stands whether an endpoint speaks a protocol
	// at all that nobody has seen it speak.
	unprovenEvery = 24 * time.Hour
)

// An Agent holds the newest results of its checks and what they mean.
type Agent struct {
	o      Options
	runner *schedule.Runner
	proven probe.Proven

	mu       sync.Mutex
	interval time.Duration
	records  map[string]*verdict.Record
	listed   []verdict.Record  // in the order of the checks
	order    []*verdict.Record // they
	line     line
	states   map[[2]string]*stable
	detector *detector               // nil: there is none
	abroad   bool                    // agents abroad are heard
	reports  []Report                // the newest of each
	ill      map[[2]string]time.Time // since when functions fail; kept while there are reports
	arms     map[armKey]verdict.Arm
	unasked  []verdict.Ask
	asked    map[armKey]time.Time     // when each arm was last asked for
	put      map[netip.Addr]time.Time // when something was last asked about an address
	judged   Snapshot                 // the newest, without results
	dirty    bool                     // something was learned since
	calm     bool                     // only more of the same was
}

// armKey is a follow-up question about a check.
type armKey struct {
	of  string
	ask verdict.Ask
}

// New is an agent that has not asked anything yet.
func New(o Options) *Agent {
	if o.Parallel <= 0 {
		o.Parallel = 64
	}
	a := &Agent{o: o, records: map[string]*verdict.Record{}, states: map[[2]string]*stable{}, ill: map[[2]string]time.Time{},
		arms: map[armKey]verdict.Arm{}, asked: map[armKey]time.Time{}, put: map[netip.Addr]time.Time{}}
	a.proven.Restore(o.Memory.Proven)
	a.line.Vantage = verdict.JudgeVantage(nil, 0)
	a.runner = schedule.New(o.Net, schedule.Options{
		MaxInFlight: o.Parallel,
		PerGate:     2,
		ExtraPerDay: extraPerDay,
		Record:      a.receive,
		Lag: func(d time.Duration) {
			a.mu.Lock()
			a.line.lag.add(time.Now(), d)
			a.mu.Unlock()
			if o.Lag != nil {
				o.Lag(d)
			}
		},
	})
	return a
}

// Set starts to measure these checks from now on. What is known of checks that
// stay is kept; the rest is forgotten.
func (a *Agent) Set(checks []probe.Check, interval time.Duration) {
	a.mu.Lock()
	a.interval = interval
	a.adopt(checks)
	for k := range a.asked {
		if a.records[k.of] == nil {
			a.forget(k)
		}
	}
	measured := map[[2]string]bool{}
	for _, c := range checks {
		measured[[2]string{c.Messenger, c.Function}] = true
	}
	maps.DeleteFunc(a.states, func(k [2]string, _ *stable) bool { return !measured[k] })
	maps.DeleteFunc(a.ill, func(k [2]string, _ time.Time) bool { return !measured[k] })
	a.dirty = true
	a.detect(checks)
	a.remember()
	a.mu.Unlock()
	a.runner.Set(a.watch(checks))
}

// adopt makes records of checks, and keeps those there are.
func (a *Agent) adopt(checks []probe.Check) {
	kept := make(map[string]*verdict.Record, len(checks))
	a.order = make([]*verdict.Record, 0, len(checks))
	a.listed = make([]verdict.Record, len(checks))
	for i, c := range checks {
		r, id := &a.listed[i], c.ID()
		if old := a.records[id]; old != nil {
			*r = *old
		}
		r.Check = c
		kept[id] = r
		a.order = append(a.order, r)
	}
	a.records = kept
	a.line.adopt(a.order)
	a.line.inquiries = slices.DeleteFunc(a.line.inquiries, func(q inquiry) bool {
		return q.about != nil && kept[q.about.Check.ID()] == nil
	})
}

// Run measures until ctx is done, then waits for what is in flight.
func (a *Agent) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case now := <-tick.C:
				a.step(now)
			}
		}
	}()
	err := a.runner.Run(ctx)
	cancel()
	<-done
	return err
}

// receive takes a result from the schedule.
func (a *Agent) receive(r probe.Result) {
	a.mu.Lock()
	defer a.mu.Unlock()
	rec := a.records[r.Check.ID()]
	if rec == nil {
		return // removed by a reload while it ran
	}
	r.Check = rec.Check // without the watch around its prober
	r = byOtherResolver(a.proven.Note(r))
	if a.detector != nil {
		a.detector.ended(&r)
	}
	if r.Void == probe.ReasonPanic {
		a.o.Log.Error("a prober panicked; this is a defect of the program", "check", r.Check.ID(), "error", r.Steps[0].Err)
	}
	if calibrates(&r.Check) {
		a.keep(rec, r)
		a.control(rec, r)
		return
	}
	a.pair(&r)
	switch o, reason := r.Judge(); {
	case reason == probe.ReasonLocal && failing(rec) == 0:
		a.doubtLine(r.Start)
	case o == probe.Fail && r.Start.Before(a.line.epoch):
		r.Void = a.line.before
	case o == probe.Fail && voided(&a.line.Vantage, r) == "" && doubtful(rec):
		// The line may have died with it: held back until controls that were
		// asked after it have answered.
		a.inquire(r.Start, &r)
		return
	}
	r.Void = voided(&a.line.Vantage, r)
	a.keep(rec, r)
}

// doubtful says that a check is not yet known to fail: two failures in a row
// that count make it so. Only until then are failures held back and runs asked
// for because of them; what is blocked for months must not spend a budget.
func doubtful(rec *verdict.Record) bool { return failing(rec) < 2 }

// failing is how many results that count failed since one worked.
func failing(rec *verdict.Record) int {
	n := 0
	for i := range rec.Results {
		switch rec.Results[i].Outcome() {
		case probe.OK:
			return n
		case probe.Fail:
			n++
		}
	}
	return n
}

// voided is the reason for which r does not count at a vantage like v. What was
// answered although nobody answers controls over the same is an answer.
func voided(v *verdict.Vantage, r probe.Result) probe.Reason {
	if r.Void != "" || v.State == verdict.Online && r.Outcome() == probe.OK {
		return r.Void
	}
	return v.Void(&r.Check)
}

// byOtherResolver voids what a resolver other than the system's did not answer
// at all: its silence says nothing about the name.
func byOtherResolver(r probe.Result) probe.Result {
	if r.Check.Protocol != probe.ProtoDNS || r.Check.Messenger == probe.Control || r.Void != "" {
		return r
	}
	f := r.Failed()
	if f == nil {
		return r
	}
	if d, ok := r.Check.Prober.(probe.DNS); ok && d.Server.Name != probe.System && !answered(f) {
		r.Void = probe.ReasonResolver
	}
	return r
}

// answered says whether a failed lookup failed by an answer.
func answered(s *probe.Step) bool {
	return s.Op == probe.OpResolve && s.DNS != nil && len(s.DNS.Replies) > 0
}

// keep files a result, at its place in time, and tells it on. Where a check
// works again, those of its messenger that still stand as failing are asked
// soon: some have intervals of many minutes, and would hold up the news.
func (a *Agent) keep(rec *verdict.Record, r probe.Result) {
	if r.Outcome() == probe.OK && failing(rec) > 1 {
		a.thaw(r.Check.Messenger, r.Start)
	}
	at := slices.IndexFunc(rec.Results, func(old probe.Result) bool { return !old.Start.After(r.Start) })
	if at < 0 {
		at = len(rec.Results)
	}
	same := sameAgain(rec, &r)
	a.calm, a.dirty = a.calm || same, a.dirty || !same
	rec.Results = slices.Insert(rec.Results, at, r)
	rec.Note(&r)
	if len(rec.Results) > history {
		rec.Results = rec.Results[:history]
	}
	a.o.Sink.Record(r)
}

// sameAgain says whether r is one more of what a check has been finding all the
// time, and so changes no verdict.
func sameAgain(rec *verdict.Record, r *probe.Result) bool {
	if len(rec.Results) < 2 {
		return false
	}
	o, reason := r.Judge()
	for i := range rec.Results {
		was := &rec.Results[i]
		if wo, wr := was.Judge(); wo != o || wr != reason {
			return false
		}
		if f, wf := r.Failed(), was.Failed(); (f == nil) != (wf == nil) || f != nil && (f.Op != wf.Op || f.Failure != wf.Failure) {
			return false
		}
	}
	return true
}

// Lost says that this machine has no way of an address family: what failed over it
// of late, when the way was going, says nothing. It may be said again and again.
func (a *Agent) Lost(family string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, rec := range a.order {
		if rec.Check.Family != family {
			continue
		}
		for i := range rec.Results {
			if r := &rec.Results[i]; r.Outcome() == probe.Fail {
				r.Void = probe.ReasonLocal
				rec.Since = time.Time{}
				a.dirty = true
			}
		}
	}
}

// thaw asks for a run of each failing check of a messenger that was not asked
// since.
func (a *Agent) thaw(messenger string, since time.Time) {
	for _, rec := range a.order {
		if rec.Check.Messenger == messenger && failing(rec) > 1 && rec.Results[0].Start.Before(since.Add(-rec.Check.Timeout)) {
			a.runner.Request(rec.Check.ID())
		}
	}
}

// step does what time alone brings about.
func (a *Agent) step(now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.line.heard {
		a.doubtLine(now)
	}
	a.settle(now)
	a.judgeVantage(now)
	a.advance(now)
	if !a.dirty && !(a.calm && now.Sub(a.judged.Time) >= a.interval/calmShare) {
		return
	}
	a.dirty, a.calm = false, false
	a.followUp(now)
	a.judge(now)
	a.o.Sink.Judged(a.judged)
}

// judge renews what is shown, and tells what changed.
func (a *Agent) judge(now time.Time) {
	s := a.snapshot(now)
	for i := range s.Verdicts {
		c := a.decide(now, &s.Verdicts[i])
		if c == nil {
			k := a.states[[2]string{s.Verdicts[i].Messenger, s.Verdicts[i].Function}]
			a.dirty = a.dirty || k.proposed != k.state // a change that waits for its time
			continue
		}
		a.o.Log.Info("function", "messenger", c.Messenger, "function", c.Function, "state", c.State, "was", c.Was,
			"mechanism", c.Mechanism, "confidence", c.Confidence, "why", first(c.Evidence))
		a.o.Sink.Changed(*c)
	}
	s.Doubts = a.detector.doubts()
	a.judged = s
}

// snapshot is what the results mean at this moment, without any history.
func (a *Agent) snapshot(now time.Time) Snapshot {
	s := Snapshot{Time: now, Vantage: a.line.Vantage, Verdicts: verdict.Judge(a.line.Vantage, a.listed, a.answers())}
	a.weigh(now, s.Verdicts)
	s.Measured = slices.ContainsFunc(a.order, func(rec *verdict.Record) bool { return len(rec.Results) > 0 })
	return s
}

// whole is s with the newest result of each check and each follow-up.
func (a *Agent) whole(s Snapshot) Snapshot {
	s.Arms = a.answers()
	s.Results = make([]probe.Result, 0, len(a.order))
	for _, rec := range a.order {
		if len(rec.Results) > 0 {
			s.Results = append(s.Results, rec.Results[0])
		}
	}
	return s
}

// followUp asks the differential questions about what fails persistently, and
// forgets those about what works again. The order is random, and those about one
// address come one after another.
func (a *Agent) followUp(now time.Time) {
	for k, t := range a.asked {
		if a.answeredBy(k, t, now) {
			a.forget(k)
		}
	}
	maps.DeleteFunc(a.put, func(_ netip.Addr, t time.Time) bool { return now.Sub(t) >= armSpacing })
	known := func(of string, ask verdict.Ask) bool {
		t, ok := a.asked[armKey{of, ask}]
		every := armsEvery
		switch rec := a.records[of]; {
		case len(rec.Results) > 0 && rec.Results[0].Void == probe.ReasonInformational:
			every = unprovenEvery
		case ask == verdict.AskAgain && rec.Check.Protocol == probe.ProtoSTUN:
			every = burstsEvery * a.interval
		}
		return ok && now.Sub(t) < every
	}
	qs := a.questions(2, known)
	rand.Shuffle(len(qs), func(i, j int) { qs[i], qs[j] = qs[j], qs[i] })
	for _, q := range qs {
		k := armKey{q.Of, q.Ask}
		if !a.put[q.About].IsZero() {
			a.dirty = true // the next second
			continue
		}
		if l := a.records[q.Of].Results[0]; q.Ask == verdict.AskAgain && now.Sub(l.Start.Add(l.Took)) < a.interval/calmShare {
			a.dirty = true // not in the same moment of the line
			continue
		}
		if !a.runner.Go(q.Check, func(r probe.Result) { a.answered(k, r) }) {
			continue
		}
		a.asked[k], a.put[q.About] = now, now
		a.o.Sink.Confirming(q.Check.Messenger)
	}
}

// questions is the differential questions that are open and may be asked.
func (a *Agent) questions(failures int, asked func(of string, ask verdict.Ask) bool) []verdict.Question {
	return slices.DeleteFunc(verdict.Questions(a.line.Vantage, a.listed, failures, asked),
		func(q verdict.Question) bool { return slices.Contains(a.unasked, q.Ask) })
}

// Refrain says which questions are never asked.
func (a *Agent) Refrain(asks ...verdict.Ask) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.unasked = asks
}

// answeredBy says that the check of a question that was asked at t answers it by
// itself: it works again. The pair of a slow transfer stands until the next.
func (a *Agent) answeredBy(k armKey, t, now time.Time) bool {
	rec := a.records[k.of]
	if len(rec.Results) == 0 || rec.Results[0].Outcome() != probe.OK {
		return false
	}
	if k.ask == verdict.AskAgain || k.ask == verdict.AskControlRate {
		return rec.Results[0].Start.After(t)
	}
	return now.Sub(t) > armsEvery
}

// forget drops a follow-up question and its answer.
func (a *Agent) forget(k armKey) {
	delete(a.asked, k)
	delete(a.arms, k)
}

// answered takes the result of a follow-up.
func (a *Agent) answered(k armKey, r probe.Result) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if r.Outcome() == probe.Void || a.records[k.of] == nil {
		return // says nothing, or of a check that a reload removed
	}
	if r.Start.Before(a.line.back) {
		a.forget(k) // see unask
		return
	}
	arm := verdict.Arm{Of: k.of, Ask: k.ask, Result: r}
	a.arms[k] = arm
	a.learn(&arm)
	a.dirty = true
}

// learn lets an informational check count, also what it found before, where an
// arm shows that its endpoint speaks the protocol.
func (a *Agent) learn(arm *verdict.Arm) {
	rec := a.records[arm.Of]
	if rec == nil || !arm.Proves() {
		return
	}
	a.proven.Add(arm.Of)
	for i := range rec.Results {
		if rec.Results[i].Void == probe.ReasonInformational {
			rec.Results[i].Void = ""
		}
	}
}

// answers is the arms in a stable order.
func (a *Agent) answers() []verdict.Arm {
	arms := make([]verdict.Arm, 0, len(a.arms))
	for _, k := range slices.SortedFunc(maps.Keys(a.arms), func(x, y armKey) int {
		return cmp.Or(cmp.Compare(x.of, y.of), cmp.Compare(x.ask, y.ask))
	}) {
		arms = append(arms, a.arms[k])
	}
	return arms
}

// Snapshot is what is known: the results as they are, and what they meant when
// they last said anything new.
func (a *Agent) Snapshot() Snapshot {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	if a.judged.Time.IsZero() {
		a.judge(now)
	}
	s := a.whole(a.judged)
	s.Time = now
	return s
}
