package overlay

import (
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"maps"
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
	// pingEvery is unconditional, so silence means something. Every second would cost each
	// of 64 nodes 10 kB/s with its acknowledgements, and a whole percent of a core. What is
	// lost three times in a row still comes in time: TCP sends it again 0.2, 0.6 and 1.4 s
	// later (RFC 6298 with Linux' minimum).
	pingEvery = 2 * time.Second
	// pingRest and answerRest: what was said so lately needs no ping, and no answer.
	pingRest, answerRest = pingEvery * 11 / 20, pingEvery / 2
	// silentAfter: a peer not heard for this long is unreachable (A4 allows 5 s); looked at
	// every watchEvery.
	silentAfter, watchEvery = 3400 * time.Millisecond, 500 * time.Millisecond
	// flushWait gathers what one write to the disk takes.
	flushWait = 100 * time.Millisecond
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
	Edits(hashes ...trust.Hash) []trust.SignedEdit
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
	Clock    func() time.Time                 // this node's wall clock, nil means time.Now; only HomeTime asks it
	Built    time.Time                        // when the program was made; zero asks the build information
	Blobs    int64                            // bytes of blobs kept here, own and others'; 0 means records.DefaultBlobs
	Logger   *slog.Logger                     // nil discards
}

// Mesh is the node's place in the overlay.
type Mesh struct {
	cfg   Config
	self  devices.NodeID
	log   *slog.Logger
	tls   *tls.Config
	ln    net.Listener
	table *records.Table
	blobs *records.Blobs
	fetch fetches
	clock *homeClock
	sip   *sipListener
	ulas  atomic.Pointer[ulaIndex]

	complaints complaints

	door doorway

	mu       sync.Mutex
	ctx      context.Context // of Run; nil before
	started  time.Time       // of Run, or of the last change of our addresses
	flows    map[flowKey]*flow
	dialing  map[flowKey]bool
	shaking  map[flowKey]time.Time // when a dial found somebody
	peers    map[devices.NodeID]*peer
	prefixes map[[8]byte][]netip.AddrPort // hints of nodes whose full ID is not known yet
	watchers map[chan struct{}]struct{}
	heard    map[devices.NodeID]time.Time
	gate     gate
	sleep    sleep
	disk     wake          // something waits to be written
	moved    chan struct{} // closed and replaced when our addresses changed
	turn     chan struct{} // closed and replaced when a flow came, went or is served
	wg       sync.WaitGroup
}

// wake tells one goroutine that there is something to look at, however often.
type wake chan struct{}

func newWake() wake { return make(wake, 1) }

func (w wake) look() {
	select {
	case w <- struct{}{}:
	default:
	}
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
	if cfg.Clock == nil {
		cfg.Clock = time.Now
	}
	if cfg.Built.IsZero() {
		cfg.Built = builtAt()
	}
	if cfg.Network == nil {
		cfg.Network = tcpNetwork{}
	}
	conf, err := trust.MemberTLS(cfg.Key, cfg.Roster.Roster)
	if err != nil {
		return nil, err
	}
	m := &Mesh{
		cfg: cfg, self: devices.NodeIDOf(&cfg.Key.PublicKey), log: cfg.Logger, tls: conf,
		flows: map[flowKey]*flow{}, dialing: map[flowKey]bool{}, shaking: map[flowKey]time.Time{}, peers: map[devices.NodeID]*peer{},
		prefixes: map[[8]byte][]netip.AddrPort{}, watchers: map[chan struct{}]struct{}{},
		heard: map[devices.NodeID]time.Time{}, gate: newGate(), disk: newWake(), fetch: newFetches(), moved: make(chan struct{}), turn: make(chan struct{}),
	}
	m.sip = newSIPListener(m.self)
	if m.table, err = records.Open(records.Config{Key: cfg.Key, Roster: cfg.Roster.Roster, Store: cfg.Store, Dirty: m.disk.look, Logger: cfg.Logger}); err != nil {
		return nil, err
	}
	if m.blobs, err = records.OpenBlobs(cfg.Store, cfg.Blobs); err != nil {
		return nil, err
	}
	m.clock, err = newHomeClock(cfg.Clock, cfg.Built, cfg.Store)
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
	m.stayedAwake(true)
	m.spawn(m.acceptLoop)
	m.spawn(m.tick)
	m.spawn(m.followRoster)
	m.spawn(m.keepGate)
	m.spawn(m.keepDisk)
	m.spawn(m.keepBlobs)
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
	m.trouble("cannot write where peers were reached", m.savePeers())
	m.trouble("cannot write what peers said", m.table.Close()) // they will say it again
	return nil
}

