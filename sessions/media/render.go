package media

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"

	"github.com/pion/rtcp"
	"github.com/pion/rtp"

	"github.com/hallway-home/hallway/profiles"
	"github.com/hallway-home/hallway/sessions"
)

// pipelineSink is a child that reads RTP from loopback, told where by an SDP file.
type pipelineSink struct {
	conns  map[string]net.Conn // for RTP
	rtcp   map[string]net.Conn // for its reports, one port above (RFC 3550 section 11)
	file   string
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

func openPipelineSink(p profiles.Pipeline, media []sessions.MediaState, log *slog.Logger) (*pipelineSink, error) {
	if err := probe(p.Command); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := &pipelineSink{conns: map[string]net.Conn{}, rtcp: map[string]net.Conn{}, cancel: cancel}
	sdp := "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=Hallway\nc=IN IP4 127.0.0.1\nt=0 0\n"
	for _, m := range media {
		if !m.Direction.Receives() {
			continue
		}
		port, err := freePort()
		if err == nil {
			s.conns[m.Kind], err = net.Dial("udp4", fmt.Sprintf("127.0.0.1:%d", port))
		}
		if err == nil {
			s.rtcp[m.Kind], err = net.Dial("udp4", fmt.Sprintf("127.0.0.1:%d", port+1))
		}
		if err != nil {
			_ = s.Close()
			return nil, err
		}
		sdp += describe(m, port)
	}
	f, err := os.CreateTemp("", "hallway-*.sdp")
	if err == nil {
		s.file = f.Name()
		_, err = f.WriteString(sdp)
		_ = f.Close()
	}
	if err != nil {
		_ = s.Close()
		return nil, err
	}
	command, err := expand(p.Command, map[string]any{"SDP": s.file})
	if err != nil {
		_ = s.Close()
		return nil, err
	}
	s.wg.Go(func() {
		if err := supervise(ctx, command, log); err != nil {
			log.Error("the output failed; the call goes on without it", "err", err)
		}
	})
	return s, nil
}

func describe(m sessions.MediaState, port int) string {
	pt, rate := 96, "90000"
	if m.Kind == "audio" {
		pt, rate = 111, "48000/2"
		if !strings.EqualFold(m.Codec, "opus") {
			rate = "8000"
		}
	}
	return fmt.Sprintf("m=%s %d RTP/AVP %d\na=rtpmap:%d %s/%s\n", m.Kind, port, pt, pt, m.Codec, rate)
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
func (s *pipelineSink) WriteRTP(kind string, _ profiles.Codec, p *rtp.Packet) {
	conn := s.conns[kind]
	if conn == nil {
		return
	}
	c := *p
	c.PayloadType = 96
	if kind == "audio" {
		c.PayloadType = 111
	}
	c.Extension, c.Extensions = false, nil
	if b, err := c.Marshal(); err == nil {
		_, _ = conn.Write(b)
	}
}

// WriteSenderReport implements sessions.Sink: by the reports the child brings sound and
// picture together, as any RTP receiver does (RFC 3550 section 6.4.1).
func (s *pipelineSink) WriteSenderReport(kind string, sr *rtcp.SenderReport) {
	conn := s.rtcp[kind]
	if conn == nil {
		return
	}
	name := &rtcp.SourceDescription{Chunks: []rtcp.SourceDescriptionChunk{{
		Source: sr.SSRC, Items: []rtcp.SourceDescriptionItem{{Type: rtcp.SDESCNAME, Text: "hallway"}}, // one for both: they belong together
	}}}
	if b, err := rtcp.Marshal([]rtcp.Packet{&rtcp.SenderReport{SSRC: sr.SSRC, NTPTime: sr.NTPTime, RTPTime: sr.RTPTime, PacketCount: sr.PacketCount, OctetCount: sr.OctetCount}, name}); err == nil {
		_, _ = conn.Write(b)
	}
}

// NeedsKeyFrame implements sessions.Sink.
func (s *pipelineSink) NeedsKeyFrame() bool { return false }

// Path implements sessions.Sink.
func (s *pipelineSink) Path() string { return "" }

// Close ends the child and frees the ports.
func (s *pipelineSink) Close() error {
	s.cancel()
	s.wg.Wait()
	for _, m := range []map[string]net.Conn{s.conns, s.rtcp} {
		for _, c := range m {
			_ = c.Close()
		}
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
