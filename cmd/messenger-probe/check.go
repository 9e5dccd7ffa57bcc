package main

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/messenger-probe/messenger-probe/cmd/internal/agent"
	"github.com/messenger-probe/messenger-probe/probe"
	"github.com/messenger-probe/messenger-probe/probe/verdict"
)

func (p *program) checkCommand() *cobra.Command {
	var verbose bool
	c := p.withOutput(&cobra.Command{
		Use:   "check [MESSENGER...]",
		Short: "Every check once: a table, the verdicts, an exit code",
		Long: `Runs every check of these messengers once (default: those of the configuration),
asks again what failed, and says what it means.
Exit status 0 all is ok, 1 some function is not ok, 2 usage or configuration
error, 3 the vantage is offline and nothing can be said.`,
		Example: `  messenger-probe check
  messenger-probe check telegram -v
  messenger-probe check --output json | jq .verdicts`,
		RunE: func(c *cobra.Command, args []string) error {
			asJSON, err := p.json()
			if err != nil {
				return err
			}
			return p.check(c, args, asJSON, verbose)
		},
	})
	c.Flags().BoolVarP(&verbose, "verbose", "v", false, "every result, and all evidence")
	return c
}

func (p *program) check(c *cobra.Command, messengers []string, asJSON, verbose bool) error {
	cfg, err := p.load(c)
	if err != nil {
		return err
	}
	if len(messengers) > 0 {
		slices.Sort(messengers)
		cfg.Choose(slices.Compact(messengers))
	}
	pl, err := plan(cfg)
	if err != nil {
		return err
	}
	log := p.logger(cfg.Log)
	var memory agent.Memory
	if cfg.StateDir != "" {
		if memory, err = recall(cfg.StateDir); err != nil {
			log.Warn("state is not readable and is ignored", "error", err)
		}
	}
	a := agent.New(agent.Options{Net: &probe.Host{}, Log: log, Memory: memory, Parallel: runsAtOnce(descriptorLimit() / 2)})
	a.Refrain(unasked(cfg)...)
	out := &printer{w: p.stdout, colour: terminal(p.stdout)}
	progress, done := p.progress()
	s, err := a.Check(c.Context(), pl.checks, progress)
	done()
	if err != nil {
		return &exit{exitNotOK, err}
	}
	if cfg.StateDir != "" {
		memory.Proven = a.Memory().Proven // a single round knows no more of onsets
		if err := keep(cfg.StateDir, memory); err != nil {
			log.Warn("state not saved", "error", err)
		}
	}
	s = said(s, cfg.Vantage.Country)
	if asJSON {
		b := buildInfo()
		b.Catalogue = pl.catalogue
		doc := document(b, cfg, s)
		if err := doc.Write(p.stdout); err != nil {
			return &exit{exitNotOK, err}
		}
	} else {
		out.report(s, verbose, pl.title)
	}
	switch {
	case s.Vantage.State == verdict.Offline:
		return &exit{code: exitOffline}
	case slices.ContainsFunc(s.Verdicts, func(v verdict.Verdict) bool { return v.State != verdict.OK }):
		return &exit{code: exitNotOK}
	}
	return nil
}

// terminal says whether w is a person's terminal that takes colour.
func terminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd())) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
}

// progress shows on a terminal how far a check is; elsewhere it shows nothing.
func (p *program) progress() (agent.Progress, func()) {
	if !terminal(p.stderr) {
		return nil, func() {}
	}
	last := time.Time{}
	show := func(done, of int, r probe.Result) {
		if now := time.Now(); done == of || now.Sub(last) > 50*time.Millisecond {
			last = now
			fmt.Fprintf(p.stderr, "\r\x1b[K%d of %d  %s %s %s", done, of, r.Check.Messenger, r.Check.Endpoint, r.Check.Protocol)
		}
	}
	return show, func() { fmt.Fprint(p.stderr, "\r\x1b[K") }
}

// printer writes reports for people.
type printer struct {
	w      io.Writer
	colour bool
}

