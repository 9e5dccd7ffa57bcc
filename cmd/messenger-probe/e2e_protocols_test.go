//go:build linux

package main

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/tls"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/messenger-probe/messenger-probe/cmd/internal/netlab"
	"github.com/messenger-probe/messenger-probe/probe"
	"github.com/messenger-probe/messenger-probe/probe/probetest"
)

// A labQuestion is one way to ask of a server in the lab.
type labQuestion struct {
	name string
	ask  probe.Addressed
	at   netip.AddrPort
}

// TestE2EProtocols: a middlebox that knows one protocol by what it says, and
// swallows it after the handshake, makes that protocol's checks fail and no other;
// the port stays open, and TLS works.
func TestE2EProtocols(t *testing.T) {
	lab := netlab.New(t)
	questions, servers := labProtocols(t, lab)

	begins := func(with ...string) netlab.Rule {
		return netlab.Rule{Proto: netlab.TCP, First: netlab.Begins(with...), Do: netlab.Drop}
	}
	named := func(name string) netlab.Rule {
		return netlab.Rule{Proto: netlab.TCP, Names: []string{name}, Do: netlab.Swallow}
	}
	datagram := func(is func([]byte) bool) netlab.Rule {
		return netlab.Rule{Proto: netlab.UDP, First: is, Do: netlab.Drop}
	}
	for _, c := range []struct {
		name string
		rule netlab.Rule
		fail string // what must, and nothing else
	}{
		{"nothing", netlab.Rule{Proto: netlab.TCP, Ports: []uint16{9}, Do: netlab.Drop}, ""},
		{"mtproto abridged", begins("\xef"), "abridged"},
		{"mtproto intermediate", begins("\xee\xee\xee\xee"), "intermediate"},
		{"mtproto padded", begins("\xdd\xdd\xdd\xdd"), "padded"},
		{"mtproto obfuscated2", netlab.Rule{Proto: netlab.TCP, First: obfuscated2, Do: netlab.Drop}, "obfuscated2, proof"},
		{"mtproto http", begins("POST /api"), "mtproto-http"},
		{"mtproto websocket", named("venus.example"), "mtproto-ws, dc-websocket"},
		{"noise", begins("WA\x06"), "noise, noise-5222"},
		{"noise websocket", named("web.chat.example"), "noise-ws, chat-websocket"},
		{"oneme", named("api.max.example"), "oneme"},
		{"oneme websocket", named("ws.max.example"), "oneme-json, oneme-binary, max-websocket"},
		{"stun", datagram(func(b []byte) bool { return isSTUN(b, 0x0001) }), "binding, burst"},
		{"turn", datagram(func(b []byte) bool { return isSTUN(b, 0x0003) }), "turn"},
		{"reflector", datagram(func(b []byte) bool {
			return len(b) == 40 && string(b[16:32]) == strings.Repeat("\xff", 12)+"\xfe\xff\xff\xff"
		}), "reflector"},
		{"http", begins("GET /", "HEAD /"), "http-plain"},
		{"https", named("web.example"), "https, download, upload"},
		{"http3", netlab.Rule{Proto: netlab.UDP, Names: []string{"h3.example"}, Do: netlab.Swallow}, "h3"},
		{"transfer", netlab.Rule{Proto: netlab.TCP, Names: []string{"web.example"}, Do: netlab.Freeze(18 << 10)}, "download"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			v := lab.Vantage(t)
			v.Box.Set(c.rule)
			fail := strings.Split(c.fail, ", ")
			var asking sync.WaitGroup
			for _, q := range questions {
				asking.Go(func() {
					must := slices.Contains(fail, q.name)
					deadline := 20 * time.Second // the machine may be busy
					if must {
						deadline = 5 * time.Second
					}
					ctx, cancel := context.WithTimeout(t.Context(), deadline)
					defer cancel()
					steps := q.ask.At(q.at).Probe(ctx, within{v})
					last := steps[len(steps)-1]
					switch {
					case !must && last.Failure != "":
						t.Errorf("%s: %s at %s: %v", q.name, last.Failure, last.Op, last.Err)
					case must && (last.Failure != probe.FailureTimeout || last.Op == probe.OpConnect || last.Op == probe.OpTLSHandshake || last.Op == probe.OpQUICHandshake):
						t.Errorf("%s: %q at %s: %v", q.name, last.Failure, last.Op, last.Err)
					}
				})
			}
			for _, at := range servers {
				asking.Go(func() {
					ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
					defer cancel()
					for _, s := range (probe.TCP{Addr: at}).Probe(ctx, within{v}) {
						if s.Failure != "" {
							t.Errorf("tcp to %v: %s: %v", at, s.Failure, s.Err)
						}
					}
				})
			}
			asking.Wait()
		})
	}
}

