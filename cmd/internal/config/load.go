package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/go-viper/mapstructure/v2"
	"github.com/spf13/pflag"
	"github.com/spf13/viper"
	"go.yaml.in/yaml/v3"

	"github.com/messenger-probe/messenger-probe/targets/spelling"
)

// Prefix is what the names of the agent's environment variables begin with.
const Prefix = "MESSENGER_PROBE_"

// maxFile bounds a configuration file; a real one has a few hundred bytes.
const maxFile = 1 << 20

// Loaded is a configuration and where each of its keys came from.
type Loaded struct {
	Config
	File   string // the file that was read, "" none
	keys   []Key
	places []string // where the file is, or would be
}

// Keys is every setting in the order of the documentation.
func (l *Loaded) Keys() []Key { return l.keys }

// Choose measures other messengers than the configuration says.
func (l *Loaded) Choose(messengers []string) {
	l.Messengers = messengers
	l.keys = slices.DeleteFunc(l.keys, func(k Key) bool { return k.Name == "messengers" })
}

// At is err, with the place that the value of a key was written at before it.
func (l *Loaded) At(key string, err error) error {
	i := slices.IndexFunc(l.keys, func(k Key) bool { return k.Name == key })
	if err == nil || i < 0 || l.keys[i].Source == "default" {
		return err
	}
	return fmt.Errorf("%s: %w", l.keys[i].Source, err)
}

// Load reads the configuration. file is --config, "" looks in the usual
// places and is content with none. A flag of flags that was set wins over all;
// flags are matched to keys by name, with "-" for "." and "_".
func Load(file string, flags *pflag.FlagSet) (*Loaded, error) {
	path, text, err := readFile(file)
	if err != nil {
		return nil, err
	}
	lines, err := checkFile(path, text)
	if err != nil {
		return nil, err
	}

	// A fresh viper each time: one that is read while it is written races.
	v := viper.New()
	def := Default()
	keys(&def, func(name string, f reflect.Value) {
		v.SetDefault(name, plain(f))
		v.BindEnv(name, EnvName(name))
		if flags != nil {
			if fl := flags.Lookup(FlagName(name)); fl != nil {
				v.BindPFlag(name, fl)
			}
		}
	})
	v.SetConfigType("yaml")
	if err := v.ReadConfig(bytes.NewReader(text)); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}

	l := &Loaded{File: path, places: usual(file)}
	source := func(key string) string {
		if at := strings.LastIndex(key, "]."); at > 0 {
			for _, k := range []string{key, key[:at+2]} { // a key, and the item that lacks it
				if line, ok := lines[k]; ok {
					return fmt.Sprintf("%s:%d", path, line)
				}
			}
		}
		key, _, _ = strings.Cut(key, "[")
		if flags != nil {
			if f := flags.Lookup(FlagName(key)); f != nil && f.Changed {
				return "--" + f.Name
			}
		}
		if os.Getenv(EnvName(key)) != "" {
			return EnvName(key)
		}
		if line, ok := lines[key]; ok {
			return fmt.Sprintf("%s:%d", path, line)
		}
		return "default"
	}
	errs := listEnv()
	if len(errs) > 0 {
		// What follows would stumble over them.
	} else if err := v.UnmarshalExact(&l.Config, viper.DecodeHook(mapstructure.ComposeDecodeHookFunc(
		noNumber, splitList, mapstructure.TextUnmarshallerHookFunc())), func(c *mapstructure.DecoderConfig) {
		c.TagName = "yaml"
	}); err != nil {
		errs = append(errs, decodeErrors(err, source)...)
	}
	errs = append(unknownEnv(&l.Config), errs...)
	// An interval under the default timeout takes the timeout with it; one that
	// was written down is the operator's own contradiction.
	if l.Timeout > l.Interval && l.Interval > 0 && source("timeout") == "default" {
		l.Timeout = l.Interval
	}
	if len(errs) == 0 {
		for _, p := range l.Config.problems() {
			errs = append(errs, fmt.Errorf("%s: %s: %s", source(p.key), p.key, p.text))
		}
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	keys(&l.Config, func(name string, f reflect.Value) {
		l.keys = append(l.keys, Key{name, masked(f), source(name)})
	})
	return l, nil
}

// plain is a default as viper may hold it.
func plain(v reflect.Value) any {
	if d, ok := v.Interface().(Duration); ok {
		return d.String()
	}
	return v.Interface()
}

// EnvName is the variable of a key: vantage.country is
// MESSENGER_PROBE_VANTAGE_COUNTRY.
func EnvName(key string) string {
	return Prefix + strings.ToUpper(strings.ReplaceAll(key, ".", "_"))
}

// FlagName is the flag of a key: log.level is --log-level.
func FlagName(key string) string {
	return strings.NewReplacer(".", "-", "_", "-").Replace(key)
}

