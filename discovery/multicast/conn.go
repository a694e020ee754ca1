package multicast

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
)

const (
	// queue of received packets; more than this at once is a flood, and dropped.
	queue = 256
	// maxDatagram: RFC 6762 section 17, and nothing else here is longer. What is gets cut,
	// and then does not parse.
	maxDatagram = 9000
)

// Config of a Conn.
type Config struct {
	Group4, Group6 netip.AddrPort
	Hops           int          // TTL of all that is sent
	OnePort        bool         // what this node asks goes from the group's port as well (mDNS)
	Interfaces     []string     // names; empty means all that are up and can multicast, without loopback; "lo" works
	NoIPv4, NoIPv6 bool         // leave a family alone
	Monitor        *Monitor     // shared, and run by its owner; nil means one of the Conn's own
	Logger         *slog.Logger // never nil
}

// Conn is the real network: in each family one socket on the group's port, shared with
// whatever else speaks the protocol on this machine, and one on a port of our own, from
// which searches go, because the kernel gives an answer to a shared port to only one of
// the programs there. With Config.OnePort the first serves for both.
type Conn struct {
	cfg      Config
	wg       sync.WaitGroup
	cancel   context.CancelFunc
	changed  <-chan struct{}
	raw      []net.PacketConn
	families []*family // those that work
}

// family is one address family.
type family struct {
	v6         bool
	to         *net.UDPAddr
	own, group *port
	in         map[int][]netip.Prefix // groups joined, by interface, with its addresses then
	refused    map[int]bool           // joining failed, and was said once
}

// New makes a Conn; it opens nothing.
func New(cfg Config) *Conn { return &Conn{cfg: cfg} }

