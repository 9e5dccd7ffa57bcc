package onset

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
)

// traceOf writes a world as a trace that begins at Unix time t0.
func traceOf(t testing.TB, w *world, sparse bool) []byte {
	const t0 = 1767225600
	type stream struct {
		ID        int     `json:"id"`
		Messenger string  `json:"messenger"`
		Endpoint  string  `json:"endpoint"`
		Check     string  `json:"check"`
		Family    string  `json:"family"`
		Path      string  `json:"path"`
		Role      Role    `json:"role"`
		Phase     float64 `json:"phase"`
	}
	codes := map[string]any{}
	for c, x := range worldCodes {
		codes[string(c)] = []any{x.failure, x.dur}
	}
	encoding := "dense"
	if sparse {
		encoding = "sparse"
	}
	head := map[string]any{"format": Format, "start": t0, "end": t0 + w.length, "interval": worldPeriod, "timeout": worldTimeout,
		"encoding": encoding, "schedule": "staggered", "recheck_step": w.step, "codes": codes}
	var ss []stream
	for i, s := range w.streams {
		ss = append(ss, stream{i, s.Messenger, s.Endpoint, s.Check, s.Family, s.Path, s.Role, s.phase})
	}
	head["streams"] = ss
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	if err := enc.Encode(head); err != nil {
		t.Fatal(err)
	}
	w.each(func(s int, at int64, a answer) {
		n := int((float64(at)*1e-9 - w.streams[s].phase + .001) / worldPeriod)
		re := ""
		if w.streams[s].Role != Reference {
			for k := 1; k < int(worldPeriod/w.step); k++ {
				re += string(w.outcome(s, n, k))
			}
			re = strings.TrimRight(re, ".")
		}
		c := w.outcome(s, n, 0)
		if sparse && a.ok && re == "" {
			return
		}
		r := map[string]any{"time": t0 + float64(at/1e6)/1e3, "id": s, "messenger": w.streams[s].Messenger, "ok": a.ok, "dur": float64(a.took) * 1e-9}
		if !a.ok {
			r["failure"] = worldCodes[c].failure
		}
		if re != "" {
			r["re"] = re
		}
		if err := enc.Encode(r); err != nil {
			t.Fatal(err)
		}
	})
	return out.Bytes()
}

func replay(t testing.TB, trace []byte) (string, Stats) {
	t.Helper()
	var out bytes.Buffer
	st, err := Replay(context.Background(), bytes.NewReader(trace), &out, Config{})
	if err != nil {
		t.Fatal(err)
	}
	return out.String(), st
}

// TestReplay: dense, sparse and gzip say the same, the same bytes twice, and
// what the engine says when it is driven directly.
func TestReplay(t *testing.T) {
	for _, name := range []string{"hard", "calls_only", "flapping", "x_vantage_outage"} {
		w := scenario(name, 77, usual)
		dense := traceOf(t, w, false)
		want, st := replay(t, dense)
		if again, _ := replay(t, dense); again != want {
			t.Errorf("%s: another replay, other events", name)
		}
		sparse, st2 := replay(t, traceOf(t, w, true))
		if d := cmp.Diff(want, sparse); d != "" {
			t.Errorf("%s: sparse: %s", name, d)
		}
		if st != st2 || st.Regular != int(w.length/worldPeriod)*len(w.streams) || st.Extra == 0 {
			t.Errorf("%s: %+v, sparse %+v", name, st, st2)
		}
		var z bytes.Buffer
		zw := gzip.NewWriter(&z)
		zw.Write(dense)
		zw.Close()
		if packed, _ := replay(t, z.Bytes()); packed != want {
			t.Errorf("%s: gzip: other events", name)
		}
		evs, st3 := play(w, Config{})
		if st3 != st {
			t.Errorf("%s: %+v, driven directly %+v", name, st, st3)
		}
		var lines []string
		for line := range strings.Lines(want) {
			var e struct {
				Time             float64
				State            State
				Messenger, Scope string
				Evidence         string
			}
			if err := json.Unmarshal([]byte(line), &e); err != nil {
				t.Fatal(err)
			}
			lines = append(lines, fmt.Sprintf("%.3f %s %s %s", e.Time-1767225600, e.State, e.Messenger, e.Scope))
		}
		var direct []string
		for _, e := range evs {
			direct = append(direct, fmt.Sprintf("%.3f %s %s %s", float64(e.Time.UnixMilli())/1e3, e.State, e.Messenger, e.Scope))
		}
		if d := cmp.Diff(direct, lines); d != "" {
			t.Errorf("%s: driven directly: %s", name, d)
		}
		if len(lines) == 0 {
			t.Errorf("%s: no events", name)
		}
	}
}

