package probe

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/messenger-probe/messenger-probe/probe/probetest"
)

// serveRaw handles TLS connections for a name itself.
func serveRaw(t testing.TB, name string, handle func(*tls.Conn)) (netip.AddrPort, *Trust) {
	t.Helper()
	ca := probetest.NewCA(t, "test CA")
	trust, err := NewTrust(ca.PEM())
	if err != nil {
		t.Fatal(err)
	}
	conf := &tls.Config{Certificates: []tls.Certificate{ca.Issue(t, nil, name)}, NextProtos: []string{"http/1.1"}}
	return probetest.ServeTLS(t, conf, handle), trust
}

// say reads a request, answers it, and waits for the client to go.
func say(answer func(r *http.Request) string) func(*tls.Conn) {
	return func(c *tls.Conn) {
		r, err := http.ReadRequest(bufio.NewReader(c))
		if err != nil {
			return
		}
		io.WriteString(c, answer(r))
		c.CloseWrite()
		io.Copy(io.Discard, c)
	}
}

// words is an answer of these words.
func words(s string) func(*tls.Conn) { return say(func(*http.Request) string { return s }) }

// endless repeats s until the client goes.
func endless(head, s string) func(*tls.Conn) {
	return func(c *tls.Conn) {
		http.ReadRequest(bufio.NewReader(c))
		io.WriteString(c, head)
		for {
			if _, err := io.WriteString(c, s); err != nil {
				return
			}
		}
	}
}

// drip says s a byte at a time.
func drip(s string) func(*tls.Conn) {
	return func(c *tls.Conn) {
		http.ReadRequest(bufio.NewReader(c))
		for i := range s {
			if _, err := io.WriteString(c, s[i:i+1]); err != nil {
				return
			}
			time.Sleep(50 * time.Millisecond)
		}
		io.Copy(io.Discard, c)
	}
}

func accept(r *http.Request, more string) string {
	return "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " +
		probetest.AcceptKey(r) + "\r\n" + more + "\r\n"
}

// short is the deadline of tests in which a peer is silent after a handshake,
// which takes its time on a busy machine.
const short = 500 * time.Millisecond

// enough is the deadline for a run that should end so.
func enough(story string) time.Duration {
	if strings.Contains(story, string(FailureTimeout)) {
		return short
	}
	return 10 * time.Second
}

