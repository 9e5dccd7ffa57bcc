package verdict

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/messenger-probe/messenger-probe/probe"
)

// controls is the newest result of each control in a world.
func (w *world) controls() (rs []probe.Result) {
	for _, c := range town() {
		if c.Messenger == probe.Control {
			if r := w.run(c); len(r.Steps) > 0 {
				rs = append(rs, r)
			}
		}
	}
	return rs
}

// TestClock: a clock that is wrong is told, and one that is very wrong voids what
// is measured; one server with a wrong clock does not.
func TestClock(t *testing.T) {
	for _, c := range []struct {
		skew  time.Duration
		of    int // controls; all where 0
		state VantageState
		says  string
	}{
		{skew: 2 * time.Second, state: Online},
		{skew: 90 * time.Second, state: Online, says: "clock is 1m30s behind"},
		{skew: -40 * time.Minute, state: Online, says: "clock is 40m0s ahead"},
		{skew: 61 * time.Minute, state: Impaired, says: "certificates cannot be judged"},
		{skew: -26 * time.Hour, state: Impaired, says: "clock is 26h0m0s ahead"},
		{skew: 26 * time.Hour, of: 2, state: Online},
	} {
		rs := newWorld(1).controls()
		n := 0
		for i := range rs {
			if p := reply(&rs[i]); p != nil && rs[i].Check.Protocol == probe.ProtoHTTP {
				p.HasSkew = true
				if n++; c.of == 0 || n <= c.of {
					p.Skew = c.skew
				}
			}
		}
		v := JudgeVantage(rs, 0)
		said := strings.Join(v.Evidence, "\n")
		if v.State != c.state || !strings.Contains(said, c.says) || c.says == "" && strings.Contains(said, "clock") {
			t.Errorf("%v at %d: %s, %q; want %s, %q", c.skew, c.of, v.State, v.Evidence, c.state, c.says)
		}
	}
}

// TestSeen: what servers say of where we are is kept by family.
func TestSeen(t *testing.T) {
	rs := newWorld(1).controls()
	if v := JudgeVantage(rs, 0); v.Seen != nil {
		t.Errorf("seen in %v, and nobody told", v.Seen)
	}
	for i := range rs {
		if p := reply(&rs[i]); p != nil && rs[i].Check.Endpoint == "cloudflare.com" && rs[i].Check.Protocol == probe.ProtoHTTP {
			p.Country = map[string]string{probe.IP4: "RU", probe.IP6: "DE"}[rs[i].Check.Family]
		}
	}
	if d := cmp.Diff(map[string]string{probe.IP4: "RU", probe.IP6: "DE"}, JudgeVantage(rs, 0).Seen); d != "" {
		t.Error(d)
	}
}

// TestLossyLine: one look at the controls tells most lines that lose ten packets
// in a hundred from those that lose two, and never the other way round.
func TestLossyLine(t *testing.T) {
	const rounds = 200
	for _, c := range []struct {
		loss       float64
		stalls     uint32 // segments sent again for nothing on each connection …
		told       bool   // … and whether the peer could say so yet
		least, top int    // rounds in which the vantage is impaired
	}{
		{loss: 0.02, top: 0},
		{loss: 0.10, least: rounds * 3 / 4, top: rounds},
		{stalls: 2, told: true, top: 0},
		{stalls: 2, top: 0},
	} {
		n := 0
		for seed := range uint64(rounds) {
			w := newWorld(seed)
			w.loss = c.loss
			rs := w.controls()
			for i := range rs {
				for j := range rs[i].Steps {
					if t := rs[i].Steps[j].TCP; t != nil {
						t.Retransmits += c.stalls
						if c.told {
							t.Needless += c.stalls
						} else if c.stalls > 0 {
							t.RTT = 4 * t.MinRTT
						}
					}
				}
			}
			v := JudgeVantage(rs, 0)
			switch {
			case v.State == Impaired && strings.Contains(strings.Join(v.Evidence, "\n"), "lossy"):
				n++
			case v.State != Online:
				t.Errorf("loss %v, seed %d: %s: %q", c.loss, seed, v.State, v.Evidence)
			}
		}
		if n < c.least || n > c.top {
			t.Errorf("loss %v, stalls %d: impaired in %d of %d rounds, want %d to %d", c.loss, c.stalls, n, rounds, c.least, c.top)
		}
	}
}

