package sim

import (
	"errors"
	"fmt"
	"os"
	"testing/synctest"
	"time"

	"github.com/hallway-home/hallway/devices/trust"
)

// healStep is how finely the time to agreement is measured.
const healStep = 20 * time.Millisecond

// HealAfter makes a home of so many nodes, cuts it into halves for a while, in which both
// change records and names, and measures the virtual time from the end of the cut until
// all agree. Like Run it must be called in a bubble.
func HealAfter(root string, nodes int, cut time.Duration) (took time.Duration, err error) {
	dir, err := os.MkdirTemp(root, "heal")
	if err != nil {
		return 0, err
	}
	p := Program{Seed: 1, Nodes: nodes + 1, Start: nodes, Owners: 2}
	for i := range p.Nodes {
		p.Perm = append(p.Perm, i)
	}
	w := newWorld(p, dir)
	defer func() {
		for _, n := range w.nodes {
			err = errors.Join(err, w.down(n, false))
		}
		err = errors.Join(err, os.RemoveAll(dir))
	}()
	if err := w.create(); err != nil {
		return 0, err
	}
	w.part(0x5555_5555_5555_5555)
	if err := w.settle(cut / 2); err != nil {
		return 0, err
	}
	for _, n := range w.nodes[:nodes] {
		w.publish(n, 1)
	}
	w.edit(w.nodes[0], w.nodes[2], trust.OpName, w.fresh())
	w.edit(w.nodes[1], w.nodes[3], trust.OpName, w.fresh())
	if err := w.settle(cut - cut/2); err != nil {
		return 0, err
	}
	if w.agreed() == nil {
		return 0, errors.New("the cut parted nobody")
	}
	w.part(0)
	for healed := time.Now(); ; time.Sleep(healStep) {
		synctest.Wait()
		if err := w.check(); err != nil {
			return 0, err
		}
		why := w.agreed()
		took = time.Since(healed)
		if why == nil {
			return took, w.final()
		}
		if took > calmTime {
			return took, fmt.Errorf("not healed after %v: %w", took, why)
		}
	}
}
