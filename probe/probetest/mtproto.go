package probetest

import (
	"bufio"
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/binary"
	"io"
	"math/big"
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/coder/websocket"

	"github.com/messenger-probe/messenger-probe/probe/wire/mtproto"
)

// A DC is a Telegram data centre up to the answer that proves its key. The
// zero value lists no key.
type DC struct {
	Key          *rsa.PrivateKey // nil: it has none
	Fingerprints []uint64        // listed before that of Key
	Ahead        time.Duration   // of its clock before ours

	// Change alters an answer (a message, not yet framed); nil leaves it.
	Change func(answer []byte) []byte
	// Write puts a framed answer on the wire; nil writes it at once.
	Write func(w io.Writer, frame []byte)
	// Tell hears the number that a client of obfuscated2 gave; nil is deaf.
	Tell func(dc int16)
}

// RSAKey is a key for tests, the same one each time.
var RSAKey = sync.OnceValue(func() *rsa.PrivateKey {
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return k
})

// Serve answers on one connection of TCP, in whatever transport the client
// speaks: core.telegram.org/mtproto/mtproto-transports says how they begin.
func (d DC) Serve(c net.Conn) { d.serve(c) }

func (d DC) serve(c io.ReadWriter) {
	r := bufio.NewReader(c)
	head, err := r.Peek(4)
	if err != nil {
		return
	}
	switch {
	case string(head) == "POST":
		d.serveHTTP(r, c)
		return
	case head[0] == 0xef:
		r.Discard(1)
	case bytes.Equal(head, []byte{0xee, 0xee, 0xee, 0xee}), bytes.Equal(head, []byte{0xdd, 0xdd, 0xdd, 0xdd}):
		r.Discard(4)
	default:
		d.serveObfuscated(r, c)
		return
	}
	d.talk(r, c, head[0])
}

// serveObfuscated undoes obfuscated2.
func (d DC) serveObfuscated(r io.Reader, w io.Writer) {
	head := make([]byte, 64)
	if _, err := io.ReadFull(r, head); err != nil {
		return
	}
	stream := func(b []byte) cipher.Stream {
		block, err := aes.NewCipher(b[:32])
		if err != nil {
			panic(err)
		}
		return cipher.NewCTR(block, b[32:48])
	}
	in := stream(head[8:56])
	slices.Reverse(head)
	out := stream(head[8:56])
	slices.Reverse(head)
	in.XORKeyStream(head, head)
	if d.Tell != nil {
		d.Tell(int16(binary.LittleEndian.Uint16(head[60:])))
	}
	d.talk(cipher.StreamReader{S: in, R: r}, cipher.StreamWriter{S: out, W: w}, head[56])
}

// talk answers messages framed as the tag says.
func (d DC) talk(r io.Reader, w io.Writer, tag byte) {
	var s dcSession
	for {
		var n [4]byte
		length := n[:]
		if tag == 0xef {
			length = n[:1]
		}
		if _, err := io.ReadFull(r, length); err != nil {
			return
		}
		size := binary.LittleEndian.Uint32(n[:])
		if tag == 0xef {
			size *= 4
		}
		if size > 4096 {
			return
		}
		msg := make([]byte, size)
		if _, err := io.ReadFull(r, msg); err != nil {
			return
		}
		answer := d.answer(&s, msg)
		var frame []byte
		switch {
		case tag == 0xef && len(answer)/4 < 0x7f:
			frame = []byte{byte(len(answer) / 4)}
		case tag == 0xef:
			frame = []byte{0x7f, byte(len(answer) / 4), byte(len(answer) / 4 >> 8), 0}
		default:
			if tag == 0xdd {
				answer = append(answer, make([]byte, len(answer)%16)...)
			}
			frame = binary.LittleEndian.AppendUint32(nil, uint32(len(answer)))
		}
		d.write(w, append(frame, answer...))
	}
}

func (d DC) write(w io.Writer, b []byte) {
	if d.Write != nil {
		d.Write(w, b)
		return
	}
	w.Write(b)
}

// serveHTTP answers POST /api.
func (d DC) serveHTTP(r *bufio.Reader, w io.Writer) {
	var s dcSession
	for {
		req, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		msg, err := io.ReadAll(io.LimitReader(req.Body, 4096))
		if err != nil {
			return
		}
		if req.Method != http.MethodPost || req.URL.Path != "/api" {
			io.WriteString(w, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
			continue
		}
		answer := d.answer(&s, msg)
		head := "HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nContent-type: application/octet-stream\r\nContent-length: " +
			strconv.Itoa(len(answer)) + "\r\n\r\n"
		d.write(w, append([]byte(head), answer...))
	}
}

// ServeHTTP is the WebSocket at /apiws, where clients must ask for the
// subprotocol binary and speak obfuscated2.
func (d DC) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/apiws" {
		http.NotFound(w, r)
		return
	}
	ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{"binary"}, InsecureSkipVerify: true})
	if err != nil {
		return
	}
	defer ws.CloseNow()
	if ws.Subprotocol() != "binary" {
		return
	}
	c := websocket.NetConn(context.Background(), ws, websocket.MessageBinary)
	d.serveObfuscated(c, c)
}

