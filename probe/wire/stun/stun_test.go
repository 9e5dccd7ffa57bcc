package stun

import (
	"bytes"
	"encoding/hex"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The test vectors of RFC 5769; their FINGERPRINT proves the typing.
const (
	// §2.1
	sampleRequest = `00010058 2112a442 b7e7a701bc34d686fa87dfae
		80220010 5354554e207465737420636c69656e74
		00240004 6e0001ff
		80290008 932ff9b151263b36
		00060009 6576746a3a68367659202020
		00080014 9aeaa70cbfd8cb56781ef2b5b2d3f249c1b571a2
		80280004 e57a3bcf`
	// §2.2
	sampleIPv4 = `0101003c 2112a442 b7e7a701bc34d686fa87dfae
		8022000b 7465737420766563746f7220
		00200008 0001a147e112a643
		00080014 2b91f599fd9e90c38c7489f92af9ba53f06be7d7
		80280004 c07d4c96`
	// §2.3
	sampleIPv6 = `01010048 2112a442 b7e7a701bc34d686fa87dfae
		8022000b 7465737420766563746f7220
		00200014 0002a1470113a9faa5d3f179bc25f4b5bed2b9d9
		00080014 a382954e4be67bf11784c97c8292c275bfe3ed41
		80280004 c8fb0b4c`
	// §2.4: no FINGERPRINT; REALM and NONCE of a long-term credential.
	sampleLongTerm = `00010060 2112a442 78ad3433c6ad72c029da412e
		00060012 e3839ee38388e383aae38383e382afe382b90000
		0015001c 662f2f3439396b39353464364f4c33346f4c39465354767936347341
		0014000b 6578616d706c652e6f726700
		00080014 f67024656dd64a3e02b8e0712e85c9a28ca89666`
)

func TestVectors(t *testing.T) {
	id := ID(unhex(t, "b7e7a701bc34d686fa87dfae"))
	for _, c := range []struct {
		name, hex string
		want      Message
	}{
		{"request", sampleRequest, Message{Method: Binding, Class: Request, ID: id, Fingerprint: true}},
		{"IPv4 response", sampleIPv4, Message{Method: Binding, Class: Success, ID: id, Fingerprint: true,
			Mapped: netip.MustParseAddrPort("192.0.2.1:32853")}},
		{"IPv6 response", sampleIPv6, Message{Method: Binding, Class: Success, ID: id, Fingerprint: true,
			Mapped: netip.MustParseAddrPort("[2001:db8:1234:5678:11:2233:4455:6677]:32853")}},
		{"long-term request", sampleLongTerm, Message{Method: Binding, Class: Request, ID: ID(unhex(t, "78ad3433c6ad72c029da412e")),
			Realm: "example.org", Nonce: true}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := Parse(unhex(t, c.hex))
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(c.want, got, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); d != "" {
				t.Error(d)
			}
		})
	}
}

// TestEveryBitCounts flips each bit of a message with FINGERPRINT: none may
// pass.
func TestEveryBitCounts(t *testing.T) {
	good := unhex(t, sampleIPv4)
	for i := range len(good) * 8 {
		b := bytes.Clone(good)
		b[i/8] ^= 1 << (i % 8)
		// The type of the last attribute itself: then it is no FINGERPRINT, and
		// only its presence is lost.
		if m, err := Parse(b); err == nil && m.Fingerprint {
			t.Errorf("bit %d flipped and still accepted", i)
		}
	}
}

func TestRequestBytes(t *testing.T) {
	id := ID(unhex(t, "000102030405060708090a0b"))
	for _, c := range []struct {
		name string
		m    Method
		want string
	}{
		{"binding", Binding, "00010000 2112a442 000102030405060708090a0b"},
		{"allocate", Allocate, "00030008 2112a442 000102030405060708090a0b 00190004 11000000"},
	} {
		if d := cmp.Diff(hex.EncodeToString(unhex(t, c.want)), hex.EncodeToString(NewRequest(c.m, id))); d != "" {
			t.Errorf("%s: %s", c.name, d)
		}
		m, err := Parse(NewRequest(c.m, id))
		if err != nil || m.Method != c.m || m.Class != Request || m.ID != id {
			t.Errorf("%s: reads back as %+v, %v", c.name, m, err)
		}
	}
}

func TestMessageTypeRoundTrip(t *testing.T) {
	for m := range Method(0x1000) {
		for c := range Class(4) {
			b := make([]byte, headerLen)
			copy(b, NewRequest(Binding, ID{}))
			typ := messageType(m, c)
			b[0], b[1] = byte(typ>>8), byte(typ)
			got, err := Parse(b)
			if err != nil || got.Method != m || got.Class != c {
				t.Fatalf("%#x %d: %+v %v", m, c, got, err)
			}
		}
	}
}

