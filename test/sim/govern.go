package sim

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/hallway-home/hallway/devices"
	"github.com/hallway-home/hallway/devices/trust"
)

// govern does a step that changes the home by node a.
func (w *World) govern(op Op, a, b *node) error {
	switch op {
	case OpAdmit:
		return w.admit(a, b, devices.RoleDevice)
	case OpRemove:
		if b != a {
			w.edit(a, b, trust.OpRemove, "")
		}
	case OpPromote:
		if b.i != w.prog.hostile() { // what it says is all forged
			w.edit(a, b, trust.OpChange, "")
		}
	case OpOust:
		w.oust(a, b)
	case OpLie:
		w.lie(a, b)
	case OpRecover:
		w.recover(a, b)
	case OpCheckpoint, OpApart:
		return w.checkpoint(a, op == OpCheckpoint)
	case OpRename:
		w.edit(a, b, trust.OpName, w.fresh())
	case OpRoom:
		w.room(a)
	case OpBoth:
		w.edit(a, b, trust.OpName, w.fresh())
		w.room(a)
		if w.nodes[0].runs() {
			w.edit(w.nodes[0], b, trust.OpName, w.fresh())
			w.room(w.nodes[0])
		}
	}
	return nil
}

// admit lets b join by a: the edit, then the log in b's store, then b starts. What lies
// between in a real joining is package pairing's and has its own crash tests.
func (w *World) admit(a, b *node, role devices.Role) error {
	if b.i == 0 || a == b || !a.runs() || w.blind && !w.net.Hears(a.host, b.host) { // else nobody would tell where it is
		return nil
	}
	name := w.fresh()
	w.model.intends(a.id, trust.OpAdmit, b.id, name)
	c := trust.Candidate{Key: devices.CompressedKey(&b.key.PublicKey), Role: role, Name: name}
	certain, _ := a.do(func() error { _, err := a.log.Admit(a.key, c); return err })
	if !certain || b.joined || !a.log.Roster().Has(b.id) {
		return nil // killed, or refused: what that means is seen in the logs
	}
	if err := w.open(b); err != nil {
		return err
	}
	if err := b.log.Adopt(a.log.Edits(), a.log.Roster().Home, b.id, a.log.Waiting()...); err != nil {
		return err
	}
	b.joined = true
	if b.i == w.prog.hostile() { // it has no mesh, and says what it likes
		return b.store.Close()
	}
	if err := w.up(b); err != nil {
		return err
	}
	b.mesh.HintPrefix([8]byte(a.id[:8]), []netip.AddrPort{a.addr}) // it joined over a connection to there
	return nil
}

// edit lets a change what the home says about b.
func (w *World) edit(a, b *node, op trust.Op, name string) {
	m, ok := a.log.Roster().Members[b.id]
	if !ok {
		return
	}
	w.model.intends(a.id, op, b.id, name)
	_, _ = a.do(func() error {
		switch op {
		case trust.OpRemove:
			return a.log.Remove(a.key, m.Slug)
		case trust.OpChange:
			return a.log.Change(a.key, m.Slug, devices.RoleOwner, "")
		}
		return a.log.Rename(a.key, m.Slug, name, "")
	})
}

func (w *World) room(a *node) {
	name := w.fresh()
	w.model.intends(a.id, trust.OpName, devices.NodeID{}, name)
	_, _ = a.do(func() error { return a.log.SetRoom(a.key, name) })
}

// oust lets a do what it can to have b removed: alone, as the second, or by proposing it.
func (w *World) oust(a, b *node) {
	m, ok := a.log.Roster().Members[b.id]
	if !ok || a == b {
		return
	}
	for _, op := range []trust.Op{trust.OpRemove, trust.OpPropose, trust.OpAgree} {
		w.model.intends(a.id, op, b.id, "")
	}
	_, _ = a.do(func() error { _, err := a.log.RemoveOrPropose(a.key, m.Slug); return err })
}

// lie lets an owner claim that it proposed b's removal more than a day ago.
func (w *World) lie(a, b *node) {
	r := a.log.Roster()
	if !r.Has(b.id) || a == b {
		return
	}
	w.model.intends(a.id, trust.OpPropose, b.id, "")
	w.model.intends(a.id, trust.OpAgree, b.id, "")
	e := trust.Edit{Version: 1, Home: r.Home, Parents: r.Heads[:1], Op: trust.OpPropose, Signer: a.id, Node: b.id, At: 1}
	raw, sig := sign(a.key, e)
	first := trust.SignedEdit{Raw: raw, Sig: sig}
	h := first.Hash()
	e.Op, e.Parents, e.Proposal, e.HomeKey, e.At = trust.OpAgree, []trust.Hash{h}, h[:], make([]byte, 32), 1+int64(2*ownHomeDay/time.Second)
	raw, sig = sign(a.key, e)
	_, _ = a.do(func() error { _, err := a.log.Merge([]trust.SignedEdit{first, {Raw: raw, Sig: sig}}); return err })
}

