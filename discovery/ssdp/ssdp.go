// Package ssdp speaks SSDP, the discovery of UPnP (UPnP Device Architecture 2.0, sections
// 1 and 2), on both families and every usable interface: it announces this node as a root
// device of Hallway's own type, answers searches for it and serves its description, and it
// searches and listens for root devices of others, whose descriptions it reads.
//
// One goroutine (Source.Run) owns all state; Announce hands it a closure and may be called
// from anywhere. Descriptions are fetched and served by goroutines that Run waits for.
//
// It claims no type of schemas-upnp-org and has no actions and no events. It refuses
// sources that are not on the link, answers at most three times the bytes of a source's
// searches (what does not fit waits for its next one), follows a LOCATION only to the host
// that sent it, and reads no XML with declarations. Every bound is a constant with its
// reason.
package ssdp

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hallway-home/hallway/discovery"
	"github.com/hallway-home/hallway/discovery/multicast"
)

const (
	// server tells nothing of this machine (UDA 2.0 section 1.2.2: OS/version
	// UPnP/version product/version).
	server = "Linux/0 UPnP/2.0 Hallway/1"
	// hops: section 1.1.2 asks for a TTL of 2; FF02::C never leaves the link.
	hops = 2
	// maxPending bounds answers that wait for their moment; more is a flood.
	maxPending = 512
	// maxFacts bounds what is remembered of where descriptions are.
	maxFacts = 1024
)

// Config of a Source; the zero value uses every usable interface and both families.
type Config struct {
	Interfaces []string // names; empty means all that are up and can multicast, without loopback
	NoIPv4     bool
	NoIPv6     bool
	// NextBoot returns BOOTID.UPNP.ORG: greater at each call, also after a restart, below
	// 2^31. Nil takes the time in seconds, which a clock that starts in 1970 breaks.
	NextBoot func() (uint32, error)
	Monitor  *multicast.Monitor // of the interfaces, run by its owner; nil means one of its own
	Logger   *slog.Logger       // nil discards

	// Tests put a network in memory here.
	network multicast.Network
	listen  func() (net.Listener, error)
	fetch   func(ctx context.Context, u *url.URL, sender netip.Addr) ([]byte, error)
}

// Source announces, searches and listens. Make it with New, start it with Run.
type Source struct {
	cfg  Config
	log  *slog.Logger
	loop *multicast.Loop // and Do for all

	doc   atomic.Pointer[page]                   // what is served now
	known atomic.Pointer[map[int]multicast.Link] // for the server

	// All below is owned by Run.
	allowance *multicast.Allowance
	table     *multicast.Table
	device    *Device // nil: nothing is announced
	boot      uint32
	config    uint32
	port      uint16                      // of the description
	spawn     func(func(context.Context)) // a goroutine that Run waits for
	fetching  int
	facts     map[origin]fact
	wg        sync.WaitGroup
}

// New makes a source; it opens no socket and starts nothing before Run.
func New(cfg Config) *Source {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.network == nil {
		cfg.network = multicast.New(multicast.Config{
			Group4: netip.MustParseAddrPort("239.255.255.250:1900"), Group6: netip.MustParseAddrPort("[ff02::c]:1900"), Hops: hops,
			Interfaces: cfg.Interfaces, NoIPv4: cfg.NoIPv4, NoIPv6: cfg.NoIPv6, Monitor: cfg.Monitor, Logger: cfg.Logger,
		})
	}
	if cfg.listen == nil {
		cfg.listen = func() (net.Listener, error) { return net.Listen("tcp", ":0") } //nolint:gosec // who is not on a used link is refused
	}
	if cfg.fetch == nil {
		cfg.fetch = fetch
	}
	if cfg.NextBoot == nil {
		cfg.NextBoot = func() (uint32, error) { return uint32(time.Now().Unix() & 0x7fffffff), nil } //nolint:gosec // 31 bits
	}
	loop := multicast.NewLoop(cfg.network)
	s := &Source{
		cfg: cfg, log: cfg.Logger, loop: loop,
		allowance: multicast.NewAllowance(), table: multicast.NewTable(&loop.Agenda), facts: map[origin]fact{},
	}
	s.known.Store(&map[int]multicast.Link{})
	return s
}

// Announce makes this node known as d, from the start of Run on, in place of what was said
// before. Nil takes it back.
func (s *Source) Announce(d *Device) { s.loop.Do(func() { s.become(d) }) }

// Run announces, answers and listens until ctx ends; then it says goodbye and returns
// after all that it started has ended. It calls report from its own goroutine. An error
// means that port 1900 cannot be had in either family. It satisfies discovery.Source;
// call it once.
func (s *Source) Run(ctx context.Context, report func(discovery.Sighting)) error {
	s.table.Report = report
	inner, cancel := context.WithCancel(ctx)
	s.spawn = func(f func(context.Context)) { s.wg.Go(func() { f(inner) }) }
	defer s.wg.Wait()
	defer cancel()
	begin := func() error {
		s.nextBoot()
		s.loop.Every(searchAgain, func() { s.ask(s.loop.Links) })
		s.repeatAlive()
		return s.startServer(inner)
	}
	return s.loop.Run(ctx, multicast.Handler{Begin: begin, Receive: s.receive, Relink: s.relink, Tidy: s.tidy, End: s.byebye})
}

func (s *Source) startServer(ctx context.Context) error {
	ln, err := s.cfg.listen()
	if err != nil {
		return err
	}
	if a, err := netip.ParseAddrPort(ln.Addr().String()); err == nil {
		s.port = a.Port()
	}
	near := onLink{ln, func() map[int]multicast.Link { return *s.known.Load() }}
	s.wg.Go(func() {
		if err := serve(ctx, near, s.doc.Load, s.log); err != nil {
			s.log.Warn("the UPnP description is served no more", "err", err)
		}
	})
	return nil
}

// relink takes other links. One that is new, or has other addresses, begins a new boot (UDA
// 2.0 section 1.2.4) and is searched on; what was heard on a lost one is forgotten.
func (s *Source) relink(c multicast.Change) {
	for _, l := range c.Lost {
		s.table.DropAll(func(w multicast.Way) bool { return w.Iface == l.Index })
	}
	links := s.loop.Links
	s.known.Store(&links)
	fresh := append(c.New, c.Changed...)
	if len(fresh) == 0 {
		return
	}
	var kept []multicast.Link
	for _, l := range links {
		if !slices.ContainsFunc(fresh, func(x multicast.Link) bool { return x.Index == l.Index }) {
			kept = append(kept, l)
		}
	}
	for _, l := range fresh {
		s.log.Info("SSDP uses an interface", "iface", l.Name, "addrs", l.Addrs)
	}
	s.reboot(kept)
	s.search(fresh)
}

func (s *Source) tidy() {
	s.allowance.Prune()
	s.forgetFacts()
}

// receive takes one packet. One from off the link, above the limits, or that does not
// parse, changes nothing.
func (s *Source) receive(l multicast.Link, p multicast.Packet) {
	if !l.OnLink(p.From.Addr()) { // check: on-link source
		return
	}
	if !s.allowance.Hear(p.From.Addr()) {
		return
	}
	m, err := parse(p.Data)
	if err != nil {
		return
	}
	switch m.kind {
	case search:
		s.asked(l, p, m)
	case notify, response:
		s.heard(l, p.From, m)
	}
}
