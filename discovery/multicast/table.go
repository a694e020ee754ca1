package multicast

import (
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"time"

	"github.com/hallway-home/hallway/discovery"
)

const (
	// maxThings bounds what a noisy LAN can make this node remember.
	maxThings = 256
	// maxPerHost: a host has a few devices; one that has hundreds is inventing them, and
	// must not fill the table for everybody.
	maxPerHost = 16
	// maxWays bounds on how many links and addresses one thing is remembered.
	maxWays = 8
	// againEvery is how often a thing that only repeats itself is reported, so that people
	// see when it was last heard.
	againEvery = time.Minute
)

// Way is how a thing is heard: on which link, from which host.
type Way struct {
	Iface int
	Host  netip.Addr
}

type heard struct {
	s     discovery.Sighting
	until time.Time
}

type thing struct {
	ways  map[Way]heard
	shown *discovery.Sighting
}

// Table makes one sighting of a thing that is heard on several links, and reports it when
// it appears, changes, or is heard on none any more.
type Table struct {
	Report func(discovery.Sighting)
	things map[string]*thing
	agenda *Agenda
	next   time.Time // of the next look for what has ended, or zero
}

// NewTable makes an empty one; Report is set before its first use. What has ended is
// forgotten by the agenda.
func NewTable(a *Agenda) *Table { return &Table{things: map[string]*thing{}, agenda: a} }

// Room reports whether a thing, perhaps a new one, may be remembered for this host.
func (t *Table) Room(id string, w Way) bool {
	if x := t.things[id]; x != nil {
		_, known := x.ways[w]
		return known || len(x.ways) < maxWays
	}
	n := 0
	for _, x := range t.things {
		for k := range x.ways {
			if k.Host == w.Host {
				n++
				break
			}
		}
	}
	return len(t.things) < maxThings && n < maxPerHost
}

// Put takes what was heard of a thing now, good for life.
func (t *Table) Put(s discovery.Sighting, w Way, life time.Duration) {
	if !t.Room(s.ID, w) {
		return
	}
	x := t.things[s.ID]
	if x == nil {
		x = &thing{ways: map[Way]heard{}}
		t.things[s.ID] = x
	}
	s.Seen = time.Now()
	x.ways[w] = heard{s, s.Seen.Add(life)}
	t.show(s.ID)
	t.expireAt(x.ways[w].until)
}

// Known returns what was last heard of a thing that way.
func (t *Table) Known(id string, w Way) (discovery.Sighting, bool) {
	if x := t.things[id]; x != nil {
		h, ok := x.ways[w]
		return h.s, ok
	}
	return discovery.Sighting{}, false
}

// Any returns what was reported of a thing.
func (t *Table) Any(id string) (discovery.Sighting, bool) {
	if x := t.things[id]; x != nil && x.shown != nil {
		return *x.shown, true
	}
	return discovery.Sighting{}, false
}

// Drop forgets the ways of a thing that f names.
func (t *Table) Drop(id string, f func(Way) bool) {
	if x := t.things[id]; x != nil {
		maps.DeleteFunc(x.ways, func(w Way, _ heard) bool { return f(w) })
		t.show(id)
	}
}

// DropAll forgets the ways that f names, of every thing.
func (t *Table) DropAll(f func(Way) bool) {
	for _, id := range slices.Sorted(maps.Keys(t.things)) {
		t.Drop(id, f)
	}
}

// expireAt puts a look for what has ended on the agenda, unless one comes before that.
func (t *Table) expireAt(at time.Time) {
	if !t.next.IsZero() && !at.Before(t.next) {
		return
	}
	t.next = at
	t.agenda.At(at, func() {
		if t.next.Equal(at) {
			t.expire()
		}
	})
}

// expire forgets what was not heard again in time.
func (t *Table) expire() {
	now, next := time.Now(), time.Time{}
	for _, id := range slices.Sorted(maps.Keys(t.things)) {
		x := t.things[id]
		n := len(x.ways)
		maps.DeleteFunc(x.ways, func(_ Way, h heard) bool { return !h.until.After(now) })
		for _, h := range x.ways {
			if next.IsZero() || h.until.Before(next) {
				next = h.until
			}
		}
		if len(x.ways) != n {
			t.show(id)
		}
	}
	if t.next = (time.Time{}); !next.IsZero() {
		t.expireAt(next)
	}
}

// show reports the difference between a thing and what was said of it: what it says is
// taken from the newest way, where it is from all.
func (t *Table) show(id string) {
	x := t.things[id]
	if len(x.ways) == 0 {
		delete(t.things, id)
		if x.shown != nil {
			gone := *x.shown
			gone.Gone, gone.Seen = true, time.Now()
			t.Report(gone)
		}
		return
	}
	var now discovery.Sighting
	var addrs []netip.AddrPort
	for _, h := range x.ways {
		if h.s.Seen.After(now.Seen) {
			now = h.s
		}
		addrs = append(addrs, h.s.Addrs...)
	}
	slices.SortFunc(addrs, netip.AddrPort.Compare)
	now.Addrs = slices.Compact(addrs)
	if x.shown != nil {
		before := *x.shown
		if now.Seen.Before(before.Seen) { // the newest way is gone
			now.Seen = before.Seen
		}
		before.Seen = now.Seen
		if reflect.DeepEqual(before, now) && now.Seen.Sub(x.shown.Seen) < againEvery {
			return
		}
	}
	x.shown = &now
	t.Report(now)
}
