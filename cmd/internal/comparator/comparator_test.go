package comparator

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/messenger-probe/messenger-probe/probe/probetest"
	"github.com/messenger-probe/messenger-probe/probe/verdict"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// status is a document as an agent writes it, of this time and vantage.
func status(t time.Time, vantage string) string {
	return fmt.Sprintf(`{
  "schema": "messenger-probe/status/v1",
  "agent": {"version": "1", "catalogue": "2"},
  "vantage": {"name": "de", "country": "DE", "network": "datacenter", "state": %q, "evidence": []},
  "time": %q,
  "verdicts": [{"messenger": "alpha", "function": "chat", "state": "ok", "mechanism": "", "confidence": "", "evidence": []}],
  "results": [
    {"messenger": "alpha", "function": "chat", "endpoint": "e", "check": "tls", "family": "ip4", "outcome": "ok", "duration_seconds": 1, "time": %q},
    {"messenger": "alpha", "function": "chat", "endpoint": "e", "check": "tcp", "family": "ip4", "outcome": "fail", "failure": "generic_timeout_error", "duration_seconds": 1, "time": %q},
    {"messenger": "alpha", "function": "chat", "endpoint": "e", "check": "quic", "family": "ip4", "outcome": "void", "reason": "informational", "duration_seconds": 1, "time": %q},
    {"messenger": "control", "function": "foreign", "endpoint": "c", "check": "tls", "family": "ip4", "outcome": "ok", "duration_seconds": 1, "time": %q}
  ]
}`, vantage, stamp(t), stamp(t.Add(-20*time.Second)), stamp(t.Add(-40*time.Second)), stamp(t), stamp(t))
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// serve is an agent abroad, and what it takes to trust it.
func serve(t *testing.T, name string, h http.HandlerFunc) Agent {
	t.Helper()
	ca := probetest.NewCA(t, "abroad")
	s := httptest.NewUnstartedServer(h)
	s.TLS = &tls.Config{Certificates: []tls.Certificate{ca.Issue(t, nil, name)}}
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	s.StartTLS()
	t.Cleanup(s.Close)
	return Agent{Name: "de", URL: s.URL, CAFile: file(t, string(ca.PEM()))}
}

func file(t *testing.T, s string) string {
	t.Helper()
	f := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(f, []byte(s), 0o600); err != nil {
		t.Fatal(err)
	}
	return f
}

func good(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, status(time.Now(), "online")) }

func ask(t *testing.T, a Agent, patience time.Duration) (Report, error) {
	t.Helper()
	p, err := newPeer(a)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	return p.ask(ctx, 3*time.Minute)
}

func TestGood(t *testing.T) {
	a := serve(t, "127.0.0.1", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/base/api/v1/status" || r.Method != "GET" || r.Header.Get("Authorization") != "" || r.Header.Get("Cookie") != "" {
			t.Errorf("%s %s %v", r.Method, r.URL, r.Header)
		}
		good(w, r)
	})
	a.URL += "/base"
	r, err := ask(t, a, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	near := cmp.Comparer(func(x, y time.Time) bool { return x.Sub(y).Abs() < 4*time.Second })
	now := time.Now()
	want := Report{Name: "de", Time: now, Until: now.Add(3 * time.Minute), Verdicts: []Verdict{{"alpha", "chat", verdict.OK, ""}},
		Results: []Result{{"alpha", "chat", "e", "tls", "ip4", true, now.Add(-20 * time.Second)},
			{"alpha", "chat", "e", "tcp", "ip4", false, now.Add(-40 * time.Second)}}}
	if d := cmp.Diff(want, r, near); d != "" {
		t.Error(d)
	}
}

// A clock that is wrong there does not make its answers old or new.
func TestClock(t *testing.T) {
	for _, off := range []time.Duration{-time.Hour, time.Hour} {
		a := serve(t, "127.0.0.1", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Date", time.Now().Add(off).UTC().Format(http.TimeFormat))
			io.WriteString(w, status(time.Now().Add(off), "online"))
		})
		r, err := ask(t, a, 5*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		if age := time.Since(r.Results[0].Time); age < 18*time.Second || age > 24*time.Second {
			t.Errorf("with a clock off by %v a result of 20 s ago is %v old", off, age)
		}
	}
}

func TestIllVantage(t *testing.T) {
	for _, state := range []string{"offline", "whitelist", "impaired"} {
		a := serve(t, "127.0.0.1", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, status(time.Now(), state)) })
		r, err := ask(t, a, 5*time.Second)
		if err != nil || r.Name == "" || r.Verdicts != nil || r.Results != nil {
			t.Errorf("%s: %+v, %v", state, r, err)
		}
	}
}

