// Package wsd finds ONVIF cameras by WS-Discovery (April 2005, with the rules of the ONVIF
// Core Specification, section 7): it probes for network video transmitters on both families
// and every usable interface, and listens for their Hello and Bye. It announces nothing and
// answers nobody.
//
// One goroutine (Source.Run) owns all state. It refuses sources that are not on the link,
// answers to probes that were not its own, XML with declarations, and addresses that lead
// to another host than the one that named them. Every bound is a constant with its reason.
package wsd

import (
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"time"

	"github.com/hallway-home/hallway/discovery"
	"github.com/hallway-home/hallway/discovery/multicast"
)

const (
	// Kind of the things found.
	Kind        = "dn:" + transmitter
	transmitter = "NetworkVideoTransmitter"
	// hops: nothing leaves the link.
	hops = 1
	// A probe goes out three times, since UDP may lose it (SOAP-over-UDP, appendix I).
	secondProbe, thirdProbe = 400 * time.Millisecond, 2 * time.Second
	probeAgain              = time.Minute
	// life of a camera after its last word; the protocol names none. Three rounds of probes
	// went unanswered by then.
	life = 3*probeAgain + 10*time.Second
	// maxProbes whose answers are still taken: those of the last rounds.
	maxProbes = 8
	tickEvery = time.Second
	lookTicks = 5
	settle    = 20 * time.Millisecond
)

// Config of a Source; the zero value uses every usable interface and both families.
type Config struct {
	Interfaces []string // names; empty means all that are up and can multicast, without loopback
	NoIPv4     bool
	NoIPv6     bool
	Logger     *slog.Logger // nil discards

	network multicast.Network // tests put a network in memory here
}

// Source probes and listens. Make it with New, start it with Run.
type Source struct {
	log *slog.Logger
	net multicast.Network

	// All below is owned by Run.
	agenda    multicast.Agenda
	allowance *multicast.Allowance
	table     *multicast.Table
	links     map[int]multicast.Link
	ticks     int
	looking   bool
	probes    []string // the last MessageIDs
}

// New makes a source; it opens no socket and starts nothing before Run.
func New(cfg Config) *Source {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.network == nil {
		cfg.network = multicast.New(multicast.Config{
			Group4: netip.MustParseAddrPort("239.255.255.250:3702"), Group6: netip.MustParseAddrPort("[ff02::c]:3702"), Hops: hops,
			Interfaces: cfg.Interfaces, NoIPv4: cfg.NoIPv4, NoIPv6: cfg.NoIPv6, Logger: cfg.Logger,
		})
	}
	return &Source{
		log: cfg.Logger, net: cfg.network, allowance: multicast.NewAllowance(), table: multicast.NewTable(), links: map[int]multicast.Link{},
	}
}

// Run probes and listens until ctx ends and returns after its readers have ended. It calls
// report from its own goroutine. An error means that port 3702 cannot be had in either
// family. It satisfies discovery.Source; call it once.
func (s *Source) Run(ctx context.Context, report func(discovery.Sighting)) error {
	packets, err := s.net.Open(true)
	if err != nil {
		return err
	}
	defer s.net.Close()
	s.table.Report = report
	s.tick()
	s.probeForever()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		timer.Reset(s.agenda.Wait())
		select {
		case <-ctx.Done():
			return nil
		case p := <-packets:
			s.receive(p)
		case <-s.net.Changed():
			s.lookSoon()
		case <-timer.C:
			s.agenda.Run()
		}
	}
}

// tick keeps house.
func (s *Source) tick() {
	if s.net.Changed() == nil || s.ticks%lookTicks == 0 {
		s.look()
	}
	s.ticks++
	s.table.Expire()
	s.allowance.Prune()
	s.agenda.After(tickEvery, s.tick)
}

func (s *Source) lookSoon() {
	if s.looking {
		return
	}
	s.looking = true
	s.agenda.After(settle, func() {
		s.looking = false
		s.look()
	})
}

// look compares the interfaces with the last time: one that is new is probed on at once,
// what was heard on a lost one is forgotten.
func (s *Source) look() {
	now := s.net.Links()
	var fresh []int
	for i, l := range now {
		if old, ok := s.links[i]; !ok || !old.Equal(l) {
			fresh = append(fresh, i)
		}
	}
	for i, old := range s.links {
		if l, ok := now[i]; !ok || l.Name != old.Name {
			s.table.DropAll(func(w multicast.Way) bool { return w.Iface == i })
		}
	}
	s.links = now
	if len(fresh) > 0 {
		s.probe(fresh)
		s.agenda.After(secondProbe, func() { s.probe(fresh) })
		s.agenda.After(thirdProbe, func() { s.probe(fresh) })
	}
}

func (s *Source) probeForever() {
	s.agenda.After(probeAgain, func() {
		var all []int
		for i := range s.links {
			all = append(all, i)
		}
		s.probe(all)
		s.probeForever()
	})
}

// probe asks on some links, with one MessageID for all.
func (s *Source) probe(links []int) {
	id := newID()
	s.probes = append(s.probes[max(0, len(s.probes)-maxProbes+1):], id)
	data := probe(id)
	for _, i := range links {
		for _, v6 := range []bool{false, true} {
			l, ok := s.links[i]
			if _, has := l.Source(v6); !ok || !has {
				continue
			}
			if err := s.net.Multicast(l, v6, data); err != nil {
				s.log.Debug("WS-Discovery probe failed", "iface", l.Name, "err", err)
			}
		}
	}
}

// receive takes one packet. One from off the link, above the limits, or that does not
// parse, changes nothing.
func (s *Source) receive(p multicast.Packet) {
	l, ok := s.links[p.Iface]
	if !ok || !l.OnLink(p.From.Addr()) { // check: on-link source
		return
	}
	if !s.allowance.Hear(p.From.Addr()) {
		return
	}
	m, err := parse(p.Data)
	if err != nil || m.action == "ProbeMatches" && !slices.Contains(s.probes, m.relatesTo) { // check: answer to our probe
		return
	}
	from := netip.AddrPortFrom(l.Zoned(p.From.Addr()), p.From.Port())
	w := multicast.Way{Iface: l.Index, Host: from.Addr()}
	for _, e := range m.endpoints {
		switch {
		case m.action == "Bye":
			s.table.Drop(e.id, func(x multicast.Way) bool { return x == w })
		case slices.Contains(e.types, transmitter):
			s.table.Put(sighting(e, from), w, life)
		}
	}
}

func sighting(e endpoint, from netip.AddrPort) discovery.Sighting {
	out := discovery.Sighting{Source: "wsd", ID: e.id, Kind: Kind, Instance: e.scope("name"), Addrs: []netip.AddrPort{e.address(from)}}
	hardware := e.scope("hardware")
	if hardware != "" {
		out.Text = []string{"model=" + hardware}
	}
	if out.Instance == "" {
		out.Instance = hardware
	}
	if out.Instance == "" {
		out.Instance = "ONVIF camera"
	}
	return out
}
