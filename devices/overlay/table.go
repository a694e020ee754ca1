package overlay

import (
	"crypto/ecdsa"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"

	"github.com/hallway-home/hallway/devices"
)

// table holds the verified records of the home, in memory and in the store.
type table struct {
	store  *devices.Store
	log    *slog.Logger
	roster func() *devices.Roster
	self   devices.NodeID

	mu      sync.Mutex
	records map[recordKey]stored
	said    map[recordKey][]byte    // bodies that this node wrote since it started
	flagged map[devices.NodeID]bool // writers caught in equivocation
	left    []string                // keys in the store whose writers do not belong: a crash came before forget
}

func openTable(store *devices.Store, self devices.NodeID, roster func() *devices.Roster, log *slog.Logger) (*table, error) {
	t := &table{
		store: store, log: log, roster: roster, self: self,
		records: map[recordKey]stored{}, said: map[recordKey][]byte{}, flagged: map[devices.NodeID]bool{},
	}
	err := store.View(func(tx devices.Tx) error {
		return tx.Each(devices.BucketRecords, func(key string, val []byte) error {
			var s Signed
			if err := decMode.Unmarshal(val, &s); err != nil {
				return fmt.Errorf("a stored record is damaged: %w", err)
			}
			switch r, err := openRecord(s, roster()); {
			case err == nil:
				t.records[r.key()] = stored{r, s}
			case errors.Is(err, ErrRecordWriter):
				t.left = append(t.left, key)
			}
			return nil
		})
	})
	return t, err
}

// errStale says that a record brought nothing new; it is no fault of the sender.
var errStale = errors.New("known already")

// accept verifies a record from a peer and stores it if it is newer. lostSequence is
// true when it is our own record, newer than we remember: our store lost its tail.
func (t *table) accept(s Signed) (r Record, lostSequence bool, err error) {
	r, err = openRecord(s, t.roster())
	if err != nil {
		return r, false, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	next := stored{r, s}
	old, have := t.records[r.key()]
	if have {
		v, take := compare(old, next)
		if v == equivocation {
			t.flagged[r.Writer] = true
			t.log.Warn("a member said two things under one number; it may be faulty or taken over", "writer", r.Writer)
		}
		if !take {
			return r, false, errStale
		}
	} else if t.countOf(r.Writer) >= MaxKeysPerWriter {
		return r, false, ErrRecordKeys
	}
	if err := t.put("record.put", next); err != nil {
		return r, false, err
	}
	return r, r.Writer == t.self, nil
}

func (t *table) countOf(writer devices.NodeID) int {
	n := 0
	for k := range t.records {
		if k.writer == writer {
			n++
		}
	}
	return n
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
	return nil
}

// write makes the next record of this node. It is durable before it is returned, so a
// number is never used twice. raiseEpoch starts a new count after a lost tail; what this
// node said since it started is then newer than body, which a peer remembered, whatever
// their numbers.
func (t *table) write(key *ecdsa.PrivateKey, kind string, body []byte, raiseEpoch bool) (stored, error) {
	roster := t.roster()
	if roster == nil {
		return stored{}, ErrRecordHome
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	r := Record{Version: 1, Home: roster.Home, Subject: t.self.String(), Kind: kind, Writer: t.self, Epoch: 1, Sequence: 1, Body: body}
	if len(roster.Heads) > 0 {
		r.Head = roster.Heads[0]
	}
	if old, ok := t.records[r.key()]; ok {
		r.Epoch, r.Sequence = old.rec.Epoch, old.rec.Sequence+1
		if raiseEpoch {
			r.Epoch, r.Sequence = r.Epoch+1, 1
			if said, ok := t.said[r.key()]; ok {
				r.Body = said
			}
		}
	}
	signed, err := sealRecord(key, r)
	if err != nil {
		return stored{}, err
	}
	s := stored{r, signed}
	if err := t.put("record.write", s); err != nil {
		return stored{}, err
	}
	if !raiseEpoch {
		t.said[r.key()] = body
	}
	return s, nil
}

// all lists the records of living members.
func (t *table) all() []stored {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Collect(maps.Values(t.records))
}

// forget drops the records of writers who no longer belong.
func (t *table) forget() error {
	roster := t.roster()
	t.mu.Lock()
	defer t.mu.Unlock()
	var gone []recordKey
	keys := t.left
	for k := range t.records {
		if !roster.Has(k.writer) {
			gone, keys = append(gone, k), append(keys, k.String())
		}
	}
	if len(keys) == 0 {
		return nil
	}
	err := t.store.Update("record.forget", func(tx devices.Tx) error {
		for _, k := range keys {
			if err := tx.Delete(devices.BucketRecords, k); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		t.left = nil
		for _, k := range gone {
			delete(t.records, k)
		}
	}
	return err
}

// digestEntry says which state of a record a node has.
type digestEntry struct {
	Key      string  `cbor:"1,keyasint"`
	Epoch    uint64  `cbor:"2,keyasint"`
	Sequence uint64  `cbor:"3,keyasint"`
	Hash     [8]byte `cbor:"4,keyasint"`
}

func (t *table) digest() []digestEntry {
	var out []digestEntry
	for _, s := range t.all() {
		h := s.signed.hash()
		out = append(out, digestEntry{s.rec.key().String(), s.rec.Epoch, s.rec.Sequence, [8]byte(h[:8])})
	}
	return out
}

// lacking compares a peer's digest with what is here: what the peer should be sent, and
// whether the peer has something newer.
func (t *table) lacking(theirs []digestEntry) (send []Signed, theyHaveMore bool) {
	have := map[string]digestEntry{}
	for _, d := range theirs {
		have[d.Key] = d
	}
	for _, s := range t.all() {
		k := s.rec.key().String()
		d, ok := have[k]
		delete(have, k)
		h := s.signed.hash()
		newer := s.rec.Epoch > d.Epoch || s.rec.Epoch == d.Epoch && s.rec.Sequence > d.Sequence
		same := ok && s.rec.Epoch == d.Epoch && s.rec.Sequence == d.Sequence
		switch {
		case !ok, newer, same && [8]byte(h[:8]) != d.Hash:
			send = append(send, s.signed)
		case !same:
			theyHaveMore = true
		}
	}
	return send, theyHaveMore || len(have) > 0
}
