// Package noise speaks the first two messages of WhatsApp's Noise handshake:
// the client's hello, which carries nothing but a fresh key, and the server's,
// whose certificate chain proves who answered. The third message, which would
// say who is asking, is never made.
//
// The pattern is Noise_XX_25519_AESGCM_SHA256 with one difference from the
// specification, and hence from general Noise libraries: the hash of the first
// message's empty payload is not mixed in.
//
// Sources: tulir/whatsmeow handshake.go, socket/noisehandshake.go,
// socket/framesocket.go, proto/waCert/WACert.proto; noiseprotocol.org/noise.html.
package noise

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
)

// MaxFrame is the longest frame that is read, in bytes. A server's hello is
// about 350.
const MaxFrame = 16 << 10

// What a wrong answer can be.
var (
	ErrFrame     = errors.New("noise: frame length out of bounds")
	ErrMalformed = errors.New("noise: not a server hello")
	ErrDecrypt   = errors.New("noise: answer to another hello")
	ErrUntrusted = errors.New("noise: certificate not signed under the root")
	ErrKey       = errors.New("noise: certificate of another key")
	ErrExpired   = errors.New("noise: certificate not valid now")
)

// Prologue opens a connection: "WA", the magic value of web clients, and the
// version of the token dictionary.
var Prologue = [4]byte{'W', 'A', 6, 3}

// pattern is exactly as long as a hash, so it is the first hash as it stands.
const pattern = "Noise_XX_25519_AESGCM_SHA256\x00\x00\x00\x00"

// A Client is one handshake of ours.
type Client struct {
	key *ecdh.PrivateKey
}

// NewClient draws the key for one handshake.
func NewClient() (*Client, error) {
	k, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	return &Client{k}, nil
}

// HelloSize is the length of a [Client.Hello].
const HelloSize = 43

// Hello is the bytes that open a connection: the prologue, and a frame that
// holds HandshakeMessage{clientHello: {ephemeral}}.
func (c *Client) Hello() []byte {
	b := append(make([]byte, 0, HelloSize), Prologue[:]...)
	b = append(b, 0, 0, 36, 2<<3|2, 34, 1<<3|2, 32)
	return append(b, c.key.PublicKey().Bytes()...)
}

// ReadFrame reads one frame of 1 byte to [MaxFrame] after its 3-byte length.
func ReadFrame(r io.Reader) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[1:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n == 0 || n > MaxFrame {
		return nil, ErrFrame
	}
	frame := make([]byte, n)
	if _, err := io.ReadFull(r, frame); err == io.EOF {
		return nil, io.ErrUnexpectedEOF
	} else if err != nil {
		return nil, err
	}
	return frame, nil
}

// ServerHello decrypts a server's answer to our [Client.Hello]. The error is
// [ErrMalformed] or [ErrDecrypt].
func (c *Client) ServerHello(frame []byte) (Server, error) {
	msg, ok := parse(frame)
	if !ok {
		return Server{}, ErrMalformed
	}
	hello, ok := parse(msg.bytes[3])
	ephemeral, static, payload := hello.bytes[1], hello.bytes[2], hello.bytes[3]
	if !ok || len(ephemeral) != 32 || len(static) != 32+16 || len(payload) <= 16 {
		return Server{}, ErrMalformed
	}

	s := start()
	s.mixHash(c.key.PublicKey().Bytes())
	s.mixHash(ephemeral)
	if !s.mixDH(c.key, ephemeral) {
		return Server{}, ErrMalformed
	}
	key, err := s.open(static)
	if err != nil {
		return Server{}, ErrDecrypt
	}
	if !s.mixDH(c.key, key) {
		return Server{}, ErrMalformed
	}
	chain, err := s.open(payload)
	if err != nil {
		return Server{}, ErrDecrypt
	}
	return Server{Static: [32]byte(key), Chain: chain}, nil
}

// A Server is what a server said of itself; [Server.Verify] says whether to
// believe it.
type Server struct {
	Static [32]byte // its long-term key, which it has proved to hold
	Chain  []byte   // a CertChain, undecoded
}

// A state is Noise's symmetric state.
type state struct {
	hash, salt [32]byte
	aead       cipher.AEAD
	counter    uint32
}

func start() *state {
	s := &state{hash: [32]byte([]byte(pattern))}
	s.salt = s.hash
	s.setKey(s.hash[:])
	s.mixHash(Prologue[:])
	return s
}

func (s *state) setKey(key []byte) {
	block, err := aes.NewCipher(key)
	if err != nil {
		panic(err) // 32 bytes are a key
	}
	if s.aead, err = cipher.NewGCM(block); err != nil {
		panic(err) // AES has the right block size
	}
	s.counter = 0
}

func (s *state) mixHash(data []byte) {
	h := sha256.New()
	h.Write(s.hash[:])
	h.Write(data)
	h.Sum(s.hash[:0])
}

// mixDH fails for the few public keys whose shared secret is zero.
func (s *state) mixDH(k *ecdh.PrivateKey, peer []byte) bool {
	pub, err := ecdh.X25519().NewPublicKey(peer)
	if err != nil {
		return false
	}
	secret, err := k.ECDH(pub)
	if err != nil {
		return false
	}
	out, err := hkdf.Key(sha256.New, secret, s.salt[:], "", 64)
	if err != nil {
		return false
	}
	s.salt = [32]byte(out[:32])
	s.setKey(out[32:])
	return true
}

func (s *state) nonce() []byte {
	iv := make([]byte, 12)
	binary.BigEndian.PutUint32(iv[8:], s.counter)
	s.counter++
	return iv
}

func (s *state) open(sealed []byte) ([]byte, error) {
	text, err := s.aead.Open(nil, s.nonce(), sealed, s.hash[:])
	if err == nil {
		s.mixHash(sealed)
	}
	return text, err
}
