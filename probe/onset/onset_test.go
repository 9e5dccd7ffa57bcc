package onset

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// second of a world as a time.
func worldTime(s float64) time.Time { return time.Unix(0, int64(s*1e9)).UTC() }

func play(w *world, cfg Config) ([]Event, Stats) {
	var evs []Event
	st := w.run(w.engine(cfg), func(e *Event) { evs = append(evs, *e) })
	return evs, st
}

func quantile(x []float64, p float64) float64 {
	x = slices.Sorted(slices.Values(x))
	return x[min(len(x)-1, int(p*float64(len(x))))]
}

// TestBlocks holds the detector to its goals on simulated vantages. The bounds
// are those that the project promises; the seeds are any.
func TestBlocks(t *testing.T) {
	for _, c := range []struct {
		scenario string
		p50, p95 float64 // seconds
		scopes   []string
	}{
		{"hard", 30, 60, []string{"all", "net", "conn", "tls"}},
		{"hard_ip", 45, 75, []string{"all", "net", "conn"}},
		{"hard_sni", 30, 55, []string{"conn", "tls", "all", "net"}},
		{"partial80", 45, 150, nil},
		{"partial50", 75, 300, nil},
		{"partial30", 180, math.Inf(1), nil},
		{"calls_only", 60, 100, []string{"calls"}},
		{"dns_only", 60, 100, []string{"dns"}},
		{"one_endpoint", 90, 200, nil},
		{"under_burst", 120, 600, nil},
		{"ramp30m", 540, 1200, nil}, // 30 % of the half hour
		{"flapping", 30, 60, nil},
	} {
		t.Run(c.scenario, func(t *testing.T) {
			t.Parallel()
			const n = 20
			var delays []float64
			pages, right := 0, 0
			for seed := range uint64(n) {
				o := usual
				o.loss = 0 // drawn from 0.1 to 5 %
				w := scenario(c.scenario, 31000+seed, o)
				evs, _ := play(w, Config{})
				first, last := w.blocks[0].from, w.blocks[len(w.blocks)-1].to
				delay := math.Inf(1)
				for _, e := range evs {
					at := float64(e.Time.UnixNano()) * 1e-9
					if !e.Page() || e.Messenger != w.target || at < first || at > last+60 {
						continue
					}
					if pages++; math.IsInf(delay, 1) {
						delay = at - first
						if slices.Contains(c.scopes, e.Scope) {
							right++
						}
						if !strings.Contains(e.Evidence, "failed since") {
							t.Errorf("seed %d: evidence %q", seed, e.Evidence)
						}
						if e.Onset.After(e.Time) || e.Initial {
							t.Errorf("seed %d: onset %v of an event at %v, initial %v", seed, e.Onset, e.Time, e.Initial)
						}
					}
				}
				delays = append(delays, delay)
			}
			p50, p95 := quantile(delays, .5), quantile(delays, .95)
			t.Logf("p50 %.0f s, p95 %.0f s, %d pages", p50, p95, pages)
			if p50 > c.p50 || p95 > c.p95 {
				t.Errorf("delay p50 %.0f s, p95 %.0f s; want %.0f and %.0f", p50, p95, c.p50, c.p95)
			}
			if pages > n+n/10 {
				t.Errorf("%d pages for %d blocks", pages, n)
			}
			if c.scopes != nil && right < n*8/10 {
				t.Errorf("only %d of %d scopes are one of %v", right, n, c.scopes)
			}
		})
	}
}

// TestBenign: what is no block must not page.
func TestBenign(t *testing.T) {
	for _, name := range append(slices.Clone(worldBenign), "quiet") {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			wrong := 0
			for seed := range uint64(12) {
				o := usual
				o.loss = 0
				w := scenario(name, 52000+seed, o)
				evs, _ := play(w, Config{})
				for _, e := range evs {
					if e.Page() {
						wrong++
						t.Logf("seed %d: %v %s %s: %s (%s %.2f)", seed, e.Time, e.Messenger, e.Scope, e.Evidence, e.Rival, e.RivalP)
					}
				}
			}
			if wrong > 1 {
				t.Errorf("%d false pages in 12 traces", wrong)
			}
		})
	}
}

