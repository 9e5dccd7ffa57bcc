package verdict

import (
	"testing"
	"time"

	"github.com/messenger-probe/messenger-probe/probe"
	"github.com/messenger-probe/messenger-probe/targets"
)

// catalogue is every check of the embedded catalogue, as `run` has them.
func catalogue(tb testing.TB) []probe.Check {
	tb.Helper()
	c, err := targets.Load("")
	if err != nil {
		tb.Fatal(err)
	}
	checks, err := c.Checks(targets.Vantage{Messengers: []string{"whatsapp", "telegram", "max"}, Families: []string{probe.IP4, probe.IP6},
		Interval: time.Minute, Timeout: 10 * time.Second, SystemServers: systemResolvers,
		Trust: func([][32]byte) *probe.Trust { return nil }})
	if err != nil {
		tb.Fatal(err)
	}
	return checks
}

// TestCatalogue: what is said of the small catalogue is said of the whole one.
func TestCatalogue(t *testing.T) {
	checks := catalogue(t)
	t.Logf("%d checks", len(checks))
	blockedOrDegraded := State("blocked|degraded")
	deny := answer{failure: probe.FailureDNSNXDOMAIN}
	isp := []string{probe.System, "national"}
	domains := []string{"whatsapp.com", "whatsapp.net", "wa.me"}
	for _, sc := range []scenario{
		{name: "nothing"},
		{name: "names gone", names: []nameEffect{answers(deny, isp, domains...)}, want: map[string]expectation{
			"whatsapp/web": {Blocked, DNSOmission, High, "denies"}, "whatsapp/media": {Blocked, DNSOmission, High, ""}, "whatsapp/login": {blockedOrDegraded, DNSOmission, High, ""},
			"whatsapp/chat": {Degraded, DNSOmission, High, ""}}},
		{name: "names dropped", effects: []effect{when(under(domains...), swallows)}, want: map[string]expectation{
			"whatsapp/web": {Blocked, SNIDrop, High, ""}, "whatsapp/media": {Blocked, SNIDrop, High, ""}, "whatsapp/login": {Blocked, SNIDrop, High, ""}}},
		{name: "names dropped, not in QUIC", effects: []effect{when(all(overTCP, under(domains...)), resets)}, want: map[string]expectation{
			"whatsapp/web": {blockedOrDegraded, SNIReset, High, ""}, "whatsapp/media": {blockedOrDegraded, SNIReset, High, ""}, "whatsapp/login": {Blocked, SNIReset, High, ""}}},
		{name: "data centres dropped", effects: []effect{when(to("149.154.175.50 149.154.167.51 149.154.175.100 149.154.167.91 149.154.171.5 149.154.175.53 149.154.167.41 91.108.56.191 2001:67c:4e8:f002::a 2001:67c:4e8:f004::a 2001:b28:f23d:f001::a 2001:b28:f23d:f003::a 2001:b28:f23f:f005::a"), drops)},
			want: map[string]expectation{"telegram/chat": {Blocked, IPBlock, Medium, ""}}},
		{name: "two data centres on one port", effects: []effect{when(all(to("149.154.167.51 149.154.167.91"), on(443)), drops)},
			want: map[string]expectation{"telegram/chat": {Degraded, PortBlock, High, ""}}},
		{name: "Noise swallowed", effects: []effect{when(speaking(probe.ProtoNoise), swallows)}, want: map[string]expectation{"whatsapp/chat": {Blocked, ProtocolBlock, High, ""}}},
		{name: "WhatsApp gone", effects: []effect{func(w *world, f *flow) (fate, bool) { return fate{is: drops}, w.owners[f.addr.Addr()] == "whatsapp" }},
			want: map[string]expectation{"whatsapp/chat": {Unreachable, "", "", "another network"}, "whatsapp/web": {Unreachable, "", "", ""}, "whatsapp/media": {Unreachable, "", "", ""},
				"whatsapp/login": {Unreachable, "", "", ""}, "whatsapp/calls": {Unreachable, "", "", ""}}},
	} {
		for _, how := range []way{daily, once} {
			t.Run(sc.name+"/"+string(how), func(t *testing.T) {
				w := worldOf(7, checks)
				w.effects, w.names = sc.effects, sc.names
				d := w.live(checks, how)
				if !d.meets(t, sc, true) {
					d.show(t)
				}
			})
		}
	}
	// And the outages.
	for _, o := range outages {
		t.Run(o.name, func(t *testing.T) {
			for seed := range uint64(2) {
				w := worldOf(seed, checks)
				o.make(w)
				d := w.live(checks, []way{daily, once}[seed])
				o.says = ""
				if err := d.blames(o); err != "" {
					t.Errorf("seed %d: %s", seed, err)
					d.show(t)
					return
				}
			}
		})
	}
}

// BenchmarkJudge is the cost of all verdicts of the embedded catalogue: with
// nothing wrong, and with what makes the rules work hardest.
func BenchmarkJudge(b *testing.B) {
	checks := catalogue(b)
	for _, c := range []struct {
		name string
		make func(*world)
	}{
		{"clean", func(*world) {}},
		{"everything dropped", func(w *world) {
			w.effects = []effect{when(all(overTCP, under("whatsapp.com", "whatsapp.net", "telegram.org", "oneme.ru", "max.ru")), swallows), when(all(overUDP, not(speaking("dns"))), drops)}
		}},
		{"addresses and names", func(w *world) {
			w.names = []nameEffect{answers(answer{failure: probe.FailureDNSNXDOMAIN}, nil, "whatsapp.com", "whatsapp.net", "telegram.org")}
			w.effects = []effect{when(to("149.154.160.0/20 15.197.0.0/16"), drops)}
		}},
		{"loss", func(w *world) { w.loss = 0.05 }},
	} {
		b.Run(c.name, func(b *testing.B) {
			w := worldOf(1, checks)
			c.make(w)
			d := w.live(checks, daily)
			d.vantage.State = Online
			b.ReportAllocs()
			b.ReportMetric(float64(len(d.records)), "records")
			for b.Loop() {
				Judge(d.vantage, d.records, d.arms)
			}
		})
	}
	b.Run("vantage", func(b *testing.B) {
		w := worldOf(1, checks)
		d := w.live(checks, daily)
		rs := controlsOf(d.records)
		b.ReportAllocs()
		for b.Loop() {
			JudgeVantage(rs, 0)
		}
	})
}

// TestCost holds Judge to a millisecond a verdict, on a machine that has other
// things to do.
func TestCost(t *testing.T) {
	limit := time.Millisecond
	if raced {
		limit *= 20
	}
	checks := catalogue(t)
	w := worldOf(1, checks)
	w.effects = []effect{when(to("149.154.160.0/20 15.197.0.0/16"), drops), when(under("whatsapp.com", "whatsapp.net"), swallows)}
	d := w.live(checks, daily)
	best := time.Hour
	for range 20 {
		start := time.Now()
		Judge(d.vantage, d.records, d.arms)
		best = min(best, time.Since(start))
	}
	if each := best / time.Duration(len(d.verdicts)); each > limit {
		t.Errorf("%v a verdict", each)
	}
}
