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
	if b.Kind == "audio" && o.leg.duplex.shut(time.Now()) {
		for i := range b.Packets {
			if quiet, ok := o.leg.duplex.silence(t.codec, len(b.Packets[i].Payload)); ok {
				b.Packets[i].Payload = quiet
			}
		}
	}
	if len(b.Packets) > 1 {
		o.leg.out.gather()
		defer o.leg.out.leave()
	}
	t.write(t.codec, b)
	if b.Live {
		if sr := t.report(t.codec, b.Packets[len(b.Packets)-1].Timestamp, b.At, time.Now()); sr != nil {
			_ = o.leg.pc.WriteRTCP([]rtcp.Packet{sr})
		}
	}
}

// track sends one kind of media in whichever agreed codec the source has: the agent
// passes through and never transcodes.
type track struct {
	kind, id string
	allowed  atomic.Bool
	packets  atomic.Uint64
	bytes    atomic.Uint64

	// Of the goroutine that writes.
	header   rtp.Header // of the packet that leaves; not on the stack, which it would escape
	reported time.Time
	payload  webrtc.PayloadType
	since    uint16 // sequence number from which payload is right
	under    int    // packets sent under it, up to maxUnder

	mu     sync.Mutex
	clock  uint32 // of the codec that is sent
	out    webrtc.TrackLocalWriter
	ssrc   uint32
	codecs []webrtc.RTPCodecParameters
}

func newTrack(kind, stream string) *track { return &track{kind: kind, id: stream} }

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
func (t *track) StreamID() string { return t.id }

// Kind implements webrtc.TrackLocal.
func (t *track) Kind() webrtc.RTPCodecType { return webrtc.NewRTPCodecType(t.kind) }

// allow opens and closes the gate by what was agreed.
func (t *track) allow(send bool) { t.allowed.Store(send) }

// stream is what its receiver reports on, and the rate of its clock.
func (t *track) stream() (ssrc uint32, clock float64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.ssrc, float64(t.clock)
}

func (t *track) sent() (packets, bytes uint64) { return t.packets.Load(), t.bytes.Load() }

// write sends packets if the gate is open and the codec was agreed.
func (t *track) write(c profiles.Codec, b sessions.Batch) {
	if !t.allowed.Load() {
		return
	}
	t.mu.Lock()
	out, ssrc := t.out, t.ssrc
	pt, ok := payloadType(t.codecs, c)
	t.clock = c.ClockRate
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

// report is a sender report (RFC 3550 section 6.4.1) when it is due: stamp is of the moment
// at, as the source says. It is made
// from live packets only, so that what is sent again or from the past moves no clock.
func (t *track) report(c profiles.Codec, stamp uint32, at, now time.Time) *rtcp.SenderReport {
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
		SSRC: ssrc, NTPTime: ntp(at), RTPTime: stamp,
		PacketCount: uint32(t.packets.Load()), OctetCount: uint32(t.bytes.Load()), //nolint:gosec // they wrap
	}
}

// ntp is a time in the format of RFC 5905 section 6.
func ntp(t time.Time) uint64 {
	const from1900 = 2_208_988_800
	return uint64(t.Unix()+from1900)<<32 | uint64(t.Nanosecond())<<32/1_000_000_000 //nolint:gosec // after 1900
}
