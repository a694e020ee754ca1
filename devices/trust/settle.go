package trust

import (
	"cmp"
	"crypto/ecdsa"
	"crypto/sha256"
	"errors"
	"slices"
	"time"

	"github.com/hallway-home/hallway/devices"
)

// settle decides, before the fold, which removals of owners count and which edits of the
// owners removed do not. The fold alone cannot: a removed owner could build on old
// edits, and so look concurrent with the removal, or even come before it, once a later
// edit joins both.
//
// Owners form a tree: the recovery code made the first ones, and each further owner
// hangs below the owner who admitted or promoted it. The family of an owner is that owner and
// all below. Whoever steals the key of an owner can make others in a second, but only
// inside that family. Hence the one rule: owners remove an owner at once iff the smallest
// family that holds all who sign also holds the one to go. So
//   - the recovery code removes everybody;
//   - an owner alone removes those it made itself, directly or through others;
//   - two owners of whom neither made the other remove whoever their closest common
//     maker made, and that maker too;
//   - and one owner alone removes any other after removalWait, see loneRemoval.
//
// Whether a removal is entitled is read from its own ancestors, so no other edit changes it. Of
// entitled removals that do not know each other the one of the larger family counts first,
// and so on downwards: what a stolen key signs off the line is of its own family and
// comes after the removal that put it out. Of an owner removed only those edits count
// that are ancestors of every removal that counts, that is, which the removers knew.
func (f *folder) settle() {
	s := f.newSettler()
	if s == nil {
		return
	}
	f.owners = s
	for _, en := range f.order {
		s.look(en)
	}
	s.decide()
}

// removalWait is how long a lone owner waits, in home time, before it may remove an owner it
// did not make.
const removalWait = 24 * time.Hour

// Why a removal of an owner has no effect.
var (
	errMadeMeanwhile = errors.New("it removes a device that somebody else made an owner meanwhile")
	errNoProposal    = errors.New("it agrees to nothing that was proposed")
	errSelf          = errors.New("an owner has no say in what others propose about it")
	errEarly         = errors.New("a lone owner removes another 24 hours after it proposed so, not earlier")
	errOnce          = errors.New("this key is an owner's already, or was: who was made a device joins again with a new key to become an owner")
	errNoOwner       = errors.New("it is no owner")
	errWaits         = errors.New("this device has known the proposal for less than 24 hours; the removal takes force then")
	errOutvoted      = errors.New("its signer was removed by a removal that counts before it")
)

// power is an edit that makes or unmakes a member or owner.
type power struct {
	*entry
	index  int
	target devices.NodeID
	family []devices.NodeID // the signer, and above it those who made it, the highest first
	by     []*power         // removals: the edits that sign it: itself, and the proposal it agrees to
	root   bool
	lone   bool // one owner after removalWait
	plain  bool // a removal of what was a device to its signer
	depth  int  // of the smallest family that holds all signers
	ofHead bool // two owners remove the head of that family
}

// class orders removals that do not know each other, see settle.
func (p *power) class() int {
	switch {
	case p.root:
		return 0
	case p.lone:
		return 2
	case p.plain:
		return 3
	}
	return 1
}

func (p *power) compare(q *power) int {
	rank := func(x *power) int {
		switch {
		case x.ofHead:
			return 0
		case len(x.by) > 1:
			return 1
		}
		return 2
	}
	return cmp.Or(cmp.Compare(p.class(), q.class()), cmp.Compare(p.depth, q.depth), cmp.Compare(rank(p), rank(q)), compareHash(p.hash, q.hash))
}

type settler struct {
	f       *folder
	first   *entry
	root    *ecdsa.PublicKey
	raw     map[devices.NodeID][]byte // every key that was ever admitted
	names   map[devices.NodeID]string // and its name then
	keys    map[devices.NodeID]*ecdsa.PublicKey
	list    []*power
	index   map[Hash]*power
	anc     map[Hash]bits               // of every edit: which of list it descends from
	joined  map[devices.NodeID][]*power // entitled edits that admit a device
	made    map[devices.NodeID][]*power // entitled edits that make a key an owner
	unmade  map[devices.NodeID][]*power // entitled removals
	inForce []*power
	against map[devices.NodeID][]*power // removals in force
}

func (f *folder) newSettler() *settler {
	first := f.firstEdit()
	if first == nil {
		return nil
	}
	root, err := genesisRoot(first.parsed)
	if f.base != nil {
		root, err = f.base.root, nil
	}
	if err != nil {
		return nil
	}
	s := &settler{
		f: f, first: first, root: root,
		raw: map[devices.NodeID][]byte{}, names: map[devices.NodeID]string{}, keys: map[devices.NodeID]*ecdsa.PublicKey{},
		index: map[Hash]*power{}, anc: map[Hash]bits{}, made: map[devices.NodeID][]*power{}, joined: map[devices.NodeID][]*power{},
		unmade: map[devices.NodeID][]*power{}, against: map[devices.NodeID][]*power{},
	}
	for _, en := range f.order {
		if id, ok := keyID(en.edit.Key); ok && (en.edit.Op == OpAdmit || en == first) {
			s.raw[id], s.names[id] = en.edit.Key, en.edit.Name
		}
	}
	return s
}

