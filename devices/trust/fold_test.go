package trust

import (
	"crypto/ecdsa"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/hallway-home/hallway/devices"
)

// replica is one owner's copy of a log, without a store: the fold alone.
type replica struct {
	key   *ecdsa.PrivateKey
	edits map[Hash]*parsed
}

// bornHome is the first owner's copy of a new home, with the root key.
func bornHome(t testing.TB) (*replica, *ecdsa.PrivateKey) {
	t.Helper()
	root, owner := newKey(t), newKey(t)
	p, err := sign(root, Edit{
		Version: 1, Home: devices.HomeIDOf(&root.PublicKey), Op: OpGenesis, Signer: idOf(root), HomeKey: make([]byte, homeKeyLen),
		Root: devices.CompressedKey(&root.PublicKey), Key: devices.CompressedKey(&owner.PublicKey), Name: "First",
	})
	if err != nil {
		t.Fatal(err)
	}
	return &replica{owner, map[Hash]*parsed{p.hash: p}}, root
}

func (r *replica) fold() *folder { return fold(r.edits, nil) }

// edit signs e with key on the given parents, or on all heads.
func (r *replica) edit(t testing.TB, key *ecdsa.PrivateKey, e Edit, parents ...Hash) *parsed {
	t.Helper()
	f := r.fold()
	e.Version, e.Home, e.Signer, e.Parents = 1, f.r.Home, idOf(key), parents
	if parents == nil {
		e.Parents = f.r.Heads[:min(len(f.r.Heads), MaxParents)]
	}
	p, err := sign(key, e)
	if err != nil {
		t.Fatal(err)
	}
	r.edits[p.hash] = p
	return p
}

func (r *replica) admit(t testing.TB, name string, role devices.Role) (*replica, *parsed) {
	t.Helper()
	k := newKey(t)
	p := r.edit(t, r.key, Edit{Op: OpAdmit, Key: devices.CompressedKey(&k.PublicKey), Role: role, Name: name})
	return &replica{k, maps.Clone(r.edits)}, p
}

// propose and agree are the two halves of a removal by more than one owner.
func (r *replica) propose(t testing.TB, who *ecdsa.PrivateKey, at int64) *parsed {
	return r.edit(t, r.key, Edit{Op: OpPropose, Node: idOf(who), At: at})
}

func (r *replica) agree(t testing.TB, p *parsed, at int64) *parsed {
	return r.edit(t, r.key, Edit{Op: OpAgree, Node: p.edit.Node, Proposal: p.hash[:], HomeKey: randomKey(), At: at})
}

func removal(who *ecdsa.PrivateKey) Edit {
	return Edit{Op: OpRemove, Node: idOf(who), HomeKey: randomKey()}
}

func (r *replica) take(from *replica) { maps.Copy(r.edits, from.edits) }

func (r *replica) list() []SignedEdit {
	var out []SignedEdit
	for _, p := range r.edits {
		out = append(out, p.signed())
	}
	return out
}

// Two owners work on two halves of a cut home: nothing of either is lost.
func TestConcurrentOwnersLoseNothing(t *testing.T) {
	a, _ := bornHome(t)
	b, _ := a.admit(t, "Owner", devices.RoleOwner)
	for i := range 10 {
		a.admit(t, fmt.Sprintf("A%d", i), devices.RoleDevice)
		b.admit(t, fmt.Sprintf("B%d", i), devices.RoleDevice)
		b.edit(t, b.key, Edit{Op: OpName, Kind: SubjectRoom, Name: fmt.Sprintf("R%d", i)})
	}
	a.take(b)
	f := a.fold()
	if len(f.voids) != 0 || len(f.r.Members) != 22 || len(f.r.Rooms) != 10 || len(f.r.Heads) != 2 {
		t.Fatalf("%d void, %+v", len(f.voids), f.r)
	}
}

