package verdict

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/messenger-probe/messenger-probe/probe"
)

// A Record is what is known of one check: its latest results, newest first.
// Two are enough to tell a failure that persists from a lost packet.
type Record struct {
	Check   probe.Check
	Results []probe.Result

	// What older results told, where there were any: since when the check fails
	// without a break, and the shortest time in which an address, the last that
	// was connected to, ever answered a connect.
	Since   time.Time
	Fastest time.Duration
	Nearest netip.Addr

	// Before is a time before which what worked says nothing of now: somebody who
	// looks at all checks together has seen a block begin since.
	Before time.Time
}

// Note takes a result into account that will be among the newest: what is to be
// known of it when it no longer is.
func (r *Record) Note(res *probe.Result) {
	switch res.Outcome() {
	case probe.OK:
		r.Since = time.Time{}
	case probe.Fail:
		if r.Since.IsZero() {
			r.Since = res.Start
		}
	}
	for i := range res.Steps {
		s := &res.Steps[i]
		if s.Op != probe.OpConnect || s.Failure != "" || !s.Addr.IsValid() || s.Took <= 0 {
			continue
		}
		if a := s.Addr.Addr(); a != r.Nearest || s.Took < r.Fastest {
			r.Nearest, r.Fastest = a, s.Took
		}
	}
}

// forgetOld leaves out what worked at an address before that began to fail: a
// server that hangs since a minute has answered all questions before, and those
// that are asked seldom still say so. Where there is no memory, everything has
// been asked at one time.
func forgetOld(facts []*fact) []*fact {
	var began map[netip.Addr]time.Time
	for _, f := range facts {
		if a := f.addr.Addr(); !f.works() && a.IsValid() && !f.Since.IsZero() {
			if began == nil {
				began = map[netip.Addr]time.Time{}
			}
			if t := began[a]; t.IsZero() || f.Since.Before(t) {
				began[a] = f.Since
			}
		}
	}
	if began == nil {
		return facts
	}
	return slices.DeleteFunc(facts, func(f *fact) bool {
		return f.works() && f.res.Start.Before(began[f.addr.Addr()])
	})
}

// standing is what a record says now.
type standing int

const (
	silent  standing = iota // nothing that counts
	working                 // the newest result that counts is ok
	unsure                  // it failed, and the one before did not, or there is none
	failing                 // the two newest that count failed
)

// stands reads a record.
func (r *Record) stands() standing {
	failed := 0
	for i := range r.Results {
		o := r.Results[i].Outcome()
		if o == probe.OK && r.Results[i].Start.Before(r.Before) {
			break
		}
		switch o {
		case probe.OK:
			if failed == 0 {
				return working
			}
			return unsure
		case probe.Fail:
			if failed++; failed == 2 {
				return failing
			}
		}
	}
	if failed == 1 {
		return unsure
	}
	return silent
}

// worked is the newest result that is ok, nil if none that says anything of now.
func (r *Record) worked() *probe.Result {
	for i := range r.Results {
		if r.Results[i].Outcome() == probe.OK && !r.Results[i].Start.Before(r.Before) {
			return &r.Results[i]
		}
	}
	return nil
}

// last is the newest result that counts, nil if none.
func (r *Record) last() *probe.Result {
	for i := range r.Results {
		if o := r.Results[i].Outcome(); o != probe.Void {
			return &r.Results[i]
		}
	}
	return nil
}

// lastFailure is the newest result that counts, where it failed.
func (r *Record) lastFailure() *probe.Result {
	if l := r.last(); l != nil && l.Outcome() == probe.Fail {
		return l
	}
	return nil
}

// cause is the failure that tells most of a record that fails now: of the two
// newest, if both count, the one that came further, and of those that came as
// far the one that is no silence, or that of somebody who has our bytes. A lost
// packet can end a run anywhere; what always ends it is met by the run that gets
// there.
func (r *Record) cause() *probe.Result {
	var best *probe.Result
	for i, n := 0, 0; i < len(r.Results) && n < 2; i++ {
		l := &r.Results[i]
		if o := l.Outcome(); o == probe.OK {
			break
		} else if o == probe.Void {
			continue
		}
		if n++; best == nil || further(l.Failed(), best.Failed()) {
			best = l
		}
	}
	return best
}

