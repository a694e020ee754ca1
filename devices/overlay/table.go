package overlay

import (
	"crypto/ecdsa"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/hallway-home/hallway/devices"
)

// markerFor bounds how long an expired record is remembered as such: afterwards a peer
// that was away so long may bring it back for one more of its times.
const markerFor = 24 * time.Hour

// table holds the verified records of the home: registers in memory and in the store,
// log entries in the store with their hashes in memory.
type table struct {
	store  *devices.Store
	log    *slog.Logger
	roster func() *devices.Roster
	self   devices.NodeID

	mu      sync.Mutex
	records map[recordKey]stored
	logs    map[devices.NodeID]*writerLog
	rates   map[devices.NodeID]*writerRate
	said    map[recordKey]Record    // what this node wrote since it started
	flagged map[devices.NodeID]bool // writers caught in equivocation
	left    []string                // keys in the store whose writers do not belong: a crash came before forget
	redone  map[[32]byte]bool       // own log entries that were written anew under another number
	dirty   map[recordKey]bool      // others' records that are not on disk yet
	disk    wake                    // told that something is dirty
}

// writerRate bounds how fast one writer may change things.
type writerRate struct{ registers, entries bucket }

func openTable(store *devices.Store, self devices.NodeID, roster func() *devices.Roster, log *slog.Logger) (*table, error) {
	t := &table{
		store: store, log: log, roster: roster, self: self,
		records: map[recordKey]stored{}, logs: map[devices.NodeID]*writerLog{}, rates: map[devices.NodeID]*writerRate{},
		said: map[recordKey]Record{}, flagged: map[devices.NodeID]bool{}, redone: map[[32]byte]bool{}, dirty: map[recordKey]bool{}, disk: newWake(),
	}
	now := time.Now()
	err := store.View(func(tx devices.Tx) error {
		return tx.Each(devices.BucketRecords, func(key string, val []byte) error {
			var s Signed
			if err := decMode.Unmarshal(val, &s); err != nil {
				return fmt.Errorf("a stored record is damaged: %w", err)
			}
			switch r, err := openRecord(s, roster()); {
			case err == nil:
				t.records[r.key()] = newStored(r, s, now)
			case errors.Is(err, ErrRecordWriter):
				t.left = append(t.left, key)
			}
			return nil
		})
	})
	if err != nil {
		return t, err
	}
	return t, t.openLogs()
}

// errStale says that a record brought nothing new; it is no fault of the sender.
var errStale = errors.New("known already")

// accept verifies a record from a peer and takes it if it is newer. Others' records
// reach the disk with the next flush; what a crash loses there, a digest brings back.
// When it is our own record, newer than we remember, our store lost its tail: lost then
// holds what this node has to say, which is what it said since its start, or else the
// record.
func (t *table) accept(s Signed) (r Record, lost *Record, err error) {
	r, err = parseRecord(s)
	if err != nil {
		return r, nil, err
	}
	roster := t.roster()
	if err := mayWrite(r, roster); err != nil {
		return r, nil, err
	}
	if r.Shape != ShapeRegister {
		return r, nil, ErrRecordForm
	}
	now := time.Now()
	next := newStored(r, s, now)
	t.mu.Lock()
	defer t.mu.Unlock()
	old, have := t.records[r.key()]
	if have {
		// Before the signature is checked: a copy of what is here costs nothing.
		if v, take := compare(old, next); !take && v != equivocation {
			return r, nil, errStale
		}
	}
	if err := verifyRecord(r, s, roster); err != nil {
		return r, nil, err
	}
	if have {
		v, take := compare(old, next)
		if v == equivocation {
			t.flag(r.Writer)
		}
		if !take {
			return r, nil, errStale
		}
	} else if t.full(r.Writer) {
		return r, nil, ErrRecordKeys
	}
	if r.Writer == t.self {
		lost = &r
		if said, ok := t.said[r.key()]; ok {
			lost = &said
		}
		return r, lost, t.put("record.put", next)
	}
	if rate := t.rateOf(r.Writer, now); !rate.registers.allow(now) {
		return r, nil, ErrRecordRate
	}
	t.records[r.key()] = next
	t.dirty[r.key()] = true
	t.disk.look()
	return r, nil, nil
}

func (t *table) rateOf(writer devices.NodeID, now time.Time) *writerRate {
	r, ok := t.rates[writer]
	if !ok {
		r = &writerRate{newBucket(changesPerSecond, registerBurst, now), newBucket(changesPerSecond, entryBurst, now)}
		t.rates[writer] = r
	}
	return r
}

func (t *table) flag(writer devices.NodeID) {
	if !t.flagged[writer] {
		t.log.Warn("a member said two things under one number; it may be faulty or taken over", "writer", writer)
	}
	t.flagged[writer] = true
}

// full reports whether a writer has as many registers as it may; an expired one makes
// room.
func (t *table) full(writer devices.NodeID) bool {
	n := 0
	var marker *recordKey
	for k, s := range t.records {
		if k.writer == writer {
			n++
			if s.expired {
				marker = &k
			}
		}
	}
	if n >= MaxKeysPerWriter && marker != nil {
		delete(t.records, *marker)
		n--
	}
	return n >= MaxKeysPerWriter
}

