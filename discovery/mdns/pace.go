package mdns

import (
	"maps"
	"slices"
	"time"

	"github.com/miekg/dns"

	"github.com/hallway-home/hallway/discovery/multicast"
)

const (
	// resendAfter: a record is multicast at most once a second on a link, but after a
	// quarter of that in defence against a probe (RFC 6762 section 6).
	resendAfter, defendAfter = time.Second, 250 * time.Millisecond
	// shared answers are delayed so that many responders do not collide (section 6); so
	// are the first questions of a series (section 5.2).
	delayMin, delayMax = 20 * time.Millisecond, 120 * time.Millisecond
	// heardFor: a question that somebody asked this long ago need not be repeated (7.3).
	heardFor = time.Second
)

// sentKey: what was multicast where.
type sentKey struct {
	iface int
	rr    recordID
}

func (e *Engine) sentWithin(l multicast.Link, rr dns.RR, d time.Duration) bool {
	at, ok := e.lastSent[sentKey{l.Index, identity(rr)}]
	return ok && time.Since(at) < d
}

// respond multicasts records, in as many packets as they need; extras only where there is
// room.
func (e *Engine) respond(l multicast.Link, answers, extras []dns.RR) {
	now := time.Now()
	m, size := response(), 12
	for _, rr := range answers {
		n := dns.Len(rr)
		if size+n > maxPacket && len(m.Answer) > 0 {
			e.send(l, m)
			m, size = response(), 12
		}
		m.Answer, size = append(m.Answer, rr), size+n
	}
	if len(m.Answer) == 0 {
		return
	}
	m.Extra = fitting(without(once(extras), answers), &size)
	for _, rr := range append(slices.Clone(answers), m.Extra...) {
		e.lastSent[sentKey{l.Index, identity(rr)}] = now
	}
	e.send(l, m)
}

// delayed are the shared answers that wait on a link, for one packet.
type delayed struct {
	answers map[recordID]*waiting
	extra   []dns.RR
}

// waiting is an answer that another responder may make needless (section 7.4).
type waiting struct {
	rr           dns.RR
	asked, heard families
}

// answerLater sends shared records after a short random time. What another question asks
// meanwhile comes with this; what another responder says meanwhile need not be said.
func (e *Engine) answerLater(l multicast.Link, from asker, later, extra []dns.RR) {
	d := e.delayed[l.Index]
	if d == nil {
		d = &delayed{answers: map[recordID]*waiting{}}
		e.delayed[l.Index] = d
		e.loop.After(multicast.Jitter(delayMin, delayMax), func() {
			delete(e.delayed, l.Index)
			e.answerNow(l, d)
		})
	}
	for _, rr := range later {
		id := identity(rr)
		if d.answers[id] == nil {
			d.answers[id] = &waiting{rr: rr}
		}
		d.answers[id].asked |= from.family()
	}
	d.extra = append(d.extra, without(extra, d.extra)...)
}

// answerNow sends what is still ours to say.
func (e *Engine) answerNow(l multicast.Link, d *delayed) {
	l, ok := e.loop.Links[l.Index]
	if !ok {
		return
	}
	ours := e.ours(l)
	var answers []dns.RR
	for id, w := range d.answers {
		if ours[id] && w.asked&^w.heard != 0 && !e.sentWithin(l, w.rr, defendAfter) {
			answers = append(answers, w.rr)
		}
	}
	e.respond(l, answers, slices.DeleteFunc(d.extra, func(rr dns.RR) bool { return !ours[identity(rr)] }))
}

// heardAnswer looks at a record of a response that is one of ours, word for word: it may
// spare our answer (section 7.4), or end ours in the caches of others, who then must hear
// it from us again (sections 6.6 and 10.1).
func (e *Engine) heardAnswer(l multicast.Link, family families, rr dns.RR) {
	for _, r := range e.regs {
		if !r.ready[l.Index] || !r.bears(rr.Header().Name) {
			continue
		}
		all := append(r.shared(l), r.unique(l)...)
		id := identity(rr)
		i := slices.IndexFunc(all, func(own dns.RR) bool { return identity(own) == id })
		if i < 0 {
			continue
		}
		switch ttl := all[i].Header().Ttl; {
		case rr.Header().Ttl < ttl/2:
			e.rescue(l, all[i])
		case rr.Header().Ttl >= ttl:
			if d := e.delayed[l.Index]; d != nil && d.answers[id] != nil {
				d.answers[id].heard |= family
			}
		}
		return
	}
}

