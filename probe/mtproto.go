package probe

import (
	"bufio"
	"cmp"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/coder/websocket"

	"github.com/messenger-probe/messenger-probe/probe/wire/mtproto"
)

// MTProto asks a Telegram data centre for its part of a key exchange
// (req_pq_multi), as every app does first: a connect step, for websocket
// tls_handshake and request, then request and reply. No account is involved
// and no key is made.
//
// It works when a resPQ echoes our nonce and lists a known RSA key, or when the
// server answers with one of MTProto's own errors (ReplyInfo.Code: -404, -429,
// …). The fingerprints are public, so an imitator who speaks MTProto could
// list them; with Prove the exchange goes on (a second request and reply) to
// server_DH_params_ok, which nobody can make without the private key. That takes
// a round trip and some milliseconds of arithmetic more.
//
// Failures of the reply: unknown_failure for what is not MTProto,
// ssl_failed_handshake for an answer to another nonce or a failed proof,
// ssl_unknown_authority for MTProto under keys we do not know; over http also
// http_unexpected_status_code, http_unexpected_redirect_url (to another domain)
// and http_request_failed (a known block page, ReplyInfo.Marks).
type MTProto struct {
	Addr netip.AddrPort
	// Transport is how messages travel (core.telegram.org/mtproto/mtproto-transports):
	// abridged, intermediate ("" too), padded, obfuscated2, http or websocket.
	Transport string
	// Framing is what obfuscated2 and websocket carry inside: intermediate (""
	// too, as TDLib does), abridged (as Telegram Desktop) or padded.
	Framing string
	// DC is told to the server inside obfuscated2, websocket and a proof: 1 to
	// 5 and so on, plus 10000 for a test one, negative for media; 0 untold.
	DC int
	// Fingerprints are the RSA keys that prove the data centre; none means
	// those of Telegram's data centres, or the test ones where DC is one.
	Fingerprints []uint64
	// AnyKey takes any RSA key: CDN data centres have keys of their own, which
	// only a logged-in client is told. The nonce must fit all the same, and
	// ReplyInfo.Proof says whether a key was known.
	AnyKey bool
	// Prove makes the server show that it holds the private half of Key. It
	// needs a DC.
	Prove bool
	Key   *rsa.PublicKey // nil is Telegram's, or the test one where DC is one

	ServerName string // websocket: verified, and sent as SNI and Host
	Path       string // websocket: "" is /apiws; the test ones have /apiws_test
	Trust      *Trust // websocket: nil is Mozilla's list
}

// At is the same question, asked of addr.
func (q MTProto) At(addr netip.AddrPort) Prober { q.Addr = addr; return q }

// FirstBytes is how many bytes are sent before the first answer, outside of
// websocket; padding would add up to 15.
func (q MTProto) FirstBytes() int {
	const message = 40 // see mtproto.ReqPQ
	framing, head := q.Transport, 4
	switch q.Transport {
	case "http":
		return len(postHead(q.Addr, message)) + message
	case "obfuscated2":
		framing, head = q.Framing, 64
	case "abridged":
		head = 1
	}
	if framing == "abridged" {
		return head + 1 + message
	}
	return head + 4 + message
}

// A messageStream carries MTProto messages.
type messageStream interface {
	Send(msg []byte) error
	Receive() ([]byte, error)
}

func (q MTProto) Probe(ctx context.Context, n Net) []Step {
	var t trace
	conn, err := t.connect(ctx, n, q.Addr)
	if err != nil {
		return t.steps
	}
	defer conn.Close()
	defer guard(ctx, conn)()

	s, end, err := q.open(ctx, &t, conn)
	if err != nil {
		return t.steps
	}
	defer end()

	var nonce [16]byte
	rand.Read(nonce[:])
	var res mtproto.ResPQ
	answered := q.exchange(ctx, &t, conn, s, mtproto.ReqPQ(nonce, time.Now()), func(msg []byte, sent time.Time, r *ReplyInfo) error {
		var err error
		if res, err = mtproto.ParseResPQ(msg, nonce); err != nil {
			return err
		}
		// The server read its clock about half a round trip ago.
		r.Skew, r.HasSkew = res.Time.Sub(sent.Add(time.Since(sent)/2)), true
		switch {
		case res.Knows(q.fingerprints()):
			r.Proof = "nonce and known key"
		case q.AnyKey:
			r.Proof = "nonce"
		default:
			return errUnknownKey
		}
		return nil
	})
	if !answered || !q.Prove {
		return t.steps
	}

	msg, c, err := res.Prove(q.key(), int32(q.DC), time.Now())
	if err != nil {
		t.do(OpRequest, q.Addr, func(*Step) error { return &FailureError{FailureUnknown, err.Error()} })
		return t.steps
	}
	q.exchange(ctx, &t, conn, s, msg, func(msg []byte, _ time.Time, r *ReplyInfo) error {
		err := c.Check(msg)
		if err == mtproto.ServerError(-404) {
			// Who does not hold the key cannot read our request, and would say
			// just this.
			err = mtproto.ErrProof
		}
		if err == nil {
			r.Proof = "private key"
		}
		return err
	})
	return t.steps
}

