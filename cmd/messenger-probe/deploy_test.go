package main

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/messenger-probe/messenger-probe/cmd/internal/config"
	"github.com/messenger-probe/messenger-probe/cmd/internal/metrics"
)

// deployed is where the files for those who run the agent are.
const deployed = "../../deploy"

// tool is the path of a program, by the first of its names that is there. Where
// none is, the test is skipped; the CI script installs them all and says so by
// DEPLOY_REQUIRED=1, and then a missing one is a failure.
func tool(t *testing.T, names ...string) string {
	t.Helper()
	for _, name := range names {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	if os.Getenv("DEPLOY_REQUIRED") == "1" {
		t.Fatalf("%s is not installed", names[0])
	}
	t.Skipf("%s is not installed; Debian has it in prometheus, prometheus-alertmanager, systemd", names[0])
	return ""
}

// command runs a program to its end, in the folder of the deployed files, and
// is its output.
func command(t *testing.T, name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	c := exec.CommandContext(ctx, name, args...)
	c.Dir = deployed
	out, err := c.CombinedOutput()
	if err != nil {
		t.Errorf("%s: %v\n%s", strings.Join(c.Args, " "), err, out)
	}
	return string(out)
}

// Prometheus' own tool takes rules and example, and every case of deploy's
// tests comes out as it is written there.
func TestDeployPromtool(t *testing.T) {
	promtool := tool(t, "promtool")
	command(t, promtool, "check", "config", "prometheus/prometheus.example.yml")
	command(t, promtool, "check", "rules", "--lint-fatal", "prometheus/recording.rules.yml", "prometheus/alerts.rules.yml")
	cases, err := filepath.Glob(deployed + "/prometheus/tests/*.yml")
	if err != nil || len(cases) == 0 {
		t.Fatalf("no rule tests: %v", err)
	}
	for _, file := range cases {
		t.Run(filepath.Base(file), func(t *testing.T) {
			t.Parallel()
			command(t, promtool, "test", "rules", "prometheus/tests/"+filepath.Base(file))
		})
	}
}

// rule is one rule of a Prometheus file.
type rule struct {
	Record, Alert, Expr string
	Labels, Annotations map[string]string
}

func rulesOf(t *testing.T, file string) (all []rule) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(deployed, "prometheus", file))
	if err != nil {
		t.Fatal(err)
	}
	var f struct{ Groups []struct{ Rules []rule } }
	if err := yaml.Unmarshal(text, &f); err != nil {
		t.Fatal(err)
	}
	for _, g := range f.Groups {
		all = append(all, g.Rules...)
	}
	return all
}

// Rules ask only for metrics that the agent has and series that are recorded;
// every alert tells what it means and what to do; every rule has its tests.
func TestDeployRules(t *testing.T) {
	recorded, alerts := rulesOf(t, "recording.rules.yml"), rulesOf(t, "alerts.rules.yml")
	known := map[string]bool{}
	for _, m := range metrics.Table() {
		known[m.Name] = true
		if m.Type == "histogram" {
			known[m.Name+"_bucket"], known[m.Name+"_count"] = true, true
		}
	}
	series := regexp.MustCompile(`[a-z_]*:[a-z_0-9:]+|\bmessenger_probe_[a-z_]+`)
	for _, r := range recorded {
		known[r.Record] = true
	}
	for _, r := range slices.Concat(recorded, alerts) {
		expr := regexp.MustCompile(`"[^"]*"|\[[^\]]*\]`).ReplaceAllString(r.Expr, "")
		for _, name := range series.FindAllString(expr, -1) {
			if !known[name] {
				t.Errorf("%s%s asks for %s, which nobody exports", r.Record, r.Alert, name)
			}
		}
	}

	tests := ""
	files, _ := filepath.Glob(deployed + "/prometheus/tests/*.yml")
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		tests += string(text)
	}
	for _, r := range recorded {
		// Numerators and denominators are tested by the ratios.
		if !strings.Contains(tests, r.Record) && !strings.HasSuffix(r.Record, ":rate5m") {
			t.Errorf("no test of %s", r.Record)
		}
	}
	for _, r := range alerts {
		if !strings.Contains(tests, "alertname: "+r.Alert+"\n") {
			t.Errorf("no test of the texts of %s", r.Alert)
		}
		for _, kind := range []string{"summary", "description", "runbook"} {
			if r.Annotations[kind] == "" {
				t.Errorf("%s has no %s", r.Alert, kind)
			}
		}
		if !slices.Contains([]string{"critical", "warning", "info", "none"}, r.Labels["severity"]) ||
			!slices.Contains([]string{"messenger", "agent"}, r.Labels["about"]) {
			t.Errorf("%s has the labels %v", r.Alert, r.Labels)
		}
	}
}

// Alertmanager's own tool takes the example, and each severity finds its way.
func TestDeployAmtool(t *testing.T) {
	amtool := tool(t, "amtool")
	const file = "alertmanager/alertmanager.example.yml"
	command(t, amtool, "check-config", file)
	for severity, receiver := range map[string]string{"critical": "pager", "warning": "today", "info": "record", "none": "nobody"} {
		command(t, amtool, "config", "routes", "test", "--config.file="+file, "--verify.receivers="+receiver, "severity="+severity)
	}
}

