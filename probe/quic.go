package probe

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/quic-go/quic-go"
)

// QUIC asks for a QUIC version 1 handshake (RFC 9000, 9001) and a certificate
// that is the name's: one quic_handshake step.
type QUIC struct {
	Addr       netip.AddrPort
	ServerName string   // as in [TLS]
	ALPN       []string // none: h3
	Hello      string   // HelloGo (also ""), HelloX25519
	Trust      *Trust   // nil: Mozilla's list
}

// At is the same question, asked of addr.
func (q QUIC) At(addr netip.AddrPort) Prober { q.Addr = addr; return q }

func (q QUIC) Probe(ctx context.Context, n Net) []Step {
	var t trace
	if _, end, err := t.quic(ctx, n, q); err == nil {
		end()
	}
	return t.steps
}

// h3NoError closes a connection for no fault of anybody's, RFC 9114 §8.1.
const h3NoError = 0x100

// quic takes one quic_handshake step. After success the caller ends the
// connection with end, which also completes the step's evidence.
func (t *trace) quic(ctx context.Context, n Net, q QUIC) (conn *quic.Conn, end func(), err error) {
	var (
		info = &QUICInfo{ServerName: sni(q.ServerName)}
		sock *udpSocket
		tr   *quic.Transport
	)
	end = func() {
		if conn != nil {
			conn.CloseWithError(h3NoError, "")
		}
		if tr != nil {
			tr.Close() // waits for its reader: from here on sock is ours
			info.received(sock)
		}
		if sock != nil {
			sock.Close()
		}
	}
	err = t.do(OpQUICHandshake, q.Addr, func(s *Step) error {
		s.QUIC = info
		alpn := q.ALPN
		if len(alpn) == 0 {
			alpn = []string{"h3"}
		}
		conf, err := tlsConfig(q.ServerName, alpn, q.Hello, q.Trust, &info.Chain)
		if err != nil {
			return err
		}
		if sock, err = listenUDP(ctx, n, q.Addr); err != nil {
			return err
		}
		tr = &quic.Transport{Conn: sock}
		conn, err = tr.Dial(ctx, net.UDPAddrFromAddrPort(sock.peer), conf, quicConfig(ctx))
		if err != nil {
			return cause(ctx, sock.behind(err))
		}
		cs := conn.ConnectionState()
		info.Version, info.ALPN = uint32(cs.Version), cs.TLS.NegotiatedProtocol
		return nil
	})
	if err != nil {
		if v, ok := errors.AsType[*quic.VersionNegotiationError](err); ok {
			for _, theirs := range v.Theirs[:min(len(v.Theirs), maxVersions)] {
				info.Offered = append(info.Offered, uint32(theirs))
			}
		}
		end()
		return nil, nil, err
	}
	return conn, end, nil
}

func quicConfig(ctx context.Context) *quic.Config {
	conf := &quic.Config{
		Versions: []quic.Version{quic.Version1},
		// The least that is allowed (RFC 9000 §14.1), so that a path with a small
		// MTU does not read as a blocked one.
		InitialPacketSize:       minInitial,
		DisablePathMTUDiscovery: true,
		// What HTTP/3 reads of a body, so that a fast server cannot fill maxReceived
		// with what nobody will read.
		InitialStreamReceiveWindow:     maxBody,
		MaxStreamReceiveWindow:         maxBody,
		InitialConnectionReceiveWindow: 2 * maxBody,
		MaxConnectionReceiveWindow:     2 * maxBody,
	}
	// Left alone, quic-go gives up after 5 s of silence.
	if d, ok := ctx.Deadline(); ok {
		conf.HandshakeIdleTimeout = max(time.Until(d), time.Millisecond)
	}
	return conf
}

// received completes the evidence with what came in, whether or not it made a
// connection.
func (i *QUICInfo) received(sock *udpSocket) {
	i.PacketsReceived, i.BytesReceived, i.Retry = sock.packets, sock.bytes, sock.retry
	if i.Version == 0 {
		i.Version = sock.version
	}
}

