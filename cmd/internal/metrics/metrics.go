// Package metrics counts results and shows them to Prometheus. It is the only
// package that knows client_golang.
//
// Histograms are client_golang's own, native beside classic. Counters are ours,
// for their memory. Gauges are kept as plain values and become series at the
// scrape, all under one lock, so that a scrape never sees a function in two
// states.
//
// # Which series exist, and from when
//
// Every known label set is there, at 0, from [Metrics.SetChecks] on. All
// failures of all operations would be 7 × 51 series for each label set, nearly
// all of them 0 for ever, so the failures that exist from the start follow a
// rule: for each operation that the check's protocol has, the failures by which
// censorship and outages mostly show there ([signs]); at most ten for a label
// set. Any other failure of the closed vocabulary appears when it first happens.
//
// No label carries an address, a resolver's answer, a certificate's field or an
// error's text: labels come from the catalogue, from the operator's own
// description of the vantage, and from closed sets.
package metrics

import (
	"errors"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/messenger-probe/messenger-probe/probe"
)

// Options says what the agent is and where it measures.
type Options struct {
	Version string // of the agent
	Commit  string
	Go      string // runtime.Version()

	Catalogue string // its version
	// Functions is the functions of each messenger, as for [Metrics.SetCatalogue].
	Functions map[string][]string

	Vantage Vantage

	// Registry is what to register with and to gather from; nil is a new one.
	Registry *prometheus.Registry
	// Now is the clock of windows and timestamps; nil is time.Now.
	Now func() time.Time
}

// Vantage describes where the agent measures, in the operator's words; empty
// is not said.
type Vantage struct {
	Name        string
	Country     string // ISO 3166-1
	Subdivision string // ISO 3166-2
	ISP         string
	ASN         string
	Network     string // datacenter, residential, mobile, unknown
}

// labels is what tells the counters of checks apart. Checks that differ only in
// their target share them.
type labels struct{ messenger, function, endpoint, check, family string }

func labelsOf(c *probe.Check) labels {
	return labels{clean(c.Messenger), clean(c.Function), clean(c.Endpoint), clean(c.Protocol), clean(c.Family)}
}

func (l labels) group() group { return group{l.messenger, l.function, l.check} }

func (l labels) pairs() []*dto.LabelPair {
	return []*dto.LabelPair{label("messenger", l.messenger), label("function", l.function),
		label("endpoint", l.endpoint), label("check", l.check), label("family", l.family)}
}

// group is what tells histograms and ratios apart: labels but for endpoint and
// family, which would cost too many series.
type group struct{ messenger, function, check string }

func (g group) values(more ...string) []string {
	return append([]string{g.messenger, g.function, g.check}, more...)
}

// function is one function of one messenger.
type function struct{ messenger, name string }

func functionOf(messenger, name string) function { return function{clean(messenger), clean(name)} }

// series is the counters of one label set.
type series struct {
	since  *timestamppb.Timestamp
	pairs  []*dto.LabelPair
	group  *groupSeries
	checks *counter

	mu       sync.Mutex
	failures []failure
	void     []void
}

type failure struct {
	op   probe.Op
	name probe.Failure
	*counter
}

type void struct {
	reason probe.Reason
	*counter
}

// groupSeries is the histograms, by operation, and the ratios of one group.
type groupSeries struct {
	durations map[probe.Op]prometheus.Observer
	windows   *windows
}

// traffic is the counters of one messenger, control included, which nobody
// suspects.
type traffic struct{ sent, received, confirmations *counter }

// Metrics is all that the agent tells Prometheus. Its methods may be called
// from any goroutine.
type Metrics struct {
	registry  *prometheus.Registry
	now       func() time.Time
	rows      []Row
	durations *prometheus.HistogramVec
	lag       prometheus.Histogram
	desc      descriptions

	// Labels that many counters share.
	ops      map[probe.Op]*dto.LabelPair
	failures map[probe.Failure]*dto.LabelPair
	reasons  map[probe.Reason]*dto.LabelPair

	mu      sync.RWMutex
	offered []function // what SetCatalogue was last told
	series  map[labels]*series
	groups  map[group]*groupSeries
	traffic map[string]*traffic
	state   // what the gauges show
}

