package records

import (
	"maps"
	"slices"
	"time"

	"github.com/hallway-home/hallway/devices"
)

// Expire takes out registers whose time is over, and gives those of this node: their
// writer retracts them, so that all agree and the sequence stays known.
func (t *Table) Expire(now time.Time) (own []Record) {
	t.mu.Lock()
	var gone []Record
	for k, s := range t.records {
		switch {
		case s.until.IsZero() || now.Before(s.until):
		case s.expired && now.Sub(s.until) > markerFor:
			delete(t.records, k)
			t.sums = nil
		case s.expired:
		case k.writer == t.self:
			own = append(own, s.rec)
		default:
			s.expired = true
			t.records[k] = s
			t.dirty[k] = true
			s.rec.Body = tombstone
			gone = append(gone, s.rec)
		}
	}
	t.mu.Unlock()
	if len(gone) > 0 {
		t.cfg.Dirty()
	}
	for _, r := range gone {
		t.publish(r)
	}
	return own
}

// Forget drops the records and logs of writers who no longer belong, and what the roster
// no longer lets them say: from memory at once, from disk before it returns.
func (t *Table) Forget() error {
	t.writing.Lock()
	defer t.writing.Unlock()
	t.dropStrangers()
	if len(t.left) == 0 {
		return nil
	}
	err := t.cfg.Store.Update("record.forget", func(tx devices.Tx) error {
		for k := range t.left {
			if err := tx.Delete(k.bucket, k.key); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		clear(t.left)
	}
	return err
}

// dropStrangers clears memory and notes what is left on disk; writing is held.
func (t *Table) dropStrangers() {
	roster := t.cfg.Roster()
	t.mu.Lock()
	defer t.mu.Unlock()
	for k, s := range t.records {
		at := diskKey{devices.BucketRecords, k.String()}
		if mayWrite(s.rec, roster) == nil {
			delete(t.left, at) // it came back before the disk was cleared
			continue
		}
		t.left[at] = true
		delete(t.records, k)
		delete(t.dirty, k)
		t.sums = nil
	}
	for _, w := range slices.Collect(maps.Keys(t.logs)) {
		if roster.Has(w) {
			continue
		}
		for i := range t.logs[w].hashes {
			t.left[diskKey{bucketLog, entryKey(w, t.logs[w].first+uint64(i))}] = true
		}
		delete(t.logs, w)
		delete(t.rates, w)
		t.sums = nil
	}
}
