package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// alone gives the test an empty home and no variables of ours.
func alone(t *testing.T) {
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	for _, kv := range os.Environ() {
		if name, _, _ := strings.Cut(kv, "="); strings.HasPrefix(name, Prefix) {
			t.Setenv(name, "")
			os.Unsetenv(name)
		}
	}
}

func write(t *testing.T, text string) string {
	t.Helper()
	p := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return p
}

func TestDefaults(t *testing.T) {
	alone(t)
	l, err := Load("", nil)
	if err != nil {
		t.Fatal(err)
	}
	want := Default()
	if d := cmp.Diff(want, l.Config); d != "" {
		t.Error(d)
	}
	for _, k := range l.Keys() {
		if k.Source != "default" {
			t.Errorf("%s comes from %s", k.Name, k.Source)
		}
	}
}

func TestPrecedence(t *testing.T) {
	alone(t)
	file := write(t, "vantage:\n  country: RU\n  isp: file\n  name: file\ninterval: 30s\nmessengers: [max]\n")
	t.Setenv("MESSENGER_PROBE_VANTAGE_ISP", "env")
	t.Setenv("MESSENGER_PROBE_VANTAGE_NAME", "env")
	t.Setenv("MESSENGER_PROBE_MESSENGERS", "telegram, max")
	t.Setenv("MESSENGER_PROBE_EXTENDED", "true")
	fs := pflag.NewFlagSet("", pflag.ContinueOnError)
	fs.String("vantage-name", "", "")
	fs.String("log-level", "info", "")
	if err := fs.Parse([]string{"--vantage-name=flag"}); err != nil {
		t.Fatal(err)
	}
	l, err := Load(file, fs)
	if err != nil {
		t.Fatal(err)
	}
	if l.Vantage != (Vantage{Name: "flag", Country: "RU", ISP: "env", Network: "unknown"}) {
		t.Errorf("vantage %+v", l.Vantage)
	}
	if d := cmp.Diff([]string{"telegram", "max"}, l.Messengers); d != "" {
		t.Error(d)
	}
	if !l.Extended || time.Duration(l.Interval) != 30*time.Second {
		t.Errorf("extended %v, interval %v", l.Extended, l.Interval)
	}
	got := map[string]string{}
	for _, k := range l.Keys() {
		got[k.Name] = k.Source
	}
	for key, want := range map[string]string{"vantage.name": "--vantage-name", "vantage.isp": "MESSENGER_PROBE_VANTAGE_ISP",
		"vantage.country": file + ":2", "interval": file + ":5", "log.level": "default"} {
		if got[key] != want {
			t.Errorf("%s comes from %s, want %s", key, got[key], want)
		}
	}
}

func TestFoundInHome(t *testing.T) {
	alone(t)
	dir := filepath.Join(os.Getenv("XDG_CONFIG_HOME"), "messenger-probe")
	os.MkdirAll(dir, 0o700)
	os.WriteFile(filepath.Join(dir, "config.yaml"), []byte("listen: 127.0.0.1:1234\n"), 0o600)
	l, err := Load("", nil)
	if err != nil || l.Listen != "127.0.0.1:1234" {
		t.Fatalf("%v, %v", l, err)
	}
}

func TestShortIntervalTakesTheTimeoutWithIt(t *testing.T) {
	alone(t)
	t.Setenv("MESSENGER_PROBE_INTERVAL", "5s")
	l, err := Load("", nil)
	if err != nil || time.Duration(l.Timeout) != 5*time.Second {
		t.Fatalf("%v, %v", l, err)
	}
}

