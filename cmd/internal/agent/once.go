package agent

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/messenger-probe/messenger-probe/probe"
	"github.com/messenger-probe/messenger-probe/probe/schedule"
	"github.com/messenger-probe/messenger-probe/probe/verdict"
)

// Limits of a one-shot check. A person waits for it, and where everything is
// silent each question costs its whole deadline.
const (
	// askedBy is when the last check may end, and endsBy the last that is asked
	// again, since the check began. What is not asked by then is left out, and what
	// has no answer counts for nothing.
	askedBy, endsBy = 28 * time.Second, 42 * time.Second
	// onceTimeout is the longest deadline of one run. It covers two SYNs and a
	// handshake with a retransmission or two.
	onceTimeout = 6 * time.Second
	// againTimeout is that of what is asked again, and of the questions beside it.
	// It covers as many SYNs and retransmissions where the host is not far.
	againTimeout = 4 * time.Second
	// enough is how many silences in a row from one host, name and kind of
	// question say that the next would meet it, too. Asking on would be
	// conspicuous and teach nothing.
	enough = 2
	// confirmations is how many of the checks that failed alike
	// ([verdict.Record.Kind]) are asked again; the others are as sure as these.
	// Of silences, each of which costs its whole deadline, one is.
	confirmations = 2
)

// Progress is told how many of how many runs of a one-shot check have ended.
type Progress func(done, of int, last probe.Result)

// Check asks some controls, then every check once, then again what failed,
// beside the differential questions about it and the first controls: one lost
// packet is no finding, and the line may have died meanwhile. From a vantage that
// is offline, or sees only its own country, no messenger is asked, and from one
// that is ill nothing is asked again. Check ends early when ctx does.
func (a *Agent) Check(ctx context.Context, checks []probe.Check, progress Progress) (Snapshot, error) {
	a.mu.Lock()
	a.records = nil
	a.adopt(checks)
	a.mu.Unlock()

	began := time.Now()
	done, of := 0, 0
	round := func(by time.Duration, checks []probe.Check, file func(probe.Result)) error {
		done, of = 0, len(checks)
		timed, cancel := context.WithDeadline(ctx, began.Add(by))
		defer cancel()
		schedule.Once(timed, a.o.Net, checks, 2*a.o.Parallel, func(r probe.Result) {
			a.mu.Lock()
			defer a.mu.Unlock()
			file(r)
			if done++; progress != nil {
				progress(done, of, r)
			}
		})
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("check: %w", err)
		}
		return nil
	}
	file := func(r probe.Result) {
		r = byOtherResolver(a.proven.Note(r))
		rec := a.records[r.Check.ID()]
		r.Check = rec.Check
		r.Void = voided(&a.line.Vantage, r)
		rec.Results = slices.Insert(rec.Results, 0, r)
	}

	var first, rest []probe.Check
	hush := newHush()
	for _, c := range checks {
		c = within(c, onceTimeout)
		if sentinel(&c) || byAddress(&c) {
			first = append(first, c)
		} else {
			c.Prober = hush.wrap(c)
			rest = append(rest, c)
		}
	}
	judge := func(controls []*verdict.Record) {
		var heard []probe.Result
		for _, rec := range controls {
			if len(rec.Results) > 0 {
				heard = append(heard, rec.Results[0])
			}
		}
		a.line.Vantage = verdict.JudgeVantage(heard, 0)
		for _, rec := range a.order {
			for i := range rec.Results {
				if !calibrates(&rec.Check) {
					rec.Results[i].Void = voided(&a.line.Vantage, rec.Results[i])
				}
			}
		}
	}
	a.line.State = verdict.Online // nothing is void until the controls have said so
	if err := round(askedBy, first, file); err != nil {
		return Snapshot{}, err
	}
	if judge(a.line.controls); severed(a.line.State) {
		return a.whole(a.snapshot(time.Now())), nil
	}
	a.line.State = verdict.Online
	if err := round(askedBy, rest, file); err != nil {
		return Snapshot{}, err
	}
	if judge(a.line.controls); a.line.State != verdict.Online {
		return a.whole(a.snapshot(time.Now())), nil
	}

	questions := map[string]verdict.Question{}
	answer := func(r probe.Result) bool {
		q, ok := questions[r.Check.ID()]
		if ok {
			arm := verdict.Arm{Of: q.Of, Ask: q.Ask, Result: r}
			a.arms[armKey{q.Of, q.Ask}] = arm
			a.learn(&arm)
		}
		return ok
	}
	again := a.again()
	if len(again) > 0 {
		for _, rec := range a.line.sentinels {
			again = append(again, sooner(rec.Check))
		}
	}
	for _, q := range a.questions(1, func(string, verdict.Ask) bool { return false }) {
		questions[q.Check.ID()] = q
		again = append(again, sooner(q.Check))
	}
	if err := round(endsBy, again, func(r probe.Result) {
		if !answer(r) {
			file(r)
		}
	}); err != nil {
		return Snapshot{}, err
	}
	if late := append(a.late(questions), a.unsettled()...); len(late) > 0 {
		if err := round(endsBy, late, func(r probe.Result) {
			if !answer(r) {
				file(r)
			}
		}); err != nil {
			return Snapshot{}, err
		}
	}
	if v := a.line.Vantage; v.State == verdict.Online && len(a.line.sentinels) > 0 {
		if judge(a.line.sentinels); a.line.State == verdict.Online {
			a.line.Vantage = v
		}
	}
	return a.whole(a.snapshot(time.Now())), nil
}

