package overlay

import (
	"bytes"
	"cmp"
	"crypto/ecdsa"
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
func (t *table) openLogs() error {
	return t.store.View(func(tx devices.Tx) error {
		return tx.Each(bucketLog, func(_ string, val []byte) error {
			var s Signed
			if err := decMode.Unmarshal(val, &s); err != nil {
				return fmt.Errorf("a stored log entry is damaged: %w", err)
			}
			r, err := parseRecord(s)
			if err == nil {
				err = mayWrite(r, t.roster())
			}
			if err != nil { // of a removed member, or of a later version
				t.log.Debug("left out a stored log entry", "err", err)
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

// logTx is one change of logs: memory follows when the disk has it.
type logTx struct {
	t    *table
	logs map[devices.NodeID]*writerLog
	put  map[string][]byte // nil deletes
}

func (t *table) beginLog() *logTx {
	return &logTx{t: t, logs: map[devices.NodeID]*writerLog{}, put: map[string][]byte{}}
}

func (x *logTx) of(w devices.NodeID) *writerLog {
	if x.logs[w] == nil {
		if old := x.t.logs[w]; old != nil {
			x.logs[w] = old.clone()
		} else {
			x.logs[w] = &writerLog{first: 1}
		}
	}
	return x.logs[w]
}

func (x *logTx) get(w devices.NodeID, seq uint64) (Signed, Record, error) {
	var s Signed
	val, ok := x.put[entryKey(w, seq)]
	err := error(nil)
	if !ok {
		err = x.t.store.View(func(tx devices.Tx) error { val = tx.Get(bucketLog, entryKey(w, seq)); return nil })
	}
	if err == nil {
		err = decMode.Unmarshal(val, &s)
	}
	if err != nil {
		return s, Record{}, err
	}
	r, err := parseRecord(s)
	return s, r, err
}

// set stores an entry at its place: at the end, or in place of another.
func (x *logTx) set(r Record, s Signed) error {
	val, err := marshal(s)
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
		err := x.t.store.Update(point, func(tx devices.Tx) error {
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
	for w, l := range x.logs {
		x.t.logs[w] = l
	}
	return nil
}

// acceptLog takes the entries of one frame, in their order. taken are those that were
// new; redo are own ones that gave way to what we had said under the same number before
// our store lost its tail. The first fault is returned beside what was good.
func (t *table) acceptLog(list []Signed) (taken []Signed, records, redo []Record, fault error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	x := t.beginLog()
	for _, s := range list {
		r, lost, err := x.accept(s, t.roster())
		if lost != nil {
			redo = append(redo, *lost)
		}
		switch {
		case err == nil:
			taken, records = append(taken, s), append(records, r)
		case err != errStale && fault == nil: //nolint:errorlint // never wrapped
			fault = err
		}
	}
	if err := x.commit("log.put"); err != nil {
		return nil, nil, nil, err
	}
	return taken, records, redo, fault
}

func (x *logTx) accept(s Signed, roster *devices.Roster) (r Record, lost *Record, err error) {
	if r, err = parseRecord(s); err != nil {
		return r, nil, err
	}
	if err := mayWrite(r, roster); err != nil {
		return r, nil, err
	}
	if r.Shape != ShapeLog {
		return r, nil, ErrRecordForm
	}
	l := x.of(r.Writer)
	held := r.Sequence >= l.first && r.Sequence <= l.last()
	if r.Sequence < l.first || held && l.hashes[r.Sequence-l.first] == s.hash() {
		return r, nil, errStale
	}
	if err := verifyRecord(r, s, roster); err != nil {
		return r, nil, err
	}
	if held {
		lost, err = x.settle(r, s)
		return r, lost, err
	}
	l.tip = max(l.tip, r.Sequence)
	if r.Sequence != l.last()+1 && r.Sequence > floor(l.tip) {
		return r, nil, errStale // a gap: the digest brings what is between
	}
	now := time.Now()
	if rate := x.t.rateOf(r.Writer, now); r.Writer != x.t.self && !rate.entries.allow(now) {
		return r, nil, ErrRecordRate
	}
	if r.Sequence != l.last()+1 { // what is between has fallen off at the writer
		for len(l.hashes) > 0 {
			x.dropFirst(r.Writer)
		}
		l.first = r.Sequence
	}
	return r, nil, x.set(r, s)
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
		x.t.flag(r.Writer)
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

// append makes the next entry of this node's log; durable before it is returned.
func (t *table) append(key *ecdsa.PrivateKey, d draft) (Record, Signed, error) {
	roster := t.roster()
	if roster == nil {
		return Record{}, Signed{}, ErrRecordHome
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	x := t.beginLog()
	l := x.of(t.self)
	r := Record{
		Version: 1, Home: roster.Home, Subject: t.self.String(), Kind: d.kind, Writer: t.self, Shape: ShapeLog,
		Epoch: max(1, l.epoch), Sequence: l.last() + 1, Body: d.body, Blobs: d.blobs,
	}
	if d.raiseEpoch {
		r.Epoch++
	}
	if len(roster.Heads) > 0 {
		r.Head = roster.Heads[0]
	}
	s, err := sealRecord(key, r)
	if err != nil {
		return r, s, err
	}
	if _, err := openRecord(s, roster); err != nil {
		return r, s, err
	}
	if err := x.set(r, s); err != nil {
		return r, s, err
	}
	return r, s, x.commit("log.append")
}

// entries lists log entries, by writer and then in order; kind "" means all.
func (t *table) entries(kind string) ([]Record, error) {
	var out []Record
	roster := t.roster()
	err := t.store.View(func(tx devices.Tx) error {
		return tx.Each(bucketLog, func(_ string, val []byte) error {
			var s Signed
			if err := decMode.Unmarshal(val, &s); err != nil {
				return err
			}
			r, err := parseRecord(s)
			if err == nil && roster.Has(r.Writer) && (kind == "" || r.Kind == kind) {
				out = append(out, r)
			}
			return nil
		})
	})
	return out, err
}

// span reads the entries from first to last of a writer, as many as fit the budget.
func (t *table) span(w devices.NodeID, first, last uint64, budget *int) (out []Signed, all bool) {
	err := t.store.View(func(tx devices.Tx) error {
		for seq := first; seq <= last; seq++ { // sequences of logs end far below 2^64
			var s Signed
			val := tx.Get(bucketLog, entryKey(w, seq))
			if val == nil || decMode.Unmarshal(val, &s) != nil {
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
