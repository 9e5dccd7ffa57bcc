package probe

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"time"
)

// A Prober carries out one check, once. Being blocked is a finding, not an
// error of the program, so Probe returns no error: every failure is in a Step.
// It returns soon after ctx is done and closes what it opened. A Prober is a
// value that is never changed by its own run, so one may run many times and
// beside itself.
type Prober interface {
	Probe(ctx context.Context, n Net) []Step
}

// An Addressed prober asks one address, and can be asked of another instead.
// It is what [ByName] needs to ask each address of a name.
type Addressed interface {
	Prober
	// At is the same question, asked of addr.
	At(addr netip.AddrPort) Prober
}

// Net is the network as probers see it: the host's own ([Host]), or a test's.
type Net interface {
	DialContext(ctx context.Context, network, address string) (net.Conn, error)
	ListenPacket(ctx context.Context, network, address string) (net.PacketConn, error)
}

// Host is the operating system's network. The zero value works.
type Host struct {
	Dialer net.Dialer
	Listen net.ListenConfig
}

// DialContext opens a connection.
func (h *Host) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	return h.Dialer.DialContext(ctx, network, address)
}

// ListenPacket opens an unconnected socket.
func (h *Host) ListenPacket(ctx context.Context, network, address string) (net.PacketConn, error) {
	return h.Listen.ListenPacket(ctx, network, address)
}

// Op names a network operation; a closed set (CONTRACT §5).
type Op string

const (
	OpResolve       Op = "resolve"
	OpConnect       Op = "connect"
	OpTLSHandshake  Op = "tls_handshake"
	OpQUICHandshake Op = "quic_handshake"
	OpRequest       Op = "request"
	OpReply         Op = "reply"
	OpTransfer      Op = "transfer"
)

// Ops is every Op, in the order in which they happen.
var Ops = [...]Op{OpResolve, OpConnect, OpTLSHandshake, OpQUICHandshake, OpRequest, OpReply, OpTransfer}

// A Step is one network operation. It fails at most once.
type Step struct {
	Op      Op
	Addr    netip.AddrPort // who was asked; zero where nobody could be
	Start   time.Time
	Took    time.Duration
	Failure Failure // "" means it worked
	Err     error   // behind Failure, for a person at a debugger; never exported

	// What was learned, by kind; nil where a step learns no such thing.
	DNS      *DNSInfo
	TCP      *TCPInfo
	TLS      *TLSInfo
	QUIC     *QUICInfo
	Reply    *ReplyInfo
	Burst    *BurstInfo
	Transfer *TransferInfo
}

// The protocols a check may speak; a closed set (CONTRACT §5), the label check.
const (
	ProtoDNS       = "dns"
	ProtoTCP       = "tcp"
	ProtoTLS       = "tls"
	ProtoQUIC      = "quic"
	ProtoHTTP      = "http"
	ProtoWebSocket = "websocket"
	ProtoMTProto   = "mtproto"
	ProtoNoise     = "noise"
	ProtoOneMe     = "oneme"
	ProtoSTUN      = "stun"
	ProtoTransfer  = "transfer"
)

// Protocols is all of them, in the order of the README.
var Protocols = [...]string{ProtoDNS, ProtoTCP, ProtoTLS, ProtoQUIC, ProtoHTTP, ProtoWebSocket, ProtoMTProto, ProtoNoise, ProtoOneMe,
	ProtoSTUN, ProtoTransfer}

// The address families, the label family.
const (
	IP4 = "ip4"
	IP6 = "ip6"
)

// Control is the messenger name of the endpoints that calibrate the vantage,
// and Domestic… are its functions: the roles of controls.
const (
	Control  = "control"
	Domestic = "domestic" // neutral, in the vantage's country
	Foreign  = "foreign"  // neutral, abroad
	Sibling  = "sibling"  // unblocked, on the path of a messenger (Check.Of)
	Positive = "positive" // known to be filtered
)

