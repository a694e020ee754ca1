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
	Apart bool          // it ended as two homes that put each other out
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
	res.Apart = w.parted()
	return res, err
}

// create makes the home and lets the first nodes join.
func (w *World) create() (err error) {
	first := w.nodes[0]
	if err := w.open(first); err != nil {
		return err
	}
	if w.code, err = first.log.Create(first.key, trust.CreateParams{HomeName: "Home", Name: w.fresh()}); err != nil {
		return err
	}
	w.root = devices.NodeID(first.log.Roster().Home)
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
		if n.runs() {
			if _, err := n.do(func() error { return n.log.Review() }); err != nil {
				return err
			}
		}
		if n.mesh != nil && n.crash.happened() {
			w.log.note("node %d was killed in a write", n.i)
			if err := w.down(n, false); err != nil {
				return err
			}
		}
	}
	if !w.blind {
		w.multicast()
	}
	synctest.Wait()
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
		w.jumped = true
	case OpDay:
		w.day()
	case OpBlind:
		w.blind = true
	case OpMove, OpSwap:
		return w.move(a, b, s.Op == OpSwap)
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
	case OpKill, OpPower:
		return w.down(a, s.Op == OpPower)
	case OpKillAt:
		a.crash.arm(s.B)
	case OpCopy:
		synctest.Wait() // nobody writes now
		raw, err := os.ReadFile(a.file())
		a.copy = raw
		return err
	default:
		return w.govern(s.Op, a, b)
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
	took, err := w.agree()
	if err != nil {
		return took, err
	}
	return took, errors.Join(w.homeTime(), w.afterDays())
}

// agree waits until all who take each other for members agree.
func (w *World) agree() (time.Duration, error) {
	began := time.Now()
	for {
		if err := w.settle(time.Second); err != nil {
			return 0, err
		}
		why := w.agreed()
		took := time.Since(began)
		if why == nil {
			return took, w.final()
		}
		if took > calmTime {
			return took, fmt.Errorf("not agreed %v after calm: %w", took, why)
		}
	}
}

// afterDays lets days pass if somebody waits for them, with all clocks right, and looks
// again: in the end all fold the same.
func (w *World) afterDays() error {
	if !w.model.someoneWaits() {
		return nil
	}
	for _, n := range w.nodes {
		n.clock.Store(0)
	}
	// One of them for who knew no time before, the others for who was put out by one whose own
	// removal takes force only now: it comes back, and hears of other proposals only then.
	for range 4 {
		if err := w.settle(clocksTold); err != nil {
			return err
		}
		w.day()
	}
	if err := w.settle(clocksTold); err != nil {
		return err
	}
	w.overdue = true
	_, err := w.agree()
	return err
}
