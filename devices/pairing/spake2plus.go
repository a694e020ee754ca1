package pairing

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"math/big"

	"filippo.io/nistec"
)

// The constants M and N of RFC 9383 section 4 for P-256, compressed.
const (
	constM = "02886e2f97ace46e55ba9dd7242579f2993b64e16ef3dcab95afd497333d8fa12f"
	constN = "03d8bbd6c639c62937b04d997f38c3770719c629d7014d49a24b4f98baa1292b49"
)

// rounds of PBKDF2-HMAC-SHA256 (conventions).
const rounds = 100_000

// scalarBytes is the input to the reduction modulo the group order: 64 bits more than
// the order has, so that the bias is negligible (RFC 9383 section 3.2).
const scalarBytes = 40

// order of P-256 (FIPS 186-5).
func order() *big.Int {
	n, _ := new(big.Int).SetString("ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551", 16)
	return n
}

// errShare: a share is not a point of the curve, or is the neutral element.
var errShare = errors.New("the other side sent a malformed pairing message")

// scalars derives w0 and w1 from a secret. The identities are bound by the transcript
// instead, since the verifier makes w0 and L before it knows who will come.
func scalars(secret string, salt []byte) (w0, w1 []byte, err error) {
	in := binary.LittleEndian.AppendUint64(nil, uint64(len(secret)))
	in = append(in, secret...)
	in = append(in, make([]byte, 16)...) // two empty identities
	out, err := pbkdf2.Key(sha256.New, string(in), salt, rounds, 2*scalarBytes)
	if err != nil {
		return nil, nil, err
	}
	return reduce(out[:scalarBytes]), reduce(out[scalarBytes:]), nil
}

func reduce(b []byte) []byte {
	return new(big.Int).Mod(new(big.Int).SetBytes(b), order()).FillBytes(make([]byte, 32))
}

func randomScalar() []byte {
	b := make([]byte, scalarBytes)
	_, _ = rand.Read(b) // never fails (crypto/rand)
	return reduce(b)
}

func constant(h string) *nistec.P256Point {
	b, _ := hex.DecodeString(h)
	p, err := nistec.NewP256Point().SetBytes(b)
	if err != nil {
		panic(err) // a constant
	}
	return p
}

// registration gives the point L = w1*P that a verifier keeps instead of w1.
func registration(w1 []byte) ([]byte, error) {
	p, err := nistec.NewP256Point().ScalarBaseMult(w1)
	if err != nil {
		return nil, err
	}
	return p.Bytes(), nil
}

// share is k*P + w0*C, with C one of the constants.
func share(k, w0 []byte, c *nistec.P256Point) ([]byte, error) {
	kp, err1 := nistec.NewP256Point().ScalarBaseMult(k)
	wc, err2 := nistec.NewP256Point().ScalarMult(c, w0)
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	return nistec.NewP256Point().Add(kp, wc).Bytes(), nil
}

// unmask is theirs - w0*C; the neutral element is refused (RFC 9383 section 3.3).
func unmask(theirs, w0 []byte, c *nistec.P256Point) (*nistec.P256Point, error) {
	p, err := point(theirs)
	if err != nil {
		return nil, err
	}
	wc, err := nistec.NewP256Point().ScalarMult(c, w0)
	if err != nil {
		return nil, err
	}
	p.Add(p, nistec.NewP256Point().Negate(wc))
	if len(p.Bytes()) == 1 {
		return nil, errShare
	}
	return p, nil
}

func point(b []byte) (*nistec.P256Point, error) {
	if len(b) != 65 {
		return nil, errShare
	}
	p, err := nistec.NewP256Point().SetBytes(b)
	if err != nil {
		return nil, errShare
	}
	return p, nil
}

func mult(p *nistec.P256Point, k []byte) ([]byte, error) {
	q, err := nistec.NewP256Point().ScalarMult(p, k)
	if err != nil {
		return nil, err
	}
	return q.Bytes(), nil
}

// transcript is what both sides must have seen alike.
type transcript struct {
	context, idProver, idVerifier, shareP, shareV, z, v, w0 []byte
}

