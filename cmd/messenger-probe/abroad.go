package main

import (
	"context"
	"time"

	"github.com/messenger-probe/messenger-probe/cmd/internal/agent"
	"github.com/messenger-probe/messenger-probe/cmd/internal/comparator"
	"github.com/messenger-probe/messenger-probe/cmd/internal/config"
	"github.com/messenger-probe/messenger-probe/probe/verdict"
)

// comparators is a client for the agents abroad of a configuration; nil where
// there are none.
func (d *daemon) comparators(cfg *config.Loaded) (*comparator.Client, error) {
	if len(cfg.Comparators) == 0 {
		return nil, nil
	}
	agents := make([]comparator.Agent, len(cfg.Comparators))
	for i, c := range cfg.Comparators {
		agents[i] = comparator.Agent(c)
	}
	return comparator.New(agents, comparator.Options{
		Interval: time.Duration(cfg.Interval),
		Urgent:   func() bool { return d.agent.Wonders() },
		Heard:    func(rs []comparator.Report) { d.agent.Hear(reports(rs)) },
		Log:      d.log,
	})
}

// listen asks these agents abroad from now on, and no others.
func (d *daemon) listen(c *comparator.Client) {
	if d.deafen != nil {
		d.deafen()
		d.deafen = nil
	}
	if c == nil {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.Run(ctx)
	}()
	d.deafen = func() {
		cancel()
		<-done
	}
}

// reports is what was heard abroad, in the agent's words.
func reports(rs []comparator.Report) []agent.Report {
	out := make([]agent.Report, len(rs))
	for i, r := range rs {
		out[i] = agent.Report{Name: r.Name, Time: r.Time, Until: r.Until, States: make(map[[2]string]verdict.Abroad, len(r.Verdicts))}
		for _, v := range r.Verdicts {
			out[i].States[[2]string{v.Messenger, v.Function}] = verdict.Abroad{State: v.State, Mechanism: v.Mechanism}
		}
		for _, x := range r.Results {
			out[i].Sightings = append(out[i].Sightings, agent.Sighting{
				Reference: agent.Reference{Messenger: x.Messenger, Function: x.Function, Endpoint: x.Endpoint, Check: x.Check, Family: x.Family},
				OK:        x.OK, Time: x.Time,
			})
		}
	}
	return out
}
