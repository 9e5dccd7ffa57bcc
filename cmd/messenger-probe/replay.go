package main

import (
	"bufio"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/messenger-probe/messenger-probe/probe/onset"
)

func (p *program) replayCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "replay FILE",
		Short: "Feeds recorded outcomes to the onset detector, events on stdout",
		Long: `Reads a trace of outcomes (JSON Lines, plain or gzip; - is standard input) and
prints the events that the detector of "run" finds in it, one JSON object a
line, in the trace's own time. The last line on standard error says how many
probes the detector asked for beyond the regular ones.
Exit status 0, or 2 where the trace cannot be read.`,
		Example: `  messenger-probe replay trace.jsonl.gz
  messenger-probe replay - < trace.jsonl | jq 'select(.state == "blocked")'`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			var in io.Reader = os.Stdin
			if args[0] != "-" {
				f, err := os.Open(args[0])
				if err != nil {
					return err
				}
				defer f.Close()
				in = f
			}
			out := bufio.NewWriter(p.stdout)
			stats, err := onset.Replay(c.Context(), in, out, onset.Config{})
			if ferr := out.Flush(); err == nil {
				err = ferr
			}
			if err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			fmt.Fprintf(p.stderr, "probes_extra %d of %d\n", stats.Extra, stats.Regular)
			return nil
		},
	}
}
