package probe

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"

	"github.com/coder/websocket"
)

// WebSocket asks a host to switch to WebSocket (RFC 6455 §4.1) over HTTP/1.1
// and TLS: a connect, a tls_handshake and a request step. It works when the
// answer is 101 with the accept key that only a WebSocket server computes and,
// where Subprotocol is set, with that subprotocol, as browsers insist on. A
// refusal is http_unexpected_status_code and keeps the status in ReplyInfo.
type WebSocket struct {
	Addr        netip.AddrPort
	ServerName  string // verified, and sent as SNI and Host
	Path        string // begins with /, may hold a query
	Origin      string // "": the header is not sent
	Subprotocol string // "": none is asked for
	Trust       *Trust // nil: Mozilla's list
}

// At is the same question, asked of addr.
func (q WebSocket) At(addr netip.AddrPort) Prober { q.Addr = addr; return q }

func (q WebSocket) Probe(ctx context.Context, n Net) []Step {
	var t trace
	if ws, err := t.websocket(ctx, n, q); err == nil {
		ws.CloseNow()
	}
	return t.steps
}

// maxMessage bounds one WebSocket message.
const maxMessage = 64 << 10

// websocket opens a connection and upgrades it. CloseNow of the result closes
// all of it.
func (t *trace) websocket(ctx context.Context, n Net, q WebSocket) (*websocket.Conn, error) {
	conn, err := t.connect(ctx, n, q.Addr)
	if err != nil {
		return nil, err
	}
	ws, err := t.upgrade(ctx, conn, q)
	if err != nil {
		conn.Close()
	}
	return ws, err
}

// upgrade takes a fresh TCP connection through the handshakes of TLS and of
// WebSocket. The result obeys ctx until it is closed, so its methods need no
// deadline of their own. They had better have none: websocket.Conn closes the
// connection when a context ends, and TCP_INFO goes with it.
func (t *trace) upgrade(ctx context.Context, conn net.Conn, q WebSocket) (*websocket.Conn, error) {
	c, err := t.handshake(ctx, &boundedConn{conn, maxStream}, TLS{Addr: q.Addr, ServerName: q.ServerName, ALPN: []string{"http/1.1"}, Trust: q.Trust})
	if err != nil {
		return nil, err
	}
	var ws *websocket.Conn
	err = t.do(OpRequest, q.Addr, func(s *Step) error {
		s.Reply = &ReplyInfo{Transport: "websocket"}
		stop := guard(ctx, conn)
		var resp *http.Response
		opts := &websocket.DialOptions{
			HTTPHeader: http.Header{"User-Agent": {userAgent}},
			HTTPClient: &http.Client{
				Transport: roundTrip(func(req *http.Request) (*http.Response, error) {
					var br *bufio.Reader
					var err error
					if resp, br, err = exchange(c, req); err != nil {
						return nil, err
					}
					if resp.StatusCode == http.StatusSwitchingProtocols {
						resp.Body = &upgraded{ws: &ws, r: &serverFrames{r: br}, Writer: c, close: func() error { stop(); return conn.Close() }}
					} else {
						resp.Body = http.NoBody
					}
					return resp, nil
				}),
				CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
			},
		}
		if q.Origin != "" {
			opts.HTTPHeader.Set("Origin", q.Origin)
		}
		if q.Subprotocol != "" {
			opts.Subprotocols = []string{q.Subprotocol}
		}
		var err error
		ws, _, err = websocket.Dial(context.WithoutCancel(ctx), "wss://"+hostPort(q.ServerName, q.Addr, 443)+q.Path, opts)
		s.TCP = tcpInfo(conn)
		switch {
		case resp == nil:
			stop()
			return cause(ctx, err)
		case resp.StatusCode != http.StatusSwitchingProtocols:
			stop()
			s.Reply.Code, s.Reply.Redirect = resp.StatusCode, foreignRedirect(resp, q.ServerName)
			s.Reply.Proof = "refused over a verified certificate"
			return &FailureError{FailureHTTPUnexpectedStatus, "the server does not switch to WebSocket"}
		case err != nil:
			stop()
			s.Reply.Code, s.Reply.Proof = resp.StatusCode, "101 that does not fit the request"
			return &FailureError{FailureHTTPRequestFailed, "101 with a wrong accept key, subprotocol or extension"}
		case !strings.EqualFold(ws.Subprotocol(), q.Subprotocol):
			ws.CloseNow()
			s.Reply.Code, s.Reply.Proof = resp.StatusCode, "101 without the subprotocol"
			return &FailureError{FailureHTTPRequestFailed, "101 without the subprotocol"}
		}
		ws.SetReadLimit(maxMessage)
		s.Reply.Code, s.Reply.Proof = resp.StatusCode, "accept key"
		return nil
	})
	if err != nil {
		return nil, err
	}
	return ws, nil
}

// webSocketError is what ended a read or write on a WebSocket.
func webSocketError(ctx context.Context, err error) error {
	if websocket.CloseStatus(err) != -1 {
		return &FailureError{FailureEOF, "closed by a close frame"}
	}
	return cause(ctx, err)
}

// upgraded is a connection after 101. Until the WebSocket stands it neither
// reads nor closes: [websocket.Dial] spends up to 3 s on the body of an answer
// that it refuses.
type upgraded struct {
	ws **websocket.Conn
	r  io.Reader // what has been read too far, then the connection
	io.Writer
	close func() error
}

func (c *upgraded) Read(b []byte) (int, error) {
	if *c.ws == nil {
		return 0, io.EOF
	}
	return c.r.Read(b)
}

func (c *upgraded) Close() error {
	if *c.ws == nil {
		return nil
	}
	return c.close()
}

// serverFrames reads frames as a server sends them, and fails at one that is
// masked: a client must not take it (RFC 6455 §5.1), but the library does.
type serverFrames struct {
	r    io.Reader
	head []byte // of the next frame, as far as it has come
	left uint64 // of the payload of this one
}

var errMasked = errors.New("a masked frame from a server")

func (f *serverFrames) Read(b []byte) (int, error) {
	n, err := f.r.Read(b)
	for p := b[:n]; len(p) > 0; {
		if f.left > 0 {
			skip := min(f.left, uint64(len(p)))
			f.left -= skip
			p = p[skip:]
			continue
		}
		f.head, p = append(f.head, p[0]), p[1:]
		if len(f.head) < 2 {
			continue
		}
		if f.head[1]&0x80 != 0 {
			return 0, errMasked
		}
		extended := f.head[2:]
		switch size := f.head[1]; {
		case size < 126:
			f.left = uint64(size)
		case size == 126 && len(extended) == 2:
			f.left = uint64(binary.BigEndian.Uint16(extended))
		case size == 127 && len(extended) == 8:
			f.left = binary.BigEndian.Uint64(extended)
		default:
			continue
		}
		f.head = f.head[:0]
	}
	return n, err
}

// roundTrip makes a func an [http.RoundTripper].
type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

var errMessageKind = errors.New("a text message where a binary one belongs, or the other way round")

// readMessage reads one message of a kind.
func readMessage(ws *websocket.Conn, want websocket.MessageType) ([]byte, error) {
	kind, b, err := ws.Read(context.Background())
	if err == nil && kind != want {
		err = errMessageKind
	}
	return b, err
}
