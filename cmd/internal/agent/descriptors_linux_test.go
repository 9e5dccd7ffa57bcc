package agent

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"reflect"
	"testing"
	"time"

	"github.com/messenger-probe/messenger-probe/probe"
	"github.com/messenger-probe/messenger-probe/probe/probetest"
	"github.com/messenger-probe/messenger-probe/probe/schedule"
)

func descriptors(t *testing.T) int {
	t.Helper()
	ds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(ds)
}

// A thousand failed checks of every kind in the catalogue, on real sockets,
// leave no descriptor behind.
func TestDescriptors(t *testing.T) {
	tcp := map[string]netip.AddrPort{
		"refuses": probetest.Refused(t),
		"resets":  probetest.ServeTCP(t, probetest.Reset),
		"is mute": probetest.ServeTCP(t, probetest.Stall),
		"closes":  probetest.ServeTCP(t, func(net.Conn) {}),
		"babbles": probetest.ServeTCP(t, probetest.Answer([]byte("\x15\x03\x01nonsense that goes on for a while"))),
	}
	udp := map[string]netip.AddrPort{
		"refuses": probetest.RefusedUDP(t),
		"is mute": probetest.MuteUDP(t),
		"babbles": probetest.ServeUDP(t, func([]byte) [][]byte { return [][]byte{[]byte("nonsense"), make([]byte, 1200)} }),
	}
	var kinds []probe.Check
	seen := map[string]bool{}
	for _, c := range catalogue(t, known{}) {
		p := probe.Bare(c.Prober)
		how, at := tcp, func(addr netip.AddrPort) probe.Prober { return p.(probe.Addressed).At(addr) }
		key := fmt.Sprintf("%T", p)
		for _, f := range []string{"Hello", "Transport", "Over", "Version", "Kind", "Direction", "Plain"} {
			if v := reflect.ValueOf(p).FieldByName(f); v.IsValid() {
				key += fmt.Sprintf(" %v", v)
			}
		}
		switch q := p.(type) {
		case probe.DNS:
			key += q.Server.Transport
			if q.Server.Transport == probe.OverUDP {
				how = udp
			}
			at = func(addr netip.AddrPort) probe.Prober { q.Server.Addr = addr; return q }
		case probe.TCP: // a connect works at all others
			how = map[string]netip.AddrPort{"refuses": tcp["refuses"]}
		case probe.QUIC, probe.QUICPing, probe.STUN:
			how = udp
		case probe.HTTP:
			if q.Version == "3" {
				how = udp
			}
		}
		if seen[key] {
			continue
		}
		seen[key] = true
		for what, addr := range how {
			c.Target, c.Gate, c.Prober, c.Timeout = key+" "+what, "", at(addr), 200*time.Millisecond
			kinds = append(kinds, c)
		}
	}
	if len(seen) < 20 {
		t.Errorf("%d kinds only: %v", len(seen), seen)
	}
	host := &probe.Host{}
	run := func(checks []probe.Check) (failed int) {
		schedule.Once(t.Context(), host, checks, 64, func(r probe.Result) {
			if r.Failed() != nil {
				failed++
			} else {
				t.Errorf("%s works", r.Check.Target)
			}
		})
		return failed
	}
	run(kinds[:len(kinds)/4]) // whatever is opened once for all is open now
	settled := func(most int) int {
		n := 0
		for range 40 {
			if n = descriptors(t); n <= most {
				break
			}
			time.Sleep(50 * time.Millisecond)
		}
		return n
	}
	time.Sleep(200 * time.Millisecond)
	idle := settled(0)
	var thousand []probe.Check
	for len(thousand) < 1000 {
		for _, c := range kinds {
			c.Target += fmt.Sprint(len(thousand))
			thousand = append(thousand, c)
		}
	}
	failed := run(thousand)
	after := settled(idle)
	t.Logf("%d kinds, %d failed checks, %d descriptors before and %d after", len(seen), failed, idle, after)
	if failed < 1000 || after > idle {
		t.Errorf("%d failed checks, %d descriptors before and %d after", failed, idle, after)
	}
}
