package agent

import (
	"context"
	"os"
	"runtime"
	"syscall"
	"time"
)

// A Go program that may use several processors wakes a second thread for nearly all that comes,
// in case there is more to do, and in an agent that only answers pings there never is: that is a
// fifth of what it costs. So it uses one while it has next to nothing to do, and all as soon as
// it has more.
const (
	loadEvery = time.Second
	// much of one processor is more than an agent without media ever needs.
	much = 0.2
	// calm is for how many looks the load must have been small.
	calm = 10
)

// thrift sets how many processors this process uses. GOMAXPROCS in the environment overrides it.
func thrift(ctx context.Context) error {
	if os.Getenv("GOMAXPROCS") != "" {
		return nil
	}
	all := runtime.GOMAXPROCS(0)
	defer runtime.GOMAXPROCS(all)
	var t throttle
	tick := time.NewTicker(loadEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		used, err := processorTime()
		if err != nil {
			return nil //nolint:nilerr // it stays with all of them
		}
		if n := t.look(used, all); n != runtime.GOMAXPROCS(0) {
			runtime.GOMAXPROCS(n)
		}
	}
}

// throttle remembers what was used until the last look.
type throttle struct {
	used time.Duration
	idle int // looks in a row at which the load was small
}

// look says how many of all processors to use, from the processor time used so far.
func (t *throttle) look(used time.Duration, all int) int {
	load := (used - t.used).Seconds() / loadEvery.Seconds()
	t.used = used
	if t.idle++; load > much {
		t.idle = 0
	}
	if t.idle >= calm {
		return 1
	}
	return all
}

// processorTime is what this process has used in all; unlike other system calls, this one
// wakes no thread.
func processorTime() (time.Duration, error) {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0, err
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), nil
}
