package schedule

import (
	"container/heap"
	"context"
	"errors"
	"sync"
	"time"

	"github.com/messenger-probe/messenger-probe/probe"
)

// Options of a Runner. The zero value has every default.
type Options struct {
	MaxInFlight int // runs at a time; default 64
	PerGate     int // runs at a time with equal Check.Gate; default 2

	// Spacing is the least time from the end of a run to an extra run of the
	// same check, and from an extra run to the next beat; default 2 s.
	Spacing time.Duration

	// ExtraPerDay is how many extra runs a messenger may have in any 24 hours,
	// follow-ups included; half of them may come at once. Default 5000, some 5 %
	// of the runs of 70 checks a minute; negative: none.
	ExtraPerDay int

	// BytesPerDay is what all runs of checks with Check.Bytes may move in any 24
	// hours, in both directions; an eighth of it may go at once. Beats for which
	// there is nothing left are skipped, extra runs refused. Default 250e6;
	// negative: no limit. [Runner.Limit] changes it.
	BytesPerDay int64

	// Seed of the jitter; 0 is a seed like any other. Two runners of one seed
	// and the same checks have the same beats.
	Seed uint64

	// Record takes the result of each run that asked something. It is called
	// for one run at a time, and must be quick: the others wait for it to end.
	// It may call Request and Go, but not Set.
	Record func(probe.Result)

	// Lag takes how late each run starts: after its time or, where it had to
	// wait for its gate or a place among the MaxInFlight, after that was free. It
	// tells an overloaded machine from a blocked messenger, whose checks all
	// take their full time and so wait for each other. After a stall that made
	// beats be skipped, it takes how late the latest of them was. It may be
	// called for several runs at once.
	Lag func(time.Duration)
}

// A Runner runs checks on their beats. Make one with [New]; its methods may be
// called from any goroutine.
//
// A prober that does not heed its deadline keeps its place among the
// MaxInFlight, and at its gate, until it returns, and is recorded then; the
// others go on with the places that are left.
type Runner struct {
	net  probe.Net
	o    Options
	wake chan struct{} // tells Run that the heap or a queue has changed
	runs sync.WaitGroup

	// recording is held from the end of a run until it is recorded, so that no
	// result of a check comes after the Set that removed it. It is taken before mu.
	recording sync.Mutex

	mu        sync.Mutex
	state     state
	origin    time.Time // when Run began: all times count from it
	entries   map[string]*entry
	due       dueHeap             // what waits for its time
	ready     dueHeap             // due, waiting for a place
	atGate    map[string][]*entry // due, waiting for their gate
	inGate    map[string]int      // runs in flight, by gate
	inFlight  int
	followUps int           // accepted and not ended
	pass      int64         // number of the dispatch
	letIn     time.Duration // when something that had waited could last go on
	skipped   int64
	extras    map[string]*budget // of extra runs, by messenger
	bytes     *budget            // of bytes; nil: no limit
}

type state int

const (
	idle state = iota
	running
	stopped
)

// An entry is a check and when it runs. It is in one place at a time: in a heap,
// at a gate, or with the goroutine that runs it. So it never runs beside itself.
type entry struct {
	id    string
	check probe.Check
	beats

	// scheduled: it has beats. Else it is a follow-up, or has been removed while
	// it was waiting or in flight, and goes when that ends.
	scheduled bool

	beat, extra time.Duration // next beat and next extra run, or never
	due         time.Duration // the sooner of the two; while busy, the one it is busy with
	free        time.Duration // from when on it may have an extra run
	busy        bool          // due: queued, or in flight
	queued      bool          // waiting for its gate or a place
	isExtra     bool          // what it is busy with is an extra run
	pass        int64         // the dispatch that found it due

	done  func(probe.Result) // of a follow-up that has not started
	index int                // in its heap
}

// New makes a runner without checks.
func New(n probe.Net, o Options) *Runner {
	if o.MaxInFlight <= 0 {
		o.MaxInFlight = defaultInFlight
	}
	if o.PerGate <= 0 {
		o.PerGate = defaultPerGate
	}
	if o.Spacing <= 0 {
		o.Spacing = 2 * time.Second
	}
	if o.ExtraPerDay == 0 {
		o.ExtraPerDay = 5000
	}
	if o.BytesPerDay == 0 {
		o.BytesPerDay = defaultBytesPerDay
	}
	if o.Record == nil {
		o.Record = func(probe.Result) {}
	}
	if o.Lag == nil {
		o.Lag = func(time.Duration) {}
	}
	r := &Runner{
		net:     n,
		o:       o,
		wake:    make(chan struct{}, 1),
		entries: make(map[string]*entry),
		atGate:  make(map[string][]*entry),
		inGate:  make(map[string]int),
		extras:  make(map[string]*budget),
	}
	r.Limit(o.BytesPerDay)
	return r
}

