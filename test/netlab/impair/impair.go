// Package impair is a bad cable: it joins the hosts that a netlab cut off its first
// segment to that segment again, through two TAP interfaces and this process, which
// loses, delays, repeats and reorders Ethernet frames, both ways, from a seed. Kernels
// without netem need no more than /dev/net/tun for it. Tests use it; nothing ships it.
//
// A Cable's Run owns its goroutines; Set and Stats may be called from anywhere.
package impair

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hallway-home/hallway/test/netlab"
)

const (
	// maxFrame is an Ethernet frame of the usual MTU with a VLAN tag.
	maxFrame = 1522
	// maxWaiting bounds the frames under way in one direction, as the queue of a real
	// device does; more are lost.
	maxWaiting = 2000
)

// Faults of a cable; the zero value has none. Probabilities are of one frame, one way.
type Faults struct {
	Loss      float64       // is lost
	Duplicate float64       // comes twice
	Reorder   float64       // overtakes those under way
	Delay     time.Duration // of every frame
	Jitter    time.Duration // more or less than Delay; frames overtake each other by it
	Seed      uint64
}

// arrivals decides about one frame: after which times its copies arrive.
func (f Faults) arrivals(r *rand.Rand) []time.Duration {
	if r.Float64() < f.Loss {
		return nil
	}
	copies := 1
	if r.Float64() < f.Duplicate {
		copies = 2
	}
	out := make([]time.Duration, copies)
	for i := range out {
		out[i] = f.Delay
		if f.Jitter > 0 {
			out[i] += time.Duration(r.Int64N(int64(2*f.Jitter))) - f.Jitter
		}
		if r.Float64() < f.Reorder {
			out[i] = 0
		}
		out[i] = max(0, out[i])
	}
	return out
}

// Stats count frames of both directions.
type Stats struct{ Taken, Lost, Repeated, Overflowed int64 }

// Cable joins the two sides.
type Cable struct {
	ends   [2]*os.File
	faults atomic.Pointer[Faults]

	taken, lost, repeated, overflowed atomic.Int64
}

// Join makes a cable between the first segment of a lab and its cut-off hosts: call Cut
// first. Nothing passes before Run.
func Join(l *netlab.Lab, f Faults) (*Cable, error) {
	c := &Cable{}
	c.faults.Store(&f)
	for i, plug := range []func(string) error{l.First().Plug, l.PlugCut} {
		name := fmt.Sprintf("tap%d", i)
		end, err := openTAP(l.Namespace(), name)
		if err == nil {
			c.ends[i] = end
			err = plug(name)
		}
		if err != nil {
			c.close()
			return nil, fmt.Errorf("a bad cable cannot be made: %w", err)
		}
	}
	return c, nil
}

// Set changes the faults from the next frame on; the seed stays.
func (c *Cable) Set(f Faults) { c.faults.Store(&f) }

// Stats tells what happened to the frames so far.
func (c *Cable) Stats() Stats {
	return Stats{c.taken.Load(), c.lost.Load(), c.repeated.Load(), c.overflowed.Load()}
}

// Run forwards until ctx ends, then takes the cable away. Call it once.
func (c *Cable) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, c.close)
	defer stop()
	var wg sync.WaitGroup
	errs := make([]error, 2)
	for i := range c.ends {
		wg.Go(func() {
			errs[i] = c.forward(ctx, c.ends[i], c.ends[1-i], uint64(i))
			c.close() // one way alone is no cable
		})
	}
	wg.Wait()
	if ctx.Err() != nil {
		return nil
	}
	return errors.Join(errs...)
}

func (c *Cable) close() {
	for _, e := range c.ends {
		if e != nil {
			_ = e.Close()
		}
	}
}

// forward reads one end until it is closed.
func (c *Cable) forward(ctx context.Context, from, to *os.File, way uint64) error {
	ctx, cancel := context.WithCancel(ctx)
	frames := make(chan underway, maxWaiting)
	done := make(chan struct{})
	go func() {
		defer close(done)
		deliver(ctx, frames, to)
	}()
	defer func() {
		cancel()
		<-done
	}()
	r := rand.New(rand.NewPCG(c.faults.Load().Seed, way)) //nolint:gosec // faults, no secrets
	buf := make([]byte, maxFrame)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return err
		}
		c.taken.Add(1)
		at := c.faults.Load().arrivals(r)
		c.lost.Add(int64(1 - min(1, len(at))))
		c.repeated.Add(int64(max(1, len(at)) - 1))
		for _, d := range at {
			select {
			case frames <- underway{time.Now().Add(d), append([]byte(nil), buf[:n]...)}:
			default:
				c.overflowed.Add(1)
			}
		}
	}
}

// underway is a frame on its way.
type underway struct {
	at   time.Time
	data []byte
}

type queue []underway

func (q queue) Len() int           { return len(q) }
func (q queue) Less(i, j int) bool { return q[i].at.Before(q[j].at) }
func (q queue) Swap(i, j int)      { q[i], q[j] = q[j], q[i] }
func (q *queue) Push(x any)        { *q = append(*q, x.(underway)) }
func (q *queue) Pop() any {
	last := len(*q) - 1
	x := (*q)[last]
	*q = (*q)[:last]
	return x
}

// deliver writes each frame when its time has come.
func deliver(ctx context.Context, frames <-chan underway, to *os.File) {
	var q queue
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		in := frames
		if len(q) >= maxWaiting {
			in = nil
		}
		if len(q) > 0 {
			timer.Reset(time.Until(q[0].at))
		}
		select {
		case <-ctx.Done():
			return
		case f := <-in:
			heap.Push(&q, f)
		case <-timer.C:
		}
		for len(q) > 0 && !q[0].at.After(time.Now()) {
			f := heap.Pop(&q).(underway)
			_, _ = to.Write(f.data) // an interface that is down loses it
		}
	}
}

// openTAP makes a TAP interface in a network namespace (Linux
// Documentation/networking/tuntap.rst).
func openTAP(namespace, name string) (end *os.File, err error) {
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return nil, err
	}
	defer home.Close() //nolint:errcheck // read only
	away, err := os.Open("/var/run/netns/" + namespace)
	if err != nil {
		return nil, err
	}
	defer away.Close() //nolint:errcheck // read only
	// The thread must come back and live on: hosts' programs die with the thread that
	// started them, which may be this one.
	runtime.LockOSThread()
	if err := unix.Setns(int(away.Fd()), unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return nil, err
	}
	defer func() {
		if back := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); back != nil {
			err = errors.Join(err, back) // stays locked: nobody else may run on this thread
			return
		}
		runtime.UnlockOSThread()
	}()
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	req, err := unix.NewIfreq(name)
	if err == nil {
		req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
		err = errors.Join(unix.IoctlIfreq(fd, unix.TUNSETIFF, req), unix.SetNonblock(fd, true))
	}
	if err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), name), nil
}
