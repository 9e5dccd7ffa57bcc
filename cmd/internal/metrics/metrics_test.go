package metrics

import (
	"bufio"
	"bytes"
	"flag"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/testutil"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"go.uber.org/goleak"

	"github.com/messenger-probe/messenger-probe/probe"
	"github.com/messenger-probe/messenger-probe/targets"
)

var update = flag.Bool("update", false, "rewrite testdata/metrics.golden")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A small catalogue: names and pinned addresses, one control.
func someChecks() []probe.Check {
	return []probe.Check{
		check("telegram", "chat", "dc2", probe.ProtoMTProto, probe.IP4),
		check("telegram", "chat", "dc2", probe.ProtoTCP, probe.IP4),
		check("telegram", "web", "web.telegram.org", probe.ProtoTLS, probe.IP4, probe.ByName{}),
		check("telegram", "web", "web.telegram.org", probe.ProtoTLS, probe.IP6, probe.ByName{}),
		check("whatsapp", "calls", "relay", probe.ProtoSTUN, probe.IP4),
		check(probe.Control, probe.Foreign, "neutral", probe.ProtoQUIC, probe.IP4),
	}
}

func check(messenger, function, endpoint, protocol, family string, p ...probe.Prober) probe.Check {
	c := probe.Check{Messenger: messenger, Function: function, Endpoint: endpoint, Protocol: protocol, Family: family}
	if len(p) > 0 {
		c.Prober = p[0]
	}
	return c
}

func worked(c probe.Check, steps ...probe.Step) probe.Result {
	return probe.Result{Check: c, Steps: steps, Sent: 10, Received: 20}
}

func step(op probe.Op, took time.Duration, failure probe.Failure) probe.Step {
	return probe.Step{Op: op, Took: took, Failure: failure}
}

// exposition is the agent's own metrics in the text format, in order.
func exposition(t testing.TB, m *Metrics) string {
	t.Helper()
	families, err := m.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	for _, f := range families {
		if strings.HasPrefix(f.GetName(), "messenger_probe_") {
			if _, err := expfmt.MetricFamilyToText(&b, f); err != nil {
				t.Fatal(err)
			}
		}
	}
	return b.String()
}

// lines is the exposition by series.
func lines(t testing.TB, m *Metrics) map[string]string {
	t.Helper()
	all := make(map[string]string)
	for s := bufio.NewScanner(strings.NewReader(exposition(t, m))); s.Scan(); {
		if l := s.Text(); !strings.HasPrefix(l, "#") {
			i := strings.LastIndexByte(l, ' ')
			all[strings.TrimPrefix(l[:i], "messenger_probe_")] = l[i+1:]
		}
	}
	return all
}

// want compares the values of some series; "" is none.
func want(t *testing.T, m *Metrics, series map[string]string) {
	t.Helper()
	got := lines(t, m)
	for _, s := range slices.Sorted(maps.Keys(series)) {
		if got[s] != series[s] {
			t.Errorf("%s is %q, want %q", s, got[s], series[s])
		}
	}
}

func TestGolden(t *testing.T) {
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	m := New(Options{
		Version: "1.2.3", Commit: "abcdef0", Go: "go1.26.8", Catalogue: "2026-11-21",
		Vantage: Vantage{Name: "home", Country: "RU", Subdivision: "RU-MOW", ISP: "Example", ASN: "64496", Network: "residential"},
		Now:     func() time.Time { return now },
	})
	checks := someChecks()
	m.SetChecks(checks)
	m.Record(worked(checks[0], step(probe.OpConnect, 40*time.Millisecond, ""), step(probe.OpReply, 41*time.Millisecond, "")))
	m.Record(worked(checks[0], step(probe.OpConnect, 10*time.Second, probe.FailureTimeout)))
	m.Record(worked(checks[1], step(probe.OpConnect, 2*time.Millisecond, probe.FailureConnectionRefused)))
	m.Record(worked(checks[2], step(probe.OpResolve, 5*time.Millisecond, ""), step(probe.OpConnect, 1500*time.Millisecond, ""),
		step(probe.OpTLSHandshake, time.Second, probe.FailureEOF)))
	offline := worked(checks[4], step(probe.OpReply, 10*time.Second, probe.FailureTimeout))
	offline.Void = probe.ReasonOffline
	m.Record(offline)
	m.SetVerdict("telegram", "chat", "blocked", "port_block", "medium", now.Add(-time.Minute))
	m.SetVerdict("telegram", "chat", "blocked", "ip_block", "high", now.Add(-time.Minute))
	m.Onset("telegram", "chat")
	m.Relapse("telegram", "chat")
	m.SetBlockEvidence("telegram", "net", 20.5)
	m.SetBlockEvidence("telegram", "endpoint:dc2", 18)
	m.SetBenign("telegram", "path", 0.25)
	m.ConfirmationChecks("telegram", 3)
	m.SetVantageState("online")
	m.SetVantageClean(true)
	m.SetVantageSees(map[string]bool{"sni_drop": true, "quic_block": false})
	m.ObserveLag(3 * time.Millisecond)
	now = now.Add(time.Minute)
	m.ConfigReloaded(false)

	got := exposition(t, m)
	const file = "testdata/metrics.golden"
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	golden, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(golden), got); d != "" {
		t.Errorf("exposition (-golden +got; -update writes it):\n%s", d)
	}
}

