package media

import (
	"sync"
	"time"

	"github.com/pion/rtp"

	"github.com/hallway-home/hallway/sessions"
)

// flushAt is how many packets of one frame are gathered before viewers are woken: they
// leave together at little more than the cost of one.
const flushAt = 32

// Hub gives the packets of one source to any number of viewers. It keeps them once, in a
// ring for each kind, and each viewer reads with a cursor of its own: nothing is copied,
// queued or allocated for a viewer, and none can delay another.
type Hub struct {
	mu      sync.Mutex
	video   ring
	audio   ring
	viewers map[*viewer]struct{}
	pending int // packets of the picture since viewers were woken
}

// NewHub makes one without viewers.
func NewHub() *Hub {
	return &Hub{video: newRing(videoSlots), audio: newRing(audioSlots), viewers: map[*viewer]struct{}{}}
}

// Publish hands on one packet, which is not to be changed any more; key marks the first
// packet of a key frame.
func (h *Hub) Publish(kind string, p *rtp.Packet, key bool) { h.PublishAt(kind, p, key, time.Now()) }

// PublishAt is Publish for what was on its way longer than the other kind: at is when it
// would have come without that, by which receivers keep sound and picture together.
func (h *Hub) PublishAt(kind string, p *rtp.Packet, key bool, at time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if kind == "audio" {
		if h.audio.push(p, false, at) {
			h.wake()
		}
		return
	}
	if h.pending > 0 && p.Timestamp != h.video.stamp { // the end of the last frame was not marked
		h.wake()
	}
	if !h.video.push(p, key, at) {
		return
	}
	if h.pending++; p.Marker || h.pending >= flushAt {
		h.wake()
	}
}

// Takes reports whether any viewer takes media of a kind now.
func (h *Hub) Takes(kind string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	for v := range h.viewers {
		if v.out.Takes(kind) {
			return true
		}
	}
	return false
}

// wake tells the viewers that there is something to send; mu is held.
func (h *Hub) wake() {
	h.pending = 0
	for v := range h.viewers {
		v.signal()
	}
}

// Subscribe implements sessions.Source.
func (h *Hub) Subscribe(out sessions.Outlet, at *sessions.Position) sessions.Subscription {
	v := h.admit(out, at)
	go v.run() // until Cancel, which waits for it
	return v
}

func (h *Hub) admit(out sessions.Outlet, at *sessions.Position) *viewer {
	v := &viewer{
		hub: h, out: out, position: at, done: make(chan struct{}), ended: make(chan struct{}), notify: make(chan struct{}, 1),
		batch: make([]rtp.Packet, 0, maxBatch), audioCut: true, waiting: true,
		audio: newNumbering(at.Audio.Number), video: newNumbering(at.Video.Number),
		sent: at.Video.Number > 0, stamp: at.Video.Stamp, partly: at.Video.Partly,
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	v.audioPos, v.pos = h.audio.head, h.video.head
	h.viewers[v] = struct{}{}
	return v
}
