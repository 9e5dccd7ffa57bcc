//go:build linux

package netlab

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/quic-go/quic-go"

	"github.com/messenger-probe/messenger-probe/probe/probetest"
)

var (
	web4, web6 = netip.MustParseAddr("198.18.0.10"), netip.MustParseAddr("2001:db8:0:1::10")
	alt4       = netip.MustParseAddr("198.18.0.11")
	h3         = netip.MustParseAddr("198.18.0.12")
	names      = netip.MustParseAddr("198.18.0.53")
	denying    = netip.MustParseAddr("198.18.0.54")
	relay      = netip.MustParseAddr("198.18.0.60")
)

// TestNetRules shows that each rule does what it says, and nothing else, to
// real servers and real sockets.
func TestNetRules(t *testing.T) {
	l := New(t)
	cert := l.CA.Issue(t, nil, "web.lab.test", "other.lab.test")
	zone := map[string][]netip.Addr{"web.lab.test": {web4, web6}, "other.lab.test": {web4}}
	l.Nginx(t, Site{Addrs: []netip.Addr{web4, web6}, Cert: cert}, Site{Addrs: []netip.Addr{alt4}, Cert: probetest.SelfSigned(t, "web.lab.test"), Status: 503})
	l.Caddy(t, Site{Addrs: []netip.Addr{h3}, Cert: cert})
	l.Unbound(t, Resolver{Addrs: []netip.Addr{names}, Zone: zone, Cert: cert})
	l.Unbound(t, Resolver{Addrs: []netip.Addr{denying}, Zone: zone, Deny: []string{"lab.test"}, Cert: cert})
	l.Coturn(t, "lab.test", relay)
	v := &trial{l.Vantage(t, names), x509.NewCertPool()}
	v.roots.AddCert(l.CA.Cert)
	web := netip.AddrPortFrom(web4, 443)

	for _, tc := range []struct {
		name  string
		rules []Rule
		ask   func() error
		want  func(error) bool
	}{
		{"nothing", nil, func() error { return v.get(web, "web.lab.test", 1<<20) }, none},
		{"nothing IPv6", nil, func() error { return v.get(netip.AddrPortFrom(web6, 443), "web.lab.test", 1000) }, none},
		{"address", []Rule{{Hosts: []netip.Addr{web4}, Do: Drop}}, func() error { return v.get(web, "web.lab.test", 1) }, silence},
		{"another address", []Rule{{Hosts: []netip.Addr{alt4}, Do: Drop}}, func() error { return v.get(web, "web.lab.test", 1) }, none},
		{"port", []Rule{{Hosts: []netip.Addr{web4}, Ports: []uint16{80}, Do: Drop}}, func() error { return v.get(web, "web.lab.test", 1) }, none},
		{"other port", []Rule{{Hosts: []netip.Addr{web4}, Ports: []uint16{443}, Do: Drop}}, func() error { return v.connect(netip.AddrPortFrom(web4, 443)) }, silence},
		{"family", []Rule{{Family: 6, Do: Drop}}, func() error { return v.connect(netip.AddrPortFrom(web6, 443)) }, silence},
		{"other family", []Rule{{Family: 6, Do: Drop}}, func() error { return v.connect(web) }, none},
		{"reset to SYN", []Rule{{Proto: TCP, Hosts: []netip.Addr{web4}, Do: Reset}}, func() error { return v.connect(web) }, is(syscall.ECONNREFUSED)},
		{"reset to a name", []Rule{{Names: []string{"lab.test"}, Do: Reset}}, func() error { return v.get(web, "web.lab.test", 1) }, is(syscall.ECONNRESET)},
		{"silence to a name", []Rule{{Names: []string{"web.lab.test"}, Do: Drop}}, func() error { return v.get(web, "web.lab.test", 1) }, silence},
		{"another name", []Rule{{Names: []string{"web.lab.test"}, Do: Drop}}, func() error { return v.get(web, "other.lab.test", 1) }, none},
		{"delayed silence", []Rule{{Names: []string{"web.lab.test"}, Do: DropAfter(4)}}, func() error { return v.get(web, "web.lab.test", 1<<20) }, silence},
		{"freeze", []Rule{{Proto: TCP, Do: Freeze(16 << 10)}}, func() error { return v.get(web, "web.lab.test", 64<<10) }, silence},
		{"under the freeze", []Rule{{Proto: TCP, Do: Freeze(16 << 10)}}, func() error { return v.get(web, "web.lab.test", 4<<10) }, none},
		{"policed", []Rule{{Proto: TCP, Do: Police(128e3)}}, func() error { return v.get(web, "web.lab.test", 256<<10) }, silence},
		{"shaped", []Rule{{Do: Shape(8e6)}}, func() error { return v.slower(400*time.Millisecond, 512<<10) }, none},
		{"delayed", []Rule{{Do: Delay(50 * time.Millisecond)}}, func() error { return v.slower(300*time.Millisecond, 1000) }, none},
		{"lossy", []Rule{{Proto: UDP, Do: Lose(0.5)}}, func() error { return v.answered(60, 1, 40) }, none},
		{"lost", []Rule{{Do: Lose(1)}}, func() error { return v.connect(web) }, silence},
		{"hole", []Rule{{Do: Hole(1300)}}, func() error { return v.get(web, "web.lab.test", 64<<10) }, silence},
		{"redirected", []Rule{{Hosts: []netip.Addr{web4}, Do: Redirect(netip.AddrPortFrom(alt4, 0))}}, func() error { return v.get(web, "web.lab.test", 1) }, untrusted},
		{"first bytes", []Rule{{First: Begins("\x16\x03"), Do: Drop}}, func() error { return v.get(web, "web.lab.test", 1) }, silence},
		{"other first bytes", []Rule{{First: Begins("GET "), Do: Drop}}, func() error { return v.get(web, "web.lab.test", 1) }, none},
		{"QUIC", nil, func() error { return v.quic("web.lab.test") }, none},
		{"no QUIC", []Rule{{Proto: UDP, First: QUICv1, Do: Drop}}, func() error { return v.quic("web.lab.test") }, silence},
		{"QUIC to a name", []Rule{{Proto: UDP, Names: []string{"web.lab.test"}, Do: Drop}}, func() error { return v.quic("web.lab.test") }, silence},
		{"QUIC to another name", []Rule{{Proto: UDP, Names: []string{"web.lab.test"}, Do: Drop}}, func() error { return v.quic("other.lab.test") }, none},
		{"resolver", nil, func() error { return v.resolve("udp", web4) }, none},
		{"resolver over TCP", nil, func() error { return v.resolve("tcp", web4) }, none},
		{"resolver over TLS", nil, func() error { return v.resolve("tcp-tls", web4) }, none},
		{"forged", []Rule{{Proto: UDP, Names: []string{"lab.test"}, Do: Forge(dns.RcodeSuccess, alt4)}}, func() error { return v.resolve("udp", alt4, web4) }, none},
		{"forged denial", []Rule{{Proto: UDP, Names: []string{"lab.test"}, Do: Forge(dns.RcodeNameError)}}, func() error { return v.resolve("udp", netip.Addr{}, web4) }, none},
		{"not forged over TCP", []Rule{{Proto: UDP, Names: []string{"lab.test"}, Do: Forge(dns.RcodeSuccess, alt4)}}, func() error { return v.resolve("tcp", web4) }, none},
		{"hijacked", []Rule{{Proto: UDP, Ports: []uint16{53}, Do: Redirect(netip.AddrPortFrom(denying, 0))}}, func() error { return v.resolve("udp", netip.Addr{}) }, none},
		{"relay", nil, func() error { return v.answered(5, 5, 5) }, none},
		{"no relay", []Rule{{Proto: UDP, Hosts: []netip.Addr{relay}, Do: Drop}}, func() error { return v.answered(5, 0, 0) }, none},
	} {
		t.Run(tc.name, func(t *testing.T) {
			v.Box.Set(tc.rules...)
			if err := tc.ask(); !tc.want(err) {
				t.Errorf("%v", err)
			}
		})
	}

	v.Box.Set()
	before := v.Box.Count()
	if err := v.get(web, "web.lab.test", 100_000); err != nil {
		t.Error(err)
	}
	if n := v.Box.Count().Bytes - before.Bytes; n < 100_000 || n > 120_000 {
		t.Errorf("%d bytes were counted for a body of 100,000", n)
	}
	v.Unplug(t)
	if err := v.connect(web); !errors.Is(err, syscall.ENETUNREACH) {
		t.Errorf("unplugged: %v", err)
	}
}

