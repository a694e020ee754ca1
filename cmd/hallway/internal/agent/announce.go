package agent

import (
	"context"
	"net"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"time"

	"github.com/hallway-home/hallway/devices"
	"github.com/hallway-home/hallway/devices/records"
	"github.com/hallway-home/hallway/devices/trust"
	"github.com/hallway-home/hallway/discovery"
	"github.com/hallway-home/hallway/discovery/mdns"
)

// publishAgain: a record that could not be stored is tried again.
const publishAgain = 5 * time.Second

// publishPause: calls in quick succession make no storm of records.
const publishPause = 250 * time.Millisecond

// service is what this node announces now.
func (a *Agent) service() mdns.Service {
	an := discovery.Announcement{
		Class: devices.Class(a.profile.Class), Node: a.self, Version: a.opt.Version, Port: a.listen.Port(),
	}
	if p := a.webListens.Load(); p != nil {
		n, _ := strconv.ParseUint(*p, 10, 16)
		an.API = uint16(n)
	}
	a.mu.Lock()
	an.Pair = a.window != nil && a.window.Err() == nil
	a.mu.Unlock()
	if r := a.roster.Roster(); r.Has(a.self) {
		an.HomeTag = trust.HomeTag(r.HomeKey, a.self)
		if a.cfg.NamesOnLAN {
			an.Name, an.Room = r.Members[a.self].Name, r.Members[a.self].Room
		}
	}
	return mdns.Service{
		Instance: an.Instance(), Type: discovery.Type, Subtypes: []string{an.Subtype()},
		Host: an.Host(), Port: an.Port, Text: an.Text(),
	}
}

// keepAnnounced browses, announces this node, and announces it anew when it changed: when
// the roster did, or a window opened or closed.
func (a *Agent) keepAnnounced(ctx context.Context) error {
	changed := a.roster.Watch(ctx)
	a.mdns.Browse(append([]string{discovery.Type}, discovery.ForeignTypes()...)...)
	now := a.service()
	reg := a.mdns.Announce(now)
	var app *mdns.Registration // while this node belongs to a home
	for {
		switch r := a.roster.Roster(); {
		case app == nil && r.Has(a.self):
			app = a.mdns.ShareHost(r.Home.AppHost())
		case app != nil && !r.Has(a.self):
			app.Close()
			app = nil
		}
		shut, end := a.windowEnd()
		if s := a.service(); !reflect.DeepEqual(s, now) {
			now = s
			reg.Update(s)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-a.opened:
		case <-shut:
		case <-end:
		}
	}
}

// announceNow has the announcement looked at: something in it may be new.
func (a *Agent) announceNow() {
	select {
	case a.opened <- struct{}{}:
	default:
	}
}

// windowEnd tells when the window that is open now ends, by somebody's act or by time.
func (a *Agent) windowEnd() (shut <-chan struct{}, end <-chan time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.window == nil || a.window.Err() != nil {
		return nil, nil
	}
	return a.window.Done(), time.After(time.Until(a.window.Until()))
}

// keepOwnRecord publishes what this device can do and where it is, whenever that
// changes: at the start, when it joins, and when an address comes or goes.
func (a *Agent) keepOwnRecord(ctx context.Context) error {
	changed, moved := a.roster.Watch(ctx), a.monitor.Watch(ctx)
	var published *devices.DeviceRecord
	var pause <-chan time.Time
	for {
		var again <-chan time.Time
		if a.roster.Roster().Has(a.self) {
			now := a.ownRecord()
			if published == nil {
				published = a.storedRecord()
			}
			if published != nil && len(now.Addrs) == 0 {
				now.Addrs = published.Addrs // without an address nobody is told, and others should not forget
			}
			if published == nil || !reflect.DeepEqual(*published, now) {
				if err := a.mesh.Publish(records.KindDevice, now); err != nil {
					a.log.Error("cannot publish what this device is", "err", err)
					again = time.After(publishAgain)
				} else {
					published = &now
					pause = time.After(publishPause)
				}
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-a.capable:
		case <-moved:
		case <-again:
		}
		if pause != nil {
			select {
			case <-ctx.Done():
				return nil
			case <-pause:
				pause = nil
			}
		}
	}
}

// recordChanged has the own record looked at: something in it may be new.
func (a *Agent) recordChanged() {
	select {
	case a.capable <- struct{}{}:
	default:
	}
}

// storedRecord is what this node published before, so that a restart changes nothing.
func (a *Agent) storedRecord() *devices.DeviceRecord {
	for _, r := range a.mesh.Records() {
		if r.Writer == a.self && r.Kind == records.KindDevice {
			if d, err := records.DecodeDevice(r); err == nil {
				return &d
			}
		}
	}
	return nil
}

func (a *Agent) ownRecord() devices.DeviceRecord {
	b := a.profile.Behaviour
	return devices.DeviceRecord{
		Capabilities: *a.caps.Load(), Addrs: a.addresses(), Version: a.opt.Version,
		Behaviour: devices.RecordBehaviour{Automata: b.Automata, Mobility: b.Mobility, Duplex: b.Duplex}, Presence: a.presence(),
	}
}

// maxOwnAddrs bounds the addresses in a record, which has 1,024 bytes.
const maxOwnAddrs = 6

// addresses lists where the member port can be reached, without link-local ones, whose
// zone means nothing elsewhere.
func (a *Agent) addresses() []netip.AddrPort {
	if ip := a.listen.Addr(); ip.IsValid() && !ip.IsUnspecified() {
		return []netip.AddrPort{a.listen}
	}
	var out []netip.AddrPort
	for _, i := range a.monitor.Interfaces() {
		wanted := i.Flags&net.FlagLoopback == 0
		if len(a.cfg.Interfaces) > 0 {
			wanted = slices.Contains(a.cfg.Interfaces, i.Name)
		}
		if i.Flags&net.FlagUp == 0 || !wanted {
			continue
		}
		for _, p := range i.Addrs {
			if !p.Addr().IsLinkLocalUnicast() {
				out = append(out, netip.AddrPortFrom(p.Addr(), a.listen.Port()))
			}
		}
	}
	slices.SortFunc(out, netip.AddrPort.Compare)
	return out[:min(len(out), maxOwnAddrs)]
}