func further(a, b *probe.Step) bool {
	if a.Op != b.Op {
		return slices.Index(probe.Ops[:], a.Op) > slices.Index(probe.Ops[:], b.Op)
	}
	return timedOut(b) && (!timedOut(a) || heard(a) && !heard(b))
}

// answered says whether a differential question beside a failure was answered:
// the pair says as much as a repeat.
func answered(arms map[Ask]*Arm) bool {
	for _, a := range arms {
		if a.Answered() {
			return true
		}
	}
	return false
}

// Kind is what failures have in common that confirm each other: two checks of
// one endpoint that die at the same step have met the same thing. It is empty
// where the newest result that counts is no failure.
func (r *Record) Kind() string {
	l := r.cause()
	if l == nil {
		return ""
	}
	f := l.Failed()
	k := []string{r.Check.Messenger, r.Check.Function, r.Check.Endpoint, string(f.Op), string(f.Failure)}
	switch f.Op {
	case probe.OpConnect: // by port and family
		k = append(k, r.Check.Family, strconv.Itoa(int(f.Addr.Port())))
	case probe.OpResolve: // by resolver, where one is asked
		if d, ok := r.Check.Prober.(probe.DNS); ok {
			k = append(k, d.Server.Addr.String())
		}
	case probe.OpTLSHandshake: // by ClientHello, not by what it is for
		if f.TLS != nil {
			k = append(k, f.TLS.Hello)
		}
	default:
		proto, transport := speaks(&fact{Record: r})
		k = append(k, r.Check.Protocol, proto, transport)
	}
	return strings.Join(k, " ")
}

// A fact is one check as it stands: what the rules reason about.
type fact struct {
	*Record
	res  *probe.Result  // the newest that counts, or the cause of failure
	step *probe.Step    // what failed; nil where it works
	addr netip.AddrPort // who was asked; zero where the name did not resolve
	arms map[Ask]*Arm
	tcp  bool // about a TCP connection to an address
}

func (f *fact) works() bool { return f.step == nil }

// read takes from the record what counts. A check that failed once after it
// worked is taken to work until it fails again; one that has only failed once
// says nothing yet, unless another has failed alike, or a question beside it
// was answered.
func (f *fact) read(s standing, alike map[string]bool) {
	var ok *probe.Result
	if s == working || s == unsure {
		ok = f.worked()
	}
	switch {
	case s == unsure && (alike[f.Kind()] || ok == nil && answered(f.arms)):
		s = failing
	case s == unsure && ok != nil:
		s = working
	}
	switch s {
	case working:
		f.res = ok
		f.addr = ok.Addr()
	case failing:
		f.res = f.cause()
		f.step = f.res.Failed()
		if f.step.Op != probe.OpResolve {
			f.addr = f.res.Addr()
		}
	}
}

// ask is the arm of that kind, nil where it was not asked.
func (f *fact) ask(a Ask) *Arm { return f.arms[a] }

// A scene is what bears on all messengers.
type scene struct {
	vantage   *Vantage
	controls  []*fact
	everybody []*fact                 // of all messengers
	resolvers map[netip.AddrPort]bool // see heardOf

	rate    float64                      // see controlRate
	near    map[netip.Addr]time.Duration // see roundTrip
	sites   map[netip.Prefix]time.Duration
	crossed *crossing // see here
}

// A file is what bears on one messenger.
type file struct {
	*scene
	messenger string
	facts     []*fact // standing working or failing
	failing   []*fact

	said   map[question][]said        // see lookups
	hosts  map[string][]*fact         // see byName
	doors  map[netip.Addr]doors       // see connected
	places map[netip.AddrPort][]*fact // see at
}

// A finding is an explanation of failures, made by a rule.
type finding struct {
	mechanism    Mechanism
	confidence   Confidence
	interference bool // the evidence shows interference, not merely a failure
	explains     []*fact
	say          func([]*fact) string // in a sentence, of what it explains, these
}

