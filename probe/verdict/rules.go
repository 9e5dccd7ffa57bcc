package verdict

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/messenger-probe/messenger-probe/probe"
)

// A rule finds one mechanism in what is known of one messenger. It looks only
// at checks that fail persistently, and names its precondition and source.
type rule struct {
	name   string
	needs  string // the precondition, for a reader
	source string // where the signature is documented
	find   func(*file) []finding
	slow   bool // it looks at what works, too
}

// rules is every rule, in order of precedence: a failure is explained by the
// first rule that finds it, so what comes first on a connection's way comes
// first here, and what the wire itself proves before what a comparison shows.
var rules = [...]rule{
	{"two answers", "one UDP query drew two different valid replies", "GFWatch, USENIX Security 2021; OONI ts-021", injected, false},
	{"hijack", "an address without a resolver answers a query, or UDP and TCP to one resolver differ", "net4people/bbs#657", hijacked, false},
	{"forged address", "the answer is a bogon, or TLS at it is somebody else's while other resolvers lead to the real one", "OONI ts-021", forgedAnswer, false},
	{"omission", "a resolver denies a name that independent resolvers answer", "net4people/bbs#580", omitted, false},
	{"silence for a name", "a resolver that answers other names is silent for this one", "Censored Planet, Satellite", dropped, false},
	{"lossy way", "connections to a network come about late or now and then, those to controls do not", "RFC 6298 §2; telegramdesktop/tdesktop#30274", lossyWay, true},
	{"port", "one port of an address is silent, another answers", "telemt/telemt#680, 9seconds/mtg#470", portBlocked, false},
	{"reset to SYN", "a refusal comes earlier than a round trip", "Ensafi et al., PETS 2015", refusedEarly, false},
	{"refusal", "the host itself refuses, a round trip away", "RFC 9293 §3.10.7.1", refused, false},
	{"address", "an address is silent on every port while its neighbours answer", "TSPU, IMC 2022", addressSilent, false},
	{"forged certificate", "a chain that no trusted root signed", "OONI Kazakhstan 2023", forgedCertificate, false},
	{"expired certificate", "the certificate is out of date, its name right", "RFC 5280 §4.1.2.5", expired, false},
	{"name in the ClientHello", "the address answers another name, or none, but not this one", "TSPU, IMC 2022; OONI ts-024", nameBlocked, false},
	{"plain HTTP", "a redirect to somebody else, or a block page", "OONI ts-017", stub, false},
	{"protocol", "the port answers other bytes, or another transport, but not the messenger's own", "mtg#547; telemt#617", protocolBlocked, false},
	{"QUIC", "QUIC fails where TCP works; version negotiation and a neutral name tell how", "net4people/bbs#108, #654", quicBlocked, false},
	{"calls", "the messenger's relays are silent, neutral relays answer", "nDPI PR 2671; OONI ts-025", callsBlocked, false},
	{"freeze", "a transfer stops for good after some KB, a small one passes", "net4people/bbs#490; Cloudflare 2025-06-26", frozen, false},
	{"throttling", "a transfer is many times slower than one to a control", "Xue et al., IMC 2021; OONI dd-007", throttled, true},
	{"lossy calls", "relays answer first and then lose the packets of a call, neutral relays do not", "telegramdesktop/tdesktop#30274", lossyCalls, true},
	{"server errors", "everything that fails gets an answer that says so", "RFC 9110 §15.6", serverErrors, false},
	{"hanging server", "the peer has acknowledged all that was sent", "Linux TCP_INFO", hanging, false},
}

// ── words ────────────────────────────────────────────────────────────────────

// how says how a step failed, for a person.
func how(s *probe.Step) string {
	what := strings.ReplaceAll(string(s.Op), "_", " ")
	switch s.Failure {
	case probe.FailureTimeout, probe.FailureTimedOut:
		return "times out at " + what
	case probe.FailureConnectionReset:
		return "is reset at " + what
	case probe.FailureConnectionRefused:
		return "is refused"
	case probe.FailureEOF:
		return "is closed at " + what
	case probe.FailureDNSNXDOMAIN:
		return "does not exist says the resolver"
	}
	return fmt.Sprintf("fails at %s (%s)", what, s.Failure)
}

// failures counts what fails at one endpoint, by how.
func failures(fs []*fact) string {
	n := map[string]int{}
	for _, f := range fs {
		n[f.Check.Protocol+" "+how(f.step)]++
	}
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(n)) {
		if n[k] > 1 {
			parts = append(parts, fmt.Sprintf("%s (%d times)", k, n[k]))
		} else {
			parts = append(parts, k)
		}
	}
	return strings.Join(parts, ", ")
}

// some names the first few of a list.
func some(list []string) string {
	list = slices.Compact(slices.Sorted(slices.Values(list)))
	const most = 4
	if len(list) > most {
		return fmt.Sprintf("%s and %d more", strings.Join(list[:most], ", "), len(list)-most)
	}
	return strings.Join(list, ", ")
}

// about makes the sentence of a finding, in which {} is what it is about: of all
// that it explains, the facts of one function.
func about(what func([]*fact) string, format string, args ...any) func([]*fact) string {
	say := fmt.Sprintf(format, args...)
	return func(fs []*fact) string {
		if what == nil {
			return say
		}
		return strings.Replace(say, "{}", what(fs), 1)
	}
}

// hosts names those of facts that were looked up.
func hosts(fs []*fact) string {
	var list []string
	for _, f := range fs {
		switch q := f.Check.Prober.(type) {
		case probe.ByName:
			list = append(list, q.Host)
		case probe.DNS:
			list = append(list, q.Host)
		}
	}
	return some(list)
}

// serverNames names those that facts send.
func serverNames(fs []*fact) string {
	var list []string
	for _, f := range fs {
		list = append(list, serverName(f))
	}
	return some(list)
}

// endpoints names those of facts.
func endpoints(fs []*fact) string {
	var list []string
	for _, f := range fs {
		list = append(list, f.Check.Endpoint)
	}
	return some(list)
}

// places is the addresses of facts, the ports of each together.
func places(fs []*fact) string {
	by := map[netip.Addr]map[uint16]bool{}
	for _, f := range fs {
		a := f.addr.Addr()
		if by[a] == nil {
			by[a] = map[uint16]bool{}
		}
		by[a][f.addr.Port()] = true
	}
	var list []string
	for a, ps := range by {
		list = append(list, fmt.Sprintf("%s %s", a, ports(ps)))
	}
	return some(list)
}

// times counts in how many runs facts failed.
func times(fs []*fact) string {
	failed, counted := 0, 0
	for _, f := range fs {
		for i := range f.Results {
			switch f.Results[i].Outcome() {
			case probe.Fail:
				failed++
				counted++
			case probe.OK:
				counted++
			}
		}
	}
	return fmt.Sprintf("%d of %d tries", failed, counted)
}

func ports(ps map[uint16]bool) string {
	var s []string
	for _, p := range slices.Sorted(maps.Keys(ps)) {
		s = append(s, fmt.Sprintf(":%d", p))
	}
	return strings.Join(s, ", ")
}

// ── predicates ───────────────────────────────────────────────────────────────

