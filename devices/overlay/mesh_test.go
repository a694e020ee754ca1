package overlay

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/hallway-home/hallway/devices"
	"github.com/hallway-home/hallway/devices/records"
	"github.com/hallway-home/hallway/devices/trust"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// node is a real mesh on loopback with its own store.
type node struct {
	*Mesh
	t    testing.TB
	dir  string
	key  *ecdsa.PrivateKey
	log  *trust.Log
	id   devices.NodeID
	addr netip.AddrPort
	stop func()

	manual bool       // the test accepts SIP flows itself
	card   sync.Mutex // while it is locked the disk writes nothing
}

// drain reads SIP flows as the SIP library would.
func drain(ln net.Listener) {
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		go func() {
			_, _ = io.Copy(io.Discard, c)
			_ = c.Close()
		}()
	}
}

// home makes n nodes of one home, the first its owner; they run but know no addresses.
func home(t testing.TB, n int, opts ...func(*node)) []*node {
	t.Helper()
	var nodes []*node
	for i := range n {
		nodes = append(nodes, newNode(t, fmt.Sprintf("node %d", i)))
	}
	first := nodes[0]
	if _, err := first.log.Create(first.key, trust.CreateParams{HomeName: "Home", Name: "node 0"}); err != nil {
		t.Fatal(err)
	}
	for i, x := range nodes[1:] {
		if _, err := first.log.Admit(first.key, trust.Candidate{Key: devices.CompressedKey(&x.key.PublicKey), Name: fmt.Sprintf("node %d", i+1)}); err != nil {
			t.Fatal(err)
		}
	}
	for _, x := range nodes[1:] {
		if err := x.log.Adopt(first.log.Edits(), first.log.Roster().Home, x.id); err != nil {
			t.Fatal(err)
		}
	}
	for _, x := range nodes {
		for _, o := range opts {
			o(x)
		}
		x.start()
	}
	return nodes
}

func newNode(t testing.TB, name string) *node {
	t.Helper()
	x := &node{t: t, dir: t.TempDir()}
	x.open()
	return x
}

func (x *node) open() {
	x.t.Helper()
	store, err := devices.OpenStore(x.dir, devices.StoreOptions{Hook: func(point string) {
		if strings.HasSuffix(point, ".before") {
			x.card.Lock()
			defer x.card.Unlock()
		}
	}})
	if err != nil {
		x.t.Fatal(err)
	}
	key, err1 := devices.NodeKey(store)
	log, err2 := trust.OpenLog(store)
	mesh, err3 := New(Config{Key: key, Roster: log, Store: store, Listen: "127.0.0.1:0"})
	if err := errors.Join(err1, err2, err3); err != nil {
		x.t.Fatal(err)
	}
	x.Mesh, x.key, x.log, x.id = mesh, key, log, devices.NodeIDOf(&key.PublicKey)
	x.stop = func() { _ = store.Close() }
}

func (x *node) start() {
	x.t.Helper()
	addr, err := x.Listen()
	if err != nil {
		x.t.Fatal(err)
	}
	x.addr = addr
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- x.Run(ctx) }()
	for { // Run is up once it knows its context
		x.mu.Lock()
		up := x.ctx != nil
		x.mu.Unlock()
		if up {
			break
		}
		time.Sleep(time.Millisecond)
	}
	if !x.manual {
		go drain(x.SIP())
	}
	closeStore := x.stop
	stopped := false
	x.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			x.t.Error(err)
		}
		closeStore()
	}
	x.t.Cleanup(func() { x.stop() })
}

func (x *node) knows(y *node) { x.HintPrefix([8]byte(y.id[:8]), []netip.AddrPort{y.addr}) }

func eventually(t testing.TB, within time.Duration, what string, cond func() bool) time.Duration {
	t.Helper()
	start := time.Now()
	for !cond() {
		if time.Since(start) > within*slowdown {
			t.Fatalf("not within %v: %s", within, what)
		}
		time.Sleep(time.Millisecond)
	}
	return time.Since(start)
}

func (x *node) reaches(y *node) bool { return x.Live()[y.id].Reachable }

func (x *node) has(y *node, seq uint64) bool {
	return slices.ContainsFunc(x.Records(), func(r records.Record) bool { return r.Writer == y.id && r.Sequence >= seq })
}

