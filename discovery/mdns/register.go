package mdns

import (
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"

	"github.com/hallway-home/hallway/discovery"
	"github.com/hallway-home/hallway/discovery/multicast"
)

const (
	// probes and probeEvery: RFC 6762 section 8.1.
	probes     = 3
	probeEvery = 250 * time.Millisecond
	// announcements are sent one second apart (section 8.3).
	announcements = 2
	announceEvery = time.Second
)

// Service is what is announced.
type Service struct {
	Instance string   // display name, renamed to "TV (2)" on conflict
	Type     string   // "_hallway._tcp"
	Subtypes []string // "_tv"
	Host     string   // "hw-1a2b3c4d.local"; several services may share one
	Port     uint16
	Text     []string // key=value, at most 255 bytes each
}

// ServiceOf is a node's announcement as a DNS-SD service.
func ServiceOf(a discovery.Announcement) Service {
	return Service{
		Instance: a.Instance(), Type: discovery.Type, Subtypes: []string{a.Subtype()},
		Host: a.Host(), Port: a.Port, Text: a.Text(),
	}
}

// Registration is a service, or a shared host name, in the engine's care. Its methods may
// be called from any goroutine.
type Registration struct {
	e    *Engine
	name atomic.Pointer[string]

	// Owned by the engine's goroutine.
	svc      Service
	hostOnly bool         // a shared host name (ShareHost): no service, nothing unique
	wanted   Service      // the names wanted at first
	choice   int          // 1 for the wanted instance name, 2 for "TV (2)"
	hostTry  int          // likewise for the host
	ready    map[int]bool // links on which the names are ours: probed and announced
	said     map[int]bool // links that have heard the names as they are now
	round    int          // of probing; a timer of an older round does nothing
	version  int          // of the records; a repetition of an older one is not sent
	closed   bool
}

func (e *Engine) register(s Service, hostOnly bool) *Registration {
	r := &Registration{e: e, hostOnly: hostOnly, ready: map[int]bool{}, said: map[int]bool{}}
	r.want(s)
	e.loop.Do(func() {
		for e.holds(r) {
			r.choice++
			r.take()
		}
		e.regs = append(e.regs, r)
		e.probe(r)
	})
	return r
}

// Announce probes for the service's names and announces it, under another name such as
// "TV (2)" if the name is taken (RFC 6763 appendix D). It may be called before Run, and
// returns at once; others see the service about a second later.
func (e *Engine) Announce(s Service) *Registration { return e.register(s, false) }

// ShareHost makes a host name lead to this node as well as to whoever else shares it: its
// addresses are shared records (RFC 6762 section 2), announced without probing and without
// the cache-flush bit, so that no holder ends another's. Update and Close work as for a
// service; Update looks at Service.Host only. It may be called before Run.
func (e *Engine) ShareHost(name string) *Registration {
	return e.register(Service{Host: strings.TrimSuffix(name, ".")}, true)
}

// holds reports whether another service here has the instance name of r.
func (e *Engine) holds(r *Registration) bool {
	return !r.hostOnly && slices.ContainsFunc(e.regs, func(o *Registration) bool {
		return o != r && !o.hostOnly && strings.EqualFold(o.fullName(), r.fullName())
	})
}

// want sets the service anew, with the names that were asked for.
func (r *Registration) want(s Service) {
	r.wanted, r.choice, r.hostTry = s, 1, 1
	r.take()
}

// take applies the choice of names.
func (r *Registration) take() {
	r.svc = r.wanted
	r.svc.Instance = numbered(r.wanted.Instance, r.choice)
	r.svc.Host = numberedHost(r.wanted.Host, r.hostTry)
	r.version++
	name := r.svc.Instance
	r.name.Store(&name)
}

// Instance is the name in use now.
func (r *Registration) Instance() string { return *r.name.Load() }

// Update changes port, text and subtypes in place; a changed instance, type or host is
// taken back and probed for anew.
func (r *Registration) Update(s Service) {
	r.e.loop.Do(func() {
		if r.closed {
			return
		}
		if s.Instance != r.wanted.Instance || s.Host != r.wanted.Host || s.Type != r.wanted.Type {
			r.e.goodbye(r)
			r.want(s)
			for r.e.holds(r) {
				r.choice++
				r.take()
			}
			r.e.probe(r)
			return
		}
		before := r.shared(multicast.Link{})
		r.wanted = s
		r.take()
		for _, l := range r.readyLinks() {
			r.e.takeBack(l, without(before, r.shared(multicast.Link{})))
		}
		r.e.announce(r, r.readyLinks(), announcements)
	})
}

// Close says goodbye.
func (r *Registration) Close() {
	r.e.loop.Do(func() {
		r.e.goodbye(r)
		r.closed = true
		clear(r.ready)
		r.e.regs = slices.DeleteFunc(r.e.regs, func(x *Registration) bool { return x == r })
	})
}

