package mdns

import (
	"context"
	"log/slog"
	"maps"
	"net/netip"
	"time"

	"github.com/miekg/dns"

	"github.com/hallway-home/hallway/discovery"
	"github.com/hallway-home/hallway/discovery/multicast"
)

const (
	// port and the groups are those of RFC 6762 section 3.
	port = 5353
	// hops: a receiver may check that nobody forwarded the packet (RFC 6762 section 11).
	hops = 255
	// sweepEvery bounds how often the cache is searched for what ends or is to be refreshed;
	// what is due meanwhile shares a packet.
	sweepEvery = time.Second
)

// Config of an Engine; the zero value uses every usable interface and both families.
type Config struct {
	Interfaces []string           // names; empty means all that are up and can multicast, without loopback; "lo" works
	NoIPv4     bool               // leaves 224.0.0.251 alone
	NoIPv6     bool               // leaves FF02::FB alone
	Monitor    *multicast.Monitor // of the interfaces, run by its owner; nil means one of its own
	Logger     *slog.Logger       // nil discards

	network multicast.Network // tests put a network in memory here
}

// Engine is one mDNS responder and browser. Make it with New, start it with Run.
type Engine struct {
	log    *slog.Logger
	loop   *multicast.Loop // and Do for all
	report func(discovery.Sighting)

	// All below is owned by Run.
	allowance *multicast.Allowance
	echoes    echoes
	regs      []*Registration
	former    map[netip.Addr]time.Time // own addresses that went a moment ago
	clashes   []time.Time              // recent conflicts
	lastSent  map[sentKey]time.Time
	held      map[netip.AddrPort]*heldQuery
	delayed   map[int]*delayed // shared answers, by interface
	rescues   map[sentKey]bool
	heard     map[heardKey]time.Time // questions of others
	replies   multicast.Bucket       // unicast answers
	outboxes  map[int]*outbox        // by interface
	nextProbe time.Time
	cache     *cache
	nextSweep time.Time // of the cache, or zero
	lastSweep time.Time
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
	if cfg.network == nil {
		cfg.network = multicast.New(multicast.Config{
			Group4: netip.MustParseAddrPort("224.0.0.251:5353"), Group6: netip.MustParseAddrPort("[ff02::fb]:5353"), Hops: hops, OnePort: true,
			Interfaces: cfg.Interfaces, NoIPv4: cfg.NoIPv4, NoIPv6: cfg.NoIPv6, Monitor: cfg.Monitor, Logger: cfg.Logger,
		})
	}
	return &Engine{
		log: cfg.Logger, loop: multicast.NewLoop(cfg.network), allowance: multicast.NewAllowance(), echoes: newEchoes(),
		former: map[netip.Addr]time.Time{}, lastSent: map[sentKey]time.Time{}, held: map[netip.AddrPort]*heldQuery{},
		delayed: map[int]*delayed{}, outboxes: map[int]*outbox{}, rescues: map[sentKey]bool{}, heard: map[heardKey]time.Time{},
		cache: newCache(), targets: map[string]bool{}, browses: map[string]*browse{}, pending: map[nameType]bool{},
		waiters: map[string]*hostWait{}, shown: map[string]discovery.Sighting{},
	}
}

// Run answers and browses until ctx ends; then it says goodbye for every registration
// and returns after its readers have ended. It calls report from its own goroutine: report
// must not block, nor call back into the engine. An error means that port 5353 cannot be
// had in either family. It satisfies discovery.Source; call it once.
func (e *Engine) Run(ctx context.Context, report func(discovery.Sighting)) error {
	e.report = report
	return e.loop.Run(ctx, multicast.Handler{
		Receive: e.receive, Relink: e.relink, Tidy: e.tidy, End: func() { e.goodbye(e.regs...) },
	})
}

