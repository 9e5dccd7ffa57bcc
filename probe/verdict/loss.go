package verdict

import (
	"math"
	"net/netip"
	"time"

	"github.com/messenger-probe/messenger-probe/probe"
)

// Loss on the way to a messenger shows in what works: connections whose first
// packet had to be sent again, after 1, 3 and 7 s (RFC 6298 §2), and checks that
// now work and now do not. What is silent each time is no loss but a drop.

// Bounds of a lossy way. A line that loses two per cent of its packets each way
// sends one SYN in twenty-five again.
const (
	minLate   = 5           // connections that came late, at least
	lateShare = 0.3         // … of those to the messenger's network
	lateHere  = 0.1         // … of those to controls, at most
	sentAgain = time.Second // sooner, a first packet is not sent again
)

// A crossing counts what was sent to a network, connections or segments, and what
// of it got there only when it was sent again.
type crossing struct{ tries, late int }

// add counts the connections of a check. The round trip, where it is known, is
// no part of being late.
func (c *crossing) add(r *Record, rtt func(netip.Addr) (time.Duration, bool)) {
	counted, turns := 0, 0
	newer := probe.Void
	for i := range r.Results {
		res := &r.Results[i]
		o := res.Outcome()
		if o == probe.Void {
			continue
		}
		c.connects(res, rtt)
		if o == probe.Fail && !timedOut(res.Failed()) {
			continue
		}
		if newer != probe.Void && o != newer {
			turns++
		}
		counted++
		newer = o
	}
	// What works no more, or works again, does not come and go. Of two runs the
	// first may have lost a packet.
	if turns > 1 || turns == 1 && counted == 2 && newer == probe.Fail {
		c.tries++
		c.late++
	}
}

// connects counts the connections of a run.
func (c *crossing) connects(r *probe.Result, rtt func(netip.Addr) (time.Duration, bool)) {
	for i := range r.Steps {
		s := &r.Steps[i]
		if s.Op != probe.OpConnect || s.Failure != "" {
			continue
		}
		c.tries++
		if s.Took < sentAgain {
			continue
		}
		if d, _ := rtt(s.Addr.Addr()); s.Took-d >= sentAgain*9/10 {
			c.late++
		}
	}
}

// above says that more was late than chance makes of a share of p, by four
// standard deviations.
func (c *crossing) above(p float64) bool {
	n := float64(c.tries)
	return float64(c.late) > n*p+4*math.Sqrt(n*p*(1-p))
}

func (c *crossing) share() float64 { return float64(c.late) / float64(max(c.tries, 1)) }

// lineLate is the share of late connections to controls from which the line
// itself loses more than a good one.
const lineLate = 0.05

// here is the connections to controls.
func (s *scene) here() crossing {
	if s.crossed == nil {
		s.crossed = &crossing{}
		for _, f := range s.controls {
			if f.Check.Function != probe.Positive && f.tcp {
				s.crossed.add(f.Record, s.roundTrip)
			}
		}
	}
	return *s.crossed
}

// lossyLine says that the line itself loses packets.
func (fl *file) lossyLine() bool {
	h := fl.here()
	return h.share() > lineLate
}

// Bounds from which the ways to a messenger are shaky: less than lossy, but too
// much to make anything of one silence beside one answer.
const shakyLate, shakyShare = 3, 0.15

func (fl *file) shaky() bool {
	c := fl.there()
	return c.late >= shakyLate && c.share() > shakyShare
}

// there is the connections to the messenger.
func (fl *file) there() (c crossing) {
	for _, f := range fl.facts {
		if f.tcp {
			c.add(f.Record, fl.roundTrip)
		}
	}
	return c
}