func TestRefused(t *testing.T) {
	for _, c := range []struct {
		name, hex string
		want      error
	}{
		{"empty", "", errShort},
		{"header cut", "01010000 2112a442 000102030405060708090a", errShort},
		{"no cookie (RFC 3489)", "01010000 2112a443 000102030405060708090a0b", errNotSTUN},
		{"first bits set", "81010000 2112a442 000102030405060708090a0b", errNotSTUN},
		{"length beyond", "01010004 2112a442 000102030405060708090a0b", errLength},
		{"length short", "01010000 2112a442 000102030405060708090a0b 00000000", errLength},
		{"length odd", "01010002 2112a442 000102030405060708090a0b 0000", errLength},
		{"attribute beyond", "01010004 2112a442 000102030405060708090a0b 8022ffff", errAttribute},
		{"address of unknown family", "0101000c 2112a442 000102030405060708090a0b 00200008 0003a147e112a643", errAttribute},
		{"address cut", "01010008 2112a442 000102030405060708090a0b 00200004 0001a147", errAttribute},
		{"IPv6 in 8 bytes", "0101000c 2112a442 000102030405060708090a0b 00200008 0002a147e112a643", errAttribute},
		{"error code cut", "01110008 2112a442 000102030405060708090a0b 00090003 00000400", errAttribute},
		{"error class 0", "01110008 2112a442 000102030405060708090a0b 00090004 00000001", errAttribute},
		{"error number 100", "01110008 2112a442 000102030405060708090a0b 00090004 00000464", errAttribute},
		{"realm of 764 bytes", "01110300 2112a442 000102030405060708090a0b 001402fc" + strings.Repeat("61", 764), errAttribute},
		{"attribute after fingerprint", "01010010 2112a442 000102030405060708090a0b 80280004 00000000 80220004 61616161", errFingerprint},
		{"wrong fingerprint", "01010008 2112a442 000102030405060708090a0b 80280004 00000000", errFingerprint},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := Parse(unhex(t, c.hex)); !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
}

func TestErrorResponse(t *testing.T) {
	m, err := Parse(unhex(t, `01130028 2112a442 000102030405060708090a0b
		00090010 00000401 556e617574686f72697a6564
		0014000c 74656c656772616d2e6f7267
		00150000`))
	if err != nil {
		t.Fatal(err)
	}
	want := Message{Method: Allocate, Class: Error, ID: ID(unhex(t, "000102030405060708090a0b")), Code: 401, Realm: "telegram.org", Nonce: true}
	if m != want {
		t.Errorf("got %+v, want %+v", m, want)
	}
}

func TestReflector(t *testing.T) {
	h := Hello{Tag: [16]byte(unhex(t, "000102030405060708090a0b0c0d0e0f")), ID: [8]byte{1}}
	want := unhex(t, "000102030405060708090a0b0c0d0e0f ffffffffffffffffffffffff feffffff 0100000000000000")
	if !bytes.Equal(h.Bytes(), want) {
		t.Errorf("hello is %x, want %x", h.Bytes(), want)
	}
	info := unhex(t, `000102030405060708090a0b0c0d0e0f ffffffffffffffffffffffff c77215c0 00706a65
		0100000000000000 0000000000000000 0000ffff c0000201 9a2b0000`)
	got, err := ParseSelfInfo(info)
	if err != nil || got.Hello != h || !got.Time.Equal(time.Unix(0x656a7000, 0)) {
		t.Errorf("got %+v, %v", got, err)
	}
	for i, b := range map[string][]byte{
		"cut":          info[:63],
		"empty":        nil,
		"the hello":    append(h.Bytes(), make([]byte, 24)...),
		"a relay pong": append(bytes.Repeat([]byte{0xff}, 16), info[16:28]...),
	} {
		if _, err := ParseSelfInfo(b); err == nil {
			t.Errorf("%s: accepted", i)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{sampleRequest, sampleIPv4, sampleIPv6, sampleLongTerm} {
		f.Add(unhex(f, s))
	}
	f.Add(NewRequest(Allocate, ID{}))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := Parse(b)
		if err != nil {
			if m != (Message{}) {
				t.Fatalf("%v with %+v", err, m)
			}
			return
		}
		if len(m.Realm) > maxText || m.Code != 0 && (m.Code < 300 || m.Code > 699) {
			t.Fatalf("out of range: %+v", m)
		}
		if got := messageType(m.Method, m.Class); got != uint16(b[0])<<8|uint16(b[1]) {
			t.Fatalf("type %#x read as %+v", b[:2], m)
		}
	})
}

func FuzzParseSelfInfo(f *testing.F) {
	f.Add(append(Hello{}.Bytes(), make([]byte, 24)...))
	b := make([]byte, reflectorInfoLen)
	copy(b, Hello{Tag: [16]byte{1}}.Bytes())
	copy(b[28:], selfInfo[:])
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := ParseSelfInfo(b); err == nil && (!bytes.Equal(s.Tag[:], b[:16]) || !bytes.Equal(s.ID[:], b[36:44])) {
			t.Fatalf("%x read as %+v", b, s)
		}
	})
}
