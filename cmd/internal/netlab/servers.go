//go:build linux

package netlab

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// A Resolver is an unbound: UDP and TCP on 53, DoT on 853, DoH at /dns-query.
type Resolver struct {
	Addrs []netip.Addr
	Zone  map[string][]netip.Addr // every name that exists
	Deny  []string                // domains of which it says that they do not
	Cert  tls.Certificate
}

// Unbound starts a resolver.
func (l *Lab) Unbound(tb testing.TB, r Resolver) {
	tb.Helper()
	l.Host(tb, r.Addrs...)
	dir := l.folder(tb, "unbound", r.Addrs[0])
	crt, key := l.certificate(tb, dir, r.Cert)
	var b strings.Builder
	fmt.Fprintf(&b, `server:
  directory: %q
  chroot: ""
  username: ""
  pidfile: ""
  use-syslog: no
  verbosity: 1
  incoming-num-tcp: 30
  module-config: "iterator"
  access-control: 0.0.0.0/0 allow
  access-control: ::/0 allow
  tls-service-pem: %q
  tls-service-key: %q
  http-endpoint: "/dns-query"
  local-zone: "." static
`, filepath.Join(l.Dir, dir), crt, key)
	for _, a := range r.Addrs {
		fmt.Fprintf(&b, "  interface: %v@53\n  interface: %v@853\n  interface: %v@443\n", a, a, a)
	}
	for _, d := range r.Deny {
		fmt.Fprintf(&b, "  local-zone: %q always_nxdomain\n", d+".")
	}
	for name, addrs := range r.Zone {
		for _, a := range addrs {
			typ := "A"
			if a.Is6() {
				typ = "AAAA"
			}
			fmt.Fprintf(&b, "  local-data: \"%s. 300 IN %s %v\"\n", name, typ, a)
		}
	}
	start(tb, l.Command("unbound", "-d", "-p", "-c", l.write(tb, dir+"/unbound.conf", []byte(b.String()))))
	l.await(tb, r.Addrs, 53, 853, 443)
}

// A Site is a web server of its own addresses, which answers any name.
type Site struct {
	Addrs    []netip.Addr
	Cert     tls.Certificate
	Status   int    // of every answer; 0 is 200; nginx alone
	Redirect string // of every answer, with status 302; nginx alone
}

// Payload is the path of a file of a mebibyte that sites with status 200 have,
// in ranges if asked for.
const Payload = "/payload"

// Nginx starts an nginx: HTTPS on 443, HTTP on 80.
func (l *Lab) Nginx(tb testing.TB, sites ...Site) {
	tb.Helper()
	dir := l.folder(tb, "nginx", sites[0].Addrs[0])
	l.write(tb, "www"+Payload, make([]byte, 1<<20))
	l.write(tb, "www/index.html", []byte("<!doctype html><title>netlab</title>\n"))
	var b strings.Builder
	fmt.Fprintf(&b, "daemon off; master_process off; pid %[1]s/pid; error_log stderr error;\n"+
		"events { worker_connections 1024; }\nhttp { access_log off; client_body_temp_path %[1]s/body; proxy_temp_path %[1]s/proxy;"+
		" fastcgi_temp_path %[1]s/fastcgi; uwsgi_temp_path %[1]s/uwsgi; scgi_temp_path %[1]s/scgi;\n", filepath.Join(l.Dir, dir))
	var all []netip.Addr
	for i, s := range sites {
		l.Host(tb, s.Addrs...)
		all = append(all, s.Addrs...)
		crt, key := l.certificate(tb, fmt.Sprintf("%s/%d", dir, i), s.Cert)
		fmt.Fprintf(&b, "server { ssl_certificate %s; ssl_certificate_key %s; root %s/www;", crt, key, l.Dir)
		for _, a := range s.Addrs {
			fmt.Fprintf(&b, " listen %v ssl http2; listen %v;", netip.AddrPortFrom(a, 443), netip.AddrPortFrom(a, 80))
		}
		switch {
		case s.Redirect != "":
			fmt.Fprintf(&b, " return 302 %s;", s.Redirect)
		case s.Status != 0:
			fmt.Fprintf(&b, " return %d;", s.Status)
		}
		b.WriteString(" }\n")
	}
	b.WriteString("}\n")
	start(tb, l.Command("nginx", "-e", "stderr", "-c", l.write(tb, dir+"/nginx.conf", []byte(b.String()))))
	l.await(tb, all, 443, 80)
}

