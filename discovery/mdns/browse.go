package mdns

import (
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"

	"github.com/hallway-home/hallway/discovery"
)

const (
	// backOff: questions are asked after 1, 2, 4 ... s up to an hour (RFC 6762 section 5.2).
	firstWait, lastWait = time.Second, time.Hour
	// followUps bounds the questions about a hole, such as an instance without address.
	followUps = 3
	// maxInstances bounds how many things of one type are followed.
	maxInstances = 512
)

// browse is one type being asked for.
type browse struct {
	name string // "_hallway._tcp.local."
	kind string
	wait time.Duration
	turn int
}

type followUp struct{ left int }

// Browse asks for services of these types from now on; sightings go to Run's report.
// It may be called before Run.
func (e *Engine) Browse(types ...string) {
	e.do(func() {
		for _, t := range types {
			if e.browses[t] != nil {
				continue
			}
			b := &browse{name: t + ".local.", kind: t}
			e.browses[t] = b
			b.restart(e)
		}
	})
}

// restart asks at once and begins the back-off anew.
func (b *browse) restart(e *Engine) {
	b.turn++
	b.wait = firstWait
	b.ask(e, b.turn)
}

func (b *browse) ask(e *Engine, turn int) {
	if b.turn != turn {
		return
	}
	e.query(dns.Question{Name: b.name, Qtype: dns.TypePTR, Qclass: dns.ClassINET})
	e.after(b.wait+jitter(0, 100*time.Millisecond), func() { b.ask(e, turn) })
	b.wait = min(2*b.wait, lastWait)
}

// query multicasts a question with what is known already (section 7.1).
func (e *Engine) query(q dns.Question) {
	now := time.Now()
	m := new(dns.Msg)
	m.Question = []dns.Question{q}
	m.Compress = true
	for _, x := range e.cache.get(q.Name, q.Qtype, now) {
		left := uint32(x.expires.Sub(now) / time.Second)
		if left < x.rr.Header().Ttl/2 {
			continue
		}
		k := dns.Copy(x.rr)
		k.Header().Ttl, k.Header().Class = left, dns.ClassINET
		m.Answer = append(m.Answer, k)
		if m.Len() > maxPacket {
			m.Answer = m.Answer[:len(m.Answer)-1]
			break
		}
	}
	for i := range e.links {
		e.send(i, m)
	}
}

// learn takes the records of a response.
func (e *Engine) learn(l link, rrs []dns.RR) {
	now := time.Now()
	for _, rr := range rrs {
		h := rr.Header()
		if h.Class&^flush != dns.ClassINET || !strings.HasSuffix(strings.ToLower(h.Name), ".local.") {
			continue
		}
		switch h.Rrtype {
		case dns.TypePTR, dns.TypeSRV, dns.TypeTXT, dns.TypeA, dns.TypeAAAA:
			e.checkConflict(rr)
			zone := ""
			if a, ok := rrAddr(rr); ok && a.Is6() && a.IsLinkLocalUnicast() {
				zone = l.name
			}
			e.cache.put(rr, l.index, zone, now)
			if h.Ttl == 0 {
				e.after(time.Second+10*time.Millisecond, e.show)
			}
		}
	}
	e.show()
}

// sweep runs every second while anything is browsed: expiry and refresh.
func (e *Engine) sweep() {
	now := time.Now()
	if e.cache.sweep(now) {
		e.show()
	}
	for _, b := range e.browses {
		for _, ptr := range e.cache.get(b.name, dns.TypePTR, now) {
			e.refresh(ptr, now)
			inst := ptr.rr.(*dns.PTR).Ptr
			for _, srv := range e.cache.get(inst, dns.TypeSRV, now) {
				e.refresh(srv, now)
				host := srv.rr.(*dns.SRV).Target
				for _, t := range []uint16{dns.TypeA, dns.TypeAAAA} {
					for _, a := range e.cache.get(host, t, now) {
						e.refresh(a, now)
					}
				}
			}
			for _, txt := range e.cache.get(inst, dns.TypeTXT, now) {
				e.refresh(txt, now)
			}
		}
	}
	e.after(time.Second, e.sweep)
}

func (e *Engine) refresh(x *entry, now time.Time) {
	if due, ok := x.refreshDue(); ok && now.After(due) {
		x.asked++
		e.query(dns.Question{Name: x.rr.Header().Name, Qtype: x.rr.Header().Rrtype, Qclass: dns.ClassINET})
	}
}

