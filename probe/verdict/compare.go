package verdict

import (
	"fmt"
	"slices"
	"strings"
)

// Abroad is what an agent in another country says of the same function of the
// same messenger.
type Abroad struct {
	Name      string // of the agent, as the operator here calls it
	State     State
	Mechanism Mechanism // empty where State needs none
}

// alone is said of what is unreachable while nobody else has been asked.
const alone = "from this vantage alone an outage cannot be told from a block: does it work from another network?"

// Compare holds a verdict against what agents abroad say. What is silent here
// and everywhere is an outage, whatever each makes of it alone; what works
// elsewhere is none. An agent that does not know says nothing, and one that calls
// it degraded, or blocked in a way that no dead server looks like, vouches
// neither for an outage nor against one: it may stand behind a filter itself. A
// state becomes worse only where a differential question here has shown already
// that the network does it, and only an outage was left to rule out.
func Compare(v *Verdict, abroad []Abroad) {
	if v.State != Unreachable && v.State != Blocked && v.State != Degraded {
		return
	}
	var works, dead []string
	said := 0
	for _, a := range abroad {
		switch a.State {
		case OK:
			works = append(works, a.Name)
		case Unreachable, Blocked:
			if a.State == Unreachable || mute(a.Mechanism) {
				dead = append(dead, a.Name)
			}
		case Unknown:
			continue
		}
		said++
	}
	// The evidence may be shared with whoever holds an earlier copy.
	add := func(format string, names []string) {
		slices.Sort(names)
		v.Evidence = append(slices.DeleteFunc(slices.Clone(v.Evidence), func(s string) bool { return s == alone }),
			fmt.Sprintf(format, strings.Join(slices.Compact(names), ", ")))
	}
	switch {
	case len(works) > 0:
		add("it works abroad (%s)", works)
		if v.State == Unreachable && v.Confidence != Low && accuses(v.Mechanism) {
			v.State = Blocked
		}
	case (v.State == Unreachable || v.State == Blocked && mute(v.Mechanism) && v.Confidence != Confirmed) && said > 0 && len(dead) == said:
		v.State, v.Mechanism, v.Confidence = Unreachable, ServiceOutage, Medium
		if said > 1 {
			v.Confidence = High
		}
		add("%s abroad says it is unreachable there too", dead)
		// What explains comes first.
		n := len(v.Evidence) - 1
		v.Evidence = slices.Insert(v.Evidence[:n:n], 0, v.Evidence[n])
	}
}

// mute says whether a mechanism shows in nothing but silence: so look servers
// that are down, too, while others of the messenger's are well.
func mute(m Mechanism) bool {
	return m == IPBlock || m == PortBlock || m == UDPBlock || m == CallBlock || m == QUICBlock || m == ProtocolBlock || !accuses(m)
}

// accuses says whether a mechanism is something that a network does on purpose.
func accuses(m Mechanism) bool {
	return m != "" && m != PacketLoss && m != ServiceOutage && m != UnknownCause
}