// Judge says what the records and the arms mean for each function of each
// messenger. The verdicts are in the order of messenger and function as the
// records have them.
func Judge(v Vantage, records []Record, arms []Arm) []Verdict {
	type key struct{ messenger, function string }
	var order []key
	by := map[key][]*fact{}
	shy := map[key]int{}    // checks that have not answered here yet
	relays := map[key]int{} // checks of relays
	for i := range records {
		c := &records[i].Check
		k := key{c.Messenger, c.Function}
		if c.Protocol == probe.ProtoSTUN {
			relays[k]++
		}
		if rs := records[i].Results; len(rs) > 0 && rs[0].Void == probe.ReasonInformational {
			shy[k]++
		}
		if _, known := by[k]; !known && k.messenger != probe.Control {
			order = append(order, k)
			by[k] = nil
		}
	}
	verdicts := make([]Verdict, 0, len(order))
	if v.State != Online {
		for _, k := range order {
			verdicts = append(verdicts, Verdict{Messenger: k.messenger, Function: k.function, State: Unknown,
				Evidence: append([]string{fmt.Sprintf("the vantage is %s", v.State)}, v.Evidence...)})
		}
		return verdicts
	}
	s := &scene{vantage: &v, resolvers: heardOf(records), rate: controlRate(records)}
	files := map[string]*file{}
	for _, f := range s.read(records, arms) {
		m := f.Check.Messenger
		if m == probe.Control {
			s.controls = append(s.controls, f)
			continue
		}
		k := key{m, f.Check.Function}
		by[k] = append(by[k], f)
		if files[m] == nil {
			files[m] = &file{scene: s, messenger: m}
		}
		files[m].facts = append(files[m].facts, f)
		s.everybody = append(s.everybody, f)
	}
	found := map[string][]finding{}
	for m, fl := range files {
		fl.facts = forgetOld(fl.facts)
		for _, f := range fl.facts {
			if !f.works() {
				fl.failing = append(fl.failing, f)
			}
		}
		for i := range rules {
			if rules[i].slow || len(fl.failing) > 0 {
				found[m] = append(found[m], rules[i].find(fl)...)
			}
		}
	}
	for _, k := range order {
		j := Verdict{Messenger: k.messenger, Function: k.function, State: Unknown}
		judgeFunction(&j, forgetOld(by[k]), found[k.messenger])
		if n := relays[k]; n > 0 && j.State == OK && !slices.ContainsFunc(by[k], func(f *fact) bool { return f.Check.Protocol == probe.ProtoSTUN && f.works() }) {
			j.State = Unknown
			j.Evidence = append(j.Evidence, fmt.Sprintf("but a call goes over relays, and of %d checks of them none has been answered here yet", n))
		}
		if n := shy[k]; n > 0 && (j.State == OK || j.State == Unknown) {
			j.Evidence = append(j.Evidence, fmt.Sprintf("%d more have never answered here, which says nothing of them", n))
		}
		if j.State == Unknown && len(v.Down) > 0 {
			j.Evidence = append(j.Evidence, fmt.Sprintf("from here %s answers nobody, so that what needs it says nothing", strings.Join(v.Down, ", ")))
		}
		verdicts = append(verdicts, j)
	}
	return verdicts
}

