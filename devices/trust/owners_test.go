package trust

import (
	"crypto/ecdsa"
	"errors"
	"fmt"
	"maps"
	"testing"
	"time"

	"github.com/hallway-home/hallway/devices"
)

// kin is a home of three: the TV made the phone and the pad owners, the pad made the child.
func kin(t testing.TB) (tv, phone, pad, child *replica) {
	tv, phone, pad, child, _ = kinOf(t)
	return
}

func kinOf(t testing.TB) (tv, phone, pad, child *replica, root *ecdsa.PrivateKey) {
	tv, root = bornHome(t)
	phone, _ = tv.admit(t, "Phone", devices.RoleOwner)
	pad, _ = tv.admit(t, "Pad", devices.RoleOwner)
	child, _ = pad.admit(t, "Child", devices.RoleOwner)
	for _, n := range []*replica{tv, phone, pad} {
		n.take(child)
	}
	return tv, phone, pad, child, root
}

func TestTwoOwnersRemoveAThird(t *testing.T) {
	for _, c := range []struct {
		what string
		who  func(tv, phone, pad, child *replica) (by, second, target *replica)
		want error
	}{
		{"two remove who made both", func(tv, phone, pad, _ *replica) (_, _, _ *replica) { return phone, pad, tv }, nil},
		{"a grandchild is as good", func(tv, phone, _, child *replica) (_, _, _ *replica) { return phone, child, tv }, nil},
		{"two remove another branch", func(_, phone, pad, child *replica) (_, _, _ *replica) { return phone, pad, child }, nil},
		{"maker and made count as one", func(tv, phone, pad, child *replica) (_, _, _ *replica) { return pad, child, phone }, ErrNoSecond},
		{"in either order", func(tv, phone, pad, child *replica) (_, _, _ *replica) { return child, pad, tv }, ErrNoSecond},
		{"the same one at once", func(tv, phone, pad, child *replica) (_, _, _ *replica) { return phone, phone, pad }, errEarly},
	} {
		tv, phone, pad, child := kin(t)
		by, second, target := c.who(tv, phone, pad, child)
		p := by.propose(t, target.key, 0)
		second.take(by)
		q := second.agree(t, p, 0)
		f := second.fold()
		if got := f.voids[q.hash]; !errors.Is(got, c.want) || f.r.Has(idOf(target.key)) != (c.want != nil) {
			t.Errorf("%s: %v", c.what, got)
		}
		if c.want == nil && len(f.r.Pending) != 0 {
			t.Errorf("%s: still pending", c.what)
		}
	}
}

// A stolen owner key makes an owner and agrees with itself: it removes nobody it did not
// make, however many it makes.
func TestStolenKeyIsNoSecondOwner(t *testing.T) {
	tv, phone, pad, _ := kin(t)
	spy, _ := phone.admit(t, "Spy", devices.RoleOwner)
	spy2, _ := phone.admit(t, "Spy", devices.RoleOwner)
	spy3, _ := spy.admit(t, "Spy", devices.RoleOwner)
	gang := []*replica{phone, spy, spy2, spy3}
	all := &replica{edits: map[Hash]*parsed{}}
	for _, a := range gang {
		for _, b := range gang {
			for _, target := range []*replica{tv, pad} {
				a.take(b)
				p := a.propose(t, target.key, 0)
				b.take(a)
				b.agree(t, p, 3600)
				b.edit(t, b.key, removal(target.key))
			}
		}
	}
	for _, n := range append(gang, tv, pad) {
		all.take(n)
	}
	if r := all.fold().r; !r.Has(idOf(tv.key)) || !r.Has(idOf(pad.key)) {
		t.Fatalf("%+v", r.Members)
	}
}

// Two owners remove each other at once, on two halves: the larger family counts, never
// both, and never by the order of arrival.
func TestOwnersCannotRemoveEachOther(t *testing.T) {
	tv, phone, pad, _ := kin(t)
	// The phone and the pad put the TV out while the TV puts both out.
	p := phone.propose(t, tv.key, 0)
	pad.take(phone)
	pad.agree(t, p, 0)
	tv.edit(t, tv.key, removal(phone.key))
	tv.edit(t, tv.key, removal(pad.key))
	for _, order := range [][]*replica{{tv, pad}, {pad, tv}} {
		all := &replica{edits: map[Hash]*parsed{}}
		for _, n := range order {
			all.take(n)
		}
		if r := all.fold().r; r.Has(idOf(tv.key)) || !r.Has(idOf(phone.key)) || !r.Has(idOf(pad.key)) {
			t.Errorf("%+v", r.Members)
		}
	}
}

