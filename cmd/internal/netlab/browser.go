//go:build linux

package netlab

import (
	"bufio"
	"bytes"
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// A Browser is Debian's chromium in a namespace, without a window, driven over
// its own pipe by the DevTools protocol.
type Browser struct {
	out io.Writer

	mu     sync.Mutex
	last   int
	waits  map[int]chan reply
	tabs   map[string]*Tab // by session
	broken error
}

// message is one of the DevTools protocol, either way.
type message struct {
	ID      int             `json:"id,omitempty"`
	Session string          `json:"sessionId,omitempty"`
	Method  string          `json:"method,omitempty"`
	Params  json.RawMessage `json:"params,omitempty"`
	Result  json.RawMessage `json:"result,omitempty"`
	Error   *struct {
		Message string `json:"message"`
	} `json:"error,omitempty"`
}

type reply struct {
	result json.RawMessage
	err    error
}

// browserTime is how long the browser may take for anything.
const browserTime = 60 * time.Second

// Browser starts one, with a profile that is gone after the test.
func (n Namespace) Browser(tb testing.TB) *Browser {
	tb.Helper()
	if _, err := exec.LookPath("chromium"); err != nil {
		if os.Getenv(Required) != "" {
			tb.Fatal("no browser: ", err)
		}
		tb.Skip("no browser: ", err)
	}
	profile, err := os.MkdirTemp("", "netlab-browser-")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { os.RemoveAll(profile) })
	theirs, in, err := os.Pipe()
	if err != nil {
		tb.Fatal(err)
	}
	from, out, err := os.Pipe()
	if err != nil {
		tb.Fatal(err)
	}
	cmd := n.Command("chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-dev-shm-usage", "--hide-scrollbars",
		"--no-first-run", "--no-default-browser-check", "--disable-background-networking", "--disable-component-update", "--disable-sync",
		"--disable-extensions", "--disable-features=Translate,OptimizationHints,MediaRouter", "--font-render-hinting=none",
		"--user-data-dir="+profile, "--remote-debugging-pipe", "about:blank")
	cmd.Env = append(os.Environ(), "HOME="+profile, "TZ=UTC", "LANG=C.UTF-8")
	cmd.ExtraFiles = []*os.File{theirs, out} // 3 and 4
	var said bytes.Buffer
	cmd.Stderr = &said
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	theirs.Close()
	out.Close()
	b := &Browser{out: in, waits: map[int]chan reply{}, tabs: map[string]*Tab{}}
	read := make(chan struct{})
	go func() {
		defer close(read)
		b.read(from)
	}()
	tb.Cleanup(func() {
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		cmd.Wait()
		in.Close()
		<-read
		from.Close()
		if tb.Failed() {
			tb.Logf("the browser (%v) said at last: %s", cmd.ProcessState, said.Bytes()[max(0, said.Len()-4000):])
		}
	})
	return b
}

// read takes what the browser says until it ends.
func (b *Browser) read(r io.Reader) {
	in := bufio.NewReaderSize(r, 1<<20)
	for {
		line, err := in.ReadBytes(0)
		if err != nil {
			b.mu.Lock()
			b.broken = fmt.Errorf("the browser is gone: %w", err)
			for _, w := range b.waits {
				w <- reply{err: b.broken}
			}
			clear(b.waits)
			b.mu.Unlock()
			return
		}
		var m message
		if json.Unmarshal(line[:len(line)-1], &m) != nil {
			continue
		}
		b.mu.Lock()
		if w := b.waits[m.ID]; w != nil && m.ID != 0 {
			delete(b.waits, m.ID)
			r := reply{result: m.Result}
			if m.Error != nil {
				r.err = fmt.Errorf("%s", m.Error.Message)
			}
			w <- r
		} else if t := b.tabs[m.Session]; t != nil {
			t.take(&m)
		}
		b.mu.Unlock()
	}
}

// do gives a command and waits for what comes of it.
func (b *Browser) do(session, method string, params, result any) error {
	raw, err := json.Marshal(params)
	if err != nil {
		return err
	}
	w := make(chan reply, 1)
	b.mu.Lock()
	if b.broken != nil {
		defer b.mu.Unlock()
		return b.broken
	}
	b.last++
	m := message{ID: b.last, Session: session, Method: method, Params: raw}
	b.waits[m.ID] = w
	line, err := json.Marshal(m)
	if err == nil {
		_, err = b.out.Write(append(line, 0))
	}
	b.mu.Unlock()
	if err != nil {
		return err
	}
	select {
	case r := <-w:
		if r.err != nil || result == nil {
			return r.err
		}
		return json.Unmarshal(r.result, result)
	case <-time.After(browserTime):
		return fmt.Errorf("%s: nothing in %v", method, browserTime)
	}
}

