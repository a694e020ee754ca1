package overlay

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/hallway-home/hallway/devices"
	"github.com/hallway-home/hallway/devices/trust"
)

const (
	// maxAddrs bounds the addresses remembered for a peer: two families on a few
	// interfaces.
	maxAddrs = 8
	// maxHints bounds addresses of nodes whose ID is not known; anybody on the LAN can
	// send them.
	maxHints = 256
	// politeWait: the higher Node-ID leaves the first dial to the lower.
	politeWait = 4 * time.Second
	// fastRedial for the first while, slowRedial for ever after.
	fastRedial, fastFor, slowRedial = 3 * time.Second, 10 * time.Minute, 30 * time.Second
)

// peer is a member that this node wants a flow with.
type peer struct {
	id     devices.NodeID
	addrs  []netip.AddrPort // newest first; guarded by Mesh.mu
	poke   chan struct{}    // something happened: look again
	cancel context.CancelFunc
}

// remember puts an address first. Only dialled ones are worth it: an accepted
// connection comes from an ephemeral port.
func (p *peer) remember(a netip.AddrPort, dialed bool) {
	if !dialed || !a.IsValid() {
		return
	}
	p.addrs = slices.DeleteFunc(p.addrs, func(b netip.AddrPort) bool { return a == b })
	p.addrs = append([]netip.AddrPort{a}, p.addrs...)
	p.addrs = p.addrs[:min(len(p.addrs), maxAddrs)]
}

func (p *peer) wake() {
	select {
	case p.poke <- struct{}{}:
	default:
	}
}

// keepPeers starts a keeper for every other member and ends those of removed ones.
func (m *Mesh) keepPeers(r *devices.Roster) {
	var start []*peer
	m.mu.Lock()
	for id, p := range m.peers {
		if !r.Has(id) {
			p.cancel()
			delete(m.peers, id)
		}
	}
	if r != nil && m.ctx != nil {
		for id := range r.Members {
			if _, ok := m.peers[id]; ok || id == m.self {
				continue
			}
			ctx, cancel := context.WithCancel(m.ctx)
			p := &peer{id: id, poke: make(chan struct{}, 1), cancel: cancel, addrs: m.prefixes[[8]byte(id[:8])]}
			m.peers[id] = p
			start = append(start, p)
			context.AfterFunc(ctx, p.wake)
			m.wg.Add(1)
			go func() {
				defer m.wg.Done()
				m.keep(ctx, p)
			}()
		}
	}
	m.mu.Unlock()
	for _, s := range m.table.all() {
		if slices.ContainsFunc(start, func(p *peer) bool { return p.id == s.rec.Writer }) {
			m.learn(s.rec)
		}
	}
}

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
		wait := redialWait(m.self, p.id, m.running(), time.Since(absent))
		if wait == 0 {
			if m.connect(ctx, p.id, trust.ALPNOverlay, m.addrsOf(p)) == nil {
				continue
			}
			wait = pause(time.Since(absent))
		}
		m.wait(ctx, p, wait, true)
	}
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
// dials at once, and so does a node that has just started; the higher waits politely.
func redialWait(self, peer devices.NodeID, running, absent time.Duration) time.Duration {
	if bytes.Compare(self[:], peer[:]) < 0 || running < politeWait {
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

func (m *Mesh) running() time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	return time.Since(m.started)
}

func (m *Mesh) flow(id devices.NodeID, alpn string) *flow {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.flows[flowKey{id, alpn}]
}

func (m *Mesh) addrsOf(p *peer) []netip.AddrPort {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(p.addrs)
}

// connect dials a member at all its addresses at once; the first good flow stays.
func (m *Mesh) connect(ctx context.Context, id devices.NodeID, alpn string, addrs []netip.AddrPort) error {
	if len(addrs) == 0 {
		return ErrUnreachable
	}
	key := flowKey{id, alpn}
	m.mu.Lock()
	if m.dialing[key] || m.flows[key] != nil {
		m.mu.Unlock()
		return nil
	}
	m.dialing[key] = true
	m.mu.Unlock()
	defer func() {
		m.mu.Lock()
		delete(m.dialing, key)
		m.mu.Unlock()
	}()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type result struct {
		f   *flow
		err error
	}
	results := make(chan result, len(addrs))
	for _, a := range addrs {
		go func() {
			conn, err := m.dial(ctx, a, id, alpn)
			if err != nil {
				results <- result{err: err}
				return
			}
			results <- result{f: newFlow(m.ctx, key, conn, true)}
		}()
	}
	var first *flow
	var errs []error
	for range addrs {
		r := <-results
		switch {
		case r.err != nil:
			errs = append(errs, r.err)
		case first == nil:
			first = r.f
			m.spawn(func() { m.run(first) })
			m.awaitFlow(key)
			cancel()
		default:
			m.end(r.f, errReplaced)
		}
	}
	if first == nil {
		err := errors.Join(errs...)
		m.log.Debug("dial failed", "peer", id, "alpn", alpn, "err", err)
		return err
	}
	return nil
}

// awaitFlow waits until run has adopted the flow, so that the dialling mark is not
// taken away too early.
func (m *Mesh) awaitFlow(key flowKey) {
	deadline := time.Now().Add(100 * time.Millisecond)
	for m.flow(key.peer, key.alpn) == nil && time.Now().Before(deadline) && m.ctx.Err() == nil {
		time.Sleep(100 * time.Microsecond)
	}
}

// HintPrefix says that a member whose Node-ID starts with prefix may be at addrs. A
// hint proves nothing: TLS does.
func (m *Mesh) HintPrefix(prefix [8]byte, addrs []netip.AddrPort) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.prefixes[prefix]; !ok && len(m.prefixes) >= maxHints {
		return
	}
	m.prefixes[prefix] = addrs[:min(len(addrs), maxAddrs)]
	for id, p := range m.peers {
		if [8]byte(id[:8]) == prefix {
			m.addAddrs(p, addrs)
		}
	}
}

