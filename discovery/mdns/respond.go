package mdns

import (
	"net/netip"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// sentKey: a record is multicast at most once a second on a link (RFC 6762 section 6).
type sentKey struct {
	iface int
	rr    string
}

const (
	resendAfter = time.Second
	// shared answers are delayed so that many responders do not collide (section 6).
	delayMin, delayMax = 20 * time.Millisecond, 120 * time.Millisecond
	// maxQuestions bounds the work one packet can cause.
	maxQuestions = 64
	// legacyTTL: a plain resolver must not cache for long (section 6.7).
	legacyTTL = 10
)

func response() *dns.Msg {
	m := new(dns.Msg)
	m.Response, m.Authoritative = true, true
	return m
}

func (e *Engine) send(iface int, m *dns.Msg) {
	m.Compress = true
	if data, err := m.Pack(); err == nil {
		e.net.multicast(iface, data)
	}
}

func (e *Engine) markSent(iface int, rrs []dns.RR) {
	now := time.Now()
	if len(e.lastSent) > maxEntries {
		clear(e.lastSent)
	}
	for _, rr := range rrs {
		e.lastSent[sentKey{iface, identity(rr)}] = now
	}
}

// receive takes one packet apart. A packet from off the link, or one that does not
// parse, changes nothing.
func (e *Engine) receive(p packet) {
	l, ok := e.links[p.iface]
	if !ok || !l.onLink(p.src.Addr()) { // check: on-link source
		return
	}
	var m dns.Msg
	if err := m.Unpack(p.data); err != nil || m.Opcode != dns.OpcodeQuery || m.Rcode != dns.RcodeSuccess {
		return
	}
	if m.Response {
		if p.src.Port() == port { // section 6: others are not mDNS responders
			e.learn(l, append(append(m.Answer, m.Extra...), m.Ns...))
		}
		return
	}
	e.answer(l, p.src, &m)
}

// answer replies to a query with what is registered here.
func (e *Engine) answer(l link, src netip.AddrPort, q *dns.Msg) {
	if len(q.Question) > maxQuestions {
		return
	}
	e.defend(q)
	legacy := src.Port() != port
	var now, later, extra []dns.RR
	for _, qu := range q.Question {
		for _, r := range e.regs {
			if r.state != established {
				continue
			}
			unique, shared, more := r.match(qu, l)
			now, later, extra = append(now, unique...), append(later, shared...), append(extra, more...)
		}
	}
	now, later = suppress(now, q.Answer), suppress(later, q.Answer)
	if legacy {
		e.answerLegacy(l, src, q, append(now, later...))
		return
	}
	now, later = e.fresh(l.index, now), e.fresh(l.index, later)
	if len(now) > 0 {
		e.reply(l.index, now, extra)
	}
	if len(later) > 0 {
		e.markSent(l.index, later) // what another question asks meanwhile comes with this
		e.after(jitter(delayMin, delayMax), func() { e.reply(l.index, later, extra) })
	}
}

func (e *Engine) reply(iface int, answers, extra []dns.RR) {
	m := response()
	m.Answer, m.Extra = answers, extra
	e.send(iface, m)
	e.markSent(iface, answers)
}

// answerLegacy serves a plain DNS resolver that asked the group (section 6.7).
func (e *Engine) answerLegacy(l link, src netip.AddrPort, q *dns.Msg, rrs []dns.RR) {
	if len(rrs) == 0 {
		return
	}
	m := response()
	m.Id, m.Question = q.Id, q.Question
	for _, rr := range rrs {
		c := dns.Copy(rr)
		c.Header().Class &^= flush
		c.Header().Ttl = min(c.Header().Ttl, legacyTTL)
		m.Answer = append(m.Answer, c)
	}
	m.Compress = true
	if data, err := m.Pack(); err == nil && len(data) <= maxPacket {
		e.net.unicast(l.index, src, data)
	}
}

// match finds the records that answer a question, and those that save the next one.
func (r *Registration) match(q dns.Question, l link) (unique, shared, extra []dns.RR) {
	is := func(t uint16) bool { return q.Qtype == t || q.Qtype == dns.TypeANY }
	name := strings.ToLower(q.Name)
	if is(dns.TypePTR) {
		for _, rr := range r.shared() {
			if strings.ToLower(rr.Header().Name) == name {
				shared = append(shared, rr)
				extra = r.unique(l)
			}
		}
	}
	if name == strings.ToLower(r.fullName()) {
		if is(dns.TypeSRV) {
			unique, extra = append(unique, r.srv()), r.addrs(l)
		}
		if is(dns.TypeTXT) {
			unique = append(unique, r.txt())
		}
	}
	if name == strings.ToLower(r.hostName()) {
		for _, rr := range r.addrs(l) {
			if is(rr.Header().Rrtype) {
				unique = append(unique, rr)
			}
		}
	}
	return unique, shared, extra
}

// suppress leaves out what the asker knows with at least half its life left (section 7.1).
func suppress(rrs, known []dns.RR) []dns.RR {
	var out []dns.RR
next:
	for _, rr := range rrs {
		for _, k := range known {
			if identity(k) == identity(rr) && k.Header().Ttl >= rr.Header().Ttl/2 {
				continue next
			}
		}
		out = append(out, rr)
	}
	return out
}

// fresh leaves out what was multicast on this link within the last second.
func (e *Engine) fresh(iface int, rrs []dns.RR) []dns.RR {
	var out []dns.RR
	now := time.Now()
	seen := map[string]bool{}
	for _, rr := range rrs {
		id := identity(rr)
		if !seen[id] && now.Sub(e.lastSent[sentKey{iface, id}]) >= resendAfter {
			out = append(out, rr)
		}
		seen[id] = true
	}
	return out
}

// defend answers a probe for a name that is ours at once: an announcement makes the
// prober choose another (section 8.1). That a name we are still probing for is
// probed by somebody else is settled by whoever announces first.
func (e *Engine) defend(q *dns.Msg) {
	for _, rr := range q.Ns {
		for _, r := range e.regs {
			if r.state == established && strings.EqualFold(rr.Header().Name, r.fullName()) && !r.mine(rr) {
				e.announce(r, 0)
			}
		}
	}
}

// mine reports whether a record about our name is what we say ourselves.
func (r *Registration) mine(rr dns.RR) bool {
	srv, ok := rr.(*dns.SRV)
	return !ok || srv.Port == r.svc.Port && strings.EqualFold(srv.Target, r.hostName())
}

// checkConflict looks at a record from the network that names one of our services.
func (e *Engine) checkConflict(rr dns.RR) {
	if rr.Header().Ttl == 0 {
		return
	}
	for _, r := range e.regs {
		if _, ok := rr.(*dns.SRV); !ok || !strings.EqualFold(rr.Header().Name, r.fullName()) || r.mine(rr) {
			continue
		}
		switch r.state {
		case probing:
			e.conflict(r)
		case established:
			e.probe(r) // section 9: go back to probing; who was first answers it
		case closed:
		}
	}
}
