//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/messenger-probe/messenger-probe/cmd/internal/confine"
	"github.com/messenger-probe/messenger-probe/cmd/internal/netlab"
)

// A daemonUnderTest is a `run` in a vantage.
type daemonUnderTest struct {
	v     *netlab.Vantage
	cmd   *exec.Cmd
	log   *buffer
	ended chan error
	http  http.Client
}

// buffer is a bytes.Buffer that may be read while it is written.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// run starts the agent, with an interval of 5 s and a catalogue of its own.
func (w *world) run(t *testing.T, v *netlab.Vantage, catalogue string) *daemonUnderTest {
	t.Helper()
	return w.start(t, v, v.Unprivileged(w.bin, "run"), "MESSENGER_PROBE_CATALOGUE="+catalogue)
}

// start starts what runs the agent, with an interval of 5 s and this environment
// on top.
func (w *world) start(t *testing.T, v *netlab.Vantage, cmd *exec.Cmd, env ...string) *daemonUnderTest {
	t.Helper()
	d := &daemonUnderTest{v: v, cmd: cmd, log: &buffer{}, ended: make(chan error, 1)}
	transport := &http.Transport{DialContext: v.DialContext, DisableKeepAlives: true}
	d.http = http.Client{Transport: transport, Timeout: 5 * time.Second}
	d.cmd.Env = slices.Concat(w.env, []string{"MESSENGER_PROBE_INTERVAL=5s"}, env)
	d.cmd.Stderr = d.log
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { d.ended <- d.cmd.Wait() }()
	t.Cleanup(func() {
		d.cmd.Process.Kill()
		if t.Failed() {
			t.Logf("the agent said:\n%s", d.log)
		}
	})
	return d
}

