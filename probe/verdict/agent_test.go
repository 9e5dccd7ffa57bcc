package verdict

import (
	"slices"
	"testing"

	"github.com/messenger-probe/messenger-probe/probe"
)

// A way is how the agent comes to a verdict.
type way string

const (
	daily way = "run"   // every check several times, questions about what failed twice
	once  way = "check" // every check once, again what failed, beside the questions
)

// A day is what came of it.
type day struct {
	vantage  Vantage
	records  []Record
	arms     []Arm
	verdicts []Verdict
}

// live measures and judges as the agent does (cmd/internal/agent), without its
// schedule.
func (w *world) live(checks []probe.Check, how way) day {
	var d day
	d.records = make([]Record, 0, len(checks))
	for _, c := range checks {
		d.records = append(d.records, Record{Check: c})
	}
	controls := func() (rs []probe.Result) {
		for i := range d.records {
			if r := &d.records[i]; r.Check.Messenger == probe.Control && len(r.Results) > 0 {
				rs = append(rs, r.Results[0])
			}
		}
		return rs
	}
	d.vantage.State = Online
	ask := func(r *Record) {
		res := byOtherResolver(w.run(r.Check))
		if len(res.Steps) > 0 { // a slot that the name has not
			if r.Results == nil {
				r.Results = make([]probe.Result, 0, 2)
			}
			if how == daily {
				r.Note(&res)
			}
			r.Results = slices.Insert(r.Results, 0, res)
		}
	}
	rounds := 1
	if how == daily {
		rounds = 2
	}
	for range rounds {
		for i := range d.records {
			ask(&d.records[i])
		}
	}
	d.vantage = JudgeVantage(controls(), w.lag)
	void := func() {
		for i := range d.records {
			r := &d.records[i]
			if r.Check.Messenger == probe.Control {
				continue
			}
			for j := range r.Results {
				if r.Results[j].Void == "" {
					r.Results[j].Void = d.vantage.Void(&r.Check)
				}
			}
		}
	}
	void()
	var again []*Record
	if how == once {
		alike := map[string]int{}
		for i := range d.records {
			r := &d.records[i]
			k := r.Kind()
			if alike[k]++; k != "" && r.Check.Messenger != probe.Control && alike[k] <= 2 {
				again = append(again, r)
			}
		}
	}
	for _, q := range Questions(d.vantage, d.records, rounds, func(string, Ask) bool { return false }) {
		d.arms = append(d.arms, Arm{Of: q.Of, Ask: q.Ask, Result: w.run(q.Check)})
	}
	for _, r := range again {
		ask(r)
	}
	void()
	if how == once { // a second run was the first that was slow
		for _, q := range Questions(d.vantage, d.records, rounds, d.asked) {
			if q.Ask == AskAgain || q.Ask == AskControlRate {
				d.arms = append(d.arms, Arm{Of: q.Of, Ask: q.Ask, Result: w.run(q.Check)})
			}
		}
	}
	d.verdicts = Judge(d.vantage, d.records, d.arms)
	return d
}

func (d *day) asked(of string, a Ask) bool {
	return slices.ContainsFunc(d.arms, func(x Arm) bool { return x.Of == of && x.Ask == a })
}

// byOtherResolver is the agent's: a resolver of our choosing that gives no
// answer at all says nothing about the name.
func byOtherResolver(r probe.Result) probe.Result {
	d, ok := r.Check.Prober.(probe.DNS)
	f := r.Failed()
	if ok && r.Check.Messenger != probe.Control && f != nil && d.Server.Name != probe.System && (f.DNS == nil || len(f.DNS.Replies) == 0) {
		r.Void = probe.ReasonResolver
	}
	return r
}

// of is the verdict on "messenger/function".
func (d *day) of(name string) *Verdict {
	i := slices.IndexFunc(d.verdicts, func(v Verdict) bool { return v.Messenger+"/"+v.Function == name })
	if i < 0 {
		return &Verdict{}
	}
	return &d.verdicts[i]
}

// show logs what was judged, for a failing test.
func (d *day) show(t *testing.T) {
	t.Helper()
	t.Logf("vantage %s %v, down %v", d.vantage.State, d.vantage.Evidence, d.vantage.Down)
	for _, v := range d.verdicts {
		if v.State == OK {
			continue
		}
		t.Logf("%s/%s %s %s %s", v.Messenger, v.Function, v.State, v.Mechanism, v.Confidence)
		for _, s := range v.Evidence {
			t.Logf("    %s", s)
		}
	}
}
