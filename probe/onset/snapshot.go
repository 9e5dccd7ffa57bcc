package onset

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"hash/fnv"
	"math"
	"slices"
	"time"
)

// A snapshot is one line that names format, version, checksum and length, and
// a line of JSON. Numbers survive JSON exactly: Go writes the shortest text
// that reads back as the same float64.
const (
	snapshotMagic = "messenger-probe-onset"
	snapshotVer   = 2
	maxSnapshot   = 8 << 20
	maxAhead      = 5 * time.Minute // a snapshot's clock may be ahead of ours by this
)

// Errors of Unmarshal. Whatever it returns, the engine is unharmed: the caller
// reports the error and goes on without the past.
var (
	ErrForeign = errors.New("not a snapshot of this version")
	ErrTorn    = errors.New("snapshot is damaged")
	ErrFuture  = errors.New("snapshot is from the future")
)

type savedEngine struct {
	Saved   int64        `json:"saved"`
	Down    bool         `json:"down"`
	Watches []savedWatch `json:"watches"`
}

type savedWatch struct {
	Messenger string            `json:"messenger"`
	Layout    uint64            `json:"layout"`
	A         [][numV]float64   `json:"a"`
	Mass      float64           `json:"mass"`
	Pool      [2]float64        `json:"pool"`
	Last      int64             `json:"last"`
	Begun     bool              `json:"begun"`
	State     State             `json:"state"`
	Since     int64             `json:"since"`
	Episode   int               `json:"episode"`
	Flaps     int               `json:"flaps"`
	Scope     string            `json:"scope"`
	Onset     int64             `json:"onset"`
	Known     bool              `json:"known"`
	Score     float64           `json:"score"`
	D         float64           `json:"d"`
	DFrom     int64             `json:"d_from"`
	DCount    [2]int32          `json:"d_count"`
	Rate      float64           `json:"rate"`
	Settled   int64             `json:"settled"`
	Paged     int64             `json:"paged"`
	Overlay   string            `json:"overlay"`
	Tally     tally             `json:"tally"`
	Streams   []savedStream     `json:"streams"`
	Awake     []savedHypothesis `json:"awake"`
	Flights   []savedFlight     `json:"flights"`
	Clock     int64             `json:"clock"`
	Owed      bool              `json:"owed"`
	Open      int               `json:"open"`
	AskedAt   int64             `json:"asked_at"`
	Next      int64             `json:"next"`
	Round     int               `json:"round"`
	Recheck   int               `json:"recheck"`
	Light     int               `json:"light"`
	Tokens    float64           `json:"tokens"`
	TokensAt  int64             `json:"tokens_at"`
	Extra     uint64            `json:"extra"`
}

type savedStream struct {
	Key     uint64     `json:"key"`
	Base    [2]float64 `json:"base"`
	P0      float64    `json:"p0"`
	At      int64      `json:"at"`
	Seen    int64      `json:"seen,omitempty"`
	Started int64      `json:"started,omitempty"`
	Struck  int64      `json:"struck,omitempty"`
	Worked  bool       `json:"worked,omitempty"`
	Covered bool       `json:"covered,omitempty"`
	Asked   bool       `json:"asked,omitempty"`
}

type savedHypothesis struct {
	K      int           `json:"k"`
	W      float64       `json:"w"`
	Since  int64         `json:"since"`
	Failed int64         `json:"failed"`
	B      [numV]float64 `json:"b"`
	Tally  tally         `json:"tally"`
}

type savedFlight struct {
	Stream int32       `json:"stream"`
	Start  int64       `json:"start"`
	Known  int64       `json:"known"`
	State  flightState `json:"state"`
	Extra  bool        `json:"extra,omitempty"`
	Ours   bool        `json:"ours,omitempty"`
}

