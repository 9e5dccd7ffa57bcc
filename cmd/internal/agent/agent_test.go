package agent

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/messenger-probe/messenger-probe/probe"
	"github.com/messenger-probe/messenger-probe/probe/onset"
	"github.com/messenger-probe/messenger-probe/probe/verdict"
)

func everything(w *world) []probe.Check { return append(w.messengers(10), w.controls()...) }

// A line that dies, in whatever way and whenever, is never held against a
// messenger, is noticed within seconds, and its return too.
func TestOutage(t *testing.T) {
	for _, how := range []struct {
		name  string
		fails []string
		by    probe.Failure
		state verdict.VantageState
		soon  time.Duration
	}{
		{"silence", []string{""}, probe.FailureTimeout, verdict.Offline, 25 * time.Second},
		{"no route", []string{""}, probe.FailureNetworkUnreachable, verdict.Offline, 6 * time.Second},
		{"resets", []string{""}, probe.FailureConnectionReset, verdict.Offline, 6 * time.Second},
		{"interface down", []string{""}, probe.FailureNetworkDown, verdict.Offline, 6 * time.Second},
		{"white list", []string{"alpha", "beta", probe.Foreign}, probe.FailureTimeout, verdict.Whitelist, 25 * time.Second},
	} {
		for i := range 2 {
			t.Run(fmt.Sprint(how.name, i), func(t *testing.T) {
				simulate(t, everything, func(a *agency) {
					a.pass(6*time.Minute + time.Duration(i)*47*time.Second + 300*time.Millisecond)
					if a.state("alpha", "chat") != verdict.OK {
						t.Fatalf("before: %+v", a.last())
					}
					began := time.Now()
					for _, name := range how.fails {
						a.set(name, how.by)
					}
					a.pass(8 * time.Minute)
					states, first := a.vantages(began)
					if len(states) != 2 || states[1] != how.state {
						t.Errorf("the vantage was %v", states)
					}
					if d := first.Sub(began); d > how.soon {
						t.Errorf("noticed after %v", d)
					}
					for _, m := range []string{"alpha", "beta"} {
						if fs := failures(a.told(m, began)); len(fs) > 0 {
							t.Errorf("%d failures of %s were counted, the first %v after the outage began, told after %v", len(fs), m, fs[0].Start.Sub(began), fs[0].told.Sub(began))
						}
					}
					ended := time.Now()
					for _, name := range how.fails {
						a.set(name, "")
					}
					a.pass(5 * time.Minute)
					states, first = a.vantages(ended)
					if len(states) != 2 || states[1] != verdict.Online {
						t.Fatalf("afterwards the vantage was %v", states)
					}
					if d := first.Sub(ended); d > 40*time.Second {
						t.Errorf("its return was noticed after %v", d)
					}
					for _, m := range []string{"alpha", "beta"} {
						if fs := failures(a.told(m, ended)); len(fs) > 0 {
							t.Errorf("%d failures of %s were counted after the outage, the first %v later", len(fs), m, fs[0].Start.Sub(ended))
						}
						if s := a.state(m, "chat"); s != verdict.OK {
							t.Errorf("afterwards %s is %s", m, s)
						}
					}
				})
			})
		}
	}
}

// A line that comes and goes makes no verdict about any messenger.
func TestFlappingLine(t *testing.T) {
	simulate(t, everything, func(a *agency) {
		a.pass(10 * time.Minute)
		for i := range 60 {
			a.set("", []probe.Failure{probe.FailureTimeout, probe.FailureNetworkUnreachable}[i%2])
			a.pass(time.Duration(1+i*7%40) * time.Second)
			a.set("", "")
			a.pass(time.Duration(1+i*11%60) * time.Second)
		}
		for _, s := range a.diary.judged {
			for _, v := range s.Verdicts {
				if v.State != verdict.OK && v.State != verdict.Unknown {
					t.Fatalf("%v: %+v", s.Time, v)
				}
			}
		}
		if n := len(failures(a.told("alpha", time.Time{}))); n > 60 { // one a gap: those too short for the controls to see
			t.Errorf("%d failures were counted in 60 gaps of the line", n)
		}
	})
}

