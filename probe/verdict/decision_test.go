package verdict

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/messenger-probe/messenger-probe/probe"
)

// A bench is one function of one messenger, "alpha/login", that is taken apart:
// its only check fails in a way, and each question beside it is answered in a
// way or was not asked. Another function of the messenger works, and so do the
// controls.
type bench struct {
	w       *world
	check   probe.Check
	records []Record
	arms    []Arm
}

const (
	benchAddr = "157.240.205.61:443"
	benchName = "v.whatsapp.net"
)

func newBench(protocol string, p probe.Prober) *bench {
	b := &bench{w: newWorld(1), check: probe.Check{Messenger: "alpha", Function: "login", Endpoint: "e", Protocol: protocol, Family: probe.IP4, Prober: p}}
	b.w.rtt, b.w.jitter = 40e6, 0
	b.also(probe.Check{Messenger: "alpha", Function: "web", Endpoint: "w", Protocol: probe.ProtoTLS, Prober: probe.TLS{Addr: netip.MustParseAddrPort("31.13.72.52:443"), ServerName: "web.whatsapp.com"}}, passes)
	for i, a := range []string{"77.88.55.242:443", "93.184.216.34:443", "140.82.121.3:443"} {
		b.also(probe.Check{Messenger: probe.Control, Function: probe.Foreign, Endpoint: fmt.Sprint(i), Protocol: probe.ProtoTLS, Prober: probe.TLS{Addr: netip.MustParseAddrPort(a), ServerName: "example.com"}}, passes)
	}
	return b
}

// meets is what a prober finds that meets a fate.
func (b *bench) meets(c probe.Check, f fate) probe.Result {
	b.w.effects = []effect{func(*world, *flow) (fate, bool) { return f, true }}
	return b.w.run(c)
}

// also adds a check that met this twice.
func (b *bench) also(c probe.Check, k kindOfFate) *bench {
	c.Target = fmt.Sprint(len(b.records))
	b.records = append(b.records, Record{Check: c, Results: []probe.Result{b.meets(c, fate{is: k}), b.meets(c, fate{is: k})}})
	return b
}

// fails makes the check in question fail twice.
func (b *bench) fails(f fate) *bench {
	b.records = append(b.records, Record{Check: b.check, Results: []probe.Result{b.meets(b.check, f), b.meets(b.check, f)}})
	return b
}

// ask answers a question, which must be one that would be asked.
func (b *bench) ask(t *testing.T, a Ask, f fate) *bench {
	t.Helper()
	for _, q := range Questions(Vantage{State: Online}, b.records, 2, func(string, Ask) bool { return false }) {
		if q.Ask == a {
			b.arms = append(b.arms, Arm{Of: q.Of, Ask: a, Result: b.meets(q.Check, f)})
			return b
		}
	}
	t.Fatalf("%s would not be asked", a)
	return nil
}

func (b *bench) verdict() *Verdict {
	d := day{verdicts: Judge(Vantage{State: Online}, b.records, b.arms)}
	return d.of("alpha/login")
}

// unasked is the fate of a question that was not put.
const unasked kindOfFate = -1

// Where a connection is cut: in the handshake, or by the request.
var (
	cutEarly   = fate{cutsLate, 1}
	cutRequest = fate{cutsLate, 7}
)

func is(k kindOfFate) fate { return fate{is: k} }