// classifyQUIC is the part of Classify that knows quic-go, after
// classifyQUICHandshakeError of ooni/probe-cli internal/netxlite/classify.go.
// All of quic-go's errors claim to be net.ErrClosed as well.
func classifyQUIC(err error) (Failure, bool) {
	if _, ok := errors.AsType[*quic.VersionNegotiationError](err); ok {
		return FailureQUICIncompatibleVersion, true
	}
	if _, ok := errors.AsType[*quic.StatelessResetError](err); ok {
		return FailureConnectionReset, true
	}
	if _, ok := errors.AsType[*quic.HandshakeTimeoutError](err); ok {
		return FailureTimeout, true
	}
	if _, ok := errors.AsType[*quic.IdleTimeoutError](err); ok {
		return FailureTimeout, true
	}
	if _, ok := errors.AsType[*quic.ApplicationError](err); ok {
		return FailureUnknown, true
	}
	e, ok := errors.AsType[*quic.TransportError](err)
	switch {
	case !ok:
		return "", false
	case e.ErrorCode == quic.ConnectionRefused:
		return FailureConnectionRefused, true
	case e.ErrorCode.IsCryptoError():
		return classifyQUICAlert(tls.AlertError(e.ErrorCode - 0x100)), true
	}
	return FailureUnknown, true
}

// classifyQUICAlert maps alerts (RFC 8446 §6) as OONI does for QUIC.
func classifyQUICAlert(alert tls.AlertError) Failure {
	switch alert {
	case 40, 51: // handshake_failure, decrypt_error
		return FailureSSLFailedHandshake
	case 42, 43, 44, 45, 46: // bad, unsupported, revoked, expired, unknown certificate
		return FailureSSLInvalidCertificate
	case 48: // unknown_ca
		return FailureSSLUnknownAuthority
	case alertUnrecognizedName:
		return FailureSSLInvalidHostname
	}
	return FailureUnknown
}

// udpSocket is an unconnected socket with one peer. What others send is
// dropped; what the peer sends is counted and bounded.
//
// It embeds the interface, never *net.UDPConn: quic-go looks for the latter's
// methods and would read the descriptor past us.
type udpSocket struct {
	net.PacketConn
	peer netip.AddrPort
	left int // bytes that may still come in, from anybody

	packets, bytes int
	retry          bool   // a Retry packet came, RFC 9000 §17.2.5
	version        uint32 // of the first long header that came, 0 none

	unsent atomic.Pointer[error] // why the first datagram that was not sent was not
}

// maxReceived is the most that one run takes in.
const maxReceived = 256 << 10

// listenUDP opens a socket to talk to peer, which must not be read by more than
// one goroutine. It does not close itself when ctx ends.
func listenUDP(ctx context.Context, n Net, peer netip.AddrPort) (*udpSocket, error) {
	network, address := "udp4", "0.0.0.0:0"
	if peer.Addr().Unmap().Is6() {
		network, address = "udp6", "[::]:0"
	}
	conn, err := n.ListenPacket(ctx, network, address)
	if err != nil {
		return nil, err
	}
	recvErr(conn)
	return &udpSocket{PacketConn: conn, peer: unmap(peer), left: maxReceived}, nil
}

