package multicast

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strconv"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// port is one socket; IPv4 and IPv6 differ only in how they say the same.
type port struct {
	raw         net.PacketConn
	read        func([]byte) (n int, at arrival, src net.Addr, err error)
	write       func(b []byte, iface int, from netip.Addr, to *net.UDPAddr) error
	join, leave func(*net.Interface) error
}

// arrival is the interface and the destination of a packet.
type arrival struct {
	iface int
	dst   net.IP
}

// openPort opens a port for a group, shared unless it is one of our own (0).
func openPort(network string, number uint16, group *net.UDPAddr, hops int) (*port, error) {
	lc := net.ListenConfig{}
	if number != 0 {
		lc.Control = sharePort
	}
	raw, err := lc.ListenPacket(context.Background(), network, ":"+strconv.Itoa(int(number)))
	if err != nil {
		return nil, err
	}
	of := port4
	if network == "udp6" {
		of = port6
	}
	p, err := of(raw, group, hops)
	if err != nil {
		return nil, errors.Join(err, raw.Close())
	}
	return p, nil
}

func port4(raw net.PacketConn, group *net.UDPAddr, hops int) (*port, error) {
	c := ipv4.NewPacketConn(raw)
	err := errors.Join(
		c.SetControlMessage(ipv4.FlagInterface|ipv4.FlagDst, true),
		c.SetMulticastTTL(hops), c.SetTTL(hops),
		c.SetMulticastLoopback(true)) // other programs that speak it may share this machine
	return &port{
		raw: raw,
		read: func(b []byte) (int, arrival, net.Addr, error) {
			n, cm, src, err := c.ReadFrom(b)
			if cm == nil {
				return n, arrival{}, src, err
			}
			return n, arrival{cm.IfIndex, cm.Dst}, src, err
		},
		write: func(b []byte, iface int, from netip.Addr, to *net.UDPAddr) error {
			_, err := c.WriteTo(b, &ipv4.ControlMessage{IfIndex: iface, Src: from.AsSlice()}, to)
			return err
		},
		join:  func(i *net.Interface) error { return c.JoinGroup(i, group) },
		leave: func(i *net.Interface) error { return c.LeaveGroup(i, group) },
	}, err
}

func port6(raw net.PacketConn, group *net.UDPAddr, hops int) (*port, error) {
	c := ipv6.NewPacketConn(raw)
	err := errors.Join(
		c.SetControlMessage(ipv6.FlagInterface|ipv6.FlagDst, true),
		c.SetMulticastHopLimit(hops), c.SetHopLimit(hops),
		c.SetMulticastLoopback(true))
	return &port{
		raw: raw,
		read: func(b []byte) (int, arrival, net.Addr, error) {
			n, cm, src, err := c.ReadFrom(b)
			if cm == nil {
				return n, arrival{}, src, err
			}
			return n, arrival{cm.IfIndex, cm.Dst}, src, err
		},
		write: func(b []byte, iface int, from netip.Addr, to *net.UDPAddr) error {
			_, err := c.WriteTo(b, &ipv6.ControlMessage{IfIndex: iface, Src: from.AsSlice()}, to)
			return err
		},
		join:  func(i *net.Interface) error { return c.JoinGroup(i, group) },
		leave: func(i *net.Interface) error { return c.LeaveGroup(i, group) },
	}, err
}

// receive hands packets on until the socket is closed. A protocol that cannot keep up loses
// packets here, as it would in the system's own queue.
func (p *port) receive(out chan<- Packet) {
	buf := make([]byte, maxDatagram)
	for {
		n, at, src, err := p.read(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		udp, ok := src.(*net.UDPAddr)
		if err != nil || !ok {
			continue
		}
		select {
		case out <- Packet{Data: slices.Clone(buf[:n]), From: udp.AddrPort(), Iface: at.iface, Group: at.dst.IsMulticast()}:
		default:
		}
	}
}