// Caddy starts a caddy: HTTPS and HTTP/3 on 443.
func (l *Lab) Caddy(tb testing.TB, sites ...Site) {
	tb.Helper()
	dir := l.folder(tb, "caddy", sites[0].Addrs[0])
	l.write(tb, "www"+Payload, make([]byte, 1<<20))
	l.write(tb, "www/index.html", []byte("<!doctype html><title>netlab</title>\n"))
	var b strings.Builder
	fmt.Fprintf(&b, "{\n admin off\n auto_https off\n storage file_system %s\n default_sni %s\n servers {\n protocols h1 h2 h3\n }\n}\n",
		filepath.Join(l.Dir, dir), sites[0].Cert.Leaf.DNSNames[0])
	var all []netip.Addr
	for i, s := range sites {
		l.Host(tb, s.Addrs...)
		all = append(all, s.Addrs...)
		crt, key := l.certificate(tb, fmt.Sprintf("%s/%d", dir, i), s.Cert)
		for _, n := range s.Cert.Leaf.DNSNames {
			fmt.Fprintf(&b, "https://%s {\n bind", n)
			for _, a := range s.Addrs {
				fmt.Fprintf(&b, " %v", a)
			}
			fmt.Fprintf(&b, "\n tls %s %s\n root * %s/www\n file_server\n}\n", crt, key, l.Dir)
		}
	}
	cmd := l.Command("caddy", "run", "--adapter", "caddyfile", "--config", l.write(tb, dir+"/Caddyfile", []byte(b.String())))
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=" + l.Dir}
	start(tb, cmd)
	l.await(tb, all, 443)
}

// Coturn starts a STUN and TURN server on port 3478.
func (l *Lab) Coturn(tb testing.TB, realm string, addrs ...netip.Addr) {
	tb.Helper()
	l.Host(tb, addrs...)
	dir := l.folder(tb, "coturn", addrs[0])
	args := []string{"-n", "--realm=" + realm, "--lt-cred-mech", "--user=somebody:secret", "--listening-port=3478",
		"--no-tls", "--no-dtls", "--no-cli", "--log-file=stdout", "--userdb=" + filepath.Join(l.Dir, dir, "turndb"),
		"--pidfile=" + filepath.Join(l.Dir, dir, "pid")}
	for _, a := range addrs {
		args = append(args, "--listening-ip="+a.String(), "--relay-ip="+a.String())
	}
	start(tb, l.Command("turnserver", args...))
	l.await(tb, addrs, 3478)
}

// Serve answers TCP connections to each address, with a function of this
// process.
func (l *Lab) Serve(tb testing.TB, answer func(net.Conn), at ...netip.AddrPort) {
	tb.Helper()
	var wg sync.WaitGroup
	var mu sync.Mutex
	open, over := map[io.Closer]bool{}, false
	enter := func(c io.Closer) bool {
		mu.Lock()
		defer mu.Unlock()
		open[c] = true
		return !over
	}
	tb.Cleanup(func() {
		mu.Lock()
		over = true
		for c := range open {
			c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	for _, a := range at {
		l.Host(tb, a.Addr())
		ln, err := l.Listen("tcp", a.String())
		if err != nil {
			tb.Fatal(err)
		}
		enter(ln)
		wg.Go(func() {
			for {
				c, err := ln.Accept()
				if err != nil {
					return
				}
				wg.Go(func() {
					if enter(c) {
						answer(c)
					}
					c.Close()
					mu.Lock()
					delete(open, c)
					mu.Unlock()
				})
			}
		})
	}
}

// folder is a folder for a server's files, relative to that of the lab.
func (l *Lab) folder(tb testing.TB, program string, a netip.Addr) string {
	tb.Helper()
	dir := program + "-" + a.String()
	l.write(tb, dir+"/.keep", nil)
	return dir
}

// certificate writes a certificate and its key into a folder of the lab.
func (l *Lab) certificate(tb testing.TB, dir string, c tls.Certificate) (crt, key string) {
	tb.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		tb.Fatal(err)
	}
	var chain []byte
	for _, b := range c.Certificate {
		chain = append(chain, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: b})...)
	}
	return l.write(tb, dir+"/crt.pem", chain), l.write(tb, dir+"/key.pem", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

// await waits until connections to all these addresses and ports open.
func (l *Lab) await(tb testing.TB, addrs []netip.Addr, ports ...uint16) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), 20*time.Second)
	defer cancel()
	for _, a := range addrs {
		for _, p := range ports {
			at := netip.AddrPortFrom(a, p).String()
			for {
				c, err := l.DialContext(ctx, "tcp", at)
				if err == nil {
					c.Close()
					break
				}
				if ctx.Err() != nil {
					tb.Fatalf("nobody listens at %s: %v", at, err)
				}
				time.Sleep(20 * time.Millisecond)
			}
		}
	}
}
