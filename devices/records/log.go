package records

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/hallway-home/hallway/devices"
)

const (
	// MaxEntries bounds the log of one writer; the oldest entries fall off.
	MaxEntries = 500
	// bucketLog holds log entries by writer and sequence.
	bucketLog = "log"
	// logBlock is how many entries one hash in a digest stands for.
	logBlock = 64
)

// writerLog is what memory knows of one writer's log: it has no gaps.
type writerLog struct {
	epoch  uint64     // the highest seen
	first  uint64     // sequence of the first entry held
	hashes [][32]byte // of the entries first, first+1, ...
	tip    uint64     // the highest sequence that the writer is known to have signed

	refs map[uint64][]BlobRef // of the entries that have some, by sequence
}

func (l *writerLog) last() uint64 { return l.first + uint64(len(l.hashes)) - 1 }

func (l *writerLog) clone() *writerLog {
	c := *l
	c.hashes, c.refs = slices.Clone(l.hashes), maps.Clone(l.refs)
	return &c
}

func (l *writerLog) refer(r Record) {
	if len(r.Blobs) > 0 && l.refs == nil {
		l.refs = map[uint64][]BlobRef{}
	}
	if len(r.Blobs) > 0 {
		l.refs[r.Sequence] = r.Blobs
	} else {
		delete(l.refs, r.Sequence)
	}
}

// floor: everything below has fallen off the log of a writer who signed tip.
func floor(tip uint64) uint64 {
	if tip <= MaxEntries {
		return 1
	}
	return tip - MaxEntries + 1
}

func entryKey(w devices.NodeID, seq uint64) string { return fmt.Sprintf("%s/%016x", w, seq) }

// openLogs reads the logs; what hangs behind a gap is left out.
func (t *Table) openLogs() error {
	return t.cfg.Store.View(func(tx devices.Tx) error {
		return tx.Each(bucketLog, func(_ string, val []byte) error {
			var s Signed
			if err := Unmarshal(val, &s); err != nil {
				return fmt.Errorf("a stored log entry is damaged: %w", err)
			}
			r, err := parse(s)
			if err == nil {
				err = mayWrite(r, t.cfg.Roster())
			}
			if err != nil { // of a removed member, or of a later version
				t.cfg.Logger.Debug("left out a stored log entry", "err", err)
				return nil
			}
			l := t.logs[r.Writer]
			if l == nil {
				l = &writerLog{first: r.Sequence}
				t.logs[r.Writer] = l
			}
			if r.Sequence == l.last()+1 {
				l.hashes = append(l.hashes, s.hash())
				l.epoch, l.tip = max(l.epoch, r.Epoch), r.Sequence
				l.refer(r)
			}
			return nil
		})
	})
}

// logTx is one change of logs: memory follows when the disk has it. Table.writing is held
// from its begin to its commit, so no other changes them meanwhile.
type logTx struct {
	t    *Table
	logs map[devices.NodeID]*writerLog
	put  map[string][]byte // nil deletes
}

func (t *Table) beginLog() *logTx {
	return &logTx{t: t, logs: map[devices.NodeID]*writerLog{}, put: map[string][]byte{}}
}

func (x *logTx) of(w devices.NodeID) *writerLog {
	if x.logs[w] == nil {
		x.t.mu.Lock()
		old := x.t.logs[w]
		x.t.mu.Unlock()
		if old == nil {
			old = &writerLog{first: 1}
		}
		x.logs[w] = old.clone()
	}
	return x.logs[w]
}

func (x *logTx) get(w devices.NodeID, seq uint64) (Signed, Record, error) {
	var s Signed
	val, ok := x.put[entryKey(w, seq)]
	err := error(nil)
	if !ok {
		err = x.t.cfg.Store.View(func(tx devices.Tx) error { val = tx.Get(bucketLog, entryKey(w, seq)); return nil })
	}
	if err == nil {
		err = Unmarshal(val, &s)
	}
	if err != nil {
		return s, Record{}, err
	}
	r, err := parse(s)
	return s, r, err
}

