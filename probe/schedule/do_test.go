package schedule

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/messenger-probe/messenger-probe/probe"
)

// ways is a network with a way to nobody, or with one.
type ways bool

func (w ways) DialContext(context.Context, string, string) (net.Conn, error) {
	if !w {
		return nil, &net.OpError{Op: "dial", Net: "udp", Err: os.NewSyscallError("connect", syscall.ENETUNREACH)}
	}
	c, _ := net.Pipe()
	return c, nil
}

func (ways) ListenPacket(context.Context, string, string) (net.PacketConn, error) {
	return nil, errors.ErrUnsupported
}

// An unreachable network blames the messenger only where a router said so.
func TestDoUnreachable(t *testing.T) {
	p := asks(func(context.Context, probe.Net) []probe.Step {
		return []probe.Step{{Op: probe.OpConnect, Addr: netip.MustParseAddrPort("[2001:db8::1]:443"), Failure: probe.FailureNetworkUnreachable}}
	})
	for routed, want := range map[ways]probe.Outcome{true: probe.Fail, false: probe.Void} {
		r, _ := Do(t.Context(), routed, check("telegram", 1, p))
		if o, reason := r.Judge(); o != want || o == probe.Void && reason != probe.ReasonLocal {
			t.Errorf("routed %v: %s %s, want %s", routed, o, reason, want)
		}
	}
}

func TestDoVoids(t *testing.T) {
	tests := []struct {
		name    string
		prober  probe.Prober
		timeout time.Duration
		stop    time.Duration // when the context ends; 0: it does not
		outcome probe.Outcome
		reason  probe.Reason
		took    time.Duration
	}{
		{"works", takes(3 * time.Second), 10 * time.Second, 0, probe.OK, "", 3 * time.Second},
		{"own deadline", takes(time.Hour), 4 * time.Second, 0, probe.Fail, "", 4 * time.Second},
		{"default deadline", takes(time.Hour), 0, 0, probe.Fail, "", 10 * time.Second},
		{"cancelled", takes(time.Hour), 10 * time.Second, 2 * time.Second, probe.Void, probe.ReasonCancelled, 2 * time.Second},
		{"worked before it was cancelled", takes(time.Second), 10 * time.Second, 2 * time.Second, probe.OK, "", time.Second},
		{"worked though cancelled", asks(func(context.Context, probe.Net) []probe.Step { time.Sleep(3 * time.Second); return worked }), 10 * time.Second, 2 * time.Second, probe.OK, "", 3 * time.Second},
		{"a little late", deaf(10*time.Second + 900*time.Millisecond), 10 * time.Second, 0, probe.Fail, "", 10*time.Second + 900*time.Millisecond},
		{"far too late", deaf(12 * time.Second), 10 * time.Second, 0, probe.Void, probe.ReasonLocal, 12 * time.Second},
		{"panics", asks(func(context.Context, probe.Net) []probe.Step { panic("boo") }), 10 * time.Second, 0, probe.Void, probe.ReasonPanic, 0},
		{"no prober", nil, 10 * time.Second, 0, probe.Void, probe.ReasonPanic, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				if tt.stop > 0 {
					defer time.AfterFunc(tt.stop, cancel).Stop()
				}
				c := check("telegram", 1, tt.prober)
				c.Timeout = tt.timeout
				began := time.Now()
				r, asked := Do(ctx, nil, c)
				if outcome, reason := r.Judge(); !asked || outcome != tt.outcome || reason != tt.reason || r.Took != tt.took {
					t.Errorf("asked %v, %s %q after %v; want %s %q after %v", asked, outcome, reason, r.Took, tt.outcome, tt.reason, tt.took)
				}
				if !r.Start.Equal(began) || r.Check.ID() != c.ID() {
					t.Errorf("start %v, check %s; want %v, %s", r.Start, r.Check.ID(), began, c.ID())
				}
			})
		})
	}
}

func TestDoPanicIsAFailedStepWithItsCause(t *testing.T) {
	r, _ := Do(t.Context(), nil, check("telegram", 1, asks(func(context.Context, probe.Net) []probe.Step {
		var m map[string]int
		//lint:ignore SA5000 the panic is what is tested
		m["x"] = 1
		return nil
	})))
	f := r.Failed()
	if f == nil || f.Failure != probe.FailureUnknown || !slices.Contains(probe.Ops[:], f.Op) {
		t.Fatalf("failed step %+v", f)
	}
	if s := f.Err.Error(); !strings.Contains(s, "nil map") || !strings.Contains(s, "do_test.go") {
		t.Errorf("does not say what panicked where: %s", s)
	}
}

func TestDoNothingAsked(t *testing.T) {
	r, asked := Do(t.Context(), nil, check("max", 1, asks(func(context.Context, probe.Net) []probe.Step { return nil })))
	if asked || len(r.Steps) != 0 {
		t.Errorf("asked %v with steps %v", asked, r.Steps)
	}
}

