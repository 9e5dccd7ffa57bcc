package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/messenger-probe/messenger-probe/probe"
	"github.com/messenger-probe/messenger-probe/probe/verdict"
	"github.com/messenger-probe/messenger-probe/targets"
)

// checkOnce runs a one-shot check in simulated time.
func checkOnce(t *testing.T, checks func(*world) []probe.Check, prepare func(*world), look func(*world, Snapshot, time.Duration)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		cs := checks(w)
		prepare(w)
		began := time.Now()
		last := 0
		s, err := New(Options{Net: nowhere{}, Log: slog.New(slog.DiscardHandler)}).Check(t.Context(), cs, func(done, of int, _ probe.Result) {
			if done != 1 && done != last+1 || done > of {
				t.Errorf("progress: %d of %d after %d", done, of, last)
			}
			last = done
		})
		if err != nil {
			t.Fatal(err)
		}
		coherent(t, s)
		look(w, s, time.Since(began))
	})
}

func stateOf(s Snapshot, messenger, function string) verdict.State {
	for _, v := range s.Verdicts {
		if v.Messenger == messenger && v.Function == function {
			return v.State
		}
	}
	return ""
}

// The controls are asked first; where all is well, that and one round is all.
func TestCheck(t *testing.T) {
	checkOnce(t, everything, func(*world) {}, func(w *world, s Snapshot, took time.Duration) {
		if len(w.asked) != len(s.Results) || len(s.Results) != 60 {
			t.Errorf("%d runs, %d results", len(w.asked), len(s.Results))
		}
		for i, v := range w.asked {
			if sentinel := strings.HasPrefix(v.host, probe.Control); i < 10 && !sentinel {
				t.Errorf("run %d is of %s", i, v.host)
			}
		}
		for _, v := range s.Verdicts {
			if v.State != verdict.OK || !v.Since.IsZero() {
				t.Errorf("%+v", v)
			}
		}
		if len(s.Verdicts) != 4 || s.Vantage.State != verdict.Online || took > time.Second {
			t.Errorf("%d verdicts, the vantage is %s, after %v", len(s.Verdicts), s.Vantage.State, took)
		}
	})
}

// From where nothing, or nothing abroad, answers no messenger is asked.
func TestCheckFromNowhere(t *testing.T) {
	for state, who := range map[verdict.VantageState]string{verdict.Offline: "", verdict.Whitelist: probe.Foreign} {
		checkOnce(t, everything, func(w *world) { w.set(who, probe.FailureTimeout) }, func(w *world, s Snapshot, took time.Duration) {
			if s.Vantage.State != state || len(s.Verdicts) != 4 {
				t.Errorf("the vantage is %s, %d verdicts", s.Vantage.State, len(s.Verdicts))
			}
			if n := len(w.asked); n != 10 || took > onceTimeout+time.Second {
				t.Errorf("%s: %d runs in %v", state, n, took)
			}
		})
	}
}

// A line that dies after the controls have answered is not held against anybody.
func TestCheckLineDies(t *testing.T) {
	for _, f := range []probe.Failure{probe.FailureTimeout, probe.FailureNetworkUnreachable} {
		checkOnce(t, everything, func(w *world) {
			go func() {
				time.Sleep(w.rtt + w.rtt/2) // between the controls and all others
				w.set("", f)
			}()
		}, func(w *world, s Snapshot, took time.Duration) {
			if w.runs("alpha", time.Time{}) == 0 {
				t.Error("alpha was not asked: the test's line dies too soon")
			}
			if s.Vantage.State == verdict.Online {
				t.Errorf("%s: the vantage is online", f)
			}
			for _, r := range s.Results {
				if r.Check.Messenger != probe.Control && r.Outcome() == probe.Fail {
					t.Fatalf("%s: %s counts", f, r.Check.ID())
				}
			}
		})
	}
}

