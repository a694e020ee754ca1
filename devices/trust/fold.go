package trust

import (
	"bytes"
	"cmp"
	"container/heap"
	"crypto/ecdsa"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/hallway-home/hallway/devices"
)

// Void is an edit that was folded without effect, and why.
type Void struct {
	Hash   Hash
	Reason string
}

// Why an edit has no effect.
var (
	errSigner     = errors.New("its signer is no owner at this point")
	errCut        = errors.New("its signer was removed by somebody who did not know this edit")
	errNotFirst   = errors.New("it is not the first edit of this home")
	errKnownKey   = errors.New("this key belongs already")
	errNobody     = errors.New("nobody with this key belongs")
	errUnknownOp  = errors.New("this version does not know the operation")
	errUnknownTag = errors.New("this version does not know that kind of name")

	errUnknownRight = fmt.Errorf("%w: this version does not know the right", ErrRule)
	errRuleOnGroup  = fmt.Errorf("%w: it is about a device, room, person or all; groups stand among those who have the right", ErrRule)
	errRules        = fmt.Errorf("%w: the home has 256 already; delete one first", ErrRule)
)

// parsed is an edit that passed decode.
type parsed struct {
	hash Hash
	edit Edit
	raw  []byte
	sigs [][]byte // more than one only if somebody signed the same bytes twice
	good bool     // a signature was found to fit the key that the edit names
	base *base    // the last piece of a checkpoint: what it was found to say
}

func parse(s SignedEdit) (*parsed, error) {
	e, err := decode(s)
	return &parsed{hash: s.Hash(), edit: e, raw: s.Raw, sigs: [][]byte{s.Sig}}, err
}

func (p *parsed) signed() SignedEdit { return SignedEdit{p.raw, p.sigs[0]} }

func (p *parsed) byRoot() bool { return p.edit.Signer == devices.NodeID(p.edit.Home) }

// checkSignature checks the edit against the key whose hash its Signer is.
func (p *parsed) checkSignature(pub *ecdsa.PublicKey) error {
	if pub == nil {
		return ErrEditSignature // nobody knows the key that the signer's ID is the hash of
	}
	fits := func(sig []byte) bool { return VerifyRaw(pub, p.raw, sig) }
	if !p.good && !slices.ContainsFunc(p.sigs, fits) { // check: roster signature
		return ErrEditSignature
	}
	p.good = true
	return nil
}

// Fold makes the roster from a set of edits, in whatever order they come: parents
// before children; among concurrent edits those signed by the root first, then
// removals, then the lower hash. Void are the edits of a signer who is no owner at that
// point, and those of a removed owner that his removal did not know (see settle). Fold
// trusts nobody: each signature is checked against the key that the roster itself names
// at that point. Edits whose parents are missing wait and are not counted. The roster
// is nil without a valid first edit.
func Fold(edits []SignedEdit) (*devices.Roster, []Void) {
	byHash, bad := map[Hash]*parsed{}, map[Hash]error{}
	for _, s := range edits {
		p, err := parse(s)
		switch old := byHash[p.hash]; {
		case err != nil:
			bad[p.hash] = err
		case old != nil:
			old.sigs = append(old.sigs, s.Sig)
		default:
			byHash[p.hash] = p
		}
	}
	f := fold(byHash, nil)
	for h, err := range bad {
		if byHash[h] == nil {
			f.voids[h] = err
		}
	}
	return f.r, f.listVoids()
}

// fold folds edits that passed decode, as if those held had not come yet.
func fold(edits map[Hash]*parsed, held map[Hash]bool) *folder {
	f := newFolder(edits)
	f.held = held
	f.settle()
	for f.ready.Len() > 0 {
		f.apply(heap.Pop(&f.ready).(*entry))
	}
	if f.r != nil {
		f.r.Epoch = uint64(len(f.entries))
		if f.base != nil {
			f.r.Epoch += f.base.state.Epoch + uint64(len(f.base.pieces)-1)
		}
		f.r.Heads = f.heads()
	}
	return f
}

type entry struct {
	*parsed
	wait int // parents not folded yet
}

type folder struct {
	r       *devices.Roster
	base    *base    // the checkpoint on which everything stands; nil without one
	owners  *settler // nil without a first edit
	root    *ecdsa.PublicKey
	entries map[Hash]*entry // those that hang together with a first edit
	order   []*entry        // the same, parents first
	applied []*entry        // the same, as folded
	kids    map[Hash][]*entry
	ready   queue
	voids   map[Hash]error
	slugs   map[string]bool
	held    map[Hash]bool  // removals that wait here, see Log.Review
	verdict map[Hash]error // of settle, on each edit that makes or unmakes an owner
	cut     map[Hash]bool  // see settle
	demoted map[devices.NodeID]bool
}

