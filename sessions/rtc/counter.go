package rtc

import (
	"sync"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/rtp"

	"github.com/hallway-home/hallway/sessions"
)

const (
	// seenPackets is how far back a packet is told apart from its copy; older ones are
	// dropped by SRTP's replay window in any case.
	seenPackets = 1024
	// maxDropout is RFC 3550 appendix A.1: a gap this large is a new time line, not loss.
	maxDropout = 3000
)

// counter keeps what one side knows of a stream that it receives: RFC 3550 section 6.4.1
// and appendices A.1, A.3 and A.8. Safe for concurrent use.
type counter struct {
	mu      sync.Mutex
	allowed bool // what comes in was agreed, and is wanted
	begun   bool

	packets, bytes, late, twice uint64

	first, highest int64 // sequence numbers of this time line, extended
	unique         int64
	past           int64 // lost in earlier time lines
	seen           [seenPackets / 64]uint64

	transit, jitter, clock float64
}

// allow opens and closes the gate. What the sender leaves out while it is closed is no loss.
func (c *counter) allow(receive bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if receive && !c.allowed {
		c.end()
	}
	c.allowed = receive
}

// wanted reports whether the gate is open.
func (c *counter) wanted() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.allowed
}

// end closes a time line; mu is held.
func (c *counter) end() {
	c.past += c.lost()
	c.begun, c.first, c.highest, c.unique = false, 0, 0, 0
}

// lost is what of this time line has not come (yet); mu is held.
func (c *counter) lost() int64 {
	if !c.begun {
		return 0
	}
	return max(0, c.highest-c.first+1-c.unique)
}

// add counts a packet. It reports false for one that must go no further: held, or a copy.
func (c *counter) add(p *rtp.Packet, clock uint32) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.allowed {
		return false
	}
	if !c.sort(p.SequenceNumber) {
		c.twice++
		return false
	}
	c.packets++
	c.unique++
	c.bytes += uint64(len(p.Payload))
	c.clock = float64(max(clock, 1))
	transit := float64(time.Now().UnixNano())/1e9*c.clock - float64(p.Timestamp)
	if d := transit - c.transit; c.packets > 1 && max(d, -d) < c.clock { // a jump of a second is a new time line, not jitter
		c.jitter += (max(d, -d) - c.jitter) / 16
	}
	c.transit = transit
	return true
}

// sort puts a sequence number in its place; false if it was there before. mu is held.
func (c *counter) sort(seq uint16) bool {
	ahead := int64(int16(seq - uint16(c.highest))) //nolint:gosec // modular arithmetic
	if c.begun && (ahead > maxDropout || ahead <= -seenPackets) {
		c.end()
	}
	switch {
	case !c.begun:
		c.begun, c.first, c.highest = true, int64(seq), int64(seq)
		clear(c.seen[:])
	case ahead > 0:
		for n := c.highest + 1; n < c.highest+ahead; n++ {
			c.mark(n, false)
		}
		c.highest += ahead
	default:
		n := c.highest + ahead
		if n < c.first { // it overtook nothing that was counted: it was sent before
			c.first = n
		} else if c.marked(n) {
			return false
		}
		c.late++
		c.mark(n, true)
		return true
	}
	c.mark(c.highest, true)
	return true
}

func (c *counter) place(n int64) (word int64, bit uint64) {
	i := (n%seenPackets + seenPackets) % seenPackets
	return i / 64, 1 << (i % 64)
}

func (c *counter) mark(n int64, here bool) {
	w, b := c.place(n)
	c.seen[w] &^= b
	if here {
		c.seen[w] |= b
	}
}

func (c *counter) marked(n int64) bool {
	w, b := c.place(n)
	return c.seen[w]&b != 0
}

func (c *counter) stats() sessions.StreamStats {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := sessions.StreamStats{
		PacketsReceived: c.packets, BytesReceived: c.bytes, Late: c.late, Duplicates: c.twice, Lost: c.past + c.lost(),
	}
	if c.clock > 0 {
		s.JitterMs = c.jitter / c.clock * 1000
	}
	return s
}

// hearsay is what the other side reports of a stream that we send (RFC 3550 section 6.4.2).
type hearsay struct {
	mu    sync.Mutex
	stats sessions.RemoteStats
}

// take reads one report block; clock is that of the stream.
func (h *hearsay) take(r rtcp.ReceptionReport, clock float64, now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := &h.stats
	s.Reports++
	s.HighestSequence = r.LastSequenceNumber
	s.Lost = int64(int32(r.TotalLost<<8) >> 8) //nolint:gosec // 24 bits, signed
	s.FractionLost = float64(r.FractionLost) / 256
	if clock > 0 {
		s.JitterMs = float64(r.Jitter) / clock * 1000
	}
	if r.LastSenderReport == 0 {
		return
	}
	if rtt := int32(shortNTP(now) - r.LastSenderReport - r.Delay); rtt >= 0 { //nolint:gosec // modular arithmetic
		s.RTT = time.Duration(rtt) * time.Second / 65536
	}
}

func (h *hearsay) get() sessions.RemoteStats {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.stats
}

// shortNTP is the middle 32 bits of an NTP time stamp (RFC 3550 section 4).
func shortNTP(t time.Time) uint32 {
	const since1900 = 2208988800
	s := uint64(t.Unix()) + since1900 //nolint:gosec // after 1970
	return uint32(s<<16 | uint64(t.Nanosecond())<<16/1_000_000_000)
}