var errUnknownKey = errors.New("none of the server's keys is known")

// test says that the data centre is for developers.
func (q MTProto) test() bool { return q.DC > 10000 || q.DC < -10000 }

func (q MTProto) fingerprints() []uint64 {
	switch {
	case len(q.Fingerprints) > 0:
		return q.Fingerprints
	case q.test():
		return mtproto.TestFingerprints
	}
	return mtproto.ProductionFingerprints
}

func (q MTProto) key() *rsa.PublicKey {
	switch {
	case q.Key != nil:
		return q.Key
	case q.test():
		return mtproto.TestKey()
	}
	return mtproto.ProductionKey()
}

// open makes a stream of messages of a fresh connection. end closes what lies
// between the stream and the connection.
func (q MTProto) open(ctx context.Context, t *trace, conn net.Conn) (s messageStream, end func(), err error) {
	end = func() {}
	framing, known := framings[q.Framing]
	switch q.Transport {
	case "obfuscated2":
		s = mtproto.NewObfuscated(conn, framing, int16(q.DC))
	case "http":
		s = &httpStream{conn: conn, r: bufio.NewReaderSize(&atMost{conn, 2 * mtproto.MaxFrame}, 1<<10), addr: q.Addr}
	case "websocket":
		// The subprotocol is a must: tdlib/td td/telegram/net/ConnectionCreator.cpp.
		ws, err := t.upgrade(ctx, conn, WebSocket{Addr: q.Addr, ServerName: q.ServerName,
			Path: cmp.Or(q.Path, "/apiws"), Subprotocol: "binary", Trust: q.Trust})
		if err != nil {
			return nil, nil, err
		}
		s = mtproto.NewObfuscated(&wsStream{ws: ws}, framing, int16(q.DC))
		end = func() { ws.CloseNow() }
	default:
		framing, known = framings[q.Transport]
		s = mtproto.NewStream(conn, framing)
	}
	if !known {
		err = t.do(OpRequest, q.Addr, func(*Step) error {
			return &FailureError{FailureInvalidArgument, "no such transport or framing"}
		})
	}
	return s, end, err
}

var framings = map[string]mtproto.Framing{
	"":             mtproto.Intermediate,
	"intermediate": mtproto.Intermediate,
	"abridged":     mtproto.Abridged,
	"padded":       mtproto.Padded,
}

// exchange is one request and one reply step. check judges the reply; it is
// true when the reply was a message that check took, and so not a server error.
func (q MTProto) exchange(ctx context.Context, t *trace, conn net.Conn, s messageStream, msg []byte,
	check func(msg []byte, sent time.Time, r *ReplyInfo) error) bool {
	var sent time.Time
	err := t.do(OpRequest, q.Addr, func(st *Step) error {
		sent = st.Start
		err := s.Send(msg)
		if err != nil {
			st.TCP = tcpInfo(conn)
		}
		return webSocketError(ctx, err)
	})
	if err != nil {
		return false
	}
	err = t.do(OpReply, q.Addr, func(st *Step) error {
		st.Reply = &ReplyInfo{Transport: cmp.Or(q.Transport, "intermediate")}
		msg, err := s.Receive()
		st.TCP = tcpInfo(conn)
		if err == nil {
			err = check(msg, sent, st.Reply)
		}
		return st.Reply.mtproto(ctx, err)
	})
	return err == nil && t.steps[len(t.steps)-1].Reply.Code == 0
}

