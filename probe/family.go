package probe

import (
	"context"
	"net"
	"net/netip"
)

// System is the name of the resolvers that the machine itself uses.
const System = "system"

// HasFamily says whether this machine has a route for an address family. It
// asks the kernel for the source address towards a public address, by
// connecting a UDP socket: no packet is sent.
func HasFamily(family string) bool {
	network, far := "udp4", "192.0.2.1:9" // TEST-NET-1, RFC 5737
	if family == IP6 {
		// A documentation address (RFC 3849) has a route wherever there is a
		// default route.
		network, far = "udp6", "[2001:db8::1]:9"
	}
	c, err := new(net.Dialer).DialContext(context.Background(), network, far)
	if err != nil {
		return false
	}
	c.Close()
	return true
}

// Routed says whether n has a way to an address at all, as the kernel sees it,
// and so whether "network unreachable" was the word of a router or of this
// machine. It connects a UDP socket: no packet is sent.
func Routed(ctx context.Context, n Net, addr netip.AddrPort) bool {
	c, err := n.DialContext(ctx, "udp", addr.String())
	if err != nil {
		return Classify(err) != FailureNetworkUnreachable
	}
	c.Close()
	return true
}
