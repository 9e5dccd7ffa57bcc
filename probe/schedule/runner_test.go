package schedule

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/messenger-probe/messenger-probe/probe"
)

// A crowd counts who is in flight, in all and by key; key -1 is not counted.
type crowd struct {
	mu       sync.Mutex
	now      int
	of       map[int]int
	most     int
	mostOf   map[int]int
	finished int
}

func (c *crowd) add(key, n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.of == nil {
		c.of, c.mostOf = make(map[int]int), make(map[int]int)
	}
	c.now += n
	c.most = max(c.most, c.now)
	if key >= 0 {
		c.of[key] += n
		c.mostOf[key] = max(c.mostOf[key], c.of[key])
	}
	if n < 0 {
		c.finished++
	}
}

// prober stays in the crowd for d.
func (c *crowd) prober(key int, d time.Duration) probe.Prober {
	p := takes(d)
	return asks(func(ctx context.Context, n probe.Net) []probe.Step {
		c.add(key, 1)
		defer c.add(key, -1)
		return p.Probe(ctx, n)
	})
}

// A bubble is a runner at work in a synctest bubble, and all that it does.
type bubble struct {
	*Runner
	t      *testing.T
	began  time.Time
	cancel context.CancelFunc
	ended  chan error

	mu      sync.Mutex
	starts  map[string][]time.Duration
	ends    map[string][]time.Duration
	results []probe.Result
	lags    []time.Duration
}

// begin makes a runner and starts it.
func begin(t *testing.T, o Options, checks []probe.Check) *bubble {
	b := prepare(t, o, checks)
	b.start()
	return b
}

func prepare(t *testing.T, o Options, checks []probe.Check) *bubble {
	b := &bubble{t: t, began: time.Now(), ended: make(chan error, 1),
		starts: make(map[string][]time.Duration), ends: make(map[string][]time.Duration)}
	record := o.Record
	o.Record = func(r probe.Result) {
		b.mu.Lock()
		id := r.Check.ID()
		b.starts[id] = append(b.starts[id], r.Start.Sub(b.began))
		b.ends[id] = append(b.ends[id], r.Start.Add(r.Took).Sub(b.began))
		b.results = append(b.results, r)
		b.mu.Unlock()
		if record != nil {
			record(r)
		}
	}
	o.Lag = func(d time.Duration) {
		b.mu.Lock()
		b.lags = append(b.lags, d)
		b.mu.Unlock()
	}
	b.Runner = New(nil, o)
	b.Set(checks)
	return b
}

func (b *bubble) start() {
	ctx, cancel := context.WithCancel(b.t.Context())
	b.cancel = cancel
	go func() { b.ended <- b.Run(ctx) }()
}

// stop ends the runner and checks what holds of any run of it.
func (b *bubble) stop() {
	b.t.Helper()
	b.cancel()
	if err := <-b.ended; err != nil {
		b.t.Errorf("Run: %v", err)
	}
	for id := range b.starts {
		for i := 1; i < len(b.starts[id]); i++ {
			if b.starts[id][i] < b.ends[id][i-1] {
				b.t.Errorf("%s: run %d starts at %v, before run %d ends at %v", id, i, b.starts[id][i], i-1, b.ends[id][i-1])
			}
		}
	}
	if b.Runner.inFlight != 0 || len(b.Runner.inGate) != 0 {
		b.t.Errorf("%d in flight, at gates %v", b.Runner.inFlight, b.Runner.inGate)
	}
}

// pass lets d go by and all that happens meanwhile come to rest.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// runs is how often a check has been recorded so far.
func (b *bubble) runs(id string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.starts[id])
}

// sofar is all results so far.
func (b *bubble) sofar() []probe.Result {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.results
}

// sorted is all starts in order.
func (b *bubble) sorted(ids ...string) (all []time.Duration) {
	for _, id := range ids {
		all = append(all, b.starts[id]...)
	}
	slices.Sort(all)
	return all
}

func ids(checks []probe.Check) (ids []string) {
	for _, c := range checks {
		ids = append(ids, c.ID())
	}
	return ids
}

