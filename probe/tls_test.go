package probe

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/messenger-probe/messenger-probe/probe/probetest"
)

func TestTLS(t *testing.T) {
	const host = "chat.example"
	ca := probetest.NewCA(t, "test root")
	sub := ca.Sub(t, "test authority")
	good := &tls.Config{Certificates: []tls.Certificate{sub.Issue(t, nil, host)}, NextProtos: []string{"h2", "http/1.1"}}
	with := func(c tls.Certificate) *tls.Config { return &tls.Config{Certificates: []tls.Certificate{c}} }
	old := good.Clone()
	old.MaxVersion = tls.VersionTLS12
	asks := good.Clone() // refuses only after its own certificate
	asks.ClientAuth = tls.RequireAnyClientCert
	asks.MaxVersion = tls.VersionTLS12
	mismatched := sub.Issue(t, nil, host)
	mismatched.PrivateKey = sub.Issue(t, nil, host).PrivateKey
	huge := sub.Issue(t, nil, host)
	huge.Certificate = append(huge.Certificate, make([]byte, 10<<20))
	serve := func(conf *tls.Config) netip.AddrPort { return probetest.ServeTLS(t, conf, nil) }

	trust := newTrust(t, ca)
	pin := func(hashes ...[32]byte) *Trust { return &Trust{Pins: hashes} }

	for _, test := range []struct {
		name    string
		addr    netip.AddrPort
		q       TLS
		timeout time.Duration
		want    string
		check   func(*testing.T, Step)
	}{{
		name: "works", addr: serve(good), q: TLS{ALPN: []string{"h2"}},
		want: "connect, tls_handshake",
		check: func(t *testing.T, s Step) {
			i := s.TLS
			if i.Version != tls.VersionTLS13 || i.ALPN != "h2" || i.Hello != HelloGo || i.ServerName != host || i.Alert != -1 || i.FailedAfter != 0 || i.RTT <= 0 {
				t.Errorf("%+v", i)
			}
			if len(i.Chain) != 2 || i.Chain[0].Subject != host || i.Chain[0].Issuer != "test authority" || i.Chain[1].SHA256 != sub.Hash() || i.Chain[0].SelfSigned {
				t.Errorf("%+v", i.Chain)
			}
			if runtime.GOOS == "linux" && (s.TCP == nil || s.TCP.BytesAcked < 1400 || s.TCP.BytesReceived < 1000) {
				t.Errorf("%+v", s.TCP)
			}
		},
	}, {
		name: "works with X25519 alone", addr: serve(good), q: TLS{Hello: HelloX25519},
		want: "connect, tls_handshake",
		check: func(t *testing.T, s Step) {
			if s.TLS.Hello != HelloX25519 || s.TLS.ALPN != "" {
				t.Errorf("%+v", s.TLS)
			}
		},
	}, {
		name: "works with a split record", addr: serve(good), q: TLS{Split: SplitRecord}, want: "connect, tls_handshake",
	}, {
		name: "works with a split segment", addr: serve(good), q: TLS{Split: SplitTCP}, want: "connect, tls_handshake",
	}, {
		name: "works with TLS 1.2", addr: serve(old), want: "connect, tls_handshake",
		check: func(t *testing.T, s Step) {
			if s.TLS.Version != tls.VersionTLS12 {
				t.Errorf("%+v", s.TLS)
			}
		},
	}, {
		name: "works with an address as name", q: TLS{ServerName: "127.0.0.1"},
		addr: serve(with(ca.Issue(t, nil, "127.0.0.1"))), want: "connect, tls_handshake",
		check: func(t *testing.T, s Step) {
			if s.TLS.ServerName != "" {
				t.Errorf("SNI %q", s.TLS.ServerName)
			}
		},
	}, {
		name: "refused", addr: probetest.Refused(t), want: "connect connection_refused",
	}, {
		name: "reset", addr: probetest.ServeTCP(t, probetest.Reset), want: "connect, tls_handshake connection_reset",
		check: func(t *testing.T, s Step) {
			if s.TLS.FailedAfter <= 0 || s.TLS.FailedAfter > s.Took || s.TLS.RTT <= 0 || s.TLS.Alert != -1 {
				t.Errorf("%+v", s.TLS)
			}
			if runtime.GOOS == "linux" && s.TCP == nil {
				t.Error("no TCP_INFO after a reset")
			}
		},
	}, {
		name: "FIN", addr: probetest.ServeTCP(t, probetest.FIN), want: "connect, tls_handshake eof_error",
		check: func(t *testing.T, s Step) {
			if s.TLS.FailedAfter <= 0 || s.TLS.FailedAfter > s.Took {
				t.Errorf("%+v", s.TLS)
			}
		},
	}, {
		name: "stall", addr: probetest.ServeTCP(t, probetest.Stall), timeout: soon,
		want: "connect, tls_handshake generic_timeout_error",
		check: func(t *testing.T, s Step) {
			if s.TLS.FailedAfter != 0 {
				t.Errorf("%+v", s.TLS)
			}
			// The fingerprint of a mute server: the hello was acknowledged,
			// nothing came, nothing was sent twice.
			if runtime.GOOS == "linux" && (s.TCP == nil || s.TCP.BytesAcked < 1400 || s.TCP.BytesReceived != 0 || s.TCP.Retransmits != 0 || s.TCP.Unacked != 0) {
				t.Errorf("%+v", s.TCP)
			}
		},
	}, {
		name: "drip", addr: probetest.ServeTCP(t, probetest.Drip([]byte{22, 3, 3, 1, 0, 2, 0})), timeout: soon,
		want: "connect, tls_handshake generic_timeout_error",
	}, {
		name: "alert handshake_failure", addr: probetest.ServeTCP(t, probetest.Alert(40)),
		want: "connect, tls_handshake unknown_failure", check: wantAlert(40),
	}, {
		name: "alert unrecognized_name", addr: probetest.ServeTCP(t, probetest.Alert(112)),
		want: "connect, tls_handshake ssl_invalid_hostname", check: wantAlert(112),
	}, {
		name: "alert close_notify", addr: probetest.ServeTCP(t, probetest.Answer([]byte{21, 3, 3, 0, 2, 1, 0})),
		want: "connect, tls_handshake eof_error", check: wantAlert(0),
	}, {
		name: "alert for the ALPN", addr: serve(good), q: TLS{ALPN: []string{"none"}},
		want: "connect, tls_handshake unknown_failure", check: wantAlert(120),
	}, {
		name: "alert later on", addr: serve(asks),
		want: "connect, tls_handshake unknown_failure", check: func(t *testing.T, s Step) {
			if s.TLS.Alert < 0 || s.TLS.Version != tls.VersionTLS12 || len(s.TLS.Chain) != 2 {
				t.Errorf("%+v", s.TLS)
			}
		},
	}, {
		name: "block page", addr: probetest.ServeTCP(t, probetest.BlockPage),
		want: "connect, tls_handshake unknown_failure",
		check: func(t *testing.T, s Step) {
			if got := string(s.TLS.FirstBytes); got != "HTTP/1.1 403 For" || s.TLS.Alert != -1 {
				t.Errorf("first bytes %q, alert %d", got, s.TLS.Alert)
			}
		},
	}, {
		name: "wrong name", addr: serve(with(sub.Issue(t, nil, "other.example"))),
		want: "connect, tls_handshake ssl_invalid_hostname",
		check: func(t *testing.T, s Step) {
			if len(s.TLS.Chain) != 2 || !cmp.Equal(s.TLS.Chain[0].DNSNames, []string{"other.example"}) || s.TLS.Version != tls.VersionTLS13 {
				t.Errorf("%+v", s.TLS)
			}
		},
	}, {
		name: "expired", addr: serve(with(sub.Issue(t, probetest.Expired, host))),
		want: "connect, tls_handshake ssl_invalid_certificate",
		check: func(t *testing.T, s Step) {
			if len(s.TLS.Chain) != 2 || !s.TLS.Chain[0].NotAfter.Before(time.Now()) {
				t.Errorf("%+v", s.TLS)
			}
		},
	}, {
		name: "self-signed", addr: serve(with(probetest.SelfSigned(t, host))),
		want: "connect, tls_handshake ssl_unknown_authority",
		check: func(t *testing.T, s Step) {
			if len(s.TLS.Chain) != 1 || !s.TLS.Chain[0].SelfSigned {
				t.Errorf("%+v", s.TLS)
			}
		},
	}, {
		name: "unknown authority", addr: serve(with(probetest.NewCA(t, "another root").Issue(t, nil, host))),
		want: "connect, tls_handshake ssl_unknown_authority",
	}, {
		name: "no trust but Mozilla's", addr: serve(good), q: TLS{Trust: &Trust{}},
		want: "connect, tls_handshake ssl_unknown_authority",
	}, {
		name: "somebody else's chain", addr: serve(with(mismatched)),
		want: "connect, tls_handshake unknown_failure",
		check: func(t *testing.T, s Step) {
			if len(s.TLS.Chain) != 2 {
				t.Errorf("%+v", s.TLS)
			}
		},
	}, {
		name: "10 MB of certificates", addr: serve(with(huge)), timeout: 20 * time.Second,
		want: "connect, tls_handshake unknown_failure",
	}, {
		name: "pinned authority", addr: serve(good), q: TLS{Trust: pin([32]byte{1}, sub.Hash())},
		want: "connect, tls_handshake",
	}, {
		name: "pinned leaf", addr: serve(good), q: TLS{Trust: pin(sha256.Sum256(good.Certificates[0].Certificate[0]))},
		want: "connect, tls_handshake",
	}, {
		name: "pinned root that is not presented", addr: serve(good), q: TLS{Trust: pin(ca.Hash())},
		want: "connect, tls_handshake ssl_unknown_authority",
	}, {
		name: "pinned root that is presented", addr: serve(with(withRoot(sub.Issue(t, nil, host), ca))), q: TLS{Trust: pin(ca.Hash())},
		want: "connect, tls_handshake",
	}, {
		name: "pinned authority, wrong name", addr: serve(with(sub.Issue(t, nil, "other.example"))), q: TLS{Trust: pin(sub.Hash())},
		want: "connect, tls_handshake ssl_invalid_hostname",
	}, {
		name: "pinned authority, expired", addr: serve(with(sub.Issue(t, probetest.Expired, host))), q: TLS{Trust: pin(sub.Hash())},
		want: "connect, tls_handshake ssl_invalid_certificate",
	}, {
		name: "pinned authority that did not sign", addr: serve(with(withRoot(probetest.SelfSigned(t, host), sub))), q: TLS{Trust: pin(sub.Hash())},
		want: "connect, tls_handshake ssl_unknown_authority",
	}, {
		name: "no such profile", addr: serve(good), q: TLS{Hello: "netscape"},
		want: "connect, tls_handshake invalid_argument",
	}} {
		t.Run(test.name, func(t *testing.T) {
			q := test.q
			if q.ServerName == "" {
				q.ServerName = host
			}
			if q.Trust == nil {
				q.Trust = trust
			}
			if test.timeout == 0 {
				test.timeout = 5 * time.Second
			}
			steps := run(t, q.At(test.addr), test.timeout)
			if diff := cmp.Diff(test.want, story(steps)); diff != "" {
				t.Fatalf("%s\n%v", diff, steps[len(steps)-1].Err)
			}
			if test.check != nil {
				test.check(t, steps[len(steps)-1])
			}
		})
	}
}

