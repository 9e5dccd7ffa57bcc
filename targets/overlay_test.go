package targets

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/messenger-probe/messenger-probe/probe"
	"github.com/messenger-probe/messenger-probe/probe/probetest"
)

// resolver looks names up at one server.
type resolver struct{ server probe.Server }

func (r resolver) Lookup(ctx context.Context, n probe.Net, host, family string) probe.Step {
	steps := probe.DNS{Server: r.server, Host: host, Type: recordTypes[family], Window: -1, AllowBogons: true}.Probe(ctx, n)
	return steps[len(steps)-1]
}

// A messenger that the program has never heard of is measured without any Go:
// one YAML file, laid over, whose checks run against real servers.
func TestNewMessenger(t *testing.T) {
	ca := probetest.NewCA(t, "authority of the test")
	names := probetest.NewDNS(t, nil)
	names.On("chat.carrier-pigeon.example", probetest.DNSAnswer("127.0.0.1"))
	server := probetest.ServeTLS(t, &tls.Config{Certificates: []tls.Certificate{ca.Issue(t, nil, "chat.carrier-pigeon.example")}, NextProtos: []string{"h2"}}, nil)
	deaf := probetest.ServeTCP(t, func(c net.Conn) { probetest.Reset(c) })

	dir := t.TempDir()
	text := fmt.Sprintf(`messenger: pigeon
title: Carrier Pigeon
test_network: true
endpoints:
  - name: loft
    function: chat
    tier: core
    host: chat.carrier-pigeon.example
    ports: [%d]
    checks: [dns, tcp, tls]
    confidence: high
    source: [the fancier]
    confirmed: 2026-11
  - name: perch
    function: media
    tier: core
    addresses: [127.0.0.1]
    server_name: chat.carrier-pigeon.example
    ports: [%d]
    checks: [tls]
    confidence: high
    source: [the fancier]
    confirmed: 2026-11
`, server.Port(), deaf.Port())
	if err := os.WriteFile(filepath.Join(dir, "pigeon.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	trust, err := probe.NewTrust(ca.PEM())
	if err != nil {
		t.Fatal(err)
	}
	system := probe.Server{Name: "system", Transport: probe.OverUDP, Addr: names.Addr}
	checks, err := c.Checks(Vantage{
		Messengers: []string{"pigeon"}, Families: []string{probe.IP4},
		Interval: time.Minute, Timeout: 5 * time.Second,
		Resolver: resolver{system}, SystemServers: []probe.Server{system},
		Trust: func([][32]byte) *probe.Trust { return trust },
	})
	if err != nil {
		t.Fatal(err)
	}

	port := server.Port()
	want := map[string]string{
		"pigeon/chat/loft/dns/ip4/udp,system":                     "",
		fmt.Sprintf("pigeon/chat/loft/tcp/ip4/%d", port):          "",
		fmt.Sprintf("pigeon/chat/loft/tls/ip4/%d", port):          "",
		fmt.Sprintf("pigeon/chat/loft/tls/ip4/%d,x25519", port):   "",
		fmt.Sprintf("pigeon/media/perch/tls/ip4/%s", deaf):        string(probe.FailureConnectionReset),
		fmt.Sprintf("pigeon/media/perch/tls/ip4/%s,x25519", deaf): string(probe.FailureConnectionReset),
	}
	n := probe.Host{}
	for _, k := range checks {
		failure, ok := want[k.ID()]
		if !ok {
			continue // controls, further addresses, resolvers that are not on loopback
		}
		delete(want, k.ID())
		ctx, cancel := context.WithTimeout(t.Context(), k.Timeout)
		r := probe.Result{Check: k, Steps: k.Prober.Probe(ctx, &n)}
		cancel()
		outcome, reason := r.Judge()
		switch f := r.Failed(); {
		case failure == "" && outcome != probe.OK:
			t.Errorf("%s: %s %s, %+v", k.ID(), outcome, reason, f)
		case failure != "" && (f == nil || string(f.Failure) != failure):
			t.Errorf("%s: %s, %+v", k.ID(), outcome, f)
		}
	}
	for id := range want {
		t.Errorf("%s is not among the checks", id)
	}
}