// spawn runs f as a goroutine that Run waits for. After the end it does nothing and
// reports false.
func (m *Mesh) spawn(f func()) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ctx == nil || m.ctx.Err() != nil {
		return false
	}
	m.wg.Add(1)
	go func() {
		defer m.wg.Done()
		f()
	}()
	return true
}

// keepDisk does what may wait for the disk, so that nothing else has to: others' records
// and good addresses, own records that ran out, home time. A crash before loses nothing
// that peers do not bring again.
func (m *Mesh) keepDisk() {
	every := time.NewTicker(digestEvery)
	defer every.Stop()
	for {
		select {
		case <-m.ctx.Done():
			return
		case now := <-every.C:
			m.expire(now)
			m.trouble("cannot store the time of the home", m.clock.save(m.cfg.Store))
			continue
		case <-m.disk:
		}
		t := time.NewTimer(flushWait)
		select {
		case <-m.ctx.Done():
		case <-t.C:
		}
		t.Stop()
		m.trouble("cannot write what peers said", m.table.Flush())
		m.trouble("cannot write where peers were reached", m.savePeers())
	}
}

// tick sends pings and digests, and ends flows that fell silent. It never waits for the
// disk nor for a peer.
func (m *Mesh) tick() {
	ping := time.NewTicker(pingEvery)
	defer ping.Stop()
	watch := time.NewTicker(watchEvery)
	defer watch.Stop()
	digest := time.NewTicker(digestEvery)
	defer digest.Stop()
	for n := 0; ; {
		select {
		case <-m.ctx.Done():
			return
		case <-ping.C:
			n++
			m.ping(n%clockEvery == 0)
		case now := <-watch.C:
			m.stayedAwake(true)
			for _, f := range m.overlayFlows() {
				if err := f.lost(now); err != nil {
					m.drop(f, err)
				}
			}
		case <-digest.C:
			for _, f := range m.overlayFlows() { // map order: one random flow
				f.send(m.digest())
				break
			}
		}
	}
}

// ping keeps the flows alive. A ping is answered at once by whoever has said nothing for
// half the time between them, so of two nodes one comes to ask and the other to answer:
// that spares each an acknowledgement and a wake-up.
func (m *Mesh) ping(withClock bool) {
	p := frame{Kind: framePing}
	if withClock {
		p.Clock = m.cfg.Clock().UnixMilli()
	}
	b, err := encodeFrame(p)
	if err != nil {
		return
	}
	for _, f := range m.overlayFlows() {
		if withClock || f.quietFor() > pingRest {
			f.sendBytes(b)
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
	m.clock.keep(r)
	m.mu.Lock()
	maps.DeleteFunc(m.heard, func(id devices.NodeID, _ time.Time) bool { return !r.Has(id) })
	m.mu.Unlock()
	m.broadcast(m.hello(false))
	m.keepPeers(r)
	m.mu.Lock()
	m.gate.look()
	m.mu.Unlock()
	if err := m.table.Forget(); err != nil { // last: it waits for the disk
		m.log.Error("cannot drop the records of removed devices", "err", err)
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

// turned tells who waits for a flow to look again.
func (m *Mesh) turned() {
	m.mu.Lock()
	defer m.mu.Unlock()
	close(m.turn)
	m.turn = make(chan struct{})
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