// layout identifies what the numbers of a watch are numbers of.
func (m *model) layout() uint64 {
	h := fnv.New64a()
	for _, s := range m.streams {
		fmt.Fprintf(h, "%s\x1e", s.key())
	}
	for _, b := range m.b {
		fmt.Fprintf(h, "%s %g %g\x1e", b.name, b.prior, m.lives[b.life])
	}
	for _, s := range m.scopes {
		fmt.Fprintf(h, "%s\x1e", s.name)
	}
	fmt.Fprint(h, vantageStates, strengths)
	return h.Sum64()
}

// keys identify the streams of a watch whatever else is configured.
func (m *model) keys() []uint64 {
	out := make([]uint64, len(m.streams))
	seen := make(map[uint64]int)
	for i, s := range m.streams {
		h := fnv.New64a()
		h.Write([]byte(s.key()))
		k := h.Sum64()
		seen[k]++
		out[i] = k + uint64(seen[k]) // those that share a key keep their order
	}
	return out
}

// Marshal is the state of the engine, to be given to Unmarshal after a
// restart. Events and requests not yet taken are not part of it.
func (e *Engine) Marshal(now time.Time) ([]byte, error) {
	s := savedEngine{Saved: now.UnixNano(), Down: e.down}
	for _, w := range e.watches {
		s.Watches = append(s.Watches, w.save())
	}
	body, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("onset: %w", err)
	}
	out := fmt.Appendf(nil, "%s %d %08x %d\n", snapshotMagic, snapshotVer, crc32.ChecksumIEEE(body), len(body))
	return append(append(out, body...), '\n'), nil
}

// Unmarshal takes over the state that Marshal wrote. Time that passed since is
// lived through at the next probe: benign states fade, and evidence gathered
// more than five intervals ago is dropped, while what was decided, the
// baselines and the episode stay. What has another set of streams than when it
// was saved keeps these too, by stream. On error the engine is as it was.
func (e *Engine) Unmarshal(data []byte, now time.Time) error {
	if len(data) > maxSnapshot {
		return fmt.Errorf("onset: %w: %d bytes", ErrForeign, len(data))
	}
	head, body, ok := bytes.Cut(data, []byte("\n"))
	var magic string
	var version, length int
	var sum uint32
	if _, err := fmt.Sscanf(string(head[:min(len(head), 100)]), "%s %d %x %d", &magic, &version, &sum, &length); err != nil || !ok {
		return fmt.Errorf("onset: %w", ErrForeign)
	}
	if magic != snapshotMagic || version != snapshotVer {
		return fmt.Errorf("onset: %w", ErrForeign)
	}
	if length < 0 || len(body) != length+1 || crc32.ChecksumIEEE(body[:length]) != sum {
		return fmt.Errorf("onset: %w", ErrTorn)
	}
	var s savedEngine
	if err := json.Unmarshal(body, &s); err != nil {
		return fmt.Errorf("onset: %w: %w", ErrTorn, err)
	}
	if s.Saved > now.Add(maxAhead).UnixNano() {
		return fmt.Errorf("onset: %w: saved at %v", ErrFuture, at(s.Saved).Format(time.RFC3339))
	}
	fresh, err := New(e.streams, e.cfg)
	if err != nil {
		return err
	}
	latest := now.Add(maxAhead).UnixNano()
	for i := range s.Watches {
		for _, w := range fresh.watches {
			if w.messenger == s.Watches[i].Messenger {
				if err := w.restore(&s.Watches[i], latest); err != nil {
					return fmt.Errorf("onset: %w: %s: %w", ErrTorn, w.messenger, err)
				}
				if float64(now.UnixNano()-s.Saved) > 5*w.interval*1e9 {
					w.ground()
				}
			}
		}
	}
	for i, w := range fresh.watches {
		w.emit = e.hear
		e.watches[i] = w
	}
	e.down = s.Down
	return nil
}