// TestNameBesideArms is every way in which a ClientHello fails, beside every
// answer to the questions about it.
func TestNameBesideArms(t *testing.T) {
	nobody := is(unasked)
	no := expectation{Unreachable, "", Low, "another network"}
	hangs := expectation{Unreachable, ServiceOutage, Low, "another network"}
	for _, c := range []struct {
		fails, neutral, other, split fate
		want                         expectation
	}{
		// The ClientHello is not even acknowledged.
		{is(swallows), nobody, nobody, nobody, no},
		{is(swallows), is(passes), nobody, nobody, expectation{Blocked, SNIDrop, Medium, benchName}},
		{is(swallows), is(alerts), nobody, nobody, expectation{Blocked, SNIDrop, Medium, ""}},
		{is(swallows), is(closes), nobody, nobody, expectation{Blocked, SNIDrop, Medium, ""}},
		{is(swallows), is(misnames), nobody, nobody, expectation{Blocked, SNIDrop, Medium, ""}},
		{is(swallows), is(swallows), nobody, nobody, no},
		{is(swallows), is(mutes), nobody, nobody, no},
		{is(swallows), is(drops), nobody, nobody, no},
		{is(swallows), is(refuses), nobody, nobody, no},
		{is(swallows), is(passes), is(swallows), is(swallows), expectation{Blocked, SNIDrop, Medium, ""}},
		{is(swallows), is(passes), is(passes), is(swallows), expectation{Blocked, TLSFingerprint, Medium, "ClientHellos"}},
		{is(swallows), is(swallows), is(passes), is(swallows), expectation{Blocked, TLSFingerprint, Medium, ""}},
		{is(swallows), is(passes), is(closes), is(swallows), expectation{Blocked, SNIDrop, Medium, ""}},
		// A filter that does not put the pieces together lets both through.
		{is(swallows), is(passes), is(passes), is(passes), expectation{Blocked, SNIDrop, Medium, ""}},
		{is(swallows), is(passes), is(swallows), is(passes), expectation{Blocked, SNIDrop, Medium, ""}},
		// The host has it and says nothing.
		{is(mutes), nobody, nobody, nobody, hangs},
		{is(mutes), is(passes), nobody, nobody, expectation{Blocked, SNIDrop, Medium, ""}},
		{is(mutes), is(mutes), nobody, nobody, hangs},
		{is(mutes), is(closes), nobody, nobody, hangs},
		{is(mutes), is(alerts), nobody, nobody, expectation{Unreachable, SNIDrop, Low, "loses packets"}},
		// Part of the answer comes.
		{cutEarly, nobody, nobody, nobody, no},
		{cutEarly, is(passes), nobody, nobody, expectation{Blocked, SNIDelayedDrop, Medium, ""}},
		{cutEarly, is(passes), is(passes), is(swallows), expectation{Blocked, SNIDelayedDrop, Medium, ""}},
		{cutEarly, cutEarly, nobody, nobody, no},
		// … and all of ours has arrived.
		{is(chokes), nobody, nobody, nobody, hangs},
		{is(chokes), is(passes), nobody, nobody, expectation{Blocked, SNIDelayedDrop, Medium, ""}},
		{is(chokes), is(alerts), nobody, nobody, expectation{Unreachable, SNIDelayedDrop, Low, "loses packets"}},
		{is(chokes), is(chokes), nobody, nobody, hangs},
		// Resets and ends.
		{is(resets), nobody, nobody, nobody, no},
		{is(resets), is(passes), nobody, nobody, expectation{Blocked, SNIReset, Medium, "reset"}},
		{is(resets), is(alerts), nobody, nobody, expectation{Blocked, SNIReset, Medium, ""}},
		{is(resets), is(resets), nobody, nobody, no},
		{is(resets), is(closes), nobody, nobody, no},
		{is(resets), is(passes), is(passes), is(resets), expectation{Blocked, TLSFingerprint, Medium, ""}},
		{is(resets), is(resets), is(resets), is(resets), no},
		{is(resetsEarly), nobody, nobody, nobody, expectation{Blocked, SNIReset, Confirmed, ""}},
		{is(resetsEarly), is(resets), nobody, nobody, expectation{Blocked, SNIReset, Confirmed, ""}},
		{is(closes), is(passes), nobody, nobody, expectation{Blocked, SNIReset, Medium, ""}},
		{is(closes), is(closes), nobody, nobody, no},
		// Certificates need no question.
		{is(forges), nobody, nobody, nobody, expectation{Blocked, TLSMITM, Confirmed, "certificate"}},
		{is(expires), nobody, nobody, nobody, expectation{Unreachable, ServiceOutage, Medium, "out of date"}},
		{is(misnames), nobody, nobody, nobody, no},
	} {
		for _, hello := range []string{probe.HelloGo, probe.HelloX25519} {
			t.Run(fmt.Sprintf("%s %v, neutral %v, other %v, split %v", hello, c.fails, c.neutral, c.other, c.split), func(t *testing.T) {
				b := newBench(probe.ProtoTLS, probe.TLS{Addr: netip.MustParseAddrPort(benchAddr), ServerName: benchName, Hello: hello})
				// A second port tells the distance.
				b.also(probe.Check{Messenger: "alpha", Function: "login", Endpoint: "e", Protocol: probe.ProtoTCP, Prober: probe.TCP{Addr: netip.MustParseAddrPort("157.240.205.61:80")}}, passes)
				b.fails(c.fails)
				for a, f := range map[Ask]fate{AskNeutralName: c.neutral, AskOtherHello: c.other, AskSplitHello: c.split} {
					if f.is != unasked {
						b.ask(t, a, f)
					}
				}
				c.want.check(t, "alpha/login", b.verdict(), true)
			})
		}
	}
}

