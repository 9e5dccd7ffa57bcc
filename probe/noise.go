package probe

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"io"
	"net/netip"
	"time"

	"github.com/messenger-probe/messenger-probe/probe/wire/noise"
)

// Noise asks a WhatsApp chat server for its part of a Noise handshake, as every
// client does first: a connect step, for websocket tls_handshake and request,
// then request and reply. We send a fresh key and nothing else, and stop before
// the message that would say who is asking.
//
// It works when the server's hello decrypts, so that the server holds the key
// it shows, and WhatsApp's root key vouches for that key: cryptographic proof.
//
// Failures of the reply: unknown_failure for what is no server hello,
// ssl_failed_handshake for one that does not decrypt (a replay, or made without
// our key), ssl_unknown_authority for a chain that does not lead to Root,
// ssl_invalid_certificate for one that is of another key or not valid now.
type Noise struct {
	Addr       netip.AddrPort
	Over       string   // raw ("" too), as the phone apps, or websocket, as web clients
	Root       [32]byte // Curve25519; zero is WhatsApp's published root key
	ServerName string   // websocket: verified, and sent as SNI and Host
	Path       string   // websocket: "" is /ws/chat
	Origin     string   // websocket: "" is https://web.whatsapp.com
	Trust      *Trust   // websocket: nil is Mozilla's list
}

// At is the same question, asked of addr.
func (q Noise) At(addr netip.AddrPort) Prober { q.Addr = addr; return q }

// FirstBytes is how many bytes are sent before the first answer, outside of
// websocket.
func (q Noise) FirstBytes() int { return noise.HelloSize }

func (q Noise) Probe(ctx context.Context, n Net) []Step {
	var t trace
	conn, err := t.connect(ctx, n, q.Addr)
	if err != nil {
		return t.steps
	}
	defer conn.Close()
	defer guard(ctx, conn)()

	var rw io.ReadWriter = conn
	if q.Over == "websocket" {
		// Source of the defaults: tulir/whatsmeow socket/constants.go.
		ws, err := t.upgrade(ctx, conn, WebSocket{Addr: q.Addr, ServerName: q.ServerName, Path: cmp.Or(q.Path, "/ws/chat"),
			Origin: cmp.Or(q.Origin, "https://web.whatsapp.com"), Trust: q.Trust})
		if err != nil {
			return t.steps
		}
		defer ws.CloseNow()
		rw = &wsStream{ws: ws}
	} else if q.Over != "" && q.Over != "raw" {
		t.do(OpRequest, q.Addr, func(*Step) error {
			return &FailureError{FailureInvalidArgument, "no such way to carry Noise"}
		})
		return t.steps
	}

	var client *noise.Client
	err = t.do(OpRequest, q.Addr, func(s *Step) error {
		var err error
		if client, err = noise.NewClient(); err != nil {
			return err
		}
		if _, err = rw.Write(client.Hello()); err != nil {
			s.TCP = tcpInfo(conn)
		}
		return webSocketError(ctx, err)
	})
	if err != nil {
		return t.steps
	}
	t.do(OpReply, q.Addr, func(s *Step) error {
		s.Reply = &ReplyInfo{Transport: cmp.Or(q.Over, "raw")}
		frame, err := noise.ReadFrame(bufio.NewReaderSize(rw, 1<<10))
		s.TCP = tcpInfo(conn)
		if err == nil {
			err = q.verify(client, frame)
		}
		return s.Reply.noise(ctx, err)
	})
	return t.steps
}

func (q Noise) verify(client *noise.Client, frame []byte) error {
	server, err := client.ServerHello(frame)
	if err != nil {
		return err
	}
	root := q.Root
	if root == ([32]byte{}) {
		root = noise.Root
	}
	return server.Verify(root, time.Now())
}

// noise notes what the answer proved, or what did not fit, and gives the errors
// of the protocol their failures.
func (r *ReplyInfo) noise(ctx context.Context, err error) error {
	f := FailureUnknown
	switch {
	case err == nil:
		r.Proof = "certificate chain"
		return nil
	case errors.Is(err, noise.ErrFrame), errors.Is(err, noise.ErrMalformed), errors.Is(err, errMessageKind):
		r.Proof = "not a server hello"
	case errors.Is(err, noise.ErrDecrypt):
		r.Proof, f = "does not decrypt", FailureSSLFailedHandshake
	case errors.Is(err, noise.ErrUntrusted):
		r.Proof, f = "another root", FailureSSLUnknownAuthority
	case errors.Is(err, noise.ErrKey):
		r.Proof, f = "certificate of another key", FailureSSLInvalidCertificate
	case errors.Is(err, noise.ErrExpired):
		r.Proof, f = "certificate not valid now", FailureSSLInvalidCertificate
	default:
		return webSocketError(ctx, err)
	}
	return &FailureError{f, err.Error()}
}
