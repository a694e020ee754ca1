package sim

import (
	"bytes"
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/hallway-home/hallway/devices"
	"github.com/hallway-home/hallway/devices/trust"
)

// This file says a second time, slowly, who belongs to a home. It is written from
// docs/decisions.md and shares nothing with package trust but the names of what edits say:
// each edit carries all that its author knew as a set, checkpoints are looked through to
// the edits they stand for, and every question walks over all edits.

// ownHomeDay is what a lone owner waits.
const ownHomeDay = 24 * time.Hour

// home is what a set of edits comes to.
type home struct {
	members map[devices.NodeID]resident
	removed map[devices.NodeID]bool
	rooms   map[string]bool
	void    map[trust.Hash]bool // edits without effect
}

type resident struct {
	owner bool
	name  string
}

// oracle judges one set of edits.
type oracle struct {
	all   []*edit        // who knew less comes first, so each stands after what it knew
	valid map[*edit]bool // its author might sign it, by what it knew
	force []*edit        // removals that count
	waits map[*edit]bool // removals by one owner that have no force yet
	final []final        // what checkpoints say
}

// final is a checkpoint and what came of the edits that it stands for: what was void then
// nobody who knew the checkpoint has ever heard of.
type final struct {
	by   *edit
	void map[trust.Hash]bool
}

// ask says what a set of edits comes to while those in waits have no force.
func ask(set map[trust.Hash]*edit, waits map[*edit]bool, checkpoints []final) home {
	o := &oracle{valid: map[*edit]bool{}, waits: waits, final: checkpoints}
	o.all = slices.SortedFunc(maps.Values(set), func(a, b *edit) int {
		return cmp.Or(cmp.Compare(len(a.knew), len(b.knew)), bytes.Compare(a.hash[:], b.hash[:]))
	})
	for _, e := range o.all {
		o.valid[e] = o.may(e)
	}
	o.settle()
	return o.fold()
}

func (e *edit) byCode() bool { return e.Signer == devices.NodeID(e.Home) }

func (e *edit) makesOwner() bool {
	return e.Op == trust.OpGenesis || e.Role == devices.RoleOwner && (e.Op == trust.OpAdmit || e.Op == trust.OpChange)
}

func (e *edit) removes() bool { return e.Op == trust.OpRemove || e.Op == trust.OpAgree }

// past lists what e's author knew and what might be signed.
func (o *oracle) past(e *edit, which func(*edit) bool) []*edit {
	var out []*edit
	for _, x := range o.all {
		ended := func(f final) bool { return e.knew[f.by.hash] && f.void[x.hash] }
		if e.knew[x.hash] && o.valid[x] && which(x) && !slices.ContainsFunc(o.final, ended) {
			out = append(out, x)
		}
	}
	return out
}

func (o *oracle) makers(id devices.NodeID, e *edit) []*edit {
	return o.past(e, func(x *edit) bool { return x.makesOwner() && x.subject() == id })
}

func (o *oracle) removals(id devices.NodeID, e *edit) []*edit {
	return o.past(e, func(x *edit) bool { return x.removes() && x.Node == id })
}

// owner says whether a key was an owner's in the eyes of e's author.
func (o *oracle) owner(id devices.NodeID, e *edit) bool {
	return len(o.makers(id, e)) > 0 && len(o.removals(id, e)) == 0
}

// chain names an owner and above it who made it, the first owner first: "owners form a
// tree". Of several makers only those above all of them count.
func (o *oracle) chain(id devices.NodeID, e *edit) []devices.NodeID {
	var above []devices.NodeID
	for i, m := range o.makers(id, e) {
		var up []devices.NodeID
		if !m.byCode() {
			up = o.chain(m.Signer, m)
		}
		if i == 0 {
			above = up
		}
		above = shared(above, up)
	}
	return append(slices.Clone(above), id)
}

func shared(a, b []devices.NodeID) []devices.NodeID {
	n := 0
	for n < min(len(a), len(b)) && a[n] == b[n] {
		n++
	}
	return a[:n]
}

// may says whether e's author might sign it, in his own eyes.
func (o *oracle) may(e *edit) bool {
	switch {
	case e.Op == trust.OpGenesis:
		return true
	case !e.byCode() && !o.owner(e.Signer, e):
		return false
	case e.Op == trust.OpChange: // nobody becomes an owner twice
		admitted := o.past(e, func(x *edit) bool { return len(x.Key) > 0 && x.subject() == e.Node })
		return len(admitted) > 0 && len(o.makers(e.Node, e)) == 0
	case e.Op == trust.OpPropose:
		return len(o.makers(e.Node, e)) > 0
	case e.removes():
		return o.entitled(e)
	}
	return true
}

// proposal is what an agreement agrees to, if its author knew it.
func (o *oracle) proposal(e *edit) *edit {
	for _, p := range o.past(e, func(x *edit) bool { return x.Op == trust.OpPropose && bytes.Equal(x.hash[:], e.Proposal) }) {
		return p
	}
	return nil
}

// family is the smallest one that holds all who sign a removal, by those above it.
func (o *oracle) family(e *edit) []devices.NodeID {
	if e.byCode() {
		return nil
	}
	out := o.chain(e.Signer, e)
	if p := o.proposal(e); e.Op == trust.OpAgree && p != nil {
		out = shared(out, o.chain(p.Signer, e))
	}
	return out
}

// commands says whether the family that signs holds the one to go.
func (o *oracle) commands(e *edit) bool {
	f := o.family(e)
	return len(shared(f, o.chain(e.Node, e))) == len(f)
}

