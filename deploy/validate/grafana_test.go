package validate

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/cog/variants"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"github.com/grafana/grafana-foundation-sdk/go/prometheus"
	"github.com/grafana/grafana-foundation-sdk/go/stat"
	"github.com/grafana/grafana-foundation-sdk/go/statetimeline"
	"github.com/grafana/grafana-foundation-sdk/go/table"
	"github.com/grafana/grafana-foundation-sdk/go/timeseries"
)

// Grafana's published types take the dashboards strictly: an unknown or
// misspelt field of a panel, of its options or of a query is an error.
func TestDashboards(t *testing.T) {
	kinds := cog.NewRuntime()
	panels := map[string]bool{}
	for _, c := range []variants.PanelcfgConfig{stat.VariantConfig(), statetimeline.VariantConfig(), table.VariantConfig(), timeseries.VariantConfig()} {
		kinds.RegisterPanelcfgVariant(c)
		panels[c.Identifier] = true
	}
	kinds.RegisterDataqueryVariant(prometheus.VariantConfig())
	files, err := filepath.Glob("../grafana/dashboards/*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("no dashboards: %v", err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		// Where nothing is wrong the library returns an empty list of errors, not nil.
		var d dashboard.Dashboard
		if err := d.UnmarshalJSONStrict(text); err != nil && err.Error() != "" {
			t.Errorf("%s: %v", file, err)
		}
		var raw struct {
			Panels []struct{ Title, Type string }
		}
		if err := json.Unmarshal(text, &raw); err != nil {
			t.Fatal(err)
		}
		for _, p := range raw.Panels {
			if !panels[p.Type] {
				t.Errorf("%s: the panel %q is a %s, whose options are not checked", file, p.Title, p.Type)
			}
		}
	}
}
