package overlay

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/hallway-home/hallway/devices"
	"github.com/hallway-home/hallway/devices/trust"
)

const (
	// maxHandshakes bounds the CPU that strangers can burn: a handshake costs about 1 ms
	// on a small ARM core.
	maxHandshakes = 8
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
		select {
		case m.handshakes <- struct{}{}:
			m.spawn(func() { m.accepted(conn) })
		default:
			_ = conn.Close() // eight at a time; an honest peer dials again
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
	<-m.handshakes
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
	v := collide(m.self, id, m.dialing[key], m.flows[key], time.Now())
	if m.flows[key] == nil && len(m.flows) >= 2*m.cfg.MaxPeers {
		v = verdictFull
	}
	m.mu.Unlock()
	if _, err := conn.Write([]byte{byte(v)}); err != nil || v != verdictAccept {
		_ = conn.NetConn().Close()
		return
	}
	_ = conn.SetDeadline(time.Time{})
	m.run(newFlow(m.ctx, key, conn, false))
}

// run serves a flow of either protocol until it ends.
func (m *Mesh) run(f *flow) {
	if !m.adopt(f) {
		m.end(f, nil)
		return
	}
	m.log.Debug("flow up", "peer", f.key.peer, "alpn", f.key.alpn, "dialed", f.dialed)
	var err error
	if f.key.alpn == trust.ALPNSIP {
		err = m.serveSIP(f)
	} else {
		err = m.serve(f)
	}
	m.drop(f, err)
}

// dial opens a connection to a member. want may be zero when only an address is known.
func (m *Mesh) dial(ctx context.Context, addr netip.AddrPort, want devices.NodeID, alpn string) (*tls.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTime+handshakeTime)
	defer cancel()
	conn, err := m.dialTLS(ctx, addr, alpn)
	if err != nil {
		return nil, err
	}
	id, _, err := trust.PeerID(conn.ConnectionState())
	if err == nil && !want.IsZero() && id != want {
		err = ErrOtherNode
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

func (m *Mesh) dialTLS(ctx context.Context, addr netip.AddrPort, alpn string) (*tls.Conn, error) {
	dialCtx, cancel := context.WithTimeout(ctx, dialTime)
	raw, err := m.cfg.Network.Dial(dialCtx, addr)
	cancel()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoConnection, err)
	}
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
	conn, err := m.dialTLS(ctx, addr, trust.ALPNPair)
	if err != nil {
		return nil, err
	}
	_ = conn.SetDeadline(time.Time{})
	return conn, nil
}