func TestBad(t *testing.T) {
	says := func(s string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, s) }
	}
	changed := func(old, new string) http.HandlerFunc {
		s := status(time.Now(), "online")
		if !strings.Contains(s, old) {
			t.Fatalf("no %q", old)
		}
		return says(strings.Replace(s, old, new, 1))
	}
	const form = "does not keep to the schema"
	for _, c := range []struct {
		name string
		h    http.HandlerFunc
		cert string // "" the right one
		want string
	}{
		{"drip", func(w http.ResponseWriter, r *http.Request) {
			for {
				select {
				case <-r.Context().Done():
					return
				case <-time.After(5 * time.Millisecond):
					io.WriteString(w, " ")
					w.(http.Flusher).Flush()
				}
			}
		}, "", "generic_timeout_error"},
		{"silent", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, "", "generic_timeout_error"},
		{"huge", func(w http.ResponseWriter, _ *http.Request) {
			b := bytes.Repeat([]byte(" "), 1<<20)
			for range 8 {
				w.Write(b)
			}
		}, "", "larger than"},
		{"huge header", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X", strings.Repeat("x", 200<<10))
			good(w, r)
		}, "", "unknown_failure"},
		{"redirect", func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/there" {
				t.Error("a redirect was followed")
			}
			http.Redirect(w, r, "/there", http.StatusFound)
		}, "", "HTTP status 302"},
		{"401", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(401) }, "", "HTTP status 401"},
		{"no JSON", says("<html>"), "", "no JSON"},
		{"cut", says(status(time.Now(), "online")[:300]), "", "no JSON"},
		{"two documents", says(status(time.Now(), "online") + "{}"), "", "no JSON"},
		{"deep", says(strings.Repeat("[", 1<<20)), "", "no JSON"},
		{"schema", changed("status/v1", "status/v2"), "", "not of the schema"},
		{"nothing", says("{}"), "", "not of the schema"},
		{"state", changed(`"state": "ok"`, `"state": "fine"`), "", form},
		{"vantage", changed(`"state": "online"`, `"state": "here"`), "", form},
		{"outcome", changed(`"outcome": "fail"`, `"outcome": "failed"`), "", form},
		{"no name", changed(`"endpoint": "e"`, `"endpoint": ""`), "", form},
		{"long name", changed(`"endpoint": "e"`, `"endpoint": "`+strings.Repeat("e", 300)+`"`), "", form},
		{"no results", changed(`"results"`, `"resolts"`), "", form},
		{"a type", changed(`"verdicts": [{"messenger": "alpha"`, `"verdicts": [{"messenger": 7`), "", "no JSON"},
		{"certificate", good, "probe.example.org", "ssl_invalid_hostname"},
		{"stale", says(status(time.Now().Add(-4*time.Minute), "online")), "", "is old"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cert := c.cert
			if cert == "" {
				cert = "127.0.0.1"
			}
			a := serve(t, cert, c.h)
			patience := 5 * time.Second
			if c.want == "generic_timeout_error" {
				patience = 250 * time.Millisecond
			}
			began := time.Now()
			r, err := ask(t, a, patience)
			if err == nil || r.Name != "" {
				t.Fatalf("%+v", r)
			}
			if why := reason(err); !strings.Contains(why, c.want) || strings.Contains(why, "127.0.0.1") {
				t.Errorf("%q, want %q; %v", why, c.want, err)
			}
			if took := time.Since(began); took > 3*time.Second {
				t.Errorf("took %v", took)
			}
		})
	}
	t.Run("authority", func(t *testing.T) {
		a := serve(t, "127.0.0.1", good)
		a.CAFile = ""
		if _, err := ask(t, a, 5*time.Second); err == nil || reason(err) != "ssl_unknown_authority" {
			t.Error(err)
		}
	})
	t.Run("nobody", func(t *testing.T) {
		if _, err := ask(t, Agent{Name: "de", URL: "http://127.0.0.1:1"}, time.Second); err == nil || reason(err) != "connection_refused" {
			t.Error(err)
		}
	})
}

func TestToken(t *testing.T) {
	want := "one"
	a := serve(t, "127.0.0.1", func(w http.ResponseWriter, r *http.Request) {
		if name, password, ok := r.BasicAuth(); r.Header.Get("Authorization") != "Bearer "+want && (!ok || name+":"+password != want) {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		good(w, r)
	})
	a.TokenFile = file(t, "one\n")
	if _, err := ask(t, a, 5*time.Second); err != nil {
		t.Error(err)
	}
	want = "two"
	if _, err := ask(t, a, 5*time.Second); err == nil || reason(err) != "HTTP status 401" {
		t.Errorf("the old token: %v", err)
	}
	os.WriteFile(a.TokenFile, []byte(" two "), 0o600)
	if _, err := ask(t, a, 5*time.Second); err != nil {
		t.Errorf("the new token: %v", err)
	}
	want = "reader:of:this"
	os.WriteFile(a.TokenFile, []byte("reader:of:this\n"), 0o600)
	if _, err := ask(t, a, 5*time.Second); err != nil {
		t.Errorf("a name and a password: %v", err)
	}
	for _, bad := range []string{"", "\n", "a b", "a\x00b", "ключ", strings.Repeat("x", 5<<10)} {
		os.WriteFile(a.TokenFile, []byte(bad), 0o600)
		if _, err := ask(t, a, 5*time.Second); err == nil || !strings.Contains(reason(err), "token_file") || strings.Contains(reason(err), a.TokenFile) {
			t.Errorf("%.10q: %v", bad, err)
		}
	}
	a.TokenFile = "/dev/zero"
	if _, err := ask(t, a, 5*time.Second); err == nil {
		t.Error("an endless token was sent")
	}
}

func TestNew(t *testing.T) {
	for _, c := range []struct {
		a    Agent
		want string
	}{
		{Agent{URL: "ftp://a"}, "comparators[0].url"},
		{Agent{URL: "https:///x"}, "comparators[0].url"},
		{Agent{URL: "http://probe.example.org", TokenFile: "t"}, "in clear"},
		{Agent{URL: "http://a:b@probe.example.org"}, "in clear"},
		{Agent{URL: "https://a", CAFile: "/nowhere"}, "comparators[0].ca_file"},
		{Agent{URL: "https://a", CAFile: file(t, "x")}, "comparators[0].ca_file"},
		{Agent{URL: "http://127.0.0.1:9770", TokenFile: "t"}, ""},
		{Agent{URL: "https://probe.example.org:9770", TokenFile: "t"}, ""},
	} {
		_, err := New([]Agent{c.a}, Options{})
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v", c.a, err)
		}
	}
}

