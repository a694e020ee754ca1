package multicast

import (
	"context"
	"time"
)

const (
	// maxWork is how much may be handed over before Run begins.
	maxWork = 64
	// tidyEvery: what is remembered of silent sources is forgotten, and a group that could not
	// be joined is tried again.
	tidyEvery = 10 * time.Second
)

// Loop is the one goroutine of a protocol: what happens becomes calls, one at a time. Only
// what the protocol does in these calls may use it, but for Do.
type Loop struct {
	Agenda

	Net   Network
	Links map[int]Link // usable now

	work chan func()
	done chan struct{}
}

// NewLoop makes a loop that is not running yet.
func NewLoop(n Network) *Loop {
	return &Loop{Net: n, Links: map[int]Link{}, work: make(chan func(), maxWork), done: make(chan struct{})}
}

// Handler is what a protocol does with what happens. Begin and End may be nil.
type Handler struct {
	Begin   func() error       // the network is open, no link is known yet; an error ends it
	Receive func(Link, Packet) // from a link in use; whether its source is on it is for the protocol to check
	Relink  func(Change)       // Links are the new ones already
	Tidy    func()             // forget what no bound keeps small; every ten seconds
	End     func()             // the last chance to say something
}

// Change is how the links differ from before.
type Change struct {
	New     []Link // come, or come back with another name
	Changed []Link // with other addresses
	Before  []Link // as the changed ones were
	Lost    []Link
}

// Do hands f to Run, from any goroutine; after the end of Run it does nothing.
func (l *Loop) Do(f func()) {
	select {
	case l.work <- f:
	case <-l.done:
	}
}

// Done is closed when Run has ended.
func (l *Loop) Done() <-chan struct{} { return l.done }

// Run opens the network and runs the protocol until ctx ends; it returns after the readers
// have ended. An error means that the protocol's port cannot be had in either family. Call
// it once.
func (l *Loop) Run(ctx context.Context, h Handler) error {
	defer close(l.done)
	packets, err := l.Net.Open()
	if err != nil {
		return err
	}
	defer l.Net.Close()
	if h.Begin != nil {
		if err := h.Begin(); err != nil {
			return err
		}
	}
	l.look(h)
	l.Every(tidyEvery, func() {
		l.look(h)
		h.Tidy()
	})
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		timer.Reset(l.Wait())
		select {
		case <-ctx.Done():
			if h.End != nil {
				h.End()
			}
			return nil
		case f := <-l.work:
			f()
		case p := <-packets:
			if k, ok := l.Links[p.Iface]; ok {
				h.Receive(k, p)
			}
		case <-l.Net.Changed():
			l.look(h)
		case <-timer.C:
			l.Agenda.Run(time.Now())
		}
	}
}

// look compares the links with the last time.
func (l *Loop) look(h Handler) {
	before := l.Links
	l.Links = l.Net.Links()
	var c Change
	for i, now := range l.Links {
		old, known := before[i]
		switch {
		case !known || old.Name != now.Name:
			c.New = append(c.New, now)
		case !old.Equal(now):
			c.Changed, c.Before = append(c.Changed, now), append(c.Before, old)
		}
	}
	for i, old := range before {
		if now, ok := l.Links[i]; !ok || now.Name != old.Name {
			c.Lost = append(c.Lost, old)
		}
	}
	if len(c.New)+len(c.Changed)+len(c.Lost) > 0 {
		h.Relink(c)
	}
}
