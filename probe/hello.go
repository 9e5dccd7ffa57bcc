package probe

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdh"
	"crypto/mlkem"
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"io"
	mrand "math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"time"
)

// The ClientHello profiles of [TLS] and [QUIC]. Filters may judge a client by
// its hello, so that a check which fails with one profile is asked again with
// another before anything is said of the server.
const (
	// HelloGo is Go's default, with an ML-KEM key share: some 1,500 bytes, two
	// TCP segments, two QUIC Initials.
	HelloGo = "go"
	// HelloX25519 sends a key share of X25519 alone: some 280 bytes, one segment.
	HelloX25519 = "x25519"
)

// helloBrowser is what the hello of [BrowserHello] is called in TLSInfo.
const helloBrowser = "browser"

// The ways of [TLS].Split.
const (
	SplitRecord = "record" // two TLS records, RFC 8446 §5.1, in one write
	SplitTCP    = "tcp"    // two TCP segments, 10 ms apart
)

// helloTap stands between crypto/tls and the connection during a handshake. It
// splits the first write where that is asked for, bounds what the answer may
// hold, and notes what crypto/tls does not tell: when the hello had been
// written, when reading failed, and the first bytes of the answer.
type helloTap struct {
	net.Conn
	split string
	name  string // the server name, whose middle is where to split
	over  bool   // the handshake; from then on bytes are somebody else's to count
	taken int

	sent, failed time.Time
	first        []byte
}

// firstBytes is how much of an answer is kept (TLSInfo.FirstBytes).
const firstBytes = 16

// maxHandshake is the most that a server may say until the handshake is over,
// in bytes. Chains have some 5 kB; crypto/tls itself would hold 256 kB of one,
// and as much again of what it parses from it.
const maxHandshake = 64 << 10

func (c *helloTap) Write(b []byte) (n int, err error) {
	if !c.sent.IsZero() {
		return c.Conn.Write(b)
	}
	defer func() { c.sent = time.Now() }()
	at := splitAt(b, c.name)
	switch {
	case at == 0:
		return c.Conn.Write(b)
	case c.split == SplitRecord:
		if _, err := c.Conn.Write(splitRecord(b, at)); err != nil {
			return 0, err
		}
		return len(b), nil
	case c.split == SplitTCP:
		if n, err = c.Conn.Write(b[:at]); err != nil {
			return n, err
		}
		time.Sleep(10 * time.Millisecond) // so that nobody on the way joins them
		m, err := c.Conn.Write(b[at:])
		return n + m, err
	}
	return c.Conn.Write(b)
}

func (c *helloTap) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if c.taken += n; c.taken > maxHandshake && !c.over {
		n, err = 0, errTooLong
	}
	if room := firstBytes - len(c.first); room > 0 && n > 0 {
		c.first = append(c.first, b[:min(n, room)]...)
	}
	if err != nil && c.failed.IsZero() {
		c.failed = time.Now()
	}
	return n, err
}

// SyscallConn lets TCP_INFO through.
func (c *helloTap) SyscallConn() (syscall.RawConn, error) { return rawConn(c.Conn) }

const recordHeader = 5 // bytes, RFC 8446 §5.1

// splitAt is where to cut a record: in the middle of the server name, or of the
// record if the name is not in it; 0 if b is not one whole handshake record.
func splitAt(b []byte, name string) int {
	if len(b) < recordHeader+2 || b[0] != recordHandshake || int(binary.BigEndian.Uint16(b[3:])) != len(b)-recordHeader {
		return 0
	}
	if i := bytes.Index(b, []byte(name)); i > 0 && len(name) > 1 {
		return i + len(name)/2
	}
	return (recordHeader + len(b)) / 2
}

// splitRecord makes one record into two, the first of which ends at b[:at].
func splitRecord(b []byte, at int) []byte {
	out := make([]byte, 0, len(b)+recordHeader)
	out = append(out, b[:at]...)
	binary.BigEndian.PutUint16(out[3:], uint16(at-recordHeader))
	out = append(out, b[:3]...)
	out = binary.BigEndian.AppendUint16(out, uint16(len(b)-at))
	return append(out, b[at:]...)
}

// The content types of records, RFC 8446 §5.1.
const (
	recordAlert     = 21
	recordHandshake = 22
)

// firstAlert is the alert that an answer begins with, -1 if with something
// else. Once a handshake has keys, alerts are encrypted and not seen here.
func firstAlert(b []byte) int {
	if len(b) >= recordHeader+2 && b[0] == recordAlert && b[1] == 3 && b[3] == 0 && b[4] == 2 {
		return int(b[6])
	}
	return -1
}

// helloConfig applies a profile, and says whether there is such a profile.
func helloConfig(conf *tls.Config, hello string) error {
	switch hello {
	case "", HelloGo:
	case HelloX25519:
		// P-256 without a share: in TLS 1.2 a server may use an ECDSA certificate
		// only if its curve is listed (RFC 8422 §5.1).
		conf.CurvePreferences = []tls.CurveID{tls.X25519, tls.CurveP256}
	default:
		return &FailureError{FailureInvalidArgument, "no such ClientHello profile"}
	}
	return nil
}

