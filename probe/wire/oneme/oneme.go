// Package oneme writes the first frame of MAX's protocol, SESSION_INIT, which
// needs no account, and reads the answer, in the three ways in which MAX's
// clients speak it: binary frames over TLS and over WebSocket, and JSON over
// WebSocket.
//
// The layouts are those of the open clients: KometTeam/kolibri
// kolibri-net/src/protocol/packet.rs and src/session/manager.rs,
// MaxApiTeam/PyMax src/pymax/mixins/socket.py, nsdkinx/vkmax docs/protocol.md,
// and openmax-server/server src/oneme_tcp/proto.py.
//
// It holds no socket. Everything that is read is bounded by MaxPayload,
// MaxUnpacked and maxDepth.
package oneme

import (
	"encoding/binary"
	"encoding/json"
)

// HeaderLen is the bytes before the payload of a binary frame.
const HeaderLen = 10

// MaxPayload bounds the payload of an answer. One to SESSION_INIT has some
// hundred bytes; the length field could say 16 MB.
const MaxPayload = 32 << 10

// SessionInit is the opcode of the first request.
const SessionInit = 6

// What a frame is, in answer to a request. The open clients agree on all but
// NotFound, which one of them takes for an event.
const (
	CmdRequest  = 0 // also what the server sends unasked
	CmdOK       = 1
	CmdNotFound = 2
	CmdError    = 3
)

const (
	versionBinary = 10
	versionJSON   = 11
)

// An Error says how something is not OneMe.
type Error string

func (e Error) Error() string { return "oneme: " + string(e) }

// ErrJSON is that a text is no JSON at all.
const ErrJSON = Error("malformed JSON")

const (
	errShort   = Error("frame cut short")
	errTooLong = Error("payload too long")
	errCmd     = Error("no such command")
	errLength  = Error("length does not fit the frame")
	errNoMap   = Error("payload is no map")
	errNoError = Error("error without a name")
	errFields  = Error("fields missing or out of range")
)

// A Header is the head of a binary frame: version, command, sequence number,
// opcode, and a word whose top byte says whether the payload is packed (0: not)
// and whose other 24 bits are its length; all big-endian.
type Header struct {
	Version byte
	Cmd     byte
	Seq     uint16
	Opcode  uint16
	Packed  bool
	Len     int // of the payload, in bytes
}

// ParseHeader reads the first HeaderLen bytes of a frame. The version is not
// judged: an answer that echoes the sequence number is one, whatever it calls
// itself.
func ParseHeader(b []byte) (Header, error) {
	if len(b) < HeaderLen {
		return Header{}, errShort
	}
	word := binary.BigEndian.Uint32(b[6:])
	h := Header{
		Version: b[0],
		Cmd:     b[1],
		Seq:     binary.BigEndian.Uint16(b[2:]),
		Opcode:  binary.BigEndian.Uint16(b[4:]),
		Packed:  word>>24 != 0,
		Len:     int(word & 0xffffff),
	}
	switch {
	case h.Cmd > CmdError:
		return Header{}, errCmd
	case h.Len > MaxPayload:
		return Header{}, errTooLong
	}
	return h, nil
}

// Answers says whether the frame answers request number seq with the opcode
// SessionInit. Others may come first: the server also sends unasked.
func (h Header) Answers(seq uint16) bool {
	return h.Cmd != CmdRequest && h.Seq == seq && h.Opcode == SessionInit
}

// Check judges the payload of an answer by shape: one MessagePack map, and in
// an error a string named "error". An LZ4 block is unpacked first. What is packed
// in another way is taken as it is: the header has said what there is to prove.
func (h Header) Check(payload []byte) error {
	if len(payload) != h.Len {
		return errLength
	}
	if h.Packed {
		unpacked, known, err := unpack(payload)
		if err != nil || !known {
			return err
		}
		payload = unpacked
	}
	if len(payload) == 0 && h.Cmd != CmdError {
		return nil
	}
	named, err := readMap(payload, "error")
	if err == nil && h.Cmd == CmdError && !named {
		return errNoError
	}
	return err
}

// ParseFrame reads a whole frame: one binary WebSocket message.
func ParseFrame(b []byte) (Header, error) {
	h, err := ParseHeader(b)
	if err != nil {
		return Header{}, err
	}
	if len(b)-HeaderLen != h.Len {
		return Header{}, errLength
	}
	return h, nil
}

