package overlay

import (
	"cmp"
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"

	"github.com/hallway-home/hallway/devices"
	"github.com/hallway-home/hallway/devices/trust"
)

// Attempt is what one dial of a member's address came to.
type Attempt struct {
	Addr netip.AddrPort
	// Err is nil when the member answered and takes this node; it wraps ErrNoConnection when
	// TCP failed, and says otherwise what TLS or the verdict refused.
	Err error
}

// Probe is how a member can be reached now.
type Probe struct {
	Flow  netip.AddrPort // the other end of the flow that is up; zero without one
	Tried []Attempt      // by address; empty while a flow is up
}

// Probe looks how a member can be reached. While a flow is up that is the answer, and
// nothing is dialled; else every known address is, within 5 s, and the first that answers
// becomes the flow.
func (m *Mesh) Probe(ctx context.Context, id devices.NodeID) Probe {
	if f := m.flow(id, trust.ALPNOverlay); f != nil {
		return Probe{Flow: f.addr}
	}
	m.mu.Lock()
	var addrs []netip.AddrPort
	if p := m.peers[id]; p != nil && m.ctx != nil {
		addrs = p.addrs()
	}
	m.mu.Unlock()
	results, turn := make(chan Attempt, len(addrs)), make(chan struct{}, 1)
	for _, a := range addrs {
		if !m.spawn(func() { results <- Attempt{a, m.try(ctx, id, a, turn)} }) {
			results <- Attempt{a, net.ErrClosed}
		}
	}
	var out Probe
	for range addrs {
		if t := <-results; !errors.Is(t.Err, errSelf) {
			out.Tried = append(out.Tried, t)
		}
	}
	slices.SortFunc(out.Tried, func(a, b Attempt) int { return cmp.Compare(a.Addr.String(), b.Addr.String()) })
	if f := m.flow(id, trust.ALPNOverlay); f != nil {
		out.Flow = f.addr
	}
	return out
}

// try dials one address and keeps what answers well as the flow.
func (m *Mesh) try(ctx context.Context, id devices.NodeID, addr netip.AddrPort, turn chan struct{}) error {
	key := flowKey{id, trust.ALPNOverlay}
	conn, err := m.dial(ctx, addr, key, turn)
	if errors.Is(err, ErrDuplicate) {
		return nil // it is dialling us, or just did
	}
	if err != nil {
		return err
	}
	m.take(newFlow(m.ctx, key, conn, true))
	return nil
}
