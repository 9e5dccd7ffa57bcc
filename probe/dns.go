package probe

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// How a resolver is asked; the values of Server.Transport.
const (
	OverUDP   = "udp" // RFC 1035 §4.2.1, and by TCP where the answer is truncated
	OverTCP   = "tcp" // RFC 7766
	OverTLS   = "dot" // RFC 7858
	OverHTTPS = "doh" // RFC 8484, by POST
)

// The bounds of one exchange. No honest answer about the address of a
// messenger comes near them.
const (
	maxDNSMessage = 4096     // bytes
	maxDNSStream  = 64 << 10 // bytes from a TCP, DoT or DoH server, handshake included
	maxDatagrams  = 32       // read for one query, whoever sent them
	maxReplies    = 8        // kept as evidence
	maxReplyAddrs = 32       // kept of one reply
	maxReplyNames = 8        // kept of one reply, 128 bytes each
	maxCNAMEs     = 16       // followed
)

const (
	// A resolver's UDP query is sent once more after this time: a single lost
	// datagram is no finding. glibc waits 5 s, Go's resolver too; half of the
	// default deadline of a check would be gone.
	dnsRetransmit = 2 * time.Second

	// minWindow is how long the socket stays open after the first answer, at
	// least: the genuine answer comes after the injected one, by less than the
	// round trip to the resolver.
	minWindow = 500 * time.Millisecond
)

// A Server is a resolver and the way to ask it.
type Server struct {
	Name       string // the catalogue's name of the resolver, as evidence calls it
	Transport  string // OverUDP, OverTCP, OverTLS, OverHTTPS
	Addr       netip.AddrPort
	ServerName string // dot, doh: the name its certificate must cover, and the SNI
	Path       string // doh: the path of the URL, such as /dns-query
	Trust      *Trust // dot, doh
}

// DNS asks one resolver for the records of one name.
//
// Its steps are resolve for udp; connect and resolve for tcp; connect,
// tls_handshake and resolve for dot and doh. A truncated UDP answer (RFC 2181
// §9) makes a resolve step that worked and has no Answers, then connect and
// resolve over TCP to the same resolver.
//
// The UDP query goes out from a socket of its own that is not connected, so
// that answers from elsewhere are seen, and is sent again, the same query with
// the same id, if 2 s pass without an answer. The failure is that of the first
// reply which counts, which is what an app would get; what else comes within
// Window is kept as evidence.
type DNS struct {
	Server Server
	Host   string // fully qualified, with or without the last dot
	Type   uint16 // as on the wire; 0 means 1, A

	// Window is how long after the first UDP answer others are awaited, within
	// the deadline. 0 means three times the answer's round trip, but at least
	// 500 ms; below 0 means not at all. It costs waiting, and is not in the
	// step's Took.
	Window time.Duration

	// AllowBogons takes addresses that cannot be on the Internet for answers
	// like others, instead of failing with dns_bogon_error. For test networks.
	AllowBogons bool
}

// At is the same question, put to the resolver at addr.
func (d DNS) At(addr netip.AddrPort) Prober {
	d.Server.Addr = addr
	return d
}

func (d DNS) Probe(ctx context.Context, n Net) []Step { return d.probe(ctx, n, true) }

// probe asks with EDNS (RFC 6891) or without.
func (d DNS) probe(ctx context.Context, n Net, edns bool) []Step {
	var t trace
	q, err := d.query(edns)
	if err != nil {
		t.do(OpResolve, d.Server.Addr, func(*Step) error { return err })
		return t.steps
	}
	transport := d.Server.Transport
	if transport == OverUDP {
		if truncated := t.askUDP(ctx, n, q); !truncated {
			return t.steps
		}
		transport = OverTCP
	}
	open, err := t.connect(ctx, n, d.Server.Addr)
	if err != nil {
		return t.steps
	}
	defer open.Close()
	conn := &heldConn{open, maxDNSStream}
	if transport == OverTCP {
		t.askStream(ctx, conn, q, transport)
		return t.steps
	}
	h := TLS{Addr: d.Server.Addr, ServerName: d.Server.ServerName, Trust: d.Server.Trust}
	if transport == OverHTTPS {
		h.ALPN = []string{"h2", "http/1.1"}
	}
	secure, err := t.handshake(ctx, conn, h)
	if err != nil {
		return t.steps
	}
	if transport == OverHTTPS {
		t.askHTTP(ctx, secure, q)
	} else {
		t.askStream(ctx, secure, q, transport)
	}
	return t.steps
}

