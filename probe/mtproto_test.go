package probe

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/messenger-probe/messenger-probe/probe/probetest"
	"github.com/messenger-probe/messenger-probe/probe/wire/mtproto"
)

// serveHTTPS is an HTTPS server for a name, and what to trust to believe it.
func serveHTTPS(tb testing.TB, name string, h http.Handler) (netip.AddrPort, *Trust) {
	tb.Helper()
	ca := probetest.NewCA(tb, "test CA")
	s := httptest.NewUnstartedServer(h)
	s.TLS = &tls.Config{Certificates: []tls.Certificate{ca.Issue(tb, nil, name)}}
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	tb.Cleanup(s.Close)
	trust, err := NewTrust(ca.PEM())
	if err != nil {
		tb.Fatal(err)
	}
	return s.Listener.Addr().(*net.TCPAddr).AddrPort(), trust
}

// verdict is a run in short: each step's operation, and the failure of the last.
type verdict struct {
	Ops     []Op
	Failure Failure
}

func verdictOf(steps []Step) (v verdict) {
	for _, s := range steps {
		v.Ops = append(v.Ops, s.Op)
		v.Failure = s.Failure
	}
	return v
}

func runProber(tb testing.TB, p Prober, timeout time.Duration) []Step {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	start := time.Now()
	steps := p.Probe(ctx, &Host{})
	if took := time.Since(start); took > timeout+2*time.Second {
		tb.Errorf("took %v of %v", took, timeout)
	}
	return steps
}

var production = probetest.DC{Fingerprints: []uint64{1, mtproto.ProductionFingerprints[1]}}

func TestMTProtoTransports(t *testing.T) {
	dcs := make(chan int16, 1)
	dc := production
	dc.Tell = func(n int16) { dcs <- n }
	addr := probetest.ServeTCP(t, dc.Serve)
	ws, trust := serveHTTPS(t, "venus.web.telegram.org", dc)
	three := []Op{OpConnect, OpRequest, OpReply}
	for _, c := range []struct {
		name string
		q    MTProto
		ops  []Op
		dc   int16
	}{
		{"default", MTProto{}, three, 0},
		{"abridged", MTProto{Transport: "abridged"}, three, 0},
		{"intermediate", MTProto{Transport: "intermediate"}, three, 0},
		{"padded", MTProto{Transport: "padded"}, three, 0},
		{"obfuscated2", MTProto{Transport: "obfuscated2", DC: 2}, three, 2},
		{"obfuscated2 abridged media", MTProto{Transport: "obfuscated2", Framing: "abridged", DC: -4}, three, -4},
		{"obfuscated2 padded", MTProto{Transport: "obfuscated2", Framing: "padded", DC: 5}, three, 5},
		{"http", MTProto{Transport: "http"}, three, 0},
		{"websocket", MTProto{Transport: "websocket", DC: 2, ServerName: "venus.web.telegram.org", Trust: trust},
			[]Op{OpConnect, OpTLSHandshake, OpRequest, OpRequest, OpReply}, 2},
		{"websocket padded", MTProto{Transport: "websocket", Framing: "padded", DC: 2, ServerName: "venus.web.telegram.org", Trust: trust},
			[]Op{OpConnect, OpTLSHandshake, OpRequest, OpRequest, OpReply}, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			to := addr
			if c.q.Transport == "websocket" {
				to = ws
			}
			steps := runProber(t, c.q.At(to), 5*time.Second)
			if d := cmp.Diff(verdict{c.ops, ""}, verdictOf(steps)); d != "" {
				t.Fatalf("-want +got\n%s%v", d, steps[len(steps)-1].Err)
			}
			last := steps[len(steps)-1]
			want := &ReplyInfo{Transport: c.q.Transport, HasSkew: true, Proof: "nonce and known key", Skew: last.Reply.Skew}
			if c.q.Transport == "" {
				want.Transport = "intermediate"
			}
			if d := cmp.Diff(want, last.Reply); d != "" {
				t.Errorf("-want +got\n%s", d)
			}
			if last.Reply.Skew.Abs() > 2*time.Second {
				t.Errorf("skew %v of a server with our clock", last.Reply.Skew)
			}
			if runtime.GOOS == "linux" && (last.TCP == nil || last.TCP.BytesReceived == 0) {
				t.Errorf("TCP %+v", last.TCP)
			}
			if c.dc != 0 {
				if got := <-dcs; got != c.dc {
					t.Errorf("the server was told DC %d", got)
				}
			}
			for _, s := range steps {
				if s.Addr != to {
					t.Errorf("%s has address %v", s.Op, s.Addr)
				}
			}
		})
	}
}

