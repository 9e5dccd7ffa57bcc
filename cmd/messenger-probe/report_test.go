package main

import (
	"bytes"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/messenger-probe/messenger-probe/cmd/internal/agent"
	"github.com/messenger-probe/messenger-probe/probe"
	"github.com/messenger-probe/messenger-probe/probe/verdict"
)

var titles = map[string]string{"telegram": "Telegram", "whatsapp": "WhatsApp", "max": "MAX"}

func titled(m string) string { return titles[m] }

// mixed is a snapshot with something of everything.
func mixed() agent.Snapshot {
	dc := netip.MustParseAddrPort("149.154.167.51:443")
	resolver := netip.MustParseAddrPort("203.0.113.53:53")
	result := func(messenger, function, endpoint, proto, target string, took time.Duration, steps ...probe.Step) probe.Result {
		return probe.Result{Took: took, Steps: steps, Check: probe.Check{Messenger: messenger, Function: function, Endpoint: endpoint,
			Protocol: proto, Family: probe.IP4, Target: target}}
	}
	works := probe.Step{Op: probe.OpReply, Addr: dc}
	answers := works
	answers.Reply = &probe.ReplyInfo{Transport: "obfuscated2", Proof: "nonce and known key", HasSkew: true, Skew: -90 * time.Second}
	challenged, returned := works, works
	challenged.Reply = &probe.ReplyInfo{Transport: "turn", Code: 401, Proof: "transaction id and realm"}
	returned.Op, returned.Burst = probe.OpTransfer, &probe.BurstInfo{Sent: 50, Received: 41, RTT: 48 * time.Millisecond, Jitter: 3 * time.Millisecond}
	frozen := probe.Step{Op: probe.OpTransfer, Addr: dc, Failure: probe.FailureTimeout, Transfer: &probe.TransferInfo{Direction: probe.Download,
		Wanted: 65536, Bytes: 18000, FirstByte: 80 * time.Millisecond, Stall: 9 * time.Second, StallAt: 18000, Goodput: 100e3}}
	silent := probe.Step{Op: probe.OpConnect, Addr: dc, Failure: probe.FailureTimeout}
	denied := probe.Step{Op: probe.OpResolve, Addr: resolver, Failure: probe.FailureDNSNXDOMAIN}
	informational := result("telegram", "calls", "relay", probe.ProtoSTUN, "149.154.167.51:1400", 6*time.Second, silent)
	informational.Void = probe.ReasonInformational
	return agent.Snapshot{
		Vantage: verdict.Vantage{State: verdict.Online, Evidence: []string{"3 of 3 domestic and 7 of 8 foreign controls answer", "ip6 answers nobody: none of 9 controls"}},
		Verdicts: []verdict.Verdict{
			{Messenger: "telegram", Function: "chat", State: verdict.Blocked, Mechanism: verdict.PortBlock, Confidence: verdict.High,
				Evidence: []string{"149.154.167.51:443 times out, :80 answers", "two", "three", "four", "five", "six", "seven"}},
			{Messenger: "telegram", Function: "calls", State: verdict.Unknown, Evidence: []string{"no check has counted yet"}},
			{Messenger: "whatsapp", Function: "web", State: verdict.OK, Evidence: []string{"all 1 checks work"}},
			{Messenger: "max", Function: "web", State: verdict.Degraded, Mechanism: verdict.UnknownCause, Confidence: verdict.Low, Evidence: []string{"max.ru: dns does not exist says the resolver"}},
		},
		Results: []probe.Result{
			result("whatsapp", "web", "web.whatsapp.com", probe.ProtoTLS, "443", 93*time.Millisecond, works),
			result("telegram", "chat", "dc2", probe.ProtoMTProto, "149.154.167.51:443,obfuscated2", 10*time.Second, silent),
			result("telegram", "chat", "dc2", probe.ProtoMTProto, "149.154.167.51:80,obfuscated2", 50*time.Millisecond, answers),
			informational,
			result("telegram", "calls", "relay2", probe.ProtoSTUN, "149.154.167.51:1400,burst", time.Second, challenged, returned),
			result("telegram", "media", "download", probe.ProtoTransfer, "443,download", 10*time.Second, frozen),
			result("max", "web", "max.ru", probe.ProtoDNS, "udp,system", 20*time.Millisecond, denied),
			result("max", "web", "max.ru", probe.ProtoTLS, "443", 20*time.Millisecond, denied),
			result(probe.Control, probe.Foreign, "example.com", probe.ProtoTLS, "443", 6*time.Second, silent),
		},
		Arms: []verdict.Arm{
			{Ask: verdict.AskOtherBytes, Result: result("telegram", "chat", "dc2", probe.ProtoTCP, "149.154.167.51:443,obfuscated2,other_bytes", 50*time.Millisecond, works)},
			{Ask: verdict.AskNonResolver, Result: result("max", "web", "max.ru", probe.ProtoDNS, "udp,system,non_resolver", 5*time.Second, denied)},
		},
	}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("%s; -update rewrites it:\n%s", path, d)
	}
}

