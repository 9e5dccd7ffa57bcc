package notify

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/messenger-probe/messenger-probe/probe/verdict"
)

const (
	ok          = verdict.OK
	blocked     = verdict.Blocked
	degraded    = verdict.Degraded
	unreachable = verdict.Unreachable
	unknown     = verdict.Unknown
)

// A book is a ledger and what it said, with the clock of the test.
type book struct {
	ledger
	now   time.Time
	state map[string]verdict.State
	said  []string
}

func newBook(on ...verdict.State) *book {
	return &book{ledger: ledger{on: on, window: 30 * time.Second, accounts: map[key]*account{}}, now: began, state: map[string]verdict.State{}}
}

// turn changes a function's state.
func (b *book) turn(function string, to verdict.State, relapse bool) {
	was := b.state[function]
	if was == "" {
		was = unknown
	}
	c := turned(function, was, to)
	c.Since, c.Relapse = b.now, relapse
	b.state[function] = to
	b.change(b.now, c)
}

// pass lets time pass, as Run does: it judges each second and takes what is due.
func (b *book) pass(d time.Duration) {
	for end := b.now.Add(d); b.now.Before(end); b.now = b.now.Add(time.Second) {
		b.judge()
		var line []string
		for _, c := range b.take(b.now, false) {
			again := ""
			if c.Relapse {
				again = " again"
			}
			line = append(line, c.Function+" "+string(c.State)+again)
		}
		if line != nil {
			b.said = append(b.said, fmt.Sprintf("%v %s", b.now.Sub(began), strings.Join(line, ", ")))
		}
	}
}

func (b *book) judge() {
	var vs []verdict.Verdict
	for f, s := range b.state {
		vs = append(vs, verdict.Verdict{Messenger: "telegram", Function: f, State: s, Mechanism: verdict.PortBlock, Confidence: verdict.High})
	}
	b.show(vs)
}