func none(err error) bool    { return err == nil }
func silence(err error) bool { e, ok := errors.AsType[net.Error](err); return ok && e.Timeout() }
func is(want error) func(error) bool {
	return func(err error) bool { return errors.Is(err, want) }
}

func untrusted(err error) bool {
	_, ok := errors.AsType[x509.UnknownAuthorityError](err)
	return ok
}

// trial asks from a vantage, each time for at most a second.
type trial struct {
	*Vantage
	roots *x509.CertPool
}

const patience = time.Second

func (v *trial) connect(to netip.AddrPort) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c, err := v.DialContext(ctx, "tcp", to.String())
	if err == nil {
		c.Close()
	}
	return err
}

// get fetches n bytes over HTTPS.
func (v *trial) get(from netip.AddrPort, name string, n int) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	t := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: v.roots, ServerName: name},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return v.DialContext(ctx, network, from.String())
		},
	}
	defer t.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+name+Payload, nil)
	if err != nil {
		return err
	}
	req.Header.Set("Range", fmt.Sprintf("bytes=0-%d", n-1))
	resp, err := t.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = io.CopyN(io.Discard, resp.Body, int64(n))
	return err
}

func (v *trial) slower(than time.Duration, n int) error {
	start := time.Now()
	if err := v.get(netip.AddrPortFrom(web4, 443), "web.lab.test", n); err != nil {
		return err
	}
	if d := time.Since(start); d < than {
		return errors.New("took only " + d.String())
	}
	return nil
}

