// Package mtproto speaks the first words of Telegram's MTProto: enough to ask a
// data centre for its part of a key exchange and to tell its answer from
// anybody else's. It makes no authorization key and knows no account.
//
// An exchange is one [ReqPQ] and one [ParseResPQ] over a [Stream]. [ResPQ.Prove]
// goes one step further, to the answer that only the holder of the RSA key can
// give. Everything read is bounded by [MaxFrame].
//
// Sources: core.telegram.org/mtproto/mtproto-transports and
// core.telegram.org/mtproto/auth_key; tdlib/td td/mtproto/TcpTransport.cpp,
// td/generate/scheme/mtproto_api.tl.
package mtproto

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"
)

// What an answer that is no resPQ to our question can be. A [ServerError] is
// none of these: it is an answer.
var (
	ErrFrame     = errors.New("mtproto: frame length out of bounds")
	ErrMalformed = errors.New("mtproto: not the expected message")
	ErrNonce     = errors.New("mtproto: answer to another question")
	ErrProof     = errors.New("mtproto: server does not hold the key")
)

// A ServerError is the bare negative number that a server sends in place of a
// message: -404 no such key, -429 too many connections, -444 wrong data centre
// (core.telegram.org/mtproto/mtproto-transports#transport-errors).
type ServerError int32

func (e ServerError) Error() string { return fmt.Sprintf("mtproto: server error %d", int32(e)) }

// Constructor numbers, from td/generate/scheme/mtproto_api.tl.
const (
	idReqPQMulti        = 0xbe7e8ef1
	idResPQ             = 0x05162463
	idVector            = 0x1cb5c415
	idPQInnerDataDC     = 0xa9f55f95
	idReqDHParams       = 0xd712e4be
	idServerDHParamsOK  = 0xd0e8075c
	idServerDHInnerData = 0xb5890dba
)

// headerLen is auth_key_id, msg_id and the length of an unencrypted message.
const headerLen = 8 + 8 + 4

// maxFingerprints bounds the keys that a resPQ may list; real ones list one to
// three.
const maxFingerprints = 64

// ReqPQ is a req_pq_multi message of 40 bytes. The nonce must be fresh: the
// answer is known by it.
func ReqPQ(nonce [16]byte, now time.Time) []byte {
	b := appendHeader(make([]byte, 0, headerLen+20), now, 20)
	b = binary.LittleEndian.AppendUint32(b, idReqPQMulti)
	return append(b, nonce[:]...)
}

// A ResPQ is a server's answer to [ReqPQ].
type ResPQ struct {
	Nonce, ServerNonce [16]byte
	PQ                 uint64    // product of two primes, at most 2^63-1
	Fingerprints       []uint64  // of the RSA keys that the server holds
	Time               time.Time // the server's clock, from its msg_id
}

// ParseResPQ reads an answer to the [ReqPQ] with this nonce. The error is a
// [ServerError], [ErrNonce] or [ErrMalformed].
func ParseResPQ(msg []byte, nonce [16]byte) (ResPQ, error) {
	at, body, err := parseMessage(msg)
	if err != nil {
		return ResPQ{}, err
	}
	r := reader{b: body}
	if r.uint32() != idResPQ {
		return ResPQ{}, ErrMalformed
	}
	res := ResPQ{Time: at}
	copy(res.Nonce[:], r.next(16))
	copy(res.ServerNonce[:], r.next(16))
	pq := r.bytes()
	if len(pq) > 8 || r.uint32() != idVector {
		return ResPQ{}, ErrMalformed
	}
	for _, c := range pq {
		res.PQ = res.PQ<<8 | uint64(c)
	}
	n := r.uint32()
	if n > maxFingerprints || len(r.b) != int(n)*8 {
		return ResPQ{}, ErrMalformed
	}
	res.Fingerprints = make([]uint64, n)
	for i := range res.Fingerprints {
		res.Fingerprints[i] = r.uint64()
	}
	switch {
	case r.short:
		return ResPQ{}, ErrMalformed
	case res.Nonce != nonce:
		return ResPQ{}, ErrNonce
	}
	return res, nil
}

