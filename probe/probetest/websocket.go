package probetest

import (
	"bufio"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
)

// Upgrade answers a WebSocket request as RFC 6455 §4.2.2 has it, so that what
// follows can be written as raw frames.
func Upgrade(c io.ReadWriter) (*http.Request, error) {
	r, err := http.ReadRequest(bufio.NewReader(c))
	if err != nil {
		return nil, err
	}
	head := "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " + AcceptKey(r) + "\r\n"
	if p := r.Header.Get("Sec-WebSocket-Protocol"); p != "" {
		head += "Sec-WebSocket-Protocol: " + p + "\r\n"
	}
	_, err = fmt.Fprint(c, head, "\r\n")
	return r, err
}

// AcceptKey proves to the sender of r that it was read by a WebSocket server.
func AcceptKey(r *http.Request) string {
	sum := sha1.Sum([]byte(r.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// The first bytes of frames, RFC 6455 §5.2.
const (
	WSText   = 0x81
	WSBinary = 0x82
	WSClose  = 0x88
	WSPing   = 0x89
)

// WSFrame is a frame that says how long it is, and then has what it has. Clear
// the top bit of first for a fragment.
func WSFrame(first byte, length int, masked bool, payload []byte) []byte {
	b := []byte{first, 0}
	switch {
	case length < 126:
		b[1] = byte(length)
	case length < 1<<16:
		b[1] = 126
		b = binary.BigEndian.AppendUint16(b, uint16(length))
	default:
		b[1] = 127
		b = binary.BigEndian.AppendUint64(b, uint64(length))
	}
	if !masked {
		return append(b, payload...)
	}
	b[1] |= 0x80
	mask := []byte{1, 2, 3, 4}
	b = append(b, mask...)
	for i, x := range payload {
		b = append(b, x^mask[i%4])
	}
	return b
}
