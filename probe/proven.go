package probe

import (
	"maps"
	"slices"
	"sync"
)

// Proven remembers which informational checks have answered at this vantage:
// from their first answer on they count. The zero value knows none.
type Proven struct {
	mu  sync.Mutex
	ids map[string]bool
}

// Note learns from r, and voids it while its check is informational and has
// not answered yet; of a private one it voids refused chains alone. It returns
// the result as it counts.
func (p *Proven) Note(r Result) Result {
	if !r.Check.Informational && !r.Check.Private {
		return r
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	id := r.Check.ID()
	switch o, _ := r.Judge(); {
	case o == OK && !p.ids[id]:
		if p.ids == nil {
			p.ids = make(map[string]bool)
		}
		p.ids[id] = true
	case o == Fail && !p.ids[id] && (r.Check.Informational || r.Failed().Failure == FailureSSLUnknownAuthority):
		r.Void = ReasonInformational
	}
	return r
}

// Add says that the check of this ID has proved itself in some other way.
func (p *Proven) Add(id string) { p.Restore([]string{id}) }

// IDs is what has answered, sorted; for a state file.
func (p *Proven) IDs() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Sorted(maps.Keys(p.ids))
}

// Restore adds what had answered before a restart.
func (p *Proven) Restore(ids []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ids == nil {
		p.ids = make(map[string]bool)
	}
	for _, id := range ids {
		p.ids[id] = true
	}
}