// What a reply can say that is not an answer. The texts are fixed: nothing
// from the network is in them.
var (
	errDNSNXDOMAIN    = &FailureError{FailureDNSNXDOMAIN, "the resolver says that the name does not exist"}
	errDNSServfail    = &FailureError{FailureDNSServfail, "the resolver failed"}
	errDNSRefused     = &FailureError{FailureDNSRefused, "the resolver refuses to answer"}
	errDNSRCode       = &FailureError{FailureDNSServerMisbehaving, "the resolver answers with an unusual code"}
	errDNSNoAnswer    = &FailureError{FailureDNSNoAnswer, "the resolver knows no such record of the name"}
	errDNSBogon       = &FailureError{FailureDNSBogon, "the resolver gives an address that is not on the Internet"}
	errDNSWrongID     = &FailureError{FailureDNSWrongQueryID, "the reply has another id than the query"}
	errDNSStranger    = &FailureError{FailureDNSServerMisbehaving, "the reply is not to our question"}
	errDNSGarbled     = &FailureError{FailureDNSServerMisbehaving, "the reply is no DNS message"}
	errDNSTooLong     = &FailureError{FailureDNSServerMisbehaving, "the reply is too long"}
	errDNSHTTPStatus  = &FailureError{FailureHTTPUnexpectedStatus, "the DoH server does not answer 200"}
	errDNSContentType = &FailureError{FailureDNSServerMisbehaving, "the DoH server answers with something else than a DNS message"}
	errDNSName        = &FailureError{FailureInvalidArgument, "not a name that can be asked for"}
	errDNSTransport   = &FailureError{FailureInvalidArgument, "not a way to ask a resolver"}
)

// dnsQuery is a query ready to be sent, and what is needed to know its reply.
type dnsQuery struct {
	DNS
	id   uint16
	name string // with the last dot
	wire []byte
}

func (d DNS) query(edns bool) (*dnsQuery, error) {
	switch d.Server.Transport {
	case OverUDP, OverTCP, OverTLS, OverHTTPS:
	default:
		return nil, errDNSTransport
	}
	if _, ok := dns.IsDomainName(d.Host); d.Host == "" || !ok {
		return nil, errDNSName
	}
	if d.Type == 0 {
		d.Type = dns.TypeA
	}
	d.Server.Addr = unmap(d.Server.Addr)
	q := &dnsQuery{DNS: d, name: dns.Fqdn(d.Host)}
	// RFC 8484 §4.1: id 0, so that HTTP caches may answer.
	if d.Server.Transport != OverHTTPS {
		var id [2]byte
		rand.Read(id[:]) // never fails
		q.id = binary.BigEndian.Uint16(id[:])
	}
	m := dns.Msg{
		MsgHdr:   dns.MsgHdr{Id: q.id, RecursionDesired: true},
		Question: []dns.Question{{Name: q.name, Qtype: d.Type, Qclass: dns.ClassINET}},
	}
	// 1232 bytes pass every path unfragmented (DNS flag day 2020), and Go's
	// own resolver asks for the same. No cookie, which would tell us apart.
	if edns {
		m.SetEdns0(1232, false)
	}
	var err error
	if q.wire, err = m.Pack(); err != nil {
		return nil, errDNSName
	}
	return q, nil
}

func (q *dnsQuery) info(transport string) *DNSInfo {
	return &DNSInfo{Resolver: q.Server.Name, Transport: transport, Name: q.Host, Type: q.Type}
}

// read is what one reply says: the evidence, the addresses it gives the name,
// and what is wrong with it. Whether it Counts does not yet look at who sent it.
func (q *dnsQuery) read(b []byte) (r DNSReply, answers []netip.Addr, err error) {
	var m dns.Msg
	r.RCode = -1
	if len(b) > maxDNSMessage {
		return r, nil, errDNSTooLong
	}
	err = m.Unpack(b)
	// A message cut off in the middle of a record is what truncation may look
	// like; its header and question are good.
	if err != nil && !(m.Truncated && len(m.Question) > 0) {
		return r, nil, errDNSGarbled
	}
	r.RCode = m.Rcode
	r.WrongID = m.Id != q.id
	r.Authority = len(m.Ns)
	r.Authoritative, r.Truncated = m.Authoritative, m.Truncated
	r.RecursionAvailable, r.AuthenticatedData = m.RecursionAvailable, m.AuthenticatedData
	for _, rr := range m.Answer {
		if a, ok := address(rr); ok && len(r.Addrs) < maxReplyAddrs {
			r.Addrs = append(r.Addrs, a)
		}
		if c, ok := rr.(*dns.CNAME); ok && len(r.CNAMEs) < maxReplyNames {
			r.CNAMEs = append(r.CNAMEs, clip(c.Target))
		}
	}
	switch {
	case r.WrongID:
		return r, nil, errDNSWrongID
	case !m.Response || m.Opcode != dns.OpcodeQuery || !q.asked(&m):
		return r, nil, errDNSStranger
	}
	r.Counts = true
	switch m.Rcode {
	case dns.RcodeSuccess:
	case dns.RcodeNameError:
		return r, nil, errDNSNXDOMAIN
	case dns.RcodeServerFailure:
		return r, nil, errDNSServfail
	case dns.RcodeRefused:
		return r, nil, errDNSRefused
	default:
		return r, nil, errDNSRCode
	}
	answers, found := q.answers(m.Answer)
	if !found {
		return r, nil, errDNSNoAnswer
	}
	for _, a := range answers {
		if bogon(a) && !q.AllowBogons {
			return r, answers, errDNSBogon
		}
	}
	return r, answers, nil
}

