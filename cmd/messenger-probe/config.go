package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/messenger-probe/messenger-probe/cmd/internal/web"
)

func (p *program) configCommand() *cobra.Command {
	var only, test bool
	c := p.withOutput(&cobra.Command{
		Use:   "config",
		Short: "The effective configuration and where each key comes from",
		Long: `Prints every setting, its value and its source: default, a line of the file, a
variable of the environment, or a flag. Passwords in URLs are masked.
With --notify-test each of notify.targets is sent a message that says that it is
a test, once.
Exit status 0, or 2 where the configuration, the catalogue or a file that they
name is not valid, or 1 where the server of a target did not take the test.`,
		Example: `  messenger-probe config
  messenger-probe config --check --config /etc/messenger-probe/config.yaml
  messenger-probe config --check --notify-test`,
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
			pl, err := plan(cfg)
			if err != nil {
				return err
			}
			if err := web.CheckConfig(cfg.WebConfig); err != nil {
				return fmt.Errorf("web_config: %w", err)
			}
			if test {
				if len(cfg.Notify.Targets) == 0 {
					return errors.New("--notify-test: there is nobody to notify; name somebody in notify.targets")
				}
				return p.testNotify(c, pl.people, asJSON)
			}
			if only {
				return nil
			}
			if asJSON {
				enc := json.NewEncoder(p.stdout)
				enc.SetIndent("", "  ")
				return enc.Encode(cfg.Keys())
			}
			w := tabwriter.NewWriter(p.stdout, 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "KEY\tVALUE\tSOURCE")
			for _, k := range cfg.Keys() {
				fmt.Fprintf(w, "%s\t%s\t%s\n", k.Name, k.Value, k.Source)
			}
			return w.Flush()
		},
	})
	c.Flags().BoolVar(&only, "check", false, "only validate; print nothing where all is well")
	c.Flags().BoolVar(&test, "notify-test", false, "send each of notify.targets a test message")
	return c
}