// What is told of a story, and when.
func TestLedger(t *testing.T) {
	// A story is steps such as "chat blocked 10s": it turns, then time passes. A
	// "!" is a relapse in the agent's eyes.
	for _, c := range []struct {
		name  string
		on    []verdict.State
		story []string
		want  []string
	}{
		{"onset and recovery", nil, []string{"chat ok 5m", "chat blocked 1h", "chat ok 1h"},
			[]string{"5m30s chat blocked", "1h5m30s chat ok"}},
		{"what is found at the start", nil, []string{"chat blocked 1h", "chat ok 1m"}, []string{"30s chat blocked", "1h0m30s chat ok"}},
		{"several in one message", nil, []string{"chat blocked 10s", "calls blocked 10s", "web blocked 1h"},
			[]string{"30s calls blocked, chat blocked, web blocked"}},
		{"several apart", nil, []string{"chat blocked 31s", "calls blocked 1h"}, []string{"30s chat blocked", "1m1s calls blocked"}},
		{"a blink", nil, []string{"chat ok 5m", "chat blocked 29s", "chat ok 1h"}, nil},
		{"a blink of health", nil, []string{"chat blocked 1h", "chat ok 29s", "chat blocked! 1h"}, []string{"30s chat blocked"}},
		{"the vantage is ill", nil, []string{"chat ok 5m", "chat unknown 3h", "chat ok 1h"}, nil},
		{"the vantage falls ill after a cry of its", nil, []string{"chat ok 5m", "chat blocked 10s", "chat unknown 3h", "chat ok 1h"}, nil},
		{"the vantage falls ill in a block", nil, []string{"chat blocked 10s", "chat unknown 1h", "chat =blocked 1h", "chat ok 1m"},
			[]string{"1h0m10s chat blocked", "2h0m40s chat ok"}},
		{"what is not shown is not told with others", nil, []string{"chat blocked 10s", "chat unknown 1s", "calls blocked 1h"}, []string{"41s calls blocked"}},
		{"a long illness in a block", nil, []string{"chat blocked 1h", "chat unknown 3h", "chat blocked 1h", "chat ok 1m"},
			[]string{"30s chat blocked", "5h0m30s chat ok"}},
		{"illness hides the end", nil, []string{"chat blocked 1h", "chat unknown 3h", "chat ok 1h"}, []string{"30s chat blocked", "4h0m30s chat ok"}},
		{"other trouble is not asked for", nil, []string{"chat ok 1m", "chat degraded 3h", "chat unreachable 3h", "chat ok 1h"}, nil},
		{"other trouble is asked for", []verdict.State{blocked, degraded, unreachable}, []string{"chat ok 1m", "chat degraded 3h", "chat unreachable 3h", "chat ok 1h"},
			[]string{"1m30s chat degraded", "3h1m30s chat unreachable", "6h1m30s chat ok"}},
		{"between two blocks it is bad otherwise", nil, []string{"chat blocked 1h", "chat degraded 2h", "chat blocked 1h", "chat ok 1m"},
			[]string{"30s chat blocked", "3h0m30s chat blocked", "4h0m30s chat ok"}},
		{"a shade within an episode", nil, []string{"chat blocked 1h", "chat degraded 5m", "chat blocked! 1h", "chat ok 1m"},
			[]string{"30s chat blocked", "2h5m30s chat ok"}},
		{"bad otherwise, and over", nil, []string{"chat blocked 1h", "chat degraded 1h", "chat ok 1m"}, []string{"30s chat blocked", "2h0m30s chat ok"}},
		{"a relapse", nil, []string{"chat blocked 20m", "chat ok 10m", "chat blocked! 20m", "chat ok 2h"},
			[]string{"30s chat blocked", "20m30s chat ok", "30m30s chat blocked again", "1h20m0s chat ok"}},
		{"flapping", nil, []string{"chat blocked 5m", "chat ok 5m", "chat blocked! 5m", "chat ok 5m", "chat blocked! 5m", "chat ok 5m", "chat blocked! 5m",
			"chat ok 5m", "chat blocked! 5m", "chat ok 3h"},
			[]string{"30s chat blocked", "5m30s chat ok", "10m30s chat blocked again", "1h15m0s chat ok"}},
		{"it stays blocked after flapping", nil, []string{"chat blocked 5m", "chat ok 5m", "chat blocked! 5m", "chat ok 5m", "chat blocked! 3h"},
			[]string{"30s chat blocked", "5m30s chat ok", "10m30s chat blocked again"}},
		{"the next day", nil, []string{"chat blocked 1h", "chat ok 24h", "chat blocked 1h"},
			[]string{"30s chat blocked", "1h0m30s chat ok", "25h0m30s chat blocked"}},
		{"no longer measured", nil, []string{"chat blocked 10s", "chat gone 1h"}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.on == nil {
				c.on = []verdict.State{blocked}
			}
			b := newBook(c.on...)
			for _, step := range c.story {
				f := strings.Fields(step)
				d, err := time.ParseDuration(f[2])
				if err != nil {
					t.Fatal(err)
				}
				state, relapse := strings.CutSuffix(f[1], "!")
				switch state, back := strings.CutPrefix(state, "="); {
				case state == "gone":
					delete(b.state, f[0])
				case back: // shown again, which is no change to the agent
					b.state[f[0]] = verdict.State(state)
				default:
					b.turn(f[0], verdict.State(state), relapse)
				}
				b.pass(d)
			}
			if d := cmp.Diff(c.want, b.said); d != "" {
				t.Error(d)
			}
		})
	}
}