func TestLint(t *testing.T) {
	m := New(Options{})
	m.Handler()
	m.SetChecks(someChecks())
	m.SetVantageClean(true)
	m.SetVantageSees(map[string]bool{"sni_drop": true})
	m.SetVerdict("telegram", "chat", "blocked", "ip_block", "high", time.Now())
	m.Record(worked(someChecks()[0], step(probe.OpConnect, time.Second, "")))
	problems, err := testutil.GatherAndLint(m.registry)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

// What Table tells is what a scrape shows: names, types, help and labels.
func TestTable(t *testing.T) {
	m := New(Options{})
	m.SetChecks(someChecks())
	m.SetVantageClean(true)
	m.SetVantageSees(map[string]bool{"sni_drop": true})
	m.SetVerdict("telegram", "chat", "blocked", "ip_block", "high", time.Now())
	m.Record(worked(someChecks()[0], step(probe.OpConnect, time.Second, "")))
	families, err := m.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var got []Row
	for _, f := range families {
		if !strings.HasPrefix(f.GetName(), "messenger_probe_") {
			continue
		}
		row := Row{Name: f.GetName(), Type: strings.ToLower(f.GetType().String()), Help: f.GetHelp()}
		for _, l := range f.GetMetric()[0].GetLabel() {
			row.Labels = append(row.Labels, l.GetName())
		}
		got = append(got, row)
	}
	table := Table()
	for i := range table {
		table[i].Labels = slices.Sorted(slices.Values(table[i].Labels))
	}
	slices.SortFunc(table, func(a, b Row) int { return strings.Compare(a.Name, b.Name) })
	if d := cmp.Diff(table, got); d != "" {
		t.Errorf("-Table +scrape:\n%s", d)
	}
}

// Before anything is measured, every known label set is there, and it is 0.
func TestZeroFromTheStart(t *testing.T) {
	m := New(Options{Functions: map[string][]string{"max": {"bots"}}})
	m.SetChecks(someChecks())
	got := lines(t, m)
	var expect []string
	for _, c := range someChecks() {
		base := fmt.Sprintf(`check=%q,endpoint=%q,`, c.Protocol, c.Endpoint)
		rest := fmt.Sprintf(`family=%q,function=%q,messenger=%q`, c.Family, c.Function, c.Messenger)
		expect = append(expect, "checks_total{"+base+rest+"}")
		for _, r := range reasons(&c) {
			expect = append(expect, fmt.Sprintf("checks_void_total{%s%s,reason=%q}", base, rest, r))
		}
		for _, op := range operations(&c) {
			for _, f := range signs[op] {
				expect = append(expect, fmt.Sprintf("check_failures_total{%sfailure=%q,family=%q,function=%q,messenger=%q,operation=%q}",
					base, f, c.Family, c.Function, c.Messenger, op))
			}
			expect = append(expect, fmt.Sprintf("step_duration_seconds_count{check=%q,function=%q,messenger=%q,operation=%q}",
				c.Protocol, c.Function, c.Messenger, op))
		}
	}
	for _, f := range []string{`function="chat",messenger="telegram"`, `function="web",messenger="telegram"`,
		`function="calls",messenger="whatsapp"`, `function="bots",messenger="max"`} {
		expect = append(expect, "onsets_total{"+f+"}", "relapses_total{"+f+"}", "function_state_change_timestamp_seconds{"+f+"}")
		for _, s := range states {
			if s != Unknown {
				expect = append(expect, fmt.Sprintf("function_state{%s,state=%q}", f, s))
			}
		}
	}
	for _, messenger := range []string{"telegram", "whatsapp", "max", probe.Control} {
		for _, d := range []string{"sent", "received"} {
			expect = append(expect, fmt.Sprintf("network_bytes_total{direction=%q,messenger=%q}", d, messenger))
		}
		if messenger == probe.Control {
			continue
		}
		expect = append(expect, fmt.Sprintf("confirmation_checks_total{messenger=%q}", messenger))
		for _, s := range scopes {
			expect = append(expect, fmt.Sprintf("block_evidence_nats{messenger=%q,scope=%q}", messenger, s))
		}
		for _, e := range explanations {
			expect = append(expect, fmt.Sprintf("benign_probability{explanation=%q,messenger=%q}", e, messenger))
		}
	}
	for _, s := range vantageStates {
		expect = append(expect, fmt.Sprintf("vantage_state{state=%q}", s))
	}
	for _, s := range expect {
		if got[s] != "0" {
			t.Errorf("%s is %q, want 0", s, got[s])
		}
	}
	for s, v := range got {
		switch {
		case strings.HasPrefix(s, "success_ratio"), strings.HasPrefix(s, "function_mechanism"),
			strings.HasPrefix(s, "vantage_clean"), strings.HasPrefix(s, "vantage_sees"):
			t.Errorf("%s is %s before anything is known", s, v)
		case strings.Contains(s, probe.Control) && (strings.HasPrefix(s, "function_") || strings.HasPrefix(s, "onsets_")):
			t.Errorf("%s: a control has no verdict", s)
		}
	}
	want(t, m, map[string]string{
		`function_state{function="chat",messenger="telegram",state="unknown"}`: "1",
		`config_last_reload_successful`:                                        "1",
	})
}

type failureName struct {
	op   probe.Op
	name probe.Failure
}

// The rule for failures that exist from the start: at most ten a label set,
// each from the closed sets, and every operation of every protocol has some.
func TestSigns(t *testing.T) {
	for op, list := range signs {
		if !slices.Contains(probe.Ops[:], op) {
			t.Errorf("signs has operation %q", op)
		}
		for _, f := range list {
			if !slices.Contains(probe.Failures(), f) || f.Local() {
				t.Errorf("signs of %s has %q", op, f)
			}
		}
	}
	for protocol := range protocols {
		asks := map[string][]probe.Addressed{ // what may share a label set
			probe.ProtoHTTP:    {probe.HTTP{}, probe.HTTP{Plain: true}, probe.HTTP{Version: "3"}},
			probe.ProtoMTProto: {probe.MTProto{}, probe.MTProto{Transport: "websocket"}},
			probe.ProtoNoise:   {probe.Noise{}, probe.Noise{Over: "websocket"}},
			probe.ProtoSTUN:    {probe.STUN{}, probe.STUN{Burst: 50}},
		}[protocol]
		if asks == nil {
			asks = []probe.Addressed{nil}
		}
		starts := make(map[failureName]bool)
		for _, ask := range asks {
			c := check("m", "f", "e", protocol, probe.IP4, probe.ByName{Ask: ask})
			for _, op := range operations(&c) {
				if len(signs[op]) == 0 {
					t.Errorf("%s: no signs of %s", protocol, op)
				}
				for _, f := range signs[op] {
					starts[failureName{op, f}] = true
				}
			}
		}
		if len(starts) > 10 {
			t.Errorf("%s starts with %d failures, more than 10", protocol, len(starts))
		}
	}
	if len(protocols) != 11 {
		t.Errorf("%d protocols, CONTRACT §5 has 11", len(protocols))
	}
}

func TestRecord(t *testing.T) {
	c := check("telegram", "web", "www", probe.ProtoTLS, probe.IP4, probe.ByName{})
	const set = `check="tls",endpoint="www",family="ip4",function="web",messenger="telegram"`
	const failed = `check_failures_total{check="tls",endpoint="www",failure=%q,family="ip4",function="web",messenger="telegram",operation=%q}`
	const void = `checks_void_total{check="tls",endpoint="www",family="ip4",function="web",messenger="telegram",reason=%q}`
	const took = `step_duration_seconds_count{check="tls",function="web",messenger="telegram",operation=%q}`
	const ratio = `success_ratio{check="tls",function="web",messenger="telegram",window="5m"}`
	cached := step(probe.OpResolve, time.Second, "")
	cached.DNS = &probe.DNSInfo{Cached: true}
	ok := []probe.Step{step(probe.OpResolve, 1, ""), step(probe.OpConnect, 1, ""), step(probe.OpTLSHandshake, 1, "")}

	for name, x := range map[string]struct {
		r    probe.Result
		want map[string]string
	}{
		"ok": {worked(c, ok...), map[string]string{
			"checks_total{" + set + "}": "1", ratio: "1",
			fmt.Sprintf(took, "resolve"): "1", fmt.Sprintf(took, "connect"): "1", fmt.Sprintf(took, "tls_handshake"): "1",
			`network_bytes_total{direction="sent",messenger="telegram"}`:     "10",
			`network_bytes_total{direction="received",messenger="telegram"}`: "20",
		}},
		"cached lookup": {worked(c, cached, ok[1]), map[string]string{
			"checks_total{" + set + "}": "1", fmt.Sprintf(took, "resolve"): "0", fmt.Sprintf(took, "connect"): "1",
		}},
		"a known failure": {worked(c, ok[0], step(probe.OpConnect, 1, probe.FailureTimeout)), map[string]string{
			"checks_total{" + set + "}": "1", ratio: "0",
			fmt.Sprintf(failed, "generic_timeout_error", "connect"): "1",
			fmt.Sprintf(took, "resolve"):                            "1", fmt.Sprintf(took, "connect"): "0",
		}},
		"the first failure is the one": {worked(c, step(probe.OpConnect, 1, probe.FailureConnectionRefused), step(probe.OpTLSHandshake, 1, probe.FailureTimeout)), map[string]string{
			fmt.Sprintf(failed, "connection_refused", "connect"):          "1",
			fmt.Sprintf(failed, "generic_timeout_error", "tls_handshake"): "0",
		}},
		"a rare failure": {worked(c, step(probe.OpTLSHandshake, 1, probe.FailureSSLInvalidHostname)), map[string]string{
			"checks_total{" + set + "}": "1", fmt.Sprintf(failed, "ssl_invalid_hostname", "tls_handshake"): "1",
		}},
		"a failure nobody knows": {worked(c, step(probe.OpConnect, 1, "no such failure")), map[string]string{
			"checks_total{" + set + "}": "1", fmt.Sprintf(failed, "unknown_failure", "connect"): "1",
		}},
		"an operation the protocol has not": {worked(c, step(probe.OpTransfer, 1, "")), map[string]string{
			"checks_total{" + set + "}": "1", fmt.Sprintf(took, "transfer"): "1",
		}},
		"an operation nobody knows": {worked(c, step("dance", 1, "")), map[string]string{
			"checks_total{" + set + "}": "1", fmt.Sprintf(took, "dance"): "",
		}},
		"an unknown operation fails": {worked(c, step("dance", 1, probe.FailureTimeout)), map[string]string{
			"checks_total{" + set + "}": "0", fmt.Sprintf(void, "panic"): "1", fmt.Sprintf(failed, "generic_timeout_error", "dance"): "",
		}},
		"own fault": {worked(c, step(probe.OpConnect, 1, probe.FailureNoBufferSpace)), map[string]string{
			"checks_total{" + set + "}": "0", fmt.Sprintf(void, "local"): "1", ratio: "",
			`network_bytes_total{direction="sent",messenger="telegram"}`: "10",
		}},
		"cancelled": {worked(c), map[string]string{
			"checks_total{" + set + "}": "0", fmt.Sprintf(void, "cancelled"): "1",
		}},
		"a reason nobody knows": {probe.Result{Check: c, Void: "why not"}, map[string]string{
			fmt.Sprintf(void, "panic"): "1", fmt.Sprintf(void, "why not"): "",
		}},
		"bytes below zero": {probe.Result{Check: c, Sent: -1, Received: -1}, map[string]string{
			`network_bytes_total{direction="sent",messenger="telegram"}`: "0",
		}},
		"an unknown check of a known messenger": {worked(check("telegram", "web", "follow-up", probe.ProtoTLS, probe.IP4), ok...), map[string]string{
			"checks_total{" + set + "}": "0", `checks_total{check="tls",endpoint="follow-up",family="ip4",function="web",messenger="telegram"}`: "",
			`network_bytes_total{direction="sent",messenger="telegram"}`: "10",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			m := New(Options{})
			m.SetChecks([]probe.Check{c})
			m.Record(x.r)
			want(t, m, x.want)
		})
	}
}

func TestReload(t *testing.T) {
	m := New(Options{Catalogue: "1", Functions: map[string][]string{"telegram": {"bots"}}})
	checks := someChecks()
	m.SetChecks(checks)
	for _, c := range checks {
		m.Record(worked(c, step(protocols[c.Protocol][0], time.Millisecond, "")))
		// One of the rule, and one outside it.
		m.Record(worked(c, step(protocols[c.Protocol][0], time.Millisecond, probe.FailureTimeout)))
		m.Record(worked(c, step(protocols[c.Protocol][0], time.Millisecond, probe.FailureNetworkUnreachable)))
	}
	m.SetVerdict("telegram", "chat", "blocked", "ip_block", "high", time.Unix(1000, 0))
	m.SetVerdict("whatsapp", "calls", "blocked", "call_block", "high", time.Unix(1000, 0))
	m.Onset("telegram", "chat")
	m.SetBlockEvidence("telegram", "net", 7)
	m.SetBlockEvidence("telegram", "endpoint:dc2", 8)
	m.SetBlockEvidence("telegram", "endpoint:web.telegram.org", 9)
	m.SetBenign("telegram", "path", 0.5)
	m.ConfirmationChecks("telegram", 2)
	before := lines(t, m)

	// The same again, in another order and with a check's target doubled,
	// changes nothing.
	again := append(slices.Clone(checks), checks[0])
	again[0].Target = "149.154.167.51:443"
	slices.Reverse(again)
	m.SetChecks(again)
	if d := cmp.Diff(before, lines(t, m)); d != "" {
		t.Fatalf("the same checks changed series (-before +after):\n%s", d)
	}

	// Drop whatsapp, the website over IPv6, and telegram's bots; add max.
	m.SetCatalogue("2", map[string][]string{"max": {"login"}})
	kept := []probe.Check{checks[0], checks[1], checks[2], checks[5], check("max", "chat", "api", probe.ProtoOneMe, probe.IP4)}
	m.SetChecks(kept)
	after := lines(t, m)
	for s, v := range before {
		gone := strings.Contains(s, `messenger="whatsapp"`) || strings.Contains(s, `family="ip6"`) || strings.Contains(s, `function="bots"`) ||
			s == `catalogue_info{version="1"}`
		switch {
		case gone && after[s] != "":
			t.Errorf("%s outlived the reload", s)
		case !gone && after[s] != v && !strings.HasPrefix(s, "success_ratio"):
			t.Errorf("%s was %s and is %q", s, v, after[s])
		}
	}
	want(t, m, map[string]string{
		`catalogue_info{version="2"}`: "1",
		`checks_total{check="oneme",endpoint="api",family="ip4",function="chat",messenger="max"}`:         "0",
		`function_state{function="login",messenger="max",state="unknown"}`:                                "1",
		`onsets_total{function="chat",messenger="max"}`:                                                   "0",
		`success_ratio{check="mtproto",function="chat",messenger="telegram",window="1h"}`:                 before[`success_ratio{check="mtproto",function="chat",messenger="telegram",window="1h"}`],
		`function_mechanism{confidence="high",function="chat",mechanism="ip_block",messenger="telegram"}`: "1",
		`block_evidence_nats{messenger="telegram",scope="endpoint:dc2"}`:                                  "8",
	})

	// What was still under way for the old catalogue does not come back.
	m.Record(worked(checks[4], step(probe.OpReply, time.Second, probe.FailureTimeout)))
	m.Record(worked(checks[3], step(probe.OpConnect, time.Second, probe.FailureTimeout)))
	m.SetVerdict("whatsapp", "calls", "ok", "", "", time.Unix(2000, 0))
	m.Onset("whatsapp", "calls")
	m.Relapse("whatsapp", "calls")
	m.ConfirmationChecks("whatsapp", 1)
	m.SetBlockEvidence("whatsapp", "net", 1)
	m.SetBenign("whatsapp", "path", 1)
	m.SetBlockEvidence("telegram", "endpoint:gone", 1)
	for s := range lines(t, m) {
		if strings.Contains(s, "whatsapp") || strings.Contains(s, "ip6") || strings.Contains(s, "gone") {
			t.Errorf("%s came back", s)
		}
	}

	m.SetCatalogue("3", nil)
	m.SetChecks(nil)
	for s := range lines(t, m) {
		if strings.Contains(s, "messenger=") {
			t.Errorf("%s is left of an empty catalogue", s)
		}
	}
}

func TestVerdict(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	m := New(Options{Now: func() time.Time { return now }})
	m.SetChecks(someChecks())
	const (
		portMedium = `function_mechanism{confidence="medium",function="chat",mechanism="port_block",messenger="telegram"}`
		portHigh   = `function_mechanism{confidence="high",function="chat",mechanism="port_block",messenger="telegram"}`
		strange    = `function_mechanism{confidence="unknown",function="chat",mechanism="unknown",messenger="telegram"}`
		changed    = `function_state_change_timestamp_seconds{function="chat",messenger="telegram"}`
	)
	stateIs := func(current string) {
		t.Helper()
		for _, s := range states {
			want(t, m, map[string]string{fmt.Sprintf(`function_state{function="chat",messenger="telegram",state=%q}`, s): fmt.Sprint(is(s == current))})
		}
	}
	stateIs("unknown")
	m.SetVerdict("telegram", "chat", "blocked", "port_block", "medium", now)
	stateIs("blocked")
	want(t, m, map[string]string{portMedium: "1", changed: "1e+06"})

	now = now.Add(time.Minute)
	m.SetVerdict("telegram", "chat", "blocked", "port_block", "high", time.Unix(1_000_000, 0))
	want(t, m, map[string]string{portMedium: "0", portHigh: "1", changed: "1e+06"})

	// Saying it again does not keep the past alive.
	now = now.Add(time.Hour - time.Second)
	m.SetVerdict("telegram", "chat", "blocked", "port_block", "high", time.Unix(1_000_000, 0))
	want(t, m, map[string]string{portMedium: "0", portHigh: "1"})
	now = now.Add(time.Second)
	want(t, m, map[string]string{portMedium: "", portHigh: "1"})

	m.SetVerdict("telegram", "chat", "ok", "", "", now)
	stateIs("ok")
	want(t, m, map[string]string{portHigh: "0"})

	// Back again within the hour: one series, 1.
	now = now.Add(time.Minute)
	m.SetVerdict("telegram", "chat", "blocked", "port_block", "high", now)
	want(t, m, map[string]string{portHigh: "1"})
	m.SetVerdict("telegram", "chat", "ok", "", "", now)
	now = now.Add(time.Hour)
	want(t, m, map[string]string{portHigh: "", portMedium: ""})

	m.SetVerdict("telegram", "chat", "merry", "magic", "certain", time.Time{})
	stateIs("unknown")
	want(t, m, map[string]string{strange: "1", changed: "0"})
}

func TestVantage(t *testing.T) {
	m := New(Options{Vantage: Vantage{Network: "unknown", ISP: "a\xffb"}})
	want(t, m, map[string]string{
		"vantage_info{asn=\"\",country=\"\",isp=\"a\uFFFDb\",network=\"unknown\",subdivision=\"\",vantage=\"\"}": "1",
		"vantage_clean": "",
	})
	m.SetVantage(Vantage{Name: "vps"})
	m.SetVantageState("whitelist")
	m.SetVantageClean(false)
	m.SetVantageSees(map[string]bool{"freeze": true, "quic_block": false, "witchcraft": true})
	want(t, m, map[string]string{
		`vantage_info{asn="",country="",isp="",network="",subdivision="",vantage="vps"}`: "1",
		`vantage_state{state="whitelist"}`:                                               "1",
		`vantage_state{state="online"}`:                                                  "0",
		"vantage_clean":                                                                  "0",
		`vantage_sees{mechanism="freeze"}`:                                               "1",
		`vantage_sees{mechanism="quic_block"}`:                                           "0",
		`vantage_sees{mechanism="unknown"}`:                                              "1",
	})
	m.SetVantageState("")
	m.SetVantageSees(map[string]bool{"freeze": false})
	m.SetVantageClean(true)
	want(t, m, map[string]string{
		`vantage_state{state="whitelist"}`:     "0",
		"vantage_clean":                        "1",
		`vantage_sees{mechanism="freeze"}`:     "0",
		`vantage_sees{mechanism="quic_block"}`: "",
	})
}

func TestConfigReloaded(t *testing.T) {
	now := time.Unix(1000, 0)
	m := New(Options{Now: func() time.Time { return now }})
	now = now.Add(time.Hour)
	m.ConfigReloaded(false)
	want(t, m, map[string]string{"config_last_reload_successful": "0", "config_last_reload_success_timestamp_seconds": "1000"})
	m.ConfigReloaded(true)
	want(t, m, map[string]string{"config_last_reload_successful": "1", "config_last_reload_success_timestamp_seconds": "4600"})
}

// broken is a collector whose metric cannot be gathered.
type broken struct{}

func (broken) Describe(ch chan<- *prometheus.Desc) {}
func (broken) Collect(ch chan<- prometheus.Metric) {
	ch <- prometheus.NewInvalidMetric(prometheus.NewInvalidDesc(io.ErrUnexpectedEOF), io.ErrUnexpectedEOF)
}

func TestHandler(t *testing.T) {
	reg := prometheus.NewRegistry()
	reg.MustRegister(broken{}, collectors.NewGoCollector()) // as the default registry has
	m := New(Options{Registry: reg, Version: "1.2.3"})
	checks := someChecks()
	m.SetChecks(checks)
	m.Record(worked(checks[0], step(probe.OpConnect, 40*time.Millisecond, "")))
	server := httptest.NewServer(m.Handler())
	defer server.Close()
	m.Handler() // a second one is not an error

	get := func(accept string) (*http.Response, []byte) {
		t.Helper()
		q, err := http.NewRequest("GET", server.URL, nil)
		if err != nil {
			t.Fatal(err)
		}
		q.Header.Set("Accept", accept)
		a, err := server.Client().Do(q)
		if err != nil {
			t.Fatal(err)
		}
		defer a.Body.Close()
		b, err := io.ReadAll(a.Body)
		if err != nil {
			t.Fatal(err)
		}
		if a.StatusCode != http.StatusOK {
			t.Fatalf("%s: %s", a.Status, b)
		}
		return a, b
	}

	a, b := get("text/plain")
	if c := a.Header.Get("Content-Type"); !strings.HasPrefix(c, "text/plain; version=0.0.4") {
		t.Errorf("content type %q", c)
	}
	if !bytes.Contains(b, []byte("messenger_probe_build_info{")) || !bytes.Contains(b, []byte("go_goroutines ")) ||
		!bytes.Contains(b, []byte("promhttp_metric_handler_errors_total")) {
		t.Errorf("not the page:\n%.500s", b)
	}
	if bytes.Contains(b, []byte("# EOF")) {
		t.Error("text ends like OpenMetrics")
	}

	a, b = get("application/openmetrics-text;version=1.0.0")
	if c := a.Header.Get("Content-Type"); !strings.HasPrefix(c, "application/openmetrics-text; version=1.0.0") {
		t.Errorf("content type %q", c)
	}
	if !bytes.HasSuffix(b, []byte("# EOF\n")) || !bytes.Contains(b, []byte("# TYPE messenger_probe_checks counter\n")) {
		t.Errorf("not OpenMetrics:\n%.500s", b)
	}

	a, b = get("application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited")
	dec := expfmt.NewDecoder(bytes.NewReader(b), expfmt.ResponseFormat(a.Header))
	spans := 0
	for {
		var f dto.MetricFamily
		if err := dec.Decode(&f); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		if f.GetName() == "messenger_probe_step_duration_seconds" {
			for _, x := range f.GetMetric() {
				spans += len(x.GetHistogram().GetPositiveSpan())
			}
		}
	}
	if spans == 0 {
		t.Error("no native histogram in the protobuf answer")
	}
}

// gate is a collector that waits, to fill the handler up.
type gate struct{ entered, open chan struct{} }

func (g *gate) Describe(chan<- *prometheus.Desc) {}
func (g *gate) Collect(chan<- prometheus.Metric) {
	g.entered <- struct{}{}
	<-g.open
}

func TestHandlerLimit(t *testing.T) {
	m := New(Options{})
	g := &gate{make(chan struct{}), make(chan struct{})}
	m.registry.MustRegister(g)
	h := m.Handler()
	get := func() int {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
		return w.Code
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if c := get(); c != http.StatusOK {
				t.Errorf("a scrape within the limit: %d", c)
			}
		})
	}
	for range 4 {
		<-g.entered
	}
	if c := get(); c != http.StatusServiceUnavailable {
		t.Errorf("the fifth scrape at once: %d", c)
	}
	close(g.open)
	wg.Wait()
}

