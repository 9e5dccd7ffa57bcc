//go:build unix

package probe

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"io"
	"net"
	"testing"
	"time"

	"github.com/messenger-probe/messenger-probe/probe/wire/mtproto"
)

// The floor of an MTProto check is a connection, the same bytes out and in, and
// the cryptography that the protocol demands: the nonce, and for obfuscated2
// the header and the two key streams.

func BenchmarkMTProto(b *testing.B) {
	peer := benchServer(b, "mtproto")
	first := benchMTProtoFirst(b, peer, false)
	pairing(b, func() {
		var nonce [16]byte
		rand.Read(nonce[:])
		benchMTProtoBare(b, peer, first)
	}, benchProber(b, MTProto{Addr: peer.Addr}))
}

func BenchmarkMTProtoObfuscated2(b *testing.B) {
	peer := benchServer(b, "mtproto")
	first := benchMTProtoFirst(b, peer, true)
	pairing(b, func() {
		random := make([]byte, 16+64)
		rand.Read(random)
		work := make([]byte, 64+44)
		for range 2 {
			block, err := aes.NewCipher(random[:32])
			if err != nil {
				b.Fatal(err)
			}
			cipher.NewCTR(block, random[32:48]).XORKeyStream(work, work)
		}
		benchMTProtoBare(b, peer, first)
	}, benchProber(b, MTProto{Addr: peer.Addr, Transport: "obfuscated2", DC: 2}))
}

// BenchmarkMTProtoCrypto is that cryptography alone, of obfuscated2.
func BenchmarkMTProtoCrypto(b *testing.B) {
	for b.Loop() {
		s := mtproto.NewObfuscated(discard{}, mtproto.Intermediate, 2)
		var nonce [16]byte
		rand.Read(nonce[:])
		s.Send(mtproto.ReqPQ(nonce, time.Now()))
	}
}

type discard struct{ io.Reader }

func (discard) Write(b []byte) (int, error) { return len(b), nil }

// benchMTProtoFirst is what a client sends first.
func benchMTProtoFirst(b *testing.B, peer benchPeer, obfuscated bool) []byte {
	b.Helper()
	var w recorder
	s := mtproto.NewStream(&w, mtproto.Intermediate)
	if obfuscated {
		s = mtproto.NewObfuscated(&w, mtproto.Intermediate, 2)
	}
	s.Send(mtproto.ReqPQ([16]byte{1}, time.Now()))
	return w.b
}

type recorder struct {
	io.Reader
	b []byte
}

func (r *recorder) Write(b []byte) (int, error) {
	r.b = append(r.b, b...)
	return len(b), nil
}

// benchMTProtoBare sends first and reads an answer that lists two keys.
func benchMTProtoBare(b *testing.B, peer benchPeer, first []byte) {
	c, err := net.DialTimeout("tcp", peer.Addr.String(), 10*time.Second)
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write(first); err != nil {
		b.Fatal(err)
	}
	if _, err := io.ReadFull(c, make([]byte, 4+20+56+2*8)); err != nil {
		b.Fatal(err)
	}
}
