package verdict

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/messenger-probe/messenger-probe/probe"
)

// A world is a miniature internet without packets. It answers checks with the
// steps that probers would have made, evidence included, and its effects are
// censors, outages and bad lines. A seed makes it the same world again.
type world struct {
	rng  *rand.Rand
	zone map[string][]netip.Addr // by name and family
	// resolvers is the addresses that run one.
	resolvers map[netip.Addr]bool
	owners    map[netip.Addr]string // of addresses, by messenger

	effects []effect
	names   []nameEffect

	rtt    time.Duration // to everything; hosts add up to as much again
	jitter float64       // share of the round trip
	rate   float64       // of the line, bytes a second
	loss   float64       // of packets, each way
	single float64       // share of runs that fail, never two in a row of one check
	lag    time.Duration

	failed map[string]bool // whose last run failed singly
	now    time.Time
}

func newWorld(seed uint64) *world {
	w := &world{rng: rand.New(rand.NewPCG(seed, 4)), zone: map[string][]netip.Addr{}, rate: 4e6,
		failed: map[string]bool{}, now: time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)}
	w.rtt = time.Duration(10+w.rng.IntN(60)) * time.Millisecond
	w.jitter = 0.02 + 0.2*w.rng.Float64()
	w.resolvers = map[netip.Addr]bool{}
	for a := range known {
		w.resolvers[netip.MustParseAddr(a)] = true
	}
	for name, addrs := range townNames {
		for _, a := range strings.Fields(addrs) {
			ip := netip.MustParseAddr(a)
			k := name + "/" + family(ip)
			w.zone[k] = append(w.zone[k], ip)
		}
	}
	return w
}

// worldOf is a world in which all hosts and resolvers of the checks are.
func worldOf(seed uint64, checks []probe.Check) *world {
	w := newWorld(seed)
	w.owners = map[netip.Addr]string{}
	for i := range checks {
		c := &checks[i]
		switch q := c.Prober.(type) {
		case probe.ByName:
			w.found(q.Host)
			for _, a := range w.zone[q.Host+"/"+c.Family] {
				w.owners[a] = c.Messenger
			}
		case probe.DNS:
			w.found(q.Host)
			w.resolvers[q.Server.Addr.Addr()] = true
		default:
			if a, err := netip.ParseAddrPort(strings.Split(c.Target, ",")[0]); err == nil {
				w.owners[a.Addr()] = c.Messenger
			}
		}
	}
	return w
}

// found gives a name addresses of its own, two of IPv4 and one of IPv6, unless
// it has some: those of a domain in a network of the domain's.
func (w *world) found(host string) {
	if len(w.zone[host+"/"+probe.IP4]) > 0 {
		return
	}
	h := fnv.New64a()
	h.Write([]byte(host))
	n := h.Sum64()
	for i := range byte(2) {
		w.zone[host+"/"+probe.IP4] = append(w.zone[host+"/"+probe.IP4], netip.AddrFrom4([4]byte{11 + byte(n>>8)%100, byte(n >> 16), byte(n >> 24), 2*byte(n>>32) + i}))
	}
	slices.SortFunc(w.zone[host+"/"+probe.IP4], netip.Addr.Compare)
	w.zone[host+"/"+probe.IP6] = []netip.Addr{netip.AddrFrom16([16]byte{0x2a, byte(n), byte(n >> 8), byte(n >> 16), 15: byte(n >> 24)})}
}

// A flow is one connection or exchange of datagrams, as somebody on the path
// sees it.
type flow struct {
	addr      netip.AddrPort
	udp       bool
	name      string // in the ClientHello, of TCP or QUIC
	hello     string
	split     bool
	speaks    string // tcp, tls, http, quic, ping, mtproto, noise, oneme, stun, dns, bytes
	transport string // of MTProto and Noise
	host      string // of plain HTTP
	loss      float64
}

// big says that the ClientHello does not fit in one segment.
func (f *flow) big() bool { return f.hello == probe.HelloGo || f.hello == "browser" }

