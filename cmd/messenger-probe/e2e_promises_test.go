//go:build linux

package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/messenger-probe/messenger-probe/cmd/internal/confine"
	"github.com/messenger-probe/messenger-probe/cmd/internal/netlab"
)

// TestE2EPromises holds the running program to what SECURITY.md promises of it:
// nobody gets in, nothing gets out.
func TestE2EPromises(t *testing.T) {
	w := newWorld(t)
	t.Run("leaks", w.testLeaks)
	t.Run("confined", w.testConfined)
	t.Run("syscalls", w.testSyscalls)
}

// shared makes a folder that the agent, as nobody, may write to.
func (w *world) shared(t *testing.T, name string) string {
	t.Helper()
	dir := filepath.Join(w.Dir, name)
	if err := errors.Join(os.MkdirAll(dir, 0o777), os.Chmod(dir, 0o777)); err != nil {
		t.Fatal(err)
	}
	return dir
}

// eventually asks again until there is no error.
func eventually(t *testing.T, within time.Duration, ask func() error) {
	t.Helper()
	start := time.Now()
	for {
		err := ask()
		if err == nil {
			return
		}
		if time.Since(start) > within {
			t.Errorf("not within %v: %v", within, err)
			return
		}
		time.Sleep(200 * time.Millisecond)
	}
}

// Nothing that the agent serves, says or keeps tells which machine it runs on:
// not an address, not a resolver, not a card, not a name, not a path.
func (w *world) testLeaks(t *testing.T) {
	t.Parallel()
	const host = "leakyhost7f3a"
	resolver := atHome.at(57) // the system's, and nobody else's
	w.Unbound(t, netlab.Resolver{Addrs: resolver, Zone: w.zone, Cert: w.CA.Issue(t, nil, "dns.home1.test")})
	v := w.Vantage(t, resolver[0])
	state, conf := w.shared(t, "leaky-state"), w.shared(t, "leaky-conf")
	file := filepath.Join(conf, "config.yaml")
	w.lay(t, conf, "config.yaml", "interval: 5s\n")
	cmd := v.Command("unshare", "--uts", "sh", "-c", "hostname "+host+"; exec setpriv --reuid=65534 --regid=65534 --clear-groups --bounding-set=-all --inh-caps=-all --no-new-privs "+
		w.bin+" run --config "+file)
	d := w.start(t, v, cmd, "MESSENGER_PROBE_CATALOGUE="+w.catalogue, "MESSENGER_PROBE_STATE_DIR="+state)
	d.await(t, "all ok", time.Minute, inState("ok", nil))

	// Trouble of many kinds makes evidence, events and history: relays that are
	// silent, names that lead elsewhere, a certificate that is not theirs.
	v.Box.Set(netlab.Rule{Hosts: dcs, Do: netlab.Drop},
		netlab.Rule{Proto: netlab.TCP, Hosts: slices.Concat(webA.at(10), webB.at(10)), Do: netlab.Redirect(on(0, interceptor...)...)},
		netlab.Rule{Proto: netlab.UDP, Hosts: slices.Concat(relayA.at(10), relayB.at(10)), Do: netlab.Drop},
		netlab.Rule{Proto: netlab.UDP, Hosts: resolver, Do: netlab.Redirect(on(0, liar...)...)})
	d.await(t, "trouble seen", 90*time.Second, func(m map[string]float64) error {
		if n := sum(m, "onsets_total"); n < 2 {
			return fmt.Errorf("%v onsets", n)
		}
		return nil
	})
	said := map[string]string{}
	pages := []string{"/", "/metrics", "/api/v1/status", "/api/v1/events", "/-/healthy", "/-/ready", "/nothing"}
	for _, path := range pages {
		body, _, err := d.get(path)
		if err != nil {
			t.Error(err)
		}
		said[path] = body
	}
	for _, lang := range []string{"en", "ru"} {
		resp, err := d.http.Get("http://127.0.0.1:9770/?lang=" + lang)
		if err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		b.ReadFrom(resp.Body)
		fmt.Fprint(&b, resp.Header)
		resp.Body.Close()
		said["/?lang="+lang] = b.String()
	}
	if !strings.Contains(said["/api/v1/events"], `"blocked"`) || !strings.Contains(said["/api/v1/status"], `"address"`) {
		t.Errorf("there is no trouble to tell of: %s", said["/api/v1/events"])
	}
	w.onlyLoopbackListens(t, d)
	d.cmd.Process.Signal(syscall.SIGHUP)
	eventually(t, 10*time.Second, func() error {
		if !strings.Contains(d.log.String(), "reloaded") {
			return errors.New("no word of a reload")
		}
		return nil
	})
	d.stop(t)
	said["the log"] = d.log.String()
	kept := 0
	filepath.WalkDir(state, func(path string, e os.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			said["the file "+e.Name()] = read(t, path)
			kept++
		}
		return err
	})
	if kept < 3 {
		t.Errorf("%d files of state", kept)
	}

	secrets := map[string]string{"host name": host, "state folder": state, "configuration": conf, "catalogue's folder": w.catalogue, "lab's folder": w.Dir, "program": w.bin,
		"home": "/nonexistent", "interface": "eth0"}
	for _, a := range resolver {
		secrets["resolver "+a.String()] = a.String()
	}
	for what, value := range facts(t, v) {
		secrets[what] = value
	}
	if id, err := os.ReadFile("/etc/machine-id"); err == nil && len(id) > 8 {
		secrets["machine id"] = strings.TrimSpace(string(id))
	}
	if id, err := os.ReadFile("/proc/sys/kernel/random/boot_id"); err == nil {
		secrets["boot id"] = strings.TrimSpace(string(id))
	}
	t.Logf("%d texts searched for %d secrets", len(said), len(secrets))
	for where, text := range said {
		for what, secret := range secrets {
			for _, s := range []string{secret, strings.ToUpper(secret), strings.ReplaceAll(secret, ":", "")} {
				if i := strings.Index(text, s); i >= 0 {
					t.Errorf("%s tells the %s: …%q…", where, what, text[max(0, i-80):min(len(text), i+80)])
					break
				}
			}
		}
		// In bytes, as a file that is no text might have them.
		for what, secret := range secrets {
			if a, err := netip.ParseAddr(secret); err == nil && strings.Contains(text, string(a.AsSlice())) {
				t.Errorf("%s has the bytes of the %s", where, what)
			}
		}
	}
}

