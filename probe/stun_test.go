package probe

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/quic-go/quic-go/testutils/simnet"

	"github.com/messenger-probe/messenger-probe/probe/probetest"
)

func TestSTUN(t *testing.T) {
	drop := func(n int) func(int, []byte, []byte) [][]byte {
		return func(i int, _, a []byte) [][]byte {
			if i < n {
				return nil
			}
			return [][]byte{a}
		}
	}
	edit := func(f func(a []byte) []byte) func(int, []byte, []byte) [][]byte {
		return func(_ int, _, a []byte) [][]byte { return [][]byte{f(bytes.Clone(a))} }
	}
	for _, c := range []struct {
		name  string
		calls *probetest.Calls
		q     STUN
		story string
		code  int
		proof string
	}{
		{"binding", &probetest.Calls{}, STUN{}, "reply", 0, "transaction id"},
		{"binding, IPv6", &probetest.Calls{IPv6: true}, STUN{Kind: STUNBinding}, "reply", 0, "transaction id"},
		{"turn", &probetest.Calls{}, STUN{Kind: STUNTURN, Realm: "telegram.org"}, "reply", 401, "transaction id and realm"},
		{"turn, any realm", &probetest.Calls{Realm: "signal.org"}, STUN{Kind: STUNTURN}, "reply", 401, "transaction id and realm"},
		{"turn, another realm", &probetest.Calls{Realm: "example.org"}, STUN{Kind: STUNTURN, Realm: "telegram.org"}, "reply unknown_failure", 401, "another realm"},
		{"turn, forbidden", &probetest.Calls{Code: 403}, STUN{Kind: STUNTURN, Realm: "telegram.org"}, "reply", 403, "transaction id"},
		{"reflector", &probetest.Calls{}, STUN{Kind: STUNReflector}, "reply", 0, "peer tag and id"},

		{"first answer lost", &probetest.Calls{Change: drop(1)}, STUN{}, "reply", 0, "transaction id"},
		{"no FINGERPRINT", &probetest.Calls{Change: edit(func(a []byte) []byte {
			binary.BigEndian.PutUint16(a[2:], uint16(len(a)-28))
			return a[:len(a)-8]
		})}, STUN{}, "reply", 0, "transaction id"},
		{"silence", &probetest.Calls{Change: drop(1000)}, STUN{}, "reply generic_timeout_error", 0, ""},
		{"wrong FINGERPRINT", &probetest.Calls{Change: edit(func(a []byte) []byte { a[len(a)-1]++; return a })}, STUN{}, "reply generic_timeout_error", 0, "not STUN"},
		{"wrong transaction", &probetest.Calls{Change: edit(func(a []byte) []byte { a[8]++; return a[:len(a)-8] })}, STUN{}, "reply generic_timeout_error", 0, "not STUN"},
		{"wrong transaction, right FINGERPRINT", &probetest.Calls{Change: func(_ int, req, _ []byte) [][]byte {
			req[19]++
			return (&probetest.Calls{}).Answer(req)
		}}, STUN{}, "reply generic_timeout_error", 0, "answer to another transaction"},
		{"the request comes back", &probetest.Calls{Change: func(_ int, req, _ []byte) [][]byte { return [][]byte{req} }}, STUN{},
			"reply generic_timeout_error", 0, "answer to another transaction"},
		{"answer to Binding for Allocate", &probetest.Calls{Change: func(_ int, req, _ []byte) [][]byte {
			return (&probetest.Calls{}).Answer(append([]byte{0, 1, 0, 0}, req[4:20]...))
		}}, STUN{Kind: STUNTURN}, "reply generic_timeout_error", 0, "answer to another transaction"},
		{"success without an address", &probetest.Calls{Change: edit(func(a []byte) []byte { a[3] = 0; return a[:20] })}, STUN{},
			"reply unknown_failure", 0, "success without an address"},
		{"another hello's answer", &probetest.Calls{Change: edit(func(a []byte) []byte { a[36]++; return a })}, STUN{Kind: STUNReflector},
			"reply generic_timeout_error", 0, "answer to another hello"},
		{"STUN for a hello", &probetest.Calls{Change: func(_ int, req, _ []byte) [][]byte {
			return (&probetest.Calls{}).Answer(append([]byte{0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42}, req[:12]...))
		}}, STUN{Kind: STUNReflector}, "reply generic_timeout_error", 0, "not a reflector's"},
		{"garbage before the answer", &probetest.Calls{Change: func(_ int, req, a []byte) [][]byte {
			return [][]byte{{}, {0}, []byte("HTTP/1.1 403 Forbidden\r\n\r\n"), bytes.Repeat([]byte{0xff}, 2000), req, a}
		}}, STUN{}, "reply", 0, "transaction id"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.q.Addr = probetest.ServeUDP(t, c.calls.Answer)
			steps := runProber(t, c.q, enough(c.story))
			if story(steps) != c.story || steps[0].Reply.Code != c.code || steps[0].Reply.Proof != c.proof {
				t.Errorf("got %s, %+v, %v; want %s, %d, %q", story(steps), steps[0].Reply, steps[0].Err, c.story, c.code, c.proof)
			}
		})
	}
}

