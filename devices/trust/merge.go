package trust

import (
	"crypto/ecdsa"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/hallway-home/hallway/devices"
)

// maxOrphans bounds edits that are held until their parents come.
const maxOrphans = 256

// signers are those whose signatures are acceptable at the door: the root, and every key
// that was ever made an owner. Devices are not among them, so that no device can fill the
// log of the home.
type signers struct {
	owners map[devices.NodeID]*ecdsa.PublicKey
	keys   map[devices.NodeID][]byte // of everybody who was admitted
}

func newSigners() signers {
	return signers{map[devices.NodeID]*ecdsa.PublicKey{}, map[devices.NodeID][]byte{}}
}

func (s signers) clone() signers { return signers{maps.Clone(s.owners), maps.Clone(s.keys)} }

// learn takes an edit that was accepted.
func (s signers) learn(p *parsed) {
	e := p.edit
	id, hasKey := keyID(e.Key)
	if hasKey && (e.Op == OpGenesis || e.Op == OpAdmit) {
		s.keys[id] = e.Key
	}
	switch {
	case e.Op == OpGenesis:
		if root, err := devices.ParseCompressedKey(e.Root); err == nil {
			s.owners[devices.NodeIDOf(root)] = root
		}
		s.owner(id)
	case e.Op == OpAdmit && e.Role == devices.RoleOwner:
		s.owner(id)
	case e.Op == OpChange && e.Role == devices.RoleOwner:
		s.owner(e.Node)
	}
}

func (s signers) owner(id devices.NodeID) {
	if pub, err := devices.ParseCompressedKey(s.keys[id]); err == nil {
		s.owners[id] = pub
	}
}

// accept checks an edit's signature. Whether the signer was an owner at that point is
// the fold's question; here only forgeries are kept out.
func (s signers) accept(p *parsed) error {
	pub, ok := s.owners[p.edit.Signer]
	if !ok {
		return fmt.Errorf("%w: nobody made its signer an owner", ErrEditSignature)
	}
	return p.checkSignature(pub)
}

// Merge takes edits from a member. Malformed ones, forged ones and those of another home
// are refused; those whose parents are missing are held, bounded, until they come. It
// returns how many were stored, and why the first of the refused ones was. A node
// without a home merges nothing.
func (l *Log) Merge(edits []SignedEdit) (added int, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.Roster()
	if r == nil {
		return 0, ErrNoHome
	}
	s := sifter{have: l.edits, signers: l.signers.clone(), wait: map[Hash]*parsed{}, room: MaxEdits - l.length()}
	for _, e := range edits {
		p, err := parse(e)
		switch {
		case l.edits[p.hash] != nil:
		case err != nil:
			s.refuse(err)
		case p.edit.Home != r.Home:
			s.refuse(ErrEditHome)
		case p.edit.Op == OpCheckpoint:
			l.piece(p, &s)
		case p.edit.Op == OpGenesis && l.base != nil: // of one who does not have the checkpoint yet
		case p.edit.Op == OpGenesis:
			s.refuse(fmt.Errorf("%w: a second first edit", ErrEditForm))
		default:
			s.wait[p.hash] = p
		}
	}
	if b := findBase(l.pieces); b != nil && l.base.yields(b.last) {
		s.startAt(b)
	}
	fresh := slices.Collect(maps.Keys(s.wait))
	for h, p := range l.orphans {
		s.wait[h] = p
	}
	s.run()
	if len(s.take) > 0 {
		if err := l.put("roster.merge", false, s.take...); err != nil {
			return 0, err
		}
	}
	for _, p := range s.take {
		delete(l.orphans, p.hash)
	}
	for _, h := range fresh {
		l.hold(s.wait[h], &s)
	}
	return len(s.take), s.err
}

// hold keeps an edit whose parents have not come. When all places are taken a random one
// is given up, so that a flood cannot keep the others out for good.
func (l *Log) hold(p *parsed, s *sifter) {
	if p == nil {
		return
	}
	if l.base != nil && l.signers.owners[p.edit.Signer] == nil {
		return // of before the checkpoint
	}
	if err := l.signers.accept(p); err != nil {
		s.refuse(err)
		return
	}
	for h := range l.orphans {
		if len(l.orphans) < maxOrphans {
			break
		}
		delete(l.orphans, h)
	}
	l.orphans[p.hash] = p
}

// sifter takes edits in the order in which they hang together.
type sifter struct {
	have    map[Hash]*parsed // stored already
	signers signers
	wait    map[Hash]*parsed // not looked at yet, or parents missing
	room    int              // how many more the log can hold
	take    []*parsed        // accepted, parents first
	err     error            // why the first one was refused
}

