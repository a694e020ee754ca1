package overlay

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/hallway-home/hallway/devices/records"
)

// cable is a network that can be cut from some addresses.
type cable struct {
	tcpNetwork
	mu  sync.Mutex
	cut []netip.AddrPort
}

// Dial fails towards what is cut off.
func (c *cable) Dial(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	c.mu.Lock()
	cut := slices.Contains(c.cut, to)
	c.mu.Unlock()
	if cut {
		return nil, errors.New("no route")
	}
	return c.tcpNetwork.Dial(ctx, to)
}

func (c *cable) set(cut []netip.AddrPort) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cut = cut
}

// apart ends what leads from one half to the other, and reports whether there was
// nothing left, and no dial under way that began before the cut.
func apart(half, other []*node) bool {
	clean := true
	for _, x := range half {
		for _, f := range x.allFlows() {
			if slices.ContainsFunc(other, func(y *node) bool { return y.id == f.key.peer }) {
				x.drop(f, errors.New("cut"))
				clean = false
			}
		}
		x.mu.Lock()
		clean = clean && len(x.dialing) == 0
		x.mu.Unlock()
	}
	return clean
}

// A LAN cut in two: both halves go on, and joined again they agree after the next
// re-dial, which is at most 3 s away (A12, whose 5 s test/e2e asserts on a quiet machine).
func TestCutAndHealedHalvesAgree(t *testing.T) {
	t.Parallel()
	cables := map[*node]*cable{}
	n := home(t, 4, func(x *node) { cables[x] = &cable{}; x.cfg.Network = cables[x] })
	meet(t, n...)
	halves := [][]*node{n[:2], n[2:]}
	for i, half := range halves {
		for _, x := range half {
			var away []netip.AddrPort
			for _, y := range halves[1-i] {
				away = append(away, y.addr)
			}
			cables[x].set(away)
		}
	}
	eventually(t, 5*time.Second, "the halves lose each other", func() bool { return apart(n[:2], n[2:]) && apart(n[2:], n[:2]) })
	if err := n[0].log.SetRoom(n[0].key, "Attic"); err != nil {
		t.Fatal(err)
	}
	for i, x := range n {
		if err := errors.Join(x.Publish(records.KindDevice, i), x.Append("call", i)); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, 2*time.Second, "each half agrees", func() bool { return allAgree(n[:2]) && allAgree(n[2:]) && len(n[1].log.Roster().Rooms) == 1 })
	if allAgree(n) || len(n[2].log.Roster().Rooms) == 1 {
		t.Fatal("the cut lets something through")
	}
	for _, c := range cables {
		c.set(nil)
	}
	took := eventually(t, 9*time.Second, "joined again all agree", func() bool {
		for _, x := range n {
			if !slices.Equal(x.log.Heads(), n[0].log.Heads()) || len(x.overlayFlows()) != 3 {
				return false
			}
		}
		return allAgree(n)
	})
	t.Logf("%v after the cut was healed", took)
}
