package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// A question is PromQL that a person is given: by a dashboard, or by a paper.
type question struct {
	where string // file and title
	expr  string // with nothing left to fill in
	when  moment
}

// A moment is when a question has an answer.
type moment int

const (
	always moment = iota // and so during a block, too
	lifted               // only after a block
)

func (q question) String() string { return fmt.Sprintf("%s: %s", q.where, q.expr) }

// some is an expression that has one series where the answer to q has any that
// is a number.
func (q question) some() string { return "count((\n" + q.expr + "\n) >= -Inf)" }

// labelValues is how a dashboard's variable asks for the values of a label.
var labelValues = regexp.MustCompile(`^label_values\((.+), (\w+)\)$`)

// questions is everything that dashboards and papers ask, put for one agent.
func questions(t *testing.T, instance string) []question {
	t.Helper()
	fill := strings.NewReplacer("$instance", instance, "$country", ".*", "$function", "chat", "$__rate_interval", "1m", "agent.example:9770", instance)
	all := append(dashboards(t), examples(t)...)
	for i := range all {
		all[i].expr = fill.Replace(all[i].expr)
		if strings.Contains(all[i].expr, "$") {
			t.Errorf("%v: there is a variable that this test does not know", all[i])
		}
	}
	return all
}

// dashboards is what Grafana's dashboards ask: for panels, for onsets, and for
// what one can choose.
func dashboards(t *testing.T) (all []question) {
	t.Helper()
	type source struct{ UID string }
	type query struct {
		Expr       string
		Datasource source
	}
	files, err := filepath.Glob(deployed + "/grafana/dashboards/*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("no dashboards: %v", err)
	}
	uids := map[string]bool{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var d struct {
			UID    string
			Panels []struct {
				ID      int
				Title   string
				Targets []query
			}
			Annotations struct {
				List []struct {
					query
					Name            string
					UseValueForTime bool
				}
			}
			Templating struct {
				List []struct {
					Name, Type string
					Query      any
					Datasource source
				}
			}
		}
		if err := json.Unmarshal(text, &d); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		if d.UID == "" || uids[d.UID] {
			t.Errorf("%s: uid %q", file, d.UID)
		}
		uids[d.UID] = true
		add := func(title string, q query, when moment) {
			if q.Expr == "" || q.Datasource.UID != "${datasource}" {
				t.Errorf("%s: %s asks %q of %q", file, title, q.Expr, q.Datasource.UID)
			}
			all = append(all, question{filepath.Base(file) + ": " + title, q.Expr, when})
		}
		ids := map[int]bool{}
		for _, p := range d.Panels {
			if ids[p.ID] || p.Title == "" || len(p.Targets) == 0 {
				t.Errorf("%s: panel %d, %q, %d queries", file, p.ID, p.Title, len(p.Targets))
			}
			ids[p.ID] = true
			for _, q := range p.Targets {
				add(p.Title, q, always)
			}
		}
		for _, a := range d.Annotations.List {
			if !a.UseValueForTime {
				t.Errorf("%s: %s would be drawn where they were scraped", file, a.Name)
			}
			when := always
			if a.Name == "Recoveries" {
				when = lifted
			}
			add(a.Name, a.query, when)
		}
		for _, v := range d.Templating.List {
			if v.Type != "query" {
				continue
			}
			q, _ := v.Query.(map[string]any)
			expr, _ := q["query"].(string)
			m := labelValues.FindStringSubmatch(expr)
			if m == nil {
				t.Fatalf("%s: the variable %s asks %q, which this test does not know", file, v.Name, expr)
			}
			add("variable "+v.Name, query{fmt.Sprintf("%s{%s!=\"\"}", m[1], m[2]), v.Datasource}, always)
		}
	}
	return all
}

// examples is the PromQL of the papers: each fenced block that is marked so.
func examples(t *testing.T) (all []question) {
	t.Helper()
	for _, file := range []string{readmePath, deployed + "/DATA.md"} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile("(?ms)^```promql\n(.*?)^```").FindAllStringSubmatch(string(text), -1) {
			all = append(all, question{where: filepath.Base(file), expr: strings.TrimSpace(m[1])})
		}
	}
	return all
}
