package agent

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/hallway-home/hallway/cmd/hallway/internal/api"
	"github.com/hallway-home/hallway/cmd/hallway/internal/web"
	"github.com/hallway-home/hallway/devices"
	"github.com/hallway-home/hallway/devices/trust"
)

// wishHome is an owner's node with persons of three roles, and a device that brings what they wish.
type wishHome struct {
	t     *testing.T
	a     *Agent
	cam   devices.Device
	keys  map[string]*ecdsa.PrivateKey // of phones, by person
	slugs map[string]string            // of phones
}

func newWishHome(t *testing.T) *wishHome {
	t.Helper()
	a := homeOfOne(t)
	a.wishes = newWishes()
	a.dir = devices.NewDirectory(a.self)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- a.dir.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	a.routes, _ = api.NewHandler(a, nil, "test")
	h := &wishHome{t: t, a: a, keys: map[string]*ecdsa.PrivateKey{}, slugs: map[string]string{}}
	cam, err := a.roster.Admit(a.key, trust.Candidate{Key: devices.CompressedKey(&h.key("cam").PublicKey), Name: "Cam", Role: devices.RoleDevice, Class: devices.ClassCamera})
	if err != nil {
		t.Fatal(err)
	}
	h.cam = devices.Device{Node: cam.Node, Slug: cam.Slug, Name: cam.Name}
	for person, role := range map[string]devices.Role{"anna": devices.RoleOwner, "mia": devices.RoleMember, "gus": devices.RoleGuest, "left": devices.RoleOwner} {
		p, err := a.roster.AddPhone(a.key, trust.NewPhone{Key: &h.key(person).PublicKey, Label: person + "s phone", Name: person, Role: role})
		if err != nil {
			t.Fatal(err)
		}
		h.slugs[person] = p.Slug
	}
	if err := a.roster.RemovePhone(a.key, h.slugs["left"]); err != nil {
		t.Fatal(err)
	}
	h.key("stranger")
	return h
}

func (h *wishHome) key(name string) *ecdsa.PrivateKey {
	h.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		h.t.Fatal(err)
	}
	h.keys[name] = key
	return key
}

// wish is what the phone of a person signs.
func (h *wishHome) wish(who, method, path, body string) wishQuestion {
	h.t.Helper()
	c := h.a.answerWish(h.t.Context(), h.cam, wishQuestion{}).Challenge
	w := api.Wish{Method: method, Path: api.Prefix + path, Body: []byte(body), Challenge: c, Key: devices.CompressedKey(&h.keys[who].PublicKey)}
	sig, err := trust.SignRaw(h.keys[who], web.WishStatement(h.a.roster.Roster().Home, h.a.self, w))
	if err != nil {
		h.t.Fatal(err)
	}
	return wishQuestion{Challenge: c, Method: method, Path: w.Path, Body: w.Body, Key: w.Key, Signature: sig}
}

func (h *wishHome) name() string { return h.a.roster.Roster().Members[h.cam.Node].Name }

func TestAWishChangesTheHomeOnceForWhoMay(t *testing.T) {
	h := newWishHome(t)
	rename := func(who, name string) wishQuestion {
		return h.wish(who, http.MethodPatch, "/home/names/cam", `{"name":"`+name+`"}`)
	}
	first := rename("anna", "Gate")
	if r := h.a.answerWish(t.Context(), h.cam, first); r.Status != http.StatusNoContent || h.name() != "Gate" {
		t.Fatalf("%d %s, the camera is %q", r.Status, r.Body, h.name())
	}
	epoch := h.a.epoch()
	altered := rename("anna", "Mine")
	altered.Body = []byte(`{"name":"Yours"}`)
	elsewhere := rename("anna", "Mine")
	elsewhere.Challenge = web.NewChallenges().New() // of another owner, or of this one before its restart
	for name, c := range map[string]struct {
		q    wishQuestion
		want int
	}{
		"brought again":                 {first, http.StatusUnprocessableEntity},
		"altered on the way":            {altered, http.StatusUnprocessableEntity},
		"over a challenge of elsewhere": {elsewhere, http.StatusUnauthorized},
		"of a member":                   {rename("mia", "Mine"), http.StatusForbidden},
		"of a guest":                    {rename("gus", "Mine"), http.StatusForbidden},
		"of a removed phone":            {rename("left", "Mine"), http.StatusForbidden},
		"of a stranger":                 {rename("stranger", "Mine"), http.StatusForbidden},
		"for what is done at a device":  {h.wish("anna", http.MethodPost, "/pair", `{}`), http.StatusForbidden},
		"for a join token":              {h.wish("anna", http.MethodPost, "/invite", `{}`), http.StatusForbidden},
		"for a stream without an end":   {h.wish("anna", http.MethodGet, "/events", ""), http.StatusForbidden},
		"for what does not exist":       {h.wish("anna", http.MethodPost, "/nothing", `{}`), http.StatusNotFound},
		"for a name that nothing has":   {h.wish("anna", http.MethodPatch, "/home/names/nobody", `{"name":"Mine"}`), http.StatusNotFound},
		"with a body that is none":      {h.wish("anna", http.MethodPatch, "/home/names/cam", `{"name":`), http.StatusBadRequest},
		"to let a phone in unconfirmed": {h.wish("anna", http.MethodPost, "/phones/window", `{"name":"Ben","trusted":true}`), http.StatusUnprocessableEntity},
	} {
		r := h.a.answerWish(t.Context(), h.cam, c.q)
		if r.Status != c.want || h.a.epoch() != epoch || h.name() != "Gate" {
			t.Errorf("a wish %s: %d %s, not %d; the camera is %q", name, r.Status, r.Body, c.want, h.name())
		}
	}
	if w := h.a.phoneWindowNow(); w != nil {
		t.Error("a window for a phone was opened")
	}
}