// addAddrs must be called with mu held.
func (m *Mesh) addAddrs(p *peer, addrs []netip.AddrPort) {
	for _, a := range addrs {
		if !slices.Contains(p.addrs, a) {
			p.addrs = append([]netip.AddrPort{a}, p.addrs...)
		}
	}
	p.addrs = p.addrs[:min(len(p.addrs), maxAddrs)]
	if m.flows[flowKey{p.id, trust.ALPNOverlay}] == nil {
		p.wake()
	}
}

// learn takes the addresses of a member's own record.
func (m *Mesh) learn(r Record) {
	if r.Kind != KindDevice || r.Writer == m.self {
		return
	}
	d, err := DecodeDevice(r)
	if err != nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if p := m.peers[r.Writer]; p != nil {
		m.addAddrs(p, d.Addrs)
	}
}

// dialStatic asks a configured address who answers there, and hints at that node,
// until it is connected; then again whenever it is not.
func (m *Mesh) dialStatic(hostport string) {
	start := time.Now()
	var known devices.NodeID
	for m.ctx.Err() == nil {
		if m.cfg.Roster.Roster() != nil && m.flow(known, trust.ALPNOverlay) == nil {
			if id := m.askWho(hostport); !id.IsZero() {
				known = id
			}
		}
		t := time.NewTimer(pause(time.Since(start)))
		select {
		case <-m.ctx.Done():
		case <-t.C:
		}
		t.Stop()
	}
}

func (m *Mesh) askWho(hostport string) devices.NodeID {
	tcp, err := net.ResolveTCPAddr("tcp", hostport)
	if err != nil {
		m.log.Warn("cannot resolve the configured peer; check `peers` in hallway.yaml", "peer", hostport, "err", err)
		return devices.NodeID{}
	}
	addr := unmap(tcp.AddrPort())
	ctx, cancel := context.WithTimeout(m.ctx, dialTime+handshakeTime)
	defer cancel()
	conn, err := m.dialTLS(ctx, addr, trust.ALPNOverlay)
	if err != nil {
		return devices.NodeID{}
	}
	defer func() { _ = conn.NetConn().Close() }()
	id, _, err := trust.PeerID(conn.ConnectionState())
	if err != nil || id == m.self {
		return devices.NodeID{}
	}
	m.HintPrefix([8]byte(id[:8]), []netip.AddrPort{addr})
	return id
}