// A roundTripper is a server without sockets, for simulated time.
type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func answer(body string) *http.Response {
	return &http.Response{StatusCode: 200, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body))}
}

// Agents are asked once an interval, four times where it is urgent; what comes
// and goes is logged once.
func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var heard [][]Report
		var times []time.Time
		var urgent, dead, frozen bool
		var log bytes.Buffer
		c, err := New([]Agent{{Name: "de", URL: "https://de.example.org"}, {Name: "se", URL: "https://se.example.org"}}, Options{
			Interval: time.Minute,
			Urgent:   func() bool { mu.Lock(); defer mu.Unlock(); return urgent },
			Heard:    func(r []Report) { mu.Lock(); defer mu.Unlock(); heard = append(heard, r) },
			Log:      slog.New(slog.NewJSONHandler(&log, nil)),
		})
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		c.peers[0].http.Transport = roundTripper(func(r *http.Request) (*http.Response, error) {
			mu.Lock()
			defer mu.Unlock()
			times = append(times, time.Now())
			switch {
			case dead:
				return nil, fmt.Errorf("no route to 192.0.2.7")
			case frozen:
				return answer(status(began, "online")), nil
			}
			return answer(status(time.Now(), "online")), nil
		})
		// The other never answers and holds nothing up.
		c.peers[1].http.Transport = roundTripper(func(r *http.Request) (*http.Response, error) {
			<-r.Context().Done()
			return nil, r.Context().Err()
		})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); c.Run(ctx) }()
		set := func(p *bool, v bool) { mu.Lock(); defer mu.Unlock(); *p = v }
		count := func(d time.Duration) (asked, told int) {
			mu.Lock()
			a, h := len(times), len(heard)
			mu.Unlock()
			time.Sleep(d)
			mu.Lock()
			defer mu.Unlock()
			return len(times) - a, len(heard) - h
		}
		if a, h := count(20 * time.Minute); a < 18 || a > 22 || h != a {
			t.Errorf("asked %d times in 20 minutes, told %d times", a, h)
		}
		set(&urgent, true)
		if a, _ := count(5 * time.Minute); a < 18 || a > 23 {
			t.Errorf("asked %d times in 5 urgent minutes", a)
		}
		set(&urgent, false)
		set(&dead, true)
		if a, h := count(10 * time.Minute); a < 8 || h != 0 {
			t.Errorf("asked %d times while dead, told %d times", a, h)
		}
		set(&dead, false)
		if _, h := count(5 * time.Minute); h < 3 {
			t.Errorf("told %d times after its return", h)
		}
		set(&frozen, true) // it serves, and does not measure any more
		if _, h := count(10 * time.Minute); h != 0 {
			t.Errorf("told %d times what was told before", h)
		}
		cancel()
		<-done
		for _, r := range heard {
			if len(r) != 1 || r[0].Name != "de" {
				t.Fatalf("%+v", r)
			}
		}
		if n := strings.Count(log.String(), `"name":"de"`); n != 3 {
			t.Errorf("%d lines of de, want dead, back and old:\n%s", n, &log)
		}
		if n := strings.Count(log.String(), `"name":"se"`); n != 1 {
			t.Errorf("%d lines of se", n)
		}
		if s := log.String(); strings.Contains(s, "192.0.2") || strings.Contains(s, "example.org") {
			t.Errorf("an address in the log:\n%s", s)
		}
	})
}

func FuzzRead(f *testing.F) {
	f.Add([]byte(status(time.Unix(1e9, 0), "online")))
	f.Add([]byte(`{"schema":"messenger-probe/status/v1"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := read(b)
		if err != nil {
			return
		}
		if !json.Valid(b) {
			t.Error("not even JSON")
		}
		r := d.report("x", func(t time.Time) time.Time { return t }, d.Time)
		if len(r.Results) > maxRows || len(r.Verdicts) > maxRows {
			t.Errorf("%d results, %d verdicts", len(r.Results), len(r.Verdicts))
		}
	})
}
