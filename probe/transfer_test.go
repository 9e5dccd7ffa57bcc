package probe

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/messenger-probe/messenger-probe/probe/probetest"
)

const mediaHost = "media.example.org"

var mediaFile = make([]byte, 1<<20)

// media is an honest server: files of 1 MB with ranges, and uploads that it
// reads to the end.
var media = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodPost {
		n, err := io.Copy(io.Discard, r.Body)
		if err != nil || n != r.ContentLength {
			w.WriteHeader(400)
		}
		return
	}
	http.ServeContent(w, r, "f", time.Time{}, bytes.NewReader(mediaFile))
})

func runTransfer(t *testing.T, q Transfer, d time.Duration) (steps []Step, last Step, m *Meter) {
	t.Helper()
	m = &Meter{Net: &Host{}}
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	start := time.Now()
	steps = q.Probe(ctx, m)
	if took := time.Since(start); took > d+2*time.Second {
		t.Errorf("took %s of %s", took, d)
	}
	return steps, steps[len(steps)-1], m
}

func TestTransfer(t *testing.T) {
	addr, trust := serveHTTPS(t, mediaHost, media)
	for _, c := range []struct {
		direction string
		bytes     int64
		want      int64
		code      int
	}{
		{"", 0, 65536, 206},
		{Download, 100, 100, 206},
		{Download, 300_000, 300_000, 206},
		{Download, 2 << 20, 1 << 20, 206},
		{Upload, 0, 65536, 200},
		{Upload, 1, 1, 200},
		{Upload, 1 << 20, 1 << 20, 200},
	} {
		steps, last, m := runTransfer(t, Transfer{ServerName: mediaHost, Path: "/f?x", Direction: c.direction, Bytes: c.bytes, Trust: trust}.At(addr).(Transfer), 20*time.Second)
		if s := story(steps); s != "connect, tls_handshake, transfer" {
			t.Fatalf("%+v: %s: %v", c, s, last.Err)
		}
		i := last.Transfer
		wanted := c.bytes
		if wanted == 0 {
			wanted = 65536
		}
		if up := c.direction == Upload; i.Bytes != c.want || i.Wanted != wanted || up != (i.Written >= c.want) || last.Reply.Code != c.code || i.FirstByte <= 0 || i.FirstByte > last.Took || i.Goodput <= 0 || math.IsInf(i.Goodput, 0) {
			t.Errorf("%+v: %+v, %+v", c, i, last.Reply)
		}
		if tcpInfoWorks && last.TCP == nil {
			t.Error("no TCP_INFO")
		}
		if over := m.Received() + m.Sent() - c.want; over > 32<<10+c.want/20 {
			t.Errorf("%+v: %d bytes more than asked for", c, over)
		}
	}
}

// TestTransferRequest is what goes over the wire.
func TestTransferRequest(t *testing.T) {
	got := make(chan *http.Request, 1)
	addr, trust := serveRaw(t, mediaHost, func(c *tls.Conn) {
		r, _ := http.ReadRequest(bufio.NewReader(c))
		got <- r
		io.WriteString(c, page("200 OK", "", ""))
	})
	host := fmt.Sprintf("cdn.example.org:%d", addr.Port())
	runTransfer(t, Transfer{Addr: addr, ServerName: mediaHost, Host: "cdn.example.org", Path: "/f", Bytes: 1000, Trust: trust}, 10*time.Second)
	r := <-got
	want := http.Header{"User-Agent": {userAgent}, "Accept": {"*/*"}, "Range": {"bytes=0-999"}}
	if d := cmp.Diff(want, r.Header); d != "" || r.Method != "GET" || r.Host != host {
		t.Errorf("%s %s %s", r.Method, r.Host, d)
	}
	runTransfer(t, Transfer{Addr: addr, ServerName: mediaHost, Host: "cdn.example.org", Path: "/f", Direction: Upload, Bytes: 1000, Trust: trust}, 10*time.Second)
	r = <-got
	want = http.Header{"User-Agent": {userAgent}, "Accept": {"*/*"}, "Content-Length": {"1000"}, "Content-Type": {"application/octet-stream"}}
	if d := cmp.Diff(want, r.Header); d != "" || r.Method != "POST" || r.ContentLength != 1000 {
		t.Errorf("%s %s", r.Method, d)
	}
}

// after serves a head and some of a body, and then does something else.
func after(head string, n int, then func(*tls.Conn)) func(*tls.Conn) {
	return func(c *tls.Conn) {
		http.ReadRequest(bufio.NewReader(c))
		io.WriteString(c, head)
		c.Write(make([]byte, n))
		then(c)
	}
}

func hold(c *tls.Conn) { io.Copy(io.Discard, c) }

func reset(c *tls.Conn) {
	time.Sleep(100 * time.Millisecond) // so that what was said is heard
	c.NetConn().(*net.TCPConn).SetLinger(0)
	c.NetConn().Close()
}

