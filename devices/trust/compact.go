package trust

import (
	"encoding/hex"
	"maps"
	"slices"

	"github.com/hallway-home/hallway/devices"
)

const (
	// bucketBeside holds the edits that the last checkpoint did not know, for people to read.
	bucketBeside = "beside"
	// maxBeside bounds them: more no person does again.
	maxBeside = 32
)

// length counts edits without the pieces of the checkpoint.
func (l *Log) length() int {
	if l.base == nil {
		return len(l.edits)
	}
	return len(l.edits) - len(l.base.pieces)
}

// learnAll makes the signers of a history.
func learnAll(b *base, edits map[Hash]*parsed) signers {
	s := newSigners()
	if b != nil {
		s.owners[devices.NodeIDOf(b.root)] = b.root
		for _, m := range b.state.Members {
			id := nodeOf(m.Key)
			s.keys[id] = m.Key
			if m.Role == devices.RoleOwner {
				s.owner(id)
			}
		}
	}
	for range 2 { // the key of a device may come after the edit that makes it an owner
		for _, p := range edits {
			s.learn(p)
		}
	}
	return s
}

// proposals are those that an edit may still name.
func proposals(b *base, edits map[Hash]*parsed) map[Hash]*parsed {
	out := map[Hash]*parsed{}
	if b != nil {
		maps.Copy(out, b.proposals)
	}
	for h, p := range edits {
		if p.edit.Op == OpPropose {
			out[h] = p
		}
	}
	return out
}

// piece holds a piece of a checkpoint until all have come. Only the recovery code makes
// them, so a bound on their number is all that is needed.
func (l *Log) piece(p *parsed, s *sifter) {
	if l.base != nil && l.base.last.edit.beats(p.edit) {
		return
	}
	if _, err := pieceRoot(p); err != nil {
		s.refuse(err)
		return
	}
	if len(l.pieces) >= 2*MaxPieces {
		clear(l.pieces)
	}
	l.pieces[p.hash] = p
}

// startAt lets edits stand on a checkpoint instead of on what was stored.
func (s *sifter) startAt(b *base) {
	s.have, s.signers, s.room, s.take = map[Hash]*parsed{}, learnAll(b, nil), MaxEdits, slices.Clone(b.pieces)
	s.have[b.last.hash] = b.last
}

// lost lists the edits here of which a new checkpoint does not know. Who was behind the checkpoint cannot
// tell, and lists none. Of two checkpoints at once the one that yields is listed too: it
// stood for edits that are not here any more.
func (l *Log) lost(b *base, all map[Hash]*parsed) []*parsed {
	if b == l.base {
		return nil
	}
	atOnce := l.base != nil && b.last.edit.Number <= l.base.last.edit.Number
	knew := map[Hash]bool{}
	for todo := slices.Clone(b.state.Heads); len(todo) > 0; {
		h := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		p := l.edits[h]
		if p == nil && !atOnce && slices.Contains(b.state.Heads, h) {
			return nil
		}
		if p != nil && !knew[h] {
			knew[h] = true
			todo = append(todo, p.edit.Parents...)
		}
	}
	var out []*parsed
	for h, p := range l.edits {
		plain := p.edit.Op != OpMerge && p.edit.Op != OpCheckpoint
		if !knew[h] && all[h] == nil && (plain || atOnce && p == l.base.last) {
			out = append(out, p)
		}
	}
	slices.SortFunc(out, func(a, b *parsed) int { return compareHash(a.hash, b.hash) })
	return out[:min(len(out), maxBeside)]
}

// compact drops from the store what is not in all, and what is known of its proposals.
func (l *Log) compact(tx devices.Tx, all map[Hash]*parsed, beside []*parsed) error {
	for h := range l.edits {
		if all[h] != nil {
			continue
		}
		if err := tx.Delete(devices.BucketRoster, hex.EncodeToString(h[:])); err != nil {
			return err
		}
	}
	open := proposals(findBase(all), all)
	for h := range l.seen {
		if open[h] != nil {
			continue
		}
		if err := tx.Delete(devices.BucketNode, seenKey(h)); err != nil {
			return err
		}
	}
	for _, p := range l.beside {
		if err := tx.Delete(bucketBeside, hex.EncodeToString(p.hash[:])); err != nil {
			return err
		}
	}
	for _, p := range beside {
		val, err := encMode.Marshal(p.signed())
		if err != nil {
			return err
		}
		if err := tx.Put(bucketBeside, hex.EncodeToString(p.hash[:]), val); err != nil {
			return err
		}
	}
	return nil
}

func (l *Log) loadBeside(tx devices.Tx) error {
	return tx.Each(bucketBeside, func(_ string, val []byte) error {
		var e SignedEdit
		if err := decMode.Unmarshal(val, &e); err != nil {
			return err
		}
		p, err := parse(e)
		l.beside = append(l.beside, p)
		return err
	})
}
