package probe

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/quic-go/quic-go"
	"golang.org/x/sys/unix"

	"github.com/messenger-probe/messenger-probe/probe/probetest"
)

// notProduced are the names that nothing on loopback and without privilege can
// cause, each with the reason. TestClassify holds that every other name has a
// real cause, so that no name is a claim alone.
var notProduced = map[Failure]string{
	FailureAndroidDNSCacheNoData:   "only Android's getaddrinfo has it; in the set so that OONI's data can be joined",
	FailureDNSNonRecoverable:       "only Windows' getaddrinfo has it",
	FailureHostUnreachable:         "takes a router's ICMP; the errno is in TestClassifyErrno",
	FailureHTTPInvalidRedirectHost: "no prober follows redirects; in the set so that OONI's data can be joined",
	FailureHTTPUnexpectedRedirect:  "as above",
	FailureNetworkDown:             "takes an interface that is down; the errno is in TestClassifyErrno",
	FailureNetworkReset:            "Linux has it for no TCP or UDP socket; the errno is in TestClassifyErrno",
}

// produced is how each of the other names comes about: real sockets, real
// handshakes, real system calls.
var produced = []struct {
	want Failure
	how  string
	err  func(t *testing.T) error
}{
	{FailureAddressFamilyNotSupported, "a socket of no family", func(t *testing.T) error {
		_, err := unix.Socket(250, unix.SOCK_STREAM, 0)
		return err
	}},
	{FailureAddressInUse, "two listeners at a port", func(t *testing.T) error {
		addr := probetest.ServeTCP(t, probetest.Stall)
		_, err := net.Listen("tcp", addr.String())
		return err
	}},
	{FailureAddressNotAvailable, "an address of somebody else", func(t *testing.T) error {
		_, err := (&Host{}).ListenPacket(t.Context(), "udp4", "192.0.2.1:0")
		return err
	}},
	{FailureAlreadyConnected, "connect twice", func(t *testing.T) error {
		fd := socket(t, unix.SOCK_STREAM)
		to := sockaddr(probetest.ServeTCP(t, probetest.Stall))
		if err := unix.Connect(fd, to); err != nil {
			t.Fatal(err)
		}
		return unix.Connect(fd, to)
	}},
	{FailureBadAddress, "write from nowhere", func(t *testing.T) error {
		_, _, err := unix.Syscall(unix.SYS_WRITE, uintptr(socketpair(t)), 1, 1)
		return err
	}},
	{FailureBadFileDescriptor, "ask no descriptor", func(t *testing.T) error {
		_, err := unix.GetsockoptInt(-1, unix.SOL_SOCKET, unix.SO_ERROR)
		return err
	}},
	{FailureConnectionAborted, "go on with a connect whose failure somebody else has read", func(t *testing.T) error {
		fd := socket(t, unix.SOCK_STREAM|unix.SOCK_NONBLOCK)
		to := sockaddr(probetest.Refused(t))
		if err := unix.Connect(fd, to); err != unix.EINPROGRESS {
			t.Fatal(err)
		}
		unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, 1000)
		if e, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR); err != nil || e != int(unix.ECONNREFUSED) {
			t.Fatal(e, err)
		}
		return unix.Connect(fd, to)
	}},
	{FailureConnectionAlreadyClosed, "read after closing", func(t *testing.T) error {
		c := dial(t, probetest.ServeTCP(t, probetest.Stall))
		c.Close()
		_, err := c.Read(make([]byte, 1))
		return err
	}},
	{FailureConnectionAlreadyInProgess, "connect while connecting", func(t *testing.T) error {
		fd := socket(t, unix.SOCK_STREAM|unix.SOCK_NONBLOCK)
		to := sockaddr(listenFull(t))
		if err := unix.Connect(fd, to); err != unix.EINPROGRESS {
			t.Fatal(err)
		}
		return unix.Connect(fd, to)
	}},
	{FailureConnectionRefused, "connect to a closed port", func(t *testing.T) error {
		return failed(t, TCP{Addr: probetest.Refused(t)})
	}},
	{FailureConnectionRefused, "QUIC with a closed port", func(t *testing.T) error {
		return failed(t, QUIC{Addr: probetest.RefusedUDP(t)})
	}},
	{FailureConnectionRefused, "QUIC CONNECTION_REFUSED", func(t *testing.T) error {
		no := func(context.Context, *quic.ClientInfo) (context.Context, error) { return nil, errors.New("no") }
		return failed(t, QUIC{Addr: probetest.ServeQUIC(t, testTLS(t), &quic.Transport{ConnContext: no}, nil, nil)})
	}},
	{FailureConnectionReset, "RST after the ClientHello", func(t *testing.T) error {
		return failed(t, TLS{Addr: probetest.ServeTCP(t, probetest.Reset)})
	}},
	{FailureConnectionReset, "write after a RST that was read", func(t *testing.T) error {
		c := dial(t, probetest.ServeTCP(t, probetest.Reset))
		c.Write([]byte("x"))
		c.Read(make([]byte, 1))
		_, err := c.Write([]byte("x"))
		if !errors.Is(err, syscall.EPIPE) {
			t.Fatal(err)
		}
		return err
	}},
	{FailureConnectionReset, "QUIC stateless reset", statelessReset},
	{FailureDestinationAddressRequired, "send to nobody", func(t *testing.T) error {
		return unix.Send(socket(t, unix.SOCK_DGRAM), []byte("x"), 0)
	}},
	{FailureDNSBogon, "a resolver's answer", ourLookup(probetest.DNSAnswer("10.0.0.1"), 10*time.Second)},
	{FailureDNSNoAnswer, "a resolver's answer", ourLookup(probetest.DNSEmpty(), 10*time.Second)},
	{FailureDNSNXDOMAIN, "a resolver's answer", ourLookup(probetest.DNSCode(dns.RcodeNameError), 10*time.Second)},
	{FailureDNSRefused, "a resolver's answer", ourLookup(probetest.DNSCode(dns.RcodeRefused), 10*time.Second)},
	{FailureDNSServfail, "a resolver's answer", ourLookup(probetest.DNSCode(dns.RcodeServerFailure), 10*time.Second)},
	{FailureDNSServerMisbehaving, "a resolver's answer", ourLookup(probetest.DNSCode(dns.RcodeNotImplemented), 10*time.Second)},
	{FailureDNSWrongQueryID, "a resolver's answer", ourLookup(probetest.DNSMessage(func(m *dns.Msg) { m.Id++ }), soon)},
	{FailureDNSNXDOMAIN, "the system's resolver", systemLookup(probetest.DNSCode(dns.RcodeNameError))},
	{FailureDNSServerMisbehaving, "the system's resolver", systemLookup(probetest.DNSCode(dns.RcodeServerFailure))},
	{FailureDNSTemporary, "the system's resolver, which is not there", func(t *testing.T) error {
		return goLookup(t, probetest.Refused(t), 10*time.Second)
	}},
	{FailureEOF, "FIN after the ClientHello", func(t *testing.T) error {
		return failed(t, TLS{Addr: probetest.ServeTCP(t, probetest.FIN)})
	}},
	{FailureEOF, "FIN within a record", func(t *testing.T) error {
		return failed(t, TLS{Addr: probetest.ServeTCP(t, probetest.Answer([]byte{22, 3, 3}))})
	}},
	{FailureTimeout, "no answer to a SYN", func(t *testing.T) error {
		return unheard(t, TCP{Addr: listenFull(t)})
	}},
	{FailureTimeout, "no answer to a ClientHello", func(t *testing.T) error {
		return unheard(t, TLS{Addr: probetest.ServeTCP(t, probetest.Stall)})
	}},
	{FailureTimeout, "no answer to an Initial, our time up", func(t *testing.T) error {
		return unheard(t, QUIC{Addr: probetest.MuteUDP(t)})
	}},
	{FailureTimeout, "no answer to an Initial, quic-go's time up", func(t *testing.T) error {
		conn, err := quic.DialAddr(t.Context(), probetest.MuteUDP(t).String(), &tls.Config{NextProtos: []string{"h3"}},
			&quic.Config{HandshakeIdleTimeout: soon})
		if err == nil {
			conn.CloseWithError(0, "")
		}
		if _, ok := errors.AsType[*quic.IdleTimeoutError](err); !ok {
			t.Fatal(err)
		}
		return err
	}},
	{FailureTimeout, "no answer of the system's resolver", func(t *testing.T) error {
		return goLookup(t, probetest.ServeTCP(t, probetest.Stall), soon)
	}},
	{FailureHTTPRequestFailed, "101 with another accept key", webSocket("101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: AA==")},
	{FailureHTTPUnexpectedStatus, "no 101", webSocket("403 Forbidden\r\nContent-Length: 0")},
	{FailureInterrupted, "a cancelled handshake", func(t *testing.T) error {
		ctx, cancel := context.WithCancel(t.Context())
		addr := probetest.ServeTCP(t, func(c net.Conn) { cancel(); probetest.Stall(c) })
		return lastErr(TLS{Addr: addr}.Probe(ctx, &Host{}))
	}},
	{FailureInterrupted, "a cancelled connect", func(t *testing.T) error {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		return lastErr(TCP{Addr: listenFull(t)}.Probe(ctx, &Host{}))
	}},
	{FailureInvalidArgument, "bind twice", func(t *testing.T) error {
		fd := socket(t, unix.SOCK_STREAM)
		here := &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}
		if err := unix.Bind(fd, here); err != nil {
			t.Fatal(err)
		}
		return unix.Bind(fd, here)
	}},
	{FailureJSONParse, "a OneMe frame that is no JSON", func(t *testing.T) error {
		s := probetest.OneMe{Change: func(a []byte) [][]byte { return [][]byte{a[:len(a)-1]} }}
		return lastErr(askOneMe(t, s, OneMeJSON, 5*time.Second))
	}},
	{FailureMessageSize, "a datagram too long", func(t *testing.T) error {
		sock, err := listenUDP(t.Context(), &Host{}, probetest.MuteUDP(t))
		if err != nil {
			t.Fatal(err)
		}
		defer sock.Close()
		_, err = sock.WriteTo(make([]byte, 70000), net.UDPAddrFromAddrPort(sock.peer))
		return err
	}},
	{FailureNetworkUnreachable, "a connection to a multicast group", func(t *testing.T) error {
		return failed(t, TCP{Addr: netip.MustParseAddrPort("224.0.0.1:9")})
	}},
	{FailureNoBufferSpace, "more multicast groups than a socket may have", func(t *testing.T) error {
		fd := socket(t, unix.SOCK_DGRAM)
		for i := range 10000 {
			err := unix.SetsockoptIPMreq(fd, unix.IPPROTO_IP, unix.IP_ADD_MEMBERSHIP, &unix.IPMreq{
				Multiaddr: [4]byte{239, 1, byte(i >> 8), byte(i)}, Interface: [4]byte{127, 0, 0, 1}})
			if err != nil {
				return err
			}
		}
		return nil
	}},
	{FailureNoBufferSpace, "no descriptor left", func(t *testing.T) error {
		to := probetest.Refused(t)
		var old unix.Rlimit
		if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
			t.Fatal(err)
		}
		defer unix.Setrlimit(unix.RLIMIT_NOFILE, &old)
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 0, Max: old.Max}); err != nil {
			t.Fatal(err)
		}
		return failed(t, TCP{Addr: to})
	}},
	{FailureNoProtocolOption, "ask for no option", func(t *testing.T) error {
		_, err := unix.GetsockoptInt(socket(t, unix.SOCK_STREAM), unix.SOL_SOCKET, 9999)
		return err
	}},
	{FailureNotASocket, "ask a pipe for TCP_INFO", func(t *testing.T) error {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		defer w.Close()
		_, err = unix.GetsockoptTCPInfo(int(r.Fd()), unix.IPPROTO_TCP, unix.TCP_INFO)
		return err
	}},
	{FailureNotConnected, "shut down what is not connected", func(t *testing.T) error {
		return unix.Shutdown(socket(t, unix.SOCK_STREAM), unix.SHUT_WR)
	}},
	{FailureOperationWouldBlock, "read where nothing is", func(t *testing.T) error {
		_, err := unix.Read(socketpair(t), make([]byte, 1))
		return err
	}},
	{FailurePermissionDenied, "broadcast without leave", func(t *testing.T) error {
		fd := socket(t, unix.SOCK_DGRAM)
		return unix.Connect(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 255, 255, 255}, Port: 9})
	}},
	{FailureProtocolNotSupported, "TCP's kind of socket with UDP's protocol", func(t *testing.T) error {
		_, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_UDP)
		return err
	}},
	{FailureQUICIncompatibleVersion, "a server of QUIC version 2", func(t *testing.T) error {
		return failed(t, QUIC{Addr: probetest.ServeQUIC(t, testTLS(t), nil, &quic.Config{Versions: []quic.Version{quic.Version2}}, nil)})
	}},
	{FailureSSLFailedHandshake, "no key share in common, QUIC", func(t *testing.T) error {
		conf := testTLS(t)
		conf.CurvePreferences = []tls.CurveID{tls.CurveP384}
		return failed(t, QUIC{Addr: probetest.ServeQUIC(t, conf, nil, nil, nil), Hello: HelloX25519})
	}},
	{FailureSSLInvalidCertificate, "expired", func(t *testing.T) error {
		ca := probetest.NewCA(t, "test root")
		conf := &tls.Config{Certificates: []tls.Certificate{ca.Issue(t, probetest.Expired, "chat.example")}}
		return failed(t, TLS{Addr: probetest.ServeTLS(t, conf, nil), ServerName: "chat.example", Trust: newTrust(t, ca)})
	}},
	{FailureSSLInvalidHostname, "another name", func(t *testing.T) error {
		ca := probetest.NewCA(t, "test root")
		conf := &tls.Config{Certificates: []tls.Certificate{ca.Issue(t, nil, "other.example")}}
		return failed(t, TLS{Addr: probetest.ServeTLS(t, conf, nil), ServerName: "chat.example", Trust: newTrust(t, ca)})
	}},
	{FailureSSLInvalidHostname, "alert unrecognized_name", func(t *testing.T) error {
		return failed(t, TLS{Addr: probetest.ServeTCP(t, probetest.Alert(112))})
	}},
	{FailureSSLUnknownAuthority, "self-signed", func(t *testing.T) error {
		conf := &tls.Config{Certificates: []tls.Certificate{probetest.SelfSigned(t, "chat.example")}}
		return failed(t, TLS{Addr: probetest.ServeTLS(t, conf, nil), ServerName: "chat.example"})
	}},
	{FailureSSLUnknownAuthority, "self-signed, QUIC", func(t *testing.T) error {
		return failed(t, QUIC{Addr: probetest.ServeQUIC(t, testTLS(t), nil, nil, nil), ServerName: "chat.example"})
	}},
	{FailureTimedOut, "a peer that takes no more data", func(t *testing.T) error {
		c := dial(t, probetest.ServeTCP(t, func(c net.Conn) {
			c.(*net.TCPConn).SetReadBuffer(4096)
			<-t.Context().Done()
		})).(*net.TCPConn)
		defer c.Close()
		raw, err := c.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		raw.Control(func(fd uintptr) {
			err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 100)
		})
		c.SetDeadline(time.Now().Add(10 * time.Second))
		for b := make([]byte, 64<<10); err == nil; {
			_, err = c.Write(b)
		}
		return err
	}},
	{FailureUnknown, "a block page instead of TLS", func(t *testing.T) error {
		return failed(t, TLS{Addr: probetest.ServeTCP(t, probetest.BlockPage)})
	}},
	{FailureUnknown, "alert handshake_failure over TCP", func(t *testing.T) error {
		return failed(t, TLS{Addr: probetest.ServeTCP(t, probetest.Alert(40))})
	}},
	{FailureUnknown, "QUIC closed by the server's application", func(t *testing.T) error {
		ca := probetest.NewCA(t, "test root")
		conf := &tls.Config{Certificates: []tls.Certificate{ca.Issue(t, nil, "web.example")}, NextProtos: []string{"h3"}}
		addr := probetest.ServeQUIC(t, conf, nil, nil, func(c *quic.Conn) { c.CloseWithError(0x102, "") })
		var tr trace
		conn, end, err := tr.quic(t.Context(), &Host{}, QUIC{Addr: addr, ServerName: "web.example", Trust: newTrust(t, ca)})
		if err != nil {
			t.Fatal(err)
		}
		defer end()
		_, err = conn.AcceptStream(t.Context())
		return err
	}},
	{FailureWrongProtocolType, "a datagram socket to a stream's path", func(t *testing.T) error {
		path := filepath.Join(t.TempDir(), "s")
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		_, err = net.Dial("unixgram", path)
		return err
	}},
}

