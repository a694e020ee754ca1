package records

import (
	"context"
	"crypto/ecdsa"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/hallway-home/hallway/devices"
)

const (
	// markerFor bounds how long an expired record is remembered as such: afterwards a peer
	// that was away so long may bring it back for one more of its times.
	markerFor = 24 * time.Hour
	// changesPerSecond bounds what one writer may change in the whole home (conventions:
	// 20 records a second). The bursts are all its registers twice over, and its whole log
	// twice over, which is what an honest exchange may bring. What exceeds them is left
	// out; a later digest brings the newest.
	changesPerSecond, registerBurst, entryBurst = 20, 2 * MaxKeysPerWriter, 2 * MaxEntries
)

// Config of a Table. Key, Roster and Store are required.
type Config struct {
	Key    *ecdsa.PrivateKey
	Roster func() *devices.Roster // the home as it is now; nil without one
	Store  *devices.Store
	Dirty  func()       // called when something waits for Flush; must not block; may be nil
	Logger *slog.Logger // nil discards
}

// Table holds the verified records of the home: registers in memory and in the store,
// log entries in the store with their hashes in memory. Safe for concurrent use.
//
// What this node says is on disk before a method returns it. What others say is in
// memory at once and on disk after the next Flush (registers) or before Take returns
// (log entries).
type Table struct {
	cfg  Config
	self devices.NodeID

	registers, entries feed

	mu      sync.Mutex // never held while the disk works
	records map[registerKey]stored
	logs    map[devices.NodeID]*writerLog
	sums    []Sum // of all that; nil when something changed
	rates   map[devices.NodeID]*writerRate
	flagged map[devices.NodeID]bool // writers caught in equivocation
	dirty   map[registerKey]bool    // others' records that are not on disk yet

	// writing is held by who changes the disk, for as long as that takes: a card may stall
	// for seconds. It is taken before mu. It guards what follows as well.
	writing sync.Mutex
	said    map[registerKey]Record // what this node wrote since it started
	redone  map[[32]byte]bool      // own log entries that were written anew under another number
	left    map[diskKey]bool       // on disk, of writers who do not belong
}

// diskKey is where something lies in the store.
type diskKey struct{ bucket, key string }

// writerRate bounds how fast one writer may change things.
type writerRate struct{ registers, entries *rate.Limiter }

// Open reads the stored records. What the roster does not let its writer say is left out.
func Open(cfg Config) (*Table, error) {
	if cfg.Key == nil || cfg.Roster == nil || cfg.Store == nil {
		return nil, errors.New("records: key, roster and store are required")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Dirty == nil {
		cfg.Dirty = func() {}
	}
	t := &Table{
		cfg: cfg, self: devices.NodeIDOf(&cfg.Key.PublicKey),
		records: map[registerKey]stored{}, logs: map[devices.NodeID]*writerLog{}, rates: map[devices.NodeID]*writerRate{},
		flagged: map[devices.NodeID]bool{}, dirty: map[registerKey]bool{},
		said: map[registerKey]Record{}, redone: map[[32]byte]bool{}, left: map[diskKey]bool{},
	}
	now := time.Now()
	err := cfg.Store.View(func(tx devices.Tx) error {
		return tx.Each(devices.BucketRecords, func(key string, val []byte) error {
			var s Signed
			if err := Unmarshal(val, &s); err != nil {
				return fmt.Errorf("a stored record is damaged: %w", err)
			}
			switch r, err := open(s, cfg.Roster()); {
			case err == nil:
				t.records[r.key()] = newStored(r, s, now)
			case errors.Is(err, ErrWriter): // a crash came before Forget
				t.left[diskKey{devices.BucketRecords, key}] = true
			}
			return nil
		})
	})
	if err != nil {
		return t, err
	}
	return t, t.openLogs()
}

// Close brings to disk what waits for it and ends all watches.
func (t *Table) Close() error {
	t.registers.end()
	t.entries.end()
	return t.Flush()
}

// errStale says that a record brought nothing new; it is no fault of the sender.
var errStale = errors.New("known already")

// Taken is what became of records that a peer sent.
type Taken struct {
	New     []Proven // were not known here and are now: pass them on
	Renewed []Proven // of this node, said again: tell everybody
	Refused int      // how many were refused
	Err     error    // why the first of them was
}

func (x *Taken) refuse(err error) {
	if x.Refused++; x.Err == nil {
		x.Err = err
	}
}

// Take verifies records of either shape that a peer sent, and keeps what is new. When a
// peer brings a record of this node that this node does not know, its store has lost its
// tail: what it says is then said again under a higher epoch. That, and log entries, wait
// for the disk.
func (t *Table) Take(list []Signed) (out Taken) {
	var entries []Proven
	roster := t.cfg.Roster()
	for _, s := range list {
		r, err := parse(s)
		if err == nil {
			err = mayWrite(r, roster)
		}
		p := Proven{r, s}
		switch {
		case err != nil:
			out.refuse(err)
		case r.Shape == ShapeLog:
			entries = append(entries, p)
		case r.Writer == t.self:
			t.takeOwn(p, roster, &out)
		default:
			switch err := t.takeRegister(p, roster); {
			case err == nil:
				out.New = append(out.New, p)
			case err != errStale: //nolint:errorlint // never wrapped
				out.refuse(err)
			}
		}
	}
	if len(entries) > 0 {
		t.takeEntries(entries, roster, &out)
	}
	for _, p := range out.New {
		t.publish(p.Record)
	}
	return out
}

// takeRegister takes another writer's register if it is newer. It reaches the disk with
// the next Flush; what a crash loses there, a digest brings back.
func (t *Table) takeRegister(p Proven, roster *devices.Roster) error {
	now := time.Now()
	next := newStored(p.Record, p.Signed, now)
	if !t.newer(next) { // before the signature is checked: a copy of what is here costs nothing
		return errStale
	}
	if err := verify(p.Record, p.Signed, roster); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if have, take := t.compare(next); have && !take {
		return errStale
	} else if !have && t.full(p.Record.Writer) {
		return ErrKeys
	}
	if !t.rateOf(p.Record.Writer).registers.AllowN(now, 1) {
		return ErrRate
	}
	t.set(next)
	t.dirty[next.rec.key()] = true
	t.cfg.Dirty()
	return nil
}

// newer reports whether a register says anything that is not known.
func (t *Table) newer(next stored) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	old, have := t.records[next.rec.key()]
	if !have {
		return true
	}
	v, _ := compare(old, next)
	return v != keepOld
}