// New makes the metrics and registers them; it panics where the registry has
// metrics of these names. The configuration that led here counts as its first
// successful load.
func New(o Options) *Metrics {
	m := &Metrics{
		registry: o.Registry,
		now:      o.Now,
		ops:      words("operation", probe.Ops[:]),
		failures: words("failure", probe.Failures()),
		reasons:  words("reason", probe.Reasons[:]),
	}
	if m.registry == nil {
		m.registry = prometheus.NewRegistry()
	}
	if m.now == nil {
		m.now = time.Now
	}
	d := definitions{reg: m.registry}

	m.desc.checks = d.counter("checks_total", "Finished checks that count: ok and fail.",
		"messenger", "function", "endpoint", "check", "family")
	m.desc.failures = d.counter("check_failures_total", "Checks that failed, by the operation that failed and how.",
		"messenger", "function", "endpoint", "check", "family", "operation", "failure")
	m.desc.void = d.counter("checks_void_total", "Checks that say nothing about the messenger, by reason.",
		"messenger", "function", "endpoint", "check", "family", "reason")
	m.desc.ratio = d.gauge("success_ratio", "Checks that worked ÷ checks that count, over the window; absent while none counted.",
		"messenger", "function", "check", "window")
	m.durations = d.histogram("step_duration_seconds", "Time that worked operations took.", stepBuckets,
		"messenger", "function", "check", "operation")
	m.desc.function = d.gauge("function_state", "1 for the state that the function is in, 0 for the others.",
		"messenger", "function", "state")
	m.desc.mechanism = d.gauge("function_mechanism", "1 for the mechanism that explains the state now, 0 for an hour after it was.",
		"messenger", "function", "mechanism", "confidence")
	m.desc.changed = d.gauge("function_state_change_timestamp_seconds", "When the function came into its state; 0 while that is not known.",
		"messenger", "function")
	m.desc.onsets = d.counter("onsets_total", "Blocks that began.", "messenger", "function")
	m.desc.relapses = d.counter("relapses_total", "Blocks that came back within one episode.", "messenger", "function")
	m.desc.evidence = d.gauge("block_evidence_nats", "The detector's sum of log-likelihood ratios for a block; those of several vantages can be added.",
		"messenger", "scope")
	m.desc.benign = d.gauge("benign_probability", "Probability of the best rival explanation of its kind.",
		"messenger", "explanation")
	m.desc.confirmations = d.counter("confirmation_checks_total", "Checks asked for by suspicion.", "messenger")
	m.desc.vantage = d.gauge("vantage_info", "Where the agent measures, as its operator says.",
		"vantage", "country", "subdivision", "isp", "asn", "network")
	m.desc.vantageState = d.gauge("vantage_state", "1 for the state that the vantage is in, 0 for the others; all 0 until the controls have told.",
		"state")
	m.desc.clean = d.gauge("vantage_clean", "0 where a tunnel, proxy or bypass tool is seen between agent and line, 1 where none is; absent until looked for.")
	m.desc.sees = d.gauge("vantage_sees", "Whether positive controls show the mechanism at work here; absent while unknown.",
		"mechanism")
	m.lag = d.histogram("schedule_lag_seconds", "Time by which checks started late.", lagBuckets).WithLabelValues().(prometheus.Histogram)
	m.desc.bytes = d.counter("network_bytes_total", "Payload bytes through the sockets of checks; headers and retransmissions not counted.",
		"messenger", "direction")
	m.desc.build = d.gauge("build_info", "The agent's build.", "version", "commit", "goversion")
	m.desc.catalogue = d.gauge("catalogue_info", "The catalogue in force.", "version")
	m.desc.reloaded = d.gauge("config_last_reload_successful", "Whether the last load of the configuration worked.")
	m.desc.reloadTime = d.gauge("config_last_reload_success_timestamp_seconds", "When the configuration in force was loaded.")
	m.rows = d.rows

	m.state = newState(o, m.now())
	m.registry.MustRegister(&scrape{m})
	for _, c := range []prometheus.Collector{
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	} {
		// The default registry has them already.
		if err := m.registry.Register(c); err != nil && !errors.As(err, new(prometheus.AlreadyRegisteredError)) {
			panic(err)
		}
	}
	m.SetCatalogue(o.Catalogue, o.Functions)
	return m
}

