//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/messenger-probe/messenger-probe/cmd/internal/netlab"
	"github.com/messenger-probe/messenger-probe/cmd/internal/status"
	"github.com/messenger-probe/messenger-probe/probe"
	"github.com/messenger-probe/messenger-probe/probe/verdict"
)

// TestE2E runs the program, unprivileged, against real servers over a network
// of namespaces, clean and in every way broken that a middlebox can break it.
func TestE2E(t *testing.T) {
	w := newWorld(t)
	t.Run("run", w.testRun)
	t.Run("dashboards", w.testDashboards)
	t.Run("comparator", w.testComparator)
	t.Run("notify", w.testNotify)
	t.Run("check", w.testCheck)
	t.Run("memory", w.testMemory)
	t.Run("hosts", w.testHosts)
	t.Run("offline", w.testOffline)
	for _, c := range mechanisms {
		t.Run("mechanism/"+c.name, func(t *testing.T) { w.testCase(t, c) })
	}
	for _, c := range outages {
		t.Run("outage/"+c.name, func(t *testing.T) { w.testCase(t, c) })
	}
}

// answer is what a check said.
type answer struct {
	status.Document
	exit int
	took time.Duration
}

// check runs `check --output json` at a vantage, and holds what comes to the
// contract.
func (w *world) check(t *testing.T, v *netlab.Vantage, env ...string) answer {
	t.Helper()
	cmd := v.Unprivileged(w.bin, "check", "--output", "json")
	cmd.Env = append(env, w.env...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	start := time.Now()
	a := answer{}
	if err := cmd.Run(); err != nil {
		ee, ok := errors.AsType[*exec.ExitError](err)
		if !ok {
			t.Fatal(err)
		}
		a.exit = ee.ExitCode()
	}
	a.took = time.Since(start)
	if stderr.Len() > 0 {
		t.Errorf("standard error of a check: %.1000s", &stderr)
	}
	for _, problem := range contract(stdout.Bytes()) {
		t.Errorf("contract: %s", problem)
	}
	if err := json.Unmarshal(stdout.Bytes(), &a.Document); err != nil {
		t.Fatalf("%v in %q", err, stdout.String())
	}
	if a.took > 45*time.Second {
		t.Errorf("a check took %v", a.took)
	}
	return a
}

// verdict is that of a function.
func (a *answer) verdict(function string) status.Verdict {
	i := slices.IndexFunc(a.Verdicts, func(v status.Verdict) bool { return v.Function == function })
	if i < 0 {
		return status.Verdict{}
	}
	return a.Verdicts[i]
}

// functions is those of the messenger lab.
var functions = []string{"chat", "login", "bots", "web", "media", "push", "calls"}

func (w *world) vantage(t *testing.T, rules ...netlab.Rule) *netlab.Vantage {
	t.Helper()
	v := w.Vantage(t, atHome.at(53)[0])
	v.Box.Set(rules...)
	return v
}

// Where nothing is in the way all is ok, in both families, and exit status 0.
func (w *world) testCheck(t *testing.T) {
	t.Parallel()
	a := w.check(t, w.vantage(t))
	if a.exit != 0 || a.Vantage.State != verdict.Online {
		t.Errorf("exit status %d, vantage %s: %q", a.exit, a.Vantage.State, a.Vantage.Evidence)
	}
	for _, f := range functions {
		if v := a.verdict(f); v.State != verdict.OK || v.Mechanism != "" || v.Confidence != "" {
			t.Errorf("%s is %s: %q", f, v.State, v.Evidence)
		}
	}
	checks := map[string]map[string]bool{"ip4": {}, "ip6": {}}
	for _, r := range a.Results {
		if r.Outcome != "ok" {
			t.Errorf("%s/%s/%s %s %s is %s (%s): %s at %s", r.Messenger, r.Function, r.Endpoint, r.Check, r.Family, r.Outcome, r.Reason, r.Failure, r.Operation)
		}
		if at, err := netip.ParseAddrPort(r.Address); err == nil && at.Addr().Is4() != (r.Family == "ip4") {
			t.Errorf("%s of %s in %s", r.Endpoint, r.Address, r.Family)
		}
		if r.Messenger == "lab" {
			checks[r.Family][r.Check] = true
		}
	}
	for family, seen := range checks {
		for _, c := range []string{"dns", "tcp", "tls", "quic", "http", "mtproto", "noise", "oneme", "stun", "transfer"} {
			if !seen[c] {
				t.Errorf("no result of %s over %s", c, family)
			}
		}
	}
	t.Logf("%d results in %v", len(a.Results), a.took)

	// The same for a person.
	cmd := w.vantage(t).Unprivileged(w.bin, "check", "lab")
	cmd.Env = w.env
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.HasPrefix(string(out), "Lab works.\n") || strings.Contains(string(out), "\x1b") {
		t.Errorf("%v: %s", err, out)
	}
}

// What has not yet proved to answer does not count; what did once, with a
// folder to remember it in, does.
func (w *world) testMemory(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(w.Dir, "state")
	if err := os.Mkdir(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	os.Chmod(dir, 0o777)
	v := w.vantage(t)
	silence := netlab.Rule{Proto: netlab.UDP, Hosts: relayB.at(11), Do: netlab.Drop}
	for _, step := range []struct {
		rules   []netlab.Rule
		outcome probe.Outcome
		reason  probe.Reason
		calls   []verdict.State
	}{
		{[]netlab.Rule{silence}, probe.Void, probe.ReasonInformational, []verdict.State{verdict.OK}},
		{nil, probe.OK, "", []verdict.State{verdict.OK}},
		{[]netlab.Rule{silence}, probe.Fail, "", []verdict.State{verdict.Degraded}},
	} {
		v.Box.Set(step.rules...)
		a := w.check(t, v, "MESSENGER_PROBE_STATE_DIR="+dir)
		for _, r := range a.Results {
			if r.Endpoint == "relay3" && (r.Outcome != step.outcome || r.Reason != step.reason) {
				t.Errorf("relay3 is %s (%s), want %s (%s)", r.Outcome, r.Reason, step.outcome, step.reason)
			}
		}
		if v := a.verdict("calls"); !slices.Contains(step.calls, v.State) {
			t.Errorf("calls are %s, want %v: %q", v.State, step.calls, v.Evidence)
		}
	}
}

// A host that is silent, that refuses and that resets fails in three ways.
func (w *world) testHosts(t *testing.T) {
	for _, tc := range []struct {
		name               string
		to                 []netip.Addr
		checks             string // in which it shows; a silent host is not asked in all of them
		operation, failure string
	}{
		{"silent", nobody, "tcp tls http", "connect", "generic_timeout_error"},
		{"refusing", refusing, "tls", "connect", "connection_refused"},
		{"resetting", resetting, "tls", "tls_handshake", "connection_reset"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			a := w.check(t, w.vantage(t, netlab.Rule{Proto: netlab.TCP, Hosts: slices.Concat(webA.at(10), webB.at(10)), Do: netlab.Redirect(on(0, tc.to...)...)}))
			if a.exit != 1 {
				t.Errorf("exit status %d", a.exit)
			}
			seen := map[string]bool{}
			for _, r := range a.Results {
				if r.Endpoint != "web" || !slices.Contains(strings.Fields(tc.checks), r.Check) {
					continue
				}
				seen[r.Family] = true
				if r.Outcome != "fail" || string(r.Operation) != tc.operation || string(r.Failure) != tc.failure {
					t.Errorf("%s %s: %s at %s, want %s at %s", r.Address, r.Outcome, r.Failure, r.Operation, tc.failure, tc.operation)
				}
			}
			if len(seen) != 2 {
				t.Errorf("results of %v alone", seen)
			}
			if v := a.verdict("web"); v.State != verdict.Unreachable && v.State != verdict.Blocked {
				t.Errorf("web is %s", v.State)
			}
		})
	}
}

// Where the line is dead, exit status 3 says so, and nothing is said of any
// messenger.
func (w *world) testOffline(t *testing.T) {
	for name, cut := range map[string]func(*testing.T, *netlab.Vantage){
		"unplugged": func(t *testing.T, v *netlab.Vantage) { v.Unplug(t) },
		"silent":    func(t *testing.T, v *netlab.Vantage) { v.Box.Set(netlab.Rule{Do: netlab.Drop}) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v := w.vantage(t)
			cut(t, v)
			a := w.check(t, v)
			if a.exit != 3 || a.Vantage.State != verdict.Offline {
				t.Errorf("exit status %d, vantage %s: %q", a.exit, a.Vantage.State, a.Vantage.Evidence)
			}
			for _, f := range functions {
				if v := a.verdict(f); v.State != verdict.Unknown || v.Mechanism != "" {
					t.Errorf("%s is %s by %s", f, v.State, v.Mechanism)
				}
			}
			for _, r := range a.Results {
				if r.Outcome != "void" && r.Messenger == "lab" {
					t.Errorf("%s %s is %s", r.Endpoint, r.Check, r.Outcome)
				}
			}
		})
	}
}