func timedOut(s *probe.Step) bool {
	return s != nil && (s.Failure == probe.FailureTimeout || s.Failure == probe.FailureTimedOut)
}

// sure is high where a second endpoint, name or address agrees, else medium.
func sure(n int) Confidence {
	if n > 1 {
		return High
	}
	return Medium
}

// roundTrip is the shortest time in which anybody at this address has answered
// a connect or a segment; where nobody has, in its own small network (own is
// false); 0 where nobody has there either. A connect of a second or more had
// its SYN sent again (RFC 6298 §2) and measures nothing.
func (s *scene) roundTrip(a netip.Addr) (rtt time.Duration, own bool) {
	if s.near == nil {
		s.measure()
	}
	if d := s.near[a]; d > 0 {
		return d, true
	}
	return s.sites[site(a)], false
}

func (s *scene) measure() {
	s.near, s.sites = map[netip.Addr]time.Duration{}, map[netip.Prefix]time.Duration{}
	note := func(a netip.Addr, d time.Duration) {
		if was := s.near[a]; d > 0 && d < sentAgain && (was == 0 || d < was) {
			s.near[a] = d
		}
	}
	for _, facts := range [...][]*fact{s.everybody, s.controls} {
		for _, f := range facts {
			if f.Nearest.IsValid() {
				note(f.Nearest, f.Fastest)
			}
			for i := range f.Results {
				for j := range f.Results[i].Steps {
					t := &f.Results[i].Steps[j]
					if t.Op != probe.OpConnect || t.Failure != "" || !t.Addr.IsValid() {
						continue
					}
					note(t.Addr.Addr(), t.Took)
					if t.TCP != nil {
						note(t.Addr.Addr(), t.TCP.MinRTT)
					}
				}
			}
		}
	}
	for a, d := range s.near {
		if was := s.sites[site(a)]; was == 0 || d < was {
			s.sites[site(a)] = d
		}
	}
}

// site is the block in which all addresses are likely to be in one place. A
// larger one may be spread over the world (anycast, points of presence).
func site(a netip.Addr) netip.Prefix {
	bits := 24
	if a.Is6() {
		bits = 48
	}
	p, _ := a.Prefix(bits)
	return p
}

// failed yields the failing facts that a func wants.
func (fl *file) failed(want func(*fact) bool) []*fact {
	var out []*fact
	for _, f := range fl.failing {
		if want(f) {
			out = append(out, f)
		}
	}
	return out
}

// functionWorks says whether some other function of the messenger does.
func (fl *file) functionWorks(not string) bool {
	return slices.ContainsFunc(fl.facts, func(f *fact) bool {
		return f.works() && proof(f) > opens && f.Check.Function != not
	})
}

// waysOpen says whether the ways elsewhere are open: of the networks of controls
// and of everybody's functions but this one no more than one in ten is silent.
// Else what is silent may be so for want of a way.
func (fl *file) waysOpen(not string) bool {
	answers := map[netip.Prefix]bool{}
	for _, f := range slices.Concat(fl.everybody, fl.controls) {
		own := f.Check.Messenger == fl.messenger && f.Check.Function == not
		if own || !f.tcp || f.Check.Function == probe.Positive {
			continue
		}
		n := network(f.addr.Addr())
		answers[n] = answers[n] || f.works() || f.step.Op != probe.OpConnect || f.step.Failure == probe.FailureConnectionRefused
	}
	silent := 0
	for _, ok := range answers {
		if !ok {
			silent++
		}
	}
	return silent*10 <= len(answers)
}

// ── DNS ──────────────────────────────────────────────────────────────────────

// lookups is what every resolver said of each name, working and not.
type said struct {
	fact      *fact
	resolver  string
	transport string
	info      *probe.DNSInfo
}

// A question is what resolvers are asked.
type question struct {
	host string
	kind uint16 // of records
}

// lookups is by name and type what the resolvers said.
func (fl *file) lookups() map[question][]said {
	if fl.said != nil {
		return fl.said
	}
	fl.said = map[question][]said{}
	for _, f := range fl.facts {
		if f.Check.Protocol != probe.ProtoDNS {
			continue
		}
		for i := range f.res.Steps {
			if d := f.res.Steps[i].DNS; d != nil && f.res.Steps[i].Op == probe.OpResolve {
				k := question{d.Name, d.Type}
				fl.said[k] = append(fl.said[k], said{f, d.Resolver, d.Transport, d})
			}
		}
	}
	return fl.said
}

// byName is the failing checks whose lookup of this name failed or led astray.
func (fl *file) byName(name string, want func(*fact) bool) []*fact {
	if fl.hosts == nil {
		fl.hosts = map[string][]*fact{}
		for _, f := range fl.failing {
			if b, ok := f.Check.Prober.(probe.ByName); ok {
				h := strings.TrimSuffix(b.Host, ".")
				fl.hosts[h] = append(fl.hosts[h], f)
			}
		}
	}
	var out []*fact
	for _, f := range fl.hosts[strings.TrimSuffix(name, ".")] {
		if want(f) {
			out = append(out, f)
		}
	}
	return out
}

func atResolve(f *fact) bool { return f.step.Op == probe.OpResolve }

// counted is the replies that could be an answer to the query.
func counted(d *probe.DNSInfo) []probe.DNSReply {
	var rs []probe.DNSReply
	for _, r := range d.Replies {
		if r.Counts {
			rs = append(rs, r)
		}
	}
	return rs
}

func disjoint(a, b []netip.Addr) bool {
	return !slices.ContainsFunc(a, func(x netip.Addr) bool { return slices.Contains(b, x) })
}

// answers is all addresses that trustworthy ways lead to: encrypted ones, and
// TCP to a foreign resolver.
func trustworthy(s said) bool {
	return (s.transport == probe.OverHTTPS || s.transport == probe.OverTLS || s.transport == probe.OverTCP) && len(s.info.Answers) > 0 && s.fact.works()
}

func injected(fl *file) []finding {
	var fs []*fact
	var names []string
	for q, ss := range fl.lookups() {
		hit := false
		for _, s := range ss {
			if len(s.info.Replies) < 2 {
				continue
			}
			rs := counted(s.info)
			// After a retransmission two honest answers may differ.
			if s.transport == probe.OverUDP && s.info.Queries == 1 && len(rs) > 1 && slices.ContainsFunc(rs[1:], func(r probe.DNSReply) bool {
				return r.RCode != rs[0].RCode || len(r.Addrs) > 0 && len(rs[0].Addrs) > 0 && disjoint(r.Addrs, rs[0].Addrs)
			}) {
				hit = true
				if !s.fact.works() {
					fs = append(fs, s.fact)
				}
			}
		}
		if hit {
			host := q.host
			names = append(names, host)
			// What the forged answer led to fails in whatever way.
			fs = append(fs, fl.byName(host, func(*fact) bool { return true })...)
		}
	}
	if len(names) == 0 {
		return nil
	}
	return []finding{{DNSInjection, Confirmed, true, fs,
		about(hosts, "two different answers to one query for {}: somebody on the path answers before the resolver")}}
}

