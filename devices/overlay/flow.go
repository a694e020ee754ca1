package overlay

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hallway-home/hallway/devices"
	"github.com/hallway-home/hallway/devices/records"
	"github.com/hallway-home/hallway/devices/trust"
)

const (
	// maxQueued bounds the bytes that wait for a slow peer: two exchanges and what is
	// pushed meanwhile. A full queue ends the flow, which the re-dial repairs by a digest.
	maxQueued = 1 << 20
	// maxWaiting bounds the bytes that wait to be taken from a peer, while the disk stalls or
	// the peer is made to wait: then TCP slows it down.
	maxWaiting = 1 << 20
	// maxWrite is how much of the queue one write takes.
	maxWrite = 64 << 10
	// writeTimeout bounds a write to a peer that no longer reads (within watchEvery).
	writeTimeout = 3 * time.Second
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
	local  netip.Addr
	dialed bool // by us
	since  time.Time

	out    outbox
	ctx    context.Context
	cancel context.CancelFunc

	limits   *limits // of the peer, whatever flow it uses
	in       inbox
	writing  sync.Mutex   // held by who writes to conn
	fines    int          // for the frame being taken
	compared bool         // rosters are equal as far as the peer tells; guarded by Mesh.mu
	heads    []trust.Hash // of the peer's roster, as it said last; guarded by Mesh.mu
	served   atomic.Bool  // SIP only: handed to the SIP library

	mu    sync.Mutex
	heard time.Time
	said  time.Time // when something was last queued for the peer
	wrote time.Time // when the write under way began
}

// limits bound what one peer may cost. They outlive its flows.
type limits struct {
	mu               sync.Mutex
	bytes, exchanges bucket
}

func newLimits() *limits {
	now := time.Now()
	return &limits{bytes: newBucket(bytesPerSecond, byteBurst, now), exchanges: newBucket(exchangesPerSecond, exchangeBurst, now)}
}

// mayAsk takes a token for one answer to a digest, a state or a hello.
func (l *limits) mayAsk() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.exchanges.allow(time.Now())
}

// spend says how long the reader must wait after n bytes.
func (l *limits) spend(n int) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.bytes.spend(float64(n), time.Now())
}

func newFlow(ctx context.Context, key flowKey, conn *tls.Conn, dialed bool) *flow {
	now := time.Now()
	f := &flow{
		key: key, conn: conn, addr: addrOf(conn.RemoteAddr()), local: addrOf(conn.LocalAddr()).Addr().WithZone(""), dialed: dialed,
		since: now, heard: now, out: outbox{ready: make(chan struct{}, 1)}, limits: newLimits(), in: inbox{room: newWake()},
	}
	f.ctx, f.cancel = context.WithCancel(ctx)
	return f
}

func addrOf(a net.Addr) netip.AddrPort {
	p, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return netip.AddrPort{}
	}
	return unmap(p)
}

func unmap(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }

func (f *flow) lastHeard() time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.heard
}

// outbox is what waits to be written, bounded in bytes.
type outbox struct {
	ready chan struct{}
	mu    sync.Mutex
	list  [][]byte
	bytes int
}

func (o *outbox) put(b []byte) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.bytes+len(b) > maxQueued {
		return false
	}
	o.list = append(o.list, b)
	o.bytes += len(b)
	select {
	case o.ready <- struct{}{}:
	default:
	}
	return true
}

// take gives what one write should carry; many small frames make one.
func (o *outbox) take() []byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	var out []byte
	n := 0
	for ; n < len(o.list) && (n == 0 || len(out)+len(o.list[n]) <= maxWrite); n++ {
		out = append(out, o.list[n]...)
	}
	o.list = append([][]byte(nil), o.list[n:]...)
	o.bytes -= len(out)
	return out
}

func (o *outbox) queued() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.bytes
}

// send queues a frame; a peer that does not drain its queue is cut off.
func (f *flow) send(fr frame) {
	b, err := encodeFrame(fr)
	if err != nil {
		f.cancel()
		return
	}
	f.sendBytes(b)
}

func (f *flow) sendBytes(b []byte) {
	f.mu.Lock()
	f.said = time.Now()
	f.mu.Unlock()
	if !f.out.put(b) {
		f.cancel()
	}
}

