package trust

import (
	"encoding/hex"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"time"

	"github.com/hallway-home/hallway/devices"
)

// A lone owner's removal of another carries two home times, 24 hours apart, and a
// dishonest owner can write what he likes into them. So nobody relies on them alone: each
// node also counts the 24 hours itself, from when it first saw the proposal, and leaves the
// removal without force until then. That delays, it decides nothing: the edit is kept,
// counted and passed on, later edits stand on it, and in the end all fold the same.

const (
	// syncWindow is how long after its start a node may still be told what it slept through.
	syncWindow = 10 * time.Minute
	// awakeEvery spares the flash: a node that stops counts as awake for up to this much
	// less than it was.
	awakeEvery = time.Hour
	awakeKey   = "roster.awake"
)

// loadSeen reads when each proposal was first seen, and when this node last ran.
func (l *Log) loadSeen(tx devices.Tx) error {
	if v := tx.Get(devices.BucketNode, awakeKey); v != nil {
		sec, err := strconv.ParseInt(string(v), 10, 64)
		if err != nil {
			return err
		}
		l.awakeUntil = time.Unix(sec, 0)
	}
	for h := range proposals(l.base, l.edits) {
		if v := tx.Get(devices.BucketNode, seenKey(h)); v != nil {
			sec, err := strconv.ParseInt(string(v), 10, 64)
			if err != nil {
				return err
			}
			l.seen[h] = time.Unix(sec, 0)
		}
	}
	return nil
}

func (l *Log) storeSeen(tx devices.Tx, seen map[Hash]time.Time) error {
	for h, at := range seen {
		if old, ok := l.seen[h]; ok && old.Equal(at) {
			continue
		}
		if err := tx.Put(devices.BucketNode, seenKey(h), []byte(strconv.FormatInt(at.Unix(), 10))); err != nil {
			return err
		}
	}
	return nil
}

func seenKey(h Hash) string { return "roster.seen." + hex.EncodeToString(h[:]) }

// now is home time, if it is known. mu is held, or the log not shared yet.
func (l *Log) now() (time.Time, bool) {
	if l.homeTime == nil {
		return time.Time{}, false
	}
	now, ok := l.homeTime()
	if ok && l.opened.IsZero() {
		l.opened = now.Add(-time.Since(l.started))
	}
	return now, ok
}

// keepAwake stores that this node runs.
func (l *Log) keepAwake() error {
	now, ok := l.now()
	if !ok || now.Sub(l.stored) < awakeEvery {
		return nil
	}
	l.stored = now
	return l.store.Update("roster.awake", func(tx devices.Tx) error {
		return tx.Put(devices.BucketNode, awakeKey, []byte(strconv.FormatInt(now.Unix(), 10)))
	})
}

// firstSeen adds proposals that have come to those known. Before home time is known they
// stay out: Review dates them later. One that came while this node's clock was far ahead,
// and nobody told it better, is dated anew: else it would wait for years.
func (l *Log) firstSeen(b *base, fresh []*parsed) map[Hash]time.Time {
	if b != l.base {
		fresh = slices.AppendSeq(slices.Clone(fresh), maps.Values(b.proposals))
	}
	seen := maps.Clone(l.seen)
	now, ok := l.now()
	for h, at := range seen {
		if ok && at.Sub(now) > removalWait {
			seen[h] = now
		}
	}
	for _, p := range fresh {
		if _, has := seen[p.hash]; p.edit.Op != OpPropose || has {
			continue
		}
		switch at := time.Unix(p.edit.At, 0); {
		case l.vouched != nil && l.vouched(p.hash):
			seen[p.hash] = time.Unix(0, 0)
		case ok && l.slept(at, now):
			seen[p.hash] = at
		case ok:
			seen[p.hash] = now
		}
	}
	return seen
}

// slept reports whether this node was off at a time, and hears of it at its start: it can
// be no witness then, and takes the word of the edit.
func (l *Log) slept(at, now time.Time) bool {
	return !l.awakeUntil.IsZero() && !l.opened.IsZero() && at.After(l.awakeUntil) && !at.After(l.opened) && now.Sub(l.opened) <= syncWindow
}

// waiting lists the agreements that have no force here yet, in case a lone owner made them.
func (l *Log) waiting(edits map[Hash]*parsed, seen map[Hash]time.Time) map[Hash]bool {
	out := map[Hash]bool{}
	now, ok := l.now()
	for h, p := range edits {
		if p.edit.Op != OpAgree {
			continue
		}
		at, dated := seen[Hash(p.edit.Proposal)]
		if !ripe(at, dated, now, ok) {
			out[h] = true
		}
	}
	return out
}

// ripe reports whether a proposal that was first seen at a time has waited long enough.
func ripe(at time.Time, dated bool, now time.Time, known bool) bool {
	return dated && (at.Unix() == 0 || known && now.Sub(at) >= removalWait)
}

// Waiting lists the proposals that have not been waited out here, for a device that joins by
// this one to count as well (see Adopt). It is safe for concurrent use.
func (l *Log) Waiting() []Hash {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []Hash
	now, ok := l.now()
	for h := range proposals(l.base, l.edits) {
		if at, dated := l.seen[h]; !ripe(at, dated, now, ok) {
			out = append(out, h)
		}
	}
	return out
}

// settled dates what has waited long enough at the beginning of time: home time may go back
// when a peer with another clock comes or goes, and who was put out must not come back by that.
func (l *Log) settled(seen map[Hash]time.Time) map[Hash]time.Time {
	now, ok := l.now()
	if !ok {
		return seen
	}
	for _, p := range l.edits {
		if p.edit.Op != OpAgree {
			continue
		}
		h := Hash(p.edit.Proposal)
		if at, dated := seen[h]; dated && now.Sub(at) >= removalWait {
			seen[h] = time.Unix(0, 0)
		}
	}
	return seen
}

// Review puts in force what has waited long enough, and notes that this node runs. It is
// called at the start and then every minute or so.
func (l *Log) Review() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.keepAwake(); err != nil {
		return err
	}
	var undated []*parsed
	waits := false
	for h, p := range proposals(l.base, l.edits) {
		if _, ok := l.seen[h]; !ok {
			undated = append(undated, p)
		}
	}
	for _, p := range l.edits {
		waits = waits || p.edit.Op == OpAgree
	}
	if seen := l.settled(l.firstSeen(l.base, undated)); !maps.Equal(seen, l.seen) {
		err := l.store.Update("roster.seen", func(tx devices.Tx) error { return l.storeSeen(tx, seen) })
		if err != nil {
			return err
		}
		l.seen = seen
	}
	if !waits {
		return nil
	}
	f := fold(l.edits, l.waiting(l.edits, l.seen))
	if !reflect.DeepEqual(f.r, l.Roster()) { // one may go and another come back
		l.publish(f.r)
	}
	return nil
}

// waited reports whether this node's own proposal is old enough to be carried out alone,
// and when it is.
func (l *Log) waited(proposal Hash) (until time.Time, ok bool) {
	at, dated := l.seen[proposal]
	now, known := l.now()
	if p := proposals(l.base, l.edits)[proposal]; p != nil && p.edit.At > at.Unix() {
		at = time.Unix(p.edit.At, 0)
	}
	until = at.Add(removalWait)
	return until, dated && known && !now.Before(until)
}

// pending lists proposals against a member, in one order.
func pending(r *devices.Roster, target devices.NodeID) []Hash {
	return slices.DeleteFunc(slices.SortedFunc(maps.Keys(r.Pending), compareHash), func(h Hash) bool { return r.Pending[h].Target != target })
}
