package agent

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/messenger-probe/messenger-probe/probe"
	"github.com/messenger-probe/messenger-probe/probe/onset"
	"github.com/messenger-probe/messenger-probe/probe/verdict"
)

// A peer is an agent abroad, to which the censor does not reach: it asks each
// endpoint once a minute, and is itself asked by way of its reports.
type peer struct {
	a     *agency
	name  string
	dead  map[string]bool // messengers that have an outage
	found map[Reference]Sighting
	next  map[Reference]time.Time
}

func newPeer(a *agency, name string, checks []probe.Check) *peer {
	p := &peer{a: a, name: name, dead: map[string]bool{}, found: map[Reference]Sighting{}, next: map[Reference]time.Time{}}
	for i, c := range checks {
		if c.Messenger != probe.Control {
			ref := Reference{c.Messenger, c.Function, c.Endpoint, c.Protocol, c.Family}
			p.next[ref] = time.Now().Add(time.Duration(i%60) * time.Second)
		}
	}
	return p
}

// pass lets time go by; a report is heard each interval, or sooner where the
// agent wonders.
func (p *peer) pass(d time.Duration) {
	for n := 1; d > 0; n++ {
		step := min(d, 15*time.Second)
		p.a.pass(step)
		d -= step
		now := time.Now()
		for ref, at := range p.next {
			for !at.After(now) {
				p.found[ref] = Sighting{ref, !p.dead[ref.Messenger], at}
				at = at.Add(time.Minute)
			}
			p.next[ref] = at
		}
		if n%4 == 0 || p.a.Wonders() {
			p.a.Hear([]Report{p.report(now)})
		}
	}
}

func (p *peer) report(now time.Time) Report {
	r := Report{Name: p.name, Time: now, Until: now.Add(3 * time.Minute), States: map[[2]string]verdict.Abroad{}}
	for ref, s := range p.found {
		r.Sightings = append(r.Sightings, s)
		state := verdict.OK
		if p.dead[ref.Messenger] {
			state = verdict.Unreachable
		}
		r.States[[2]string{ref.Messenger, ref.Function}] = verdict.Abroad{State: state}
	}
	return r
}

// attributed is what the detector says of a messenger.
func (a *agency) attributed(messenger string) onset.Status {
	a.Agent.mu.Lock()
	defer a.Agent.mu.Unlock()
	st, _ := a.Agent.detector.engine.Status(messenger)
	return st
}

// verdictOn is the newest judgement of a function.
func (a *agency) verdictOn(messenger, function string) verdict.Verdict {
	s := a.last()
	i := slices.IndexFunc(s.Verdicts, func(v verdict.Verdict) bool { return v.Messenger == messenger && v.Function == function })
	return s.Verdicts[i]
}

// listening is like simulate, with an agent abroad.
func listening(t *testing.T, f func(*agency, *peer)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w, d := newWorld(), newDiary(t)
		checks := append(w.messengers(3), w.controls()...)
		a := start(t, w, d, nil, time.Minute, Options{})
		a.Compare(true)
		a.Set(checks, time.Minute)
		f(a, newPeer(a, "de", checks))
		a.stop()
	})
}

// What is dead everywhere is an outage, and nobody is woken for a block.
func TestOutageSeenAbroad(t *testing.T) {
	for i := range 4 {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			listening(t, func(a *agency, p *peer) {
				p.pass(20*time.Minute + time.Duration(i)*11*time.Second)
				a.set("alpha", probe.FailureTimeout)
				p.dead["alpha"] = true
				p.pass(5 * time.Minute)
				for _, f := range []string{"chat", "media"} {
					v := a.verdictOn("alpha", f)
					if v.State != verdict.Unreachable || v.Mechanism != verdict.ServiceOutage || !strings.Contains(v.Evidence[0], "de abroad says") {
						t.Errorf("%+v", v)
					}
				}
				if st := a.attributed("alpha"); st.State == onset.Blocked && st.Attribution == onset.Confirmed {
					t.Errorf("an outage is a confirmed block: %+v", st)
				}
				for _, c := range a.changes {
					if c.State == verdict.Blocked || c.Messenger == "beta" && c.State != verdict.OK && c.State != verdict.Unknown {
						t.Errorf("%+v", c)
					}
				}
				a.set("alpha", "")
				delete(p.dead, "alpha")
				p.pass(15 * time.Minute)
				if s := a.state("alpha", "chat"); s != verdict.OK {
					t.Errorf("afterwards it is %s", s)
				}
			})
		})
	}
}

