package netlab

import (
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// The protocols a rule may be about.
const (
	TCP Proto = protoTCP
	UDP Proto = protoUDP
)

// A Proto is an IP protocol number; 0 is any.
type Proto byte

// A Rule is about those flows that have all of what it names; one that names
// nothing is about everything. From the packet of the client's that showed it,
// each packet of the flow is Do's.
type Rule struct {
	Proto  Proto
	Family int          // 4 or 6; 0 both
	Hosts  []netip.Addr // the server's address
	Ports  []uint16     // the server's port
	// Names are domains that a ClientHello, over TCP or QUIC, or a DNS query
	// over UDP asks for, or for a name below.
	Names []string
	// First is about the first bytes that the client says.
	First func([]byte) bool

	Do Action
}

func (r *Rule) matches(f *flow, p *packet) bool {
	host := f.server.Addr()
	switch {
	case r.Proto != 0 && byte(r.Proto) != f.proto,
		r.Family == 4 && !host.Is4(),
		r.Family == 6 && !host.Is6(),
		r.Hosts != nil && !slices.Contains(r.Hosts, host),
		r.Ports != nil && !slices.Contains(r.Ports, f.server.Port()),
		r.First != nil && (len(f.said) == 0 || !r.First(f.said)):
		return false
	case r.Names == nil:
		return true
	}
	name := f.name
	if f.proto == protoUDP && f.server.Port() == 53 {
		if q := dnsQuery(p.data); q != nil {
			name = strings.ToLower(strings.TrimSuffix(q.Question[0].Name, "."))
		}
	}
	return name != "" && slices.ContainsFunc(r.Names, func(d string) bool { return name == d || strings.HasSuffix(name, "."+d) })
}

// An Action makes what is done with one flow.
type Action func() step

// A step does it with one packet, and says whether the packet may go on.
type step func(*crossing) bool

// A crossing is a packet on its way through a middlebox.
type crossing struct {
	packet
	up    bool
	flow  *flow
	box   *Middlebox
	delay time.Duration
}

// Drop keeps everything.
func Drop() step { return DropAfter(0)() }

// DropAfter lets n packets pass, counted in both directions.
func DropAfter(n int) Action {
	return func() step {
		left := n
		return func(*crossing) bool {
			left--
			return left >= 0
		}
	}
}

// Swallow lets a handshake of TLS or QUIC pass, and keeps what the client says
// after it and all that follows.
func Swallow() step {
	over := false
	return func(x *crossing) bool {
		switch {
		case over || !x.up || len(x.data) == 0:
		case x.proto == protoUDP:
			over = x.data[0]&0x80 == 0 // RFC 9000 §17.3: a short header
		default:
			// The end of the client's handshake says that it is application data in
			// TLS 1.3 (RFC 8446 §5.2), and in 1.2 comes in further handshake records.
			handshake, data := tlsRecords(x.flow.said, 22), tlsRecords(x.flow.said, 23)
			over = data > 1 || data == 1 && handshake > 1
		}
		return !over
	}
}

// Freeze lets n bytes of the server's pass, then nothing more.
func Freeze(n int) Action {
	return func() step {
		left := n
		return func(x *crossing) bool {
			if !x.up {
				left -= len(x.data)
			}
			return left >= 0
		}
	}
}

// Police drops what is over a rate, in bits a second, of each direction; a burst
// of 8 kB passes.
func Police(rate int) Action {
	return func() step {
		const burst = 8 << 10
		tokens := [2]float64{burst, burst}
		last := [2]time.Time{time.Now(), time.Now()}
		return func(x *crossing) bool {
			d, now := 0, time.Now()
			if x.up {
				d = 1
			}
			tokens[d] = min(burst, tokens[d]+now.Sub(last[d]).Seconds()*float64(rate)/8)
			last[d] = now
			if tokens[d] < float64(len(x.b)) {
				return false
			}
			tokens[d] -= float64(len(x.b))
			return true
		}
	}
}

// Shape is a line of a rate, in bits a second each way, that all flows share. It
// queues for at most half a second.
func Shape(rate int) Action {
	var free [2]time.Time
	return func() step {
		return func(x *crossing) bool {
			d, now := 0, time.Now()
			if x.up {
				d = 1
			}
			if free[d].Before(now) {
				free[d] = now
			}
			if free[d].Sub(now) > time.Second/2 {
				return false
			}
			free[d] = free[d].Add(time.Duration(len(x.b)*8) * time.Second / time.Duration(rate))
			x.delay += free[d].Sub(now)
			return true
		}
	}
}

// Lose keeps that share of all packets.
func Lose(share float64) Action {
	return func() step {
		return func(*crossing) bool { return rand.Float64() >= share }
	}
}

// Delay makes every packet later; all of them, or they would change places.
func Delay(d time.Duration) Action {
	return func() step {
		return func(x *crossing) bool {
			x.delay += d
			return true
		}
	}
}

// Hole keeps packets larger than n bytes and tells nobody: a path whose MTU
// cannot be found out.
func Hole(n int) Action {
	return func() step {
		return func(x *crossing) bool { return len(x.b) <= n }
	}
}

// Reset ends a TCP connection in the other's name, towards both ends, and keeps
// everything from then on.
func Reset() step {
	told := false
	return func(x *crossing) bool {
		if x.proto != protoTCP || x.flags&flagRST != 0 || !x.up {
			return false
		}
		n := uint32(len(x.data))
		if x.flags&flagSYN != 0 {
			n++
		} else if !told {
			to := x.dst
			if x.flow.to.IsValid() {
				to = x.flow.to
			}
			x.box.send(buildRST(x.src, to, x.seq, x.ack), true, x.box.RTT/2)
			told = true
		}
		x.box.send(buildRST(x.dst, x.src, x.ack, x.seq+n), false, 0)
		return false
	}
}

// Redirect makes another server answer in the place of this one: one for each
// family, and a port of 0 is the same port.
func Redirect(to ...netip.AddrPort) Action {
	return func() step {
		return func(x *crossing) bool {
			for _, t := range to {
				if x.up && x.dst.Port() != 0 && !x.flow.to.IsValid() && t.Addr().Is4() == x.dst.Addr().Is4() {
					if t.Port() == 0 {
						t = netip.AddrPortFrom(t.Addr(), x.dst.Port())
					}
					x.box.redirect(x.flow, t)
				}
			}
			return true
		}
	}
}

// Forge answers DNS queries over UDP with these addresses, or with the code
// where there are none, before the resolver can.
func Forge(rcode int, addrs ...netip.Addr) Action {
	return func() step {
		return func(x *crossing) bool {
			q := dnsQuery(x.data)
			if !x.up || q == nil {
				return true
			}
			m := new(dns.Msg).SetRcode(q, rcode)
			m.RecursionAvailable = true
			head := dns.RR_Header{Name: q.Question[0].Name, Rrtype: q.Question[0].Qtype, Class: dns.ClassINET, Ttl: 60}
			for _, a := range addrs {
				switch {
				case a.Is4() && head.Rrtype == dns.TypeA:
					m.Answer = append(m.Answer, &dns.A{Hdr: head, A: net.IP(a.AsSlice())})
				case a.Is6() && head.Rrtype == dns.TypeAAAA:
					m.Answer = append(m.Answer, &dns.AAAA{Hdr: head, AAAA: net.IP(a.AsSlice())})
				}
			}
			if b, err := m.Pack(); err == nil {
				x.box.send(buildUDP(x.dst, x.src, b), false, 0)
			}
			return true
		}
	}
}

// QUICv1 is a first datagram of QUIC version 1 (RFC 9000 §17.2).
func QUICv1(b []byte) bool {
	v, long := quicVersion(b)
	return long && v == 1
}

// Begins is a stream or datagram that begins with one of these.
func Begins(with ...string) func([]byte) bool {
	return func(b []byte) bool {
		return slices.ContainsFunc(with, func(w string) bool { return strings.HasPrefix(string(b), w) })
	}
}
