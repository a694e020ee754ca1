package pairing

import (
	"crypto/rand"
	"encoding/base32"
	"errors"
	"fmt"
	"math/big"
	"net"
	"strings"

	"github.com/hallway-home/hallway/devices"
)

// crockfordLetters avoids letters that look like digits.
const crockfordLetters = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"

var crockford = base32.NewEncoding(crockfordLetters).WithPadding(base32.NoPadding)

// isCrockford is stricter than a decoder, which skips line ends.
func isCrockford(s string) bool { return strings.Trim(s, crockfordLetters) == "" }

// ErrCode says that a typed code cannot be one.
var ErrCode = errors.New("that is not a pairing code: it has nine digits, and the last one checks the others; read it again from the new device")

// Code is 8 random digits and a Verhoeff check digit, made for each window.
type Code string

// NewCode draws a code that is not trivial.
func NewCode() Code {
	for {
		n, err := rand.Int(rand.Reader, big.NewInt(100_000_000))
		if err != nil {
			continue // crypto/rand does not fail
		}
		if d := fmt.Sprintf("%08d", n); !trivial(d) {
			return Code(d + string('0'+verhoeff(d)))
		}
	}
}

// trivial codes are what people try first.
func trivial(d string) bool {
	return d == "12345678" || d == "87654321" || strings.Count(d, d[:1]) == len(d)
}

// String groups the digits for reading aloud.
func (c Code) String() string { return string(c[:3]) + " " + string(c[3:6]) + " " + string(c[6:]) }

// ParseCode reads what a person typed; spaces and hyphens do not matter.
func ParseCode(s string) (Code, error) {
	d := strings.NewReplacer(" ", "", "-", "").Replace(s)
	if len(d) != 9 || strings.Trim(d, "0123456789") != "" || trivial(d[:8]) || verhoeff(d[:8]) != d[8]-'0' {
		return "", ErrCode
	}
	return Code(d), nil
}

// Tables of Verhoeff's check digit: the dihedral group D5 and its permutation. It finds
// every single wrong digit and every swap of neighbours.
var (
	dihedral = [10][10]byte{
		{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}, {1, 2, 3, 4, 0, 6, 7, 8, 9, 5}, {2, 3, 4, 0, 1, 7, 8, 9, 5, 6},
		{3, 4, 0, 1, 2, 8, 9, 5, 6, 7}, {4, 0, 1, 2, 3, 9, 5, 6, 7, 8}, {5, 9, 8, 7, 6, 0, 4, 3, 2, 1},
		{6, 5, 9, 8, 7, 1, 0, 4, 3, 2}, {7, 6, 5, 9, 8, 2, 1, 0, 4, 3}, {8, 7, 6, 5, 9, 3, 2, 1, 0, 4}, {9, 8, 7, 6, 5, 4, 3, 2, 1, 0},
	}
	permute = [8][10]byte{
		{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}, {1, 5, 7, 6, 2, 8, 3, 0, 9, 4}, {5, 8, 0, 3, 7, 9, 6, 1, 4, 2}, {8, 9, 1, 6, 0, 4, 3, 5, 2, 7},
		{9, 4, 5, 3, 1, 2, 6, 8, 7, 0}, {4, 2, 8, 6, 5, 7, 3, 9, 0, 1}, {2, 7, 9, 3, 8, 0, 6, 4, 1, 5}, {7, 0, 4, 6, 9, 1, 3, 2, 5, 8},
	}
	inverse = [10]byte{0, 4, 3, 2, 1, 5, 6, 7, 8, 9}
)

func verhoeff(digits string) byte {
	var c byte
	for i := range len(digits) {
		c = dihedral[c][permute[(i+1)%8][digits[len(digits)-1-i]-'0']]
	}
	return inverse[c]
}

// ShortID is the 4-character name of a device that shows a code: the first 20 bits of
// its Node-ID, which its announcement carries too.
func ShortID(id devices.NodeID) string { return ShortIDOfPrefix([8]byte(id[:8])) }

// ShortIDOfPrefix is ShortID for an announced half of a Node-ID.
func ShortIDOfPrefix(p [8]byte) string { return crockford.EncodeToString(p[:])[:4] }

// Token is a one-time 128-bit secret for a device without a screen.
type Token struct {
	ShortID string // of the owner that made it
	Secret  string // 26 characters
	Seed    string // host:port of the owner, for networks without multicast; may be empty
}

// NewToken draws a token of an owner.
func NewToken(owner devices.NodeID, seed string) Token {
	b := make([]byte, 16)
	_, _ = rand.Read(b) // never fails (crypto/rand)
	return Token{ShortID(owner), crockford.EncodeToString(b), seed}
}

func (t Token) String() string {
	s := "hw1-" + t.ShortID + "-" + t.Secret
	if t.Seed != "" {
		s += "@" + t.Seed
	}
	return s
}

// ParseToken reads a token.
func ParseToken(s string) (Token, error) {
	bad := errors.New("that is not a join token; `hallway invite` on an owner prints one, beginning with hw1-")
	body, seed, _ := strings.Cut(strings.TrimSpace(s), "@")
	parts := strings.Split(strings.ToUpper(body), "-")
	if len(parts) != 3 || parts[0] != "HW1" || len(parts[1]) != 4 || len(parts[2]) != 26 || !isCrockford(parts[1]+parts[2]) {
		return Token{}, bad
	}
	if seed != "" {
		if _, _, err := net.SplitHostPort(seed); err != nil {
			return Token{}, fmt.Errorf("the address in the join token is none: %w", err)
		}
	}
	return Token{parts[1], parts[2], seed}, nil
}

// QR is what the new device's code shows as a picture: an HTTPS URL that will open the
// companion, with the secret in its fragment, where no server logs it.
func QR(id devices.NodeID, c Code) string {
	return "https://hallway-" + id.Short() + ".local:8443/add#" + ShortID(id) + "." + string(c)
}
