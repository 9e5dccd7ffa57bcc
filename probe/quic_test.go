package probe

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/testutils/simnet"

	"github.com/messenger-probe/messenger-probe/probe/probetest"
)

func TestQUIC(t *testing.T) {
	const host = "web.example"
	ca := probetest.NewCA(t, "test root")
	good := &tls.Config{Certificates: []tls.Certificate{ca.Issue(t, nil, host)}, NextProtos: []string{"h3"}}
	trust := newTrust(t, ca)
	with := func(c tls.Certificate) *tls.Config {
		return &tls.Config{Certificates: []tls.Certificate{c}, NextProtos: []string{"h3"}}
	}
	serve := func(conf *tls.Config) netip.AddrPort { return probetest.ServeQUIC(t, conf, nil, nil, nil) }
	p384 := good.Clone()
	p384.CurvePreferences = []tls.CurveID{tls.CurveP384}
	nameless := good.Clone() // "no certificates" is the alert unrecognized_name
	nameless.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		return &tls.Config{NextProtos: []string{"h3"}}, nil
	}
	refuses := &quic.Transport{ConnContext: func(context.Context, *quic.ClientInfo) (context.Context, error) {
		return nil, errors.New("no")
	}}

	for _, test := range []struct {
		name    string
		addr    netip.AddrPort
		q       QUIC
		timeout time.Duration
		want    string
		check   func(*testing.T, *QUICInfo)
	}{{
		name: "works", addr: serve(good), want: "quic_handshake",
		check: func(t *testing.T, i *QUICInfo) {
			if i.Version != 1 || i.ALPN != "h3" || i.ServerName != host || i.PacketsReceived == 0 || i.BytesReceived < 1200 || i.Retry || i.Offered != nil {
				t.Errorf("%+v", i)
			}
			if len(i.Chain) != 1 || i.Chain[0].Subject != host {
				t.Errorf("%+v", i.Chain)
			}
		},
	}, {
		name: "works with X25519 alone", addr: serve(good), q: QUIC{Hello: HelloX25519}, want: "quic_handshake",
	}, {
		name: "works after a Retry", want: "quic_handshake",
		addr: probetest.ServeQUIC(t, good, &quic.Transport{VerifySourceAddress: func(net.Addr) bool { return true }}, nil, nil),
		check: func(t *testing.T, i *QUICInfo) {
			if !i.Retry {
				t.Errorf("%+v", i)
			}
		},
	}, {
		name: "works with an IPv4 address in IPv6", want: "quic_handshake",
		addr: func() netip.AddrPort {
			a := serve(good)
			return netip.AddrPortFrom(netip.AddrFrom16(a.Addr().As16()), a.Port())
		}(),
	}, {
		name: "closed port", addr: probetest.RefusedUDP(t), want: "quic_handshake " + refusedUDP,
	}, {
		name: "mute", addr: probetest.MuteUDP(t), timeout: soon, want: "quic_handshake generic_timeout_error",
		check: func(t *testing.T, i *QUICInfo) {
			if i.PacketsReceived != 0 || i.Version != 0 {
				t.Errorf("%+v", i)
			}
		},
	}, {
		name: "echo", addr: probetest.ServeUDP(t, func(b []byte) [][]byte { return [][]byte{b} }), timeout: soon,
		want: "quic_handshake generic_timeout_error",
		check: func(t *testing.T, i *QUICInfo) {
			if i.PacketsReceived == 0 {
				t.Errorf("%+v", i)
			}
		},
	}, {
		name: "no common version", want: "quic_handshake quic_incompatible_version",
		addr: probetest.ServeQUIC(t, good, nil, &quic.Config{Versions: []quic.Version{quic.Version2}}, nil),
		check: func(t *testing.T, i *QUICInfo) {
			if !slices.Contains(i.Offered, uint32(quic.Version2)) || i.Version != 0 {
				t.Errorf("%+v", i)
			}
		},
	}, {
		name: "server refuses", addr: probetest.ServeQUIC(t, good, refuses, nil, nil), want: "quic_handshake connection_refused",
	}, {
		name: "alert for the ALPN", addr: serve(good), q: QUIC{ALPN: []string{"none"}}, want: "quic_handshake unknown_failure",
	}, {
		name: "alert handshake_failure", addr: serve(p384), q: QUIC{Hello: HelloX25519}, want: "quic_handshake ssl_failed_handshake",
	}, {
		name: "alert unrecognized_name", addr: serve(nameless), want: "quic_handshake ssl_invalid_hostname",
		check: func(t *testing.T, i *QUICInfo) {
			if i.Version != 1 || i.PacketsReceived == 0 || i.Chain != nil {
				t.Errorf("%+v", i)
			}
		},
	}, {
		name: "wrong name", addr: serve(with(ca.Issue(t, nil, "other.example"))), want: "quic_handshake ssl_invalid_hostname",
		check: func(t *testing.T, i *QUICInfo) {
			if len(i.Chain) != 1 || i.Chain[0].Subject != "other.example" {
				t.Errorf("%+v", i)
			}
		},
	}, {
		name: "expired", addr: serve(with(ca.Issue(t, probetest.Expired, host))), want: "quic_handshake ssl_invalid_certificate",
	}, {
		name: "self-signed", addr: serve(with(probetest.SelfSigned(t, host))), want: "quic_handshake ssl_unknown_authority",
	}, {
		name: "unknown authority", addr: serve(good), q: QUIC{Trust: &Trust{}}, want: "quic_handshake ssl_unknown_authority",
	}, {
		name: "no such profile", addr: serve(good), q: QUIC{Hello: "netscape"}, want: "quic_handshake invalid_argument",
	}} {
		t.Run(test.name, func(t *testing.T) {
			q := test.q
			q.ServerName = host
			if q.Trust == nil {
				q.Trust = trust
			}
			if test.timeout == 0 {
				test.timeout = 5 * time.Second
			}
			steps := run(t, q.At(test.addr), test.timeout)
			if diff := cmp.Diff(test.want, story(steps)); diff != "" {
				t.Fatalf("%s\n%v", diff, steps[0].Err)
			}
			if test.check != nil {
				test.check(t, steps[0].QUIC)
			}
		})
	}
}

