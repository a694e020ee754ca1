package devices

import (
	"cmp"
	"maps"
	"slices"
	"strings"
)

// maxGroupDepth bounds groups inside groups, so that two owners who make a circle by
// concurrent edits cannot hang a look-up.
const maxGroupDepth = 4

// Fold makes the directory from everything this node knows. It is pure: equal inputs
// give equal snapshots. Only the roster makes a member and only a member's own record
// fills its row; a foreign thing never becomes a device by itself.
func Fold(in Inputs) *Snapshot {
	s := &Snapshot{byAOR: map[string]Resolution{}, asleep: map[string][]NodeID{}, wakesBy: map[string][]string{}, Foreign: slices.Clone(in.Foreign)}
	slices.SortFunc(s.Foreign, func(a, b Foreign) int { return cmp.Compare(a.ID, b.ID) })
	if in.Roster == nil {
		return s
	}
	s.Home = in.Roster.Home
	for id, m := range in.Roster.Members {
		s.Devices = append(s.Devices, foldDevice(in, id, m))
	}
	slices.SortFunc(s.Devices, func(a, b Device) int { return cmp.Compare(a.Slug, b.Slug) })
	s.Rooms = sortedValues(in.Roster.Rooms)
	s.Groups = sortedValues(in.Roster.Groups)
	s.Persons = sortedValues(in.Roster.Persons)
	for _, a := range sortedValues(in.Roster.Adopted) {
		s.Spoken = append(s.Spoken, foldSpoken(in, a))
	}
	for _, p := range s.Persons {
		rows := foldPhones(in, p)
		s.Bound = append(s.Bound, rows...)
		s.foldWakes(in, p)
		if p.Room != "" && len(p.Nodes) > 0 {
			s.Panels = append(s.Panels, foldPanel(in, p, rows))
		}
	}
	s.index()
	return s
}

// foldPhone is the row of a person's phones that are not reached.
func foldPhone(in Inputs, p Person) Device {
	d := Device{
		AOR: AOR{Slug: p.Slug, Home: in.Roster.Home}, Slug: p.Slug, Name: p.Name, Room: p.Room, Class: ClassPhone,
		Status: Unreachable, Person: p.Slug, Capabilities: in.Phone.Capabilities, Behaviour: in.Phone.Behaviour,
	}
	if p.Room != "" {
		d.Class = ClassPanel
	}
	return d
}

// foldPanel makes the one row of a wall panel: that through which it is reached, if there is one.
func foldPanel(in Inputs, p Person, rows []Device) Device {
	if i := slices.IndexFunc(rows, func(d Device) bool { return d.Status == Reachable }); i >= 0 {
		return rows[i]
	}
	if len(rows) > 0 {
		return rows[0]
	}
	return foldPhone(in, p)
}

// foldPhones makes a row for each node through which phones of a person are reached now.
func foldPhones(in Inputs, p Person) []Device {
	rows := map[NodeID]*Device{}
	for _, id := range p.Nodes {
		b, ok := in.Bindings[id]
		if !ok || b.Asleep || !in.Roster.Has(b.Node) {
			continue
		}
		d := rows[b.Node]
		if d == nil {
			x := foldPhone(in, p)
			d, x.Node = &x, b.Node
			if in.reached(b.Node) {
				d.Status = Reachable
			}
			rows[b.Node] = d
		}
		d.LastHeard = in.Live[b.Node].LastHeard
		d.Phones = append(d.Phones, BoundPhone{ID: id, Fingerprints: b.Fingerprints})
		d.Presence = best(d.Presence, presenceOf(d.Status, b.presence()))
	}
	out := make([]Device, 0, len(rows))
	for _, d := range rows {
		out = append(out, *d)
	}
	slices.SortFunc(out, func(a, b Device) int { return cmp.Compare(a.Node.String(), b.Node.String()) })
	return out
}

// foldWakes notes which phones of a person can be woken, and by whom. One that does not want to be disturbed is left
// alone. The node through which it was reached last may be gone with it.
func (s *Snapshot) foldWakes(in Inputs, p Person) {
	for _, id := range p.Nodes {
		b := in.Bindings[id]
		if b.WakesBy == "" {
			continue
		}
		if !slices.Contains(s.wakesBy[p.Slug], b.WakesBy) {
			s.wakesBy[p.Slug] = append(s.wakesBy[p.Slug], b.WakesBy)
		}
		if !b.Quiet && (b.Asleep || !in.reached(b.Node)) {
			s.asleep[p.Slug] = append(s.asleep[p.Slug], id)
		}
	}
}

// reached reports whether a node has a flow to this one, or is it.
func (in Inputs) reached(id NodeID) bool { return id == in.Self || in.Live[id].Reachable }

