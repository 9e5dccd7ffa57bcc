package schedule

import (
	"context"
	"fmt"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/messenger-probe/messenger-probe/probe"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// asks is a prober made of a func.
type asks func(context.Context, probe.Net) []probe.Step

func (f asks) Probe(ctx context.Context, n probe.Net) []probe.Step { return f(ctx, n) }

var worked = []probe.Step{{Op: probe.OpConnect}}

// takes is a prober that works after d, or fails when its context ends.
func takes(d time.Duration) probe.Prober {
	return asks(func(ctx context.Context, _ probe.Net) []probe.Step {
		select {
		case <-time.After(d):
			return worked
		case <-ctx.Done():
			return []probe.Step{{Op: probe.OpConnect, Failure: probe.Classify(ctx.Err()), Err: ctx.Err()}}
		}
	})
}

// deaf is a prober that does not heed its context, and fails after d.
func deaf(d time.Duration) probe.Prober {
	return asks(func(context.Context, probe.Net) []probe.Step {
		time.Sleep(d)
		return []probe.Step{{Op: probe.OpConnect, Failure: probe.FailureTimeout}}
	})
}

// check is check i of a messenger, asked every minute.
func check(messenger string, i int, p probe.Prober) probe.Check {
	return probe.Check{
		Messenger: messenger,
		Function:  "chat",
		Endpoint:  fmt.Sprintf("e%d", i),
		Protocol:  probe.ProtoTCP,
		Family:    probe.IP4,
		Interval:  time.Minute,
		Timeout:   10 * time.Second,
		Prober:    p,
	}
}

func several(messenger string, n int, p probe.Prober) []probe.Check {
	cs := make([]probe.Check, n)
	for i := range cs {
		cs[i] = check(messenger, i, p)
	}
	return cs
}