func wantAlert(number int) func(*testing.T, Step) {
	return func(t *testing.T, s Step) {
		if s.TLS.Alert != number {
			t.Errorf("alert %d, want %d", s.TLS.Alert, number)
		}
	}
}

// withRoot presents ca's certificate as well.
func withRoot(c tls.Certificate, ca *probetest.CA) tls.Certificate {
	c.Certificate = append(c.Certificate, ca.Cert.Raw)
	return c
}

// A cancelled run says so, and leaves nothing behind (goleak, in TestMain).
func TestTLSCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	addr := probetest.ServeTCP(t, func(c net.Conn) { cancel(); probetest.Stall(c) })
	steps := TLS{Addr: addr, ServerName: "chat.example"}.Probe(ctx, &Host{})
	last := steps[len(steps)-1]
	if last.Failure != FailureInterrupted || !errors.Is(last.Err, context.Canceled) {
		t.Errorf("%s: %v", story(steps), last.Err)
	}
}

// Of 10 MB of certificates only the beginning is read.
func TestTLSBound(t *testing.T) {
	ca := probetest.NewCA(t, "test root")
	huge := ca.Issue(t, nil, "chat.example")
	huge.Certificate = append(huge.Certificate, make([]byte, 10<<20))
	addr := probetest.ServeTLS(t, &tls.Config{Certificates: []tls.Certificate{huge}}, nil)
	meter := &Meter{Net: &Host{}}
	steps := TLS{Addr: addr, ServerName: "chat.example", Trust: newTrust(t, ca)}.Probe(t.Context(), meter)
	if meter.Received() == 0 || meter.Received() > 64<<10 {
		t.Errorf("%s after %d bytes", story(steps), meter.Received())
	}
}

