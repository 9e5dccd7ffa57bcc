package page

import (
	"bytes"
	"embed"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// One file a language; the first is for those who understand none.
var languages = []string{"en", "ru"}

//go:embed en.json ru.json
var files embed.FS

// language is the texts of the page.
type language struct {
	Lang      string
	Name      string // what its speakers call it
	Decimal   string
	Thousands string
	Months    [12]string
	Weekdays  [7]string // from Sunday on
	Proper    string    // the class of names of messengers
	Several   string    // the class of more than one thing
	Texts     map[string]string
	Plurals   map[string]map[string]string // by form
	// States has a word alone, and what follows a noun of each class. A class is
	// what the language tells apart there: number, gender.
	States map[string]struct {
		Word string
		Is   map[string]string
	}
	Meanings                         map[string]string // of states
	Mechanisms, Confidences, Vantage map[string]term
	Functions                        map[string]struct{ Name, Noun, Class string }
	Networks, Explanations           map[string]string
	Operations, Failures, Down       map[string]string
}

// term is a word and what it means.
type term struct{ Name, Plain string }

// load reads the texts of a language.
func load(lang string) (*language, error) {
	b, err := files.ReadFile(lang + ".json")
	if err != nil {
		return nil, err
	}
	l := new(language)
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(l); err != nil {
		return nil, fmt.Errorf("%s.json: %w", lang, err)
	}
	return l, nil
}

// t is a text, with its arguments filled in. A text that is missing shows as
// its key: a page with a hole is better than none.
func (l *language) t(key string, args ...any) string {
	format, ok := l.Texts[key]
	if !ok {
		return key
	}
	if len(args) == 0 {
		return format
	}
	return fmt.Sprintf(format, args...)
}

// form is the plural form for n, CLDR's cardinal rules.
func (l *language) form(n int) string {
	switch l.Lang {
	case "ru":
		switch one, ten := n%10, n%100; {
		case one == 1 && ten != 11:
			return "one"
		case one >= 2 && one <= 4 && (ten < 12 || ten > 14):
			return "few"
		}
		return "many"
	}
	if n == 1 {
		return "one"
	}
	return "other"
}

// plural is a text in the form for n.
func (l *language) plural(key string, n int, args ...any) string {
	return fmt.Sprintf(l.Plurals[key][l.form(n)], args...)
}

// nbsp keeps a number and its unit on one line.
const nbsp = "\u00a0"

// number writes n with its thousands apart.
func (l *language) number(n int) string {
	s := strconv.Itoa(n)
	for at := len(s) - 3; at > 0; at -= 3 {
		s = s[:at] + l.Thousands + s[at:]
	}
	return s
}

// percent is a share of a whole to one digit. Only all is 100 %, and only
// nothing is 0 %.
func (l *language) percent(part, whole int) string {
	x := math.Round(1000*float64(part)/float64(whole)) / 10
	if part < whole {
		x = min(x, 99.9)
	}
	if part > 0 {
		x = max(x, 0.1)
	}
	return l.decimal(x) + l.sign()
}

func (l *language) sign() string {
	if l.Lang == "en" {
		return "%"
	}
	return nbsp + "%"
}

// decimal writes x with one digit behind the point, where it is not 0.
func (l *language) decimal(x float64) string {
	s := strings.TrimSuffix(strconv.FormatFloat(x, 'f', 1, 64), ".0")
	return strings.Replace(s, ".", l.Decimal, 1)
}

// list joins words as in a sentence.
func (l *language) list(words []string) string {
	if len(words) == 0 {
		return ""
	}
	last := len(words) - 1
	if last == 0 {
		return words[0]
	}
	return strings.Join(words[:last], l.t("comma")) + l.t("and") + words[last]
}

// clock is the time of the day.
func (l *language) clock(at time.Time) string { return at.UTC().Format("15:04") }

// date is a moment.
func (l *language) date(at time.Time) string {
	at = at.UTC()
	return strings.ReplaceAll(l.t("date", at.Day(), l.Months[at.Month()-1], l.clock(at)), " ", nbsp)
}

// day is a date without its time.
func (l *language) day(at time.Time) string {
	at = at.UTC()
	return fmt.Sprintf("%s %d%s%s", l.Weekdays[at.Weekday()], at.Day(), nbsp, l.Months[at.Month()-1])
}

// duration is how long something lasts, in its two greatest units.
func (l *language) duration(d time.Duration) string {
	s := ""
	switch m := int(d.Minutes()); {
	case m < 1:
		return l.t("moment")
	case m < 60:
		s = l.t("duration_minutes", m)
	case m < 24*60:
		s = l.t("duration_hours", m/60, m%60)
	default:
		days := m / (24 * 60)
		s = l.t("duration_days", l.plural("days", days, days), m/60%24)
	}
	return strings.ReplaceAll(s, " ", nbsp)
}

// latency is a short time.
func (l *language) latency(d time.Duration) string {
	ms := float64(d) / float64(time.Millisecond)
	switch {
	case ms >= 995:
		return strings.Replace(l.t("s", l.decimal(math.Round(ms/100)/10)), " ", nbsp, 1)
	case ms >= 100:
		ms = math.Round(ms/10) * 10
	}
	return strings.Replace(l.t("ms", l.decimal(math.Round(ms))), " ", nbsp, 1)
}

// function is what a function is called, and its class.
func (l *language) function(name string) (noun, class string) {
	if f, ok := l.Functions[name]; ok {
		return f.Noun, f.Class
	}
	return name, l.Proper
}
