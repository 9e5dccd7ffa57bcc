//go:build linux

package main

import (
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/messenger-probe/messenger-probe/cmd/internal/netlab"
)

// The files and commands of COMPARATOR.md, as they stand there, make two agents
// of which one asks the other: over TLS, with a password. A data centre that is
// dead at both is an outage; the wrong password is told, and changes nothing.
func (w *world) testComparator(t *testing.T) {
	t.Parallel()
	htpasswd := tool(t, "htpasswd")
	v := w.vantage(t)
	if out, err := v.Command("ip", "addr", "add", "203.0.113.7/32", "dev", "lo").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	dir := filepath.Join(w.Dir, "comparator")
	files, commands := paper(t, "deploy/COMPARATOR.md")
	hash, err := exec.Command(htpasswd, "-nbBC", "10", "comparator", "right").Output()
	if err != nil {
		t.Fatal(err)
	}
	_, line, _ := strings.Cut(strings.TrimSpace(string(hash)), ":")
	fill := strings.NewReplacer("/etc/messenger-probe", dir, "$2y$10$HASH-THAT-HTPASSWD-PRINTED", line)
	const lab = "interval: 5s\n" // w.env has the rest
	w.lay(t, dir, "abroad.yaml", fill.Replace(files["/etc/messenger-probe/config.yaml, abroad"])+lab)
	w.lay(t, dir, "web.yml", fill.Replace(files["/etc/messenger-probe/web.yml, abroad; paths are relative to this file"]))
	w.lay(t, dir, "home.yaml", fill.Replace(files["/etc/messenger-probe/config.yaml, at home"])+lab)
	w.lay(t, dir, "abroad-1.token", "comparator:wrong")
	make := exec.Command("sh", "-ec", commands["openssl"]+"\nchmod 644 tls.key\ncp tls.crt abroad-1.crt")
	make.Dir = dir
	if out, err := make.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}

	start := func(file string, env ...string) *buffer {
		c := v.Unprivileged(w.bin, "run", "--config", filepath.Join(dir, file))
		c.Env = append(slices.Clone(w.env), env...)
		log := &buffer{}
		c.Stderr = log
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			c.Process.Kill()
			c.Wait()
			if t.Failed() {
				t.Logf("%s:\n%s", file, log)
			}
		})
		return log
	}
	start("abroad.yaml")
	said := start("home.yaml", "MESSENGER_PROBE_LISTEN=127.0.0.1:9780")

	home := http.Client{Transport: &http.Transport{DialContext: v.DialContext, DisableKeepAlives: true}, Timeout: 5 * time.Second}
	until := func(what string, within time.Duration, is func() (string, bool)) {
		t.Helper()
		for end := time.Now().Add(within); ; time.Sleep(200 * time.Millisecond) {
			last, ok := is()
			if ok {
				return
			}
			if time.Now().After(end) {
				t.Fatalf("%s: not within %v: %s", what, within, last)
			}
		}
	}
	metric := func(pattern string) func() (string, bool) {
		return func() (string, bool) {
			resp, err := home.Get("http://127.0.0.1:9780/metrics")
			if err != nil {
				return err.Error(), false
			}
			defer resp.Body.Close()
			b, err := io.ReadAll(resp.Body)
			if err != nil {
				return err.Error(), false
			}
			return fmt.Sprintf("no %s", pattern), regexp.MustCompile(`(?m)^messenger_probe_` + pattern + ` 1$`).Match(b)
		}
	}
	until("the wrong password", 20*time.Second, func() (string, bool) {
		return said.String(), strings.Contains(said.String(), `msg="a comparator does not answer" name=abroad-1 why="HTTP status 401"`)
	})
	w.lay(t, dir, "abroad-1.token", "comparator:right")
	until("the right password", 20*time.Second, func() (string, bool) {
		return said.String(), strings.Contains(said.String(), `msg="a comparator answers again" name=abroad-1`)
	})
	for _, f := range functions {
		until("all is well", 60*time.Second, metric(`function_state\{function="`+f+`",messenger="lab",state="ok"\}`))
	}
	v.Box.Set(netlab.Rule{Hosts: dcs, Do: netlab.Drop})
	until("the outage", 60*time.Second, metric(`function_mechanism\{.*function="chat",mechanism="service_outage",.*\}`))
	until("the outage", 10*time.Second, metric(`function_state\{function="chat",messenger="lab",state="unreachable"\}`))
}