func TestSTUNReflectorClock(t *testing.T) {
	c := &probetest.Calls{Change: func(_ int, _, a []byte) [][]byte {
		binary.LittleEndian.PutUint32(a[32:], uint32(time.Now().Add(time.Hour).Unix()))
		return [][]byte{a}
	}}
	r := runProber(t, STUN{Addr: probetest.ServeUDP(t, c.Answer), Kind: STUNReflector}, time.Second)[0].Reply
	if !r.HasSkew || (r.Skew-time.Hour).Abs() > 3*time.Second {
		t.Errorf("skew %v", r.Skew)
	}
}

func TestSTUNClosedPort(t *testing.T) {
	start := time.Now()
	steps := runProber(t, STUN{Addr: probetest.RefusedUDP(t), Burst: 50}, 2*time.Second)
	if story(steps) != "reply connection_refused" || time.Since(start) > time.Second {
		t.Errorf("%s after %s", story(steps), time.Since(start))
	}
}

func TestSTUNCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	time.AfterFunc(20*time.Millisecond, cancel)
	steps := STUN{Addr: probetest.MuteUDP(t)}.Probe(ctx, &Host{})
	if story(steps) != "reply interrupted" {
		t.Error(story(steps))
	}
}

// TestSTUNFlood: who answers without end, and never rightly, is cut off at 256 kB.
func TestSTUNFlood(t *testing.T) {
	c := &probetest.Calls{Change: func(int, []byte, []byte) [][]byte {
		return slicesRepeat(make([]byte, 1400), 400)
	}}
	var m Meter
	m.Net = &Host{}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	steps := STUN{Addr: probetest.ServeUDP(t, c.Answer)}.Probe(ctx, &m)
	if story(steps) != "reply unknown_failure" || m.Received() > maxReceived+1500 {
		t.Errorf("%s after %d bytes", story(steps), m.Received())
	}
}

func slicesRepeat(b []byte, n int) (out [][]byte) {
	for range n {
		out = append(out, b)
	}
	return out
}

// callNet is a network in a synctest bubble: one server, latency there and back,
// and a router that may lose what it likes.
type callNet struct {
	simnet.PerfectRouter
	lose func(p simnet.Packet) bool
	net  *simnet.Simnet
	wg   sync.WaitGroup
}

func (b *callNet) SendPacket(p simnet.Packet) error {
	if b.lose != nil && b.lose(p) {
		return nil
	}
	return b.PerfectRouter.SendPacket(p)
}

func (b *callNet) DialContext(context.Context, string, string) (net.Conn, error) {
	return nil, net.ErrClosed
}

var (
	callServer = netip.MustParseAddrPort("192.0.2.10:3478")
	callClient = netip.MustParseAddrPort("192.0.2.20:40000")
)

// newCallNet serves calls with a latency each way that may depend on the packet.
func newCallNet(t *testing.T, calls *probetest.Calls, latency func(simnet.Packet) time.Duration) (*callNet, *simnet.SimConn) {
	b := &callNet{}
	b.net = &simnet.Simnet{Router: b}
	settings := simnet.NodeBiDiLinkSettings{LatencyFunc: latency}
	server := b.net.NewEndpoint(net.UDPAddrFromAddrPort(callServer), settings)
	client := b.net.NewEndpoint(net.UDPAddrFromAddrPort(callClient), settings)
	if err := b.net.Start(); err != nil {
		t.Fatal(err)
	}
	b.wg.Go(func() {
		buf := make([]byte, 2000)
		for {
			n, from, err := server.ReadFrom(buf)
			if err != nil {
				return
			}
			for _, a := range calls.Answer(buf[:n]) {
				server.WriteTo(a, from)
			}
		}
	})
	t.Cleanup(func() { server.Close(); b.wg.Wait(); b.net.Close() })
	return b, client
}