func TestClassify(t *testing.T) {
	made := make(map[Failure]bool)
	for _, p := range produced {
		made[p.want] = true
		t.Run(string(p.want)+"/"+p.how, func(t *testing.T) {
			err := p.err(t)
			if got := Classify(err); got != p.want {
				t.Errorf("%v is %q", err, got)
			}
			if got := Classify(fmt.Errorf("around it: %w", err)); got != p.want {
				t.Errorf("wrapped it is %q", got)
			}
		})
	}
	for _, f := range Failures() {
		if reason := notProduced[f]; made[f] == (reason != "") {
			t.Errorf("%s: caused above: %v, reason why not: %q", f, made[f], reason)
		}
	}
	for f := range notProduced {
		if !slices.Contains(Failures(), f) {
			t.Errorf("%s is no Failure", f)
		}
	}
	if got := Classify(nil); got != "" {
		t.Errorf("no error is %q", got)
	}
}

// What the kernel says that loopback never hears, and where the system call
// that it came in makes a difference.
func TestClassifyErrno(t *testing.T) {
	in := func(call string, e syscall.Errno) error {
		return &net.OpError{Op: "dial", Err: os.NewSyscallError(call, e)}
	}
	for _, test := range []struct {
		err  error
		want Failure
	}{
		{in("connect", syscall.EHOSTUNREACH), FailureHostUnreachable},
		{in("connect", syscall.EHOSTDOWN), FailureHostUnreachable},
		{in("connect", syscall.ENETDOWN), FailureNetworkDown},
		{in("read", syscall.ENETRESET), FailureNetworkReset},
		{in("read", syscall.ETIMEDOUT), FailureTimedOut},
		{in("read", syscall.EINTR), FailureInterrupted},
		// ICMPv6 "administratively prohibited", and our own machine's no.
		{in("connect", syscall.EACCES), FailureHostUnreachable},
		{in("recvfrom", syscall.EACCES), FailureHostUnreachable},
		{in("bind", syscall.EACCES), FailurePermissionDenied},
		{in("socket", syscall.EACCES), FailurePermissionDenied},
		{in("sendto", syscall.EPERM), FailurePermissionDenied},
		{in("socket", syscall.ENOMEM), FailureNoBufferSpace},
		{in("socket", syscall.ENFILE), FailureNoBufferSpace},
		{in("connect", syscall.EXDEV), FailureUnknown},
		{&net.DNSError{Err: "broken"}, FailureDNSNonRecoverable},
	} {
		if got := Classify(test.err); got != test.want {
			t.Errorf("%v is %q, want %q", test.err, got, test.want)
		}
	}
}

