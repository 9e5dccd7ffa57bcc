package notify

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/messenger-probe/messenger-probe/probe/verdict"
)

// An office is a notifier and the servers that it notifies, in simulated time.
type office struct {
	*Notifier
	log   log
	disk  *disk
	hooks map[string]*hook
	wires map[string]*wire
	stop  func() // as SIGTERM does, and waits
}

// open starts an office that tells these targets, with what the disk has.
func open(t *testing.T, d *disk, names ...string) *office {
	o := &office{disk: d, hooks: map[string]*hook{}, wires: map[string]*wire{}}
	var store Store
	if d != nil {
		store = d
	}
	o.Notifier = New(Options{Window: 30 * time.Second, Store: store, Log: slog.New(slog.NewJSONHandler(&o.log, nil))})
	o.Set(o.audience(t, names...))
	o.run(t)
	return o
}

func (o *office) run(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); o.Run(ctx) }()
	o.stop = func() { cancel(); <-done }
}

// audience is targets over HTTP in memory, each with a server of its own.
func (o *office) audience(t *testing.T, names ...string) *Audience {
	a, err := NewAudience(AudienceOptions{On: []verdict.State{blocked}, Language: "en"})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if o.hooks[name] == nil {
			o.hooks[name] = &hook{}
			o.wires[name] = newWire(t, o.hooks[name])
		}
		s := one(t, Target{Type: "webhook", URL: "http://hooks/" + name})
		s.(*webhook).client.Transport.(*http.Transport).DialContext = o.wires[name].dial
		a.names, a.kinds, a.senders = append(a.names, name), append(a.kinds, "webhook"), append(a.senders, s)
	}
	return a
}

// turn is a change, as the agent tells it.
func (o *office) turn(function string, state verdict.State) {
	c := turned(function, unknown, state)
	c.Since = time.Now().UTC().Truncate(time.Second)
	o.Changed(c)
}

func (o *office) took(t *testing.T, name string, want ...string) {
	t.Helper()
	if d := cmp.Diff(append([]string{}, want...), o.hooks[name].titles()); d != "" {
		t.Errorf("%s: %s", name, d)
	}
}

// wait lets time pass, and what is under way come to rest.
func wait(d time.Duration) { time.Sleep(d); synctest.Wait() }

const (
	chatBlocked = "Telegram blocked: chat"
	chatWorks   = "Telegram works again: chat"
)

func TestDelivers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := open(t, &disk{}, "a", "b")
		o.turn("chat", blocked)
		wait(10 * time.Second)
		o.turn("calls", blocked)
		wait(19 * time.Second)
		o.took(t, "a")
		wait(2 * time.Second)
		o.turn("chat", ok)
		wait(time.Minute)
		for _, n := range []string{"a", "b"} {
			o.took(t, n, "Telegram blocked: calls, chat", chatWorks)
		}
		wait(24 * time.Hour)
		if o.hooks["a"].tries() != 2 || len(o.box) != 0 {
			t.Errorf("%d tries, %d wait", o.hooks["a"].tries(), len(o.box))
		}
		o.stop()
	})
}

// While the vantage is ill nothing is told, and afterwards only what is so.
func TestIllVantage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := open(t, nil, "a")
		show := func(s verdict.State) {
			o.Shown([]verdict.Verdict{{Messenger: "telegram", Function: "chat", State: s, Mechanism: verdict.PortBlock, Confidence: verdict.High}})
		}
		o.turn("chat", blocked)
		wait(10 * time.Second)
		o.turn("chat", unknown)
		show(unknown)
		wait(time.Hour)
		o.took(t, "a")
		show(blocked)
		wait(time.Second)
		o.took(t, "a", chatBlocked)
		o.stop()
	})
}

// A server that is down gets all in order when it is back; another waits for it
// not a moment. It is tried ever less often.
func TestDownAndUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := open(t, &disk{}, "a", "b")
		o.wires["a"].fail(true)
		o.turn("chat", blocked)
		wait(time.Minute)
		o.turn("chat", ok)
		wait(time.Minute)
		o.took(t, "b", chatBlocked, chatWorks)
		wait(5 * time.Hour)
		o.took(t, "a")
		o.wires["a"].fail(false)
		wait(11 * time.Minute)
		o.took(t, "a", chatBlocked, chatWorks)
		if s := o.log.String(); strings.Count(s, `"level":"WARN"`) != 1 || strings.Count(s, "takes them again") != 1 {
			t.Errorf("said more than once:\n%s", s)
		}
		o.stop()
	})
}

