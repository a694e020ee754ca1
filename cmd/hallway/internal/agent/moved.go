package agent

import (
	"context"
	"net/netip"
	"slices"
)

// followAddresses tells overlay and media when this node's addresses changed: what stood
// on one that is gone is dead, and nothing else says so.
func (a *Agent) followAddresses(ctx context.Context) error {
	changed := a.monitor.Watch(ctx)
	before := a.hostAddrs()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
		now := a.hostAddrs()
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
func (a *Agent) hostAddrs() []netip.Addr {
	var out []netip.Addr
	for _, i := range a.monitor.Interfaces() {
		for _, p := range i.Addrs {
			out = append(out, p.Addr())
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out)
}
