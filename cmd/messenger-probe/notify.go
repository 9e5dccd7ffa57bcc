package main

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"path/filepath"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/messenger-probe/messenger-probe/cmd/internal/agent"
	"github.com/messenger-probe/messenger-probe/cmd/internal/config"
	"github.com/messenger-probe/messenger-probe/cmd/internal/notify"
	"github.com/messenger-probe/messenger-probe/cmd/internal/state"
	"github.com/messenger-probe/messenger-probe/probe/verdict"
)

// audience is who is told what by a configuration; pem is its own roots.
func audience(cfg *config.Loaded, pem []byte) (*notify.Audience, error) {
	o := notify.AudienceOptions{PEM: pem, Language: cfg.Notify.Language, Vantage: cfg.Vantage.Name}
	for _, s := range cfg.Notify.On {
		o.On = append(o.On, verdict.State(s))
	}
	for _, t := range cfg.Notify.Targets {
		o.Targets = append(o.Targets, notify.Target(t))
	}
	return notify.NewAudience(o)
}

// notifier is one for a configuration's state folder and interval.
func (d *daemon) newNotifier(cfg *config.Loaded) *notify.Notifier {
	// Functions fail in the order in which they are asked, which takes an interval.
	o := notify.Options{Window: min(time.Duration(cfg.Interval)/2, 30*time.Second), Log: d.log}
	if cfg.StateDir != "" {
		o.Store = state.File(filepath.Join(cfg.StateDir, "notify.json"))
	}
	return notify.New(o)
}

// notify hands a change to the notifier, which tells it if it stays so.
func (d *daemon) notify(c *agent.Change) {
	n := notify.Change{Messenger: c.Messenger, Title: d.plan.Load().title(c.Messenger), Function: c.Function,
		State: c.State, Was: c.Was, Mechanism: c.Mechanism, Confidence: c.Confidence, Since: c.Onset, Relapse: c.Relapse, Evidence: c.Evidence}
	if n.Since.IsZero() {
		n.Since = c.Time
	}
	n.Since = n.Since.UTC().Truncate(time.Second)
	d.notifier.Changed(n)
}

// testNotify sends a test message to each target of a configuration, and says
// how that went.
func (p *program) testNotify(c *cobra.Command, a *notify.Audience, asJSON bool) error {
	trials := a.Test(c.Context(), rand.Text())
	if asJSON {
		enc := json.NewEncoder(p.stdout)
		enc.SetIndent("", "  ")
		if err := enc.Encode(trials); err != nil {
			return err
		}
	} else {
		w := tabwriter.NewWriter(p.stdout, 0, 0, 2, ' ', 0)
		fmt.Fprintln(w, "TARGET\tTYPE\tTEST MESSAGE")
		for _, t := range trials {
			how := "taken by its server; see whether it arrives"
			if t.Error != "" {
				how = "not taken: " + t.Error
			}
			fmt.Fprintf(w, "%s\t%s\t%s\n", t.Target, t.Type, how)
		}
		if err := w.Flush(); err != nil {
			return err
		}
	}
	for _, t := range trials {
		if t.Error != "" {
			return &exit{code: exitNotOK}
		}
	}
	return nil
}
