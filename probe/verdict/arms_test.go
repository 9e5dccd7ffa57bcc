package verdict

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/messenger-probe/messenger-probe/probe"
)

// TestNameBesideNoName: no name at the same address says as much as another one,
// and where both are answered, the fuller answer counts.
func TestNameBesideNoName(t *testing.T) {
	no := expectation{Unreachable, "", Low, "another network"}
	for _, c := range []struct {
		fails, neutral, none kindOfFate
		want                 expectation
	}{
		{swallows, swallows, swallows, no},
		{swallows, swallows, passes, expectation{Blocked, SNIDrop, Medium, benchName}},
		{swallows, swallows, alerts, expectation{Blocked, SNIDrop, Medium, ""}},
		{resets, resets, passes, expectation{Blocked, SNIReset, Medium, ""}},
		{resets, closes, resets, no},
		{resets, closes, passes, expectation{Blocked, SNIReset, Medium, ""}},
		// A refusal is short, and a way may lose what is long.
		{mutes, alerts, mutes, expectation{Unreachable, SNIDrop, Low, "loses packets"}},
		{mutes, alerts, passes, expectation{Blocked, SNIDrop, Medium, ""}},
	} {
		t.Run(fmt.Sprint(c.fails, c.neutral, c.none), func(t *testing.T) {
			b := newBench(probe.ProtoTLS, probe.TLS{Addr: netip.MustParseAddrPort(benchAddr), ServerName: benchName, Hello: probe.HelloGo}).fails(is(c.fails))
			b.ask(t, AskNeutralName, is(c.neutral)).ask(t, AskNoName, is(c.none))
			c.want.check(t, "alpha/login", b.verdict(), true)
		})
	}
}

// TestNameElsewhere: a name that dies at an address which is not the messenger's
// dies for its own sake. It is asked only where a control lends itself.
func TestNameElsewhere(t *testing.T) {
	for _, c := range []struct {
		fails, neutral, elsewhere kindOfFate
		want                      expectation
	}{
		{swallows, passes, swallows, expectation{Blocked, SNIDrop, High, "not the messenger's"}},
		{swallows, swallows, swallows, expectation{Blocked, SNIDrop, High, "not the messenger's"}},
		{swallows, passes, passes, expectation{Blocked, SNIDrop, Medium, ""}},
		{swallows, swallows, passes, expectation{Unreachable, "", Low, "another network"}},
		{resets, resets, resets, expectation{Blocked, SNIReset, High, "not the messenger's"}},
		{resets, resets, swallows, expectation{Unreachable, "", Low, ""}},
		// The lender itself is silent.
		{swallows, swallows, drops, expectation{Unreachable, "", Low, ""}},
	} {
		t.Run(fmt.Sprint(c.fails, c.neutral, c.elsewhere), func(t *testing.T) {
			b := newBench(probe.ProtoTLS, probe.TLS{Addr: netip.MustParseAddrPort(benchAddr), ServerName: benchName, Hello: probe.HelloGo}).fails(is(c.fails))
			lends := func(yes bool) {
				for i := range b.records {
					if b.records[i].Check.Messenger == probe.Control {
						b.records[i].Check.Lends = yes
					}
				}
			}
			for _, q := range Questions(Vantage{State: Online}, b.records, 2, nobody) {
				if q.Ask == AskElsewhere {
					t.Fatal("the name would be sent to a control that does not lend itself")
				}
			}
			lends(true)
			b.ask(t, AskNeutralName, is(c.neutral)).ask(t, AskElsewhere, is(c.elsewhere))
			if a := b.arms[1].Result.Addr().Addr().String(); a != "77.88.55.242" {
				t.Errorf("the name was sent to %s", a)
			}
			c.want.check(t, "alpha/login", b.verdict(), true)
		})
	}
}

func nobody(string, Ask) bool { return false }

