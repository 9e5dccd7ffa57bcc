//go:build unix

package probe

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"go.uber.org/goleak"

	"github.com/messenger-probe/messenger-probe/probe/probetest"
)

// The tarpits: servers that drip, flood, never close, lie about lengths,
// renegotiate, send 100 MB. They run in a process of their own, so that what is
// on the heap here is the prober's.

// maxBuffers is what a run may hold on the heap at any time, in bytes.
const maxBuffers = 256 << 10

const tarpitHost = "tarpit.example"

// tarpitPeer is where the tarpits of the other process are.
type tarpitPeer struct {
	Addrs map[string]netip.AddrPort
	PEM   []byte
}

// tarpitsMain is that process. It ends with its standard input.
func tarpitsMain() {
	tb := &processTB{}
	ca := probetest.NewCA(tb, "tarpit CA")
	json.NewEncoder(os.Stdout).Encode(tarpitPeer{tarpits(tb, ca), ca.PEM()})
	io.Copy(io.Discard, os.Stdin)
}

// filler are what floods are made of: the cheapest bytes that a parser goes on
// to read.
var filler = make([]byte, 4<<10)

// lead is how a believable answer begins that announces as much as it can, by
// protocol: what then drips or floods is its inside.
var lead = map[string][]byte{
	"tls":        {22, 3, 3, 0x40, 0, 11, 0xff, 0xff, 0xff}, // a record of 16 kB with a message of 16 MB
	"http":       []byte("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 104857600\r\n\r\n"),
	"head":       []byte("HTTP/1.1 200 OK\r\nX-Long: "),
	"chunks":     []byte("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n7fffffff\r\n"),
	"dns":        {0xff, 0xff},
	"dnsmax":     {0x10, 0x00},
	"abridged":   {0x7f, 0, 0x10, 0},
	"mtproto":    {0, 0x40, 0, 0},
	"mtprotomax": {0xff, 0xff, 0xff, 0x7f},
	"noise":      {0, 0x40, 0},
	"noisemax":   {0xff, 0xff, 0xff},
	"oneme":      {10, 1, 0, 0, 0, 6, 0, 0, 0x80, 0},
	"onememax":   {10, 1, 0, 0, 0, 6, 0, 0xff, 0xff, 0xff},
	"nothing":    {},
	"frame":      probetest.WSFrame(probetest.WSBinary, 1<<62, false, nil),
	"text":       probetest.WSFrame(probetest.WSText, 64<<10, false, nil),
	"fragment":   probetest.WSFrame(probetest.WSBinary&0x7f, 1000, false, filler[:1000]),
}

// again is what a flood repeats after some leads; after others it is filler.
var again = map[string][]byte{
	"fragment": probetest.WSFrame(0, 1000, false, filler[:1000]),
	"head":     bytes.Repeat([]byte("a"), 1000),
	"http":     bytes.Repeat([]byte(`{"a":`), 1000),
	"oneme":    append(bytes.Clone(lead["oneme"]), filler...),
	"tls":      append([]byte{22, 3, 3, 0x10, 0}, filler...),
}

