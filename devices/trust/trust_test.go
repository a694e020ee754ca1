package trust

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	mrand "math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/hallway-home/hallway/devices"
)

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func newLog(t testing.TB) *Log {
	t.Helper()
	s, err := devices.OpenStore(t.TempDir(), devices.StoreOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	l, err := OpenLog(s)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// home is a log with its first owner.
func home(t testing.TB) (*Log, *ecdsa.PrivateKey) {
	t.Helper()
	l, k := newLog(t), newKey(t)
	if _, err := l.Create(k, CreateParams{HomeName: "Rose Cottage", Name: "TV", Room: "Living room", Class: devices.ClassTV}); err != nil {
		t.Fatal(err)
	}
	return l, k
}

func admit(t testing.TB, l *Log, owner *ecdsa.PrivateKey, name string, role devices.Role) (*ecdsa.PrivateKey, devices.Member) {
	t.Helper()
	k := newKey(t)
	m, err := l.Admit(owner, Candidate{Key: devices.CompressedKey(&k.PublicKey), Name: name, Role: role, Class: devices.ClassPanel, Room: "Kitchen"})
	if err != nil {
		t.Fatal(err)
	}
	return k, m
}

func idOf(k *ecdsa.PrivateKey) devices.NodeID { return devices.NodeIDOf(&k.PublicKey) }

func TestHomeIsBornAndGrows(t *testing.T) {
	l, owner := home(t)
	_, m := admit(t, l, owner, "Küche: Panel!", devices.RoleDevice)
	_, again := admit(t, l, owner, "Küche: Panel!", devices.RoleDevice)
	if m.Slug != "kueche-panel" || again.Slug != "kueche-panel-2" || m.Room != "kitchen" {
		t.Fatalf("%+v %+v", m, again)
	}
	r := l.Roster()
	if r.Epoch != 3 || r.Name != "Rose Cottage" || len(r.Rooms) != 2 || r.Members[idOf(owner)].Role != devices.RoleOwner {
		t.Fatalf("%+v", r)
	}
	if _, err := l.Create(owner, CreateParams{Name: "x"}); !errors.Is(err, ErrHomeExists) {
		t.Fatal(err)
	}
}

func TestStoredLogFoldsToTheSameHome(t *testing.T) {
	dir := t.TempDir()
	open := func() (*devices.Store, *Log) {
		s, err := devices.OpenStore(dir, devices.StoreOptions{})
		if err != nil {
			t.Fatal(err)
		}
		l, err := OpenLog(s)
		if err != nil {
			t.Fatal(err)
		}
		return s, l
	}
	s, l := open()
	k := newKey(t)
	if _, err := l.Create(k, CreateParams{Name: "TV"}); err != nil {
		t.Fatal(err)
	}
	admit(t, l, k, "Panel", "")
	want := l.Roster()
	_ = s.Close()
	s, l = open()
	defer func() { _ = s.Close() }()
	if !reflect.DeepEqual(l.Roster(), want) {
		t.Fatalf("%+v is not %+v", l.Roster(), want)
	}
}

func TestOnlyOwnersChangeTheHome(t *testing.T) {
	l, owner := home(t)
	dev, _ := admit(t, l, owner, "Panel", devices.RoleDevice)
	k := newKey(t)
	_, err := l.Admit(dev, Candidate{Key: devices.CompressedKey(&k.PublicKey), Name: "Friend"})
	if !errors.Is(err, ErrNotOwner) || !strings.Contains(err.Error(), "TV") {
		t.Fatalf("a device admitted somebody: %v", err)
	}
	if err := l.SetRoom(newKey(t), "Attic"); !errors.Is(err, ErrRemoved) {
		t.Fatalf("a stranger made a room: %v", err)
	}
	if err := l.Remove(owner, "tv"); !errors.Is(err, ErrLastOwner) {
		t.Fatalf("the last owner went: %v", err)
	}
	if err := l.Remove(owner, "nobody"); !errors.Is(err, ErrNotFound) {
		t.Fatal(err)
	}
}

func TestRemovedKeyNeverReturns(t *testing.T) {
	l, owner := home(t)
	dev, m := admit(t, l, owner, "Panel", "")
	before := l.Roster().HomeKey
	if err := l.Remove(owner, m.Slug); err != nil {
		t.Fatal(err)
	}
	r := l.Roster()
	if r.Has(idOf(dev)) || !r.Removed[idOf(dev)] || slices.Equal(before, r.HomeKey) {
		t.Fatalf("%+v", r)
	}
	if _, err := l.Admit(owner, Candidate{Key: devices.CompressedKey(&dev.PublicKey), Name: "Panel"}); !errors.Is(err, ErrRemoved) {
		t.Fatalf("a removed key came back: %v", err)
	}
	if _, n := admit(t, l, owner, "Panel", ""); n.Slug != "panel-2" {
		t.Fatalf("a name that was taken is given anew: %+v", n)
	}
}

func TestRenameKeepsTheSlug(t *testing.T) {
	l, owner := home(t)
	if err := l.Rename(owner, "tv", "Big TV", "Attic"); err != nil {
		t.Fatal(err)
	}
	if err := l.Rename(owner, "living-room", "Lounge", ""); err != nil {
		t.Fatal(err)
	}
	r := l.Roster()
	if m := r.Members[idOf(owner)]; m.Slug != "tv" || m.Name != "Big TV" || m.Room != "attic" || r.Rooms["living-room"].Name != "Lounge" {
		t.Fatalf("%+v %+v", m, r.Rooms)
	}
	if err := l.SetGroup(owner, "", "All", []string{"tv"}); err != nil {
		t.Fatal(err)
	}
	if _, ok := l.Roster().Groups["all-2"]; !ok {
		t.Fatalf("a reserved name was given away: %+v", l.Roster().Groups)
	}
	if err := l.SetPerson(owner, "", "Maria", devices.RoleDevice, []devices.NodeID{idOf(owner)}); err != nil {
		t.Fatal(err)
	}
	if err := l.Rename(owner, "maria", "María", ""); err != nil || l.Roster().Persons["maria"].Name != "María" {
		t.Fatal(err)
	}
}

// forge changes an edit after it was signed.
func forge(t testing.TB, s SignedEdit, f func(*Edit)) SignedEdit {
	t.Helper()
	e, err := decode(s)
	if err != nil {
		t.Fatal(err)
	}
	f(&e)
	raw, err := encMode.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	return SignedEdit{raw, s.Sig}
}

func TestRosterSignatureIsChecked(t *testing.T) {
	l, owner := home(t)
	admit(t, l, owner, "Panel", "")
	edits := l.Edits()
	evil := newKey(t)
	bad := forge(t, edits[1], func(e *Edit) { e.Key = devices.CompressedKey(&evil.PublicKey); e.Role = devices.RoleOwner })
	if r, _ := Fold([]SignedEdit{edits[0], bad}); r.Has(idOf(evil)) {
		t.Fatal("a forged edit was folded")
	}
	if _, err := l.Merge([]SignedEdit{bad}); !errors.Is(err, ErrEditSignature) {
		t.Fatalf("a forged edit was stored: %v", err)
	}
	if r, _ := Fold([]SignedEdit{forge(t, edits[0], func(e *Edit) { e.Key = devices.CompressedKey(&evil.PublicKey) })}); r != nil {
		t.Fatal("a forged first edit made a home")
	}
}

func TestMergeRefusesWhatDoesNotBelong(t *testing.T) {
	l, owner := home(t)
	other, k2 := home(t)
	admit(t, other, k2, "Panel", "")
	if n, err := l.Merge(other.Edits()); n != 0 || err == nil {
		t.Fatalf("merged %d edits of another home: %v", n, err)
	}
	huge := SignedEdit{make([]byte, MaxEdit+1), make([]byte, 64)}
	if _, err := l.Merge([]SignedEdit{huge}); !errors.Is(err, ErrEditSize) {
		t.Fatal(err)
	}
	if err := l.SetGroup(owner, "", "Many", make([]string, 600)); !errors.Is(err, ErrEditSize) {
		t.Fatalf("an edit too large to send was made: %v", err)
	}
	if _, err := newLog(t).Merge(l.Edits()); !errors.Is(err, ErrNoHome) {
		t.Fatalf("a node without a home took edits: %v", err)
	}
}

func TestMergeHoldsWhatComesTooEarly(t *testing.T) {
	l, owner := home(t)
	peer := newLog(t)
	k, _ := admit(t, l, owner, "Panel", "")
	if err := peer.Adopt(l.Edits(), l.Roster().Home, idOf(k)); err != nil {
		t.Fatal(err)
	}
	heads := peer.Heads()
	for i := range 5 {
		if err := l.SetRoom(owner, fmt.Sprintf("Room %d", i)); err != nil {
			t.Fatal(err)
		}
	}
	late := l.Since(heads)
	if len(late) != 5 {
		t.Fatalf("%d edits are new", len(late))
	}
	slices.Reverse(late)
	for i, e := range late {
		n, err := peer.Merge([]SignedEdit{e})
		if err != nil || n != 0 && i < 4 {
			t.Fatalf("edit %d: %d %v", i, n, err)
		}
	}
	if peer.Missing() || !reflect.DeepEqual(peer.Roster(), l.Roster()) {
		t.Fatal("the edits that waited were lost")
	}
}

// Two owners edit at once on two halves of a cut home; joined, both fold to the same
// home in whatever order the edits come, and nothing of either is lost.
func TestConcurrentEditsFoldAlikeEverywhere(t *testing.T) {
	a, ka := home(t)
	kb, _ := admit(t, a, ka, "Panel", devices.RoleOwner)
	b := newLog(t)
	if err := b.Adopt(a.Edits(), a.Roster().Home, idOf(kb)); err != nil {
		t.Fatal(err)
	}
	admit(t, a, ka, "Camera", "")
	admit(t, b, kb, "Camera", "")
	if err := errors.Join(a.SetRoom(ka, "Attic"), b.SetRoom(kb, "Cellar")); err != nil {
		t.Fatal(err)
	}
	all := append(a.Edits(), b.Edits()...)
	if _, err := a.Merge(b.Edits()); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Merge(a.Edits()); err != nil {
		t.Fatal(err)
	}
	want := a.Roster()
	if !reflect.DeepEqual(want, b.Roster()) || len(want.Members) != 4 || len(want.Rooms) != 4 || len(want.Heads) != 2 {
		t.Fatalf("%+v and %+v", want, b.Roster())
	}
	slugs := map[string]bool{}
	for _, m := range want.Members {
		slugs[m.Slug] = true
	}
	if !slugs["camera"] || !slugs["camera-2"] {
		t.Fatalf("%v", slugs)
	}
	for range 50 {
		mrand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		if r, _ := Fold(all); !reflect.DeepEqual(r, want) {
			t.Fatalf("another order folds to %+v", r)
		}
	}
}

// A removal comes before what is concurrent with it: a removed owner who builds on old
// edits, off the line, gains nothing.
func TestRemovedOwnerCannotEditOnTheSide(t *testing.T) {
	a, ka := home(t)
	kb, mb := admit(t, a, ka, "Panel", devices.RoleOwner)
	b := newLog(t)
	if err := b.Adopt(a.Edits(), a.Roster().Home, idOf(kb)); err != nil {
		t.Fatal(err)
	}
	if err := a.SetRoom(ka, "Attic"); err != nil { // the removal has a parent that b does not know
		t.Fatal(err)
	}
	if err := a.Remove(ka, mb.Slug); err != nil {
		t.Fatal(err)
	}
	evil, _ := admit(t, b, kb, "Spy", devices.RoleOwner)
	if _, err := a.Merge(b.Edits()); err != nil {
		t.Fatal(err)
	}
	if r := a.Roster(); r.Has(idOf(evil)) || r.Has(idOf(kb)) {
		t.Fatalf("a removed owner admitted somebody: %+v", r.Members)
	}
}

func TestHomeIsBounded(t *testing.T) {
	l, owner := home(t)
	for i := range MaxMembers - 1 {
		admit(t, l, owner, fmt.Sprintf("d%d", i), "")
	}
	k := newKey(t)
	if _, err := l.Admit(owner, Candidate{Key: devices.CompressedKey(&k.PublicKey), Name: "one more"}); !errors.Is(err, ErrFull) {
		t.Fatal(err)
	}
}

func TestRecoveryCode(t *testing.T) {
	c := NewRecoveryCode()
	got, err := ParseRecoveryCode(strings.ToLower(strings.ReplaceAll(c.String(), "-", " ")))
	if err != nil || got != c {
		t.Fatalf("%v %v", got, err)
	}
	a, err1 := c.rootKey()
	b, err2 := got.rootKey()
	if err := errors.Join(err1, err2); err != nil || !a.Equal(b) {
		t.Fatal("one code gives two keys", err)
	}
	text := []byte(c.String())
	text[3] = map[bool]byte{true: '7', false: '8'}[text[3] == '8']
	if _, err := ParseRecoveryCode(string(text)); err == nil {
		t.Error("a mistyped code passes")
	}
}

func TestAdmitsDecidesByRosterAndProtocol(t *testing.T) {
	l, owner := home(t)
	member, stranger := idOf(owner), idOf(newKey(t))
	for _, c := range []struct {
		id   devices.NodeID
		alpn string
		ok   bool
	}{
		{member, ALPNSIP, true}, {member, ALPNOverlay, true}, {member, "", false}, {member, "h2", false},
		{stranger, ALPNSIP, false}, {stranger, ALPNOverlay, false}, {stranger, ALPNPair, true}, {stranger, "", false},
	} {
		if err := admits(l.Roster(), c.id, c.alpn); (err == nil) != c.ok {
			t.Errorf("%v %q: %v", c.id == member, c.alpn, err)
		}
	}
	if admits(nil, member, ALPNSIP) == nil {
		t.Error("a node without a home serves SIP")
	}
}

// No bytes that an owner did not sign change the home, are stored, or are held.
func FuzzEdit(f *testing.F) {
	l, owner := home(f)
	admit(f, l, owner, "Panel", "")
	edits := l.Edits()
	for _, e := range edits {
		f.Add(e.Raw, e.Sig)
		f.Add(e.Raw, make([]byte, 64))
	}
	f.Add(append([]byte{0xb8, edits[1].Raw[0] & 0x1f}, edits[1].Raw[1:]...), edits[1].Sig)
	f.Fuzz(func(t *testing.T, raw, sig []byte) {
		s := SignedEdit{raw, sig}
		if n, _ := l.Merge([]SignedEdit{s}); n != 0 || l.Missing() {
			t.Fatal("an edit that nobody signed was kept")
		}
		if p, err := parse(s); err != nil || p.edit.Op != OpGenesis { // corpora outlive keys: another home's first edit is valid
			if r, _ := Fold(append(slices.Clone(edits), s)); len(r.Members) != 2 || len(r.Rooms) != 2 {
				t.Fatal("an edit that nobody signed changed the home")
			}
		}
	})
}

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
