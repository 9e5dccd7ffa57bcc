package probe

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/messenger-probe/messenger-probe/probe/probetest"
)

func TestBrowserHello(t *testing.T) {
	const host = "chat.example"
	ca := probetest.NewCA(t, "test root")
	conf := &tls.Config{Certificates: []tls.Certificate{ca.Issue(t, nil, host)}, NextProtos: []string{"h2", "http/1.1"}}
	old := conf.Clone()
	old.MaxVersion = tls.VersionTLS12
	retry := conf.Clone() // has no key share of ours: HelloRetryRequest
	retry.CurvePreferences = []tls.CurveID{tls.CurveP384}
	picky := conf.Clone()
	picky.NextProtos = []string{"imap"}
	for _, test := range []struct {
		name    string
		addr    netip.AddrPort
		q       BrowserHello
		want    string
		version uint16
		check   func(*testing.T, Step)
	}{{
		name: "ServerHello", addr: probetest.ServeTLS(t, conf, nil),
		want: "connect, tls_handshake", version: tls.VersionTLS13,
		check: func(t *testing.T, s Step) {
			if s.TLS.Hello != helloBrowser || s.TLS.ServerName != host || s.TLS.Alert != -1 || s.TLS.RTT <= 0 {
				t.Errorf("%+v", s.TLS)
			}
		},
	}, {
		name: "HelloRetryRequest", addr: probetest.ServeTLS(t, retry, nil),
		want: "connect, tls_handshake", version: tls.VersionTLS13,
	}, {
		name: "TLS 1.2", addr: probetest.ServeTLS(t, old, nil),
		want: "connect, tls_handshake", version: tls.VersionTLS12,
	}, {
		name: "ALPN of its own", addr: probetest.ServeTLS(t, picky, nil), q: BrowserHello{ALPN: []string{"imap"}},
		want: "connect, tls_handshake", version: tls.VersionTLS13,
	}, {
		name: "ALPN refused", addr: probetest.ServeTLS(t, picky, nil),
		want: "connect, tls_handshake unknown_failure", check: wantAlert(120),
	}, {
		name: "refused", addr: probetest.Refused(t), want: "connect connection_refused",
	}, {
		name: "reset", addr: probetest.ServeTCP(t, probetest.Reset), want: "connect, tls_handshake connection_reset",
		check: func(t *testing.T, s Step) {
			if s.TLS.FailedAfter <= 0 {
				t.Errorf("%+v", s.TLS)
			}
		},
	}, {
		name: "FIN", addr: probetest.ServeTCP(t, probetest.FIN), want: "connect, tls_handshake eof_error",
	}, {
		name: "stall", addr: probetest.ServeTCP(t, probetest.Stall), want: "connect, tls_handshake generic_timeout_error",
	}, {
		name: "drip", addr: probetest.ServeTCP(t, probetest.Drip([]byte{22, 3, 3, 1, 0})), want: "connect, tls_handshake generic_timeout_error",
	}, {
		name: "alert", addr: probetest.ServeTCP(t, probetest.Alert(112)), want: "connect, tls_handshake ssl_invalid_hostname",
		check: wantAlert(112),
	}, {
		name: "block page", addr: probetest.ServeTCP(t, probetest.BlockPage), want: "connect, tls_handshake unknown_failure",
		check: func(t *testing.T, s Step) {
			if !bytes.HasPrefix(s.TLS.FirstBytes, []byte("HTTP/1.1 403")) {
				t.Errorf("%q", s.TLS.FirstBytes)
			}
		},
	}, {
		name: "a record of something else", addr: probetest.ServeTCP(t, probetest.Answer([]byte{22, 3, 3, 0, 4, 14, 0, 0, 0})),
		want: "connect, tls_handshake unknown_failure",
	}, {
		name: "impossible name", addr: probetest.ServeTCP(t, probetest.FIN), q: BrowserHello{ServerName: strings.Repeat("a", 256)},
		want: "connect, tls_handshake invalid_argument",
	}} {
		t.Run(test.name, func(t *testing.T) {
			q := test.q
			if q.ServerName == "" {
				q.ServerName = host
			}
			steps := run(t, q.At(test.addr), enough(test.want))
			last := steps[len(steps)-1]
			if diff := cmp.Diff(test.want, story(steps)); diff != "" {
				t.Fatalf("%s\n%v", diff, last.Err)
			}
			if last.TLS != nil && last.TLS.Version != test.version {
				t.Errorf("version %#x, want %#x", last.TLS.Version, test.version)
			}
			if test.check != nil {
				test.check(t, last)
			}
		})
	}
}

