// Package config is the agent's configuration: defaults, under a YAML file,
// under the environment, under flags. It is the only place that knows viper.
//
// Unknown keys are errors, in the file and in the environment. Every error
// names the place (file and line, variable or flag), the key and the mend, and
// nothing is half-applied: Load returns a whole configuration or none.
package config

import (
	"encoding"
	"fmt"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"time"
)

// Config is the effective configuration. Field tags are the keys of the file.
type Config struct {
	Vantage     Vantage      `yaml:"vantage"`
	Listen      string       `yaml:"listen"`     // host:port of the page and /metrics
	Hosts       []string     `yaml:"hosts"`      // more names by which the agent may be asked for
	WebConfig   string       `yaml:"web_config"` // exporter-toolkit file, "" none
	Messengers  []string     `yaml:"messengers"` // names in the catalogue
	Extended    bool         `yaml:"extended"`   // measure the extended tier too
	Catalogue   string       `yaml:"catalogue"`  // folder laid over the embedded catalogue, "" none
	Interval    Duration     `yaml:"interval"`   // base period of a core check
	Timeout     Duration     `yaml:"timeout"`    // deadline of one check
	Families    []string     `yaml:"families"`   // ip4, ip6
	TransferMB  int          `yaml:"transfer_mb_per_day"`
	SplitHello  string       `yaml:"split_hello"`
	StateDir    string       `yaml:"state_dir"` // "" keeps state in memory only
	Trust       Trust        `yaml:"trust"`
	Comparators []Comparator `yaml:"comparators"`
	Notify      Notify       `yaml:"notify"`
	Landlock    bool         `yaml:"landlock"` // give up all files but its own
	Log         Log          `yaml:"log"`
}

// Vantage is what the operator says of the place. Nothing else about it is
// ever exported.
type Vantage struct {
	Name        string `yaml:"name"`
	Country     string `yaml:"country"`     // ISO 3166-1 alpha-2
	Subdivision string `yaml:"subdivision"` // ISO 3166-2
	ISP         string `yaml:"isp"`
	ASN         string `yaml:"asn"`
	Network     string `yaml:"network"` // datacenter, residential, mobile, unknown
}

// Trust changes which certificates and keys are believed.
type Trust struct {
	CAFile            string `yaml:"ca_file"`
	WhatsAppNoiseRoot string `yaml:"whatsapp_noise_root"` // 64 hex digits
}

// Comparator is an agent abroad.
type Comparator struct {
	Name      string `yaml:"name"`
	URL       string `yaml:"url"`
	CAFile    string `yaml:"ca_file"`
	TokenFile string `yaml:"token_file"`
}

// Notify is who is told of blocks and recoveries.
type Notify struct {
	On       []string `yaml:"on"`       // bad states that are told; recoveries from them always are
	Language string   `yaml:"language"` // en, ru
	Targets  []Target `yaml:"targets"`
}

// Target is where messages go. Nothing that is secret is written here: it is
// read from a file, or from a variable whose name is given.
type Target struct {
	Name         string   `yaml:"name"`
	Type         string   `yaml:"type"` // webhook, ntfy, telegram, smtp
	URL          string   `yaml:"url"`
	URLFile      string   `yaml:"url_file"`
	URLEnv       string   `yaml:"url_env"`
	TokenFile    string   `yaml:"token_file"`
	TokenEnv     string   `yaml:"token_env"`
	Chat         string   `yaml:"chat"`
	Server       string   `yaml:"server"`
	From         string   `yaml:"from"`
	To           []string `yaml:"to"`
	Username     string   `yaml:"username"`
	PasswordFile string   `yaml:"password_file"`
	PasswordEnv  string   `yaml:"password_env"`
	Proxy        string   `yaml:"proxy"`
	CAFile       string   `yaml:"ca_file"`
}

// Log is where and how much the agent tells.
type Log struct {
	Level  string `yaml:"level"`  // debug, info, warn, error
	Format string `yaml:"format"` // text, json
}

// SplitsHello says whether a ClientHello may be cut in two to see whether its
// name is what dies. Filters that do not reassemble are passed so, which Russia
// takes for a way around them; there it has to be asked for.
func (c *Config) SplitsHello() bool {
	return c.SplitHello == "always" || c.SplitHello == "auto" && c.Vantage.Country != "RU"
}

// Duration is a time.Duration that is only read from text with a unit: the
// number 30 would otherwise be 30 nanoseconds.
type Duration time.Duration

