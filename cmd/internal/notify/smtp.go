package notify

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/quotedprintable"
	"net"
	"net/mail"
	"net/smtp"
	"net/textproto"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// mails is a server that mail is handed to.
type mails struct {
	host     string
	port     int
	encrypt  encryption
	tls      *tls.Config
	from     *mail.Address
	to       []*mail.Address
	username string
	password secret
}

// encryption is how a mail server is spoken to.
type encryption int

const (
	startTLS encryption = iota // in clear, and from the second word on not
	fromStart
	never // on this machine's own loopback
)

// submissions is the port on which TLS begins at once (RFC 8314 §3.3).
const submissions = 465

func newMail(t Target, roots *x509.CertPool) (*mails, error) {
	host, service, err := net.SplitHostPort(t.Server)
	port, perr := strconv.ParseUint(service, 10, 16)
	if err != nil || perr != nil || host == "" || port == 0 {
		return nil, errors.New("server: is no host:port; write it such as mail.example.org:587")
	}
	m := &mails{host: host, port: int(port), username: t.Username, password: secret{"", t.PasswordFile, t.PasswordEnv},
		tls: &tls.Config{ServerName: host, RootCAs: roots, MinVersion: tls.VersionTLS12}}
	switch {
	case port == submissions:
		m.encrypt = fromStart
	case loopback(host) && t.CAFile == "":
		m.encrypt = never // no certificate is for 127.0.0.1
	}
	if m.from, err = mail.ParseAddress(t.From); err != nil {
		return nil, errors.New("from: is no address; write it such as probe@example.org")
	}
	for _, a := range t.To {
		to, err := mail.ParseAddress(a)
		if err != nil {
			return nil, fmt.Errorf("to: %q is no address; write it such as me@example.org", a)
		}
		m.to = append(m.to, to)
	}
	return m, nil
}

// write writes a letter as mail. It says nothing of this machine: no name, no
// zone of time.
func (m *mails) write(w io.Writer, l *letter) error {
	to := make([]string, len(m.to))
	for i, a := range m.to {
		to[i] = a.String()
	}
	for _, h := range [][2]string{
		{"From", m.from.String()},
		{"To", strings.Join(to, ",\r\n ")},
		{"Subject", strings.ReplaceAll(mime.QEncoding.Encode("utf-8", l.title), "?= =?", "?=\r\n =?")},
		{"Date", l.time.UTC().Format(time.RFC1123Z)},
		// The same where it comes twice: many servers and readers keep one.
		{"Message-ID", "<" + l.id + "@" + domain(m.from) + ">"},
		{"Auto-Submitted", "auto-generated"}, // RFC 3834: no answers
		{"MIME-Version", "1.0"},
		{"Content-Type", "text/plain; charset=utf-8"},
		{"Content-Transfer-Encoding", "quoted-printable"},
	} {
		if _, err := fmt.Fprintf(w, "%s: %s\r\n", h[0], h[1]); err != nil {
			return err
		}
	}
	if _, err := io.WriteString(w, "\r\n"); err != nil {
		return err
	}
	q := quotedprintable.NewWriter(w)
	if _, err := io.WriteString(q, l.text+"\n"); err != nil {
		return err
	}
	return q.Close()
}

func domain(a *mail.Address) string { return a.Address[strings.LastIndexByte(a.Address, '@')+1:] }

func (m *mails) send(ctx context.Context, l *letter) error {
	password, err := m.password.read("password")
	if err != nil {
		return err
	}
	conn, err := m.dial(ctx)
	if err != nil {
		return err
	}
	// No command has a deadline of its own: all have that of ctx.
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	defer conn.Close()
	err = m.talk(conn, password, l)
	if err != nil && ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// talk hands a letter over (RFC 5321 §3.3).
func (m *mails) talk(conn net.Conn, password string, l *letter) error {
	c, err := smtp.NewClient(conn, m.host)
	if err != nil {
		return mailFault(err, "the greeting")
	}
	// Not the name of this machine, which would be in the mail.
	if err := c.Hello(domain(m.from)); err != nil {
		return mailFault(err, "EHLO")
	}
	if m.encrypt == startTLS {
		if ok, _ := c.Extension("STARTTLS"); !ok {
			return because("the server offers no STARTTLS, without which nothing is told")
		}
		if err := c.StartTLS(m.tls); err != nil {
			return mailFault(err, "STARTTLS")
		}
	}
	if m.username != "" {
		_, ways := c.Extension("AUTH")
		auth := m.login(strings.Fields(ways), password)
		if auth == nil {
			return because("the server offers no way to log in that is known here: PLAIN or LOGIN")
		}
		if err := c.Auth(auth); err != nil {
			err := mailFault(err, "AUTH")
			if f, ok := errors.AsType[*fault](err); ok && f.refused {
				f.refused, f.after = false, sulk
				f.why += ": the login is refused"
			}
			return err
		}
	}
	if err := c.Mail(m.from.Address); err != nil {
		return mailFault(err, "MAIL FROM")
	}
	for _, a := range m.to {
		if err := c.Rcpt(a.Address); err != nil {
			return mailFault(err, "RCPT TO")
		}
	}
	w, err := c.Data()
	if err != nil {
		return mailFault(err, "DATA")
	}
	if err := m.write(w, l); err != nil {
		return mailFault(err, "the mail")
	}
	if err := w.Close(); err != nil {
		return mailFault(err, "the mail")
	}
	c.Quit() // it has the mail; how we part changes nothing
	return nil
}

// login is the best way to log in that the server offers, nil if it offers none.
func (m *mails) login(ways []string, password string) smtp.Auth {
	switch {
	case slices.Contains(ways, "PLAIN"):
		return smtp.PlainAuth("", m.username, password, m.host)
	case slices.Contains(ways, "LOGIN"):
		return &loginAuth{m.username, password}
	}
	return nil
}

// loginAuth is AUTH LOGIN (draft-murchison-sasl-login), which some large servers
// know alone: they ask for the name, then for the password.
type loginAuth struct{ username, password string }

func (a *loginAuth) Start(s *smtp.ServerInfo) (string, []byte, error) {
	if !s.TLS && !loopback(s.Name) {
		return "", nil, because("no password is told in clear")
	}
	return "LOGIN", nil, nil
}

func (a *loginAuth) Next(ask []byte, more bool) ([]byte, error) {
	switch ask := strings.ToLower(string(ask)); {
	case !more:
		return nil, nil
	case strings.HasPrefix(ask, "user"):
		return []byte(a.username), nil
	case strings.HasPrefix(ask, "pass"):
		return []byte(a.password), nil
	}
	return nil, because("the server asks something else than name and password")
}

// dial connects as long as ctx lasts.
func (m *mails) dial(ctx context.Context) (net.Conn, error) {
	raw, err := (&net.Dialer{}).DialContext(ctx, "tcp", net.JoinHostPort(m.host, strconv.Itoa(m.port)))
	if err != nil {
		return nil, err
	}
	end, ok := ctx.Deadline()
	if !ok {
		end = time.Now().Add(patience)
	}
	raw.SetDeadline(end)
	c := &bounded{Conn: raw, left: maxHeader}
	if m.encrypt != fromStart {
		return c, nil
	}
	s := tls.Client(c, m.tls)
	if err := s.HandshakeContext(ctx); err != nil {
		raw.Close()
		return nil, err
	}
	return s, nil
}

// A bounded connection reads so many bytes in all.
type bounded struct {
	net.Conn
	left int
}

func (c *bounded) Read(b []byte) (int, error) {
	if c.left <= 0 {
		return 0, because("the server says too much")
	}
	n, err := c.Conn.Read(b[:min(len(b), c.left)])
	c.left -= n
	return n, err
}

// enhanced is a status code as RFC 3463 has it.
var enhanced = regexp.MustCompile(`^[245]\.\d{1,3}\.\d{1,3}\b`)

// mailFault is what an answer at some point means, without the words of the
// server, who may repeat ours. Errors that are no answers are passed on.
func mailFault(err error, at string) error {
	e, ok := errors.AsType[*textproto.Error](err)
	if !ok {
		return err
	}
	f := because("SMTP reply %d", e.Code)
	if s := enhanced.FindString(e.Msg); s != "" {
		f.why += " " + s
	}
	f.why += " to " + at
	f.refused = e.Code/100 == 5
	return f
}