// put stores durably, then in memory; mu is held.
func (t *table) put(point string, s stored) error {
	val, err := marshal(s.signed)
	if err != nil {
		return err
	}
	err = t.store.Update(point, func(tx devices.Tx) error {
		return tx.Put(devices.BucketRecords, s.rec.key().String(), val)
	})
	if err != nil {
		return err
	}
	t.records[s.rec.key()] = s
	delete(t.dirty, s.rec.key())
	return nil
}

// flush brings others' records to disk, all in one transaction.
func (t *table) flush() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.dirty) == 0 {
		return nil
	}
	err := t.store.Update("record.put", func(tx devices.Tx) error {
		for k := range t.dirty {
			s, ok := t.records[k]
			if !ok || s.expired {
				if err := tx.Delete(devices.BucketRecords, k.String()); err != nil {
					return err
				}
				continue
			}
			val, err := marshal(s.signed)
			if err != nil {
				return err
			}
			if err := tx.Put(devices.BucketRecords, k.String(), val); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		t.dirty = map[recordKey]bool{}
	}
	return err
}

// draft is what write makes a record of.
type draft struct {
	subject, kind string
	body          []byte
	ttl           uint32
	blobs         []BlobRef
	raiseEpoch    bool // start a new count after a lost tail
}

// write makes the next register of this node. It is durable before it is returned, so a
// number is never used twice.
func (t *table) write(key *ecdsa.PrivateKey, d draft) (stored, error) {
	roster := t.roster()
	if roster == nil {
		return stored{}, ErrRecordHome
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if d.subject == "" {
		d.subject = t.self.String()
	}
	r := Record{Version: 1, Home: roster.Home, Subject: d.subject, Kind: d.kind, Writer: t.self, Epoch: 1, Sequence: 1, TTL: d.ttl, Body: d.body, Blobs: d.blobs}
	if len(roster.Heads) > 0 {
		r.Head = roster.Heads[0]
	}
	if old, ok := t.records[r.key()]; ok {
		r.Epoch, r.Sequence = old.rec.Epoch, old.rec.Sequence+1
		if d.raiseEpoch || old.rec.Sequence == math.MaxUint64 {
			r.Epoch, r.Sequence = r.Epoch+1, 1
		}
	} else if t.full(t.self) {
		return stored{}, fmt.Errorf("%w; use a kind it has", ErrRecordKeys)
	}
	signed, err := sealRecord(key, r)
	if err != nil {
		return stored{}, err
	}
	if _, err := openRecord(signed, roster); err != nil { // nobody else would take it
		return stored{}, err
	}
	s := newStored(r, signed, time.Now())
	if err := t.put("record.write", s); err != nil {
		return stored{}, err
	}
	if !d.raiseEpoch {
		t.said[r.key()] = r
	}
	return s, nil
}

// all lists the registers of living members, tombstones and expired ones included.
func (t *table) all() []stored {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Collect(maps.Values(t.records))
}

// expire takes records whose time is over out of the table and the store, and returns
// them. Own ones are returned only: their writer retracts them, so that the sequence
// stays known.
func (t *table) expire(now time.Time) []Record {
	t.mu.Lock()
	defer t.mu.Unlock()
	var out []Record
	for k, s := range t.records {
		switch {
		case s.until.IsZero() || now.Before(s.until):
		case s.expired && now.Sub(s.until) > markerFor:
			delete(t.records, k)
		case !s.expired:
			out = append(out, s.rec)
			if k.writer != t.self {
				s.expired = true
				t.records[k] = s
				t.dirty[k] = true
			}
		}
	}
	if len(out) > 0 {
		t.disk.look()
	}
	return out
}

// forget drops the records and logs of writers who no longer belong, and what the roster
// no longer lets them say.
func (t *table) forget() error {
	roster := t.roster()
	t.mu.Lock()
	defer t.mu.Unlock()
	var gone []recordKey
	keys := t.left
	for k, s := range t.records {
		if mayWrite(s.rec, roster) != nil {
			gone, keys = append(gone, k), append(keys, k.String())
		}
	}
	var logs []devices.NodeID
	for w := range t.logs {
		if !roster.Has(w) {
			logs = append(logs, w)
		}
	}
	if len(keys)+len(logs) == 0 {
		return nil
	}
	err := t.store.Update("record.forget", func(tx devices.Tx) error {
		for _, k := range keys {
			if err := tx.Delete(devices.BucketRecords, k); err != nil {
				return err
			}
		}
		for _, w := range logs {
			for i := range t.logs[w].hashes {
				if err := tx.Delete(bucketLog, entryKey(w, t.logs[w].first+uint64(i))); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err == nil {
		t.left = nil
		for _, k := range gone {
			delete(t.records, k)
			delete(t.dirty, k)
		}
		for _, w := range logs {
			delete(t.logs, w)
			delete(t.rates, w)
		}
	}
	return err
}
