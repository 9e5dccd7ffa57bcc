package web

import (
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"go.yaml.in/yaml/v3"
	"golang.org/x/time/rate"

	"github.com/messenger-probe/messenger-probe/targets/plainfile"
)

// What all clients together may cost. A scraper asks a few times a minute, a
// person's browser a few times when it opens the page.
const (
	maxConns   = 128 // open at once, those of this machine not counted
	maxConnsOf = 32  // of one address, or of one IPv6 network of 64 bits
	maxAtOnce  = 16  // requests that are being answered
	maxRate    = 20  // requests a second
	maxBurst   = 100 // requests, at once after a pause
)

// guard is what every request passes before it is answered.
func guard(h http.Handler, o Options) http.Handler {
	h = bounded(h)
	if !proves(o.WebConfig) {
		h = named(h, o.Hosts)
	}
	// A page of somebody else's may not have a browser reload the agent.
	return http.NewCrossOriginProtection().Handler(h)
}

// bounded refuses what is too much: 429 to requests that come too fast, 503 to
// those for which there is no room. Questions after health are never refused,
// or a flood would make an orchestrator end a healthy agent.
func bounded(next http.Handler) http.Handler {
	pace := rate.NewLimiter(maxRate, maxBurst)
	room := make(chan struct{}, maxAtOnce)
	refuse := func(w http.ResponseWriter, status int) {
		w.Header().Set("Retry-After", "1")
		http.Error(w, http.StatusText(status), status)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/-/") && r.Method != http.MethodPost {
			next.ServeHTTP(w, r)
			return
		}
		if !pace.Allow() {
			refuse(w, http.StatusTooManyRequests)
			return
		}
		select {
		case room <- struct{}{}:
			defer func() { <-room }()
			next.ServeHTTP(w, r)
		default:
			refuse(w, http.StatusServiceUnavailable)
		}
	})
}

// named answers only to names that are the agent's own. A page of somebody
// else's can have its own name lead to this machine (DNS rebinding), and its
// script could then read all that is served here; but the browser still tells
// that name. It is told apart from ours in that it is under a public domain:
//
//   - an address is nobody's name,
//   - a name without a dot is none of the Internet's: localhost, or a service of
//     Compose,
//   - nor is one under a suffix that nobody outside can have (RFC 6761, RFC 8375,
//     ICANN's .internal, the names of a Kubernetes cluster),
//   - others must be in own: hosts in the configuration, and the host of listen.
func named(next http.Handler, own func() []string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if host := hostname(r.Host); !private(host) && (own == nil || !has(own(), host)) {
			http.Error(w, "this agent does not go by that name; who runs it may add the name to hosts in its configuration", http.StatusMisdirectedRequest)
			return
		}
		next.ServeHTTP(w, r)
	})
}

var privateSuffixes = []string{".localhost", ".internal", ".home.arpa", ".svc", ".cluster.local"}

func private(host string) bool {
	if _, err := netip.ParseAddr(host); err == nil || !strings.Contains(host, ".") {
		return true
	}
	for _, s := range privateSuffixes {
		if strings.HasSuffix(host, s) {
			return true
		}
	}
	return false
}

func has(names []string, host string) bool {
	for _, n := range names {
		if hostname(n) == host {
			return true
		}
	}
	return false
}

// hostname is the host of host[:port], as names are compared.
func hostname(s string) string {
	if h, _, err := net.SplitHostPort(s); err == nil {
		s = h
	}
	s = strings.TrimSuffix(strings.TrimPrefix(s, "["), "]")
	return strings.TrimSuffix(strings.ToLower(s), ".")
}

// proves says whether a web configuration makes clients prove something: then a
// page under another name is shown nothing anyway. It has neither a certificate
// for that name nor the password.
func proves(webConfig string) bool {
	if webConfig == "" {
		return false
	}
	text, err := plainfile.Read(webConfig, maxConfig)
	if err != nil {
		return false // the toolkit will tell
	}
	var c struct {
		TLS   map[string]any    `yaml:"tls_server_config"`
		Users map[string]string `yaml:"basic_auth_users"`
	}
	return yaml.Unmarshal(text, &c) == nil && len(c.TLS)+len(c.Users) > 0
}

// Files is the web configuration and the files that it names, all of which are
// read anew for each connection.
func Files(webConfig string) []string {
	files := []string{webConfig}
	text, err := plainfile.Read(webConfig, maxConfig)
	if err != nil {
		return nil
	}
	var c struct {
		TLS struct {
			Cert string `yaml:"cert_file"`
			Key  string `yaml:"key_file"`
			CA   string `yaml:"client_ca_file"`
		} `yaml:"tls_server_config"`
	}
	if yaml.Unmarshal(text, &c) != nil {
		return files
	}
	for _, f := range []string{c.TLS.Cert, c.TLS.Key, c.TLS.CA} {
		if f != "" && !filepath.IsAbs(f) {
			f = filepath.Join(filepath.Dir(webConfig), f)
		}
		if f != "" {
			files = append(files, f)
		}
	}
	return files
}

// A fewConns is a listener that bounds the connections. Of one address the newest
// are kept, and for a new one the oldest is hung up on: who leaves connections
// lying about, which may be a client of this very machine, keeps nobody out, not
// even itself. Beyond the number of all the new one is.
type fewConns struct {
	net.Listener
	mu   sync.Mutex
	open map[netip.Prefix][]*countedConn // the oldest first
	all  int                             // but for those of this machine
}

func few(l net.Listener) net.Listener {
	return &fewConns{Listener: l, open: make(map[netip.Prefix][]*countedConn)}
}

func (l *fewConns) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		mine := &countedConn{Conn: c, from: neighbours(c.RemoteAddr()), of: l}
		oldest, ok := l.take(mine)
		if oldest != nil {
			oldest.Conn.Close() // its server will notice, and close it once more
		}
		if ok {
			return mine, nil
		}
		c.Close()
	}
}

// neighbours is the address of a client, or the network that one IPv6 client
// has to itself.
func neighbours(a net.Addr) netip.Prefix {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.Prefix{}
	}
	addr := t.AddrPort().Addr().Unmap().WithZone("")
	bits := addr.BitLen()
	if addr.Is6() && !addr.IsLoopback() {
		bits = 64
	}
	return netip.PrefixFrom(addr, bits).Masked()
}

// take makes room for a connection: it is the one to hang up on, if any, and
// whether there was room.
func (l *fewConns) take(c *countedConn) (oldest *countedConn, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if of := l.open[c.from]; len(of) >= maxConnsOf {
		oldest = of[0]
		l.drop(oldest)
	}
	here := c.from.Addr().IsLoopback()
	if l.all >= maxConns && !here {
		return oldest, false
	}
	l.open[c.from] = append(l.open[c.from], c)
	if !here {
		l.all++
	}
	return oldest, true
}

// drop takes a connection off the books, if it is on them.
func (l *fewConns) drop(c *countedConn) {
	i := slices.Index(l.open[c.from], c)
	if i < 0 {
		return
	}
	l.open[c.from] = slices.Delete(l.open[c.from], i, i+1)
	if len(l.open[c.from]) == 0 {
		delete(l.open, c.from)
	}
	if !c.from.Addr().IsLoopback() {
		l.all--
	}
}

type countedConn struct {
	net.Conn
	from netip.Prefix
	of   *fewConns
}

func (c *countedConn) Close() error {
	c.of.mu.Lock()
	c.of.drop(c)
	c.of.mu.Unlock()
	return c.Conn.Close()
}
