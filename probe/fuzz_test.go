package probe

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/miekg/dns"
	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/messenger-probe/messenger-probe/probe/probetest"
)

// The fuzz targets of this file give whole probers a peer whose every byte is
// the fuzzer's. Whatever it says, a run ends by itself, nothing panics, a step
// fails at most once and as the last one, and evidence keeps to its bounds.

// fuzzPeer is where all of it seems to come from.
var fuzzPeer = netip.MustParseAddrPort("192.0.2.77:443")

const fuzzHost = "fuzz.example"

// A fuzzNet is a network with one peer.
type fuzzNet struct {
	stream    func(net.Conn)       // the peer's end of a connection; it may not wait for more
	datagrams []byte               // see next
	fit       func(b, sent []byte) // makes b an answer to what was sent; nil: leaves it

	running sync.WaitGroup
}

func (n *fuzzNet) DialContext(context.Context, string, string) (net.Conn, error) {
	ours, theirs := net.Pipe()
	n.running.Go(func() {
		defer theirs.Close()
		n.stream(theirs)
	})
	return ours, nil
}

func (n *fuzzNet) ListenPacket(context.Context, string, string) (net.PacketConn, error) {
	return &fuzzSocket{net: n, left: n.datagrams, asked: make(chan struct{}), closed: make(chan struct{})}, nil
}

// utter says b, whatever the other side does, and hangs up.
func utter(c net.Conn, b []byte) {
	var hearing sync.WaitGroup
	hearing.Go(func() { io.Copy(io.Discard, c) })
	c.Write(b)
	c.Close()
	hearing.Wait()
}

// says is a peer that waits for the first words and says b.
func says(b []byte) func(net.Conn) {
	return func(c net.Conn) {
		if _, err := c.Read(make([]byte, 16<<10)); err == nil {
			utter(c, b)
		}
	}
}

// inTLS is a peer behind a handshake that works.
func inTLS(conf *tls.Config, peer func(net.Conn)) func(net.Conn) {
	return func(raw net.Conn) {
		if c := tls.Server(raw, conf); c.Handshake() == nil {
			peer(c)
		}
	}
}

// A fuzzSocket delivers datagrams once something was sent, and then has nothing
// more: time seems to be up each time one is awaited.
type fuzzSocket struct {
	net  *fuzzNet
	left []byte

	mu            sync.Mutex
	sent          []byte
	asked, closed chan struct{}
}

func (c *fuzzSocket) WriteTo(b []byte, _ net.Addr) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.sent == nil {
		c.sent = slices.Clone(b)
		close(c.asked)
	}
	return len(b), nil
}

// ReadFrom delivers the next datagram: after two bytes of length, whose top bit
// says that a stranger sent it, and whose next that it is to fit the question.
func (c *fuzzSocket) ReadFrom(b []byte) (int, net.Addr, error) {
	select {
	case <-c.asked:
	case <-c.closed:
		return 0, nil, net.ErrClosed
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.left) < 2 {
		if c.left != nil {
			c.left = nil
			return 0, nil, os.ErrDeadlineExceeded
		}
		return 0, nil, net.ErrClosed
	}
	head := binary.BigEndian.Uint16(c.left)
	n := min(int(head&0x3fff), len(c.left)-2)
	from := fuzzPeer
	if head&0x8000 != 0 {
		from = netip.MustParseAddrPort("192.0.2.78:443")
	}
	n2 := copy(b, c.left[2:2+n])
	c.left = c.left[2+n:]
	if head&0x4000 != 0 && c.net.fit != nil {
		c.net.fit(b[:n2], c.sent)
	}
	return n2, net.UDPAddrFromAddrPort(from), nil
}

func (c *fuzzSocket) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case <-c.closed:
	default:
		close(c.closed)
	}
	return nil
}

func (c *fuzzSocket) LocalAddr() net.Addr              { return &net.UDPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 1} }
func (c *fuzzSocket) SetDeadline(time.Time) error      { return nil }
func (c *fuzzSocket) SetReadDeadline(time.Time) error  { return nil }
func (c *fuzzSocket) SetWriteDeadline(time.Time) error { return nil }

// datagrams is some from the peer that fit the question, as fuzzSocket has them.
func datagrams(all ...[]byte) (b []byte) {
	for _, d := range all {
		b = binary.BigEndian.AppendUint16(b, uint16(len(d))|0x4000)
		b = append(b, d...)
	}
	return b
}

