//go:build linux

package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// faults are what befalls the agent's own machine. Whatever it is, nothing is
// ever called blocked because of it, and when it is over all is well again by
// itself.
var faults = []struct {
	name string
	test func(*world, *testing.T)
}{
	{"the line is pulled", (*world).testPulled},
	{"another address", (*world).testRenumbered},
	{"IPv6 comes and goes", (*world).testFamilies},
	{"suspended", (*world).testSuspended},
	{"hang-ups", (*world).testHangUps},
	{"few descriptors", (*world).testFewDescriptors},
	{"scrapers that do not read", (*world).testMuteScrapers},
	{"a disk that is full, then read-only", (*world).testDisk},
}

func TestE2EFaults(t *testing.T) {
	w := newWorld(t)
	for _, f := range faults {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			f.test(w, t)
		})
	}
}

// well wants all to be ok and nothing to have been called blocked, ever.
func well(m map[string]float64) error {
	if n := sum(m, "onsets_total"); n != 0 {
		return fmt.Errorf("%v onsets", n)
	}
	return inState("ok", nil)(m)
}

// healthy waits until all is well.
func (d *daemonUnderTest) healthy(t *testing.T, what string) map[string]float64 {
	t.Helper()
	return d.await(t, what, time.Minute, well)
}

// blameless sees for so long that nothing is called blocked.
func (d *daemonUnderTest) blameless(t *testing.T, long time.Duration) {
	t.Helper()
	for end := time.Now().Add(long); time.Now().Before(end); time.Sleep(500 * time.Millisecond) {
		m, err := d.scrape()
		if err != nil {
			continue // it may be stopped
		}
		if sum(m, "onsets_total") > 0 || sum(m, "function_state", label("state", "blocked")) > 0 {
			t.Fatal("something is called blocked")
		}
	}
}

// inVantageState wants the vantage to be in one of these states.
func inVantageState(states ...string) func(map[string]float64) error {
	return func(m map[string]float64) error {
		for _, s := range states {
			if sum(m, "vantage_state", label("state", s)) == 1 {
				return nil
			}
		}
		return fmt.Errorf("the vantage is not %v", states)
	}
}

// An interface that goes down is an outage of the vantage, and its coming back
// is seen without a restart.
func (w *world) testPulled(t *testing.T) {
	v := w.vantage(t)
	d := w.run(t, v, w.catalogue)
	d.healthy(t, "all ok")
	v.Unplug(t)
	d.await(t, "seen", 20*time.Second, inVantageState("offline", "impaired"))
	d.blameless(t, 15*time.Second)
	v.Plug(t, 2, true, true)
	d.healthy(t, "ok again")
	d.stop(t)
}

// A new address, as a provider gives one, is not even noticed.
func (w *world) testRenumbered(t *testing.T) {
	v := w.vantage(t)
	d := w.run(t, v, w.catalogue)
	d.healthy(t, "all ok")
	for n := 3; n < 6; n++ {
		v.Plug(t, n, true, true)
		d.blameless(t, 6*time.Second)
	}
	d.healthy(t, "still ok")
	d.stop(t)
}

// An address family is measured from when there is one, and its loss blames
// nobody.
func (w *world) testFamilies(t *testing.T) {
	v := w.vantage(t)
	v.Plug(t, 2, true, false)
	d := w.run(t, v, w.catalogue)
	m := d.healthy(t, "ok without IPv6")
	if n := sum(m, "checks_total", label("family", "ip6")); n >= 0 {
		t.Errorf("%v checks over IPv6, of which there is none", n)
	}
	v.Plug(t, 2, true, true)
	d.await(t, "IPv6 is measured", 20*time.Second, func(m map[string]float64) error {
		if n := sum(m, "checks_total", label("family", "ip6"), label("messenger", "lab")); n < 1 {
			return fmt.Errorf("%v checks", n)
		}
		return well(m)
	})
	v.Plug(t, 2, true, false)
	d.await(t, "IPv6 is void", 30*time.Second, func(m map[string]float64) error {
		if n := sum(m, "checks_void_total", label("family", "ip6"), label("reason", "local")); n < 1 {
			return fmt.Errorf("%v void checks", n)
		}
		return nil
	})
	d.blameless(t, 10*time.Second)
	d.healthy(t, "ok over IPv4")
	d.stop(t)
}

// What was in flight when the machine stood still says nothing.
func (w *world) testSuspended(t *testing.T) {
	d := w.run(t, w.vantage(t), w.catalogue)
	d.healthy(t, "all ok")
	for range 2 {
		d.cmd.Process.Signal(syscall.SIGSTOP)
		time.Sleep(12 * time.Second)
		d.cmd.Process.Signal(syscall.SIGCONT)
		d.blameless(t, 6*time.Second)
	}
	d.healthy(t, "ok again")
	d.stop(t)
}

