package agent

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/messenger-probe/messenger-probe/probe"
	"github.com/messenger-probe/messenger-probe/probe/verdict"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// asks is a prober made of a func.
type asks func(context.Context, probe.Net) []probe.Step

func (f asks) Probe(ctx context.Context, n probe.Net) []probe.Step { return f(ctx, n) }

// nowhere is a network that no prober of these tests uses.
type nowhere struct{ probe.Net }

// A world is what a line and the servers behind it do at the moment.
type world struct {
	mu    sync.Mutex
	rtt   time.Duration
	bad   map[string]probe.Failure // by messenger, function or endpoint; "" is everybody
	asked []visit
}

// visit is one run of a prober of the world.
type visit struct {
	host string // messenger/function/endpoint
	at   time.Time
}

func newWorld() *world { return &world{rtt: 40 * time.Millisecond, bad: map[string]probe.Failure{}} }

// set makes all that is known by this name fail, or with "" work.
func (w *world) set(name string, f probe.Failure) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if f == "" {
		delete(w.bad, name)
	} else {
		w.bad[name] = f
	}
}

func (w *world) fails(host string) probe.Failure {
	w.mu.Lock()
	defer w.mu.Unlock()
	names := append(strings.Split(host, "/"), "")
	for _, n := range names {
		if f := w.bad[n]; f != "" {
			return f
		}
	}
	return ""
}

// runs is how often hosts with this prefix were asked since t.
func (w *world) runs(prefix string, since time.Time) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	for _, v := range w.asked {
		if strings.HasPrefix(v.host, prefix) && !v.at.Before(since) {
			n++
		}
	}
	return n
}

// prober asks a host of the world: an answer takes a round trip, both ends of
// which the host must be there; silence takes all the time there is.
func (w *world) prober(host string) probe.Prober {
	return asks(func(ctx context.Context, _ probe.Net) []probe.Step {
		s := probe.Step{Op: probe.OpTLSHandshake, Start: time.Now()}
		w.mu.Lock()
		w.asked = append(w.asked, visit{host, s.Start})
		rtt := w.rtt
		w.mu.Unlock()
		f := w.fails(host)
		if f == "" {
			select {
			case <-time.After(rtt):
				f = w.fails(host)
			case <-ctx.Done():
				f = probe.FailureTimeout
			}
		}
		if f == probe.FailureTimeout {
			<-ctx.Done()
			f = probe.Classify(ctx.Err())
		}
		if strings.HasPrefix(string(f), "dns_") {
			s.Op = probe.OpResolve
		}
		s.Failure, s.Took = f, time.Since(s.Start)
		return []probe.Step{s}
	})
}

// check is one of the world.
func (w *world) check(messenger, function, endpoint string) probe.Check {
	return probe.Check{
		Messenger: messenger, Function: function, Endpoint: endpoint,
		Protocol: probe.ProtoTLS, Family: probe.IP4, Target: "443",
		Interval: time.Minute, Timeout: 10 * time.Second,
		Prober: w.prober(messenger + "/" + function + "/" + endpoint),
	}
}

// controls are as many and as frequent as those of the catalogue.
func (w *world) controls() []probe.Check {
	var cs []probe.Check
	for _, role := range []string{probe.Domestic, probe.Foreign} {
		for i := range 5 {
			c := w.check(probe.Control, role, fmt.Sprintf("%s%d", role, i))
			c.Interval = 2 * time.Minute
			if i > 0 {
				c.Interval = 5 * time.Minute
			}
			cs = append(cs, c)
			// Another question of the same host, between its times.
			c.Protocol = probe.ProtoHTTP
			c.Interval = 3 * time.Minute
			cs = append(cs, c)
		}
	}
	return cs
}

// messengers are two, with two functions of n endpoints.
func (w *world) messengers(n int) []probe.Check {
	var cs []probe.Check
	for _, m := range []string{"alpha", "beta"} {
		for _, f := range []string{"chat", "media"} {
			for i := range n {
				cs = append(cs, w.check(m, f, fmt.Sprintf("%s-%s%d", m, f, i)))
			}
		}
	}
	return cs
}

// A diary is a sink that keeps everything, and complains where the agent does
// not keep its word to sinks.
type diary struct {
	t    testing.TB
	busy atomic.Bool

	mu         sync.Mutex
	results    []entry
	judged     []Snapshot
	confirming map[string]int
	changes    []Change
}

// entry is a result and when it was told.
type entry struct {
	probe.Result
	told time.Time
}

func newDiary(t testing.TB) *diary { return &diary{t: t, confirming: map[string]int{}} }

func (d *diary) enter() func() {
	if !d.busy.CompareAndSwap(false, true) {
		d.t.Error("two calls of the sink at a time")
	}
	d.mu.Lock()
	return func() { d.mu.Unlock(); d.busy.Store(false) }
}

func (d *diary) Record(r probe.Result) {
	defer d.enter()()
	d.results = append(d.results, entry{r, time.Now()})
}

