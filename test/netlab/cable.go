package netlab

import (
	"errors"
	"fmt"
)

// Families of addresses that a host's interfaces get.
type Families int

// The kinds of host.
const (
	Both          Families = iota // IPv4, unique local IPv6, link-local IPv6
	IPv4Only                      // IPv6 is switched off
	IPv6Only                      // unique local and link-local
	LinkLocalOnly                 // IPv6 of the link alone, as without any router
)

// routerNumber is the router's place on each segment.
const routerNumber = 254

// cable is one interface of a host and its port at a bridge.
type cable struct {
	iface, port string
	segment     *Segment
	ipv4, ipv6  string // empty without
}

// Attach adds an interface on a segment to a running host, as plugging in a second cable
// does: eth1, then eth2. Its addresses end in the host's number plus 50 for each.
func (h *Host) Attach(s *Segment) error {
	h.lab.mu.Lock()
	defer h.lab.mu.Unlock()
	const step = MaxHosts / 5
	if h.number >= step || len(h.cables) == 5 {
		return fmt.Errorf("only the first %d hosts of a lab may have up to 5 interfaces", step-1)
	}
	return h.attach(s, h.number+len(h.cables)*step)
}

// attach adds an interface whose addresses end in number; the lab's mu is held.
func (h *Host) attach(s *Segment, number int) error {
	i := len(h.cables)
	c := cable{iface: fmt.Sprintf("eth%d", i), port: fmt.Sprintf("p%d-%d", h.number, i), segment: s}
	h.cables = append(h.cables, c)
	if err := errors.Join(
		ip("-n", h.NS, "link", "add", c.iface, "type", "veth", "peer", "name", c.port, "netns", h.lab.name),
		ip("-n", h.lab.name, "link", "set", c.port, "master", s.Bridge(), "up")); err != nil {
		return err
	}
	return h.address(&h.cables[i], number)
}

// address gives an interface the addresses of its segment that end in number; mu is held.
func (h *Host) address(c *cable, number int) error {
	c.ipv4, c.ipv6 = "", ""
	var errs []error
	if h.families == Both || h.families == IPv4Only {
		c.ipv4 = c.segment.ipv4(number)
		errs = append(errs, ip("-n", h.NS, "addr", "add", c.ipv4+"/24", "dev", c.iface))
	}
	errs = append(errs, ip("-n", h.NS, "link", "set", c.iface, "up"))
	if h.families == Both || h.families == IPv6Only {
		c.ipv6 = c.segment.ipv6(number)
		errs = append(errs, ip("-n", h.NS, "addr", "add", c.ipv6+"/64", "dev", c.iface, "nodad"))
	}
	if number != routerNumber {
		errs = append(errs, h.route(c))
	}
	return errors.Join(errs...)
}

// route sets the default route of an interface. A home has a router; before Route it does
// not answer.
func (h *Host) route(c *cable) error {
	if c.iface != "eth0" {
		return nil // one default is enough
	}
	var errs []error
	if c.ipv4 != "" {
		errs = append(errs, ip("-n", h.NS, "route", "replace", "default", "via", c.segment.ipv4(routerNumber)))
	}
	if c.ipv6 != "" && c.segment.routed {
		errs = append(errs, ip("-n", h.NS, "-6", "route", "replace", "default", "via", c.segment.ipv6(routerNumber)))
	}
	return errors.Join(errs...)
}

// Move plugs eth0 into another segment, with the addresses of that one.
func (h *Host) Move(s *Segment) error {
	h.lab.mu.Lock()
	defer h.lab.mu.Unlock()
	c := &h.cables[0]
	c.segment = s
	err := errors.Join(
		ip("-n", h.NS, "addr", "flush", "dev", c.iface, "scope", "global"),
		ip("-n", h.lab.name, "link", "set", c.port, "master", s.Bridge()),
		h.address(c, h.number))
	h.IPv4, h.IPv6 = c.ipv4, c.ipv6
	return err
}

// LoseIPv4 takes the IPv4 address of eth0 away, as when a lease ends.
func (h *Host) LoseIPv4() error {
	h.lab.mu.Lock()
	defer h.lab.mu.Unlock()
	h.IPv4, h.cables[0].ipv4 = "", ""
	return ip("-n", h.NS, "-4", "addr", "flush", "dev", "eth0")
}

// GetIPv4 gives eth0 the one IPv4 address of its segment that ends in number, as DHCP
// does; what it had before is gone.
func (h *Host) GetIPv4(number int) error {
	h.lab.mu.Lock()
	defer h.lab.mu.Unlock()
	c := &h.cables[0]
	c.ipv4 = c.segment.ipv4(number)
	h.IPv4 = c.ipv4
	return errors.Join(
		ip("-n", h.NS, "-4", "addr", "flush", "dev", c.iface),
		ip("-n", h.NS, "addr", "add", c.ipv4+"/24", "dev", c.iface),
		h.route(c))
}

// Unplug pulls one cable of several: 0 is that of eth0. Up plugs it in again.
func (h *Host) Unplug(i int) error {
	return ip("-n", h.lab.name, "link", "set", h.cables[i].port, "down")
}

// Down pulls the host's cables.
func (h *Host) Down() error { return h.switchAll("down") }

// Up plugs the cables in.
func (h *Host) Up() error { return h.switchAll("up") }

func (h *Host) switchAll(state string) error {
	var errs []error
	for _, c := range h.cables {
		errs = append(errs, ip("-n", h.lab.name, "link", "set", c.port, state))
	}
	return errors.Join(errs...)
}
