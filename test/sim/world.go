package sim

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing/synctest"
	"time"

	"github.com/fxamacker/cbor/v2"

	"github.com/hallway-home/hallway/devices"
	"github.com/hallway-home/hallway/devices/overlay"
	"github.com/hallway-home/hallway/devices/records"
	"github.com/hallway-home/hallway/devices/trust"
)

const (
	// poolSize is the number of keys that all programs share: making a key is no part of
	// what is simulated.
	poolSize = 8
	// kinds of records that a program writes, the device's own among them.
	kinds = 4
	// calmTime is how long a home may take to agree once nothing happens any more: a
	// re-dial every 30 s at most, and a digest every 5 s.
	calmTime = 35 * time.Second
)

var decoding = mustDecode()

func mustDecode() cbor.DecMode {
	m, err := cbor.DecOptions{}.DecMode()
	if err != nil {
		panic(err) // constant options
	}
	return m
}

// poolKey is the i-th key of the pool, the same in every process.
func poolKey(i int) *ecdsa.PrivateKey {
	d := sha256.Sum256(fmt.Appendf(nil, "hallway simulator key %d", i))
	k, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), d[:])
	if err != nil {
		panic(err) // constant keys
	}
	return k
}

func keyID(compressed []byte) devices.NodeID {
	sum := sha256.Sum256(compressed)
	return devices.NodeID(sum[:16])
}

// node is one device of the home; store, log and mesh are there while it runs.
type node struct {
	i      int
	id     devices.NodeID
	key    *ecdsa.PrivateKey
	addr   netip.AddrPort
	host   *Host
	dir    string
	joined bool         // its store holds the home's log
	clock  atomic.Int64 // how far its wall clock is off, in nanoseconds
	copy   []byte       // of its store, older

	store *devices.Store
	log   *trust.Log
	mesh  *overlay.Mesh
	clk   atomic.Pointer[overlay.Mesh] // the same, for the log's home time
	stop  context.CancelFunc
	done  chan error
	crash *crash

	browse time.Time                   // when it asks next who is there
	pause  time.Duration               // until the one after
	seen   map[string]order            // what it last showed of each record
	logged map[devices.NodeID][]string // and of each writer's log
	held   map[trust.Hash]time.Time    // the edits in its log, and when they were first seen there
	base   *edit                       // its checkpoint
}

func (n *node) runs() bool { return n.mesh != nil && !n.crash.happened() }

func (n *node) file() string { return filepath.Join(n.dir, "hallway.db") }

// crash ends a node at one of its write points: the goroutine that writes goes no
// further, no later write begins, and the network hears nothing more.
type crash struct {
	mu   sync.Mutex
	left int // write points until it happens; 0 never
	dead bool
	kill func()
}

func (c *crash) arm(points int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.left = points
}

func (c *crash) happened() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.dead
}

// hook is called at every write point (devices.StoreOptions).
func (c *crash) hook(string) {
	c.mu.Lock()
	if c.left > 0 {
		if c.left--; c.left == 0 {
			c.dead = true
			c.kill()
		}
	}
	dead := c.dead
	c.mu.Unlock()
	if dead {
		runtime.Goexit()
	}
}

// now is called when the node is killed from outside.
func (c *crash) now() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dead = true
}

// World is a home and all that happens to it.
type World struct {
	prog  Program
	net   *Network
	nodes []*node
	model *model
	log   *journal
	count int // of names and bodies, so that each is new

	code    trust.RecoveryCode
	root    devices.NodeID // the recovery code's
	days    atomic.Int64   // that passed by all clocks, in nanoseconds
	jumped  bool           // a clock was wrong
	apart   bool           // a checkpoint was made without asking who agrees
	blind   bool           // nobody hears announcements of addresses any more
	moves   int            // addresses given
	overdue bool           // whoever waited 24 hours has waited long enough

	olds    []records.Signed // every record that was ever stored, for replays
	attacks sync.WaitGroup
	breach  error // a stranger was let in; guarded by log.mu
}

func newWorld(p Program, root string) *World {
	w := &World{prog: p, net: NewNetwork(p.Seed), log: &journal{began: time.Now()}}
	keys := map[devices.NodeID]*ecdsa.PublicKey{}
	for i := range p.Nodes {
		n := &node{i: i, key: poolKey(p.Perm[i]), seen: map[string]order{}, dir: filepath.Join(root, fmt.Sprintf("n%d", i))}
		n.id = devices.NodeIDOf(&n.key.PublicKey)
		n.addr = netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 1)}), 5061)
		n.host = w.net.Host(n.addr.Addr())
		keys[n.id] = &n.key.PublicKey
		w.nodes = append(w.nodes, n)
	}
	w.model = newModel(keys)
	return w
}

// open starts the process of a node that belongs to the home.
func (w *World) open(n *node) error {
	n.crash = &crash{}
	n.crash.kill = n.host.Kill
	n.host.PowerOn()
	var err error
	if n.store, err = devices.OpenStore(n.dir, devices.StoreOptions{Hook: n.crash.hook}); err != nil {
		return err
	}
	n.log, err = trust.OpenLog(n.store, trust.Options{HomeTime: func() (time.Time, bool) {
		if m := n.clk.Load(); m != nil {
			return m.HomeTime()
		}
		return time.Time{}, false // the log is opened first
	}})
	return err
}