// unmap makes an IPv4 address of one that is mapped into IPv6.
func unmap(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

func (c *udpSocket) ReadFrom(b []byte) (int, net.Addr, error) {
	for {
		n, from, err := c.PacketConn.ReadFrom(b)
		// A router said that a datagram of ours is too long. The kernel has
		// learnt the path's MTU from it and fragments the next.
		if errors.Is(err, syscall.EMSGSIZE) {
			continue
		}
		if err != nil {
			return n, from, err
		}
		if c.left -= n; c.left < 0 {
			return 0, nil, &FailureError{FailureUnknown, "more than 256 kB came in"}
		}
		if a, ok := from.(*net.UDPAddr); !ok || unmap(a.AddrPort()) != c.peer {
			continue
		}
		c.note(b[:n])
		return n, from, nil
	}
}

func (c *udpSocket) WriteTo(b []byte, to net.Addr) (int, error) {
	n, err := c.PacketConn.WriteTo(b, to)
	if err != nil {
		c.unsent.CompareAndSwap(nil, &err)
	}
	return n, err
}

// behind is what is behind an error of quic-go's: of a datagram that this machine
// could not send it keeps the text alone.
func (c *udpSocket) behind(err error) error {
	e, ok := errors.AsType[*quic.TransportError](err)
	if unsent := c.unsent.Load(); ok && unsent != nil && !e.Remote && e.ErrorCode == quic.InternalError {
		return *unsent
	}
	return err
}

// note counts a packet and looks at its long header, RFC 9000 §17.2.
func (c *udpSocket) note(b []byte) {
	c.packets++
	c.bytes += len(b)
	if len(b) < 5 || b[0]&0x80 == 0 {
		return
	}
	version := binary.BigEndian.Uint32(b[1:])
	if c.version == 0 {
		c.version = version
	}
	if version == uint32(quic.Version1) && b[0]>>4&3 == 3 {
		c.retry = true
	}
}

// SetReadBuffer and SetWriteBuffer keep quic-go from wanting 7 MB buffers, and
// from complaining on the log that it cannot have them.
func (c *udpSocket) SetReadBuffer(int) error  { return nil }
func (c *udpSocket) SetWriteBuffer(int) error { return nil }

// QUICPing asks whether anybody speaks QUIC at an address, without a name and
// without a ClientHello on the wire: a packet of a version that nobody has must
// be answered with a Version Negotiation packet (RFC 9000 §6.1). One
// quic_handshake step. Success tells a filter of QUIC's first version or of
// names from one of all UDP; nothing proves who answered.
type QUICPing struct {
	Addr netip.AddrPort
}

// At is the same question, asked of addr.
func (q QUICPing) At(addr netip.AddrPort) Prober { q.Addr = addr; return q }

func (q QUICPing) Probe(ctx context.Context, n Net) []Step {
	var t trace
	t.do(OpQUICHandshake, q.Addr, func(s *Step) error {
		ping, version := newPing()
		info := &QUICInfo{Version: version}
		s.QUIC = info
		sock, err := listenUDP(ctx, n, q.Addr)
		if err != nil {
			return err
		}
		defer sock.Close()
		info.Offered, err = ping.ask(ctx, sock)
		info.received(sock)
		return cause(ctx, err)
	})
	return t.steps
}

// The shape of a ping. The sizes of connection IDs are what clients use.
const (
	minInitial  = 1200 // bytes: servers need not answer less, RFC 9000 §14.1
	pingID      = 8
	maxVersions = 32
)

// ping is a datagram that asks for version negotiation.
type ping []byte

// newPing makes a datagram with random connection IDs and a random version of
// those that are reserved to ask for negotiation, 0x?a?a?a?a (RFC 9000 §15).
func newPing() (p ping, version uint32) {
	p = make(ping, minInitial)
	rand.Read(p)
	p[0] |= 0xc0 // long header and fixed bit, RFC 9000 §17.2
	version = binary.BigEndian.Uint32(p[1:])&0xf0f0f0f0 | 0x0a0a0a0a
	binary.BigEndian.PutUint32(p[1:], version)
	p[5] = pingID
	p[6+pingID] = pingID
	return p, version
}

func (p ping) destination() []byte { return p[6 : 6+pingID] }
func (p ping) source() []byte      { return p[7+pingID : 7+2*pingID] }

// ask sends the ping until it is answered, as often as a client sends its
// Initial: after 1, 3, 7 s (RFC 9002 §6.2.2, with no more than doubling).
func (p ping) ask(ctx context.Context, sock *udpSocket) ([]uint32, error) {
	undo := context.AfterFunc(ctx, func() { sock.SetReadDeadline(time.Unix(1, 0)) })
	defer undo()
	to := net.UDPAddrFromAddrPort(sock.peer)
	buf := make([]byte, 1500)
	for wait := time.Second; ; wait *= 2 {
		if _, err := sock.WriteTo(p, to); err != nil {
			return nil, err
		}
		if err := sock.SetReadDeadline(time.Now().Add(wait)); err != nil {
			return nil, err
		}
		for {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			n, _, err := sock.ReadFrom(buf)
			if errors.Is(err, os.ErrDeadlineExceeded) && ctx.Err() == nil {
				break
			}
			if err != nil {
				return nil, err
			}
			if versions, ok := p.answer(buf[:n]); ok {
				return versions, nil
			}
		}
	}
}

// answer reads a Version Negotiation packet (RFC 9000 §17.2.1) that answers p:
// version 0, our connection IDs swapped, and at least one version.
func (p ping) answer(b []byte) (versions []uint32, ok bool) {
	c := cursor{b: b}
	first, version := c.uint(1), c.uint(4)
	destination, source := c.take(c.uint(1)), c.take(c.uint(1))
	if c.short || first&0x80 == 0 || version != 0 ||
		!bytes.Equal(destination, p.source()) || !bytes.Equal(source, p.destination()) ||
		len(c.b) == 0 || len(c.b)%4 != 0 {
		return nil, false
	}
	for len(c.b) > 0 && len(versions) < maxVersions {
		versions = append(versions, uint32(c.uint(4)))
	}
	return versions, true
}