func (o *oracle) entitled(e *edit) bool {
	p := o.proposal(e)
	if e.Op == trust.OpAgree && (p == nil || p.Node != e.Node || e.Signer == e.Node || p.Signer == e.Node || !o.owner(p.Signer, e)) {
		return false
	}
	if len(o.makers(e.Node, e)) == 0 { // a device
		return e.Op == trust.OpRemove
	}
	if e.byCode() || o.commands(e) {
		return true
	}
	return e.Op == trust.OpAgree && p.Signer == e.Signer && e.At-p.At >= int64(ownHomeDay/time.Second)
}

// class orders removals: the code's, those of families, lone ones, those of devices.
func (o *oracle) class(e *edit) int {
	switch {
	case e.byCode():
		return 0
	case len(o.makers(e.Node, e)) == 0:
		return 3
	case o.commands(e):
		return 1
	}
	return 2
}

// stands says whether an edit was signed by an owner who was made one by an edit that
// stands, and whom no removal that counts puts out without knowing the edit.
func (o *oracle) stands(e *edit) bool {
	if e.byCode() {
		return true
	}
	for _, r := range o.force {
		if r.Node == e.Signer && !r.knew[e.hash] {
			return false
		}
	}
	return slices.ContainsFunc(o.makers(e.Signer, e), o.stands)
}

// settle decides which removals count: the larger family first, "two who remove its head,
// then two, then one".
func (o *oracle) settle() {
	type place struct {
		class, depth, rank int
	}
	at, list := map[*edit]place{}, []*edit{}
	for _, e := range o.all {
		if !e.removes() || !o.valid[e] {
			continue
		}
		p := place{class: o.class(e), rank: 2}
		if p.class == 1 || p.class == 2 {
			p.depth = len(o.family(e))
		}
		if e.Op == trust.OpAgree {
			p.rank = 1
		}
		if p.rank == 1 && p.class == 1 && p.depth == len(o.chain(e.Node, e)) {
			p.rank = 0
		}
		at[e], list = p, append(list, e)
	}
	slices.SortFunc(list, func(a, b *edit) int {
		x, y := at[a], at[b]
		return cmp.Or(cmp.Compare(x.class, y.class), cmp.Compare(x.depth, y.depth), cmp.Compare(x.rank, y.rank), bytes.Compare(a.hash[:], b.hash[:]))
	})
	for class := range 4 {
		var lone []*edit // they do not outvote each other
		for _, e := range list {
			switch p := o.proposal(e); {
			case at[e].class != class || !o.stands(e) || p != nil && !o.stands(p):
			case class == 3 && o.madeMeanwhile(e):
			case class == 2 && !o.waits[e]:
				lone = append(lone, e)
			case class != 2:
				o.force = append(o.force, e)
			}
		}
		o.force = append(o.force, lone...)
	}
}

// madeMeanwhile says whether a device that e removes was made an owner beside it by
// somebody who is not of its author's family.
func (o *oracle) madeMeanwhile(e *edit) bool {
	return slices.ContainsFunc(o.all, func(m *edit) bool {
		if !m.makesOwner() || m.subject() != e.Node || !o.valid[m] || e.knew[m.hash] || m.knew[e.hash] || !o.stands(m) {
			return false
		}
		return m.byCode() || !slices.Contains(o.chain(m.Signer, m), e.Signer)
	})
}

// fold takes one edit after the other: what an author knew before what he signed, then
// the code's, then removals, then the lower hash.
func (o *oracle) fold() home {
	h := home{map[devices.NodeID]resident{}, map[devices.NodeID]bool{}, map[string]bool{}, map[trust.Hash]bool{}}
	left := slices.Clone(o.all)
	rank := func(e *edit) int {
		switch {
		case e.byCode():
			return 0
		case e.removes():
			return 1
		}
		return 2
	}
	wait := map[*edit]int{} // how many come before
	for _, x := range left {
		for _, e := range left {
			if e.knew[x.hash] {
				wait[e]++
			}
		}
	}
	for len(left) > 0 {
		var next *edit
		for _, e := range left {
			if wait[e] > 0 {
				continue
			}
			if next == nil || cmp.Or(cmp.Compare(rank(e), rank(next)), bytes.Compare(e.hash[:], next.hash[:])) < 0 {
				next = e
			}
		}
		left = slices.DeleteFunc(left, func(e *edit) bool { return e == next })
		for _, e := range left {
			if e.knew[next.hash] {
				wait[e]--
			}
		}
		h.void[next.hash] = !o.take(&h, next)
	}
	return h
}

// take reports whether an edit counts.
func (o *oracle) take(h *home, e *edit) bool {
	m, in := h.members[e.subject()]
	if e.removes() {
		if in && slices.Contains(o.force, e) {
			delete(h.members, e.Node)
			h.removed[e.Node] = true
		}
		return slices.Contains(o.force, e)
	}
	naming := e.Op == trust.OpName
	owner := e.byCode() || h.members[e.Signer].owner
	if may := naming || o.valid[e] && o.stands(e); !owner || !may || !o.uncut(e) {
		return false
	}
	switch {
	case len(e.Key) > 0 && !in && !h.removed[e.subject()]:
		h.members[e.subject()] = resident{e.makesOwner(), e.Name}
	case e.Op == trust.OpChange && in:
		h.members[e.Node] = resident{true, m.name}
	case naming && e.Kind == trust.SubjectRoom:
		h.rooms[e.Name] = true
	case naming && in:
		h.members[e.Node] = resident{m.owner, e.Name}
	}
	return true
}

// uncut says whether everybody who put the author out knew the edit.
func (o *oracle) uncut(e *edit) bool {
	return !slices.ContainsFunc(o.force, func(r *edit) bool { return r.Node == e.Signer && !r.knew[e.hash] })
}
