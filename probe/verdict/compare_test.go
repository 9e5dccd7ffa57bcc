package verdict

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestCompare(t *testing.T) {
	const works, dead = "it works abroad (de)", "de abroad says it is unreachable there too"
	here := func(s State, m Mechanism, c Confidence, evidence ...string) Verdict {
		return Verdict{Messenger: "alpha", Function: "chat", State: s, Mechanism: m, Confidence: c, Evidence: evidence}
	}
	for _, c := range []struct {
		name   string
		here   Verdict
		abroad []Abroad
		want   Verdict
	}{
		{"nobody is asked", here(Unreachable, UnknownCause, Low, "a", alone), nil,
			here(Unreachable, UnknownCause, Low, "a", alone)},
		{"nobody knows", here(Unreachable, UnknownCause, Low, "a", alone), []Abroad{{Name: "de", State: Unknown}},
			here(Unreachable, UnknownCause, Low, "a", alone)},
		{"dead there too", here(Unreachable, UnknownCause, Low, "a", alone), []Abroad{{Name: "de", State: Unreachable}},
			here(Unreachable, ServiceOutage, Medium, dead, "a")},
		{"dead everywhere", here(Unreachable, UDPBlock, High, "a"), []Abroad{{Name: "se", State: Unreachable}, {Name: "de", State: Unreachable}, {Name: "nl", State: Unknown}},
			here(Unreachable, ServiceOutage, High, "de, se abroad says it is unreachable there too", "a")},
		{"one works", here(Unreachable, UnknownCause, Low, "a", alone), []Abroad{{Name: "se", State: Unreachable}, {Name: "de", State: OK}},
			here(Unreachable, UnknownCause, Low, "a", works)},
		{"a low suspicion stays one", here(Unreachable, IPBlock, Low, "a"), []Abroad{{Name: "de", State: OK}},
			here(Unreachable, IPBlock, Low, "a", works)},
		{"a differential pair becomes a block", here(Unreachable, PortBlock, Medium, "a", alone), []Abroad{{Name: "de", State: OK}},
			here(Blocked, PortBlock, Medium, "a", works)},
		{"a bad certificate here is no block", here(Unreachable, ServiceOutage, Medium, "a"), []Abroad{{Name: "de", State: OK}},
			here(Unreachable, ServiceOutage, Medium, "a", works)},
		{"loss is no block", here(Unreachable, PacketLoss, High, "a"), []Abroad{{Name: "de", State: OK}},
			here(Unreachable, PacketLoss, High, "a", works)},
		{"blocked there vouches for nothing", here(Unreachable, UnknownCause, Low, "a", alone), []Abroad{{Name: "by", State: Blocked, Mechanism: SNIReset}, {Name: "de", State: Unreachable}},
			here(Unreachable, UnknownCause, Low, "a", alone)},
		{"silent in both places", here(Blocked, IPBlock, High, "a"), []Abroad{{Name: "de", State: Blocked, Mechanism: IPBlock}},
			here(Unreachable, ServiceOutage, Medium, dead, "a")},
		{"silent here, forged there", here(Blocked, IPBlock, High, "a"), []Abroad{{Name: "by", State: Blocked, Mechanism: DNSForgery}},
			here(Blocked, IPBlock, High, "a")},
		{"what the wire proves stays", here(Blocked, IPBlock, Confirmed, "a"), []Abroad{{Name: "de", State: Unreachable}},
			here(Blocked, IPBlock, Confirmed, "a")},
		{"degraded there neither", here(Unreachable, UnknownCause, Low, "a", alone), []Abroad{{Name: "de", State: Degraded}},
			here(Unreachable, UnknownCause, Low, "a", alone)},
		{"a block is backed", here(Blocked, SNIReset, Confirmed, "a"), []Abroad{{Name: "de", State: OK}},
			here(Blocked, SNIReset, Confirmed, "a", works)},
		{"a block that is shown stays one", here(Blocked, SNIReset, Confirmed, "a"), []Abroad{{Name: "de", State: Unreachable}},
			here(Blocked, SNIReset, Confirmed, "a")},
		{"degraded here", here(Degraded, Throttling, Medium, "a"), []Abroad{{Name: "de", State: OK}},
			here(Degraded, Throttling, Medium, "a", works)},
		{"all is well", here(OK, "", "", "a"), []Abroad{{Name: "de", State: Unreachable}}, here(OK, "", "", "a")},
		{"the vantage is ill", here(Unknown, "", "", "a"), []Abroad{{Name: "de", State: OK}}, here(Unknown, "", "", "a")},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, shared := c.here, c.here.Evidence
			was := append([]string(nil), shared...)
			Compare(&got, c.abroad)
			if d := cmp.Diff(c.want, got); d != "" {
				t.Error(d)
			}
			if d := cmp.Diff(was, shared); d != "" {
				t.Errorf("the evidence of another copy changed: %s", d)
			}
		})
	}
}
