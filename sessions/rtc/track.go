package rtc

import (
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/rtp"
	"github.com/pion/webrtc/v4"

	"github.com/hallway-home/hallway/profiles"
)

// track sends one kind of media in whichever agreed codec the source has: the agent
// passes through and never transcodes.
type track struct {
	kind, stream string
	allowed      atomic.Bool
	packets      atomic.Uint64
	bytes        atomic.Uint64

	closed   atomic.Bool  // the gate was closed since the last packet
	closedAt atomic.Int64 // Unix nanoseconds
	anew     atomic.Bool  // what comes next is of another source, with a time of its own
	shift    struct {     // for write alone
		seq, lastSeq     uint16
		stamp, lastStamp uint32
	}

	mu     sync.Mutex
	clock  uint32 // of the codec that is sent
	out    webrtc.TrackLocalWriter
	ssrc   uint32
	codecs []webrtc.RTPCodecParameters
}

func newTrack(kind, stream string) *track { return &track{kind: kind, stream: stream} }

// Bind implements webrtc.TrackLocal.
func (t *track) Bind(ctx webrtc.TrackLocalContext) (webrtc.RTPCodecParameters, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.out, t.ssrc, t.codecs = ctx.WriteStream(), uint32(ctx.SSRC()), ctx.CodecParameters()
	if len(t.codecs) == 0 {
		return webrtc.RTPCodecParameters{}, webrtc.ErrUnsupportedCodec
	}
	return t.codecs[0], nil
}

// Unbind implements webrtc.TrackLocal.
func (t *track) Unbind(webrtc.TrackLocalContext) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.out = nil
	return nil
}

// ID implements webrtc.TrackLocal.
func (t *track) ID() string { return t.kind }

// RID implements webrtc.TrackLocal.
func (t *track) RID() string { return "" }

// StreamID implements webrtc.TrackLocal.
func (t *track) StreamID() string { return t.stream }

// Kind implements webrtc.TrackLocal.
func (t *track) Kind() webrtc.RTPCodecType { return webrtc.NewRTPCodecType(t.kind) }

// allow opens and closes the gate by what was agreed.
func (t *track) allow(send bool) {
	t.allowed.Store(send)
	if !send {
		t.closedAt.Store(time.Now().UnixNano())
		t.closed.Store(true)
	}
}

// stream is what its receiver reports on, and the rate of its clock.
func (t *track) reported() (ssrc uint32, clock float64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.ssrc, float64(t.clock)
}

func (t *track) sent() (packets, bytes uint64) { return t.packets.Load(), t.bytes.Load() }

// write sends a packet if the gate is open and the codec was agreed.
func (t *track) write(c profiles.Codec, p *rtp.Packet) {
	if !t.allowed.Load() {
		return
	}
	t.mu.Lock()
	out, ssrc := t.out, t.ssrc
	pt, ok := webrtc.PayloadType(0), false
	for _, n := range t.codecs {
		if _, name, _ := strings.Cut(n.MimeType, "/"); strings.EqualFold(name, c.Name) {
			pt, ok, t.clock = n.PayloadType, true, n.ClockRate
			break
		}
	}
	t.mu.Unlock()
	if out == nil || !ok {
		return
	}
	h := p.Header
	if t.closed.Swap(false) && t.packets.Load() > 0 {
		t.resume(&h, c.ClockRate)
	}
	h.SequenceNumber += t.shift.seq
	h.Timestamp += t.shift.stamp
	t.shift.lastSeq, t.shift.lastStamp = h.SequenceNumber, h.Timestamp
	h.SSRC, h.PayloadType = ssrc, uint8(pt)
	h.Extension, h.Extensions = false, nil
	if n, err := out.WriteRTP(&h, p.Payload); err == nil {
		t.packets.Add(1)
		t.bytes.Add(uint64(n)) //nolint:gosec // a length
	}
}

// resume joins what is sent now to what was sent before the gate closed: what it kept is no
// loss to the receiver (RFC 3550 section 5.1), and a source that was opened anew goes on in
// the same time.
func (t *track) resume(h *rtp.Header, clock uint32) {
	s := &t.shift
	s.seq = s.lastSeq + 1 - h.SequenceNumber
	pause := time.Duration(time.Now().UnixNano() - t.closedAt.Load())
	if !t.anew.Swap(false) {
		return
	}
	due := s.lastStamp + uint32(uint64(pause.Seconds()*float64(clock))) //nolint:gosec // RTP time stamps wrap
	s.stamp = due - h.Timestamp
}