// Each alert over QUIC is what OONI makes of it; over TCP only one has a name.
func TestClassifyAlert(t *testing.T) {
	over := map[uint8]Failure{
		40: FailureSSLFailedHandshake, 51: FailureSSLFailedHandshake,
		42: FailureSSLInvalidCertificate, 43: FailureSSLInvalidCertificate, 44: FailureSSLInvalidCertificate,
		45: FailureSSLInvalidCertificate, 46: FailureSSLInvalidCertificate,
		48: FailureSSLUnknownAuthority, 112: FailureSSLInvalidHostname,
	}
	for a := range 256 {
		err := error(&quic.TransportError{Remote: true, ErrorCode: 0x100 + quic.TransportErrorCode(a)})
		if got, want := Classify(err), cmp.Or(over[uint8(a)], FailureUnknown); got != want {
			t.Errorf("QUIC alert %d is %q, want %q", a, got, want)
		}
		err = &net.OpError{Op: "remote error", Err: tls.AlertError(a)}
		if got, ok := remoteAlert(err); !ok || got != tls.AlertError(a) {
			t.Errorf("alert %d reads as %d", a, got)
		}
		want := FailureUnknown
		if a == 112 {
			want = FailureSSLInvalidHostname
		}
		if got := Classify(err); got != want {
			t.Errorf("alert %d is %q, want %q", a, got, want)
		}
	}
	for code := range quic.TransportErrorCode(0x11) {
		want := FailureUnknown
		if code == quic.ConnectionRefused {
			want = FailureConnectionRefused
		}
		if got := Classify(&quic.TransportError{Remote: true, ErrorCode: code}); got != want {
			t.Errorf("QUIC code %#x is %q, want %q", code, got, want)
		}
	}
	if got := Classify(&quic.HandshakeTimeoutError{}); got != FailureTimeout {
		t.Errorf("a handshake without end is %q", got)
	}
}