// tidy forgets what is too old to matter.
func (e *Engine) tidy() {
	e.allowance.Prune()
	old := func(d time.Duration) func(at time.Time) bool {
		return func(at time.Time) bool { return time.Since(at) > d }
	}
	prune(e.lastSent, old(ttlOther*time.Second))
	prune(e.heard, old(heardFor))
	prune(e.former, old(formerFor))
	prune(e.echoes.out, func(x *pendingEcho) bool { return old(echoFor)(x.at) })
}

func prune[K comparable, V any](m map[K]V, old func(V) bool) {
	maps.DeleteFunc(m, func(_ K, v V) bool { return old(v) })
}

// relink takes other links. A new one is probed and asked on at once; on one with other
// addresses they are announced; what was heard on a lost one is forgotten.
func (e *Engine) relink(c multicast.Change) {
	for _, l := range append(c.Before, c.Lost...) {
		for _, p := range l.Addrs {
			e.former[p.Addr()] = time.Now()
		}
	}
	for _, l := range c.Lost {
		e.log.Info("interface lost", "iface", l.Name)
		e.cache.drop(func(x *entry) bool { return x.iface == l.Index })
		e.dirty()
	}
	for _, l := range c.New {
		e.log.Info("interface used", "iface", l.Name, "addrs", l.Addrs)
	}
	for _, r := range e.regs {
		for _, l := range c.Lost {
			delete(r.ready, l.Index)
			delete(r.said, l.Index)
		}
		e.probeOn(r, c.New)
		for i, l := range c.Changed {
			if r.said[l.Index] { // no cache-flush bit ends a shared address, or the last one of a family
				e.takeBack(l, without(r.addrs(c.Before[i]), r.addrs(l)))
			}
		}
		e.announce(r, c.Changed, announcements)
	}
	if len(c.New)+len(c.Changed) > 0 {
		clear(e.heard) // what was answered before did not reach this node
		e.askAnew()
	}
}

// formerFor: how long a record with an address that was ours is no conflict.
const formerFor = 10 * time.Second

func (e *Engine) allLinks() []multicast.Link {
	out := make([]multicast.Link, 0, len(e.loop.Links))
	for _, l := range e.loop.Links {
		out = append(out, l)
	}
	return out
}

// ownAddr reports whether an address is, or was a moment ago, one of this node's.
func (e *Engine) ownAddr(a netip.Addr) bool {
	for _, l := range e.loop.Links {
		if l.Owns(a) {
			return true
		}
	}
	at, ok := e.former[a.WithZone("").Unmap()]
	return ok && time.Since(at) < formerFor
}

// receive takes one packet apart. A packet from off the link, one above the limits, or one
// that does not parse, changes nothing.
func (e *Engine) receive(l multicast.Link, p multicast.Packet) {
	src := p.From.Addr()
	if !l.OnLink(src) { // check: on-link source
		return
	}
	if e.echoes.take(l.Index, p) || !l.Owns(src) && e.ownAddr(src) {
		return // ourselves, on this link or over a second cable to the same one
	}
	if !e.allowance.Hear(src) {
		return
	}
	var m dns.Msg
	if err := m.Unpack(p.Data); err != nil || m.Opcode != dns.OpcodeQuery || m.Rcode != dns.RcodeSuccess {
		return
	}
	from := asker{p.From, !p.Group}
	switch {
	case !m.Response:
		e.asked(l, from, &m)
	case p.From.Port() == port && p.Group: // section 6: others are no answers to us, who never ask for them
		e.learn(l, from, &m)
	}
}

// send multicasts a message on a link, in each family that the link has.
func (e *Engine) send(l multicast.Link, m *dns.Msg) {
	m.Compress = true
	data, err := m.Pack()
	if err != nil {
		e.log.Error("cannot build an mDNS message; is a text longer than 255 bytes?", "err", err)
		return
	}
	for _, v6 := range []bool{false, true} {
		if _, ok := l.Source(v6); ok {
			e.echoes.sent(l.Index, v6, data)
			if err := e.loop.Net.Multicast(l, v6, data); err != nil {
				e.log.Debug("mDNS send failed", "iface", l.Name, "err", err)
			}
		}
	}
}
