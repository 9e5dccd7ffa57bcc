package probe

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/google/go-cmp/cmp"

	"github.com/messenger-probe/messenger-probe/probe/probetest"
	"github.com/messenger-probe/messenger-probe/probe/wire/noise"
)

// text is a WebSocket that says one text message, or closes.
type text struct{ say string }

func (h text) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{"binary"}, InsecureSkipVerify: true})
	if err != nil {
		return
	}
	defer ws.CloseNow()
	ctx := context.Background()
	ws.Read(ctx)
	if h.say == "" {
		ws.Close(websocket.StatusPolicyViolation, "no")
		return
	}
	ws.Write(ctx, websocket.MessageText, []byte(h.say))
	ws.Read(ctx)
}

func TestNoise(t *testing.T) {
	s := probetest.NewNoise()
	addr := probetest.ServeTCP(t, s.Serve)
	ws, trust := serveHTTPS(t, "web.whatsapp.com", s)
	for _, c := range []struct {
		q    Noise
		over string
		ops  []Op
	}{
		{Noise{Addr: addr}, "raw", []Op{OpConnect, OpRequest, OpReply}},
		{Noise{Addr: addr, Over: "raw"}, "raw", []Op{OpConnect, OpRequest, OpReply}},
		{Noise{Addr: ws, Over: "websocket", ServerName: "web.whatsapp.com", Trust: trust}, "websocket",
			[]Op{OpConnect, OpTLSHandshake, OpRequest, OpRequest, OpReply}},
	} {
		c.q.Root = s.Root
		steps := runProber(t, c.q, 5*time.Second)
		if d := cmp.Diff(verdict{c.ops, ""}, verdictOf(steps)); d != "" {
			t.Fatalf("%s: -want +got\n%s%v", c.over, d, steps[len(steps)-1].Err)
		}
		last := steps[len(steps)-1]
		if d := cmp.Diff(&ReplyInfo{Transport: c.over, Proof: "certificate chain"}, last.Reply); d != "" {
			t.Errorf("%s: -want +got\n%s", c.over, d)
		}
		if runtime.GOOS == "linux" && (last.TCP == nil || last.TCP.BytesReceived == 0) {
			t.Errorf("%s: TCP %+v", c.over, last.TCP)
		}
	}
}

// After the server's hello nothing more may be sent: the next message would be
// the client's identity.
func TestNoiseStops(t *testing.T) {
	s := probetest.NewNoise()
	heard := make(chan int64, 1)
	addr := probetest.ServeTCP(t, func(c net.Conn) {
		m := &Meter{}
		s.Serve(&meteredConn{c, m})
		heard <- m.Received()
	})
	runProber(t, Noise{Addr: addr, Root: s.Root}, 5*time.Second)
	if n := <-heard; n != 43 {
		t.Errorf("%d bytes were sent", n)
	}
}

func TestNoiseDistrusts(t *testing.T) {
	now := uint64(time.Now().Unix())
	for _, c := range []struct {
		name    string
		change  func(s *probetest.Noise, q *Noise)
		failure Failure
		proof   string
	}{
		{"WhatsApp's root", func(_ *probetest.Noise, q *Noise) { q.Root = [32]byte{} }, FailureSSLUnknownAuthority, "another root"},
		{"another root", func(_ *probetest.Noise, q *Noise) { q.Root = probetest.NewNoise().Root }, FailureSSLUnknownAuthority, "another root"},
		{"a root that is no point", func(_ *probetest.Noise, q *Noise) {
			q.Root = [32]byte(bytes.Repeat([]byte{0xff}, 32))
			q.Root[0] = 0xec // -1
			q.Root[31] = 0x7f
		}, FailureSSLUnknownAuthority, "another root"},
		{"expired", func(s *probetest.Noise, _ *Noise) { s.NotAfter = now - 3600 }, FailureSSLInvalidCertificate, "certificate not valid now"},
		{"expired in milliseconds", func(s *probetest.Noise, _ *Noise) { s.NotAfter = (now - 3600) * 1000 }, FailureSSLInvalidCertificate, "certificate not valid now"},
		{"not yet valid", func(s *probetest.Noise, _ *Noise) { s.NotBefore = now + 3600 }, FailureSSLInvalidCertificate, "certificate not valid now"},
		{"of another key", func(s *probetest.Noise, _ *Noise) { s.Certified = [32]byte{1} }, FailureSSLInvalidCertificate, "certificate of another key"},
		{"no dates", func(s *probetest.Noise, _ *Noise) { s.NotBefore, s.NotAfter = 0, 0 }, "", "certificate chain"},
		{"milliseconds", func(s *probetest.Noise, _ *Noise) { s.NotBefore, s.NotAfter = (now-9)*1000, (now+9)*1000 }, "", "certificate chain"},
		{"our clock a little off", func(s *probetest.Noise, _ *Noise) { s.NotBefore = now + 60 }, "", "certificate chain"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := probetest.NewNoise()
			q := Noise{Root: s.Root}
			c.change(s, &q)
			steps := runProber(t, q.At(probetest.ServeTCP(t, s.Serve)), 5*time.Second)
			last := steps[len(steps)-1]
			if last.Failure != c.failure || last.Reply == nil || last.Reply.Proof != c.proof {
				t.Errorf("%q, %+v (%v)", last.Failure, last.Reply, last.Err)
			}
		})
	}
}