// How answers that are none are taken: when there is another try, and whether
// there is one.
func TestAnswers(t *testing.T) {
	for _, c := range []struct {
		name   string
		answer func(n int, w http.ResponseWriter, r *http.Request) bool
		tries  int           // until it is taken or given up
		least  time.Duration // before the second try
		most   time.Duration
		lost   bool
	}{
		{"500", func(n int, w http.ResponseWriter, _ *http.Request) bool { return n == 3 || fail(w, 500) }, 4, 2500 * time.Millisecond, 5 * time.Second, false},
		{"429", func(n int, w http.ResponseWriter, _ *http.Request) bool {
			w.Header().Set("Retry-After", "600")
			return n == 1 || fail(w, 429)
		}, 2, 10 * time.Minute, 10 * time.Minute, false},
		{"for ever", func(n int, w http.ResponseWriter, _ *http.Request) bool {
			w.Header().Set("Retry-After", "99999999")
			return n == 1 || fail(w, 503)
		}, 2, time.Hour, time.Hour, false},
		{"refused", func(n int, w http.ResponseWriter, _ *http.Request) bool { return fail(w, 400) }, 1, 0, 0, true},
		{"not let in", func(n int, w http.ResponseWriter, _ *http.Request) bool { return n == 1 || fail(w, 401) }, 2, time.Hour, time.Hour, false},
		{"hangs", func(n int, _ http.ResponseWriter, r *http.Request) bool {
			if n == 0 {
				<-r.Context().Done()
			}
			return n > 0
		}, 2, patience + 2500*time.Millisecond, patience + 5*time.Second, false},
		{"never", func(n int, w http.ResponseWriter, _ *http.Request) bool { return fail(w, 502) }, -1, 0, time.Minute, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := open(t, &disk{}, "a")
				o.hooks["a"].set(c.answer)
				o.turn("chat", blocked)
				wait(life + time.Hour)
				asked := o.hooks["a"].asked
				if c.tries >= 0 && len(asked) != c.tries || c.tries < 0 && (len(asked) < 70 || len(asked) > 170) {
					t.Fatalf("%d tries", len(asked))
				}
				if len(asked) > 1 {
					if d := asked[1].Sub(asked[0]); d < c.least || d > c.most {
						t.Errorf("tried again after %v", d)
					}
				}
				if c.lost == (len(o.hooks["a"].titles()) == 1) || c.lost != strings.Contains(o.log.String(), "lost") || len(o.box) != 0 {
					t.Errorf("%q, %d wait:\n%s", o.hooks["a"].titles(), len(o.box), &o.log)
				}
				o.stop()
			})
		})
	}
}

func fail(w http.ResponseWriter, code int) bool { w.WriteHeader(code); return false }

// A clean stop tells what waits, within two seconds, and leaves the rest for the
// next start, which repeats nothing.
func TestStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &disk{}
		o := open(t, d, "good", "hung")
		o.hooks["hung"].set(func(_ int, _ http.ResponseWriter, r *http.Request) bool { <-r.Context().Done(); return false })
		o.turn("chat", blocked)
		wait(time.Second)
		o.turn("calls", blocked)
		start := time.Now()
		o.stop()
		if took := time.Since(start); took > farewell {
			t.Errorf("took %v", took)
		}
		o.took(t, "good", "Telegram blocked: calls, chat")

		next := &office{disk: d, hooks: o.hooks, wires: o.wires}
		next.hooks["hung"].set(nil)
		next.Notifier = New(Options{Window: 30 * time.Second, Store: d, Log: slog.New(slog.NewJSONHandler(&next.log, nil))})
		next.Set(next.audience(t, "good", "hung"))
		next.run(t)
		next.turn("chat", blocked) // found again at the start
		wait(time.Hour)
		next.took(t, "good", "Telegram blocked: calls, chat")
		next.took(t, "hung", "Telegram blocked: calls, chat")
		next.stop()
	})
}

// Killed at any time, the next run knows what was told and what was not. What
// was delivered and not yet noted comes twice, with one id.
func TestKilled(t *testing.T) {
	for _, after := range []time.Duration{time.Second, 29 * time.Second, 31 * time.Second, 5 * time.Minute} {
		t.Run(fmt.Sprint(after), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := &disk{}
				o := open(t, d, "a")
				o.wires["a"].fail(true)
				o.turn("chat", blocked)
				wait(after)
				b := d.b // what a kill leaves
				o.wires["a"].fail(false)
				o.stop()

				again := open(t, &disk{b: b}, "a")
				again.Shown([]verdict.Verdict{{Messenger: "telegram", Function: "chat", State: blocked}})
				wait(time.Hour)
				again.took(t, "a", chatBlocked)
				again.stop()
			})
		})
	}
	t.Run("between delivery and note", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			d := &disk{}
			o := open(t, d, "a")
			var b []byte
			o.hooks["a"].set(func(int, http.ResponseWriter, *http.Request) bool {
				d.mu.Lock()
				defer d.mu.Unlock()
				b = d.b
				return true
			})
			o.turn("chat", blocked)
			wait(time.Minute)
			o.stop()
			again := open(t, &disk{b: b}, "a")
			wait(time.Minute)
			again.took(t, "a", chatBlocked)
			if x, y := o.hooks["a"].took[0].ID, again.hooks["a"].took[0].ID; x != y || x == "" {
				t.Errorf("ids %q and %q", x, y)
			}
			again.stop()
		})
	})
}

