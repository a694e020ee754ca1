package trust

import (
	"cmp"
	"maps"
	"slices"

	"github.com/fxamacker/cbor/v2"

	"github.com/hallway-home/hallway/devices"
)

// state is all that later edits need to know of those before a checkpoint. Its lists are in one
// order, so that a home has one encoding.
type state struct {
	Name      string            `cbor:"1,keyasint"`
	HomeKey   []byte            `cbor:"2,keyasint"`
	Epoch     uint64            `cbor:"3,keyasint"`
	Heads     []Hash            `cbor:"4,keyasint"` // the edits on which it was folded
	Members   []stateMember     `cbor:"5,keyasint"`
	Removed   []stateRemoved    `cbor:"6,keyasint"`
	Rooms     []devices.Room    `cbor:"7,keyasint"`
	Groups    []devices.Group   `cbor:"8,keyasint"`
	Persons   []devices.Person  `cbor:"9,keyasint"`
	Adopted   []devices.Adopted `cbor:"10,keyasint"`
	Rules     []devices.Rule    `cbor:"11,keyasint"`
	Proposals []stateProposal   `cbor:"12,keyasint"`
	Slugs     []string          `cbor:"13,keyasint"` // taken for good
	Phones    []devices.Phone   `cbor:"14,keyasint,omitempty"`
	Lost      []devices.NodeID  `cbor:"15,keyasint,omitempty"`
	WebCA     []byte            `cbor:"16,keyasint,omitempty"`
}

type stateMember struct {
	Key     []byte           `cbor:"1,keyasint"`
	Role    devices.Role     `cbor:"2,keyasint"`
	Slug    string           `cbor:"3,keyasint"`
	Name    string           `cbor:"4,keyasint"`
	Room    string           `cbor:"5,keyasint"`
	Class   devices.Class    `cbor:"6,keyasint"`
	Makers  []devices.NodeID `cbor:"7,keyasint,omitempty"` // of an owner: see settler.family
	Demoted bool             `cbor:"8,keyasint,omitempty"` // was an owner once
}

type stateRemoved struct {
	_    struct{} `cbor:",toarray"`
	Node devices.NodeID
	Name string // at admission, for WasRemoved
}

type stateProposal struct {
	Hash   Hash           `cbor:"1,keyasint"`
	Target devices.NodeID `cbor:"2,keyasint"`
	By     devices.NodeID `cbor:"3,keyasint"`
	At     int64          `cbor:"4,keyasint"`
}

var stateDecMode = mustStateDecMode()

func mustStateDecMode() cbor.DecMode {
	m, err := cbor.DecOptions{DupMapKey: cbor.DupMapKeyEnforcedAPF, IndefLength: cbor.IndefLengthForbidden, MaxNestedLevels: 8, MaxArrayElements: MaxPieces * pieceSize, MaxMapPairs: 64}.DecMode()
	if err != nil {
		panic(err) // constant options
	}
	return m
}

// resume makes the roster that a checkpoint names.
func (f *folder) resume() error {
	st := f.base.state
	f.root = f.base.root
	f.r = emptyRoster(f.base.last.edit.Home, st.Name, st.HomeKey)
	for _, m := range st.Members {
		id := nodeOf(m.Key)
		f.r.Members[id] = devices.Member{Node: id, Key: m.Key, Role: m.Role, Slug: m.Slug, Name: m.Name, Room: m.Room, Class: m.Class}
		if m.Demoted {
			f.demoted[id] = true
		}
	}
	for _, x := range st.Removed {
		f.r.Removed[x.Node] = true
	}
	for _, x := range st.Rooms {
		f.r.Rooms[x.Slug] = x
	}
	for _, x := range st.Groups {
		f.r.Groups[x.Slug] = x
	}
	for _, x := range st.Persons {
		f.r.Persons[x.Slug] = x
	}
	for _, x := range st.Adopted {
		f.r.Adopted[x.Slug] = x
	}
	for _, x := range st.Rules {
		f.r.Rules[devices.RuleKey{Subject: x.Subject, Right: x.Right}] = x
	}
	for _, x := range st.Proposals {
		f.r.Pending[x.Hash] = devices.Proposal{Target: x.Target, By: x.By}
	}
	for _, x := range st.Slugs {
		f.slugs[x] = true
	}
	for _, x := range st.Phones {
		f.r.Phones[x.Node] = x
	}
	for _, x := range st.Lost {
		f.r.Lost[x] = true
	}
	copy(f.r.WebCA[:], st.WebCA)
	return nil
}

