package notify

import (
	"context"
	"errors"
	"net/url"
	"path"
	"regexp"
	"strings"
)

// ntfy is a topic of an ntfy server, published to as JSON, at its root
// (docs.ntfy.sh/publish/#publish-as-json).
type ntfy struct {
	poster
	url, secret secret
}

// ntfyDocument is what ntfy is posted. Servers before 2.16 pass over sequence_id;
// later ones put a message that comes twice in the place of the first.
type ntfyDocument struct {
	Topic    string   `json:"topic"`
	Title    string   `json:"title"`
	Message  string   `json:"message"`
	Priority int      `json:"priority"` // 3 default, 4 high
	Tags     []string `json:"tags"`
	Sequence string   `json:"sequence_id"`
}

var ntfyTopic = regexp.MustCompile(`^[-_A-Za-z0-9]{1,64}$`)

// topic is the root of the server and the topic that a URL names.
func topic(text string) (*url.URL, string, error) {
	u, err := parseURL(text)
	if err != nil {
		return nil, "", err
	}
	name := path.Base(u.Path)
	if !ntfyTopic.MatchString(name) {
		return nil, "", errors.New("names no topic; write it such as https://ntfy.sh/some-long-name-that-nobody-guesses")
	}
	u.Path = strings.TrimSuffix(u.Path, name)
	u.RawPath, u.RawQuery = "", ""
	return u, name, nil
}

func (n *ntfy) send(ctx context.Context, l *letter) error {
	text, err := n.url.read("url")
	if err != nil {
		return err
	}
	u, name, err := topic(text)
	if err != nil {
		return because("url %v", err)
	}
	token, err := n.secret.token()
	if err != nil {
		return err
	}
	header := map[string]string{}
	if token != "" {
		header["Authorization"] = bearer(token)
	}
	d := ntfyDocument{Topic: name, Title: l.title, Message: l.text, Priority: 3, Tags: []string{"white_check_mark"}, Sequence: l.id}
	if l.urgent {
		d.Priority, d.Tags = 4, []string{"no_entry"}
	}
	resp, _, err := n.post(ctx, u, header, d)
	if err != nil {
		return err
	}
	if f := status(resp); f != nil {
		return f
	}
	return nil
}
