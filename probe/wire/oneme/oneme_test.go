package oneme

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var hello = Hello{
	Seq:       7,
	Device:    "00000000-0000-4000-8000-000000000000",
	Instance:  "11111111-1111-4111-8111-111111111111",
	SessionID: 42,
}

// decode is a second, simple MessagePack reader, so that what we write is not
// judged by what we read with. It panics on anything malformed.
func decode(b []byte) (any, []byte) {
	c := b[0]
	str := func(n int, b []byte) (any, []byte) { return string(b[:n]), b[n:] }
	switch {
	case c < 0x80:
		return int(c), b[1:]
	case c < 0x90:
		m, rest := map[string]any{}, b[1:]
		for range int(c & 15) {
			var k, v any
			k, rest = decode(rest)
			v, rest = decode(rest)
			m[k.(string)] = v
		}
		return m, rest
	case c >= 0xa0 && c < 0xc0:
		return str(int(c&31), b[1:])
	case c == 0xd9:
		return str(int(b[1]), b[2:])
	case c == 0xcd:
		return int(binary.BigEndian.Uint16(b[1:])), b[3:]
	}
	panic(fmt.Sprintf("%#x", c))
}

func TestFrames(t *testing.T) {
	for name, b := range map[string][]byte{"app": hello.Frame(), "web": hello.WebFrame()} {
		if got, want := hex.EncodeToString(b[:6]), "0a0000070006"; got != want {
			t.Errorf("%s: header %s, want %s", name, got, want)
		}
		if n := binary.BigEndian.Uint32(b[6:]); int(n) != len(b)-HeaderLen {
			t.Errorf("%s: says %d bytes, has %d", name, n, len(b)-HeaderLen)
		}
		v, rest := decode(b[HeaderLen:])
		if len(rest) > 0 {
			t.Errorf("%s: %d bytes left", name, len(rest))
		}
		ua := v.(map[string]any)["userAgent"].(map[string]any)
		for _, key := range []string{"deviceType", "appVersion", "osVersion", "timezone", "screen", "locale", "deviceName", "deviceLocale"} {
			if s, ok := ua[key].(string); !ok || s == "" {
				t.Errorf("%s: no %s", name, key)
			}
		}
		if v.(map[string]any)["deviceId"] != hello.Device {
			t.Errorf("%s: deviceId %v", name, v)
		}
	}
	v, _ := decode(hello.Frame()[HeaderLen:])
	app := v.(map[string]any)
	if app["clientSessionId"] != 42 || app["mt_instanceid"] != hello.Instance || app["userAgent"].(map[string]any)["buildNumber"] != 6797 {
		t.Errorf("app: %v", app)
	}
}

func TestWebText(t *testing.T) {
	var got struct {
		Ver, Cmd, Seq, Opcode int
		Payload               struct {
			UserAgent map[string]string
			DeviceID  string
		}
	}
	d := json.NewDecoder(bytes.NewReader(hello.WebText()))
	d.DisallowUnknownFields()
	if err := d.Decode(&got); err != nil {
		t.Fatal(err)
	}
	if got.Ver != 11 || got.Cmd != 0 || got.Seq != 7 || got.Opcode != 6 || got.Payload.DeviceID != hello.Device || got.Payload.UserAgent["deviceType"] != "WEB" {
		t.Errorf("got %+v", got)
	}
}