// mtproto notes what came instead of the expected message, and gives the
// errors of the protocol their failures. A server error is an answer.
func (r *ReplyInfo) mtproto(ctx context.Context, err error) error {
	var code mtproto.ServerError
	var other *otherHTTP
	f := FailureUnknown
	switch {
	case errors.As(err, &code):
		r.Code, r.Proof = int(code), "server error"
		return nil
	case errors.As(err, &other):
		r.Code, r.Redirect, r.Marks = other.code, other.redirect, other.marks
		r.Proof, f = "another HTTP server", other.failure
	case errors.Is(err, mtproto.ErrFrame), errors.Is(err, mtproto.ErrMalformed),
		errors.Is(err, errNotHTTP), errors.Is(err, errTooLong), errors.Is(err, errMessageKind):
		r.Proof = "not MTProto"
	case errors.Is(err, mtproto.ErrNonce):
		r.Proof, f = "answer to another nonce", FailureSSLFailedHandshake
	case errors.Is(err, mtproto.ErrProof):
		r.Proof, f = "private key not shown", FailureSSLFailedHandshake
	case errors.Is(err, errUnknownKey):
		r.Proof, f = "unknown key", FailureSSLUnknownAuthority
	default:
		return webSocketError(ctx, err)
	}
	return &FailureError{f, err.Error()}
}

// An httpStream carries each message as the body of a POST, bare, as Telegram
// Desktop does when nothing else gets through
// (telegramdesktop/tdesktop Telegram/SourceFiles/mtproto/connection_http.cpp).
type httpStream struct {
	conn net.Conn
	r    *bufio.Reader
	addr netip.AddrPort
}

func (s *httpStream) Send(msg []byte) error {
	_, err := s.conn.Write(append(postHead(s.addr, len(msg)), msg...))
	return err
}

// postHead is the head of a request with so many bytes.
func postHead(addr netip.AddrPort, n int) []byte {
	return fmt.Appendf(nil, "POST /api HTTP/1.1\r\nHost: %s\r\nUser-Agent: Mozilla/5.0\r\nConnection: Keep-Alive\r\n"+
		"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: %d\r\n\r\n", hostPort("", addr, 80), n)
}

func (s *httpStream) Receive() ([]byte, error) {
	resp, err := readHead(s.r, &http.Request{Method: http.MethodPost})
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, mtproto.MaxFrame+1))
	other := &otherHTTP{resp.StatusCode, foreignRedirect(resp, s.addr.Addr().String()), blockMarks(resp, body), ""}
	switch {
	case len(body) == 4: // an error of MTProto's, whatever the status; TDLib looks at none
		return body, nil
	case other.redirect != "":
		other.failure = FailureHTTPUnexpectedRedirect
	case len(other.marks) > 0:
		other.failure = FailureHTTPRequestFailed
	case resp.StatusCode != http.StatusOK:
		other.failure = FailureHTTPUnexpectedStatus
	case err == nil && len(body) > mtproto.MaxFrame:
		return nil, mtproto.ErrFrame
	default:
		return body, err
	}
	return nil, other
}

// otherHTTP is an answer over HTTP that is not Telegram's, as an error.
type otherHTTP struct {
	code     int
	redirect string
	marks    []string
	failure  Failure
}

func (*otherHTTP) Error() string { return "the answer of another HTTP server" }

// A wsStream is the bytes of a WebSocket's binary messages, one write one
// message. It ends when the connection's deadline does.
type wsStream struct {
	ws *websocket.Conn
	r  io.Reader // the rest of a message; nil none
}

func (s *wsStream) Write(b []byte) (int, error) {
	if err := s.ws.Write(context.Background(), websocket.MessageBinary, b); err != nil {
		return 0, err
	}
	return len(b), nil
}

func (s *wsStream) Read(b []byte) (int, error) {
	for {
		if s.r == nil {
			kind, r, err := s.ws.Reader(context.Background())
			if err != nil {
				return 0, err
			}
			if kind != websocket.MessageBinary {
				return 0, errMessageKind
			}
			s.r = r
		}
		n, err := s.r.Read(b)
		if err == io.EOF {
			s.r, err = nil, nil
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
}
