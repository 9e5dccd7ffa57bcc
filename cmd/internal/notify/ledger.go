package notify

import (
	"cmp"
	"slices"
	"time"

	"github.com/messenger-probe/messenger-probe/probe/verdict"
)

// episode is how long a function must stay as it is before what it does next is
// a story of its own.
const episode = 30 * time.Minute

// brisk is how many messages about one function may follow each other before it
// has been the same for an episode: the onset, the recovery, and that it came
// back. After that only what has lasted is told, so that a flapping block wakes
// nobody all night, and what was told last becomes true all the same.
const brisk = 3

// A ledger knows of each function what people were told last, and what they are
// to be told next. It has no clock and no lock.
type ledger struct {
	on       []verdict.State // what is told beside recoveries
	window   time.Duration   // how long a change waits for others
	accounts map[key]*account
}

// key is a function of a messenger.
type key struct{ messenger, function string }

// account is one function in a ledger.
type account struct {
	Messenger string `json:"messenger"`
	Function  string `json:"function"`

	Told  verdict.State `json:"told"`            // what people were told last; ok where nothing
	Since time.Time     `json:"since,omitzero"`  // from when on it was so
	Other bool          `json:"other,omitempty"` // since then it was bad in a way that is not told

	Turned time.Time `json:"turned,omitzero"` // when it last changed
	Run    int       `json:"run,omitempty"`   // messages since it last was the same for an episode

	Next *Change   `json:"next,omitempty"` // to be told
	Due  time.Time `json:"due,omitzero"`   // when
	Held bool      `json:"held,omitempty"` // only if it lasts
	// shown says that the function is in the state of Next now. While the vantage
	// is ill it is in none, and nothing is told.
	shown bool
}

// change takes a change of a function's state.
func (l *ledger) change(now time.Time, c Change) {
	k := key{c.Messenger, c.Function}
	a := l.accounts[k]
	if a == nil {
		a = &account{Messenger: c.Messenger, Function: c.Function, Told: verdict.OK}
		l.accounts[k] = a
	}
	if c.State == verdict.Unknown {
		a.shown = false
		return
	}
	if now.Sub(a.Turned) >= episode {
		a.Run = 0
	}
	waiting := a.Next != nil && !a.Held
	a.Turned = now
	a.Next, a.Held, a.shown = nil, false, true
	switch {
	case c.State == a.Told && (c.State == verdict.OK || !a.Other || c.Relapse):
		return // as it was told
	case c.State != verdict.OK && !slices.Contains(l.on, c.State):
		a.Other = a.Told != verdict.OK
		return
	}
	if !waiting {
		a.Due = now.Add(l.window)
	}
	if a.Run >= brisk {
		a.Due, a.Held = now.Add(episode), true
	}
	a.Next = &c
}

// show takes what is shown of all functions now. What waits and is not shown,
// because the vantage is ill, waits on; what is not measured any more is
// dropped. What waits is told with the newest that is known of it.
func (l *ledger) show(vs []verdict.Verdict) (changed bool) {
	for _, a := range l.accounts {
		if a.Next == nil {
			continue
		}
		i := slices.IndexFunc(vs, func(v verdict.Verdict) bool { return v.Messenger == a.Messenger && v.Function == a.Function })
		if i < 0 {
			a.Next, changed = nil, true
			continue
		}
		v, c := &vs[i], a.Next
		if shown := v.State == c.State; shown != a.shown {
			a.shown, changed = shown, true
		}
		if a.shown && (v.Mechanism != c.Mechanism || v.Confidence != c.Confidence) {
			c.Mechanism, c.Confidence, c.Evidence = v.Mechanism, v.Confidence, v.Evidence
			changed = true
		}
	}
	return changed
}

// take is what is to be told now, and what else waits with it; nil: nothing is
// due. early takes what is not due yet, too.
func (l *ledger) take(now time.Time, early bool) []Change {
	due := l.due()
	if due.IsZero() || now.Before(due) && !early {
		return nil
	}
	var out []Change
	for _, a := range l.list() {
		if a.Next == nil || !a.shown || a.Held && now.Before(a.Due) {
			continue
		}
		c := *a.Next
		a.Run++
		if c.State == verdict.OK {
			c.Was, c.Began, c.Evidence = a.Told, a.Since, nil // it works: no more is to be shown
		} else {
			c.Relapse = a.Run > 1 && a.Told == verdict.OK
		}
		a.Told, a.Since, a.Other = c.State, c.Since, false
		a.Next, a.Held = nil, false
		out = append(out, c)
	}
	return out
}

// due is when something is to be told next; zero: nothing is.
func (l *ledger) due() time.Time {
	var due time.Time
	for _, a := range l.accounts {
		if a.Next != nil && a.shown && (due.IsZero() || a.Due.Before(due)) {
			due = a.Due
		}
	}
	return due
}

// list is the accounts in a stable order, without those that say nothing.
func (l *ledger) list() []*account {
	var as []*account
	for _, a := range l.accounts {
		if a.Told != verdict.OK || a.Next != nil || a.Run > 0 {
			as = append(as, a)
		}
	}
	slices.SortFunc(as, func(a, b *account) int {
		return cmp.Or(cmp.Compare(a.Messenger, b.Messenger), cmp.Compare(a.Function, b.Function))
	})
	return as
}

// restore takes over what [ledger.list] was, from another run of the agent,
// whose clock may have been another.
func (l *ledger) restore(now time.Time, as []*account) {
	for _, a := range as {
		if a == nil || !slices.Contains(verdict.States[:], a.Told) {
			continue
		}
		if a.Turned.After(now) {
			a.Turned = now
		}
		if a.Due.After(now.Add(episode)) {
			a.Due = now.Add(episode)
		}
		l.accounts[key{a.Messenger, a.Function}] = a
	}
}
