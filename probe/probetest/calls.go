package probetest

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"sync/atomic"
	"time"
)

// Calls answers as a messenger's call servers do, for [ServeUDP]: STUN Binding
// with the attributes and the 84 bytes that Telegram's relays send, TURN
// Allocate with a 401 of 92 bytes, a reflector's hello with its self-info.
type Calls struct {
	Realm string // of the 401; "" is telegram.org
	Code  int    // of the answer to Allocate; 0 is 401
	IPv6  bool   // the mapped address is one

	// Change makes of the answer to the datagram number i, from 0, what is sent;
	// nil: the answer.
	Change func(i int, request, answer []byte) [][]byte

	heard atomic.Int64
}

// Heard is how many datagrams came.
func (c *Calls) Heard() int { return int(c.heard.Load()) }

// Answer is what is sent back for one datagram.
func (c *Calls) Answer(request []byte) [][]byte {
	i := int(c.heard.Add(1)) - 1
	request = bytes.Clone(request)
	var answer []byte
	switch {
	case len(request) == 40 && bytes.Equal(request[16:32], append(bytes.Repeat([]byte{0xff}, 12), 0xfe, 0xff, 0xff, 0xff)):
		answer = selfInfo(request)
	case len(request) == 20 && bytes.Equal(request[:8], []byte{0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42}):
		answer = c.binding(request)
	case len(request) == 28 && bytes.Equal(request[:8], []byte{0, 3, 0, 8, 0x21, 0x12, 0xa4, 0x42}) &&
		bytes.Equal(request[20:], []byte{0, 0x19, 0, 4, 17, 0, 0, 0}):
		answer = c.challenge(request)
	}
	if c.Change != nil {
		return c.Change(i, request, answer)
	}
	if answer == nil {
		return nil
	}
	return [][]byte{answer}
}

func (c *Calls) binding(request []byte) []byte {
	b := append([]byte{1, 1, 0, 0}, request[4:20]...)
	if c.IPv6 {
		addr := append([]byte{0, 2, 0x1c, 0x47, 0x20, 1, 0x0d, 0xb8}, make([]byte, 12)...)
		xored := bytes.Clone(addr)
		xored[2], xored[3] = xored[2]^0x21, xored[3]^0x12
		for i := range 16 {
			xored[4+i] ^= request[4+i] // cookie and transaction id
		}
		return seal(attribute(b, 0x0020, xored))
	}
	addr := []byte{0, 1, 0x80, 0x55, 192, 0, 2, 1} // 192.0.2.1:32853
	b = attribute(b, 0x0020, []byte{0, 1, 0xa1, 0x47, 0xe1, 0x12, 0xa6, 0x43})
	b = attribute(b, 0x0001, addr)
	b = attribute(b, 0x802b, addr)
	b = attribute(b, 0x802c, addr)
	return seal(attribute(b, 0x8022, []byte("None")))
}

func (c *Calls) challenge(request []byte) []byte {
	code, realm := c.Code, c.Realm
	if code == 0 {
		code = 401
	}
	if realm == "" {
		realm = "telegram.org"
	}
	b := append([]byte{1, 0x13, 0, 0}, request[4:20]...)
	b = attribute(b, 0x0009, append([]byte{0, 0, byte(code / 100), byte(code % 100)}, "Unauthorized"...))
	if code == 401 {
		b = attribute(b, 0x0015, []byte("0123456789abcdef"))
		b = attribute(b, 0x0014, []byte(realm))
	}
	return seal(attribute(b, 0x8022, []byte("None")))
}

// attribute appends a STUN attribute, RFC 8489 §14.
func attribute(b []byte, typ uint16, v []byte) []byte {
	b = binary.BigEndian.AppendUint16(b, typ)
	b = binary.BigEndian.AppendUint16(b, uint16(len(v)))
	b = append(b, v...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)-20))
	return b
}

// seal appends FINGERPRINT, RFC 8489 §14.7.
func seal(b []byte) []byte {
	at := len(b)
	b = attribute(b, 0x8028, make([]byte, 4))
	binary.BigEndian.PutUint32(b[at+4:], crc32.ChecksumIEEE(b[:at])^0x5354554e)
	return b
}

func selfInfo(hello []byte) []byte {
	b := bytes.Clone(hello[:28])
	b = append(b, 0xc7, 0x72, 0x15, 0xc0)
	b = binary.LittleEndian.AppendUint32(b, uint32(time.Now().Unix()))
	b = append(b, hello[32:40]...)
	b = append(b, make([]byte, 10)...)
	b = append(b, 0xff, 0xff, 192, 0, 2, 1)
	return binary.LittleEndian.AppendUint32(b, 32853)
}
