package probe

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"

	"github.com/coder/websocket"

	"github.com/messenger-probe/messenger-probe/probe/wire/oneme"
)

// What carries the frames of a [OneMe] prober.
const (
	OneMeTLS    = "tls"              // binary frames, as the apps speak to api.oneme.ru and api2.oneme.ru
	OneMeJSON   = "websocket-json"   // ws-api.oneme.ru
	OneMeBinary = "websocket-binary" // api.oneme.ru/websocket, since 2026
)

// OneMe asks MAX's messaging server for a session, as every client does before
// anybody logs in: a connect and a tls_handshake step, for a WebSocket its
// request step, then a request and a reply step.
//
// The reply works when a frame echoes our random sequence number and the opcode
// of SESSION_INIT, and is a success or a well-formed error (ReplyInfo.Code 2 or
// 3, its command). It comes from who holds the certificate of ServerName, so
// the echo only proves that the service behind the front answers. Nothing in
// the request is kept or comes from this machine: the device is random, the
// language that of the most.
//
// Failures of the reply: unknown_failure for what is not OneMe,
// json_parse_error for what is no JSON where JSON belongs.
type OneMe struct {
	Addr       netip.AddrPort
	ServerName string // verified, and sent as SNI and, for a WebSocket, as Host
	Over       string // OneMeTLS (also ""), OneMeJSON, OneMeBinary
	Path       string // WebSocket: "" is /websocket
	Origin     string // WebSocket: "" is https://web.max.ru, which the server wants (openmax-server/docs oneme/transports/websocket.md)
	Trust      *Trust // nil: Mozilla's list
}

// At is the same question, asked of addr.
func (q OneMe) At(addr netip.AddrPort) Prober { q.Addr = addr; return q }

// maxFrames is how many frames may come that answer nothing of ours.
const maxFrames = 16

// A frameStream carries OneMe's frames.
type frameStream interface {
	send(hello oneme.Hello) error
	// receive reads one frame, and judges its payload if it answers seq.
	receive(seq uint16) (oneme.Header, error)
}

func (q OneMe) Probe(ctx context.Context, n Net) []Step {
	var t trace
	conn, err := t.connect(ctx, n, q.Addr)
	if err != nil {
		return t.steps
	}
	defer conn.Close()
	s, end, err := q.open(ctx, &t, conn)
	if err != nil {
		return t.steps
	}
	defer end()

	hello := newHello()
	err = t.do(OpRequest, q.Addr, func(st *Step) error {
		err := s.send(hello)
		st.TCP = tcpInfo(conn)
		return webSocketError(ctx, err)
	})
	if err != nil {
		return t.steps
	}
	t.do(OpReply, q.Addr, func(st *Step) error {
		st.Reply = &ReplyInfo{Transport: cmp.Or(q.Over, OneMeTLS)}
		err := awaitReply(s, hello.Seq, st.Reply)
		st.TCP = tcpInfo(conn)
		e, malformed := errors.AsType[oneme.Error](err)
		if malformed || errors.Is(err, errMessageKind) {
			st.Reply.Proof = "not OneMe"
		}
		if e == oneme.ErrJSON {
			return &FailureError{FailureJSONParse, e.Error()}
		}
		return webSocketError(ctx, err)
	})
	return t.steps
}

// open makes a stream of frames of a fresh connection.
func (q OneMe) open(ctx context.Context, t *trace, conn net.Conn) (s frameStream, end func(), err error) {
	switch q.Over {
	case "", OneMeTLS:
		// The apps offer no ALPN.
		c, err := t.handshake(ctx, &boundedConn{conn, maxStream}, TLS{Addr: q.Addr, ServerName: q.ServerName, Trust: q.Trust})
		if err != nil {
			return nil, nil, err
		}
		return oneMeBytes{c}, guard(ctx, conn), nil
	case OneMeJSON, OneMeBinary:
		ws, err := t.upgrade(ctx, conn, WebSocket{Addr: q.Addr, ServerName: q.ServerName, Trust: q.Trust,
			Path: cmp.Or(q.Path, "/websocket"), Origin: cmp.Or(q.Origin, "https://web.max.ru")})
		if err != nil {
			return nil, nil, err
		}
		s = oneMeMessages{ws}
		if q.Over == OneMeJSON {
			s = oneMeText{ws}
		}
		return s, func() { ws.CloseNow() }, nil
	}
	return nil, nil, t.do(OpRequest, q.Addr, func(*Step) error {
		return &FailureError{FailureInvalidArgument, "no such way to carry OneMe"}
	})
}

