package targets

import (
	"bytes"
	"encoding"
	"errors"
	"fmt"
	"io"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/messenger-probe/messenger-probe/targets/spelling"
)

// What one file may hold. The embedded catalogue stays far below.
const (
	maxFile  = 1 << 20 // bytes
	maxNodes = 300_000 // after aliases are followed: an alias bomb ends here
	maxDepth = 16
	maxFound = 50 // errors told of one file
)

// A document is one catalogue file.
type document struct {
	Messenger   string     `yaml:"messenger"`
	Title       string     `yaml:"title"`
	Network     string     `yaml:"network"` // of endpoints that name none
	TestNetwork bool       `yaml:"test_network"`
	Endpoints   []Endpoint `yaml:"endpoints"`
	Resolvers   []Resolver `yaml:"resolvers"`

	at place
}

// decode reads one file. It is stricter than the YAML library's own decoder,
// and says where: each error has the line and the path of the key.
func decode(file string, data []byte) (*document, error) {
	fail := func(line int, format string, args ...any) (*document, error) {
		return nil, &Error{File: file, Line: line, Text: fmt.Sprintf(format, args...)}
	}
	const empty = "the file is empty; it should start with messenger: NAME, or with resolvers:"
	if len(data) > maxFile {
		return fail(0, "the file is larger than %d KiB", maxFile>>10)
	}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var root, more yaml.Node
	if err := dec.Decode(&root); errors.Is(err, io.EOF) {
		return fail(0, "%s", empty)
	} else if err != nil {
		line, text := position(err)
		return fail(line, "not YAML: %s", text)
	}
	if err := dec.Decode(&more); !errors.Is(err, io.EOF) {
		return fail(more.Line, "a second document after ---; one file holds one")
	}
	d := decoder{file: file, nodes: maxNodes}
	doc := new(document)
	if len(root.Content) > 0 {
		d.value(root.Content[0], reflect.ValueOf(doc).Elem(), "", 0)
	}
	return doc, errors.Join(d.errs...)
}

var yamlLine = regexp.MustCompile(`^yaml: (?:line (\d+): )?`)

// position takes the line out of the YAML library's message.
func position(err error) (line int, text string) {
	text = err.Error()
	if m := yamlLine.FindStringSubmatch(text); m != nil {
		line, _ = strconv.Atoi(m[1])
		text = text[len(m[0]):]
		// The library's parser, unlike its scanner, counts lines from 0.
		if strings.HasPrefix(text, "did not find expected") {
			line++
		}
	}
	return line, text
}

type decoder struct {
	file  string
	nodes int // that may still be visited
	errs  []error
}

// errorf notes an error, unless there are enough.
func (d *decoder) errorf(n *yaml.Node, path, format string, args ...any) {
	if len(d.errs) < maxFound {
		d.errs = append(d.errs, &Error{File: d.file, Line: n.Line, Key: path, Text: fmt.Sprintf(format, args...)})
	}
}

// value decodes n into v, whose type is a struct of this package, a slice, a map
// of texts, or a scalar.
func (d *decoder) value(n *yaml.Node, v reflect.Value, path string, depth int) {
	if n = d.follow(n, path, depth); n == nil {
		return
	}
	if u, ok := v.Addr().Interface().(encoding.TextUnmarshaler); ok {
		if s, ok := d.scalar(n, path, "one value"); ok {
			if err := u.UnmarshalText([]byte(s)); err != nil {
				d.errorf(n, path, "%s", wording(v, s, err))
			}
		}
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		d.mapping(n, v, path, depth)
	case reflect.Slice:
		if n.Kind != yaml.SequenceNode {
			d.errorf(n, path, "%s, but a list is wanted, as in [a, b]", describe(n))
			return
		}
		v.Set(reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content)))
		for i, c := range n.Content {
			d.value(c, v.Index(i), fmt.Sprintf("%s[%d]", path, i), depth+1)
		}
	case reflect.Map:
		d.words(n, v, path, depth)
	case reflect.String:
		if s, ok := d.scalar(n, path, "text"); ok {
			v.SetString(s)
		}
	case reflect.Bool:
		if s, ok := d.scalar(n, path, "true or false"); ok {
			if s != "true" && s != "false" {
				d.errorf(n, path, "%q is neither true nor false", s)
			}
			v.SetBool(s == "true")
		}
	case reflect.Int, reflect.Uint16:
		d.number(n, v, path)
	default:
		panic("targets: no rule to decode " + v.Type().String())
	}
}

// follow resolves aliases and counts what is visited.
func (d *decoder) follow(n *yaml.Node, path string, depth int) *yaml.Node {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if d.nodes--; d.nodes < 0 || depth > maxDepth {
		if d.nodes == -1 || depth > maxDepth {
			d.errorf(n, path, "too much: aliases that multiply, or lists too deep")
			d.nodes = -2
		}
		return nil
	}
	return n
}

