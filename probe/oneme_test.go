package probe

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"regexp"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/messenger-probe/messenger-probe/probe/probetest"
)

const oneMeHost = "api.oneme.example"

var oneMeStory = map[string]string{
	OneMeTLS:    "connect, tls_handshake, request, reply",
	OneMeJSON:   "connect, tls_handshake, request, request, reply",
	OneMeBinary: "connect, tls_handshake, request, request, reply",
}

// askOneMe asks a server in one of the three ways.
func askOneMe(t *testing.T, s probetest.OneMe, over string, d time.Duration) []Step {
	t.Helper()
	q := OneMe{ServerName: oneMeHost, Over: over}
	if over == OneMeTLS {
		q.Addr, q.Trust = serveRaw(t, oneMeHost, func(c *tls.Conn) { s.Serve(c) })
	} else {
		q.Addr, q.Trust = serveHTTPS(t, oneMeHost, s)
	}
	return runProber(t, q, d)
}

// each makes every answer many of f.
func each(f func(a []byte) [][]byte) func([]byte) [][]byte {
	return func(a []byte) [][]byte { return f(bytes.Clone(a)) }
}

func one(f func(a []byte) []byte) func([]byte) [][]byte {
	return each(func(a []byte) [][]byte { return [][]byte{f(a)} })
}