// Reloads by the hundred keep the counters and end.
func (w *world) testHangUps(t *testing.T) {
	d := w.run(t, w.vantage(t), w.catalogue)
	m := d.healthy(t, "all ok")
	before := sum(m, "checks_total", label("messenger", "lab"))
	for range 300 {
		d.cmd.Process.Signal(syscall.SIGHUP)
		time.Sleep(10 * time.Millisecond)
	}
	d.await(t, "it goes on", 30*time.Second, func(m map[string]float64) error {
		if n := sum(m, "checks_total", label("messenger", "lab")); n <= before {
			return fmt.Errorf("%v checks, and %v before", n, before)
		}
		if m["messenger_probe_config_last_reload_successful"] != 1 {
			return errors.New("the last reload failed")
		}
		return well(m)
	})
	d.stop(t)
}

// With few descriptors fewer checks run at a time, which is said.
func (w *world) testFewDescriptors(t *testing.T) {
	v := w.vantage(t)
	d := w.start(t, v, v.Unprivileged("prlimit", "--nofile=48", w.bin, "run"), "MESSENGER_PROBE_CATALOGUE="+w.catalogue)
	d.healthy(t, "all ok")
	d.blameless(t, 15*time.Second)
	m := d.healthy(t, "still ok")
	if n := sum(m, "checks_void_total", label("reason", "local")); n > 0 {
		t.Errorf("%v checks ended for want of descriptors", n)
	}
	if !strings.Contains(d.log.String(), "descriptors=48") {
		t.Error("nothing is said of it")
	}
	d.stop(t)
}

// Scrapers that ask and never read hold up neither others nor the checks.
func (w *world) testMuteScrapers(t *testing.T) {
	v := w.vantage(t)
	d := w.run(t, v, w.catalogue)
	d.healthy(t, "all ok")
	for range 60 {
		c, err := v.DialContext(t.Context(), "tcp", "127.0.0.1:9770")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		for range 20 {
			if _, err := io.WriteString(c, "GET /metrics HTTP/1.1\r\nHost: 127.0.0.1:9770\r\n\r\n"); err != nil {
				break // it is full
			}
		}
	}
	d.blameless(t, 10*time.Second)
	d.healthy(t, "still ok")
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		var kb int
		if _, err := fmt.Sscanf(line, "VmHWM: %d kB", &kb); err == nil {
			t.Logf("%d kB resident at most", kb)
			if kb > 120_000 {
				t.Errorf("%d kB for scrapers that do not read", kb)
			}
		}
	}
	d.stop(t)
}

// A disk that takes nothing costs the memory of a restart, and nothing else;
// when it takes something again, all is kept.
func (w *world) testDisk(t *testing.T) {
	dir := filepath.Join(w.Dir, "full")
	mount := func(args ...string) {
		t.Helper()
		if out, err := exec.Command("mount", args...).CombinedOutput(); err != nil {
			t.Fatalf("mount %q: %v: %s", args, err, out)
		}
	}
	if err := os.Mkdir(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	mount("-t", "tmpfs", "-o", "size=1m,mode=777", "tmpfs", dir)
	t.Cleanup(func() { exec.Command("umount", "-l", dir).Run() })
	ballast, err := os.Create(filepath.Join(dir, "ballast"))
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = ballast.Write(make([]byte, 4096))
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}

	v := w.vantage(t)
	d := w.start(t, v, v.Unprivileged(w.bin, "run"), "MESSENGER_PROBE_CATALOGUE="+w.catalogue, "MESSENGER_PROBE_STATE_DIR="+dir)
	d.healthy(t, "ok on a full disk")
	d.await(t, "it is said", 20*time.Second, func(map[string]float64) error {
		if !strings.Contains(d.log.String(), "no space left on device") {
			return errors.New("nothing in the log")
		}
		return nil
	})
	if err := errors.Join(ballast.Truncate(0), ballast.Close()); err != nil {
		t.Fatal(err)
	}
	kept := func(map[string]float64) error {
		for _, name := range []string{"state.json", "events.jsonl"} {
			if st, err := os.Stat(filepath.Join(dir, name)); err != nil || st.Size() == 0 {
				return fmt.Errorf("%s is not there", name)
			}
		}
		return nil
	}
	d.await(t, "state is kept", 20*time.Second, func(map[string]float64) error {
		_, err := os.Stat(filepath.Join(dir, "state.json"))
		return err
	})

	mount("-o", "remount,ro", dir)
	v.Unplug(t) // so that there is something to write
	d.await(t, "seen", 20*time.Second, inVantageState("offline", "impaired"))
	v.Plug(t, 2, true, true)
	d.healthy(t, "ok on a read-only disk")
	if !strings.Contains(d.log.String(), "read-only file system") {
		t.Error("nothing is said of the read-only disk")
	}
	mount("-o", "remount,rw", dir)
	v.Unplug(t)
	d.await(t, "seen again", 20*time.Second, inVantageState("offline", "impaired"))
	d.await(t, "all is kept", 20*time.Second, kept)
	d.stop(t)
	if left, err := filepath.Glob(filepath.Join(dir, ".*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %q, %v", left, err)
	}
}