// read makes facts of the records of which something can be said.
func (s *scene) read(records []Record, arms []Arm) []*fact {
	asked := map[string]map[Ask]*Arm{}
	for i := range arms {
		a := &arms[i]
		if asked[a.Of] == nil {
			asked[a.Of] = map[Ask]*Arm{}
		}
		asked[a.Of][a.Ask] = a
	}
	// A failure is confirmed by a second one of the same check, or by a check of
	// the same endpoint and protocol that was confirmed to fail alike.
	alike := map[string]bool{}
	standings := make([]standing, len(records))
	for i := range records {
		r := &records[i]
		if standings[i] = r.stands(); standings[i] == failing {
			alike[r.Kind()] = true
		}
	}
	slow := tooSlow(records)
	all := make([]fact, len(records))
	facts := make([]*fact, 0, len(records))
	for i := range records {
		r, f := &records[i], &all[i]
		f.Record = r
		if r.Check.Messenger == probe.Control {
			// One answer is enough of a control: it is asked as often as anybody.
			if l := r.last(); l != nil {
				f.res, f.addr, f.step = l, l.Addr(), l.Failed()
			}
		} else {
			mayAsk := standings[i] >= unsure || r.Check.Protocol == probe.ProtoTransfer || r.Check.Protocol == probe.ProtoSTUN
			if mayAsk && len(asked) > 0 {
				f.arms = asked[r.Check.ID()]
			}
			f.read(standings[i], alike)
		}
		if f.res == nil {
			continue
		}
		f.tcp = f.addr.IsValid() && r.Check.Protocol != probe.ProtoDNS && !udp(&r.Check)
		if d, ok := r.Check.Prober.(probe.DNS); ok && !f.works() && r.Check.Messenger != probe.Control {
			if answers, asked := s.resolvers[d.Server.Addr]; asked && !answers {
				continue // a resolver that answers nobody says nothing of a name
			}
		}
		if !f.works() && f.step.Op == probe.OpTransfer && (slow || f.keepsUp(s.rate)) {
			continue // nor does a line that is too slow for transfers
		}
		facts = append(facts, f)
	}
	return facts
}

// heardOf is the resolvers of which controls have been asked, and whether they
// answered.
func heardOf(records []Record) map[netip.AddrPort]bool {
	m := map[netip.AddrPort]bool{}
	for i := range records {
		r := &records[i]
		if d, ok := r.Check.Prober.(probe.DNS); ok && r.Check.Messenger == probe.Control && r.last() != nil {
			m[d.Server.Addr] = m[d.Server.Addr] || r.last().Outcome() == probe.OK
		}
	}
	return m
}

// tooSlow says that no transfer of a control came to its end, while some began.
func tooSlow(records []Record) bool {
	slow := false
	for i := range records {
		r := &records[i]
		if l := r.last(); r.Check.Messenger == probe.Control && r.Check.Protocol == probe.ProtoTransfer && l != nil {
			f := l.Failed()
			if f == nil {
				return false
			}
			slow = slow || f.Op == probe.OpTransfer
		}
	}
	return slow
}

// keepsUp says that a transfer which ran out of time went on to its end, and not
// many times slower than those of controls: the line is slow, or was busy.
func (f *fact) keepsUp(rate float64) bool {
	t, took := moved(f.res), f.step.Took
	return t != nil && timedOut(f.step) && rate > 0 && took > 0 && 2*t.Stall < took && float64(t.Bytes)/took.Seconds()*slowdown >= rate
}

// minShare is the share of a function's endpoints from which failures without
// any explanation make it degraded; below, one stray host out of many is a
// remark, not a state.
const minShare = 0.1

