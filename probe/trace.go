package probe

import (
	"context"
	"net"
	"net/netip"
	"time"
)

// trace collects the steps of one run. Every operation of every prober goes
// through do, so that each is timed and classified in one way.
type trace struct{ steps []Step }

// do runs one operation. f may fill in the step's evidence, also when it fails,
// and Took, where it watched on after the operation was over.
func (t *trace) do(op Op, addr netip.AddrPort, f func(*Step) error) error {
	s := Step{Op: op, Addr: addr, Start: time.Now()}
	err := f(&s)
	if s.Took == 0 {
		s.Took = time.Since(s.Start)
	}
	if err != nil {
		s.Err, s.Failure = err, Classify(err)
	}
	t.steps = append(t.steps, s)
	return err
}

// connect opens a TCP connection, with at most half of the time that is left:
// a prober that is let in late still has time for its question. At the default
// timeout of 10 s this covers the SYN and its retransmissions after 1 and 3 s
// (RFC 6298 §2).
func (t *trace) connect(ctx context.Context, n Net, addr netip.AddrPort) (net.Conn, error) {
	var conn net.Conn
	err := t.do(OpConnect, addr, func(*Step) error {
		ctx, cancel := halve(ctx)
		defer cancel()
		var err error
		conn, err = n.DialContext(ctx, "tcp", addr.String())
		return err
	})
	return conn, err
}

// halve is ctx with half of the time that it has left.
func halve(ctx context.Context) (context.Context, context.CancelFunc) {
	if d, ok := ctx.Deadline(); ok {
		return context.WithTimeout(ctx, time.Until(d)/2)
	}
	return context.WithCancel(ctx)
}

// guard makes conn's reads and writes end when ctx does: its deadline becomes
// the connection's, and a cancellation closes it. The returned func undoes the
// watch; it does not close the connection.
func guard(ctx context.Context, conn net.Conn) (stop func()) {
	if d, ok := ctx.Deadline(); ok {
		conn.SetDeadline(d)
	}
	undo := context.AfterFunc(ctx, func() {
		if ctx.Err() == context.Canceled {
			conn.SetDeadline(time.Unix(1, 0))
		}
	})
	return func() { undo() }
}

// cause is err, or the context's own reason where that ended the operation: a
// cancelled run is not a timeout of the peer.
func cause(ctx context.Context, err error) error {
	if err != nil && ctx.Err() == context.Canceled {
		return context.Canceled
	}
	return err
}
