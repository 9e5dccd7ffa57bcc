package metrics

import (
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/messenger-probe/messenger-probe/probe"
	"github.com/messenger-probe/messenger-probe/probe/onset"
	"github.com/messenger-probe/messenger-probe/probe/verdict"
)

// The closed sets are those of the packages that fill them.
func TestSets(t *testing.T) {
	for name, x := range map[string][2][]string{
		"states":         {states, text(verdict.States[:])},
		"vantage states": {vantageStates, text(verdict.VantageStates[:])},
		"mechanisms":     {mechanisms, text(verdict.Mechanisms[:])},
		"confidences":    {confidences, text(verdict.Confidences[:])},
		"protocols":      {slices.Collect(maps.Keys(protocols)), probe.Protocols[:]},
		"explanations":   {explanations, text(onset.Explanations[:])},
	} {
		if d := cmp.Diff(slices.Sorted(slices.Values(x[0])), slices.Sorted(slices.Values(x[1]))); d != "" {
			t.Errorf("%s (-metrics +theirs):\n%s", name, d)
		}
	}
}

func text[S ~string](list []S) []string {
	var all []string
	for _, s := range list {
		all = append(all, string(s))
	}
	return all
}
