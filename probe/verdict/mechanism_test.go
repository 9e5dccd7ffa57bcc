package verdict

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/messenger-probe/messenger-probe/probe"
)

// An expectation is what must be said of one function.
type expectation struct {
	state     State
	mechanism Mechanism
	least     Confidence
	says      string // in one sentence of the evidence
}

// A case of the censor's, and what is to be said; functions that are not named
// must be ok.
type scenario struct {
	name    string
	effects []effect
	names   []nameEffect
	want    map[string]expectation
}

var waNames = []string{"whatsapp.com", "whatsapp.net"}

// stubAddress is where a lying resolver leads to: an address with a certificate
// of its own.
const stubAddress = "95.167.13.50"

func scenarios() []scenario {
	deny := answer{failure: probe.FailureDNSNXDOMAIN}
	led := answer{addrs: addrs(stubAddress)}
	isp := []string{probe.System, "national"}
	byName := func(m Mechanism, least Confidence, says string) map[string]expectation {
		x := expectation{Blocked, m, least, says}
		return map[string]expectation{"whatsapp/web": x, "whatsapp/media": x, "whatsapp/login": x,
			"whatsapp/chat": {Degraded, m, least, says}}
	}
	// Raw Noise has no name, so that chat does not care.
	bySNI := func(m Mechanism, least Confidence, says string) map[string]expectation {
		x := expectation{Blocked, m, least, says}
		return map[string]expectation{"whatsapp/web": x, "whatsapp/media": x, "whatsapp/login": x}
	}
	stub := func(w *world, f *flow) (fate, bool) {
		switch {
		case !to(stubAddress)(f):
			return fate{}, false
		case f.udp:
			return fate{is: refuses}, true
		case f.name != "" || f.addr.Port() == 443 && f.speaks == "tcp":
			return fate{is: forges}, true
		}
		return fate{is: refuses}, true
	}
	return []scenario{
		{name: "nothing"},
		{name: "dns_omission", names: []nameEffect{answers(deny, isp, waNames...)},
			want: byName(DNSOmission, High, "denies")},
		{name: "dns_omission by SERVFAIL", names: []nameEffect{answers(answer{failure: probe.FailureDNSServfail}, isp, waNames...)},
			want: byName(DNSOmission, High, "denies")},
		{name: "dns_injection of a denial", names: []nameEffect{answers(answer{failure: probe.FailureDNSNXDOMAIN, second: true}, nil, waNames...)},
			want: byName(DNSInjection, Confirmed, "two different answers")},
		{name: "dns_injection of an address", names: []nameEffect{answers(answer{addrs: addrs(stubAddress), second: true}, nil, waNames...)}, effects: []effect{stub},
			want: byName(DNSInjection, Confirmed, "two different answers")},
		{name: "dns_hijack", names: []nameEffect{answers(deny, nil, waNames...)},
			want: byName(DNSHijack, Confirmed, "no resolver")},
		{name: "dns_forgery", names: []nameEffect{answers(led, isp, waNames...)}, effects: []effect{stub},
			want: byName(DNSForgery, Confirmed, "leads")},
		{name: "dns_drop", names: []nameEffect{answers(answer{failure: probe.FailureTimeout}, isp, waNames...)},
			want: byName(DNSDrop, Medium, "silent for")},

		{name: "ip_block", effects: []effect{when(to(tgChat), drops)},
			want: map[string]expectation{"telegram/chat": {Blocked, IPBlock, Medium, "149.154.167.51"}}},
		{name: "ip_block of part", effects: []effect{when(to("149.154.167.51 149.154.167.91"), drops)},
			want: map[string]expectation{"telegram/chat": {Degraded, IPBlock, Low, "149.154.167.51"}}},
		{name: "port_block", effects: []effect{when(all(to(waPort), on(5222)), drops)},
			want: map[string]expectation{"whatsapp/chat": {Degraded, PortBlock, Medium, ":5222"}}},
		{name: "port_block everywhere", effects: []effect{when(all(to(waChat), on(5222)), drops)},
			want: map[string]expectation{"whatsapp/chat": {Degraded, PortBlock, High, ":5222"}}},
		{name: "tcp_reset", effects: []effect{when(all(to(tgChat), on(443)), refusesEarly)},
			want: map[string]expectation{"telegram/chat": {Degraded, TCPReset, Confirmed, "round trip"}}},
		{name: "tcp_reset on every port", effects: []effect{when(to("149.154.167.51 149.154.167.91"), refusesEarly)},
			want: map[string]expectation{"telegram/chat": {Degraded, TCPReset, Medium, "round trip"}}},

		{name: "tls_mitm", effects: []effect{when(under(waNames...), forges)},
			want: map[string]expectation{"whatsapp/web": {Blocked, TLSMITM, Confirmed, "certificate"}, "whatsapp/media": {Blocked, TLSMITM, Confirmed, ""},
				"whatsapp/login": {Blocked, TLSMITM, Confirmed, ""}}},
		{name: "sni_reset", effects: []effect{when(all(under(waNames...), overTCP), resets)},
			want: bySNI(SNIReset, High, "answers for another name")},
		{name: "sni_reset, injected", effects: []effect{when(all(under(waNames...), overTCP), resetsEarly)},
			want: bySNI(SNIReset, Confirmed, "reset")},
		{name: "sni_drop", effects: []effect{when(all(under(waNames...), overTCP), swallows)},
			want: bySNI(SNIDrop, High, "answers for another name")},
		{name: "sni_drop of one name", effects: []effect{when(all(under("v.whatsapp.net"), overTCP), swallows)},
			want: map[string]expectation{"whatsapp/login": {Blocked, SNIDrop, Medium, "v.whatsapp.net"}}},
		{name: "sni_drop of QUIC too", effects: []effect{when(under("web.whatsapp.com"), swallows)},
			want: map[string]expectation{"whatsapp/web": {Blocked, SNIDrop, Medium, "web.whatsapp.com"}}},
		{name: "sni_delayed_drop", effects: []effect{when(all(under(waNames...), overTCP), cutsLate)},
			want: bySNI(SNIDelayedDrop, Medium, "after some packets")},
		{name: "tls_fingerprint", effects: []effect{when(all(under(waNames...), hello(probe.HelloGo, probe.HelloX25519), overTCP), swallows)},
			want: bySNI(TLSFingerprint, Medium, "ClientHello")},
		{name: "tls_fingerprint of one hello", effects: []effect{when(all(under(waNames...), hello(probe.HelloX25519), overTCP), swallows)},
			want: map[string]expectation{"whatsapp/web": {Degraded, TLSFingerprint, Medium, "ClientHello"}, "whatsapp/media": {Degraded, TLSFingerprint, Medium, ""},
				"whatsapp/login": {Degraded, TLSFingerprint, Medium, ""}}},

		{name: "http_stub", effects: []effect{when(all(speaking("http"), func(f *flow) bool { return f.host != "" && within(f.host, "whatsapp.com") }), stubs)},
			want: map[string]expectation{"whatsapp/web": {Degraded, HTTPStub, Medium, "plain HTTP"}}},
		{name: "freeze", effects: []effect{when(under(append(waNames, "telegram.org")...), freezes, 17<<10)},
			want: map[string]expectation{"whatsapp/media": {Degraded, Freeze, Medium, "17 KB"}, "telegram/media": {Degraded, Freeze, Medium, "17 KB"}}},
		{name: "throttling", effects: []effect{when(under(append(waNames, "telegram.org")...), slows, 16<<10)},
			want: map[string]expectation{"whatsapp/media": {Degraded, Throttling, Medium, "kbit/s"}, "telegram/media": {Degraded, Throttling, Medium, "kbit/s"}}},
		{name: "packet_loss", effects: []effect{lossy(all(to("149.154.160.0/20 91.108.56.0/22"), overTCP), 0.5)},
			want: map[string]expectation{"telegram/chat": {Degraded, PacketLoss, Medium, "sent again"}, "telegram/media": {"degraded|unreachable", PacketLoss, "", ""},
				"telegram/web": {"degraded|unreachable", "", "", ""}, "telegram/bots": {"degraded|unreachable", "", "", ""}}},
		{name: "packet_loss of calls", effects: []effect{when(all(to(tgRelay), overUDP), slows, 60)},
			want: map[string]expectation{"telegram/calls": {Degraded, PacketLoss, Medium, "of 50"}}},

		{name: "quic_block", effects: []effect{when(all(to(waWeb, waMedia, waIP6), speaking("quic")), drops)},
			want: map[string]expectation{"whatsapp/web": {Degraded, QUICBlock, Medium, "version negotiation"}, "whatsapp/media": {Degraded, QUICBlock, Medium, ""}}},
		{name: "quic_sni_block", effects: []effect{when(all(under(waNames...), overUDP), drops)},
			want: map[string]expectation{"whatsapp/web": {Degraded, QUICSNIBlock, Medium, "another name"}, "whatsapp/media": {Degraded, QUICSNIBlock, Medium, ""}}},
		{name: "udp_block", effects: []effect{when(all(to(waWeb, waMedia, waIP6), overUDP), drops)},
			want: map[string]expectation{"whatsapp/web": {Degraded, UDPBlock, Medium, "TCP"}, "whatsapp/media": {Degraded, UDPBlock, Medium, ""}}},

		{name: "protocol_block of plain MTProto", effects: []effect{when(all(speaking(probe.ProtoMTProto), carriedBy("abridged", "intermediate")), swallows)},
			want: map[string]expectation{"telegram/chat": {Degraded, ProtocolBlock, High, "obfuscated2"}}},
		{name: "protocol_block of MTProto", effects: []effect{when(speaking(probe.ProtoMTProto), swallows)},
			want: map[string]expectation{"telegram/chat": {Blocked, ProtocolBlock, High, "other bytes"}, "telegram/media": {Degraded, ProtocolBlock, High, ""}}},
		{name: "protocol_block of Noise", effects: []effect{when(speaking(probe.ProtoNoise), swallows)},
			want: map[string]expectation{"whatsapp/chat": {Blocked, ProtocolBlock, High, "other bytes"}}},
		{name: "call_block", effects: []effect{when(to(waRelay, tgRelay), drops)},
			want: map[string]expectation{"whatsapp/calls": {Blocked, CallBlock, Medium, "neutral relays answer"}, "telegram/calls": {Blocked, CallBlock, Medium, ""}}},
		{name: "call_block of one messenger", effects: []effect{when(to(waRelay), drops)},
			want: map[string]expectation{"whatsapp/calls": {Blocked, CallBlock, Medium, "neutral relays answer"}}},

		{name: "service_outage", effects: []effect{when(to(waChat, waWeb, waLogin, waMedia, waRelay, waIP6), refuses)},
			want: map[string]expectation{"whatsapp/chat": {Unreachable, ServiceOutage, Low, "refused"}, "whatsapp/web": {Unreachable, ServiceOutage, Low, ""},
				"whatsapp/login": {Unreachable, ServiceOutage, Low, ""}, "whatsapp/media": {Unreachable, ServiceOutage, Low, ""}, "whatsapp/calls": {Unreachable, "", "", "another network"}}},
		{name: "unknown", effects: []effect{when(to(waChat, waWeb, waLogin, waMedia, waRelay, waIP6), drops)},
			want: map[string]expectation{"whatsapp/chat": {Unreachable, "", "", "another network"}, "whatsapp/web": {Unreachable, "", "", "another network"},
				"whatsapp/login": {Unreachable, "", "", ""}, "whatsapp/media": {Unreachable, "", "", ""}, "whatsapp/calls": {Unreachable, "", "", ""}}},

		// Several causes at once are all told.
		{name: "names and ClientHellos", names: []nameEffect{answers(deny, []string{"national"}, waNames...)}, effects: []effect{when(under(waNames...), swallows)},
			want: map[string]expectation{"whatsapp/web": {Blocked, DNSOmission, High, "answers for another name"}, "whatsapp/login": {Blocked, DNSOmission, High, "answers for another name"},
				"whatsapp/media": {Blocked, DNSOmission, High, "answers for another name"}, "whatsapp/chat": {Degraded, DNSOmission, High, ""}}},
	}
}

