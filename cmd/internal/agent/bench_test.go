package agent

import (
	"log/slog"
	"testing"
	"time"

	"github.com/messenger-probe/messenger-probe/probe"
)

type deafSink struct{}

func (deafSink) Record(probe.Result) {}
func (deafSink) Judged(Snapshot)     {}
func (deafSink) Confirming(string)   {}
func (deafSink) Changed(Change)      {}

// measured is an agent that has a result of every check of the catalogue.
func measured(tb testing.TB) (*Agent, []probe.Check) {
	checks := catalogue(tb, known{})
	a := New(Options{Net: nowhere{}, Sink: deafSink{}, Log: slog.New(slog.DiscardHandler)})
	a.Set(checks, time.Minute)
	for range history {
		for i := range checks {
			a.receive(probe.Result{Check: checks[i], Start: time.Now(), Took: time.Millisecond, Steps: []probe.Step{{Op: probe.OpConnect}}})
		}
	}
	return a, checks
}

// BenchmarkReceive is what a result costs the agent beside its sinks; the
// controls among them have the vantage judged.
func BenchmarkReceive(b *testing.B) {
	for name, steps := range map[string][]probe.Step{
		"ok":   {{Op: probe.OpConnect}},
		"fail": {{Op: probe.OpConnect, Failure: probe.FailureConnectionReset}},
	} {
		b.Run(name, func(b *testing.B) {
			a, checks := measured(b)
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				a.receive(probe.Result{Check: checks[i%len(checks)], Start: time.Now(), Steps: steps})
				i++
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "results/s")
		})
	}
}

// BenchmarkStep is what a second costs in which something happened.
func BenchmarkStep(b *testing.B) {
	a, _ := measured(b)
	b.ReportAllocs()
	for b.Loop() {
		a.dirty = true
		a.step(time.Now())
	}
}

// The agent keeps up with far more than is ever measured, also when everything
// fails at once.
func TestThroughput(t *testing.T) {
	for name, f := range map[string]probe.Failure{"ok": "", "fail": probe.FailureConnectionReset} {
		a, checks := measured(t)
		began := time.Now()
		const n = 10_000
		for i := range n {
			a.receive(probe.Result{Check: checks[i%len(checks)], Start: time.Now(), Steps: []probe.Step{{Op: probe.OpConnect, Failure: f}}})
			if i%(n/10) == 0 {
				a.step(time.Now())
			}
		}
		// A second would do; the machine may be busy, and the race detector on.
		if d := time.Since(began); d > 10*time.Second {
			t.Errorf("%s: 10,000 results took %v", name, d)
		} else {
			t.Logf("%s: 10,000 results took %v", name, d)
		}
	}
}
