package noise

import (
	"bytes"
	"crypto/ecdh"
	"encoding/hex"
	"encoding/json"
	"io"
	"os"
	"slices"
	"testing"
	"testing/iotest"
	"time"
)

// recording is an exchange with whatsmeow's own handshake and libsignal's
// signatures, made by probe/interop. Its certificates are valid from 2023 to
// 2027.
type recording struct {
	client              *Client
	hello, frame, chain []byte
	root, static        [32]byte
}

var during = time.Unix(1750000000, 0)

func readRecording(tb testing.TB) (r recording) {
	tb.Helper()
	b, err := os.ReadFile("testdata/whatsmeow.json")
	if err != nil {
		tb.Fatal(err)
	}
	var text map[string]string
	if err := json.Unmarshal(b, &text); err != nil {
		tb.Fatal(err)
	}
	bytes := make(map[string][]byte)
	for k, v := range text {
		if bytes[k], err = hex.DecodeString(v); err != nil {
			tb.Fatal(err)
		}
	}
	key, err := ecdh.X25519().NewPrivateKey(bytes["client"])
	if err != nil {
		tb.Fatal(err)
	}
	return recording{&Client{key}, bytes["hello"], bytes["frame"], bytes["chain"], [32]byte(bytes["root"]), [32]byte(bytes["static"])}
}

func TestRecording(t *testing.T) {
	r := readRecording(t)
	want := append([]byte{'W', 'A', 6, 3, 0, 0, 36}, r.hello...)
	if got := r.client.Hello(); !bytes.Equal(got, want) {
		t.Errorf("hello %x\nwant  %x", got, want)
	}
	s, err := r.client.ServerHello(r.frame)
	if err != nil {
		t.Fatal(err)
	}
	if s.Static != r.static || !bytes.Equal(s.Chain, r.chain) {
		t.Errorf("static %x, chain %x", s.Static, s.Chain)
	}
	for name, c := range map[string]struct {
		root [32]byte
		now  time.Time
		want error
	}{
		"trusted":               {r.root, during, nil},
		"WhatsApp's root":       {Root, during, ErrUntrusted},
		"the top bit is no key": {flip(r.root, 255), during, nil}, // RFC 7748 §5
		"before":                {r.root, time.Unix(1600000000, 0), ErrExpired},
		"after":                 {r.root, time.Unix(1900000000, 0), ErrExpired},
		"a minute early":        {r.root, time.Unix(1700000000-60, 0), nil},
		"a minute late":         {r.root, time.Unix(1800000000+60, 0), nil},
	} {
		if err := s.Verify(c.root, c.now); err != c.want {
			t.Errorf("%s: %v", name, err)
		}
	}
	s.Static[0]++
	if err := s.Verify(r.root, during); err != ErrKey {
		t.Errorf("another key: %v", err)
	}
}

func flip(k [32]byte, bit int) [32]byte {
	k[bit/8] ^= 1 << (bit % 8)
	return k
}

// Nothing in the answer can be altered, added or left out unseen.
func TestAltered(t *testing.T) {
	r := readRecording(t)
	for i := range r.frame {
		frame := slices.Clone(r.frame)
		frame[i] ^= 1
		if s, err := r.client.ServerHello(frame); err == nil {
			t.Errorf("byte %d altered: %x was taken", i, s.Static)
		} else if err != ErrMalformed && err != ErrDecrypt {
			t.Errorf("byte %d altered: %v", i, err)
		}
		if _, err := r.client.ServerHello(r.frame[:i]); err != ErrMalformed {
			t.Errorf("%d bytes: %v", i, err)
		}
	}
	for i := range r.chain {
		chain := slices.Clone(r.chain)
		chain[i] ^= 1
		if (Server{r.static, chain}).Verify(r.root, during) == nil {
			t.Errorf("byte %d of the chain altered: was believed", i)
		}
	}
	for bit := range 255 {
		if err := (Server{r.static, r.chain}).Verify(flip(r.root, bit), during); err != ErrUntrusted {
			t.Errorf("bit %d of the root: %v", bit, err)
		}
	}
	other, err := NewClient()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.ServerHello(r.frame); err != ErrDecrypt {
		t.Errorf("answer to another hello: %v", err)
	}
}

// A key of low order makes a shared secret that everybody knows.
func TestLowOrder(t *testing.T) {
	r := readRecording(t)
	frame := slices.Clone(r.frame)
	at := bytes.Index(frame, []byte{0x0a, 0x20}) + 2
	clear(frame[at : at+32])
	if _, err := r.client.ServerHello(frame); err != ErrMalformed {
		t.Errorf("ephemeral key 0: %v", err)
	}
}

func TestReadFrame(t *testing.T) {
	for _, n := range []int{1, 350, MaxFrame} {
		b := append([]byte{byte(n >> 16), byte(n >> 8), byte(n)}, make([]byte, n)...)
		if got, err := ReadFrame(iotest.OneByteReader(bytes.NewReader(b))); err != nil || len(got) != n {
			t.Errorf("%d bytes: got %d, %v", n, len(got), err)
		}
		if _, err := ReadFrame(bytes.NewReader(b[:len(b)-1])); err != io.ErrUnexpectedEOF {
			t.Errorf("%d bytes cut short: %v", n, err)
		}
		if _, err := ReadFrame(bytes.NewReader(b[:3])); err != io.ErrUnexpectedEOF {
			t.Errorf("%d bytes that do not come: %v", n, err)
		}
	}
	for _, head := range [][]byte{{0, 0, 0}, {0, 0x40, 1}, {0xff, 0xff, 0xff}, []byte("HTTP"), {21, 3, 1}} {
		if _, err := ReadFrame(bytes.NewReader(append(head, make([]byte, 1<<20)...))); err != ErrFrame {
			t.Errorf("length %x: %v", head, err)
		}
	}
	if _, err := ReadFrame(bytes.NewReader(nil)); err != io.EOF {
		t.Errorf("nothing: %v", err)
	}
}