func TestNoiseFails(t *testing.T) {
	change := func(f func([]byte) []byte) func(net.Conn) {
		s := probetest.NewNoise()
		s.Change = f
		return s.Serve
	}
	var first []byte
	replay := change(func(b []byte) []byte {
		if first == nil {
			first = slices.Clone(b)
		}
		return first
	})
	replayed := probetest.ServeTCP(t, replay)
	runProber(t, Noise{Addr: replayed}, 5*time.Second)

	for _, c := range []struct {
		name    string
		handle  func(net.Conn)
		failure Failure
		proof   string
	}{
		{"reset", probetest.Reset, FailureConnectionReset, ""},
		{"closed", probetest.FIN, FailureEOF, ""},
		{"silent", probetest.Stall, FailureTimeout, ""},
		{"a byte a second", probetest.Drip(append([]byte{0, 1, 0}, make([]byte, 256)...)), FailureTimeout, ""},
		{"block page", probetest.BlockPage, FailureUnknown, "not a server hello"},
		{"TLS alert", probetest.Alert(40), FailureUnknown, "not a server hello"},
		{"echo", func(c net.Conn) { io.Copy(c, c) }, FailureUnknown, "not a server hello"},
		{"empty frame", probetest.Answer([]byte{0, 0, 0}), FailureUnknown, "not a server hello"},
		{"endless frame", func(c net.Conn) {
			go io.Copy(io.Discard, c)
			for {
				if _, err := c.Write(bytes.Repeat([]byte{0xff}, 64<<10)); err != nil {
					return
				}
			}
		}, FailureUnknown, "not a server hello"},
		{"truncated", change(func(b []byte) []byte { return b[:len(b)-1] }), FailureUnknown, "not a server hello"},
		{"altered", change(func(b []byte) []byte { b[len(b)-1]++; return b }), FailureSSLFailedHandshake, "does not decrypt"},
		{"replayed", replay, FailureSSLFailedHandshake, "does not decrypt"},
	} {
		t.Run(c.name, func(t *testing.T) {
			steps := runProber(t, Noise{Addr: probetest.ServeTCP(t, c.handle)}, enough(string(c.failure)))
			if d := cmp.Diff(verdict{[]Op{OpConnect, OpRequest, OpReply}, c.failure}, verdictOf(steps)); d != "" {
				t.Fatalf("-want +got\n%s%v", d, steps[len(steps)-1].Err)
			}
			if got := steps[2].Reply.Proof; got != c.proof {
				t.Errorf("proof %q", got)
			}
		})
	}
	if v := verdictOf(runProber(t, Noise{Addr: probetest.Refused(t)}, short)); v.Failure != FailureConnectionRefused {
		t.Errorf("refused: %v", v)
	}
	if v := verdictOf(runProber(t, Noise{Addr: replayed, Over: "udp"}, short)); v.Failure != FailureInvalidArgument {
		t.Errorf("over UDP: %v", v)
	}
	for _, c := range []struct {
		h       http.Handler
		failure Failure
	}{
		{text{"hello"}, FailureUnknown}, {text{}, FailureEOF}, {http.NotFoundHandler(), FailureHTTPUnexpectedStatus},
	} {
		addr, trust := serveHTTPS(t, "web.whatsapp.com", c.h)
		q := Noise{Addr: addr, Over: "websocket", ServerName: "web.whatsapp.com", Trust: trust}
		if v := verdictOf(runProber(t, q, short)); v.Failure != c.failure {
			t.Errorf("%+v: %v", c.h, v)
		}
	}
}

func TestNoiseFragmented(t *testing.T) {
	s := probetest.NewNoise()
	s.Write = func(w io.Writer, frame []byte) {
		for i := range frame {
			w.Write(frame[i : i+1])
			runtime.Gosched()
		}
	}
	ws, trust := serveHTTPS(t, "web.whatsapp.com", s)
	for _, q := range []Noise{
		{Addr: probetest.ServeTCP(t, s.Serve)},
		{Addr: ws, Over: "websocket", ServerName: "web.whatsapp.com", Trust: trust},
	} {
		q.Root = s.Root
		steps := runProber(t, q, 5*time.Second)
		if v := verdictOf(steps); v.Failure != "" {
			t.Errorf("%q: %v (%v)", q.Over, v, steps[len(steps)-1].Err)
		}
	}
}

// The root that clients ship, as the default.
func TestNoiseRoot(t *testing.T) {
	if noise.Root[0] != 0x14 || noise.Root[31] != 0x6b {
		t.Errorf("%x", noise.Root)
	}
}
