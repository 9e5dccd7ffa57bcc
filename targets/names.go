package targets

import (
	"net/netip"
	"net/url"
	"slices"

	"github.com/messenger-probe/messenger-probe/probe"
)

// The types of address records, RFC 1035 §3.2.2 and RFC 3596 §2.1.
var recordTypes = map[string]uint16{probe.IP4: 1, probe.IP6: 28}

// Records is what a dns check may ask for beside addresses, RFC 1035 §3.2.2.
var Records = []string{"TXT"}

const typeTXT = 16

// names asks resolvers for e's host: the system's own each time, and for a
// messenger's names others beside it, each as often as it says. IPv6 records
// are asked for half as often.
func (x *expansion) names(e *Endpoint) {
	for _, family := range x.v.Families {
		if len(e.Families) > 0 && !slices.Contains(e.Families, family) {
			continue
		}
		for i, s := range x.v.SystemServers[:min(len(x.v.SystemServers), 2)] {
			who := "system"
			if i > 0 {
				who = "system#2"
			}
			x.ask(e, s, who, family, 1)
		}
		for i := range x.c.Resolvers {
			if x.m.Name == probe.Control {
				break // the resolvers' own controls suffice
			}
			r := &x.c.Resolvers[i]
			for _, t := range r.transports() {
				if s, ok := r.server(t.name, x.v); ok && t.every > 0 {
					x.ask(e, s, r.Name, family, t.every)
				}
			}
		}
		if e.Record != "" {
			return // a text is of no family: once is enough
		}
	}
}

func (x *expansion) ask(e *Endpoint, s probe.Server, who, family string, every int) {
	if family == probe.IP6 {
		every *= 2
	}
	q := question{every: every}
	kind := recordTypes[family]
	if e.Record != "" {
		kind = typeTXT
	}
	c := probe.Check{
		Protocol: probe.ProtoDNS,
		Family:   family,
		Target:   target(s.Transport, who),
		Path:     "resolver",
		Prober:   probe.DNS{Server: s, Host: e.Host, Type: kind, AllowBogons: x.c.TestNetwork},
	}
	if s.Transport == probe.OverTLS || s.Transport == probe.OverHTTPS {
		c.Gate = s.Addr.Addr().String() + "|" + s.ServerName
	}
	x.add(e, q, c)
}

// resolvers asks each resolver for a name that it must know: without this, a
// resolver that is down would read as a blocked messenger. These are controls.
func (x *expansion) resolvers() {
	x.m = &Messenger{Name: probe.Control}
	for i := range x.c.Resolvers {
		r := &x.c.Resolvers[i]
		e := &Endpoint{
			Name:     "dns-" + r.Name,
			Function: probe.Domestic,
			Tier:     Tiers[0],
			Host:     r.Known,
			// The national system need not answer abroad.
			Informational: r.Group == "national",
		}
		if r.Group == "foreign" {
			e.Function = probe.Foreign
		}
		for _, t := range r.transports() {
			if s, ok := r.server(t.name, x.v); ok {
				x.ask(e, s, r.Name, probe.IP4, t.health)
			}
		}
	}
}

// A transport is one way to ask a resolver.
type transport struct {
	name   string
	every  int // intervals between two questions about a messenger's name; 0 never
	health int // and between two about the name that it must know
}

func (r *Resolver) transports() []transport {
	ts := []transport{{probe.OverUDP, r.Every.UDP, 2}, {probe.OverTCP, r.Every.TCP, 5}}
	if r.DoT != "" {
		ts = append(ts, transport{probe.OverTLS, r.Every.DoT, 10})
	}
	if r.DoH != "" {
		ts = append(ts, transport{probe.OverHTTPS, r.Every.DoH, 10})
	}
	return ts
}

// server is the resolver over one transport, at the first of its addresses
// whose family the vantage has.
func (r *Resolver) server(transport string, v *Vantage) (probe.Server, bool) {
	for _, a := range r.Addresses {
		if !slices.Contains(v.Families, familyOf(a)) {
			continue
		}
		s := probe.Server{Name: r.Name, Transport: transport, Addr: netip.AddrPortFrom(a, 53)}
		switch transport {
		case probe.OverTLS:
			s.Addr, s.ServerName, s.Trust = netip.AddrPortFrom(a, 853), r.DoT, v.trust(&Endpoint{})
		case probe.OverHTTPS:
			u, err := url.Parse(r.DoH)
			if err != nil {
				return s, false // validated long ago
			}
			s.Addr, s.ServerName, s.Path, s.Trust = netip.AddrPortFrom(a, 443), u.Hostname(), u.Path, v.trust(&Endpoint{})
		}
		return s, true
	}
	return probe.Server{}, false
}
