package page

import (
	"time"

	"github.com/messenger-probe/messenger-probe/probe"
	"github.com/messenger-probe/messenger-probe/probe/verdict"
)

// A View is everything the page says, as data.
type View struct {
	Time       time.Time // of the judgement
	Version    string
	Catalogue  string
	Vantage    Vantage
	Messengers []Messenger
	Changes    []Change // the newest first
}

// Vantage is the place. What stands before State is what the operator wrote.
type Vantage struct {
	Name, Country, Subdivision, ISP, ASN, Network string

	State    verdict.VantageState
	Unclean  string   // what stands between agent and line; "" nothing is seen
	Evidence []string // in English
	Down     []string // ip6, udp, quic: what fails for everybody here
	Sees     map[verdict.Mechanism]bool
}

// Messenger is one of them, with its functions in their order.
type Messenger struct {
	Name, Title string
	Functions   []Function
	Rivals      map[string]float64 // probability of harmless explanations
}

// Function is a row of the page.
type Function struct {
	Name       string
	State      verdict.State
	Mechanism  verdict.Mechanism
	Confidence verdict.Confidence
	Since      time.Time // zero: not known
	Evidence   []string  // in English
	Day        []Cell    // 24 hours, oldest first
	Week       []Cell    // seven days by hours, oldest first
	Endpoints  []Endpoint
}

// Cell is a span of time.
type Cell struct {
	Start    time.Time
	OK, Fail int
	State    verdict.State // the worst; "" nothing was said
	Median   time.Duration // 0 not known
}

// Endpoint is what its checks found when they were last run.
type Endpoint struct {
	Name     string
	OK, Fail int // those that count
	Failing  []Failing
}

// Failing is a check that failed.
type Failing struct {
	Check, Family, Address string // no address where a resolver was asked
	Operation              probe.Op
	Failure                probe.Failure
}

// Change is a function that came into a state.
type Change struct {
	Time, Onset time.Time // zero Onset: not known
	Messenger   string    // its title
	Function    string
	State, Was  verdict.State
	Mechanism   verdict.Mechanism
	Confidence  verdict.Confidence
	Relapse     bool
	Evidence    []string // in English
}
