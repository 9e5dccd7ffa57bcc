// Package notify tells people of blocks and recoveries: by a webhook, ntfy,
// Telegram or mail. The agent hands it changes and never waits for it.
//
// A change waits for others that come with it, and is told only if it is still
// so. What is told goes into an outbox, which survives a restart, and is tried
// until the target has it or it is no news any more. A message may come twice,
// after a crash between a delivery and its note; it has the same id then.
package notify

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/messenger-probe/messenger-probe/probe/verdict"
)

// A Change is a change of the state of one function of a messenger.
type Change struct {
	Messenger  string             `json:"messenger"`
	Title      string             `json:"title"` // what people call it
	Function   string             `json:"function"`
	State      verdict.State      `json:"state"`
	Was        verdict.State      `json:"was"` // of a recovery what was told before
	Mechanism  verdict.Mechanism  `json:"mechanism,omitempty"`
	Confidence verdict.Confidence `json:"confidence,omitempty"`
	Since      time.Time          `json:"since"`          // when it came into State, as far as outcomes tell
	Began      time.Time          `json:"began,omitzero"` // of a recovery: the Since that was told before
	Relapse    bool               `json:"relapse,omitempty"`
	Evidence   []string           `json:"evidence,omitempty"`
}

// A Store keeps one value across restarts. Load leaves into as it is where
// nothing was kept yet.
type Store interface {
	Load(into any) error
	Save(value any) error
}

// Options are what a Notifier is made of.
type Options struct {
	// Window is how long a change waits for others, so that they are told in one
	// message.
	Window time.Duration

	Store Store // nil: what waits is lost at a restart
	Log   *slog.Logger
}

// The bounds of what is tried again.
const (
	firstPause = 5 * time.Second
	lastPause  = 10 * time.Minute
	// farewell is for how long what is not delivered yet is tried at the end.
	farewell = 2 * time.Second
)

// A Notifier tells an audience what changes. Its methods do not block.
type Notifier struct {
	o    Options
	wake chan struct{} // of one: there is something new

	mu       sync.Mutex
	ledger   ledger
	box      outbox
	audience *Audience
	couriers map[string]*courier // by target
	dirty    bool                // what is kept is older than what is known
	unkept   bool                // that it cannot be kept was said
}

// A courier is what is known of the deliveries to one target.
type courier struct {
	sender sender
	busy   bool
	failed int       // tries in a row
	next   time.Time // no try before
	why    string    // the newest try failed, as it was said; "" it did not
}

// memory is what survives a restart.
type memory struct {
	Accounts []*account `json:"accounts"`
	Outbox   []*message `json:"outbox"`
}

// New is a notifier without an audience. It begins with what its store kept,
// and without it where that cannot be read, which is logged.
func New(o Options) *Notifier {
	n := &Notifier{o: o, wake: make(chan struct{}, 1), ledger: ledger{window: o.Window, accounts: map[key]*account{}}, audience: &Audience{}}
	if o.Store == nil {
		return n
	}
	var m memory
	if err := o.Store.Load(&m); err != nil {
		o.Log.Warn("what waited to be told is not readable and is lost", "error", err)
		return n
	}
	now := time.Now()
	n.ledger.restore(now, m.Accounts)
	n.box.restore(now, m.Outbox)
	return n
}

// Set changes who is told from now on. What waits for a target of the same name
// waits on, and is tried at once.
func (n *Notifier) Set(a *Audience) {
	n.mu.Lock()
	defer n.mu.Unlock()
	couriers := make(map[string]*courier, len(a.names))
	for i, name := range a.names {
		c := n.couriers[name]
		if c == nil {
			c = &courier{}
		}
		c.sender, c.failed, c.next, c.why = a.senders[i], 0, time.Time{}, ""
		couriers[name] = c
	}
	n.audience, n.couriers, n.ledger.on = a, couriers, a.on
	n.dirty = n.dirty || len(n.box) > 0 || len(n.ledger.accounts) > 0
	n.box.retain(a.names)
	if len(a.names) == 0 {
		clear(n.ledger.accounts) // nobody is told anything
	}
	n.stir()
}

// touch marks what is known as changed. The lock is held.
func (n *Notifier) touch() {
	n.dirty = true
	n.stir()
}

// stir has Run look again.
func (n *Notifier) stir() {
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

// Changed takes a change.
func (n *Notifier) Changed(c Change) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.couriers) == 0 {
		return
	}
	n.ledger.change(time.Now(), c)
	n.touch()
}

// Shown takes the states of all functions, as they are shown now. It is to be
// called after each judgement.
func (n *Notifier) Shown(vs []verdict.Verdict) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ledger.show(vs) {
		n.touch()
	}
}