// TestLift: the end of a block is noticed, and the state goes back to ok.
func TestLift(t *testing.T) {
	var clears []float64
	for seed := range uint64(20) {
		w := scenario("lift", 700+seed, usual)
		evs, _ := play(w, Config{})
		end := worldTime(w.blocks[0].to)
		var after []State
		for _, e := range evs {
			if e.Messenger == w.target && e.Time.After(end) && e.State != Outage {
				if len(after) == 0 {
					clears = append(clears, e.Time.Sub(end).Seconds())
				}
				after = append(after, e.State)
			}
		}
		if len(after) < 2 || after[0] != Recovering || after[1] != OK {
			t.Errorf("seed %d: after the block %v", seed, after)
		}
	}
	if p := quantile(clears, .5); p > 60 {
		t.Errorf("recovering after %.0f s", p)
	}
}

// TestFlapping: one episode, relapses told as such.
func TestFlapping(t *testing.T) {
	w := scenario("flapping", 3, usual)
	evs, _ := play(w, Config{})
	pages, relapses := 0, 0
	for _, e := range evs {
		if e.Messenger == w.target && e.State == Blocked {
			if e.Relapse {
				relapses++
			} else {
				pages++
			}
			if e.Episode != 1 {
				t.Errorf("episode %d", e.Episode)
			}
		}
	}
	if pages != 1 || relapses < 5 {
		t.Errorf("%d pages, %d relapses of 8 blocks", pages, relapses)
	}
}

// TestAttribution: nobody abroad, nobody to confirm.
// Streams that the declared scope covers, and that answer from the first on, are
// no recovery: neither is one told each time they do, nor is the true one held up
// for it.
func TestSomeWorkOn(t *testing.T) {
	var streams []Stream
	for i := range 6 {
		streams = append(streams, Stream{Messenger: "m", Endpoint: fmt.Sprint("name", i), Check: "tls", Family: Conn, Path: fmt.Sprint("p", i%3), Role: Target})
	}
	for i := range 12 {
		streams = append(streams, Stream{Messenger: "m", Endpoint: fmt.Sprint("raw", i), Check: "noise", Family: Conn, Path: fmt.Sprint("p", i%3), Role: Target})
	}
	for i := range 8 {
		streams = append(streams, Stream{Endpoint: fmt.Sprint("control", i), Check: "tls", Family: Conn, Role: Control})
	}
	for i := range 4 {
		streams = append(streams, Stream{Messenger: "m", Endpoint: fmt.Sprint("sibling", i), Check: "tcp", Family: Conn, Path: fmt.Sprint("p", i%3), Role: Sibling})
	}
	e, err := New(streams, Config{})
	if err != nil {
		t.Fatal(err)
	}
	now, turn := time.Unix(1e9, 0), 0
	var evs []Event
	// seconds asks one stream a second, of those that ask allows.
	seconds := func(n int, blocked bool, ask func(i int) bool) {
		for range n {
			for turn++; !ask(turn % len(streams)); turn++ {
			}
			i := turn % len(streams)
			now = now.Add(time.Second)
			e.Started(i, now)
			e.Finished(i, now, 100*time.Millisecond, !blocked || i >= 6)
			e.Advance(now)
			for _, r := range e.Requests() {
				e.Skipped(r)
			}
			evs = append(evs, e.Events()...)
		}
	}
	all := func(int) bool { return true }
	seconds(3600, false, all)
	if len(evs) > 0 {
		t.Fatalf("%+v", evs)
	}
	// By chance, or because they are suspected, no other handshakes are asked.
	seconds(120, true, func(i int) bool { return i < 6 || i >= 18 })
	if len(evs) == 0 || evs[len(evs)-1].State != Blocked {
		t.Fatalf("%+v", evs)
	}
	evs = nil
	seconds(3600, true, all)
	if len(evs) > 0 {
		t.Errorf("while it lasts: %+v", evs)
	}
	for i := range 18 {
		if e.Covered(i) != (i < 6) {
			t.Errorf("stream %d is covered: %t", i, e.Covered(i))
		}
	}
	b, err := e.Marshal(now)
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Unmarshal(b, now); err != nil {
		t.Fatal(err)
	}
	evs = nil
	seconds(900, false, all)
	if len(evs) != 2 || evs[0].State != Recovering || evs[1].State != OK {
		t.Errorf("after it: %+v", evs)
	}
}

func TestAttribution(t *testing.T) {
	for _, abroad := range []bool{true, false} {
		o := usual
		o.abroad, o.env = abroad, calm
		w := newWorld(5, o)
		w.block("telegram", 3600, 9000, "ip_drop", 1, 0)
		w.target = "telegram"
		e := w.engine(Config{})
		var page *Event
		w.run(e, func(ev *Event) {
			if ev.Page() && page == nil {
				c := *ev
				page = &c
			}
		})
		if page == nil {
			t.Fatal("no page")
		}
		want := Unconfirmed
		if abroad {
			want = Confirmed
		}
		if page.Attribution != want {
			t.Errorf("abroad %v: attribution %q", abroad, page.Attribution)
		}
	}
}

// TestSilentReference: a comparator that falls silent must not hide a block.
func TestSilentReference(t *testing.T) {
	o := usual
	o.env = calm
	w := newWorld(6, o)
	w.block("telegram", 7200, 20000, "ip_drop", 1, 0)
	e := w.engine(Config{})
	p := newPlayer(e, func(*Event) {})
	p.ask = w.asker()
	w.each(func(s int, at int64, a answer) {
		if w.streams[s].Role == Reference && at > 3600*second {
			return
		}
		p.regular(s, at, a)
	})
	p.finish()
	if s, _ := e.Status("telegram"); s.Episode != 1 || s.State != Blocked || s.Attribution != Unconfirmed {
		t.Errorf("%+v", s)
	}
}

// TestInitial: a block met at the start is told apart from one that begins.
func TestInitial(t *testing.T) {
	o := usual
	o.env = calm
	w := newWorld(7, o)
	w.block("telegram", -1, 14400, "full", 1, 0)
	evs, _ := play(w, Config{})
	i := slices.IndexFunc(evs, func(e Event) bool { return e.Page() })
	if i < 0 || !evs[i].Initial || evs[i].Messenger != "telegram" {
		t.Fatalf("%+v", evs)
	}
}

func TestStatus(t *testing.T) {
	o := usual
	o.env = calm
	w := newWorld(8, o)
	w.block("telegram", 3600, 20000, "calls", 1, 0)
	e := w.engine(Config{})
	w.run(e, func(*Event) {})
	s, ok := e.Status("telegram")
	if !ok || s.State != Blocked || s.Scope != "calls" || s.Episode != 1 || s.Onset.Before(worldTime(3590)) || s.Onset.After(worldTime(3700)) || s.Extra == 0 {
		t.Errorf("%+v", s)
	}
	if _, ok := e.Status("signal"); ok {
		t.Error("a status of an unknown messenger")
	}
	for i, x := range w.streams {
		want := x.Messenger == "telegram" && x.Role == Target && x.Family == Calls
		if got := e.Covered(i); got != want {
			t.Errorf("stream %d %+v: covered %v", i, x.Stream, got)
		}
	}
	got := map[string]bool{}
	for scope, nats := range e.Evidence("telegram") {
		got[scope] = nats >= 16
	}
	if !got["calls"] || got["dns"] || got["all"] {
		t.Errorf("evidence %v", got)
	}
	for _, p := range e.Benign("telegram") {
		if !(p >= 0 && p <= 1) {
			t.Errorf("probabilities %v", e.Benign("telegram"))
		}
	}
	if d := cmp.Diff([]string{"max", "telegram", "whatsapp"}, slices.Collect(e.Messengers())); d != "" {
		t.Error(d)
	}
}

// TestVantageDown: the gauge and the event name the vantage, once, and say when
// it is over.
func TestVantageDown(t *testing.T) {
	o := usual
	o.env = calm
	w := newWorld(9, o)
	w.add(3600, 4800, "vantage_outage", w.where(localStream), 1, 't', "")
	e := w.engine(Config{})
	var got []State
	high := 0.0
	w.run(e, func(ev *Event) {
		if ev.Messenger == Vantage {
			got = append(got, ev.State)
			high = max(high, e.Benign("telegram")[0])
		}
	})
	if d := cmp.Diff([]State{VantageDown, OK}, got); d != "" {
		t.Error(d)
	}
	if high < .9 {
		t.Errorf("vantage probability %v", high)
	}
	if e.Benign("telegram")[0] > .1 {
		t.Errorf("vantage probability %v when all is well", e.Benign("telegram")[0])
	}
}

// TestOutageNamed: resolver, UDP and server outages are called by their names.
func TestOutageNamed(t *testing.T) {
	for cause, add := range map[string]func(w *world){
		"resolver_down": func(w *world) { w.resolverOutage(3600, 5400) },
		"udp_down":      func(w *world) { w.udpOutage(3600, 5400) },
		"server_down":   func(w *world) { w.serverOutage("telegram", 3600, 5400) },
	} {
		o := usual
		o.env = calm
		w := newWorld(10, o)
		add(w)
		evs, _ := play(w, Config{})
		if !slices.ContainsFunc(evs, func(e Event) bool { return e.State == Outage && e.Cause == cause }) {
			t.Errorf("%s is not named in %v", cause, evs)
		}
		if slices.ContainsFunc(evs, func(e Event) bool { return e.State == Blocked }) {
			t.Errorf("%s reads as a block", cause)
		}
	}
}

// TestBudget: confirmations stay within their share.
func TestBudget(t *testing.T) {
	for _, c := range []struct {
		share, most float64
	}{{-1, 0}, {.001, .004}, {0, .13}} {
		o := usual
		o.loss = .05
		o.hours = 12
		w := newWorld(11, o)
		w.add(3600, 40000, "vantage_burst", w.where(localStream), .15, 't', "")
		_, st := play(w, Config{Confirmations: c.share})
		if got := float64(st.Extra) / float64(st.Regular); got > c.most {
			t.Errorf("share %v: %d extra of %d probes", c.share, st.Extra, st.Regular)
		}
	}
}

func TestConfig(t *testing.T) {
	ok := []Stream{{Messenger: "m", Endpoint: "e", Check: "tls", Family: Conn, Role: Target}}
	if _, err := New(ok, Config{}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []Config{{Interval: 1}, {Timeout: -1}, {Page: math.NaN()}, {Page: 3}, {Confirmations: 2}, {Confirmations: math.NaN()}} {
		if _, err := New(ok, c); err == nil {
			t.Errorf("%+v is accepted", c)
		}
	}
	for _, s := range []Stream{
		{Messenger: "m", Family: Conn},
		{Messenger: "m", Role: Target},
		{Family: Conn, Role: Target},
		{Messenger: Vantage, Family: Conn, Role: Target},
		{Messenger: strings.Repeat("m", 1000), Family: Conn, Role: Target},
		{Messenger: "m", Family: Conn, Role: Control},
	} {
		if _, err := New([]Stream{s}, Config{}); err == nil {
			t.Errorf("%+v is accepted", s)
		}
	}
}

func TestDecay(t *testing.T) {
	for x := 0.0; x < 20; x += 1. / 1024 {
		if got, want := decay(x), math.Exp(-x); math.Abs(got-want) > 1e-11*want {
			t.Fatalf("decay(%v) is %v, want %v", x, got, want)
		}
	}
}
