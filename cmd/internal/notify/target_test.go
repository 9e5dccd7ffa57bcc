package notify

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const (
	topSecret = "hush-hush-hush"
	botSecret = "123456:AAhush-hush_hush-hush"
)

// try sends the sample with some patience.
func try(t *testing.T, s sender, patience time.Duration) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	return s.send(ctx, sample())
}

func TestWebhook(t *testing.T) {
	var got map[string]any
	var header http.Header
	u, ca := secure(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method != "POST" || r.URL.String() != "/hooks/secret?x=1" {
			t.Errorf("%s %s", r.Method, r.URL)
		}
		header = r.Header
		if err := json.NewDecoder(r.Body).Decode(&got); err != nil {
			t.Error(err)
		}
		w.WriteHeader(http.StatusNoContent)
	})
	s := one(t, Target{Type: "webhook", URLFile: file(t, u+"/hooks/secret?x=1\n"), TokenFile: file(t, topSecret), CAFile: ca})
	if err := try(t, s, 5*time.Second); err != nil {
		t.Fatal(err)
	}
	l := sample()
	want := map[string]any{"schema": "messenger-probe/notification/v1", "id": "ID1", "time": "2026-11-30T12:00:00Z", "vantage": "my-server",
		"title": l.title, "text": l.text, "changes": []any{map[string]any{
			"messenger": "telegram", "title": "Telegram", "function": "chat", "state": "blocked", "was": "ok", "mechanism": "port_block",
			"confidence": "high", "since": "2026-11-30T12:00:00Z",
			"evidence": []any{"149.154.167.51 :443 times out at connect in 9 of 9 tries, while :80 there answers"}}}}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	for k, v := range map[string]string{"Authorization": "Bearer " + topSecret, "Idempotency-Key": `"ID1"`,
		"Content-Type": "application/json", "User-Agent": "messenger-probe"} {
		if header.Get(k) != v {
			t.Errorf("%s: %q", k, header.Get(k))
		}
	}
}

// An ntfy server as docs.ntfy.sh/publish has it: JSON at its root, and nothing
// else for what is meant as JSON.
func TestNtfy(t *testing.T) {
	var got ntfyDocument
	u, ca := secure(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method != "POST" || r.URL.Path != "/" || r.Header.Get("Authorization") != "Bearer tk_x" {
			t.Errorf("%s %s %v", r.Method, r.URL, r.Header)
		}
		b, err := io.ReadAll(r.Body)
		if len(b) > 2*4096 { // the limit of ntfy's server.go, transformBodyJSON
			t.Errorf("%d bytes", len(b))
		}
		d := json.NewDecoder(strings.NewReader(string(b)))
		d.DisallowUnknownFields()
		if err != nil || d.Decode(&got) != nil {
			t.Errorf("%v in %s", err, b)
		}
		fmt.Fprintf(w, `{"id":"wBCKt6PWKT4s","time":1764504000,"expires":1764547200,"event":"message","topic":%q,"message":"m"}`, got.Topic)
	})
	t.Setenv("NTFY_TOKEN", "tk_x")
	s := one(t, Target{Type: "ntfy", URL: u + "/my-Topic_1", TokenEnv: "NTFY_TOKEN", CAFile: ca})
	if err := try(t, s, 5*time.Second); err != nil {
		t.Fatal(err)
	}
	l := sample()
	want := ntfyDocument{Topic: "my-Topic_1", Title: l.title, Message: l.text, Priority: 4, Tags: []string{"no_entry"}, Sequence: "ID1"}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	l.urgent = false
	if err := s.send(t.Context(), l); err != nil || got.Priority != 3 || got.Tags[0] != "white_check_mark" {
		t.Errorf("%v, %+v", err, got)
	}
}