// endure runs p against n and holds what it tells to what every run must keep.
func endure(t *testing.T, p Prober, n *fuzzNet) []Step {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	m := &Meter{Net: n}
	steps := p.Probe(ctx, m)
	n.running.Wait()
	if ctx.Err() != nil {
		t.Errorf("%T did not end by itself", p)
	}
	if len(steps) == 0 || len(steps) > 10 {
		t.Errorf("%T: %d steps", p, len(steps))
	}
	for i, s := range steps {
		if s.Failure == "" {
			if s.Err != nil {
				t.Errorf("%T: %s worked with %v", p, s.Op, s.Err)
			}
			continue
		}
		if !slices.Contains(Failures(), s.Failure) || i < len(steps)-1 || s.Err == nil {
			t.Errorf("%T: step %d of %d, %s, failed with %q: %v", p, i, len(steps), s.Op, s.Failure, s.Err)
		}
		// Else a peer could make outcomes void. (That one is of fuzzSocket's end.)
		if s.Failure.Local() && s.Failure != FailureConnectionAlreadyClosed {
			t.Errorf("%T: a peer's words make %s fail with %q: %v", p, s.Op, s.Failure, s.Err)
		}
	}
	for _, text := range heard(steps) {
		if len(text) > maxName || !utf8.ValidString(text) {
			t.Errorf("%T: evidence of %d bytes: %.200q", p, len(text), text)
		}
	}
	if m.Received() > maxReceived+maxDNSMessage {
		t.Errorf("%T took in %d bytes", p, m.Received())
	}
	return steps
}

// heard is what evidence holds that may come from the network.
func heard(steps []Step) (all []string) {
	chain := func(certs []Certificate) {
		for _, c := range certs {
			all = append(append(all, c.Subject, c.Issuer), c.DNSNames...)
		}
	}
	for _, s := range steps {
		if s.DNS != nil {
			for _, r := range s.DNS.Replies {
				all = append(all, r.CNAMEs...)
			}
		}
		if s.TLS != nil {
			chain(s.TLS.Chain)
		}
		if s.QUIC != nil {
			chain(s.QUIC.Chain)
		}
		if s.Reply != nil {
			all = append(append(all, s.Reply.Redirect, s.Reply.Proof), s.Reply.Marks...)
		}
	}
	return all
}

// fuzzConf is a server that everybody believes who asks for no more.
func fuzzConf(tb testing.TB) *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{probetest.NewCA(tb, "fuzz").Issue(tb, nil, fuzzHost)}, NextProtos: []string{"http/1.1"}}
}

var anybody = &Trust{Any: true}

// flight is what a TLS server of a version says to the first flight of p.
func flight(tb testing.TB, version uint16, p Prober) []byte {
	conf := fuzzConf(tb)
	conf.MaxVersion, conf.NextProtos = version, nil
	var said []byte
	n := &fuzzNet{stream: func(c net.Conn) { tls.Server(&overheard{c, &said}, conf).Handshake() }}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	p.Probe(ctx, n)
	n.running.Wait()
	return said
}

// overheard keeps what is written.
type overheard struct {
	net.Conn
	said *[]byte
}

func (c *overheard) Write(b []byte) (int, error) {
	*c.said = append(*c.said, b...)
	return c.Conn.Write(b)
}

// FuzzTLSAnswer: the bytes of who stands where a TLS server should.
func FuzzTLSAnswer(f *testing.F) {
	probers := []Prober{
		TLS{Addr: fuzzPeer, ServerName: fuzzHost, ALPN: []string{"h2"}},
		TLS{Addr: fuzzPeer, ServerName: fuzzHost, Hello: HelloX25519, Split: SplitRecord},
		BrowserHello{Addr: fuzzPeer, ServerName: fuzzHost},
	}
	for _, v := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for i, p := range probers[:2] {
			f.Add(byte(i), flight(f, v, p))
		}
	}
	f.Add(byte(2), serverHello(nil, 0xc02f, tls.VersionTLS12))
	f.Add(byte(0), []byte{21, 3, 3, 0, 2, 2, 40})
	f.Add(byte(1), []byte("HTTP/1.1 403 Forbidden\r\n\r\n"))
	f.Add(byte(0), append([]byte{22, 3, 3, 0x3f, 0xff, 11, 0xff, 0xff, 0xff}, make([]byte, 100)...))
	f.Fuzz(func(t *testing.T, which byte, b []byte) {
		p := probers[int(which)%len(probers)]
		steps := endure(t, p, &fuzzNet{stream: says(b)})
		if _, browser := p.(BrowserHello); !browser && len(steps) == 2 && steps[1].Failure == "" {
			t.Errorf("a handshake worked, and nobody has a key: %x", b)
		}
	})
}