// recover makes a an owner by the recovery code, and removes b if it is another one.
func (w *World) recover(a, b *node) {
	w.model.intends(w.root, trust.OpChange, a.id, "")
	var remove []string
	if m, ok := a.log.Roster().Members[b.id]; ok && a != b {
		remove = []string{m.Slug}
		w.model.intends(w.root, trust.OpRemove, b.id, "")
	}
	_, _ = a.do(func() error { return a.log.Recover(w.code, a.id, remove...) })
}

// foreknown is how long before a checkpoint an edit must have been known to an owner to be
// in it: a flow that died silently is seen in 3 s, and half of another watches for it.
const foreknown = 5 * time.Second

// checkpoint makes one on a: if it asks first, as package agent does, only when all owners
// have told that they know the same, and then nothing that an owner knew may be lost.
func (w *World) checkpoint(a *node, asks bool) error {
	r := a.log.Roster()
	for id, m := range r.Members {
		if asks && m.Role == devices.RoleOwner && id != a.id && !a.mesh.Agrees(id) {
			return nil
		}
	}
	if len(w.circle(a)) == 1 {
		return nil // nobody would hear of it
	}
	w.apart = w.apart || !asks
	w.model.intends(w.root, trust.OpCheckpoint, devices.NodeID{}, "")
	made := false
	_, _ = a.do(func() error { err := a.log.Checkpoint(w.code); made = err == nil; return err })
	if !asks || !made {
		return nil
	}
	for _, n := range w.nodes {
		if r.Members[n.id].Role != devices.RoleOwner {
			continue
		}
		for h, at := range n.held {
			if _, ok := a.held[h]; !ok && w.model.edits[h].Op != trust.OpMerge && time.Since(at) > foreknown {
				return fmt.Errorf("node %d made a checkpoint without an edit that node %d, an owner, knew for %v", a.i, n.i, time.Since(at))
			}
		}
	}
	return nil
}

// afterMove is how soon a new address is known to all.
const afterMove = 5 * time.Second

// day lets a day pass by all clocks.
func (w *World) day() { w.days.Add(int64(25 * time.Hour)) }

// move gives a, and b at the same moment if it is another, a new address, or each the
// other's. Where nothing is announced only those who stay can tell the moved ones of each
// other: then it happens only in calm and while all are connected, and 5 s later they are again.
func (w *World) move(a, b *node, swap bool) error {
	if w.blind {
		for _, n := range w.nodes {
			if n.mesh != nil {
				n.crash.arm(0)
			}
		}
		w.part(0)
		w.net.SetWeather(Weather{Delay: time.Millisecond})
		if err := w.settle(afterMove); err != nil { // a flow that young is not replaced
			return err
		}
		if !w.complete() || len(w.circle(w.nodes[0])) < 3 {
			return nil
		}
	}
	fresh := func() netip.AddrPort {
		w.moves++
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(1 + w.moves/200), byte(1 + w.moves%200)}), 5061)
	}
	to := map[*node]netip.AddrPort{a: fresh()}
	if a != b {
		to[b] = fresh()
	}
	if swap {
		to[a], to[b] = b.addr, a.addr
	}
	for _, n := range []*node{a, b} {
		if addr := to[n]; addr != n.addr {
			n.addr = addr
			n.host.Move(addr.Addr())
		}
	}
	for n, addr := range to {
		if n.runs() {
			n.mesh.Moved([]netip.Addr{addr.Addr()})
			n.browse, n.pause = time.Now(), time.Second
			w.publish(n, 0)
		}
	}
	if !w.blind {
		return nil
	}
	if err := w.settle(afterMove); err != nil {
		return err
	}
	if !w.complete() {
		return fmt.Errorf("not all are connected again %v after nodes %d and %d moved", afterMove, a.i, b.i)
	}
	return nil
}

// complete reports whether all who ever joined run and are connected.
func (w *World) complete() bool {
	for _, n := range w.nodes {
		if !n.joined || n.i == w.prog.hostile() {
			continue
		}
		for _, o := range w.nodes {
			if o.joined && o != n && o.i != w.prog.hostile() && (!n.runs() || !n.mesh.Live()[o.id].Reachable) {
				return false
			}
		}
	}
	return true
}
