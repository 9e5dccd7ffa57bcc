package page

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"html"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/messenger-probe/messenger-probe/probe"
	"github.com/messenger-probe/messenger-probe/probe/onset"
	"github.com/messenger-probe/messenger-probe/probe/verdict"
)

var now = time.Date(2026, 11, 30, 14, 5, 3, 0, time.UTC)

// sample is a view in which everything occurs: Telegram's calls are blocked,
// WhatsApp is so in most of what it does, MAX works.
func sample() View {
	strip := func(n int, width time.Duration, end verdict.State, from int) (cells []Cell) {
		start := now.Truncate(width).Add(-time.Duration(n-1) * width)
		for i := range n {
			c := Cell{Start: start.Add(time.Duration(i) * width), OK: 60 - i%3, Fail: i % 3, State: verdict.OK,
				Median: time.Duration(70+(i*37)%23) * time.Millisecond}
			switch {
			case i < n/6:
				c = Cell{Start: c.Start} // not running yet
			case i >= from:
				c.State = end
				if end == verdict.Blocked || end == verdict.Unreachable {
					c.OK, c.Fail, c.Median = i%4, 60-i%4, 0
				}
			case i == n/3:
				c.State, c.OK, c.Fail, c.Median = verdict.Unknown, 0, 0, 0
			}
			cells = append(cells, c)
		}
		return cells
	}
	row := func(name string, s verdict.State, m verdict.Mechanism, c verdict.Confidence, ago time.Duration, evidence ...string) Function {
		since := int(ago / (30 * time.Minute))
		f := Function{Name: name, State: s, Mechanism: m, Confidence: c, Since: now.Add(-ago), Evidence: evidence,
			Day: strip(48, 30*time.Minute, s, max(48-since, 0)), Week: strip(168, time.Hour, s, max(168-since/2, 0)),
			Endpoints: []Endpoint{{Name: "edge-1", OK: 12}, {Name: "edge-2", OK: 4}}}
		if s != verdict.OK {
			f.Endpoints = append([]Endpoint{{Name: "relay-eu", OK: 1, Fail: 2, Failing: []Failing{
				{Check: "stun", Family: "ip4", Address: "91.108.9.35:1400", Operation: probe.OpReply, Failure: probe.FailureTimeout},
				{Check: "tls", Family: "ip6", Address: "[2a03:2880:f26c:c6:face:b00c:0:3333]:443", Operation: probe.OpTLSHandshake, Failure: probe.FailureConnectionReset}}}},
				f.Endpoints...)
		}
		return f
	}
	const fine = "all 156 checks work"
	return View{
		Time: now, Version: "1.2.3", Catalogue: "2026-11-30",
		Vantage: Vantage{Name: "a flat in Kazan", Country: "RU", Subdivision: "RU-TA", ISP: "Example Telecom", ASN: "AS64500", Network: "datacenter",
			State: verdict.Online, Evidence: []string{"4 of 4 domestic and 10 of 10 foreign controls answer"}, Down: []string{"ip6"},
			Sees: map[verdict.Mechanism]bool{verdict.SNIDrop: true, verdict.DNSOmission: false}},
		Messengers: []Messenger{
			{Name: "whatsapp", Title: "WhatsApp", Rivals: map[string]float64{"vantage": .02, "resolver": .001, "udp": 0, "path": .11, "endpoint": .3, "server": .05}, Functions: []Function{
				row("chat", verdict.OK, "", "", 6*24*time.Hour, "all 224 checks work"),
				row("login", verdict.Blocked, verdict.SNIDrop, verdict.High, 26*time.Hour+17*time.Minute,
					"a ClientHello for mmg.whatsapp.net, pps.whatsapp.net, static.whatsapp.net, v.whatsapp.net and 4 more meets silence; the same address answers for another name"),
				row("media", verdict.Degraded, verdict.Throttling, verdict.Low, 3*time.Hour+5*time.Minute, "9 kB/s against 4 MB/s to a neighbour"),
				row("calls", verdict.Unreachable, verdict.UnknownCause, verdict.Low, 40*time.Minute, "0 of 12 checks work"),
				row("web", verdict.Unknown, "", "", 12*time.Minute, "no check has counted yet")}},
			{Name: "telegram", Title: "Telegram", Functions: []Function{
				row("chat", verdict.OK, "", "", 51*time.Hour, fine), row("media", verdict.OK, "", "", 51*time.Hour, fine),
				row("calls", verdict.Blocked, verdict.CallBlock, verdict.Confirmed, 3*time.Hour+5*time.Minute,
					"the relays 91.108.13.23:1400, 91.108.17.2:1400 are silent, while 10 neutral relays answer"),
				row("web", verdict.OK, "", "", 51*time.Hour, fine), row("bots", verdict.OK, "", "", 51*time.Hour, fine)}},
			{Name: "max", Title: "MAX", Functions: []Function{
				row("chat", verdict.OK, "", "", 51*time.Hour, fine), row("media", verdict.OK, "", "", 51*time.Hour, fine),
				row("calls", verdict.OK, "", "", 51*time.Hour, fine), row("web", verdict.OK, "", "", 51*time.Hour, fine),
				row("bots", verdict.OK, "", "", 51*time.Hour, fine)}},
		},
		Changes: []Change{
			{Time: now.Add(-3 * time.Hour), Onset: now.Add(-3*time.Hour - 5*time.Minute), Messenger: "Telegram", Function: "calls", State: verdict.Blocked, Was: verdict.OK,
				Mechanism: verdict.CallBlock, Confidence: verdict.Confirmed, Relapse: true, Evidence: []string{"9 of 9 checks failed since 11:00:10"}},
			{Time: now.Add(-30 * time.Hour), Messenger: "MAX", Function: "web", State: verdict.OK, Was: verdict.Unreachable, Evidence: []string{"all 58 checks work"}},
		},
	}
}

