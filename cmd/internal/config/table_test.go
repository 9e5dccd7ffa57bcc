package config

import "testing"

// Every key is said to mean something, and nothing else is.
func TestTable(t *testing.T) {
	names := map[string]bool{}
	for _, r := range Table() {
		names[r.Name] = true
		if r.Doc == "" {
			t.Errorf("%s: no word on it in docs", r.Name)
		}
	}
	for name := range docs {
		if !names[name] {
			t.Errorf("%s is in docs and no key", name)
		}
	}
	for name, want := range map[string]string{"listen": "127.0.0.1:9770", "interval": "1m", "timeout": "10s", "web_config": "",
		"messengers": "whatsapp, telegram, max", "families": "ip4, ip6", "vantage.network": "unknown", "extended": "false"} {
		for _, r := range Table() {
			if r.Name == name && r.Default != want {
				t.Errorf("%s: the default is shown as %q, want %q", name, r.Default, want)
			}
		}
	}
}
