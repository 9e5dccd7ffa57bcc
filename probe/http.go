package probe

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/quic-go/quic-go/http3"
	"golang.org/x/net/publicsuffix"
)

// HTTP asks a web server one question and judges the answer by its shape.
//
// Over HTTP/1.1 it takes a connect, a tls_handshake unless Plain, a request and
// a reply step; over HTTP/3 (RFC 9114) a quic_handshake in the place of the
// first two. No redirect is followed, no cookie kept, no compression asked for.
// At most 64 kB of a body are read, of a page no more than it takes to find
// what is expected, of JSON 16 kB, and none where nothing is.
//
// Over TLS the certificate proves the server. Then an HTTP error or a redirect
// is an answer, whatever Expect says: the host can be reached, and
// ReplyInfo.Code tells. Only a success of another shape fails. Over plain HTTP
// everybody on the path can answer: what does not fit fails, and so does a
// redirect to another registrable domain (http_unexpected_redirect_url) and a
// known block page (http_request_failed, ReplyInfo.Marks).
//
// Other failures of the reply: http_unexpected_status_code and
// http_request_failed for an answer that does not fit, json_parse_error for no
// JSON where it belongs, unknown_failure for what is not HTTP.
type HTTP struct {
	Addr       netip.AddrPort
	Host       string // "": ServerName
	Method     string // "": GET
	Path       string // "": /; may hold a query
	ServerName string // verified, and sent as SNI; "": Host
	Plain      bool   // no TLS
	Version    string // "1.1" (also ""), "3"
	Expect     Expect
	// Seen, where not empty, begins the line of the body that goes on with the
	// country in which the server sees us, as loc= of Cloudflare's /cdn-cgi/trace.
	Seen  string
	Trust *Trust // nil: Mozilla's list
}

// Expect is the shape of the right answer. The zero value is any.
type Expect struct {
	Status  int               // 0: any
	Type    string            // media type of the body, as application/json; "": any
	Headers map[string]string // must be there, and have this in one of its values
	// JSON is members of the object that the body is. A string is compared with
	// its text, a number, true, false or null with how it is written; "" is any
	// value.
	JSON     map[string]string
	Contains []string // texts in the body, all of them
}

// At is the same question, asked of addr.
func (q HTTP) At(addr netip.AddrPort) Prober { q.Addr = addr; return q }

func (q HTTP) Probe(ctx context.Context, n Net) []Step {
	var t trace
	name := cmp.Or(q.ServerName, q.Host, q.Addr.Addr().String())
	req, err := q.request()
	switch {
	case err != nil || q.Version == "3" && q.Plain || q.Version != "" && q.Version != "1.1" && q.Version != "3":
		t.do(OpRequest, q.Addr, func(*Step) error {
			return &FailureError{FailureInvalidArgument, "no such HTTP request"}
		})
	case q.Version == "3":
		q.http3(ctx, &t, n, name, req)
	default:
		q.http1(ctx, &t, n, name, req)
	}
	return t.steps
}

func (q HTTP) http1(ctx context.Context, t *trace, n Net, name string, req *http.Request) {
	raw, err := t.connect(ctx, n, q.Addr)
	if err != nil {
		return
	}
	defer raw.Close()
	raw = &boundedConn{raw, maxStream}
	conn := raw
	if !q.Plain {
		conn, err = t.handshake(ctx, raw, TLS{Addr: q.Addr, ServerName: name, ALPN: []string{"http/1.1"}, Trust: q.Trust})
		if err != nil {
			return
		}
	}
	defer guard(ctx, raw)()
	err = t.do(OpRequest, q.Addr, func(s *Step) error {
		err := req.Write(conn)
		s.TCP = tcpInfo(raw)
		return cause(ctx, err)
	})
	if err != nil {
		return
	}
	t.do(OpReply, q.Addr, func(s *Step) error {
		defer func() { s.TCP = tcpInfo(raw) }()
		s.Reply = &ReplyInfo{Transport: "http"}
		resp, err := readHead(bufio.NewReader(conn), req)
		if err == nil {
			err = q.judge(resp, s.Reply)
		}
		return cause(ctx, err)
	})
}

