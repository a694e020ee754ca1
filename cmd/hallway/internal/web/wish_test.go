package web

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/hallway-home/hallway/cmd/hallway/internal/api"
	"github.com/hallway-home/hallway/devices"
	"github.com/hallway-home/hallway/devices/trust"
)

var ownerNode = devices.NodeID{1, 2, 3}

// The same bytes are signed by the page: src/pure.test.ts reads this file as well.
func TestWishStatementIsThatOfThePage(t *testing.T) {
	raw, err := os.ReadFile("testdata/wish.json")
	if err != nil {
		t.Fatal(err)
	}
	var all []struct {
		Home                                     devices.HomeID
		Owner                                    devices.NodeID
		Challenge, Method, Path, Body, Statement string
	}
	if err := json.Unmarshal(raw, &all); err != nil || len(all) < 4 {
		t.Fatal(len(all), err)
	}
	for _, v := range all {
		w := api.Wish{Method: v.Method, Path: v.Path, Body: []byte(v.Body), Challenge: v.Challenge}
		if got := string(WishStatement(v.Home, v.Owner, w)); got != v.Statement {
			t.Errorf("%s %s:\n%q\n%q", v.Method, v.Path, got, v.Statement)
		}
	}
}

// signedBy is a wish as the page sends it.
func signedBy(t testing.TB, key *ecdsa.PrivateKey) api.Wish {
	t.Helper()
	w := api.Wish{Method: http.MethodPatch, Path: api.Prefix + "/home/names/cam", Body: []byte(`{"name":"Gate"}`), Challenge: NewChallenges().New(), Key: devices.CompressedKey(&key.PublicKey)}
	var err error
	if w.Signature, err = trust.SignRaw(key, WishStatement(homeID, ownerNode, w)); err != nil {
		t.Fatal(err)
	}
	return w
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestAWishIsThatOneAndNoOther(t *testing.T) {
	key, other := newKey(t), newKey(t)
	w := signedBy(t, key)
	if pub, err := CheckWish(homeID, ownerNode, w); err != nil || !pub.Equal(&key.PublicKey) {
		t.Fatal("as it was signed: ", err)
	}
	for name, alter := range map[string]func(w *api.Wish, home *devices.HomeID, owner *devices.NodeID){
		"another path":      func(w *api.Wish, _ *devices.HomeID, _ *devices.NodeID) { w.Path = api.Prefix + "/home/names/stove" },
		"another body":      func(w *api.Wish, _ *devices.HomeID, _ *devices.NodeID) { w.Body = []byte(`{"name":"Gone"}`) },
		"no body":           func(w *api.Wish, _ *devices.HomeID, _ *devices.NodeID) { w.Body = nil },
		"another method":    func(w *api.Wish, _ *devices.HomeID, _ *devices.NodeID) { w.Method = http.MethodDelete },
		"another home":      func(_ *api.Wish, home *devices.HomeID, _ *devices.NodeID) { home[0]++ },
		"another owner":     func(_ *api.Wish, _ *devices.HomeID, owner *devices.NodeID) { owner[0]++ },
		"another challenge": func(w *api.Wish, _ *devices.HomeID, _ *devices.NodeID) { w.Challenge = NewChallenges().New() },
		"another key": func(w *api.Wish, _ *devices.HomeID, _ *devices.NodeID) {
			w.Key = devices.CompressedKey(&other.PublicKey)
		},
		"no key":           func(w *api.Wish, _ *devices.HomeID, _ *devices.NodeID) { w.Key = nil },
		"no signature":     func(w *api.Wish, _ *devices.HomeID, _ *devices.NodeID) { w.Signature = nil },
		"half a signature": func(w *api.Wish, _ *devices.HomeID, _ *devices.NodeID) { w.Signature = w.Signature[:32] },
	} {
		altered, home, owner := w, homeID, ownerNode
		alter(&altered, &home, &owner)
		if _, err := CheckWish(home, owner, altered); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
	sig, err := trust.SignRaw(key, Statement("host", homeID, w.Challenge))
	if err != nil {
		t.Fatal(err)
	}
	login := w
	login.Signature = sig
	if _, err := CheckWish(homeID, ownerNode, login); err == nil {
		t.Error("a login is taken for a wish")
	}
	for _, path := range []string{"", "/", "/healthz", "/api/v1", "/api/v1/", "/api/v10/home", "/api/v1/home?x=1", "/api/v1/home\x00GET", "http://evil.example/api/v1/home", "/api/v1/" + strings.Repeat("a", 256)} {
		odd := api.Wish{Method: w.Method, Path: path, Challenge: w.Challenge, Key: w.Key}
		if odd.Signature, err = trust.SignRaw(key, WishStatement(homeID, ownerNode, odd)); err != nil {
			t.Fatal(err)
		}
		if _, err := CheckWish(homeID, ownerNode, odd); err == nil {
			t.Errorf("the path %q is taken", path)
		}
	}
}

// What is read of an Authorization is all that it says, in one form.
func FuzzWish(f *testing.F) {
	w := signedBy(f, newKey(f))
	write := func(owner devices.NodeID, challenge string, signature []byte) string {
		return wishScheme + ` owner="` + owner.String() + `", challenge="` + challenge + `", signature="` + base64.RawURLEncoding.EncodeToString(signature) + `"`
	}
	good := write(ownerNode, w.Challenge, w.Signature)
	if owner, challenge, signature, ok := ParseWish(good); !ok || owner != ownerNode || challenge != w.Challenge || string(signature) != string(w.Signature) {
		f.Fatal("what the page sends is not read")
	}
	f.Add(good)
	f.Add(AskWish(homeID, ownerNode, w.Challenge))
	f.Add(strings.ToUpper(good))
	f.Add("Bearer x")
	f.Fuzz(func(t *testing.T, s string) {
		owner, challenge, signature, ok := ParseWish(s)
		if ok && (write(owner, challenge, signature) != s || len(signature) != 64) {
			t.Errorf("%q is read as %v %q %x", s, owner, challenge, signature)
		}
	})
}