// A Bot API server as core.telegram.org/bots/api has it.
func TestTelegram(t *testing.T) {
	var got map[string]any
	answer := func(w http.ResponseWriter) {
		io.WriteString(w, `{"ok":true,"result":{"message_id":1,"date":1764504000,"chat":{"id":-100123,"type":"supergroup"},"text":"x"}}`)
	}
	u, ca := secure(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method != "POST" || r.URL.Path != "/bot"+botSecret+"/sendMessage" || r.Header.Get("Authorization") != "" {
			t.Errorf("%s %s %v", r.Method, r.URL, r.Header)
		}
		got = nil
		if err := json.NewDecoder(r.Body).Decode(&got); err != nil {
			t.Error(err)
		}
		answer(w)
	})
	s := one(t, Target{Type: "telegram", URL: u, TokenFile: file(t, botSecret), Chat: "-100123", CAFile: ca})
	if err := try(t, s, 5*time.Second); err != nil {
		t.Fatal(err)
	}
	l := sample()
	want := map[string]any{"chat_id": "-100123", "text": l.title + "\n\n" + l.text, "link_preview_options": map[string]any{"is_disabled": true}}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	for _, c := range []struct {
		code        int
		body, why   string
		after, upto time.Duration
	}{
		{429, `{"ok":false,"error_code":429,"description":"Too Many Requests: retry after 35","parameters":{"retry_after":35}}`, "HTTP status 429: Too Many Requests: retry after 35", 35 * time.Second, 35 * time.Second},
		{400, `{"ok":false,"error_code":400,"description":"Bad Request: chat not found"}`, "HTTP status 400: Bad Request: chat not found", sulk, sulk},
		{401, `{"ok":false,"error_code":401,"description":"Unauthorized"}`, "HTTP status 401: not let in: Unauthorized", sulk, sulk},
		{400, `{"ok":false,"error_code":400,"description":"Bad Request: group chat was upgraded to a supergroup chat","parameters":{"migrate_to_chat_id":-1001}}`, "the group has become a supergroup", sulk, sulk},
		{200, `{"ok":false}`, "not one of Telegram's", 0, 0},
		{200, `<html>`, "not one of Telegram's", 0, 0},
		{500, `{"ok":false,"error_code":500,"description":"` + botSecret + `\n"}`, "HTTP status 500: …", 0, 0},
	} {
		answer = func(w http.ResponseWriter) { w.WriteHeader(c.code); io.WriteString(w, c.body) }
		err := try(t, s, 5*time.Second)
		f, ok := err.(*fault)
		if !ok || !strings.Contains(f.why, c.why) || f.refused || f.after < c.after || f.after > c.upto || strings.Contains(f.why, "hush") {
			t.Errorf("%s: %+v", c.body, err)
		}
	}
	if own := one(t, Target{Type: "telegram", TokenFile: "x", Chat: "1"}).(*telegram); own.url.plain != "https://api.telegram.org" {
		t.Errorf("%q", own.url.plain)
	}
}

// What goes wrong is said without secrets, within bounds of time and memory.
func TestFailures(t *testing.T) {
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { t.Error("another host was asked") }))
	defer elsewhere.Close()
	hang := func(r *http.Request) {
		io.Copy(io.Discard, r.Body) // only then the server sees us leave
		<-r.Context().Done()
	}
	for _, c := range []struct {
		name    string
		h       http.HandlerFunc
		why     string
		refused bool
		after   time.Duration
	}{
		{"500", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }, "HTTP status 500", false, 0},
		{"404", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(404) }, "HTTP status 404", false, 0},
		{"400", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(400) }, "HTTP status 400", true, 0},
		{"413", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(413) }, "HTTP status 413", true, 0},
		{"403", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(403) }, "not let in", false, sulk},
		{"429", func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Retry-After", "120"); w.WriteHeader(429) }, "HTTP status 429", false, 2 * time.Minute},
		{"503 by date", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Date", began.Format(http.TimeFormat))
			w.Header().Set("Retry-After", began.Add(3*time.Minute).Format(http.TimeFormat))
			w.WriteHeader(503)
		}, "HTTP status 503", false, 3 * time.Minute},
		{"for ever", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "2147483647")
			w.WriteHeader(429)
		}, "HTTP status 429", false, maxAfter},
		{"before now", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "-5")
			w.WriteHeader(429)
		}, "HTTP status 429", false, 0},
		{"no number", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "soon")
			w.WriteHeader(429)
		}, "HTTP status 429", false, 0},
		{"redirect", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, elsewhere.URL+"/"+topSecret, http.StatusTemporaryRedirect)
		}, "a redirect, which is not followed", false, 0},
		{"silent", func(_ http.ResponseWriter, r *http.Request) { hang(r) }, "generic_timeout_error", false, 0},
		{"huge header", func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("X", strings.Repeat("x", 200<<10)) }, "unknown_failure", false, 0},
		{"hangs up", func(w http.ResponseWriter, _ *http.Request) { c, _, _ := w.(http.Hijacker).Hijack(); c.Close() }, "eof_error", false, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			u, ca := secure(t, c.h)
			s := one(t, Target{Type: "webhook", URLFile: file(t, u+"/"+topSecret), TokenFile: file(t, topSecret), CAFile: ca})
			start := time.Now()
			err := try(t, s, 500*time.Millisecond)
			if err == nil {
				t.Fatal("delivered")
			}
			why := reason(err)
			if !strings.Contains(why, c.why) || strings.Contains(why, "hush") || strings.Contains(why, "127.0.0.1") {
				t.Errorf("%q, want %q; %v", why, c.why, err)
			}
			f, _ := err.(*fault)
			if f == nil {
				f = &fault{}
			}
			if f.refused != c.refused || f.after != c.after {
				t.Errorf("%+v", f)
			}
			if took := time.Since(start); took > 5*time.Second {
				t.Errorf("took %v", took)
			}
		})
	}
	t.Run("huge", func(t *testing.T) { // it took it, and talks on
		u, ca := secure(t, func(w http.ResponseWriter, r *http.Request) {
			b := make([]byte, 1<<20)
			for range 64 {
				if _, err := w.Write(b); err != nil {
					return
				}
			}
			t.Error("64 MB were read")
		})
		if err := try(t, one(t, Target{Type: "webhook", URL: u, CAFile: ca}), 5*time.Second); err != nil {
			t.Error(err)
		}
	})
	t.Run("authority", func(t *testing.T) {
		u, _ := secure(t, func(http.ResponseWriter, *http.Request) { t.Error("told to a stranger") })
		if err := try(t, one(t, Target{Type: "webhook", URL: u}), 5*time.Second); err == nil || reason(err) != "ssl_unknown_authority" {
			t.Error(err)
		}
	})
	t.Run("nobody", func(t *testing.T) {
		s := one(t, Target{Type: "webhook", URLFile: file(t, "http://127.0.0.1:1/"+topSecret)})
		if err := try(t, s, time.Second); err == nil || reason(err) != "connection_refused" {
			t.Error(err)
		}
	})
}

