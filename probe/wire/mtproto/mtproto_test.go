package mtproto

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"slices"
	"testing"
	"testing/iotest"
	"time"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The sample resPQ that Telegram publishes at
// core.telegram.org/mtproto/samples-auth_key, with three fingerprints.
const (
	sampleNonce  = "3e0549828cca27e966b301a48fece2fc"
	sampleHeader = "0000000000000000" + "01c8831ec97ae551" + "50000000"
	sampleBody   = "63241605" + sampleNonce + "a5cf4d33f4a11ea877ba4aa573907330" +
		"0817ed48941a08f98100000015c4b51c"
	sampleKeys = "03000000" + "85fd64de851d9dd0" + "a5b7f709355fc30b" + "216be86c022bb4c3"
)

func samplePQ(t testing.TB) ([]byte, [16]byte) {
	return unhex(t, sampleHeader+sampleBody+sampleKeys), [16]byte(unhex(t, sampleNonce))
}

func TestReqPQ(t *testing.T) {
	// 2026-11-22 00:00:00.5 UTC: the fraction is half of 2^32.
	now := time.Unix(0x6b0000f0, 5e8)
	got := ReqPQ([16]byte(unhex(t, "000102030405060708090a0b0c0d0e0f")), now)
	want := unhex(t, "0000000000000000"+"00000080f000006b"+"14000000"+"f18e7ebe"+"000102030405060708090a0b0c0d0e0f")
	if !bytes.Equal(got, want) {
		t.Errorf("got  %x\nwant %x", got, want)
	}
	if id := binary.LittleEndian.Uint64(ReqPQ([16]byte{}, time.Unix(1, 999999999))[8:]); id%4 != 0 {
		t.Errorf("msg_id %x is not divisible by 4", id)
	}
}

func TestParseResPQ(t *testing.T) {
	msg, nonce := samplePQ(t)
	got, err := ParseResPQ(msg, nonce)
	if err != nil {
		t.Fatal(err)
	}
	if got.PQ != 0x17ed48941a08f981 || !slices.Equal(got.Fingerprints, []uint64{0xd09d1d85de64fd85, 0x0bc35f3509f7b7a5, 0xc3b42b026ce86b21}) {
		t.Errorf("pq %x, fingerprints %x", got.PQ, got.Fingerprints)
	}
	if sec := got.Time.Unix(); sec != 0x51e57ac9 {
		t.Errorf("time %x", sec)
	}
	if !got.Knows(ProductionFingerprints) || got.Knows(TestFingerprints) || got.Knows(nil) {
		t.Error("wrong key known")
	}
	for _, tail := range []int{1, 15} {
		if _, err := ParseResPQ(append(slices.Clone(msg), make([]byte, tail)...), nonce); err != nil {
			t.Errorf("%d bytes of padding: %v", tail, err)
		}
	}
	if _, err := ParseResPQ(msg, [16]byte{}); err != ErrNonce {
		t.Errorf("other nonce: %v", err)
	}
}

func TestParseResPQRefuses(t *testing.T) {
	good, nonce := samplePQ(t)
	change := func(at int, b ...byte) []byte {
		m := slices.Clone(good)
		copy(m[at:], b)
		return m
	}
	for name, msg := range map[string][]byte{
		"empty":                nil,
		"auth key":             change(0, 1),
		"length past the end":  change(16, 0xff, 0xff, 0xff, 0x7f),
		"negative length":      change(16, 0xff, 0xff, 0xff, 0xff),
		"length too short":     change(16, 76),
		"16 bytes of padding":  append(slices.Clone(good), make([]byte, 16)...),
		"constructor":          change(20, 0),
		"pq of 9 bytes":        change(56, 9),
		"pq length 255":        change(56, 255),
		"pq past the end":      change(56, 254, 0xff, 0xff, 0xff),
		"no vector":            change(68, 0),
		"2^32-1 fingerprints":  change(72, 0xff, 0xff, 0xff, 0xff),
		"2^29 fingerprints":    change(72, 0, 0, 0, 0x20), // times 8 is 0 in 32 bits
		"one fingerprint less": change(72, 2),
		"one fingerprint more": change(72, 4),
		"request echoed":       ReqPQ(nonce, time.Now()),
		"code out of range":    {0xff, 0xff, 0xff, 0xff},
	} {
		if _, err := ParseResPQ(msg, nonce); err != ErrMalformed {
			t.Errorf("%s: %v", name, err)
		}
	}
	for i := range good {
		if _, err := ParseResPQ(good[:i], nonce); err == nil {
			t.Errorf("%d of %d bytes were taken", i, len(good))
		}
	}
}