// The first owner, put out by two, makes two more off the line, who put those two out by
// the same right: what is against the head of a family counts before what the head made.
func TestRemovedHeadCannotUseItsFamily(t *testing.T) {
	tv, phone, pad, _ := kin(t)
	base := maps.Clone(tv.edits)
	for range 12 { // some hash is lower than that of the removal
		gang := &replica{tv.key, maps.Clone(base)}
		one, _ := gang.admit(t, "Spy", devices.RoleOwner)
		two, _ := gang.admit(t, "Spy", devices.RoleOwner)
		one.take(gang)
		p := one.propose(t, phone.key, 0)
		two.take(one)
		two.agree(t, p, 0)
		tv.take(two)
	}
	p := phone.propose(t, tv.key, 0)
	pad.take(phone)
	pad.agree(t, p, 0)
	pad.take(tv)
	if r := pad.fold().r; r.Has(idOf(tv.key)) || !r.Has(idOf(phone.key)) || len(r.Members) != 3 {
		t.Fatalf("%+v", r.Members)
	}
}

// A removed owner agrees, dated back, to an old proposal about itself, and so to the loss of what
// it did since: nobody has a say in that.
func TestNobodyAgreesToItsOwnRemoval(t *testing.T) {
	tv, phone, pad, _ := kin(t)
	p := phone.propose(t, pad.key, 0)
	pad.take(phone)
	old := &replica{pad.key, maps.Clone(pad.edits)}
	late, _ := pad.admit(t, "Late", devices.RoleDevice)
	tv.take(late)
	tv.edit(t, tv.key, removal(pad.key))
	q := old.agree(t, p, 0)
	tv.take(old)
	f := tv.fold()
	if !f.r.Has(idOf(late.key)) || f.r.Has(idOf(pad.key)) || !errors.Is(f.voids[q.hash], errSelf) {
		t.Fatalf("%v %+v", f.voids[q.hash], f.r.Members)
	}
}

// A removal in force stands although one of its signers is removed by somebody who did
// not know it.
func TestRemovalOutlivesItsSigners(t *testing.T) {
	tv, phone, pad, child := kin(t)
	p := phone.propose(t, tv.key, 0)
	child.take(phone)
	child.agree(t, p, 0)
	pad.edit(t, pad.key, removal(child.key))
	pad.take(child)
	if r := pad.fold().r; r.Has(idOf(tv.key)) || r.Has(idOf(child.key)) || len(r.Pending) != 0 {
		t.Fatalf("%+v", r)
	}
}

func TestLoneOwnerWaitsADay(t *testing.T) {
	for _, after := range []int64{0, day - 1, day, 2 * day} {
		_, phone, pad, _ := kin(t)
		p := phone.propose(t, pad.key, 1000)
		q := phone.agree(t, p, 1000+after)
		f := phone.fold()
		if done := !f.r.Has(idOf(pad.key)); done != (after >= day) || done != (f.voids[q.hash] == nil) {
			t.Errorf("after %d s: %v", after, f.voids[q.hash])
		}
		if f := fold(phone.edits, map[Hash]bool{q.hash: true}); !f.r.Has(idOf(pad.key)) {
			t.Error("a removal that is held took force")
		}
	}
}

// What a lone owner did after a day yields to what others may do at once.
func TestLoneRemovalIsTheWeakest(t *testing.T) {
	tv, phone, _, _ := kin(t)
	p := phone.propose(t, tv.key, 0)
	liar := &replica{phone.key, maps.Clone(phone.edits)}
	liar.agree(t, p, day)
	tv.take(phone)
	tv.edit(t, tv.key, removal(phone.key)) // does not know that the phone carried it out
	tv.take(liar)
	if r := tv.fold().r; !r.Has(idOf(tv.key)) || r.Has(idOf(phone.key)) {
		t.Errorf("lies about time put the maker out: %+v", r.Members)
	}
}

// Two lone owners removed each other: both are out, time alone lets nobody return.
func TestLoneRemovalsDoNotUndoEachOther(t *testing.T) {
	tv, phone, pad, _ := kin(t)
	a := phone.propose(t, pad.key, 0)
	b := pad.propose(t, phone.key, 0)
	phone.agree(t, a, day)
	pad.agree(t, b, day)
	tv.take(phone)
	tv.take(pad)
	if r := tv.fold().r; r.Has(idOf(pad.key)) || r.Has(idOf(phone.key)) {
		t.Errorf("one of two who removed each other came back: %+v", r.Members)
	}
}

// An owner may not remove another by an edit dated back to when that one was a device.
func TestPromotedDeviceIsNotRemovedByOldEdits(t *testing.T) {
	tv, phone, _, _ := kin(t)
	panel, _ := tv.admit(t, "Panel", devices.RoleDevice)
	phone.take(panel)
	old := phone.fold().r.Heads
	tv.edit(t, tv.key, Edit{Op: OpChange, Node: idOf(panel.key), Role: devices.RoleOwner})
	phone.edit(t, phone.key, removal(panel.key), old...)
	phone.take(tv)
	if r := phone.fold().r; r.Members[idOf(panel.key)].Role != devices.RoleOwner {
		t.Fatalf("%+v", r.Members)
	}
	tv.edit(t, tv.key, removal(panel.key), old...) // its maker may
	phone.take(tv)
	if phone.fold().r.Has(idOf(panel.key)) {
		t.Fatal("its maker could not remove it")
	}
}