func addrs(s string) (as []netip.Addr) {
	for _, f := range strings.Fields(s) {
		as = append(as, netip.MustParseAddr(f))
	}
	return as
}

func hello(profiles ...string) match {
	return func(f *flow) bool { return slices.Contains(profiles, f.hello) }
}

func carriedBy(transports ...string) match {
	return func(f *flow) bool { return slices.Contains(transports, f.transport) }
}

// check compares; "" as mechanism or confidence is any. Unless exact it compares
// states alone.
func (x expectation) check(t *testing.T, name string, v *Verdict, exact bool) bool {
	t.Helper()
	switch {
	case !strings.Contains(string(x.state), string(v.State)): // "a|b": either
		t.Errorf("%s: %s by %s, want %s by %s", name, v.State, v.Mechanism, x.state, x.mechanism)
	case exact && x.mechanism != "" && v.Mechanism != x.mechanism:
		t.Errorf("%s: %s by %s, want by %s", name, v.State, v.Mechanism, x.mechanism)
	case exact && slices.Index(Confidences[:], v.Confidence) < slices.Index(Confidences[:], x.least):
		t.Errorf("%s: %s by %s is %s, want %s at least", name, v.State, v.Mechanism, v.Confidence, x.least)
	case exact && !strings.Contains(strings.Join(v.Evidence, "\n"), x.says):
		t.Errorf("%s: nothing in the evidence says %q", name, x.says)
	default:
		return true
	}
	return false
}

