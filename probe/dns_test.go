package probe

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/miekg/dns"

	"github.com/messenger-probe/messenger-probe/probe/probetest"
)

// reply is what the tests below look at of a DNSReply.
type reply struct {
	RCode                              int
	Counts, WrongID, AA, TC, Elsewhere bool
	Authority                          int
	Addrs                              []string
}

func replies(s Step) (rs []reply) {
	for _, r := range s.DNS.Replies {
		x := reply{RCode: r.RCode, Counts: r.Counts, WrongID: r.WrongID, AA: r.Authoritative,
			TC: r.Truncated, Elsewhere: r.From != s.Addr, Authority: r.Authority}
		for _, a := range r.Addrs {
			x.Addrs = append(x.Addrs, a.String())
		}
		rs = append(rs, x)
	}
	return rs
}

func texts(addrs []netip.Addr) (s []string) {
	for _, a := range addrs {
		s = append(s, a.String())
	}
	return s
}

func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

const (
	real1 = "157.240.1.60" // addresses as messengers have them; nothing is sent there
	real2 = "157.240.2.60"
	real6 = "2a03:2880:f001::60"
)

func ask(name string) dns.Question {
	return dns.Question{Name: dns.Fqdn(name), Qtype: dns.TypeA, Qclass: dns.ClassINET}
}

