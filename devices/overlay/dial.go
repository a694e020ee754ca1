package overlay

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/netip"
	"time"

	"github.com/hallway-home/hallway/devices"
	"github.com/hallway-home/hallway/devices/trust"
)

const (
	// abortAfter: a host of a home's LAN that is there has answered a dial by then.
	abortAfter = 200 * time.Millisecond
	// politeWait: the higher Node-ID leaves the first dial to the lower.
	politeWait = 4 * time.Second
	// fastRedial for the first while, slowRedial for ever after.
	fastRedial, fastFor, slowRedial = 3 * time.Second, 10 * time.Minute, 30 * time.Second
)

// keep holds both flows to one member while it belongs.
func (m *Mesh) keep(ctx context.Context, p *peer) {
	absent := time.Now()
	for ctx.Err() == nil {
		if f := m.flow(p.id, trust.ALPNOverlay); f != nil {
			if f.dialed && m.flow(p.id, trust.ALPNSIP) == nil {
				_ = m.connect(ctx, p.id, trust.ALPNSIP, []netip.AddrPort{f.addr})
			}
			m.wait(ctx, p, pingEvery, m.flow(p.id, trust.ALPNSIP) == nil)
			absent = time.Now() // counts from the end of the flow, not from its beginning
			continue
		}
		wait := redialWait(m.self, p.id, m.settled(), time.Since(absent))
		if wait == 0 {
			began := time.Now()
			if m.redial(ctx, p) == nil {
				continue
			}
			wait = max(0, pause(time.Since(absent))-time.Since(began)) // from dial to dial
		}
		m.wait(ctx, p, wait, true)
	}
}

// redial tries all addresses of a member. A new one ends it early: the old ones may lead
// nowhere, which takes seconds to see.
func (m *Mesh) redial(ctx context.Context, p *peer) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	m.mu.Lock()
	p.dialed, p.abort = time.Now(), cancel
	addrs := p.addrs()
	m.mu.Unlock()
	return m.connect(ctx, p.id, trust.ALPNOverlay, addrs)
}

// wait sleeps until something happened to the peer; timed also until d has passed.
func (m *Mesh) wait(ctx context.Context, p *peer, d time.Duration, timed bool) {
	var timer <-chan time.Time
	if timed {
		t := time.NewTimer(d)
		defer t.Stop()
		timer = t.C
	}
	select {
	case <-ctx.Done():
	case <-p.poke:
	case <-timer:
	}
}

// redialWait says how long to leave the first dial to the other: the lower Node-ID
// dials at once, and so does a node that has just started or moved; the higher waits
// politely.
func redialWait(self, peer devices.NodeID, settled, absent time.Duration) time.Duration {
	if bytes.Compare(self[:], peer[:]) < 0 || settled < politeWait {
		return 0
	}
	return max(0, politeWait-absent)
}

// pause between dials of a member that does not answer.
func pause(absent time.Duration) time.Duration {
	if absent < fastFor {
		return fastRedial
	}
	return slowRedial
}

// settled says how long this node has been running at the addresses it has.
func (m *Mesh) settled() time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	return time.Since(m.started)
}

func (m *Mesh) flow(id devices.NodeID, alpn string) *flow {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.flows[flowKey{id, alpn}]
}

