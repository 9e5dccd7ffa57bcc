package probe

import (
	"context"
	"net"
	"sync/atomic"
	"syscall"
)

// A Meter is a Net that counts the payload bytes that pass through it. Headers
// and retransmissions are not in the count.
type Meter struct {
	Net
	sent, received atomic.Int64
}

// Sent is the bytes written so far, Received those read.
func (m *Meter) Sent() int64     { return m.sent.Load() }
func (m *Meter) Received() int64 { return m.received.Load() }

func (m *Meter) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	c, err := m.Net.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return &meteredConn{c, m}, nil
}

func (m *Meter) ListenPacket(ctx context.Context, network, address string) (net.PacketConn, error) {
	c, err := m.Net.ListenPacket(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return &meteredPacketConn{c, m}, nil
}

type meteredConn struct {
	net.Conn
	m *Meter
}

func (c *meteredConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.m.received.Add(int64(n))
	return n, err
}

func (c *meteredConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.m.sent.Add(int64(n))
	return n, err
}

// SyscallConn lets TCP_INFO through.
func (c *meteredConn) SyscallConn() (syscall.RawConn, error) { return rawConn(c.Conn) }

// meteredPacketConn embeds the interface, never *net.UDPConn: quic-go looks
// for the latter's methods and would read the descriptor past our count.
type meteredPacketConn struct {
	net.PacketConn
	m *Meter
}

func (c *meteredPacketConn) ReadFrom(b []byte) (int, net.Addr, error) {
	n, a, err := c.PacketConn.ReadFrom(b)
	c.m.received.Add(int64(n))
	return n, a, err
}

func (c *meteredPacketConn) WriteTo(b []byte, a net.Addr) (int, error) {
	n, err := c.PacketConn.WriteTo(b, a)
	c.m.sent.Add(int64(n))
	return n, err
}

// SyscallConn lets socket options through (IP_RECVERR).
func (c *meteredPacketConn) SyscallConn() (syscall.RawConn, error) { return rawConn(c.PacketConn) }

// rawConn is the descriptor behind a connection, through our wrappers.
func rawConn(c any) (syscall.RawConn, error) {
	if s, ok := c.(syscall.Conn); ok {
		return s.SyscallConn()
	}
	return nil, syscall.ENOTSOCK
}

// unmetered is the system's socket under conn, nil where there is none, and
// what has to be told of the bytes that are read from it directly: control
// messages (the TTL of a datagram) do not come through ReadFrom.
func unmetered(conn net.PacketConn) (socket *net.UDPConn, received func(n int)) {
	received = func(int) {}
	if c, ok := conn.(*meteredPacketConn); ok {
		conn, received = c.PacketConn, func(n int) { c.m.received.Add(int64(n)) }
	}
	socket, _ = conn.(*net.UDPConn)
	return socket, received
}