func (w *watch) save() savedWatch {
	s := savedWatch{Messenger: w.messenger, Layout: w.layout(), A: w.a, Mass: w.mass, Pool: [2]float64{w.poolFailed, w.poolTried},
		Last: w.last, Begun: w.begun, State: w.state, Since: w.since, Episode: w.episode, Flaps: w.flaps, Onset: w.onset, Known: w.known,
		Score: w.score, D: w.d, DFrom: w.dFrom, DCount: [2]int32{w.dOK, w.dAsked}, Rate: w.detector.rate, Settled: w.settled,
		Paged: w.paged, Tally: w.calls, Clock: w.clock, Owed: w.owed, Open: w.open, AskedAt: w.askedAt, Next: w.next,
		Round: w.round, Recheck: w.recheck, Light: w.light, Tokens: w.tokens, TokensAt: w.tokensAt, Extra: w.extra}
	if w.scopeN >= 0 {
		s.Scope = w.scopes[w.scopeN].name
	}
	switch {
	case w.overlay == overlayVantage:
		s.Overlay = vantageStates[vDown].name
	case w.overlay > 0:
		s.Overlay = w.b[w.overlay].name
	}
	for i, k := range w.keys() {
		b := &w.base[i]
		s.Streams = append(s.Streams, savedStream{Key: k, Base: [2]float64{b.Failed, b.Tried}, P0: b.p0, At: b.At, Seen: w.refSeen[i],
			Started: w.started[i], Struck: w.struck[i], Worked: b.Worked, Covered: w.covered[i], Asked: w.asked[i]})
	}
	for k := range w.hyp {
		if h := &w.hyp[k]; h.awake {
			s.Awake = append(s.Awake, savedHypothesis{K: k, W: h.w, Since: h.since, Failed: h.failed, B: h.b, Tally: h.counts})
		}
	}
	for _, f := range w.flights {
		s.Flights = append(s.Flights, savedFlight{Stream: f.stream, Start: f.start, Known: f.known, State: f.state, Extra: f.extra, Ours: f.ours})
	}
	return s
}