// Limit changes how many bytes a day may be moved, see [Options]; 0 is none. What
// has been spent stays so.
func (r *Runner) Limit(bytesPerDay int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if bytesPerDay < 0 {
		r.bytes = nil
		return
	}
	b := newBudget(float64(bytesPerDay), 1./8, r.now())
	if old := r.bytes; old != nil {
		b.left = max(0, b.left-(old.most-old.left))
	}
	r.bytes = b
}

// Run runs the checks until ctx is done. Runs in flight are then cancelled,
// recorded as such, and waited for: a prober that does not heed its context
// keeps Run from returning. A Runner runs once.
func (r *Runner) Run(ctx context.Context) error {
	r.mu.Lock()
	if r.state != idle {
		r.mu.Unlock()
		return errors.New("schedule: a Runner runs once")
	}
	r.state, r.origin = running, time.Now()
	r.mu.Unlock()

	timer := time.NewTimer(0)
	defer timer.Stop()
	for ctx.Err() == nil {
		timer.Reset(r.dispatch(ctx))
		select {
		case <-ctx.Done():
		case <-timer.C:
		case <-r.wake:
		}
	}
	r.stop()
	return nil
}

func (r *Runner) stop() {
	r.mu.Lock()
	r.state = stopped
	r.mu.Unlock()
	r.runs.Wait()

	r.recording.Lock()
	defer r.recording.Unlock()
	r.mu.Lock()
	var waiting []*entry
	for _, e := range r.entries {
		if e.done != nil {
			waiting = append(waiting, e)
		}
	}
	r.mu.Unlock()
	for _, e := range waiting {
		e.done(probe.Result{Check: e.check, Start: time.Now(), Void: probe.ReasonCancelled})
	}
}

// Set gives the runner its checks, before Run or, as a reload, during it. A
// check that keeps its ID and interval keeps its beat, whatever else of it has
// changed; a new one has its first run within the shortest interval; of one
// that is gone no result is recorded once Set has returned, though a run in
// flight finishes. Of several checks with one ID the last is taken. An interval
// that is not positive is a minute. Set waits for a Record in progress.
func (r *Runner) Set(checks []probe.Check) {
	r.recording.Lock()
	defer r.recording.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()

	wanted := make(map[string]probe.Check, len(checks))
	short := never
	for _, c := range checks {
		if c.Interval <= 0 {
			c.Interval = defaultInterval
		}
		wanted[c.ID()] = c
		short = min(short, c.Interval)
	}

	type group struct {
		messenger string
		interval  time.Duration
	}
	taken := make(map[group][]time.Duration)
	for id, e := range r.entries {
		c, ok := wanted[id]
		switch {
		case ok && e.scheduled && e.interval == c.Interval:
			e.check = c
			delete(wanted, id)
			g := group{c.Messenger, c.Interval}
			taken[g] = append(taken[g], e.phase)
		case !ok && e.scheduled:
			e.scheduled, e.beat = false, never
			if e.done == nil {
				e.extra = never
			}
			r.moved(e)
		}
	}

	fresh := make(map[group][]string)
	for id, c := range wanted {
		g := group{c.Messenger, c.Interval}
		fresh[g] = append(fresh[g], id)
	}
	now := r.now()
	for g, ids := range fresh {
		takeTurns(ids, func(id string) string { return wanted[id].Protocol })
		base := time.Duration(hash(g.messenger) % uint64(g.interval))
		for i, phase := range spread(taken[g], len(ids), base, g.interval) {
			e := r.entries[ids[i]]
			if e == nil {
				e = &entry{id: ids[i], extra: never}
				r.entries[e.id] = e
				heap.Push(&r.due, e)
			}
			e.check, e.scheduled = wanted[e.id], true
			e.beats = beats{interval: g.interval, phase: phase, group: mix(r.o.Seed ^ mix(hash(g.messenger)+uint64(g.interval)))}
			e.beat = e.first(now, short)
			r.moved(e)
		}
	}
	// Those at a gate may have been removed, or have another gate now.
	for _, q := range r.atGate {
		for _, e := range q {
			heap.Push(&r.ready, e)
		}
	}
	clear(r.atGate)
	r.letIn = now
	r.poke()
}

