package mdns

import (
	"net/netip"
	"time"

	"github.com/miekg/dns"
)

const (
	// resendAfter: a record is multicast at most once a second on a link, but after a
	// quarter of that in defence against a probe (RFC 6762 section 6).
	resendAfter, defendAfter = time.Second, 250 * time.Millisecond
	// shared answers are delayed so that many responders do not collide (section 6).
	delayMin, delayMax = 20 * time.Millisecond, 120 * time.Millisecond
	// a question whose known answers continue in further packets waits for them (7.2).
	holdMin, holdMax = 400 * time.Millisecond, 500 * time.Millisecond
	// maxHeld and maxKnown bound what such questions make us keep.
	maxHeld, maxKnown = 16, 1024
	// maxQuestions bounds the work one packet can cause.
	maxQuestions = 64
	// legacyTTL: a plain resolver must not cache for long (section 6.7).
	legacyTTL = 10
)

// sentKey: what was multicast where.
type sentKey struct {
	iface int
	rr    recordID
}

// heldQuery waits for the rest of its known answers.
type heldQuery struct {
	l     link
	msg   *dns.Msg
	known []dns.RR
}

func response() *dns.Msg {
	m := new(dns.Msg)
	m.Response, m.Authoritative = true, true
	return m
}

// respond multicasts records, in as many packets as they need; extras only where there is
// room.
func (e *Engine) respond(l link, answers, extras []dns.RR) {
	now := time.Now()
	m, size := response(), 12
	flushOut := func() {
		if len(m.Answer) > 0 {
			e.send(l, m)
		}
	}
	for _, rr := range answers {
		n := dns.Len(rr)
		if size+n > maxPacket {
			flushOut()
			m, size = response(), 12
		}
		m.Answer, size = append(m.Answer, rr), size+n
		e.lastSent[sentKey{l.index, identity(rr)}] = now
	}
	for _, rr := range without(extras, answers) {
		if n := dns.Len(rr); size+n <= maxPacket {
			m.Extra, size = append(m.Extra, rr), size+n
		}
	}
	flushOut()
}

// asked takes a query: a probe, a question, or the rest of one.
func (e *Engine) asked(l link, src netip.AddrPort, q *dns.Msg) {
	if len(q.Question) > maxQuestions {
		return
	}
	if h := e.held[src]; h != nil && len(q.Question) == 0 {
		if len(h.known)+len(q.Answer) <= maxKnown {
			h.known = append(h.known, q.Answer...)
		}
		return
	}
	if len(q.Ns) > 0 {
		e.tieBreak(l, q)
	}
	if q.Truncated && src.Port() == port && e.held[src] == nil && len(e.held) < maxHeld {
		h := &heldQuery{l: l, msg: q, known: q.Answer}
		e.held[src] = h
		e.after(jitter(holdMin, holdMax), func() {
			delete(e.held, src)
			h.msg.Answer = h.known
			if now, ok := e.links[l.index]; ok {
				e.answer(now, src, h.msg)
			}
		})
		return
	}
	e.answer(l, src, q)
}

// answer replies to a query with what is registered here.
func (e *Engine) answer(l link, src netip.AddrPort, q *dns.Msg) {
	for _, r := range e.regs {
		if !r.ready[l.index] {
			continue
		}
		if src.Port() != port {
			e.answerLegacy(l, src, q, r)
			continue
		}
		pause := resendAfter
		if len(q.Ns) > 0 {
			pause = defendAfter
		}
		var found matches
		for _, qu := range q.Question {
			found.add(e, r, qu, l)
		}
		if direct := suppress(found.direct, q.Answer); len(direct) > 0 {
			m := response()
			m.Answer = direct
			e.unicast(l, src, m)
		}
		if now := e.fresh(l.index, suppress(found.unique, q.Answer), pause); len(now) > 0 {
			e.respond(l, now, found.extra)
		}
		if later := e.fresh(l.index, suppress(found.shared, q.Answer), pause); len(later) > 0 {
			e.answerLater(l, r, later, found.extra)
		}
	}
}

// answerLater sends shared records after a short random time. What another question asks
// meanwhile comes with this.
func (e *Engine) answerLater(l link, r *Registration, later, extra []dns.RR) {
	version := r.version
	for _, rr := range later {
		e.lastSent[sentKey{l.index, identity(rr)}] = time.Now()
	}
	e.after(jitter(delayMin, delayMax), func() {
		if r.version == version && r.ready[l.index] {
			e.respond(l, later, extra)
		}
	})
}

