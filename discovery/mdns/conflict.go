package mdns

import (
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"

	"github.com/hallway-home/hallway/discovery/multicast"
)

const (
	// manyClashes within clashWindow: then each further probing waits clashWait, so that
	// two broken hosts do not flood the network (RFC 6762 section 8.1).
	manyClashes = 15
	clashWindow = 10 * time.Second
	clashWait   = 5 * time.Second
	// yieldFor: who loses a simultaneous probe tries again after this time (section 8.2).
	yieldFor = time.Second
)

// checkConflict looks at a record from the network that bears one of our names.
func (e *Engine) checkConflict(l multicast.Link, rr dns.RR) {
	h := rr.Header()
	if h.Ttl == 0 || h.Class&^flush != dns.ClassINET {
		return
	}
	for _, r := range e.regs {
		if r.hostOnly {
			continue // others hold it too
		}
		host := strings.EqualFold(h.Name, r.hostName()) && e.foreignAddr(l, rr)
		inst := strings.EqualFold(h.Name, r.fullName()) && r.foreignService(rr)
		switch {
		case !host && !inst:
		case r.ready[l.Index]:
			// Section 9: back to probing; who has the name answers the probe.
			e.noteClash()
			e.probe(r)
		default:
			e.rename(l, r, host)
		}
	}
}

// foreignService reports whether a record about our instance name is not ours.
func (r *Registration) foreignService(rr dns.RR) bool {
	srv, ok := rr.(*dns.SRV)
	return ok && (srv.Port != r.svc.Port || !strings.EqualFold(srv.Target, r.hostName()))
}

// foreignAddr reports whether a record about our host name leads to somebody else.
func (e *Engine) foreignAddr(l multicast.Link, rr dns.RR) bool {
	a, ok := rrAddr(rr)
	return ok && plausible(l, a) && !e.ownAddr(a)
}

// rename chooses the next name and probes for that: somebody else on this link was first.
// On other links the old name ends with a goodbye; on this one its holder speaks for it.
func (e *Engine) rename(l multicast.Link, r *Registration, host bool) {
	e.noteClash()
	for _, o := range e.among(r.said) {
		if o.Index != l.Index {
			e.takeBack(o, r.parting(o, host))
		}
	}
	clear(r.said)
	if host {
		r.hostTry++
	} else {
		r.choice++
	}
	r.take()
	for e.holds(r) {
		r.choice++
		r.take()
	}
	e.log.Info("the name is taken on this network", "wanted", r.wanted.Instance, "now", r.svc.Instance, "host", r.svc.Host)
	e.probe(r)
}

func (e *Engine) noteClash() {
	e.clashes = append(e.clashes, time.Now())
	if len(e.clashes) > manyClashes {
		e.clashes = e.clashes[1:]
	}
}

func (e *Engine) clashPause() time.Duration {
	if len(e.clashes) < manyClashes || time.Since(e.clashes[0]) > clashWindow {
		return 0
	}
	return clashWait
}

// tieBreak settles a probe of somebody else for a name that we are probing for: who would
// say what sorts later wins, the other waits a second (section 8.2).
func (e *Engine) tieBreak(l multicast.Link, q *dns.Msg) {
	for _, r := range e.regs {
		if r.hostOnly || r.ready[l.Index] {
			continue // shared, or answered as a question
		}
		for _, name := range []string{r.fullName(), r.hostName()} {
			theirs, ours := about(name, q.Ns), about(name, r.probeMessage(l).Ns)
			if len(theirs) > 0 && compareClaims(ours, theirs) < 0 {
				e.noteClash()
				r.round++
				e.probeAt(r, e.unready(r), time.Now().Add(yieldFor+e.clashPause()))
				break
			}
		}
	}
}

// unready lists the links on which the names are not ours yet.
func (e *Engine) unready(r *Registration) []multicast.Link {
	return slices.DeleteFunc(e.allLinks(), func(l multicast.Link) bool { return r.ready[l.Index] })
}

func about(name string, rrs []dns.RR) []dns.RR {
	var out []dns.RR
	for _, rr := range rrs {
		if strings.EqualFold(rr.Header().Name, name) {
			out = append(out, rr)
		}
	}
	return out
}
