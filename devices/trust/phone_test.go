package trust

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/hallway-home/hallway/devices"
)

func TestAPersonHasPhones(t *testing.T) {
	l, owner := home(t)
	a, b := newKey(t), newKey(t)
	anna, err := l.AddPhone(owner, NewPhone{Key: &a.PublicKey, Label: "Anna's phone", Name: "Anna", Role: devices.RoleOwner})
	if err != nil || anna.Slug != "annas-phone" || anna.Person != "anna" {
		t.Fatalf("%+v %v", anna, err)
	}
	if again, err := l.AddPhone(owner, NewPhone{Key: &a.PublicKey, Label: "Other", Name: "Other", Role: devices.RoleGuest}); err != nil || again != anna {
		t.Errorf("the same key twice: %+v %v", again, err)
	}
	second, err := l.AddPhone(owner, NewPhone{Key: &b.PublicKey, Label: "Tablet", Person: "anna"})
	if err != nil {
		t.Fatal(err)
	}
	r := l.Roster()
	if p := r.Persons["anna"]; p.Role != devices.RoleOwner || !slices.Equal(p.Nodes, []devices.NodeID{idOf(a), idOf(b)}) {
		t.Errorf("%+v", p)
	}
	if r.Has(idOf(a)) {
		t.Error("a phone is no member: its key must not open the member port")
	}
	// Who changes the person's devices or role keeps the phones.
	if err := l.SetPerson(owner, "anna", "Anna B", devices.RoleOwner, []devices.NodeID{idOf(owner)}); err != nil {
		t.Fatal(err)
	}
	until := time.Unix(2_000_000_000, 0)
	if err := l.ChangePerson(owner, "anna", devices.RoleGuest, until); err != nil {
		t.Fatal(err)
	}
	if p := l.Roster().Persons["anna"]; len(p.Nodes) != 3 || p.Name != "Anna B" || p.Role != devices.RoleGuest || p.Until != until.Unix() {
		t.Errorf("%+v", p)
	}
	if err := l.RemovePhone(owner, second.Slug); err != nil {
		t.Fatal(err)
	}
	r = l.Roster()
	if _, ok := r.Phones[idOf(b)]; ok || !r.Lost[idOf(b)] || slices.Contains(r.Persons["anna"].Nodes, idOf(b)) {
		t.Errorf("%+v %+v", r.Phones, r.Persons["anna"])
	}
	if _, err := l.AddPhone(owner, NewPhone{Key: &b.PublicKey, Label: "Tablet", Person: "anna"}); !errors.Is(err, ErrPhoneLost) {
		t.Errorf("a lost key came back: %v", err)
	}
	if err := l.Delete(owner, "anna"); err != nil {
		t.Fatal(err)
	}
	if r = l.Roster(); len(r.Phones) != 0 || !r.Lost[idOf(a)] {
		t.Errorf("the phones of somebody who is gone: %+v", r.Phones)
	}
}

// A wall panel is a person with a room. It keeps it through every other change, and loses it with
// the room; an edit without one folds as before.
func TestAPersonLivesInARoom(t *testing.T) {
	l := newLog(t)
	owner := newKey(t)
	code, err := l.Create(owner, CreateParams{HomeName: "Home", Name: "TV"})
	if err != nil {
		t.Fatal(err)
	}
	a, b := newKey(t), newKey(t)
	room := func(want string) {
		t.Helper()
		if got := l.Roster().Persons["wall"].Room; got != want {
			t.Errorf("it is in the room %q, not %q", got, want)
		}
	}
	do := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	_, err = l.AddPhone(owner, NewPhone{Key: &a.PublicKey, Label: "Tablet", Name: "Wall", Role: devices.RoleMember, Room: "Big kitchen"})
	do(err)
	room("big-kitchen")
	if r := l.Roster().Rooms["big-kitchen"]; r.Name != "Big kitchen" {
		t.Errorf("the room is %+v", r)
	}
	do(l.ChangePerson(owner, "wall", devices.RoleGuest, time.Unix(2_000_000_000, 0)))
	do(l.SetPerson(owner, "wall", "Panel", devices.RoleMember, nil))
	do(l.Rename(owner, "wall", "Wall panel", ""))
	_, err = l.AddPhone(owner, NewPhone{Key: &b.PublicKey, Label: "Other", Person: "wall", Room: "Cellar"})
	do(err)
	room("big-kitchen")
	do(l.Rename(owner, "wall", "", "Hall"))
	room("hall")
	if p := l.Roster().Persons["wall"]; p.Name != "Wall panel" || len(p.Nodes) != 2 || p.Until == 0 {
		t.Errorf("%+v", p)
	}
	if h := l.History(); h[len(h)-1].What != "person wall is called Wall panel in Hall" {
		t.Errorf("the log says %q", h[len(h)-1].What)
	}
	do(l.Checkpoint(code))
	room("hall")
	do(l.Delete(owner, "hall"))
	room("")
	if _, ok := l.Roster().Rooms["cellar"]; ok {
		t.Error("a phone of somebody known made a room")
	}
}