func socket(t *testing.T, kind int) int {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

func socketpair(t *testing.T) int {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fds[0]); unix.Close(fds[1]) })
	return fds[0]
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	return &unix.SockaddrInet4{Addr: a.Addr().As4(), Port: int(a.Port())}
}

func dial(t *testing.T, a netip.AddrPort) net.Conn {
	t.Helper()
	c, err := net.DialTimeout("tcp", a.String(), 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// failed is the error of a prober's last step, unheard that of one who is not
// answered.
func failed(t *testing.T, p Prober) error {
	t.Helper()
	return lastErr(run(t, p, 10*time.Second))
}

func unheard(t *testing.T, p Prober) error {
	t.Helper()
	return lastErr(run(t, p, soon))
}

func lastErr(steps []Step) error { return steps[len(steps)-1].Err }

func testTLS(t *testing.T) *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{probetest.SelfSigned(t, "chat.example")}, NextProtos: []string{"h3"}}
}

// ourLookup is what our own prober says of a resolver that sends this.
func ourLookup(reply probetest.DNSReply, timeout time.Duration) func(*testing.T) error {
	return func(t *testing.T) error {
		srv := probetest.NewDNS(t, nil)
		srv.On("chat.example", reply)
		return lastErr(run(t, DNS{Server: Server{Transport: OverUDP, Addr: srv.Addr}, Host: "chat.example", Type: dns.TypeA}, timeout))
	}
}

