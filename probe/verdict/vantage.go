package verdict

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/messenger-probe/messenger-probe/probe"
)

// A Vantage is what the controls say of the place that is measured from. It is
// judged first: unless it is online, no messenger is.
type Vantage struct {
	State    VantageState
	Evidence []string // sentences for a person
	// Down is what fails for everybody while the rest works: "ip6", "udp",
	// "quic". What needs it says nothing about a messenger.
	Down []string
	// Seen is the country in which a server abroad sees the vantage, by family, as
	// ISO 3166-1; empty where none has told.
	Seen map[string]string
	// Sees tells, by mechanism, whether the positive controls sensitive to it
	// were filtered. A mechanism that no control could tell about is absent.
	Sees map[Mechanism]bool
}

// Limits of the vantage's judgement.
const (
	// maxLag is how late the schedule may run before the agent is overloaded:
	// time-outs would then be its own.
	maxLag = 5 * time.Second
	// maxSkew is how wrong this machine's clock may be. Authorities date
	// certificates back by about an hour, so that a clock that is further behind
	// refuses good ones; and nobody could tell when anything began. From tellSkew on
	// it is said.
	maxSkew, tellSkew = time.Hour, time.Minute
	// goodSegments is the share of segments to controls that are sent again and
	// were missed by the peer on a line that will do: it loses two and a half per
	// cent of its packets each way. Ten per cent make 0.05: half of what is sent is
	// bare acknowledgements, and as much again is sent for want of one alone.
	goodSegments = 0.0125
	// minSegments is how many segments that share must rest on: fewer are of a few
	// connections at one moment, all of which a single stall strikes.
	minSegments = 150
	// goodLine is the share of connections to controls that come about only after
	// a second SYN on a line that will do: it loses two and a half per cent of its
	// packets each way. Ten per cent make 0.19.
	goodLine = 0.05
)

// A tally counts the answers of one group of controls by endpoint: several
// checks of one host are one opinion.
type tally struct {
	asked, reached int
	resolveFailed  int // of those not reached, how many failed at the name
	forged         int // … had an answer from somebody else: a wrong certificate
	local          int // … failed on this machine
}

// JudgeVantage judges the vantage from the latest result of each control. lag
// is how late the schedule runs.
func JudgeVantage(results []probe.Result, lag time.Duration) Vantage {
	groups := map[string]map[string][]*probe.Result{} // role, endpoint
	classes := map[string]*[2]int{}                   // class: asked, ok
	seen := map[string]string{}
	var skews []time.Duration
	var line, segments crossing
	nearest := nearestConnects(results)
	for i := range results {
		r := &results[i]
		if r.Check.Messenger != probe.Control {
			continue
		}
		role := r.Check.Function
		if role != probe.Domestic && role != probe.Foreign {
			continue
		}
		for _, c := range classOf(&r.Check) {
			n := classes[c]
			if n == nil {
				n = new([2]int)
				classes[c] = n
			}
			o, reason := r.Judge()
			if o != probe.Void || reason == probe.ReasonLocal {
				n[0]++
			}
			if o == probe.OK {
				n[1]++
			}
		}
		if p := reply(r); p != nil {
			if p.HasSkew {
				skews = append(skews, p.Skew)
			}
			if p.Country != "" {
				seen[r.Check.Family] = p.Country
			}
		}
		if r.Check.Family == probe.IP6 || udp(&r.Check) {
			continue // a host without these is still online
		}
		line.connects(r, func(a netip.Addr) (time.Duration, bool) { return nearest[a], true })
		worked := r.Outcome() == probe.OK // what a filter drops is sent again, too
		for j := range r.Steps {
			if t := r.Steps[j].TCP; worked && t != nil && (j+1 == len(r.Steps) || r.Steps[j+1].TCP == nil) {
				segments.tries += int(t.SegsOut)
				segments.late += missed(t)
			}
		}
		if groups[role] == nil {
			groups[role] = map[string][]*probe.Result{}
		}
		groups[role][r.Check.Endpoint] = append(groups[role][r.Check.Endpoint], r)
	}
	home, away := count(groups[probe.Domestic]), count(groups[probe.Foreign])
	v := Vantage{State: Online}
	say := func(format string, args ...any) { v.Evidence = append(v.Evidence, fmt.Sprintf(format, args...)) }
	both := func() {
		say("%d of %d domestic and %d of %d foreign controls answer", home.reached, home.asked, away.reached, away.asked)
	}
	asked, reached := home.asked+away.asked, home.reached+away.reached
	skew := median(skews)
	switch {
	case asked == 0:
		v.State = Impaired
		say("no control has been asked yet")
	case reached == 0 && home.local+away.local == asked:
		v.State = Offline
		say("this machine has no network: none of %d controls could be asked", asked)
	case reached == 0 && home.forged+away.forged > asked/2:
		v.State = Offline
		say("somebody else answers for %d of %d controls: a captive portal, an interceptor, or a wrong clock", home.forged+away.forged, asked)
	case reached == 0 && home.resolveFailed+away.resolveFailed > asked/2:
		v.State = Impaired
		if !answersByAddress(results) {
			v.State = Offline
		}
		say("the names of %d of %d controls cannot be resolved", home.resolveFailed+away.resolveFailed, asked)
	case reached == 0:
		v.State = Offline
		both()
	case away.reached == 0 && away.asked > 1 && home.reached*2 >= home.asked:
		v.State = Whitelist
		both()
		say("only what is in the country answers")
	case home.resolveFailed+away.resolveFailed > asked/3:
		v.State = Impaired
		say("the names of %d of %d controls cannot be resolved", home.resolveFailed+away.resolveFailed, asked)
	// Domestic controls refuse foreigners, so an agent abroad may lose them
	// all; the foreign ones must answer everywhere. But several of them may stand
	// in one network, and that one be filtered.
	case away.asked > 0 && away.reached*2 < away.asked:
		v.State = Impaired
		both()
	case lag > maxLag:
		v.State = Impaired
		say("the schedule runs %v late: this machine is overloaded", lag.Round(time.Second))
	case skew.Abs() > maxSkew:
		v.State = Impaired
		say("%s, so that certificates cannot be judged", wrongClock(skew))
	case segments.tries >= minSegments && segments.above(goodSegments):
		v.State = Impaired
		say("the line is lossy: %d of %d segments to controls were sent again and had been missed", segments.late, segments.tries)
	case line.above(goodLine):
		v.State = Impaired
		say("the line is lossy: %d of %d connections to controls came about only after their first packet was sent again", line.late, line.tries)
	default:
		both()
		v.Sees = sees(results)
		if skew.Abs() > tellSkew {
			say("%s", wrongClock(skew))
		}
	}
	if len(seen) > 0 {
		v.Seen = seen
	}
	for _, c := range []string{"ip6", "udp", "quic"} {
		if n := classes[c]; n != nil && n[1] == 0 && n[0] >= 2 {
			v.Down = append(v.Down, c)
			say("%s answers nobody: none of %d controls", c, n[0])
		}
	}
	return v
}

