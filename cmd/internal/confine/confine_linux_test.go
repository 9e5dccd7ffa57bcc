package confine

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

// childEnv is set in the process that confines itself; it is the folder to do
// it in.
const childEnv = "CONFINE_CHILD"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		child(dir)
		return
	}
	goleak.VerifyTestMain(m)
}

// layout makes, below dir, what a configuration names and what is somebody
// else's.
func layout(t *testing.T, dir string) {
	t.Helper()
	for _, f := range []string{"etc/config.yaml", "certs/ca.pem", "tokens/token", "private/key", "state/state.json", "catalogue/a.yaml",
		"map/..1/config.yaml", "elsewhere/b.yaml", "loose/resolv.conf", "run/resolv.conf"} {
		f = filepath.Join(dir, f)
		if err := os.MkdirAll(filepath.Dir(f), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(f, []byte("text"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for link, to := range map[string]string{"map/..data": "..1", "map/config.yaml": "..data/config.yaml", "catalogue/b.yaml": "../elsewhere/b.yaml",
		"link": "certs", "loose/link": "../run/resolv.conf"} {
		if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "map/..2"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "map/..2/config.yaml"), []byte("new"), 0o644); err != nil {
		t.Fatal(err)
	}
}

// child confines this process as run does, and says what it can do then.
func child(dir string) {
	at := func(name string) string { return filepath.Join(dir, name) }
	open := func(name string) func() error {
		return func() error { _, err := os.ReadFile(name); return err }
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	kept, err := os.Open(at("private/key"))
	if err != nil {
		panic(err)
	}
	if err := To(Files{
		Read:  []string{at("etc/config.yaml"), at("link/ca.pem"), at("tokens/token"), at("catalogue"), at("map/config.yaml"), at("none/at/all")},
		Write: []string{at("state")},
	}.And(Resolver(at("loose/link"))).And(Machine())); err != nil {
		panic(err)
	}
	can := map[string]string{}
	try := func(what string, f func() error) {
		can[what] = "yes"
		if err := f(); err != nil {
			can[what] = "no"
			if !strings.Contains(err.Error(), "permission denied") && !strings.Contains(err.Error(), "operation not permitted") &&
				!strings.Contains(err.Error(), "cross-device link") { // what Landlock says of links and renames between folders
				can[what] = err.Error()
			}
		}
	}
	// Files of the configuration, as they are and after they were replaced.
	for _, name := range []string{"etc/config.yaml", "certs/ca.pem", "tokens/token", "catalogue/a.yaml", "catalogue/b.yaml", "map/config.yaml", "run/resolv.conf"} {
		try("read "+name, open(at(name)))
	}
	try("list catalogue", func() error { _, err := os.ReadDir(at("catalogue")); return err })
	// The parent replaces them now.
	fmt.Println("confined")
	fmt.Scanln()
	for _, name := range []string{"etc/config.yaml", "map/config.yaml", "catalogue/new.yaml"} {
		try("read new "+name, open(at(name)))
	}
	// The state.
	try("write state", func() error { return os.WriteFile(at("state/x.tmp"), []byte("x"), 0o600) })
	try("rename state", func() error { return os.Rename(at("state/x.tmp"), at("state/state.json")) })
	try("append state", func() error {
		f, err := os.OpenFile(at("state/events.jsonl"), os.O_RDWR|os.O_APPEND|os.O_CREATE, 0o600)
		if err == nil {
			f.Close()
		}
		return err
	})
	try("remove state", func() error { return os.Remove(at("state/events.jsonl")) })
	// What the agent looks at.
	try("read own status", open("/proc/self/status"))
	try("read routes", open("/proc/net/route"))
	try("list processes", func() error { _, err := os.ReadDir("/proc"); return err })
	try("list interfaces", func() error { _, err := os.ReadDir("/sys/class/net/lo/statistics"); return err })
	// What it served and had opened before.
	try("connect", func() error {
		c, err := net.Dial("tcp", l.Addr().String())
		if err == nil {
			c.Close()
		}
		return err
	})
	try("accept", func() error {
		c, err := l.Accept()
		if err == nil {
			c.Close()
		}
		return err
	})
	try("udp", func() error {
		c, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err == nil {
			c.Close()
		}
		return err
	})
	try("read what is open", func() error { _, err := kept.Read(make([]byte, 1)); return err })
	// What is somebody else's. Each by a thread of its own, too.
	for _, name := range []string{at("private/key"), at("loose/resolv.conf"), "/etc/passwd", os.Args[0]} {
		var threads sync.WaitGroup
		for range 4 {
			threads.Go(func() { runtime.LockOSThread(); open(name)() })
		}
		threads.Wait()
		try("read "+filepath.Base(name), open(name))
	}
	try("list private", func() error { _, err := os.ReadDir(at("private")); return err })
	try("link into state", func() error {
		if err := os.Symlink(at("private/key"), at("state/link")); err == nil {
			return open(at("state/link"))()
		}
		return syscall.EACCES
	})
	try("hard link into state", func() error { return os.Link(at("private/key"), at("state/hard")) })
	try("write configuration", func() error { return os.WriteFile(at("etc/config.yaml"), nil, 0o600) })
	try("write catalogue", func() error { return os.WriteFile(at("catalogue/c.yaml"), nil, 0o600) })
	try("write elsewhere", func() error { return os.WriteFile(at("private/new"), nil, 0o600) })
	try("make a folder in state", func() error { return os.Mkdir(at("state/d"), 0o700) })
	try("make a FIFO in state", func() error { return syscall.Mkfifo(at("state/f"), 0o600) })
	try("run a program", func() error { return exec.Command("/bin/true").Run() })
	try("run from state", func() error {
		if err := os.WriteFile(at("state/true"), []byte("#!/bin/sh\n"), 0o700); err != nil {
			return err
		}
		return exec.Command(at("state/true")).Run()
	})
	try("gain by a set-user-ID program", func() error {
		b, _ := os.ReadFile("/proc/self/status")
		if strings.Contains(string(b), "NoNewPrivs:\t1") {
			return syscall.EPERM
		}
		return nil
	})
	json.NewEncoder(os.Stdout).Encode(can)
}

// A process that has confined itself reads and writes what is its own, also
// after that was replaced, and nothing else.
func TestConfined(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	layout(t, dir)
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+dir)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	var word string
	if _, err := fmt.Fscanln(out, &word); err != nil || word != "confined" {
		t.Fatal(word, err)
	}
	// An editor's way, a Kubernetes volume's way, and a new file.
	at := func(name string) string { return filepath.Join(dir, name) }
	for _, err := range []error{
		os.WriteFile(at("etc/.new"), []byte("new"), 0o644), os.Rename(at("etc/.new"), at("etc/config.yaml")),
		os.Symlink("..2", at("map/..tmp")), os.Rename(at("map/..tmp"), at("map/..data")), os.RemoveAll(at("map/..1")),
		os.WriteFile(at("catalogue/new.yaml"), []byte("new"), 0o644),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	fmt.Fprintln(in)
	can := map[string]string{}
	if err := json.NewDecoder(out).Decode(&can); err != nil {
		t.Fatal(err)
	}
	no := []string{"read key", "read resolv.conf", "read passwd", "read " + filepath.Base(os.Args[0]), "list private", "link into state", "hard link into state",
		"write configuration", "write catalogue", "write elsewhere", "make a folder in state", "make a FIFO in state", "run a program", "run from state",
		"gain by a set-user-ID program"}
	want := map[string]string{}
	for what := range can {
		want[what] = "yes"
		if slices.Contains(no, what) {
			want[what] = "no"
		}
	}
	if len(can) < len(no)+15 {
		t.Errorf("only %d things were tried", len(can))
	}
	if Supported() == 0 {
		t.Log("this kernel has no Landlock: nothing is given up, and nothing is broken by that")
		for _, what := range no {
			want[what] = can[what]
		}
	}
	if d := cmp.Diff(want, can); d != "" {
		t.Errorf("Landlock %d:\n%s", Supported(), d)
	}
}

// What must stay open for a file is its folder, those of the links to it, and
// no more.
func TestPlaces(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	layout(t, dir)
	if err := os.Symlink("loop", filepath.Join(dir, "loop")); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string][]string{
		"etc/config.yaml":   {"etc"},
		"etc/missing.yaml":  {"etc"},
		"link/ca.pem":       {"link"},
		"map/config.yaml":   {"map", "map/..data"},
		"catalogue":         {"catalogue", "elsewhere"},
		"catalogue/../link": {"certs"},
		"loose/link":        {"loose", "run"},
	} {
		var got []string
		for _, p := range places(filepath.Join(dir, path)) {
			r, err := filepath.Rel(dir, p)
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, r)
		}
		if path == "catalogue/../link" { // a link to a folder: its own folder stays open, too
			got = got[1:]
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s: %s", path, d)
		}
	}
	if n := len(places(filepath.Join(dir, "loop"))); n != 40 {
		t.Errorf("a loop: %d", n)
	}
	// Of resolv.conf's links the first is not replaced.
	if d := cmp.Diff([]string{filepath.Join(dir, "run/resolv.conf")}, Resolver(filepath.Join(dir, "loose/link")).Read); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]string{filepath.Join(dir, "loose/resolv.conf")}, Resolver(filepath.Join(dir, "loose/resolv.conf")).Read); d != "" {
		t.Error(d)
	}
}
