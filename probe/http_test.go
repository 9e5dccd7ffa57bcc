package probe

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/messenger-probe/messenger-probe/probe/probetest"
)

const webHost = "web.example.org"

// page is an answer with a body and its length.
func page(status, headers, body string) string {
	return fmt.Sprintf("HTTP/1.1 %s\r\n%sContent-Length: %d\r\n\r\n%s", status, headers, len(body), body)
}

var botAPI = page("401 Unauthorized", "Content-Type: application/json\r\n", `{"ok":false,"error_code":401,"description":"Unauthorized"}`)

var botShape = Expect{Type: "application/json", JSON: map[string]string{"ok": "false", "error_code": "401", "description": "Unauthorized"}}

func TestHTTP(t *testing.T) {
	const (
		fits  = "expected shape over a verified certificate"
		error = "HTTP error or redirect over a verified certificate"
	)
	contains := Expect{Contains: []string{"<title>Messenger", "app.js"}}
	for _, c := range []struct {
		name   string
		answer string
		expect Expect
		fail   string // of the reply
		code   int
		proof  string
	}{
		{"anything", page("200 OK", "", "hello"), Expect{}, "", 200, fits},
		{"nothing", "HTTP/1.1 204 No Content\r\n\r\n", Expect{Status: 204}, "", 204, fits},
		{"JSON", botAPI, botShape, "", 401, fits},
		{"JSON, any value", botAPI, Expect{JSON: map[string]string{"error_code": ""}}, "", 401, fits},
		{"page", page("200 OK", "", "<html><title>Messenger</title><script src=app.js>"), contains, "", 200, fits},
		{"texts far apart and across reads", page("200 OK", "", strings.Repeat("-", 4090)+"<title>Messenger"+strings.Repeat("-", 50000)+"app.js"), contains, "", 200, fits},
		{"a text beyond what is read", page("200 OK", "", "<title>Messenger"+strings.Repeat("-", 64<<10)+"app.js"), contains, "http_request_failed", 200, "a text is missing"},
		{"page in chunks", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10\r\n<title>Messenger\r\n6\r\napp.js\r\n0\r\n\r\n", contains, "", 200, fits},
		{"page until the end", "HTTP/1.1 200 OK\r\n\r\n<title>Messenger</title>app.js", contains, "", 200, fits},
		{"header", page("200 OK", "X-Frame-Options: deny\r\nX-Frame-Options: SAMEORIGIN\r\n", ""), Expect{Headers: map[string]string{"x-frame-options": "SAME"}}, "", 200, fits},
		{"interim answers first", "HTTP/1.1 103 Early Hints\r\n\r\n" + botAPI, botShape, "", 401, fits},

		{"server error of another shape", page("502 Bad Gateway", "", "<html>nginx"), botShape, "", 502, error},
		{"redirect at home", page("302 Found", "Location: https://www.example.org/\r\n", ""), contains, "", 302, error},
		{"redirect elsewhere", page("302 Found", "Location: https://www.example.com/\r\n", ""), contains, "", 302, error},
		{"unavailable for legal reasons", page("451 Unavailable For Legal Reasons", "", ""), Expect{}, "", 451, fits},

		{"success of another shape", page("200 OK", "", "<html>parked"), contains, "http_request_failed", 200, "a text is missing"},
		{"half of the shape", page("200 OK", "", "<html><title>Messenger"), contains, "http_request_failed", 200, "a text is missing"},
		{"another status", page("200 OK", "", ""), Expect{Status: 204}, "http_unexpected_status_code", 200, "another status"},
		{"another type", page("200 OK", "Content-Type: text/html\r\n", `{"ok":false,"error_code":401,"description":"Unauthorized"}`), botShape, "http_request_failed", 200, "another content type"},
		{"no type", page("200 OK", "", "{}"), botShape, "http_request_failed", 200, "another content type"},
		{"no header", page("200 OK", "", ""), Expect{Headers: map[string]string{"X-A": ""}}, "http_request_failed", 200, "a header is missing"},
		{"another header", page("200 OK", "X-A: b\r\n", ""), Expect{Headers: map[string]string{"X-A": "c"}}, "http_request_failed", 200, "a header is missing"},
		{"no JSON", page("200 OK", "Content-Type: application/json; charset=utf-8\r\n", "<html>"), botShape, "json_parse_error", 200, "no JSON object"},
		{"a JSON array", page("200 OK", "Content-Type: application/json\r\n", "[]"), botShape, "json_parse_error", 200, "no JSON object"},
		{"JSON cut", page("200 OK", "Content-Type: application/json\r\n", `{"ok":false`), botShape, "json_parse_error", 200, "no JSON object"},
		{"another JSON", page("200 OK", "Content-Type: application/json\r\n", `{"ok":true,"error_code":401,"description":"Unauthorized"}`), botShape, "http_request_failed", 200, "JSON of another shape"},
		{"JSON without a member", page("200 OK", "Content-Type: application/json\r\n", `{"ok":false}`), botShape, "http_request_failed", 200, "JSON of another shape"},
		{"a string for a number", page("200 OK", "", `{"a":"1"}`), Expect{JSON: map[string]string{"a": "1"}}, "", 200, fits},
		{"deep JSON", page("200 OK", "", strings.Repeat("[", 60000)), Expect{JSON: map[string]string{"a": ""}}, "json_parse_error", 200, "no JSON object"},

		{"not HTTP", "SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n", Expect{}, "unknown_failure", 0, ""},
		{"HTTP/2", "\x00\x00\x12\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x64\x00\x04", Expect{}, "unknown_failure", 0, ""},
		{"malformed status", "HTTP/1.1 abc OK\r\n\r\n", Expect{}, "unknown_failure", 0, ""},
		{"malformed header", "HTTP/1.1 200 OK\r\n: x\r\n\r\n", Expect{}, "unknown_failure", 0, ""},
		{"malformed length", "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", Expect{}, "unknown_failure", 0, ""},
		{"closed", "", Expect{}, "eof_error", 0, ""},
		{"closed in the status", "HTTP/1.", Expect{}, "eof_error", 0, ""},
		{"closed in a header", "HTTP/1.1 200 OK\r\nX-A: b\r\nX-", Expect{}, "eof_error", 0, ""},
		{"closed in the body", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n<title>", contains, "eof_error", 200, ""},
		{"closed in a chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10\r\n<title>", contains, "eof_error", 200, ""},
		{"malformed chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n<title>", contains, "unknown_failure", 200, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			addr, trust := serveRaw(t, webHost, words(c.answer))
			steps := runProber(t, HTTP{Host: webHost, Path: "/x", Expect: c.expect, Trust: trust}.At(addr), 10*time.Second)
			want := strings.TrimSpace("connect, tls_handshake, request, reply " + c.fail)
			last := steps[len(steps)-1]
			if d := cmp.Diff(want, story(steps)); d != "" {
				t.Fatalf("%s%v", d, last.Err)
			}
			if last.Reply.Code != c.code || last.Reply.Proof != c.proof || last.Reply.Transport != "http" {
				t.Errorf("%+v: %v", last.Reply, last.Err)
			}
			if tcpInfoWorks && last.TCP == nil {
				t.Error("no TCP_INFO")
			}
			if want := c.name == "redirect elsewhere"; want != (last.Reply.Redirect == "www.example.com") {
				t.Errorf("redirect %q", last.Reply.Redirect)
			}
			if want := c.code == 451; want != (len(last.Reply.Marks) == 1 && last.Reply.Marks[0] == "status 451") {
				t.Errorf("marks %q", last.Reply.Marks)
			}
		})
	}
}

// A server's clock, and where it sees us, are told over TLS alone.
func TestHTTPTells(t *testing.T) {
	trace := func(loc string) string { return "fl=1\nip=192.0.2.1\r\nloc=" + loc + "\nxloc=NL\n" }
	date := func(off time.Duration) string {
		return "Date: " + time.Now().Add(off).UTC().Format(http.TimeFormat) + "\r\n"
	}
	for _, c := range []struct {
		name, answer string
		seen         string // key
		plain        bool
		country      string
		skew         time.Duration
		has          bool
	}{
		{"country and clock", page("200 OK", date(-time.Hour), trace("RU")), "loc=", false, "RU", -time.Hour, true},
		{"Tor", page("200 OK", "", trace("T1")), "loc=", false, "T1", 0, false},
		{"not known", page("200 OK", date(0), trace("XX")), "loc=", false, "", 0, true},
		{"no country", page("200 OK", "", trace("<html>")), "loc=", false, "", 0, false},
		{"not asked", page("200 OK", "", trace("RU")), "", false, "", 0, false},
		{"malformed date", page("200 OK", "Date: yesterday\r\n", ""), "loc=", false, "", 0, false},
		{"in clear", page("200 OK", date(-time.Hour), trace("RU")), "loc=", true, "", 0, false},
	} {
		q := HTTP{Host: webHost, Plain: c.plain, Seen: c.seen}
		var addr netip.AddrPort
		if c.plain {
			addr = plain(t, c.answer)
		} else {
			addr, q.Trust = serveRaw(t, webHost, words(c.answer))
		}
		steps := runProber(t, q.At(addr), 10*time.Second)
		r := steps[len(steps)-1].Reply
		if r == nil || r.Country != c.country || r.HasSkew != c.has || (r.Skew-c.skew).Abs() > 5*time.Second {
			t.Errorf("%s: %+v in %s", c.name, r, story(steps))
		}
	}
}

// plain handles connections without TLS as say does those with.
func plain(t testing.TB, answer string) netip.AddrPort {
	return probetest.ServeTCP(t, func(c net.Conn) {
		if _, err := http.ReadRequest(bufio.NewReader(c)); err != nil {
			return
		}
		io.WriteString(c, answer)
		c.(*net.TCPConn).CloseWrite()
		io.Copy(io.Discard, c)
	})
}

func TestHTTPPlain(t *testing.T) {
	registry := "register of banned sites"
	operator := "operator's block page"
	for _, c := range []struct {
		name     string
		answer   string
		expect   Expect
		fail     string
		proof    string
		redirect string
		marks    []string
	}{
		{"connectivity check", "HTTP/1.1 204 No Content\r\n\r\n", Expect{Status: 204}, "", "expected shape", "", nil},
		{"error of another shape", page("403 Forbidden", "", "no"), Expect{Status: 204}, "http_unexpected_status_code", "another status", "", nil},
		{"redirect at home", page("301 Moved", "Location: https://cdn.example.org/\r\n", ""), Expect{Status: 301}, "", "expected shape", "", nil},
		{"relative redirect", page("301 Moved", "Location: /there\r\n", ""), Expect{}, "", "expected shape", "", nil},
		{"redirect elsewhere", page("302 Found", "Location: http://stub.example.net/why\r\n", ""), Expect{}, "http_unexpected_redirect_url",
			"redirect to another registrable domain", "stub.example.net", nil},
		{"redirect to an address", page("302 Found", "Location: http://192.0.2.7/\r\n", ""), Expect{}, "http_unexpected_redirect_url",
			"redirect to another registrable domain", "192.0.2.7", nil},
		{"redirect to an operator's page", page("307 Temporary Redirect", "Location: HTTP://Warning.RT.ru/?id=1\r\n", ""), Expect{}, "http_unexpected_redirect_url",
			"redirect to another registrable domain", "Warning.RT.ru", []string{operator}},
		{"same suffix, another registrant", page("302 Found", "Location: http://other.org/\r\n", ""), Expect{}, "http_unexpected_redirect_url",
			"redirect to another registrable domain", "other.org", nil},
		{"block page", page("200 OK", "", `<iframe src="http://subblock.mts.ru/api?x">`), Expect{}, "http_request_failed", "block page", "", []string{operator}},
		{"block page that looks right", page("200 OK", "", "<title>Messenger</title> app.js EAIS.rkn.gov.ru"), Expect{Contains: []string{"Messenger", "rkn"}},
			"http_request_failed", "block page", "", []string{registry}},
		{"block page in Russian", page("200 OK", "", "Ресурс включен в ЕДИНЫЙ РЕЕСТР доменных имен"), Expect{}, "http_request_failed", "block page", "", []string{registry}},
		{"451", page("451 No", "", ""), Expect{}, "http_request_failed", "block page", "", []string{"status 451"}},
		{"mark beyond what is read", page("200 OK", "", strings.Repeat(" ", headBody)+"eais.rkn.gov.ru"), Expect{}, "", "expected shape", "", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			steps := runProber(t, HTTP{Addr: plain(t, c.answer), Host: webHost, Plain: true, Expect: c.expect}, 10*time.Second)
			want := strings.TrimSpace("connect, request, reply " + c.fail)
			last := steps[len(steps)-1]
			if d := cmp.Diff(want, story(steps)); d != "" {
				t.Fatalf("%s%v", d, last.Err)
			}
			r := last.Reply
			if r.Proof != c.proof || r.Redirect != c.redirect || !cmp.Equal(r.Marks, c.marks) {
				t.Errorf("%+v", r)
			}
		})
	}
}

