package mtproto

import (
	"bytes"
	"crypto/aes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"encoding/pem"
	"math/big"
	"math/bits"
	"slices"
	"time"
)

// Fingerprints of the RSA keys that Telegram's data centres are known to list:
// the key in today's clients (computed from [ProductionKey]), and two older
// ones that are still listed beside it. CDN data centres have others.
var ProductionFingerprints = []uint64{0xd09d1d85de64fd85, 0x0bc35f3509f7b7a5, 0xc3b42b026ce86b21}

// TestFingerprints are those of the test data centres (from [TestKey]).
var TestFingerprints = []uint64{0xb25898df208d2603}

// ProductionKey and TestKey are the public keys that clients ship, from
// tdlib/td td/telegram/net/PublicRsaKeySharedMain.cpp.
func ProductionKey() *rsa.PublicKey { return parseKey(productionPEM) }
func TestKey() *rsa.PublicKey       { return parseKey(testPEM) }

const productionPEM = `-----BEGIN RSA PUBLIC KEY-----
MIIBCgKCAQEA6LszBcC1LGzyr992NzE0ieY+BSaOW622Aa9Bd4ZHLl+TuFQ4lo4g
5nKaMBwK/BIb9xUfg0Q29/2mgIR6Zr9krM7HjuIcCzFvDtr+L0GQjae9H0pRB2OO
62cECs5HKhT5DZ98K33vmWiLowc621dQuwKWSQKjWf50XYFw42h21P2KXUGyp2y/
+aEyZ+uVgLLQbRA1dEjSDZ2iGRy12Mk5gpYc397aYp438fsJoHIgJ2lgMv5h7WY9
t6N/byY9Nw9p21Og3AoXSL2q/2IJ1WRUhebgAdGVMlV1fkuOQoEzR7EdpqtQD9Cs
5+bfo3Nhmcyvk5ftB0WkJ9z6bNZ7yxrP8wIDAQAB
-----END RSA PUBLIC KEY-----`

const testPEM = `-----BEGIN RSA PUBLIC KEY-----
MIIBCgKCAQEAyMEdY1aR+sCR3ZSJrtztKTKqigvO/vBfqACJLZtS7QMgCGXJ6XIR
yy7mx66W0/sOFa7/1mAZtEoIokDP3ShoqF4fVNb6XeqgQfaUHd8wJpDWHcR2OFwv
plUUI1PLTktZ9uW2WE23b+ixNwJjJGwBDJPQEQFBE+vfmH0JP503wr5INS1poWg/
j25sIWeYPHYeOrFp/eXaqhISP6G+q2IeTaWTXpwZj4LzXq5YOpk4bYEQ6mvRq7D1
aHWfYmlEGepfaYR8Q0YqvvhYtMte3ITnuSJs171+GDqpdKcSwHnd6FudwGO4pcCO
j4WcDuXc2CTHgH8gFTNhp/Y8/SpDOhvn9QIDAQAB
-----END RSA PUBLIC KEY-----`

func parseKey(text string) *rsa.PublicKey {
	block, _ := pem.Decode([]byte(text))
	k, err := x509.ParsePKCS1PublicKey(block.Bytes)
	if err != nil {
		panic(err) // a constant of ours
	}
	return k
}

// Fingerprint is how a resPQ names a key: the last 8 bytes of the SHA-1 of its
// modulus and exponent (core.telegram.org/mtproto/auth_key).
func Fingerprint(k *rsa.PublicKey) uint64 {
	b := appendBytes(nil, k.N.Bytes())
	b = appendBytes(b, big.NewInt(int64(k.E)).Bytes())
	sum := sha1.Sum(b)
	return binary.LittleEndian.Uint64(sum[12:])
}

// A Challenge is a req_DH_params that waits for its answer.
type Challenge struct {
	nonce, serverNonce [16]byte
	newNonce           [32]byte
}

