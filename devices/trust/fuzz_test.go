package trust

import (
	"crypto/ecdsa"
	"encoding/binary"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"testing"

	"github.com/hallway-home/hallway/devices"
)

// tape makes a history of edits from bytes: three bytes an edit say who signs what about
// whom on which of the earlier edits.
type tape struct {
	t    testing.TB
	home devices.HomeID
	keys []*ecdsa.PrivateKey // the root first, then those who may be admitted
	list []*parsed
}

// maxTape bounds what one input costs: each edit is signed and folded many times.
const maxTape = 3 * 24

func (x *tape) play(b []byte) {
	for b = b[:min(len(b), maxTape)]; len(b) >= 3; b = b[3:] {
		x.edit(b[0], b[1], b[2])
	}
}

func (x *tape) edit(op, who, on byte) {
	key, target := x.keys[int(who>>4)%len(x.keys)], x.keys[int(who&15)%len(x.keys)]
	e := Edit{Version: 1, Home: x.home, Signer: idOf(key)}
	for _, back := range []byte{on >> 4, on & 15} {
		p := x.list[max(0, len(x.list)-1-int(back))].hash
		if !slices.Contains(e.Parents, p) {
			e.Parents = append(e.Parents, p)
		}
	}
	role := []devices.Role{devices.RoleOwner, devices.RoleDevice}[op>>7]
	homeKey := make([]byte, homeKeyLen)
	binary.BigEndian.PutUint32(homeKey, uint32(len(x.list)))
	switch op & 127 % 9 {
	case 0:
		e.Op, e.Key, e.Role, e.Name = OpAdmit, devices.CompressedKey(&target.PublicKey), role, "Panel"
	case 1:
		e.Op, e.Node, e.HomeKey = OpRemove, idOf(target), homeKey
	case 2:
		e.Op, e.Node, e.Role = OpChange, idOf(target), role
	case 3:
		e.Op, e.Node, e.At = OpPropose, idOf(target), int64(op>>7)*day
	case 4:
		i := slices.IndexFunc(x.list, func(p *parsed) bool { return p.edit.Op == OpPropose })
		if i < 0 {
			return
		}
		p := x.list[i]
		e.Op, e.Node, e.Proposal, e.HomeKey, e.At = OpAgree, p.edit.Node, p.hash[:], homeKey, int64(op>>7)*day
	case 5:
		e.Op, e.Kind, e.Name = OpName, SubjectRoom, fmt.Sprintf("Room %d", who&3)
	case 6:
		e.Op, e.Kind, e.Slug = OpDelete, SubjectRoom, fmt.Sprintf("room-%d", who&3)
	case 7:
		e.Op, e.Slug, e.Right, e.Members = OpRule, "all", devices.RightCall, []string{"panel"}
	case 8:
		e.Op = OpMerge
	}
	p, err := sign(key, e)
	if err != nil {
		x.t.Fatal(err)
	}
	x.list = append(x.list, p)
}

// Whatever owners, removed owners and devices sign on whatever they knew: any order of
// arrival and any two halves fold to the same home; what is removed does not belong; only who
// an owner made one is an owner; the folds of one and of several steps agree.
func FuzzFold(f *testing.F) {
	f.Add([]byte("\x00\x12\x00\x80\x13\x00\x01\x23\x00"))                                     // admit an owner, a device; remove it
	f.Add([]byte("\x00\x12\x00\x00\x13\x00\x00\x14\x00\x03\x24\x00\x04\x34\x00"))             // two remove a third
	f.Add([]byte("\x00\x12\x00\x03\x21\x00\x84\x21\x00\x01\x12\x22"))                         // a day, and a concurrent removal
	f.Add([]byte("\x00\x12\x00\x80\x13\x00\x82\x12\x00\x02\x13\x00\x01\x23\x11\x02\x02\x00")) // roles, recovery
	root, first := newKey(f), newKey(f)
	keys := []*ecdsa.PrivateKey{root, first, newKey(f), newKey(f), newKey(f), newKey(f)}
	genesis, err := sign(root, Edit{
		Version: 1, Home: devices.HomeIDOf(&root.PublicKey), Op: OpGenesis, Signer: idOf(root), HomeKey: make([]byte, homeKeyLen),
		Root: devices.CompressedKey(&root.PublicKey), Key: devices.CompressedKey(&first.PublicKey), Name: "First",
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		x := &tape{t: t, home: genesis.edit.Home, keys: keys, list: []*parsed{genesis}}
		x.play(b)
		var edits []SignedEdit
		for _, p := range x.list {
			edits = append(edits, p.signed())
		}
		want, voids := Fold(edits)
		slices.Reverse(edits)
		if got, v := Fold(edits); !reflect.DeepEqual(got, want) || !reflect.DeepEqual(v, voids) {
			t.Fatalf("reversed, it folds to\n%+v\n%+v", got, want)
		}
		half := map[Hash]*parsed{}
		for i, p := range x.list { // parents first, so every beginning is a whole history
			half[p.hash] = p
			r := fold(maps.Clone(half), nil).r
			if i == len(x.list)-1 && !reflect.DeepEqual(r, want) {
				t.Fatalf("edit by edit, it folds to\n%+v\n%+v", r, want)
			}
		}
		for id := range want.Removed {
			if want.Has(id) {
				t.Fatalf("%v was removed and belongs", id)
			}
		}
		for id, m := range want.Members {
			made := func(p *parsed) bool {
				k, _ := keyID(p.edit.Key)
				return p.edit.Role == devices.RoleOwner && (k == id || p.edit.Node == id) || p.edit.Op == OpGenesis && k == id
			}
			if m.Role == devices.RoleOwner && !slices.ContainsFunc(x.list, made) {
				t.Fatalf("nobody made %v an owner", id)
			}
		}
	})
}

// Whatever the root signed as the state of a home: the fold takes it without a fall, and says
// the same of it again.
func FuzzState(f *testing.F) {
	tv, _, _, _, root := kinOf(f)
	raw, err := encMode.Marshal(tv.fold().state())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Add([]byte("\xa1\x05\x81\xa1\x02eowner"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		var st state
		if len(raw) > 1<<13 || stateDecMode.Unmarshal(raw, &st) != nil {
			return
		}
		pieces, err := split(root, tv.fold().r, 1, raw)
		if err != nil {
			return
		}
		x := &replica{key: tv.key, edits: map[Hash]*parsed{}}
		for _, p := range pieces {
			x.edits[p.hash] = p
		}
		x.edit(t, tv.key, Edit{Op: OpName, Kind: SubjectRoom, Name: "Attic"})
		want := x.fold().r
		x.checkpoint(t, root)
		same(t, "again", x.fold().r, want)
	})
}