// TestHTTPRequest is what goes over the wire: nothing that a browser would not
// send, and nothing of ours.
func TestHTTPRequest(t *testing.T) {
	got := make(chan string, 1)
	addr := probetest.ServeTCP(t, func(c net.Conn) {
		b := make([]byte, 4096)
		n, _ := c.Read(b)
		got <- string(b[:n])
	})
	for _, c := range []struct {
		q    HTTP
		want string
	}{
		{HTTP{Plain: true, Host: "api.example.org", Path: "/bot1:AA/getMe?x=%20y"}, "GET /bot1:AA/getMe?x=%20y HTTP/1.1\r\nHost: api.example.org:PORT\r\n"},
		{HTTP{Plain: true, Method: "HEAD", ServerName: "example.org"}, "HEAD / HTTP/1.1\r\nHost: example.org:PORT\r\n"},
		{HTTP{Plain: true}, "GET / HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\n"},
	} {
		runProber(t, c.q.At(addr), 5*time.Second)
		want := strings.ReplaceAll(c.want, "PORT", fmt.Sprint(addr.Port())) + "User-Agent: " + userAgent + "\r\nAccept: */*\r\n\r\n"
		if d := cmp.Diff(want, <-got); d != "" {
			t.Error(d)
		}
	}
	for _, c := range []struct {
		q    HTTP
		host string
	}{
		{HTTP{Addr: netip.MustParseAddrPort("192.0.2.1:80"), Plain: true, Host: "a.example"}, "a.example"},
		{HTTP{Addr: netip.MustParseAddrPort("192.0.2.1:443"), Host: "a.example"}, "a.example"},
		{HTTP{Addr: netip.MustParseAddrPort("192.0.2.1:443"), ServerName: "b.example"}, "b.example"},
		{HTTP{Addr: netip.MustParseAddrPort("[2001:db8::1]:443")}, "[2001:db8::1]"},
		{HTTP{Addr: netip.MustParseAddrPort("[2001:db8::1]:8443")}, "[2001:db8::1]:8443"},
	} {
		r, err := c.q.request()
		if err != nil || r.Host != c.host {
			t.Errorf("%+v: %q, %v", c.q, r.Host, err)
		}
	}
	for _, q := range []HTTP{{Path: "x\r\ny"}, {Method: "GET /"}, {Version: "2"}, {Version: "3", Plain: true}} {
		if s := story(runProber(t, q.At(addr), time.Second)); s != "request invalid_argument" {
			t.Errorf("%+v: %s", q, s)
		}
	}
}

