// Package webca is the home's own certificate authority for its companion app: one CA,
// whose key the owner nodes hold, and a leaf for each node that serves the app's origin.
// The certificate is constrained to that origin's name (RFC 5280 section 4.2.1.10), so who
// trusts it trusts nobody with any other site.
//
// Everything here is a pure function of its arguments; what is stored and who asks whom is
// the agent's business.
package webca

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net"
	"strings"
	"time"

	"github.com/hallway-home/hallway/devices"
)

const (
	// leafDays is what a leaf lives: browsers refuse more than 398 days, and a home whose
	// owner nodes all died goes on being served for that long.
	leafDays = 397
	// renewBefore is the rest of its life at which a leaf is replaced: three months in which
	// no owner node may answer.
	renewBefore = 90 * 24 * time.Hour
	// caYears is long, since a phone must trust a new CA by hand.
	caYears = 30
	// early makes a certificate valid for phones whose clock is behind.
	early = 24 * time.Hour
)

// Why a certificate is not used.
var (
	ErrOther = errors.New("this certificate is not of the home's authority")
	ErrLeaf  = errors.New("this certificate does not fit this device")
)

// CA is the home's authority with its key.
type CA struct {
	Cert *x509.Certificate
	Key  *ecdsa.PrivateKey
}

// New makes an authority for a home. now need not be right: the certificate's life begins
// at the start of 2020, before any phone's clock, and ends decades later.
func New(home devices.HomeID) (*CA, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	loopback4, loopback6 := net.IPv4(127, 0, 0, 1).To4(), net.IPv6loopback
	begin := time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)
	tmpl := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: "Hallway " + home.String()[:8]},
		NotBefore: begin, NotAfter: begin.AddDate(caYears, 0, 0),
		BasicConstraintsValid: true, IsCA: true, MaxPathLenZero: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		PermittedDNSDomainsCritical: true, PermittedDNSDomains: []string{home.AppHost(), "localhost"},
		// Without an IP constraint every address would be allowed.
		PermittedIPRanges: []*net.IPNet{{IP: loopback4, Mask: net.CIDRMask(32, 32)}, {IP: loopback6, Mask: net.CIDRMask(128, 128)}},
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	return Open(der, key)
}

// Open puts a certificate and its key together.
func Open(der []byte, key *ecdsa.PrivateKey) (*CA, error) {
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	if !key.PublicKey.Equal(cert.PublicKey) {
		return nil, ErrOther
	}
	return &CA{cert, key}, nil
}

// Sum names an authority; the roster holds it.
func Sum(der []byte) [32]byte { return sha256.Sum256(der) }

func serial() *big.Int {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	b[0] &= 0x7f
	return new(big.Int).SetBytes(b[:])
}

// Leaf issues a certificate for the origin to a node's key. now is the home's time; a node
// without one passes the zero time and gets a life that begins when this program was made.
func (c *CA) Leaf(home devices.HomeID, pub *ecdsa.PublicKey, now time.Time) ([]byte, error) {
	if now.Before(built()) {
		now = built()
	}
	tmpl := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: home.AppHost()}, DNSNames: []string{home.AppHost(), "localhost"},
		NotBefore: now.Add(-early), NotAfter: now.Add(-early).AddDate(0, 0, leafDays).Add(-time.Second),
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	return x509.CreateCertificate(rand.Reader, tmpl, c.Cert, pub, c.Key)
}

// built is the earliest time that a home can have.
func built() time.Time { return time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC) }

// Check reports whether a leaf and the authority that came with it fit: sum is the one that
// the roster names. Whose clock is right is not asked here.
func Check(home devices.HomeID, sum [32]byte, ca, leaf []byte, pub crypto.PublicKey) (*x509.Certificate, error) {
	if Sum(ca) != sum {
		return nil, ErrOther
	}
	root, err := x509.ParseCertificate(ca)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(leaf)
	if err != nil {
		return nil, err
	}
	if k, ok := cert.PublicKey.(*ecdsa.PublicKey); !ok || !k.Equal(pub) {
		return nil, ErrLeaf
	}
	pool := x509.NewCertPool()
	pool.AddCert(root)
	_, err = cert.Verify(x509.VerifyOptions{DNSName: home.AppHost(), Roots: pool, CurrentTime: cert.NotBefore.Add(time.Hour)})
	return cert, err
}

// Renew reports whether a leaf is due to be replaced.
func Renew(leaf *x509.Certificate, now time.Time) bool {
	return now.After(leaf.NotAfter.Add(-renewBefore)) || now.Before(leaf.NotBefore.Add(-early))
}

// Certificate is what a TLS server shows.
func Certificate(ca, leaf []byte, key *ecdsa.PrivateKey) (*tls.Certificate, error) {
	cert, err := x509.ParseCertificate(leaf)
	return &tls.Certificate{Certificate: [][]byte{leaf, ca}, PrivateKey: key, Leaf: cert}, err
}

// Words makes a hash pronounceable for comparing two screens: five words of 16 bits
// ("proquints", arXiv:0901.4016). 80 bits take 2^80 keys to imitate.
func Words(sum [32]byte) string {
	const consonants, vowels = "bdfghjklmnprstvz", "aiou"
	var out []string
	for i := 0; i < 10; i += 2 {
		n := uint16(sum[i])<<8 | uint16(sum[i+1])
		out = append(out, string([]byte{
			consonants[n>>12&15], vowels[n>>10&3], consonants[n>>6&15], vowels[n>>4&3], consonants[n&15],
		}))
	}
	return strings.Join(out, "-")
}

// Fingerprint is a hash as certificate viewers show it.
func Fingerprint(sum [32]byte) string {
	var b strings.Builder
	for i, c := range sum {
		if i > 0 {
			b.WriteByte(':')
		}
		fmt.Fprintf(&b, "%02X", c)
	}
	return b.String()
}

// Profile is an Apple configuration profile that installs the authority. It is unsigned;
// iOS says so, and the words are what is compared.
func Profile(home devices.HomeID, name string, ca []byte) []byte {
	sum := Sum(ca)
	uuid := func(n byte) string {
		h := sha256.Sum256(append(sum[:], n))
		h[6], h[8] = h[6]&0x0f|0x80, h[8]&0x3f|0x80 // RFC 9562 version 8
		return fmt.Sprintf("%X-%X-%X-%X-%X", h[:4], h[4:6], h[6:8], h[8:10], h[10:16])
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, profile, base64Lines(ca), xmlText(name), home.AppHost(), uuid(1), xmlText(name), home.AppHost(), uuid(2))
	return b.Bytes()
}
