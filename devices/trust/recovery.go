package trust

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"fmt"
	"math/big"
	"strings"

	"github.com/hallway-home/hallway/devices"
)

// crockford avoids letters that look like digits.
var crockford = base32.NewEncoding("0123456789ABCDEFGHJKMNPQRSTVWXYZ").WithPadding(base32.NoPadding)

// ErrCode marks a recovery code that cannot be one.
var ErrCode = errors.New("this is no recovery code")

// RecoveryCode is 128 random bits, shown once when a home is born. The root key is
// derived from it; neither is stored anywhere.
type RecoveryCode [16]byte

// NewRecoveryCode draws a code.
func NewRecoveryCode() RecoveryCode {
	var c RecoveryCode
	_, _ = rand.Read(c[:]) // never fails (crypto/rand)
	return c
}

// String groups the code for reading and writing down; the last two characters check
// the rest.
func (c RecoveryCode) String() string {
	sum := sha256.Sum256(c[:])
	s := crockford.EncodeToString(c[:]) + crockford.EncodeToString(sum[:2])[:2]
	var groups []string
	for len(s) > 0 {
		n := min(4, len(s))
		groups, s = append(groups, s[:n]), s[n:]
	}
	return strings.Join(groups, "-")
}

// ParseRecoveryCode reads what a person typed: case, spaces and hyphens do not matter,
// and the letters O, I and L are read as digits.
func ParseRecoveryCode(text string) (RecoveryCode, error) {
	clean := strings.NewReplacer("-", "", " ", "", "O", "0", "I", "1", "L", "1").Replace(strings.ToUpper(text))
	var c RecoveryCode
	if len(clean) != 28 {
		return c, fmt.Errorf("%w: a recovery code has 28 letters and digits; check for missing ones", ErrCode)
	}
	raw, err := crockford.DecodeString(clean[:26])
	if err != nil {
		return c, fmt.Errorf("%w: the recovery code holds a character that never occurs in one; check it letter by letter", ErrCode)
	}
	copy(c[:], raw)
	sum := sha256.Sum256(c[:])
	if crockford.EncodeToString(sum[:2])[:2] != clean[26:] {
		return c, fmt.Errorf("%w: the recovery code does not check out; one of its characters is wrong", ErrCode)
	}
	return c, nil
}

// rootOf derives the root key of a home; ErrRecovery says that the code is another's.
func (c RecoveryCode) rootOf(r *devices.Roster) (*ecdsa.PrivateKey, error) {
	if r == nil {
		return nil, ErrNoHome
	}
	root, err := c.rootKey()
	if err == nil && devices.HomeIDOf(&root.PublicKey) != r.Home {
		err = ErrRecovery
	}
	return root, err
}

// rootKey derives the home's root key: HKDF-SHA256 (RFC 5869) to 40 bytes, reduced to a
// scalar as in FIPS 186-5 A.2.1 (the extra 64 bits make the bias negligible).
func (c RecoveryCode) rootKey() (*ecdsa.PrivateKey, error) {
	okm, err := hkdf.Key(sha256.New, c[:], nil, "hallway root key v1", 40)
	if err != nil {
		return nil, err
	}
	one := big.NewInt(1)
	n := new(big.Int).Sub(elliptic.P256().Params().N, one)
	d := new(big.Int).Add(new(big.Int).Mod(new(big.Int).SetBytes(okm), n), one)
	return ecdsa.ParseRawPrivateKey(elliptic.P256(), d.FillBytes(make([]byte, 32)))
}