// FuzzChain: certificates as somebody presents them.
func FuzzChain(f *testing.F) {
	ca := probetest.NewCA(f, "fuzz")
	good := ca.Issue(f, nil, fuzzHost).Certificate[0]
	f.Add(good, ca.Cert.Raw)
	f.Add(ca.Cert.Raw, good)
	f.Add(probetest.SelfSigned(f, fuzzHost, "*.example", "192.0.2.1").Certificate[0], []byte{})
	pinned := &Trust{Pins: [][32]byte{ca.Hash()}}
	f.Fuzz(func(t *testing.T, leaf, above []byte) {
		var chain []*x509.Certificate
		for _, der := range [][]byte{leaf, above} {
			if c, err := x509.ParseCertificate(der); err == nil {
				chain = append(chain, c)
			}
		}
		facts := chainFacts(chain)
		for _, text := range heard([]Step{{TLS: &TLSInfo{Chain: facts}}}) {
			if len(text) > maxName || !utf8.ValidString(text) {
				t.Errorf("evidence of %d bytes", len(text))
			}
		}
		if err := (*Trust)(nil).verify(tls.ConnectionState{PeerCertificates: chain}, fuzzHost); err == nil {
			t.Error("Mozilla's list has a root of ours")
		}
		pinned.verify(tls.ConnectionState{PeerCertificates: chain}, fuzzHost)
	})
}

// FuzzQUICAnswer: the datagrams of who stands where a QUIC server should.
func FuzzQUICAnswer(f *testing.F) {
	probers := []Prober{QUIC{Addr: fuzzPeer, ServerName: fuzzHost}, QUICPing{Addr: fuzzPeer}}
	long := func(version uint32, rest ...byte) []byte {
		b := binary.BigEndian.AppendUint32([]byte{0xc0}, version)
		return append(append(append(b, 8), make([]byte, 8)...), rest...)
	}
	retry := append(long(1, 8, 1, 2, 3, 4, 5, 6, 7, 8, 't', 'o', 'k', 'e', 'n'), make([]byte, 16)...)
	retry[0] = 0xf0
	f.Add(byte(0), datagrams(long(0, append(make([]byte, 9), 0, 0, 0, 2, 0x6b, 0x33, 0x43, 0xcf)...)))
	f.Add(byte(1), datagrams(long(0, append([]byte{8, 0, 0, 0, 0, 0, 0, 0, 0}, 0, 0, 0, 1)...)))
	f.Add(byte(0), datagrams(retry, retry))
	f.Add(byte(0), datagrams(long(1, append([]byte{8, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0x44, 0xb0}, make([]byte, 1200)...)...)))
	f.Add(byte(0), datagrams([]byte{0x40, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22}))
	f.Fuzz(func(t *testing.T, which byte, b []byte) {
		p := probers[int(which)%len(probers)]
		steps := endure(t, p, &fuzzNet{datagrams: b, fit: fitQUIC})
		if _, ping := p.(QUICPing); !ping && steps[0].Failure == "" {
			t.Errorf("a handshake worked, and nobody has a key: %x", b)
		}
	})
}

// fitQUIC gives a long header the connection IDs that an answer has, where they
// have our length.
func fitQUIC(b, sent []byte) {
	q := cursor{b: sent[5:]}
	destination := q.take(q.uint(1))
	source := q.take(q.uint(1))
	if len(b) < 5 || b[0]&0x80 == 0 {
		return
	}
	a := cursor{b: b[5:]}
	if to := a.take(a.uint(1)); len(to) == len(source) {
		copy(to, source)
	}
	if from := a.take(a.uint(1)); len(from) == len(destination) {
		copy(from, destination)
	}
}

