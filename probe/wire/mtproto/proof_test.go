package mtproto

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/binary"
	"math/big"
	"slices"
	"sync"
	"testing"
	"time"
)

func TestFingerprint(t *testing.T) {
	if got := Fingerprint(ProductionKey()); got != ProductionFingerprints[0] {
		t.Errorf("production key: %016x", got)
	}
	if got := Fingerprint(TestKey()); got != TestFingerprints[0] {
		t.Errorf("test key: %016x", got)
	}
}

// The first vector of OpenSSL's test/igetest.c, which is of AES-128.
func TestIGE(t *testing.T) {
	key := unhex(t, "000102030405060708090a0b0c0d0e0f")
	iv := [32]byte(unhex(t, "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"))
	want := unhex(t, "1a8519a6557be652e9da8e43da4ef4453cf456b4ca488aa383c79c98b34797cb")
	got := make([]byte, 32)
	ige(got, got, key, iv, true)
	if !bytes.Equal(got, want) {
		t.Errorf("got %x", got)
	}
	ige(got, got, key, iv, false)
	if !bytes.Equal(got, make([]byte, 32)) {
		t.Errorf("back: %x", got)
	}
}

func TestFactor(t *testing.T) {
	for _, c := range [][2]uint64{
		{1229739323, 1402015859}, // Telegram's sample: 17ED48941A08F981 = 494C553B * 53911073
		{2, 3}, {3, 3}, {3, 5}, {7, 7}, {65537, 65539}, {2147483629, 2147483647}, {2147483647, 2147483647},
		{3037000453, 3037000493}, // just below 2^63
		{2, 4611686018427387847}, {3, 3074457345618258599},
	} {
		if p, q := factor(c[0] * c[1]); p != c[0] || q != c[1] {
			t.Errorf("factor(%d * %d) = %d, %d", c[0], c[1], p, q)
		}
	}
	for _, n := range []uint64{0, 1, 2, 3, 1<<63 - 25, 1<<64 - 59} { // the last two are prime
		start := time.Now()
		if p, q := factor(n); p != 0 || q != 0 {
			t.Errorf("factor(%d) = %d, %d", n, p, q)
		}
		if took := time.Since(start); took > 5*time.Second {
			t.Errorf("factor(%d) took %v", n, took)
		}
	}
}

var serverKey = sync.OnceValue(func() *rsa.PrivateKey {
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return k
})

// open undoes rsaPad as core.telegram.org/mtproto/auth_key tells servers to.
func open(t *testing.T, sealed []byte, k *rsa.PrivateKey) []byte {
	t.Helper()
	m := new(big.Int).Exp(new(big.Int).SetBytes(sealed), k.D, k.N).FillBytes(make([]byte, 256))
	sum := sha256.Sum256(m[32:])
	var key [32]byte
	for i := range key {
		key[i] = m[i] ^ sum[i]
	}
	DecryptIGE(m[32:], m[32:], key, [32]byte{})
	data := m[32:224]
	slices.Reverse(data)
	if sha256.Sum256(slices.Concat(key[:], data)) != [32]byte(m[224:]) {
		t.Fatal("RSA_PAD: the hash does not fit")
	}
	return data
}

func TestProve(t *testing.T) {
	k := serverKey()
	msg, nonce := samplePQ(t)
	res, err := ParseResPQ(msg, nonce)
	if err != nil {
		t.Fatal(err)
	}
	ask, c, err := res.Prove(&k.PublicKey, 2, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	_, body, err := parseMessage(ask)
	if err != nil || len(ask) != 20+320 {
		t.Fatalf("%d bytes, %v", len(ask), err)
	}
	r := reader{b: body[36:]}
	if p, q := r.bytes(), r.bytes(); !bytes.Equal(p, unhex(t, "494c553b")) || !bytes.Equal(q, unhex(t, "53911073")) {
		t.Errorf("p %x, q %x", p, q)
	}
	if f := r.uint64(); f != Fingerprint(&k.PublicKey) {
		t.Errorf("fingerprint %x", f)
	}
	in := reader{b: open(t, r.bytes(), k)}
	if id := in.uint32(); id != idPQInnerDataDC {
		t.Fatalf("inner data %x", id)
	}
	if pq := in.bytes(); !bytes.Equal(pq, unhex(t, "17ed48941a08f981")) {
		t.Errorf("pq %x", pq)
	}
	in.bytes()
	in.bytes()
	in.next(32)
	newNonce := [32]byte(in.next(32))
	if dc := in.uint32(); dc != 2 || in.short {
		t.Errorf("dc %d", dc)
	}

	answer := func(newNonce [32]byte, change func(inner []byte) []byte) []byte {
		inner := binary.LittleEndian.AppendUint32(nil, idServerDHInnerData)
		inner = slices.Concat(inner, res.Nonce[:], res.ServerNonce[:])
		inner = binary.LittleEndian.AppendUint32(inner, 3)
		inner = appendBytes(appendBytes(inner, make([]byte, 256)), make([]byte, 256))
		inner = binary.LittleEndian.AppendUint32(inner, 1700000000)
		sum := sha1.Sum(inner)
		inner = change(append(sum[:], inner...))
		inner = append(inner, make([]byte, (16-len(inner)%16)%16)...)
		key, iv := TemporaryKey(newNonce, res.ServerNonce)
		EncryptIGE(inner, inner, key, iv)
		body := binary.LittleEndian.AppendUint32(nil, idServerDHParamsOK)
		body = appendBytes(slices.Concat(body, res.Nonce[:], res.ServerNonce[:]), inner)
		return append(appendHeader(nil, time.Now(), len(body)), body...)
	}
	same := func(b []byte) []byte { return b }
	good := answer(newNonce, same)
	if err := c.Check(good); err != nil {
		t.Errorf("the right answer: %v", err)
	}
	other := slices.Clone(good)
	other[24]++
	for name, c2 := range map[string]struct {
		msg  []byte
		want error
	}{
		"another key":  {answer([32]byte{}, same), ErrProof},
		"a bit turned": {answer(newNonce, func(b []byte) []byte { b[100] ^= 1; return b }), ErrProof},
		"cut":          {answer(newNonce, func(b []byte) []byte { return b[:100] }), ErrProof},
		"too long":     {answer(newNonce, func(b []byte) []byte { return append(b, make([]byte, 32)...) }), ErrProof},
		"one block":    {answer(newNonce, func(b []byte) []byte { return b[:16] }), ErrProof},
		"other nonce":  {other, ErrNonce},
		"a resPQ":      {msg, ErrMalformed},
		"-404":         {unhex(t, "6cfeffff"), ServerError(-404)},
		"nothing":      {nil, ErrMalformed},
	} {
		if err := c.Check(c2.msg); err != c2.want {
			t.Errorf("%s: %v", name, err)
		}
	}
	for i := range good {
		if c.Check(good[:i]) == nil {
			t.Errorf("%d of %d bytes were taken", i, len(good))
		}
	}

	res.PQ = 1<<63 - 25
	if _, _, err := res.Prove(&k.PublicKey, 2, time.Now()); err != ErrMalformed {
		t.Errorf("a prime pq: %v", err)
	}
}
