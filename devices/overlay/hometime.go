package overlay

import (
	"encoding/binary"
	"maps"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/hallway-home/hallway/devices"
)

const (
	// clockEvery: one ping in so many carries the sender's clock, since clocks are set
	// while nodes run.
	clockEvery = 6
	// saveClockEvery spares the flash: home time may fall back by this much at a restart.
	saveClockEvery = 10 * time.Minute
	// agree: clocks this far apart say the same.
	agree = 2 * time.Minute
	// farFuture bounds what is believed at all, above the build's time.
	farFuture = 50 * 365 * 24 * time.Hour
	// keyHomeTime is where the store keeps the last home time that two clocks agreed on.
	keyHomeTime = "home-time"
)

// homeClock works out the time of the home. No clock decides order, expiry or
// revocation; guests and quiet hours need one.
type homeClock struct {
	wall func() time.Time // this node's own clock; it may say 1970

	mu    sync.Mutex
	floor time.Time // the build's or the last stored time
	heard map[devices.NodeID]clockReading
}

// clockReading is what a peer's clock said at a moment of our monotonic clock.
type clockReading struct{ said, at time.Time }

func newHomeClock(wall func() time.Time, built time.Time, store *devices.Store) (*homeClock, error) {
	c := &homeClock{wall: wall, floor: built, heard: map[devices.NodeID]clockReading{}}
	last, err := lastHomeTime(store)
	if last.After(c.floor) {
		c.floor = last
	}
	return c, err
}

// lastHomeTime is the last stored time; zero if there is none.
func lastHomeTime(store *devices.Store) (t time.Time, err error) {
	err = store.View(func(tx devices.Tx) error {
		if b := tx.Get(devices.BucketNode, keyHomeTime); len(b) == 8 {
			t = time.UnixMilli(int64(binary.BigEndian.Uint64(b))) //nolint:gosec // written by save
		}
		return nil
	})
	return t, err
}

// builtAt is when this program was made, as far as it knows.
func builtAt() time.Time {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if t, err := time.Parse(time.RFC3339, s.Value); s.Key == "vcs.time" && err == nil {
				return t
			}
		}
	}
	return time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
}

// hear takes what a peer's clock says.
func (c *homeClock) hear(peer devices.NodeID, milli int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.heard[peer] = clockReading{time.UnixMilli(milli), time.Now()}
}

// keep forgets the clocks of removed members.
func (c *homeClock) keep(r *devices.Roster) {
	c.mu.Lock()
	defer c.mu.Unlock()
	maps.DeleteFunc(c.heard, func(id devices.NodeID, _ clockReading) bool { return !r.Has(id) })
}

// now is the median of all clocks that are possible, this node's own among them. Of two
// in the middle the one nearer to the own clock counts, else the earlier: so with one
// lying member among any number of honest ones the time stays between honest clocks.
// sure is true when another clock agrees with it.
func (c *homeClock) now() (t time.Time, known, sure bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	possible := func(t time.Time) bool { return !t.Before(c.floor) && t.Sub(c.floor) < farFuture }
	own := c.wall().Round(0)
	var all []time.Time
	if possible(own) {
		all = append(all, own)
	}
	for _, r := range c.heard {
		if t := r.said.Add(time.Since(r.at)); possible(t) {
			all = append(all, t)
		}
	}
	if len(all) == 0 {
		return time.Time{}, false, false
	}
	slices.SortFunc(all, time.Time.Compare)
	t = all[(len(all)-1)/2]
	if upper := all[len(all)/2]; possible(own) && upper.Sub(own).Abs() < t.Sub(own).Abs() {
		t = upper
	}
	near := 0
	for _, x := range all {
		if x.Sub(t).Abs() <= agree {
			near++
		}
	}
	return t, true, near >= 2 && near > len(all)/2
}

// save raises the floor for the next start, if most clocks agree: one that lies must not
// put the home's time beyond all others for good.
func (c *homeClock) save(store *devices.Store) error {
	t, _, sure := c.now()
	c.mu.Lock()
	floor := c.floor
	c.mu.Unlock()
	if !sure || t.Sub(floor) < saveClockEvery {
		return nil
	}
	err := store.Update("home.time", func(tx devices.Tx) error {
		return tx.Put(devices.BucketNode, keyHomeTime, binary.BigEndian.AppendUint64(nil, uint64(t.UnixMilli()))) //nolint:gosec // after 1970
	})
	if err == nil {
		c.mu.Lock()
		c.floor = t.Add(-agree)
		c.mu.Unlock()
	}
	return err
}

// HomeTime is the time that the clocks of the home agree on: the median of this node's
// and its peers', never before this program was built nor before the last time that the
// home knew. It reports false when no clock is possible: then refuse guests and keep
// quiet hours.
func (m *Mesh) HomeTime() (time.Time, bool) {
	t, known, _ := m.clock.now()
	return t, known
}
