package main

import (
	"encoding/json"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/messenger-probe/messenger-probe/targets"
)

// version is set by the build: -ldflags "-X main.version=v1.2.3".
var version = "devel"

// build is what is known of this binary.
type build struct {
	Version   string `json:"version"`
	Commit    string `json:"commit"`
	Go        string `json:"go"`
	Catalogue string `json:"catalogue"`
}

func buildInfo() build {
	b := build{Version: version, Commit: "unknown", Go: runtime.Version()}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				b.Commit = s.Value
			}
		}
		if v := info.Main.Version; version == "devel" && v != "" && v != "(devel)" {
			b.Version = v
		}
	}
	return b
}

func (p *program) versionCommand() *cobra.Command {
	return p.withOutput(&cobra.Command{
		Use:     "version",
		Short:   "Version, commit, Go and the embedded catalogue's version",
		Example: "  messenger-probe version --output json",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, args []string) error {
			asJSON, err := p.json()
			if err != nil {
				return err
			}
			b := buildInfo()
			cat, err := targets.Load("")
			if err != nil {
				return err
			}
			b.Catalogue = cat.Version
			if asJSON {
				enc := json.NewEncoder(p.stdout)
				enc.SetIndent("", "  ")
				return enc.Encode(b)
			}
			_, err = fmt.Fprintf(p.stdout, "messenger-probe %s\ncommit    %s\ngo        %s\ncatalogue %s\n", b.Version, b.Commit, b.Go, b.Catalogue)
			return err
		},
	})
}
