package records

import (
	"context"
	"sync"
)

// feedBuffer is how far a reader of a feed may fall behind: 75 KiB of records.
const feedBuffer = 256

// feed tells readers of records. The zero value is ready.
type feed struct {
	mu    sync.Mutex
	subs  map[chan Record]struct{}
	ended bool
}

func (f *feed) watch(ctx context.Context) <-chan Record {
	ch := make(chan Record, feedBuffer)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ended {
		close(ch)
		return ch
	}
	if f.subs == nil {
		f.subs = map[chan Record]struct{}{}
	}
	f.subs[ch] = struct{}{}
	context.AfterFunc(ctx, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.drop(ch)
	})
	return ch
}

// drop must be called with mu held.
func (f *feed) drop(ch chan Record) {
	if _, ok := f.subs[ch]; ok {
		delete(f.subs, ch)
		close(ch)
	}
}

func (f *feed) publish(r Record) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for ch := range f.subs {
		select {
		case ch <- r:
		default:
			f.drop(ch)
		}
	}
}

func (f *feed) end() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ended = true
	for ch := range f.subs {
		f.drop(ch)
	}
}
