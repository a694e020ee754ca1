package discovery

import (
	"cmp"
	"context"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"time"
)

// Thing is one device as all protocols and interfaces together see it.
type Thing struct {
	ID        string // "hallway:<16 hex>" for our own kind, else "<source>:<instance>@<host>"
	Name      string
	Kinds     []string // service types
	Protocols []string // sources
	Addrs     []netip.AddrPort
	Text      []string // of the newest sighting; of the Hallway service if there is one
	LastSeen  time.Time
}

// thingID tells which thing a sighting belongs to. Two nodes that claim one ID become one
// thing with the addresses of both: the overlay's TLS tells them apart.
func thingID(s Sighting) string {
	if n, err := ParseNeighbour(s); err == nil {
		const digits = "0123456789abcdef"
		id := []byte("hallway:")
		for _, b := range n.Prefix {
			id = append(id, digits[b>>4], digits[b&15])
		}
		return string(id)
	}
	return s.Source + ":" + s.Instance + "@" + strings.TrimSuffix(s.Host, ".")
}

// Merge folds the present sightings into things, by ID. It is pure: the order of its
// input does not matter.
func Merge(seen []Sighting) []Thing {
	seen = slices.SortedFunc(slices.Values(seen), func(a, b Sighting) int {
		return cmp.Or(a.Seen.Compare(b.Seen), cmp.Compare(a.Source, b.Source), cmp.Compare(a.ID, b.ID))
	})
	things := map[string]*Thing{}
	for _, s := range seen {
		if s.Gone {
			continue
		}
		id := thingID(s)
		t := things[id]
		if t == nil {
			t = &Thing{ID: id}
			things[id] = t
		}
		t.Name, t.LastSeen = s.Instance, s.Seen
		if s.Kind == Type || !slices.Contains(t.Kinds, Type) {
			t.Text = s.Text
		}
		t.Kinds, t.Protocols = addTo(t.Kinds, s.Kind), addTo(t.Protocols, s.Source)
		for _, a := range s.Addrs {
			if !slices.Contains(t.Addrs, a) {
				t.Addrs = append(t.Addrs, a)
			}
		}
	}
	out := make([]Thing, 0, len(things))
	for _, id := range slices.Sorted(maps.Keys(things)) {
		t := things[id]
		slices.Sort(t.Kinds)
		slices.Sort(t.Protocols)
		slices.SortFunc(t.Addrs, netip.AddrPort.Compare)
		out = append(out, *t)
	}
	return out
}

// Change says what happened to a thing.
type Change string

// The changes of a thing.
const (
	Added   Change = "added"
	Updated Change = "updated"
	Removed Change = "removed"
)

// Event is one change; of a removed thing it holds the last state.
type Event struct {
	Change Change
	Thing  Thing
}

// Diff lists what changed between two sorted lists of things. LastSeen alone is no change.
func Diff(before, after []Thing) []Event {
	old := map[string]Thing{}
	for _, t := range before {
		old[t.ID] = t
	}
	var out []Event
	for _, t := range after {
		o, known := old[t.ID]
		delete(old, t.ID)
		o.LastSeen = t.LastSeen
		switch {
		case !known:
			out = append(out, Event{Added, t})
		case !reflect.DeepEqual(o, t):
			out = append(out, Event{Updated, t})
		}
	}
	for _, id := range slices.Sorted(maps.Keys(old)) {
		out = append(out, Event{Removed, old[id]})
	}
	return out
}

// Things lists what is in sight, by ID.
func (t *Tracker) Things() []Thing {
	t.mu.Lock()
	defer t.mu.Unlock()
	return Merge(slices.Collect(maps.Values(t.seen)))
}

// Watch calls f in the caller's goroutine with every change until ctx ends, first with all
// that is in sight. Changes that come while f runs are told as one.
func (t *Tracker) Watch(ctx context.Context, f func(Event)) error {
	var shown []Thing
	for {
		t.mu.Lock()
		changed := t.changed
		t.mu.Unlock()
		now := t.Things()
		for _, e := range Diff(shown, now) {
			f(e)
		}
		shown = now
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
}
