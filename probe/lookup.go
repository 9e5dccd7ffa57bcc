package probe

import (
	"context"
	"io"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

const (
	// DefaultLookupTTL is how long an answer of a [SystemResolver] is shared.
	DefaultLookupTTL = 20 * time.Second

	// failedLookupTTL is how long a failure is shared: long enough that the
	// slots of one name do not each wait for a silent resolver, short enough
	// that a confirmation looks anew.
	failedLookupTTL = 3 * time.Second

	maxLookups     = 1024     // names and families in memory
	maxAddrs       = 8        // of one name
	maxResolvConf  = 64 << 10 // bytes read
	maxNameservers = 3        // glibc resolv.h, MAXNS
	maxAttempts    = 5        // resolv.conf(5), RES_MAXRETRY
	maxTryTimeout  = 30       // seconds; resolv.conf(5), RES_MAXRETRANS
)

// SystemResolver looks names up as the host's apps do: at the name servers of
// resolv.conf(5), in their order, over UDP and, after truncation, TCP. It
// measures the resolvers, so it consults neither /etc/hosts nor any other source
// of nsswitch.conf(5), and knows no search domains: names are fully qualified.
//
// Callers share answers, and at most one of them asks for a name and family at a
// time. It is safe for use by many goroutines.
type SystemResolver struct {
	// TTL is how long an answer is shared; 0 means DefaultLookupTTL. It does
	// not follow the TTL of the records: each interval of a check must look
	// anew, or a name that vanishes would be seen hours late.
	TTL time.Duration

	// AllowBogons is that of [DNS].
	AllowBogons bool

	path string

	mu      sync.Mutex
	conf    resolvConf
	read    bool
	lookups map[lookupKey]*lookup
}

// NewSystemResolver reads name servers from path, "" for /etc/resolv.conf, and
// again whenever the file changes. A file that cannot be read or has none
// stands for 127.0.0.1, as in the C library.
func NewSystemResolver(path string) *SystemResolver {
	if path == "" {
		path = "/etc/resolv.conf"
	}
	return &SystemResolver{path: path, lookups: make(map[lookupKey]*lookup)}
}

// resolvConf is what counts of a resolv.conf, and which state of the file it is.
type resolvConf struct {
	modified time.Time
	size     int64
	servers  []Server
	timeout  time.Duration // of one try
	attempts int           // rounds over the servers
}

// Servers is the system's name servers as they are now.
func (r *SystemResolver) Servers() []Server { return slices.Clone(r.config().servers) }

func (r *SystemResolver) config() resolvConf {
	var modified time.Time
	var size int64
	if fi, err := os.Stat(r.path); err == nil {
		modified, size = fi.ModTime(), fi.Size()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.read || !modified.Equal(r.conf.modified) || size != r.conf.size {
		r.conf = readResolvConf(r.path)
		r.conf.modified, r.conf.size, r.read = modified, size, true
	}
	return r.conf
}

func readResolvConf(path string) resolvConf {
	var text io.Reader = strings.NewReader("")
	if f, err := os.Open(path); err == nil {
		defer f.Close()
		text = io.LimitReader(f, maxResolvConf)
	}
	c, err := dns.ClientConfigFromReader(text)
	if err != nil {
		c = &dns.ClientConfig{Timeout: 5, Attempts: 2}
	}
	conf := resolvConf{
		timeout:  time.Duration(min(c.Timeout, maxTryTimeout)) * time.Second,
		attempts: min(c.Attempts, maxAttempts),
	}
	for _, s := range c.Servers {
		if a, err := netip.ParseAddr(s); err == nil && len(conf.servers) < maxNameservers {
			conf.servers = append(conf.servers, system(a))
		}
	}
	if len(conf.servers) == 0 {
		conf.servers = []Server{system(netip.AddrFrom4([4]byte{127, 0, 0, 1}))}
	}
	return conf
}

func system(a netip.Addr) Server {
	return Server{Name: "system", Transport: OverUDP, Addr: netip.AddrPortFrom(a.Unmap(), 53)}
}

type lookupKey struct{ host, family string }

// A lookup is one question, asked by the caller who came first. There is no
// goroutine of its own: it uses that caller's network and time.
type lookup struct {
	done   chan struct{} // closed when the fields below are set
	step   Step
	given  time.Duration // time it had
	void   bool          // the caller was cancelled; its failure is nobody else's
	expiry time.Time
}

// Lookup finds the addresses of host, of the family IP4 or IP6: sorted, each
// once, at most 8. It takes at most half of the time that ctx has left, so that
// there is time to ask the address. The step's DNSInfo is shared and must not be
// changed.
func (r *SystemResolver) Lookup(ctx context.Context, n Net, host, family string) Step {
	start := time.Now()
	key := lookupKey{strings.ToLower(strings.TrimSuffix(host, ".")), family}
	for {
		l, mine := r.join(key)
		if mine {
			r.lead(ctx, n, key, l)
			return l.step
		}
		select {
		case <-l.done:
		case <-ctx.Done():
			var t trace
			t.do(OpResolve, netip.AddrPort{}, func(s *Step) error {
				s.DNS = &DNSInfo{Resolver: "system", Transport: OverUDP, Name: host, Type: queryType(family)}
				return ctx.Err()
			})
			s := t.steps[0]
			s.Start, s.Took = start, time.Since(start)
			return s
		}
		if l.void || l.tooHasty(ctx) {
			r.forget(key, l)
			continue
		}
		s := l.step
		s.Start, s.Took = start, time.Since(start)
		if s.DNS != nil {
			info := *s.DNS
			info.Cached = true
			s.DNS = &info
		}
		return s
	}
}

// tooHasty says that silence was found by a caller with less than half of the
// time that this one gives.
func (l *lookup) tooHasty(ctx context.Context) bool {
	return l.step.Failure == FailureTimeout && budget(ctx) > 2*l.given
}

// budget is the time a lookup may take under ctx.
func budget(ctx context.Context) time.Duration {
	if d, ok := ctx.Deadline(); ok {
		return time.Until(d) / 2
	}
	return time.Hour
}

// join is the lookup that is under way or still fresh, or a new one, which is
// the caller's to lead.
func (r *SystemResolver) join(key lookupKey) (l *lookup, mine bool) {
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	if l := r.lookups[key]; l != nil && !l.expired(now) {
		return l, false
	}
	l = &lookup{done: make(chan struct{})}
	if len(r.lookups) >= maxLookups {
		r.evict(now)
	}
	if len(r.lookups) < maxLookups {
		r.lookups[key] = l
	}
	return l, true
}

// evict drops what has expired or, where nothing has, any one that is over. The
// caller holds mu.
func (r *SystemResolver) evict(now time.Time) {
	var over lookupKey
	found, dropped := false, false
	for k, l := range r.lookups {
		switch {
		case l.expired(now):
			delete(r.lookups, k)
			dropped = true
		case l.over():
			over, found = k, true
		}
	}
	if found && !dropped {
		delete(r.lookups, over)
	}
}

func (l *lookup) over() bool {
	select {
	case <-l.done:
		return true
	default:
		return false
	}
}

func (l *lookup) expired(now time.Time) bool { return l.over() && !now.Before(l.expiry) }

func (r *SystemResolver) forget(key lookupKey, l *lookup) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.lookups[key] == l {
		delete(r.lookups, key)
	}
}

// lead carries l out and tells those who wait for it.
func (r *SystemResolver) lead(ctx context.Context, n Net, key lookupKey, l *lookup) {
	l.void = true // until it is over, should the network panic
	defer close(l.done)
	l.given = budget(ctx)
	half, cancel := context.WithTimeout(ctx, l.given)
	defer cancel()
	var t trace
	t.do(OpResolve, netip.AddrPort{}, func(s *Step) error { return r.ask(half, n, s, key.host, key.family) })
	l.step = t.steps[0]
	l.void = ctx.Err() == context.Canceled
	l.expiry = time.Now().Add(failedLookupTTL)
	if l.step.Failure == "" {
		ttl := r.TTL
		if ttl == 0 {
			ttl = DefaultLookupTTL
		}
		l.expiry = time.Now().Add(ttl)
	}
}

// ask tries the servers until one says yes or no, as the C library does: other
// answers, and silence, are left for the next server. Each try has an equal
// share of the time that is left in its round; what is asked once more within a
// try is told at dnsRetransmit. The second round and later ones ask without EDNS,
// at which a few old resolvers take offence (RFC 6891 §7). As with an app, the
// first answer is taken, and no second one awaited.
func (r *SystemResolver) ask(ctx context.Context, n Net, s *Step, host, family string) error {
	conf := r.config()
	question := DNS{Host: host, Type: queryType(family), Window: -1, AllowBogons: r.AllowBogons}
	var worst error
	for round := range conf.attempts {
		for i, server := range conf.servers {
			question.Server = server
			info, err := try(ctx, n, question, round == 0, conf.timeout, len(conf.servers)-i)
			final := err == nil || err == errDNSNXDOMAIN || err == errDNSNoAnswer || err == errDNSBogon
			// Of several failures, one that was said is worth more than silence.
			if final || s.DNS == nil || len(s.DNS.Replies) == 0 {
				s.Addr, s.DNS, worst = server.Addr, info, err
			}
			if final {
				return err
			}
			if spent(ctx) {
				return worst
			}
		}
	}
	return worst
}

// spent says that ctx has ended or has no time left: the timer of the last try
// may fire before that of ctx.
func spent(ctx context.Context) bool {
	d, ok := ctx.Deadline()
	return ctx.Err() != nil || ok && time.Until(d) <= 0
}

// try asks one server, with its share of the time that is left.
func try(ctx context.Context, n Net, d DNS, edns bool, timeout time.Duration, left int) (*DNSInfo, error) {
	if deadline, ok := ctx.Deadline(); ok {
		timeout = min(timeout, time.Until(deadline)/time.Duration(left))
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	steps := d.probe(ctx, n, edns)
	// A truncated answer is followed by a connection: the evidence is that of
	// the last reply, the failure of whatever failed.
	var info *DNSInfo
	var err error
	for _, s := range steps {
		if s.DNS != nil {
			info = s.DNS
		}
		if s.Err != nil && err == nil {
			err = s.Err
		}
	}
	if info != nil {
		slices.SortFunc(info.Answers, netip.Addr.Compare)
		info.Answers = slices.Compact(info.Answers)
		info.Answers = info.Answers[:min(len(info.Answers), maxAddrs)]
	}
	return info, err
}

func queryType(family string) uint16 {
	if family == IP6 {
		return dns.TypeAAAA
	}
	return dns.TypeA
}