// FuzzDNSDatagrams: what comes to the socket that a resolver was asked from.
func FuzzDNSDatagrams(f *testing.F) {
	m := &dns.Msg{MsgHdr: dns.MsgHdr{Response: true}, Question: []dns.Question{ask(fuzzHost)}}
	m.Answer = []dns.RR{rr(fuzzHost + ". 60 IN A " + real1)}
	good := wireOf(f, m)
	m.Rcode, m.Answer = dns.RcodeNameError, nil
	f.Add(datagrams(good))
	f.Add(datagrams(wireOf(f, m), good))
	m.Truncated = true
	f.Add(datagrams(wireOf(f, m)))
	f.Add(append([]byte{0xc0, 3, 1, 2, 3}, datagrams(good[:20], good)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		p := DNS{Server: Server{Transport: OverUDP, Addr: fuzzPeer}, Host: fuzzHost, Type: dns.TypeA}
		n := &fuzzNet{datagrams: b, stream: says(nil), fit: func(b, sent []byte) { copy(b[:min(len(b), 2)], sent) }}
		for _, s := range endure(t, p, n) {
			if s.DNS == nil {
				continue
			}
			if len(s.DNS.Replies) > maxReplies || len(s.DNS.Answers) > maxReplyAddrs {
				t.Errorf("%d replies, %d answers", len(s.DNS.Replies), len(s.DNS.Answers))
			}
			if len(s.DNS.Answers) > 0 && !slices.ContainsFunc(s.DNS.Replies, func(r DNSReply) bool { return r.Counts && r.From == fuzzPeer }) {
				t.Errorf("answers of nobody who was asked: %+v", s.DNS)
			}
		}
	})
}

// FuzzDNSStream: what a resolver says over TCP, DoT and DoH.
func FuzzDNSStream(f *testing.F) {
	conf := fuzzConf(f)
	conf.NextProtos = nil
	h2 := fuzzConf(f)
	h2.NextProtos = []string{"h2"}
	m := &dns.Msg{MsgHdr: dns.MsgHdr{Response: true}, Question: []dns.Question{ask(fuzzHost)}}
	m.Answer = []dns.RR{rr(fuzzHost + ". 60 IN A " + real1)}
	good := wireOf(f, m)
	f.Add(byte(0), append(binary.BigEndian.AppendUint16(nil, uint16(len(good))), good...))
	f.Add(byte(1), []byte{0xff, 0xff, 0})
	f.Add(byte(2), []byte("HTTP/1.1 200 OK\r\nContent-Type: application/dns-message\r\nContent-Length: "+strconv.Itoa(len(good))+"\r\n\r\n"+string(good)))
	f.Add(byte(2), []byte("HTTP/1.1 302 Found\r\nLocation: //x\r\n\r\n"))
	f.Add(byte(3), []byte("\x00\x00\x00\x04\x00\x00\x00\x00\x00\x00\x00\x07\x01\x05\x00\x00\x00\x01\x88\xbe\xc0\xbf\x8b\x10")) // SETTINGS, HEADERS of 405
	f.Fuzz(func(t *testing.T, which byte, b []byte) {
		s := Server{Addr: fuzzPeer, ServerName: fuzzHost, Path: "/dns-query", Trust: anybody}
		n := &fuzzNet{stream: says(b)}
		switch which % 4 {
		case 0:
			s.Transport = OverTCP
		case 1:
			s.Transport, n.stream = OverTLS, inTLS(conf, n.stream)
		case 2:
			s.Transport, n.stream = OverHTTPS, inTLS(conf, n.stream)
		case 3:
			s.Transport, n.stream = OverHTTPS, inTLS(h2, n.stream)
		}
		endure(t, DNS{Server: s, Host: fuzzHost, Type: dns.TypeA}, n)
	})
}