// A fate is what becomes of a flow.
type fate struct {
	is kindOfFate
	n  int64 // frozen: after how many bytes; slows: bytes a second; errors: the status
}

type kindOfFate int

const (
	passes       kindOfFate = iota
	drops                   // nothing answers the first packet
	unroutes                // an ICMP says so
	refuses                 // by the host itself
	refusesEarly            // by somebody nearer
	swallows                // the first payload and all after it is dropped
	mutes                   // the peer acknowledges and says nothing
	cutsLate                // some packets pass after the first payload, then none
	chokes                  // the first of the peer's answer comes, and no more
	resets                  // a round trip after the first payload
	resetsEarly             // sooner
	alerts                  // the server refuses the name, in a few bytes
	closes                  // in order, after the first payload
	forges                  // somebody else's certificate, of no trusted root
	expires                 // an expired certificate
	misnames                // a sound certificate for another name
	hangs                   // the front shakes hands, what is behind says nothing
	errs                    // the server says so
	stubs                   // plain HTTP is answered by a block page
	freezes                 // after n bytes
	slows                   // to n bytes a second
)

// An effect decides the fate of the flows that it concerns. Of several, the
// first counts.
type effect func(*world, *flow) (fate, bool)

// A nameEffect decides what is answered to a query.
type nameEffect func(*world, *query) (answer, bool)

type query struct {
	host      string
	family    string
	resolver  string // name
	server    netip.AddrPort
	transport string
}

type answer struct {
	failure probe.Failure // "" is the zone's truth, or addrs
	addrs   []netip.Addr
	second  bool // the truth comes second
}

// ── effects ──────────────────────────────────────────────────────────────────

type match func(*flow) bool

func all(ms ...match) match {
	return func(f *flow) bool {
		return !slices.ContainsFunc(ms, func(m match) bool { return !m(f) })
	}
}

func not(m match) match { return func(f *flow) bool { return !m(f) } }

func anyone(*flow) bool    { return true }
func overTCP(f *flow) bool { return !f.udp }
func overUDP(f *flow) bool { return f.udp }

// to is everything to these addresses or prefixes.
func to(where ...string) match {
	var nets []netip.Prefix
	for _, s := range where {
		for _, s := range strings.Fields(s) {
			if p, err := netip.ParsePrefix(s); err == nil {
				nets = append(nets, p)
			} else {
				a := netip.MustParseAddr(s)
				nets = append(nets, netip.PrefixFrom(a, a.BitLen()))
			}
		}
	}
	return func(f *flow) bool {
		return slices.ContainsFunc(nets, func(p netip.Prefix) bool { return p.Contains(f.addr.Addr()) })
	}
}

// on is everything to these ports.
func on(ports ...uint16) match {
	return func(f *flow) bool { return slices.Contains(ports, f.addr.Port()) }
}

// under is a ClientHello with one of these domains.
func under(domains ...string) match {
	return func(f *flow) bool {
		return slices.ContainsFunc(domains, func(d string) bool { return within(f.name, d) })
	}
}

func within(name, domain string) bool { return name == domain || strings.HasSuffix(name, "."+domain) }

func speaking(protocols ...string) match {
	return func(f *flow) bool { return slices.Contains(protocols, f.speaks) }
}

func ip6(f *flow) bool { return f.addr.Addr().Is6() }

// when gives flows a fate.
func when(m match, k kindOfFate, n ...int64) effect {
	return func(_ *world, f *flow) (fate, bool) {
		if !m(f) {
			return fate{}, false
		}
		ft := fate{is: k}
		if len(n) > 0 {
			ft.n = n[0]
		}
		return ft, true
	}
}

// answers makes some resolvers answer some domains in another way. No resolver
// named means all, over UDP alone.
func answers(a answer, resolvers []string, domains ...string) nameEffect {
	return func(_ *world, q *query) (answer, bool) {
		switch {
		case resolvers == nil && q.transport != probe.OverUDP,
			resolvers != nil && !slices.Contains(resolvers, q.resolver),
			!slices.ContainsFunc(domains, func(d string) bool { return within(q.host, d) }):
			return answer{}, false
		}
		return a, true
	}
}

