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
	"golang.org/x/sys/unix"
)

var (
	group4 = &net.UDPAddr{IP: net.IPv4(224, 0, 0, 251), Port: port}
	group6 = &net.UDPAddr{IP: net.ParseIP("ff02::fb"), Port: port}
)

const (
	port = 5353
	// hops: a receiver may check that nobody forwarded the packet (RFC 6762 section 11).
	hops = 255
	// queue of received packets; more than this at once is a flood, and dropped.
	queue = 256
)

// sockets is the real network: one socket a family on port 5353, shared with whatever
// else speaks mDNS on this machine.
type sockets struct {
	only []string
	log  *slog.Logger
	v4   *ipv4.PacketConn
	v6   *ipv6.PacketConn
	raw  []net.PacketConn
	wg   sync.WaitGroup

	joined4, joined6 map[int]bool
}

func newSockets(only []string, log *slog.Logger) *sockets {
	return &sockets{only: only, log: log, joined4: map[int]bool{}, joined6: map[int]bool{}}
}

func listen(ctx context.Context, network, addr string) (net.PacketConn, error) {
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		cerr := c.Control(func(fd uintptr) {
			err = errors.Join(
				unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1),
				unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1))
		})
		return errors.Join(err, cerr)
	}}
	return lc.ListenPacket(ctx, network, addr)
}

func (s *sockets) open(ctx context.Context) (<-chan packet, error) {
	out := make(chan packet, queue)
	c4, err4 := listen(ctx, "udp4", fmt.Sprintf("0.0.0.0:%d", port))
	if err4 == nil {
		s.v4 = ipv4.NewPacketConn(c4)
		_ = s.v4.SetControlMessage(ipv4.FlagInterface, true)
		_ = s.v4.SetMulticastTTL(hops)
		_ = s.v4.SetTTL(hops)
		_ = s.v4.SetMulticastLoopback(true) // other agents and avahi may share this machine
		s.raw = append(s.raw, c4)
		s.wg.Go(func() { s.read4(out) })
	}
	c6, err6 := listen(ctx, "udp6", fmt.Sprintf("[::]:%d", port))
	if err6 == nil {
		s.v6 = ipv6.NewPacketConn(c6)
		_ = s.v6.SetControlMessage(ipv6.FlagInterface, true)
		_ = s.v6.SetMulticastHopLimit(hops)
		_ = s.v6.SetHopLimit(hops)
		_ = s.v6.SetMulticastLoopback(true)
		s.raw = append(s.raw, c6)
		s.wg.Go(func() { s.read6(out) })
	}
	if err4 != nil && err6 != nil {
		return nil, fmt.Errorf("cannot use UDP port 5353 for discovery: %w; another program may hold it alone", err4)
	}
	return out, nil
}

func (s *sockets) close() {
	for _, c := range s.raw {
		_ = c.Close()
	}
	s.wg.Wait()
}

func (s *sockets) read4(out chan<- packet) {
	buf := make([]byte, 9000) // RFC 6762 section 17: a packet is at most 9,000 bytes
	for {
		n, cm, src, err := s.v4.ReadFrom(buf)
		if err != nil {
			return
		}
		if cm != nil {
			deliver(out, buf[:n], src, cm.IfIndex)
		}
	}
}

func (s *sockets) read6(out chan<- packet) {
	buf := make([]byte, 9000)
	for {
		n, cm, src, err := s.v6.ReadFrom(buf)
		if err != nil {
			return
		}
		if cm != nil {
			deliver(out, buf[:n], src, cm.IfIndex)
		}
	}
}

func deliver(out chan<- packet, data []byte, src net.Addr, iface int) {
	udp, ok := src.(*net.UDPAddr)
	if !ok {
		return
	}
	select {
	case out <- packet{slices.Clone(data), udp.AddrPort(), iface}:
	default:
	}
}

// links lists the usable interfaces and joins the groups on those that are new.
func (s *sockets) links() map[int]link {
	out := map[int]link{}
	ifaces, err := net.Interfaces()
	if err != nil {
		s.log.Warn("cannot list the network interfaces", "err", err)
		return out
	}
	for _, i := range ifaces {
		if i.Flags&net.FlagUp == 0 || !s.wanted(i) {
			continue
		}
		if l := describe(i); len(l.addrs) > 0 {
			s.join(i)
			out[i.Index] = l
		}
	}
	for idx := range s.joined4 {
		if _, ok := out[idx]; !ok {
			delete(s.joined4, idx) // gone: join anew when it returns
			delete(s.joined6, idx)
		}
	}
	return out
}

func (s *sockets) wanted(i net.Interface) bool {
	if len(s.only) > 0 {
		return slices.Contains(s.only, i.Name)
	}
	return i.Flags&net.FlagMulticast != 0 && i.Flags&net.FlagLoopback == 0 && i.Flags&net.FlagPointToPoint == 0
}

func describe(i net.Interface) link {
	l := link{index: i.Index, name: i.Name}
	addrs, _ := i.Addrs()
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			l.addrs = append(l.addrs, p)
		}
	}
	slices.SortFunc(l.addrs, func(a, b netip.Prefix) int { return a.Addr().Compare(b.Addr()) })
	return l
}

func (s *sockets) join(i net.Interface) {
	if s.v4 != nil && !s.joined4[i.Index] {
		if err := s.v4.JoinGroup(&i, group4); err == nil || errors.Is(err, syscall.EADDRINUSE) {
			s.joined4[i.Index] = true
		}
	}
	if s.v6 != nil && !s.joined6[i.Index] {
		if err := s.v6.JoinGroup(&i, group6); err == nil || errors.Is(err, syscall.EADDRINUSE) {
			s.joined6[i.Index] = true
		}
	}
}

func (s *sockets) multicast(iface int, data []byte) {
	if s.v4 != nil && s.joined4[iface] {
		_, _ = s.v4.WriteTo(data, &ipv4.ControlMessage{IfIndex: iface}, group4)
	}
	if s.v6 != nil && s.joined6[iface] {
		_, _ = s.v6.WriteTo(data, &ipv6.ControlMessage{IfIndex: iface}, group6)
	}
}

func (s *sockets) unicast(iface int, to netip.AddrPort, data []byte) {
	dst := net.UDPAddrFromAddrPort(to)
	if to.Addr().Unmap().Is4() {
		if s.v4 != nil {
			_, _ = s.v4.WriteTo(data, &ipv4.ControlMessage{IfIndex: iface}, dst)
		}
	} else if s.v6 != nil {
		_, _ = s.v6.WriteTo(data, &ipv6.ControlMessage{IfIndex: iface}, dst)
	}
}
