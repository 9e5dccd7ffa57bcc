package metrics

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/messenger-probe/messenger-probe/probe"
)

const ratioOf = `success_ratio{check="tcp",function="chat",messenger="telegram",window=`

// Twenty-five hours of a check a minute: a day that works, then half an hour
// that does not, then silence. What each window says is counted by hand.
func TestRatioWindows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := New(Options{})
		c := check("telegram", "chat", "dc2", probe.ProtoTCP, probe.IP4)
		m.SetChecks([]probe.Check{c})
		start := time.Now()
		run := func(n int, f probe.Failure) {
			for range n {
				m.Record(probe.Result{Check: c, Steps: []probe.Step{step(probe.OpConnect, time.Millisecond, f)}})
				time.Sleep(time.Minute)
			}
		}
		ratios := func(m5, h1, h24 string) {
			t.Helper()
			want(t, m, map[string]string{ratioOf + `"5m"}`: m5, ratioOf + `"1h"}`: h1, ratioOf + `"24h"}`: h24})
		}

		ratios("", "", "")
		run(1440, "")
		ratios("1", "1", "1")

		// At 24 h 30 min: failures at 24:00 … 24:29. The hour reaches back to
		// 23:31, its slot of a minute included: 29 ok, 30 fail. The day reaches
		// back to 0:45: 1395 ok, 30 fail.
		run(30, probe.FailureTimeout)
		ratios("0", "0.4915254237288136", "0.9789473684210527")

		// At 25 h: nothing in five minutes; the hour has 24:01 … 24:29; the day
		// from 1:15 on has 1365 ok, 30 fail.
		time.Sleep(30 * time.Minute)
		if got := time.Since(start); got != 25*time.Hour {
			t.Fatalf("at %v", got)
		}
		ratios("", "0", "0.978494623655914")

		// An hour's silence empties the hour, a day's the day, which now begins at
		// 1:45: 1335 ok, 30 fail.
		time.Sleep(30 * time.Minute)
		ratios("", "", "0.978021978021978")
		time.Sleep(24 * time.Hour)
		ratios("", "", "")

		// And it begins anew. The first of these is five minutes old at the end.
		run(4, "")
		run(1, probe.FailureTimeout)
		ratios("0.75", "0.8", "0.8")
	})
}

// The rings against the plain definition: every outcome kept with its time.
func TestWindowsAgainstDefinition(t *testing.T) {
	start := time.Unix(0, 0)
	w := newWindows(start)
	type event struct {
		at time.Duration
		ok bool
	}
	var events []event
	var now time.Duration
	seed := uint64(1)
	random := func(n uint64) uint64 { // xorshift64, enough for odd gaps
		seed ^= seed << 13
		seed ^= seed >> 7
		seed ^= seed << 17
		return seed % n
	}
	for range 3000 {
		switch random(40) {
		case 0:
			now += time.Duration(random(uint64(30 * time.Hour)))
		case 1:
			now += time.Duration(random(uint64(2 * time.Hour)))
		default:
			now += time.Duration(random(uint64(time.Minute)))
		}
		e := event{now, random(3) > 0}
		events = append(events, e)
		if e.ok {
			w.add(start.Add(now), tally{ok: 1})
		} else {
			w.add(start.Add(now), tally{fail: 1})
		}
		got := w.tallies(start.Add(now))
		for i, span := range spans {
			first := int64(now/span.slot) - int64(span.slots) + 1
			var expect tally
			for _, e := range events {
				if int64(e.at/span.slot) < first {
					continue
				}
				if e.ok {
					expect.ok++
				} else {
					expect.fail++
				}
			}
			if got[i] != expect {
				t.Fatalf("at %v, window %s has %+v, want %+v", now, span.label, got[i], expect)
			}
		}
	}
}

// A clock that steps back loses nothing and stops nothing.
func TestWindowsClockBack(t *testing.T) {
	start := time.Unix(1_000_000, 0)
	w := newWindows(start)
	w.add(start.Add(time.Minute), tally{ok: 1})
	w.add(start.Add(-time.Hour), tally{fail: 1})
	if got := w.tallies(start.Add(-time.Hour))[0]; got != (tally{1, 1}) {
		t.Errorf("%+v after a step back", got)
	}
	if got := w.tallies(start.Add(10 * time.Minute))[0]; got != (tally{}) {
		t.Errorf("%+v after ten minutes", got)
	}
}

func BenchmarkWindows(b *testing.B) {
	start := time.Now()
	w := newWindows(start)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		w.add(start.Add(time.Duration(i)*time.Second), tally{ok: 1})
	}
}
