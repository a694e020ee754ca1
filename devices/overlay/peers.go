package overlay

import (
	"bytes"
	"context"
	"net/netip"
	"slices"
	"time"

	"github.com/hallway-home/hallway/devices"
	"github.com/hallway-home/hallway/devices/records"
	"github.com/hallway-home/hallway/devices/trust"
)

const (
	// maxAddrs bounds the addresses remembered for a peer: two families on a few
	// interfaces.
	maxAddrs = 8
	// maxHints bounds addresses of nodes whose ID is not known; anybody on the LAN can
	// send them.
	maxHints = 256
	// bucketPeers keeps where peers were last reached, so that a home finds itself again
	// after a power cut while multicast or DHCP is away.
	bucketPeers = "peers"
	// heardWake bounds the dials that packets from a peer's address, which anybody can
	// forge, may cause.
	heardWake = time.Second
)

// peer is a member that this node wants a flow with. Mesh.mu guards what may change.
type peer struct {
	id     devices.NodeID
	best   netip.AddrPort   // last reached; zero if never
	unsave bool             // best is not on disk yet
	own    []netip.AddrPort // from its own record
	hints  []netip.AddrPort // unproven, newest first: whoever floods these moves no other
	woken  time.Time        // by a packet
	poke   wake             // something happened: look again
	cancel context.CancelFunc
	dialed time.Time          // begin of the dial under way
	abort  context.CancelFunc // ends it
	limits *limits
}

// remember takes an address that proved good, and reports whether it is a new one. Only
// dialled ones are worth it: an accepted connection comes from an ephemeral port.
func (p *peer) remember(a netip.AddrPort, dialed bool) bool {
	if !dialed || !a.IsValid() || p.best == a {
		return false
	}
	p.best, p.unsave = a, true
	return true
}