// BrowserHello sends the first flight of a browser and looks at the first
// record of the answer: a connect and a tls_handshake step, whose success is a
// ServerHello or a HelloRetryRequest (RFC 8446 §4.1.3, §4.1.4).
//
// It cannot finish the handshake, so it proves nobody's identity. It is one
// half of a comparison, never a criterion of success: where it is answered and
// [TLS] with the same name at the same address is not, a filter judges the
// ClientHello.
//
// The hello is that of Chrome 133 (February 2025) to 147, JA4
// t13d1516h2_8daaf6152771_d8a2da3f94cd, after HelloChrome_133 in u_parrots.go of
// github.com/refraction-networking/utls: GREASE (RFC 8701), shuffled
// extensions, X25519MLKEM768 and X25519 key shares, a GREASE ECH.
type BrowserHello struct {
	Addr       netip.AddrPort
	ServerName string   // "" or an IP address: no SNI
	ALPN       []string // none: h2 and http/1.1
}

// At is the same question, asked of addr.
func (q BrowserHello) At(addr netip.AddrPort) Prober { q.Addr = addr; return q }

func (q BrowserHello) Probe(ctx context.Context, n Net) []Step {
	var t trace
	conn, err := t.connect(ctx, n, q.Addr)
	if err != nil {
		return t.steps
	}
	defer conn.Close()
	t.do(OpTLSHandshake, q.Addr, func(s *Step) error {
		info := &TLSInfo{Hello: helloBrowser, ServerName: sni(q.ServerName), Alert: -1, RTT: t.connected(q.Addr)}
		s.TLS = info
		hello, session, err := chromeHello(sni(q.ServerName), q.ALPN)
		if err != nil {
			return err
		}
		tap := &helloTap{Conn: conn}
		stop := guard(ctx, conn)
		if _, err = tap.Write(hello); err == nil {
			info.Version, err = readServerHello(bufio.NewReader(tap), session)
		}
		stop()
		s.TCP = tcpInfo(conn)
		info.failed(tap, err)
		return cause(ctx, err)
	})
	return t.steps
}

// chromeCiphers are the cipher suites after the GREASE one, in order.
var chromeCiphers = [...]uint16{
	0x1301, 0x1302, 0x1303, 0xc02b, 0xc02f, 0xc02c, 0xc030, 0xcca9, 0xcca8, 0xc013, 0xc014, 0x009c, 0x009d, 0x002f, 0x0035,
}

// The extensions that are looked at by number; IANA's TLS ExtensionType Values.
const (
	extServerName        = 0
	extALPN              = 16
	extSupportedVersions = 43
	extKeyShare          = 51
	extALPS              = 17613 // application_settings, draft-vvv-tls-alps
)

// chromeHello makes a ClientHello in its record, and tells its session ID.
func chromeHello(name string, alpn []string) (record, session []byte, err error) {
	if len(name) > 255 { // RFC 1035 §2.3.4
		return nil, nil, &FailureError{FailureInvalidArgument, "the server name is too long"}
	}
	if len(alpn) == 0 {
		alpn = []string{"h2", "http/1.1"}
	}
	var protocols []byte
	for _, p := range alpn {
		protocols = append(protocols, vec8([]byte(p))...)
	}
	kem, err := mlkem.GenerateKey768()
	if err != nil {
		return nil, nil, err
	}
	dh, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	random := make([]byte, 32+32+1+32+240+8) // client random, session ID, and what ECH and GREASE need
	rand.Read(random)
	take := func(n int) (b []byte) { b, random = random[:n], random[n:]; return b }
	clientRandom, session := take(32), take(32)
	g := take(8)
	grease := func(i int) []byte { v := g[i]&0xf0 | 0x0a; return []byte{v, v} } // RFC 8701 §2
	if g[0]&0xf0 == g[1]&0xf0 {
		g[1] ^= 0x10 // the two extensions must not be the same one
	}

	x25519 := dh.PublicKey().Bytes()
	hybrid := append(kem.EncapsulationKey().Bytes(), x25519...)
	// The GREASE ECH of BoringSSL: outer, HKDF-SHA256 with AES-128-GCM, a
	// config ID, a key, a payload of one of four lengths.
	ech := append([]byte{0, 0, 1, 0, 1}, take(1)...)
	ech = append(ech, vec16(take(32))...)
	ech = append(ech, vec16(take(128+32*int(g[5]&3)+16))...)

	type extension struct {
		id   uint16
		body []byte
	}
	exts := []extension{
		{23, nil},           // extended_master_secret
		{0xff01, []byte{0}}, // renegotiation_info
		{10, vec16(cat(grease(2), []byte{0x11, 0xec, 0, 29, 0, 23, 0, 24}))}, // supported_groups
		{11, []byte{1, 0}}, // ec_point_formats
		{35, nil},          // session_ticket
		{extALPN, vec16(protocols)},
		{5, []byte{1, 0, 0, 0, 0}}, // status_request
		{13, vec16([]byte{4, 3, 8, 4, 4, 1, 5, 3, 8, 5, 5, 1, 8, 6, 6, 1})}, // signature_algorithms
		{18, nil}, // signed_certificate_timestamp
		{extKeyShare, vec16(cat(
			grease(2), vec16([]byte{0}),
			[]byte{0x11, 0xec}, vec16(hybrid),
			[]byte{0, 29}, vec16(x25519)))},
		{45, []byte{1, 1}}, // psk_key_exchange_modes
		{extSupportedVersions, vec8(cat(grease(3), []byte{3, 4, 3, 3}))},
		{27, []byte{2, 0, 2}}, // compress_certificate: brotli
		{0xfe0d, ech},
	}
	if name != "" {
		exts = append(exts, extension{extServerName, vec16(cat([]byte{0}, vec16([]byte(name))))})
	}
	if slices.Contains(alpn, "h2") {
		exts = append(exts, extension{extALPS, vec16(vec8([]byte("h2")))})
	}
	mrand.Shuffle(len(exts), func(i, j int) { exts[i], exts[j] = exts[j], exts[i] })
	var body []byte
	body = append(append(body, grease(0)...), 0, 0)
	for _, e := range exts {
		body = binary.BigEndian.AppendUint16(body, e.id)
		body = append(body, vec16(e.body)...)
	}
	body = append(append(body, grease(1)...), 0, 1, 0)

	ciphers := grease(4)
	for _, c := range chromeCiphers {
		ciphers = binary.BigEndian.AppendUint16(ciphers, c)
	}
	hello := cat([]byte{3, 3}, clientRandom, vec8(session), vec16(ciphers), []byte{1, 0}, vec16(body))
	message := cat([]byte{helloClient, 0}, vec16(hello))
	return cat([]byte{recordHandshake, 3, 1}, vec16(message)), session, nil
}

