package overlay

import (
	"errors"
	"net/netip"
	"slices"
	"time"
)

var errMoved = errors.New("this device has another address now")

// Moved tells the mesh which addresses this node has now. Flows from an address that is
// gone are dead, though nothing says so: they are ended at once, and this node dials
// everybody as if it had just started.
func (m *Mesh) Moved(own []netip.Addr) {
	m.mu.Lock()
	if m.ctx == nil {
		m.mu.Unlock()
		return
	}
	m.started = time.Now()
	close(m.moved)
	m.moved = make(chan struct{})
	for _, p := range m.peers {
		p.wake()
	}
	m.mu.Unlock()
	for _, f := range m.allFlows() {
		if f.local.IsValid() && !slices.Contains(own, f.local) {
			m.drop(f, errMoved)
		}
	}
}
