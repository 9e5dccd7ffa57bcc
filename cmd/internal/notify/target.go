package notify

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/messenger-probe/messenger-probe/probe"
	"github.com/messenger-probe/messenger-probe/probe/verdict"
	"github.com/messenger-probe/messenger-probe/targets/plainfile"
)

// Types is the kinds of targets.
var Types = []string{"webhook", "ntfy", "telegram", "smtp"}

// A Target is where messages go. What is secret is read from a file or a
// variable of the environment each time, so that it can be changed.
type Target struct {
	Name string // what it is called in the log
	Type string // one of [Types]

	URL                 string // of the hook, of the topic; of Telegram's Bot API, "" its own
	URLFile             string // a file whose first line is the URL
	URLEnv              string // a variable that holds the URL
	TokenFile, TokenEnv string // a bearer token; the bot's token

	Chat string // telegram: number of a chat, or @channel

	Server                    string   // smtp: host:port; on 465 TLS from the start, else STARTTLS
	From                      string   // smtp: address
	To                        []string // smtp: addresses
	Username                  string   // smtp: "" no login
	PasswordFile, PasswordEnv string

	Proxy  string // http, https or socks5 URL; "" none, whatever the environment says
	CAFile string // PEM roots beside the others
}

// A sender delivers letters to one target.
type sender interface {
	// send delivers one letter, or says why not in a fault or an error from the
	// network. It heeds ctx.
	send(ctx context.Context, l *letter) error
}

// fault is why a letter was not delivered, in words that hold no secret and no
// address.
type fault struct {
	why     string
	after   time.Duration // try again no sooner than this
	refused bool          // this letter will never be taken
}

func (f *fault) Error() string { return f.why }

func because(format string, args ...any) *fault { return &fault{why: fmt.Sprintf(format, args...)} }

// reason is an error without secrets and addresses.
func reason(err error) string {
	if f, ok := errors.AsType[*fault](err); ok {
		return f.why
	}
	return string(probe.Classify(err))
}

// An Audience is who is told what, as a configuration has it.
type Audience struct {
	names   []string
	kinds   []string
	senders []sender
	on      []verdict.State
	words   *words
	vantage string
}

// AudienceOptions are what an audience is made of.
type AudienceOptions struct {
	Targets  []Target
	PEM      []byte          // roots beside Mozilla's, believed for every target; nil none
	On       []verdict.State // bad states that are told; recoveries from them always are
	Language string          // one of [Languages]
	Vantage  string          // as its operator calls it, "" nothing
}

// NewAudience is an audience, or says what is wrong with one of its targets.
// No secret is read yet.
func NewAudience(o AudienceOptions) (*Audience, error) {
	a := &Audience{on: o.On, words: wordsOf(o.Language), vantage: o.Vantage}
	for i, t := range o.Targets {
		s, err := newSender(t, o.PEM)
		if err != nil {
			return nil, fmt.Errorf("notify.targets[%d].%w", i, err)
		}
		a.names, a.kinds, a.senders = append(a.names, t.Name), append(a.kinds, t.Type), append(a.senders, s)
	}
	return a, nil
}

func newSender(t Target, pem []byte) (sender, error) {
	if t.CAFile != "" {
		more, err := plainfile.Read(t.CAFile, maxRoots)
		if err != nil {
			return nil, fmt.Errorf("ca_file: %w", err)
		}
		pem = slices.Concat(pem, []byte("\n"), more)
	}
	trust, err := probe.NewTrust(pem)
	if err != nil {
		return nil, fmt.Errorf("ca_file: %s: %w", t.CAFile, err)
	}
	roots := trust.Roots
	if t.Type == "smtp" {
		return newMail(t, roots)
	}
	p, err := newPoster(t, roots)
	if err != nil {
		return nil, err
	}
	where := secret{t.URL, t.URLFile, t.URLEnv}
	token := secret{"", t.TokenFile, t.TokenEnv}
	if t.URL != "" {
		if _, err := parseURL(t.URL); err != nil {
			return nil, fmt.Errorf("url: %w", err)
		}
	}
	switch t.Type {
	case "webhook":
		return &webhook{p, where, token}, nil
	case "ntfy":
		if t.URL != "" {
			if _, _, err := topic(t.URL); err != nil {
				return nil, fmt.Errorf("url: %w", err)
			}
		}
		return &ntfy{p, where, token}, nil
	case "telegram":
		if where == (secret{}) {
			where.plain = botAPI
		}
		return &telegram{p, where, token, t.Chat}, nil
	}
	return nil, fmt.Errorf("type: %q is not known; write one of %s", t.Type, strings.Join(Types, ", "))
}

