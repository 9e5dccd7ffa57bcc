package probetest

import (
	"context"
	"net"
	"net/netip"
)

// Redirect is a network on which the addresses of its keys are those of its
// values, both for connections and for datagrams: a server at an unprivileged
// port of loopback stands in for any other.
type Redirect map[netip.AddrPort]netip.AddrPort

// DialContext connects to where address is redirected.
func (r Redirect) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	if a, err := netip.ParseAddrPort(address); err == nil {
		if to, ok := r[a]; ok {
			address = to.String()
		}
	}
	var d net.Dialer
	return d.DialContext(ctx, network, address)
}

// ListenPacket opens a socket whose peers are redirected.
func (r Redirect) ListenPacket(ctx context.Context, network, address string) (net.PacketConn, error) {
	var l net.ListenConfig
	c, err := l.ListenPacket(ctx, network, address)
	if err != nil {
		return nil, err
	}
	back := make(map[netip.AddrPort]netip.AddrPort, len(r))
	for from, to := range r {
		back[to] = from
	}
	return &redirected{c, r, back}, nil
}

type redirected struct {
	net.PacketConn
	to, back map[netip.AddrPort]netip.AddrPort
}

func (c *redirected) WriteTo(b []byte, a net.Addr) (int, error) {
	return c.PacketConn.WriteTo(b, swap(c.to, a))
}

func (c *redirected) ReadFrom(b []byte) (int, net.Addr, error) {
	n, a, err := c.PacketConn.ReadFrom(b)
	return n, swap(c.back, a), err
}

func swap(m map[netip.AddrPort]netip.AddrPort, a net.Addr) net.Addr {
	u, ok := a.(*net.UDPAddr)
	if !ok {
		return a
	}
	p := u.AddrPort()
	if to, ok := m[netip.AddrPortFrom(p.Addr().Unmap(), p.Port())]; ok {
		return net.UDPAddrFromAddrPort(to)
	}
	return a
}
