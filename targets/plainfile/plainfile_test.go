//go:build unix

package plainfile

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// What is no file is said to be none, at once, and nothing is written to it.
func TestNoFile(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	for _, err := range []error{
		os.WriteFile(at("file"), []byte("12345"), 0o600), os.Symlink("file", at("link")), os.Symlink("loop", at("loop")),
		os.Mkdir(at("folder"), 0o700), syscall.Mkfifo(at("fifo"), 0o600), os.Symlink("/dev/zero", at("zero")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]string{
		at("file"): "", at("link"): "", at("fifo"): "not a regular file", at("folder"): "not a regular file", at("zero"): "not a regular file",
		"/dev/zero": "not a regular file", "/dev/null": "not a regular file", at("loop"): "too many levels", at("none"): "no such file", at("file/../file"): "",
	} {
		start := time.Now()
		b, err := Read(name, 5)
		if want == "" && (err != nil || string(b) != "12345") || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %q, %v", name, b, err)
		}
		if took := time.Since(start); took > time.Second {
			t.Errorf("%s: %v", name, took)
		}
	}
	if _, err := Read(at("file"), 4); err == nil || !strings.Contains(err.Error(), "larger than 4 bytes") {
		t.Error(err)
	}
	for name, want := range map[string]string{"file": "", "new": "", "link": "symbolic link", "fifo": "", "folder": "directory", "zero": "symbolic link"} {
		f, err := Own(at(name), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
		if name == "fifo" { // no reader: not even opened
			if err == nil {
				t.Error("a FIFO is taken for a file")
			}
			continue
		}
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("own %s: %v", name, err)
		}
		if err == nil {
			f.Close()
		}
	}
}