// TestRequestBesideArms is what fails after the handshake.
func TestRequestBesideArms(t *testing.T) {
	for _, c := range []struct {
		fails, neutral fate
		want           expectation
	}{
		{cutRequest, is(unasked), expectation{Unreachable, "", Low, ""}},
		{cutRequest, is(passes), expectation{Blocked, SNIDelayedDrop, Medium, ""}},
		{cutRequest, cutRequest, expectation{Unreachable, "", Low, ""}},
		{is(hangs), is(unasked), expectation{Unreachable, ServiceOutage, Low, "hangs"}},
		{is(hangs), is(passes), expectation{Unreachable, ServiceOutage, Low, "hangs"}},
		{is(hangs), is(hangs), expectation{Unreachable, ServiceOutage, Low, "hangs"}},
		{is(swallows), is(passes), expectation{Blocked, SNIDrop, Medium, ""}},
	} {
		t.Run(fmt.Sprintf("%v, neutral %v", c.fails, c.neutral), func(t *testing.T) {
			b := newBench(probe.ProtoHTTP, probe.HTTP{Addr: netip.MustParseAddrPort(benchAddr), ServerName: benchName, Method: "HEAD"}).fails(c.fails)
			if c.neutral.is != unasked {
				b.ask(t, AskNeutralName, c.neutral)
			}
			c.want.check(t, "alpha/login", b.verdict(), true)
		})
	}
}

