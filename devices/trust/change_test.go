package trust

import (
	"crypto/ecdsa"
	"errors"
	mrand "math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hallway-home/hallway/devices"
)

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

// A node that slept through the whole wait takes the word of the edit when it starts, and
// only then, and only for the time that it slept.
func TestSleeperIsNoWitness(t *testing.T) {
	start := time.Unix(2e9, 0)
	for what, c := range map[string]struct {
		asleep  time.Duration // before the start
		age     time.Duration // of the proposal at the start
		arrives time.Duration // after the start
		out     bool
	}{
		"slept through":           {72 * time.Hour, 48 * time.Hour, time.Minute, true},
		"was awake when proposed": {24 * time.Hour, 48 * time.Hour, time.Minute, false},
		"hears of it much later":  {72 * time.Hour, 48 * time.Hour, time.Hour, false},
		"slept, but too young":    {72 * time.Hour, 12 * time.Hour, time.Minute, false},
		"never slept":             {0, 48 * time.Hour, time.Minute, false},
	} {
		tv, phone, pad, _ := kin(t)
		home := tv.fold().r.Home
		p := phone.propose(t, pad.key, start.Add(-c.age).Unix())
		q := phone.agree(t, p, start.Add(-c.age+removalWait).Unix())
		s, err := devices.OpenStore(t.TempDir(), devices.StoreOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = s.Close() }()
		k := &clock{at: start.Add(-c.asleep), known: true}
		open := func() *Log {
			l, err := OpenLog(s, Options{HomeTime: k.now})
			if err != nil {
				t.Fatal(err)
			}
			return l
		}
		if c.asleep > 0 {
			if err := open().Review(); err != nil {
				t.Fatal(err)
			}
		}
		k.at = start
		l := open()
		if err := l.Adopt(tv.list(), home, idOf(tv.key)); err != nil {
			t.Fatal(err)
		}
		if err := l.Review(); err != nil {
			t.Fatal(err)
		}
		k.at = k.at.Add(c.arrives)
		if n, err := l.Merge([]SignedEdit{p.signed(), q.signed()}); n != 2 || err != nil {
			t.Fatal(n, err)
		}
		if out := !l.Roster().Has(idOf(pad.key)); out != c.out {
			t.Errorf("%s: out is %v", what, out)
		}
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
	must(l.SetForeign(owner, devices.Adopted{Name: "Gate", Room: "Yard", Class: devices.ClassDoorbell, URI: "sip:7@192.0.2.7", Speakers: []devices.NodeID{m.Node}}))
	must(l.Rename(owner, "gate", "Garden gate", ""))
	if got := l.Roster().Adopted["gate"]; got.Name != "Garden gate" || got.Room != "yard" || got.URI == "" || len(got.Speakers) != 1 {
		t.Fatalf("%+v", got)
	}
	must(l.Delete(owner, "yard"))
	if got := l.Roster().Adopted["gate"]; got.Room != "" {
		t.Fatalf("its room is gone: %+v", got)
	}
	must(l.Rename(owner, "gate", "", "Kitchen"))
	if got := l.Roster().Adopted["gate"]; got.Room != "kitchen" || got.Name != "Garden gate" {
		t.Fatalf("moved: %+v", got)
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

// The removal of a lone owner takes force and ends one that the owner removed had made
// meanwhile: as many belong as before, but not the same.
func TestReviewSeesWhoChanged(t *testing.T) {
	c := &clock{at: time.Unix(2e9, 0), known: true}
	tv := c.log(t, nil, devices.NodeID{})
	ktv := newKey(t)
	if _, err := tv.Create(ktv, CreateParams{HomeName: "Home", Name: "TV"}); err != nil {
		t.Fatal(err)
	}
	kphone, mphone := admit(t, tv, ktv, "Phone", devices.RoleOwner)
	_, panel := admit(t, tv, ktv, "Panel", devices.RoleDevice)
	phone, old := c.log(t, tv, mphone.Node), c.log(t, tv, panel.Node)
	if _, err := phone.RemoveOrPropose(kphone, "tv"); err != nil {
		t.Fatal(err)
	}
	share(t, phone, old)
	c.at = c.at.Add(removalWait)
	late := (&clock{at: c.at, known: true}).log(t, nil, devices.NodeID{}) // sees all only now
	if _, err := phone.RemoveOrPropose(kphone, "tv"); err != nil {
		t.Fatal(err)
	}
	if err := tv.Remove(ktv, "panel"); err != nil {
		t.Fatal(err)
	}
	late.homeTime = c.now
	if err := late.Adopt(tv.Edits(), tv.Roster().Home, idOf(ktv), tv.Waiting()...); err != nil {
		t.Fatal(err)
	}
	share(t, late, phone)
	if r := late.Roster(); !r.Has(idOf(ktv)) || r.Has(panel.Node) {
		t.Fatalf("before its day: %+v", r.Members)
	}
	c.at = c.at.Add(removalWait)
	if err := late.Review(); err != nil {
		t.Fatal(err)
	}
	if r := late.Roster(); r.Has(idOf(ktv)) || !r.Has(panel.Node) || !reflect.DeepEqual(r, phone.Roster()) {
		t.Fatalf("after it: %+v", r.Members)
	}
}

// A proposal came while this node's clock was years ahead: once it is right, the day is counted
// from then, also after a restart. Once it has passed it has, though home time goes back.
func TestWaitSurvivesAWrongClock(t *testing.T) {
	tv, phone, pad, _ := kin(t)
	p := phone.propose(t, pad.key, 0)
	phone.agree(t, p, day)
	now := time.Unix(2e9, 0)
	c := &clock{at: now.Add(20 * 365 * 24 * time.Hour), known: true}
	l := c.log(t, nil, devices.NodeID{})
	if err := l.Adopt(tv.list(), tv.fold().r.Home, idOf(tv.key)); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Merge(phone.list()); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		at  time.Time
		out bool
	}{{now, false}, {now.Add(removalWait - time.Second), false}, {now.Add(removalWait), true}, {now.Add(removalWait - time.Hour), true}} { // it does not come undone
		c.at = step.at
		again, err := OpenLog(l.store, Options{HomeTime: c.now})
		if err != nil {
			t.Fatal(err)
		}
		if err := again.Review(); err != nil || again.Roster().Has(idOf(pad.key)) == step.out {
			t.Errorf("%v later: %v, out should be %v", step.at.Sub(now), err, step.out)
		}
	}
}

// Who joins takes the word of who admits it for what was waited out, and counts the day
// itself for what still waits there; so both show the same home.
func TestWhoJoinsCountsWhatStillWaits(t *testing.T) {
	c := &clock{at: time.Unix(2e9, 0), known: true}
	tv := c.log(t, nil, devices.NodeID{})
	ktv := newKey(t)
	if _, err := tv.Create(ktv, CreateParams{HomeName: "Home", Name: "TV"}); err != nil {
		t.Fatal(err)
	}
	kphone, mphone := admit(t, tv, ktv, "Phone", devices.RoleOwner)
	_, panel := admit(t, tv, ktv, "Panel", devices.RoleDevice)
	phone := c.log(t, tv, mphone.Node)
	joins := func() *Log {
		l := c.log(t, nil, devices.NodeID{})
		if err := l.Adopt(tv.Edits(), tv.Roster().Home, panel.Node, tv.Waiting()...); err != nil {
			t.Fatal(err)
		}
		return l
	}
	// The phone claims that its day has passed.
	c.at = c.at.Add(-removalWait)
	if _, err := phone.RemoveOrPropose(kphone, "tv"); err != nil {
		t.Fatal(err)
	}
	c.at = c.at.Add(removalWait)
	if _, err := phone.RemoveOrPropose(kphone, "tv"); err != nil {
		t.Fatal(err)
	}
	share(t, phone, tv)
	early := joins()
	for _, l := range []*Log{tv, early} {
		if !l.Roster().Has(idOf(ktv)) || len(l.Waiting()) != 1 {
			t.Fatalf("before its day: %+v, %d wait", l.Roster().Members, len(l.Waiting()))
		}
	}
	c.at = c.at.Add(removalWait)
	for _, l := range []*Log{tv, early} {
		if err := l.Review(); err != nil {
			t.Fatal(err)
		}
	}
	late := joins()
	for _, l := range []*Log{tv, early, late} {
		if l.Roster().Has(idOf(ktv)) || len(l.Waiting()) != 0 {
			t.Fatalf("after its day: %+v, %d wait", l.Roster().Members, len(l.Waiting()))
		}
	}
}
