package config

import (
	"fmt"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/messenger-probe/messenger-probe/targets/plainfile"
)

// maxTargets bounds notify.targets: each is told all.
const maxTargets = 16

var (
	targetName = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,32}$`)
	chat       = regexp.MustCompile(`^(-?[0-9]{1,20}|@[A-Za-z0-9_]{3,40})$`)
	variable   = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,127}$`)
)

// targetKeys is which keys each type of target knows beside name, type and
// ca_file. One of those in a group with "|" must be there, and only one; a
// group that begins with "?" may be missing.
var targetKeys = map[string][]string{
	"webhook":  {"url|url_file|url_env", "?token_file|token_env", "?proxy"},
	"ntfy":     {"url|url_file|url_env", "?token_file|token_env", "?proxy"},
	"telegram": {"token_file|token_env", "chat", "?url|url_file|url_env", "?proxy"},
	"smtp":     {"server", "from", "to", "?username", "?password_file|password_env"},
}

var targetTypes = []string{"webhook", "ntfy", "telegram", "smtp"}

// targetProblems is what is wrong with the keys of targets. Whether a URL is one
// is for those who use it.
func targetProblems(ts []Target) []problem {
	var ps []problem
	if len(ts) > maxTargets {
		ps = append(ps, problem{"notify.targets", fmt.Sprintf("%d targets; write at most %d", len(ts), maxTargets)})
	}
	for i := range ts {
		t := &ts[i]
		bad := func(key, format string, args ...any) {
			ps = append(ps, problem{fmt.Sprintf("notify.targets[%d].%s", i, key), fmt.Sprintf(format, args...)})
		}
		set := map[string]string{}
		v := reflect.ValueOf(t).Elem()
		for j := range v.NumField() {
			if f := v.Field(j); f.Len() > 0 {
				set[v.Type().Field(j).Tag.Get("yaml")] = fmt.Sprint(f)
			}
		}
		if !targetName.MatchString(t.Name) {
			bad("name", "%q is no name; write a short one of letters, digits, - and _, such as phone", t.Name)
		}
		if slices.ContainsFunc(ts[:i], func(o Target) bool { return o.Name == t.Name }) {
			bad("name", "%q twice; give each target a name of its own", t.Name)
		}
		groups, ok := targetKeys[t.Type]
		if !ok {
			bad("type", "%q is not known; write one of %s", t.Type, strings.Join(targetTypes, ", "))
			continue
		}
		known := []string{"name", "type", "ca_file"}
		for _, g := range groups {
			g, optional := strings.CutPrefix(g, "?")
			names := strings.Split(g, "|")
			known = append(known, names...)
			var there []string
			for _, n := range names {
				if set[n] != "" {
					there = append(there, n)
				}
			}
			switch {
			case len(there) == 0 && !optional:
				bad(names[0], "missing; a target of type %s needs %s", t.Type, strings.Join(names, " or "))
			case len(there) > 1:
				bad(there[1], "stands beside %s; write one of them", there[0])
			}
		}
		for j := range v.NumField() {
			if n := v.Type().Field(j).Tag.Get("yaml"); set[n] != "" && !slices.Contains(known, n) {
				bad(n, "is not for a target of type %s; it knows %s", t.Type, strings.Join(known[2:], ", "))
			}
		}
		for _, f := range []problem{{"url_file", t.URLFile}, {"token_file", t.TokenFile}, {"password_file", t.PasswordFile}, {"ca_file", t.CAFile}} {
			if f.text == "" {
				continue
			}
			if file, err := plainfile.Open(f.text); err == nil {
				file.Close()
			} else {
				bad(f.key, "%v; write the path of a readable file", err)
			}
		}
		// What stands here may be the secret itself, by mistake, and is not shown.
		for _, e := range []problem{{"url_env", t.URLEnv}, {"token_env", t.TokenEnv}, {"password_env", t.PasswordEnv}} {
			switch {
			case e.text == "":
			case !variable.MatchString(e.text):
				bad(e.key, "is no name of a variable; write the name, such as NTFY_TOKEN, and set the variable to the secret")
			case os.Getenv(e.text) == "":
				bad(e.key, "the variable that it names is not set")
			}
		}
		if t.Chat != "" && !chat.MatchString(t.Chat) {
			bad("chat", "%q is no chat; write its number, such as \"123456789\", or @channel", t.Chat)
		}
		if (t.Username == "") != (t.PasswordFile == "" && t.PasswordEnv == "") {
			bad("username", "a login needs both username and password_file or password_env; write both or neither")
		}
	}
	return ps
}