// TestProtocolBesideArms is a messenger's own bytes beside other bytes and other
// transports.
func TestProtocolBesideArms(t *testing.T) {
	no := expectation{Unreachable, "", Low, "another network"}
	blocked := expectation{Blocked, ProtocolBlock, Medium, "other bytes"}
	beside := expectation{Degraded, ProtocolBlock, Medium, "answered"}
	for _, c := range []struct {
		fails, bytes, transport kindOfFate
		want                    expectation
	}{
		{swallows, unasked, unasked, no},
		{swallows, passes, unasked, blocked},
		{swallows, closes, unasked, blocked},
		{swallows, swallows, unasked, no},
		{swallows, mutes, unasked, no},
		{swallows, drops, unasked, no},
		{swallows, unasked, passes, beside},
		{swallows, unasked, swallows, no},
		{mutes, unasked, unasked, no},
		{mutes, passes, unasked, expectation{Unreachable, ProtocolBlock, Low, "own doing"}},
		{mutes, mutes, unasked, no},
		{mutes, unasked, passes, beside},
		{resets, passes, unasked, blocked},
		{resets, closes, unasked, no},
		{resets, resets, unasked, no},
		{closes, closes, unasked, no},
		{closes, passes, unasked, expectation{Unreachable, ProtocolBlock, Low, "own doing"}},
		{closes, unasked, passes, beside},
	} {
		for protocol, q := range map[string][2]probe.Addressed{
			probe.ProtoMTProto: {probe.MTProto{Transport: "abridged"}, probe.MTProto{Transport: "obfuscated2"}},
			probe.ProtoNoise:   {probe.Noise{Over: "raw"}, nil},
		} {
			if q[1] == nil && c.transport != unasked {
				continue // raw Noise has one form only
			}
			t.Run(fmt.Sprintf("%s %v, bytes %v, transport %v", protocol, c.fails, c.bytes, c.transport), func(t *testing.T) {
				at := netip.MustParseAddrPort("149.154.167.51:443")
				b := newBench(protocol, q[0].At(at))
				b.fails(is(c.fails))
				if c.bytes != unasked {
					b.ask(t, AskOtherBytes, is(c.bytes))
				}
				if c.transport != unasked {
					b.also(probe.Check{Messenger: "alpha", Function: "login", Endpoint: "e", Protocol: protocol, Prober: q[1].At(at)}, c.transport)
				}
				c.want.check(t, "alpha/login", b.verdict(), true)
			})
		}
	}
	// Inside of TLS nobody sees the bytes.
	for _, c := range []struct {
		fails fate
		want  expectation
	}{
		{cutRequest, expectation{Degraded, ProtocolBlock, Medium, "other requests"}},
		{is(hangs), expectation{Degraded, ServiceOutage, Low, "hangs"}},
	} {
		t.Run(fmt.Sprintf("oneme %v", c.fails), func(t *testing.T) {
			at := netip.MustParseAddrPort("155.212.204.1:443")
			b := newBench(probe.ProtoOneMe, probe.OneMe{Addr: at, ServerName: "api.oneme.ru", Over: probe.OneMeTLS}).fails(c.fails)
			b.also(probe.Check{Messenger: "alpha", Function: "login", Endpoint: "e", Protocol: probe.ProtoHTTP, Prober: probe.HTTP{Addr: at, ServerName: "api.oneme.ru"}}, passes)
			c.want.check(t, "alpha/login", b.verdict(), true)
		})
	}
}

// TestQUICBesideArms is QUIC beside a version negotiation and another name.
func TestQUICBesideArms(t *testing.T) {
	for _, c := range []struct {
		fails, ping, neutral kindOfFate
		tcp                  bool
		want                 expectation
	}{
		{drops, unasked, unasked, true, expectation{Degraded, QUICBlock, Low, "silence"}},
		{drops, passes, drops, true, expectation{Degraded, QUICBlock, Medium, "version negotiation"}},
		{drops, passes, passes, true, expectation{Degraded, QUICSNIBlock, Medium, "another name"}},
		{drops, drops, passes, true, expectation{Degraded, QUICSNIBlock, Medium, "another name"}},
		{drops, drops, drops, true, expectation{Degraded, UDPBlock, Medium, "TCP works"}},
		{drops, drops, drops, false, expectation{Unreachable, QUICBlock, Low, "another network"}},
		{drops, passes, drops, false, expectation{Blocked, QUICBlock, Medium, ""}},
		{drops, passes, passes, false, expectation{Blocked, QUICSNIBlock, Medium, ""}},
		{refuses, unasked, unasked, true, expectation{Degraded, ServiceOutage, Low, "refused"}},
		{expires, unasked, unasked, true, expectation{Degraded, ServiceOutage, Medium, "out of date"}},
	} {
		t.Run(fmt.Sprintf("%v, ping %v, neutral %v, TCP %v", c.fails, c.ping, c.neutral, c.tcp), func(t *testing.T) {
			at := netip.MustParseAddrPort(benchAddr)
			b := newBench(probe.ProtoQUIC, probe.QUIC{Addr: at, ServerName: benchName}).fails(is(c.fails))
			if c.ping != unasked {
				b.ask(t, AskQUICPing, is(c.ping))
			}
			if c.neutral != unasked {
				b.ask(t, AskQUICNeutral, is(c.neutral))
			}
			if c.tcp {
				b.also(probe.Check{Messenger: "alpha", Function: "login", Endpoint: "t", Protocol: probe.ProtoTLS, Prober: probe.TLS{Addr: at, ServerName: benchName}}, passes)
			}
			c.want.check(t, "alpha/login", b.verdict(), true)
		})
	}
	// Where nobody's QUIC is answered it is not the messenger's.
	b := newBench(probe.ProtoQUIC, probe.QUIC{Addr: netip.MustParseAddrPort(benchAddr), ServerName: benchName}).fails(is(drops))
	for i := range b.records {
		for j := range b.records[i].Results {
			v := Vantage{State: Online, Down: []string{"quic"}}
			b.records[i].Results[j].Void = v.Void(&b.records[i].Check)
		}
	}
	expectation{state: Unknown}.check(t, "alpha/login", b.verdict(), true)
}

