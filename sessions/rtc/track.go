package rtc

import (
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/rtp"
	"github.com/pion/webrtc/v4"

	"github.com/hallway-home/hallway/profiles"
	"github.com/hallway-home/hallway/sessions"
)

// track sends one kind of media in whichever agreed codec the source has: the agent
// passes through and never transcodes.
type track struct {
	kind, stream string
	allowed      atomic.Bool
	packets      atomic.Uint64
	bytes        atomic.Uint64

	mu     sync.Mutex
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
func (t *track) allow(send bool) { t.allowed.Store(send) }

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
			pt, ok = n.PayloadType, true
			break
		}
	}
	t.mu.Unlock()
	if out == nil || !ok {
		return
	}
	h := p.Header
	h.SSRC, h.PayloadType = ssrc, uint8(pt)
	h.Extension, h.Extensions = false, nil
	if n, err := out.WriteRTP(&h, p.Payload); err == nil {
		t.packets.Add(1)
		t.bytes.Add(uint64(n)) //nolint:gosec // a length
	}
}

// counter keeps the receive statistics of RFC 3550 section 6.4.1 and appendix A.8.
type counter struct {
	allowed atomic.Bool // what comes in was agreed

	mu      sync.Mutex
	packets uint64
	bytes   uint64
	first   int64
	highest int64
	begun   bool
	transit float64
	jitter  float64
	clock   float64
}

func (c *counter) add(p *rtp.Packet, clock uint32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	seq := int64(p.SequenceNumber)
	if !c.begun {
		c.begun, c.first, c.highest, c.clock = true, seq, seq, float64(clock)
	} else {
		ext := c.highest + int64(int16(p.SequenceNumber-uint16(c.highest))) //nolint:gosec // modular arithmetic
		c.highest = max(c.highest, ext)
	}
	c.packets++
	c.bytes += uint64(len(p.Payload))
	transit := float64(time.Now().UnixNano())/1e9*c.clock - float64(p.Timestamp)
	if c.packets > 1 {
		d := transit - c.transit
		if d < 0 {
			d = -d
		}
		if d < c.clock { // a jump of a second is a new time line, not jitter
			c.jitter += (d - c.jitter) / 16
		}
	}
	c.transit = transit
}

func (c *counter) stats() sessions.StreamStats {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := sessions.StreamStats{PacketsReceived: c.packets, BytesReceived: c.bytes}
	if c.begun {
		s.Lost = c.highest - c.first + 1 - int64(c.packets) //nolint:gosec // small
		s.JitterMs = c.jitter / c.clock * 1000
	}
	return s
}
