package main

import (
	"slices"

	"github.com/messenger-probe/messenger-probe/cmd/internal/agent"
	"github.com/messenger-probe/messenger-probe/cmd/internal/vantage"
	"github.com/messenger-probe/messenger-probe/probe/verdict"
)

// clean says whether nothing is seen between the agent and the line: not on
// this machine, and not by servers abroad, which see it where the operator says
// that it is.
func clean(v verdict.Vantage, country string) (bool, string) {
	if ok, why := vantage.Clean(); !ok {
		return false, why
	}
	return vantage.Seen(country, v.Seen)
}

// said is a snapshot with a word on what stands between the agent and the line,
// if anything does: what works through a tunnel proves nothing about the country.
func said(s agent.Snapshot, country string) agent.Snapshot {
	if ok, why := clean(s.Vantage, country); !ok {
		s.Vantage.Evidence = append(slices.Clone(s.Vantage.Evidence), "not clean, so that what works proves nothing about the country: "+why)
	}
	return s
}
