package events

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func event(i int) Event {
	return Event{Time: time.Unix(1800000000+int64(i), 0).UTC(), Messenger: "telegram", Function: "chat",
		State: "blocked", Was: "ok", Evidence: []string{fmt.Sprint("number ", i)}}
}

// open is a log whose complaints fail the test.
func open(t *testing.T, dir string) *Log {
	t.Helper()
	l, err := Open(dir, func(err error) { t.Error(err) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l
}

func TestSurvivesARestartAndATornLine(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	l := open(t, dir)
	for i := range 3 {
		l.Append(event(i))
	}
	l.Close()
	path := filepath.Join(dir, "events.jsonl")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b[:len(b)-20], 0o600); err != nil { // a crash in the third
		t.Fatal(err)
	}
	if l = open(t, dir); len(l.Recent()) != 2 {
		t.Fatalf("%d events", len(l.Recent()))
	}
	l.Append(event(9))
	l.Close()
	if l = open(t, dir); len(l.Recent()) != 3 || l.Recent()[0].Evidence[0] != "number 9" {
		t.Fatalf("%v", l.Recent())
	}
}

func TestBounds(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "events.jsonl")
	if err := os.WriteFile(path, []byte(strings.Repeat("x\n", maxFile)), 0o600); err != nil {
		t.Fatal(err)
	}
	l := open(t, dir)
	for i := range Kept + 10 {
		l.Append(event(i))
	}
	l.Close()
	if n := len(l.Recent()); n != Kept {
		t.Errorf("%d events in memory", n)
	}
	if st, err := os.Stat(path); err != nil || st.Size() > maxFile {
		t.Errorf("not rotated: %v, %v", st.Size(), err)
	}
}

func TestUnwritable(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	complaints := 0
	l, _ := Open(filepath.Join(dir, "file"), func(error) { complaints++ }) // a file where a folder belongs
	l.Append(event(1))
	l.Close()
	if complaints != 1 {
		t.Errorf("%d complaints", complaints)
	}
	if len(l.Recent()) != 1 {
		t.Error("lost from memory, too")
	}
}

// A disk that stands still holds up nobody, costs a bounded number of events,
// and says so; those in memory are all there.
func TestDiskStandsStill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		complaints, wrote := 0, 0
		l := &Log{complain: func(error) { complaints++ }}
		moves := make(chan struct{})
		l.start(func(b []byte) error { <-moves; wrote += bytes.Count(b, []byte("\n")); return nil })
		const n = 3 * queued
		for i := range n {
			l.Append(event(i))
		}
		synctest.Wait()
		if complaints < queued-1 || complaints > n-queued || len(l.Recent()) != Kept {
			t.Errorf("%d complaints, %d in memory", complaints, len(l.Recent()))
		}
		close(moves)
		l.Close()
		t.Logf("%d of %d written", wrote, n)
		if wrote+complaints != n {
			t.Errorf("%d written, %d complained of, %d in all", wrote, complaints, n)
		}
		l.Append(event(n)) // after its end: nothing panics
	})
}

func TestWrite(t *testing.T) {
	l := open(t, "")
	l.Append(event(1))
	var b bytes.Buffer
	if err := l.Write(&b); err != nil {
		t.Fatal(err)
	}
	var doc struct{ Events []Event }
	if err := json.Unmarshal(b.Bytes(), &doc); err != nil || len(doc.Events) != 1 || doc.Events[0].Messenger != "telegram" {
		t.Errorf("%s: %v", b.String(), err)
	}
}

// FuzzOpen: whatever stands in the file, the log opens, and what is appended is
// there when it is opened again.
func FuzzOpen(f *testing.F) {
	good, _ := json.Marshal(event(1))
	f.Add(append(good, '\n'))
	f.Add(good)
	f.Add([]byte("{}\nnull\n[]\n\xff\n"))
	f.Add(bytes.Repeat([]byte("x"), maxLine+1))
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := os.WriteFile(filepath.Join(dir, "events.jsonl"), b, 0o600); err != nil {
			t.Fatal(err)
		}
		l := open(t, dir)
		if n := len(l.Recent()); n > Kept {
			t.Errorf("%d events in memory", n)
		}
		if err := l.Write(io.Discard); err != nil {
			t.Errorf("%q cannot be shown: %v", b, err)
		}
		l.Append(event(7))
		l.Close()
		l = open(t, dir)
		if last := l.Recent(); len(last) == 0 || !last[0].Time.Equal(event(7).Time) {
			t.Errorf("after %.100q the event is lost", b)
		}
	})
}
