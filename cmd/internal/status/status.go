// Package status is the agent's answer as data: the JSON of `check --output
// json` and of /api/v1/status.
package status

import (
	"encoding/json"
	"io"
	"math"
	"time"

	"github.com/messenger-probe/messenger-probe/probe"
	"github.com/messenger-probe/messenger-probe/probe/verdict"
)

// Schema names the document's form; it changes only with its meaning.
const Schema = "messenger-probe/status/v1"

// Document is everything the agent says at one moment.
type Document struct {
	Schema   string    `json:"schema"`
	Agent    Agent     `json:"agent"`
	Vantage  Vantage   `json:"vantage"`
	Time     time.Time `json:"time"`
	Verdicts []Verdict `json:"verdicts"`
	Results  []Result  `json:"results"`
}

// Agent is the program that speaks.
type Agent struct {
	Version   string `json:"version"`
	Catalogue string `json:"catalogue"`
}

// Vantage is the place; name, country and network are what the operator wrote.
type Vantage struct {
	Name     string               `json:"name"`
	Country  string               `json:"country"`
	Network  string               `json:"network"`
	State    verdict.VantageState `json:"state"`
	Evidence []string             `json:"evidence"`
	Sees     map[string]bool      `json:"sees,omitempty"`
}

// Verdict is one function of one messenger. Mechanism and confidence are empty
// unless it is degraded, blocked or unreachable; since is not there where it is
// not known.
type Verdict struct {
	Messenger  string             `json:"messenger"`
	Function   string             `json:"function"`
	State      verdict.State      `json:"state"`
	Mechanism  verdict.Mechanism  `json:"mechanism"`
	Confidence verdict.Confidence `json:"confidence"`
	Since      *time.Time         `json:"since,omitempty"`
	Evidence   []string           `json:"evidence"`
}

// Result is the last result of one check. Address is the messenger's own
// address that was asked; that of a resolver is never told.
type Result struct {
	Messenger string        `json:"messenger"`
	Function  string        `json:"function"`
	Endpoint  string        `json:"endpoint"`
	Check     string        `json:"check"`
	Family    string        `json:"family"`
	Address   string        `json:"address,omitempty"`
	Outcome   probe.Outcome `json:"outcome"`
	Reason    probe.Reason  `json:"reason,omitempty"`
	Operation probe.Op      `json:"operation,omitempty"`
	Failure   probe.Failure `json:"failure,omitempty"`
	Duration  float64       `json:"duration_seconds"`
	Time      time.Time     `json:"time"`
	Measured  *Measured     `json:"measured,omitempty"`
}

// Measured is what a check learned beside its outcome. What does not apply is
// not there. It names no host: that of a redirect may be the operator's own.
type Measured struct {
	Proof     string    `json:"proof,omitempty"` // what proved the service, or what did not fit
	Code      int       `json:"code,omitempty"`  // the protocol's own error or status
	Marks     []string  `json:"marks,omitempty"` // of block pages
	Elsewhere bool      `json:"redirected_elsewhere,omitempty"`
	ClockSkew *float64  `json:"clock_skew_seconds,omitempty"` // the server's clock minus ours, whole seconds
	Burst     *Burst    `json:"burst,omitempty"`
	Transfer  *Transfer `json:"transfer,omitempty"`
}

// Burst is what came of packets at the pace of a call.
type Burst struct {
	Sent     int     `json:"sent"`
	Received int     `json:"received"`
	RTT      float64 `json:"rtt_seconds"` // median
	Jitter   float64 `json:"jitter_seconds"`
}

// Transfer is how far a transfer came. Of an upload, bytes are those that the
// peer acknowledged.
type Transfer struct {
	Direction string  `json:"direction"`
	Wanted    int64   `json:"wanted_bytes"`
	Bytes     int64   `json:"bytes"`
	Written   int64   `json:"written_bytes,omitempty"` // of an upload, by us
	FirstByte float64 `json:"first_byte_seconds"`
	Goodput   float64 `json:"goodput_bytes_per_second"`
	Stall     float64 `json:"stall_seconds"` // longest time without progress
	StallAt   int64   `json:"stall_at_byte"`
}

// FromVerdicts is verdicts as data.
func FromVerdicts(vs []verdict.Verdict) []Verdict {
	out := make([]Verdict, len(vs))
	for i, v := range vs {
		out[i] = Verdict{Messenger: v.Messenger, Function: v.Function, State: v.State, Mechanism: v.Mechanism,
			Confidence: v.Confidence, Evidence: v.Evidence}
		if out[i].Evidence == nil {
			out[i].Evidence = []string{}
		}
		if !v.Since.IsZero() {
			since := v.Since.UTC().Truncate(time.Second)
			out[i].Since = &since
		}
	}
	return out
}

// FromResults is results as data.
func FromResults(rs []probe.Result) []Result {
	out := make([]Result, len(rs))
	for i := range rs {
		r := &rs[i]
		o, reason := r.Judge()
		out[i] = Result{Messenger: r.Check.Messenger, Function: r.Check.Function, Endpoint: r.Check.Endpoint,
			Check: r.Check.Protocol, Family: r.Check.Family, Outcome: o, Reason: reason,
			Duration: r.Took.Seconds(), Time: r.Start.UTC().Truncate(time.Second), Measured: measured(r)}
		if a := r.Addr(); a.IsValid() && r.Check.Protocol != probe.ProtoDNS {
			out[i].Address = a.String()
		}
		if f := r.Failed(); f != nil {
			out[i].Operation, out[i].Failure = f.Op, f.Failure
		}
	}
	return out
}

// measured is what the steps of a result learned, nil if nothing.
func measured(r *probe.Result) *Measured {
	var m Measured
	found := false
	for i := range r.Steps {
		s := &r.Steps[i]
		found = found || s.Reply != nil || s.Burst != nil || s.Transfer != nil
		if p := s.Reply; p != nil {
			m.Proof, m.Code, m.Marks, m.Elsewhere = p.Proof, p.Code, p.Marks, p.Redirect != ""
			if p.HasSkew {
				whole := math.Round(p.Skew.Seconds())
				m.ClockSkew = &whole
			}
		}
		if b := s.Burst; b != nil {
			m.Burst = &Burst{b.Sent, b.Received, b.RTT.Seconds(), b.Jitter.Seconds()}
		}
		if t := s.Transfer; t != nil {
			m.Transfer = &Transfer{t.Direction, t.Wanted, t.Bytes, t.Written, t.FirstByte.Seconds(), math.Round(t.Goodput), t.Stall.Seconds(), t.StallAt}
		}
	}
	if !found {
		return nil
	}
	return &m
}

// From takes over what the controls say.
func (v *Vantage) From(j verdict.Vantage) {
	v.State, v.Evidence = j.State, j.Evidence
	if v.Evidence == nil {
		v.Evidence = []string{}
	}
	if len(j.Sees) > 0 {
		v.Sees = map[string]bool{}
		for m, yes := range j.Sees {
			v.Sees[string(m)] = yes
		}
	}
}

// Write writes the document, indented for people.
func (d *Document) Write(w io.Writer) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(d)
}
