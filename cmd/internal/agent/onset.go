package agent

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/messenger-probe/messenger-probe/probe"
	"github.com/messenger-probe/messenger-probe/probe/onset"
	"github.com/messenger-probe/messenger-probe/probe/verdict"
)

// A detector feeds the onset detector with what the schedule finds.
type detector struct {
	engine  *onset.Engine
	ids     []string             // check of each stream
	streams map[string]int       // stream of each check
	began   map[string]time.Time // start of the run in flight, by check
	waiting []onset.Request      // not due yet
	// functions is the streams of each function of a messenger, and told the
	// newest event of each messenger that declared a block.
	functions map[[2]string][]int
	told      map[string]onset.Event
	// references is what agents abroad are heard about, and quiet when nothing
	// was last held against each messenger.
	references []referenceStream
	quiet      map[string]time.Time
	news       []news
}

// news is that a block of a messenger began, and when everybody who still works
// has been heard.
type news struct {
	messenger string
	began     time.Time
	heard     time.Time
}

const (
	// hearing is how long those who worked before a block began, and are asked
	// again because it did, are waited for: whoever works answers at once.
	hearing = 6 * time.Second
	// witnesses is how many checks of one endpoint are asked again.
	witnesses = 2
)

// newDetector watches those checks that say most: the first address of each
// name, the system's own resolver, the controls that anybody reaches, and where
// agents abroad are heard the same endpoints there.
func newDetector(checks []probe.Check, interval, timeout time.Duration, abroad bool) (*detector, error) {
	d := &detector{streams: map[string]int{}, began: map[string]time.Time{},
		functions: map[[2]string][]int{}, told: map[string]onset.Event{}, quiet: map[string]time.Time{}}
	var streams []onset.Stream
	for i := range checks {
		s, ok := streamOf(&checks[i])
		if !ok {
			continue
		}
		id := checks[i].ID()
		d.streams[id] = len(streams)
		k := [2]string{checks[i].Messenger, checks[i].Function}
		d.functions[k] = append(d.functions[k], len(streams))
		d.ids = append(d.ids, id)
		streams = append(streams, s)
	}
	if abroad {
		streams, d.references = refer(checks, streams)
	}
	var err error
	d.engine, err = onset.New(streams, onset.Config{Interval: interval, Timeout: timeout})
	return d, err
}

// detect makes a detector for these checks, with what one before it knew.
// Without one, states change with the verdicts alone.
func (a *Agent) detect(checks []probe.Check) {
	timeout := time.Second
	for i := range checks {
		timeout = max(timeout, checks[i].Timeout)
	}
	d, err := newDetector(checks, a.interval, timeout, a.abroad)
	if err != nil {
		a.o.Log.Warn("the onset detector is off", "error", err)
		d = nil
	}
	if old := a.detector; old != nil && d != nil {
		now := time.Now()
		b, err := old.engine.Marshal(now)
		if err == nil {
			err = d.engine.Unmarshal(b, now)
		}
		if err != nil {
			a.o.Log.Warn("the onset detector starts anew", "error", err)
		}
		d.began, d.told, d.quiet, d.news = old.began, old.told, old.quiet, old.news
	}
	a.detector = d
}

func first(s []string) string {
	if len(s) == 0 {
		return ""
	}
	return s[0]
}

// streamOf is the stream that a check is to the detector.
func streamOf(c *probe.Check) (onset.Stream, bool) {
	if strings.Contains(c.Target, "#") || c.Protocol == probe.ProtoTransfer {
		return onset.Stream{}, false
	}
	if d, ok := c.Prober.(probe.DNS); ok && d.Server.Name != probe.System {
		return onset.Stream{}, false
	}
	s := onset.Stream{Messenger: c.Messenger, Function: c.Function, Endpoint: c.Endpoint, Check: c.Protocol,
		Family: onset.Conn, Path: c.Path, Target: c.Family + " " + c.Target, Role: onset.Target}
	switch c.Protocol {
	case probe.ProtoDNS:
		s.Family, s.Path = onset.DNS, "resolver"
	case probe.ProtoSTUN:
		s.Family = onset.Calls
	}
	if c.Messenger == probe.Control {
		s.Messenger, s.Function = c.Of, ""
		switch c.Function {
		case probe.Domestic, probe.Foreign:
			s.Role = onset.Control
			return s, sentinel(c) || c.Protocol == probe.ProtoDNS || c.Protocol == probe.ProtoSTUN
		case probe.Sibling:
			s.Role = onset.Sibling
			return s, c.Of != "" && !c.Informational
		}
		return s, false
	}
	return s, true
}