// TestDoCountsBytes asks a real server on loopback.
func TestDoCountsBytes(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			io.CopyN(c, c, 1000)
			c.Close()
		}
	}()
	ask := asks(func(ctx context.Context, n probe.Net) []probe.Step {
		c, err := n.DialContext(ctx, "tcp", l.Addr().String())
		if err != nil {
			return []probe.Step{{Op: probe.OpConnect, Failure: probe.Classify(err), Err: err}}
		}
		defer c.Close()
		if _, err = c.Write(make([]byte, 1200)); err == nil {
			_, err = io.CopyN(io.Discard, c, 1000)
		}
		return []probe.Step{{Op: probe.OpRequest, Failure: probe.Classify(err), Err: err}}
	})
	r, asked := Do(t.Context(), new(probe.Host), check("max", 1, ask))
	if f := r.Failed(); !asked || f != nil {
		t.Fatalf("asked %v, failed %+v", asked, f)
	}
	if r.Sent != 1200 || r.Received != 1000 {
		t.Errorf("sent %d, received %d; want 1200, 1000", r.Sent, r.Received)
	}
}

func TestOnceLimits(t *testing.T) {
	const n, perGate, parallel = 200, 2, 24
	synctest.Test(t, func(t *testing.T) {
		var now crowd
		checks := several("telegram", n, nil)
		for i := range checks {
			checks[i].Prober = now.prober(i%7, 10*time.Second)
			if i%10 != 0 {
				checks[i].Gate = fmt.Sprint("gate", i%7)
			} else {
				checks[i].Prober = now.prober(-1, 10*time.Second)
			}
		}
		seen := make(map[string]int)
		Once(t.Context(), nil, checks, parallel, func(r probe.Result) { seen[r.Check.ID()]++ })
		if len(seen) != n {
			t.Errorf("recorded %d of %d checks", len(seen), n)
		}
		for id, k := range seen {
			if k != 1 {
				t.Errorf("%s recorded %d times", id, k)
			}
		}
		if now.most > parallel {
			t.Errorf("%d in flight, want at most %d", now.most, parallel)
		}
		for g, k := range now.mostOf {
			if g >= 0 && k > perGate {
				t.Errorf("%d in flight at gate %d, want at most %d", k, g, perGate)
			}
		}
	})
}

// TestOnceIsNoSlowerThanItsLongestGate holds with everything dropped: the gates
// with long queues start first, so that none is left over at the end.
func TestOnceIsNoSlowerThanItsLongestGate(t *testing.T) {
	for seed := range 10 {
		synctest.Test(t, func(t *testing.T) {
			checks := several(fmt.Sprint("m", seed), 160, takes(time.Hour))
			for i := range checks {
				checks[i].Gate = checks[i].Endpoint
				if i >= 152 {
					checks[i].Gate = "hub" // eight by two: four rounds
				}
			}
			began := time.Now()
			Once(t.Context(), nil, checks, 40, func(probe.Result) {})
			if took := time.Since(began); took != 40*time.Second {
				t.Errorf("took %v, want the 40s of 160 checks by 40 and of 8 checks by 2", took)
			}
		})
	}
}

// TestOnceOrder: everything is asked, those with most behind them at their gate
// first, and not twice in the same order.
func TestOnceOrder(t *testing.T) {
	checks := several("whatsapp", 100, nil)
	var order []int
	for i := range checks { // one at a time: no race
		checks[i].Gate = fmt.Sprint("gate", i%9)
		checks[i].Prober = asks(func(context.Context, probe.Net) []probe.Step {
			order = append(order, i)
			return worked
		})
	}
	start := func() []int {
		order = nil
		Once(t.Context(), nil, checks, 1, func(probe.Result) {})
		return order
	}
	first := start()
	if all := slices.Sorted(slices.Values(first)); len(slices.Compact(all)) != len(checks) {
		t.Errorf("%d of %d were asked", len(slices.Compact(all)), len(checks))
	}
	left := map[string]int{}
	for _, c := range checks {
		left[c.Gate]++
	}
	for at, i := range first {
		g := checks[i].Gate
		if most := slices.Max(slices.Collect(maps.Values(left))); left[g] != most {
			t.Fatalf("at %d: %s with %d waiting goes before one with %d", at, g, left[g], most)
		}
		left[g]--
	}
	if slices.Equal(first, start()) {
		t.Error("twice the same order")
	}
}

func TestOnceEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeoutCause(t.Context(), 15*time.Second, errors.New("enough"))
		defer cancel()
		began := time.Now()
		got := make(map[string]int)
		Once(ctx, nil, several("max", 30, takes(time.Hour)), 10, func(r probe.Result) {
			o, reason := r.Judge()
			got[fmt.Sprintf("%s %s", o, reason)]++
		})
		if took := time.Since(began); took != 15*time.Second {
			t.Errorf("took %v", took)
		}
		// Ten end by their own deadline, ten are cut off, ten never begin.
		if d := cmp.Diff(map[string]int{"fail ": 10, "void cancelled": 10}, got); d != "" {
			t.Error(d)
		}
	})
}

func TestOnceOfNothing(t *testing.T) {
	Once(t.Context(), nil, nil, 0, func(probe.Result) { t.Error("recorded") })
	silent := check("max", 1, asks(func(context.Context, probe.Net) []probe.Step { return nil }))
	Once(t.Context(), nil, []probe.Check{silent}, 0, func(probe.Result) { t.Error("recorded") })
}