// lossyWay explains the silences of a messenger to whose networks packets are
// lost and which answer all the same. It comes before the comparisons: of two
// questions over such a way one may be lost by chance.
func lossyWay(fl *file) []finding {
	here := fl.here()
	if there := fl.there(); here.tries == 0 || here.share() > lateHere || there.late < minLate {
		return nil
	}
	networks := map[netip.Prefix]*crossing{}
	for _, f := range fl.facts {
		if !f.tcp {
			continue
		}
		n := network(f.addr.Addr())
		if networks[n] == nil {
			networks[n] = &crossing{}
		}
		networks[n].add(f.Record, fl.roundTrip)
	}
	var lossy []string
	var all crossing
	for n, c := range networks {
		if c.late >= minLate && c.share() >= lateShare && c.share() >= 3*here.share() {
			lossy = append(lossy, n.String())
			all.tries += c.tries
			all.late += c.late
		}
	}
	if len(lossy) == 0 {
		return nil
	}
	var fs []*fact
	for _, f := range fl.facts {
		if !f.addr.IsValid() {
			continue
		}
		// A network that was crossed often without loss is not part of it.
		c := networks[network(f.addr.Addr())]
		if c == nil || c.tries >= 2*minLate && c.share() < lateHere {
			continue
		}
		var own crossing
		own.add(f.Record, fl.roundTrip)
		slow := own.late > 0 || f.Check.Protocol == probe.ProtoTransfer
		if f.works() && slow || !f.works() && timedOut(f.step) {
			fs = append(fs, f)
		}
	}
	return []finding{{PacketLoss, sure(all.late / minLate), false, fs, about(nil,
		"%s: of %d connections %d came about only after their first packet was sent again, or now do and now do not; of %d to controls %d",
		some(lossy), all.tries, all.late, here.tries, here.late)}}
}

// callShare is the share of a call's packets from which loss is heard: voice
// codecs conceal single frames, not every third.
const callShare = 0.3

// burst is what became of the packets of a call, nil where none were sent.
func burst(r *probe.Result) *probe.BurstInfo {
	if r == nil || r.Check.Protocol != probe.ProtoSTUN {
		return nil
	}
	for i := range r.Steps {
		if b := r.Steps[i].Burst; b != nil && b.Sent > 0 {
			return b
		}
	}
	return nil
}

// lost is the share of a burst that did not come back.
func lost(b *probe.BurstInfo) float64 { return 1 - float64(b.Received)/float64(b.Sent) }

// chopped is how many of the newest runs in a row that were answered then lost
// the packets of a call.
func (r *Record) chopped() int {
	n := 0
	for i := range r.Results {
		if r.Results[i].Outcome() != probe.OK {
			continue
		}
		if b := burst(&r.Results[i]); b == nil || lost(b) < callShare {
			break
		}
		n++
	}
	return n
}

// chops says that a relay loses the packets of a call: the newest burst was cut,
// and the one that was asked for because of it, or else the one before it. One
// alone may have met a moment of the line, its end or its coming back, and
// silence is not loss.
func (f *fact) chops() bool {
	n := f.chopped()
	if !f.works() || n == 0 {
		return false
	}
	if a := f.ask(AskAgain); a != nil && !a.Result.Start.Before(f.res.Start) {
		if b := burst(&a.Result); b != nil {
			return lost(b) >= callShare
		}
	}
	return n > 1
}

// lossyCalls finds relays that answer, and then lose the packets of a call.
func lossyCalls(fl *file) []finding {
	var here probe.BurstInfo
	for _, f := range fl.controls {
		if b := burst(f.worked()); b != nil {
			here.Sent += b.Sent
			here.Received += b.Received
		}
	}
	if here.Sent == 0 || lost(&here) > lateHere {
		return nil
	}
	var fs []*fact
	var all probe.BurstInfo
	for _, f := range fl.facts {
		if !f.chops() {
			continue
		}
		fs = append(fs, f)
		b := burst(f.res)
		all.Sent += b.Sent
		all.Received += b.Received
	}
	if len(fs) == 0 {
		return nil
	}
	return []finding{{PacketLoss, sure(len(fs)), false, fs, about(places,
		"{}: of %d packets at the pace of a call %d came back, from neutral relays %d of %d", all.Sent, all.Received, here.Received, here.Sent)}}
}

// hanging explains silences of servers that have what we sent.
func hanging(fl *file) []finding {
	fs := fl.failed(func(f *fact) bool {
		return f.tcp && timedOut(f.step) && f.step.Op != probe.OpConnect && f.step.Op != probe.OpTransfer && heard(f.step)
	})
	if len(fs) == 0 {
		return nil
	}
	return []finding{{ServiceOutage, Low, false, fs, about(places, "{}: the host takes what we send and says nothing, as a server that hangs")}}
}