// restore takes over a saved watch, believing nothing of it that cannot be.
// latest is the last moment that a time in it may name.
func (w *watch) restore(s *savedWatch, latest int64) error {
	for _, t := range []int64{s.Last, s.Since, s.Onset, s.DFrom, s.Settled, s.Paged, s.Clock, s.AskedAt, s.TokensAt} {
		if t > latest {
			return errors.New("a time in the future")
		}
	}
	for _, x := range []float64{s.Pool[0], s.Pool[1], s.Score, s.D, s.Rate, s.Tokens} {
		if !(x >= 0 && x < 1e9) {
			return errors.New("a number out of range")
		}
	}
	if s.Rate > 1 || s.Episode < 0 || s.Flaps < 0 || s.Round < 0 || s.Light < 0 || s.Open < 0 || s.Next < 0 {
		return errors.New("a number out of range")
	}
	scope := w.scopeIndex(s.Scope)
	switch s.State {
	case OK, Suspect:
	case Blocked, Recovering:
		if scope < 0 && s.Layout == w.layout() {
			return errors.New("blocked, but not what")
		}
	default:
		return fmt.Errorf("state %q", s.State)
	}

	keys := w.keys()
	var covered bool
	for _, x := range s.Streams {
		i := slices.Index(keys, x.Key)
		if i < 0 {
			continue
		}
		if !(x.Base[0] >= 0 && x.Base[0] <= x.Base[1]+1 && x.Base[1] < 1e9) || !(x.P0 >= p0Floor && x.P0 <= p0Cap) || x.At > latest || x.Seen > latest || x.Started > latest || x.Struck > latest {
			return errors.New("a baseline out of range")
		}
		w.base[i] = baseline{Failed: x.Base[0], Tried: x.Base[1], At: x.At, Worked: x.Worked, p0: x.P0}
		w.refSeen[i], w.started[i], w.struck[i], w.covered[i] = x.Seen, x.Started, x.Struck, x.Covered && w.target[i]
		covered = covered || w.covered[i]
	}
	w.poolFailed, w.poolTried = s.Pool[0], s.Pool[1]
	w.last, w.begun, w.clock = s.Last, s.Begun, s.Clock
	w.episode, w.flaps, w.paged, w.extra = s.Episode, s.Flaps, s.Paged, s.Extra
	w.tokens, w.tokensAt = min(s.Tokens, w.capacity), s.TokensAt
	if (s.State == Blocked || s.State == Recovering) && (scope < 0 || !covered) {
		return nil // what was blocked is watched no longer
	}
	w.state, w.since, w.scopeN, w.onset, w.known, w.score = s.State, s.Since, scope, s.Onset, s.Known, s.Score
	w.d, w.dFrom, w.dOK, w.dAsked, w.detector.rate, w.settled, w.calls = s.D, s.DFrom, s.DCount[0], s.DCount[1], s.Rate, s.Settled, s.Tally
	if s.Layout != w.layout() {
		w.ground()
		return nil
	}

	if len(s.A) != len(w.a) {
		return errors.New("a filter of another size")
	}
	sum := 0.0
	for _, row := range s.A {
		for _, x := range row {
			if !(x >= 0 && x <= 1+1e-6) {
				return errors.New("a filter out of range")
			}
			sum += x
		}
	}
	if !(s.Mass >= tiny && math.Abs(sum/s.Mass-1) <= 1e-6) {
		return errors.New("a filter out of range")
	}
	copy(w.a, s.A)
	w.mass = s.Mass
	for _, h := range s.Awake {
		if h.K < 0 || h.K >= len(w.hyp) || w.hyp[h.K].awake || !(h.W >= 0 && h.W < 1e9) || h.Since > latest || h.Failed > latest {
			return errors.New("a hypothesis out of range")
		}
		sum := 0.0
		for _, x := range h.B {
			if !(x >= -1e-6 && x <= 1+1e-6) {
				return errors.New("a hypothesis out of range")
			}
			sum += x
		}
		if math.Abs(sum-1) > 1e-6 {
			return errors.New("a hypothesis out of range")
		}
		w.hyp[h.K] = hypothesis{awake: true, w: h.W, since: h.Since, failed: h.Failed, b: h.B, counts: h.Tally}
		w.awake++
	}
	switch {
	case s.Overlay == vantageStates[vDown].name:
		w.overlay = overlayVantage
	default:
		w.overlay = max(0, slices.IndexFunc(w.b, func(b benign) bool { return b.name == s.Overlay }))
	}
	if len(s.Flights) > cap(w.flights) {
		return errors.New("too many probes in flight")
	}
	ours := 0
	for _, f := range s.Flights {
		if f.Stream < 0 || int(f.Stream) >= len(w.streams) || f.State > void || f.Start > latest || f.Known > latest+w.limit {
			return errors.New("a probe in flight out of range")
		}
		x := flight{stream: f.Stream, start: f.Start, known: f.Known, state: f.State, extra: f.Extra, ours: f.Ours}
		if n := len(w.flights); n > 0 && w.before(&x, &w.flights[n-1]) {
			return errors.New("probes in flight out of order")
		}
		if x.ours {
			ours++
		}
		w.flights = append(w.flights, x)
	}
	for _, x := range s.Streams {
		if i := slices.Index(keys, x.Key); i >= 0 && x.Asked {
			w.asked[i] = true
			w.waiting++
		}
	}
	if s.Open != ours+w.waiting || s.Recheck < -1 || s.Recheck >= len(w.streams) || s.Next > latest+daySeconds*second {
		return errors.New("a confirmation out of range")
	}
	w.open, w.owed, w.askedAt, w.next, w.round, w.recheck, w.light = s.Open, s.Owed, s.AskedAt, s.Next, s.Round, s.Recheck, s.Light
	return nil
}

// ground drops everything that only makes sense soon after: evidence, probes in
// flight, confirmations. What was decided stays.
func (w *watch) ground() {
	w.forget()
	w.flights = w.flights[:0]
	clear(w.asked)
	w.open, w.waiting, w.next, w.owed, w.recheck = 0, 0, 0, false, -1
	if w.state == Suspect {
		w.state, w.scopeN, w.known, w.score = OK, -1, false, 0
	}
}
