package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/messenger-probe/messenger-probe/targets"
)

func (p *program) targetsCommand() *cobra.Command {
	list := p.withOutput(&cobra.Command{
		Use:   "list",
		Short: "Every endpoint of the catalogue in force",
		Example: `  messenger-probe targets list
  messenger-probe targets list --output json`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, args []string) error {
			asJSON, err := p.json()
			if err != nil {
				return err
			}
			cfg, err := p.load(c)
			if err != nil {
				return err
			}
			cat, err := targets.Load(cfg.Catalogue)
			if err != nil {
				return err
			}
			rows := cat.List()
			if asJSON {
				enc := json.NewEncoder(p.stdout)
				enc.SetIndent("", "  ")
				return enc.Encode(rows)
			}
			w := tabwriter.NewWriter(p.stdout, 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "MESSENGER\tFUNCTION\tENDPOINT\tTIER\tWHERE\tCHECKS\tCONFIRMED")
			for _, r := range rows {
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", r.Messenger, r.Function, r.Endpoint, r.Tier, r.Where, strings.Join(r.Checks, " "), r.Confirmed)
			}
			return w.Flush()
		},
	})
	validate := &cobra.Command{
		Use:   "validate FILE...",
		Short: "Whether catalogue files would be accepted",
		Long: `Lays the files over the embedded catalogue and says what is wrong, with file,
line and key. Prints nothing where all is well. Exit status 0 or 2.`,
		Example: "  messenger-probe targets validate my-messenger.yaml",
		Args:    cobra.MinimumNArgs(1),
		RunE:    func(c *cobra.Command, args []string) error { return targets.Validate(args...) },
	}
	c := p.withOutput(&cobra.Command{
		Use:     "targets",
		Short:   "The catalogue, and whether a file would be accepted",
		Example: list.Example + "\n" + validate.Example,
		Args:    cobra.NoArgs,
		RunE:    list.RunE,
	})
	c.AddCommand(list, validate)
	return c
}
