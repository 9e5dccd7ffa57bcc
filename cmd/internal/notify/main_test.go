package notify

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/messenger-probe/messenger-probe/probe/probetest"
	"github.com/messenger-probe/messenger-probe/probe/verdict"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// file is a file with this text.
func file(t *testing.T, text string) string {
	t.Helper()
	f := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(f, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return f
}

// secure is a server over TLS, and a file with the authority of its certificate.
func secure(t *testing.T, h http.HandlerFunc) (url, caFile string) {
	t.Helper()
	ca := probetest.NewCA(t, "people")
	s := httptest.NewUnstartedServer(h)
	s.TLS = &tls.Config{Certificates: []tls.Certificate{ca.Issue(t, nil, "127.0.0.1")}}
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	s.StartTLS()
	t.Cleanup(s.Close)
	return s.URL, file(t, string(ca.PEM()))
}

// one is the sender of a target.
func one(t *testing.T, target Target) sender {
	t.Helper()
	target.Name = "t"
	s, err := newSender(target, nil)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// began is when things happen in tests.
var began = time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)

// turned is a change of telegram's.
func turned(function string, was, state verdict.State) Change {
	c := Change{Messenger: "telegram", Title: "Telegram", Function: function, State: state, Was: was, Since: began}
	if state != verdict.OK && state != verdict.Unknown {
		c.Mechanism, c.Confidence = verdict.PortBlock, verdict.High
		c.Evidence = []string{"149.154.167.51 :443 times out at connect in 9 of 9 tries, while :80 there answers"}
	}
	return c
}

func sample() *letter {
	l := (&message{ID: "ID1", Time: began, Changes: []Change{turned("chat", verdict.OK, verdict.Blocked)}}).letter(&english, "my-server")
	return &l
}

// A disk is a Store of the test's.
type disk struct {
	mu    sync.Mutex
	b     []byte
	full  bool
	saves int
}

func (d *disk) Load(into any) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.b == nil {
		return nil
	}
	return json.Unmarshal(d.b, into)
}

func (d *disk) Save(v any) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.saves++
	if d.full {
		return &fs.PathError{Op: "write", Path: "notify.json", Err: errors.New("no space left on device")}
	}
	var err error
	d.b, err = json.Marshal(v)
	return err
}

// A wire is a network in memory with one HTTP server, for simulated time. The
// protocol on it is the real one.
type wire struct {
	conns chan net.Conn
	mu    sync.Mutex
	down  bool
}

func newWire(t *testing.T, h http.Handler) *wire {
	w := &wire{conns: make(chan net.Conn)}
	s := &http.Server{Handler: h, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)}
	done := make(chan struct{})
	go func() { defer close(done); s.Serve(w) }()
	t.Cleanup(func() { s.Close(); <-done })
	return w
}

func (w *wire) Accept() (net.Conn, error) {
	c, ok := <-w.conns
	if !ok {
		return nil, net.ErrClosed
	}
	return c, nil
}

func (w *wire) Close() error   { close(w.conns); return nil }
func (w *wire) Addr() net.Addr { return &net.TCPAddr{} }

func (w *wire) fail(down bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.down = down
}

func (w *wire) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	w.mu.Lock()
	down := w.down
	w.mu.Unlock()
	if down {
		return nil, errors.New("nobody is there")
	}
	here, there := net.Pipe()
	select {
	case w.conns <- there:
		return here, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// A hook is a server of webhooks that remembers.
type hook struct {
	mu     sync.Mutex
	answer func(n int, w http.ResponseWriter, r *http.Request) bool // whether it took the n-th; nil: always
	asked  []time.Time
	took   []hookDocument
}

func (h *hook) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var d hookDocument
	err := json.NewDecoder(io.LimitReader(r.Body, 1<<20)).Decode(&d)
	h.mu.Lock()
	n := len(h.asked)
	h.asked = append(h.asked, time.Now())
	answer := h.answer
	h.mu.Unlock()
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	if answer != nil && !answer(n, w, r) {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.took = append(h.took, d)
}

func (h *hook) set(answer func(n int, w http.ResponseWriter, r *http.Request) bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.answer = answer
}

// titles is what was taken, in a line each.
func (h *hook) titles() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := []string{}
	for _, d := range h.took {
		out = append(out, d.Title)
	}
	return out
}

func (h *hook) tries() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.asked)
}

// log is a log that may be read while it is written.
type log struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