// Request asks for an extra run of a check: now, or Spacing after the end of
// its last. Where one is to come already, or the check waits for its gate or a
// place, that is the run asked for and costs nothing. Request is false where the
// check is unknown, the budget of its messenger is spent, or Run is not running.
// It is true, and nothing comes of it, where only the bytes are spent by then.
func (r *Runner) Request(id string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	e, now := r.entries[id], r.now()
	if r.state != running || e == nil || !e.scheduled {
		return false
	}
	if e.extra != never || e.queued {
		return true
	}
	if !r.spend(e.check.Messenger, now) {
		return false
	}
	e.extra = max(now, e.free)
	r.moved(e)
	r.poke()
	return true
}

// Go runs a follow-up: a check that has no beats, once, now. Its result goes to
// done, never to Record; done is called exactly once, in the same way as
// Record, also where nothing was asked (no steps) or the runner stops first
// (cancelled). Go is false, and done is not called, where a check of that ID is
// known, the budget of its messenger or that of bytes is spent, too many follow-ups
// have not ended (four times MaxInFlight), or Run is not running.
func (r *Runner) Go(c probe.Check, done func(probe.Result)) bool {
	id := c.ID()
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.now()
	if r.state != running || r.entries[id] != nil || r.followUps >= 4*r.o.MaxInFlight || !r.spend(c.Messenger, now) || !r.afford(c.Bytes, now) {
		return false
	}
	r.followUps++
	e := &entry{id: id, check: c, beat: never, extra: now, due: now, done: done}
	r.entries[id] = e
	heap.Push(&r.due, e)
	r.poke()
	return true
}

// Skipped is how many beats have not been run, because their check was still
// waiting or in flight or had just had an extra run, or because of a stall, or for
// want of bytes.
func (r *Runner) Skipped() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.skipped
}

// dispatch starts what is due and says how long there is nothing more to do.
func (r *Runner) dispatch(ctx context.Context) time.Duration {
	var late time.Duration
	r.mu.Lock()
	r.pass++
	now := r.now()
	for len(r.due) > 0 && r.due[0].due <= now {
		e := r.due[0]
		e.isExtra = e.extra <= e.beat
		if lag := now - e.due; !e.isExtra && lag > e.interval/jitterPart {
			r.skip(e, now)
			r.moved(e)
			late = max(late, lag)
			continue
		}
		if e.isExtra {
			e.extra = never
		}
		if e.done == nil && !r.afford(e.check.Bytes, now) {
			if !e.isExtra {
				r.skip(e, now)
			}
			r.moved(e)
			continue
		}
		if !e.isExtra {
			e.k++
		}
		e.busy, e.queued, e.pass = true, true, r.pass
		heap.Pop(&r.due)
		heap.Push(&r.ready, e)
	}
	for len(r.ready) > 0 && r.inFlight < r.o.MaxInFlight {
		e := heap.Pop(&r.ready).(*entry)
		switch g := e.check.Gate; {
		case !e.scheduled && e.done == nil:
			r.refund(e.check.Bytes)
			delete(r.entries, e.id)
		case g != "" && r.inGate[g] >= r.o.PerGate:
			r.atGate[g] = append(r.atGate[g], e)
		default:
			r.start(ctx, e)
		}
	}
	wait := time.Hour
	if len(r.due) > 0 {
		wait = r.due[0].due - now
	}
	r.mu.Unlock()
	if late > 0 {
		r.o.Lag(late)
	}
	return wait
}

func (r *Runner) start(ctx context.Context, e *entry) {
	e.queued = false
	r.inFlight++
	if g := e.check.Gate; g != "" {
		r.inGate[g]++
	}
	planned := e.due
	if e.pass != r.pass {
		planned = max(planned, r.letIn)
	}
	r.runs.Add(1)
	go r.run(ctx, e, e.check, planned, e.done)
	e.done = nil
}

func (r *Runner) run(ctx context.Context, e *entry, c probe.Check, planned time.Duration, done func(probe.Result)) {
	defer r.runs.Done()
	r.o.Lag(r.now() - planned)
	result, asked := Do(ctx, r.net, c)
	end := r.now()

	r.recording.Lock()
	defer r.recording.Unlock()
	wanted := r.ended(e, &result, end, done != nil)
	switch {
	case done != nil:
		done(result)
	case wanted && asked:
		r.o.Record(result)
	}
}