// ParseJSON reads one text message: an object with ver, cmd, seq, opcode and
// payload.
func ParseJSON(b []byte) (h Header, payload []byte, err error) {
	if len(b) > MaxPayload {
		return Header{}, nil, errTooLong
	}
	if !json.Valid(b) {
		return Header{}, nil, ErrJSON
	}
	var m struct {
		Ver     byte
		Cmd     *byte
		Seq     *uint16
		Opcode  *uint16
		Payload json.RawMessage
	}
	if json.Unmarshal(b, &m) != nil || m.Cmd == nil || m.Seq == nil || m.Opcode == nil {
		return Header{}, nil, errFields
	}
	if *m.Cmd > CmdError {
		return Header{}, nil, errCmd
	}
	return Header{Version: m.Ver, Cmd: *m.Cmd, Seq: *m.Seq, Opcode: *m.Opcode, Len: len(m.Payload)}, m.Payload, nil
}

// CheckJSON is [Header.Check] for a payload of ParseJSON.
func (h Header) CheckJSON(payload []byte) error {
	if len(payload) == 0 && h.Cmd != CmdError {
		return nil
	}
	if len(payload) == 0 || payload[0] != '{' {
		return errNoMap
	}
	var e struct{ Error json.RawMessage }
	if json.Unmarshal(payload, &e); h.Cmd == CmdError && (len(e.Error) == 0 || e.Error[0] != '"') {
		return errNoError
	}
	return nil
}

// A Hello is a SESSION_INIT request: what an app says before anybody has logged
// in. Which of its fields the server insists on is not known (openmax-server's
// models ask for all of the app's but arch and mt_instanceid), so it has all,
// with values that many installations share. Nothing in it outlives the probe.
type Hello struct {
	Seq       uint16 // below 256: some implementations know one byte only
	Device    string // a UUID
	Instance  string // a UUID; the app sends it, the web page does not
	SessionID int    // 1 to 100; likewise
}

const (
	locale   = "ru"
	timezone = "Europe/Moscow"
)

// app is the Android app's payload, version 26.26.0 of August 2026.
func (h Hello) app() []field {
	return []field{
		{"mt_instanceid", h.Instance},
		{"userAgent", []field{
			{"deviceType", "ANDROID"},
			{"appVersion", "26.26.0"},
			{"osVersion", "Android 14"},
			{"timezone", timezone},
			{"screen", "xxhdpi 480dpi 1080x2340"},
			{"pushDeviceType", "GCM"},
			{"arch", "arm64-v8a"},
			{"locale", locale},
			{"buildNumber", 6797},
			{"deviceName", "Samsung Galaxy S23"},
			{"deviceLocale", locale},
		}},
		{"clientSessionId", h.SessionID},
		{"deviceId", h.Device},
	}
}

// web is the web page's, version 26.6.17 of 2026.
func (h Hello) web() []field {
	return []field{
		{"userAgent", []field{
			{"deviceType", "WEB"},
			{"pushDeviceType", "WEBPUSH"},
			{"locale", locale},
			{"deviceLocale", locale},
			{"osVersion", "Windows"},
			{"deviceName", "Chrome"},
			{"headerUserAgent", "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/152.0.0.0 Safari/537.36"},
			{"appVersion", "26.6.17"},
			{"screen", "1080x1920 1.0x"},
			{"timezone", timezone},
		}},
		{"deviceId", h.Device},
	}
}

// Frame is the app's request, for TLS.
func (h Hello) Frame() []byte { return h.frame(h.app()) }

// WebFrame is the web page's request as one binary message, for a WebSocket.
func (h Hello) WebFrame() []byte { return h.frame(h.web()) }

func (h Hello) frame(payload []field) []byte {
	b := []byte{versionBinary, CmdRequest}
	b = binary.BigEndian.AppendUint16(b, h.Seq)
	b = binary.BigEndian.AppendUint16(b, SessionInit)
	b = append(b, 0, 0, 0, 0)
	b = appendMap(b, payload)
	binary.BigEndian.PutUint32(b[6:], uint32(len(b)-HeaderLen))
	return b
}

// WebText is the web page's request as one text message.
func (h Hello) WebText() []byte {
	b, err := json.Marshal(struct {
		Ver     int            `json:"ver"`
		Cmd     int            `json:"cmd"`
		Seq     uint16         `json:"seq"`
		Opcode  int            `json:"opcode"`
		Payload map[string]any `json:"payload"`
	}{versionJSON, CmdRequest, h.Seq, SessionInit, toMap(h.web())})
	if err != nil {
		panic(err) // strings and integers
	}
	return b
}
