package main

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// listed is the modules of the README's table of dependencies, with braces
// spelled out.
func listed(t *testing.T) (names []string) {
	t.Helper()
	for _, cell := range column(readme(t), "| module | why |") {
		for _, m := range regexp.MustCompile("[A-Za-z0-9./_-]+(?:{[^}]*})?").FindAllString(strings.TrimPrefix(cell, "tests: "), -1) {
			stem, more, braces := strings.Cut(strings.TrimSuffix(m, "}"), "{")
			if !braces {
				names = append(names, stem)
				continue
			}
			for _, x := range strings.Split(more, ",") {
				names = append(names, stem+x)
			}
		}
	}
	return names
}

// Every module that go.mod requires by itself has its reason in the README, and
// the README names no other.
func TestDependencies(t *testing.T) {
	mod, err := os.ReadFile("../../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	names := listed(t)
	used := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^\t(\S+) v\S+$`).FindAllStringSubmatch(string(mod), -1) {
		path := strings.TrimPrefix(m[1], "github.com/")
		i := slices.IndexFunc(names, func(n string) bool { return path == n || strings.HasPrefix(path, n+"/") })
		if i < 0 {
			t.Errorf("%s is in go.mod, and the README does not say why", m[1])
			continue
		}
		used[names[i]] = true
	}
	if len(used) < 10 {
		t.Errorf("only %d modules were found in go.mod", len(used))
	}
	for _, n := range names {
		if !used[n] {
			t.Errorf("%s is in the README and not in go.mod", n)
		}
	}
}

// licences are what the files of licences that may be linked say, by name.
var licences = []struct{ name, says string }{
	{"Apache-2.0", "Apache License Version 2.0"},
	{"MIT", "Permission is hereby granted, free of charge"},
	{"BSD", "Redistribution and use in source and binary forms"},
	{"ISC", "Permission to use, copy, modify, and/or distribute this software"},
	{"ISC", "Permission to use, copy, modify, and distribute this software for any purpose"},
}

// Whatever is linked into the program may be: its licence is one of the list,
// none of which asks for more than to be named.
func TestLicences(t *testing.T) {
	cmd := exec.Command("go", "list", "-deps", "-json=Module", ".")
	cmd.Env = append(os.Environ(), "GOOS=linux", "CGO_ENABLED=0")
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	counts, dirs := map[string]int{}, map[string]string{}
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p struct {
			Module *struct {
				Path, Dir string
				Main      bool
			}
		}
		if err := dec.Decode(&p); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		if p.Module != nil && !p.Module.Main {
			dirs[p.Module.Path] = p.Module.Dir
		}
	}
	for path, dir := range dirs {
		files, _ := filepath.Glob(filepath.Join(dir, "[Ll][Ii][Cc][Ee][Nn][CcSs][Ee]*"))
		name := ""
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				continue // a folder
			}
			for _, l := range licences {
				if name == "" && strings.Contains(strings.ToLower(strings.Join(strings.Fields(string(text)), " ")), strings.ToLower(l.says)) {
					name = l.name
				}
			}
		}
		if name == "" {
			t.Errorf("%s: no licence that is known among %v", path, files)
		}
		counts[name]++
	}
	if len(dirs) < 30 {
		t.Errorf("only %d modules are linked", len(dirs))
	}
	t.Logf("%d modules: %v", len(dirs), counts)
}

// SECURITY.md names the test of each of its promises, and each of those is
// there; every fuzz target there is has its input in the list, and the other way
// round.
func TestSECURITYPromises(t *testing.T) {
	text, err := os.ReadFile("../../SECURITY.md")
	if err != nil {
		t.Fatal(err)
	}
	have := map[string]bool{}
	root := "../.."
	err = filepath.WalkDir(root, func(path string, e os.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		code, err := os.ReadFile(path)
		for _, m := range regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(`).FindAllSubmatch(code, -1) {
			dir, err := filepath.Rel(root, filepath.Dir(path))
			if err != nil {
				return err
			}
			have[filepath.ToSlash(dir)+" "+string(m[1])], have[string(m[1])] = true, true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	named := 0
	for _, m := range regexp.MustCompile("`((?:Test|Fuzz)\\w+)`").FindAllStringSubmatch(string(text), -1) {
		named++
		if !have[m[1]] {
			t.Errorf("SECURITY.md names %s, which is not there", m[1])
		}
	}
	if named < 30 {
		t.Errorf("SECURITY.md names %d tests", named)
	}
	for where := range have {
		if dir, name, ok := strings.Cut(where, " "); ok && strings.HasPrefix(name, "Fuzz") && !strings.Contains(string(text), "`"+dir+"` `"+name+"`") {
			t.Errorf("SECURITY.md does not say what `%s` `%s` is for", dir, name)
		}
	}
}
