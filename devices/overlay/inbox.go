package overlay

import (
	"context"
	"sync"
	"time"
)

// inbox is what a peer sent that was not taken yet. The reader of a flow answers pings
// itself and leaves all else here, since that may wait for the disk: a card may stall for
// longer than a peer may be silent.
type inbox struct {
	room wake // something was taken

	mu     sync.Mutex
	list   []rawFrame
	bytes  int
	taking bool // a goroutine is at it
	ended  bool
}

// cost is what a waiting frame takes in memory, about.
func (r rawFrame) cost() int { return 64 + len(r.body) }

// put reports false when the peer must wait, and whether somebody is to start taking.
func (in *inbox) put(r rawFrame) (ok, start bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.bytes > 0 && in.bytes+r.cost() > maxWaiting {
		return false, false
	}
	in.list = append(in.list, r)
	in.bytes += r.cost()
	start = !in.taking
	in.taking = true
	return true, start
}

// take gives the next frame; without one whoever takes must end.
func (in *inbox) take() (r rawFrame, ok bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if len(in.list) == 0 || in.ended {
		in.list, in.taking = nil, false
		return r, false
	}
	r, in.list = in.list[0], in.list[1:]
	in.bytes -= r.cost()
	in.room.look()
	return r, true
}

// end leaves untaken what a lost flow had brought.
func (in *inbox) end() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.ended = true
}

// readOne reads one frame. A ping is answered at once, whatever else waits.
func (m *Mesh) readOne(f *flow) error {
	raw, err := readFrame(f.conn)
	if err != nil {
		return err
	}
	f.mu.Lock()
	f.heard = time.Now()
	f.mu.Unlock()
	if raw.kind == framePing {
		fr, err := raw.decode()
		if err != nil {
			return err
		}
		if err := m.takePing(f, fr); err != nil {
			return err
		}
		return f.pause(f.limits.spend(raw.size()))
	}
	for {
		ok, start := f.in.put(raw)
		if start && !m.spawn(func() { m.takeAll(f) }) {
			return context.Canceled
		}
		if ok {
			return nil
		}
		select {
		case <-f.ctx.Done():
			return context.Cause(f.ctx)
		case <-f.in.room:
		}
	}
}

// takeAll handles what waits, in its order, and ends. After a frame it waits when the
// peer sends or costs too much; the reader is then held up in turn.
func (m *Mesh) takeAll(f *flow) {
	for {
		r, ok := f.in.take()
		if !ok {
			return
		}
		fr, err := r.decode()
		if err != nil {
			f.in.end()
			f.cancel()
			continue
		}
		f.fines = 0
		m.handle(f, fr)
		if f.pause(f.limits.spend(r.size()+f.fines)) != nil {
			f.in.end()
		}
	}
}

// pause waits, at most until the flow ends.
func (f *flow) pause(d time.Duration) error {
	if d == 0 {
		return nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-f.ctx.Done():
		return context.Cause(f.ctx)
	case <-t.C:
		return nil
	}
}