func TestHTTPHead(t *testing.T) {
	steps := runProber(t, HTTP{Addr: plain(t, "HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n"), Plain: true, Method: "HEAD"}, 5*time.Second)
	if s := story(steps); s != "connect, request, reply" {
		t.Errorf("%s: %v", s, steps[len(steps)-1].Err)
	}
}

// TestHTTPHostile: servers that do not end, or end too late.
func TestHTTPHostile(t *testing.T) {
	var bomb bytes.Buffer
	w := gzip.NewWriter(&bomb)
	w.Write(make([]byte, 10<<20))
	w.Close()
	contains := Expect{Contains: []string{"<title>Messenger"}}
	isJSON := Expect{JSON: map[string]string{"ok": ""}}
	for _, c := range []struct {
		name   string
		handle func(*tls.Conn)
		expect Expect
		fail   string
	}{
		{"a header without end", endless("HTTP/1.1 200 OK\r\n", "X-A: b\r\n"), contains, "unknown_failure"},
		{"a line without end", endless("HTTP/1.1 200 OK\r\nX-A:", "aaaaaaaaaaaaaaaaaaaaaaaaaaaa"), contains, "unknown_failure"},
		{"interim answers without end", endless("", "HTTP/1.1 100 Continue\r\n\r\n"), contains, "unknown_failure"},
		{"a body without end", endless("HTTP/1.1 200 OK\r\n\r\n", strings.Repeat("<p>", 100)), contains, "http_request_failed"},
		{"JSON without end", endless("HTTP/1.1 200 OK\r\n\r\n{", strings.Repeat(`"a":1,`, 100)), isJSON, "json_parse_error"},
		{"a body nobody wants, without end", endless("HTTP/1.1 200 OK\r\n\r\n", strings.Repeat("<p>", 100)), Expect{}, ""},
		{"the right page, without end", endless("HTTP/1.1 200 OK\r\n\r\n<title>Messenger", strings.Repeat("<p>", 100)), contains, ""},
		{"chunks of one byte without end", endless("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "1\r\na\r\n"), contains, "unknown_failure"},
		{"a trailer without end", endless("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", "X-A: b\r\n"), contains, "unknown_failure"},
		{"a chunk of 2^63 bytes", endless("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n7fffffffffffffff\r\n", strings.Repeat("<p>", 100)), contains, "http_request_failed"},
		{"a length of 2^63", endless("HTTP/1.1 200 OK\r\nContent-Length: 9223372036854775807\r\n\r\n", strings.Repeat("<p>", 100)), contains, "http_request_failed"},
		{"a compressed bomb", words("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n" + bomb.String()), contains, "http_request_failed"},
		{"a header a byte a while", drip("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n"), Expect{}, "generic_timeout_error"},
		{"a body a byte a while", func(c *tls.Conn) {
			http.ReadRequest(bufio.NewReader(c))
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n<title>")
			drip(strings.Repeat("x", 50))(c)
		}, contains, "generic_timeout_error"},
		{"frozen in the body", func(c *tls.Conn) {
			http.ReadRequest(bufio.NewReader(c))
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"+strings.Repeat("x", 16000))
			io.Copy(io.Discard, c)
		}, contains, "generic_timeout_error"},
		{"silence", func(c *tls.Conn) { io.Copy(io.Discard, c) }, contains, "generic_timeout_error"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			addr, trust := serveRaw(t, webHost, c.handle)
			m := &Meter{Net: &Host{}}
			ctx, cancel := context.WithTimeout(context.Background(), enough(c.fail))
			defer cancel()
			steps := HTTP{Addr: addr, Host: webHost, Expect: c.expect, Trust: trust}.Probe(ctx, m)
			want := strings.TrimSpace("connect, tls_handshake, request, reply " + c.fail)
			if d := cmp.Diff(want, story(steps)); d != "" {
				t.Fatalf("%s%v", d, steps[len(steps)-1].Err)
			}
			if m.Received() > maxStream {
				t.Errorf("%d bytes taken in", m.Received())
			}
		})
	}
}

func TestHTTPBeforeTheReply(t *testing.T) {
	q := HTTP{Host: webHost}
	q.Addr = probetest.Refused(t)
	if s := story(runProber(t, q, short)); s != "connect connection_refused" {
		t.Error(s)
	}
	q.Addr, _ = serveRaw(t, webHost, nil)
	if s := story(runProber(t, q, 10*time.Second)); s != "connect, tls_handshake ssl_unknown_authority" {
		t.Error(s)
	}
	addr, trust := serveRaw(t, "other.example", nil)
	if s := story(runProber(t, HTTP{Addr: addr, Host: webHost, Trust: trust}, 10*time.Second)); s != "connect, tls_handshake ssl_invalid_hostname" {
		t.Error(s)
	}
	// Reached by an address, and only that is in the certificate.
	addr, trust = serveRaw(t, "127.0.0.1", words(page("200 OK", "", "")))
	if s := story(runProber(t, HTTP{Addr: addr, Trust: trust}, 10*time.Second)); s != "connect, tls_handshake, request, reply" {
		t.Error(s)
	}
	addr = probetest.ServeTCP(t, probetest.Reset)
	if s := story(runProber(t, HTTP{Addr: addr, Plain: true}, 10*time.Second)); s != "connect, request, reply connection_reset" {
		t.Error(s)
	}
	ctx, cancel := context.WithCancel(context.Background())
	time.AfterFunc(50*time.Millisecond, cancel)
	if s := story(HTTP{Addr: probetest.ServeTCP(t, probetest.Stall), Plain: true}.Probe(ctx, &Host{})); s != "connect, request, reply interrupted" {
		t.Error(s)
	}
}

// serveHTTP3 is an HTTP/3 server for webHost.
func serveHTTP3(t *testing.T, h http.HandlerFunc) (netip.AddrPort, *Trust) {
	t.Helper()
	ca := probetest.NewCA(t, "test CA")
	conf := http3.ConfigureTLSConfig(&tls.Config{Certificates: []tls.Certificate{ca.Issue(t, nil, webHost)}})
	s := &http3.Server{Handler: h}
	addr := probetest.ServeQUIC(t, conf, nil, nil, func(c *quic.Conn) { s.ServeQUICConn(c) })
	return addr, newTrust(t, ca)
}

func TestHTTP3(t *testing.T) {
	big := strings.Repeat("<p>", 1<<20)
	for _, c := range []struct {
		name   string
		h      http.HandlerFunc
		expect Expect
		fail   string
		code   int
	}{
		{"JSON", func(w http.ResponseWriter, r *http.Request) {
			if r.Method != "GET" || r.URL.Path != "/bot" || r.Host == "" || r.Header.Get("Accept-Encoding") != "" || r.UserAgent() != userAgent {
				w.WriteHeader(400)
				return
			}
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(401)
			io.WriteString(w, `{"ok":false,"error_code":401,"description":"Unauthorized"}`)
		}, botShape, "", 401},
		{"interim answers", func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(103)
			w.WriteHeader(103)
			w.WriteHeader(204)
		}, Expect{Status: 204}, "", 204},
		{"server error", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) }, botShape, "", 503},
		{"another page", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "hello") }, Expect{Contains: []string{"x"}}, "http_request_failed", 200},
		{"the right page, too long", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "<title>Messenger"+big) },
			Expect{Contains: []string{"<title>Messenger"}}, "", 200},
		{"a page too long", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, big) }, Expect{Contains: []string{"x"}}, "http_request_failed", 200},
		{"a header too long", func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("X-A", strings.Repeat("a", 100<<10)) }, Expect{}, "unknown_failure", 0},
		{"silence", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, Expect{}, "generic_timeout_error", 0},
		{"frozen in the body", func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, big[:16000])
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		}, Expect{Contains: []string{"x"}}, "generic_timeout_error", 200},
		{"stream given up", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, Expect{}, "unknown_failure", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			addr, trust := serveHTTP3(t, c.h)
			m := &Meter{Net: &Host{}}
			ctx, cancel := context.WithTimeout(context.Background(), enough(c.fail))
			defer cancel()
			steps := HTTP{Addr: addr, Host: webHost, Path: "/bot", Version: "3", Expect: c.expect, Trust: trust}.Probe(ctx, m)
			want := strings.TrimSpace("quic_handshake, request, reply " + c.fail)
			last := steps[len(steps)-1]
			if d := cmp.Diff(want, story(steps)); d != "" {
				t.Fatalf("%s%v", d, last.Err)
			}
			if last.Reply.Code != c.code || last.Reply.Transport != "h3" {
				t.Errorf("%+v", last.Reply)
			}
			if m.Received() > 256<<10 {
				t.Errorf("%d bytes taken in", m.Received())
			}
			if q := steps[0].QUIC; q.ALPN != "h3" || q.PacketsReceived == 0 {
				t.Errorf("%+v", q)
			}
		})
	}
	q := HTTP{Addr: probetest.RefusedUDP(t), Host: webHost, Version: "3"}
	if s := story(runProber(t, q, 5*time.Second)); s != "quic_handshake connection_refused" {
		t.Error(s)
	}
	ctx, cancel := context.WithCancel(context.Background())
	addr, trust := serveHTTP3(t, func(_ http.ResponseWriter, r *http.Request) { cancel(); <-r.Context().Done() })
	if s := story(HTTP{Addr: addr, Host: webHost, Version: "3", Trust: trust}.Probe(ctx, &Host{})); s != "quic_handshake, request, reply interrupted" {
		t.Error(s)
	}
}