func (w *World) up(n *node) error {
	logger := slog.New(slog.NewTextHandler(w.log.of(n.i), &slog.HandlerOptions{Level: slog.LevelInfo}))
	mesh, err := overlay.New(overlay.Config{
		Key: n.key, Roster: n.log, Store: n.store, Network: n.host, Logger: logger,
		Clock: func() time.Time { return time.Now().Add(time.Duration(n.clock.Load() + w.days.Load())) }, Built: w.log.began,
	})
	if err != nil {
		return err
	}
	if _, err := mesh.Listen(); err != nil {
		return err
	}
	ctx, stop := context.WithCancel(context.Background())
	n.mesh, n.stop, n.done = mesh, stop, make(chan error, 1)
	n.clk.Store(mesh)
	done := n.done
	go func() {
		defer close(done) // a crash ends Run without a word
		done <- mesh.Run(ctx)
	}()
	go drain(mesh)
	synctest.Wait()
	n.browse, n.pause = time.Now(), time.Second
	w.multicast()
	w.publish(n, 0)
	return nil
}

// multicast does what package discovery does: a starting node announces itself and asks
// who is there, and asks again in pauses that double (RFC 6762 section 5.2).
func (w *World) multicast() {
	for _, n := range w.nodes {
		if !n.runs() || time.Now().Before(n.browse) {
			continue
		}
		n.browse = time.Now().Add(n.pause)
		n.pause *= 2
		for _, o := range w.nodes {
			if o != n && o.runs() && w.net.Hears(n.host, o.host) {
				n.mesh.HintPrefix([8]byte(o.id[:8]), []netip.AddrPort{o.addr})
				o.mesh.HintPrefix([8]byte(n.id[:8]), []netip.AddrPort{n.addr})
			}
		}
	}
}

// drain takes SIP flows as the SIP library would, and does nothing with them.
func drain(m *overlay.Mesh) {
	for {
		if _, err := m.SIP().Accept(); err != nil {
			return
		}
	}
}

// down ends the process of a node, whatever it was doing.
func (w *World) down(n *node, power bool) error {
	if n.mesh == nil {
		return nil
	}
	n.crash.now()
	if power {
		n.host.PowerOff()
	} else {
		n.host.Kill()
	}
	n.stop()
	err := errors.Join(<-n.done, n.store.Close())
	n.clk.Store(nil)
	n.mesh, n.log, n.store = nil, nil, nil
	return err
}

// start brings back a node that belonged when it ended; old gives it the older copy of
// its store.
func (w *World) start(n *node, old bool) error {
	if n.mesh != nil || !n.joined || n.i == w.prog.hostile() {
		return nil
	}
	if old && n.copy != nil {
		if err := os.WriteFile(n.file(), n.copy, 0o600); err != nil {
			return err
		}
		n.seen, n.held, n.base = map[string]order{}, nil, nil
		w.model.losesTail(n.id)
	}
	for k := range n.seen { // of others what came last may not be on disk yet; its own is
		if !strings.HasPrefix(k, fmt.Sprintf("%d ", n.i)) {
			delete(n.seen, k)
		}
	}
	if err := w.open(n); err != nil {
		return err
	}
	return w.up(n)
}

// do runs f as a part of n's process, which may be killed in it; certain is false then.
func (n *node) do(f func() error) (certain bool, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		err = f()
		certain = true
	}()
	<-done
	return certain, err
}

// fresh gives a text that was never used.
func (w *World) fresh() string {
	w.count++
	return fmt.Sprintf("t%d", w.count)
}

// publish writes the node's record of a kind; kind 0 is that about the device.
func (w *World) publish(n *node, kind int) {
	body, name := w.fresh(), records.KindDevice
	var record any = devices.DeviceRecord{Addrs: []netip.AddrPort{n.addr}, Version: body}
	if kind > 0 {
		name, record = fmt.Sprintf("kind%d", kind), body
	}
	w.model.publishes(n.id, name, body, false) // peers may see it before Publish returns
	if certain, err := n.do(func() error { return n.mesh.Publish(name, record) }); certain && err == nil {
		w.model.publishes(n.id, name, body, true)
	}
}

// append adds an entry to the node's log.
func (w *World) append(n *node) {
	body := w.fresh()
	w.model.appends(n.id, body, false)
	if certain, err := n.do(func() error { return n.mesh.Append(kindEntry, body) }); certain && err == nil {
		w.model.appends(n.id, body, true)
	}
}

// bodyOf is the text that makes a record the one that was published.
func bodyOf(r records.Record) string {
	if r.Kind == records.KindDevice {
		d, err := records.DecodeDevice(r)
		if err != nil {
			return err.Error()
		}
		return d.Version
	}
	var s string
	if err := decoding.Unmarshal(r.Body, &s); err != nil {
		return err.Error()
	}
	return s
}

// journal keeps the last lines that the nodes logged.
type journal struct {
	mu    sync.Mutex
	began time.Time
	lines [][]byte
}

// journalSize is how many lines are shown with a failure.
const journalSize = 300

type nodeJournal struct {
	*journal
	node int
}

func (j *journal) of(node int) nodeJournal { return nodeJournal{j, node} }

// Write takes one line.
func (j nodeJournal) Write(b []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	_, text, _ := bytes.Cut(b, []byte(" "))
	line := fmt.Appendf(nil, "%9.3fs node %d: %s", time.Since(j.began).Seconds(), j.node, text)
	j.lines = append(j.lines, line)
	if len(j.lines) > journalSize {
		j.lines = j.lines[1:]
	}
	return len(b), nil
}

func (j *journal) note(format string, args ...any) {
	_, _ = j.of(-1).Write(fmt.Appendf(nil, "- "+format+"\n", args...))
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return string(bytes.Join(j.lines, nil))
}
