package main

import (
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"syscall"
	"time"

	"github.com/KimMachineGun/automemlimit/memlimit"

	"github.com/messenger-probe/messenger-probe/probe"
)

// What the agent takes from the machine it runs on: how much memory it may use,
// how many sockets, and which address families there are.

// gcPercent is how much garbage may come on top of the live heap. The heap is
// small and lives on small servers: collect sooner than Go's default of 100.
const gcPercent = 30

// memoryShare is the part of a container's or unit's memory limit that Go's heap
// may fill before it collects ever harder; the rest is for stacks and the binary.
const memoryShare = 0.8

// saveMemory holds the garbage collector to the limits of this machine, unless
// the operator has said otherwise with GOGC or GOMEMLIMIT. Where memory is to be
// profiled, samples of it are taken from here on.
func saveMemory(profile bool) {
	if profile {
		runtime.MemProfileRate = 512 << 10
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	// That there is no limit, or no cgroup, is no error.
	memlimit.Set(memlimit.WithRatio(memoryShare), memlimit.WithProvider(memlimit.FromCgroup))
}

const (
	// descriptors that are in use beside those of checks: standard streams, the
	// poller, the listener, those who scrape, and files that are being written.
	otherDescriptors = 24
	// descriptorsPerRun is the most that a run holds at a time: a lookup's socket
	// and a connection, and one that is being closed.
	descriptorsPerRun = 3
	parallel          = 64 // runs in flight, where nothing hinders
)

// runsAtOnce is how many runs may be in flight with so many descriptors.
func runsAtOnce(descriptors uint64) int {
	if descriptors < otherDescriptors+descriptorsPerRun {
		return 1
	}
	return int(min((descriptors-otherDescriptors)/descriptorsPerRun, parallel))
}

// descriptorLimit is how many descriptors this process may have (Go has raised
// the soft limit to the hard one already).
func descriptorLimit() uint64 {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return 1024 // POSIX's customary one
	}
	return l.Cur
}

// familyGone is how long an address family must be without a route, while another
// has one, until it is measured no more. Its checks are void meanwhile.
const familyGone = time.Hour

// families takes over an address family for which a route has come, and gives up
// one whose route is gone for good.
func (d *daemon) families(now time.Time) {
	d.reloading.Lock()
	defer d.reloading.Unlock()
	pl := d.plan.Load()
	if d.gone == nil {
		d.gone = map[string]time.Time{}
	}
	any, came, went := false, false, false
	for _, f := range pl.cfg.Families {
		measured := !slices.Contains(pl.missing, f)
		switch {
		case probe.HasFamily(f):
			any, came = true, came || !measured
			delete(d.gone, f)
		case measured:
			if d.gone[f].IsZero() {
				d.gone[f] = now
			}
			d.agent.Lost(f)
			went = went || now.Sub(d.gone[f]) >= familyGone
		}
	}
	if !came && !(went && any) {
		return
	}
	next, err := plan(pl.cfg)
	if err != nil {
		d.log.Warn("the address families have changed, and the old ones are measured on: the configuration no longer loads", "error", err)
		return
	}
	abroad, err := d.comparators(pl.cfg)
	if err != nil {
		d.log.Warn("the address families have changed, and the old ones are measured on: the configuration no longer loads", "error", err)
		return
	}
	d.adopt(next, abroad)
	d.log.Info("address families have changed", "checks", len(next.checks))
	d.sayMissing(next)
}