func (q HTTP) http3(ctx context.Context, t *trace, n Net, name string, req *http.Request) {
	conn, end, err := t.quic(ctx, n, QUIC{Addr: q.Addr, ServerName: name, Trust: q.Trust})
	if err != nil {
		return
	}
	defer end()
	var str *http3.RequestStream
	err = t.do(OpRequest, q.Addr, func(*Step) error {
		h3 := &http3.Transport{DisableCompression: true, MaxResponseHeaderBytes: maxHead}
		var err error
		if str, err = h3.NewClientConn(conn).OpenRequestStream(ctx); err != nil {
			return cause(ctx, err)
		}
		if d, ok := ctx.Deadline(); ok {
			str.SetDeadline(d)
		}
		err = str.SendRequestHeader(req)
		// A server may answer, and stop reading, before it has seen the end of
		// the request (RFC 9114 §4.1). Then there is nothing left to close.
		str.Close()
		return cause(ctx, err)
	})
	if err != nil {
		return
	}
	defer context.AfterFunc(ctx, func() {
		if ctx.Err() == context.Canceled { // else the deadline ends it, and says so
			str.CancelRead(h3Cancelled)
		}
	})()
	t.do(OpReply, q.Addr, func(s *Step) error {
		s.Reply = &ReplyInfo{Transport: "h3"}
		for range maxInterim + 1 {
			resp, err := str.ReadResponse()
			if err != nil || resp.StatusCode >= 200 {
				if err == nil {
					err = q.judge(resp, s.Reply)
				}
				return cause(ctx, err)
			}
		}
		return errTooLong
	})
}

// h3Cancelled gives up a stream, RFC 9114 §8.1.
const h3Cancelled = 0x10c

// request is the question, as a browser would put it but for all that a browser
// adds and no server needs.
func (q HTTP) request() (*http.Request, error) {
	scheme, port := "https", uint16(443)
	if q.Plain {
		scheme, port = "http", 80
	}
	host := hostPort(cmp.Or(q.Host, q.ServerName), q.Addr, port)
	req, err := http.NewRequest(q.Method, scheme+"://"+host+cmp.Or(q.Path, "/"), nil)
	if err != nil {
		return nil, err
	}
	req.Header = http.Header{"User-Agent": {userAgent}, "Accept": {"*/*"}}
	return req, nil
}

// judge reads what it must of an answer, and says whether that is the right one.
func (q HTTP) judge(resp *http.Response, r *ReplyInfo) error {
	r.Code = resp.StatusCode
	r.Redirect = foreignRedirect(resp, cmp.Or(q.Host, q.ServerName))
	head, missing, err := q.body(resp)
	if err != nil {
		return err
	}
	r.Marks = blockMarks(resp, head)
	if !q.Plain { // else anybody could tell
		r.Country = seen(head, q.Seen)
		if at, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
			// It is cut to a second, and was written about half a round trip ago.
			r.Skew, r.HasSkew = time.Until(at)+time.Second/2, true
		}
	}
	unfit := q.Expect.unfit(resp, head, missing)
	switch {
	case q.Plain && r.Redirect != "":
		unfit = &FailureError{FailureHTTPUnexpectedRedirect, "redirect to another registrable domain"}
	case q.Plain && len(r.Marks) > 0:
		unfit = &FailureError{FailureHTTPRequestFailed, "block page"}
	case unfit == nil && q.Plain:
		r.Proof = "expected shape"
	case unfit == nil:
		r.Proof = "expected shape over a verified certificate"
	case !q.Plain && resp.StatusCode >= 300:
		r.Proof = "HTTP error or redirect over a verified certificate"
		return nil
	}
	if unfit != nil {
		r.Proof = unfit.Text
		return unfit
	}
	return nil
}

// seen is the country after a line's beginning: two letters, or T1 for Tor; ""
// where there is none or it is not known.
func seen(body []byte, begins string) string {
	if begins == "" {
		return ""
	}
	for line := range strings.Lines(string(body)) {
		if c, ok := strings.CutPrefix(strings.TrimSpace(line), begins); ok && len(c) == 2 && c != "XX" {
			return c
		}
	}
	return ""
}

const (
	maxBody  = 64 << 10 // bytes of a body that are read, to find a text
	headBody = 16 << 10 // of those, in which JSON and the marks of a block page are looked for
)

