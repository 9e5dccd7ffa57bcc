package programs

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/messenger-probe/messenger-probe/probe"
	"github.com/messenger-probe/messenger-probe/probe/probetest"
)

const host = "interop.example.org"

// start runs a program until the test ends.
func start(t *testing.T, env []string, name string, args ...string) {
	t.Helper()
	log := &bytes.Buffer{}
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		timer := time.AfterFunc(5*time.Second, func() { cmd.Process.Kill() })
		cmd.Wait()
		timer.Stop()
		if t.Failed() {
			t.Log(log)
		}
	})
}

// freePort is a port of loopback that is free for TCP and UDP.
func freePort(t *testing.T) netip.AddrPort {
	t.Helper()
	for range 20 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		if pc, err := net.ListenPacket("udp", l.Addr().String()); err == nil {
			pc.Close()
			return l.Addr().(*net.TCPAddr).AddrPort()
		}
	}
	t.Fatal("no free port")
	panic("")
}

// ask repeats a question while nobody listens yet.
func ask(t *testing.T, p probe.Prober) []probe.Step {
	t.Helper()
	for try := 0; ; try++ {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		steps := p.Probe(ctx, &probe.Host{})
		cancel()
		if steps[0].Failure != probe.FailureConnectionRefused || try == 50 {
			return steps
		}
		time.Sleep(100 * time.Millisecond)
	}
}

func story(steps []probe.Step) string {
	var words []string
	for _, s := range steps {
		words = append(words, strings.TrimSpace(string(s.Op)+" "+string(s.Failure)))
	}
	return strings.Join(words, ", ")
}

// certificate writes a certificate for host and its key, and says what to trust.
func certificate(t *testing.T, dir string) (cert, key string, trust *probe.Trust) {
	t.Helper()
	ca := probetest.NewCA(t, "interop CA")
	c := ca.Issue(t, nil, host)
	der, err := x509.MarshalECPrivateKey(c.PrivateKey.(*ecdsa.PrivateKey))
	if err != nil {
		t.Fatal(err)
	}
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	write(t, cert, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate[0]})))
	write(t, key, string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der})))
	trust, err = probe.NewTrust(ca.PEM())
	if err != nil {
		t.Fatal(err)
	}
	return cert, key, trust
}

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestCoturn(t *testing.T) {
	addr, dir := freePort(t), t.TempDir()
	start(t, nil, "turnserver", "-n", "--listening-ip", "127.0.0.1", "--listening-port", fmt.Sprint(addr.Port()),
		"--realm", "telegram.org", "--lt-cred-mech", "--user", "a:b", "--fingerprint", "--no-cli", "--no-tls", "--no-dtls",
		"--log-file", "stdout", "--pidfile", filepath.Join(dir, "pid"), "--userdb", filepath.Join(dir, "db"))
	for _, c := range []struct {
		q    probe.STUN
		want string
		code int
	}{
		{probe.STUN{Burst: 50}, "reply, transfer", 0},
		{probe.STUN{Kind: probe.STUNTURN, Realm: "telegram.org", Burst: 20}, "reply, transfer", 401},
		{probe.STUN{Kind: probe.STUNTURN}, "reply", 401},
		{probe.STUN{Kind: probe.STUNTURN, Realm: "signal.org"}, "reply unknown_failure", 401},
	} {
		steps := ask(t, c.q.At(addr))
		if s := story(steps); s != c.want || steps[0].Reply.Code != c.code {
			t.Fatalf("%+v: %s, %+v", c.q, s, steps[0].Reply)
		}
		if len(steps) > 1 && (steps[1].Burst.Received != c.q.Burst || steps[1].Burst.RTT <= 0) {
			t.Errorf("%+v: %+v", c.q, steps[1].Burst)
		}
	}
}