func TestMTProtoKeys(t *testing.T) {
	serve := func(keys ...uint64) netip.AddrPort {
		return probetest.ServeTCP(t, probetest.DC{Fingerprints: keys}.Serve)
	}
	for _, c := range []struct {
		name    string
		addr    netip.AddrPort
		q       MTProto
		failure Failure
		proof   string
	}{
		{"unknown key", serve(1, 2, 3), MTProto{DC: 2}, FailureSSLUnknownAuthority, "unknown key"},
		{"no key", serve(), MTProto{DC: 2}, FailureSSLUnknownAuthority, "unknown key"},
		{"a CDN's key", serve(1), MTProto{DC: 203, AnyKey: true}, "", "nonce"},
		{"a CDN's known key", serve(1), MTProto{DC: 203, AnyKey: true, Fingerprints: []uint64{1}}, "", "nonce and known key"},
		{"a CDN's new key", serve(2), MTProto{DC: 203, AnyKey: true, Fingerprints: []uint64{1}}, "", "nonce"},
		{"listed for the endpoint", serve(1), MTProto{Fingerprints: []uint64{7, 1}}, "", "nonce and known key"},
		{"only listed ones", serve(mtproto.ProductionFingerprints...), MTProto{Fingerprints: []uint64{7}}, FailureSSLUnknownAuthority, "unknown key"},
		{"test key", serve(mtproto.TestFingerprints...), MTProto{DC: 10002}, "", "nonce and known key"},
		{"test key of a media DC", serve(mtproto.TestFingerprints...), MTProto{DC: -10002}, "", "nonce and known key"},
		{"test key outside the test", serve(mtproto.TestFingerprints...), MTProto{DC: 2}, FailureSSLUnknownAuthority, "unknown key"},
		{"production key in the test", serve(mtproto.ProductionFingerprints...), MTProto{DC: 10002}, FailureSSLUnknownAuthority, "unknown key"},
	} {
		steps := runProber(t, c.q.At(c.addr), 5*time.Second)
		last := steps[len(steps)-1]
		if last.Failure != c.failure || last.Reply.Proof != c.proof {
			t.Errorf("%s: %q, %q (%v)", c.name, last.Failure, last.Reply.Proof, last.Err)
		}
	}
}

func TestMTProtoSkew(t *testing.T) {
	for _, ahead := range []time.Duration{-time.Hour, 90 * time.Second} {
		dc := production
		dc.Ahead = ahead
		steps := runProber(t, MTProto{Addr: probetest.ServeTCP(t, dc.Serve)}, 5*time.Second)
		r := steps[len(steps)-1].Reply
		if !r.HasSkew || (r.Skew-ahead).Abs() > time.Second {
			t.Errorf("%v ahead: %v", ahead, r.Skew)
		}
	}
}

// change is a DC whose answers are altered.
func change(f func([]byte) []byte) func(net.Conn) {
	dc := production
	dc.Change = f
	return dc.Serve
}

func constant(b ...byte) func(net.Conn) {
	return change(func([]byte) []byte { return b })
}

func TestMTProtoServerErrors(t *testing.T) {
	for code, b := range map[int][]byte{
		-404: {0x6c, 0xfe, 0xff, 0xff}, -429: {0x53, 0xfe, 0xff, 0xff}, -444: {0x44, 0xfe, 0xff, 0xff},
	} {
		addr := probetest.ServeTCP(t, constant(b...))
		for _, transport := range []string{"abridged", "intermediate", "padded", "obfuscated2", "http"} {
			// With Prove, an error ends the run as well: there is nothing to
			// go on with.
			for _, prove := range []bool{false, true} {
				steps := runProber(t, MTProto{Addr: addr, Transport: transport, DC: 2, Prove: prove}, 5*time.Second)
				last := steps[len(steps)-1]
				want := &ReplyInfo{Transport: transport, Code: code, Proof: "server error"}
				if d := cmp.Diff(want, last.Reply); d != "" || last.Failure != "" || len(steps) != 3 {
					t.Errorf("%d over %s: %q %v\n%s", code, transport, last.Failure, last.Err, d)
				}
			}
		}
	}
}

