package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math"
	"net"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/messenger-probe/messenger-probe/cmd/internal/agent"
	"github.com/messenger-probe/messenger-probe/cmd/internal/comparator"
	"github.com/messenger-probe/messenger-probe/cmd/internal/config"
	"github.com/messenger-probe/messenger-probe/cmd/internal/confine"
	"github.com/messenger-probe/messenger-probe/cmd/internal/events"
	"github.com/messenger-probe/messenger-probe/cmd/internal/history"
	"github.com/messenger-probe/messenger-probe/cmd/internal/metrics"
	"github.com/messenger-probe/messenger-probe/cmd/internal/notify"
	"github.com/messenger-probe/messenger-probe/cmd/internal/status"
	"github.com/messenger-probe/messenger-probe/cmd/internal/web"
	"github.com/messenger-probe/messenger-probe/probe"
	"github.com/messenger-probe/messenger-probe/probe/verdict"
	"github.com/messenger-probe/messenger-probe/targets"
)

func (p *program) runCommand() *cobra.Command {
	var lifecycle, profile bool
	c := &cobra.Command{
		Use:   "run",
		Short: "The agent: schedule, metrics, page",
		Long: `Measures until it is told to stop, and serves /metrics, /api/v1/status and a page
on the listen address. SIGTERM and SIGINT stop it cleanly, SIGHUP reloads the
configuration and the catalogue; a reload that is not valid changes nothing.
Exit status 0 after a clean stop, 2 where the configuration is not valid or the
address is taken.`,
		Example: `  messenger-probe run
  messenger-probe run --listen 127.0.0.1:9780 --log-format json`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, args []string) error {
			d := &daemon{program: p, cmd: c, lifecycle: lifecycle, profile: profile}
			return d.run(c.Context())
		},
	}
	f := c.Flags()
	f.String("listen", "127.0.0.1:9770", "`host:port` of the page and of /metrics")
	f.BoolVar(&lifecycle, "enable-lifecycle", false, "serve POST /-/reload")
	f.BoolVar(&profile, "enable-pprof", false, "serve /debug/pprof/ to whoever reaches the listen address")
	return c
}

// daemon is a running agent and what it is wired to.
type daemon struct {
	*program
	cmd                *cobra.Command
	lifecycle, profile bool

	log     *slog.Logger
	agent   *agent.Agent
	events  *events.Log
	metrics *metrics.Metrics
	build   build

	notifier *notify.Notifier

	reloading sync.Mutex
	confined  bool                 // what is not its own is out of reach
	deafen    func()               // stops asking agents abroad; nil: none are
	gone      map[string]time.Time // since when an address family has no route
	plan      atomic.Pointer[planned]
	beat      atomic.Int64 // when a result last came in, Unix seconds
	ready     atomic.Bool
	unclean   atomic.Pointer[string] // what stands between agent and line, "" nothing
	history   *history.History
}

