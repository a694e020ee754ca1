package mdns

import (
	"fmt"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

// Service is what is announced.
type Service struct {
	Instance string   // display name, renamed on conflict
	Type     string   // "_hallway._tcp"
	Subtypes []string // "_tv"
	Host     string   // "hw-1a2b3c4d.local"
	Port     uint16
	Text     []string // key=value
}

type regState int

const (
	probing regState = iota
	established
	closed
)

// Registration is a service in the engine's care.
type Registration struct {
	e    *Engine
	name atomic.Pointer[string]

	// Owned by the engine's goroutine.
	svc    Service
	asked  string // the instance name wanted at first
	suffix int
	state  regState
	round  int // counts probe rounds, so that an old timer knows it is stale
}

const (
	probes     = 3
	probeEvery = 250 * time.Millisecond // RFC 6762 section 8.1
)

// Announce probes for the service's name and announces it, under another name such as
// "TV (2)" if the name is taken (RFC 6763 appendix D). It may be called before Run.
func (e *Engine) Announce(s Service) *Registration {
	r := &Registration{e: e, svc: s, asked: s.Instance, suffix: 1}
	r.name.Store(&s.Instance)
	e.do(func() {
		e.regs = append(e.regs, r)
		e.probe(r)
	})
	return r
}

// Instance is the name in use now.
func (r *Registration) Instance() string { return *r.name.Load() }

// Update changes port and text; a changed instance name is probed for anew.
func (r *Registration) Update(s Service) {
	r.e.do(func() {
		if r.state == closed {
			return
		}
		if s.Instance != r.asked {
			r.e.goodbye(r)
			r.svc, r.asked, r.suffix = s, s.Instance, 1
			r.name.Store(&s.Instance)
			r.e.probe(r)
			return
		}
		s.Instance = r.svc.Instance
		r.svc = s
		if r.state == established {
			r.e.announce(r, 0)
		}
	})
}

// Close says goodbye.
func (r *Registration) Close() {
	r.e.do(func() {
		r.e.goodbye(r)
		r.state = closed
		for i, x := range r.e.regs {
			if x == r {
				r.e.regs = append(r.e.regs[:i], r.e.regs[i+1:]...)
				break
			}
		}
	})
}

// probe asks three times whether anybody uses the name (RFC 6762 section 8.1).
func (e *Engine) probe(r *Registration) {
	r.state = probing
	r.round++
	round := r.round
	var step func(n int)
	step = func(n int) {
		if r.round != round || r.state != probing {
			return
		}
		if n == probes {
			r.state = established
			e.announce(r, 2)
			return
		}
		m := new(dns.Msg)
		m.Question = []dns.Question{{Name: r.fullName(), Qtype: dns.TypeANY, Qclass: dns.ClassINET}}
		for i := range e.links {
			m.Ns = []dns.RR{r.srv()}
			e.send(i, m)
		}
		e.after(probeEvery, func() { step(n + 1) })
	}
	e.after(jitter(0, probeEvery), func() { step(0) })
}

// announce sends all records unasked; more times after 1 s each (section 8.3).
func (e *Engine) announce(r *Registration, more int) {
	if r.state != established {
		return
	}
	for i := range e.links {
		m := response()
		m.Answer = append(r.shared(), r.unique(e.links[i])...)
		e.send(i, m)
		e.markSent(i, m.Answer)
	}
	if more > 1 {
		e.after(time.Second, func() { e.announce(r, more-1) })
	}
}

// goodbye takes the records back with TTL 0 (section 10.1).
func (e *Engine) goodbye(regs ...*Registration) {
	for _, r := range regs {
		if r.state != established {
			continue
		}
		for i := range e.links {
			m := response()
			m.Answer = append(r.shared(), r.srv(), r.txt())
			for _, rr := range m.Answer {
				rr.Header().Ttl = 0
			}
			e.send(i, m)
		}
	}
}

// conflict renames the service: somebody else was first.
func (e *Engine) conflict(r *Registration) {
	r.suffix++
	r.svc.Instance = fmt.Sprintf("%s (%d)", r.asked, r.suffix)
	name := r.svc.Instance
	r.name.Store(&name)
	e.log.Info("the name is taken on this network", "wanted", r.asked, "now", name)
	e.probe(r)
}

func (r *Registration) typeName() string { return r.svc.Type + ".local." }

func (r *Registration) fullName() string { return escape(r.svc.Instance) + "." + r.typeName() }

func (r *Registration) hostName() string { return dns.Fqdn(r.svc.Host) }

// flush marks a record as the only truth about its name (section 10.2).
const flush = 1 << 15

func header(name string, t uint16, class uint16, ttl uint32) dns.RR_Header {
	return dns.RR_Header{Name: name, Rrtype: t, Class: class, Ttl: ttl}
}

func (r *Registration) srv() dns.RR {
	return &dns.SRV{Hdr: header(r.fullName(), dns.TypeSRV, dns.ClassINET|flush, ttlHost), Port: r.svc.Port, Target: r.hostName()}
}

func (r *Registration) txt() dns.RR {
	text := r.svc.Text
	if len(text) == 0 {
		text = []string{""}
	}
	return &dns.TXT{Hdr: header(r.fullName(), dns.TypeTXT, dns.ClassINET|flush, ttlOther), Txt: escapeText(text)}
}

// shared are the records that others may hold too.
func (r *Registration) shared() []dns.RR {
	ptr := func(name, to string) dns.RR {
		return &dns.PTR{Hdr: header(name, dns.TypePTR, dns.ClassINET, ttlOther), Ptr: to}
	}
	out := []dns.RR{ptr(r.typeName(), r.fullName())}
	for _, s := range r.svc.Subtypes {
		out = append(out, ptr(s+"._sub."+r.typeName(), r.fullName()))
	}
	return append(out, ptr("_services._dns-sd._udp.local.", r.typeName()))
}

// unique are the records that only this host may hold, with the addresses of one link.
func (r *Registration) unique(l link) []dns.RR {
	return append([]dns.RR{r.srv(), r.txt()}, r.addrs(l)...)
}

func (r *Registration) addrs(l link) []dns.RR {
	var out []dns.RR
	for _, p := range l.addrs {
		a := p.Addr()
		if a.IsLoopback() && l.name != "lo" {
			continue
		}
		if a.Is4() {
			out = append(out, &dns.A{Hdr: header(r.hostName(), dns.TypeA, dns.ClassINET|flush, ttlHost), A: a.AsSlice()})
		} else {
			out = append(out, &dns.AAAA{Hdr: header(r.hostName(), dns.TypeAAAA, dns.ClassINET|flush, ttlHost), AAAA: a.AsSlice()})
		}
	}
	return out
}

// escape makes one DNS label of an instance name (RFC 6763 section 4.3).
func escape(s string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		if c == '.' || c == '\\' || c == ' ' || c == '(' || c == ')' || c == '"' || c == ';' || c == '@' || c == '$' {
			b.WriteByte('\\')
		}
		b.WriteByte(c)
	}
	return b.String()
}

// escapeText prepares strings for the library, which reads backslashes as escapes.
func escapeText(in []string) []string {
	out := make([]string, len(in))
	for i, s := range in {
		out[i] = strings.ReplaceAll(s, `\`, `\\`)
	}
	return out
}

func rrAddr(rr dns.RR) (netip.Addr, bool) {
	switch x := rr.(type) {
	case *dns.A:
		a, ok := netip.AddrFromSlice(x.A)
		return a.Unmap(), ok
	case *dns.AAAA:
		return netip.AddrFromSlice(x.AAAA)
	}
	return netip.Addr{}, false
}
