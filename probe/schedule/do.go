package schedule

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"slices"
	"time"

	"github.com/messenger-probe/messenger-probe/probe"
)

const (
	defaultTimeout  = 10 * time.Second
	defaultInterval = time.Minute
	defaultInFlight = 64
	defaultPerGate  = 2

	defaultBytesPerDay = 250e6

	// grace is how far past its deadline a run may end and still blame the peer.
	grace = time.Second
)

// Do runs one check once, with a deadline of its own: c.Timeout, 10 s where
// that is not positive. It is false where nothing was asked.
//
// A failed run counts for nothing where ctx ended during it (cancelled), where
// it panicked (panic), where this machine has no route to the address (local), or
// where it ended more than a second after its deadline by the wall clock (local):
// then this machine slept or was too slow to hear an answer that may have been
// there. A run that worked counts all the same.
func Do(ctx context.Context, n probe.Net, c probe.Check) (probe.Result, bool) {
	timeout := c.Timeout
	if timeout <= 0 {
		timeout = defaultTimeout
	}
	m := &probe.Meter{Net: n}
	r := probe.Result{Check: c, Start: time.Now()}
	r.Steps, r.Void = ask(ctx, timeout, m, c.Prober, r.Start)
	end := time.Now()
	r.Took = end.Sub(r.Start)
	r.Sent, r.Received = m.Sent(), m.Received()
	if f := r.Failed(); r.Void == "" && f != nil {
		// Round strips the monotonic reading, which stands still in a suspend.
		switch wall := end.Round(0).Sub(r.Start.Round(0)); {
		case ctx.Err() != nil:
			r.Void = probe.ReasonCancelled
		case wall > timeout+grace,
			f.Failure == probe.FailureNetworkUnreachable && f.Addr.IsValid() && !probe.Routed(ctx, n, f.Addr):
			r.Void = probe.ReasonLocal
		}
	}
	return r, len(r.Steps) > 0
}

func ask(ctx context.Context, timeout time.Duration, n probe.Net, p probe.Prober, start time.Time) (steps []probe.Step, void probe.Reason) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	defer func() {
		if v := recover(); v != nil {
			steps = []probe.Step{{
				Op:      probe.OpRequest,
				Start:   start,
				Took:    time.Since(start),
				Failure: probe.FailureUnknown,
				Err:     fmt.Errorf("panic: %v\n%s", v, debug.Stack()),
			}}
			void = probe.ReasonPanic
		}
	}()
	return p.Probe(ctx, n), ""
}

// Once runs every check once, at most parallel at a time (64 where that is not
// positive) and two of equal Gate, and calls record as each ends, one call at a
// time. Whoever has most waiting behind it at its gate goes first, so that no
// gate is left with a long queue at the end; among equals the order is random,
// since one that is always the same could be recognised, and since what filters
// remember of one question must not always meet the same other. What has not
// begun when ctx ends is not asked. A run that asked nothing is not recorded.
func Once(ctx context.Context, n probe.Net, checks []probe.Check, parallel int, record func(probe.Result)) {
	if parallel <= 0 {
		parallel = defaultInFlight
	}
	type ended struct {
		r     probe.Result
		asked bool
	}
	var (
		queue    = order(checks)
		busy     = make(map[string]int)
		inFlight int
		ends     = make(chan ended)
	)
	// A gate holds back only its own: the first in the queue that may go, goes.
	next := func() int {
		if inFlight == parallel || ctx.Err() != nil {
			return -1
		}
		return slices.IndexFunc(queue, func(i int) bool {
			g := checks[i].Gate
			return g == "" || busy[g] < defaultPerGate
		})
	}
	for {
		for at := next(); at >= 0; at = next() {
			c := checks[queue[at]]
			queue = slices.Delete(queue, at, at+1)
			inFlight++
			busy[c.Gate]++
			go func() {
				r, asked := Do(ctx, n, c)
				ends <- ended{r, asked}
			}()
		}
		if inFlight == 0 {
			return
		}
		e := <-ends
		inFlight--
		busy[e.r.Check.Gate]--
		if e.asked {
			record(e.r)
		}
	}
}

// order is the indices of checks, those with most behind them at their gate
// first, and among equals at random.
func order(checks []probe.Check) []int {
	queue := rand.Perm(len(checks))
	behind := make([]int, len(checks))
	atGate := make(map[string]int)
	for _, i := range slices.Backward(queue) {
		if g := checks[i].Gate; g != "" {
			behind[i] = atGate[g]
			atGate[g]++
		}
	}
	slices.SortStableFunc(queue, func(a, b int) int { return cmp.Compare(behind[b], behind[a]) })
	return queue
}
