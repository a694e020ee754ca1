package discovery

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/hallway-home/hallway/devices"
)

// maxThings bounds what a noisy LAN can make this node remember.
const maxThings = 1024

// Tracker merges the sightings of all protocols. Expiry is the sources' duty: each says
// Gone in its own way of knowing. Safe for concurrent use.
type Tracker struct {
	mu      sync.Mutex
	seen    map[string]Sighting // by source and ID
	changed chan struct{}       // closed and replaced at every change
}

// NewTracker makes an empty one.
func NewTracker() *Tracker {
	return &Tracker{seen: map[string]Sighting{}, changed: make(chan struct{})}
}

// Take applies one sighting and reports whether anything changed.
func (t *Tracker) Take(s Sighting) bool {
	key := s.Source + ":" + s.ID
	t.mu.Lock()
	defer t.mu.Unlock()
	_, known := t.seen[key]
	switch {
	case s.Gone && !known:
		return false
	case s.Gone:
		delete(t.seen, key)
	case !known && len(t.seen) >= maxThings:
		return false
	default:
		t.seen[key] = s
	}
	close(t.changed)
	t.changed = make(chan struct{})
	return true
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

// Foreign lists everything that is not ours, merged to one entry per thing: services of
// one host and instance name are one thing. isMember tells which Hallway nodes belong.
func (t *Tracker) Foreign(isMember func(Neighbour) bool) []devices.Foreign {
	t.mu.Lock()
	defer t.mu.Unlock()
	things := map[string]devices.Foreign{}
	for _, key := range slices.Sorted(maps.Keys(t.seen)) {
		s := t.seen[key]
		if n, err := ParseNeighbour(s); err == nil && isMember(n) {
			continue
		}
		id := s.Source + ":" + s.Instance + "@" + strings.TrimSuffix(s.Host, ".")
		f, ok := things[id]
		if !ok {
			f = devices.Foreign{ID: id, Name: s.Instance}
		}
		f.Kinds = addTo(f.Kinds, s.Kind)
		f.Protocols = addTo(f.Protocols, s.Source)
		for _, a := range s.Addrs {
			if !slices.Contains(f.Addrs, a) {
				f.Addrs = append(f.Addrs, a)
			}
		}
		if s.Seen.After(f.LastSeen) {
			f.LastSeen = s.Seen
		}
		things[id] = f
	}
	return slices.SortedFunc(maps.Values(things), func(a, b devices.Foreign) int { return cmp.Compare(a.ID, b.ID) })
}

func addTo(list []string, s string) []string {
	if slices.Contains(list, s) {
		return list
	}
	return append(list, s)
}