// Handler serves the metrics as text, as OpenMetrics or, with the native
// histograms, as protobuf, whatever the scraper likes best. A defect of one
// metric costs that metric, not the page.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{
		Registry:            m.registry, // counts the handler's own errors
		ErrorHandling:       promhttp.ContinueOnError,
		EnableOpenMetrics:   true,
		MaxRequestsInFlight: 4,
		Timeout:             10 * time.Second,
	})
}

// SetCatalogue tells which catalogue is in force and which functions its
// messengers have. A function that a check names need not be told; one whose
// checks are all switched off (a family that this host lacks) has to be, to be
// seen at all.
func (m *Metrics) SetCatalogue(version string, functions map[string][]string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.catalogue = clean(version)
	m.offered = nil
	for messenger, names := range functions {
		for _, name := range names {
			m.offered = append(m.offered, functionOf(messenger, name))
		}
	}
	m.arrange()
}

// SetChecks tells which checks there are. Counters of label sets that stay keep
// their values, those of label sets that are gone leave.
func (m *Metrics) SetChecks(checks []probe.Check) {
	m.mu.Lock()
	defer m.mu.Unlock()

	now := timestamppb.New(m.now())
	old, groups := m.series, m.groups
	m.series, m.groups = make(map[labels]*series), make(map[group]*groupSeries)
	for i := range checks {
		c := &checks[i]
		l := labelsOf(c)
		g := m.groups[l.group()]
		if g == nil {
			if g = groups[l.group()]; g == nil {
				g = &groupSeries{make(map[probe.Op]prometheus.Observer), newWindows(m.now())}
			}
			m.groups[l.group()] = g
		}
		s := m.series[l]
		if s == nil {
			if s = old[l]; s == nil {
				s = &series{since: now, pairs: l.pairs(), group: g}
				s.checks = newCounter(m.desc.checks, now, s.pairs)
			}
			m.series[l] = s
		}
		for _, r := range reasons(c) {
			m.void(s, r)
		}
		for _, op := range operations(c) {
			if g.durations[op] == nil {
				g.durations[op] = m.durations.WithLabelValues(l.group().values(string(op))...)
			}
			for _, f := range signs[op] {
				m.failed(s, op, f)
			}
		}
	}
	for g := range groups {
		if m.groups[g] == nil {
			m.durations.DeletePartialMatch(prometheus.Labels{"messenger": g.messenger, "function": g.function, "check": g.check})
		}
	}
	m.arrange()
}

// arrange makes what exists for each messenger and each function agree with
// checks and catalogue. The caller holds the lock.
func (m *Metrics) arrange() {
	functions := make(map[function]bool)
	names := make(map[string]map[string]bool)
	name := func(f function) {
		if names[f.messenger] == nil {
			names[f.messenger] = make(map[string]bool)
		}
		names[f.messenger][f.name] = true
		// A control has roles where a messenger has functions.
		if f.messenger != probe.Control {
			functions[f] = true
		}
	}
	for _, f := range m.offered {
		name(f)
	}
	for l := range m.series {
		name(function{l.messenger, l.function})
		names[l.messenger][l.endpoint] = true
	}

	since := timestamppb.New(m.now())
	old := m.traffic
	m.traffic = make(map[string]*traffic)
	for messenger := range names {
		t := old[messenger]
		if t == nil {
			own := []*dto.LabelPair{label("messenger", messenger)}
			t = &traffic{
				sent:     newCounter(m.desc.bytes, since, own, []*dto.LabelPair{label("direction", "sent")}),
				received: newCounter(m.desc.bytes, since, own, []*dto.LabelPair{label("direction", "received")}),
			}
			if messenger != probe.Control {
				t.confirmations = newCounter(m.desc.confirmations, since, own)
			}
		}
		m.traffic[messenger] = t
	}
	m.state.arrange(functions, names, func(f function) *functionState {
		own := []*dto.LabelPair{label("messenger", f.messenger), label("function", f.name)}
		return &functionState{
			name:     Unknown,
			onsets:   newCounter(m.desc.onsets, since, own),
			relapses: newCounter(m.desc.relapses, since, own),
		}
	})
}

