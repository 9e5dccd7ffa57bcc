package mtproto

import (
	"bufio"
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"io"
	"slices"
)

// MaxFrame is the longest frame that is read, in bytes. A resPQ is about 100,
// a server_DH_params_ok about 650.
const MaxFrame = 16 << 10

// A Framing says where a message ends in a stream of bytes.
type Framing byte

const (
	Intermediate Framing = iota // what TDLib sends
	Abridged                    // what Telegram Desktop sends
	Padded                      // intermediate with 0 to 15 random bytes after each message
)

// tag is what announces the framing to the server, inside obfuscated2 in full.
func (f Framing) tag() []byte {
	switch f {
	case Abridged:
		return []byte{0xef, 0xef, 0xef, 0xef}
	case Padded:
		return []byte{0xdd, 0xdd, 0xdd, 0xdd}
	}
	return []byte{0xee, 0xee, 0xee, 0xee}
}

// appendFrame frames a message, whose length is a multiple of 4.
func (f Framing) appendFrame(b, msg []byte) []byte {
	switch f {
	case Abridged:
		if n := len(msg) / 4; n < 0x7f {
			b = append(b, byte(n))
		} else {
			b = append(b, 0x7f, byte(n), byte(n>>8), byte(n>>16))
		}
		return append(b, msg...)
	case Padded:
		pad := make([]byte, 16)
		rand.Read(pad)
		pad = pad[1 : 1+pad[0]%16]
		b = binary.LittleEndian.AppendUint32(b, uint32(len(msg)+len(pad)))
		return append(append(b, msg...), pad...)
	}
	b = binary.LittleEndian.AppendUint32(b, uint32(len(msg)))
	return append(b, msg...)
}

// readFrame reads one frame of 4 bytes to [MaxFrame]. It does not wait for the
// end of a frame that cannot hold an unencrypted message, which begins with
// auth_key_id 0: nearly any first byte is a length to the abridged framing.
func (f Framing) readFrame(r *bufio.Reader) ([]byte, error) {
	var head [4]byte
	var n uint32
	if f == Abridged {
		if _, err := io.ReadFull(r, head[:1]); err != nil {
			return nil, err
		}
		if n = uint32(head[0]); n == 0x7f {
			if _, err := io.ReadFull(r, head[:3]); err != nil {
				return nil, err
			}
			n = binary.LittleEndian.Uint32(head[:])
		}
		n *= 4
	} else {
		if _, err := io.ReadFull(r, head[:]); err != nil {
			return nil, err
		}
		// The top bit marks a quick acknowledgement, which nobody asked for.
		n = binary.LittleEndian.Uint32(head[:])
	}
	if n < 4 || n > MaxFrame {
		return nil, ErrFrame
	}
	if n >= headerLen {
		if id, err := r.Peek(8); len(id) > 0 && !bytes.Equal(id, make([]byte, len(id))) {
			return nil, ErrMalformed
		} else if err == io.EOF {
			return nil, io.ErrUnexpectedEOF
		} else if err != nil {
			return nil, err
		}
	}
	msg := make([]byte, n)
	if _, err := io.ReadFull(r, msg); err == io.EOF {
		return nil, io.ErrUnexpectedEOF
	} else if err != nil {
		return nil, err
	}
	return msg, nil
}

// A Stream carries messages over a connection, as the client.
type Stream struct {
	w       io.Writer
	r       *bufio.Reader
	framing Framing
	head    []byte        // goes out before the first message
	out     cipher.Stream // nil: plain
}

// NewStream frames messages without hiding them.
func NewStream(rw io.ReadWriter, f Framing) *Stream {
	head := f.tag()
	if f == Abridged {
		head = head[:1]
	}
	return &Stream{w: rw, r: bufio.NewReaderSize(rw, 1<<10), framing: f, head: head}
}

// NewObfuscated frames messages inside obfuscated2, which the apps use on TCP
// and which is mandatory inside a WebSocket. dc is the number of the data
// centre: plus 10000 for a test one, negative for one of media, 0 unsaid.
func NewObfuscated(rw io.ReadWriter, f Framing, dc int16) *Stream {
	head, out, in := obfuscate(f, dc, rand.Reader)
	r := cipher.StreamReader{S: in, R: rw}
	return &Stream{w: rw, r: bufio.NewReaderSize(r, 1<<10), framing: f, head: head, out: out}
}

// Send writes one message in one write.
func (s *Stream) Send(msg []byte) error {
	b := make([]byte, 0, len(s.head)+4+len(msg)+16)
	b = append(b, s.head...)
	b = s.framing.appendFrame(b, msg)
	if s.out != nil {
		s.out.XORKeyStream(b[len(s.head):], b[len(s.head):])
	}
	s.head = nil
	_, err := s.w.Write(b)
	return err
}

// Receive reads one message. The error is [ErrFrame], [ErrMalformed] or one of
// reading.
func (s *Stream) Receive() ([]byte, error) { return s.framing.readFrame(s.r) }

// obfuscate draws the 64 bytes that open an obfuscated2 connection, and the key
// streams that follow from them: AES-256-CTR with the key in bytes 8 to 39 and
// the counter in 40 to 55; for the other direction the same bytes backwards.
// The last 8 bytes go out encrypted.
func obfuscate(f Framing, dc int16, random io.Reader) (head []byte, out, in cipher.Stream) {
	head = make([]byte, 64)
	for ok := false; !ok; ok = allowed(head) {
		if _, err := io.ReadFull(random, head); err != nil {
			panic(err) // crypto/rand does not fail
		}
	}
	copy(head[56:], f.tag())
	if dc != 0 {
		binary.LittleEndian.PutUint16(head[60:], uint16(dc))
	}
	back := slices.Clone(head[8:56])
	slices.Reverse(back)
	out, in = ctr(head[8:56]), ctr(back)
	hidden := make([]byte, 64)
	out.XORKeyStream(hidden, head)
	copy(head[56:], hidden[56:])
	return head, out, in
}

func ctr(keyIV []byte) cipher.Stream {
	block, err := aes.NewCipher(keyIV[:32])
	if err != nil {
		panic(err) // 32 bytes are a key
	}
	return cipher.NewCTR(block, keyIV[32:])
}

// forbidden is how an obfuscated2 connection must not begin: a server, or a
// middlebox, would take it for another protocol.
var forbidden = [...][]byte{
	{0xef}, []byte("HEAD"), []byte("POST"), []byte("GET "), []byte("OPTI"),
	{0x16, 0x03, 0x01, 0x02}, {0xdd, 0xdd, 0xdd, 0xdd}, {0xee, 0xee, 0xee, 0xee},
}

func allowed(head []byte) bool {
	for _, p := range forbidden {
		if bytes.HasPrefix(head, p) {
			return false
		}
	}
	return binary.LittleEndian.Uint32(head[4:]) != 0
}
