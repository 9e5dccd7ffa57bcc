package probetest

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"io"
	"math/big"
	"net"
	"net/http"
	"slices"
	"time"

	"github.com/coder/websocket"
)

// Noise is a WhatsApp chat server under a root key of its own, up to its hello.
type Noise struct {
	Root [32]byte // what a client must trust, a Curve25519 public key

	root, intermediate ed25519.PrivateKey
	static             *ecdh.PrivateKey

	// NotBefore and NotAfter are in both certificates, in unix seconds; 0
	// leaves them out.
	NotBefore, NotAfter uint64
	// Certified is the key in the leaf; zero is the server's own.
	Certified [32]byte

	// Change alters an answer before it is framed; nil leaves it.
	Change func(answer []byte) []byte
	// Write puts a framed answer on the wire; nil writes it at once.
	Write func(w io.Writer, frame []byte)
}

// NewNoise makes a server with fresh keys whose certificates are valid today.
func NewNoise() *Noise {
	key := func() ed25519.PrivateKey {
		_, k, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			panic(err)
		}
		return k
	}
	static, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		panic(err)
	}
	now := uint64(time.Now().Unix())
	s := &Noise{root: key(), intermediate: key(), static: static, NotBefore: now - 86400, NotAfter: now + 86400}
	s.Root = montgomery(s.root)
	return s
}

// Serve answers on one connection of TCP.
func (s *Noise) Serve(c net.Conn) { s.serve(c) }

// ServeHTTP is the WebSocket at /ws/chat, which wants the origin of the web
// client.
func (s *Noise) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/ws/chat" || r.Header.Get("Origin") != "https://web.whatsapp.com" {
		http.Error(w, "no", http.StatusForbidden)
		return
	}
	ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true})
	if err != nil {
		return
	}
	defer ws.CloseNow()
	s.serve(websocket.NetConn(context.Background(), ws, websocket.MessageBinary))
}

func (s *Noise) serve(c io.ReadWriter) {
	hello := make([]byte, 43)
	if _, err := io.ReadFull(c, hello); err != nil {
		return
	}
	answer := s.Answer(hello)
	if answer == nil {
		return
	}
	if s.Change != nil {
		answer = s.Change(answer)
	}
	frame := append([]byte{byte(len(answer) >> 16), byte(len(answer) >> 8), byte(len(answer))}, answer...)
	if s.Write != nil {
		s.Write(c, frame)
	} else {
		c.Write(frame)
	}
	// A client that goes on has said more than it should.
	io.Copy(io.Discard, c)
}

// Answer is the server's hello to a client's 43 bytes, without its length; nil
// where they are no hello.
func (s *Noise) Answer(hello []byte) []byte {
	if string(hello[:11]) != "WA\x06\x03\x00\x00\x24\x12\x22\x0a\x20" {
		return nil
	}
	peer, err := ecdh.X25519().NewPublicKey(hello[11:])
	if err != nil {
		return nil
	}
	ephemeral, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		panic(err)
	}

	// Noise_XX_25519_AESGCM_SHA256 as WhatsApp has it: package noise.
	h := [32]byte([]byte("Noise_XX_25519_AESGCM_SHA256\x00\x00\x00\x00"))
	salt, key := h, h[:]
	mix := func(b []byte) { h = sha256.Sum256(append(h[:], b...)) }
	agree := func(k *ecdh.PrivateKey) {
		secret, err := k.ECDH(peer)
		if err != nil {
			panic(err)
		}
		out, err := hkdf.Key(sha256.New, secret, salt[:], "", 64)
		if err != nil {
			panic(err)
		}
		salt, key = [32]byte(out), out[32:]
	}
	seal := func(b []byte) []byte {
		block, err := aes.NewCipher(key)
		if err != nil {
			panic(err)
		}
		aead, err := cipher.NewGCM(block)
		if err != nil {
			panic(err)
		}
		sealed := aead.Seal(nil, make([]byte, 12), b, h[:]) // one message a key
		mix(sealed)
		return sealed
	}
	mix([]byte(hello[:4]))
	mix(peer.Bytes())
	mix(ephemeral.PublicKey().Bytes())
	agree(ephemeral)
	static := seal(s.static.PublicKey().Bytes())
	agree(s.static)
	payload := seal(s.chain())
	return protoField(3, slices.Concat(protoField(1, ephemeral.PublicKey().Bytes()), protoField(2, static), protoField(3, payload)))
}

// chain is the CertChain of proto/waCert/WACert.proto in tulir/whatsmeow.
func (s *Noise) chain() []byte {
	leafKey := s.Certified
	if leafKey == ([32]byte{}) {
		leafKey = [32]byte(s.static.PublicKey().Bytes())
	}
	intermediateKey := montgomery(s.intermediate)
	leaf := s.certificate(2, 1, leafKey[:], s.intermediate)
	intermediate := s.certificate(1, 0, intermediateKey[:], s.root)
	return slices.Concat(protoField(1, leaf), protoField(2, intermediate))
}

func (s *Noise) certificate(serial, issuer uint64, key []byte, signer ed25519.PrivateKey) []byte {
	details := slices.Concat(protoNumber(1, serial), protoNumber(2, issuer), protoField(3, key))
	if s.NotBefore != 0 {
		details = append(details, protoNumber(4, s.NotBefore)...)
	}
	if s.NotAfter != 0 {
		details = append(details, protoNumber(5, s.NotAfter)...)
	}
	// XEdDSA's verifier finds the Ed25519 key from the Curve25519 key and the
	// sign that is in the signature's last bit.
	signature := ed25519.Sign(signer, details)
	signature[63] |= signer.Public().(ed25519.PublicKey)[31] & 0x80
	return slices.Concat(protoField(1, details), protoField(2, signature))
}

// montgomery is the Curve25519 key u = (1+y)/(1-y) of an Ed25519 key (RFC 7748
// §4.1).
func montgomery(k ed25519.PrivateKey) [32]byte {
	le := [32]byte(k.Public().(ed25519.PublicKey))
	le[31] &= 0x7f
	slices.Reverse(le[:])
	one := big.NewInt(1)
	p := new(big.Int).Sub(new(big.Int).Lsh(one, 255), big.NewInt(19))
	y := new(big.Int).SetBytes(le[:])
	u := new(big.Int).ModInverse(new(big.Int).Sub(one, y), p)
	u.Mul(u, new(big.Int).Add(one, y)).Mod(u, p)
	u.FillBytes(le[:])
	slices.Reverse(le[:])
	return le
}

// protoField and protoNumber are protobuf fields.
func protoField(n int, b []byte) []byte {
	return append(binary.AppendUvarint([]byte{byte(n<<3 | 2)}, uint64(len(b))), b...)
}

func protoNumber(n int, v uint64) []byte {
	return binary.AppendUvarint([]byte{byte(n << 3)}, v)
}
