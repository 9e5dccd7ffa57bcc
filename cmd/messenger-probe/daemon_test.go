package main

import (
	"context"
	"crypto/tls"
	"encoding/pem"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spf13/cobra"

	"github.com/messenger-probe/messenger-probe/cmd/internal/agent"
	"github.com/messenger-probe/messenger-probe/cmd/internal/config"
	"github.com/messenger-probe/messenger-probe/cmd/internal/events"
	"github.com/messenger-probe/messenger-probe/cmd/internal/metrics"
	"github.com/messenger-probe/messenger-probe/cmd/internal/page"
	"github.com/messenger-probe/messenger-probe/probe"
	"github.com/messenger-probe/messenger-probe/probe/probetest"
	"github.com/messenger-probe/messenger-probe/probe/verdict"
)

// write makes a file and gives its path.
func write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// loaded is the configuration that a file makes.
func loaded(t *testing.T, text string) *config.Loaded {
	t.Helper()
	cfg, err := config.Load(write(t, "config.yaml", text), nil)
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// quiet is a daemon that is wired and asks nobody.
func quiet(t *testing.T, text string) *daemon {
	t.Helper()
	p := &program{stdout: io.Discard, stderr: io.Discard, file: write(t, "config.yaml", text)}
	d := &daemon{program: p, cmd: &cobra.Command{}, log: slog.New(slog.DiscardHandler), metrics: metrics.New(metrics.Options{})}
	cfg, err := d.load(d.cmd)
	if err != nil {
		t.Fatal(err)
	}
	pl, err := plan(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if d.events, err = events.Open("", nil); err != nil {
		t.Fatal(err)
	}
	d.recollect("")
	d.plan.Store(pl)
	d.notifier = d.newNotifier(cfg)
	d.agent = agent.New(agent.Options{Net: &probe.Host{}, Sink: d, Log: d.log})
	d.adopt(pl, nil)
	return d
}

func scraped(t *testing.T, d *daemon) string {
	t.Helper()
	w := httptest.NewRecorder()
	d.metrics.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	return w.Body.String()
}

// The default configuration becomes checks that trust what they should.
func TestPlan(t *testing.T) {
	ca := probetest.NewCA(t, "root")
	roots := write(t, "ca.pem", string(ca.PEM()))
	root := strings.Repeat("ab", 32)
	pl, err := plan(loaded(t, "interval: 30s\ntimeout: 5s\nfamilies: [ip4]\ntrust: {ca_file: "+roots+", whatsapp_noise_root: "+root+"}\n"))
	if err != nil {
		t.Fatal(err)
	}
	if len(pl.checks) < 500 || pl.catalogue == "" || len(pl.missing) > 0 {
		t.Errorf("%d checks, catalogue %q, missing %v", len(pl.checks), pl.catalogue, pl.missing)
	}
	functions := map[string]bool{}
	trusting, noisy := 0, 0
	for _, c := range pl.checks {
		functions[c.Messenger+" "+c.Function] = true
		if c.Interval < 30*time.Second || c.Interval%(30*time.Second) != 0 || c.Timeout <= 0 || c.Timeout > 5*time.Second || c.Family != probe.IP4 {
			t.Errorf("%s: every %v for %v over %s", c.ID(), c.Interval, c.Timeout, c.Family)
		}
		v := reflect.ValueOf(probe.Bare(c.Prober))
		if f := v.FieldByName("Trust"); f.IsValid() {
			trust := f.Interface().(*probe.Trust)
			if trust == nil || trust.Any || trust.Roots == nil {
				t.Fatalf("%s trusts %+v", c.ID(), trust)
			}
			trusting++
		}
		if n, ok := v.Interface().(probe.Noise); ok {
			noisy++
			if n.Root[0] != 0xab {
				t.Errorf("%s: root key %x", c.ID(), n.Root)
			}
		}
	}
	if trusting == 0 || noisy == 0 {
		t.Errorf("%d checks with trust, %d noise", trusting, noisy)
	}
	for _, f := range []string{"whatsapp chat", "whatsapp calls", "whatsapp media", "whatsapp web", "whatsapp login", "telegram chat", "telegram calls",
		"telegram media", "telegram web", "telegram bots", "max chat", "max calls", "max media", "max web", "max bots"} {
		if !functions[f] {
			t.Errorf("nothing is asked for %s", f)
		}
	}
	for name, text := range map[string]string{
		"no certificate in the file": "trust: {ca_file: " + write(t, "empty.pem", "hello") + "}",
		"no such messenger":          "messengers: [icq]",
		"a catalogue that is none":   "catalogue: " + filepath.Dir(write(t, "a.yaml", "messenger: [")),
	} {
		if _, err := plan(loaded(t, text)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// What cannot change while the agent runs is refused, and the old stays, all of
// it; what can is taken over.
func TestReload(t *testing.T) {
	d := quiet(t, "messengers: [telegram]\nstate_dir: /nowhere\n")
	before := d.plan.Load()
	for _, text := range []string{
		"messengers: [telegram]\nstate_dir: /elsewhere\n",
		"messengers: [telegram]\nstate_dir: /nowhere\nlisten: 127.0.0.1:1\n",
		"messengers: [telegram]\nstate_dir: /nowhere\nvantage: {country: RU}\n",
		"messengers: [telegram]\nstate_dir: /nowhere\nlog: {level: debug}\n",
		"messengers: [icq]\nstate_dir: /nowhere\n",
		"intervall: 1s\n",
		"{",
	} {
		os.WriteFile(d.file, []byte(text), 0o600)
		if err := d.reload(); err == nil {
			t.Errorf("%q: reloaded", text)
		}
		if d.plan.Load() != before {
			t.Errorf("%q: the plan changed", text)
		}
		if !strings.Contains(scraped(t, d), "\nmessenger_probe_config_last_reload_successful 0\n") {
			t.Errorf("%q: no metric says so", text)
		}
	}
	os.WriteFile(d.file, []byte("messengers: [max]\nstate_dir: /nowhere\ninterval: 2m\n"), 0o600)
	if err := d.reload(); err != nil {
		t.Fatal(err)
	}
	text := scraped(t, d)
	if !strings.Contains(text, "\nmessenger_probe_config_last_reload_successful 1\n") || strings.Contains(text, `messenger="telegram"`) ||
		!strings.Contains(text, `messenger="max"`) {
		t.Errorf("after a reload to max alone:\n%.2000s", text)
	}
}

// The agent is ready when it has judged, and healthy while results come in.
func TestReadyAndHealthy(t *testing.T) {
	d := quiet(t, "messengers: [max]\n")
	v := verdict.Verdict{Messenger: "max", Function: "chat", State: verdict.Unknown}
	d.Judged(agent.Snapshot{Vantage: verdict.Vantage{State: verdict.Impaired}, Verdicts: []verdict.Verdict{v}})
	if d.ready.Load() {
		t.Error("ready before anything was asked")
	}
	v.State = verdict.OK
	d.Judged(agent.Snapshot{Vantage: verdict.Vantage{State: verdict.Online}, Verdicts: []verdict.Verdict{v}})
	if !d.ready.Load() {
		t.Error("not ready although it has judged")
	}
	ill := quiet(t, "messengers: [max]\n")
	ill.Judged(agent.Snapshot{Vantage: verdict.Vantage{State: verdict.Offline}, Measured: true})
	if !ill.ready.Load() {
		t.Error("a vantage that is known to be ill is not ready: it would never be")
	}
	synctest.Test(t, func(t *testing.T) {
		d.Record(probe.Result{Check: d.plan.Load().checks[0], Start: time.Now(), Steps: []probe.Step{{Op: probe.OpResolve}}})
		time.Sleep(3 * time.Minute)
		if !d.healthy() {
			t.Error("not healthy although a result came three minutes ago")
		}
		time.Sleep(15 * time.Second)
		if d.healthy() {
			t.Error("healthy without any result in three intervals")
		}
	})
}

// A block is counted when it begins, apart from one that comes back, and told in
// the log of events.
func TestChanged(t *testing.T) {
	d := quiet(t, "messengers: [max]\n")
	at := time.Date(2026, 11, 22, 0, 0, 0, 500, time.UTC)
	for _, c := range []agent.Change{
		{Time: at, Messenger: "max", Function: "chat", State: verdict.Degraded, Was: verdict.OK},
		{Time: at, Messenger: "max", Function: "chat", State: verdict.Blocked, Was: verdict.Degraded, Onset: at.Add(-time.Minute), Mechanism: verdict.IPBlock},
		{Time: at, Messenger: "max", Function: "chat", State: verdict.OK, Was: verdict.Blocked},
		{Time: at, Messenger: "max", Function: "chat", State: verdict.Blocked, Was: verdict.OK, Relapse: true},
	} {
		d.Changed(c)
	}
	d.Confirming("max")
	text := scraped(t, d)
	for _, want := range []string{`messenger_probe_onsets_total{function="chat",messenger="max"} 1`, `messenger_probe_relapses_total{function="chat",messenger="max"} 1`,
		`messenger_probe_confirmation_checks_total{messenger="max"} 1`} {
		if !strings.Contains(text, want+"\n") {
			t.Errorf("no %s", want)
		}
	}
	var log strings.Builder
	if err := d.events.Write(&log); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(log.String(), `"messenger"`); n != 4 || !strings.Contains(log.String(), `2026-11-21T23:59:00Z`) {
		t.Errorf("%d events:\n%s", n, log.String())
	}
}

// The document and the page are of one mind, before anything was measured, too.
func TestDocumentAndPage(t *testing.T) {
	d := quiet(t, "messengers: [max, telegram]\n")
	doc, view := d.document(), d.view()
	if doc.Vantage.State != verdict.Impaired || view.Vantage.State != verdict.Impaired || doc.Vantage.Network != "unknown" || doc.Time.IsZero() {
		t.Errorf("%+v\n%+v", doc.Vantage, view.Vantage)
	}
	n := 0
	for _, m := range view.Messengers {
		if m.Title != "MAX" && m.Title != "Telegram" {
			t.Errorf("a messenger named %q", m.Title)
		}
		for _, f := range m.Functions {
			if v := doc.Verdicts[n]; v.Messenger != m.Name || v.Function != f.Name || v.State != f.State || v.State != verdict.Unknown {
				t.Errorf("%+v and %+v", v, f)
			}
			n++
		}
	}
	if n != len(doc.Verdicts) || n < 8 || len(view.Messengers) != 2 {
		t.Errorf("%d rows of %d messengers, %d verdicts", n, len(view.Messengers), len(doc.Verdicts))
	}
}

// What the agent finds is what the page remembers, void results and controls
// apart; and it is there again after a restart.
func TestPageRemembers(t *testing.T) {
	dir := t.TempDir()
	d := quiet(t, "messengers: [max]\nstate_dir: "+dir+"\n")
	d.recollect(dir)
	now := time.Now()
	result := func(messenger, protocol string, failure probe.Failure, void probe.Reason) probe.Result {
		return probe.Result{Check: probe.Check{Messenger: messenger, Function: "chat", Protocol: protocol}, Start: now, Took: 80 * time.Millisecond,
			Void: void, Steps: []probe.Step{{Op: probe.OpConnect, Failure: failure}}}
	}
	for range 3 {
		d.Record(result("max", "tls", "", ""))
	}
	d.Record(result("max", "tls", probe.FailureTimeout, ""))
	d.Record(result("max", "tls", probe.FailureTimeout, probe.ReasonOffline))
	d.Record(result(probe.Control, "tls", "", ""))
	d.Judged(agent.Snapshot{Verdicts: []verdict.Verdict{{Messenger: "max", Function: "chat", State: verdict.Degraded}}})
	d.Changed(agent.Change{Time: now, Messenger: "max", Function: "chat", State: verdict.Blocked, Was: verdict.OK, Mechanism: verdict.SNIDrop})
	d.Changed(agent.Change{Time: now, Messenger: "max", Function: "chat", State: verdict.Unknown, Was: verdict.Blocked})
	d.save()
	if c := d.view().Changes; len(c) != 1 || c[0].Messenger != "MAX" || c[0].Mechanism != verdict.SNIDrop {
		t.Errorf("changes %+v", c)
	}
	look := func(d *daemon) page.Function {
		v := d.view()
		i := slices.IndexFunc(v.Messengers[0].Functions, func(f page.Function) bool { return f.Name == "chat" })
		return v.Messengers[0].Functions[i]
	}
	again := quiet(t, "messengers: [max]\n")
	again.recollect(dir)
	for _, f := range []page.Function{look(d), look(again)} {
		if len(f.Day) != 48 || len(f.Week) != 168 {
			t.Fatalf("%d and %d cells", len(f.Day), len(f.Week))
		}
		for _, c := range []page.Cell{f.Day[47], f.Week[167]} {
			if c.OK != 3 || c.Fail != 1 || c.State != verdict.Degraded || c.Median < 75*time.Millisecond || c.Median > 85*time.Millisecond {
				t.Errorf("%+v", c)
			}
		}
		if c := f.Day[46]; c.OK+c.Fail > 0 || c.State != "" {
			t.Errorf("%+v", c)
		}
	}
}

// An address of a resolver is not shown, that of a messenger is.
func TestEndpointsOfThePage(t *testing.T) {
	at := netip.MustParseAddrPort("192.0.2.7:443")
	of := func(endpoint, protocol string, failure probe.Failure) probe.Result {
		return probe.Result{Check: probe.Check{Messenger: "max", Function: "chat", Endpoint: endpoint, Protocol: protocol, Family: "ip4"},
			Steps: []probe.Step{{Op: probe.OpConnect, Addr: at, Failure: failure}}}
	}
	got := endpoints([]probe.Result{of("a", "tls", ""), of("b", "dns", probe.FailureTimeout), of("b", "tls", probe.FailureTimeout), of("b", "tls", "")})
	want := map[[2]string][]page.Endpoint{{"max", "chat"}: {
		{Name: "b", OK: 1, Fail: 2, Failing: []page.Failing{
			{Check: "dns", Family: "ip4", Operation: probe.OpConnect, Failure: probe.FailureTimeout},
			{Check: "tls", Family: "ip4", Address: "192.0.2.7:443", Operation: probe.OpConnect, Failure: probe.FailureTimeout}}},
		{Name: "a", OK: 1}}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%+v", got)
	}
}

// A health check asks whoever listens, whatever it speaks, and not for long.
func TestAskHealth(t *testing.T) {
	answers := func(status int) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/-/healthy" {
				status = http.StatusNotFound
			}
			w.WriteHeader(status)
		}
	}
	at := func(status int) string {
		s := httptest.NewServer(answers(status))
		t.Cleanup(s.Close)
		return s.Listener.Addr().String()
	}
	secure := httptest.NewUnstartedServer(answers(200))
	secure.TLS = &tls.Config{Certificates: []tls.Certificate{probetest.SelfSigned(t, "agent.test")}}
	secure.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	secure.StartTLS()
	t.Cleanup(secure.Close)
	_, port, _ := net.SplitHostPort(at(200))
	for _, tt := range []struct {
		name, listen string
		guarded, ok  bool
	}{
		{"well", at(200), false, true},
		{"not well", at(503), false, false},
		{"another server", at(404), false, false},
		{"wants a password", at(401), true, true},
		{"wants a password that nobody set", at(401), false, false},
		{"tls", secure.Listener.Addr().String(), true, true},
		{"web configuration without tls", at(200), true, true},
		{"nobody", probetest.Refused(t).String(), true, false},
		{"mute", probetest.ServeTCP(t, probetest.Stall).String(), false, false},
		{"babble", probetest.ServeTCP(t, probetest.Answer([]byte("hello\r\n\r\n"))).String(), false, false},
		{"all addresses", ":" + port, false, true},
		{"all addresses of a family", "0.0.0.0:" + port, false, true},
		{"no address", "nowhere", false, false},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		began := time.Now()
		err := askHealth(ctx, tt.listen, tt.guarded)
		cancel()
		if (err == nil) != tt.ok || time.Since(began) > 5*time.Second {
			t.Errorf("%s: %v after %v", tt.name, err, time.Since(began))
		}
	}
}

// Whatever is wrong has the exit code of the contract, and one line that says
// whose error it is.
func TestExitCodes(t *testing.T) {
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	bad := write(t, "bad.yaml", "interval: soon\n")
	good := write(t, "good.yaml", "interval: 30s\n")
	var block strings.Builder
	pem.Encode(&block, &pem.Block{Type: "CERTIFICATE", Bytes: []byte("no certificate")})
	for _, tt := range []struct {
		args string
		code int
	}{
		{"version", 0}, {"config --check --config " + good, 0}, {"targets list", 0}, {"--help", 0},
		{"config --check --config " + bad, 2}, {"run --config " + bad, 2}, {"check --config " + bad, 2}, {"check icq", 2},
		{"config --check --config " + write(t, "ca.yaml", "trust: {ca_file: "+write(t, "ca.pem", block.String())+"}\n"), 2},
		{"healthcheck --config " + write(t, "h.yaml", "listen: "+probetest.Refused(t).String()+"\n"), 1},
		{"targets validate " + bad, 2}, {"targets validate", 2}, {"nonsense", 2}, {"run --nonsense", 2}, {"replay", 2}, {"replay /nowhere.jsonl", 2},
		{"version --output xml", 2},
	} {
		var out, errs strings.Builder
		got := run(t.Context(), strings.Fields(tt.args), &out, &errs)
		if got != tt.code {
			t.Errorf("%s: %d, want %d: %s", tt.args, got, tt.code, errs.String())
		}
		if said := errs.String(); tt.code != 0 && (!strings.HasPrefix(said, "messenger-probe: ") || out.Len() > 0) || tt.code == 0 && said != "" {
			t.Errorf("%s: out %q, err %q", tt.args, out.String(), said)
		}
	}
}