// A testCase is what is done to the network and what must be said of it.
type testCase struct {
	name    string
	rules   []netlab.Rule
	vantage []verdict.VantageState // online where there are none
	// want is the states that a function may have, with the mechanisms that may
	// explain it; a function that is not here must be ok, or unknown where the
	// vantage is not online.
	want map[string]want
}

type want struct {
	states     []verdict.State
	mechanisms []verdict.Mechanism
}

func be(states ...verdict.State) want { return want{states: states} }

func (w want) by(ms ...verdict.Mechanism) want { w.mechanisms = ms; return w }

func all(w want) map[string]want {
	m := map[string]want{}
	for _, f := range functions {
		m[f] = w
	}
	return m
}

// testCase runs one check and compares.
func (w *world) testCase(t *testing.T, c testCase) {
	t.Parallel()
	a := w.check(t, w.vantage(t, c.rules...))
	if c.vantage == nil {
		c.vantage = []verdict.VantageState{verdict.Online}
	}
	if !slices.Contains(c.vantage, a.Vantage.State) {
		t.Errorf("vantage %s, want %v: %q", a.Vantage.State, c.vantage, a.Vantage.Evidence)
	}
	for _, f := range functions {
		v := a.verdict(f)
		want, named := c.want[f]
		switch {
		case a.Vantage.State != verdict.Online:
			want = be(verdict.Unknown)
		case !named:
			want = be(verdict.OK)
		}
		if !slices.Contains(want.states, v.State) || len(want.mechanisms) > 0 && v.Mechanism != "" && !slices.Contains(want.mechanisms, v.Mechanism) {
			t.Errorf("%s is %s by %s (%s), want %v by %v: %q", f, v.State, v.Mechanism, v.Confidence, want.states, want.mechanisms, v.Evidence)
			for _, r := range a.Results {
				if r.Function == f {
					t.Logf("%+v", r)
				}
			}
		}
		t.Logf("%s: %s %s %s", f, v.State, v.Mechanism, v.Confidence)
	}
	t.Logf("%v", a.took)
}