// What fails is asked again, two of a kind; one lost packet is no finding.
func TestCheckAgain(t *testing.T) {
	lost := func(w *world, c probe.Check) probe.Check {
		well, n := c.Prober, 0
		c.Prober = asks(func(ctx context.Context, net probe.Net) []probe.Step {
			if n++; n == 1 {
				return []probe.Step{{Op: probe.OpTLSHandshake, Failure: probe.FailureTimeout}}
			}
			return well.Probe(ctx, net)
		})
		return c
	}
	checkOnce(t, func(w *world) []probe.Check {
		cs := everything(w)
		cs[30] = lost(w, cs[30]) // beta media 0
		for i := range 5 {       // five checks of one endpoint
			c := w.check("alpha", "media", "alpha-media0")
			c.Target = fmt.Sprint(i)
			cs = append(cs, c)
		}
		return cs
	}, func(w *world) {
		for i := range 10 {
			w.set(fmt.Sprintf("alpha-chat%d", i), probe.FailureConnectionReset)
		}
		w.set("alpha-media0", probe.FailureConnectionReset)
	}, func(w *world, s Snapshot, took time.Duration) {
		if n := w.runs("alpha/chat/alpha-chat0", time.Time{}); n != 2 {
			t.Errorf("%d runs of what fails", n)
		}
		if n := w.runs("alpha/media/alpha-media0", time.Time{}); n != 6+2 {
			t.Errorf("%d runs of six checks that fail alike", n)
		}
		if n := w.runs("beta/chat", time.Time{}); n != 10 {
			t.Errorf("%d runs of what works", n)
		}
		want := map[string]verdict.State{"alpha chat": verdict.Unreachable, "alpha media": verdict.Degraded, "beta chat": verdict.OK, "beta media": verdict.OK}
		for k, state := range want {
			m, f, _ := strings.Cut(k, " ")
			if got := stateOf(s, m, f); got != state {
				t.Errorf("%s is %s, want %s", k, got, state)
			}
		}
	})
}

func TestCheckCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.set("alpha", probe.FailureTimeout)
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		began := time.Now()
		_, err := New(Options{Net: nowhere{}, Log: slog.New(slog.DiscardHandler)}).Check(ctx, everything(w), nil)
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(began) > 4*time.Second {
			t.Errorf("%v after %v", err, time.Since(began))
		}
	})
}

// A host that says nothing is not asked in all the ways there are; one that
// answers is.
func TestHush(t *testing.T) {
	for _, tt := range []struct {
		answers int // the first runs that do
		by      probe.Failure
		runs    int
	}{{0, probe.FailureTimeout, enough}, {0, probe.FailureConnectionReset, 8}, {1, probe.FailureTimeout, 8}} {
		h, n := newHush(), 0
		for i := range 8 {
			c := probe.Check{Protocol: probe.ProtoTLS, Family: probe.IP4, Gate: "host", Target: fmt.Sprint(i),
				Prober: asks(func(context.Context, probe.Net) []probe.Step {
					n++
					s := probe.Step{Op: probe.OpConnect}
					if n > tt.answers {
						s.Failure = tt.by
					}
					return []probe.Step{s}
				})}
			h.wrap(c).Probe(t.Context(), nil)
		}
		other := probe.Check{Protocol: probe.ProtoTLS, Family: probe.IP6, Gate: "host", Prober: asks(func(context.Context, probe.Net) []probe.Step { return worked })}
		if n != tt.runs || len(h.wrap(other).Probe(t.Context(), nil)) != 1 {
			t.Errorf("%s after %d answers: %d runs, want %d", tt.by, tt.answers, n, tt.runs)
		}
	}
	// What does not open is not knocked at in another language; what opens is.
	for op, want := range map[probe.Op]int{probe.OpConnect: enough, probe.OpReply: 6} {
		h, n := newHush(), 0
		for _, proto := range []string{probe.ProtoTCP, probe.ProtoTLS, probe.ProtoMTProto, probe.ProtoNoise, probe.ProtoHTTP, probe.ProtoSTUN} {
			c := probe.Check{Protocol: proto, Family: probe.IP4, Gate: "192.0.2.1|", Target: "192.0.2.1:443," + proto,
				Prober: asks(func(context.Context, probe.Net) []probe.Step {
					n++
					return []probe.Step{{Op: op, Failure: probe.FailureTimeout}}
				})}
			h.wrap(c).Probe(t.Context(), nil)
		}
		if n != want {
			t.Errorf("silence at %s: %d runs, want %d", op, n, want)
		}
	}
	// The system's resolver is asked for every name; another one only while it
	// says anything.
	system := probe.DNS{Host: "x", Server: probe.Server{Name: probe.System}}
	if p := newHush().wrap(probe.Check{Prober: system}); p != probe.Prober(system) {
		t.Errorf("a lookup is wrapped: %v", p)
	}
	if _, ok := newHush().wrap(probe.Check{Prober: probe.DNS{Host: "x", Server: probe.Server{Name: "quad9"}}}).(hushed); !ok {
		t.Error("a lookup at a foreign resolver is not wrapped")
	}
	for target, want := range map[string]string{"443": "443", "443#2,x25519": "443", "192.0.2.1:80,padded": "80", "[2001:db8::1]:5222": "5222"} {
		if got := port(target); got != want {
			t.Errorf("the port of %s is %s", target, got)
		}
	}
}