// lossy loses so many of the packets each way.
func lossy(m match, share float64) effect {
	return func(_ *world, f *flow) (fate, bool) {
		if m(f) {
			f.loss = share
		}
		return fate{}, false
	}
}

func (w *world) fateOf(f *flow) fate {
	for _, e := range w.effects {
		if ft, ok := e(w, f); ok {
			return ft
		}
	}
	return fate{}
}

// ── answers ──────────────────────────────────────────────────────────────────

// run is what the check finds now.
func (w *world) run(c probe.Check) probe.Result {
	w.now = w.now.Add(time.Duration(w.rng.IntN(900)) * time.Millisecond)
	r := probe.Result{Check: c, Start: w.now, Steps: w.probe(c.Prober, cmp.Or(c.Timeout, 10*time.Second))}
	id := c.ID()
	if w.single > 0 && len(r.Steps) > 0 && w.rng.Float64() < w.single && !w.failed[id] {
		r.Steps = w.fail(r.Steps)
		w.failed[id] = true
	} else {
		w.failed[id] = false
	}
	for i := range r.Steps {
		r.Took += r.Steps[i].Took
	}
	return r
}

// fail makes one step of a run time out.
func (w *world) fail(steps []probe.Step) []probe.Step {
	i := w.rng.IntN(len(steps))
	steps = slices.Clone(steps[:i+1])
	s := &steps[i]
	*s = probe.Step{Op: s.Op, Addr: s.Addr, Start: s.Start, Took: 5 * time.Second, Failure: probe.FailureTimeout, DNS: s.DNS, TLS: s.TLS, QUIC: s.QUIC}
	if s.DNS != nil {
		d := *s.DNS
		d.Replies, d.Answers, d.Queries = nil, nil, 2
		s.DNS = &d
	}
	if s.Op != probe.OpConnect && s.DNS == nil && s.QUIC == nil {
		s.TCP = &probe.TCPInfo{BytesAcked: 1, SegsOut: 6, Retransmits: 4, Unacked: 1, SegsIn: 1, RTT: w.rtt, MinRTT: w.rtt}
	}
	return steps
}

func (w *world) probe(p probe.Prober, left time.Duration) []probe.Step {
	if b, ok := p.(probe.ByName); ok {
		s := w.lookup(b.Host, b.Family)
		if s.Failure != "" || len(s.DNS.Answers) <= b.Slot {
			if b.Slot > 0 {
				return nil
			}
			return []probe.Step{s}
		}
		v := &visit{w: w, left: left, steps: append(make([]probe.Step, 0, 6), s)}
		v.probe(b.Ask.At(netip.AddrPortFrom(s.DNS.Answers[b.Slot], b.Port)))
		return v.steps
	}
	v := &visit{w: w, left: left, steps: make([]probe.Step, 0, 5)}
	v.probe(p)
	return v.steps
}