// TestDays runs three messengers and their slower checks for three days.
func TestDays(t *testing.T) {
	const days = 3
	synctest.Test(t, func(t *testing.T) {
		groups := [][]probe.Check{
			several("whatsapp", 13, takes(300*time.Millisecond)),
			several("telegram", 29, takes(2*time.Second)),
			several("max", 2, takes(0)),
			several("control", 1, takes(time.Second)),
		}
		var slow []probe.Check // a pool of sixteen, asked one a minute
		for i, c := range several("whatsapp", 16, takes(time.Second)) {
			c.Target, c.Interval = fmt.Sprint(i), 16*time.Minute
			slow = append(slow, c)
		}
		groups = append(groups, slow)
		b := begin(t, Options{Seed: 7}, slices.Concat(groups...))
		pass(days * 24 * time.Hour)
		b.stop()

		for _, g := range groups {
			interval := g[0].Interval
			for _, id := range ids(g) {
				starts := b.starts[id]
				perDay := make([]int, days)
				for i, s := range starts {
					perDay[min(int(s/(24*time.Hour)), days-1)]++
					if i >= 2 { // from the first beat on
						between(t, id, s-starts[i-1], interval)
					}
					// Beats neither drift nor stray.
					if off := (s - starts[1] - time.Duration(i-1)*interval).Abs(); i > 1 && off > interval*2/5+10 {
						t.Errorf("%s: run %d is %v off", id, i, off)
					}
				}
				if starts[0] >= time.Minute {
					t.Errorf("%s: first run after %v", id, starts[0])
				}
				want := int(24 * time.Hour / interval)
				for d, n := range perDay {
					if n < want-1 || n > want+1+btoi(d == 0 && interval > time.Minute) {
						t.Errorf("%s: %d runs on day %d, want %d", id, n, d, want)
					}
				}
			}
			// The group meets what happens to all of it within 1.4 shares.
			all := b.sorted(ids(g)...)
			share := interval / time.Duration(len(g))
			var worst time.Duration
			for i := 1; i < len(all); i++ {
				if all[i-1] > 2*interval {
					worst = max(worst, all[i]-all[i-1])
				}
			}
			if worst > share*14/10+10 || worst < share {
				t.Errorf("%s: widest gap %v, want at most 1.4 times %v", g[0].Messenger, worst, share)
			}
		}
		if late := slices.Max(b.lags); late > 0 {
			t.Errorf("lag up to %v in a world without delay", late)
		}
		if n := b.Skipped(); n != 0 {
			t.Errorf("%d beats skipped", n)
		}
	})
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// TestStaggerHalvesTheWait measures what staggering is for: the mean time from
// an event at a random moment to the next run of any check, sum(gap²)/2T.
func TestStaggerHalvesTheWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		checks := several("telegram", 8, takes(time.Second))
		b := begin(t, Options{Seed: 3}, checks)
		pass(24 * time.Hour)
		b.stop()
		all := b.sorted(ids(checks)...)
		var sum float64
		for i := 1; i < len(all); i++ {
			gap := (all[i] - all[i-1]).Seconds()
			sum += gap * gap
		}
		wait := sum / 2 / (all[len(all)-1] - all[0]).Seconds()
		// 3.75 s were there no jitter; checks jittered each by itself wait 6 s.
		if wait > 3.95 {
			t.Errorf("mean wait %.2f s, want 3.75 s and at most a twentieth more", wait)
		}
		t.Logf("mean wait %.2f s", wait)
	})
}

// TestKindsTakeTurns: of a few checks of one protocol among many of others none is
// far from the next, whatever their names hash to.
func TestKindsTakeTurns(t *testing.T) {
	for n := range 30 {
		const few, many = 5, 30
		var ids []string
		for i := range few + many {
			proto := "tcp"
			if i < few {
				proto = "tls"
			}
			ids = append(ids, fmt.Sprintf("m%d/%s/%d", n, proto, i))
		}
		kind := func(id string) string { return strings.Split(id, "/")[1] }
		takeTurns(ids, kind)
		var at []int
		for i, id := range ids {
			if kind(id) == "tls" {
				at = append(at, i)
			}
		}
		at = append(at, at[0]+len(ids))
		for i := 1; i < len(at); i++ {
			if gap := at[i] - at[i-1]; gap < 6 || gap > 8 { // 7 is even
				t.Errorf("%d: %d places between two of %d among %d: %v", n, gap, few, len(ids), at)
			}
		}
	}
}

func TestSeed(t *testing.T) {
	run := func(seed uint64, checks []probe.Check) (starts map[string][]time.Duration) {
		synctest.Test(t, func(t *testing.T) {
			b := begin(t, Options{Seed: seed}, checks)
			pass(6 * time.Hour)
			b.stop()
			starts = b.starts
		})
		return starts
	}
	inOrder := func(starts map[string][]time.Duration) (order []string) {
		for id := range starts {
			order = append(order, id)
		}
		slices.SortFunc(order, func(a, b string) int { return int(starts[a][0] - starts[b][0]) })
		return order
	}
	checks := several("telegram", 20, takes(time.Second))
	one, two := run(1, checks), run(2, checks)
	slices.Reverse(checks)
	if d := cmp.Diff(one, run(1, checks)); d != "" {
		t.Errorf("one seed, other beats:\n%s", d)
	}
	if cmp.Equal(one, two) {
		t.Error("two seeds, the same beats")
	}
	if d := cmp.Diff(inOrder(one), inOrder(two)); d != "" {
		t.Errorf("a restart changes the order:\n%s", d)
	}
}

