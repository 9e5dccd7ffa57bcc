package probetest

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// DNS is a resolver on loopback that does with each name what its script says.
// Names without a script are refused.
type DNS struct {
	Addr     netip.AddrPort // UDP and TCP
	DoT, DoH netip.AddrPort // zero without a TLS configuration

	mu      sync.Mutex
	scripts map[string][]DNSReply
	asked   map[string]int
	web     http.HandlerFunc
	stray   net.PacketConn
	done    chan struct{}
}

// A DNSReply is one thing the server does about a query.
type DNSReply struct {
	After     time.Duration // since the one before, or since the query came
	Elsewhere bool          // udp: sent from another port
	// Bytes is what is sent. transport is udp, tcp, dot or doh.
	Bytes func(q *dns.Msg, transport string) []byte
}

// NewDNS starts a resolver that stops with the test. With a TLS configuration
// it also speaks DoT, and DoH over HTTP/1.1 and HTTP/2.
func NewDNS(tb testing.TB, conf *tls.Config) *DNS {
	tb.Helper()
	s := &DNS{
		scripts: make(map[string][]DNSReply),
		asked:   make(map[string]int),
		done:    make(chan struct{}),
	}
	s.web = s.serveHTTP
	udp, tcp := samePort(tb)
	s.Addr = tcp.Addr().(*net.TCPAddr).AddrPort()
	var err error
	if s.stray, err = net.ListenPacket("udp", "127.0.0.1:0"); err != nil {
		tb.Fatal(err)
	}
	servers := []*dns.Server{
		{PacketConn: udp, Handler: s.handler("udp")},
		{Listener: tcp, Handler: s.handler("tcp")},
	}
	stopWeb := func() error { return nil }
	var running sync.WaitGroup
	if conf != nil {
		dot, doh := listenTCP(tb), listenTCP(tb)
		s.DoT, s.DoH = dot.Addr().(*net.TCPAddr).AddrPort(), doh.Addr().(*net.TCPAddr).AddrPort()
		servers = append(servers, &dns.Server{Listener: tls.NewListener(dot, conf), Handler: s.handler("dot")})
		web := &http.Server{
			Handler:   http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.handleHTTP()(w, r) }),
			TLSConfig: conf.Clone(),
			ErrorLog:  log.New(io.Discard, "", 0),
		}
		running.Go(func() { web.ServeTLS(doh, "", "") })
		stopWeb = web.Close
	}
	for _, srv := range servers {
		started := make(chan struct{})
		srv.NotifyStartedFunc = func() { close(started) }
		running.Go(func() { srv.ActivateAndServe() })
		<-started
	}
	tb.Cleanup(func() {
		close(s.done)
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		for _, srv := range servers {
			srv.ShutdownContext(ctx)
		}
		stopWeb()
		s.stray.Close()
		running.Wait()
	})
	return s
}

// samePort listens for UDP and TCP on one port.
func samePort(tb testing.TB) (net.PacketConn, net.Listener) {
	for range 20 {
		tcp := listenTCP(tb)
		if udp, err := net.ListenPacket("udp", tcp.Addr().String()); err == nil {
			return udp, tcp
		}
		tcp.Close()
	}
	tb.Fatal("no port is free for both UDP and TCP")
	return nil, nil
}

func listenTCP(tb testing.TB) net.Listener {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	return l
}

// On scripts what is done, in order, about each query for a name, whatever its
// type. No replies: it stays silent.
func (s *DNS) On(name string, replies ...DNSReply) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.scripts[canonical(name)] = replies
}

// OnHTTP puts h in the place of the DoH service.
func (s *DNS) OnHTTP(h http.HandlerFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.web = h
}

// Asked is how many queries came for a name over a transport.
func (s *DNS) Asked(name, transport string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked[canonical(name)+transport]
}

func canonical(name string) string { return strings.ToLower(dns.Fqdn(name)) }

func (s *DNS) handleHTTP() http.HandlerFunc {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.web
}

