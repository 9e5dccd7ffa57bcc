package verdict

import (
	"fmt"
	"maps"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/messenger-probe/messenger-probe/probe"
)

// servers is what stands at one place of each messenger, a failure domain: the
// machines of one rack or service, which share fate.
var servers = []string{waChat, waWeb, waLogin, waMedia, waRelay, tgMedia, tgRelay, tgWeb, tgBots, maxChat, maxWeb, maxMedia, maxRelay,
	"149.154.175.50", "149.154.167.51", "149.154.175.100", "149.154.167.91", "91.108.56.130", "57.144.253.33",
	"149.154.167.0/24", "157.240.205.0/24", "31.13.72.0/24"}

// whole is all that a messenger has.
func (w *world) whole() match {
	m := []string{"whatsapp", "telegram", "max"}[w.rng.IntN(3)]
	return func(f *flow) bool { return w.owners[f.addr.Addr()] == m }
}

// down picks what an outage strikes.
func (w *world) down() match {
	if w.rng.IntN(3) == 0 {
		return w.whole()
	}
	return to(servers[w.rng.IntN(len(servers))])
}

// An outage is something that goes wrong without a censor. It makes a world of a
// seed.
type outage struct {
	name string
	make func(*world)
	// vantage, where not empty, is the states that the vantage may be in.
	vantage []VantageState
	says    string // in the evidence of the vantage or of some verdict, each time
}

