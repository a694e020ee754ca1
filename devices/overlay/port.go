package overlay

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/hallway-home/hallway/devices/trust"
)

const (
	// handshakeTime bounds one handshake with its verdict.
	handshakeTime = 3 * time.Second
	// dialTime bounds one TCP dial on a home's LAN.
	dialTime = 2 * time.Second
)

// Why a dial gave no flow.
var (
	ErrDuplicate   = errors.New("the peer prefers the connection it dials itself")
	ErrPeerFull    = errors.New("the peer has as many connections as it takes")
	ErrRefused     = errors.New("the peer refused this node: it may have been removed from the home, or belongs to another")
	ErrUnreachable = errors.New("the device cannot be reached now")
	// ErrNoConnection: the dial ended before TLS began.
	ErrNoConnection = errors.New("no TCP connection")
	ErrOtherNode    = errors.New("another device of the home answers at that address")
	errSelf         = errors.New("this device itself answers at that address")
)

func (m *Mesh) acceptLoop() {
	for {
		conn, err := m.ln.Accept()
		if err != nil {
			if m.ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return
			}
			time.Sleep(10 * time.Millisecond) // out of file descriptors: let some end
			continue
		}
		if !m.door.enter(conn, time.Now()) {
			_ = conn.Close() // an honest peer dials again
			continue
		}
		if !m.spawn(func() { m.accepted(conn) }) {
			_ = conn.Close()
		}
	}
}

// accepted takes one incoming connection to its flow, or ends it.
func (m *Mesh) accepted(raw net.Conn) {
	conf := m.tls.Clone()
	conf.NextProtos = []string{trust.ALPNOverlay, trust.ALPNSIP}
	if m.cfg.OnPair != nil {
		conf.NextProtos = append(conf.NextProtos, trust.ALPNPair)
	}
	conn := tls.Server(raw, conf)
	_ = conn.SetDeadline(time.Now().Add(handshakeTime))
	stop := context.AfterFunc(m.ctx, func() { _ = raw.Close() })
	err := conn.HandshakeContext(m.ctx)
	m.door.leave(raw)
	if err != nil {
		stop()
		m.log.Debug("refused a connection", "addr", raw.RemoteAddr(), "err", err)
		_ = raw.Close()
		return
	}
	if conn.ConnectionState().NegotiatedProtocol == trust.ALPNPair {
		_ = conn.SetDeadline(time.Time{})
		m.cfg.OnPair(m.ctx, conn)
		stop()
		_ = raw.Close()
		return
	}
	stop()
	m.judge(conn)
}

// judge sends the verdict and serves the flow if it is good.
func (m *Mesh) judge(conn *tls.Conn) {
	id, _, err := trust.PeerID(conn.ConnectionState())
	if err != nil {
		_ = conn.NetConn().Close()
		return
	}
	key := flowKey{id, conn.ConnectionState().NegotiatedProtocol}
	m.mu.Lock()
	// A dial that nobody answers is no reason to refuse: it may go to a stale address, or to
	// a stranger who says nothing.
	v := collide(m.self, id, time.Since(m.shaking[key]) < turnTime, m.flows[key], time.Now())
	if m.flows[key] == nil && len(m.flows) >= 2*m.cfg.MaxPeers {
		v = verdictFull
	}
	m.mu.Unlock()
	if _, err := conn.Write([]byte{byte(v)}); err != nil || v != verdictAccept {
		_ = conn.NetConn().Close()
		return
	}
	_ = conn.SetDeadline(time.Time{})
	// In a goroutine of its own: the stack of this one has grown with the handshake.
	m.take(newFlow(m.ctx, key, conn, false))
}

// serveFlow serves an adopted flow of either protocol until it ends.
func (m *Mesh) serveFlow(f *flow) {
	var err error
	if f.key.alpn == trust.ALPNSIP {
		err = m.serveSIP(f)
	} else {
		err = m.serve(f)
	}
	m.drop(f, err)
}

// turnTime is how long a dial leaves the handshake to another address of the same peer
// that answered before it (RFC 8305 section 5 has 250 ms; a slow core needs more).
const turnTime = time.Second

// dial opens a connection to a member. Dials of one peer at several addresses share turn:
// who goes beyond TCP holds it, and keeps it on success.
func (m *Mesh) dial(ctx context.Context, addr netip.AddrPort, key flowKey, turn chan struct{}) (conn *tls.Conn, err error) {
	ctx, cancel := context.WithTimeout(ctx, dialTime+handshakeTime)
	defer cancel()
	raw, err := m.dialTCP(ctx, addr)
	if err != nil {
		return nil, err
	}
	late := time.NewTimer(turnTime)
	defer late.Stop()
	select {
	case turn <- struct{}{}:
		defer func() {
			if err != nil {
				<-turn
			}
		}()
	case <-late.C: // the other may be no member at all
	case <-ctx.Done():
		_ = raw.Close()
		return nil, ctx.Err()
	}
	if !m.beginShake(key) {
		_ = raw.Close()
		return nil, ErrDuplicate
	}
	defer func() {
		if err != nil {
			m.endShake(key)
		}
	}()
	if conn, err = m.shake(ctx, raw, key.alpn); err != nil {
		return nil, err
	}
	id, _, err := trust.PeerID(conn.ConnectionState())
	if err == nil && id != key.peer {
		err = fmt.Errorf("%w at %s", ErrOtherNode, addr)
		if id == m.self { // a loopback address that the member once had
			err = errSelf
		}
	}
	if err == nil {
		err = readVerdict(conn)
	}
	if err != nil {
		_ = conn.NetConn().Close()
		return nil, err
	}
	_ = conn.SetDeadline(time.Time{})
	return conn, nil
}

// beginShake notes that a dial has found somebody, unless the peer came to us meanwhile.
func (m *Mesh) beginShake(key flowKey) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.flows[key] != nil {
		return false
	}
	m.shaking[key] = time.Now()
	return true
}

func (m *Mesh) endShake(key flowKey) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.shaking, key)
}

func (m *Mesh) dialTCP(ctx context.Context, addr netip.AddrPort) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	raw, err := m.cfg.Network.Dial(ctx, addr)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoConnection, err)
	}
	return raw, nil
}

// shake makes a TLS connection of a TCP one, and closes it on failure.
func (m *Mesh) shake(ctx context.Context, raw net.Conn, alpn string) (*tls.Conn, error) {
	conf := m.tls.Clone()
	conf.NextProtos = []string{alpn}
	conn := tls.Client(raw, conf)
	if err := conn.HandshakeContext(ctx); err != nil {
		_ = raw.Close()
		return nil, err
	}
	if deadline, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(deadline)
	}
	return conn, nil
}

func readVerdict(conn *tls.Conn) error {
	var b [1]byte
	if _, err := conn.Read(b[:]); err != nil {
		return fmt.Errorf("%w (%w)", ErrRefused, err)
	}
	switch decision(b[0]) {
	case verdictAccept:
		return nil
	case verdictDuplicate:
		return ErrDuplicate
	case verdictFull:
		return ErrPeerFull
	}
	return errFrame
}

// DialPair opens a connection for pairing; the caller owns it. Whoever answers is a
// stranger until the code has been proved.
func (m *Mesh) DialPair(ctx context.Context, addr netip.AddrPort) (*tls.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTime+handshakeTime)
	defer cancel()
	raw, err := m.dialTCP(ctx, addr)
	if err != nil {
		return nil, err
	}
	conn, err := m.shake(ctx, raw, trust.ALPNPair)
	if err != nil {
		return nil, err
	}
	_ = conn.SetDeadline(time.Time{})
	return conn, nil
}