// refusedUDP is what a closed UDP port looks like: only Linux tells.
var refusedUDP = map[bool]string{true: "connection_refused", false: "generic_timeout_error"}[runtime.GOOS == "linux"]

// Over IPv6 a closed port is as plain as over IPv4.
func TestQUICOverIPv6(t *testing.T) {
	pc, err := net.ListenPacket("udp6", "[::1]:0")
	if err != nil {
		t.Logf("no IPv6 on this machine (%v): nothing to see here", err)
		return
	}
	ca := probetest.NewCA(t, "test root")
	conf := &tls.Config{Certificates: []tls.Certificate{ca.Issue(t, nil, "web.example")}, NextProtos: []string{"h3"}}
	addr := probetest.ServeQUIC(t, conf, &quic.Transport{Conn: pc}, nil, nil)
	q := QUIC{Addr: addr, ServerName: "web.example", Trust: newTrust(t, ca)}
	if got := story(run(t, q, 10*time.Second)); got != "quic_handshake" {
		t.Error(got)
	}
	held, err := net.Dial("udp6", "[::1]:9") // hears port 9 alone
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	addr = held.LocalAddr().(*net.UDPAddr).AddrPort()
	for _, p := range []Prober{QUIC{Addr: addr, ServerName: "web.example"}, QUICPing{Addr: addr}} {
		if got := story(run(t, p, 5*time.Second)); got != "quic_handshake "+refusedUDP {
			t.Errorf("%T: %s", p, got)
		}
	}
}