func (v *trial) quic(name string) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	pc, err := v.ListenPacket("udp", "0.0.0.0:0")
	if err != nil {
		return err
	}
	defer pc.Close()
	c, err := quic.Dial(ctx, pc, net.UDPAddrFromAddrPort(netip.AddrPortFrom(h3, 443)), &tls.Config{RootCAs: v.roots, ServerName: name, NextProtos: []string{"h3"}}, nil)
	if err != nil {
		return err
	}
	return c.CloseWithError(0, "")
}

// resolve wants these answers to one query, in this order; an invalid one is a
// denial.
func (v *trial) resolve(over string, want ...netip.Addr) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	port := uint16(53)
	network := over
	if over == "tcp-tls" {
		port, network = 853, "tcp"
	}
	c, err := v.DialContext(ctx, network, netip.AddrPortFrom(names, port).String())
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	if over == "tcp-tls" {
		c = tls.Client(c, &tls.Config{RootCAs: v.roots, ServerName: "web.lab.test"})
	}
	conn := &dns.Conn{Conn: c}
	if err := conn.WriteMsg(new(dns.Msg).SetQuestion("web.lab.test.", dns.TypeA)); err != nil {
		return err
	}
	var got []netip.Addr
	for range want {
		m, err := conn.ReadMsg()
		if err != nil {
			return err
		}
		var a netip.Addr
		for _, rr := range m.Answer {
			a, _ = netip.AddrFromSlice(rr.(*dns.A).A.To4())
		}
		if m.Rcode == dns.RcodeNameError == a.IsValid() {
			return errors.New(m.String())
		}
		got = append(got, a)
	}
	if !slices.Equal(got, want) {
		return errors.New("other answers than wanted")
	}
	return nil
}

// answered wants that many answers to n STUN requests.
func (v *trial) answered(n, least, most int) error {
	c, err := v.DialContext(context.Background(), "udp", netip.AddrPortFrom(relay, 3478).String())
	if err != nil {
		return err
	}
	defer c.Close()
	for range n {
		if _, err := io.WriteString(c, "\x00\x01\x00\x00\x21\x12\xa4\x42twelve bytes"); err != nil {
			return err
		}
	}
	c.SetDeadline(time.Now().Add(patience / 2))
	b, got := make([]byte, 1500), 0
	for {
		k, err := c.Read(b)
		switch {
		case err == nil && strings.Contains(string(b[:k]), "twelve bytes"):
			got++
		case err == nil:
			return errors.New("no answer to us")
		case !silence(err):
			return err
		case got < least || got > most:
			return fmt.Errorf("%d answers", got)
		default:
			return nil
		}
		if got == n {
			c.SetDeadline(time.Now().Add(patience / 10)) // none more
		}
	}
}

// Programs run in a namespace with its resolv.conf, as nobody, without a
// capability.
func TestNetUnprivileged(t *testing.T) {
	l := New(t)
	v := l.Vantage(t, names)
	out, err := v.Unprivileged("sh", "-c", "cat /etc/resolv.conf; id -u; grep -E 'Cap(Prm|Eff|Bnd)|NoNewPrivs' /proc/self/status").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	const zero = "0000000000000000"
	if got, want := strings.Join(strings.Fields(string(out)), " "), "nameserver 198.18.0.53 65534 CapPrm: "+zero+" CapEff: "+zero+" CapBnd: "+zero+" NoNewPrivs: 1"; got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
}

// What a lab makes is gone when its test ends.
func TestNetClean(t *testing.T) {
	var name, dir string
	t.Run("lab", func(t *testing.T) {
		l := New(t)
		v := l.Vantage(t, names)
		name, dir = v.Name, l.Dir
		start(t, v.Command("sleep", "1000"))
	})
	for _, path := range []string{dir, "/var/run/netns/" + name, "/etc/netns/" + name} {
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: %v", path, err)
		}
	}
}