// A Tab shows a page, and remembers what the page complained about and asked
// for. Its methods end the test where the browser does not do as it is told.
type Tab struct {
	tb      testing.TB
	b       *Browser
	session string

	loaded     chan struct{}
	complaints []string
	asked      []string
}

type dict = map[string]any

// Tab opens one.
func (b *Browser) Tab(tb testing.TB) *Tab {
	tb.Helper()
	var target struct{ TargetID string }
	if err := b.do("", "Target.createTarget", dict{"url": "about:blank"}, &target); err != nil {
		tb.Fatal(err)
	}
	var session struct{ SessionID string }
	if err := b.do("", "Target.attachToTarget", dict{"targetId": target.TargetID, "flatten": true}, &session); err != nil {
		tb.Fatal(err)
	}
	t := &Tab{tb: tb, b: b, session: session.SessionID, loaded: make(chan struct{}, 1)}
	b.mu.Lock()
	b.tabs[t.session] = t
	b.mu.Unlock()
	for _, domain := range []string{"Page", "Runtime", "Log", "Network", "Accessibility"} {
		t.Do(domain+".enable", dict{}, nil)
	}
	return t
}

// take notes what happens in a tab. The browser is locked.
func (t *Tab) take(m *message) {
	complain := func(format string, args ...any) { t.complaints = append(t.complaints, fmt.Sprintf(format, args...)) }
	switch m.Method {
	case "Page.loadEventFired":
		select {
		case t.loaded <- struct{}{}:
		default:
		}
	case "Runtime.exceptionThrown":
		complain("exception: %.500s", m.Params)
	case "Runtime.consoleAPICalled":
		complain("console: %.500s", m.Params)
	case "Log.entryAdded":
		var p struct {
			Entry struct{ Level, Text, URL string }
		}
		if json.Unmarshal(m.Params, &p); p.Entry.Level == "error" || p.Entry.Level == "warning" {
			complain("%s: %s %s", p.Entry.Level, p.Entry.Text, p.Entry.URL)
		}
	case "Network.requestWillBeSent":
		var p struct {
			Request struct{ URL string }
		}
		if json.Unmarshal(m.Params, &p) == nil {
			t.asked = append(t.asked, p.Request.URL)
		}
	}
}

// Do gives a command of the DevTools protocol; result may be nil.
func (t *Tab) Do(method string, params, result any) {
	t.tb.Helper()
	if err := t.b.do(t.session, method, params, result); err != nil {
		t.tb.Fatalf("%s: %v", method, err)
	}
}

// Open loads a page and waits until all of it is there.
func (t *Tab) Open(url string) {
	t.tb.Helper()
	t.await(func() { t.Do("Page.navigate", dict{"url": url}, nil) })
}

// await waits for the load that f brings about.
func (t *Tab) await(f func()) {
	t.tb.Helper()
	select {
	case <-t.loaded:
	default:
	}
	f()
	select {
	case <-t.loaded:
	case <-time.After(browserTime):
		t.tb.Fatalf("not loaded in %v", browserTime)
	}
}

// Eval puts what a JavaScript expression gives, or promises, into result, which
// may be nil.
func (t *Tab) Eval(expression string, result any) {
	t.tb.Helper()
	var answer struct {
		Result           struct{ Value json.RawMessage }
		ExceptionDetails *struct {
			Text      string
			Exception struct{ Description string }
		}
	}
	t.Do("Runtime.evaluate", dict{"expression": expression, "returnByValue": true, "awaitPromise": true}, &answer)
	if x := answer.ExceptionDetails; x != nil {
		t.tb.Fatalf("%s: %s %s", expression, x.Text, x.Exception.Description)
	}
	if result == nil {
		return
	}
	if err := json.Unmarshal(answer.Result.Value, result); err != nil {
		t.tb.Fatalf("%.200s: %v in %.200s", expression, err, answer.Result.Value)
	}
}

