package overlay

import (
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"
)

const (
	// maxHandshakes bounds the CPU that strangers can burn: a handshake costs about 1 ms
	// on a small ARM core.
	maxHandshakes = 8
	// maxFromOne leaves places for others than one busy or silent host.
	maxFromOne = 6
	// patience: when all places are taken, who has been silent for longer makes room. An
	// honest handshake on a LAN takes a tenth of it.
	patience = 500 * time.Millisecond
	// arrivalsPerSecond and arrivalBurst bound the handshakes of one host over time. The
	// burst lets 64 nodes behind one address start together, with two flows each.
	arrivalsPerSecond, arrivalBurst = 20, 4 * DefaultMaxPeers
	// maxHosts bounds the memory of that; when it is full all start anew.
	maxHosts = 1024
)

// doorway bounds the handshakes at a time, so that strangers who connect and say nothing
// keep no member out.
type doorway struct {
	mu      sync.Mutex
	pending []arrival
	hosts   map[netip.Prefix]*bucket
}

type arrival struct {
	conn  net.Conn
	from  netip.Prefix
	since time.Time
}

// hostOf is what counts as one host: an IPv4 address, or an IPv6 network of which a host
// may have all addresses (RFC 8981).
func hostOf(a netip.Addr) netip.Prefix {
	bits := a.BitLen()
	if a.Is6() {
		bits = 64
	}
	p, err := a.WithZone("").Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return p
}

// enter takes a place for a connection, if need be from the host that has most of them,
// or from who has been silent for long.
func (d *doorway) enter(conn net.Conn, now time.Time) bool {
	from := hostOf(addrOf(conn.RemoteAddr()).Addr())
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.mayCome(from, now) {
		return false
	}
	places := map[netip.Prefix]int{}
	for _, p := range d.pending {
		places[p.from]++
	}
	if places[from] >= maxFromOne {
		return false
	}
	if len(d.pending) >= maxHandshakes {
		out := slices.IndexFunc(d.pending, func(p arrival) bool { // oldest first
			return places[p.from] >= places[from]+2 || now.Sub(p.since) >= patience
		})
		if out < 0 {
			return false
		}
		_ = d.pending[out].conn.Close() // its handshake ends with an error
		d.pending = slices.Delete(d.pending, out, out+1)
	}
	d.pending = append(d.pending, arrival{conn, from, now})
	return true
}

// mayCome takes a token of the host; mu is held.
func (d *doorway) mayCome(from netip.Prefix, now time.Time) bool {
	if d.hosts == nil || len(d.hosts) >= maxHosts && d.hosts[from] == nil {
		d.hosts = map[netip.Prefix]*bucket{}
	}
	if d.hosts[from] == nil {
		b := newBucket(arrivalsPerSecond, arrivalBurst, now)
		d.hosts[from] = &b
	}
	return d.hosts[from].allow(now)
}

// leave gives the place back.
func (d *doorway) leave(conn net.Conn) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.pending = slices.DeleteFunc(d.pending, func(p arrival) bool { return p.conn == conn })
}