// A failure counts, but only when controls that were asked after it have
// answered, and is asked about again.
func TestFailureIsHeldBack(t *testing.T) {
	simulate(t, everything, func(a *agency) {
		a.pass(10 * time.Minute)
		a.slow(2 * time.Second)
		began := time.Now()
		a.set("alpha-chat3", probe.FailureConnectionReset)
		a.pass(2 * time.Minute)
		fs := failures(a.told("alpha", began))
		if len(fs) < 2 {
			t.Fatalf("%d failures were counted", len(fs))
		}
		asked, hosts := time.Time{}, map[string]bool{}
		for _, e := range a.told(probe.Control, began) {
			if !e.Start.Before(fs[0].Start) && !e.told.After(fs[0].told) && e.Outcome() == probe.OK && e.Check.Function == probe.Foreign {
				hosts[e.Check.Endpoint] = true
				asked = e.Start
			}
		}
		if len(hosts) < 2 {
			t.Errorf("before the failure of %v counted, only %v were asked (%v)", fs[0].Start, hosts, asked)
		}
		if d := fs[0].told.Sub(fs[0].Start); d < 2*time.Second || d > 10*time.Second {
			t.Errorf("the first failure was told after %v", d)
		}
		if d := fs[1].Start.Sub(fs[0].Start); d > 10*time.Second {
			t.Errorf("it was asked again after %v", d)
		}
		if a.confirming["alpha"] == 0 || a.confirming["beta"] != 0 {
			t.Errorf("confirming: %v", a.confirming)
		}
		if got := a.runs("alpha/chat/alpha-chat3", began); got > 14 { // the onset detector wants to know, too
			t.Errorf("%d runs in two minutes", got)
		}
	})
}

// A blocked messenger counts as failing and is called so; nobody else is.
func TestBlock(t *testing.T) {
	for _, f := range []probe.Failure{probe.FailureTimeout, probe.FailureConnectionReset} {
		t.Run(string(f), func(t *testing.T) {
			simulate(t, everything, func(a *agency) {
				a.pass(10 * time.Minute)
				began := time.Now()
				a.set("alpha", f)
				a.pass(5 * time.Minute)
				for _, fn := range []string{"chat", "media"} {
					if s := a.state("alpha", fn); s != verdict.Unreachable && s != verdict.Blocked {
						t.Errorf("alpha %s is %s", fn, s)
					}
				}
				if n := len(failures(a.told("alpha", began))); n < 60 || n > 350 { // 20 checks, 5 minutes, confirmations
					t.Errorf("%d failures of alpha were counted", n)
				}
				if n := len(failures(a.told("beta", began))); n > 0 || a.state("beta", "chat") != verdict.OK {
					t.Errorf("%d failures of beta, which is %s", n, a.state("beta", "chat"))
				}
				if states, _ := a.vantages(began); len(states) != 1 {
					t.Errorf("the vantage was %v", states)
				}
				// The line dies and returns; nothing is said of alpha meanwhile.
				a.set("", probe.FailureTimeout)
				a.pass(10 * time.Minute)
				if s := a.state("alpha", "chat"); s != verdict.Unknown {
					t.Errorf("with the line dead alpha is %s", s)
				}
				a.set("", "")
				a.pass(5 * time.Minute)
				if s := a.state("alpha", "chat"); s != verdict.Unreachable && s != verdict.Blocked {
					t.Errorf("with the line back alpha is %s", s)
				}
				if n := len(failures(a.told("beta", began))); n > 0 {
					t.Errorf("%d failures of beta", n)
				}
				// Alpha returns.
				a.set("alpha", "")
				a.pass(15 * time.Minute)
				if s := a.state("alpha", "chat"); s != verdict.OK {
					t.Errorf("when it works again, alpha is %s", s)
				}
			})
		})
	}
}

// A messenger that is blocked for months is old news: neither it nor the
// controls are asked beyond the schedule because of it.
func TestLongBlockSpendsNothing(t *testing.T) {
	simulate(t, func(w *world) []probe.Check { return append(w.messengers(3), w.controls()...) }, func(a *agency) {
		time.Sleep(30 * time.Minute)
		a.set("alpha", probe.FailureTimeout)
		time.Sleep(time.Hour)
		since := time.Now()
		confirming := a.confirming["alpha"]
		time.Sleep(3 * time.Hour)
		// Of the controls each role has one check every two minutes, four every
		// five, and five every three.
		scheduled := 3 * 2 * (60/2 + 4*60/5 + 5*60/3)
		if n := a.runs(probe.Control, since); n > scheduled*102/100 {
			t.Errorf("controls were asked %d times, scheduled are %d", n, scheduled)
		}
		scheduled = 3 * 60 * 6
		extra := a.confirming["alpha"] - confirming
		if n := a.runs("alpha", since); n > scheduled*112/100 {
			t.Errorf("alpha was asked %d times, scheduled are %d; confirmations %d", n, scheduled, extra)
		}
		t.Logf("confirmations in the first hour: %d, in three more: %d", confirming, extra)
	})
}