// TestLimits throws everything at a runner for ten hours: slow, failing, deaf and
// panicking probers, few places, extra runs and reloads.
func TestLimits(t *testing.T) {
	const n, gates, maxInFlight, perGate = 120, 9, 10, 2
	synctest.Test(t, func(t *testing.T) {
		var c crowd
		rnd := rand.New(rand.NewPCG(8, 9))
		checks := several("telegram", n, nil)
		for i := range checks {
			key := rnd.IntN(gates+3) - 3
			d := time.Duration(rnd.Int64N(int64(15 * time.Second)))
			p := c.prober(key, d)
			switch i % 10 {
			case 0:
				p = asks(func(ctx context.Context, n probe.Net) []probe.Step {
					c.add(key, 1)
					defer c.add(key, -1)
					time.Sleep(2 * d) // deaf
					return worked
				})
			case 1:
				p = asks(func(ctx context.Context, n probe.Net) []probe.Step {
					c.add(key, 1)
					defer c.add(key, -1)
					time.Sleep(d / 2)
					panic("defect")
				})
			}
			checks[i].Prober = p
			if key >= 0 {
				checks[i].Gate = fmt.Sprint(key)
			}
		}
		b := begin(t, Options{MaxInFlight: maxInFlight, PerGate: perGate, ExtraPerDay: 1e6}, checks)
		for range 10 * 60 {
			pass(time.Minute)
			b.Request(checks[rnd.IntN(n)].ID())
			f := check("telegram", n+rnd.IntN(n), c.prober(0, time.Second))
			f.Gate = "0"
			b.Go(f, func(probe.Result) {})
			if rnd.IntN(100) == 0 {
				b.Set(checks[rnd.IntN(n/2):]) // and no restart: the beats stay
			}
			if rnd.IntN(100) == 0 {
				b.Set(checks)
			}
		}
		b.stop()
		if c.most != maxInFlight {
			t.Errorf("%d in flight, want the %d reached and kept", c.most, maxInFlight)
		}
		for key := range gates {
			if c.mostOf[key] != perGate {
				t.Errorf("%d in flight at gate %d, want the %d reached and kept", c.mostOf[key], key, perGate)
			}
		}
		if c.now != 0 {
			t.Errorf("%d in flight after Run", c.now)
		}
		for _, id := range ids(checks) {
			if b.runs(id) < 50 {
				t.Errorf("%s starved: %d runs", id, b.runs(id))
			}
		}
		if b.Skipped() == 0 {
			t.Error("no beat skipped though far too much was asked")
		}
	})
}

// TestBlockedGateIsNoLag: ten checks of one silent host wait for each other.
// That must neither hold back the others nor look like a slow machine.
func TestBlockedGateIsNoLag(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		silent := several("telegram", 10, takes(time.Hour))
		for i := range silent {
			silent[i].Gate = "silent"
		}
		others := several("max", 40, takes(time.Second))
		b := begin(t, Options{}, slices.Concat(silent, others))
		pass(time.Hour)
		b.stop()
		for _, id := range ids(others) {
			if n := b.runs(id); n < 59 {
				t.Errorf("%s ran %d times", id, n)
			}
		}
		for _, id := range ids(silent) {
			if n := b.runs(id); n < 40 {
				t.Errorf("%s ran %d times", id, n)
			}
		}
		if late := slices.Max(b.lags); late > 0 {
			t.Errorf("lag %v", late)
		}
	})
}

// TestFullHouseIsNoLag is the same for the cap on all.
func TestFullHouseIsNoLag(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := begin(t, Options{MaxInFlight: 4}, several("telegram", 60, takes(time.Hour)))
		pass(time.Hour)
		b.stop()
		if late := slices.Max(b.lags); late > 0 {
			t.Errorf("lag %v", late)
		}
		// 4 places, 10 s each: 1440 an hour for 60 checks, in turn.
		for id, s := range b.starts {
			if len(s) < 22 || len(s) > 26 {
				t.Errorf("%s ran %d times, want its share of 24", id, len(s))
			}
		}
	})
}

func TestDeafProberHoldsOneself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		let := make(chan struct{})
		hung := check("telegram", 0, asks(func(context.Context, probe.Net) []probe.Step { <-let; return worked }))
		hung.Gate = "g"
		others := several("max", 10, takes(time.Second))
		others[0].Gate = "g"
		b := begin(t, Options{MaxInFlight: 2}, append(others, hung))
		pass(24 * time.Hour)
		for _, id := range ids(others) {
			if n := b.runs(id); n < 1439 {
				t.Errorf("%s ran %d times beside a hung one", id, n)
			}
		}
		if n := b.runs(hung.ID()); n != 0 {
			t.Errorf("the hung one was recorded %d times", n)
		}
		close(let)
		pass(10 * time.Minute)
		b.stop()
		if n := b.runs(hung.ID()); n < 9 {
			t.Errorf("%d runs of the hung one when it hangs no more", n)
		}
		if n := b.Skipped(); n < 1435 || n > 1441 {
			t.Errorf("%d beats skipped, want those of a day", n)
		}
	})
}

func TestSlowerThanItsInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := check("telegram", 0, takes(130*time.Second))
		c.Timeout = time.Hour
		b := begin(t, Options{}, []probe.Check{c})
		pass(10 * time.Hour)
		b.stop()
		n := int64(len(b.starts[c.ID()]))
		if n < 195 || n > 205 || n+b.Skipped() < 599 || n+b.Skipped() > 601 {
			t.Errorf("%d runs and %d beats skipped, want 200 of 600", n, b.Skipped())
		}
	})
}

