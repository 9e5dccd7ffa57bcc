//go:build linux

package main

import (
	"bytes"
	"crypto/tls"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/messenger-probe/messenger-probe/cmd/internal/netlab"
	"github.com/messenger-probe/messenger-probe/probe"
	"github.com/messenger-probe/messenger-probe/probe/probetest"
	"github.com/messenger-probe/messenger-probe/probe/wire/mtproto"
	"github.com/messenger-probe/messenger-probe/targets"
)

// A world is a lab with the servers of testdata/e2e, and the program.
type world struct {
	*netlab.Lab
	zone      map[string][]netip.Addr
	bin       string
	catalogue string // the folder that is laid over
	env       []string
}

// network is a routing block of its own in either family (198.18.0.0/15 is for
// tests of networks, RFC 2544; 2001:db8::/32 for documentation, RFC 3849).
type network byte

const (
	atHome   network = iota // the national resolver
	beyond                  // all others
	webA                    // web.lab.test …
	webB                    // … has two addresses
	mediaNet                // media.lab.test
	dc1Net
	dc2Net
	loginNet // g.lab.test
	botsNet  // api.lab.test
	relayA
	relayB
	homeNet // controls
	abroadNet
	pushNet   // push.lab.test and note.lab.test
	strangers // who answers in the place of others
)

// at is the n-th address of a network, in both families.
func (i network) at(n byte) []netip.Addr {
	v6 := [16]byte{0x20, 0x01, 0x0d, 0xb8, byte(i)}
	v6[15] = n/10<<4 | n%10 // written alike
	return []netip.Addr{netip.AddrFrom4([4]byte{198, 18, byte(i) << 4, n}), netip.AddrFrom16(v6)}
}

// on is addresses with a port.
func on(port uint16, addrs ...netip.Addr) (all []netip.AddrPort) {
	for _, a := range addrs {
		all = append(all, netip.AddrPortFrom(a, port))
	}
	return all
}

// Who stands in for others where a rule redirects to it.
var (
	denier      = atHome.at(54)    // a resolver that knows nothing of lab.test
	liar        = atHome.at(55)    // a resolver for which lab.test is the interceptor
	interceptor = strangers.at(66) // signs for itself
	ailing      = strangers.at(50) // answers 503
	lapsed      = strangers.at(51) // has a certificate that has ended
	portal      = strangers.at(52) // answers everybody with its own page
	warner      = strangers.at(55) // sends everybody to a page of its own
	nobody      = strangers.at(99) // an address that no host has
	refusing    = strangers.at(53) // a host with no server
	resetting   = strangers.at(54) // resets whoever speaks
)

