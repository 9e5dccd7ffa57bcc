package comparator

import (
	"encoding/json"
	"slices"
	"time"

	"github.com/messenger-probe/messenger-probe/probe"
	"github.com/messenger-probe/messenger-probe/probe/verdict"
)

// schema is the form of document that is understood.
const schema = "messenger-probe/status/v1"

// Bounds on what is believed of a document, far above what an agent says.
const (
	maxRows = 4096
	maxName = 256 // bytes
)

// document is what is read of an agent's status. It may say more.
type document struct {
	Schema  string `json:"schema"`
	Vantage struct {
		State verdict.VantageState `json:"state"`
	} `json:"vantage"`
	Time     time.Time `json:"time"`
	Verdicts []struct {
		Messenger string            `json:"messenger"`
		Function  string            `json:"function"`
		State     verdict.State     `json:"state"`
		Mechanism verdict.Mechanism `json:"mechanism"`
	} `json:"verdicts"`
	Results []struct {
		Messenger string        `json:"messenger"`
		Function  string        `json:"function"`
		Endpoint  string        `json:"endpoint"`
		Check     string        `json:"check"`
		Family    string        `json:"family"`
		Outcome   probe.Outcome `json:"outcome"`
		Time      time.Time     `json:"time"`
	} `json:"results"`
}

// read reads a document; one that is not wholly of the known form is refused.
func read(body []byte) (*document, error) {
	var d document
	if err := json.Unmarshal(body, &d); err != nil {
		return nil, fault("its document is no JSON of the known form")
	}
	if d.Schema != schema {
		return nil, fault("its document is not of the schema " + schema)
	}
	named := func(names ...string) bool {
		return !slices.ContainsFunc(names, func(s string) bool { return s == "" || len(s) > maxName })
	}
	ok := !d.Time.IsZero() && slices.Contains(verdict.VantageStates[:], d.Vantage.State) &&
		d.Verdicts != nil && d.Results != nil && len(d.Verdicts) <= maxRows && len(d.Results) <= maxRows
	for _, v := range d.Verdicts {
		ok = ok && named(v.Messenger, v.Function) && slices.Contains(verdict.States[:], v.State) &&
			(v.Mechanism == "" || slices.Contains(verdict.Mechanisms[:], v.Mechanism))
	}
	for _, r := range d.Results {
		ok = ok && named(r.Messenger, r.Function, r.Endpoint, r.Check, r.Family) &&
			(r.Outcome == probe.OK || r.Outcome == probe.Fail || r.Outcome == probe.Void)
	}
	if !ok {
		return nil, fault("its document does not keep to the schema " + schema)
	}
	return &d, nil
}

// report is what the document says, in times of this machine.
func (d *document) report(name string, here func(time.Time) time.Time, until time.Time) Report {
	r := Report{Name: name, Time: here(d.Time), Until: until}
	if d.Vantage.State != verdict.Online {
		return r
	}
	for _, v := range d.Verdicts {
		r.Verdicts = append(r.Verdicts, Verdict(v))
	}
	for _, x := range d.Results {
		if x.Outcome != probe.Void && x.Messenger != probe.Control && !x.Time.IsZero() {
			r.Results = append(r.Results, Result{x.Messenger, x.Function, x.Endpoint, x.Check, x.Family, x.Outcome == probe.OK, here(x.Time)})
		}
	}
	return r
}