func TestOneMe(t *testing.T) {
	push := []byte{10, 0, 0, 200, 0, 128, 0, 0, 0, 2, 0x81, 0xa0} // malformed, and nobody's business
	late := one(func(a []byte) []byte { time.Sleep(2 * short); return a })
	silent := func([]byte) [][]byte { return nil }
	binaryOnly := []string{OneMeTLS, OneMeBinary}
	all := []string{OneMeTLS, OneMeBinary, OneMeJSON}
	for _, c := range []struct {
		name    string
		s       probetest.OneMe
		over    []string
		failure string
		code    int
		proof   string
	}{
		{"ok", probetest.OneMe{}, all, "", 0, "sequence number"},
		{"error", probetest.OneMe{Cmd: 3}, all, "", 3, "error with our sequence number"},
		{"not found", probetest.OneMe{Cmd: 2}, all, "", 2, "not found, with our sequence number"},
		{"packed", probetest.OneMe{Packed: 3}, binaryOnly, "", 0, "sequence number"},
		{"packed error", probetest.OneMe{Cmd: 3, Packed: 3}, binaryOnly, "", 3, "error with our sequence number"},
		{"packed in a way of tomorrow's", probetest.OneMe{Packed: 9, Change: one(func(a []byte) []byte { return append(a[:10:10], bytes.Repeat([]byte{0xff}, len(a)-10)...) })}, binaryOnly,
			"", 0, "sequence number"},
		{"packed error without a name", probetest.OneMe{Cmd: 3, Packed: 3, Change: one(func(a []byte) []byte {
			return bytes.Replace(a, []byte("error"), []byte("errro"), 1)
		})}, binaryOnly, "unknown_failure", 0, "not OneMe"},
		{"a compressed bomb", probetest.OneMe{Packed: 255, Change: one(func(a []byte) []byte {
			b := append([]byte("\x1fx\x01\x00"), bytes.Repeat([]byte{0xff}, 32000)...) // 8 MB of x
			a[8], a[9] = byte(len(b)>>8), byte(len(b))
			return append(a[:10:10], b...)
		})}, binaryOnly, "unknown_failure", 0, "not OneMe"},
		{"after a push", probetest.OneMe{Change: each(func(a []byte) [][]byte { return [][]byte{push, a} })}, binaryOnly, "", 0, "sequence number"},
		{"after a push of text", probetest.OneMe{Change: each(func(a []byte) [][]byte {
			return [][]byte{[]byte(`{"ver":11,"cmd":0,"seq":9,"opcode":128,"payload":[]}`), a}
		})}, []string{OneMeJSON}, "", 0, "sequence number"},

		{"silence", probetest.OneMe{Change: silent}, all, "generic_timeout_error", 0, ""},
		{"late", probetest.OneMe{Change: late}, all, "generic_timeout_error", 0, ""},
		{"another sequence number", probetest.OneMe{Change: one(func(a []byte) []byte { a[3]++; return a })}, binaryOnly,
			"generic_timeout_error", 0, "frames that answer nothing of ours"},
		{"high byte of the sequence number", probetest.OneMe{Change: one(func(a []byte) []byte { a[2]++; return a })}, binaryOnly,
			"generic_timeout_error", 0, "frames that answer nothing of ours"},
		{"another opcode", probetest.OneMe{Change: one(func(a []byte) []byte { a[5]++; return a })}, binaryOnly,
			"generic_timeout_error", 0, "frames that answer nothing of ours"},
		{"our request comes back", probetest.OneMe{Change: one(func(a []byte) []byte { a[1] = 0; return a })}, binaryOnly,
			"generic_timeout_error", 0, "frames that answer nothing of ours"},
		{"another sequence number of text", probetest.OneMe{Change: one(func(a []byte) []byte {
			return regexp.MustCompile(`"seq":\d+`).ReplaceAll(a, []byte(`"seq":4711`))
		})}, []string{OneMeJSON}, "generic_timeout_error", 0, "frames that answer nothing of ours"},
		{"answers to others without end", probetest.OneMe{Change: each(func(a []byte) [][]byte {
			a[2]++
			return slicesRepeat(a, 100)
		})}, binaryOnly, "unknown_failure", 0, "frames that answer nothing of ours"},
		{"unknown command", probetest.OneMe{Change: one(func(a []byte) []byte { a[1] = 9; return a })}, binaryOnly, "unknown_failure", 0, "not OneMe"},
		{"garbage", probetest.OneMe{Change: one(func([]byte) []byte { return []byte("HTTP/1.1 400 Bad Request\r\n\r\n") })}, binaryOnly,
			"unknown_failure", 0, "not OneMe"},
		{"16 MB promised", probetest.OneMe{Change: one(func(a []byte) []byte { a[7], a[8], a[9] = 0xff, 0xff, 0xff; return a })}, binaryOnly,
			"unknown_failure", 0, "not OneMe"},
		{"payload is no map", probetest.OneMe{Change: one(func(a []byte) []byte { a[10] = 0x93; return a })}, binaryOnly, "unknown_failure", 0, "not OneMe"},
		{"error without a name", probetest.OneMe{Cmd: 3, Change: one(func(a []byte) []byte {
			return bytes.Replace(a, []byte("error"), []byte("errro"), 1)
		})}, all, "unknown_failure", 0, "not OneMe"},
		{"cut", probetest.OneMe{Change: one(func(a []byte) []byte { return a[:len(a)-1] })}, []string{OneMeTLS}, "generic_timeout_error", 0, ""},
		{"message cut", probetest.OneMe{Change: one(func(a []byte) []byte { return a[:len(a)-1] })}, []string{OneMeBinary}, "unknown_failure", 0, "not OneMe"},
		{"message of two frames", probetest.OneMe{Change: one(func(a []byte) []byte { return append(a, a...) })}, []string{OneMeBinary}, "unknown_failure", 0, "not OneMe"},
		{"no JSON", probetest.OneMe{Change: one(func(a []byte) []byte { return a[:len(a)-1] })}, []string{OneMeJSON}, "json_parse_error", 0, "not OneMe"},
		{"other JSON", probetest.OneMe{Change: one(func(a []byte) []byte { return []byte(`{"ok":false}`) })}, []string{OneMeJSON}, "unknown_failure", 0, "not OneMe"},
		{"a message too long", probetest.OneMe{Change: one(func(a []byte) []byte { return make([]byte, 100<<10) })}, []string{OneMeJSON, OneMeBinary}, "unknown_failure", 0, ""},
		{"in pieces", probetest.OneMe{Change: each(func(a []byte) (out [][]byte) {
			for i := range a {
				out = append(out, a[i:i+1])
			}
			return out
		})}, []string{OneMeTLS}, "", 0, "sequence number"},
	} {
		for _, over := range c.over {
			t.Run(c.name+"/"+over, func(t *testing.T) {
				t.Parallel()
				steps := askOneMe(t, c.s, over, enough(c.failure))
				want := oneMeStory[over]
				if c.failure != "" {
					want += " " + c.failure
				}
				last := steps[len(steps)-1]
				if d := cmp.Diff(want, story(steps)); d != "" {
					t.Fatalf("%s%v", d, last.Err)
				}
				if d := cmp.Diff(&ReplyInfo{Transport: over, Code: c.code, Proof: c.proof}, last.Reply); d != "" {
					t.Errorf("%s%v", d, last.Err)
				}
				if tcpInfoWorks && last.TCP == nil {
					t.Error("no TCP_INFO")
				}
			})
		}
	}
}

