package probetest

import (
	"crypto/tls"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"
)

// ServeTCP handles each connection to a port of loopback until the test ends,
// and closes it after handle. At the end of the test the connections that are
// left are closed, and handle must return.
func ServeTCP(tb testing.TB, handle func(net.Conn)) netip.AddrPort {
	tb.Helper()
	l := listenTCP(tb)
	var (
		running sync.WaitGroup
		mu      sync.Mutex
		open    = make(map[net.Conn]bool) // nil once the test has ended
	)
	running.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			ended := open == nil
			if !ended {
				open[c] = true
			}
			mu.Unlock()
			if ended {
				c.Close()
				return
			}
			running.Go(func() {
				handle(c)
				c.Close()
				mu.Lock()
				delete(open, c)
				mu.Unlock()
			})
		}
	})
	tb.Cleanup(func() {
		l.Close()
		mu.Lock()
		for c := range open {
			c.Close()
		}
		open = nil
		mu.Unlock()
		running.Wait()
	})
	return l.Addr().(*net.TCPAddr).AddrPort()
}

// ServeTLS is [ServeTCP] with TLS. handle is given connections whose handshake
// worked; nil: they are held until the client closes.
func ServeTLS(tb testing.TB, conf *tls.Config, handle func(*tls.Conn)) netip.AddrPort {
	tb.Helper()
	return ServeTCP(tb, func(conn net.Conn) {
		c := tls.Server(conn, conf)
		defer c.Close()
		if c.Handshake() != nil {
			// What the client still sends must be read, or closing would reset
			// the connection, and the alert with it.
			conn.(*net.TCPConn).CloseWrite()
			io.Copy(io.Discard, conn)
			return
		}
		if handle == nil {
			io.Copy(io.Discard, c)
			return
		}
		handle(c)
	})
}

// Refused is an address of loopback where nobody listens. A connection of ours
// keeps others off the port.
func Refused(tb testing.TB) netip.AddrPort {
	tb.Helper()
	c, err := net.Dial("tcp", ServeTCP(tb, Stall).String())
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { c.Close() })
	return c.LocalAddr().(*net.TCPAddr).AddrPort()
}

// The handlers of ServeTCP below wait for the client's first bytes.

// Reset ends the connection with a RST.
func Reset(c net.Conn) {
	hear(c)
	c.(*net.TCPConn).SetLinger(0)
}

// FIN ends the connection in an orderly way, without a word.
func FIN(c net.Conn) { Answer(nil)(c) }

// Stall says nothing until the client gives up.
func Stall(c net.Conn) { io.Copy(io.Discard, c) }

// Answer says b, and ends the connection.
func Answer(b []byte) func(net.Conn) {
	return func(c net.Conn) {
		hear(c)
		c.Write(b)
		c.(*net.TCPConn).CloseWrite()
		io.Copy(io.Discard, c)
	}
}

// Alert answers with a fatal TLS alert.
func Alert(number byte) func(net.Conn) { return Answer([]byte{21, 3, 3, 0, 2, 2, number}) }

// BlockPage answers with what an ISP shows instead.
func BlockPage(c net.Conn) {
	Answer([]byte("HTTP/1.1 403 Forbidden\r\nContent-Length: 7\r\n\r\nblocked"))(c)
}

// Drip says b, a byte each second.
func Drip(b []byte) func(net.Conn) {
	return func(c net.Conn) {
		hear(c)
		for i := range b {
			if _, err := c.Write(b[i : i+1]); err != nil {
				return
			}
			if !pause(c, time.Second) {
				return
			}
		}
	}
}

// pause waits for d, or until c is closed by somebody.
func pause(c net.Conn, d time.Duration) bool {
	c.SetReadDeadline(time.Now().Add(d))
	_, err := io.Copy(io.Discard, c)
	e, ok := err.(net.Error)
	return ok && e.Timeout()
}

func hear(c net.Conn) { c.Read(make([]byte, 64<<10)) }
