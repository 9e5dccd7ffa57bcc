package metrics

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/messenger-probe/messenger-probe/probe"
)

// hostile is what a censor would like to see exported. poison puts it wherever
// text or an address fits.
var hostile = []string{
	"HOSTILE", "HOSTILE 203.0.113.77", "HOSTILE\n# TYPE x counter\nx 1", `HOSTILE"} 1`, "HOSTILE\xff\xfe",
	strings.Repeat("HOSTILE", 10_000), "HOSTILE\x00", "CN=HOSTILE",
}

// poison fills every field of v that it can reach, so that evidence which is
// added later is tested too.
func poison(r *rand.Rand, v reflect.Value) {
	switch v.Interface().(type) {
	case netip.Addr:
		v.Set(reflect.ValueOf(netip.MustParseAddr("203.0.113.77")))
		return
	case netip.AddrPort:
		v.Set(reflect.ValueOf(netip.MustParseAddrPort("203.0.113.77:4443")))
		return
	case time.Time:
		v.Set(reflect.ValueOf(time.Unix(r.Int64N(1<<33), 0)))
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(hostile[r.IntN(len(hostile))])
	case reflect.Bool:
		v.SetBool(r.IntN(2) == 0)
	case reflect.Int, reflect.Int64:
		v.SetInt(int64(r.Uint64()))
	case reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(r.Uint64())
	case reflect.Float64:
		v.SetFloat(r.NormFloat64())
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		poison(r, v.Elem())
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		poison(r, v.Index(0))
		poison(r, v.Index(1))
	case reflect.Array:
		for i := range v.Len() {
			poison(r, v.Index(i))
		}
	case reflect.Struct:
		for i := range v.NumField() {
			poison(r, v.Field(i))
		}
	case reflect.Interface:
		if v.Type() == reflect.TypeFor[error]() {
			v.Set(reflect.ValueOf(errors.New(hostile[r.IntN(len(hostile))])))
		}
	default:
		panic(fmt.Sprintf("poison does not know %s", v.Type()))
	}
}

// Whatever results, verdicts and detectors say, no label carries an address, an
// answer, a certificate's field or an error's text, and the number of series
// stays bounded.
func TestHostile(t *testing.T) {
	m := New(Options{})
	checks := someChecks()
	m.SetChecks(checks)
	// A proper run of each check in each way to fail is the most there can be.
	for _, c := range checks {
		for _, op := range probe.Ops {
			m.Record(worked(c, step(op, time.Second, "")))
			for _, f := range probe.Failures() {
				m.Record(worked(c, step(op, time.Second, f)))
			}
		}
		for _, reason := range probe.Reasons {
			m.Record(probe.Result{Check: c, Void: reason})
		}
	}
	most := len(lines(t, m)) + 2*len(states) // and the mechanisms and scopes that verdicts may name: "unknown", "other"

	r := rand.New(rand.NewPCG(1, 2))
	for i := range 3000 {
		var x probe.Result
		poison(r, reflect.ValueOf(&x).Elem())
		for j := range x.Steps { // some that Judge lets through
			if r.IntN(2) == 0 {
				x.Steps[j].Op = probe.Ops[r.IntN(len(probe.Ops))]
			}
			if r.IntN(2) == 0 {
				x.Steps[j].Failure = probe.Failures()[r.IntN(len(probe.Failures()))]
			}
			if r.IntN(4) == 0 {
				x.Steps[j].Failure = ""
			}
		}
		if r.IntN(2) == 0 {
			x.Void = ""
		}
		if i%8 != 0 { // else the check itself is unheard of
			c := checks[r.IntN(len(checks))]
			x.Check.Messenger, x.Check.Function, x.Check.Endpoint = c.Messenger, c.Function, c.Endpoint
			x.Check.Protocol, x.Check.Family = c.Protocol, c.Family
		}
		m.Record(x)
		h := func() string { return hostile[r.IntN(len(hostile))] }
		m.SetVerdict("telegram", "chat", h(), h(), h(), time.Unix(1, 0))
		m.SetVerdict(h(), h(), "ok", "", "", time.Now())
		m.SetBlockEvidence("telegram", h(), 1)
		m.SetBlockEvidence("telegram", "endpoint:"+h(), 1)
		m.SetBlockEvidence(h(), "net", 1)
		m.SetBenign("telegram", h(), 1)
		m.SetBenign(h(), "path", 1)
		m.SetVantageState(h())
		m.SetVantageSees(map[string]bool{h(): true})
		m.Onset(h(), h())
		m.Relapse("telegram", h())
		m.ConfirmationChecks(h(), 1)
	}

	text := exposition(t, m)
	if i := strings.Index(text, "HOSTILE"); i >= 0 {
		t.Errorf("exported: %.200q", text[max(0, i-100):])
	}
	label := regexp.MustCompile(`[a-z_]+="((?:[^"\\]|\\.)*)"`)
	for _, l := range label.FindAllStringSubmatch(text, -1) {
		if _, err := netip.ParseAddr(l[1]); err == nil || strings.Contains(l[1], "203.0.113") {
			t.Errorf("an address is a label: %s", l[0])
		}
	}
	if n := len(lines(t, m)); n > most {
		t.Errorf("%d series, want at most %d", n, most)
	}
}
