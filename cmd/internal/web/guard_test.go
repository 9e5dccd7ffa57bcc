package web

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/messenger-probe/messenger-probe/probe/probetest"
)

// ask sends a request with a Host of its own over a new connection.
func ask(t *testing.T, addr, method, path, host string, header ...string) (status int, body string) {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	fmt.Fprintf(c, "%s %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n%s\r\n", method, path, host, strings.Join(append(header, ""), "\r\n"))
	r, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	b, _ := io.ReadAll(r.Body)
	return r.StatusCode, string(b)
}

// Nothing is shown under a name that somebody outside can have, whatever the
// path; everything under those that scrapers, people and orchestrators use.
func TestRebinding(t *testing.T) {
	o := options()
	o.Profile, o.Reload = true, func() error { return nil }
	o.Hosts = func() []string { return []string{"Probe.Example.org", "listen.example.org:9770"} }
	addr, stop := serving(t, o)
	defer stop()
	paths := []string{"/", "/metrics", "/api/v1/status", "/api/v1/events", "/-/healthy", "/-/ready", "/debug/pprof/", "/nothing"}
	for _, host := range []string{"evil.example", "evil.example:9770", "127.0.0.1.evil.example", "localhost.evil.example", "evil.example.", "EVIL.example",
		"agent.local", "probe.example.org.evil.example", "xn--e1afmkfd.example", "127.0.0.1.nip.io"} {
		for _, path := range paths {
			if status, body := ask(t, addr, "GET", path, host); status != http.StatusMisdirectedRequest || strings.Contains(body, "a_metric") || strings.Contains(body, "evil") {
				t.Errorf("%s of %s: %d %q", path, host, status, body)
			}
		}
		if status, _ := ask(t, addr, "POST", "/-/reload", host); status != http.StatusMisdirectedRequest {
			t.Errorf("reload of %s: %d", host, status)
		}
	}
	for _, host := range []string{addr, "127.0.0.1", "127.0.0.1:1", "[::1]:9770", "192.168.1.7:9770", "10.244.1.17:9770", "localhost", "localhost:9770", "LOCALHOST.",
		"agent:9770", "messenger-probe", "probe.localhost", "host.docker.internal:9770", "nas.home.arpa", "messenger-probe.messenger-probe.svc:9770",
		"messenger-probe.monitoring.svc.cluster.local", "probe.example.org", "probe.example.org:9770", "listen.example.org", ""} {
		if status, body := ask(t, addr, "GET", "/metrics", host); status != 200 || !strings.Contains(body, "a_metric") {
			t.Errorf("%q: %d %q", host, status, body)
		}
	}
}

// Who proves something is answered under any name; an agent that asks for no
// proof has not become safe by a file that sets other things.
func TestRebindingWithWebConfig(t *testing.T) {
	for text, status := range map[string]int{
		"basic_auth_users:\n  scraper: '$2a$04$MBI1OeWpTCM2o2eAujtxIu9H3kJcE1tOLEaWUWLDuhMrDxxJTElrW'\n": 200,
		"http_server_config:\n  headers: {X-Frame-Options: deny}\n":                                      421,
		"rate_limit: {interval: 1s, burst: 20}\n":                                                        421,
	} {
		o := options()
		o.WebConfig = write(t, filepath.Join(t.TempDir(), "web.yaml"), []byte(text))
		addr, stop := serving(t, o)
		if got, _ := ask(t, addr, "GET", "/metrics", "evil.example", "Authorization: Basic c2NyYXBlcjpzZWNyZXQ="); got != status {
			t.Errorf("%s: %d", text, got)
		}
		stop()
	}
}

// A page of somebody else's cannot have a browser reload the agent.
func TestCrossOriginReload(t *testing.T) {
	n := 0
	o := options()
	o.Reload = func() error { n++; return nil }
	addr, stop := serving(t, o)
	defer stop()
	for _, h := range []string{"Sec-Fetch-Site: cross-site", "Sec-Fetch-Site: same-site", "Origin: https://evil.example", "Origin: null"} {
		if status, _ := ask(t, addr, "POST", "/-/reload", addr, h); status != http.StatusForbidden || n > 0 {
			t.Errorf("%s: %d, %d reloads", h, status, n)
		}
	}
	for i, h := range []string{"X: y", "Sec-Fetch-Site: same-origin", "Origin: http://" + addr} {
		if status, _ := ask(t, addr, "POST", "/-/reload", addr, h); status != 200 || n != i+1 {
			t.Errorf("%s: %d, %d reloads", h, status, n)
		}
	}
}

// Requests beyond the rate are refused until time has passed; those after health
// never are.
func TestRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := guard(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "x") }), options())
		status := func(path string) int {
			w := httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequest("GET", "http://localhost"+path, nil))
			if w.Code != 200 && (w.Code != http.StatusTooManyRequests || w.Header().Get("Retry-After") == "") {
				t.Errorf("%d, %v", w.Code, w.Header())
			}
			return w.Code
		}
		served := 0
		for range 1000 {
			if status("/metrics") == 200 {
				served++
			}
		}
		if served != maxBurst {
			t.Errorf("%d of 1000 at once were answered, want %d", served, maxBurst)
		}
		if got := status("/-/healthy"); got != 200 {
			t.Errorf("health: %d", got)
		}
		time.Sleep(time.Second)
		served = 0
		for range 1000 {
			if status("/") == 200 {
				served++
			}
		}
		if served != maxRate {
			t.Errorf("%d a second later, want %d", served, maxRate)
		}
	})
}