func (v *visit) probe(p probe.Prober) {
	switch q := p.(type) {
	case probe.DNS:
		v.dns(q)
	case probe.TCP:
		v.open(flow{addr: q.Addr, speaks: "tcp"})
		if n := len(v.steps); v.steps[n-1].Failure == "" {
			v.steps[n-1].TCP = v.kernel()
		}
	case probe.TLS:
		if v.open(flow{addr: q.Addr, speaks: "tls", name: q.ServerName, hello: cmp.Or(q.Hello, probe.HelloGo), split: q.Split != ""}) {
			v.handshake(q.Trust != nil && q.Trust.Any)
		}
	case probe.BrowserHello:
		if v.open(flow{addr: q.Addr, speaks: "tls", name: q.ServerName, hello: "browser"}) {
			v.handshake(true)
		}
	case probe.HTTP:
		v.http(q)
	case probe.WebSocket:
		if v.open(flow{addr: q.Addr, speaks: "http", name: q.ServerName, hello: probe.HelloGo}) && v.handshake(false) {
			v.upgrade()
		}
	case probe.Transfer:
		if v.open(flow{addr: q.Addr, speaks: "http", name: q.ServerName, hello: probe.HelloGo}) && v.handshake(false) {
			v.transfer(q)
		}
	case probe.MTProto:
		f := flow{addr: q.Addr, speaks: probe.ProtoMTProto, transport: q.Transport}
		if q.Transport == "websocket" {
			f.speaks, f.name, f.hello = "http", q.ServerName, probe.HelloGo
		}
		if v.open(f) && (f.name == "" || v.handshake(false) && v.upgrade()) {
			v.ask(f.name == "", q.Transport)
		}
	case probe.Noise:
		f := flow{addr: q.Addr, speaks: probe.ProtoNoise, transport: q.Over}
		if q.Over == "websocket" {
			f.speaks, f.name, f.hello = "http", q.ServerName, probe.HelloGo
		}
		if v.open(f) && (f.name == "" || v.handshake(false) && v.upgrade()) {
			v.ask(f.name == "", q.Over)
		}
	case probe.OneMe:
		if v.open(flow{addr: q.Addr, speaks: probe.ProtoOneMe, name: q.ServerName, hello: probe.HelloGo, transport: q.Over}) && v.handshake(false) && (q.Over == probe.OneMeTLS || v.upgrade()) {
			v.ask(false, q.Over)
		}
	case probe.Bytes:
		if v.open(flow{addr: q.Addr, speaks: "bytes"}) {
			v.payload(probe.OpReply, true, nil)
		}
	case probe.STUN:
		v.stun(q)
	case probe.QUIC:
		v.quic(flow{addr: q.Addr, udp: true, speaks: "quic", name: q.ServerName, hello: cmp.Or(q.Hello, probe.HelloGo)})
	case probe.QUICPing:
		v.quic(flow{addr: q.Addr, udp: true, speaks: "ping"})
	default:
		panic(fmt.Sprintf("the world does not know %T", p))
	}
}

// A visit is one run of a prober.
type visit struct {
	w     *world
	f     flow
	fate  fate
	rtt   time.Duration
	took  time.Duration // of the connect
	left  time.Duration
	steps []probe.Step
	tcp   probe.TCPInfo
	eager int // packets that still pass of a flow that will be cut
}

// hostRTT is the round trip to a host: the line's, and something of its own.
func (w *world) hostRTT(a netip.Addr) time.Duration {
	var h uint32
	for _, b := range a.As16() {
		h = h*31 + uint32(b)
	}
	return w.rtt + w.rtt*time.Duration(h%100)/100
}

func (v *visit) step(op probe.Op, took time.Duration, f probe.Failure) *probe.Step {
	v.steps = append(v.steps, probe.Step{Op: op, Addr: v.f.addr, Start: v.w.now, Took: took, Failure: f})
	return &v.steps[len(v.steps)-1]
}

// trips is a time of so many round trips, and what they jitter.
func (v *visit) trips(n float64) time.Duration {
	j := 1 + v.w.jitter*v.w.rng.Float64()
	return time.Duration(n * j * float64(v.rtt))
}

// lost is the share of packets that get no answer.
func (v *visit) lost() float64 {
	pass := (1 - v.w.loss) * (1 - v.f.loss)
	return 1 - pass*pass
}

// tries sends a packet that is answered until it is, at these times, and says
// after how long; false if it never was.
func (v *visit) tries(at ...time.Duration) (time.Duration, bool) {
	lost := v.lost()
	for _, t := range at {
		if v.w.rng.Float64() >= lost {
			return t + v.trips(1), true
		}
	}
	return 0, false
}