// Open opens the sockets. It fails only if no family works.
func (c *Conn) Open() (<-chan Packet, error) {
	out := make(chan Packet, queue)
	var errs []error
	for _, v6 := range []bool{false, true} {
		if v6 && c.cfg.NoIPv6 || !v6 && c.cfg.NoIPv4 {
			continue
		}
		if err := c.open(v6); err != nil {
			errs = append(errs, err)
		}
	}
	err := errors.Join(errs...)
	if len(c.families) == 0 {
		return nil, fmt.Errorf("cannot use UDP port %d to find devices: %w; stop the program that holds it alone", c.cfg.Group4.Port(), err)
	}
	if err != nil {
		c.cfg.Logger.Warn("multicast works in one address family only", "port", c.cfg.Group4.Port(), "err", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	c.cancel = cancel
	if c.cfg.Monitor == nil {
		c.cfg.Monitor = NewMonitor(c.cfg.Logger)
		c.wg.Go(func() { _ = c.cfg.Monitor.Run(ctx) }) // it never fails
	}
	c.changed = c.cfg.Monitor.Watch(ctx)
	for _, f := range c.families {
		c.wg.Go(func() { f.group.receive(out) })
		if f.own != f.group {
			c.wg.Go(func() { f.own.receive(out) })
		}
	}
	return out, nil
}

// open opens the sockets of one family.
func (c *Conn) open(v6 bool) error {
	network, to := "udp4", c.cfg.Group4
	if v6 {
		network, to = "udp6", c.cfg.Group6
	}
	f := &family{v6: v6, to: net.UDPAddrFromAddrPort(to), in: map[int][]netip.Prefix{}, refused: map[int]bool{}}
	var err error
	if f.group, err = openPort(network, to.Port(), f.to, c.cfg.Hops); err != nil {
		return err
	}
	f.own = f.group
	if !c.cfg.OnePort {
		if f.own, err = openPort(network, 0, f.to, c.cfg.Hops); err != nil {
			return errors.Join(err, f.group.raw.Close())
		}
		c.raw = append(c.raw, f.own.raw)
	}
	c.raw, c.families = append(c.raw, f.group.raw), append(c.families, f)
	return nil
}

// Close closes the sockets and waits for the readers.
func (c *Conn) Close() {
	for _, p := range c.raw {
		_ = p.Close()
	}
	if c.cancel != nil {
		c.cancel()
	}
	c.wg.Wait()
}

// Changed tells that the interfaces changed.
func (c *Conn) Changed() <-chan struct{} { return c.changed }

// Links lists the usable interfaces and joins the group where it is not joined yet. It asks
// the monitor, not the system.
func (c *Conn) Links() map[int]Link {
	out := map[int]Link{}
	for _, i := range c.cfg.Monitor.Interfaces() {
		if i.Flags&net.FlagUp == 0 || i.Flags&net.FlagRunning == 0 || !Wanted(i, c.cfg.Interfaces) {
			continue
		}
		l := Link{Index: i.Index, Name: i.Name, Loopback: i.Flags&net.FlagLoopback != 0}
		for _, f := range c.families {
			own := slices.DeleteFunc(slices.Clone(i.Addrs), func(p netip.Prefix) bool { return p.Addr().Is6() != f.v6 })
			l.Addrs = append(l.Addrs, own...)
			c.join(f, i, own)
		}
		if len(l.Addrs) > 0 {
			out[i.Index] = l
		}
	}
	for _, f := range c.families {
		f.leave(out)
	}
	return out
}

// Wanted reports whether an interface is used: one that is named, or, where none is
// named, one that can multicast and is neither loopback nor a tunnel.
func Wanted(i Interface, names []string) bool {
	if len(names) > 0 {
		return slices.Contains(names, i.Name)
	}
	return i.Flags&net.FlagMulticast != 0 && i.Flags&net.FlagLoopback == 0 && i.Flags&net.FlagPointToPoint == 0
}

// join joins the group on an interface that has addresses of the family; after each change
// of them it leaves and joins, so that a switch which passes groups on only where somebody
// asked for them (RFC 4541) hears that from the address in use.
func (c *Conn) join(f *family, i Interface, own []netip.Prefix) {
	before, joined := f.in[i.Index]
	if slices.Equal(before, own) {
		return
	}
	iface := &net.Interface{Index: i.Index, Name: i.Name}
	if joined {
		delete(f.in, i.Index)
		_ = f.group.leave(iface) // the system may have ended it
	}
	if len(own) == 0 {
		return
	}
	err := f.group.join(iface)
	if err == nil || errors.Is(err, syscall.EADDRINUSE) { // in the group since before
		f.in[i.Index] = own
		delete(f.refused, i.Index)
		return
	}
	if !f.refused[i.Index] {
		c.cfg.Logger.Warn("cannot hear multicast on an interface; it is tried again", "iface", i.Name, "port", f.to.Port, "err", err)
	}
	f.refused[i.Index] = true
}

// leave forgets the interfaces that went, to join anew when they return. The system keeps
// the membership of one that is gone for good, and allows 20 for a socket.
func (f *family) leave(there map[int]Link) {
	for i := range f.in {
		if _, ok := there[i]; !ok {
			delete(f.in, i)
			_ = f.group.leave(&net.Interface{Index: i}) // it may have ended with the interface
		}
	}
	for i := range f.refused {
		if _, ok := there[i]; !ok {
			delete(f.refused, i)
		}
	}
}

func (c *Conn) family(v6 bool) *family {
	for _, f := range c.families {
		if f.v6 == v6 {
			return f
		}
	}
	return nil
}

// Multicast sends to the group on one link, from the link's own address, so that receivers
// see an on-link source even where the system would choose another.
func (c *Conn) Multicast(l Link, v6 bool, data []byte) error {
	src, ok := l.Source(v6)
	f := c.family(v6)
	if !ok || f == nil {
		return nil
	}
	return f.own.write(data, l.Index, src, f.to)
}

// Unicast sends to a host on the link, from the group's port, as one who was asked there.
func (c *Conn) Unicast(l Link, to netip.AddrPort, data []byte) error {
	f := c.family(!to.Addr().Unmap().Is4())
	if f == nil {
		return nil
	}
	src, _ := l.Toward(to.Addr())
	return f.group.write(data, l.Index, src, net.UDPAddrFromAddrPort(netip.AddrPortFrom(l.Zoned(to.Addr()), to.Port())))
}