// addrs lists where the peer may be.
func (p *peer) addrs() []netip.AddrPort {
	var out []netip.AddrPort
	for _, a := range slices.Concat([]netip.AddrPort{p.best}, p.own, p.hints) {
		if a.IsValid() && !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	return out
}

func (p *peer) wake() { p.poke.look() }

// keepPeers starts a keeper for every other member and ends those of removed ones.
func (m *Mesh) keepPeers(r *devices.Roster) {
	var start []*peer
	m.mu.Lock()
	for id, p := range m.peers {
		if !r.Has(id) {
			p.cancel()
			delete(m.peers, id)
		}
	}
	if r != nil && m.ctx != nil {
		for id := range r.Members {
			if _, ok := m.peers[id]; ok || id == m.self {
				continue
			}
			ctx, cancel := context.WithCancel(m.ctx)
			p := &peer{id: id, poke: newWake(), cancel: cancel, limits: newLimits(), hints: slices.Clone(m.prefixes[[8]byte(id[:8])])}
			m.peers[id] = p
			start = append(start, p)
			context.AfterFunc(ctx, p.wake)
			m.wg.Add(1)
			go func() {
				defer m.wg.Done()
				m.keep(ctx, p)
			}()
		}
	}
	m.mu.Unlock()
	if len(start) == 0 {
		return
	}
	m.recallPeers(start)
	for _, r := range m.table.Records() {
		if slices.ContainsFunc(start, func(p *peer) bool { return p.id == r.Writer }) {
			m.learn(r)
		}
	}
}

// recallPeers gives new keepers the addresses that were good before the last restart.
func (m *Mesh) recallPeers(start []*peer) {
	err := m.cfg.Store.View(func(tx devices.Tx) error {
		for _, p := range start {
			var addrs []netip.AddrPort
			val := tx.Get(bucketPeers, p.id.String())
			if val == nil || records.Unmarshal(val, &addrs) != nil {
				continue
			}
			m.mu.Lock()
			if len(addrs) > 0 && !p.best.IsValid() {
				p.best = addrs[0]
				p.wake()
			}
			m.mu.Unlock()
		}
		return nil
	})
	if err != nil {
		m.log.Error("cannot read where peers were last reached", "err", err)
	}
}

// savePeers brings addresses that proved good to disk and drops those of removed members.
func (m *Mesh) savePeers() error {
	put, keep := map[string][]byte{}, map[string]bool{}
	var saved []*peer
	m.mu.Lock()
	for id, p := range m.peers {
		keep[id.String()] = true
		if !p.unsave {
			continue
		}
		val, err := records.Marshal([]netip.AddrPort{p.best})
		if err != nil {
			m.mu.Unlock()
			return err
		}
		put[id.String()] = val
		p.unsave = false
		saved = append(saved, p)
	}
	m.mu.Unlock()
	if len(put) == 0 {
		return nil
	}
	err := m.cfg.Store.Update("peer.put", func(tx devices.Tx) error {
		var gone []string
		if err := tx.Each(bucketPeers, func(id string, val []byte) error {
			if !keep[id] {
				gone = append(gone, id)
			} else if bytes.Equal(put[id], val) {
				delete(put, id)
			}
			return nil
		}); err != nil {
			return err
		}
		for _, id := range gone {
			if err := tx.Delete(bucketPeers, id); err != nil {
				return err
			}
		}
		for id, val := range put {
			if err := tx.Put(bucketPeers, id, val); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		m.mu.Lock()
		for _, p := range saved {
			p.unsave = true
		}
		m.mu.Unlock()
	}
	return err
}

// HintPrefix says that a member whose Node-ID starts with prefix may be at addrs. A
// hint proves nothing: TLS does.
func (m *Mesh) HintPrefix(prefix [8]byte, addrs []netip.AddrPort) {
	addrs = addrs[:min(len(addrs), maxAddrs)]
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.prefixes[prefix]; !ok && len(m.prefixes) >= maxHints {
		return
	}
	m.prefixes[prefix] = addrs
	for id, p := range m.peers {
		if [8]byte(id[:8]) == prefix {
			m.addHints(p, addrs)
		}
	}
}

// HeardFrom says that a packet came from an address. An absent member known there is
// dialled at once, at most once a second.
func (m *Mesh) HeardFrom(from netip.Addr) {
	from = from.Unmap().WithZone("")
	m.mu.Lock()
	defer m.mu.Unlock()
	for id, p := range m.peers {
		if m.flows[flowKey{id, trust.ALPNOverlay}] != nil || time.Since(p.woken) < heardWake {
			continue
		}
		if slices.ContainsFunc(p.addrs(), func(a netip.AddrPort) bool { return a.Addr().WithZone("") == from }) {
			p.woken = time.Now()
			p.wake()
		}
	}
}

// addHints must be called with mu held.
func (m *Mesh) addHints(p *peer, addrs []netip.AddrPort) {
	before := p.addrs()
	for _, a := range addrs {
		if !slices.Contains(p.hints, a) {
			p.hints = append([]netip.AddrPort{a}, p.hints...)
		}
	}
	p.hints = p.hints[:min(len(p.hints), maxAddrs)]
	m.wakeAbsent(p, before)
}

// wakeAbsent has a peer dialled that has no flow. A dial of the addresses known before is
// ended if there is a new one: the old ones may lead nowhere, which takes seconds to see.
func (m *Mesh) wakeAbsent(p *peer, before []netip.AddrPort) {
	key := flowKey{p.id, trust.ALPNOverlay}
	if m.flows[key] != nil {
		return
	}
	fresh := slices.ContainsFunc(p.addrs(), func(a netip.AddrPort) bool { return !slices.Contains(before, a) })
	// A dial gets this long even if somebody makes up addresses without end.
	if fresh && p.abort != nil && m.shaking[key].IsZero() && time.Since(p.dialed) > abortAfter {
		p.abort()
	}
	p.wake()
}

// learn takes the addresses of a member's own record.
func (m *Mesh) learn(r records.Record) {
	if r.Kind != records.KindDevice || r.Writer == m.self || r.Gone() {
		return
	}
	d, err := records.DecodeDevice(r)
	if err != nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if p := m.peers[r.Writer]; p != nil {
		before := p.addrs()
		p.own = d.Addrs[:min(len(d.Addrs), maxAddrs)]
		m.wakeAbsent(p, before)
	}
}