// missed is how many segments of a connection were sent again because they had
// been lost. Where acknowledgements come late they are sent again for nothing
// (tail loss probes, RFC 8985 §7), which the peer tells only after a while; the
// round trip tells at once.
func missed(t *probe.TCPInfo) int {
	if t.MinRTT > 0 && t.RTT > 2*t.MinRTT {
		return 0
	}
	return int(t.Retransmits - min(t.Needless, t.Retransmits))
}

// reply is what a run that works was told, nil if nothing.
func reply(r *probe.Result) *probe.ReplyInfo {
	if n := len(r.Steps); n > 0 && r.Outcome() == probe.OK {
		return r.Steps[n-1].Reply
	}
	return nil
}

// median is 0 of fewer than three: one server's clock may be wrong.
func median(ds []time.Duration) time.Duration {
	if len(ds) < 3 {
		return 0
	}
	slices.Sort(ds)
	return ds[len(ds)/2]
}

func wrongClock(skew time.Duration) string {
	how := "behind"
	if skew < 0 {
		how = "ahead"
	}
	return fmt.Sprintf("this machine's clock is %v %s that of the controls", skew.Abs().Round(time.Second), how)
}

// nearestConnects is the shortest connect to each address, 0 where none came
// about without a second SYN.
func nearestConnects(results []probe.Result) map[netip.Addr]time.Duration {
	m := map[netip.Addr]time.Duration{}
	for i := range results {
		for j := range results[i].Steps {
			s := &results[i].Steps[j]
			if was := m[s.Addr.Addr()]; s.Op == probe.OpConnect && s.Failure == "" && s.Took < sentAgain && (was == 0 || s.Took < was) {
				m[s.Addr.Addr()] = s.Took
			}
		}
	}
	return m
}

// classOf is the classes of traffic that a check needs and that may be missing
// as a whole: an address family, UDP.
func classOf(c *probe.Check) []string {
	var classes []string
	if c.Family == probe.IP6 {
		if c.Protocol == probe.ProtoDNS {
			return nil // asks for AAAA, over whatever
		}
		classes = append(classes, "ip6")
	}
	switch {
	case c.Protocol == probe.ProtoSTUN:
		classes = append(classes, "udp")
	case quic(c):
		classes = append(classes, "quic")
	}
	return classes
}

func udp(c *probe.Check) bool { return c.Protocol == probe.ProtoSTUN || quic(c) }