// A Check is a Prober with a name and a schedule. The five name fields come
// from closed sets and are the labels of its metrics; Target tells apart the
// checks that share them (an address, a port, a ClientHello) and is no label.
type Check struct {
	Messenger string
	Function  string
	Endpoint  string
	Protocol  string
	Family    string
	Target    string

	Interval time.Duration // time between starts, before jitter
	Timeout  time.Duration // deadline of one run

	// Bytes is about what one run moves, both ways, where that is much: the
	// schedule has a budget of it. 0: it is little.
	Bytes int64

	// Gate names what must not be asked by more than two at once: the host and
	// the server name. Empty: no such limit.
	Gate string

	// Informational checks are measured but not counted until they have
	// answered once at this vantage ([Proven]).
	Informational bool

	// Private: the certificate is of an authority of which only the hash is known.
	// A pin can only match a certificate that the server presents, and not all
	// present their authority's, so a refused chain counts for nothing until one
	// was accepted here.
	Private bool

	Lends     bool   // control: may be asked under a messenger's name
	Of        string // sibling: the messenger whose path this control shares
	Mechanism string // positive control: the mechanism it is sensitive to
	Path      string // routing group: checks that share network fate

	Prober Prober
}

// ID identifies a check among all checks.
func (c Check) ID() string {
	return strings.Join([]string{c.Messenger, c.Function, c.Endpoint, c.Protocol, c.Family, c.Target}, "/")
}

// Outcome says whether a result counts, and for what.
type Outcome string

const (
	OK   Outcome = "ok"
	Fail Outcome = "fail"
	Void Outcome = "void" // says nothing about the messenger
)

// Reason says why an outcome is void; a closed set, the label reason.
type Reason string

const (
	ReasonInformational Reason = "informational" // has not answered here yet
	ReasonLocal         Reason = "local"         // this machine's own fault
	ReasonCancelled     Reason = "cancelled"     // the agent stopped
	ReasonNoAddress     Reason = "no_address"    // the name has no address of this family
	ReasonOffline       Reason = "offline"       // vantage states
	ReasonWhitelist     Reason = "whitelist"
	ReasonImpaired      Reason = "impaired"
	ReasonResolver      Reason = "resolver" // a resolver other than the system's gave no answer at all
	ReasonPanic         Reason = "panic"    // a defect of the prober
)

// Reasons is every Reason.
var Reasons = [...]Reason{ReasonInformational, ReasonLocal, ReasonCancelled, ReasonNoAddress,
	ReasonOffline, ReasonWhitelist, ReasonImpaired, ReasonResolver, ReasonPanic}

// A Result is what one run of a Check found.
type Result struct {
	Check Check
	Start time.Time
	Took  time.Duration
	Steps []Step

	// Void, where not empty, is why the result does not count although its
	// steps would say ok or fail.
	Void Reason

	Sent, Received int64 // payload bytes through the sockets of this run
}

// Failed is the first failing step, nil if none.
func (r *Result) Failed() *Step {
	for i := range r.Steps {
		if r.Steps[i].Failure != "" {
			return &r.Steps[i]
		}
	}
	return nil
}

// Outcome is what the result says of the messenger.
func (r *Result) Outcome() Outcome {
	o, _ := r.Judge()
	return o
}

// Judge is the outcome and, where it is void, the reason.
func (r *Result) Judge() (Outcome, Reason) {
	if r.Void != "" {
		return Void, r.Void
	}
	if len(r.Steps) == 0 {
		return Void, ReasonCancelled
	}
	f := r.Failed()
	switch {
	case f == nil:
		return OK, ""
	case f.Failure == FailureInterrupted:
		return Void, ReasonCancelled
	case f.Failure.Local():
		return Void, ReasonLocal
	// A name without IPv6 addresses is not a broken name: many have none, and
	// the catalogue cannot know which have them today.
	case f.Failure == FailureDNSNoAnswer && r.Check.Family == IP6:
		return Void, ReasonNoAddress
	}
	return Fail, ""
}

// Addr is the address that was asked: that of the failing step, else of the
// last step that had one.
func (r *Result) Addr() netip.AddrPort {
	if f := r.Failed(); f != nil && f.Op != OpResolve {
		return f.Addr
	}
	for i := len(r.Steps) - 1; i >= 0; i-- {
		if s := &r.Steps[i]; s.Addr.IsValid() && (s.Op != OpResolve || r.Check.Protocol == ProtoDNS) {
			return s.Addr
		}
	}
	return netip.AddrPort{}
}
