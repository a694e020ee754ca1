package main

import (
	"bytes"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/pion/rtp"
	"github.com/pion/rtp/codecs"
)

const (
	// The stream: 2 Mbit/s of H.264 at 30 Hz, a key frame every 2 s that is eight times as
	// large as the others. The pictures hold no picture, since nobody on the way decodes them:
	// each carries its number and the time it left.
	rate, gop         = 30, 60
	keyBytes, pBytes  = 60_000, 7_458
	payloadMTU        = 1180
	stampDigits, skip = 16, 2 // hexadecimal digits of the time; NAL header and one more byte before
)

// camera sends RTP until it is ended: as the child of a pipeline to a port on loopback, or
// to a host and port, for comparison.
func camera(to string) error {
	if !strings.Contains(to, ":") {
		to = "127.0.0.1:" + to
	}
	conn, err := net.Dial("udp4", to)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	pack := rtp.NewPacketizer(payloadMTU+12, 96, 0x1234, &codecs.H264Payloader{}, rtp.NewRandomSequencer(), 90000)
	start := time.Now()
	for frame := 0; ; frame++ {
		time.Sleep(time.Until(start.Add(time.Duration(frame) * time.Second / rate)))
		for _, p := range pack.Packetize(picture(frame, time.Now()), 90000/rate) {
			b, err := p.Marshal()
			if err != nil {
				return err
			}
			_, _ = conn.Write(b) // nobody listens yet, or not any more
		}
	}
}

// picture is one access unit in the byte stream format (ITU-T H.264 annex B).
func picture(frame int, now time.Time) []byte {
	nal := func(kind byte, size int) []byte {
		b := append([]byte{0, 0, 0, 1, kind, 0xaa}, fmt.Sprintf("%016x%08x", now.UnixNano(), frame)...)
		return append(b, bytes.Repeat([]byte{0xaa}, size)...)
	}
	if frame%gop != 0 {
		return nal(0x41, pBytes)
	}
	sps, pps := parameterSets()
	out := append([]byte{0, 0, 0, 1}, sps...)
	out = append(append(out, 0, 0, 0, 1), pps...)
	return append(out, nal(0x65, keyBytes)...)
}

// parameterSets are real ones, of 1920x1080: who describes a stream may look into them.
func parameterSets() (sps, pps []byte) {
	sps = []byte{0x67, 0x42, 0xc0, 0x28, 0xd9, 0x00, 0x78, 0x02, 0x27, 0xe5, 0x84, 0x00, 0x00, 0x03, 0x00, 0x04, 0x00, 0x00, 0x03, 0x00, 0xf0, 0x3c, 0x60, 0xc9, 0x20}
	return sps, []byte{0x68, 0xce, 0x3c, 0x80}
}