func hijacked(fl *file) []finding {
	var fs []*fact
	var names []string
	confirmed := false
	for _, f := range fl.facts {
		if a := f.ask(AskNonResolver); a != nil {
			for i := range a.Result.Steps {
				if d := a.Result.Steps[i].DNS; d != nil && len(counted(d)) > 0 {
					confirmed = true
				}
			}
		}
	}
	for q, ss := range fl.lookups() {
		host := q.host
		for _, u := range ss {
			if u.transport != probe.OverUDP || u.fact.works() || len(counted(u.info)) == 0 {
				continue
			}
			// The same resolver denies over UDP what it answers over TCP, DoT or DoH.
			honest := slices.ContainsFunc(ss, func(t said) bool {
				return t.resolver == u.resolver && t.transport != probe.OverUDP && trustworthy(t)
			})
			if honest || confirmed {
				names = append(names, host)
				fs = append(fs, u.fact)
				fs = append(fs, fl.byName(host, atResolve)...)
			}
		}
	}
	if len(names) == 0 {
		return nil
	}
	c, why := sure(len(slices.Compact(slices.Sorted(slices.Values(names))))), "the same resolver answers over TCP or encrypted"
	if confirmed {
		c, why = Confirmed, "even an address that runs no resolver answers"
	}
	return []finding{{DNSHijack, c, true, fs, about(hosts, "queries for {} are answered by somebody else: %s", why)}}
}

func forgedAnswer(fl *file) []finding {
	type lie struct {
		host string
		said said
	}
	var lies []lie
	stubs := map[netip.Addr]bool{} // where somebody else's certificate stands, or nobody can be
	for q, ss := range fl.lookups() {
		host := q.host
		var good []netip.Addr
		for _, s := range ss {
			if trustworthy(s) {
				good = append(good, s.info.Answers...)
			}
		}
		for _, s := range ss {
			bogon := s.fact.step != nil && s.fact.step.Failure == probe.FailureDNSBogon
			if !bogon && (trustworthy(s) || len(good) == 0 || len(s.info.Answers) == 0 || !disjoint(s.info.Answers, good)) {
				continue
			}
			lies = append(lies, lie{host, s})
			// Another address alone is a CDN's habit: somebody else's certificate
			// must stand there.
			for _, f := range fl.byName(host, func(f *fact) bool { return certificate(f.step.Failure) }) {
				if slices.Contains(s.info.Answers, f.addr.Addr()) {
					stubs[f.addr.Addr()] = true
				}
			}
			if bogon {
				for _, a := range s.info.Answers {
					stubs[a] = true
				}
			}
		}
	}
	var fs []*fact
	var names []string
	for _, l := range lies {
		bogon := l.said.fact.step != nil && l.said.fact.step.Failure == probe.FailureDNSBogon
		if !bogon && !slices.ContainsFunc(l.said.info.Answers, func(a netip.Addr) bool { return stubs[a] }) {
			continue
		}
		names = append(names, l.host)
		if !l.said.fact.works() {
			fs = append(fs, l.said.fact)
		}
		// Whatever goes wrong where the lie leads to follows from it.
		fs = append(fs, fl.byName(l.host, func(f *fact) bool { return atResolve(f) || slices.Contains(l.said.info.Answers, f.addr.Addr()) })...)
	}
	if len(names) == 0 {
		return nil
	}
	return []finding{{DNSForgery, Confirmed, true, fs, about(hosts, "the resolver leads {} to an address that is not theirs")}}
}

// independent is the resolvers that answer a name by ways that are hard to
// forge, and failing that over UDP to somebody other than the one in question.
func independent(ss []said, not said) map[string]bool {
	m := map[string]bool{}
	for _, s := range ss {
		if s.resolver != not.resolver && s.resolver != probe.System && s.fact.works() {
			m[s.resolver] = true
		}
	}
	return m
}

func omitted(fl *file) []finding {
	return resolverDiffers(fl, DNSOmission, func(s said) bool {
		if s.fact.works() {
			return false
		}
		switch s.fact.step.Failure {
		case probe.FailureDNSNXDOMAIN, probe.FailureDNSRefused, probe.FailureDNSServfail, probe.FailureDNSServerMisbehaving:
			return true
		case probe.FailureDNSNoAnswer:
			return s.info.Type == 1
		}
		return false
	}, "{}: the %s resolver denies the name, %s answer it")
}

func dropped(fl *file) []finding {
	return resolverDiffers(fl, DNSDrop, func(s said) bool {
		return !s.fact.works() && timedOut(s.fact.step) && len(counted(s.info)) == 0
	}, "{}: the %s resolver is silent for the name and answers others, %s answer it")
}

// answersOthers says whether the resolver answers names of controls: one that
// answers nothing, or nobody from here, denies no name in particular.
func (fl *file) answersOthers(s said) bool { return fl.resolvers[s.fact.addrOfServer()] }

// addrOfServer is the resolver that a dns check asks.
func (f *fact) addrOfServer() netip.AddrPort {
	if d, ok := f.Check.Prober.(probe.DNS); ok {
		return d.Server.Addr
	}
	return netip.AddrPort{}
}

// answersFor says whether the resolver has answered for the host, of other records,
// since it began to be silent: filters know names, not types.
func (fl *file) answersFor(silent said, host string) bool {
	for q, ss := range fl.lookups() {
		if q.host == host && slices.ContainsFunc(ss, func(s said) bool {
			return s.resolver == silent.resolver && s.transport == silent.transport && s.fact.works() && !s.fact.res.Start.Before(silent.fact.Since)
		}) {
			return true
		}
	}
	return false
}

// resolverDiffers finds names for which one resolver does what bad says while
// independent ones answer.
func resolverDiffers(fl *file, m Mechanism, bad func(said) bool, format string) []finding {
	var fs []*fact
	names := map[string]bool{}
	guilty := map[string]bool{}
	witnesses := map[string]bool{}
	for q, ss := range fl.lookups() {
		host := q.host
		for _, s := range ss {
			if !bad(s) || !fl.answersOthers(s) {
				continue
			}
			others := independent(ss, s)
			if len(others) == 0 {
				continue
			}
			if m == DNSDrop && (fl.lossyLine() || fl.answersFor(s, host)) {
				continue // a few datagrams may well be lost
			}
			names[host], guilty[s.resolver] = true, true
			maps.Copy(witnesses, others)
			fs = append(fs, s.fact)
			if s.resolver == probe.System {
				fs = append(fs, fl.byName(host, atResolve)...)
			}
		}
	}
	if len(names) == 0 {
		return nil
	}
	return []finding{{m, sure(len(names) * len(witnesses)), true, fs, about(hosts, format,
		some(slices.Collect(maps.Keys(guilty))), some(slices.Collect(maps.Keys(witnesses))))}}
}

// ── addresses and ports ──────────────────────────────────────────────────────

// atConnect says that nobody answered the SYN.
func atConnect(f *fact) bool { return f.tcp && f.step.Op == probe.OpConnect && timedOut(f.step) }

// doors are the TCP ports of an address that accept connections and those that
// are silent.
type doors struct{ open, shut map[uint16]bool }

