package media

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/rtp"

	"github.com/hallway-home/hallway/profiles"
	"github.com/hallway-home/hallway/sessions"
)

// pipelineSink is a child that reads RTP from loopback, told where by an SDP file. When
// the other side changes its codec, the child is told anew.
type pipelineSink struct {
	pipe    profiles.Pipeline
	volume  *volume
	log     *slog.Logger
	file    string
	cancel  context.CancelFunc
	changed chan struct{}
	wg      sync.WaitGroup

	wake chan struct{} // a child begins

	mu      sync.Mutex
	outs    []*output
	command []string
	waits   bool // for the beginning of a picture
	live    bool // a child listens and has all that was kept for it
	health  health
}

// output is one kind of media, on its port.
type output struct {
	kind  string
	codec profiles.Codec
	port  int
	conn  net.Conn // for RTP
	// for its reports, one port above (RFC 3550 section 11)
	reports net.Conn
	report  []byte // the newest, for a child that begins later
	kept    group  // of the picture
}

func openPipelineSink(p profiles.Pipeline, media []sessions.MediaState, v *volume, log *slog.Logger) (*pipelineSink, error) {
	if err := installed(p.Command); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := &pipelineSink{pipe: p, volume: v, log: log, cancel: cancel, changed: make(chan struct{}, 1), wake: make(chan struct{}, 1)}
	err := s.prepare(media)
	s.health.what = "The loudspeaker of this device"
	if slices.ContainsFunc(s.outs, func(o *output) bool { return o.kind == "video" }) {
		s.health.what = "The screen of this device"
	}
	if err == nil {
		err = s.compose()
	}
	if err != nil {
		_ = s.Close()
		return nil, err
	}
	v.follow(s)
	s.wg.Go(func() { s.run(ctx) })
	s.wg.Go(func() { s.serve(ctx) })
	return s, nil
}

// prepare makes a port for each kind that comes, and the file that names them.
func (s *pipelineSink) prepare(media []sessions.MediaState) error {
	for _, m := range media {
		if !m.Direction.Receives() {
			continue
		}
		port, err := freePort()
		if err != nil {
			return err
		}
		conn, err := net.Dial("udp4", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			return err
		}
		reports, err := net.Dial("udp4", fmt.Sprintf("127.0.0.1:%d", port+1))
		if err != nil {
			return errors.Join(err, conn.Close())
		}
		codec, ok := profiles.Known(m.Codec)
		if !ok {
			codec = profiles.Codec{Name: m.Codec, ClockRate: 90000}
		}
		s.outs = append(s.outs, &output{kind: m.Kind, codec: codec, port: port, conn: conn, reports: reports})
	}
	f, err := os.CreateTemp("", "hallway-*.sdp")
	if err != nil {
		return err
	}
	s.file = f.Name()
	return f.Close()
}

// compose writes the file and the command for what comes now; mu is held, or nobody else
// knows the sink yet.
func (s *pipelineSink) compose() error {
	sdp := "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=Hallway\nc=IN IP4 127.0.0.1\nt=0 0\n"
	command := slices.Clone(s.pipe.Command)
	for _, o := range s.outs {
		sdp += describe(o.codec, o.kind, o.port)
		if part := s.pipe.Of(o.kind); part != nil {
			command = append(command, part.Output...)
		}
	}
	if err := os.WriteFile(s.file, []byte(sdp), 0o600); err != nil {
		return err
	}
	level := s.volume.get()
	command, err := expand(command, map[string]any{"SDP": s.file, "Volume": level, "Gain": fmt.Sprintf("%.2f", float64(level)/FullVolume)}, nil)
	s.command = command
	return err
}

// next is the command of the child that starts now.
func (s *pipelineSink) next() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.awaitChild()
	if err := s.compose(); err != nil {
		s.log.Error("the output cannot be described to its program", "err", err)
	}
	s.health.begins(s.command[0], time.Now())
	return s.command
}

// renew starts the child again, with what is true now.
func (s *pipelineSink) renew() {
	if !takesVolume(s.pipe) {
		return
	}
	s.restart()
}

