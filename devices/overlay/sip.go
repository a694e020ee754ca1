package overlay

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hallway-home/hallway/devices"
	"github.com/hallway-home/hallway/devices/trust"
)

// sipPort stands in every synthetic address; nothing listens there.
const sipPort = 5061

// ensureTime bounds how long a caller waits for a flow to a member (A4: a call to a
// pulled plug fails within 4 s).
const ensureTime = 3 * time.Second

// ULA is the synthetic address of a member: fd00::/8 (RFC 4193) and 120 bits of its
// Node-ID. SIP sees members by these, so a request's source is its authenticated peer.
func ULA(id devices.NodeID) netip.Addr {
	a := [16]byte(id)
	copy(a[1:], id[:15])
	a[0] = 0xfd
	return netip.AddrFrom16(a)
}

// sipConn is an adopted flow as the SIP library sees it.
type sipConn struct {
	net.Conn
	fresh         func() error // what was read may be passed on
	local, remote net.Addr
	closed        chan struct{}
	once          sync.Once
}

// LocalAddr is unique to the flow: the library's pool is keyed by it too.
func (c *sipConn) LocalAddr() net.Addr { return c.local }

// RemoteAddr is the peer's synthetic address.
func (c *sipConn) RemoteAddr() net.Addr { return c.remote }

// Read passes on nothing that came while this node slept.
func (c *sipConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if n > 0 {
		if err := c.fresh(); err != nil {
			return 0, err
		}
	}
	return n, err
}

// Write bounds a peer that no longer reads.
func (c *sipConn) Write(b []byte) (int, error) {
	if err := c.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return 0, err
	}
	n, err := c.Conn.Write(b)
	if err != nil {
		_ = c.Close()
	}
	return n, err
}

// Close ends the flow; the TLS farewell may block, so it is left out.
func (c *sipConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return nil
}

// sipListener hands adopted flows to the SIP library.
type sipListener struct {
	self  netip.Addr
	next  atomic.Uint32
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newSIPListener(self devices.NodeID) *sipListener {
	return &sipListener{self: ULA(self), conns: make(chan net.Conn), done: make(chan struct{})}
}

// Accept returns the next adopted flow.
func (l *sipListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

// Close ends Accept; the flows belong to the mesh.
func (l *sipListener) Close() error { l.close(); return nil }

func (l *sipListener) close() { l.once.Do(func() { close(l.done) }) }

// Addr is this node's synthetic address.
func (l *sipListener) Addr() net.Addr {
	return net.TCPAddrFromAddrPort(netip.AddrPortFrom(l.self, sipPort))
}

// wrap gives a flow its synthetic addresses. The local one has a count in its last 32
// bits, so that no two flows of a process share it.
func (l *sipListener) wrap(f *flow) *sipConn {
	local := l.self.As16()
	binary.BigEndian.PutUint32(local[12:], l.next.Add(1))
	return &sipConn{
		Conn: f.conn, closed: make(chan struct{}),
		local:  net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.AddrFrom16(local), sipPort)),
		remote: net.TCPAddrFromAddrPort(netip.AddrPortFrom(ULA(f.key.peer), sipPort)),
	}
}

// serveSIP lends a flow to the SIP library until either side is done with it. Nobody is
// served before rosters were compared.
func (m *Mesh) serveSIP(f *flow) error {
	m.stayedAwake(false)
	select {
	case <-m.Synced():
	case <-f.ctx.Done():
		return context.Cause(f.ctx)
	}
	if !m.cfg.Roster.Roster().Has(f.key.peer) {
		return trust.ErrStranger
	}
	c := m.sip.wrap(f)
	c.fresh = func() error { return m.fresh(f) }
	select {
	case m.sip.conns <- c:
		f.served.Store(true)
		m.turned()
	case <-m.sip.done:
		return net.ErrClosed
	case <-f.ctx.Done():
		return context.Cause(f.ctx)
	}
	select {
	case <-c.closed:
		return net.ErrClosed
	case <-f.ctx.Done():
		return context.Cause(f.ctx)
	}
}

// SIP yields the SIP flows of members, dialled by us or accepted.
func (m *Mesh) SIP() net.Listener { return m.sip }

// Addr is where SIP sends what is meant for a member.
func (m *Mesh) Addr(id devices.NodeID) netip.AddrPort { return netip.AddrPortFrom(ULA(id), sipPort) }

// PeerByAddr says which member a synthetic address stands for.
func (m *Mesh) PeerByAddr(addr string) (devices.NodeID, bool) {
	a, err := netip.ParseAddrPort(addr)
	if err != nil {
		return devices.NodeID{}, false
	}
	r := m.cfg.Roster.Roster()
	if r == nil {
		return devices.NodeID{}, false
	}
	idx := m.ulas.Load()
	if idx == nil || idx.roster != r { // rosters never change once made
		idx = &ulaIndex{roster: r, byAddr: make(map[netip.Addr]devices.NodeID, len(r.Members))}
		for id := range r.Members {
			idx.byAddr[ULA(id)] = id
		}
		m.ulas.Store(idx)
	}
	id, ok := idx.byAddr[a.Addr()]
	return id, ok
}

// ulaIndex finds the member behind a synthetic address; each request asks.
type ulaIndex struct {
	roster *devices.Roster
	byAddr map[netip.Addr]devices.NodeID
}

// EnsureSIP returns once a SIP flow to the member is up, or says within 3 s that the
// member cannot be reached.
func (m *Mesh) EnsureSIP(ctx context.Context, id devices.NodeID) error {
	ctx, cancel := context.WithTimeout(ctx, ensureTime)
	defer cancel()
	for {
		m.mu.Lock()
		turn, p := m.turn, m.peers[id]
		live := m.flows[flowKey{id, trust.ALPNOverlay}] != nil
		f := m.flows[flowKey{id, trust.ALPNSIP}]
		var addrs []netip.AddrPort
		if p != nil {
			addrs = p.addrs()
		}
		m.mu.Unlock()
		switch {
		case p == nil:
			return ErrUnreachable
		case live && f != nil && f.served.Load():
			return nil
		case live:
			_ = m.connect(ctx, id, trust.ALPNSIP, addrs) // if it fails, the keepers of both nodes go on
		default:
			if err := m.connect(ctx, id, trust.ALPNOverlay, addrs); err != nil && !errors.Is(err, ErrDuplicate) {
				return ErrUnreachable
			}
		}
		select {
		case <-ctx.Done():
			return ErrUnreachable
		case <-turn:
		}
	}
}

// HasSIP reports whether a SIP flow to the member is up.
func (m *Mesh) HasSIP(id devices.NodeID) bool { return m.flow(id, trust.ALPNSIP) != nil }