func (v *visit) open(f flow) bool {
	v.f = f
	v.fate, v.rtt = v.w.fateOf(&v.f), v.w.hostRTT(f.addr.Addr())
	if v.eager = 5 + v.w.rng.IntN(4); v.fate.is == cutsLate && v.fate.n > 0 {
		v.eager = int(v.fate.n)
	}
	half := v.left / 2
	switch v.fate.is {
	case drops:
		v.step(probe.OpConnect, half, probe.FailureTimeout)
		return false
	case unroutes:
		v.step(probe.OpConnect, v.trips(0.3), probe.FailureHostUnreachable)
		return false
	case refuses:
		v.step(probe.OpConnect, v.trips(1), probe.FailureConnectionRefused)
		return false
	case refusesEarly:
		v.step(probe.OpConnect, v.trips(0.1), probe.FailureConnectionRefused)
		return false
	}
	took, ok := v.tries(0, time.Second, 3*time.Second)
	if !ok || took > half {
		v.step(probe.OpConnect, half, probe.FailureTimeout)
		return false
	}
	v.step(probe.OpConnect, took, "")
	v.took = took
	v.left -= took
	v.tcp = probe.TCPInfo{BytesAcked: 1, SegsIn: 1, SegsOut: 2, RTT: v.rtt, PMTU: 1500}
	if took >= time.Second { // Karn: a SYN sent twice measures nothing
		v.tcp.SegsOut++
	} else {
		v.tcp.MinRTT = v.trips(1)
	}
	return true
}

func (v *visit) kernel() *probe.TCPInfo { t := v.tcp; return &t }

// exchange sends and receives so many bytes; false where the line lost too much.
func (v *visit) exchange(out, in int) (time.Duration, bool) {
	segs := 1 + (out+in)/1448
	lost := v.lost()
	var late time.Duration
	for range segs {
		for rto := 200*time.Millisecond + v.rtt; v.w.rng.Float64() < lost; rto *= 2 {
			v.tcp.Retransmits++
			v.tcp.SegsOut++
			if v.w.rng.IntN(2) == 0 { // it was the acknowledgement that was lost
				v.tcp.Needless++
			}
			if late += rto; late > v.left {
				v.tcp.Unacked = 1
				return v.left, false
			}
		}
	}
	took := v.trips(1) + late + time.Duration(float64(out+in)/v.w.rate*1e9)
	if took > v.left {
		return v.left, false
	}
	v.tcp.SegsOut += uint32(1 + segs)
	v.tcp.SegsIn += uint32(segs)
	v.tcp.BytesAcked += uint64(out)
	v.tcp.BytesReceived += uint64(in)
	v.left -= took
	return took, true
}

// cut is what the kernel says of a connection whose last packets got nowhere.
func (v *visit) cut() {
	v.tcp.Retransmits += 4
	v.tcp.SegsOut += 5
	v.tcp.Unacked = 1
}

// payload is one exchange on an open connection. first says that it is the
// connection's first payload, which is what filters read.
func (v *visit) payload(op probe.Op, first bool, reply *probe.ReplyInfo) bool {
	finish := func(took time.Duration, f probe.Failure) bool {
		s := v.step(op, took, f)
		s.TCP, s.Reply = v.kernel(), reply
		if f != "" && reply != nil && len(reply.Marks) == 0 {
			reply.Code = 0 // nothing was read
		}
		return f == ""
	}
	if first {
		switch v.fate.is {
		case swallows, cutsLate:
			v.cut()
			return finish(v.left, probe.FailureTimeout)
		case mutes:
			v.tcp.BytesAcked += 300
			return finish(v.left, probe.FailureTimeout)
		case resets:
			return finish(v.trips(1), probe.FailureConnectionReset)
		case resetsEarly:
			return finish(v.trips(0.05), probe.FailureConnectionReset)
		case closes:
			v.tcp.BytesAcked += 300
			return finish(v.trips(1), probe.FailureEOF)
		case stubs:
			if reply != nil {
				reply.Code, reply.Redirect, reply.Marks = 302, "block.example", []string{"operator's block page"}
			}
			return finish(v.trips(1), probe.FailureHTTPUnexpectedRedirect)
		}
	} else {
		switch v.fate.is {
		case cutsLate:
			if v.eager -= 4; v.eager <= 0 {
				v.cut()
				return finish(v.left, probe.FailureTimeout)
			}
		case hangs:
			v.tcp.BytesAcked += 300
			return finish(v.left, probe.FailureTimeout)
		}
	}
	if v.fate.is == errs && reply != nil {
		reply.Code = int(v.fate.n)
	}
	took, ok := v.exchange(300, 600)
	if !ok {
		return finish(took, probe.FailureTimeout)
	}
	return finish(took, "")
}