// newFolder finds the edits whose ancestors are all there, and what comes first.
func newFolder(edits map[Hash]*parsed) *folder {
	f := &folder{
		entries: map[Hash]*entry{}, kids: map[Hash][]*entry{}, voids: map[Hash]error{}, slugs: map[string]bool{},
		verdict: map[Hash]error{}, cut: map[Hash]bool{}, demoted: map[devices.NodeID]bool{}, base: findBase(edits),
	}
	var next []*entry
	for _, p := range edits {
		en := &entry{parsed: p, wait: len(p.edit.Parents)}
		first := en.wait == 0
		if f.base != nil {
			first = p == f.base.last
		}
		if p.edit.Op == OpCheckpoint && !first {
			continue // not all of it is here, or it does not count
		}
		for _, parent := range p.edit.Parents {
			f.kids[parent] = append(f.kids[parent], en)
		}
		if first {
			next = append(next, en)
			f.ready = append(f.ready, en)
		}
	}
	for len(next) > 0 {
		en := next[len(next)-1]
		next = next[:len(next)-1]
		f.entries[en.hash] = en
		f.order = append(f.order, en)
		for _, k := range f.kids[en.hash] {
			if k.wait--; k.wait == 0 {
				next = append(next, k)
			}
		}
	}
	for _, en := range f.entries {
		if en.wait = len(en.edit.Parents); f.base != nil && en.parsed == f.base.last {
			en.wait = 0
		}
	}
	heap.Init(&f.ready)
	return f
}

func (f *folder) apply(en *entry) {
	f.applied = append(f.applied, en)
	if err := f.effect(en); err != nil {
		f.voids[en.hash] = err
	}
	for _, k := range f.kids[en.hash] {
		if k.wait--; k.wait == 0 {
			heap.Push(&f.ready, k)
		}
	}
}

func (f *folder) signedByOwner(en *entry) error {
	if en.byRoot() {
		return en.checkSignature(f.root)
	}
	m, ok := f.r.Members[en.edit.Signer]
	if !ok || m.Role != devices.RoleOwner {
		return errSigner
	}
	key, err := devices.ParseCompressedKey(m.Key)
	if err != nil {
		return err
	}
	return en.checkSignature(key)
}

func (f *folder) genesis(en *entry) error {
	e := en.edit
	root, err := genesisRoot(en.parsed)
	if err != nil {
		return err
	}
	if f.r != nil {
		return errNotFirst
	}
	f.root = root
	f.r = emptyRoster(e.Home, e.HomeName, e.HomeKey)
	e.Role = devices.RoleOwner
	return f.admit(e)
}

func emptyRoster(home devices.HomeID, name string, key []byte) *devices.Roster {
	return &devices.Roster{
		Home: home, Name: name, HomeKey: key,
		Members: map[devices.NodeID]devices.Member{}, Removed: map[devices.NodeID]bool{},
		Rooms: map[string]devices.Room{}, Groups: map[string]devices.Group{}, Persons: map[string]devices.Person{},
		Phones: map[devices.NodeID]devices.Phone{}, Lost: map[devices.NodeID]bool{},
		Adopted: map[string]devices.Adopted{}, Rules: map[devices.RuleKey]devices.Rule{}, Pending: map[Hash]devices.Proposal{},
	}
}

// genesisRoot checks a first edit by itself and gives the home's root key.
func genesisRoot(p *parsed) (*ecdsa.PublicKey, error) {
	root, err := devices.ParseCompressedKey(p.edit.Root)
	if err != nil || devices.HomeIDOf(root) != p.edit.Home || !p.byRoot() {
		return nil, errNotFirst
	}
	return root, p.checkSignature(root)
}

func (f *folder) heads() []Hash {
	var out []Hash
	for h := range f.entries {
		if !slices.ContainsFunc(f.kids[h], func(k *entry) bool { return f.entries[k.hash] != nil }) {
			out = append(out, h)
		}
	}
	slices.SortFunc(out, compareHash)
	return out
}

func (f *folder) listVoids() []Void {
	var out []Void
	for _, h := range slices.SortedFunc(maps.Keys(f.voids), compareHash) {
		out = append(out, Void{h, f.voids[h].Error()})
	}
	return out
}

func compareHash(a, b Hash) int { return bytes.Compare(a[:], b[:]) }

// queue orders edits that are ready together.
type queue []*entry

func (q queue) Len() int { return len(q) }
func (q queue) Less(i, j int) bool {
	return cmp.Or(cmp.Compare(rank(q[i]), rank(q[j])), compareHash(q[i].hash, q[j].hash)) < 0
}
func (q queue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }

// Push is part of heap.Interface.
func (q *queue) Push(x any) { *q = append(*q, x.(*entry)) }

// Pop is part of heap.Interface.
func (q *queue) Pop() any {
	old := *q
	e := old[len(old)-1]
	*q = old[:len(old)-1]
	return e
}

func rank(e *entry) int {
	switch {
	case e.byRoot():
		return 0
	case e.edit.Op == OpRemove, e.edit.Op == OpAgree, e.edit.Op == OpLost:
		return 1
	}
	return 2
}