// TestTransferBesideArms is transfers that stop or crawl.
func TestTransferBesideArms(t *testing.T) {
	control := probe.Check{Messenger: probe.Control, Function: probe.Foreign, Endpoint: "t", Protocol: probe.ProtoTransfer, Prober: probe.Transfer{Addr: netip.MustParseAddrPort("141.95.207.211:443"), ServerName: "proof.ovh.net"}}
	for _, c := range []struct {
		name         string
		fails, small fate
		control      kindOfFate
		want         expectation
	}{
		{"freeze, nothing asked", fate{freezes, 17 << 10}, is(unasked), passes, expectation{Unreachable, Freeze, Low, "17 KB of 64"}},
		{"freeze, a small one passes", fate{freezes, 17 << 10}, is(passes), passes, expectation{Blocked, Freeze, Medium, "a small one passes"}},
		{"a small one stops as well", fate{freezes, 17 << 10}, fate{freezes, 512}, passes, expectation{Unreachable, Freeze, Low, ""}},
		{"stops where no filter does", fate{freezes, 2 << 10}, is(unasked), passes, expectation{Unreachable, "", Low, ""}},
		{"the line is slow", fate{slows, 4 << 10}, is(unasked), hangs, expectation{state: Unknown}},
		{"throttled", fate{slows, 16 << 10}, is(unasked), passes, expectation{Degraded, Throttling, Medium, "kbit/s"}},
		{"the request hangs", is(hangs), is(unasked), passes, expectation{Unreachable, "", Low, ""}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(probe.ProtoTransfer, probe.Transfer{Addr: netip.MustParseAddrPort(benchAddr), ServerName: benchName})
			b.check.Timeout = 10e9
			b.also(control, c.control).fails(c.fails)
			if c.small.is != unasked {
				b.ask(t, AskSmall, c.small)
			}
			c.want.check(t, "alpha/login", b.verdict(), true)
		})
	}
	// A far host is slow for a short transfer, and nobody slows it.
	b := newBench(probe.ProtoTransfer, probe.Transfer{Addr: netip.MustParseAddrPort(benchAddr), ServerName: benchName})
	b.w.rtt = 5e6
	b.also(control, passes)
	b.w.rtt = 300e6
	b.fails(is(passes))
	expectation{state: OK}.check(t, "a far host", b.verdict(), true)
}

