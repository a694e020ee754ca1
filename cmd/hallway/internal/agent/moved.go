package agent

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"time"
)

// moveCheck: how often this node looks whether its addresses changed, so that running
// calls and flows are moved within a second.
const moveCheck = lookEvery / 2

// followAddresses tells overlay and media when this node's addresses changed: what stood
// on one that is gone is dead, and nothing else says so.
func (a *Agent) followAddresses(ctx context.Context) error {
	tick := time.NewTicker(moveCheck)
	defer tick.Stop()
	before := hostAddrs()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		now := hostAddrs()
		if now == nil || slices.Equal(before, now) { // nil: no descriptor is left to ask with
			continue
		}
		a.log.Info("the addresses of this device changed", "addrs", now)
		before = now
		a.mesh.Moved(now)
		a.media.Moved(now)
	}
}

// hostAddrs lists all addresses of this host, link-local ones too, sorted.
func hostAddrs() []netip.Addr {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	var out []netip.Addr
	for _, x := range addrs {
		if p, err := netip.ParsePrefix(x.String()); err == nil {
			out = append(out, p.Addr().Unmap())
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out)
}