// Whatever happens: nobody is told the same twice, or more than three times in
// half an hour of one function; and what was told last becomes true once the
// state stays.
func TestLedgerProperty(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 1))
		on := []verdict.State{blocked}
		if seed%2 == 1 {
			on = append(on, degraded, unreachable)
		}
		b := newBook(on...)
		var told []Change
		var at []time.Time
		last := time.Time{} // when chat was last blocked
		for range 60 {
			to := []verdict.State{ok, ok, blocked, blocked, degraded, unreachable, unknown}[r.IntN(7)]
			if to == b.state["chat"] {
				continue
			}
			if b.state["chat"] == blocked {
				last = b.now
			}
			b.turn("chat", to, to == blocked && !last.IsZero() && b.now.Sub(last) < episode)
			for range r.IntN(4 * 60) {
				b.judge()
				for _, c := range b.take(b.now, false) {
					if c.State == unknown || c.State != ok && !slices.Contains(on, c.State) {
						t.Fatalf("seed %d: told of %s", seed, c.State)
					}
					if b.state["chat"] != c.State {
						t.Fatalf("seed %d: told of %s while it is %s", seed, c.State, b.state["chat"])
					}
					told, at = append(told, c), append(at, b.now)
				}
				b.now = b.now.Add(10 * time.Second)
			}
			if r.IntN(20) == 0 { // a restart
				raw, err := json.Marshal(b.list())
				if err != nil {
					t.Fatal(err)
				}
				var as []*account
				if err := json.Unmarshal(raw, &as); err != nil {
					t.Fatal(err)
				}
				b.accounts = map[key]*account{}
				b.restore(b.now, as)
			}
		}
		if len(told) > 0 && told[0].State == ok {
			t.Errorf("seed %d: a recovery from nothing", seed)
		}
		for i := 1; i < len(told); i++ {
			if told[i].State == told[i-1].State && (told[i].State == ok || len(on) > 1) {
				t.Errorf("seed %d: %s twice", seed, told[i].State)
			}
			if i >= 4 && at[i].Sub(at[i-4]) < episode {
				t.Errorf("seed %d: five messages in %v", seed, at[i].Sub(at[i-4]))
			}
		}
		final := []verdict.State{ok, blocked}[r.IntN(2)]
		if b.state["chat"] != final {
			b.turn("chat", final, false)
		}
		b.pass(episode + time.Minute)
		if a := b.accounts[key{"telegram", "chat"}]; a == nil && final != ok || a != nil && a.Told != final {
			t.Errorf("seed %d: it is %s, and people believe %+v", seed, final, a)
		}
	}
}

// What waits is told with the newest that is known.
func TestLedgerRefreshes(t *testing.T) {
	b := newBook(blocked)
	c := turned("chat", ok, blocked)
	c.Mechanism, c.Confidence, c.Evidence = verdict.UnknownCause, verdict.Low, []string{"silence"}
	b.change(b.now, c)
	b.show([]verdict.Verdict{{Messenger: "telegram", Function: "chat", State: blocked, Mechanism: verdict.PortBlock, Confidence: verdict.High, Evidence: []string{"ports"}}})
	got := b.take(b.now.Add(time.Minute), false)
	if len(got) != 1 || got[0].Mechanism != verdict.PortBlock || got[0].Confidence != verdict.High || got[0].Evidence[0] != "ports" {
		t.Errorf("%+v", got)
	}
}

// A recovery tells what is over, and since when it was.
func TestLedgerRecovery(t *testing.T) {
	b := newBook(blocked)
	b.turn("chat", blocked, false)
	b.pass(time.Hour)
	b.turn("chat", unknown, false)
	b.turn("chat", ok, false)
	got := b.take(b.now.Add(time.Minute), false)
	if len(got) != 1 || got[0].Was != blocked || !got[0].Began.Equal(began) || !got[0].Since.Equal(b.now) {
		t.Errorf("%+v", got)
	}
}

// A clock that jumped while the agent was down neither loses what waits nor
// makes it wait for years.
func TestLedgerClock(t *testing.T) {
	for _, jump := range []time.Duration{-10000 * time.Hour, 10000 * time.Hour} {
		b := newBook(blocked)
		b.turn("chat", blocked, false)
		raw, _ := json.Marshal(b.list())
		var as []*account
		if err := json.Unmarshal(raw, &as); err != nil {
			t.Fatal(err)
		}
		b.accounts = map[key]*account{}
		b.now = b.now.Add(jump)
		b.restore(b.now, as)
		b.pass(episode + time.Minute)
		if len(b.said) != 1 {
			t.Errorf("after %v: %q", jump, b.said)
		}
	}
}
