package overlay

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/hallway-home/hallway/devices"
	"github.com/hallway-home/hallway/devices/records"
	"github.com/hallway-home/hallway/devices/trust"
)

// nodesOf is the size of a home in the tests of budgets; `make soak` sets HALLWAY_NODES.
func nodesOf(usual int) int {
	if n, err := strconv.Atoi(os.Getenv("HALLWAY_NODES")); err == nil {
		return n
	}
	return usual
}

// counting is a network that counts the bytes that one node sends, TLS included.
type counting struct {
	tcpNetwork
	sent atomic.Int64
}

type countingConn struct {
	net.Conn
	n *atomic.Int64
}

// Write counts.
func (c countingConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.n.Add(int64(n))
	return n, err
}

type countingListener struct {
	net.Listener
	n *atomic.Int64
}

// Accept gives a counting connection.
func (l countingListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return countingConn{c, l.n}, nil
}

// Listen takes a TCP port.
func (c *counting) Listen(addr string) (net.Listener, error) {
	ln, err := c.tcpNetwork.Listen(addr)
	return countingListener{ln, &c.sent}, err
}

// Dial connects by TCP.
func (c *counting) Dial(ctx context.Context, addr netip.AddrPort) (net.Conn, error) {
	conn, err := c.tcpNetwork.Dial(ctx, addr)
	if err != nil {
		return nil, err
	}
	return countingConn{conn, &c.sent}, nil
}

// large makes a home of n nodes that all know each other and have said what they are.
func large(t *testing.T, n int, opts ...func(*node)) []*node {
	t.Helper()
	nodes := home(t, n, opts...)
	for i, x := range nodes {
		rec := devices.DeviceRecord{Version: "0.2.0", Addrs: []netip.AddrPort{x.addr, x.addr}}
		if err := x.Publish(records.KindDevice, rec); err != nil {
			t.Fatal(err)
		}
		for _, y := range nodes[:i] {
			x.knows(y)
		}
	}
	eventually(t, 30*time.Second+time.Duration(n)*2*time.Second, "all reach each other and agree", func() bool {
		for _, x := range nodes {
			if len(x.overlayFlows()) != n-1 {
				return false
			}
		}
		return allAgree(nodes)
	})
	return nodes
}

func allAgree(nodes []*node) bool {
	want := nodes[0].table.Sums()
	for _, x := range nodes[1:] {
		if !slices.Equal(x.table.Sums(), want) {
			return false
		}
	}
	return true
}

// 64 nodes idle under 8 kB/s each. What a node sends grows with its flows (pings) and,
// in one digest every 5 s, with the writers: a smaller home is scaled up.
func TestBudgetIdleBytes(t *testing.T) {
	n := nodesOf(12)
	counts := map[*node]*counting{}
	nodes := large(t, n, func(x *node) {
		counts[x] = &counting{}
		x.cfg.Network = counts[x]
	})
	eventually(t, time.Minute, "both flows of each pair are up", func() bool {
		for _, x := range nodes {
			if len(x.allFlows()) != 2*(n-1) {
				return false
			}
		}
		return true
	})
	settled := time.Now().Add(pingEvery)
	eventually(t, time.Minute, "the exchanges of the start are over", func() bool { return time.Now().After(settled) })
	before := map[*node]int64{}
	for x, c := range counts {
		before[x] = c.sent.Load()
	}
	cpu := cpuTime(t)
	const watch = digestEvery + pingEvery
	start := time.Now()
	<-time.After(watch) // what is measured is that nothing happens
	share := (cpuTime(t) - cpu).Seconds() / time.Since(start).Seconds() / float64(n)
	most := 0.0
	for x, c := range counts {
		most = max(most, float64(c.sent.Load()-before[x])/time.Since(start).Seconds())
	}
	scaled := most * 63 / float64(n-1)
	t.Logf("%d nodes: at most %.0f B/s sent by one; at 64 nodes %.0f B/s; %.2f %% of a core each", n, most, scaled, 100*share)
	if scaled > 4000 { // as much comes in
		t.Errorf("a node of a home of 64 sends %.0f B/s, and receives as much; the budget is 8 kB/s for both", scaled)
	}
}

func cpuTime(t *testing.T) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// 200 records changed at once converge under 5 s, in one of three attempts: each is
// written durably, and a busy disk is not what is measured.
func TestBudgetManyRecordsConverge(t *testing.T) {
	n := nodesOf(16)
	nodes := large(t, n)
	for attempt := range 3 {
		start := time.Now()
		var wg sync.WaitGroup
		for i, x := range nodes {
			wg.Add(1)
			go func() {
				defer wg.Done()
				for k := range 200/n + min(1, 200%n) {
					if err := x.Publish(fmt.Sprint("kind ", k), fmt.Sprintf("%d %d %300d", attempt, i, k)); err != nil {
						t.Error(err)
					}
				}
			}()
		}
		wg.Wait()
		took := eventually(t, 20*time.Second, "all have all", func() bool { return allAgree(nodes) })
		all := time.Since(start)
		t.Logf("attempt %d: %d nodes agree on 200 records %v after the first, %v after the last", attempt+1, n, all, took)
		if all <= 5*time.Second*slowdown {
			return
		}
	}
	t.Error("200 records never converged in 5 s")
}

// Each request of SIP asks who stands behind an address.
func BenchmarkPeerByAddr(b *testing.B) {
	x := home(b, 2)[0]
	addr := x.Addr(x.id).String()
	b.ReportAllocs()
	for b.Loop() {
		if _, ok := x.PeerByAddr(addr); !ok {
			b.Fatal("nobody")
		}
	}
}

func TestPeerByAddrFollowsTheRoster(t *testing.T) {
	n := home(t, 2)
	addr := n[0].Addr(n[1].id).String()
	if id, ok := n[0].PeerByAddr(addr); !ok || id != n[1].id {
		t.Fatal(id, ok)
	}
	if err := n[0].log.Remove(n[0].key, n[0].log.Roster().Members[n[1].id].Slug); err != nil {
		t.Fatal(err)
	}
	if _, ok := n[0].PeerByAddr(addr); ok {
		t.Fatal("a removed member still stands behind its address")
	}
	if n[0].flow(n[1].id, trust.ALPNSIP) != nil {
		t.Fatal("it has a flow")
	}
}
