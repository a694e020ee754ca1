package overlay

import (
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/hallway-home/hallway/devices"
	"github.com/hallway-home/hallway/devices/trust"
)

const (
	// pingEvery is unconditional, so silence means something.
	pingEvery = time.Second
	// silentAfter: a peer not heard for this long is unreachable (A4 allows 5 s).
	silentAfter = 3 * time.Second
	// digestEvery: repair of whatever a push missed.
	digestEvery = 5 * time.Second
	// syncWait bounds how long a starting node waits to compare rosters before it serves.
	syncWait = 2 * time.Second
	// DefaultMaxPeers is stated, not hoped: a mesh costs about 7 kB/s at this size.
	DefaultMaxPeers = 64
)

// Roster is what the mesh needs of the roster log; *trust.Log is one.
type Roster interface {
	Roster() *devices.Roster
	Merge([]trust.SignedEdit) (int, error)
	Since(heads []trust.Hash) []trust.SignedEdit
	Heads() []trust.Hash
	Watch(context.Context) <-chan struct{}
}

// Config of a Mesh. Key, Roster and Store are required.
type Config struct {
	Key      *ecdsa.PrivateKey
	Roster   Roster
	Store    *devices.Store
	Listen   string                           // TCP address; "" means ":5061" (RFC 3261 section 19.1.2, SIP over TLS)
	Peers    []string                         // host:port of nodes that multicast cannot find
	OnPair   func(context.Context, *tls.Conn) // owns a connection that asks for hallway-pair/1; nil refuses
	Network  Network                          // nil means TCP of this host; a simulator puts one in memory here
	MaxPeers int                              // 0 means DefaultMaxPeers
	Logger   *slog.Logger                     // nil discards
}

// Mesh is the node's place in the overlay.
type Mesh struct {
	cfg   Config
	self  devices.NodeID
	log   *slog.Logger
	tls   *tls.Config
	ln    net.Listener
	table *table
	sip   *sipListener

	handshakes chan struct{}

	mu       sync.Mutex
	ctx      context.Context // of Run; nil before
	started  time.Time       // of Run, or of the last change of our addresses
	flows    map[flowKey]*flow
	dialing  map[flowKey]bool
	shaking  map[flowKey]time.Time // when a dial found somebody
	peers    map[devices.NodeID]*peer
	prefixes map[[8]byte][]netip.AddrPort // hints of nodes whose full ID is not known yet
	watchers map[chan struct{}]struct{}
	recSubs  map[chan Record]struct{}
	heard    map[devices.NodeID]time.Time
	gate     chan struct{} // closed when rosters are compared
	moved    chan struct{} // closed and replaced when our addresses changed
	wg       sync.WaitGroup
}

// New checks the configuration; it starts nothing.
func New(cfg Config) (*Mesh, error) {
	if cfg.Key == nil || cfg.Roster == nil || cfg.Store == nil {
		return nil, errors.New("overlay: key, roster and store are required")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	cfg.Listen = cmp.Or(cfg.Listen, ":5061")
	cfg.MaxPeers = cmp.Or(cfg.MaxPeers, DefaultMaxPeers)
	if cfg.Network == nil {
		cfg.Network = tcpNetwork{}
	}
	conf, err := trust.MemberTLS(cfg.Key, cfg.Roster.Roster)
	if err != nil {
		return nil, err
	}
	m := &Mesh{
		cfg: cfg, self: devices.NodeIDOf(&cfg.Key.PublicKey), log: cfg.Logger, tls: conf,
		handshakes: make(chan struct{}, maxHandshakes),
		flows:      map[flowKey]*flow{}, dialing: map[flowKey]bool{}, shaking: map[flowKey]time.Time{}, peers: map[devices.NodeID]*peer{},
		prefixes: map[[8]byte][]netip.AddrPort{}, watchers: map[chan struct{}]struct{}{},
		recSubs: map[chan Record]struct{}{}, heard: map[devices.NodeID]time.Time{}, gate: make(chan struct{}), moved: make(chan struct{}),
	}
	m.sip = newSIPListener(m.self)
	m.table, err = openTable(cfg.Store, m.self, cfg.Roster.Roster, cfg.Logger)
	return m, err
}

// Listen takes the member port. It returns the address taken.
func (m *Mesh) Listen() (netip.AddrPort, error) {
	ln, err := m.cfg.Network.Listen(m.cfg.Listen)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("cannot use the member port %s: %w; is another agent running? choose another with --listen", m.cfg.Listen, err)
	}
	m.ln = ln
	return ln.Addr().(*net.TCPAddr).AddrPort(), nil
}