// Record counts one result. A check that SetChecks does not know, one that a
// reload removed while it ran or a follow-up under labels of its own, counts
// for the bytes only: it must not bring a dead series back.
func (m *Metrics) Record(r probe.Result) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	l := labelsOf(&r.Check)
	if t := m.traffic[l.messenger]; t != nil {
		t.sent.add(r.Sent)
		t.received.add(r.Received)
	}
	s := m.series[l]
	if s == nil {
		return
	}

	for i := range r.Steps {
		step := &r.Steps[i]
		if step.Failure != "" || step.DNS != nil && step.DNS.Cached {
			continue
		}
		if o := s.group.durations[step.Op]; o != nil {
			o.Observe(step.Took.Seconds())
		} else if m.ops[step.Op] != nil {
			m.durations.WithLabelValues(l.group().values(string(step.Op))...).Observe(step.Took.Seconds())
		}
	}

	outcome, reason := r.Judge()
	f := r.Failed()
	// An operation outside the closed set can only be a defect.
	if outcome == probe.Fail && m.ops[f.Op] == nil {
		outcome, reason = probe.Void, probe.ReasonPanic
	}
	switch outcome {
	case probe.OK:
		s.checks.add(1)
		s.group.windows.add(m.now(), tally{ok: 1})
	case probe.Fail:
		s.checks.add(1)
		m.failed(s, f.Op, f.Failure).add(1)
		s.group.windows.add(m.now(), tally{fail: 1})
	default:
		m.void(s, reason).add(1)
	}
}

// failed is the counter of one way to fail; it begins when it is first asked
// for.
func (m *Metrics) failed(s *series, op probe.Op, name probe.Failure) *counter {
	if m.failures[name] == nil {
		name = probe.FailureUnknown
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.failures {
		if f := &s.failures[i]; f.op == op && f.name == name {
			return f.counter
		}
	}
	c := newCounter(m.desc.failures, s.since, s.pairs, []*dto.LabelPair{m.ops[op], m.failures[name]})
	s.failures = append(s.failures, failure{op, name, c})
	return c
}

// void is the counter of one reason, likewise.
func (m *Metrics) void(s *series, reason probe.Reason) *counter {
	if m.reasons[reason] == nil {
		reason = probe.ReasonPanic
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.void {
		if v := &s.void[i]; v.reason == reason {
			return v.counter
		}
	}
	c := newCounter(m.desc.void, s.since, s.pairs, []*dto.LabelPair{m.reasons[reason]})
	s.void = append(s.void, void{reason, c})
	return c
}

// ObserveLag counts how late a check started.
func (m *Metrics) ObserveLag(d time.Duration) { m.lag.Observe(max(d, 0).Seconds()) }

// Onset counts a block of a function that began.
func (m *Metrics) Onset(messenger, name string) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if f := m.functions[functionOf(messenger, name)]; f != nil {
		f.onsets.add(1)
	}
}

// Relapse counts a block of a function that came back.
func (m *Metrics) Relapse(messenger, name string) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if f := m.functions[functionOf(messenger, name)]; f != nil {
		f.relapses.add(1)
	}
}

// ConfirmationChecks counts n checks of a messenger that suspicion asked for.
func (m *Metrics) ConfirmationChecks(messenger string, n int) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if t := m.traffic[clean(messenger)]; t != nil && t.confirmations != nil {
		t.confirmations.add(int64(n))
	}
}

// clean makes a label value of s: client_golang refuses what is not UTF-8.
func clean(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }
