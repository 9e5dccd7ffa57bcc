package metrics

import (
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// pastMechanism is how long a mechanism that no longer explains anything is
// shown as 0: long enough for any scraper and for the rules that look at
// changes, short enough not to gather dust.
const pastMechanism = time.Hour

// state is what the gauges show.
type state struct {
	build      [3]string
	catalogue  string
	vantage    Vantage
	vantageNow string // "" until the controls have told
	clear      *bool  // no tunnel on the line; nil until looked for
	sees       map[string]bool
	reloaded   bool
	reloadTime time.Time
	functions  map[function]*functionState
	evidence   map[string]map[string]float64 // by messenger, by scope
	benign     map[string]map[string]float64 // by messenger, by explanation
	names      map[string]map[string]bool    // endpoints and functions, by messenger
}

type functionState struct {
	name       string
	since      time.Time
	mechanisms []mechanism // the current one has no end; all differ

	onsets, relapses *counter
}

type mechanism struct {
	name, confidence string
	ended            time.Time
}

func newState(o Options, now time.Time) state {
	return state{
		build:      [3]string{clean(o.Version), clean(o.Commit), clean(o.Go)},
		vantage:    o.Vantage.clean(),
		reloaded:   true,
		reloadTime: now,
	}
}

func (v Vantage) clean() Vantage {
	return Vantage{clean(v.Name), clean(v.Country), clean(v.Subdivision), clean(v.ISP), clean(v.ASN), clean(v.Network)}
}

// arrange keeps what still exists and begins what is new.
func (s *state) arrange(functions map[function]bool, names map[string]map[string]bool, begin func(function) *functionState) {
	old := s.functions
	s.functions = make(map[function]*functionState)
	messengers := make(map[string]bool)
	for f := range functions {
		messengers[f.messenger] = true
		if s.functions[f] = old[f]; old[f] == nil {
			s.functions[f] = begin(f)
		}
	}
	s.names = names
	evidence, benign := s.evidence, s.benign
	s.evidence, s.benign = make(map[string]map[string]float64), make(map[string]map[string]float64)
	for m := range messengers {
		s.evidence[m], s.benign[m] = make(map[string]float64), make(map[string]float64)
		for _, scope := range scopes {
			s.evidence[m][scope] = 0
		}
		for scope, nats := range evidence[m] {
			if s.scope(m, scope) == scope {
				s.evidence[m][scope] = nats
			}
		}
		for _, e := range explanations {
			s.benign[m][e] = benign[m][e]
		}
	}
}

// scope is the label of a scope: one of the closed set, or endpoint:NAME and
// the like with a name of the catalogue.
func (s *state) scope(messenger, scope string) string {
	if slices.Contains(scopes, scope) {
		return scope
	}
	if kind, name, ok := strings.Cut(scope, ":"); ok && slices.Contains(scopeKinds, kind) && s.names[messenger][name] {
		return scope
	}
	return otherScope
}

// SetVantage changes how the vantage is described.
func (m *Metrics) SetVantage(v Vantage) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.vantage = v.clean()
}

// SetVantageState tells the state of the vantage; "" where none is known.
func (m *Metrics) SetVantageState(state string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.vantageNow = state
}

// SetVantageClean tells whether the line is free of tunnels, proxies and bypass
// tools.
func (m *Metrics) SetVantageClean(yes bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.state.clear = &yes
}

// SetVantageSees tells, by mechanism, whether positive controls show it. A
// mechanism that is not in the map is unknown.
func (m *Metrics) SetVantageSees(sees map[string]bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sees = make(map[string]bool)
	for name, yes := range sees {
		name = among(mechanisms, name)
		m.sees[name] = m.sees[name] || yes
	}
}

// SetVerdict tells the state of a function, since when, and the mechanism and
// confidence of the verdict, both empty where there is nothing to explain.
func (m *Metrics) SetVerdict(messenger, name, state, mech, confidence string, since time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f := m.functions[functionOf(messenger, name)]
	if f == nil {
		return
	}
	f.name, f.since = among(states, state), since
	now := m.now()
	current := mechanism{name: mech, confidence: confidence}
	if mech != "" {
		current.name = among(mechanisms, mech)
		current.confidence = among(confidences, confidence)
	}
	f.mechanisms = slices.DeleteFunc(f.mechanisms, func(x mechanism) bool {
		return x.over(now) || x.name == current.name && x.confidence == current.confidence
	})
	for i := range f.mechanisms {
		if x := &f.mechanisms[i]; x.ended.IsZero() {
			x.ended = now
		}
	}
	if mech != "" {
		f.mechanisms = append(f.mechanisms, current)
	}
}

// over says that the mechanism has been past for long enough to leave.
func (x mechanism) over(now time.Time) bool {
	return !x.ended.IsZero() && now.Sub(x.ended) >= pastMechanism
}