// wireOf is a whole message, for replies that no honest packer would make.
func wireOf(t testing.TB, m *dns.Msg) []byte {
	t.Helper()
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestDNSOverUDP(t *testing.T) {
	question := wireOf(t, &dns.Msg{Question: []dns.Question{ask("lying-counts.test")}})[12:]
	many := make([]string, 300)
	for i := range many {
		many[i] = netip.AddrFrom4([4]byte{157, 240, byte(i >> 8), byte(i)}).String()
	}
	names := make([]string, 100)
	for i := range names {
		names[i] = fmt.Sprintf("n%d.test", i)
	}
	ok := probetest.DNSAnswer(real1, real2, real6)

	cases := []struct {
		name    string
		script  []probetest.DNSReply
		typ     uint16
		failure Failure
		answers []string
		replies []reply
	}{
		{
			name: "answer", script: []probetest.DNSReply{ok},
			answers: []string{real1, real2},
			replies: []reply{{Counts: true, Addrs: []string{real1, real2}}},
		}, {
			name: "answer-6", typ: dns.TypeAAAA, script: []probetest.DNSReply{ok},
			answers: []string{real6},
			replies: []reply{{Counts: true, Addrs: []string{real6}}},
		}, {
			name: "text", typ: dns.TypeTXT, script: []probetest.DNSReply{probetest.DNSMessage(func(m *dns.Msg) {
				m.Answer = []dns.RR{rr(`text.test. 60 IN TXT "half" "other half"`)}
			})},
			replies: []reply{{Counts: true}},
		}, {
			name: "no-text", typ: dns.TypeTXT, failure: FailureDNSNoAnswer, script: []probetest.DNSReply{ok},
			replies: []reply{{Counts: true, Authority: 1}},
		}, {
			name: "chain", script: []probetest.DNSReply{probetest.DNSChain([]string{"a.test", "b.test"}, real1)},
			answers: []string{real1},
			replies: []reply{{Counts: true, Addrs: []string{real1}}},
		}, {
			name: "other-case", script: []probetest.DNSReply{probetest.DNSMessage(func(m *dns.Msg) {
				m.Question[0].Name = strings.ToUpper(m.Question[0].Name)
				m.Answer = []dns.RR{rr("Other-Case.tesT. 60 IN A " + real1)}
			})},
			answers: []string{real1},
			replies: []reply{{Counts: true, Addrs: []string{real1}}},
		}, {
			name: "address-of-another-name", failure: FailureDNSNoAnswer,
			script: []probetest.DNSReply{probetest.DNSMessage(func(m *dns.Msg) {
				m.Answer = []dns.RR{rr("another.test. 60 IN A " + real1)}
			})},
			replies: []reply{{Counts: true, Addrs: []string{real1}}},
		}, {
			name: "empty-address", failure: FailureDNSNoAnswer,
			script: []probetest.DNSReply{probetest.DNSMessage(func(m *dns.Msg) {
				m.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: m.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET}}}
			})},
			replies: []reply{{Counts: true}},
		}, {
			name: "nxdomain", failure: FailureDNSNXDOMAIN,
			script:  []probetest.DNSReply{probetest.DNSCode(dns.RcodeNameError)},
			replies: []reply{{RCode: 3, Counts: true, Authority: 1}},
		}, {
			name: "nxdomain-forged", failure: FailureDNSNXDOMAIN,
			script:  []probetest.DNSReply{probetest.DNSForgedNXDOMAIN()},
			replies: []reply{{RCode: 3, Counts: true, AA: true}},
		}, {
			name: "servfail", failure: FailureDNSServfail,
			script:  []probetest.DNSReply{probetest.DNSCode(dns.RcodeServerFailure)},
			replies: []reply{{RCode: 2, Counts: true}},
		}, {
			name: "refused", failure: FailureDNSRefused,
			script:  []probetest.DNSReply{probetest.DNSCode(dns.RcodeRefused)},
			replies: []reply{{RCode: 5, Counts: true}},
		}, {
			name: "formerr", failure: FailureDNSServerMisbehaving,
			script:  []probetest.DNSReply{probetest.DNSCode(dns.RcodeFormatError)},
			replies: []reply{{RCode: 1, Counts: true}},
		}, {
			name: "refused-by-a-bare-header", failure: FailureDNSRefused,
			script: []probetest.DNSReply{probetest.DNSMessage(func(m *dns.Msg) {
				m.Question, m.Rcode = nil, dns.RcodeRefused
			})},
			replies: []reply{{RCode: 5, Counts: true}},
		}, {
			name: "nxdomain-without-question", failure: FailureDNSServerMisbehaving,
			script: []probetest.DNSReply{probetest.DNSMessage(func(m *dns.Msg) {
				m.Question, m.Rcode = nil, dns.RcodeNameError
			})},
			replies: []reply{{RCode: 3}},
		}, {
			name: "empty", failure: FailureDNSNoAnswer,
			script:  []probetest.DNSReply{probetest.DNSEmpty()},
			replies: []reply{{Counts: true}},
		}, {
			name: "silence", failure: FailureTimeout,
		}, {
			name: "wrong-id", failure: FailureDNSWrongQueryID,
			script:  []probetest.DNSReply{ok.WrongID()},
			replies: []reply{{WrongID: true, Addrs: []string{real1, real2}}},
		}, {
			name: "wrong-id-then-right", script: []probetest.DNSReply{ok.WrongID(), ok},
			answers: []string{real1, real2},
			replies: []reply{{WrongID: true, Addrs: []string{real1, real2}}, {Counts: true, Addrs: []string{real1, real2}}},
		}, {
			name: "another-question", failure: FailureDNSServerMisbehaving,
			script: []probetest.DNSReply{probetest.DNSMessage(func(m *dns.Msg) {
				m.Question[0].Name = "else.test."
				m.Answer = []dns.RR{rr("else.test. 60 IN A " + real1)}
			})},
			replies: []reply{{Addrs: []string{real1}}},
		}, {
			name: "echo-of-the-query", failure: FailureDNSServerMisbehaving,
			script:  []probetest.DNSReply{probetest.DNSMessage(func(m *dns.Msg) { m.Response = false })},
			replies: []reply{{}},
		}, {
			name: "garbage", failure: FailureDNSServerMisbehaving,
			script:  []probetest.DNSReply{probetest.DNSBytes([]byte("HTTP/1.1 403 Forbidden\r\n"))},
			replies: []reply{{RCode: -1}},
		}, {
			name: "no-bytes", failure: FailureDNSServerMisbehaving,
			script:  []probetest.DNSReply{probetest.DNSBytes(nil)},
			replies: []reply{{RCode: -1}},
		}, {
			name: "garbage-then-right", script: []probetest.DNSReply{probetest.DNSBytes([]byte{1, 2, 3}), ok},
			answers: []string{real1, real2},
			replies: []reply{{RCode: -1}, {Counts: true, Addrs: []string{real1, real2}}},
		}, {
			name: "cut", failure: FailureDNSServerMisbehaving,
			script:  []probetest.DNSReply{ok.Cut(3)},
			replies: []reply{{RCode: -1}},
		}, {
			// An answer whose owner is a pointer to itself (RFC 1035 §4.1.4).
			name: "compression-loop", failure: FailureDNSServerMisbehaving,
			script:  []probetest.DNSReply{probetest.DNSRaw([4]uint16{0, 1, 0, 0}, []byte{0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 157, 240, 1, 60})},
			replies: []reply{{RCode: -1}},
		}, {
			name: "lying-counts", failure: FailureDNSServerMisbehaving,
			script:  []probetest.DNSReply{probetest.DNSRaw([4]uint16{0xffff, 0xffff, 0xffff, 0xffff}, question)},
			replies: []reply{{RCode: -1}},
		}, {
			name: "huge", failure: FailureDNSServerMisbehaving,
			script:  []probetest.DNSReply{probetest.DNSAnswer(many...)},
			replies: []reply{{RCode: -1}},
		}, {
			name: "many", script: []probetest.DNSReply{probetest.DNSAnswer(many[:200]...)},
			answers: many[:32],
			replies: []reply{{Counts: true, Addrs: many[:32]}},
		}, {
			name: "cname-circle", failure: FailureDNSNoAnswer,
			script:  []probetest.DNSReply{probetest.DNSChain([]string{"x.test", "y.test", "x.test"})},
			replies: []reply{{Counts: true}},
		}, {
			name: "endless-cnames", failure: FailureDNSNoAnswer,
			script:  []probetest.DNSReply{probetest.DNSChain(names, real1)},
			replies: []reply{{Counts: true, Addrs: []string{real1}}},
		}, {
			name: "from-elsewhere", failure: FailureTimeout,
			script:  []probetest.DNSReply{ok.Stray()},
			replies: []reply{{Elsewhere: true, Addrs: []string{real1, real2}}},
		}, {
			name: "from-elsewhere-then-right", script: []probetest.DNSReply{probetest.DNSForgedNXDOMAIN().Stray(), ok.Late(20 * time.Millisecond)},
			answers: []string{real1, real2},
			replies: []reply{{RCode: 3, AA: true, Elsewhere: true}, {Counts: true, Addrs: []string{real1, real2}}},
		}, {
			name: "injected", failure: FailureDNSNXDOMAIN,
			script: []probetest.DNSReply{probetest.DNSForgedNXDOMAIN(), ok.Late(30 * time.Millisecond)},
			replies: []reply{
				{RCode: 3, AA: true, Counts: true},
				{Counts: true, Addrs: []string{real1, real2}},
			},
		}, {
			name: "private", failure: FailureDNSBogon,
			script:  []probetest.DNSReply{probetest.DNSAnswer(real1, "10.10.34.35")},
			answers: []string{real1, "10.10.34.35"},
			replies: []reply{{Counts: true, Addrs: []string{real1, "10.10.34.35"}}},
		},
	}
	// All at once: those that end with their deadline wait for it together.
	ctx := within(t, time.Second)
	servers := make([]*probetest.DNS, len(cases))
	results := make([]chan []Step, len(cases))
	for i, tc := range cases {
		servers[i], results[i] = probetest.NewDNS(t, nil), make(chan []Step, 1)
		servers[i].On(tc.name+".test", tc.script...)
		d := DNS{
			Server: Server{Name: "national", Transport: OverUDP, Addr: servers[i].Addr},
			Host:   tc.name + ".test", Type: tc.typ, Window: 500 * time.Millisecond,
		}
		go func() { results[i] <- d.Probe(ctx, &Host{}) }()
	}
	for i, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			steps, srv, host := <-results[i], servers[i], tc.name+".test"
			if len(steps) != 1 {
				t.Fatalf("%d steps, want 1: %+v", len(steps), steps)
			}
			s := steps[0]
			if s.Op != OpResolve || s.Addr != srv.Addr || s.Failure != tc.failure {
				t.Errorf("%s of %v: failure %q (%v), want %q", s.Op, s.Addr, s.Failure, s.Err, tc.failure)
			}
			if got := texts(s.DNS.Answers); !slices.Equal(got, tc.answers) {
				t.Errorf("answers %v, want %v", got, tc.answers)
			}
			if diff := cmp.Diff(tc.replies, replies(s)); diff != "" {
				t.Errorf("replies (-want +got):\n%s", diff)
			}
			if s.DNS.Queries != 1 || srv.Asked(host, "udp") != 1 {
				t.Errorf("%d queries sent, %d came; want 1", s.DNS.Queries, srv.Asked(host, "udp"))
			}
			want := DNSInfo{Resolver: "national", Transport: OverUDP, Name: host, Type: max(tc.typ, 1)}
			if diff := cmp.Diff(want, *s.DNS, cmpopts.IgnoreFields(DNSInfo{}, "Replies", "Answers", "Queries")); diff != "" {
				t.Error(diff)
			}
			for i, r := range s.DNS.Replies {
				if i > 0 && r.After < s.DNS.Replies[i-1].After || r.After <= 0 {
					t.Errorf("reply %d came after %v", i, r.After)
				}
				if runtime.GOOS == "linux" && r.TTL == 0 {
					t.Errorf("reply %d has no TTL", i)
				}
				if len(r.CNAMEs) > maxReplyNames {
					t.Errorf("reply %d keeps %d names", i, len(r.CNAMEs))
				}
				if r.Counts && s.Took > r.After {
					t.Errorf("took %v, but an answer came after %v: the window is in it", s.Took, r.After)
				}
			}
		})
	}
}