// Prove is a req_DH_params message, encrypted to k. Whoever answers it right
// holds the private half of k: the answer is encrypted under a key made from
// 32 random bytes that travel only inside the RSA. dc is as in
// [NewObfuscated]. It costs one factorization (milliseconds; bounded) and
// fails with [ErrMalformed] if the server's pq is not a product of two primes.
func (r ResPQ) Prove(k *rsa.PublicKey, dc int32, now time.Time) ([]byte, *Challenge, error) {
	p, q := factor(r.PQ)
	if p == 0 || k.Size() != 256 {
		return nil, nil, ErrMalformed
	}
	c := &Challenge{nonce: r.Nonce, serverNonce: r.ServerNonce}
	rand.Read(c.newNonce[:])
	pb, qb := big.NewInt(int64(p)).Bytes(), big.NewInt(int64(q)).Bytes()

	inner := binary.LittleEndian.AppendUint32(make([]byte, 0, 144), idPQInnerDataDC)
	inner = appendBytes(inner, new(big.Int).SetUint64(r.PQ).Bytes())
	inner = appendBytes(appendBytes(inner, pb), qb)
	inner = slices.Concat(inner, c.nonce[:], c.serverNonce[:], c.newNonce[:])
	inner = binary.LittleEndian.AppendUint32(inner, uint32(dc))

	body := binary.LittleEndian.AppendUint32(make([]byte, 0, 320), idReqDHParams)
	body = slices.Concat(body, c.nonce[:], c.serverNonce[:])
	body = appendBytes(appendBytes(body, pb), qb)
	body = binary.LittleEndian.AppendUint64(body, Fingerprint(k))
	body = appendBytes(body, rsaPad(inner, k))
	return append(appendHeader(nil, now, len(body)), body...), c, nil
}

// Check says whether msg is the server_DH_params_ok that only the key's holder
// can make. The error is a [ServerError], [ErrNonce], [ErrProof] or
// [ErrMalformed].
func (c *Challenge) Check(msg []byte) error {
	_, body, err := parseMessage(msg)
	if err != nil {
		return err
	}
	r := reader{b: body}
	if r.uint32() != idServerDHParamsOK {
		return ErrMalformed
	}
	nonce, serverNonce, sealed := r.next(16), r.next(16), r.bytes()
	switch {
	case r.short || len(sealed) == 0 || len(sealed)%aes.BlockSize != 0:
		return ErrMalformed
	case !bytes.Equal(nonce, c.nonce[:]) || !bytes.Equal(serverNonce, c.serverNonce[:]):
		return ErrNonce
	}
	key, iv := TemporaryKey(c.newNonce, c.serverNonce)
	answer := make([]byte, len(sealed))
	DecryptIGE(answer, sealed, key, iv)

	// The answer follows its SHA-1; where it ends shows only when it is read.
	if len(answer) < sha1.Size {
		return ErrProof
	}
	sum, answer := answer[:sha1.Size], answer[sha1.Size:]
	in := reader{b: answer}
	id := in.uint32()
	nonce, serverNonce = in.next(16), in.next(16)
	in.uint32() // g
	in.bytes()  // dh_prime
	in.bytes()  // g_a
	in.uint32() // server_time
	if in.short || id != idServerDHInnerData || len(in.b) > 15 {
		return ErrProof
	}
	if sha1.Sum(answer[:len(answer)-len(in.b)]) != [sha1.Size]byte(sum) ||
		!bytes.Equal(nonce, c.nonce[:]) || !bytes.Equal(serverNonce, c.serverNonce[:]) {
		return ErrProof
	}
	return nil
}

// TemporaryKey is the AES key and IV of a server_DH_params_ok
// (core.telegram.org/mtproto/auth_key, step 5).
func TemporaryKey(newNonce [32]byte, serverNonce [16]byte) (key, iv [32]byte) {
	ns := sha1.Sum(slices.Concat(newNonce[:], serverNonce[:]))
	sn := sha1.Sum(slices.Concat(serverNonce[:], newNonce[:]))
	nn := sha1.Sum(slices.Concat(newNonce[:], newNonce[:]))
	copy(key[:], ns[:])
	copy(key[20:], sn[:12])
	copy(iv[:], sn[12:])
	copy(iv[8:], nn[:])
	copy(iv[28:], newNonce[:4])
	return key, iv
}