// ended gives back the places of a run and finds the next time of its check. It
// is false where the check has been removed.
func (r *Runner) ended(e *entry, result *probe.Result, end time.Duration, followUp bool) bool {
	gate := result.Check.Gate
	r.mu.Lock()
	defer r.mu.Unlock()
	if c := &result.Check; c.Bytes > 0 {
		r.refund(c.Bytes - result.Sent - result.Received)
	}
	r.inFlight--
	r.letIn = end
	if gate != "" {
		if r.inGate[gate]--; r.inGate[gate] == 0 {
			delete(r.inGate, gate)
		}
		if q := r.atGate[gate]; len(q) > 0 {
			heap.Push(&r.ready, q[0])
			q[0] = nil
			if r.atGate[gate] = q[1:]; len(q) == 1 {
				delete(r.atGate, gate)
			}
		}
	}
	if followUp {
		r.followUps--
	}
	if e.scheduled {
		e.free = end + r.o.Spacing
		if e.extra != never {
			e.extra = max(e.extra, e.free)
		}
		if e.isExtra {
			end = e.free
		}
		r.skip(e, end)
		e.busy = false
		e.due = min(e.beat, e.extra)
		heap.Push(&r.due, e)
	} else {
		delete(r.entries, e.id)
	}
	r.poke()
	return e.scheduled
}

// skip makes the first beat after t that has not been the next of e.
func (r *Runner) skip(e *entry, t time.Duration) {
	beat, skipped := e.next(t)
	e.beat = beat
	r.skipped += skipped
}

// moved puts e at its place after its times have changed, unless it is in a
// queue or in flight: then its end sees to that.
func (r *Runner) moved(e *entry) {
	if e.busy {
		return
	}
	if e.due = min(e.beat, e.extra); e.due != never {
		heap.Fix(&r.due, e.index)
		return
	}
	heap.Remove(&r.due, e.index)
	delete(r.entries, e.id)
}

// now is the time since Run began, 0 before.
func (r *Runner) now() time.Duration {
	if r.origin.IsZero() {
		return 0
	}
	return time.Since(r.origin)
}

func (r *Runner) poke() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// A budget is a bucket. It holds some of a day's worth and regains the rest in a
// day, so that no 24 hours have more than a day's worth.
type budget struct {
	most, left float64
	perDay     float64       // what it regains
	at         time.Duration // when it was last looked at
}

func newBudget(perDay, atOnce float64, now time.Duration) *budget {
	return &budget{most: perDay * atOnce, left: perDay * atOnce, perDay: perDay * (1 - atOnce), at: now}
}

// take takes n, where there is as much.
func (b *budget) take(n float64, now time.Duration) bool {
	b.left = min(b.most, b.left+b.perDay*float64(now-b.at)/float64(24*time.Hour))
	b.at = now
	if b.left < n {
		return false
	}
	b.left -= n
	return true
}

// spend takes one extra run from the budget of a messenger.
func (r *Runner) spend(messenger string, now time.Duration) bool {
	if r.o.ExtraPerDay < 0 {
		return false
	}
	b := r.extras[messenger]
	if b == nil {
		b = newBudget(max(2, float64(r.o.ExtraPerDay)), 1./2, now)
		r.extras[messenger] = b
	}
	return b.take(1, now)
}

// afford takes the bytes that a run is about to move.
func (r *Runner) afford(bytes int64, now time.Duration) bool {
	return bytes <= 0 || r.bytes == nil || r.bytes.take(float64(bytes), now)
}

// refund gives back what a run did not move, or takes what it moved beyond that.
func (r *Runner) refund(bytes int64) {
	if r.bytes != nil {
		r.bytes.left = min(r.bytes.most, r.bytes.left+float64(bytes))
	}
}

// dueHeap is a container/heap of entries, the soonest due first.
type dueHeap []*entry

func (h dueHeap) Len() int           { return len(h) }
func (h dueHeap) Less(i, j int) bool { return h[i].due < h[j].due }
func (h dueHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}
func (h *dueHeap) Push(x any) {
	e := x.(*entry)
	e.index = len(*h)
	*h = append(*h, e)
}
func (h *dueHeap) Pop() any {
	last := len(*h) - 1
	e := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return e
}