// set stores an entry at its place: at the end, or in place of another.
func (x *logTx) set(r Record, s Signed) error {
	val, err := Marshal(s)
	if err != nil {
		return err
	}
	l := x.of(r.Writer)
	x.put[entryKey(r.Writer, r.Sequence)] = val
	if r.Sequence <= l.last() {
		l.hashes[r.Sequence-l.first] = s.hash()
	} else {
		l.hashes = append(l.hashes, s.hash())
	}
	l.epoch, l.tip = max(l.epoch, r.Epoch), max(l.tip, r.Sequence)
	l.refer(r)
	for len(l.hashes) > MaxEntries {
		x.dropFirst(r.Writer)
	}
	return nil
}

func (x *logTx) dropFirst(w devices.NodeID) {
	l := x.of(w)
	x.put[entryKey(w, l.first)] = nil
	delete(l.refs, l.first)
	l.first++
	l.hashes = l.hashes[1:]
}

func (x *logTx) commit(point string) error {
	if len(x.put) > 0 {
		err := x.t.cfg.Store.Update(point, func(tx devices.Tx) error {
			for k, v := range x.put {
				var err error
				if v == nil {
					err = tx.Delete(bucketLog, k)
				} else {
					err = tx.Put(bucketLog, k, v)
				}
				if err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	x.t.mu.Lock()
	defer x.t.mu.Unlock()
	maps.Copy(x.t.logs, x.logs)
	x.t.sums = nil
	return nil
}

// takeEntries takes log entries in their order, in one transaction. Of its own ones this
// node says those again that gave way to what it had said under the same number before
// its store lost its tail.
func (t *Table) takeEntries(list []Proven, roster *devices.Roster, out *Taken) {
	t.writing.Lock()
	defer t.writing.Unlock()
	x := t.beginLog()
	var taken []Proven
	var lost []Record
	var from uint64 // where the first of ours gave way to one from before
	var fault error
	for _, p := range list {
		gave, err := x.accept(p, roster)
		if gave != nil {
			lost = append(lost, *gave)
		}
		switch {
		case err == nil:
			taken = append(taken, p)
			if gave != nil && (from == 0 || gave.Sequence < from) {
				from = gave.Sequence
			}
		case err != errStale && fault == nil: //nolint:errorlint // never wrapped
			fault = err
		}
	}
	if err := x.commit("log.put"); err != nil {
		out.refuse(err)
		return
	}
	if fault != nil { // one for all: who passes a writer's flood on did not make it
		out.refuse(fault)
	}
	out.New = append(out.New, taken...)
	if len(lost) == 0 {
		return
	}
	var err error
	if out.Renewed, err = t.again(lost, from, roster); err != nil {
		t.cfg.Logger.Error("cannot renew own log entries", "err", err)
	}
}

// again says own entries that gave way anew, under the next epoch; writing is held. What was
// said after the first of them, at from, moves behind it, so that the order stays; 0: nothing moves.
func (t *Table) again(lost []Record, from uint64, roster *devices.Roster) ([]Proven, error) {
	x := t.beginLog()
	l := x.of(t.self)
	seq := l.last() + 1
	if from > 0 {
		seq = from + 1
		for n := seq; n <= l.last(); n++ {
			s, r, err := x.get(t.self, n)
			if err != nil {
				return nil, err
			}
			t.redone[s.hash()] = true
			lost = append(lost, r)
		}
	}
	slices.SortStableFunc(lost, func(a, b Record) int { return cmp.Compare(a.Sequence, b.Sequence) })
	epoch := max(1, l.epoch) + 1
	var out []Proven
	for i, r := range lost {
		p, err := x.say(Record{Kind: r.Kind, Body: r.Body, Blobs: r.Blobs}, epoch, seq+uint64(i), roster) //nolint:gosec // an index
		if err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	if err := x.commit("log.append"); err != nil {
		return nil, err
	}
	for _, p := range out {
		t.publish(p.Record)
	}
	return out, nil
}

func (x *logTx) accept(p Proven, roster *devices.Roster) (lost *Record, err error) {
	r, s := p.Record, p.Signed
	l := x.of(r.Writer)
	held := r.Sequence >= l.first && r.Sequence <= l.last()
	if r.Sequence < l.first || held && l.hashes[r.Sequence-l.first] == s.hash() {
		return nil, errStale
	}
	if err := verify(r, s, roster); err != nil {
		return nil, err
	}
	if held {
		return x.settle(r, s)
	}
	l.tip = max(l.tip, r.Sequence)
	if r.Sequence != l.last()+1 && r.Sequence > floor(l.tip) {
		return nil, errStale // a gap: the digest brings what is between
	}
	if r.Writer != x.t.self && !x.t.mayAdd(r.Writer) {
		return nil, ErrRate
	}
	if r.Sequence != l.last()+1 { // what is between has fallen off at the writer
		for len(l.hashes) > 0 {
			x.dropFirst(r.Writer)
		}
		l.first = r.Sequence
	}
	return nil, x.set(r, s)
}

// mayAdd takes a token for one entry of a writer.
func (t *Table) mayAdd(w devices.NodeID) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.rateOf(w).entries.AllowN(time.Now(), 1)
}

// settle decides between two entries of one number: the higher epoch, then the lower
// hash. lost is our own entry that gave way, the first time that it does; there are at
// most as many as this key ever signed.
func (x *logTx) settle(r Record, s Signed) (lost *Record, err error) {
	was, old, err := x.get(r.Writer, r.Sequence)
	if err != nil {
		return nil, err
	}
	if r.Epoch == old.Epoch {
		x.t.mu.Lock()
		x.t.flag(r.Writer)
		x.t.mu.Unlock()
	}
	ours, theirs := was.hash(), s.hash()
	if cmp.Or(cmp.Compare(old.Epoch, r.Epoch), bytes.Compare(theirs[:], ours[:])) >= 0 {
		if r.Writer == x.t.self && !x.t.redone[theirs] {
			x.t.redone[theirs] = true
			return &r, errStale
		}
		return nil, errStale
	}
	if r.Writer == x.t.self && !x.t.redone[ours] {
		x.t.redone[ours] = true
		lost = &old
	}
	return lost, x.set(r, s)
}

// Append adds an entry to this node's log, which all members hold: the last 500 entries
// of each writer, in order and without gaps. It is durable when it is returned.
func (t *Table) Append(kind string, body any, blobs ...BlobRef) (Proven, error) {
	raw, err := Marshal(body)
	if err != nil {
		return Proven{}, err
	}
	t.writing.Lock()
	defer t.writing.Unlock()
	x := t.beginLog()
	l := x.of(t.self)
	p, err := x.say(Record{Kind: kind, Body: raw, Blobs: blobs}, max(1, l.epoch), l.last()+1, t.cfg.Roster())
	if err != nil {
		return p, err
	}
	if err := x.commit("log.append"); err != nil {
		return p, err
	}
	t.publish(p.Record)
	return p, nil
}

// say completes and signs an entry of this node, and puts it into its place.
func (x *logTx) say(r Record, epoch, seq uint64, roster *devices.Roster) (Proven, error) {
	if err := x.t.begin(&r, roster); err != nil {
		return Proven{}, err
	}
	r.Shape, r.Subject, r.Epoch, r.Sequence = ShapeLog, x.t.self.String(), epoch, seq
	p, err := x.t.seal(r, roster)
	if err != nil {
		return p, err
	}
	return p, x.set(p.Record, p.Signed)
}

// Entries lists the log entries of all members, by writer and in each writer's order;
// kind "" means all kinds. It reads the disk.
func (t *Table) Entries(kind string) ([]Record, error) {
	var out []Record
	roster := t.cfg.Roster()
	err := t.cfg.Store.View(func(tx devices.Tx) error {
		return tx.Each(bucketLog, func(_ string, val []byte) error {
			var s Signed
			if err := Unmarshal(val, &s); err != nil {
				return err
			}
			r, err := parse(s)
			if err == nil && roster.Has(r.Writer) && (kind == "" || r.Kind == kind) {
				out = append(out, r)
			}
			return nil
		})
	})
	return out, err
}

// span reads the entries from first to last of a writer, as many as fit the budget.
func (t *Table) span(w devices.NodeID, first, last uint64, budget *int) (out []Signed, all bool) {
	err := t.cfg.Store.View(func(tx devices.Tx) error {
		for seq := first; seq <= last; seq++ { // sequences of logs end far below 2^64
			var s Signed
			val := tx.Get(bucketLog, entryKey(w, seq))
			if val == nil || Unmarshal(val, &s) != nil {
				continue
			}
			if *budget -= len(val); *budget < 0 {
				return nil
			}
			out = append(out, s)
		}
		all = true
		return nil
	})
	return out, all && err == nil
}