func (d *daemon) run(ctx context.Context) error {
	cfg, err := d.load(d.cmd)
	if err != nil {
		return err
	}
	pl, err := plan(cfg)
	if err != nil {
		return err
	}
	if err := web.CheckConfig(cfg.WebConfig); err != nil {
		return fmt.Errorf("web_config: %s: %w", cfg.WebConfig, err)
	}
	l, err := net.Listen("tcp", cfg.Listen)
	if err != nil {
		return fmt.Errorf("listen: %s: %w; set listen to an address of this machine and a free port", cfg.Listen, errors.Unwrap(err))
	}
	defer l.Close()
	saveMemory(d.profile)
	pages := findOwnPages()
	d.log, d.build = d.logger(cfg.Log), buildInfo()
	d.build.Catalogue = pl.catalogue
	d.plan.Store(pl)
	d.metrics = metrics.New(metrics.Options{
		Version: d.build.Version, Commit: d.build.Commit, Go: d.build.Go, Catalogue: d.build.Catalogue,
		Vantage: metrics.Vantage{Name: cfg.Vantage.Name, Country: cfg.Vantage.Country, Subdivision: cfg.Vantage.Subdivision,
			ISP: cfg.Vantage.ISP, ASN: cfg.Vantage.ASN, Network: cfg.Vantage.Network},
	})
	abroad, err := d.comparators(cfg)
	if err != nil {
		return err
	}
	var memory agent.Memory
	if cfg.StateDir != "" {
		if memory, err = recall(cfg.StateDir); err != nil {
			d.log.Warn("state is not readable and is ignored", "error", err)
		}
	}
	if d.events, err = events.Open(cfg.StateDir, func(err error) { d.log.Warn("event not kept", "error", err) }); err != nil {
		d.log.Warn("the event log is not readable; events go on in a new one", "error", err)
	}
	defer d.events.Close()
	d.recollect(cfg.StateDir)
	d.notifier = d.newNotifier(cfg)
	d.agent = agent.New(agent.Options{
		Net:      &probe.Host{},
		Sink:     d,
		Log:      d.log,
		Lag:      d.metrics.ObserveLag,
		Memory:   memory,
		Parallel: runsAtOnce(descriptorLimit()),
	})
	d.adopt(pl, abroad)
	defer func() {
		d.reloading.Lock()
		defer d.reloading.Unlock()
		d.listen(nil)
	}()
	d.metrics.ConfigReloaded(true)
	d.beat.Store(time.Now().Unix())
	page, err := d.statusPage()
	if err != nil {
		return err
	}
	d.greet(l.Addr(), pl)
	d.confine(cfg)
	d.inspect()

	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	wg.Go(func() {
		save := time.NewTicker(min(time.Minute, time.Duration(cfg.Interval)))
		defer save.Stop()
		for {
			select {
			case <-ctx.Done():
				d.save()
				return
			case <-save.C:
				d.save()
				d.inspect()
				d.families(time.Now())
				pages.release()
			case <-hup:
				d.reload()
			}
		}
	})
	wg.Go(func() { d.notifier.Run(ctx) })
	var served error
	wg.Go(func() {
		defer cancel()
		o := web.Options{
			Metrics: d.metrics.Handler(),
			Status:  func(w io.Writer) error { doc := d.document(); return doc.Write(w) },
			Events:  d.events.Write,
			Page:    page, Ready: d.ready.Load, Healthy: d.healthy,
			Profile: d.profile, WebConfig: cfg.WebConfig, Log: d.log,
			Hosts: d.hosts,
		}
		if d.lifecycle {
			o.Reload = d.reload
		}
		served = web.Serve(ctx, l, o)
	})
	err = d.agent.Run(ctx)
	cancel()
	wg.Wait()
	if errors.Is(err, context.Canceled) {
		err = nil
	}
	if err := errors.Join(err, served); err != nil {
		return err
	}
	d.log.Info("stopped")
	return nil
}

// greet says in one line where the agent listens, what it measures, how often,
// and about how much traffic that is.
func (d *daemon) greet(at net.Addr, pl *planned) {
	d.log.Info("measuring",
		"listen", at.String(),
		"messengers", strings.Join(pl.cfg.Messengers, ","),
		"checks", len(pl.checks),
		"interval", pl.cfg.Interval,
		"about_mb_a_day", targets.EstimateBytes(pl.checks)/1e6,
		"version", d.build.Version, "catalogue", pl.catalogue)
	d.sayMissing(pl)
	if n := runsAtOnce(descriptorLimit()); n < parallel {
		d.log.Warn("this process may open few files; fewer checks run at a time", "descriptors", descriptorLimit(), "at_a_time", n)
	}
}

func (d *daemon) sayMissing(pl *planned) {
	for _, f := range pl.missing {
		d.log.Info("this host has no route for an address family, which is not measured", "family", f)
	}
}