// connected is by address what is known of its ports.
func (fl *file) connected() map[netip.Addr]doors {
	if fl.doors != nil {
		return fl.doors
	}
	fl.doors = map[netip.Addr]doors{}
	for _, f := range fl.facts {
		if !f.tcp {
			continue
		}
		a, ok := fl.doors[f.addr.Addr()]
		if !ok {
			a = doors{map[uint16]bool{}, map[uint16]bool{}}
			fl.doors[f.addr.Addr()] = a
		}
		switch {
		case f.works() || f.step.Op != probe.OpConnect:
			a.open[f.addr.Port()] = true
		case timedOut(f.step):
			a.shut[f.addr.Port()] = true
			a.other(f.ask(AskOtherPort))
		}
	}
	return fl.doors
}

// other notes what the port says that was asked for the sake of another.
func (d doors) other(a *Arm) {
	if a == nil || len(a.Result.Steps) == 0 {
		return
	}
	f, port := a.Result.Failed(), a.Result.Steps[0].Addr.Port()
	switch {
	case f == nil:
		d.open[port] = true
	case timedOut(f):
		d.shut[port] = true
	}
}

func portBlocked(fl *file) []finding {
	connected := fl.connected()
	var fs, left, mixed []*fact
	proved, silent := map[uint16]bool{}, map[uint16]bool{} // ports
	for _, f := range fl.failed(atConnect) {
		d, port := connected[f.addr.Addr()], f.addr.Port()
		switch {
		case d.open[port]:
			mixed = append(mixed, f)
		case len(d.open) > 0:
			fs = append(fs, f)
			proved[port] = true
		case len(d.shut) > 1:
			silent[port] = true
		default:
			left = append(left, f)
		}
	}
	if len(fs) == 0 {
		return nil
	}
	addrs, open := map[netip.Addr]bool{}, map[uint16]bool{}
	for _, f := range fs {
		addrs[f.addr.Addr()] = true
		maps.Copy(open, connected[f.addr.Addr()].open)
	}
	for _, f := range fs {
		delete(open, f.addr.Port())
	}
	if crosswise(addrs, connected) || len(mixed) > 1 && 2*len(mixed) >= len(fs) {
		return []finding{{PacketLoss, sure(len(addrs) / 2), false, append(fs, mixed...), about(places,
			"{}: of the connections to one port, or to the ports of one address, some meet silence each time and others none: part of the flows is lost")}}
	}
	// Not every address is asked about another port. What is silent on the same
	// one joins, unless an address has been found silent on several.
	for _, f := range left {
		if port := f.addr.Port(); proved[port] && !silent[port] {
			fs = append(fs, f)
		}
	}
	// The firewall of one site does the same to its own addresses.
	return []finding{{PortBlock, sure(len(addrs)), several(addrs) && !fl.shaky(), fs, func(fs []*fact) string {
		return fmt.Sprintf("%s times out at connect in %s, while %s there answers", places(fs), times(fs), ports(open))
	}}}
}

// crosswise says that of two addresses each is silent on a port on which the other
// answers: no rule about ports does that, but some flows are lost and others are
// not.
func crosswise(addrs map[netip.Addr]bool, connected map[netip.Addr]doors) bool {
	apart := func(a, b doors) bool {
		for p := range a.shut {
			if !a.open[p] && b.open[p] {
				return true
			}
		}
		return false
	}
	for a := range addrs {
		for b := range addrs {
			if a != b && apart(connected[a], connected[b]) && apart(connected[b], connected[a]) {
				return true
			}
		}
	}
	return false
}

func refusedEarly(fl *file) []finding {
	var fs []*fact
	c := Medium
	for _, f := range fl.failed(func(f *fact) bool {
		return f.tcp && f.step.Op == probe.OpConnect && f.step.Failure == probe.FailureConnectionRefused
	}) {
		rtt, own := fl.roundTrip(f.addr.Addr())
		// A neighbour may be nearer to us by other ways, so it must be by far.
		if own && tooSoon(f.step.Took, rtt) || !own && tooSoon(2*f.step.Took, rtt) {
			fs = append(fs, f)
			if own {
				c = Confirmed
			}
		}
	}
	if len(fs) == 0 {
		return nil
	}
	return []finding{{TCPReset, c, true, fs, about(places, "{}: connections are refused in less than half of a round trip, so not by the server")}}
}

// tooSoon says that an answer cannot have come all the way. Below 4 ms nothing
// is that certain.
func tooSoon(after, rtt time.Duration) bool { return rtt > 4*time.Millisecond && after < rtt/2 }

func refused(fl *file) []finding {
	fs := fl.failed(func(f *fact) bool { return f.step.Failure == probe.FailureConnectionRefused })
	if len(fs) == 0 {
		return nil
	}
	return []finding{{ServiceOutage, Low, false, fs, about(places, "{}: connections are refused, as by a host on which no server runs")}}
}

func addressSilent(fl *file) []finding {
	connected := fl.connected()
	type pool struct {
		facts        []*fact
		asked, quiet map[netip.Addr]bool
		services     map[string]bool
	}
	pools := map[string]*pool{} // by function
	for _, f := range fl.facts {
		if !f.tcp {
			continue
		}
		p := pools[f.Check.Function]
		if p == nil {
			p = &pool{asked: map[netip.Addr]bool{}, quiet: map[netip.Addr]bool{}, services: map[string]bool{}}
			pools[f.Check.Function] = p
		}
		p.asked[f.addr.Addr()] = true
		if !f.works() && atConnect(f) && len(connected[f.addr.Addr()].open) == 0 {
			p.facts = append(p.facts, f)
			p.quiet[f.addr.Addr()] = true
			p.services[service(f)] = true
		}
	}
	var found []finding
	for _, fn := range slices.Sorted(maps.Keys(pools)) {
		p := pools[fn]
		if len(p.facts) == 0 {
			continue
		}
		var where []string
		for a := range p.quiet {
			where = append(where, a.String())
		}
		neighbours := fl.neighbours(p.quiet)
		fd := finding{UnknownCause, Low, false, p.facts, nil}
		say := fmt.Sprintf("%d of %d addresses of %s answer on no port: %s", len(p.quiet), len(p.asked), fn, some(where))
		switch {
		case len(neighbours) == 0:
		// Several services in several networks do not fail together, and while
		// neighbours in the same ones answer it is not the way there. Where all of
		// the messenger is silent it may as well be gone.
		case len(p.services) > 1 && several(p.quiet) && fl.functionWorks(fn) && fl.waysOpen(fn):
			fd.mechanism, fd.confidence, fd.interference = IPBlock, sure(len(neighbours)), true
			say += fmt.Sprintf("; %s in the same networks answer", some(neighbours))
		default:
			fd.mechanism = IPBlock
			say += fmt.Sprintf("; %s beside them answer", some(neighbours))
		}
		fd.say = about(nil, "%s", say)
		found = append(found, fd)
	}
	return found
}

// service is what stands or falls together: a host, or an endpoint without one.
func service(f *fact) string {
	if b, ok := f.Check.Prober.(probe.ByName); ok {
		return b.Host
	}
	return f.Check.Endpoint
}

// several says whether addresses are in several networks; the two families of
// one host are not.
func several(addrs map[netip.Addr]bool) bool {
	first := map[bool]netip.Prefix{}
	for a := range addrs {
		was, ok := first[a.Is6()]
		if ok && was != network(a) {
			return true
		}
		first[a.Is6()] = network(a)
	}
	return false
}

