package multicast

import (
	"container/heap"
	"math/rand/v2"
	"time"
)

// Agenda is what a protocol will do later, soonest first.
type Agenda struct{ due timers }

type timer struct {
	at time.Time
	f  func()
}

// After puts f on the agenda.
func (a *Agenda) After(d time.Duration, f func()) { a.At(time.Now().Add(d), f) }

// At does so for a moment.
func (a *Agenda) At(t time.Time, f func()) { heap.Push(&a.due, timer{t, f}) }

// Every does f again and again, first after d.
func (a *Agenda) Every(d time.Duration, f func()) {
	a.After(d, func() {
		f()
		a.Every(d, f)
	})
}

// Wait is the time until the next entry, at most an hour.
func (a *Agenda) Wait() time.Duration {
	if len(a.due) == 0 {
		return time.Hour
	}
	return max(0, time.Until(a.due[0].at))
}

// Len is the number of entries.
func (a *Agenda) Len() int { return len(a.due) }

// Run does what is due; what that adds waits for the next run.
func (a *Agenda) Run(now time.Time) {
	var ready []func()
	for len(a.due) > 0 && !a.due[0].at.After(now) {
		ready = append(ready, heap.Pop(&a.due).(timer).f)
	}
	for _, f := range ready {
		f()
	}
}

type timers []timer

func (t timers) Len() int           { return len(t) }
func (t timers) Less(i, j int) bool { return t[i].at.Before(t[j].at) }
func (t timers) Swap(i, j int)      { t[i], t[j] = t[j], t[i] }
func (t *timers) Push(x any)        { *t = append(*t, x.(timer)) }
func (t *timers) Pop() any {
	old := *t
	x := old[len(old)-1]
	old[len(old)-1] = timer{}
	*t = old[:len(old)-1]
	return x
}

// Jitter spreads what many nodes would do at the same time: a duration in [from, to).
func Jitter(from, to time.Duration) time.Duration {
	if to <= from {
		return from
	}
	return from + rand.N(to-from) //nolint:gosec // spreads load, no secret
}
