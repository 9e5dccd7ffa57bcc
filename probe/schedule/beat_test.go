package schedule

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// TestBeatBounds holds for any interval, phase and jitter: a beat is at most a
// fifth of the interval off, the next 0.6 to 1.4 intervals later, and the same
// holds of neighbours and their share.
func TestBeatBounds(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		interval := time.Second + time.Duration(rnd.Int64N(int64(24*time.Hour)))
		b := beats{interval: interval, phase: time.Duration(rnd.Int64N(int64(interval))), group: rnd.Uint64()}
		neighbour := b
		share := interval / time.Duration(2+rnd.IntN(50))
		neighbour.phase += share
		start := rnd.Int64N(1e4)
		for k := start; k < start+20; k++ {
			at := b.at(k)
			if off := (at - b.phase - time.Duration(k)*interval).Abs(); off > interval/5 {
				t.Fatalf("%+v: beat %d is %v off", b, k, off)
			}
			between(t, fmt.Sprintf("%+v: beats %d and %d", b, k, k+1), b.at(k+1)-at, interval)
			if neighbour.phase < interval {
				between(t, fmt.Sprintf("%+v: beat %d and that of its neighbour", b, k), neighbour.at(k)-at, share)
			} else {
				wrapped := neighbour
				wrapped.phase -= interval
				between(t, fmt.Sprintf("%+v: beat %d and the next of its neighbour", b, k), wrapped.at(k+1)-at, share)
			}
		}
	}
}

// between fails unless gap is 0.6 to 1.4 times share.
func between(t *testing.T, what string, gap, share time.Duration) {
	t.Helper()
	const rounding = 10
	if gap < share*6/10-rounding || gap > share*14/10+rounding {
		t.Errorf("%s: %v apart, want 0.6 to 1.4 times %v", what, gap, share)
	}
}

// TestJitterIsUsed: the beats really move, in both directions, and another seed
// moves them otherwise.
func TestJitterIsUsed(t *testing.T) {
	a := beats{interval: time.Minute, group: 1}
	b := beats{interval: time.Minute, group: 2}
	var least, most, differ time.Duration
	for k := range int64(1000) {
		off := a.at(k) - time.Duration(k)*time.Minute
		least, most = min(least, off), max(most, off)
		differ = max(differ, (a.at(k) - b.at(k)).Abs())
	}
	if least > -11*time.Second || most < 11*time.Second || differ < 15*time.Second {
		t.Errorf("moved by %v to %v, two groups by up to %v", least, most, differ)
	}
}

func TestNext(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	for range 2000 {
		interval := time.Second + time.Duration(rnd.Int64N(int64(time.Hour)))
		b := beats{interval: interval, phase: time.Duration(rnd.Int64N(int64(interval))), group: rnd.Uint64()}
		for range 10 {
			was := b.k
			after := b.at(was) + time.Duration((rnd.Float64()*5-1)*float64(interval))
			at, skipped := b.next(after)
			if at <= after || at != b.at(b.k) || b.k-was != skipped || skipped < 0 {
				t.Fatalf("%+v: next after %v is %v, having skipped %d from %d", b, after, at, skipped, was)
			}
			if b.k > was && b.at(b.k-1) > after {
				t.Fatalf("%+v: skipped beat %d, which comes after %v", b, b.k-1, after)
			}
		}
	}
}

func TestFirst(t *testing.T) {
	rnd := rand.New(rand.NewPCG(5, 6))
	for range 2000 {
		short := time.Second + time.Duration(rnd.Int64N(int64(time.Hour)))
		interval := short * time.Duration(1+rnd.IntN(12))
		b := beats{interval: interval, phase: time.Duration(rnd.Int64N(int64(interval))), group: rnd.Uint64()}
		now := time.Duration(rnd.Int64N(int64(100 * time.Hour)))
		at := b.first(now, short)
		if at < now || at >= now+short {
			t.Fatalf("%+v: first run at %v, want within %v of %v", b, at, short, now)
		}
		b.k++
		next, _ := b.next(at)
		if gap := next - at; gap < interval*3/10-10 || gap > interval*17/10+10 || (short == interval && (gap < interval*8/10-10 || gap > interval*12/10+10)) {
			t.Fatalf("%+v: second run %v after the first", b, gap)
		}
	}
}

func TestSpread(t *testing.T) {
	gaps := func(phases []time.Duration, interval time.Duration) (least, most time.Duration) {
		phases = slices.Sorted(slices.Values(phases))
		least = interval
		for i, p := range phases {
			if p < 0 || p >= interval {
				t.Fatalf("phase %v of %v", p, interval)
			}
			next := phases[(i+1)%len(phases)]
			if i+1 == len(phases) {
				next += interval
			}
			least, most = min(least, next-p), max(most, next-p)
		}
		return least, most
	}
	for _, n := range []int{1, 2, 7, 40, 999} {
		phases := spread(nil, n, 50*time.Second, time.Minute)
		share := time.Minute / time.Duration(n)
		if least, most := gaps(phases, time.Minute); len(phases) != n || least < share-10 || most > share+10 {
			t.Errorf("%d phases: gaps %v to %v, want all %v", len(phases), least, most, share)
		}
		// Those that are added halve the widest gaps.
		for _, more := range []int{1, n, 3 * n} {
			all := slices.Concat(phases, spread(phases, more, 0, time.Minute))
			least, most := gaps(all, time.Minute)
			if len(all) != n+more || least < share/4-10 || (more >= n && most > share/2+10) {
				t.Errorf("%d phases and %d: gaps %v to %v, share was %v", n, more, least, most, share)
			}
		}
	}
}