// A dcSession is what a server remembers between two requests.
type dcSession struct {
	nonce, serverNonce [16]byte
}

// answer is the answer to one message, -404 to what it does not understand.
func (d DC) answer(s *dcSession, msg []byte) []byte {
	answer := binary.LittleEndian.AppendUint32(nil, 0xfffffe6c)
	if n := messageLen(msg); n >= 20 {
		body := msg[20 : 20+n] // padding may follow
		switch binary.LittleEndian.Uint32(body) {
		case 0xbe7e8ef1: // req_pq_multi
			s.nonce = [16]byte(body[4:])
			rand.Read(s.serverNonce[:])
			answer = d.message(d.resPQ(s))
		case 0xd712e4be: // req_DH_params
			if b := d.dhParams(s, body); b != nil {
				answer = d.message(b)
			}
		}
	}
	if d.Change != nil {
		answer = d.Change(answer)
	}
	return answer
}

// messageLen is the length of an unencrypted message's body, -1 of anything
// else.
func messageLen(msg []byte) int {
	if len(msg) < 20 || [8]byte(msg) != [8]byte{} {
		return -1
	}
	n := binary.LittleEndian.Uint32(msg[16:])
	if uint64(n) > uint64(len(msg)-20) {
		return -1
	}
	return int(n)
}

func (d DC) message(body []byte) []byte {
	now := time.Now().Add(d.Ahead)
	id := uint64(now.Unix())<<32 | uint64(now.Nanosecond())<<32/1e9
	b := binary.LittleEndian.AppendUint64(make([]byte, 8), id&^3|1)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(body)))
	return append(b, body...)
}

func (d DC) resPQ(s *dcSession) []byte {
	keys := d.Fingerprints
	if d.Key != nil {
		keys = append(slices.Clone(keys), mtproto.Fingerprint(&d.Key.PublicKey))
	}
	b := binary.LittleEndian.AppendUint32(nil, 0x05162463)
	b = slices.Concat(b, s.nonce[:], s.serverNonce[:])
	// The pq of core.telegram.org/mtproto/samples-auth_key.
	b = append(b, 8, 0x17, 0xed, 0x48, 0x94, 0x1a, 0x08, 0xf9, 0x81, 0, 0, 0)
	b = binary.LittleEndian.AppendUint32(b, 0x1cb5c415)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(keys)))
	for _, k := range keys {
		b = binary.LittleEndian.AppendUint64(b, k)
	}
	return b
}

// dhParams is the body of a server_DH_params_ok, nil where the request cannot
// be decrypted.
func (d DC) dhParams(s *dcSession, body []byte) []byte {
	// p and q of the pq above take 8 bytes each, and 256 of encrypted data
	// follow the fingerprint and their own length.
	const at = 4 + 16 + 16 + 8 + 8 + 8 + 4
	if d.Key == nil || len(body) != at+256 {
		return nil
	}
	m := new(big.Int).Exp(new(big.Int).SetBytes(body[at:]), d.Key.D, d.Key.N).FillBytes(make([]byte, 256))
	newNonce, ok := openRSAPad(m)
	if !ok {
		return nil
	}
	inner := binary.LittleEndian.AppendUint32(nil, 0xb5890dba)
	inner = slices.Concat(inner, s.nonce[:], s.serverNonce[:])
	inner = binary.LittleEndian.AppendUint32(inner, 3)
	for range 2 { // dh_prime and g_a, which nobody here uses
		number := make([]byte, 256)
		rand.Read(number)
		inner = append(append(inner, 254, 0, 1, 0), number...)
	}
	inner = binary.LittleEndian.AppendUint32(inner, uint32(time.Now().Add(d.Ahead).Unix()))
	sum := sha1.Sum(inner)
	inner = append(sum[:], inner...)
	inner = append(inner, make([]byte, (16-len(inner)%16)%16)...)
	key, iv := mtproto.TemporaryKey(newNonce, s.serverNonce)
	mtproto.EncryptIGE(inner, inner, key, iv)

	b := binary.LittleEndian.AppendUint32(nil, 0xd0e8075c)
	b = slices.Concat(b, s.nonce[:], s.serverNonce[:])
	b = append(b, 254, byte(len(inner)), byte(len(inner)>>8), 0)
	return append(b, inner...)
}

// openRSAPad takes the new nonce out of a decrypted RSA_PAD
// (core.telegram.org/mtproto/auth_key).
func openRSAPad(m []byte) (newNonce [32]byte, ok bool) {
	sum := sha256.Sum256(m[32:])
	var key [32]byte
	for i := range key {
		key[i] = m[i] ^ sum[i]
	}
	mtproto.DecryptIGE(m[32:], m[32:], key, [32]byte{})
	data := m[32:224]
	slices.Reverse(data)
	if sha256.Sum256(slices.Concat(key[:], data)) != [32]byte(m[224:]) {
		return newNonce, false
	}
	// p_q_inner_data_dc: id, pq, p, q, nonce, server_nonce, new_nonce.
	const at = 4 + 12 + 8 + 8 + 16 + 16
	return [32]byte(data[at:]), true
}
