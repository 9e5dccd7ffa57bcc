package notify

import (
	"context"
	"encoding/json"
	"net/http"
	"regexp"
	"strings"
	"time"
)

// botAPI is Telegram's own (core.telegram.org/bots/api#making-requests).
const botAPI = "https://api.telegram.org"

// telegram is a chat that a bot writes to.
type telegram struct {
	poster
	url, secret secret
	chat        string
}

var botToken = regexp.MustCompile(`^[0-9]{1,20}:[A-Za-z0-9_-]{10,100}$`)

// botMessage is the parameters of sendMessage.
type botMessage struct {
	Chat        string `json:"chat_id"`
	Text        string `json:"text"`
	LinkPreview struct {
		Disabled bool `json:"is_disabled"`
	} `json:"link_preview_options"`
}

// botReply is what every method answers with.
type botReply struct {
	OK          bool   `json:"ok"`
	Description string `json:"description"`
	Parameters  struct {
		RetryAfter int   `json:"retry_after"` // seconds
		MigrateTo  int64 `json:"migrate_to_chat_id"`
	} `json:"parameters"`
}

func (t *telegram) send(ctx context.Context, l *letter) error {
	text, err := t.url.read("url")
	if err != nil {
		return err
	}
	u, err := parseURL(text)
	if err != nil {
		return because("url %v", err)
	}
	token, err := t.secret.token()
	if err != nil {
		return err
	}
	if !botToken.MatchString(token) {
		return because("no token of a bot is found where the configuration says; @BotFather gives one such as 123456:ABC-DEF")
	}
	m := botMessage{Chat: t.chat, Text: l.title + "\n\n" + l.text}
	m.LinkPreview.Disabled = true
	resp, reply, err := t.post(ctx, u.JoinPath("bot"+token, "sendMessage"), nil, m)
	if err != nil {
		return err
	}
	var r botReply
	if json.Unmarshal(reply, &r) != nil {
		r = botReply{} // somebody else's answer
	}
	f := status(resp)
	switch {
	case f == nil && r.OK:
		return nil
	case f == nil:
		return because("the answer is not one of Telegram's")
	}
	// What Telegram refuses, it refuses because of the bot or the chat, which can
	// be mended: a chat that is not found has not spoken to the bot yet.
	f.refused = false
	if resp.StatusCode == http.StatusBadRequest || resp.StatusCode == http.StatusNotFound {
		f.after = sulk
	}
	if r.Parameters.RetryAfter > 0 {
		f.after = min(time.Duration(r.Parameters.RetryAfter)*time.Second, maxAfter)
	}
	if d := clip(plain(strings.ReplaceAll(r.Description, token, "…")), 100); d != "" {
		f.why += ": " + d
	}
	if r.Parameters.MigrateTo != 0 {
		f.why += "; the group has become a supergroup and has a new number"
	}
	return f
}