func (s *pipelineSink) restart() {
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

func takesVolume(p profiles.Pipeline) bool {
	words := slices.Clone(p.Command)
	if p.Audio != nil {
		words = append(words, p.Audio.Output...)
	}
	text := strings.Join(words, " ")
	return strings.Contains(text, "{{.Volume}}") || strings.Contains(text, "{{.Gain}}")
}

// Payload types towards the child; the file names them.
const videoPT, audioPT = 96, 111

func payloadType(kind string) uint8 {
	if kind == "video" {
		return videoPT
	}
	return audioPT
}

func describe(c profiles.Codec, kind string, port int) string {
	rate := fmt.Sprint(c.ClockRate)
	if c.Channels > 1 {
		rate += fmt.Sprintf("/%d", c.Channels)
	}
	pt := payloadType(kind)
	sdp := fmt.Sprintf("m=%s %d RTP/AVP %d\na=rtpmap:%d %s/%s\n", kind, port, pt, pt, c.Name, rate)
	if strings.EqualFold(c.Name, "H264") {
		sdp += fmt.Sprintf("a=fmtp:%d packetization-mode=1\n", pt)
	}
	return sdp
}

// freePort asks the kernel for a port that a child can take; even, because some take
// the next one for RTCP.
func freePort() (int, error) {
	for range 50 {
		c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			return 0, err
		}
		port := c.LocalAddr().(*net.UDPAddr).Port
		_ = c.Close()
		if port%2 == 0 {
			return port, nil
		}
	}
	return 0, fmt.Errorf("no free UDP port on loopback")
}

// WriteRTP implements sessions.Sink.
func (s *pipelineSink) WriteRTP(kind string, codec profiles.Codec, p *rtp.Packet) {
	s.mu.Lock()
	i := slices.IndexFunc(s.outs, func(o *output) bool { return o.kind == kind })
	if i < 0 {
		s.mu.Unlock()
		return
	}
	o := s.outs[i]
	if !strings.EqualFold(o.codec.Name, codec.Name) {
		o.codec, o.kept = codec, group{}
		s.restart()
	}
	s.mu.Unlock()
	c := *p
	c.PayloadType = payloadType(kind)
	c.Extension, c.Extensions = false, nil
	b, err := c.Marshal()
	if err != nil {
		return
	}
	if kind == "video" {
		s.showPicture(o, b, startsKeyFrame(codec, p.Payload))
		return
	}
	_, _ = o.conn.Write(b) // sound that no program took is over
}

// WriteSenderReport implements sessions.Sink: by the reports the child brings sound and
// picture together, as any RTP receiver does (RFC 3550 section 6.4.1).
func (s *pipelineSink) WriteSenderReport(kind string, sr *rtcp.SenderReport) {
	s.mu.Lock()
	i := slices.IndexFunc(s.outs, func(o *output) bool { return o.kind == kind })
	s.mu.Unlock()
	if i < 0 {
		return
	}
	name := &rtcp.SourceDescription{Chunks: []rtcp.SourceDescriptionChunk{{
		Source: sr.SSRC, Items: []rtcp.SourceDescriptionItem{{Type: rtcp.SDESCNAME, Text: "hallway"}}, // one for both: they belong together
	}}}
	if b, err := rtcp.Marshal([]rtcp.Packet{&rtcp.SenderReport{SSRC: sr.SSRC, NTPTime: sr.NTPTime, RTPTime: sr.RTPTime, PacketCount: sr.PacketCount, OctetCount: sr.OctetCount}, name}); err == nil {
		_, _ = s.outs[i].reports.Write(b)
		s.mu.Lock()
		s.outs[i].report = b
		s.mu.Unlock()
	}
}

// NeedsKeyFrame implements sessions.Sink: a child that has just begun knows nothing of
// the picture.
func (s *pipelineSink) NeedsKeyFrame() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.waits
}

// Path implements sessions.Sink.
func (s *pipelineSink) Path() string { return "" }

// Close ends the child and frees the ports.
func (s *pipelineSink) Close() error {
	s.volume.leave(s)
	s.cancel()
	s.wg.Wait()
	for _, o := range s.outs {
		_ = errors.Join(o.conn.Close(), o.reports.Close())
	}
	if s.file != "" {
		_ = os.Remove(s.file)
	}
	return nil
}

// nothing is the sink of a device that shows nothing.
type nothing struct{}

func (nothing) WriteRTP(string, profiles.Codec, *rtp.Packet) {}
func (nothing) WriteSenderReport(string, *rtcp.SenderReport) {}
func (nothing) NeedsKeyFrame() bool                          { return false }
func (nothing) Path() string                                 { return "" }
func (nothing) Close() error                                 { return nil }
