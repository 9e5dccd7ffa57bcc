package interop

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/gotd/td/bin"
	"github.com/gotd/td/tgtest"
	"github.com/gotd/td/transport"

	"github.com/messenger-probe/messenger-probe/probe"
	"github.com/messenger-probe/messenger-probe/probe/wire/mtproto"
)

// gotd is gotd's test server, data centre 2, behind a listener for each way to
// carry MTProto.
type gotd struct {
	key    *rsa.PrivateKey
	server *tgtest.Server
}

func newGotd(t *testing.T) gotd {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	none := tgtest.HandlerFunc(func(*tgtest.Server, *tgtest.Request) error { return nil })
	return gotd{key, tgtest.NewServer(tgtest.NewPrivateKey(key), none, tgtest.ServerOptions{DC: 2})}
}

func (g gotd) serve(t *testing.T, l transport.Listener) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		g.server.Serve(ctx, l)
	}()
	t.Cleanup(func() { cancel(); <-done })
}

// probers is one for each way, all of which the server must answer.
func (g gotd) probers(t *testing.T) map[string]probe.MTProto {
	t.Helper()
	plain, hidden, web := listen(t), listen(t), listen(t)
	g.serve(t, transport.Listen(plain))
	g.serve(t, transport.Listen(transport.ObfuscatedListener(hidden)))
	g.serve(t, transport.ListenCodec(func() transport.Codec { return &httpCodec{} }, web))

	ws, handler := transport.WebsocketListener(plain.Addr())
	g.serve(t, transport.Listen(ws))
	const name = "venus.web.telegram.org"
	wss, trust := serveHTTPS(t, name, handler)

	m := make(map[string]probe.MTProto)
	for _, framing := range []string{"abridged", "intermediate", "padded"} {
		m[framing] = probe.MTProto{Addr: addrOf(plain), Transport: framing}
		m["obfuscated2 "+framing] = probe.MTProto{Addr: addrOf(hidden), Transport: "obfuscated2", Framing: framing}
		m["websocket "+framing] = probe.MTProto{Addr: wss, Transport: "websocket", Framing: framing, ServerName: name, Trust: trust}
	}
	m["http"] = probe.MTProto{Addr: addrOf(web), Transport: "http"}
	for k, q := range m {
		q.DC = 2
		q.Fingerprints = []uint64{mtproto.Fingerprint(&g.key.PublicKey)}
		m[k] = q
	}
	return m
}

func TestGotd(t *testing.T) {
	g := newGotd(t)
	if f := uint64(g.server.Key().Fingerprint()); f != mtproto.Fingerprint(&g.key.PublicKey) {
		t.Fatalf("fingerprint %x to gotd, %x to us", f, mtproto.Fingerprint(&g.key.PublicKey))
	}
	for name, q := range g.probers(t) {
		t.Run(name, func(t *testing.T) {
			s, n := last(t, q)
			if s.Failure != "" || s.Op != probe.OpReply || s.Reply.Proof != "nonce and known key" {
				t.Fatalf("step %d, %s: %s %+v: %v", n, s.Op, s.Failure, s.Reply, s.Err)
			}
			if !s.Reply.HasSkew || s.Reply.Skew.Abs() > 2*time.Second {
				t.Errorf("skew %v", s.Reply.Skew)
			}

			// The same server with nobody's key.
			q.Fingerprints = nil
			if s, _ = last(t, q); s.Failure != probe.FailureSSLUnknownAuthority {
				t.Errorf("unknown key: %q: %v", s.Failure, s.Err)
			}
		})
	}
}

func TestGotdProve(t *testing.T) {
	g := newGotd(t)
	other, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	for name, q := range g.probers(t) {
		t.Run(name, func(t *testing.T) {
			q.Prove, q.Key = true, &g.key.PublicKey
			s, n := last(t, q)
			// gotd takes the nonces for numbers and drops their leading zeros
			// (internal/crypto/temp_keys.go), so one answer in 128 is sealed
			// with another key than core.telegram.org/mtproto/auth_key says.
			for i := 0; i < 4 && s.Failure == probe.FailureSSLFailedHandshake; i++ {
				s, n = last(t, q)
			}
			if s.Failure != "" || s.Reply == nil || s.Reply.Proof != "private key" {
				t.Fatalf("step %d, %s: %s %+v: %v", n, s.Op, s.Failure, s.Reply, s.Err)
			}

			// Encrypted to another key, the server cannot read it.
			wrong := q
			wrong.Key = &other.PublicKey
			if s, _ := last(t, wrong); s.Failure != probe.FailureSSLFailedHandshake || s.Reply.Proof != "private key not shown" {
				t.Errorf("another key: %q %+v: %v", s.Failure, s.Reply, s.Err)
			}

			// It could read that it is asked as another data centre.
			q.DC = 3
			if s, _ := last(t, q); s.Failure != "" || s.Reply.Code != -444 {
				t.Errorf("another data centre: %q %+v: %v", s.Failure, s.Reply, s.Err)
			}
		})
	}
}

// A server that answers an authorization key that it does not know.
func TestGotdServerError(t *testing.T) {
	g := newGotd(t)
	l := listen(t)
	g.serve(t, transport.Listen(l))
	for _, f := range []mtproto.Framing{mtproto.Abridged, mtproto.Intermediate, mtproto.Padded} {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(10 * time.Second))
		s := mtproto.NewStream(c, f)
		msg := mtproto.ReqPQ([16]byte{1}, time.Now())
		msg[0] = 1
		if err := s.Send(msg); err != nil {
			t.Fatal(err)
		}
		answer, err := s.Receive()
		if err == nil {
			_, err = mtproto.ParseResPQ(answer, [16]byte{1})
		}
		if err != mtproto.ServerError(-404) {
			t.Errorf("framing %d: %x: %v", f, answer, err)
		}
	}
}

// An httpCodec is MTProto over HTTP, which this version of gotd does not have:
// its messages, in HTTP by net/http.
type httpCodec struct{ r *bufio.Reader }

func (*httpCodec) WriteHeader(io.Writer) error { return nil }
func (*httpCodec) ReadHeader(io.Reader) error  { return nil }

func (c *httpCodec) Read(r io.Reader, b *bin.Buffer) error {
	if c.r == nil {
		c.r = bufio.NewReader(r)
	}
	req, err := http.ReadRequest(c.r)
	if err != nil {
		return err
	}
	if req.Method != http.MethodPost || req.URL.Path != "/api" {
		return fmt.Errorf("%s %s", req.Method, req.URL.Path)
	}
	body, err := io.ReadAll(req.Body)
	b.ResetTo(body)
	return err
}

func (*httpCodec) Write(w io.Writer, b *bin.Buffer) error {
	if _, err := fmt.Fprintf(w, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", b.Len()); err != nil {
		return err
	}
	_, err := w.Write(b.Raw())
	return err
}