func TestRolesChange(t *testing.T) {
	l, owner := home(t)
	_, m := admit(t, l, owner, "Panel", devices.RoleDevice)
	if err := l.Change(owner, m.Slug, devices.RoleOwner, devices.ClassTV); err != nil {
		t.Fatal(err)
	}
	if got := l.Roster().Members[m.Node]; got.Role != devices.RoleOwner || got.Class != devices.ClassTV || got.Slug != m.Slug {
		t.Fatalf("%+v", got)
	}
	if err := l.Change(owner, m.Slug, devices.RoleDevice, ""); err != nil || l.Roster().Members[m.Node].Role != devices.RoleDevice {
		t.Fatal(err)
	}
	if err := l.Change(owner, m.Slug, devices.RoleOwner, ""); !errors.Is(err, errOnce) {
		t.Fatalf("it became an owner again: %v", err)
	}
	if err := l.Change(owner, "tv", devices.RoleDevice, ""); !errors.Is(err, ErrLastOwner) {
		t.Fatal(err)
	}
	if err := l.Remove(owner, m.Slug); err != nil || l.Roster().Has(m.Node) {
		t.Fatal(err)
	}
}

// A hostile owner fills the history with edits about owners, all dated back to one
// place: the fold stays affordable, since every node does it for each further edit.
func TestFloodOfRemovalsStaysAffordable(t *testing.T) {
	tv, phone, pad, _ := kin(t)
	own, _ := phone.admit(t, "Own", devices.RoleOwner)
	tv.take(phone)
	spy, old := newKey(t), phone.fold().r.Heads
	ops := []func(i int) Edit{
		func(int) Edit { return removal(own.key) },
		func(i int) Edit { return Edit{Op: OpPropose, Node: idOf(pad.key), At: int64(i)} },
		func(i int) Edit {
			return Edit{Op: OpAdmit, Key: devices.CompressedKey(&spy.PublicKey), Role: devices.RoleOwner, Name: fmt.Sprint(i)}
		},
		func(i int) Edit {
			return Edit{Op: OpRemove, Node: devices.NodeID{byte(i), byte(i >> 8)}, HomeKey: randomKey()}
		},
	}
	all, home := maps.Clone(tv.edits), tv.fold().r.Home
	var last Hash
	for i := range MaxEdits - len(all) {
		e := ops[i%len(ops)](i)
		e.Version, e.Home, e.Signer, e.Parents = 1, home, idOf(phone.key), old
		if i > MaxEdits/2 { // and a chain of them
			e.Parents = []Hash{last}
		}
		p, err := sign(phone.key, e)
		if err != nil {
			t.Fatal(err)
		}
		all[p.hash], last = p, p.hash
	}
	start := time.Now()
	r := fold(all, nil).r
	took := time.Since(start)
	t.Logf("%d edits fold in %v", len(all), took.Round(time.Millisecond))
	if !r.Has(idOf(tv.key)) || !r.Has(idOf(pad.key)) || took > 5*time.Second {
		t.Errorf("%v, %+v", took, r.Members)
	}
}

// Who is removed by an edit that turns out to be void can be removed afterwards: else a stolen
// key would protect whom it likes.
func TestVoidRemovalIsNoShield(t *testing.T) {
	tv, phone, _, _ := kin(t)
	cam, _ := tv.admit(t, "Cam", devices.RoleDevice)
	phone.take(cam)
	phone.edit(t, phone.key, removal(cam.key))
	tv.edit(t, tv.key, removal(phone.key))
	tv.take(phone)
	if r := tv.fold().r; !r.Has(idOf(cam.key)) || r.Has(idOf(phone.key)) {
		t.Fatalf("%+v", r.Members)
	}
	tv.edit(t, tv.key, removal(cam.key))
	if f := tv.fold(); f.r.Has(idOf(cam.key)) {
		t.Errorf("a device: %v", f.voids)
	}

	tv, phone, pad, _, root := kinOf(t)
	p := phone.propose(t, tv.key, 0)
	pad.take(phone)
	pad.agree(t, p, 0)
	tv.edit(t, tv.key, removal(phone.key))
	pad.take(tv)
	if r := pad.fold().r; !r.Has(idOf(phone.key)) || r.Has(idOf(tv.key)) {
		t.Fatalf("%+v", r.Members)
	}
	q := pad.edit(t, pad.key, removal(phone.key))
	if f := pad.fold(); !errors.Is(f.voids[q.hash], ErrSenior) {
		t.Errorf("one of another branch: %v", f.voids[q.hash])
	}
	pad.edit(t, root, removal(phone.key))
	if f := pad.fold(); f.r.Has(idOf(phone.key)) {
		t.Errorf("an owner, by the code: %v", f.voids)
	}
}
