package web

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/messenger-probe/messenger-probe/probe/probetest"
)

func TestMain(m *testing.M) {
	// net/http lingers for half a second over a connection that it refuses.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("net/http.(*conn).closeWriteAndWait"))
}

// options is a server that shows something everywhere.
func options() Options {
	return Options{
		Metrics: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "a_metric 1\n") }),
		Status:  func(w io.Writer) error { _, err := io.WriteString(w, `{"schema":"x"}`); return err },
		Events:  func(w io.Writer) error { _, err := io.WriteString(w, `[{"state":"ok"}]`); return err },
		Page:    http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "<h1>All is well.</h1>") }),
		Ready:   func() bool { return true },
		Healthy: func() bool { return true },
		Log:     slog.New(slog.DiscardHandler),
	}
}

func get(t *testing.T, o Options, method, path string) *http.Response {
	t.Helper()
	w := httptest.NewRecorder()
	Handler(o).ServeHTTP(w, httptest.NewRequest(method, path, nil))
	return w.Result()
}

func body(t *testing.T, r *http.Response) string {
	t.Helper()
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestRoutes(t *testing.T) {
	no := func() bool { return false }
	for _, tt := range []struct {
		method, path string
		change       func(*Options)
		status       int
		typ, has     string
	}{
		{"GET", "/", nil, 200, "", "<h1>All is well.</h1>"},
		{"HEAD", "/", nil, 200, "", ""},
		{"POST", "/", nil, 405, "", ""},
		{"GET", "/metrics", nil, 200, "", "a_metric 1"},
		{"DELETE", "/metrics", nil, 405, "", ""},
		{"GET", "/api/v1/status", nil, 200, "application/json", `{"schema":"x"}`},
		{"PUT", "/api/v1/status", nil, 405, "", ""},
		{"GET", "/api/v1/events", nil, 200, "application/json", `[{"state":"ok"}]`},
		{"DELETE", "/api/v1/events", nil, 405, "", ""},
		{"GET", "/-/healthy", nil, 200, "", "healthy\n"},
		{"GET", "/-/healthy", func(o *Options) { o.Healthy = no }, 503, "", "stands still"},
		{"GET", "/-/ready", nil, 200, "", "ready\n"},
		{"GET", "/-/ready", func(o *Options) { o.Ready = no }, 503, "", "not measured yet"},
		{"GET", "/nothing", nil, 404, "", ""},
		{"GET", "/index.html", nil, 404, "", ""},
		{"GET", "/../../etc/passwd", nil, 307, "", ""}, // to the clean path, which is not there
		{"POST", "/-/reload", nil, 404, "", ""},
		{"GET", "/-/reload", nil, 404, "", ""},
		{"POST", "/-/reload", func(o *Options) { o.Reload = func() error { return nil } }, 200, "", "reloaded\n"},
		{"GET", "/-/reload", func(o *Options) { o.Reload = func() error { return nil } }, 405, "", ""},
		{"POST", "/-/reload", func(o *Options) { o.Reload = func() error { return errors.New("/home/anna/config.yaml:3: x") } }, 500, "", "see the log"},
		{"GET", "/debug/pprof/", nil, 404, "", ""},
		{"GET", "/debug/pprof/", func(o *Options) { o.Profile = true }, 200, "", "goroutine"},
	} {
		o := options()
		if tt.change != nil {
			tt.change(&o)
		}
		r := get(t, o, tt.method, tt.path)
		text := body(t, r)
		what := tt.method + " " + tt.path
		if r.StatusCode != tt.status || !strings.Contains(text, tt.has) || strings.Contains(text, "anna") {
			t.Errorf("%s: %d %q, want %d %q", what, r.StatusCode, text, tt.status, tt.has)
		}
		if typ := r.Header.Get("Content-Type"); tt.typ != "" && typ != tt.typ {
			t.Errorf("%s: Content-Type %q", what, typ)
		}
		for k, v := range map[string]string{"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Cache-Control": "no-store"} {
			if got := r.Header.Get(k); got != v {
				t.Errorf("%s: %s is %q", what, k, got)
			}
		}
		if tt.status == 405 && r.Header.Get("Allow") == "" {
			t.Errorf("%s: no Allow", what)
		}
	}
}

// A panic in a handler is the request's alone, and a client that goes away is
// nobody's trouble.
func TestStatusFails(t *testing.T) {
	o := options()
	o.Status = func(io.Writer) error { return errors.New("no") }
	if r := get(t, o, "GET", "/api/v1/status"); r.StatusCode != 200 || body(t, r) != "" {
		t.Errorf("%v", r)
	}
}

// serving runs Serve on loopback. stop ends it and gives its error.
func serving(t *testing.T, o Options) (addr string, stop func() error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, l, o) }()
	return l.Addr().String(), func() error { cancel(); return <-done }
}

