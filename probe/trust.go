package probe

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"

	"golang.org/x/crypto/x509roots/fallback/bundle"
)

// Trust says which certificate chains prove a server. The operating system's
// store is never asked: a Russian image may trust the national root, and then
// an interception would go unseen. A nil *Trust is Mozilla's list.
type Trust struct {
	Roots *x509.CertPool // nil: Mozilla's list

	// Pins are SHA-256 hashes of whole certificates (DER). A chain that leads to
	// a presented certificate with one of these hashes is as good as one that
	// leads to Roots; name and validity are checked all the same. This is for
	// hosts whose authority is in no public list and of which only the hash is
	// known: MAX's api2.oneme.ru chains to the Russian Trusted Root CA.
	Pins [][32]byte

	// Any believes every certificate. It is for differential questions under a
	// name that the server does not have, where an answer is all that is asked;
	// no check that counts may use it.
	Any bool
}

// mozilla is the embedded list of Mozilla's roots. It is parsed when first asked
// for.
var mozilla = sync.OnceValue(func() *x509.CertPool { return poolOf(bundle.Roots()) })

// poolOf keeps the constraints of roots: some are trusted only for what they
// signed before a certain day.
func poolOf(roots iter.Seq[bundle.Root]) *x509.CertPool {
	pool := x509.NewCertPool()
	for root := range roots {
		cert, err := x509.ParseCertificate(root.Certificate)
		if err != nil {
			panic(err) // the bundle is part of the program
		}
		if root.Constraint != nil {
			pool.AddCertWithConstraint(cert, root.Constraint)
		} else {
			pool.AddCert(cert)
		}
	}
	return pool
}

// NewTrust is Mozilla's list, the certificates in extraPEM (none: nil) and pins.
func NewTrust(extraPEM []byte, pins ...[32]byte) (*Trust, error) {
	t := &Trust{Roots: mozilla(), Pins: pins}
	if len(extraPEM) == 0 {
		return t, nil
	}
	t.Roots = t.Roots.Clone()
	for i := 1; ; i++ {
		block, rest := pem.Decode(extraPEM)
		if block == nil {
			if i == 1 || len(bytes.TrimSpace(rest)) > 0 {
				return nil, fmt.Errorf("PEM block %d: no PEM data; want -----BEGIN CERTIFICATE-----", i)
			}
			return t, nil
		}
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("PEM block %d: is a %q; want a CERTIFICATE", i, block.Type)
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("PEM block %d: %w", i, err)
		}
		t.Roots.AddCert(cert)
		extraPEM = rest
	}
}

// verify checks the presented chain for a name, or for none: then time and
// roots are checked alone.
func (t *Trust) verify(cs tls.ConnectionState, name string) error {
	certs := cs.PeerCertificates
	if len(certs) == 0 {
		return x509.UnknownAuthorityError{}
	}
	if t != nil && t.Any {
		return nil
	}
	// A chain has two or three certificates. The rest of a longer list is not
	// looked at, so that nobody makes us try thousands as issuers.
	certs = certs[:min(len(certs), 16)]
	opts := x509.VerifyOptions{DNSName: name, Intermediates: x509.NewCertPool()}
	for _, c := range certs[1:] {
		opts.Intermediates.AddCert(c)
	}
	if t != nil {
		opts.Roots = t.Roots
	}
	if opts.Roots == nil {
		opts.Roots = mozilla()
	}
	_, err := certs[0].Verify(opts)
	if err == nil || t == nil || len(t.Pins) == 0 {
		return err
	}
	pinned := x509.NewCertPool()
	found := false
	for _, c := range certs {
		if slices.Contains(t.Pins, sha256.Sum256(c.Raw)) {
			pinned.AddCert(c)
			found = true
		}
	}
	if found {
		opts.Roots = pinned
		_, err = certs[0].Verify(opts)
	}
	return err
}

// The bounds on what is kept of a presented chain.
const (
	maxChain = 8
	maxNames = 32
	maxName  = 128 // bytes
)

// chainFacts is what is kept of a presented chain.
func chainFacts(certs []*x509.Certificate) []Certificate {
	facts := make([]Certificate, 0, min(len(certs), maxChain))
	for _, c := range certs[:min(len(certs), maxChain)] {
		f := Certificate{
			SHA256:    sha256.Sum256(c.Raw),
			Subject:   clip(c.Subject.CommonName),
			Issuer:    clip(c.Issuer.CommonName),
			NotBefore: c.NotBefore,
			NotAfter:  c.NotAfter,
			SelfSigned: bytes.Equal(c.RawSubject, c.RawIssuer) &&
				c.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature) == nil,
		}
		for _, name := range c.DNSNames[:min(len(c.DNSNames), maxNames)] {
			f.DNSNames = append(f.DNSNames, clip(name))
		}
		facts = append(facts, f)
	}
	return facts
}

// clip bounds a text from the network, and makes it UTF-8.
func clip(s string) string {
	return strings.Clone(strings.ToValidUTF8(s[:min(len(s), maxName)], ""))
}