var outages = []outage{
	{name: "servers down, refusing", make: func(w *world) { w.effects = append(w.effects, when(w.down(), refuses)) }, vantage: online},
	{name: "servers down, silent", make: func(w *world) { w.effects = append(w.effects, when(w.oneNetwork(), drops)) }, vantage: online},
	{name: "one host down, both families", make: func(w *world) {
		names := slices.Sorted(maps.Keys(townNames))
		w.effects = append(w.effects, when(to(townNames[names[w.rng.IntN(len(names))]]), drops))
	}, vantage: online},
	{name: "servers hang after connect", make: func(w *world) {
		w.effects = append(w.effects, when(all(w.down(), overTCP), mutes), when(w.oneNetwork(), drops))
	}, vantage: online},
	{name: "applications hang", make: func(w *world) { w.effects = append(w.effects, when(all(w.down(), overTCP), hangs)) }, vantage: online},
	{name: "servers close", make: func(w *world) { w.effects = append(w.effects, when(all(w.down(), overTCP), closes)) }, vantage: online},
	{name: "5xx", make: func(w *world) {
		w.effects = append(w.effects, when(all(w.down(), overTCP), errs, 500+int64(w.rng.IntN(5))))
	}, vantage: online},
	{name: "expired certificate", make: func(w *world) { w.effects = append(w.effects, when(all(w.down(), named), expires)) }, vantage: online},
	{name: "wrong certificate", make: func(w *world) { w.effects = append(w.effects, when(all(w.down(), named), misnames)) }, vantage: online},
	{name: "closed port", make: func(w *world) {
		port := on([]uint16{80, 443, 5222, 3478, 1400}[w.rng.IntN(5)])
		w.effects = append(w.effects, when(all(w.onePlace(), port), drops), when(all(w.down(), port), refuses))
	}, vantage: online},
	{name: "slow link", make: func(w *world) { w.rate = 2e3 + 30e3*w.rng.Float64(); w.rtt += 200 * time.Millisecond }},
	{name: "2 % loss", make: func(w *world) { w.loss = 0.02 }, vantage: online},
	{name: "10 % loss", make: func(w *world) { w.loss = 0.10 }, vantage: []VantageState{Online, Impaired}},
	{name: "300 ms", make: func(w *world) { w.rtt = 300 * time.Millisecond; w.jitter = w.rng.Float64() }, vantage: online},
	{name: "PMTU hole on the line", make: func(w *world) { w.effects = append(w.effects, when(all(anyone, named, overTCP), mutes)) }, vantage: []VantageState{Impaired, Offline}},
	{name: "PMTU hole to a messenger, upwards", make: func(w *world) {
		w.effects = append(w.effects, when(all(w.whole(), overTCP, (*flow).big), swallows))
	}, vantage: online},
	{name: "PMTU hole to a messenger, downwards", make: func(w *world) { w.effects = append(w.effects, hole(w.whole())) }, vantage: online},
	{name: "dead resolver", make: func(w *world) { w.effects = append(w.effects, when(to("95.165.0.53 95.165.0.54"), drops)) }, vantage: []VantageState{Impaired, Offline}, says: "cannot be resolved"},
	{name: "half dead resolver", make: func(w *world) { w.effects = append(w.effects, when(to("95.165.0.53"), drops)) }},
	{name: "resolver fails", make: func(w *world) {
		w.names = append(w.names, everyName(answer{failure: []probe.Failure{probe.FailureDNSServfail, probe.FailureDNSRefused, probe.FailureDNSNXDOMAIN}[w.rng.IntN(3)]}))
	}, vantage: []VantageState{Impaired, Offline}, says: "cannot be resolved"},
	{name: "captive portal", make: func(w *world) {
		w.names = append(w.names, everyName(answer{addrs: addrs("10.0.0.1")}))
		w.effects = append(w.effects, when(all(named, overTCP), forges), when(overUDP, drops))
		w.effects = append([]effect{when(all(overUDP, speaking("dns"), to("95.165.0.0/16")), passes)}, w.effects...)
	}, vantage: []VantageState{Offline}, says: "captive portal"},
	{name: "captive portal that drops", make: func(w *world) {
		w.effects = append(w.effects, when(all(overUDP, speaking("dns"), to("95.165.0.0/16")), passes), when(all(overTCP, on(80)), stubs), when(anyone, drops))
	}, vantage: []VantageState{Offline}},
	{name: "IPv6 gone", make: func(w *world) { w.effects = append(w.effects, when(ip6, []kindOfFate{drops, unroutes}[w.rng.IntN(2)])) }, vantage: online, says: "ip6"},
	{name: "UDP firewalled", make: func(w *world) { w.effects = append(w.effects, when(all(overUDP, not(speaking("dns"))), drops)) }, vantage: online, says: "udp"},
	{name: "all UDP firewalled", make: func(w *world) { w.effects = append(w.effects, when(overUDP, drops)) }},
	{name: "foreign cable cut", make: func(w *world) { w.effects = append(w.effects, when(not(domestic), drops)) }, vantage: []VantageState{Whitelist}},
	{name: "half of the foreign cables cut", make: func(w *world) {
		salt := w.rng.IntN(256)
		w.effects = append(w.effects, when(all(not(domestic), func(f *flow) bool { return (hash(f)+salt)%2 == 0 }), drops))
	}},
	{name: "foreign cable full", make: func(w *world) { w.effects = append(w.effects, lossy(not(domestic), 0.1+0.4*w.rng.Float64())) }},
	{name: "congested way to a messenger", make: func(w *world) {
		w.effects = append(w.effects, lossy(w.whole(), 0.1+0.4*w.rng.Float64()))
	}, vantage: online},
	{name: "overloaded agent", make: func(w *world) { w.lag = 20 * time.Second; w.single = 0.05 }, vantage: []VantageState{Impaired}, says: "overloaded"},
	{name: "no network", make: func(w *world) { w.effects = append(w.effects, when(anyone, drops)) }, vantage: []VantageState{Offline}},
}

var online = []VantageState{Online}

func named(f *flow) bool { return f.name != "" }

// domestic is the networks in the country.
var domestic = to("77.88.0.0/16 87.240.0.0/16 213.59.0.0/16 95.165.0.0/16 195.208.0.0/16 212.53.0.0/16 155.212.0.0/16 217.20.0.0/16 2a02:6b8::/32")