// Run serves and dials until ctx ends, then closes every flow and returns.
func (m *Mesh) Run(ctx context.Context) error {
	if m.ln == nil {
		return errors.New("overlay: Listen comes before Run")
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	m.mu.Lock()
	m.ctx, m.started = ctx, time.Now()
	m.mu.Unlock()
	m.spawn(m.acceptLoop)
	m.spawn(m.tick)
	m.spawn(m.followRoster)
	m.spawn(m.openGate)
	for _, p := range m.cfg.Peers {
		m.spawn(func() { m.dialStatic(p) })
	}
	m.rosterChanged()
	<-ctx.Done()
	_ = m.ln.Close()
	m.sip.close()
	for _, f := range m.allFlows() {
		m.drop(f, errors.New("the agent stops"))
	}
	m.wg.Wait()
	m.mu.Lock()
	defer m.mu.Unlock()
	for ch := range m.recSubs {
		close(ch)
	}
	m.recSubs = map[chan Record]struct{}{}
	return nil
}

// spawn runs f as a goroutine that Run waits for; after the end it does nothing.
func (m *Mesh) spawn(f func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ctx == nil || m.ctx.Err() != nil {
		return
	}
	m.wg.Add(1)
	go func() {
		defer m.wg.Done()
		f()
	}()
}

// openGate ends the time in which this node serves nobody: when every member has been
// compared with, or after syncWait.
func (m *Mesh) openGate() {
	deadline := time.NewTimer(syncWait)
	defer deadline.Stop()
	check := time.NewTicker(20 * time.Millisecond)
	defer check.Stop()
	for {
		select {
		case <-m.ctx.Done():
			return
		case <-deadline.C:
		case <-check.C:
			if !m.comparedWithAll() {
				continue
			}
		}
		close(m.gate)
		return
	}
}

func (m *Mesh) comparedWithAll() bool {
	r := m.cfg.Roster.Roster()
	if r == nil {
		return false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for id := range r.Members {
		f := m.flows[flowKey{id, trust.ALPNOverlay}]
		if id != m.self && (f == nil || !f.compared) {
			return false
		}
	}
	return true
}

// Synced is closed once this node has compared its roster with every node it can reach
// (at most 2 s after its start): before that it serves nobody.
func (m *Mesh) Synced() <-chan struct{} { return m.gate }

// tick sends pings and digests, and ends flows that fell silent.
func (m *Mesh) tick() {
	ping := time.NewTicker(pingEvery)
	defer ping.Stop()
	digest := time.NewTicker(digestEvery)
	defer digest.Stop()
	for {
		select {
		case <-m.ctx.Done():
			return
		case now := <-ping.C:
			for _, f := range m.overlayFlows() {
				if now.Sub(f.lastHeard()) > silentAfter {
					m.drop(f, errors.New("nothing heard for 3 seconds"))
					continue
				}
				f.send(frame{Kind: framePing})
			}
		case <-digest.C:
			for _, f := range m.overlayFlows() { // map order: one random flow
				f.send(frame{Kind: frameDigest, Digest: m.table.digest()})
				break
			}
		}
	}
}

func (m *Mesh) followRoster() {
	changed := m.cfg.Roster.Watch(m.ctx)
	for {
		select {
		case <-m.ctx.Done():
			return
		case <-changed:
			m.rosterChanged()
		}
	}
}

// rosterChanged walks the flow table: who no longer belongs is cut off, everybody else
// hears of the new heads, and new members are dialled.
func (m *Mesh) rosterChanged() {
	r := m.cfg.Roster.Roster()
	for _, f := range m.allFlows() {
		if !r.Has(f.key.peer) {
			m.drop(f, trust.ErrStranger)
		}
	}
	if err := m.table.forget(); err != nil {
		m.log.Error("cannot drop the records of removed devices", "err", err)
	}
	for _, f := range m.overlayFlows() {
		f.send(frame{Kind: frameHello, Heads: m.cfg.Roster.Heads()})
	}
	m.keepPeers(r)
}

// handle takes one frame from a peer. An error ends the flow.
func (m *Mesh) handle(f *flow, fr frame) error {
	switch fr.Kind {
	case frameHello:
		m.mu.Lock()
		first := !f.compared
		f.compared = true
		m.mu.Unlock()
		if edits := m.cfg.Roster.Since(fr.Heads); len(edits) > 0 {
			f.sendEdits(edits)
		}
		if !fr.Reply && !first {
			f.send(frame{Kind: frameHello, Heads: m.cfg.Roster.Heads(), Reply: true})
		}
	case frameEdits:
		if _, err := m.cfg.Roster.Merge(fr.Edits); err != nil {
			m.log.Warn("refused roster edits", "peer", f.key.peer, "err", err)
		}
	case frameDigest:
		send, more := m.table.lacking(fr.Digest)
		f.sendRecords(send)
		if more && !fr.Reply {
			f.send(frame{Kind: frameDigest, Digest: m.table.digest(), Reply: true})
		}
	case frameRecords:
		for _, s := range fr.Records {
			if !f.allowRecord() {
				return fmt.Errorf("%w: too many records", errFrame)
			}
			m.acceptRecord(f, s)
		}
	}
	return nil
}

func (m *Mesh) acceptRecord(from *flow, s Signed) {
	r, lost, err := m.table.accept(s)
	switch {
	case errors.Is(err, errStale):
		return
	case err != nil:
		m.log.Warn("refused a record", "peer", from.key.peer, "err", err)
		return
	}
	for _, f := range m.overlayFlows() {
		if f != from && f.key.peer != r.Writer {
			f.sendRecords([]Signed{s})
		}
	}
	m.recordChanged(r)
	if lost {
		if err := m.publish(r.Kind, r.Body, true); err != nil {
			m.log.Error("cannot renew an own record", "err", err)
		}
	}
}

// Publish writes this node's own record of a kind: body is deterministic CBOR. The
// record is durable before anybody hears of it.
func (m *Mesh) Publish(kind string, body any) error {
	raw, err := marshal(body)
	if err != nil {
		return err
	}
	return m.publish(kind, raw, false)
}

func (m *Mesh) publish(kind string, raw []byte, raiseEpoch bool) error {
	s, err := m.table.write(m.cfg.Key, kind, raw, raiseEpoch)
	if err != nil {
		return err
	}
	for _, f := range m.overlayFlows() {
		f.sendRecords([]Signed{s.signed})
	}
	m.recordChanged(s.rec)
	return nil
}

// Records lists all records of members, own ones included.
func (m *Mesh) Records() []Record {
	var out []Record
	for _, s := range m.table.all() {
		out = append(out, s.rec)
	}
	return out
}

// WatchRecords tells of records accepted or written from now on. The channel is closed
// when ctx or the mesh ends, or when the reader falls far behind: read Records anew.
func (m *Mesh) WatchRecords(ctx context.Context) <-chan Record {
	ch := make(chan Record, 1024)
	m.mu.Lock()
	m.recSubs[ch] = struct{}{}
	m.mu.Unlock()
	context.AfterFunc(ctx, func() { m.unwatchRecords(ch) })
	return ch
}

func (m *Mesh) unwatchRecords(ch chan Record) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.recSubs[ch]; ok {
		delete(m.recSubs, ch)
		close(ch)
	}
}

func (m *Mesh) recordChanged(r Record) {
	m.learn(r)
	m.mu.Lock()
	defer m.mu.Unlock()
	for ch := range m.recSubs {
		select {
		case ch <- r:
		default:
			delete(m.recSubs, ch)
			close(ch)
		}
	}
}

// Live is what this node itself knows about the reachability of members.
func (m *Mesh) Live() map[devices.NodeID]devices.Liveness {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := map[devices.NodeID]devices.Liveness{}
	for id, at := range m.heard {
		out[id] = devices.Liveness{LastHeard: at}
	}
	for k, f := range m.flows {
		if k.alpn == trust.ALPNOverlay {
			out[k.peer] = devices.Liveness{Reachable: true, LastHeard: f.lastHeard(), Addr: f.addr}
		}
	}
	return out
}

// WatchLive signals (coalesced) when a member becomes reachable or unreachable.
func (m *Mesh) WatchLive(ctx context.Context) <-chan struct{} {
	ch := make(chan struct{}, 1)
	m.mu.Lock()
	m.watchers[ch] = struct{}{}
	m.mu.Unlock()
	context.AfterFunc(ctx, func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.watchers, ch)
	})
	return ch
}

// liveChanged must be called with mu held.
func (m *Mesh) liveChanged() {
	for ch := range m.watchers {
		select {
		case ch <- struct{}{}:
		default:
		}
	}
}
