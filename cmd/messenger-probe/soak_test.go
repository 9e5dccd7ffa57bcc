package main

import (
	"context"
	"hash/maphash"
	"io"
	"log/slog"
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/messenger-probe/messenger-probe/cmd/internal/agent"
	"github.com/messenger-probe/messenger-probe/cmd/internal/events"
	"github.com/messenger-probe/messenger-probe/probe"
)

// TestSoak lets the agent live with its default schedule, in a world in which
// addresses change, packets are lost, messengers are blocked and the line goes
// down, with reloads, and wants everything that it holds to stay as large as it
// was: the heap, the goroutines, the series, the files. It lives for 20 minutes, or
// for SOAK_DAYS=90 days, which takes long: half a minute for each hour, or less
// where SOAK_INTERVAL=1h makes the schedule sparser.
func TestSoak(t *testing.T) {
	day := 5 * time.Minute // of that world
	days := 4
	if s := os.Getenv("SOAK_DAYS"); s != "" {
		var err error
		if days, err = strconv.Atoi(s); err != nil || days < 2 {
			t.Fatalf("SOAK_DAYS=%s: want a number of days, 2 at least", s)
		}
		day = 24 * time.Hour
	}
	interval := "1m"
	if s := os.Getenv("SOAK_INTERVAL"); s != "" {
		interval = s
	}
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		d := quiet(t, "messengers: [whatsapp, telegram, max]\ninterval: "+interval+"\nstate_dir: "+dir+"\n")
		var err error
		if d.events, err = events.Open(dir, func(err error) { t.Error(err) }); err != nil {
			t.Fatal(err)
		}
		defer d.events.Close()
		d.recollect(dir)
		w := life{began: time.Now(), day: day, seed: maphash.MakeSeed()}
		first := d.plan.Load()
		d.agent = agent.New(agent.Options{Net: &probe.Host{}, Sink: d, Log: slog.New(slog.DiscardHandler)})
		d.adopt(w.plan(first), nil)

		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- d.agent.Run(ctx) }()
		var sizes []held
		for i := range days {
			for range 4 {
				for end := time.Now().Add(day / 4); time.Now().Before(end); time.Sleep(time.Minute) {
					d.save()
				}
				d.adopt(w.plan(first), nil)
			}
			synctest.Wait()
			sizes = append(sizes, d.size(t, dir))
			t.Logf("day %2d: %+v", i+1, sizes[len(sizes)-1])
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}

		// What a day leaves behind must not add up. Go's heap is measured after a
		// collection, and still differs by what happens to be in flight.
		from, to := sizes[0], sizes[len(sizes)-1]
		if days > 7 {
			from, to = middle(sizes[:7]), middle(sizes[len(sizes)-7:])
		}
		for _, s := range []struct {
			what      string
			was, is   float64
			give, add float64
		}{
			{"heap (MB)", from.Heap, to.Heap, 1.1, 2},
			{"goroutines", from.Goroutines, to.Goroutines, 1, 40},
			{"series", from.Series, to.Series, 1.1, 100},
			{"state.json (kB)", from.State, to.State, 1.1, 50},
		} {
			if s.is > s.was*s.give+s.add {
				t.Errorf("%s: %.1f in the beginning, %.1f in the end", s.what, s.was, s.is)
			}
		}
		if to.History > 1000 {
			t.Errorf("history.log: %.0f kB", to.History)
		}
		if to.Events > 8500 {
			t.Errorf("events.jsonl: %.0f kB", to.Events)
		}
		if len(d.events.Recent()) == 0 {
			t.Error("nothing happened in all that time")
		}
	})
}

// held is what an agent holds.
type held struct {
	Heap               float64 // MB
	Goroutines, Series float64
	State, History     float64 // kB on disk
	Events             float64
}