// Look sets the size of the window in CSS pixels, the colour scheme (light or
// dark), and whether less motion is wanted.
func (t *Tab) Look(width, height int, scheme string, still bool) {
	t.tb.Helper()
	motion := "no-preference"
	if still {
		motion = "reduce"
	}
	t.Do("Emulation.setDeviceMetricsOverride", dict{"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false}, nil)
	t.Do("Emulation.setEmulatedMedia", dict{"features": []dict{
		{"name": "prefers-color-scheme", "value": scheme}, {"name": "prefers-reduced-motion", "value": motion}}}, nil)
}

// Key presses a key and lets it go: Tab, Enter, ArrowLeft and the like.
func (t *Tab) Key(name string) {
	t.tb.Helper()
	codes := map[string]int{"Tab": 9, "Enter": 13, "Escape": 27, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40}
	event := dict{"type": "rawKeyDown", "key": name, "code": name, "windowsVirtualKeyCode": codes[name]}
	if name == "Enter" {
		event["type"], event["text"] = "keyDown", "\r"
	}
	t.Do("Input.dispatchKeyEvent", event, nil)
	t.Do("Input.dispatchKeyEvent", dict{"type": "keyUp", "key": name, "code": name, "windowsVirtualKeyCode": codes[name]}, nil)
}

// Point moves the pointer to a place in the window.
func (t *Tab) Point(x, y float64) {
	t.tb.Helper()
	t.Do("Input.dispatchMouseEvent", dict{"type": "mouseMoved", "x": x, "y": y}, nil)
}

// Complaints is what went wrong on the pages so far, and Asked the addresses
// that they asked for.
func (t *Tab) Complaints() []string { return t.list(&t.complaints) }

// Asked is the addresses that the pages asked for so far.
func (t *Tab) Asked() []string { return t.list(&t.asked) }

func (t *Tab) list(of *[]string) []string {
	t.b.mu.Lock()
	defer t.b.mu.Unlock()
	return append([]string(nil), *of...)
}

//go:embed audit.js
var audit string

// named is the roles whose elements must have names.
var named = map[string]bool{"link": true, "button": true, "radio": true, "radiogroup": true, "DisclosureTriangle": true, "checkbox": true,
	"textbox": true, "navigation": true, "region": true, "article": true, "image": true, "img": true}

// Audit is what is wrong with the page that is shown, as far as a program can
// tell by WCAG 2.2 AA: contrast, width, headings, names, sizes of what is
// pressed.
func (t *Tab) Audit() []string {
	t.tb.Helper()
	var problems []string
	t.Eval(audit, &problems)
	links := map[string]bool{}
	mains := 0
	for _, n := range t.Tree() {
		switch {
		case named[n.Role] && n.Name == "":
			problems = append(problems, "a "+n.Role+" without a name")
		case n.Role == "main":
			mains++
		case n.Role == "link" || n.Role == "DisclosureTriangle" || n.Role == "radiogroup":
			if links[n.Role+n.Name] {
				problems = append(problems, fmt.Sprintf("more than one %s %q", n.Role, n.Name))
			}
			links[n.Role+n.Name] = true
		}
	}
	if mains != 1 {
		problems = append(problems, fmt.Sprintf("%d landmarks of role main", mains))
	}
	return problems
}

// A Node is what assistive technology is told of an element.
type Node struct{ Role, Name string }

// Tree is what assistive technology is told of the page, in order.
func (t *Tab) Tree() []Node {
	t.tb.Helper()
	var tree struct {
		Nodes []struct {
			Ignored bool
			Role    struct{ Value string }
			Name    struct{ Value string }
		}
	}
	t.Do("Accessibility.getFullAXTree", dict{}, &tree)
	var out []Node
	for _, n := range tree.Nodes {
		if !n.Ignored {
			out = append(out, Node{n.Role.Value, strings.TrimSpace(n.Name.Value)})
		}
	}
	return out
}

// Shoot is a PNG picture of the whole page.
func (t *Tab) Shoot() []byte {
	t.tb.Helper()
	var shot struct{ Data string }
	t.Do("Page.captureScreenshot", dict{"format": "png", "captureBeyondViewport": true}, &shot)
	png, err := base64.StdEncoding.DecodeString(shot.Data)
	if err != nil {
		t.tb.Fatal(err)
	}
	return png
}
