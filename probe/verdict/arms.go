package verdict

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"github.com/messenger-probe/messenger-probe/probe"
)

// An Ask names a differential question: the same endpoint with one thing
// changed, so that the difference in the answer names what is interfered with.
type Ask string

const (
	AskOtherPort   Ask = "other_port"   // another port of the same address
	AskNeutralName Ask = "neutral_name" // the same address under a name that nobody blocks
	AskNoName      Ask = "no_name"      // the same address under no name
	AskElsewhere   Ask = "elsewhere"    // the same name at an address that is not the messenger's and lends itself
	AskOtherHello  Ask = "other_hello"  // the same name in a browser's ClientHello
	AskSplitHello  Ask = "split_hello"  // the same name, the ClientHello cut in two records
	AskQUICPing    Ask = "quic_ping"    // QUIC version negotiation: no name, no version
	AskQUICNeutral Ask = "quic_neutral" // QUIC under a name that nobody blocks
	AskNonResolver Ask = "non_resolver" // the query, to an address that runs no resolver
	AskOtherBytes  Ask = "other_bytes"  // other bytes on the same port
	AskNoise       Ask = "noise"        // bytes without form, as many as the messenger's own, on the same port
	AskSmall       Ask = "small"        // a small answer from the same host
	AskAgain       Ask = "again"        // the same transfer, or burst of a call's packets …
	AskControlRate Ask = "control_rate" // … beside the same amount from a control
)

// Asks is every Ask.
var Asks = [...]Ask{AskOtherPort, AskNeutralName, AskNoName, AskElsewhere, AskOtherHello, AskSplitHello, AskQUICPing, AskQUICNeutral,
	AskNonResolver, AskOtherBytes, AskNoise, AskSmall, AskAgain, AskControlRate}

// An Arm is a differential question and what came of it.
type Arm struct {
	Of     string // ID of the failing check
	Ask    Ask
	Result probe.Result
}

// A Question is an arm that has not been asked yet.
type Question struct {
	Of    string
	Ask   Ask
	About netip.Addr // whose failure it is
	Check probe.Check
}

// neutralName is a name that nobody has a reason to block and that the
// messengers' servers do not have: IANA's example (RFC 2606).
const neutralName = "www.example.com"

// Limits of the questions that may be open at one time.
const (
	// perFunction is how many failing checks of one kind in one function are asked
	// about: a second one is the repeat that makes a finding sure.
	perFunction = 2
	// perHost is how many questions are about one address.
	perHost = 8
)

// Questions is what to ask about what failed this many times in a row, 1 or 2,
// about transfers that were slow once and bursts that were lost. asked tells
// which questions are known already. Nothing is asked from a vantage that is not online.
func Questions(v Vantage, records []Record, failures int, asked func(of string, a Ask) bool) []Question {
	if v.State != Online {
		return nil
	}
	type kind struct{ messenger, function, protocol, op string }
	seen := map[kind]int{}
	type host struct {
		kind
		addr netip.Addr
	}
	hosts, about := map[host]bool{}, map[netip.Addr]int{}
	around := look(records)
	var messengers []string
	var qs []Question
	for i := range records {
		r := &records[i]
		if r.Check.Messenger == probe.Control {
			continue
		}
		if !slices.Contains(messengers, r.Check.Messenger) {
			messengers = append(messengers, r.Check.Messenger)
		}
		var arms []arm
		var k kind
		var to netip.Addr
		if f := r.persists(failures); f != nil {
			k = kind{r.Check.Messenger, r.Check.Function, r.Check.Protocol, string(f.Failed().Op)}
			arms, to = armsOf(&r.Check, f, around), f.Failed().Addr.Addr()
		} else if l := r.last(); l != nil && r.slowRuns(around.rate) == 1 {
			k = kind{r.Check.Messenger, r.Check.Function, r.Check.Protocol, "slow"}
			arms, to = around.pair(&r.Check, l), l.Addr().Addr()
		} else if q, ok := probe.Bare(r.Check.Prober).(probe.STUN); ok && r.chopped() > 0 {
			k = kind{r.Check.Messenger, r.Check.Function, r.Check.Protocol, "chopped"}
			q.Addr = l.Addr()
			arms, to = []arm{{AskAgain, probe.ProtoSTUN, q, ""}}, q.Addr.Addr()
		}
		if len(arms) == 0 {
			continue
		}
		// A second address of the same kind says more than a second port.
		h := host{k, to}
		if seen[k] >= perFunction || hosts[h] || about[to]+len(arms) > perHost {
			continue
		}
		seen[k]++
		hosts[h] = true
		about[to] += len(arms)
		for _, a := range arms {
			if asked(r.Check.ID(), a.ask) {
				continue
			}
			c := r.Check
			c.Target += "," + string(a.ask)
			c.Protocol, c.Prober = a.protocol, a.prober
			c.Timeout = min(c.Timeout, 6*time.Second)
			c.Informational = false
			if a.gate != "" {
				c.Gate = a.gate
			}
			qs = append(qs, Question{Of: r.Check.ID(), Ask: a.ask, About: to, Check: c})
		}
	}
	for _, m := range messengers {
		for _, q := range nonResolver(records, m) {
			if !asked(q.Of, q.Ask) {
				qs = append(qs, q)
			}
		}
	}
	return qs
}

