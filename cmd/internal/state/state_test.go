package state

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestRoundTrip(t *testing.T) {
	dir := t.TempDir() + "/new"
	if s, err := Load(dir); err != nil || s.Proven != nil {
		t.Fatalf("no file: %v, %v", s, err)
	}
	want := State{Time: time.Unix(1800000000, 0).UTC(), Proven: []string{"a/b", "c"}}
	for range 2 { // the second writes over the first
		if err := Save(dir, want); err != nil {
			t.Fatal(err)
		}
	}
	got, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	files, _ := os.ReadDir(dir)
	if len(files) != 1 {
		t.Errorf("left behind: %v", files)
	}
}

func TestBadFiles(t *testing.T) {
	good, err := encode(State{Proven: []string{"x"}})
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{
		"empty":   {},
		"torn":    good[:len(good)/2],
		"foreign": []byte("hello"),
		"future":  bytes.Replace(good, []byte(`"version":1`), []byte(`"version":2`), 1),
		"altered": bytes.Replace(good, []byte(`"x"`), []byte(`"y"`), 1),
		"huge":    []byte(strings.Repeat(" ", maxFile+1)),
	} {
		dir := t.TempDir()
		os.WriteFile(dir+"/state.json", b, 0o600)
		if s, err := Load(dir); err == nil || s.Proven != nil {
			t.Errorf("%s: %v, %v", name, s, err)
		}
		if err := Save(dir, State{}); err != nil {
			t.Errorf("%s: cannot be replaced: %v", name, err)
		}
	}
}

// FuzzDecode: what is read is either a state that can be written again, or an
// error; also where the checksum fits.
func FuzzDecode(f *testing.F) {
	b, _ := encode(State{Proven: []string{"x"}, Onset: []byte("y"), Functions: []byte(`[{"state":"ok"}]`)})
	f.Add(b)
	f.Add([]byte(`{"version":1}`))
	f.Add([]byte(`{"proven":["x"],"functions":{"a":1e999},"onset":"eQ=="}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		decode(b, new(State))
		sum := sha256.Sum256(b)
		sealed := fmt.Appendf(nil, `{"version":%d,"checksum":"%x","state":%s}`, Version, sum, b)
		var s State
		if decode(sealed, &s) != nil {
			return
		}
		again, err := encode(s)
		if err != nil {
			t.Fatalf("%q cannot be written again: %v", b, err)
		}
		if err := decode(again, &s); err != nil {
			t.Fatalf("%q cannot be read again: %v", again, err)
		}
	})
}