// network is the block that an address is likely to be routed with.
func network(a netip.Addr) netip.Prefix {
	bits := 20
	if a.Is6() {
		bits = 40
	}
	p, _ := a.Prefix(bits)
	return p
}

// neighbours is who answers in the networks of these addresses.
func (fl *file) neighbours(addrs map[netip.Addr]bool) []string {
	nets := map[netip.Prefix]bool{}
	for a := range addrs {
		nets[network(a)] = true
	}
	var out []string
	for _, f := range slices.Concat(fl.facts, fl.controls) {
		if f.tcp && !addrs[f.addr.Addr()] && nets[network(f.addr.Addr())] && (f.works() || f.step.Op != probe.OpConnect) {
			out = append(out, f.addr.Addr().String())
		}
	}
	return slices.Compact(slices.Sorted(slices.Values(out)))
}

// ── TLS ──────────────────────────────────────────────────────────────────────

func forgedCertificate(fl *file) []finding {
	fs := fl.failed(func(f *fact) bool {
		// A key of MTProto's or a root of Noise's that we do not know is the
		// messenger's to change.
		if f.step.Op != probe.OpTLSHandshake && f.step.Op != probe.OpQUICHandshake {
			return false
		}
		if f.step.Failure == probe.FailureSSLUnknownAuthority {
			return true
		}
		// A name that does not fit is a server's own mistake where the chain is
		// sound; the verification says the name first, so look at the chain.
		return f.step.Failure == probe.FailureSSLInvalidHostname && f.step.TLS != nil && len(f.step.TLS.Chain) > 0 && f.step.TLS.Chain[0].SelfSigned
	})
	if len(fs) == 0 {
		return nil
	}
	return []finding{{TLSMITM, Confirmed, true, fs, about(endpoints, "{}: a certificate that no trusted root signed; somebody else answers")}}
}

func expired(fl *file) []finding {
	fs := fl.failed(func(f *fact) bool { return f.step.Failure == probe.FailureSSLInvalidCertificate })
	if len(fs) == 0 {
		return nil
	}
	return []finding{{ServiceOutage, Medium, false, fs, about(endpoints, "{}: the certificate is out of date or not valid")}}
}

// serverName is the name that a check sends in its ClientHello.
func serverName(f *fact) string {
	switch q := probe.Bare(f.Check.Prober).(type) {
	case probe.TLS:
		return q.ServerName
	case probe.HTTP:
		if !q.Plain {
			return q.ServerName
		}
	case probe.WebSocket:
		return q.ServerName
	case probe.MTProto:
		if q.Transport == "websocket" {
			return q.ServerName
		}
	case probe.Noise:
		if q.Over == "websocket" {
			return q.ServerName
		}
	case probe.OneMe:
		return q.ServerName
	case probe.Transfer:
		return q.ServerName
	}
	return ""
}

// afterHello says that a TCP connection died at the ClientHello or after it.
func afterHello(f *fact) bool {
	if !f.tcp || certificate(f.step.Failure) || serverName(f) == "" {
		return false
	}
	switch f.step.Op {
	case probe.OpTLSHandshake, probe.OpRequest, probe.OpReply:
		return timedOut(f.step) || f.step.Failure == probe.FailureConnectionReset || f.step.Failure == probe.FailureEOF
	case probe.OpTransfer:
		// What comes further is for the freeze.
		t := moved(f.res)
		return timedOut(f.step) && t != nil && t.Bytes < freezeFrom
	}
	return false
}

// A signature is a mechanism and how sure it is.
type signature struct {
	m       Mechanism
	c       Confidence
	weak    bool // an innocent cause looks the same
	profile bool // told from two checks alone
}

// rank orders the signatures of one name: what the wire proves, then what is
// told by how far a connection came.
func (s signature) rank() int {
	switch {
	case s.m == "":
		return 10
	case s.c == Confirmed:
		return 0
	case s.weak:
		return 9
	}
	return 1 + slices.Index([]Mechanism{SNIDelayedDrop, TLSFingerprint, SNIReset, SNIDrop}, s.m)
}

// heard says that the peer has acknowledged all that we sent, so that the
// silence is not of what we sent: a server that hangs, or a filter of answers.
func heard(s *probe.Step) bool { return s.TCP != nil && s.TCP.Unacked == 0 && s.TCP.BytesAcked > 1 }

// tooEarly says that a reset or FIN came sooner than the server could have sent
// it, each time that one came.
func (fl *file) tooEarly(f *fact) bool {
	rtt, own := fl.roundTrip(f.addr.Addr())
	early := false
	for i := range f.Results {
		s := f.Results[i].Failed()
		if f.Results[i].Outcome() != probe.Fail || s.TLS == nil || s.TLS.FailedAfter == 0 {
			continue
		}
		if !own || !tooSoon(s.TLS.FailedAfter, rtt) {
			return false
		}
		early = true
	}
	return early
}

// otherName is the arm under another name, or under none, that tells more.
func (f *fact) otherName() *Arm {
	neutral, none := f.ask(AskNeutralName), f.ask(AskNoName)
	if none.weight() > neutral.weight() {
		return none
	}
	return neutral
}

// everywhere says that the name fails alike at an address that is not the
// messenger's, and that connects.
func (f *fact) everywhere() bool {
	a := f.ask(AskElsewhere)
	if a == nil || a.Answered() {
		return false
	}
	s := a.Result.Failed()
	return s != nil && s.Op == f.step.Op && s.Failure == f.step.Failure
}

// signatureOf is what a failure and its arms show of a name, if anything.
func (fl *file) signatureOf(f *fact) signature {
	neutral, other, split := f.otherName(), f.ask(AskOtherHello), f.ask(AskSplitHello)
	silent := timedOut(f.step)
	if f.step.Op == probe.OpTransfer {
		// Under another name as much comes as would have been asked for: an error
		// page would be too short to tell.
		if a := f.ask(AskNeutralName); a != nil {
			if t := moved(&a.Result); t != nil && t.Bytes > 2*freezeFrom && t.Bytes > 2*moved(f.res).Bytes {
				return signature{m: SNIDelayedDrop, c: Medium}
			}
		}
		return signature{}
	}
	if f.step.Op != probe.OpTLSHandshake {
		// The handshake came through. What we sent after it did not, and does
		// under another name: else the server has it, and hangs.
		if silent && f.step.TCP != nil && f.step.TCP.Unacked > 0 && neutral.Answered() {
			return signature{m: SNIDelayedDrop, c: Medium}
		}
		return signature{}
	}
	unanswered := f.step.TCP == nil || f.step.TCP.BytesReceived == 0
	// The other name drew a few bytes, a refusal, where the answer to this one
	// would be large packets: a way may lose those by itself.
	everywhere := f.everywhere()
	large := heard(f.step) && neutral.Answered() && neutral.short() && !everywhere
	switch {
	case !silent && fl.tooEarly(f):
		return signature{m: SNIReset, c: Confirmed}
	case silent && !unanswered && neutral.Answered():
		return signature{m: SNIDelayedDrop, c: Medium, weak: large}
	case f.step.TLS != nil && other.Answered() && other.says() && !split.Answered() && (!silent || unanswered):
		return signature{m: TLSFingerprint, c: Medium}
	case fl.otherProfile(f):
		// Of two ClientHellos the longer spans two packets, and a path that loses
		// large ones loses it without anybody's doing.
		return signature{m: TLSFingerprint, c: Medium, weak: silent && f.step.TLS.Hello != probe.HelloX25519, profile: true}
	case !neutral.Answered() && !everywhere:
		return signature{}
	// Who closes or resets whatever the name is not choosy about names.
	case (!silent || heard(f.step)) && !neutral.says() && !everywhere:
		return signature{}
	case !silent:
		return signature{m: SNIReset, c: Medium}
	}
	return signature{m: SNIDrop, c: Medium, weak: large}
}