func rr(s string) dns.RR {
	r, err := dns.NewRR(s)
	if err != nil {
		panic(err)
	}
	return r
}

func TestDNSTruncated(t *testing.T) {
	srv := probetest.NewDNS(t, nil)
	srv.On("whole.test", probetest.DNSAnswer(real1).Truncated())
	srv.On("cut.test", probetest.DNSReply{Bytes: func(q *dns.Msg, transport string) []byte {
		m := new(dns.Msg).SetReply(q)
		m.Truncated = transport == "udp"
		m.Answer = []dns.RR{rr("cut.test. 60 IN A " + real2), rr("cut.test. 60 IN A " + real1)}
		b := wireOf(t, m)
		if m.Truncated {
			b = b[:len(b)-5] // in the middle of the second address
		}
		return b
	}})
	srv.On("denied.test", probetest.DNSCode(dns.RcodeNameError).Truncated())
	for _, tc := range []struct {
		host    string
		failure Failure
		answers []string
	}{
		{"whole.test", "", []string{real1}},
		{"cut.test", "", []string{real2, real1}},
		{"denied.test", FailureDNSNXDOMAIN, nil},
	} {
		d := DNS{Server: Server{Transport: OverUDP, Addr: srv.Addr}, Host: tc.host, Window: -1}
		steps := d.Probe(within(t, 5*time.Second), &Host{})
		if !slices.Equal(ops(steps), []Op{OpResolve, OpConnect, OpResolve}) {
			t.Fatalf("%s: steps %v", tc.host, ops(steps))
		}
		first, last := steps[0], steps[2]
		if first.Failure != "" || first.DNS.Transport != OverUDP || first.DNS.Answers != nil || !first.DNS.Replies[0].Truncated {
			t.Errorf("%s: truncated step %+v with %+v", tc.host, first, first.DNS)
		}
		if last.Failure != tc.failure || last.DNS.Transport != OverTCP || !slices.Equal(texts(last.DNS.Answers), tc.answers) {
			t.Errorf("%s: second step %+v with %+v, want %q %v", tc.host, last, last.DNS, tc.failure, tc.answers)
		}
	}
}

// A port that nobody listens at is refused by ICMP, of which Linux tells.
func TestDNSClosedPort(t *testing.T) {
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := c.LocalAddr().(*net.UDPAddr).AddrPort()
	c.Close()
	want := FailureTimeout
	if runtime.GOOS == "linux" {
		want = FailureConnectionRefused
	}
	d := DNS{Server: Server{Transport: OverUDP, Addr: addr}, Host: "a.test"}
	if s := d.Probe(within(t, time.Second), &Host{})[0]; s.Failure != want {
		t.Errorf("failure %q (%v), want %q", s.Failure, s.Err, want)
	}
}

// Each family the host has a loopback address of, through the meter.
func TestDNSFamilies(t *testing.T) {
	ifaces, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range ifaces {
		ip, ok := netip.AddrFromSlice(a.(*net.IPNet).IP)
		if !ok || !ip.IsLoopback() {
			continue
		}
		pc, err := net.ListenPacket("udp", netip.AddrPortFrom(ip.Unmap(), 0).String())
		if err != nil {
			t.Fatal(err)
		}
		var sent, received int
		var wg sync.WaitGroup
		wg.Go(func() {
			defer pc.Close()
			b := make([]byte, 1500)
			n, from, _ := pc.ReadFrom(b)
			q := new(dns.Msg)
			q.Unpack(b[:n])
			reply := wireOf(t, &dns.Msg{
				MsgHdr:   dns.MsgHdr{Id: q.Id, Response: true},
				Question: q.Question,
				Answer:   []dns.RR{rr("a.test. 60 IN A " + real1)},
			})
			sent, received = len(reply), n
			pc.WriteTo(reply, from)
		})
		m := &Meter{Net: &Host{}}
		d := DNS{Server: Server{Transport: OverUDP}, Host: "a.test", Window: -1}
		addr := pc.LocalAddr().(*net.UDPAddr).AddrPort()
		s := d.At(addr).Probe(within(t, 5*time.Second), m)[0]
		pc.SetReadDeadline(time.Unix(1, 0))
		wg.Wait()
		if s.Failure != "" || s.DNS.Replies[0].From != addr {
			t.Errorf("%v: %q (%v) %+v", addr, s.Failure, s.Err, s.DNS)
		} else if s.DNS.Replies[0].TTL == 0 && runtime.GOOS == "linux" {
			t.Errorf("%v: no TTL", addr)
		}
		if m.Sent() != int64(received) || m.Received() != int64(sent) {
			t.Errorf("%v: metered %d and %d bytes, want %d and %d", addr, m.Sent(), m.Received(), received, sent)
		}
	}
}

