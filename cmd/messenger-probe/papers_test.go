package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/messenger-probe/messenger-probe/cmd/internal/config"
	"github.com/messenger-probe/messenger-probe/targets"
)

// top is the folder of the papers.
const top = "../.."

func sheet(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(top, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

var (
	fence = regexp.MustCompile("(?ms)^ *```.*?^ *```$")
	code  = regexp.MustCompile("`([^`\n]+)`")
	link  = regexp.MustCompile(`\]\(([^)#]+)[^)]*\)`)
)

// fenced is the blocks of code of a page, without the indent of a list.
func fenced(text string) (all []string) {
	for _, b := range fence.FindAllString(text, -1) {
		indent := b[:strings.Index(b, "`")]
		all = append(all, strings.ReplaceAll("\n"+b, "\n"+indent, "\n")[1:])
	}
	return all
}

// spans is what stands in code within sentences.
func spans(text string) (all []string) {
	for _, m := range code.FindAllStringSubmatch(fence.ReplaceAllString(text, ""), -1) {
		all = append(all, m[1])
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// Who reads Russian is given the same commands and keys as who reads English.
func TestPapersRussian(t *testing.T) {
	english, russian := sheet(t, "README.md"), sheet(t, "README.ru.md")
	_, section, _ := strings.Cut(english, "## Run it on your VPS")
	section, _, _ = strings.Cut(section, "\n## ")
	if d := cmp.Diff(fenced(section), fenced(russian)); d != "" {
		t.Errorf("the commands of README.ru.md are not those of README.md:\n%s", d)
	}
	known := append(spans(english), wordsState...)
	for _, r := range config.Table() {
		known = append(known, r.Name, r.Default, config.EnvName(r.Name))
	}
	for _, s := range spans(russian) {
		if !slices.Contains(known, s) {
			t.Errorf("README.ru.md has `%s`, which README.md has not", s)
		}
	}
	defaults := map[string]string{}
	for _, r := range config.Table() {
		defaults[r.Name] = r.Default
	}
	rows := regexp.MustCompile("(?m)^\\| `([a-z_.]+)` \\| `?([^|`]*?)`? \\|").FindAllStringSubmatch(russian, -1)
	keys := 0
	for _, m := range rows {
		if want, ok := defaults[m[1]]; ok {
			keys++
			if strings.TrimSpace(m[2]) != want {
				t.Errorf("README.ru.md: the default of %s is %q, want %q", m[1], m[2], want)
			}
		}
	}
	if keys < 10 {
		t.Errorf("README.ru.md explains %d keys", keys)
	}
	if d := cmp.Diff(spans(sheet(t, "deploy/RISK.md")), spans(sheet(t, "deploy/RISK.ru.md"))); d != "" {
		t.Errorf("the commands and keys of RISK.ru.md are not those of RISK.md:\n%s", d)
	}
}

// What the papers point to is there, and what they set is heeded.
func TestPapersLinks(t *testing.T) {
	var pages []string
	for _, pattern := range []string{"*.md", "deploy/*.md"} {
		found, err := filepath.Glob(filepath.Join(top, pattern))
		if err != nil {
			t.Fatal(err)
		}
		pages = append(pages, found...)
	}
	if len(pages) < 9 {
		t.Fatalf("papers: %v", pages)
	}
	compose := sheet(t, "deploy/compose.yml")
	for _, p := range pages {
		b, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range link.FindAllStringSubmatch(string(b), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			if _, err := os.Stat(filepath.Join(filepath.Dir(p), m[1])); err != nil {
				t.Errorf("%s points to %s: %v", p, m[1], err)
			}
		}
		for _, v := range regexp.MustCompile(`\bVANTAGE_[A-Z]+`).FindAllString(string(b), -1) {
			if !strings.Contains(compose, "${"+v+":-") {
				t.Errorf("%s sets %s, which compose.yml does not read", p, v)
			}
		}
	}
}

// The examples of CONTRIBUTING.md are files that the catalogue takes.
func TestPapersCatalogue(t *testing.T) {
	files, _ := paper(t, "CONTRIBUTING.md")
	if len(files) != 2 {
		t.Fatalf("%d examples, want 2", len(files))
	}
	for name, text := range files {
		path := filepath.Join(t.TempDir(), filepath.Base(name))
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := targets.Validate(path); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// paper is the files and the commands of a page: YAML by the comment that is its
// first line, shell by its first word.
func paper(t *testing.T, page string) (files, commands map[string]string) {
	t.Helper()
	files, commands = map[string]string{}, map[string]string{}
	for _, block := range fenced(sheet(t, page)) {
		block = strings.TrimSuffix(block, "```")
		if text, ok := strings.CutPrefix(block, "```yaml\n"); ok {
			comment, _, _ := strings.Cut(text, "\n")
			files[strings.TrimPrefix(comment, "# ")] = text
			continue
		}
		text, ok := strings.CutPrefix(block, "```sh\n")
		if !ok {
			continue
		}
		for _, c := range regexp.MustCompile(`(?m)^\S(?:[^\\\n]|\\\n)*`).FindAllString(text, -1) {
			word, _, _ := strings.Cut(c, " ")
			commands[word] = c
		}
	}
	return files, commands
}
