package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/messenger-probe/messenger-probe/cmd/internal/metrics"
	"github.com/messenger-probe/messenger-probe/probe"
)

// The whole way from what agents export to what people get, through a real
// Prometheus and a real Alertmanager on loopback, with the deployed rules and
// example configurations, only faster: a block arrives; a vantage that goes
// offline, one that is ill and cries block, an agent that dies and a scrape that
// fails do not. What has a `for` of minutes is left to promtool.
func TestDeployAlertsArrive(t *testing.T) {
	prometheus, alertmanager := tool(t, "prometheus"), tool(t, "alertmanager", "prometheus-alertmanager")

	// Some 15 s by itself; the machine may be busy.
	deadline := time.Now().Add(80 * time.Second)
	hook := webhook{deadline: deadline}
	people := httptest.NewServer(&hook)
	defer people.Close()
	blocked, offline, crying, dying, abroad := newPlayer(t, "blocked", "RU"), newPlayer(t, "offline", "RU"),
		newPlayer(t, "crying", "RU"), newPlayer(t, "dying", "RU"), newPlayer(t, "abroad", "DE")
	players := []*player{blocked, offline, crying, dying, abroad}

	am := startAlertmanager(t, alertmanager, people.URL)
	prom := startPrometheus(t, prometheus, am, players)
	// until waits for what Prometheus answers; checks go on meanwhile.
	until := func(what, expr string, n int) {
		t.Helper()
		for {
			for _, p := range players {
				p.work()
			}
			got, err := prom.query(expr)
			if err == nil && len(got) == n {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s: %s has %v, %v; want %d", what, expr, got, err, n)
			}
			time.Sleep(200 * time.Millisecond)
		}
	}
	const firing = `ALERTS{alertstate="firing",alertname=%q,instance=%q}`

	until("all are scraped", `messenger_probe_vantage_state{state="online"} == 1`, len(players))
	until("ratios are recorded", `country_network_messenger_function:messenger_probe_check_success:ratio_rate5m`, 6)

	// The outages, all at once.
	offline.SetVantageState("offline")
	offline.SetVerdict("telegram", "chat", "unknown", "", "", time.Now())
	crying.SetVantageState("impaired")
	crying.SetVerdict("telegram", "chat", "blocked", "ip_block", "low", time.Now())
	crying.Onset("telegram", "chat")
	dying.Close()
	until("the offline vantage is seen", fmt.Sprintf(firing, "MessengerProbeVantageIll", offline.address()), 1)
	until("the impaired vantage is seen", fmt.Sprintf(firing, "MessengerProbeVantageIll", crying.address()), 1)
	until("the dead agent is seen", fmt.Sprintf(`up{instance=%q} == 0`, dying.address()), 1)

	// The block.
	blocked.failing.Store(true)
	blocked.SetVerdict("telegram", "chat", "blocked", "port_block", "high", time.Now())
	blocked.SetBlockEvidence("telegram", "conn", 20)
	blocked.Onset("telegram", "chat")
	hook.await(t, 1)

	// One scrape that fails is no end, and no new begin.
	blocked.broken.Store(true)
	until("a scrape fails", fmt.Sprintf(`up{instance=%q} == 0`, blocked.address()), 1)
	blocked.broken.Store(false)
	until("it is back", fmt.Sprintf(`up{instance=%q} == 1`, blocked.address()), 1)
	until("it goes on", fmt.Sprintf(firing, "MessengerBlocked", blocked.address()), 1)

	for _, rule := range rulesOf(t, "recording.rules.yml") {
		until("it is recorded", "count("+rule.Record+")", 1)
	}
	// Nor is a panel of Grafana's empty, nor an example of the papers.
	for _, q := range questions(t, blocked.address()) {
		if q.when != lifted {
			until(q.String(), q.some(), 1)
		}
	}
	prom.healthy(t)

	// Alertmanager alone: two equal cries, one from a vantage that it knows to be
	// ill; and what it told already, once that vantage is ill.
	free := "free:9770"
	am.post(t, []map[string]any{
		{"labels": map[string]string{"alertname": "MessengerBlocked", "severity": "critical", "about": "messenger", "country": "KZ", "messenger": "max",
			"job": "messenger-probe", "instance": crying.address()}},
		{"labels": map[string]string{"alertname": "MessengerBlocked", "severity": "critical", "about": "messenger", "country": "KZ", "messenger": "max",
			"job": "messenger-probe", "instance": free}},
	})
	hook.await(t, 2)
	blocked.SetVantageState("offline")
	until("the blocked vantage is ill", fmt.Sprintf(firing, "MessengerProbeVantageIll", blocked.address()), 1)
	am.suppressed(t, blocked.address())

	got := hook.all()
	if len(got) != 2 {
		t.Fatalf("%d notifications, want 2: %+v", len(got), got)
	}
	for i, instance := range []string{blocked.address(), free} {
		n := got[i]
		if n.path != "/pager" || n.Status != "firing" || len(n.Alerts) != 1 || n.Alerts[0].Labels["instance"] != instance {
			t.Errorf("notification %d is not the one of %s: %+v", i, instance, n)
		}
	}
	a := got[0].Alerts[0]
	for label, want := range map[string]string{"alertname": "MessengerBlocked", "messenger": "telegram", "function": "chat",
		"severity": "critical", "vantage": "blocked", "country": "RU", "network": "mobile"} {
		if a.Labels[label] != want {
			t.Errorf("label %s is %q, want %q", label, a.Labels[label], want)
		}
	}
	if want := "port_block, confidence high"; !strings.Contains(a.Annotations["description"], want) {
		t.Errorf("the description %q does not say %q", a.Annotations["description"], want)
	}
	if a.Annotations["runbook"] == "" || a.Annotations["summary"] != "telegram chat is blocked at blocked" {
		t.Errorf("annotations %q", a.Annotations)
	}
}