func TestDNSInvalid(t *testing.T) {
	for _, d := range []DNS{
		{Server: Server{Transport: OverUDP}, Host: ""},
		{Server: Server{Transport: OverUDP}, Host: strings.Repeat("a", 64) + ".test"},
		{Server: Server{Transport: OverUDP}, Host: strings.Repeat("a.", 130) + "test"},
		{Server: Server{Transport: "dnscrypt"}, Host: "a.test"},
		{Host: "a.test"},
	} {
		d.Server.Addr = netip.MustParseAddrPort("127.0.0.1:9")
		steps := d.Probe(t.Context(), nil)
		if len(steps) != 1 || steps[0].Failure != FailureInvalidArgument {
			t.Errorf("%q over %q: %+v", d.Host, d.Server.Transport, steps)
		}
	}
}

func TestBogon(t *testing.T) {
	for _, s := range strings.Fields(`0.0.0.0 10.1.2.3 100.64.0.1 127.0.0.1 169.254.1.1 172.31.255.255 192.0.0.8
		192.0.2.1 192.168.1.1 198.18.0.5 198.19.255.255 198.51.100.7 203.0.113.9 224.0.0.1 239.1.1.1 240.0.0.1 255.255.255.255
		:: ::1 ::ffff:8.8.8.8 ::8.8.8.8 64:ff9b::10.0.0.1 100::1 100:0:0:1::1 2001::1 2001:10::1 2001:20::1 2001:db8::1
		2002:0a00:0001::1 2002:7f00:0001::1 3fff::1 4000::1 5f00::1 fc00::1 fd12::1 fe80::1 fec0::1 ff02::1`) {
		if !bogon(netip.MustParseAddr(s)) {
			t.Errorf("%s is taken for an address of the Internet", s)
		}
	}
	for _, s := range strings.Fields(`1.1.1.1 8.8.8.8 9.255.255.255 11.0.0.0 91.105.192.100 100.63.255.255 100.128.0.0 149.154.167.51
		157.240.1.60 172.15.255.255 172.32.0.0 192.0.1.1 192.88.99.1 198.17.255.255 198.20.0.0 203.0.114.0 223.255.255.255
		64:ff9b::8.8.8.8 64:ff9b:1::808:808 2001:200::1 2001:67c:4e8:f002::a 2001:4860:4860::8888 2002:0808:0808::1 2606:4700:4700::1111
		2a02:6b8::1 2a03:2880:f001::60 3ffe::1`) {
		if bogon(netip.MustParseAddr(s)) {
			t.Errorf("%s is taken for a bogon", s)
		}
	}
	if !bogon(netip.Addr{}) {
		t.Error("no address is taken for one")
	}
}

func TestSameSource(t *testing.T) {
	for _, tc := range []struct {
		a, b string
		want bool
	}{
		{"1.2.3.4:53", "1.2.3.4:53", true},
		{"1.2.3.4:53", "[::ffff:1.2.3.4]:53", true},
		{"[fe80::1%eth0]:53", "[fe80::1%2]:53", true},
		{"1.2.3.4:53", "1.2.3.4:54", false},
		{"1.2.3.4:53", "1.2.3.5:53", false},
	} {
		if got := sameSource(netip.MustParseAddrPort(tc.a), netip.MustParseAddrPort(tc.b)); got != tc.want {
			t.Errorf("%s and %s: %v", tc.a, tc.b, got)
		}
	}
}

// scripted is a Net of one datagram socket inside a synctest bubble. answer is
// called with each query and delivers replies at whatever time it likes.
type scripted struct {
	answer func(q *dns.Msg, nth int, c *dnsSocket)
}

func (n scripted) DialContext(context.Context, string, string) (net.Conn, error) {
	return nil, errors.New("no connections here")
}

func (n scripted) ListenPacket(ctx context.Context, _, _ string) (net.PacketConn, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return &dnsSocket{net: n, in: make(chan datagram, 1000), closed: make(chan struct{})}, nil
}

type datagram struct {
	b    []byte
	from netip.AddrPort
	err  error
}

type dnsSocket struct {
	net     scripted
	in      chan datagram
	closed  chan struct{}
	once    sync.Once
	queries int
	by      time.Time
	writeTo netip.AddrPort
}

// deliver sends m as a reply from the resolver, after d.
func (c *dnsSocket) deliver(d time.Duration, m *dns.Msg) {
	b, err := m.Pack()
	c.raw(d, datagram{b, c.writeTo, err})
}

func (c *dnsSocket) raw(d time.Duration, p datagram) {
	time.AfterFunc(d, func() { c.in <- p })
}

func (c *dnsSocket) WriteTo(b []byte, a net.Addr) (int, error) {
	select {
	case <-c.closed:
		return 0, net.ErrClosed
	default:
	}
	q := new(dns.Msg)
	if err := q.Unpack(b); err != nil {
		return 0, err
	}
	c.queries++
	c.writeTo = a.(*net.UDPAddr).AddrPort()
	c.net.answer(q, c.queries, c)
	return len(b), nil
}

func (c *dnsSocket) ReadFrom(b []byte) (int, net.Addr, error) {
	var late <-chan time.Time
	if !c.by.IsZero() {
		late = time.After(time.Until(c.by))
	}
	select {
	case <-c.closed:
		return 0, nil, net.ErrClosed
	default:
	}
	select {
	case p := <-c.in:
		return copy(b, p.b), net.UDPAddrFromAddrPort(p.from), p.err
	case <-late:
		return 0, nil, os.ErrDeadlineExceeded
	case <-c.closed:
		return 0, nil, net.ErrClosed
	}
}