// TestOneMeWebSocket is what only raw frames can do.
func TestOneMeWebSocket(t *testing.T) {
	frame := func(first byte, masked bool, b []byte) []byte { return probetest.WSFrame(first, len(b), masked, b) }
	// answer is what an honest server says to what was read.
	answer := func(c *tls.Conn, text bool) []byte {
		head := make([]byte, 8)
		io.ReadFull(c, head) // our requests are longer than 125 bytes and shorter than 64 kB
		b := make([]byte, binary.BigEndian.Uint16(head[2:]))
		io.ReadFull(c, b)
		for i := range b {
			b[i] ^= head[4+i%4]
		}
		if text {
			seq := regexp.MustCompile(`"seq":(\d+)`).FindSubmatch(b)[1]
			return []byte(`{"ver":11,"cmd":1,"seq":` + string(seq) + `,"opcode":6,"payload":{"location":"RU"}}`)
		}
		return []byte{10, 1, b[2], b[3], 0, 6, 0, 0, 0, 1, 0x80}
	}
	for _, c := range []struct {
		name    string
		over    string
		send    func(c *tls.Conn, a []byte)
		failure string
		proof   string
	}{
		{"plain", OneMeBinary, func(c *tls.Conn, a []byte) { c.Write(frame(probetest.WSBinary, false, a)) }, "", "sequence number"},
		{"plain text", OneMeJSON, func(c *tls.Conn, a []byte) { c.Write(frame(probetest.WSText, false, a)) }, "", "sequence number"},
		{"in fragments of one byte, with pings between", OneMeBinary, func(c *tls.Conn, a []byte) {
			for i := range a {
				first := byte(0)
				if i == 0 {
					first = probetest.WSBinary & 0x7f
				}
				if i == len(a)-1 {
					first |= 0x80
				}
				c.Write(frame(first, false, a[i:i+1]))
				c.Write(frame(probetest.WSPing, false, []byte("ping")))
			}
		}, "", "sequence number"},
		// RFC 6455 §5.1: a server must not mask.
		{"masked", OneMeBinary, func(c *tls.Conn, a []byte) { c.Write(frame(probetest.WSBinary, true, a)) }, "unknown_failure", ""},
		{"masked text", OneMeJSON, func(c *tls.Conn, a []byte) { c.Write(frame(probetest.WSText, true, a)) }, "unknown_failure", ""},
		{"masked with zeros, after a ping", OneMeBinary, func(c *tls.Conn, a []byte) {
			c.Write(frame(probetest.WSPing, false, []byte("ping")))
			c.Write(append([]byte{probetest.WSBinary, 0x80 | byte(len(a)), 0, 0, 0, 0}, a...))
		}, "unknown_failure", ""},
		{"text for binary", OneMeBinary, func(c *tls.Conn, a []byte) { c.Write(frame(probetest.WSText, false, []byte("{}"))) }, "unknown_failure", "not OneMe"},
		{"binary for text", OneMeJSON, func(c *tls.Conn, a []byte) { c.Write(frame(probetest.WSBinary, false, a)) }, "unknown_failure", "not OneMe"},
		{"closed", OneMeBinary, func(c *tls.Conn, a []byte) { c.Write(frame(probetest.WSClose, false, []byte{3, 232})) }, "eof_error", ""},
		{"closed without a reason", OneMeBinary, func(c *tls.Conn, a []byte) { c.Write(frame(probetest.WSClose, false, nil)) }, "eof_error", ""},
		{"cut off", OneMeBinary, func(c *tls.Conn, a []byte) { c.Write(frame(probetest.WSBinary, false, a)[:5]); c.CloseWrite() }, "eof_error", ""},
		{"reserved bits", OneMeBinary, func(c *tls.Conn, a []byte) { c.Write(frame(0xf2, false, a)) }, "unknown_failure", ""},
		{"compressed, which nobody agreed to", OneMeBinary, func(c *tls.Conn, a []byte) { c.Write(frame(0xc2, false, a)) }, "unknown_failure", ""},
		{"a frame of 2^62 bytes", OneMeBinary, func(c *tls.Conn, a []byte) {
			c.Write(probetest.WSFrame(probetest.WSBinary, 1<<62, false, nil))
			for {
				if _, err := c.Write(make([]byte, 4096)); err != nil {
					return
				}
			}
		}, "unknown_failure", ""},
		{"a frame of -1 bytes", OneMeBinary, func(c *tls.Conn, a []byte) {
			c.Write([]byte{probetest.WSBinary, 127, 255, 255, 255, 255, 255, 255, 255, 255, 0})
		}, "unknown_failure", ""},
		{"a ping too long", OneMeBinary, func(c *tls.Conn, a []byte) {
			c.Write(probetest.WSFrame(probetest.WSPing, 1000, false, make([]byte, 1000)))
		}, "unknown_failure", ""},
		{"a message that begins twice", OneMeBinary, func(c *tls.Conn, a []byte) {
			c.Write(frame(probetest.WSBinary&0x7f, false, a))
			c.Write(frame(probetest.WSBinary, false, a))
		}, "unknown_failure", ""},
		{"a fragment that is none", OneMeBinary, func(c *tls.Conn, a []byte) { c.Write(frame(0x80, false, a)) }, "unknown_failure", ""},
		{"a byte a while", OneMeBinary, func(c *tls.Conn, a []byte) {
			for _, b := range frame(probetest.WSBinary, false, a) {
				c.Write([]byte{b})
				time.Sleep(short / 4)
			}
		}, "generic_timeout_error", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			addr, trust := serveRaw(t, oneMeHost, func(conn *tls.Conn) {
				if _, err := probetest.Upgrade(conn); err != nil {
					return
				}
				c.send(conn, answer(conn, c.over == OneMeJSON))
				io.Copy(io.Discard, conn)
			})
			steps := runProber(t, OneMe{Addr: addr, ServerName: oneMeHost, Over: c.over, Trust: trust}, enough(c.failure))
			want := oneMeStory[c.over]
			if c.failure != "" {
				want += " " + c.failure
			}
			last := steps[len(steps)-1]
			if d := cmp.Diff(want, story(steps)); d != "" {
				t.Fatalf("%s%v", d, last.Err)
			}
			if last.Reply.Proof != c.proof {
				t.Errorf("%q: %v", last.Reply.Proof, last.Err)
			}
		})
	}
}