// usual is where the file is, or would be.
func usual(named string) (places []string) {
	if named != "" {
		return []string{named}
	}
	if dir, err := os.UserConfigDir(); err == nil {
		places = append(places, filepath.Join(dir, "messenger-probe", "config.yaml"))
	}
	return append(places, "/etc/messenger-probe/config.yaml")
}

// readFile finds and reads the file. No file at all is fine unless one was
// named.
func readFile(named string) (path string, text []byte, err error) {
	for _, p := range usual(named) {
		f, err := os.Open(p)
		if err != nil {
			// A usual place that cannot even be looked at (another user's home)
			// is not there for us; a file there that may not be read is a mistake.
			if _, err := os.Lstat(p); named == "" && err != nil {
				continue
			}
			return "", nil, fmt.Errorf("configuration: %w; name a readable file with --config, or none for the defaults", err)
		}
		defer f.Close()
		text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
		if err != nil {
			return "", nil, fmt.Errorf("configuration: %w", err)
		}
		if len(text) > maxFile {
			return "", nil, fmt.Errorf("%s: larger than 1 MiB; this is no configuration of messenger-probe", p)
		}
		return p, text, nil
	}
	return "", nil, nil
}

// checkFile decodes the file strictly for errors with lines, and says on which
// line each key stands.
func checkFile(path string, text []byte) (map[string]int, error) {
	lines, belongs := map[string]int{}, values{}
	if path == "" {
		return lines, nil
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil {
		return nil, yamlError(path, belongs, err)
	}
	if len(doc.Content) == 0 {
		return lines, nil // empty, or comments alone: all defaults
	}
	if root := doc.Content[0]; root.Kind != yaml.MappingNode {
		return nil, fmt.Errorf("%s:%d: a configuration is a mapping of keys to values, such as \"interval: 60s\"", path, root.Line)
	}
	var walk func(prefix string, n *yaml.Node)
	walk = func(prefix string, n *yaml.Node) {
		for i := 0; i+1 < len(n.Content); i += 2 {
			name := prefix + n.Content[i].Value
			lines[name] = n.Content[i].Line
			belongs.add(n.Content[i+1].Line, name)
			switch v := n.Content[i+1]; v.Kind {
			case yaml.MappingNode:
				walk(name+".", v)
			case yaml.SequenceNode:
				for j, e := range v.Content {
					item := fmt.Sprintf("%s[%d].", name, j)
					lines[item] = e.Line // of the item itself, for a key that it lacks
					if e.Kind == yaml.MappingNode {
						walk(item, e)
					}
				}
			}
		}
	}
	walk("", doc.Content[0])
	dec := yaml.NewDecoder(bytes.NewReader(text))
	dec.KnownFields(true)
	var c Config
	if err := dec.Decode(&c); err != nil && err != io.EOF {
		return nil, yamlError(path, belongs, err)
	}
	if err := dec.Decode(&c); err != io.EOF {
		return nil, fmt.Errorf("%s: more than one YAML document; remove what follows the second ---", path)
	}
	return lines, nil
}

// values is which key's value begins on a line, as far as that tells: of several
// on one line, what they have in common.
type values map[int]string

func (v values) add(line int, key string) {
	old, ok := v[line]
	if !ok {
		v[line] = key
		return
	}
	for old != "" && key != old && !strings.HasPrefix(key, old+".") && !strings.HasPrefix(key, old+"[") {
		old = old[:max(strings.LastIndexByte(old, '.'), 0)]
	}
	v[line] = old
}

// at is the key to which what stands on a line belongs.
func (v values) at(line int) string {
	for ; line > 0; line-- {
		if key, ok := v[line]; ok {
			return key
		}
	}
	return ""
}

var (
	yamlLine     = regexp.MustCompile(`^(?:yaml: )?line (\d+): (.*)$`)
	unknownField = regexp.MustCompile(`^field (\S+) not found in type config\.(\w+)$`)
	wrongType    = regexp.MustCompile(`^cannot unmarshal !!(\w+) (.*)into (.*)$`)
)

// yamlError turns the decoder's words into ours: file:line: key: what, and the
// mend.
func yamlError(path string, belongs values, err error) error {
	texts := []string{err.Error()}
	if te, ok := errors.AsType[*yaml.TypeError](err); ok {
		texts = te.Errors
	}
	var errs []error
	for _, t := range texts {
		where, key := path, ""
		if m := yamlLine.FindStringSubmatch(t); m != nil {
			where, t = path+":"+m[1], m[2]
			if line, err := strconv.Atoi(m[1]); err == nil {
				key = belongs.at(line)
			}
		}
		if m := unknownField.FindStringSubmatch(t); m != nil {
			t = fmt.Sprintf("unknown key %q", m[1])
			if near := spelling.Nearest(m[1], fieldNames(m[2])); near != "" {
				t += fmt.Sprintf("; did you mean %q?", near)
			}
		} else if m := wrongType.FindStringSubmatch(t); m != nil {
			t = fmt.Sprintf("a %s stands where %s belongs", plainType(m[1]), goType(m[3]))
		}
		if key != "" && !strings.HasPrefix(t, "unknown key") {
			t = key + ": " + t
		}
		errs = append(errs, fmt.Errorf("%s: %s", where, t))
	}
	return errors.Join(errs...)
}

func plainType(tag string) string {
	switch tag {
	case "seq":
		return "list"
	case "map":
		return "mapping"
	case "str":
		return "text"
	case "int", "float":
		return "number"
	}
	return tag
}

func goType(name string) string {
	switch {
	case name == "[]string":
		return "a list of names, such as [whatsapp, telegram],"
	case strings.HasSuffix(name, "Duration"):
		return "a duration with a unit, such as 60s,"
	case name == "bool":
		return "true or false"
	case strings.HasPrefix(name, "[]"):
		return "a list"
	case name == "string":
		return "a text"
	}
	return "a mapping"
}

// UnmarshalYAML is UnmarshalText that knows the line.
func (d *Duration) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind != yaml.ScalarNode {
		return &yaml.TypeError{Errors: []string{fmt.Sprintf("line %d: not one value; write a duration with a unit, such as 30s or 5m", n.Line)}}
	}
	if err := d.UnmarshalText([]byte(n.Value)); err != nil {
		return &yaml.TypeError{Errors: []string{fmt.Sprintf("line %d: %v", n.Line, err)}}
	}
	return nil
}