// recorded is a server that answers with what another connection was answered.
func recorded() func(net.Conn) {
	dc := production
	var first []byte
	dc.Change = func(b []byte) []byte {
		if first == nil {
			first = slices.Clone(b)
		}
		return slices.Clone(first)
	}
	return dc.Serve
}

func TestMTProtoFails(t *testing.T) {
	endless := func(head ...byte) func(net.Conn) {
		return func(c net.Conn) {
			go io.Copy(io.Discard, c)
			c.Write(head)
			for {
				if _, err := c.Write(make([]byte, 64<<10)); err != nil {
					return
				}
			}
		}
	}
	truncated := func(c net.Conn) {
		dc := production
		dc.Write = func(w io.Writer, frame []byte) {
			w.Write(frame[:len(frame)-1])
			c.(*net.TCPConn).CloseWrite()
		}
		dc.Serve(c)
	}
	http200 := func(body string) []byte { return []byte("HTTP/1.1 200 OK\r\n\r\n" + body) }
	for _, c := range []struct {
		name      string
		transport string
		handle    func(net.Conn)
		failure   Failure
		proof     string
	}{
		{"reset", "", probetest.Reset, FailureConnectionReset, ""},
		{"closed", "", probetest.FIN, FailureEOF, ""},
		{"silent", "", probetest.Stall, FailureTimeout, ""},
		{"a byte a second", "", probetest.Drip(bytes.Repeat([]byte{100, 0, 0, 0}, 100)), FailureTimeout, ""},
		{"truncated", "", truncated, FailureEOF, ""},
		{"other nonce", "", change(func(b []byte) []byte { b[24]++; return b }), FailureSSLFailedHandshake, "answer to another nonce"},
		{"block page", "", probetest.BlockPage, FailureUnknown, "not MTProto"},
		{"block page abridged", "abridged", probetest.BlockPage, FailureUnknown, "not MTProto"},
		{"block page obfuscated", "obfuscated2", probetest.BlockPage, FailureUnknown, "not MTProto"},
		{"TLS alert", "", probetest.Alert(40), FailureUnknown, "not MTProto"},
		{"echo", "", func(c net.Conn) { io.Copy(c, c) }, FailureUnknown, "not MTProto"},
		{"endless frame", "", endless(0xff, 0xff, 0xff, 0x7f), FailureUnknown, "not MTProto"},
		{"endless frame abridged", "abridged", endless(0x7f, 0xff, 0xff, 0xff), FailureUnknown, "not MTProto"},
		{"endless zeros", "", endless(), FailureUnknown, "not MTProto"},
		{"many keys", "", change(func(b []byte) []byte {
			b = append(b, make([]byte, 8000)...)
			binary.LittleEndian.PutUint32(b[16:], uint32(len(b)-20))
			binary.LittleEndian.PutUint32(b[72:], 1002)
			return b
		}), FailureUnknown, "not MTProto"},
		{"a number that is no error", "", constant(1, 0, 0, 0), FailureUnknown, "not MTProto"},

		{"http reset", "http", probetest.Reset, FailureConnectionReset, ""},
		{"http silent", "http", probetest.Stall, FailureTimeout, ""},
		{"http closed", "http", probetest.FIN, FailureEOF, ""},
		{"http block page", "http", probetest.BlockPage, FailureHTTPUnexpectedStatus, "another HTTP server"},
		{"http 200 block page", "http", probetest.Answer(http200("<html>blocked</html>")), FailureUnknown, "not MTProto"},
		{"http nothing", "http", probetest.Answer(http200("")), FailureUnknown, "not MTProto"},
		{"http long", "http", probetest.Answer(http200(string(make([]byte, mtproto.MaxFrame+1)))), FailureUnknown, "not MTProto"},
		{"http endless header", "http", endless([]byte("HTTP/1.1 200 OK\r\nX: ")...), FailureUnknown, "not MTProto"},
		{"http not http", "http", endless('x', '\n'), FailureUnknown, "not MTProto"},
		{"http endless body", "http", endless([]byte("HTTP/1.1 200 OK\r\n\r\n")...), FailureUnknown, "not MTProto"},
		{"http other nonce", "http", change(func(b []byte) []byte { b[24]++; return b }), FailureSSLFailedHandshake, "answer to another nonce"},
	} {
		t.Run(c.name, func(t *testing.T) {
			steps := runProber(t, MTProto{Addr: probetest.ServeTCP(t, c.handle), Transport: c.transport}, enough(string(c.failure)))
			if d := cmp.Diff(verdict{[]Op{OpConnect, OpRequest, OpReply}, c.failure}, verdictOf(steps)); d != "" {
				t.Fatalf("-want +got\n%s%v", d, steps[len(steps)-1].Err)
			}
			if got := steps[2].Reply.Proof; got != c.proof {
				t.Errorf("proof %q", got)
			}
		})
	}

	t.Run("refused", func(t *testing.T) {
		steps := runProber(t, MTProto{Addr: probetest.Refused(t)}, short)
		if d := cmp.Diff(verdict{[]Op{OpConnect}, FailureConnectionRefused}, verdictOf(steps)); d != "" {
			t.Error(d)
		}
	})
	t.Run("replayed", func(t *testing.T) {
		addr := probetest.ServeTCP(t, recorded())
		if v := verdictOf(runProber(t, MTProto{Addr: addr}, 5*time.Second)); v.Failure != "" {
			t.Fatalf("the recording failed: %v", v)
		}
		for _, transport := range []string{"intermediate", "obfuscated2", "http"} {
			if v := verdictOf(runProber(t, MTProto{Addr: addr, Transport: transport}, 5*time.Second)); v.Failure != FailureSSLFailedHandshake {
				t.Errorf("replayed over %s: %v", transport, v)
			}
		}
	})
	t.Run("server error in an HTTP error", func(t *testing.T) {
		addr := probetest.ServeTCP(t, probetest.Answer([]byte("HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\n\x6c\xfe\xff\xff")))
		last := runProber(t, MTProto{Addr: addr, Transport: "http"}, short)[2]
		if last.Failure != "" || last.Reply.Code != -404 {
			t.Errorf("%q %+v", last.Failure, last.Reply)
		}
	})
	t.Run("another HTTP server", func(t *testing.T) {
		for _, c := range []struct {
			answer  string
			failure Failure
			want    ReplyInfo
		}{
			{"302 Found\r\nLocation: http://elsewhere.example/", FailureHTTPUnexpectedRedirect, ReplyInfo{Code: 302, Redirect: "elsewhere.example"}},
			{"451 Unavailable For Legal Reasons", FailureHTTPRequestFailed, ReplyInfo{Code: 451, Marks: []string{"status 451"}}},
			{"404 Not Found", FailureHTTPUnexpectedStatus, ReplyInfo{Code: 404}},
		} {
			addr := probetest.ServeTCP(t, probetest.Answer([]byte("HTTP/1.1 "+c.answer+"\r\nContent-Length: 0\r\n\r\n")))
			last := runProber(t, MTProto{Addr: addr, Transport: "http"}, short)[2]
			c.want.Transport, c.want.Proof = "http", "another HTTP server"
			if d := cmp.Diff(&c.want, last.Reply); d != "" || last.Failure != c.failure {
				t.Errorf("%q\n%s", last.Failure, d)
			}
		}
	})
	t.Run("no such transport", func(t *testing.T) {
		addr := probetest.ServeTCP(t, production.Serve)
		for _, q := range []MTProto{{Transport: "tcp"}, {Transport: "obfuscated2", Framing: "full"}} {
			if v := verdictOf(runProber(t, q.At(addr), short)); v.Failure != FailureInvalidArgument {
				t.Errorf("%+v: %v", q, v)
			}
		}
	})
	t.Run("cancelled", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		addr := probetest.ServeTCP(t, func(c net.Conn) {
			c.Read(make([]byte, 48))
			cancel()
			io.Copy(io.Discard, c)
		})
		steps := MTProto{Addr: addr}.Probe(ctx, &Host{})
		if v := verdictOf(steps); v.Failure != FailureInterrupted {
			t.Errorf("%v", v)
		}
	})
}

