package onset

import (
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
)

// A world is a simulated vantage: streams, the things that go wrong without a
// censor, and blocks. It answers, always the same, what a probe would have seen
// had it started at some time. Times are seconds from its start.
type world struct {
	seed    uint64
	length  float64
	env     nuisance
	streams []worldStream
	base    []float64 // loss by stream
	day0    float64
	rnd     *rand.Rand
	events  []happening
	edges   []float64 // where the set of what happens changes
	active  [][]*happening
	cursor  int
	blocks  []happening
	target  string
	step    float64
}

type worldStream struct {
	Stream
	phase float64
}

// happening kills the probes of some streams for a time.
type happening struct {
	from, to  float64
	kind      string
	hits      []bool
	q         float64
	code      byte
	ramp      float64
	messenger string
}

const (
	worldPeriod  = 60.0
	worldTimeout = 5.0
	worldRTT     = 0.2
)

// worldCodes: failure label and seconds until it is known.
var worldCodes = map[byte]struct {
	failure string
	dur     float64
}{
	't': {"timeout", worldTimeout}, 'r': {"reset", worldRTT}, 'n': {"nxdomain", worldRTT},
	'b': {"bogus_answer", worldRTT}, 'u': {"unreachable", worldRTT}, 'f': {"refused", worldRTT},
}

// nuisance is how often things go wrong: a second, for one vantage, path,
// endpoint or messenger.
type nuisance struct {
	vantageBurst, vantageBurstLen, vantageOutage, cpuStall float64
	pathBurst, pathBurstLen, pathOutage, pathOutageLen     float64
	transitBlip, transitBlipLen, endpointOutage            float64
	resolverOutage, udpOutage, serverOutage, diurnal       float64
	heavyTail                                              bool
	pairOutage                                             float64
}

var (
	typical = nuisance{6 / daySeconds, 10, 1 / (7 * daySeconds), 1 / (7 * daySeconds),
		2 / daySeconds, 10, 1 / (60 * daySeconds), 180, 1 / (60 * daySeconds), 30, 1 / (60 * daySeconds),
		1 / (30 * daySeconds), 1 / (30 * daySeconds), 3 / yearSeconds, .6, false, 0}
	calm nuisance
)

var worldMessengers = []string{"max", "telegram", "whatsapp"}

// worldLayout: endpoint check family path, ten targets a messenger.
var worldLayout = map[string]string{
	"whatsapp": `web.whatsapp.com dns dns resolver, web.whatsapp.com tcp conn meta-a, g.whatsapp.net tls conn meta-b,
		call-relay-1 stun calls meta-a, mmg.whatsapp.net tls conn meta-c, web.whatsapp.com tls conn meta-a,
		g.whatsapp.net dns dns resolver, g.whatsapp.net tcp conn meta-b, call-relay-2 stun calls meta-b, web.whatsapp.com quic conn meta-a`,
	"telegram": `web.telegram.org dns dns resolver, web.telegram.org tcp conn tg-web, dc2 mtproto conn tg-eu,
		reflector-1 stun calls tg-eu, dc1 mtproto conn tg-us, web.telegram.org tls conn tg-web,
		t.me dns dns resolver, dc2 tcp conn tg-eu, reflector-2 stun calls tg-us, t.me tls conn tg-web`,
	"max": `web.max.ru dns dns resolver, web.max.ru tcp conn vk-a, api.max.ru tls conn vk-b,
		max-relay-1 stun calls vk-a, st.max.ru tls conn vk-c, web.max.ru tls conn vk-a,
		api.max.ru dns dns resolver, api.max.ru tcp conn vk-b, max-relay-2 stun calls vk-b, ws.max.ru tls conn vk-c`,
	"control": `ctl-ru-a tls conn local, ctl-dns-a dns dns local, ctl-int-a tcp conn local, ctl-udp-a stun calls local,
		ctl-int-b tls conn local, ctl-dns-b dns dns local, ctl-ru-b tcp conn local, ctl-udp-b quic conn local`,
}

var worldSiblings = map[string]string{
	"whatsapp": "sib-meta-a tls conn meta-a, sib-meta-b tcp conn meta-b, sib-meta-c tls conn meta-c",
	"telegram": "sib-tg-web tls conn tg-web, sib-tg-eu tcp conn tg-eu, sib-tg-us tcp conn tg-us",
	"max":      "sib-vk-a tls conn vk-a, sib-vk-b tcp conn vk-b, sib-vk-c tls conn vk-c",
}

