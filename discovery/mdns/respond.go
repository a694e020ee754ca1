package mdns

import (
	"net/netip"
	"slices"
	"time"

	"github.com/miekg/dns"

	"github.com/hallway-home/hallway/discovery/multicast"
)

const (
	// a question whose known answers continue in further packets waits for them (7.2).
	holdMin, holdMax = 400 * time.Millisecond, 500 * time.Millisecond
	// maxHeld and maxKnown bound what such questions make us keep.
	maxHeld, maxKnown = 16, 1024
	// maxQuestions bounds the work one packet can cause.
	maxQuestions = 64
	// legacyTTL: a plain resolver must not cache for long (section 6.7).
	legacyTTL = 10
)

// asker is where a query came from, and how.
type asker struct {
	src     netip.AddrPort
	unicast bool // not to the group
}

// families are a bit set; every multicast goes to each family that a link has.
type families uint8

func (a asker) family() families {
	if a.src.Addr().Unmap().Is4() {
		return 1
	}
	return 2
}

func familiesOf(l multicast.Link) (f families) {
	if _, ok := l.Source(false); ok {
		f |= 1
	}
	if _, ok := l.Source(true); ok {
		f |= 2
	}
	return f
}

// heldQuery waits for the rest of its known answers.
type heldQuery struct {
	msg   *dns.Msg
	known []dns.RR
}

func response() *dns.Msg {
	m := new(dns.Msg)
	m.Response, m.Authoritative = true, true
	return m
}

// asked takes a query: a probe, a question, or the rest of one.
func (e *Engine) asked(l multicast.Link, from asker, q *dns.Msg) {
	if len(q.Question) > maxQuestions {
		return
	}
	if h := e.held[from.src]; h != nil && len(q.Question) == 0 {
		if len(h.known)+len(q.Answer) <= maxKnown {
			h.known = append(h.known, q.Answer...)
		}
		return
	}
	if len(q.Ns) > 0 {
		e.tieBreak(l, q)
	}
	e.overhear(l, from, q)
	if q.Truncated && from.src.Port() == port && e.held[from.src] == nil && len(e.held) < maxHeld {
		h := &heldQuery{msg: q, known: q.Answer}
		e.held[from.src] = h
		e.loop.After(multicast.Jitter(holdMin, holdMax), func() {
			delete(e.held, from.src)
			h.msg.Answer = h.known
			if now, ok := e.loop.Links[l.Index]; ok {
				e.answer(now, from, h.msg)
			}
		})
		return
	}
	e.answer(l, from, q)
}

// answer replies to a query with what is registered here: one answer for all of it.
func (e *Engine) answer(l multicast.Link, from asker, q *dns.Msg) {
	legacy := from.src.Port() != port
	var found matches
	for _, r := range e.regs {
		if !r.ready[l.Index] {
			continue
		}
		for _, qu := range q.Question {
			switch {
			case legacy:
				qu.Qclass &^= flush
			case from.unicast:
				qu.Qclass |= flush // section 5.5: as if a unicast answer were asked for
			}
			found.add(e, r, qu, l)
		}
	}
	if legacy {
		e.answerLegacy(l, from.src, q, found)
		return
	}
	known := knownTTLs(q.Answer)
	if direct := whole(found.direct, known.has); len(direct) > 0 {
		e.unicast(l, from.src, response(), direct, whole(found.extra, known.has))
	}
	pause := resendAfter
	if len(q.Ns) > 0 {
		pause = defendAfter
	}
	recent := func(rr dns.RR) bool { return known.has(rr) || e.sentWithin(l, rr, pause) }
	if now := whole(found.unique, recent); len(now) > 0 {
		e.respond(l, now, found.extra)
	}
	if later := whole(found.shared, recent); len(later) > 0 {
		e.answerLater(l, from, later, found.extra)
	}
}

// answerLegacy serves a plain DNS resolver that asked the group (section 6.7).
func (e *Engine) answerLegacy(l multicast.Link, src netip.AddrPort, q *dns.Msg, found matches) {
	plain := func(rrs []dns.RR) (out []dns.RR) {
		for _, rr := range rrs {
			c := dns.Copy(rr)
			c.Header().Class &^= flush
			c.Header().Ttl = min(c.Header().Ttl, legacyTTL)
			out = append(out, c)
		}
		return out
	}
	answers := plain(once(append(found.unique, found.shared...)))
	if len(answers) == 0 {
		return
	}
	m := response()
	m.Id, m.Question = q.Id, q.Question
	e.unicast(l, src, m, answers, plain(once(found.extra)))
}

// unicast answers one asker in one packet, as far as it holds (section 7.2 does not
// apply). The on-link check and the limits bound what a forged source can make us send.
func (e *Engine) unicast(l multicast.Link, to netip.AddrPort, m *dns.Msg, answers, extras []dns.RR) {
	if !e.replies.Take(unicastPerSecond, unicastPerSecond) {
		return
	}
	size := 12
	for _, q := range m.Question {
		size += len(q.Name) + 6
	}
	for _, rr := range answers {
		if n := dns.Len(rr); size+n <= maxPacket {
			m.Answer, size = append(m.Answer, rr), size+n
		} else {
			m.Truncated = m.Id != 0 // only a plain resolver can ask again by other means
		}
	}
	m.Extra = fitting(without(extras, m.Answer), &size)
	m.Compress = true
	if data, err := m.Pack(); err == nil && len(data) <= maxPacket {
		if err := e.loop.Net.Unicast(l, to, data); err != nil {
			e.log.Debug("mDNS answer failed", "to", to, "err", err)
		}
	}
}