// fieldNames is the keys of one of our structs.
func fieldNames(typ string) []string {
	for _, t := range []any{Config{}, Vantage{}, Trust{}, Comparator{}, Notify{}, Target{}, Log{}} {
		if r := reflect.TypeOf(t); r.Name() == typ {
			var names []string
			for i := range r.NumField() {
				names = append(names, r.Field(i).Tag.Get("yaml"))
			}
			return names
		}
	}
	return nil
}

// listEnv finds variables for what only the file can hold.
func listEnv() []error {
	var errs []error
	def := Default()
	keys(&def, func(name string, v reflect.Value) {
		if e := v.Type(); e.Kind() == reflect.Slice && e.Elem().Kind() == reflect.Struct && os.Getenv(EnvName(name)) != "" {
			errs = append(errs, fmt.Errorf("%s: a list of %s cannot be written in a variable; put it into the configuration file", EnvName(name), name))
		}
	})
	return errs
}

// unknownEnv finds variables with our prefix that are no key, and hold no secret
// that c asks for.
func unknownEnv(c *Config) []error {
	var known []string
	keys(c, func(name string, _ reflect.Value) { known = append(known, EnvName(name)) })
	for _, t := range c.Notify.Targets {
		known = append(known, t.URLEnv, t.TokenEnv, t.PasswordEnv)
	}
	var errs []error
	for _, kv := range os.Environ() {
		name, _, _ := strings.Cut(kv, "=")
		if !strings.HasPrefix(name, Prefix) || slices.Contains(known, name) {
			continue
		}
		text := "unknown variable"
		if near := spelling.Nearest(name, known); near != "" {
			text += "; did you mean " + near + "?"
		}
		errs = append(errs, fmt.Errorf("%s: %s", name, text))
	}
	slices.SortFunc(errs, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return errs
}

// splitList lets a list be written with commas in a variable.
func splitList(from, to reflect.Type, v any) (any, error) {
	if s, ok := v.(string); ok && to == reflect.TypeFor[[]string]() {
		var list []string
		for _, e := range strings.Split(s, ",") {
			if e = strings.TrimSpace(e); e != "" {
				list = append(list, e)
			}
		}
		return list, nil
	}
	return v, nil
}

// noNumber refuses a bare number for a duration.
func noNumber(from, to reflect.Type, v any) (any, error) {
	if to == reflect.TypeFor[Duration]() && from.Kind() != reflect.String {
		return nil, fmt.Errorf("%v has no unit; write a duration such as %vs", v, v)
	}
	return v, nil
}

var decodeName = regexp.MustCompile(`^'([^']*)'[:]? ?(.*)$`)

// decodeErrors gives each of mapstructure's complaints its place.
func decodeErrors(err error, source func(string) string) []error {
	var errs []error
	for _, line := range strings.Split(err.Error(), "\n") {
		line = strings.TrimPrefix(strings.TrimSpace(line), "* ")
		if m := decodeName.FindStringSubmatch(line); m != nil {
			key := strings.ToLower(m[1])
			text := strings.TrimPrefix(m[2], "error decoding '"+m[1]+"': ")
			text = strings.TrimPrefix(text, "cannot parse value as 'bool': ")
			errs = append(errs, fmt.Errorf("%s: %s: %s", source(key), key, text))
		}
	}
	if len(errs) == 0 {
		errs = append(errs, err)
	}
	return errs
}