func (d *diary) Judged(s Snapshot) {
	defer d.enter()()
	if n := len(d.judged); n > 0 && s.Time.Sub(d.judged[n-1].Time) < 900*time.Millisecond {
		d.t.Errorf("judged twice within %v", s.Time.Sub(d.judged[n-1].Time))
	}
	d.judged = append(d.judged, s)
}

func (d *diary) Confirming(messenger string) {
	defer d.enter()()
	d.confirming[messenger]++
}

func (d *diary) Changed(c Change) {
	defer d.enter()()
	d.changes = append(d.changes, c)
}

// told is the results of a messenger that were told since t.
func (d *diary) told(messenger string, since time.Time) []entry {
	d.mu.Lock()
	defer d.mu.Unlock()
	var es []entry
	for _, e := range d.results {
		if e.Check.Messenger == messenger && !e.told.Before(since) {
			es = append(es, e)
		}
	}
	return es
}

// failures is those that count as a failure.
func failures(es []entry) []entry {
	return slices.DeleteFunc(slices.Clone(es), func(e entry) bool { return e.Outcome() != probe.Fail })
}

// vantages is what the vantage was said to be at that time and since, neighbours
// that are equal counted once, and when it first changed.
func (d *diary) vantages(since time.Time) (states []verdict.VantageState, first time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, s := range d.judged {
		if s.Time.Before(since) {
			states = []verdict.VantageState{s.Vantage.State}
			continue
		}
		if n := len(states); n == 0 || states[n-1] != s.Vantage.State {
			if n == 1 {
				first = s.Time
			}
			states = append(states, s.Vantage.State)
		}
	}
	return states, first
}

// last is the newest judgement.
func (d *diary) last() Snapshot {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.judged[len(d.judged)-1]
}

// state is what the newest judgement says of a function.
func (d *diary) state(messenger, function string) verdict.State {
	for _, v := range d.last().Verdicts {
		if v.Messenger == messenger && v.Function == function {
			return v.State
		}
	}
	return ""
}

// coherent complains of a snapshot that contradicts itself.
func coherent(t testing.TB, s Snapshot) {
	t.Helper()
	seen := map[[2]string]bool{}
	for _, v := range s.Verdicts {
		k := [2]string{v.Messenger, v.Function}
		if seen[k] {
			t.Errorf("two verdicts on %v", k)
		}
		seen[k] = true
		if s.Vantage.State != verdict.Online && v.State != verdict.Unknown {
			t.Errorf("%v: the vantage is %s and %v %s", s.Time, s.Vantage.State, k, v.State)
		}
		if (v.Mechanism == "") != (v.State == verdict.OK || v.State == verdict.Unknown) || (v.Mechanism == "") != (v.Confidence == "") {
			t.Errorf("%v: %s, %q, %q", k, v.State, v.Mechanism, v.Confidence)
		}
	}
	ids := map[string]bool{}
	for _, r := range s.Results {
		if ids[r.Check.ID()] {
			t.Errorf("two results of %s", r.Check.ID())
		}
		ids[r.Check.ID()] = true
	}
}

// An agency is an agent in a bubble, with its world and its sink.
type agency struct {
	*Agent
	*world
	*diary
	t     *testing.T
	ended chan error
	end   context.CancelFunc
}

// simulate runs an agent in a world of simulated time until f ends.
func simulate(t *testing.T, checks func(*world) []probe.Check, f func(a *agency)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		d := newDiary(t)
		a := start(t, w, d, checks(w), time.Minute, Options{})
		f(a)
		a.stop()
		for _, s := range d.judged {
			coherent(t, s)
		}
	})
}

func start(t *testing.T, w *world, d *diary, checks []probe.Check, interval time.Duration, o Options) *agency {
	if o.Net == nil {
		o.Net = nowhere{}
	}
	o.Sink, o.Log = d, slog.New(slog.DiscardHandler)
	a := &agency{Agent: New(o), world: w, diary: d, t: t, ended: make(chan error, 1)}
	a.Set(checks, interval)
	ctx, cancel := context.WithCancel(t.Context())
	a.end = cancel
	go func() { a.ended <- a.Run(ctx) }()
	return a
}

func (a *agency) stop() {
	a.t.Helper()
	a.end()
	if err := <-a.ended; err != nil {
		a.t.Error(err)
	}
}

// pass lets time go by, and looks at a snapshot now and then as a reader of
// the page would.
func (a *agency) pass(d time.Duration) {
	a.t.Helper()
	for end := time.Now().Add(d); time.Now().Before(end); {
		time.Sleep(min(time.Until(end), 700*time.Millisecond))
		synctest.Wait()
		coherent(a.t, a.Snapshot())
	}
}

// slow sets the round trip.
func (w *world) slow(rtt time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.rtt = rtt
}

// onsets is the blocks that were told as new.
func (d *diary) onsets() []Change {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(d.changes), func(c Change) bool { return c.State != verdict.Blocked || c.Relapse })
}
