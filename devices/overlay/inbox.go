package overlay

import (
	"context"
	"sync"
	"time"
)

// received is a frame with its size on the wire, in bytes.
type received struct {
	frame
	size int
}

// inbox is what a peer sent that was not taken yet. The reader of a flow answers pings
// itself and leaves all else here, since that may wait for the disk: a card may stall for
// longer than a peer may be silent.
type inbox struct {
	room wake // something was taken

	mu     sync.Mutex
	list   []received
	bytes  int
	taking bool // a goroutine is at it
	ended  bool
}

// put reports false when the peer must wait, and whether somebody is to start taking.
func (in *inbox) put(r received) (ok, start bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.bytes > 0 && in.bytes+r.size > maxWaiting {
		return false, false
	}
	in.list = append(in.list, r)
	in.bytes += r.size
	start = !in.taking
	in.taking = true
	return true, start
}

// take gives the next frame; without one whoever takes must end.
func (in *inbox) take() (r received, ok bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if len(in.list) == 0 || in.ended {
		in.list, in.taking = nil, false
		return r, false
	}
	r, in.list = in.list[0], in.list[1:]
	in.bytes -= r.size
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
	fr, n, err := readFrame(f.conn)
	if err != nil {
		return err
	}
	f.mu.Lock()
	f.heard = time.Now()
	f.mu.Unlock()
	if fr.Kind == framePing {
		m.takePing(f, fr)
		return f.pause(f.limits.spend(n))
	}
	for {
		ok, start := f.in.put(received{fr, n})
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
		f.fines = 0
		m.handle(f, r.frame)
		if f.pause(f.limits.spend(r.size+f.fines)) != nil {
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
