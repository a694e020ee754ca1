package mdns

import (
	"container/heap"
	"math/rand/v2"
	"time"
)

// agenda is what the engine will do later, soonest first. Only Engine.Run touches it.
type agenda struct{ due timerHeap }

type timer struct {
	at time.Time
	f  func()
}

func (a *agenda) add(at time.Time, f func()) { heap.Push(&a.due, timer{at, f}) }

// wait is the time until the next entry, at most an hour.
func (a *agenda) wait(now time.Time) time.Duration {
	if len(a.due) == 0 {
		return time.Hour
	}
	return max(0, a.due[0].at.Sub(now))
}

// run does what is due; what that adds waits for the next run.
func (a *agenda) run(now time.Time) {
	var ready []func()
	for len(a.due) > 0 && !a.due[0].at.After(now) {
		ready = append(ready, heap.Pop(&a.due).(timer).f)
	}
	for _, f := range ready {
		f()
	}
}

type timerHeap []timer

func (h timerHeap) Len() int           { return len(h) }
func (h timerHeap) Less(i, j int) bool { return h[i].at.Before(h[j].at) }
func (h timerHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *timerHeap) Push(x any)        { *h = append(*h, x.(timer)) }
func (h *timerHeap) Pop() any {
	old := *h
	x := old[len(old)-1]
	old[len(old)-1] = timer{}
	*h = old[:len(old)-1]
	return x
}

// jitter spreads what many nodes would do at the same time.
func jitter(from, to time.Duration) time.Duration {
	return from + rand.N(to-from) //nolint:gosec // spreads load, no secret
}