// The split hello goes out as what it says, the name cut in two.
func TestSplit(t *testing.T) {
	const host = "a-long-name-to-cut.example"
	for _, test := range []struct {
		split   string
		writes  int
		records int
	}{
		{"", 1, 1},
		{SplitRecord, 1, 2},
		{SplitTCP, 2, 1},
	} {
		t.Run("split "+test.split, func(t *testing.T) {
			client, server := net.Pipe()
			var got [][]byte
			done := make(chan struct{})
			go func() {
				defer close(done)
				for {
					b := make([]byte, 64<<10)
					n, err := server.Read(b)
					if err != nil {
						return
					}
					got = append(got, b[:n])
				}
			}()
			tap := &helloTap{Conn: client, split: test.split, name: host}
			conf, err := tlsConfig(host, nil, HelloGo, nil, new([]Certificate))
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			stop := guard(ctx, client)
			tls.Client(tap, conf).Handshake()
			stop()
			client.Close()
			server.Close()
			<-done
			if len(got) != test.writes {
				t.Fatalf("%d writes, want %d", len(got), test.writes)
			}
			stream := cat(got...)
			records := 0
			for len(stream) > 0 {
				c := cursor{b: stream}
				head := c.take(3)
				body := c.take(c.uint(2))
				if c.short || head[0] != recordHandshake {
					t.Fatalf("record %d is broken", records)
				}
				if whole := strings.Contains(string(body), host); whole != (test.records == 1) {
					t.Errorf("record %d holds the whole name: %v", records, whole)
				}
				stream = c.b
				records++
			}
			if records != test.records {
				t.Errorf("%d records, want %d", records, test.records)
			}
			if test.split == SplitTCP && (strings.Contains(string(got[0]), host) || strings.Contains(string(got[1]), host)) {
				t.Error("one segment holds the whole name")
			}
		})
	}
}