func TestWebSocket(t *testing.T) {
	const name = "ws.example.org"
	for _, c := range []struct {
		name   string
		handle func(*tls.Conn)
		sub    string
		story  string
		reply  *ReplyInfo // of the request step
	}{
		{"works", func(c *tls.Conn) { probetest.Upgrade(c); io.Copy(io.Discard, c) }, "",
			"connect, tls_handshake, request", &ReplyInfo{Code: 101, Proof: "accept key"}},
		{"with a subprotocol", func(c *tls.Conn) { probetest.Upgrade(c); io.Copy(io.Discard, c) }, "binary",
			"connect, tls_handshake, request", &ReplyInfo{Code: 101, Proof: "accept key"}},
		{"after interim answers", say(func(r *http.Request) string {
			return "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + accept(r, "")
		}), "", "connect, tls_handshake, request", &ReplyInfo{Code: 101, Proof: "accept key"}},
		{"subprotocol left out", say(func(r *http.Request) string { return accept(r, "") }), "binary",
			"connect, tls_handshake, request http_request_failed", &ReplyInfo{Code: 101, Proof: "101 without the subprotocol"}},
		{"another subprotocol", say(func(r *http.Request) string { return accept(r, "Sec-WebSocket-Protocol: chat\r\n") }), "binary",
			"connect, tls_handshake, request http_request_failed", &ReplyInfo{Code: 101, Proof: "101 that does not fit the request"}},
		{"an extension nobody asked for", say(func(r *http.Request) string {
			return accept(r, "Sec-WebSocket-Extensions: permessage-deflate\r\n")
		}), "", "connect, tls_handshake, request http_request_failed", &ReplyInfo{Code: 101, Proof: "101 that does not fit the request"}},
		{"another's accept key", say(func(*http.Request) string { return accept(&http.Request{Header: http.Header{}}, "") }), "",
			"connect, tls_handshake, request http_request_failed", &ReplyInfo{Code: 101, Proof: "101 that does not fit the request"}},
		{"forbidden", words("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"), "",
			"connect, tls_handshake, request http_unexpected_status_code", &ReplyInfo{Code: 403, Proof: "refused over a verified certificate"}},
		{"redirected elsewhere", words("HTTP/1.1 302 Found\r\nLocation: http://stub.example.net/\r\n\r\n"), "",
			"connect, tls_handshake, request http_unexpected_status_code",
			&ReplyInfo{Code: 302, Redirect: "stub.example.net", Proof: "refused over a verified certificate"}},
		{"redirected at home", words("HTTP/1.1 302 Found\r\nLocation: https://www.example.org/\r\n\r\n"), "",
			"connect, tls_handshake, request http_unexpected_status_code", &ReplyInfo{Code: 302, Proof: "refused over a verified certificate"}},
		{"a page without end", endless("HTTP/1.1 200 OK\r\n\r\n", "<p>"), "",
			"connect, tls_handshake, request http_unexpected_status_code", &ReplyInfo{Code: 200, Proof: "refused over a verified certificate"}},
		{"a header without end", endless("HTTP/1.1 101 Switching Protocols\r\n", "X-A: b\r\n"), "",
			"connect, tls_handshake, request unknown_failure", &ReplyInfo{}},
		{"a line without end", endless("HTTP/1.1 101 Switching Protocols\r\n", "aaaaaaaaaaaaaaaaaaaa"), "",
			"connect, tls_handshake, request unknown_failure", &ReplyInfo{}},
		{"interim answers without end", endless("", "HTTP/1.1 100 Continue\r\n\r\n"), "",
			"connect, tls_handshake, request unknown_failure", &ReplyInfo{}},
		{"no HTTP", words("SSH-2.0-OpenSSH_9.2\r\n"), "", "connect, tls_handshake, request unknown_failure", &ReplyInfo{}},
		{"nothing", words(""), "", "connect, tls_handshake, request eof_error", &ReplyInfo{}},
		{"half an answer", words("HTTP/1.1 101 Switching"), "", "connect, tls_handshake, request eof_error", &ReplyInfo{}},
		{"silence", func(c *tls.Conn) { io.Copy(io.Discard, c) }, "", "connect, tls_handshake, request generic_timeout_error", &ReplyInfo{}},
		{"a byte at a time", drip("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"), "",
			"connect, tls_handshake, request generic_timeout_error", &ReplyInfo{}},
		{"101 and then silence", func(c *tls.Conn) {
			http.ReadRequest(bufio.NewReader(c))
			io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\n\r\n")
			io.Copy(io.Discard, c)
		}, "", "connect, tls_handshake, request http_request_failed", &ReplyInfo{Code: 101, Proof: "101 that does not fit the request"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			addr, trust := serveRaw(t, name, c.handle)
			q := WebSocket{ServerName: name, Path: "/ws?v=1", Origin: "https://example.org", Subprotocol: c.sub, Trust: trust}
			steps := runProber(t, q.At(addr), enough(c.story))
			if d := cmp.Diff(c.story, story(steps)); d != "" {
				t.Fatalf("%s%v", d, steps[len(steps)-1].Err)
			}
			last := steps[2]
			c.reply.Transport = "websocket"
			if d := cmp.Diff(c.reply, last.Reply); d != "" {
				t.Error(d)
			}
			if tcpInfoWorks && (last.TCP == nil || last.TCP.SegsOut == 0) {
				t.Errorf("no TCP_INFO: %+v", last.TCP)
			}
		})
	}
}

// tcpInfoWorks says whether the kernel that runs the tests tells.
var tcpInfoWorks = func() bool {
	var h Host
	l, err := h.Listen.Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return false
	}
	defer l.Close()
	c, err := h.DialContext(context.Background(), "tcp", l.Addr().String())
	if err != nil {
		return false
	}
	defer c.Close()
	return tcpInfo(c) != nil
}()

// TestWebSocketRequest is what goes over the wire.
func TestWebSocketRequest(t *testing.T) {
	const name = "ws.example.org"
	got := make(chan *http.Request, 1)
	addr, trust := serveRaw(t, name, func(c *tls.Conn) {
		r, _ := probetest.Upgrade(c)
		got <- r
		if p := c.ConnectionState().NegotiatedProtocol; p != "http/1.1" {
			t.Errorf("ALPN %q", p)
		}
	})
	runProber(t, WebSocket{Addr: addr, ServerName: name, Path: "/ws/chat?x=1", Origin: "https://web.example.org", Subprotocol: "binary", Trust: trust}, 5*time.Second)
	r := <-got
	if r.RequestURI != "/ws/chat?x=1" || r.Host != fmt.Sprintf("%s:%d", name, addr.Port()) || r.Method != "GET" {
		t.Errorf("%s %s at %s", r.Method, r.RequestURI, r.Host)
	}
	delete(r.Header, "Sec-Websocket-Key")
	want := http.Header{
		"Connection": {"Upgrade"}, "Upgrade": {"websocket"}, "Sec-Websocket-Version": {"13"},
		"Sec-Websocket-Protocol": {"binary"}, "Origin": {"https://web.example.org"}, "User-Agent": {userAgent},
	}
	if d := cmp.Diff(want, r.Header); d != "" {
		t.Error(d)
	}
}

