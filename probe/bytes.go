package probe

import (
	"cmp"
	"context"
	"crypto/rand"
	"io"
	"net/netip"
)

// Bytes sends bytes that are no messenger's to a port and waits for whatever
// comes back: data, or the peer's closing. It is a differential question beside
// a protocol that meets silence, never a check: a port that answers other bytes
// and not the messenger's own is filtered by content.
type Bytes struct {
	Addr  netip.AddrPort
	Send  string // "" is the head of an HTTP request
	Noise int    // as many random bytes in its place; 0 none
}

// otherBytes draws an answer or a refusal from anything that reads lines or
// frames: it is a whole request for the one and nonsense for the other.
const otherBytes = "GET / HTTP/1.1\r\nHost: www.example.com\r\nConnection: close\r\n\r\n"

// maxNoise is how many random bytes are sent at most.
const maxNoise = 1 << 10

// At is the same question, asked of addr.
func (b Bytes) At(addr netip.AddrPort) Prober { b.Addr = addr; return b }

func (b Bytes) Probe(ctx context.Context, n Net) []Step {
	var t trace
	conn, err := t.connect(ctx, n, b.Addr)
	if err != nil {
		return t.steps
	}
	defer conn.Close()
	defer guard(ctx, conn)()
	send := []byte(cmp.Or(b.Send, otherBytes))
	if b.Noise > 0 {
		send = make([]byte, min(b.Noise, maxNoise))
		rand.Read(send)
		send[0] = send[0]&0x0f | 0x80 // the first byte of no protocol that filters know
	}
	t.do(OpReply, b.Addr, func(s *Step) error {
		_, err := conn.Write(send)
		if err == nil {
			_, err = io.ReadAtLeast(conn, make([]byte, 512), 1)
		}
		if err == io.EOF { // closing is an answer, too
			err = nil
		}
		s.TCP = tcpInfo(conn)
		return cause(ctx, err)
	})
	return t.steps
}
