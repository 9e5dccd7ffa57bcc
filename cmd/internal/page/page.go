// Package page is the status page for people: one HTML document that a server
// without JavaScript, fonts or pictures of others can show, in the language of
// the reader. What it says comes as a [View]; what it is called stands in one
// file a language.
package page

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

//go:embed page.html
var pageHTML string

//go:embed page.css
var pageCSS string

//go:embed page.js
var pageJS string

// fresh is how long a page that was drawn is shown again: what it says changes
// once a second at most, and many readers cost no more than one.
const fresh = time.Second

// A Page is an [http.Handler]. It understands the parameters lang, a language
// in place of the browser's, and still, without which the page renews itself.
type Page struct {
	view      func() View
	languages []*language
	templates map[string]*template.Template // by language
	csp       string

	mu    sync.Mutex
	drawn map[variant]drawing
}

// variant is what readers may choose.
type variant struct {
	lang  string
	still bool
}

// drawing is a page as it was sent.
type drawing struct {
	at          time.Time
	plain, gzip []byte
}

// New is the page of what view says whenever it is asked.
func New(view func() View) (*Page, error) {
	p := &Page{view: view, templates: map[string]*template.Template{}, drawn: map[variant]drawing{}}
	for _, name := range languages {
		l, err := load(name)
		if err != nil {
			return nil, err
		}
		p.languages = append(p.languages, l)
		p.templates[name], err = template.New("page").Option("missingkey=error").Funcs(template.FuncMap{
			"t":   l.t,
			"iso": func(t time.Time) string { return t.UTC().Format(time.RFC3339) },
		}).Parse(pageHTML)
		if err != nil {
			return nil, err
		}
	}
	p.csp = "default-src 'none'; style-src " + hash(pageCSS) + "; script-src " + hash(pageJS) +
		"; connect-src 'self'; img-src data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
	return p, nil
}

// hash is a source of a content security policy: this text and no other.
func hash(text string) string {
	sum := sha256.Sum256([]byte(text))
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}

func (p *Page) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	v := variant{lang: p.choose(r), still: r.URL.Query().Has("still")}
	h := w.Header()
	d, err := p.draw(v)
	if err != nil {
		http.Error(w, "the page cannot be drawn: "+err.Error(), http.StatusInternalServerError)
		return
	}
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Language", v.lang)
	h.Set("Content-Security-Policy", p.csp)
	h.Set("Vary", "Accept-Language, Accept-Encoding")
	body := d.plain
	if accepts(r.Header.Get("Accept-Encoding"), "gzip") {
		h.Set("Content-Encoding", "gzip")
		body = d.gzip
	}
	h.Set("Content-Length", strconv.Itoa(len(body)))
	if r.Method != http.MethodHead {
		w.Write(body) // a reader who is gone is nobody's trouble
	}
}

// choose is the language for a reader.
func (p *Page) choose(r *http.Request) string {
	if asked := r.URL.Query().Get("lang"); slices.Contains(languages, asked) {
		return asked
	}
	return prefer(strings.Join(r.Header.Values("Accept-Language"), ","))
}

// prefer is that of our languages which an Accept-Language header likes best
// (RFC 9110 §12.5.4), by its first subtag.
func prefer(header string) string {
	best, most := languages[0], 0.0
	for part := range strings.SplitSeq(header, ",") {
		tag, quality := weigh(part)
		primary, _, _ := strings.Cut(strings.ToLower(tag), "-")
		if quality > most && slices.Contains(languages, primary) {
			best, most = primary, quality
		}
	}
	return best
}

// weigh takes an item of a header apart: what it names, and how much it is
// liked, from 0 to 1.
func weigh(item string) (name string, quality float64) {
	name, params, _ := strings.Cut(item, ";")
	quality = 1
	if q, ok := strings.CutPrefix(strings.ToLower(strings.TrimSpace(params)), "q="); ok {
		var err error
		if quality, err = strconv.ParseFloat(q, 64); err != nil || !(quality >= 0 && quality <= 1) {
			quality = 0
		}
	}
	return strings.TrimSpace(name), quality
}

// accepts says whether a header lists a coding.
func accepts(header, coding string) bool {
	for part := range strings.SplitSeq(header, ",") {
		if name, quality := weigh(part); strings.EqualFold(name, coding) && quality > 0 {
			return true
		}
	}
	return false
}

// draw is the page as it was a second ago at most.
func (p *Page) draw(v variant) (drawing, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	d, now := p.drawn[v], time.Now()
	if age := now.Sub(d.at); d.plain != nil && age >= 0 && age < fresh {
		return d, nil
	}
	plain, err := p.render(p.view(), v)
	if err != nil {
		return drawing{}, err
	}
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	z.Write(plain) // to memory: it cannot fail
	if err := z.Close(); err != nil {
		return drawing{}, err
	}
	d = drawing{now, plain, packed.Bytes()}
	p.drawn[v] = d
	return d, nil
}

// render is the document.
func (p *Page) render(view View, v variant) ([]byte, error) {
	var b bytes.Buffer
	i := slices.Index(languages, v.lang)
	if i < 0 {
		return nil, fmt.Errorf("no language %q", v.lang)
	}
	s := p.scene(&view, p.languages[i], v.still)
	if err := p.templates[v.lang].Execute(&b, s); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}
