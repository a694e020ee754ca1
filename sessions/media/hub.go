package media

import (
	"sync"

	"github.com/pion/rtp"
)

const (
	// maxGOP bounds the packets kept for a new viewer: 2 s of 8 Mbit/s.
	maxGOP = 2048
	// viewerQueue is how far a leg may fall behind before it loses packets; others are
	// never delayed by it.
	viewerQueue = 1024
)

type item struct {
	kind string
	p    *rtp.Packet
}

// hub gives each packet of a source to every subscriber. A new one gets the current
// group of pictures at once, with its original time stamps, and so sees a picture
// without waiting for the next key frame.
type hub struct {
	mu   sync.Mutex
	subs map[*viewer]struct{}
	gop  []*rtp.Packet
	open bool // gop starts with a key frame
}

type viewer struct {
	queue chan item
	done  chan struct{}
	idle  chan struct{}
}

func newHub() *hub { return &hub{subs: map[*viewer]struct{}{}} }

// publish hands on one packet; key marks the first packet of a key frame.
func (h *hub) publish(kind string, p *rtp.Packet, key bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if kind == "video" {
		if key {
			h.gop, h.open = nil, true
		}
		if h.open && len(h.gop) < maxGOP {
			h.gop = append(h.gop, p)
		} else {
			h.gop, h.open = nil, false
		}
	}
	for v := range h.subs {
		select {
		case v.queue <- item{kind, p}:
		default: // this viewer is too slow; its loss is repaired by the next key frame
		}
	}
}

// subscribe starts delivery; cancel returns after the last delivery.
func (h *hub) subscribe(deliver func(kind string, p *rtp.Packet)) (cancel func()) {
	v := &viewer{queue: make(chan item, viewerQueue+maxGOP), done: make(chan struct{}), idle: make(chan struct{})}
	h.mu.Lock()
	for _, p := range h.gop {
		v.queue <- item{"video", p}
	}
	h.subs[v] = struct{}{}
	h.mu.Unlock()
	go func() {
		defer close(v.idle)
		for {
			select {
			case <-v.done:
				return
			case it := <-v.queue:
				c := *it.p // the receiver rewrites the header
				deliver(it.kind, &c)
			}
		}
	}()
	var once sync.Once
	return func() {
		once.Do(func() {
			h.mu.Lock()
			delete(h.subs, v)
			h.mu.Unlock()
			close(v.done)
		})
		<-v.idle
	}
}