// Nothing that is asked because of a fickle endpoint goes beyond the budget,
// and a real block is still found when it is spent.
func TestFickleEndpoints(t *testing.T) {
	simulate(t, func(w *world) []probe.Check { return append(w.messengers(5), w.controls()...) }, func(a *agency) {
		fickle := func(on bool) {
			for i := range 5 {
				f := probe.FailureConnectionReset
				if !on {
					f = ""
				}
				a.set(fmt.Sprintf("beta-chat%d", i), f)
				a.set(fmt.Sprintf("beta-media%d", i), f)
			}
		}
		for range 2 * 3600 / 26 {
			fickle(true)
			time.Sleep(13 * time.Second)
			fickle(false)
			time.Sleep(13 * time.Second)
		}
		if n := a.runs(probe.Control, time.Time{}); n > 2*2*(60/2+4*60/5+5*60/3)+2500+250 {
			t.Errorf("controls were asked %d times in two hours", n)
		} else {
			t.Logf("%d runs of controls", n)
		}
		began := time.Now()
		a.set("alpha", probe.FailureTimeout)
		a.pass(15 * time.Minute)
		if s := a.state("alpha", "chat"); s != verdict.Unreachable && s != verdict.Blocked {
			t.Errorf("alpha is %s", s)
		}
		if n := len(failures(a.told("alpha", began))); n < 20 {
			t.Errorf("%d failures were counted", n)
		}
	})
}

// An informational check says nothing until it has answered once.
func TestInformational(t *testing.T) {
	simulate(t, func(w *world) []probe.Check {
		c := w.check("alpha", "calls", "relay")
		c.Informational = true
		return append(append(w.messengers(2), c), w.controls()...)
	}, func(a *agency) {
		outcomes := func(since time.Time) map[string]int {
			n := map[string]int{}
			for _, e := range a.told("alpha", since) {
				if e.Check.Endpoint == "relay" {
					o, reason := e.Judge()
					n[strings.TrimSpace(fmt.Sprint(o, " ", reason))]++
				}
			}
			return n
		}
		a.set("relay", probe.FailureTimeout)
		a.pass(10 * time.Minute)
		if n := outcomes(time.Time{}); len(n) != 1 || n["void informational"] < 8 {
			t.Errorf("before it has answered: %v", n)
		}
		if s := a.state("alpha", "calls"); s != verdict.Unknown || len(a.Memory().Proven) != 0 {
			t.Errorf("its function is %s, proven %v", s, a.Memory().Proven)
		}
		a.set("relay", "")
		since := time.Now()
		a.pass(3 * time.Minute)
		if n := outcomes(since.Add(20 * time.Second)); len(n) != 1 || n["ok"] < 2 {
			t.Errorf("when it answers: %v", n)
		}
		if p := a.Memory().Proven; len(p) != 1 || !strings.Contains(p[0], "relay") {
			t.Errorf("proven: %v", p)
		}
		since = time.Now()
		a.set("relay", probe.FailureTimeout)
		a.pass(5 * time.Minute)
		if n := outcomes(since.Add(time.Second)); n["fail"] < 4 || n["void informational"] > 0 {
			t.Errorf("when it fails again: %v", n)
		}
	})
	// What had answered before a restart counts from the start.
	synctest.Test(t, func(t *testing.T) {
		w, d := newWorld(), newDiary(t)
		c := w.check("alpha", "calls", "relay")
		c.Informational = true
		w.set("relay", probe.FailureTimeout)
		a := start(t, w, d, append(w.controls(), c), time.Minute, Options{Memory: Memory{Proven: []string{c.ID()}}})
		a.pass(5 * time.Minute)
		a.stop()
		if n := len(failures(d.told("alpha", time.Time{}))); n < 3 {
			t.Errorf("%d failures of a check that had answered before", n)
		}
	})
}