// A Trial is how a test message to one target went.
type Trial struct {
	Target string `json:"target"`
	Type   string `json:"type"`
	Error  string `json:"error,omitempty"` // "": its server took it
}

// Test sends each target a message that says it is a test, once, and waits for
// their answers, some half a minute at the most.
func (a *Audience) Test(ctx context.Context, id string) []Trial {
	trials := make([]Trial, len(a.senders))
	var wg sync.WaitGroup
	for i, s := range a.senders {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, patience)
			defer cancel()
			l := letter{id: id, time: time.Now().UTC().Truncate(time.Second), vantage: a.vantage, test: true,
				title: a.words.testTitle, text: a.words.testText}
			if a.vantage != "" {
				l.title = clip(l.title+" ("+a.vantage+")", maxTitle)
			}
			trials[i] = Trial{Target: a.names[i], Type: a.kinds[i]}
			if err := s.send(ctx, &l); err != nil {
				trials[i].Error = reason(err)
			}
		})
	}
	wg.Wait()
	return trials
}

// The bounds of what files hold, in bytes.
const (
	maxSecret = 4 << 10
	maxRoots  = 4 << 20
)

// A secret is where one is found: written down, which only what is none may be,
// in a file or in a variable.
type secret struct{ plain, file, env string }

// read is the secret now, "" where there is none to be had. What is wrong is
// said without it.
func (s secret) read(what string) (string, error) {
	text := s.plain
	switch {
	case s.file != "":
		f, err := plainfile.Open(s.file)
		if err != nil {
			return "", because("%s_file cannot be read", what)
		}
		defer f.Close()
		b, err := io.ReadAll(io.LimitReader(f, maxSecret+1))
		if err != nil {
			return "", because("%s_file cannot be read", what)
		}
		b, _, _ = bytes.Cut(b, []byte("\n"))
		text = string(bytes.TrimSpace(b))
	case s.env != "":
		text = strings.TrimSpace(os.Getenv(s.env))
	case text == "":
		return "", nil
	}
	if text == "" || len(text) > maxSecret || strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return "", because("no %s is found where the configuration says", what)
	}
	return text, nil
}

// parseURL is the URL of a server that may be told secrets: over https, or over
// http where the line is this machine's own: loopback, an address of a private
// network, or a name that only such a network has.
func parseURL(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return nil, errors.New("is no http(s) URL; write it such as https://example.org/hook")
	}
	if u.User != nil {
		return nil, errors.New("holds a user or a password; put them into token_file, or the whole URL into url_file")
	}
	if u.Scheme == "http" && !homely(u.Hostname()) {
		return nil, errors.New("would tell everybody on the way; write https")
	}
	u.Fragment = ""
	return u, nil
}

// homely says that a host is of this machine or its own network.
func homely(host string) bool {
	if a, err := netip.ParseAddr(host); err == nil {
		return a.IsLoopback() || a.IsPrivate()
	}
	return loopback(host) || !strings.Contains(host, ".")
}

func loopback(host string) bool {
	a, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && a.IsLoopback()
}

// addresses is those of this machine.
func addresses() []netip.Addr {
	var out []netip.Addr
	list, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	for _, a := range list {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			out = append(out, p.Addr().Unmap())
		}
	}
	return slices.Clip(out)
}
