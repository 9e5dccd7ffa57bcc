//go:build unix

package probe

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/messenger-probe/messenger-probe/probe/probetest"
)

// maxAllocated is what one run of any prober may take from the heap, in bytes.
const maxAllocated = 256 << 10

const serviceHost = "service.example"

// A servicePeer is where the honest servers of another process are, one for each
// protocol, and what proves them.
type servicePeer struct {
	Addrs map[string]netip.AddrPort
	PEM   []byte
	RSA   []byte   // PKCS #1, of the data centre
	Root  [32]byte // of Noise
}

// servicesMain is that process. It ends with its standard input.
func servicesMain() {
	tb := &processTB{}
	root := probetest.NewCA(tb, "root")
	cert := root.Sub(tb, "between").Issue(tb, nil, serviceHost) // a chain as they are
	conf := &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"http/1.1"}}
	https := func(h http.Handler) netip.AddrPort {
		s := httptest.NewUnstartedServer(h)
		s.TLS, s.Config.ErrorLog = conf.Clone(), log.New(io.Discard, "", 0)
		s.StartTLS()
		return netip.MustParseAddrPort(s.Listener.Addr().String())
	}
	key := probetest.RSAKey()
	dc := probetest.DC{Key: key, Fingerprints: []uint64{1, 2}}
	chat := probetest.NewNoise()
	resolver := probetest.NewDNS(tb, &tls.Config{Certificates: []tls.Certificate{cert}})
	resolver.On("a.test", probetest.DNSAnswer("157.240.1.60", "157.240.2.60"))
	h3 := &http3.Server{Handler: media}
	json.NewEncoder(os.Stdout).Encode(servicePeer{
		Addrs: map[string]netip.AddrPort{
			"dc":        probetest.ServeTCP(tb, dc.Serve),
			"dc web":    https(dc),
			"noise":     probetest.ServeTCP(tb, chat.Serve),
			"noise web": https(chat),
			"oneme":     probetest.ServeTLS(tb, conf, func(c *tls.Conn) { probetest.OneMe{Packed: 2}.Serve(c) }),
			"oneme web": https(probetest.OneMe{}),
			"files":     https(media),
			"calls":     probetest.ServeUDP(tb, (&probetest.Calls{}).Answer),
			"quic": probetest.ServeQUIC(tb, http3.ConfigureTLSConfig(&tls.Config{Certificates: []tls.Certificate{cert}}), nil, nil,
				func(c *quic.Conn) { h3.ServeQUICConn(c) }),
			"dns": resolver.Addr, "dot": resolver.DoT, "doh": resolver.DoH,
		},
		PEM: root.PEM(), RSA: x509.MarshalPKCS1PublicKey(&key.PublicKey), Root: chat.Root,
	})
	io.Copy(io.Discard, os.Stdin)
}