type worldOptions struct {
	loss             float64
	env              nuisance
	siblings, abroad bool
	aligned          bool
	hours            float64
	step             float64 // resolution of on-demand outcomes, seconds
}

var usual = worldOptions{loss: .01, env: typical, siblings: true, abroad: true, hours: 4, step: 5}

func newWorld(seed uint64, o worldOptions) *world {
	w := &world{seed: seed, length: o.hours * 3600, step: o.step, env: o.env, rnd: rand.New(rand.NewPCG(seed, 0x5eed))}
	add := func(layout, messenger string, role Role, offset float64) {
		rows := strings.Split(layout, ",")
		for i, row := range rows {
			f := strings.Fields(row)
			s := worldStream{Stream: Stream{Messenger: messenger, Endpoint: f[0], Check: f[1], Family: f[2], Path: f[3], Role: role}}
			if !o.aligned {
				s.phase = math.Round(math.Mod(float64(i)/float64(len(rows))*worldPeriod+offset, worldPeriod)*1000) / 1000
			}
			w.streams = append(w.streams, s)
		}
	}
	for k, m := range []string{"whatsapp", "telegram", "max"} {
		add(worldLayout[m], m, Target, 1.3*float64(k))
	}
	add(worldLayout["control"], "control", Control, .7)
	for k, m := range []string{"whatsapp", "telegram", "max"} {
		if o.siblings {
			add(worldSiblings[m], m, Sibling, 4.1+1.9*float64(k))
		}
	}
	for k, m := range []string{"whatsapp", "telegram", "max"} {
		if o.abroad {
			var rows []string
			for _, s := range w.streams {
				row := s.Endpoint + " tls conn ref"
				if s.Messenger == m && s.Role == Target && s.Family == Conn && !slices.Contains(rows, row) {
					rows = append(rows, row)
				}
			}
			add(strings.Join(rows, ","), m, Reference, 3.1+1.7*float64(k))
		}
	}
	for _, s := range w.streams {
		f := w.uniform(.6, 1.6)
		if s.udp() {
			f *= 1.25
		}
		p := min(.2, o.loss*f)
		if s.Role == Reference {
			p = .005
		}
		w.base = append(w.base, p)
	}
	w.day0 = w.uniform(0, daySeconds)
	w.nuisances()
	return w
}

func (w *world) uniform(a, b float64) float64 { return a + (b-a)*w.rnd.Float64() }

// length of something that lasts mean seconds.
func (w *world) lasts(mean, floor float64) float64 {
	if w.env.heavyTail { // Pareto: the same mean, infinite variance
		const a = 1.6
		return max(floor, mean*(a-1)/a*math.Pow(1-w.rnd.Float64(), -1/a))
	}
	return max(floor, w.rnd.ExpFloat64()*mean)
}

func (w *world) poisson(rate float64, f func(t float64)) {
	if rate <= 0 {
		return
	}
	for t := w.rnd.ExpFloat64() / rate; t < w.length; t += w.rnd.ExpFloat64() / rate {
		f(t)
	}
}

func (w *world) where(f func(s *worldStream) bool) []bool {
	out := make([]bool, len(w.streams))
	for i := range w.streams {
		out[i] = f(&w.streams[i])
	}
	return out
}

