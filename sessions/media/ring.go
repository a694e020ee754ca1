package media

import (
	"time"

	"github.com/pion/rtp"
)

const (
	// videoSlots and audioSlots bound what is kept of a source: 15 s of 2 Mbit/s, 5 s of
	// sound. Powers of two, so that positions wrap without a division.
	videoSlots, audioSlots = 4096, 256
	// ringBytes bounds it for sources with large packets.
	ringBytes = 4 << 20
	// maxGOP bounds the packets that a new viewer is given: 2 s of 8 Mbit/s. A longer group
	// of pictures is not given away; its viewers wait for the next key frame.
	maxGOP = 2048
	// repairWindow is kept of the time before the current group of pictures, for NACKs: 2 s
	// of 2 Mbit/s.
	repairWindow = 512
	// reorder is how late a packet of a source may be; one further behind is the source's
	// new numbering, and so is one that is newJump ahead.
	reorder, newJump = 64, 3000
)

// slot is one packet of a source.
type slot struct {
	p     *rtp.Packet // shared by all viewers, read-only
	seq   uint16      // continuous, whatever the source does
	frame uint64      // counts changes of the time stamp
	at    time.Time   // when the source gave it
}

// ring keeps the last packets of one kind by position, and finds them by sequence number.
// It is queue, group of pictures and repair buffer of all viewers at once.
type ring struct {
	slots      []slot
	index      []uint64 // position + 1, by sequence number
	tail, head uint64   // positions kept: tail <= p < head
	bytes      int
	shift      uint16 // added to the source's sequence numbers
	last       uint16 // highest sequence number
	frame      uint64
	stamp      uint32 // of the newest packet
	key        uint64 // position of the current key frame, if keyed
	keyed      bool
}

func newRing(n int) ring { return ring{slots: make([]slot, n), index: make([]uint64, n)} }

func (r *ring) at(pos uint64) *slot { return &r.slots[pos&uint64(len(r.slots)-1)] }

// find is the kept packet with a sequence number.
func (r *ring) find(seq uint16) (*slot, uint64, bool) {
	pos := r.index[int(seq)&(len(r.index)-1)]
	if pos == 0 || pos-1 < r.tail {
		return nil, 0, false
	}
	s := r.at(pos - 1)
	return s, pos - 1, s.seq == seq
}

// push keeps a packet; key marks the first one of a key frame. A packet that is here
// already is refused: sent twice under two headers, it would break SRTP.
func (r *ring) push(p *rtp.Packet, key bool, now time.Time) bool {
	seq := p.SequenceNumber + r.shift
	ahead := int16(seq - r.last) //nolint:gosec // modular arithmetic of sequence numbers
	if r.head > 0 && (ahead <= -reorder || ahead > newJump) {
		r.shift += r.last + 2 - seq // a gap of one tells viewers that something is missing
		seq, ahead = r.last+2, 2
	}
	if _, _, twice := r.find(seq); twice { // check: packet twice
		return false
	}
	if ahead > 0 || r.head == 0 {
		r.last = seq
	}
	if r.head == 0 || p.Timestamp != r.stamp {
		r.frame++
		r.stamp = p.Timestamp
	}
	if key {
		r.key, r.keyed = r.head, true
	}
	for r.head-r.tail == uint64(len(r.slots)) || r.bytes+len(p.Payload) > ringBytes && r.tail < r.head || key && r.head-r.tail > repairWindow {
		r.drop()
	}
	*r.at(r.head) = slot{p: p, seq: seq, frame: r.frame, at: now}
	r.index[int(seq)&(len(r.index)-1)] = r.head + 1
	r.head++
	r.bytes += len(p.Payload)
	if r.keyed && (r.key < r.tail || r.head-r.key > maxGOP) {
		r.keyed = false
	}
	return true
}

func (r *ring) drop() {
	s := r.at(r.tail)
	r.bytes -= len(s.p.Payload)
	s.p = nil
	r.tail++
}
