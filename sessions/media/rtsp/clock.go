package rtsp

import (
	"sync"
	"time"
)

const (
	// clockJump: a clock that is off by so much was set anew, or its reports are nonsense; then
	// a packet is as old as it seems.
	clockJump = time.Second
	// clockSlack is by what part of the time that passes a clock may run slower than ours
	// before it is noticed: five times what is usual for crystals.
	clockSlack = 2000
)

// clock puts what a camera says of time on our clock. A network and a busy machine only ever
// delay packets, so the one that was least late tells best: single late packets move
// nothing. Sound and picture share one where sender reports tie them (RFC 3550 section 6.4.1).
type clock struct {
	mu    sync.Mutex
	known bool
	ahead time.Duration // of our clock, at the least delay
	last  time.Time
}

// at is when a packet would have come, had nothing delayed it.
func (c *clock) at(taken, now time.Time) time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	off := now.Sub(taken)
	c.ahead += now.Sub(c.last) / clockSlack
	c.last = now
	if !c.known || off < c.ahead || off > c.ahead+clockJump {
		c.known, c.ahead = true, off
	}
	return taken.Add(c.ahead)
}

// stampClock is the clock of one stream without reports: its time stamps. One goroutine uses it.
type stampClock struct {
	clock
	rate  time.Duration // Hz
	begun bool
	first time.Time // arbitrary
	stamp uint32
	ticks time.Duration
}

func (c *stampClock) at(stamp uint32, now time.Time) time.Time {
	if !c.begun {
		c.begun, c.first, c.stamp = true, now, stamp
	}
	c.ticks += time.Duration(int32(stamp - c.stamp)) //nolint:gosec // modular arithmetic
	c.stamp = stamp
	return c.clock.at(c.first.Add(c.ticks/c.rate*time.Second+c.ticks%c.rate*time.Second/c.rate), now)
}