// TestHeader reads the layout that the open clients describe, and the sample
// SESSION_INIT whose 107 bytes of payload are one map.
func TestHeader(t *testing.T) {
	sample, err := hex.DecodeString("0a0000010006000000" + "6b" + "82a8646576696365496" +
		"4d92430303030303030302d303030302d343030302d383030302d303030303030303030303030" +
		"a9757365724167656e7483aa64657669636554797065a74445534b544f50aa61707056657273696f6e" +
		"a732362e31352e33a66c6f63616c65a27275")
	if err != nil {
		t.Fatal(err)
	}
	h, err := ParseFrame(sample)
	want := Header{Version: 10, Cmd: 0, Seq: 1, Opcode: 6, Len: 107}
	if err != nil || h != want {
		t.Fatalf("got %+v, %v", h, err)
	}
	if err := h.Check(sample[HeaderLen:]); err != nil {
		t.Error(err)
	}
	if h.Answers(1) {
		t.Error("a request answers nothing")
	}
	h, err = ParseHeader([]byte{10, 1, 1, 2, 0, 6, 3, 0, 1, 0})
	want = Header{Version: 10, Cmd: 1, Seq: 258, Opcode: 6, Packed: true, Len: 256}
	if err != nil || h != want || !h.Answers(258) || h.Answers(257) {
		t.Errorf("got %+v, %v", h, err)
	}
}

func frame(cmd byte, packed byte, payload string) []byte {
	b := []byte{10, cmd, 0, 7, 0, 6, packed, 0, byte(len(payload) >> 8), byte(len(payload))}
	return append(b, payload...)
}