func TestAWishGetsOld(t *testing.T) {
	h := newWishHome(t)
	q := h.wish("anna", http.MethodPatch, "/home/names/cam", `{"name":"Gate"}`)
	h.a.wishes.challenges = web.NewChallenges() // as after a restart
	if r := h.a.answerWish(t.Context(), h.cam, q); r.Status != http.StatusUnauthorized || h.name() != "Cam" {
		t.Errorf("%d %s", r.Status, r.Body)
	}
}

// A stranger's key costs no memory and a flood no more than its pace.
func TestWishesAreBounded(t *testing.T) {
	h := newWishHome(t)
	if _, err := h.a.wisher(asWish(h.wish("stranger", http.MethodPatch, "/home/names/cam", `{}`))); err == nil {
		t.Error("a stranger's wish is somebody's")
	}
	often := 0
	began := time.Now()
	const tried = 3 * wishBurst
	for range tried {
		if r := h.a.answerWish(t.Context(), h.cam, h.wish("anna", http.MethodGet, "/phones/window", "")); r.Status == http.StatusTooManyRequests {
			often++
		}
	}
	if allowed := wishBurst + int(time.Since(began).Seconds()*wishesPerSecond) + 1; often < tried-allowed {
		t.Errorf("only %d of %d were too many", often, tried)
	}
}

func asWish(q wishQuestion) api.Wish {
	return api.Wish{Method: q.Method, Path: q.Path, Body: q.Body, Key: q.Key, Challenge: q.Challenge, Signature: q.Signature}
}

// A device's node that no owner's can be reached from says so, and changes nothing.
func TestWithoutAnOwnerItSaysSo(t *testing.T) {
	h := newWishHome(t)
	if h.a.Carries() {
		t.Error("an owner's node lets others do it")
	}
	_, err := h.a.roster.Admit(h.a.key, trust.Candidate{Key: devices.CompressedKey(&h.key("stove").PublicKey), Name: "Stove", Role: devices.RoleOwner, Class: devices.ClassPanel})
	if err != nil {
		t.Fatal(err)
	}
	if err := h.a.roster.Change(h.a.key, h.a.roster.Roster().Members[h.a.self].Slug, devices.RoleDevice, ""); err != nil {
		t.Fatal(err)
	}
	if !h.a.Carries() {
		t.Fatal("a device's node does it itself")
	}
	c := h.a.Carry(t.Context(), api.Wish{Method: http.MethodPatch, Path: api.Prefix + "/home/names/cam", Body: []byte(`{"name":"Gate"}`)})
	if c.Status != http.StatusServiceUnavailable || !strings.Contains(string(c.Body), "switch on Stove and try again") {
		t.Errorf("%d %s", c.Status, c.Body)
	}
	if c := h.a.Carry(t.Context(), api.Wish{Body: make([]byte, maxWish+1)}); c.Status != http.StatusRequestEntityTooLarge {
		t.Errorf("%d %s", c.Status, c.Body)
	}
	if r := h.a.answerWish(t.Context(), h.cam, h.wish("anna", http.MethodPatch, "/home/names/cam", `{"name":"Gate"}`)); r.Status != http.StatusForbidden || h.name() != "Cam" {
		t.Errorf("a node that is no owner's did it: %d %s", r.Status, r.Body)
	}
}