func TestTransferDownloadFails(t *testing.T) {
	const ok = "HTTP/1.1 206 Partial Content\r\nContent-Length: 65536\r\n\r\n"
	for _, c := range []struct {
		name     string
		handle   func(*tls.Conn)
		stall    time.Duration
		fail     string
		min, max int64
		code     int
	}{
		{"frozen", after(ok, 15000, hold), 0, "generic_timeout_error", 15000, 18000, 206},
		{"frozen, given up early", after(ok, 15000, hold), 200 * time.Millisecond, "generic_timeout_error early", 15000, 18000, 206},
		{"frozen within a record", func(c *tls.Conn) {
			http.ReadRequest(bufio.NewReader(c))
			io.WriteString(c, ok)
			c.NetConn().Write(append([]byte{23, 3, 3, 0x40, 0}, make([]byte, 9000)...))
			hold(c)
		}, 200 * time.Millisecond, "generic_timeout_error early", 9000, 12000, 206},
		{"silence", func(c *tls.Conn) { hold(c) }, 200 * time.Millisecond, "generic_timeout_error early", 0, 0, 0},
		{"a byte a while", after(ok, 0, func(c *tls.Conn) {
			for {
				if _, err := c.Write([]byte{0}); err != nil {
					return
				}
				time.Sleep(50 * time.Millisecond)
			}
		}), time.Second, "generic_timeout_error", 1, 2000, 206},
		{"reset", after(ok, 20000, reset), 0, "connection_reset", 16384, 22000, 206},
		{"closed too early", after(ok, 20000, func(c *tls.Conn) { c.CloseWrite(); hold(c) }), 0, "eof_error", 20000, 22000, 206},
		{"not HTTP", func(c *tls.Conn) { io.WriteString(c, "SSH-2.0-OpenSSH\r\n"); hold(c) }, 0, "unknown_failure", 0, 100, 0},
		{"a header without end", endless("HTTP/1.1 200 OK\r\n", "X-A: b\r\n"), 0, "unknown_failure", 0, 65536, 0},
		{"chunks of one byte without end", endless("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "1\r\na\r\n"), 0, "unknown_failure", 1000, 65536, 200},

		{"error page", words(page("404 Not Found", "", "no such file")), 0, "", 12, 12, 404},
		{"redirect", words(page("302 Found", "Location: https://elsewhere.example/\r\n", "")), 0, "", 0, 0, 302},
		{"nothing", words("HTTP/1.1 204 No Content\r\n\r\n"), 0, "", 0, 0, 204},
		{"short file until the end", words("HTTP/1.1 200 OK\r\n\r\n" + strings.Repeat("x", 5000)), 0, "", 5000, 5000, 200},
		{"no ranges, and a file without end", endless("HTTP/1.1 200 OK\r\n\r\n", strings.Repeat("x", 4000)), 0, "", 65536, 65536, 200},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			addr, trust := serveRaw(t, mediaHost, c.handle)
			fail, early := strings.CutSuffix(c.fail, " early")
			d := enough(fail)
			if early {
				d = 10 * time.Second
			} else if c.stall > 0 {
				d = c.stall
			}
			q := Transfer{Addr: addr, ServerName: mediaHost, Stall: c.stall, Trust: trust}
			steps, last, m := runTransfer(t, q, d)
			if d := cmp.Diff(strings.TrimSpace("connect, tls_handshake, transfer "+fail), story(steps)); d != "" {
				t.Fatalf("%s%v", d, last.Err)
			}
			i := last.Transfer
			if i.Bytes < c.min || i.Bytes > c.max || last.Reply.Code != c.code {
				t.Errorf("%+v %+v", i, last.Reply)
			}
			if early && (i.Stall < c.stall || i.Stall > 5*time.Second || last.Took > 5*time.Second) {
				t.Errorf("given up after %s, stalled for %s", last.Took, i.Stall)
			}
			if strings.HasPrefix(c.name, "frozen") && (i.Stall < 150*time.Millisecond || tcpInfoWorks && (i.StallAt < c.min || i.StallAt > c.max)) {
				t.Errorf("stalled for %s at %d", i.Stall, i.StallAt)
			}
			if m.Received() > defaultTransfer+maxStream {
				t.Errorf("%d bytes taken in", m.Received())
			}
			if want := c.code == 302; want != (last.Reply.Redirect == "elsewhere.example") {
				t.Errorf("redirect %q", last.Reply.Redirect)
			}
		})
	}
}

// TestTransferThrottled: slow is no failure, but told.
func TestTransferThrottled(t *testing.T) {
	addr, trust := serveRaw(t, mediaHost, after("HTTP/1.1 200 OK\r\nContent-Length: 65536\r\n\r\n", 0, func(c *tls.Conn) {
		for range 16 {
			c.Write(make([]byte, 4096))
			time.Sleep(40 * time.Millisecond)
		}
		hold(c)
	}))
	steps, last, _ := runTransfer(t, Transfer{Addr: addr, ServerName: mediaHost, Stall: 5 * time.Second, Trust: trust}, 20*time.Second)
	i := last.Transfer
	// 15 pauses of 40 ms, longer on a busy machine.
	if story(steps) != "connect, tls_handshake, transfer" || i.Bytes != 65536 || i.Goodput > 65536/0.6 || i.Goodput < 1000 || i.Stall < transferTick {
		t.Errorf("%s %+v", story(steps), i)
	}
}

