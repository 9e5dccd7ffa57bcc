package probe

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"syscall"
	"time"
)

// TLS asks for a TLS handshake and a certificate that is the name's: a connect
// and a tls_handshake step.
type TLS struct {
	Addr       netip.AddrPort
	ServerName string   // sent as SNI and verified; an IP address is verified only; "" neither
	ALPN       []string // none: the extension is not sent
	Hello      string   // HelloGo (also ""), HelloX25519
	Split      string   // "", SplitRecord, SplitTCP
	Trust      *Trust   // nil: Mozilla's list
}

// At is the same question, asked of addr.
func (q TLS) At(addr netip.AddrPort) Prober { q.Addr = addr; return q }

func (q TLS) Probe(ctx context.Context, n Net) []Step {
	var t trace
	conn, err := t.connect(ctx, n, q.Addr)
	if err != nil {
		return t.steps
	}
	defer conn.Close()
	if c, err := t.handshake(ctx, conn, q); err == nil {
		c.Close()
	}
	return t.steps
}

// handshake takes a fresh connection through one tls_handshake step. The caller
// closes conn, also after an error. A successful connection keeps ctx's
// deadline.
func (t *trace) handshake(ctx context.Context, conn net.Conn, q TLS) (*tls.Conn, error) {
	var c *tls.Conn
	err := t.do(OpTLSHandshake, q.Addr, func(s *Step) error {
		info := &TLSInfo{Hello: q.Hello, ServerName: sni(q.ServerName), Alert: -1, RTT: t.connected(q.Addr)}
		if info.Hello == "" {
			info.Hello = HelloGo
		}
		s.TLS = info
		conf, err := tlsConfig(q.ServerName, q.ALPN, q.Hello, q.Trust, &info.Chain)
		if err != nil {
			return err
		}
		tap := &helloTap{Conn: conn, split: q.Split, name: q.ServerName}
		c = tls.Client(tap, conf)

		// Not HandshakeContext: it closes the connection when ctx ends, and
		// TCP_INFO, which tells the silent failures apart, would be gone.
		stop := guard(ctx, conn)
		err = c.Handshake()
		tap.over = true
		stop()

		s.TCP = tcpInfo(conn)
		cs := c.ConnectionState()
		info.Version, info.ALPN = cs.Version, cs.NegotiatedProtocol
		info.failed(tap, err)
		return cause(ctx, err)
	})
	if err != nil {
		return nil, err
	}
	return c, nil
}

// failed notes how a handshake failed.
func (i *TLSInfo) failed(tap *helloTap, err error) {
	if err == nil {
		return
	}
	i.Alert = firstAlert(tap.first)
	if a, ok := remoteAlert(err); ok {
		i.Alert = int(a)
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		i.FirstBytes = tap.first
	}
	if endedByPeer(err) && !tap.sent.IsZero() && tap.failed.After(tap.sent) {
		i.FailedAfter = tap.failed.Sub(tap.sent)
	}
}

// connected is how long the last connect to addr took, 0 if there was none.
func (t *trace) connected(addr netip.AddrPort) time.Duration {
	for i := len(t.steps) - 1; i >= 0; i-- {
		if s := &t.steps[i]; s.Op == OpConnect && s.Addr == addr && s.Failure == "" {
			return s.Took
		}
	}
	return 0
}

// tlsConfig is a configuration that verifies by trust alone, and leaves the
// facts of the presented chain in chain, also where it is refused.
func tlsConfig(name string, alpn []string, hello string, trust *Trust, chain *[]Certificate) (*tls.Config, error) {
	conf := &tls.Config{
		ServerName: name,
		NextProtos: alpn,
		// Verification is ours alone: crypto/tls would drop the chain of a
		// failed one, and knows no pins.
		InsecureSkipVerify: true,
		VerifyConnection: func(cs tls.ConnectionState) error {
			*chain = chainFacts(cs.PeerCertificates)
			return trust.verify(cs, name)
		},
	}
	return conf, helloConfig(conf, hello)
}

// sni is what is sent of a server name: an IP address is not (RFC 6066 §3).
func sni(name string) string {
	if _, err := netip.ParseAddr(name); err == nil {
		return ""
	}
	return name
}

// remoteAlert is the alert that the peer ended a handshake with (RFC 8446 §6).
// crypto/tls reports it over TCP as a *net.OpError around a type of its own,
// whose text is that of the exported [tls.AlertError].
func remoteAlert(err error) (tls.AlertError, bool) {
	op, ok := errors.AsType[*net.OpError](err)
	if !ok || op.Op != "remote error" {
		return 0, false
	}
	for a := range 256 {
		if tls.AlertError(a).Error() == op.Err.Error() {
			return tls.AlertError(a), true
		}
	}
	return 0, false
}

// endedByPeer says whether a reset or a FIN was the end.
func endedByPeer(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET)
}
