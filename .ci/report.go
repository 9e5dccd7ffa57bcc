//go:build ignore

// Report reads what go test -json says, shows what failed and nothing else, and
// ends with a line of counts. A test that was skipped is a failure here.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"strings"
)

func main() {
	type test struct{ Package, Test string }
	said := map[test]*strings.Builder{}
	var passed, failed, skipped int
	in := bufio.NewScanner(os.Stdin)
	in.Buffer(nil, 1<<20)
	for in.Scan() {
		var e struct {
			Action, Package, ImportPath, Test, Output string
		}
		if json.Unmarshal(in.Bytes(), &e) != nil {
			fmt.Println(in.Text()) // not from a test
			continue
		}
		t := test{e.Package, e.Test}
		switch e.Action {
		case "build-output":
			fmt.Print(e.Output)
		case "output":
			if said[t] == nil {
				said[t] = &strings.Builder{}
			}
			said[t].WriteString(e.Output)
		case "pass", "fail", "skip":
			whole := e.Test == ""
			switch {
			case e.Action == "pass" && !whole:
				passed++
			case e.Action == "fail" && !whole:
				failed++
			case e.Action == "skip" && !whole:
				skipped++
			}
			if e.Action == "fail" || e.Action == "skip" && !whole {
				fmt.Printf("── %s %s %s\n", e.Action, e.Package, e.Test)
				if b := said[t]; b != nil {
					fmt.Print(b)
				}
			}
			delete(said, t)
		}
	}
	// What a test said that never ended: the package had a panic or ran too long.
	for t, b := range said {
		if t.Test != "" {
			fmt.Printf("── not ended %s %s\n%s", t.Package, t.Test, b)
		}
	}
	fmt.Printf("TESTS %d %d %d\n", passed, failed, skipped)
	if in.Err() != nil || failed+skipped > 0 {
		os.Exit(1)
	}
}
