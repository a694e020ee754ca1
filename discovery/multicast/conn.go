package multicast

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"syscall"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

const (
	// queue of received packets; more than this at once is a flood, and dropped.
	queue = 256
	// maxDatagram: an answer of SSDP has some hundred bytes, a probe match of a camera up
	// to a few thousand. Longer ones are cut, and then do not parse.
	maxDatagram = 8192
)

// Config of a Conn.
type Config struct {
	Group4, Group6 netip.AddrPort
	Hops           int          // TTL of multicast
	Interfaces     []string     // names; empty means all that are up and can multicast, without loopback; "lo" works
	NoIPv4, NoIPv6 bool         // leave a family alone
	Logger         *slog.Logger // never nil
}

// Conn is the real network: in each family one socket on the group's port, shared with
// whatever else speaks the protocol on this machine, and one on a port of our own, from
// which searches go, because the kernel gives an answer to a shared port to only one of
// the programs there.
type Conn struct {
	cfg    Config
	watch  watcher
	wg     sync.WaitGroup
	raw    []net.PacketConn
	own4   *ipv4.PacketConn
	own6   *ipv6.PacketConn
	group4 *ipv4.PacketConn // nil if only answers are heard
	group6 *ipv6.PacketConn
	in     map[membership]bool
}

type membership struct {
	iface int
	v6    bool
}

// New makes a Conn; it opens nothing.
func New(cfg Config) *Conn { return &Conn{cfg: cfg, in: map[membership]bool{}} }

// Open opens the sockets. It fails only if no family works.
func (c *Conn) Open(group bool) (<-chan Packet, error) {
	out := make(chan Packet, queue)
	var errs []error
	note := func(err error) { errs = append(errs, err) }
	if !c.cfg.NoIPv4 {
		c.own4 = c.open4(0, out, note)
		if group {
			c.group4 = c.open4(c.cfg.Group4.Port(), out, note)
		}
	}
	if !c.cfg.NoIPv6 {
		c.own6 = c.open6(0, out, note)
		if group {
			c.group6 = c.open6(c.cfg.Group6.Port(), out, note)
		}
	}
	err := errors.Join(errs...)
	if c.own4 == nil && c.own6 == nil || group && c.group4 == nil && c.group6 == nil {
		c.Close()
		return nil, fmt.Errorf("cannot use UDP port %d to find devices: %w; stop the program that holds it alone", c.cfg.Group4.Port(), err)
	}
	if err != nil {
		c.cfg.Logger.Info("multicast works in part only", "port", c.cfg.Group4.Port(), "err", err)
	}
	if err := c.watch.start(&c.wg); err != nil {
		c.cfg.Logger.Info("interface changes are polled for", "err", err)
	}
	return out, nil
}

// listen opens a port, shared unless it is one of our own (0).
func (c *Conn) listen(network string, port uint16) (net.PacketConn, error) {
	lc := net.ListenConfig{}
	if port != 0 {
		lc.Control = sharePort
	}
	p, err := lc.ListenPacket(context.Background(), network, ":"+strconv.Itoa(int(port)))
	if err == nil {
		c.raw = append(c.raw, p)
	}
	return p, err
}

func (c *Conn) open4(port uint16, out chan<- Packet, note func(error)) *ipv4.PacketConn {
	raw, err := c.listen("udp4", port)
	if err != nil {
		note(err)
		return nil
	}
	p := ipv4.NewPacketConn(raw)
	note(errors.Join(p.SetControlMessage(ipv4.FlagInterface|ipv4.FlagDst, true), p.SetMulticastTTL(c.cfg.Hops), p.SetMulticastLoopback(true)))
	c.wg.Go(func() {
		read(out, func(b []byte) (int, int, net.IP, net.Addr, error) {
			n, cm, src, err := p.ReadFrom(b)
			if cm == nil {
				return n, 0, nil, src, err
			}
			return n, cm.IfIndex, cm.Dst, src, err
		})
	})
	return p
}

func (c *Conn) open6(port uint16, out chan<- Packet, note func(error)) *ipv6.PacketConn {
	raw, err := c.listen("udp6", port)
	if err != nil {
		note(err)
		return nil
	}
	p := ipv6.NewPacketConn(raw)
	note(errors.Join(p.SetControlMessage(ipv6.FlagInterface|ipv6.FlagDst, true), p.SetMulticastHopLimit(c.cfg.Hops), p.SetMulticastLoopback(true)))
	c.wg.Go(func() {
		read(out, func(b []byte) (int, int, net.IP, net.Addr, error) {
			n, cm, src, err := p.ReadFrom(b)
			if cm == nil {
				return n, 0, nil, src, err
			}
			return n, cm.IfIndex, cm.Dst, src, err
		})
	})
	return p
}