// oneSocket is a Net that has one socket to give.
type oneSocket struct {
	*callNet
	net.PacketConn
}

func (n oneSocket) ListenPacket(context.Context, string, string) (net.PacketConn, error) {
	return n, nil
}

// ReadFrom has the error that a real socket's deadline has.
func (n oneSocket) ReadFrom(b []byte) (int, net.Addr, error) {
	k, from, err := n.PacketConn.ReadFrom(b)
	if err == simnet.ErrDeadlineExceeded {
		err = os.ErrDeadlineExceeded
	}
	return k, from, err
}

// TestSTUNRetransmission: RFC 8489 §6.2.1 has requests at 0, 500, 1500, 3500
// and 7500 ms, all of one transaction.
func TestSTUNRetransmission(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		var at []time.Duration
		ids := map[string]bool{}
		calls := &probetest.Calls{Change: func(_ int, req, _ []byte) [][]byte {
			at = append(at, time.Since(start))
			ids[string(req)] = true
			return nil
		}}
		b, client := newCallNet(t, calls, nil)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		steps := STUN{Addr: callServer, Burst: 50}.Probe(ctx, oneSocket{b, client})
		if story(steps) != "reply generic_timeout_error" || steps[0].Took != 10*time.Second {
			t.Errorf("%s after %s", story(steps), steps[0].Took)
		}
		synctest.Wait()
		ms := time.Millisecond
		if d := cmp.Diff([]time.Duration{0, 500 * ms, 1500 * ms, 3500 * ms, 7500 * ms}, at); d != "" {
			t.Error(d)
		}
		if len(ids) != 1 {
			t.Errorf("%d different requests", len(ids))
		}
	})
}

func TestSTUNBurst(t *testing.T) {
	ms := time.Millisecond
	answers := func(p simnet.Packet) bool { return p.From.String() == callServer.String() }
	for _, c := range []struct {
		name    string
		kind    string
		latency func(simnet.Packet) time.Duration
		lose    func(i int) bool // of the answers, after the first
		want    BurstInfo
		story   string
	}{
		{name: "clean", latency: func(simnet.Packet) time.Duration { return 20 * ms },
			want: BurstInfo{Sent: 50, Received: 50, RTT: 40 * ms}, story: "reply, transfer"},
		{name: "turn", kind: STUNTURN, latency: func(simnet.Packet) time.Duration { return 20 * ms },
			want: BurstInfo{Sent: 50, Received: 50, RTT: 40 * ms}, story: "reply, transfer"},
		{name: "reflector", kind: STUNReflector, latency: func(simnet.Packet) time.Duration { return 20 * ms },
			want: BurstInfo{Sent: 50, Received: 50, RTT: 40 * ms}, story: "reply, transfer"},
		{name: "slow path", latency: func(simnet.Packet) time.Duration { return 300 * ms },
			want: BurstInfo{Sent: 50, Received: 50, RTT: 600 * ms}, story: "reply, transfer"},
		{name: "four of five lost", latency: func(simnet.Packet) time.Duration { return 20 * ms },
			lose: func(i int) bool { return i%5 != 0 },
			want: BurstInfo{Sent: 50, Received: 10, RTT: 40 * ms}, story: "reply, transfer"},
		{name: "all lost", latency: func(simnet.Packet) time.Duration { return 20 * ms },
			lose: func(int) bool { return true },
			want: BurstInfo{Sent: 50}, story: "reply, transfer generic_timeout_error"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b, client := newCallNet(t, &probetest.Calls{}, c.latency)
				n := -1 // the first answer is the reply step's
				b.lose = func(p simnet.Packet) bool {
					if !answers(p) {
						return false
					}
					n++
					return n > 0 && c.lose != nil && c.lose(n-1)
				}
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				steps := STUN{Addr: callServer, Kind: c.kind, Burst: 50}.Probe(ctx, oneSocket{b, client})
				if story(steps) != c.story {
					t.Fatalf("%s: %v", story(steps), steps[len(steps)-1].Err)
				}
				if d := cmp.Diff(&c.want, steps[1].Burst); d != "" {
					t.Error(d)
				}
				// 49 intervals, and the last answer or the wait for it.
				want := 49*20*ms + c.want.RTT
				if c.want.Received < c.want.Sent {
					want = 49*20*ms + burstTail
				}
				if steps[1].Took != want {
					t.Errorf("took %s, want %s", steps[1].Took, want)
				}
			})
		})
	}
}