var worked = []probe.Step{{Op: probe.OpConnect}}

// blackhole is a network on which nothing comes back.
type blackhole struct{}

func (blackhole) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	if strings.HasPrefix(network, "tcp") {
		<-ctx.Done()
		return nil, &net.OpError{Op: "dial", Net: network, Err: ctx.Err()}
	}
	return newSilence(), nil
}

func (blackhole) ListenPacket(context.Context, string, string) (net.PacketConn, error) {
	return newSilence(), nil
}

// silence is a UDP socket that hears nothing. The pipe is for its deadlines.
type silence struct{ net.Conn }

func newSilence() silence {
	here, _ := net.Pipe()
	return silence{here}
}

func (s silence) Write(b []byte) (int, error)               { return len(b), nil }
func (s silence) WriteTo(b []byte, _ net.Addr) (int, error) { return len(b), nil }
func (s silence) ReadFrom(b []byte) (int, net.Addr, error) {
	n, err := s.Conn.Read(b)
	return n, nil, err
}
func (s silence) LocalAddr() net.Addr  { return &net.UDPAddr{IP: net.IPv4(192, 0, 2, 200), Port: 4000} }
func (s silence) RemoteAddr() net.Addr { return &net.UDPAddr{IP: net.IPv4(192, 0, 2, 201), Port: 53} }

// known is a resolver that gives every name four addresses.
type known struct{}

func (known) Lookup(_ context.Context, _ probe.Net, host, family string) probe.Step {
	s := probe.Step{Op: probe.OpResolve, Start: time.Now(), DNS: &probe.DNSInfo{Name: host, Resolver: probe.System}}
	for i := range 4 {
		a := netip.AddrFrom4([4]byte{192, 0, 2, byte(len(host)*4 + i)})
		if family == probe.IP6 {
			a = netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 15: byte(len(host)*4 + i)})
		}
		s.DNS.Answers = append(s.DNS.Answers, a)
	}
	return s
}

// catalogue is what is measured by default, with all the probers that it has.
func catalogue(t testing.TB, names probe.Lookup) []probe.Check {
	cat, err := targets.Load("")
	if err != nil {
		t.Fatal(err)
	}
	checks, err := cat.Checks(targets.Vantage{Messengers: []string{"whatsapp", "telegram", "max"}, Families: []string{probe.IP4, probe.IP6},
		Interval: time.Minute, Timeout: 10 * time.Second, Resolver: names,
		SystemServers: []probe.Server{{Name: probe.System, Transport: probe.OverUDP, Addr: netip.MustParseAddrPort("192.0.2.53:53")}}})
	if err != nil {
		t.Fatal(err)
	}
	return checks
}