// A proxy is used where the configuration names one, and what the environment
// names is not.
func TestProxy(t *testing.T) {
	u, ca := secure(t, func(http.ResponseWriter, *http.Request) {})
	tunnels := 0
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		there, err := net.Dial("tcp", r.Host)
		if r.Method != http.MethodConnect || err != nil {
			t.Errorf("%s: %v", r.Method, err)
			return
		}
		tunnels++
		here, _, _ := w.(http.Hijacker).Hijack()
		io.WriteString(here, "HTTP/1.1 200 OK\r\n\r\n")
		go func() { io.Copy(there, here); there.Close() }()
		io.Copy(here, there)
		here.Close()
	}))
	defer proxy.Close()
	for _, k := range []string{"HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "https_proxy", "http_proxy", "all_proxy"} {
		t.Setenv(k, proxy.URL)
	}
	// Loopback is never proxied by the environment's proxies, so the client itself
	// is looked at too.
	s := one(t, Target{Type: "webhook", URL: u, CAFile: ca})
	if p := s.(*webhook).client.Transport.(*http.Transport).Proxy; p != nil {
		t.Error("the environment has a say")
	}
	if err := try(t, s, 5*time.Second); err != nil || tunnels != 0 {
		t.Errorf("%v, %d tunnels", err, tunnels)
	}
	s = one(t, Target{Type: "webhook", URL: u, CAFile: ca, Proxy: proxy.URL})
	if err := try(t, s, 5*time.Second); err != nil || tunnels != 1 {
		t.Errorf("%v, %d tunnels", err, tunnels)
	}
}

func TestNewAudience(t *testing.T) {
	for _, c := range []struct {
		t    Target
		want string
	}{
		{Target{Type: "webhook", URL: "https://example.org/x"}, ""},
		{Target{Type: "webhook", URL: "http://127.0.0.1:80/x"}, ""},
		{Target{Type: "webhook", URL: "http://[::1]/x"}, ""},
		{Target{Type: "webhook", URL: "http://192.168.1.2/x"}, ""},
		{Target{Type: "webhook", URL: "http://hooks:8080/x"}, ""},
		{Target{Type: "webhook", URL: "http://example.org/x"}, "url: would tell everybody"},
		{Target{Type: "webhook", URL: "http://203.0.113.1/x"}, "url: would tell everybody"},
		{Target{Type: "webhook", URL: "https://a:b@example.org"}, "url: holds a user"},
		{Target{Type: "webhook", URL: "ftp://example.org"}, "url: is no http(s) URL"},
		{Target{Type: "webhook", URL: "https:///x"}, "url: is no http(s) URL"},
		{Target{Type: "ntfy", URL: "https://ntfy.sh/"}, "url: names no topic"},
		{Target{Type: "ntfy", URL: "https://ntfy.sh/a b"}, "url: names no topic"},
		{Target{Type: "ntfy", URL: "https://ntfy.sh/topic"}, ""},
		{Target{Type: "telegram", Chat: "1"}, ""},
		{Target{Type: "smtp", Server: "mail.example.org", From: "a@b.c"}, "server: is no host:port"},
		{Target{Type: "smtp", Server: "mail.example.org:587", From: "a"}, "from: is no address"},
		{Target{Type: "smtp", Server: "mail.example.org:587", From: "a@b.c", To: []string{"x@y.z", "x"}}, `to: "x" is no address`},
		{Target{Type: "smtp", Server: "mail.example.org:587", From: "a@b.c", To: []string{"x@y.z"}}, ""},
		{Target{Type: "pigeon"}, "type:"},
		{Target{Type: "webhook", URL: "https://x.y", Proxy: "1.2.3.4"}, "proxy: is no URL"},
		{Target{Type: "webhook", URL: "https://x.y", Proxy: "socks5://a:b@1.2.3.4:1"}, "proxy: holds a password"},
		{Target{Type: "webhook", URL: "https://x.y", Proxy: "socks5://1.2.3.4:1"}, ""},
		{Target{Type: "webhook", URL: "https://x.y", CAFile: "/nowhere"}, "ca_file:"},
		{Target{Type: "webhook", URL: "https://x.y", CAFile: file(t, "x")}, "ca_file:"},
	} {
		c.t.Name = "n"
		_, err := NewAudience(AudienceOptions{Targets: []Target{c.t}})
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), "notify.targets[0]."+c.want) {
			t.Errorf("%+v: %v", c.t, err)
		}
	}
}

