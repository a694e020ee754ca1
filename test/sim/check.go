package sim

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/hallway-home/hallway/devices"
	"github.com/hallway-home/hallway/devices/records"
	"github.com/hallway-home/hallway/devices/trust"
)

const (
	// onDisk is when what was heard last has been written.
	onDisk = 200 * time.Millisecond
	// clocksTold is when every clock has been told after its last jump (every sixth ping, and what a lost one takes).
	clocksTold = 15 * time.Second
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
// oracle expects of them.
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
	var differs error
	for _, h := range w.model.ask(held, w.patience(n)) {
		if differs = w.compare(h, r); differs == nil {
			break
		}
	}
	slugs := map[string]bool{}
	for _, room := range r.Rooms {
		slugs[room.Slug] = true
	}
	for _, m := range r.Members {
		if slugs[m.Slug] || m.Slug == "" {
			return fmt.Errorf("slug %q is not unique", m.Slug)
		}
		slugs[m.Slug] = true
	}
	return errors.Join(differs, w.checkFinal(held, r), w.checkBeside(n, held))
}

// compare says where a roster is not what the oracle says.
func (w *World) compare(h home, r *devices.Roster) error {
	for _, n := range w.nodes {
		want, in := h.members[n.id]
		if have := r.Members[n.id]; in != r.Has(n.id) || in && (want.name != have.Name || want.owner != (have.Role == devices.RoleOwner)) {
			return fmt.Errorf("node %d: it has %v %q %q, it should have %v %+v", n.i, r.Has(n.id), have.Role, have.Name, in, want)
		}
		if h.removed[n.id] != r.Removed[n.id] {
			return fmt.Errorf("node %d: removed %v, it should be %v", n.i, r.Removed[n.id], h.removed[n.id])
		}
	}
	rooms := map[string]bool{}
	for _, room := range r.Rooms {
		rooms[room.Name] = true
	}
	if !maps.Equal(rooms, h.rooms) || len(r.Members) != len(h.members) {
		return fmt.Errorf("it has the rooms %v and %d members, it should have %v and %d", rooms, len(r.Members), h.rooms, len(h.members))
	}
	return nil
}

// checkFinal: whom the recovery code removed is out, whatever else was signed, and does not
// go on editing.
func (w *World) checkFinal(held []trust.Hash, r *devices.Roster) error {
	set, rooms := w.model.counted(held), map[string]bool{}
	for _, room := range r.Rooms {
		rooms[room.Name] = true
	}
	for _, out := range set {
		if out.Op != trust.OpRemove || !out.byCode() {
			continue
		}
		if r.Has(out.Node) {
			return fmt.Errorf("node %d was removed by the recovery code and belongs", w.number(out.Node))
		}
		for h, e := range set {
			if e.Signer == out.Node && !out.knew[h] && rooms[e.Name] && e.Kind == trust.SubjectRoom {
				return fmt.Errorf("node %d was removed by the recovery code and made the room %q", w.number(out.Node), e.Name)
			}
		}
	}
	return nil
}

// patience says whether a removal by one owner alone has force on a node. Before a day has
// passed it has none, whatever dates it bears, nor on who joins or starts meanwhile. Of a
// day that passed not all may have heard (see doc.go).
func (w *World) patience(n *node) forced {
	switch {
	case w.overdue && w.knowsTime(n):
		return inForce
	case w.overdue || w.jumped || w.days.Load() > 0:
		return either
	}
	return waits
}

// checkBeside: what a node had and a checkpoint did not know is named in its log as void.
func (w *World) checkBeside(n *node, held []trust.Hash) error {
	base, was, before := w.model.base(held), n.base, n.held
	n.base, n.held = base, map[trust.Hash]time.Time{}
	for _, h := range held {
		if n.held[h] = time.Now(); !before[h].IsZero() {
			n.held[h] = before[h]
		}
	}
	if base == was || before == nil {
		return nil
	}
	heads, err := w.model.standsFor(base)
	atOnce := was != nil && base.Number <= was.Number
	for _, h := range heads {
		if _, ok := before[h]; !ok && !atOnce {
			return err // it was behind, and cannot tell
		}
	}
	named, whole := map[trust.Hash]bool{}, false
	for _, ev := range n.log.History() {
		named[ev.Hash] = ev.Void != ""
		whole = whole || ev.Void != "" && ev.Op == trust.OpCheckpoint // and all that it stood for
	}
	if atOnce && !named[was.hash] {
		return errors.Join(err, fmt.Errorf("one of two checkpoints at once ended the other, and the log does not say so"))
	}
	for h := range before {
		e := w.model.edits[h]
		if _, kept := n.held[h]; !kept && !base.knew[h] && e.Op != trust.OpMerge && e.Op != trust.OpCheckpoint && !named[h] && !whole {
			return errors.Join(err, fmt.Errorf("a checkpoint ended what node %d did (%s %q), and its log does not say so", w.number(e.Signer), e.Op, e.Name))
		}
	}
	return err
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
		if !ok && r.Has(w.nodes[writer].id) && !w.returned(w.nodes[writer].id) {
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

// returned reports whether a node that belongs may have been out for a while.
func (w *World) returned(id devices.NodeID) bool {
	if w.apart {
		return true
	}
	for _, e := range w.model.edits {
		if e.removes() && e.Node == id {
			return true
		}
	}
	return false
}