// connect dials a member at all its addresses at once; the first good flow stays. The
// peer takes the newest of several, so only one at a time goes beyond TCP. All that
// connect started has ended when it returns, but for the flow.
func (m *Mesh) connect(ctx context.Context, id devices.NodeID, alpn string, addrs []netip.AddrPort) error {
	if len(addrs) == 0 {
		return ErrUnreachable
	}
	key := flowKey{id, alpn}
	m.mu.Lock()
	if m.dialing[key] || m.flows[key] != nil {
		up := m.flows[key] != nil
		m.mu.Unlock()
		if up {
			return nil
		}
		return ErrDuplicate // somebody else here dials: the flow will wake who waits for it
	}
	m.dialing[key] = true
	m.mu.Unlock()
	defer func() {
		m.mu.Lock()
		delete(m.dialing, key)
		delete(m.shaking, key)
		m.mu.Unlock()
	}()
	turn := make(chan struct{}, 1)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type result struct {
		f   *flow
		err error
	}
	results := make(chan result, len(addrs))
	for _, a := range addrs {
		started := m.spawn(func() {
			conn, err := m.dial(ctx, a, key, turn)
			if err != nil {
				results <- result{err: err}
				return
			}
			results <- result{f: newFlow(m.ctx, key, conn, true)}
		})
		if !started {
			results <- result{err: net.ErrClosed}
		}
	}
	up := false
	var errs []error
	for range addrs {
		switch r := <-results; {
		case r.err != nil:
			errs = append(errs, r.err)
		case !up && m.take(r.f): // before the dialling mark is taken away
			up = true
			cancel()
		default:
			m.end(r.f)
		}
	}
	if !up {
		err := errors.Join(errs...)
		m.log.Debug("dial failed", "peer", id, "alpn", alpn, "err", err)
		return err
	}
	return nil
}

// take makes a connection the flow with its peer and serves it, or ends it.
func (m *Mesh) take(f *flow) bool {
	if !m.adopt(f) {
		m.end(f)
		return false
	}
	if !m.spawn(func() { m.serveFlow(f) }) {
		m.drop(f, net.ErrClosed)
		return false
	}
	return true
}

// dialStatic asks a configured address who answers there, and hints at that node,
// until it is connected; then again whenever it is not.
func (m *Mesh) dialStatic(hostport string) {
	start := time.Now()
	var known devices.NodeID
	for m.ctx.Err() == nil {
		m.mu.Lock()
		moved := m.moved
		m.mu.Unlock()
		if m.cfg.Roster.Roster() != nil && m.flow(known, trust.ALPNOverlay) == nil {
			if id := m.askWho(hostport); !id.IsZero() {
				known = id
			}
		}
		t := time.NewTimer(pause(time.Since(start)))
		select {
		case <-m.ctx.Done():
		case <-moved:
			start = time.Now()
		case <-t.C:
		}
		t.Stop()
	}
}

// askWho connects to a configured address, and keeps the connection if it leads to a
// member that is not connected yet.
func (m *Mesh) askWho(hostport string) devices.NodeID {
	ctx, cancel := context.WithTimeout(m.ctx, dialTime+handshakeTime)
	defer cancel()
	addr, err := resolve(ctx, hostport)
	if err != nil {
		m.log.Warn("cannot resolve the configured peer; check `peers` in hallway.yaml", "peer", hostport, "err", err)
		return devices.NodeID{}
	}
	raw, err := m.dialTCP(ctx, addr)
	if err != nil {
		return devices.NodeID{}
	}
	conn, err := m.shake(ctx, raw, trust.ALPNOverlay)
	if err != nil {
		return devices.NodeID{}
	}
	id, _, err := trust.PeerID(conn.ConnectionState())
	if err != nil || id == m.self {
		_ = conn.NetConn().Close()
		return devices.NodeID{}
	}
	if readVerdict(conn) == nil && m.flow(id, trust.ALPNOverlay) == nil {
		_ = conn.SetDeadline(time.Time{})
		m.take(newFlow(m.ctx, flowKey{id, trust.ALPNOverlay}, conn, true))
	} else {
		_ = conn.NetConn().Close()
	}
	m.HintPrefix([8]byte(id[:8]), []netip.AddrPort{addr})
	return id
}

// resolve finds the first address of host:port.
func resolve(ctx context.Context, hostport string) (netip.AddrPort, error) {
	host, port, err := net.SplitHostPort(hostport)
	if err != nil {
		return netip.AddrPort{}, err
	}
	n, err := net.DefaultResolver.LookupPort(ctx, "tcp", port)
	if err != nil {
		return netip.AddrPort{}, err
	}
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return netip.AddrPort{}, err
	}
	return netip.AddrPortFrom(ips[0].Unmap(), uint16(n)), nil //nolint:gosec // LookupPort gives a port
}
