package onset

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestRestart: a restart at any point changes no event.
func TestRestart(t *testing.T) {
	for _, name := range []string{"hard_ip", "partial50", "flapping", "x_vantage_outage", "under_burst"} {
		w := scenario(name, 11, usual)
		want, _ := play(w, Config{})
		var got []Event
		p := newPlayer(w.engine(Config{}), func(e *Event) { got = append(got, *e) })
		p.ask = w.asker()
		n, largest := 0, 0
		every := 53 // outcomes between two restarts; no stream is always the same one's
		if name == "flapping" {
			every = 7
		}
		w.each(func(s int, at int64, a answer) {
			if n++; n%every == 0 {
				b, err := p.e.Marshal(time.Unix(0, at))
				if err != nil {
					t.Fatal(err)
				}
				largest = max(largest, len(b))
				e := w.engine(Config{})
				if err := e.Unmarshal(b, time.Unix(0, at)); err != nil {
					t.Fatal(err)
				}
				p.e = e
				if b2, _ := e.Marshal(time.Unix(0, at)); !bytes.Equal(b, b2) {
					t.Fatalf("a snapshot of a restored engine is another:\n%s\n%s", b, b2)
				}
			}
			p.regular(s, at, a)
		})
		p.finish()
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s: %s", name, d)
		}
		if len(want) == 0 || largest > 64<<10 {
			t.Errorf("%s: %d events, a snapshot of %d bytes", name, len(want), largest)
		}
	}
}

// blockedEngine is an engine an hour into a block.
func blockedEngine(t testing.TB) (*world, *Engine, []byte, time.Time) {
	o := usual
	o.env = calm
	w := newWorld(12, o)
	w.block("telegram", 3600, 99999, "ip_drop", 1, 0)
	e := w.engine(Config{})
	w.run(e, func(*Event) {})
	now := worldTime(w.length)
	b, err := e.Marshal(now)
	if err != nil {
		t.Fatal(err)
	}
	if s, _ := e.Status("telegram"); s.State != Blocked {
		t.Fatalf("%+v", s)
	}
	return w, e, b, now
}

// TestRestartInBlock: after a long time away the block is still the same
// episode: it neither pages again nor forgets its onset. The same with another
// set of streams, as after an update of the catalogue.
func TestRestartInBlock(t *testing.T) {
	w, old, b, now := blockedEngine(t)
	before, _ := old.Status("telegram")
	for _, away := range []time.Duration{time.Second, time.Hour, 40 * 24 * time.Hour} {
		for _, drop := range []int{-1, 0, 14} {
			var ss []Stream
			for i, s := range w.streams {
				if i != drop {
					ss = append(ss, s.Stream)
				}
			}
			e, err := New(ss, Config{Timeout: 5 * time.Second})
			if err != nil {
				t.Fatal(err)
			}
			at := now.Add(away)
			if err := e.Unmarshal(b, at); err != nil {
				t.Fatal(err)
			}
			var evs []Event
			p := newPlayer(e, func(ev *Event) { evs = append(evs, *ev) })
			p.ask = func(int, int64) (answer, bool) { return answer{}, false }
			for n := range int64(60) {
				for i, s := range ss {
					ok := s.Messenger != "telegram" || s.Role != Target || s.Family == DNS
					p.regular(i, at.UnixNano()+n*60*second+int64(i)*second, answer{ok: ok, took: 2e8})
				}
			}
			p.finish()
			s, _ := e.Status("telegram")
			if s.State != Blocked || s.Episode != 1 || !s.Onset.Equal(before.Onset) {
				t.Errorf("away %v, without stream %d: %+v", away, drop, s)
			}
			for _, ev := range evs {
				if ev.Page() {
					t.Errorf("away %v, without stream %d: %+v", away, drop, ev)
				}
			}
		}
	}
}