// Where every packet is dropped but the controls', a person does not wait for
// longer than 45 seconds.
func TestCheckOfSilence(t *testing.T) {
	resolv := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(resolv, []byte("nameserver 192.0.2.53\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	system := probe.NewSystemResolver(resolv)
	for _, tt := range []struct {
		name  string
		names probe.Lookup
	}{{"names resolve", known{}}, {"names do not", system}} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				checks := catalogue(t, tt.names)
				for i, c := range checks {
					if c.Messenger == probe.Control {
						checks[i].Prober = w.prober("control/" + c.Function + "/" + c.Endpoint)
					}
				}
				began := time.Now()
				s, err := New(Options{Net: blackhole{}, Log: slog.New(slog.DiscardHandler)}).Check(t.Context(), checks, nil)
				if err != nil {
					t.Fatal(err)
				}
				coherent(t, s)
				took := time.Since(began)
				t.Logf("%d checks, %d results, %v", len(checks), len(s.Results), took)
				if took > 45*time.Second {
					t.Errorf("took %v", took)
				}
				if s.Vantage.State != verdict.Online {
					t.Errorf("the vantage is %s: %v", s.Vantage.State, s.Vantage.Evidence)
				}
				for _, v := range s.Verdicts {
					if v.State == verdict.OK {
						t.Errorf("%+v", v)
					}
				}
			})
		})
	}
}

// A host that is slow to end each of many connections does not make a person wait
// either; what was not asked in time is not held against it.
func TestCheckOfASlowHost(t *testing.T) {
	slow := asks(func(ctx context.Context, _ probe.Net) []probe.Step {
		s := probe.Step{Op: probe.OpTLSHandshake, Start: time.Now(), Failure: probe.FailureEOF}
		select {
		case <-time.After(3 * time.Second):
		case <-ctx.Done():
			s.Failure = probe.Classify(ctx.Err())
		}
		return []probe.Step{s}
	})
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		checks := w.controls()
		for i := range 60 {
			c := w.check("alpha", "chat", fmt.Sprintf("host%d", i))
			c.Gate, c.Prober = "hub", slow
			checks = append(checks, c)
		}
		began := time.Now()
		s, err := New(Options{Net: nowhere{}, Log: slog.New(slog.DiscardHandler)}).Check(t.Context(), checks, nil)
		if err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took > 45*time.Second || took < 30*time.Second {
			t.Errorf("took %v", took)
		}
		n := 0
		for _, r := range s.Results {
			if r.Check.Messenger == "alpha" && r.Outcome() == probe.Fail {
				n++
			}
			if f := r.Failed(); f != nil && f.Failure != probe.FailureEOF && r.Outcome() != probe.Void {
				t.Errorf("%s is %s by %s", r.Check.ID(), r.Outcome(), f.Failure)
			}
		}
		if n == 0 || n == 60 || stateOf(s, "alpha", "chat") != verdict.Unreachable {
			t.Errorf("%d failures, alpha is %s", n, stateOf(s, "alpha", "chat"))
		}
	})
}

// What failed once like another that is asked again for both, and then works, is
// asked again, too: else nothing would be known of it.
func TestCheckUnsettled(t *testing.T) {
	checkOnce(t, func(w *world) []probe.Check {
		cs := everything(w)
		for i := range 2 {
			c := w.check("gamma", "bots", "host")
			c.Target = fmt.Sprint(i)
			well, n := c.Prober, 0
			c.Prober = asks(func(ctx context.Context, net probe.Net) []probe.Step {
				if n++; n == 1 {
					return []probe.Step{{Op: probe.OpTLSHandshake, Failure: probe.FailureTimeout}}
				}
				return well.Probe(ctx, net)
			})
			cs = append(cs, c)
		}
		return cs
	}, func(*world) {}, func(w *world, s Snapshot, _ time.Duration) {
		if n := w.runs("gamma/bots", time.Time{}); n != 2 {
			t.Errorf("%d of two checks were asked again", n)
		}
		if got := stateOf(s, "gamma", "bots"); got != verdict.OK {
			t.Errorf("bots are %s", got)
		}
	})
}
