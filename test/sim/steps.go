package sim

import (
	"errors"
	"fmt"
	"os"
	"testing/synctest"
	"time"

	"github.com/hallway-home/hallway/devices"
	"github.com/hallway-home/hallway/devices/trust"
)

// Result says how a program went.
type Result struct {
	Took  time.Duration // virtual, from calm to agreement
	Total time.Duration // virtual, of all
	Log   string        // what the nodes logged last
}

// Run executes a program with its stores in a fresh folder below root. It must be called
// in a bubble (synctest.Test). The error says which rule was broken after which step.
func Run(p Program, root string) (res Result, err error) {
	dir, err := os.MkdirTemp(root, "home")
	if err != nil {
		return res, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	began := time.Now()
	w := newWorld(p, dir)
	defer func() { // also after a failure: the bubble ends only when all goroutines have
		w.attacks.Wait()
		for _, n := range w.nodes {
			err = errors.Join(err, w.down(n, false))
		}
		res.Total, res.Log = time.Since(began), w.log.String()
	}()
	if err := w.create(); err != nil {
		return res, fmt.Errorf("making the home: %w", err)
	}
	for i, s := range p.Steps {
		w.log.note("step %d: %s %d %d", i, s.Op, s.A, s.B)
		if err := w.step(s); err != nil {
			return res, fmt.Errorf("after step %d (%s %d %d): %w", i, s.Op, s.A, s.B, err)
		}
	}
	res.Took, err = w.calm()
	return res, err
}

// create makes the home and lets the first nodes join.
func (w *World) create() error {
	first := w.nodes[0]
	if err := w.open(first); err != nil {
		return err
	}
	if _, err := first.log.Create(first.key, trust.CreateParams{HomeName: "Home", Name: w.fresh()}); err != nil {
		return err
	}
	first.joined = true
	if err := w.up(first); err != nil {
		return err
	}
	for i := 1; i < w.prog.Start; i++ {
		role := devices.RoleDevice
		if i < w.prog.Owners {
			role = devices.RoleOwner
		}
		if err := w.admit(first, w.nodes[i], role); err != nil {
			return err
		}
	}
	if err := w.admit(first, w.nodes[w.prog.hostile()], devices.RoleDevice); err != nil {
		return err
	}
	return w.settle(2 * time.Second) // they meet
}

// step does one step, lets its time pass and looks at everybody.
func (w *World) step(s Step) error {
	if err := w.apply(s); err != nil {
		return err
	}
	return w.settle(s.Wait)
}

func (w *World) settle(wait time.Duration) error {
	time.Sleep(wait)
	synctest.Wait()
	for _, n := range w.nodes {
		if n.mesh != nil && n.crash.happened() {
			w.log.note("node %d was killed in a write", n.i)
			if err := w.down(n, false); err != nil {
				return err
			}
		}
	}
	w.multicast()
	return w.check()
}

// apply does what a step says, if it fits.
func (w *World) apply(s Step) error {
	a, b := w.nodes[s.A%len(w.nodes)], w.nodes[max(s.B, 0)%len(w.nodes)]
	switch s.Op {
	case OpHeal:
		w.part(0)
	case OpCut:
		w.part(s.B)
	case OpWeather:
		w.net.SetWeather(Weather{Delay: time.Duration(s.A) * time.Millisecond, Loss: float64(s.B) / 100})
	case OpClock:
		a.clock.Store(int64(s.B) * int64(time.Hour))
	case OpStart, OpOld:
		return w.start(a, s.Op == OpOld)
	case OpForge:
		w.forge(a, s.B)
	case OpKnock:
		w.knock(a)
	}
	if !a.runs() {
		return nil
	}
	switch s.Op {
	case OpPublish:
		w.publish(a, s.B)
	case OpAppend:
		w.append(a)
	case OpAdmit:
		return w.admit(a, b, devices.RoleDevice)
	case OpRemove:
		if b.i != 0 {
			w.edit(a, b, trust.OpRemove, "")
		}
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
	case OpKill, OpPower:
		return w.down(a, s.Op == OpPower)
	case OpKillAt:
		a.crash.arm(s.B)
	case OpCopy:
		synctest.Wait() // nobody writes now
		raw, err := os.ReadFile(a.file())
		a.copy = raw
		return err
	}
	return nil
}

// part puts the nodes of the set on one side and the others on another; 0 heals.
func (w *World) part(set int) {
	side := map[*Host]uint32{}
	for _, n := range w.nodes {
		side[n.host] = uint32(set>>n.i) & 1
	}
	w.net.Cut(side)
}

// admit lets b join by a: the edit, then the log in b's store, then b starts. What lies
// between in a real joining is package pairing's and has its own crash tests.
func (w *World) admit(a, b *node, role devices.Role) error {
	if b.i == 0 || a == b || !a.runs() {
		return nil
	}
	name := w.fresh()
	w.model.intends(a.id, trust.OpAdmit, b.id, name)
	c := trust.Candidate{Key: devices.CompressedKey(&b.key.PublicKey), Role: role, Name: name}
	certain, err := a.do(func() error { _, err := a.log.Admit(a.key, c); return err })
	if !certain || err != nil || b.joined {
		return nil // killed, or refused: what that means is seen in the logs
	}
	if err := w.open(b); err != nil {
		return err
	}
	if err := b.log.Adopt(a.log.Edits(), a.log.Roster().Home, b.id); err != nil {
		return err
	}
	b.joined = true
	if b.i == w.prog.hostile() { // it has no mesh, and says what it likes
		return b.store.Close()
	}
	return w.up(b)
}

// edit lets a change what the home says about b.
func (w *World) edit(a, b *node, op trust.Op, name string) {
	m, ok := a.log.Roster().Members[b.id]
	if !ok {
		return
	}
	w.model.intends(a.id, op, b.id, name)
	_, _ = a.do(func() error {
		if op == trust.OpRemove {
			return a.log.Remove(a.key, m.Slug)
		}
		return a.log.Rename(a.key, m.Slug, name, "")
	})
}

func (w *World) room(a *node) {
	name := w.fresh()
	w.model.intends(a.id, trust.OpName, devices.NodeID{}, name)
	_, _ = a.do(func() error { return a.log.SetRoom(a.key, name) })
}

// calm ends all faults, starts everybody, and waits until all agree.
func (w *World) calm() (time.Duration, error) {
	w.log.note("calm")
	w.net.SetWeather(Weather{Delay: time.Millisecond})
	w.part(0)
	w.attacks.Wait()
	synctest.Wait()
	for _, n := range w.nodes {
		if n.mesh != nil && n.crash.happened() {
			if err := w.down(n, false); err != nil {
				return 0, err
			}
		}
		if n.mesh != nil {
			n.crash.arm(0)
		}
	}
	for _, n := range w.nodes {
		if n.i != w.prog.hostile() {
			if err := w.start(n, false); err != nil {
				return 0, err
			}
		}
	}
	began := time.Now()
	for {
		if err := w.settle(time.Second); err != nil {
			return 0, err
		}
		why := w.agreed()
		took := time.Since(began)
		if why == nil {
			return took, errors.Join(w.final(), w.homeTime())
		}
		if took > calmTime {
			return took, fmt.Errorf("not agreed %v after calm: %w", took, why)
		}
	}
}
