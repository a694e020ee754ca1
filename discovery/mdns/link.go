package mdns

import (
	"context"
	"net/netip"
	"slices"
)

// link is one usable interface, as it was when last looked at.
type link struct {
	index    int
	name     string
	loopback bool
	addrs    []netip.Prefix // address and prefix length, sorted, tentative ones left out
}

func (l link) equal(o link) bool {
	return l.name == o.name && slices.Equal(l.addrs, o.addrs)
}

// onLink reports whether a source can be on this interface's link (RFC 6762 section 11).
func (l link) onLink(src netip.Addr) bool {
	src = src.WithZone("").Unmap()
	if src.IsLinkLocalUnicast() {
		return true
	}
	return slices.ContainsFunc(l.addrs, func(p netip.Prefix) bool { return p.Masked().Contains(src) })
}

// owns reports whether the address is one of the interface's own.
func (l link) owns(a netip.Addr) bool {
	a = a.WithZone("").Unmap()
	return slices.ContainsFunc(l.addrs, func(p netip.Prefix) bool { return p.Addr() == a })
}

// plausible reports whether an address record heard on this link may be believed: it
// must lead to the link or into somebody's private network. Else one forged record would
// make this node dial an address on the internet, or itself.
func (l link) plausible(a netip.Addr) bool {
	switch {
	case !a.IsValid() || a.IsUnspecified() || a.IsMulticast():
		return false
	case a.IsLoopback():
		return l.loopback
	default:
		return l.onLink(a) || a.IsPrivate()
	}
}

// source is the interface's own address that packets of a family are sent from.
func (l link) source(v6 bool) (netip.Addr, bool) {
	var found netip.Addr
	for _, p := range l.addrs {
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

// addrs4 lists the IPv4 addresses of the interface.
func (l link) addrs4() []netip.Prefix {
	return slices.DeleteFunc(slices.Clone(l.addrs), func(p netip.Prefix) bool { return !p.Addr().Is4() })
}

// packet is one received datagram.
type packet struct {
	data  []byte
	src   netip.AddrPort
	iface int
	// unicast: sent to this host alone. A router may have let it in, whatever its source says.
	unicast bool
}

// transport is the network below the engine. Its methods are called from Engine.Run only.
type transport interface {
	open(ctx context.Context) (<-chan packet, error)
	links() map[int]link      // the usable interfaces, groups joined
	changed() <-chan struct{} // the interfaces may have changed; nil if the system does not say
	multicast(l link, v6 bool, data []byte)
	unicast(l link, to netip.AddrPort, data []byte)
	close() // returns after the readers have ended
}
