package trust

import (
	"crypto/ecdsa"
	"fmt"
	"maps"
	mrand "math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"github.com/hallway-home/hallway/devices"
)

// day is a home time, in steps of the 24 hours that a lone owner waits.
const day = int64(24 * 60 * 60)

// crowd is a home that several owners edit at once, each on what it knows.
type crowd struct {
	t     testing.TB
	r     *mrand.Rand
	root  *ecdsa.PrivateKey
	nodes []*replica
	all   map[devices.NodeID]*ecdsa.PrivateKey
}

func newCrowd(t testing.TB, seed uint64) *crowd {
	first, root := bornHome(t)
	return &crowd{
		t: t, r: mrand.New(mrand.NewPCG(seed, 1)), root: root, nodes: []*replica{first},
		all: map[devices.NodeID]*ecdsa.PrivateKey{idOf(first.key): first.key},
	}
}

func (c *crowd) pick() *replica { return c.nodes[c.r.IntN(len(c.nodes))] }

func (c *crowd) admit(n *replica, role devices.Role) *replica {
	o, _ := n.admit(c.t, []string{"TV", "Phone", "Pad"}[c.r.IntN(3)], role)
	c.all[idOf(o.key)] = o.key
	c.nodes = append(c.nodes, o)
	return o
}

// step lets n do one thing with key, on the given parents or on all it knows.
func (c *crowd) step(n *replica, key *ecdsa.PrivateKey, parents ...Hash) {
	target := idOf(c.pick().key)
	do := func(e Edit) { n.edit(c.t, key, e, parents...) }
	switch c.r.IntN(9) {
	case 0:
		k := newKey(c.t)
		do(Edit{Op: OpAdmit, Key: devices.CompressedKey(&k.PublicKey), Role: devices.RoleOwner, Name: "Owner"})
		if parents == nil && len(c.nodes) < 8 {
			c.all[idOf(k)] = k
			c.nodes = append(c.nodes, &replica{k, maps.Clone(n.edits)})
		}
	case 1:
		do(Edit{Op: OpRemove, Node: target, HomeKey: randomKey()})
	case 2:
		do(Edit{Op: OpPropose, Node: target, At: day * int64(c.r.IntN(3))})
	case 3:
		for _, p := range n.edits {
			if p.edit.Op == OpPropose {
				do(Edit{Op: OpAgree, Node: p.edit.Node, Proposal: p.hash[:], HomeKey: randomKey(), At: day * int64(c.r.IntN(3))})
				break
			}
		}
	case 4:
		do(Edit{Op: OpChange, Node: target, Role: []devices.Role{devices.RoleOwner, devices.RoleDevice}[c.r.IntN(2)]})
	case 5:
		do(Edit{Op: OpName, Kind: SubjectRoom, Name: fmt.Sprintf("Room %d", c.r.IntN(4))})
	case 6:
		do(Edit{Op: OpRule, Slug: []string{"all", "room-1"}[c.r.IntN(2)], Right: devices.RightCall, Members: []string{"all"}})
	case 7:
		do(Edit{Op: OpDelete, Kind: SubjectRoom, Slug: fmt.Sprintf("room-%d", c.r.IntN(4))})
	case 8:
		k := newKey(c.t)
		do(Edit{Op: OpAdmit, Key: devices.CompressedKey(&k.PublicKey), Role: devices.RoleDevice, Name: "Cam"})
		c.all[idOf(k)] = k
	}
}

// run lets everybody edit and exchange what they have, in seeded random order.
func (c *crowd) run(steps int) {
	for range steps {
		n := c.pick()
		switch c.r.IntN(20) {
		case 0, 1, 2, 3, 4, 5, 6:
			n.take(c.pick())
		case 7:
			if len(c.nodes) < 8 {
				c.admit(n, devices.RoleDevice)
			}
		case 8:
			n.edit(c.t, c.root, Edit{Op: OpChange, Node: idOf(c.pick().key), Role: devices.RoleOwner})
		default:
			c.step(n, n.key)
		}
	}
}

func (c *crowd) everything() *replica {
	all := &replica{key: c.nodes[0].key, edits: map[Hash]*parsed{}}
	for _, n := range c.nodes {
		all.take(n)
	}
	return all
}

// However the edits of a crowd arrive, in whatever order, in whatever halves, they fold
// to one home with the same void ones; and what was removed stays out.
func TestFoldIsIndependentOfOrder(t *testing.T) {
	for seed := range uint64(50) {
		c := newCrowd(t, seed)
		c.run(40)
		all := c.everything()
		list := all.list()
		want, voids := Fold(list)
		for range 6 {
			c.r.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
			got, v := Fold(append(list, list[:len(list)/2]...)) // some twice
			if !reflect.DeepEqual(got, want) || !reflect.DeepEqual(v, voids) {
				t.Fatalf("seed %d: another order folds to\n%+v\n%+v", seed, got, want)
			}
		}
		for id := range want.Removed {
			if want.Has(id) {
				t.Fatalf("seed %d: %v was removed and belongs", seed, id)
			}
		}
		if want.Epoch != uint64(len(all.edits)) {
			t.Fatalf("seed %d: %d of %d edits counted", seed, want.Epoch, len(all.edits))
		}
	}
}

