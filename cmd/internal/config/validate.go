package config

import (
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/messenger-probe/messenger-probe/targets/plainfile"
)

// problem is one thing that is wrong, and what would be right.
type problem struct{ key, text string }

var (
	country     = regexp.MustCompile(`^[A-Z]{2}$`)
	subdivision = regexp.MustCompile(`^[A-Z]{2}-[A-Z0-9]{1,3}$`)
	asn         = regexp.MustCompile(`^(AS)?[0-9]{1,10}$`)
	hostname    = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?$`)
)

// problems is everything that is wrong with c, in the order of its keys.
func (c *Config) problems() []problem {
	var ps []problem
	bad := func(key, format string, args ...any) { ps = append(ps, problem{key, fmt.Sprintf(format, args...)}) }
	oneOf := func(key, v string, set ...string) {
		if !slices.Contains(set, v) {
			bad(key, "%q is not known; write one of %s", v, strings.Join(set, ", "))
		}
	}

	for _, v := range []problem{{"vantage.name", c.Vantage.Name}, {"vantage.isp", c.Vantage.ISP}} {
		if len(v.text) > 100 || strings.ContainsFunc(v.text, unicode.IsControl) {
			bad(v.key, "longer than 100 bytes or with control characters; write a short name")
		}
	}
	if v := c.Vantage.Country; v != "" && !country.MatchString(v) {
		bad("vantage.country", "%q is no ISO 3166-1 code; write two capital letters, such as RU", v)
	}
	if v := c.Vantage.Subdivision; v != "" && !subdivision.MatchString(v) {
		bad("vantage.subdivision", "%q is no ISO 3166-2 code; write it such as RU-MOW", v)
	}
	if v := c.Vantage.ASN; v != "" && !asn.MatchString(v) {
		bad("vantage.asn", "%q is no autonomous system number; write it such as AS64500", v)
	}
	oneOf("vantage.network", c.Vantage.Network, "datacenter", "residential", "mobile", "unknown")

	if err := checkListen(c.Listen); err != nil {
		bad("listen", "%v; write host:port, such as 127.0.0.1:9770", err)
	}
	for i, h := range c.Hosts {
		if _, err := netip.ParseAddr(h); err == nil || !hostname.MatchString(h) {
			bad("hosts", "%q is no name; write a host name without scheme and port, such as probe.example.org", h)
		}
		if slices.Contains(c.Hosts[:i], h) {
			bad("hosts", "%q twice; write each once", h)
		}
	}
	readable := func(key, path string) {
		if path == "" {
			return
		}
		f, err := plainfile.Open(path)
		if err != nil {
			bad(key, "%v; write the path of a readable file", err)
			return
		}
		f.Close()
	}
	readable("web_config", c.WebConfig)
	readable("trust.ca_file", c.Trust.CAFile)
	if len(c.Messengers) == 0 {
		bad("messengers", "nothing to measure; write at least one name, such as [telegram] (messenger-probe targets list tells all)")
	}
	for i, m := range c.Messengers {
		if slices.Contains(c.Messengers[:i], m) {
			bad("messengers", "%q twice; write each name once", m)
		}
	}
	if c.Catalogue != "" {
		if st, err := os.Stat(c.Catalogue); err != nil {
			bad("catalogue", "%v; write the path of a folder with YAML files", err)
		} else if !st.IsDir() {
			bad("catalogue", "%q is no folder; write the path of the folder that holds the YAML files", c.Catalogue)
		}
	}
	interval, timeout := time.Duration(c.Interval), time.Duration(c.Timeout)
	switch {
	case interval < time.Second:
		bad("interval", "%v is shorter than 1s; write a duration such as 60s", c.Interval)
	case interval > 24*time.Hour:
		bad("interval", "%v is longer than a day; write a duration such as 60s", c.Interval)
	}
	switch {
	case timeout < 100*time.Millisecond:
		bad("timeout", "%v is shorter than 100ms; write a duration such as 10s", c.Timeout)
	case timeout > time.Minute:
		bad("timeout", "%v is longer than 1m; write a duration such as 10s", c.Timeout)
	case timeout > interval && interval >= time.Second:
		bad("timeout", "%v is longer than the interval of %v; write at most that", c.Timeout, c.Interval)
	}
	if len(c.Families) == 0 {
		bad("families", "no address family; write [ip4], [ip6] or both")
	}
	for i, f := range c.Families {
		oneOf("families", f, "ip4", "ip6")
		if slices.Contains(c.Families[:i], f) {
			bad("families", "%q twice; write each once", f)
		}
	}
	if c.TransferMB < 0 || c.TransferMB > 1e6 {
		bad("transfer_mb_per_day", "%d is out of bounds; write a number from 0 to 1000000", c.TransferMB)
	}
	if c.StateDir != "" {
		if st, err := os.Stat(c.StateDir); err == nil && !st.IsDir() {
			bad("state_dir", "%q is no folder; write the path of a folder the agent may write to", c.StateDir)
		}
	}
	if _, err := c.NoiseRoot(); err != nil {
		bad("trust.whatsapp_noise_root", "%v; write the 64 hex digits of an X25519 public key", err)
	}
	for i, cmp := range c.Comparators {
		key := func(k string) string { return fmt.Sprintf("comparators[%d].%s", i, k) }
		if cmp.Name == "" {
			bad(key("name"), "missing; write a short name of the agent abroad")
		}
		u, err := url.Parse(cmp.URL)
		if err != nil || u.Host == "" || (u.Scheme != "https" && u.Scheme != "http") {
			bad(key("url"), "is no http(s) URL; write it such as https://probe.example.org:9770")
		}
		readable(key("ca_file"), cmp.CAFile)
		readable(key("token_file"), cmp.TokenFile)
	}
	if len(c.Notify.On) == 0 {
		bad("notify.on", "nothing to tell; write at least [blocked], or no notify.targets")
	}
	for i, s := range c.Notify.On {
		oneOf("notify.on", s, "blocked", "unreachable", "degraded")
		if slices.Contains(c.Notify.On[:i], s) {
			bad("notify.on", "%q twice; write each once", s)
		}
	}
	oneOf("split_hello", c.SplitHello, "auto", "always", "never")
	oneOf("notify.language", c.Notify.Language, "en", "ru")
	ps = append(ps, targetProblems(c.Notify.Targets)...)
	oneOf("log.level", c.Log.Level, "debug", "info", "warn", "error")
	oneOf("log.format", c.Log.Format, "text", "json")
	return ps
}

func checkListen(s string) error {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return fmt.Errorf("%q is no host:port", s)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n > 65535 {
		return fmt.Errorf("%q is no port number", port)
	}
	if host != "" {
		if _, err := netip.ParseAddr(host); err != nil && !hostname.MatchString(host) {
			return fmt.Errorf("%q is no host", host)
		}
	}
	return nil
}

// NoiseRoot is trust.whatsapp_noise_root as bytes.
func (c *Config) NoiseRoot() (key [32]byte, err error) {
	b, err := hex.DecodeString(c.Trust.WhatsAppNoiseRoot)
	if err != nil || len(b) != len(key) {
		return key, fmt.Errorf("%q is no key", c.Trust.WhatsAppNoiseRoot)
	}
	return [32]byte(b), nil
}
