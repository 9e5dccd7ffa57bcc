package page

import (
	"fmt"
	"html/template"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/messenger-probe/messenger-probe/probe/onset"
	"github.com/messenger-probe/messenger-probe/probe/verdict"
)

// Bounds of what the page shows; the rest is in the JSON.
const (
	maxEndpoints = 40 // of a function
	maxFailing   = 8  // of an endpoint
	maxEvidence  = 12 // of a function
	maxChanges   = 12
)

// scene is the page in the words of one language, for the template.
type scene struct {
	Lang                          string
	Answer, Question, Place, AsOf string
	State                         verdict.State // of all together
	Colour                        string        // of the icon
	Time                          time.Time
	Style                         template.CSS
	Script                        template.JS
	Moving                        bool   // it renews itself
	Other                         string // link to the one that does not, or does
	Languages                     []choice
	Messengers                    []messenger
	Legend                        []meaning
	Vantage                       place
	Changes                       []change
	Versions                      string
}

type choice struct {
	Lang, Name, Link string
	Here             bool
}

type meaning struct {
	State       verdict.State
	Word, Means string
}

type messenger struct {
	Name, Title string
	State       verdict.State
	Word        string
	Functions   []function
	Rivals      []share
}

type share struct{ Name, Share string }

type function struct {
	ID, Title           string
	State               verdict.State
	Word, For           string
	Why, Sure           string
	StripName, MoreName string
	Cells               []cell
	Share               string
	Spark               *spark
	SinceText           string
	Evidence            []string
	Days                []day
	Endpoints           []endpoint
	MoreEndpoints       string
}

type cell struct {
	State string
	Text  string
	Last  bool
}

type day struct {
	Name, Share string
	Paths       []path
}

type path struct{ State, D string }

type endpoint struct {
	Name, Share string
	Failing     []failing
	More        string
}

type failing struct{ Text, Code, Address string }

type place struct {
	Class          verdict.State
	Word, Plain    string
	Evidence       []string
	Clean, Unclean string
	Sees           []text
	Limits         []string
}

type text struct{ Name, Text string }

type change struct {
	State           verdict.State
	Time            time.Time
	When, What, Why string
	Evidence        string
}

// Colours of the icon, as of the light scheme in page.css.
var colours = map[verdict.State]string{verdict.OK: "1d7a4d", verdict.Degraded: "96630a", verdict.Blocked: "bd2430",
	verdict.Unreachable: "6f42b8", verdict.Unknown: "6b7178"}

// scene says a view in a language.
func (p *Page) scene(v *View, l *language, still bool) *scene {
	v.Messengers = slices.DeleteFunc(slices.Clone(v.Messengers), func(m Messenger) bool { return len(m.Functions) == 0 })
	s := &scene{
		Lang:   l.Lang,
		Answer: l.answer(v), State: l.mood(v), Time: v.Time,
		Style: template.CSS(pageCSS), Script: template.JS(pageJS), Moving: !still,
		Vantage:  l.place(&v.Vantage),
		Versions: l.t("version", v.Version, v.Catalogue),
		Place:    l.t("place", l.where(&v.Vantage)),
		AsOf:     l.t("asof", l.date(v.Time)),
	}
	s.Colour = colours[s.State]
	var titles []string
	for i := range v.Messengers {
		titles = append(titles, v.Messengers[i].Title)
		s.Messengers = append(s.Messengers, l.messenger(&v.Messengers[i], v.Time))
	}
	s.Question = l.t("question", l.list(titles))
	for _, o := range p.languages {
		s.Languages = append(s.Languages, choice{o.Lang, o.Name, link(o.Lang, still), o == l})
	}
	s.Other = link(l.Lang, !still)
	for _, x := range []verdict.State{verdict.OK, verdict.Degraded, verdict.Unreachable, verdict.Blocked, verdict.Unknown} {
		s.Legend = append(s.Legend, meaning{x, l.States[string(x)].Word, l.Meanings[string(x)]})
	}
	for _, c := range v.Changes[:min(len(v.Changes), maxChanges)] {
		s.Changes = append(s.Changes, l.change(&c))
	}
	return s
}

