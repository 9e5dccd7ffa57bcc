//go:build unix

package probe

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/messenger-probe/messenger-probe/probe/probetest"
)

// The benchmarks compare the CPU time that a prober takes with that of the bare
// operation, in pairs of rounds a second apart and at the pace at which a prober
// lives. The server is another process, so that only the client's time counts.

const (
	benchServerEnv = "PROBE_BENCH_SERVER"
	benchHost      = "bench.test"
)

// benchPeer is where the server of a benchmark is, and who vouches for it.
type benchPeer struct {
	Addr netip.AddrPort
	PEM  []byte
}

// benchServers are the servers that a benchmark may ask for, each run in a
// process of its own. conf has a certificate for benchHost.
var benchServers = map[string]func(tb testing.TB, conf *tls.Config) netip.AddrPort{
	"tcp": func(tb testing.TB, _ *tls.Config) netip.AddrPort {
		return probetest.ServeTCP(tb, func(c net.Conn) { io.Copy(io.Discard, c) })
	},
	"dns": func(tb testing.TB, _ *tls.Config) netip.AddrPort {
		s := probetest.NewDNS(tb, nil)
		s.On(benchHost, probetest.DNSAnswer("157.240.1.60", "157.240.2.60"))
		return s.Addr
	},
	"tls": func(tb testing.TB, conf *tls.Config) netip.AddrPort {
		return probetest.ServeTLS(tb, conf, nil)
	},
	"mtproto": func(tb testing.TB, _ *tls.Config) netip.AddrPort {
		return probetest.ServeTCP(tb, production.Serve)
	},
	"quic": func(tb testing.TB, conf *tls.Config) netip.AddrPort {
		return probetest.ServeQUIC(tb, conf, nil, nil, nil)
	},
}

// benchServerMain is the server's process. It ends with its standard input.
func benchServerMain(kind string) {
	tb := &processTB{}
	ca := probetest.NewCA(tb, "bench CA")
	conf := &tls.Config{
		Certificates: []tls.Certificate{ca.Issue(tb, nil, benchHost, "127.0.0.1")},
		NextProtos:   []string{"h3", "h2", "http/1.1"},
	}
	addr := benchServers[kind](tb, conf)
	json.NewEncoder(os.Stdout).Encode(benchPeer{addr, ca.PEM()})
	io.Copy(io.Discard, os.Stdin)
}

// processTB is a process that uses what is made for tests.
type processTB struct{ testing.TB }

func (*processTB) Helper()        {}
func (*processTB) Cleanup(func()) {} // the process ends
func (*processTB) Fatal(a ...any) { panic(fmt.Sprint(a...)) }

// benchServer starts a server of benchServers.
func benchServer(b *testing.B, kind string) benchPeer {
	b.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), benchServerEnv+"="+kind)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { in.Close(); cmd.Wait() })
	var peer benchPeer
	line, err := bufio.NewReader(out).ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &peer)
	}
	if err != nil {
		b.Fatal(err)
	}
	return peer
}

// pairing measures bare and probe in turn and reports what each costs
// (cpu-ms), and the median of the rounds' ratios (x-floor).
func pairing(b *testing.B, bare, probe func()) {
	b.Helper()
	pairingWith(b, bare, probe, cpuTime)
}

// pairingWith is pairing with a probe that another process carries out, whose CPU
// time theirs tells.
func pairingWith(b *testing.B, bare, probe func(), theirs func(*testing.B) time.Duration) {
	b.Helper()
	const rounds, ops, pace = 7, 100, 10 * time.Millisecond
	cost := func(op func(), cpuTime func(*testing.B) time.Duration) float64 {
		runtime.GC()
		start := cpuTime(b)
		tick := time.NewTicker(pace)
		defer tick.Stop()
		for range ops {
			<-tick.C
			op()
		}
		return (cpuTime(b) - start).Seconds() * 1000 / ops
	}
	for range 10 {
		bare()
		probe()
	}
	var floors, probes, ratios []float64
	for range rounds * b.N {
		floor, ours := cost(bare, cpuTime), cost(probe, theirs)
		floors, probes, ratios = append(floors, floor), append(probes, ours), append(ratios, ours/floor)
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(median(floors), "floor-cpu-ms/op")
	b.ReportMetric(median(probes), "cpu-ms/op")
	b.ReportMetric(median(ratios), "x-floor")
}

func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return v[len(v)/2]
}

// benchProber makes an operation of a prober, as the agent runs one.
func benchProber(b *testing.B, p Prober) func() {
	return func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		steps := p.Probe(ctx, &Meter{Net: &Host{}})
		for _, s := range steps {
			if s.Failure != "" {
				b.Fatalf("%s: %s: %v", s.Op, s.Failure, s.Err)
			}
		}
	}
}

func BenchmarkTCP(b *testing.B) {
	peer := benchServer(b, "tcp")
	pairing(b, func() {
		c, err := net.DialTimeout("tcp", peer.Addr.String(), 10*time.Second)
		if err != nil {
			b.Fatal(err)
		}
		c.Close()
	}, benchProber(b, TCP{Addr: peer.Addr}))
}

func BenchmarkTLS(b *testing.B) {
	peer := benchServer(b, "tls")
	trust, err := NewTrust(peer.PEM)
	if err != nil {
		b.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(peer.PEM)
	pairing(b, func() {
		d := tls.Dialer{Config: &tls.Config{RootCAs: pool, ServerName: benchHost}}
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		c, err := d.DialContext(ctx, "tcp", peer.Addr.String())
		if err != nil {
			b.Fatal(err)
		}
		c.Close()
	}, benchProber(b, TLS{Addr: peer.Addr, ServerName: benchHost, Trust: trust}))
}

func BenchmarkQUIC(b *testing.B) {
	peer := benchServer(b, "quic")
	trust, err := NewTrust(peer.PEM)
	if err != nil {
		b.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(peer.PEM)
	pairing(b, func() {
		pc, err := net.ListenPacket("udp4", "0.0.0.0:0")
		if err != nil {
			b.Fatal(err)
		}
		defer pc.Close()
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		tr := &quic.Transport{Conn: pc}
		defer tr.Close()
		conf := &tls.Config{RootCAs: pool, ServerName: benchHost, NextProtos: []string{"h3"}}
		c, err := tr.Dial(ctx, net.UDPAddrFromAddrPort(peer.Addr), conf, nil)
		if err != nil {
			b.Fatal(err)
		}
		c.CloseWithError(0, "")
	}, benchProber(b, QUIC{Addr: peer.Addr, ServerName: benchHost, Trust: trust}))
}