// TestJudgeVantage is the state of the vantage in each state of the line, and
// the sentence that says why.
func TestJudgeVantage(t *testing.T) {
	abroad, refusing := not(domestic), all(domestic, not(to("95.165.0.0/16")))
	for _, c := range []struct {
		name    string
		effects []effect
		names   []nameEffect
		loss    float64
		lag     time.Duration
		state   VantageState
		says    string
		down    []string
	}{
		{name: "all well", state: Online, says: "4 of 4 domestic and 7 of 7 foreign controls answer"},
		{name: "an agent abroad, where domestic controls refuse foreigners", effects: []effect{when(refusing, drops)}, state: Online, says: "0 of 4 domestic and 7 of 7 foreign"},
		{name: "… or refuse politely", effects: []effect{when(refusing, refuses)}, state: Online, says: "0 of 4"},
		{name: "one content network is filtered", effects: []effect{when(under("www.google.com", "cloudflare.com", "github.com"), swallows)}, state: Online, says: "4 of 7 foreign"},
		{name: "transfers freeze", effects: []effect{when(all(overTCP, abroad), freezes, 16<<10)}, state: Online, says: "7 of 7 foreign"},
		{name: "only what is in the country answers", effects: []effect{when(abroad, drops)}, state: Whitelist, says: "only what is in the country", down: []string{"quic"}},
		{name: "a white list of names", effects: []effect{when(all(named, not(under("ya.ru", "vk.ru", "www.gosuslugi.ru"))), swallows)}, state: Whitelist, down: []string{"quic"}},
		{name: "nothing answers", effects: []effect{when(anyone, drops)}, state: Offline, says: "cannot be resolved", down: []string{"ip6", "quic", "udp"}},
		{name: "nothing can be sent", effects: []effect{when(anyone, unroutes)}, state: Offline, down: []string{"ip6", "quic", "udp"}},
		{name: "a captive portal", effects: []effect{when(named, forges)}, state: Offline, says: "captive portal", down: []string{"quic"}},
		{name: "a wrong clock", effects: []effect{when(named, expires)}, state: Offline, says: "wrong clock", down: []string{"quic"}},
		{name: "dead resolvers", effects: []effect{when(to("95.165.0.53 95.165.0.54"), drops)}, state: Impaired, says: "cannot be resolved", down: []string{"ip6", "quic", "udp"}},
		{name: "lying resolvers", names: []nameEffect{answers(answer{failure: probe.FailureDNSNXDOMAIN}, []string{probe.System}, "ru", "com", "org", "net")}, state: Impaired, says: "cannot be resolved", down: []string{"ip6", "quic", "udp"}},
		{name: "half of the world is gone", effects: []effect{when(to("93.184.216.0/24 142.250.0.0/16 140.82.0.0/16 141.95.0.0/16"), drops)}, state: Impaired, says: "3 of 7 foreign"},
		{name: "one per cent is lost", loss: 0.01, state: Online},
		{name: "no IPv6", effects: []effect{when(ip6, unroutes)}, state: Online, says: "ip6 answers nobody", down: []string{"ip6"}},
		{name: "no UDP but the resolver's", effects: []effect{when(all(overUDP, not(speaking("dns"))), drops)}, state: Online, says: "udp answers nobody", down: []string{"udp", "quic"}},
		{name: "no QUIC", effects: []effect{when(speaking("quic", "ping"), drops)}, state: Online, says: "quic answers nobody", down: []string{"quic"}},
		{name: "a late agent", lag: 6 * time.Second, state: Impaired, says: "6s late: this machine is overloaded"},
		{name: "a little late", lag: 4 * time.Second, state: Online},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(5)
			w.effects, w.names, w.loss = c.effects, c.names, c.loss
			v := JudgeVantage(w.controls(), c.lag)
			if v.State != c.state {
				t.Errorf("%s, want %s: %q", v.State, c.state, v.Evidence)
			}
			if !strings.Contains(strings.Join(v.Evidence, "\n"), c.says) {
				t.Errorf("nothing says %q: %q", c.says, v.Evidence)
			}
			slices.Sort(v.Down)
			slices.Sort(c.down)
			if d := cmp.Diff(c.down, v.Down); c.state == Online && d != "" {
				t.Errorf("down: %s", d)
			}
			if c.state != Online && v.Sees != nil {
				t.Errorf("what is seen is told from a vantage that is %s", c.state)
			}
		})
	}
	if v := JudgeVantage(nil, 0); v.State != Impaired || len(v.Evidence) == 0 {
		t.Errorf("without any control: %+v", v)
	}
}

// TestOneDeadControl: a single control that is dead, in whatever way, changes
// nothing.
func TestOneDeadControl(t *testing.T) {
	for name := range townNames {
		for _, k := range []kindOfFate{drops, refuses, swallows, mutes, resets, forges, expires, closes} {
			w := newWorld(5)
			w.effects = []effect{func(w *world, f *flow) (fate, bool) {
				return fate{is: k}, slices.Contains(w.zone[name+"/"+family(f.addr.Addr())], f.addr.Addr())
			}}
			v := JudgeVantage(w.controls(), 0)
			if v.State != Online || len(v.Down) > 0 {
				t.Errorf("%s meets %d: %s %v %q", name, k, v.State, v.Down, v.Evidence)
			}
		}
	}
}

