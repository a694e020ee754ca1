package mdns

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

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

const (
	// hops: a receiver may check that nobody forwarded the packet (RFC 6762 section 11).
	hops = 255
	// queue of received packets; more than this at once is a flood, and dropped.
	queue = 256
	// maxDatagram: RFC 6762 section 17.
	maxDatagram = 9000
)

// sockets is the real network: one socket a family on port 5353, shared with whatever
// else speaks mDNS on this machine.
type sockets struct {
	cfg            Config
	log            *slog.Logger
	v4             *ipv4.PacketConn
	v6             *ipv6.PacketConn
	raw            []net.PacketConn
	group4, group6 *net.UDPAddr
	in4            map[int][]netip.Prefix // groups joined, by interface, with its addresses then
	in6            map[int]bool
	watch          watcher
	wg             sync.WaitGroup
}

func newSockets(cfg Config) *sockets {
	return &sockets{
		cfg: cfg, log: cfg.Logger, in4: map[int][]netip.Prefix{}, in6: map[int]bool{},
		group4: &net.UDPAddr{IP: net.IPv4(224, 0, 0, 251), Port: port},
		group6: &net.UDPAddr{IP: net.ParseIP("ff02::fb"), Port: port},
	}
}

func (s *sockets) open(ctx context.Context) (<-chan packet, error) {
	out := make(chan packet, queue)
	lc := net.ListenConfig{Control: sharePort}
	var err4, err6 error
	if !s.cfg.NoIPv4 {
		err4 = s.open4(ctx, lc, out)
	}
	if !s.cfg.NoIPv6 {
		err6 = s.open6(ctx, lc, out)
	}
	if s.v4 == nil && s.v6 == nil {
		return nil, fmt.Errorf("cannot use UDP port 5353 to find devices: %w; stop the program that holds it alone", errors.Join(err4, err6))
	}
	for _, err := range []error{err4, err6} {
		if err != nil {
			s.log.Warn("mDNS works in one address family only", "err", err)
		}
	}
	s.watch.start(&s.wg, s.log)
	return out, nil
}

func (s *sockets) open4(ctx context.Context, lc net.ListenConfig, out chan<- packet) error {
	c, err := lc.ListenPacket(ctx, "udp4", fmt.Sprintf("0.0.0.0:%d", port))
	if err != nil {
		return err
	}
	p := ipv4.NewPacketConn(c)
	err = errors.Join(
		p.SetControlMessage(ipv4.FlagInterface|ipv4.FlagDst, true),
		p.SetMulticastTTL(hops), p.SetTTL(hops),
		p.SetMulticastLoopback(true)) // other agents and avahi may share this machine
	if err != nil {
		return errors.Join(err, c.Close())
	}
	s.v4, s.raw = p, append(s.raw, c)
	s.wg.Go(func() {
		read(func(b []byte) (int, arrival, net.Addr, error) {
			n, cm, src, err := p.ReadFrom(b)
			if cm == nil {
				return n, arrival{}, src, err
			}
			return n, arrival{cm.IfIndex, cm.Dst}, src, err
		}, out)
	})
	return nil
}

func (s *sockets) open6(ctx context.Context, lc net.ListenConfig, out chan<- packet) error {
	c, err := lc.ListenPacket(ctx, "udp6", fmt.Sprintf("[::]:%d", port))
	if err != nil {
		return err
	}
	p := ipv6.NewPacketConn(c)
	err = errors.Join(
		p.SetControlMessage(ipv6.FlagInterface|ipv6.FlagDst, true),
		p.SetMulticastHopLimit(hops), p.SetHopLimit(hops),
		p.SetMulticastLoopback(true))
	if err != nil {
		return errors.Join(err, c.Close())
	}
	s.v6, s.raw = p, append(s.raw, c)
	s.wg.Go(func() {
		read(func(b []byte) (int, arrival, net.Addr, error) {
			n, cm, src, err := p.ReadFrom(b)
			if cm == nil {
				return n, arrival{}, src, err
			}
			return n, arrival{cm.IfIndex, cm.Dst}, src, err
		}, out)
	})
	return nil
}

// arrival is the interface and the destination of a packet, as far as the system tells.
type arrival struct {
	iface int
	dst   net.IP
}