func cat(parts ...[]byte) []byte { return slices.Concat(parts...) }

// vec8 and vec16 are vectors with a length in front, RFC 8446 §3.4.
func vec8(b []byte) []byte  { return cat([]byte{byte(len(b))}, b) }
func vec16(b []byte) []byte { return cat(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b) }

// The handshake types, RFC 8446 §4.
const (
	helloClient = 1
	helloServer = 2
)

// maxRecord is the longest plaintext of a record, RFC 8446 §5.1.
const maxRecord = 1 << 14

// readServerHello reads the first record of an answer to a hello with this
// session ID and tells the version that a ServerHello chose. Everything else is
// an error of the kind that crypto/tls would make of it.
func readServerHello(r io.Reader, session []byte) (version uint16, err error) {
	var header [recordHeader]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		return 0, err
	}
	size := int(binary.BigEndian.Uint16(header[3:]))
	kind := header[0]
	if kind != recordAlert && kind != recordHandshake || header[1] != 3 || size == 0 || size > maxRecord {
		return 0, tls.RecordHeaderError{Msg: "first record does not look like a TLS handshake", RecordHeader: header}
	}
	body := make([]byte, size)
	if _, err := io.ReadFull(r, body); err != nil {
		return 0, err
	}
	if kind == recordAlert {
		if size != 2 {
			return 0, errNoServerHello
		}
		return 0, &net.OpError{Op: "remote error", Err: tls.AlertError(body[1])}
	}
	version, ok := parseServerHello(body, session)
	if !ok {
		return 0, errNoServerHello
	}
	return version, nil
}

var errNoServerHello = &FailureError{FailureUnknown, "the first record is no ServerHello"}

// parseServerHello reads a ServerHello that begins b, and checks that it may be
// an answer to ours: one of our ciphers and, in TLS 1.3, our session ID.
func parseServerHello(b, session []byte) (version uint16, ok bool) {
	message := cursor{b: b}
	if message.uint(1) != helloServer {
		return 0, false
	}
	hello := cursor{b: message.take(message.uint(3))}
	version = uint16(hello.uint(2))
	hello.take(32) // random
	echo := hello.take(hello.uint(1))
	cipher := uint16(hello.uint(2))
	if hello.uint(1) != 0 || !slices.Contains(chromeCiphers[:], cipher) {
		return 0, false
	}
	exts := cursor{}
	if len(hello.b) > 0 { // a TLS 1.2 hello may end here
		exts.b = hello.take(hello.uint(2))
	}
	for len(exts.b) > 0 {
		id, body := exts.uint(2), exts.take(exts.uint(2))
		if id == extSupportedVersions {
			c := cursor{b: body}
			version = uint16(c.uint(2))
		}
	}
	if message.short || hello.short || exts.short {
		return 0, false
	}
	return version, version == tls.VersionTLS12 || version == tls.VersionTLS13 && bytes.Equal(echo, session)
}

// cursor reads from the front of b. Beyond the end everything is zero or empty,
// and short is set.
type cursor struct {
	b     []byte
	short bool
}

func (c *cursor) take(n int) []byte {
	if n > len(c.b) {
		c.b, c.short = nil, true
		return nil
	}
	head := c.b[:n]
	c.b = c.b[n:]
	return head
}

// uint is a number of n bytes, at most 4.
func (c *cursor) uint(n int) (v int) {
	for _, x := range c.take(n) {
		v = v<<8 | int(x)
	}
	return v
}