// watched tells the agent when a run begins.
type watched struct {
	probe.Prober
	begin func()
}

func (w watched) Probe(ctx context.Context, n probe.Net) []probe.Step {
	w.begin()
	return w.Prober.Probe(ctx, n)
}

// watch is checks as the runner gets them, with their beginnings told.
func (a *Agent) watch(checks []probe.Check) []probe.Check {
	out := make([]probe.Check, len(checks))
	for i, c := range checks {
		id := c.ID()
		c.Prober = watched{c.Prober, func() { a.began(id) }}
		out[i] = c
	}
	return out
}

func (a *Agent) began(id string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	d := a.detector
	if d == nil {
		return
	}
	if s, ok := d.streams[id]; ok {
		now := time.Now()
		d.began[id] = now
		d.engine.Started(s, now)
	}
}

// ended tells the detector how a run ended, before anybody voids it: the
// detector has its own story of an ill vantage.
func (d *detector) ended(r *probe.Result) {
	id := r.Check.ID()
	s, ok := d.streams[id]
	start, begun := d.began[id]
	if !ok || !begun {
		return
	}
	delete(d.began, id)
	switch o, _ := r.Judge(); o {
	case probe.OK:
		d.engine.Finished(s, start, r.Took, true)
	case probe.Fail:
		d.engine.Finished(s, start, r.Took, false)
	default:
		d.engine.Abandoned(s, start, r.Took)
	}
}

// advance does what the detector asks for and files what it says.
func (a *Agent) advance(now time.Time) {
	d := a.detector
	if d == nil {
		return
	}
	d.engine.Advance(now)
	d.listen(now)
	d.waiting = append(d.waiting, d.engine.Requests()...)
	kept := d.waiting[:0]
	for _, r := range d.waiting {
		if now.Before(r.NotBefore) {
			kept = append(kept, r)
			continue
		}
		id := d.ids[r.Stream]
		if !a.runner.Request(id) {
			d.engine.Skipped(r)
			continue
		}
		a.o.Sink.Confirming(r.Messenger)
	}
	d.waiting = kept
	for _, ev := range d.engine.Events() {
		a.dirty = true
		if ev.Messenger == onset.Vantage {
			a.o.Log.Info("onset", "messenger", ev.Messenger, "state", ev.State, "evidence", ev.Evidence)
			continue
		}
		a.o.Log.Debug("onset", "messenger", ev.Messenger, "state", ev.State, "scope", ev.Scope, "score", ev.Score, "evidence", ev.Evidence)
		if ev.State == onset.Blocked {
			d.told[ev.Messenger] = ev
			if !ev.Relapse {
				a.hearWitnesses(now, ev)
			}
		}
	}
	a.outdate(now)
}

// hearWitnesses asks those checks again that worked when the block had not begun
// yet: a verdict that waited for the schedule would say for most of an interval
// that half of everything still works.
func (a *Agent) hearWitnesses(now time.Time, ev onset.Event) {
	d := a.detector
	asked := map[[2]string]int{}
	for _, serving := range []bool{true, false} {
		for _, rec := range a.order {
			c := &rec.Check
			k := [2]string{c.Function, c.Endpoint}
			if c.Messenger != ev.Messenger || serves(c) != serving || asked[k] >= witnesses || !workedBefore(rec, ev.Onset) || !d.covers(c) {
				continue
			}
			if a.runner.Request(c.ID()) {
				asked[k]++
				a.o.Sink.Confirming(c.Messenger)
			}
		}
	}
	d.news = append(d.news, news{ev.Messenger, ev.Onset, now.Add(hearing)})
}

// serves says that a check asks for an answer of the messenger's own, not merely
// for a name, a port or a handshake.
func serves(c *probe.Check) bool {
	switch c.Protocol {
	case probe.ProtoDNS, probe.ProtoTCP, probe.ProtoTLS, probe.ProtoQUIC, probe.ProtoTransfer:
		return false
	}
	return true
}

// workedBefore says that what is known of a check is that it worked before t.
func workedBefore(rec *verdict.Record, t time.Time) bool {
	return len(rec.Results) > 0 && rec.Results[0].Outcome() == probe.OK && rec.Results[0].Start.Before(t)
}

// outdate ends the time of those who have not been heard since a block began.
func (a *Agent) outdate(now time.Time) {
	d := a.detector
	kept := d.news[:0]
	for _, n := range d.news {
		if now.Before(n.heard) {
			kept = append(kept, n)
			continue
		}
		for _, rec := range a.order {
			if rec.Check.Messenger == n.messenger && d.covers(&rec.Check) {
				rec.Before = n.began
			}
		}
		a.dirty = true
	}
	d.news = kept
}

// covers says that the function of a check is held for blocked, or a part of it.
func (d *detector) covers(c *probe.Check) bool {
	return slices.ContainsFunc(d.functions[[2]string{c.Messenger, c.Function}], d.engine.Covered)
}

// blocked is what the detector told of a function, if it holds it for blocked.
func (d *detector) blocked(messenger, function string) (onset.Event, bool) {
	if d == nil || !d.covers(&probe.Check{Messenger: messenger, Function: function}) {
		return onset.Event{}, false
	}
	ev := d.told[messenger]
	if st, ok := d.engine.Status(messenger); ok && ev.Messenger == "" {
		// Declared before a restart: the words are gone, the facts are not.
		ev = onset.Event{Messenger: messenger, Onset: st.Onset, Score: st.Score, Attribution: st.Attribution}
	}
	return ev, true
}

// A Doubt is what the detector makes of one messenger in numbers.
type Doubt struct {
	Messenger string
	Evidence  map[string]float64 // nats, by scope
	Benign    map[string]float64 // probability, by explanation
}

// doubts is what the detector makes of each messenger.
func (d *detector) doubts() []Doubt {
	if d == nil {
		return nil
	}
	var out []Doubt
	for m := range d.engine.Messengers() {
		x := Doubt{m, maps.Collect(d.engine.Evidence(m)), map[string]float64{}}
		for i, p := range d.engine.Benign(m) {
			x.Benign[string(onset.Explanations[i])] = p
		}
		out = append(out, x)
	}
	return out
}

// A Change is one change of the state of one function.
type Change struct {
	Time                time.Time
	Messenger, Function string
	State, Was          verdict.State
	Mechanism           verdict.Mechanism
	Confidence          verdict.Confidence
	Onset               time.Time // when it began, as far as outcomes tell; zero: not known
	Score               float64   // nats; 0 where the detector was not asked
	Relapse             bool      // an episode already told goes on
	Attribution         string    // unconfirmed: nobody abroad said that it works there
	Evidence            []string
}

// episode is how long a function must have been free of a block for the next
// one to be news.
const episode = 30 * time.Minute

// A stable is the state of a function as it is shown: that of the verdict, but
// only when it is sure enough to wake somebody.
type stable struct {
	state    verdict.State
	since    time.Time
	shown    verdict.Verdict // what was said with it
	proposed verdict.State   // what the verdict says instead
	from     time.Time       // since when it does
	blocked  time.Time       // when it last was blocked; zero never
	before   verdict.Verdict // while nothing can be said: what was said before
}

func bad(s verdict.State) bool {
	return s == verdict.Blocked || s == verdict.Unreachable || s == verdict.Degraded
}

// decide joins a verdict with the detector: the verdict says what, the
// detector when. It returns the change, nil where there is none.
func (a *Agent) decide(now time.Time, v *verdict.Verdict) *Change {
	k := [2]string{v.Messenger, v.Function}
	s := a.states[k]
	if s == nil {
		s = &stable{state: verdict.Unknown, since: now}
		s.shown = verdict.Verdict{Messenger: v.Messenger, Function: v.Function, State: s.state, Since: now}
		a.states[k] = s
	}
	if v.State != s.proposed {
		s.proposed, s.from = v.State, now
	}
	if s.state == verdict.Blocked {
		s.blocked = now
	}
	if v.State == s.state {
		v.Since = s.since
		s.shown = *v
		return nil
	}
	if !a.line.heard {
		return nil // just started: nothing can be said yet, and nothing is forgotten
	}
	ev, held := a.detector.blocked(v.Messenger, v.Function)
	lasted := now.Sub(s.from)
	take := true
	switch {
	case a.line.State != verdict.Online:
		// Nothing can be said of anybody.
	case v.State == verdict.Unknown && s.state != verdict.Unknown:
		// Too little to say anything new.
		take = lasted > 5*a.interval
	case bad(v.State) && !bad(s.state):
		// Sure is: a differential pair, the detector's own word, or time.
		take = held || v.Confidence != verdict.Low || lasted >= 2*a.interval
	case v.State == verdict.OK && bad(s.state):
		take = !held || lasted >= 5*a.interval
	case v.State == verdict.Blocked || s.state == verdict.Blocked:
		// Between shades of bad, give it the time of a round of checks.
		take = v.State == verdict.Blocked || lasted >= a.interval
	}
	if !take {
		*v = s.shown
		return nil
	}
	if v.State == verdict.Unknown {
		s.before = s.shown
	}
	if s.state == verdict.Unknown && v.State == s.before.State && (v.State != verdict.Blocked || now.Sub(s.blocked) < episode) {
		// It goes on as it was before nothing could be said: no news.
		s.state, s.since = s.before.State, s.before.Since
		v.Since = s.since
		s.shown = *v
		return nil
	}
	c := &Change{Time: now, Messenger: v.Messenger, Function: v.Function, State: v.State, Was: s.state,
		Mechanism: v.Mechanism, Confidence: v.Confidence, Evidence: v.Evidence}
	if bad(v.State) {
		c.Onset = s.from
	}
	if held {
		c.Onset, c.Score, c.Attribution = ev.Onset, ev.Score, ev.Attribution
		if ev.Evidence != "" {
			c.Evidence = append([]string{ev.Evidence}, v.Evidence...)
		}
	}
	if v.State == verdict.Blocked {
		c.Relapse = !s.blocked.IsZero() && now.Sub(s.blocked) < episode
		s.blocked = now
	}
	s.state, s.since = v.State, now
	if !c.Onset.IsZero() {
		s.since = c.Onset
	}
	v.Since = s.since
	s.shown = *v
	return c
}

// A Memory is what of an agent survives a restart.
type Memory struct {
	Proven    []string // informational checks that have answered here
	Onset     []byte   // the detector's own; opaque
	Functions []Function
}

// Function is the state of one function as it is shown.
type Function struct {
	Messenger  string             `json:"messenger"`
	Function   string             `json:"function"`
	State      verdict.State      `json:"state"`
	Mechanism  verdict.Mechanism  `json:"mechanism,omitempty"`
	Confidence verdict.Confidence `json:"confidence,omitempty"`
	Since      time.Time          `json:"since"`
	Blocked    time.Time          `json:"blocked,omitzero"` // when it last was
}

// Memory is what to remember now.
func (a *Agent) Memory() Memory {
	a.mu.Lock()
	defer a.mu.Unlock()
	m := Memory{Proven: a.proven.IDs()}
	if a.detector != nil {
		var err error
		if m.Onset, err = a.detector.engine.Marshal(time.Now()); err != nil {
			a.o.Log.Warn("the onset detector's state cannot be kept", "error", err)
		}
	}
	for k, s := range a.states {
		v := s.shown
		if v.State == verdict.Unknown && s.before.State != "" {
			v = s.before
		}
		m.Functions = append(m.Functions, Function{k[0], k[1], v.State, v.Mechanism, v.Confidence, v.Since, s.blocked})
	}
	slices.SortFunc(m.Functions, func(x, y Function) int {
		return cmp.Or(cmp.Compare(x.Messenger, y.Messenger), cmp.Compare(x.Function, y.Function))
	})
	return m
}

// remember takes over what an earlier run of the agent knew. What does not fit
// is said and left out.
func (a *Agent) remember() {
	m := a.o.Memory
	for _, f := range m.Functions {
		k := [2]string{f.Messenger, f.Function}
		if a.states[k] != nil || !slices.Contains(verdict.States[:], f.State) {
			continue
		}
		v := verdict.Verdict{Messenger: f.Messenger, Function: f.Function, State: f.State, Since: f.Since,
			Evidence: []string{"as it was before the agent started again"}}
		if bad(v.State) {
			v.Mechanism, v.Confidence = verdict.UnknownCause, verdict.Low
			if slices.Contains(verdict.Mechanisms[:], f.Mechanism) && slices.Contains(verdict.Confidences[:], f.Confidence) {
				v.Mechanism, v.Confidence = f.Mechanism, f.Confidence
			}
		}
		a.states[k] = &stable{state: f.State, since: f.Since, blocked: f.Blocked, shown: v}
	}
	if len(m.Onset) > 0 && a.detector != nil {
		if err := a.detector.engine.Unmarshal(m.Onset, time.Now()); err != nil {
			a.o.Log.Warn("the onset detector starts without memory", "error", err)
		}
	}
	a.o.Memory = Memory{}
}