// What works abroad is said to, and the detector's block is confirmed.
func TestBlockSeenAbroad(t *testing.T) {
	listening(t, func(a *agency, p *peer) {
		p.pass(20 * time.Minute)
		a.set("alpha", probe.FailureTimeout)
		p.pass(5 * time.Minute)
		if st := a.attributed("alpha"); st.State != onset.Blocked || st.Attribution != onset.Confirmed {
			t.Errorf("%+v", st)
		}
		v := a.verdictOn("alpha", "chat")
		if v.State != verdict.Unreachable && v.State != verdict.Blocked || v.Mechanism == verdict.ServiceOutage ||
			!slices.Contains(v.Evidence, "it works abroad (de)") {
			t.Errorf("%+v", v)
		}

		// An agent abroad that is not heard any more says nothing.
		a.pass(4 * time.Minute)
		if v := a.verdictOn("alpha", "chat"); slices.Contains(v.Evidence, "it works abroad (de)") {
			t.Errorf("four minutes later: %+v", v)
		}
	})
}

// Answers from before a failure do not make a block of it.
func TestOldAnswersAbroad(t *testing.T) {
	listening(t, func(a *agency, p *peer) {
		p.pass(20 * time.Minute)
		p.pass(45 * time.Second) // so long nothing is heard
		old := p.report(time.Now())
		a.set("alpha", probe.FailureConnectionReset)
		for !a.Wonders() {
			a.pass(time.Second)
		}
		fed := func() map[string]int {
			a.Agent.mu.Lock()
			defer a.Agent.mu.Unlock()
			n := map[string]int{}
			for _, r := range a.Agent.detector.references {
				if slices.Contains(old.Sightings, Sighting{r.Reference, true, r.newest}) {
					n[r.Messenger]++
				}
			}
			return n
		}
		before := fed()
		a.Hear([]Report{old})
		after := fed()
		if after["alpha"] != before["alpha"] || after["beta"] <= before["beta"] {
			t.Errorf("of the messenger that fails %d old answers were fed, of the other %d", after["alpha"]-before["alpha"], after["beta"]-before["beta"])
		}
		p.pass(2 * time.Minute)
		if st := a.attributed("alpha"); st.Attribution != onset.Confirmed {
			t.Errorf("after new answers: %+v", st)
		}
	})
}

func TestReferences(t *testing.T) {
	w := newWorld()
	checks := append(w.messengers(3), w.controls()...)
	six := checks[0]
	six.Family = probe.IP6
	name := checks[0]
	name.Protocol = probe.ProtoDNS
	shy := checks[0]
	shy.Endpoint, shy.Informational = "shy", true
	checks = append(checks, six, name, shy)
	d, err := newDetector(checks, time.Minute, 10*time.Second, true)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(d.references); n != 12+1 {
		t.Errorf("%d references of 12 endpoints and an informational one", n)
	}
	// Too many endpoints cost the references, never the detector.
	for i := range 100 {
		checks = append(checks, w.check("beta", "chat", fmt.Sprint("more", i)))
	}
	for i := range checks {
		checks[i].Path = "one" // the number of paths is bounded too
	}
	if d, err = newDetector(checks, time.Minute, 10*time.Second, true); err != nil {
		t.Fatal(err)
	}
	for _, r := range d.references {
		if r.Messenger == "beta" {
			t.Fatalf("%+v", r)
		}
	}
	if len(d.references) != 7 {
		t.Errorf("%d references of the other messenger", len(d.references))
	}
	if d, err = newDetector(checks, time.Minute, 10*time.Second, false); err != nil || len(d.references) != 0 {
		t.Errorf("%v, %d references without anybody abroad", err, len(d.references))
	}
}