func meet(t testing.TB, nodes ...*node) {
	t.Helper()
	for _, a := range nodes {
		for _, b := range nodes {
			if a != b {
				a.knows(b)
			}
		}
	}
	eventually(t, 6*time.Second, "all reach each other", func() bool {
		for _, a := range nodes {
			for _, b := range nodes {
				if a != b && (!a.reaches(b) || a.flow(b.id, trust.ALPNSIP) == nil) {
					return false
				}
			}
		}
		return true
	})
}

func TestNodesMeetAndShareRecords(t *testing.T) {
	n := home(t, 3)
	meet(t, n...)
	if err := n[0].Publish("device", map[int]string{1: "a"}); err != nil {
		t.Fatal(err)
	}
	eventually(t, time.Second, "a new record is pushed to all", func() bool { return n[1].has(n[0], 1) && n[2].has(n[0], 1) })
	n[1].stop()
	took := eventually(t, time.Second, "a reset is known at once", func() bool { return !n[0].reaches(n[1]) })
	t.Logf("reset known after %v", took)
	if err := n[0].Publish("device", map[int]string{1: "b"}); err != nil {
		t.Fatal(err)
	}
	n[1].open()
	n[1].start()
	meet(t, n...)
	eventually(t, time.Second, "what was missed is repaired at the start of the flow", func() bool { return n[1].has(n[0], 2) })
}

func TestRosterEditReachesAllAndCutsOff(t *testing.T) {
	n := home(t, 3)
	meet(t, n...)
	slug := n[0].log.Roster().Members[n[2].id].Slug
	if err := n[0].log.Remove(n[0].key, slug); err != nil {
		t.Fatal(err)
	}
	eventually(t, 2*time.Second, "the removed node has no flow left", func() bool {
		return !n[1].log.Roster().Has(n[2].id) && !n[0].reaches(n[2]) && !n[1].reaches(n[2]) &&
			n[0].flow(n[2].id, trust.ALPNSIP) == nil && n[1].flow(n[2].id, trust.ALPNSIP) == nil
	})
	n[2].knows(n[1])
	eventually(t, 2*time.Second, "a removed node is refused", func() bool {
		_, err := n[2].dial(t.Context(), n[1].addr, flowKey{n[1].id, trust.ALPNOverlay}, make(chan struct{}, 1))
		if err == nil {
			t.Fatal("a removed node was answered")
		}
		return errors.Is(err, ErrRefused) // while its own flow is going, it dials no second one
	})
}

// All that two full logs and all registers of their writers hold, the most that an
// honest exchange brings, is neither cut nor complained about.
func TestHonestBulkPasses(t *testing.T) {
	t.Parallel()
	logs := &counted{Handler: slog.DiscardHandler}
	n := home(t, 3, logs.to)
	for _, x := range n[:2] {
		for i := range records.MaxKeysPerWriter {
			if err := x.Publish(fmt.Sprint("kind ", i), strings.Repeat("x", 700)); err != nil {
				t.Fatal(err)
			}
		}
		for i := range records.MaxEntries + 10 {
			if err := x.Append("call", fmt.Sprintf("%700d", i)); err != nil {
				t.Fatal(err)
			}
		}
	}
	meet(t, n...)
	took := eventually(t, 10*time.Second, "the new one has everything", func() bool { return allAgree(n) })
	t.Logf("%d entries and %d registers after %v", 2*records.MaxEntries, 2*records.MaxKeysPerWriter, took)
	if lines := logs.lines(); len(lines) > 0 {
		t.Errorf("the honest exchange is complained about: %v", lines)
	}
	for _, x := range n {
		list, err := x.Entries("")
		if err != nil || len(list) != 2*records.MaxEntries {
			t.Fatalf("%d entries, %v", len(list), err)
		}
	}
}

// A hello that a node had no patience for is made up for by the next digest.
func TestRosterIsRepairedByTheDigest(t *testing.T) {
	t.Parallel()
	n := home(t, 2)
	meet(t, n...)
	l := n[1].peers[n[0].id].limits
	l.mu.Lock()
	l.exchanges = newBucket(0, 0, time.Now())
	l.mu.Unlock()
	if err := n[0].log.SetRoom(n[0].key, "Attic"); err != nil {
		t.Fatal(err)
	}
	took := eventually(t, 8*time.Second, "the room arrives", func() bool { return len(n[1].log.Roster().Rooms) == 1 })
	t.Logf("after %v", took)
	if took < 100*time.Millisecond {
		t.Fatal("the hello was answered all the same")
	}
}

