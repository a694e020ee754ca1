package devices

import (
	"context"
	"maps"
	"reflect"
	"slices"
	"sync/atomic"
	"time"
)

// ChangeKind says what happened to a row of the directory.
type ChangeKind string

// Kinds of change.
const (
	Added   ChangeKind = "added"
	Updated ChangeKind = "updated"
	Removed ChangeKind = "removed"
)

// Change is one entry of the change feed. Exactly one of Device and Foreign is set.
type Change struct {
	Kind    ChangeKind `json:"kind"`
	Device  *Device    `json:"device,omitempty"`
	Foreign *Foreign   `json:"foreign,omitempty"`
}

// feedBuffer is how far a reader of the feed may fall behind before it is cut off: a
// stuck reader must never hold up the directory.
const feedBuffer = 512

// Directory keeps the snapshot current. One goroutine (Run) owns the inputs; the Set
// methods hand it closures and may be called from any goroutine, before, during and
// after Run. Reading a snapshot never blocks.
type Directory struct {
	work chan func()
	done chan struct{}
	snap atomic.Pointer[Snapshot]

	in   Inputs // owned by Run
	subs map[chan Change]struct{}
}

// NewDirectory makes an empty directory of the node self.
func NewDirectory(self NodeID) *Directory {
	d := &Directory{
		work: make(chan func(), 64), done: make(chan struct{}),
		in:   Inputs{Self: self, Records: map[NodeID]DeviceRecord{}, Spoken: map[SpokenKey]ForeignRecord{}},
		subs: map[chan Change]struct{}{},
	}
	d.snap.Store(Fold(d.in))
	return d
}

// Run folds until ctx ends, then closes every feed.
func (d *Directory) Run(ctx context.Context) error {
	defer func() {
		close(d.done)
		for ch := range d.subs {
			close(ch)
		}
	}()
	for {
		select {
		case <-ctx.Done():
			return nil
		case f := <-d.work:
			f()
		}
	}
}

func (d *Directory) do(f func()) {
	select {
	case d.work <- f:
	case <-d.done:
	}
}

func (d *Directory) update(f func(*Inputs)) {
	d.do(func() {
		f(&d.in)
		before, after := d.snap.Load(), Fold(d.in)
		d.snap.Store(after)
		for _, c := range diff(before, after) {
			d.publish(c)
		}
	})
}

// SetRoster takes a newly folded roster.
func (d *Directory) SetRoster(r *Roster) { d.update(func(in *Inputs) { in.Roster = r }) }

// SetRecord takes a node's verified record.
func (d *Directory) SetRecord(id NodeID, rec DeviceRecord) {
	d.update(func(in *Inputs) { in.Records[id] = rec })
}

// SetSpoken takes what a speaker's verified record says of a foreign device; nil: nothing
// any more.
func (d *Directory) SetSpoken(slug string, speaker NodeID, rec *ForeignRecord) {
	d.update(func(in *Inputs) {
		if k := (SpokenKey{slug, speaker}); rec == nil {
			delete(in.Spoken, k)
		} else {
			in.Spoken[k] = *rec
		}
	})
}

// SetLive takes what the flow table says; the map must not change afterwards.
func (d *Directory) SetLive(live map[NodeID]Liveness) {
	d.update(func(in *Inputs) { in.Live = live })
}

// SetBindings takes where phones are reached; the map must not change afterwards.
func (d *Directory) SetBindings(b map[NodeID]Binding) {
	d.update(func(in *Inputs) { in.Bindings = b })
}

// SetPhone takes what a browser can do, for all of them.
func (d *Directory) SetPhone(rec DeviceRecord) { d.update(func(in *Inputs) { in.Phone = rec }) }

// SetForeign takes the foreign things in sight; the slice must not change afterwards.
func (d *Directory) SetForeign(f []Foreign) { d.update(func(in *Inputs) { in.Foreign = f }) }

// Snapshot returns the directory as it is now.
func (d *Directory) Snapshot() *Snapshot { return d.snap.Load() }

// Subscribe returns the feed of changes from now on. It is closed when ctx ends, when
// the directory ends, or when the reader falls feedBuffer changes behind: read the
// snapshot and subscribe anew.
func (d *Directory) Subscribe(ctx context.Context) <-chan Change {
	ch := make(chan Change, feedBuffer)
	d.do(func() { d.subs[ch] = struct{}{} })
	context.AfterFunc(ctx, func() { d.do(func() { d.drop(ch) }) })
	return ch
}

func (d *Directory) drop(ch chan Change) {
	if _, ok := d.subs[ch]; ok {
		delete(d.subs, ch)
		close(ch)
	}
}

func (d *Directory) publish(c Change) {
	for ch := range d.subs {
		select {
		case ch <- c:
		default:
			d.drop(ch)
		}
	}
}

// diff lists the changes a person would notice between two snapshots; that a thing was
// heard again is none.
func diff(before, after *Snapshot) []Change {
	var out []Change
	type key struct { // a member is its node, a foreign device its name, phones are both
		node NodeID
		slug string
	}
	keyOf := func(d Device) key {
		switch {
		case d.Foreign:
			return key{slug: d.Slug}
		case d.Person != "":
			return key{d.Node, d.Slug}
		}
		return key{node: d.Node}
	}
	old := map[key]Device{}
	for _, x := range slices.Concat(before.Devices, before.Spoken, before.Bound) {
		old[keyOf(x)] = x
	}
	for _, x := range slices.Concat(after.Devices, after.Spoken, after.Bound) {
		prev, ok := old[keyOf(x)]
		delete(old, keyOf(x))
		a, b := x, prev
		a.LastHeard, b.LastHeard = time.Time{}, time.Time{}
		switch {
		case !ok:
			out = append(out, Change{Kind: Added, Device: &x})
		case !reflect.DeepEqual(a, b):
			out = append(out, Change{Kind: Updated, Device: &x})
		}
	}
	for x := range maps.Values(old) {
		out = append(out, Change{Kind: Removed, Device: &x})
	}
	return append(out, diffForeign(before.Foreign, after.Foreign)...)
}

func diffForeign(before, after []Foreign) []Change {
	var out []Change
	old := map[string]Foreign{}
	for _, x := range before {
		old[x.ID] = x
	}
	for _, x := range after {
		prev, ok := old[x.ID]
		delete(old, x.ID)
		a, b := x, prev
		a.LastSeen, b.LastSeen = time.Time{}, time.Time{}
		switch {
		case !ok:
			out = append(out, Change{Kind: Added, Foreign: &x})
		case !reflect.DeepEqual(a, b):
			out = append(out, Change{Kind: Updated, Foreign: &x})
		}
	}
	for x := range maps.Values(old) {
		out = append(out, Change{Kind: Removed, Foreign: &x})
	}
	return out
}