func TestRegistrable(t *testing.T) {
	for name, want := range map[string]string{
		"web.telegram.org": "telegram.org", "TELEGRAM.org.": "telegram.org", "a.b.co.uk": "b.co.uk",
		"co.uk": "co.uk", "192.0.2.1": "192.0.2.1", "2001:db8::1": "2001:db8::1", "localhost": "localhost", "": "",
	} {
		if got := registrable(name); got != want {
			t.Errorf("%q: %q, want %q", name, got, want)
		}
	}
}

// failingReader says what it has, and then fails.
type failingReader struct {
	io.Reader
	err error
}

func (r failingReader) Read(b []byte) (int, error) {
	n, err := r.Reader.Read(b)
	if err == io.EOF {
		err = r.err
	}
	return n, err
}

// TestReadHeadCut: wherever an answer is cut, the error is what cut it, never
// that it is not HTTP.
func TestReadHeadCut(t *testing.T) {
	const answer = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 0\r\n\r\n"
	cut := errors.New("cut")
	for i := range len(answer) {
		for _, size := range []int{16, 4096} {
			r := bufio.NewReaderSize(failingReader{strings.NewReader(answer[:i]), cut}, size)
			if _, err := readHead(r, nil); err != cut {
				t.Errorf("at %d with %d: %v", i, size, err)
			}
		}
	}
	if resp, err := readHead(bufio.NewReader(strings.NewReader(answer)), nil); err != nil || resp.StatusCode != 200 {
		t.Errorf("%v %v", resp, err)
	}
}

func FuzzReadHead(f *testing.F) {
	f.Add([]byte(botAPI))
	f.Add([]byte("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX: y\r\n\r\n"))
	f.Add([]byte("HTTP/1.1 302 Found\r\nLocation: //x\r\n\r\n"))
	f.Add([]byte("SSH-2.0\r\n"))
	q := HTTP{Host: webHost, Plain: true, Expect: botShape}
	req, err := q.request()
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		resp, err := readHead(bufio.NewReader(bytes.NewReader(b)), req)
		if err != nil {
			if resp != nil {
				t.Fatal("an answer and an error")
			}
			return
		}
		info := &ReplyInfo{}
		if q.judge(resp, info) == nil && info.Proof != "expected shape" {
			t.Fatalf("%q taken for %q", b, info.Proof)
		}
	})
}