// oneNetwork is servers that can fall silent together: in one place. What has
// servers in several places does not go silent everywhere by itself, unless all
// of it does; that it would be taken for a block is the price of seeing blocks.
func (w *world) oneNetwork() match {
	if w.rng.IntN(3) == 0 {
		return w.whole()
	}
	return w.onePlace()
}

func (w *world) onePlace() match {
	single := slices.DeleteFunc(slices.Clone(servers), func(s string) bool { return strings.Contains(s, " ") && s != tgMedia })
	return to(single[w.rng.IntN(len(single))])
}

// hole loses what servers send in large packets: certificates, and large
// bodies. A short answer, as the refusal of a strange name or of none, comes
// through.
func hole(m match) effect {
	return func(w *world, f *flow) (fate, bool) {
		switch {
		case !m(f) || f.udp || f.name == "" && f.speaks != "tls":
			return fate{}, false
		case f.name == neutralName, f.name == "" && w.rng.IntN(2) == 0:
			return fate{is: alerts}, true
		case w.rng.IntN(2) == 0:
			return fate{is: chokes}, true // a small packet came first
		}
		return fate{is: mutes}, true
	}
}

func everyName(a answer) nameEffect {
	return func(_ *world, q *query) (answer, bool) { return a, q.transport == probe.OverUDP }
}

// hash tells networks apart.
func hash(f *flow) int {
	b := f.addr.Addr().As16()
	return int(b[12])*31 + int(b[13])*7 + int(b[0]) + int(b[3])
}

// TestOutagesAreNotBlocks lives through each outage a thousand times: nothing is
// called blocked, and from a vantage that is not online nothing is said.
func TestOutagesAreNotBlocks(t *testing.T) {
	checks := town()
	rounds := uint64(1000)
	if testing.Short() || raced {
		rounds = 50
	}
	before := debug.SetGCPercent(800) // much garbage, little memory
	t.Cleanup(func() { debug.SetGCPercent(before) })
	for _, o := range outages {
		t.Run(o.name, func(t *testing.T) {
			t.Parallel()
			states := map[string]int{}
			vantages := map[VantageState]int{}
			for seed := range rounds {
				w := worldOf(seed, checks)
				w.single = 0.01 * w.rng.Float64()
				o.make(w)
				how := daily
				if seed%2 == 1 {
					how = once
				}
				d := w.live(checks, how)
				vantages[d.vantage.State]++
				if err := d.blames(o); err != "" {
					t.Errorf("seed %d, %s: %s", seed, how, err)
					d.show(t)
					return
				}
				for _, v := range d.verdicts {
					states[strings.TrimSpace(string(v.State)+" "+string(v.Mechanism))]++
				}
			}
			t.Logf("vantage %v, states %v", vantages, states)
		})
	}
}

// blames says what is wrong with what was said of an outage.
func (d *day) blames(o outage) string {
	if len(o.vantage) > 0 && !slices.Contains(o.vantage, d.vantage.State) {
		return fmt.Sprintf("the vantage is %s, want %v", d.vantage.State, o.vantage)
	}
	said := strings.Join(d.vantage.Evidence, "\n")
	for _, v := range d.verdicts {
		said += "\n" + strings.Join(v.Evidence, "\n")
		switch {
		case v.State == Blocked:
			return fmt.Sprintf("%s/%s is called blocked", v.Messenger, v.Function)
		case d.vantage.State != Online && v.State != Unknown:
			return fmt.Sprintf("%s/%s is called %s from a vantage that is %s", v.Messenger, v.Function, v.State, d.vantage.State)
		case v.State == Unreachable && !strings.Contains(strings.Join(v.Evidence, "\n"), "another network"):
			return fmt.Sprintf("%s/%s is unreachable, and nothing says what would settle it", v.Messenger, v.Function)
		case len(v.Evidence) == 0:
			return fmt.Sprintf("%s/%s is %s without a word", v.Messenger, v.Function, v.State)
		}
	}
	if !strings.Contains(said, o.says) {
		return fmt.Sprintf("nobody says %q", o.says)
	}
	return ""
}