// systemd takes the unit as it is, and finds it well shut in.
func TestDeploySystemd(t *testing.T) {
	analyze := tool(t, "systemd-analyze")
	text, err := os.ReadFile(deployed + "/systemd/messenger-probe.service")
	if err != nil {
		t.Fatal(err)
	}
	// What is verified must be installed; any program stands for ours.
	const installed = "/usr/local/bin/messenger-probe"
	if !bytes.Contains(text, []byte("ExecStart="+installed+" run")) {
		t.Errorf("the unit does not start %s run", installed)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	unit := filepath.Join(t.TempDir(), "messenger-probe.service")
	if err := os.WriteFile(unit, bytes.ReplaceAll(text, []byte(installed), []byte(self)), 0o600); err != nil {
		t.Fatal(err)
	}
	if out := command(t, analyze, "verify", "--man=no", unit); strings.Contains(out, "messenger-probe.service") {
		t.Errorf("systemd complains:\n%s", out)
	}
	// The exposure is told in tenths, from 0 (none) to 100 (all).
	command(t, analyze, "security", "--offline=true", "--threshold=11", unit)
}

// syscalls is the list of what a filter must allow.
func syscalls(t *testing.T) (names []string) {
	t.Helper()
	text, err := os.ReadFile("testdata/syscalls.txt")
	if err != nil {
		t.Fatal(err)
	}
	for l := range strings.Lines(string(text)) {
		if !strings.HasPrefix(l, "#") {
			names = append(names, strings.Fields(l)...)
		}
	}
	return names
}

// The unit's filter lets through what the agent calls, but for the raising of
// its own limits, which it can do without.
func TestDeploySyscalls(t *testing.T) {
	analyze := tool(t, "systemd-analyze")
	text, err := os.ReadFile(deployed + "/systemd/messenger-probe.service")
	if err != nil {
		t.Fatal(err)
	}
	allowed := map[string]bool{}
	var set func(name string, yes bool)
	set = func(name string, yes bool) {
		if !strings.HasPrefix(name, "@") {
			allowed[name] = yes
			return
		}
		for l := range strings.Lines(command(t, analyze, "syscall-filter", name)) {
			if l = strings.TrimSpace(l); l != name && l != "" && !strings.HasPrefix(l, "#") {
				set(l, yes)
			}
		}
	}
	for l := range strings.Lines(string(text)) {
		if names, ok := strings.CutPrefix(strings.TrimSpace(l), "SystemCallFilter="); ok {
			names, no := strings.CutPrefix(names, "~")
			for _, name := range strings.Fields(names) {
				set(name, !no)
			}
		}
	}
	for _, name := range syscalls(t) {
		if !allowed[name] && name != "prlimit64" {
			t.Errorf("the unit's filter refuses %s", name)
		}
	}
}

// What Compose, systemd and Kubernetes hand to the agent is a configuration that
// it takes, and keeps its state where a volume is.
func TestDeployConfigurations(t *testing.T) {
	read := func(t *testing.T, file string) []byte {
		t.Helper()
		text, err := os.ReadFile(filepath.Join(deployed, file))
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	decode := func(t *testing.T, text []byte, into any) {
		t.Helper()
		if err := yaml.Unmarshal(text, into); err != nil {
			t.Fatal(err)
		}
	}
	tests := map[string]func(t *testing.T) (file string, env map[string]string){
		"compose": func(t *testing.T) (string, map[string]string) {
			var f struct {
				Services map[string]struct{ Environment map[string]string }
			}
			decode(t, read(t, "compose.yml"), &f)
			env := f.Services["agent"].Environment
			for k, v := range env { // ${NAME:-default}, where nobody has set NAME
				env[k] = regexp.MustCompile(`\$\{\w+:-(.*)\}`).ReplaceAllString(v, "$1")
			}
			return "", env
		},
		"systemd": func(t *testing.T) (string, map[string]string) {
			env := map[string]string{"MESSENGER_PROBE_LISTEN": ""}
			for _, m := range regexp.MustCompile(`(?m)^Environment=(\w+)=(.*)$`).FindAllStringSubmatch(string(read(t, "systemd/messenger-probe.service")), -1) {
				env[m[1]] = m[2]
			}
			return "", env
		},
		"kubernetes": func(t *testing.T) (string, map[string]string) {
			file := filepath.Join(t.TempDir(), "config.yaml")
			for doc := range bytes.SplitSeq(read(t, "kubernetes/deployment.yaml"), []byte("\n---\n")) {
				var m struct{ Data map[string]string }
				decode(t, doc, &m)
				if text, ok := m.Data["config.yaml"]; ok {
					if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
						t.Fatal(err)
					}
				}
			}
			return file, nil
		},
	}
	for name, given := range tests {
		t.Run(name, func(t *testing.T) {
			t.Setenv("XDG_CONFIG_HOME", t.TempDir())
			for _, kv := range os.Environ() {
				if name, _, _ := strings.Cut(kv, "="); strings.HasPrefix(name, config.Prefix) {
					t.Setenv(name, "")
					os.Unsetenv(name)
				}
			}
			file, env := given(t)
			for k, v := range env {
				t.Setenv(k, v)
			}
			c, err := config.Load(file, nil)
			if err != nil {
				t.Fatal(err)
			}
			if c.StateDir != "/var/lib/messenger-probe" {
				t.Errorf("the state is in %q", c.StateDir)
			}
			want := ":9770" // the container's port is opened by whoever runs it
			if name == "systemd" {
				want = "127.0.0.1:9770"
			}
			if c.Listen != want {
				t.Errorf("it listens on %q, want %q", c.Listen, want)
			}
		})
	}
}