// An end waits for a request in flight, but for nobody who only holds a
// connection open.
func TestServeStops(t *testing.T) {
	held := make(chan struct{})
	entered := make(chan struct{}, 1)
	o := options()
	o.Metrics = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		entered <- struct{}{}
		<-held
		io.WriteString(w, "whole\n")
	})
	addr, stop := serving(t, o)
	silent, err := net.Dial("tcp", addr) // says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	half, err := net.Dial("tcp", addr) // says half of a request
	if err != nil {
		t.Fatal(err)
	}
	defer half.Close()
	io.WriteString(half, "GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ")
	idle, err := net.Dial("tcp", addr) // keeps its connection
	if err != nil {
		t.Fatal(err)
	}
	defer idle.Close()
	io.WriteString(idle, "GET /-/healthy HTTP/1.1\r\nHost: x\r\n\r\n")
	if r, err := http.ReadResponse(bufio.NewReader(idle), nil); err != nil || r.StatusCode != 200 {
		t.Fatal(r, err)
	}
	answer := make(chan string, 1)
	go func() {
		r, err := http.Get("http://" + addr + "/metrics")
		if err != nil {
			answer <- err.Error()
			return
		}
		defer r.Body.Close()
		b, _ := io.ReadAll(r.Body)
		answer <- string(b)
	}()
	<-entered
	began := time.Now()
	time.AfterFunc(300*time.Millisecond, func() { close(held) })
	if err := stop(); err != nil {
		t.Error(err)
	}
	if d := time.Since(began); d > 4*time.Second {
		t.Errorf("stopped after %v", d)
	}
	if a := <-answer; a != "whole\n" {
		t.Errorf("the request in flight got %q", a)
	}
	if c, err := net.DialTimeout("tcp", addr, time.Second); err == nil {
		c.Close()
		t.Error("still listens")
	}
	http.DefaultClient.CloseIdleConnections()
}

// A request that never ends does not keep the server from stopping.
func TestServeStopsAgainstAHandler(t *testing.T) {
	o := options()
	o.Metrics = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	addr, stop := serving(t, o)
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	io.WriteString(c, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
	time.Sleep(50 * time.Millisecond)
	began := time.Now()
	if err := stop(); err != nil {
		t.Error(err)
	}
	if d := time.Since(began); d > 4*time.Second {
		t.Errorf("stopped after %v", d)
	}
}

// The bounds on clients are set: without them one slow client after another
// would hold a descriptor for ever.
func TestSlowClients(t *testing.T) {
	s := server(http.NotFoundHandler(), slog.New(slog.DiscardHandler))
	for what, d := range map[string]time.Duration{"ReadHeaderTimeout": s.ReadHeaderTimeout, "ReadTimeout": s.ReadTimeout,
		"WriteTimeout": s.WriteTimeout, "IdleTimeout": s.IdleTimeout} {
		if d <= 0 || d > 2*time.Minute {
			t.Errorf("%s is %v", what, d)
		}
	}
	// And they work: the same server with shorter ones.
	s.ReadHeaderTimeout, s.ReadTimeout = 150*time.Millisecond, 150*time.Millisecond
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	defer func() { s.Close(); <-served }()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	io.WriteString(c, "GET / HTTP/1.1\r\n") // and no more
	c.SetReadDeadline(time.Now().Add(5 * time.Second))
	if b, err := io.ReadAll(c); err != nil && !errors.Is(err, io.EOF) || strings.Contains(string(b), "200") {
		t.Errorf("a client that is slow got %q, %v", b, err)
	}
	// A header beyond the bound is refused.
	c2, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c2.Close()
	io.WriteString(c2, "GET / HTTP/1.1\r\nHost: x\r\nX-Big: "+strings.Repeat("a", 64<<10)+"\r\n\r\n")
	c2.SetReadDeadline(time.Now().Add(5 * time.Second))
	if r, err := http.ReadResponse(bufio.NewReader(c2), nil); err == nil && r.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("a header of 64 KiB: %s", r.Status)
	}
}