// TestSTUNJitter: answers alternate between 20 and 30 ms each way.
func TestSTUNJitter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		b, client := newCallNet(t, &probetest.Calls{}, func(p simnet.Packet) time.Duration {
			if p.To.String() == callServer.String() {
				return 20 * time.Millisecond
			}
			n++
			return time.Duration(20+10*(n%2)) * time.Millisecond
		})
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		steps := STUN{Addr: callServer, Burst: 20, Spacing: 100 * time.Millisecond}.Probe(ctx, oneSocket{b, client})
		want := &BurstInfo{Sent: 20, Received: 20, Jitter: 10 * time.Millisecond, RTT: 50 * time.Millisecond}
		if d := cmp.Diff(want, steps[1].Burst); d != "" {
			t.Error(d)
		}
	})
}

// TestSTUNBurstShort: a burst that does not fit before the deadline is made
// shorter, and left out where little is left.
func TestSTUNBurstShort(t *testing.T) {
	for d, want := range map[time.Duration]string{
		3 * time.Second:         "reply, transfer 50",
		1600 * time.Millisecond: "reply, transfer 28",
		1200 * time.Millisecond: "reply",
	} {
		synctest.Test(t, func(t *testing.T) {
			b, client := newCallNet(t, &probetest.Calls{}, func(simnet.Packet) time.Duration { return 15 * time.Millisecond })
			ctx, cancel := context.WithTimeout(t.Context(), d)
			defer cancel()
			steps := STUN{Addr: callServer, Burst: 50}.Probe(ctx, oneSocket{b, client})
			got := story(steps)
			if len(steps) > 1 {
				got += fmt.Sprintf(" %d", steps[1].Burst.Sent)
			}
			if got != want {
				t.Errorf("in %s: %s, want %s", d, got, want)
			}
		})
	}
}

// TestSTUNBurstHostile: duplicates, replays and answers to nothing count for
// nothing.
func TestSTUNBurstHostile(t *testing.T) {
	var old []byte
	calls := &probetest.Calls{Change: func(i int, req, a []byte) [][]byte {
		if i == 0 {
			old = a
			return [][]byte{a}
		}
		out := [][]byte{old, req, []byte("garbage"), {}}
		if i%2 == 0 {
			out = append(out, a, a, a)
		}
		rand.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
		return out
	}}
	steps := runProber(t, STUN{Addr: probetest.ServeUDP(t, calls.Answer), Burst: 20, Spacing: time.Millisecond}, 5*time.Second)
	if story(steps) != "reply, transfer" || steps[1].Burst.Sent != 20 || steps[1].Burst.Received != 10 {
		t.Errorf("%s %+v", story(steps), steps[1].Burst)
	}
}

// TestSTUNBurstPortCloses: what ICMP says during a burst is loss.
func TestSTUNBurstPortCloses(t *testing.T) {
	pc, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	calls := &probetest.Calls{}
	var wg sync.WaitGroup
	wg.Go(func() {
		defer pc.Close()
		buf := make([]byte, 2000)
		for range 6 {
			n, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			pc.WriteTo(calls.Answer(buf[:n])[0], from)
		}
	})
	defer wg.Wait()
	steps := runProber(t, STUN{Addr: pc.LocalAddr().(*net.UDPAddr).AddrPort(), Burst: 20, Spacing: 5 * time.Millisecond}, 5*time.Second)
	if story(steps) != "reply, transfer" || steps[1].Burst.Sent != 20 || steps[1].Burst.Received != 5 {
		t.Errorf("%s %+v", story(steps), steps[1].Burst)
	}
}
