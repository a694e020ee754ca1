package mdns

import (
	"context"
	"log/slog"
	"net/netip"
	"time"

	"github.com/miekg/dns"

	"github.com/hallway-home/hallway/discovery"
)

const (
	// port and the groups are those of RFC 6762 section 3.
	port = 5353
	// tickEvery: expiry, refresh and, where the system does not tell of changes, a look at
	// the interfaces.
	tickEvery = time.Second
	// lookTicks: how many ticks pass between looks where the system does tell; one event
	// lost by it costs this long.
	lookTicks = 5
	// settle: a change of interfaces comes as a burst of events.
	settle = 20 * time.Millisecond
)

// Config of an Engine; the zero value uses every usable interface and both families.
type Config struct {
	Interfaces []string     // names; empty means all that are up and can multicast, without loopback; "lo" works
	NoIPv4     bool         // leaves 224.0.0.251 alone
	NoIPv6     bool         // leaves FF02::FB alone
	Logger     *slog.Logger // nil discards

	transport transport // tests put a network in memory here
}

// Engine is one mDNS responder and browser. Make it with New, start it with Run.
type Engine struct {
	log    *slog.Logger
	net    transport
	work   chan func()
	done   chan struct{}
	report func(discovery.Sighting)

	// All below is owned by Run.
	agenda    agenda
	links     map[int]link
	ticks     int
	looking   bool // a look is on the agenda
	limits    limits
	echoes    echoes
	regs      []*Registration
	former    map[netip.Addr]time.Time // own addresses that went a moment ago
	clashes   []time.Time              // recent conflicts
	lastSent  map[sentKey]time.Time
	held      map[netip.AddrPort]*heldQuery
	delayed   map[int]*delayed // shared answers, by interface
	rescues   map[sentKey]bool
	heard     map[heardKey]time.Time // questions of others
	replies   bucket                 // unicast answers
	outboxes  map[int]*outbox        // by interface
	nextProbe time.Time
	cache     *cache
	targets   map[string]bool // hosts that services in the cache name
	browses   map[string]*browse
	round     int               // of the browses' back-off
	pending   map[nameType]bool // holes asked about; false: given up for a while
	waiters   map[string]*hostWait
	showing   bool // a show is on the agenda
	lastShow  time.Time
	shown     map[string]discovery.Sighting
}