// Every kind of bad input is refused with its place, its key and the mend.
func TestBadInput(t *testing.T) {
	tests := []struct{ name, file, env, want string }{
		{"unknown key", "intervall: 60s\n", "", `:1: unknown key "intervall"; did you mean "interval"?`},
		{"unknown nested key", "vantage:\n  contry: RU\n", "", `:2: unknown key "contry"; did you mean "country"?`},
		{"wrong type", "interval: 60s\nmessengers: telegram\n", "", ":2: messengers: a text stands where a list of names"},
		{"list for a duration", "log:\n  level: info\ninterval: [60s]\n", "", ":3: interval: not one value; write a duration with a unit"},
		{"wrong type deep down", "log:\n  level: info\n  format:\n    a: b\n", "", ":4: log.format: a mapping stands where a text belongs"},
		{"several on one line", "vantage: {name: a, country: [RU]}\n", "", ":1: vantage: a list stands where a text belongs"},
		{"all on one line", "{interval: 60s, families: ip4}\n", "", ":1: a text stands where a list of names"},
		{"number for a duration", "interval: 30\n", "", `:1: interval: "30" is no duration; write a number with a unit`},
		{"negative interval", "listen: :1\ninterval: -5s\n", "", ":2: interval: -5s is shorter than 1s"},
		{"negative timeout", "timeout: -5s\n", "", "timeout: -5s is shorter than 100ms"},
		{"timeout longer than interval", "interval: 5s\ntimeout: 20s\n", "", ":2: timeout: 20s is longer than the interval of 5s"},
		{"bad listen", "listen: localhost\n", "", `listen: "localhost" is no host:port; write host:port, such as 127.0.0.1:9770`},
		{"a URL for a host", "hosts: [http://probe.example.org]\n", "", `hosts: "http://probe.example.org" is no name; write a host name without scheme and port`},
		{"a host and a port", "hosts: [probe.example.org, 'probe.example.org:9770']\n", "", `"probe.example.org:9770" is no name`},
		{"bad port", "listen: 127.0.0.1:99999\n", "", `"99999" is no port number`},
		{"bad family", "families: [ipv4]\n", "", `families: "ipv4" is not known; write one of ip4, ip6`},
		{"no family", "families: []\n", "", "families: no address family"},
		{"no messenger", "messengers: []\n", "", "messengers: nothing to measure"},
		{"twice", "messengers: [max, max]\n", "", `"max" twice`},
		{"missing folder", "catalogue: /nowhere/at/all\n", "", "write the path of a folder"},
		{"unreadable CA", "trust:\n  ca_file: /nowhere/ca.pem\n", "", ":2: trust.ca_file: open /nowhere/ca.pem: no such file"},
		{"short key", "trust:\n  whatsapp_noise_root: abcd\n", "", "write the 64 hex digits"},
		{"bad country", "vantage:\n  country: Russia\n", "", "write two capital letters"},
		{"bad network", "vantage:\n  network: home\n", "", "datacenter, residential, mobile, unknown"},
		{"bad split", "split_hello: maybe\n", "", `split_hello: "maybe" is not known; write one of auto, always, never`},
		{"bad log level", "log:\n  level: loud\n", "", "debug, info, warn, error"},
		{"comparator without URL", "comparators:\n- name: de\n", "", "comparators[0].url"},
		{"not a mapping", "- a\n", "", ":1: a configuration is a mapping"},
		{"broken YAML", "interval: [\n", "", "yaml"},
		{"two documents", "interval: 60s\n---\ninterval: 30s\n", "", "more than one YAML document"},
		{"unknown variable", "", "MESSENGER_PROBE_INTERVALL=60s", "MESSENGER_PROBE_INTERVALL: unknown variable; did you mean MESSENGER_PROBE_INTERVAL?"},
		{"bad variable", "", "MESSENGER_PROBE_INTERVAL=60", `MESSENGER_PROBE_INTERVAL: interval: "60" is no duration`},
		{"bad bool", "", "MESSENGER_PROBE_EXTENDED=maybe", "MESSENGER_PROBE_EXTENDED: extended:"},
		{"comparators in a variable", "", "MESSENGER_PROBE_COMPARATORS=x", "put it into the configuration file"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			alone(t)
			file := ""
			if tt.file != "" {
				file = write(t, tt.file)
			}
			if name, value, ok := strings.Cut(tt.env, "="); ok {
				t.Setenv(name, value)
			}
			l, err := Load(file, nil)
			if err == nil {
				t.Fatalf("accepted: %+v", l.Config)
			}
			if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("said %q\nwant  %q", err, tt.want)
			}
			if file != "" && !strings.HasPrefix(err.Error(), file) {
				t.Errorf("%q does not name the file", err)
			}
		})
	}
}