// No more are answered at once than there is room for.
func TestAtOnce(t *testing.T) {
	entered, leave := make(chan struct{}), make(chan struct{})
	h := bounded(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/metrics" {
			entered <- struct{}{}
			<-leave
		}
	}))
	status := func(path string) int {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
		return w.Code
	}
	var held sync.WaitGroup
	for range maxAtOnce {
		held.Go(func() { status("/metrics") })
		<-entered
	}
	if got := status("/api/v1/status"); got != http.StatusServiceUnavailable {
		t.Errorf("one more: %d", got)
	}
	if got := status("/-/healthy"); got != 200 {
		t.Errorf("health: %d", got)
	}
	close(leave)
	held.Wait()
	if got := status("/api/v1/status"); got != 200 {
		t.Errorf("when they have gone: %d", got)
	}
}

// pretend is a listener whose connections seem to come from anywhere.
type pretend struct {
	net.Listener
	from func() net.Addr
}

func (p *pretend) Accept() (net.Conn, error) {
	c, err := p.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &pretended{c, p.from()}, nil
}

type pretended struct {
	net.Conn
	from net.Addr
}

func (c *pretended) RemoteAddr() net.Addr { return c.from }

// Slowloris: who opens many connections and says little on them keeps neither
// others nor the orchestrator out, and is told goodbye.
func TestFewConns(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	from := "192.0.2.1"
	p := few(&pretend{l, func() net.Addr {
		mu.Lock()
		defer mu.Unlock()
		return &net.TCPAddr{IP: net.ParseIP(from), Port: 1}
	}})
	s := server(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "x") }), slog.New(slog.DiscardHandler))
	done := make(chan error, 1)
	go func() { done <- s.Serve(p) }()
	var open []net.Conn
	t.Cleanup(func() {
		for _, c := range open {
			c.Close()
		}
		s.Close()
		<-done
	})
	// come opens a connection from an address and says whether it is answered.
	come := func(ip string, request string) bool {
		t.Helper()
		mu.Lock()
		from = ip
		mu.Unlock()
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, c)
		io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		c.SetReadDeadline(time.Now().Add(5 * time.Second))
		_, err = http.ReadResponse(bufio.NewReader(c), nil)
		io.WriteString(c, request)
		return err == nil
	}
	count := func(ip func(i int) string, n int) (answered int) {
		for i := range n {
			if come(ip(i), "GET / HTTP/1.1\r\nX-Slow: ") {
				answered++
			}
		}
		return answered
	}
	// kept is how many of the last n connections nobody hung up on, and whether
	// they are the newest.
	kept := func(n int) (kept int, newest bool) {
		last, newest := open[len(open)-n:], true
		for _, c := range last {
			c.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
			if _, err := c.Read(make([]byte, 1)); errors.Is(err, os.ErrDeadlineExceeded) {
				kept++
			} else if kept > 0 {
				newest = false
			}
		}
		return kept, newest
	}
	for what, ip := range map[string]func(int) string{
		"address":      func(int) string { return "192.0.2.1" },
		"IPv6 network": func(i int) string { return fmt.Sprintf("2001:db8::%x", i) },
	} {
		if n := count(ip, 50); n != 50 {
			t.Errorf("%d connections of one %s are answered, want all", n, what)
		}
		if n, newest := kept(50); n != maxConnsOf || !newest {
			t.Errorf("%d connections of one %s are kept, the newest: %v; want %d", n, what, newest, maxConnsOf)
		}
	}
	if n := count(func(i int) string { return fmt.Sprintf("198.51.100.%d", i) }, 100); n != maxConns-2*maxConnsOf {
		t.Errorf("%d of other addresses, want %d", n, maxConns-2*maxConnsOf)
	}
	for _, ip := range []string{"127.0.0.1", "::1"} {
		if !come(ip, "") {
			t.Errorf("%s is kept out", ip)
		}
	}
	// Places come free again.
	for _, c := range open {
		c.Close()
	}
	open = nil
	for end := time.Now().Add(5 * time.Second); !come("192.0.2.1", ""); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("no place comes free")
		}
	}
}

