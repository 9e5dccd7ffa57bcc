package main

import (
	"flag"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"

	"github.com/messenger-probe/messenger-probe/cmd/internal/config"
	"github.com/messenger-probe/messenger-probe/cmd/internal/metrics"
	"github.com/messenger-probe/messenger-probe/probe"
)

var update = flag.Bool("update", false, "rewrite the tables of README.md")

const readmePath = "../../README.md"

func readme(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile(readmePath)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// between is what stands between two marks, and around them.
func between(t *testing.T, text, name string) (before, in, after string) {
	t.Helper()
	begin, end := "<!-- "+name+":begin -->\n", "<!-- "+name+":end -->"
	before, rest, ok := strings.Cut(text, begin)
	in, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("there is no %s and %s", strings.TrimSpace(begin), end)
	}
	return before + begin, in, end + after
}

func configTable() string {
	var b strings.Builder
	b.WriteString("| key | default | meaning |\n|---|---|---|\n")
	for _, r := range config.Table() {
		def := ""
		if r.Default != "" {
			def = "`" + r.Default + "`"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", r.Name, def, r.Doc)
	}
	return b.String()
}

func metricsTable() string {
	var b strings.Builder
	b.WriteString("| metric | type | labels | meaning |\n|---|---|---|---|\n")
	for _, r := range metrics.Table() {
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", r.Name, r.Type, strings.Join(r.Labels, ", "), strings.ReplaceAll(r.Help, "|", "\\|"))
	}
	return b.String()
}

// The tables of keys and metrics are what the code has.
func TestREADMETables(t *testing.T) {
	text := readme(t)
	for name, want := range map[string]string{"config": configTable(), "metrics": metricsTable()} {
		before, in, after := between(t, text, name)
		if in == want {
			continue
		}
		if *update {
			text = before + want + after
			continue
		}
		t.Errorf("the %s table is not what the code has; go test ./cmd/messenger-probe -run README -update rewrites it:\n%s", name, cmp.Diff(in, want))
	}
	if *update {
		if err := os.WriteFile(readmePath, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
}

// column is the first column of the table that begins with this head.
func column(text, head string) []string {
	_, rest, ok := strings.Cut(text, head)
	if !ok {
		return nil
	}
	var cells []string
	for _, line := range strings.Split(rest, "\n")[1:] {
		if !strings.HasPrefix(line, "|") {
			break
		}
		if cell := strings.TrimSpace(strings.Split(line, "|")[1]); !strings.HasPrefix(cell, "---") {
			cells = append(cells, strings.Trim(cell, "`"))
		}
	}
	return cells
}

// What the README says of checks, commands, paths and exit codes is so.
func TestREADMEWords(t *testing.T) {
	text := readme(t)
	if d := cmp.Diff(probe.Protocols[:], column(text, "| check | asks | ok means |")); d != "" {
		t.Errorf("the table of checks:\n%s", d)
	}
	for _, c := range commands(root()) {
		if name := c.Name(); !strings.Contains(text, name) {
			t.Errorf("the command %s is not in the README", name)
		}
	}
	// Names in code spans that look like ours exist.
	known := map[string]bool{}
	for _, r := range metrics.Table() {
		known[r.Name], known[strings.TrimPrefix(r.Name, "messenger_probe_")] = true, true
	}
	for _, r := range config.Table() {
		known[r.Name] = true
	}
	for _, m := range regexp.MustCompile("`(messenger_probe_[a-z_]+|[a-z_]+_(?:total|seconds|info|ratio|state)|(?:vantage|trust|log)\\.[a-z_]+)`").FindAllStringSubmatch(text, -1) {
		if !known[m[1]] {
			t.Errorf("`%s` is neither a metric nor a key", m[1])
		}
	}
}

// root is the command line, with nothing behind it.
func root() *cobra.Command { return (&program{}).root() }

// commands is c and all below it that a person sees.
func commands(c *cobra.Command) []*cobra.Command {
	list := []*cobra.Command{c}
	for _, sub := range c.Commands() {
		if !sub.Hidden && sub.Name() != "help" && sub.Name() != "completion" {
			list = append(list, commands(sub)...)
		}
	}
	return list
}

// Each command says what it is for in one line, shows an example that begins
// with it, and its flags are explained.
func TestHelp(t *testing.T) {
	var names []string
	for _, c := range commands(root()) {
		names = append(names, c.Name())
		if c.Short == "" || strings.Contains(c.Short, "\n") {
			t.Errorf("%s: short help %q", c.CommandPath(), c.Short)
		}
		if c.Example == "" {
			t.Errorf("%s: no example", c.CommandPath())
		}
		for _, line := range strings.Split(c.Example, "\n") {
			if !strings.HasPrefix(line, "  messenger-probe") {
				t.Errorf("%s: the example %q is no command of ours", c.CommandPath(), line)
			}
		}
		var out strings.Builder
		c.SetOut(&out)
		if err := c.Help(); err != nil {
			t.Error(err)
		}
		if !strings.Contains(out.String(), "Examples:\n"+c.Example) {
			t.Errorf("%s --help shows no example:\n%s", c.CommandPath(), out.String())
		}
		if usage := c.Flags().FlagUsages(); strings.Contains(usage, "string   \n") {
			t.Errorf("%s: a flag without words:\n%s", c.CommandPath(), usage)
		}
	}
	slices.Sort(names)
	want := []string{"check", "config", "healthcheck", "list", "messenger-probe", "replay", "run", "targets", "validate", "version"}
	if d := cmp.Diff(want, names); d != "" {
		t.Errorf("the commands of the contract:\n%s", d)
	}
}
