package probetest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"testing"
	"time"
)

// A CA issues certificates that nobody trusts but who is told to.
type CA struct {
	Cert  *x509.Certificate
	key   *ecdsa.PrivateKey
	above [][]byte // certificates to present after those it issues, without the root
}

// NewCA makes a root.
func NewCA(tb testing.TB, name string) *CA {
	tb.Helper()
	ca := &CA{}
	ca.Cert, ca.key = sign(tb, authority(name), nil)
	return ca
}

// Sub makes an authority below ca.
func (ca *CA) Sub(tb testing.TB, name string) *CA {
	tb.Helper()
	sub := &CA{}
	sub.Cert, sub.key = sign(tb, authority(name), ca)
	sub.above = append([][]byte{sub.Cert.Raw}, ca.above...)
	return sub
}

// PEM is the authority's certificate.
func (ca *CA) PEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.Cert.Raw})
}

// Hash is the SHA-256 of the authority's certificate.
func (ca *CA) Hash() [32]byte { return sha256.Sum256(ca.Cert.Raw) }

// Issue makes a server's certificate, with the chain up to but without the
// root. change, if not nil, alters it before it is signed; names may be IP
// addresses.
func (ca *CA) Issue(tb testing.TB, change func(*x509.Certificate), names ...string) tls.Certificate {
	tb.Helper()
	leaf, key := sign(tb, server(change, names), ca)
	return tls.Certificate{Certificate: append([][]byte{leaf.Raw}, ca.above...), PrivateKey: key, Leaf: leaf}
}

// SelfSigned makes a server's certificate that vouches for itself.
func SelfSigned(tb testing.TB, names ...string) tls.Certificate {
	tb.Helper()
	leaf, key := sign(tb, server(nil, names), nil)
	return tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: key, Leaf: leaf}
}

// Expired alters a certificate of [CA.Issue] to have ended yesterday.
func Expired(c *x509.Certificate) { c.NotAfter = time.Now().Add(-24 * time.Hour) }

func authority(name string) *x509.Certificate {
	return &x509.Certificate{
		Subject:               pkix.Name{CommonName: name},
		KeyUsage:              x509.KeyUsageCertSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
}

func server(change func(*x509.Certificate), names []string) *x509.Certificate {
	c := &x509.Certificate{
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for i, name := range names {
		if i == 0 {
			c.Subject.CommonName = name
		}
		if ip := net.ParseIP(name); ip != nil {
			c.IPAddresses = append(c.IPAddresses, ip)
		} else {
			c.DNSNames = append(c.DNSNames, name)
		}
	}
	c.NotAfter = time.Now().Add(24 * time.Hour)
	if change != nil {
		change(c)
	}
	return c
}

// sign issues a certificate for a new key, by ca or, if nil, by itself.
func sign(tb testing.TB, c *x509.Certificate, ca *CA) (*x509.Certificate, *ecdsa.PrivateKey) {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	c.SerialNumber = big.NewInt(time.Now().UnixNano())
	if c.NotBefore.IsZero() {
		c.NotBefore = time.Date(1999, 1, 1, 0, 0, 0, 0, time.UTC) // the clock of synctest begins in 2000
	}
	if c.NotAfter.IsZero() {
		c.NotAfter = time.Now().Add(24 * time.Hour)
	}
	parent, signer := c, key
	if ca != nil {
		parent, signer = ca.Cert, ca.key
	}
	raw, err := x509.CreateCertificate(rand.Reader, c, parent, key.Public(), signer)
	if err != nil {
		tb.Fatal(err)
	}
	cert, err := x509.ParseCertificate(raw)
	if err != nil {
		tb.Fatal(err)
	}
	return cert, key
}