// FuzzHTTPAnswer: what a verified server says to a request, a transfer and a
// wish for WebSocket, and what anybody says to a request in clear.
func FuzzHTTPAnswer(f *testing.F) {
	conf := fuzzConf(f)
	expect := Expect{Status: 200, Type: "application/json", JSON: map[string]string{"ok": "true"}, Headers: map[string]string{"Server": "x"}}
	probers := []Prober{
		HTTP{Addr: fuzzPeer, Host: fuzzHost, Expect: expect, Trust: anybody},
		HTTP{Addr: fuzzPeer, Host: fuzzHost, Expect: Expect{Contains: []string{"<title>"}}, Plain: true},
		Transfer{Addr: fuzzPeer, Host: fuzzHost, Bytes: 1000, Trust: anybody},
		Transfer{Addr: fuzzPeer, Host: fuzzHost, Direction: Upload, Bytes: 1000, Trust: anybody},
		WebSocket{Addr: fuzzPeer, ServerName: fuzzHost, Path: "/", Trust: anybody},
		MTProto{Addr: fuzzPeer, Transport: "http"},
	}
	for i := range probers {
		for _, s := range []string{botAPI,
			"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nServer: x\r\n\r\n{\"ok\":true}",
			"HTTP/1.1 206 Partial Content\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
			"HTTP/1.1 302 Found\r\nLocation: http://warning.rt.ru/?id=1\r\n\r\n",
			"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: x\r\n\r\n",
			"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 451 Unavailable\r\n\r\n<title>",
		} {
			f.Add(byte(i), []byte(s))
		}
	}
	f.Fuzz(func(t *testing.T, which byte, b []byte) {
		p := probers[int(which)%len(probers)]
		n := &fuzzNet{stream: says(b)}
		plain := false
		switch q := p.(type) {
		case HTTP:
			plain = q.Plain
		case MTProto:
			plain = true
		}
		if !plain {
			n.stream = inTLS(conf, n.stream)
		}
		steps := endure(t, p, n)
		if _, ws := p.(WebSocket); ws && steps[len(steps)-1].Failure == "" {
			t.Errorf("a WebSocket without the accept key: %q", b)
		}
	})
}

// FuzzFrames: what comes after a handshake of WebSocket that worked, and what a
// verified OneMe server says.
func FuzzFrames(f *testing.F) {
	conf := fuzzConf(f)
	probers := []Prober{
		Noise{Addr: fuzzPeer, ServerName: fuzzHost, Over: "websocket", Trust: anybody},
		MTProto{Addr: fuzzPeer, ServerName: fuzzHost, Transport: "websocket", DC: 2, Trust: anybody},
		OneMe{Addr: fuzzPeer, ServerName: fuzzHost, Over: OneMeJSON, Trust: anybody},
		OneMe{Addr: fuzzPeer, ServerName: fuzzHost, Over: OneMeBinary, Trust: anybody},
		OneMe{Addr: fuzzPeer, ServerName: fuzzHost, Trust: anybody},
	}
	for i := range probers {
		for _, frame := range [][]byte{
			probetest.WSFrame(probetest.WSBinary, 4, false, []byte("\xfe\xff\xff\xff")),
			probetest.WSFrame(probetest.WSText, 30, false, []byte(`{"cmd":1,"seq":1,"opcode":6}  `)),
			probetest.WSFrame(probetest.WSClose, 2, false, []byte{3, 0xe8}),
			probetest.WSFrame(probetest.WSBinary&0x7f, 1<<40, false, []byte("x")),
			append(probetest.WSFrame(probetest.WSPing, 1, true, []byte("x")), 0x80, 0),
			{10, 1, 0, 1, 0, 6, 0, 0, 0, 1, 0x80},
		} {
			f.Add(byte(i), frame)
		}
	}
	f.Fuzz(func(t *testing.T, which byte, b []byte) {
		p := probers[int(which)%len(probers)]
		peer := says(b)
		if q, ok := p.(OneMe); !ok || q.Over != "" {
			peer = func(c net.Conn) {
				if _, err := probetest.Upgrade(c); err == nil {
					utter(c, b)
				}
			}
		}
		steps := endure(t, p, &fuzzNet{stream: inTLS(conf, peer)})
		last := steps[len(steps)-1]
		switch p.(type) {
		case Noise:
			if last.Failure == "" {
				t.Errorf("WhatsApp's root has signed this: %x", b)
			}
		case MTProto:
			if last.Failure == "" && last.Reply.Code == 0 {
				t.Errorf("our nonce is in this: %x", b)
			}
		}
	})
}

