package discovery

import (
	"cmp"
	"encoding/hex"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/hallway-home/hallway/devices"
)

// Thing is one device as all protocols and interfaces together see it.
type Thing struct {
	ID        string // "hallway:<16 hex>" for our own kind, else of its first sighting
	Name      string
	Is        string   // what it is, in a plain word; see WhatIs
	Kinds     []string // service types
	Protocols []string // sources
	Addrs     []netip.AddrPort
	Text      []string // of the Hallway service if there is one, else of the sighting that names it
	LastSeen  time.Time
}

// Foreign is the thing as the directory lists it.
func (t Thing) Foreign() devices.Foreign {
	return devices.Foreign{ID: t.ID, Name: t.Name, Is: t.Is, Kinds: t.Kinds, Addrs: t.Addrs, Protocols: t.Protocols, LastSeen: t.LastSeen}
}

// group is sightings that are surely of one thing.
type group struct {
	all []Sighting
	is  []string
}

// Merge folds the present sightings into things, by ID. It is pure: the order of its input
// does not matter.
//
// The rule. Sightings are of one thing if they claim the same Hallway node, the same UUID,
// or the same instance name on the same host by the same protocol. Beyond that, what is at
// one address is one thing if it is the same sort of thing or has the same name, provided
// that no two of them offer the same service and no two are devices of their own to one
// protocol (two UPnP or two ONVIF devices): so a camera that is seen by mDNS and by ONVIF is one thing, and
// a television that is a renderer and a cast receiver under one name is; a host with a
// renderer and a media server is two things, as are two accounts of one telephone box.
// Anybody can forge any of it: merging is a convenience, and nothing is trusted for it.
func Merge(seen []Sighting) []Thing {
	groups := surely(seen)
	var joined [][]*group
	at := map[string][]*group{}
	for _, g := range groups {
		joined = append(joined, []*group{g})
		for _, key := range g.meets() {
			at[key] = append(at[key], g)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(at)) {
		if together := at[key]; len(together) > 1 && !clash(together) {
			joined = unite(joined, together)
		}
	}
	out := make([]Thing, 0, len(joined))
	for _, gs := range joined {
		var all []Sighting
		for _, g := range gs {
			all = append(all, g.all...)
		}
		out = append(out, thingOf(all))
	}
	slices.SortFunc(out, func(a, b Thing) int { return cmp.Compare(a.ID, b.ID) })
	return out
}

// surely groups the sightings by identity, in the order of their keys.
func surely(seen []Sighting) []*group {
	by := map[string]*group{}
	for _, s := range seen {
		if s.Gone {
			continue
		}
		id := identity(s)
		if by[id] == nil {
			by[id] = &group{}
		}
		by[id].all = append(by[id].all, s)
	}
	var out []*group
	for _, id := range slices.Sorted(maps.Keys(by)) {
		g := by[id]
		g.is = words(kindsOf(g.all))
		out = append(out, g)
	}
	return out
}

// identity is what a sighting says for sure of which thing it is of. Two nodes that claim
// one ID become one thing with the addresses of both: the overlay's TLS tells them apart.
func identity(s Sighting) string {
	if p, ok := NodePrefix(s); ok {
		return "hallway:" + hex.EncodeToString(p[:])
	}
	if u, ok := uuidOf(s); ok {
		return "uuid:" + u
	}
	return s.Source + ":" + s.Instance + "@" + strings.TrimSuffix(s.Host, ".")
}

// uuidOf finds the UUID by which a device names itself in several protocols, as 32
// hexadecimal digits: UPnP's UDN, ONVIF's endpoint address, the id of a cast receiver.
func uuidOf(s Sighting) (string, bool) {
	id := ""
	switch {
	case s.Source == "ssdp":
		id = s.ID
	case s.Source == "wsd":
		id = strings.TrimPrefix(strings.TrimPrefix(s.ID, "urn:"), "uuid:")
	case s.Kind == "_googlecast._tcp":
		id = textOf(s, "id")
	}
	id = strings.ReplaceAll(strings.ToLower(id), "-", "")
	b, err := hex.DecodeString(id)
	return id, err == nil && len(b) == 16
}

func textOf(s Sighting, key string) string {
	for _, kv := range s.Text {
		if k, v, _ := strings.Cut(kv, "="); strings.EqualFold(k, key) {
			return v
		}
	}
	return ""
}

// meets lists where a group may meet others: each address with what it is and with its names.
func (g *group) meets() []string {
	if slices.Contains(g.is, isHallway) {
		return nil // a node is what its ID says, and nothing else
	}
	set := map[string]bool{}
	for _, s := range g.all {
		for _, a := range s.Addrs {
			where := a.Addr().Unmap().String()
			for _, is := range g.is {
				set[where+" is "+is] = true
			}
			set[where+" called "+strings.ToLower(called(s))] = true
		}
	}
	return slices.Collect(maps.Keys(set))
}

// clash reports whether groups that meet are different things after all.
func clash(together []*group) bool {
	offered := map[string]bool{}
	for _, g := range together {
		own := map[string]bool{}
		for _, s := range g.all {
			for _, k := range append([]string{s.Kind}, s.Also...) {
				own[k] = true
			}
			if s.Source != "mdns" { // there each service is one sighting; elsewhere each device is
				own["a device of "+s.Source] = true
			}
		}
		for k := range own {
			if offered[k] {
				return true
			}
			offered[k] = true
		}
	}
	return false
}

// unite joins the sets that hold these groups.
func unite(sets [][]*group, together []*group) [][]*group {
	var one []*group
	var rest [][]*group
	for _, set := range sets {
		if slices.ContainsFunc(set, func(g *group) bool { return slices.Contains(together, g) }) {
			one = append(one, set...)
		} else {
			rest = append(rest, set)
		}
	}
	return append(rest, one)
}

// thingOf makes one entry of all sightings of a thing. Its ID is that of the sighting that
// came into sight first, so that it stays when more is learnt; its name is the one that
// people gave it, if some protocol tells.
func thingOf(all []Sighting) Thing {
	first := slices.MinFunc(all, func(a, b Sighting) int {
		return cmp.Or(a.First.Compare(b.First), cmp.Compare(identity(a), identity(b)))
	})
	named := slices.MinFunc(all, func(a, b Sighting) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), b.Seen.Compare(a.Seen), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.ID, b.ID))
	})
	t := Thing{ID: identity(first), Name: called(named), Text: named.Text, Kinds: kindsOf(all)}
	t.Is = WhatIs(t.Kinds)
	for _, s := range all {
		t.Protocols = append(t.Protocols, s.Source)
		if named.Kind != Type || s.Kind == Type { // of a node: its member port, not its description's
			t.Addrs = append(t.Addrs, s.Addrs...)
		}
		if s.Seen.After(t.LastSeen) {
			t.LastSeen = s.Seen
		}
	}
	slices.Sort(t.Protocols)
	t.Protocols = slices.Compact(t.Protocols)
	slices.SortFunc(t.Addrs, netip.AddrPort.Compare)
	t.Addrs = slices.Compact(t.Addrs)
	return t
}

func kindsOf(all []Sighting) []string {
	var out []string
	for _, s := range all {
		out = append(append(out, s.Kind), s.Also...)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// rank orders the sightings of a thing by how likely a person chose the name.
func rank(s Sighting) int {
	switch {
	case s.Kind == Type:
		return 0
	case s.Source == "ssdp":
		return 1
	case s.Source == "mdns" && s.Kind != "_sipuri._udp": // which is called by its URI
		return 2
	}
	return 3
}

// called is the name in a sighting that people know, without what machines put around it.
func called(s Sighting) string {
	switch s.Kind {
	case "_googlecast._tcp":
		if n := textOf(s, "fn"); n != "" {
			return OneLine(n)
		}
	case "_raop._tcp": // "0011AABBCCDD@Kitchen"
		if mac, n, ok := strings.Cut(s.Instance, "@"); ok && len(mac) == 12 && n != "" {
			return OneLine(n)
		}
	}
	return OneLine(s.Instance)
}
