package multicast

import (
	"net/netip"
	"time"
)

const (
	// perSecond and burst bound what one source can make this node parse. A machine that
	// wakes up, or answers a search with all its services, sends some dozens of packets at
	// once; floods send thousands (acceptance A33).
	perSecond, burst = 100, 200
	// dearPerSecond and dearBurst bound what costs this node more than reading, such as to
	// fetch a page: a host with many devices announces them all at once, and then rests.
	dearPerSecond, dearBurst = 1, 20
	// maxSources bounds the table; further sources share one allowance, so that a flood
	// from invented addresses cannot displace those already known.
	maxSources = 512
	// sourceIdle: a source silent for this long starts afresh.
	sourceIdle = 30 * time.Second
	// Factor is how many times the bytes of its queries a source is answered at most, so
	// that nobody gains by forging a neighbour's address.
	Factor = 3
	// maxCredit bounds what a source saves up by asking without being answered.
	maxCredit = 4096
)

// Allowance counts packets and answers for each source address.
type Allowance struct {
	sources map[netip.Addr]*account
	rest    account
}

type account struct {
	packets, dear Bucket
	credit        int // bytes it may still be answered with
	turn          int
}

// Bucket allows so much a second, and a burst after a rest; the zero value is full.
type Bucket struct {
	used float64
	at   time.Time
}

// Take takes one token, if there is one.
func (b *Bucket) Take(perSecond, burst float64) bool {
	now := time.Now()
	b.used = max(0, b.used-now.Sub(b.at).Seconds()*perSecond)
	b.at = now
	if b.used > burst-1 {
		return false
	}
	b.used++
	return true
}

// NewAllowance makes one in which nobody has been heard.
func NewAllowance() *Allowance {
	return &Allowance{sources: map[netip.Addr]*account{}}
}

func (w *Allowance) of(src netip.Addr) *account {
	src = src.Unmap()
	if a, ok := w.sources[src]; ok {
		return a
	}
	if len(w.sources) >= maxSources {
		return &w.rest
	}
	a := &account{}
	w.sources[src] = a
	return a
}

// Hear counts one packet and reports whether it may be read.
func (w *Allowance) Hear(src netip.Addr) bool { return w.of(src).packets.Take(perSecond, burst) }

// Dear counts one costly reaction and reports whether it may happen.
func (w *Allowance) Dear(src netip.Addr) bool { return w.of(src).dear.Take(dearPerSecond, dearBurst) }

// Asked credits a source with the answer that a query of so many bytes is worth.
func (w *Allowance) Asked(src netip.Addr, bytes int) {
	a := w.of(src)
	a.credit = min(maxCredit, a.credit+Factor*bytes)
}

// Spend takes an answer of so many bytes off a source's credit, if it has that much.
func (w *Allowance) Spend(src netip.Addr, bytes int) bool {
	a := w.of(src)
	if a.credit < bytes {
		return false
	}
	a.credit -= bytes
	return true
}

// Turn counts a source's answers, for those that must take turns.
func (w *Allowance) Turn(src netip.Addr) *int { return &w.of(src).turn }

// Len is the number of sources that are remembered.
func (w *Allowance) Len() int { return len(w.sources) }

// Prune forgets idle sources.
func (w *Allowance) Prune() {
	for src, a := range w.sources {
		if time.Since(a.packets.at) > sourceIdle {
			delete(w.sources, src)
		}
	}
}
