package notify

import (
	"context"
	"time"
)

// A webhook is posted the message as JSON.
type webhook struct {
	poster
	url, secret secret
}

// hookDocument is what a webhook is posted.
type hookDocument struct {
	Schema  string    `json:"schema"` // messenger-probe/notification/v1
	ID      string    `json:"id"`     // the same where one message comes twice
	Time    time.Time `json:"time"`
	Test    bool      `json:"test,omitempty"`
	Vantage string    `json:"vantage"`
	Title   string    `json:"title"`
	Text    string    `json:"text"`
	Changes []Change  `json:"changes"`
}

func (w *webhook) send(ctx context.Context, l *letter) error {
	text, err := w.url.read("url")
	if err != nil {
		return err
	}
	u, err := parseURL(text)
	if err != nil {
		return because("url %v", err)
	}
	token, err := w.secret.token()
	if err != nil {
		return err
	}
	// A server that keeps the key knows a message that comes again after a crash
	// (draft-ietf-httpapi-idempotency-key-header).
	header := map[string]string{"Idempotency-Key": `"` + l.id + `"`}
	if token != "" {
		header["Authorization"] = bearer(token)
	}
	changes := l.changes
	if changes == nil {
		changes = []Change{}
	}
	resp, _, err := w.post(ctx, u, header, hookDocument{Schema: "messenger-probe/notification/v1", ID: l.id, Time: l.time, Test: l.test,
		Vantage: l.vantage, Title: l.title, Text: l.text, Changes: changes})
	if err != nil {
		return err
	}
	if f := status(resp); f != nil {
		return f
	}
	return nil
}