// otherProfile says whether the same name at the same address answers to the
// other ClientHello of the schedule.
func (fl *file) otherProfile(f *fact) bool {
	mine, ok := probe.Bare(f.Check.Prober).(probe.TLS)
	return ok && f.step.TLS != nil && slices.ContainsFunc(fl.at(f.addr), func(g *fact) bool {
		q, ok := probe.Bare(g.Check.Prober).(probe.TLS)
		return ok && g.works() && q.ServerName == mine.ServerName && cmp.Or(q.Hello, probe.HelloGo) != cmp.Or(mine.Hello, probe.HelloGo)
	})
}

// at is the facts of an address and port.
func (fl *file) at(a netip.AddrPort) []*fact {
	if fl.places == nil {
		fl.places = map[netip.AddrPort][]*fact{}
		for _, f := range fl.facts {
			fl.places[f.addr] = append(fl.places[f.addr], f)
		}
	}
	return fl.places[a]
}

// nameBlocked compares each name with a neutral one at the same address, and
// each ClientHello with another.
func nameBlocked(fl *file) []finding {
	fs := fl.failed(afterHello)
	proved := map[string]signature{} // by name
	support, acked := map[string]int{}, map[string]signature{}
	passed := map[string]bool{}              // by name, whether the host had what proves it
	profiles := map[string]map[string]bool{} // by name, whose fingerprint it is
	shaky := fl.shaky()
	for _, f := range fs {
		n, s := serverName(f), fl.signatureOf(f)
		if s.m != "" {
			support[n]++
		}
		if shaky && timedOut(f.step) {
			s.weak = true
		}
		if s.rank() < proved[n].rank() {
			proved[n] = s
		}
		passed[n] = passed[n] || s.m != "" && heard(f.step)
		if s.m == TLSFingerprint {
			if profiles[n] == nil {
				profiles[n] = map[string]bool{}
			}
			profiles[n][f.step.TLS.Hello] = true
		}
		if f.step.Op == probe.OpTLSHandshake && timedOut(f.step) && heard(f.step) {
			if was, ok := acked[n]; !ok || s.rank() < was.rank() {
				acked[n] = s
			}
		}
	}
	for n, s := range proved {
		// A filter that drops a ClientHello drops it each time.
		if a, ok := acked[n]; ok && s.m == SNIDrop {
			s = a
		}
		// Over a line that loses packets one silence beside one answer is chance.
		if (s.m == SNIDrop || s.m == SNIDelayedDrop) && support[n] == 1 && fl.lossyLine() {
			s.weak = true
		}
		if proved[n] = s; s.m == "" {
			delete(proved, n)
		}
	}
	// Where names are filtered, and not always, one of two ClientHellos may pass by
	// chance.
	for n, s := range proved {
		if s.profile && slices.ContainsFunc(slices.Collect(maps.Values(proved)), func(o signature) bool { return !o.weak && o.m != TLSFingerprint }) {
			delete(proved, n)
		}
	}
	// A filter that lets what we send pass looks like a server that hangs: only
	// where one has been shown it is taken for that.
	names, mute := map[Mechanism]map[string]bool{}, map[Mechanism]bool{}
	for n, s := range proved {
		if names[s.m] == nil {
			names[s.m] = map[string]bool{}
		}
		names[s.m][n] = true
		mute[s.m] = mute[s.m] || !s.weak && (passed[n] || s.m == SNIDelayedDrop)
	}
	repeated := map[Mechanism]bool{} // a second name is treated the same, or one at another's address
	for m, ns := range names {
		repeated[m] = len(ns) > 1
	}
	by, elsewhere := map[Mechanism]*finding{}, map[Mechanism]bool{}
	for _, f := range fs {
		n := serverName(f)
		s, ok := proved[n]
		if !ok {
			// A name without arms of its own joins those that fail alike.
			i := slices.IndexFunc(Mechanisms[:], func(m Mechanism) bool { return names[m] != nil && alike(f, m, mute[m]) })
			if i < 0 {
				continue
			}
			s = signature{m: Mechanisms[i], c: Low, weak: true}
			names[s.m][n] = true
		}
		if s.m == TLSFingerprint && ok && (f.step.TLS == nil || !profiles[n][f.step.TLS.Hello]) {
			continue
		}
		fd := by[s.m]
		if fd == nil {
			fd = &finding{mechanism: s.m, confidence: Low}
			by[s.m] = fd
		}
		if f.everywhere() {
			repeated[s.m], elsewhere[s.m] = true, true
		}
		if s.c == Medium && repeated[s.m] {
			s.c = High
		}
		if slices.Index(Confidences[:], s.c) > slices.Index(Confidences[:], fd.confidence) {
			fd.confidence = s.c
		}
		fd.interference = fd.interference || !s.weak
		fd.explains = append(fd.explains, f)
	}
	var found []finding
	for _, m := range Mechanisms {
		if fd := by[m]; fd != nil {
			say := nameSentences[m]
			if elsewhere[m] {
				say += "; so it is at an address that is not the messenger's"
			}
			if !fd.interference {
				fd.confidence = Low
				say += "; a way that loses packets would look the same"
			}
			fd.say = about(serverNames, "%s", say)
			found = append(found, *fd)
		}
	}
	return found
}

var nameSentences = map[Mechanism]string{
	SNIReset:       "a ClientHello for {} is answered by a reset; the same address answers for another name",
	SNIDrop:        "a ClientHello for {} meets silence; the same address answers for another name",
	SNIDelayedDrop: "connections for {} die after some packets; the same address answers for another name",
	TLSFingerprint: "{} answers some programs' ClientHellos and not others'",
}

// alike says whether a failure looks like the mechanism; mute, that it has been
// shown to let pass what we send.
func alike(f *fact, m Mechanism, mute bool) bool {
	switch m {
	case SNIReset:
		return f.step.Failure == probe.FailureConnectionReset || f.step.Failure == probe.FailureEOF
	case SNIDrop:
		return timedOut(f.step) && (mute || !heard(f.step))
	case SNIDelayedDrop:
		return timedOut(f.step) && f.step.Op != probe.OpTLSHandshake && (mute || !heard(f.step))
	case TLSFingerprint:
		return f.step.Op == probe.OpTLSHandshake
	}
	return false
}

// ── what comes after ─────────────────────────────────────────────────────────