// keys of RFC 9383 section 3.4.
type keys struct{ main, confirmP, confirmV, shared []byte }

func (t transcript) keys() (keys, error) {
	var tt []byte
	for _, part := range [][]byte{
		t.context, t.idProver, t.idVerifier, constant(constM).Bytes(), constant(constN).Bytes(),
		t.shareP, t.shareV, t.z, t.v, t.w0,
	} {
		tt = binary.LittleEndian.AppendUint64(tt, uint64(len(part)))
		tt = append(tt, part...)
	}
	main := sha256.Sum256(tt)
	confirm, err1 := hkdf.Key(sha256.New, main[:], nil, "ConfirmationKeys", 64)
	shared, err2 := hkdf.Key(sha256.New, main[:], nil, "SharedKey", 32)
	if err := errors.Join(err1, err2); err != nil {
		return keys{}, err
	}
	return keys{main[:], confirm[:32], confirm[32:], shared}, nil
}

func mac(key, msg []byte) []byte {
	m := hmac.New(sha256.New, key)
	m.Write(msg)
	return m.Sum(nil)
}

// Parties names both ends of an exchange and the channel it runs over.
type Parties struct {
	Prover, Verifier []byte // SHA-256 of each public key
	Context          []byte // version, TLS exporter, window
}

// Prover is the side that was told the secret.
type Prover struct {
	parties   Parties
	x, w0, w1 []byte
	shareP    []byte
}

func newProver(secret string, salt []byte, p Parties) (*Prover, error) {
	w0, w1, err := scalars(secret, salt)
	if err != nil {
		return nil, err
	}
	return proverWith(w0, w1, randomScalar(), p)
}

func proverWith(w0, w1, x []byte, p Parties) (*Prover, error) {
	s, err := share(x, w0, constant(constM))
	return &Prover{p, x, w0, w1, s}, err
}

// finish takes the verifier's share and confirmation and gives the prover's own.
func (p *Prover) finish(shareV, confirmV []byte) ([]byte, error) {
	y, err := unmask(shareV, p.w0, constant(constN))
	if err != nil {
		return nil, err
	}
	z, err1 := mult(y, p.x)
	v, err2 := mult(y, p.w1)
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	k, err := transcript{p.parties.Context, p.parties.Prover, p.parties.Verifier, p.shareP, shareV, z, v, p.w0}.keys()
	if err != nil {
		return nil, err
	}
	if subtle.ConstantTimeCompare(mac(k.confirmV, p.shareP), confirmV) != 1 {
		return nil, ErrWrongCode
	}
	return mac(k.confirmP, shareV), nil
}

// Verifier is the side that knows only w0 and L.
type Verifier struct {
	parties  Parties
	y, w0, l []byte
	keys     keys
	shareV   []byte
}

func verifierWith(w0, l, y []byte, p Parties) *Verifier {
	return &Verifier{parties: p, y: y, w0: w0, l: l}
}

// answer takes the prover's share and gives the verifier's share and confirmation.
func (v *Verifier) answer(shareP []byte) (shareV, confirmV []byte, err error) {
	x, err := unmask(shareP, v.w0, constant(constM))
	if err != nil {
		return nil, nil, err
	}
	l, err := point(v.l)
	if err != nil {
		return nil, nil, err
	}
	z, err1 := mult(x, v.y)
	vv, err2 := mult(l, v.y)
	shareV, err3 := share(v.y, v.w0, constant(constN))
	if err := errors.Join(err1, err2, err3); err != nil {
		return nil, nil, err
	}
	v.shareV = shareV
	v.keys, err = transcript{v.parties.Context, v.parties.Prover, v.parties.Verifier, shareP, shareV, z, vv, v.w0}.keys()
	return shareV, mac(v.keys.confirmV, shareP), err
}

// confirm checks the prover's confirmation.
func (v *Verifier) confirm(confirmP []byte) error {
	if subtle.ConstantTimeCompare(mac(v.keys.confirmP, v.shareV), confirmP) != 1 {
		return ErrWrongCode
	}
	return nil
}
