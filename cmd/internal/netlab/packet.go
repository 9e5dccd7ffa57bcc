package netlab

import (
	"encoding/binary"
	"net/netip"
)

// Protocol numbers (IANA) and TCP flags (RFC 9293 §3.1).
const (
	protoTCP    = 6
	protoUDP    = 17
	protoICMPv6 = 58

	flagSYN = 2
	flagRST = 4
	flagACK = 16
)

// A packet is one IP packet. Its ports are 0 where it has none that can be seen:
// in ICMP, in fragments.
type packet struct {
	b        []byte
	src, dst netip.AddrPort
	proto    byte
	l4       int    // where the transport header starts
	data     []byte // what TCP or UDP carries

	flags    byte // TCP
	seq, ack uint32
}

func parse(b []byte) (packet, bool) {
	p := packet{b: b}
	var src, dst netip.Addr
	switch {
	case len(b) >= 20 && b[0]>>4 == 4:
		total := int(binary.BigEndian.Uint16(b[2:]))
		p.l4 = int(b[0]&15) * 4
		if p.l4 < 20 || total < p.l4 || total > len(b) {
			return p, false
		}
		p.b, p.proto = b[:total], b[9]
		src, dst = netip.AddrFrom4([4]byte(b[12:])), netip.AddrFrom4([4]byte(b[16:]))
		if binary.BigEndian.Uint16(b[6:])&0x3fff != 0 {
			p.l4 = total // a fragment
		}
	case len(b) >= 40 && b[0]>>4 == 6:
		total := 40 + int(binary.BigEndian.Uint16(b[4:]))
		if total > len(b) {
			return p, false
		}
		p.l4, p.b, p.proto = 40, b[:total], b[6]
		src, dst = netip.AddrFrom16([16]byte(b[8:])), netip.AddrFrom16([16]byte(b[24:]))
	default:
		return p, false
	}
	t := p.b[p.l4:]
	var sport, dport uint16
	switch {
	case p.proto == protoTCP && len(t) >= 20 && int(t[12]>>4)*4 <= len(t):
		sport, dport = binary.BigEndian.Uint16(t), binary.BigEndian.Uint16(t[2:])
		p.seq, p.ack, p.flags = binary.BigEndian.Uint32(t[4:]), binary.BigEndian.Uint32(t[8:]), t[13]
		p.data = t[int(t[12]>>4)*4:]
	case p.proto == protoUDP && len(t) >= 8:
		sport, dport = binary.BigEndian.Uint16(t), binary.BigEndian.Uint16(t[2:])
		p.data = t[8:]
	}
	p.src, p.dst = netip.AddrPortFrom(src, sport), netip.AddrPortFrom(dst, dport)
	return p, true
}

// readdress changes both ends of a TCP or UDP packet.
func (p *packet) readdress(src, dst netip.AddrPort) {
	p.src, p.dst = src, dst
	at, n := 12, 4
	if src.Addr().Is6() {
		at, n = 8, 16
	}
	copy(p.b[at:], src.Addr().AsSlice())
	copy(p.b[at+n:], dst.Addr().AsSlice())
	t := p.b[p.l4:]
	binary.BigEndian.PutUint16(t, src.Port())
	binary.BigEndian.PutUint16(t[2:], dst.Port())
	p.seal()
}

// hop takes one from the time to live; false where none is left.
func (p *packet) hop() bool {
	ttl := &p.b[8]
	if p.src.Addr().Is6() {
		ttl = &p.b[7]
	}
	if *ttl <= 1 {
		return false
	}
	*ttl--
	if p.src.Addr().Is4() {
		sealIPv4(p.b)
	}
	return true
}

// seal computes the checksums anew.
func (p *packet) seal() {
	if p.src.Addr().Is4() {
		sealIPv4(p.b)
	}
	t := p.b[p.l4:]
	at := 16
	if p.proto == protoUDP {
		at = 6
	}
	t[at], t[at+1] = 0, 0
	sum := checksum(p.pseudo(len(t)), t)
	if sum == 0 && p.proto == protoUDP {
		sum = 0xffff // RFC 768: 0 would mean none
	}
	binary.BigEndian.PutUint16(t[at:], sum)
}

// pseudo is the sum over the pseudo header (RFC 9293 §3.1, RFC 8200 §8.1).
func (p *packet) pseudo(length int) uint32 {
	return add(add(uint32(p.proto)+uint32(length), p.src.Addr().AsSlice()), p.dst.Addr().AsSlice())
}

func sealIPv4(b []byte) {
	head := b[:int(b[0]&15)*4]
	head[10], head[11] = 0, 0
	binary.BigEndian.PutUint16(head[10:], checksum(0, head))
}

// checksum is the internet's (RFC 1071), begun with sum.
func checksum(sum uint32, b []byte) uint16 {
	sum = add(sum, b)
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

func add(sum uint32, b []byte) uint32 {
	for ; len(b) > 1; b = b[2:] {
		sum += uint32(b[0])<<8 | uint32(b[1])
	}
	if len(b) == 1 {
		sum += uint32(b[0]) << 8
	}
	return sum
}

// build is an IP packet around a transport header and its data.
func build(src, dst netip.AddrPort, proto byte, transport, data []byte) []byte {
	var head []byte
	n := len(transport) + len(data)
	if src.Addr().Is4() {
		head = make([]byte, 20)
		head[0], head[8], head[9] = 0x45, 64, proto
		binary.BigEndian.PutUint16(head[2:], uint16(20+n))
		copy(head[12:], src.Addr().AsSlice())
		copy(head[16:], dst.Addr().AsSlice())
	} else {
		head = make([]byte, 40)
		head[0], head[6], head[7] = 0x60, proto, 64
		binary.BigEndian.PutUint16(head[4:], uint16(n))
		copy(head[8:], src.Addr().AsSlice())
		copy(head[24:], dst.Addr().AsSlice())
	}
	binary.BigEndian.PutUint16(transport, src.Port())
	binary.BigEndian.PutUint16(transport[2:], dst.Port())
	p := packet{b: append(append(head, transport...), data...), src: src, dst: dst, proto: proto, l4: len(head)}
	p.seal()
	return p.b
}

// buildRST is a TCP packet that ends a connection.
func buildRST(src, dst netip.AddrPort, seq, ack uint32) []byte {
	t := make([]byte, 20)
	binary.BigEndian.PutUint32(t[4:], seq)
	binary.BigEndian.PutUint32(t[8:], ack)
	t[12], t[13] = 5<<4, flagRST|flagACK
	return build(src, dst, protoTCP, t, nil)
}

// buildUDP is a datagram.
func buildUDP(src, dst netip.AddrPort, data []byte) []byte {
	t := make([]byte, 8)
	binary.BigEndian.PutUint16(t[4:], uint16(8+len(data)))
	return build(src, dst, protoUDP, t, data)
}
