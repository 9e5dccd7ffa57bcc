package notify

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/messenger-probe/messenger-probe/probe/verdict"
)

func TestLetter(t *testing.T) {
	over := turned("web", unknown, ok)
	over.Messenger, over.Title, over.Was, over.Since, over.Began = "max", "MAX", blocked, began.Add(time.Hour), began
	again := turned("calls", ok, blocked)
	again.Relapse, again.Evidence = true, nil
	m := &message{ID: "X", Time: began.Add(time.Minute), Changes: []Change{turned("chat", ok, blocked), again, over}}
	for _, c := range []struct {
		words   *words
		vantage string
		title   string
		text    string
	}{
		{&english, "my-server", "Telegram blocked: chat; Telegram blocked again: calls; MAX works again: web (my-server)",
			`Telegram, chat: blocked
since 2026-11-30 12:00 UTC; port block (port_block), confidence: high
· 149.154.167.51 :443 times out at connect in 9 of 9 tries, while :80 there answers

Telegram, calls: blocked again
since 2026-11-30 12:00 UTC; port block (port_block), confidence: high

MAX, web: works again
since 2026-11-30 13:00 UTC; before: blocked, from 2026-11-30 12:00 UTC on

my-server, 2026-11-30 12:01 UTC`},
		{&russian, "", "Telegram, блокировка: переписка; Telegram, снова блокировка: звонки; MAX, снова работает: веб-версия",
			`Telegram, переписка: блокировка
с 2026-11-30 12:00 UTC; блокировка порта (port_block), уверенность: высокая
· 149.154.167.51 :443 times out at connect in 9 of 9 tries, while :80 there answers

Telegram, звонки: снова блокировка
с 2026-11-30 12:00 UTC; блокировка порта (port_block), уверенность: высокая

MAX, веб-версия: снова работает
с 2026-11-30 13:00 UTC; до этого: блокировка, с 2026-11-30 12:00 UTC

2026-11-30 12:01 UTC`},
	} {
		l := m.letter(c.words, c.vantage)
		if d := cmp.Diff(c.title, l.title); d != "" {
			t.Error(d)
		}
		if d := cmp.Diff(c.text, l.text); d != "" {
			t.Error(d)
		}
		if !l.urgent {
			t.Error("a block is not urgent")
		}
	}
	if l := (&message{Changes: []Change{over}}).letter(&english, ""); l.urgent {
		t.Error("a recovery is urgent")
	}
}

// However much there is to tell, it fits into what the services take, and no
// function is left out while there is room for it.
func TestLetterFits(t *testing.T) {
	for _, n := range []int{1, 7, 15, 21, 200} {
		var cs []Change
		for i := range n {
			c := turned(fmt.Sprintf("function-%d", i), ok, blocked)
			c.Evidence = []string{strings.Repeat("длинно ", 40), strings.Repeat("ещё ", 70), "x"}
			cs = append(cs, c)
		}
		l := (&message{Time: began, Changes: cs}).letter(&russian, strings.Repeat("имя", 15))
		if len(l.title) > maxTitle || len(l.text) > maxText || !utf8.ValidString(l.title+l.text) {
			t.Errorf("%d changes: title of %d bytes, text of %d", n, len(l.title), len(l.text))
		}
		if n <= 21 && !strings.Contains(l.text, fmt.Sprintf("function-%d:", n-1)) {
			t.Errorf("%d changes: the last is left out", n)
		}
	}
}

// Every word that can be said is known in every language.
func TestWords(t *testing.T) {
	for _, lang := range Languages {
		w := wordsOf(lang)
		for _, s := range verdict.States {
			if w.states[s] == "" {
				t.Errorf("%s: no word for %s", lang, s)
			}
		}
		for _, m := range verdict.Mechanisms {
			if w.mechanisms[m] == "" {
				t.Errorf("%s: no word for %s", lang, m)
			}
		}
		for _, c := range verdict.Confidences {
			if w.confidences[c] == "" {
				t.Errorf("%s: no word for %s", lang, c)
			}
		}
	}
	for _, f := range []string{"chat", "calls", "media", "web", "login", "push", "bots"} {
		if russian.functions[f] == "" {
			t.Errorf("ru: no word for %s", f)
		}
	}
	if wordsOf("en") == wordsOf("ru") {
		t.Error("one language")
	}
}

// Addresses of messengers are told, those of this machine and its network not.
func TestPublic(t *testing.T) {
	own := []netip.Addr{netip.MustParseAddr("203.0.113.7"), netip.MustParseAddr("2001:db8::7")}
	for in, want := range map[string]string{
		"149.154.167.51 :443 times out, while :80 there answers": "149.154.167.51 :443 times out, while :80 there answers",
		"the relays 91.108.13.23:1400, 91.108.9.35:1400.":        "the relays 91.108.13.23:1400, 91.108.9.35:1400.",
		"[2a03:2880:f26c:c6:face:b00c:0:3333]:443 is silent":     "[2a03:2880:f26c:c6:face:b00c:0:3333]:443 is silent",
		"from 203.0.113.7:5000 on":                               "from (a local address) on",
		"from 203.0.113.7.":                                      "from (a local address).",
		"[2001:db8::7]:443 and ::ffff:203.0.113.7":               "[(a local address)]:443 and (a local address)",
		"10.1.2.3 and 192.168.0.1:53 and 100.64.1.1":             "(a local address) and (a local address) and (a local address)",
		"127.0.0.1, ::1, fe80::1, fd00::1, 0.0.0.0, ff02::1":     "(a local address), (a local address), (a local address), (a local address), (a local address), (a local address)",
		"9 of 9 failed since 12:04:10; face: dead.beef":          "9 of 9 failed since 12:04:10; face: dead.beef",
		"a\nb\x00c\u202ed":                                       "a b c d",
	} {
		if got := public([]string{in}, own); len(got) != 1 || got[0] != want {
			t.Errorf("%q became %q, want %q", in, got, want)
		}
	}
	if got := public([]string{"1", "2", "3", "4"}, nil); len(got) != maxEvidence {
		t.Errorf("%q", got)
	}
	if got := public([]string{strings.Repeat("ж", 10000)}, nil); len(got[0]) > maxLine || !utf8.ValidString(got[0]) {
		t.Errorf("%d bytes", len(got[0]))
	}
	if list := addresses(); len(list) == 0 {
		t.Error("this machine has no address, not even of loopback")
	}
}

func TestOutbox(t *testing.T) {
	var b outbox
	now := began
	for i := range maxWaiting + 3 {
		dropped := b.add(now, []Change{turned(fmt.Sprint(i), ok, blocked)}, []string{"a", "b"})
		if want := i >= maxWaiting; (len(dropped) == 1) != want {
			t.Fatalf("message %d: %d dropped", i, len(dropped))
		}
	}
	if f := b.first("a").Changes[0].Function; f != "3" {
		t.Errorf("the oldest is %s", f)
	}
	id := b[0].ID
	b.strike(id, "a")
	if b.first("a").ID == id || b.first("b").ID != id || b.first("c") != nil {
		t.Error("a message is struck for others")
	}
	b.strike(id, "b")
	if len(b) != maxWaiting-1 {
		t.Errorf("%d messages", len(b))
	}
	b.retain([]string{"b"})
	if b.first("a") != nil || b.first("b") == nil {
		t.Error("not retained")
	}
	if old := b.expire(now.Add(life)); len(old) != maxWaiting-1 || len(b) != 0 {
		t.Errorf("%d expired, %d left", len(old), len(b))
	}
}
