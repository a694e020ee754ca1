package mdns

import (
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"

	"github.com/hallway-home/hallway/discovery"
	"github.com/hallway-home/hallway/discovery/multicast"
)

// showEvery bounds how often the cache is compared with what was reported; the first
// change after a pause is shown at once.
const showEvery = 50 * time.Millisecond

// learn takes the records of a response that somebody here wants: pointers of browsed
// types, their services, and the hosts of those.
func (e *Engine) learn(l multicast.Link, from asker, m *dns.Msg) {
	now := time.Now()
	all := slices.DeleteFunc(slices.Concat(m.Answer, m.Ns, m.Extra), hollow)
	changed := false
	for _, wanted := range []func(dns.RR) bool{e.wantsPointer, e.wantsService, e.wantsAddr} {
		for _, rr := range all {
			if rr.Header().Class&^flush == dns.ClassINET && wanted(rr) {
				changed = e.store(l, from.src.Addr(), rr, now) || changed
			}
		}
	}
	for _, rr := range all {
		e.checkConflict(l, rr)
		e.heardAnswer(l, from.family(), rr)
	}
	if changed {
		e.dirty()
	}
	e.wakeWaiters()
}

// hollow reports a record without its data, which the parser lets through (an update of
// RFC 2136 has such): it would name a service or a host that has no name.
func hollow(rr dns.RR) bool {
	return rr.Header().Rdlength == 0 && rr.Header().Rrtype != dns.TypeTXT
}

func (e *Engine) wantsPointer(rr dns.RR) bool {
	return rr.Header().Rrtype == dns.TypePTR && e.browses[lower(rr.Header().Name)] != nil
}

func (e *Engine) wantsService(rr dns.RR) bool {
	h := rr.Header()
	if h.Rrtype != dns.TypeSRV && h.Rrtype != dns.TypeTXT {
		return false
	}
	_, rest, ok := cutLabel(h.Name)
	if !ok {
		return false
	}
	rest = lower(rest)
	for _, b := range e.browses {
		if lower(b.base) == rest {
			return true
		}
	}
	return false
}

// wantsAddr takes addresses of hosts that services name, that are being looked up, or that
// were: what becomes of a cached address must not be missed.
func (e *Engine) wantsAddr(rr dns.RR) bool {
	_, ok := rrAddr(rr)
	name := lower(rr.Header().Name)
	return ok && (e.targets[name] || e.waiters[name] != nil ||
		e.cache.byName[nameType{name, dns.TypeA}] != nil || e.cache.byName[nameType{name, dns.TypeAAAA}] != nil)
}

// store puts one wanted record into the cache and reports whether anything changed.
func (e *Engine) store(l multicast.Link, src netip.Addr, rr dns.RR, now time.Time) bool {
	x := entry{rr: rr, iface: l.Index, src: src}
	if a, ok := rrAddr(rr); ok {
		if !plausible(l, a) {
			return false
		}
		if a.Is6() && a.IsLinkLocalUnicast() {
			x.zone = l.Name
		}
	}
	changed := e.cache.put(x, now)
	if ttl := rr.Header().Ttl; ttl > 0 {
		e.sweepBy(now.Add(time.Duration(min(ttl, maxTTL)) * time.Second * 80 / 100)) // its first refresh
	}
	if srv, ok := rr.(*dns.SRV); ok && rr.Header().Ttl > 0 && len(e.targets) < maxEntries {
		e.targets[lower(srv.Target)] = true
	}
	return changed
}

// plausible reports whether an address record heard on this link may be believed: it
// must lead to the link or into somebody's private network. Else one forged record would
// make this node dial an address on the internet, or itself.
func plausible(l multicast.Link, a netip.Addr) bool {
	switch {
	case !a.IsValid() || a.IsUnspecified() || a.IsMulticast():
		return false
	case a.IsLoopback():
		return l.Loopback
	default:
		return l.OnLink(a) || a.IsPrivate()
	}
}

// dirty puts a comparison on the agenda, and another for what ends in a second.
func (e *Engine) dirty() {
	if e.showing {
		return
	}
	e.showing = true
	e.loop.After(showEvery-min(showEvery, time.Since(e.lastShow)), func() {
		e.showing, e.lastShow = false, time.Now()
		e.show()
	})
}

