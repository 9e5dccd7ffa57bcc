package onset

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// The hidden states that explain failures without a block. Rates and lengths
// were set on simulated vantages and are meant to be roughly right: what
// matters is that every harmless thing that looks like a block has a name here.

const (
	daySeconds  = 86400.0
	yearSeconds = 365 * daySeconds
)

// numV is the number of states of the vantage itself.
const numV = 6

// Indices of vantage states.
const (
	vFine = iota
	vBurst
	vHalf
	vDown
	vLossy
	vVeryLossy
)

// vantageStates act on every local stream. prior is the share of time spent in
// the state, life its mean length in seconds, q the share of probes it kills.
var vantageStates = [numV]struct {
	name           string
	prior, life, q float64
}{
	{"fine", 0, 0, 0},
	{"vantage_burst", 3 * 12 / daySeconds, 12, .9},
	{"vantage_burst", 3 * 12 / daySeconds, 12, .55},
	{"vantage_down", 600 / (7 * daySeconds), 600, .98},
	{"vantage_lossy", 1800 / (2 * daySeconds), 1800, .12},
	{"vantage_very_lossy", 600 / (2 * daySeconds), 600, .35},
}

// Explanation groups the benign states; a closed set.
type Explanation string

const (
	ExplainVantage  Explanation = "vantage"
	ExplainResolver Explanation = "resolver"
	ExplainUDP      Explanation = "udp"
	ExplainPath     Explanation = "path"
	ExplainEndpoint Explanation = "endpoint"
	ExplainServer   Explanation = "server"
)

// Explanations is every Explanation.
var Explanations = [...]Explanation{ExplainVantage, ExplainResolver, ExplainUDP, ExplainPath, ExplainEndpoint, ExplainServer}

// A benign is one way in which something other than the vantage and the censor
// fails.
type benign struct {
	name  string
	kind  Explanation
	prior float64 // share of time
	life  int     // index into model.lives
	// lasting: worth an event of its own when it is all but certain
	lasting bool
	// references are the streams without which this state cannot be told from
	// a block; while they are silent it is taken out of the reckoning.
	references []int
}

// waning is how a benign state comes and goes; see benign.
type waning struct {
	prior float64
	life  int
}

// kills is the share of probes that each state of the vantage kills; allLive is
// that of none, left.
var kills, allLive = func() (q, ok [numV]float64) {
	for v := range q {
		q[v], ok[v] = vantageStates[v].q, 1
	}
	return q, ok
}()

// strengths are the shares of failing probes that a block is tried with. A
// block of unknown strength loses less than a nat against the nearest of them.
var strengths = [...]float64{.25, .55, .95}

type scope struct {
	name, noun string
	in         []bool // by stream
	net        bool   // some of it is more than names
}

// model is what does not change: the streams of one messenger, the states and
// scopes they give rise to.
type model struct {
	messenger string
	streams   []Stream
	ids       []int // position -> the caller's number of the stream
	pos       map[int]int

	target, local, calm []bool // calm: a control or a sibling
	b                   []benign
	waning              []waning // what of b bears on how it comes and goes
	referred            []int    // states of b that have references
	lives               []float64
	rates               []float64   // 1/lives
	lifeV               [numV]int   // by state of the vantage, index into lives
	unhurt              []float64   // by state of b: 1
	okB                 [][]float64 // [stream][state of b] probability that the state lets a probe live
	priorV              [numV]float64
	priorB              []float64
	scopes              []scope
	byStream            [][]int // scopes of a stream
}

func newModel(messenger string, streams []Stream, ids []int) (*model, error) {
	n := len(streams)
	m := &model{messenger: messenger, streams: streams, ids: ids, pos: make(map[int]int, n),
		target: make([]bool, n), local: make([]bool, n), calm: make([]bool, n)}
	for i, s := range streams {
		m.pos[ids[i]] = i
		m.target[i] = s.Role == Target
		m.local[i] = s.Role != Reference
		m.calm[i] = s.Role == Control || s.Role == Sibling
	}
	if err := m.explain(); err != nil {
		return nil, err
	}
	m.scope()
	return m, nil
}