// Run tells and delivers until ctx is done. Then what waits is told at once and
// tried for two seconds more; the rest stays in the store.
func (n *Notifier) Run(ctx context.Context) {
	trying, giveUp := context.WithCancel(context.WithoutCancel(ctx))
	defer giveUp()
	var tries sync.WaitGroup
	for ctx.Err() == nil {
		again := n.turn(trying, &tries, false)
		select {
		case <-ctx.Done():
		case <-n.wake:
		case <-again:
		}
	}
	time.AfterFunc(farewell, giveUp)
	for trying.Err() == nil {
		n.turn(trying, &tries, true)
		if !n.trying() && len(n.wake) == 0 {
			break
		}
		select {
		case <-trying.Done():
		case <-n.wake:
		}
	}
	giveUp()
	tries.Wait()
	n.keep()
}

// turn does what is due, and says when something will be.
func (n *Notifier) turn(ctx context.Context, tries *sync.WaitGroup, early bool) <-chan time.Time {
	n.mu.Lock()
	now := time.Now()
	if changes := n.ledger.take(now, early); changes != nil {
		own := addresses()
		for i := range changes {
			changes[i].Evidence = public(changes[i].Evidence, own)
		}
		n.lost(n.box.add(now, changes, n.audience.names), "too much waits")
		n.dirty = true
	}
	if old := n.box.expire(now); len(old) > 0 {
		n.lost(old, "too old")
		n.dirty = true
	}
	n.mu.Unlock()

	// Before the first try: what a crash repeats then has the same id.
	n.keep()

	n.mu.Lock()
	defer n.mu.Unlock()
	next := n.ledger.due()
	for name, c := range n.couriers {
		m := n.box.first(name)
		if m == nil || c.busy {
			continue
		}
		at := earlier(c.next, m.born.Add(life))
		if early && c.failed > 0 || !early && now.Before(c.next) {
			if next.IsZero() || at.Before(next) {
				next = at
			}
			continue
		}
		c.busy = true
		l := m.letter(n.audience.words, n.audience.vantage)
		s := c.sender
		tries.Go(func() { n.deliver(ctx, name, c, s, &l) })
	}
	if next.IsZero() {
		return nil
	}
	return time.After(time.Until(next))
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// trying says whether a delivery is under way.
func (n *Notifier) trying() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, c := range n.couriers {
		if c.busy {
			return true
		}
	}
	return false
}

// deliver tries one letter once.
func (n *Notifier) deliver(ctx context.Context, target string, c *courier, s sender, l *letter) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	err := s.send(ctx, l)
	if context.Cause(ctx) == context.Canceled {
		err = context.Canceled // even where it looks like something else
	}

	n.mu.Lock()
	defer n.mu.Unlock()
	defer n.touch()
	c.busy = false
	switch {
	case err == nil:
		n.box.strike(l.id, target)
		if c.why != "" {
			n.o.Log.Info("a target of notifications takes them again", "target", target)
		}
		n.o.Log.Info("notified", "target", target, "title", l.title)
		c.failed, c.next, c.why = 0, time.Time{}, ""
		return
	case context.Cause(ctx) == context.Canceled:
		return // we are being stopped
	}
	why := reason(err)
	f, ok := errors.AsType[*fault](err)
	if ok && f.refused {
		n.box.strike(l.id, target)
		n.o.Log.Error("a notification is refused and lost", "target", target, "title", l.title, "why", why)
		return
	}
	if c.sender != s {
		return // the target is another one now
	}
	if c.why != why {
		n.o.Log.Warn("a target of notifications does not take them; they wait and are tried again", "target", target, "why", why)
		c.why = why
	}
	pause := min(firstPause<<min(c.failed, 16), lastPause)
	pause = pause/2 + rand.N(pause/2)
	if ok {
		pause = max(pause, f.after)
	}
	c.failed++
	c.next = time.Now().Add(pause)
}

// lost says what will not be told any more.
func (n *Notifier) lost(ms []*message, why string) {
	for _, m := range ms {
		n.o.Log.Error("a notification was not delivered and is lost", "targets", m.To, "title", english.title(m.Changes, ""), "why", why)
	}
}

// keep writes down what is known, if it is new.
func (n *Notifier) keep() {
	n.mu.Lock()
	if !n.dirty || n.o.Store == nil {
		n.dirty = false
		n.mu.Unlock()
		return
	}
	n.dirty = false
	b, err := json.Marshal(memory{n.ledger.list(), n.box})
	n.mu.Unlock()
	if err == nil {
		err = n.o.Store.Save(json.RawMessage(b))
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if err != nil && !n.unkept {
		n.o.Log.Warn("what waits to be told cannot be kept, and would be lost at a restart", "error", err)
	} else if err == nil && n.unkept {
		n.o.Log.Info("what waits to be told is kept again")
	}
	n.unkept = err != nil
}