// TestNginx: a WebSocket behind a proxy that terminates TLS, a refusal, files
// with ranges, and an upload that nobody wants.
func TestNginx(t *testing.T) {
	addr, dir := freePort(t), t.TempDir()
	cert, key, trust := certificate(t, dir)
	backend := httptest.NewServer(probetest.OneMe{})
	t.Cleanup(backend.Close)
	write(t, filepath.Join(dir, "file"), strings.Repeat("x", 1<<20))
	conf := filepath.Join(dir, "nginx.conf")
	write(t, conf, fmt.Sprintf(`
daemon off; master_process off; pid %[1]s/pid; error_log stderr warn;
events {}
http {
	access_log off; client_max_body_size 2m;
	client_body_temp_path %[1]s/a; proxy_temp_path %[1]s/b; fastcgi_temp_path %[1]s/c; uwsgi_temp_path %[1]s/d; scgi_temp_path %[1]s/e;
	server {
		listen 127.0.0.1:%[2]d ssl;
		ssl_certificate %[3]s; ssl_certificate_key %[4]s;
		root %[1]s;
		location /websocket {
			proxy_pass %[5]s; proxy_http_version 1.1;
			proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade;
		}
	}
}`, dir, addr.Port(), cert, key, backend.URL))
	start(t, nil, "nginx", "-p", dir, "-e", "stderr", "-c", conf)

	ws := "connect, tls_handshake, request, request, reply"
	for _, c := range []struct {
		q    probe.Prober
		want string
		code int
	}{
		{probe.OneMe{Addr: addr, ServerName: host, Over: probe.OneMeJSON, Trust: trust}, ws, 0},
		{probe.OneMe{Addr: addr, ServerName: host, Over: probe.OneMeBinary, Trust: trust}, ws, 0},
		{probe.WebSocket{Addr: addr, ServerName: host, Path: "/websocket", Origin: "https://web.max.ru", Trust: trust},
			"connect, tls_handshake, request", 101},
		{probe.WebSocket{Addr: addr, ServerName: host, Path: "/websocket", Trust: trust}, "connect, tls_handshake, request http_unexpected_status_code", 403},
		{probe.WebSocket{Addr: addr, ServerName: host, Path: "/file", Trust: trust}, "connect, tls_handshake, request http_unexpected_status_code", 200},
		{probe.HTTP{Addr: addr, Host: host, Path: "/file", Trust: trust, Expect: probe.Expect{Status: 200, Contains: []string{"xxx"}}},
			"connect, tls_handshake, request, reply", 200},
		{probe.HTTP{Addr: addr, Host: host, Path: "/none", Trust: trust, Expect: probe.Expect{Contains: []string{"nginx"}}},
			"connect, tls_handshake, request, reply", 404},
		{probe.HTTP{Addr: addr, Host: host, Plain: true, Expect: probe.Expect{Contains: []string{"plain HTTP request was sent to HTTPS port"}}},
			"connect, request, reply", 400},
	} {
		steps := ask(t, c.q)
		last := steps[len(steps)-1]
		if s := story(steps); s != c.want || last.Reply.Code != c.code {
			t.Errorf("%+v: %s, %+v, %v", c.q, s, last.Reply, last.Err)
		}
	}
	for _, c := range []struct {
		q     probe.Transfer
		bytes int64
		code  int
	}{
		{probe.Transfer{}, 65536, 206},
		{probe.Transfer{Bytes: 2 << 20}, 1 << 20, 206},
		{probe.Transfer{Direction: probe.Upload}, -1, 405}, // nginx answers first, and reads what it likes
	} {
		c.q.Addr, c.q.ServerName, c.q.Path, c.q.Trust = addr, host, "/file", trust
		steps := ask(t, c.q)
		last := steps[len(steps)-1]
		if s := story(steps); s != "connect, tls_handshake, transfer" || c.bytes >= 0 && last.Transfer.Bytes != c.bytes || last.Reply.Code != c.code {
			t.Errorf("%+v: %s, %+v, %+v, %v", c.q, s, last.Transfer, last.Reply, last.Err)
		}
	}
}

// TestCaddy: HTTP/3, and the same over HTTP/1.1.
func TestCaddy(t *testing.T) {
	addr, dir := freePort(t), t.TempDir()
	cert, key, trust := certificate(t, dir)
	conf := filepath.Join(dir, "Caddyfile")
	write(t, conf, fmt.Sprintf(`{
	admin off
	auto_https off
	servers {
		protocols h1 h2 h3
	}
}
https://%s:%d {
	bind 127.0.0.1
	tls %s %s
	header /bot Content-Type application/json
	respond /bot `+"`"+`{"ok":false,"error_code":401,"description":"Unauthorized"}`+"`"+` 401
	redir /elsewhere https://www.example.com/
	respond 404
}
`, host, addr.Port(), cert, key))
	start(t, []string{"HOME=" + dir, "XDG_DATA_HOME=" + dir, "XDG_CONFIG_HOME=" + dir}, "caddy", "run", "--config", conf, "--adapter", "caddyfile")
	shape := probe.Expect{Type: "application/json", JSON: map[string]string{"ok": "false", "error_code": "401"}}
	for version, steps := range map[string]string{"1.1": "connect, tls_handshake, request, reply", "3": "quic_handshake, request, reply"} {
		for path, code := range map[string]int{"/bot": http.StatusUnauthorized, "/": http.StatusNotFound, "/elsewhere": http.StatusFound} {
			q := probe.HTTP{Addr: addr, Host: host, Path: path, Version: version, Expect: shape, Trust: trust}
			got := ask(t, q)
			last := got[len(got)-1]
			if s := story(got); s != steps || last.Reply.Code != code || (path == "/bot") != (last.Reply.Proof == "expected shape over a verified certificate") {
				t.Errorf("%s %s: %s, %+v, %v", version, path, s, last.Reply, last.Err)
			}
			if want := path == "/elsewhere"; want != (last.Reply.Redirect == "www.example.com") {
				t.Errorf("%s %s: redirect %q", version, path, last.Reply.Redirect)
			}
		}
	}
}