func TestWebSocketBeforeTheRequest(t *testing.T) {
	q := WebSocket{ServerName: "ws.example.org", Path: "/"}
	q.Addr = probetest.Refused(t)
	if s := story(runProber(t, q, short)); s != "connect connection_refused" {
		t.Error(s)
	}
	q.Addr = probetest.ServeTCP(t, probetest.Stall)
	if s := story(runProber(t, q, short)); s != "connect, tls_handshake generic_timeout_error" {
		t.Error(s)
	}
	q.Addr, _ = serveRaw(t, q.ServerName, nil)
	if s := story(runProber(t, q, 10*time.Second)); s != "connect, tls_handshake ssl_unknown_authority" {
		t.Error(s)
	}
}

func TestWebSocketCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	addr, trust := serveRaw(t, "ws.example.org", func(c *tls.Conn) {
		c.Read(make([]byte, 1)) // the request has begun to come
		cancel()
		io.Copy(io.Discard, c)
	})
	s := story(WebSocket{Addr: addr, ServerName: "ws.example.org", Path: "/", Trust: trust}.Probe(ctx, &Host{}))
	if s != "connect, tls_handshake, request interrupted" {
		t.Error(s)
	}
}

// TestServerFrames: frames of any length are told apart wherever reads end, and
// the first that is masked is as far as it goes.
func TestServerFrames(t *testing.T) {
	var honest []byte
	for _, n := range []int{0, 1, 125, 126, 127, 65535, 65536, 70000, 3} {
		honest = append(honest, probetest.WSFrame(probetest.WSBinary, n, false, bytes.Repeat([]byte{0xff}, n))...)
	}
	masked := append(bytes.Clone(honest), 0x82, 0x81, 0, 0, 0, 0, 'x')
	for _, chunk := range []int{1, 2, 7, 4096, len(masked)} {
		for _, c := range []struct {
			b    []byte
			want error
		}{{honest, nil}, {masked, errMasked}} {
			var got []byte
			f := &serverFrames{r: bytes.NewReader(c.b)}
			buf := make([]byte, chunk)
			n, err := 0, error(nil)
			for err == nil {
				n, err = f.Read(buf)
				got = append(got, buf[:n]...)
			}
			if err == io.EOF {
				err = nil
			}
			if err != c.want || !bytes.HasPrefix(c.b, got) || c.want == nil && len(got) != len(c.b) {
				t.Errorf("%d at a time: %d of %d bytes, %v", chunk, len(got), len(c.b), err)
			}
		}
	}
}

// Masked frames are refused by whoever reads them.
func TestWebSocketMasked(t *testing.T) {
	const name = "ws.example.org"
	addr, trust := serveRaw(t, name, func(c *tls.Conn) {
		if _, err := probetest.Upgrade(c); err != nil {
			return
		}
		c.Read(make([]byte, 4096))
		c.Write(append([]byte{probetest.WSBinary, 0x84, 0, 0, 0, 0}, 0x6c, 0xfe, 0xff, 0xff))
		io.Copy(io.Discard, c)
	})
	for _, q := range []Addressed{
		MTProto{Transport: "websocket", DC: 2, ServerName: name, Trust: trust},
		Noise{Over: "websocket", ServerName: name, Trust: trust},
		OneMe{Over: OneMeBinary, ServerName: name, Trust: trust},
	} {
		steps := runProber(t, q.At(addr), 10*time.Second)
		if s := story(steps); s != "connect, tls_handshake, request, request, reply unknown_failure" || !errors.Is(steps[4].Err, errMasked) {
			t.Errorf("%T: %s: %v", q, s, steps[len(steps)-1].Err)
		}
	}
}

// sips is a network whose connections give one byte at a time.
type sips struct{ Host }

func (n *sips) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	c, err := n.Host.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return sipConn{c}, nil
}

type sipConn struct{ net.Conn }

func (c sipConn) Read(b []byte) (int, error)            { return c.Conn.Read(b[:min(len(b), 1)]) }
func (c sipConn) SyscallConn() (syscall.RawConn, error) { return rawConn(c.Conn) }

