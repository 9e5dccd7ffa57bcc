package main

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/messenger-probe/messenger-probe/cmd/internal/agent"
	"github.com/messenger-probe/messenger-probe/cmd/internal/notify"
	"github.com/messenger-probe/messenger-probe/probe/verdict"
)

// people is a server of webhooks that remembers what it was posted.
type people struct {
	*httptest.Server
	mu  sync.Mutex
	got []hooked
}

// hooked is what of a webhook's document is looked at.
type hooked struct {
	Schema, ID, Title, Text, Vantage string
	Test                             bool
	Changes                          []notify.Change
}

func newPeople(t *testing.T) *people {
	p := &people{}
	p.Server = httptest.NewServer(http.HandlerFunc(p.serve))
	t.Cleanup(p.Close)
	return p
}

func (p *people) serve(w http.ResponseWriter, r *http.Request) {
	var h hooked
	if err := json.NewDecoder(io.LimitReader(r.Body, 1<<20)).Decode(&h); err != nil {
		h.Title = err.Error()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.got = append(p.got, h)
}

func (p *people) all() []hooked {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]hooked(nil), p.got...)
}

// A test message goes out, and its fate is told in words, JSON and the exit code.
func TestNotifyTest(t *testing.T) {
	p := newPeople(t)
	hush := write(t, "secret", "hush\n")
	good := "notify:\n  targets:\n  - {name: hook, type: webhook, url: " + p.URL + "/hush, token_file: " + hush + "}\n"
	bad := good + "  - {name: bot, type: telegram, url: 'http://127.0.0.1:1', chat: 1, token_file: " + hush + "}\n"
	for _, c := range []struct {
		text, args string
		exit       int
		want       string
	}{
		{good, "config --check --notify-test", exitOK, "hook    webhook  taken by its server"},
		{bad, "config --check --notify-test", exitNotOK, "bot     telegram  not taken: no token of a bot"},
		{bad, "config --check --notify-test --output json", exitNotOK, `"error": "no token of a bot`},
		{"interval: 60s\n", "config --check --notify-test", exitUsage, "name somebody in notify.targets"},
		{good, "config --check", exitOK, ""},
		{good, "config", exitOK, "[hook=webhook://127.0.0.1:"},
		{strings.Replace(good, p.URL, "http://example.org", 1), "config --check", exitUsage, "notify.targets[0].url: would tell everybody on the way"},
	} {
		var out strings.Builder
		code := run(t.Context(), append(strings.Fields(c.args), "--config", write(t, "config.yaml", c.text)), &out, &out)
		if code != c.exit || !strings.Contains(out.String(), c.want) || c.want == "" && out.Len() > 0 {
			t.Errorf("%s: exit %d: %s", c.args, code, &out)
		}
		if strings.Contains(strings.ReplaceAll(out.String(), hush, ""), "hush") {
			t.Errorf("%s: a secret in %s", c.args, &out)
		}
	}
	for _, h := range p.all() {
		if !h.Test || h.Title != "messenger-probe: a test" || len(h.Changes) > 0 {
			t.Errorf("%+v", h)
		}
	}
	if n := len(p.all()); n != 3 {
		t.Errorf("%d test messages", n)
	}
}

// What the agent says of a change reaches people in their words, and with a state
// folder only once.
func TestNotifyWiring(t *testing.T) {
	p := newPeople(t)
	text := "interval: 1s\nmessengers: [telegram]\nstate_dir: " + t.TempDir() + "\nvantage: {name: here}\nnotify:\n  targets:\n  - {name: hook, type: webhook, url: " + p.URL + "}\n"
	onset := time.Now().Add(-time.Minute)
	block := agent.Change{Time: time.Now(), Messenger: "telegram", Function: "calls", State: verdict.Blocked, Was: verdict.OK,
		Mechanism: verdict.CallBlock, Confidence: verdict.High, Onset: onset, Evidence: []string{"the relays 91.108.9.35:1400 are silent, asked from 10.1.2.3"}}
	for start := range 2 {
		d := quiet(t, text)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); d.notifier.Run(ctx) }()
		d.Changed(block)
		cancel() // what waits is told at once
		<-done
		got := p.all()
		if len(got) != 1 {
			t.Fatalf("start %d: %d messages: %+v", start, len(got), got)
		}
		h := got[0]
		if h.Title != "Telegram blocked: calls (here)" || h.Vantage != "here" || len(h.Changes) != 1 || !h.Changes[0].Since.Equal(onset.UTC().Truncate(time.Second)) ||
			h.Changes[0].Evidence[0] != "the relays 91.108.9.35:1400 are silent, asked from (a local address)" {
			t.Errorf("%+v", h)
		}
	}
	d := quiet(t, text)
	d.Changed(agent.Change{Time: time.Now(), Messenger: "telegram", Function: "calls", State: verdict.OK, Was: verdict.Blocked})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	d.notifier.Run(ctx)
	if got := p.all(); len(got) != 2 || got[1].Title != "Telegram works again: calls (here)" || !got[1].Changes[0].Began.Equal(onset.UTC().Truncate(time.Second)) {
		t.Errorf("%+v", got)
	}
}

// A reload takes over other targets, and refuses those that are not valid.
func TestNotifyReload(t *testing.T) {
	one, two := newPeople(t), newPeople(t)
	text := func(url string) string {
		return "messengers: [max]\ninterval: 1s\nnotify:\n  targets:\n  - {name: hook, type: webhook, url: '" + url + "'}\n"
	}
	d := quiet(t, text(one.URL))
	file := d.file
	for _, c := range []struct {
		url string
		err string
	}{{two.URL, ""}, {"http://example.org", "notify.targets[0].url"}} {
		if err := os.WriteFile(file, []byte(text(c.url)), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := d.reload(); (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: %v", c.url, err)
		}
	}
	d.Changed(agent.Change{Time: time.Now(), Messenger: "max", Function: "chat", State: verdict.Blocked, Was: verdict.OK})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	d.notifier.Run(ctx)
	if len(one.all()) != 0 || len(two.all()) != 1 {
		t.Errorf("%d to the old target, %d to the new", len(one.all()), len(two.all()))
	}
}