// systemLookup is what Go's resolver says of a server that sends this.
func systemLookup(reply probetest.DNSReply) func(*testing.T) error {
	return func(t *testing.T) error {
		srv := probetest.NewDNS(t, nil)
		srv.On("chat.example", reply)
		return goLookup(t, srv.Addr, 10*time.Second)
	}
}

func goLookup(t *testing.T, server netip.AddrPort, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	r := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&Host{}).DialContext(ctx, "tcp", server.String())
	}}
	_, err := r.LookupNetIP(ctx, "ip4", "chat.example.")
	return err
}

// webSocket is what the WebSocket prober says of an answer with this head.
func webSocket(head string) func(*testing.T) error {
	return func(t *testing.T) error {
		ca := probetest.NewCA(t, "test root")
		conf := &tls.Config{Certificates: []tls.Certificate{ca.Issue(t, nil, "chat.example")}}
		addr := probetest.ServeTLS(t, conf, func(c *tls.Conn) {
			c.Read(make([]byte, 4096))
			io.WriteString(c, "HTTP/1.1 "+head+"\r\n\r\n")
			io.Copy(io.Discard, c)
		})
		return failed(t, WebSocket{Addr: addr, ServerName: "chat.example", Path: "/", Trust: newTrust(t, ca)})
	}
}

