package records

import (
	"cmp"
	"fmt"
	"math"
	"time"

	"github.com/hallway-home/hallway/devices"
)

// Statement is what Write says.
type Statement struct {
	Subject string        // empty: this node
	Kind    string        // names the register for this subject
	Body    any           // becomes deterministic CBOR; nil retracts
	TTL     time.Duration // whole seconds on each receiver's own clock; 0 = for ever
	Blobs   []BlobRef     // blobs that live at least as long as this
}

// Write makes a register of this node say something new. It is durable when it is
// returned, so a number is never used twice. A statement that the roster does not let
// this node make gives ErrWriter. A nil Body leaves a tombstone, which does not expire
// and goes on counting among the 32 records of this node.
func (t *Table) Write(s Statement) (Proven, error) {
	raw, err := Marshal(s.Body)
	if err != nil {
		return Proven{}, err
	}
	if s.TTL < 0 || s.TTL > math.MaxUint32*time.Second {
		return Proven{}, fmt.Errorf("%w: a time of %v", ErrForm, s.TTL)
	}
	t.writing.Lock()
	defer t.writing.Unlock()
	p, err := t.write(Record{
		Subject: cmp.Or(s.Subject, t.self.String()), Kind: s.Kind, Body: raw, TTL: uint32((s.TTL + time.Second - 1) / time.Second), Blobs: s.Blobs, //nolint:gosec // bounded above
	})
	if err == nil {
		t.said[p.Record.key()] = p.Record
	}
	return p, err
}

// write completes, signs and stores a register of this node; writing is held. A draft
// with an epoch answers a record of that epoch which came back: it starts the next.
func (t *Table) write(r Record) (Proven, error) {
	roster := t.cfg.Roster()
	if err := t.begin(&r, roster); err != nil {
		return Proven{}, err
	}
	t.mu.Lock()
	old, have := t.records[r.key()]
	full := !have && r.Epoch == 0 && t.full(t.self)
	t.mu.Unlock()
	switch {
	case full:
		return Proven{}, fmt.Errorf("%w; use a kind it has", ErrKeys)
	case r.Epoch > 0:
		r.Epoch, r.Sequence = r.Epoch+1, 1
	case !have:
		r.Epoch, r.Sequence = 1, 1
	case old.rec.Sequence == math.MaxUint64:
		r.Epoch, r.Sequence = old.rec.Epoch+1, 1
	default:
		r.Epoch, r.Sequence = old.rec.Epoch, old.rec.Sequence+1
	}
	p, err := t.seal(r, roster)
	if err != nil {
		return p, err
	}
	val, err := Marshal(p.Signed)
	if err != nil {
		return p, err
	}
	err = t.cfg.Store.Update("record.write", func(tx devices.Tx) error {
		return tx.Put(devices.BucketRecords, r.key().String(), val)
	})
	if err != nil {
		return p, err
	}
	t.mu.Lock()
	t.set(newStored(p.Record, p.Signed, time.Now()))
	t.mu.Unlock()
	t.publish(p.Record)
	return p, nil
}

// begin fills in what all records of this node have in common.
func (t *Table) begin(r *Record, roster *devices.Roster) error {
	if roster == nil {
		return ErrHome
	}
	r.Version, r.Home, r.Writer = 1, roster.Home, t.self
	if len(roster.Heads) > 0 {
		r.Head = roster.Heads[0]
	}
	return nil
}

// seal signs a record of this node and looks at it as others will.
func (t *Table) seal(r Record, roster *devices.Roster) (Proven, error) {
	s, err := seal(t.cfg.Key, r)
	if err == nil {
		_, err = open(s, roster)
	}
	return Proven{r, s}, err
}
