package onset

import (
	"bytes"
	"context"
	"io"
	"testing"
	"time"
)

// fortyStreams is a messenger of forty streams, its controls among them.
func fortyStreams(tb testing.TB) *Engine {
	var ss []Stream
	add := func(n int, s Stream) {
		for k := range n {
			s.Endpoint = string(rune('a'+k%8)) + "." + string(s.Role)
			s.Target = string(rune('0' + k))
			if s.Role == Target {
				s.Path = string(rune('p' + k%4))
				s.Function = []string{"chat", "media", "web"}[k%3]
			}
			ss = append(ss, s)
		}
	}
	add(16, Stream{Messenger: "m", Check: "tls", Family: Conn, Role: Target})
	add(4, Stream{Messenger: "m", Check: "dns", Family: DNS, Role: Target})
	add(4, Stream{Messenger: "m", Check: "stun", Family: Calls, Role: Target})
	add(4, Stream{Messenger: "m", Check: "tcp", Family: Conn, Path: "p", Role: Sibling})
	add(8, Stream{Messenger: "control", Check: "tls", Family: Conn, Role: Control})
	add(4, Stream{Messenger: "m", Check: "tls", Family: Conn, Role: Reference})
	e, err := New(ss, Config{})
	if err != nil {
		tb.Fatal(err)
	}
	return e
}

func benchmarkOutcome(b *testing.B, fails func(n, s int) bool) {
	e := fortyStreams(b)
	n, s := len(e.streams), 0
	at := time.Unix(1e9, 0)
	step := func(k int) {
		at = at.Add(time.Minute / time.Duration(n))
		e.Started(s, at)
		e.Finished(s, at, 200*time.Millisecond, !fails(k, s))
		e.Advance(at.Add(time.Second))
		for _, r := range e.Requests() {
			e.Skipped(r)
		}
		e.Events()
		s = (s + 1) % n
	}
	for k := range 4000 { // the slices of events and requests grow to their size
		step(k)
	}
	b.ReportAllocs()
	for k := 0; b.Loop(); k++ {
		step(k)
	}
}

func BenchmarkOutcomeOK(b *testing.B) {
	benchmarkOutcome(b, func(int, int) bool { return false })
}

// Every other target fails: all hypotheses are awake.
func BenchmarkOutcomeBlocked(b *testing.B) {
	benchmarkOutcome(b, func(n, s int) bool { return s < 16 && n%2 == 0 })
}

func BenchmarkMarshal(b *testing.B) {
	e := fortyStreams(b)
	b.ReportAllocs()
	for b.Loop() {
		data, err := e.Marshal(time.Unix(1e9, 0))
		if err != nil {
			b.Fatal(err)
		}
		b.SetBytes(int64(len(data)))
	}
}

// BenchmarkReplayDay replays a day of a sparse trace of three messengers.
func BenchmarkReplayDay(b *testing.B) {
	o := usual
	o.hours, o.step = 24, 15
	trace := traceOf(b, newWorld(1, o), true)
	b.SetBytes(int64(len(trace)))
	for b.Loop() {
		if _, err := Replay(context.Background(), bytes.NewReader(trace), io.Discard, Config{}); err != nil {
			b.Fatal(err)
		}
	}
}

// TestSteady: an outcome costs no memory while nothing changes.
func TestSteady(t *testing.T) {
	e := fortyStreams(t)
	at := time.Unix(1e9, 0)
	k := 0
	step := func() {
		at = at.Add(1500 * time.Millisecond)
		s := k % len(e.streams)
		k++
		e.Started(s, at)
		e.Finished(s, at, 200*time.Millisecond, s != 3 || k%1000 > 40)
		e.Advance(at.Add(time.Second))
		for _, r := range e.Requests() {
			e.Skipped(r)
		}
		e.Events()
	}
	for range 4000 {
		step()
	}
	if n := testing.AllocsPerRun(4000, step); n > 0 {
		t.Errorf("%v allocations an outcome", n)
	}
}