func (s *sifter) refuse(err error) {
	if s.err == nil {
		s.err = err
	}
}

// run takes what has all its parents, and then what that makes possible. The cost is
// that of the edits in hand, not that of the whole log.
func (s *sifter) run() {
	kids, missing := map[Hash][]*parsed{}, map[Hash]int{}
	var ready []*parsed
	for h, p := range s.wait {
		for _, parent := range p.edit.Parents {
			if s.have[parent] == nil {
				missing[h]++
				kids[parent] = append(kids[parent], p)
			}
		}
		if missing[h] == 0 {
			ready = append(ready, p)
		}
	}
	for len(ready) > 0 {
		p := ready[0]
		ready = ready[1:]
		delete(s.wait, p.hash)
		if err := s.signers.accept(p); err != nil {
			s.refuse(err)
			continue
		}
		if s.room--; s.room < 0 {
			s.refuse(ErrLogFull)
			return
		}
		s.signers.learn(p)
		s.take = append(s.take, p)
		for _, k := range kids[p.hash] {
			if missing[k.hash]--; missing[k.hash] == 0 {
				ready = append(ready, k)
			}
		}
	}
}

// Adopt takes a whole log at joining. It must fold to the home that was promised, with
// self in it; edits in it that are forged or hang in the air are left out. Who admits this
// device vouches for what was waited out there, which is all but the proposals in waiting:
// for those this node counts the day itself.
func (l *Log) Adopt(edits []SignedEdit, home devices.HomeID, self devices.NodeID, waiting ...Hash) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if r := l.Roster(); r != nil {
		if r.Home == home {
			return nil
		}
		return ErrHomeExists
	}
	s := sifter{signers: newSigners(), wait: map[Hash]*parsed{}, room: MaxEdits}
	pieces := map[Hash]*parsed{}
	for _, e := range edits {
		p, err := parse(e)
		if err != nil || p.edit.Home != home {
			continue
		}
		if p.edit.Op == OpCheckpoint {
			if _, err := pieceRoot(p); err == nil {
				pieces[p.hash] = p
			}
			continue
		}
		if p.edit.Op == OpGenesis {
			if _, err := genesisRoot(p); err != nil {
				continue
			}
			s.signers.learn(p)
		}
		s.wait[p.hash] = p
	}
	if b := findBase(pieces); b != nil {
		s.startAt(b)
	}
	s.run()
	all := map[Hash]*parsed{}
	for _, p := range s.take {
		all[p.hash] = p
	}
	if r := fold(all, nil).r; r == nil || r.Home != home || !r.Has(self) {
		return errors.New("the home's log does not name this device; start the joining again")
	}
	waits := map[Hash]bool{}
	for _, h := range waiting {
		waits[h] = true
	}
	l.vouched = func(h Hash) bool { return !waits[h] }
	defer func() { l.vouched = nil }()
	return l.put("roster.adopt", false, s.take...)
}

// Heads are the hashes of the newest edits.
func (l *Log) Heads() []Hash {
	if r := l.Roster(); r != nil {
		return r.Heads
	}
	return nil
}

// Edits returns the named edits that are here, parents first; without names all.
func (l *Log) Edits(hashes ...Hash) []SignedEdit {
	l.mu.Lock()
	defer l.mu.Unlock()
	sorted := topological(l.edits)
	if len(hashes) == 0 {
		return sorted
	}
	return slices.DeleteFunc(sorted, func(s SignedEdit) bool { return !slices.Contains(hashes, s.Hash()) })
}

// Since returns what a peer whose newest edits are heads lacks, parents first.
func (l *Log) Since(heads []Hash) []SignedEdit {
	l.mu.Lock()
	defer l.mu.Unlock()
	has := map[Hash]bool{}
	for todo := slices.Clone(heads); len(todo) > 0; {
		h := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if p := l.edits[h]; p != nil && !has[h] {
			has[h] = true
			todo = append(todo, p.edit.Parents...)
		}
	}
	return slices.DeleteFunc(topological(l.edits), func(s SignedEdit) bool { return has[s.Hash()] })
}

// Missing reports whether edits are held whose parents have not come.
func (l *Log) Missing() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.orphans) > 0
}

// topological lists edits, parents first, the same on every node.
func topological(edits map[Hash]*parsed) []SignedEdit {
	var out []SignedEdit
	done := map[Hash]bool{}
	var visit func(h Hash)
	visit = func(h Hash) {
		p := edits[h]
		if p == nil || done[h] {
			return
		}
		done[h] = true
		for _, parent := range p.edit.Parents {
			visit(parent)
		}
		out = append(out, p.signed())
	}
	for _, h := range slices.SortedFunc(maps.Keys(edits), compareHash) {
		visit(h)
	}
	return out
}