// tarpits starts all of them, by name: how they are reached, what they begin
// with, what they do then.
func tarpits(tb testing.TB, ca *probetest.CA) map[string]netip.AddrPort {
	at := map[string]netip.AddrPort{}
	conf := func(version uint16, protocols ...string) *tls.Config {
		return &tls.Config{Certificates: []tls.Certificate{ca.Issue(tb, nil, tarpitHost)}, NextProtos: protocols, MinVersion: version, MaxVersion: version}
	}
	usual, h2 := conf(tls.VersionTLS13, "http/1.1"), conf(tls.VersionTLS13, "h2")
	for name, head := range lead {
		more := again[name]
		if more == nil {
			more = filler
		}
		for what, p := range map[string]probetest.Tarpit{
			"flood": {Head: head, Again: more},
			"drip":  {Head: head, Again: more, Every: 200 * time.Millisecond},
			"lie":   {Head: head},
		} {
			at["tcp "+name+" "+what] = probetest.ServeTCP(tb, p.Serve)
			at["tls "+name+" "+what] = probetest.ServeTLS(tb, usual, func(c *tls.Conn) { p.Serve(c) })
			at["ws "+name+" "+what] = probetest.ServeTLS(tb, usual, func(c *tls.Conn) {
				if _, err := probetest.Upgrade(c); err == nil {
					p.Burden(c)
				}
			})
		}
	}
	ping := probetest.WSFrame(probetest.WSPing, 100, false, filler[:100])
	at["ws ping flood"] = probetest.ServeTLS(tb, usual, func(c *tls.Conn) {
		if _, err := probetest.Upgrade(c); err == nil {
			probetest.Tarpit{Again: ping}.Burden(c)
		}
	})
	// HTTP/2: a preface of settings, then without end frames that are no answer.
	for what, frame := range map[string][]byte{
		"settings":     {0, 0, 0, 4, 0, 0, 0, 0, 0},
		"pings":        append([]byte{0, 0, 8, 6, 0, 0, 0, 0, 0}, filler[:8]...),
		"continuation": append([]byte{0, 0x10, 0, 9, 0, 0, 0, 0, 1}, filler...),
		"data":         append([]byte{0, 0x10, 0, 0, 0, 0, 0, 0, 1}, filler...),
	} {
		p := probetest.Tarpit{Head: []byte{0, 0, 0, 4, 0, 0, 0, 0, 0}, Again: frame}
		if what == "continuation" {
			p.Head = append(p.Head, 0, 0, 1, 1, 0, 0, 0, 0, 1, 0x88)
		}
		if what == "data" { // 200, application/dns-message
			p.Head = append(p.Head, append([]byte{0, 0, 28, 1, 4, 0, 0, 0, 1, 0x88, 0x0f, 0x10, 23}, "application/dns-message"...)...)
		}
		at["h2 "+what] = probetest.ServeTLS(tb, h2, func(c *tls.Conn) { p.Serve(c) })
	}

	// A chain of as many and as large certificates as crypto/tls lets pass.
	long := ca.Issue(tb, nil, tarpitHost)
	bulky := probetest.NewCA(tb, "bulk").Issue(tb, func(c *x509.Certificate) {
		for i := range 100 {
			c.DNSNames = append(c.DNSNames, fmt.Sprintf("%02d.%s.example", i, strings.Repeat("a", 20)))
		}
	}, tarpitHost).Certificate[0]
	for n := 0; n+len(bulky) < 250<<10; n += len(bulky) {
		long.Certificate = append(long.Certificate, bulky)
	}
	for _, v := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		c := conf(v, "http/1.1")
		c.Certificates[0] = long
		at["chain "+tls.VersionName(v)] = probetest.ServeTLS(tb, c, nil)
	}
	c := conf(tls.VersionTLS13, "h3")
	c.Certificates[0] = long
	at["h3 chain"] = probetest.ServeQUIC(tb, c, nil, nil, nil)
	// After the handshake: wishes to begin anew, and records that say nothing.
	for name, s := range map[string]struct {
		version uint16
		kind    byte
		body    []byte
	}{
		"renegotiation": {tls.VersionTLS12, 22, []byte{0, 0, 0, 0}}, // HelloRequest
		"empty 1.2":     {tls.VersionTLS12, 23, nil},
		"hello request": {tls.VersionTLS13, 22, []byte{0, 0, 0, 0}},
		"key updates":   {tls.VersionTLS13, 22, []byte{24, 0, 0, 1, 1}},
		"tickets":       {tls.VersionTLS13, 22, append([]byte{4, 0, 0x40 - 13, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x40 - 13 - 13}, filler[:0x40]...)},
		"big tickets":   {tls.VersionTLS13, 22, append([]byte{4, 0, 0x0f, 0xf0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0x0f, 0xe3}, filler[:0x0fe5]...)},
		"empty 1.3":     {tls.VersionTLS13, 23, nil},
		"warnings":      {tls.VersionTLS13, 21, []byte{1, 90}},
	} {
		at["after "+name] = probetest.ServeTCP(tb, probetest.Sealed(conf(s.version, "http/1.1"), func(raw io.Writer, seal func(byte, []byte) []byte) {
			for n := 0; n < 100<<20; {
				b := seal(s.kind, s.body)
				if _, err := raw.Write(b); err != nil {
					return
				}
				n += len(b)
			}
		}))
	}

	// Datagrams.
	flood := func(datagram func(asked []byte) []byte) netip.AddrPort {
		return probetest.ServeUDP(tb, func(asked []byte) [][]byte { return slices.Repeat([][]byte{datagram(asked)}, 2000) })
	}
	at["udp small"] = flood(func([]byte) []byte { return []byte{0x40} })
	at["udp large"] = flood(func([]byte) []byte { return make([]byte, 60<<10) })
	at["udp echo"] = flood(func(asked []byte) []byte { return bytes.Clone(asked) })
	at["udp almost"] = flood(func(asked []byte) []byte { // an answer to somebody else
		b := bytes.Clone(asked)
		b[0] ^= 0x01
		return append(b, filler[:1000]...)
	})
	at["udp version"] = flood(func(asked []byte) []byte {
		b := binary.BigEndian.AppendUint32([]byte{0xc0}, 0)
		return append(append(b, 8, 1, 2, 3, 4, 5, 6, 7, 8, 8, 8, 7, 6, 5, 4, 3, 2, 1), filler[:1000]...)
	})
	at["udp mute"] = probetest.MuteUDP(tb)
	h3 := conf(tls.VersionTLS13, "h3")
	serve := func(b, more []byte) netip.AddrPort {
		return probetest.ServeQUIC(tb, h3, nil, nil, func(c *quic.Conn) {
			if s, err := c.AcceptStream(c.Context()); err == nil {
				s.Write(b)
				for n := 0; len(more) > 0 && n < 100<<20; n += len(more) {
					if _, err := s.Write(more); err != nil {
						return
					}
				}
			}
		})
	}
	at["h3 data"] = serve([]byte{1, 3, 0, 0, 0xd9, 0, 0x86, 0x40, 0, 0}, filler) // 200, and DATA of 100 MB
	at["h3 headers"] = serve([]byte{1, 0xbf, 0xff, 0xff, 0xff}, filler)          // HEADERS of 1 GB
	at["h3 strange frames"] = serve(nil, append([]byte{0x21, 0x4f, 0xa0}, filler[:0xfa0]...))
	at["h3 mute"] = serve(nil, nil)
	return at
}