func TestQUICCancelled(t *testing.T) {
	for _, p := range []Addressed{QUIC{ServerName: "web.example"}, QUICPing{}} {
		ctx, cancel := context.WithCancel(t.Context())
		addr := probetest.ServeUDP(t, func([]byte) [][]byte { cancel(); return nil })
		if got := story(p.At(addr).Probe(ctx, &Host{})); got != "quic_handshake interrupted" {
			t.Errorf("%T: %s", p, got)
		}
		cancel()
	}
}

// pond is a network in a synctest bubble with one way latency, where drop
// decides about each packet.
type pond struct {
	simnet.PerfectRouter
	sim  *simnet.Simnet
	mu   sync.Mutex // for drop: links are goroutines
	drop func(simnet.Packet) bool
	next byte
}

const pondLatency = 50 * time.Millisecond

func newPond(t *testing.T, drop func(simnet.Packet) bool) *pond {
	n := &pond{drop: drop}
	n.sim = &simnet.Simnet{Router: n}
	return n
}

func (n *pond) SendPacket(p simnet.Packet) error {
	n.mu.Lock()
	lost := n.drop != nil && n.drop(p)
	n.mu.Unlock()
	if lost {
		return nil
	}
	return n.PerfectRouter.SendPacket(p)
}

func (n *pond) endpoint(ip byte) net.PacketConn {
	addr := netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, ip}), 443)
	return pondSocket{n.sim.NewEndpoint(net.UDPAddrFromAddrPort(addr), simnet.NodeBiDiLinkSettings{Latency: pondLatency})}
}

func (n *pond) ListenPacket(context.Context, string, string) (net.PacketConn, error) {
	n.next++
	c := n.endpoint(100 + n.next)
	return c, n.sim.Start()
}

func (n *pond) DialContext(context.Context, string, string) (net.Conn, error) {
	return nil, net.ErrClosed
}

// pondSocket has the error that a real socket's deadline has.
type pondSocket struct{ net.PacketConn }

func (c pondSocket) ReadFrom(b []byte) (int, net.Addr, error) {
	n, from, err := c.PacketConn.ReadFrom(b)
	if err == simnet.ErrDeadlineExceeded {
		err = os.ErrDeadlineExceeded
	}
	return n, from, err
}

func (pondSocket) SetReadBuffer(int) error  { return nil }
func (pondSocket) SetWriteBuffer(int) error { return nil }

var pondServer = netip.MustParseAddrPort("192.0.2.1:443")

// answer sends what f makes of each datagram back to where that came from.
func (n *pond) answer(f func([]byte) [][]byte) (stop func()) {
	pc := n.endpoint(1)
	var running sync.WaitGroup
	running.Go(func() {
		buf := make([]byte, 2000)
		for {
			k, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			for _, b := range f(buf[:k]) {
				pc.WriteTo(b, from)
			}
		}
	})
	return func() { pc.Close(); running.Wait(); n.sim.Close() }
}

// servePond runs a QUIC server in the pond.
func servePond(t *testing.T, n *pond, conf *tls.Config) (stop func()) {
	pc := n.endpoint(1)
	tr := &quic.Transport{Conn: pc}
	l, err := tr.Listen(conf, nil)
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			if _, err := l.Accept(context.Background()); err != nil {
				return
			}
		}
	})
	return func() { l.Close(); tr.Close(); pc.Close(); running.Wait(); n.sim.Close() }
}