func TestOneMeBeforeTheReply(t *testing.T) {
	at := OneMe{}.At(probetest.Refused(t)).(OneMe)
	if s := story(runProber(t, at, short)); s != "connect connection_refused" {
		t.Error(s)
	}
	at.Addr = probetest.ServeTCP(t, probetest.Reset)
	if s := story(runProber(t, at, 10*time.Second)); s != "connect, tls_handshake connection_reset" {
		t.Error(s)
	}
	at.Addr, at.Trust = serveHTTPS(t, oneMeHost, http.NotFoundHandler())
	at.ServerName, at.Over = oneMeHost, OneMeJSON
	if s := story(runProber(t, at, 10*time.Second)); s != "connect, tls_handshake, request http_unexpected_status_code" {
		t.Error(s)
	}
	at.Over = "udp"
	if s := story(runProber(t, at, 10*time.Second)); s != "connect, request invalid_argument" {
		t.Error(s)
	}
	// Reset after the request.
	at.Over = OneMeTLS
	at.Addr, at.Trust = serveRaw(t, oneMeHost, func(c *tls.Conn) {
		c.Read(make([]byte, 4096))
		c.NetConn().(*net.TCPConn).SetLinger(0)
		c.NetConn().Close()
	})
	if s := story(runProber(t, at, 10*time.Second)); s != "connect, tls_handshake, request, reply connection_reset" {
		t.Error(s)
	}
	// Closed in order, without an answer.
	at.Addr, at.Trust = serveRaw(t, oneMeHost, func(c *tls.Conn) { c.Read(make([]byte, 4096)) })
	if s := story(runProber(t, at, 10*time.Second)); s != "connect, tls_handshake, request, reply eof_error" {
		t.Error(s)
	}
}

// TestOneMeCancelled and a peer that keeps talking: the run ends soon.
func TestOneMeCancelled(t *testing.T) {
	addr, trust := serveRaw(t, oneMeHost, func(c *tls.Conn) {
		for {
			if _, err := c.Write([]byte{10, 0, 0, 1, 0, 128, 0, 0, 0, 0}); err != nil {
				return
			}
			time.Sleep(20 * time.Millisecond)
		}
	})
	ctx, cancel := context.WithCancel(context.Background())
	time.AfterFunc(60*time.Millisecond, cancel)
	steps := OneMe{Addr: addr, ServerName: oneMeHost, Trust: trust}.Probe(ctx, &Host{})
	if s := story(steps); s != "connect, tls_handshake, request, reply interrupted" {
		t.Error(s)
	}
}

// TestOneMeNothingIdentifying: no two requests share what could tell one agent
// from another, and a prober does not change by running, also beside itself.
func TestOneMeNothingIdentifying(t *testing.T) {
	var mu sync.Mutex
	seen := map[string]int{}
	addr, trust := serveRaw(t, oneMeHost, func(c *tls.Conn) {
		b := make([]byte, 4096)
		n, _ := c.Read(b)
		mu.Lock()
		defer mu.Unlock()
		for _, id := range regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}`).FindAll(b[:n], -1) {
			seen[string(id)]++
		}
	})
	q := OneMe{Addr: addr, ServerName: oneMeHost, Trust: trust}
	before := q
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() { q.Probe(t.Context(), &Host{}) })
	}
	wg.Wait()
	if len(seen) != 16 {
		t.Errorf("%d ids in 8 requests, want 16", len(seen))
	}
	if q != before {
		t.Error("the prober changed")
	}
}
