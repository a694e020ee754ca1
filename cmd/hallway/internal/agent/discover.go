package agent

import (
	"context"
	"encoding/binary"

	"golang.org/x/sync/errgroup"

	"github.com/hallway-home/hallway/devices"
	"github.com/hallway-home/hallway/discovery"
	"github.com/hallway-home/hallway/discovery/mdns"
	"github.com/hallway-home/hallway/discovery/multicast"
	"github.com/hallway-home/hallway/discovery/ssdp"
	"github.com/hallway-home/hallway/discovery/wsd"
)

// appPort is where the companion app of a home is served, on every node.
const appPort = "8443"

func (a *Agent) openDiscovery() {
	a.monitor = multicast.NewMonitor(a.log)
	a.mdns = mdns.New(mdns.Config{Interfaces: a.cfg.Interfaces, Monitor: a.monitor, Logger: a.log})
	a.ssdp = ssdp.New(ssdp.Config{Interfaces: a.cfg.Interfaces, Monitor: a.monitor, NextBoot: a.nextBoot, Logger: a.log})
	a.wsd = wsd.New(wsd.Config{Interfaces: a.cfg.Interfaces, Monitor: a.monitor, Logger: a.log})
}

// nextBoot counts the starts that UPnP control points are told of, over restarts.
func (a *Agent) nextBoot() (uint32, error) {
	var n uint32
	err := a.store.Update("upnp-boot", func(tx devices.Tx) error {
		if b := tx.Get("discovery", "upnp-boot"); len(b) == 4 {
			n = binary.BigEndian.Uint32(b)
		}
		n = n&0x7fffffff + 1 // 31 bits (UDA 2.0 section 1.2.2)
		return tx.Put("discovery", "upnp-boot", binary.BigEndian.AppendUint32(nil, n))
	})
	return n, err
}

// discover runs the protocols that are switched on. mDNS is how nodes find each other, so
// the agent ends if it cannot run; the others may be held by another program.
func (a *Agent) discover(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	if a.cfg.Discovery.MDNS {
		g.Go(func() error { return a.mdns.Run(ctx, a.sighted) })
		g.Go(func() error { return a.keepAnnounced(ctx) })
	}
	optional := func(name string, s discovery.Source) {
		if err := s.Run(ctx, a.sighted); err != nil {
			a.log.Warn("it goes on without "+name, "err", err)
		}
	}
	if a.cfg.Discovery.SSDP {
		g.Go(func() error { optional("SSDP", a.ssdp); return nil })
		g.Go(func() error { return a.keepUPnP(ctx) })
	}
	if a.cfg.Discovery.WSD {
		g.Go(func() error { optional("WS-Discovery", a.wsd); return nil })
	}
	return g.Wait()
}

// keepUPnP announces this node by SSDP, and anew when its home changes.
func (a *Agent) keepUPnP(ctx context.Context) error {
	changed := a.roster.Watch(ctx)
	for {
		d := ssdp.Device{UUID: discovery.UUID(a.self), Name: "Hallway-" + a.self.Short()}
		if r := a.roster.Roster(); r.Has(a.self) && a.cfg.WebAddr() != "" {
			d.Presentation = "https://" + r.Home.AppHost() + ":" + a.webPort() + "/"
		}
		a.ssdp.Announce(&d)
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}

// sighted takes what discovery sees: members are dialled, the rest is listed.
func (a *Agent) sighted(s discovery.Sighting) {
	for _, from := range s.Addrs {
		a.mesh.HeardFrom(from.Addr())
	}
	if !a.tracker.Take(s) {
		return
	}
	if n, err := discovery.ParseNeighbour(s); err == nil && !s.Gone && n.Prefix != [8]byte(a.self[:8]) {
		a.mesh.HintPrefix(n.Prefix, n.Addrs)
	}
	a.listForeign()
}

// listForeign gives the directory everything that is no member; only what proved its
// key over TLS is one, whatever it announces.
func (a *Agent) listForeign() {
	r := a.roster.Roster()
	a.dir.SetForeign(a.tracker.Foreign(func(prefix [8]byte) bool {
		return prefix == [8]byte(a.self[:8]) || isMember(r, prefix)
	}))
}