func TestManyChecksFewGoroutines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		before := runtime.NumGoroutine()
		var c crowd
		b := begin(t, Options{}, several("telegram", 10000, c.prober(-1, 50*time.Millisecond)))
		most := 0
		for range 600 {
			pass(500 * time.Millisecond)
			most = max(most, runtime.NumGoroutine()-before)
		}
		b.stop()
		// Five intervals, less what the jitter may put off by a fifth of one.
		if c.finished < 48000 || most > 20 {
			t.Errorf("%d runs with up to %d goroutines", c.finished, most)
		}
	})
}

func TestRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		checks := several("telegram", 3, takes(time.Second))
		id := checks[1].ID()
		plain := begin(t, Options{Seed: 5}, checks)
		pass(10 * time.Minute)
		plain.stop()

		b := begin(t, Options{Seed: 5}, checks)
		last := plain.starts[id][5]
		if b.Request("nobody/knows/this") {
			t.Error("an unknown check was accepted")
		}
		pass(last + 20*time.Second)
		for range 2 { // twice is once
			if !b.Request(id) {
				t.Error("refused")
			}
		}
		synctest.Wait()
		pass(1500 * time.Millisecond)
		if !b.Request(id) { // half a second after the end: 2 s after it
			t.Error("refused")
		}
		pass(2 * time.Second)
		if !b.Request(id) { // half a second into the second: 2 s after its end
			t.Error("refused")
		}
		pass(10*time.Minute - (last + 23500*time.Millisecond))
		b.stop()
		extra := last + 20*time.Second
		want := slices.Insert(slices.Clone(plain.starts[id]), 6, extra, extra+3*time.Second, extra+6*time.Second)
		if d := cmp.Diff(want, b.starts[id]); d != "" {
			t.Error(d)
		}
		for _, i := range []int{0, 2} {
			if d := cmp.Diff(plain.starts[checks[i].ID()], b.starts[checks[i].ID()]); d != "" {
				t.Errorf("another check was disturbed: %s", d)
			}
		}
		if b.Request(id) {
			t.Error("accepted after the end")
		}
	})
}

// TestRequestFromRecord is the confirmation of each failure: at least Spacing
// after the end, and the beats go on.
func TestRequestFromRecord(t *testing.T) {
	const spacing = 5 * time.Second
	synctest.Test(t, func(t *testing.T) {
		var b *bubble
		c := check("max", 0, takes(time.Hour))
		c.Timeout = 3 * time.Second
		asked := 0
		b = prepare(t, Options{Spacing: spacing, ExtraPerDay: 1e6, Record: func(r probe.Result) {
			if r.Outcome() == probe.Fail && b.Request(r.Check.ID()) {
				asked++
			}
		}}, []probe.Check{c})
		b.start()
		pass(time.Hour)
		b.stop()
		starts, ends := b.starts[c.ID()], b.ends[c.ID()]
		for i := 1; i < len(starts); i++ {
			if gap := starts[i] - ends[i-1]; gap != spacing {
				t.Fatalf("run %d comes %v after the last ended", i, gap)
			}
		}
		if n := len(starts); n < 449 || n > 451 || asked < n-2 {
			t.Errorf("%d runs of %d asked for, want 450, one every 8 s", n, asked)
		}
	})
}

// moves is a prober that sends n bytes.
func moves(n int) probe.Prober {
	return asks(func(ctx context.Context, net probe.Net) []probe.Step {
		c, err := net.DialContext(ctx, "tcp", "192.0.2.1:443")
		if err != nil {
			return []probe.Step{{Op: probe.OpConnect, Failure: probe.FailureUnknown, Err: err}}
		}
		c.Write(make([]byte, n))
		return worked
	})
}

// sink is a network that takes everything.
type sink struct{ probe.Net }

func (sink) DialContext(context.Context, string, string) (net.Conn, error) { return sinkConn{}, nil }

type sinkConn struct{ net.Conn }

func (sinkConn) Write(b []byte) (int, error) { return len(b), nil }

