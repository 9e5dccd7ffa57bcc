//go:build linux

package netlab

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

// The browser sees what is in its namespace, and everything that is wrong with
// a page is noticed: else the tests of ours would prove nothing.
func TestE2EBrowser(t *testing.T) {
	n := New(t).Namespace
	l, err := n.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/" {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", "text/html")
		w.Header().Set("Content-Security-Policy", "script-src 'sha256-none'; img-src *")
		io.WriteString(w, `<!doctype html><html lang="en"><title>x</title><h1>Hello</h1><button aria-label="Press me">x</button><img src="/missing.png"><script>alert(1)</script>
			<a id="first" href="#a">a</a> <a id="second" href="#b">b</a>`)
	})}
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(l) }()
	defer func() { s.Close(); <-ended }()

	tab := n.Browser(t).Tab(t)
	tab.Look(360, 640, "dark", true)
	tab.Open(fmt.Sprintf("http://%s/", l.Addr()))
	var got struct {
		Text          string
		Width         int
		Dark, Reduced bool
	}
	tab.Eval(`({text: document.querySelector("h1").textContent, width: innerWidth, dark: matchMedia("(prefers-color-scheme: dark)").matches,
		reduced: matchMedia("(prefers-reduced-motion: reduce)").matches})`, &got)
	if got.Text != "Hello" || got.Width != 360 || !got.Dark || !got.Reduced {
		t.Errorf("%+v", got)
	}
	var focus []string
	for range 3 {
		tab.Key("Tab")
		var id string
		tab.Eval(`document.activeElement.id || document.activeElement.localName`, &id)
		focus = append(focus, id)
	}
	if want := []string{"button", "first", "second"}; !slices.Equal(focus, want) {
		t.Errorf("focus went over %v, want %v", focus, want)
	}
	for until := time.Now().Add(5 * time.Second); len(tab.Complaints()) < 2 && time.Now().Before(until); {
		time.Sleep(20 * time.Millisecond)
	}
	all := strings.Join(tab.Complaints(), "\n")
	if !strings.Contains(all, "Content Security Policy") || !strings.Contains(all, "404") {
		t.Errorf("complaints: %q", all)
	}
	if asked := tab.Asked(); !slices.ContainsFunc(asked, func(u string) bool { return strings.HasSuffix(u, "/missing.png") }) {
		t.Errorf("asked for %v", asked)
	}
	tree := tab.Tree()
	for _, want := range []Node{{"heading", "Hello"}, {"button", "Press me"}, {"link", "a"}} {
		if !slices.Contains(tree, want) {
			t.Errorf("no %v in %v", want, tree)
		}
	}
	if png := tab.Shoot(); !bytes.HasPrefix(png, []byte("\x89PNG")) || len(png) < 500 {
		t.Errorf("%d bytes of a picture", len(png))
	}

	// It is in the namespace, and nowhere else.
	if c, err := net.DialTimeout("tcp", l.Addr().String(), time.Second); err == nil {
		c.Close()
		t.Error("the server can be reached from outside")
	}
}
