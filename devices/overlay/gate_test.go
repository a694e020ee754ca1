package overlay

import (
	"net/netip"
	"testing"
	"time"

	"github.com/hallway-home/hallway/devices"
)

func isOpen(x *node) bool {
	select {
	case <-x.Synced():
		return true
	default:
		return false
	}
}

// A node that was alone compares rosters before it serves anybody again: here it missed
// a removal, and the removed device calls first.
func TestGateShutsForWhoWasAlone(t *testing.T) {
	t.Parallel()
	n := home(t, 3)
	meet(t, n...)
	eventually(t, 3*time.Second, "the gates open", func() bool { return isOpen(n[0]) && isOpen(n[1]) && isOpen(n[2]) })
	n[0].stop()
	n[2].stop()
	eventually(t, time.Second, "n1 is alone", func() bool { return !n[1].reaches(n[0]) && !n[1].reaches(n[2]) })
	if !isOpen(n[1]) {
		t.Fatal("a node that is alone makes its own callers wait")
	}
	n[2].open()
	n[2].start() // n0, which knows more, stays away
	shut := false
	start := time.Now()
	n[1].knows(n[2])
	eventually(t, 6*time.Second, "they meet", func() bool { shut = shut || !isOpen(n[1]); return n[1].reaches(n[2]) })
	eventually(t, 4*time.Second, "the gate opens again", func() bool { shut = shut || !isOpen(n[1]); return isOpen(n[1]) })
	if !shut {
		t.Fatal("the gate stayed open for a node that was alone")
	}
	t.Logf("open again after %v", time.Since(start))
}

// With everybody there the gate opens as soon as the last one was compared with, by the
// event and not by the clock.
func TestGateOpensAtOnceWhenAllAreThere(t *testing.T) {
	n := home(t, 2)
	n[0].knows(n[1])
	eventually(t, time.Second, "they meet", func() bool { return n[0].reaches(n[1]) })
	eventually(t, syncWait-500*time.Millisecond, "the gate opens", func() bool { return isOpen(n[0]) && isOpen(n[1]) })
}

// After a power cut, with neither multicast nor seeds nor anybody's record, a node finds
// its peers where it last reached them.
func TestStoredAddressesAfterARestart(t *testing.T) {
	t.Parallel()
	n := home(t, 3)
	meet(t, n...)
	for _, x := range n {
		x.stop()
	}
	for _, x := range n {
		x.open()
		x.cfg.Listen = x.addr.String()
		x.start()
	}
	took := eventually(t, 6*time.Second, "they find each other again", func() bool {
		for _, a := range n {
			for _, b := range n {
				if a != b && !a.reaches(b) {
					return false
				}
			}
		}
		return true
	})
	t.Logf("together again after %v", took)
}

// Where a peer was reached is on disk soon, not only after a clean stop.
func TestGoodAddressesAreStoredAtOnce(t *testing.T) {
	n := home(t, 2)
	meet(t, n...)
	eventually(t, 2*time.Second, "one of them, who dialled, has the other's address on disk", func() bool {
		found := false
		for _, x := range n {
			_ = x.cfg.Store.View(func(tx devices.Tx) error {
				return tx.Each(bucketPeers, func(string, []byte) error { found = true; return nil })
			})
		}
		return found
	})
}

// Whoever floods hints does not make a node forget where its peer was reached.
func TestHintsDoNotDisplaceGoodAddresses(t *testing.T) {
	p := &peer{own: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:5061")}, poke: newWake()}
	p.remember(netip.MustParseAddrPort("192.0.2.2:5061"), true)
	m := &Mesh{flows: map[flowKey]*flow{}}
	for i := range 100 {
		m.addHints(p, []netip.AddrPort{netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, 100, byte(i)}), 1)})
	}
	if got := p.addrs(); len(got) != 2+maxAddrs || got[0].Addr().String() != "192.0.2.2" || got[1].Addr().String() != "192.0.2.1" {
		t.Fatalf("%v", got)
	}
}

// A packet from an absent member's address makes it dialled at once, but not more often
// than once a second.
func TestHeardFromWakesOncePerSecond(t *testing.T) {
	p := &peer{best: netip.MustParseAddrPort("192.0.2.2:5061"), poke: newWake()}
	m := &Mesh{flows: map[flowKey]*flow{}, peers: map[devices.NodeID]*peer{{1}: p}}
	woken := func() bool {
		select {
		case <-p.poke:
			return true
		default:
			return false
		}
	}
	m.HeardFrom(netip.MustParseAddr("192.0.2.9"))
	if woken() {
		t.Fatal("woken by a stranger")
	}
	m.HeardFrom(netip.MustParseAddr("192.0.2.2"))
	if !woken() {
		t.Fatal("not woken")
	}
	m.HeardFrom(netip.MustParseAddr("::ffff:192.0.2.2"))
	if woken() {
		t.Fatal("woken twice at once")
	}
}

func TestFlowsOfAnAddressThatIsGoneEnd(t *testing.T) {
	n := home(t, 2)
	meet(t, n...)
	before := n[1].allFlows()
	n[1].Moved([]netip.Addr{netip.MustParseAddr("192.0.2.77")})
	if n[1].settled() > time.Second {
		t.Error("a node that moved still waits politely")
	}
	took := eventually(t, 5*time.Second, "flows of the old address end and new ones come (A13)", func() bool {
		for _, f := range before {
			if f.ctx.Err() == nil {
				return false
			}
		}
		return n[0].reaches(n[1]) && n[1].reaches(n[0])
	})
	t.Logf("%v after the address changed", took)
}
