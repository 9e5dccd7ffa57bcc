package notify

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// The bounds of one delivery.
const (
	patience  = 30 * time.Second
	maxReply  = 16 << 10 // bytes that are looked at
	maxHeader = 64 << 10
	maxAfter  = time.Hour // no server makes us wait longer
	// sulk is how long we wait after a login was refused: whoever tries a wrong
	// password all the time is shut out.
	sulk = time.Hour
)

// A poster posts JSON to one server.
type poster struct{ client *http.Client }

func newPoster(t Target, roots *x509.CertPool) (poster, error) {
	var proxy func(*http.Request) (*url.URL, error) // nil: none, whatever the environment says
	if t.Proxy != "" {
		u, err := url.Parse(t.Proxy)
		if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" && u.Scheme != "socks5" {
			return poster{}, errors.New("proxy: is no URL of a proxy; write it such as socks5://127.0.0.1:1080")
		}
		if u.User != nil {
			return poster{}, errors.New("proxy: holds a password; use a proxy that asks for none, such as one on this machine")
		}
		proxy = http.ProxyURL(u)
	}
	return poster{&http.Client{
		// No cookies. A redirect is an answer, and a wrong one: what is secret is
		// not carried to another host.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			Proxy:                  proxy,
			DialContext:            (&net.Dialer{Timeout: patience}).DialContext,
			TLSHandshakeTimeout:    patience, // it may outlive its delivery
			TLSClientConfig:        &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
			DisableKeepAlives:      true, // the next message is hours away
			MaxResponseHeaderBytes: maxHeader,
		},
	}}, nil
}

// post posts a document and is the answer. An error in it is from the network;
// what an answer means is for the caller.
func (p poster) post(ctx context.Context, u *url.URL, header map[string]string, document any) (*http.Response, []byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(document); err != nil {
		return nil, nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, u.String(), &b)
	if err != nil {
		return nil, nil, because("url is no URL")
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "messenger-probe")
	for k, v := range header {
		req.Header.Set(k, v)
	}
	resp, err := p.client.Do(req)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	// What comes after the head changes nothing: the server has spoken.
	reply, _ := io.ReadAll(io.LimitReader(resp.Body, maxReply))
	return resp, reply, nil
}

// status says what is wrong with an answer, nil where nothing is.
func status(resp *http.Response) *fault {
	code := resp.StatusCode
	if code/100 == 2 {
		return nil
	}
	f := because("HTTP status %d", code)
	switch {
	case code/100 == 3:
		f.why += ", a redirect, which is not followed"
	case code == http.StatusUnauthorized || code == http.StatusForbidden:
		f.why += ": not let in"
		f.after = sulk
	case code == http.StatusBadRequest || code == http.StatusRequestEntityTooLarge ||
		code == http.StatusUnsupportedMediaType || code == http.StatusUnprocessableEntity:
		f.refused = true
	case code == http.StatusTooManyRequests || code/100 == 5:
		f.after = retryAfter(resp.Header)
	}
	return f
}

// retryAfter is how long a server asks to be left alone (RFC 9110 §10.2.3).
func retryAfter(h http.Header) time.Duration {
	v := h.Get("Retry-After")
	if s, err := strconv.ParseInt(v, 10, 32); err == nil {
		return min(max(0, time.Duration(s)*time.Second), maxAfter)
	}
	at, err := http.ParseTime(v)
	if err != nil {
		return 0
	}
	// By its clock, if it tells it.
	now, err := http.ParseTime(h.Get("Date"))
	if err != nil {
		now = time.Now()
	}
	return min(max(0, at.Sub(now)), maxAfter)
}

func bearer(token string) string { return "Bearer " + token }

// token reads a bearer token, "" where none is configured.
func (s secret) token() (string, error) {
	t, err := s.read("token")
	if err == nil && strings.ContainsFunc(t, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", because("no token is found where the configuration says")
	}
	return t, err
}