// facts is what identifies a vantage: its addresses, its routers', the card's.
// They are the addresses that a STUN server sees, too: there is no NAT here.
func facts(t *testing.T, v *netlab.Vantage) map[string]string {
	t.Helper()
	m := map[string]string{}
	out, err := v.Command("ip", "-o", "addr").Output()
	if err != nil {
		t.Fatal(err)
	}
	for l := range strings.Lines(string(out)) {
		f := strings.Fields(l)
		if p, err := netip.ParsePrefix(f[3]); err == nil && !p.Addr().IsLoopback() {
			m["address "+f[3]] = p.Addr().String()
		}
	}
	out, err = v.Command("ip", "-o", "neigh").Output()
	if err != nil {
		t.Fatal(err)
	}
	for l := range strings.Lines(string(out)) {
		f := strings.Fields(l)
		m["router "+f[0]] = f[0]
		if i := slices.Index(f, "lladdr"); i > 0 && i+1 < len(f) {
			m["router's card"] = f[i+1]
		}
	}
	out, err = v.Command("cat", "/sys/class/net/eth0/address").Output()
	if err == nil {
		m["card"] = strings.TrimSpace(string(out))
	}
	if len(m) < 5 {
		t.Fatalf("only %v is known of the vantage", m)
	}
	return m
}

// onlyLoopbackListens looks at every TCP socket of the agent's network that
// listens.
func (w *world) onlyLoopbackListens(t *testing.T, d *daemonUnderTest) {
	t.Helper()
	out, err := d.v.Command("cat", "/proc/net/tcp", "/proc/net/tcp6").Output()
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for l := range strings.Lines(string(out)) {
		f := strings.Fields(l)
		if len(f) < 4 || f[3] != "0A" {
			continue
		}
		n++
		if at, _, _ := strings.Cut(f[1], ":"); at != "0100007F" && at != "00000000000000000000000001000000" {
			t.Errorf("listens on %s", f[1])
		}
	}
	if n != 1 {
		t.Errorf("%d sockets listen", n)
	}
}