// seed tells the rule of owners what a checkpoint says: who is an owner, by whom, and who may
// not become one. Every later edit descends from it.
func (s *settler) seed(en *entry) {
	b := s.f.base
	s.anc[en.hash] = nil
	p := &power{entry: en, root: true}
	s.list, s.index[en.hash] = append(s.list, p), p
	fact := func(e Edit) *power { return &power{entry: &entry{parsed: &parsed{edit: e}}, root: true} }
	for _, m := range b.state.Members {
		id := nodeOf(m.Key)
		s.raw[id], s.names[id] = m.Key, m.Name
		s.joined[id] = []*power{fact(Edit{Op: OpAdmit})}
		if m.Role == devices.RoleOwner || m.Demoted {
			maker := fact(Edit{Op: OpAdmit})
			maker.target, maker.family = id, m.Makers
			s.made[id] = []*power{maker}
		}
		if m.Demoted {
			s.unmade[id] = []*power{fact(Edit{Op: OpChange})}
		}
	}
	for _, x := range b.state.Removed {
		s.made[x.Node] = []*power{fact(Edit{Op: OpAdmit})}
		s.unmade[x.Node] = []*power{fact(Edit{Op: OpRemove})}
	}
	for h, prop := range b.proposals {
		s.index[h] = &power{entry: &entry{parsed: prop}, root: true, target: prop.edit.Node}
	}
}

// state is what a checkpoint on everything that was folded says.
func (f *folder) state() state {
	r := f.r
	st := state{Name: r.Name, HomeKey: r.HomeKey, Epoch: r.Epoch, Heads: r.Heads, Slugs: slices.Sorted(maps.Keys(f.slugs))}
	names := f.admitted()
	all := bits{}
	for i := range f.owners.list {
		all = all.with(i)
	}
	for _, id := range slices.SortedFunc(maps.Keys(r.Members), compareNode) {
		m := r.Members[id]
		x := stateMember{Key: m.Key, Role: m.Role, Slug: m.Slug, Name: m.Name, Room: m.Room, Class: m.Class, Demoted: f.demoted[id]}
		if m.Role == devices.RoleOwner {
			if chain := f.owners.family(id, all); len(chain) > 1 {
				x.Makers = chain[:len(chain)-1]
			}
		}
		st.Members = append(st.Members, x)
	}
	for _, id := range slices.SortedFunc(maps.Keys(r.Removed), compareNode) {
		st.Removed = append(st.Removed, stateRemoved{Node: id, Name: names[id]})
	}
	st.Rooms, st.Groups, st.Persons, st.Adopted = sorted(r.Rooms), sorted(r.Groups), sorted(r.Persons), sorted(r.Adopted)
	st.Rules = slices.SortedFunc(maps.Values(r.Rules), func(a, b devices.Rule) int {
		return cmp.Or(cmp.Compare(a.Subject, b.Subject), cmp.Compare(a.Right, b.Right))
	})
	for _, id := range slices.SortedFunc(maps.Keys(r.Phones), compareNode) {
		st.Phones = append(st.Phones, r.Phones[id])
	}
	st.Lost = slices.SortedFunc(maps.Keys(r.Lost), compareNode)
	if r.WebCA != (Hash{}) {
		st.WebCA = r.WebCA[:]
	}
	for _, h := range slices.SortedFunc(maps.Keys(r.Pending), compareHash) {
		p := stateProposal{Hash: h, Target: r.Pending[h].Target, By: r.Pending[h].By}
		if en := f.entries[h]; en != nil {
			p.At = en.edit.At
		} else if f.base != nil {
			p.At = f.base.proposals[h].edit.At
		}
		st.Proposals = append(st.Proposals, p)
	}
	return st
}

// admitted says under which name each key came.
func (f *folder) admitted() map[devices.NodeID]string {
	names := map[devices.NodeID]string{}
	if f.base != nil {
		for _, m := range f.base.state.Members {
			names[nodeOf(m.Key)] = m.Name
		}
		for _, x := range f.base.state.Removed {
			names[x.Node] = x.Name
		}
	}
	for _, en := range f.applied {
		if id, ok := keyID(en.edit.Key); ok {
			names[id] = en.edit.Name
		}
	}
	return names
}

func compareNode(a, b devices.NodeID) int { return slices.Compare(a[:], b[:]) }

func sorted[T any](m map[string]T) []T {
	var out []T
	for _, k := range slices.Sorted(maps.Keys(m)) {
		out = append(out, m[k])
	}
	return out
}
