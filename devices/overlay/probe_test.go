package overlay

import (
	"errors"
	"net"
	"net/netip"
	"syscall"
	"testing"

	"github.com/hallway-home/hallway/devices"
)

// tries probes b from a at one address, and says how the dial ended.
func tries(t *testing.T, a *node, b devices.NodeID, addr netip.AddrPort) error {
	t.Helper()
	a.mu.Lock()
	a.peers[b].best, a.peers[b].own, a.peers[b].hints = netip.AddrPort{}, nil, []netip.AddrPort{addr}
	a.mu.Unlock()
	p := a.Probe(t.Context(), b)
	if len(p.Tried) != 1 || p.Tried[0].Addr != addr {
		t.Fatalf("%+v", p)
	}
	return p.Tried[0].Err
}

// Each way in which a member can be out of reach is told apart.
func TestProbeTellsWhyNotReached(t *testing.T) {
	nodes := home(t, 3)
	a, b, c := nodes[0], nodes[1], nodes[2]
	stranger := home(t, 1)[0]
	other, err := net.Listen("tcp", "127.0.0.1:0") // speaks no TLS
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		for {
			conn, err := other.Accept()
			if err != nil {
				return
			}
			_, _ = conn.Write([]byte("HTTP/1.0 400 Bad Request\r\n\r\n"))
			_ = conn.Close()
		}
	}()
	defer func() { _ = other.Close(); <-served }()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := free.Addr().(*net.TCPAddr).AddrPort()
	_ = free.Close()

	if err := tries(t, a, b.id, closed); !errors.Is(err, ErrNoConnection) || !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a closed port: %v", err)
	}
	if err := tries(t, a, b.id, other.Addr().(*net.TCPAddr).AddrPort()); err == nil || errors.Is(err, ErrNoConnection) || errors.Is(err, ErrRefused) {
		t.Errorf("another program: %v", err)
	}
	if err := tries(t, a, b.id, stranger.addr); err == nil || errors.Is(err, ErrNoConnection) {
		t.Errorf("a node of another home: %v", err)
	}
	if err := tries(t, a, b.id, c.addr); !errors.Is(err, ErrOtherNode) {
		t.Errorf("another member: %v", err)
	}
	a.mu.Lock()
	a.peers[b.id].hints = []netip.AddrPort{a.addr}
	a.mu.Unlock()
	if p := a.Probe(t.Context(), b.id); len(p.Tried) != 0 || p.Flow.IsValid() {
		t.Errorf("its own port is taken for the member's: %+v", p)
	}
	if a.flow(b.id, "hallway-overlay/1") != nil || a.flow(stranger.id, "hallway-overlay/1") != nil {
		t.Error("a failed probe left a flow")
	}
	if err := tries(t, a, b.id, b.addr); err != nil {
		t.Errorf("the member itself: %v", err)
	}
	if p := a.Probe(t.Context(), b.id); !p.Flow.IsValid() || len(p.Tried) != 0 {
		t.Errorf("a second probe dials again: %+v", p)
	}
}

// A node that has left this one out of its roster refuses, and that is no other fault.
func TestProbeOfOneWhoRemovedUs(t *testing.T) {
	nodes := home(t, 2)
	owner, b := nodes[0], nodes[1]
	if err := owner.log.Remove(owner.key, "node-1"); err != nil {
		t.Fatal(err)
	}
	if err := tries(t, b, owner.id, owner.addr); !errors.Is(err, ErrRefused) {
		t.Errorf("%v", err)
	}
}