// In Russia no ClientHello is cut in two unless it is asked for.
func TestSplitHello(t *testing.T) {
	for file, want := range map[string]bool{
		"":                         true,
		"vantage: {country: KZ}\n": true,
		"vantage: {country: RU}\n": false,
		"split_hello: never\n":     false,
		"vantage: {country: RU}\nsplit_hello: always\n": true,
	} {
		alone(t)
		l, err := Load(write(t, file), nil)
		if err != nil {
			t.Fatal(err)
		}
		if l.SplitsHello() != want {
			t.Errorf("%q: %v, want %v", file, !want, want)
		}
	}
}

func TestSizes(t *testing.T) {
	alone(t)
	if _, err := Load(write(t, ""), nil); err != nil {
		t.Errorf("an empty file is a file without wishes: %v", err)
	}
	if _, err := Load(write(t, "# "+strings.Repeat("x", 10<<20)), nil); err == nil || !strings.Contains(err.Error(), "1 MiB") {
		t.Errorf("10 MB: %v", err)
	}
	if _, err := Load("/nowhere/config.yaml", nil); err == nil || !strings.Contains(err.Error(), "/nowhere/config.yaml") {
		t.Errorf("missing: %v", err)
	}
}

func TestSecretsAreMasked(t *testing.T) {
	alone(t)
	l, err := Load(write(t, "comparators:\n- name: de\n  url: https://user:hush@probe.example.org\n"), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range l.Keys() {
		if strings.Contains(k.Value, "hush") {
			t.Errorf("%s shows %s", k.Name, k.Value)
		}
	}
}

const people = `notify:
  on: [blocked, degraded]
  language: ru
  targets:
  - name: phone
    type: ntfy
    url: https://ntfy.sh/hush
    token_env: MESSENGER_PROBE_NTFY_TOKEN
  - {name: bot, type: telegram, chat: -1001234567890123, token_file: TOKEN, url: http://127.0.0.1:8081, proxy: socks5://127.0.0.1:1080}
  - {name: mail, type: smtp, server: "mail.example.org:587", from: a@example.org, to: [b@example.org], username: a, password_file: TOKEN}
  - {name: hook, type: webhook, url_file: TOKEN}
`

// All that can be said of targets is read; what is secret is not shown, and a
// variable that holds a secret may begin like ours.
func TestNotify(t *testing.T) {
	alone(t)
	t.Setenv("MESSENGER_PROBE_NTFY_TOKEN", "hush")
	secret := write(t, "hush\n")
	l, err := Load(write(t, strings.ReplaceAll(people, "file: TOKEN", "file: "+secret)), nil)
	if err != nil {
		t.Fatal(err)
	}
	want := Notify{On: []string{"blocked", "degraded"}, Language: "ru", Targets: []Target{
		{Name: "phone", Type: "ntfy", URL: "https://ntfy.sh/hush", TokenEnv: "MESSENGER_PROBE_NTFY_TOKEN"},
		{Name: "bot", Type: "telegram", Chat: "-1001234567890123", TokenFile: "TOKEN", URL: "http://127.0.0.1:8081", Proxy: "socks5://127.0.0.1:1080"},
		{Name: "mail", Type: "smtp", Server: "mail.example.org:587", From: "a@example.org", To: []string{"b@example.org"}, Username: "a", PasswordFile: secret},
		{Name: "hook", Type: "webhook", URLFile: secret},
	}}
	want.Targets[1].TokenFile = secret
	if d := cmp.Diff(want, l.Notify); d != "" {
		t.Error(d)
	}
	for _, k := range l.Keys() {
		if strings.Contains(k.Value, "hush") {
			t.Errorf("%s shows %s", k.Name, k.Value)
		}
		if k.Name == "notify.targets" && k.Value != "[phone=ntfy://ntfy.sh bot=telegram://127.0.0.1:8081 mail=smtp://mail.example.org:587 hook=webhook]" {
			t.Errorf("shown as %s", k.Value)
		}
	}
}

func TestBadTargets(t *testing.T) {
	const ntfy = "notify:\n  targets:\n  - name: phone\n    type: ntfy\n"
	for _, c := range []struct{ name, file, want string }{
		{"unknown key", "notify:\n  langauge: ru\n", `:2: unknown key "langauge"; did you mean "language"?`},
		{"unknown key of a target", ntfy + "    tokenfile: x\n", `:5: unknown key "tokenfile"; did you mean "token_file"?`},
		{"language", "notify: {language: de}\n", `:1: notify.language: "de" is not known; write one of en, ru`},
		{"on", "notify: {on: [ok]}\n", `:1: notify.on: "ok" is not known`},
		{"on nothing", "notify: {on: []}\n", "notify.on: nothing to tell"},
		{"on twice", "notify: {on: [blocked, blocked]}\n", `"blocked" twice`},
		{"type", "notify:\n  targets:\n  - name: x\n    type: pigeon\n", `:4: notify.targets[0].type: "pigeon" is not known; write one of webhook, ntfy, telegram, smtp`},
		{"no type", "notify:\n  targets:\n  - name: x\n", `:3: notify.targets[0].type: "" is not known`},
		{"no name", "notify:\n  targets:\n  - type: ntfy\n    url: https://ntfy.sh/x\n", `:3: notify.targets[0].name: "" is no name`},
		{"two of a name", ntfy + "    url: https://ntfy.sh/x\n  - {name: phone, type: ntfy, url: 'https://ntfy.sh/y'}\n", `:6: notify.targets[1].name: "phone" twice`},
		{"missing", ntfy, ":3: notify.targets[0].url: missing; a target of type ntfy needs url or url_file or url_env"},
		{"two of a kind", ntfy + "    url: https://ntfy.sh/x\n    url_env: X\n", ":6: notify.targets[0].url_env: stands beside url; write one of them"},
		{"a stranger", ntfy + "    url: https://ntfy.sh/x\n    chat: \"1\"\n", ":6: notify.targets[0].chat: is not for a target of type ntfy; it knows"},
		{"no file", ntfy + "    url_file: /nowhere/x\n", ":5: notify.targets[0].url_file: open /nowhere/x: no such file"},
		{"no variable", ntfy + "    url_env: NOT_SET_AT_ALL\n", ":5: notify.targets[0].url_env: the variable that it names is not set"},
		{"a secret for a name", ntfy + "    url_env: https://ntfy.sh/hush\n", ":5: notify.targets[0].url_env: is no name of a variable"},
		{"chat", "notify:\n  targets:\n  - {name: x, type: telegram, token_file: /dev/null, chat: me}\n", `notify.targets[0].chat: "me" is no chat`},
		{"half a login", "notify:\n  targets:\n  - {name: x, type: smtp, server: 'a:25', from: a@b, to: [c@d], username: me}\n", ":3: notify.targets[0].username: a login needs both"},
		{"a variable of ours", "", "MESSENGER_PROBE_NOTIFY_TARGETS: a list of notify.targets cannot be written in a variable"},
	} {
		t.Run(c.name, func(t *testing.T) {
			alone(t)
			file := ""
			if c.file != "" {
				file = write(t, c.file)
			} else {
				t.Setenv("MESSENGER_PROBE_NOTIFY_TARGETS", "x")
			}
			_, err := Load(file, nil)
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "hush") {
				t.Errorf("said %v\nwant %q", err, c.want)
			}
		})
	}
}

func FuzzLoad(f *testing.F) {
	f.Add("interval: 60s\nvantage: {country: RU}\n")
	f.Add("comparators: [{name: a, url: 'http://a'}]\n")
	f.Add("a: &a [*a, *a]\n")
	f.Add(people)
	f.Fuzz(func(t *testing.T, text string) {
		p := filepath.Join(t.TempDir(), "c.yaml")
		if os.WriteFile(p, []byte(text), 0o600) == nil {
			Load(p, nil)
		}
	})
}
