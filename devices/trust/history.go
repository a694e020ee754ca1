package trust

import (
	"cmp"
	"fmt"
	"maps"
	"strings"

	"github.com/hallway-home/hallway/devices"
)

// Event is one edit as people read it.
type Event struct {
	Number int    // place in the order in which the edits count, from 1
	Hash   Hash   // of the edit
	Op     Op     // what it is
	By     string // name of its signer; "recovery code" for the root
	What   string // what it says
	Void   string // why it has no effect; empty if it has
}

// History lists the edits in the order in which they count.
func (l *Log) History() []Event {
	l.mu.Lock()
	defer l.mu.Unlock()
	f := fold(l.edits, l.waiting(l.edits, l.seen))
	names := map[devices.NodeID]string{}
	if f.r != nil {
		names[devices.NodeID(f.r.Home)] = "recovery code"
	}
	if f.base != nil {
		maps.Copy(names, f.admitted())
	}
	var out []Event
	for _, en := range f.applied {
		e := en.edit
		if id, ok := keyID(e.Key); ok && names[id] == "" {
			names[id] = cmp.Or(e.Name, id.Short())
		}
		if e.Op == OpName && e.Kind == SubjectDevice && e.Name != "" && f.voids[en.hash] == nil {
			names[e.Node] = e.Name
		}
		ev := Event{Number: len(out) + 1, Hash: en.hash, Op: e.Op, By: cmp.Or(names[e.Signer], e.Signer.Short()), What: what(e, names)}
		if err := f.voids[en.hash]; err != nil {
			ev.Void = err.Error()
		}
		out = append(out, ev)
	}
	for _, p := range l.beside {
		e := p.edit
		out = append(out, Event{Number: len(out) + 1, Hash: p.hash, Op: e.Op, By: cmp.Or(names[e.Signer], e.Signer.Short()), What: what(e, names), Void: errBeside.Error()})
	}
	return out
}

// what says in a few words what an edit does.
func what(e Edit, names map[devices.NodeID]string) string {
	node := cmp.Or(names[e.Node], e.Node.Short())
	in := func(words string) string {
		if e.Room != "" {
			words += " in " + e.Room
		}
		return words
	}
	thing := cmp.Or(e.Slug, e.Name)
	if e.Name != "" && e.Slug != "" {
		thing = e.Slug + " is called " + e.Name
	}
	switch e.Op {
	case OpGenesis:
		return in(fmt.Sprintf("the home %s is born, with %s as its first owner", e.HomeName, e.Name))
	case OpAdmit:
		return in(fmt.Sprintf("%s joins as %s", e.Name, e.Role))
	case OpRemove:
		return node + " is removed"
	case OpPropose:
		return "wants " + node + " removed"
	case OpAgree:
		return "agrees: " + node + " is removed"
	case OpChange:
		return strings.TrimSpace(fmt.Sprintf("%s becomes %s %s", node, e.Role, e.Class))
	case OpName:
		if e.Kind == SubjectDevice {
			return in(node + " is called " + cmp.Or(e.Name, node))
		}
		return in(strings.TrimSpace(fmt.Sprintf("%s %s %s", e.Kind, thing, strings.Join(e.Members, ", "))))
	case OpForeign:
		return "foreign device " + thing
	case OpDelete:
		return strings.Join(strings.Fields(fmt.Sprintf("%s %s %s ends", e.Kind, e.Slug, e.Right)), " ")
	case OpRule:
		who := cmp.Or(strings.Join(e.Members, ", "), "nobody")
		return strings.TrimSpace(fmt.Sprintf("%s on %s: %s %s", e.Right, e.Slug, who, e.Hours))
	case OpPhone:
		return in(fmt.Sprintf("the phone %s of %s joins", e.Label, cmp.Or(e.Name, e.Slug)))
	case OpLost:
		return "a phone is removed"
	case OpPerson:
		return fmt.Sprintf("%s becomes %s", e.Slug, e.Role)
	case OpWebCA:
		return "the companion has a new certificate authority"
	case OpCheckpoint:
		return "all edits before this one are compacted"
	case OpMerge:
		return "joins what happened at once"
	}
	return "made by a newer version"
}