// link is the page as a reader chose it.
func link(lang string, still bool) string {
	if still {
		return "?lang=" + lang + "&still"
	}
	return "?lang=" + lang
}

// mood is the state of all messengers together.
func (l *language) mood(v *View) verdict.State {
	if v.Vantage.State != verdict.Online {
		return verdict.Unknown
	}
	all := Messenger{}
	for _, m := range v.Messengers {
		all.Functions = append(all.Functions, m.Functions...)
	}
	return overall(&all)
}

// where is the place as its operator wrote it.
func (l *language) where(v *Vantage) string {
	area := v.Subdivision
	if area == "" {
		area = v.Country
	}
	var parts []string
	for _, s := range []string{v.Name, area, v.ISP, v.ASN, l.Networks[v.Network]} {
		if s != "" {
			parts = append(parts, s)
		}
	}
	if len(parts) == 0 {
		return l.t("nowhere")
	}
	return strings.Join(parts, l.t("comma"))
}

func (l *language) messenger(m *Messenger, now time.Time) messenger {
	out := messenger{Name: m.Name, Title: m.Title, State: overall(m)}
	out.Word = l.States[string(out.State)].Word
	if !one(m) {
		switch out.State {
		case verdict.Degraded:
			out.Word = l.t("mixed")
		case verdict.Unknown:
			out.Word = l.t("mixed_unknown")
		}
	}
	for i := range m.Functions {
		out.Functions = append(out.Functions, l.row(m, &m.Functions[i], now))
	}
	if len(m.Rivals) > 0 {
		for _, e := range onset.Explanations {
			out.Rivals = append(out.Rivals, share{l.Explanations[string(e)], l.probability(m.Rivals[string(e)])})
		}
	}
	return out
}

// probability is a chance in per cent.
func (l *language) probability(p float64) string {
	const parts = 1e6
	return l.percent(int(max(0, min(p, 1))*parts), parts)
}

func (l *language) row(m *Messenger, f *Function, now time.Time) function {
	title := f.Name
	if x, ok := l.Functions[f.Name]; ok {
		title = x.Name
	}
	noun, _ := l.function(f.Name)
	out := function{
		ID: m.Name + "-" + f.Name, Title: title, State: f.State, Word: l.States[string(f.State)].Word,
		StripName: l.t("strip", m.Title, noun), MoreName: l.t("details_of", m.Title, noun),
		Evidence: f.Evidence[:min(len(f.Evidence), maxEvidence)],
	}
	if !f.Since.IsZero() && f.State != verdict.Unknown {
		out.For = l.t("for", l.duration(now.Sub(f.Since)))
		out.SinceText = l.States[string(f.State)].Word + " " + l.t("since", l.date(f.Since)) + "."
	}
	out.Why, out.Sure = l.why(f.Mechanism, f.Confidence)
	ok, fail := 0, 0
	for i, c := range f.Day {
		ok, fail = ok+c.OK, fail+c.Fail
		out.Cells = append(out.Cells, cell{class(c.State), l.cell(c, 30*time.Minute), i == len(f.Day)-1})
	}
	out.Share = l.t("day_none")
	if n := ok + fail; n > 0 {
		out.Share = l.t("day", l.percent(ok, n), l.plural("checks", n, l.number(n)))
	}
	out.Spark = l.spark(f.Day)
	out.Days = l.days(f.Week)
	for _, e := range f.Endpoints[:min(len(f.Endpoints), maxEndpoints)] {
		out.Endpoints = append(out.Endpoints, l.endpoint(&e))
	}
	if more := len(f.Endpoints) - maxEndpoints; more > 0 {
		out.MoreEndpoints = l.t("more", l.number(more))
	}
	return out
}

