package ssdp

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/hallway-home/hallway/discovery"
	"github.com/hallway-home/hallway/discovery/multicast"
)

const (
	// Announcements go out at once and twice more, since UDP may lose them (UDA 2.0 section
	// 1.2.1), and again at a random moment before half of their life is over (1.2.2).
	secondAlive, thirdAlive   = 300 * time.Millisecond, 3 * time.Second
	soonestAgain, latestAgain = maxAge / 3, maxAge / 2
)

// targets are the NT or ST under which this node is known, and their USN: it is one root
// device without services.
func (s *Source) targets() [3]named {
	u := "uuid:" + s.device.UUID
	return [3]named{
		{"upnp:rootdevice", u + "::upnp:rootdevice"},
		{u, u},
		{discovery.UPnPType, u + "::" + discovery.UPnPType},
	}
}

type named struct{ target, usn string }

// become takes over what is announced.
func (s *Source) become(d *Device) {
	if s.device != nil {
		if d != nil && *d == *s.device {
			return
		}
		s.byebye()
		s.nextBoot()
	}
	s.device = d
	if d == nil {
		s.doc.Store(nil)
		return
	}
	doc, config := d.describe(discovery.UPnPType)
	s.config = config
	s.doc.Store(&page{doc, d.Presentation})
	s.alive()
}

func (s *Source) nextBoot() {
	n, err := s.cfg.NextBoot()
	if err != nil {
		s.log.Warn("the number of UPnP starts cannot be kept", "err", err)
		n = max(s.boot+1, uint32(time.Now().Unix()&0x7fffffff)) //nolint:gosec // 31 bits
	}
	s.boot = n
}

// reboot tells on the links that stayed that a new boot begins, and announces anew on all
// (UDA 2.0 section 1.2.4).
func (s *Source) reboot(kept []multicast.Link) {
	if s.device == nil {
		return
	}
	before := s.boot
	s.nextBoot()
	for _, l := range kept {
		s.notify(l, func(location string, n named) string {
			return fmt.Sprintf("%sLOCATION: %s\r\nNT: %s\r\nNTS: ssdp:update\r\nUSN: %s\r\nBOOTID.UPNP.ORG: %d\r\nCONFIGID.UPNP.ORG: %d\r\nNEXTBOOTID.UPNP.ORG: %d\r\n\r\n",
				notifyHead, location, n.target, n.usn, before, s.config, s.boot)
		})
	}
	s.alive()
}

const notifyHead = "NOTIFY * HTTP/1.1\r\nHOST: %HOST%\r\n"

// notify multicasts a message for each target on a link, in each family that it has.
func (s *Source) notify(l multicast.Link, text func(location string, n named) string) {
	for _, v6 := range []bool{false, true} {
		src, ok := l.Source(v6)
		if !ok {
			continue
		}
		host := "239.255.255.250:1900"
		if v6 {
			host = "[FF02::C]:1900"
		}
		for _, n := range s.targets() {
			data := strings.Replace(text(s.location(src), n), "%HOST%", host, 1)
			if err := s.loop.Net.Multicast(l, v6, []byte(data)); err != nil {
				s.log.Debug("SSDP send failed", "iface", l.Name, "err", err)
			}
		}
	}
}

func (s *Source) location(a netip.Addr) string {
	return "http://" + netip.AddrPortFrom(a.WithZone(""), s.port).String() + path
}

// alive announces what is announced now, several times.
func (s *Source) alive() {
	boot, config := s.boot, s.config
	say := func() {
		if s.device == nil || s.boot != boot || s.config != config {
			return // something newer is being said
		}
		for _, l := range s.loop.Links {
			s.notify(l, func(location string, n named) string {
				return fmt.Sprintf("%sCACHE-CONTROL: max-age=%d\r\nLOCATION: %s\r\nNT: %s\r\nNTS: ssdp:alive\r\nSERVER: %s\r\nUSN: %s\r\nBOOTID.UPNP.ORG: %d\r\nCONFIGID.UPNP.ORG: %d\r\n\r\n",
					notifyHead, int(maxAge.Seconds()), location, n.target, server, n.usn, boot, config)
			})
		}
	}
	say()
	s.loop.After(secondAlive, say)
	s.loop.After(thirdAlive, say)
}

// repeatAlive announces again and again, for as long as Run lives.
func (s *Source) repeatAlive() {
	s.loop.After(multicast.Jitter(soonestAgain, latestAgain), func() {
		if s.device != nil {
			s.alive()
		}
		s.repeatAlive()
	})
}

// byebye takes back all that was announced (UDA 2.0 section 1.2.3), twice, since UDP may
// lose it.
func (s *Source) byebye() {
	if s.device == nil {
		return
	}
	for range 2 {
		for _, l := range s.loop.Links {
			s.notify(l, func(_ string, n named) string {
				return fmt.Sprintf("%sNT: %s\r\nNTS: ssdp:byebye\r\nUSN: %s\r\nBOOTID.UPNP.ORG: %d\r\nCONFIGID.UPNP.ORG: %d\r\n\r\n",
					notifyHead, n.target, n.usn, s.boot, s.config)
			})
		}
	}
}

// asked answers a search. Each answer waits a random part of MX (UDA 2.0 section 1.3.3)
// and is paid for by the bytes of this source's searches; of several that are due, those
// that cannot be paid take their turn at the next search: a control point repeats it.
func (s *Source) asked(l multicast.Link, p multicast.Packet, m message) {
	wait, ok := m.delay(p.Group)
	if !ok || s.device == nil {
		return
	}
	st := m.header["ST"]
	var due []named
	for _, n := range s.targets() {
		if st == "ssdp:all" || n.target == st || strings.EqualFold(n.target, st) && strings.HasPrefix(n.target, "uuid:") {
			due = append(due, n)
		}
	}
	src, ok := l.Toward(p.From.Addr())
	if len(due) == 0 || !ok {
		return
	}
	s.allowance.Asked(p.From.Addr(), len(p.Data))
	turn := s.allowance.Turn(p.From.Addr())
	for range due {
		n := due[*turn%len(due)]
		data := s.answer(n, src)
		if s.loop.Len() > maxPending || !s.allowance.Spend(p.From.Addr(), len(data)) { // check: three times the query
			return
		}
		*turn++
		s.loop.After(multicast.Jitter(0, wait), func() {
			if err := s.loop.Net.Unicast(l, p.From, data); err != nil {
				s.log.Debug("SSDP answer failed", "to", p.From, "err", err)
			}
		})
	}
}

// answer is kept short: header names need no space behind their colon.
func (s *Source) answer(n named, src netip.Addr) []byte {
	return fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nCACHE-CONTROL:max-age=%d\r\nEXT:\r\nLOCATION:%s\r\nSERVER:%s\r\nST:%s\r\nUSN:%s\r\nBOOTID.UPNP.ORG:%d\r\nCONFIGID.UPNP.ORG:%d\r\n\r\n",
		int(maxAge.Seconds()), s.location(src), server, n.target, n.usn, s.boot, s.config)
}
