package agent

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/messenger-probe/messenger-probe/probe"
	"github.com/messenger-probe/messenger-probe/probe/probetest"
	"github.com/messenger-probe/messenger-probe/probe/verdict"
)

// A filter is a network with TLS servers everywhere, on which ClientHellos with
// a forbidden name vanish.
type filter struct {
	probe.Net
	server *tls.Config

	mu        sync.Mutex
	forbidden string
	hellos    []hello
	running   sync.WaitGroup
}

// hello is what somebody asked.
type hello struct {
	at   time.Time
	addr string
	name string // "" where no name that we know stands in one piece
}

func (f *filter) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	here, there := net.Pipe()
	f.running.Go(func() {
		defer there.Close()
		buf := make([]byte, 16<<10)
		n, _ := there.Read(buf)
		h := hello{at: time.Now(), addr: address}
		for _, name := range []string{"chat.alpha.test", "www.example.com"} {
			if bytes.Contains(buf[:n], []byte(name)) {
				h.name = name
			}
		}
		f.mu.Lock()
		f.hellos = append(f.hellos, h)
		lost := f.forbidden != "" && h.name == f.forbidden
		f.mu.Unlock()
		c := &prefixed{there, bytes.NewReader(buf[:n])}
		for lost {
			if _, err := there.Read(buf); err != nil {
				return
			}
		}
		s := tls.Server(c, f.server)
		if s.Handshake() == nil {
			s.Read(buf) // until the client closes
		}
	})
	return here, nil
}

type prefixed struct {
	net.Conn
	head *bytes.Reader
}

func (p *prefixed) Read(b []byte) (int, error) {
	if p.head.Len() > 0 {
		return p.head.Read(b)
	}
	return p.Conn.Read(b)
}

func (f *filter) forbid(name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.forbidden = name
}

// asked is when a name was asked, since t.
func (f *filter) asked(name string, since time.Time) []time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	var ts []time.Time
	for _, h := range f.hellos {
		if h.name == name && !h.at.Before(since) {
			ts = append(ts, h.at)
		}
	}
	return ts
}

