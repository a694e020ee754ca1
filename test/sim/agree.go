package sim

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"time"

	"github.com/hallway-home/hallway/devices/trust"
)

// meet reports whether two nodes take each other for members. Two halves of a home that put
// each other out do not, and go on apart.
func meet(a, b *node) bool {
	return a != b && a.runs() && b.runs() && a.log.Roster().Has(b.id) && b.log.Roster().Has(a.id)
}

// circle is a node with all whom it meets.
func (w *World) circle(n *node) []*node {
	out := []*node{n}
	for _, o := range w.nodes {
		if meet(n, o) {
			out = append(out, o)
		}
	}
	return out
}

// agreed says what nodes that take each other for members do not agree about yet.
func (w *World) agreed() error {
	for _, n := range w.nodes {
		for _, o := range w.nodes {
			if !meet(n, o) {
				continue
			}
			if !slices.Equal(n.log.Heads(), o.log.Heads()) {
				return fmt.Errorf("nodes %d and %d have different roster heads", n.i, o.i)
			}
			if a, b := w.common(n, o), w.common(o, n); !reflect.DeepEqual(a, b) {
				return fmt.Errorf("nodes %d and %d have different records and logs: %v and %v", n.i, o.i, a, b)
			}
			l := n.mesh.Live()[o.id]
			if !l.Reachable {
				return fmt.Errorf("node %d has no flow with node %d", n.i, o.i)
			}
			if l.Addr.Port() == o.addr.Port() && l.Addr != o.addr {
				return fmt.Errorf("node %d talks to node %d at %v, which is at %v", n.i, o.i, l.Addr, o.addr)
			}
		}
	}
	return nil
}

// common is what n has of those who belong by its roster and by that of o: a removal by one
// owner alone takes force at different moments.
func (w *World) common(n, o *node) map[string]any {
	out := map[string]any{}
	for k, v := range n.seen {
		var writer int
		_, _ = fmt.Sscan(k, &writer)
		if o.log.Roster().Has(w.nodes[writer].id) {
			out[k] = v
		}
	}
	for id, log := range n.logged {
		if o.log.Roster().Has(id) {
			out[id.String()] = log
		}
	}
	return out
}

// parted reports whether two running nodes belong by all that both know, and do not take each
// other for members: each half of a home put the other's out, or a checkpoint without asking
// brought back somebody whom nobody hears any more.
func (w *World) parted() bool {
	for _, a := range w.nodes {
		for _, b := range w.nodes[a.i+1:] {
			if !a.runs() || !b.runs() || meet(a, b) {
				continue
			}
			both := maps.Clone(a.held)
			maps.Copy(both, b.held)
			h := w.model.ask(slices.Collect(maps.Keys(both)), inForce)[0]
			_, one := h.members[a.id]
			if _, two := h.members[b.id]; one && two {
				return true
			}
		}
	}
	return false
}

// final looks at what was agreed: one roster from one log, whatever the order, and of
// each writer what it said last.
func (w *World) final() error {
	if err := errors.Join(w.settle(onDisk), w.agreed()); err != nil {
		return err
	}
	for _, n := range w.nodes {
		if !n.runs() {
			continue
		}
		if err := w.finalOf(n); err != nil {
			return fmt.Errorf("node %d: %w", n.i, err)
		}
	}
	return nil
}

func (w *World) finalOf(n *node) error {
	r, all := n.log.Roster(), w.circle(n)
	if !w.model.someoneWaits() || w.overdue && w.knowsTime(n) {
		for _, o := range all {
			if (!w.overdue || w.knowsTime(o)) && !reflect.DeepEqual(o.log.Roster(), r) {
				return fmt.Errorf("nodes %d and %d fold one log to two rosters", n.i, o.i)
			}
		}
		edits := n.log.Edits()
		rand.Shuffle(len(edits), func(i, j int) { edits[i], edits[j] = edits[j], edits[i] })
		if again, _ := trust.Fold(edits); !reflect.DeepEqual(again, r) {
			return errors.New("its log folds to another roster in another order")
		}
	}
	if stored, err := w.storedRecords(n); err != nil || !reflect.DeepEqual(stored, n.seen) {
		return fmt.Errorf("it shows other records than it stores: %v and %v (%w)", n.seen, stored, err)
	}
	if !r.Has(n.id) {
		return nil
	}
	for writer, must := range w.model.entries {
		if w.returned(writer) {
			continue
		}
		have := n.logged[writer]
		for _, body := range must {
			at := slices.Index(have, body)
			if at < 0 && slices.Contains(all, w.nodes[w.number(writer)]) {
				return fmt.Errorf("the log of node %d lost %q, or its order: %v, it wrote %v", w.number(writer), body, have, must)
			}
			have = have[at+1:]
		}
	}
	bodies := map[statement]string{}
	for _, rec := range n.mesh.Records() {
		bodies[statement{rec.Writer, rec.Kind}] = bodyOf(rec)
	}
	for s, want := range w.model.want {
		o := w.nodes[w.number(s.writer)]
		if slices.Contains(all, o) && !want[bodies[s]] && !w.returned(o.id) {
			return fmt.Errorf("of node %d and %s all believe %q; it said %v last", o.i, s.kind, bodies[s], want)
		}
	}
	return nil
}

// homeTime: if most clocks of its members are heard and right, so is the time of the home.
func (w *World) homeTime() error {
	if err := w.settle(clocksTold); err != nil {
		return err
	}
	for _, n := range w.nodes {
		if !n.runs() {
			continue
		}
		right, others := 0, 0
		for _, o := range w.nodes {
			switch {
			case (o == n || meet(n, o)) && o.clock.Load() == 0:
				right++
			case o == n || o.i != w.prog.hostile() && n.log.Roster().Has(o.id): // one that is off was heard once
				others++
			}
		}
		if right > others && !w.knowsTime(n) {
			t, known := n.mesh.HomeTime()
			return fmt.Errorf("node %d says it is %v (%v); most clocks say %v", n.i, t, known, w.now())
		}
	}
	return nil
}

// now is the time by a clock that is right.
func (w *World) now() time.Time { return time.Now().Add(time.Duration(w.days.Load())) }

func (w *World) knowsTime(n *node) bool {
	t, known := n.mesh.HomeTime()
	return known && t.Sub(w.now()).Abs() < clocksAgree
}
