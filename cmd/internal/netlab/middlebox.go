package netlab

import (
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"
)

// A Middlebox is the router between a vantage and the servers. It forwards
// everything, half of RTT later, unless a rule says otherwise. What it forges
// itself comes at once: it stands beside the vantage.
type Middlebox struct {
	RTT time.Duration // between vantage and servers; set before traffic flows

	up, down *line // towards the servers, towards the vantage

	mu    sync.Mutex
	rules []*Rule
	flows map[flowKey]*flow
	back  map[flowKey]*flow // redirected flows, by where the answers come from
	count Count
	over  bool
}

// A Count is what crossed a middlebox, in IP packets and their bytes.
type Count struct {
	Packets, Bytes int64 // both directions
	Dropped        int64 // packets that a rule kept
}

// flowKey is a flow as the vantage sees it.
type flowKey struct {
	proto          byte
	client, server netip.AddrPort
}

// A flow is what a middlebox remembers of one connection, or of what comes
// nearest to one.
type flow struct {
	flowKey
	to    netip.AddrPort // where it really goes, if it was redirected
	taken map[*Rule]step

	// What the client said: in TCP the stream in its order, as far as it is
	// kept; in UDP the first datagram.
	said []byte
	next uint32 // the sequence number that said continues at
	quic quicHello
	name string // in the ClientHello
	old  bool   // older than the rules: what it says now is not its beginning
}

// keep is how much of a stream is looked at: a ClientHello has some 2 kB.
const keep = 8 << 10

// newMiddlebox starts to forward between two TUN devices, until they are closed.
func newMiddlebox(vantage, servers *os.File, rtt time.Duration) *Middlebox {
	m := &Middlebox{RTT: rtt, up: newLine(servers), down: newLine(vantage), flows: map[flowKey]*flow{}, back: map[flowKey]*flow{}}
	go m.read(vantage, true)
	go m.read(servers, false)
	return m
}

func (m *Middlebox) close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.over = true
	close(m.up.queue)
	close(m.down.queue)
}

func (m *Middlebox) read(tun *os.File, up bool) {
	b := make([]byte, 64<<10)
	for {
		n, err := tun.Read(b)
		if err != nil {
			return
		}
		if p, ok := parse(slices.Clone(b[:n])); ok && !p.dst.Addr().IsMulticast() && !p.src.Addr().IsLinkLocalUnicast() {
			m.forward(p, up)
		}
	}
}

// Set replaces the rules. Rules about what a client says first take new
// connections only; the others act on open ones too.
func (m *Middlebox) Set(rules ...Rule) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.rules = nil
	for _, r := range rules {
		m.rules = append(m.rules, &r)
	}
	clear(m.back)
	for _, f := range m.flows {
		clear(f.taken)
		f.to = netip.AddrPort{}
		f.said, f.name, f.old = nil, "", true
	}
}

// Count is what has crossed so far.
func (m *Middlebox) Count() Count {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.count
}

func (m *Middlebox) forward(p packet, up bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.over {
		return
	}
	m.count.Packets++
	m.count.Bytes += int64(len(p.b))
	if !p.hop() {
		return
	}
	f := m.flowOf(&p, up)
	if up {
		f.listen(&p)
	}
	x := &crossing{packet: p, up: up, flow: f, box: m, delay: m.RTT / 2}
	for _, r := range m.rules {
		act, taken := f.taken[r]
		if !taken {
			if !up || !r.matches(f, &p) {
				continue
			}
			act = r.Do()
			f.taken[r] = act
		}
		if !act(x) {
			m.count.Dropped++
			return
		}
	}
	if f.to.IsValid() && up {
		x.readdress(x.src, f.to)
	}
	m.send(x.b, up, x.delay)
}

// flowOf is the flow of a packet, which is made to look as the vantage knows it.
func (m *Middlebox) flowOf(p *packet, up bool) *flow {
	k := flowKey{p.proto, p.src, p.dst}
	if !up {
		k.client, k.server = p.dst, p.src
		if f := m.back[k]; f != nil {
			p.readdress(f.server, f.client)
			return f
		}
	}
	f := m.flows[k]
	if f == nil || up && p.proto == protoTCP && p.flags&(flagSYN|flagRST) == flagSYN && p.seq+1 != f.next {
		f = &flow{flowKey: k, taken: map[*Rule]step{}, next: p.seq + 1}
		m.flows[k] = f
	}
	return f
}

// listen takes in what a packet of the client's says.
func (f *flow) listen(p *packet) {
	switch {
	case len(p.data) == 0 || f.old:
	case p.proto == protoUDP:
		if f.said == nil {
			f.said = p.data
		}
		if f.name == "" {
			f.quic.feed(p.data)
			f.name = f.quic.name()
		}
	case len(f.said) < keep:
		// The vantage's own packets come in order, and again when they were lost.
		if skip := int(int32(f.next - p.seq)); skip >= 0 && skip < len(p.data) {
			f.said = append(f.said, p.data[skip:]...)
			f.next = p.seq + uint32(len(p.data))
			if f.name == "" {
				f.name = tlsName(f.said)
			}
		}
	}
}

// send puts a packet on its way.
func (m *Middlebox) send(b []byte, up bool, delay time.Duration) {
	l := m.down
	if up {
		l = m.up
	}
	if delay == 0 {
		l.tun.Write(b) // past those that wait
		return
	}
	l.put(b, time.Now().Add(delay))
}

// redirect makes a flow go elsewhere from now on.
func (m *Middlebox) redirect(f *flow, to netip.AddrPort) {
	f.to = to
	m.back[flowKey{f.proto, f.client, to}] = f
}

// A line hands packets to a TUN device, each at its time and all in order.
type line struct {
	tun   *os.File
	queue chan delivery
	last  time.Time // of the one put last; guarded by the middlebox
}

type delivery struct {
	b  []byte
	at time.Time
}

func newLine(tun *os.File) *line {
	l := &line{tun: tun, queue: make(chan delivery, 4096)}
	go func() {
		for d := range l.queue {
			time.Sleep(time.Until(d.at))
			tun.Write(d.b)
		}
	}()
	return l
}

func (l *line) put(b []byte, at time.Time) {
	if at.Before(l.last) {
		at = l.last
	}
	l.last = at
	select {
	case l.queue <- delivery{b, at}:
	default: // a router's queue that is full
	}
}