// A frame may come in any pieces.
func TestMTProtoFragmented(t *testing.T) {
	dc := production
	dc.Write = func(w io.Writer, frame []byte) {
		for i := range frame {
			w.Write(frame[i : i+1])
			runtime.Gosched()
		}
	}
	addr := probetest.ServeTCP(t, dc.Serve)
	ws, trust := serveHTTPS(t, "venus.web.telegram.org", dc)
	for _, transport := range []string{"abridged", "intermediate", "padded", "obfuscated2", "http", "websocket"} {
		q := MTProto{Addr: addr, Transport: transport, DC: 2, ServerName: "venus.web.telegram.org", Trust: trust}
		if transport == "websocket" {
			q.Addr = ws
		}
		if v := verdictOf(runProber(t, q, 5*time.Second)); v.Failure != "" {
			t.Errorf("%s: %v", transport, v)
		}
	}
}

func TestMTProtoWebSocketFails(t *testing.T) {
	const name = "venus.web.telegram.org"
	other := production
	other.Change = func(b []byte) []byte { b[24]++; return b }
	dc := production
	dc.Write = func(io.Writer, []byte) { <-t.Context().Done() }
	unknown := probetest.DC{Fingerprints: []uint64{1}}
	for _, c := range []struct {
		label   string
		h       http.Handler
		failure Failure
	}{
		{"other nonce", other, FailureSSLFailedHandshake},
		{"unknown key", unknown, FailureSSLUnknownAuthority},
		{"swallowed", dc, FailureTimeout},
		{"text message", text{"hello"}, FailureUnknown},
		{"close frame", text{}, FailureEOF},
		{"not found", http.NotFoundHandler(), FailureHTTPUnexpectedStatus},
	} {
		addr, trust := serveHTTPS(t, name, c.h)
		steps := runProber(t, MTProto{Addr: addr, Transport: "websocket", DC: 2, ServerName: name, Trust: trust}, enough(string(c.failure)))
		if v := verdictOf(steps); v.Failure != c.failure {
			t.Errorf("%s: %v (%v)", c.label, v, steps[len(steps)-1].Err)
		}
	}
	addr, _ := serveHTTPS(t, name, production)
	if v := verdictOf(runProber(t, MTProto{Addr: addr, Transport: "websocket", ServerName: name}, short)); v.Failure != FailureSSLUnknownAuthority || len(v.Ops) != 2 {
		t.Errorf("a certificate of nobody's: %v", v)
	}
}