// A reload drops what it removes, also what is in flight or held back, and
// keeps the rest.
func TestReload(t *testing.T) {
	simulate(t, everything, func(a *agency) {
		a.pass(10 * time.Minute)
		a.set("alpha", probe.FailureTimeout) // runs in flight for ten seconds
		a.pass(15 * time.Second)
		kept := append(a.messengers(10)[20:], a.controls()...)
		a.Set(kept, time.Minute)
		at := time.Now()
		if n := len(a.told("alpha", at.Add(time.Nanosecond))); n > 0 {
			t.Errorf("%d results of alpha", n)
		}
		a.pass(2 * time.Second)
		s := a.Snapshot()
		if len(s.Verdicts) != 2 || len(s.Results) != len(kept) {
			t.Errorf("%d verdicts, %d results, want 2 and %d", len(s.Verdicts), len(s.Results), len(kept))
		}
		for _, v := range s.Verdicts {
			if v.Messenger != "beta" || v.State != verdict.OK {
				t.Errorf("%+v", v)
			}
			if !v.Since.Before(at) {
				t.Errorf("%s %s is what it is only since the reload", v.Messenger, v.Function)
			}
		}
		a.pass(5 * time.Minute)
		if n := len(a.told("alpha", at.Add(time.Nanosecond))); n > 0 {
			t.Errorf("%d results of alpha", n)
		}
		a.Agent.mu.Lock()
		if n := len(a.line.inquiries); n > 0 {
			t.Errorf("%d inquiries are left", n)
		}
		a.Agent.mu.Unlock()
		// It comes back, unknown.
		a.set("alpha", "")
		a.Set(append(a.messengers(10), a.controls()...), time.Minute)
		a.pass(3 * time.Minute)
		if s := a.state("alpha", "chat"); s != verdict.OK {
			t.Errorf("alpha is %s", s)
		}
	})
}

// A reload that changes nothing is no news: what the detector knows is kept, and
// a block goes on.
func TestReloadDuringABlock(t *testing.T) {
	simulate(t, everything, func(a *agency) {
		a.pass(20 * time.Minute)
		a.set("alpha", probe.FailureTimeout)
		a.pass(10 * time.Minute)
		status := func() onset.Status {
			a.Agent.mu.Lock()
			defer a.Agent.mu.Unlock()
			s, _ := a.detector.engine.Status("alpha")
			return s
		}
		before := status()
		if before.State != onset.Blocked || !bad(a.state("alpha", "chat")) {
			t.Fatalf("the detector says %s, the state is %s", before.State, a.state("alpha", "chat"))
		}
		n := len(a.changes)
		a.Set(everything(a.world), time.Minute)
		a.pass(2 * time.Second)
		if after := status(); after.State != onset.Blocked || !after.Onset.Equal(before.Onset) || after.Episode != before.Episode {
			t.Errorf("before the reload %+v, afterwards %+v", before, after)
		}
		a.pass(10 * time.Minute)
		if len(a.changes) != n {
			t.Errorf("news after a reload: %+v", a.changes[n:])
		}
	})
}

// What was shown before a restart goes on after it, as soon as the controls have
// answered, since when it was, and without news; an agent that wakes up behind a
// dead line says nothing of it.
func TestRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, d := newWorld(), newDiary(t)
		a := start(t, w, d, everything(w), time.Minute, Options{})
		a.pass(20 * time.Minute)
		w.set("alpha", probe.FailureTimeout)
		a.pass(10 * time.Minute)
		a.stop()
		before := map[[2]string]verdict.Verdict{}
		for _, v := range d.last().Verdicts {
			before[[2]string{v.Messenger, v.Function}] = v
		}
		memory := a.Memory()
		if len(memory.Functions) != 4 || len(memory.Onset) == 0 {
			t.Fatalf("remembers %+v", memory.Functions)
		}
		time.Sleep(2 * time.Minute)
		for _, dead := range []bool{false, true} {
			d := newDiary(t)
			if dead {
				w.set("", probe.FailureTimeout)
			}
			a := start(t, w, d, everything(w), time.Minute, Options{Memory: memory})
			a.pass(30 * time.Minute)
			a.stop()
			for _, s := range d.judged {
				coherent(t, s)
			}
			if len(d.onsets()) > 0 {
				t.Errorf("dead %t: new blocks after a restart: %+v", dead, d.onsets())
			}
			for _, v := range d.last().Verdicts {
				was := before[[2]string{v.Messenger, v.Function}]
				if dead && v.State != verdict.Unknown || !dead && (v.State != was.State || !v.Since.Equal(was.Since)) {
					t.Errorf("dead %t: %s %s is %s since %v, was %s since %v", dead, v.Messenger, v.Function, v.State, v.Since, was.State, was.Since)
				}
			}
		}
	})
}

// An agent runs once; a second time says so and does not hang.
func TestRunTwice(t *testing.T) {
	simulate(t, everything, func(a *agency) {
		a.pass(time.Minute)
		if err := a.Run(a.t.Context()); err == nil {
			t.Error("ran twice")
		}
	})
}

