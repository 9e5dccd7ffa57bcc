package main

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// module is our import path.
const module = "github.com/messenger-probe/messenger-probe"

// A room is a package of the module, its tests apart.
type room struct {
	path    string // below the module: probe/schedule
	files   map[string]*ast.File
	imports map[string][]string // what, by which files
}

// house is every package, by path.
func house(t *testing.T) map[string]*room {
	t.Helper()
	const root = "../.."
	rooms := map[string]*room{}
	fset := token.NewFileSet()
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		if d.IsDir() {
			_, other := os.Stat(filepath.Join(path, "go.mod"))
			if rel != "." && (other == nil || d.Name() == "testdata" || strings.HasPrefix(d.Name(), ".")) {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(rel, ".go") || strings.HasSuffix(rel, "_test.go") {
			return nil
		}
		f, err := parser.ParseFile(fset, path, nil, parser.ParseComments)
		if err != nil {
			return err
		}
		dir := filepath.ToSlash(filepath.Dir(rel))
		r := rooms[dir]
		if r == nil {
			r = &room{path: dir, files: map[string]*ast.File{}, imports: map[string][]string{}}
			rooms[dir] = r
		}
		r.files[filepath.ToSlash(rel)] = f
		for _, imp := range f.Imports {
			what, _ := strconv.Unquote(imp.Path.Value)
			r.imports[what] = append(r.imports[what], filepath.ToSlash(rel))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(rooms) < 15 {
		t.Fatalf("only %d packages found: %v", len(rooms), slices.Sorted(maps.Keys(rooms)))
	}
	return rooms
}

// below says that path is dir or in it.
func below(path, dir string) bool { return path == dir || strings.HasPrefix(path, dir+"/") }

func belowAny(path string, dirs ...string) bool {
	return slices.ContainsFunc(dirs, func(d string) bool { return below(path, d) })
}

// Data flows one way, and so do imports: the core knows nobody, packages beside
// it know it, adapters know those but not each other, and main wires.
func TestImportsOfOurs(t *testing.T) {
	// Who may import what of ours; the longest row that fits counts.
	may := map[string][]string{
		"probe":                {"probe/wire"},
		"probe/wire":           {},
		"probe/probetest":      {"probe/wire"}, // probe's own tests import it
		"probe/schedule":       {"probe"},
		"probe/verdict":        {"probe"},
		"probe/onset":          {"probe"},
		"targets":              {"probe", "targets/spelling", "targets/plainfile"},
		"targets/spelling":     {},
		"targets/plainfile":    {},
		"cmd/internal":         {"probe", "targets"},
		"cmd/messenger-probe":  {"probe", "targets", "cmd/internal"},
		"cmd/internal/netlab":  {"probe/probetest"}, // of tests, for tests
		"cmd/internal/metrics": {"probe"},
	}
	rowOf := func(path string) string {
		best := ""
		for row := range may {
			if below(path, row) && len(row) > len(best) {
				best = row
			}
		}
		return best
	}
	for path, r := range house(t) {
		row := rowOf(path)
		if row == "" {
			t.Errorf("%s is in no row: say here whom it may import", path)
			continue
		}
		for what, files := range r.imports {
			ours, ok := strings.CutPrefix(what, module+"/")
			if !ok {
				continue
			}
			allowed := belowAny(ours, may[row]...)
			if row == "probe" || strings.HasPrefix(row, "probe/") || row == "targets" {
				// The core alone is meant, not what stands beside it.
				allowed = slices.Contains(may[row], ours) || below(ours, "probe/wire") && slices.Contains(may[row], "probe/wire")
			}
			if row == "cmd/messenger-probe" && ours == "cmd/internal/netlab" || strings.HasSuffix(ours, "probetest") && row != "cmd/internal/netlab" {
				allowed = false
			}
			if !allowed {
				t.Errorf("%s imports %s; %s may import %v", strings.Join(files, ", "), ours, row, may[row])
			}
		}
	}
}

// Each library stands behind one door, so that it can be changed there.
func TestImportsOfOthers(t *testing.T) {
	const none = "-"
	doors := map[string][]string{
		"github.com/spf13/viper":                 {"cmd/internal/config/"},
		"github.com/spf13/pflag":                 {"cmd/internal/config/"},
		"github.com/go-viper/mapstructure":       {"cmd/internal/config/"},
		"github.com/spf13/cobra":                 {"cmd/messenger-probe/"},
		"github.com/prometheus/client_golang":    {"cmd/internal/metrics/"},
		"github.com/prometheus/client_model":     {"cmd/internal/metrics/"},
		"google.golang.org/protobuf":             {"cmd/internal/metrics/"},
		"github.com/prometheus/exporter-toolkit": {"cmd/internal/web/"},
		"github.com/landlock-lsm/go-landlock":    {"cmd/internal/confine/"},
		"github.com/KimMachineGun/automemlimit":  {"cmd/messenger-probe/host.go"},
		"go.yaml.in/yaml":                        {"targets/", "cmd/internal/config/", "cmd/internal/web/guard.go"},
		"github.com/quic-go/quic-go":             {"probe/quic.go", "probe/http.go", "probe/probetest/"},
		"github.com/miekg/dns":                   {"probe/dns.go", "probe/lookup.go", "probe/probetest/", "cmd/internal/netlab/"},
		"github.com/coder/websocket":             {"probe/", "probe/probetest/"},
		"golang.org/x/crypto/x509roots":          {"probe/trust.go"},
		"golang.org/x/net":                       {"probe/", "targets/"},
		"golang.org/x/sys":                       {"probe/", "cmd/internal/netlab/", "cmd/messenger-probe/"},
		"golang.org/x/time":                      {"cmd/internal/web/guard.go"},
		"golang.org/x/term":                      {"cmd/messenger-probe/"},
		"log/slog":                               {"cmd/"},
		"log":                                    {"probe/probetest/"},
		"testing":                                {"probe/probetest/", "cmd/internal/netlab/"},
		"unsafe":                                 {none},
		"net/http/pprof":                         {"cmd/internal/web/"},
	}
	used := map[string]bool{}
	for _, r := range house(t) {
		for what, files := range r.imports {
			if first, _, _ := strings.Cut(what, "/"); strings.HasPrefix(what, module) || !strings.Contains(first, ".") && doors[what] == nil {
				continue
			}
			var door []string
			for lib, d := range doors {
				if below(what, lib) && (lib != "log" || what == "log") {
					door = d
					used[lib] = true
				}
			}
			if door == nil {
				t.Errorf("%s has no door: say here who may import it (%v does)", what, files)
			}
			for _, f := range files {
				if !slices.ContainsFunc(door, func(d string) bool {
					// A folder is meant without those in it, except for cmd.
					return f == d || strings.HasSuffix(d, "/") && (filepath.Dir(f)+"/" == d || d == "cmd/" && strings.HasPrefix(f, d))
				}) {
					t.Errorf("%s imports %s; that is for %v", f, what, door)
				}
			}
		}
	}
	for lib, d := range doors {
		if strings.Contains(lib, ".") && d[0] != none && !used[lib] {
			t.Errorf("nobody imports %s any more; drop its door", lib)
		}
	}
}

// What the core draws in by way of others knows no Prometheus, no viper, no
// YAML and no command line either.
func TestDependenciesOfTheCore(t *testing.T) {
	for pattern, banned := range map[string][]string{
		"./probe/wire/...": {"."}, // the standard library has no dot
		"./probe/onset":    {"."},
		"./probe":          {"prometheus", "viper", "yaml", "cobra", "testing", "slog"},
		"./probe/schedule": {"prometheus", "viper", "yaml", "cobra", "testing"},
		"./probe/verdict":  {"prometheus", "viper", "yaml", "cobra", "testing"},
		"./targets":        {"prometheus", "viper", "cobra", "testing"},
	} {
		c := exec.CommandContext(t.Context(), "go", "list", "-deps", pattern)
		c.Dir = "../.."
		var stderr bytes.Buffer
		c.Stderr = &stderr
		out, err := c.Output()
		if err != nil {
			t.Fatalf("go list %s: %v\n%s", pattern, err, stderr.String())
		}
		for dep := range strings.Lines(string(out)) {
			dep = strings.TrimSpace(dep)
			first, _, _ := strings.Cut(dep, "/")
			std := !strings.Contains(first, ".")
			for _, b := range banned {
				hit := slices.Contains(strings.Split(dep, "/"), b) || !std && b != "testing" && b != "slog" && strings.Contains(dep, b) && b != "."
				if b == "." {
					hit = !std && !strings.HasPrefix(dep, module)
				}
				if b == "slog" && !strings.HasPrefix(dep, module) {
					hit = false // quic-go logs, if asked to
				}
				if hit {
					t.Errorf("%s draws in %s", pattern, dep)
				}
			}
		}
	}
}

// Each package says once what it is for. Nothing runs before main, and what is
// shared by all is not changed.
func TestPackages(t *testing.T) {
	for path, r := range house(t) {
		if slices.Contains([]string{"util", "utils", "common", "helpers", "misc"}, filepath.Base(path)) {
			t.Errorf("%s: a package named for nothing", path)
		}
		var docs []string
		vars := map[string]bool{}
		for name, f := range r.files {
			if f.Doc != nil {
				docs = append(docs, name)
				prefix := "Package " + f.Name.Name + " "
				if f.Name.Name == "main" {
					prefix = "Command " + filepath.Base(path) + " "
				}
				if !strings.HasPrefix(f.Doc.Text(), prefix) {
					t.Errorf("%s: its comment does not begin with %q", name, prefix)
				}
			}
			for _, d := range f.Decls {
				switch d := d.(type) {
				case *ast.FuncDecl:
					if d.Recv == nil && d.Name.Name == "init" {
						t.Errorf("%s has an init function", name)
					}
				case *ast.GenDecl:
					for _, s := range d.Specs {
						if v, ok := s.(*ast.ValueSpec); ok && d.Tok == token.VAR {
							for _, id := range v.Names {
								vars[id.Name] = id.Name != "_"
							}
						}
					}
				}
			}
		}
		if len(docs) != 1 {
			t.Errorf("%s has %d package comments: %v", path, len(docs), docs)
		}
		for name, f := range r.files {
			for _, what := range changes(f, vars) {
				t.Errorf("%s changes the package's %s at run time", name, what)
			}
		}
	}
}

// changes is the package's variables that the functions of a file assign to,
// or to a part of, as far as its syntax tells.
func changes(f *ast.File, vars map[string]bool) []string {
	var found []string
	hit := func(e ast.Expr) {
		for {
			switch x := e.(type) {
			case *ast.IndexExpr:
				e = x.X
				continue
			case *ast.SelectorExpr:
				e = x.X
				continue
			case *ast.StarExpr:
				e = x.X
				continue
			case *ast.ParenExpr:
				e = x.X
				continue
			case *ast.Ident:
				// The parser resolves what is declared in the function, or in the
				// file; nil is another file's.
				if vars[x.Name] && (x.Obj == nil || f.Scope.Lookup(x.Name) == x.Obj) {
					found = append(found, x.Name)
				}
			}
			return
		}
	}
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.AssignStmt:
			if n.Tok != token.DEFINE {
				for _, l := range n.Lhs {
					hit(l)
				}
			}
		case *ast.IncDecStmt:
			hit(n.X)
		case *ast.CallExpr:
			if id, ok := n.Fun.(*ast.Ident); ok && (id.Name == "delete" || id.Name == "clear") && len(n.Args) > 0 {
				hit(n.Args[0])
			}
		}
		return true
	})
	return found
}

// The rule that finds changes finds them.
func TestChanges(t *testing.T) {
	const src = `package p
var a, b, c, d, e, g = 1, map[string]int{}, []int{}, 1, 1, struct{ n int }{}
func f(d int) {
	a = 2
	b["x"] = 1
	c[0]++
	d = 3
	e := 4
	e = 5
	g.n = 1
	elsewhere = 1
	delete(b, "x")
}`
	f, err := parser.ParseFile(token.NewFileSet(), "p.go", src, 0)
	if err != nil {
		t.Fatal(err)
	}
	vars := map[string]bool{"a": true, "b": true, "c": true, "d": true, "e": true, "g": true, "elsewhere": true}
	if got := strings.Join(changes(f, vars), " "); got != "a b c g elsewhere b" {
		t.Errorf("%s", got)
	}
}
