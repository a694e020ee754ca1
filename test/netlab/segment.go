package netlab

import (
	"errors"
	"fmt"
)

// cutBridge holds the ports of hosts that Cut took off their segment.
const cutBridge = "cut"

// Segment is one LAN: a bridge, with addresses 10.77.N.0/24 and fd77:0:0:N::/64. The
// router's place is 10.77.N.254 and fd77:0:0:N::fe; nothing answers there before Route.
type Segment struct {
	lab    *Lab
	number int
	routed bool
}

// Bridge is the segment's interface in the lab's namespace.
func (s *Segment) Bridge() string { return fmt.Sprintf("br%d", s.number) }

func (s *Segment) ipv4(n int) string { return fmt.Sprintf("10.77.%d.%d", s.number, n) }

func (s *Segment) ipv6(n int) string {
	if s.number == 0 {
		return fmt.Sprintf("fd77::%x", n)
	}
	return fmt.Sprintf("fd77:0:0:%x::%x", s.number, n)
}

// First is the segment that Host uses.
func (l *Lab) First() *Segment { return l.segments[0] }

// Segment adds a LAN of its own, which reaches no other before Route.
func (l *Lab) Segment() (*Segment, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := &Segment{lab: l, number: len(l.segments)}
	if err := l.addBridge(s.Bridge()); err != nil {
		return nil, err
	}
	l.segments = append(l.segments, s)
	return s, nil
}

func (l *Lab) addBridge(name string) error {
	return errors.Join(
		// Snooping would want a querier; without one it drops multicast after a while.
		ip("-n", l.name, "link", "add", name, "type", "bridge", "mcast_snooping", "0"),
		ip("-n", l.name, "link", "set", name, "addrgenmode", "none"), // it is a switch, and says nothing itself
		ip("-n", l.name, "link", "set", name, "up"))
}

// Route puts a router between segments: it forwards unicast of both families and no
// multicast, as home routers do. Hosts, those to come too, use it as their default.
func (l *Lab) Route(segments ...*Segment) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	r, err := l.namespace("router", Both)
	if err != nil {
		return err
	}
	script := "echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding"
	if err := ip("netns", "exec", r.NS, "sh", "-c", script); err != nil {
		return err
	}
	for _, s := range segments {
		if err := r.attach(s, routerNumber); err != nil {
			return err
		}
		s.routed = true
	}
	for _, h := range l.hosts {
		for i := range h.cables {
			if c := &h.cables[i]; h != r && c.segment.routed {
				if err := h.route(c); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// Cut takes hosts off their segment, without their interfaces noticing: they go on among
// themselves, as behind a switch whose uplink is gone. One cut at a time; Heal ends it.
func (l *Lab) Cut(hosts ...*Host) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.cut {
		if err := l.addBridge(cutBridge); err != nil {
			return err
		}
		l.cut = true
	}
	return plug(hosts, func(cable) string { return cutBridge })
}

// Heal puts hosts back on their segment.
func (l *Lab) Heal(hosts ...*Host) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return plug(hosts, func(c cable) string { return c.segment.Bridge() })
}

func plug(hosts []*Host, bridge func(cable) string) error {
	var errs []error
	for _, h := range hosts {
		for _, c := range h.cables {
			errs = append(errs, ip("-n", h.lab.name, "link", "set", c.port, "master", bridge(c)))
		}
	}
	return errors.Join(errs...)
}

// BlockMulticast makes the segment drop multicast between its present hosts, as some
// access points do. IPv6 finds its neighbours by multicast, so only IPv4 still works.
func (s *Segment) BlockMulticast() error {
	s.lab.mu.Lock()
	defer s.lab.mu.Unlock()
	var errs []error
	for _, h := range s.lab.hosts {
		for _, c := range h.cables {
			if c.segment == s {
				errs = append(errs, ip("-n", s.lab.name, "link", "set", c.port, "type", "bridge_slave", "mcast_flood", "off"))
			}
		}
	}
	return errors.Join(errs...)
}

// Namespace is where the lab's bridges are.
func (l *Lab) Namespace() string { return l.name }

// Plug puts an interface that was made in the lab's namespace on the segment.
func (s *Segment) Plug(iface string) error {
	return ip("-n", s.lab.name, "link", "set", iface, "master", s.Bridge(), "up")
}

// PlugCut puts such an interface where Cut put its hosts.
func (l *Lab) PlugCut(iface string) error {
	return ip("-n", l.name, "link", "set", iface, "master", cutBridge, "up")
}