// Two owners apart: one takes a phone away, the other lists it among the person's devices, or
// adds another. The lost one stays lost, the new one stays.
func TestALostPhoneIsNotBroughtBackByAnEditBesideIt(t *testing.T) {
	l, owner := home(t)
	a, b := newKey(t), newKey(t)
	if _, err := l.AddPhone(owner, NewPhone{Key: &a.PublicKey, Label: "Phone", Name: "Anna", Role: devices.RoleOwner}); err != nil {
		t.Fatal(err)
	}
	before := l.Edits()
	other := newLog(t)
	if err := other.Adopt(before, l.Roster().Home, idOf(owner)); err != nil {
		t.Fatal(err)
	}
	if err := l.RemovePhone(owner, "phone"); err != nil {
		t.Fatal(err)
	}
	if err := other.SetPerson(owner, "anna", "Anna", devices.RoleOwner, []devices.NodeID{idOf(a)}); err != nil {
		t.Fatal(err)
	}
	if _, err := other.AddPhone(owner, NewPhone{Key: &b.PublicKey, Label: "New", Person: "anna"}); err != nil {
		t.Fatal(err)
	}
	all := append(l.Edits(), other.Edits()...)
	for _, edits := range [][]SignedEdit{all, slices.Concat(other.Edits(), l.Edits())} {
		r, _ := Fold(edits)
		if p := r.Persons["anna"]; !r.Lost[idOf(a)] || slices.Contains(p.Nodes, idOf(a)) || !slices.Contains(p.Nodes, idOf(b)) || len(r.Phones) != 1 {
			t.Errorf("%+v %+v", p, r.Phones)
		}
	}
}

func TestPhonesAndAuthorityOutliveACheckpoint(t *testing.T) {
	l := newLog(t)
	owner := newKey(t)
	code, err := l.Create(owner, CreateParams{HomeName: "Home", Name: "TV"})
	if err != nil {
		t.Fatal(err)
	}
	a, b := newKey(t), newKey(t)
	for _, p := range []NewPhone{
		{Key: &a.PublicKey, Label: "Phone", Name: "Anna", Role: devices.RoleGuest, Until: time.Unix(2_000_000_000, 0)},
		{Key: &b.PublicKey, Label: "Old", Name: "Ben", Role: devices.RoleMember},
	} {
		if _, err := l.AddPhone(owner, p); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.RemovePhone(owner, "old"); err != nil {
		t.Fatal(err)
	}
	if err := l.SetWebCA(owner, [32]byte{1, 2, 3}); err != nil {
		t.Fatal(err)
	}
	want := l.Roster()
	if err := l.Checkpoint(code); err != nil {
		t.Fatal(err)
	}
	got := l.Roster()
	if got.WebCA != want.WebCA || len(got.Phones) != 1 || got.Phones[idOf(a)] != want.Phones[idOf(a)] || !got.Lost[idOf(b)] || got.Persons["anna"].Until != 2_000_000_000 {
		t.Errorf("%+v, not %+v", got, want)
	}
}

func TestMalformedPhoneEditsAreRefused(t *testing.T) {
	for name, e := range map[string]Edit{
		"no phone":    {Op: OpPhone, Slug: "anna"},
		"two phones":  {Op: OpLost, Nodes: make([]devices.NodeID, 2)},
		"no role":     {Op: OpPhone, Name: "Anna", Nodes: make([]devices.NodeID, 1)},
		"a node role": {Op: OpPerson, Slug: "anna", Role: devices.RoleDevice},
		"no hash":     {Op: OpWebCA, State: []byte{1}},
		"bad label":   {Op: OpPhone, Slug: "anna", Nodes: make([]devices.NodeID, 1), Label: "a\x1b[2J"},
	} {
		if err := wellFormed(e); !errors.Is(err, ErrEditForm) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
