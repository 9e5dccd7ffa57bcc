package page

import (
	"slices"
	"strings"

	"github.com/messenger-probe/messenger-probe/probe/verdict"
)

// severity orders states as they are told, the worst first.
var severity = [...]verdict.State{verdict.Blocked, verdict.Unreachable, verdict.Degraded, verdict.Unknown, verdict.OK}

// overall is what one word says of a messenger: its state where all functions
// are of one mind, degraded where some of them work.
func overall(m *Messenger) verdict.State {
	w := worst(m)
	works := func(f Function) bool { return f.State == verdict.OK || f.State == verdict.Degraded }
	if w != verdict.OK && w != verdict.Unknown && slices.ContainsFunc(m.Functions, works) {
		return verdict.Degraded
	}
	return w
}

// one says whether all functions of a messenger are in one state.
func one(m *Messenger) bool {
	return !slices.ContainsFunc(m.Functions, func(f Function) bool { return f.State != m.Functions[0].State })
}

// answer says in one sentence whether people here can use the messengers.
func (l *language) answer(v *View) string {
	if v.Vantage.State != verdict.Online {
		return l.t("ill", l.Vantage[string(v.Vantage.State)].Plain)
	}
	var states []verdict.State
	for _, m := range v.Messengers {
		for _, f := range m.Functions {
			states = append(states, f.State)
		}
	}
	known := func(s verdict.State) bool { return s != verdict.Unknown }
	works := func(s verdict.State) bool { return s == verdict.OK || s == verdict.Degraded }
	ill := func(s verdict.State) bool { return s != verdict.OK && s != verdict.Unknown }
	if !slices.ContainsFunc(states, known) {
		return l.t("unsure")
	}
	text := strings.Join(l.clauses(v.Messengers), l.t("join"))
	switch {
	case !slices.ContainsFunc(states, works):
		return l.t("no", text)
	case slices.ContainsFunc(states, ill):
		return l.t("partly", text)
	case slices.Contains(states, verdict.Unknown):
		return l.t("sofar", text)
	}
	return l.t("yes", text)
}

// clauses are what is said of the messengers, the worst first: those that are
// in one state together, of the others what does not work.
func (l *language) clauses(ms []Messenger) (out []string) {
	for _, s := range severity {
		var whole []string
		for i := range ms {
			switch m := &ms[i]; {
			case worst(m) != s:
			case one(m):
				whole = append(whole, m.Title)
			default:
				out = append(out, l.t("some", m.Title, l.part(m)))
			}
		}
		if len(whole) > 0 {
			class := l.Proper
			if len(whole) > 1 {
				class = l.Several
			}
			out = append(out, l.t("whole", l.list(whole), l.is(s, class)))
		}
	}
	return out
}

// part is what does not work of a messenger; where all that is known does, what
// is not known.
func (l *language) part(m *Messenger) string {
	var out []string
	for _, s := range severity {
		var nouns []string
		class := l.Several
		for _, f := range m.Functions {
			if f.State == s {
				var noun string
				noun, class = l.function(f.Name)
				nouns = append(nouns, noun)
			}
		}
		if len(nouns) > 1 {
			class = l.Several
		}
		if len(nouns) > 0 && s != verdict.OK && (s != verdict.Unknown || len(out) == 0) {
			out = append(out, l.t("whole", l.list(nouns), l.is(s, class)))
		}
	}
	return strings.Join(out, l.t("comma"))
}

// worst is the worst state of a messenger's functions.
func worst(m *Messenger) verdict.State {
	for _, s := range severity {
		if slices.ContainsFunc(m.Functions, func(f Function) bool { return f.State == s }) {
			return s
		}
	}
	return verdict.Unknown
}

// is is what follows a noun of a class.
func (l *language) is(s verdict.State, class string) string { return l.States[string(s)].Is[class] }
