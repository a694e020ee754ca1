package sourcetest

import (
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/hallway-home/hallway/discovery/multicast"
)

// Sent is one datagram that a source sent.
type Sent struct {
	At    time.Time
	Iface int
	V6    bool
	To    netip.AddrPort // invalid if it went to the group
	Data  []byte
}

// Net is a multicast.Network in memory: a source with two interfaces on one network.
type Net struct {
	mu     sync.Mutex
	in     chan multicast.Packet
	events chan struct{}
	links  map[int]multicast.Link
	sent   []Sent
}

// NewNet makes one with eth1 and eth2, both families, on one network.
func NewNet() *Net {
	n := &Net{in: make(chan multicast.Packet, 4096), events: make(chan struct{}, 1), links: map[int]multicast.Link{}}
	n.Plug(1, "10.0.0.1/24", "fe80::1/64")
	n.Plug(2, "10.0.0.2/24", "fe80::2/64")
	return n
}

// Plug gives the source an interface, or another address on one; without addresses it
// takes the interface away.
func (n *Net) Plug(index int, addrs ...string) {
	l := multicast.Link{Index: index, Name: "eth" + string(rune('0'+index))}
	for _, a := range addrs {
		l.Addrs = append(l.Addrs, netip.MustParsePrefix(a))
	}
	slices.SortFunc(l.Addrs, netip.Prefix.Compare)
	n.mu.Lock()
	n.links[index] = l
	if len(addrs) == 0 {
		delete(n.links, index)
	}
	n.mu.Unlock()
	select {
	case n.events <- struct{}{}:
	default:
	}
}

// Hear delivers a packet on every interface; group says whether it was sent to the group.
func (n *Net) Hear(from string, group bool, data []byte) {
	for i := range n.Links() {
		n.HearOn(i, from, group, data)
	}
}

// HearOn delivers a packet on one interface.
func (n *Net) HearOn(index int, from string, group bool, data []byte) {
	n.in <- multicast.Packet{Data: data, From: netip.MustParseAddrPort(from), Iface: index, Group: group}
}

// Sent lists what the source sent since a moment.
func (n *Net) Sent(since time.Time) []Sent {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(n.sent), func(s Sent) bool { return s.At.Before(since) })
}

// Open implements multicast.Network.
func (n *Net) Open() (<-chan multicast.Packet, error) { return n.in, nil }

// Close implements multicast.Network.
func (n *Net) Close() {}

// Changed implements multicast.Network.
func (n *Net) Changed() <-chan struct{} { return n.events }

// Links implements multicast.Network.
func (n *Net) Links() map[int]multicast.Link {
	n.mu.Lock()
	defer n.mu.Unlock()
	out := map[int]multicast.Link{}
	for i, l := range n.links {
		out[i] = l
	}
	return out
}

// Multicast implements multicast.Network.
func (n *Net) Multicast(l multicast.Link, v6 bool, data []byte) error {
	n.note(Sent{Iface: l.Index, V6: v6, Data: data})
	return nil
}

// Unicast implements multicast.Network.
func (n *Net) Unicast(l multicast.Link, to netip.AddrPort, data []byte) error {
	n.note(Sent{Iface: l.Index, V6: to.Addr().Is6(), To: to, Data: data})
	return nil
}

func (n *Net) note(s Sent) {
	s.At, s.Data = time.Now(), slices.Clone(s.Data)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.sent = append(n.sent, s)
}