// TestBytes: transfers move no more than the budget in any 24 hours, whatever is
// asked for, and all of them get their share; others are not touched.
func TestBytes(t *testing.T) {
	const perDay, size = 1_000_000, 10_000
	synctest.Test(t, func(t *testing.T) {
		transfers := several("max", 5, moves(size))
		for i := range transfers {
			transfers[i].Endpoint, transfers[i].Bytes = fmt.Sprint("t", i), size
		}
		// Those that move less than they might give the rest back.
		short := check("max", 10, moves(100))
		short.Bytes = size
		b := prepare(t, Options{BytesPerDay: perDay, ExtraPerDay: 1e6}, append(append(transfers, short), several("telegram", 1, takes(0))...))
		b.Runner.net = sink{}
		b.start()
		for range 3 * 24 * 60 {
			pass(time.Minute)
			b.Request(transfers[0].ID())
		}
		type move struct {
			at time.Duration
			n  int64
		}
		var moved []move
		runs := map[string]int{}
		b.mu.Lock()
		for _, r := range b.results {
			runs[r.Check.Endpoint]++
			if r.Sent > 0 {
				moved = append(moved, move{r.Start.Sub(b.began), r.Sent})
			}
		}
		b.mu.Unlock()
		var sum int64
		from := 0
		for _, m := range moved {
			for sum += m.n; m.at-moved[from].at >= 24*time.Hour; from++ {
				sum -= moved[from].n
			}
			if sum > perDay {
				t.Fatalf("%d bytes within 24 hours", sum)
			}
		}
		// An eighth at once, seven a day.
		if all := int64(perDay/8 + 3*perDay*7/8); true {
			var got int64
			for _, m := range moved {
				got += m.n
			}
			if got < all*98/100 || got > all {
				t.Errorf("%d bytes in three days, want %d", got, all)
			}
		}
		if n := runs["e0"]; n < 3*1440-2 {
			t.Errorf("%d runs of what moves nothing, want one a minute", n)
		}
		for i := range transfers {
			if n := runs[transfers[i].Endpoint]; n < 10 {
				t.Errorf("t%d ran %d times", i, n)
			}
		}
		if b.Skipped() == 0 {
			t.Error("no beat was skipped")
		}

		// A follow-up that cannot be paid is refused, and one that can is run.
		heavy := check("max", 77, moves(size))
		heavy.Bytes = perDay
		if b.Go(heavy, func(probe.Result) {}) {
			t.Error("a follow-up of a day's bytes was accepted")
		}
		b.Limit(0)
		started := func() int {
			b.mu.Lock()
			defer b.mu.Unlock()
			return len(b.starts[transfers[1].ID()])
		}
		before := started()
		pass(24 * time.Hour)
		b.Limit(-1)
		if n := started(); n != before {
			t.Errorf("%d runs with no bytes to spend", n-before)
		}
		pass(time.Hour)
		if n := started(); n < before+59 {
			t.Errorf("%d runs in an hour without a limit", n-before)
		}
		b.stop()
	})
}

// TestBudget asks for extra runs without end for five days, then rests for five.
func TestBudget(t *testing.T) {
	const perDay = 200
	synctest.Test(t, func(t *testing.T) {
		checks := append(several("telegram", 40, takes(0)), several("max", 1, takes(0))...)
		for i := range checks {
			checks[i].Interval = 10 * time.Minute
		}
		b := begin(t, Options{ExtraPerDay: perDay}, checks)
		var granted []time.Duration
		for i := range 5 * 24 * 60 {
			pass(time.Minute)
			if b.Request(checks[i%40].ID()) {
				granted = append(granted, time.Since(b.began))
			}
		}
		if !b.Request(checks[40].ID()) {
			t.Error("the budget of another messenger was spent")
		}
		pass(5 * 24 * time.Hour)
		atOnce := 0
		for i := range 1000 {
			if b.Go(check("telegram", 100+i, takes(0)), func(probe.Result) {}) {
				atOnce++
			}
		}
		if atOnce != perDay/2 {
			t.Errorf("%d extra runs at once after days of rest, want half of a day's", atOnce)
		}
		b.stop()
		for i := perDay; i < len(granted); i++ {
			if in := granted[i] - granted[i-perDay]; in < 24*time.Hour {
				t.Fatalf("%d extra runs within %v", perDay+1, in)
			}
		}
		// Half at once, half a day thereafter.
		if n := len(granted); n < 590 || n > 601 {
			t.Errorf("%d extra runs in five days, want 600", n)
		}
		for i := perDay; i < len(granted); i++ {
			if gap := granted[i] - granted[i-1]; gap > 20*time.Minute {
				t.Errorf("no extra run for %v: the budget must refill steadily", gap)
			}
		}
		total := 0
		for _, s := range b.starts {
			total += len(s)
		}
		if want := 41*10*144 + len(granted); total < want-100 || total > want+100 {
			t.Errorf("%d runs, want %d", total, want)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		b := begin(t, Options{ExtraPerDay: -1}, several("max", 1, takes(0)))
		pass(time.Minute)
		if b.Request(check("max", 0, nil).ID()) || b.Go(check("max", 1, takes(0)), nil) {
			t.Error("an extra run without a budget")
		}
		b.stop()
	})
}

func TestGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c crowd
		known := check("telegram", 0, c.prober(0, 3*time.Second))
		known.Gate = "g"
		b := begin(t, Options{}, []probe.Check{known})
		pass(time.Minute)
		got := make(map[string]int)
		done := func(r probe.Result) { // one call at a time: no lock
			o, _ := r.Judge()
			got[fmt.Sprint(r.Check.Endpoint, " ", o)]++
		}
		if b.Go(known, done) {
			t.Error("a scheduled check was accepted")
		}
		for i := 1; i <= 9; i++ {
			f := check("telegram", i, c.prober(0, 3*time.Second))
			f.Gate = "g"
			if !b.Go(f, done) {
				t.Errorf("follow-up %d refused", i)
			}
			if b.Go(f, done) {
				t.Errorf("follow-up %d accepted while it runs", i)
			}
		}
		silent := check("telegram", 10, asks(func(context.Context, probe.Net) []probe.Step { return nil }))
		defect := check("telegram", 11, asks(func(context.Context, probe.Net) []probe.Step { panic("x") }))
		b.Go(silent, done)
		b.Go(defect, done)
		pass(time.Minute)
		if !b.Go(silent, done) {
			t.Error("a follow-up that has ended was refused")
		}
		synctest.Wait()
		b.stop()
		want := map[string]int{"e10 void": 2, "e11 void": 1}
		for i := 1; i <= 9; i++ {
			want[fmt.Sprintf("e%d ok", i)] = 1
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Error(d)
		}
		if c.mostOf[0] != 2 {
			t.Errorf("%d at the gate", c.mostOf[0])
		}
		for _, r := range b.results {
			if r.Check.ID() != known.ID() {
				t.Errorf("follow-up %s went to Record", r.Check.ID())
			}
		}
		if len(b.entries) != 1 || b.followUps != 0 {
			t.Errorf("%d entries and %d follow-ups are left", len(b.entries), b.followUps)
		}
	})
}

