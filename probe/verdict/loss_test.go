package verdict

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/messenger-probe/messenger-probe/probe"
)

// TestOnsetIsNoLoss: with a block that begins, and with one that ends, every check
// works at one time and is silent at another. That is not a way that loses
// packets: the block is told all the time, and nothing after it.
func TestOnsetIsNoLoss(t *testing.T) {
	checks := town()
	for _, sc := range scenarios() {
		if sc.name != "ip_block" && sc.name != "sni_drop" && sc.name != "port_block everywhere" {
			continue
		}
		t.Run(sc.name, func(t *testing.T) {
			w := newWorld(3)
			var d day
			d.vantage.State = Online
			for _, c := range checks {
				d.records = append(d.records, Record{Check: c})
			}
			look := func(rounds int) {
				for range rounds {
					for i := range d.records {
						r := &d.records[i]
						if res := byOtherResolver(w.run(r.Check)); len(res.Steps) > 0 {
							r.Note(&res)
							r.Results = slices.Insert(r.Results, 0, res)
							r.Results = r.Results[:min(len(r.Results), 3)]
						}
					}
				}
				for _, q := range Questions(d.vantage, d.records, 2, d.asked) {
					d.arms = append(d.arms, Arm{Of: q.Of, Ask: q.Ask, Result: w.run(q.Check)})
				}
				d.verdicts = Judge(d.vantage, d.records, d.arms)
			}
			look(3)
			if !d.meets(t, scenario{}, true) {
				t.Fatal("before")
			}
			w.effects = sc.effects
			look(2)
			for range 3 {
				if !d.meets(t, sc, true) {
					d.show(t)
					t.Fatal("blocked")
				}
				look(1)
			}
			w.effects = nil
			d.arms = nil
			for range 3 {
				look(1)
				if !d.meets(t, scenario{}, true) {
					d.show(t)
					t.Fatal("afterwards")
				}
			}
		})
	}
}

// TestBurstAskedTwice: one burst of a call's packets that is lost may have met a
// moment of the line. It is asked again, and only a second loss is one.
func TestBurstAskedTwice(t *testing.T) {
	relay := netip.MustParseAddrPort("91.108.9.35:1400")
	check := probe.Check{Messenger: "telegram", Function: "calls", Endpoint: "relay", Protocol: probe.ProtoSTUN, Family: probe.IP4,
		Target: relay.String() + "#burst", Prober: probe.STUN{Addr: relay, Burst: 50}, Timeout: 10 * time.Second}
	neutral := check
	neutral.Messenger, neutral.Function, neutral.Endpoint = probe.Control, probe.Foreign, "neutral"
	run := func(c probe.Check, received int) probe.Result {
		return probe.Result{Check: c, Steps: []probe.Step{
			{Op: probe.OpReply, Addr: relay, Reply: &probe.ReplyInfo{}},
			{Op: probe.OpTransfer, Addr: relay, Burst: &probe.BurstInfo{Sent: 50, Received: received}}}}
	}
	silence := probe.Result{Check: check, Steps: []probe.Step{{Op: probe.OpReply, Addr: relay, Failure: probe.FailureTimeout}}}
	again := func(r probe.Result) []Arm { return []Arm{{Of: check.ID(), Ask: AskAgain, Result: r}} }
	for _, c := range []struct {
		name string
		runs []int // packets that came back, of 50, the newest first
		arms []Arm
		want State
		asks bool
	}{
		{"whole", []int{50, 50}, nil, OK, false},
		{"lost once, the first time", []int{13}, nil, OK, true},
		{"lost once", []int{13, 50}, nil, OK, true},
		{"lost once, then not", []int{13, 50}, again(run(check, 49)), OK, true},
		{"lost once, and again", []int{13, 50}, again(run(check, 20)), Degraded, true},
		{"lost once, then silent", []int{13, 50}, again(silence), OK, true},
		{"lost twice", []int{13, 20}, nil, Degraded, true},
		{"lost twice, then not", []int{13, 20}, again(run(check, 49)), OK, true},
		{"lost twice, then silent", []int{13, 20}, again(silence), Degraded, true},
		{"lost before", []int{50, 13, 20}, nil, OK, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			records := []Record{{Check: check}, {Check: neutral, Results: []probe.Result{run(neutral, 50)}}}
			for _, n := range c.runs {
				records[0].Results = append(records[0].Results, run(check, n))
			}
			v := Vantage{State: Online}
			if vs := Judge(v, records, c.arms); vs[0].State != c.want || c.want == Degraded && vs[0].Mechanism != PacketLoss {
				t.Errorf("%+v", vs[0])
			}
			for _, failures := range []int{1, 2} {
				qs := Questions(v, records, failures, nobody)
				if got := len(qs) == 1 && qs[0].Ask == AskAgain; got != c.asks || len(qs) > 1 {
					t.Errorf("asks %+v", qs)
				}
			}
		})
	}
}

