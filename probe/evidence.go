package probe

import (
	"net/netip"
	"time"
)

// DNSInfo is what a resolve step learned.
type DNSInfo struct {
	Resolver  string // the catalogue's name of the resolver; "system" for the host's own
	Transport string // udp, tcp, dot, doh
	Name      string
	Type      uint16 // the query's type, as on the wire: 1 A, 28 AAAA
	// Queries is how many times the query was sent: twice where the first UDP
	// datagram brought no answer in time. 0 where none could be sent.
	Queries int
	// Replies are the datagrams that came within the observation window, in
	// order of arrival, at most 8. More than one that Counts to a single query,
	// and different, is an injection; to two queries it need not be. TCP, DoT
	// and DoH have at most one.
	Replies []DNSReply
	Answers []netip.Addr // addresses that the first reply that Counts gives the name
	Cached  bool         // a shared lookup within this interval answered
}

// DNSReply is one reply to one query.
type DNSReply struct {
	After     time.Duration // since the query was first sent
	From      netip.AddrPort
	TTL       int // IP TTL or hop limit on arrival; 0 unknown
	RCode     int // RFC 6895; -1 where the reply could not be decoded
	WrongID   bool
	Counts    bool         // came from whom we asked, with our id and question: a resolver would take it
	Authority int          // records in the authority section: a forged NXDOMAIN has no SOA
	Addrs     []netip.Addr // all in the answer section whatever their name, at most 32
	CNAMEs    []string     // targets in the answer section, at most 8

	Authoritative, Truncated, RecursionAvailable, AuthenticatedData bool
}

// TCPInfo is the kernel's view of a connection, read before it was closed
// (Linux TCP_INFO, struct tcp_info). It separates the silent ways of blocking:
// mechanisms §4.1.
type TCPInfo struct {
	BytesAcked    uint64 // of ours, SYN and FIN included
	BytesReceived uint64
	SegsIn        uint32
	SegsOut       uint32
	Retransmits   uint32 // total
	Needless      uint32 // of these, so many the peer had already (DSACK, RFC 2883)
	Unacked       uint32 // segments
	RTT           time.Duration
	MinRTT        time.Duration
	SinceData     time.Duration // since data last came in
	SinceAck      time.Duration // since an ack last came in
	PMTU          uint32
}

// TLSInfo is what a TLS handshake learned, also when it failed.
type TLSInfo struct {
	Hello      string // the ClientHello profile that was sent
	ServerName string // as sent; "" none
	Version    uint16 // negotiated, 0 where it did not come so far
	ALPN       string
	Chain      []Certificate // as presented, leaf first, at most 8
	Alert      int           // the alert the peer sent, RFC 8446 §6; -1 none
	// FirstBytes is the first bytes of an answer that is no TLS record, at
	// most 16: a block page says "HTTP/".
	FirstBytes []byte
	// FailedAfter is the time from the ClientHello to the reset or FIN that
	// ended the handshake; 0 where it did not end so. Below half of the
	// connection's round trip it cannot come from the server (mechanisms §4.2).
	FailedAfter time.Duration
	RTT         time.Duration // what connect took
}

// Certificate is the facts of one certificate.
type Certificate struct {
	SHA256              [32]byte
	Subject, Issuer     string   // common names, at most 128 bytes each
	DNSNames            []string // at most 32
	NotBefore, NotAfter time.Time
	SelfSigned          bool
}

// QUICInfo is what a QUIC step learned.
type QUICInfo struct {
	ServerName      string
	Version         uint32   // negotiated or, for a ping, asked; 0 unknown
	Offered         []uint32 // versions of a Version Negotiation packet, RFC 9000 §17.2.1
	ALPN            string
	PacketsReceived int
	BytesReceived   int
	Retry           bool
	Chain           []Certificate
}

// ReplyInfo is what a messenger's own first answer said.
type ReplyInfo struct {
	Transport string        // what carried it, in the words of its prober: abridged, raw, websocket, http, h3, tls, turn, …
	Code      int           // the protocol's own error or status: HTTP status, MTProto -404, STUN 401
	Skew      time.Duration // server clock minus ours, where the answer tells; by HTTP to a second
	HasSkew   bool
	Country   string   // in which the server sees us, ISO 3166-1, where it was asked
	Redirect  string   // host of a redirect to another registrable domain
	Marks     []string // block-page marks that were found
	Proof     string   // what proved the service, or what did not fit; a fixed phrase
}

// BurstInfo is what a burst of datagrams learned.
type BurstInfo struct {
	Sent, Received int
	Jitter         time.Duration // mean difference of neighbours' round trips, RFC 3550 §6.4.1
	RTT            time.Duration // median
}

// TransferInfo is what a bounded transfer learned.
type TransferInfo struct {
	Direction string // download, upload
	Wanted    int64
	Bytes     int64         // received, or acknowledged by the peer
	Written   int64         // upload: handed to the kernel, which may hold some of it
	FirstByte time.Duration // time to the first byte of the answer's body
	Stall     time.Duration // longest time without progress
	StallAt   int64         // what Bytes was when that began
	Goodput   float64       // bytes a second between first and last byte
}
