//go:build linux

package probe

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// BlackboxEnv is the path of a blackbox_exporter, to be measured beside us.
const blackboxEnv = "BLACKBOX_EXPORTER"

// BenchmarkBlackbox is what blackbox_exporter takes for the same operations, asked
// as Prometheus asks it, as a ratio to the same floors. It needs its path in the
// environment.
func BenchmarkBlackbox(b *testing.B) {
	path := os.Getenv(blackboxEnv)
	if path == "" {
		b.Skipf("%s is not set", blackboxEnv)
	}
	tcpPeer, tlsPeer, dnsPeer := benchServer(b, "tcp"), benchServer(b, "tls"), benchServer(b, "dns")
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(tlsPeer.PEM)
	ask := startBlackbox(b, path, tlsPeer.PEM)

	b.Run("TCP", func(b *testing.B) {
		bare := func() {
			c, err := net.DialTimeout("tcp", tcpPeer.Addr.String(), 10*time.Second)
			if err != nil {
				b.Fatal(err)
			}
			c.Close()
		}
		pairingWith(b, bare, func() { ask.probe(b, "tcp", tcpPeer.Addr.String()) }, ask.cpuTime)
	})
	b.Run("TLS", func(b *testing.B) {
		bare := func() {
			d := tls.Dialer{Config: &tls.Config{RootCAs: pool, ServerName: benchHost}}
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			c, err := d.DialContext(ctx, "tcp", tlsPeer.Addr.String())
			if err != nil {
				b.Fatal(err)
			}
			c.Close()
		}
		pairingWith(b, bare, func() { ask.probe(b, "tls", tlsPeer.Addr.String()) }, ask.cpuTime)
	})
	b.Run("DNS", func(b *testing.B) {
		bare := func() {
			m := new(dns.Msg).SetQuestion(benchHost+".", dns.TypeA)
			if _, _, err := new(dns.Client).Exchange(m, dnsPeer.Addr.String()); err != nil {
				b.Fatal(err)
			}
		}
		pairingWith(b, bare, func() { ask.probe(b, "dns", dnsPeer.Addr.String()) }, ask.cpuTime)
	})
}

// A blackbox is a running blackbox_exporter.
type blackbox struct {
	pid  int
	base string
}

func startBlackbox(b *testing.B, path string, ca []byte) *blackbox {
	b.Helper()
	dir := b.TempDir()
	roots, conf := filepath.Join(dir, "ca.pem"), filepath.Join(dir, "blackbox.yml")
	if err := os.WriteFile(roots, ca, 0o600); err != nil {
		b.Fatal(err)
	}
	text := fmt.Sprintf(`modules:
  tcp: {prober: tcp}
  tls: {prober: tcp, tcp: {tls: true, tls_config: {ca_file: %s, server_name: %s}}}
  dns: {prober: dns, dns: {query_name: %s, query_type: A, preferred_ip_protocol: ip4}}
`, roots, benchHost, benchHost)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		b.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	c := exec.Command(path, "--config.file="+conf, "--web.listen-address="+addr, "--log.level=error")
	c.Stderr = os.Stderr
	if err := c.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { c.Process.Kill(); c.Wait() })
	for range 100 {
		if r, err := http.Get("http://" + addr + "/-/healthy"); err == nil {
			r.Body.Close()
			return &blackbox{c.Process.Pid, "http://" + addr + "/probe?"}
		}
		time.Sleep(50 * time.Millisecond)
	}
	b.Fatal("blackbox_exporter does not come up")
	return nil
}

// probe asks for one probe, and wants it to work.
func (x *blackbox) probe(b *testing.B, module, target string) {
	r, err := http.Get(x.base + url.Values{"module": {module}, "target": {target}}.Encode())
	if err != nil {
		b.Fatal(err)
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	if err != nil || !strings.Contains(string(text), "\nprobe_success 1\n") {
		b.Fatalf("%s: %v\n%s", module, err, text)
	}
}

// cpuTime is that of all its threads, to 10 ms (proc(5), stat: utime and stime in
// clock ticks, of which Linux has 100 a second for user space).
func (x *blackbox) cpuTime(b *testing.B) time.Duration {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", x.pid))
	if err != nil {
		b.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	fields := strings.Fields(rest)
	ticks := 0
	for _, i := range []int{11, 12} {
		n, err := strconv.Atoi(fields[i])
		if err != nil {
			b.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}
