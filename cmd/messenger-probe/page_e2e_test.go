//go:build linux

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/messenger-probe/messenger-probe/cmd/internal/netlab"
)

// A reader is somebody with a browser at the vantage.
type reader struct {
	*netlab.Tab
	t       *testing.T
	dir     string // where pictures go
	noted   int    // complaints of the browser that were told already
	refused bool   // the agent does not run: the browser may say so
}

const pageURL = "http://127.0.0.1:9770/"

// TestE2EPage reads the page of a running agent as people do, in a real browser
// in the agent's namespace: before, during and after a block, over a restart,
// and without a line.
func TestE2EPage(t *testing.T) {
	w := newWorld(t)
	v := w.vantage(t)
	state := filepath.Join(w.Dir, "state-of-page")
	if err := os.Mkdir(state, 0o777); err != nil {
		t.Fatal(err)
	}
	os.Chmod(state, 0o777)
	start := func() *daemonUnderTest {
		return w.start(t, v, v.Unprivileged(w.bin, "run"), "MESSENGER_PROBE_STATE_DIR="+state, "MESSENGER_PROBE_VANTAGE_NAME=a network of namespaces",
			"MESSENGER_PROBE_VANTAGE_COUNTRY=RU", "MESSENGER_PROBE_VANTAGE_NETWORK=datacenter")
	}
	d := start()
	r := newReader(t, v)
	d.await(t, "all ok", 60*time.Second, inState("ok", nil))

	// A good day.
	good := words("Works Works Works Works Works Works Works")
	r.everywhere("well", map[string]reading{
		"en": {"Yes: Lab works.", good},
		"ru": {"Да: Lab работает.", words("Работает Работает Работает Работает Работает Работает Работает")},
	})
	r.keyboard()
	r.pointer()
	r.withoutScript()
	r.quiet()

	// A block comes, and the page says so where the reader is.
	r.Look(1440, 900, "light", false)
	r.Open(pageURL)
	r.Eval(`window.same = true; document.querySelector("#lab-chat-more").open = true; document.querySelector("#lab-chat input:checked").focus()`, nil)
	v.Box.Set(netlab.Rule{Hosts: dcs, Do: netlab.Drop})
	d.await(t, "block seen", 90*time.Second, inState("ok", map[string][]string{"chat": {"blocked"}}))
	r.until("the block is on the page by itself", `document.querySelector("h1").textContent === "Partly: Lab chat is blocked."`, 40*time.Second)
	r.holds("the page was not loaded anew", `window.same === true`)
	r.holds("details stay open", `document.querySelector("#lab-chat-more").open`)
	r.holds("focus stays", `document.activeElement.name === "lab-chat"`)
	r.holds("it says what is blocked, and how", `/The messenger’s addresses are silent/.test(document.querySelector("#lab-chat").innerText) && /Confidence: (medium|high|confirmed)/.test(document.querySelector("#lab-chat").innerText)`)
	r.holds("the half hour is marked", `document.querySelector("#lab-chat .strip label.blocked")?.innerText.includes("Blocked")`)
	r.holds("the onset is listed", `/Lab chat is blocked/.test(document.querySelector("#changes").innerText)`)
	r.holds("the endpoint is listed with its address", `/198\.18\.80\.51:(443|5222)/.test(document.querySelector("#lab-chat-more").innerText)`)
	bad := append([]string{"Blocked"}, good[1:]...)
	r.everywhere("blocked", map[string]reading{
		"en": {"Partly: Lab chat is blocked.", bad},
		"ru": {"Частично: Lab – переписка заблокирована.", append([]string{"Блокировка"}, words("Работает Работает Работает Работает Работает Работает")...)},
	})
	r.opened("blocked")
	r.quiet()

	// The agent goes: the page says that it is old. It comes back: the page goes
	// on, and remembers.
	r.Look(1440, 900, "light", false)
	r.Open(pageURL)
	r.Eval(`window.same = true`, nil)
	d.stop(t)
	r.refused = true
	r.Eval(`document.dispatchEvent(new Event("visibilitychange"))`, nil)
	r.until("it says that it is old", `!document.querySelector("#stale").hidden && document.querySelector("#stale").innerText.includes("does not answer")`, 15*time.Second)
	d = start()
	d.await(t, "back", 10*time.Second, func(map[string]float64) error { return nil })
	r.until("it is new again", `document.querySelector("#stale").hidden && window.same`, 30*time.Second)
	r.quiet()
	r.refused = false
	r.Open(pageURL)
	r.holds("it remembers the block", `document.querySelector("#lab-chat .strip label.blocked") && /Lab chat is blocked/.test(document.querySelector("#changes").innerText)`)

	// The block is lifted.
	v.Box.Set()
	d.await(t, "block lifted", 90*time.Second, inState("ok", nil))
	r.Open(pageURL)
	r.holds("all is well", `document.querySelector("h1").textContent === "Yes: Lab works."`)
	// Other functions may have changed since.
	r.holds("the recovery is among the changes", `[...document.querySelectorAll("#changes li")].some(li => /Lab chat works/.test(li.innerText) && /before: (Blocked|Works badly|Unreachable)/i.test(li.innerText))`)

	// The line is cut: nothing is said of the messenger.
	v.Unplug(t)
	d.await(t, "offline", 90*time.Second, inState("unknown", nil))
	unknown := words("Неизвестно Неизвестно Неизвестно Неизвестно Неизвестно Неизвестно Неизвестно")
	r.look("offline", "ru", "dark", 360, reading{"Сейчас сказать ничего нельзя: в точке измерений нет сети.", unknown})
	r.look("offline", "en", "light", 1440, reading{"Nothing can be said now: the place measured from has no network.", nil})
	r.holds("no block is told", `!/blocked/i.test(document.querySelector("h1").innerText)`)
	r.quiet()
	for _, u := range r.Asked() {
		if !strings.HasPrefix(u, pageURL) && !strings.HasPrefix(u, "data:image/svg+xml,") && u != "about:blank" {
			t.Errorf("the page asked for %s", u)
		}
	}
	d.stop(t)
}

