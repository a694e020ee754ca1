package trust

import (
	"cmp"
	"crypto/ecdsa"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/fxamacker/cbor/v2"

	"github.com/hallway-home/hallway/devices"
)

// A checkpoint stands in the place of all edits before it. Only the recovery code makes one: whoever
// holds it commands the home anyway, so a stolen owner's key gains nothing. It is a chain of edits
// (pieces) that carry the encoded state, each signed by the root key, so it needs nothing
// but the home's ID to be believed, and travels and is stored as all edits are. The home
// is what the last checkpoint says and what hangs below its last piece. What its
// maker did not know is void, on every node alike; so it is made only when all owners
// are seen to agree (see the agent).

const (
	// pieceSize is what one piece carries of the state: it leaves room for keys, hashes
	// and signature in MaxEdit.
	pieceSize = 224
	// MaxPieces bounds a checkpoint: 896 KiB hold 128 members and 256 rules with the longest
	// names, and what a full history leaves behind of removed keys and taken slugs.
	MaxPieces = 4096
)

// Why no checkpoint is made.
var (
	ErrStateSize   = errors.New("the home holds too many names for a checkpoint; make a new home")
	ErrStillWaits  = errors.New("a removal by one owner still waits for its 24 hours; make the checkpoint after that")
	errBeside      = errors.New("the checkpoint does not know it; do it again")
	ErrBehind      = errors.New("not all owners have been seen with what this device knows, and a checkpoint ends what they did apart from it; bring them into the network and try again, or remove them")
	ErrNoneChanged = errors.New("nothing happened since the last checkpoint")
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

// base is a checkpoint that is complete.
type base struct {
	pieces    []*parsed // in order
	last      *parsed
	root      *ecdsa.PublicKey
	state     state
	proposals map[Hash]*parsed // that wait, as far as later edits need them
}

var stateDecMode = mustStateDecMode()

func mustStateDecMode() cbor.DecMode {
	m, err := cbor.DecOptions{DupMapKey: cbor.DupMapKeyEnforcedAPF, IndefLength: cbor.IndefLengthForbidden, MaxNestedLevels: 8, MaxArrayElements: MaxPieces * pieceSize, MaxMapPairs: 64}.DecMode()
	if err != nil {
		panic(err) // constant options
	}
	return m
}

// beats orders checkpoints: the later one, and of those that do not know each other the
// lower hash. It depends on nothing that a node may have dropped.
func (e Edit) beats(o Edit) bool {
	return cmp.Or(cmp.Compare(o.Number, e.Number), slices.Compare(e.State, o.State)) < 0
}

// yields reports whether another checkpoint counts instead. There is one order, so all agree.
func (b *base) yields(last *parsed) bool {
	if b == nil || last.edit.beats(b.last.edit) {
		return true
	}
	return !b.last.edit.beats(last.edit) && compareHash(last.hash, b.last.hash) < 0
}

// pieceRoot checks a piece by itself.
func pieceRoot(p *parsed) (*ecdsa.PublicKey, error) {
	root, err := devices.ParseCompressedKey(p.edit.Root)
	if err != nil || devices.HomeIDOf(root) != p.edit.Home || !p.byRoot() {
		return nil, ErrEditSignature
	}
	return root, p.checkSignature(root)
}

// findBase finds the checkpoint that counts among those whose pieces are all there.
func findBase(edits map[Hash]*parsed) *base {
	var best *base
	for _, p := range edits {
		if p.edit.Op != OpCheckpoint || p.edit.Version > 1 || p.edit.Index+1 != p.edit.Count {
			continue
		}
		if !best.yields(p) {
			continue
		}
		if b := assemble(edits, p); b != nil {
			best = b
		}
	}
	return best
}

// assemble follows a checkpoint from its last piece back; nil if one is missing or false. The
// signature of the last one is good for all: each names the one before by its hash.
func assemble(edits map[Hash]*parsed, last *parsed) *base {
	if b := last.base; b != nil {
		if slices.ContainsFunc(b.pieces, func(p *parsed) bool { return edits[p.hash] == nil }) {
			return nil
		}
		return b
	}
	root, err := pieceRoot(last)
	if err != nil {
		return nil
	}
	b := &base{last: last, root: root, proposals: map[Hash]*parsed{}}
	var raw []byte
	for p, i := last, last.edit.Index; ; i-- {
		if p == nil || p.edit.Op != OpCheckpoint || p.edit.Index != i || p.edit.Count != last.edit.Count || p.edit.Number != last.edit.Number || !slices.Equal(p.edit.State, last.edit.State) {
			return nil
		}
		b.pieces = append(b.pieces, p)
		if i == 0 {
			break
		}
		p = edits[p.edit.Parents[0]]
	}
	slices.Reverse(b.pieces)
	for _, p := range b.pieces {
		raw = append(raw, p.edit.Chunk...)
	}
	if sum := sha256.Sum256(raw); !slices.Equal(sum[:], last.edit.State) || stateDecMode.Unmarshal(raw, &b.state) != nil {
		return nil
	}
	for _, p := range b.state.Proposals {
		b.proposals[p.Hash] = &parsed{hash: p.Hash, good: true, edit: Edit{Version: 1, Home: last.edit.Home, Op: OpPropose, Signer: p.By, Node: p.Target, At: p.At}}
	}
	last.base = b
	return b
}

// prune drops what a checkpoint stands for, and what hangs beside it.
func prune(edits map[Hash]*parsed) map[Hash]*parsed {
	f := newFolder(edits)
	if f.base == nil {
		return edits
	}
	out := map[Hash]*parsed{}
	for _, p := range f.base.pieces {
		out[p.hash] = p
	}
	for h, en := range f.entries {
		out[h] = en.parsed
	}
	return out
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

// Checkpoint compacts the history: what the home is now stands in the place of all edits
// so far, by the word of the recovery code. Edits of others that are not here yet become
// void, so the caller sees to it that the owners agree.
func (l *Log) Checkpoint(code RecoveryCode) error {
	root, err := code.rootKey()
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.Roster()
	switch {
	case r == nil:
		return ErrNoHome
	case devices.HomeIDOf(&root.PublicKey) != r.Home:
		return ErrRecovery
	}
	f := fold(l.edits, l.waiting(l.edits, l.seen))
	for _, err := range f.verdict {
		if errors.Is(err, errWaits) {
			return ErrStillWaits
		}
	}
	if f.base != nil && len(f.entries) == 1 {
		return ErrNoneChanged
	}
	pieces, err := f.checkpoint(root)
	if err != nil {
		return err
	}
	return l.put("roster.checkpoint", false, pieces...)
}

// checkpoint signs what was folded.
func (f *folder) checkpoint(root *ecdsa.PrivateKey) ([]*parsed, error) {
	raw, err := encMode.Marshal(f.state())
	if err != nil {
		return nil, err
	}
	number := uint64(1)
	if f.base != nil {
		number = f.base.last.edit.Number + 1
	}
	return split(root, f.r, number, raw)
}

// split signs the pieces of a state.
func split(root *ecdsa.PrivateKey, r *devices.Roster, number uint64, raw []byte) ([]*parsed, error) {
	sum := sha256.Sum256(raw)
	chunks := slices.Collect(slices.Chunk(raw, pieceSize))
	if len(chunks) > MaxPieces {
		return nil, fmt.Errorf("%w (%d KiB)", ErrStateSize, len(raw)>>10)
	}
	var out []*parsed
	parents := r.Heads[:1] // the state names them all
	for i, c := range chunks {
		p, err := sign(root, Edit{
			Version: 1, Home: r.Home, Parents: slices.Clone(parents), Op: OpCheckpoint, Signer: devices.NodeID(r.Home),
			Root: devices.CompressedKey(&root.PublicKey), State: sum[:], Number: number, Index: i, Count: len(chunks), Chunk: c,
		})
		if err != nil {
			return nil, err
		}
		out, parents = append(out, p), []Hash{p.hash}
	}
	return out, nil
}
