package rtc

import (
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/rtp"
	"github.com/pion/webrtc/v4"

	"github.com/hallway-home/hallway/profiles"
	"github.com/hallway-home/hallway/sessions"
)

// reportEvery is the interval of sender reports (RFC 3550 section 6.2: shorter than 5 s is
// allowed where the bandwidth is; a new viewer's lips are in step with its sound sooner).
const reportEvery = time.Second

// maxUnder packets after a change of the payload type, no source has those before it.
const maxUnder = 1 << 14

// outlet sends what a source delivers to one leg. It implements sessions.Outlet.
type outlet struct {
	leg          *Leg
	audio, video outTrack
}

// outTrack is one kind of media that a source has; track is nil if the leg has it not.
type outTrack struct {
	*track
	codec profiles.Codec // of the source
}

func (o *outlet) of(kind string) *outTrack {
	if kind == "video" {
		return &o.video
	}
	return &o.audio
}

// Takes implements sessions.Outlet.
func (o *outlet) Takes(kind string) bool {
	t := o.of(kind)
	return t.track != nil && t.allowed.Load()
}

// WriteRTP implements sessions.Outlet.
func (o *outlet) WriteRTP(b sessions.Batch) {
	t := o.of(b.Kind)
	if t.track == nil {
		return
	}
	if len(b.Packets) > 1 {
		o.leg.out.gather()
		defer o.leg.out.leave()
	}
	t.write(t.codec, b)
	if b.Live {
		if sr := t.report(t.codec, b.Packets[len(b.Packets)-1].Timestamp, time.Now()); sr != nil {
			_ = o.leg.pc.WriteRTCP([]rtcp.Packet{sr})
		}
	}
}

// track sends one kind of media in whichever agreed codec the source has: the agent
// passes through and never transcodes.
type track struct {
	kind, stream string
	allowed      atomic.Bool
	packets      atomic.Uint64
	bytes        atomic.Uint64

	// Of the goroutine that writes.
	header   rtp.Header // of the packet that leaves; not on the stack, which it would escape
	reported time.Time
	payload  webrtc.PayloadType
	since    uint16 // sequence number from which payload is right
	under    int    // packets sent under it, up to maxUnder

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

// write sends packets if the gate is open and the codec was agreed.
func (t *track) write(c profiles.Codec, b sessions.Batch) {
	if !t.allowed.Load() {
		return
	}
	t.mu.Lock()
	out, ssrc := t.out, t.ssrc
	pt, ok := payloadType(t.codecs, c)
	t.mu.Unlock()
	if out == nil || !ok {
		return
	}
	if pt != t.payload && !b.Again {
		t.payload, t.since, t.under = pt, b.Packets[0].SequenceNumber, 0
	}
	if !b.Again {
		t.under = min(maxUnder, t.under+len(b.Packets))
	}
	var packets, bytes uint64
	for i := range b.Packets {
		p := &b.Packets[i]
		// Under another payload type it would be another packet of that number: SRTP breaks.
		if older := int16(p.SequenceNumber-t.since) < 0; b.Again && t.under < maxUnder && older { // check: payload type of a repair
			continue
		}
		t.header = p.Header
		h := &t.header
		h.Version, h.SSRC, h.PayloadType = 2, ssrc, uint8(t.payload)
		h.CSRC, h.Extension, h.Extensions, h.Padding, h.PaddingSize = nil, false, nil, false, 0
		if _, err := out.WriteRTP(h, p.Payload); err == nil {
			packets++
			bytes += uint64(len(p.Payload))
		}
	}
	t.packets.Add(packets)
	t.bytes.Add(bytes)
}

// payloadType finds the agreed payload type of a codec.
func payloadType(agreed []webrtc.RTPCodecParameters, c profiles.Codec) (webrtc.PayloadType, bool) {
	for i := range agreed {
		if _, name, _ := strings.Cut(agreed[i].MimeType, "/"); strings.EqualFold(name, c.Name) {
			return agreed[i].PayloadType, true
		}
	}
	return 0, false
}

// report is a sender report (RFC 3550 section 6.4.1) when it is due: stamp is now. It is made
// from live packets only, so that what is sent again or from the past moves no clock.
func (t *track) report(c profiles.Codec, stamp uint32, now time.Time) *rtcp.SenderReport {
	if now.Sub(t.reported) < reportEvery || !t.allowed.Load() {
		return nil
	}
	t.mu.Lock()
	ssrc, bound := t.ssrc, t.out != nil
	t.mu.Unlock()
	if !bound || c.ClockRate == 0 {
		return nil
	}
	t.reported = now
	return &rtcp.SenderReport{
		SSRC: ssrc, NTPTime: ntp(now), RTPTime: stamp,
		PacketCount: uint32(t.packets.Load()), OctetCount: uint32(t.bytes.Load()), //nolint:gosec // they wrap
	}
}

// ntp is a time in the format of RFC 5905 section 6.
func ntp(t time.Time) uint64 {
	const from1900 = 2_208_988_800
	return uint64(t.Unix()+from1900)<<32 | uint64(t.Nanosecond())<<32/1_000_000_000 //nolint:gosec // after 1900
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
