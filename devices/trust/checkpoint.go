package trust

import (
	"cmp"
	"crypto/ecdsa"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"

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

// base is a checkpoint that is complete.
type base struct {
	pieces    []*parsed // in order
	last      *parsed
	root      *ecdsa.PublicKey
	state     state
	proposals map[Hash]*parsed // that wait, as far as later edits need them
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
	if err != nil || devices.HomeIDOf(root) != p.edit.Home || !p.byRoot() { // check: checkpoint root
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

// Checkpoint compacts the history: what the home is now stands in the place of all edits
// so far, by the word of the recovery code. Edits of others that are not here yet become
// void, so the caller sees to it that the owners agree.
func (l *Log) Checkpoint(code RecoveryCode) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	root, err := code.rootOf(l.Roster())
	if err != nil {
		return err
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