// pemKey writes a certificate and its key into dir.
func pemFiles(t *testing.T, dir string, c tls.Certificate) {
	t.Helper()
	var chain bytes.Buffer
	for _, der := range c.Certificate {
		pem.Encode(&chain, &pem.Block{Type: "CERTIFICATE", Bytes: der})
	}
	key, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "cert.pem"), chain.Bytes())
	write(t, filepath.Join(dir, "key.pem"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}))
}

func write(t *testing.T, path string, b []byte) string {
	t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// A web configuration asks for a password, and speaks TLS.
func TestWebConfig(t *testing.T) {
	dir := t.TempDir()
	ca := probetest.NewCA(t, "root")
	pemFiles(t, dir, ca.Issue(t, nil, "agent.test", "127.0.0.1"))
	const users = "basic_auth_users:\n  scraper: '$2a$04$MBI1OeWpTCM2o2eAujtxIu9H3kJcE1tOLEaWUWLDuhMrDxxJTElrW'\n" // bcrypt of "secret"
	const certs = "tls_server_config:\n  cert_file: cert.pem\n  key_file: key.pem\n"
	pool := x509.NewCertPool()
	pool.AddCert(ca.Cert)
	for _, tt := range []struct {
		name, text string
		tls, auth  bool
	}{{"password", users, false, true}, {"tls", certs, true, false}, {"both", users + certs, true, true}} {
		t.Run(tt.name, func(t *testing.T) {
			o := options()
			o.WebConfig = write(t, filepath.Join(dir, tt.name+".yaml"), []byte(tt.text))
			if err := CheckConfig(o.WebConfig); err != nil {
				t.Fatal(err)
			}
			addr, stop := serving(t, o)
			defer func() {
				if err := stop(); err != nil {
					t.Error(err)
				}
			}()
			tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}
			defer tr.CloseIdleConnections()
			ask := func(scheme, password string) int {
				t.Helper()
				req, _ := http.NewRequestWithContext(t.Context(), "GET", scheme+"://"+addr+"/metrics", nil)
				if password != "" {
					req.SetBasicAuth("scraper", password)
				}
				r, err := tr.RoundTrip(req)
				if err != nil {
					t.Log(err)
					return 0
				}
				defer r.Body.Close()
				io.Copy(io.Discard, r.Body)
				return r.StatusCode
			}
			scheme, other := "http", "https"
			if tt.tls {
				scheme, other = other, scheme
			}
			if got := ask(scheme, "secret"); got != 200 {
				t.Errorf("with the password: %d", got)
			}
			want := 200
			if tt.auth {
				want = 401
			}
			if got := ask(scheme, ""); got != want {
				t.Errorf("without a password: %d", got)
			}
			if got := ask(scheme, "wrong"); got != want {
				t.Errorf("with a wrong password: %d", got)
			}
			if got := ask(other, "secret"); got == 200 {
				t.Errorf("over %s: %d", other, got)
			}
		})
	}
	for name, text := range map[string]string{
		"no such key":   "passwords: {}\n",
		"no file":       "tls_server_config: {cert_file: none.pem, key_file: none.pem}\n",
		"half of a key": "tls_server_config: {cert_file: cert.pem}\n",
	} {
		if err := CheckConfig(write(t, filepath.Join(dir, "bad.yaml"), []byte(text))); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if err := CheckConfig(filepath.Join(dir, "missing.yaml")); err == nil {
		t.Error("a file that is not there is accepted")
	}
}