// path is the routing group of a stream.
func (s Stream) path() string {
	if s.Path == "" {
		return "endpoint " + s.Endpoint
	}
	return s.Path
}

func (s Stream) udp() bool { return s.Check == "stun" || s.Check == "quic" }

// names the block of a name or protocol inside the connection can hit.
func (s Stream) encrypted() bool {
	switch s.Check {
	case "tls", "quic", "mtproto", "http", "websocket", "noise", "oneme", "transfer":
		return true
	}
	return false
}

// explain lays out the benign states.
func (m *model) explain() error {
	local := func(s Stream) bool { return s.Role != Reference }
	net := func(s Stream) bool { return s.Role == Target && s.Family != DNS }
	netOrSibling := func(s Stream) bool { return net(s) || s.Role == Sibling }
	refs := func(s Stream) bool { return s.Role == Reference }

	m.okB = make([][]float64, len(m.streams))
	lives := func(life float64) int {
		li := slices.Index(m.lives, life)
		if li < 0 {
			li = len(m.lives)
			m.lives, m.rates = append(m.lives, life), append(m.rates, 1/life)
		}
		return li
	}
	for v := 1; v < numV; v++ {
		m.lifeV[v] = lives(vantageStates[v].life)
	}
	add := func(name string, kind Explanation, prior, life, q float64, lasting bool, hit func(Stream) bool) {
		m.b = append(m.b, benign{name: name, kind: kind, prior: prior, life: lives(life), lasting: lasting})
		for i, s := range m.streams {
			ok := 1.0
			if hit(s) {
				ok = 1 - q
			}
			m.okB[i] = append(m.okB[i], ok)
		}
	}
	add("nothing", "", 0, math.Inf(1), 0, false, func(Stream) bool { return false })
	add("resolver_down", ExplainResolver, 300/(30*daySeconds), 300, .98, true,
		func(s Stream) bool { return local(s) && s.Family == DNS })
	add("udp_down", ExplainUDP, 300/(30*daySeconds), 300, .98, true,
		func(s Stream) bool { return local(s) && s.udp() })
	add("transit_blip", ExplainPath, 30/(60*daySeconds), 30, .95, false, netOrSibling)

	paths := m.distinct(net, Stream.path)
	if len(paths) > maxGroups {
		return fmt.Errorf("onset: %s has %d routing groups, more than %d", m.messenger, len(paths), maxGroups)
	}
	for _, p := range paths {
		on := func(s Stream) bool { return netOrSibling(s) && s.path() == p }
		add("path_burst:"+p, ExplainPath, 2*12/daySeconds, 12, .75, false, on)
		add("path_down:"+p, ExplainPath, 300/(60*daySeconds), 300, .97, true, on)
	}
	if len(paths) > 2 && len(paths) <= 4 {
		for i, p := range paths {
			for _, q := range paths[i+1:] {
				add("paths_down:"+p+"+"+q, ExplainPath, 180/yearSeconds, 180, .97, true,
					func(s Stream) bool { return netOrSibling(s) && (s.path() == p || s.path() == q) })
			}
		}
	}
	if slices.ContainsFunc(m.streams, refs) {
		endpoints := m.distinct(net, func(s Stream) string { return s.Endpoint })
		if len(endpoints) > maxGroups {
			return fmt.Errorf("onset: %s has %d endpoints, more than %d", m.messenger, len(endpoints), maxGroups)
		}
		for _, e := range endpoints {
			at := func(s Stream) bool { return s.Endpoint == e }
			seen := m.where(func(s Stream) bool { return refs(s) && at(s) })
			if len(seen) == 0 {
				continue
			}
			add("endpoint_down:"+e, ExplainEndpoint, 600/(60*daySeconds), 600, .98, true,
				func(s Stream) bool { return (net(s) || refs(s)) && at(s) })
			m.b[len(m.b)-1].references = seen
		}
		add("server_down", ExplainServer, 10*2400/yearSeconds, 2400, .98, true,
			func(s Stream) bool { return net(s) || refs(s) })
		m.b[len(m.b)-1].references = m.where(refs)
	}

	for b, s := range m.b {
		m.waning = append(m.waning, waning{s.prior, s.life})
		m.unhurt = append(m.unhurt, 1)
		if len(s.references) > 0 {
			m.referred = append(m.referred, b)
		}
	}
	m.priorB = make([]float64, len(m.b))
	m.priorV[0], m.priorB[0] = 1, 1
	for v := 1; v < numV; v++ {
		m.priorV[v] = vantageStates[v].prior
		m.priorV[0] -= m.priorV[v]
	}
	for b := 1; b < len(m.b); b++ {
		m.priorB[b] = m.b[b].prior
		m.priorB[0] -= m.priorB[b]
	}
	return nil
}

