package targets

import (
	"cmp"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/messenger-probe/messenger-probe/probe"
	"github.com/messenger-probe/messenger-probe/targets/plainfile"
)

//go:embed catalogue/*.yaml
var embedded embed.FS

// What a catalogue may hold, the embedded files and an overlay together.
const (
	maxFiles     = 64
	maxEndpoints = 5000
	maxResolvers = 64
)

// Load is the embedded catalogue with the *.yaml files of a folder laid over
// it; "" is the embedded one alone.
//
// An overlay file adds its endpoints to the messenger that it names, or makes a
// new one. An endpoint of a name that the messenger has already replaces that
// endpoint as a whole; to switch one off, replace it by one of tier optional.
// Resolvers likewise. Load returns a whole catalogue or none, and every error
// that it found, each an [*Error] with its place.
func Load(folder string) (*Catalogue, error) {
	files, err := read(folder)
	if err != nil {
		return nil, err
	}
	return build(files)
}

// Validate says whether the embedded catalogue with these files laid over it
// would be accepted.
func Validate(files ...string) error {
	if len(files) > maxFiles {
		return fmt.Errorf("%d files are too many; at most %d", len(files), maxFiles)
	}
	all, err := read("")
	if err != nil {
		return err
	}
	var errs []error
	for _, name := range files {
		data, err := readFile(name)
		errs = append(errs, err)
		all = append(all, file{name, data})
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	_, err = build(all)
	return err
}

type file struct {
	name string
	data []byte
}

// read is the embedded files, then those of the folder, each group by name.
func read(folder string) ([]file, error) {
	var files []file
	names, err := fs.Glob(embedded, "catalogue/*.yaml")
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		data, err := embedded.ReadFile(name)
		if err != nil {
			return nil, err
		}
		files = append(files, file{name, data})
	}
	if folder == "" {
		return files, nil
	}
	if fi, err := os.Stat(folder); err != nil {
		return nil, err
	} else if !fi.IsDir() {
		return nil, &Error{File: folder, Text: "not a folder; the catalogue is laid over from a folder of *.yaml files"}
	}
	names, err = list(folder)
	if err != nil {
		return nil, err
	}
	switch {
	case len(names) == 0:
		return nil, &Error{File: folder, Text: "no *.yaml file in this folder"}
	case len(names) > maxFiles:
		return nil, &Error{File: folder, Text: fmt.Sprintf("%d files are too many; at most %d", len(names), maxFiles)}
	}
	var errs []error
	for _, name := range names {
		data, err := readFile(name)
		errs = append(errs, err)
		files = append(files, file{name, data})
	}
	return files, errors.Join(errs...)
}

// maxEntries is how much of a folder is looked through: one with more is not
// a catalogue's, but somebody's mail.
const maxEntries = 4096

// list is the *.yaml files of a folder, sorted.
func list(folder string) (names []string, err error) {
	f, err := os.Open(folder)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	all, err := f.Readdirnames(maxEntries + 1)
	if err != nil && err != io.EOF { // it says so of an empty one
		return nil, err
	}
	if len(all) > maxEntries {
		return nil, &Error{File: folder, Text: fmt.Sprintf("more than %d files; the catalogue is laid over from a folder of its own", maxEntries)}
	}
	for _, name := range all {
		if filepath.Ext(name) == ".yaml" {
			names = append(names, filepath.Join(folder, name))
		}
	}
	slices.Sort(names)
	return names, nil
}

// readFile reads as much of a file as decode needs to refuse a large one.
func readFile(name string) ([]byte, error) {
	f, err := plainfile.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxFile+1))
}

// build decodes the files, lays each over those before it, and validates the
// whole.
func build(files []file) (*Catalogue, error) {
	var errs []error
	var docs []*document
	for _, f := range files {
		doc, err := decode(f.name, f.data)
		if err == nil {
			err = doc.validate()
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		docs = append(docs, doc)
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}

	c := new(Catalogue)
	for _, doc := range docs {
		errs = append(errs, c.lay(doc))
		c.TestNetwork = c.TestNetwork || doc.TestNetwork
	}
	slices.SortFunc(c.Messengers, func(a, b Messenger) int { return strings.Compare(a.Name, b.Name) })
	errs = append(errs, c.validate())
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	c.Version = version(files, c)
	return c, nil
}

// lay adds one file to the catalogue.
func (c *Catalogue) lay(doc *document) error {
	for _, r := range doc.Resolvers {
		if i := slices.IndexFunc(c.Resolvers, func(o Resolver) bool { return o.Name == r.Name }); i >= 0 {
			c.Resolvers[i] = r
		} else {
			c.Resolvers = append(c.Resolvers, r)
		}
	}
	if doc.Messenger == "" {
		return nil
	}
	i := slices.IndexFunc(c.Messengers, func(m Messenger) bool { return m.Name == doc.Messenger })
	if i < 0 {
		if doc.Title == "" {
			return doc.at.errorf("title", "missing; a new messenger needs one, as in title: Telegram")
		}
		i = len(c.Messengers)
		c.Messengers = append(c.Messengers, Messenger{Name: doc.Messenger})
	}
	m := &c.Messengers[i]
	m.Title = cmp.Or(doc.Title, m.Title)
	old := make(map[string]int, len(m.Endpoints))
	for i, e := range m.Endpoints {
		old[e.Name] = i
	}
	for _, e := range doc.Endpoints {
		e.Network = cmp.Or(e.Network, doc.Network)
		if i, ok := old[e.Name]; ok {
			m.Endpoints[i] = e
		} else {
			m.Endpoints = append(m.Endpoints, e)
		}
	}
	return nil
}

// version is the newest month in which anything was confirmed, and a hash of
// all files.
func version(files []file, c *Catalogue) string {
	h := sha256.New()
	for _, f := range files {
		fmt.Fprintf(h, "%d\n", len(f.data))
		h.Write(f.data)
	}
	var newest Month
	for _, m := range c.Messengers {
		for _, e := range m.Endpoints {
			if e.Confirmed.After(newest.Time) {
				newest = e.Confirmed
			}
		}
	}
	for _, r := range c.Resolvers {
		if r.Confirmed.After(newest.Time) {
			newest = r.Confirmed
		}
	}
	return newest.String() + "-" + hex.EncodeToString(h.Sum(nil)[:4])
}

// Names is what may be measured: every messenger but control, sorted.
func (c *Catalogue) Names() []string {
	var names []string
	for _, m := range c.Messengers {
		if m.Name != probe.Control {
			names = append(names, m.Name)
		}
	}
	return names
}

// Messenger is the messenger of a name.
func (c *Catalogue) Messenger(name string) (*Messenger, bool) {
	for i := range c.Messengers {
		if c.Messengers[i].Name == name {
			return &c.Messengers[i], true
		}
	}
	return nil, false
}