// TestResolversBesideArms is what the system's resolver does with a name, beside
// others and an address that runs none.
func TestResolversBesideArms(t *testing.T) {
	right := answer{addrs: addrs(waLogin)}
	silence := answer{failure: probe.FailureTimeout}
	no := func(f probe.Failure) answer { return answer{failure: f} }
	for _, c := range []struct {
		name                  string
		system, other, nosuch answer
		want                  expectation
	}{
		{"denied", no(probe.FailureDNSNXDOMAIN), right, silence, expectation{Blocked, DNSOmission, Medium, "denies"}},
		{"denied by failing", no(probe.FailureDNSServfail), right, silence, expectation{Blocked, DNSOmission, Medium, ""}},
		{"denied by refusing", no(probe.FailureDNSRefused), right, silence, expectation{Blocked, DNSOmission, Medium, ""}},
		{"no address", no(probe.FailureDNSNoAnswer), right, silence, expectation{Blocked, DNSOmission, Medium, ""}},
		{"dropped", silence, right, silence, expectation{Blocked, DNSDrop, Medium, "silent"}},
		{"denied by all", no(probe.FailureDNSNXDOMAIN), no(probe.FailureDNSNXDOMAIN), silence, expectation{Unreachable, "", Low, "another network"}},
		{"dropped by all", silence, silence, silence, expectation{Unreachable, "", Low, ""}},
		{"others are not to be had", no(probe.FailureDNSNXDOMAIN), silence, silence, expectation{Unreachable, "", Low, ""}},
		{"an interceptor", no(probe.FailureDNSNXDOMAIN), right, no(probe.FailureDNSNXDOMAIN), expectation{Blocked, DNSHijack, Confirmed, "runs no resolver"}},
		{"an interceptor, and nobody else", no(probe.FailureDNSNXDOMAIN), silence, no(probe.FailureDNSNXDOMAIN), expectation{Blocked, DNSHijack, Confirmed, ""}},
		{"two answers", answer{failure: probe.FailureDNSNXDOMAIN, second: true}, right, silence, expectation{Blocked, DNSInjection, Confirmed, "two different answers"}},
		{"a bogon", answer{failure: probe.FailureDNSBogon, addrs: addrs("10.0.0.1")}, right, silence, expectation{Blocked, DNSForgery, Confirmed, "leads"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(probe.ProtoTLS, probe.ByName{Host: benchName, Port: 443, Family: probe.IP4, Ask: probe.TLS{ServerName: benchName}})
			b.check.Target = "443"
			b.w.names = []nameEffect{func(_ *world, q *query) (answer, bool) {
				switch {
				case q.host != benchName:
					return answer{}, false
				case q.resolver == probe.System:
					return c.system, true
				case q.resolver == string(AskNonResolver):
					return c.nosuch, true
				}
				return c.other, true
			}}
			for i, s := range []probe.Server{systemResolvers[0], systemResolvers[1], google} {
				b.also(probe.Check{Messenger: probe.Control, Function: probe.Domestic, Endpoint: fmt.Sprint("r", i), Protocol: probe.ProtoDNS, Prober: probe.DNS{Server: s, Host: "ya.ru", Type: 1}}, passes)
				b.also(probe.Check{Messenger: "alpha", Function: "login", Endpoint: "e", Protocol: probe.ProtoDNS, Family: probe.IP4, Prober: probe.DNS{Server: s, Host: benchName, Type: 1}}, passes)
			}
			for i := range b.records {
				for j := range b.records[i].Results {
					b.records[i].Results[j] = byOtherResolver(b.records[i].Results[j])
				}
			}
			b.also(probe.Check{Messenger: "alpha", Function: "web", Endpoint: "w", Protocol: probe.ProtoTLS, Family: probe.IP4, Prober: probe.TLS{Addr: netip.MustParseAddrPort("31.13.72.50:443"), ServerName: "web.whatsapp.com"}}, passes)
			b.fails(is(passes))
			if c.system.failure != "" {
				b.ask(t, AskNonResolver, is(passes))
			}
			c.want.check(t, "alpha/login", b.verdict(), true)
		})
	}
}

