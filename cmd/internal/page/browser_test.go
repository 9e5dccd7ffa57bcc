//go:build linux

package page

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/messenger-probe/messenger-probe/cmd/internal/netlab"
)

// A real browser finds nothing wrong with the page, whatever is on it: all
// states at once, a good day, nothing yet; in every language, scheme and size,
// closed and with all details open.
func TestE2ELook(t *testing.T) {
	n := netlab.New(t).Namespace
	views := map[string]View{"ill": sample(), "well": healthy(), "begun": {}}
	mux := http.NewServeMux()
	for name, v := range views {
		mux.Handle("/"+name, newPage(t, func() View { return v }))
	}
	l, err := n.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: mux}
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(l) }()
	defer func() { s.Close(); <-ended }()
	pictures := os.Getenv("PAGE_SCREENSHOTS")

	tab := n.Browser(t).Tab(t)
	for name := range views {
		for _, lang := range languages {
			for i, width := range []int{320, 360, 768, 1440} {
				for _, scheme := range []string{"light", "dark"} {
					if (scheme == "dark") != (i%2 == 1) && name != "ill" {
						continue // each size once is enough of the others
					}
					what := fmt.Sprintf("%s-%s-%s-%d", name, lang, scheme, width)
					tab.Look(width, 900, scheme, true)
					tab.Open(fmt.Sprintf("http://%s/%s?lang=%s", l.Addr(), name, lang))
					for _, p := range tab.Audit() {
						t.Errorf("%s: %s", what, p)
					}
					if pictures != "" {
						shoot(t, tab, pictures, what)
					}
					if name != "ill" || scheme == "dark" {
						continue
					}
					tab.Eval(`document.querySelectorAll("details").forEach(e => e.open = true)`, nil)
					for _, p := range tab.Audit() {
						t.Errorf("%s, opened: %s", what, p)
					}
					if pictures != "" {
						shoot(t, tab, pictures, what+"-opened")
					}
				}
			}
		}
	}
	for _, c := range tab.Complaints() {
		t.Errorf("the browser complains: %s", c)
	}
	for _, u := range tab.Asked() {
		if !strings.HasPrefix(u, fmt.Sprintf("http://%s/", l.Addr())) && !strings.HasPrefix(u, "data:image/svg+xml,") {
			t.Errorf("the page asked for %s", u)
		}
	}
}

func shoot(t *testing.T, tab *netlab.Tab, dir, what string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, "look-"+what+".png"), tab.Shoot(), 0o644); err != nil {
		t.Fatal(err)
	}
}
