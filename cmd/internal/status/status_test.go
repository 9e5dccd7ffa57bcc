package status

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/messenger-probe/messenger-probe/probe"
	"github.com/messenger-probe/messenger-probe/probe/verdict"
)

var update = flag.Bool("update", false, "rewrite testdata/status.golden.json")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var at = time.Date(2026, 11, 22, 0, 0, 0, 123456789, time.FixedZone("MSK", 3*3600))

// document is one of everything.
func document() Document {
	dc2 := netip.MustParseAddrPort("149.154.167.51:443")
	resolver := netip.MustParseAddrPort("203.0.113.53:53")
	check := func(messenger, function, endpoint, proto string) probe.Check {
		return probe.Check{Messenger: messenger, Function: function, Endpoint: endpoint, Protocol: proto, Family: probe.IP4, Target: "443"}
	}
	result := func(c probe.Check, took time.Duration, steps ...probe.Step) probe.Result {
		return probe.Result{Check: c, Start: at, Took: took, Steps: steps}
	}
	lookup := probe.Step{Op: probe.OpResolve, Addr: resolver, DNS: &probe.DNSInfo{Resolver: "isp", Answers: []netip.Addr{dc2.Addr()}}}
	denied := lookup
	denied.Failure, denied.Err = probe.FailureDNSNXDOMAIN, errors.New("no such host")
	unreachable := probe.Step{Op: probe.OpConnect, Addr: dc2, Failure: probe.FailureTimeout, Err: errors.New("dial tcp 192.168.1.7:50000->149.154.167.51:443: i/o timeout")}
	works := probe.Step{Op: probe.OpReply, Addr: dc2}
	informational := result(check("telegram", "calls", "relay", probe.ProtoSTUN), 3*time.Second, probe.Step{Op: probe.OpReply, Addr: dc2, Failure: probe.FailureTimeout})
	informational.Void = probe.ReasonInformational
	none := check("whatsapp", "chat", "g", probe.ProtoNoise)
	none.Family = probe.IP6
	d := Document{
		Schema:  Schema,
		Agent:   Agent{Version: "v1.2.3", Catalogue: "2026-08-1f3c9a52"},
		Vantage: Vantage{Name: "vps <1>", Country: "RU", Network: "datacenter"},
		Time:    at.UTC().Truncate(time.Second),
		Verdicts: FromVerdicts([]verdict.Verdict{
			{Messenger: "telegram", Function: "chat", State: verdict.Blocked, Mechanism: verdict.PortBlock, Confidence: verdict.High,
				Since: at.Add(-time.Hour), Evidence: []string{"149.154.167.51:443 times out, :80 answers"}},
			{Messenger: "telegram", Function: "web", State: verdict.OK, Since: at, Evidence: []string{"all 3 checks work"}},
			{Messenger: "telegram", Function: "calls", State: verdict.Unknown},
		}),
		Results: FromResults([]probe.Result{
			result(check("telegram", "chat", "dc2", probe.ProtoMTProto), 10*time.Second, unreachable),
			result(check("telegram", "chat", "dc3", probe.ProtoMTProto), 43*time.Millisecond, probe.Step{Op: probe.OpConnect, Addr: dc2}, works),
			result(check("telegram", "web", "web.telegram.org", probe.ProtoDNS), 20*time.Millisecond, lookup),
			result(check("telegram", "web", "web.telegram.org", probe.ProtoDNS), 20*time.Millisecond, denied),
			result(check("telegram", "web", "web.telegram.org", probe.ProtoTLS), 20*time.Millisecond, denied), // by name
			result(check("telegram", "web", "web.telegram.org", probe.ProtoTLS), 20*time.Millisecond, lookup, works),
			informational,
			result(none, time.Millisecond, probe.Step{Op: probe.OpResolve, Addr: resolver, Failure: probe.FailureDNSNoAnswer}),
			result(check("max", "chat", "api", probe.ProtoOneMe), time.Millisecond, probe.Step{Op: probe.OpConnect, Addr: dc2, Failure: probe.FailureNetworkDown}),
			result(check("telegram", "chat", "dc4", probe.ProtoMTProto), 43*time.Millisecond, probe.Step{Op: probe.OpReply, Addr: dc2,
				Reply: &probe.ReplyInfo{Transport: "obfuscated2", Proof: "nonce and known key", HasSkew: true, Skew: -89_600 * time.Millisecond}}),
			result(check("telegram", "calls", "relay", probe.ProtoSTUN), 43*time.Millisecond,
				probe.Step{Op: probe.OpReply, Addr: dc2, Reply: &probe.ReplyInfo{Transport: "turn", Code: 401, Proof: "transaction id and realm"}},
				probe.Step{Op: probe.OpTransfer, Addr: dc2, Burst: &probe.BurstInfo{Sent: 50, Received: 41, RTT: 48 * time.Millisecond, Jitter: 3 * time.Millisecond}}),
			result(check("telegram", "media", "upload", probe.ProtoTransfer), 10*time.Second, probe.Step{Op: probe.OpTransfer, Addr: dc2, Failure: probe.FailureTimeout,
				Reply:    &probe.ReplyInfo{Transport: "http"},
				Transfer: &probe.TransferInfo{Direction: probe.Upload, Wanted: 65536, Bytes: 18000, Written: 65536, Stall: 9 * time.Second, StallAt: 18000, Goodput: 17999.6}}),
			result(check("telegram", "web", "plain", probe.ProtoHTTP), time.Millisecond, probe.Step{Op: probe.OpReply, Addr: dc2, Failure: probe.FailureHTTPUnexpectedRedirect,
				Reply: &probe.ReplyInfo{Transport: "http", Code: 302, Proof: "redirect to another registrable domain", Redirect: "warning.isp.example", Marks: []string{"operator's block page"}}}),
		}),
	}
	d.Vantage.From(verdict.Vantage{State: verdict.Online, Evidence: []string{"5 of 5 domestic and 7 of 8 foreign controls answer"},
		Sees: map[verdict.Mechanism]bool{verdict.SNIDrop: true, verdict.IPBlock: false}})
	return d
}

