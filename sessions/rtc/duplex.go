package rtc

import (
	"math"
	"strings"
	"sync"
	"time"

	"github.com/bluenviron/mediacommon/v2/pkg/codecs/g711"
	"github.com/gotranspile/g722"
	"github.com/pion/opus"

	"github.com/hallway-home/hallway/profiles"
)

const (
	// speechLevel is what counts as somebody speaking, in dBov (RFC 6464 section 3): speech at
	// a microphone is at -30, the hiss of a room below -60.
	speechLevel = -45
	// hangover keeps the microphone shut through the pauses between words, and while the room
	// still sounds.
	hangover = 400 * time.Millisecond
	// maxOpusSamples are 120 ms of stereo, the longest packet (RFC 6716 section 2.1.4).
	maxOpusSamples = 5760 * 2
)

// duplex keeps the microphone shut while the far end speaks, on a device whose loudspeaker
// would come back through it. What is sent meanwhile is silence and not nothing, so that the
// other side counts no loss. The level is found by decoding what arrives: a header extension
// (RFC 6464) would need the sender to decode as well, and to be believed. Safe for
// concurrent use; a nil duplex is full duplex.
type duplex struct {
	mu       sync.Mutex
	opus     *opus.Decoder
	g722     *g722.Decoder
	quiet    *g722.Encoder // of what is sent instead of the microphone
	samples  []float32
	speaking time.Time // when the far end was last heard speaking
}

// hear takes one packet of the far end's sound. Sound that cannot be decoded opens and shuts
// nothing.
func (d *duplex) hear(c profiles.Codec, payload []byte, now time.Time) {
	if d == nil || len(payload) == 0 {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if level, ok := d.level(c, payload); ok && level > speechLevel {
		d.speaking = now
	}
}

// shut reports whether the far end is speaking.
func (d *duplex) shut(now time.Time) bool {
	if d == nil {
		return false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return !d.speaking.IsZero() && now.Sub(d.speaking) < hangover
}

// level is that of one packet in dBov; mu is held.
func (d *duplex) level(c profiles.Codec, payload []byte) (float64, bool) {
	switch name := strings.ToUpper(c.Name); name {
	case "OPUS":
		return d.opusLevel(payload)
	case "G722":
		return d.g722Level(payload)
	case "PCMU":
		var s g711.Mulaw
		s.Unmarshal(payload)
		return pcmLevel(s), true
	case "PCMA":
		var s g711.Alaw
		s.Unmarshal(payload)
		return pcmLevel(s), true
	}
	return 0, false
}

// opusLevel decodes. The decoder is young and the packet is a stranger's: a panic in it must
// not end the agent for the sake of a level.
func (d *duplex) opusLevel(payload []byte) (level float64, ok bool) {
	defer func() {
		if recover() != nil {
			d.opus, level, ok = nil, 0, false
		}
	}()
	if d.opus == nil {
		dec, err := opus.NewDecoderWithOutput(48000, 1)
		if err != nil {
			return 0, false
		}
		d.opus, d.samples = &dec, make([]float32, maxOpusSamples)
	}
	n, err := d.opus.DecodeToFloat32(payload, d.samples)
	if err != nil || n == 0 {
		return 0, false
	}
	sum := 0.0
	for _, s := range d.samples[:n] {
		sum += float64(s) * float64(s)
	}
	mean := sum / float64(n)
	if math.IsNaN(mean) {
		return 0, false
	}
	return decibel(min(mean, 1)), true // what is beyond full scale is clipped when it is played
}

// maxG722 bounds what of a packet is decoded: 200 ms (RFC 3551 section 4.2).
const maxG722 = 1600

// g722Level decodes both bands. The decoder goes on from packet to packet, as the sender's
// encoder does (ITU-T G.722 is adaptive).
func (d *duplex) g722Level(payload []byte) (level float64, ok bool) {
	payload = payload[:min(len(payload), maxG722)]
	if d.g722 == nil {
		d.g722 = g722.NewDecoder(g722.Rate64000, 0)
	}
	pcm := make([]int16, 2*len(payload))
	n := d.g722.Decode(pcm, payload)
	sum := 0.0
	for _, s := range pcm[:n] {
		sum += float64(s) * float64(s) / (32768 * 32768)
	}
	return decibel(sum / float64(max(1, n))), n > 0
}

// pcmLevel is the level of 16-bit big-endian samples.
func pcmLevel(pcm []byte) float64 {
	sum := 0.0
	for i := 0; i+1 < len(pcm); i += 2 {
		s := float64(int16(uint16(pcm[i])<<8|uint16(pcm[i+1]))) / 32768 //nolint:gosec // two's complement
		sum += s * s
	}
	return decibel(sum / float64(max(1, len(pcm)/2)))
}

func decibel(power float64) float64 { return 10 * math.Log10(max(power, 1e-12)) }

// silence is what is sent instead of n bytes of sound; false if the codec has none that is
// known here.
func (d *duplex) silence(c profiles.Codec, n int) ([]byte, bool) {
	switch strings.ToUpper(c.Name) {
	case "OPUS":
		return []byte{0xf8, 0xff, 0xfe}, true // 20 ms of CELT without energy (RFC 6716 section 3.1)
	case "G722":
		return d.g722Silence(n), true
	case "PCMU":
		return fill(n, 0xff), true
	case "PCMA":
		return fill(n, 0xd5), true
	}
	return nil, false
}

// g722Silence comes from one encoder that goes on: no word repeated for ever is silence in
// an adaptive code, and one begun anew in each packet hums at -44 dBov.
func (d *duplex) g722Silence(n int) []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.quiet == nil {
		d.quiet = g722.NewEncoder(g722.Rate64000, 0)
	}
	out := make([]byte, min(n, maxG722))
	return out[:d.quiet.Encode(out, make([]int16, 2*len(out)))]
}

func fill(n int, b byte) []byte {
	out := make([]byte, n)
	for i := range out {
		out[i] = b
	}
	return out
}