// healthy is the same place on a good day.
func healthy() View {
	v := sample()
	v.Vantage.Down = nil
	for i := range v.Messengers {
		m := &v.Messengers[i]
		for j := range m.Functions {
			fine := v.Messengers[1].Functions[0]
			fine.Name = m.Functions[j].Name
			m.Functions[j] = fine
		}
	}
	v.Changes = nil
	return v
}

func newPage(t testing.TB, view func() View) *Page {
	t.Helper()
	p, err := New(view)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// drawn is the page of a view.
func drawn(t testing.TB, v View, lang string) string {
	t.Helper()
	b, err := newPage(t, nil).render(v, variant{lang: lang})
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// Every word of the contract is said in every language, and what one language
// has the others have.
func TestWords(t *testing.T) {
	var first map[string]any
	for _, lang := range languages {
		l, err := load(lang)
		if err != nil {
			t.Fatal(err)
		}
		if l.Lang != lang || l.Name == "" || l.Decimal == "" || l.Thousands == "" {
			t.Errorf("%s: %q %q", lang, l.Lang, l.Name)
		}
		need := func(what, key string, texts ...string) {
			for _, s := range texts {
				if strings.TrimSpace(s) == "" {
					t.Errorf("%s: %s %q has no words", lang, what, key)
				}
			}
		}
		classes := map[string]bool{l.Proper: true, l.Several: true}
		for _, f := range strings.Fields("chat calls media web login push bots") {
			x := l.Functions[f]
			need("function", f, x.Name, x.Noun, x.Class)
			classes[x.Class] = true
		}
		for _, s := range verdict.States {
			need("state", string(s), l.States[string(s)].Word, l.Meanings[string(s)])
			for c := range classes {
				need("state with class "+c, string(s), l.States[string(s)].Is[c])
			}
			if n := len(l.States[string(s)].Is); n != len(classes) {
				t.Errorf("%s: %s in %d classes, and there are %d", lang, s, n, len(classes))
			}
		}
		for _, m := range verdict.Mechanisms {
			need("mechanism", string(m), l.Mechanisms[string(m)].Name, l.Mechanisms[string(m)].Plain)
		}
		for _, c := range verdict.Confidences {
			need("confidence", string(c), l.Confidences[string(c)].Name, l.Confidences[string(c)].Plain)
		}
		for _, s := range verdict.VantageStates {
			need("vantage state", string(s), l.Vantage[string(s)].Name, l.Vantage[string(s)].Plain)
		}
		for _, e := range onset.Explanations {
			need("explanation", string(e), l.Explanations[string(e)])
		}
		for _, o := range probe.Ops {
			need("operation", string(o), l.Operations[string(o)])
		}
		for f := range l.Failures {
			if !slices.Contains(probe.Failures(), probe.Failure(f)) {
				t.Errorf("%s: there is no failure %q", lang, f)
			}
		}
		for what, n := range map[string][2]int{"states": {len(l.States), len(verdict.States)}, "mechanisms": {len(l.Mechanisms), len(verdict.Mechanisms)},
			"confidences": {len(l.Confidences), len(verdict.Confidences)}, "vantage states": {len(l.Vantage), len(verdict.VantageStates)},
			"explanations": {len(l.Explanations), len(onset.Explanations)}, "operations": {len(l.Operations), len(probe.Ops)}} {
			if n[0] != n[1] {
				t.Errorf("%s: %d %s of %d", lang, n[0], what, n[1])
			}
		}
		for key, forms := range l.Plurals {
			want := map[string]bool{}
			for n := range 200 {
				want[l.form(n)] = true
			}
			if !maps.EqualFunc(want, forms, func(bool, string) bool { return true }) {
				t.Errorf("%s: %s has the forms %v, want %v", lang, key, forms, want)
			}
		}
		// The same keys, and the same verbs in each text.
		b, _ := files.ReadFile(lang + ".json")
		var all map[string]any
		if err := json.Unmarshal(b, &all); err != nil {
			t.Fatal(err)
		}
		if first == nil {
			first = all
			continue
		}
		same(t, lang, first, all)
	}
}

var verb = regexp.MustCompile(`%(\[\d\])?[sd]`)

// same compares keys, and the verbs of texts, down to what grammar tells apart.
func same(t *testing.T, path string, a, b map[string]any) {
	t.Helper()
	for k := range maps.Keys(b) {
		if _, ok := a[k]; !ok {
			t.Errorf("%s: %s is there alone", path, k)
		}
	}
	for k, x := range a {
		y, ok := b[k]
		switch x := x.(type) {
		case map[string]any:
			if k != "plurals" && k != "is" {
				m, _ := y.(map[string]any)
				same(t, path+"."+k, x, m)
			} else {
				m, _ := y.(map[string]any)
				if k == "plurals" && !maps.EqualFunc(x, m, func(any, any) bool { return true }) {
					t.Errorf("%s: the keys of plurals differ", path)
				}
			}
		case string:
			s, _ := y.(string)
			if !ok {
				t.Errorf("%s: %s is missing", path, k)
			}
			u, v := verb.FindAllString(x, -1), verb.FindAllString(s, -1)
			if !slices.Equal(u, v) {
				t.Errorf("%s: %s has %v, want %v", path, k, v, u)
			}
		}
	}
}

// No text is dead, and none is missing: all keys that code and template name.
func TestTextsAreUsed(t *testing.T) {
	l, err := load("en")
	if err != nil {
		t.Fatal(err)
	}
	used := map[string]bool{}
	sources, _ := filepath.Glob("*.go")
	for _, name := range append(sources, "page.html") {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`\b(?:t|plural)[( ]"(\w+)"`).FindAllSubmatch(b, -1) {
			used[string(m[1])] = true
		}
	}
	for k := range l.Texts {
		if !used[k] {
			t.Errorf("nobody says %q", k)
		}
	}
	for k := range l.Plurals {
		if !used[k] {
			t.Errorf("nobody counts %q", k)
		}
	}
	for k := range used {
		if _, ok := l.Texts[k]; !ok && l.Plurals[k] == nil {
			t.Errorf("there is no text %q", k)
		}
	}
}

func TestRussianPlurals(t *testing.T) {
	l, err := load("ru")
	if err != nil {
		t.Fatal(err)
	}
	for n, want := range map[int]string{0: "0 дней", 1: "1 день", 2: "2 дня", 4: "4 дня", 5: "5 дней", 11: "11 дней", 12: "12 дней", 14: "14 дней",
		21: "21 день", 22: "22 дня", 25: "25 дней", 100: "100 дней", 101: "101 день", 111: "111 дней", 112: "112 дней", 122: "122 дня"} {
		if got := l.plural("days", n, n); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	for n, want := range map[int]string{1: "сработало 1 из 1 проверки", 2: "сработало 1 из 2 проверок", 21: "сработало 1 из 21 проверки", 60: "сработало 1 из 60 проверок"} {
		if got := l.plural("of_checks", n, "1", fmt.Sprint(n)); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestNumbers(t *testing.T) {
	en, _ := load("en")
	ru, _ := load("ru")
	for _, tt := range []struct{ got, want string }{
		{en.number(0), "0"}, {en.number(999), "999"}, {en.number(1000), "1,000"}, {en.number(1234567), "1,234,567"}, {ru.number(1234567), "1\u00a0234\u00a0567"},
		{en.percent(2, 3), "66.7%"}, {ru.percent(2, 3), "66,7\u00a0%"}, {en.percent(99999, 100000), "99.9%"}, {en.percent(1, 100000), "0.1%"}, {en.percent(5, 5), "100%"}, {en.percent(0, 5), "0%"},
		{en.latency(84 * time.Millisecond), "84\u00a0ms"}, {en.latency(123 * time.Millisecond), "120\u00a0ms"}, {en.latency(994 * time.Millisecond), "990\u00a0ms"},
		{en.latency(1340 * time.Millisecond), "1.3\u00a0s"}, {ru.latency(1340 * time.Millisecond), "1,3\u00a0с"}, {en.latency(time.Minute), "60\u00a0s"},
		{en.duration(30 * time.Second), "less than a minute"}, {en.duration(59*time.Minute + 59*time.Second), "59\u00a0min"}, {en.duration(185 * time.Minute), "3\u00a0h\u00a05\u00a0min"},
		{en.duration(26 * time.Hour), "1\u00a0day\u00a02\u00a0h"}, {ru.duration(53 * time.Hour), "2\u00a0дня\u00a05\u00a0ч"}, {en.duration(-time.Hour), "less than a minute"},
		{en.date(now), "30\u00a0Nov\u00a014:05\u00a0UTC"}, {ru.date(now), "30\u00a0нояб.,\u00a014:05\u00a0UTC"}, {ru.day(now), "пн 30\u00a0нояб."},
		{en.date(now.In(time.FixedZone("", 3*3600))), "30\u00a0Nov\u00a014:05\u00a0UTC"},
	} {
		if tt.got != tt.want {
			t.Errorf("%q, want %q", tt.got, tt.want)
		}
	}
}

// The first line answers the question.
func TestAnswer(t *testing.T) {
	of := func(title string, states ...verdict.State) Messenger {
		m := Messenger{Name: strings.ToLower(title), Title: title}
		for i, s := range states {
			m.Functions = append(m.Functions, Function{Name: []string{"chat", "calls", "media", "web"}[i], State: s})
		}
		return m
	}
	const ok, bad, deg, gone, dunno = verdict.OK, verdict.Blocked, verdict.Degraded, verdict.Unreachable, verdict.Unknown
	w, x := of("WhatsApp", ok, ok), of("MAX", ok, ok)
	for _, tt := range []struct {
		ms     []Messenger
		state  verdict.VantageState
		mood   verdict.State
		en, ru string
	}{
		{[]Messenger{w, of("Telegram", ok), x}, verdict.Online, ok, "Yes: WhatsApp, Telegram and MAX work.", "Да: WhatsApp, Telegram и MAX работают."},
		{[]Messenger{x}, verdict.Online, ok, "Yes: MAX works.", "Да: MAX работает."},
		{[]Messenger{w, of("Telegram", ok, bad), x}, verdict.Online, deg,
			"Partly: Telegram calls are blocked; WhatsApp and MAX work.", "Частично: Telegram – звонки заблокированы; WhatsApp и MAX работают."},
		{[]Messenger{of("WhatsApp", bad, bad), of("Telegram", bad, bad, deg, gone)}, verdict.Online, deg,
			"Partly: Telegram chat and calls are blocked, web is unreachable, photos and files work badly; WhatsApp is blocked.",
			"Частично: Telegram – переписка и звонки заблокированы, веб-версия недоступна, фото и файлы работают с перебоями; WhatsApp заблокирован."},
		{[]Messenger{of("WhatsApp", bad, bad), of("Telegram", bad)}, verdict.Online, bad, "No: WhatsApp and Telegram are blocked.", "Нет: WhatsApp и Telegram заблокированы."},
		{[]Messenger{of("WhatsApp", gone)}, verdict.Online, gone, "No: WhatsApp is unreachable.", "Нет: WhatsApp недоступен."},
		{[]Messenger{of("WhatsApp", ok, dunno), x}, verdict.Online, dunno, "As far as is known, yes: WhatsApp calls are not known yet; MAX works.",
			"Насколько известно, да: WhatsApp – звонки пока не проверены; MAX работает."},
		{[]Messenger{of("WhatsApp", dunno, bad, ok), x, of("VK", ok)}, verdict.Online, deg, "Partly: WhatsApp calls are blocked; MAX and VK work.", "Частично: WhatsApp – звонки заблокированы; MAX и VK работают."},
		{[]Messenger{of("WhatsApp", dunno)}, verdict.Online, dunno, "Not known yet: measuring has just begun.", "Пока неизвестно: измерения только начались."},
		{nil, verdict.Online, ok, "Not known yet: measuring has just begun.", "Пока неизвестно: измерения только начались."},
		{[]Messenger{of("WhatsApp", bad)}, verdict.Offline, dunno, "Nothing can be said now: the place measured from has no network.", "Сейчас сказать ничего нельзя: в точке измерений нет сети."},
		{[]Messenger{w}, verdict.Whitelist, dunno, "Nothing can be said now: only what is in the country answers the place measured from.",
			"Сейчас сказать ничего нельзя: точке измерений отвечает только то, что внутри страны."},
	} {
		v := View{Messengers: tt.ms, Vantage: Vantage{State: tt.state}}
		for lang, want := range map[string]string{"en": tt.en, "ru": tt.ru} {
			l, _ := load(lang)
			if got := l.answer(&v); got != want {
				t.Errorf("%q, want %q", got, want)
			}
			if got := l.mood(&v); got != tt.mood && tt.ms != nil {
				t.Errorf("%s: mood %s, want %s", want, got, tt.mood)
			}
		}
	}
}

// tags takes the text out of a document.
var tags = regexp.MustCompile(`(?s)<(style|script)>.*?</(style|script)>|<[^>]*>`)

// words is what a person reads, blanks folded.
func words(doc string) string {
	return strings.Join(strings.Fields(html.UnescapeString(tags.ReplaceAllString(doc, " "))), " ")
}

// A person reads all of it, in their language, and nothing that has no words.
func TestPageSays(t *testing.T) {
	for lang, want := range map[string][]string{
		"en": {"Can people here use WhatsApp, Telegram and MAX now?", "Partly: WhatsApp login is blocked, calls are unreachable, photos and files work badly; Telegram calls are blocked; MAX works.",
			"a flat in Kazan, RU-TA, Example Telecom, AS64500, data centre, as of 30 Nov 14:05 UTC", "Blocked for 3 h 5 min", "Blocked since 30 Nov 11:00 UTC.",
			"The servers of calls are silent; neutral ones answer.", "Confidence: confirmed – the wire itself proves it.",
			"14:00–14:30: Blocked, 3 of 60 checks worked", "13:00–13:30: Works, 60 of 60 checks worked,", "of 2,400 checks in 24 h", "nothing was measured",
			"91.108.9.35:1400", "stun ip4: answer – silence generic_timeout_error", "From here IPv6 answers nobody", "A server in a data centre does not see",
			"Filtering seen here silence by name", "Looked for, and not seen missing from DNS", "10 of 10 foreign controls", "Telegram calls are blocked, again",
			"began about 30 Nov 11:00 UTC", "MAX web works", "the path to the messenger’s network 11%", "All times are UTC."},
		"ru": {"Можно ли сейчас отсюда пользоваться WhatsApp, Telegram и MAX?", "Частично: WhatsApp – вход заблокирован, звонки недоступны,", "MAX работает.", "уже 3 ч 5 мин", "Блокировка с 30 нояб., 11:00 UTC.",
			"Серверы звонков молчат", "Уверенность: доказано – это доказывает сам сетевой обмен.", "Доказательства записаны по-английски.", "из 2 400 проверок за 24 ч",
			"14:00–14:30: Блокировка, сработало 3 из 60 проверок", "Отсюда по IPv6 не отвечает никто", "MAX – веб-версия работает", "путь к сети мессенджера 11 %"},
	} {
		text := words(drawn(t, sample(), lang))
		for _, w := range want {
			if !strings.Contains(text, w) {
				t.Errorf("%s: it does not say %q", lang, w)
			}
		}
		for _, bad := range []string{"%!", "<no value>", "ZgotmplZ", "ok:", "sni_drop", "call_block", "_"} {
			for _, f := range probe.Failures() { // which have an underscore, and are meant to be read
				text = strings.ReplaceAll(text, string(f), "")
			}
			if i := strings.Index(text, bad); i >= 0 {
				t.Errorf("%s: it says %q: %s", lang, bad, text[max(0, i-40):i+20])
			}
		}
		if t.Failed() {
			t.Log(text)
		}
	}
	// What is English on a Russian page is marked as such.
	english := regexp.MustCompile(`controls answer|checks work|meets silence|failed since|generic_timeout`)
	n := 0
	walk(drawn(t, sample(), "ru"), func(lang, text string) {
		if english.MatchString(text) {
			if n++; lang != "en" {
				t.Errorf("marked as %s: %s", lang, text)
			}
		}
	})
	if n < 10 {
		t.Errorf("only %d pieces of evidence", n)
	}
}

// walk tells each piece of text with the language that it is marked as.
func walk(doc string, f func(lang, text string)) {
	var langs []string
	for _, m := range regexp.MustCompile(`<(/?)([a-z0-9]+)([^>]*?)(/?)>|[^<>]+`).FindAllStringSubmatch(doc, -1) {
		switch {
		case m[2] == "":
			if len(langs) > 0 {
				f(langs[len(langs)-1], m[0])
			}
		case slices.Contains(void, m[2]) || m[4] == "/":
		case m[1] == "/":
			langs = langs[:len(langs)-1]
		default:
			lang := ""
			if len(langs) > 0 {
				lang = langs[len(langs)-1]
			}
			if _, own, ok := strings.Cut(m[3], ` lang="`); ok {
				lang, _, _ = strings.Cut(own, `"`)
			}
			langs = append(langs, lang)
		}
	}
}

// void is the elements that do not close.
var void = strings.Fields("meta link input")

// Nothing that comes from outside becomes markup, and nothing is loaded from
// elsewhere.
func TestSafe(t *testing.T) {
	const evil = `</p></style><script>alert(1)</script><img src=x onerror=alert(2)>"'&{{.}}`
	v := sample()
	v.Version, v.Catalogue = evil, evil
	v.Vantage = Vantage{Name: evil, Country: evil, Subdivision: evil, ISP: evil, ASN: evil, Network: evil, State: evil, Unclean: evil,
		Evidence: []string{evil}, Down: []string{evil}, Sees: map[verdict.Mechanism]bool{evil: true}}
	v.Messengers = []Messenger{{Name: evil, Title: evil, Rivals: map[string]float64{evil: 1}, Functions: []Function{{Name: evil, State: evil, Mechanism: evil, Confidence: evil,
		Since: now, Evidence: []string{evil}, Day: []Cell{{Start: now, OK: -1, State: evil, Median: -1}}, Week: []Cell{{State: evil}},
		Endpoints: []Endpoint{{Name: evil, Fail: 1, Failing: []Failing{{evil, evil, evil, evil, evil}}}}}}}}
	v.Changes = []Change{{Messenger: evil, Function: evil, State: evil, Was: evil, Mechanism: evil, Confidence: evil, Evidence: []string{evil}}}
	for _, view := range []View{v, sample(), healthy(), {}} {
		for _, lang := range languages {
			doc := drawn(t, view, lang)
			if n := strings.Count(doc, "<script"); n != 1 {
				t.Errorf("%d scripts", n)
			}
			for _, bad := range []string{"<img", "onerror=alert(2)>", `style="`, "http://", "https://", "src=", "url(", "@import", "javascript:"} {
				if strings.Contains(strings.ReplaceAll(strings.ReplaceAll(doc, "src=x onerror", ""), "xmlns='http://www.w3.org/2000/svg'", ""), bad) {
					t.Errorf("the page has %q", bad)
				}
			}
			for _, m := range regexp.MustCompile(`(href|action)="([^"]*)"`).FindAllStringSubmatch(doc, -1) {
				if !regexp.MustCompile(`^(#|/(metrics|api/v1/status|api/v1/events)$|\?lang=(en|ru)(&amp;still)?$|data:image/svg\+xml,)`).MatchString(m[2]) {
					t.Errorf("a link to %q", m[2])
				}
			}
		}
	}
}

// A document that browsers have not to guess about: what opens closes, ids are
// unique, and what refers to one finds it.
func TestMarkup(t *testing.T) {
	for _, view := range []View{sample(), healthy(), {}} {
		doc := drawn(t, view, "ru")
		doc = regexp.MustCompile(`(?s)<(style|script)>.*?</`).ReplaceAllString(doc, "<$1></")
		var open []string
		ids, refs := map[string]int{}, []string{}
		for _, m := range regexp.MustCompile(`<(/?)([a-z0-9]+)([^>]*?)(/?)>`).FindAllStringSubmatch(doc, -1) {
			for _, a := range regexp.MustCompile(` (\w[\w-]*)="([^"]*)"`).FindAllStringSubmatch(m[3], -1) {
				switch {
				case a[1] == "id":
					ids[a[2]]++
				case a[1] == "aria-labelledby", a[1] == "href" && strings.HasPrefix(a[2], "#"):
					refs = append(refs, strings.TrimPrefix(a[2], "#"))
				}
			}
			switch {
			case slices.Contains(void, m[2]) || m[4] == "/":
			case m[1] == "":
				open = append(open, m[2])
			case len(open) == 0 || open[len(open)-1] != m[2]:
				t.Fatalf("</%s> in %v", m[2], open)
			default:
				open = open[:len(open)-1]
			}
		}
		if len(open) > 0 {
			t.Errorf("not closed: %v", open)
		}
		for id, n := range ids {
			if n > 1 {
				t.Errorf("%d elements have the id %q", n, id)
			}
		}
		for _, r := range refs {
			if ids[r] == 0 {
				t.Errorf("nothing has the id %q", r)
			}
		}
		if n := strings.Count(doc, "<h1"); n != 1 {
			t.Errorf("%d first headings", n)
		}
	}
}

// get is what a reader gets.
func get(t *testing.T, h http.Handler, url string, header ...string) *http.Response {
	t.Helper()
	r := httptest.NewRequest("GET", url, nil)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

func TestLanguage(t *testing.T) {
	p := newPage(t, sample)
	for _, tt := range []struct{ url, header, want string }{
		{"/", "", "en"}, {"/", "ru", "ru"}, {"/", "ru-RU,ru;q=0.9,en-US;q=0.8,en;q=0.7", "ru"}, {"/", "en-US,en;q=0.9,ru;q=0.8", "en"},
		{"/", "fr, de;q=0.9", "en"}, {"/", "fr, ru;q=0.1", "ru"}, {"/", "en;q=0.2, RU;q=0.3", "ru"}, {"/", "ru;q=0", "en"}, {"/", "ru;q=nonsense", "en"}, {"/", "ru;q=NaN", "en"},
		{"/", "*", "en"}, {"/", ";;,,q=", "en"}, {"/?lang=ru", "en", "ru"}, {"/?lang=en", "ru", "en"}, {"/?lang=xx", "ru", "ru"}, {"/?lang=", "ru", "ru"}, {"/?lang=../en", "", "en"},
		{"/?a;b&lang=ru", "", "ru"},
	} {
		r := get(t, p, tt.url, "Accept-Language", tt.header)
		b, _ := io.ReadAll(r.Body)
		if got := r.Header.Get("Content-Language"); got != tt.want || !bytes.Contains(b, []byte(`<html lang="`+tt.want+`">`)) {
			t.Errorf("%s with %q: %s, want %s", tt.url, tt.header, got, tt.want)
		}
		if !strings.Contains(r.Header.Get("Vary"), "Accept-Language") {
			t.Errorf("Vary: %s", r.Header.Get("Vary"))
		}
		if links := bytes.Count(b, []byte(`href="?lang=`)); links != 2 {
			t.Errorf("%s: %d links to choose by", tt.url, links)
		}
	}
	// Who does not want it to move gets a page that stands still, in either language.
	for url, moving := range map[string]bool{"/": true, "/?still": false, "/?lang=ru&still": false, "/?lang=ru&still=0": false} {
		b, _ := io.ReadAll(get(t, p, url).Body)
		if got := bytes.Contains(b, []byte("http-equiv")) && bytes.Contains(b, []byte("<script")); got != moving {
			t.Errorf("%s: moving %v", url, got)
		}
		if still := bytes.Contains(b, []byte(`lang=en&amp;still"`)) || bytes.Contains(b, []byte(`lang=ru&amp;still"`)); !still {
			t.Errorf("%s: the choice is not kept, or not offered", url)
		}
	}
}

// The policy allows what is on the page, and that alone.
func TestPolicy(t *testing.T) {
	r := get(t, newPage(t, sample), "/")
	csp := r.Header.Get("Content-Security-Policy")
	b, _ := io.ReadAll(r.Body)
	for _, tag := range []string{"style", "script"} {
		_, rest, _ := strings.Cut(string(b), "<"+tag+">")
		body, _, ok := strings.Cut(rest, "</"+tag+">")
		if !ok || !strings.Contains(csp, tag+"-src "+hash(body)+";") {
			t.Errorf("%s is not the one that %q allows", tag, csp)
		}
	}
	for _, want := range []string{"default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'none'"} {
		if !strings.Contains(csp, want) {
			t.Errorf("%q has no %s", csp, want)
		}
	}
	if strings.Contains(csp, "unsafe") || strings.Contains(csp, "*") {
		t.Errorf("%q", csp)
	}
}

// Many readers cost one drawing a second, and get the same by either coding.
func TestDrawnOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		p := newPage(t, func() View { n++; return sample() })
		for range 50 {
			get(t, p, "/")
		}
		if n != 1 {
			t.Errorf("drawn %d times for 50 readers in one moment", n)
		}
		time.Sleep(fresh)
		plain, _ := io.ReadAll(get(t, p, "/").Body)
		r := get(t, p, "/", "Accept-Encoding", "br;q=1, gzip;q=0.5")
		z, err := gzip.NewReader(r.Body)
		if err != nil {
			t.Fatal(err)
		}
		packed, err := io.ReadAll(z)
		if err != nil || !bytes.Equal(packed, plain) || n != 2 {
			t.Errorf("%d bytes packed, %d plain, drawn %d times, %v", len(packed), len(plain), n, err)
		}
		if r := get(t, p, "/", "Accept-Encoding", "gzip;q=0"); r.Header.Get("Content-Encoding") != "" {
			t.Error("packed for one who does not want it")
		}
	})
}

// However much fails, the page stays small.
func TestBounded(t *testing.T) {
	v := sample()
	for i := range v.Messengers {
		for j := range v.Messengers[i].Functions {
			f := &v.Messengers[i].Functions[j]
			f.Endpoints, f.Evidence = nil, nil
			for n := range 300 {
				e := Endpoint{Name: fmt.Sprint("endpoint-", n), Fail: 100}
				for range 100 {
					e.Failing = append(e.Failing, Failing{"websocket", "ip6", "[2a03:2880:f26c:c6:face:b00c:0:3333]:443", probe.OpTLSHandshake, probe.FailureTimeout})
				}
				f.Endpoints = append(f.Endpoints, e)
				f.Evidence = append(f.Evidence, strings.Repeat("evidence ", 30))
			}
		}
	}
	for range 300 {
		v.Changes = append(v.Changes, v.Changes[0])
	}
	if n := len(drawn(t, v, "ru")); n > 1500<<10 {
		t.Errorf("%d bytes", n)
	}
	if doc := drawn(t, v, "en"); !strings.Contains(words(doc), "and 260 more") || !strings.Contains(words(doc), "and 92 more") {
		t.Error("it does not say that there is more")
	}
}

func BenchmarkRender(b *testing.B) {
	p, v := newPage(b, nil), sample()
	var n int
	b.ReportAllocs()
	for b.Loop() {
		doc, err := p.render(v, variant{lang: "ru"})
		if err != nil {
			b.Fatal(err)
		}
		n = len(doc)
	}
	b.ReportMetric(float64(n), "bytes")
}

func BenchmarkServe(b *testing.B) {
	p := newPage(b, sample)
	r := httptest.NewRequest("GET", "/", nil)
	r.Header.Set("Accept-Encoding", "gzip")
	var n int
	for b.Loop() {
		w := httptest.NewRecorder()
		p.ServeHTTP(w, r)
		n = w.Body.Len()
	}
	b.ReportMetric(float64(n), "bytes")
}
