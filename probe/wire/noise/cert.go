package noise

import (
	"crypto/ed25519"
	"math/big"
	"slices"
	"time"
)

// Root is WhatsApp's root key, a Curve25519 public key that clients ship
// (tulir/whatsmeow handshake.go, WACertPubKey).
var Root = [32]byte{
	0x14, 0x23, 0x75, 0x57, 0x4d, 0x0a, 0x58, 0x71, 0x66, 0xaa, 0xe7, 0x1e, 0xbe, 0x51, 0x64, 0x37,
	0xc4, 0xa2, 0x8b, 0x73, 0xe3, 0x69, 0x5c, 0x6c, 0xe1, 0xf7, 0xf9, 0x54, 0x5d, 0xa8, 0xee, 0x6b,
}

// rootSerial is the issuer's serial number in an intermediate certificate
// (tulir/whatsmeow handshake.go, WACertIssuerSerial).
const rootSerial = 0

// slack is how far our clock may be off before a certificate is called not
// valid.
const slack = 5 * time.Minute

// Verify says whether root vouches for the server: its intermediate
// certificate is signed by root, its leaf by the intermediate, the leaf is for
// the key that the server has proved to hold, and both are valid at now. The
// error is [ErrMalformed], [ErrUntrusted], [ErrKey] or [ErrExpired].
func (s Server) Verify(root [32]byte, now time.Time) error {
	chain, ok := parse(s.Chain)
	if !ok {
		return ErrMalformed
	}
	leaf, err := parseCertificate(chain.bytes[1])
	if err != nil {
		return err
	}
	intermediate, err := parseCertificate(chain.bytes[2])
	if err != nil {
		return err
	}
	switch {
	case intermediate.issuer != rootSerial,
		!verify(root, intermediate.details, intermediate.signature),
		leaf.issuer != intermediate.serial,
		!verify(intermediate.key, leaf.details, leaf.signature):
		return ErrUntrusted
	case leaf.key != s.Static:
		return ErrKey
	case !leaf.valid(now) || !intermediate.valid(now):
		return ErrExpired
	}
	return nil
}

// A certificate is a CertChain.NoiseCertificate with its details decoded.
type certificate struct {
	details, signature  []byte
	serial, issuer      uint64
	key                 [32]byte
	notBefore, notAfter uint64
}

func parseCertificate(b []byte) (certificate, error) {
	cert, ok := parse(b)
	details, ok2 := parse(cert.bytes[1])
	if !ok || !ok2 || len(cert.bytes[2]) != ed25519.SignatureSize || len(details.bytes[3]) != 32 {
		return certificate{}, ErrMalformed
	}
	return certificate{
		details: cert.bytes[1], signature: cert.bytes[2],
		serial: details.number[1], issuer: details.number[2],
		key:       [32]byte(details.bytes[3]),
		notBefore: details.number[4], notAfter: details.number[5],
	}, nil
}

// valid reads the dates as unix seconds, or milliseconds where seconds would
// be past the year 5000. No open client checks them, so a date that is not
// there does not bind.
func (c certificate) valid(now time.Time) bool {
	at := func(v uint64) time.Time {
		if v > 1e11 {
			v /= 1e3
		}
		return time.Unix(int64(v), 0)
	}
	return (c.notBefore == 0 || !now.Add(slack).Before(at(c.notBefore))) &&
		(c.notAfter == 0 || !now.Add(-slack).After(at(c.notAfter)))
}

// prime is the field of Curve25519, 2^255-19.
var prime = new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 255), big.NewInt(19))

// verify checks an XEdDSA signature: the signer's Curve25519 key, u, is the
// Ed25519 key y = (u-1)/(u+1), whose sign is the signature's last bit
// (signal.org/docs/specifications/xeddsa, §2.3; the bit as in older libsignal).
func verify(key [32]byte, msg, signature []byte) bool {
	le := key
	le[31] &= 0x7f
	slices.Reverse(le[:])
	u, one := new(big.Int).SetBytes(le[:]), big.NewInt(1)
	inverse := new(big.Int).ModInverse(new(big.Int).Add(u, one), prime)
	if inverse == nil { // u = -1 is no point
		return false
	}
	y := u.Sub(u, one)
	y.Mod(y.Mul(y, inverse), prime)
	pub := y.FillBytes(make([]byte, 32))
	slices.Reverse(pub)

	sig := slices.Clone(signature)
	pub[31] |= sig[63] & 0x80
	sig[63] &= 0x7f
	return ed25519.Verify(pub, msg, sig)
}