// asked says whether m is about our question. Servers that fail or refuse may
// leave it out (9.9.9.9 refuses with a bare header).
func (q *dnsQuery) asked(m *dns.Msg) bool {
	if len(m.Question) == 0 {
		return m.Rcode != dns.RcodeSuccess && m.Rcode != dns.RcodeNameError
	}
	a := m.Question[0]
	return len(m.Question) == 1 && strings.EqualFold(a.Name, q.name) &&
		a.Qtype == q.Type && a.Qclass == dns.ClassINET
}

// answers follows the name through the CNAMEs of one message to records of the
// type asked for. Records of other owners are not about the name, whatever they
// hold (RFC 2181 §5.4.1).
func (q *dnsQuery) answers(rrs []dns.RR) (addrs []netip.Addr, found bool) {
	owner := q.name
	for range maxCNAMEs {
		next := ""
		for _, rr := range rrs {
			h := rr.Header()
			if h.Class != dns.ClassINET || !strings.EqualFold(h.Name, owner) {
				continue
			}
			if h.Rrtype == q.Type {
				found = true
				if a, ok := address(rr); ok && len(addrs) < maxReplyAddrs {
					addrs = append(addrs, a)
				}
			} else if c, ok := rr.(*dns.CNAME); ok {
				next = c.Target
			}
		}
		if found || next == "" {
			break
		}
		owner = next
	}
	// An A record of no bytes is possible to send, and no answer.
	if q.Type == dns.TypeA || q.Type == dns.TypeAAAA {
		found = len(addrs) > 0
	}
	return addrs, found
}

// address is the address in an A or AAAA record.
func address(rr dns.RR) (netip.Addr, bool) {
	var ip net.IP
	switch rr := rr.(type) {
	case *dns.A:
		ip = rr.A.To4()
	case *dns.AAAA:
		ip = rr.AAAA
	}
	return netip.AddrFromSlice(ip)
}

// askUDP says whether the answer was truncated, and TCP has to be asked.
func (t *trace) askUDP(ctx context.Context, n Net, q *dnsQuery) (truncated bool) {
	t.do(OpResolve, q.Server.Addr, func(s *Step) error {
		s.DNS = q.info(OverUDP)
		network, address := "udp4", "0.0.0.0:0"
		if q.Server.Addr.Addr().Is6() {
			network, address = "udp6", "[::]:0"
		}
		conn, err := n.ListenPacket(ctx, network, address)
		if err != nil {
			return cause(ctx, err)
		}
		defer conn.Close()
		// The read deadline is the loop's own clock; the end of ctx closes.
		stop := context.AfterFunc(ctx, func() { conn.Close() })
		defer stop()
		truncated, err = q.exchange(ctx, s, conn)
		return err
	})
	return truncated
}

