package discovery

import (
	"maps"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/hallway-home/hallway/devices"
)

// maxThings bounds what a noisy LAN can make this node remember.
const maxThings = 1024

// Tracker merges the sightings of all protocols. Expiry is the sources' duty: each says
// Gone in its own way of knowing. Safe for concurrent use.
type Tracker struct {
	mu   sync.Mutex
	seen map[string]Sighting // by source and ID
}

// NewTracker makes an empty one.
func NewTracker() *Tracker { return &Tracker{seen: map[string]Sighting{}} }

// Take applies one sighting and reports whether anything changed, be it only when the
// thing was last seen.
func (t *Tracker) Take(s Sighting) bool {
	key := s.Source + ":" + s.ID
	t.mu.Lock()
	defer t.mu.Unlock()
	old, known := t.seen[key]
	switch {
	case s.Gone && !known:
		return false
	case s.Gone:
		delete(t.seen, key)
		return true
	case !known && len(t.seen) >= maxThings:
		return false
	}
	if s.First = old.First; !known {
		s.First = time.Now()
	}
	t.seen[key] = s
	return !reflect.DeepEqual(old, s)
}

// Neighbours lists the Hallway nodes in sight, by claimed ID.
func (t *Tracker) Neighbours() []Neighbour {
	t.mu.Lock()
	defer t.mu.Unlock()
	var out []Neighbour
	for _, s := range t.seen {
		if n, err := ParseNeighbour(s); err == nil {
			out = append(out, n)
		}
	}
	slices.SortFunc(out, func(a, b Neighbour) int { return slices.Compare(a.Prefix[:], b.Prefix[:]) })
	return out
}

// Things lists what is in sight, by ID.
func (t *Tracker) Things() []Thing {
	t.mu.Lock()
	defer t.mu.Unlock()
	return Merge(slices.Collect(maps.Values(t.seen)))
}

// Foreign lists everything that is not ours, merged to one entry per thing (see Merge), by
// ID. isMember tells which Hallway nodes, by the ID they claim, belong: those are in the
// directory by their own records, and never here.
func (t *Tracker) Foreign(isMember func(prefix [8]byte) bool) []devices.Foreign {
	t.mu.Lock()
	defer t.mu.Unlock()
	var strange []Sighting
	for s := range maps.Values(t.seen) {
		if p, ok := NodePrefix(s); !ok || !isMember(p) {
			strange = append(strange, s)
		}
	}
	things := Merge(strange)
	out := make([]devices.Foreign, len(things))
	for i, x := range things {
		out[i] = x.Foreign()
	}
	return out
}