// TestPortBesideArms: a silent port beside another that nobody else asks.
func TestPortBesideArms(t *testing.T) {
	for _, c := range []struct {
		name  string
		addrs []string
		other []kindOfFate
		want  expectation
	}{
		{"nothing asked", []string{"157.240.205.61"}, nil, expectation{Unreachable, "", Low, "no port"}},
		{"another opens", []string{"157.240.205.61"}, []kindOfFate{passes}, expectation{Unreachable, PortBlock, Medium, ":80 there answers"}},
		{"another is silent", []string{"157.240.205.61"}, []kindOfFate{drops}, expectation{Unreachable, "", Low, "no port"}},
		{"another is refused", []string{"157.240.205.61"}, []kindOfFate{refuses}, expectation{Unreachable, "", Low, "no port"}},
		{"in one network", []string{"157.240.205.61", "157.240.205.62"}, []kindOfFate{passes, passes}, expectation{Unreachable, PortBlock, High, ""}},
		{"in two networks", []string{"157.240.205.61", "31.13.72.60"}, []kindOfFate{passes, passes}, expectation{Blocked, PortBlock, High, ":443"}},
		{"in a third network, not asked", []string{"157.240.205.61", "31.13.72.60", "179.60.192.61"}, []kindOfFate{passes, passes}, expectation{Blocked, PortBlock, High, "179.60.192.61"}},
		{"one is silent on both", []string{"157.240.205.61", "31.13.72.60"}, []kindOfFate{passes, drops}, expectation{Unreachable, "", Low, "times out at connect"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(probe.ProtoTCP, nil)
			for i, a := range c.addrs {
				at := netip.AddrPortFrom(netip.MustParseAddr(a), 443)
				b.check.Target, b.check.Endpoint, b.check.Prober = at.String(), fmt.Sprint(i), probe.TLS{Addr: at, ServerName: benchName}
				b.check.Protocol = probe.ProtoTLS
				b.fails(is(drops))
			}
			for _, q := range Questions(Vantage{State: Online}, b.records, 2, nobody) {
				if n := len(b.arms); q.Ask == AskOtherPort && n < len(c.other) {
					if to := q.Check.Prober.(probe.TCP).Addr; to.Port() != 80 {
						t.Fatalf("asked at %v", to)
					}
					b.arms = append(b.arms, Arm{Of: q.Of, Ask: q.Ask, Result: b.meets(q.Check, is(c.other[n]))})
				}
			}
			if len(b.arms) != len(c.other) {
				t.Fatalf("%d questions, want %d", len(b.arms), len(c.other))
			}
			c.want.check(t, "alpha/login", b.verdict(), true)
		})
	}
	// What the schedule asks at another port is not asked again.
	b := newBench(probe.ProtoTLS, probe.TLS{Addr: netip.MustParseAddrPort(benchAddr), ServerName: benchName})
	b.also(probe.Check{Messenger: "alpha", Function: "login", Endpoint: "e", Protocol: probe.ProtoTCP, Prober: probe.TCP{Addr: netip.MustParseAddrPort("157.240.205.61:5222")}}, drops).fails(is(drops))
	for _, q := range Questions(Vantage{State: Online}, b.records, 2, nobody) {
		if q.Ask == AskOtherPort {
			t.Errorf("another port is asked beside two that are known: %s", q.Check.ID())
		}
	}
}

// TestNoiseBesideArms: bytes without form, as many as the messenger's own, are an
// answer like other bytes.
func TestNoiseBesideArms(t *testing.T) {
	at := netip.MustParseAddrPort("149.154.167.51:443")
	for _, c := range []struct {
		bytes, noise kindOfFate
		want         expectation
	}{
		{swallows, swallows, expectation{Unreachable, "", Low, ""}},
		{swallows, passes, expectation{Blocked, ProtocolBlock, Medium, "other bytes"}},
		{passes, swallows, expectation{Blocked, ProtocolBlock, Medium, "other bytes"}},
	} {
		for _, q := range []probe.Addressed{probe.MTProto{Transport: "abridged"}, probe.Noise{}} {
			b := newBench(probe.ProtoMTProto, q.At(at)).fails(is(swallows))
			b.ask(t, AskOtherBytes, is(c.bytes)).ask(t, AskNoise, is(c.noise))
			c.want.check(t, fmt.Sprintf("%T %v %v", q, c.bytes, c.noise), b.verdict(), true)
			for _, x := range Questions(Vantage{State: Online}, b.records, 2, nobody) {
				if p, ok := x.Check.Prober.(probe.Bytes); ok && x.Ask == AskNoise && (p.Noise < 42 || p.Noise > 43) {
					t.Errorf("%T: %d random bytes", q, p.Noise)
				}
			}
		}
	}
}

