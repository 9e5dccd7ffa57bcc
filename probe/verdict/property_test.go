package verdict

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/quick"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/messenger-probe/messenger-probe/probe"
)

// oddities makes input that no prober would: results without steps, evidence
// missing or contradictory, steps out of order, probers that nobody knows,
// strange numbers.
type oddities struct{ *rand.Rand }

type unheardOf struct{}

func (unheardOf) Probe(context.Context, probe.Net) []probe.Step { return nil }

func pick[T any](o oddities, list ...T) T { return list[o.IntN(len(list))] }

func (o oddities) addr() netip.AddrPort {
	a := pick(o, "149.154.167.51", "149.154.167.91", "149.154.175.50", "157.240.205.60", "157.240.205.61", "15.197.206.217",
		"91.108.9.35", "91.108.13.23", "2001:67c:4e8:f002::a", "10.0.0.1", "::ffff:1.2.3.4", "93.184.216.34")
	if o.IntN(8) == 0 {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(netip.MustParseAddr(a), pick(o, uint16(443), 80, 5222, 3478, 53, 0))
}

func (o oddities) failure() probe.Failure {
	switch o.IntN(6) {
	case 0, 1:
		return ""
	case 2, 3:
		return probe.FailureTimeout
	}
	all := probe.Failures()
	return all[o.IntN(len(all))]
}

func (o oddities) took() time.Duration {
	return pick[time.Duration](o, 0, time.Millisecond, 20*time.Millisecond, time.Second, 5*time.Second, -time.Second, time.Duration(1)<<62)
}

func (o oddities) maybe() bool { return o.IntN(2) == 0 }

func (o oddities) name() string {
	return pick(o, "", "web.whatsapp.com", "v.whatsapp.net", "telegram.org", "%s%d", "a/b", "ya.ru")
}

func (o oddities) step() probe.Step {
	s := probe.Step{Op: probe.Ops[o.IntN(len(probe.Ops))], Addr: o.addr(), Start: time.Unix(int64(o.IntN(1000)), 0), Took: o.took(), Failure: o.failure()}
	if o.IntN(10) == 0 {
		s.Op = "teleport"
	}
	if o.maybe() {
		s.TCP = &probe.TCPInfo{BytesAcked: o.Uint64() >> o.IntN(64), BytesReceived: o.Uint64() >> o.IntN(64), Unacked: uint32(o.IntN(3)), SegsOut: o.Uint32() >> o.IntN(32), Retransmits: o.Uint32() >> o.IntN(32), MinRTT: o.took()}
	}
	if o.maybe() {
		s.TLS = &probe.TLSInfo{Hello: pick(o, probe.HelloGo, probe.HelloX25519, ""), FailedAfter: o.took(), RTT: o.took()}
		if o.maybe() {
			s.TLS.Chain = []probe.Certificate{{SelfSigned: o.maybe()}}
		}
	}
	if o.maybe() {
		s.DNS = &probe.DNSInfo{Resolver: pick(o, probe.System, "google", ""), Transport: pick(o, probe.OverUDP, probe.OverTCP, ""), Name: o.name(), Type: pick(o, uint16(1), 28, 0), Queries: o.IntN(3)}
		for range o.IntN(3) {
			s.DNS.Replies = append(s.DNS.Replies, probe.DNSReply{Counts: o.maybe(), RCode: o.IntN(5) - 1, Addrs: []netip.Addr{o.addr().Addr()}})
		}
		if o.maybe() {
			s.DNS.Answers = []netip.Addr{o.addr().Addr()}
		}
	}
	if o.maybe() {
		s.Reply = &probe.ReplyInfo{Code: o.IntN(700) - 100, Redirect: o.name()}
		if o.maybe() {
			s.Reply.Marks = []string{"mark"}
		}
	}
	if o.maybe() {
		s.Transfer = &probe.TransferInfo{Bytes: o.Int64() >> o.IntN(63), Wanted: o.Int64() >> o.IntN(63), Stall: o.took(), Goodput: pick[float64](o, 0, -1, 1e3, 1e9)}
	}
	if o.maybe() {
		s.Burst = &probe.BurstInfo{Sent: o.IntN(60) - 5, Received: o.IntN(60) - 5}
	}
	return s
}

func (o oddities) prober() probe.Prober {
	addr, name := o.addr(), o.name()
	ask := pick[probe.Addressed](o, probe.TLS{Addr: addr, ServerName: name, Hello: pick(o, probe.HelloGo, probe.HelloX25519, "")}, probe.HTTP{Addr: addr, ServerName: name, Plain: o.maybe()},
		probe.TCP{Addr: addr}, probe.MTProto{Addr: addr, Transport: pick(o, "obfuscated2", "http", "websocket"), ServerName: name}, probe.Noise{Addr: addr, Over: "raw"}, probe.OneMe{Addr: addr, ServerName: name},
		probe.QUIC{Addr: addr, ServerName: name}, probe.QUICPing{Addr: addr}, probe.STUN{Addr: addr}, probe.Transfer{Addr: addr, ServerName: name}, probe.WebSocket{Addr: addr, ServerName: name},
		probe.DNS{Server: probe.Server{Name: pick(o, probe.System, "google"), Transport: pick(o, probe.OverUDP, probe.OverTCP), Addr: addr}, Host: name, Type: 1})
	switch o.IntN(8) {
	case 0:
		return unheardOf{}
	case 1:
		return nil
	case 2, 3:
		return probe.ByName{Host: name, Ask: ask}
	}
	return ask
}

func (o oddities) result(c probe.Check) probe.Result {
	r := probe.Result{Check: c, Start: time.Unix(int64(o.IntN(1000)), 0), Took: o.took()}
	for range o.IntN(4) {
		r.Steps = append(r.Steps, o.step())
	}
	if o.IntN(10) == 0 {
		r.Void = probe.Reasons[o.IntN(len(probe.Reasons))]
	}
	return r
}

func (o oddities) records() (rs []Record, arms []Arm) {
	protocols := []string{probe.ProtoDNS, probe.ProtoTCP, probe.ProtoTLS, probe.ProtoQUIC, probe.ProtoHTTP, probe.ProtoWebSocket, probe.ProtoMTProto, probe.ProtoNoise, probe.ProtoOneMe, probe.ProtoSTUN, probe.ProtoTransfer, "gopher"}
	asks := append(Asks[:], "what")
	for i := range o.IntN(60) {
		c := probe.Check{Messenger: pick(o, "telegram", "whatsapp", probe.Control), Function: pick(o, "chat", "calls", "web", probe.Domestic, probe.Foreign, probe.Sibling, probe.Positive),
			Endpoint: pick(o, "a", "b", "c"), Protocol: pick(o, protocols...), Family: pick(o, probe.IP4, probe.IP6), Target: fmt.Sprint(i), Mechanism: string(Mechanisms[o.IntN(len(Mechanisms))]), Prober: o.prober()}
		r := Record{Check: c}
		for range o.IntN(4) {
			res := o.result(c)
			if o.maybe() {
				r.Note(&res)
			}
			r.Results = append(r.Results, res)
		}
		rs = append(rs, r)
		for range o.IntN(3) {
			arms = append(arms, Arm{Of: c.ID(), Ask: pick(o, asks...), Result: o.result(c)})
		}
	}
	return rs, arms
}

func controlsOf(rs []Record) (out []probe.Result) {
	for i := range rs {
		if rs[i].Check.Messenger == probe.Control {
			out = append(out, rs[i].Results...)
		}
	}
	return out
}

// TestIllVantage: with the vantage not online, no input whatever yields a word
// on any messenger.
func TestIllVantage(t *testing.T) {
	checks := town()
	say := func(seed uint64, state VantageState, sick bool) bool {
		o := oddities{rand.New(rand.NewPCG(seed, 1))}
		rs, arms := o.records()
		if sick { // a real day under a censor, and the line dies
			w := newWorld(seed)
			all := scenarios()
			sc := all[seed%uint64(len(all))]
			w.effects, w.names = sc.effects, sc.names
			d := w.live(checks, daily)
			rs, arms = d.records, d.arms
		}
		v := Vantage{State: state, Evidence: []string{"so it is"}}
		for _, j := range Judge(v, rs, arms) {
			if j.State != Unknown || j.Mechanism != "" || j.Confidence != "" {
				t.Logf("%s/%s is %s by %s while the vantage is %q", j.Messenger, j.Function, j.State, j.Mechanism, state)
				return false
			}
		}
		return len(Questions(v, rs, 1, func(string, Ask) bool { return false })) == 0
	}
	for _, state := range []VantageState{Offline, Whitelist, Impaired, "", "strange"} {
		if err := quick.Check(func(seed uint64) bool { return say(seed, state, false) }, &quick.Config{MaxCount: 300}); err != nil {
			t.Error(err)
		}
		for seed := range uint64(len(scenarios())) {
			if !say(seed, state, true) {
				t.Errorf("scenario %d", seed)
			}
		}
	}
}

// sound says what is wrong with a verdict whatever it is about.
func sound(v Vantage, j Verdict) string {
	named := j.State == Degraded || j.State == Blocked || j.State == Unreachable
	switch {
	case !slices.Contains(States[:], j.State):
		return "no such state"
	case named != (j.Mechanism != "") || named != (j.Confidence != ""):
		return "a mechanism and a confidence where there is none, or none where there is one"
	case named && !slices.Contains(Mechanisms[:], j.Mechanism):
		return "no such mechanism"
	case named && !slices.Contains(Confidences[:], j.Confidence):
		return "no such confidence"
	case v.State != Online && j.State != Unknown:
		return "a word from a vantage that is not online"
	case len(j.Evidence) == 0 || slices.Contains(j.Evidence, ""):
		return "no evidence"
	case strings.Contains(strings.Join(j.Evidence, " "), "%!"):
		return "evidence that is badly printed"
	case j.State == Blocked && slices.Contains([]Mechanism{ServiceOutage, UnknownCause, PacketLoss}, j.Mechanism):
		return "a block by what is none"
	}
	return ""
}

// judgeOdd judges odd input in many orders.
func judgeOdd(t *testing.T, seed uint64) {
	o := oddities{rand.New(rand.NewPCG(seed, 2))}
	rs, arms := o.records()
	v := JudgeVantage(controlsOf(rs), o.took())
	if o.IntN(4) > 0 {
		v = Vantage{State: Online, Down: v.Down}
	}
	Questions(v, rs, 1+o.IntN(2), func(string, Ask) bool { return o.IntN(4) == 0 })
	for i := range rs {
		v.Void(&rs[i].Check)
		rs[i].Kind()
	}
	first := sorted(Judge(v, rs, arms))
	for _, j := range first {
		if wrong := sound(v, j); wrong != "" {
			t.Errorf("seed %d: %s: %+v", seed, wrong, j)
		}
	}
	for range 3 {
		o.Shuffle(len(rs), func(i, k int) { rs[i], rs[k] = rs[k], rs[i] })
		if d := cmp.Diff(first, sorted(Judge(v, rs, arms))); d != "" {
			t.Fatalf("seed %d: another order of records, another verdict: %s", seed, d)
		}
	}
}

func sorted(vs []Verdict) []Verdict {
	slices.SortFunc(vs, func(a, b Verdict) int { return strings.Compare(a.Messenger+"/"+a.Function, b.Messenger+"/"+b.Function) })
	return vs
}

// FuzzJudge: no input makes Judge panic, or say what cannot be said, or depend on
// the order in which it is told.
func FuzzJudge(f *testing.F) {
	for seed := range uint64(300) {
		f.Add(seed)
	}
	f.Fuzz(judgeOdd)
}

// TestOrder: what happened is judged alike in whatever order it is told, on
// days under a censor.
func TestOrder(t *testing.T) {
	checks := town()
	for i, sc := range scenarios() {
		w := newWorld(uint64(i))
		w.effects, w.names, w.single = sc.effects, sc.names, 0.05
		d := w.live(checks, once)
		first := sorted(d.verdicts)
		for range 20 {
			w.rng.Shuffle(len(d.records), func(i, k int) { d.records[i], d.records[k] = d.records[k], d.records[i] })
			w.rng.Shuffle(len(d.arms), func(i, k int) { d.arms[i], d.arms[k] = d.arms[k], d.arms[i] })
			if diff := cmp.Diff(first, sorted(Judge(d.vantage, d.records, d.arms))); diff != "" {
				t.Fatalf("%s: %s", sc.name, diff)
			}
			shuffled := controlsOf(d.records)
			if diff := cmp.Diff(JudgeVantage(controlsOf(d.records), 0), JudgeVantage(shuffled, 0)); diff != "" {
				t.Fatalf("%s: vantage: %s", sc.name, diff)
			}
		}
	}
}