// TestGoIsBoundedAndAlwaysAnswered stops a runner with follow-ups in flight and
// waiting.
func TestGoIsBoundedAndAlwaysAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := begin(t, Options{MaxInFlight: 5, ExtraPerDay: 1e6}, nil)
		synctest.Wait()
		accepted, got := 0, make(map[probe.Reason]int)
		for i := range 100 {
			if b.Go(check("max", i, takes(time.Hour)), func(r probe.Result) {
				_, reason := r.Judge()
				got[reason]++
			}) {
				accepted++
			}
		}
		pass(15 * time.Second) // five have ended, five are in flight
		b.stop()
		if accepted != 20 {
			t.Errorf("%d accepted, want 4 times 5", accepted)
		}
		if d := cmp.Diff(map[probe.Reason]int{"": 5, probe.ReasonCancelled: 15}, got); d != "" {
			t.Error(d)
		}
		if b.Go(check("max", 0, nil), nil) {
			t.Error("accepted after the end")
		}
	})
}

// TestReloadKeepsBeats compares a runner that is reloaded with one that is not.
func TestReloadKeepsBeats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		checks := several("telegram", 20, takes(time.Second))
		checks[3].Interval = 5 * time.Minute
		plain := begin(t, Options{Seed: 11}, checks)
		pass(2 * time.Hour)
		plain.stop()

		b := begin(t, Options{Seed: 11}, checks)
		rnd := rand.New(rand.NewPCG(1, 1))
		for i := range 2 * 60 {
			pass(time.Minute)
			reload := slices.Clone(checks)
			for j := range reload { // what is not ID or interval may change
				reload[j].Timeout, reload[j].Gate = 20*time.Second, fmt.Sprint(j, i)
			}
			reload = append(reload, several("max", rnd.IntN(5), takes(time.Second))...)
			rnd.Shuffle(len(reload), func(i, j int) { reload[i], reload[j] = reload[j], reload[i] })
			b.Set(reload)
		}
		b.stop()
		for _, id := range ids(checks) {
			if d := cmp.Diff(plain.starts[id], b.starts[id]); d != "" {
				t.Errorf("%s: %s", id, d)
			}
		}
		if last := b.results[len(b.sofar())-1].Check; last.Timeout != 20*time.Second {
			t.Error("the change was not taken")
		}
	})
}

func TestReloadAddsAndRemoves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		checks := several("telegram", 10, takes(5*time.Second))
		var gone bool
		b := prepare(t, Options{Record: func(r probe.Result) {
			if gone && r.Check.Endpoint == "e0" {
				t.Error("a result of a check that is gone")
			}
		}}, checks)
		at := b.entries[checks[0].ID()].due
		b.start()
		pass(at + time.Second) // e0 is in flight
		more := append(slices.Clone(checks[1:]), several("telegram", 30, takes(time.Second))[20:]...)
		b.Set(more)
		b.recording.Lock()
		gone = true
		b.recording.Unlock()
		pass(time.Minute + 2*time.Second)
		b.mu.Lock()
		if n := len(b.entries); n != 19 {
			t.Errorf("%d entries, want 19", n)
		}
		b.mu.Unlock()
		for _, id := range ids(more) {
			if b.runs(id) == 0 {
				t.Errorf("%s has not run within an interval of the reload", id)
			}
		}
		pass(time.Hour)
		b.mu.Lock()
		all := b.sorted(ids(more)...)
		b.mu.Unlock()
		for i := 1; i < len(all); i++ {
			// Ten at 6 s, one removed, ten more, each in the middle of a gap.
			if gap := all[i] - all[i-1]; all[i-1] > 5*time.Minute && (gap < 3*600*time.Millisecond-10 || gap > 6*1400*time.Millisecond+10) {
				t.Errorf("%v from one to the next", gap)
			}
		}
		b.Set(nil)
		synctest.Wait()
		pass(time.Minute)
		n := len(b.sofar())
		pass(time.Hour)
		if len(b.sofar()) != n || len(b.entries) != 0 {
			t.Errorf("%d runs without checks, %d entries", len(b.sofar())-n, len(b.entries))
		}
		b.stop()
	})
}