// late is the questions about transfers of which only the second run was seen to
// be slow: the first was lost, or its control.
func (a *Agent) late(questions map[string]verdict.Question) []probe.Check {
	var out []probe.Check
	for _, q := range a.questions(1, a.has) {
		if q.Ask == verdict.AskAgain || q.Ask == verdict.AskControlRate {
			questions[q.Check.ID()] = q
			out = append(out, sooner(q.Check))
		}
	}
	return out
}

func (a *Agent) has(of string, ask verdict.Ask) bool {
	_, ok := a.arms[armKey{of, ask}]
	return ok
}

// sooner is c as it is asked in the second round. A transfer has no retransmissions
// to wait for, but needs its time.
func sooner(c probe.Check) probe.Check {
	if c.Protocol == probe.ProtoTransfer {
		return within(c, onceTimeout)
	}
	return within(c, againTimeout)
}

// within is c with a deadline of its own in a one-shot check.
func within(c probe.Check, d time.Duration) probe.Check {
	c.Timeout = min(c.Timeout, d)
	return c
}

// again is what to ask once more.
func (a *Agent) again() []probe.Check {
	n := map[string]int{}
	var out []probe.Check
	for _, rec := range a.order {
		c, k := rec.Check, rec.Kind()
		if c.Messenger == probe.Control || k == "" {
			continue
		}
		if n[k]++; n[k] > confirmations || n[k] > 1 && silent(rec.Results[0].Failed()) {
			continue
		}
		out = append(out, sooner(c))
	}
	return out
}

// unsettled is what failed like others that were asked again for it, and then
// worked: whether it fails, too, is not known yet.
func (a *Agent) unsettled() []probe.Check {
	sure := map[string]bool{}
	for _, rec := range a.order {
		if failing(rec) > 1 {
			sure[rec.Kind()] = true
		}
	}
	var out []probe.Check
	for _, rec := range a.order {
		if c := rec.Check; c.Messenger != probe.Control && len(rec.Results) == 1 && failing(rec) == 1 && !sure[rec.Kind()] {
			out = append(out, sooner(c))
		}
	}
	return out
}

func silent(s *probe.Step) bool {
	return s != nil && (s.Failure == probe.FailureTimeout || s.Failure == probe.FailureTimedOut)
}

// A hush counts silences, so that a host that says nothing is not asked in all
// the ways there are.
type hush struct {
	mu sync.Mutex
	n  map[string]int // silences in a row; negative: something answered
}

func newHush() *hush { return &hush{n: map[string]int{}} }

// wrap is c's prober, which asks nothing where enough was not answered.
func (h *hush) wrap(c probe.Check) probe.Prober {
	kind, tcp := c.Protocol, true
	switch q := probe.Bare(c.Prober).(type) {
	case probe.DNS:
		if q.Server.Name == probe.System {
			return c.Prober // silence about a name is a finding
		}
		// That of any other resolver is void.
		return hushed{h: h, kind: q.Server.Name + "/" + q.Server.Transport, ask: c.Prober, fickle: true}
	case probe.QUIC, probe.QUICPing, probe.STUN:
		tcp = false
	case probe.MTProto:
		kind += q.Transport // filters tell the transports apart
		if q.ServerName != "" {
			kind = probe.ProtoTLS
		}
	case probe.Noise:
		if q.ServerName != "" {
			kind = probe.ProtoTLS
		}
	case probe.HTTP:
		switch {
		case q.Version == "3":
			kind, tcp = probe.ProtoQUIC, false
		case !q.Plain:
			kind = probe.ProtoTLS
		}
	case probe.WebSocket, probe.OneMe, probe.Transfer:
		kind = probe.ProtoTLS
	}
	p := hushed{h: h, kind: c.Gate + "/" + c.Family + "/" + kind, ask: c.Prober}
	if tcp {
		p.port = c.Gate + "/" + c.Family + "/" + port(c.Target)
	}
	return p
}

// port is the port in a check's target: that of an address, or alone, before
// what tells checks of one apart.
func port(target string) string {
	target, _, _ = strings.Cut(target, ",")
	target, _, _ = strings.Cut(target, "#")
	return target[strings.LastIndexByte(target, ':')+1:]
}

type hushed struct {
	h      *hush
	kind   string // of question, to one host
	port   string // that must open before it can be asked; "" none
	ask    probe.Prober
	fickle bool // an answer does not vouch for the next
}

func (q hushed) Probe(ctx context.Context, n probe.Net) []probe.Step {
	q.h.mu.Lock()
	hushed := q.h.n[q.kind] >= enough || q.h.n[q.port] >= enough
	q.h.mu.Unlock()
	if hushed {
		return nil
	}
	steps := q.ask.Probe(ctx, n)
	if len(steps) == 0 {
		return nil
	}
	q.h.mu.Lock()
	defer q.h.mu.Unlock()
	const answers = -1 << 20
	last := steps[len(steps)-1]
	if q.port != "" && last.Op != probe.OpResolve && (last.Op != probe.OpConnect || last.Failure == "") {
		q.h.n[q.port] = answers
	}
	switch {
	case last.Failure == "" && q.fickle:
		q.h.n[q.kind] = 0
	case last.Failure == "":
		q.h.n[q.kind] = answers
	case silent(&last):
		q.h.n[q.kind]++
		if last.Op == probe.OpConnect && q.port != "" {
			q.h.n[q.port]++
		}
	}
	return steps
}