// statelessReset is what a connection ends with whose server has forgotten it.
func statelessReset(t *testing.T) error {
	ca := probetest.NewCA(t, "test root")
	conf := &tls.Config{Certificates: []tls.Certificate{ca.Issue(t, nil, "web.example")}, NextProtos: []string{"h3"}}
	key := quic.StatelessResetKey{1}
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := pc.LocalAddr().(*net.UDPAddr).AddrPort()
	first := &quic.Transport{Conn: pc, StatelessResetKey: &key}
	listener, err := first.Listen(conf, nil)
	if err != nil {
		t.Fatal(err)
	}
	var tr trace
	conn, end, err := tr.quic(t.Context(), &Host{}, QUIC{Addr: addr, ServerName: "web.example", Trust: newTrust(t, ca)})
	if err != nil {
		t.Fatal(err)
	}
	defer end()
	if _, err := listener.Accept(t.Context()); err != nil { // or it would be refused
		t.Fatal(err)
	}
	first.Close()
	pc.Close()
	if pc, err = net.ListenPacket("udp", addr.String()); err != nil {
		t.Fatal(err)
	}
	probetest.ServeQUIC(t, conf, &quic.Transport{Conn: pc, StatelessResetKey: &key}, nil, nil)
	stream, err := conn.OpenUniStream()
	if err != nil {
		return err
	}
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if _, err := stream.Write(make([]byte, 100)); err != nil {
			if _, ok := errors.AsType[*quic.StatelessResetError](err); !ok {
				t.Error(err)
			}
			return err
		}
	}
	return nil
}
