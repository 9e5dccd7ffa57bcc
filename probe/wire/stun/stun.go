// Package stun writes the first packets of a call that need no account, and
// reads their answers: STUN Binding (RFC 8489), TURN Allocate without
// credentials (RFC 8656 §7) and the hello of Telegram's call reflectors.
//
// It holds no socket. Parse takes one datagram of any origin and any length;
// it allocates nothing that is longer than the datagram.
package stun

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"net/netip"
)

// The methods of RFC 8489 §18.2 and RFC 8656 §18 that are asked here.
const (
	Binding  Method = 0x001
	Allocate Method = 0x003
)

// The classes of RFC 8489 §5.
const (
	Request    Class = 0
	Indication Class = 1
	Success    Class = 2
	Error      Class = 3
)

const (
	cookie    = 0x2112A442 // RFC 8489 §5
	headerLen = 20

	// RFC 8489 §18.3, RFC 8656 §18.
	attrMappedAddress      = 0x0001
	attrErrorCode          = 0x0009
	attrRealm              = 0x0014
	attrNonce              = 0x0015
	attrRequestedTransport = 0x0019
	attrXORMappedAddress   = 0x0020
	attrFingerprint        = 0x8028

	fingerprintXOR = 0x5354554e // RFC 8489 §14.7

	// Longest REALM and NONCE: fewer than 128 characters, which can be as long
	// as 763 bytes (RFC 8489 §14.9, §14.10).
	maxText = 763
)

// Method is what a message asks or answers, 12 bits.
type Method uint16

// Class is the kind of a message, 2 bits.
type Class uint8

// ID is a transaction id: 96 random bits that the answer echoes.
type ID [12]byte

// A Message is what one datagram says.
type Message struct {
	Method Method
	Class  Class
	ID     ID

	// Mapped is the sender's address as the server saw it; zero where the
	// message has none. It identifies the vantage: it must not leave the prober.
	Mapped netip.AddrPort

	Code        int    // ERROR-CODE, 300 to 699; 0 none
	Realm       string // REALM; "" none
	Nonce       bool   // a NONCE is there
	Fingerprint bool   // a FINGERPRINT is there, and right
}

var (
	errShort       = errors.New("stun: too short")
	errNotSTUN     = errors.New("stun: no magic cookie")
	errLength      = errors.New("stun: length does not fit the datagram")
	errAttribute   = errors.New("stun: malformed attribute")
	errFingerprint = errors.New("stun: wrong fingerprint")
)

// NewRequest is a request without credentials: 20 bytes for Binding, 28 for
// Allocate, which must name the transport it wants relayed: UDP (RFC 8656
// §7.1).
func NewRequest(m Method, id ID) []byte {
	b := make([]byte, headerLen, headerLen+8)
	binary.BigEndian.PutUint16(b, messageType(m, Request))
	binary.BigEndian.PutUint32(b[4:], cookie)
	copy(b[8:], id[:])
	if m == Allocate {
		b[3] = 8
		b = append(b, attrRequestedTransport>>8, attrRequestedTransport&0xff, 0, 4, 17, 0, 0, 0)
	}
	return b
}

// messageType interleaves method and class, RFC 8489 §5 figure 3.
func messageType(m Method, c Class) uint16 {
	return uint16(m&0xf) | uint16(m&0x70)<<1 | uint16(m&0xf80)<<2 | uint16(c&1)<<4 | uint16(c&2)<<7
}

// Parse reads one datagram. Attributes that are not known here are passed over,
// also those that a client must understand (RFC 8489 §5): the question is
// whether the server lives, not what it offers.
func Parse(b []byte) (Message, error) {
	if len(b) < headerLen {
		return Message{}, errShort
	}
	if b[0]&0xc0 != 0 || binary.BigEndian.Uint32(b[4:]) != cookie {
		return Message{}, errNotSTUN
	}
	if n := int(binary.BigEndian.Uint16(b[2:])); n%4 != 0 || n != len(b)-headerLen {
		return Message{}, errLength
	}
	t := binary.BigEndian.Uint16(b)
	m := Message{
		Method: Method(t&0xf | t>>1&0x70 | t>>2&0xf80),
		Class:  Class(t>>4&1 | t>>7&2),
		ID:     ID(b[8:20]),
	}
	for at := headerLen; at < len(b); {
		if len(b)-at < 4 {
			return Message{}, errAttribute
		}
		typ, n := binary.BigEndian.Uint16(b[at:]), int(binary.BigEndian.Uint16(b[at+2:]))
		next := at + 4 + (n+3)&^3
		if next > len(b) {
			return Message{}, errAttribute
		}
		if err := m.attribute(typ, b[at+4:at+4+n]); err != nil {
			return Message{}, err
		}
		if typ == attrFingerprint {
			// It covers all before it and has to be last, RFC 8489 §14.7.
			if n != 4 || next != len(b) || binary.BigEndian.Uint32(b[at+4:]) != crc32.ChecksumIEEE(b[:at])^fingerprintXOR {
				return Message{}, errFingerprint
			}
			m.Fingerprint = true
		}
		at = next
	}
	return m, nil
}

func (m *Message) attribute(typ uint16, v []byte) (err error) {
	switch typ {
	case attrXORMappedAddress:
		m.Mapped, err = m.address(v, true)
	case attrMappedAddress:
		// Servers older than RFC 5389 send only this one; a later
		// XOR-MAPPED-ADDRESS takes its place, not the other way round.
		var a netip.AddrPort
		if a, err = m.address(v, false); !m.Mapped.IsValid() {
			m.Mapped = a
		}
	case attrErrorCode:
		// RFC 8489 §14.8: 21 zero bits, class 3 to 6, number 0 to 99.
		if len(v) < 4 || v[2]&7 < 3 || v[2]&7 > 6 || v[3] > 99 {
			return errAttribute
		}
		m.Code = int(v[2]&7)*100 + int(v[3])
	case attrRealm:
		if len(v) > maxText {
			return errAttribute
		}
		m.Realm = string(v)
	case attrNonce:
		if len(v) > maxText {
			return errAttribute
		}
		m.Nonce = true
	}
	return err
}

// address reads (XOR-)MAPPED-ADDRESS, RFC 8489 §14.1 and §14.2.
func (m *Message) address(v []byte, xored bool) (netip.AddrPort, error) {
	if len(v) < 4 || !(v[1] == 1 && len(v) == 8 || v[1] == 2 && len(v) == 20) {
		return netip.AddrPort{}, errAttribute
	}
	port, ip := binary.BigEndian.Uint16(v[2:]), v[4:]
	if xored {
		port ^= cookie >> 16
		var key [16]byte
		binary.BigEndian.PutUint32(key[:], cookie)
		copy(key[4:], m.ID[:])
		ip = make([]byte, len(v)-4)
		for i := range ip {
			ip[i] = v[4+i] ^ key[i]
		}
	}
	a, _ := netip.AddrFromSlice(ip)
	return netip.AddrPortFrom(a, port), nil
}
