package probetest

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"io"
	"net"
	"strings"
	"sync"
	"time"
)

// A Tarpit wants to be a burden to who asks. Once it has heard the first words
// it says Head, and then Again for as long as somebody reads, 100 MB at most,
// or waits; it never hangs up by itself.
type Tarpit struct {
	Head, Again []byte
	Every       time.Duration // a byte at a time, this far apart; 0 as fast as it goes
}

// enoughForAnybody is what a flood ends after.
const enoughForAnybody = 100 << 20

// Serve is a burden to who opened c, whose TLS is somebody else's matter.
func (p Tarpit) Serve(c net.Conn) {
	hear(c)
	p.Burden(c)
}

// Burden is Serve to who has said the first words.
func (p Tarpit) Burden(c net.Conn) {
	var hearing sync.WaitGroup
	hearing.Go(func() { io.Copy(io.Discard, c) })
	defer hearing.Wait() // until the client has gone
	if p.Every > 0 {
		for b := append(bytes.Clone(p.Head), p.Again...); ; {
			for i := range b {
				if _, err := c.Write(b[i : i+1]); err != nil {
					return
				}
				time.Sleep(p.Every)
			}
			if b = p.Again; len(b) == 0 {
				return
			}
		}
	}
	if _, err := c.Write(p.Head); err != nil || len(p.Again) == 0 {
		return
	}
	again := bytes.Repeat(p.Again, 1+(16<<10)/len(p.Again))
	for n := 0; n < enoughForAnybody; n += len(again) {
		if _, err := c.Write(again); err != nil {
			return
		}
	}
}

// Sealed is a TLS server that, after the handshake, can send what crypto/tls
// never would. talk is given the connection below TLS, to write to, and what
// makes a record of a content type.
func Sealed(conf *tls.Config, talk func(raw io.Writer, seal func(kind byte, b []byte) []byte)) func(net.Conn) {
	return func(raw net.Conn) {
		var log, wire bytes.Buffer
		conf := conf.Clone()
		conf.KeyLogWriter = &log
		conf.SessionTicketsDisabled = true // the first record is ours
		conf.CipherSuites = []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256}
		c := tls.Server(&written{raw, &wire}, conf)
		if c.Handshake() != nil {
			return
		}
		var hearing sync.WaitGroup
		hearing.Go(func() { io.Copy(io.Discard, raw) })
		defer hearing.Wait()
		talk(raw, newSealer(c.ConnectionState(), log.String(), wire.Bytes()).seal)
	}
}

type written struct {
	net.Conn
	all *bytes.Buffer
}

func (c *written) Write(b []byte) (int, error) {
	c.all.Write(b)
	return c.Conn.Write(b)
}

// A sealer makes records in the server's name, with AES-128-GCM.
type sealer struct {
	tls13  bool
	secret []byte // TLS 1.3: of the server's traffic
	key    cipher.AEAD
	iv     []byte
	seq    uint64
}

// newSealer takes the keys from a key log (NSS format) and, for TLS 1.2, the
// server's random from its first record.
func newSealer(cs tls.ConnectionState, log string, wire []byte) *sealer {
	s := &sealer{tls13: cs.Version == tls.VersionTLS13}
	if s.tls13 && cs.CipherSuite != tls.TLS_AES_128_GCM_SHA256 {
		panic("not AES-128-GCM: " + tls.CipherSuiteName(cs.CipherSuite))
	}
	for line := range strings.Lines(log) {
		f := strings.Fields(line)
		random, _ := hex.DecodeString(f[1])
		secret, _ := hex.DecodeString(f[2])
		switch f[0] {
		case "SERVER_TRAFFIC_SECRET_0":
			s.rekey(secret)
		case "CLIENT_RANDOM": // RFC 5246 §6.3: two keys, then two salts
			block := prf12(secret, "key expansion", append(bytes.Clone(wire[11:43]), random...), 2*16+2*4)
			s.key, s.iv, s.seq = gcm(block[16:32]), block[36:40], 1 // after Finished
		}
	}
	return s
}

func gcm(key []byte) cipher.AEAD {
	b, err := aes.NewCipher(key)
	if err != nil {
		panic(err)
	}
	a, err := cipher.NewGCM(b)
	if err != nil {
		panic(err)
	}
	return a
}

// rekey derives what a traffic secret gives, RFC 8446 §7.3.
func (s *sealer) rekey(secret []byte) {
	s.secret, s.key, s.iv, s.seq = secret, gcm(expand13(secret, "key", 16)), expand13(secret, "iv", 12), 0
}

// seal makes a record. What follows a KeyUpdate is under the next key.
func (s *sealer) seal(kind byte, b []byte) []byte {
	seq := binary.BigEndian.AppendUint64(nil, s.seq)
	s.seq++
	if !s.tls13 { // RFC 5288
		head := []byte{kind, 3, 3, 0, 0}
		ad := append(bytes.Clone(seq), kind, 3, 3, byte(len(b)>>8), byte(len(b)))
		body := s.key.Seal(bytes.Clone(seq), append(bytes.Clone(s.iv), seq...), b, ad)
		binary.BigEndian.PutUint16(head[3:], uint16(len(body)))
		return append(head, body...)
	}
	inner := append(bytes.Clone(b), kind) // RFC 8446 §5.2
	head := binary.BigEndian.AppendUint16([]byte{23, 3, 3}, uint16(len(inner)+16))
	nonce := bytes.Clone(s.iv)
	for i, x := range seq {
		nonce[4+i] ^= x
	}
	record := append(head, s.key.Seal(nil, nonce, inner, head)...)
	if kind == 22 && len(b) > 0 && b[0] == 24 {
		s.rekey(expand13(s.secret, "traffic upd", 32))
	}
	return record
}

// expand13 is HKDF-Expand-Label with SHA-256 and no context, RFC 8446 §7.1.
func expand13(secret []byte, label string, n int) []byte {
	info := append([]byte{0, byte(n), byte(6 + len(label))}, "tls13 "+label+"\x00"...)
	b, err := hkdf.Expand(sha256.New, secret, string(info), n)
	if err != nil {
		panic(err)
	}
	return b
}

// prf12 is P_SHA256, RFC 5246 §5.
func prf12(secret []byte, label string, seed []byte, n int) (out []byte) {
	sum := func(parts ...[]byte) []byte {
		h := hmac.New(sha256.New, secret)
		for _, p := range parts {
			h.Write(p)
		}
		return h.Sum(nil)
	}
	seed = append([]byte(label), seed...)
	for a := sum(seed); len(out) < n; a = sum(a) {
		out = append(out, sum(a, seed)...)
	}
	return out[:n]
}
