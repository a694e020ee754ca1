package media

import (
	"strings"
	"time"

	"github.com/pion/rtp"
	"github.com/pion/rtp/codecs"

	"github.com/hallway-home/hallway/profiles"
)

const (
	// reorderPackets and reorderTime bound how long a missing packet is waited for; a
	// repair by NACK takes a round trip, on a LAN a few milliseconds.
	reorderPackets = 512
	reorderTime    = 400 * time.Millisecond
	// maxFramePackets bounds a frame that never ends: 4 MB is beyond any key frame.
	maxFramePackets = 4096
	// restartJump: a sequence number this far away is a new stream, not a late packet.
	restartJump = 3000
)

// rawFrame is one frame as it left the sender.
type rawFrame struct {
	stamp uint32
	data  []byte
	lost  bool // something before it is missing for good
}

// jitterBuffer puts packets of one stream in order and cuts frames out of them. A lost
// packet spoils its own frame only; the next frame says so. Not safe for concurrent use.
type jitterBuffer struct {
	codec   profiles.Codec
	waiting map[uint16]*rtp.Packet
	begun   bool
	next    uint16 // sequence number wanted

	unpack  rtp.Depacketizer
	frame   []byte
	stamp   uint32
	stamped bool
	packets int
	spoilt  bool // the frame being put together has a hole; so has one joined in its middle
	lost    bool // to be told with the next frame
}

func newJitterBuffer(c profiles.Codec) *jitterBuffer {
	return &jitterBuffer{codec: c, waiting: map[uint16]*rtp.Packet{}, unpack: depacketizer(c), spoilt: true}
}

// push takes one packet and returns the frames that are complete by it.
func (j *jitterBuffer) push(p *rtp.Packet) (out []rawFrame) {
	if !j.begun {
		j.begun, j.next = true, p.SequenceNumber
	}
	ahead := int16(p.SequenceNumber - j.next) //nolint:gosec // modular arithmetic of sequence numbers
	switch {
	case ahead > restartJump || ahead < -restartJump:
		out = j.flush()
		j.hole()
		j.next = p.SequenceNumber
	case ahead < 0:
		return nil // too late, or twice
	}
	j.waiting[p.SequenceNumber] = p
	for len(j.waiting) > 0 {
		if q := j.waiting[j.next]; q != nil {
			delete(j.waiting, j.next)
			j.next++
			out = j.take(q, out)
			continue
		}
		if !j.overdue(p) {
			break
		}
		j.skip()
	}
	return out
}

// overdue says whether waiting for the missing packet must end.
func (j *jitterBuffer) overdue(newest *rtp.Packet) bool {
	if len(j.waiting) > reorderPackets {
		return true
	}
	limit := int32(reorderTime.Seconds() * float64(j.codec.ClockRate))
	for _, q := range j.waiting {
		if int32(newest.Timestamp-q.Timestamp) > limit { //nolint:gosec // modular arithmetic of time stamps
			return true
		}
	}
	return false
}

// skip gives the missing packets up, as far as the next one at hand.
func (j *jitterBuffer) skip() {
	best := uint16(0xffff)
	for seq := range j.waiting {
		best = min(best, seq-j.next)
	}
	j.next += best
	j.hole()
}

func (j *jitterBuffer) hole() {
	j.spoilt, j.lost = true, true
	j.frame, j.packets = nil, 0
	j.unpack = depacketizer(j.codec) // it may hold half a NAL unit
}

// take adds the next packet in order.
func (j *jitterBuffer) take(p *rtp.Packet, out []rawFrame) []rawFrame {
	if len(p.Payload) == 0 { // padding: probes carry nothing
		return out
	}
	if p.Timestamp != j.stamp || !j.stamped {
		out = j.finish(out) // the marker was missing
		j.stamp, j.stamped = p.Timestamp, true
		j.spoilt = j.spoilt && !j.unpack.IsPartitionHead(p.Payload)
	}
	j.packets++
	data, err := j.unpack.Unmarshal(p.Payload)
	if err != nil || j.packets > maxFramePackets {
		j.hole()
		return out
	}
	j.frame = append(j.frame, data...)
	if p.Marker || j.codec.Kind() == "audio" {
		out = j.finish(out)
	}
	return out
}

func (j *jitterBuffer) finish(out []rawFrame) []rawFrame {
	if len(j.frame) > 0 && !j.spoilt {
		out = append(out, rawFrame{stamp: j.stamp, data: j.frame, lost: j.lost})
		j.lost = false
	}
	j.frame, j.packets = nil, 0
	return out
}

// flush gives out everything that is still waiting.
func (j *jitterBuffer) flush() (out []rawFrame) {
	for len(j.waiting) > 0 {
		if q := j.waiting[j.next]; q != nil {
			delete(j.waiting, j.next)
			j.next++
			out = j.take(q, out)
			continue
		}
		j.skip()
	}
	return j.finish(out)
}

func depacketizer(c profiles.Codec) rtp.Depacketizer {
	switch strings.ToUpper(c.Name) {
	case "H264":
		return &codecs.H264Packet{IsAVC: true}
	case "H265":
		return &h265Packet{}
	case "VP8":
		return &codecs.VP8Packet{}
	case "OPUS":
		return &codecs.OpusPacket{}
	}
	return &plainPacket{}
}

// plainPacket is the payload format of G.711 and G.722: the samples as they are.
type plainPacket struct{}

// Unmarshal implements rtp.Depacketizer.
func (*plainPacket) Unmarshal(b []byte) ([]byte, error) { return b, nil }

// IsPartitionHead implements rtp.Depacketizer.
func (*plainPacket) IsPartitionHead([]byte) bool { return true }

// IsPartitionTail implements rtp.Depacketizer.
func (*plainPacket) IsPartitionTail(bool, []byte) bool { return true }