func TestConcurrent(t *testing.T) {
	m := New(Options{})
	checks := someChecks()
	m.SetChecks(checks)
	const writers, rounds = 8, 99
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			for i := range rounds {
				for _, c := range checks {
					s := step(probe.OpConnect, time.Duration(i)*time.Millisecond, "")
					switch i % 3 {
					case 1:
						s.Failure = probe.FailureTimeout
					case 2:
						s.Failure = probe.FailureNetworkUnreachable // outside the rule
					}
					m.Record(worked(c, s))
				}
				m.ObserveLag(time.Duration(i))
				m.SetVerdict("telegram", "chat", states[i%len(states)], mechanisms[i%len(mechanisms)], confidences[i%4], time.Unix(int64(i), 0))
				m.SetBlockEvidence("telegram", "endpoint:dc2", float64(i))
				m.SetBenign("telegram", "path", 0.5)
				m.SetVantageState("online")
				m.SetVantageSees(map[string]bool{"freeze": i%2 == 0})
				m.Onset("telegram", "chat")
				m.ConfirmationChecks("telegram", 1)
			}
		})
	}
	stop := make(chan struct{})
	var readers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				// Each function is in one state, whenever one looks.
				ones := make(map[string]int)
				for s, v := range lines(t, m) {
					if strings.HasPrefix(s, "function_state{") && v == "1" {
						ones[s[:strings.Index(s, ",state=")]]++
					}
				}
				for f, n := range ones {
					if n != 1 {
						t.Errorf("%s is in %d states", f, n)
					}
				}
			}
		})
	}
	readers.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
				m.SetChecks(checks[:len(checks)-i%2]) // the control comes and goes
			}
		}
	})
	wg.Wait()
	close(stop)
	readers.Wait()
	m.SetChecks(checks)
	want(t, m, map[string]string{
		`checks_total{check="mtproto",endpoint="dc2",family="ip4",function="chat",messenger="telegram"}`: fmt.Sprint(writers * rounds),
		`network_bytes_total{direction="sent",messenger="telegram"}`:                                     fmt.Sprint(writers * rounds * 4 * 10),
		`onsets_total{function="chat",messenger="telegram"}`:                                             fmt.Sprint(writers * rounds),
		`success_ratio{check="mtproto",function="chat",messenger="telegram",window="24h"}`:               "0.3333333333333333",
	})
}

