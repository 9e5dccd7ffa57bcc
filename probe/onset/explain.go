package onset

import (
	"fmt"
	"strings"
	"time"
)

func at(ns int64) time.Time { return time.Unix(0, ns).UTC() }

// sentence is an event for a person.
func (d *detector) sentence(ev *Event) string {
	since := ""
	if !ev.Onset.IsZero() {
		since = " since " + ev.Onset.Format("15:04:05") + " UTC"
	}
	noun := "probes"
	if d.scopeN >= 0 {
		noun = d.scopes[d.scopeN].noun
	}
	c := d.calls
	switch ev.State {
	case Blocked, Suspect:
		if ev.Relapse && !ev.Widened {
			return noun + " fail again; the episode" + since + " goes on"
		}
		var s strings.Builder
		fmt.Fprintf(&s, "%d of %d %s failed%s", c.Failed, c.Asked, noun, since)
		join := " while "
		if c.Calm > 0 {
			fmt.Fprintf(&s, "%s%d of %d controls answered", join, c.CalmOK, c.Calm)
			join = " and "
		}
		if c.Ref > 0 {
			fmt.Fprintf(&s, "%s%d of %d checks from abroad worked", join, c.RefOK, c.Ref)
		}
		return s.String()
	case Recovering:
		return fmt.Sprintf("%d of %d %s answered since %s UTC", d.dOK, d.dAsked, noun, at(d.dFrom).Format("15:04:05"))
	case OK:
		if d.score >= hReset && d.covers() {
			return noun + " have answered long enough; the episode" + since + " is over"
		}
		return "the suspicion did not hold: " + ev.Rival + " or chance explains the failures"
	case Outage, VantageDown:
		p := d.vantage()[vDown]
		if ev.State == Outage {
			p = d.elsewhere(d.overlay)
		}
		return fmt.Sprintf("%s explains the failures (probability %.2f)", ev.Cause, p)
	}
	return ""
}

func (d *detector) covers() bool {
	for _, c := range d.covered {
		if c {
			return true
		}
	}
	return false
}