// quic says whether a check goes over QUIC: HTTP/3 does.
func quic(c *probe.Check) bool {
	h, ok := probe.Bare(c.Prober).(probe.HTTP)
	return c.Protocol == probe.ProtoQUIC || ok && h.Version == "3"
}

// Void is the reason for which r says nothing about its messenger while the
// vantage is as it is; empty where it does.
func (v *Vantage) Void(c *probe.Check) probe.Reason {
	if reason := v.State.Reason(); reason != "" {
		return reason
	}
	for _, class := range classOf(c) {
		if slices.Contains(v.Down, class) {
			return probe.ReasonImpaired
		}
	}
	return ""
}

// count judges each control of a group by its strongest questions: a host that
// is asked over TLS is reached when TLS works, since anybody can accept a
// connection, or answer a query, in its place.
func count(group map[string][]*probe.Result) tally {
	best := 0
	for _, rs := range group {
		for _, r := range rs {
			best = max(best, strength(r.Check.Protocol))
		}
	}
	var t tally
	for _, rs := range group {
		var ok, resolve, forged, local, counted bool
		for _, r := range rs {
			o, reason := r.Judge()
			if strength(r.Check.Protocol) < best || o == probe.Void && reason != probe.ReasonLocal {
				continue
			}
			counted = true
			ok = ok || o == probe.OK || proven(r)
			if f := r.Failed(); f != nil {
				local = local || f.Failure.Local()
				resolve = resolve || f.Op == probe.OpResolve
				forged = forged || certificate(f.Failure)
			}
		}
		if !counted {
			continue
		}
		t.asked++
		switch {
		case ok:
			t.reached++
		case forged:
			t.forged++
		case resolve:
			t.resolveFailed++
		case local:
			t.local++
		}
	}
	return t
}

// proven says that a run met the control's own certificate, whatever came of it
// after that.
func proven(r *probe.Result) bool {
	return slices.ContainsFunc(r.Steps, func(s probe.Step) bool { return s.Op == probe.OpTLSHandshake && s.Failure == "" })
}

// certificate says that a failure is a certificate that proves somebody else.
func certificate(f probe.Failure) bool {
	switch f {
	case probe.FailureSSLInvalidCertificate, probe.FailureSSLInvalidHostname, probe.FailureSSLUnknownAuthority:
		return true
	}
	return false
}

// strength orders questions by what an answer proves of the host.
func strength(protocol string) int {
	switch protocol {
	case probe.ProtoTLS, probe.ProtoHTTP, probe.ProtoWebSocket, probe.ProtoTransfer:
		return 2
	case probe.ProtoTCP:
		return 1
	}
	return 0
}

// answersByAddress says whether any control that needs no name answers.
func answersByAddress(results []probe.Result) bool {
	return slices.ContainsFunc(results, func(r probe.Result) bool {
		return r.Check.Messenger == probe.Control && r.Check.Function != probe.Positive && r.Outcome() == probe.OK
	})
}

// sees reads the positive controls.
func sees(results []probe.Result) map[Mechanism]bool {
	m := map[Mechanism]bool{}
	for i := range results {
		r := &results[i]
		if r.Check.Messenger != probe.Control || r.Check.Function != probe.Positive || r.Check.Mechanism == "" {
			continue
		}
		mechanism := Mechanism(r.Check.Mechanism)
		shows, sensitive := stage(mechanism, r)
		if sensitive {
			m[mechanism] = m[mechanism] || shows
		}
	}
	return m
}

// stage says whether a result of a positive control shows its mechanism, and
// whether it could have: what fails sooner tells nothing, and a name that is
// missing from the DNS does not show in a connect.
func stage(m Mechanism, r *probe.Result) (shows, sensitive bool) {
	o, f := r.Outcome(), r.Failed()
	if o == probe.Void {
		return false, false
	}
	at := func(protocol string, ops ...probe.Op) (bool, bool) {
		if o == probe.OK {
			return false, r.Check.Protocol == protocol
		}
		return slices.Contains(ops, f.Op), slices.Contains(ops, f.Op)
	}
	switch m {
	case DNSOmission, DNSInjection, DNSHijack, DNSForgery, DNSDrop:
		return at(probe.ProtoDNS, probe.OpResolve)
	case IPBlock, PortBlock, TCPReset:
		return at(probe.ProtoTCP, probe.OpConnect)
	case QUICBlock, QUICSNIBlock:
		return at(probe.ProtoQUIC, probe.OpQUICHandshake)
	case CallBlock, UDPBlock:
		return at(probe.ProtoSTUN, probe.OpReply)
	case Freeze, Throttling:
		return at(probe.ProtoTransfer, probe.OpTransfer)
	}
	return at(probe.ProtoTLS, probe.OpTLSHandshake, probe.OpRequest, probe.OpReply)
}
