package mdns

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"time"

	"github.com/hallway-home/hallway/discovery"
)

const (
	// ttlHost and ttlOther are the recommended TTLs (RFC 6762 section 10).
	ttlHost, ttlOther = 120, 4500
	// maxPacket is what fits an Ethernet frame with IPv6 and UDP headers (section 17).
	maxPacket = 1440
	// lookEvery: how often interfaces are compared; a late one is used within this time.
	lookEvery = time.Second
)

// Config of an Engine; the zero value uses every usable interface and both families.
type Config struct {
	Interfaces []string     // names; empty means all that are up and can multicast, without loopback
	Logger     *slog.Logger // nil discards

	transport transport // tests put a network in memory here
}

// Engine is one mDNS responder and browser.
type Engine struct {
	log    *slog.Logger
	net    transport
	work   chan func()
	done   chan struct{}
	report func(discovery.Sighting)

	// Owned by Run.
	links    map[int]link
	regs     []*Registration
	cache    *cache
	browses  map[string]*browse   // by type
	pending  map[string]*followUp // questions that fill holes, by name and type
	shown    map[string]discovery.Sighting
	lastSent map[sentKey]time.Time
	timers   timers
}

// New makes an engine; it opens no socket before Run.
func New(cfg Config) *Engine {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.transport == nil {
		cfg.transport = newSockets(cfg.Interfaces, cfg.Logger)
	}
	return &Engine{
		log: cfg.Logger, net: cfg.transport, work: make(chan func(), 64), done: make(chan struct{}),
		links: map[int]link{}, cache: newCache(), browses: map[string]*browse{}, pending: map[string]*followUp{},
		shown: map[string]discovery.Sighting{}, lastSent: map[sentKey]time.Time{},
	}
}

// do hands f to Run; after the end of Run it does nothing.
func (e *Engine) do(f func()) {
	select {
	case e.work <- f:
	case <-e.done:
	}
}

// Run answers and browses until ctx ends; then it says goodbye for every registration
// and returns. It satisfies discovery.Source.
func (e *Engine) Run(ctx context.Context, report func(discovery.Sighting)) error {
	e.report = report
	packets, err := e.net.open(ctx)
	if err != nil {
		return err
	}
	defer func() {
		close(e.done)
		e.net.close()
	}()
	e.look()
	e.sweep()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		timer.Reset(e.timers.next(time.Now()))
		select {
		case <-ctx.Done():
			e.goodbye(e.regs...)
			return nil
		case f := <-e.work:
			f()
		case p, ok := <-packets:
			if ok {
				e.receive(p)
			}
		case <-timer.C:
			e.timers.run(time.Now())
		}
	}
}

// look compares the interfaces with the last time: a new one, or a new address, is
// announced on and asked on at once.
func (e *Engine) look() {
	e.after(lookEvery, e.look)
	changed := false
	now := e.net.links()
	for i, l := range now {
		if old, ok := e.links[i]; !ok || !old.equal(l) {
			changed = true
		}
	}
	for i, l := range e.links {
		if _, ok := now[i]; !ok {
			e.log.Info("interface lost", "iface", l.name)
			changed = true
		}
	}
	if !changed {
		return
	}
	e.links = now
	for _, r := range e.regs {
		if r.state == established {
			e.announce(r, 0)
		}
	}
	for _, b := range e.browses {
		b.restart(e)
	}
}

func (e *Engine) after(d time.Duration, f func()) { e.timers.add(time.Now().Add(d), f) }

// jitter spreads what many nodes would do at the same time.
func jitter(from, to time.Duration) time.Duration {
	return from + rand.N(to-from) //nolint:gosec // spreads load, no secret
}

// timers is the engine's agenda.
type timers []timer

type timer struct {
	at time.Time
	f  func()
}

func (t *timers) add(at time.Time, f func()) { *t = append(*t, timer{at, f}) }

func (t timers) next(now time.Time) time.Duration {
	d := time.Hour
	for _, x := range t {
		d = min(d, max(0, x.at.Sub(now)))
	}
	return d
}

func (t *timers) run(now time.Time) {
	var due, rest timers
	for _, x := range *t {
		if x.at.After(now) {
			rest = append(rest, x)
		} else {
			due = append(due, x)
		}
	}
	*t = rest
	for _, x := range due {
		x.f()
	}
}

// link is one usable interface.
type link struct {
	index int
	name  string
	addrs []netip.Prefix
}

func (l link) equal(o link) bool {
	if l.name != o.name || len(l.addrs) != len(o.addrs) {
		return false
	}
	for i := range l.addrs {
		if l.addrs[i] != o.addrs[i] {
			return false
		}
	}
	return true
}

// onLink reports whether a source can be on this interface's link (RFC 6762 section 11).
func (l link) onLink(src netip.Addr) bool {
	src = src.WithZone("").Unmap()
	if src.IsLinkLocalUnicast() {
		return true
	}
	for _, p := range l.addrs {
		if p.Masked().Contains(src) {
			return true
		}
	}
	return false
}

// packet is one received datagram.
type packet struct {
	data  []byte
	src   netip.AddrPort
	iface int
}

// transport is the network below the engine.
type transport interface {
	open(ctx context.Context) (<-chan packet, error)
	links() map[int]link
	multicast(iface int, data []byte)
	unicast(iface int, to netip.AddrPort, data []byte)
	close()
}
