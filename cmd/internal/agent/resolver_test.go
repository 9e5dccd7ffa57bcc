package agent

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"

	"github.com/messenger-probe/messenger-probe/probe"
	"github.com/messenger-probe/messenger-probe/probe/verdict"
)

// resolvers is a network on which a resolver answers over TCP at every address.
type resolvers struct {
	probe.Net
	running sync.WaitGroup
}

func (r *resolvers) DialContext(context.Context, string, string) (net.Conn, error) {
	here, there := net.Pipe()
	r.running.Go(func() {
		defer there.Close()
		c := dns.Conn{Conn: there}
		for {
			m, err := c.ReadMsg()
			if err != nil {
				return
			}
			answer := new(dns.Msg).SetReply(m)
			answer.Answer = append(answer.Answer, &dns.A{Hdr: dns.RR_Header{Name: m.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 60}, A: net.IPv4(1, 1, 1, 1)})
			if c.WriteMsg(answer) != nil {
				return
			}
		}
	})
	return here, nil
}

// Where names do not resolve and what needs none answers, the line is alive and
// the resolver dead: the vantage is impaired, not offline.
func TestDeadResolver(t *testing.T) {
	checks := func(w *world) []probe.Check {
		cs := everything(w)
		for i, role := range []string{probe.Domestic, probe.Foreign} {
			c := w.check(probe.Control, role, "dns-"+role)
			c.Protocol, c.Target, c.Interval = probe.ProtoDNS, "tcp", 5*time.Minute
			c.Prober = probe.DNS{Host: "example.com", Type: dns.TypeA, Server: probe.Server{Name: role, Transport: probe.OverTCP,
				Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{8, 8, 8, byte(i)}), 53)}}
			cs = append(cs, c)
		}
		return cs
	}
	t.Run("run", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w, d, line := newWorld(), newDiary(t), &resolvers{}
			a := start(t, w, d, checks(w), time.Minute, Options{Net: line})
			a.pass(6 * time.Minute)
			if s := a.state("alpha", "chat"); s != verdict.OK {
				t.Fatalf("before, alpha is %s", s)
			}
			began := time.Now()
			w.set("", probe.FailureDNSServfail)
			a.pass(8 * time.Minute)
			states, first := a.vantages(began)
			if len(states) != 2 || states[1] != verdict.Impaired || first.Sub(began) > 2*time.Minute {
				t.Errorf("the vantage was %v, first after %v", states, first.Sub(began))
			}
			if fs := failures(a.told("alpha", began)); len(fs) > 0 {
				t.Errorf("%d failures of alpha were counted", len(fs))
			}
			ended := time.Now()
			w.set("", "")
			a.pass(8 * time.Minute)
			if states, _ := a.vantages(ended); len(states) != 2 || states[1] != verdict.Online {
				t.Errorf("afterwards the vantage was %v", states)
			}
			a.stop()
			line.running.Wait()
		})
	})
	t.Run("check", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w, line := newWorld(), &resolvers{}
			w.set("", probe.FailureDNSServfail)
			a := New(Options{Net: line, Log: slog.New(slog.DiscardHandler)})
			s, err := a.Check(t.Context(), checks(w), nil)
			if err != nil || s.Vantage.State != verdict.Impaired {
				t.Errorf("the vantage is %s, %v: %q", s.Vantage.State, err, s.Vantage.Evidence)
			}
			for _, v := range s.Verdicts {
				if v.State != verdict.Unknown {
					t.Errorf("%s/%s is %s", v.Messenger, v.Function, v.State)
				}
			}
			line.running.Wait()
		})
	})
}