// Shorthands of what rules are about.
var (
	dcs     = slices.Concat(dc1Net.at(51), dc2Net.at(51))
	relays  = slices.Concat(relayA.at(10), relayB.at(10), relayB.at(11))
	webs    = slices.Concat(webA.at(10), webB.at(10))
	medias  = mediaNet.at(10)
	labName = []string{"lab.test"}
	system  = atHome.at(53)
	lab     = slices.Concat(dcs, relays, webs, medias, loginNet.at(10), botsNet.at(10), pushNet.at(10), pushNet.at(11))
	abroad  = slices.Concat(lab, resolversAbroad(), abroadNet.at(10), abroadNet.at(11), abroadNet.at(12), abroadNet.at(13),
		dc1Net.at(99), dc2Net.at(99), loginNet.at(99), webA.at(99))

	blocked  = be(verdict.Blocked)
	degraded = be(verdict.Degraded)
	down     = be(verdict.Unreachable)
)

// resolversAbroad is every resolver but the national one.
func resolversAbroad() (addrs []netip.Addr) {
	for i := range 20 {
		addrs = append(addrs, beyond.at(byte(10+i))...)
	}
	return addrs
}

// byName is the functions that need a name from the DNS.
func byName(w want) map[string]want {
	return map[string]want{"login": w, "bots": w, "web": w, "media": w, "push": w}
}

// overTLS is the functions that say a name in a ClientHello.
func overTLS(w want) map[string]want {
	w.states = []verdict.State{verdict.Blocked}
	media := w
	media.states = []verdict.State{verdict.Degraded} // QUIC says the name, too, and passes
	return map[string]want{"bots": w, "web": w, "push": w, "media": media}
}