// catalogue is n label sets in the proportions of a real one: three messengers
// and the controls, names and pinned addresses, two families.
func catalogue(n int) []probe.Check {
	type kind struct {
		function, protocol string
		named              bool
	}
	kinds := []kind{
		{"chat", probe.ProtoMTProto, false}, {"chat", probe.ProtoTCP, false}, {"chat", probe.ProtoDNS, false}, {"chat", probe.ProtoTLS, true},
		{"media", probe.ProtoTLS, true}, {"media", probe.ProtoQUIC, true}, {"media", probe.ProtoTransfer, true},
		{"web", probe.ProtoOneMe, true}, {"web", probe.ProtoWebSocket, true}, {"web", probe.ProtoDNS, false}, {"web", probe.ProtoTLS, true},
		{"calls", probe.ProtoSTUN, false}, {"calls", probe.ProtoTCP, true}, {"login", probe.ProtoTLS, true}, {"bots", probe.ProtoTLS, true},
	}
	var all []probe.Check
	for i := range n {
		k := kinds[i/8%len(kinds)]
		c := check([]string{"whatsapp", "telegram", "max", probe.Control}[i/2%4], k.function,
			fmt.Sprintf("endpoint-%d.example.org", i/2), k.protocol, []string{probe.IP4, probe.IP6}[i%2])
		if k.named {
			c.Prober = probe.ByName{}
		}
		all = append(all, c)
	}
	return all
}