// bears reports whether a name is one that the registration has records of.
func (r *Registration) bears(name string) bool {
	name = lower(name)
	if r.hostOnly {
		return name == lower(r.hostName())
	}
	return name == lower(r.fullName()) || name == lower(r.hostName()) || name == allTypes || name == lower(r.typeName()) ||
		slices.ContainsFunc(r.svc.Subtypes, func(s string) bool { return name == lower(s+"._sub."+r.typeName()) })
}

// rescue says one of our records again as soon as the once a second of section 6 allows.
func (e *Engine) rescue(l multicast.Link, own dns.RR) {
	key := sentKey{l.Index, identity(own)}
	if e.rescues[key] {
		return
	}
	e.rescues[key] = true
	wait := max(multicast.Jitter(delayMin, delayMax), resendAfter-time.Since(e.lastSent[key]))
	e.loop.After(wait, func() {
		if e.rescues[key] {
			e.rescueAll(l.Index)
			delete(e.rescues, key) // said by now, here or as an answer
		}
	})
}

// rescueAll says what is to be rescued on a link and may be sent now, in whole sets.
func (e *Engine) rescueAll(index int) {
	l := e.loop.Links[index] // the zero link has nothing ready
	var again []dns.RR
	for _, r := range e.regs {
		if r.ready[index] {
			again = append(again, append(r.shared(l), r.unique(l)...)...)
		}
	}
	again = whole(again, func(rr dns.RR) bool {
		return !e.rescues[sentKey{index, identity(rr)}] || e.sentWithin(l, rr, resendAfter)
	})
	maps.DeleteFunc(e.rescues, func(k sentKey, _ bool) bool {
		return k.iface == index && time.Since(e.lastSent[k]) >= resendAfter
	})
	if _, ok := e.loop.Links[index]; ok {
		e.respond(l, again, nil)
	}
}

// heardKey: who asked what where, by multicast.
type heardKey struct {
	iface  int
	family families
	what   nameType
}

// overhear notes the questions of others that are ours as well, unless they know an
// answer that we do not know (section 7.3).
func (e *Engine) overhear(l multicast.Link, from asker, q *dns.Msg) {
	if q.Truncated || from.unicast || from.src.Port() != port {
		return
	}
	now := time.Now()
	for _, qu := range q.Question {
		what := nameType{lower(qu.Name), qu.Qtype}
		if qu.Qclass != dns.ClassINET || e.browses[what.name] == nil && e.cache.byName[what] == nil {
			continue // asks for a unicast answer, or for what is nothing to us
		}
		ours := knownAnswers{}
		for _, x := range e.cache.get(what.name, what.kind, now) {
			if k, ok := known(x, l, now); ok {
				ours[identity(k)] = k.Header().Ttl
			}
		}
		same := !slices.ContainsFunc(q.Answer, func(rr dns.RR) bool {
			_, ok := ours[identity(rr)]
			return setOf(rr) == what && !ok
		})
		if same {
			e.heard[heardKey{l.Index, from.family(), what}] = now
		}
	}
}

// unheard leaves out the questions that somebody else asked on this link a moment ago, in
// every family that we would ask in.
func (e *Engine) unheard(l multicast.Link, qs []dns.Question) []dns.Question {
	return slices.DeleteFunc(slices.Clone(qs), func(q dns.Question) bool {
		for f := families(1); f <= 2; f++ {
			at, ok := e.heard[heardKey{l.Index, f, nameType{lower(q.Name), q.Qtype}}]
			if familiesOf(l)&f != 0 && (!ok || time.Since(at) > heardFor) {
				return false
			}
		}
		return true
	})
}
