package trust

import (
	"crypto/ecdsa"
	"errors"
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/hallway-home/hallway/devices"
)

// junk is an edit that hangs in the air.
func junk(t testing.TB, l *Log, key *ecdsa.PrivateKey) SignedEdit {
	t.Helper()
	p, err := sign(key, Edit{Version: 1, Home: l.Roster().Home, Parents: []Hash{Hash(randomKey())}, Op: OpMerge, Signer: idOf(key)})
	if err != nil {
		t.Fatal(err)
	}
	return p.signed()
}

// A device whose key is stolen signs edits: none is stored or held, so the log of the
// home cannot be filled with them.
func TestDevicesCannotFillTheLog(t *testing.T) {
	l, owner := home(t)
	dev, _ := admit(t, l, owner, "Panel", devices.RoleDevice)
	k := newKey(t)
	on := Edit{Version: 1, Home: l.Roster().Home, Parents: l.Heads(), Op: OpAdmit, Signer: idOf(dev), Key: devices.CompressedKey(&k.PublicKey), Role: devices.RoleOwner}
	p, err := sign(dev, on)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range []SignedEdit{p.signed(), junk(t, l, dev)} {
		if n, err := l.Merge([]SignedEdit{e}); n != 0 || !errors.Is(err, ErrEditSignature) {
			t.Errorf("%d %v", n, err)
		}
	}
	if l.Missing() || len(l.Edits()) != 2 {
		t.Error("a device's edit was kept")
	}
}