// Of several agents abroad one that works is enough, and none that is old or ill
// counts.
func TestHear(t *testing.T) {
	w := newWorld()
	checks := w.messengers(1)
	ref := Reference{"alpha", "chat", "alpha-chat0", probe.ProtoTLS, probe.IP4}
	now := time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)
	at := func(ago time.Duration, ok bool) Report {
		return Report{Until: now.Add(time.Minute), Sightings: []Sighting{{ref, ok, now.Add(-ago)}}}
	}
	expired := at(time.Second, true)
	expired.Until = now
	for _, c := range []struct {
		name    string
		reports []Report
		want    time.Duration // age of what was fed; negative: nothing
	}{
		{"nobody", nil, -1},
		{"one", []Report{at(5*time.Second, false)}, 5 * time.Second},
		{"the newer failure", []Report{at(9*time.Second, false), at(5*time.Second, false)}, 5 * time.Second},
		{"the answer", []Report{at(2*time.Second, false), at(9*time.Second, true)}, 9 * time.Second},
		{"expired", []Report{expired}, -1},
		{"too old", []Report{at(4*time.Minute, true)}, -1},
		{"from the future", []Report{at(-time.Second, true)}, -1},
	} {
		d, err := newDetector(checks, time.Minute, 10*time.Second, true)
		if err != nil {
			t.Fatal(err)
		}
		d.hear(c.reports, now, time.Minute)
		i := slices.IndexFunc(d.references, func(r referenceStream) bool { return r.Reference == ref })
		want := now.Add(-c.want)
		if c.want < 0 {
			want = time.Time{}
		}
		if got := d.references[i].newest; !got.Equal(want) {
			t.Errorf("%s: %v, want %v", c.name, got, want)
		}
	}
}

// What was said to work abroad before it failed here, or while an agent abroad
// could not yet have noticed, backs no block.
func TestOldWordAbroad(t *testing.T) {
	now := time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)
	k := [2]string{"alpha", "chat"}
	a := &Agent{interval: time.Minute, ill: map[[2]string]time.Time{}}
	a.reports = []Report{{Name: "de", Time: now.Add(-5 * time.Second), Until: now.Add(time.Hour), States: map[[2]string]verdict.Abroad{k: {State: verdict.OK}}}}
	state := func(after time.Duration, s verdict.State) verdict.State {
		v := []verdict.Verdict{{Messenger: k[0], Function: k[1], State: s, Mechanism: verdict.PortBlock, Confidence: verdict.High}}
		a.weigh(now.Add(after), v)
		return v[0].State
	}
	for _, c := range []struct {
		after, said time.Duration // after it began to fail; said: 0 nothing new
		want        verdict.State
	}{
		{0, 0, verdict.Unreachable},
		{30 * time.Second, 20 * time.Second, verdict.Unreachable},
		{2 * time.Minute, 0, verdict.Unreachable},
		{2 * time.Minute, 90 * time.Second, verdict.Blocked},
	} {
		if c.said > 0 {
			a.reports[0].Time = now.Add(c.said)
		}
		if got := state(c.after, verdict.Unreachable); got != c.want {
			t.Errorf("%v after, said %v after: %s, want %s", c.after, c.said, got, c.want)
		}
	}
	// A new failure needs new words.
	state(3*time.Minute, verdict.OK)
	if got := state(4*time.Minute, verdict.Unreachable); got != verdict.Unreachable {
		t.Errorf("a second failure is %s by old words", got)
	}
}
