package probe

import (
	"context"
	"net/netip"
)

// TCP asks whether a port accepts connections: one connect step. A connection
// alone proves little, since many censors let it pass; it is worth asking where
// other ports of the same address are asked too.
type TCP struct {
	Addr netip.AddrPort
}

// At is the same question, asked of addr.
func (q TCP) At(addr netip.AddrPort) Prober { q.Addr = addr; return q }

func (q TCP) Probe(ctx context.Context, n Net) []Step {
	var t trace
	if conn, err := t.connect(ctx, n, q.Addr); err == nil {
		t.steps[len(t.steps)-1].TCP = tcpInfo(conn)
		conn.Close()
	}
	return t.steps
}
