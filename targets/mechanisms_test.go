package targets

import (
	"slices"
	"testing"

	"github.com/messenger-probe/messenger-probe/probe/verdict"
)

func TestMechanisms(t *testing.T) {
	for _, m := range mechanisms {
		if !slices.Contains(verdict.Mechanisms[:], verdict.Mechanism(m)) {
			t.Errorf("%s is no mechanism", m)
		}
	}
}