// scope lays out what a block may cover.
func (m *model) scope() {
	add := func(name, noun string, in func(Stream) bool) {
		sc := scope{name: name, noun: noun, in: make([]bool, len(m.streams))}
		some := false
		for i, s := range m.streams {
			sc.in[i] = s.Role == Target && in(s)
			some = some || sc.in[i]
			sc.net = sc.net || sc.in[i] && s.Family != DNS
		}
		if some {
			m.scopes = append(m.scopes, sc)
		}
	}
	family := func(f string) func(Stream) bool { return func(s Stream) bool { return s.Family == f } }
	add("all", "probes", func(Stream) bool { return true })
	add("net", "connections and call probes", func(s Stream) bool { return s.Family != DNS })
	add("conn", "connections", family(Conn))
	add("tls", "handshakes", Stream.encrypted)
	add("dns", "lookups", family(DNS))
	add("calls", "call probes", family(Calls))
	targets := func(s Stream) bool { return s.Role == Target }
	for _, f := range m.distinct(targets, func(s Stream) string { return s.Function }) {
		if f != "" && f != "calls" {
			add("function:"+f, "probes of "+f, func(s Stream) bool { return s.Function == f && s.Family != DNS })
		}
	}
	for _, e := range m.distinct(func(s Stream) bool { return targets(s) && s.encrypted() }, func(s Stream) string { return s.Endpoint }) {
		add("endpoint:"+e, "handshakes with "+e, func(s Stream) bool { return s.Endpoint == e && s.encrypted() })
	}
	// Two scopes of the same streams say the same; the first name stands.
	var scopes []scope
	for _, sc := range m.scopes {
		if !slices.ContainsFunc(scopes, func(o scope) bool { return slices.Equal(o.in, sc.in) }) {
			scopes = append(scopes, sc)
		}
	}
	m.scopes = scopes
	m.byStream = make([][]int, len(m.streams))
	for i := range m.streams {
		for g := range m.scopes {
			if m.scopes[g].in[i] {
				m.byStream[i] = append(m.byStream[i], g)
			}
		}
	}
}

// distinct is the sorted set of what key says of the streams that pass.
func (m *model) distinct(pass func(Stream) bool, key func(Stream) string) []string {
	var out []string
	for _, s := range m.streams {
		if pass(s) {
			out = append(out, key(s))
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func (m *model) where(pass func(Stream) bool) []int {
	var out []int
	for i, s := range m.streams {
		if pass(s) {
			out = append(out, i)
		}
	}
	return out
}

// explanation of a scope's name for a person.
func (m *model) scopeIndex(name string) int {
	return slices.IndexFunc(m.scopes, func(s scope) bool { return s.name == name })
}

// key identifies a stream across restarts.
func (s Stream) key() string {
	return strings.Join([]string{s.Messenger, s.Function, s.Endpoint, s.Check, s.Family, s.Path, s.Target, string(s.Role)}, "\x1f")
}