// TestSlowBesideArms: one slow transfer is none, unless the next is slow, too, or
// it is slow again beside a control.
func TestSlowBesideArms(t *testing.T) {
	control := probe.Check{Messenger: probe.Control, Function: probe.Foreign, Endpoint: "t", Protocol: probe.ProtoTransfer, Prober: probe.Transfer{Addr: netip.MustParseAddrPort("141.95.207.211:443"), ServerName: "proof.ovh.net"}}
	slowed, fine := fate{slows, 16 << 10}, expectation{state: OK}
	throttling := expectation{Degraded, Throttling, Medium, "kbit/s"}
	for _, c := range []struct {
		name           string
		newest, before fate
		again, beside  fate
		asked          bool
		want           expectation
	}{
		{"once", slowed, is(passes), is(unasked), is(unasked), true, fine},
		{"twice", slowed, slowed, is(unasked), is(unasked), false, throttling},
		{"before", is(passes), slowed, is(unasked), is(unasked), false, fine},
		{"again", slowed, is(passes), slowed, is(passes), true, throttling},
		{"again, and so is the control", slowed, is(passes), slowed, slowed, true, fine},
		{"not again", slowed, is(passes), is(passes), is(passes), true, fine},
		{"again, and the control's packet is lost", slowed, is(passes), slowed, is(drops), true, throttling},
		{"not even slowly", slowed, is(passes), is(drops), is(passes), true, throttling},
		{"nor the control", slowed, is(passes), is(drops), is(drops), true, fine},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(probe.ProtoTransfer, probe.Transfer{Addr: netip.MustParseAddrPort(benchAddr), ServerName: benchName})
			b.check.Timeout = 10e9
			b.also(control, passes)
			b.records = append(b.records, Record{Check: b.check, Results: []probe.Result{b.meets(b.check, c.newest), b.meets(b.check, c.before)}})
			asks := Questions(Vantage{State: Online}, b.records, 2, nobody)
			if asked := slices.ContainsFunc(asks, func(q Question) bool { return q.Ask == AskAgain }); asked != c.asked {
				t.Errorf("asked again: %v", asked)
			}
			if c.again.is != unasked {
				b.ask(t, AskAgain, c.again).ask(t, AskControlRate, c.beside)
			}
			c.want.check(t, "alpha/login", b.verdict(), true)
		})
	}
}

// TestQuestionsAreFew: of a messenger that is silent under every name no more is
// asked than the limits say, and nothing twice.
func TestQuestionsAreFew(t *testing.T) {
	checks := town()
	for _, k := range []kindOfFate{drops, swallows, mutes, resets, hangs} {
		w := worldOf(1, checks)
		w.effects = []effect{when(func(f *flow) bool { return w.owners[f.addr.Addr()] != "" && w.owners[f.addr.Addr()] != probe.Control }, k)}
		d := w.live(checks, daily)
		about, ids := map[netip.Addr]int{}, map[string]bool{}
		qs := Questions(Vantage{State: Online}, d.records, 2, nobody)
		for _, q := range qs {
			if ids[q.Check.ID()] {
				t.Errorf("%d: %s twice", k, q.Check.ID())
			}
			ids[q.Check.ID()] = true
			if about[q.About]++; about[q.About] > perHost {
				t.Errorf("%d: %d questions about %v", k, about[q.About], q.About)
			}
		}
		if len(qs) == 0 {
			t.Errorf("%d: nothing is asked", k)
		}
		if n := len(Questions(Vantage{State: Online}, d.records, 2, func(string, Ask) bool { return true })); n > 0 {
			t.Errorf("%d: %d questions though all have been asked", k, n)
		}
	}
}
