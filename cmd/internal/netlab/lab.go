//go:build linux

package netlab

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/messenger-probe/messenger-probe/probe/probetest"
)

// Required is the variable of the environment that makes it an error where a
// lab cannot be had; otherwise the test is skipped.
const Required = "NETLAB_REQUIRED"

// Tools is the programs that a lab runs, of Debian's packages iproute2,
// util-linux, unbound, nginx-light, caddy and coturn.
var Tools = []string{"ip", "setpriv", "unbound", "nginx", "caddy", "turnserver"}

// A Lab is the namespace of the servers, and what they are made from.
type Lab struct {
	Namespace
	Dir string        // files of this lab, readable by everybody
	CA  *probetest.CA // issues the servers' certificates
}

// New makes a lab without servers, for as long as the test runs.
func New(tb testing.TB) *Lab {
	tb.Helper()
	if why := missing(); why != "" {
		if os.Getenv(Required) != "" {
			tb.Fatal("no lab: " + why)
		}
		tb.Skip("no lab: " + why)
	}
	sweep()
	dir, err := os.MkdirTemp("", "netlab-")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil { // the agent runs as nobody
		tb.Fatal(err)
	}
	l := &Lab{newNamespace(tb), dir, probetest.NewCA(tb, "netlab")}
	l.write(tb, "ca.pem", l.CA.PEM())
	return l
}

// missing says why there can be no lab, "" if it can.
func missing() string {
	if os.Getuid() != 0 {
		return "not root"
	}
	for _, t := range append(Tools, "/dev/net/tun") {
		if _, err := exec.LookPath(t); err != nil && !strings.HasPrefix(t, "/") {
			return t + " is not installed"
		} else if _, err := os.Stat(t); err != nil && strings.HasPrefix(t, "/") {
			return err.Error()
		}
	}
	if out, err := exec.Command("ip", "netns", "add", prefix+"trial").CombinedOutput(); err != nil && !strings.Contains(string(out), "exists") {
		return "namespaces cannot be made: " + strings.TrimSpace(string(out))
	}
	exec.Command("ip", "netns", "delete", prefix+"trial").Run()
	return ""
}

// write makes a file of the lab and is its path.
func (l *Lab) write(tb testing.TB, name string, data []byte) string {
	tb.Helper()
	path := filepath.Join(l.Dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		tb.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o644); err != nil {
		tb.Fatal(err)
	}
	return path
}

// Host gives the servers' namespace these addresses. Packets to an address that
// it does not have vanish; to a port where nobody listens they are refused.
func (l *Lab) Host(tb testing.TB, addrs ...netip.Addr) {
	tb.Helper()
	for _, a := range addrs {
		cmd := fmt.Sprintf("-n %s addr replace %v/%d dev lo", l.Name, a, a.BitLen())
		if a.Is6() {
			cmd += " nodad"
		}
		ip(tb, cmd)
	}
}

// A Vantage is a namespace with one way out: over a router, through a
// middlebox, to the servers of its lab.
//
//	vantage ── veth ── router ── tun ── Box ── tun ── servers
type Vantage struct {
	Namespace
	Box *Middlebox

	in4, in6 string // what its addresses begin with
	number   int    // of its addresses
}

// Vantage makes a vantage, whose resolv.conf names these servers.
func (l *Lab) Vantage(tb testing.TB, resolvers ...netip.Addr) *Vantage {
	tb.Helper()
	i := made.Add(1)
	in4, in6 := fmt.Sprintf("10.%d.%d.", 64+i>>8&63, i&255), fmt.Sprintf("fd00:%x::", i)
	v := &Vantage{Namespace: newNamespace(tb, resolvers...), in4: in4, in6: in6}
	router := newNamespace(tb)
	near, far := router.tun(tb, "line"), l.tun(tb, fmt.Sprintf("line%d", i))
	ip(tb,
		"-n "+v.Name+" link add eth0 type veth peer name lan netns "+router.Name,
		"-n "+router.Name+" addr add "+in4+"1/24 dev lan",
		"-n "+router.Name+" addr add "+in6+"1/64 dev lan nodad",
		"-n "+router.Name+" link set lan up",
		"-n "+router.Name+" link set line up",
		"-n "+router.Name+" route add default dev line",
		"-n "+router.Name+" -6 route add default dev line",
		fmt.Sprintf("-n %s link set line%d up", l.Name, i),
		fmt.Sprintf("-n %s route add %s0/24 dev line%d", l.Name, in4, i),
		fmt.Sprintf("-n %s -6 route add %s/64 dev line%d", l.Name, in6, i))
	for _, s := range []string{"net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"} {
		if err := router.do(func() error { return os.WriteFile("/proc/sys/"+s, []byte("1"), 0) }); err != nil {
			tb.Fatal(err)
		}
	}
	v.Plug(tb, 2, true, true)
	v.Box = newMiddlebox(near, far, 40*time.Millisecond)
	tb.Cleanup(v.Box.close)
	return v
}

// Plug takes the vantage's interface up, with the n-th address of its networks,
// 2 to 254, in these families and no other address. A vantage begins as number 2
// with both.
func (v *Vantage) Plug(tb testing.TB, n int, ip4, ip6 bool) {
	tb.Helper()
	// What stays is not touched, so that nothing on its way is lost.
	if n != v.number || !ip4 {
		ip(tb, "-n "+v.Name+" -4 addr flush dev eth0")
	}
	if n != v.number || !ip6 {
		ip(tb, "-n "+v.Name+" -6 addr flush dev eth0 scope global")
	}
	v.number = n
	ip(tb, "-n "+v.Name+" link set eth0 up")
	if ip4 {
		ip(tb, fmt.Sprintf("-n %s addr replace %s%d/24 dev eth0", v.Name, v.in4, n), "-n "+v.Name+" route replace default via "+v.in4+"1")
	}
	if ip6 {
		ip(tb, fmt.Sprintf("-n %s addr replace %s%x/64 dev eth0 nodad", v.Name, v.in6, n), "-n "+v.Name+" -6 route replace default via "+v.in6+"1")
	} else {
		ip(tb, "-n "+v.Name+" -6 route flush default")
	}
}

// Unplug takes the vantage's interface down.
func (v *Vantage) Unplug(tb testing.TB) {
	tb.Helper()
	ip(tb, "-n "+v.Name+" link set eth0 down")
}
