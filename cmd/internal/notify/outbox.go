package notify

import (
	"crypto/rand"
	"slices"
	"time"
)

// The bounds of what waits to be delivered.
const (
	maxWaiting = 64             // messages; the oldest are dropped
	life       = 12 * time.Hour // then it is no news any more
)

// A message is what is told at one time.
type message struct {
	ID      string    `json:"id"` // the same at each try, and after a restart
	Time    time.Time `json:"time"`
	Changes []Change  `json:"changes"`
	To      []string  `json:"to"` // the targets that do not have it yet

	born time.Time // Time by this run's clock, which does not jump
}

// An outbox keeps messages until each target has them, oldest first.
type outbox []*message

// add puts a message in, and is what had to give way.
func (b *outbox) add(now time.Time, changes []Change, to []string) (dropped []*message) {
	*b = append(*b, &message{ID: rand.Text(), Time: now.UTC().Truncate(time.Second), Changes: changes, To: slices.Clone(to), born: now})
	n := max(0, len(*b)-maxWaiting)
	dropped = slices.Clone((*b)[:n])
	*b = slices.Delete(*b, 0, n)
	return dropped
}

// first is the oldest message that a target does not have, nil if there is none.
func (b outbox) first(target string) *message {
	i := slices.IndexFunc(b, func(m *message) bool { return slices.Contains(m.To, target) })
	if i < 0 {
		return nil
	}
	return b[i]
}

// strike takes a target off a message: it has it, or will never take it.
func (b *outbox) strike(id, target string) {
	b.keep(func(m *message, to string) bool { return m.ID != id || to != target })
}

// retain drops what waits for targets other than these.
func (b *outbox) retain(targets []string) {
	b.keep(func(_ *message, to string) bool { return slices.Contains(targets, to) })
}

func (b *outbox) keep(good func(*message, string) bool) {
	*b = slices.DeleteFunc(*b, func(m *message) bool {
		m.To = slices.DeleteFunc(m.To, func(to string) bool { return !good(m, to) })
		return len(m.To) == 0
	})
}

// expire takes out what is too old to be told.
func (b *outbox) expire(now time.Time) (dropped []*message) {
	*b = slices.DeleteFunc(*b, func(m *message) bool {
		old := now.Sub(m.born) >= life
		if old {
			dropped = append(dropped, m)
		}
		return old
	})
	return dropped
}

// restore takes over what another run of the agent left. Its clock may have
// been wrong: what comes from the future is as old as the start.
func (b *outbox) restore(now time.Time, ms []*message) {
	for _, m := range ms[max(0, len(ms)-maxWaiting):] {
		if m == nil || m.ID == "" {
			continue
		}
		m.born = now.Add(-max(0, now.Sub(m.Time)))
		*b = append(*b, m)
	}
}