// A name that is filtered draws the differential questions, once it has failed
// twice, at most every ten minutes, and they make the verdict.
func TestFollowUps(t *testing.T) {
	ca := probetest.NewCA(t, "root")
	cert := ca.Issue(t, nil, "chat.alpha.test") // by the clock outside of the bubble
	synctest.Test(t, func(t *testing.T) {
		trust, err := probe.NewTrust(ca.PEM())
		if err != nil {
			t.Fatal(err)
		}
		line := &filter{server: &tls.Config{Certificates: []tls.Certificate{cert}}}
		w, d := newWorld(), newDiary(t)
		checks := append(w.controls(), w.check("beta", "chat", "host"))
		for i := range 3 {
			c := w.check("alpha", "chat", fmt.Sprintf("host%d", i))
			c.Prober = probe.TLS{Addr: netip.MustParseAddrPort(fmt.Sprintf("192.0.2.%d:443", i+1)), ServerName: "chat.alpha.test",
				ALPN: []string{"h2"}, Hello: probe.HelloGo, Trust: trust}
			checks = append(checks, c)
		}
		a := start(t, w, d, checks, time.Minute, Options{Net: line})
		a.pass(5 * time.Minute)
		if s := a.state("alpha", "chat"); s != verdict.OK {
			t.Fatalf("before, alpha is %s: %+v", s, a.last().Verdicts)
		}
		if n := len(line.asked("www.example.com", time.Time{})); n > 0 {
			t.Errorf("%d neutral questions while all is well", n)
		}
		// One failure draws none: the filter forgets before the confirmation.
		line.forbid("chat.alpha.test")
		began := time.Now()
		for len(failures(a.told("alpha", began))) == 0 {
			a.pass(100 * time.Millisecond)
		}
		line.forbid("")
		a.pass(3 * time.Minute)
		if n := len(line.asked("www.example.com", time.Time{})); n > 0 {
			t.Errorf("%d neutral questions after one failure", n)
		}
		if s := a.state("alpha", "chat"); s != verdict.OK {
			t.Errorf("after one failure alpha is %s", s)
		}

		line.forbid("chat.alpha.test")
		began = time.Now()
		a.pass(4 * time.Minute)
		v := a.last().Verdicts[slices.IndexFunc(a.last().Verdicts, func(v verdict.Verdict) bool { return v.Messenger == "alpha" })]
		if v.State != verdict.Blocked || v.Mechanism != verdict.SNIDrop || v.Confidence == verdict.Low {
			t.Errorf("alpha is %s by %s with %s confidence: %v", v.State, v.Mechanism, v.Confidence, v.Evidence)
		}
		neutral := line.asked("www.example.com", began)
		if len(neutral) == 0 || len(neutral) > 3 { // one a host
			t.Errorf("neutral questions at %v", neutral)
		}
		// For as long as it lasts each is asked again, not sooner than after ten
		// minutes.
		a.pass(time.Hour)
		neutral = line.asked("www.example.com", began)
		if n := len(neutral); n < 10 || n > 3*7 {
			t.Errorf("%d neutral questions in an hour", n)
		}
		last, any := map[string]time.Time{}, map[string]time.Time{}
		line.mu.Lock()
		for _, h := range line.hellos {
			// Those about one address come one after another; those under its own name
			// may be the schedule's.
			if h.name != "chat.alpha.test" {
				if was := any[h.addr]; !was.IsZero() && h.at.Sub(was) < armSpacing {
					t.Errorf("two questions about %s within %v", h.addr, h.at.Sub(was))
				}
				any[h.addr] = h.at
			}
			if h.name == "www.example.com" {
				if was := last[h.addr]; !was.IsZero() && h.at.Sub(was) < armsEvery {
					t.Errorf("%s was asked under the neutral name again after %v", h.addr, h.at.Sub(was))
				}
				last[h.addr] = h.at
			}
		}
		line.mu.Unlock()
		// It ends, and so do they.
		line.forbid("")
		a.pass(20 * time.Minute)
		if s := a.state("alpha", "chat"); s != verdict.OK {
			t.Errorf("afterwards alpha is %s", s)
		}
		since := time.Now()
		a.pass(30 * time.Minute)
		if n := len(line.asked("www.example.com", since)); n > 0 {
			t.Errorf("%d neutral questions although all is well", n)
		}
		a.Agent.mu.Lock()
		if len(a.Agent.asked)+len(a.arms) > 0 {
			t.Errorf("%d questions and %d answers are kept", len(a.Agent.asked), len(a.arms))
		}
		a.Agent.mu.Unlock()
		if n := len(failures(a.told("beta", time.Time{}))); n > 0 {
			t.Errorf("%d failures of beta", n)
		}
		a.stop()
		line.running.Wait()
	})
}