// script notes a query and says what to do about it.
func (s *DNS) script(q *dns.Msg, transport string) []DNSReply {
	name := ""
	if len(q.Question) > 0 {
		name = canonical(q.Question[0].Name)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked[name+transport]++
	if r, ok := s.scripts[name]; ok {
		return r
	}
	return []DNSReply{DNSCode(dns.RcodeRefused)}
}

// wait is false when the server stops or gone is closed first.
func (s *DNS) wait(d time.Duration, gone <-chan struct{}) bool {
	select {
	case <-time.After(d):
		return true
	case <-gone:
	case <-s.done:
	}
	return false
}

func (s *DNS) handler(transport string) dns.HandlerFunc {
	return func(w dns.ResponseWriter, q *dns.Msg) {
		for _, r := range s.script(q, transport) {
			if r.After > 0 && !s.wait(r.After, nil) {
				return
			}
			b := r.Bytes(q, transport)
			if r.Elsewhere && transport == "udp" {
				s.stray.WriteTo(b, w.RemoteAddr())
			} else {
				w.Write(b)
			}
		}
	}
}

func (s *DNS) serveHTTP(w http.ResponseWriter, r *http.Request) {
	b, err := io.ReadAll(io.LimitReader(r.Body, dns.MaxMsgSize))
	q := new(dns.Msg)
	if err != nil || r.Method != http.MethodPost || r.URL.Path != "/dns-query" ||
		r.Header.Get("Content-Type") != "application/dns-message" || q.Unpack(b) != nil {
		http.Error(w, "want a POST of a DNS message to /dns-query", http.StatusBadRequest)
		return
	}
	if replies := s.script(q, "doh"); len(replies) > 0 {
		reply := replies[0] // HTTP has one answer
		if reply.After > 0 && !s.wait(reply.After, r.Context().Done()) {
			return
		}
		w.Header().Set("Content-Type", "application/dns-message")
		w.Write(reply.Bytes(q, "doh"))
		return
	}
	s.wait(time.Hour, r.Context().Done())
}

// Late is r, sent after d.
func (r DNSReply) Late(d time.Duration) DNSReply { r.After = d; return r }

// Stray is r, sent from another port.
func (r DNSReply) Stray() DNSReply { r.Elsewhere = true; return r }

// WrongID is r with another id than the query's.
func (r DNSReply) WrongID() DNSReply {
	return r.edit(func(b []byte, _ string) []byte { b[0] ^= 0xff; return b })
}

// Truncated is r, but over UDP only its header and question, with the TC bit.
func (r DNSReply) Truncated() DNSReply {
	inner := r.Bytes
	r.Bytes = func(q *dns.Msg, transport string) []byte {
		if transport != "udp" {
			return inner(q, transport)
		}
		m := new(dns.Msg).SetReply(q)
		m.Truncated, m.RecursionAvailable = true, true
		return pack(m)
	}
	return r
}

// Cut is r without its last n bytes.
func (r DNSReply) Cut(n int) DNSReply {
	return r.edit(func(b []byte, _ string) []byte { return b[:len(b)-n] })
}

func (r DNSReply) edit(f func(b []byte, transport string) []byte) DNSReply {
	inner := r.Bytes
	r.Bytes = func(q *dns.Msg, transport string) []byte { return f(slices.Clone(inner(q, transport)), transport) }
	return r
}

// DNSMessage is a reply that f writes; m is an empty answer to the query.
func DNSMessage(f func(m *dns.Msg)) DNSReply {
	return DNSReply{Bytes: func(q *dns.Msg, _ string) []byte {
		m := new(dns.Msg).SetReply(q)
		m.RecursionAvailable, m.Compress = true, true
		f(m)
		return pack(m)
	}}
}

// DNSBytes is a reply of b, whatever was asked.
func DNSBytes(b []byte) DNSReply {
	return DNSReply{Bytes: func(*dns.Msg, string) []byte { return b }}
}

// DNSRaw is a reply of the query's header, as a reply with these counts of
// question, answer, authority and additional records, and of b.
func DNSRaw(counts [4]uint16, b []byte) DNSReply {
	return DNSReply{Bytes: func(q *dns.Msg, _ string) []byte {
		out := binary.BigEndian.AppendUint16(nil, q.Id)
		out = append(out, 0x81, 0x80) // QR RD, RA
		for _, c := range counts {
			out = binary.BigEndian.AppendUint16(out, c)
		}
		return append(out, b...)
	}}
}

// DNSAnswer gives the name those addresses that are of the type asked for; the
// SOA of the zone where none is, as RFC 2308 §2.2 has it.
func DNSAnswer(addrs ...string) DNSReply {
	return DNSMessage(func(m *dns.Msg) {
		m.Answer = records(m.Question[0], m.Question[0].Name, addrs)
		if len(m.Answer) == 0 {
			m.Ns = soa()
		}
	})
}

// DNSChain leads the name through CNAMEs to the last of names, which has the
// addresses.
func DNSChain(names []string, addrs ...string) DNSReply {
	return DNSMessage(func(m *dns.Msg) {
		owner := m.Question[0].Name
		for _, n := range names {
			m.Answer = append(m.Answer, record("%s 60 IN CNAME %s", owner, dns.Fqdn(n)))
			owner = dns.Fqdn(n)
		}
		m.Answer = append(m.Answer, records(m.Question[0], owner, addrs)...)
	})
}

// DNSCode fails with a code, as an honest resolver does: an NXDOMAIN has the
// SOA of the zone (RFC 2308 §2.1).
func DNSCode(rcode int) DNSReply {
	return DNSMessage(func(m *dns.Msg) {
		m.Rcode = rcode
		if rcode == dns.RcodeNameError {
			m.Ns = soa()
		}
	})
}

// DNSForgedNXDOMAIN denies the name as the injectors of 2026 do: authoritative,
// and without an authority section.
func DNSForgedNXDOMAIN() DNSReply {
	return DNSMessage(func(m *dns.Msg) { m.Rcode, m.Authoritative = dns.RcodeNameError, true })
}

// DNSEmpty is NOERROR with nothing in it.
func DNSEmpty() DNSReply { return DNSMessage(func(*dns.Msg) {}) }

func soa() []dns.RR {
	return []dns.RR{record("test. 60 IN SOA ns.test. hostmaster.test. 1 7200 3600 86400 60")}
}

func records(q dns.Question, owner string, addrs []string) (rrs []dns.RR) {
	for _, a := range addrs {
		ip := netip.MustParseAddr(a)
		switch {
		case ip.Is4() && q.Qtype == dns.TypeA:
			rrs = append(rrs, record("%s 60 IN A %s", owner, ip))
		case ip.Is6() && q.Qtype == dns.TypeAAAA:
			rrs = append(rrs, record("%s 60 IN AAAA %s", owner, ip))
		}
	}
	return rrs
}

func record(format string, args ...any) dns.RR {
	rr, err := dns.NewRR(fmt.Sprintf(format, args...))
	if err != nil {
		panic(err)
	}
	return rr
}

func pack(m *dns.Msg) []byte {
	b, err := m.Pack()
	if err != nil {
		panic(err)
	}
	return b
}