// adopt makes a plan the one that is measured.
func (d *daemon) adopt(pl *planned, abroad *comparator.Client) {
	d.plan.Store(pl)
	d.notifier.Set(pl.people)
	d.metrics.SetCatalogue(pl.catalogue, nil)
	d.metrics.SetChecks(pl.checks)
	d.agent.Compare(abroad != nil)
	d.agent.Refrain(unasked(pl.cfg)...)
	d.agent.Limit(int64(pl.cfg.TransferMB) * 1e6)
	d.agent.Set(pl.checks, time.Duration(pl.cfg.Interval))
	d.listen(abroad)
}

// reload reads everything anew. What is not valid changes nothing.
func (d *daemon) reload() error {
	d.reloading.Lock()
	defer d.reloading.Unlock()
	pl, err := d.replan()
	var abroad *comparator.Client
	if err == nil {
		abroad, err = d.comparators(pl.cfg)
	}
	d.metrics.ConfigReloaded(err == nil)
	if d.confined && errors.Is(err, fs.ErrPermission) {
		err = fmt.Errorf("%w; the agent has given up (landlock) what its configuration did not name when it started: start it anew", err)
	}
	if err != nil {
		d.log.Error("not reloaded, the old configuration stays", "error", err)
		return err
	}
	d.adopt(pl, abroad)
	d.log.Info("reloaded", "checks", len(pl.checks), "catalogue", pl.catalogue)
	d.sayMissing(pl)
	return nil
}

// replan is a new plan, as far as a running agent can take it over.
func (d *daemon) replan() (*planned, error) {
	cfg, err := d.load(d.cmd)
	if err != nil {
		return nil, err
	}
	old := d.plan.Load().cfg
	for _, fixed := range []struct {
		key      string
		was, now any
	}{{"listen", old.Listen, cfg.Listen}, {"web_config", old.WebConfig, cfg.WebConfig}, {"state_dir", old.StateDir, cfg.StateDir},
		{"landlock", old.Landlock, cfg.Landlock}, {"vantage", old.Vantage, cfg.Vantage}, {"log", old.Log, cfg.Log}} {
		if fixed.was != fixed.now {
			return nil, fmt.Errorf("%s cannot change while the agent runs; restart it", fixed.key)
		}
	}
	return plan(cfg)
}

// hosts is the names by which the agent may be asked for: what the operator
// says, now, and where it listens.
func (d *daemon) hosts() []string {
	cfg := d.plan.Load().cfg
	return append(slices.Clone(cfg.Hosts), cfg.Listen)
}

// confine gives up what a running agent has no need of. What the configuration
// names later, and did not at the start, is then out of reach.
func (d *daemon) confine(cfg *config.Loaded) {
	version := confine.Supported()
	switch {
	case !cfg.Landlock:
		return
	case version == 0:
		d.log.Info("this kernel has no Landlock: permissions alone keep the agent from the files of others")
		return
	}
	_, _ = time.Now().Zone() // reads the time zone's file, if there is one, before it is too late
	f := confine.Files{Read: append(cfg.Files(), web.Files(cfg.WebConfig)...)}
	if cfg.StateDir != "" {
		if err := os.MkdirAll(cfg.StateDir, 0o700); err != nil {
			d.log.Warn("there is no state_dir, and it cannot be made", "error", err)
		}
		f.Write = []string{cfg.StateDir}
	}
	if err := confine.To(f.And(confine.Resolver("/etc/resolv.conf")).And(confine.Machine())); err != nil {
		d.log.Warn("Landlock does not work here: permissions alone keep the agent from the files of others", "error", err)
		return
	}
	d.confined = true
	d.log.Info("confined to its own files", "landlock", version)
}

// inspect looks at what stands between the agent and the line.
func (d *daemon) inspect() {
	clean, why := clean(d.agent.Snapshot().Vantage, d.plan.Load().cfg.Vantage.Country)
	d.metrics.SetVantageClean(clean)
	if was := d.unclean.Swap(&why); clean != (was == nil || *was == "") {
		d.log.Info("vantage", "clean", clean, "why", why)
	}
}