// show compares what the cache says of the browsed types with what was reported, and
// reports the difference: each thing once, however many links it is heard on.
func (e *Engine) show() {
	now := time.Now()
	current := map[string]discovery.Sighting{}
	for _, b := range e.browses {
		ptrs := e.cache.get(b.name, dns.TypePTR, now)
		for _, x := range ptrs[:min(len(ptrs), maxInstances)] {
			inst := x.rr.(*dns.PTR).Ptr
			if s, ok := e.resolve(b, inst, now); ok {
				current[s.ID] = s
			}
		}
	}
	for _, id := range slices.Sorted(maps.Keys(e.shown)) {
		if _, ok := current[id]; !ok {
			gone := e.shown[id]
			gone.Gone = true
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
	if !ok || !strings.EqualFold(rest, b.name) {
		return discovery.Sighting{}, false
	}
	s := discovery.Sighting{Source: "mdns", ID: strings.ToLower(inst), Kind: b.kind, Instance: label, Seen: now}
	srvs := e.cache.get(inst, dns.TypeSRV, now)
	if len(srvs) == 0 {
		e.fill(inst, dns.TypeSRV)
		return s, false
	}
	srv := srvs[0].rr.(*dns.SRV)
	for _, x := range srvs {
		if x.at.After(srvs[0].at) {
			srv = x.rr.(*dns.SRV)
		}
	}
	s.Host = strings.TrimSuffix(srv.Target, ".")
	if txts := e.cache.get(inst, dns.TypeTXT, now); len(txts) > 0 {
		newest := slices.MaxFunc(txts, func(a, b *entry) int { return a.at.Compare(b.at) })
		s.Text = unescapeText(newest.rr.(*dns.TXT).Txt)
	} else {
		e.fill(inst, dns.TypeTXT)
		return s, false
	}
	for _, t := range []uint16{dns.TypeA, dns.TypeAAAA} {
		for _, x := range e.cache.get(srv.Target, t, now) {
			if a, ok := rrAddr(x.rr); ok {
				if x.zone != "" {
					a = a.WithZone(x.zone)
				}
				s.Addrs = append(s.Addrs, netip.AddrPortFrom(a, srv.Port))
			}
		}
	}
	if len(s.Addrs) == 0 {
		e.fill(srv.Target, dns.TypeA)
		e.fill(srv.Target, dns.TypeAAAA)
		return s, false
	}
	slices.SortFunc(s.Addrs, netip.AddrPort.Compare)
	s.Addrs = slices.Compact(s.Addrs)
	return s, true
}

// fill asks for a missing record, a few times with growing pauses.
func (e *Engine) fill(name string, t uint16) {
	key := nameKey(name, t)
	if _, ok := e.pending[key]; ok || len(e.pending) >= maxEntries {
		return
	}
	f := &followUp{left: followUps}
	e.pending[key] = f
	var step func()
	step = func() {
		if len(e.cache.get(name, t, time.Now())) > 0 || f.left == 0 {
			delete(e.pending, key)
			return
		}
		f.left--
		e.query(dns.Question{Name: name, Qtype: t, Qclass: dns.ClassINET})
		e.after(time.Second<<(followUps-1-f.left), step)
	}
	// Another answer with the missing part is often already on its way.
	e.after(20*time.Millisecond, step)
}

// cutLabel splits the first label of a name and takes its escapes away.
func cutLabel(name string) (label, rest string, ok bool) {
	i, end := dns.NextLabel(name, 0)
	if end || i < 2 {
		return "", "", false
	}
	return unescape(name[:i-1]), name[i:], true
}

func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' || i+1 >= len(s) {
			b.WriteByte(s[i])
			continue
		}
		if i+3 < len(s) && isDigit(s[i+1]) && isDigit(s[i+2]) && isDigit(s[i+3]) {
			if n := int(s[i+1]-'0')*100 + int(s[i+2]-'0')*10 + int(s[i+3]-'0'); n < 256 {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		i++
		b.WriteByte(s[i])
	}
	return b.String()
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

func unescapeText(in []string) []string {
	out := make([]string, len(in))
	for i, s := range in {
		out[i] = unescape(s)
	}
	return out
}