// What a person sees, with and without -v. Colour adds nothing that is not there
// without it, and no address of a resolver is shown.
func TestReport(t *testing.T) {
	for name, verbose := range map[string]bool{"report.golden": false, "report-verbose.golden": true} {
		var plain, coloured bytes.Buffer
		(&printer{w: &plain}).report(mixed(), verbose, titled)
		golden(t, name, plain.String())
		(&printer{w: &coloured, colour: true}).report(mixed(), verbose, titled)
		stripped := regexp.MustCompile("\x1b\\[[0-9;]*m").ReplaceAllString(coloured.String(), "")
		if d := cmp.Diff(plain.String(), stripped); d != "" || coloured.Len() == plain.Len() {
			t.Errorf("%s: in colour, codes removed:\n%s", name, d)
		}
		if strings.Contains(plain.String(), "203.0.113.53") {
			t.Errorf("%s: shows a resolver's address", name)
		}
		if strings.ContainsFunc(plain.String(), func(r rune) bool { return r < ' ' && r != '\n' }) {
			t.Errorf("%s: control characters in what goes to a pipe", name)
		}
	}
	for _, s := range verdict.States {
		if colours[s] == "" || rank(s) < 0 {
			t.Errorf("the state %s has no colour or no rank", s)
		}
	}
}

// Of a vantage that is ill all is said in one screenful.
func TestReportOffline(t *testing.T) {
	s := mixed()
	s.Vantage = verdict.Vantage{State: verdict.Offline, Evidence: []string{"no control answers"}}
	s.Results = nil
	for i := range s.Verdicts {
		v := &s.Verdicts[i]
		v.State, v.Mechanism, v.Confidence, v.Evidence = verdict.Unknown, "", "", []string{"the vantage is offline", "no control answers"}
	}
	var short, long bytes.Buffer
	(&printer{w: &short}).report(s, false, titled)
	(&printer{w: &long}).report(s, true, titled)
	if n := strings.Count(short.String(), "\n"); n != 4+len(s.Verdicts) || strings.Count(short.String(), "no control answers") != 1 {
		t.Errorf("%d lines:\n%s", n, short.String())
	}
	if n := strings.Count(long.String(), "no control answers"); n != 1+len(s.Verdicts) {
		t.Errorf("with -v the reason is there %d times", n)
	}
}

// A long list of failures is cut, and says so.
func TestReportIsShort(t *testing.T) {
	s := mixed()
	for range 100 {
		s.Results = append(s.Results, s.Results[1])
	}
	var short, long bytes.Buffer
	(&printer{w: &short}).report(s, false, titled)
	(&printer{w: &long}).report(s, true, titled)
	if n := strings.Count(short.String(), "\n"); n > 50 || !strings.Contains(short.String(), "more (-v)") {
		t.Errorf("%d lines:\n%s", n, short.String())
	}
	if n := strings.Count(long.String(), "\n"); n < 107 || strings.Contains(long.String(), "(-v)") {
		t.Errorf("with -v %d lines", n)
	}
}

func TestSummary(t *testing.T) {
	one := func(states ...verdict.State) agent.Snapshot {
		s := agent.Snapshot{Vantage: verdict.Vantage{State: verdict.Online}}
		for i, st := range states {
			s.Verdicts = append(s.Verdicts, verdict.Verdict{Messenger: "telegram", Function: []string{"chat", "calls", "web"}[i], State: st})
		}
		return s
	}
	for _, tt := range []struct {
		s    agent.Snapshot
		want string
	}{
		{one(verdict.OK, verdict.OK), "Telegram works."},
		{one(verdict.OK, verdict.Unknown), "Telegram: not all is known yet."},
		{one(verdict.Unknown, verdict.Degraded, verdict.OK), "Telegram: calls degraded."},
		{one(verdict.Unreachable, verdict.Blocked, verdict.Degraded), "Telegram: calls blocked."},
		{mixed(), "Telegram: chat blocked; WhatsApp works; MAX: web degraded."},
	} {
		if got := summary(tt.s, titled); got != tt.want {
			t.Errorf("%q, want %q", got, tt.want)
		}
		for _, v := range verdict.VantageStates {
			if tt.s.Vantage.State = v; v != verdict.Online {
				if got := summary(tt.s, titled); got != "The vantage is "+string(v)+": nothing can be said of any messenger." {
					t.Errorf("%s: %q", v, got)
				}
			}
		}
	}
}

// A file or a buffer is no terminal: nobody wants escape codes in a log.
func TestTerminal(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if terminal(f) || terminal(&bytes.Buffer{}) {
		t.Error("taken for a terminal")
	}
	p := &program{stderr: f}
	if progress, done := p.progress(); progress != nil {
		t.Error("progress without a terminal")
	} else if done(); size(t, f) > 0 {
		t.Error("progress is cleared where there was none")
	}
}

func size(t *testing.T, f *os.File) int64 {
	t.Helper()
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	return st.Size()
}