func (c *dnsSocket) Close() error                       { c.once.Do(func() { close(c.closed) }); return nil }
func (c *dnsSocket) LocalAddr() net.Addr                { return &net.UDPAddr{} }
func (c *dnsSocket) SetDeadline(t time.Time) error      { c.by = t; return nil }
func (c *dnsSocket) SetReadDeadline(t time.Time) error  { c.by = t; return nil }
func (c *dnsSocket) SetWriteDeadline(t time.Time) error { return nil }

// gives is an answer to q.
func gives(q *dns.Msg, addrs ...string) *dns.Msg {
	m := new(dns.Msg).SetReply(q)
	for _, a := range addrs {
		m.Answer = append(m.Answer, rr(q.Question[0].Name+" 60 IN A "+a))
	}
	return m
}

func TestDNSTiming(t *testing.T) {
	const ms = time.Millisecond
	for _, tc := range []struct {
		name     string
		answer   func(q *dns.Msg, nth int, c *dnsSocket)
		window   time.Duration
		deadline time.Duration
		cancel   time.Duration // 0 never
		failure  Failure
		replies  int
		queries  int
		took     time.Duration // of the step
		total    time.Duration // until Probe returns
	}{
		{
			name:    "half a second is watched after a quick answer",
			answer:  func(q *dns.Msg, _ int, c *dnsSocket) { c.deliver(40*ms, gives(q, real1)) },
			replies: 1, queries: 1, took: 40 * ms, total: 540 * ms,
		}, {
			name:    "three round trips after a slow one",
			answer:  func(q *dns.Msg, _ int, c *dnsSocket) { c.deliver(400*ms, gives(q, real1)) },
			replies: 1, queries: 1, took: 400 * ms, total: 1600 * ms,
		}, {
			name: "a second answer within the window is kept",
			answer: func(q *dns.Msg, _ int, c *dnsSocket) {
				c.deliver(40*ms, gives(q, real1))
				c.deliver(539*ms, gives(q, real2))
				c.deliver(541*ms, gives(q, real2))
			},
			replies: 2, queries: 1, took: 40 * ms, total: 540 * ms,
		}, {
			name:     "the deadline ends the window",
			answer:   func(q *dns.Msg, _ int, c *dnsSocket) { c.deliver(40*ms, gives(q, real1)) },
			deadline: 100 * ms,
			replies:  1, queries: 1, took: 40 * ms, total: 100 * ms,
		}, {
			name:    "a window of its own",
			answer:  func(q *dns.Msg, _ int, c *dnsSocket) { c.deliver(40*ms, gives(q, real1)) },
			window:  2 * time.Second,
			replies: 1, queries: 1, took: 40 * ms, total: 2040 * ms,
		}, {
			name:    "no window",
			answer:  func(q *dns.Msg, _ int, c *dnsSocket) { c.deliver(40*ms, gives(q, real1)) },
			window:  -1,
			replies: 1, queries: 1, took: 40 * ms, total: 40 * ms,
		}, {
			name: "one lost datagram is no failure",
			answer: func(q *dns.Msg, nth int, c *dnsSocket) {
				if nth == 2 {
					c.deliver(40*ms, gives(q, real1))
				}
			},
			replies: 1, queries: 2, took: 2040 * ms, total: 2540 * ms,
		}, {
			name:    "silence",
			answer:  func(*dns.Msg, int, *dnsSocket) {},
			failure: FailureTimeout, queries: 2, took: 10 * time.Second, total: 10 * time.Second,
		}, {
			name:     "silence, and no time to ask again",
			answer:   func(*dns.Msg, int, *dnsSocket) {},
			deadline: 1500 * ms,
			failure:  FailureTimeout, queries: 1, took: 1500 * ms, total: 1500 * ms,
		}, {
			name:    "cancelled",
			answer:  func(*dns.Msg, int, *dnsSocket) {},
			cancel:  700 * ms,
			failure: FailureInterrupted, queries: 1, took: 700 * ms, total: 700 * ms,
		}, {
			name:    "cancelled in the window",
			answer:  func(q *dns.Msg, _ int, c *dnsSocket) { c.deliver(40*ms, gives(q, real1)) },
			cancel:  100 * ms,
			replies: 1, queries: 1, took: 40 * ms, total: 100 * ms,
		}, {
			name: "an error in the window changes nothing",
			answer: func(q *dns.Msg, _ int, c *dnsSocket) {
				c.deliver(40*ms, gives(q, real1))
				c.raw(50*ms, datagram{err: errors.New("ICMP")})
				c.deliver(60*ms, gives(q, real2))
			},
			replies: 2, queries: 1, took: 40 * ms, total: 540 * ms,
		}, {
			name: "a flood of wrong ids ends",
			answer: func(q *dns.Msg, _ int, c *dnsSocket) {
				m := gives(q, real1)
				m.Id++
				for i := range 500 {
					c.deliver(time.Duration(i)*ms, m)
				}
			},
			failure: FailureDNSWrongQueryID, replies: maxReplies - 1, queries: 1, took: 31 * ms, total: 31 * ms,
		}, {
			name: "a flood from strangers ends",
			answer: func(q *dns.Msg, _ int, c *dnsSocket) {
				b, _ := gives(q, real1).Pack()
				for i := range 500 {
					c.raw(time.Duration(i)*ms, datagram{b: b, from: netip.MustParseAddrPort("192.0.2.1:53")})
				}
			},
			failure: FailureDNSServerMisbehaving, replies: maxReplies - 1, queries: 1, took: 31 * ms, total: 31 * ms,
		}, {
			name: "the answer behind many wrong ids is kept",
			answer: func(q *dns.Msg, _ int, c *dnsSocket) {
				m := gives(q, real1)
				m.Id++
				for i := range 20 {
					c.deliver(time.Duration(i)*ms, m)
				}
				c.deliver(40*ms, gives(q, real1))
			},
			replies: maxReplies, queries: 1, took: 40 * ms, total: 540 * ms,
		}, {
			name: "a flood in the window ends",
			answer: func(q *dns.Msg, _ int, c *dnsSocket) {
				for i := range 500 {
					c.deliver(time.Duration(i+1)*ms, gives(q, real1))
				}
			},
			replies: maxReplies, queries: 1, took: 1 * ms, total: 32 * ms,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				if tc.deadline == 0 {
					tc.deadline = 10 * time.Second
				}
				ctx, cancel := context.WithTimeout(t.Context(), tc.deadline)
				defer cancel()
				if tc.cancel > 0 {
					time.AfterFunc(tc.cancel, cancel)
				}
				d := DNS{
					Server: Server{Transport: OverUDP, Addr: netip.MustParseAddrPort("[2001:db8::53]:53")},
					Host:   "a.test", Window: tc.window,
				}
				start := time.Now()
				s := d.Probe(ctx, scripted{tc.answer})[0]
				if s.Failure != tc.failure || s.Took != tc.took || time.Since(start) != tc.total {
					t.Errorf("failure %q (%v), took %v, all %v; want %q, %v, %v",
						s.Failure, s.Err, s.Took, time.Since(start), tc.failure, tc.took, tc.total)
				}
				if len(s.DNS.Replies) != tc.replies || s.DNS.Queries != tc.queries {
					t.Errorf("%d replies, %d queries; want %d, %d", len(s.DNS.Replies), s.DNS.Queries, tc.replies, tc.queries)
				}
				if (s.Failure == "") != (len(s.DNS.Answers) == 1) {
					t.Errorf("failure %q with answers %v", s.Failure, s.DNS.Answers)
				}
			})
		})
	}
}

