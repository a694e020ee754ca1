package overlay

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"net/netip"
	"sync"
	"time"

	"github.com/hallway-home/hallway/devices"
	"github.com/hallway-home/hallway/devices/trust"
)

const (
	// sendQueue bounds what waits for a slow peer; a full queue ends the flow, which the
	// re-dial repairs with a digest.
	sendQueue = 1024
	// writeTimeout bounds a write to a peer that no longer reads.
	writeTimeout = 3 * time.Second
	// recordsPerSecond and recordBurst bound a flooding member. The burst is what an
	// honest full exchange may bring: 64 nodes with all their records.
	recordsPerSecond = 20
	recordBurst      = DefaultMaxPeers * MaxKeysPerWriter
	// youngFlow: within this time a second dial of the same peer is the same collision.
	youngFlow = 5 * time.Second
)

// flowKey: between two nodes there is one flow for each protocol.
type flowKey struct {
	peer devices.NodeID
	alpn string
}

// flow is one verified connection with a member.
type flow struct {
	key    flowKey
	conn   *tls.Conn
	addr   netip.AddrPort
	dialed bool // by us
	since  time.Time

	out    chan []byte
	ctx    context.Context
	cancel context.CancelFunc

	compared bool // roster heads came; guarded by Mesh.mu

	mu     sync.Mutex
	heard  time.Time
	tokens float64
	filled time.Time
}

func newFlow(ctx context.Context, key flowKey, conn *tls.Conn, dialed bool) *flow {
	addr, _ := netip.ParseAddrPort(conn.RemoteAddr().String())
	now := time.Now()
	f := &flow{key: key, conn: conn, addr: unmap(addr), dialed: dialed, since: now, out: make(chan []byte, sendQueue), heard: now, tokens: recordBurst, filled: now}
	f.ctx, f.cancel = context.WithCancel(ctx)
	return f
}

func unmap(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }

func (f *flow) lastHeard() time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.heard
}

// allowRecord takes a token of the bucket that bounds a flooding member.
func (f *flow) allowRecord() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	f.tokens = min(recordBurst, f.tokens+now.Sub(f.filled).Seconds()*recordsPerSecond)
	f.filled = now
	if f.tokens < 1 {
		return false
	}
	f.tokens--
	return true
}

// send queues a frame; a peer that does not drain its queue is cut off.
func (f *flow) send(fr frame) {
	b, err := encodeFrame(fr)
	if err != nil {
		f.cancel()
		return
	}
	select {
	case f.out <- b:
	case <-f.ctx.Done():
	default:
		f.cancel()
	}
}

// sendEdits and sendRecords cut long lists into frames.
func (f *flow) sendEdits(edits []trust.SignedEdit) {
	const perFrame = MaxFrame / (2 * trust.MaxEdit)
	for len(edits) > 0 {
		n := min(perFrame, len(edits))
		f.send(frame{Kind: frameEdits, Edits: edits[:n]})
		edits = edits[n:]
	}
}

func (f *flow) sendRecords(records []Signed) {
	const perFrame = MaxFrame / (2 * MaxRecord)
	for len(records) > 0 {
		n := min(perFrame, len(records))
		f.send(frame{Kind: frameRecords, Records: records[:n]})
		records = records[n:]
	}
}

func (f *flow) writeLoop() error {
	for {
		select {
		case <-f.ctx.Done():
			return context.Cause(f.ctx)
		case b := <-f.out:
			if err := f.conn.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
				return err
			}
			if _, err := f.conn.Write(b); err != nil {
				return err
			}
		}
	}
}

// serve runs an overlay flow until it ends; both its goroutines end before it returns.
func (m *Mesh) serve(f *flow) error {
	written := make(chan struct{})
	go func() {
		defer close(written)
		if err := f.writeLoop(); err != nil {
			f.cancel()
		}
		_ = f.conn.NetConn().Close() // ends the reader; close_notify could block
	}()
	f.send(frame{Kind: frameHello, Heads: m.cfg.Roster.Heads()})
	f.send(frame{Kind: frameDigest, Digest: m.table.digest()})
	var err error
	for err == nil {
		var fr frame
		if fr, err = readFrame(f.conn); err == nil {
			f.mu.Lock()
			f.heard = time.Now()
			f.mu.Unlock()
			err = m.handle(f, fr)
		}
	}
	f.cancel()
	<-written
	return err
}

// decision about a connection that a peer opens while another may exist.
type decision byte

// The verdict byte: the first thing an acceptor sends. A refused TLS 1.3 dial looks
// successful to the dialler until its first read, so it uses the flow only after this.
const (
	verdictAccept    decision = 'y'
	verdictDuplicate decision = 'd' // we are dialling you, or just did: use that one
	verdictFull      decision = 'f'
)

// collide decides between an accepted connection and what is there: the node with the
// lower Node-ID prefers the flow it dials itself while that dial runs or is young; else
// the newest wins, since a node that dials has lost the old one.
func collide(self, peer devices.NodeID, dialing bool, old *flow, now time.Time) decision {
	if bytes.Compare(self[:], peer[:]) < 0 {
		if dialing || old != nil && old.dialed && now.Sub(old.since) < youngFlow {
			return verdictDuplicate
		}
	}
	return verdictAccept
}

var errReplaced = errors.New("replaced by a newer connection")

// adopt puts a flow into the table, in place of an older one. It reports false when
// the mesh has ended or the peer was removed meanwhile.
func (m *Mesh) adopt(f *flow) bool {
	m.mu.Lock()
	if m.ctx.Err() != nil || !m.cfg.Roster.Roster().Has(f.key.peer) {
		m.mu.Unlock()
		return false
	}
	old := m.flows[f.key]
	m.flows[f.key] = f
	if p := m.peers[f.key.peer]; p != nil {
		p.remember(f.addr, f.dialed)
		p.wake()
	}
	if f.key.alpn == trust.ALPNOverlay && old == nil {
		m.liveChanged()
	}
	m.mu.Unlock()
	if old != nil {
		m.end(old, errReplaced)
	}
	return true
}

// drop ends a flow and takes it out of the table.
func (m *Mesh) drop(f *flow, why error) {
	m.mu.Lock()
	if m.flows[f.key] == f {
		delete(m.flows, f.key)
		if f.key.alpn == trust.ALPNOverlay {
			m.heard[f.key.peer] = f.lastHeard()
			m.liveChanged()
			m.log.Info("peer lost", "peer", f.key.peer, "addr", f.addr, "why", why)
		}
		if p := m.peers[f.key.peer]; p != nil {
			p.wake()
		}
	}
	m.mu.Unlock()
	m.end(f, why)
}

// end closes the connection without waiting for the peer.
func (m *Mesh) end(f *flow, _ error) {
	f.cancel()
	_ = f.conn.NetConn().Close()
}

func (m *Mesh) allFlows() []*flow {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make([]*flow, 0, len(m.flows))
	for _, f := range m.flows {
		out = append(out, f)
	}
	return out
}

func (m *Mesh) overlayFlows() []*flow {
	all := m.allFlows()
	out := all[:0]
	for _, f := range all {
		if f.key.alpn == trust.ALPNOverlay {
			out = append(out, f)
		}
	}
	return out
}
