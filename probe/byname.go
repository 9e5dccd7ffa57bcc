package probe

import (
	"context"
	"net/netip"
)

// A Lookup finds the addresses of a name. Its step's DNS.Answers are sorted,
// so that a slot stays with its address while the answers stay the same.
type Lookup interface {
	Lookup(ctx context.Context, n Net, host, family string) Step
}

// ByName looks a name up, as an app does, and asks one of its addresses. A
// name with several addresses has one ByName for each slot; slots beyond the
// number of addresses return no step, and such a run is not recorded. A failing
// lookup is slot 0's to tell.
type ByName struct {
	Host   string
	Port   uint16
	Family string
	Slot   int // which of the sorted addresses, from 0
	Names  Lookup
	Ask    Addressed
}

func (b ByName) Probe(ctx context.Context, n Net) []Step {
	s := b.Names.Lookup(ctx, n, b.Host, b.Family)
	if s.Failure != "" || s.DNS == nil || len(s.DNS.Answers) <= b.Slot {
		if b.Slot > 0 {
			return nil
		}
		return []Step{s}
	}
	addr := netip.AddrPortFrom(s.DNS.Answers[b.Slot], b.Port)
	return append([]Step{s}, b.Ask.At(addr).Probe(ctx, n)...)
}

// Bare is p without the lookup before it.
func Bare(p Prober) Prober {
	if b, ok := p.(ByName); ok {
		return b.Ask
	}
	return p
}
