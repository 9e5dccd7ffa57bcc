//go:build ignore

// Sbom writes what a binary says it was built from as a CycloneDX document
// (https://cyclonedx.org, version 1.6): the modules that are linked, with the
// sums that go.sum holds them to. Nothing but the binary is read, so that the
// list is of what is shipped.
//
//	go run .ci/sbom.go BINARY >sbom.json
package main

import (
	"debug/buildinfo"
	"encoding/json"
	"log"
	"os"
	"strings"
)

type object = map[string]any

func main() {
	info, err := buildinfo.ReadFile(os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	purl := func(path, version string) string { return "pkg:golang/" + path + "@" + version }
	main := purl(info.Main.Path, info.Main.Version)
	components := []object{{"type": "library", "name": "std", "version": strings.TrimPrefix(info.GoVersion, "go"), "purl": "pkg:golang/std@" + strings.TrimPrefix(info.GoVersion, "go"), "bom-ref": "std"}}
	depends := []string{"std"}
	for _, m := range info.Deps {
		if m.Replace != nil {
			m = m.Replace
		}
		ref := purl(m.Path, m.Version)
		depends = append(depends, ref)
		components = append(components, object{"type": "library", "name": m.Path, "version": m.Version, "purl": ref, "bom-ref": ref,
			"properties": []object{{"name": "go:sum", "value": m.Sum}}})
	}
	var settings []object
	for _, s := range info.Settings {
		settings = append(settings, object{"name": "go:build:" + s.Key, "value": s.Value})
	}
	enc := json.NewEncoder(os.Stdout)
	enc.SetIndent("", "  ")
	enc.Encode(object{"bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1,
		"metadata":     object{"component": object{"type": "application", "name": info.Main.Path, "version": info.Main.Version, "purl": main, "bom-ref": main, "properties": settings}},
		"components":   components,
		"dependencies": []object{{"ref": main, "dependsOn": depends}}})
}
