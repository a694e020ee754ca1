package trust

import (
	"crypto/ecdsa"
	"errors"
	"fmt"
	"maps"
	mrand "math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hallway-home/hallway/devices"
)

// checkpoint puts one on top of what a replica knows, and keeps what was before.
func (r *replica) checkpoint(t testing.TB, root *ecdsa.PrivateKey) {
	t.Helper()
	pieces, err := r.fold().checkpoint(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range pieces {
		r.edits[p.hash] = p
	}
	if f := r.fold(); f.base == nil || f.base.last != pieces[len(pieces)-1] {
		t.Fatal("the checkpoint does not count")
	}
}

// same compares homes but for where in the history they are.
func same(t testing.TB, what string, got, want *devices.Roster) {
	t.Helper()
	a, b := *got, *want
	a.Heads, b.Heads, a.Epoch, b.Epoch = nil, nil, 0, 0
	if !reflect.DeepEqual(a, b) {
		t.Fatalf("%s:\n%+v\nis not\n%+v", what, a, b)
	}
}

// A crowd edits, somebody with the code makes a checkpoint on what he knows, all edit on, some
// drop what was before and some do not, and there may be a second one beside: whatever order
// and half the edits come in, all fold to one home, with what was dropped and without.
func TestCheckpointsFoldTheSame(t *testing.T) {
	for seed := range uint64(60) {
		c := newCrowd(t, seed)
		c.run(30)
		for range 1 + c.r.IntN(3) {
			n := c.pick()
			want := n.fold().r
			n.checkpoint(t, c.root)
			same(t, "a checkpoint changed the home", n.fold().r, want)
			if got := n.fold().r; got.Epoch <= want.Epoch {
				t.Fatalf("epoch %d after %d", got.Epoch, want.Epoch)
			}
			for range 20 {
				if n := c.pick(); c.r.IntN(2) == 0 {
					before := n.fold().r
					n.edits = prune(n.edits)
					if got := n.fold().r; !reflect.DeepEqual(got, before) {
						t.Fatalf("seed %d: dropping the old edits changed\n%+v\n%+v", seed, before, got)
					}
				}
				c.run(1)
			}
		}
		all := c.everything()
		list := all.list()
		want, _ := Fold(list)
		for range 4 {
			c.r.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
			if got, _ := Fold(append(list, list[:len(list)/2]...)); !reflect.DeepEqual(got, want) {
				t.Fatalf("seed %d: another order folds to\n%+v\n%+v", seed, got, want)
			}
		}
		for _, n := range c.nodes {
			n.edits = prune(n.edits)
			n.take(all)
			if got := fold(prune(n.edits), nil).r; !reflect.DeepEqual(got, want) {
				t.Fatalf("seed %d: dropping before and after the exchange gives\n%+v\n%+v", seed, got, want)
			}
		}
		for id := range want.Removed {
			if want.Has(id) {
				t.Fatalf("seed %d: %v was removed and belongs", seed, id)
			}
		}
	}
}

// What owners may do to each other is the same on top of a checkpoint, also where one
// proposed before it and the other agrees after it.
func TestOwnersKeepTheirFamilies(t *testing.T) {
	names := []string{"TV", "Phone", "Pad", "Child", "Code"}
	for before := range 2 {
		for a := range 4 {
			for b := range 4 {
				for target := range 4 {
					var got [2]map[string]devices.Role
					var voids [2]error
					for with := range 2 {
						tv, phone, pad, child, root := kinOf(t)
						who := []*replica{tv, phone, pad, child}
						all := &replica{edits: maps.Clone(child.edits)}
						check := func() {
							if with == 1 {
								all.checkpoint(t, root)
								all.edits = prune(all.edits)
							}
						}
						if before == 0 {
							check()
						}
						all.key = who[a].key
						p := all.propose(t, who[target].key, 0)
						if before == 1 {
							check()
						}
						all.key = who[b].key
						q := all.agree(t, p, day)
						f := all.fold()
						voids[with], got[with] = f.voids[q.hash], map[string]devices.Role{}
						for i, n := range who {
							got[with][names[i]] = f.r.Members[idOf(n.key)].Role
						}
					}
					if !reflect.DeepEqual(got[0], got[1]) || fmt.Sprint(voids[0]) != fmt.Sprint(voids[1]) {
						t.Fatalf("%s and %s on %s: %v %v, with a checkpoint %v %v", names[a], names[b], names[target], got[0], voids[0], got[1], voids[1])
					}
				}
			}
		}
	}
}

// Nobody makes a checkpoint but with the code: not an owner, not the first one, not
// with another root, not from the pieces of a true one.
func TestOnlyTheCodeMakesCheckpoints(t *testing.T) {
	tv, _, _, _, root := kinOf(t)
	want := tv.fold().r
	try := func(what string, edits ...*parsed) {
		t.Helper()
		got := &replica{edits: maps.Clone(tv.edits)}
		for _, p := range edits {
			got.edits[p.hash] = p
		}
		if f := got.fold(); f.base != nil {
			t.Errorf("%s: it counts", what)
		} else {
			same(t, what, f.r, want)
		}
	}
	pieces := func(key *ecdsa.PrivateKey, change func(*Edit)) (out []*parsed) {
		made, err := tv.fold().checkpoint(root)
		if err != nil {
			t.Fatal(err)
		}
		var parents []Hash
		for i, p := range made {
			e := p.edit
			if i > 0 {
				e.Parents = parents
			}
			change(&e)
			q, err := sign(key, e)
			if err != nil {
				t.Fatal(err)
			}
			q.good = false
			out, parents = append(out, q), []Hash{q.hash}
		}
		return out
	}
	try("signed by the first owner", pieces(tv.key, func(e *Edit) { e.Signer = idOf(tv.key) })...)
	try("in the name of the root", pieces(tv.key, func(*Edit) {})...)
	other := newKey(t)
	try("by another root", pieces(other, func(e *Edit) { e.Root = devices.CompressedKey(&other.PublicKey) })...)
	try("of another state", pieces(root, func(e *Edit) { e.State = make([]byte, 32) })...)
	whole := pieces(root, func(*Edit) {})
	for _, p := range whole {
		if n := len(p.raw) + 64; n > MaxEdit-16 { // index, count and number may grow
			t.Errorf("a piece of %d bytes", n)
		}
	}
	try("without its first piece", whole[1:]...)
	try("without its last piece", whole[:len(whole)-1]...)
	last := *whole[len(whole)-1]
	last.sigs, last.good = [][]byte{make([]byte, 64)}, false
	try("with a forged end", append(whole[:len(whole)-1:len(whole)-1], &last)...)
}

// A whole home: its history is full, the checkpoint compacts it, edits go on; a member that
// slept, one that has it in pieces out of order, one that joins and one that starts
// again all have the same home, and the store is small.
func TestFullHistoryCompacts(t *testing.T) {
	l, owner := newLog(t), newKey(t)
	code, err := l.Create(owner, CreateParams{HomeName: "Home", Name: "TV"})
	if err != nil {
		t.Fatal(err)
	}
	pad, m := admit(t, l, owner, "Pad", devices.RoleOwner)
	_, gone := admit(t, l, owner, "Cam", devices.RoleDevice)
	if err := l.Remove(owner, gone.Slug); err != nil {
		t.Fatal(err)
	}
	slept := newLog(t)
	if err := slept.Adopt(l.Edits(), l.Roster().Home, m.Node); err != nil {
		t.Fatal(err)
	}
	fill(t, l, owner, MaxEdits-removalReserve)
	if err := l.SetRoom(owner, "Attic"); !errors.Is(err, ErrLogFull) {
		t.Fatal(err)
	}
	before := l.Roster()
	if err := l.Checkpoint(NewRecoveryCode()); !errors.Is(err, ErrRecovery) {
		t.Fatal(err)
	}
	start := time.Now()
	if err := l.Checkpoint(code); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d edits became %d in %v", MaxEdits-removalReserve, len(l.edits), time.Since(start).Round(time.Millisecond))
	same(t, "compacted", l.Roster(), before)
	if err := l.Checkpoint(code); !errors.Is(err, ErrNoneChanged) {
		t.Fatal(err)
	}
	if err := l.SetRoom(owner, "Attic"); err != nil {
		t.Fatal(err)
	}
	if len(l.Edits()) > 20 || !l.WasRemoved(gone.Slug) || len(l.History()) != 2 {
		t.Fatalf("%d edits, %+v", len(l.Edits()), l.History())
	}
	again, err := OpenLog(l.store)
	if err != nil {
		t.Fatal(err)
	}
	joined := newLog(t)
	if err := joined.Adopt(l.Edits(), l.Roster().Home, m.Node); err != nil {
		t.Fatal(err)
	}
	pieces := l.Since(slept.Heads())
	mrand.Shuffle(len(pieces), func(i, j int) { pieces[i], pieces[j] = pieces[j], pieces[i] })
	for _, p := range pieces {
		_, _ = slept.Merge([]SignedEdit{p}) // what comes before its parents is held
	}
	if _, err := l.Merge(slept.Edits()); err != nil {
		t.Fatal(err)
	}
	for what, n := range map[string]*Log{"started again": again, "joined": joined, "slept": slept} {
		if !reflect.DeepEqual(n.Roster(), l.Roster()) {
			t.Errorf("%s: %+v", what, n.Roster())
		}
		if err := n.SetRoom(pad, "Cellar of "+what); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	share(t, l, joined, slept)
	share(t, l, joined, slept)
	if !reflect.DeepEqual(joined.Roster(), l.Roster()) || !reflect.DeepEqual(slept.Roster(), l.Roster()) {
		t.Error("they are not one home")
	}
	want := l.Roster()
	if err := errors.Join(l.Checkpoint(code), l.Remove(owner, m.Slug)); err != nil {
		t.Fatal(err)
	}
	if err := slept.SetRoom(pad, "Attic"); err != nil { // beside, by who is removed then
		t.Fatal(err)
	}
	share(t, slept, l, joined)
	for _, n := range []*Log{joined, slept} {
		if !reflect.DeepEqual(n.Roster(), l.Roster()) || n.Roster().Has(m.Node) || len(n.Edits()) != len(l.Edits()) || len(n.Roster().Rooms) != len(want.Rooms) {
			t.Errorf("after the second checkpoint: %+v", n.Roster())
		}
	}
}

// fill makes a history of a length, without the cost of folding it at each edit.
func fill(t *testing.T, l *Log, key *ecdsa.PrivateKey, length int) {
	t.Helper()
	parent := l.Heads()
	var edits []SignedEdit
	for i := len(l.edits); i < length; i++ {
		p, err := sign(key, Edit{Version: 1, Home: l.Roster().Home, Parents: parent, Signer: idOf(key), Op: OpName, Kind: SubjectRoom, Slug: "hall", Name: fmt.Sprint(i)})
		if err != nil {
			t.Fatal(err)
		}
		edits, parent = append(edits, p.signed()), []Hash{p.hash}
	}
	if n, err := l.Merge(edits); err != nil || n != len(edits) {
		t.Fatal(n, err)
	}
}

// Who edited beside the checkpoint is told so; who only slept is not.
func TestEditsBesideACheckpointAreShown(t *testing.T) {
	l, owner := newLog(t), newKey(t)
	code, err := l.Create(owner, CreateParams{HomeName: "Home", Name: "TV"})
	if err != nil {
		t.Fatal(err)
	}
	pad, m := admit(t, l, owner, "Pad", devices.RoleOwner)
	cut, slept := newLog(t), newLog(t)
	for _, n := range []*Log{cut, slept} {
		if err := n.Adopt(l.Edits(), l.Roster().Home, m.Node); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.SetRoom(owner, "Hall"); err != nil {
		t.Fatal(err)
	}
	if _, err := cut.Merge(l.Edits()); err != nil {
		t.Fatal(err)
	}
	if err := cut.SetRoom(pad, "Attic"); err != nil {
		t.Fatal(err)
	}
	if err := l.Checkpoint(code); err != nil {
		t.Fatal(err)
	}
	share(t, l, cut, slept)
	for n, want := range map[*Log]int{cut: 1, slept: 0, l: 0} {
		again, err := OpenLog(n.store)
		if err != nil {
			t.Fatal(err)
		}
		if h := again.History(); len(h) != 1+want || want == 1 && (h[1].Void != errBeside.Error() || h[1].By != "Pad") {
			t.Errorf("%+v", h)
		}
		if !reflect.DeepEqual(n.Roster(), l.Roster()) {
			t.Errorf("%+v", n.Roster())
		}
	}
}

// Whom the others removed does not come back by the word of an owner who knows of it.
func TestRemovedDeviceIsNotMadeAnOwner(t *testing.T) {
	tv, phone, _, _ := kin(t)
	cam, _ := tv.admit(t, "Cam", devices.RoleDevice)
	phone.take(cam)
	phone.edit(t, phone.key, removal(cam.key))
	for _, e := range []Edit{
		{Op: OpAdmit, Key: devices.CompressedKey(&cam.key.PublicKey), Role: devices.RoleOwner, Name: "Cam"},
		{Op: OpChange, Node: idOf(cam.key), Role: devices.RoleOwner},
	} {
		tv.take(phone)
		tv.edit(t, tv.key, e)
		if r := tv.fold().r; r.Has(idOf(cam.key)) {
			t.Errorf("%s: it belongs again", e.Op)
		}
	}
}

// Who was removed, or made a device, has no say on top of a checkpoint and becomes no owner.
func TestCheckpointKeepsOutWhoIsOut(t *testing.T) {
	tv, root := bornHome(t)
	spy, _ := tv.admit(t, "Spy", devices.RoleOwner)
	former, _ := tv.admit(t, "Former", devices.RoleOwner)
	cam, _ := tv.admit(t, "Cam", devices.RoleDevice)
	door, _ := tv.admit(t, "Door", devices.RoleDevice)
	tv.edit(t, tv.key, removal(spy.key))
	tv.edit(t, tv.key, removal(cam.key))
	tv.edit(t, tv.key, Edit{Op: OpChange, Node: idOf(former.key), Role: devices.RoleDevice})
	tv.checkpoint(t, root)
	want := tv.fold().r
	admit := func(k *ecdsa.PrivateKey, role devices.Role) Edit {
		return Edit{Op: OpAdmit, Key: devices.CompressedKey(&k.PublicKey), Role: role, Name: "Back"}
	}
	for _, by := range []*ecdsa.PrivateKey{spy.key, former.key, cam.key} {
		tv.edit(t, by, removal(door.key))
		tv.edit(t, by, admit(newKey(t), devices.RoleOwner))
		tv.edit(t, by, Edit{Op: OpPropose, Node: idOf(tv.key)})
	}
	for _, by := range []*ecdsa.PrivateKey{tv.key, root} {
		for _, role := range []devices.Role{devices.RoleOwner, devices.RoleDevice} {
			tv.edit(t, by, admit(spy.key, role))
			tv.edit(t, by, admit(cam.key, role))
		}
		tv.edit(t, by, Edit{Op: OpChange, Node: idOf(former.key), Role: devices.RoleOwner})
		tv.edit(t, by, Edit{Op: OpChange, Node: idOf(cam.key), Role: devices.RoleOwner})
	}
	same(t, "somebody came back", tv.fold().r, want)
	tv.checkpoint(t, root)
	tv.edits = prune(tv.edits)
	tv.edit(t, root, Edit{Op: OpChange, Node: idOf(former.key), Role: devices.RoleOwner})
	same(t, "a second checkpoint changed it", tv.fold().r, want)
}

// The power fails before and after each write of a checkpoint, at who makes it and at who hears
// of it: the store holds the home with all its edits, or compacted, and hears of the rest again.
func TestCheckpointIsOneWrite(t *testing.T) {
	type node struct {
		*Log
		images map[string][]byte
	}
	open := func() *node {
		dir, n := t.TempDir(), &node{images: map[string][]byte{}}
		s, err := devices.OpenStore(dir, devices.StoreOptions{Hook: func(point string) {
			if raw, err := os.ReadFile(filepath.Join(dir, "hallway.db")); err == nil { //nolint:gosec // the test's own folder
				n.images[point] = raw
			}
		}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() })
		if n.Log, err = OpenLog(s); err != nil {
			t.Fatal(err)
		}
		return n
	}
	maker, other, owner := open(), open(), newKey(t)
	code, err := maker.Create(owner, CreateParams{HomeName: "Home", Name: "TV"})
	if err != nil {
		t.Fatal(err)
	}
	_, m := admit(t, maker.Log, owner, "Pad", devices.RoleOwner)
	if err := other.Adopt(maker.Edits(), maker.Roster().Home, m.Node); err != nil {
		t.Fatal(err)
	}
	before := maker.Roster()
	if err := maker.Checkpoint(code); err != nil {
		t.Fatal(err)
	}
	if _, err := other.Merge(maker.Edits()); err != nil {
		t.Fatal(err)
	}
	for point, raw := range map[string][]byte{
		"roster.checkpoint.before": maker.images["roster.checkpoint.before"], "roster.checkpoint.after": maker.images["roster.checkpoint.after"],
		"roster.merge.before": other.images["roster.merge.before"], "roster.merge.after": other.images["roster.merge.after"],
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "hallway.db"), raw, 0o600); err != nil || len(raw) == 0 {
			t.Fatal(point, err)
		}
		s, err := devices.OpenStore(dir, devices.StoreOptions{})
		if err != nil {
			t.Fatal(err)
		}
		l, err := OpenLog(s)
		if err != nil {
			t.Fatal(err)
		}
		want := before
		if strings.HasSuffix(point, ".after") {
			want = maker.Roster()
		}
		if !reflect.DeepEqual(l.Roster(), want) {
			t.Errorf("%s: %+v", point, l.Roster())
		}
		if _, err := l.Merge(maker.Edits()); err != nil || !reflect.DeepEqual(l.Roster(), maker.Roster()) {
			t.Errorf("%s: %v", point, err)
		}
		_ = s.Close()
	}
}

// Of two checkpoints at once one ends, and with it what it stood for: whoever made it is told.
func TestCheckpointThatYieldsIsShown(t *testing.T) {
	l, owner := newLog(t), newKey(t)
	code, err := l.Create(owner, CreateParams{HomeName: "Home", Name: "TV"})
	if err != nil {
		t.Fatal(err)
	}
	pad, m := admit(t, l, owner, "Pad", devices.RoleOwner)
	other := newLog(t)
	if err := other.Adopt(l.Edits(), l.Roster().Home, m.Node); err != nil {
		t.Fatal(err)
	}
	for n, key := range map[*Log]*ecdsa.PrivateKey{l: owner, other: pad} {
		if err := n.SetRoom(key, "Room of "+idOf(key).Short()); err != nil {
			t.Fatal(err)
		}
		if err := n.Checkpoint(code); err != nil {
			t.Fatal(err)
		}
		if err := n.SetRoom(key, "Later"); err != nil {
			t.Fatal(err)
		}
	}
	share(t, l, other)
	if !reflect.DeepEqual(l.Roster(), other.Roster()) {
		t.Fatal("they do not agree")
	}
	told := 0
	for _, n := range []*Log{l, other} {
		var void []Op
		for _, e := range n.History() {
			if e.Void == errBeside.Error() {
				void = append(void, e.Op)
			}
		}
		if slices.Sort(void); len(void) > 0 {
			told++
			if !slices.Equal(void, []Op{OpCheckpoint, OpName}) {
				t.Errorf("%v", void)
			}
		}
	}
	if told != 1 {
		t.Errorf("%d are told", told)
	}
}