// body reads as much of a body as there is need of. It is its beginning, and the
// texts that were expected and not found.
func (q HTTP) body(resp *http.Response) (head []byte, missing []string, err error) {
	missing = slices.Clone(q.Expect.Contains)
	limit, longest := 0, 1
	switch {
	case len(missing) > 0:
		limit = maxBody
	case len(q.Expect.JSON) > 0 || q.Plain || q.Seen != "":
		limit = headBody
	default:
		return nil, nil, nil
	}
	for _, text := range missing {
		longest = max(longest, len(text))
	}
	head = make([]byte, 0, headBody)
	window := make([]byte, 4<<10+longest-1) // the end of what was read before, and more
	for have, read := 0, 0; read < limit; {
		n, err := resp.Body.Read(window[have:min(len(window), have+limit-read)])
		head = append(head, window[have:have+min(n, headBody-len(head))]...)
		have, read = have+n, read+n
		missing = slices.DeleteFunc(missing, func(text string) bool { return bytes.Contains(window[:have], []byte(text)) })
		have = copy(window, window[have-min(have, longest-1):have])
		switch {
		case err == io.EOF:
			return head, missing, nil
		case err != nil:
			return nil, nil, err
		case len(q.Expect.Contains) > 0 && len(missing) == 0 && len(q.Expect.JSON) == 0:
			return head, nil, nil
		}
	}
	return head, missing, nil
}

// unfit is what does not fit, nil if all does.
func (e Expect) unfit(resp *http.Response, head []byte, missing []string) *FailureError {
	if e.Status != 0 && resp.StatusCode != e.Status {
		return &FailureError{FailureHTTPUnexpectedStatus, "another status"}
	}
	if e.Type != "" {
		if t, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")); !strings.EqualFold(t, e.Type) {
			return &FailureError{FailureHTTPRequestFailed, "another content type"}
		}
	}
	for name, want := range e.Headers {
		if !slices.ContainsFunc(resp.Header.Values(name), func(v string) bool { return strings.Contains(v, want) }) {
			return &FailureError{FailureHTTPRequestFailed, "a header is missing"}
		}
	}
	if len(e.JSON) > 0 {
		var members map[string]json.RawMessage
		if json.Unmarshal(head, &members) != nil {
			return &FailureError{FailureJSONParse, "no JSON object"}
		}
		for name, want := range e.JSON {
			got, ok := members[name]
			if !ok || want != "" && jsonText(got) != want {
				return &FailureError{FailureHTTPRequestFailed, "JSON of another shape"}
			}
		}
	}
	if len(missing) > 0 {
		return &FailureError{FailureHTTPRequestFailed, "a text is missing"}
	}
	return nil
}

// jsonText is a string's text, and anything else as it is written.
func jsonText(v json.RawMessage) string {
	var s string
	if json.Unmarshal(v, &s) == nil && v[0] == '"' {
		return s
	}
	return string(v)
}

// The marks of block pages, by where they are found: addresses to which
// operators redirect, and texts of their pages. They come from
// ooni/blocking-fingerprints fingerprints_http.csv (ooni.ru_0 to ooni.ru_82 and
// cl.isp_ru_*). What is reported of them names no operator: that would say where
// the vantage is.
var blockPages = []struct {
	mark  string
	texts []string // in lower case
}{
	{"register of banned sites", []string{
		"eais.rkn.gov.ru", "blocklist.rkn.gov.ru", "vk.com/blank.php?rkn=",
		"включен в единый реестр доменных имен", "доступ к сайту ограничен в соответствии с федеральными законами",
		"доступ ограничен по решению суда",
	}},
	{"operator's block page", []string{
		"warning.rt.ru", "block.rt.ru", "block.ip.center.rt.ru", "blocked.mts.ru", "subblock.mts.ru", "blackhole.beeline.ru",
		"m.megafonpro.ru", "t2blocked.com", "//t2rkn.com", "block.mgts.ru", "blocked.mgts.ru", "lawfilter.ertelecom.ru",
		"fz139.ttk.ru", "zapret.westcall.net", "zapret.2090000.ru", "forbidden.yota.ru", "blocked.netbynet.ru",
		"blocked.akado.ru", "erblock.crimea.com", "block.runnet.ru", "blocked.tinkoff.ru", "internet.mts.by/blocked",
		"доступ к запрашиваемому ресурсу закрыт", "доступ к ресурсу ограничен",
	}},
}

// blockMarks are the marks of block pages in an answer.
func blockMarks(resp *http.Response, body []byte) (marks []string) {
	if resp.StatusCode == http.StatusUnavailableForLegalReasons { // RFC 7725
		marks = append(marks, "status 451")
	}
	location := strings.ToLower(resp.Header.Get("Location"))
	page := bytes.ToLower(body)
	for _, p := range blockPages {
		if slices.ContainsFunc(p.texts, func(t string) bool {
			return strings.Contains(location, t) || bytes.Contains(page, []byte(t))
		}) {
			marks = append(marks, p.mark)
		}
	}
	return marks
}

// userAgent is that of the most common browser. A name of our own would be read
// by whoever stands on a plain connection, and would single out a volunteer's
// line; none at all makes some front ends refuse.
const userAgent = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/152.0.0.0 Safari/537.36"