func newWorld(t *testing.T) *world {
	t.Helper()
	// With go test's own ten minutes for a package they would be cut off in the
	// middle, and with them every other test.
	const enough = 14 * time.Minute
	if end, ok := t.Deadline(); ok && time.Until(end) < enough && os.Getenv(netlab.Required) == "" {
		t.Skipf("the tests in namespaces take up to %v: give -timeout 30m, or run .ci/run kernel browser", enough)
	}
	w := &world{Lab: netlab.New(t)}
	zone := map[string][]netip.Addr{
		"web.lab.test":      append(webA.at(10), webB.at(10)...),
		"media.lab.test":    mediaNet.at(10),
		"g.lab.test":        loginNet.at(10),
		"api.lab.test":      botsNet.at(10),
		"push.lab.test":     pushNet.at(10),
		"note.lab.test":     pushNet.at(11),
		"home1.test":        homeNet.at(10),
		"home2.test":        homeNet.at(11),
		"home3.test":        homeNet.at(12),
		"stun.home1.test":   homeNet.at(13),
		"abroad1.test":      abroadNet.at(10),
		"abroad2.test":      abroadNet.at(11),
		"abroad3.test":      abroadNet.at(12),
		"stun.abroad1.test": abroadNet.at(13),
		"filtered.test":     abroadNet.at(14),
	}
	w.zone = zone
	site := func(name string) netlab.Site {
		return netlab.Site{Addrs: zone[name], Cert: w.CA.Issue(t, nil, name)}
	}
	names := w.CA.Issue(t, nil, "dns.home1.test", "dns.abroad1.test")
	w.Unbound(t, netlab.Resolver{Addrs: atHome.at(53), Zone: zone, Cert: names})
	w.Unbound(t, netlab.Resolver{Addrs: denier, Zone: zone, Deny: []string{"lab.test"}, Cert: names})
	lies := map[string][]netip.Addr{}
	for name := range zone {
		if lies[name] = zone[name]; strings.HasSuffix(name, ".lab.test") {
			lies[name] = interceptor
		}
	}
	w.Unbound(t, netlab.Resolver{Addrs: liar, Zone: lies, Cert: names})
	w.Nginx(t, site("web.lab.test"), site("push.lab.test"), site("note.lab.test"), site("home1.test"), site("home2.test"), site("home3.test"), site("abroad1.test"), site("filtered.test"),
		netlab.Site{Addrs: interceptor, Cert: probetest.SelfSigned(t, "web.lab.test", "media.lab.test", "api.lab.test")},
		netlab.Site{Addrs: ailing, Cert: w.CA.Issue(t, nil, "web.lab.test", "media.lab.test"), Status: 503},
		netlab.Site{Addrs: lapsed, Cert: w.CA.Issue(t, probetest.Expired, "web.lab.test", "media.lab.test")},
		netlab.Site{Addrs: portal, Cert: probetest.SelfSigned(t, "portal.test")},
		netlab.Site{Addrs: warner, Cert: probetest.SelfSigned(t, "warning.test"), Redirect: "http://warning.test/"})
	w.Caddy(t, site("media.lab.test"), site("abroad2.test"), site("abroad3.test"))
	w.Coturn(t, "lab.test", relayA.at(10)...)
	w.Coturn(t, "lab.test", append(relayB.at(10), relayB.at(11)[0])...)
	w.Coturn(t, "home1.test", append(homeNet.at(13), abroadNet.at(13)...)...)

	key := probetest.RSAKey()
	dc := probetest.DC{Key: key}
	for _, n := range []network{dc1Net, dc2Net} {
		w.Serve(t, dc.Serve, append(on(443, n.at(51)...), on(5222, n.at(51)...)...)...)
	}
	chat := probetest.NewNoise()
	w.Serve(t, lingering(chat.Serve), append(on(443, loginNet.at(10)...), on(5222, loginNet.at(10)...)...)...)
	oneme := &tls.Config{Certificates: []tls.Certificate{w.CA.Issue(t, nil, "api.lab.test")}}
	w.Serve(t, func(c net.Conn) {
		if s := tls.Server(c, oneme); s.Handshake() == nil {
			probetest.OneMe{}.Serve(s)
		}
	}, on(443, botsNet.at(10)...)...)
	for _, n := range []network{dc1Net, dc2Net, loginNet, webA} {
		w.Serve(t, probetest.Stall, on(443, n.at(99)...)...)
	}
	w.Host(t, refusing...)
	w.Serve(t, func(c net.Conn) { probetest.Reset(c) }, on(443, resetting...)...)

	// Everybody may read what the agent reads.
	w.catalogue = filepath.Join(w.Dir, "catalogue")
	w.lay(t, w.catalogue, "lab.yaml", strings.ReplaceAll(read(t, "testdata/e2e/lab.yaml"), "FINGERPRINT", fmt.Sprintf("%016x", mtproto.Fingerprint(&key.PublicKey))))
	w.lay(t, w.catalogue, "control.yaml", read(t, "testdata/e2e/control.yaml"))
	w.lay(t, w.catalogue, "a-embedded.yaml", embeddedOff(t))
	w.lay(t, w.catalogue, "a-resolvers.yaml", w.resolvers(t))

	w.bin = filepath.Join(w.Dir, "messenger-probe")
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", w.bin, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	w.env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", // which nobody may not look into
		"MESSENGER_PROBE_MESSENGERS=lab",
		"MESSENGER_PROBE_CATALOGUE=" + w.catalogue,
		"MESSENGER_PROBE_TRUST_CA_FILE=" + filepath.Join(w.Dir, "ca.pem"),
		"MESSENGER_PROBE_TRUST_WHATSAPP_NOISE_ROOT=" + hex.EncodeToString(chat.Root[:])}
	return w
}

func read(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// lay writes a catalogue file.
func (w *world) lay(t *testing.T, folder, name, text string) {
	t.Helper()
	if err := os.MkdirAll(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// embeddedOff switches the embedded controls off: nobody here has their names.
func embeddedOff(t *testing.T) string {
	t.Helper()
	c, err := targets.Load("")
	if err != nil {
		t.Fatal(err)
	}
	m, _ := c.Messenger(probe.Control)
	var b bytes.Buffer
	b.WriteString("messenger: control\nendpoints:\n")
	for _, e := range m.Endpoints {
		fmt.Fprintf(&b, "  - {name: %s, function: %s, tier: optional, host: off.test, ports: [443], checks: [tcp], confidence: low, source: [off], confirmed: 2026-11", e.Name, e.Function)
		if e.Of != "" {
			fmt.Fprintf(&b, ", of: %s", e.Of)
		}
		if e.Mechanism != "" {
			fmt.Fprintf(&b, ", mechanism: %s", e.Mechanism)
		}
		b.WriteString("}\n")
	}
	return b.String()
}

// resolvers gives the embedded resolvers addresses here: the national one its
// own, which is the system's too, and all others those of one unbound abroad.
func (w *world) resolvers(t *testing.T) string {
	t.Helper()
	c, err := targets.Load("")
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	b.WriteString("resolvers:\n")
	var abroad []netip.Addr
	for i, r := range c.Resolvers {
		addrs, name, every := beyond.at(byte(10+i)), "abroad1.test", "{udp: 2, tcp: 5, dot: 10, doh: 10}"
		if r.Group == "national" {
			addrs, name, every = atHome.at(53), "home1.test", "{udp: 2}"
		} else {
			abroad = append(abroad, addrs...)
		}
		fmt.Fprintf(&b, "  - {name: %s, group: %s, addresses: [%v, \"%v\"], known: %s, dot: dns.%s, doh: https://dns.%s/dns-query, every: %s, source: [off], confirmed: 2026-11}\n",
			r.Name, r.Group, addrs[0], addrs[1], name, name, name, every)
	}
	w.Unbound(t, netlab.Resolver{Addrs: abroad, Zone: w.zone, Cert: w.CA.Issue(t, nil, "dns.abroad1.test")})
	return "test_network: true\n" + b.String()
}
