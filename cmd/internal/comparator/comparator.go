// Package comparator asks agents abroad what they find, so that an outage of a
// messenger can be told from a block of it. Nothing waits for it, and without
// it nothing else changes.
package comparator

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/messenger-probe/messenger-probe/probe"
	"github.com/messenger-probe/messenger-probe/probe/verdict"
	"github.com/messenger-probe/messenger-probe/targets/plainfile"
)

// An Agent is one to ask.
type Agent struct {
	Name      string // what it is called here
	URL       string // where it serves; /api/v1/status is appended
	CAFile    string // PEM roots beside Mozilla's; "" none
	TokenFile string // its first line is sent as a bearer token, or with a colon in it as name:password; "" none
}

// A Report is the newest that an agent abroad said. Its times are those of this
// machine's clock.
type Report struct {
	Name     string
	Time     time.Time // when it said so
	Until    time.Time // from then on it is too old to say anything
	Verdicts []Verdict // none where the agent's own vantage is ill
	Results  []Result
}

// A Verdict is the state of a function there, and what explains it.
type Verdict struct {
	Messenger, Function string
	State               verdict.State
	Mechanism           verdict.Mechanism
}

// A Result is how a check went there. What was void there is not told.
type Result struct {
	Messenger, Function, Endpoint, Check, Family string

	OK   bool
	Time time.Time // when the check began
}

// Options are what agents are asked with.
type Options struct {
	// Interval is the usual time between two questions, at least 4 s, which is
	// also the default. What is older than three of them says nothing.
	Interval time.Duration

	// Urgent says that an answer is worth four times the traffic; nil: never.
	Urgent func() bool

	// Heard is told all newest reports when one of them is new. It is called by
	// one goroutine at a time and must not block.
	Heard func([]Report)

	Log *slog.Logger
}

// The bounds of one question.
const (
	maxDocument = 4 << 20 // bytes, unpacked
	maxHeader   = 64 << 10
	maxToken    = 4 << 10
	maxRoots    = 4 << 20 // of a file
	patience    = 10 * time.Second
	least       = 4 * time.Second
)

// A Client asks a fixed list of agents.
type Client struct {
	peers []*peer
	o     Options

	mu      sync.Mutex
	reports []Report // by peer; no name: none yet
}

// peer is an agent that is asked.
type peer struct {
	Agent
	url  string
	http *http.Client

	said time.Time // the time in the newest document, of the agent's clock
	down string    // why it could not be asked; "" it could, or was not yet
}

// New is a client for these agents, or says what is wrong with one of them.
func New(agents []Agent, o Options) (*Client, error) {
	o.Interval = max(o.Interval, least)
	c := &Client{o: o, reports: make([]Report, len(agents))}
	for i, a := range agents {
		p, err := newPeer(a)
		if err != nil {
			return nil, fmt.Errorf("comparators[%d].%w", i, err)
		}
		c.peers = append(c.peers, p)
	}
	return c, nil
}

func newPeer(a Agent) (*peer, error) {
	u, err := url.Parse(a.URL)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return nil, errors.New("url: is no http(s) URL; write it such as https://probe.example.org:9770")
	}
	if u.Scheme == "http" && (a.TokenFile != "" || u.User != nil) && !loopback(u.Hostname()) {
		return nil, errors.New("url: would send a secret in clear; write https")
	}
	const path = "/api/v1/status"
	if !strings.HasSuffix(u.Path, path) {
		u = u.JoinPath(path)
	}
	u.Fragment = ""
	var pem []byte
	if a.CAFile != "" {
		if pem, err = plainfile.Read(a.CAFile, maxRoots); err != nil {
			return nil, fmt.Errorf("ca_file: %w", err)
		}
	}
	trust, err := probe.NewTrust(pem)
	if err != nil {
		return nil, fmt.Errorf("ca_file: %s: %w", a.CAFile, err)
	}
	return &peer{Agent: a, url: u.String(), http: &http.Client{
		// No proxy and no cookies; a redirect is an answer, and a wrong one.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			DialContext:            (&net.Dialer{Timeout: patience}).DialContext,
			TLSHandshakeTimeout:    patience, // it may outlive its question
			TLSClientConfig:        &tls.Config{RootCAs: trust.Roots, MinVersion: tls.VersionTLS12},
			DisableKeepAlives:      true, // a connection a minute is cheap, and leaves nothing behind
			MaxResponseHeaderBytes: maxHeader,
		},
	}}, nil
}