// tarpitServers starts the other process.
func tarpitServers(t *testing.T) (at func(name string) netip.AddrPort, trust *Trust) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), benchServerEnv+"=tarpits")
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
	var peer tarpitPeer
	line, err := bufio.NewReader(out).ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &peer)
	}
	if err == nil {
		trust, err = NewTrust(peer.PEM)
	}
	if err != nil {
		t.Fatal(err)
	}
	return func(name string) netip.AddrPort {
		a, ok := peer.Addrs[name]
		if !ok {
			t.Fatalf("no tarpit %q", name)
		}
		return a
	}, trust
}

// A stuck is a prober and the tarpits that it is sent into.
type stuck struct {
	name  string
	ask   Addressed
	under []string // leads of what it reads without TLS
	in    []string // leads of what it reads in TLS
	ws    []string // leads of what it reads after an upgrade
	udp   bool
}

func stuckProbers(trust *Trust) []stuck {
	http := []string{"head", "http", "chunks", "nothing"}
	shape := Expect{JSON: map[string]string{"ok": ""}}
	return []stuck{
		{name: "tls", ask: TLS{ServerName: tarpitHost, Trust: trust}, under: []string{"tls", "nothing"}},
		{name: "tls x25519", ask: TLS{ServerName: tarpitHost, Hello: HelloX25519, Trust: trust}, under: []string{"tls"}},
		{name: "browser hello", ask: BrowserHello{ServerName: tarpitHost}, under: []string{"tls", "nothing"}},
		{name: "bytes", ask: Bytes{}, under: []string{"nothing"}},
		{name: "http", ask: HTTP{Host: tarpitHost, Expect: shape, Trust: trust}, under: []string{"tls"}, in: http},
		{name: "http contains", ask: HTTP{Host: tarpitHost, Expect: Expect{Contains: []string{"<title>"}}, Trust: trust}, in: http},
		{name: "http plain", ask: HTTP{Host: tarpitHost, Plain: true, Expect: Expect{Contains: []string{"<title>"}}}, under: http},
		{name: "download", ask: Transfer{Host: tarpitHost, Trust: trust}, under: []string{"tls"}, in: http},
		{name: "upload", ask: Transfer{Host: tarpitHost, Direction: Upload, Trust: trust}, in: http},
		{name: "websocket", ask: WebSocket{ServerName: tarpitHost, Path: "/", Trust: trust}, under: []string{"tls"}, in: http},
		{name: "mtproto", ask: MTProto{}, under: []string{"mtproto", "mtprotomax", "nothing"}},
		{name: "mtproto abridged", ask: MTProto{Transport: "abridged"}, under: []string{"abridged", "nothing"}},
		{name: "mtproto padded", ask: MTProto{Transport: "padded"}, under: []string{"mtproto"}},
		{name: "mtproto obfuscated2", ask: MTProto{Transport: "obfuscated2", DC: 2}, under: []string{"nothing"}},
		{name: "mtproto http", ask: MTProto{Transport: "http"}, under: http},
		{name: "mtproto websocket", ask: MTProto{Transport: "websocket", ServerName: tarpitHost, DC: 2, Trust: trust}, under: []string{"tls"}, in: []string{"head"}, ws: []string{"frame", "fragment", "nothing"}},
		{name: "noise", ask: Noise{}, under: []string{"noise", "noisemax", "nothing"}},
		{name: "noise websocket", ask: Noise{Over: "websocket", ServerName: tarpitHost, Trust: trust}, ws: []string{"frame", "fragment"}},
		{name: "oneme", ask: OneMe{ServerName: tarpitHost, Trust: trust}, under: []string{"tls"}, in: []string{"oneme", "onememax", "nothing"}},
		{name: "oneme json", ask: OneMe{ServerName: tarpitHost, Over: OneMeJSON, Trust: trust}, ws: []string{"text", "frame", "fragment"}},
		{name: "oneme binary", ask: OneMe{ServerName: tarpitHost, Over: OneMeBinary, Trust: trust}, ws: []string{"frame", "fragment"}},
		{name: "dns tcp", ask: DNS{Server: Server{Transport: OverTCP}, Host: tarpitHost}, under: []string{"dns", "dnsmax"}},
		{name: "dot", ask: DNS{Server: Server{Transport: OverTLS, ServerName: tarpitHost, Trust: trust}, Host: tarpitHost}, under: []string{"tls"}, in: []string{"dns", "dnsmax"}},
		{name: "doh", ask: DNS{Server: Server{Transport: OverHTTPS, ServerName: tarpitHost, Path: "/", Trust: trust}, Host: tarpitHost}, under: []string{"tls"}, in: http},
		{name: "dns", ask: DNS{Server: Server{Transport: OverUDP}, Host: tarpitHost}, udp: true},
		{name: "quic", ask: QUIC{ServerName: tarpitHost, Trust: trust}, udp: true},
		{name: "quic ping", ask: QUICPing{}, udp: true},
		{name: "stun", ask: STUN{Burst: 50, Spacing: time.Millisecond}, udp: true},
		{name: "turn", ask: STUN{Kind: STUNTURN}, udp: true},
		{name: "reflector", ask: STUN{Kind: STUNReflector}, udp: true},
		{name: "h3", ask: HTTP{ServerName: tarpitHost, Version: "3", Expect: shape, Trust: trust}, udp: true},
	}
}

