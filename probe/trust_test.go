package probe

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"golang.org/x/crypto/x509roots/fallback/bundle"

	"github.com/messenger-probe/messenger-probe/probe/probetest"
)

// state is what a handshake says of a server's chain.
func state(t *testing.T, c tls.Certificate) tls.ConnectionState {
	t.Helper()
	var cs tls.ConnectionState
	for _, raw := range c.Certificate {
		cert, err := x509.ParseCertificate(raw)
		if err != nil {
			t.Fatal(err)
		}
		cs.PeerCertificates = append(cs.PeerCertificates, cert)
	}
	return cs
}

func TestNewTrust(t *testing.T) {
	ca := probetest.NewCA(t, "test root")
	other := probetest.NewCA(t, "another root")
	cs := state(t, ca.Issue(t, nil, "chat.example"))

	trust, err := NewTrust(slices.Concat([]byte("a comment\n"), other.PEM(), ca.PEM(), []byte("\n")))
	if err != nil {
		t.Fatal(err)
	}
	if err := trust.verify(cs, "chat.example"); err != nil {
		t.Error(err)
	}
	if err := trust.verify(cs, ""); err != nil {
		t.Errorf("without a name: %v", err)
	}
	if _, ok := errors.AsType[x509.HostnameError](trust.verify(cs, "other.example")); !ok {
		t.Error("another name is accepted")
	}
	// One host's extra root is not everybody's.
	for _, plain := range []*Trust{nil, {}} {
		if _, ok := errors.AsType[x509.UnknownAuthorityError](plain.verify(cs, "chat.example")); !ok {
			t.Errorf("%v trusts a root that it was not given", plain)
		}
		if plain.verify(tls.ConnectionState{}, "chat.example") == nil {
			t.Errorf("%v accepts no certificate at all", plain)
		}
	}
	if none, err := NewTrust(nil); err != nil || !none.Roots.Equal(mozilla()) {
		t.Errorf("without extra certificates: %v", err)
	}

	for name, in := range map[string]string{
		"no PEM":       "hello",
		"a key":        string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte{1}})),
		"no DER":       string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte{1}})),
		"rest is junk": string(ca.PEM()) + "-----BEGIN CERTIFICATE-----\ncut off",
	} {
		if _, err := NewTrust([]byte(in)); err == nil || !strings.Contains(err.Error(), "PEM block") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Mozilla's list is there, whole, and its roots are trusted for themselves.
func TestMozilla(t *testing.T) {
	n := 0
	for root := range bundle.Roots() {
		cert, err := x509.ParseCertificate(root.Certificate)
		if err != nil {
			t.Fatal(err)
		}
		if n++; root.Constraint != nil || time.Now().After(cert.NotAfter) {
			continue
		}
		if err := (*Trust)(nil).verify(tls.ConnectionState{PeerCertificates: []*x509.Certificate{cert}}, ""); err != nil {
			t.Errorf("%s: %v", cert.Subject.CommonName, err)
		}
		if strings.Contains(cert.Subject.CommonName, "Russian Trusted") {
			t.Error("a national root is in the list")
		}
	}
	if n < 100 {
		t.Errorf("%d roots", n)
	}
}

// A root that Mozilla trusts only for older certificates is so here too, also
// beside extra roots.
func TestConstraint(t *testing.T) {
	ca := probetest.NewCA(t, "distrusted root")
	root := bundle.Root{Certificate: ca.Cert.Raw, Constraint: func(chain []*x509.Certificate) error {
		if chain[0].NotBefore.After(time.Now().Add(-time.Hour)) {
			return errors.New("distrusted")
		}
		return nil
	}}
	trust := &Trust{Roots: poolOf(slices.Values([]bundle.Root{root})).Clone()}
	if err := trust.verify(state(t, ca.Issue(t, nil, "old.example")), "old.example"); err != nil {
		t.Error(err)
	}
	young := func(c *x509.Certificate) { c.NotBefore = time.Now() }
	if trust.verify(state(t, ca.Issue(t, young, "new.example")), "new.example") == nil {
		t.Error("a certificate of a distrusted root is accepted")
	}
}

// What is kept of a hostile chain is bounded, and is text.
func TestChainFacts(t *testing.T) {
	ca := probetest.NewCA(t, "test root")
	many := make([]string, 100)
	for i := range many {
		many[i] = strings.Repeat("a", 60) + "." + strings.Repeat("b", 60) + "." + strings.Repeat("c", 60) + ".example"
	}
	cert := state(t, ca.Issue(t, func(c *x509.Certificate) {
		c.Subject.CommonName = strings.Repeat("я", 500)
	}, many...)).PeerCertificates[0]
	facts := chainFacts(slices.Repeat([]*x509.Certificate{cert}, 100))
	if len(facts) != maxChain {
		t.Errorf("%d certificates", len(facts))
	}
	f := facts[0]
	if len(f.DNSNames) != maxNames || len(f.DNSNames[0]) > maxName {
		t.Errorf("%d names of %d bytes", len(f.DNSNames), len(f.DNSNames[0]))
	}
	if len(f.Subject) > maxName || len(f.Subject) < maxName-4 || !utf8.ValidString(f.Subject) {
		t.Errorf("subject %q", f.Subject)
	}
	if f.Issuer != "test root" || f.SelfSigned || f.NotAfter.IsZero() {
		t.Errorf("%+v", f)
	}
}
