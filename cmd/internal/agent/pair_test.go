package agent

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/messenger-probe/messenger-probe/probe"
)

// books is a Sink that keeps the results of transfers.
type books struct {
	Sink
	mu  sync.Mutex
	all []probe.Result
}

func (b *books) Record(r probe.Result) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.all = append(b.all, r)
}
func (*books) Judged(Snapshot)   {}
func (*books) Confirming(string) {}
func (*books) Changed(Change)    {}

// refused is a network in which every dial is refused at once: a transfer that
// fails needs its control as well.
type refused struct{ probe.Net }

func (refused) DialContext(context.Context, string, string) (net.Conn, error) {
	return nil, syscall.ECONNREFUSED
}

// Beside each transfer of a messenger the same is asked of a control, in the
// same minute, and no more often than there is need of.
func TestPair(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		transfer := func(messenger, function, endpoint, family, direction string, bytes int64, every time.Duration) probe.Check {
			return probe.Check{Messenger: messenger, Function: function, Endpoint: endpoint, Protocol: probe.ProtoTransfer, Family: family,
				Target: fmt.Sprintf("443,%s,%d", direction, bytes), Interval: every, Timeout: time.Second,
				Prober: probe.Transfer{Direction: direction, Bytes: bytes}}
		}
		const often, day = 15 * time.Minute, 24 * time.Hour
		checks := []probe.Check{
			transfer("alpha", "media", "down", probe.IP4, "", 0, often),
			transfer("alpha", "media", "down", probe.IP6, "", 0, often),
			transfer("beta", "media", "up", probe.IP4, probe.Upload, 0, often),
			transfer("beta", "media", "large", probe.IP4, probe.Download, 512<<10, often),
			transfer(probe.Control, probe.Foreign, "c1", probe.IP4, probe.Download, 0, day),
			transfer(probe.Control, probe.Foreign, "c1", probe.IP6, probe.Download, 0, day),
			transfer(probe.Control, probe.Domestic, "c2", probe.IP4, probe.Download, 0, day),
			transfer(probe.Control, probe.Foreign, "c3", probe.IP4, probe.Upload, 0, day),
			transfer(probe.Control, probe.Foreign, "c4", probe.IP4, "", 512<<10, day),
			transfer(probe.Control, probe.Positive, "filtered", probe.IP4, "", 0, day),
		}
		sink := &books{}
		a := New(Options{Net: refused{}, Sink: sink, Log: slog.New(slog.DiscardHandler)})
		a.Set(checks, time.Minute)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- a.Run(ctx) }()
		time.Sleep(12 * time.Hour)
		cancel()
		<-done

		at := map[string][]time.Time{}
		for _, r := range sink.all {
			k := r.Check.Endpoint + "/" + r.Check.Family
			at[k] = append(at[k], r.Start)
		}
		near := func(t time.Time, keys ...string) bool {
			for _, k := range keys {
				for _, u := range at[k] {
					if u.Sub(t).Abs() <= time.Minute {
						return true
					}
				}
			}
			return false
		}
		for k, controls := range map[string][]string{
			"down/ip4": {"c1/ip4", "c2/ip4"}, "down/ip6": {"c1/ip6"}, "up/ip4": {"c3/ip4"}, "large/ip4": {"c4/ip4"},
		} {
			if len(at[k]) < 40 {
				t.Errorf("%s ran %d times", k, len(at[k]))
			}
			for _, u := range at[k] {
				if !near(u, controls...) {
					t.Errorf("%s at %v has no control beside it", k, u)
				}
			}
			n := 0
			for _, c := range controls {
				n += len(at[c])
			}
			if n > len(at[k])+3 {
				t.Errorf("%d runs of controls beside %d of %s", n, len(at[k]), k)
			}
		}
		if one, two := len(at["c1/ip4"]), len(at["c2/ip4"]); one < two-2 || two < one-2 {
			t.Errorf("controls take no turns: %d and %d", one, two)
		}
		if n := len(at["filtered/ip4"]); n > 2 {
			t.Errorf("a control that is filtered was asked %d times", n)
		}
	})
}