func (w *world) distinct(f func(s *worldStream) bool, key func(s *worldStream) string) (out []string) {
	for i := range w.streams {
		if s := &w.streams[i]; f(s) {
			out = append(out, key(s))
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func (w *world) add(from, to float64, kind string, hits []bool, q float64, code byte, m string) *happening {
	w.events = append(w.events, happening{from: from, to: to, kind: kind, hits: hits, q: q, code: code, messenger: m})
	w.active = nil
	return &w.events[len(w.events)-1]
}

func (w *world) oneOf(codes string) byte { return codes[w.rnd.IntN(len(codes))] }

func localStream(s *worldStream) bool { return s.Role != Reference }

func netOf(m string) func(s *worldStream) bool {
	return func(s *worldStream) bool {
		return s.Messenger == m && (s.Role == Target || s.Role == Sibling) && s.Family != DNS
	}
}

func (w *world) paths(m string) []string {
	return w.distinct(func(s *worldStream) bool { return s.Messenger == m && s.Role == Target && s.Path != "resolver" },
		func(s *worldStream) string { return s.Path })
}

func (w *world) onPath(m string, ps ...string) []bool {
	return w.where(func(s *worldStream) bool { return s.Messenger == m && slices.Contains(ps, s.Path) })
}

func (w *world) endpoints(m string) []string {
	return w.distinct(func(s *worldStream) bool { return s.Messenger == m && s.Role == Target && s.Family == Conn },
		func(s *worldStream) string { return s.Endpoint })
}

func (w *world) nuisances() {
	e, loc := w.env, w.where(localStream)
	w.poisson(e.vantageBurst, func(t float64) {
		w.add(t, t+w.lasts(e.vantageBurstLen, 1), "vantage_burst", loc, w.uniform(.5, 1), 't', "")
	})
	w.poisson(e.vantageOutage, func(t float64) {
		w.add(t, t+w.uniform(120, 1800), "vantage_outage", loc, 1, w.oneOf("tu"), "")
	})
	w.poisson(e.cpuStall, func(t float64) { w.add(t, t+w.uniform(20, 90), "cpu_stall", loc, .6, 't', "") })
	for _, m := range worldMessengers {
		for _, p := range w.paths(m) {
			on := w.onPath(m, p)
			w.poisson(e.pathBurst, func(t float64) {
				w.add(t, t+w.lasts(e.pathBurstLen, 1), "path_burst", on, w.uniform(.5, 1), 't', m)
			})
			w.poisson(e.pathOutage, func(t float64) {
				w.add(t, t+w.lasts(e.pathOutageLen, 30), "path_outage", on, .97, 't', m)
			})
		}
		w.poisson(e.pairOutage, func(t float64) {
			ps := w.paths(m)
			k := w.rnd.Perm(len(ps))
			w.add(t, t+w.lasts(120, 30), "pair_outage", w.onPath(m, ps[k[0]], ps[k[1]]), .97, 't', m)
		})
		w.poisson(e.transitBlip, func(t float64) {
			w.add(t, t+w.lasts(e.transitBlipLen, 5), "transit_blip", w.where(netOf(m)), .95, 't', m)
		})
		for _, ep := range w.endpoints(m) {
			w.poisson(e.endpointOutage, func(t float64) { w.endpointOutage(m, ep, t, t+w.uniform(120, 1200)) })
		}
		w.poisson(e.serverOutage, func(t float64) { w.serverOutage(m, t, t+w.uniform(600, 5400)) })
	}
	w.poisson(e.resolverOutage, func(t float64) { w.resolverOutage(t, t+w.uniform(60, 600)) })
	w.poisson(e.udpOutage, func(t float64) { w.udpOutage(t, t+w.uniform(60, 600)) })
}

func (w *world) endpointOutage(m, ep string, a, b float64) {
	w.add(a, b, "endpoint_outage", w.where(func(s *worldStream) bool {
		return s.Messenger == m && s.Endpoint == ep && s.Family != DNS
	}), 1, w.oneOf("tf"), m)
}

func (w *world) serverOutage(m string, a, b float64) {
	w.add(a, b, "server_outage", w.where(func(s *worldStream) bool {
		return s.Messenger == m && s.Family != DNS && s.Role != Sibling
	}), 1, w.oneOf("ttf"), m)
}

func (w *world) resolverOutage(a, b float64) {
	w.add(a, b, "resolver_outage", w.where(func(s *worldStream) bool { return localStream(s) && s.Family == DNS }), 1, 't', "")
}

func (w *world) udpOutage(a, b float64) {
	w.add(a, b, "udp_outage", w.where(func(s *worldStream) bool { return localStream(s) && s.udp() }), 1, 't', "")
}

// block cuts a messenger off by a mechanism.
func (w *world) block(m string, a, b float64, mechanism string, q, ramp float64) {
	enc := func(s *worldStream) bool { return slices.Contains([]string{"tls", "quic", "mtproto"}, s.Check) }
	part := func(f func(s *worldStream) bool, code byte) {
		h := w.add(a, b, "block", w.where(func(s *worldStream) bool { return s.Messenger == m && s.Role == Target && f(s) }), q, code, m)
		h.ramp = ramp
		w.blocks = append(w.blocks, *h)
	}
	net := func(s *worldStream) bool { return s.Family != DNS }
	names := func(s *worldStream) bool { return s.Family == DNS }
	switch mechanism {
	case "ip_drop":
		part(net, 't')
	case "sni_drop":
		part(enc, 't')
	case "sni_rst":
		part(enc, 'r')
	case "full":
		part(net, 't')
		part(names, 'n')
	case "calls":
		part(func(s *worldStream) bool { return s.Family == Calls }, 't')
	case "dns":
		part(names, w.oneOf("nbt"))
	case "one_endpoint":
		ep := map[string]string{"whatsapp": "web.whatsapp.com", "telegram": "web.telegram.org", "max": "web.max.ru"}[m]
		part(func(s *worldStream) bool { return enc(s) && s.Endpoint == ep }, 't')
	default:
		panic(mechanism)
	}
}

func (w *world) at(t float64) []*happening {
	if w.active == nil {
		w.edges = []float64{math.Inf(-1)}
		for i := range w.events {
			w.edges = append(w.edges, w.events[i].from, w.events[i].to)
		}
		slices.Sort(w.edges)
		w.edges = slices.Compact(w.edges)
		w.active = make([][]*happening, len(w.edges))
		for i := range w.events {
			e := &w.events[i]
			a, _ := slices.BinarySearch(w.edges, e.from)
			b, _ := slices.BinarySearch(w.edges, e.to)
			for ; a < b; a++ {
				w.active[a] = append(w.active[a], e)
			}
		}
		w.cursor = 0
	}
	k := w.cursor
	if t < w.edges[k] || (k+1 < len(w.edges) && t >= w.edges[k+1]) {
		i, exact := slices.BinarySearch(w.edges, t)
		if !exact {
			i--
		}
		k, w.cursor = i, i
	}
	return w.active[k]
}

func mix(seed, a, b uint64) float64 {
	z := seed*0x9E3779B97F4A7C15 + a*0xBF58476D1CE4E5B9 + b*0x94D049BB133111EB + 0x2545F4914F6CDD1D
	z = (z ^ z>>30) * 0xBF58476D1CE4E5B9
	z = (z ^ z>>27) * 0x94D049BB133111EB
	z ^= z >> 31
	return float64(z>>11) / (1 << 53)
}

// outcome of a probe of stream s in slot k of its n-th period: '.' or a code.
func (w *world) outcome(s, n, k int) byte {
	t := w.streams[s].phase + float64(n)*worldPeriod + float64(k)*w.step
	u := mix(w.seed, uint64(s), uint64(n)<<6|uint64(k))
	p := w.base[s]
	if w.env.diurnal != 0 {
		p *= 1 + w.env.diurnal*math.Sin(2*math.Pi*(t+w.day0)/daySeconds)
	}
	if u < p {
		return 't'
	}
	u = (u - p) / (1 - p)
	for _, e := range w.at(t) {
		if !e.hits[s] {
			continue
		}
		q := e.q
		if e.ramp > 0 {
			q *= min(1, (t-e.from)/e.ramp)
		}
		if u < q {
			return e.code
		}
		u = (u - q) / (1 - q)
	}
	return '.'
}

// scenarios without any block, as a vantage in the field meets them.
var worldBenign = []string{"x_vantage_outage", "x_server_outage", "x_endpoint_outage", "x_path_outage", "x_transit_blip",
	"x_resolver_outage", "x_udp_outage", "x_cpu_stall", "x_loss_step", "x_peering"}

func scenario(name string, seed uint64, o worldOptions) *world {
	r := rand.New(rand.NewPCG(seed*7919+17, 1))
	pick := func(xs ...string) string { return xs[r.IntN(len(xs))] }
	if o.loss == 0 {
		o.loss = []float64{.001, .005, .01, .02, .05}[r.IntN(5)]
	}
	w := newWorld(seed, o)
	t := (2 + r.Float64()/2) * 3600
	m := pick("whatsapp", "telegram")
	w.target = m
	w.events = slices.DeleteFunc(w.events, func(e happening) bool {
		return e.kind != "vantage_burst" && e.kind != "path_burst" && e.to >= t-600
	})
	end := t + 5400
	hard := []string{"ip_drop", "sni_drop", "sni_rst", "full"}
	long := func(a, b float64) float64 { return t + a + r.Float64()*(b-a) }
	switch name {
	case "hard":
		w.block(m, t, end, pick(hard...), .99, 0)
	case "hard_ip":
		w.block(m, t, end, "ip_drop", .99, 0)
	case "hard_sni":
		w.block(m, t, end, pick("sni_drop", "sni_rst"), .99, 0)
	case "partial30":
		w.block(m, t, end, pick("ip_drop", "sni_drop"), .3, 0)
	case "partial50":
		w.block(m, t, end, pick("ip_drop", "sni_drop"), .5, 0)
	case "partial80":
		w.block(m, t, end, pick("ip_drop", "sni_drop"), .8, 0)
	case "ramp30m":
		w.block(m, t, end, pick("ip_drop", "sni_drop"), .99, 1800)
	case "calls_only":
		w.block(m, t, end, "calls", .99, 0)
	case "dns_only":
		w.block(m, t, end, "dns", .99, 0)
	case "one_endpoint":
		w.block(m, t, end, "one_endpoint", .99, 0)
	case "lift":
		w.block(m, t, long(1800, 3600), pick(hard...), .99, 0)
	case "flapping":
		mech := pick(hard...)
		for k := range 8 {
			w.block(m, t+float64(k)*600, t+float64(k)*600+300, mech, .99, 0)
		}
	case "under_burst":
		w.add(t-120, t+60, "vantage_burst", w.where(localStream), .3, 't', "")
		w.block(m, t, end, pick(hard...), .99, 0)
	case "x_vantage_outage":
		w.add(t, long(120, 1800), "vantage_outage", w.where(localStream), 1, pick("t", "u")[0], "")
	case "x_server_outage":
		w.serverOutage(m, t, long(600, 3600))
	case "x_endpoint_outage":
		w.endpointOutage(m, pick(w.endpoints(m)...), t, long(300, 3600))
	case "x_path_outage":
		w.add(t, t+max(30, r.ExpFloat64()*180), "path_outage", w.onPath(m, pick(w.paths(m)...)), .97, 't', m)
	case "x_transit_blip":
		w.add(t, t+max(5, r.ExpFloat64()*30), "transit_blip", w.where(netOf(m)), .95, 't', m)
	case "x_resolver_outage":
		w.resolverOutage(t, long(60, 900))
	case "x_udp_outage":
		w.udpOutage(t, long(60, 900))
	case "x_cpu_stall":
		w.add(t, long(20, 90), "cpu_stall", w.where(localStream), .6, 't', "")
	case "x_loss_step":
		w.add(t, t+3600, "vantage_burst", w.where(localStream), .1+r.Float64()*.1, 't', "")
	case "x_peering":
		w.add(t, long(300, 1200), "peering_outage", w.where(netOf(m)), 1, 't', m)
	case "quiet":
	default:
		panic(name)
	}
	return w
}

// run plays the world to an engine.
func (w *world) run(e *Engine, hear func(*Event)) Stats {
	p := newPlayer(e, hear)
	p.ask = w.asker()
	w.each(p.regular)
	return p.finish()
}

// asker answers confirmations.
func (w *world) asker() func(s int, t int64) (answer, bool) {
	read := make([]struct{ n, k int }, len(w.streams))
	return func(s int, t int64) (answer, bool) {
		x := float64(t)*1e-9 - w.streams[s].phase
		n := int(math.Floor(x / worldPeriod))
		k := int((x - float64(n)*worldPeriod + 1e-6) / w.step)
		if k == 0 || n < 0 || (read[s].n == n && read[s].k == k) {
			return answer{}, false
		}
		read[s].n, read[s].k = n, k
		return answerOf(w.outcome(s, n, k)), true
	}
}

// each hands on every regular probe in the order of start.
func (w *world) each(hand func(s int, at int64, a answer)) {
	order := make([]int, len(w.streams))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(w.streams[a].phase, w.streams[b].phase) })
	for n := range int(w.length / worldPeriod) {
		for _, s := range order {
			t := w.streams[s].phase + float64(n)*worldPeriod
			hand(s, int64(math.Round(t*1e3))*1e6, answerOf(w.outcome(s, n, 0)))
		}
	}
}

func answerOf(c byte) answer {
	if c == '.' {
		return answer{ok: true, took: int64(worldRTT * 1e9)}
	}
	x, ok := worldCodes[c]
	if !ok {
		panic(fmt.Sprintf("code %q", c))
	}
	return answer{took: int64(x.dur * 1e9)}
}

func (w *world) engine(cfg Config) *Engine {
	var ss []Stream
	for _, s := range w.streams {
		ss = append(ss, s.Stream)
	}
	cfg.Timeout = worldTimeout * 1e9
	e, err := New(ss, cfg)
	if err != nil {
		panic(err)
	}
	return e
}