// TestMechanisms is the decision tree from the wire to the words: each mechanism
// of the contract, in a small internet, measured in both ways.
func TestMechanisms(t *testing.T) {
	checks := town()
	proved := map[Mechanism]bool{}
	for _, sc := range scenarios() {
		for _, how := range []way{daily, once} {
			t.Run(fmt.Sprintf("%s/%s", sc.name, how), func(t *testing.T) {
				for seed := range uint64(5) {
					w := newWorld(seed)
					w.effects, w.names = sc.effects, sc.names
					d := w.live(checks, how)
					if !d.meets(t, sc, true) {
						d.show(t)
						return
					}
					for name := range sc.want {
						proved[d.of(name).Mechanism] = true
					}
				}
			})
		}
	}
	for _, m := range Mechanisms {
		if !proved[m] {
			t.Errorf("no scenario ends in %s", m)
		}
	}
}

// meets compares a day with a scenario.
func (d *day) meets(t *testing.T, sc scenario, exact bool) bool {
	t.Helper()
	ok := true
	if d.vantage.State != Online {
		t.Errorf("the vantage is %s", d.vantage.State)
		ok = false
	}
	for i := range d.verdicts {
		v := &d.verdicts[i]
		name := v.Messenger + "/" + v.Function
		x, named := sc.want[name]
		if !named {
			x = expectation{state: OK}
		}
		ok = x.check(t, name, v, exact) && ok
	}
	return ok
}

// TestMechanismsWithLoss is each of them beside single failures at random, of
// two runs in a hundred: what is said of the function stays, and the others
// stay ok. A question that was asked but twice can be lost twice, so that in one
// round of twenty another mechanism may be named; never another state.
func TestMechanismsWithLoss(t *testing.T) {
	checks := town()
	rounds := uint64(20)
	if testing.Short() {
		rounds = 4
	}
	for _, sc := range scenarios() {
		for _, how := range []way{daily, once} {
			t.Run(fmt.Sprintf("%s/%s", sc.name, how), func(t *testing.T) {
				misnamed := 0
				for seed := range rounds {
					w := newWorld(1000 + seed)
					w.effects, w.names, w.single = sc.effects, sc.names, 0.02
					d := w.live(checks, how)
					if !d.meets(t, sc, false) {
						t.Logf("seed %d", 1000+seed)
						d.show(t)
						return
					}
					for name, x := range sc.want {
						if x.mechanism != "" && d.of(name).Mechanism != x.mechanism {
							misnamed++
							break
						}
					}
				}
				if misnamed > 1 {
					t.Errorf("in %d of %d rounds another mechanism is named", misnamed, rounds)
				}
			})
		}
	}
}