// rsaPad encrypts data of at most 144 bytes to k
// (core.telegram.org/mtproto/auth_key, RSA_PAD).
func rsaPad(data []byte, k *rsa.PublicKey) []byte {
	padded := make([]byte, 192)
	rand.Read(padded[copy(padded, data):])
	reversed := slices.Clone(padded)
	slices.Reverse(reversed)
	for {
		var key [32]byte
		rand.Read(key[:])
		sum := sha256.Sum256(slices.Concat(key[:], padded))
		sealed := slices.Concat(key[:], reversed, sum[:])
		EncryptIGE(sealed[32:], sealed[32:], key, [32]byte{})
		sum = sha256.Sum256(sealed[32:])
		for i := range sum {
			sealed[i] ^= sum[i]
		}
		m := new(big.Int).SetBytes(sealed)
		if m.Cmp(k.N) < 0 {
			return m.Exp(m, big.NewInt(int64(k.E)), k.N).FillBytes(sealed)
		}
	}
}

// EncryptIGE and DecryptIGE are AES-256 in infinite garble extension, which
// MTProto alone uses: each block is mixed with the plaintext and the
// ciphertext before it. len(src) is a multiple of 16; dst may be src.
func EncryptIGE(dst, src []byte, key, iv [32]byte) { ige(dst, src, key[:], iv, true) }
func DecryptIGE(dst, src []byte, key, iv [32]byte) { ige(dst, src, key[:], iv, false) }

func ige(dst, src, key []byte, iv [32]byte, encrypt bool) {
	block, err := aes.NewCipher(key)
	if err != nil {
		panic(err) // 32 bytes are a key
	}
	crypt := block.Encrypt
	before, after := [16]byte(iv[:16]), [16]byte(iv[16:])
	if !encrypt {
		crypt = block.Decrypt
		before, after = after, before
	}
	for i := 0; i < len(src); i += 16 {
		in := [16]byte(src[i : i+16])
		out := [16]byte{}
		for j := range out {
			out[j] = in[j] ^ before[j]
		}
		crypt(out[:], out[:])
		for j := range out {
			out[j] ^= after[j]
		}
		copy(dst[i:], out[:])
		before, after = out, in
	}
}

// factor splits a product of two primes, p < q, by Brent's variant of Pollard's
// rho. It gives up, with zeros, after enough steps for any pq that a server
// may send (2^63-1: primes below 2^32, some 2^16 steps expected).
func factor(pq uint64) (p, q uint64) {
	if pq < 4 {
		return 0, 0
	}
	if pq%2 == 0 {
		return 2, pq / 2
	}
	step := func(x, c uint64) uint64 { return mulmod(x, x, pq, c) }
	const batch, most = 128, 1 << 19
	for c, steps := uint64(1), 0; steps < most; c++ {
		y, x, ys, g, acc := uint64(2), uint64(2), uint64(2), uint64(1), uint64(1)
		for r := 1; g == 1 && steps < most; r *= 2 {
			x = y
			for range r {
				y = step(y, c)
			}
			steps += r
			for k := 0; k < r && g == 1; k += batch {
				ys = y
				for range min(batch, r-k) {
					y = step(y, c)
					acc = mulmod(acc, max(x, y)-min(x, y), pq, 0)
				}
				steps += batch
				g = gcd(acc, pq)
			}
		}
		if g == pq {
			for g = 1; g == 1; {
				ys = step(ys, c)
				g = gcd(max(x, ys)-min(x, ys), pq)
			}
		}
		if g != 1 && g != pq {
			return min(g, pq/g), max(g, pq/g)
		}
	}
	return 0, 0
}

// mulmod is (a·b + c) mod m, for a, b < m < 2^63 and a small c.
func mulmod(a, b, m, c uint64) uint64 {
	hi, lo := bits.Mul64(a, b)
	lo, carry := bits.Add64(lo, c, 0)
	return bits.Rem64(hi+carry, lo, m)
}

func gcd(a, b uint64) uint64 {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}
