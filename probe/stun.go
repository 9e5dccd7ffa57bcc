package probe

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/messenger-probe/messenger-probe/probe/wire/stun"
)

// What a [STUN] prober asks.
const (
	STUNBinding   = "binding"   // STUN Binding, RFC 8489 §2
	STUNTURN      = "turn"      // TURN Allocate without credentials, RFC 8656 §7
	STUNReflector = "reflector" // the hello of Telegram's call reflectors
)

// STUN asks a call server for its first answer, which needs no account: one
// reply step over UDP, which holds request and answer, and where Burst is set a
// transfer step.
//
// The reply works when it echoes our random transaction id: a Binding success
// with an address in it, a 401 to Allocate with a realm, a reflector's
// self-info, or any well-formed error (ReplyInfo.Code). What does not is not
// an answer and is waited past, so that nobody off the path can spoil a check.
//
// Calls are degraded by losing packets after the first few, so that one answer
// says little: the burst sends some more at the pace of a voice call and counts
// what returns (BurstInfo). It fails when nothing returns; loss and jitter are
// for the verdict to judge.
type STUN struct {
	Addr    netip.AddrPort
	Kind    string        // STUNBinding (also ""), STUNTURN, STUNReflector
	Realm   string        // turn: what the 401 must name; "" any
	Burst   int           // packets, at most 200; 0 no burst, 50 is usual
	Spacing time.Duration // between the packets of a burst; 0 is 20 ms, a voice codec's frame
}

// At is the same question, asked of addr.
func (q STUN) At(addr netip.AddrPort) Prober { q.Addr = addr; return q }

const (
	// The first retransmission and its doubling, RFC 8489 §6.2.1. The seven
	// requests of the RFC take 39.5 s; within a deadline of 10 s go five.
	stunRTO = 500 * time.Millisecond

	maxBurst = 200
	minBurst = 10 // below this, loss is not worth counting

	// How long to wait for the last answer of a burst.
	burstTail = time.Second
)

func (q STUN) Probe(ctx context.Context, n Net) []Step {
	var t trace
	call := &call{STUN: q}
	rand.Read(call.tag[:])
	err := t.do(OpReply, q.Addr, func(s *Step) error {
		call.Kind = cmp.Or(q.Kind, STUNBinding)
		s.Reply = &ReplyInfo{Transport: call.Kind}
		if !slices.Contains([]string{STUNBinding, STUNTURN, STUNReflector}, call.Kind) {
			return &FailureError{FailureInvalidArgument, "no such question to a call server"}
		}
		var err error
		if call.sock, err = listenUDP(ctx, n, q.Addr); err != nil {
			return err
		}
		return cause(ctx, call.first(ctx, s.Reply))
	})
	if call.sock == nil {
		return t.steps
	}
	defer call.sock.Close()
	spacing := cmp.Or(q.Spacing, 20*time.Millisecond)
	if packets := fit(ctx, min(q.Burst, maxBurst), spacing); err == nil && packets > 0 {
		t.do(OpTransfer, q.Addr, func(s *Step) error {
			s.Burst = &BurstInfo{}
			return cause(ctx, call.burst(ctx, packets, spacing, s.Burst))
		})
	}
	return t.steps
}

// fit is how many packets of a burst, and the wait for the last, fit into the
// time that is left; 0 where that is too few to be worth it. A burst that the
// deadline cut short would count as lost what was on its way.
func fit(ctx context.Context, packets int, spacing time.Duration) int {
	if d, ok := ctx.Deadline(); ok {
		packets = min(packets, int((time.Until(d)-burstTail)/spacing))
	}
	if packets < minBurst {
		return 0
	}
	return packets
}

// call is one run.
type call struct {
	STUN
	tag  [16]byte // reflector
	sock *udpSocket
	buf  [1500]byte
}

// request is a question with a transaction id of its own.
func (c *call) request(kind string, id stun.ID) []byte {
	switch kind {
	case STUNTURN:
		return stun.NewRequest(stun.Allocate, id)
	case STUNReflector:
		return stun.Hello{Tag: c.tag, ID: [8]byte(id[:8])}.Bytes()
	}
	return stun.NewRequest(stun.Binding, id)
}

var (
	errNotAnswer = errors.New("no answer to our question")
	errRealm     = &FailureError{FailureUnknown, "401 without the realm"}
	errMapped    = &FailureError{FailureUnknown, "success without an address"}
)

// first asks until there is an answer, and judges it.
func (c *call) first(ctx context.Context, r *ReplyInfo) error {
	var id stun.ID
	rand.Read(id[:])
	request := c.request(c.Kind, id)
	start := time.Now()
	for wait := stunRTO; ; wait *= 2 {
		if err := c.send(request); err != nil {
			return err
		}
		again := time.Now().Add(wait)
		for {
			b, err := c.receive(ctx, again)
			if b == nil && err == nil {
				break
			}
			if err == nil {
				err = c.judge(b, id, start, r)
			}
			if err != errNotAnswer {
				return err
			}
		}
	}
}

