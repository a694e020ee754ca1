package web

import (
	"crypto/ecdsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"net/http"
	"regexp"
	"strings"

	"github.com/hallway-home/hallway/cmd/hallway/internal/api"
	"github.com/hallway-home/hallway/devices"
	"github.com/hallway-home/hallway/devices/trust"
)

// A node that is no owner's answers a wish of an owner-person with 401 and a challenge of an
// owner's node; the page signs the wish and sends it again. It is an authentication scheme of
// HTTP (RFC 9110 section 11): the challenge stands in WWW-Authenticate, what was signed in Authorization.
const (
	// wishScheme names it.
	wishScheme = "Hallway-Wish"
	// wishContext keeps a signature from meaning anything else than a wish.
	wishContext = "hallway-wish/1"
	// maxWishPath bounds the path of a request: names, not data.
	maxWishPath = 256
)

// ErrWish says that a wish is not what a phone of the home signed.
var ErrWish = errors.New("this was not signed by a phone of the home as it arrived; nothing was changed")

// WishStatement is what a phone signs so that an owner's node does what another one was asked for:
// this request and no other, once, there.
func WishStatement(home devices.HomeID, owner devices.NodeID, w api.Wish) []byte {
	sum := sha256.Sum256(w.Body)
	return []byte(strings.Join([]string{wishContext, home.String(), owner.String(), w.Challenge, w.Method, w.Path, hex.EncodeToString(sum[:])}, "\x00"))
}

// AskWish is the WWW-Authenticate by which a page is asked to sign.
func AskWish(home devices.HomeID, owner devices.NodeID, challenge string) string {
	return wishScheme + ` home="` + home.String() + `", owner="` + owner.String() + `", challenge="` + challenge + `"`
}

// signedWish is the Authorization of a page that signed: base64url without padding.
var signedWish = regexp.MustCompile(`^` + wishScheme + ` owner="([0-9a-f]{32})", challenge="([A-Za-z0-9_-]{54})", signature="([A-Za-z0-9_-]{86})"$`)

// ParseWish reads an Authorization: for which owner's node, over which of its challenges.
func ParseWish(authorization string) (owner devices.NodeID, challenge string, signature []byte, ok bool) {
	m := signedWish.FindStringSubmatch(authorization)
	if m == nil {
		return owner, "", nil, false
	}
	owner, err := devices.ParseNodeID(m[1])
	signature, bad := base64.RawURLEncoding.Strict().DecodeString(m[3])
	return owner, m[2], signature, err == nil && bad == nil
}

// plain are the characters of the API's paths; none of them ends a part of the statement.
var plain = regexp.MustCompile(`^` + api.Prefix + `(/[A-Za-z0-9._~%-]+)+$`)

// CheckWish says whether a phone signed w for this home and this owner's node. Freshness is the
// caller's to check.
func CheckWish(home devices.HomeID, owner devices.NodeID, w api.Wish) (*ecdsa.PublicKey, error) {
	switch w.Method {
	case http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete:
	default:
		return nil, ErrWish
	}
	pub, err := devices.ParseCompressedKey(w.Key)
	if err != nil || len(w.Path) > maxWishPath || !plain.MatchString(w.Path) {
		return nil, ErrWish
	}
	if !trust.VerifyRaw(pub, WishStatement(home, owner, w), w.Signature) { // check: signature of a wish
		return nil, ErrWish
	}
	return pub, nil
}