// TestCausal: what a prefix of a trace says by its last record is what the
// whole trace says by then.
func TestCausal(t *testing.T) {
	for _, name := range []string{"hard", "partial50", "under_burst", "flapping"} {
		trace := traceOf(t, scenario(name, 5, usual), false)
		full, _ := replay(t, trace)
		lines := bytes.SplitAfter(trace, []byte("\n"))
		for n := len(lines) * 5 / 10; n < len(lines)-1; n += 331 {
			var last, e struct{ Time float64 }
			if err := json.Unmarshal(lines[n-1], &last); err != nil {
				t.Fatal(err)
			}
			part, _ := replay(t, bytes.Join(lines[:n], nil))
			must := ""
			for line := range strings.Lines(full) {
				if json.Unmarshal([]byte(line), &e); e.Time <= last.Time {
					must += line
				}
			}
			if !strings.HasPrefix(part, must) {
				t.Fatalf("%s: the first %d lines say\n%s, not\n%s", name, n, part, must)
			}
		}
	}
}

func TestReplayGap(t *testing.T) {
	w := newWorld(4, usual)
	for _, sparse := range []bool{false, true} {
		trace := string(traceOf(t, w, sparse))
		head, rest, _ := strings.Cut(trace, "\n")
		var kept strings.Builder
		gap := false
		for line := range strings.Lines(rest) {
			var r struct{ Time float64 }
			json.Unmarshal([]byte(line), &r)
			if r.Time >= 1767225600+3600 && r.Time < 1767225600+7200 {
				if !gap {
					gap = true
					kept.WriteString(`{"gap":true,"time":1767229200,"until":1767232800}` + "\n")
				}
				continue
			}
			kept.WriteString(line)
		}
		_, st := replay(t, []byte(head+"\n"+kept.String()))
		if want := 180 * len(w.streams); st.Regular != want {
			t.Errorf("sparse %v: %d regular probes, want %d", sparse, st.Regular, want)
		}
	}
}

const goodHead = `{"format":"onset-trace/1","start":1000,"end":2000,"interval":60,"timeout":5,"encoding":"dense","recheck_step":5,` +
	`"codes":{"t":["timeout",5.0]},"streams":[{"id":0,"messenger":"m","endpoint":"e","check":"tls","family":"conn","path":"p","role":"target","phase":1.3}]}`