// judge says whether b answers the request with this id, and what it says.
func (c *call) judge(b []byte, id stun.ID, start time.Time, r *ReplyInfo) error {
	if c.Kind == STUNReflector {
		info, err := stun.ParseSelfInfo(b)
		switch {
		case err != nil:
			r.Proof = "not a reflector's"
			return errNotAnswer
		case info.Hello != stun.Hello{Tag: c.tag, ID: [8]byte(id[:8])}:
			r.Proof = "answer to another hello"
			return errNotAnswer
		}
		r.Skew, r.HasSkew = info.Time.Sub(start.Add(time.Since(start)/2)), true
		r.Proof = "peer tag and id"
		return nil
	}
	method := stun.Binding
	if c.Kind == STUNTURN {
		method = stun.Allocate
	}
	m, err := stun.Parse(b)
	switch {
	case err != nil:
		r.Proof = "not STUN"
		return errNotAnswer
	case m.ID != id || m.Method != method || m.Class != stun.Success && m.Class != stun.Error:
		r.Proof = "answer to another transaction"
		return errNotAnswer
	case m.Class == stun.Error && m.Code == 0:
		r.Proof = "error without a code"
		return errNotAnswer
	}
	r.Code = m.Code
	switch {
	case m.Class == stun.Error && m.Code == 401 && method == stun.Allocate:
		if m.Realm == "" || !m.Nonce || c.Realm != "" && m.Realm != c.Realm {
			r.Proof = "another realm"
			return errRealm
		}
		r.Proof = "transaction id and realm"
	case m.Class == stun.Success && method == stun.Binding && !m.Mapped.IsValid():
		r.Proof = "success without an address"
		return errMapped
	default:
		r.Proof = "transaction id"
	}
	return nil
}

// burst asks again and again over the same socket: Binding of a TURN server too,
// where each 401 would cost it a nonce.
func (c *call) burst(ctx context.Context, packets int, spacing time.Duration, info *BurstInfo) error {
	kind := c.Kind
	if kind == STUNTURN {
		kind = STUNBinding
	}
	type packet struct {
		sent time.Time
		rtt  time.Duration // 0 no answer
	}
	var (
		all   = make([]packet, 0, packets)
		index = make(map[stun.ID]int, packets)
		start = time.Now()
		end   time.Time
	)
	for info.Received < packets {
		next := start.Add(time.Duration(len(all)) * spacing)
		if len(all) < packets && !time.Now().Before(next) {
			var id stun.ID
			rand.Read(id[:])
			if kind == STUNReflector {
				clear(id[8:])
			}
			index[id] = len(all)
			all = append(all, packet{sent: time.Now()})
			info.Sent++
			if err := c.send(c.request(kind, id)); err != nil && Classify(err).Local() {
				return err
			}
			end = time.Now().Add(burstTail)
			continue
		}
		if len(all) == packets {
			next = end
		}
		b, err := c.receive(ctx, next)
		if err != nil {
			// What ICMP says of a packet is a packet lost.
			f := Classify(err)
			if ctx.Err() != nil || f == FailureTimeout || f == FailureUnknown || f.Local() {
				return err
			}
			continue
		}
		if b == nil && len(all) == packets {
			break
		}
		if i, ok := index[c.answered(kind, b)]; ok && all[i].rtt == 0 {
			all[i].rtt = max(time.Since(all[i].sent), 1)
			info.Received++
		}
	}
	var rtts []time.Duration
	var diffs, neighbours time.Duration
	for i, p := range all {
		if p.rtt == 0 {
			continue
		}
		rtts = append(rtts, p.rtt)
		if i > 0 && all[i-1].rtt != 0 {
			diffs += (p.rtt - all[i-1].rtt).Abs()
			neighbours++
		}
	}
	if len(rtts) == 0 {
		return os.ErrDeadlineExceeded
	}
	slices.Sort(rtts)
	info.RTT = rtts[len(rtts)/2]
	info.Jitter = diffs / max(neighbours, 1)
	return nil
}

// answered is the id that a datagram answers; the zero id, which nobody draws,
// if none.
func (c *call) answered(kind string, b []byte) (id stun.ID) {
	if kind == STUNReflector {
		if info, err := stun.ParseSelfInfo(b); err == nil && info.Tag == c.tag {
			copy(id[:], info.ID[:])
		}
		return id
	}
	if m, err := stun.Parse(b); err == nil && m.Method == stun.Binding && m.Class >= stun.Success {
		return m.ID
	}
	return id
}

// send writes one datagram. Where an ICMP error of an earlier one is waiting at
// the socket, a write reports that instead and sends nothing.
func (c *call) send(b []byte) error {
	to := net.UDPAddrFromAddrPort(c.sock.peer)
	_, err := c.sock.WriteTo(b, to)
	if err != nil && !Classify(err).Local() {
		_, err = c.sock.WriteTo(b, to)
	}
	return err
}

// receive waits for a datagram of the peer, no longer than until: then it is
// nil. The bytes are good until the next call.
func (c *call) receive(ctx context.Context, until time.Time) ([]byte, error) {
	last, limited := ctx.Deadline()
	if limited && last.Before(until) {
		until = last
	}
	if err := c.sock.SetReadDeadline(until); err != nil {
		return nil, err
	}
	undo := context.AfterFunc(ctx, func() { c.sock.SetReadDeadline(time.Unix(1, 0)) })
	defer undo()
	n, _, err := c.sock.ReadFrom(c.buf[:])
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case err == nil:
		return c.buf[:n], nil
	case errors.Is(err, os.ErrDeadlineExceeded) && !(limited && until.Equal(last)):
		return nil, nil
	}
	return nil, err
}