// why is a mechanism and how sure it is, in plain language.
func (l *language) why(m verdict.Mechanism, c verdict.Confidence) (why, sure string) {
	if m == "" {
		return "", ""
	}
	t, ok := l.Mechanisms[string(m)]
	if !ok {
		t.Plain = string(m)
	}
	if x, ok := l.Confidences[string(c)]; ok {
		sure = l.t("confidence", x.Name) + " – " + x.Plain + "."
	}
	return t.Plain, sure
}

// class is the CSS class of a state.
func class(s verdict.State) string {
	if s == "" {
		return "none"
	}
	return string(s)
}

// cell is what a span of time was like.
func (l *language) cell(c Cell, width time.Duration) string {
	word := l.t("nothing")
	if c.State != "" {
		word = l.States[string(c.State)].Word
	}
	s := l.t("cell", l.clock(c.Start), l.clock(c.Start.Add(width)), word)
	if n := c.OK + c.Fail; n > 0 {
		s += l.t("comma") + l.plural("of_checks", n, l.number(c.OK), l.number(n))
	}
	if c.Median > 0 {
		s += l.t("comma") + l.latency(c.Median)
	}
	return s
}

func (l *language) endpoint(e *Endpoint) endpoint {
	out := endpoint{Name: e.Name, Share: l.t("endpoint_void")}
	if n := e.OK + e.Fail; n > 0 {
		out.Share = l.plural("of_checks", n, l.number(e.OK), l.number(n))
	}
	for _, f := range e.Failing[:min(len(e.Failing), maxFailing)] {
		op, failure := l.Operations[string(f.Operation)], l.Failures[string(f.Failure)]
		text := f.Check + " " + f.Family
		if op != "" {
			text += ": " + op
		}
		if failure != "" {
			text += " – " + failure
		}
		out.Failing = append(out.Failing, failing{text, string(f.Failure), f.Address})
	}
	if more := len(e.Failing) - maxFailing; more > 0 {
		out.More = l.t("more", l.number(more))
	}
	return out
}

// place is what is known of the vantage, and what cannot be.
func (l *language) place(v *Vantage) place {
	t := l.Vantage[string(v.State)]
	out := place{Class: verdict.OK, Word: t.Name, Plain: t.Plain, Evidence: v.Evidence, Clean: l.t("clean_yes"), Unclean: v.Unclean}
	if v.State != verdict.Online {
		out.Class = verdict.Unreachable
	}
	if v.Unclean != "" {
		out.Clean = l.t("clean_no")
	}
	if v.State != verdict.Online {
		out.Sees = []text{{l.t("sees"), l.t("sees_ill")}}
	} else {
		var seen, not, unknown []string
		for _, m := range verdict.Mechanisms {
			if m == verdict.ServiceOutage || m == verdict.UnknownCause {
				continue
			}
			name := l.Mechanisms[string(m)].Name
			switch yes, known := v.Sees[m]; {
			case !known:
				unknown = append(unknown, name)
			case yes:
				seen = append(seen, name)
			default:
				not = append(not, name)
			}
		}
		if len(seen) == 0 {
			seen = []string{l.t("sees_none")}
			out.Limits = append(out.Limits, l.t("limit_sees"))
		}
		out.Sees = append(out.Sees, text{l.t("sees"), strings.Join(seen, l.t("comma"))})
		if len(not) > 0 {
			out.Sees = append(out.Sees, text{l.t("sees_not"), strings.Join(not, l.t("comma"))})
		}
		out.Sees = append(out.Sees, text{l.t("sees_unknown"), strings.Join(unknown, l.t("comma"))})
	}
	switch v.Network {
	case "datacenter":
		out.Limits = append(out.Limits, l.t("limit_datacenter"))
	case "mobile":
		out.Limits = append(out.Limits, l.t("limit_mobile"))
	case "", "unknown":
		out.Limits = append(out.Limits, l.t("limit_unknown"))
	}
	var down []string
	for _, d := range v.Down {
		if name, ok := l.Down[d]; ok {
			down = append(down, name)
		}
	}
	if len(down) > 0 {
		out.Limits = append(out.Limits, l.t("limit_down", l.list(down)))
	}
	out.Limits = append(out.Limits, l.t("limit_account"))
	return out
}