// hasty says that an answer which begins so is refused before it can drip.
func hasty(lead string) bool {
	return lead == "nothing" || lead == "dns" || strings.HasSuffix(lead, "max") && lead != "dnsmax"
}

// TestTarpitDeadline: nobody keeps a prober longer than its deadline, however
// slowly it speaks, nor a goroutine or a descriptor after it.
func TestTarpitDeadline(t *testing.T) {
	at, trust := tarpitServers(t)
	const deadline = 3 * time.Second // handshakes take their time on a busy machine
	atOnce := make(chan struct{}, 16)
	before := openFiles(t)
	here := goleak.IgnoreCurrent()
	var running sync.WaitGroup
	cases := 0
	in := func(s stuck, server string, reached Op) {
		p := s.ask.At(at(server))
		cases++
		running.Go(func() {
			atOnce <- struct{}{}
			defer func() { <-atOnce }()
			ctx, cancel := context.WithTimeout(t.Context(), deadline)
			defer cancel()
			start := time.Now()
			steps := p.Probe(ctx, &Meter{Net: &Host{}})
			took := time.Since(start)
			last := steps[len(steps)-1]
			if took > deadline+2*time.Second { // the machine may be busy
				t.Errorf("%s in %q: took %v", s.name, server, took)
			}
			if last.Failure != FailureTimeout || last.Op != reached {
				t.Errorf("%s in %q: %s after %v: %v", s.name, server, story(steps), took, last.Err)
			}
		})
	}
	lastOp := func(s stuck) Op {
		switch q := s.ask.(type) {
		case TLS, BrowserHello:
			return OpTLSHandshake
		case Transfer:
			return OpTransfer
		case WebSocket:
			return OpRequest
		case DNS:
			return OpResolve
		case QUIC, QUICPing:
			return OpQUICHandshake
		case HTTP:
			if q.Version == "3" {
				return OpQUICHandshake
			}
		}
		return OpReply
	}
	for _, s := range stuckProbers(trust) {
		if s.udp {
			in(s, "udp mute", lastOp(s))
			continue
		}
		under, inside := lastOp(s), lastOp(s)
		if len(s.in)+len(s.ws) > 0 {
			under = OpTLSHandshake
		}
		if s.name == "mtproto websocket" { // its tarpits in TLS stand before the upgrade
			inside = OpRequest
		}
		for _, name := range s.under {
			if !hasty(name) {
				in(s, "tcp "+name+" drip", under)
			}
		}
		for _, name := range s.in {
			if !hasty(name) {
				in(s, "tls "+name+" drip", inside)
			}
		}
		for _, name := range s.ws {
			// What is inside of frames may be refused as soon as they drip.
			if name == "text" || strings.HasPrefix(s.name, "oneme") {
				in(s, "ws "+name+" drip", lastOp(s))
			}
		}
		if len(s.ws) > 0 {
			in(s, "ws nothing lie", lastOp(s))
		}
		if len(s.under) > 0 {
			in(s, "tcp nothing lie", under)
		}
		if len(s.in) > 0 {
			in(s, "tls nothing lie", inside)
		}
	}
	in(stuck{name: "h3", ask: HTTP{ServerName: tarpitHost, Version: "3", Trust: trust}}, "h3 mute", OpReply)
	running.Wait()
	t.Logf("%d cases", cases)
	if err := goleak.Find(here); err != nil {
		t.Error(err)
	}
	if after := openFiles(t); after > before {
		t.Errorf("%d files are open, %d before", after, before)
	}
}