// TestSilentForOneType: a resolver that tells a name's IPv4 addresses and is
// silent about the others lost some packets; it drops no name.
func TestSilentForOneType(t *testing.T) {
	at := netip.MustParseAddrPort("31.13.72.50:443")
	system, google := probe.Server{Name: probe.System, Transport: probe.OverUDP, Addr: netip.MustParseAddrPort("192.0.2.53:53")},
		probe.Server{Name: "google", Transport: probe.OverUDP, Addr: netip.MustParseAddrPort("8.8.8.8:53")}
	began := time.Unix(1e9, 0)
	record := func(messenger, host string, s probe.Server, kind uint16, start time.Time, failures ...probe.Failure) Record {
		c := probe.Check{Messenger: messenger, Function: "web", Endpoint: host, Protocol: probe.ProtoDNS, Family: map[uint16]string{1: probe.IP4, 28: probe.IP6}[kind],
			Target: s.Name, Prober: probe.DNS{Server: s, Host: host, Type: kind}}
		r := Record{Check: c}
		for _, f := range failures {
			step := probe.Step{Op: probe.OpResolve, Failure: f, DNS: &probe.DNSInfo{Resolver: s.Name, Transport: s.Transport, Name: host, Type: kind}}
			r.Results = append(r.Results, probe.Result{Check: c, Start: start, Steps: []probe.Step{step}})
			r.Note(&r.Results[len(r.Results)-1])
		}
		return r
	}
	for name, a := range map[string]struct {
		answered time.Time
		want     Mechanism
	}{
		"since":  {began.Add(time.Second), ""},
		"before": {began.Add(-time.Second), DNSDrop},
	} {
		t.Run(name, func(t *testing.T) {
			records := []Record{record(probe.Control, "ya.ru", system, 1, began, "", ""), record(probe.Control, "ya.ru", google, 1, began, "", ""),
				record("alpha", "web.test", system, 28, began, probe.FailureTimeout, probe.FailureTimeout),
				record("alpha", "web.test", system, 1, a.answered, "", ""), record("alpha", "web.test", google, 28, began, "", "")}
			for i := range 20 { // endpoints that work
				c := probe.Check{Messenger: "alpha", Function: "web", Endpoint: fmt.Sprint("e", i), Protocol: probe.ProtoTLS, Family: probe.IP4, Prober: probe.TLS{Addr: at, ServerName: "web.test"}}
				works := probe.Result{Check: c, Start: began, Steps: []probe.Step{{Op: probe.OpTLSHandshake, Addr: at}}}
				records = append(records, Record{Check: c, Results: []probe.Result{works, works}})
			}
			vs := Judge(Vantage{State: Online}, records, nil)
			if vs[0].Mechanism != a.want {
				t.Errorf("%+v", vs[0])
			}
		})
	}
}

// TestConfidence: a second name, address or resolver makes sure.
func TestConfidence(t *testing.T) {
	for name, x := range map[string]struct {
		sc   []effect
		want Confidence
	}{
		"one name":      {[]effect{when(under("v.whatsapp.net"), swallows)}, Medium},
		"three names":   {[]effect{when(under(waNames...), swallows)}, High},
		"one centre":    {[]effect{when(all(to("149.154.167.51"), on(443)), drops)}, Medium},
		"two centres":   {[]effect{when(all(to("149.154.167.51 149.154.167.91"), on(443)), drops)}, High},
		"one protocol":  {[]effect{when(all(to("149.154.167.51"), carriedBy("abridged")), swallows)}, Medium},
		"two addresses": {[]effect{when(all(to("149.154.167.51 149.154.167.91"), carriedBy("abridged")), swallows)}, High},
	} {
		w := newWorld(3)
		w.effects = x.sc
		d := w.live(town(), daily)
		worst := Confidence("")
		for _, v := range d.verdicts {
			if v.Mechanism != "" {
				worst = v.Confidence
			}
		}
		if worst != x.want {
			t.Errorf("%s: confidence %q, want %q", name, worst, x.want)
			d.show(t)
		}
	}
}