// SetBlockEvidence tells the detector's log-likelihood sum for a scope of a
// messenger, in nats.
func (m *Metrics) SetBlockEvidence(messenger, scope string, nats float64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if e := m.evidence[messenger]; e != nil {
		e[m.scope(messenger, scope)] = nats
	}
}

// SetBenign tells the probability, 0 to 1, of one rival explanation.
func (m *Metrics) SetBenign(messenger, explanation string, p float64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if b := m.benign[messenger]; b != nil && slices.Contains(explanations, explanation) {
		b[explanation] = p
	}
}

// ConfigReloaded tells how a load of the configuration went.
func (m *Metrics) ConfigReloaded(ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.reloaded = ok; ok {
		m.reloadTime = m.now()
	}
}

// descriptions of counters and gauges.
type descriptions struct {
	checks, failures, void, onsets, relapses, confirmations, bytes,
	ratio, function, mechanism, changed, evidence, benign,
	vantage, vantageState, clean, sees,
	build, catalogue, reloaded, reloadTime *prometheus.Desc
}

// scrape shows counters and gauges when Prometheus asks.
type scrape struct{ m *Metrics }

func (s *scrape) Describe(ch chan<- *prometheus.Desc) {
	d := &s.m.desc
	for _, desc := range []*prometheus.Desc{d.checks, d.failures, d.void, d.onsets, d.relapses, d.confirmations, d.bytes,
		d.ratio, d.function, d.mechanism, d.changed, d.evidence, d.benign,
		d.vantage, d.vantageState, d.clean, d.sees, d.build, d.catalogue, d.reloaded, d.reloadTime} {
		ch <- desc
	}
}

func (s *scrape) Collect(ch chan<- prometheus.Metric) {
	for _, x := range s.m.counters() {
		ch <- x
	}
	for _, x := range s.m.gauges() {
		ch <- x
	}
}

// counters is all counters that there are.
func (m *Metrics) counters() []*counter {
	m.mu.RLock()
	defer m.mu.RUnlock()
	all := make([]*counter, 0, 20*len(m.series))
	for _, s := range m.series {
		all = append(all, s.checks)
		s.mu.Lock()
		for _, f := range s.failures {
			all = append(all, f.counter)
		}
		for _, v := range s.void {
			all = append(all, v.counter)
		}
		s.mu.Unlock()
	}
	for _, f := range m.functions {
		all = append(all, f.onsets, f.relapses)
	}
	for _, t := range m.traffic {
		all = append(all, t.sent, t.received)
		if t.confirmations != nil {
			all = append(all, t.confirmations)
		}
	}
	return all
}

// gauges is all gauges at one moment.
func (m *Metrics) gauges() []prometheus.Metric {
	m.mu.RLock()
	defer m.mu.RUnlock()
	now, d := m.now(), &m.desc
	var all []prometheus.Metric
	add := func(desc *prometheus.Desc, v float64, labels ...string) {
		all = append(all, prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, v, labels...))
	}

	for g, s := range m.groups {
		for i, t := range s.windows.tallies(now) {
			if n := t.ok + t.fail; n > 0 {
				add(d.ratio, float64(t.ok)/float64(n), g.values(spans[i].label)...)
			}
		}
	}
	for f, s := range m.functions {
		for _, x := range states {
			add(d.function, is(x == s.name), f.messenger, f.name, x)
		}
		for _, x := range s.mechanisms {
			if !x.over(now) {
				add(d.mechanism, is(x.ended.IsZero()), f.messenger, f.name, x.name, x.confidence)
			}
		}
		add(d.changed, seconds(s.since), f.messenger, f.name)
	}
	for messenger, scopes := range m.evidence {
		for scope, nats := range scopes {
			add(d.evidence, nats, messenger, scope)
		}
	}
	for messenger, explanations := range m.benign {
		for e, p := range explanations {
			add(d.benign, p, messenger, e)
		}
	}
	v := m.vantage
	add(d.vantage, 1, v.Name, v.Country, v.Subdivision, v.ISP, v.ASN, v.Network)
	for _, x := range vantageStates {
		add(d.vantageState, is(x == m.vantageNow), x)
	}
	if m.state.clear != nil {
		add(d.clean, is(*m.state.clear))
	}
	for mechanism, yes := range m.sees {
		add(d.sees, is(yes), mechanism)
	}
	add(d.build, 1, m.build[:]...)
	add(d.catalogue, 1, m.catalogue)
	add(d.reloaded, is(m.reloaded))
	add(d.reloadTime, seconds(m.reloadTime))
	return all
}

func is(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// seconds is t as Prometheus likes it; 0 for no time.
func seconds(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.UnixMilli()) / 1000
}
