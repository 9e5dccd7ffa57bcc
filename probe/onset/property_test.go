package onset

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestNeverFromTheVantage: whatever the shape of an outage of the vantage alone
// (total, partial, flapping, silent or not), no messenger is blocked.
func TestNeverFromTheVantage(t *testing.T) {
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 99))
		o := usual
		o.env, o.abroad, o.siblings = calm, r.IntN(2) == 0, r.IntN(2) == 0
		o.loss = []float64{.001, .01, .03}[r.IntN(3)]
		w := newWorld(seed, o)
		local := w.where(localStream)
		shape := ""
		for at := 3600.0; at < 12000; {
			length, q := 5+r.ExpFloat64()*400, 1.0
			if r.IntN(2) == 0 {
				q = .2 + .8*r.Float64()
			}
			w.add(at, at+length, "vantage_outage", local, q, 't', "")
			shape += fmt.Sprintf(" %.0f+%.0f q %.2f", at, length, q)
			at += length + 1 + r.ExpFloat64()*[]float64{20, 200, 2000}[r.IntN(3)]
		}
		evs, _ := play(w, Config{})
		for _, e := range evs {
			if e.State == Blocked {
				t.Errorf("seed %d: %s %s at %v, %s;%s", seed, e.Messenger, e.Scope, e.Time, e.Evidence, shape)
			}
		}
	}
}

// deal plays the records of a world in another order where they start together.
func deal(w *world, shuffle *rand.Rand, skip func(at int64) bool) []Event {
	var evs []Event
	e := w.engine(Config{})
	p := newPlayer(e, func(ev *Event) { evs = append(evs, *ev) })
	p.ask = w.asker()
	type rec struct {
		s  int
		at int64
		a  answer
	}
	var group []rec
	flush := func() {
		if shuffle != nil {
			shuffle.Shuffle(len(group), func(i, j int) { group[i], group[j] = group[j], group[i] })
		}
		for _, r := range group {
			p.regular(r.s, r.at, r.a)
		}
		group = group[:0]
	}
	w.each(func(s int, at int64, a answer) {
		if skip != nil && skip(at) {
			return
		}
		if len(group) > 0 && group[0].at != at {
			flush()
		}
		group = append(group, rec{s, at, a})
	})
	flush()
	p.finish()
	return evs
}

// TestOrderOfEquals: the order of probes that start together does not matter.
func TestOrderOfEquals(t *testing.T) {
	for seed := range uint64(8) {
		o := usual
		o.aligned = true
		w := scenario([]string{"hard", "partial50", "x_vantage_outage", "flapping"}[seed%4], seed, o)
		want := deal(w, nil, nil)
		for k := range uint64(3) {
			got := deal(w, rand.New(rand.NewPCG(seed, k)), nil)
			if d := cmp.Diff(want, got); d != "" {
				t.Fatalf("seed %d: %s", seed, d)
			}
		}
		if len(want) == 0 {
			t.Errorf("seed %d: no events", seed)
		}
	}
}

// TestGap: a stretch without probes is neither success nor failure.
func TestGap(t *testing.T) {
	for _, hours := range []int64{1, 24 * 30} {
		o := usual
		o.env = calm
		o.loss = .005
		for _, blocked := range []bool{false, true} {
			w := newWorld(21, o)
			if blocked {
				w.block("telegram", 3600, 14400, "full", 1, 0)
			}
			e := w.engine(Config{})
			var evs []Event
			p := newPlayer(e, func(ev *Event) { evs = append(evs, *ev) })
			p.ask = func(int, int64) (answer, bool) { return answer{}, false }
			gap, before := int64(7200), 0
			w.each(func(s int, at int64, a answer) {
				if at > gap*second {
					if before == 0 {
						before = len(evs) + 1
					}
					at += hours * 3600 * second
				}
				p.regular(s, at, a)
			})
			p.finish()
			for _, ev := range evs[min(len(evs), max(0, before-1)):] {
				if ev.State != Suspect && ev.State != OK {
					t.Errorf("gap of %d h, blocked %v: %+v", hours, blocked, ev)
				}
			}
			s, _ := e.Status("telegram")
			if blocked && (s.State != Blocked || s.Episode != 1) || !blocked && s.Episode != 0 {
				t.Errorf("gap of %d h, blocked %v: %+v", hours, blocked, s)
			}
		}
	}
}