// exchange sends the query and reads what comes until the window ends.
func (q *dnsQuery) exchange(ctx context.Context, s *Step, conn net.PacketConn) (truncated bool, err error) {
	info, to := s.DNS, net.UDPAddrFromAddrPort(q.Server.Addr)
	in := newReceiver(conn, q.Server.Addr.Addr().Is4())
	recvErr(conn)

	first := time.Now()
	sent := first
	send := func() error {
		sent = time.Now()
		_, err := conn.WriteTo(q.wire, to)
		if err == nil {
			info.Queries++
		} else if ctx.Err() != nil { // and conn is closed
			return ctx.Err()
		}
		return err
	}
	if err := send(); err != nil {
		return false, err
	}
	conn.SetReadDeadline(sent.Add(dnsRetransmit))

	var (
		answered bool
		result   error // of the first reply that counts
		wrong    error // of the first from the resolver that does not
		buf      [maxDNSMessage + 1]byte
	)
receive:
	for range maxDatagrams {
		n, from, ttl, err := in.read(buf[:])
		switch {
		case err == nil:
		case ctx.Err() != nil, answered && errors.Is(err, os.ErrDeadlineExceeded):
			break receive
		case answered: // an ICMP error in the window changes nothing
			continue
		case errors.Is(err, os.ErrDeadlineExceeded) && info.Queries < 2:
			conn.SetReadDeadline(time.Time{})
			if err := send(); err != nil {
				return false, err
			}
			continue
		default:
			return false, err
		}
		now := time.Now()
		r, answers, err := q.read(buf[:n])
		r.After, r.From, r.TTL = now.Sub(first), from, ttl
		if !sameSource(from, q.Server.Addr) {
			r.Counts = false
		} else if err != nil && !r.Counts && wrong == nil {
			wrong = err
		}
		// The last place is kept for the reply that counts.
		if room := maxReplies - len(info.Replies); room > 1 || room == 1 && (answered || r.Counts) {
			info.Replies = append(info.Replies, r)
		}
		if answered || !r.Counts {
			continue
		}
		answered, s.Took = true, r.After
		if truncated = r.Truncated; !truncated {
			info.Answers, result = answers, err
		}
		window := q.Window
		if window == 0 {
			window = max(3*now.Sub(sent), minWindow)
		}
		if window < 0 {
			break receive
		}
		conn.SetReadDeadline(now.Add(window))
	}
	switch {
	case answered:
		return truncated, result
	case ctx.Err() == context.Canceled:
		return false, context.Canceled
	case wrong != nil:
		return false, wrong
	case ctx.Err() != nil:
		return false, ctx.Err()
	}
	return false, errDNSStranger // maxDatagrams, none of them from the resolver
}

// sameSource compares without the zone: a socket names it, resolv.conf may
// number it.
func sameSource(a, b netip.AddrPort) bool {
	return a.Port() == b.Port() && a.Addr().Unmap().WithZone("") == b.Addr().Unmap().WithZone("")
}

// A receiver reads datagrams and, where conn is a socket of the system, the TTL
// with which they arrived: an injector's differs from the resolver's.
type receiver struct {
	conn  net.PacketConn
	udp   *net.UDPConn // nil: no TTL to be had
	v4    bool
	count func(n int)
	oob   [128]byte
}

func newReceiver(conn net.PacketConn, v4 bool) *receiver {
	r := &receiver{conn: conn, v4: v4}
	udp, count := unmetered(conn)
	if udp == nil {
		return r
	}
	var err error
	if v4 {
		err = ipv4.NewPacketConn(udp).SetControlMessage(ipv4.FlagTTL, true)
	} else {
		err = ipv6.NewPacketConn(udp).SetControlMessage(ipv6.FlagHopLimit, true)
	}
	if err == nil {
		r.udp, r.count = udp, count
	}
	return r
}

func (r *receiver) read(b []byte) (n int, from netip.AddrPort, ttl int, err error) {
	if r.udp == nil {
		n, a, err := r.conn.ReadFrom(b)
		if u, ok := a.(*net.UDPAddr); ok {
			from = u.AddrPort()
		}
		return n, unmap(from), 0, err
	}
	n, oobn, _, from, err := r.udp.ReadMsgUDPAddrPort(b, r.oob[:])
	if err != nil {
		return 0, from, 0, err
	}
	r.count(n)
	if r.v4 {
		var cm ipv4.ControlMessage
		if cm.Parse(r.oob[:oobn]) == nil {
			ttl = cm.TTL
		}
	} else {
		var cm ipv6.ControlMessage
		if cm.Parse(r.oob[:oobn]) == nil {
			ttl = cm.HopLimit
		}
	}
	return n, unmap(from), ttl, nil
}