// A prober that panics costs its own result alone.
func TestPanic(t *testing.T) {
	simulate(t, func(w *world) []probe.Check {
		c := w.check("alpha", "chat", "broken")
		c.Prober = asks(func(context.Context, probe.Net) []probe.Step { panic("a defect") })
		return append(append(w.messengers(2), c), w.controls()...)
	}, func(a *agency) {
		a.pass(5 * time.Minute)
		n := 0
		for _, e := range a.told("alpha", time.Time{}) {
			o, reason := e.Judge()
			if e.Check.Endpoint == "broken" {
				if n++; o != probe.Void || reason != probe.ReasonPanic {
					t.Errorf("%s %s", o, reason)
				}
			}
		}
		if n < 4 || a.state("alpha", "chat") != verdict.OK {
			t.Errorf("%d results, the function is %s", n, a.state("alpha", "chat"))
		}
	})
}

// Without any control nothing counts, and nothing is said.
func TestNoControls(t *testing.T) {
	simulate(t, func(w *world) []probe.Check { return w.messengers(3) }, func(a *agency) {
		a.set("alpha", probe.FailureTimeout)
		a.pass(10 * time.Minute)
		for _, e := range a.told("alpha", time.Time{}) {
			if o := e.Outcome(); o != probe.Void {
				t.Fatalf("a result is %s", o)
			}
		}
		if s := a.state("beta", "chat"); s != verdict.Unknown || a.last().Vantage.State == verdict.Online {
			t.Errorf("beta is %s, the vantage %s", s, a.last().Vantage.State)
		}
	})
}

// One control of each role is little, but something: failures count.
func TestFewControls(t *testing.T) {
	simulate(t, func(w *world) []probe.Check {
		return append(w.messengers(3), w.check(probe.Control, probe.Domestic, "home"), w.check(probe.Control, probe.Foreign, "away"))
	}, func(a *agency) {
		a.pass(5 * time.Minute)
		a.set("alpha", probe.FailureTimeout)
		a.pass(5 * time.Minute)
		if n := len(failures(a.told("alpha", time.Time{}))); n < 20 {
			t.Errorf("%d failures were counted", n)
		}
	})
}

// Results may come in while others read and a reload goes on. This is for the
// race detector, in real time.
func TestAtOnce(t *testing.T) {
	w, d := newWorld(), newDiary(t)
	w.rtt = 0
	checks := everything(w)
	for i := range checks {
		checks[i].Interval, checks[i].Timeout = 50*time.Millisecond, 50*time.Millisecond
	}
	w.set("alpha-chat3", probe.FailureConnectionReset)
	a := start(t, w, d, checks, time.Second, Options{})
	end := time.Now().Add(2500 * time.Millisecond)
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			for time.Now().Before(end) {
				a.Snapshot()
				_ = a.Memory()
				for i := range checks {
					a.receive(probe.Result{Check: checks[i], Start: time.Now(), Steps: []probe.Step{{Op: probe.OpConnect}}})
				}
			}
		})
	}
	wg.Go(func() {
		for i := 0; time.Now().Before(end); i++ {
			a.Set(checks[:len(checks)-i%2], time.Second)
			time.Sleep(20 * time.Millisecond)
		}
	})
	wg.Wait()
	a.stop()
	if len(d.judged) < 2 {
		t.Errorf("judged %d times", len(d.judged))
	}
}

// What failed over an address family while it was going is forgotten when it is
// gone.
func TestLost(t *testing.T) {
	simulate(t, func(w *world) []probe.Check {
		cs := append(w.controls(), w.messengers(2)...)
		for _, c := range w.messengers(2) {
			c.Family = probe.IP6
			c.Prober = w.prober("six/" + c.Endpoint)
			c.Interval = 20 * time.Minute
			cs = append(cs, c)
		}
		return cs
	}, func(a *agency) {
		a.pass(3 * time.Minute)
		a.set("six", probe.FailureTimeout)
		a.pass(45 * time.Minute)
		if s := a.state("alpha", "chat"); s == verdict.OK {
			t.Fatal("half of all fails, and all is ok")
		}
		a.set("six", probe.FailureNetworkDown) // local: as without a route
		a.Lost(probe.IP6)
		a.pass(6 * time.Minute)
		if s := a.state("alpha", "chat"); s != verdict.OK {
			t.Errorf("%s after the family is gone", s)
		}
	})
}