// show compares what the cache says of the browsed types with what was reported, and
// reports the difference: each thing once, however many links it is heard on.
func (e *Engine) show() {
	now := time.Now()
	current := map[string]discovery.Sighting{}
	ending := time.Time{}
	for _, b := range e.browses {
		for _, x := range e.cache.get(b.name, dns.TypePTR, now) {
			if s, ok := e.resolve(b, x.rr.(*dns.PTR).Ptr, now); ok {
				current[s.ID] = s
			}
		}
	}
	e.cache.each(func(x *entry) {
		if ending.IsZero() || x.expires.Before(ending) {
			ending = x.expires
		}
	})
	if d := ending.Sub(now); !ending.IsZero() && d <= goodbyeAfter {
		e.loop.After(max(d, 0)+time.Millisecond, func() { e.expire(time.Now()) })
	}
	e.tell(current)
}

func (e *Engine) tell(current map[string]discovery.Sighting) {
	for _, id := range slices.Sorted(maps.Keys(e.shown)) {
		if _, ok := current[id]; !ok {
			gone := e.shown[id]
			gone.Gone, gone.Seen = true, time.Now()
			delete(e.shown, id)
			e.report(gone)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(current)) {
		s := current[id]
		if old, ok := e.shown[id]; !ok || !same(old, s) {
			e.shown[id] = s
			e.report(s)
		}
	}
}

func same(a, b discovery.Sighting) bool {
	return a.Host == b.Host && slices.Equal(a.Addrs, b.Addrs) && slices.Equal(a.Text, b.Text)
}

// resolve puts an instance together from SRV, TXT and addresses; what is missing is
// asked for.
func (e *Engine) resolve(b *browse, inst string, now time.Time) (discovery.Sighting, bool) {
	label, rest, ok := cutLabel(inst)
	if !ok || !strings.EqualFold(rest, b.base) {
		return discovery.Sighting{}, false
	}
	s := discovery.Sighting{Source: "mdns", ID: lower(inst), Kind: b.kind, Instance: label, Seen: now}
	srvs, txts := e.cache.get(inst, dns.TypeSRV, now), e.cache.get(inst, dns.TypeTXT, now)
	if len(txts) == 0 {
		e.fill(inst, dns.TypeTXT)
	}
	if len(srvs) == 0 {
		e.fill(inst, dns.TypeSRV)
	}
	if len(srvs) == 0 || len(txts) == 0 && !e.hasNoText(inst) {
		return s, false
	}
	srv := newest(srvs).rr.(*dns.SRV)
	s.Host = unescape(strings.TrimSuffix(srv.Target, "."))
	if len(txts) > 0 {
		s.Text = unescapeText(newest(txts).rr.(*dns.TXT).Txt)
	}
	for _, a := range e.addrsOf(srv.Target, now) {
		s.Addrs = append(s.Addrs, netip.AddrPortFrom(a, srv.Port))
	}
	if len(s.Addrs) == 0 {
		e.fill(srv.Target, dns.TypeA)
		e.fill(srv.Target, dns.TypeAAAA)
		return s, false
	}
	return s, true
}

// hasNoText reports whether a service was asked for its TXT record in vain: that means
// the same as an empty one (RFC 6763 section 6.1).
func (e *Engine) hasNoText(inst string) bool {
	asking, ok := e.pending[nameType{lower(inst), dns.TypeTXT}]
	_, shown := e.shown[lower(inst)]
	return ok && !asking || shown
}

func newest(list []*entry) *entry {
	return slices.MaxFunc(list, func(a, b *entry) int { return a.at.Compare(b.at) })
}

// addrsOf lists the addresses of a host, over all links, sorted.
func (e *Engine) addrsOf(host string, now time.Time) []netip.Addr {
	var out []netip.Addr
	for _, t := range []uint16{dns.TypeA, dns.TypeAAAA} {
		for _, x := range e.cache.get(host, t, now) {
			if a, ok := rrAddr(x.rr); ok {
				out = append(out, a.WithZone(x.zone))
			}
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out)
}
