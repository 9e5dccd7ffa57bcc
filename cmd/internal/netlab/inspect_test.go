package netlab

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/hex"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"
	"github.com/quic-go/quic-go"
)

// The keys of RFC 9001 §A.1.
func TestInitialKeys(t *testing.T) {
	k := newInitialKeys([]byte{0x83, 0x94, 0xc8, 0xf0, 0x3e, 0x51, 0x57, 0x08})
	if got, want := hex.EncodeToString(k.iv), "fa044b2f42a3fd3b46fb255c"; got != want {
		t.Errorf("quic iv %s, want %s", got, want)
	}
	// §A.2: the mask for this sample.
	sample, _ := hex.DecodeString("d1b1c98dd7689fb8ec11d242b123dc9b")
	var mask [16]byte
	k.hp.Encrypt(mask[:], sample)
	if got, want := hex.EncodeToString(mask[:5]), "437b9aec36"; got != want {
		t.Errorf("mask %s, want %s", got, want)
	}
}

// hellos are the shapes that Go's ClientHellos have: of one segment, and of two.
var hellos = map[string][]tls.CurveID{"X25519": {tls.X25519}, "X25519MLKEM768": nil}

// The name is found in what crypto/tls sends, however it is cut, and only once
// all of it is there.
func TestTLSName(t *testing.T) {
	for name, curves := range hellos {
		t.Run(name, func(t *testing.T) {
			c, s := net.Pipe()
			defer s.Close()
			go tls.Client(c, &tls.Config{ServerName: "web.lab.test", CurvePreferences: curves}).Handshake()
			b := make([]byte, 4096)
			n, err := s.Read(b)
			if err != nil {
				t.Fatal(err)
			}
			b = b[:n]
			if got := tlsName(b); got != "web.lab.test" {
				t.Errorf("%q in a hello of %d bytes", got, n)
			}
			if got := tlsName(b[:n-1]); got != "" {
				t.Errorf("%q in a hello that is not whole", got)
			}
			// The same in two records.
			cut := append([]byte{22, 3, 1, 0, 9}, b[5:14]...)
			cut = append(append(cut, 22, 3, 1, byte((n-14)>>8), byte(n-14)), b[14:]...)
			if got := tlsName(cut); got != "web.lab.test" {
				t.Errorf("%q in two records", got)
			}
		})
	}
	for _, b := range [][]byte{nil, {22}, {22, 3, 1, 255, 255, 1, 255, 255, 255}, bytes.Repeat([]byte{1}, 600), []byte("GET / HTTP/1.1\r\n\r\n")} {
		if got := tlsName(b); got != "" {
			t.Errorf("%q in %x", got, b)
		}
	}
}

// The name is found in the Initials that quic-go sends.
func TestQUICName(t *testing.T) {
	for name, curves := range hellos {
		t.Run(name, func(t *testing.T) {
			server, err := net.ListenPacket("udp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer server.Close()
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan struct{})
			go func() {
				defer close(done)
				quic.DialAddr(ctx, server.LocalAddr().String(), &tls.Config{ServerName: "media.lab.test", NextProtos: []string{"h3"}, CurvePreferences: curves}, nil)
			}()
			defer func() { cancel(); <-done }()
			server.SetReadDeadline(time.Now().Add(3 * time.Second))
			var q quicHello
			b := make([]byte, 2048)
			for q.name() == "" {
				n, _, err := server.ReadFrom(b)
				if err != nil {
					t.Fatalf("no name in what came: %v", err)
				}
				if !QUICv1(b[:n]) {
					t.Errorf("%x is not of version 1", b[:7])
				}
				q.feed(b[:n])
			}
			if got := q.name(); got != "media.lab.test" {
				t.Errorf("name %q", got)
			}
		})
	}
	var q quicHello
	for n := range 60 {
		q.feed(append([]byte{0xc0, 0, 0, 0, 1}, bytes.Repeat([]byte{0xff}, n)...))
	}
	if q.name() != "" {
		t.Error("a name in garbage")
	}
}

func TestPackets(t *testing.T) {
	for _, ends := range [][4]string{
		{"10.0.0.2:40000", "192.0.2.1:443", "192.0.2.9:8443", "10.0.0.3:40001"},
		{"[fd00::2]:40000", "[2001:db8::1]:443", "[2001:db8::9]:8443", "[fd00::3]:40001"},
	} {
		var a [4]netip.AddrPort
		for i, e := range ends {
			a[i] = netip.MustParseAddrPort(e)
		}
		for _, b := range [][]byte{buildRST(a[0], a[1], 7, 8), buildUDP(a[0], a[1], []byte("seven b"))} {
			p, ok := parse(b)
			if !ok || p.src != a[0] || p.dst != a[1] {
				t.Fatalf("%x parses to %v, %v", b, p, ok)
			}
			p.readdress(a[2], a[3])
			sum := p.pseudo(len(p.b) - p.l4)
			if p.hop(); checksum(sum, p.b[p.l4:]) != 0 || a[0].Addr().Is4() && checksum(0, p.b[:20]) != 0 {
				t.Errorf("the checksums of %x do not fit", p.b)
			}
			q, _ := parse(p.b)
			if q.src != a[2] || q.dst != a[3] || q.seq != p.seq || q.ack != p.ack || !bytes.Equal(q.data, p.data) {
				t.Errorf("readdressed to %v", q)
			}
			for n := range len(b) {
				parse(b[:n]) // bounded by what there is
			}
		}
	}
}

func TestDNSQuery(t *testing.T) {
	q := new(dns.Msg).SetQuestion("web.lab.test.", dns.TypeAAAA)
	b, err := q.Pack()
	if err != nil {
		t.Fatal(err)
	}
	if got := dnsQuery(b); got == nil || !cmp.Equal(got.Question, q.Question) {
		t.Errorf("%v", got)
	}
	q.Response = true
	if b, err = q.Pack(); err != nil || dnsQuery(b) != nil {
		t.Errorf("an answer is taken for a query (%v)", err)
	}
}