// TestTransferOutOfTime: a transfer that runs out of time is no failure of the
// messenger where the line is no faster for controls; it is one where they are
// many times faster, and where it stands still.
func TestTransferOutOfTime(t *testing.T) {
	at := netip.MustParseAddrPort("149.154.167.99:443")
	check := func(m, f, e string) probe.Check {
		return probe.Check{Messenger: m, Function: f, Endpoint: e, Protocol: probe.ProtoTransfer, Family: probe.IP4, Target: at.String(),
			Prober: probe.Transfer{Addr: at}, Timeout: 10 * time.Second}
	}
	media, control := check("telegram", "media", "site"), check(probe.Control, probe.Foreign, "control")
	page := check("telegram", "media", "page")
	page.Protocol, page.Prober = probe.ProtoTLS, probe.TLS{Addr: at}
	run := func(c probe.Check, took time.Duration, failure probe.Failure, info probe.TransferInfo) probe.Result {
		return probe.Result{Check: c, Steps: []probe.Step{{Op: probe.OpTLSHandshake, Addr: at}, {Op: probe.OpTransfer, Addr: at, Took: took, Failure: failure, Transfer: &info}}}
	}
	for _, c := range []struct {
		name  string
		cut   probe.TransferInfo // after 10 s
		rate  float64            // of the control, bytes a second
		state State
	}{
		{"as slow as the control", probe.TransferInfo{Wanted: 256 << 10, Bytes: 200 << 10, Goodput: 21e3, Stall: time.Second}, 30e3, OK},
		{"the control is 100 times faster", probe.TransferInfo{Wanted: 256 << 10, Bytes: 200 << 10, Goodput: 21e3, Stall: time.Second}, 2e6, Degraded},
		{"it stands still", probe.TransferInfo{Wanted: 256 << 10, Bytes: 200 << 10, Goodput: 21e3, Stall: 8 * time.Second}, 30e3, Degraded},
		{"nothing came", probe.TransferInfo{Wanted: 256 << 10, Stall: 10 * time.Second}, 30e3, Degraded},
	} {
		t.Run(c.name, func(t *testing.T) {
			cut := run(media, 10*time.Second, probe.FailureTimeout, c.cut)
			whole := run(control, time.Second, "", probe.TransferInfo{Wanted: 256 << 10, Bytes: 256 << 10, Goodput: c.rate})
			vs := Judge(Vantage{State: Online}, []Record{{Check: media, Results: []probe.Result{cut, cut}},
				{Check: page, Results: []probe.Result{{Check: page, Steps: []probe.Step{{Op: probe.OpTLSHandshake, Addr: at}}}}},
				{Check: control, Results: []probe.Result{whole}}}, nil)
			if vs[0].State != c.state {
				t.Errorf("%+v", vs[0])
			}
		})
	}
}

// TestFlowsLostByChance: where each address is silent on another of its ports,
// flows are lost, and no port is blocked.
func TestFlowsLostByChance(t *testing.T) {
	var records []Record
	add := func(addr string, failure probe.Failure) {
		a := netip.MustParseAddrPort(addr)
		c := probe.Check{Messenger: "telegram", Function: "chat", Endpoint: a.Addr().String(), Protocol: probe.ProtoMTProto, Family: probe.IP4,
			Target: addr, Prober: probe.MTProto{Addr: a}}
		op := probe.OpReply
		if failure != "" {
			op = probe.OpConnect
		}
		r := probe.Result{Check: c, Steps: []probe.Step{{Op: op, Addr: a, Failure: failure, Reply: &probe.ReplyInfo{}}}}
		records = append(records, Record{Check: c, Results: []probe.Result{r, r}})
	}
	judge := func() Verdict { return Judge(Vantage{State: Online}, records, nil)[0] }
	add("149.154.167.51:443", probe.FailureTimeout)
	add("149.154.167.51:80", "")
	add("149.154.175.50:443", probe.FailureTimeout)
	add("149.154.175.50:80", "")
	if v := judge(); v.State != Degraded || v.Mechanism != PortBlock {
		t.Errorf("one port: %+v", v)
	}
	records = records[:2]
	add("149.154.175.50:80", probe.FailureTimeout)
	add("149.154.175.50:443", "")
	if v := judge(); v.State != Degraded || v.Mechanism != PacketLoss {
		t.Errorf("either port: %+v", v)
	}
	// Others of the same ports answer, in another transport.
	records = records[:0]
	for _, a := range []string{"149.154.167.51", "149.154.175.50"} {
		add(a+":80", "")
		add(a+":443", probe.FailureTimeout)
		add(a+":5222", "")
		add(a+":5222", probe.FailureTimeout)
	}
	if v := judge(); v.State != Degraded || v.Mechanism != PacketLoss {
		t.Errorf("some connections to a port: %+v", v)
	}
}