// Escape codes by state; colour never carries what the word does not.
var colours = map[verdict.State]string{
	verdict.OK: "32", verdict.Degraded: "33", verdict.Blocked: "1;31", verdict.Unreachable: "31", verdict.Unknown: "2",
}

func (p *printer) state(s verdict.State) string {
	if !p.colour {
		return string(s)
	}
	return "\x1b[" + colours[s] + "m" + string(s) + "\x1b[0m"
}

// summary answers in one sentence whether people here can use the messengers.
func summary(s agent.Snapshot, title func(string) string) string {
	if s.Vantage.State != verdict.Online {
		return fmt.Sprintf("The vantage is %s: nothing can be said of any messenger.", s.Vantage.State)
	}
	var order []string
	worst := map[string]verdict.Verdict{}
	for _, v := range s.Verdicts {
		w, seen := worst[v.Messenger]
		if !seen {
			order = append(order, v.Messenger)
		}
		if !seen || rank(v.State) > rank(w.State) {
			worst[v.Messenger] = v
		}
	}
	var parts []string
	for _, m := range order {
		switch v := worst[m]; v.State {
		case verdict.OK:
			parts = append(parts, title(m)+" works")
		case verdict.Unknown:
			parts = append(parts, title(m)+": not all is known yet")
		default:
			parts = append(parts, fmt.Sprintf("%s: %s %s", title(m), v.Function, v.State))
		}
	}
	return strings.Join(parts, "; ") + "."
}

// rank orders states from well to ill.
func rank(s verdict.State) int {
	return slices.Index([]verdict.State{verdict.OK, verdict.Unknown, verdict.Degraded, verdict.Unreachable, verdict.Blocked}, s)
}

// report is the verdicts, then what failed; with verbose every result.
func (p *printer) report(s agent.Snapshot, verbose bool, title func(string) string) {
	fmt.Fprintln(p.w, summary(s, title))
	fmt.Fprintf(p.w, "Vantage %s: %s.\n\n", s.Vantage.State, strings.Join(s.Vantage.Evidence, "; "))

	// The state is the last column: escape codes would count as width before it.
	w := tabwriter.NewWriter(p.w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "MESSENGER\tFUNCTION\tCHECKS\tMECHANISM\tSTATE")
	counts := tally(s.Results)
	for _, v := range s.Verdicts {
		mechanism := "-"
		if v.Mechanism != "" {
			mechanism = fmt.Sprintf("%s (%s)", v.Mechanism, v.Confidence)
		}
		n := counts[[2]string{v.Messenger, v.Function}]
		fmt.Fprintf(w, "%s\t%s\t%d of %d ok\t%s\t%s\n", v.Messenger, v.Function, n[0], n[1], mechanism, p.state(v.State))
	}
	w.Flush()
	for _, v := range s.Verdicts {
		// Of an ill vantage the second line has said all there is.
		if (v.State == verdict.OK || s.Vantage.State != verdict.Online) && !verbose {
			continue
		}
		fmt.Fprintf(p.w, "\n%s %s: %s\n", v.Messenger, v.Function, p.state(v.State))
		for i, e := range v.Evidence {
			if i == 5 && !verbose {
				fmt.Fprintf(p.w, "  … and %d more (-v)\n", len(v.Evidence)-i)
				break
			}
			fmt.Fprintf(p.w, "  %s\n", e)
		}
	}
	p.results(s, verbose)
	if verbose {
		p.followUps(s.Arms)
	}
}

// tally is ok and counted by messenger and function.
func tally(rs []probe.Result) map[[2]string][2]int {
	m := map[[2]string][2]int{}
	for i := range rs {
		k := [2]string{rs[i].Check.Messenger, rs[i].Check.Function}
		n := m[k]
		switch rs[i].Outcome() {
		case probe.OK:
			n[0]++
			n[1]++
		case probe.Fail:
			n[1]++
		}
		m[k] = n
	}
	return m
}

