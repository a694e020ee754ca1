package trust

import (
	"crypto/ecdsa"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/hallway-home/hallway/devices"
)

// settler decides which edits of removed owners count, before the fold.
type settler struct {
	f        *folder
	bySigner map[devices.NodeID][]*entry
	keys     map[devices.NodeID]*ecdsa.PublicKey
	admitted map[devices.NodeID][]*entry // the edits that make a key an owner
	against  map[devices.NodeID][]*entry // removals of an owner by seniors
	level    map[devices.NodeID]bool     // owners of the generation that is looked at
	next     map[devices.NodeID]bool     // and those that they admitted
	from     map[Hash]int                // generation of the signer of what note keeps
}

// rootGeneration is senior to every owner.
const rootGeneration = -1

// settle marks what removed owners may not have done. The fold alone cannot: a removed
// owner could build on old edits, and so look concurrent with the removal, or even come
// before it, once a later edit joins both.
//
// The rule: owners have generations. The first owner and those that the recovery code
// admits are of generation 0; whom an owner of generation g admits as an owner is of
// g+1 (of the lowest, if several admitted it). An owner is removed only by an owner of a
// lower generation, or by the recovery code; and of a removed owner only those edits
// count that are ancestors of every such removal, that is, which the remover knew.
// Because a removal's validity depends on lower generations only, one walk over them
// settles everything, whatever the order of the edits; two owners cannot remove each
// other, and a removed one cannot come back by an edit dated before its removal.
func (f *folder) settle() {
	first := f.firstEdit()
	if first == nil {
		return
	}
	s := &settler{
		f: f, bySigner: map[devices.NodeID][]*entry{}, keys: map[devices.NodeID]*ecdsa.PublicKey{},
		admitted: map[devices.NodeID][]*entry{}, against: map[devices.NodeID][]*entry{},
		next: map[devices.NodeID]bool{}, from: map[Hash]int{},
	}
	for _, en := range f.entries {
		if en.edit.Home == first.edit.Home && en.edit.Op != OpGenesis {
			s.bySigner[en.edit.Signer] = append(s.bySigner[en.edit.Signer], en)
		}
	}
	root, err := genesisRoot(first.parsed)
	if err != nil {
		return
	}
	s.note(first, rootGeneration)
	for _, en := range s.bySigner[devices.NodeID(first.edit.Home)] {
		if en.checkSignature(root) == nil {
			s.note(en, rootGeneration)
		}
	}
	for g := 0; len(s.next) > 0; g++ {
		s.level, s.next = s.next, map[devices.NodeID]bool{}
		for id := range s.level {
			f.gen[id] = g
		}
		for id := range s.level {
			s.walk(id, g)
		}
	}
}

// firstEdit is the one that the fold will take.
func (f *folder) firstEdit() *entry {
	var first *entry
	for _, en := range f.ready {
		if _, err := genesisRoot(en.parsed); err == nil && (first == nil || compareHash(en.hash, first.hash) < 0) {
			first = en
		}
	}
	return first
}

// walk looks at what one owner signed.
func (s *settler) walk(id devices.NodeID, g int) {
	lower := func(en *entry) bool { return s.from[en.hash] < g }
	removals := slices.DeleteFunc(slices.Clone(s.against[id]), func(r *entry) bool { return !lower(r) })
	known := s.f.knownTo(removals)
	valid := make(bits, len(removals)/64+1)
	for i := range removals { // a removal must know of an admission
		if slices.ContainsFunc(s.admitted[id], func(a *entry) bool { return lower(a) && known[a.hash].has(i) }) {
			valid.set(i)
		}
	}
	for _, en := range s.bySigner[id] {
		if en.checkSignature(s.keys[id]) != nil {
			continue // the fold refuses it
		}
		if !known[en.hash].covers(valid) {
			s.f.cut[en.hash] = true
			continue
		}
		s.note(en, g)
	}
}

// note keeps what matters for later generations.
func (s *settler) note(en *entry, g int) {
	s.from[en.hash] = g
	switch en.edit.Op {
	case OpAdmit, OpGenesis:
		s.admit(en)
	case OpRemove:
		s.against[en.edit.Node] = append(s.against[en.edit.Node], en)
	}
}

func (s *settler) admit(en *entry) {
	pub, err := devices.ParseCompressedKey(en.edit.Key)
	if err != nil || en.edit.Op == OpAdmit && en.edit.Role != devices.RoleOwner {
		return
	}
	id := devices.NodeIDOf(pub)
	s.keys[id] = pub
	s.admitted[id] = append(s.admitted[id], en)
	if _, ok := s.f.gen[id]; !ok {
		s.next[id] = true
	}
}

// knownTo says of every edit of which of the given ones it is an ancestor.
func (f *folder) knownTo(list []*entry) map[Hash]bits {
	out := map[Hash]bits{}
	if len(list) == 0 {
		return out
	}
	at := map[Hash]int{}
	for i, en := range list {
		at[en.hash] = i
	}
	for _, en := range slices.Backward(f.order) { // children before parents
		mine, ok := out[en.hash]
		i, marked := at[en.hash]
		if !ok && !marked {
			continue
		}
		for _, p := range en.edit.Parents {
			if out[p] == nil {
				out[p] = make(bits, len(list)/64+1)
			}
			for w, word := range mine {
				out[p][w] |= word
			}
			if marked {
				out[p].set(i)
			}
		}
	}
	return out
}

// bits is a set of small numbers.
type bits []uint64

func (b bits) set(i int)      { b[i/64] |= 1 << (i % 64) }
func (b bits) has(i int) bool { return b != nil && b[i/64]&(1<<(i%64)) != 0 }
func (b bits) covers(other bits) bool {
	for w, word := range other {
		if word != 0 && (b == nil || b[w]&word != word) {
			return false
		}
	}
	return true
}

// mayRemove applies the rule of settle to one removal.
func (f *folder) mayRemove(e Edit, m devices.Member) error {
	if m.Role != devices.RoleOwner || e.Signer == devices.NodeID(f.r.Home) || f.gen[e.Signer] < f.gen[m.Node] {
		return nil
	}
	if owners(f.r) == 1 {
		return ErrLastOwner
	}
	var seniors []string
	for id, o := range f.r.Members {
		if o.Role == devices.RoleOwner && f.gen[id] < f.gen[m.Node] {
			seniors = append(seniors, o.Name)
		}
	}
	if len(seniors) == 0 {
		return fmt.Errorf("%w; only the recovery code can remove the first owner", ErrSenior)
	}
	return fmt.Errorf("%w; do it on: %s", ErrSenior, strings.Join(slices.Sorted(slices.Values(seniors)), ", "))
}

func owners(r *devices.Roster) int {
	n := 0
	for m := range maps.Values(r.Members) {
		if m.Role == devices.RoleOwner {
			n++
		}
	}
	return n
}