// Every one of many random hellos is well formed and has the fingerprint of the
// browser that it imitates, and a server takes it.
func TestChromeHello(t *testing.T) {
	ca := probetest.NewCA(t, "test root")
	conf := &tls.Config{
		Certificates: []tls.Certificate{ca.Issue(t, nil, "chat.example")},
		NextProtos:   []string{"h2"},
	}
	orders := make(map[string]bool)
	for range 200 {
		record, session, err := chromeHello("chat.example", nil)
		if err != nil {
			t.Fatal(err)
		}
		const want = "t13d1516h2_8daaf6152771_d8a2da3f94cd" // Chrome 133 to 147
		got, order := ja4(t, record)
		if got != want {
			t.Fatalf("JA4 %s, want %s", got, want)
		}
		orders[order] = true

		client, server := net.Pipe()
		done := make(chan *tls.ClientHelloInfo, 1)
		go func() {
			defer server.Close()
			var seen *tls.ClientHelloInfo
			c := conf.Clone()
			c.GetConfigForClient = func(i *tls.ClientHelloInfo) (*tls.Config, error) { seen = i; return nil, nil }
			tls.Server(server, c).Handshake()
			done <- seen
		}()
		deadline := time.Now().Add(5 * time.Second)
		client.SetDeadline(deadline)
		if _, err := client.Write(record); err != nil {
			t.Fatal(err)
		}
		version, err := readServerHello(client, session)
		if err != nil || version != tls.VersionTLS13 {
			t.Fatalf("version %#x: %v", version, err)
		}
		client.Close()
		info := <-done
		if info == nil || info.ServerName != "chat.example" || !slices.Contains(info.SupportedCurves, tls.X25519MLKEM768) {
			t.Fatalf("the server saw %+v", info)
		}
	}
	if len(orders) < 190 {
		t.Errorf("%d orders of extensions in 200 hellos", len(orders))
	}
	if record, _, _ := chromeHello("", []string{"imap"}); true {
		if got, _ := ja4(t, record); !strings.HasPrefix(got, "t13i1514ip") { // no SNI, no ALPS
			t.Errorf("JA4 %s", got)
		}
	}
}

// ja4 is the JA4 fingerprint of a ClientHello (github.com/FoxIO-LLC/ja4,
// technical_details/JA4.md), and the order of its extensions.
func ja4(t *testing.T, record []byte) (fingerprint, order string) {
	t.Helper()
	r := cursor{b: record}
	r.take(3)
	message := cursor{b: r.take(r.uint(2))}
	message.take(1)
	hello := cursor{b: message.take(message.uint(3))}
	hello.take(2 + 32)
	hello.take(hello.uint(1))
	grease := func(v int) bool { return v&0x0f0f == 0x0a0a && v>>8 == v&0xff }
	list := func(b []byte) (words []string) {
		for c := (cursor{b: b}); len(c.b) > 0; {
			if v := c.uint(2); !grease(v) {
				words = append(words, fmt.Sprintf("%04x", v))
			}
		}
		return words
	}
	ciphers := list(hello.take(hello.uint(2)))
	hello.take(hello.uint(1))
	exts := cursor{b: hello.take(hello.uint(2))}
	var ids, schemes []string
	name, alpn, count := "i", "00", 0
	seen := make(map[int]bool)
	for len(exts.b) > 0 {
		id := exts.uint(2)
		body := cursor{b: exts.take(exts.uint(2))}
		if seen[id] {
			t.Fatalf("extension %d twice", id)
		}
		seen[id] = true
		if grease(id) {
			continue
		}
		count++
		order += fmt.Sprintf("%04x ", id)
		switch id {
		case extServerName:
			name = "d"
		case extALPN:
			body.take(2)
			p := body.take(body.uint(1))
			alpn = string([]byte{p[0], p[len(p)-1]})
		case 13:
			schemes = list(body.b[2:])
			fallthrough
		default:
			ids = append(ids, fmt.Sprintf("%04x", id))
		}
	}
	if r.short || message.short || hello.short || exts.short || len(r.b)+len(message.b)+len(hello.b) > 0 {
		t.Fatal("the hello is malformed")
	}
	count12 := func(words []string, more string) string {
		return fmt.Sprintf("%x", sha256.Sum256([]byte(strings.Join(words, ",")+more)))[:12]
	}
	fingerprint = fmt.Sprintf("t13%s%02d%02d%s_%s_%s", name, len(ciphers), count, alpn,
		count12(slices.Sorted(slices.Values(ciphers)), ""),
		count12(slices.Sorted(slices.Values(ids)), "_"+strings.Join(schemes, ",")))
	return fingerprint, order
}

