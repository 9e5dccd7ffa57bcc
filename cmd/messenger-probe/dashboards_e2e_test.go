//go:build linux

package main

import (
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/messenger-probe/messenger-probe/cmd/internal/netlab"
)

// filtered is a positive control that is filtered: this vantage sees it.
const filtered = `messenger: control
endpoints:
  - {name: filtered, function: positive, mechanism: sni_drop, tier: core, host: filtered.test, ports: [443],
     checks: [dns, tcp, tls], confidence: high, source: [dashboards_e2e_test.go], confirmed: 2026-11}
`

// The agent is measured by a real Prometheus with the deployed rules, beside it
// in its namespace, while a block comes and goes: nothing that a dashboard shows
// or a paper asks is empty then.
func (w *world) testDashboards(t *testing.T) {
	t.Parallel()
	prometheus := tool(t, "prometheus")
	usual := netlab.Rule{Proto: netlab.TCP, Names: []string{"filtered.test"}, Do: netlab.Drop}
	v := w.vantage(t, usual)
	catalogue := filepath.Join(w.Dir, "catalogue-of-dashboards")
	for _, name := range []string{"lab.yaml", "control.yaml", "a-embedded.yaml", "a-resolvers.yaml"} {
		w.lay(t, catalogue, name, read(t, filepath.Join(w.catalogue, name)))
	}
	w.lay(t, catalogue, "filtered.yaml", filtered)
	d := w.start(t, v, v.Unprivileged(w.bin, "run"), "MESSENGER_PROBE_CATALOGUE="+catalogue,
		"MESSENGER_PROBE_VANTAGE_NAME=lab-1", "MESSENGER_PROBE_VANTAGE_COUNTRY=RU",
		"MESSENGER_PROBE_VANTAGE_ASN=AS64500", "MESSENGER_PROBE_VANTAGE_NETWORK=datacenter")

	const agent = "127.0.0.1:9770"
	prom := service{"http://127.0.0.1:9090", &http.Client{Transport: &http.Transport{DialContext: v.DialContext, DisableKeepAlives: true}, Timeout: 5 * time.Second}}
	c := v.Command(prometheus, "--web.listen-address=127.0.0.1:9090", "--storage.tsdb.path="+t.TempDir(),
		"--config.file="+prometheusConfig(t, "127.0.0.1:9093", agent))
	log := &buffer{}
	c.Stdout, c.Stderr = log, log
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Process.Kill()
		c.Wait()
		if t.Failed() {
			t.Logf("Prometheus said:\n%s", log)
		}
	})
	await := func(what, expr string, n int, within time.Duration) {
		t.Helper()
		start := time.Now()
		for {
			got, err := prom.query(expr)
			if err == nil && len(got) == n {
				return
			}
			if time.Since(start) > within {
				t.Fatalf("%s: not within %v: %s has %v, %v; want %d", what, within, expr, got, err, n)
			}
			time.Sleep(200 * time.Millisecond)
		}
	}
	await("all is well", `messenger_probe_function_state{state="ok"} == 1`, len(functions), 60*time.Second)

	v.Box.Set(usual, netlab.Rule{Hosts: dcs, Do: netlab.Drop})
	await("the block is seen", `messenger_probe_function_state{function="chat",state="blocked"} == 1`, 1, 60*time.Second)
	asked := questions(t, agent)
	for _, q := range asked {
		if q.when != lifted {
			await(q.where, q.some(), 1, 30*time.Second)
		}
	}
	prom.healthy(t)

	v.Box.Set(usual)
	await("its end is seen", `messenger_probe_function_state{function="chat",state="ok"} == 1`, 1, 60*time.Second)
	for _, q := range asked {
		if q.when == lifted {
			await(q.where, q.some(), 1, 30*time.Second)
		}
	}
	if titles := slices.DeleteFunc(asked, func(q question) bool { return !strings.Contains(q.where, "Recoveries") }); len(titles) != 2 {
		t.Errorf("recoveries are drawn in %d dashboards, want 2", len(titles))
	}
	d.stop(t)
}
