// Package vantage looks at the machine that the agent runs on for what stands
// between it and the line: a tunnel, a proxy, a tool that bends packets around
// filters. What works from behind one proves nothing about the country.
package vantage

import (
	"bufio"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Clean says whether nothing of the kind is seen; if not, why tells what, and
// names no interface, address or setting. It needs no privilege and sends
// nothing. It sees its own network namespace only: a tunnel of the host that a
// container runs on, or of a router before it, stays unseen.
func Clean() (clean bool, why string) {
	return machine{root: "/", env: os.Getenv, source: source}.clean()
}

// Seen says whether servers abroad see this machine where it is: by family, the
// country that they tell, T1 for Tor, and country as the operator says, "" for
// not. It names no country.
func Seen(country string, seen map[string]string) (clean bool, why string) {
	one := country
	for _, family := range slices.Sorted(maps.Keys(seen)) {
		switch c := seen[family]; {
		case c == "T1":
			return false, "servers abroad see it come out of Tor"
		case one == "":
			one = c
		case strings.EqualFold(c, one):
		case country == "":
			return false, "servers abroad see it in different countries over IPv4 and IPv6"
		default:
			return false, "servers abroad see it in another country than vantage.country says"
		}
	}
	return true, ""
}

// A machine is where to look.
type machine struct {
	root   string                              // of proc and sys
	env    func(string) string                 // the environment
	source func(network string) (iface string) // the interface of packets to the Internet, "" if unknown
}

func (m machine) clean() (bool, string) {
	for _, f := range []struct {
		name, network string
		routes        func() []route
	}{
		{"IPv4", "udp4", m.routes4},
		{"IPv6", "udp6", m.routes6},
	} {
		routes := f.routes()
		faces := wide(routes)
		// The main table is all that proc shows; with rules before it, as
		// wg-quick's, only the kernel knows the way.
		if i := m.source(f.network); i != "" {
			faces = append(faces, i)
		}
		for _, i := range faces {
			if t := m.tunnel(i, routes); t != "" {
				return false, fmt.Sprintf("%s goes through %s", f.name, t)
			}
		}
	}
	for _, v := range []string{"HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "https_proxy", "http_proxy", "all_proxy"} {
		if m.env(v) != "" {
			return false, fmt.Sprintf("a proxy is set (%s)", v)
		}
	}
	if lib := m.env("LD_PRELOAD"); slices.ContainsFunc([]string{"proxychains", "torsocks", "tsocks"}, func(s string) bool { return strings.Contains(lib, s) }) {
		return false, "connections are led through a proxy (LD_PRELOAD)"
	}
	if tool := m.tool(); tool != "" {
		return false, fmt.Sprintf("%s runs here, which bends packets around filters", tool)
	}
	return true, ""
}

// A route is an entry of the main table that is up.
type route struct {
	bits   int // of the destination, 0 the default
	metric uint64
	via    bool // has a gateway
	iface  string
}

// Flags of a route, linux/route.h.
const (
	routeUp      = 0x1
	routeGateway = 0x2
	routeReject  = 0x200
)

// widest is the longest prefix that is still a good part of all addresses: VPN
// programs put two routes to halves (OpenVPN's redirect-gateway def1), or IPv6's
// 2000::/3, before a default that they leave in place.
const widest = 3

// wide is the interfaces to which most addresses are routed: of halves and the
// like all, since they go first, else of the default with the least metric.
func wide(routes []route) []string {
	var parts []string
	var best *route
	for i := range routes {
		r := &routes[i]
		switch {
		case r.bits > widest:
		case r.bits > 0:
			parts = append(parts, r.iface)
		case best == nil || r.metric < best.metric:
			best = r
		}
	}
	if len(parts) == 0 && best != nil {
		return []string{best.iface}
	}
	return parts
}

// routes4 is /proc/net/route: interface, destination, gateway, flags, two
// counters, metric, mask; addresses in hexadecimal as they lie in memory.
func (m machine) routes4() (rs []route) {
	m.lines("proc/net/route", func(f []string) {
		if len(f) < 8 {
			return
		}
		flags, err := strconv.ParseUint(f[3], 16, 32)
		mask, err2 := strconv.ParseUint(f[7], 16, 32)
		metric, err3 := strconv.ParseUint(f[6], 10, 32)
		if err != nil || err2 != nil || err3 != nil || flags&routeUp == 0 || flags&routeReject != 0 {
			return // the heading, too
		}
		bits := 0
		for ; mask != 0; mask &= mask - 1 {
			bits++
		}
		rs = append(rs, route{bits, metric, flags&routeGateway != 0, f[0]})
	})
	return rs
}

// routes6 is /proc/net/ipv6_route: destination and its length, source and its
// length, next hop, metric, two counters, flags, interface; all in hexadecimal.
func (m machine) routes6() (rs []route) {
	m.lines("proc/net/ipv6_route", func(f []string) {
		if len(f) < 10 || strings.HasPrefix(f[0], "fe80") || strings.HasPrefix(f[0], "ff") {
			return
		}
		bits, err := strconv.ParseUint(f[1], 16, 8)
		metric, err2 := strconv.ParseUint(f[5], 16, 32)
		flags, err3 := strconv.ParseUint(f[8], 16, 32)
		if err != nil || err2 != nil || err3 != nil || flags&routeUp == 0 || flags&routeReject != 0 {
			return
		}
		rs = append(rs, route{int(bits), metric, flags&routeGateway != 0, f[9]})
	})
	return rs
}

// Kinds of hardware, linux/if_arp.h.
const (
	hardwarePPP     = 512
	hardwareTunnel  = 768 // IPIP
	hardwareTunnel6 = 769
	hardwareSIT     = 776
	hardwareGRE     = 778
	hardwareGRE6    = 823
)

// tunnel says what kind of tunnel an interface is, "" for none.
func (m machine) tunnel(iface string, routes []route) string {
	if iface == "" || strings.ContainsAny(iface, "/\x00") || iface == "." || iface == ".." {
		return ""
	}
	dir := "sys/class/net/" + iface
	if strings.Contains(m.read(dir+"/uevent"), "DEVTYPE=wireguard") {
		return "a WireGuard tunnel"
	}
	if m.read(dir+"/tun_flags") != "" {
		return "a tunnel of some program"
	}
	kind, err := strconv.Atoi(strings.TrimSpace(m.read(dir + "/type")))
	switch {
	case err != nil: // no sysfs: by the names that programs give
		for _, p := range []string{"tun", "tap", "wg", "awg", "utun"} {
			if rest, ok := strings.CutPrefix(iface, p); ok && strings.Trim(rest, "0123456789") == "" {
				return "a tunnel"
			}
		}
		if !strings.HasPrefix(iface, "ppp") {
			return ""
		}
	case kind == hardwareTunnel, kind == hardwareTunnel6, kind == hardwareSIT, kind == hardwareGRE, kind == hardwareGRE6:
		return "an IP tunnel"
	case kind != hardwarePPP:
		return ""
	}
	// PPP may be the line itself, over Ethernet or a modem. Over somebody else's
	// line it needs a gateway there, to reach its own far end.
	if slices.ContainsFunc(routes, func(r route) bool { return r.via && r.iface != iface }) {
		return "a tunnel over PPP"
	}
	return ""
}

// tools is programs that change the packets of all others on a machine, by what
// the kernel calls them (bol-van/zapret, Waujito/youtubeUnblock).
var tools = []string{"nfqws", "nfqws2", "tpws", "youtubeUnblock"}

// tool is one of them that runs, "" if none is seen.
func (m machine) tool() string {
	names, _ := filepath.Glob(filepath.Join(m.root, "proc/[0-9]*/comm"))
	for _, name := range names {
		b, err := os.ReadFile(name)
		if comm := strings.TrimSpace(string(b)); err == nil && slices.Contains(tools, comm) {
			return comm
		}
	}
	return ""
}

// Bounds of what is read of a file.
const (
	maxFile  = 1 << 20
	maxValue = 4 << 10
)

// lines calls f with the fields of each line of a file.
func (m machine) lines(name string, f func([]string)) {
	file, err := os.Open(filepath.Join(m.root, name))
	if err != nil {
		return // not Linux, or not allowed
	}
	defer file.Close()
	s := bufio.NewScanner(io.LimitReader(file, maxFile))
	for s.Scan() {
		f(strings.Fields(s.Text()))
	}
}

// read is the text of a small file, "" if there is none.
func (m machine) read(name string) string {
	file, err := os.Open(filepath.Join(m.root, name))
	if err != nil {
		return ""
	}
	defer file.Close()
	b, _ := io.ReadAll(io.LimitReader(file, maxValue))
	return string(b)
}

// source asks the kernel from which of our addresses it would send to the
// Internet, and finds whose that is. To connect a datagram socket is to look up
// a route: no packet is sent. The addresses are those of a root server.
func source(network string) (iface string) {
	to := "198.41.0.4:53"
	if network == "udp6" {
		to = "[2001:503:ba3e::2:30]:53"
	}
	conn, err := net.Dial(network, to)
	if err != nil {
		return ""
	}
	defer conn.Close()
	local, err := netip.ParseAddrPort(conn.LocalAddr().String())
	if err != nil {
		return ""
	}
	faces, err := net.Interfaces()
	if err != nil {
		return ""
	}
	for _, i := range faces {
		addrs, err := i.Addrs()
		if err != nil {
			continue
		}
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr() == local.Addr() {
				return i.Name
			}
		}
	}
	return ""
}
