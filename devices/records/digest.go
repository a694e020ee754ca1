package records

import (
	"cmp"
	"encoding/binary"
	"slices"

	"github.com/hallway-home/hallway/devices"
)

// Sum stands for everything that a node has of one writer. Sums are the first of the three
// steps in which two nodes come together; equal nodes exchange them alone.
type Sum struct {
	_      struct{} `cbor:",toarray"`
	Writer devices.NodeID
	Sum    [8]byte
}

// State says which registers and entries of one writer a node has: the second step, for
// the writers whose sums differ.
type State struct {
	_         struct{} `cbor:",toarray"`
	Writer    devices.NodeID
	Registers []RegisterState
	First     uint64    // of the log; the last is First + Count - 1
	Count     uint64    // at most MaxEntries
	Blocks    [][8]byte // one for each logBlock sequences, the first and last ones partly filled
}

// RegisterState is one register of a State.
type RegisterState struct {
	_        struct{} `cbor:",toarray"`
	Kind     string
	Subject  string
	Epoch    uint64
	Sequence uint64
	Hash     [8]byte
}

// Size is about what a State takes on the wire, in bytes.
func (w State) Size() int {
	n := 48 + 9*len(w.Blocks)
	for _, r := range w.Registers {
		n += 32 + len(r.Kind) + len(r.Subject)
	}
	return n
}

// mix folds a hash into a sum in which the order does not matter.
func mix(sum *[8]byte, hash []byte) {
	binary.BigEndian.PutUint64(sum[:], binary.BigEndian.Uint64(sum[:])+binary.BigEndian.Uint64(hash[:8]))
}

// Sums is one line for each writer, in the order of their IDs. The caller must not change
// it.
func (t *Table) Sums() []Sum {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.sums == nil {
		t.sums = t.sum()
	}
	return t.sums
}

// sum works the sums out; mu is held.
func (t *Table) sum() []Sum {
	by := map[devices.NodeID]*[8]byte{}
	at := func(w devices.NodeID) *[8]byte {
		if by[w] == nil {
			by[w] = &[8]byte{}
		}
		return by[w]
	}
	for k, s := range t.records {
		mix(at(k.writer), s.hash[:])
	}
	for w, l := range t.logs {
		for _, h := range l.hashes {
			mix(at(w), h[:])
		}
	}
	out := make([]Sum, 0, len(by))
	for w, sum := range by {
		out = append(out, Sum{Writer: w, Sum: *sum})
	}
	slices.SortFunc(out, func(a, b Sum) int { return slices.Compare(a.Writer[:], b.Writer[:]) })
	return out
}

// Differing lists the writers of whom the peer has something else than we.
func (t *Table) Differing(theirs []Sum) []devices.NodeID {
	sums := t.Sums()
	if slices.Equal(sums, theirs) { // as most often
		return nil
	}
	ours := make(map[devices.NodeID][8]byte, len(sums))
	for _, s := range sums {
		ours[s.Writer] = s.Sum
	}
	roster := t.cfg.Roster()
	var out []devices.NodeID
	for _, s := range theirs {
		sum, ok := ours[s.Writer]
		delete(ours, s.Writer)
		if (!ok || sum != s.Sum) && roster.Has(s.Writer) { // of strangers nothing is wanted
			out = append(out, s.Writer)
		}
	}
	for w := range ours {
		out = append(out, w)
	}
	return out
}

// State describes what is here of the writers.
func (t *Table) State(writers []devices.NodeID) []State {
	t.mu.Lock()
	defer t.mu.Unlock()
	by := map[devices.NodeID]*State{}
	for _, w := range writers {
		st := &State{Writer: w}
		if l := t.logs[w]; l != nil && len(l.hashes) > 0 {
			st.First, st.Count, st.Blocks = l.first, uint64(len(l.hashes)), l.blocks()
		}
		by[w] = st
	}
	for k, s := range t.records {
		if st := by[k.writer]; st != nil {
			st.Registers = append(st.Registers, RegisterState{Kind: k.kind, Subject: k.subject, Epoch: s.rec.Epoch, Sequence: s.rec.Sequence, Hash: [8]byte(s.hash[:8])})
		}
	}
	out := make([]State, 0, len(by))
	for _, st := range by {
		out = append(out, *st)
	}
	return out
}

