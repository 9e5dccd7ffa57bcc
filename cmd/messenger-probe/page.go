package main

import (
	"net/http"
	"slices"
	"time"

	"github.com/messenger-probe/messenger-probe/cmd/internal/agent"
	"github.com/messenger-probe/messenger-probe/cmd/internal/events"
	"github.com/messenger-probe/messenger-probe/cmd/internal/history"
	"github.com/messenger-probe/messenger-probe/cmd/internal/page"
	"github.com/messenger-probe/messenger-probe/probe"
	"github.com/messenger-probe/messenger-probe/probe/verdict"
)

// What the strips of the page span.
const (
	halfHour  = 30 * time.Minute
	halfHours = 48
	hours     = 7 * 24
)

// recollect opens the history of the page. What is wrong with it is said, and
// is no reason not to measure.
func (d *daemon) recollect(dir string) {
	var err error
	if d.history, err = history.Open(dir, time.Now()); err != nil {
		d.log.Warn("the history of the page is not whole", "error", err)
	}
}

// statusPage is the page as a handler.
func (d *daemon) statusPage() (http.Handler, error) { return page.New(d.view) }

// count adds a result to the history. The time that a lookup or a transfer
// takes says nothing of how fast a messenger answers.
func (d *daemon) count(r *probe.Result) {
	o := r.Outcome()
	if o == probe.Void || r.Check.Messenger == probe.Control {
		return
	}
	took := r.Took
	if p := r.Check.Protocol; p == probe.ProtoDNS || p == probe.ProtoTransfer {
		took = 0
	}
	d.history.Record(time.Now(), r.Check.Messenger, r.Check.Function, o == probe.OK, took)
}

// marks are states as the history has them.
var marks = map[verdict.State]history.Mark{verdict.Unknown: history.Unknown, verdict.OK: history.OK,
	verdict.Degraded: history.Degraded, verdict.Unreachable: history.Unreachable, verdict.Blocked: history.Blocked}

// states is marks the other way.
var states = map[history.Mark]verdict.State{history.Unknown: verdict.Unknown, history.OK: verdict.OK,
	history.Degraded: verdict.Degraded, history.Unreachable: verdict.Unreachable, history.Blocked: verdict.Blocked}

// note adds to the history what is said now.
func (d *daemon) note(s *agent.Snapshot) {
	now := time.Now()
	for _, v := range s.Verdicts {
		d.history.Mark(now, v.Messenger, v.Function, marks[v.State])
	}
}

// view is what the page says.
func (d *daemon) view() page.View {
	s, pl := d.agent.Snapshot(), d.plan.Load()
	at := pl.cfg.Vantage
	v := page.View{
		Time: s.Time, Version: d.build.Version, Catalogue: pl.catalogue,
		Vantage: page.Vantage{Name: at.Name, Country: at.Country, Subdivision: at.Subdivision, ISP: at.ISP, ASN: at.ASN, Network: at.Network,
			State: s.Vantage.State, Evidence: s.Vantage.Evidence, Down: s.Vantage.Down, Sees: s.Vantage.Sees},
	}
	if why := d.unclean.Load(); why != nil {
		v.Vantage.Unclean = *why
	}
	found := endpoints(s.Results)
	now := time.Now()
	for i := range s.Verdicts {
		x := &s.Verdicts[i]
		if n := len(v.Messengers); n == 0 || v.Messengers[n-1].Name != x.Messenger {
			v.Messengers = append(v.Messengers, page.Messenger{Name: x.Messenger, Title: pl.title(x.Messenger), Rivals: rivals(&s, x.Messenger)})
		}
		m := &v.Messengers[len(v.Messengers)-1]
		m.Functions = append(m.Functions, page.Function{Name: x.Function, State: x.State, Mechanism: x.Mechanism, Confidence: x.Confidence,
			Since: x.Since, Evidence: x.Evidence, Endpoints: found[[2]string{x.Messenger, x.Function}],
			Day:  cells(d.history.Read(x.Messenger, x.Function, now, halfHour, halfHours)),
			Week: cells(d.history.Read(x.Messenger, x.Function, now, time.Hour, hours))})
	}
	for _, e := range d.events.Recent() {
		if c, ok := told(&e); ok {
			c.Messenger = pl.title(e.Messenger)
			v.Changes = append(v.Changes, c)
		}
	}
	return v
}

func cells(sums []history.Sum) []page.Cell {
	out := make([]page.Cell, len(sums))
	for i, s := range sums {
		out[i] = page.Cell{Start: s.Start, OK: s.OK, Fail: s.Fail, State: states[s.Mark], Median: s.Median}
	}
	return out
}

// rivals is what the detector holds for possible of a messenger, nil if it has
// not said anything.
func rivals(s *agent.Snapshot, messenger string) map[string]float64 {
	i := slices.IndexFunc(s.Doubts, func(x agent.Doubt) bool { return x.Messenger == messenger })
	if i < 0 {
		return nil
	}
	return s.Doubts[i].Benign
}

// endpoints is the newest results by function and endpoint, those that fail
// first. The address of a resolver is not told.
func endpoints(rs []probe.Result) map[[2]string][]page.Endpoint {
	out := map[[2]string][]page.Endpoint{}
	for i := range rs {
		r := &rs[i]
		if r.Check.Messenger == probe.Control {
			continue
		}
		k := [2]string{r.Check.Messenger, r.Check.Function}
		list := out[k]
		at := slices.IndexFunc(list, func(e page.Endpoint) bool { return e.Name == r.Check.Endpoint })
		if at < 0 {
			at, list = len(list), append(list, page.Endpoint{Name: r.Check.Endpoint})
			out[k] = list
		}
		e := &list[at]
		switch r.Outcome() {
		case probe.OK:
			e.OK++
		case probe.Fail:
			e.Fail++
			f := page.Failing{Check: r.Check.Protocol, Family: r.Check.Family}
			if s := r.Failed(); s != nil {
				f.Operation, f.Failure = s.Op, s.Failure
			}
			if a := r.Addr(); a.IsValid() && r.Check.Protocol != probe.ProtoDNS {
				f.Address = a.String()
			}
			e.Failing = append(e.Failing, f)
		}
	}
	for _, list := range out {
		slices.SortStableFunc(list, func(a, b page.Endpoint) int { return b.Fail - a.Fail })
	}
	return out
}

// told is an event that people want to know of: a block, an outage, trouble, and
// the end of it.
func told(e *events.Event) (page.Change, bool) {
	state, was := verdict.State(e.State), verdict.State(e.Was)
	bad := func(s verdict.State) bool {
		return s == verdict.Blocked || s == verdict.Unreachable || s == verdict.Degraded
	}
	if !bad(state) && !(state == verdict.OK && bad(was)) {
		return page.Change{}, false
	}
	c := page.Change{Time: e.Time, Function: e.Function, State: state, Was: was, Mechanism: verdict.Mechanism(e.Mechanism),
		Confidence: verdict.Confidence(e.Confidence), Relapse: e.Relapse, Evidence: e.Evidence}
	if e.Onset != nil {
		c.Onset = *e.Onset
	}
	return c, true
}