var (
	errNotHTTP = errors.New("the answer is not HTTP")
	errTooLong = errors.New("the answer does not end")
)

// exchange writes a request to conn and reads the head of the answer; the reader
// holds what follows. Interim answers are passed over (RFC 9110 §15.2). No
// goroutine and no pool stands between the connection and us, so what is read
// is what the peer sent.
func exchange(conn io.ReadWriter, req *http.Request) (*http.Response, *bufio.Reader, error) {
	if err := req.Write(conn); err != nil {
		return nil, nil, err
	}
	br := bufio.NewReader(conn)
	resp, err := readHead(br, req)
	return resp, br, err
}

const (
	maxInterim = 5        // 1xx answers before the final one
	maxHead    = 32 << 10 // bytes of status line and headers
)

// readHead reads the head of an answer; the body, if there is one, comes from
// br. The head is cut out before it is parsed, because net/http takes a line
// that a deadline or a FIN cut short for a malformed one.
func readHead(br *bufio.Reader, req *http.Request) (*http.Response, error) {
	for range maxInterim + 1 {
		head, err := cutHead(br)
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return nil, err
		}
		resp, err := http.ReadResponse(bufio.NewReader(io.MultiReader(bytes.NewReader(head), br)), req)
		if err != nil {
			return nil, errNotHTTP
		}
		if resp.StatusCode >= 200 || resp.StatusCode == http.StatusSwitchingProtocols {
			return resp, nil
		}
	}
	return nil, errTooLong
}

// cutHead reads up to the empty line that ends a head.
func cutHead(br *bufio.Reader) (head []byte, err error) {
	const magic = "HTTP/1." // RFC 9112 §2.3
	if start, err := br.Peek(len(magic)); !strings.HasPrefix(magic, string(start)) {
		return nil, errNotHTTP
	} else if err != nil {
		return nil, err
	}
	for line := 0; ; {
		b, err := br.ReadSlice('\n')
		head = append(head, b...)
		switch {
		case len(head) > maxHead:
			return nil, errTooLong
		case err == bufio.ErrBufferFull:
			continue
		case err != nil:
			return nil, err
		case len(bytes.TrimRight(head[line:], "\r\n")) == 0:
			return head, nil
		}
		line = len(head)
	}
}

// atMost fails after n bytes, unlike [io.LimitReader], whose end looks like the
// peer's.
type atMost struct {
	r io.Reader
	n int
}

func (r *atMost) Read(b []byte) (int, error) {
	if r.n <= 0 {
		return 0, errTooLong
	}
	n, err := r.r.Read(b[:min(len(b), r.n)])
	r.n -= n
	return n, err
}

// maxStream bounds what a peer can make us take in over one connection that we
// ask a question on: certificates, head, body, and every frame of a WebSocket.
const maxStream = 192 << 10

// A boundedConn fails after some bytes. It stands below TLS, where records of
// one byte count with the twenty around it.
type boundedConn struct {
	net.Conn
	left int
}

func (c *boundedConn) Read(b []byte) (int, error) {
	n, err := (&atMost{c.Conn, c.left}).Read(b)
	c.left -= n
	return n, err
}

// SyscallConn lets TCP_INFO through.
func (c *boundedConn) SyscallConn() (syscall.RawConn, error) { return rawConn(c.Conn) }

// hostPort is a URL's authority: the port only where it is not the scheme's.
func hostPort(name string, addr netip.AddrPort, usual uint16) string {
	if name == "" {
		name = addr.Addr().String()
	}
	if addr.Port() != usual {
		return net.JoinHostPort(name, strconv.Itoa(int(addr.Port())))
	}
	if strings.Contains(name, ":") {
		return "[" + name + "]"
	}
	return name
}

// foreignRedirect is the host that a redirect leads to where that is under
// another registrable domain than host, else "".
func foreignRedirect(resp *http.Response, host string) string {
	if resp.StatusCode < 300 || resp.StatusCode > 399 {
		return ""
	}
	u, err := resp.Location()
	if err != nil || u.Hostname() == "" || registrable(u.Hostname()) == registrable(host) {
		return ""
	}
	return clip(u.Hostname())
}

// registrable is the part of a name that one registrant holds; an address or a
// bare suffix stands for itself.
func registrable(name string) string {
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	if _, err := netip.ParseAddr(name); err == nil {
		return name
	}
	if d, err := publicsuffix.EffectiveTLDPlusOne(name); err == nil {
		return d
	}
	return name
}