// TestStartOrder: what ended is held back while something that started before
// it is still in flight, and no longer than a probe may take.
func TestStartOrder(t *testing.T) {
	ss := []Stream{
		{Messenger: "m", Endpoint: "a", Check: "tls", Family: Conn, Role: Target},
		{Messenger: "m", Endpoint: "b", Check: "tls", Family: Conn, Role: Target},
		{Messenger: "control", Endpoint: "c", Check: "tls", Family: Conn, Role: Control},
	}
	e, err := New(ss, Config{Timeout: 5 * time.Second, Confirmations: -1})
	if err != nil {
		t.Fatal(err)
	}
	w := e.watches[0]
	seen := func(want float64) {
		t.Helper()
		if got := float64(w.last) * 1e-9; math.Abs(got-want) > 1e-6 {
			t.Errorf("consumed up to %v, want %v", got, want)
		}
	}
	e.Started(0, worldTime(100))
	e.Started(1, worldTime(101))
	e.Started(2, worldTime(102))
	e.Finished(1, worldTime(101), 200*time.Millisecond, true)
	e.Finished(2, worldTime(102), 200*time.Millisecond, true)
	seen(0)
	e.Finished(0, worldTime(100), 5*time.Second, false)
	seen(102)
	e.Started(0, worldTime(110))
	e.Started(1, worldTime(111))
	e.Finished(1, worldTime(111.001), time.Second, true) // started "about then"
	if next, ok := e.Next(); !ok || !next.Equal(worldTime(117)) {
		t.Errorf("next %v", next)
	}
	e.Advance(worldTime(116.9))
	seen(102)
	e.Advance(worldTime(117)) // the other is given up
	seen(111)
	e.Finished(0, worldTime(110), 9*time.Second, true) // and comes too late
	seen(111)
	e.Started(1, worldTime(120))
	e.Abandoned(1, worldTime(120), time.Second)
	seen(111)
	e.Finished(2, worldTime(121), time.Second, true) // never announced
	seen(121)
}

// sane reports a number in the state that is none.
func sane(t *testing.T, e *Engine) {
	t.Helper()
	bad := func(x float64) bool { return math.IsNaN(x) || math.IsInf(x, 0) || x < -1e-9 || x > 1e9 }
	for _, w := range e.watches {
		sum := 0.0
		for _, row := range w.a {
			for _, x := range row {
				if bad(x) || x < 0 {
					t.Fatalf("filter %v", w.a)
				}
				sum += x
			}
		}
		if math.Abs(sum/w.mass-1) > 1e-9 {
			t.Fatalf("the filter sums to %v", sum)
		}
		for i, b := range w.base {
			if bad(b.Failed) || bad(b.Tried) || bad(b.p0) || b.p0 < p0Floor || b.p0 > p0Cap {
				t.Fatalf("baseline of %d: %+v", i, b)
			}
		}
		for _, h := range w.hyp {
			if h.awake && (bad(h.w) || slices.ContainsFunc(h.b[:], bad)) {
				t.Fatalf("hypothesis %+v", h)
			}
		}
		for _, x := range []float64{w.d, w.score, w.detector.rate, w.tokens, w.poolFailed, w.poolTried} {
			if bad(x) {
				t.Fatalf("%+v", w)
			}
		}
	}
}

// TestTenYears: nothing overflows, drifts or grows in ten simulated years of
// outages, blocks, gaps and clocks that jump.
func TestTenYears(t *testing.T) {
	var ss []Stream
	for _, m := range []string{"a", "b"} {
		for _, x := range []struct {
			endpoint, check, family, path string
			role                          Role
		}{{"e1", "tls", Conn, "p1", Target}, {"e2", "tcp", Conn, "p2", Target}, {"e1", "dns", DNS, "r", Target},
			{"s", "tls", Conn, "p1", Sibling}, {"e1", "tls", Conn, "ref", Reference}} {
			ss = append(ss, Stream{Messenger: m, Endpoint: x.endpoint, Check: x.check, Family: x.family, Path: x.path, Role: x.role})
		}
	}
	for _, c := range []string{"tls", "tcp", "dns", "quic"} {
		f := Conn
		if c == "dns" {
			f = DNS
		}
		ss = append(ss, Stream{Messenger: "control", Endpoint: c, Check: c, Family: f, Path: "local", Role: Control})
	}
	e, err := New(ss, Config{Interval: 30 * time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	p := newPlayer(e, func(*Event) {})
	r := rand.New(rand.NewPCG(10, 10))
	ill := make([]float64, len(ss))
	p.ask = func(s int, at int64) (answer, bool) {
		return answer{ok: r.Float64() > ill[s], took: 1e8}, true
	}
	const period = 1800 * second
	flights, hyp := cap(e.watches[0].flights), len(e.watches[0].hyp)
	for n := range int64(10 * 365 * 48) {
		if r.IntN(500) == 0 { // something changes: all, one messenger, or one stream, ill or well
			q, of := []float64{0, .01, .3, 1}[r.IntN(4)], []string{"", "a", "b"}[r.IntN(3)]
			for s := range ss {
				if of == "" || ss[s].Messenger == of {
					ill[s] = q
				}
			}
		}
		if r.IntN(3000) == 0 {
			continue // a gap
		}
		for s := range ss {
			took := int64(2e8)
			ok := r.Float64() >= ill[s]
			if !ok {
				took = 5e9
			}
			p.regular(s, n*period+int64(s)*60*second, answer{ok: ok, took: took})
		}
		if n%5000 == 0 {
			sane(t, e)
		}
	}
	p.finish()
	sane(t, e)
	if w := e.watches[0]; cap(w.flights) != flights || len(w.hyp) != hyp || len(w.flights) != 0 {
		t.Errorf("%d probes in flight, room for %d, was %d", len(w.flights), cap(w.flights), flights)
	}
	if s, _ := e.Status("a"); s.Episode == 0 {
		t.Error("ten years of outages and blocks, and not one episode")
	}
}

// TestClocks: a clock that jumps, and a caller that starts and never finishes,
// cost nothing but evidence.
func TestClocks(t *testing.T) {
	w := newWorld(3, usual)
	e := w.engine(Config{})
	now := time.Unix(1e9, 0)
	r := rand.New(rand.NewPCG(1, 2))
	for range 20000 {
		switch r.IntN(200) {
		case 0:
			now = now.Add(-time.Duration(r.Int64N(int64(100 * 24 * time.Hour))))
		case 1:
			now = now.Add(time.Duration(r.Int64N(int64(100 * 24 * time.Hour))))
		default:
			now = now.Add(time.Duration(r.Int64N(int64(10 * time.Second))))
		}
		s := r.IntN(len(w.streams)+4) - 2
		switch r.IntN(5) {
		case 0:
			e.Started(s, now)
		case 1:
			e.Finished(s, now.Add(-time.Second), time.Second, r.IntN(2) == 0)
		case 2:
			e.Abandoned(s, now, -time.Second)
		case 3:
			e.Advance(now)
		case 4:
			for _, q := range e.Requests() {
				if r.IntN(2) == 0 {
					e.Skipped(q)
				}
			}
		}
		e.Events()
	}
	sane(t, e)
	for _, w := range e.watches {
		if len(w.flights) > cap(w.flights) || w.open < 0 || w.waiting < 0 {
			t.Errorf("open %d waiting %d", w.open, w.waiting)
		}
	}
}