func (r *Registration) readyLinks() []multicast.Link { return r.e.among(r.ready) }

// among lists the links that are still there.
func (e *Engine) among(set map[int]bool) []multicast.Link {
	var out []multicast.Link
	for i := range set {
		if l, ok := e.loop.Links[i]; ok {
			out = append(out, l)
		}
	}
	return out
}

// probe asks on all links whether anybody uses the names; until then they are not ours.
func (e *Engine) probe(r *Registration) {
	clear(r.ready)
	r.round++
	e.probeAt(r, e.allLinks(), e.probeStart(e.clashPause()))
}

// probeOn does so on links that are new, and leaves the others as they are.
func (e *Engine) probeOn(r *Registration, links []multicast.Link) {
	if len(links) > 0 && !r.closed {
		e.probeAt(r, links, e.probeStart(0))
	}
}

// probeAt asks three times (RFC 6762 section 8.1), then claims the names on these links.
// What is shared needs no asking.
func (e *Engine) probeAt(r *Registration, links []multicast.Link, at time.Time) {
	round, first := r.round, 0
	if r.hostOnly {
		first = probes
	}
	var step func(n int)
	step = func(n int) {
		if r.round != round || r.closed {
			return
		}
		here := slices.DeleteFunc(slices.Clone(links), func(l multicast.Link) bool {
			_, ok := e.loop.Links[l.Index]
			return !ok
		})
		if n == probes {
			for _, l := range here {
				r.ready[l.Index], r.said[l.Index] = true, true
			}
			e.announce(r, here, announcements)
			return
		}
		for _, l := range here {
			o := e.post(l.Index)
			o.probes = append(o.probes, r)
		}
		at = at.Add(probeEvery)
		e.loop.At(at, func() { step(n + 1) })
	}
	e.loop.At(at, func() { step(first) })
}

// probeMessage asks for everything under our names and states what we would say
// (section 8.2).
func (r *Registration) probeMessage(l multicast.Link) *dns.Msg {
	m := new(dns.Msg)
	m.Question = []dns.Question{question(r.fullName(), dns.TypeANY), question(r.hostName(), dns.TypeANY)}
	for _, rr := range r.unique(l) {
		rr.Header().Class &^= flush
		m.Ns = append(m.Ns, rr)
	}
	return m
}

// announce sends all records unasked, as many times as said, one second apart.
func (e *Engine) announce(r *Registration, links []multicast.Link, times int) {
	version := r.version
	for _, l := range links {
		now, ok := e.loop.Links[l.Index]
		if !ok || !r.ready[l.Index] {
			continue
		}
		o := e.post(l.Index)
		o.news = append(o.news, append(r.shared(now), r.unique(now)...)...)
	}
	if times > 1 && len(links) > 0 {
		e.loop.After(announceEvery, func() {
			if r.version == version && !r.closed {
				e.announce(r, links, times-1)
			}
		})
	}
}

// goodbye takes the records back (section 10.1) where they were heard; a host's addresses
// go with the last registration on it.
func (e *Engine) goodbye(regs ...*Registration) {
	leaving := map[*Registration]bool{}
	for _, r := range regs {
		leaving[r] = true
	}
	said := map[int][]dns.RR{}
	for _, r := range regs {
		r.version++
		stays := slices.ContainsFunc(e.regs, func(o *Registration) bool {
			return !leaving[o] && lower(o.hostName()) == lower(r.hostName())
		})
		for _, l := range e.among(r.said) {
			said[l.Index] = append(said[l.Index], r.parting(l, !stays)...)
		}
		clear(r.said)
	}
	for i, rrs := range said {
		e.takeBack(e.loop.Links[i], once(rrs))
	}
}

// parting are the records that end with the registration. That the type exists is for
// other holders of the type to say.
func (r *Registration) parting(l multicast.Link, withHost bool) []dns.RR {
	var out []dns.RR
	for _, rr := range append(r.shared(l), r.unique(l)...) {
		_, isAddr := rrAddr(rr)
		if rr.Header().Name != allTypes && (withHost || !isAddr) {
			out = append(out, rr)
		}
	}
	return out
}

// takeBack says goodbye for records on a link.
func (e *Engine) takeBack(l multicast.Link, rrs []dns.RR) {
	if len(rrs) == 0 {
		return
	}
	m := response()
	for _, rr := range rrs {
		c := dns.Copy(rr)
		c.Header().Ttl = 0
		if m.Len()+dns.Len(c) > maxPacket {
			e.send(l, m)
			m = response()
		}
		m.Answer = append(m.Answer, c)
		delete(e.lastSent, sentKey{l.Index, identity(rr)})
	}
	e.send(l, m)
}

// without lists the records of a that are not in b.
func without(a, b []dns.RR) []dns.RR {
	return slices.DeleteFunc(slices.Clone(a), func(x dns.RR) bool {
		return slices.ContainsFunc(b, func(y dns.RR) bool { return identity(x) == identity(y) })
	})
}