// TestFragmented: no prober minds how its answer is cut.
func TestFragmented(t *testing.T) {
	key := probetest.RSAKey()
	dc := probetest.DC{Key: key}
	chat := probetest.NewNoise()
	dcs := probetest.ServeTCP(t, dc.Serve)
	const name = "a.example"
	dcWeb, dcTrust := serveHTTPS(t, name, dc)
	chatWeb, chatTrust := serveHTTPS(t, name, chat)
	maxWeb, maxWebTrust := serveHTTPS(t, name, probetest.OneMe{})
	max, maxTrust := serveRaw(t, name, func(c *tls.Conn) { probetest.OneMe{}.Serve(c) })
	files, filesTrust := serveHTTPS(t, name, media)
	prove := MTProto{DC: 2, Prove: true, Key: &key.PublicKey, AnyKey: true, ServerName: name, Trust: dcTrust}
	via := func(transport string) MTProto { q := prove; q.Transport = transport; return q }
	for what, c := range map[string]struct {
		q  Addressed
		at netip.AddrPort
	}{
		"tls":            {TLS{ServerName: name, Trust: filesTrust}, files},
		"browser":        {BrowserHello{ServerName: name}, files},
		"abridged":       {via("abridged"), dcs},
		"intermediate":   {via("intermediate"), dcs},
		"padded":         {via("padded"), dcs},
		"obfuscated2":    {via("obfuscated2"), dcs},
		"mtproto http":   {via("http"), dcs},
		"mtproto ws":     {via("websocket"), dcWeb},
		"noise":          {Noise{Root: chat.Root}, probetest.ServeTCP(t, chat.Serve)},
		"noise ws":       {Noise{Over: "websocket", Root: chat.Root, ServerName: name, Trust: chatTrust}, chatWeb},
		"oneme":          {OneMe{ServerName: name, Trust: maxTrust}, max},
		"oneme json":     {OneMe{Over: OneMeJSON, ServerName: name, Trust: maxWebTrust}, maxWeb},
		"oneme binary":   {OneMe{Over: OneMeBinary, ServerName: name, Trust: maxWebTrust}, maxWeb},
		"websocket":      {WebSocket{Path: "/apiws", Subprotocol: "binary", ServerName: name, Trust: dcTrust}, dcWeb},
		"http":           {HTTP{ServerName: name, Trust: filesTrust, Expect: Expect{Status: 200, Contains: []string{"\x00"}}}, files},
		"http plain":     {HTTP{Plain: true, Expect: Expect{Contains: []string{"hello"}}}, plain(t, page("200 OK", "", "hello"))},
		"http in chunks": {HTTP{Plain: true, Expect: Expect{Contains: []string{"hello"}}}, plain(t, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n")},
		"download":       {Transfer{ServerName: name, Bytes: 16 << 10, Trust: filesTrust}, files},
		"upload":         {Transfer{ServerName: name, Bytes: 16 << 10, Direction: Upload, Trust: filesTrust}, files},
	} {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		steps := c.q.At(c.at).Probe(ctx, &sips{})
		cancel()
		if last := steps[len(steps)-1]; last.Failure != "" {
			t.Errorf("%s: %s: %v", what, story(steps), last.Err)
		}
	}
}

// TestWebSocketStreamBounded: a peer cannot make us read without end, not even
// with frames that the library answers by itself.
func TestWebSocketStreamBounded(t *testing.T) {
	const name = "ws.example.org"
	ping := string(probetest.WSFrame(probetest.WSPing, 100, false, bytes.Repeat([]byte("p"), 100)))
	for what, handle := range map[string]func(*tls.Conn){
		"pings": func(c *tls.Conn) {
			probetest.Upgrade(c)
			go io.Copy(io.Discard, c)
			for {
				if _, err := io.WriteString(c, strings.Repeat(ping, 50)); err != nil {
					return
				}
			}
		},
		"empty fragments": func(c *tls.Conn) {
			probetest.Upgrade(c)
			c.Write(probetest.WSFrame(probetest.WSBinary&0x7f, 0, false, nil))
			for {
				if _, err := c.Write(bytes.Repeat([]byte{0, 0}, 1000)); err != nil {
					return
				}
			}
		},
	} {
		addr, trust := serveRaw(t, name, handle)
		m := &Meter{Net: &Host{}}
		var tr trace
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		ws, err := tr.websocket(ctx, m, WebSocket{Addr: addr, ServerName: name, Path: "/", Trust: trust})
		if err != nil {
			t.Fatal(err)
		}
		_, _, err = ws.Read(context.Background())
		ws.CloseNow()
		if f := Classify(err); f != FailureUnknown || m.Received() > maxStream {
			t.Errorf("%s: %s after %d bytes: %v", what, f, m.Received(), err)
		}
	}
}