// TestBadSnapshot: what cannot be is refused, and leaves the engine as it was.
func TestBadSnapshot(t *testing.T) {
	w, _, good, now := blockedEngine(t)
	forge := func(change func(s *savedEngine)) []byte {
		_, body, _ := bytes.Cut(good, []byte("\n"))
		var s savedEngine
		if err := json.Unmarshal(body, &s); err != nil {
			t.Fatal(err)
		}
		change(&s)
		body, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Appendf(nil, "%s %d %08x %d\n%s\n", snapshotMagic, snapshotVer, crc32.ChecksumIEEE(body), len(body), body)
	}
	tg := func(s *savedEngine) *savedWatch { return &s.Watches[1] }
	for name, c := range map[string]struct {
		data []byte
		want error
	}{
		"empty":         {nil, ErrForeign},
		"foreign":       {[]byte("{\"a\":1}\n"), ErrForeign},
		"other version": {bytes.Replace(good, []byte(" 2 "), []byte(" 1 "), 1), ErrForeign},
		"huge":          {make([]byte, maxSnapshot+1), ErrForeign},
		"torn":          {good[:len(good)/2], ErrTorn},
		"longer":        {append(bytes.Clone(good), 'x'), ErrTorn},
		"a flipped bit": {append(append(bytes.Clone(good[:500]), good[500]^1), good[501:]...), ErrTorn},
		"future":        {forge(func(s *savedEngine) { s.Saved += int64(time.Hour) }), ErrFuture},
		"state":         {forge(func(s *savedEngine) { tg(s).State = "asleep" }), ErrTorn},
		"scope":         {forge(func(s *savedEngine) { tg(s).Scope = "nothing" }), ErrTorn},
		"filter":        {forge(func(s *savedEngine) { tg(s).A[0][0] = 2 }), ErrTorn},
		"filter sum":    {forge(func(s *savedEngine) { clear(tg(s).A) }), ErrTorn},
		"filter size":   {forge(func(s *savedEngine) { tg(s).A = tg(s).A[1:] }), ErrTorn},
		"time":          {forge(func(s *savedEngine) { tg(s).Last += int64(1e18) }), ErrTorn},
		"baseline":      {forge(func(s *savedEngine) { tg(s).Streams[0].Base[0] = -1 }), ErrTorn},
		"rate":          {forge(func(s *savedEngine) { tg(s).Rate = 7 }), ErrTorn},
		"open":          {forge(func(s *savedEngine) { tg(s).Open = 3 }), ErrTorn},
		"flight":        {forge(func(s *savedEngine) { tg(s).Flights = []savedFlight{{Stream: 999}} }), ErrTorn},
		"flights":       {forge(func(s *savedEngine) { tg(s).Flights = make([]savedFlight, 100000) }), ErrTorn},
		"hypothesis":    {forge(func(s *savedEngine) { tg(s).Awake = []savedHypothesis{{K: -1}} }), ErrTorn},
		"recheck":       {forge(func(s *savedEngine) { tg(s).Recheck = 1000 }), ErrTorn},
	} {
		e := w.engine(Config{})
		before, _ := e.Marshal(now)
		if err := e.Unmarshal(c.data, now); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
		if after, _ := e.Marshal(now); !bytes.Equal(before, after) {
			t.Errorf("%s: the engine is another", name)
		}
	}
	e := w.engine(Config{})
	if err := e.Unmarshal(forge(func(*savedEngine) {}), now); err != nil {
		t.Error(err)
	}
	if !strings.HasPrefix(string(good), "messenger-probe-onset 2 ") {
		t.Errorf("%.40s", good)
	}
}

func FuzzSnapshot(f *testing.F) {
	w, _, good, now := blockedEngine(f)
	_, body, _ := bytes.Cut(good, []byte("\n"))
	f.Add(body)
	f.Add([]byte(`{"saved":0,"watches":[{"messenger":"telegram","state":"suspect","rate":0.5}]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		data := fmt.Appendf(nil, "%s %d %08x %d\n%s\n", snapshotMagic, snapshotVer, crc32.ChecksumIEEE(body), len(body), body)
		e := w.engine(Config{})
		if err := e.Unmarshal(data, now); err != nil {
			return
		}
		// Whatever was believed must be lived with.
		p := newPlayer(e, func(*Event) {})
		p.ask = func(_ int, at int64) (answer, bool) { return answer{ok: at%3 == 0, took: 1e9}, true }
		for k := range int64(300) {
			p.regular(int(k)%len(w.streams), now.UnixNano()+k*second, answer{ok: k%5 != 0, took: second})
		}
		p.finish()
		sane(t, e)
		if _, err := e.Marshal(now); err != nil {
			t.Fatal(err)
		}
	})
}