func (l *language) change(c *Change) change {
	noun, class := l.function(c.Function)
	out := change{State: c.State, Time: c.Time, When: l.date(c.Time),
		What: l.t("some", c.Messenger, l.t("whole", noun, l.is(c.State, class)))}
	if c.Relapse {
		out.What += l.t("comma") + l.t("change_relapse")
	}
	var parts []string
	if m, ok := l.Mechanisms[string(c.Mechanism)]; ok {
		parts = append(parts, m.Name)
	}
	if x, ok := l.Confidences[string(c.Confidence)]; ok && c.Mechanism != "" {
		parts = append(parts, l.t("confidence", x.Name))
	}
	if !c.Onset.IsZero() && c.Time.Sub(c.Onset) >= time.Minute {
		parts = append(parts, l.t("change_began", l.date(c.Onset)))
	}
	if w, ok := l.States[string(c.Was)]; ok {
		parts = append(parts, l.t("change_was", w.Word))
	}
	out.Why = strings.Join(parts, " · ")
	if len(c.Evidence) > 0 {
		out.Evidence = c.Evidence[0]
	}
	return out
}

// spark is the line of answer times.
type spark struct{ Name, Path, Text string }

// The line's box.
const (
	sparkWidth  = 96.0
	sparkHeight = 20.0
)

// spark draws the medians of cells, nil where there are none. The scale is
// logarithmic, with what is usual in the middle: small changes look small, and
// twice as long is half of the way up.
func (l *language) spark(cells []Cell) *spark {
	var known []time.Duration
	for _, c := range cells {
		if c.Median > 0 {
			known = append(known, c.Median)
		}
	}
	if len(known) == 0 {
		return nil
	}
	last := known[len(known)-1]
	slices.Sort(known)
	low, usual, high := known[0], known[len(known)/2], known[len(known)-1]
	doublings := func(d time.Duration) float64 { return math.Log2(float64(d) / float64(usual)) }
	reach := max(2, doublings(high), -doublings(low)) // from the middle to either edge
	var d strings.Builder
	drawing := false
	step := sparkWidth / float64(len(cells))
	for i, c := range cells {
		if c.Median == 0 {
			drawing = false
			continue
		}
		x := (float64(i) + .5) * step
		y := sparkHeight/2 - (sparkHeight/2-1.5)*doublings(c.Median)/reach
		if !drawing {
			fmt.Fprintf(&d, "M%.1f %.1fh.1", x, y) // a point by itself shows, too
		} else {
			fmt.Fprintf(&d, "L%.1f %.1f", x, y)
		}
		drawing = true
	}
	return &spark{l.t("spark", l.latency(last), l.latency(low), l.latency(high)), d.String(), l.latency(last)}
}

// days are seven rows of hours.
func (l *language) days(hours []Cell) (out []day) {
	for i := 0; i+24 <= len(hours); i += 24 {
		part := hours[i : i+24]
		d := day{Name: l.day(part[0].Start), Share: l.t("week_none")}
		ok, fail := 0, 0
		drawn := map[string]*strings.Builder{}
		for h, c := range part {
			ok, fail = ok+c.OK, fail+c.Fail
			b := drawn[class(c.State)]
			if b == nil {
				b = new(strings.Builder)
				drawn[class(c.State)] = b
			}
			height := heights[class(c.State)]
			fmt.Fprintf(b, "M%d %dh5v%dh-5z", 6*h, 12-height, height)
		}
		for _, s := range append(severity[:], "") {
			if b := drawn[class(s)]; b != nil {
				d.Paths = append(d.Paths, path{class(s), b.String()})
			}
		}
		if n := ok + fail; n > 0 {
			d.Share = l.t("week_share", l.percent(ok, n), l.plural("checks", n, l.number(n)))
		}
		out = append(out, d)
	}
	return out
}

// heights of the hours, of twelve: shapes for those who see no colours.
var heights = map[string]int{"ok": 12, "degraded": 9, "unreachable": 6, "blocked": 4, "unknown": 3, "none": 1}
