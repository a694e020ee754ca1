// Package multicast owns the network below the discovery protocols: the interfaces of this
// host and their addresses as they come and go (Monitor, one for the whole process), one
// group on them in both families (Conn), the check that a source is on the link, an
// allowance for each source, the one goroutine of a protocol with its agenda (Loop), and a
// table that makes one sighting of what is heard on several links.
//
// Nothing here starts a goroutine before Open or Run; Close and Run return after all have
// ended. A Conn, an Agenda, an Allowance and a Table belong to the goroutine of their Loop.
// It refuses nothing by itself but packets above its size: who may be believed is the
// protocol's business, with Link.OnLink.
package multicast

import (
	"net/netip"
	"slices"
)

// Link is one usable interface, as it was when last looked at.
type Link struct {
	Index    int
	Name     string
	Loopback bool
	Addrs    []netip.Prefix // address and prefix length, sorted, tentative ones left out
}

// Equal reports whether nothing about the interface changed.
func (l Link) Equal(o Link) bool { return l.Name == o.Name && slices.Equal(l.Addrs, o.Addrs) }

// OnLink reports whether a source can be on this interface's link.
func (l Link) OnLink(src netip.Addr) bool {
	src = plain(src)
	if src.IsLinkLocalUnicast() {
		return true
	}
	return slices.ContainsFunc(l.Addrs, func(p netip.Prefix) bool { return p.Masked().Contains(src) })
}

// Owns reports whether the address is one of the interface's own.
func (l Link) Owns(a netip.Addr) bool {
	a = plain(a)
	return slices.ContainsFunc(l.Addrs, func(p netip.Prefix) bool { return p.Addr() == a })
}

// Source is the interface's own address that packets of a family are sent from; for IPv6
// the link-local one, where there is one.
func (l Link) Source(v6 bool) (netip.Addr, bool) {
	var found netip.Addr
	for _, p := range l.Addrs {
		a := p.Addr()
		if a.Is6() != v6 {
			continue
		}
		if !found.IsValid() || v6 && a.IsLinkLocalUnicast() && !found.IsLinkLocalUnicast() {
			found = a
		}
	}
	return found, found.IsValid()
}

// Toward is the interface's own address that a host on the link is spoken to from: of the
// same prefix where there is one.
func (l Link) Toward(a netip.Addr) (netip.Addr, bool) {
	a = plain(a)
	for _, p := range l.Addrs {
		if p.Masked().Contains(a) {
			return p.Addr(), true
		}
	}
	return l.Source(a.Is6())
}

// Zoned adds the interface's name to an address that means nothing without it.
func (l Link) Zoned(a netip.Addr) netip.Addr {
	a = plain(a)
	if a.Is6() && a.IsLinkLocalUnicast() {
		return a.WithZone(l.Name)
	}
	return a
}

func plain(a netip.Addr) netip.Addr { return a.WithZone("").Unmap() }

// Packet is one received datagram.
type Packet struct {
	Data  []byte
	From  netip.AddrPort
	Iface int
	Group bool // it was sent to the group
}

// Network is what a protocol needs of the world; Conn is the real one, tests have another.
// Its methods are called from one goroutine.
type Network interface {
	Open() (<-chan Packet, error)
	Links() map[int]Link      // the usable interfaces, groups joined
	Changed() <-chan struct{} // the interfaces changed; asked for after Open
	Multicast(l Link, v6 bool, data []byte) error
	Unicast(l Link, to netip.AddrPort, data []byte) error
	Close() // returns after the readers have ended
}