// handshake is a TLS handshake; lax takes any certificate.
func (v *visit) handshake(lax bool) bool {
	info := &probe.TLSInfo{Hello: v.f.hello, ServerName: v.f.name, Alert: -1, RTT: v.took}
	finish := func(took time.Duration, f probe.Failure) bool {
		s := v.step(probe.OpTLSHandshake, took, f)
		s.TLS, s.TCP = info, v.kernel()
		return f == ""
	}
	switch v.fate.is {
	case swallows:
		v.cut()
		return finish(v.left, probe.FailureTimeout)
	case mutes:
		v.tcp.BytesAcked += 517
		return finish(v.left, probe.FailureTimeout)
	case chokes:
		v.tcp.BytesAcked += 517
		v.tcp.BytesReceived += 127
		return finish(v.left, probe.FailureTimeout)
	case resets, resetsEarly:
		trip := 1.0
		if v.fate.is == resetsEarly {
			trip = 0.05
		}
		info.FailedAfter = v.trips(trip)
		return finish(info.FailedAfter, probe.FailureConnectionReset)
	case alerts:
		info.Alert = 112
		v.tcp.BytesAcked += 517
		v.tcp.BytesReceived += 7
		return finish(v.trips(1), probe.FailureSSLFailedHandshake)
	case closes:
		info.FailedAfter = v.trips(1)
		return finish(info.FailedAfter, probe.FailureEOF)
	case cutsLate:
		v.tcp.BytesAcked += 517
		v.tcp.BytesReceived += 1448
		if v.eager -= 5; v.eager < 1 {
			v.cut()
			return finish(v.left, probe.FailureTimeout)
		}
	}
	chain := probe.Certificate{Subject: v.f.name, Issuer: "R11", DNSNames: []string{v.f.name}}
	failure := probe.Failure("")
	switch v.fate.is {
	case forges:
		chain = probe.Certificate{Subject: "portal", Issuer: "portal", SelfSigned: true}
		failure = probe.FailureSSLUnknownAuthority
	case expires:
		failure = probe.FailureSSLInvalidCertificate
	case misnames:
		failure = probe.FailureSSLInvalidHostname
	}
	info.Chain = []probe.Certificate{chain}
	out := 300
	if v.f.big() {
		out = 1700
	}
	took, ok := v.exchange(out, 3500)
	switch {
	case !ok:
		return finish(took, probe.FailureTimeout)
	case failure != "" && !lax:
		return finish(took, failure)
	}
	return finish(took, "")
}

func (v *visit) http(q probe.HTTP) {
	if q.Version == "3" {
		if v.quic(flow{addr: q.Addr, udp: true, speaks: "quic", name: q.ServerName, hello: probe.HelloGo}) {
			v.step(probe.OpRequest, 0, "")
			v.step(probe.OpReply, v.trips(1), "").Reply = &probe.ReplyInfo{Transport: "h3", Code: 200}
		}
		return
	}
	f := flow{addr: q.Addr, speaks: "http", name: q.ServerName, hello: probe.HelloGo}
	if q.Plain {
		f.name, f.host, f.hello = "", q.Host, ""
	}
	if v.open(f) && (q.Plain || v.handshake(q.Trust != nil && q.Trust.Any)) {
		v.step(probe.OpRequest, 0, "").TCP = v.kernel()
		v.payload(probe.OpReply, q.Plain, &probe.ReplyInfo{Transport: "http", Code: 200})
	}
}

func (v *visit) upgrade() bool {
	ok := v.payload(probe.OpRequest, false, &probe.ReplyInfo{Transport: "websocket", Code: 101})
	if s := &v.steps[len(v.steps)-1]; ok && v.fate.is == errs {
		s.Failure = probe.FailureHTTPUnexpectedStatus
		return false
	}
	return ok
}