// followUps is a line for each differential question.
func (p *printer) followUps(arms []verdict.Arm) {
	if len(arms) == 0 {
		return
	}
	fmt.Fprintln(p.w)
	w := tabwriter.NewWriter(p.w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ENDPOINT\tQUESTION\tFAMILY\tASKED\tTOOK\tOUTCOME")
	for i := range arms {
		row(w, &arms[i].Result, string(arms[i].Ask))
	}
	w.Flush()
}

// row is a result in a table.
func row(w io.Writer, r *probe.Result, what string) {
	asked := r.Check.Target
	if a := r.Addr(); a.IsValid() && r.Check.Protocol != probe.ProtoDNS {
		asked = a.String()
	}
	o, reason := r.Judge()
	word := string(o)
	if f := r.Failed(); f != nil && o == probe.Fail {
		word += fmt.Sprintf(": %s at %s", f.Failure, f.Op)
	} else if reason != "" {
		word += fmt.Sprintf(": %s", reason)
	}
	if l := learned(r); l != "" {
		word += " (" + l + ")"
	}
	fmt.Fprintf(w, "%s/%s/%s\t%s\t%s\t%s\t%.2fs\t%s\n", r.Check.Messenger, r.Check.Function, r.Check.Endpoint,
		what, r.Check.Family, asked, r.Took.Seconds(), word)
}

// results is a line for each failed check; with verbose for each check.
func (p *printer) results(s agent.Snapshot, verbose bool) {
	var rs []probe.Result
	for _, r := range s.Results {
		if o := r.Outcome(); verbose || o == probe.Fail && r.Check.Messenger != probe.Control {
			rs = append(rs, r)
		}
	}
	if len(rs) == 0 {
		return
	}
	slices.SortStableFunc(rs, func(a, b probe.Result) int {
		return cmp.Or(cmp.Compare(a.Check.Messenger, b.Check.Messenger), cmp.Compare(a.Check.Function, b.Check.Function))
	})
	const most = 15
	fmt.Fprintln(p.w)
	w := tabwriter.NewWriter(p.w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ENDPOINT\tCHECK\tFAMILY\tASKED\tTOOK\tOUTCOME")
	for i := range rs {
		if i == most && !verbose {
			break
		}
		row(w, &rs[i], rs[i].Check.Protocol)
	}
	w.Flush()
	if len(rs) > most && !verbose {
		fmt.Fprintf(p.w, "… and %d more (-v)\n", len(rs)-most)
	}
}

// learned is what a check found out beside its outcome, for people.
func learned(r *probe.Result) string {
	var reply *probe.ReplyInfo
	var words []string
	for i := range r.Steps {
		s := &r.Steps[i]
		if s.Reply != nil && s.Reply.Proof != "" {
			reply = s.Reply
		}
		if b := s.Burst; b != nil {
			words = append(words, fmt.Sprintf("%d of %d packets back, jitter %.0f ms", b.Received, b.Sent, b.Jitter.Seconds()*1e3))
		}
		if t := s.Transfer; t != nil {
			words = append(words, fmt.Sprintf("%.1f of %d kB at %.0f kbit/s, first byte after %.0f ms", float64(t.Bytes)/1e3, t.Wanted/1e3,
				t.Goodput*8/1e3, t.FirstByte.Seconds()*1e3))
			if t.Stall > time.Second {
				words = append(words, fmt.Sprintf("still for %.1f s at %.1f kB", t.Stall.Seconds(), float64(t.StallAt)/1e3))
			}
		}
	}
	if reply == nil {
		return strings.Join(words, ", ")
	}
	said := []string{reply.Proof}
	if reply.Code != 0 {
		said = append(said, fmt.Sprint(reply.Code))
	}
	if reply.HasSkew && reply.Skew.Abs() >= time.Second {
		said = append(said, fmt.Sprintf("clock %+.0f s", reply.Skew.Seconds()))
	}
	return strings.Join(append(append(said, reply.Marks...), words...), ", ")
}