// mechanisms is each way of blocking.
var mechanisms = []testCase{
	{name: "dns_omission", want: byName(blocked.by(verdict.DNSOmission)),
		rules: []netlab.Rule{{Hosts: system, Ports: []uint16{53}, Do: netlab.Redirect(on(53, denier...)...)}}},
	{name: "dns_injection", want: byName(blocked.by(verdict.DNSInjection)),
		rules: []netlab.Rule{{Proto: netlab.UDP, Names: labName, Do: netlab.Forge(dns.RcodeSuccess, interceptor...)}}},
	{name: "dns_injection_nxdomain", want: byName(blocked.by(verdict.DNSInjection)),
		rules: []netlab.Rule{{Proto: netlab.UDP, Names: labName, Do: netlab.Forge(dns.RcodeNameError)}}},
	{name: "dns_drop", want: byName(blocked.by(verdict.DNSDrop)),
		rules: []netlab.Rule{{Proto: netlab.UDP, Hosts: system, Names: labName, Do: netlab.Drop}}},
	{name: "dns_forgery", want: byName(blocked.by(verdict.DNSForgery)),
		rules: []netlab.Rule{{Hosts: system, Ports: []uint16{53}, Do: netlab.Redirect(on(53, liar...)...)}}},
	{name: "dns_hijack", want: byName(blocked.by(verdict.DNSHijack)),
		rules: []netlab.Rule{{Proto: netlab.UDP, Ports: []uint16{53}, Do: netlab.Redirect(on(53, denier...)...)}}},
	{name: "ip_block", want: map[string]want{"chat": blocked.by(verdict.IPBlock)},
		rules: []netlab.Rule{{Hosts: dcs, Do: netlab.Drop}}},
	{name: "ip_block_half", want: map[string]want{"chat": be(verdict.Degraded).by(verdict.IPBlock)},
		rules: []netlab.Rule{{Hosts: dc1Net.at(51), Do: netlab.Drop}}},
	{name: "port_block", want: map[string]want{"chat": degraded.by(verdict.PortBlock)},
		rules: []netlab.Rule{{Proto: netlab.TCP, Hosts: dcs, Ports: []uint16{443}, Do: netlab.Drop}}},
	{name: "tcp_reset", want: map[string]want{"web": blocked.by(verdict.TCPReset)},
		rules: []netlab.Rule{{Proto: netlab.TCP, Hosts: webs, Do: netlab.Reset}}},
	{name: "sni_drop", want: overTLS(be().by(verdict.SNIDrop)),
		rules: []netlab.Rule{{Proto: netlab.TCP, Names: labName, Do: netlab.Drop}}},
	{name: "sni_reset", want: overTLS(be().by(verdict.SNIReset)),
		rules: []netlab.Rule{{Proto: netlab.TCP, Names: labName, Do: netlab.Reset}}},
	{name: "sni_delayed_drop", want: overTLS(be().by(verdict.SNIDelayedDrop)),
		rules: []netlab.Rule{{Proto: netlab.TCP, Names: labName, Do: netlab.DropAfter(6)}}},
	{name: "freeze", want: map[string]want{"media": degraded.by(verdict.Freeze)},
		rules: []netlab.Rule{{Proto: netlab.TCP, Hosts: medias, Do: netlab.Freeze(18 << 10)}}},
	{name: "throttling", want: map[string]want{"media": degraded.by(verdict.Throttling)},
		rules: []netlab.Rule{{Proto: netlab.TCP, Names: labName, Hosts: medias, Do: netlab.Police(130e3)}}},
	{name: "quic_block", want: map[string]want{"media": degraded.by(verdict.QUICBlock)},
		rules: []netlab.Rule{{Proto: netlab.UDP, Hosts: medias, First: netlab.QUICv1, Do: netlab.Drop}}},
	{name: "quic_sni_block", want: map[string]want{"media": degraded.by(verdict.QUICSNIBlock)},
		rules: []netlab.Rule{{Proto: netlab.UDP, Hosts: medias, Names: labName, Do: netlab.Drop}}},
	{name: "call_block", want: map[string]want{"calls": blocked.by(verdict.CallBlock)},
		rules: []netlab.Rule{{Proto: netlab.UDP, Hosts: relays, Do: netlab.Drop}}},
	{name: "protocol_block", want: map[string]want{
		"chat": degraded.by(verdict.ProtocolBlock), "login": blocked.by(verdict.ProtocolBlock)},
		rules: []netlab.Rule{{Proto: netlab.TCP, First: netlab.Begins("\xef", "POST /api", "WA\x06"), Do: netlab.Drop}}},
	{name: "tls_mitm", want: map[string]want{"web": blocked.by(verdict.TLSMITM)},
		rules: []netlab.Rule{{Proto: netlab.TCP, Hosts: webs, Ports: []uint16{443}, Do: netlab.Redirect(on(0, interceptor...)...)}}},
	{name: "http_stub", want: map[string]want{"push": degraded.by(verdict.HTTPStub)},
		rules: []netlab.Rule{{Proto: netlab.TCP, Ports: []uint16{80}, Do: netlab.Redirect(on(80, warner...)...)}}},
	{name: "two causes", want: map[string]want{
		"chat": blocked.by(verdict.IPBlock), "bots": blocked.by(verdict.SNIReset), "web": blocked.by(verdict.SNIReset), "media": degraded.by(verdict.SNIReset), "push": blocked.by(verdict.SNIReset)},
		rules: []netlab.Rule{{Hosts: dcs, Do: netlab.Drop}, {Proto: netlab.TCP, Names: labName, Do: netlab.Reset}}},
}

