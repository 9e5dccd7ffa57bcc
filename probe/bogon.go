package probe

import "net/netip"

// bogon says whether an address cannot be that of a service on the Internet:
// RFC 6890 and its registries (iana-ipv4-special-registry and
// iana-ipv6-special-registry, the entries that are not globally reachable),
// multicast, and IPv6 outside of 2000::/3, the only space IANA has given out.
// An address of the NAT64 of an IPv6-only network (RFC 6052, RFC 8215) stands
// for an IPv4 address and is judged by it where it shows.
func bogon(a netip.Addr) bool {
	if a.Is6() && !a.Is4In6() {
		b := a.As16()
		switch {
		case nat64.Contains(a):
			return bogon(netip.AddrFrom4([4]byte(b[12:])))
		case sixToFour.Contains(a):
			return bogon(netip.AddrFrom4([4]byte(b[2:6])))
		case localNAT64.Contains(a):
			return false
		case !global6.Contains(a):
			return true
		}
	}
	for _, p := range special {
		if p.Contains(a) {
			return true
		}
	}
	return !a.IsValid() || a.Is4In6()
}

var (
	nat64      = netip.MustParsePrefix("64:ff9b::/96")
	localNAT64 = netip.MustParsePrefix("64:ff9b:1::/48")
	sixToFour  = netip.MustParsePrefix("2002::/16")
	global6    = netip.MustParsePrefix("2000::/3")
)

var special = [...]netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"),       // this network, RFC 791
	netip.MustParsePrefix("10.0.0.0/8"),      // private, RFC 1918
	netip.MustParsePrefix("100.64.0.0/10"),   // shared, RFC 6598
	netip.MustParsePrefix("127.0.0.0/8"),     // loopback, RFC 1122
	netip.MustParsePrefix("169.254.0.0/16"),  // link-local, RFC 3927
	netip.MustParsePrefix("172.16.0.0/12"),   // private
	netip.MustParsePrefix("192.0.0.0/24"),    // protocol assignments, RFC 6890
	netip.MustParsePrefix("192.0.2.0/24"),    // documentation, RFC 5737
	netip.MustParsePrefix("192.168.0.0/16"),  // private
	netip.MustParsePrefix("198.18.0.0/15"),   // benchmarks, RFC 2544; fake addresses of tunnels
	netip.MustParsePrefix("198.51.100.0/24"), // documentation
	netip.MustParsePrefix("203.0.113.0/24"),  // documentation
	netip.MustParsePrefix("224.0.0.0/3"),     // multicast, reserved, broadcast
	netip.MustParsePrefix("2001::/23"),       // protocol assignments, Teredo, RFC 2928
	netip.MustParsePrefix("2001:db8::/32"),   // documentation, RFC 3849
	netip.MustParsePrefix("3fff::/20"),       // documentation, RFC 9637
}
