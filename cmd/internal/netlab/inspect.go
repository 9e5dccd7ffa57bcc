package netlab

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"

	"github.com/miekg/dns"
)

// What a middlebox reads in payloads, as far as it reads it.

// A reader takes big-endian fields off a slice; what is not there reads as
// nothing, and sets short.
type reader struct {
	b     []byte
	short bool
}

func (r *reader) take(n int) []byte {
	if n < 0 || n > len(r.b) {
		r.b, r.short = nil, true
		return nil
	}
	b := r.b[:n]
	r.b = r.b[n:]
	return b
}

func (r *reader) number(bytes int) (n int) {
	for _, c := range r.take(bytes) {
		n = n<<8 | int(c)
	}
	return n
}

// varint is QUIC's (RFC 9000 §16).
func (r *reader) varint() int {
	if len(r.b) == 0 {
		r.short = true
		return 0
	}
	size := 1 << (r.b[0] >> 6)
	return r.number(size) & (1<<(8*size-2) - 1)
}

// tlsName is the server name in a TLS stream that begins with a ClientHello,
// which may lie in several records; "" where it cannot be seen, or not yet.
func tlsName(stream []byte) string {
	var hello []byte
	for r := (reader{b: stream}); ; {
		head := r.take(5)
		if r.short || head[0] != 22 { // RFC 8446 §5.1: handshake
			break
		}
		n := int(binary.BigEndian.Uint16(head[3:]))
		hello = append(hello, r.b[:min(n, len(r.b))]...)
		r.take(n)
	}
	return helloName(hello)
}

// tlsRecords is how many records of a type begin in a stream.
func tlsRecords(stream []byte, kind byte) (n int) {
	for r := (reader{b: stream}); len(r.b) >= 5; {
		head := r.take(5)
		if head[0] == kind {
			n++
		}
		size := int(binary.BigEndian.Uint16(head[3:]))
		r.take(min(size, len(r.b)))
	}
	return n
}

// helloName is the server name in a ClientHello (RFC 8446 §4.1.2, RFC 6066 §3).
func helloName(hello []byte) string {
	r := reader{b: hello}
	if r.number(1) != 1 {
		return ""
	}
	r.b = r.take(r.number(3))
	r.take(2 + 32)
	r.take(r.number(1)) // session
	r.take(r.number(2)) // cipher suites
	r.take(r.number(1)) // compression
	r.b = r.take(r.number(2))
	for len(r.b) > 0 {
		kind, body := r.number(2), reader{b: r.take(r.number(2))}
		if kind == 0 {
			body.take(3) // of the list, and the type: host_name
			return string(body.take(body.number(2)))
		}
	}
	return ""
}

// quicVersion is the version in a long header, and whether it is one.
func quicVersion(b []byte) (uint32, bool) {
	if len(b) < 7 || b[0]&0x80 == 0 {
		return 0, false
	}
	return binary.BigEndian.Uint32(b[1:]), true
}

// A quicHello gathers the ClientHello of a QUIC connection from its client's
// Initial packets, which anybody on the path can decrypt (RFC 9001 §5.2).
type quicHello struct {
	keys   *initialKeys
	parts  map[int][]byte // CRYPTO frames by offset
	failed bool
}

type initialKeys struct {
	aead cipher.AEAD
	iv   []byte
	hp   cipher.Block
}

// newInitialKeys are a client's keys for the connection ID that it chose.
func newInitialKeys(dcid []byte) *initialKeys {
	salt := []byte{0x38, 0x76, 0x2c, 0xf7, 0xf5, 0x59, 0x34, 0xb3, 0x4d, 0x17, 0x9a, 0xe6, 0xa4, 0xc8, 0x0c, 0xad, 0xcc, 0xbb, 0x7f, 0x0a}
	initial, err := hkdf.Extract(sha256.New, dcid, salt)
	must(err)
	client := expandLabel(initial, "client in", 32)
	block, err := aes.NewCipher(expandLabel(client, "quic key", 16))
	must(err)
	aead, err := cipher.NewGCM(block)
	must(err)
	hp, err := aes.NewCipher(expandLabel(client, "quic hp", 16))
	must(err)
	return &initialKeys{aead, expandLabel(client, "quic iv", 12), hp}
}

// must is for what fails only where the program is wrong.
func must(err error) {
	if err != nil {
		panic(err)
	}
}

// expandLabel is HKDF-Expand-Label with no context (RFC 8446 §7.1).
func expandLabel(secret []byte, label string, n int) []byte {
	label = "tls13 " + label
	info := append([]byte{byte(n >> 8), byte(n), byte(len(label))}, label...)
	b, err := hkdf.Expand(sha256.New, secret, string(append(info, 0)), n)
	must(err)
	return b
}

// feed takes a client's datagram.
func (q *quicHello) feed(datagram []byte) {
	for b := datagram; len(b) > 0 && !q.failed; { // packets may share a datagram
		if v, long := quicVersion(b); !long || v != 1 {
			return
		}
		first := b[0]
		r := reader{b: b[5:]}
		dcid := r.take(r.number(1))
		r.take(r.number(1))
		initial := first>>4&3 == 0
		if initial {
			r.take(r.varint()) // token
		}
		length := r.varint()
		head := len(b) - len(r.b)
		r.take(length)
		if r.short {
			return
		}
		if initial {
			if q.keys == nil {
				q.keys, q.parts = newInitialKeys(dcid), map[int][]byte{}
			}
			q.open(b[:head+length], head)
		}
		b = r.b
	}
}

// open decrypts one Initial, whose packet number starts at pn (RFC 9001 §5.4).
func (q *quicHello) open(packet []byte, pn int) {
	b := append([]byte(nil), packet...)
	if len(b) < pn+20 {
		return
	}
	var mask [16]byte
	q.keys.hp.Encrypt(mask[:], b[pn+4:pn+20])
	b[0] ^= mask[0] & 15
	n := int(b[0]&3) + 1
	nonce := append([]byte(nil), q.keys.iv...)
	for i := range n {
		b[pn+i] ^= mask[1+i]
		nonce[len(nonce)-n+i] ^= b[pn+i]
	}
	frames, err := q.keys.aead.Open(nil, nonce, b[pn+n:], b[:pn+n])
	if err != nil {
		q.failed = true
		return
	}
	for r := (reader{b: frames}); len(r.b) > 0; {
		switch kind := r.number(1); kind { // RFC 9000 §19
		case 0, 1: // PADDING, PING
		case 2, 3: // ACK
			r.varint()
			r.varint()
			ranges := r.varint()
			r.varint()
			for ; ranges > 0 && !r.short; ranges-- {
				r.varint()
				r.varint()
			}
		case 6: // CRYPTO
			at := r.varint()
			q.parts[at] = r.take(r.varint())
		default:
			return
		}
	}
}

// name is the server name, "" while it cannot be seen.
func (q *quicHello) name() string {
	var hello []byte
	for {
		grown := false
		for at, part := range q.parts {
			if at <= len(hello) && at+len(part) > len(hello) {
				hello, grown = append(hello, part[len(hello)-at:]...), true
			}
		}
		if !grown {
			return helloName(hello)
		}
	}
}

// dnsQuery is the question in a UDP payload, nil where it is none.
func dnsQuery(b []byte) *dns.Msg {
	m := new(dns.Msg)
	if m.Unpack(b) != nil || m.Response || len(m.Question) != 1 {
		return nil
	}
	return m
}