// A removed owner builds on old edits as if it knew nothing of its removal, also to put
// its remover out, and waits until somebody's later edit joins that branch.
func TestRemovedOwnerCannotComeBack(t *testing.T) {
	a, _ := bornHome(t)
	b, _ := a.admit(t, "Bad", devices.RoleOwner)
	c, _ := a.admit(t, "Good", devices.RoleOwner)
	b.take(a)
	a.edit(t, a.key, Edit{Op: OpName, Kind: SubjectRoom, Name: "Attic"}) // b does not know this
	a.edit(t, a.key, removal(b.key))
	spy, _ := b.admit(t, "Spy", devices.RoleOwner)
	for range 20 { // some hash is lower than that of the removal
		b.edit(t, b.key, removal(a.key))
		b.edit(t, b.key, removal(c.key))
	}
	spy.take(b)
	spy.edit(t, spy.key, removal(a.key))
	a.take(spy)
	check := func(when string, goodStays bool) {
		t.Helper()
		r := a.fold().r
		if r.Has(idOf(b.key)) || r.Has(idOf(spy.key)) || !r.Has(idOf(a.key)) || r.Has(idOf(c.key)) != goodStays {
			t.Fatalf("%s: %v", when, r.Members)
		}
	}
	check("merged", true)
	for len(a.fold().r.Heads) > 1 {
		a.edit(t, a.key, Edit{Op: OpMerge})
	}
	a.edit(t, a.key, removal(c.key)) // descends from the removed owner's edits too
	check("after a later removal", false)
}

func TestLoneOwnersRemoveOnlyWhomTheyMade(t *testing.T) {
	a, root := bornHome(t)
	b, _ := a.admit(t, "B", devices.RoleOwner)
	c, _ := a.admit(t, "C", devices.RoleOwner)
	d, _ := b.admit(t, "D", devices.RoleOwner)
	for _, x := range []*replica{b, c, d} {
		a.take(x)
	}
	for _, x := range []struct {
		by, who *replica
		ok      bool
	}{{b, a, false}, {b, c, false}, {d, b, false}, {c, d, false}, {b, d, true}, {a, d, true}, {b, b, true}, {a, b, true}} {
		p := &replica{x.by.key, maps.Clone(a.edits)}
		e := p.edit(t, x.by.key, removal(x.who.key))
		f := p.fold()
		if f.r.Has(idOf(x.who.key)) == x.ok || x.ok != (f.voids[e.hash] == nil) || !x.ok && !errors.Is(f.voids[e.hash], ErrSenior) {
			t.Errorf("%+v: %v", x, f.voids[e.hash])
		}
	}
	a.edit(t, root, removal(a.key)) // the recovery code beats all
	if r := a.fold().r; r.Has(idOf(a.key)) || !r.Has(idOf(b.key)) {
		t.Fatalf("%+v", r.Members)
	}
}

// Two concurrent removals: each removed device may have heard of the other's removal,
// and so of the home key in it.
func TestHomeKeyIsNewForEverybodyRemoved(t *testing.T) {
	a, _ := bornHome(t)
	b, _ := a.admit(t, "B", devices.RoleOwner)
	x, _ := a.admit(t, "X", devices.RoleDevice)
	y, _ := a.admit(t, "Y", devices.RoleDevice)
	b.take(a)
	old := a.fold().r.HomeKey
	pa, pb := a.edit(t, a.key, removal(x.key)), b.edit(t, b.key, removal(y.key))
	onlyA, onlyB := a.fold().r.HomeKey, b.fold().r.HomeKey
	a.take(b)
	got := a.fold().r.HomeKey
	for _, known := range [][]byte{old, onlyA, onlyB, pa.edit.HomeKey, pb.edit.HomeKey} {
		if slices.Equal(got, known) || len(got) != homeKeyLen {
			t.Fatalf("a removed device knows the home key %x", got)
		}
	}
}

// What a later version adds is kept, counted and passed on, and changes nothing.
func TestUnknownOperationsAreKept(t *testing.T) {
	l, owner := home(t)
	r := l.Roster()
	raw, err := encMode.Marshal(map[int]any{
		1: 1, 2: r.Home, 3: r.Heads, 4: "rules", 5: idOf(owner), 6: "another type", 40: map[string]int{"x": 1},
	})
	if err != nil {
		t.Fatal(err)
	}
	sig, err := SignRaw(owner, raw)
	if err != nil {
		t.Fatal(err)
	}
	e := SignedEdit{raw, sig}
	if n, err := l.Merge([]SignedEdit{e}); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	admit(t, l, owner, "Panel", "") // on top of it
	got := l.Roster()
	if got.Epoch != 3 || len(got.Members) != 2 || !reflect.DeepEqual(l.Edits(e.Hash()), []SignedEdit{e}) {
		t.Fatalf("%+v", got)
	}
	if _, voids := Fold(l.Edits()); len(voids) != 1 || !strings.Contains(voids[0].Reason, "rule") {
		t.Fatalf("%v", voids)
	}
}