// An owner sends edits whose parents never come: memory stays bounded, and the others'
// edits still arrive, whatever their order.
func TestHeldEditsAreBounded(t *testing.T) {
	a, ka := home(t)
	kb, _ := admit(t, a, ka, "Panel", devices.RoleOwner)
	b := newLog(t)
	if err := b.Adopt(a.Edits(), a.Roster().Home, idOf(kb)); err != nil {
		t.Fatal(err)
	}
	for range maxOrphans + 50 {
		if _, err := b.Merge([]SignedEdit{junk(t, a, ka)}); err != nil {
			t.Fatal(err)
		}
	}
	if len(b.orphans) != maxOrphans {
		t.Fatalf("%d edits are held", len(b.orphans))
	}
	for i := range 20 {
		if err := a.SetRoom(ka, fmt.Sprintf("Room %d", i)); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := b.Merge(a.Since(b.Heads())); n != 20 || err != nil || !reflect.DeepEqual(a.Roster(), b.Roster()) {
		t.Fatalf("%d edits arrived: %v", n, err)
	}
}

// More heads than one edit can join: a removal must still know all of them, else what
// the removed owner did before would be cut with it.
func TestRemovalKnowsAllHeads(t *testing.T) {
	a, ka := home(t)
	var logs []*Log
	var keys []*ecdsa.PrivateKey
	for i := range 7 {
		k, _ := admit(t, a, ka, fmt.Sprintf("Owner %d", i), devices.RoleOwner)
		keys = append(keys, k)
	}
	for _, k := range keys {
		l := newLog(t)
		if err := l.Adopt(a.Edits(), a.Roster().Home, idOf(k)); err != nil {
			t.Fatal(err)
		}
		admit(t, l, k, "Cam", devices.RoleDevice)
		logs = append(logs, l)
	}
	for _, l := range logs {
		if _, err := a.Merge(l.Edits()); err != nil {
			t.Fatal(err)
		}
	}
	if h := len(a.Heads()); h != 7 {
		t.Fatalf("%d heads", h)
	}
	for i := range keys {
		if err := a.Remove(ka, fmt.Sprintf("owner-%d", i)); err != nil {
			t.Fatal(err)
		}
	}
	if r := a.Roster(); len(r.Members) != 8 || len(r.Heads) != 1 {
		t.Fatalf("what removed owners did before is lost: %+v", r.Members)
	}
}

func TestAdoptTakesOnlyAWholeHome(t *testing.T) {
	a, ka := home(t)
	k, _ := admit(t, a, ka, "Panel", "")
	edits := a.Edits()
	forged := SignedEdit{edits[1].Raw, make([]byte, 64)}
	for what, c := range map[string]struct {
		edits []SignedEdit
		home  devices.HomeID
		self  devices.NodeID
	}{
		"without the admission": {edits[:1], a.Roster().Home, idOf(k)},
		"without the beginning": {edits[1:], a.Roster().Home, idOf(k)},
		"forged admission":      {[]SignedEdit{edits[0], forged}, a.Roster().Home, idOf(k)},
		"another home":          {edits, devices.HomeID{1}, idOf(k)},
		"another device":        {edits, a.Roster().Home, devices.NodeID{1}},
	} {
		l := newLog(t)
		if err := l.Adopt(c.edits, c.home, c.self); err == nil || l.Roster() != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	l := newLog(t)
	if err := l.Adopt(append(edits, junk(t, a, ka)), a.Roster().Home, idOf(k)); err != nil || !reflect.DeepEqual(l.Roster(), a.Roster()) || len(l.Edits()) != 2 {
		t.Fatalf("%v: %d edits", err, len(l.Edits()))
	}
}

// Nothing is stored when an edit would have no effect.
func TestEditsWithoutEffectAreNotMade(t *testing.T) {
	l, owner := home(t)
	b, mb := admit(t, l, owner, "Panel", devices.RoleOwner)
	admit(t, l, owner, "Pad", devices.RoleOwner)
	epoch := l.Roster().Epoch
	if err := l.Remove(b, "tv"); !errors.Is(err, ErrSenior) {
		t.Error(err)
	}
	if err := l.Remove(b, "pad"); !errors.Is(err, ErrSenior) || err.Error() != ErrSenior.Error()+", or do it on: TV" {
		t.Error(err)
	}
	if err := l.SetGroup(owner, "nothing", "x", nil); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
	if l.Roster().Epoch != epoch {
		t.Error("an edit without effect was stored")
	}
	if err := l.Remove(owner, mb.Slug); err != nil {
		t.Error(err)
	}
}

// A home with a full history can still put somebody out, and says what else is wrong.
func TestFullHistoryStillTakesRemovals(t *testing.T) {
	r, _ := bornHome(t)
	panel, last := r.admit(t, "Panel", devices.RoleDevice)
	home := r.fold().r.Home
	for len(r.edits) < MaxEdits-removalReserve {
		p, err := sign(r.key, Edit{Version: 1, Home: home, Parents: []Hash{last.hash}, Op: OpMerge, Signer: idOf(r.key)})
		if err != nil {
			t.Fatal(err)
		}
		r.edits[p.hash], last = p, p
	}
	l := newLog(t)
	start := time.Now()
	if err := l.Adopt(r.list(), home, idOf(panel.key)); err != nil {
		t.Fatal(err)
	}
	adopted := time.Since(start)
	if err := l.SetRoom(r.key, "Attic"); !errors.Is(err, ErrLogFull) {
		t.Errorf("one edit too many: %v", err)
	}
	start = time.Now()
	if err := l.Remove(r.key, "panel"); err != nil || l.Roster().Has(idOf(panel.key)) {
		t.Errorf("nobody can be put out: %v", err)
	}
	t.Logf("%d edits: adopted in %v, one more in %v", len(r.edits), adopted, time.Since(start))
}

// BenchmarkMerge is the cost of one more edit in a home of some years.
func BenchmarkMerge(b *testing.B) {
	l, owner := home(b)
	for i := range 500 {
		if err := l.SetRoom(owner, fmt.Sprintf("Room %d", i)); err != nil {
			b.Fatal(err)
		}
	}
	b.ResetTimer()
	for range b.N {
		fold(l.edits, nil)
	}
}
