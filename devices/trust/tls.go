package trust

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"time"

	"github.com/hallway-home/hallway/devices"
)

// The protocols of the member port (RFC 7301).
const (
	ALPNOverlay = "hallway-overlay/1"
	ALPNSIP     = "sip"
	ALPNPair    = "hallway-pair/1"
)

// Why a TLS peer is refused.
var (
	ErrNoALPN   = errors.New("the peer named no protocol")
	ErrStranger = errors.New("the peer's key does not belong to this home")
	ErrPeerKey  = errors.New("the peer showed no P-256 key")
)

// NodeCertificate wraps the node key in a self-signed certificate that holds nothing
// but the key: no name, no useful date.
func NodeCertificate(key *ecdsa.PrivateKey) (tls.Certificate, error) {
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		NotBefore:    time.Unix(0, 0), NotAfter: time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC), // RFC 5280 section 4.1.2.5: no date
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}

// MemberTLS is the configuration of the member port, for both ends: TLS 1.3 only,
// mutual, without tickets and without SNI. A peer is accepted iff the roster, as it is
// at that moment, holds its key; for pairing any P-256 key will do, because the code
// proves the rest. Dates and certificate authorities are ignored: a node whose clock
// says 1970 works.
func MemberTLS(key *ecdsa.PrivateKey, roster func() *devices.Roster, alpn ...string) (*tls.Config, error) {
	cert, err := NodeCertificate(key)
	if err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{cert}, NextProtos: alpn,
		ClientAuth: tls.RequireAnyClientCert, SessionTicketsDisabled: true,
		InsecureSkipVerify: true, //nolint:gosec // VerifyConnection below checks the key against the roster instead of a CA
		VerifyConnection: func(cs tls.ConnectionState) error {
			id, _, err := PeerID(cs)
			if err != nil {
				return err
			}
			return admits(roster(), id, cs.NegotiatedProtocol)
		},
	}, nil
}

// admits decides whether a key may use a protocol.
func admits(r *devices.Roster, id devices.NodeID, alpn string) error {
	switch {
	case alpn == "":
		return ErrNoALPN
	case alpn == ALPNPair:
		return nil
	case !slices.Contains([]string{ALPNOverlay, ALPNSIP}, alpn):
		return fmt.Errorf("unknown protocol %q", alpn)
	case !r.Has(id): // check: member TLS
		return ErrStranger
	}
	return nil
}

// PeerID says whose key is at the other end.
func PeerID(cs tls.ConnectionState) (devices.NodeID, *ecdsa.PublicKey, error) {
	if len(cs.PeerCertificates) == 0 {
		return devices.NodeID{}, nil, ErrPeerKey
	}
	pub, ok := cs.PeerCertificates[0].PublicKey.(*ecdsa.PublicKey)
	if !ok || pub.Curve != elliptic.P256() {
		return devices.NodeID{}, nil, ErrPeerKey
	}
	return devices.NodeIDOf(pub), pub, nil
}

// HomeTag lets members recognise each other on the LAN and nobody else: 16 hexadecimal
// digits of HMAC-SHA256 over the Node-ID under the home key.
func HomeTag(homeKey []byte, id devices.NodeID) string {
	m := hmac.New(sha256.New, homeKey)
	m.Write(id[:])
	return hex.EncodeToString(m.Sum(nil)[:8])
}