// What the agent did not name when it started is out of its reach, whatever
// makes it ask; what it named it reads anew.
func (w *world) testConfined(t *testing.T) {
	t.Parallel()
	if confine.Supported() == 0 {
		t.Fatal("this kernel has no Landlock; the promise cannot be tested")
	}
	// Not below w.Dir: the folder of trust.ca_file stays open.
	other, err := os.MkdirTemp("", "netlab-elsewhere-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(other) })
	if err := os.Chmod(other, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"lab.yaml", "control.yaml", "a-embedded.yaml", "a-resolvers.yaml"} {
		w.lay(t, other, name, read(t, filepath.Join(w.catalogue, name)))
	}
	for _, tt := range []struct {
		name     string
		landlock bool
	}{{"with Landlock", true}, {"without", false}} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			v := w.vantage(t)
			conf := w.shared(t, fmt.Sprintf("confined-%v", tt.landlock))
			// replace puts a new configuration in the place of the old one, as an
			// editor does.
			replace := func(catalogue, more string) {
				w.lay(t, conf, ".new", fmt.Sprintf("landlock: %v\ncatalogue: %s\n%s", tt.landlock, catalogue, more))
				if err := os.Rename(filepath.Join(conf, ".new"), filepath.Join(conf, "config.yaml")); err != nil {
					t.Fatal(err)
				}
			}
			replace(w.catalogue, "")
			d := w.start(t, v, v.Unprivileged(w.bin, "run", "--config", filepath.Join(conf, "config.yaml")), "MESSENGER_PROBE_CATALOGUE=")
			d.await(t, "up", 10*time.Second, func(map[string]float64) error { return nil })
			reloaded := func(want float64) func(map[string]float64) error {
				return func(m map[string]float64) error {
					if got := m["messenger_probe_config_last_reload_successful"]; got != want {
						return fmt.Errorf("config_last_reload_successful is %v", got)
					}
					return nil
				}
			}
			replace(other, "")
			d.cmd.Process.Signal(syscall.SIGHUP)
			if tt.landlock {
				d.await(t, "refused", 5*time.Second, reloaded(0))
				if log := d.log.String(); !strings.Contains(log, "confined to its own files") || !strings.Contains(log, "permission denied; the agent has given up (landlock)") {
					t.Error("the log does not say why")
				}
			} else {
				eventually(t, 5*time.Second, func() error {
					if !strings.Contains(d.log.String(), "msg=reloaded") {
						return errors.New("not reloaded")
					}
					return nil
				})
			}
			replace(w.catalogue, "extended: true\n")
			d.cmd.Process.Signal(syscall.SIGHUP)
			d.await(t, "reloaded", 5*time.Second, reloaded(1))
			status := read(t, fmt.Sprintf("/proc/%d/status", d.cmd.Process.Pid))
			for _, want := range []string{"NoNewPrivs:\t1", "CapEff:\t0000000000000000", "CapPrm:\t0000000000000000", "CapBnd:\t0000000000000000", "Uid:\t65534\t65534"} {
				if !strings.Contains(status, want) {
					t.Errorf("no %s in its status", want)
				}
			}
			d.await(t, "all ok", time.Minute, inState("ok", nil))
			d.stop(t)
		})
	}
}

var systemCall = regexp.MustCompile(`^[a-z][a-z0-9_]*$`)

// The system calls of a run, from its start over a reload and a block to its
// end, are those of the list: a filter that allows them lets it work.
func (w *world) testSyscalls(t *testing.T) {
	t.Parallel()
	strace := tool(t, "strace")
	v := w.vantage(t)
	state, out := w.shared(t, "traced-state"), filepath.Join(w.shared(t, "trace"), "calls")
	d := w.start(t, v, v.Unprivileged(strace, "-f", "-qq", "-c", "-U", "name", "-o", out, w.bin, "run"),
		"MESSENGER_PROBE_CATALOGUE="+w.catalogue, "MESSENGER_PROBE_STATE_DIR="+state)
	d.await(t, "up", 30*time.Second, func(map[string]float64) error { return nil })
	d.await(t, "judged", 2*time.Minute, func(m map[string]float64) error {
		if sum(m, "vantage_state", label("state", "online")) != 1 {
			return errors.New("not online")
		}
		return nil
	})
	v.Box.Set(netlab.Rule{Hosts: dcs, Do: netlab.Drop})
	for _, path := range []string{"/", "/api/v1/status", "/api/v1/events"} {
		d.get(path)
	}
	child, err := exec.Command("pgrep", "-P", fmt.Sprint(d.cmd.Process.Pid)).Output()
	if err != nil {
		t.Fatal(err)
	}
	var pid int
	fmt.Sscan(string(child), &pid)
	syscall.Kill(pid, syscall.SIGHUP)
	time.Sleep(15 * time.Second) // a few rounds with the block, and saves
	syscall.Kill(pid, syscall.SIGTERM)
	select {
	case <-d.ended:
	case <-time.After(20 * time.Second):
		t.Fatal("does not end")
	}
	known := map[string]bool{}
	for _, name := range syscalls(t) {
		known[name] = true
	}
	var new []string
	sc := bufio.NewScanner(strings.NewReader(read(t, out)))
	n := 0
	for sc.Scan() {
		// Of a thread that ends with the process strace may write a line of its own:
		// "19025 ???( <detached ...>".
		if name := strings.TrimSpace(sc.Text()); systemCall.MatchString(name) && name != "syscall" && name != "total" {
			n++
			if !known[name] {
				new = append(new, name)
			}
		}
	}
	if n < 20 {
		t.Errorf("%d system calls were seen", n)
	}
	if len(new) > 0 {
		t.Errorf("system calls that are not in testdata/syscalls.txt: %s", strings.Join(new, " "))
	}
}