func TestMTProtoProve(t *testing.T) {
	key := probetest.RSAKey()
	dc := probetest.DC{Key: key}
	addr := probetest.ServeTCP(t, dc.Serve)
	ws, trust := serveHTTPS(t, "venus.web.telegram.org", dc)
	for _, transport := range []string{"abridged", "intermediate", "padded", "obfuscated2", "http", "websocket"} {
		q := MTProto{Addr: addr, Transport: transport, DC: 2, Prove: true, Key: &key.PublicKey, ServerName: "venus.web.telegram.org", Trust: trust,
			Fingerprints: []uint64{mtproto.Fingerprint(&key.PublicKey)}}
		want := verdict{[]Op{OpConnect, OpRequest, OpReply, OpRequest, OpReply}, ""}
		if transport == "websocket" {
			q.Addr = ws
			want.Ops = []Op{OpConnect, OpTLSHandshake, OpRequest, OpRequest, OpReply, OpRequest, OpReply}
		}
		steps := runProber(t, q, 5*time.Second)
		if d := cmp.Diff(want, verdictOf(steps)); d != "" {
			t.Fatalf("%s: -want +got\n%s%v", transport, d, steps[len(steps)-1].Err)
		}
		if proof := steps[len(steps)-1].Reply.Proof; proof != "private key" {
			t.Errorf("%s: proof %q", transport, proof)
		}
	}
}