// TestAllocations: no run of any prober takes more than 256 kB from the heap. The
// servers are in another process, so that what is counted is the prober's.
func TestAllocations(t *testing.T) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), benchServerEnv+"=services")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close(); cmd.Wait() })
	var peer servicePeer
	line, err := bufio.NewReader(out).ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &peer)
	}
	if err != nil {
		t.Fatal(err)
	}
	trust, err := NewTrust(peer.PEM)
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.ParsePKCS1PublicKey(peer.RSA)
	if err != nil {
		t.Fatal(err)
	}
	const host = serviceHost
	mtproto := func(transport string, prove bool) MTProto {
		return MTProto{Transport: transport, DC: 2, AnyKey: true, Prove: prove, Key: key, ServerName: host, Trust: trust}
	}
	lookup := func(transport string) DNS {
		return DNS{Server: Server{Transport: transport, ServerName: host, Path: "/dns-query", Trust: trust}, Host: "a.test", Type: 1, Window: time.Millisecond}
	}
	limit := uint64(maxAllocated)
	if raced {
		limit *= 2 // the race detector empties pools at random; CI also runs this without it
	}
	page := Expect{Contains: []string{"never there"}}
	for _, c := range []struct {
		name, at string
		ask      Addressed
	}{
		{"tcp", "dc", TCP{}},
		{"bytes", "files", Bytes{}},
		{"tls", "files", TLS{ServerName: host, ALPN: []string{"h2", "http/1.1"}, Trust: trust}},
		{"tls x25519", "files", TLS{ServerName: host, Hello: HelloX25519, Trust: trust}},
		{"browser hello", "files", BrowserHello{ServerName: host}},
		{"quic", "quic", QUIC{ServerName: host, Trust: trust}},
		{"quic ping", "quic", QUICPing{}},
		{"http", "files", HTTP{Host: host, Method: "HEAD", Trust: trust}},
		{"http with a long body", "files", HTTP{Host: host, Expect: page, Trust: trust}},
		{"http/3", "quic", HTTP{Host: host, Version: "3", Method: "HEAD", Trust: trust}},
		{"http/3 with a long body", "quic", HTTP{Host: host, Version: "3", Expect: page, Trust: trust}},
		{"websocket", "dc web", WebSocket{ServerName: host, Path: "/apiws", Subprotocol: "binary", Trust: trust}},
		{"mtproto abridged", "dc", mtproto("abridged", false)},
		{"mtproto intermediate", "dc", mtproto("intermediate", false)},
		{"mtproto padded", "dc", mtproto("padded", false)},
		{"mtproto obfuscated2", "dc", mtproto("obfuscated2", false)},
		{"mtproto http", "dc", mtproto("http", false)},
		{"mtproto websocket", "dc web", mtproto("websocket", false)},
		{"mtproto, proof", "dc", mtproto("obfuscated2", true)},
		{"noise", "noise", Noise{Root: peer.Root}},
		{"noise websocket", "noise web", Noise{Over: "websocket", Root: peer.Root, ServerName: host, Trust: trust}},
		{"oneme", "oneme", OneMe{ServerName: host, Trust: trust}},
		{"oneme json", "oneme web", OneMe{ServerName: host, Over: OneMeJSON, Trust: trust}},
		{"oneme binary", "oneme web", OneMe{ServerName: host, Over: OneMeBinary, Trust: trust}},
		{"stun", "calls", STUN{}},
		{"turn", "calls", STUN{Kind: STUNTURN}},
		{"reflector", "calls", STUN{Kind: STUNReflector}},
		{"stun burst", "calls", STUN{Burst: 50, Spacing: time.Millisecond}},
		{"download", "files", Transfer{ServerName: host, Trust: trust}},
		{"large download", "files", Transfer{ServerName: host, Bytes: 512 << 10, Trust: trust}},
		{"upload", "files", Transfer{ServerName: host, Direction: Upload, Trust: trust}},
		{"large upload", "files", Transfer{ServerName: host, Direction: Upload, Bytes: 512 << 10, Trust: trust}},
		{"dns udp", "dns", lookup(OverUDP)},
		{"dns tcp", "dns", lookup(OverTCP)},
		{"dot", "dot", lookup(OverTLS)},
		{"doh", "doh", lookup(OverHTTPS)},
	} {
		got := allocated(t, c.ask, peer.Addrs[c.at])
		t.Logf("%-24s %4d kB", c.name, got>>10)
		if got > limit {
			t.Errorf("%s allocates %d bytes", c.name, got)
		}
	}
}

// allocated is how many bytes one run takes from the heap, once pools are filled.
func allocated(t *testing.T, ask Addressed, at netip.AddrPort) uint64 {
	t.Helper()
	p := ask.At(at)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	const runs = 20
	var before, after runtime.MemStats
	for i := range runs + 1 {
		if i == 1 {
			runtime.ReadMemStats(&before)
		}
		steps := p.Probe(ctx, &Meter{Net: &Host{}})
		last := steps[len(steps)-1]
		// What is never there is the longest to look for.
		if last.Failure != "" && !(last.Failure == FailureHTTPRequestFailed && last.Reply.Proof == "a text is missing") {
			t.Fatalf("%T: %s: %v", p, story(steps), last.Err)
		}
	}
	runtime.ReadMemStats(&after)
	return (after.TotalAlloc - before.TotalAlloc) / runs
}
