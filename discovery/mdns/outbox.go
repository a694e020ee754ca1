package mdns

import (
	"slices"
	"time"

	"github.com/miekg/dns"

	"github.com/hallway-home/hallway/discovery/multicast"
)

// outbox gathers what several registrations have to say on a link at one moment, so that
// twenty services need a few packets, not two hundred (RFC 6762 sections 6.4 and 8.1).
type outbox struct {
	probes []*Registration
	news   []dns.RR // announcements
}

// post is the outbox of a link; it is emptied right after what is due now.
func (e *Engine) post(index int) *outbox {
	o := e.outboxes[index]
	if o == nil {
		o = &outbox{}
		e.outboxes[index] = o
		e.loop.After(0, func() {
			delete(e.outboxes, index)
			e.empty(index, o)
		})
	}
	return o
}

func (e *Engine) empty(index int, o *outbox) {
	l, ok := e.loop.Links[index]
	if !ok {
		return
	}
	m := new(dns.Msg)
	for _, r := range o.probes {
		if r.closed || r.ready[index] {
			continue
		}
		next := r.probeMessage(l)
		if len(m.Question) > 0 && m.Len()+next.Len() > maxPacket {
			e.send(l, m)
			m = new(dns.Msg)
		}
		for _, q := range next.Question {
			if !slices.Contains(m.Question, q) {
				m.Question = append(m.Question, q)
			}
		}
		m.Ns = append(m.Ns, without(next.Ns, m.Ns)...)
	}
	if len(m.Question) > 0 {
		e.send(l, m)
	}
	ours := e.ours(l) // a goodbye may have come between
	news := slices.DeleteFunc(o.news, func(rr dns.RR) bool { return !ours[identity(rr)] })
	e.respond(l, once(news), nil)
}

// ours are the records that this node has on a link now.
func (e *Engine) ours(l multicast.Link) map[recordID]bool {
	out := map[recordID]bool{}
	for _, r := range e.regs {
		if r.ready[l.Index] {
			for _, rr := range append(r.shared(l), r.unique(l)...) {
				out[identity(rr)] = true
			}
		}
	}
	return out
}

// probeStart is when probing begins: at a random time (section 8.1), which all that begins
// before then shares.
func (e *Engine) probeStart(wait time.Duration) time.Time {
	now := time.Now()
	if wait == 0 && e.nextProbe.After(now) {
		return e.nextProbe
	}
	at := now.Add(multicast.Jitter(0, probeEvery) + wait)
	if wait == 0 {
		e.nextProbe = at
	}
	return at
}