// quietFor is how long nothing was said to the peer.
func (f *flow) quietFor() time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	return time.Since(f.said)
}

// sendEdits, sendRecords and sendState cut long lists into frames. more asks
// the peer to compare again when it has taken them.
func (f *flow) sendEdits(edits []trust.SignedEdit) {
	for _, part := range cut(edits, func(e trust.SignedEdit) int { return len(e.Raw) + len(e.Sig) + 8 }) {
		f.send(frame{Kind: frameEdits, Edits: part})
	}
}

func (f *flow) sendRecords(kind frameKind, list []records.Signed, more bool) {
	for _, part := range cut(list, records.Signed.Size) {
		f.send(frame{Kind: kind, Records: part, More: more})
	}
}

func (f *flow) sendState(list []records.State, reply bool) {
	sent := 0
	for _, part := range cut(list, records.State.Size) {
		for _, w := range part {
			sent += w.Size()
		}
		if sent > maxExchange {
			return // the next digest goes on
		}
		f.send(frame{Kind: frameState, State: part, Reply: reply})
	}
}

// write is called with writing held.
func (f *flow) write(b []byte) error {
	f.setWrote(time.Now())
	_, err := f.conn.Write(b)
	f.setWrote(time.Time{})
	return err
}

func (f *flow) setWrote(since time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.wrote = since
}

// answerPing is called by the reader. It writes by itself, since the writer sleeps as a
// rule and to wake it costs more than the ping does; the peer is not behind, for nothing was
// said to it lately.
func (f *flow) answerPing() error {
	if !f.writing.TryLock() {
		return nil // what is being written answers as well
	}
	defer f.writing.Unlock()
	f.mu.Lock()
	f.said = time.Now()
	f.mu.Unlock()
	return f.write(barePing)
}

// lost says why a flow is of no use any more, or nil. It is asked every watchEvery: a
// deadline for each write would wake the node once for each of them.
func (f *flow) lost(now time.Time) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case now.Sub(f.heard) > silentAfter:
		return errSilent
	case !f.wrote.IsZero() && now.Sub(f.wrote) > writeTimeout:
		return errDeaf
	}
	return nil
}

func (f *flow) writeLoop() error {
	for {
		b := f.out.take()
		if len(b) == 0 {
			select {
			case <-f.ctx.Done():
				return context.Cause(f.ctx)
			case <-f.out.ready:
			}
			continue
		}
		f.writing.Lock()
		err := f.write(b)
		f.writing.Unlock()
		if err != nil {
			return err
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
	f.send(m.hello(false))
	f.send(m.digest())
	var err error
	for err == nil {
		err = m.readOne(f)
	}
	f.in.end()
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

var (
	errSilent = errors.New("nothing heard for 3 seconds")
	errDeaf   = errors.New("nothing read for 3 seconds")
)

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
		f.limits = p.limits
		if p.remember(f.addr, f.dialed) {
			m.disk.look()
		}
		p.wake()
	}
	m.gate.back()
	if f.key.alpn == trust.ALPNOverlay && old == nil {
		m.liveChanged()
	}
	m.mu.Unlock()
	m.turned()
	m.log.Debug("flow up", "peer", f.key.peer, "alpn", f.key.alpn, "dialed", f.dialed)
	if old != nil {
		m.end(old)
	}
	return true
}

// drop ends a flow and takes it out of the table; with an overlay flow also the SIP flow
// beside it, which has no pings of its own.
func (m *Mesh) drop(f *flow, why error) {
	var sip *flow
	m.mu.Lock()
	if m.flows[f.key] == f {
		delete(m.flows, f.key)
		if f.key.alpn == trust.ALPNOverlay {
			sip = m.flows[flowKey{f.key.peer, trust.ALPNSIP}]
			m.heard[f.key.peer] = f.lastHeard()
			m.liveChanged()
			m.gate.alone = m.reachable() == 0
			m.gate.look()
			m.log.Info("peer lost", "peer", f.key.peer, "addr", f.addr, "why", why)
		}
		if p := m.peers[f.key.peer]; p != nil {
			p.wake()
		}
	}
	m.mu.Unlock()
	m.turned()
	m.end(f)
	if sip != nil {
		m.drop(sip, why)
	}
}

// end closes the connection without waiting for the peer.
func (m *Mesh) end(f *flow) {
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
