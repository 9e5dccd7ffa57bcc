package probe

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"

	"github.com/messenger-probe/messenger-probe/probe/probetest"
)

// resolvConfFile is a resolv.conf with these lines.
func resolvConfFile(t *testing.T, lines ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(path, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func serverAddrs(r *SystemResolver) (s []string) {
	for _, v := range r.Servers() {
		s = append(s, v.Name+" "+v.Transport+" "+v.Addr.String())
	}
	return s
}

func TestSystemResolverConf(t *testing.T) {
	local := []string{"system udp 127.0.0.1:53"}
	for _, tc := range []struct {
		lines    string
		servers  []string
		timeout  time.Duration
		attempts int
	}{
		{"nameserver 192.0.2.1", []string{"system udp 192.0.2.1:53"}, 5 * time.Second, 2},
		{
			"# comment\n; comment\nsearch example.org\nnameserver\t192.0.2.1 # ours\nnameserver fe80::1%eth0\noptions ndots:5 timeout:2 attempts:3 rotate",
			[]string{"system udp 192.0.2.1:53", "system udp [fe80::1%eth0]:53"}, 2 * time.Second, 3,
		},
		{"nameserver ::ffff:192.0.2.1", []string{"system udp 192.0.2.1:53"}, 5 * time.Second, 2},
		{
			"nameserver 192.0.2.1\nnameserver not-an-address\nnameserver 192.0.2.2\nnameserver 192.0.2.3\nnameserver 192.0.2.4",
			[]string{"system udp 192.0.2.1:53", "system udp 192.0.2.2:53", "system udp 192.0.2.3:53"}, 5 * time.Second, 2,
		},
		{"options timeout:0 attempts:0", local, time.Second, 1},
		{"options timeout:99999 attempts:99999", local, 30 * time.Second, 5},
		{"nameserver", local, 5 * time.Second, 2},
		{"", local, 5 * time.Second, 2},
		{strings.Repeat("x", 200_000), local, 5 * time.Second, 2},
	} {
		r := NewSystemResolver(resolvConfFile(t, tc.lines))
		if got := serverAddrs(r); !slices.Equal(got, tc.servers) {
			t.Errorf("%.80q: servers %v, want %v", tc.lines, got, tc.servers)
		}
		if c := r.config(); c.timeout != tc.timeout || c.attempts != tc.attempts {
			t.Errorf("%.80q: timeout %v, attempts %d", tc.lines, c.timeout, c.attempts)
		}
	}
	if got := serverAddrs(NewSystemResolver(filepath.Join(t.TempDir(), "none"))); !slices.Equal(got, local) {
		t.Errorf("no file: servers %v", got)
	}
}

func TestSystemResolverFollowsFile(t *testing.T) {
	path := resolvConfFile(t, "nameserver 192.0.2.1")
	r := NewSystemResolver(path)
	if got := serverAddrs(r); got[0] != "system udp 192.0.2.1:53" {
		t.Fatal(got)
	}
	if err := os.WriteFile(path, []byte("nameserver 192.0.2.2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	// A change within the clock's granularity would need another size.
	os.Chtimes(path, time.Time{}, time.Now().Add(time.Minute))
	if got := serverAddrs(r); got[0] != "system udp 192.0.2.2:53" {
		t.Errorf("after a change: %v", got)
	}
	os.Remove(path)
	if got := serverAddrs(r); got[0] != "system udp 127.0.0.1:53" {
		t.Errorf("after its removal: %v", got)
	}
}

// A real resolver, over UDP and, after truncation, TCP.
func TestSystemResolverLookup(t *testing.T) {
	srv := probetest.NewDNS(t, nil)
	many := make([]string, 20)
	for i := range many {
		many[i] = fmt.Sprintf("157.240.1.%d", 100-i)
	}
	srv.On("many.test", probetest.DNSAnswer(slices.Concat(many, many)...).Truncated())
	srv.On("two.test", probetest.DNSAnswer(real2, real1, real2, real6))
	srv.On("gone.test", probetest.DNSForgedNXDOMAIN())
	srv.On("stub.test", probetest.DNSAnswer("127.0.0.1"))
	at := netip.MustParseAddrPort("192.0.2.1:53")
	n := probetest.Redirect{at: srv.Addr}
	path := resolvConfFile(t, "nameserver 192.0.2.1")
	for _, tc := range []struct {
		host, family, transport string
		bogons                  bool
		failure                 Failure
		answers                 []string
	}{
		{"many.test", IP4, OverTCP, false, "", []string{"157.240.1.81", "157.240.1.82", "157.240.1.83", "157.240.1.84",
			"157.240.1.85", "157.240.1.86", "157.240.1.87", "157.240.1.88"}},
		{"Two.test.", IP4, OverUDP, false, "", []string{real1, real2}},
		{"two.test", IP6, OverUDP, false, "", []string{real6}},
		{"gone.test", IP4, OverUDP, false, FailureDNSNXDOMAIN, nil},
		{"stub.test", IP4, OverUDP, false, FailureDNSBogon, []string{"127.0.0.1"}},
		{"stub.test", IP4, OverUDP, true, "", []string{"127.0.0.1"}},
		{"stub.test", IP6, OverUDP, false, FailureDNSNoAnswer, nil},
	} {
		r := NewSystemResolver(path)
		r.AllowBogons = tc.bogons
		s := r.Lookup(within(t, 5*time.Second), n, tc.host, tc.family)
		if s.Op != OpResolve || s.Addr != at || s.Failure != tc.failure || !slices.Equal(texts(s.DNS.Answers), tc.answers) ||
			s.DNS.Resolver != "system" || s.DNS.Transport != tc.transport || s.DNS.Cached {
			t.Errorf("%s %s: %+v (%v) with %+v", tc.host, tc.family, s, s.Err, s.DNS)
		}
		if len(s.DNS.Replies) != 1 || s.DNS.Replies[0].From != at {
			t.Errorf("%s %s: replies %+v", tc.host, tc.family, s.DNS.Replies)
		}
	}
}

// Slots of a name ask its addresses in turn; the failure is slot 0's to tell.
func TestByNameWithSystemResolver(t *testing.T) {
	srv := probetest.NewDNS(t, nil)
	srv.On("two.test", probetest.DNSAnswer("192.0.2.8", "192.0.2.7"))
	srv.On("gone.test", probetest.DNSForgedNXDOMAIN())
	n := probetest.Redirect{netip.MustParseAddrPort("192.0.2.1:53"): srv.Addr}
	for _, a := range []string{"192.0.2.7:443", "192.0.2.8:443"} {
		n[netip.MustParseAddrPort(a)] = probetest.ServeTCP(t, probetest.Stall)
	}
	r := NewSystemResolver(resolvConfFile(t, "nameserver 192.0.2.1"))
	r.AllowBogons = true
	by := ByName{Host: "two.test", Port: 443, Family: IP4, Names: r, Ask: TCP{}}
	for slot, want := range []string{"192.0.2.7:443", "192.0.2.8:443"} {
		by.Slot = slot
		steps := by.Probe(within(t, 5*time.Second), n)
		if !slices.Equal(ops(steps), []Op{OpResolve, OpConnect}) || steps[1].Addr.String() != want || steps[1].Failure != "" {
			t.Errorf("slot %d: %+v", slot, steps)
		}
		if steps[0].DNS.Cached != (slot > 0) {
			t.Errorf("slot %d: cached %v", slot, steps[0].DNS.Cached)
		}
	}
	by.Slot = 2
	if steps := by.Probe(within(t, 5*time.Second), n); steps != nil {
		t.Errorf("a slot without address: %+v", steps)
	}
	by.Host, by.Slot = "gone.test", 0
	if steps := by.Probe(within(t, 5*time.Second), n); len(steps) != 1 || steps[0].Failure != FailureDNSNXDOMAIN {
		t.Errorf("a name that is gone: %+v", steps)
	}
	if srv.Asked("two.test", "udp") != 1 {
		t.Errorf("asked %d times", srv.Asked("two.test", "udp"))
	}
}

// What the C library does with several servers, in the time there is.
func TestSystemResolverServers(t *testing.T) {
	const ms = time.Millisecond
	silent := func(*dns.Msg, *dnsSocket) {}
	answer := func(q *dns.Msg, c *dnsSocket) { c.deliver(40*ms, gives(q, real1)) }
	code := func(rcode int) func(*dns.Msg, *dnsSocket) {
		return func(q *dns.Msg, c *dnsSocket) { c.deliver(40*ms, new(dns.Msg).SetRcode(q, rcode)) }
	}
	old := func(q *dns.Msg, c *dnsSocket) {
		if q.IsEdns0() == nil {
			answer(q, c)
		} else {
			code(1)(q, c)
		}
	}
	for _, tc := range []struct {
		name    string
		servers []func(q *dns.Msg, c *dnsSocket)
		options string
		failure Failure
		from    int // which server's answer it is
		took    time.Duration
		asked   []int
	}{
		{"one", []func(*dns.Msg, *dnsSocket){answer}, "", "", 0, 40 * ms, []int{1}},
		{"the second is not asked", []func(*dns.Msg, *dnsSocket){answer, answer}, "", "", 0, 40 * ms, []int{1, 0}},
		{"no is an answer", []func(*dns.Msg, *dnsSocket){code(3), answer}, "", FailureDNSNXDOMAIN, 0, 40 * ms, []int{1, 0}},
		{"nothing of this type is an answer", []func(*dns.Msg, *dnsSocket){code(0), answer}, "", FailureDNSNoAnswer, 0, 40 * ms, []int{1, 0}},
		{"the second, after a failure", []func(*dns.Msg, *dnsSocket){code(2), answer}, "", "", 1, 80 * ms, []int{1, 1}},
		{"the third, after refusals", []func(*dns.Msg, *dnsSocket){code(5), code(5), answer}, "", "", 2, 120 * ms, []int{1, 1, 1}},
		// Half of 10 s for the lookup, half of that for the first of two.
		{"the second, after silence", []func(*dns.Msg, *dnsSocket){silent, answer}, "", "", 1, 2540 * ms, []int{2, 1}},
		{"the third, after silence", []func(*dns.Msg, *dnsSocket){silent, silent, answer}, "", "", 2, 3373 * ms, []int{1, 1, 1}},
		{"silence", []func(*dns.Msg, *dnsSocket){silent}, "", FailureTimeout, 0, 5 * time.Second, []int{2}},
		{"silence everywhere", []func(*dns.Msg, *dnsSocket){silent, silent}, "", FailureTimeout, 1, 5 * time.Second, []int{2, 2}},
		{"short tries, twice", []func(*dns.Msg, *dnsSocket){silent, silent}, "options timeout:1", FailureTimeout, 1, 4 * time.Second, []int{2, 2}},
		{"a failure is worth more than silence", []func(*dns.Msg, *dnsSocket){code(2), silent}, "", FailureDNSServfail, 0, 5 * time.Second, []int{1, 2}},
		{"one that knows no EDNS", []func(*dns.Msg, *dnsSocket){old}, "", "", 0, 80 * ms, []int{2}},
		{"failures, twice each", []func(*dns.Msg, *dnsSocket){code(2), code(5)}, "", FailureDNSServfail, 0, 160 * ms, []int{2, 2}},
		{"failures, once each", []func(*dns.Msg, *dnsSocket){code(2), code(5)}, "options attempts:1", FailureDNSServfail, 0, 80 * ms, []int{1, 1}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			lines := []string{tc.options}
			for i := range tc.servers {
				lines = append(lines, fmt.Sprintf("nameserver 192.0.2.%d", i))
			}
			path := resolvConfFile(t, lines...)
			synctest.Test(t, func(t *testing.T) {
				asked := make([]int, len(tc.servers))
				n := scripted{func(q *dns.Msg, _ int, c *dnsSocket) {
					i := c.writeTo.Addr().As4()[3]
					asked[i]++
					tc.servers[i](q, c)
				}}
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				s := NewSystemResolver(path).Lookup(ctx, n, "a.test", IP4)
				if s.Failure != tc.failure || s.Addr.Addr().As4()[3] != byte(tc.from) || !slices.Equal(asked, tc.asked) {
					t.Errorf("failure %q (%v) from %v, asked %v; want %q from %d, asked %v",
						s.Failure, s.Err, s.Addr, asked, tc.failure, tc.from, tc.asked)
				}
				if s.Took.Round(ms) != tc.took {
					t.Errorf("took %v, want %v", s.Took, tc.took)
				}
			})
		})
	}
}

// counting is a Net whose resolver answers with m after d, and how often it was
// asked.
func counting(d time.Duration, reply func(q *dns.Msg) *dns.Msg) (Net, *atomic.Int64) {
	var asked atomic.Int64
	return scripted{func(q *dns.Msg, _ int, c *dnsSocket) {
		asked.Add(1)
		if reply != nil {
			c.deliver(d, reply(q))
		}
	}}, &asked
}

func TestSystemResolverShares(t *testing.T) {
	path := resolvConfFile(t, "nameserver 192.0.2.1")
	good := func(q *dns.Msg) *dns.Msg { return gives(q, real1) }
	for _, tc := range []struct {
		name  string
		reply func(q *dns.Msg) *dns.Msg
		ttl   time.Duration // the resolver's
		fresh time.Duration // how long it is shared
	}{
		{"an answer", good, 0, 20 * time.Second},
		{"an answer, shorter", good, 5 * time.Second, 5 * time.Second},
		{"a failure", func(q *dns.Msg) *dns.Msg { return new(dns.Msg).SetRcode(q, dns.RcodeNameError) }, 0, 3 * time.Second},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n, asked := counting(40*time.Millisecond, tc.reply)
				r := NewSystemResolver(path)
				r.TTL = tc.ttl
				first := r.Lookup(t.Context(), n, "a.test", IP4)
				time.Sleep(tc.fresh - time.Millisecond)
				second := r.Lookup(t.Context(), n, "A.test.", IP4)
				if first.DNS.Cached || !second.DNS.Cached || asked.Load() != 1 {
					t.Errorf("asked %d times", asked.Load())
				}
				if second.Failure != first.Failure || !slices.Equal(second.DNS.Answers, first.DNS.Answers) || second.Took != 0 || second.Start == first.Start {
					t.Errorf("first %+v, second %+v", first, second)
				}
				r.Lookup(t.Context(), n, "a.test", IP6)
				r.Lookup(t.Context(), n, "b.test", IP4)
				if asked.Load() != 3 {
					t.Errorf("other questions were not asked: %d", asked.Load())
				}
				time.Sleep(time.Millisecond)
				if s := r.Lookup(t.Context(), n, "a.test", IP4); s.DNS.Cached || asked.Load() != 4 {
					t.Error("stale")
				}
			})
		})
	}
}