// outages is what is no block, and must not be called one.
var outages = []testCase{
	{name: "messenger gone", want: all(down),
		rules: []netlab.Rule{{Hosts: lab, Do: netlab.Drop}}},
	{name: "server stopped", want: map[string]want{"web": down},
		rules: []netlab.Rule{{Proto: netlab.TCP, Hosts: webs, Do: netlab.Redirect(on(0, refusing...)...)}}},
	{name: "server hangs", want: map[string]want{"web": be(verdict.Unreachable, verdict.Degraded)},
		rules: []netlab.Rule{{Proto: netlab.TCP, Hosts: webs, Do: netlab.Redirect(on(0, dc1Net.at(99)...)...)}}},
	{name: "server errors", want: map[string]want{"web": be(verdict.OK, verdict.Degraded, verdict.Unreachable)},
		rules: []netlab.Rule{{Proto: netlab.TCP, Hosts: webs, Do: netlab.Redirect(on(0, ailing...)...)}}},
	{name: "certificate expired", want: map[string]want{"web": be(verdict.Unreachable, verdict.Degraded)},
		rules: []netlab.Rule{{Proto: netlab.TCP, Hosts: webs, Do: netlab.Redirect(on(0, lapsed...)...)}}},
	{name: "port closed", want: map[string]want{"chat": be(verdict.OK, verdict.Degraded)},
		rules: []netlab.Rule{{Proto: netlab.TCP, Hosts: dcs, Ports: []uint16{5222}, Do: netlab.Redirect(on(0, refusing...)...)}}},
	{name: "slow line", want: all(be(verdict.OK)),
		rules: []netlab.Rule{{Do: netlab.Shape(2e6)}}},
	{name: "2 percent lost", want: all(be(verdict.OK, verdict.Degraded)),
		rules: []netlab.Rule{{Do: netlab.Lose(0.02)}}},
	{name: "10 percent lost", want: all(be(verdict.OK, verdict.Degraded, verdict.Unreachable)), vantage: []verdict.VantageState{verdict.Online, verdict.Impaired},
		rules: []netlab.Rule{{Do: netlab.Lose(0.10)}}},
	{name: "300 ms", want: all(be(verdict.OK)),
		rules: []netlab.Rule{{Do: netlab.Delay(150 * time.Millisecond)}}},
	{name: "MTU hole", want: all(be(verdict.OK, verdict.Degraded, verdict.Unreachable)), vantage: []verdict.VantageState{verdict.Online, verdict.Impaired, verdict.Offline},
		rules: []netlab.Rule{{Do: netlab.Hole(1300)}}},
	{name: "resolver dead", vantage: []verdict.VantageState{verdict.Impaired},
		rules: []netlab.Rule{{Hosts: system, Do: netlab.Drop}}},
	{name: "captive portal", vantage: []verdict.VantageState{verdict.Impaired, verdict.Offline},
		rules: []netlab.Rule{{Proto: netlab.TCP, Do: netlab.Redirect(on(0, portal...)...)}, {Proto: netlab.UDP, Ports: []uint16{3478, 443}, Do: netlab.Drop}}},
	{name: "no IPv6",
		rules: []netlab.Rule{{Family: 6, Do: netlab.Drop}}},
	{name: "UDP firewalled", want: map[string]want{"calls": be(verdict.Unknown, verdict.Unreachable)},
		rules: []netlab.Rule{{Proto: netlab.UDP, Hosts: nil, Ports: []uint16{443, 3478}, Do: netlab.Drop}}},
	{name: "cable abroad cut", vantage: []verdict.VantageState{verdict.Whitelist},
		rules: []netlab.Rule{{Hosts: abroad, Do: netlab.Drop}}},
}