// matches are the records that answer a query, and those that save the next one.
type matches struct{ unique, shared, direct, extra []dns.RR }

// add finds what one registration has to say to a question on a link.
func (f *matches) add(e *Engine, r *Registration, q dns.Question, l multicast.Link) {
	if class := q.Qclass &^ flush; class != dns.ClassINET && class != dns.ClassANY {
		return
	}
	unique, shared, extra := r.match(q, l)
	if q.Qclass&flush != 0 {
		// Section 5.4: by unicast, unless the group has not heard it for a quarter of its life.
		unique, shared = f.split(e, l, unique), f.split(e, l, shared)
	}
	f.unique, f.shared, f.extra = append(f.unique, unique...), append(f.shared, shared...), append(f.extra, extra...)
}

func (f *matches) split(e *Engine, l multicast.Link, rrs []dns.RR) (rest []dns.RR) {
	for _, rr := range rrs {
		if e.sentWithin(l, rr, time.Duration(rr.Header().Ttl)*time.Second/4) {
			f.direct = append(f.direct, rr)
		} else {
			rest = append(rest, rr)
		}
	}
	return rest
}

// match compares one question with one registration.
func (r *Registration) match(q dns.Question, l multicast.Link) (unique, shared, extra []dns.RR) {
	is := func(t uint16) bool { return q.Qtype == t || q.Qtype == dns.TypeANY }
	name := lower(q.Name)
	for _, rr := range r.shared(l) {
		if !is(rr.Header().Rrtype) || lower(rr.Header().Name) != name {
			continue
		}
		shared = append(shared, rr)
		if name != allTypes && !r.hostOnly {
			extra = r.unique(l)
		}
	}
	var all []dns.RR
	switch {
	case r.hostOnly: // what else the others have is not ours to say
	case name == lower(r.fullName()):
		all, extra = []dns.RR{r.srv(), r.txt()}, r.addrs(l)
	case name == lower(r.hostName()):
		all = r.addrs(l)
		extra = all // section 6.2: the other family comes along
	}
	if len(all) == 0 {
		return nil, shared, extra
	}
	var types []uint16
	for _, rr := range all {
		types = append(types, rr.Header().Rrtype)
		if is(rr.Header().Rrtype) {
			unique = append(unique, rr)
		}
	}
	if len(unique) == 0 {
		unique = []dns.RR{nothingElse(all[0].Header().Name, types...)}
	}
	return unique, shared, extra
}

// knownAnswers are the TTLs of what an asker knows.
type knownAnswers map[recordID]uint32

func knownTTLs(rrs []dns.RR) knownAnswers {
	k := knownAnswers{}
	for _, rr := range rrs {
		k[identity(rr)] = rr.Header().Ttl
	}
	return k
}

// has reports whether the asker knows a record with at least half its life left (7.1).
func (k knownAnswers) has(rr dns.RR) bool {
	if len(k) == 0 {
		return false
	}
	ttl, ok := k[identity(rr)]
	return ok && ttl >= rr.Header().Ttl/2
}

// whole leaves out what may be skipped, each record once. A set of unique records is
// skipped or kept as a whole: half of it with the cache-flush bit would end the other
// half in every cache (section 10.2).
func whole(rrs []dns.RR, skip func(dns.RR) bool) []dns.RR {
	needed, seen := map[nameType]bool{}, map[recordID]bool{}
	for _, rr := range rrs {
		if unique(rr) && !skip(rr) {
			needed[setOf(rr)] = true
		}
	}
	var out []dns.RR
	for _, rr := range rrs {
		id := identity(rr)
		if !seen[id] && (needed[setOf(rr)] || !unique(rr) && !skip(rr)) {
			out = append(out, rr)
		}
		seen[id] = true
	}
	return out
}

// once drops repetitions.
func once(rrs []dns.RR) []dns.RR { return whole(rrs, func(dns.RR) bool { return false }) }

func unique(rr dns.RR) bool { return rr.Header().Class&flush != 0 }

func setOf(rr dns.RR) nameType { return nameType{lower(rr.Header().Name), rr.Header().Rrtype} }

// fitting lists the sets of records that still find room in a packet.
func fitting(rrs []dns.RR, size *int) []dns.RR {
	room := map[nameType]int{}
	for _, rr := range rrs {
		room[setOf(rr)] += dns.Len(rr)
	}
	return slices.DeleteFunc(slices.Clone(rrs), func(rr dns.RR) bool {
		switch n := room[setOf(rr)]; {
		case n == 0: // came in with the first of its set
			return false
		case n < 0 || *size+n > maxPacket:
			room[setOf(rr)] = -1 // stays out with the first
			return true
		default:
			*size += n
			room[setOf(rr)] = 0
			return false
		}
	})
}
