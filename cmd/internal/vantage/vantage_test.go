package vantage

import (
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	heading = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"

	// A machine on Ethernet, with a default and its own network.
	ether = heading +
		"eth0\t00000000\t0101A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0\n" +
		"eth0\t0001A8C0\t00000000\t0001\t0\t0\t100\t00FFFFFF\t0\t0\t0\n"
	// OpenVPN's two halves before it, and the way to its server.
	halves = ether +
		"tun0\t00000000\t0100080A\t0003\t0\t0\t0\t00000080\t0\t0\t0\n" +
		"tun0\t00000080\t0100080A\t0003\t0\t0\t0\t00000080\t0\t0\t0\n" +
		"eth0\t0A0B0C05\t0101A8C0\t0007\t0\t0\t0\tFFFFFFFF\t0\t0\t0\n"
	// A second default, with a lesser metric.
	second = ether + "wg0\t00000000\t00000000\t0001\t0\t0\t50\t00000000\t0\t0\t0\n"
	// … with a greater one: a tunnel that waits.
	waits = ether + "wg0\t00000000\t00000000\t0001\t0\t0\t600\t00000000\t0\t0\t0\n"
	// A private network behind a tunnel.
	office = ether + "tun0\t0000000A\t00000000\t0001\t0\t0\t0\t000000FF\t0\t0\t0\n"
	// The line itself is PPP.
	pppoe = heading + "ppp0\t00000000\t00000000\t0001\t0\t0\t0\t00000000\t0\t0\t0\n" +
		"eth1\t0001A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n"
	// PPP over another line, as PPTP and L2TP.
	pptp = pppoe + "eth0\t0A0B0C05\t0101A8C0\t0007\t0\t0\t0\tFFFFFFFF\t0\t0\t0\n"
	// The default is down, and one is there to be refused.
	downed = ether + "tun0\t00000000\t00000000\t0000\t0\t0\t0\t00000000\t0\t0\t0\n" +
		"tun0\t00000000\t00000000\t0201\t0\t0\t0\t00000000\t0\t0\t0\n"

	zeros  = "00000000000000000000000000000000"
	ether6 = zeros + " 00 " + zeros + " 00 fe800000000000000000000000000001 00000400 00000001 00000000 00000003     eth0\n" +
		"fe800000000000000000000000000000 40 " + zeros + " 00 " + zeros + " 00000100 00000001 00000000 00000001     eth0\n" +
		zeros + " 00 " + zeros + " 00 " + zeros + " ffffffff 00000001 00000000 00200200       lo\n"
	sixInFour = ether6 + "20000000000000000000000000000000 03 " + zeros + " 00 " + zeros + " 00000400 00000001 00000000 00000001     sit1\n"
	multicast = ether6 + "ff000000000000000000000000000000 08 " + zeros + " 00 " + zeros + " 00000100 00000001 00000000 00000001     tun0\n"
)

// The interfaces of a machine, as sysfs tells them.
var faces = map[string]string{
	"sys/class/net/eth0/type":      "1\n",
	"sys/class/net/eth0/uevent":    "INTERFACE=eth0\nIFINDEX=2\n",
	"sys/class/net/wwan0/type":     "65534\n", // raw IP, as a tunnel's
	"sys/class/net/wwan0/uevent":   "DEVTYPE=wwan\nINTERFACE=wwan0\n",
	"sys/class/net/tun0/type":      "65534\n",
	"sys/class/net/tun0/tun_flags": "0x1001\n",
	"sys/class/net/wg0/type":       "65534\n",
	"sys/class/net/wg0/uevent":     "DEVTYPE=wireguard\nINTERFACE=wg0\n",
	"sys/class/net/ppp0/type":      "512\n",
	"sys/class/net/sit1/type":      "776\n",
	"proc/1/comm":                  "init\n",
	"proc/77/comm":                 "messenger-probe\n",
	"proc/self/comm":               "nfqws\n", // no number, no process
}

