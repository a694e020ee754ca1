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
	"maps"
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
)

// Config of a Source; the zero value uses every usable interface and both families.
type Config struct {
	Interfaces []string // names; empty means all that are up and can multicast, without loopback
	NoIPv4     bool
	NoIPv6     bool
	Monitor    *multicast.Monitor // of the interfaces, run by its owner; nil means one of its own
	Logger     *slog.Logger       // nil discards

	network multicast.Network // tests put a network in memory here
}

// Source probes and listens. Make it with New, start it with Run.
type Source struct {
	log *slog.Logger

	// All below is owned by Run.
	loop      *multicast.Loop
	allowance *multicast.Allowance
	table     *multicast.Table
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
			Interfaces: cfg.Interfaces, NoIPv4: cfg.NoIPv4, NoIPv6: cfg.NoIPv6, Monitor: cfg.Monitor, Logger: cfg.Logger,
		})
	}
	loop := multicast.NewLoop(cfg.network)
	return &Source{log: cfg.Logger, loop: loop, allowance: multicast.NewAllowance(), table: multicast.NewTable(&loop.Agenda)}
}

// Run probes and listens until ctx ends and returns after its readers have ended. It calls
// report from its own goroutine. An error means that port 3702 cannot be had in either
// family. It satisfies discovery.Source; call it once.
func (s *Source) Run(ctx context.Context, report func(discovery.Sighting)) error {
	s.table.Report = report
	s.loop.Every(probeAgain, func() { s.probe(slices.Collect(maps.Keys(s.loop.Links))) })
	return s.loop.Run(ctx, multicast.Handler{Receive: s.receive, Relink: s.relink, Tidy: s.allowance.Prune})
}

// relink probes at once on a link that is new or has other addresses; what was heard on a
// lost one is forgotten.
func (s *Source) relink(c multicast.Change) {
	var fresh []int
	for _, l := range append(c.New, c.Changed...) {
		fresh = append(fresh, l.Index)
	}
	for _, l := range c.Lost {
		s.table.DropAll(func(w multicast.Way) bool { return w.Iface == l.Index })
	}
	if len(fresh) > 0 {
		s.probe(fresh)
		s.loop.After(secondProbe, func() { s.probe(fresh) })
		s.loop.After(thirdProbe, func() { s.probe(fresh) })
	}
}

// probe asks on some links, with one MessageID for all.
func (s *Source) probe(links []int) {
	id := newID()
	s.probes = append(s.probes[max(0, len(s.probes)-maxProbes+1):], id)
	data := probe(id)
	for _, i := range links {
		for _, v6 := range []bool{false, true} {
			l, ok := s.loop.Links[i]
			if _, has := l.Source(v6); !ok || !has {
				continue
			}
			if err := s.loop.Net.Multicast(l, v6, data); err != nil {
				s.log.Debug("WS-Discovery probe failed", "iface", l.Name, "err", err)
			}
		}
	}
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