// TestTarpitBuffers: nobody makes a prober hold more than 256 kB, or take in
// more than its bound, however much it sends or announces.
func TestTarpitBuffers(t *testing.T) {
	at, trust := tarpitServers(t)
	var most struct {
		bytes uint64
		where string
	}
	run := func(s stuck, server string) {
		p := s.ask.At(at(server))
		// A connection ends by what was sent; sockets may lose enough of a flood to
		// wait on for an answer.
		timeout := 10 * time.Second
		if strings.HasPrefix(server, "udp") {
			timeout = 500 * time.Millisecond
		}
		ctx, cancel := context.WithTimeout(t.Context(), timeout)
		defer cancel()
		here := goleak.IgnoreCurrent()
		g := newGauge()
		m := &Meter{Net: g}
		start := time.Now()
		steps := p.Probe(ctx, m)
		took := time.Since(start)
		g.look()
		if g.peak > most.bytes {
			most.bytes, most.where = g.peak, s.name+" in "+server
		}
		t.Logf("%-20s %-26s %4d kB held, %4d kB in, %6v: %s", s.name, server, g.peak>>10, m.Received()>>10, took.Round(time.Millisecond), story(steps))
		if g.peak > maxBuffers {
			t.Errorf("%s in %q held %d bytes: %s", s.name, server, g.peak, story(steps))
		}
		if m.Received() > maxReceived+64<<10 {
			t.Errorf("%s in %q took in %d bytes", s.name, server, m.Received())
		}
		if took > timeout+2*time.Second || timeout > time.Second && ctx.Err() != nil {
			t.Errorf("%s in %q was only ended by its deadline: %s", s.name, server, story(steps))
		}
		if f := steps[len(steps)-1].Failure; f.Local() {
			t.Errorf("%s in %q: %s: a peer makes outcomes void", s.name, server, story(steps))
		}
		if err := goleak.Find(here); err != nil {
			t.Errorf("%s in %q: %v", s.name, server, err)
		}
	}
	for _, s := range stuckProbers(trust) {
		// What is made once for all, such as the list of roots, is made now.
		warm := "tcp nothing flood"
		if s.udp {
			warm = "udp small"
		} else if len(s.in)+len(s.ws) > 0 {
			warm = "tls nothing flood"
		}
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		s.ask.At(at(warm)).Probe(ctx, &Host{})
		cancel()

		for _, name := range s.under {
			run(s, "tcp "+name+" flood")
		}
		for _, name := range s.in {
			run(s, "tls "+name+" flood")
		}
		for _, name := range s.ws {
			run(s, "ws "+name+" flood")
		}
		if len(s.ws) > 0 {
			run(s, "ws ping flood")
		}
		if s.udp {
			run(s, "udp almost")
		}
		switch s.name { // whose sockets are not alike
		case "dns", "quic", "quic ping", "stun":
			for _, name := range []string{"small", "large", "echo", "version"} {
				run(s, "udp "+name)
			}
		}
		switch s.name {
		case "tls", "tls x25519", "http", "download", "oneme", "doh", "websocket":
			run(s, "chain TLS 1.2")
			run(s, "chain TLS 1.3")
		case "h3":
			for _, name := range []string{"data", "headers", "strange frames", "chain"} {
				run(s, "h3 "+name)
			}
		}
		switch s.name {
		case "doh":
			for _, name := range []string{"settings", "pings", "continuation", "data"} {
				run(s, "h2 "+name)
			}
			fallthrough
		case "http", "download", "upload", "oneme", "dot", "websocket", "noise websocket":
			for _, name := range []string{"renegotiation", "empty 1.2", "hello request", "key updates", "tickets", "big tickets", "empty 1.3", "warnings"} {
				run(s, "after "+name)
			}
		}
	}
	t.Logf("at most %d kB: %s", most.bytes>>10, most.where)
}