// Both queries are one: what answers the first may come after the second.
func TestDNSSecondQueryIsTheSame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ids []uint16
		d := DNS{Server: Server{Transport: OverUDP, Addr: netip.MustParseAddrPort("192.0.2.1:53")}, Host: "a.test"}
		s := d.Probe(t.Context(), scripted{func(q *dns.Msg, nth int, c *dnsSocket) {
			ids = append(ids, q.Id)
			if nth == 1 {
				c.deliver(2100*time.Millisecond, gives(q, real1))
			}
		}})[0]
		if len(ids) != 2 || ids[0] != ids[1] || s.Failure != "" {
			t.Errorf("ids %v, failure %q", ids, s.Failure)
		}
	})
}

func TestDNSQuery(t *testing.T) {
	seen := map[uint16]bool{}
	for range 8 {
		q, err := DNS{Server: Server{Transport: OverUDP}, Host: "web.whatsapp.com", Type: dns.TypeAAAA}.query(true)
		if err != nil {
			t.Fatal(err)
		}
		m := new(dns.Msg)
		if err := m.Unpack(q.wire); err != nil {
			t.Fatal(err)
		}
		seen[m.Id] = true
		opt := m.IsEdns0()
		if !m.RecursionDesired || m.Response || len(m.Question) != 1 || m.Question[0] != (dns.Question{Name: "web.whatsapp.com.", Qtype: 28, Qclass: 1}) ||
			opt == nil || opt.UDPSize() != 1232 || len(opt.Option) != 0 || len(m.Extra) != 1 {
			t.Errorf("query %v", m)
		}
	}
	if len(seen) < 3 {
		t.Errorf("ids %v are not random", seen)
	}
	if q, err := (DNS{Server: Server{Transport: OverHTTPS}, Host: "a.test"}).query(true); err != nil || q.id != 0 || q.wire[0] != 0 || q.wire[1] != 0 {
		t.Errorf("DoH: id %v, %v", q.id, err)
	}
}

// FuzzDNSReply: whatever comes is read without a panic, within bounds, and only
// a reply with our id to our question counts.
func FuzzDNSReply(f *testing.F) {
	const id = 0x1234
	q := &dnsQuery{DNS: DNS{Host: "web.whatsapp.com", Type: dns.TypeA}, id: id, name: "web.whatsapp.com."}
	m := &dns.Msg{MsgHdr: dns.MsgHdr{Id: id, Response: true, RecursionAvailable: true}, Compress: true,
		Question: []dns.Question{ask("web.whatsapp.com")}}
	f.Add(wireOf(f, m))
	m.Answer = []dns.RR{rr("web.whatsapp.com. 60 IN CNAME mmx-ds.cdn.whatsapp.net."), rr("mmx-ds.cdn.whatsapp.net. 60 IN A " + real1)}
	m.SetEdns0(1232, false)
	whole := wireOf(f, m)
	f.Add(whole)
	f.Add(whole[:len(whole)-9])
	m.Truncated = true
	cut := wireOf(f, m)
	f.Add(cut[:len(cut)-20])
	m.Truncated, m.Rcode, m.Authoritative, m.Answer = false, dns.RcodeNameError, true, nil
	f.Add(wireOf(f, m))
	m.Ns = []dns.RR{rr("whatsapp.com. 60 IN SOA a.ns.whatsapp.net. dns.facebook.com. 1 14400 1800 604800 300")}
	f.Add(wireOf(f, m))
	m.Rcode, m.Ns, m.Answer = 0, nil, []dns.RR{rr("web.whatsapp.com. 60 IN CNAME web.whatsapp.com."), rr("x.test. 60 IN A 127.0.0.1")}
	f.Add(wireOf(f, m))
	// Names that point at themselves, at each other, and forward.
	head := []byte{0x12, 0x34, 0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0}
	tail := []byte{0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 157, 240, 1, 60}
	f.Add(slices.Concat(head, []byte{0xc0, 12, 0, 1, 0, 1}))
	f.Add(slices.Concat(head, []byte{0xc0, 14, 0xc0, 12, 0, 1, 0, 1}, tail))
	f.Add(slices.Concat(head, []byte{3, 'w', 'e', 'b', 0xc0, 30, 0, 1, 0, 1, 0xc0, 12}, tail))
	f.Add([]byte("HTTP/1.1 302 Found\r\nLocation: http://warning.test/\r\n\r\n"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		r, answers, err := q.read(b)
		switch {
		case r.Counts && (len(b) < 12 || b[0] != id>>8 || b[1] != id&0xff || b[2]&0x80 == 0):
			t.Errorf("counts: %+v", r)
		case !r.Counts && (err == nil || answers != nil):
			t.Errorf("does not count, but %v, %v", err, answers)
		case r.RCode < 0 && (r.Counts || r.WrongID || r.Addrs != nil):
			t.Errorf("not decoded: %+v", r)
		case len(answers) > maxReplyAddrs || len(r.Addrs) > maxReplyAddrs || len(r.CNAMEs) > maxReplyNames:
			t.Errorf("%d answers, %d addresses, %d names", len(answers), len(r.Addrs), len(r.CNAMEs))
		case err == nil && len(answers) == 0 && !r.Truncated:
			t.Error("worked without an answer")
		}
		if err != nil && Classify(err) == FailureUnknown {
			t.Errorf("%v is not classified", err)
		}
		if slices.ContainsFunc(answers, bogon) != (err == errDNSBogon) {
			t.Errorf("answers %v with %v", answers, err)
		}
		if slices.ContainsFunc(answers, netip.Addr.Is6) {
			t.Errorf("answers %v to an A query", answers)
		}
	})
}

