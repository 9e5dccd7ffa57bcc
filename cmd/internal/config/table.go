package config

import (
	"fmt"
	"reflect"
	"strings"
)

// A Row is one key, as the README lists it.
type Row struct {
	Name    string
	Default string // "" none
	Doc     string // Markdown
}

// Table is every key, in the order of [Config].
func Table() []Row {
	var rows []Row
	def := Default()
	keys(&def, func(name string, v reflect.Value) {
		r := Row{Name: name, Doc: docs[name]}
		if !v.IsZero() || v.Kind() == reflect.Bool {
			r.Default = strings.Trim(strings.ReplaceAll(fmt.Sprint(v), " ", ", "), "[]")
		}
		rows = append(rows, r)
	})
	return rows
}

// docs says what each key means.
var docs = map[string]string{
	"vantage.name":              "label of `vantage_info`, and the name in the status; at most 100 bytes",
	"vantage.country":           "ISO 3166-1, such as `RU`",
	"vantage.subdivision":       "ISO 3166-2, such as `RU-MOW`",
	"vantage.isp":               "the provider",
	"vantage.asn":               "its network, such as `AS64500`",
	"vantage.network":           "`datacenter`, `residential`, `mobile` or `unknown`. Of the vantage only what stands under these keys is ever exported",
	"listen":                    "`host:port` of the page and of `/metrics`",
	"hosts":                     "names by which clients may ask for it in clear and without a password, beside addresses, names without a dot and those under `.localhost`, `.internal`, `.home.arpa`, `.svc`, `.cluster.local`; others get 421, against DNS rebinding",
	"web_config":                "[exporter-toolkit file](https://github.com/prometheus/exporter-toolkit/blob/master/docs/web-configuration.md): TLS, client certificates, passwords",
	"messengers":                "what to measure, by names in the catalogue; `messenger-probe targets list` shows it",
	"extended":                  "whether the extended tier of the catalogue is measured too: more endpoints, less often",
	"catalogue":                 "folder of YAML files to lay over the embedded catalogue",
	"interval":                  "base period of a core check, 1s to 24h; the catalogue sets multiples",
	"timeout":                   "deadline of one check, 100ms to 1m; at most the interval",
	"families":                  "`ip4`, `ip6`; one for which this host has no route is left out, which is said once",
	"transfer_mb_per_day":       "what all downloads and uploads may move in 24 hours, in megabytes; the default catalogue takes some 150 at an interval of a minute. 0: none are made",
	"split_hello":               "whether a ClientHello that dies may be asked again cut in two records, which says more surely that its name is why; some filters are passed so. `always`, `never`, or `auto`: not where `vantage.country` is `RU`",
	"state_dir":                 "folder for what must survive a restart; none: memory only",
	"trust.ca_file":             "more PEM roots, trusted for every host; for test networks. The roots in force are an embedded Mozilla list, never the system's",
	"trust.whatsapp_noise_root": "WhatsApp's root key, 64 hex digits; another one for test networks",
	"comparators":               "list of `{name, url, ca_file, token_file}`, in the file alone: agents abroad, whose `/api/v1/status` tells a dead messenger from a blocked one",
	"notify.on":                 "what people are told: `blocked`, and beside it `unreachable`, `degraded`; that it works again is always told",
	"notify.language":           "`en`, `ru`",
	"notify.targets":            "list of targets, in the file alone: see [Notifications](#notifications)",
	"landlock":                  "whether the agent gives up, where the kernel can (Linux 5.13), all files but its own and running programs; it keeps the folders of the files that the configuration names at its start, and after a change of their places wants to be started anew",
	"log.level":                 "`debug`, `info`, `warn`, `error`",
	"log.format":                "`text`, `json`",
}
