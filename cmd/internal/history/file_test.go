package history

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv("HISTORY_TEST_WRITE"); dir != "" {
		writeUntilKilled(dir)
	}
	goleak.VerifyTestMain(m)
}

// open is the history of a folder, which must be whole.
func open(t *testing.T, dir string, now time.Time) *History {
	t.Helper()
	h, err := Open(dir, now)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// log is the path of the file.
func log(dir string) string { return filepath.Join(dir, "history.log") }

func save(t *testing.T, h *History) {
	t.Helper()
	if err := h.Save(); err != nil {
		t.Fatal(err)
	}
}

// all is everything that is remembered of some functions.
func all(h *History, now time.Time) (s [][]Sum) {
	for _, k := range [][2]string{{"telegram", "chat"}, {"telegram", "calls"}, {"max", "chat"}, {"control", "vantage"}} {
		s = append(s, h.Read(k[0], k[1], now, Width, Kept))
	}
	return s
}

// live is a day of an agent: results, marks, and a save each minute. It returns
// the time at its end.
func live(t *testing.T, h *History, from time.Time, d time.Duration) time.Time {
	t.Helper()
	rng := rand.New(rand.NewPCG(3, uint64(from.Unix())))
	now := from
	for ; now.Before(from.Add(d)); now = now.Add(time.Minute) {
		for _, f := range []string{"chat", "calls"} {
			h.Record(now, "telegram", f, rng.IntN(4) > 0, time.Duration(rng.IntN(300))*time.Millisecond)
			h.Mark(now, "telegram", f, Mark(rng.IntN(int(lastMark)+1)))
		}
		h.Record(now, "max", "chat", true, 50*time.Millisecond)
		h.Mark(now, "control", "vantage", Online)
		save(t, h)
	}
	return now
}

// What was saved is there again, however it came into the file.
func TestRoundTrip(t *testing.T) {
	dir := t.TempDir()
	now := noon
	h := open(t, dir, now)
	for range 3 {
		now = live(t, h, now, 5*time.Hour)
		want := all(h, now)
		h = open(t, dir, now)
		if got := all(h, now); !reflect.DeepEqual(got, want) {
			t.Fatalf("%v", now)
		}
	}
	// After a week of silence it is forgotten, and after that gone from the file.
	now = now.Add(8 * 24 * time.Hour)
	h = open(t, dir, now)
	for _, sums := range all(h, now) {
		for _, s := range sums {
			if s.OK+s.Fail > 0 || s.Mark != None {
				t.Fatalf("%+v at %v", s, now)
			}
		}
	}
	h.file.stale = true
	h.Record(now, "max", "web", true, 0)
	save(t, h)
	if b := read(t, dir); bytes.Contains(b, []byte("telegram")) || !bytes.Contains(b, []byte("max")) {
		t.Errorf("%q", b)
	}
	// A folder that is not there yet is made.
	deep := filepath.Join(t.TempDir(), "a", "b")
	h = open(t, deep, now)
	h.Record(now, "max", "web", true, 0)
	save(t, h)
	if s := open(t, deep, now).Read("max", "web", now, Width, 1)[0]; s.OK != 1 {
		t.Errorf("%+v", s)
	}
}

func read(t *testing.T, dir string) []byte {
	t.Helper()
	b, err := os.ReadFile(log(dir))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// A file that ends anywhere is read up to there, said to be torn unless it ends
// with a frame, and whole again after the next save.
func TestTorn(t *testing.T) {
	dir := t.TempDir()
	h := open(t, dir, noon)
	now := live(t, h, noon, 12*time.Minute)
	b := read(t, dir)
	whole := map[int]bool{}
	for at := len(magic) + len(version); ; {
		whole[at] = true
		_, n, ok := frame(b[at:])
		if !ok {
			break
		}
		at += n
	}
	if !whole[len(b)] || len(whole) < 16 {
		t.Fatalf("%d frames, %v", len(whole), whole[len(b)])
	}
	before := -1
	for cut := range len(b) + 1 {
		for _, tail := range [][]byte{nil, make([]byte, 100), {0xff, 0xff, 1}} {
			dir := t.TempDir()
			if err := os.WriteFile(log(dir), slices.Concat(b[:cut], tail), 0o600); err != nil {
				t.Fatal(err)
			}
			h, err := Open(dir, now)
			if fine := whole[cut] && tail == nil; fine != (err == nil) || err != nil && !strings.Contains(err.Error(), log(dir)) {
				t.Fatalf("cut at %d, then %d bytes: %v", cut, len(tail), err)
			}
			n := 0
			for _, s := range last(h, now, Kept) {
				n += s.OK + s.Fail
			}
			if tail == nil && n < before || n > 12 {
				t.Fatalf("cut at %d: %d checks, %d one byte before", cut, n, before)
			}
			if tail == nil {
				before = n
			}
			if cut%7 > 0 {
				continue // to sync takes its time
			}
			h.Record(now, "telegram", "chat", true, 0)
			save(t, h)
			again := open(t, dir, now)
			if !reflect.DeepEqual(all(again, now), all(h, now)) {
				t.Fatalf("cut at %d: not the same after a save", cut)
			}
		}
	}
	if before != 12 {
		t.Errorf("%d checks at last", before)
	}
	// One bit that turned is as good as a tear.
	for at := len(magic) + len(version); at < len(b); at++ {
		bad := slices.Clone(b)
		bad[at] ^= 0x10
		dir := t.TempDir()
		if err := os.WriteFile(log(dir), bad, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(dir, now); err == nil {
			t.Fatalf("byte %d of %d turned, and nobody says so", at, len(b))
		}
	}
}

// What is none of ours is put aside, said, and no end.
func TestForeign(t *testing.T) {
	for name, text := range map[string]string{
		"another file":   "{\"version\": 1}\n",
		"binary":         "\x7fELF\x00\x00\x00\x00 and so on, for longer than the first line is",
		"of the future":  magic + "2\nwhatever",
		"far future":     magic + "1000000\nwhatever",
		"too large":      strings.Repeat("\x00", maxFile+1),
		"almost version": magic + "1x\n",
	} {
		dir := t.TempDir()
		if err := os.WriteFile(log(dir), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		h, err := Open(dir, noon)
		if err == nil || !strings.Contains(err.Error(), "history.old") {
			t.Errorf("%s: %v", name, err)
		}
		h.Record(noon, "telegram", "chat", true, 0)
		save(t, h)
		if s := last(open(t, dir, noon), noon, 1)[0]; s.OK != 1 {
			t.Errorf("%s: %+v", name, s)
		}
		if b, err := os.ReadFile(filepath.Join(dir, "history.old")); err != nil || string(b) != text {
			t.Errorf("%s: it is gone: %v", name, err)
		}
	}
	// A folder in its place is said, too, and harms nobody.
	dir := t.TempDir()
	if err := os.Mkdir(log(dir), 0o700); err != nil {
		t.Fatal(err)
	}
	h, err := Open(dir, noon)
	if err == nil {
		t.Error("a folder was read")
	}
	h.Record(noon, "telegram", "chat", true, 0)
	if err := h.Save(); err == nil {
		t.Error("a folder was overwritten")
	}
	if s := last(h, noon, 1)[0]; s.OK != 1 {
		t.Errorf("%+v", s)
	}
}

// Where the disk is full, or somebody else wrote, the next save mends it.
func TestSaveFails(t *testing.T) {
	dir := t.TempDir()
	h := open(t, dir, noon)
	now := live(t, h, noon, 10*time.Minute)
	f, err := os.OpenFile(log(dir), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	f.WriteString("half of a fra")
	f.Close()
	h.Record(now, "telegram", "chat", true, 0)
	if err := h.Save(); err == nil {
		t.Error("appended to what somebody else wrote")
	}
	save(t, h)
	if !reflect.DeepEqual(all(open(t, dir, now), now), all(h, now)) {
		t.Error("not mended")
	}
	if err := os.Remove(log(dir)); err != nil {
		t.Fatal(err)
	}
	h.Record(now, "telegram", "chat", true, 0)
	if err := h.Save(); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	save(t, h)
	if !reflect.DeepEqual(all(open(t, dir, now), now), all(h, now)) {
		t.Error("not mended")
	}
}

// A clock that was not set yet when the agent started costs nothing either.
func TestOpenBeforeTheClockIsSet(t *testing.T) {
	dir := t.TempDir()
	h := open(t, dir, noon)
	now := live(t, h, noon, 2*time.Hour)
	want := all(h, now)
	h = open(t, dir, time.Unix(60, 0))
	for i := range 20 {
		h.Record(time.Unix(int64(60*i), 0), "telegram", "chat", true, 0)
		save(t, h)
	}
	h.Mark(now.Add(-time.Minute), "control", "vantage", Online)
	if !reflect.DeepEqual(all(h, now), want) {
		t.Error("something is gone")
	}
	save(t, h)
	if !reflect.DeepEqual(all(open(t, dir, now), now), want) {
		t.Error("something is gone from the file")
	}
}

// The file stays small, however long the agent lives.
func TestSize(t *testing.T) {
	// As by default: 16 functions, and a week of them.
	h := open(t, "", noon)
	for n := range Kept + 100 {
		for f := range 16 {
			h.Record(noon.Add(time.Duration(n)*Width), "messenger", fmt.Sprint("function", f), n%7 > 0, 80*time.Millisecond)
			h.Mark(noon.Add(time.Duration(n)*Width), "messenger", fmt.Sprint("function", f), OK)
		}
	}
	t.Logf("%d bytes of file, and of memory %d a function", len(h.encode()), unsafe.Sizeof(series{}))
	if n := len(h.encode()); n > Kept*(16*6+12) {
		t.Errorf("%d bytes", n)
	}

	// What is appended does not pile up.
	dir := t.TempDir()
	h = open(t, dir, noon)
	now, anew := noon, 0
	for range 400 {
		for f := range MaxSeries {
			h.Record(now, "messenger", fmt.Sprint("function", f), true, 80*time.Millisecond)
		}
		before := h.file.full
		save(t, h)
		if h.file.full != before {
			anew++
		}
		info, err := os.Stat(log(dir))
		if err != nil {
			t.Fatal(err)
		}
		if frame := int64(MaxSeries * 10); info.Size() > max(2*h.file.full, minFile)+frame || info.Size() != h.file.size {
			t.Fatalf("%d bytes at %v, %d when it was written anew, %d known", info.Size(), now, h.file.full, h.file.size)
		}
		now = now.Add(time.Minute)
	}
	if anew < 3 {
		t.Errorf("written anew %d times", anew)
	}
	if !reflect.DeepEqual(open(t, dir, now).Read("messenger", "function7", now, Width, Kept), h.Read("messenger", "function7", now, Width, Kept)) {
		t.Error("not the same")
	}
}

// writeUntilKilled is the other process of TestKill.
func writeUntilKilled(dir string) {
	h, err := Open(dir, noon)
	if err != nil {
		fmt.Println("ERROR", err)
		os.Exit(1)
	}
	for i := 0; ; i++ {
		now := noon.Add(time.Duration(i) * time.Minute)
		h.Record(now, "telegram", "chat", true, 0)
		if i%5 == 4 {
			h.file.stale = true // write anew more often than a life would
		}
		if err := h.Save(); err != nil {
			fmt.Println("ERROR", err)
			os.Exit(1)
		}
		fmt.Println(i + 1)
	}
}

// Killed at any moment, what it said it had saved is there, in a file that is
// whole or torn at its end.
func TestKill(t *testing.T) {
	for round := range 12 {
		dir := t.TempDir()
		c := exec.CommandContext(t.Context(), os.Args[0])
		c.Env = append(os.Environ(), "HISTORY_TEST_WRITE="+dir)
		out, err := c.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		saved, lines := 0, bufio.NewScanner(out)
		for range 20 + 7*round {
			if !lines.Scan() {
				t.Fatal("it ended by itself")
			}
		}
		c.Process.Kill() // while it goes on
		for last := lines.Text(); ; last = lines.Text() {
			if _, err := fmt.Sscan(last, &saved); err != nil {
				t.Fatal(last)
			}
			if !lines.Scan() {
				break
			}
		}
		c.Wait()
		h, err := Open(dir, noon)
		if err != nil && !strings.Contains(err.Error(), "torn") {
			t.Fatal(err)
		}
		n := 0
		for _, s := range last(h, noon.Add(time.Duration(saved)*time.Minute), Kept) {
			n += s.OK
		}
		if n < saved || n > saved+1 {
			t.Errorf("%d saved, %d there (%v)", saved, n, err)
		}
	}
}

// Whatever is in the file, it is read or refused; and what was read is written
// and read again as it was.
func FuzzDecode(f *testing.F) {
	h, _ := Open("", noon)
	for i := range 20 {
		h.Record(noon.Add(time.Duration(i)*time.Minute), "telegram", "chat", i%3 > 0, 70*time.Millisecond)
		h.Mark(noon.Add(time.Duration(i)*time.Minute), "control", "vantage", Online)
	}
	whole := h.encode()
	f.Add(whole)
	f.Add(whole[:len(whole)/2])
	f.Add([]byte(magic + version))
	f.Add([]byte(magic + "2\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		roundTrip(t, b)
		// The same as contents of frames that have the right checksum.
		framed := []byte(magic + version)
		for part := range bytes.SplitSeq(b, []byte{'|'}) {
			if len(part) > 0 && len(part) < 1<<16 {
				framed = appendFrame(framed, func(b []byte) []byte { return append(b, part...) })
			}
		}
		roundTrip(t, framed)
	})
}

func roundTrip(t *testing.T, b []byte) {
	h, _ := Open("", noon)
	good, err := h.decode(b)
	if good > len(b) || err == nil && good != len(b) {
		t.Fatalf("%d of %d bytes, %v", good, len(b), err)
	}
	if len(h.series) > 256 {
		t.Fatalf("%d series", len(h.series))
	}
	h.purge()
	again, _ := Open("", noon)
	if _, err := again.decode(h.encode()); err != nil {
		t.Fatal(err)
	}
	for k, s := range h.series {
		if a := again.series[k]; a == nil || a.cells != s.cells {
			t.Fatalf("%v is not the same", k)
		}
	}
}

func BenchmarkSave(b *testing.B) {
	h, err := Open(b.TempDir(), noon)
	if err != nil {
		b.Fatal(err)
	}
	for i := 0; b.Loop(); i++ {
		now := noon.Add(time.Duration(i) * time.Minute)
		for f := range 16 {
			h.Record(now, "messenger", fmt.Sprint("function", f), true, 80*time.Millisecond)
		}
		if err := h.Save(); err != nil {
			b.Fatal(err)
		}
	}
}
