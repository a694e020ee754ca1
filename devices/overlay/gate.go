package overlay

import (
	"time"

	"github.com/hallway-home/hallway/devices/trust"
)

// gate holds back who would be served before rosters were compared: at the start, and
// again when the node was alone. Mesh.mu guards it.
type gate struct {
	ch    chan struct{} // closed while the gate is open
	open  bool
	alone bool // the last peer was lost, and none came back yet
	poke  wake // something changed that may open it
}

func newGate() gate { return gate{ch: make(chan struct{}), poke: newWake()} }

func (g *gate) look() { g.poke.look() }

// back shuts the gate when the first flow comes to a node that was alone: rosters may
// have changed meanwhile. Mesh.mu is held.
func (g *gate) back() {
	if g.alone {
		g.shut()
	}
	g.alone = false
	g.look()
}

// shut lets nobody pass until keepGate opens it again. Mesh.mu is held.
func (g *gate) shut() {
	if g.open {
		g.ch, g.open = make(chan struct{}), false
	}
	g.look()
}

// keepGate opens the gate when every member has been compared with, or syncWait after
// the start, or after the first peer came back to a node that was alone.
func (m *Mesh) keepGate() {
	timer := time.NewTimer(syncWait)
	defer timer.Stop()
	waiting := true
	for {
		over := false
		select {
		case <-m.ctx.Done():
			return
		case <-timer.C:
			over, waiting = true, false
		case <-m.gate.poke:
		}
		all := m.comparedWithAll()
		m.mu.Lock()
		switch {
		case m.gate.open:
		case all || over:
			m.gate.open = true
			close(m.gate.ch)
		case !waiting:
			timer.Reset(syncWait)
			waiting = true
		}
		if m.gate.open && waiting {
			timer.Stop()
			waiting = false
		}
		m.mu.Unlock()
	}
}

// reachable counts overlay flows; mu is held.
func (m *Mesh) reachable() int {
	n := 0
	for k := range m.flows {
		if k.alpn == trust.ALPNOverlay {
			n++
		}
	}
	return n
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
// (at most 2 s after its start, or after the first peer came back to a node that was
// alone): before that it serves nobody. Ask anew each time.
func (m *Mesh) Synced() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.gate.ch
}