// ask is a messenger's own request and reply.
func (v *visit) ask(first bool, transport string) bool {
	v.step(probe.OpRequest, 0, "")
	return v.payload(probe.OpReply, first, &probe.ReplyInfo{Transport: transport})
}

func (v *visit) transfer(q probe.Transfer) {
	wanted := cmp.Or(q.Bytes, 64<<10)
	info := &probe.TransferInfo{Direction: cmp.Or(q.Direction, probe.Download), Wanted: wanted, Bytes: wanted, FirstByte: v.trips(1)}
	// Slow start from ten segments (RFC 6928), the line's rate, and loss (Mathis
	// et al. 1997).
	rounds := 1.0
	for w := int64(14600); w < wanted; w = 2*w + 14600 {
		rounds++
	}
	secs := rounds*v.rtt.Seconds() + float64(wanted)/v.w.rate
	if p := v.lost(); p > 0 {
		slow := float64(wanted) / (1448 / v.rtt.Seconds() * 0.9 / p * (0.5 + v.w.rng.Float64()))
		secs = max(secs, slow)
	}
	failure := probe.Failure("")
	stall := v.trips(1)
	switch v.fate.is {
	case freezes:
		if wanted > v.fate.n {
			info.Bytes, failure, stall = v.fate.n, probe.FailureTimeout, v.left-time.Second
			secs = 2 * v.rtt.Seconds()
		}
	case slows:
		secs = max(secs, float64(wanted)/float64(v.fate.n))
		stall = time.Second
	case cutsLate, hangs:
		info.Bytes, failure, stall = 0, probe.FailureTimeout, v.left
	}
	if secs > v.left.Seconds() {
		failure = probe.FailureTimeout
		info.Bytes = int64(float64(wanted) * v.left.Seconds() / secs)
		secs = v.left.Seconds()
	}
	info.Stall, info.Goodput = stall, float64(info.Bytes)/max(secs, 0.001)
	took := time.Duration(secs * 1e9)
	if failure != "" {
		took = v.left
	}
	v.tcp.BytesReceived += uint64(info.Bytes)
	if v.fate.is == cutsLate {
		v.cut()
	}
	s := v.step(probe.OpTransfer, took, failure)
	s.Transfer, s.TCP, s.Reply = info, v.kernel(), &probe.ReplyInfo{Transport: "http"}
	if info.Bytes > 0 {
		s.Reply.Code = 200
	}
}

func (v *visit) stun(q probe.STUN) {
	v.f = flow{addr: q.Addr, udp: true, speaks: "stun"}
	v.fate, v.rtt = v.w.fateOf(&v.f), v.w.hostRTT(q.Addr.Addr())
	took, ok := v.tries(0, 500*time.Millisecond, 1500*time.Millisecond, 3500*time.Millisecond)
	switch {
	case v.fate.is == refuses:
		v.step(probe.OpReply, v.trips(1), probe.FailureConnectionRefused)
		return
	case !ok || v.fate.is != passes && v.fate.is != errs && v.fate.is != slows:
		v.step(probe.OpReply, v.left, probe.FailureTimeout)
		return
	}
	v.step(probe.OpReply, took, "").Reply = &probe.ReplyInfo{Transport: probe.STUNBinding}
	if q.Burst > 0 {
		b := &probe.BurstInfo{Sent: q.Burst, RTT: v.rtt}
		lost := v.lost()
		if v.fate.is == slows {
			lost = float64(v.fate.n) / 100 // of a call: per cent of its packets
		}
		for range q.Burst {
			if v.w.rng.Float64() >= lost {
				b.Received++
			}
		}
		v.step(probe.OpTransfer, 2*time.Second, "").Burst = b
	}
}