func stub(fl *file) []finding {
	fs := fl.failed(func(f *fact) bool {
		r := f.step.Reply
		return r != nil && serverName(f) == "" && (r.Redirect != "" || len(r.Marks) > 0)
	})
	if len(fs) == 0 {
		return nil
	}
	// A redirect alone may be the messenger's own new idea: several of its hosts
	// that lead to one place are not.
	led, marked := map[string]map[string]bool{}, false
	for _, f := range fs {
		r := f.step.Reply
		if led[r.Redirect] == nil {
			led[r.Redirect] = map[string]bool{}
		}
		led[r.Redirect][f.Check.Endpoint] = true
		marked = marked || len(r.Marks) > 0
	}
	several := false
	for to, from := range led {
		several = several || to != "" && len(from) > 1
	}
	const say = "plain HTTP to {} is answered by somebody else"
	switch {
	case marked:
		return []finding{{HTTPStub, Confirmed, true, fs, about(endpoints, say+"'s block page")}}
	case several:
		return []finding{{HTTPStub, Medium, true, fs, about(endpoints, say+", who sends all of them to one place")}}
	}
	return []finding{{HTTPStub, Low, false, fs, about(endpoints, "plain HTTP to {} leads elsewhere")}}
}

// speaks says that a check is in a messenger's own protocol, and how it is
// carried.
func speaks(f *fact) (protocol, transport string) {
	switch q := probe.Bare(f.Check.Prober).(type) {
	case probe.MTProto:
		return probe.ProtoMTProto, cmp.Or(q.Transport, "intermediate")
	case probe.Noise:
		return probe.ProtoNoise, cmp.Or(q.Over, "raw")
	case probe.OneMe:
		return probe.ProtoOneMe, q.Over
	}
	return "", ""
}

// protocolBlocked finds a messenger's own bytes swallowed where others pass: at
// the same port in another transport of the protocol, or other bytes, and inside
// of TLS other requests under the same name.
func protocolBlocked(fl *file) []finding {
	var found []finding
	for _, protocol := range []string{probe.ProtoMTProto, probe.ProtoNoise, probe.ProtoOneMe} {
		all := fl.failed(func(f *fact) bool { p, _ := speaks(f); return p == protocol && swallowed(f) })
		proven := map[netip.Addr]bool{}
		dead, alive := map[string]bool{}, map[string]bool{}
		beside := map[string]bool{}
		shown := false
		for _, f := range all {
			_, t := speaks(f)
			how := fl.beside(f)
			if how == "" {
				continue
			}
			// A server that has our bytes and says nothing may hang, and one that ends
			// the connection in order may not want us; only another transport of the
			// same protocol tells that it is neither.
			own := timedOut(f.step) && heard(f.step) || f.step.Failure == probe.FailureEOF
			shown = shown || how == otherTransport || !own
			proven[f.addr.Addr()], dead[t], beside[how] = true, true, true
		}
		if len(proven) == 0 {
			continue
		}
		for _, f := range fl.facts {
			if p, t := speaks(f); p == protocol && f.works() {
				alive[t] = true
			}
		}
		// What fails alike in the same transport, or at the same address, was not
		// each asked about.
		var fs []*fact
		transports := map[string]bool{}
		for _, f := range all {
			if _, t := speaks(f); dead[t] || proven[f.addr.Addr()] && serverName(f) == "" {
				fs = append(fs, f)
				transports[t] = true
			}
		}
		say := fmt.Sprintf("%s by %s is swallowed at {}", protocol, some(slices.Collect(maps.Keys(transports))))
		if len(alive) > 0 {
			say += fmt.Sprintf("; by %s it is answered", some(slices.Collect(maps.Keys(alive))))
		}
		if beside[otherBytes] {
			say += "; the same ports answer other bytes"
		}
		if beside[otherRequest] {
			say += "; other requests under the same name are answered"
		}
		c := sure(len(proven))
		switch {
		case !shown:
			c = Low
			say += "; but the server has ours, and it may be its own doing"
		case fl.shaky():
			c, shown = Low, false
		}
		found = append(found, finding{ProtocolBlock, c, shown, fs, about(places, "%s", say)})
	}
	return found
}

// swallowed says that a messenger's own exchange died after the connection, and
// where there is TLS after the handshake.
func swallowed(f *fact) bool {
	return (f.step.Op == probe.OpReply || f.step.Op == probe.OpRequest) &&
		(timedOut(f.step) || f.step.Failure == probe.FailureConnectionReset || f.step.Failure == probe.FailureEOF)
}

// What answers beside a protocol that does not.
const (
	otherTransport = "another transport"
	otherBytes     = "other bytes"
	otherRequest   = "another request"
)

// beside is what answers at the same port while f does not, "" if nothing.
func (fl *file) beside(f *fact) string {
	p, t := speaks(f)
	name := serverName(f)
	for _, g := range fl.at(f.addr) {
		q, u := speaks(g)
		switch {
		case !g.works() || serverName(g) != name:
		case q == p && u != t:
			return otherTransport
		// Inside of TLS nobody sees the bytes, only their number and times; so
		// ours must have been stopped on the way.
		case name != "" && q == "" && proof(g) == serves && timedOut(f.step) && f.step.TCP != nil && !heard(f.step):
			return otherRequest
		}
	}
	// Who closes or resets whatever we say is not choosy: data must come, or
	// for a silence anything.
	for _, other := range [...]Ask{AskOtherBytes, AskNoise} {
		if a := f.ask(other); name == "" && a.Answered() && (timedOut(f.step) || a.data()) {
			return otherBytes
		}
	}
	return ""
}

func quicBlocked(fl *file) []finding {
	fs := fl.failed(func(f *fact) bool { return f.step.Op == probe.OpQUICHandshake && timedOut(f.step) })
	if len(fs) == 0 || slices.Contains(fl.vantage.Down, "quic") {
		return nil
	}
	var bySNI, asSuch, deaf int
	for _, f := range fs {
		ping, neutral := f.ask(AskQUICPing), f.ask(AskQUICNeutral)
		switch {
		case neutral.Answered():
			bySNI++
		case neutral == nil:
		case ping.Answered():
			asSuch++
		case ping != nil && fl.opens(f.addr.Addr()):
			deaf++
		}
	}
	if fl.shaky() {
		bySNI, asSuch, deaf = 0, 0, 0
	}
	switch {
	case bySNI > 0:
		return []finding{{QUICSNIBlock, sure(bySNI), true, fs, about(places, "{}: QUIC for the messenger's names meets silence; the same address answers QUIC for another name")}}
	case asSuch > 0:
		return []finding{{QUICBlock, sure(asSuch), true, fs, about(places, "{}: QUIC version 1 meets silence; the same address answers a version negotiation")}}
	case deaf > 0:
		return []finding{{UDPBlock, sure(deaf), false, fs, about(places, "{}: nothing over UDP is answered, not even without a name; TCP works, and other hosts answer QUIC")}}
	}
	return []finding{{QUICBlock, Low, false, fs, about(places, "{}: QUIC meets silence")}}
}

// opens says whether some port of an address accepts connections.
func (fl *file) opens(a netip.Addr) bool { return len(fl.connected()[a].open) > 0 }