// The same edit with another signature must not hide the signed one.
func TestForgedTwinDoesNotHideAnEdit(t *testing.T) {
	l, owner := home(t)
	k, _ := admit(t, l, owner, "Panel", "")
	edits := l.Edits()
	twin := SignedEdit{edits[1].Raw, make([]byte, 64)}
	for _, list := range [][]SignedEdit{{edits[0], edits[1], twin}, {edits[0], twin, edits[1]}, {twin, edits[1], edits[0]}} {
		if r, _ := Fold(list); !r.Has(idOf(k)) {
			t.Fatal("the signed edit was lost")
		}
	}
}

func TestMalformedEditsAreRefused(t *testing.T) {
	l, owner := home(t)
	r := l.Roster()
	k := newKey(t)
	good := Edit{Version: 1, Home: r.Home, Parents: r.Heads, Op: OpAdmit, Signer: idOf(owner), Key: devices.CompressedKey(&k.PublicKey), Role: devices.RoleDevice, Name: "Panel"}
	for what, change := range map[string]func(*Edit){
		"escape sequence":     func(e *Edit) { e.Name = "\x1b[2J" },
		"override of writing": func(e *Edit) { e.Name = "\u202eVT" },
		"long name":           func(e *Edit) { e.Name = strings.Repeat("x", maxText+1) },
		"unknown role":        func(e *Edit) { e.Role = "king" },
		"no parents":          func(e *Edit) { e.Parents = nil },
		"no home key":         func(e *Edit) { e.Op, e.Key = OpRemove, nil },
		"version 0":           func(e *Edit) { e.Version = 0 },
	} {
		e := good
		change(&e)
		raw, err1 := encMode.Marshal(e)
		sig, err2 := SignRaw(owner, raw)
		if err := errors.Join(err1, err2); err != nil {
			t.Fatal(err)
		}
		if n, err := l.Merge([]SignedEdit{{raw, sig}}); n != 0 || !errors.Is(err, ErrEditForm) {
			t.Errorf("%s: %d %v", what, n, err)
		}
	}
	raw, _ := encMode.Marshal(good)
	loose := append([]byte{0xb8, raw[0] & 0x1f}, raw[1:]...) // the map's length in two bytes
	sig, _ := SignRaw(owner, loose)
	if _, err := l.Merge([]SignedEdit{{loose, sig}}); !errors.Is(err, ErrEditForm) {
		t.Errorf("an edit in another encoding: %v", err)
	}
	sig, _ = SignRaw(owner, raw)
	if n, err := l.Merge([]SignedEdit{{raw, sig}}); n != 1 || err != nil {
		t.Errorf("the good one: %d %v", n, err)
	}
}

func TestSlugs(t *testing.T) {
	for name, want := range map[string]string{
		"Küche": "kueche", "Ku\u0308che": "kueche", "Straße 5": "strasse-5", "Maria's TV": "marias-tv", "  -- ": "", "Salon d’été": "salon-dete",
		"Łazienka": "lazienka", "İstanbul": "istanbul", "Кухня": "kukhnya", "Κουζίνα": "koyzina", "厨房": "", "TV (2)": "tv-2",
		strings.Repeat("long ", 20): "long-long-long-long-long-long-long-long",
	} {
		if got := Slugify(name); got != want {
			t.Errorf("%q becomes %q, want %q", name, got, want)
		}
	}
	l, owner := home(t)
	for _, name := range []string{"厨房", "卧室", "厨房", "Door", "TV"} {
		if err := l.SetRoom(owner, name); err != nil {
			t.Fatal(err)
		}
	}
	if got := slices.Sorted(maps.Keys(l.Roster().Rooms)); !slices.Equal(got, []string{"door-2", "living-room", "room", "room-2", "room-3", "tv-2"}) {
		t.Error(got)
	}
	if err := l.Rename(owner, "tv", "", "卧室"); err != nil || l.Roster().Members[idOf(owner)].Room != "room-2" {
		t.Errorf("%v %+v", err, l.Roster().Members)
	}
}
