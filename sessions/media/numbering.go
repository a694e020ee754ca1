package media

import (
	"math/rand/v2"
	"time"

	"github.com/hallway-home/hallway/sessions"
)

// numbering gives a viewer sequence numbers of its own: without a hole where it was
// skipped, and with the holes that the source has. Numbers count on past 2^16; the low 16
// bits go on the wire. No number is ever given to two packets, which would break SRTP
// (RFC 3711 section 9.1).
type numbering struct {
	begin uint64 // first of the current stretch
	last  uint64 // highest
	delta uint16 // of the stretch: number = the source's + delta
}

// newNumbering goes on after the last number, if there is one. Else it starts below 2^15, so
// that a lost first packet cannot put SRTP out of step (RFC 3711 section 3.3.1), and one round
// late, so that nothing is below zero.
func newNumbering(last uint64) numbering {
	if last > 0 {
		return numbering{last: last}
	}
	return numbering{last: 1<<16 + rand.Uint64N(1<<15)} //nolint:gosec // not a secret
}

// restart begins a stretch with a packet of the source; hole leaves a number out, by which
// the receiver knows that something is missing.
func (n *numbering) restart(source uint16, hole bool) {
	n.begin = n.last + 1
	if hole {
		n.begin++
	}
	n.delta = uint16(n.begin) - source //nolint:gosec // the low 16 bits
}

// of is the number of a packet of the source; false if it came too late for the stretch.
func (n *numbering) of(source uint16) (uint64, bool) {
	ahead := int64(int16(source + n.delta - uint16(n.last))) //nolint:gosec // modular arithmetic
	number := uint64(int64(n.last) + ahead)                  //nolint:gosec // far below 2^63

	if number < n.begin { // check: number twice
		return 0, false
	}
	n.last = max(n.last, number)
	return number, true
}

// heard is the number that a receiver means by its low 16 bits.
func (n *numbering) heard(seq uint16) uint64 { return n.last - uint64(uint16(n.last)-seq) } //nolint:gosec // the low 16 bits

// span is a stretch of the picture's numbering, kept to repeat packets exactly.
type span struct {
	begin uint64
	delta uint16
	shift uint32 // of time stamps
	// Frames that the viewer saw already, or that are older than such ones, get new time
	// stamps in close steps when they are shown again, up to frame: stamps always grow.
	first, frame uint64
	base, step   uint32
}

// stamp is a packet's time stamp in the span.
func (s *span) stamp(p *slot) uint32 {
	if s.step > 0 && p.frame <= s.frame {
		return s.base + uint32(p.frame-s.first)*s.step //nolint:gosec // a few thousand frames
	}
	return p.p.Timestamp + s.shift
}

// shiftFor is what must be added to the time stamps of a source, of which p is the newest
// packet, to go on in the time of a stream. A shift that is right within half a second stays.
func shiftFor(s *sessions.Stream, p *slot, clock uint32, now time.Time) uint32 {
	ticks := func(d time.Duration) uint32 { return uint32(int64(d.Seconds() * float64(clock))) } //nolint:gosec // RTP time stamps wrap
	due, live := s.Stamp+ticks(now.Sub(s.At)), p.p.Timestamp+ticks(now.Sub(p.at))
	if off := int32(live + s.Shift - due); off < int32(clock/2) && off > -int32(clock/2) { //nolint:gosec // modular arithmetic of time stamps
		return s.Shift
	}
	return due - live
}