// The whole of the deadline is used, whatever quic-go's own patience, and in a
// stall after the first answer as well as in silence.
func TestQUICDeadline(t *testing.T) {
	ca := probetest.NewCA(t, "test root")
	conf := &tls.Config{Certificates: []tls.Certificate{ca.Issue(t, nil, "web.example")}, NextProtos: []string{"h3"}}
	trust := newTrust(t, ca)
	trust.verify(tls.ConnectionState{}, "") // parses Mozilla's list outside of the bubble
	fromServer := func(p simnet.Packet) bool { return p.From.String() == pondServer.String() }
	for _, test := range []struct {
		name    string
		drop    func() func(simnet.Packet) bool
		want    string
		took    time.Duration
		packets int
	}{
		{"no loss", func() func(simnet.Packet) bool { return nil }, "quic_handshake", 2 * pondLatency, 2},
		{"all lost", func() func(simnet.Packet) bool {
			return func(simnet.Packet) bool { return true }
		}, "quic_handshake generic_timeout_error", 10 * time.Second, 0},
		{"all lost but the first answer", func() func(simnet.Packet) bool {
			answers := 0
			return func(p simnet.Packet) bool {
				if fromServer(p) {
					answers++
				}
				return answers > 1
			}
		}, "quic_handshake generic_timeout_error", 10 * time.Second, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newPond(t, test.drop())
				defer servePond(t, n, conf)()
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				steps := QUIC{Addr: pondServer, ServerName: "web.example", Trust: trust}.Probe(ctx, n)
				s := steps[0]
				if got := story(steps); got != test.want {
					t.Fatalf("%s: %v", got, s.Err)
				}
				if s.Took < test.took-10*time.Millisecond || s.Took > test.took+10*time.Millisecond {
					t.Errorf("took %v, want %v", s.Took, test.took)
				}
				if test.packets == 0 != (s.QUIC.PacketsReceived == 0) {
					t.Errorf("%+v", s.QUIC)
				}
			})
		})
	}
}

func TestQUICPing(t *testing.T) {
	ca := probetest.NewCA(t, "test root")
	conf := &tls.Config{Certificates: []tls.Certificate{ca.Issue(t, nil, "web.example")}, NextProtos: []string{"h3"}}
	stray, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer stray.Close()
	for _, test := range []struct {
		name    string
		addr    netip.AddrPort
		want    string
		packets int
		offered []uint32
	}{{
		name: "quic-go answers", addr: probetest.ServeQUIC(t, conf, nil, nil, nil), want: "quic_handshake", packets: 1,
	}, {
		name: "answered", addr: probetest.ServeUDP(t, func(b []byte) [][]byte { return [][]byte{vn(b, 1, 2)} }),
		want: "quic_handshake", packets: 1, offered: []uint32{1, 2},
	}, {
		name: "answered after noise", want: "quic_handshake", packets: 3, offered: []uint32{1},
		addr: probetest.ServeUDP(t, func(b []byte) [][]byte { return [][]byte{b, {0}, vn(b, 1)} }),
	}, {
		name: "mute", addr: probetest.MuteUDP(t), want: "quic_handshake generic_timeout_error",
	}, {
		name: "closed port", addr: probetest.RefusedUDP(t), want: "quic_handshake " + refusedUDP,
	}, {
		name: "echo", addr: probetest.ServeUDP(t, func(b []byte) [][]byte { return [][]byte{b} }),
		want: "quic_handshake generic_timeout_error", packets: 1,
	}, {
		name: "IDs not swapped", want: "quic_handshake generic_timeout_error", packets: 1,
		addr: probetest.ServeUDP(t, func(b []byte) [][]byte { return [][]byte{vnIDs(b[6:14], b[15:23], 1)} }),
	}, {
		name: "another destination", want: "quic_handshake generic_timeout_error", packets: 1,
		addr: probetest.ServeUDP(t, func(b []byte) [][]byte { return [][]byte{vnIDs(b[6:14], b[6:14], 1)} }),
	}, {
		name: "another source", want: "quic_handshake generic_timeout_error", packets: 1,
		addr: probetest.ServeUDP(t, func(b []byte) [][]byte { return [][]byte{vnIDs(b[15:23], b[15:23], 1)} }),
	}, {
		name: "from somebody else", want: "quic_handshake generic_timeout_error",
		addr: serveAside(t, stray),
	}} {
		t.Run(test.name, func(t *testing.T) {
			steps := run(t, QUICPing{}.At(test.addr), enough(test.want))
			s := steps[0]
			if diff := cmp.Diff(test.want, story(steps)); diff != "" {
				t.Fatalf("%s\n%v", diff, s.Err)
			}
			if s.QUIC.Version&0x0f0f0f0f != 0x0a0a0a0a {
				t.Errorf("asked for version %#x", s.QUIC.Version)
			}
			if s.QUIC.PacketsReceived != test.packets {
				t.Errorf("%d packets, want %d", s.QUIC.PacketsReceived, test.packets)
			}
			if test.offered != nil && !slices.Equal(s.QUIC.Offered, test.offered) || test.offered == nil && s.Failure == "" && !slices.Contains(s.QUIC.Offered, 1) {
				t.Errorf("offered %#x", s.QUIC.Offered)
			}
		})
	}
}