// player plays an agent: real metrics, told by the test.
type player struct {
	*metrics.Metrics
	*httptest.Server
	broken  atomic.Bool // answers scrapes with an error
	failing atomic.Bool // its chats fail
}

var played = []probe.Check{
	{Messenger: "telegram", Function: "chat", Endpoint: "dc2", Protocol: probe.ProtoTCP, Family: probe.IP4,
		Prober: probe.TCP{Addr: netip.MustParseAddrPort("127.0.0.1:443")}},
	{Messenger: "telegram", Function: "calls", Endpoint: "relay", Protocol: probe.ProtoTCP, Family: probe.IP4,
		Prober: probe.TCP{Addr: netip.MustParseAddrPort("127.0.0.2:443")}},
	{Messenger: probe.Control, Function: probe.Foreign, Endpoint: "example.com", Protocol: probe.ProtoTCP, Family: probe.IP4,
		Prober: probe.TCP{Addr: netip.MustParseAddrPort("127.0.0.3:443")}},
}

func newPlayer(t *testing.T, name, country string) *player {
	p := &player{Metrics: metrics.New(metrics.Options{
		Version: "1.2.3", Catalogue: time.Now().UTC().Format("2006-01") + "-0a1b2c3d",
		Vantage: metrics.Vantage{Name: name, Country: country, ASN: "AS64500", Network: "mobile"},
	})}
	p.SetChecks(played)
	p.SetVantageState("online")
	p.SetVantageClean(true)
	p.SetVantageSees(map[string]bool{"sni_drop": country == "RU"})
	for _, c := range played {
		p.SetVerdict(c.Messenger, c.Function, "ok", "", "", time.Now())
	}
	h := p.Handler()
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if p.broken.Load() {
			http.Error(w, "no", http.StatusServiceUnavailable)
			return
		}
		h.ServeHTTP(w, r)
	}))
	t.Cleanup(p.Close)
	return p
}

func (p *player) address() string { return p.Listener.Addr().String() }

// work is a round of checks.
func (p *player) work() {
	for _, c := range played {
		s := probe.Step{Op: probe.OpConnect, Took: time.Millisecond}
		if p.failing.Load() && c.Function == "chat" {
			s.Failure = probe.FailureTimeout
		}
		p.Record(probe.Result{Check: c, Start: time.Now(), Steps: []probe.Step{s}, Sent: 100, Received: 100})
		p.ObserveLag(time.Millisecond)
	}
}

// notification is what Alertmanager posts to a webhook.
type notification struct {
	path   string
	Status string
	Alerts []struct{ Labels, Annotations map[string]string }
}

// webhook keeps what it is sent.
type webhook struct {
	deadline time.Time

	mu   sync.Mutex
	kept []notification
}

func (h *webhook) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	n := notification{path: r.URL.Path}
	if err := json.NewDecoder(io.LimitReader(r.Body, 1<<20)).Decode(&n); err != nil {
		n.Status = err.Error()
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.kept = append(h.kept, n)
}

func (h *webhook) all() []notification {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.kept)
}

// await waits until n notifications have come.
func (h *webhook) await(t *testing.T, n int) {
	t.Helper()
	for ; len(h.all()) < n; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(h.deadline) {
			t.Fatalf("%d notifications, want %d: %+v", len(h.all()), n, h.all())
		}
	}
}

// service is a program that serves HTTP until the test ends.
type service struct {
	url  string
	http *http.Client // nil: of this process's own network
}

// serve starts a program with a free port, and waits until it is ready.
func serve(t *testing.T, path, listen string, args ...string) service {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	var log bytes.Buffer
	c := exec.Command(path, append(args, listen+"="+address)...)
	c.Stdout, c.Stderr = &log, &log
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Process.Kill()
		c.Wait()
		if t.Failed() {
			t.Logf("%s said:\n%s", filepath.Base(path), log.String())
		}
	})
	s := service{url: "http://" + address}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if err := s.get("/-/ready", nil); err == nil {
			return s
		} else if time.Now().After(deadline) {
			t.Fatalf("%s is not ready: %v", filepath.Base(path), err)
		}
	}
}

