package targets

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/messenger-probe/messenger-probe/probe"
)

var update = flag.Bool("update", false, "rewrite testdata/checks.golden")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// embeddedOnly is the built-in catalogue.
func embeddedOnly(t testing.TB) *Catalogue {
	t.Helper()
	c, err := Load("")
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// silent is a resolver that nothing in these tests may ask.
type silent struct{}

func (silent) Lookup(context.Context, probe.Net, string, string) probe.Step {
	panic("asked")
}

// usual is a vantage as the default configuration makes it.
func usual() Vantage {
	return Vantage{
		Messengers:    []string{"whatsapp", "telegram", "max"},
		Families:      []string{probe.IP4, probe.IP6},
		Interval:      time.Minute,
		Timeout:       10 * time.Second,
		Resolver:      silent{},
		SystemServers: []probe.Server{{Name: "system", Transport: probe.OverUDP, Addr: netip.MustParseAddrPort("192.0.2.53:53")}},
	}
}

// The default measures every function that the contract names.
func TestDefaultFunctions(t *testing.T) {
	checks, err := embeddedOnly(t).Checks(usual())
	if err != nil {
		t.Fatal(err)
	}
	have := map[string]bool{}
	for _, c := range checks {
		have[c.Messenger+" "+c.Function] = true
	}
	want := []string{"whatsapp login", "telegram bots", "max bots"}
	for _, m := range []string{"whatsapp", "telegram", "max"} {
		for _, f := range []string{"chat", "calls", "media", "web"} {
			want = append(want, m+" "+f)
		}
	}
	for _, r := range Roles {
		want = append(want, "control "+r)
	}
	for _, w := range want {
		if !have[w] {
			t.Errorf("nothing measures %s", w)
		}
	}
}

func TestGoldenChecks(t *testing.T) {
	checks, err := embeddedOnly(t).Checks(usual())
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	b.WriteString("# The checks of the default configuration: ID, intervals between runs, i where\n" +
		"# informational. Those of a name's second and further addresses are left out.\n")
	for _, c := range checks {
		if by, ok := c.Prober.(probe.ByName); ok && by.Slot > 0 {
			continue
		}
		fmt.Fprintf(&b, "%s %d", c.ID(), c.Interval/time.Minute)
		if c.Informational {
			b.WriteString(" i")
		}
		b.WriteString("\n")
	}
	const golden = "testdata/checks.golden"
	if *update {
		if err := os.WriteFile(golden, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(b.String(), "\n")); d != "" {
		t.Errorf("checks differ from %s; run go test ./targets -update if that is meant:\n%s", golden, d)
	}
}

// Each messenger can be measured, in every tier, and no check is malformed.
func TestEveryMessenger(t *testing.T) {
	c := embeddedOnly(t)
	label := regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,62}$`)
	for _, name := range c.Names() {
		v := usual()
		v.Messengers, v.Tiers = []string{name}, Tiers
		checks, err := c.Checks(v)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for _, k := range checks {
			for _, l := range []string{k.Messenger, k.Function, k.Endpoint, k.Protocol, k.Family} {
				if _, err := netip.ParseAddr(l); err == nil || !label.MatchString(l) || quadForm.MatchString(l) {
					t.Errorf("%s: %q is no label", k.ID(), l)
				}
			}
			if k.Timeout <= 0 || k.Timeout > k.Interval || k.Interval%v.Interval != 0 || k.Path == "" {
				t.Errorf("%s: interval %v, timeout %v, path %q", k.ID(), k.Interval, k.Timeout, k.Path)
			}
			if (k.Of != "") != (k.Function == probe.Sibling) || (k.Mechanism != "") != (k.Function == probe.Positive) {
				t.Errorf("%s: of %q, mechanism %q", k.ID(), k.Of, k.Mechanism)
			}
			if cost(k.Prober) <= 0 {
				t.Errorf("%s: costs nothing", k.ID())
			}
		}
	}
}

// An entry that says nothing of where it comes from cannot be trusted later.
func TestSourced(t *testing.T) {
	c := embeddedOnly(t)
	for _, m := range c.Messengers {
		for _, e := range m.Endpoints {
			if len(e.Source) == 0 || e.Confirmed.IsZero() || slices.Contains(e.Source, "") {
				t.Errorf("%s %s: source %q, confirmed %v", m.Name, e.Name, e.Source, e.Confirmed)
			}
		}
	}
	for _, r := range c.Resolvers {
		if len(r.Source) == 0 || r.Confirmed.IsZero() {
			t.Errorf("resolver %s: source %q, confirmed %v", r.Name, r.Source, r.Confirmed)
		}
	}
}

// A positive control is asked from people's homes: no name of Meta's.
func TestPositiveControls(t *testing.T) {
	m, _ := embeddedOnly(t).Messenger(probe.Control)
	meta := regexp.MustCompile(`facebook|instagram|messenger\.com|threads|whatsapp|fbcdn`)
	for _, e := range m.Endpoints {
		if meta.MatchString(e.Host + e.ServerName) {
			t.Errorf("%s asks for %s", e.Name, e.Host)
		}
	}
}

// Who says that an endpoint answers decides whether its silence counts; of an
// authority that is not known whole, whether a refused chain does.
func TestInformational(t *testing.T) {
	checks, err := embeddedOnly(t).Checks(usual())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		messenger, endpoint, protocol string
		want                          bool
	}{
		{"whatsapp", "web", probe.ProtoQUIC, true}, // h3 unverified
		{"whatsapp", "web", probe.ProtoTLS, false},
		{"whatsapp", "relay", probe.ProtoSTUN, true}, // no token
		{"telegram", "relay-eu", probe.ProtoSTUN, false},
		{"max", "api2", probe.ProtoTLS, false},
		{"control", "www.google.com", probe.ProtoQUIC, false},
		{"control", "dns-national", probe.ProtoDNS, true},
	} {
		n := 0
		for _, k := range checks {
			if k.Messenger == c.messenger && k.Endpoint == c.endpoint && k.Protocol == c.protocol {
				if n++; k.Informational != c.want {
					t.Errorf("%s: informational %v", k.ID(), k.Informational)
				}
				if pinned := c.endpoint == "api2"; k.Private != pinned {
					t.Errorf("%s: private %v", k.ID(), k.Private)
				}
			}
		}
		if n == 0 {
			t.Errorf("no check of %s %s by %s", c.messenger, c.endpoint, c.protocol)
		}
	}
}

// Two processes, or one before and after a reload, measure the same.
func TestDeterministic(t *testing.T) {
	var before []string
	for range 3 {
		c := embeddedOnly(t)
		checks, err := c.Checks(usual())
		if err != nil {
			t.Fatal(err)
		}
		ids := []string{c.Version}
		for _, k := range checks {
			ids = append(ids, k.ID())
		}
		if before != nil && !slices.Equal(before, ids) {
			t.Fatal("the order differs")
		}
		before = ids
	}
}

func TestVantageErrors(t *testing.T) {
	c := embeddedOnly(t)
	for _, tc := range []struct {
		change func(*Vantage)
		want   string
	}{
		{func(v *Vantage) { v.Messengers = []string{"telegramm"} }, `messengers: "telegramm" is not in the catalogue; did you mean telegram?`},
		{func(v *Vantage) { v.Messengers = []string{"icq"} }, `messengers: "icq" is not in the catalogue; known are discord, facetime, max, signal, telegram, viber, vk, whatsapp`},
		{func(v *Vantage) { v.Messengers = []string{"control"} }, `messengers: "control" is not in the catalogue; known are discord,`},
		{func(v *Vantage) { v.Messengers = []string{"max", "max"} }, `messengers: max is there twice; keep one`},
		{func(v *Vantage) { v.Messengers = nil }, `messengers: none; known are`},
		{func(v *Vantage) { v.Tiers = []string{"cores"} }, `tiers: "cores" is unknown; did you mean core?`},
		{func(v *Vantage) { v.Families = []string{"ip5"} }, `families: "ip5" is unknown; did you mean ip4?`},
		{func(v *Vantage) { v.Families = nil }, `families: none; one or both of ip4, ip6`},
		{func(v *Vantage) { v.Interval = -time.Second }, `interval, timeout: both must be longer than nothing`},
		{func(v *Vantage) { v.Messengers, v.Tiers = []string{"viber", "vk"}, []string{"optional"} },
			"messengers: viber has no endpoint in tiers [optional] and families [ip4 ip6]; add the tier extended, or endpoints\nmessengers: vk has no endpoint"},
	} {
		v := usual()
		tc.change(&v)
		checks, err := c.Checks(v)
		if err == nil || !strings.HasPrefix(err.Error(), tc.want) || checks != nil {
			t.Errorf("%v (%d checks)\nwant %s", err, len(checks), tc.want)
		}
	}
}

// One address asked for the same thing by one endpoint twice would be one
// series with two truths.
func TestDistinct(t *testing.T) {
	x := expansion{checks: []probe.Check{{Endpoint: "a"}, {Endpoint: "b"}, {Endpoint: "a"}}}
	if err := x.distinct(); err == nil || !strings.Contains(err.Error(), "//a///") {
		t.Error(err)
	}
}

func TestFamilies(t *testing.T) {
	v := usual()
	v.Families = []string{probe.IP6}
	checks, err := embeddedOnly(t).Checks(v)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range checks {
		switch p := c.Prober.(type) {
		case probe.DNS:
			if c.Target != "udp,system" && p.Server.Addr.Addr().Is4() {
				t.Errorf("%s asks %v", c.ID(), p.Server.Addr)
			}
		default:
			if c.Family != probe.IP6 {
				t.Errorf("%s is of %s", c.ID(), c.Family)
			}
		}
	}
}

// Members of a pool take turns, two in an interval.
func TestPool(t *testing.T) {
	checks, err := embeddedOnly(t).Checks(usual())
	if err != nil {
		t.Fatal(err)
	}
	runs := 0.0
	for _, c := range checks {
		if by, ok := c.Prober.(probe.ByName); ok && c.Protocol == probe.ProtoNoise && by.Slot == 0 && by.Port == 443 && strings.HasPrefix(c.Endpoint, "e") {
			runs += float64(time.Minute) / float64(c.Interval)
		}
	}
	if runs != 2 {
		t.Errorf("%v of the pool e run in an interval", runs)
	}
}

func TestPath(t *testing.T) {
	for _, tc := range []struct{ addr, want string }{
		{"149.154.175.50", "149.154.160.0/20"},
		{"2001:67c:4e8:f002::a", "2001:67c:400::/40"},
	} {
		if got := pathOf(netip.MustParseAddr(tc.addr)); got != tc.want {
			t.Errorf("%s: %s", tc.addr, got)
		}
	}
	for _, tc := range []struct{ host, want string }{{"e1.whatsapp.net", "whatsapp.net"}, {"max.ru", "max.ru"}, {"a.b.example.co.uk", "example.co.uk"}} {
		if got := domainOf(tc.host); got != tc.want {
			t.Errorf("%s: %s", tc.host, got)
		}
	}
}

// Every file in testdata/invalid is refused with the lines of its head: each a
// line number where there is one, and how the error goes on.
func TestInvalid(t *testing.T) {
	files, err := filepath.Glob("testdata/invalid/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal(err)
	}
	for _, name := range files {
		t.Run(filepath.Base(name), func(t *testing.T) {
			data, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			var want []string
			for line := range strings.Lines(string(data)) {
				text, ok := strings.CutPrefix(line, "# ")
				if !ok {
					break
				}
				sep := ": "
				if text[0] >= '0' && text[0] <= '9' {
					sep = ":"
				}
				want = append(want, name+sep+strings.TrimSuffix(text, "\n"))
			}
			err = Validate(name)
			if err == nil {
				t.Fatal("accepted")
			}
			got := strings.Split(err.Error(), "\n")
			if len(got) != len(want) {
				t.Fatalf("%d errors, want %d:\n%v", len(got), len(want), err)
			}
			for i := range want {
				if !strings.HasPrefix(got[i], want[i]) {
					t.Errorf("got  %s\nwant %s", got[i], want[i])
				}
			}
		})
	}
}

// Files that cannot be read as a catalogue at all.
func TestUnreadable(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return p
	}
	fifo := filepath.Join(dir, "fifo.yaml")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	head := "messenger: example\ntitle: Example\nendpoints:\n"
	for _, tc := range []struct{ file, want string }{
		{write("empty.yaml", ""), "empty.yaml: the file is empty; it should start with"},
		{write("blank.yaml", " \n\n"), "blank.yaml: the file is empty;"},
		{write("comment.yaml", "# nothing\n"), "comment.yaml: the file is empty;"},
		{write("large.yaml", head+strings.Repeat("#", 10<<20)), "large.yaml: the file is larger than 1024 KiB"},
		{write("bomb.yaml", head+"  - &a {name: a, source: ["+strings.Repeat("x,", 10000)+"x]}\n"+strings.Repeat("  - *a\n", 5000)), "too much: aliases that multiply, or lists too deep"},
		{write("merges.yaml", merges(40)), "too much: aliases that multiply, or lists too deep"},
		{write("cycle.yaml", head+"  - &a {<<: *a, name: a}\n"), "too much: aliases that multiply, or lists too deep"},
		{write("deep.yaml", strings.Repeat("[", 100_000)), "not YAML: "},
		{write("binary.yaml", "\x00\x01\xff\xfe"), "not YAML: "},
		{write("crowd.yaml", crowd(5001)), "more than 5000 endpoints"},
		{fifo, "not a regular file"},
		{filepath.Join(dir, "absent.yaml"), "no such file"},
		{dir, "not a regular file"},
	} {
		start := time.Now()
		err := Validate(tc.file)
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %.300v\nwant %s", tc.file, err, tc.want)
		}
		if took := time.Since(start); took > 5*time.Second {
			t.Errorf("%s: took %v", tc.file, took)
		}
	}
}

// merges is n entries, each with the one before merged in twice.
func merges(n int) string {
	var b strings.Builder
	b.WriteString("messenger: example\ntitle: Example\nendpoints:\n  - &a0 {name: a0}\n")
	for i := 1; i < n; i++ {
		fmt.Fprintf(&b, "  - &a%d {<<: *a%d, <<: *a%d, name: a%d}\n", i, i-1, i-1, i)
	}
	return b.String()
}

// crowd is n endpoints, in a few bytes each.
func crowd(n int) string {
	var b strings.Builder
	b.WriteString("messenger: example\ntitle: Example\nendpoints:\n" +
		"  - &a {name: a, function: web, tier: core, host: a.example.com, ports: [443], checks: [tcp], confidence: high, source: [x], confirmed: 2026-08}\n")
	for i := 1; i < n; i++ {
		fmt.Fprintf(&b, "  - {<<: *a, name: a%d}\n", i)
	}
	return b.String()
}

func TestFolder(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "with[odd]*name")
	if _, err := Load(dir); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(dir); err == nil || !strings.Contains(err.Error(), "no *.yaml file in this folder") {
		t.Error(err)
	}
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// One endpoint replaced as a whole, one added, one resolver replaced.
	write("a.yaml", `messenger: telegram
endpoints:
  - {name: dc1, function: chat, tier: optional, addresses: [9.9.9.9], ports: [1], checks: [tcp], confidence: high, source: [me], confirmed: 2026-12}
  - {name: dc9, function: chat, tier: core, addresses: [9.9.9.10], ports: [2], checks: [tcp], confidence: high, source: [me], confirmed: 2026-01}
`)
	write("b.yaml", `resolvers:
  - {name: quad9, group: foreign, addresses: [9.9.9.11], known: example.org, source: [me], confirmed: 2026-01}
`)
	write("ignored.yml", "[")
	c, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	built := embeddedOnly(t)
	if c.Version == built.Version || !strings.HasPrefix(c.Version, "2026-12-") {
		t.Errorf("version %s, embedded %s", c.Version, built.Version)
	}
	m, _ := c.Messenger("telegram")
	old, _ := built.Messenger("telegram")
	if m.Title != "Telegram" || len(m.Endpoints) != len(old.Endpoints)+1 {
		t.Errorf("%s has %d endpoints, embedded %d", m.Title, len(m.Endpoints), len(old.Endpoints))
	}
	i := slices.IndexFunc(m.Endpoints, func(e Endpoint) bool { return e.Name == "dc1" })
	if e := m.Endpoints[i]; e.Tier != "optional" || len(e.Addresses) != 1 || e.DC != 0 || e.Note != "" {
		t.Errorf("%+v", e)
	}
	i = slices.IndexFunc(c.Resolvers, func(r Resolver) bool { return r.Name == "quad9" })
	if r := c.Resolvers[i]; r.Known != "example.org" || r.DoH != "" || len(c.Resolvers) != len(built.Resolvers) {
		t.Errorf("%+v", r)
	}

	// One bad file: nothing of any is applied, and all that is wrong is told.
	write("c.yaml", "messenger: vk\nendpoints: []\n")
	write("d.yaml", "")
	c, err = Load(dir)
	if c != nil || err == nil || !strings.Contains(err.Error(), "c.yaml:2: endpoints: missing") || !strings.Contains(err.Error(), "d.yaml: the file is empty") {
		t.Error(c, err)
	}
}

func TestList(t *testing.T) {
	rows := embeddedOnly(t).List()
	n := 0
	for _, m := range embeddedOnly(t).Messengers {
		n += len(m.Endpoints)
	}
	if len(rows) != n {
		t.Errorf("%d rows of %d endpoints", len(rows), n)
	}
	i := slices.IndexFunc(rows, func(r Row) bool { return r.Messenger == "whatsapp" && r.Endpoint == "accelerator" })
	want := Row{
		Messenger: "whatsapp", Function: "chat", Endpoint: "accelerator", Tier: "core", Where: "15.197.206.217 +3",
		Addresses: []string{"15.197.206.217", "3.33.252.61", "15.197.210.208", "3.33.221.48"},
		Ports:     []uint16{443, 5222}, Checks: []string{"tcp", "noise"}, Confidence: "high", Confirmed: "2025-12",
		Source: []string{"decompiled Android app, table of built-in addresses", "HybridNetworks/whatsapp-cidr WhatsApp/whatsapp_cidr_ipv4.txt", "ntop/nDPI src/lib/inc_generated/ndpi_whatsapp_match.c.inc"},
	}
	if d := cmp.Diff(want, rows[i]); d != "" {
		t.Error(d)
	}
	order := map[string]int{}
	for _, r := range rows {
		f := slices.Index(slices.Concat(Functions, Roles), r.Function)
		if f < order[r.Messenger] {
			t.Errorf("%s %s is out of order", r.Messenger, r.Endpoint)
		}
		order[r.Messenger] = f
	}
}

// The default stays below the 500 MB a day that a volunteer is promised, on a
// host with both address families.
func TestEstimate(t *testing.T) {
	one := []probe.Check{{Interval: time.Minute, Prober: probe.TCP{}}}
	if got := EstimateBytes(one); got != 1440*bytesTCP {
		t.Error(got)
	}
	checks, err := embeddedOnly(t).Checks(usual())
	if err != nil {
		t.Fatal(err)
	}
	if mb := EstimateBytes(checks) / 1e6; mb >= 500 {
		t.Errorf("%d MB a day", mb)
	}
	v := usual()
	v.Interval = 5 * time.Minute
	if checks, err = embeddedOnly(t).Checks(v); err != nil {
		t.Fatal(err)
	}
	if mb := EstimateBytes(checks) / 1e6; mb >= 100 {
		t.Errorf("%d MB a day at 5 m", mb)
	}
}

// Whoever adds a check is told what belongs to it: its protocol is a label that
// is known, and its bytes are in the estimate.
func TestKinds(t *testing.T) {
	v := usual()
	for name, k := range kinds {
		if !slices.Contains(probe.Protocols[:], k.protocol) {
			t.Errorf("%s: the protocol %q is not in probe.Protocols", name, k.protocol)
		}
		if k.asks == nil {
			continue // dns: resolvers are asked, see names.go
		}
		for _, q := range k.asks(&Endpoint{Host: "a.example", Transports: k.transports}, &v) {
			if cost(q.ask) <= 0 {
				t.Errorf("%s: the estimate in cost.go knows no bytes of %T", name, q.ask)
			}
		}
	}
}

func FuzzLoad(f *testing.F) {
	files, err := read("")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		f.Add(file.data)
	}
	invalid, err := filepath.Glob("testdata/invalid/*.yaml")
	if err != nil {
		f.Fatal(err)
	}
	for _, name := range invalid {
		data, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := build([]file{{"fuzz.yaml", data}})
		if err != nil {
			var at *Error
			if c != nil || !errors.As(err, &at) || at.File != "fuzz.yaml" || at.Text == "" {
				t.Fatalf("%v, %#v", c, err)
			}
			return
		}
		v := usual()
		v.Messengers, v.Tiers = c.Names(), Tiers
		checks, err := c.Checks(v)
		if err == nil && len(checks) == 0 {
			t.Fatal("nothing to measure, and no error")
		}
	})
}

// A name of texts is asked for them, once for each resolver and way, whatever
// the families; it is never taken for a name of addresses.
func TestRecord(t *testing.T) {
	c, err := Load("")
	if err != nil {
		t.Fatal(err)
	}
	checks, err := c.Checks(Vantage{Messengers: []string{"telegram"}, Tiers: Tiers, Families: []string{probe.IP4, probe.IP6},
		Interval: time.Minute, Timeout: 10 * time.Second, SystemServers: []probe.Server{{Name: probe.System, Transport: probe.OverUDP, Addr: netip.MustParseAddrPort("127.0.0.53:53")}}})
	if err != nil {
		t.Fatal(err)
	}
	hosts := map[string]int{}
	for _, ch := range checks {
		if !strings.HasPrefix(ch.Endpoint, "bootstrap-text") {
			continue
		}
		d, ok := ch.Prober.(probe.DNS)
		if !ok || d.Type != typeTXT || ch.Family != probe.IP4 {
			t.Errorf("%s: %+v", ch.ID(), ch.Prober)
		}
		hosts[d.Host]++
	}
	if hosts["apv3.stel.com"] < 3 || hosts["apv3.stel.com"] != hosts["tapv3.stel.com"] {
		t.Errorf("asked: %v", hosts)
	}

	// An endpoint of one family alone is asked, too.
	m, _ := c.Messenger("telegram")
	for i := range m.Endpoints {
		if m.Endpoints[i].Record != "" {
			m.Endpoints[i].Families = []string{probe.IP6}
		}
	}
	checks, err = c.Checks(Vantage{Messengers: []string{"telegram"}, Tiers: Tiers, Families: []string{probe.IP4, probe.IP6},
		Interval: time.Minute, Timeout: 10 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(checks, func(ch probe.Check) bool { return ch.Endpoint == "bootstrap-text" }) {
		t.Error("of one family alone it is not asked")
	}
}
