//go:build linux

package main

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/messenger-probe/messenger-probe/cmd/internal/netlab"
	"github.com/messenger-probe/messenger-probe/probe/verdict"
)

// handed is a listener of connections that are handed to it.
type handed struct {
	conns chan net.Conn
	once  sync.Once
	over  chan struct{}
}

func (h *handed) Accept() (net.Conn, error) {
	select {
	case c := <-h.conns:
		return c, nil
	case <-h.over:
		return nil, net.ErrClosed
	}
}

func (h *handed) Close() error   { h.once.Do(func() { close(h.over) }); return nil }
func (h *handed) Addr() net.Addr { return &net.TCPAddr{} }

// A block that comes is told by a webhook, and that it goes; an outage of the
// vantage is told to nobody.
func (w *world) testNotify(t *testing.T) {
	t.Parallel()
	v := w.vantage(t)
	at := strangers.at(60)[0]
	p := &people{}
	h := &handed{conns: make(chan net.Conn), over: make(chan struct{})}
	s := &http.Server{Handler: http.HandlerFunc(p.serve)}
	config := &tls.Config{Certificates: []tls.Certificate{w.CA.Issue(t, nil, at.String())}}
	var serving sync.WaitGroup
	serving.Go(func() { s.Serve(tls.NewListener(h, config)) })
	t.Cleanup(func() { s.Close(); serving.Wait() })
	w.Serve(t, func(c net.Conn) {
		select {
		case h.conns <- c:
			time.Sleep(time.Second) // one request, one answer; then Serve closes it
		case <-h.over:
		}
	}, on(443, at)...)

	dir := filepath.Join(w.Dir, "notify")
	w.lay(t, dir, "config.yaml", fmt.Sprintf("vantage: {name: lab-vantage}\nnotify:\n  targets:\n  - {name: hook, type: webhook, url: 'https://%v/hook'}\n", at))
	d := w.start(t, v, v.Unprivileged(w.bin, "run", "--config", filepath.Join(dir, "config.yaml")), "MESSENGER_PROBE_CATALOGUE="+w.catalogue)
	// told waits for the n-th message.
	told := func(n int, within time.Duration) hooked {
		t.Helper()
		for end := time.Now().Add(within); ; time.Sleep(100 * time.Millisecond) {
			if all := p.all(); len(all) >= n {
				return all[n-1]
			}
			if time.Now().After(end) {
				t.Fatalf("message %d not within %v: %+v", n, within, p.all())
			}
		}
	}
	d.await(t, "all ok", 60*time.Second, inState("ok", nil))

	// The line of the vantage dies: nobody is told of a block.
	v.Box.Set(netlab.Rule{Do: netlab.Drop})
	d.await(t, "offline", 60*time.Second, func(m map[string]float64) error {
		if m[`messenger_probe_vantage_state{state="offline"`] != 1 {
			return fmt.Errorf("not offline")
		}
		return nil
	})
	time.Sleep(15 * time.Second) // three intervals
	v.Box.Set()
	d.await(t, "all ok again", 60*time.Second, inState("ok", nil))
	if all := p.all(); len(all) > 0 {
		t.Errorf("an outage of the vantage was told: %+v", all)
	}

	// A block, and its end.
	v.Box.Set(netlab.Rule{Proto: netlab.UDP, Hosts: relays, Do: netlab.Drop})
	d.await(t, "block seen", 60*time.Second, inState("ok", map[string][]string{"calls": {"blocked"}}))
	m := told(1, 20*time.Second)
	if m.Title != "Lab blocked: calls (lab-vantage)" || m.Schema != "messenger-probe/notification/v1" || len(m.Changes) != 1 {
		t.Fatalf("%+v", m)
	}
	c := m.Changes[0]
	if c.State != verdict.Blocked || c.Mechanism != verdict.CallBlock || c.Since.IsZero() || len(c.Evidence) == 0 ||
		slices.ContainsFunc(c.Evidence, func(s string) bool { return strings.Contains(s, "10.") && strings.Contains(s, "local") }) {
		t.Errorf("%+v", c)
	}
	t.Logf("%s\n%s", m.Title, m.Text)
	v.Box.Set()
	m = told(2, 90*time.Second)
	if m.Title != "Lab works again: calls (lab-vantage)" || m.Changes[0].State != verdict.OK || !m.Changes[0].Began.Equal(c.Since) {
		t.Errorf("%+v", m)
	}
	t.Logf("%s\n%s", m.Title, m.Text)
	d.stop(t)
	if log := d.log.String(); !strings.Contains(log, "notified") || strings.Contains(log, "/hook") {
		t.Errorf("the log does not say that it notified, or shows the URL")
	}
	if n := len(p.all()); n != 2 {
		t.Errorf("%d messages", n)
	}
}