// TestUnprovenQUIC: an informational QUIC check that meets silence is asked
// about all the same, and counts from when the host has answered under another
// name; what else is informational is left alone.
func TestUnprovenQUIC(t *testing.T) {
	at := netip.MustParseAddrPort(benchAddr)
	for _, c := range []struct {
		p         probe.Addressed
		fails     kindOfFate
		questions int
	}{
		{probe.QUIC{Addr: at, ServerName: benchName}, drops, 2},
		{probe.QUIC{Addr: at, ServerName: benchName}, refuses, 0},
		{probe.QUICPing{Addr: at}, drops, 0},
		{probe.STUN{Addr: at}, drops, 0},
	} {
		b := newBench(probe.ProtoQUIC, c.p).fails(is(c.fails))
		last := &b.records[len(b.records)-1]
		for i := range last.Results {
			last.Results[i].Void = probe.ReasonInformational
		}
		qs := Questions(Vantage{State: Online}, b.records, 2, func(string, Ask) bool { return false })
		if len(qs) != c.questions {
			t.Errorf("%T meets %d: %d questions, want %d", c.p, c.fails, len(qs), c.questions)
		}
		for _, q := range qs {
			for k, want := range map[kindOfFate]bool{passes: q.Ask == AskQUICNeutral, drops: false} {
				a := Arm{Of: q.Of, Ask: q.Ask, Result: b.meets(q.Check, is(k))}
				if a.Proves() != want {
					t.Errorf("%s that meets %d proves: %v, want %v", q.Ask, k, a.Proves(), want)
				}
			}
		}
		expectation{state: Unknown, says: "1 more have never answered here"}.check(t, "alpha/login", b.verdict(), true)
	}
}

// TestCallsNeedRelays: that signalling answers does not make calls work. While no
// relay has ever answered, nothing is said of them; once one has, it counts.
func TestCallsNeedRelays(t *testing.T) {
	api := netip.MustParseAddrPort("155.212.204.1:443")
	relay := netip.MustParseAddrPort("155.212.199.159:19302")
	signalling := probe.Check{Messenger: "max", Function: "calls", Endpoint: "api", Protocol: probe.ProtoTLS, Family: probe.IP4, Target: api.String(), Prober: probe.TLS{Addr: api}}
	stun := probe.Check{Messenger: "max", Function: "calls", Endpoint: "relay", Protocol: probe.ProtoSTUN, Family: probe.IP4, Target: relay.String(), Prober: probe.STUN{Addr: relay}, Informational: true}
	works := probe.Result{Check: signalling, Steps: []probe.Step{{Op: probe.OpTLSHandshake, Addr: api}}}
	answer := probe.Result{Check: stun, Steps: []probe.Step{{Op: probe.OpReply, Addr: relay, Reply: &probe.ReplyInfo{}}}}
	silence := probe.Result{Check: stun, Void: probe.ReasonInformational, Steps: []probe.Step{{Op: probe.OpReply, Addr: relay, Failure: probe.FailureTimeout}}}
	for _, c := range []struct {
		name   string
		relays []probe.Result
		want   State
	}{
		{"never answered", []probe.Result{silence, silence}, Unknown},
		{"not asked yet", nil, Unknown},
		{"answers", []probe.Result{answer}, OK},
	} {
		v := Judge(Vantage{State: Online}, []Record{{Check: signalling, Results: []probe.Result{works}}, {Check: stun, Results: c.relays}}, nil)[0]
		if v.State != c.want || c.want == Unknown && !strings.Contains(strings.Join(v.Evidence, " "), "relays") {
			t.Errorf("%s: %+v", c.name, v)
		}
	}
	// A function without relays needs none.
	if v := Judge(Vantage{State: Online}, []Record{{Check: signalling, Results: []probe.Result{works}}}, nil)[0]; v.State != OK {
		t.Errorf("without relays: %+v", v)
	}
}