// askStream asks over TCP or TLS, the message after its length (RFC 1035
// §4.2.2), both in one write (RFC 7766 §8).
func (t *trace) askStream(ctx context.Context, conn net.Conn, q *dnsQuery, transport string) {
	t.do(OpResolve, q.Server.Addr, func(s *Step) error {
		s.DNS = q.info(transport)
		defer guard(ctx, conn)()
		defer func() { s.TCP = tcpInfo(conn) }()
		sent := time.Now()
		b := binary.BigEndian.AppendUint16(nil, uint16(len(q.wire)))
		if _, err := conn.Write(append(b, q.wire...)); err != nil {
			return cause(ctx, err)
		}
		s.DNS.Queries = 1
		var head [2]byte
		if _, err := io.ReadFull(conn, head[:]); err != nil {
			return cause(ctx, err)
		}
		size := int(binary.BigEndian.Uint16(head[:]))
		if size > maxDNSMessage {
			return errDNSTooLong
		}
		b = make([]byte, size)
		if _, err := io.ReadFull(conn, b); err != nil {
			return cause(ctx, err)
		}
		return q.only(s, b, sent)
	})
}

// only is the outcome of the one reply that a connection brings.
func (q *dnsQuery) only(s *Step, b []byte, sent time.Time) error {
	r, answers, err := q.read(b)
	r.After, r.From = time.Since(sent), q.Server.Addr
	s.DNS.Replies, s.DNS.Answers = []DNSReply{r}, answers
	return err
}

// askHTTP asks over the one connection that is open already. There is no
// client around it: no proxy, no cookies, no redirects, no second connection.
func (t *trace) askHTTP(ctx context.Context, conn *tls.Conn, q *dnsQuery) {
	t.do(OpResolve, q.Server.Addr, func(s *Step) error {
		s.DNS = q.info(OverHTTPS)
		defer func() { s.TCP = tcpInfo(conn) }()
		dialled := false
		h := &http.Transport{
			DialTLSContext: func(context.Context, string, string) (net.Conn, error) {
				if dialled {
					return nil, net.ErrClosed
				}
				dialled = true
				return conn, nil
			},
			ForceAttemptHTTP2:      true,
			DisableCompression:     true,
			MaxResponseHeaderBytes: 16 << 10,
		}
		defer h.CloseIdleConnections()
		sent := time.Now()
		s.DNS.Queries = 1
		resp, err := h.RoundTrip(q.request(ctx))
		if err != nil {
			return ofHTTP(ctx, err)
		}
		defer resp.Body.Close()
		s.Reply = &ReplyInfo{Transport: "http", Code: resp.StatusCode}
		if resp.StatusCode != http.StatusOK {
			return errDNSHTTPStatus
		}
		if resp.Header.Get("Content-Type") != dohType {
			return errDNSContentType
		}
		b, err := io.ReadAll(io.LimitReader(resp.Body, maxDNSMessage+1))
		// net/http says goodbye when ctx ends, and the server may then end a
		// body that it had not finished.
		if err != nil || ctx.Err() != nil {
			return ofHTTP(ctx, err)
		}
		return q.only(s, b, sent)
	})
}

const dohType = "application/dns-message" // RFC 8484 §6

func (q *dnsQuery) request(ctx context.Context) *http.Request {
	host := hostPort(q.Server.ServerName, q.Server.Addr, 443)
	r := &http.Request{
		Method:        http.MethodPost,
		URL:           &url.URL{Scheme: "https", Host: host, Path: q.Server.Path},
		Header:        http.Header{"Content-Type": {dohType}, "Accept": {dohType}, "User-Agent": {""}},
		Body:          io.NopCloser(bytes.NewReader(q.wire)),
		ContentLength: int64(len(q.wire)),
	}
	return r.WithContext(ctx)
}

// ofHTTP is what ended an HTTP exchange. What Classify does not know is a
// breach of HTTP by a server that has proved its name.
func ofHTTP(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	// The connection's clock may be the first to say so, and net/http takes a
	// line that a deadline cut short for a malformed one.
	if spent(ctx) {
		return context.DeadlineExceeded
	}
	if Classify(err) == FailureUnknown {
		return errors.Join(errDNSGarbled, err)
	}
	return err
}

// heldConn is a connection lent out. It reads at most so many bytes: a hostile
// server can send frames and headers that never become an answer. Its Close
// only ends reading and writing: net/http closes what goes wrong, and TCP_INFO,
// which tells how, would be gone.
type heldConn struct {
	net.Conn
	left int
}

func (c *heldConn) Read(b []byte) (int, error) {
	if c.left <= 0 {
		return 0, errDNSTooLong
	}
	n, err := c.Conn.Read(b[:min(len(b), c.left)])
	c.left -= n
	return n, err
}

func (c *heldConn) Close() error { return c.SetDeadline(time.Unix(1, 0)) }

// SyscallConn lets TCP_INFO through.
func (c *heldConn) SyscallConn() (syscall.RawConn, error) { return rawConn(c.Conn) }
