package multicast

import (
	"net/netip"
	"time"
)

const (
	// perSecond and burst bound what one source can make this node parse. A machine that
	// wakes up, or answers a search with all its services, sends some dozens of packets at
	// once; floods send thousands (acceptance A33).
	perSecond, burst = 50, 150
	// dearPerSecond and dearBurst bound what costs this node more than reading, such as to
	// fetch a page: a host with many devices announces them all at once, and then rests.
	dearPerSecond, dearBurst = 1, 20
	// maxSources bounds the table; further sources share one allowance, so that a flood
	// from invented addresses cannot displace those already known.
	maxSources = 256
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
	tokens float64
	at     time.Time
	dear   float64
	dearAt time.Time
	credit int // bytes it may still be answered with
	turn   int
}

// NewAllowance makes one in which nobody has been heard.
func NewAllowance() *Allowance {
	return &Allowance{sources: map[netip.Addr]*account{}, rest: account{tokens: burst, dear: dearBurst}}
}

func (w *Allowance) of(src netip.Addr) *account {
	src = src.Unmap()
	if a, ok := w.sources[src]; ok {
		return a
	}
	if len(w.sources) >= maxSources {
		return &w.rest
	}
	a := &account{tokens: burst, at: time.Now(), dear: dearBurst, dearAt: time.Now()}
	w.sources[src] = a
	return a
}

// Hear counts one packet and reports whether it may be read.
func (w *Allowance) Hear(src netip.Addr) bool {
	a := w.of(src)
	return take(&a.tokens, &a.at, perSecond, burst)
}

// Dear counts one costly reaction and reports whether it may happen.
func (w *Allowance) Dear(src netip.Addr) bool {
	a := w.of(src)
	return take(&a.dear, &a.dearAt, dearPerSecond, dearBurst)
}

// take is a token bucket.
func take(tokens *float64, at *time.Time, rate, most float64) bool {
	now := time.Now()
	*tokens = min(most, *tokens+now.Sub(*at).Seconds()*rate)
	*at = now
	if *tokens < 1 {
		return false
	}
	*tokens--
	return true
}

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

// Prune forgets idle sources.
func (w *Allowance) Prune() {
	for src, a := range w.sources {
		if time.Since(a.at) > sourceIdle {
			delete(w.sources, src)
		}
	}
}