// compare looks a verified register up; mu is held.
func (t *Table) compare(next stored) (have, take bool) {
	old, have := t.records[next.rec.key()]
	if !have {
		return false, true
	}
	v, take := compare(old, next)
	if v == equivocation {
		t.flag(next.rec.Writer)
	}
	return true, take
}

// set puts a register into memory; mu is held.
func (t *Table) set(s stored) {
	t.records[s.rec.key()] = s
	t.sums = nil
}

// rateOf finds what a writer may still change; mu is held.
func (t *Table) rateOf(writer devices.NodeID) *writerRate {
	r, ok := t.rates[writer]
	if !ok {
		r = &writerRate{rate.NewLimiter(changesPerSecond, registerBurst), rate.NewLimiter(changesPerSecond, entryBurst)}
		t.rates[writer] = r
	}
	return r
}

// flag remembers a writer who said two things under one number; mu is held.
func (t *Table) flag(writer devices.NodeID) {
	if !t.flagged[writer] {
		t.cfg.Logger.Warn("a member said two things under one number; it may be faulty or taken over", "writer", writer)
	}
	t.flagged[writer] = true
}

// full reports whether a writer has as many registers as it may; an expired one makes
// room. mu is held.
func (t *Table) full(writer devices.NodeID) bool {
	n := 0
	var marker *registerKey
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
		t.sums = nil
		n--
	}
	return n >= MaxKeysPerWriter
}

// takeOwn renews what this node says when a peer knows a newer record of it than it does
// itself: with what it said since its start, or else with what it had said.
func (t *Table) takeOwn(p Proven, roster *devices.Roster, out *Taken) {
	next := newStored(p.Record, p.Signed, time.Now())
	if !t.newer(next) {
		return
	}
	if err := verify(p.Record, p.Signed, roster); err != nil {
		out.refuse(err)
		return
	}
	t.writing.Lock()
	defer t.writing.Unlock()
	t.mu.Lock()
	_, take := t.compare(next)
	t.mu.Unlock()
	if !take {
		return
	}
	said, ok := t.said[p.Record.key()]
	if !ok {
		said = p.Record
	}
	again, err := t.write(Record{Subject: said.Subject, Kind: said.Kind, Body: said.Body, TTL: said.TTL, Blobs: said.Blobs, Epoch: p.Record.Epoch})
	if err != nil {
		t.cfg.Logger.Error("cannot renew an own record", "err", err)
		return
	}
	out.Renewed = append(out.Renewed, again)
}

// Flush brings others' registers to disk, all in one transaction.
func (t *Table) Flush() error {
	t.writing.Lock()
	defer t.writing.Unlock()
	t.mu.Lock()
	dirty := t.dirty
	t.dirty = map[registerKey]bool{}
	put := make(map[registerKey]Signed, len(dirty))
	for k := range dirty {
		if s, ok := t.records[k]; ok && !s.expired {
			put[k] = s.signed
		}
	}
	t.mu.Unlock()
	if len(dirty) == 0 {
		return nil
	}
	err := t.cfg.Store.Update("record.put", func(tx devices.Tx) error {
		for k := range dirty {
			s, ok := put[k]
			if !ok {
				if err := tx.Delete(devices.BucketRecords, k.String()); err != nil {
					return err
				}
				continue
			}
			val, err := Marshal(s)
			if err != nil {
				return err
			}
			if err := tx.Put(devices.BucketRecords, k.String(), val); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.mu.Lock()
		maps.Copy(t.dirty, dirty)
		t.mu.Unlock()
	}
	return err
}

// Records lists the registers of all members, own ones included; what was retracted or
// ran out is not among them.
func (t *Table) Records() []Record {
	t.mu.Lock()
	defer t.mu.Unlock()
	var out []Record
	for _, s := range t.records {
		if !s.expired && !s.rec.Gone() {
			out = append(out, s.rec)
		}
	}
	return out
}

// Watch tells of records of a shape accepted or written from now on; when a register is
// retracted or runs out, Gone is true. The channel is closed when ctx ends, at Close, or
// when the reader falls far behind: read Records or Entries anew.
func (t *Table) Watch(ctx context.Context, shape Shape) <-chan Record {
	if shape == ShapeLog {
		return t.entries.watch(ctx)
	}
	return t.registers.watch(ctx)
}

func (t *Table) publish(r Record) {
	if r.Shape == ShapeLog {
		t.entries.publish(r)
	} else {
		t.registers.publish(r)
	}
}