// read hands packets on until the socket is closed. A protocol that cannot keep up loses
// packets here, as it would in the system's own queue.
func read(out chan<- Packet, from func([]byte) (n, iface int, dst net.IP, src net.Addr, err error)) {
	buf := make([]byte, maxDatagram)
	for {
		n, iface, dst, src, err := from(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		udp, ok := src.(*net.UDPAddr)
		if err != nil || !ok {
			continue
		}
		select {
		case out <- Packet{Data: slices.Clone(buf[:n]), From: udp.AddrPort(), Iface: iface, Group: dst.IsMulticast()}:
		default:
		}
	}
}

// Close closes the sockets and waits for the readers.
func (c *Conn) Close() {
	for _, p := range c.raw {
		_ = p.Close()
	}
	c.watch.stop()
	c.wg.Wait()
}

// Changed tells that the interfaces may have changed.
func (c *Conn) Changed() <-chan struct{} { return c.watch.events }

// Links lists the usable interfaces and joins the group on those that are new.
func (c *Conn) Links() map[int]Link {
	out := map[int]Link{}
	ifaces, err := net.Interfaces()
	if err != nil {
		c.cfg.Logger.Warn("cannot list the network interfaces", "err", err)
		return out
	}
	notYet := tentative()
	for _, i := range ifaces {
		if i.Flags&net.FlagUp == 0 || i.Flags&net.FlagRunning == 0 || !Wanted(i, c.cfg.Interfaces) {
			continue
		}
		if l := c.describe(i, notYet); len(l.Addrs) > 0 {
			c.join(i, l)
			out[i.Index] = l
		}
	}
	for m := range c.in {
		if _, ok := out[m.iface]; !ok {
			delete(c.in, m) // gone: join anew when it returns
		}
	}
	return out
}

// Wanted reports whether an interface is used: one that is named, or, where none is
// named, one that can multicast and is neither loopback nor a tunnel.
func Wanted(i net.Interface, names []string) bool {
	if len(names) > 0 {
		return slices.Contains(names, i.Name)
	}
	return i.Flags&net.FlagMulticast != 0 && i.Flags&net.FlagLoopback == 0 && i.Flags&net.FlagPointToPoint == 0
}

func (c *Conn) describe(i net.Interface, notYet map[netip.Addr]bool) Link {
	l := Link{Index: i.Index, Name: i.Name, Loopback: i.Flags&net.FlagLoopback != 0}
	addrs, _ := i.Addrs() // an interface that went meanwhile has none
	for _, a := range addrs {
		p, err := netip.ParsePrefix(a.String())
		if err != nil || notYet[p.Addr()] {
			continue
		}
		if p.Addr().Is4() && c.own4 != nil || p.Addr().Is6() && c.own6 != nil {
			l.Addrs = append(l.Addrs, p)
		}
	}
	slices.SortFunc(l.Addrs, netip.Prefix.Compare)
	return l
}

func (c *Conn) join(i net.Interface, l Link) {
	for _, v6 := range []bool{false, true} {
		m := membership{i.Index, v6}
		if _, ok := l.Source(v6); !ok || c.in[m] {
			continue
		}
		var err error
		switch {
		case v6 && c.group6 != nil:
			err = c.group6.JoinGroup(&i, net.UDPAddrFromAddrPort(c.cfg.Group6))
		case !v6 && c.group4 != nil:
			err = c.group4.JoinGroup(&i, net.UDPAddrFromAddrPort(c.cfg.Group4))
		}
		if err != nil && !errors.Is(err, syscall.EADDRINUSE) { // in the group since before
			c.cfg.Logger.Warn("cannot hear multicast on an interface", "iface", i.Name, "port", c.cfg.Group4.Port(), "err", err)
			continue
		}
		c.in[m] = true
	}
}

// Multicast sends to the group on one link, from the link's own address and our own port.
func (c *Conn) Multicast(l Link, v6 bool, data []byte) error {
	src, ok := l.Source(v6)
	switch {
	case !ok:
		return nil
	case v6 && c.own6 != nil:
		_, err := c.own6.WriteTo(data, &ipv6.ControlMessage{IfIndex: l.Index, Src: src.AsSlice()}, net.UDPAddrFromAddrPort(c.cfg.Group6))
		return err
	case !v6 && c.own4 != nil:
		_, err := c.own4.WriteTo(data, &ipv4.ControlMessage{IfIndex: l.Index, Src: src.AsSlice()}, net.UDPAddrFromAddrPort(c.cfg.Group4))
		return err
	}
	return nil
}

// Unicast sends to a host on the link, from the group's port, as one who was asked there.
func (c *Conn) Unicast(l Link, to netip.AddrPort, data []byte) error {
	dst := net.UDPAddrFromAddrPort(netip.AddrPortFrom(l.Zoned(to.Addr()), to.Port()))
	src, _ := l.Toward(to.Addr())
	switch v6 := !to.Addr().Unmap().Is4(); {
	case v6 && c.group6 != nil:
		_, err := c.group6.WriteTo(data, &ipv6.ControlMessage{IfIndex: l.Index, Src: src.AsSlice()}, dst)
		return err
	case !v6 && c.group4 != nil:
		_, err := c.group4.WriteTo(data, &ipv4.ControlMessage{IfIndex: l.Index, Src: src.AsSlice()}, dst)
		return err
	}
	return nil
}