// keyID hashes a compressed key without looking whether it is a point of the curve.
func keyID(key []byte) (devices.NodeID, bool) {
	sum := sha256.Sum256(key)
	return devices.NodeID(sum[:16]), len(key) == 33
}

// firstEdit is the one that the fold will take.
func (f *folder) firstEdit() *entry {
	if f.base != nil {
		return f.entries[f.base.last.hash]
	}
	var first *entry
	for _, en := range f.ready {
		if _, err := genesisRoot(en.parsed); err == nil && (first == nil || compareHash(en.hash, first.hash) < 0) {
			first = en
		}
	}
	return first
}

// decide puts removals in force, in their order, and cuts what they did not know.
// Removals by lone owners do not outvote each other: time alone must let nobody return.
func (s *settler) decide() {
	classes := map[int][]*power{}
	for _, p := range s.list {
		if p.by != nil {
			classes[p.class()] = append(classes[p.class()], p)
		}
	}
	for c := range 4 {
		slices.SortFunc(classes[c], (*power).compare)
		var after []*power
		for _, p := range classes[c] {
			switch {
			case p.lone && s.f.held[p.hash]:
				s.f.verdict[p.hash] = errWaits
			case !s.alive(p):
				s.f.verdict[p.hash] = errOutvoted
			case p.plain && s.madeMeanwhile(p):
				s.f.verdict[p.hash] = errMadeMeanwhile
			case p.lone:
				after = append(after, p)
			default:
				s.enforce(p)
			}
		}
		for _, p := range after {
			s.enforce(p)
		}
	}
	memo := map[*power]bool{}
	for _, p := range s.list {
		if p.by == nil && !s.stands(p, memo) {
			s.f.verdict[p.hash] = errOutvoted
		}
	}
	s.cut()
}

func (s *settler) enforce(p *power) {
	s.inForce = append(s.inForce, p)
	s.against[p.target] = append(s.against[p.target], p)
}

// alive reports whether all signers of a removal still were owners, as far as the
// removals in force say.
func (s *settler) alive(p *power) bool {
	memo := map[*power]bool{}
	for _, b := range p.by {
		if !s.stands(b, memo) {
			return false
		}
	}
	return true
}

// stands reports whether one edit was signed by an owner whose admission stands and
// whose removals, if any, knew the edit.
func (s *settler) stands(p *power, memo map[*power]bool) bool {
	if p.root {
		return true
	}
	if v, ok := memo[p]; ok {
		return v
	}
	memo[p] = false
	id, anc := p.edit.Signer, s.anc[p.hash]
	for _, r := range s.against[id] {
		if !s.anc[r.hash].has(p.index) {
			return false
		}
	}
	for _, m := range s.made[id] {
		if anc.has(m.index) && s.stands(m, memo) {
			memo[p] = true
			return true
		}
	}
	return false
}

// madeMeanwhile reports whether a device that is removed was made an owner by somebody
// whom the remover does not stand above: else an owner could remove another at once by an
// edit dated back to when that one was a device. Who makes it one knowing of the removal makes
// nothing: a removed key never returns.
func (s *settler) madeMeanwhile(p *power) bool {
	for _, m := range s.made[p.target] {
		if !s.anc[p.hash].has(m.index) && !s.anc[m.hash].has(p.index) && !slices.Contains(m.family, p.edit.Signer) && s.stands(m, map[*power]bool{}) {
			return true
		}
	}
	return false
}

// cut marks the edits of removed owners that a removal in force did not know. Removals in
// force stand nevertheless: the fold takes them without asking.
func (s *settler) cut() {
	var list []*entry
	wanted := map[devices.NodeID]bits{}
	for i, p := range s.inForce {
		list = append(list, p.entry)
		wanted[p.target] = wanted[p.target].with(i)
	}
	knownTo := s.f.knownTo(list)
	for _, en := range s.f.order {
		if want := wanted[en.edit.Signer]; want != nil && !knownTo[en.hash].covers(want) {
			s.f.cut[en.hash] = true
		}
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
		mine := out[en.hash]
		if i, ok := at[en.hash]; ok {
			mine = mine.with(i)
		}
		if mine == nil {
			continue
		}
		for _, p := range en.edit.Parents {
			out[p] = out[p].union(mine)
		}
	}
	return out
}