// resolver is a scripted resolver that speaks TLS, and how to ask it each way.
func resolver(t *testing.T, protos ...string) (*probetest.DNS, map[string]Server) {
	t.Helper()
	ca := probetest.NewCA(t, "resolver CA")
	trust, err := NewTrust(ca.PEM())
	if err != nil {
		t.Fatal(err)
	}
	srv := probetest.NewDNS(t, &tls.Config{Certificates: []tls.Certificate{ca.Issue(t, nil, "dns.test")}, NextProtos: protos})
	return srv, map[string]Server{
		OverTCP:   {Name: "google", Transport: OverTCP, Addr: srv.Addr},
		OverTLS:   {Name: "google", Transport: OverTLS, Addr: srv.DoT, ServerName: "dns.test", Trust: trust},
		OverHTTPS: {Name: "google", Transport: OverHTTPS, Addr: srv.DoH, ServerName: "dns.test", Path: "/dns-query", Trust: trust},
	}
}

func ops(steps []Step) (ops []Op) {
	for _, s := range steps {
		ops = append(ops, s.Op)
	}
	return ops
}

func TestDNSOverStreams(t *testing.T) {
	srv, servers := resolver(t)
	srv.On("good.test", probetest.DNSAnswer(real1, real6))
	srv.On("gone.test", probetest.DNSForgedNXDOMAIN())
	srv.On("other.test", probetest.DNSAnswer(real1).WrongID())
	srv.On("private.test", probetest.DNSAnswer("192.168.1.1"))
	srv.On("mute.test")
	srv.On("garbage.test", probetest.DNSBytes([]byte("no DNS")))
	srv.On("long.test", probetest.DNSBytes(make([]byte, maxDNSMessage+1)))
	for transport, want := range map[string][]Op{
		OverTCP:   {OpConnect, OpResolve},
		OverTLS:   {OpConnect, OpTLSHandshake, OpResolve},
		OverHTTPS: {OpConnect, OpTLSHandshake, OpResolve},
	} {
		for host, failure := range map[string]Failure{
			"good.test":    "",
			"gone.test":    FailureDNSNXDOMAIN,
			"other.test":   FailureDNSWrongQueryID,
			"private.test": FailureDNSBogon,
			"mute.test":    FailureTimeout,
			"garbage.test": FailureDNSServerMisbehaving,
			"long.test":    FailureDNSServerMisbehaving,
		} {
			t.Run(transport+"/"+host, func(t *testing.T) {
				t.Parallel()
				d := DNS{Server: servers[transport], Host: host}
				timeout := 5 * time.Second
				if host == "mute.test" {
					timeout = 500 * time.Millisecond
				}
				steps := d.Probe(within(t, timeout), &Meter{Net: &Host{}})
				if !slices.Equal(ops(steps), want) {
					t.Fatalf("steps %v, want %v", ops(steps), want)
				}
				s := steps[len(steps)-1]
				if s.Failure != failure || s.DNS.Resolver != "google" || s.DNS.Transport != transport || s.DNS.Queries != 1 {
					t.Errorf("failure %q (%v), %+v", s.Failure, s.Err, s.DNS)
				}
				if failure == "" && (!slices.Equal(texts(s.DNS.Answers), []string{real1}) || s.DNS.Replies[0].From != d.Server.Addr) {
					t.Errorf("evidence %+v", s.DNS)
				}
				if host == "gone.test" && (!s.DNS.Replies[0].Authoritative || s.DNS.Replies[0].Authority != 0 || s.DNS.Replies[0].RCode != 3) {
					t.Errorf("evidence %+v", s.DNS)
				}
				if len(s.DNS.Replies) > 1 {
					t.Errorf("%d replies over one connection", len(s.DNS.Replies))
				}
				if runtime.GOOS == "linux" && s.TCP == nil {
					t.Error("no TCP_INFO")
				}
			})
		}
	}
}