func TestSystemResolverAsksOnce(t *testing.T) {
	path := resolvConfFile(t, "nameserver 192.0.2.1")
	synctest.Test(t, func(t *testing.T) {
		n, asked := counting(400*time.Millisecond, func(q *dns.Msg) *dns.Msg { return gives(q, real1) })
		r := NewSystemResolver(path)
		var wg sync.WaitGroup
		var cached atomic.Int64
		for i := range 20 {
			wg.Go(func() {
				time.Sleep(time.Duration(i) * time.Millisecond)
				s := r.Lookup(t.Context(), n, "a.test", IP4)
				if s.Failure != "" || len(s.DNS.Answers) != 1 || s.Took != time.Duration(400-i)*time.Millisecond {
					t.Errorf("caller %d: %+v", i, s)
				}
				if s.DNS.Cached {
					cached.Add(1)
				}
			})
		}
		wg.Wait()
		if asked.Load() != 1 || cached.Load() != 19 {
			t.Errorf("asked %d times, %d shared", asked.Load(), cached.Load())
		}
	})
}

// Whoever asks for all may give up, and the others do not notice.
func TestSystemResolverCallersAreIndependent(t *testing.T) {
	path := resolvConfFile(t, "nameserver 192.0.2.1")
	good := func(q *dns.Msg) *dns.Msg { return gives(q, real1) }
	lookup := func(t *testing.T, r *SystemResolver, n Net, after, timeout, cancel time.Duration) func() Step {
		var s Step
		done := make(chan struct{})
		go func() {
			defer close(done)
			time.Sleep(after)
			ctx, stop := context.WithTimeout(t.Context(), timeout)
			defer stop()
			if cancel > 0 {
				time.AfterFunc(cancel, stop)
			}
			s = r.Lookup(ctx, n, "a.test", IP4)
		}()
		return func() Step { <-done; return s }
	}
	const ms = time.Millisecond
	t.Run("the first is cancelled", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			n, asked := counting(400*ms, good)
			r := NewSystemResolver(path)
			first := lookup(t, r, n, 0, 10*time.Second, 100*ms)
			second := lookup(t, r, n, 10*ms, 10*time.Second, 0)
			third := lookup(t, r, n, 20*ms, 10*time.Second, 0)
			if s := first(); s.Failure != FailureInterrupted || s.Took != 100*ms {
				t.Errorf("first %+v", s)
			}
			for _, s := range []Step{second(), third()} {
				if s.Failure != "" || len(s.DNS.Answers) != 1 || s.Took > 490*ms {
					t.Errorf("other %+v", s)
				}
			}
			if asked.Load() != 2 {
				t.Errorf("asked %d times", asked.Load())
			}
		})
	})
	t.Run("one who waits is cancelled", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			n, asked := counting(400*ms, good)
			r := NewSystemResolver(path)
			first := lookup(t, r, n, 0, 10*time.Second, 0)
			second := lookup(t, r, n, 10*ms, 10*time.Second, 100*ms)
			third := lookup(t, r, n, 10*ms, 200*ms, 0)
			if s := second(); s.Failure != FailureInterrupted || s.Took != 100*ms || s.DNS == nil {
				t.Errorf("second %+v", s)
			}
			if s := third(); s.Failure != FailureTimeout || s.Took != 200*ms {
				t.Errorf("third %+v", s)
			}
			if s := first(); s.Failure != "" || asked.Load() != 1 {
				t.Errorf("first %+v, asked %d times", s, asked.Load())
			}
		})
	})
	t.Run("the first has little time", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			n, _ := counting(400*ms, good)
			r := NewSystemResolver(path)
			first := lookup(t, r, n, 0, 100*ms, 0)
			second := lookup(t, r, n, 10*ms, 10*time.Second, 0)
			if s := first(); s.Failure != FailureTimeout || s.Took != 50*ms {
				t.Errorf("first %+v", s)
			}
			if s := second(); s.Failure != "" || s.Took != 400*ms {
				t.Errorf("second %+v", s)
			}
		})
	})
	t.Run("silence is found once for all", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			n, asked := counting(0, nil)
			r := NewSystemResolver(path)
			start := time.Now()
			var all []func() Step
			for i := range 5 {
				all = append(all, lookup(t, r, n, time.Duration(i)*ms, 10*time.Second, 0))
			}
			all = append(all, lookup(t, r, n, 7*time.Second, 10*time.Second, 0))
			for _, wait := range all {
				if s := wait(); s.Failure != FailureTimeout {
					t.Errorf("%+v", s)
				}
			}
			if asked.Load() != 2 || time.Since(start) != 7*time.Second {
				t.Errorf("asked %d times in %v", asked.Load(), time.Since(start))
			}
		})
	})
	t.Run("the first panics", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			n, _ := counting(400*ms, good)
			bad := scripted{func(*dns.Msg, int, *dnsSocket) { time.Sleep(100 * ms); panic("a defect") }}
			r := NewSystemResolver(path)
			done := make(chan any)
			go func() {
				defer func() { done <- recover() }()
				r.Lookup(t.Context(), bad, "a.test", IP4)
			}()
			second := lookup(t, r, n, 10*ms, 10*time.Second, 0)
			if <-done == nil {
				t.Error("no panic")
			}
			if s := second(); s.Failure != "" || s.Took != 400*ms {
				t.Errorf("second %+v", s)
			}
		})
	})
}

func TestSystemResolverIsBounded(t *testing.T) {
	path := resolvConfFile(t, "nameserver 192.0.2.1")
	synctest.Test(t, func(t *testing.T) {
		n, asked := counting(0, func(q *dns.Msg) *dns.Msg { return gives(q, real1) })
		r := NewSystemResolver(path)
		for i := range maxLookups + 100 {
			if s := r.Lookup(t.Context(), n, fmt.Sprintf("n%d.test", i), IP4); s.Failure != "" {
				t.Fatal(s.Err)
			}
			if len(r.lookups) > maxLookups {
				t.Fatalf("%d names in memory", len(r.lookups))
			}
		}
		if asked.Load() != maxLookups+100 || len(r.lookups) != maxLookups {
			t.Errorf("asked %d times, %d names in memory", asked.Load(), len(r.lookups))
		}
		time.Sleep(time.Minute)
		r.Lookup(t.Context(), n, "new.test", IP4)
		if len(r.lookups) != 1 {
			t.Errorf("%d names in memory after all expired", len(r.lookups))
		}
	})
}
