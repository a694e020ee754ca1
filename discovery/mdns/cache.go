package mdns

import (
	"math/rand/v2"
	"net/netip"
	"time"

	"github.com/miekg/dns"
)

const (
	// maxEntries bounds the cache: a flood of invented records must not fill a small
	// device's memory. A home with 100 devices has about 1,000 records.
	maxEntries = 4096
	// maxFromSource leaves room for others when one source invents records; a reflector
	// that speaks for a whole second subnet stays below it.
	maxFromSource = 1024
	// maxInstances bounds the services of one type, maxOfName the records of one type
	// that another name may have (addresses, mostly).
	maxInstances, maxOfName = 512, 16
	// maxTTL: a forged record must not stay for 68 years; no TTL in RFC 6762 is longer.
	maxTTL = ttlOther
	// goodbyeAfter: a record taken back lives one more second, in which another holder
	// may renew it (section 10.1); likewise an older one that a flush ends (10.2).
	goodbyeAfter = time.Second
	// refreshes: asked at 80, 85, 90 and 95 % of its life (section 5.2).
	refreshes = 4
)

// entry is one record heard on one link.
type entry struct {
	rr      dns.RR
	iface   int
	zone    string // of a link-local address
	src     netip.Addr
	at      time.Time
	expires time.Time
	asked   int           // refresh questions sent
	spread  time.Duration // up to 2 % of its life, so that not all ask at once
}

type nameType struct {
	name string // lower case
	kind uint16
}

type entryKey struct {
	data  string
	iface int
}

// cache holds what was heard, by name and type, then by content and link.
type cache struct {
	byName   map[nameType]map[entryKey]*entry
	bySource map[netip.Addr]int
	size     int
}

func newCache() *cache {
	return &cache{byName: map[nameType]map[entryKey]*entry{}, bySource: map[netip.Addr]int{}}
}

// put takes a record heard on a link; it reports whether the picture changed, now or in
// a second.
func (c *cache) put(x entry, now time.Time) bool {
	h := x.rr.Header()
	id := identity(x.rr)
	name, key := nameType{id.name, id.kind}, entryKey{id.data, x.iface}
	set := c.byName[name]
	changed := false
	if h.Class&flush != 0 {
		for k, o := range set {
			if k != key && o.iface == x.iface && now.Sub(o.at) > time.Second {
				changed = o.endBy(now.Add(goodbyeAfter)) || changed
			}
		}
	}
	old := set[key]
	if h.Ttl == 0 {
		return old != nil && old.endBy(now.Add(goodbyeAfter)) || changed
	}
	life := time.Duration(min(h.Ttl, maxTTL)) * time.Second
	x.at, x.expires = now, now.Add(life)
	x.spread = rand.N(life/100 + 1) //nolint:gosec // spreads load, no secret
	if _, isAddr := rrAddr(x.rr); isAddr {
		x.spread += life / 100 // a service asked for before brings its addresses along
	}
	if old != nil {
		x.src = old.src // counted for who said it first
		*old = x
		return changed
	}
	limit := maxOfName
	if id.kind == dns.TypePTR {
		limit = maxInstances
	}
	if c.bySource[x.src] >= maxFromSource || len(set) >= limit && !c.makeRoomIn(name, x.src) || c.size >= maxEntries && !c.makeRoom(x.src) {
		return changed
	}
	if set = c.byName[name]; set == nil {
		set = map[entryKey]*entry{}
		c.byName[name] = set
	}
	set[key] = &x
	c.size++
	c.bySource[x.src]++
	return true
}

// makeRoom drops one entry of the source that has the most, if that is more than the new
// one has: who fills the cache must not keep others out until its inventions expire.
func (c *cache) makeRoom(src netip.Addr) bool {
	greedy, most := netip.Addr{}, c.bySource[src]+1
	for a, n := range c.bySource {
		if n > most {
			greedy, most = a, n
		}
	}
	for name, set := range c.byName {
		if greedy.IsValid() && c.dropOne(name, set, greedy) {
			return true
		}
	}
	return false
}

// makeRoomIn does so among the records of one name and type.
func (c *cache) makeRoomIn(name nameType, src netip.Addr) bool {
	count := map[netip.Addr]int{}
	for _, x := range c.byName[name] {
		count[x.src]++
	}
	greedy, most := netip.Addr{}, count[src]+1
	for a, n := range count {
		if n > most {
			greedy, most = a, n
		}
	}
	return greedy.IsValid() && c.dropOne(name, c.byName[name], greedy)
}

func (c *cache) dropOne(name nameType, set map[entryKey]*entry, src netip.Addr) bool {
	for key, x := range set {
		if x.src == src {
			c.remove(name, key)
			return true
		}
	}
	return false
}

func (c *cache) remove(name nameType, key entryKey) {
	set := c.byName[name]
	x := set[key]
	delete(set, key)
	if len(set) == 0 {
		delete(c.byName, name)
	}
	c.size--
	if c.bySource[x.src]--; c.bySource[x.src] <= 0 {
		delete(c.bySource, x.src)
	}
}

// endBy shortens a life and reports whether it did.
func (x *entry) endBy(t time.Time) bool {
	if !t.Before(x.expires) {
		return false
	}
	x.expires, x.asked = t, refreshes
	return true
}

// get lists the living records of a name and type, in no order.
func (c *cache) get(name string, t uint16, now time.Time) []*entry {
	var out []*entry
	for _, x := range c.byName[nameType{lower(name), t}] {
		if x.expires.After(now) {
			out = append(out, x)
		}
	}
	return out
}

// drop forgets the entries that gone names and reports whether there were any.
func (c *cache) drop(gone func(*entry) bool) bool {
	before := c.size
	for name, set := range c.byName {
		for key, x := range set {
			if gone(x) {
				c.remove(name, key)
			}
		}
	}
	return c.size != before
}

// each visits every entry.
func (c *cache) each(f func(*entry)) {
	for _, set := range c.byName {
		for _, x := range set {
			f(x)
		}
	}
}

// refreshAt is when the next refresh question of an entry is due, or its end.
func (x *entry) refreshAt() time.Time {
	if x.asked >= refreshes {
		return x.expires
	}
	life := x.expires.Sub(x.at)
	return x.at.Add(life*time.Duration(80+5*x.asked)/100 + x.spread)
}