// A gauge is a network that looks at the heap before every read and after each
// 4 kB that came: while the caller holds whatever it holds.
type gauge struct {
	Host
	mu         sync.Mutex
	base, peak uint64
	since      int
}

func newGauge() *gauge {
	g := &gauge{}
	runtime.GC() // twice: what has a finalizer or lies in a pool goes with the second
	g.base = liveHeap()
	return g
}

// liveHeap is the bytes on the heap that something still points to.
func liveHeap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func (g *gauge) look() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.since = 0
	if now := liveHeap(); now > g.base {
		g.peak = max(g.peak, now-g.base)
	}
}

func (g *gauge) read(n int) {
	g.mu.Lock()
	g.since += n
	full := g.since >= 4<<10
	g.mu.Unlock()
	if full {
		g.look()
	}
}

func (g *gauge) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	c, err := g.Host.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	g.look()
	return &gaugedConn{c, g}, nil
}

func (g *gauge) ListenPacket(ctx context.Context, network, address string) (net.PacketConn, error) {
	c, err := g.Host.ListenPacket(ctx, network, address)
	if err != nil {
		return nil, err
	}
	g.look()
	return &gaugedPacketConn{c, g}, nil
}

type gaugedConn struct {
	net.Conn
	g *gauge
}

func (c *gaugedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.g.read(n)
	return n, err
}

func (c *gaugedConn) SyscallConn() (syscall.RawConn, error) { return rawConn(c.Conn) }

type gaugedPacketConn struct {
	net.PacketConn
	g *gauge
}

func (c *gaugedPacketConn) ReadFrom(b []byte) (int, net.Addr, error) {
	n, a, err := c.PacketConn.ReadFrom(b)
	c.g.read(n)
	return n, a, err
}

func (c *gaugedPacketConn) SyscallConn() (syscall.RawConn, error) { return rawConn(c.PacketConn) }

func openFiles(t *testing.T) int {
	if runtime.GOOS != "linux" {
		return 0
	}
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}