func judgeFunction(j *Verdict, facts []*fact, found []finding) {
	var worked, failed int
	endpoints := map[string]*endpoint{}
	left := map[*fact]bool{}
	for _, f := range facts {
		e := endpoints[f.Check.Endpoint]
		if e == nil {
			e = &endpoint{}
			endpoints[f.Check.Endpoint] = e
		}
		e.add(f)
		if f.works() {
			worked++
		} else {
			failed++
			left[f] = true
		}
	}
	var explained int
	var slow bool
	slowed := map[*fact]bool{}
	var mine []finding
	for _, fd := range found {
		var here []*fact
		for _, f := range fd.explains {
			switch {
			case f.Check.Function != j.Function:
			case left[f]:
				here = append(here, f)
				explained++
				delete(left, f)
				if fd.interference {
					endpoints[f.Check.Endpoint].interfered(f)
				}
			case f.works() && !slowed[f]:
				here = append(here, f)
				slow, slowed[f] = true, true
			}
		}
		// What an earlier finding explains follows from that.
		if len(here) > 0 {
			fd.explains = here
			mine = append(mine, fd)
		}
	}
	broken, usable, interference := 0, false, false
	for _, e := range endpoints {
		if e.broken {
			broken++
		}
		usable = usable || e.usable()
		interference = interference || e.wouldBe()
	}
	switch {
	case failed == 0 && !slow && !usable:
		j.Evidence = []string{"no check has counted yet"}
		if worked > 0 {
			j.Evidence = []string{"names resolve and ports open, and nothing else was asked yet"}
		}
		return
	case failed == 0 && !slow:
		j.State = OK
		j.Evidence = []string{fmt.Sprintf("all %d checks work", worked)}
		return
	case usable && explained == 0 && !slow && float64(broken) < minShare*float64(len(endpoints)):
		j.State = OK
		j.Evidence = append([]string{fmt.Sprintf("%d checks work", worked)}, describe(left)...)
		return
	case usable:
		j.State = Degraded
	case interference:
		j.State = Blocked
	default:
		j.State = Unreachable
	}
	// The first finding that shows interference explains; else the first.
	slices.SortStableFunc(mine, func(a, b finding) int {
		if a.interference != b.interference {
			if a.interference {
				return -1
			}
			return 1
		}
		return slices.Index(Mechanisms[:], a.mechanism) - slices.Index(Mechanisms[:], b.mechanism)
	})
	j.Mechanism, j.Confidence = UnknownCause, Low
	if len(mine) > 0 {
		j.Mechanism, j.Confidence = mine[0].mechanism, mine[0].confidence
	}
	for _, fd := range mine {
		if say := fd.say(fd.explains); !slices.Contains(j.Evidence, say) {
			j.Evidence = append(j.Evidence, say)
		}
	}
	j.Evidence = append(j.Evidence, describe(left)...)
	if j.State == Unreachable {
		j.Evidence = append(j.Evidence, alone)
	}
}

// describe says what fails without an explanation, a sentence an endpoint.
func describe(left map[*fact]bool) []string {
	by := map[string][]*fact{}
	var names []string
	for f := range left {
		if by[f.Check.Endpoint] == nil {
			names = append(names, f.Check.Endpoint)
		}
		by[f.Check.Endpoint] = append(by[f.Check.Endpoint], f)
	}
	slices.Sort(names)
	var out []string
	for _, n := range names {
		out = append(out, fmt.Sprintf("%s: %s", n, failures(by[n])))
	}
	return out
}

// An endpoint is what its checks say of it together.
type endpoint struct {
	broken         bool // some check of it fails
	asked, reached int  // the strongest proof that was asked for, and that was had
	hindered       int  // … that interference prevents
}

func (e *endpoint) add(f *fact) {
	e.broken = e.broken || !f.works()
	e.asked = max(e.asked, proof(f))
	if f.works() || answeredInTLS(f) {
		e.reached = max(e.reached, proof(f))
	}
}

// usable says whether a person could use the endpoint: a name that resolves or
// a port that opens does not make it so, nor a handshake after which every
// request dies.
func (e *endpoint) usable() bool { return e.asked > opens && e.reached == e.asked }

func (e *endpoint) interfered(f *fact) { e.hindered = max(e.hindered, proof(f)) }

// wouldBe says whether interference is what keeps the endpoint from being usable.
func (e *endpoint) wouldBe() bool { return e.asked > opens && e.hindered == e.asked }

// What a check proves where it works.
const (
	nothing = iota // a name resolves; somebody answers in clear
	opens          // a port accepts connections
	shakes         // the messenger's own certificate
	serves         // an answer of the messenger's
)

// proof is what f proves where it works.
func proof(f *fact) int {
	switch q := probe.Bare(f.Check.Prober).(type) {
	case probe.HTTP:
		if q.Plain {
			return nothing
		}
	case probe.QUICPing:
		return nothing
	}
	switch f.Check.Protocol {
	case probe.ProtoDNS:
		return nothing
	case probe.ProtoTCP:
		return opens
	case probe.ProtoTLS, probe.ProtoQUIC:
		return shakes
	}
	return serves
}

// answeredInTLS says that f fails by the shape of an answer, which came from
// the holder of the messenger's certificate.
func answeredInTLS(f *fact) bool {
	return !f.works() && !timedOut(f.step) && f.step.Reply != nil && f.step.Reply.Code > 0 && serverName(f) != ""
}