// A block of everything is told as one within a minute of its beginning, although
// most checks have their next turn later: those that worked are heard again at
// once. One host that answers still makes it a part.
func TestNewsOfABlock(t *testing.T) {
	ca := probetest.NewCA(t, "root")
	cert := ca.Issue(t, nil, "chat.alpha.test", "other.alpha.test")
	for _, part := range []bool{false, true} {
		for i, later := range []time.Duration{0, 7 * time.Second, 23 * time.Second, 41 * time.Second} {
			synctest.Test(t, func(t *testing.T) {
				trust, err := probe.NewTrust(ca.PEM())
				if err != nil {
					t.Fatal(err)
				}
				line := &filter{server: &tls.Config{Certificates: []tls.Certificate{cert}}}
				w, d := newWorld(), newDiary(t)
				checks := w.controls()
				for i := range 4 { // whose addresses lie beside the messenger's
					c := w.check(probe.Control, probe.Sibling, fmt.Sprintf("sibling%d", i))
					c.Of = "alpha"
					checks = append(checks, c)
				}
				for i := range 80 {
					c := w.check("alpha", "chat", fmt.Sprintf("host%d", i%8))
					if i >= 8 { // further addresses; the detector watches the first
						c.Target += fmt.Sprintf("#%d", i/8)
					}
					name := "chat.alpha.test"
					if part && i%8 == 3 {
						name = "other.alpha.test"
					}
					c.Prober = probe.TLS{Addr: netip.MustParseAddrPort(fmt.Sprintf("192.0.2.%d:443", i+1)), ServerName: name,
						ALPN: []string{"h2"}, Hello: probe.HelloGo, Trust: trust}
					checks = append(checks, c)
				}
				a := start(t, w, d, checks, time.Minute, Options{Net: line})
				a.pass(10*time.Minute + later)
				line.forbid("chat.alpha.test")
				began := time.Now()
				var seen []verdict.State
				for time.Since(began) < 3*time.Minute {
					a.pass(time.Second)
					if s := a.state("alpha", "chat"); len(seen) == 0 || seen[len(seen)-1] != s {
						t.Logf("%v: %s", time.Since(began), s)
						seen = append(seen, s)
						if s == verdict.Blocked && time.Since(began) > time.Minute {
							t.Errorf("%d: blocked after %v", i, time.Since(began))
						}
					}
				}
				if last := seen[len(seen)-1]; last != map[bool]verdict.State{false: verdict.Blocked, true: verdict.Degraded}[part] {
					t.Errorf("%d: %v: %+v", i, seen, a.last().Verdicts)
				}
				if part && slices.Contains(seen, verdict.Blocked) {
					t.Errorf("%d: a part is told as all: %v", i, seen)
				}
				a.stop()
				line.running.Wait()
			})
		}
	}
}

// What is ruled out is never asked, and nothing else is missed for it.
func TestRefrain(t *testing.T) {
	at := netip.MustParseAddrPort("192.0.2.1:443")
	c := probe.Check{Messenger: "alpha", Function: "chat", Endpoint: "host", Protocol: probe.ProtoTLS, Family: probe.IP4, Target: at.String(),
		Prober: probe.TLS{Addr: at, ServerName: "chat.alpha.test", Hello: probe.HelloGo}, Timeout: time.Second}
	failed := probe.Result{Check: c, Steps: []probe.Step{{Op: probe.OpTLSHandshake, Addr: at, Failure: probe.FailureTimeout}}}
	a := &Agent{listed: []verdict.Record{{Check: c, Results: []probe.Result{failed, failed}}}}
	a.line.State = verdict.Online
	open := func() map[verdict.Ask]bool {
		m := map[verdict.Ask]bool{}
		for _, q := range a.questions(2, func(string, verdict.Ask) bool { return false }) {
			m[q.Ask] = true
		}
		return m
	}
	all := open()
	a.Refrain(verdict.AskSplitHello)
	if few := open(); !all[verdict.AskSplitHello] || few[verdict.AskSplitHello] || len(few) != len(all)-1 {
		t.Errorf("%v, then %v", all, few)
	}
}

// Follow-ups come from the messenger's budget, and with the line dead there are
// none.
func TestFollowUpsOfADeadLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		line := &filter{forbidden: "chat.alpha.test"}
		w, d := newWorld(), newDiary(t)
		c := w.check("alpha", "chat", "host")
		c.Prober = probe.TLS{Addr: netip.MustParseAddrPort("192.0.2.1:443"), ServerName: "chat.alpha.test", Hello: probe.HelloGo}
		w.set("", probe.FailureTimeout)
		a := start(t, w, d, append(w.controls(), c), time.Minute, Options{Net: line})
		a.pass(30 * time.Minute)
		if n := len(line.asked("www.example.com", time.Time{})); n > 0 {
			t.Errorf("%d neutral questions", n)
		}
		if n := len(failures(a.told("alpha", time.Time{}))); n > 0 {
			t.Errorf("%d failures were counted", n)
		}
		a.stop()
		line.running.Wait()
	})
}