// TestNoRecordAfterSet: a reload may drop all that belongs to a check.
func TestNoRecordAfterSet(t *testing.T) {
	var gone atomic.Bool
	begun := make(chan struct{}, 1000)
	r := New(nil, Options{ExtraPerDay: 1e6, Spacing: 1, Record: func(probe.Result) {
		begun <- struct{}{}
		runtime.Gosched()
		time.Sleep(time.Millisecond)
		if gone.Load() {
			t.Error("recorded after the Set that removed it")
		}
	}})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- r.Run(ctx) }()
	checks := several("max", 5, nothing)
	for range 20 {
		gone.Store(false)
		r.Set(checks)
		for _, c := range checks {
			for !r.Request(c.ID()) {
				runtime.Gosched() // Run has not begun
			}
		}
		<-begun
		r.Set(nil)
		gone.Store(true)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// TestReloadInFlight removes a check while it runs or waits, and brings it back
// before that ends: it must not run beside itself.
func TestReloadInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c crowd
		checks := several("telegram", 6, nil)
		for i := range checks {
			checks[i].Prober, checks[i].Gate = c.prober(i, 9*time.Second), "g"
		}
		b := begin(t, Options{}, checks)
		rnd := rand.New(rand.NewPCG(2, 2))
		for range 5000 {
			pass(time.Duration(rnd.Int64N(int64(10 * time.Second))))
			some := slices.Clone(checks)
			for i := range some {
				if rnd.IntN(3) == 0 {
					some[i].Interval = 2 * time.Minute
				}
				if rnd.IntN(3) == 0 {
					some[i].Gate = "h"
				}
			}
			rnd.Shuffle(len(some), func(i, j int) { some[i], some[j] = some[j], some[i] })
			b.Set(some[:rnd.IntN(len(some)+1)])
		}
		b.Set(checks)
		at := time.Since(b.began)
		pass(10 * time.Minute)
		b.stop()
		for i := range checks {
			if c.mostOf[i] != 1 {
				t.Errorf("check %d ran %d times at once", i, c.mostOf[i])
			}
			s := b.starts[checks[i].ID()]
			if n := len(s) - slices.IndexFunc(s, func(s time.Duration) bool { return s > at }); n < 8 {
				t.Errorf("check %d ran %d times in the ten minutes after", i, n)
			}
		}
	})
}

// TestReloadAtTheGate removes the first of those that wait at a gate: the
// others must not wait for ever.
func TestReloadAtTheGate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		checks := several("telegram", 5, takes(7*time.Second))
		for i := range checks {
			checks[i].Gate = "g"
		}
		b := begin(t, Options{PerGate: 1, ExtraPerDay: 1000}, checks)
		synctest.Wait()
		for _, c := range checks {
			b.Request(c.ID())
		}
		pass(time.Second)
		b.mu.Lock()
		if b.inFlight != 1 || len(b.atGate["g"]) != 4 {
			t.Fatalf("%d in flight, %d at the gate", b.inFlight, len(b.atGate["g"]))
		}
		first, last := b.atGate["g"][0].id, b.atGate["g"][3].id
		b.mu.Unlock()
		if !b.Request(last) { // it waits already: no further run
			t.Error("refused")
		}
		b.Set(slices.DeleteFunc(checks, func(c probe.Check) bool { return c.ID() != last }))
		pass(14 * time.Second)
		if b.runs(last) != 1 || b.runs(first) != 0 {
			t.Errorf("%d runs of the last, %d of the removed", b.runs(last), b.runs(first))
		}
		b.stop()
		if len(b.atGate) != 0 || len(b.entries) != 1 {
			t.Errorf("%d gates with a queue, %d entries", len(b.atGate), len(b.entries))
		}
	})
}

// TestFollowUpThatIsThenScheduled: a reload may bring the check of a follow-up.
func TestFollowUpThatIsThenScheduled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := check("max", 0, takes(5*time.Second))
		for _, wait := range []time.Duration{0, time.Second} { // waiting, in flight
			b := begin(t, Options{}, nil)
			synctest.Wait()
			n := 0
			b.Go(c, func(probe.Result) { n++ })
			pass(wait)
			b.Set([]probe.Check{c})
			pass(10 * time.Minute)
			b.stop()
			if runs := len(b.starts[c.ID()]); n != 1 || runs < 9 || runs > 11 {
				t.Errorf("done %d times, recorded %d times", n, runs)
			}
		}
	})
}

func TestPanicIsRecordedAndTheCheckGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := check("max", 0, asks(func(context.Context, probe.Net) []probe.Step { panic("defect") }))
		b := begin(t, Options{}, []probe.Check{c})
		pass(time.Hour)
		b.stop()
		if n := len(b.sofar()); n < 59 || n > 61 {
			t.Errorf("%d runs", n)
		}
		for _, r := range b.results {
			if o, reason := r.Judge(); o != probe.Void || reason != probe.ReasonPanic {
				t.Fatalf("%s %s", o, reason)
			}
		}
	})
}

func TestNothingAskedIsNotRecorded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		b := begin(t, Options{}, []probe.Check{check("max", 0, asks(func(context.Context, probe.Net) []probe.Step { n++; return nil }))})
		pass(time.Hour)
		b.stop()
		if n < 59 || len(b.sofar()) != 0 {
			t.Errorf("asked %d times, recorded %d", n, len(b.sofar()))
		}
	})
}

// TestStopVoidsWhatIsInFlight: what a stop cuts off is no failure, and Run
// waits for it.
func TestStopVoidsWhatIsInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := asks(func(ctx context.Context, _ probe.Net) []probe.Step {
			<-ctx.Done()
			time.Sleep(300 * time.Millisecond) // to close what it opened
			return []probe.Step{{Op: probe.OpConnect, Failure: probe.FailureTimeout, Err: ctx.Err()}}
		})
		checks := several("telegram", 40, slow)
		for i := range checks {
			checks[i].Timeout = time.Hour
		}
		b := begin(t, Options{MaxInFlight: 10}, checks)
		pass(time.Minute)
		began := time.Now()
		b.stop()
		if took := time.Since(began); took != 300*time.Millisecond {
			t.Errorf("Run ended after %v", took)
		}
		if n := len(b.sofar()); n != 10 {
			t.Errorf("%d recorded, want the ten in flight", n)
		}
		for _, r := range b.results {
			if o, reason := r.Judge(); o != probe.Void || reason != probe.ReasonCancelled {
				t.Errorf("%s %s", o, reason)
			}
		}
		if b.Run(t.Context()) == nil {
			t.Error("a second Run worked")
		}
		b.Set(checks) // harmless
	})
}

func TestStopBeforeStart(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r := New(nil, Options{Record: func(probe.Result) { t.Error("recorded") }})
	if r.Request("x") || r.Go(check("max", 0, takes(0)), nil) {
		t.Error("accepted before Run")
	}
	r.Set(several("max", 3, takes(0)))
	if err := r.Run(ctx); err != nil {
		t.Error(err)
	}
}

func TestOptionsMayBeEmpty(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c crowd
		r := New(nil, Options{})
		checks := several("max", 3, c.prober(0, time.Second))
		checks[0].Interval, checks[1].Interval = 0, -time.Hour // a minute
		r.Set(append(checks, checks...))                       // each twice is each once
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if err := r.Run(ctx); err != nil {
			t.Error(err)
		}
		if c.finished < 177 || c.finished > 183 {
			t.Errorf("%d runs", c.finished)
		}
	})
}

// TestStall moves the clock while all wait, as a stopped process or a paused
// machine would.
func TestStall(t *testing.T) {
	tests := []struct {
		stall      time.Duration
		atOnce     int // runs in the first second after, at most
		wantMissed int64
	}{
		{5 * time.Second, 15, 0},         // made up for: five seconds' worth and the jitter
		{time.Hour, 4, 100 * 59},         // not more than in any other second
		{8 * time.Hour, 4, 100 * 60 * 8}, // the same
	}
	for _, tt := range tests {
		t.Run(tt.stall.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := begin(t, Options{}, several("telegram", 100, takes(100*time.Millisecond)))
				pass(10*time.Minute + 250*time.Millisecond)
				for b.inFlight > 0 {
					pass(10 * time.Millisecond)
				}
				n := len(b.sofar())
				b.mu.Lock()
				b.origin = b.origin.Add(-tt.stall)
				b.mu.Unlock()
				b.poke()
				pass(time.Second)
				if k := len(b.sofar()) - n; k > tt.atOnce {
					t.Errorf("%d runs at once", k)
				}
				if tt.wantMissed > 0 {
					pass(83 * time.Second) // 1.4 intervals
					runs := make(map[string]int)
					for _, r := range b.sofar()[n:] {
						runs[r.Check.ID()]++
					}
					for i := range 100 {
						if k := runs[check("telegram", i, nil).ID()]; k < 1 || k > 2 {
							t.Errorf("check %d ran %d times in 1.4 intervals", i, k)
						}
					}
				}
				b.stop()
				if k := b.Skipped(); k < tt.wantMissed-100 || k > tt.wantMissed+200 {
					t.Errorf("%d skipped, want about %d", k, tt.wantMissed)
				}
				if late := slices.Max(b.lags); late > tt.stall || late < tt.stall*8/10 {
					t.Errorf("lag up to %v of %v", late, tt.stall)
				}
			})
		})
	}
}