func TestDNSOverTCPHostile(t *testing.T) {
	query := func(c net.Conn) { io.ReadFull(c, make([]byte, 20)) }
	for _, tc := range []struct {
		name    string
		server  func(c net.Conn)
		failure Failure
	}{
		{"silent", probetest.Stall, FailureTimeout},
		{"closing", probetest.FIN, FailureEOF},
		{"resetting", probetest.Reset, FailureConnectionReset},
		{"stopping within the length", func(c net.Conn) { query(c); c.Write([]byte{0}); io.Copy(io.Discard, c) }, FailureTimeout},
		{"promising much", func(c net.Conn) { query(c); c.Write([]byte{0xff, 0xff}); io.Copy(c, zeros{}) }, FailureDNSServerMisbehaving},
		{"answering nothing", func(c net.Conn) { query(c); c.Write([]byte{0, 0}); io.Copy(io.Discard, c) }, FailureDNSServerMisbehaving},
		{"dripping", func(c net.Conn) {
			query(c)
			for b := []byte{1, 0}; ; b = []byte{0} {
				if _, err := c.Write(b); err != nil {
					return
				}
				time.Sleep(20 * time.Millisecond)
			}
		}, FailureTimeout},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			d := DNS{Server: Server{Transport: OverTCP, Addr: probetest.ServeTCP(t, tc.server)}, Host: "a.test"}
			start := time.Now()
			steps := d.Probe(within(t, 500*time.Millisecond), &Host{})
			s := steps[len(steps)-1]
			if s.Op != OpResolve || s.Failure != tc.failure {
				t.Errorf("%s failed with %q (%v), want %q", s.Op, s.Failure, s.Err, tc.failure)
			}
			if took := time.Since(start); took > time.Second {
				t.Errorf("took %v", took)
			}
		})
	}
}

// zeros never ends.
type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

func TestDNSOverHTTPS(t *testing.T) {
	for _, proto := range []string{"HTTP/1.1", "HTTP/2.0"} {
		srv, servers := resolver(t, map[string]string{"HTTP/1.1": "http/1.1", "HTTP/2.0": "h2"}[proto])
		var seen *http.Request
		answer := func(w http.ResponseWriter, r *http.Request, typ string, status int, body []byte) {
			w.Header().Set("Content-Type", typ)
			w.Header().Set("Location", "https://warning.test/")
			w.Header().Set("Set-Cookie", "a=b")
			w.WriteHeader(status)
			w.Write(body)
		}
		for _, tc := range []struct {
			name    string
			serve   http.HandlerFunc
			failure Failure
			code    int
		}{
			{"redirect", func(w http.ResponseWriter, r *http.Request) { answer(w, r, "text/html", 302, nil) }, FailureHTTPUnexpectedStatus, 302},
			{"block page", func(w http.ResponseWriter, r *http.Request) { answer(w, r, "text/html", 200, []byte("<html>")) }, FailureDNSServerMisbehaving, 200},
			{"error", func(w http.ResponseWriter, r *http.Request) { answer(w, r, dohType, 503, nil) }, FailureHTTPUnexpectedStatus, 503},
			{"no body", func(w http.ResponseWriter, r *http.Request) { answer(w, r, dohType, 200, nil) }, FailureDNSServerMisbehaving, 200},
			{"endless body", func(w http.ResponseWriter, r *http.Request) {
				answer(w, r, dohType, 200, nil)
				io.Copy(w, zeros{})
			}, FailureDNSServerMisbehaving, 200},
			{"hundred headers", func(w http.ResponseWriter, r *http.Request) {
				for i := range 100 {
					w.Header().Set(fmt.Sprintf("X-%d", i), strings.Repeat("x", 1000))
				}
				answer(w, r, dohType, 200, nil)
			}, FailureDNSServerMisbehaving, 0},
			{"interim answers", func(w http.ResponseWriter, r *http.Request) {
				for r.Context().Err() == nil {
					w.WriteHeader(http.StatusEarlyHints)
				}
			}, FailureDNSServerMisbehaving, 0},
			{"abort", func(w http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) }, "", 0},
			{"stall within the body", func(w http.ResponseWriter, r *http.Request) {
				answer(w, r, dohType, 200, []byte{0, 0})
				w.(http.Flusher).Flush()
				<-r.Context().Done()
			}, FailureTimeout, 200},
		} {
			t.Run(proto+"/"+tc.name, func(t *testing.T) {
				srv.OnHTTP(func(w http.ResponseWriter, r *http.Request) { seen = r; tc.serve(w, r) })
				m := &Meter{Net: &Host{}}
				start := time.Now()
				timeout := 5 * time.Second
				if tc.failure == FailureTimeout {
					timeout = 500 * time.Millisecond
				}
				steps := DNS{Server: servers[OverHTTPS], Host: "a.test"}.Probe(within(t, timeout), m)
				s := steps[len(steps)-1]
				if s.Op != OpResolve || s.Failure == "" || tc.failure != "" && s.Failure != tc.failure {
					t.Errorf("%s failed with %q (%v), want %q", s.Op, s.Failure, s.Err, tc.failure)
				}
				code := 0
				if s.Reply != nil {
					code = s.Reply.Code
				}
				if code != tc.code {
					t.Errorf("status %d, want %d", code, tc.code)
				}
				if m.Received() > maxDNSStream || time.Since(start) > timeout+time.Second {
					t.Errorf("read %d bytes in %v", m.Received(), time.Since(start))
				}
				if seen.Proto != proto || seen.Method != "POST" || seen.URL.Path != "/dns-query" || seen.UserAgent() != "" ||
					seen.Host != fmt.Sprintf("dns.test:%d", srv.DoH.Port()) || len(seen.Cookies()) != 0 {
					t.Errorf("request %+v", seen)
				}
			})
		}
	}
}

// A resolver with another's certificate is not asked.
func TestDNSOverUntrustedTLS(t *testing.T) {
	srv, servers := resolver(t)
	srv.On("a.test", probetest.DNSAnswer(real1))
	for _, transport := range []string{OverTLS, OverHTTPS} {
		for _, tc := range []struct {
			change  func(*Server)
			failure Failure
		}{
			{func(s *Server) { s.Trust = nil }, FailureSSLUnknownAuthority},
			{func(s *Server) { s.ServerName = "other.test" }, FailureSSLInvalidHostname},
		} {
			server := servers[transport]
			tc.change(&server)
			steps := DNS{Server: server, Host: "a.test"}.Probe(within(t, 5*time.Second), &Host{})
			if s := steps[len(steps)-1]; s.Op != OpTLSHandshake || s.Failure != tc.failure {
				t.Errorf("%s: %s failed with %q (%v), want %q", transport, s.Op, s.Failure, s.Err, tc.failure)
			}
			if srv.Asked("a.test", transport) != 0 {
				t.Errorf("%s: asked all the same", transport)
			}
		}
	}
}