// Without a place to keep it, what waits is in memory alone, which is said once,
// and told all the same.
func TestFullDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &disk{full: true}
		o := open(t, d, "a")
		for _, s := range []verdict.State{blocked, ok} {
			o.turn("chat", s)
			wait(time.Minute)
		}
		o.took(t, "a", chatBlocked, chatWorks)
		d.mu.Lock()
		d.full = false
		d.mu.Unlock()
		o.turn("calls", blocked)
		wait(time.Minute)
		o.stop()
		if s := o.log.String(); strings.Count(s, "cannot be kept") != 1 || strings.Count(s, "kept again") != 1 || d.saves < 4 {
			t.Errorf("%d saves:\n%s", d.saves, s)
		}
	})
}

// A file that cannot be read is said, and replaced.
func TestCorruptFile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &disk{b: []byte(`{"accounts":[{"told":"blo`)}
		o := open(t, d, "a")
		o.turn("chat", blocked)
		wait(time.Minute)
		o.took(t, "a", chatBlocked)
		o.stop()
		if s := o.log.String(); strings.Count(s, "not readable") != 1 {
			t.Error(s)
		}
		if err := d.Load(&memory{}); err != nil {
			t.Error(err)
		}
	})
}

// What the clock of another run says makes nothing wait for years; what is too
// old by it is not told.
func TestClockJump(t *testing.T) {
	for jump, want := range map[time.Duration]int{0: 1, 10 * time.Hour: 1, 13 * time.Hour: 0, -1000 * time.Hour: 1} {
		synctest.Test(t, func(t *testing.T) {
			m := &message{ID: "X", Time: time.Now().Add(-jump), Changes: []Change{turned("chat", ok, blocked)}, To: []string{"a"}}
			d := &disk{}
			d.Save(memory{Outbox: []*message{m}})
			o := open(t, d, "a")
			wait(time.Minute)
			if n := len(o.hooks["a"].titles()); n != want {
				t.Errorf("after %v: %d", jump, n)
			}
			o.stop()
		})
	}
}

// A reload: a target that stays keeps what waits for it and is tried at once, one
// that is gone is told nothing, a new one only what comes.
func TestSet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := open(t, &disk{}, "stays", "goes")
		o.wires["stays"].fail(true)
		o.wires["goes"].fail(true)
		o.turn("chat", blocked)
		wait(2 * time.Hour)
		o.wires["stays"].fail(false)
		o.wires["goes"].fail(false)
		o.Set(o.audience(t, "stays", "new"))
		wait(time.Second)
		o.took(t, "stays", chatBlocked)
		o.turn("chat", ok)
		wait(time.Hour)
		o.took(t, "stays", chatBlocked, chatWorks)
		o.took(t, "new", chatWorks)
		o.took(t, "goes")
		o.Set(o.audience(t)) // nobody
		o.turn("chat", blocked)
		wait(time.Hour)
		o.took(t, "stays", chatBlocked, chatWorks)
		if len(o.ledger.accounts) != 0 {
			t.Error("it is remembered what nobody was told")
		}
		o.stop()
	})
}

// A disk and a server that hang hold nobody up who tells of changes.
func TestNeverBlocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		n := New(Options{Store: stuck(release), Log: slog.New(slog.DiscardHandler)})
		n.Set((&office{hooks: map[string]*hook{}, wires: map[string]*wire{}}).audience(t, "a"))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); n.Run(ctx) }()
		synctest.Wait()
		for i := range 10000 {
			n.Changed(turned(fmt.Sprint(i%20), ok, []verdict.State{blocked, ok}[i/20%2]))
			n.Shown(nil)
		}
		if len(n.ledger.accounts) > 20 {
			t.Errorf("%d accounts", len(n.ledger.accounts))
		}
		close(release)
		cancel()
		<-done
	})
}

// stuck is a disk that does not answer until it is let go.
type stuck chan struct{}

func (s stuck) Load(any) error { return nil }
func (s stuck) Save(any) error { <-s; return errors.New("stuck") }
