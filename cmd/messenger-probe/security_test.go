package main

import (
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/messenger-probe/messenger-probe/probe"
	"github.com/messenger-probe/messenger-probe/targets"
)

const securityPath = "../../SECURITY.md"

// usual is what the default configuration measures on a host with IPv4 and IPv6
// and one resolver.
func usual(t *testing.T, cat *targets.Catalogue, interval time.Duration) []probe.Check {
	t.Helper()
	checks, err := cat.Checks(targets.Vantage{
		Families:      []string{probe.IP4, probe.IP6},
		Resolver:      probe.NewSystemResolver(""),
		SystemServers: []probe.Server{{Name: "system", Transport: probe.OverUDP, Addr: netip.MustParseAddrPort("192.0.2.53:53")}},
		Interval:      interval, Timeout: 10 * time.Second,
		Messengers: []string{"whatsapp", "telegram", "max"},
	})
	if err != nil {
		t.Fatal(err)
	}
	return checks
}

// receiver is who gets the packets of a check.
func receiver(t *testing.T, cat *targets.Catalogue, c probe.Check) string {
	if d, ok := c.Prober.(probe.DNS); ok {
		for _, r := range cat.Resolvers {
			if r.Name == d.Server.Name {
				return r.Group + " resolvers"
			}
		}
		return "the system's resolvers"
	}
	if c.Messenger == probe.Control {
		return c.Function + " controls"
	}
	m, ok := cat.Messenger(c.Messenger)
	if !ok {
		t.Fatalf("%s is not in the catalogue", c.Messenger)
	}
	return m.Title
}

func trafficTable(t *testing.T) string {
	t.Helper()
	cat, err := targets.Load("")
	if err != nil {
		t.Fatal(err)
	}
	rows := []string{"WhatsApp", "Telegram", "MAX", "sibling controls", "domestic controls", "foreign controls", "positive controls",
		"the system's resolvers", "national resolvers", "domestic resolvers", "foreign resolvers"}
	intervals := []time.Duration{time.Minute, 5 * time.Minute}
	asked := map[string]map[string]bool{}
	sums := map[string][2]float64{}
	for i, interval := range intervals {
		for _, c := range usual(t, cat, interval) {
			to := receiver(t, cat, c)
			if asked[to] == nil {
				asked[to] = map[string]bool{}
			}
			asked[to][c.Protocol] = true
			for _, row := range []string{to, "all"} {
				s := sums[row]
				s[i] += float64(targets.EstimateBytes([]probe.Check{c})) / 1e6
				sums[row] = s
			}
		}
	}
	if len(asked) != len(rows) {
		t.Fatalf("packets go to %d kinds of receivers, the table knows %d", len(asked), len(rows))
	}
	var b strings.Builder
	b.WriteString("| to | checks | MB a day at `interval` 60s | at 5m |\n|---|---|---|---|\n")
	for _, row := range append(rows, "all") {
		var checks []string
		for _, p := range probe.Protocols {
			if asked[row][p] {
				checks = append(checks, "`"+p+"`")
			}
		}
		fmt.Fprintf(&b, "| %s | %s | %.1f | %.1f |\n", row, strings.Join(checks, ", "), sums[row][0], sums[row][1])
	}
	return b.String()
}

// What SECURITY.md says is sent, and to whom, is what the default configuration
// sends.
func TestSECURITYTraffic(t *testing.T) {
	b, err := os.ReadFile(securityPath)
	if err != nil {
		t.Fatal(err)
	}
	before, in, after := between(t, string(b), "traffic")
	want := trafficTable(t)
	if in == want {
		return
	}
	if *update {
		if err := os.WriteFile(securityPath, []byte(before+want+after), 0o666); err != nil {
			t.Fatal(err)
		}
		return
	}
	t.Errorf("the table of traffic is not what the catalogue gives; go test ./cmd/messenger-probe -run SECURITY -update rewrites it:\n%s", cmp.Diff(in, want))
}