func TestStrangerIsRefused(t *testing.T) {
	n := home(t, 1)
	stranger := home(t, 1)[0]
	for _, alpn := range []string{trust.ALPNOverlay, trust.ALPNSIP} {
		if _, err := stranger.dial(t.Context(), n[0].addr, flowKey{n[0].id, alpn}, make(chan struct{}, 1)); err == nil {
			t.Fatalf("a stranger got a %s flow", alpn)
		}
	}
	if _, err := stranger.DialPair(t.Context(), n[0].addr); err == nil {
		t.Fatal("pairing was answered although no handler is set")
	}
}

func TestSilentPeerIsUnreachable(t *testing.T) {
	t.Parallel()
	n := home(t, 2)
	proxy := newProxy(t, n[1].addr)
	n[0].HintPrefix([8]byte(n[1].id[:8]), []netip.AddrPort{proxy.addr})
	eventually(t, 6*time.Second, "they meet through the proxy", func() bool { return n[0].reaches(n[1]) && n[1].reaches(n[0]) })
	proxy.pause()
	took := eventually(t, 5*time.Second, "silence is noticed", func() bool { return !n[0].reaches(n[1]) && !n[1].reaches(n[0]) })
	if took < 2*time.Second {
		t.Fatalf("given up after %v, silence counts after %v", took, silentAfter)
	}
}

func TestSIPFlowCarriesBytesUnderSyntheticAddresses(t *testing.T) {
	n := home(t, 2, func(x *node) { x.manual = true })
	got := make(chan net.Conn, 2)
	for _, x := range n {
		go func() {
			if c, err := x.SIP().Accept(); err == nil {
				got <- c
			}
		}()
	}
	meet(t, n...)
	a, b := <-got, <-got
	if id, ok := n[0].PeerByAddr(a.RemoteAddr().String()); !ok || (id != n[0].id && id != n[1].id) {
		t.Fatalf("%v stands for nobody", a.RemoteAddr())
	}
	if a.LocalAddr().String() == b.LocalAddr().String() {
		t.Fatal("two flows share a local address")
	}
	if _, err := a.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 5)
	if _, err := io.ReadFull(b, buf); err != nil || string(buf) != "hello" {
		t.Fatal(err, string(buf))
	}
	if err := n[0].EnsureSIP(t.Context(), n[1].id); err != nil {
		t.Fatal(err)
	}
}

func TestEnsureSIPSaysUnreachableInTime(t *testing.T) {
	t.Parallel()
	n := home(t, 2)
	meet(t, n...)
	n[1].stop()
	eventually(t, time.Second, "the reset is known", func() bool { return !n[0].reaches(n[1]) })
	start := time.Now()
	if err := n[0].EnsureSIP(t.Context(), n[1].id); !errors.Is(err, ErrUnreachable) || time.Since(start) > 4*time.Second {
		t.Fatalf("%v after %v", err, time.Since(start))
	}
}

func TestPortInUseIsOneSentence(t *testing.T) {
	n := home(t, 1)
	x := newNode(t, "late")
	defer x.stop()
	x.cfg.Listen = n[0].addr.String()
	if _, err := x.Listen(); err == nil || !strings.Contains(err.Error(), "--listen") {
		t.Fatal(err)
	}
}

func TestSimultaneousDialsLeaveOneFlow(t *testing.T) {
	n := home(t, 2)
	for range 50 {
		go n[0].knows(n[1])
		n[1].knows(n[0])
		eventually(t, 9*time.Second, "they meet", func() bool { return n[0].reaches(n[1]) && n[1].reaches(n[0]) })
		for _, f := range n[0].allFlows() {
			n[0].drop(f, errSilent)
		}
		eventually(t, time.Second, "both lose it", func() bool { return true })
	}
	eventually(t, 9*time.Second, "they stay together", func() bool { return n[0].reaches(n[1]) && n[1].reaches(n[0]) })
}