// Knows says whether the server holds one of these keys.
func (r ResPQ) Knows(fingerprints []uint64) bool {
	return slices.ContainsFunc(r.Fingerprints, func(f uint64) bool {
		return slices.Contains(fingerprints, f)
	})
}

// appendHeader starts an unencrypted message with n bytes of body. A msg_id is
// unix time in units of 2^-32 s; a client's is divisible by 4, and servers
// refuse one that is more than 300 s old or 30 s ahead
// (core.telegram.org/mtproto/description#message-identifier-msg-id).
func appendHeader(b []byte, now time.Time, n int) []byte {
	id := uint64(now.Unix())<<32 | uint64(now.Nanosecond())<<32/1e9
	b = binary.LittleEndian.AppendUint64(b, 0)
	b = binary.LittleEndian.AppendUint64(b, id&^3)
	return binary.LittleEndian.AppendUint32(b, uint32(n))
}

// parseMessage takes a message apart. Up to 15 bytes may follow it: the padded
// transport does not say where its padding begins.
func parseMessage(msg []byte) (time.Time, []byte, error) {
	if len(msg) >= 4 && len(msg) < headerLen {
		// A number takes 4 bytes, and 15 of padding at most. Codes are those
		// of HTTP, negated; anything else is no answer of a server.
		if code := int32(binary.LittleEndian.Uint32(msg)); code > -600 && code <= -400 {
			return time.Time{}, nil, ServerError(code)
		}
	}
	r := reader{b: msg}
	if r.uint64() != 0 {
		return time.Time{}, nil, ErrMalformed
	}
	id, n := r.uint64(), r.uint32()
	if r.short || int(n) > len(r.b) || len(r.b)-int(n) > 15 {
		return time.Time{}, nil, ErrMalformed
	}
	return time.Unix(int64(id>>32), int64(id&0xffffffff*1e9>>32)), r.b[:n], nil
}

// A reader takes TL values off a message; short is set by the first that is
// not there, and all later ones are zero
// (core.telegram.org/mtproto/serialize).
type reader struct {
	b     []byte
	short bool
}

func (r *reader) next(n int) []byte {
	if r.short || n > len(r.b) {
		r.short = true
		return nil
	}
	v := r.b[:n]
	r.b = r.b[n:]
	return v
}

func (r *reader) uint32() uint32 {
	if v := r.next(4); v != nil {
		return binary.LittleEndian.Uint32(v)
	}
	return 0
}

func (r *reader) uint64() uint64 {
	if v := r.next(8); v != nil {
		return binary.LittleEndian.Uint64(v)
	}
	return 0
}

// bytes is a string: its length in one byte, or 254 and three, then the bytes,
// all padded to a multiple of 4.
func (r *reader) bytes() []byte {
	if r.short || len(r.b) < 4 {
		r.short = true
		return nil
	}
	n, skip := int(r.b[0]), 1
	if n == 254 {
		n, skip = int(r.b[1])|int(r.b[2])<<8|int(r.b[3])<<16, 4
	} else if n == 255 {
		r.short = true
		return nil
	}
	v := r.next((skip + n + 3) &^ 3)
	if r.short {
		return nil
	}
	return v[skip : skip+n]
}

// appendBytes is the inverse of reader.bytes.
func appendBytes(b, v []byte) []byte {
	start := len(b)
	if len(v) < 254 {
		b = append(b, byte(len(v)))
	} else {
		b = append(b, 254, byte(len(v)), byte(len(v)>>8), byte(len(v)>>16))
	}
	b = append(b, v...)
	for (len(b)-start)%4 != 0 {
		b = append(b, 0)
	}
	return b
}