// serveAside answers each ping from another socket than the one that was asked.
func serveAside(t *testing.T, stray net.PacketConn) netip.AddrPort {
	t.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() {
		buf := make([]byte, 2000)
		for {
			n, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			stray.WriteTo(vn(buf[:n], 1), from)
		}
	})
	t.Cleanup(func() { pc.Close(); running.Wait() })
	return pc.LocalAddr().(*net.UDPAddr).AddrPort()
}

// vn answers a ping as RFC 9000 §17.2.1 has it.
func vn(ping []byte, versions ...uint32) []byte { return vnIDs(ping[15:23], ping[6:14], versions...) }

func vnIDs(destination, source []byte, versions ...uint32) []byte {
	b := cat([]byte{0x80, 0, 0, 0, 0}, vec8(destination), vec8(source))
	for _, v := range versions {
		b = binary.BigEndian.AppendUint32(b, v)
	}
	return b
}

// A lost ping is sent again, the same one, until it is answered or time is up.
func TestQUICPingAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var sent [][]byte
		n := newPond(t, func(p simnet.Packet) bool {
			sent = append(sent, p.Data)
			return len(sent) < 4
		})
		defer n.answer(func(b []byte) [][]byte { return [][]byte{vn(b, 1)} })()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		steps := QUICPing{Addr: pondServer}.Probe(ctx, n)
		if got, want := steps[0].Took, 7*time.Second+2*pondLatency; got != want || story(steps) != "quic_handshake" {
			t.Errorf("%s after %v, want %v", story(steps), got, want)
		}
		if len(sent) != 5 || !bytes.Equal(sent[0], sent[3]) || len(sent[0]) != 1200 {
			t.Errorf("%d packets", len(sent))
		}
	})
}

// A peer that sends without end is not listened to without end.
func TestQUICFlood(t *testing.T) {
	for _, p := range []Prober{QUIC{Addr: pondServer, ServerName: "web.example"}, QUICPing{Addr: pondServer}} {
		synctest.Test(t, func(t *testing.T) {
			n := newPond(t, nil)
			defer n.answer(func(b []byte) [][]byte { return slices.Repeat([][]byte{b}, 300) })()
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			steps := p.Probe(ctx, n)
			s := steps[0]
			if got := story(steps); got != "quic_handshake unknown_failure" || s.QUIC.PacketsReceived != maxReceived/minInitial || s.QUIC.BytesReceived > maxReceived {
				t.Errorf("%T: %s: %v, %+v", p, got, s.Err, s.QUIC)
			}
		})
	}
}

// TestPingShape holds a ping against RFC 9000 §17.2.
func TestPingShape(t *testing.T) {
	p, version := newPing()
	c := cursor{b: p}
	if first := c.uint(1); first&0xc0 != 0xc0 {
		t.Errorf("first byte %#x", first)
	}
	if got := uint32(c.uint(4)); got != version || got&0x0f0f0f0f != 0x0a0a0a0a {
		t.Errorf("version %#x", got)
	}
	if got := c.take(c.uint(1)); !bytes.Equal(got, p.destination()) || len(got) != 8 {
		t.Errorf("destination %x", got)
	}
	if got := c.take(c.uint(1)); !bytes.Equal(got, p.source()) || len(got) != 8 {
		t.Errorf("source %x", got)
	}
	if q, _ := newPing(); bytes.Equal(p[6:], q[6:]) {
		t.Error("two pings are the same")
	}
}