var _ encoding.TextUnmarshaler = (*Duration)(nil)

// UnmarshalText reads what time.ParseDuration does.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	if err != nil {
		return fmt.Errorf("%q is no duration; write a number with a unit, such as 30s or 5m", b)
	}
	*d = Duration(v)
	return nil
}

// MarshalText writes 1m0s as 1m.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

func (d Duration) String() string {
	s := time.Duration(d).String()
	for _, zero := range []string{"m0s", "h0m"} {
		if len(s) > len(zero) && s[len(s)-len(zero):] == zero {
			s = s[:len(s)-2]
		}
	}
	return s
}

// WhatsAppNoiseRoot is WhatsApp's published root key for the certificate
// chain of its Noise handshake (tulir/whatsmeow handshake.go, WACertPubKey).
const WhatsAppNoiseRoot = "142375574d0a587166aae71ebe516437c4a28b73e3695c6ce1f7f9545da8ee6b"

// Default is the configuration of an agent that was told nothing.
func Default() Config {
	return Config{
		Vantage:    Vantage{Network: "unknown"},
		Listen:     "127.0.0.1:9770",
		Messengers: []string{"whatsapp", "telegram", "max"},
		Interval:   Duration(60 * time.Second),
		Timeout:    Duration(10 * time.Second),
		Families:   []string{"ip4", "ip6"},
		TransferMB: 250,
		Trust:      Trust{WhatsAppNoiseRoot: WhatsAppNoiseRoot},
		Notify:     Notify{On: []string{"blocked"}, Language: "en"},
		SplitHello: "auto",
		Landlock:   true,
		Log:        Log{Level: "info", Format: "text"},
	}
}

// A Key is one setting, by its dotted name, as it is in force.
type Key struct {
	Name   string `json:"key"`
	Value  string `json:"value"`  // secrets masked
	Source string `json:"source"` // "default", "FILE:LINE", "MESSENGER_PROBE_…" or "--flag"
}

// keys visits every leaf of c in the order of the struct.
func keys(c *Config, visit func(name string, v reflect.Value)) {
	var walk func(prefix string, v reflect.Value)
	walk = func(prefix string, v reflect.Value) {
		for i := range v.NumField() {
			name := prefix + v.Type().Field(i).Tag.Get("yaml")
			if f := v.Field(i); f.Kind() == reflect.Struct {
				walk(name+".", f)
			} else {
				visit(name, f)
			}
		}
	}
	walk("", reflect.ValueOf(c).Elem())
}

// masked is a value as it may be shown: a password or a query in a comparator's
// URL is not, nor what follows the host in that of a target, which may be secret.
func masked(v reflect.Value) string {
	switch v := v.Interface().(type) {
	case []Comparator:
		s := make([]string, len(v))
		for i, c := range v {
			s[i] = c.Name + "=" + maskURL(c.URL)
		}
		return fmt.Sprint(s)
	case []Target:
		s := make([]string, len(v))
		for i, t := range v {
			s[i] = t.Name + "=" + t.Type
			if u, err := url.Parse(t.URL); err == nil && u.Host != "" {
				s[i] += "://" + u.Host
			} else if t.Server != "" {
				s[i] += "://" + t.Server
			}
		}
		return fmt.Sprint(s)
	default:
		return fmt.Sprint(v)
	}
}

// Files is every file and folder that the configuration names but state_dir:
// what the agent reads, also later. The file of the configuration itself is
// among them, where there is one, else the places where one would be.
func (l *Loaded) Files() []string {
	files := slices.Clone(l.places)
	var walk func(key string, v reflect.Value)
	walk = func(key string, v reflect.Value) {
		switch v.Kind() {
		case reflect.Struct:
			for i := range v.NumField() {
				walk(v.Type().Field(i).Tag.Get("yaml"), v.Field(i))
			}
		case reflect.Slice:
			for i := range v.Len() {
				walk(key, v.Index(i))
			}
		case reflect.String:
			if s := v.String(); s != "" && (strings.HasSuffix(key, "file") || key == "web_config" || key == "catalogue") {
				files = append(files, s)
			}
		}
	}
	walk("", reflect.ValueOf(l.Config))
	return files
}

func maskURL(s string) string {
	u, err := url.Parse(s)
	if err != nil {
		return "(no URL)"
	}
	if u.RawQuery != "" { // ?token=… is a password, too
		u.RawQuery = "xxxxx"
	}
	u.Fragment = ""
	return u.Redacted()
}
