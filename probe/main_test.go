package probe

import (
	"bytes"
	"context"
	"fmt"
	"log"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/messenger-probe/messenger-probe/probe/probetest"
)

func TestMain(m *testing.M) {
	switch kind := os.Getenv(benchServerEnv); kind {
	case "":
	case "tarpits":
		tarpitsMain()
		return
	case "services":
		servicesMain()
		return
	default:
		benchServerMain(kind)
		return
	}
	goleak.VerifyTestMain(quiet{m})
}

// quiet fails the tests if anybody wrote to the log: probers do not, and nothing
// that they use may (quic-go would about its buffers).
type quiet struct{ *testing.M }

func (q quiet) Run() int {
	var said bytes.Buffer
	log.SetOutput(&said)
	code := q.M.Run()
	if said.Len() > 0 {
		fmt.Fprintf(os.Stderr, "on the log: %s", said.String())
		return max(code, 1)
	}
	return code
}

// soon is the deadline of tests in which a peer is silent.
const soon = 500 * time.Millisecond

// run is one run of p, with a deadline.
func run(t *testing.T, p Prober, timeout time.Duration) []Step {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	start := time.Now()
	steps := p.Probe(ctx, &Meter{Net: &Host{}})
	if took := time.Since(start); took > timeout+2*time.Second { // the machine may be busy
		t.Errorf("took %v with a deadline of %v", took, timeout)
	}
	return steps
}

// story is what happened: each step's operation and failure.
func story(steps []Step) string {
	var words []string
	for _, s := range steps {
		word := string(s.Op)
		if s.Failure != "" {
			word += " " + string(s.Failure)
		}
		words = append(words, word)
	}
	return strings.Join(words, ", ")
}

// newTrust trusts ca alone beside Mozilla's list.
func newTrust(t *testing.T, ca *probetest.CA) *Trust {
	t.Helper()
	trust, err := NewTrust(ca.PEM())
	if err != nil {
		t.Fatal(err)
	}
	return trust
}
