package agent

import (
	"slices"
	"time"

	"github.com/messenger-probe/messenger-probe/probe"
	"github.com/messenger-probe/messenger-probe/probe/onset"
	"github.com/messenger-probe/messenger-probe/probe/verdict"
)

// A Report is the newest that one agent abroad said.
type Report struct {
	Name      string
	Time      time.Time                    // when it was said, by our clock
	Until     time.Time                    // from then on it says nothing
	States    map[[2]string]verdict.Abroad // by messenger and function; without a name
	Sightings []Sighting
}

// A Reference names a check that an agent abroad runs too.
type Reference struct{ Messenger, Function, Endpoint, Check, Family string }

// A Sighting is how a check went abroad. Those of several addresses share a
// Reference.
type Sighting struct {
	Reference
	OK   bool
	Time time.Time // when it began, by our clock
}

// Compare says whether agents abroad will be heard. It holds for what is [Set]
// afterwards; where nobody is heard any more, what they said is forgotten.
func (a *Agent) Compare(abroad bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.abroad = abroad
	if !abroad {
		a.reports = nil
	}
}

// Hear takes the newest reports of all agents abroad, instead of those before.
func (a *Agent) Hear(reports []Report) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.abroad {
		return
	}
	a.reports, a.dirty = reports, true
	if a.detector != nil {
		a.detector.hear(reports, time.Now(), a.interval)
	}
}

// Wonders says whether what agents abroad find would settle something now.
func (a *Agent) Wonders() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.detector == nil {
		return false
	}
	for m := range a.detector.engine.Messengers() {
		st, _ := a.detector.engine.Status(m)
		if st.State == onset.Suspect ||
			st.State == onset.Blocked && st.Attribution == onset.Unconfirmed && time.Since(st.Since) < 10*time.Minute {
			return true
		}
	}
	return false
}

// weigh holds verdicts against what agents abroad say at this time. That it
// works there counts only when it was said an interval after it began to fail
// here: an agent abroad needs as long to find out.
func (a *Agent) weigh(now time.Time, vs []verdict.Verdict) {
	if len(a.reports) == 0 {
		return
	}
	for i := range vs {
		k := [2]string{vs[i].Messenger, vs[i].Function}
		if !bad(vs[i].State) {
			delete(a.ill, k)
			continue
		}
		if a.ill[k].IsZero() {
			a.ill[k] = now
		}
		var said []verdict.Abroad
		for _, r := range a.reports {
			s, ok := r.States[k]
			if !ok || !now.Before(r.Until) || s.State == verdict.OK && r.Time.Before(a.ill[k].Add(a.interval)) {
				continue
			}
			s.Name = r.Name
			said = append(said, s)
		}
		verdict.Compare(&vs[i], said)
	}
}

// Bounds of the detector's reference streams, which are below its own.
const (
	maxReferenced = 64   // endpoints of a messenger; one with more has no references
	maxStreams    = 4096 // of all kinds
	maxAge        = 5 * time.Minute
)

// A referenceStream is one that agents abroad feed.
type referenceStream struct {
	Reference
	stream int
	newest time.Time // of what was fed
}

// refer adds to the streams a reference for each question that is asked of an
// endpoint, whatever the number of its addresses. A name that resolves abroad
// says nothing of the servers behind it.
func refer(checks []probe.Check, streams []onset.Stream) ([]onset.Stream, []referenceStream) {
	endpoints := map[string]map[string]bool{}
	for _, s := range streams {
		if s.Role == onset.Target && s.Family != onset.DNS {
			if endpoints[s.Messenger] == nil {
				endpoints[s.Messenger] = map[string]bool{}
			}
			endpoints[s.Messenger][s.Endpoint] = true
		}
	}
	var refs []referenceStream
	out := slices.Clone(streams)
	seen := map[Reference]bool{}
	for i := range checks {
		s, ok := streamOf(&checks[i])
		q := Reference{s.Messenger, s.Function, s.Endpoint, s.Check, ""}
		if !ok || s.Role != onset.Target || s.Family == onset.DNS || seen[q] || len(endpoints[s.Messenger]) > maxReferenced {
			continue
		}
		seen[q] = true
		q.Family = checks[i].Family
		s.Role, s.Path, s.Target = onset.Reference, "", ""
		refs = append(refs, referenceStream{Reference: q, stream: len(out)})
		out = append(out, s)
	}
	if len(out) > maxStreams {
		return streams, nil
	}
	return out, refs
}

// hear feeds the detector with what is new abroad. An endpoint that any agent
// reaches is up.
func (d *detector) hear(reports []Report, now time.Time, interval time.Duration) {
	best := map[Reference]Sighting{}
	for _, r := range reports {
		if !now.Before(r.Until) {
			continue
		}
		for _, x := range r.Sightings {
			if s, ok := best[x.Reference]; !ok || x.OK && !s.OK || x.OK == s.OK && x.Time.After(s.Time) {
				best[x.Reference] = x
			}
		}
	}
	for i := range d.references {
		ref := &d.references[i]
		s := best[ref.Reference]
		age := now.Sub(s.Time)
		if s.Time.IsZero() || !s.Time.After(ref.newest) || age < 0 || age > min(3*interval, maxAge) {
			continue
		}
		// What worked before a suspicion arose says nothing about it: servers
		// that have just died were well a minute ago.
		if s.OK && !d.calm(ref.Messenger) && s.Time.Before(d.quiet[ref.Messenger]) {
			continue
		}
		ref.newest = s.Time
		d.engine.Started(ref.stream, s.Time)
		d.engine.Finished(ref.stream, s.Time, 0, s.OK)
	}
}

// calm says that nothing at all speaks for a block of a messenger.
func (d *detector) calm(messenger string) bool {
	for _, nats := range d.engine.Evidence(messenger) {
		if nats > 0 {
			return false
		}
	}
	return true
}

// listen notes who is under no suspicion at this time.
func (d *detector) listen(now time.Time) {
	if len(d.references) == 0 {
		return
	}
	for m := range d.engine.Messengers() {
		if d.calm(m) {
			d.quiet[m] = now
		}
	}
}