// New makes an engine; it opens no socket and starts nothing before Run.
func New(cfg Config) *Engine {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.transport == nil {
		cfg.transport = newSockets(cfg)
	}
	return &Engine{
		log: cfg.Logger, net: cfg.transport, work: make(chan func(), 64), done: make(chan struct{}),
		links: map[int]link{}, limits: newLimits(), echoes: newEchoes(),
		former: map[netip.Addr]time.Time{}, lastSent: map[sentKey]time.Time{}, held: map[netip.AddrPort]*heldQuery{},
		delayed: map[int]*delayed{}, outboxes: map[int]*outbox{}, rescues: map[sentKey]bool{}, heard: map[heardKey]time.Time{},
		cache: newCache(), targets: map[string]bool{}, browses: map[string]*browse{}, pending: map[nameType]bool{},
		waiters: map[string]*hostWait{}, shown: map[string]discovery.Sighting{},
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
// and returns after its readers have ended. It calls report from its own goroutine: report
// must not block, nor call back into the engine. An error means that port 5353 cannot be
// had in either family. It satisfies discovery.Source; call it once.
func (e *Engine) Run(ctx context.Context, report func(discovery.Sighting)) error {
	e.report = report
	defer close(e.done)
	packets, err := e.net.open(ctx)
	if err != nil {
		return err
	}
	defer e.net.close()
	e.tick()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		timer.Reset(e.agenda.wait(time.Now()))
		select {
		case <-ctx.Done():
			e.goodbye(e.regs...)
			return nil
		case f := <-e.work:
			f()
		case p := <-packets:
			e.receive(p)
		case <-e.net.changed():
			e.lookSoon()
		case <-timer.C:
			e.agenda.run(time.Now())
		}
	}
}

func (e *Engine) after(d time.Duration, f func()) { e.agenda.add(time.Now().Add(d), f) }

// tick keeps house.
func (e *Engine) tick() {
	now := time.Now()
	if e.net.changed() == nil || e.ticks%lookTicks == 0 {
		e.look()
	}
	e.ticks++
	e.expire(now)
	e.refresh(now)
	e.limits.prune(now)
	e.echoes.prune(now)
	for k, at := range e.lastSent {
		if now.Sub(at) > ttlOther*time.Second {
			delete(e.lastSent, k)
		}
	}
	for k, at := range e.heard {
		if now.Sub(at) > heardFor {
			delete(e.heard, k)
		}
	}
	for a, at := range e.former {
		if now.Sub(at) > formerFor {
			delete(e.former, a)
		}
	}
	e.after(tickEvery, e.tick)
}

func (e *Engine) lookSoon() {
	if e.looking {
		return
	}
	e.looking = true
	e.after(settle, func() {
		e.looking = false
		e.look()
	})
}

// look compares the interfaces with the last time. A new one is probed and asked on at
// once; on one with other addresses they are announced; what was heard on a lost one is
// forgotten.
func (e *Engine) look() {
	now := e.net.links()
	var fresh, changed, before, lost []link
	for i, l := range now {
		old, known := e.links[i]
		switch {
		case !known || old.name != l.name:
			fresh = append(fresh, l)
		case !old.equal(l):
			changed, before = append(changed, l), append(before, old)
			e.remember(old)
		}
	}
	for i, l := range e.links {
		if o, ok := now[i]; !ok || o.name != l.name {
			lost = append(lost, l)
			e.remember(l)
		}
	}
	if len(fresh)+len(changed)+len(lost) == 0 {
		return
	}
	e.links = now
	for _, l := range lost {
		e.log.Info("interface lost", "iface", l.name)
		e.cache.drop(func(x *entry) bool { return x.iface == l.index })
		e.dirty()
	}
	for _, l := range fresh {
		e.log.Info("interface used", "iface", l.name, "addrs", l.addrs)
	}
	for _, r := range e.regs {
		for _, l := range lost {
			delete(r.ready, l.index)
			delete(r.said, l.index)
		}
		e.probeOn(r, fresh)
		for i, l := range changed {
			if r.said[l.index] { // no cache-flush bit ends a shared address, or the last one of a family
				e.takeBack(l, without(r.addrs(before[i]), r.addrs(l)))
			}
		}
		e.announce(r, changed, announcements)
	}
	if len(fresh)+len(changed) > 0 {
		clear(e.heard) // what was answered before did not reach this node
		e.askAnew()
	}
}

// formerFor: how long a record with an address that was ours is no conflict.
const formerFor = 10 * time.Second

func (e *Engine) remember(l link) {
	for _, p := range l.addrs {
		e.former[p.Addr()] = time.Now()
	}
}

func (e *Engine) allLinks() []link {
	out := make([]link, 0, len(e.links))
	for _, l := range e.links {
		out = append(out, l)
	}
	return out
}

// ownAddr reports whether an address is, or was a moment ago, one of this node's.
func (e *Engine) ownAddr(a netip.Addr) bool {
	for _, l := range e.links {
		if l.owns(a) {
			return true
		}
	}
	_, ok := e.former[a.WithZone("").Unmap()]
	return ok
}

// receive takes one packet apart. A packet from off the link, one above the limits, or one
// that does not parse, changes nothing.
func (e *Engine) receive(p packet) {
	l, ok := e.links[p.iface]
	if !ok || !l.onLink(p.src.Addr()) { // check: on-link source
		return
	}
	if e.echoes.take(l.index, p) || !l.owns(p.src.Addr()) && e.ownAddr(p.src.Addr()) {
		return // ourselves, on this link or over a second cable to the same one
	}
	if !e.limits.allow(p.src.Addr(), time.Now()) {
		return
	}
	var m dns.Msg
	if err := m.Unpack(p.data); err != nil || m.Opcode != dns.OpcodeQuery || m.Rcode != dns.RcodeSuccess {
		return
	}
	from := asker{p.src, p.unicast}
	switch {
	case !m.Response:
		e.asked(l, from, &m)
	case p.src.Port() == port && !p.unicast: // section 6: others are no answers to us, who never ask for them
		e.learn(l, from, &m)
	}
}

// send multicasts a message on a link, in each family that the link has.
func (e *Engine) send(l link, m *dns.Msg) {
	m.Compress = true
	data, err := m.Pack()
	if err != nil {
		e.log.Error("cannot build an mDNS message; is a text longer than 255 bytes?", "err", err)
		return
	}
	for _, v6 := range []bool{false, true} {
		if _, ok := l.source(v6); ok {
			e.echoes.sent(l.index, v6, data, time.Now())
			e.net.multicast(l, v6, data)
		}
	}
}