func TestServerError(t *testing.T) {
	for text, want := range map[string]ServerError{
		"6cfeffff": -404, "53feffff": -429, "44feffff": -444,
		"6cfeffff0102030405060708090a0b0c0d0e0f": -404, // padded
	} {
		var code ServerError
		if _, err := ParseResPQ(unhex(t, text), [16]byte{}); !errors.As(err, &code) || code != want {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// The three framings as core.telegram.org/mtproto/mtproto-transports has them.
func TestSend(t *testing.T) {
	msg := bytes.Repeat([]byte{7}, 40)
	for _, c := range []struct {
		f         Framing
		once      string // before the first frame only
		length    string
		padding   int
		lengthLen int
	}{
		{f: Abridged, once: "ef", length: "0a"},
		{f: Intermediate, once: "eeeeeeee", length: "28000000"},
		{f: Padded, once: "dddddddd", length: "", padding: 15, lengthLen: 4},
	} {
		var out bytes.Buffer
		s := NewStream(&out, c.f)
		for i, before := range []string{c.once + c.length, c.length} {
			out.Reset()
			if err := s.Send(msg); err != nil {
				t.Fatal(err)
			}
			got, want := out.Bytes(), len(before)/2+c.lengthLen+len(msg)
			if !bytes.HasPrefix(got, unhex(t, before)) || len(got) < want || len(got) > want+c.padding {
				t.Errorf("framing %d, message %d: %x", c.f, i, got)
			}
		}
	}
}

func TestFrames(t *testing.T) {
	for _, f := range []Framing{Abridged, Intermediate, Padded} {
		for _, n := range []int{4, 40, 4 * 0x7e, 4 * 0x7f, 4 * 0x80, MaxFrame - 16} {
			msg := bytes.Repeat([]byte{byte(n)}, n)
			clear(msg[:min(8, n)])
			frame := f.appendFrame(nil, msg)
			got, err := f.readFrame(bufio.NewReader(iotest.OneByteReader(bytes.NewReader(frame))))
			if err != nil || !bytes.HasPrefix(got, msg) || f != Padded && len(got) != n {
				t.Errorf("framing %d, %d bytes: got %d, %v", f, n, len(got), err)
			}
			if _, err := f.readFrame(bufio.NewReader(bytes.NewReader(frame[:len(frame)-1]))); err != io.ErrUnexpectedEOF {
				t.Errorf("framing %d, %d bytes cut short: %v", f, n, err)
			}
		}
	}
}

func TestFrameBounds(t *testing.T) {
	for name, c := range map[string]struct {
		f    Framing
		head string
	}{
		"empty":             {Intermediate, "00000000"},
		"three bytes":       {Intermediate, "03000000"},
		"one over":          {Intermediate, "01400000"},
		"top bit":           {Intermediate, "28000080"},
		"all bits":          {Padded, "ffffffff"},
		"a block page":      {Intermediate, hex.EncodeToString([]byte("HTTP"))},
		"a TLS alert":       {Intermediate, "15030100"},
		"abridged empty":    {Abridged, "00"},
		"abridged long":     {Abridged, "7fffffff"},
		"abridged one over": {Abridged, "7f011000"},
	} {
		endless := bufio.NewReader(io.MultiReader(bytes.NewReader(unhex(t, c.head)), zeros{}))
		if _, err := c.f.readFrame(endless); err != ErrFrame {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What is no unencrypted message is refused before all of it has come.
func TestFrameEarly(t *testing.T) {
	for _, b := range []string{"HTTP/1.1 200 OK", "H", "\x15\x03\x03"} {
		endless := io.MultiReader(bytes.NewReader([]byte(b)), iotest.ErrReader(io.ErrNoProgress))
		want := ErrMalformed
		if b == "H" {
			want = io.ErrNoProgress
		}
		if _, err := Abridged.readFrame(bufio.NewReader(endless)); err != want {
			t.Errorf("%q: %v", b, err)
		}
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

// core.telegram.org/mtproto/mtproto-transports#transport-obfuscation lists what
// must not open a connection.
func TestObfuscateForbidden(t *testing.T) {
	good := bytes.Repeat([]byte{0x55}, 64)
	for _, bad := range []string{"ef", "48454144", "504f5354", "47455420", "4f505449", "16030102", "dddddddd", "eeeeeeee", "0102030400000000"} {
		draw := append(slices.Concat(unhex(t, bad), good)[:64], good...)
		head, _, _ := obfuscate(Intermediate, 2, bytes.NewReader(draw))
		if !bytes.Equal(head[:56], good[:56]) {
			t.Errorf("%s was not drawn again", bad)
		}
		if bytes.Contains(head[56:], []byte{0xee, 0xee}) {
			t.Errorf("the tag is in the clear: %x", head[56:])
		}
	}
}

// What one side of obfuscated2 hides the other can read: the keys of a server
// are those of a client with the directions changed over.
func TestObfuscated(t *testing.T) {
	for _, f := range []Framing{Abridged, Intermediate, Padded} {
		var wire bytes.Buffer
		s := NewObfuscated(&wire, f, -2)
		msg := ReqPQ([16]byte{9}, msgTime)
		s.Send(msg)
		head, rest := wire.Bytes()[:64], wire.Bytes()[64:]
		in := ctr(head[8:56])
		plain := make([]byte, 64)
		in.XORKeyStream(plain, head)
		if !bytes.Equal(plain[56:60], f.tag()) || int16(binary.LittleEndian.Uint16(plain[60:])) != -2 {
			t.Errorf("framing %d: hidden part %x", f, plain[56:])
		}
		in.XORKeyStream(rest, rest)
		if got, err := f.readFrame(bufio.NewReader(bytes.NewReader(rest))); err != nil || !bytes.HasPrefix(got, msg) {
			t.Errorf("framing %d: %x, %v", f, got, err)
		}
	}
}

var msgTime = time.Unix(1795305600, 0)