// newHello is a request that no other has been or will be.
func newHello() oneme.Hello {
	var b [34]byte
	rand.Read(b[:])
	return oneme.Hello{
		Seq:       1 + uint16(b[0])%255,
		SessionID: 1 + int(b[1])%100,
		Device:    uuid([16]byte(b[2:18])),
		Instance:  uuid([16]byte(b[18:34])),
	}
}

// uuid makes a version 4 UUID of random bytes, RFC 9562 §5.4.
func uuid(b [16]byte) string {
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// awaitReply reads frames until one answers us.
func awaitReply(s frameStream, seq uint16, r *ReplyInfo) error {
	for range maxFrames {
		h, err := s.receive(seq)
		if err != nil {
			return err
		}
		if !h.Answers(seq) {
			r.Proof = "frames that answer nothing of ours"
			continue
		}
		switch h.Cmd {
		case oneme.CmdOK:
			r.Proof = "sequence number"
		case oneme.CmdNotFound:
			r.Code, r.Proof = int(h.Cmd), "not found, with our sequence number"
		case oneme.CmdError:
			r.Code, r.Proof = int(h.Cmd), "error with our sequence number"
		}
		return nil
	}
	return errTooLong
}

// oneMeBytes is frames over TLS.
type oneMeBytes struct{ conn io.ReadWriter }

func (s oneMeBytes) send(hello oneme.Hello) error {
	_, err := s.conn.Write(hello.Frame())
	return err
}

func (s oneMeBytes) receive(seq uint16) (oneme.Header, error) {
	var head [oneme.HeaderLen]byte
	if _, err := io.ReadFull(s.conn, head[:]); err != nil {
		return oneme.Header{}, err
	}
	h, err := oneme.ParseHeader(head[:])
	if err != nil {
		return h, err
	}
	if !h.Answers(seq) {
		_, err := io.CopyN(io.Discard, s.conn, int64(h.Len))
		return h, err
	}
	payload := make([]byte, h.Len)
	if _, err := io.ReadFull(s.conn, payload); err != nil {
		return h, err
	}
	return h, h.Check(payload)
}

// oneMeMessages is one frame a binary message.
type oneMeMessages struct{ ws *websocket.Conn }

func (s oneMeMessages) send(hello oneme.Hello) error {
	return s.ws.Write(context.Background(), websocket.MessageBinary, hello.WebFrame())
}

func (s oneMeMessages) receive(seq uint16) (oneme.Header, error) {
	b, err := readMessage(s.ws, websocket.MessageBinary)
	if err != nil {
		return oneme.Header{}, err
	}
	h, err := oneme.ParseFrame(b)
	if err == nil && h.Answers(seq) {
		err = h.Check(b[oneme.HeaderLen:])
	}
	return h, err
}

// oneMeText is one JSON object a text message.
type oneMeText struct{ ws *websocket.Conn }

func (s oneMeText) send(hello oneme.Hello) error {
	return s.ws.Write(context.Background(), websocket.MessageText, hello.WebText())
}

func (s oneMeText) receive(seq uint16) (oneme.Header, error) {
	b, err := readMessage(s.ws, websocket.MessageText)
	if err != nil {
		return oneme.Header{}, err
	}
	h, payload, err := oneme.ParseJSON(b)
	if err == nil && h.Answers(seq) {
		err = h.CheckJSON(payload)
	}
	return h, err
}
