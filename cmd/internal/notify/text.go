package notify

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/messenger-probe/messenger-probe/probe/verdict"
)

// The bounds of what is written. ntfy takes 4096 bytes of text, Telegram 4096
// characters (docs.ntfy.sh/publish, core.telegram.org/bots/api#sendmessage).
const (
	maxTitle    = 200  // bytes
	maxText     = 3500 // bytes
	maxEvidence = 3    // lines of a change
	maxLine     = 300  // bytes of such a line
)

// A letter is a message as it is sent.
type letter struct {
	id, title, text string
	time            time.Time
	vantage         string // as its operator calls it
	urgent          bool   // something broke
	test            bool
	changes         []Change
}

// letter writes a message in a language.
func (m *message) letter(w *words, vantage string) letter {
	l := letter{id: m.ID, time: m.Time, vantage: vantage, changes: m.Changes}
	l.urgent = slices.ContainsFunc(m.Changes, func(c Change) bool { return c.State != verdict.OK })
	l.title = clip(w.title(m.Changes, vantage), maxTitle)
	end := w.moment(m.Time)
	if vantage != "" {
		end = vantage + ", " + end
	}
	// What does not fit says less of each change, before it leaves one out.
	for evidence := maxEvidence; ; evidence-- {
		var b strings.Builder
		for i := range m.Changes {
			w.change(&b, &m.Changes[i], evidence)
		}
		b.WriteString(end)
		if l.text = b.String(); len(l.text) <= maxText || evidence == 0 {
			break
		}
	}
	l.text = clip(l.text, maxText)
	return l
}

// title says it all in a line: "Telegram blocked: calls, chat; MAX works again: web".
func (w *words) title(cs []Change, vantage string) string {
	type group struct{ messenger, state string }
	var order []group
	functions := map[group][]string{}
	for i := range cs {
		g := group{cs[i].Title, w.state(&cs[i])}
		if functions[g] == nil {
			order = append(order, g)
		}
		functions[g] = append(functions[g], w.function(cs[i].Function))
	}
	var parts []string
	for _, g := range order {
		parts = append(parts, fmt.Sprintf(w.headline, g.messenger, g.state, strings.Join(functions[g], ", ")))
	}
	s := strings.Join(parts, "; ")
	if vantage != "" {
		s += " (" + vantage + ")"
	}
	return s
}

// change says one change in some lines.
func (w *words) change(b *strings.Builder, c *Change, evidence int) {
	fmt.Fprintf(b, "%s, %s: %s\n", c.Title, w.function(c.Function), w.state(c))
	line := fmt.Sprintf(w.since, w.moment(c.Since))
	switch {
	case c.State == verdict.OK && !c.Began.IsZero():
		line += fmt.Sprintf(w.before, w.states[c.Was], w.moment(c.Began))
	case c.Mechanism != "":
		line += fmt.Sprintf(w.how, w.mechanism(c.Mechanism), c.Mechanism, w.confidence(c.Confidence))
	}
	fmt.Fprintln(b, line)
	for _, e := range c.Evidence[:min(len(c.Evidence), evidence)] {
		fmt.Fprintf(b, "· %s\n", e)
	}
	fmt.Fprintln(b)
}

func (w *words) moment(t time.Time) string { return t.UTC().Format("2006-01-02 15:04") + " UTC" }

// clip cuts a text to so many bytes, between two characters.
func clip(s string, most int) string {
	if len(s) <= most {
		return s
	}
	const more = "…"
	return strings.ToValidUTF8(s[:most-len(more)], "") + more
}

// plain is a text without line ends and what else is not seen.
func plain(s string) string {
	s = strings.Map(func(r rune) rune {
		if unicode.In(r, unicode.Cc, unicode.Cf) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	return strings.Join(strings.Fields(s), " ")
}

// address is what may be one; netip decides.
var address = regexp.MustCompile(`[0-9A-Fa-f:.]{2,}`)

// carrierGrade is the space that providers give to those behind their NAT (RFC
// 6598), who know each other by it.
var carrierGrade = netip.MustParsePrefix("100.64.0.0/10")

// public is evidence that may leave this machine: a few lines, with addresses of
// messengers, and none that is of this machine or its network.
func public(evidence []string, own []netip.Addr) []string {
	var out []string
	for _, e := range evidence[:min(len(evidence), maxEvidence)] {
		out = append(out, clip(address.ReplaceAllStringFunc(plain(e), func(s string) string {
			core := strings.TrimRight(s, ".:")
			a, err := netip.ParseAddr(core)
			if err != nil {
				ap, err := netip.ParseAddrPort(core)
				if err != nil {
					return s
				}
				a = ap.Addr()
			}
			if a = a.Unmap(); a.IsGlobalUnicast() && !a.IsPrivate() && !carrierGrade.Contains(a) && !slices.Contains(own, a) {
				return s
			}
			return "(a local address)" + s[len(core):]
		}), maxLine))
	}
	return out
}
