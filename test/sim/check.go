package sim

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"time"

	"github.com/hallway-home/hallway/devices"
	"github.com/hallway-home/hallway/devices/records"
	"github.com/hallway-home/hallway/devices/trust"
)

const (
	// onDisk is when what was heard last has been written.
	onDisk = 200 * time.Millisecond
	// clocksTold is when every clock has been told after its last jump (every tenth ping).
	clocksTold = 11 * time.Second
	// clocksAgree is how far the home's time may be off.
	clocksAgree = 2 * time.Minute
)

// order of a record among those of its writer; hash settles a writer's contradiction.
type order struct {
	epoch, sequence uint64
	hash            [32]byte
}

// before reports whether a is older than b: of two under one number the lower hash stays.
func (a order) before(b order) bool {
	return cmp.Or(cmp.Compare(a.epoch, b.epoch), cmp.Compare(a.sequence, b.sequence), bytes.Compare(b.hash[:], a.hash[:])) < 0
}

// check looks at every running node. It is called when nothing moves.
func (w *World) check() error {
	if w.breach != nil {
		return w.breach
	}
	for _, n := range w.nodes {
		if !n.runs() {
			continue
		}
		if err := errors.Join(w.checkLog(n), w.checkRecords(n), w.checkEntries(n), w.checkFlows(n)); err != nil {
			return fmt.Errorf("node %d: %w", n.i, err)
		}
	}
	return nil
}

// checkLog: every stored edit is signed and was asked for, and they fold to what the
// model expects of them.
func (w *World) checkLog(n *node) error {
	var held []trust.Hash
	for _, s := range n.log.Edits() {
		if err := w.model.takeEdit(s); err != nil {
			return err
		}
		held = append(held, s.Hash())
	}
	r := n.log.Roster()
	if r == nil {
		return errors.New("it forgot its home")
	}
	x := w.model.expects(held)
	for id := range x.in {
		if !r.Has(id) {
			return fmt.Errorf("node %d was admitted, not removed, and does not belong", w.number(id))
		}
	}
	for id := range x.out {
		if r.Has(id) || !r.Removed[id] {
			return fmt.Errorf("node %d was removed and belongs (%v)", w.number(id), r.Has(id))
		}
	}
	for id := range x.never {
		if r.Has(id) {
			return fmt.Errorf("node %d was admitted by a removed owner and belongs", w.number(id))
		}
	}
	for id, names := range x.names {
		if m := r.Members[id]; r.Has(id) && len(names) > 0 && !names[m.Name] {
			return fmt.Errorf("node %d is called %q; it should be one of %v", w.number(id), m.Name, names)
		}
	}
	have, slugs := map[string]bool{}, map[string]bool{}
	for _, room := range r.Rooms {
		have[room.Name], slugs[room.Slug] = true, true
	}
	for name, want := range x.rooms {
		if have[name] != want {
			return fmt.Errorf("room %q: is there %v, should be %v", name, have[name], want)
		}
	}
	for _, m := range r.Members {
		if slugs[m.Slug] || m.Slug == "" {
			return fmt.Errorf("slug %q is not unique", m.Slug)
		}
		slugs[m.Slug] = true
	}
	return nil
}

func (w *World) number(id devices.NodeID) int {
	return slices.IndexFunc(w.nodes, func(n *node) bool { return n.id == id })
}

// checkRecords: what is stored is signed; what is shown was said by a member and never
// goes back or away.
func (w *World) checkRecords(n *node) error {
	if _, err := w.storedRecords(n); err != nil {
		return err
	}
	r, shown := n.log.Roster(), map[string]order{}
	for _, rec := range n.mesh.Records() {
		k := w.name(rec)
		if !r.Has(rec.Writer) || rec.Subject != rec.Writer.String() {
			return fmt.Errorf("it shows the record %s about %s, whose writer may not write it", k, rec.Subject)
		}
		if !w.model.said[statement{rec.Writer, rec.Kind}][bodyOf(rec)] {
			return fmt.Errorf("it shows a record %s that says %q, which was never said", k, bodyOf(rec))
		}
		shown[k] = orderOf(rec)
	}
	for k, was := range n.seen {
		now, ok := shown[k]
		var writer int
		_, _ = fmt.Sscan(k, &writer)
		if !ok && r.Has(w.nodes[writer].id) {
			return fmt.Errorf("it lost the record %s", k)
		}
		if ok && now.before(was) {
			return fmt.Errorf("the record %s went back from %d.%d to %d.%d", k, was.epoch, was.sequence, now.epoch, now.sequence)
		}
	}
	n.seen = shown
	return nil
}

// checkEntries: each member's log is what it said, in order, without gaps.
func (w *World) checkEntries(n *node) error {
	all, err := n.mesh.Entries("")
	if err != nil {
		return err
	}
	r, logs, last := n.log.Roster(), map[devices.NodeID][]string{}, map[devices.NodeID]uint64{}
	for _, e := range all {
		body := bodyOf(e)
		switch {
		case !r.Has(e.Writer):
			return fmt.Errorf("it keeps the log of node %d, which does not belong", w.number(e.Writer))
		case !w.model.said[statement{e.Writer, kindEntry}][body]:
			return fmt.Errorf("node %d never wrote %q into its log", w.number(e.Writer), body)
		case last[e.Writer] != 0 && e.Sequence != last[e.Writer]+1:
			return fmt.Errorf("the log of node %d has a gap before %d", w.number(e.Writer), e.Sequence)
		}
		last[e.Writer] = e.Sequence
		logs[e.Writer] = append(logs[e.Writer], body)
	}
	n.logged = logs
	return nil
}

