// Command messenger-probe tells, from inside a country's network, whether
// WhatsApp, Telegram and MAX can be reached, what exactly fails, and since
// when. `messenger-probe --help` tells the rest.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	_ "time/tzdata" // the image has no zone files

	"github.com/spf13/cobra"

	"github.com/messenger-probe/messenger-probe/cmd/internal/config"
)

// Exit codes; CONTRACT of the commands, told by each one's help.
const (
	exitOK      = 0
	exitNotOK   = 1 // check: some function is not ok; healthcheck: not well
	exitUsage   = 2 // usage or configuration error
	exitOffline = 3 // check: the vantage is offline, nothing can be said
)

// exit is an error that carries its exit code. A silent one was said already.
type exit struct {
	code int
	err  error
}

func (e *exit) Error() string {
	if e.err == nil {
		return ""
	}
	return e.err.Error()
}

func main() {
	runtime.MemProfileRate = 0 // a megabyte of buckets; see saveMemory
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// run is the program with its surroundings passed in.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	p := &program{stdout: stdout, stderr: stderr}
	root := p.root()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	code := exitUsage
	if e, ok := errors.AsType[*exit](err); ok {
		code = e.code
	}
	if err.Error() != "" {
		fmt.Fprintf(stderr, "messenger-probe: %v\n", err)
	}
	return code
}

// program is what the commands share.
type program struct {
	stdout, stderr io.Writer
	file           string // --config
	output         string // --output
}

func (p *program) root() *cobra.Command {
	runCmd := p.runCommand()
	root := &cobra.Command{
		Use:   "messenger-probe",
		Short: "Tells whether messengers can be reached from here, what fails, how, and since when",
		Long: `messenger-probe measures, from inside a country's network, whether WhatsApp,
Telegram and MAX can be reached: by scheduled DNS, TCP, TLS and QUIC checks and
in the messengers' own protocols. It exports what it finds as Prometheus metrics.

Without a command it is the agent: the same as "messenger-probe run".`,
		Example: `  messenger-probe                 the agent, on 127.0.0.1:9770
  messenger-probe check telegram  one round, a table, an exit code`,
		Args:          cobra.NoArgs,
		RunE:          runCmd.RunE,
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.CompletionOptions.HiddenDefaultCmd = true
	f := root.PersistentFlags()
	f.StringVar(&p.file, "config", "", "configuration `file` (default $XDG_CONFIG_HOME/messenger-probe/config.yaml, else /etc/messenger-probe/config.yaml)")
	f.String("log-level", "info", "debug, info, warn or error")
	f.String("log-format", "text", "text or json")
	root.Flags().AddFlagSet(runCmd.Flags())
	root.AddCommand(runCmd, p.checkCommand(), p.targetsCommand(), p.configCommand(), p.healthcheckCommand(), p.replayCommand(), p.versionCommand())
	return root
}

// withOutput gives a command --output.
func (p *program) withOutput(c *cobra.Command) *cobra.Command {
	c.Flags().StringVarP(&p.output, "output", "o", "table", "table or json")
	return c
}

// json says whether --output asks for JSON.
func (p *program) json() (bool, error) {
	switch p.output {
	case "json":
		return true, nil
	case "table", "":
		return false, nil
	}
	return false, fmt.Errorf("--output: %q is not known; write table or json", p.output)
}

// load reads the configuration for a command.
func (p *program) load(c *cobra.Command) (*config.Loaded, error) {
	return config.Load(p.file, c.Flags())
}

// logger is the log that the configuration asks for.
func (p *program) logger(l config.Log) *slog.Logger {
	var level slog.Level
	level.UnmarshalText([]byte(l.Level)) // validated by package config
	o := &slog.HandlerOptions{Level: level}
	if l.Format == "json" {
		return slog.New(slog.NewJSONHandler(p.stderr, o))
	}
	return slog.New(slog.NewTextHandler(p.stderr, o))
}
