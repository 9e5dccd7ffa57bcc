package agent

import (
	"context"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/messenger-probe/messenger-probe/probe"
	"github.com/messenger-probe/messenger-probe/probe/probetest"
	"github.com/messenger-probe/messenger-probe/probe/verdict"
)

// neutral is the address of a relay that is not the messenger's.
const neutral = "192.0.2.9:3478"

// relays is a network of relays that answer a round trip later, as long as
// nothing bad is said of "relays", of "neutral" or of everybody.
type relays struct {
	probe.Net
	w     *world
	calls probetest.Calls
}

func (n *relays) ListenPacket(context.Context, string, string) (net.PacketConn, error) {
	return &relayed{n: n, in: make(chan datagram, 256), over: make(chan struct{})}, nil
}

type datagram struct {
	b    []byte
	from net.Addr
}

// relayed is a socket in a network of relays.
type relayed struct {
	n    *relays
	in   chan datagram
	over chan struct{}
	once sync.Once

	mu       sync.Mutex
	deadline time.Time
}

func (c *relayed) WriteTo(b []byte, to net.Addr) (int, error) {
	host := "relays"
	if strings.HasPrefix(to.String(), neutral) {
		host = "neutral"
	}
	if c.n.w.fails(host) == "" {
		for _, answer := range c.n.calls.Answer(b) {
			time.AfterFunc(40*time.Millisecond, func() {
				if c.n.w.fails(host) == "" {
					c.in <- datagram{answer, to}
				}
			})
		}
	}
	return len(b), nil
}

func (c *relayed) ReadFrom(b []byte) (int, net.Addr, error) {
	for {
		c.mu.Lock()
		until := c.deadline
		c.mu.Unlock()
		wait := time.Hour
		if !until.IsZero() {
			if wait = time.Until(until); wait <= 0 {
				return 0, nil, os.ErrDeadlineExceeded
			}
		}
		select {
		case d := <-c.in:
			return copy(b, d.b), d.from, nil
		case <-c.over:
			return 0, nil, net.ErrClosed
		case <-time.After(min(wait, 10*time.Millisecond)): // the deadline may have been moved
		}
	}
}

func (c *relayed) SetDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deadline = t
	return nil
}

func (c *relayed) SetReadDeadline(t time.Time) error { return c.SetDeadline(t) }
func (c *relayed) SetWriteDeadline(time.Time) error  { return nil }
func (c *relayed) LocalAddr() net.Addr               { return &net.UDPAddr{IP: net.IPv4zero} }
func (c *relayed) Close() error                      { c.once.Do(func() { close(c.over) }); return nil }

// Bursts of a call's packets that are cut because the line ends, or stumbles, are
// not held against the messenger; those that are cut again and again are, until
// they no longer are. The schedule alone would ask after hours.
func TestBursts(t *testing.T) {
	burst := func(w *world, messenger, function, endpoint, addr string, every time.Duration) probe.Check {
		c := w.check(messenger, function, endpoint)
		at := netip.MustParseAddrPort(addr)
		c.Protocol, c.Interval, c.Prober = probe.ProtoSTUN, every, probe.STUN{Addr: at, Burst: 50}
		c.Target = at.String()
		return c
	}
	run := func(t *testing.T, f func(a *agency, next func())) {
		synctest.Test(t, func(t *testing.T) {
			w, d := newWorld(), newDiary(t)
			net := &relays{w: w}
			checks := append(w.controls(), burst(w, probe.Control, probe.Foreign, "neutral", neutral, time.Minute),
				burst(w, "alpha", "calls", "one", "192.0.2.1:3478", 4*time.Hour), burst(w, "alpha", "calls", "two", "192.0.2.2:3478", 4*time.Hour))
			a := start(t, w, d, checks, time.Minute, Options{Net: net})
			a.pass(5 * time.Hour)
			if s := a.state("alpha", "calls"); s != verdict.OK {
				t.Fatalf("calls are %s: %+v", s, a.last().Verdicts)
			}
			f(a, func() { // until the schedule's next burst is in the middle
				heard := func() int {
					n := 0
					a.Agent.mu.Lock()
					defer a.Agent.mu.Unlock()
					for id, r := range a.records {
						if r.Check.Messenger == "alpha" && !a.detector.began[id].IsZero() {
							n++
						}
					}
					return n
				}
				for heard() == 0 {
					time.Sleep(50 * time.Millisecond)
				}
				time.Sleep(500 * time.Millisecond)
			})
			a.stop()
			for _, s := range d.judged {
				coherent(t, s)
			}
		})
	}
	quiet := func(a *agency, since time.Time) {
		a.t.Helper()
		for _, c := range a.changes {
			if c.Time.After(since) && c.Messenger == "alpha" && bad(c.State) {
				a.t.Errorf("%v after: %s, %s: %s", c.Time.Sub(since), c.State, c.Mechanism, strings.Join(c.Evidence, "; "))
			}
		}
	}
	t.Run("the line ends", func(t *testing.T) {
		run(t, func(a *agency, next func()) {
			next()
			cut := time.Now()
			a.set("", probe.FailureTimeout)
			a.pass(3 * time.Minute)
			a.set("", "")
			a.pass(20 * time.Minute)
			quiet(a, cut)
			if s := a.state("alpha", "calls"); s != verdict.OK {
				t.Errorf("calls are %s: %+v", s, a.last().Verdicts)
			}
		})
	})
	for _, d := range []time.Duration{500 * time.Millisecond, time.Second, 3 * time.Second} {
		t.Run("the line stumbles for "+d.String(), func(t *testing.T) {
			run(t, func(a *agency, next func()) {
				next()
				cut := time.Now()
				a.set("", probe.FailureTimeout)
				a.pass(d)
				a.set("", "")
				a.pass(20 * time.Minute)
				quiet(a, cut)
			})
		})
	}
	t.Run("calls are cut", func(t *testing.T) {
		run(t, func(a *agency, next func()) {
			over := make(chan struct{})
			var beating sync.WaitGroup
			beating.Go(func() { // 200 of each 350 ms pass
				for i := 0; ; i++ {
					select {
					case <-over:
						return
					case <-time.After(50 * time.Millisecond):
					}
					a.world.set("relays", map[bool]probe.Failure{true: probe.FailureTimeout}[i%7 >= 4])
				}
			})
			began := time.Now()
			await := func(s verdict.State, within time.Duration) {
				a.t.Helper()
				for a.state("alpha", "calls") != s {
					if a.pass(time.Second); time.Since(began) > within {
						over <- struct{}{}
						a.t.Fatalf("calls are not %s within %v: %+v", s, within, a.last().Verdicts)
					}
				}
				a.t.Logf("%s after %v: %+v", s, time.Since(began), a.last().Verdicts)
			}
			next()
			began = time.Now()
			await(verdict.Degraded, time.Minute)
			a.pass(time.Hour)
			if s := a.state("alpha", "calls"); s != verdict.Degraded {
				t.Errorf("an hour later calls are %s", s)
			}
			close(over)
			beating.Wait()
			a.world.set("relays", "")
			began = time.Now()
			await(verdict.OK, 10*time.Minute)
		})
	})
}