func FuzzPingAnswer(f *testing.F) {
	p, _ := newPing()
	copy(p[5:], cat(vec8([]byte("destined")), vec8([]byte("sourced!"))))
	f.Add(vn(p, 1))
	f.Add(vn(p, 1, 2, 3))
	f.Add([]byte(p))
	f.Add(vn(p))
	f.Fuzz(func(t *testing.T, in []byte) {
		versions, ok := p.answer(in)
		if !ok {
			return
		}
		if len(versions) == 0 || len(versions) > maxVersions {
			t.Errorf("%d versions", len(versions))
		}
		head := vn(p)
		if len(in) < len(head)+4 || in[0]&0x80 == 0 || !bytes.Equal(in[1:len(head)], head[1:]) {
			t.Errorf("accepted %x", in)
		}
	})
}

// Runs leave no descriptor behind, above all those that fail. (Goroutines: goleak, TestMain.)
func TestNoDescriptorLeft(t *testing.T) {
	if runtime.GOOS != "linux" {
		return // /proc
	}
	descriptors := func() int {
		entries, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}
	ca := probetest.NewCA(t, "test root")
	conf := &tls.Config{Certificates: []tls.Certificate{ca.Issue(t, nil, "web.example")}, NextProtos: []string{"h3"}}
	stalled := func(c net.Conn) { io.Copy(io.Discard, c) }
	probers := []Prober{
		TCP{Addr: probetest.ServeTCP(t, stalled)},
		TLS{Addr: probetest.ServeTLS(t, conf, nil), ServerName: "wrong.example"},
		TLS{Addr: probetest.ServeTCP(t, probetest.Reset), ServerName: "web.example"},
		TLS{Addr: probetest.ServeTCP(t, stalled), ServerName: "web.example"},
		BrowserHello{Addr: probetest.ServeTCP(t, stalled), ServerName: "web.example"},
		QUIC{Addr: probetest.ServeQUIC(t, conf, nil, nil, nil), ServerName: "wrong.example"},
		QUIC{Addr: probetest.MuteUDP(t), ServerName: "web.example"},
		QUICPing{Addr: probetest.MuteUDP(t)},
		QUICPing{Addr: probetest.RefusedUDP(t)},
	}
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // the collector would close what we forget
	var running sync.WaitGroup
	before := descriptors()
	for _, p := range probers {
		for range 20 {
			running.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
				defer cancel()
				p.Probe(ctx, &Host{})
			})
		}
	}
	running.Wait()
	for end := time.Now().Add(2 * time.Second); descriptors() > before; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) { // the servers' side takes a moment
			t.Fatalf("%d descriptors, %d before", descriptors(), before)
		}
	}
}

// unsendable is a network whose sockets send nothing.
type unsendable struct{ Host }

func (n *unsendable) ListenPacket(ctx context.Context, network, address string) (net.PacketConn, error) {
	c, err := n.Host.ListenPacket(ctx, network, address)
	return unsendableConn{c}, err
}

type unsendableConn struct{ net.PacketConn }

func (unsendableConn) WriteTo([]byte, net.Addr) (int, error) {
	return 0, &net.OpError{Op: "write", Net: "udp", Err: os.NewSyscallError("sendto", syscall.ENETUNREACH)}
}

// quic-go keeps only the text of what this machine says when it cannot send.
func TestQUICUnsendable(t *testing.T) {
	q := QUIC{Addr: netip.MustParseAddrPort("192.0.2.1:443"), ServerName: "quic.test"}
	steps := q.Probe(t.Context(), &unsendable{})
	if s := steps[len(steps)-1]; s.Failure != FailureNetworkUnreachable {
		t.Errorf("%s: %v", s.Failure, s.Err)
	}
}