func TestClean(t *testing.T) {
	for _, c := range []struct {
		name   string
		files  map[string]string
		env    map[string]string
		source map[string]string
		why    string // "" clean
	}{
		{name: "Ethernet", files: map[string]string{"proc/net/route": ether, "proc/net/ipv6_route": ether6}, source: map[string]string{"udp4": "eth0", "udp6": "eth0"}},
		{name: "nothing to be seen"},
		{name: "no route at all", files: map[string]string{"proc/net/route": heading}},
		{name: "rubbish", files: map[string]string{"proc/net/route": "x\n\n\x00 1 2 3 4 5 6 7 8\n../.. 0 0 0003 0 0 0 00000000\n", "proc/net/ipv6_route": strings.Repeat("z ", 100)}},
		{name: "a mobile modem", files: map[string]string{"proc/net/route": strings.ReplaceAll(ether, "eth0", "wwan0")}, source: map[string]string{"udp4": "wwan0"}},
		{name: "halves", files: map[string]string{"proc/net/route": halves}, why: "IPv4 goes through a tunnel of some program"},
		{name: "a second default", files: map[string]string{"proc/net/route": second}, why: "IPv4 goes through a WireGuard tunnel"},
		{name: "a tunnel that waits", files: map[string]string{"proc/net/route": waits}, source: map[string]string{"udp4": "eth0"}},
		{name: "an office network", files: map[string]string{"proc/net/route": office}, source: map[string]string{"udp4": "eth0"}},
		{name: "routes that are down", files: map[string]string{"proc/net/route": downed}},
		{name: "a rule before the main table", files: map[string]string{"proc/net/route": ether}, source: map[string]string{"udp4": "wg0"}, why: "IPv4 goes through a WireGuard tunnel"},
		{name: "PPP over Ethernet", files: map[string]string{"proc/net/route": pppoe}, source: map[string]string{"udp4": "ppp0"}},
		{name: "PPP over another line", files: map[string]string{"proc/net/route": pptp}, why: "IPv4 goes through a tunnel over PPP"},
		{name: "IPv6 in IPv4", files: map[string]string{"proc/net/route": ether, "proc/net/ipv6_route": sixInFour}, why: "IPv6 goes through an IP tunnel"},
		{name: "multicast", files: map[string]string{"proc/net/ipv6_route": multicast}},
		{name: "no sysfs", files: map[string]string{"proc/net/route": halves, "sys/class/net/tun0/type": "", "sys/class/net/tun0/tun_flags": ""}, why: "IPv4 goes through a tunnel"},
		{name: "a tunnel by its name alone, which it is not", files: map[string]string{"proc/net/route": strings.ReplaceAll(ether, "eth0", "tunis"), "sys/class/net/tunis/type": ""}},
		{name: "a proxy", env: map[string]string{"https_proxy": "http://user:secret@10.1.2.3:3128"}, why: "a proxy is set (https_proxy)"},
		{name: "a wrapper", env: map[string]string{"LD_PRELOAD": "/usr/lib/libproxychains4.so"}, why: "connections are led through a proxy (LD_PRELOAD)"},
		{name: "another preload", env: map[string]string{"LD_PRELOAD": "/usr/lib/libjemalloc.so"}},
		{name: "a tool", files: map[string]string{"proc/1234/comm": "nfqws\n"}, why: "nfqws runs here, which bends packets around filters"},
		{name: "a tool's namesake", files: map[string]string{"proc/1234/comm": "nfqwsd\n"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			root := t.TempDir()
			files := maps.Clone(faces)
			maps.Copy(files, c.files)
			for name, text := range files {
				if text == "" {
					continue // not there
				}
				path := filepath.Join(root, name)
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			m := machine{root, func(k string) string { return c.env[k] }, func(network string) string { return c.source[network] }}
			clean, why := m.clean()
			if why != c.why || clean != (c.why == "") {
				t.Errorf("clean %v, because %q; want %q", clean, why, c.why)
			}
			for _, s := range []string{"secret", "10.1.2.3", "tun0", "wg0"} {
				if strings.Contains(why, s) {
					t.Errorf("%q tells %q", why, s)
				}
			}
		})
	}
}

// TestHere: on whatever machine this runs, an answer comes and fits.
func TestHere(t *testing.T) {
	if clean, why := Clean(); clean != (why == "") {
		t.Errorf("clean %v, because %q", clean, why)
	}
}

// What servers abroad see of a machine tells of a tunnel that it does not show.
func TestSeen(t *testing.T) {
	for _, c := range []struct {
		country, ip4, ip6 string
		clean             bool
	}{
		{"", "", "", true},
		{"RU", "", "", true},
		{"", "NL", "", true},
		{"RU", "RU", "RU", true},
		{"ru", "RU", "", true},
		{"RU", "NL", "", false},
		{"RU", "RU", "NL", false},
		{"", "RU", "NL", false},
		{"", "NL", "NL", true},
		{"", "T1", "", false},
	} {
		seen := map[string]string{}
		for f, s := range map[string]string{"ip4": c.ip4, "ip6": c.ip6} {
			if s != "" {
				seen[f] = s
			}
		}
		clean, why := Seen(c.country, seen)
		if clean != c.clean || clean != (why == "") {
			t.Errorf("%+v: clean %v, %q", c, clean, why)
		}
		if strings.Contains(why, "NL") || strings.Contains(why, "RU") {
			t.Errorf("%q names a country", why)
		}
	}
}
