package targets

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/messenger-probe/messenger-probe/probe"
)

var (
	labelForm = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,62}$`)
	hostForm  = regexp.MustCompile(`^([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9])?\.)+[a-z]([a-z0-9-]{0,61}[a-z0-9])?$`)
	pathForm  = regexp.MustCompile(`^/[!-~]{0,255}$`)
	quadForm  = regexp.MustCompile(`[0-9]{1,3}[._-][0-9]{1,3}[._-][0-9]{1,3}[._-][0-9]{1,3}`)
)

// checkLabel is why s may not be a label value; nil if it may.
func checkLabel(s string) error {
	switch {
	case s == "":
		return errors.New("missing; a short word as in web or dc2")
	case !labelForm.MatchString(s):
		return fmt.Errorf("%q is no name; small letters, digits, dots, dashes and underscores, at most 63, the first a letter or digit", s)
	case quadForm.MatchString(s):
		return fmt.Errorf("%q holds an address; names become metric labels, which carry none", s)
	}
	return nil
}

// checkWord is why s is not of a closed set; nil if it is.
func checkWord(s string, set []string) error {
	switch {
	case s == "":
		return errors.New("missing; one of " + strings.Join(set, ", "))
	case !slices.Contains(set, s):
		return fmt.Errorf("%q is unknown%s", s, hint(s, set))
	}
	return nil
}

// finder collects the errors of one entry.
type finder struct {
	at   place
	errs []error
}

func (f *finder) errorf(key, format string, args ...any) {
	f.errs = append(f.errs, f.at.errorf(key, format, args...))
}

func (f *finder) check(key string, err error) {
	if err != nil {
		f.errorf(key, "%v", err)
	}
}

// unique tells of the first value that is there twice.
func unique[T comparable](f *finder, key string, values []T) {
	for i, v := range values {
		if slices.Contains(values[:i], v) {
			f.errorf(key, "%v is there twice; keep one", v)
			return
		}
	}
}

// validate is what can be said of one file alone.
func (doc *document) validate() error {
	f := finder{at: doc.at}
	switch {
	case doc.Messenger == "" && len(doc.Endpoints) > 0:
		f.errorf("endpoints", "whose? add messenger: NAME")
	case doc.Messenger == "" && len(doc.Resolvers) == 0:
		f.errorf("", "neither messenger nor resolvers; it should start with messenger: NAME, or with resolvers:")
	case doc.Messenger != "":
		f.check("messenger", checkLabel(doc.Messenger))
		if doc.Network != "" {
			f.check("network", checkLabel(doc.Network))
		}
		if len(doc.Endpoints) == 0 {
			f.errorf("endpoints", "missing; a messenger without endpoints cannot be measured")
		}
	}
	seen := map[string]place{}
	for i := range doc.Endpoints {
		e := &doc.Endpoints[i]
		f.errs = append(f.errs, e.validate(doc), once(seen, e.Name, e.at))
	}
	clear(seen)
	for i := range doc.Resolvers {
		r := &doc.Resolvers[i]
		f.errs = append(f.errs, r.validate(doc), once(seen, r.Name, r.at))
	}
	return errors.Join(f.errs...)
}

// once notes a name, and tells of one that is there already.
func once(seen map[string]place, name string, at place) error {
	if first, ok := seen[name]; ok && name != "" {
		return at.errorf("name", "%s has this name too, in line %d; each needs its own", first.path, first.line)
	}
	seen[name] = at
	return nil
}

func (e *Endpoint) validate(doc *document) error {
	f := finder{at: e.at}
	f.check("name", checkLabel(e.Name))
	if doc.Messenger == probe.Control {
		f.check("function", checkWord(e.Function, Roles))
	} else {
		f.check("function", checkWord(e.Function, Functions))
	}
	f.check("tier", checkWord(e.Tier, Tiers))
	f.check("confidence", checkWord(e.Confidence, Confidences))
	e.validateWhere(&f, doc.TestNetwork)
	e.validateChecks(&f)
	e.validateRole(&f)
	f.sourced(e.Source, e.Confirmed)
	if e.Every < 0 || e.Every > maxEvery || e.Every == 0 && e.has("every") {
		f.errorf("every", "%d is no multiple of the interval; from 1 to %d", e.Every, maxEvery)
	}
	if e.Pool != "" {
		f.check("pool", checkLabel(e.Pool))
	}
	if e.Network != "" {
		f.check("network", checkLabel(e.Network))
	}
	return errors.Join(f.errs...)
}

// maxEvery keeps a check at least once a day at the default interval of 60 s.
const maxEvery = 1440

// has says whether the entry set a key.
func (e *Endpoint) has(key string) bool { _, ok := e.at.lines[key]; return ok }

func (f *finder) sourced(source []string, confirmed Month) {
	if len(source) == 0 {
		f.errorf("source", "missing; say who says so, as in source: [tdlib/td td/telegram/net/ConnectionCreator.cpp]")
	}
	if confirmed.IsZero() && f.at.lines["confirmed"] == 0 {
		f.errorf("confirmed", "missing; the month in which the newest source said so, as in confirmed: 2026-08")
	}
}

// validateWhere is about hosts, addresses, families and ports.
func (e *Endpoint) validateWhere(f *finder, test bool) {
	if e.Host == "" && len(e.Addresses) == 0 {
		f.errorf("host", "missing; an endpoint has a host, addresses, or both")
	}
	if e.Host != "" {
		f.check("host", checkHost(e.Host))
	}
	if e.ServerName != "" {
		f.check("server_name", checkHost(e.ServerName))
	}
	f.addresses(e.Addresses, test)
	for _, fam := range e.Families {
		f.check("families", checkWord(fam, families))
	}
	unique(f, "families", e.Families)
	for _, a := range e.Addresses {
		if len(e.Families) > 0 && !slices.Contains(e.Families, familyOf(a)) {
			f.errorf("families", "%v is of %s, which the list leaves out", a, familyOf(a))
		}
	}
	if len(e.Ports) == 0 && e.Record == "" {
		f.errorf("ports", "missing; as in ports: [443]")
	}
	unique(f, "ports", e.Ports)
}

var families = []string{probe.IP4, probe.IP6}

func familyOf(a netip.Addr) string {
	if a.Is4() {
		return probe.IP4
	}
	return probe.IP6
}

func checkHost(s string) error {
	if _, err := netip.ParseAddr(s); err == nil {
		return fmt.Errorf("%q is an address; it goes to addresses: [%s]", s, s)
	}
	if len(s) > 253 || !hostForm.MatchString(s) {
		return fmt.Errorf("%q is no host name; as in web.whatsapp.com: small letters, no scheme, no port, no path", s)
	}
	return nil
}

// addresses refuses what can never be a server on the internet: a typing error
// would otherwise look like a block. Test networks are made of such addresses.
func (f *finder) addresses(addrs []netip.Addr, test bool) {
	for _, a := range addrs {
		if !a.IsValid() {
			continue // told already
		}
		if a.Zone() != "" || a.Is4In6() || a.IsUnspecified() || a.IsMulticast() {
			f.errorf("addresses", "%v is not the address of one server", a)
			continue
		}
		for _, b := range bogons {
			if b.Contains(a) && !test {
				f.errorf("addresses", "%v is in %v, which is not on the internet; a file for a test network says test_network: true", a, b)
				break
			}
		}
	}
	unique(f, "addresses", addrs)
}

// bogons are the special-purpose blocks that are not globally reachable (IANA
// special-purpose address registries, RFC 6890 and its updates), and IPv6
// outside of 2000::/3, the only space that IANA has given out.
var bogons = parsePrefixes("0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 " +
	"192.0.0.0/24 192.0.2.0/24 192.168.0.0/16 198.18.0.0/15 198.51.100.0/24 203.0.113.0/24 240.0.0.0/4 " +
	"::/3 4000::/2 8000::/1 2001::/23 2001:db8::/32 3fff::/20")

func parsePrefixes(s string) []netip.Prefix {
	var ps []netip.Prefix
	for _, p := range strings.Fields(s) {
		ps = append(ps, netip.MustParsePrefix(p))
	}
	return ps
}

// validateChecks is about what is asked, and refuses keys that no check of the
// entry would heed.
func (e *Endpoint) validateChecks(f *finder) {
	if len(e.Checks) == 0 {
		f.errorf("checks", "missing; as in checks: [dns, tcp, tls]")
	}
	unique(f, "checks", e.Checks)
	heeded, words := map[string]bool{}, []string(nil)
	for _, name := range e.Checks {
		if err := checkWord(name, kindNames()); err != nil {
			f.check("checks", err)
			return
		}
		if name == probe.ProtoDNS && e.Host == "" {
			f.errorf("checks", "dns asks for a name, and there is no host")
		}
		words = append(words, kinds[name].transports...)
		for _, key := range kinds[name].keys {
			heeded[key] = true
		}
		for _, key := range kinds[name].needs {
			heeded[key] = true
			if !e.has(key) && !(key == "server_name" && e.Host != "") {
				f.errorf(key, "missing; %s needs it", name)
			}
		}
	}
	for _, key := range slices.Sorted(keysOfKinds()) {
		if e.has(key) && !heeded[key] {
			f.errorf(key, "no check of this endpoint heeds it; take it out, or add the check")
		}
	}
	for _, t := range e.Transports {
		f.check("transports", checkWord(t, words))
	}
	unique(f, "transports", e.Transports)
	if slices.Contains(e.Transports, "websocket") && e.serverName() == "" {
		f.errorf("server_name", "missing; websocket needs it")
	}
	if e.has("dc") && (e.DC < 1 || e.DC > 999) {
		f.errorf("dc", "%d is no data centre; from 1 to 999, and media: true or test: true beside it", e.DC)
	}
	if e.Prove && e.DC == 0 {
		f.errorf("dc", "missing; prove: true tells the data centre its number")
	}
	if e.Path != "" && !pathForm.MatchString(e.Path) {
		f.errorf("path", "%q is no path; as in /ws/chat", e.Path)
	}
	if e.Origin != "" && !(strings.HasPrefix(e.Origin, "https://") && checkHost(e.Origin[8:]) == nil) {
		f.errorf("origin", "%q is no origin; as in https://web.whatsapp.com", e.Origin)
	}
	e.validateHTTP(f)
	for _, d := range e.Directions {
		f.check("directions", checkWord(d, []string{probe.Download, probe.Upload}))
	}
	unique(f, "directions", e.Directions)
	if len(e.Realm) > 128 {
		f.errorf("realm", "too long; at most 128 bytes")
	}
	if e.H3 != "" {
		f.check("h3", checkWord(e.H3, h3Words))
	}
	if e.H3 == "no" && (slices.Contains(e.Checks, "quic") || slices.Contains(e.Checks, "quic-ping")) {
		f.errorf("h3", "no, and yet quic is among the checks; take one of them out")
	}
	for _, a := range e.ALPN {
		if a == "" || len(a) > 255 {
			f.errorf("alpn", "%q is no protocol name; as in h2", a)
		}
	}
	unique(f, "pins", e.Pins)
}

func (e *Endpoint) validateHTTP(f *finder) {
	if e.Method != "" {
		f.check("method", checkWord(e.Method, []string{"GET", "HEAD"}))
	}
	if e.Record != "" {
		f.check("record", checkWord(e.Record, Records))
		if len(e.Checks) > 1 {
			f.errorf("record", "a name that is asked for a text has no addresses to ask; checks: [dns] alone")
		}
	}
	if e.Plain && slices.ContainsFunc(e.Checks, func(c string) bool { return c != "http" && c != "tcp" && c != "dns" }) {
		f.errorf("plain", "only http, tcp and dns go without TLS; give the other checks an endpoint of their own")
	}
	if e.Plain && e.H3 != "" {
		f.errorf("plain", "HTTP/3 has no form without TLS; take h3 out")
	}
	if x := e.Expect; x.Status != 0 && (x.Status < 100 || x.Status > 599) {
		f.errorf("expect", "%d is no status; from 100 to 599", x.Status)
	}
	if e.Method == "HEAD" && (len(e.Expect.JSON) > 0 || len(e.Expect.Contains) > 0) {
		f.errorf("expect", "HEAD has no body that could hold this; leave method out")
	}
	if e.Method == "HEAD" && e.Seen != "" {
		f.errorf("seen", "HEAD has no body that could tell; leave method out")
	}
	if e.Plain && e.Seen != "" {
		f.errorf("seen", "without TLS anybody could tell; take plain out")
	}
}

// mechanisms are those that a positive control can be sensitive to: what is
// done to a name or an address of its own (CONTRACT: mechanism).
var mechanisms = []string{"dns_omission", "dns_injection", "dns_forgery", "ip_block", "tcp_reset", "sni_reset",
	"sni_drop", "sni_delayed_drop", "tls_mitm", "http_stub", "freeze", "throttling", "quic_sni_block", "call_block"}

// validateRole is about what only controls have.
func (e *Endpoint) validateRole(f *finder) {
	switch {
	case e.Function == probe.Sibling && e.Of == "":
		f.errorf("of", "missing; the messenger whose path this sibling shares")
	case e.Function != probe.Sibling && e.Of != "":
		f.errorf("of", "only a control of function sibling has it")
	}
	switch {
	case e.Function == probe.Positive:
		f.check("mechanism", checkWord(e.Mechanism, mechanisms))
	case e.Mechanism != "":
		f.errorf("mechanism", "only a control of function positive has it")
	}
	if e.Seen != "" && e.Function != probe.Domestic && e.Function != probe.Foreign {
		f.errorf("seen", "only a domestic or foreign control has it")
	}
	if e.Lends && (!slices.Contains([]string{probe.Domestic, probe.Foreign}, e.Function) || !slices.Contains(e.Checks, "tls")) {
		f.errorf("lends", "only a domestic or foreign control with the check tls has it")
	}
}

func (r *Resolver) validate(doc *document) error {
	f := finder{at: r.at}
	f.check("name", checkLabel(r.Name))
	f.check("group", checkWord(r.Group, Groups))
	if len(r.Addresses) == 0 {
		f.errorf("addresses", "missing; a resolver is asked at its addresses")
	}
	f.addresses(r.Addresses, doc.TestNetwork)
	if r.Known == "" {
		f.errorf("known", "missing; a name that it must know, as in known: example.com")
	} else {
		f.check("known", checkHost(r.Known))
	}
	if r.DoH != "" {
		u, err := url.Parse(r.DoH)
		if err != nil || u.Scheme != "https" || u.Port() != "" || u.Path == "" || u.RawQuery != "" || u.User != nil || checkHost(u.Hostname()) != nil {
			f.errorf("doh", "%q is no DoH address; as in https://dns.example/dns-query", r.DoH)
		}
	}
	if r.DoT != "" {
		f.check("dot", checkHost(r.DoT))
	}
	for _, t := range []struct {
		key   string
		every int
		able  bool
	}{{"udp", r.Every.UDP, true}, {"tcp", r.Every.TCP, true}, {"dot", r.Every.DoT, r.DoT != ""}, {"doh", r.Every.DoH, r.DoH != ""}} {
		switch {
		case t.every < 0 || t.every > maxEvery:
			f.errorf("every", "%s: %d is no multiple of the interval; from 1 to %d, or leave it out", t.key, t.every, maxEvery)
		case t.every > 0 && !t.able:
			f.errorf("every", "%s: the resolver has no %s", t.key, t.key)
		}
	}
	f.sourced(r.Source, r.Confirmed)
	return errors.Join(f.errs...)
}

// validate is what can only be said of the whole.
func (c *Catalogue) validate() error {
	var errs []error
	n := 0
	for _, m := range c.Messengers {
		if n += len(m.Endpoints); n > maxEndpoints {
			return fmt.Errorf("more than %d endpoints", maxEndpoints)
		}
		for i := range m.Endpoints {
			e := &m.Endpoints[i]
			if e.Of == "" {
				continue
			}
			if _, ok := c.Messenger(e.Of); !ok || e.Of == probe.Control {
				errs = append(errs, e.at.errorf("of", "%q is no messenger%s", e.Of, hint(e.Of, c.Names())))
			}
		}
	}
	if len(c.Resolvers) > maxResolvers {
		errs = append(errs, fmt.Errorf("more than %d resolvers", maxResolvers))
	}
	return errors.Join(errs...)
}