func text(t *testing.T, d Document) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := d.Write(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestGolden(t *testing.T) {
	const golden = "testdata/status.golden.json"
	got := text(t, document())
	if *update {
		os.MkdirAll("testdata", 0o777)
		if err := os.WriteFile(golden, got, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), string(got)); d != "" {
		t.Errorf("%s; -update rewrites it:\n%s", golden, d)
	}
}

// A field is of this kind, and in every object of its place unless it may be
// missing.
type field struct {
	kind string // string, number, list, object, time, or the closed set of these words
	may  bool   // be missing
	set  []string
}

// words is a closed set as text.
func words[S ~[]E, E ~string](set S) []string {
	var ws []string
	for _, w := range set {
		ws = append(ws, string(w))
	}
	return ws
}

// schema is the public document. The last fields of vantage and of a result go
// beyond its first form; nothing else may.
var schema = map[string]map[string]field{
	"": {"schema": {kind: "string"}, "agent": {kind: "object"}, "vantage": {kind: "object"}, "time": {kind: "time"},
		"verdicts": {kind: "list"}, "results": {kind: "list"}},
	"agent": {"version": {kind: "string"}, "catalogue": {kind: "string"}},
	"vantage": {"name": {kind: "string"}, "country": {kind: "string"},
		"network":  {set: []string{"datacenter", "residential", "mobile", "unknown"}},
		"state":    {set: []string{"online", "offline", "whitelist", "impaired"}},
		"evidence": {kind: "list"}, "sees": {kind: "object", may: true}},
	"verdicts": {"messenger": {kind: "string"},
		"function":   {set: []string{"chat", "calls", "media", "web", "login", "push", "bots"}},
		"state":      {set: []string{"ok", "degraded", "blocked", "unreachable", "unknown"}},
		"mechanism":  {set: append(words(verdict.Mechanisms[:]), "")},
		"confidence": {set: []string{"low", "medium", "high", "confirmed", ""}},
		"since":      {kind: "time", may: true}, "evidence": {kind: "list"}},
	"results": {"messenger": {kind: "string"},
		"function": {set: []string{"chat", "calls", "media", "web", "login", "push", "bots", "domestic", "foreign", "sibling", "positive"}},
		"endpoint": {kind: "string"},
		"check":    {set: []string{"dns", "tcp", "tls", "quic", "http", "websocket", "mtproto", "noise", "oneme", "stun", "transfer"}},
		"family":   {set: []string{"ip4", "ip6"}}, "address": {kind: "string", may: true},
		"outcome": {set: []string{"ok", "fail", "void"}}, "reason": {set: words(probe.Reasons[:]), may: true},
		"operation": {set: []string{"resolve", "connect", "tls_handshake", "quic_handshake", "request", "reply", "transfer"}, may: true},
		"failure":   {set: words(probe.Failures()), may: true}, "duration_seconds": {kind: "number"},
		"time": {kind: "time"}, "measured": {kind: "object", may: true}},
	"measured": {"proof": {kind: "string", may: true}, "code": {kind: "number", may: true}, "marks": {kind: "list", may: true},
		"redirected_elsewhere": {kind: "bool", may: true}, "clock_skew_seconds": {kind: "number", may: true},
		"burst": {kind: "object", may: true}, "transfer": {kind: "object", may: true}},
	"burst": {"sent": {kind: "number"}, "received": {kind: "number"}, "rtt_seconds": {kind: "number"}, "jitter_seconds": {kind: "number"}},
	"transfer": {"direction": {set: []string{"download", "upload"}}, "wanted_bytes": {kind: "number"}, "bytes": {kind: "number"},
		"written_bytes": {kind: "number", may: true}, "first_byte_seconds": {kind: "number"}, "goodput_bytes_per_second": {kind: "number"},
		"stall_seconds": {kind: "number"}, "stall_at_byte": {kind: "number"}},
}

// fits complains where an object has other fields than its place in the schema.
func fits(t *testing.T, place string, o map[string]any) {
	t.Helper()
	for k := range o {
		if _, ok := schema[place][k]; !ok {
			t.Errorf("%s.%s is not in the schema", place, k)
		}
	}
	for _, k := range slices.Sorted(maps.Keys(schema[place])) {
		f := schema[place][k]
		v, ok := o[k]
		if !ok {
			if !f.may {
				t.Errorf("%s.%s is missing in %v", place, k, o)
			}
			continue
		}
		if f.set != nil {
			if s, ok := v.(string); !ok || !slices.Contains(f.set, s) {
				t.Errorf("%s.%s is %v", place, k, v)
			}
			continue
		}
		kind := map[reflect.Kind]string{reflect.String: "string", reflect.Float64: "number", reflect.Slice: "list", reflect.Map: "object", reflect.Bool: "bool"}[reflect.ValueOf(v).Kind()]
		if f.kind == "time" {
			s, _ := v.(string)
			if ts, err := time.Parse("2006-01-02T15:04:05Z", s); err != nil || ts.IsZero() {
				t.Errorf("%s.%s is %v", place, k, v)
			}
		} else if kind != f.kind {
			t.Errorf("%s.%s is the %s %v, want a %s", place, k, kind, v, f.kind)
		}
	}
}

func TestSchema(t *testing.T) {
	empty := Document{Schema: Schema, Vantage: Vantage{Network: "unknown"}, Verdicts: FromVerdicts(nil), Results: FromResults(nil), Time: at.UTC().Truncate(time.Second)}
	empty.Vantage.From(verdict.JudgeVantage(nil, 0))
	for _, d := range []Document{document(), empty} {
		var o map[string]any
		if err := json.Unmarshal(text(t, d), &o); err != nil {
			t.Fatal(err)
		}
		fits(t, "", o)
		for _, place := range []string{"agent", "vantage"} {
			fits(t, place, o[place].(map[string]any))
		}
		for _, place := range []string{"verdicts", "results"} {
			for _, e := range o[place].([]any) {
				o := e.(map[string]any)
				fits(t, place, o)
				if m, ok := o["measured"].(map[string]any); ok {
					fits(t, "measured", m)
					for _, place := range []string{"burst", "transfer"} {
						if m, ok := m[place].(map[string]any); ok {
							fits(t, place, m)
						}
					}
				}
			}
		}
	}
}

// The words of the code are the words of the document: a state that package
// verdict invents must be written down here first.
func TestClosedSets(t *testing.T) {
	for _, tt := range []struct {
		place, key string
		code       []string
	}{
		{"vantage", "state", words(verdict.VantageStates[:])},
		{"verdicts", "state", words(verdict.States[:])},
		{"verdicts", "mechanism", append(words(verdict.Mechanisms[:]), "")},
		{"verdicts", "confidence", append(words(verdict.Confidences[:]), "")},
		{"results", "operation", words(probe.Ops[:])},
	} {
		if d := cmp.Diff(slices.Sorted(slices.Values(schema[tt.place][tt.key].set)), slices.Sorted(slices.Values(tt.code))); d != "" {
			t.Errorf("%s.%s:\n%s", tt.place, tt.key, d)
		}
	}
}

// Wherever a resolver stands in a result, its address is not told, nor the
// text of an error, which has our own.
func TestNothingPrivate(t *testing.T) {
	b := string(text(t, document()))
	for _, secret := range []string{"203.0.113.53", "192.168.1.7", "no such host", "i/o timeout", "isp.example"} {
		if strings.Contains(b, secret) {
			t.Errorf("the document has %s", secret)
		}
	}
	resolver := netip.MustParseAddrPort("203.0.113.53:53")
	peer := netip.MustParseAddrPort("198.51.100.1:443")
	for _, proto := range []string{probe.ProtoDNS, probe.ProtoTCP, probe.ProtoTLS, probe.ProtoQUIC, probe.ProtoHTTP, probe.ProtoWebSocket,
		probe.ProtoMTProto, probe.ProtoNoise, probe.ProtoOneMe, probe.ProtoSTUN, probe.ProtoTransfer} {
		for _, failure := range []probe.Failure{"", probe.FailureTimeout, probe.FailureDNSNXDOMAIN, probe.FailureInterrupted} {
			for n := 1; n <= 3; n++ { // the failing step is the lookup, or a later one
				r := probe.Result{Check: probe.Check{Protocol: proto}, Steps: []probe.Step{{Op: probe.OpResolve, Addr: resolver},
					{Op: probe.OpConnect, Addr: peer}, {Op: probe.OpReply, Addr: peer}}[:n]}
				r.Steps[n-1].Failure = failure
				if a := FromResults([]probe.Result{r})[0].Address; strings.Contains(a, "203.0.113.53") || (proto == probe.ProtoDNS) && a != "" {
					t.Errorf("%s with %d steps, the last %q: address %s", proto, n, failure, a)
				}
			}
		}
	}
}

// A document is written for people, too: markup in a name stays as it is.
func TestWrite(t *testing.T) {
	b := string(text(t, document()))
	if !strings.Contains(b, `"name": "vps <1>"`) || !strings.Contains(b, "\n  \"vantage\": {\n") || !strings.HasSuffix(b, "}\n") {
		t.Errorf("%s", b)
	}
	d := document()
	if err := d.Write(broken{}); err == nil {
		t.Error("a writer that fails is no error")
	}
}

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, fmt.Errorf("closed") }