func (v *visit) quic(f flow) bool {
	v.f = f
	v.fate, v.rtt = v.w.fateOf(&v.f), v.w.hostRTT(f.addr.Addr())
	info := &probe.QUICInfo{ServerName: f.name}
	took, ok := v.tries(0, time.Second, 3*time.Second)
	failure := probe.Failure("")
	switch {
	case v.fate.is == refuses:
		failure, took = probe.FailureConnectionRefused, v.trips(1)
	case !ok || !slices.Contains([]kindOfFate{passes, errs, expires, misnames, freezes, slows}, v.fate.is):
		failure, took = probe.FailureTimeout, v.left
	case v.fate.is == misnames:
		failure = probe.FailureSSLInvalidHostname
		if f.name == "" {
			failure = ""
		}
	case v.fate.is == expires && f.speaks == "quic":
		failure = probe.FailureSSLInvalidCertificate
	default:
		info.PacketsReceived, info.Version = 4, 1
	}
	v.step(probe.OpQUICHandshake, took, failure).QUIC = info
	return failure == ""
}

// ── names ────────────────────────────────────────────────────────────────────

func (w *world) truth(q *query) answer {
	if !w.resolvers[q.server.Addr()] {
		return answer{failure: probe.FailureTimeout} // no resolver
	}
	if a := w.zone[q.host+"/"+q.family]; len(a) > 0 {
		return answer{addrs: a}
	}
	return answer{failure: probe.FailureDNSNoAnswer}
}

func (w *world) resolve(q *query) answer {
	for _, e := range w.names {
		if a, ok := e(w, q); ok {
			return a
		}
	}
	return w.truth(q)
}

// lookup asks the system's resolvers in turn, as an app does.
func (w *world) lookup(host, family string) probe.Step {
	var s probe.Step
	for _, r := range systemResolvers {
		v := &visit{w: w, left: 2500 * time.Millisecond, steps: make([]probe.Step, 0, 1)}
		typ := uint16(1)
		if family == probe.IP6 {
			typ = 28
		}
		v.dns(probe.DNS{Server: r, Host: host, Type: typ})
		took := s.Took
		s = v.steps[0]
		s.Took += took
		if s.Failure != probe.FailureTimeout {
			break
		}
	}
	s.Addr = netip.AddrPort{}
	return s
}

var rcodes = map[probe.Failure]int{probe.FailureDNSNXDOMAIN: 3, probe.FailureDNSServfail: 2, probe.FailureDNSRefused: 5}

func (v *visit) dns(q probe.DNS) {
	udp := q.Server.Transport == probe.OverUDP
	v.f = flow{addr: q.Server.Addr, udp: udp, speaks: "dns"}
	if q.Server.ServerName != "" {
		v.f.name, v.f.hello, v.f.speaks = q.Server.ServerName, probe.HelloGo, "tls"
	}
	fam := probe.IP4
	if q.Type == 28 {
		fam = probe.IP6
	}
	info := &probe.DNSInfo{Resolver: q.Server.Name, Transport: q.Server.Transport, Name: q.Host, Type: q.Type, Queries: 1}
	if !udp {
		if !v.open(v.f) || v.f.name != "" && !v.handshake(false) {
			return
		}
	} else {
		v.fate, v.rtt = v.w.fateOf(&v.f), v.w.hostRTT(v.f.addr.Addr())
	}
	a := v.w.resolve(&query{q.Host, fam, q.Server.Name, q.Server.Addr, q.Server.Transport})
	took, ok := v.trips(1), true
	if udp {
		took, ok = v.tries(0, 2*time.Second)
		if took > 2*time.Second {
			info.Queries = 2
		}
	}
	if !ok || v.fate.is != passes || a.failure == probe.FailureTimeout {
		info.Queries = 2
		v.step(probe.OpResolve, v.left, probe.FailureTimeout).DNS = info
		return
	}
	add := func(a answer) {
		r := probe.DNSReply{After: took, From: v.f.addr, RCode: rcodes[a.failure], Counts: true, Addrs: a.addrs}
		info.Replies = append(info.Replies, r)
		if len(info.Replies) == 1 {
			info.Answers = a.addrs
		}
	}
	add(a)
	if a.second {
		add(v.w.truth(&query{q.Host, fam, q.Server.Name, q.Server.Addr, q.Server.Transport}))
	}
	v.step(probe.OpResolve, took, a.failure).DNS = info
}
