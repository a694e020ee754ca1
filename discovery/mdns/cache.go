package mdns

import (
	"fmt"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// maxEntries bounds the cache: a flood of invented records must not fill a small
// device's memory. A home with 100 devices has about 1,000 records.
const maxEntries = 4096

// entry is one record heard.
type entry struct {
	rr      dns.RR
	iface   int
	zone    string
	at      time.Time
	expires time.Time
	asked   int // refresh questions sent: at 80, 85, 90 and 95 % of its life
}

// cache holds what was heard, by name and type, then by identity.
type cache struct {
	byName map[string]map[string]*entry
	size   int
}

func newCache() *cache { return &cache{byName: map[string]map[string]*entry{}} }

// identity of a record: everything but TTL and the cache-flush bit.
func identity(rr dns.RR) string {
	h := rr.Header()
	data := strings.TrimPrefix(rr.String(), h.String())
	return fmt.Sprintf("%s %d %s", strings.ToLower(h.Name), h.Rrtype, data)
}

func nameKey(name string, t uint16) string { return strings.ToLower(name) + " " + dns.TypeToString[t] }

// put takes a record; it reports whether anything new is known by it.
func (c *cache) put(rr dns.RR, iface int, zone string, now time.Time) bool {
	h := rr.Header()
	key := nameKey(h.Name, h.Rrtype)
	id := identity(rr)
	if h.Rrtype == dns.TypeAAAA {
		id += zone
	}
	set := c.byName[key]
	if h.Class&flush != 0 {
		for _, o := range set { // section 10.2: older ones end in one second
			if o.iface == iface && now.Sub(o.at) > time.Second {
				o.expires = minTime(o.expires, now.Add(time.Second))
			}
		}
	}
	old := set[id]
	if h.Ttl == 0 { // section 10.1: goodbye
		if old != nil {
			old.expires = minTime(old.expires, now.Add(time.Second))
		}
		return false
	}
	fresh := entry{rr: rr, iface: iface, zone: zone, at: now, expires: now.Add(time.Duration(h.Ttl) * time.Second)}
	if old != nil {
		*old = fresh
		return false
	}
	if c.size >= maxEntries {
		return false
	}
	if set == nil {
		set = map[string]*entry{}
		c.byName[key] = set
	}
	set[id] = &fresh
	c.size++
	return true
}

// get lists the living records of a name and type.
func (c *cache) get(name string, t uint16, now time.Time) []*entry {
	var out []*entry
	for _, x := range c.byName[nameKey(name, t)] {
		if x.expires.After(now) {
			out = append(out, x)
		}
	}
	return out
}

// sweep drops what has expired and reports the names and types concerned.
func (c *cache) sweep(now time.Time) bool {
	dropped := false
	for key, set := range c.byName {
		for id, x := range set {
			if !x.expires.After(now) {
				delete(set, id)
				c.size--
				dropped = true
			}
		}
		if len(set) == 0 {
			delete(c.byName, key)
		}
	}
	return dropped
}

// refreshDue says at which moment the next refresh question of an entry is due
// (section 5.2), or false when all four were asked.
func (x *entry) refreshDue() (time.Time, bool) {
	if x.asked >= 4 {
		return time.Time{}, false
	}
	life := x.expires.Sub(x.at)
	return x.at.Add(life * time.Duration(80+5*x.asked) / 100), true
}

func minTime(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