func (d *daemon) save() {
	cfg := d.plan.Load().cfg
	if cfg.StateDir == "" {
		return
	}
	if err := keep(cfg.StateDir, d.agent.Memory()); err != nil {
		d.log.Warn("state not saved", "error", err)
	}
	if err := d.history.Save(); err != nil {
		d.log.Warn("history not saved", "error", err)
	}
}

// healthy says whether results still come in: at least one in three intervals.
func (d *daemon) healthy() bool {
	cfg := d.plan.Load().cfg
	return time.Since(time.Unix(d.beat.Load(), 0)) < 3*time.Duration(cfg.Interval)+time.Duration(cfg.Timeout)
}

// Record, Judged and Confirming make the daemon the agent's sink.
func (d *daemon) Record(r probe.Result) {
	d.beat.Store(time.Now().Unix())
	d.metrics.Record(r)
	d.count(&r)
}

func (d *daemon) Judged(s agent.Snapshot) {
	d.metrics.SetVantageState(string(s.Vantage.State))
	d.metrics.SetVantageSees(sees(s.Vantage))
	for _, v := range s.Verdicts {
		d.metrics.SetVerdict(v.Messenger, v.Function, string(v.State), string(v.Mechanism), string(v.Confidence), v.Since)
		if v.State != verdict.Unknown {
			d.ready.Store(true)
		}
	}
	for _, x := range s.Doubts {
		for scope, nats := range x.Evidence {
			d.metrics.SetBlockEvidence(x.Messenger, scope, nats)
		}
		for explanation, p := range x.Benign {
			d.metrics.SetBenign(x.Messenger, explanation, p)
		}
	}
	d.note(&s)
	d.notifier.Shown(s.Verdicts)
	if s.Vantage.State != verdict.Online && s.Measured {
		d.ready.Store(true) // ill, but that is known
	}
}

func sees(v verdict.Vantage) map[string]bool {
	m := make(map[string]bool, len(v.Sees))
	for k, yes := range v.Sees {
		m[string(k)] = yes
	}
	return m
}

func (d *daemon) Changed(c agent.Change) {
	e := events.Event{Time: c.Time.UTC().Truncate(time.Second), Messenger: c.Messenger, Function: c.Function, State: string(c.State), Was: string(c.Was),
		Mechanism: string(c.Mechanism), Confidence: string(c.Confidence), Score: math.Round(c.Score*10) / 10, Relapse: c.Relapse,
		Attribution: c.Attribution, Evidence: c.Evidence}
	if !c.Onset.IsZero() {
		onset := c.Onset.UTC().Truncate(time.Second)
		e.Onset = &onset
	}
	d.events.Append(e)
	d.notify(&c)
	if c.State != verdict.Blocked {
		return
	}
	if c.Relapse {
		d.metrics.Relapse(c.Messenger, c.Function)
	} else {
		d.metrics.Onset(c.Messenger, c.Function)
	}
}

func (d *daemon) Confirming(messenger string) { d.metrics.ConfirmationChecks(messenger, 1) }

// document is the JSON of /api/v1/status.
func (d *daemon) document() status.Document {
	cfg := d.plan.Load().cfg
	return document(d.build, cfg, said(d.agent.Snapshot(), cfg.Vantage.Country))
}

func document(b build, cfg *config.Loaded, s agent.Snapshot) status.Document {
	doc := status.Document{
		Schema:   status.Schema,
		Agent:    status.Agent{Version: b.Version, Catalogue: b.Catalogue},
		Vantage:  status.Vantage{Name: cfg.Vantage.Name, Country: cfg.Vantage.Country, Network: cfg.Vantage.Network},
		Time:     s.Time.UTC().Truncate(time.Second),
		Verdicts: status.FromVerdicts(s.Verdicts),
		Results:  status.FromResults(s.Results),
	}
	doc.Vantage.From(s.Vantage)
	return doc
}