func (d *daemon) size(t *testing.T, dir string) held {
	t.Helper()
	var s held
	for line := range strings.Lines(scraped(t, d)) {
		if !strings.HasPrefix(line, "#") {
			s.Series++
		}
	}
	doc := d.document()
	if err := doc.Write(io.Discard); err != nil {
		t.Error(err)
	}
	runtime.GC()
	runtime.GC() // pools give back in two
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	s.Heap, s.Goroutines = math.Round(float64(m.HeapAlloc)/1e4)/100, float64(runtime.NumGoroutine())
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		info, err := os.Stat(filepath.Join(dir, f.Name()))
		if err != nil {
			t.Fatal(err)
		}
		switch kb := math.Round(float64(info.Size()) / 1e3); {
		case f.Name() == "state.json":
			s.State = kb
		case f.Name() == "history.log":
			s.History = kb
		case strings.HasPrefix(f.Name(), "events.jsonl"):
			s.Events += kb
		default:
			t.Errorf("%s is left in the state folder", f.Name())
		}
	}
	return s
}

// middle is the median of each.
func middle(sizes []held) held {
	m := func(get func(*held) float64) float64 {
		var v []float64
		for i := range sizes {
			v = append(v, get(&sizes[i]))
		}
		slices.Sort(v)
		return v[len(v)/2]
	}
	return held{m(func(s *held) float64 { return s.Heap }), m(func(s *held) float64 { return s.Goroutines }),
		m(func(s *held) float64 { return s.Series }), m(func(s *held) float64 { return s.State }),
		m(func(s *held) float64 { return s.History }), m(func(s *held) float64 { return s.Events })}
}

// A life is a world that changes with time and by chance, not with what it is asked.
type life struct {
	began time.Time
	day   time.Duration
	seed  maphash.Seed
}

// plan is p asked of this world; some endpoints are other ones each quarter of a day.
func (w life) plan(p *planned) *planned {
	q := *p
	q.checks = slices.Clone(p.checks)
	era := int(time.Since(w.began) / (w.day / 4))
	for i := range q.checks {
		c := &q.checks[i]
		if i%20 == era%20 {
			c.Target += " era " + strconv.Itoa(era)
		}
		c.Prober = living{w, *c}
	}
	return &q
}

// living asks one check of the world.
type living struct {
	life
	check probe.Check
}

func (l living) Probe(ctx context.Context, _ probe.Net) []probe.Step {
	now := time.Now()
	dice := maphash.Comparable(l.seed, [2]any{l.check.ID(), now.UnixNano()})
	addr := netip.AddrPortFrom(netip.AddrFrom4([4]byte{203, byte(dice >> 8), byte(dice >> 16), 1}), 443)
	s := probe.Step{Op: probe.OpConnect, Start: now, Addr: addr}
	if l.check.Protocol == probe.ProtoDNS {
		s.Op, s.DNS = probe.OpResolve, &probe.DNSInfo{Transport: "udp", Name: l.check.Endpoint + ".example", Type: 1, Queries: 1,
			Replies: []probe.DNSReply{{Counts: true, Addrs: []netip.Addr{addr.Addr()}}}, Answers: []netip.Addr{addr.Addr()}}
	}
	if l.lost(now.Sub(l.began)) || dice%100 == 0 {
		<-ctx.Done()
		s.Took, s.Failure, s.Err = time.Since(now), probe.Classify(ctx.Err()), ctx.Err()
		if s.DNS != nil {
			s.DNS.Replies, s.DNS.Answers = nil, nil
		}
		return []probe.Step{s}
	}
	time.Sleep(time.Duration(20+dice%30) * time.Millisecond)
	s.Took = time.Since(now)
	return []probe.Step{s}
}

// lost says what is silent at a time: one messenger or another for a quarter of
// each day, calls for days, everything for a while each day, and Telegram now and
// then.
func (l living) lost(at time.Duration) bool {
	day := int(at / l.day)
	part := int(at % l.day * 72 / l.day) // of 20 minutes, in a day of 24 hours
	if part == 10 {
		return true
	}
	c := &l.check
	switch {
	case c.Messenger == probe.Control:
		return false
	case c.Function == "calls":
		return day%10 >= 7
	case part > 24 && part < 42:
		return c.Messenger == [...]string{"whatsapp", "telegram", "max"}[day%3]
	}
	return part > 54 && part%2 == 0 && c.Messenger == "telegram"
}