// blocks sums the hashes of each logBlock sequences.
func (l *writerLog) blocks() [][8]byte {
	var out [][8]byte
	for i, h := range l.hashes {
		b := int((l.first+uint64(i))/logBlock - l.first/logBlock)
		for len(out) <= b {
			out = append(out, [8]byte{})
		}
		mix(&out[b], h[:])
	}
	return out
}

// Reply answers a peer's State: the third step.
type Reply struct {
	Registers []Signed
	Entries   []Signed
	Ask       []devices.NodeID // writers of whom the peer has more
	More      bool             // the budget did not suffice
}

// Lacking compares a peer's state of some writers with what is here, and gives what it
// lacks: at most budget bytes.
func (t *Table) Lacking(theirs []State, budget int) Reply {
	var out Reply
	for _, st := range theirs {
		ask := t.lackingRegisters(st, &out, &budget)
		if t.lackingEntries(st, &out, &budget) || ask {
			out.Ask = append(out.Ask, st.Writer)
		}
	}
	return out
}

func (t *Table) lackingRegisters(st State, out *Reply, budget *int) (theyHaveMore bool) {
	have := map[registerKey]RegisterState{}
	for _, r := range st.Registers {
		have[registerKey{st.Writer, r.Subject, r.Kind}] = r
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for k, s := range t.records {
		if k.writer != st.Writer {
			continue
		}
		d, ok := have[k]
		delete(have, k)
		order := cmp.Or(cmp.Compare(s.rec.Epoch, d.Epoch), cmp.Compare(s.rec.Sequence, d.Sequence))
		switch {
		case !ok || order > 0 || order == 0 && [8]byte(s.hash[:8]) != d.Hash:
			if s.expired {
				continue // it must not live on at others
			}
			if *budget -= len(s.signed.Raw) + len(s.signed.Sig); *budget < 0 {
				out.More = true
				continue
			}
			out.Registers = append(out.Registers, s.signed)
		case order < 0:
			theyHaveMore = true
		}
	}
	return theyHaveMore || len(have) > 0
}

func (t *Table) lackingEntries(st State, out *Reply, budget *int) (theyHaveMore bool) {
	t.mu.Lock()
	l := t.logs[st.Writer]
	if l != nil {
		l = l.clone()
	}
	t.mu.Unlock()
	if st.Count > MaxEntries || st.First > 1<<62 {
		return false
	}
	if l == nil || len(l.hashes) == 0 {
		return st.Count > 0
	}
	last := uint64(0)
	if st.Count > 0 {
		last = st.First + st.Count - 1
	}
	for _, b := range l.differingBlocks(st, last) {
		out.add(t, st.Writer, b[0], b[1], budget)
	}
	if last < l.last() {
		first := max(last+1, l.first)
		if first > last+1 { // proof that what is between has fallen off
			out.add(t, st.Writer, l.last(), l.last(), budget)
		}
		out.add(t, st.Writer, first, l.last(), budget)
	}
	return last > l.last()
}

func (r *Reply) add(t *Table, w devices.NodeID, first, last uint64, budget *int) {
	list, all := t.span(w, first, last, budget)
	r.Entries = append(r.Entries, list...)
	r.More = r.More || !all
}

// differingBlocks lists the ranges in which both hold the same numbers with other
// contents, which takes a writer who said two things under one number.
func (l *writerLog) differingBlocks(st State, last uint64) (out [][2]uint64) {
	if st.Count == 0 {
		return nil
	}
	for i, sum := range l.blocks() {
		block := l.first/logBlock + uint64(i)
		at := block - st.First/logBlock
		if block < st.First/logBlock || at >= uint64(len(st.Blocks)) || st.Blocks[at] == sum {
			continue
		}
		from, to := max(l.first, block*logBlock), min(l.last(), block*logBlock+logBlock-1)
		if from == max(st.First, block*logBlock) && to == min(last, block*logBlock+logBlock-1) {
			out = append(out, [2]uint64{from, to})
		}
	}
	return out
}
