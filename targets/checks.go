package targets

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/publicsuffix"

	"github.com/messenger-probe/messenger-probe/probe"
)

// A Vantage is where, how often and what to measure.
type Vantage struct {
	Messengers []string // names in the catalogue; the controls come by themselves
	Tiers      []string // none: core alone
	Families   []string // ip4, ip6

	Interval time.Duration // between two runs of a check of every 1
	Timeout  time.Duration // of one run, at most

	Resolver      probe.Lookup   // finds the addresses of hosts
	SystemServers []probe.Server // what the machine itself asks; at most the first two are used

	// Trust is what to trust beside these pins, which an endpoint brings; nil is
	// Mozilla's list alone.
	Trust func(pins [][32]byte) *probe.Trust
	// NoiseRoot is the key that WhatsApp's chat servers must chain to; zero is
	// the published one.
	NoiseRoot [32]byte
}

// How many addresses of a name are asked: a front end answers with one to four.
const (
	coreSlots  = 4
	otherSlots = 2
)

// Checks is what to measure at a vantage: the messengers that it names, and the
// controls. The order is always the same, and no two checks share an ID.
func (c *Catalogue) Checks(v Vantage) ([]probe.Check, error) {
	if err := c.fit(&v); err != nil {
		return nil, err
	}
	x := expansion{c: c, v: &v}
	var errs []error
	for _, name := range append(slices.Clone(v.Messengers), probe.Control) {
		m, _ := c.Messenger(name)
		if m == nil {
			continue // a catalogue without controls: a test's
		}
		before := len(x.checks)
		x.messenger(m)
		if len(x.checks) == before && name != probe.Control {
			errs = append(errs, fmt.Errorf("messengers: %s has no endpoint in tiers %v and families %v; add the tier extended, or endpoints", name, v.Tiers, v.Families))
		}
	}
	x.resolvers()
	if len(errs) == 0 {
		errs = append(errs, x.distinct())
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return x.checks, nil
}

// fit refuses a vantage that cannot be served, and fills in its defaults.
func (c *Catalogue) fit(v *Vantage) error {
	if len(v.Tiers) == 0 {
		v.Tiers = Tiers[:1]
	}
	var errs []error
	for _, t := range v.Tiers {
		if err := checkWord(t, Tiers); err != nil {
			errs = append(errs, fmt.Errorf("tiers: %w", err))
		}
	}
	for _, f := range v.Families {
		if err := checkWord(f, families); err != nil {
			errs = append(errs, fmt.Errorf("families: %w", err))
		}
	}
	if len(v.Families) == 0 {
		errs = append(errs, errors.New("families: none; one or both of ip4, ip6"))
	}
	if v.Interval <= 0 || v.Timeout <= 0 {
		errs = append(errs, errors.New("interval, timeout: both must be longer than nothing"))
	}
	if len(v.Messengers) == 0 {
		errs = append(errs, fmt.Errorf("messengers: none; known are %s", strings.Join(c.Names(), ", ")))
	}
	for i, name := range v.Messengers {
		if _, ok := c.Messenger(name); !ok || name == probe.Control {
			errs = append(errs, fmt.Errorf("messengers: %q is not in the catalogue%s", name, hint(name, c.Names())))
		}
		if slices.Contains(v.Messengers[:i], name) {
			errs = append(errs, fmt.Errorf("messengers: %s is there twice; keep one", name))
		}
	}
	return errors.Join(errs...)
}

// trust is what e's certificates may chain to.
func (v *Vantage) trust(e *Endpoint) *probe.Trust {
	var pins [][32]byte
	for _, p := range e.Pins {
		pins = append(pins, p)
	}
	if v.Trust == nil {
		return &probe.Trust{Pins: pins}
	}
	return v.Trust(pins)
}

// expansion turns endpoints into checks.
type expansion struct {
	c      *Catalogue
	v      *Vantage
	m      *Messenger
	pools  map[string]int // addresses in each pool of m
	checks []probe.Check
}

func (x *expansion) messenger(m *Messenger) {
	x.m, x.pools = m, map[string]int{}
	for i := range m.Endpoints {
		if e := &m.Endpoints[i]; e.Pool != "" && x.wanted(e) {
			x.pools[e.Pool] += max(len(e.Addresses), 1)
		}
	}
	for i := range m.Endpoints {
		if e := &m.Endpoints[i]; x.wanted(e) {
			x.endpoint(e)
		}
	}
}

func (x *expansion) wanted(e *Endpoint) bool {
	return slices.Contains(x.v.Tiers, e.Tier) && (e.Of == "" || slices.Contains(x.v.Messengers, e.Of))
}

// every is how many intervals lie between two runs of e's checks.
func (x *expansion) every(e *Endpoint) int {
	n := e.Every
	if n == 0 && e.Tier == Tiers[0] {
		n = 1
	} else if n == 0 {
		n = 5
	}
	return max(n, (x.pools[e.Pool]+1)/2)
}

func (x *expansion) endpoint(e *Endpoint) {
	for _, name := range e.Checks {
		k := kinds[name]
		if k.asks == nil {
			x.names(e)
			continue
		}
		for _, q := range k.asks(e, x.v) {
			for _, port := range e.Ports {
				x.pinned(e, k, q, port)
				x.byName(e, k, q, port)
			}
		}
	}
}

// pinned asks each address of the catalogue.
func (x *expansion) pinned(e *Endpoint, k kind, q question, port uint16) {
	for _, a := range e.Addresses {
		family := familyOf(a)
		if !slices.Contains(x.v.Families, family) {
			continue
		}
		addr := netip.AddrPortFrom(a, port)
		x.add(e, q, probe.Check{
			Protocol: k.protocol,
			Family:   family,
			Target:   target(addr.String(), q.arm),
			Gate:     a.String() + "|" + e.serverName(),
			Path:     x.path(e, family, pathOf(a)),
			Prober:   q.ask.At(addr),
		})
	}
}

// byName asks the addresses that the host's name has at the time.
func (x *expansion) byName(e *Endpoint, k kind, q question, port uint16) {
	if e.Host == "" {
		return
	}
	slots := otherSlots
	if e.Tier == Tiers[0] {
		slots = coreSlots
	}
	if q.first {
		slots = 1
	}
	for _, family := range x.v.Families {
		if len(e.Families) > 0 && !slices.Contains(e.Families, family) {
			continue
		}
		for slot := range slots {
			name := fmt.Sprint(port)
			if slot > 0 {
				name = fmt.Sprintf("%d#%d", port, slot+1)
			}
			x.add(e, q, probe.Check{
				Protocol: k.protocol,
				Family:   family,
				Target:   target(name, q.arm),
				Gate:     e.Host + "|" + e.serverName(),
				Path:     x.path(e, family, domainOf(e.Host)),
				Prober:   probe.ByName{Host: e.Host, Port: port, Family: family, Slot: slot, Names: x.v.Resolver, Ask: q.ask},
			})
		}
	}
}

// add fills in what all checks of an endpoint share.
func (x *expansion) add(e *Endpoint, q question, c probe.Check) {
	c.Messenger, c.Function, c.Endpoint = x.m.Name, e.Function, e.Name
	every := x.every(e) * max(q.every, 1)
	if by, ok := c.Prober.(probe.ByName); q.heavy && (c.Family == probe.IP6 || ok && by.Slot > 0) {
		every *= 3
	}
	c.Interval = x.v.Interval * time.Duration(every)
	c.Timeout = min(x.v.Timeout, c.Interval)
	c.Informational = e.Informational || q.unproven || e.Confidence == "low"
	c.Private = e.private()
	c.Of, c.Mechanism, c.Lends = e.Of, e.Mechanism, e.Lends
	if c.Protocol == probe.ProtoTransfer {
		c.Bytes = int64(cost(q.ask))
	}
	x.checks = append(x.checks, c)
}

// distinct says whether each check has an ID of its own.
func (x *expansion) distinct() error {
	seen := make(map[string]bool, len(x.checks))
	for _, c := range x.checks {
		id := c.ID()
		if seen[id] {
			return fmt.Errorf("catalogue: two checks are %s: an endpoint asks the same address twice", id)
		}
		seen[id] = true
	}
	return nil
}

// target is a check's Target.
func target(what, arm string) string {
	if arm == "" {
		return what
	}
	return what + "," + arm
}

// path is the routing group of a check: a network, in one family. Controls stand
// for the vantage's own line, siblings for the network of a messenger.
func (x *expansion) path(e *Endpoint, family, own string) string {
	if x.m.Name == probe.Control && e.Function != probe.Sibling {
		return "local"
	}
	return cmp.Or(e.Network, own) + " " + family
}

// pathOf is the block that an address is likely to be routed with.
func pathOf(a netip.Addr) string {
	bits := 20
	if a.Is6() {
		bits = 40
	}
	p, err := a.Prefix(bits)
	if err != nil {
		return a.String()
	}
	return p.String()
}

// domainOf is a name's registrable domain.
func domainOf(host string) string {
	if d, err := publicsuffix.EffectiveTLDPlusOne(host); err == nil {
		return d
	}
	return host
}
