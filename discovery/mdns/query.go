package mdns

import (
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"

	"github.com/hallway-home/hallway/discovery/multicast"
)

const (
	// firstWait, lastWait: questions are asked after 1, 2, 4 ... s, at most an hour apart
	// (RFC 6762 section 5.2).
	firstWait, lastWait = time.Second, time.Hour
	// followUps bounds the questions about a hole, such as an instance without address;
	// then it is left alone for fillPause.
	followUps, fillPause = 3, time.Minute
	// maxPending bounds the holes asked about at the same time.
	maxPending = 256
	// maxPacket is what fits an Ethernet frame with IPv6 and UDP headers (section 17).
	maxPacket = 1440
	// maxAsk is the number of questions put into one packet.
	maxAsk = 20
)

// browse is one type being asked for, perhaps narrowed to a subtype.
type browse struct {
	name string // "_hallway._tcp.local." or "_tv._sub._hallway._tcp.local."
	base string // "_hallway._tcp.local."
	kind string // "_hallway._tcp"
}

// Browse asks for services of these types ("_rtsp._tcp", or "_tv._sub._hallway._tcp")
// from now on; sightings go to Run's report. It may be called before Run.
func (e *Engine) Browse(types ...string) {
	e.loop.Do(func() {
		for _, t := range types {
			base := t
			if _, after, ok := strings.Cut(t, "._sub."); ok {
				base = after
			}
			b := &browse{name: t + ".local.", base: base + ".local.", kind: base}
			e.browses[lower(b.name)] = b
		}
		clear(e.heard) // their answers were not kept
		e.askAnew()
	})
}

// askAnew asks for all browsed types after a short random time (section 5.2: many start
// when the power returns) and begins the back-off anew.
func (e *Engine) askAnew() {
	if len(e.browses) == 0 {
		return
	}
	e.round++
	round := e.round
	e.loop.After(multicast.Jitter(delayMin, delayMax), func() { e.askTypes(round, firstWait) })
}

func (e *Engine) askTypes(round int, wait time.Duration) {
	if e.round != round {
		return
	}
	var qs []dns.Question
	for _, b := range e.browses {
		qs = append(qs, question(b.name, dns.TypePTR))
	}
	for _, l := range e.loop.Links {
		e.ask(l, e.unheard(l, qs))
	}
	e.loop.After(wait+multicast.Jitter(0, wait/10), func() { e.askTypes(round, min(2*wait, lastWait)) })
}

func question(name string, t uint16) dns.Question {
	return dns.Question{Name: name, Qtype: t, Qclass: dns.ClassINET}
}

// ask multicasts questions on a link, with what is known already (section 7.1); known
// answers that do not fit follow in further packets (section 7.2).
func (e *Engine) ask(l multicast.Link, qs []dns.Question) {
	now := time.Now()
	for part := range slices.Chunk(qs, maxAsk) {
		m := new(dns.Msg)
		m.Question = part
		size := 12
		for _, q := range part {
			size += len(q.Name) + 6
		}
		for _, q := range part {
			if q.Qtype != dns.TypePTR {
				continue // unique records are asked for because they are wanted anew
			}
			for _, x := range e.cache.get(q.Name, q.Qtype, now) {
				k, ok := known(x, l, now)
				if !ok {
					continue
				}
				if size += dns.Len(k); size > maxPacket {
					m.Truncated = true
					e.send(l, m)
					m, size = new(dns.Msg), 12+dns.Len(k)
				}
				m.Answer = append(m.Answer, k)
			}
		}
		e.send(l, m)
	}
}

// known is an entry as a known answer, if more than half its life is left.
func known(x *entry, l multicast.Link, now time.Time) (dns.RR, bool) {
	left := uint32(x.expires.Sub(now) / time.Second)
	if x.iface != l.Index || left <= min(x.rr.Header().Ttl, maxTTL)/2 {
		return nil, false
	}
	k := dns.Copy(x.rr)
	k.Header().Ttl, k.Header().Class = left, dns.ClassINET
	return k, true
}

// sweepBy sees to it that the cache is searched at a moment for what ends or is to be
// refreshed, but not more often than every sweepEvery.
func (e *Engine) sweepBy(at time.Time) {
	if soonest := e.lastSweep.Add(sweepEvery); at.Before(soonest) {
		at = soonest
	}
	if !e.nextSweep.IsZero() && !at.Before(e.nextSweep) {
		return
	}
	e.nextSweep = at
	e.loop.At(at, func() {
		if e.nextSweep.Equal(at) {
			e.sweep()
		}
	})
}

// sweep forgets what has ended, refreshes what will, and says when to look again.
func (e *Engine) sweep() {
	now := time.Now()
	e.lastSweep, e.nextSweep = now, time.Time{}
	e.expire(now)
	e.refresh(now)
	next := time.Time{}
	e.cache.each(func(x *entry) {
		if due := e.dueOf(x); next.IsZero() || due.Before(next) {
			next = due
		}
	})
	if !next.IsZero() {
		e.sweepBy(next)
	}
}

// expire forgets what has ended.
func (e *Engine) expire(now time.Time) {
	if !e.cache.drop(func(x *entry) bool { return !x.expires.After(now) }) {
		return
	}
	clear(e.targets)
	e.cache.each(func(x *entry) {
		if srv, ok := x.rr.(*dns.SRV); ok {
			e.targets[lower(srv.Target)] = true
		}
	})
	e.dirty()
}

// dueOf is when something is to be done about an entry. Nobody follows the addresses of a
// host that was looked up once.
func (e *Engine) dueOf(x *entry) time.Time {
	if _, isAddr := rrAddr(x.rr); isAddr && !e.targets[lower(x.rr.Header().Name)] {
		return x.expires
	}
	return x.refreshAt()
}

// refresh asks for what ends soon and is still of interest, where it was heard.
func (e *Engine) refresh(now time.Time) {
	due := map[int][]dns.Question{}
	e.cache.each(func(x *entry) {
		if x.asked >= refreshes || e.dueOf(x).After(now) {
			return
		}
		x.asked++
		if q := question(x.rr.Header().Name, x.rr.Header().Rrtype); !slices.Contains(due[x.iface], q) {
			due[x.iface] = append(due[x.iface], q)
		}
	})
	for i, qs := range due {
		if l, ok := e.loop.Links[i]; ok {
			e.ask(l, e.unheard(l, qs))
		}
	}
}

// fill asks for a missing record, a few times with growing pauses.
func (e *Engine) fill(name string, t uint16) {
	key := nameType{lower(name), t}
	if _, ok := e.pending[key]; ok || len(e.pending) >= maxPending {
		return
	}
	e.pending[key] = true
	var step func(n int)
	step = func(n int) {
		if len(e.cache.get(name, t, time.Now())) > 0 {
			delete(e.pending, key)
			return
		}
		if n == followUps {
			e.pending[key] = false
			e.dirty()
			e.loop.After(fillPause, func() { delete(e.pending, key) })
			return
		}
		for _, l := range e.loop.Links {
			e.ask(l, []dns.Question{question(name, t)})
		}
		e.loop.After(firstWait<<n, func() { step(n + 1) })
	}
	// Another answer with the missing part is often already on its way.
	e.loop.After(delayMin, func() { step(0) })
}