// The catalogue that is built in stays within the budget of series: 8,000 on a
// host with one address family, 12,000 with both.
func TestSeriesBudget(t *testing.T) {
	cat, err := targets.Load("")
	if err != nil {
		t.Fatal(err)
	}
	for budget, families := range map[int][]string{8000: {probe.IP4}, 12_000: {probe.IP4, probe.IP6}} {
		checks, err := cat.Checks(targets.Vantage{
			Messengers: []string{"whatsapp", "telegram", "max"}, Families: families,
			Interval: time.Minute, Timeout: 10 * time.Second, Resolver: &probe.SystemResolver{},
		})
		if err != nil {
			t.Fatal(err)
		}
		m := New(Options{Catalogue: cat.Version})
		m.SetChecks(checks)
		all := lines(t, m)
		by := make(map[string]int)
		for s := range all {
			name, _, _ := strings.Cut(s, "{")
			by[name]++
		}
		t.Logf("%v: %d checks, %d label sets, %d series: %v", families, len(checks), by["checks_total"], len(all), by)
		if len(all) > budget {
			t.Errorf("%v: %d series, budget %d", families, len(all), budget)
		}
	}
}

// A run has the operations of its check; the last one fails, or not.
func BenchmarkRecord(b *testing.B) {
	m := New(Options{})
	checks := catalogue(150)
	m.SetChecks(checks)
	addr := netip.MustParseAddrPort("192.0.2.1:443")
	for _, x := range []struct {
		name string
		last probe.Failure
	}{{"ok", ""}, {"fail", probe.FailureTimeout}, {"rare", probe.FailureEOF}} {
		b.Run(x.name, func(b *testing.B) {
			var results []probe.Result
			for i := range checks {
				r := probe.Result{Check: checks[i], Sent: 500, Received: 5000}
				for _, op := range operations(&checks[i]) {
					r.Steps = append(r.Steps, probe.Step{Op: op, Addr: addr, Took: time.Duration(i+1) * time.Millisecond})
				}
				r.Steps[len(r.Steps)-1].Failure = x.last
				results = append(results, r)
			}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				m.Record(results[i%len(results)])
			}
		})
	}
}

