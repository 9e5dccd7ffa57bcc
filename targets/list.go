package targets

import (
	"cmp"
	"fmt"
	"slices"
)

// A Row is one endpoint as `targets list` shows it. Its field tags are the JSON
// of that command.
type Row struct {
	Messenger  string   `json:"messenger"`
	Function   string   `json:"function"`
	Endpoint   string   `json:"endpoint"`
	Tier       string   `json:"tier"`
	Where      string   `json:"where"` // host, or the first address and how many more
	Host       string   `json:"host,omitempty"`
	Addresses  []string `json:"addresses,omitempty"`
	Ports      []uint16 `json:"ports"`
	Checks     []string `json:"checks"`
	Confidence string   `json:"confidence"`
	Confirmed  string   `json:"confirmed"`
	Source     []string `json:"source"`
	Note       string   `json:"note,omitempty"`
	Of         string   `json:"of,omitempty"`
	Mechanism  string   `json:"mechanism,omitempty"`
}

// List is every endpoint: by messenger, then by function in the order of
// Functions and Roles, then as in the file.
func (c *Catalogue) List() []Row {
	var rows []Row
	for _, m := range c.Messengers {
		first := len(rows)
		for _, e := range m.Endpoints {
			rows = append(rows, e.row(m.Name))
		}
		order := slices.Concat(Functions, Roles)
		slices.SortStableFunc(rows[first:], func(a, b Row) int {
			return cmp.Compare(slices.Index(order, a.Function), slices.Index(order, b.Function))
		})
	}
	return rows
}

func (e *Endpoint) row(messenger string) Row {
	r := Row{
		Messenger: messenger, Function: e.Function, Endpoint: e.Name, Tier: e.Tier,
		Where: e.Host, Host: e.Host, Ports: e.Ports, Checks: e.Checks,
		Confidence: e.Confidence, Confirmed: e.Confirmed.String(), Source: e.Source,
		Note: e.Note, Of: e.Of, Mechanism: e.Mechanism,
	}
	for _, a := range e.Addresses {
		r.Addresses = append(r.Addresses, a.String())
	}
	if n := len(r.Addresses); n > 0 && e.Host == "" {
		r.Where = r.Addresses[0]
		if n > 1 {
			r.Where += fmt.Sprintf(" +%d", n-1)
		}
	}
	return r
}