func foldDevice(in Inputs, id NodeID, m Member) Device {
	d := Device{
		AOR: AOR{Slug: m.Slug, Home: in.Roster.Home}, Slug: m.Slug, Name: m.Name, Room: m.Room,
		Class: m.Class, Node: id, Role: m.Role, Self: id == in.Self,
	}
	rec, known := in.Records[id]
	if known {
		d.Version, d.Capabilities, d.Behaviour = rec.Version, rec.Capabilities, rec.Behaviour
		for _, a := range rec.Addrs {
			d.Addrs = append(d.Addrs, a.String())
		}
	}
	live := in.Live[id]
	d.LastHeard = live.LastHeard
	switch {
	case d.Self, live.Reachable && known:
		d.Status = Reachable
	case known:
		d.Status = Unreachable
	default:
		d.Status = NeverSeen
	}
	d.Presence = presenceOf(d.Status, rec.Presence)
	return d
}

// foldSpoken makes the row of a foreign device. Of several speakers the first counts for
// which most is true: it has looked, it can be reached, the device answers it.
func foldSpoken(in Inputs, a Adopted) Device {
	d := Device{
		AOR: AOR{Slug: a.Slug, Home: in.Roster.Home}, Slug: a.Slug, Name: a.Name, Room: a.Room, Class: a.Class,
		Status: NeverSeen, Foreign: true, Speakers: a.Speakers,
	}
	best := -1
	for _, id := range a.Speakers {
		if !in.Roster.Has(id) {
			continue
		}
		rec, known := in.Spoken[SpokenKey{a.Slug, id}]
		rank, status := 0, NeverSeen
		if known {
			rank, status = 1, Unreachable
		}
		if known && in.reached(id) {
			rank = 2
			if rec.Fault == "" {
				rank, status = 3, Reachable
			}
		}
		if rank > best {
			best = rank
			d.Node, d.Status, d.Fault, d.LastHeard = id, status, rec.Fault, in.Live[id].LastHeard
			d.Capabilities, d.Behaviour = rec.Capabilities, rec.Behaviour
		}
	}
	d.Presence = presenceOf(d.Status, Free)
	return d
}

func sortedValues[T any](m map[string]T) []T {
	out := make([]T, 0, len(m))
	for _, k := range slices.Sorted(maps.Keys(m)) {
		out = append(out, m[k])
	}
	return out
}

// index fills byAOR. Slugs share one name space, so no entry hides another.
func (s *Snapshot) index() {
	add := func(kind AORKind, slug, name string, devices []Device) {
		s.byAOR[slug] = Resolution{AOR: AOR{Slug: slug, Home: s.Home}, Kind: kind, Name: name, Devices: devices, Asleep: s.sleepers(func(p Person) bool {
			return kind == KindPerson && p.Slug == slug || kind == KindRoom && p.Room == slug
		})}
	}
	for _, d := range s.Devices {
		add(KindDevice, d.Slug, d.Name, []Device{d})
	}
	for _, r := range s.Rooms {
		add(KindRoom, r.Slug, r.Name, s.where(func(d Device) bool { return d.Room == r.Slug }))
	}
	for _, p := range s.Persons {
		add(KindPerson, p.Slug, p.Name, s.where(func(d Device) bool {
			return d.Person == p.Slug || d.Person == "" && !d.Foreign && slices.Contains(p.Nodes, d.Node)
		}))
	}
	for _, d := range s.Spoken {
		add(KindForeign, d.Slug, d.Name, []Device{d})
	}
	for _, g := range s.Groups {
		in := map[string]bool{}
		s.collect(g, in, maxGroupDepth)
		add(KindGroup, g.Slug, g.Name, s.where(func(d Device) bool { return in[d.Slug] }))
		r := s.byAOR[g.Slug]
		r.Asleep = s.sleepers(func(p Person) bool { return in[p.Slug] || in[p.Room] })
		s.byAOR[g.Slug] = r
	}
}

// sleepers are the phones of those persons that can be woken.
func (s *Snapshot) sleepers(of func(Person) bool) []NodeID {
	var out []NodeID
	for _, p := range s.Persons {
		if of(p) {
			out = append(out, s.asleep[p.Slug]...)
		}
	}
	return out
}

func (s *Snapshot) where(keep func(Device) bool) []Device {
	var out []Device
	for _, d := range slices.Concat(s.Devices, s.Spoken, s.Bound) {
		if keep(d) {
			out = append(out, d)
		}
	}
	slices.SortStableFunc(out, func(a, b Device) int { return cmp.Compare(a.Slug, b.Slug) })
	return out
}

// collect gathers the members of a group, which may be devices, rooms, persons and groups, and the slugs of the
// devices behind them.
func (s *Snapshot) collect(g Group, into map[string]bool, depth int) {
	if depth == 0 {
		return
	}
	for _, slug := range g.Members {
		if i := slices.IndexFunc(s.Groups, func(x Group) bool { return x.Slug == slug }); i >= 0 {
			s.collect(s.Groups[i], into, depth-1)
			continue
		}
		into[slug] = true
		for _, d := range s.byAOR[slug].Devices {
			into[d.Slug] = true
		}
	}
}

// Slug makes the name part of a SIP URI from what a person typed: the part before "@"
// of "sip:NAME@HOME", or the text itself, in lower case with hyphens for spaces.
func Slug(target string) string {
	t := strings.TrimPrefix(strings.TrimSpace(target), "sip:")
	t, _, _ = strings.Cut(t, "@")
	return strings.ReplaceAll(strings.ToLower(t), " ", "-")
}
