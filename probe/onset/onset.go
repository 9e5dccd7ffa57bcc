package onset

import (
	"errors"
	"fmt"
	"time"
)

// State is what the detector says of a messenger, or of the vantage; a closed
// set.
type State string

const (
	OK         State = "ok"
	Suspect    State = "suspect"    // evidence is being gathered; never a reason to wake anyone
	Blocked    State = "blocked"    // the block story beats every benign one
	Recovering State = "recovering" // answers again, not yet for long enough

	// These two name a benign cause and leave the state of the messenger as it
	// was.
	Outage      State = "outage"
	VantageDown State = "vantage_down"
)

// Vantage is the Messenger of events about the place that is measured from.
const Vantage = "vantage"

// Role says what a stream is measured for; a closed set.
type Role string

const (
	Target    Role = "target"    // an endpoint of the messenger
	Control   Role = "control"   // works whenever the vantage does; nobody blocks it
	Sibling   Role = "sibling"   // a control on the messenger's own path
	Reference Role = "reference" // the same endpoint, seen from another country
)

// The detection families of a stream; a closed set.
const (
	DNS   = "dns"
	Conn  = "conn" // messages and media
	Calls = "calls"
)

// A Stream is one question asked again and again: a check on its schedule.
type Stream struct {
	Messenger string // whose it is; of a control, anything
	Function  string // what a person does with it; may be empty
	Endpoint  string
	Check     string // the protocol: dns, tcp, tls, quic, stun, …
	Family    string // DNS, Conn or Calls
	Path      string // routing group: streams that share it share network fate; empty: its endpoint
	Target    string // tells apart streams that share all the rest; may be empty
	Role      Role
}

func (s Stream) validate() error {
	switch s.Role {
	case Target, Control, Sibling, Reference:
	default:
		return fmt.Errorf("role: %q is not one of target, control, sibling, reference", s.Role)
	}
	switch s.Family {
	case DNS, Conn, Calls:
	default:
		return fmt.Errorf("family: %q is not one of dns, conn, calls", s.Family)
	}
	if s.Messenger == "" && s.Role != Control {
		return errors.New("messenger: empty")
	}
	if s.Messenger == Vantage {
		return errors.New("messenger: the name vantage is taken")
	}
	for _, x := range []string{s.Messenger, s.Function, s.Endpoint, s.Check, s.Path, s.Target} {
		if len(x) > maxName {
			return fmt.Errorf("a name of more than %d bytes", maxName)
		}
	}
	return nil
}

// Bounds on what a caller may configure, so that no catalogue and no trace can
// ask for unbounded memory.
const (
	maxName       = 256
	maxStreams    = 4096
	maxMessengers = 64
	maxGroups     = 64 // routing groups, and endpoints, of one messenger
)

// Config is how the detector is set up. The zero value is the default.
type Config struct {
	// Interval is the usual time between two regular probes of a stream
	// (default 60 s). After five of them without any outcome the evidence
	// gathered so far is dropped.
	Interval time.Duration

	// Timeout is the longest that a probe takes (default 10 s). One that is not
	// finished two seconds later is given up.
	Timeout time.Duration

	// Page is the evidence, in nats, at which a block is declared (default
	// 16): about log(1/(seconds between outcomes × false alarms a second)).
	Page float64

	// Confirmations bounds the extra probes a messenger may be asked for, as
	// a share of its regular ones (default 0.1, at most 1). Negative: none.
	Confirmations float64
}

func (c Config) withDefaults() (Config, error) {
	if c.Interval == 0 {
		c.Interval = time.Minute
	}
	if c.Timeout == 0 {
		c.Timeout = 10 * time.Second
	}
	if c.Page == 0 {
		c.Page = 16
	}
	if c.Confirmations == 0 {
		c.Confirmations = 0.1
	}
	switch {
	case c.Interval < time.Second || c.Interval > 24*time.Hour:
		return c, fmt.Errorf("onset: interval %v is not between 1s and 24h", c.Interval)
	case c.Timeout < 10*time.Millisecond || c.Timeout > 10*time.Minute:
		return c, fmt.Errorf("onset: timeout %v is not between 10ms and 10m", c.Timeout)
	case !(c.Page >= 8 && c.Page <= 100):
		return c, fmt.Errorf("onset: page threshold %v is not between 8 and 100 nats", c.Page)
	case !(c.Confirmations <= 1):
		return c, fmt.Errorf("onset: confirmations %v is more than 1", c.Confirmations)
	}
	return c, nil
}

// The values of Attribution.
const (
	Confirmed   = "confirmed"
	Unconfirmed = "unconfirmed"
)

// An Event is one change of state, or a benign cause by its name.
type Event struct {
	Time      time.Time // when it was said: the last outcome it rests on was known
	Messenger string    // or Vantage
	State     State
	Scope     string    // all, net, conn, tls, dns, calls, function:NAME, endpoint:NAME
	Onset     time.Time // when it began, as far as outcomes tell; zero: not known
	Score     float64   // nats
	Episode   int       // counts the blocks of a messenger, from 1
	Relapse   bool      // an episode already told goes on: no new page
	Widened   bool      // more of the messenger fell
	Initial   bool      // blocked, and nothing in the scope was ever seen to work: an old block, newly met
	Share     float64   // blocked: the share of probes that fail, nearest of 0.25, 0.55, 0.95
	Cause     string    // outage, vantage_down: the benign cause
	Rival     string    // the best benign story, and
	RivalP    float64   // how likely it is

	// Attribution is Confirmed where someone outside the country has seen the
	// messenger work since the onset, else Unconfirmed: its own outage would
	// look the same. Empty unless blocked.
	Attribution string

	// Evidence is the event in a sentence:
	// "8 of 8 connections failed since 12:04:10 UTC while 5 of 5 controls answered".
	Evidence string
}

// Page says whether the event is news worth waking someone for.
func (e *Event) Page() bool { return e.State == Blocked && !e.Relapse }

// A Request asks for one extra probe.
type Request struct {
	Stream    int
	Messenger string    // who wants to know; controls are asked on behalf of a messenger
	NotBefore time.Time // never earlier; later is harmless and only slower
}

// Status is what the detector thinks of one messenger now.
type Status struct {
	Messenger   string
	State       State // OK, Suspect, Blocked or Recovering
	Scope       string
	Since       time.Time // of the state; zero: since the start
	Onset       time.Time // of the block or the suspicion; zero: none, or not known
	Score       float64
	Episode     int // blocks so far
	Flaps       int // relapses in this episode
	Attribution string
	Extra       uint64  // confirmation probes so far
	Tokens      float64 // confirmation probes allowed now
}