// within is the network of a vantage.
type within struct{ *netlab.Vantage }

func (n within) ListenPacket(_ context.Context, network, address string) (net.PacketConn, error) {
	return n.Vantage.ListenPacket(network, address)
}

// obfuscated2 says that a stream begins so: its keys are in the first 64 bytes,
// and open the tag of what it carries.
func obfuscated2(b []byte) bool {
	if len(b) < 64 {
		return false
	}
	block, err := aes.NewCipher(b[8:40])
	if err != nil {
		return false
	}
	head := make([]byte, 64)
	cipher.NewCTR(block, b[40:56]).XORKeyStream(head, b[:64])
	tag := string(head[56:60])
	return tag == "\xef\xef\xef\xef" || tag == "\xee\xee\xee\xee" || tag == "\xdd\xdd\xdd\xdd"
}

// isSTUN says that a datagram is a STUN message of a type (RFC 8489 §5).
func isSTUN(b []byte, kind uint16) bool {
	return len(b) >= 20 && uint16(b[0])<<8|uint16(b[1]) == kind && string(b[4:8]) == "\x21\x12\xa4\x42"
}

// labProtocols starts a server for each protocol, and is the questions that they
// answer and the ports that they have.
func labProtocols(t *testing.T, lab *netlab.Lab) (qs []labQuestion, servers []netip.AddrPort) {
	trust, err := probe.NewTrust(lab.CA.PEM())
	if err != nil {
		t.Fatal(err)
	}
	add := func(at netip.AddrPort, name string, ask probe.Addressed) {
		qs = append(qs, labQuestion{name, ask, at})
		if _, udp := ask.(probe.STUN); !udp && !slices.Contains(servers, at) && name != "h3" {
			servers = append(servers, at)
		}
	}

	key := probetest.RSAKey()
	dc := probetest.DC{Key: key}
	mtproto := probe.MTProto{DC: 2, AnyKey: true, Key: &key.PublicKey, Trust: trust}
	via := func(transport string) probe.MTProto { q := mtproto; q.Transport = transport; return q }
	at := on(443, dc1Net.at(51)[0])[0]
	web := on(80, dc1Net.at(51)[0])[0]
	lab.Serve(t, dc.Serve, at, web)
	for _, transport := range []string{"abridged", "intermediate", "padded", "obfuscated2"} {
		add(at, transport, via(transport))
	}
	proof := via("obfuscated2")
	proof.Prove = true
	add(at, "proof", proof)
	add(web, "mtproto-http", via("http"))

	chat := probetest.NewNoise()
	for name, port := range map[string]uint16{"noise": 443, "noise-5222": 5222} {
		at := on(port, loginNet.at(10)[0])[0]
		lab.Serve(t, lingering(chat.Serve), at)
		add(at, name, probe.Noise{Root: chat.Root})
	}

	conf := &tls.Config{Certificates: []tls.Certificate{lab.CA.Issue(t, nil, "api.max.example")}}
	at = on(443, botsNet.at(10)[0])[0]
	lab.Serve(t, func(c net.Conn) {
		if s := tls.Server(c, conf); s.Handshake() == nil {
			probetest.OneMe{}.Serve(s)
		}
	}, at)
	add(at, "oneme", probe.OneMe{ServerName: "api.max.example", Trust: trust})
	add(at, "oneme-tls", probe.TLS{ServerName: "api.max.example", Trust: trust})

	// Three names in WebSocket.
	for i, s := range []struct {
		name    string
		handler http.Handler
		asks    map[string]probe.Addressed
	}{
		{"venus.example", dc, map[string]probe.Addressed{
			"mtproto-ws":   probe.MTProto{Transport: "websocket", DC: 2, AnyKey: true, ServerName: "venus.example", Trust: trust},
			"dc-websocket": probe.WebSocket{ServerName: "venus.example", Path: "/apiws", Subprotocol: "binary", Trust: trust},
			"dc-tls":       probe.TLS{ServerName: "venus.example", Trust: trust},
		}},
		{"web.chat.example", chat, map[string]probe.Addressed{
			"noise-ws":       probe.Noise{Over: "websocket", Root: chat.Root, ServerName: "web.chat.example", Trust: trust},
			"chat-websocket": probe.WebSocket{ServerName: "web.chat.example", Path: "/ws/chat", Origin: "https://web.whatsapp.com", Trust: trust},
			"chat-tls":       probe.TLS{ServerName: "web.chat.example", Trust: trust},
		}},
		{"ws.max.example", probetest.OneMe{}, map[string]probe.Addressed{
			"oneme-json":    probe.OneMe{Over: probe.OneMeJSON, ServerName: "ws.max.example", Trust: trust},
			"oneme-binary":  probe.OneMe{Over: probe.OneMeBinary, ServerName: "ws.max.example", Trust: trust},
			"max-websocket": probe.WebSocket{ServerName: "ws.max.example", Path: "/websocket", Origin: "https://web.max.ru", Trust: trust},
			"max-tls":       probe.TLS{ServerName: "ws.max.example", Trust: trust},
		}},
	} {
		at := on(443, webA.at(byte(10 + i))[0])[0]
		serveWeb(t, lab, at, &tls.Config{Certificates: []tls.Certificate{lab.CA.Issue(t, nil, s.name)}}, s.handler)
		for name, ask := range s.asks {
			add(at, name, ask)
		}
	}

	lab.Coturn(t, "lab.test", relayA.at(10)[0])
	at = on(3478, relayA.at(10)[0])[0]
	add(at, "binding", probe.STUN{})
	add(at, "burst", probe.STUN{Burst: 50})
	add(at, "turn", probe.STUN{Kind: probe.STUNTURN, Realm: "lab.test"})
	at = on(596, relayB.at(10)[0])[0]
	lab.Host(t, at.Addr())
	reflector, err := lab.ListenPacket("udp", at.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { reflector.Close() })
	go func() {
		b := make([]byte, 2000)
		for calls := (&probetest.Calls{}); ; {
			n, from, err := reflector.ReadFrom(b)
			if err != nil {
				return
			}
			for _, a := range calls.Answer(b[:n]) {
				reflector.WriteTo(a, from)
			}
		}
	}()
	add(at, "reflector", probe.STUN{Kind: probe.STUNReflector})

	lab.Nginx(t, netlab.Site{Addrs: mediaNet.at(10)[:1], Cert: lab.CA.Issue(t, nil, "web.example")})
	at = on(443, mediaNet.at(10)[0])[0]
	page := probe.Expect{Contains: []string{"netlab"}}
	add(on(80, at.Addr())[0], "http-plain", probe.HTTP{Plain: true, Expect: page})
	add(at, "https", probe.HTTP{ServerName: "web.example", Expect: page, Trust: trust})
	add(at, "https-tls", probe.TLS{ServerName: "web.example", Trust: trust})
	add(at, "download", probe.Transfer{ServerName: "web.example", Path: netlab.Payload, Trust: trust})
	add(at, "upload", probe.Transfer{ServerName: "web.example", Path: netlab.Payload, Direction: probe.Upload, Trust: trust})
	lab.Caddy(t, netlab.Site{Addrs: mediaNet.at(11)[:1], Cert: lab.CA.Issue(t, nil, "h3.example")})
	at = on(443, mediaNet.at(11)[0])[0]
	add(at, "h3", probe.HTTP{ServerName: "h3.example", Version: "3", Expect: page, Trust: trust})
	add(at, "h3-quic", probe.QUIC{ServerName: "h3.example", Trust: trust})
	add(at, "h3-ping", probe.QUICPing{})
	add(at, "h3-tls", probe.TLS{ServerName: "h3.example", Trust: trust})
	return qs, servers
}

// lingering makes a server wait for the client to go: closing on unread bytes
// would reset.
func lingering(serve func(net.Conn)) func(net.Conn) {
	return func(c net.Conn) {
		serve(c)
		c.(*net.TCPConn).CloseWrite()
		c.SetReadDeadline(time.Now().Add(2 * time.Second))
		io.Copy(io.Discard, c)
	}
}

// serveWeb is an HTTPS server of the test's process in the lab.
func serveWeb(t testing.TB, lab *netlab.Lab, at netip.AddrPort, conf *tls.Config, h http.Handler) {
	t.Helper()
	lab.Host(t, at.Addr())
	l, err := lab.Listen("tcp", at.String())
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: h, ErrorLog: log.New(io.Discard, "", 0)}
	go s.Serve(tls.NewListener(l, conf))
	t.Cleanup(func() { s.Close() })
}
