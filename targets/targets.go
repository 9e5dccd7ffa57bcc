// Package targets knows whom to ask: the catalogue of messengers, their
// endpoints and the controls beside them, and how an endpoint becomes checks at
// one vantage.
//
// The catalogue is data, one strict YAML file a messenger in catalogue/, built
// into the program. A folder of the same kind of files may be laid over it, so
// that a new messenger, or an address that has moved, needs no Go. What a check's
// name means is the table in kinds.go.
package targets

import (
	"encoding"
	"encoding/hex"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// A Catalogue is every messenger and resolver that could be measured.
type Catalogue struct {
	Messengers []Messenger // sorted by name; control is one of them
	Resolvers  []Resolver  // in the order of their file
	// TestNetwork: a file says that it is for one. Addresses that cannot be on
	// the internet are then answers like others.
	TestNetwork bool
	// Version is a hash of the content and the newest month in which an entry
	// was confirmed: "2026-08-1f3c9a52".
	Version string
}

// A Messenger is what people talk about, or the group named control.
type Messenger struct {
	Name      string // a label value
	Title     string // for people
	Endpoints []Endpoint
}

// An Endpoint is one host, or one group of addresses that stand for each other.
// The zero value of a field means its default.
type Endpoint struct {
	// Name is a label value: [a-z0-9][a-z0-9._-]{0,62}, never an address.
	Name     string `yaml:"name"`
	Function string `yaml:"function"` // of Functions, or for control of Roles
	Tier     string `yaml:"tier"`     // of Tiers

	// Host is looked up and each of its addresses asked; Addresses are asked
	// without any lookup. At least one of the two. ServerName is the name in the
	// ClientHello; default Host.
	Host       string       `yaml:"host"`
	Addresses  []netip.Addr `yaml:"addresses"`
	ServerName string       `yaml:"server_name"`

	// Network names who carries the traffic: endpoints of one network share its
	// outages. Default the file's, else the block of the address or the domain of
	// the name.
	Network string `yaml:"network"`

	Ports    []uint16 `yaml:"ports"`
	Checks   []string `yaml:"checks"`   // rows of the table in kinds.go, or dns
	ALPN     []string `yaml:"alpn"`     // offered by tls; default h2 and http/1.1
	Families []string `yaml:"families"` // ip4, ip6; default both

	// H3 says whether HTTP/3 is known to be spoken: yes, unverified, no. Where
	// it is not yes, quic is measured but counts only from its first answer on.
	H3         string `yaml:"h3"`
	Confidence string `yaml:"confidence"` // of Confidences; low counts only from the first answer on

	Source    []string `yaml:"source"`    // who says so; never empty
	Confirmed Month    `yaml:"confirmed"` // when the newest of them said so

	// Every is how many base intervals lie between two runs: default 1 in tier
	// core, 5 else. Members of one Pool take turns: each runs every half as many
	// intervals as the pool has addresses, so that about two do in each.
	Every int    `yaml:"every"`
	Pool  string `yaml:"pool"`

	// Informational checks are measured, and count only from their first answer
	// at this vantage on.
	Informational bool `yaml:"informational"`

	// Pins are certificates, as the SHA-256 of their DER, that are trusted for
	// this endpoint although the embedded roots do not hold them.
	Pins []Pin  `yaml:"pins"`
	Note string `yaml:"note"` // for people

	// What some checks need to know; kinds.go says which.
	Transports   []string      `yaml:"transports"`   // how messages travel: words of the check's prober
	DC           int           `yaml:"dc"`           // mtproto: the data centre's number
	Media        bool          `yaml:"media"`        // mtproto: it is for files alone
	Test         bool          `yaml:"test"`         // mtproto: it is for developers
	AnyKey       bool          `yaml:"any_key"`      // mtproto: its RSA keys may be others than are known
	Prove        bool          `yaml:"prove"`        // mtproto: now and then it has to show that it holds its key
	Fingerprints []Fingerprint `yaml:"fingerprints"` // mtproto: its RSA keys; default Telegram's
	Path         string        `yaml:"path"`         // of a URL, begins with /
	Method       string        `yaml:"method"`       // http: GET or HEAD; default GET where a body is read
	Plain        bool          `yaml:"plain"`        // http: without TLS
	Expect       Expect        `yaml:"expect"`       // http: the right answer
	Seen         string        `yaml:"seen"`         // http: see probe.HTTP; domestic and foreign controls
	Origin       string        `yaml:"origin"`       // of the page that opens a WebSocket
	Subprotocol  string        `yaml:"subprotocol"`  // of a WebSocket
	Directions   []string      `yaml:"directions"`   // transfer: download, upload; default the first
	Record       string        `yaml:"record"`       // dns: what is asked for, of Records; default addresses
	Realm        string        `yaml:"realm"`        // turn: what the refusal must name

	// Lends, of a control, says that its operator lets it be sent the names of
	// messengers in ClientHellos, so that one sees whether a name alone makes a
	// connection die. Nobody's server that did not agree: none of the embedded.
	Lends bool `yaml:"lends"`

	Of        string `yaml:"of"`        // sibling: the messenger whose path it shares
	Mechanism string `yaml:"mechanism"` // positive control: what it is sensitive to

	at place
}

// Expect is the shape of the right answer of a web server: see probe.Expect.
type Expect struct {
	Status   int               `yaml:"status"`
	Type     string            `yaml:"type"`
	Headers  map[string]string `yaml:"headers"`
	JSON     map[string]string `yaml:"json"`
	Contains []string          `yaml:"contains"`
}

// A Resolver is a DNS server that is asked beside the system's.
type Resolver struct {
	Name      string       `yaml:"name"`  // a label value
	Group     string       `yaml:"group"` // of Groups
	Addresses []netip.Addr `yaml:"addresses"`
	// DoH is an address as in https://dns.example/dns-query, DoT a host name;
	// both are asked at the Addresses. Empty: the resolver speaks no such thing.
	DoH string `yaml:"doh"`
	DoT string `yaml:"dot"`
	// Known is a name that it must know.
	Known string `yaml:"known"`
	// Every is how many base intervals lie between two questions about a name,
	// by transport; 0 is never.
	Every     Transports `yaml:"every"`
	Source    []string   `yaml:"source"`
	Confirmed Month      `yaml:"confirmed"`
	Note      string     `yaml:"note"`

	at place
}

// Transports is one number for each way to carry a DNS query.
type Transports struct {
	UDP int `yaml:"udp"`
	TCP int `yaml:"tcp"`
	DoT int `yaml:"dot"`
	DoH int `yaml:"doh"`
}

// Closed sets, in the order in which people are shown them.
var (
	Functions   = []string{"chat", "calls", "media", "web", "login", "push", "bots"}
	Roles       = []string{"domestic", "foreign", "sibling", "positive"}
	Tiers       = []string{"core", "extended", "optional"}
	Confidences = []string{"high", "medium", "low"}
	Groups      = []string{"national", "domestic", "foreign"}
	h3Words     = []string{"yes", "unverified", "no"}
)

// A Month is a calendar month, written 2026-08.
type Month struct{ time.Time }

func (m *Month) UnmarshalText(b []byte) error {
	t, err := time.Parse("2006-01", string(b))
	if err != nil || t.Year() < 2010 {
		return fmt.Errorf("%q is no month; write 2026-08", b)
	}
	m.Time = t
	return nil
}

func (m Month) MarshalText() ([]byte, error) { return []byte(m.String()), nil }
func (m Month) String() string               { return m.Format("2006-01") }

// A Pin is the SHA-256 of a certificate's DER, written as 64 hex digits, with
// colons or without.
type Pin [32]byte

func (p *Pin) UnmarshalText(b []byte) error {
	h, err := hex.DecodeString(strings.ReplaceAll(string(b), ":", ""))
	if err != nil || len(h) != len(p) {
		return fmt.Errorf("%q is no SHA-256; write 64 hex digits", b)
	}
	copy(p[:], h)
	return nil
}

func (p Pin) MarshalText() ([]byte, error) { return []byte(hex.EncodeToString(p[:])), nil }

// A Fingerprint is that of an RSA key in MTProto, written as 16 hex digits.
type Fingerprint uint64

func (f *Fingerprint) UnmarshalText(b []byte) error {
	n, err := strconv.ParseUint(string(b), 16, 64)
	if err != nil || len(b) != 16 {
		return fmt.Errorf("%q is no fingerprint; write 16 hex digits", b)
	}
	*f = Fingerprint(n)
	return nil
}

func (f Fingerprint) MarshalText() ([]byte, error) { return fmt.Appendf(nil, "%016x", uint64(f)), nil }

var (
	_ encoding.TextUnmarshaler = (*Month)(nil)
	_ encoding.TextUnmarshaler = (*Pin)(nil)
)

// A place is where an entry stands in its file, for messages.
type place struct {
	file  string
	path  string         // endpoints[3]
	line  int            // of the entry
	lines map[string]int // of its keys
}

// errorf is an error at one key of the entry.
func (p place) errorf(key, format string, args ...any) error {
	line := p.line
	if l, ok := p.lines[key]; ok {
		line = l
	}
	return &Error{File: p.file, Line: line, Key: join(p.path, key), Text: fmt.Sprintf(format, args...)}
}

// An Error says what is wrong at one place of a catalogue file, and what would
// be right.
type Error struct {
	File string
	Line int    // from 1; 0 the file as a whole
	Key  string // endpoints[3].ports; empty the file as a whole
	Text string
}

func (e *Error) Error() string {
	s := e.File
	if e.Line > 0 {
		s += ":" + strconv.Itoa(e.Line)
	}
	if e.Key != "" {
		s += ": " + e.Key
	}
	return s + ": " + e.Text
}