// An imitator can list Telegram's fingerprints, and even send back what it is
// sent, but not answer req_DH_params.
func TestMTProtoProveImitated(t *testing.T) {
	second := func(f func([]byte) []byte) func([]byte) []byte {
		return func(b []byte) []byte {
			if len(b) > 4 && binary.LittleEndian.Uint32(b[20:]) == 0x05162463 {
				return b
			}
			return f(b)
		}
	}
	random := func(b []byte) []byte { rand.Read(b[60 : len(b)-8]); return b }
	for _, c := range []struct {
		name    string
		dc      probetest.DC
		failure Failure
		proof   string
	}{
		{"another key", probetest.DC{Fingerprints: mtproto.ProductionFingerprints, Key: probetest.RSAKey()}, FailureSSLFailedHandshake, "private key not shown"},
		{"no key", production, FailureSSLFailedHandshake, "private key not shown"},
		{"too many requests", probetest.DC{Fingerprints: mtproto.ProductionFingerprints,
			Change: second(func([]byte) []byte { return []byte{0x53, 0xfe, 0xff, 0xff} })}, "", "server error"},
		{"noise", probetest.DC{Fingerprints: mtproto.ProductionFingerprints,
			Change: second(func([]byte) []byte { return make([]byte, 652) })}, FailureUnknown, "not MTProto"},
	} {
		steps := runProber(t, MTProto{Addr: probetest.ServeTCP(t, c.dc.Serve), DC: 2, Prove: true}, 5*time.Second)
		last := steps[len(steps)-1]
		if last.Failure != c.failure || len(steps) != 5 || last.Reply.Proof != c.proof {
			t.Errorf("%s: %v, %q (%v)", c.name, verdictOf(steps), last.Reply.Proof, last.Err)
		}
	}

	key := probetest.RSAKey()
	garbled := probetest.DC{Key: key, Change: second(random)}
	prime := probetest.DC{Key: key, Change: func(b []byte) []byte {
		copy(b[57:], []byte{0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xe7}) // 2^63-25
		return b
	}}
	for name, dc := range map[string]probetest.DC{"garbled": garbled, "prime pq": prime} {
		q := MTProto{Addr: probetest.ServeTCP(t, dc.Serve), DC: 2, Prove: true, Key: &key.PublicKey, AnyKey: true}
		last := runProber(t, q, 5*time.Second)
		want := map[string]verdict{
			"garbled":  {[]Op{OpConnect, OpRequest, OpReply, OpRequest, OpReply}, FailureSSLFailedHandshake},
			"prime pq": {[]Op{OpConnect, OpRequest, OpReply, OpRequest}, FailureUnknown},
		}[name]
		if d := cmp.Diff(want, verdictOf(last)); d != "" {
			t.Errorf("%s: -want +got\n%s", name, d)
		}
	}
}

// FirstBytes is what goes out before the server has said anything.
func TestFirstBytes(t *testing.T) {
	for _, q := range []Addressed{MTProto{Transport: "abridged"}, MTProto{Transport: "intermediate"}, MTProto{}, MTProto{Transport: "obfuscated2"},
		MTProto{Transport: "obfuscated2", Framing: "abridged"}, MTProto{Transport: "http"}, MTProto{Transport: "padded"}, Noise{}} {
		got := make(chan int, 1)
		addr := probetest.ServeTCP(t, func(c net.Conn) {
			b := make([]byte, 4<<10)
			n, _ := io.ReadAtLeast(c, b, 1)
			got <- n
		})
		p := q.At(addr)
		runProber(t, p, 5*time.Second)
		padding := 0
		if m, ok := q.(MTProto); ok && m.Transport == "padded" {
			padding = 15
		}
		want := p.(interface{ FirstBytes() int }).FirstBytes()
		if n := <-got; n < want || n > want+padding {
			t.Errorf("%+v: sent %d bytes, says %d", q, n, want)
		}
	}
}

// Random bytes are as many as asked for, and begin like no protocol.
func TestBytesNoise(t *testing.T) {
	for range 20 {
		got := make(chan []byte, 1)
		addr := probetest.ServeTCP(t, func(c net.Conn) {
			b := make([]byte, 4<<10)
			n, _ := io.ReadAtLeast(c, b, 1)
			got <- b[:n]
			c.Write([]byte("x"))
		})
		steps := runProber(t, Bytes{Addr: addr, Noise: 42}, 5*time.Second)
		b := <-got
		if s := steps[len(steps)-1]; len(b) != 42 || b[0]>>4 != 8 || s.Op != OpReply || s.Failure != "" {
			t.Errorf("%d bytes, first %#x; %s %s", len(b), b[0], s.Op, s.Failure)
		}
	}
}
