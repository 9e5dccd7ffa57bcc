package probe

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"
)

// The directions of a [Transfer].
const (
	Download = "download"
	Upload   = "upload"
)

// Transfer moves some bytes over HTTP/1.1 and TLS, and tells how far they came:
// a connect, a tls_handshake and a transfer step, which holds the request.
//
// A download asks for a range (RFC 9110 §14.2) and stops after Bytes. An upload
// posts random bytes. What was written is not what was delivered: a frozen
// connection takes some 100 kB into the kernel's buffers, so uploads are
// counted by what the peer acknowledged (TCP_INFO).
//
// The step works when all Bytes have passed, and also when the server ends the
// exchange earlier, in order: an error page is short, and who refuses an upload
// need not read it. TransferInfo.Bytes and ReplyInfo.Code tell. It fails with
// generic_timeout_error when the bytes stop for as long as Stall, or the
// deadline ends the run; then Bytes is where, and Written how far ahead the kernel
// had let us get.
type Transfer struct {
	Addr       netip.AddrPort
	ServerName string // verified, and sent as SNI; "": Host
	Host       string // "": ServerName
	Path       string // "": /; may hold a query
	Direction  string // Download (also ""), Upload
	Bytes      int64  // 0: 65536
	// Stall is how long no byte may pass; 0: until the deadline.
	Stall time.Duration
	Trust *Trust // nil: Mozilla's list
}

// At is the same question, asked of addr.
func (q Transfer) At(addr netip.AddrPort) Prober { q.Addr = addr; return q }

const (
	defaultTransfer = 64 << 10

	// What the kernel may hold of a transfer, so that a server which heeds no
	// range cannot send much more than was asked for.
	transferBuffer = 64 << 10

	// How often progress is looked at.
	transferTick = 20 * time.Millisecond
)

func (q Transfer) Probe(ctx context.Context, n Net) []Step {
	var t trace
	q.Direction = cmp.Or(q.Direction, Download)
	q.ServerName, q.Host = cmp.Or(q.ServerName, q.Host), cmp.Or(q.Host, q.ServerName)
	if q.Bytes <= 0 {
		q.Bytes = defaultTransfer
	}
	req, err := q.request()
	if err != nil || q.Direction != Download && q.Direction != Upload {
		t.do(OpTransfer, q.Addr, func(*Step) error {
			return &FailureError{FailureInvalidArgument, "no such transfer"}
		})
		return t.steps
	}
	raw, err := t.connect(ctx, n, q.Addr)
	if err != nil {
		return t.steps
	}
	defer raw.Close()
	setBuffers(raw, transferBuffer)
	raw = &boundedConn{raw, int(q.Bytes) + maxStream}
	conn, err := t.handshake(ctx, raw, TLS{Addr: q.Addr, ServerName: q.ServerName, ALPN: []string{"http/1.1"}, Trust: q.Trust})
	if err != nil {
		return t.steps
	}
	defer guard(ctx, raw)()
	t.do(OpTransfer, q.Addr, func(s *Step) error {
		s.Reply = &ReplyInfo{Transport: "http"}
		s.Transfer = &TransferInfo{Direction: q.Direction, Wanted: q.Bytes}
		m := &movement{Transfer: q, conn: conn, start: time.Now(), reply: s.Reply}
		err := m.watch(raw, req, s.Transfer)
		s.TCP = tcpInfo(raw)
		return cause(ctx, err)
	})
	return t.steps
}

func (q Transfer) request() (*http.Request, error) {
	method, body := http.MethodGet, io.Reader(nil)
	if q.Direction == Upload {
		method, body = http.MethodPost, io.LimitReader(incompressible{}, q.Bytes)
	}
	req, err := http.NewRequest(method, "https://"+hostPort(q.Host, q.Addr, 443)+cmp.Or(q.Path, "/"), body)
	if err != nil {
		return nil, err
	}
	req.Header = http.Header{"User-Agent": {userAgent}, "Accept": {"*/*"}}
	if q.Direction == Upload {
		req.Header.Set("Content-Type", "application/octet-stream")
		req.ContentLength = q.Bytes
	} else {
		req.Header.Set("Range", "bytes=0-"+strconv.FormatInt(q.Bytes-1, 10))
	}
	return req, nil
}

// incompressible is bytes that nothing on the way can make fewer.
type incompressible struct{}

func (incompressible) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = byte(rand.Uint32())
	}
	return len(b), nil
}

// setBuffers bounds what the kernel holds of a TCP connection, where it can be
// told to.
func setBuffers(conn net.Conn, n int) {
	if m, ok := conn.(*meteredConn); ok {
		conn = m.Conn
	}
	if c, ok := conn.(*net.TCPConn); ok {
		c.SetReadBuffer(n)
		c.SetWriteBuffer(n)
	}
}