func TestParse(t *testing.T) {
	m, ok := parse([]byte{
		1 << 3, 0x96, 1, // varint 150
		2<<3 | 1, 1, 2, 3, 4, 5, 6, 7, 8, // 8 bytes, skipped
		3<<3 | 2, 2, 'a', 'b',
		4<<3 | 5, 1, 2, 3, 4, // 4 bytes, skipped
		0xfa, 1, 1, 'x', // field 31, skipped
		3<<3 | 2, 1, 'c', // the last one counts
	})
	if !ok || m.number[1] != 150 || string(m.bytes[3]) != "c" {
		t.Errorf("%v %+v", ok, m)
	}
	for name, b := range map[string][]byte{
		"no value":       {1 << 3},
		"field 0":        {0, 1},
		"group":          {1<<3 | 3},
		"end of group":   {1<<3 | 4},
		"wire type 6":    {1<<3 | 6},
		"long varint":    {1 << 3, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2},
		"past the end":   {1<<3 | 2, 2, 'a'},
		"2^63 bytes":     {1<<3 | 2, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f, 'a'},
		"2^64-1 bytes":   {1<<3 | 2, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 'a'},
		"7 of 8 bytes":   {1<<3 | 1, 1, 2, 3, 4, 5, 6, 7},
		"3 of 4 bytes":   {1<<3 | 5, 1, 2, 3},
		"length missing": {1<<3 | 2},
	} {
		if _, ok := parse(b); ok {
			t.Errorf("%s was taken", name)
		}
	}
}

func BenchmarkHandshake(b *testing.B) {
	r := readRecording(b)
	for b.Loop() {
		c, err := NewClient()
		if err != nil {
			b.Fatal(err)
		}
		c.Hello()
		s, err := r.client.ServerHello(r.frame)
		if err != nil {
			b.Fatal(err)
		}
		if err := s.Verify(r.root, during); err != nil {
			b.Fatal(err)
		}
	}
}

func FuzzReadFrame(f *testing.F) {
	r := readRecording(f)
	f.Add(append([]byte{0, byte(len(r.frame) >> 8), byte(len(r.frame))}, r.frame...))
	f.Add([]byte("HTTP/1.1 400 Bad Request\r\n\r\n"))
	f.Add([]byte{0, 0, 0})
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		frame, err := ReadFrame(bytes.NewReader(b))
		switch {
		case err == nil && (len(frame) == 0 || len(frame) > MaxFrame || len(frame) > len(b)-3):
			t.Errorf("%d bytes out of %d", len(frame), len(b))
		case err != nil && err != ErrFrame && err != io.EOF && err != io.ErrUnexpectedEOF:
			t.Errorf("unexpected error %v", err)
		}
	})
}

func FuzzServerHello(f *testing.F) {
	r := readRecording(f)
	f.Add(r.frame)
	f.Add(r.frame[:len(r.frame)-1])
	f.Add(r.hello)
	f.Add([]byte{})
	genuine, _ := parse(r.frame)
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := r.client.ServerHello(b)
		if err != nil {
			if err != ErrMalformed && err != ErrDecrypt {
				t.Errorf("unexpected error %v", err)
			}
			return
		}
		// What decrypts is the genuine answer, in whatever wrapping.
		if m, _ := parse(b); !bytes.Contains(b, genuine.bytes[3][2:34]) || m.bytes[3] == nil || s.Static != r.static {
			t.Errorf("static key %x of a forgery", s.Static)
		}
	})
}

func FuzzVerify(f *testing.F) {
	r := readRecording(f)
	f.Add(r.chain)
	f.Add(r.chain[:len(r.chain)/2])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		err := (Server{r.static, b}).Verify(r.root, during)
		if err == nil {
			leaf, intermediate := r.parts(t)
			if !bytes.Contains(b, leaf) || !bytes.Contains(b, intermediate) {
				t.Errorf("chain %x was believed", b)
			}
			return
		}
		if err != ErrMalformed && err != ErrUntrusted && err != ErrKey && err != ErrExpired {
			t.Errorf("unexpected error %v", err)
		}
	})
}

// parts is what a believable chain must have: the signed details.
func (r recording) parts(t *testing.T) (leaf, intermediate []byte) {
	t.Helper()
	chain, _ := parse(r.chain)
	l, err := parseCertificate(chain.bytes[1])
	if err != nil {
		t.Fatal(err)
	}
	i, err := parseCertificate(chain.bytes[2])
	if err != nil {
		t.Fatal(err)
	}
	return l.details, i.details
}

func FuzzParse(f *testing.F) {
	r := readRecording(f)
	f.Add(r.frame)
	f.Add(r.chain)
	f.Add([]byte{1 << 3, 0x96, 1, 2<<3 | 1, 1, 2, 3, 4, 5, 6, 7, 8, 4<<3 | 5, 1, 2, 3, 4})
	f.Fuzz(func(t *testing.T, b []byte) {
		m, ok := parse(b)
		if !ok && (m.bytes[1] != nil || m.number[1] != 0) {
			t.Error("half a message was kept")
		}
		for _, v := range m.bytes {
			if len(v) > 0 && !bytes.Contains(b, v) {
				t.Errorf("%x is not in %x", v, b)
			}
		}
	})
}