// What a file or a variable holds can be wrong at any time; it is said then,
// and not shown.
func TestSecrets(t *testing.T) {
	f := file(t, "")
	for text, fine := range map[string]bool{"x\n": true, " x ": true, "x\ny": true, "": false, "\n": false, "a\x00b": false, "ключ": false,
		strings.Repeat("x", maxSecret): true, strings.Repeat("x", maxSecret+1): false, "a b": false} {
		os.WriteFile(f, []byte(text), 0o600)
		_, err := secret{file: f}.token()
		if (err == nil) != fine || err != nil && (strings.Contains(err.Error(), f) || text != "" && text != "\n" && strings.Contains(err.Error(), text)) {
			t.Errorf("%.10q: %v", text, err)
		}
	}
	for _, s := range []secret{{file: "/nowhere/at/all"}, {file: "/dev/zero"}, {env: "NOT_SET_AT_ALL"}} {
		if got, err := s.read("token"); err == nil {
			t.Errorf("%+v: %.10q", s, got)
		}
	}
	t.Setenv("A_TOKEN", topSecret)
	if got, err := (secret{env: "A_TOKEN"}).token(); got != topSecret || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	if got, err := (secret{}).token(); got != "" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	for _, bad := range []string{"", "123456", "x:" + topSecret, "123456:../../etc/passwd", "1:short"} {
		s := one(t, Target{Type: "telegram", Chat: "1", URL: "http://127.0.0.1:1", TokenFile: file(t, bad)})
		if err := try(t, s, time.Second); err == nil || !strings.Contains(reason(err), "token") || strings.Contains(err.Error(), topSecret) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	for _, bad := range []string{"http://example.org/" + topSecret, "https://u:" + topSecret + "@example.org", topSecret} {
		s := one(t, Target{Type: "webhook", URLFile: file(t, bad)})
		if err := try(t, s, time.Second); err == nil || !strings.HasPrefix(reason(err), "url ") || strings.Contains(err.Error(), topSecret) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// A test message goes to all, and each says how it went.
func TestTest(t *testing.T) {
	var got []hookDocument
	good, ca := secure(t, func(w http.ResponseWriter, r *http.Request) {
		var d hookDocument
		json.NewDecoder(r.Body).Decode(&d)
		got = append(got, d)
	})
	a, err := NewAudience(AudienceOptions{Language: "ru", Vantage: "my-server", Targets: []Target{
		{Name: "good", Type: "webhook", URL: good, CAFile: ca},
		{Name: "bad", Type: "telegram", URL: "http://127.0.0.1:1", Chat: "1", TokenFile: file(t, botSecret)}}})
	if err != nil {
		t.Fatal(err)
	}
	want := []Trial{{"good", "webhook", ""}, {"bad", "telegram", "connection_refused"}}
	if d := cmp.Diff(want, a.Test(t.Context(), "T")); d != "" {
		t.Error(d)
	}
	if len(got) != 1 || !got[0].Test || got[0].Title != "messenger-probe: проверка связи (my-server)" || got[0].Changes == nil || got[0].ID != "T" {
		t.Errorf("%+v", got)
	}
}

func FuzzTopic(f *testing.F) {
	f.Add("https://ntfy.sh/topic")
	f.Add("https://ntfy.example.org/a/b/topic?x=y#z")
	f.Fuzz(func(t *testing.T, s string) {
		u, name, err := topic(s)
		if err != nil {
			return
		}
		if _, err := url.Parse(u.String()); err != nil || !ntfyTopic.MatchString(name) || u.User != nil {
			t.Errorf("%q became %q and %q: %v", s, u, name, err)
		}
	})
}