// A movement is one transfer on its way. One goroutine moves the bytes, for an
// upload another reads the answer; watch sees whether they get on.
type movement struct {
	Transfer
	conn  net.Conn // TLS
	start time.Time
	reply *ReplyInfo

	body        atomic.Int64 // bytes of the answer's body that were read
	written     atomic.Int64 // bytes of an upload that the kernel has taken
	first, last atomic.Int64 // when the first and the last came, in ns since start; 0 none
}

// watch moves the bytes and fills in info, until they are through or have
// stopped.
func (m *movement) watch(raw net.Conn, req *http.Request, info *TransferInfo) error {
	var (
		before = tcpInfo(raw)
		blind  = before == nil && m.Direction == Upload
		done   = make(chan error, 1)
		tick   = time.NewTicker(transferTick)
		last   = m.start // when something moved
		passed int64
		err    error
	)
	defer tick.Stop()
	go func() {
		if m.Direction == Upload {
			done <- m.upload(req)
		} else {
			done <- m.download(req)
		}
	}()
	for running := true; running; {
		select {
		case err = <-done:
			running = false
		case <-tick.C:
		}
		now := time.Now()
		if p := m.passed(raw, before); p > passed || blind {
			passed, last = p, now
		}
		if still := now.Sub(last); still > info.Stall {
			info.Stall, info.StallAt = still, min(passed, m.Bytes)
		}
		if running && m.Stall > 0 && now.Sub(last) >= m.Stall {
			m.conn.SetDeadline(time.Unix(1, 0))
			<-done
			err, running = os.ErrDeadlineExceeded, false
		}
	}
	info.FirstByte, info.Written = time.Duration(m.first.Load()), m.written.Load()
	info.Bytes = m.body.Load()
	took := time.Duration(m.last.Load()) - info.FirstByte
	if before != nil && (m.Direction == Upload || err != nil) {
		// A TLS record counts for nothing until it is whole, so that of a download
		// that stopped the wire knows more.
		info.Bytes = max(info.Bytes, min(passed, m.Bytes))
	}
	if m.Direction == Upload {
		took = last.Sub(m.start)
	}
	info.Goodput = float64(info.Bytes) / max(took, time.Millisecond).Seconds()
	return err
}

// passed is the bytes that went over the wire since before: of a download those
// that came, of an upload those that the peer acknowledged, within a kilobyte of
// its body. Where the kernel does not tell, it is what was read, and uploads
// count nothing.
func (m *movement) passed(raw net.Conn, before *TCPInfo) int64 {
	now := tcpInfo(raw)
	switch {
	case before == nil || now == nil:
		return m.body.Load()
	case m.Direction == Upload:
		return int64(now.BytesAcked - before.BytesAcked)
	}
	return int64(now.BytesReceived - before.BytesReceived)
}

// download asks, and reads no more than it asked for.
func (m *movement) download(req *http.Request) error {
	if err := req.Write(m.conn); err != nil {
		return err
	}
	br := bufio.NewReader(m.conn)
	resp, err := m.answer(br, req)
	if err != nil {
		return err
	}
	buf := make([]byte, 4<<10)
	for left := m.Bytes; left > 0; left = m.Bytes - m.body.Load() {
		n, err := resp.Body.Read(buf[:min(left, int64(len(buf)))])
		if n > 0 {
			now := int64(time.Since(m.start))
			m.first.CompareAndSwap(0, now)
			m.last.Store(now)
			m.body.Add(int64(n))
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// upload sends until the server answers.
func (m *movement) upload(req *http.Request) error {
	answered := make(chan error, 1)
	go func() {
		_, err := m.answer(bufio.NewReader(m.conn), req)
		if err == nil {
			m.first.Store(int64(time.Since(m.start)))
		}
		// Whatever it was, nobody reads on.
		m.conn.SetWriteDeadline(time.Unix(1, 0))
		answered <- err
	}()
	w := &writer{Writer: m.conn, written: &m.written}
	req.Write(w)
	err := <-answered
	// The kernel tells of a reset once. Where the writer was told, the reader
	// sees a FIN.
	if errors.Is(err, io.ErrUnexpectedEOF) && errors.Is(w.err, syscall.ECONNRESET) {
		return w.err
	}
	return err
}

// writer counts what is written, and keeps what ended it, of which
// [http.Request.Write] makes an error that cannot be unwrapped.
type writer struct {
	io.Writer
	written *atomic.Int64
	err     error
}

func (w *writer) Write(b []byte) (int, error) {
	n, err := w.Writer.Write(b)
	w.written.Add(int64(n))
	if w.err == nil {
		w.err = err
	}
	return n, err
}

// answer reads the head of the answer.
func (m *movement) answer(br *bufio.Reader, req *http.Request) (*http.Response, error) {
	resp, err := readHead(br, req)
	if err == nil {
		m.reply.Code, m.reply.Redirect = resp.StatusCode, foreignRedirect(resp, m.Host)
		m.reply.Proof = "HTTP over a verified certificate"
	}
	return resp, err
}
