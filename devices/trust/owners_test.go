package trust

import (
	"crypto/ecdsa"
	"errors"
	"fmt"
	"maps"
	mrand "math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hallway-home/hallway/devices"
)

// kin is a home of three: the TV made the phone and the pad owners, the pad made the child.
func kin(t testing.TB) (tv, phone, pad, child *replica) {
	tv, _ = bornHome(t)
	phone, _ = tv.admit(t, "Phone", devices.RoleOwner)
	pad, _ = tv.admit(t, "Pad", devices.RoleOwner)
	child, _ = pad.admit(t, "Child", devices.RoleOwner)
	for _, n := range []*replica{tv, phone, pad} {
		n.take(child)
	}
	return tv, phone, pad, child
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

// clock is a home time that the test moves.
type clock struct {
	at    time.Time
	known bool
}

func (c *clock) now() (time.Time, bool) { return c.at, c.known }

func (c *clock) log(t testing.TB, from *Log, self devices.NodeID) *Log {
	t.Helper()
	s, err := devices.OpenStore(t.TempDir(), devices.StoreOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	l, err := OpenLog(s, Options{HomeTime: c.now})
	if err != nil {
		t.Fatal(err)
	}
	if from != nil {
		if err := l.Adopt(from.Edits(), from.Roster().Home, self); err != nil {
			t.Fatal(err)
		}
	}
	return l
}

func share(t testing.TB, logs ...*Log) {
	t.Helper()
	for _, a := range logs {
		for _, b := range logs {
			if _, err := b.Merge(a.Since(b.Heads())); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// The command of a person: propose, wait, carry out; and every other node counts the day
// itself, whatever the edit says.
func TestRemoveOrPropose(t *testing.T) {
	c := &clock{at: time.Unix(2e9, 0), known: true}
	tv := c.log(t, nil, devices.NodeID{})
	ktv := newKey(t)
	if _, err := tv.Create(ktv, CreateParams{HomeName: "Home", Name: "TV"}); err != nil {
		t.Fatal(err)
	}
	kphone, mphone := admit(t, tv, ktv, "Phone", devices.RoleOwner)
	_, mpad := admit(t, tv, ktv, "Pad", devices.RoleOwner)
	phone := c.log(t, tv, mphone.Node)
	fast := &clock{at: c.at, known: true}
	other := fast.log(t, tv, mpad.Node)

	got, err := phone.RemoveOrPropose(kphone, mpad.Slug)
	if err != nil || got.Done || !got.Until.Equal(c.at.Add(removalWait)) {
		t.Fatalf("%+v %v", got, err)
	}
	c.at = c.at.Add(removalWait - time.Second)
	if got, err := phone.RemoveOrPropose(kphone, mpad.Slug); err != nil || got.Done {
		t.Fatalf("%+v %v", got, err)
	}
	if len(phone.Roster().Pending) != 1 {
		t.Fatalf("%+v", phone.Roster().Pending)
	}
	share(t, phone, tv)
	c.at = c.at.Add(time.Second)
	if got, err := phone.RemoveOrPropose(kphone, mpad.Slug); err != nil || !got.Done || phone.Roster().Has(mpad.Node) {
		t.Fatalf("%+v %v", got, err)
	}
	share(t, phone, tv, other)
	if !tv.Roster().Has(mpad.Node) || !other.Roster().Has(mpad.Node) {
		t.Fatal("a node took a lone owner's word for the time")
	}
	fast.at = fast.at.Add(removalWait)
	c.at = c.at.Add(removalWait)
	for _, l := range []*Log{tv, other} {
		if err := l.Review(); err != nil || l.Roster().Has(mpad.Node) {
			t.Fatalf("the removal never takes force: %v", err)
		}
		if !reflect.DeepEqual(l.Roster(), phone.Roster()) {
			t.Fatal("they do not agree in the end")
		}
	}
	if l, err := OpenLog(other.store, Options{HomeTime: fast.now}); err != nil || l.Roster().Has(mpad.Node) {
		t.Fatalf("after a restart it waits anew: %v", err)
	}
	// A device that joins trusts who admits it for what was waited out.
	knew, mnew := admit(t, phone, kphone, "New", devices.RoleDevice)
	if l := (&clock{}).log(t, phone, mnew.Node); l.Roster().Has(mpad.Node) || !l.Roster().Has(idOf(knew)) {
		t.Fatalf("%+v", l.Roster().Members)
	}
}

// A second owner's `remove` agrees, at once, without any clock.
func TestSecondOwnerAgrees(t *testing.T) {
	tv, ktv := home(t)
	kphone, mphone := admit(t, tv, ktv, "Phone", devices.RoleOwner)
	kpad, mpad := admit(t, tv, ktv, "Pad", devices.RoleOwner)
	c := &clock{}
	phone, pad := c.log(t, tv, mphone.Node), c.log(t, tv, mpad.Node)
	if got, err := phone.RemoveOrPropose(kphone, "tv"); err != nil || got.Done || !got.Until.IsZero() {
		t.Fatalf("%+v %v", got, err)
	}
	share(t, phone, pad)
	if got, err := pad.RemoveOrPropose(kpad, "tv"); err != nil || !got.Done || pad.Roster().Has(idOf(ktv)) {
		t.Fatalf("%+v %v", got, err)
	}
	share(t, phone, pad)
	if !reflect.DeepEqual(phone.Roster(), pad.Roster()) {
		t.Fatal("they do not agree")
	}
}

// The owners are gone for good: a device recovers the home with the code, removes them,
// and what they do at the same time elsewhere counts for nothing.
func TestRecovery(t *testing.T) {
	tv, ktv := newLog(t), newKey(t)
	code, err := tv.Create(ktv, CreateParams{HomeName: "Home", Name: "TV"})
	if err != nil {
		t.Fatal(err)
	}
	kpanel, mpanel := admit(t, tv, ktv, "Panel", devices.RoleDevice)
	panel := (&clock{}).log(t, tv, mpanel.Node)
	if err := panel.Recover(NewRecoveryCode(), mpanel.Node); !errors.Is(err, ErrRecovery) {
		t.Fatalf("another home's code: %v", err)
	}
	if err := panel.Recover(code, mpanel.Node, "nobody"); !errors.Is(err, ErrNotFound) || panel.Roster().Members[mpanel.Node].Role == devices.RoleOwner {
		t.Fatalf("half a recovery: %v", err)
	}
	if err := panel.Recover(code, mpanel.Node, "tv"); err != nil {
		t.Fatal(err)
	}
	if err := tv.Remove(ktv, mpanel.Slug); err != nil { // at the same time
		t.Fatal(err)
	}
	admit(t, tv, ktv, "Spy", devices.RoleOwner)
	share(t, tv, panel)
	r := panel.Roster()
	if r.Has(idOf(ktv)) || len(r.Members) != 1 || r.Members[mpanel.Node].Role != devices.RoleOwner || !reflect.DeepEqual(r, tv.Roster()) {
		t.Fatalf("%+v", r.Members)
	}
	if err := panel.SetRoom(kpanel, "Attic"); err != nil {
		t.Fatal(err)
	}
	if err := panel.Recover(code, mpanel.Node); err != nil { // it is an owner: nothing to do
		t.Fatal(err)
	}
}

// Two halves of a cut home edit through their logs, in seeded random programs, and heal: both
// hold the same home, whoever speaks first, and a log opened anew folds to it too.
func TestTwoHalvesAgree(t *testing.T) {
	for seed := range uint64(25) {
		r := mrand.New(mrand.NewPCG(seed, 3))
		a, ka := home(t)
		kb, mb := admit(t, a, ka, "Phone", devices.RoleOwner)
		admit(t, a, ka, "Pad", devices.RoleOwner)
		b := newLog(t)
		if err := b.Adopt(a.Edits(), a.Roster().Home, mb.Node); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			for range r.IntN(12) {
				randomChange(t, r, a, ka)
				randomChange(t, r, b, kb)
			}
			first, second := a, b
			if r.IntN(2) == 0 {
				first, second = b, a
			}
			late := first.Since(second.Heads())
			r.Shuffle(len(late), func(i, j int) { late[i], late[j] = late[j], late[i] })
			for _, e := range late {
				if _, err := second.Merge([]SignedEdit{e}); err != nil {
					t.Fatal(err)
				}
			}
			share(t, second, first)
			if !reflect.DeepEqual(a.Roster(), b.Roster()) {
				t.Fatalf("seed %d: the halves hold\n%+v\n%+v", seed, a.Roster(), b.Roster())
			}
			again, err := OpenLog(b.store)
			if err != nil || !reflect.DeepEqual(again.Roster(), a.Roster()) {
				t.Fatalf("seed %d: opened anew: %v", seed, err)
			}
			if len(a.History()) != int(a.Roster().Epoch) {
				t.Fatalf("seed %d: %d edits in the history", seed, len(a.History()))
			}
		}
	}
}

// randomChange does one thing that a person may do; that it is refused is no error.
func randomChange(t testing.TB, r *mrand.Rand, l *Log, key *ecdsa.PrivateKey) {
	t.Helper()
	var slugs []string
	for _, m := range l.Roster().Members {
		slugs = append(slugs, m.Slug)
	}
	slices.Sort(slugs)
	slug := slugs[r.IntN(len(slugs))]
	k := newKey(t)
	switch r.IntN(8) {
	case 0:
		_, _ = l.Admit(key, Candidate{Key: devices.CompressedKey(&k.PublicKey), Name: "Panel", Room: "Hall"})
	case 1:
		_, _ = l.RemoveOrPropose(key, slug)
	case 2:
		_ = l.Change(key, slug, []devices.Role{devices.RoleOwner, devices.RoleDevice}[r.IntN(2)], "")
	case 3:
		_ = l.Rename(key, slug, "Thing", "Attic")
	case 4:
		_ = l.SetRule(key, devices.Rule{Subject: slug, Right: devices.RightCall, Who: []string{slugs[0]}})
	case 5:
		_ = l.Delete(key, "hall")
	case 6:
		_ = l.SetForeign(key, devices.Adopted{Name: "Gate", URI: "sip:7@192.0.2.7"})
	case 7:
		_ = l.SetGroup(key, "", "Down", []string{slug})
	}
}

// Names that end are not given anew, and the rules about them end too.
func TestNamesEnd(t *testing.T) {
	l, owner := home(t)
	_, m := admit(t, l, owner, "Panel", devices.RoleDevice)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(l.SetRule(owner, devices.Rule{Subject: "kitchen", Right: devices.RightDoor, Who: []string{"tv"}}))
	must(l.SetForeign(owner, devices.Adopted{Name: "Gate", Class: devices.ClassDoorbell, URI: "sip:7@192.0.2.7", Speakers: []devices.NodeID{m.Node}}))
	must(l.Rename(owner, "gate", "Garden gate", ""))
	if got := l.Roster().Adopted["gate"]; got.Name != "Garden gate" || got.URI == "" || len(got.Speakers) != 1 {
		t.Fatalf("%+v", got)
	}
	must(l.Delete(owner, "kitchen"))
	must(l.Delete(owner, "gate"))
	r := l.Roster()
	if len(r.Rules) != 0 || len(r.Adopted) != 0 || r.Members[m.Node].Room != "" {
		t.Fatalf("%+v", r)
	}
	must(l.SetRoom(owner, "Kitchen"))
	must(l.SetRoom(owner, "Gate"))
	must(l.SetGroup(owner, "", "Everything", []string{"kitchen-2"}))
	if _, ok := l.Roster().Rooms["kitchen-2"]; !ok || len(l.Roster().Rooms) != 3 {
		t.Fatalf("%+v", l.Roster().Rooms)
	}
	for what, err := range map[string]error{
		"a device is no name to end":  l.Delete(owner, m.Slug),
		"a rule on nothing":           l.SetRule(owner, devices.Rule{Subject: "kitchen", Right: devices.RightCall}),
		"a rule that is not there":    l.DeleteRule(owner, devices.RuleKey{Subject: "all", Right: devices.RightCall}),
		"a rule on a group":           l.SetRule(owner, devices.Rule{Subject: "everything", Right: devices.RightCall}),
		"a right that nobody knows":   l.SetRule(owner, devices.Rule{Subject: "all", Right: "fly"}),
		"hours that are none":         l.SetRule(owner, devices.Rule{Subject: "all", Right: devices.RightCall, Hours: "late"}),
		"an address that is too long": l.SetForeign(owner, devices.Adopted{Name: "x", URI: strings.Repeat("x", maxURI+1)}),
	} {
		if err == nil {
			t.Error(what)
		}
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