// BenchmarkScrape asks for a page of 10,000 series, as Prometheus does.
func BenchmarkScrape(b *testing.B) {
	m := New(Options{})
	checks := catalogue(600)
	m.SetChecks(checks)
	for _, c := range checks {
		m.Record(worked(c, step(probe.OpConnect, 40*time.Millisecond, "")))
	}
	n := len(lines(b, m))
	if n < 10_000 {
		b.Fatalf("%d series", n)
	}
	h := m.Handler()
	for _, x := range []struct{ name, accept, encoding string }{
		{"text", "text/plain", ""},
		{"openmetrics", "application/openmetrics-text;version=1.0.0", ""},
		{"openmetrics+gzip", "application/openmetrics-text;version=1.0.0", "gzip"},
		{"protobuf", "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited", ""},
	} {
		b.Run(x.name, func(b *testing.B) {
			q := httptest.NewRequest("GET", "/metrics", nil)
			q.Header.Set("Accept", x.accept)
			q.Header.Set("Accept-Encoding", x.encoding)
			b.ReportAllocs()
			for b.Loop() {
				w := httptest.NewRecorder()
				h.ServeHTTP(w, q)
				if w.Code != http.StatusOK {
					b.Fatal(w.Code)
				}
			}
			b.ReportMetric(float64(n), "series")
		})
	}
}