func TestAnswers(t *testing.T) {
	errMap := "\x82\xa5error\xa9proto.ver\xa7message\xa1x"
	for _, c := range []struct {
		name string
		b    []byte
		want error
	}{
		{"ok", frame(1, 0, "\x82\xa9callsSeed\x01\xa8location\xa2RU"), nil},
		{"ok, empty", frame(1, 0, ""), nil},
		{"ok, empty map", frame(1, 0, "\x80"), nil},
		{"ok, map 16 and array 16", frame(1, 0, "\xde\x00\x01\xa1k\xdc\x00\x02\x01\x02"), nil},
		{"ok, map 32", frame(1, 0, "\xdf\x00\x00\x00\x01\xa1k\xdd\x00\x00\x00\x01\xc0"), nil},
		{"ok, every kind", frame(1, 0, "\xde\x00\x14"+
			"\x01\xc0\x02\xc2\x03\xc3\x04\xc4\x01x\x05\xc5\x00\x01x\x06\xc6\x00\x00\x00\x01x\x07\xc7\x01tx\x08\xc8\x00\x01tx"+
			"\x09\xca1234\x0a\xcb12345678\x0b\xcc1\x0c\xcd12\x0d\xce1234\x0e\xcf12345678\x0f\xd01\x10\xd112\x11\xd21234\x12\xd312345678"+
			"\x13\xd8t1234567890123456\x14\xdb\x00\x00\x00\x01x"), nil},
		{"ok, Zstandard", frame(1, 4, "\x28\xb5\x2f\xfdanything"), nil},
		{"ok, LZ4 frame", frame(1, 4, "\x04\x22\x4d\x18anything"), nil},
		{"ok, LZ4", frame(1, 3, packed), nil},
		{"ok, LZ4 of nothing", frame(1, 1, "\x00"), nil},
		{"no map, LZ4", frame(1, 1, "\x10\x90"), errNoMap},
		{"bytes after it, LZ4", frame(1, 1, "\x20\x80\x80"), errRest},
		{"error, LZ4", frame(3, 1, "\xf0\x05"+errMap), nil},
		{"error without a name, LZ4", frame(3, 3, packed), errNoError},
		{"LZ4 cut", frame(1, 3, packed[:len(packed)-1]), nil},
		{"LZ4 bomb", frame(1, 255, bomb), errTooLong},
		{"LZ4 bomb of a length", frame(1, 255, "\x1fx\x01\x00"+strings.Repeat("\xff", 1000)+"\x00\x00"), errTooLong},
		{"LZ4 of literals without end", frame(1, 1, "\xf0"+strings.Repeat("\xff", 1000)+"\x00"), errTooLong},
		{"not found", frame(2, 0, "\x80"), nil},
		{"error", frame(3, 0, errMap), nil},
		{"error, packed in some way", frame(3, 2, "\xffanything"), nil},
		{"error without a map", frame(3, 0, "\xc0"), errNoMap},
		{"error, empty", frame(3, 0, ""), errPack},
		{"error without a name", frame(3, 0, "\x81\xa7message\xa1x"), errNoError},
		{"error whose name is a number", frame(3, 0, "\x81\xa5error\x01"), errNoError},
		{"no map", frame(1, 0, "\x90"), errNoMap},
		{"bytes after it", frame(1, 0, "\x80\x80"), errRest},
		{"map cut", frame(1, 0, "\x82\xa1k\x01"), errPack},
		{"string cut", frame(1, 0, "\x81\xa1k\xd9\x05four"), errPack},
		{"map of 2^32-1", frame(1, 0, "\xdf\xff\xff\xff\xff"), errPack},
		{"array of 65535", frame(1, 0, "\x81\xa1k\xdc\xff\xff"), errPack},
		{"string of 4 GB", frame(1, 0, "\x81\xa1k\xdb\xff\xff\xff\xff"), errPack},
		{"0xc1", frame(1, 0, "\x81\xa1k\xc1"), errPack},
		{"deep arrays", frame(1, 0, "\x81\xa1k"+strings.Repeat("\x91", 20000)), errDepth},
		{"deep maps", frame(1, 0, strings.Repeat("\x81\xa1k", 8000)), errDepth},
		{"command 4", frame(4, 0, "\x80"), errCmd},
		{"HTTP", []byte("HTTP/1.1 400 Bad Request\r\n\r\n"), errCmd},
		{"header cut", frame(1, 0, "")[:9], errShort},
		{"payload cut", frame(1, 0, "\x80")[:10], errLength},
		{"payload too long", append(frame(1, 0, "\x80"), 0), errLength},
		{"16 MB promised", []byte{10, 1, 0, 7, 0, 6, 0, 0xff, 0xff, 0xff}, errTooLong},
	} {
		t.Run(c.name, func(t *testing.T) {
			h, err := ParseFrame(c.b)
			if err == nil {
				if !h.Answers(7) {
					t.Error("not seen as an answer")
				}
				err = h.Check(c.b[HeaderLen:])
			}
			if err != c.want {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
}

// packed is an answer as the program lz4 1.9.4 packs it (-9, the block alone of
// its frame), and plain what it packed.
var (
	plain = "\x83\xa9callsSeed\xcd\x12\x34\xa8location\xa2RU\xb0reg-country-code\xdc\x00\x2c" +
		strings.Repeat("\xa2AM\xa2AZ\xa2BY\xa2GE\xa2KZ\xa2KG\xa2MD\xa2RU\xa2TJ\xa2TM\xa2UZ", 4)
	packed = "\xff\x40" + plain[:46] + plain[46:79] + "\x21\x00\x4b\x50" + plain[len(plain)-5:]
	// bomb says 8 MB: "x" and matches of what is before them.
	bomb = "\x1fx\x01\x00" + strings.Repeat("\xff", 32<<10-4-100)
)

func TestUnpack(t *testing.T) {
	if got, err := unpackLZ4([]byte(packed)); string(got) != plain || err != nil {
		t.Errorf("%x, %v", got, err)
	}
	long := strings.Repeat("x", 300)
	for name, c := range map[string]struct {
		b, want string
		err     error
	}{
		"literals":          {"\x30abc", "abc", nil},
		"overlapping match": {"\x25ab\x02\x00\x10c", "ab" + "ababababa" + "c", nil},
		"long literals":     {"\xf0\xff\x1e" + long, long, nil},
		"long match":        {"\x1fx\x01\x00\xff\x05\x10y", strings.Repeat("x", 1+15+255+5+4) + "y", nil},
		"nothing":           {"", "", errLZ4},
		"literals cut":      {"\x30ab", "", errLZ4},
		"length cut":        {"\xf0\xff", "", errLZ4},
		"offset cut":        {"\x11a\x01", "", errLZ4},
		"no token after":    {"\x11a\x01\x00", "", errLZ4},
		"offset 0":          {"\x11a\x00\x00\x00", "", errLZ4},
		"offset too far":    {"\x11a\x02\x00\x00", "", errLZ4},
		"as much as may be": {"\x1fx\x01\x00" + strings.Repeat("\xff", (MaxUnpacked-1-19)/255) + string([]byte{(MaxUnpacked - 1 - 19) % 255}) + "\x00", strings.Repeat("x", MaxUnpacked), nil},
	} {
		got, err := unpackLZ4([]byte(c.b))
		if string(got) != c.want || err != c.err {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
	}
}

func TestDepthBound(t *testing.T) {
	nested := func(n int) []byte {
		return frame(1, 0, "\x81\xa1k"+strings.Repeat("\x91", n)+"\x01")
	}
	b := nested(maxDepth - 1)
	h, _ := ParseFrame(b)
	if err := h.Check(b[HeaderLen:]); err != nil {
		t.Errorf("depth %d: %v", maxDepth, err)
	}
	b = nested(maxDepth)
	h, _ = ParseFrame(b)
	if err := h.Check(b[HeaderLen:]); err != errDepth {
		t.Errorf("depth %d: %v", maxDepth+1, err)
	}
}

func TestJSONAnswers(t *testing.T) {
	for _, c := range []struct {
		name, text string
		want       error
	}{
		{"ok", `{"ver":11,"cmd":1,"seq":7,"opcode":6,"payload":{"location":"RU"}}`, nil},
		{"ok without payload", `{"ver":11,"cmd":1,"seq":7,"opcode":6}`, nil},
		{"error", `{"ver":11,"cmd":3,"seq":7,"opcode":6,"payload":{"error":"proto.ver","message":"m"}}`, nil},
		{"error without a name", `{"ver":11,"cmd":3,"seq":7,"opcode":6,"payload":{"message":"m"}}`, errNoError},
		{"error without payload", `{"ver":11,"cmd":3,"seq":7,"opcode":6}`, errNoMap},
		{"payload null", `{"ver":11,"cmd":1,"seq":7,"opcode":6,"payload":null}`, errNoMap},
		{"payload an array", `{"ver":11,"cmd":1,"seq":7,"opcode":6,"payload":[]}`, errNoMap},
		{"no seq", `{"ver":11,"cmd":1,"opcode":6,"payload":{}}`, errFields},
		{"seq too big", `{"ver":11,"cmd":1,"seq":65543,"opcode":6,"payload":{}}`, errFields},
		{"seq a string", `{"ver":11,"cmd":1,"seq":"7","opcode":6,"payload":{}}`, errFields},
		{"an array", `[]`, errFields},
		{"null", `null`, errFields},
		{"command 9", `{"ver":11,"cmd":9,"seq":7,"opcode":6,"payload":{}}`, errCmd},
		{"HTML", `<html>`, ErrJSON},
		{"cut", `{"ver":11,"cmd":1,"seq":7`, ErrJSON},
		{"deep", strings.Repeat("[", 20000) + strings.Repeat("]", 20000), errTooLong},
		{"deep, short enough", strings.Repeat("[", 15000) + strings.Repeat("]", 15000), ErrJSON},
	} {
		t.Run(c.name, func(t *testing.T) {
			h, payload, err := ParseJSON([]byte(c.text))
			if err == nil {
				err = h.CheckJSON(payload)
			}
			if err != c.want {
				t.Errorf("got %v, want %v", err, c.want)
			}
			if err == nil && !h.Answers(7) {
				t.Errorf("%+v not seen as an answer", h)
			}
		})
	}
	// What the server sends unasked is read, and answers nothing.
	h, _, err := ParseJSON([]byte(`{"ver":11,"cmd":0,"seq":7,"opcode":6,"payload":[1]}`))
	if err != nil || h.Answers(7) {
		t.Errorf("%+v, %v", h, err)
	}
}

// TestAllocations: a hostile answer of the greatest length costs no more than a
// few copies of itself.
func TestAllocations(t *testing.T) {
	big := "\xdf\x00\x00\x1f\x40" + strings.Repeat("\xa1k\x01", 8000)
	b := frame(1, 0, big)
	h, _ := ParseFrame(b)
	if err := h.Check(b[HeaderLen:]); err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(10, func() { h.Check(b[HeaderLen:]) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
	// A bomb costs what it may be unpacked to, doubling on the way.
	b = frame(1, 255, bomb)
	h, _ = ParseFrame(b)
	got := testing.Benchmark(func(tb *testing.B) {
		for tb.Loop() {
			if h.Check(b[HeaderLen:]) != errTooLong {
				tb.Fatal("a bomb was taken")
			}
		}
	}).AllocedBytesPerOp()
	if got > 4*MaxUnpacked {
		t.Errorf("%d bytes for a bomb", got)
	}
}

// An LZ4 block unpacks to no more than may be, and to the same a second time.
func FuzzUnpack(f *testing.F) {
	f.Add([]byte(packed))
	f.Add([]byte(bomb[:1000]))
	f.Add([]byte("\x25ab\x02\x00\x10c"))
	f.Add([]byte("\xf0\xff\x1e"))
	f.Fuzz(func(t *testing.T, b []byte) {
		out, err := unpackLZ4(b)
		if len(out) > MaxUnpacked || err != nil && (out != nil || err != errLZ4 && err != errTooLong) {
			t.Errorf("%d bytes, %v", len(out), err)
		}
	})
}

func FuzzParseFrame(f *testing.F) {
	f.Add(hello.Frame())
	f.Add(frame(1, 0, "\x82\xa9callsSeed\x01\xa8location\xa2RU"))
	f.Add(frame(3, 0, "\x82\xa5error\xa9proto.ver\xa7message\xa1x"))
	f.Add(frame(1, 2, "packed"))
	f.Add([]byte("HTTP/1.1 400 Bad Request\r\n\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := ParseFrame(b)
		if err != nil {
			if h != (Header{}) {
				t.Fatalf("%v with %+v", err, h)
			}
			return
		}
		if h.Len > MaxPayload || h.Len != len(b)-HeaderLen {
			t.Fatalf("%+v of %d bytes", h, len(b))
		}
		h.Check(b[HeaderLen:])
	})
}

// FuzzReadMap compares with a reader that builds everything.
func FuzzReadMap(f *testing.F) {
	f.Add(hello.Frame()[HeaderLen:])
	f.Add([]byte("\x82\xa5error\xa1x\x05\x91\x80"))
	f.Fuzz(func(t *testing.T, b []byte) {
		found, err := readMap(b, "error")
		if err != nil {
			return
		}
		defer func() { recover() }() // decode knows fewer kinds
		v, rest := decode(b)
		if len(rest) != 0 {
			t.Fatalf("%x: %d bytes left", b, len(rest))
		}
		_, want := v.(map[string]any)["error"].(string)
		if want && !found {
			t.Fatalf("%x: error not found", b)
		}
	})
}

func FuzzParseJSON(f *testing.F) {
	f.Add(hello.WebText())
	f.Add([]byte(`{"ver":11,"cmd":3,"seq":7,"opcode":6,"payload":{"error":"proto.ver"}}`))
	f.Add([]byte(`{"cmd":1,"seq":7,"opcode":6,"payload":{"error":1}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, payload, err := ParseJSON(b)
		if err == nil {
			h.CheckJSON(payload)
		}
		if err == nil && (h.Cmd > CmdError || h.Len > MaxPayload || !json.Valid(b)) {
			t.Fatalf("%q read as %+v", b, h)
		}
	})
}

func TestRequestsDifferOnlyWhereTheyShould(t *testing.T) {
	other := hello
	other.Seq, other.Device = 8, "22222222-2222-4222-8222-222222222222"
	a, b := hello.Frame(), other.Frame()
	b[3] = 7
	b = bytes.Replace(b, []byte(other.Device), []byte(hello.Device), 1)
	if d := cmp.Diff(a, b); d != "" {
		t.Error(d)
	}
}
