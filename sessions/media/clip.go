package media

import (
	"context"
	"strings"
	"sync"
	"time"

	"github.com/pion/rtp"
	"github.com/pion/rtp/codecs"

	"github.com/hallway-home/hallway/profiles"
	"github.com/hallway-home/hallway/sessions"
)

const (
	// MTU bounds RTP payloads, in bytes: what fits any home network with DTLS-SRTP on top.
	MTU = 1180
	// maxBehind is how far a clip may fall behind real time and still catch up.
	maxBehind = time.Second
)

// clip plays a file in a loop, in real time, with continuous time stamps.
type clip struct {
	*Hub
	file *clipFile
	done chan struct{}
}

func openClip(ctx context.Context, path string, wg *sync.WaitGroup) (*clip, error) {
	file, err := loadClip(path)
	if err != nil {
		return nil, err
	}
	c := &clip{Hub: NewHub(), file: file, done: make(chan struct{})}
	wg.Go(func() { c.play(ctx) })
	return c, nil
}

// Tracks implements sessions.Source.
func (c *clip) Tracks() []sessions.Track { return c.file.tracks }

// Done implements sessions.Source; a clip never fails once it is open.
func (c *clip) Done() <-chan struct{} { return c.done }

// Err implements sessions.Source.
func (c *clip) Err() error { return nil }

func (c *clip) play(ctx context.Context) {
	packers := map[string]*packer{}
	for _, t := range c.file.tracks {
		packers[t.Kind] = newPacker(t.Codec)
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	start := time.Now()
	for loop := time.Duration(0); ; loop++ {
		for _, f := range c.file.frames {
			at := loop*c.file.length + f.at
			wait := time.Until(start.Add(at))
			if wait < -maxBehind { // the machine slept: go on from here instead of catching up
				start = start.Add(-wait)
			}
			timer.Reset(wait)
			select {
			case <-ctx.Done():
				return
			case <-timer.C:
			}
			for i, p := range packers[f.kind].pack(f.data, at) {
				c.Publish(f.kind, p, f.key && i == 0)
			}
		}
	}
}

// packer cuts the frames of one track into RTP packets (RFC 6184, 7741, 7587, 3551).
type packer struct {
	payloader rtp.Payloader
	clock     uint64
	seq       uint16
}

func newPacker(c profiles.Codec) *packer {
	p := &packer{clock: uint64(c.ClockRate)}
	switch strings.ToUpper(c.Name) {
	case "H264":
		p.payloader = &codecs.H264Payloader{}
	case "H265":
		p.payloader = &codecs.H265Payloader{}
	case "VP8":
		p.payloader = &codecs.VP8Payloader{EnablePictureID: true}
	case "OPUS":
		p.payloader = &codecs.OpusPayloader{}
	default:
		p.payloader = &codecs.G711Payloader{}
	}
	return p
}

func (p *packer) pack(data []byte, at time.Duration) []*rtp.Packet {
	stamp := uint32(uint64(at.Microseconds()) * p.clock / 1_000_000) //nolint:gosec // RTP time stamps wrap
	var out []*rtp.Packet
	parts := p.payloader.Payload(MTU, data)
	for i, b := range parts {
		p.seq++
		out = append(out, &rtp.Packet{
			Header:  rtp.Header{Version: 2, Marker: i == len(parts)-1, SequenceNumber: p.seq, Timestamp: stamp},
			Payload: b,
		})
	}
	return out
}