// storedRecords checks every record in a node's store and says which it holds.
func (w *World) storedRecords(n *node) (map[string]order, error) {
	var stored []records.Signed
	err := n.store.View(func(tx devices.Tx) error {
		return tx.Each(devices.BucketRecords, func(_ string, val []byte) error {
			var s records.Signed
			err := decoding.Unmarshal(val, &s)
			stored = append(stored, s)
			return err
		})
	})
	if err != nil {
		return nil, err
	}
	r, out := n.log.Roster(), map[string]order{}
	for _, s := range stored {
		rec, err := w.model.takeRecord(s)
		if err != nil {
			return nil, err
		}
		if !r.Has(rec.Writer) {
			return nil, fmt.Errorf("it keeps a record of node %d, which does not belong", w.number(rec.Writer))
		}
		out[w.name(rec)] = order{rec.Epoch, rec.Sequence, sha256.Sum256(s.Raw)}
		w.remember(s)
	}
	return out, nil
}

// name is that of a register, as people read it.
func (w *World) name(r records.Record) string {
	return fmt.Sprintf("%d %s", w.number(r.Writer), r.Kind)
}

func orderOf(r records.Record) order {
	raw, _ := canonical().Marshal(r)
	return order{r.Epoch, r.Sequence, sha256.Sum256(raw)}
}

func (w *World) remember(s records.Signed) {
	if !slices.ContainsFunc(w.olds, func(o records.Signed) bool { return bytes.Equal(o.Raw, s.Raw) }) {
		w.olds = append(w.olds, s)
	}
}

// checkFlows: nobody has a flow with a key that does not belong.
func (w *World) checkFlows(n *node) error {
	r := n.log.Roster()
	for id, l := range n.mesh.Live() {
		if l.Reachable && !r.Has(id) {
			return fmt.Errorf("it has a flow with node %d, which does not belong", w.number(id))
		}
	}
	return nil
}

// members are the running nodes that belong, as node 0 sees it.
func (w *World) members() []*node {
	var out []*node
	for _, n := range w.nodes {
		if n.runs() && w.nodes[0].log.Roster().Has(n.id) {
			out = append(out, n)
		}
	}
	return out
}

// agreed says what the members do not agree about yet.
func (w *World) agreed() error {
	all := w.members()
	first := all[0]
	for _, n := range all {
		if !slices.Equal(n.log.Heads(), first.log.Heads()) {
			return fmt.Errorf("nodes 0 and %d have different roster heads", n.i)
		}
		if !reflect.DeepEqual(n.seen, first.seen) {
			return fmt.Errorf("nodes 0 and %d have different records: %v and %v", n.i, first.seen, n.seen)
		}
		if !reflect.DeepEqual(n.logged, first.logged) {
			return fmt.Errorf("nodes 0 and %d have different logs: %v and %v", n.i, first.logged, n.logged)
		}
		live := n.mesh.Live()
		for _, o := range all {
			if o != n && !live[o.id].Reachable {
				return fmt.Errorf("node %d has no flow with node %d", n.i, o.i)
			}
		}
	}
	return nil
}

// final looks at what was agreed: one roster from one log, whatever the order, and of
// each writer what it said last.
func (w *World) final() error {
	if err := errors.Join(w.settle(onDisk), w.agreed()); err != nil {
		return err
	}
	all := w.members()
	r := all[0].log.Roster()
	for _, n := range all {
		if !reflect.DeepEqual(n.log.Roster(), r) {
			return fmt.Errorf("nodes 0 and %d fold one log to two rosters", n.i)
		}
		edits := n.log.Edits()
		rand.Shuffle(len(edits), func(i, j int) { edits[i], edits[j] = edits[j], edits[i] })
		if again, _ := trust.Fold(edits); !reflect.DeepEqual(again, r) {
			return fmt.Errorf("the log of node %d folds to another roster in another order", n.i)
		}
		if stored, err := w.storedRecords(n); err != nil || !reflect.DeepEqual(stored, n.seen) {
			return fmt.Errorf("node %d shows other records than it stores: %v and %v (%w)", n.i, n.seen, stored, err)
		}
	}
	for writer, must := range w.model.entries {
		have := all[0].logged[writer]
		for _, body := range must {
			at := slices.Index(have, body)
			if at < 0 && slices.Contains(all, w.nodes[w.number(writer)]) {
				return fmt.Errorf("the log of node %d lost %q, or its order: %v, it wrote %v", w.number(writer), body, have, must)
			}
			have = have[at+1:]
		}
	}
	bodies := map[statement]string{}
	for _, rec := range all[0].mesh.Records() {
		bodies[statement{rec.Writer, rec.Kind}] = bodyOf(rec)
	}
	for s, want := range w.model.want {
		n := w.nodes[w.number(s.writer)]
		if slices.Contains(all, n) && !want[bodies[s]] {
			return fmt.Errorf("of node %d and %s all believe %q; it said %v last", n.i, s.kind, bodies[s], want)
		}
	}
	return nil
}

// homeTime: if most clocks of the members are right, so is the time of the home.
func (w *World) homeTime() error {
	right, wrong, all := 0, 0, w.members()
	for _, n := range all {
		if n.clock.Load() == 0 {
			right++
		} else {
			wrong++
		}
	}
	if wrong == 0 || right <= wrong {
		return nil
	}
	if err := w.settle(clocksTold); err != nil {
		return err
	}
	for _, n := range all {
		if t, known := n.mesh.HomeTime(); !known || time.Until(t).Abs() > clocksAgree {
			return fmt.Errorf("node %d says it is %v (%v); most clocks say %v", n.i, t, known, time.Now())
		}
	}
	return nil
}