// What is larger than any request of ours is refused, and not read to its end.
func TestOversized(t *testing.T) {
	o := options()
	o.Reload = func() error { return nil }
	addr, stop := serving(t, o)
	defer stop()
	for name, request := range map[string]string{
		"line":   "GET /" + strings.Repeat("a", 64<<10) + " HTTP/1.1\r\nHost: x\r\n\r\n",
		"header": "GET / HTTP/1.1\r\nHost: x\r\n" + strings.Repeat("X-A: "+strings.Repeat("a", 100)+"\r\n", 1000) + "\r\n",
	} {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		c.SetDeadline(time.Now().Add(5 * time.Second))
		io.WriteString(c, request)
		if r, err := http.ReadResponse(bufio.NewReader(c), nil); err == nil && r.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
			t.Errorf("%s: %s", name, r.Status)
		}
		c.Close()
	}
	// A body of 100 MB: nobody takes it in.
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	io.WriteString(c, "POST /-/reload HTTP/1.1\r\nHost: x\r\nContent-Length: 104857600\r\n\r\n")
	chunk, n := make([]byte, 64<<10), 0
	for err == nil && n < 100<<20 {
		_, err = c.Write(chunk)
		n += len(chunk)
	}
	if n > 16<<20 { // what the kernel buffers is not told apart
		t.Errorf("%d bytes were taken", n)
	}
}

// Client certificates: without one, or with one of another authority, nothing
// is shown.
func TestClientCertificates(t *testing.T) {
	dir := t.TempDir()
	ca, other := probetest.NewCA(t, "root"), probetest.NewCA(t, "other")
	pemFiles(t, dir, ca.Issue(t, nil, "agent.test", "127.0.0.1"))
	write(t, filepath.Join(dir, "ca.pem"), ca.PEM())
	o := options()
	o.WebConfig = write(t, filepath.Join(dir, "web.yaml"), []byte("tls_server_config:\n  cert_file: cert.pem\n  key_file: key.pem\n"+
		"  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.pem\n"))
	if err := CheckConfig(o.WebConfig); err != nil {
		t.Fatal(err)
	}
	addr, stop := serving(t, o)
	defer stop()
	pool := x509.NewCertPool()
	pool.AddCert(ca.Cert)
	client := func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }
	for name, tt := range map[string]struct {
		certs []tls.Certificate
		ok    bool
	}{
		"its own":              {[]tls.Certificate{ca.Issue(t, client, "scraper")}, true},
		"none":                 {nil, false},
		"another authority's":  {[]tls.Certificate{other.Issue(t, client, "scraper")}, false},
		"one that has expired": {[]tls.Certificate{ca.Issue(t, func(c *x509.Certificate) { client(c); probetest.Expired(c) }, "scraper")}, false},
		"one for servers":      {[]tls.Certificate{ca.Issue(t, nil, "scraper")}, false},
	} {
		tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, Certificates: tt.certs,
			GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
				if len(tt.certs) == 0 {
					return new(tls.Certificate), nil
				}
				return &tt.certs[0], nil // also where the server asks for another authority's
			}}}
		req, _ := http.NewRequestWithContext(t.Context(), "GET", "https://"+addr+"/metrics", nil)
		r, err := tr.RoundTrip(req)
		if (err == nil) != tt.ok {
			t.Errorf("%s: %v", name, err)
		}
		if err == nil {
			r.Body.Close()
		}
		tr.CloseIdleConnections()
	}
}

// loggedPanics fails the test for each panic that the server's log tells of.
type loggedPanics struct{ t *testing.T }

func (l loggedPanics) Write(b []byte) (int, error) {
	if strings.Contains(string(b), "panic") {
		l.t.Errorf("%s", b)
	}
	return len(b), nil
}

// FuzzRequest: whatever is said to the server, it answers in HTTP or hangs up,
// nothing panics, and nothing is shown to who asks for another's name.
func FuzzRequest(f *testing.F) {
	for _, s := range []string{
		"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
		"GET /metrics HTTP/1.0\r\n\r\n",
		"GET /metrics HTTP/1.1\r\nHost: evil.example\r\nAccept-Encoding: gzip\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
		"POST /-/reload HTTP/1.1\r\nHost: [::1]:1\r\nTransfer-Encoding: chunked\r\nOrigin: x\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
		"GET http://evil.example/-/ready HTTP/1.1\r\nHost: localhost\r\n\r\n",
		"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "\x16\x03\x01\x00\x05hello", "GET //../..//etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		o := options()
		o.Log = slog.New(slog.NewTextHandler(loggedPanics{t}, &slog.HandlerOptions{Level: slog.LevelDebug}))
		o.Reload, o.Profile = func() error { return nil }, false
		h := Handler(o)
		shown := map[string]bool{}
		s := server(guard(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			shown[r.Host] = true
			h.ServeHTTP(w, r)
		}), o), o.Log)
		l, c := half(t)
		done := make(chan error, 1)
		go func() { done <- s.Serve(l) }()
		go func() {
			c.Write(b)
			c.CloseWrite()
		}()
		c.SetDeadline(time.Now().Add(10 * time.Second))
		answer, err := io.ReadAll(c)
		if errors.Is(err, net.ErrClosed) || err != nil && strings.Contains(err.Error(), "timeout") {
			t.Errorf("not ended: %v", err)
		}
		c.Close()
		s.Close()
		l.Close()
		<-done
		if len(answer) > 0 && !strings.HasPrefix(string(answer), "HTTP/1.") {
			t.Errorf("%q", answer)
		}
		for host := range shown {
			if h := hostname(host); strings.Contains(h, ".") && !private(h) {
				t.Errorf("shown to %q", host)
			}
		}
	})
}