// persists is the failure to ask about, nil where there is none that came this
// many times in a row.
func (r *Record) persists(failures int) *probe.Result {
	if u := r.unproven(); u != nil {
		return u
	}
	if failures > 1 && r.stands() != failing {
		return nil
	}
	return r.cause()
}

// surroundings is what else is known that a question needs.
type surroundings struct {
	ports   map[netip.Addr]map[uint16]bool // that are asked already
	open    map[string]map[uint16]int      // by messenger, on how many connections were taken
	lenders []netip.AddrPort               // controls that answer TLS and lend themselves
	moved   map[string]*Record             // by direction, a control's transfer that works
	rate    float64                        // of the controls' transfers
}

func look(records []Record) *surroundings {
	s := &surroundings{ports: map[netip.Addr]map[uint16]bool{}, open: map[string]map[uint16]int{}, moved: map[string]*Record{}, rate: controlRate(records)}
	for i := range records {
		r := &records[i]
		l := r.last()
		if l == nil {
			continue
		}
		to := l.Addr()
		if a := to.Addr(); a.IsValid() && !udp(&r.Check) && r.Check.Protocol != probe.ProtoDNS {
			s.note(to)
			if f := l.Failed(); f == nil || f.Op != probe.OpConnect {
				if s.open[r.Check.Messenger] == nil {
					s.open[r.Check.Messenger] = map[uint16]int{}
				}
				s.open[r.Check.Messenger][to.Port()]++
			}
		}
		if r.Check.Messenger != probe.Control || l.Outcome() != probe.OK {
			continue
		}
		switch q := probe.Bare(r.Check.Prober).(type) {
		case probe.TLS:
			if r.Check.Lends {
				s.lenders = append(s.lenders, to)
			}
		case probe.Transfer:
			d := cmp.Or(q.Direction, probe.Download)
			if was := s.moved[d]; was == nil || was.Check.Function != probe.Foreign && r.Check.Function == probe.Foreign {
				s.moved[d] = r
			}
		}
	}
	return s
}

func (s *surroundings) note(a netip.AddrPort) {
	if s.ports[a.Addr()] == nil {
		s.ports[a.Addr()] = map[uint16]bool{}
	}
	s.ports[a.Addr()][a.Port()] = true
}

// otherPort is a port of the address that is likely to be open and that nobody
// asks, unless others are asked already; 0 if none: the one on which most of the
// messenger's other addresses answer, else one of the web's.
func (s *surroundings) otherPort(messenger string, a netip.AddrPort) uint16 {
	if asked := s.ports[a.Addr()]; len(asked) > 1 || len(asked) == 1 && !asked[a.Port()] {
		return 0
	}
	port, most := uint16(443), 0
	if a.Port() == port {
		port = 80
	}
	for p, n := range s.open[messenger] {
		if p != a.Port() && (n > most || n == most && p < port) {
			port, most = p, n
		}
	}
	s.note(netip.AddrPortFrom(a.Addr(), port))
	return port
}

// pair is the same transfer again, and one of as much from a control.
func (s *surroundings) pair(c *probe.Check, r *probe.Result) []arm {
	q, ok := probe.Bare(c.Prober).(probe.Transfer)
	if !ok {
		return nil
	}
	control := s.moved[cmp.Or(q.Direction, probe.Download)]
	if control == nil {
		return nil
	}
	p := probe.Bare(control.Check.Prober).(probe.Transfer)
	q.Addr, p.Addr = r.Addr(), control.last().Addr()
	p.Bytes = q.Bytes
	return []arm{{AskAgain, probe.ProtoTransfer, q, ""}, {AskControlRate, probe.ProtoTransfer, p, control.Check.Gate}}
}

// unproven is the newest result of an informational QUIC check that met
// silence. Whether the server speaks QUIC at all can be asked under another
// name; if it does, the silence is a finding.
func (r *Record) unproven() *probe.Result {
	if len(r.Results) == 0 || r.Results[0].Void != probe.ReasonInformational {
		return nil
	}
	_, quic := probe.Bare(r.Check.Prober).(probe.QUIC)
	if f := r.Results[0].Failed(); !quic || !timedOut(f) || f.Op != probe.OpQUICHandshake {
		return nil
	}
	return &r.Results[0]
}

// Proves says whether the arm shows that the endpoint speaks the protocol of
// the check that it is about, so that an informational check counts from now on.
func (a *Arm) Proves() bool {
	return a.Ask == AskQUICNeutral && a.Result.Failed() == nil && len(a.Result.Steps) > 0
}

type arm struct {
	ask      Ask
	protocol string
	prober   probe.Prober
	gate     string
}

// armsOf is the differential questions for one failure, by what failed where.
func armsOf(c *probe.Check, r *probe.Result, around *surroundings) []arm {
	f := r.Failed()
	at := f.Addr
	gate := at.Addr().String() + "|" + neutralName
	any := &probe.Trust{Any: true}
	switch {
	case f.Op == probe.OpResolve, c.Protocol == probe.ProtoDNS:
		return nil // the other resolvers' answers tell; see nonResolver
	case f.Op == probe.OpConnect:
		// Other addresses are asked by the schedule, and mostly other ports, too.
		if !timedOut(f) {
			return nil
		}
		if port := around.otherPort(c.Messenger, at); port != 0 {
			return []arm{{AskOtherPort, probe.ProtoTCP, probe.TCP{Addr: netip.AddrPortFrom(at.Addr(), port)}, gate}}
		}
		return nil
	}
	switch q := probe.Bare(c.Prober).(type) {
	case probe.TLS:
		if certificate(f.Failure) {
			return nil
		}
		arms := []arm{
			{AskNeutralName, probe.ProtoTLS, probe.TLS{Addr: at, ServerName: neutralName, ALPN: q.ALPN, Hello: q.Hello, Trust: any}, gate},
			{AskNoName, probe.ProtoTLS, probe.TLS{Addr: at, ALPN: q.ALPN, Hello: q.Hello, Trust: any}, gate},
			{AskOtherHello, probe.ProtoTLS, probe.BrowserHello{Addr: at, ServerName: q.ServerName, ALPN: q.ALPN}, ""},
			{AskSplitHello, probe.ProtoTLS, probe.TLS{Addr: at, ServerName: q.ServerName, ALPN: q.ALPN, Hello: q.Hello, Split: probe.SplitRecord, Trust: any}, ""},
		}
		for _, l := range around.lenders {
			if l.Addr().Is4() == at.Addr().Is4() {
				there := probe.TLS{Addr: l, ServerName: q.ServerName, ALPN: q.ALPN, Hello: q.Hello, Trust: any}
				return append(arms, arm{AskElsewhere, probe.ProtoTLS, there, l.Addr().String() + "|" + q.ServerName})
			}
		}
		return arms
	case probe.HTTP:
		if q.Plain || q.Version == "3" || certificate(f.Failure) {
			return nil
		}
		n := probe.HTTP{Addr: at, Host: neutralName, ServerName: neutralName, Method: q.Method, Path: "/", Trust: any}
		return []arm{{AskNeutralName, probe.ProtoHTTP, n, gate}}
	case probe.QUIC:
		return []arm{
			{AskQUICPing, probe.ProtoQUIC, probe.QUICPing{Addr: at}, gate},
			{AskQUICNeutral, probe.ProtoQUIC, probe.QUIC{Addr: at, ServerName: neutralName, ALPN: q.ALPN, Hello: q.Hello, Trust: any}, gate},
		}
	case probe.MTProto, probe.Noise:
		if f.TLS != nil || slices.ContainsFunc(r.Steps, func(s probe.Step) bool { return s.Op == probe.OpTLSHandshake }) {
			return nil // bytes outside of TLS say nothing of those inside
		}
		return []arm{
			{AskOtherBytes, probe.ProtoTCP, probe.Bytes{Addr: at}, gate},
			{AskNoise, probe.ProtoTCP, probe.Bytes{Addr: at, Noise: q.(interface{ FirstBytes() int }).FirstBytes()}, gate},
		}
	case probe.Transfer:
		if f.Op != probe.OpTransfer {
			return nil
		}
		small, neutral := q, q
		small.Addr, small.Bytes = at, 1024
		neutral.Addr, neutral.ServerName, neutral.Host, neutral.Trust = at, neutralName, neutralName, any
		return []arm{{AskSmall, probe.ProtoTransfer, small, ""}, {AskNeutralName, probe.ProtoTransfer, neutral, gate}}
	}
	return nil
}

// nonResolver is the question whether somebody answers queries that were sent
// to nobody: the name, asked of an address of the messenger's own that runs no
// resolver. Any valid answer proves that queries are intercepted on the path. A
// datagram may be lost, so a second address is asked about a second name.
func nonResolver(records []Record, messenger string) []Question {
	var failing []*Record
	var addrs []netip.Addr
	for i := range records {
		r := &records[i]
		if r.Check.Messenger != messenger || len(r.Results) == 0 {
			continue
		}
		if d, ok := r.Check.Prober.(probe.DNS); ok {
			if d.Server.Name == probe.System && r.lastFailure() != nil && len(failing) < perFunction {
				failing = append(failing, r)
			}
			continue
		}
		if a := r.Results[0].Addr().Addr(); r.Check.Family == probe.IP4 && a.IsValid() && len(addrs) < perFunction && !slices.Contains(addrs, a) {
			addrs = append(addrs, a)
		}
	}
	var qs []Question
	for i, r := range failing {
		if len(addrs) == 0 {
			break
		}
		a := addrs[i%len(addrs)]
		d := r.Check.Prober.(probe.DNS)
		d.Server = probe.Server{Name: string(AskNonResolver), Transport: probe.OverUDP, Addr: netip.AddrPortFrom(a, 53)}
		c := r.Check
		c.Target += "," + string(AskNonResolver)
		c.Prober, c.Gate = d, a.String()+"|dns"
		c.Timeout = min(c.Timeout, 5*time.Second)
		qs = append(qs, Question{Of: r.Check.ID(), Ask: AskNonResolver, About: a, Check: c})
	}
	return qs
}

// Answered says whether something came back, whatever it was: a certificate
// for another name, an alert, an error page, a connection closed after the
// bytes had arrived. It is what an arm asks, where only silence or a reset is
// the finding.
func (a *Arm) Answered() bool {
	if a == nil {
		return false
	}
	f := a.Result.Failed()
	if f == nil {
		return len(a.Result.Steps) > 0
	}
	switch f.Failure {
	case probe.FailureTimeout, probe.FailureTimedOut, probe.FailureInterrupted, probe.FailureConnectionReset:
		// A server may reset what it does not understand; then it has
		// acknowledged the bytes first.
		return f.Failure == probe.FailureConnectionReset && f.TCP != nil && f.TCP.BytesAcked > 1
	case probe.FailureConnectionRefused, probe.FailureHostUnreachable, probe.FailureNetworkUnreachable:
		return false
	}
	return !f.Failure.Local()
}

// weight orders arms by how much their answer says: none, an end, a refusal, more
// than fits in one packet.
func (a *Arm) weight() int {
	switch {
	case !a.Answered():
		return 0
	case !a.says():
		return 1
	case a.short():
		return 2
	}
	return 3
}

// short says that what came back fits in one small packet: a refusal.
func (a *Arm) short() bool {
	for i := range a.Result.Steps {
		if t := a.Result.Steps[i].TCP; t != nil && t.BytesReceived > 1000 {
			return false
		}
	}
	return true
}

// data says that bytes came back, and not just an end; a FIN counts as one.
func (a *Arm) data() bool {
	for i := range a.Result.Steps {
		if t := a.Result.Steps[i].TCP; t != nil && t.BytesReceived > 1 {
			return true
		}
	}
	return false
}

// says says that something was said, and the connection not just ended.
func (a *Arm) says() bool {
	f := a.Result.Failed()
	return f == nil || a.Answered() && f.Failure != probe.FailureEOF && f.Failure != probe.FailureConnectionReset
}