// mapping decodes a mapping into a struct. A merge key, <<: *anchor, gives
// fields that the mapping does not set itself.
func (d *decoder) mapping(n *yaml.Node, v reflect.Value, path string, depth int) {
	if n.Kind != yaml.MappingNode {
		d.errorf(n, path, "%s, but keys with values are wanted, as in name: web", describe(n))
		return
	}
	at := place{file: d.file, path: path, line: n.Line, lines: make(map[string]int)}
	d.fields(n, v, path, depth, at.lines, nil)
	switch p := v.Addr().Interface().(type) {
	case *Endpoint:
		p.at = at
	case *Resolver:
		p.at = at
	case *document:
		p.at = at
	}
}

// fields sets those fields of v that n has and set does not.
func (d *decoder) fields(n *yaml.Node, v reflect.Value, path string, depth int, lines map[string]int, set []string) {
	own := slices.Clone(set)
	var merged []*yaml.Node
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, c := n.Content[i], n.Content[i+1]
		if d.follow(k, path, depth) == nil {
			return
		}
		key := k.Value
		if k.Tag == "!!merge" {
			merged = append(merged, c)
			continue
		}
		if k.Kind != yaml.ScalarNode {
			d.errorf(k, path, "a key must be one word")
			continue
		}
		f, known := fieldOf(v, key)
		switch {
		case !known:
			d.errorf(k, join(path, key), "no such key%s", hint(key, keysOf(v)))
			continue
		case slices.Contains(own[len(set):], key):
			d.errorf(k, join(path, key), "the key is there twice; keep one")
			continue
		case slices.Contains(set, key):
			continue
		}
		own = append(own, key)
		lines[key] = k.Line
		d.value(c, f, join(path, key), depth+1)
	}
	for _, m := range merged {
		if m = d.follow(m, path, depth); m == nil {
			return
		}
		if m.Kind != yaml.MappingNode {
			d.errorf(m, path, "<<: wants one anchor of an entry, as in <<: *name")
			continue
		}
		d.fields(m, v, path, depth+1, lines, own)
	}
}

// words decodes a mapping of free keys to texts.
func (d *decoder) words(n *yaml.Node, v reflect.Value, path string, depth int) {
	if n.Kind != yaml.MappingNode {
		d.errorf(n, path, "%s, but keys with values are wanted, as in {ok: \"false\"}", describe(n))
		return
	}
	v.Set(reflect.MakeMap(v.Type()))
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, c := n.Content[i], d.follow(n.Content[i+1], path, depth+1)
		if c == nil {
			return
		}
		if k.Kind != yaml.ScalarNode || c.Kind != yaml.ScalarNode {
			d.errorf(k, path, "a key and its value must be one word each")
			continue
		}
		v.SetMapIndex(reflect.ValueOf(k.Value), reflect.ValueOf(c.Value))
	}
}

// scalar is the text of a single value that is not null.
func (d *decoder) scalar(n *yaml.Node, path, want string) (string, bool) {
	switch {
	case n.Kind != yaml.ScalarNode:
		d.errorf(n, path, "%s, but %s is wanted", describe(n), want)
	case n.Tag == "!!null" || n.Value == "":
		d.errorf(n, path, "nothing, but %s is wanted; leave the key out to have the default", want)
	default:
		return n.Value, true
	}
	return "", false
}

func (d *decoder) number(n *yaml.Node, v reflect.Value, path string) {
	s, ok := d.scalar(n, path, "a number")
	if !ok {
		return
	}
	i, err := strconv.Atoi(s)
	if err != nil {
		d.errorf(n, path, "%q is no whole number", s)
		return
	}
	if v.Kind() == reflect.Int {
		v.SetInt(int64(i))
		return
	}
	if i < 1 || i > 65535 {
		d.errorf(n, path, "%d is no port; ports go from 1 to 65535", i)
		return
	}
	v.SetUint(uint64(i))
}

// wording is what to say of a scalar that its type refused.
func wording(v reflect.Value, s string, err error) string {
	if v.Type().PkgPath() == "net/netip" {
		return fmt.Sprintf("%q is no IP address; host names go to host", s)
	}
	return err.Error()
}

func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.SequenceNode:
		return "a list"
	case yaml.MappingNode:
		return "keys with values"
	}
	if n.Tag == "!!null" {
		return "nothing"
	}
	return strconv.Quote(n.Value)
}

func join(path, key string) string {
	if path == "" || key == "" {
		return path + key
	}
	return path + "." + key
}

func fieldOf(v reflect.Value, key string) (reflect.Value, bool) {
	for i := range v.NumField() {
		if t := v.Type().Field(i).Tag.Get("yaml"); t != "" && t == key {
			return v.Field(i), true
		}
	}
	return reflect.Value{}, false
}

func keysOf(v reflect.Value) []string {
	var keys []string
	for i := range v.NumField() {
		if t := v.Type().Field(i).Tag.Get("yaml"); t != "" {
			keys = append(keys, t)
		}
	}
	return keys
}

// hint is what to say after a word that is not in a closed set: the nearest of
// the set, or all of it.
func hint(word string, set []string) string {
	if near := spelling.Nearest(word, set); near != "" {
		return fmt.Sprintf("; did you mean %s?", near)
	}
	return "; known are " + strings.Join(set, ", ")
}