// answerLegacy serves a plain DNS resolver that asked the group (section 6.7).
func (e *Engine) answerLegacy(l link, src netip.AddrPort, q *dns.Msg, r *Registration) {
	var found matches
	for _, qu := range q.Question {
		qu.Qclass &^= flush
		found.add(e, r, qu, l)
	}
	m := response()
	m.Id, m.Question = q.Id, q.Question
	for _, rr := range append(found.unique, found.shared...) {
		c := dns.Copy(rr)
		c.Header().Class &^= flush
		c.Header().Ttl = min(c.Header().Ttl, legacyTTL)
		m.Answer = append(m.Answer, c)
	}
	if len(m.Answer) > 0 {
		e.unicast(l, src, m)
	}
}

// unicast answers one asker. The limit per source and the on-link check bound what a
// forged source address can make us send.
func (e *Engine) unicast(l link, to netip.AddrPort, m *dns.Msg) {
	m.Compress = true
	if data, err := m.Pack(); err == nil && len(data) <= maxPacket {
		e.net.unicast(l, to, data)
	}
}

// matches are the records that answer a query, and those that save the next one.
type matches struct{ unique, shared, direct, extra []dns.RR }

// add finds what one registration has to say to a question on a link.
func (f *matches) add(e *Engine, r *Registration, q dns.Question, l link) {
	if class := q.Qclass &^ flush; class != dns.ClassINET && class != dns.ClassANY {
		return
	}
	unique, shared, extra := r.match(q, l)
	if q.Qclass&flush != 0 {
		// Section 5.4: by unicast, unless the group has not heard it for a quarter of its life.
		recent := func(rr dns.RR) bool {
			at, ok := e.lastSent[sentKey{l.index, identity(rr)}]
			return ok && time.Since(at) < time.Duration(rr.Header().Ttl)*time.Second/4
		}
		unique, shared = f.split(unique, recent), f.split(shared, recent)
	}
	f.unique, f.shared, f.extra = append(f.unique, unique...), append(f.shared, shared...), append(f.extra, extra...)
}

func (f *matches) split(rrs []dns.RR, direct func(dns.RR) bool) (rest []dns.RR) {
	for _, rr := range rrs {
		if direct(rr) {
			f.direct = append(f.direct, rr)
		} else {
			rest = append(rest, rr)
		}
	}
	return rest
}

// match compares one question with one registration.
func (r *Registration) match(q dns.Question, l link) (unique, shared, extra []dns.RR) {
	is := func(t uint16) bool { return q.Qtype == t || q.Qtype == dns.TypeANY }
	name := lower(q.Name)
	if is(dns.TypePTR) {
		for _, rr := range r.shared() {
			if lower(rr.Header().Name) == name {
				shared = append(shared, rr)
				if name != allTypes {
					extra = r.unique(l)
				}
			}
		}
	}
	var all []dns.RR
	switch name {
	case lower(r.fullName()):
		all, extra = []dns.RR{r.srv(), r.txt()}, r.addrs(l)
	case lower(r.hostName()):
		all = r.addrs(l)
	default:
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

// suppress leaves out what the asker knows with at least half its life left (section 7.1).
func suppress(rrs, known []dns.RR) []dns.RR {
	if len(rrs) == 0 || len(known) == 0 {
		return rrs
	}
	have := map[recordID]uint32{}
	for _, k := range known {
		have[identity(k)] = k.Header().Ttl
	}
	var out []dns.RR
	for _, rr := range rrs {
		if ttl, ok := have[identity(rr)]; !ok || ttl < rr.Header().Ttl/2 {
			out = append(out, rr)
		}
	}
	return out
}

// fresh leaves out what was multicast on this link a moment ago.
func (e *Engine) fresh(iface int, rrs []dns.RR, pause time.Duration) []dns.RR {
	var out []dns.RR
	now := time.Now()
	seen := map[recordID]bool{}
	for _, rr := range rrs {
		id := identity(rr)
		if !seen[id] && now.Sub(e.lastSent[sentKey{iface, id}]) >= pause {
			out = append(out, rr)
		}
		seen[id] = true
	}
	return out
}