func newReader(t *testing.T, v *netlab.Vantage) *reader {
	r := &reader{Tab: v.Browser(t).Tab(t), t: t, dir: os.Getenv("PAGE_SCREENSHOTS")}
	if r.dir == "" {
		var err error
		if r.dir, err = os.MkdirTemp("", "page-screenshots-"); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("pictures are in %s", r.dir)
	return r
}

// reading is what is to be read: the first heading, and the state of each row; nil
// does not matter.
type reading struct {
	answer string
	states []string
}

// everywhere looks at the page in all languages, schemes and sizes.
func (r *reader) everywhere(name string, want map[string]reading) {
	for lang, reading := range want {
		for _, scheme := range []string{"light", "dark"} {
			for _, width := range []int{360, 1440} {
				r.look(name, lang, scheme, width, reading)
			}
		}
		r.look("", lang, "light", 320, reading)
	}
}

// look opens the page as one reader sees it and holds it to what it must be.
func (r *reader) look(name, lang, scheme string, width int, want reading) {
	r.t.Helper()
	what := fmt.Sprintf("%s-%s-%s-%d", name, lang, scheme, width)
	r.Look(width, 900, scheme, false)
	// A machine that is busy may look like a slow line for a moment.
	for range 60 {
		r.Open(pageURL + "?lang=" + lang)
		var answer string
		if r.Eval(`document.querySelector("h1").innerText`, &answer); answer == want.answer {
			break
		}
		time.Sleep(time.Second)
	}
	var got struct {
		Lang, Answer, Title, Place string
		Rows                       [][2]string
		Dark                       bool
	}
	r.Eval(`({lang: document.documentElement.lang, answer: document.querySelector("h1").innerText, title: document.title,
		place: document.querySelector(".place").innerText,
		rows: [...document.querySelectorAll(".functions > li")].map(e => [e.querySelector("h4").innerText, e.querySelector(".state b").innerText]),
		dark: getComputedStyle(document.body).backgroundColor.match(/\d+/g).every(x => x < 60)})`, &got)
	if got.Lang != lang || got.Answer != want.answer || got.Title != want.answer || !strings.Contains(got.Place, "a network of namespaces") || got.Dark != (scheme == "dark") {
		r.t.Errorf("%s: %+v, want %q", what, got, want.answer)
	}
	titles := map[string][]string{"en": {"Chat", "Login", "Bots", "Web version", "Photos and files", "Notifications", "Calls"},
		"ru": {"Переписка", "Вход", "Боты", "Веб-версия", "Фото и файлы", "Уведомления", "Звонки"}}[lang]
	for i, title := range titles {
		if i >= len(got.Rows) || got.Rows[i][0] != title || want.states != nil && got.Rows[i][1] != want.states[i] {
			r.t.Errorf("%s: rows %q, want %q %q", what, got.Rows, titles, want.states)
			break
		}
	}
	r.check(what)
	if name != "" {
		r.shoot(what)
	}
}

// check holds the page that is shown to the rules.
func (r *reader) check(what string) {
	r.t.Helper()
	for _, p := range r.Audit() {
		r.t.Errorf("%s: %s", what, p)
	}
	n := map[string]int{}
	for _, x := range r.Tree() {
		n[x.Role]++
	}
	if n["main"] != 1 || n["banner"] != 1 || n["contentinfo"] != 1 || n["navigation"] != 2 || n["radiogroup"] != 7 || n["radio"] != 7*48 {
		r.t.Errorf("%s: roles %v", what, n)
	}
}

func (r *reader) shoot(what string) {
	if err := os.WriteFile(filepath.Join(r.dir, what+".png"), r.Shoot(), 0o644); err != nil {
		r.t.Fatal(err)
	}
}

// opened looks at a page with all its details open.
func (r *reader) opened(name string) {
	for _, width := range []int{320, 1440} {
		r.Look(width, 900, "dark", false)
		r.Open(pageURL + "?lang=ru")
		r.Eval(`document.querySelectorAll("details").forEach(e => e.open = true)`, nil)
		what := fmt.Sprintf("%s-opened-ru-dark-%d", name, width)
		r.check(what)
		r.shoot(what)
	}
}

// keyboard goes over the page without a pointer.
func (r *reader) keyboard() {
	r.Look(1440, 900, "light", true)
	r.Open(pageURL + "?lang=en")
	var stops []string
	for range 40 {
		r.Key("Tab")
		var at struct {
			Stop string
			Ring bool
			Seen bool
		}
		// A cell's ring is its label's.
		r.Eval(`(() => {
			const e = document.activeElement, shown = e.type === "radio" ? e.closest("label") : e, s = getComputedStyle(shown), b = shown.getBoundingClientRect();
			if (e === document.body) return {stop: "body"};
			return {stop: e.type === "radio" ? "strip " + e.name : e.innerText.trim() || e.localName,
				ring: s.outlineStyle !== "none" && parseFloat(s.outlineWidth) >= 2,
				seen: b.width > 0 && b.bottom > 0 && b.top < innerHeight && b.left >= 0 && b.right <= innerWidth};
		})()`, &at)
		if at.Stop == "body" || at.Stop == "" {
			break
		}
		stops = append(stops, at.Stop)
		if !at.Ring || !at.Seen {
			r.t.Errorf("focus on %q: ring %v, in sight %v", at.Stop, at.Ring, at.Seen)
		}
	}
	want := []string{"Skip to the state of the messengers", "Русский", "strip lab-chat", "Details", "strip lab-login", "Details"}
	if len(stops) < 20 || !slices.Equal(stops[:6], want) || !slices.Contains(stops, "strip lab-calls") || stops[len(stops)-1] != "Changes as JSON" {
		r.t.Errorf("Tab goes over %q", stops)
	}

	// The skip link skips; the next stop is the first strip, at its newest cell.
	r.Open(pageURL + "?lang=en")
	r.Key("Tab")
	r.Key("Enter")
	r.Key("Tab")
	type cell struct {
		Name, Text string
		At         int
		Shown      bool
	}
	look := func() (c cell) {
		r.Eval(`(() => {
			const e = document.activeElement, l = e.closest("label"), s = l.querySelector("span"), b = s.getBoundingClientRect();
			return {name: e.name, at: [...l.parentElement.children].indexOf(l), text: s.innerText,
				shown: s.checkVisibility({opacityProperty: true}) && b.left >= 0 && b.right <= innerWidth && document.elementsFromPoint(b.left + 5, b.top + 5).length > 0};
		})()`, &c)
		return c
	}
	if c := look(); c.Name != "lab-chat" || c.At != 47 || !c.Shown || !strings.Contains(c.Text, "Works") || !strings.Contains(c.Text, "checks worked") {
		r.t.Errorf("after the skip link: %+v", c)
	}
	r.Key("ArrowLeft")
	r.Key("ArrowLeft")
	if c := look(); c.At != 45 || !c.Shown || !strings.Contains(c.Text, "nothing was measured") {
		r.t.Errorf("two cells back: %+v", c)
	}
	// Details open with Enter.
	r.Key("Tab")
	r.Key("Enter")
	r.holds("details open with Enter", `document.querySelector("#lab-chat-more").open && /all \d+ checks work/.test(document.querySelector("#lab-chat-more").innerText)`)
	r.holds("with less motion nothing moves", `[...document.querySelectorAll("*")].every(e => ["", "::before"].every(p => { const s = getComputedStyle(e, p || null); return parseFloat(s.transitionDuration) === 0 && parseFloat(s.animationDuration) === 0 }))`)
}

// pointer goes over a cell.
func (r *reader) pointer() {
	for _, width := range []int{360, 1440} {
		r.Look(width, 900, "light", true)
		r.Open(pageURL + "?lang=en")
		var at struct{ X, Y float64 }
		r.Eval(`(() => { const e = document.querySelector("#lab-web label:last-child"); e.scrollIntoView({block: "center"}); const b = e.getBoundingClientRect(); return {x: b.left + b.width / 2, y: b.top + b.height / 2} })()`, &at)
		r.Point(at.X, at.Y)
		r.until("the cell under the pointer says what it is", `(() => { const s = document.querySelector("#lab-web label:last-child span"), b = s.getBoundingClientRect();
			return getComputedStyle(s).opacity === "1" && b.left >= 0 && b.right <= innerWidth && /checks worked/.test(s.innerText) })()`, 5*time.Second)
		r.Point(1, 1)
	}
}

// withoutScript reads the page where JavaScript is off.
func (r *reader) withoutScript() {
	r.Do("Emulation.setScriptExecutionDisabled", map[string]any{"value": true}, nil)
	r.look("", "en", "light", 1440, reading{"Yes: Lab works.", nil})
	r.holds("without JavaScript it says the same, and renews itself", `document.querySelector("h1").innerText === "Yes: Lab works." && document.querySelector("noscript meta")?.content === "60"`)
	r.Open(pageURL + "?lang=en&still")
	r.holds("it can be told to stand still", `!document.querySelector("noscript meta") && /stands still/.test(document.querySelector("footer").innerText)`)
	r.Do("Emulation.setScriptExecutionDisabled", map[string]any{"value": false}, nil)
}

// holds wants a JavaScript expression to be true.
func (r *reader) holds(what, expression string) {
	r.t.Helper()
	var ok bool
	if r.Eval("!!("+expression+")", &ok); !ok {
		var text string
		r.Eval(`document.body.innerText`, &text)
		r.t.Errorf("not so: %s\n%s", what, text)
	}
}

// until waits for a JavaScript expression to be true.
func (r *reader) until(what, expression string, within time.Duration) {
	r.t.Helper()
	for start := time.Now(); time.Since(start) < within; time.Sleep(100 * time.Millisecond) {
		var ok bool
		if r.Eval("!!("+expression+")", &ok); ok {
			r.t.Logf("%s: after %v", what, time.Since(start).Round(100*time.Millisecond))
			return
		}
	}
	r.holds(what, expression)
}

// quiet wants the browser not to have complained about the page.
func (r *reader) quiet() {
	r.t.Helper()
	all := r.Complaints()
	for _, c := range all[r.noted:] {
		if !r.refused || !strings.Contains(c, "ERR_CONNECTION_REFUSED") {
			r.t.Errorf("the browser complains: %s", c)
		}
	}
	r.noted = len(all)
}