// serverHello is a TLS 1.3 ServerHello in its record.
func serverHello(session []byte, cipher, version uint16) []byte {
	ext := cat([]byte{0, extSupportedVersions, 0, 2}, binary.BigEndian.AppendUint16(nil, version))
	body := cat([]byte{3, 3}, make([]byte, 32), vec8(session), binary.BigEndian.AppendUint16(nil, cipher), []byte{0}, vec16(ext))
	return cat([]byte{recordHandshake, 3, 3}, vec16(cat([]byte{helloServer, 0}, vec16(body))))
}

func TestReadServerHello(t *testing.T) {
	session := bytes.Repeat([]byte{7}, 32)
	whole := serverHello(session, 0x1301, tls.VersionTLS13)
	for _, test := range []struct {
		name string
		in   []byte
		want uint16
		err  string
	}{
		{"TLS 1.3", whole, tls.VersionTLS13, ""},
		{"more after it", cat(whole, []byte("more")), tls.VersionTLS13, ""},
		{"another session", serverHello(make([]byte, 32), 0x1301, tls.VersionTLS13), 0, "no ServerHello"},
		{"a cipher not offered", serverHello(session, 0x1304, tls.VersionTLS13), 0, "no ServerHello"},
		{"TLS 1.1", serverHello(session, 0x1301, tls.VersionTLS11), 0, "no ServerHello"},
		{"cut short", whole[:40], 0, "unexpected EOF"},
		{"nothing", nil, 0, "EOF"},
		{"empty record", []byte{22, 3, 3, 0, 0}, 0, "does not look like"},
		{"oversized record", []byte{22, 3, 3, 0xff, 0xff}, 0, "does not look like"},
		{"application data", []byte{23, 3, 3, 0, 1, 0}, 0, "does not look like"},
		{"HTTP", []byte("HTTP/1.1 200 OK\r\n"), 0, "does not look like"},
		{"alert", []byte{21, 3, 3, 0, 2, 2, 40}, 0, "handshake failure"},
		{"long alert", []byte{21, 3, 3, 0, 3, 2, 40, 0}, 0, "no ServerHello"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := readServerHello(bytes.NewReader(test.in), session)
			if got != test.want || (err == nil) != (test.err == "") || err != nil && !strings.Contains(err.Error(), test.err) {
				t.Errorf("version %#x, error %v", got, err)
			}
		})
	}
}

// Whatever comes, the reader of the first record takes no more than a record
// and accepts nothing that is not ours.
func FuzzReadServerHello(f *testing.F) {
	session := bytes.Repeat([]byte{7}, 32)
	f.Add(serverHello(session, 0x1301, tls.VersionTLS13))
	f.Add(serverHello(nil, 0xc02f, tls.VersionTLS12))
	f.Add([]byte{21, 3, 3, 0, 2, 2, 40})
	f.Add([]byte("HTTP/1.1 403 Forbidden\r\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		r := bytes.NewReader(in)
		version, err := readServerHello(r, session)
		if read := len(in) - r.Len(); read > recordHeader+maxRecord {
			t.Errorf("read %d bytes", read)
		}
		if alert := firstAlert(in); alert >= 0 {
			if a, ok := remoteAlert(err); !ok || int(a) != alert {
				t.Errorf("alert %d: %v", alert, err)
			}
		}
		switch {
		case err != nil:
			if Classify(err) == "" || version != 0 && errors.Is(err, io.EOF) {
				t.Errorf("version %#x with %v", version, err)
			}
		case version == tls.VersionTLS13:
			if !bytes.Contains(in, session) {
				t.Error("accepted another session")
			}
		case version != tls.VersionTLS12:
			t.Errorf("version %#x", version)
		}
	})
}
