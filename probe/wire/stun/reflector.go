package stun

import (
	"encoding/binary"
	"errors"
	"time"
)

// Reflectors are Telegram's own call relays. Before a call a client says hello
// with its peer tag and gets its own address back
// (grishka/libtgvoip VoIPController.cpp, SendPublicEndpointsRequest, and
// tests/MockReflector.cpp; TelegramMessenger/tgcalls tgcalls/v2/ReflectorPort.cpp).
const (
	reflectorHelloLen = 40
	reflectorInfoLen  = 64
)

// selfInfo is the id of the answer, int32 0xc01572c7 in little endian.
var selfInfo = [4]byte{0xc7, 0x72, 0x15, 0xc0}

var errReflector = errors.New("stun: no reflector self-info")

// A Hello is one question to a reflector.
type Hello struct {
	Tag [16]byte // peer tag; a call's, or random
	ID  [8]byte  // echoed
}

// Bytes is the hello on the wire: 40 bytes.
func (h Hello) Bytes() []byte {
	b := make([]byte, 0, reflectorHelloLen)
	b = append(b, h.Tag[:]...)
	for range 12 {
		b = append(b, 0xff)
	}
	b = append(b, 0xfe, 0xff, 0xff, 0xff)
	return append(b, h.ID[:]...)
}

// A SelfInfo is a reflector's answer. The address in it is not read: it is the
// vantage's own.
type SelfInfo struct {
	Hello
	Time time.Time // the reflector's clock, in seconds
}

// ParseSelfInfo reads one datagram: peer tag, 12 bytes FF, the id of the
// answer, time, echoed id, address and port (64 bytes; some versions send a
// longer one).
func ParseSelfInfo(b []byte) (SelfInfo, error) {
	if len(b) < reflectorInfoLen {
		return SelfInfo{}, errReflector
	}
	for _, x := range b[16:28] {
		if x != 0xff {
			return SelfInfo{}, errReflector
		}
	}
	if [4]byte(b[28:32]) != selfInfo {
		return SelfInfo{}, errReflector
	}
	return SelfInfo{
		Hello: Hello{Tag: [16]byte(b[:16]), ID: [8]byte(b[36:44])},
		Time:  time.Unix(int64(int32(binary.LittleEndian.Uint32(b[32:]))), 0),
	}, nil
}
