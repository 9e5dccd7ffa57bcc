package schedule

import (
	"context"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/messenger-probe/messenger-probe/probe"
)

// nothing is a prober that costs nothing.
var nothing = asks(func(context.Context, probe.Net) []probe.Step { return worked })

// BenchmarkRun is what a run costs beyond its prober: a runner that is always
// behind, so that it does nothing else. The floor is a goroutine with a deadline.
func BenchmarkRun(b *testing.B) {
	b.Run("runner", func(b *testing.B) {
		b.ReportAllocs()
		checks := several("telegram", 1000, nothing)
		for i := range checks {
			checks[i].Interval = 100 * time.Microsecond
			checks[i].Gate = checks[i].Endpoint
		}
		ctx, cancel := context.WithCancel(b.Context())
		n := 0
		r := New(nil, Options{Record: func(probe.Result) {
			if n++; n == b.N {
				cancel()
			}
		}})
		r.Set(checks)
		b.ResetTimer()
		if err := r.Run(ctx); err != nil {
			b.Error(err)
		}
	})
	b.Run("floor", func(b *testing.B) {
		b.ReportAllocs()
		var runs sync.WaitGroup
		var n atomic.Int64
		for range b.N {
			runs.Go(func() {
				ctx, cancel := context.WithTimeout(b.Context(), time.Minute)
				defer cancel()
				n.Add(int64(len(nothing.Probe(ctx, nil))))
			})
		}
		runs.Wait()
	})
}

// BenchmarkLag asks 10,000 checks a minute for some seconds of real time, each
// of them 100 ms long. The floor is the same number of bare timers.
func BenchmarkLag(b *testing.B) {
	const n, span = 10000, 6 * time.Second
	report := func(b *testing.B, lags []time.Duration) {
		slices.Sort(lags)
		b.ReportMetric(float64(len(lags))/span.Seconds(), "runs/s")
		b.ReportMetric(float64(lags[len(lags)*99/100])/1e6, "lag_p99_ms")
		b.ReportMetric(float64(lags[len(lags)-1])/1e6, "lag_max_ms")
	}
	b.Run("runner", func(b *testing.B) {
		var mu sync.Mutex
		var lags []time.Duration
		for range b.N {
			lags = lags[:0]
			r := New(nil, Options{Lag: func(d time.Duration) { mu.Lock(); lags = append(lags, d); mu.Unlock() }})
			r.Set(several("telegram", n, takes(100*time.Millisecond)))
			ctx, cancel := context.WithTimeout(b.Context(), span)
			if err := r.Run(ctx); err != nil {
				b.Error(err)
			}
			cancel()
		}
		report(b, lags)
	})
	b.Run("floor", func(b *testing.B) {
		var mu sync.Mutex
		var lags []time.Duration
		for range b.N {
			lags = lags[:0]
			var fired sync.WaitGroup
			began := time.Now()
			for at := time.Duration(0); at < span; at += time.Minute / n {
				fired.Add(1)
				time.AfterFunc(at, func() {
					defer fired.Done()
					d := time.Since(began) - at
					mu.Lock()
					lags = append(lags, d)
					mu.Unlock()
				})
			}
			fired.Wait()
		}
		report(b, lags)
	})
}

func heapInUse() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// BenchmarkMemory is what the runner keeps of each of 10,000 checks, the checks
// themselves apart.
func BenchmarkMemory(b *testing.B) {
	const n = 10000
	checks := several("telegram", n, nothing)
	var used uint64
	for range b.N {
		before := heapInUse()
		r := New(nil, Options{})
		r.Set(checks)
		used = heapInUse() - before
		runtime.KeepAlive(r)
	}
	runtime.KeepAlive(checks)
	b.ReportMetric(float64(used)/n, "B/check")
}

// BenchmarkSet is a reload of 10,000 checks of which every tenth is new.
func BenchmarkSet(b *testing.B) {
	checks := several("telegram", 11000, nothing)
	r := New(nil, Options{})
	for range b.N {
		b.StopTimer()
		r.Set(checks[:10000])
		b.StartTimer()
		r.Set(checks[1000:])
	}
}

// TestHourWithoutGrowth runs 10,000 checks a minute for an hour, with extra runs
// and follow-ups.
func TestHourWithoutGrowth(t *testing.T) {
	const n = 10000
	synctest.Test(t, func(t *testing.T) {
		checks := several("telegram", n, nothing)
		for i := range checks {
			checks[i].Gate = checks[i/4].Endpoint
		}
		runs := 0
		r := New(nil, Options{ExtraPerDay: 1e6, Record: func(probe.Result) { runs++ }})
		r.Set(checks)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- r.Run(ctx) }()
		minutes := func(m int) {
			for i := range m * 60 {
				time.Sleep(time.Second)
				r.Request(checks[i*7%n].ID())
				r.Go(check("telegram", n+i, nothing), func(probe.Result) {})
			}
		}
		minutes(5)
		before := heapInUse()
		minutes(60)
		after := heapInUse()
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		// 600,000 runs: a word kept of each would be 4.8 MB.
		if grown := int64(after) - int64(before); grown > 1<<20 {
			t.Errorf("heap grew by %d bytes", grown)
		}
		if runs < 64*n {
			t.Errorf("%d runs", runs)
		}
		t.Logf("%d runs, heap %d kB, then %d kB", runs, before>>10, after>>10)
	})
}