func loopback(host string) bool {
	a, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && a.IsLoopback()
}

// Run asks until ctx is done. It returns when nothing is under way any more.
func (c *Client) Run(ctx context.Context) {
	var wg sync.WaitGroup
	for i := range c.peers {
		wg.Go(func() { c.keepAsking(ctx, i) })
	}
	wg.Wait()
}

// keepAsking asks one agent, each time after the last answer, so that a slow
// one is asked less often.
func (c *Client) keepAsking(ctx context.Context, i int) {
	quarter := c.o.Interval / 4
	// Agents that were started together must not stay together.
	wait := rand.N(min(quarter, 5*time.Second))
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		wait = quarter*9/10 + rand.N(quarter/5)
		if n%4 != 0 && (c.o.Urgent == nil || !c.o.Urgent()) {
			continue
		}
		c.ask(ctx, i)
	}
}

// ask asks one agent once.
func (c *Client) ask(ctx context.Context, i int) {
	p := c.peers[i]
	ctx, cancel := context.WithTimeout(ctx, min(patience, c.o.Interval))
	defer cancel()
	r, err := p.ask(ctx, 3*c.o.Interval)
	if context.Cause(ctx) == context.Canceled {
		return // we are being stopped
	}
	why := ""
	if err != nil {
		why = reason(err)
	}
	if p.down != why {
		if why != "" {
			c.o.Log.Warn("a comparator does not answer", "name", p.Name, "why", why)
		} else {
			c.o.Log.Info("a comparator answers again", "name", p.Name)
		}
		p.down = why
	}
	if err != nil || r.Name == "" {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reports[i] = r
	c.o.Heard(slices.DeleteFunc(slices.Clone(c.reports), func(r Report) bool { return r.Name == "" }))
}

// A fault is why an answer is none. It names no address.
type fault string

func (f fault) Error() string { return string(f) }

// reason is an error without addresses.
func reason(err error) string {
	if f, ok := errors.AsType[fault](err); ok {
		return string(f)
	}
	return string(probe.Classify(err))
}

// ask asks once. A report without a name is no news.
func (p *peer) ask(ctx context.Context, life time.Duration) (Report, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.url, nil)
	if err != nil {
		return Report{}, fault("url")
	}
	req.Header.Set("Accept", "application/json")
	if p.TokenFile != "" {
		token, err := readToken(p.TokenFile)
		if err != nil {
			return Report{}, err
		}
		// A bearer token has no colon (RFC 6750 §2.1). An agent's own web_config knows
		// names and passwords alone; tokens are for a server before it.
		if name, password, ok := strings.Cut(token, ":"); ok {
			req.SetBasicAuth(name, password)
		} else {
			req.Header.Set("Authorization", "Bearer "+token)
		}
	}
	asked := time.Now()
	resp, err := p.http.Do(req)
	if err != nil {
		return Report{}, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return Report{}, fault(fmt.Sprintf("HTTP status %d", resp.StatusCode))
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxDocument+1))
	if err == nil {
		// A body that ends because we hung up is not always said to be cut.
		err = ctx.Err()
	}
	if err != nil {
		return Report{}, err
	}
	if len(body) > maxDocument {
		return Report{}, fault(fmt.Sprintf("its document is larger than %d bytes", maxDocument))
	}
	doc, err := read(body)
	if err != nil {
		return Report{}, err
	}
	// Its clock need not be ours: what counts is how old things were when it
	// sent them.
	there := asked
	if t, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
		there = t
	}
	here := func(t time.Time) time.Time { return asked.Add(-max(0, there.Sub(t))) }
	if !here(doc.Time).Add(life).After(asked) {
		return Report{}, fault("its document is old")
	}
	if doc.Time.Equal(p.said) {
		return Report{}, nil
	}
	p.said = doc.Time
	return doc.report(p.Name, here, here(doc.Time).Add(life)), nil
}

// readToken reads the token anew each time, so that it can be changed.
func readToken(file string) (string, error) {
	f, err := plainfile.Open(file)
	if err != nil {
		return "", fault("token_file cannot be read")
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxToken+1))
	if err != nil {
		return "", fault("token_file cannot be read")
	}
	b, _, _ = bytes.Cut(b, []byte("\n"))
	token := string(bytes.TrimSpace(b))
	if token == "" || len(token) > maxToken || strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", fault("token_file holds no token")
	}
	return token, nil
}