// read hands packets on until the socket is closed. An engine that cannot keep up loses
// packets here, as it would in the system's own queue.
func read(from func([]byte) (n int, at arrival, src net.Addr, err error), out chan<- packet) {
	buf := make([]byte, maxDatagram)
	for {
		n, at, src, err := from(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		udp, ok := src.(*net.UDPAddr)
		if err != nil || !ok {
			continue
		}
		select {
		case out <- packet{slices.Clone(buf[:n]), udp.AddrPort(), at.iface, len(at.dst) > 0 && !at.dst.IsMulticast()}:
		default:
		}
	}
}

func (s *sockets) close() {
	for _, c := range s.raw {
		_ = c.Close()
	}
	s.watch.stop()
	s.wg.Wait()
}

func (s *sockets) changed() <-chan struct{} { return s.watch.events }

// links lists the usable interfaces and joins the groups on those that are new.
func (s *sockets) links() map[int]link {
	out := map[int]link{}
	ifaces, err := net.Interfaces()
	if err != nil {
		s.log.Warn("cannot list the network interfaces", "err", err)
		return out
	}
	notYet := tentative()
	for _, i := range ifaces {
		if i.Flags&net.FlagUp == 0 || i.Flags&net.FlagRunning == 0 || !s.wanted(i) {
			continue
		}
		l := s.describe(i, notYet)
		if len(l.addrs) > 0 {
			s.join(i, l)
			out[i.Index] = l
		}
	}
	leave(s.in4, out, func(i *net.Interface) error { return s.v4.LeaveGroup(i, s.group4) })
	leave(s.in6, out, func(i *net.Interface) error { return s.v6.LeaveGroup(i, s.group6) })
	return out
}

// leave forgets the interfaces that went, to join anew when they return. The system keeps
// the membership of one that is gone for good, and allows 20 for a socket.
func leave[T any](joined map[int]T, there map[int]link, group func(*net.Interface) error) {
	for i := range joined {
		if _, ok := there[i]; !ok {
			delete(joined, i)
			_ = group(&net.Interface{Index: i}) // it may have ended with the interface
		}
	}
}

func (s *sockets) wanted(i net.Interface) bool {
	if len(s.cfg.Interfaces) > 0 {
		return slices.Contains(s.cfg.Interfaces, i.Name)
	}
	return i.Flags&net.FlagMulticast != 0 && i.Flags&net.FlagLoopback == 0 && i.Flags&net.FlagPointToPoint == 0
}

// describe lists the addresses of the families in use, without those that the system is
// still checking for duplicates: sending from one fails.
func (s *sockets) describe(i net.Interface, notYet map[netip.Addr]bool) link {
	l := link{index: i.Index, name: i.Name, loopback: i.Flags&net.FlagLoopback != 0}
	addrs, _ := i.Addrs() // an interface that went meanwhile has none
	for _, a := range addrs {
		p, err := netip.ParsePrefix(a.String())
		if err != nil || notYet[p.Addr()] {
			continue
		}
		if p.Addr().Is4() && s.v4 != nil || p.Addr().Is6() && s.v6 != nil {
			l.addrs = append(l.addrs, p)
		}
	}
	slices.SortFunc(l.addrs, netip.Prefix.Compare)
	return l
}

// join is called at every look. Linux forgets the groups of an interface with its last IPv4
// address, but not that this socket is in them: after each change of addresses it leaves
// and joins.
func (s *sockets) join(i net.Interface, l link) {
	if own := l.addrs4(); !slices.Equal(own, s.in4[i.Index]) {
		delete(s.in4, i.Index)
		_ = s.v4.LeaveGroup(&i, s.group4) // it may have been in none
		if len(own) > 0 && s.joined(s.v4.JoinGroup(&i, s.group4), i.Name) {
			s.in4[i.Index] = own
		}
	}
	if _, ok := l.source(true); ok && !s.in6[i.Index] {
		err := s.v6.JoinGroup(&i, s.group6)
		s.in6[i.Index] = s.joined(err, i.Name)
	}
}

func (s *sockets) joined(err error, iface string) bool {
	if err == nil || errors.Is(err, syscall.EADDRINUSE) { // in the group since before
		return true
	}
	s.log.Warn("cannot hear multicast on an interface", "iface", iface, "err", err)
	return false
}

// multicast sends from the interface's own address, so that receivers see an on-link
// source even where the system would choose another.
func (s *sockets) multicast(l link, v6 bool, data []byte) {
	src, _ := l.source(v6)
	var err error
	if v6 {
		_, err = s.v6.WriteTo(data, &ipv6.ControlMessage{IfIndex: l.index, Src: src.AsSlice()}, s.group6)
	} else {
		_, err = s.v4.WriteTo(data, &ipv4.ControlMessage{IfIndex: l.index, Src: src.AsSlice()}, s.group4)
	}
	if err != nil {
		s.log.Debug("mDNS send failed", "iface", l.name, "err", err)
	}
}

func (s *sockets) unicast(l link, to netip.AddrPort, data []byte) {
	dst := net.UDPAddrFromAddrPort(to)
	var err error
	switch {
	case !to.Addr().Unmap().Is4() && s.v6 != nil:
		_, err = s.v6.WriteTo(data, &ipv6.ControlMessage{IfIndex: l.index}, dst)
	case to.Addr().Unmap().Is4() && s.v4 != nil:
		_, err = s.v4.WriteTo(data, &ipv4.ControlMessage{IfIndex: l.index}, dst)
	}
	if err != nil {
		s.log.Debug("mDNS answer failed", "to", to, "err", err)
	}
}
