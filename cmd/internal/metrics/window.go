package metrics

import (
	"sync"
	"time"
)

// spans are the windows of the success ratio. Each is a ring of slots, the
// newest one still filling, so that a window reaches back by its length at
// most, and at least by that less one slot.
var spans = [...]struct {
	label string
	slot  time.Duration
	slots int
}{
	{"5m", 10 * time.Second, 30},
	{"1h", time.Minute, 60},
	{"24h", 15 * time.Minute, 96},
}

type tally struct{ ok, fail uint32 }

// windows is the outcomes of the last 24 hours, in constant memory: about
// 1.5 kB. Time is counted from start on, on the monotonic clock where there is
// one, so that setting the wall clock neither empties nor stops a window.
type windows struct {
	start time.Time

	mu    sync.Mutex
	rings [len(spans)]ring
}

// ring is the sum over its slots and the slots themselves.
type ring struct {
	slots []tally
	head  int64 // the newest slot, counted from start
	sum   tally
}

func newWindows(start time.Time) *windows {
	w := &windows{start: start}
	for i := range w.rings {
		w.rings[i].slots = make([]tally, spans[i].slots)
	}
	return w
}

func (w *windows) add(now time.Time, t tally) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.advance(now)
	for i := range w.rings {
		r := &w.rings[i]
		s := &r.slots[r.head%int64(len(r.slots))]
		s.ok += t.ok
		s.fail += t.fail
		r.sum.ok += t.ok
		r.sum.fail += t.fail
	}
}

// tallies is what each of spans holds now.
func (w *windows) tallies(now time.Time) (t [len(spans)]tally) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.advance(now)
	for i := range w.rings {
		t[i] = w.rings[i].sum
	}
	return t
}

// advance empties the slots that time has passed over.
func (w *windows) advance(now time.Time) {
	since := now.Sub(w.start)
	for i := range w.rings {
		r, n := &w.rings[i], int64(spans[i].slots)
		head := int64(since / spans[i].slot)
		if head-r.head >= n { // all of them
			clear(r.slots)
			r.head, r.sum = head, tally{}
		}
		for r.head < head {
			r.head++
			s := &r.slots[r.head%n]
			r.sum.ok -= s.ok
			r.sum.fail -= s.fail
			*s = tally{}
		}
	}
}