func callsBlocked(fl *file) []finding {
	fs := fl.failed(func(f *fact) bool { return f.Check.Protocol == probe.ProtoSTUN && timedOut(f.step) })
	if len(fs) == 0 {
		return nil
	}
	neutral := 0
	for _, f := range fl.controls {
		if f.Check.Protocol == probe.ProtoSTUN && f.works() {
			neutral++
		}
	}
	answered := slices.ContainsFunc(fl.facts, func(f *fact) bool { return f.Check.Protocol == probe.ProtoSTUN && f.works() })
	quiet := map[netip.Addr]bool{}
	for _, f := range fs {
		quiet[f.addr.Addr()] = true
	}
	const say = "the relays {} are silent"
	switch {
	case neutral == 0:
		return []finding{{UDPBlock, Low, false, fs, about(places, say+", and no neutral relay answers either")}}
	case !answered && several(quiet) && !fl.shaky() && fl.functionWorks("calls") && fl.waysOpen("calls"):
		return []finding{{CallBlock, sure(neutral), true, fs, about(places, say+", while %d neutral relays answer and the messenger's other functions work", neutral)}}
	}
	return []finding{{CallBlock, Low, false, fs, about(places, say+", while neutral relays answer")}}
}

// moved is what a transfer measured, also when it failed; nil where it did not
// begin.
func moved(r *probe.Result) *probe.TransferInfo {
	for i := range r.Steps {
		if t := r.Steps[i].Transfer; t != nil {
			return t
		}
	}
	return nil
}

// Bounds of a freeze: what was seen in the field begins at 14 KB and ends at
// 34 KB (net4people/bbs#490).
const freezeFrom, freezeTo = 8 << 10, 48 << 10

func frozen(fl *file) []finding {
	fs := fl.failed(func(f *fact) bool {
		t := moved(f.res)
		// It stops for good: most of the time nothing came.
		return t != nil && timedOut(f.step) && t.Bytes >= freezeFrom && t.Bytes <= freezeTo && 2*t.Stall > f.step.Took
	})
	if len(fs) == 0 {
		return nil
	}
	passes := 0
	for _, f := range fs {
		if a := f.ask(AskSmall); a != nil && a.Result.Failed() == nil {
			passes++
		}
	}
	say := func(rest string) func([]*fact) string {
		return func(fs []*fact) string {
			most := slices.MaxFunc(fs, func(a, b *fact) int {
				x, y := moved(a.res), moved(b.res)
				return cmp.Or(cmp.Compare(x.Bytes, y.Bytes), cmp.Compare(x.Wanted, y.Wanted))
			})
			t := moved(most.res)
			return fmt.Sprintf("%s: transfers stop for good, the longest after %d KB of %d%s", endpoints(fs), t.Bytes>>10, t.Wanted>>10, rest)
		}
	}
	if passes > 0 {
		return []finding{{Freeze, sure(len(fs)), true, fs, say("; a small one passes")}}
	}
	// A server that stalls looks the same.
	return []finding{{Freeze, Low, false, fs, say("")}}
}

// slowdown is how many times slower than a control a transfer must be: that of
// OONI's extreme throttling (probe-cli docs/design/dd-007-throttling.md).
const slowdown = 10

// controlRate is the median rate of the controls' transfers that work, in bytes
// a second; 0 where there are none.
func controlRate(records []Record) float64 {
	var rates []float64
	for i := range records {
		r := &records[i]
		if r.Check.Messenger != probe.Control || r.Check.Protocol != probe.ProtoTransfer {
			continue
		}
		if l := r.last(); l != nil && l.Outcome() == probe.OK {
			if t := moved(l); t != nil && t.Goodput > 0 {
				rates = append(rates, t.Goodput)
			}
		}
	}
	if len(rates) == 0 {
		return 0
	}
	slices.Sort(rates)
	return rates[len(rates)/2]
}

// slow says that a transfer was many times slower than rate. A few kilobytes say
// nothing of a rate, unless they trickled in for seconds.
func slow(t *probe.TransferInfo, rate float64) bool {
	if t == nil || t.Goodput <= 0 || t.Goodput*slowdown >= rate {
		return false
	}
	d := took(t)
	return t.Bytes >= 16<<10 || t.Bytes >= 4<<10 && d >= 2*time.Second && 2*t.Stall < d
}

// took is the time in which the bytes of a transfer came.
func took(t *probe.TransferInfo) time.Duration {
	return time.Duration(float64(t.Bytes) / t.Goodput * float64(time.Second))
}

// slowRuns is how many of the newest results that count were slow in a row.
func (r *Record) slowRuns(rate float64) int {
	n := 0
	for i := range r.Results {
		if r.Results[i].Outcome() == probe.Void {
			continue
		}
		if !slow(moved(&r.Results[i]), rate) {
			break
		}
		n++
	}
	return n
}

func throttled(fl *file) []finding {
	if fl.rate == 0 {
		return nil
	}
	var fs []*fact
	for _, f := range fl.facts {
		if fl.crawls(f) {
			fs = append(fs, f)
		}
	}
	if len(fs) == 0 {
		return nil
	}
	return []finding{{Throttling, sure(len(fs)), true, fs, func(fs []*fact) string {
		slowest := slices.MinFunc(fs, func(a, b *fact) int { return cmp.Compare(moved(a.res).Goodput, moved(b.res).Goodput) })
		return fmt.Sprintf("%s: transfers run at %.0f kbit/s, to controls at %.0f kbit/s", endpoints(fs), moved(slowest.res).Goodput*8/1000, fl.rate*8/1000)
	}}}
}

// crawls says that a transfer is slow and nothing else explains it: it was so
// twice in a row, or again beside a control that was asked for as much at the
// same time. Once, this machine may have been busy.
func (fl *file) crawls(f *fact) bool {
	n := f.slowRuns(fl.rate)
	if n == 0 || !slow(moved(f.res), fl.rate) {
		return false
	}
	rtt, _ := fl.roundTrip(f.addr.Addr())
	for i := range f.Results {
		if n > 0 && f.Results[i].Outcome() != probe.Void {
			if n--; near(moved(&f.Results[i]), rtt) {
				return false
			}
		}
	}
	if f.slowRuns(fl.rate) > 1 {
		return true
	}
	again, control := f.ask(AskAgain), f.ask(AskControlRate)
	if again == nil || control == nil {
		return false
	}
	rate := fl.rate // the packet may have been lost
	beside := moved(&control.Result)
	if works := beside != nil && control.Result.Failed() == nil; works {
		rate = beside.Goodput
		if moved(&again.Result) == nil && timedOut(again.Result.Failed()) {
			return true // not even slowly
		}
	}
	t := moved(&again.Result)
	return slow(t, rate) && !near(t, rtt)
}

// near says that a transfer was as fast as its distance lets it be: a
// connection doubles what it sends with each round trip, from ten segments on
// (RFC 6928), so that a far host is slow for a short transfer and a near one is
// not.
func near(t *probe.TransferInfo, rtt time.Duration) bool {
	trips := 1
	for sent := int64(14600); sent < t.Bytes; sent = 2*sent + 14600 {
		trips++
	}
	return took(t) < 4*time.Duration(trips)*rtt
}

func serverErrors(fl *file) []finding {
	fs := fl.failed(func(f *fact) bool { return f.step.Reply != nil && f.step.Reply.Code >= 500 })
	if len(fs) == 0 {
		return nil
	}
	return []finding{{ServiceOutage, Medium, false, fs, about(endpoints, "{}: the answers are server errors")}}
}