// A stolen key that was put out may sign whatever it likes on whatever it knew, with as
// many owners of its own making, and whoever carries it to the others: nothing changes.
// So it is in a home with a checkpoint before or after the removal.
func TestRemovedOwnerGainsNothing(t *testing.T) {
	removed := map[string]int{}
	for seed := range uint64(120) {
		when := seed % 3 // 0: no checkpoint, 1: before the removal, 2: after it
		c := newCrowd(t, seed)
		for range 5 { // a tree of owners, each with a device
			n := c.pick()
			n.take(c.everything())
			n.take(c.admit(n, devices.RoleOwner))
			n.admit(t, "Cam", devices.RoleDevice)
		}
		c.run(12)
		home := c.everything()
		for len(home.fold().r.Heads) > 1 {
			home.edit(t, c.root, Edit{Op: OpMerge})
		}
		if when == 1 {
			home.checkpoint(t, c.root)
		}
		how, thief := c.putOut(home)
		if how == "" || how != "the code" && len(home.fold().r.Pending) > 0 {
			continue // what another owner proposed anybody may agree to: two owners then want it
		}
		removed[how]++
		if when == 2 {
			home.checkpoint(t, c.root)
		}
		want := home.fold().r
		gang := &replica{key: thief, edits: maps.Clone(home.edits)}
		keys := []*ecdsa.PrivateKey{thief}
		old := slices.SortedFunc(maps.Keys(home.edits), compareHash)
		for range 40 {
			parents := []Hash{old[c.r.IntN(len(old))]}
			if c.r.IntN(2) == 0 {
				parents = home.fold().r.Heads
			}
			k := newKey(t)
			switch c.r.IntN(3) {
			case 0:
				by := keys[c.r.IntN(len(keys))]
				p := gang.edit(t, by, Edit{Op: OpAdmit, Key: devices.CompressedKey(&k.PublicKey), Role: devices.RoleOwner, Name: "Spy"}, parents...)
				keys, old = append(keys, k), append(old, p.hash)
			default:
				before := maps.Clone(gang.edits)
				c.step(gang, keys[c.r.IntN(len(keys))], parents...)
				for h := range gang.edits {
					if before[h] == nil {
						old = append(old, h)
					}
				}
			}
		}
		got := gang.fold().r
		if !reflect.DeepEqual(got.Members, want.Members) || !reflect.DeepEqual(got.Rooms, want.Rooms) || !reflect.DeepEqual(got.Rules, want.Rules) || !reflect.DeepEqual(got.Removed, want.Removed) {
			t.Fatalf("seed %d: what %s signed after it was removed (by %s) changed the home", seed, idOf(thief).Short(), how)
		}
	}
	t.Logf("put out %v", removed)
	for _, how := range []string{"its maker", "two", "the code"} {
		if removed[how] < 5 {
			t.Errorf("only %d times by %s", removed[how], how)
		}
	}
}

// putOut removes a random owner in one of the ways that are final, on top of everything.
func (c *crowd) putOut(home *replica) (how string, thief *ecdsa.PrivateKey) {
	var list []*ecdsa.PrivateKey
	r := home.fold().r
	for id, m := range r.Members {
		if m.Role == devices.RoleOwner && c.all[id] != nil {
			list = append(list, c.all[id])
		}
	}
	if len(list) < 3 {
		return "", nil
	}
	slices.SortFunc(list, func(a, b *ecdsa.PrivateKey) int { x, y := idOf(a), idOf(b); return slices.Compare(x[:], y[:]) })
	c.r.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	thief = list[0]
	try := func(words string, edits ...*parsed) bool {
		if f := home.fold(); f.r.Has(idOf(thief)) {
			for _, p := range edits {
				delete(home.edits, p.hash)
			}
			return false
		}
		how = words
		return true
	}
	start := c.r.IntN(3)
	for i := range 3 {
		switch (start + i) % 3 {
		case 0:
			for _, k := range list[1:] {
				if try("its maker", home.edit(c.t, k, removal(thief))) {
					return how, thief
				}
			}
		case 1:
			for _, a := range list[1:] {
				for _, b := range list[1:] {
					p := (&replica{a, home.edits}).propose(c.t, thief, 0)
					q := (&replica{b, home.edits}).agree(c.t, p, 0)
					if try("two", q, p) {
						return how, thief
					}
				}
			}
		case 2:
			if try("the code", home.edit(c.t, c.root, removal(thief))) {
				return how, thief
			}
		}
	}
	return "", nil
}