func TestCollide(t *testing.T) {
	low, high := devices.NodeID{1}, devices.NodeID{2}
	now := time.Now()
	young := &flow{dialed: true, since: now.Add(-time.Second)}
	old := &flow{dialed: true, since: now.Add(-time.Minute)}
	theirs := &flow{since: now}
	for _, c := range []struct {
		name       string
		self, peer devices.NodeID
		dialing    bool
		old        *flow
		want       decision
	}{
		{"first", low, high, false, nil, verdictAccept},
		{"lower is dialling", low, high, true, nil, verdictDuplicate},
		{"higher is dialling", high, low, true, nil, verdictAccept},
		{"lower just dialled", low, high, false, young, verdictDuplicate},
		{"lower dialled long ago", low, high, false, old, verdictAccept},
		{"they dialled", low, high, false, theirs, verdictAccept},
	} {
		if got := collide(c.self, c.peer, c.dialing, c.old, now); got != c.want {
			t.Errorf("%s: %c, want %c", c.name, got, c.want)
		}
	}
}

func TestRedialWait(t *testing.T) {
	low, high := devices.NodeID{1}, devices.NodeID{2}
	for _, c := range []struct {
		self, peer      devices.NodeID
		running, absent time.Duration
		want            time.Duration
	}{
		{low, high, time.Hour, 0, 0},
		{high, low, time.Second, 0, 0},
		{high, low, time.Hour, 0, 4 * time.Second},
		{high, low, time.Hour, 3 * time.Second, time.Second},
		{high, low, time.Hour, time.Minute, 0},
	} {
		if got := redialWait(c.self, c.peer, c.running, c.absent); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
	if pause(time.Minute) != 3*time.Second || pause(time.Hour) != 30*time.Second {
		t.Error("the re-dial schedule changed")
	}
}

// proxy forwards TCP until it is paused.
type proxy struct {
	addr  netip.AddrPort
	pause func()
}

func newProxy(t *testing.T, to netip.AddrPort) *proxy {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	paused := make(chan struct{})
	done := make(chan struct{})
	var conns []net.Conn
	copyAll := func(dst, src net.Conn) {
		buf := make([]byte, 4096)
		for {
			n, err := src.Read(buf)
			if err != nil {
				return
			}
			select {
			case <-paused:
				continue // swallowed: the cable is pulled
			default:
			}
			if _, err := dst.Write(buf[:n]); err != nil {
				return
			}
		}
	}
	go func() {
		defer close(done)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			d, err := net.Dial("tcp", to.String())
			if err != nil {
				_ = c.Close()
				continue
			}
			conns = append(conns, c, d)
			go copyAll(c, d)
			go copyAll(d, c)
		}
	}()
	t.Cleanup(func() {
		_ = ln.Close()
		<-done
		for _, c := range conns {
			_ = c.Close()
		}
	})
	return &proxy{ln.Addr().(*net.TCPAddr).AddrPort(), func() { close(paused) }}
}

// A peer known by several addresses, of which one leads nowhere and two lead to it, gets
// one flow, which nobody replaces; a dial that nobody answers does not keep the peer out.
func TestSeveralAddressesMakeOneFlow(t *testing.T) {
	n := home(t, 2)
	low, high := n[0], n[1]
	if bytes.Compare(low.id[:], high.id[:]) > 0 {
		low, high = high, low
	}
	nowhere := netip.AddrPortFrom(netip.MustParseAddr("127.99.0.1"), 9)
	hole, err := net.Listen("tcp", "127.0.0.1:0") // takes connections and says nothing
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = hole.Close() })
	proxy := newProxy(t, high.addr)
	low.HintPrefix([8]byte(high.id[:8]), []netip.AddrPort{nowhere, high.addr, proxy.addr})
	eventually(t, 5*time.Second, "they meet", func() bool { return low.reaches(high) && high.reaches(low) })
	f, g := low.flow(high.id, trust.ALPNOverlay), high.flow(low.id, trust.ALPNOverlay)
	eventually(t, 5*time.Second, "SIP follows", func() bool { return low.HasSIP(high.id) && high.HasSIP(low.id) })
	if low.flow(high.id, trust.ALPNOverlay) != f || high.flow(low.id, trust.ALPNOverlay) != g {
		t.Error("the first flow was replaced by another dial of the same peer")
	}
	// From a mute host's address the lower cannot be dialling the higher: who comes is let in.
	low.drop(f, errSilent)
	low.mu.Lock()
	low.peers[high.id].best, low.peers[high.id].own = netip.AddrPort{}, nil
	low.peers[high.id].hints = []netip.AddrPort{unmap(hole.Addr().(*net.TCPAddr).AddrPort())}
	low.mu.Unlock()
	high.knows(low)
	eventually(t, 8*time.Second, "the higher comes in", func() bool { return low.reaches(high) && high.reaches(low) })
}