// TestVoid: what needs that which is missing from the vantage says nothing, and
// the rest does.
func TestVoid(t *testing.T) {
	v := Vantage{State: Online, Down: []string{"ip6", "udp", "quic"}}
	for _, c := range town() {
		if c.Messenger == probe.Control {
			continue
		}
		needs := c.Family == probe.IP6 || c.Protocol == probe.ProtoSTUN || c.Protocol == probe.ProtoQUIC
		if got := v.Void(&c); (got != "") != needs {
			t.Errorf("%s is voided by %q", c.ID(), got)
		}
		for _, s := range []VantageState{Offline, Whitelist, Impaired} {
			ill := Vantage{State: s}
			if ill.Void(&c) != s.Reason() || s.Reason() == "" {
				t.Errorf("%s counts while the vantage is %s", c.ID(), s)
			}
		}
	}
	h3 := probe.Check{Protocol: probe.ProtoHTTP, Prober: probe.HTTP{Version: "3"}}
	if v.Void(&h3) != probe.ReasonImpaired {
		t.Error("HTTP/3 counts where QUIC answers nobody")
	}
}

// TestSees: a positive control tells of its mechanism when it meets it, and of
// nothing when it dies of something else.
func TestSees(t *testing.T) {
	x, youtube := "104.244.42.1", "142.250.74.14"
	for _, c := range []struct {
		name    string
		effects []effect
		names   []nameEffect
		want    map[Mechanism]bool
	}{
		{name: "no filter", want: map[Mechanism]bool{SNIDrop: false, DNSOmission: false}},
		{name: "the name is dropped", effects: []effect{when(under("x.com"), swallows)}, want: map[Mechanism]bool{SNIDrop: true, DNSOmission: false}},
		{name: "the name is gone", names: []nameEffect{answers(answer{failure: probe.FailureDNSNXDOMAIN}, []string{probe.System}, "www.youtube.com")}, want: map[Mechanism]bool{SNIDrop: false, DNSOmission: true}},
		{name: "the host is down", effects: []effect{when(to(x, youtube), drops)}, want: map[Mechanism]bool{DNSOmission: false}},
		{name: "the name is gone where it should be dropped", names: []nameEffect{answers(answer{failure: probe.FailureDNSNXDOMAIN}, []string{probe.System}, "x.com")}, want: map[Mechanism]bool{DNSOmission: false}},
	} {
		w := newWorld(5)
		w.effects, w.names = c.effects, c.names
		if d := cmp.Diff(c.want, JudgeVantage(w.controls(), 0).Sees); d != "" {
			t.Errorf("%s: %s", c.name, d)
		}
	}
	// A control for each mechanism.
	at := func(protocol string, op probe.Op, failure probe.Failure, m Mechanism) probe.Result {
		return probe.Result{Check: probe.Check{Messenger: probe.Control, Function: probe.Positive, Protocol: protocol, Mechanism: string(m)}, Steps: []probe.Step{{Op: op, Failure: failure}}}
	}
	for _, c := range []struct {
		m        Mechanism
		protocol string
		op       probe.Op
	}{
		{DNSOmission, probe.ProtoDNS, probe.OpResolve}, {DNSInjection, probe.ProtoDNS, probe.OpResolve}, {DNSForgery, probe.ProtoDNS, probe.OpResolve},
		{IPBlock, probe.ProtoTCP, probe.OpConnect}, {PortBlock, probe.ProtoTCP, probe.OpConnect}, {TCPReset, probe.ProtoTCP, probe.OpConnect},
		{SNIReset, probe.ProtoTLS, probe.OpTLSHandshake}, {SNIDrop, probe.ProtoTLS, probe.OpTLSHandshake}, {SNIDelayedDrop, probe.ProtoTLS, probe.OpTLSHandshake}, {TLSMITM, probe.ProtoTLS, probe.OpTLSHandshake},
		{QUICBlock, probe.ProtoQUIC, probe.OpQUICHandshake}, {QUICSNIBlock, probe.ProtoQUIC, probe.OpQUICHandshake},
		{CallBlock, probe.ProtoSTUN, probe.OpReply}, {UDPBlock, probe.ProtoSTUN, probe.OpReply},
		{Freeze, probe.ProtoTransfer, probe.OpTransfer}, {Throttling, probe.ProtoTransfer, probe.OpTransfer},
	} {
		if got := sees([]probe.Result{at(c.protocol, c.op, probe.FailureTimeout, c.m)}); !got[c.m] {
			t.Errorf("%s is not seen at %s", c.m, c.op)
		}
		if got, told := sees([]probe.Result{at(c.protocol, c.op, "", c.m)})[c.m]; got || !told {
			t.Errorf("%s: %v, %v from a control that works", c.m, got, told)
		}
		if _, told := sees([]probe.Result{at("other", probe.OpConnect, "", c.m)})[c.m]; told {
			t.Errorf("%s is told from a check that cannot meet it", c.m)
		}
	}
}
