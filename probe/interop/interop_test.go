package interop

import (
	"context"
	"crypto/tls"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"
	"time"

	"github.com/messenger-probe/messenger-probe/probe"
	"github.com/messenger-probe/messenger-probe/probe/probetest"
)

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func addrOf(l net.Listener) netip.AddrPort { return l.Addr().(*net.TCPAddr).AddrPort() }

// serveHTTPS is an HTTPS server for a name, and what to trust to believe it.
func serveHTTPS(t *testing.T, name string, h http.Handler) (netip.AddrPort, *probe.Trust) {
	t.Helper()
	ca := probetest.NewCA(t, "interop CA")
	s := httptest.NewUnstartedServer(h)
	s.TLS = &tls.Config{Certificates: []tls.Certificate{ca.Issue(t, nil, name)}}
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	trust, err := probe.NewTrust(ca.PEM())
	if err != nil {
		t.Fatal(err)
	}
	return addrOf(s.Listener), trust
}

// last runs a prober and returns its last step, and how many there were.
func last(t *testing.T, p probe.Prober) (probe.Step, int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	steps := p.Probe(ctx, &probe.Host{})
	return steps[len(steps)-1], len(steps)
}