// get is the body and status of a page of the agent's.
func (d *daemonUnderTest) get(path string) (string, int, error) {
	resp, err := d.http.Get("http://127.0.0.1:9770" + path)
	if err != nil {
		return "", 0, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return string(b), resp.StatusCode, err
}

// scrape is everything on /metrics by its line.
func (d *daemonUnderTest) scrape() (map[string]float64, error) {
	text, code, err := d.get("/metrics")
	if err != nil || code != http.StatusOK {
		return nil, fmt.Errorf("/metrics: %d, %w", code, err)
	}
	m := map[string]float64{}
	for l := range strings.Lines(text) {
		if line, value, ok := strings.Cut(strings.TrimSpace(l), "} "); ok && l[0] != '#' {
			m[line], _ = strconv.ParseFloat(value, 64)
		} else if name, value, ok := strings.Cut(strings.TrimSpace(l), " "); ok && l[0] != '#' {
			m[name], _ = strconv.ParseFloat(value, 64)
		}
	}
	return m, nil
}

// sum adds the series of a name that have all these labels, each written as
// key="value"; -1 where there is none.
func sum(m map[string]float64, name string, labels ...string) float64 {
	total, found := 0.0, false
	for line, v := range m {
		n, rest, _ := strings.Cut(line, "{")
		if n == "messenger_probe_"+name && !slices.ContainsFunc(labels, func(l string) bool { return !strings.Contains(","+rest+",", ","+l+",") }) {
			total, found = total+v, true
		}
	}
	if !found {
		return -1
	}
	return total
}

// label is a label as it is written.
func label(key, value string) string { return fmt.Sprintf("%s=%q", key, value) }

// await scrapes until what comes is as wanted, for so long.
func (d *daemonUnderTest) await(t *testing.T, what string, within time.Duration, wanted func(map[string]float64) error) map[string]float64 {
	t.Helper()
	start := time.Now()
	for {
		m, err := d.scrape()
		if err == nil {
			err = wanted(m)
		}
		if err == nil {
			t.Logf("%s: after %v", what, time.Since(start).Round(100*time.Millisecond))
			return m
		}
		select {
		case exit := <-d.ended:
			t.Fatalf("%s: the agent ended: %v", what, exit)
		case <-time.After(200 * time.Millisecond):
		}
		if time.Since(start) > within {
			t.Errorf("%s: not within %v: %v", what, within, err)
			return m
		}
	}
}

// inState wants every function of the lab in a state, or in another one that is
// named for it.
func inState(state string, but map[string][]string) func(map[string]float64) error {
	return func(m map[string]float64) error {
		for _, f := range functions {
			want := []string{state}
			if s, ok := but[f]; ok {
				want = s
			}
			if !slices.ContainsFunc(want, func(s string) bool {
				return sum(m, "function_state", label("messenger", "lab"), label("function", f), label("state", s)) == 1
			}) {
				var is []string
				for _, s := range wordsState {
					if sum(m, "function_state", label("function", f), label("state", s)) == 1 {
						is = append(is, s)
					}
				}
				return fmt.Errorf("%s is %v, not %v", f, is, want)
			}
		}
		return nil
	}
}

// The agent, from its start over two reloads and a block to its end.
func (w *world) testRun(t *testing.T) {
	t.Parallel()
	v := w.vantage(t)
	catalogue := filepath.Join(w.Dir, "catalogue-of-run")
	for _, name := range []string{"lab.yaml", "control.yaml", "a-embedded.yaml", "a-resolvers.yaml"} {
		w.lay(t, catalogue, name, read(t, filepath.Join(w.catalogue, name)))
	}
	d := w.run(t, v, catalogue)
	d.await(t, "first scrape", 3*time.Second, func(map[string]float64) error { return nil })
	if log := d.log.String(); confine.Supported() > 0 && !strings.Contains(log, "confined to its own files") {
		t.Errorf("a home that it may not look into keeps Landlock away: %s", log)
	}

	m := d.await(t, "success rates", 2*5*time.Second, func(m map[string]float64) error {
		for f, check := range map[string]string{"chat": "mtproto", "login": "noise", "bots": "oneme", "web": "tls", "media": "tls", "calls": "stun"} {
			if r := sum(m, "success_ratio", label("messenger", "lab"), label("function", f), label("check", check), label("window", "5m")); r != 1 {
				return fmt.Errorf("success ratio of %s %s: %v", f, check, r)
			}
			for _, family := range []string{"ip4", "ip6"} {
				if n := sum(m, "checks_total", label("messenger", "lab"), label("function", f), label("check", check), label("family", family)); n < 1 {
					return fmt.Errorf("checks of %s %s %s: %v", f, check, family, n)
				}
			}
		}
		return nil
	})
	if n := sum(m, "check_failures_total", label("messenger", "lab")); n != 0 {
		t.Errorf("%v failures", n)
	}
	m = d.await(t, "all ok", 20*time.Second, inState("ok", nil))
	for name, want := range map[string]float64{"vantage_state{state=\"online\"": 1, "config_last_reload_successful": 1} {
		if got := m["messenger_probe_"+name]; got != want {
			t.Errorf("%s is %v", name, got)
		}
	}
	w.testPages(t, d)

	// A reload: what stays keeps its counters, what is gone leaves.
	dc1 := []string{label("endpoint", "dc1"), label("check", "mtproto"), label("family", "ip4")}
	before := sum(m, "checks_total", dc1...)
	lab := read(t, filepath.Join(catalogue, "lab.yaml"))
	w.lay(t, catalogue, "lab.yaml", lab[:strings.Index(lab, "  - {<<: *relay")]+"  - {<<: *web, name: web2}\n")
	d.cmd.Process.Signal(syscall.SIGHUP)
	m = d.await(t, "reload", 5*time.Second, func(m map[string]float64) error {
		if sum(m, "checks_total", label("endpoint", "web2")) < 0 {
			return errors.New("no series of what was added")
		}
		return nil
	})
	if n := sum(m, "checks_total", label("endpoint", "relay2")); n >= 0 {
		t.Errorf("what was taken away has %v checks", n)
	}
	if n := sum(m, "checks_total", dc1...); n < before {
		t.Errorf("what stays had %v checks and has %v", before, n)
	}
	if n := m["messenger_probe_config_last_reload_successful"]; n != 1 {
		t.Errorf("config_last_reload_successful is %v", n)
	}

	// One that is not valid changes nothing, and says so.
	w.lay(t, catalogue, "lab.yaml", "messenger: lab\nendpoint: []\n")
	d.cmd.Process.Signal(syscall.SIGHUP)
	m = d.await(t, "broken reload", 5*time.Second, func(m map[string]float64) error {
		if m["messenger_probe_config_last_reload_successful"] != 0 {
			return errors.New("taken for successful")
		}
		return nil
	})
	if log := d.log.String(); !strings.Contains(log, "lab.yaml:2: endpoint: no such key") {
		t.Errorf("the log does not tell what is wrong")
	}
	before = sum(m, "checks_total", label("endpoint", "web2"), label("check", "tls"))
	d.await(t, "goes on", 15*time.Second, func(m map[string]float64) error {
		if n := sum(m, "checks_total", label("endpoint", "web2"), label("check", "tls")); n <= before {
			return fmt.Errorf("%v checks", n)
		}
		return nil
	})

	// A block comes and goes.
	d.await(t, "all ok", 20*time.Second, inState("ok", nil))
	v.Box.Set(netlab.Rule{Hosts: dcs, Do: netlab.Drop})
	m = d.await(t, "block seen", 60*time.Second, inState("ok", map[string][]string{"chat": {"blocked", "unreachable"}}))
	if n := sum(m, "check_failures_total", label("function", "chat"), label("operation", "connect"), label("failure", "generic_timeout_error")); n < 1 {
		t.Errorf("%v failures of chat", n)
	}
	v.Box.Set()
	d.await(t, "block lifted", 60*time.Second, inState("ok", nil))

	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", d.cmd.Process.Pid))
	if err != nil || len(fds) > 200 {
		t.Errorf("%d file descriptors (%v)", len(fds), err)
	}
	d.stop(t)
}

// testPages looks at everything that the agent serves.
func (w *world) testPages(t *testing.T, d *daemonUnderTest) {
	for path, want := range map[string]int{"/": 200, "/-/healthy": 200, "/-/ready": 200, "/api/v1/status": 200, "/debug/pprof/": 404, "/nothing": 404} {
		body, code, err := d.get(path)
		if err != nil || code != want {
			t.Errorf("GET %s: %d, %v", path, code, err)
		}
		switch path {
		case "/":
			if !strings.Contains(body, "Lab") {
				t.Errorf("the page does not name the messenger: %s", body)
			}
		case "/api/v1/status":
			for _, problem := range contract([]byte(body)) {
				t.Errorf("contract of %s: %s", path, problem)
			}
		}
	}
	resp, err := d.http.Post("http://127.0.0.1:9770/-/reload", "", nil)
	if err != nil {
		t.Error(err)
	} else if resp.Body.Close(); resp.StatusCode/100 != 4 {
		t.Errorf("POST /-/reload without --enable-lifecycle: %s", resp.Status)
	}
	health := d.v.Unprivileged(w.bin, "healthcheck")
	health.Env = w.env
	if out, err := health.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("healthcheck: %v: %s", err, out)
	}
}

// stop ends the agent with SIGTERM, and wants exit status 0 within seconds.
func (d *daemonUnderTest) stop(t *testing.T) {
	t.Helper()
	d.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case err := <-d.ended:
		if err != nil {
			t.Errorf("after SIGTERM: %v", err)
		}
	case <-time.After(5 * time.Second):
		t.Error("still there 5 s after SIGTERM")
	}
}
