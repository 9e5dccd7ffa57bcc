package spelling

import (
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestNearest(t *testing.T) {
	known := []string{"interval", "timeout", "listen", "web_config", "MESSENGER_PROBE_LISTEN", "tls", "dns", "ip4"}
	for word, want := range map[string]string{
		"intervall":             "interval",
		"Interval":              "interval",
		"inverval":              "interval",
		"itnerval":              "interval", // two letters swapped are one mistake
		"time-out":              "timeout",
		"web-config":            "web_config",
		"listne":                "listen",
		"messenger_probe_lsten": "MESSENGER_PROBE_LISTEN",
		"tlss":                  "tls",
		"ip":                    "ip4",
		"x":                     "",
		"":                      "",
		"colour":                "",
		"intrvl_s":              "",
		strings.Repeat("i", 70): "",
	} {
		if got := Nearest(word, known); got != want {
			t.Errorf("Nearest(%q) is %q, want %q", word, got, want)
		}
	}
}

func FuzzNearest(f *testing.F) {
	f.Add("intervall", "interval")
	f.Fuzz(func(t *testing.T, word, known string) {
		if n := edits(word, known); n < 0 || n > longest || n != edits(known, word) || word == known && len(word) <= longest && n != 0 {
			t.Errorf("edits(%q, %q) is %d", word, known, n)
		}
		Nearest(word, []string{known})
	})
}