// FuzzSTUNAnswer: what comes to the socket that a call server was asked from.
func FuzzSTUNAnswer(f *testing.F) {
	kinds := []string{STUNBinding, STUNTURN, STUNReflector}
	success := append([]byte{1, 1, 0, 12, 0x21, 0x12, 0xa4, 0x42}, make([]byte, 12)...)
	success = append(success, 0, 0x20, 0, 8, 0, 1, 0x21, 0x13, 0x21, 0x12, 0xa4, 0x43)
	f.Add(byte(0), datagrams(success))
	f.Add(byte(1), datagrams(append([]byte{1, 0x13, 0, 8, 0x21, 0x12, 0xa4, 0x42}, make([]byte, 20)...)))
	f.Add(byte(2), datagrams(make([]byte, 64)))
	f.Add(byte(0), datagrams(success, success, success[:19]))
	f.Fuzz(func(t *testing.T, which byte, b []byte) {
		fit := func(b, sent []byte) {
			if kinds[int(which)%len(kinds)] == STUNReflector {
				copy(b[:min(len(b), 32)], sent)
			} else if len(b) > 8 {
				copy(b[8:], sent[8:20])
			}
		}
		endure(t, STUN{Addr: fuzzPeer, Kind: kinds[int(which)%len(kinds)]}, &fuzzNet{datagrams: b, fit: fit})
	})
}

// FuzzHTTP3Answer: what a verified QUIC server says on the stream of a request.
func FuzzHTTP3Answer(f *testing.F) {
	conf := fuzzConf(f)
	conf.NextProtos = []string{http3.NextProtoH3}
	var (
		mu  sync.Mutex
		say []byte
	)
	addr := probetest.ServeQUIC(f, conf, nil, nil, func(c *quic.Conn) {
		s, err := c.AcceptStream(c.Context())
		if err != nil {
			return
		}
		mu.Lock()
		b := say
		mu.Unlock()
		s.Write(b)
		s.Close()
	})
	f.Add([]byte{1, 3, 0, 0, 0xd9})                                                      // HEADERS: 200
	f.Add([]byte("\x01\x03\x00\x00\xd9\x00\x0b{\"ok\":true}"))                           // and DATA
	f.Add([]byte{1, 0x80, 0x10, 0, 0, 0, 0})                                             // a long header
	f.Add([]byte{0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff})                     // DATA first
	f.Add([]byte{4, 0, 1, 8, 0, 0, 0x5f, 0x09, 4, '1', '0', '0', '0', 1, 3, 0, 0, 0xd9}) // SETTINGS where none belongs
	f.Add([]byte("\x01\x11\x00\x00\xf7\x23loc\x00ation\x02//"))                          // a literal that is broken
	f.Fuzz(func(t *testing.T, b []byte) {
		mu.Lock()
		say = b
		mu.Unlock()
		q := HTTP{Addr: addr, ServerName: fuzzHost, Version: "3", Expect: Expect{JSON: map[string]string{"ok": "true"}}, Trust: anybody}
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		steps := q.Probe(ctx, &Host{})
		if last := steps[len(steps)-1]; ctx.Err() != nil || last.Op != OpReply {
			t.Errorf("%s: %v", story(steps), last.Err)
		}
	})
}

// FuzzResolvConf: resolv.conf(5) is often written by who gave out the address.
func FuzzResolvConf(f *testing.F) {
	f.Add("nameserver 192.0.2.1\nnameserver 2001:db8::1%eth0\noptions timeout:99999 attempts:-1 ndots:3\nsearch a b\n")
	f.Add("nameserver\nnameserver x\noptions\n\x00")
	path := f.TempDir() + "/resolv.conf"
	f.Fuzz(func(t *testing.T, text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		c := readResolvConf(path)
		if n := len(c.servers); n == 0 || n > maxNameservers || c.timeout > maxTryTimeout*time.Second || c.attempts > maxAttempts {
			t.Errorf("%+v", c)
		}
		for _, s := range c.servers {
			if !s.Addr.IsValid() || s.Addr.Port() != 53 {
				t.Errorf("%+v", s)
			}
		}
	})
}

// FuzzRoots: the file of trust.ca_file and of a comparator's.
func FuzzRoots(f *testing.F) {
	ca := probetest.NewCA(f, "fuzz")
	f.Add(ca.PEM())
	f.Add(append(ca.PEM(), "-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n"...))
	f.Add([]byte(strings.Repeat("-----BEGIN CERTIFICATE-----\n", 3)))
	f.Fuzz(func(t *testing.T, b []byte) {
		trust, err := NewTrust(b)
		if (trust == nil) == (err == nil) {
			t.Errorf("%v, %v", trust, err)
		}
		if err != nil && strings.Contains(err.Error(), "PRIVATE KEY-----") {
			t.Errorf("what is in the file is in the error: %v", err)
		}
	})
}