// get decodes the JSON of a path.
func (s service) get(path string, into any) error {
	resp, err := cmp.Or(s.http, http.DefaultClient).Get(s.url + path)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", path, resp.Status)
	}
	if into == nil {
		return nil
	}
	return json.NewDecoder(io.LimitReader(resp.Body, 4<<20)).Decode(into)
}

// example is a deployed YAML file, changed and written elsewhere.
func example(t *testing.T, file string, change func(map[string]any)) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(deployed, file))
	if err != nil {
		t.Fatal(err)
	}
	var doc map[string]any
	if err := yaml.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	change(doc)
	if text, err = yaml.Marshal(doc); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), filepath.Base(file))
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func startAlertmanager(t *testing.T, path, people string) service {
	t.Helper()
	config := example(t, "alertmanager/alertmanager.example.yml", func(doc map[string]any) {
		maps.Copy(doc["route"].(map[string]any), map[string]any{"group_wait": "1s", "group_interval": "1s"})
		for _, r := range doc["receivers"].([]any) {
			hooks, _ := r.(map[string]any)["webhook_configs"].([]any)
			for _, h := range hooks {
				h := h.(map[string]any)
				u, err := url.Parse(h["url"].(string))
				if err != nil {
					t.Fatal(err)
				}
				h["url"] = people + u.Path
			}
		}
	})
	return serve(t, path, "--web.listen-address", "--config.file="+config, "--storage.path="+t.TempDir(), "--cluster.listen-address=")
}

func startPrometheus(t *testing.T, path string, am service, players []*player) service {
	t.Helper()
	var addresses []string
	for _, p := range players {
		addresses = append(addresses, p.address())
	}
	config := prometheusConfig(t, strings.TrimPrefix(am.url, "http://"), addresses...)
	return serve(t, path, "--web.listen-address", "--config.file="+config, "--storage.tsdb.path="+t.TempDir())
}

// prometheusConfig is the deployed example, only faster, for these agents.
func prometheusConfig(t *testing.T, alertmanager string, agents ...string) string {
	t.Helper()
	return example(t, "prometheus/prometheus.example.yml", func(doc map[string]any) {
		maps.Copy(doc["global"].(map[string]any), map[string]any{"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"})
		for i, file := range doc["rule_files"].([]any) {
			absolute, err := filepath.Abs(filepath.Join(deployed, "prometheus", file.(string)))
			if err != nil {
				t.Fatal(err)
			}
			doc["rule_files"].([]any)[i] = absolute
		}
		static := func(in any, targets ...string) {
			in.(map[string]any)["static_configs"] = []map[string]any{{"targets": targets}}
		}
		static(doc["alerting"].(map[string]any)["alertmanagers"].([]any)[0], alertmanager)
		static(doc["scrape_configs"].([]any)[0], agents...)
		doc["scrape_configs"] = doc["scrape_configs"].([]any)[:1]
	})
}

// query is the series that an expression has now.
func (s service) query(expr string) (series []map[string]string, err error) {
	var answer struct {
		Data struct {
			Result []struct{ Metric map[string]string }
		}
	}
	err = s.get("/api/v1/query?query="+url.QueryEscape(expr), &answer)
	for _, r := range answer.Data.Result {
		series = append(series, r.Metric)
	}
	return series, err
}

// healthy says that Prometheus evaluates every rule without an error.
func (s service) healthy(t *testing.T) {
	t.Helper()
	var answer struct {
		Data struct {
			Groups []struct {
				Rules []struct{ Name, Health, LastError string }
			}
		}
	}
	if err := s.get("/api/v1/rules", &answer); err != nil {
		t.Error(err)
	}
	n := 0
	for _, g := range answer.Data.Groups {
		for _, r := range g.Rules {
			if n++; r.Health != "ok" {
				t.Errorf("rule %s is %s: %s", r.Name, r.Health, r.LastError)
			}
		}
	}
	if want := len(rulesOf(t, "recording.rules.yml")) + len(rulesOf(t, "alerts.rules.yml")); n != want {
		t.Errorf("%d rules, want %d", n, want)
	}
}

// post sends alerts to Alertmanager.
func (s service) post(t *testing.T, alerts []map[string]any) {
	t.Helper()
	body, err := json.Marshal(alerts)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.Post(s.url+"/api/v2/alerts", "application/json", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("alerts are answered with %s", resp.Status)
	}
}

// suppressed waits until Alertmanager inhibits the block that an instance cries.
func (s service) suppressed(t *testing.T, instance string) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(200 * time.Millisecond) {
		var alerts []struct {
			Status struct {
				State       string
				InhibitedBy []string
			}
		}
		err := s.get("/api/v2/alerts?filter="+url.QueryEscape(fmt.Sprintf(`instance=%q`, instance))+"&filter="+
			url.QueryEscape(`alertname="MessengerBlocked"`), &alerts)
		if err == nil && len(alerts) == 1 && alerts[0].Status.State == "suppressed" && len(alerts[0].Status.InhibitedBy) > 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the block of %s is not inhibited: %+v, %v", instance, alerts, err)
		}
	}
}
