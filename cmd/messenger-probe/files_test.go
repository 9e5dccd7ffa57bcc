//go:build unix

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/messenger-probe/messenger-probe/cmd/internal/agent"
	"github.com/messenger-probe/messenger-probe/cmd/internal/events"
	"github.com/messenger-probe/messenger-probe/cmd/internal/history"
)

// What stands where a file or a folder of the configuration should is refused
// at once, and by name: nothing is waited for, read without end or followed
// elsewhere.
func TestOddFiles(t *testing.T) {
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	huge, odd := at("huge"), at("odd")
	for _, d := range []string{huge, odd} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 5000 {
		if err := os.WriteFile(filepath.Join(huge, fmt.Sprintf("%d.txt", i)), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, err := range []error{
		syscall.Mkfifo(at("fifo"), 0o600), os.Symlink("loop", at("loop")), os.Symlink("/dev/zero", at("zero")),
		syscall.Mkfifo(filepath.Join(odd, "a.yaml"), 0o600), os.Symlink("/dev/zero", filepath.Join(odd, "b.yaml")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, key := range []string{"web_config: %s", "trust: {ca_file: %s}", "comparators: [{name: a, url: 'https://a.example', ca_file: %s}]",
		"comparators: [{name: a, url: 'https://a.example', token_file: %s}]", "catalogue: %s", "state_dir: %s"} {
		for _, what := range []string{at("fifo"), at("loop"), at("zero"), "/dev/zero", huge, odd} {
			if folder := what == huge || what == odd; strings.HasPrefix(key, "state_dir") && (folder || what == at("loop")) {
				continue // a folder is what it should be; a loop is found when it is written to
			}
			file := write(t, "config.yaml", fmt.Sprintf(key, what)+"\n")
			var out, errs strings.Builder
			start := time.Now()
			code := run(t.Context(), []string{"config", "--check", "--config", file}, &out, &errs)
			if took := time.Since(start); took > 5*time.Second {
				t.Errorf(key+": %v", what, took)
			}
			if code != exitUsage || !strings.Contains(errs.String(), what) {
				t.Errorf(key+": %d, %q", what, code, errs.String())
			}
		}
	}
}

// Who may write into the state's folder cannot make the agent write elsewhere,
// read elsewhere, or wait.
func TestOddState(t *testing.T) {
	for name, lay := range map[string]func(path, elsewhere string) error{
		"link": func(path, elsewhere string) error { return os.Symlink(elsewhere, path) },
		"dangling link": func(path, elsewhere string) error {
			return os.Symlink(elsewhere+"-new", path)
		},
		"fifo":   func(path, _ string) error { return syscall.Mkfifo(path, 0o600) },
		"device": func(path, _ string) error { return os.Symlink("/dev/zero", path) },
		"folder": func(path, _ string) error { return os.Mkdir(path, 0o700) },
	} {
		t.Run(name, func(t *testing.T) {
			dir, elsewhere := t.TempDir(), write(t, "elsewhere", "{}\n")
			for _, f := range []string{"state.json", "events.jsonl", "history.log"} {
				if err := lay(filepath.Join(dir, f), elsewhere); err != nil {
					t.Fatal(err)
				}
			}
			done := make(chan struct{})
			go func() {
				defer close(done)
				if m, err := recall(dir); err == nil {
					t.Errorf("recalled %+v", m)
				}
				var complaints []error
				log, err := events.Open(dir, func(err error) { complaints = append(complaints, err) })
				if err == nil {
					t.Error("the events are read")
				}
				log.Append(events.Event{Time: time.Now(), Messenger: "max"})
				log.Close()
				if len(complaints) == 0 {
					t.Error("the event is written")
				}
				h, err := history.Open(dir, time.Now())
				if err == nil {
					t.Error("the history is read")
				}
				h.Record(time.Now(), "max", "chat", true, time.Second)
				if err := h.Save(); err != nil && name != "folder" {
					t.Error(err)
				}
				// State is renamed over whatever is there, which writes to nothing else.
				if err := keep(dir, agent.Memory{Proven: []string{"x"}}); err == nil {
					if fi, err := os.Lstat(filepath.Join(dir, "state.json")); err != nil || !fi.Mode().IsRegular() {
						t.Errorf("%v, %v", fi, err)
					}
				} else if name != "folder" {
					t.Error(err)
				}
			}()
			select {
			case <-done:
			case <-time.After(10 * time.Second):
				t.Fatal("waits")
			}
			if b, err := os.ReadFile(elsewhere); err != nil || string(b) != "{}\n" {
				t.Errorf("elsewhere there is %q, %v", b, err)
			}
			if _, err := os.Lstat(elsewhere + "-new"); err == nil {
				t.Error("a file was made elsewhere")
			}
		})
	}
}

// Secrets of the configuration are in nothing that is printed, whatever is
// wrong with it.
func TestSecretsArePrintedNowhere(t *testing.T) {
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	const secret = "hush9f3b"
	token := write(t, "token", secret+"\n")
	web := write(t, "web.yaml", "basic_auth_users:\n  scraper: "+secret+"\n") // no bcrypt
	url := "https://user:" + secret + "@probe.example.org/?key=" + secret
	for name, text := range map[string]string{
		"all well":          "comparators: [{name: de, url: '" + url + "', token_file: " + token + "}]\n",
		"a bad URL":         "comparators: [{name: de, url: 'https://user:" + secret + "@[::1'}]\n",
		"a bad port":        "comparators: [{name: de, url: 'https://user:" + secret + "@a.example:port" + secret + "/'}]\n",
		"no scheme":         "comparators: [{name: de, url: 'user:" + secret + "@a.example'}]\n",
		"in clear":          "comparators: [{name: de, url: 'http://user:" + secret + "@a.example'}]\n",
		"no name":           "comparators: [{url: '" + url + "'}]\n",
		"a list of texts":   "comparators: ['" + url + "']\n",
		"a text":            "comparators: '" + url + "'\n",
		"another's key":     "comparators: [{name: de, url: '" + url + "', password: " + secret + "}]\n",
		"a token for roots": "comparators: [{name: de, url: 'https://a.example', ca_file: " + token + "}]\n",
		"roots":             "trust: {ca_file: " + token + "}\n",
		"a password":        "web_config: " + web + "\n",
		"a token for it":    "web_config: " + token + "\n",
	} {
		file := write(t, "config.yaml", text)
		for _, args := range []string{"config", "config --output json", "config --check", "run --listen 192.0.2.1:1 --log-level debug", "healthcheck --listen 127.0.0.1:1", "version"} {
			var out, errs strings.Builder
			run(t.Context(), append(strings.Fields(args), "--config", file), &out, &errs)
			if said := out.String() + errs.String(); strings.Contains(said, secret) {
				t.Errorf("%s: %s says: %s", name, args, said)
			}
		}
	}
}