// TestBadTrace: an error names line and field.
func TestBadTrace(t *testing.T) {
	head := func(old, new string) string {
		if !strings.Contains(goodHead, old) {
			t.Fatalf("%q is not in the header", old)
		}
		return strings.Replace(goodHead, old, new, 1)
	}
	sparse := head(`"dense"`, `"sparse"`)
	for _, c := range []struct{ trace, want string }{
		{"", "line 1: format"},
		{"nonsense", "line 1: line"},
		{"{}", "line 1: format"},
		{head("onset-trace/1", "onset-trace/2"), "line 1: format"},
		{head(`"start":1000`, `"start":"x"`), "line 1: start"},
		{head(`"start":1000`, `"start":-1`), "line 1: start"},
		{head(`"end":2000`, `"end":1e300`), "line 1: end"},
		{head(`"end":2000`, `"end":999`), "line 1: end"},
		{head(`"interval":60`, `"interval":0`), "line 1: interval"},
		{head(`"timeout":5`, `"timeout":1e9`), "line 1: timeout"},
		{head(`"recheck_step":5`, `"recheck_step":1e-9`), "line 1: recheck_step"},
		{head(`"dense"`, `"thick"`), "line 1: encoding"},
		{head(`["timeout",5.0]`, `["timeout"]`), "line 1: codes"},
		{head(`["timeout",5.0]`, `["timeout",-5]`), "line 1: codes"},
		{head(`"id":0`, `"id":1`), "line 1: streams.id"},
		{head(`"phase":1.3`, `"phase":61`), "line 1: streams.phase"},
		{head(`"conn"`, `"tcp"`), "family"},
		{head(`"target"`, `"aim"`), "role"},
		{head(`"role":"target"`, `"role":"control"`), "no stream is a target"},
		{head(`{"id":0,`, `{"id":0},{"id":0,`), "line 1: streams.id"},
		{goodHead + "\n{\"time\":1001.3,\"id\":0}", "line 2: ok"},
		{goodHead + "\n{\"time\":1001.3,\"ok\":true}", "line 2: id"},
		{goodHead + "\n{\"id\":0,\"ok\":true}", "line 2: time"},
		{goodHead + "\n\n{\"time\":1001.3,\"id\":7,\"ok\":true}", "line 3: id"},
		{goodHead + "\n{\"time\":1001.3,\"id\":0,\"ok\":\"yes\"}", "line 2: ok"},
		{goodHead + "\n{\"time\":1001.3,\"id\":0,\"ok\":true,\"dur\":-1}", "line 2: dur"},
		{goodHead + "\n{\"time\":1001.3,\"id\":0,\"ok\":true,\"re\":\"q\"}", "line 2: re"},
		{goodHead + "\n{\"time\":5,\"id\":0,\"ok\":true}", "line 2: time"},
		{goodHead + "\n{\"time\":1061.3,\"id\":0,\"ok\":true}\n{\"time\":1001.3,\"id\":0,\"ok\":true}", "line 3: time"},
		{goodHead + "\n{\"gap\":true,\"time\":1061.3}", "line 2: until"},
		{goodHead + "\n{\"gap\":true,\"time\":1061.3,\"until\":1000}", "line 2: until"},
		{goodHead + "\n{\"time\":1001.3", "line 2: line"},
		{goodHead + "\n\"" + strings.Repeat("x", maxLine+1), "line 2: line"},
		{sparse + "\n{\"time\":1002.3,\"id\":0,\"ok\":false}", "line 2: time"},
		{"\x1f\x8bnot gzip at all", "gzip"},
	} {
		_, err := Replay(context.Background(), strings.NewReader(c.trace), io.Discard, Config{})
		if !errors.Is(err, ErrTrace) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%.80q: %v, want %s", c.trace, err, c.want)
		}
	}
	if _, err := Replay(context.Background(), strings.NewReader(goodHead), io.Discard, Config{}); err != nil {
		t.Errorf("a trace without records: %v", err)
	}
}

// TestReplayEnds: a broken reader, a broken writer and a cancelled context end
// a replay with their errors.
func TestReplayEnds(t *testing.T) {
	broken := errors.New("broken")
	trace := traceOf(t, scenario("hard", 5, usual), false)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	for name, f := range map[string]func() error{
		"reader": func() error {
			_, err := Replay(context.Background(), io.MultiReader(bytes.NewReader(trace[:len(trace)/2]), iotest.ErrReader(broken)), io.Discard, Config{})
			return err
		},
		"writer": func() error {
			_, err := Replay(context.Background(), bytes.NewReader(trace), brokenWriter{broken}, Config{})
			return err
		},
		"context": func() error {
			_, err := Replay(ctx, bytes.NewReader(trace), io.Discard, Config{})
			if errors.Is(err, context.Canceled) {
				return broken
			}
			return err
		},
	} {
		if err := f(); err == nil || !strings.Contains(err.Error(), "broken") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

type brokenWriter struct{ err error }

func (w brokenWriter) Write([]byte) (int, error) { return 0, w.err }

func FuzzReplay(f *testing.F) {
	o := usual
	o.hours = .2
	o.loss = .2
	w := newWorld(1, o)
	w.length = 300
	f.Add(traceOf(f, w, false))
	f.Add(traceOf(f, w, true))
	f.Add([]byte(goodHead + "\n{\"time\":1001.3,\"id\":0,\"ok\":false,\"dur\":5,\"re\":\"tt.t\"}\n{\"gap\":true,\"time\":1061.3,\"until\":1500}\n"))
	f.Fuzz(func(t *testing.T, trace []byte) {
		// A header may ask for a hundred years of a sparse trace; the fuzzer
		// has no such time.
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		n := 0
		var out writerFunc = func(b []byte) (int, error) {
			if n += len(b); n > 1<<20 {
				cancel()
			}
			return len(b), nil
		}
		if bytes.Contains(trace, []byte("sparse")) && !bytes.Contains(trace, []byte(`"end":1767225900,`)) {
			return
		}
		if _, err := Replay(ctx, bytes.NewReader(trace), out, Config{}); err != nil && !errors.Is(err, ErrTrace) && !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
	})
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }
