package interop

import (
	"context"
	"crypto/tls"
	"io"
	"log/slog"
	"mime"
	"mime/quotedprintable"
	"net"
	"net/mail"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"

	"github.com/messenger-probe/messenger-probe/cmd/internal/notify"
	"github.com/messenger-probe/messenger-probe/probe/probetest"
	"github.com/messenger-probe/messenger-probe/probe/verdict"
)

const (
	user     = "probe"
	password = "hush-hush-hush"
)

// A post is a mail server and what it took.
type post struct {
	ca      string // file
	address string

	mu       sync.Mutex
	rcpt     func(string) error // nil: takes everybody
	data     func() error       // after all was read; nil: takes it
	way      string             // to log in
	leave    bool               // hangs up after a mail
	mails    []string
	from, to []string
	helo     []string
	secure   []bool
	login    []string
}

// serve starts a server; encrypted says what its lines are wrapped in.
func serve(t *testing.T, address string, startTLS, fromStart, insecureAuth bool) *post {
	t.Helper()
	ca := probetest.NewCA(t, "mail")
	p := &post{way: sasl.Plain, ca: filepath.Join(t.TempDir(), "ca.pem")}
	if err := os.WriteFile(p.ca, ca.PEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	p.address = l.Addr().String()
	host, _, _ := net.SplitHostPort(p.address)
	config := &tls.Config{Certificates: []tls.Certificate{ca.Issue(t, nil, host)}}
	s := smtp.NewServer(smtp.BackendFunc(func(c *smtp.Conn) (smtp.Session, error) { return &session{post: p, conn: c}, nil }))
	s.Domain, s.AllowInsecureAuth, s.ErrorLog = "mail.test", insecureAuth, slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	s.ReadTimeout, s.WriteTimeout = 5*time.Second, 5*time.Second
	if startTLS {
		s.TLSConfig = config
	}
	if fromStart {
		l = tls.NewListener(l, config)
	}
	done := make(chan struct{})
	go func() { defer close(done); s.Serve(l) }()
	t.Cleanup(func() { s.Close(); <-done })
	return p
}

// session is a conversation with a post.
type session struct {
	*post
	conn *smtp.Conn
	user string
	from string
	to   []string
}

func (s *session) AuthMechanisms() []string { return []string{s.way} }

func (s *session) Auth(way string) (sasl.Server, error) {
	if way == sasl.Login {
		return &asking{s: s}, nil
	}
	return sasl.NewPlainServer(func(_, u, p string) error {
		if u != user || p != password {
			return smtp.ErrAuthFailed
		}
		s.user = u
		return nil
	}), nil
}

// asking is LOGIN as servers speak it.
type asking struct {
	s     *session
	heard []string
}

func (a *asking) Next(response []byte) ([]byte, bool, error) {
	if response != nil {
		a.heard = append(a.heard, string(response))
	}
	switch len(a.heard) {
	case 0:
		return []byte("Username:"), false, nil
	case 1:
		return []byte("Password:"), false, nil
	}
	if a.heard[0] != user || a.heard[1] != password {
		return nil, true, smtp.ErrAuthFailed
	}
	a.s.user = user
	return nil, true, nil
}

func (s *session) Reset() {
	s.from, s.to = "", nil
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.leave && len(s.mails) > 0 {
		s.conn.Conn().Close()
	}
}

func (s *session) Logout() error { return nil }

func (s *session) Mail(from string, _ *smtp.MailOptions) error { s.from = from; return nil }

func (s *session) Rcpt(to string, _ *smtp.RcptOptions) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.rcpt != nil {
		if err := s.rcpt(to); err != nil {
			return err
		}
	}
	s.to = append(s.to, to)
	return nil
}

func (s *session) Data(r io.Reader) error {
	b, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.data != nil {
		if err := s.data(); err != nil {
			return err
		}
	}
	_, secure := s.conn.TLSConnectionState()
	s.post.mails, s.post.from, s.post.to = append(s.mails, string(b)), append(s.post.from, s.from), append(s.post.to, strings.Join(s.to, " "))
	s.helo, s.secure, s.login = append(s.helo, s.conn.Hostname()), append(s.secure, secure), append(s.login, s.user)
	return nil
}

// target is one that the post serves.
func (p *post) target(t *testing.T, pass string) notify.Target {
	f := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(f, []byte(pass+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return notify.Target{Name: "mail", Type: "smtp", Server: p.address, From: "probe@example.org", To: []string{"me@example.net", "you@example.net"},
		Username: user, PasswordFile: f, CAFile: p.ca}
}

// try sends a test, and is what went wrong.
func try(t *testing.T, target notify.Target) string {
	t.Helper()
	a, err := notify.NewAudience(notify.AudienceOptions{Targets: []notify.Target{target}, Language: "ru", Vantage: "сервер"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	why := a.Test(ctx, "THE-ID")[0].Error
	if strings.Contains(why, "hush") || strings.Contains(why, "127.0.0.1") {
		t.Errorf("a secret or an address in %q", why)
	}
	return why
}

// A mail arrives whole, encrypted, in every letter; and says nothing of this
// machine.
func TestMail(t *testing.T) {
	local := time.Local
	time.Local = time.FixedZone("somewhere", 3*60*60)
	defer func() { time.Local = local }()
	p := serve(t, "127.0.0.1:0", true, false, false)
	if why := try(t, p.target(t, password)); why != "" {
		t.Fatal(why)
	}
	if len(p.mails) != 1 || p.from[0] != "probe@example.org" || p.to[0] != "me@example.net you@example.net" || !p.secure[0] || p.login[0] != user || p.helo[0] != "example.org" {
		t.Fatalf("%+v", p)
	}
	m, err := mail.ReadMessage(strings.NewReader(p.mails[0]))
	if err != nil {
		t.Fatal(err)
	}
	subject, err := new(mime.WordDecoder).DecodeHeader(m.Header.Get("Subject"))
	if err != nil || subject != "messenger-probe: проверка связи (сервер)" {
		t.Errorf("%q, %v", subject, err)
	}
	body, err := io.ReadAll(quotedprintable.NewReader(m.Body))
	if err != nil || !strings.HasPrefix(string(body), "Это проверка.") {
		t.Errorf("%q, %v", body, err)
	}
	for k, want := range map[string]string{"Message-Id": "<THE-ID@example.org>", "Auto-Submitted": "auto-generated", "From": "<probe@example.org>",
		"To": "<me@example.net>, <you@example.net>", "Content-Transfer-Encoding": "quoted-printable", "Content-Type": "text/plain; charset=utf-8"} {
		if got := m.Header.Get(k); got != want {
			t.Errorf("%s: %q", k, got)
		}
	}
	if d, err := m.Header.Date(); err != nil || time.Since(d).Abs() > time.Minute || !strings.HasSuffix(m.Header.Get("Date"), "+0000") {
		t.Errorf("Date: %q, %v", m.Header.Get("Date"), err)
	}
	if name, err := os.Hostname(); err != nil || strings.Contains(p.mails[0], name) {
		t.Errorf("the name of this machine, %q, is in it (%v)", name, err)
	}
}

// Nothing is told, and no password shown, where the line is not safe.
func TestRefusesToTell(t *testing.T) {
	plain := serve(t, "127.0.0.1:0", false, false, true)
	if why := try(t, plain.target(t, password)); !strings.Contains(why, "no STARTTLS") {
		t.Errorf("without STARTTLS: %q", why)
	}
	stranger := serve(t, "127.0.0.1:0", true, false, false)
	target := stranger.target(t, password)
	target.CAFile = plain.ca
	if why := try(t, target); why != "ssl_unknown_authority" {
		t.Errorf("a stranger's certificate: %q", why)
	}
	if len(plain.mails)+len(stranger.mails) > 0 {
		t.Error("told")
	}
}

// On loopback, without a ca_file, the line is this machine itself.
func TestLoopback(t *testing.T) {
	p := serve(t, "127.0.0.1:0", true, false, true)
	target := p.target(t, password)
	target.CAFile = ""
	if why := try(t, target); why != "" {
		t.Fatal(why)
	}
	target.Username, target.PasswordFile = "", ""
	if why := try(t, target); why != "" {
		t.Fatal(why)
	}
	if len(p.mails) != 2 || p.secure[0] || p.login[0] != user || p.login[1] != "" {
		t.Errorf("%+v", p)
	}
}

// A server that knows LOGIN alone, and one that knows neither way.
func TestLogin(t *testing.T) {
	p := serve(t, "127.0.0.1:0", true, false, false)
	p.way = sasl.Login
	if why := try(t, p.target(t, password)); why != "" || len(p.mails) != 1 || p.login[0] != user {
		t.Errorf("%q, %q", why, p.login)
	}
	if why := try(t, p.target(t, "wrong")); why != "SMTP reply 535 5.7.8 to AUTH: the login is refused" {
		t.Errorf("a wrong password: %q", why)
	}
	p.way = "GSSAPI"
	if why := try(t, p.target(t, password)); !strings.Contains(why, "no way to log in") {
		t.Errorf("%q", why)
	}
}

// TLS from the start, on the port that means it.
func TestFromStart(t *testing.T) {
	const address = "127.0.0.77:465"
	if l, err := net.Listen("tcp", address); err == nil {
		l.Close()
	} else {
		t.Skipf("%s is not ours to listen on: %v", address, err)
	}
	p := serve(t, address, false, true, false)
	if why := try(t, p.target(t, password)); why != "" {
		t.Fatal(why)
	}
	if len(p.mails) != 1 || p.login[0] != user {
		t.Errorf("%+v", p)
	}
	target := p.target(t, password)
	target.CAFile = ""
	if why := try(t, target); why != "ssl_unknown_authority" {
		t.Errorf("a stranger's certificate: %q", why)
	}
}

// What goes wrong is said in codes, not in the server's words, who may repeat
// ours.
func TestWrong(t *testing.T) {
	p := serve(t, "127.0.0.1:0", true, false, false)
	if why := try(t, p.target(t, "wrong")); why != "SMTP reply 535 5.7.8 to AUTH: the login is refused" {
		t.Errorf("a wrong password: %q", why)
	}
	p.rcpt = func(to string) error {
		return &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 1, 1}, Message: "no such user " + to + " " + password}
	}
	if why := try(t, p.target(t, password)); why != "SMTP reply 550 5.1.1 to RCPT TO" {
		t.Errorf("a wrong recipient: %q", why)
	}
	p.rcpt = nil
	p.data = func() error {
		return &smtp.SMTPError{Code: 451, EnhancedCode: smtp.EnhancedCode{4, 7, 1}, Message: "greylisted " + password}
	}
	if why := try(t, p.target(t, password)); why != "SMTP reply 451 4.7.1 to the mail" {
		t.Errorf("greylisted: %q", why)
	}
	p.data = nil
	target := p.target(t, password)
	target.Server = "127.0.0.1:1"
	if why := try(t, target); why != "connection_refused" {
		t.Errorf("nobody: %q", why)
	}
	for what, talk := range map[string]func(net.Conn){
		"silent": func(c net.Conn) { io.Copy(io.Discard, c) },
		"endless": func(c net.Conn) {
			for {
				if _, err := io.WriteString(c, "220-"+strings.Repeat("x", 500)+"\r\n"); err != nil {
					return
				}
			}
		},
		"gone": func(c net.Conn) { c.Close() },
	} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			if c, err := l.Accept(); err == nil {
				defer c.Close()
				talk(c)
			}
		}()
		target.Server = l.Addr().String()
		start := time.Now()
		if why := try(t, target); why == "" || time.Since(start) > 4*time.Second {
			t.Errorf("%s: %q after %v", what, why, time.Since(start))
		} else {
			t.Logf("%s: %q", what, why)
		}
		l.Close()
	}
}

// shelf is a Store in memory.
type shelf struct{}

func (shelf) Load(any) error { return nil }
func (shelf) Save(any) error { return nil }

// The whole way: what is put off comes later, what is refused never, and what
// was taken comes once, though the server leaves without a word.
func TestDelivery(t *testing.T) {
	p := serve(t, "127.0.0.1:0", true, false, false)
	n := 0
	p.data = func() error {
		if n++; n == 1 {
			return &smtp.SMTPError{Code: 451, EnhancedCode: smtp.EnhancedCode{4, 7, 1}, Message: "later"}
		}
		return nil
	}
	a, err := notify.NewAudience(notify.AudienceOptions{Targets: []notify.Target{p.target(t, password)}, On: []verdict.State{verdict.Blocked}, Language: "en"})
	if err != nil {
		t.Fatal(err)
	}
	n0 := notify.New(notify.Options{Window: time.Millisecond, Store: shelf{}, Log: slog.New(slog.DiscardHandler)})
	n0.Set(a)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); n0.Run(ctx) }()
	n0.Changed(notify.Change{Messenger: "max", Title: "MAX", Function: "chat", State: verdict.Blocked, Was: verdict.OK, Since: time.Now(),
		Mechanism: verdict.SNIDrop, Confidence: verdict.High})
	deadline := time.Now().Add(20 * time.Second)
	count := func() int { p.mu.Lock(); defer p.mu.Unlock(); return len(p.mails) }
	for ; count() < 1 && time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
	}
	cancel()
	<-done
	if count() != 1 || !strings.Contains(p.mails[0], "Subject: MAX blocked: chat") {
		t.Errorf("%d mails: %q", count(), p.mails)
	}
}

// A server that hangs up after it took a mail has it.
func TestPartsWithoutAWord(t *testing.T) {
	p := serve(t, "127.0.0.1:0", true, false, false)
	p.leave = true
	if why := try(t, p.target(t, password)); why != "" || len(p.mails) != 1 {
		t.Errorf("%q, %d mails", why, len(p.mails))
	}
}
