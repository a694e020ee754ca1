package ssdp

import (
	"context"
	"net/netip"
	"slices"
	"time"

	"github.com/hallway-home/hallway/discovery"
	"github.com/hallway-home/hallway/discovery/multicast"
)

const (
	// A search goes out three times, since UDP may lose it and its answers; then, for those
	// whose announcements got lost, now and then.
	secondSearch, thirdSearch = 400 * time.Millisecond, 2 * time.Second
	searchAgain               = 5 * time.Minute
	// mx spreads the answers of a full house; a person waits for them.
	mx = "1"
	// rootDevice is the target that every root device has, and no other device.
	rootDevice = "upnp:rootdevice"
)

// origin is one way on which one device is heard.
type origin struct {
	uuid string
	way  multicast.Way
}

// fact is what a device last said there of where its description is.
type fact struct {
	location, boot, config string
	asking                 bool
	failed                 time.Time // when the description could not be had, else zero
}

// search asks for root devices on some links, several times.
func (s *Source) search(links []multicast.Link) {
	ask := func() {
		now := map[int]multicast.Link{}
		for _, l := range links {
			if k, ok := s.loop.Links[l.Index]; ok {
				now[l.Index] = k
			}
		}
		s.ask(now)
	}
	ask()
	s.loop.After(secondSearch, ask)
	s.loop.After(thirdSearch, ask)
}

func (s *Source) ask(links map[int]multicast.Link) {
	for _, l := range links {
		for _, v6 := range []bool{false, true} {
			if _, ok := l.Source(v6); !ok {
				continue
			}
			host := "239.255.255.250:1900"
			if v6 {
				host = "[FF02::C]:1900"
			}
			data := "M-SEARCH * HTTP/1.1\r\nHOST: " + host + "\r\nMAN: \"ssdp:discover\"\r\nMX: " + mx + "\r\nST: " + rootDevice +
				"\r\nUSER-AGENT: " + server + "\r\n\r\n"
			if err := s.loop.Net.Multicast(l, v6, []byte(data)); err != nil {
				s.log.Debug("SSDP search failed", "iface", l.Name, "err", err)
			}
		}
	}
}

// heard takes an announcement or an answer.
func (s *Source) heard(l multicast.Link, from netip.AddrPort, m message) {
	uuid, nt, ok := usn(m.header["USN"])
	if !ok || s.device != nil && uuid == s.device.UUID {
		return
	}
	o := origin{uuid, multicast.Way{Iface: l.Index, Host: l.Zoned(from.Addr())}}
	switch {
	case m.kind == notify && m.header["NTS"] == "ssdp:byebye":
		// The device itself goes, not one of its services.
		if nt == rootDevice || nt == "" {
			delete(s.facts, o)
			s.table.Drop(uuid, func(w multicast.Way) bool { return w == o.way })
		}
	case m.kind == notify && m.header["NTS"] == "ssdp:update":
		if f, ok := s.facts[o]; ok {
			f.boot = m.header["NEXTBOOTID.UPNP.ORG"]
			s.facts[o] = f
		}
	case m.kind == response || m.header["NTS"] == "ssdp:alive":
		s.present(o, nt == rootDevice, m)
	}
}

// present takes the word of a device that it is there. One that is new, or says that it
// changed, is asked for its description first; root tells whether it is a root device.
func (s *Source) present(o origin, root bool, m message) {
	now := fact{location: m.header["LOCATION"], boot: m.header["BOOTID.UPNP.ORG"], config: m.header["CONFIGID.UPNP.ORG"]}
	old, known := s.facts[o]
	if !known && !root || !s.table.Room(o.uuid, o.way) || old.asking {
		return
	}
	if known && old.location == now.location && old.boot == now.boot && old.config == now.config && (old.failed.IsZero() || time.Since(old.failed) < retryAfter) {
		if last, ok := s.table.Known(o.uuid, o.way); ok {
			s.table.Put(last, o.way, m.age())
			return
		}
	}
	u, addr, err := target(now.location, o.way.Host)
	if err != nil || s.fetching >= maxFetches || !known && len(s.facts) >= maxFacts || s.askingOf(o.way.Host) >= maxFetchesPerHost || !s.allowance.Dear(o.way.Host) {
		return // it will speak again
	}
	now.asking = true
	s.facts[o] = now
	s.fetching++
	get := s.cfg.fetch
	s.spawn(func(ctx context.Context) {
		data, err := get(ctx, u, o.way.Host)
		var d description
		if err == nil {
			d, err = parseDescription(data)
		}
		s.loop.Do(func() { s.described(o, now, addr, d, err, m.age()) })
	})
}

func (s *Source) askingOf(host netip.Addr) int {
	n := 0
	for o, f := range s.facts {
		if f.asking && o.way.Host == host {
			n++
		}
	}
	return n
}

// described lists a device as its description says. Without one it is listed as a root
// device that nothing is known of.
func (s *Source) described(o origin, f fact, addr netip.AddrPort, d description, err error, age time.Duration) {
	s.fetching--
	if current, ok := s.facts[o]; !ok || !current.asking {
		return // it said goodbye meanwhile
	}
	if id, _, ok := usn(d.udn); err == nil && (!ok || id != o.uuid) {
		d, err = description{}, errElsewhere // somebody else's description
	}
	f.asking = false
	if err != nil {
		s.log.Debug("a UPnP description cannot be had", "device", o.uuid, "err", err)
		f.failed = time.Now()
	}
	s.facts[o] = f
	host := o.way.Host
	sight := sightingOf(o.uuid, d)
	if last, ok := s.table.Any(o.uuid); ok && err != nil {
		sight = last // as it was described on another link
	}
	sight.Addrs = []netip.AddrPort{addr}
	s.table.Put(sight, o.way, age)
	s.table.Drop(o.uuid, func(w multicast.Way) bool { // where it was before it started anew
		return w.Iface == o.way.Iface && w.Host.Is4() == host.Is4() && w != o.way && s.facts[origin{o.uuid, w}].boot != f.boot
	})
}

func sightingOf(uuid string, d description) discovery.Sighting {
	out := discovery.Sighting{
		Source: "ssdp", ID: uuid, Kind: d.deviceType, Instance: d.name,
		Also: slices.DeleteFunc(d.embedded, func(t string) bool { return t == d.deviceType }),
	}
	for _, kv := range [][2]string{{"maker", d.maker}, {"model", d.model}} {
		if kv[1] != "" {
			out.Text = append(out.Text, kv[0]+"="+kv[1])
		}
	}
	if out.Kind == "" {
		out.Kind = rootDevice
	}
	if out.Instance == "" {
		out.Instance = "UPnP device"
	}
	return out
}

// forgetFacts drops what belongs to nobody in the table.
func (s *Source) forgetFacts() {
	for o, f := range s.facts {
		if _, ok := s.table.Known(o.uuid, o.way); !ok && !f.asking {
			delete(s.facts, o)
		}
	}
}