func TestTransferUploadFails(t *testing.T) {
	small := func(c *tls.Conn) { c.NetConn().(*net.TCPConn).SetReadBuffer(4096) }
	for _, c := range []struct {
		name     string
		handle   func(*tls.Conn)
		stall    time.Duration
		fail     string
		min, max int64
		code     int
	}{
		{"frozen", func(c *tls.Conn) {
			small(c)
			io.CopyN(io.Discard, c, 20000)
			c.NetConn().SetReadDeadline(time.Time{})
			time.Sleep(4 * short)
		}, 0, "generic_timeout_error", 16384, 900_000, 0},
		{"frozen, given up early", func(c *tls.Conn) {
			small(c)
			io.CopyN(io.Discard, c, 20000)
			time.Sleep(4 * short)
		}, 200 * time.Millisecond, "generic_timeout_error early", 16384, 900_000, 0},
		{"taken, and no answer", func(c *tls.Conn) { hold(c) }, 200 * time.Millisecond, "generic_timeout_error early", 1 << 20, 1 << 20, 0},
		{"reset", func(c *tls.Conn) { io.CopyN(io.Discard, c, 20000); reset(c) }, 0, "connection_reset", 16384, 1 << 20, 0},
		{"closed without an answer", func(c *tls.Conn) { io.CopyN(io.Discard, c, 20000); c.CloseWrite(); hold(c) }, 0, "eof_error", 10000, 1 << 20, 0},
		{"an answer without end", endless("HTTP/1.1 200 OK\r\n", "X-A: b\r\n"), 0, "unknown_failure", 0, 1 << 20, 0},

		{"refused unread", func(c *tls.Conn) {
			http.ReadRequest(bufio.NewReader(c))
			io.WriteString(c, page("413 Content Too Large", "Connection: close\r\n", ""))
			c.CloseWrite()
			hold(c)
		}, 0, "", 0, 1 << 20, 413},
		{"an error page without end", endless("HTTP/1.1 405 Method Not Allowed\r\n\r\n", strings.Repeat("x", 4000)), 0, "", 0, 1 << 20, 405},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			addr, trust := serveRaw(t, mediaHost, c.handle)
			fail, early := strings.CutSuffix(c.fail, " early")
			d := enough(fail)
			if early {
				d = 10 * time.Second
			}
			q := Transfer{Addr: addr, ServerName: mediaHost, Direction: Upload, Bytes: 1 << 20, Stall: c.stall, Trust: trust}
			steps, last, m := runTransfer(t, q, d)
			if d := cmp.Diff(strings.TrimSpace("connect, tls_handshake, transfer "+fail), story(steps)); d != "" {
				t.Fatalf("%s%v", d, last.Err)
			}
			i := last.Transfer
			if i.Bytes < c.min || i.Bytes > c.max || last.Reply.Code != c.code {
				t.Errorf("%+v %+v", i, last.Reply)
			}
			if early && (i.Stall < c.stall || last.Took > 5*time.Second) {
				t.Errorf("given up after %s, stalled for %s", last.Took, i.Stall)
			}
			// What was written is more than what was delivered.
			if strings.HasPrefix(c.name, "frozen") && tcpInfoWorks && (m.Sent() < i.Bytes+16<<10 || i.Written < i.Bytes+8<<10 || i.Written > m.Sent() || i.StallAt != i.Bytes) {
				t.Errorf("%d bytes sent, %+v", m.Sent(), i)
			}
		})
	}
}

func TestTransferBeforeTheBytes(t *testing.T) {
	q := Transfer{Host: mediaHost, Addr: probetest.Refused(t)}
	if s := story(runProber(t, q, short)); s != "connect connection_refused" {
		t.Error(s)
	}
	q.Addr, _ = serveRaw(t, mediaHost, nil)
	if s := story(runProber(t, q, 10*time.Second)); s != "connect, tls_handshake ssl_unknown_authority" {
		t.Error(s)
	}
	for _, q := range []Transfer{{Direction: "sideways"}, {Path: "a b\n"}} {
		if s := story(runProber(t, q, short)); s != "transfer invalid_argument" {
			t.Errorf("%+v: %s", q, s)
		}
	}
	for _, direction := range []string{Download, Upload} {
		ctx, cancel := context.WithCancel(context.Background())
		var addr netip.AddrPort
		addr, q.Trust = serveRaw(t, mediaHost, func(c *tls.Conn) { cancel(); time.Sleep(short) })
		q.Direction = direction
		if s := story(q.At(addr).Probe(ctx, &Host{})); s != "connect, tls_handshake, transfer interrupted" {
			t.Errorf("%s: %s", direction, s)
		}
	}
}
