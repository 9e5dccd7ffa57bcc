package probetest

import (
	"context"
	"crypto/tls"
	"net"
	"net/netip"
	"sync"
	"testing"

	"github.com/quic-go/quic-go"
)

// ServeUDP sends what answer makes of each datagram back to where that came
// from, until the test ends.
func ServeUDP(tb testing.TB, answer func([]byte) [][]byte) netip.AddrPort {
	tb.Helper()
	pc := listenUDP(tb)
	var running sync.WaitGroup
	running.Go(func() {
		buf := make([]byte, 64<<10)
		for {
			n, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			for _, b := range answer(buf[:n]) {
				pc.WriteTo(b, from)
			}
		}
	})
	tb.Cleanup(func() { pc.Close(); running.Wait() })
	return pc.LocalAddr().(*net.UDPAddr).AddrPort()
}

// MuteUDP hears everything and says nothing.
func MuteUDP(tb testing.TB) netip.AddrPort {
	tb.Helper()
	return ServeUDP(tb, func([]byte) [][]byte { return nil })
}

// RefusedUDP is an address of loopback where nobody listens. A socket that hears
// port 9 alone keeps others off the port.
func RefusedUDP(tb testing.TB) netip.AddrPort {
	tb.Helper()
	c, err := net.Dial("udp", "127.0.0.1:9")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { c.Close() })
	return c.LocalAddr().(*net.UDPAddr).AddrPort()
}

// ServeQUIC accepts connections at a port of loopback until the test ends. tr
// and qc may be nil; tr.Conn is set here. handle, if not nil, is given each
// connection whose handshake worked.
func ServeQUIC(tb testing.TB, conf *tls.Config, tr *quic.Transport, qc *quic.Config, handle func(*quic.Conn)) netip.AddrPort {
	tb.Helper()
	if tr == nil {
		tr = &quic.Transport{}
	}
	if tr.Conn == nil {
		tr.Conn = plain{listenUDP(tb)}
	}
	l, err := tr.Listen(conf, qc)
	if err != nil {
		tb.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			c, err := l.Accept(context.Background())
			if err != nil {
				return
			}
			if handle != nil {
				running.Go(func() { handle(c) })
			}
		}
	})
	tb.Cleanup(func() {
		l.Close()
		tr.Close()
		tr.Conn.Close()
		running.Wait()
	})
	return tr.Conn.LocalAddr().(*net.UDPAddr).AddrPort()
}

// plain is a socket of which quic-go wants no large buffers, and does not
// complain on the log that it cannot have them.
type plain struct{ net.PacketConn }

func (plain) SetReadBuffer(int) error  { return nil }
func (plain) SetWriteBuffer(int) error { return nil }

func listenUDP(tb testing.TB) net.PacketConn {
	tb.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	return pc
}
