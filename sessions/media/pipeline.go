package media

import (
	"context"
	"log/slog"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/pion/rtp"

	"github.com/hallway-home/hallway/profiles"
	"github.com/hallway-home/hallway/sessions"
)

// pipelineSource is a child that sends RTP to ports on loopback.
type pipelineSource struct {
	*hub
	tracks []sessions.Track
	done   chan struct{}
	mu     sync.Mutex
	err    error
}

func openPipelineSource(ctx context.Context, p profiles.Pipeline, wg *sync.WaitGroup, log *slog.Logger) (*pipelineSource, error) {
	if err := probe(p.Command); err != nil {
		return nil, err
	}
	s := &pipelineSource{hub: newHub(), done: make(chan struct{})}
	words := map[string]any{}
	for kind, codec := range map[string]*profiles.Codec{"video": p.Video, "audio": p.Audio} {
		if codec == nil {
			continue
		}
		conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			return nil, err
		}
		context.AfterFunc(ctx, func() { _ = conn.Close() })
		words[strings.ToUpper(kind[:1])+kind[1:]+"Port"] = conn.LocalAddr().(*net.UDPAddr).Port
		s.tracks = append(s.tracks, sessions.Track{Kind: kind, Codec: *codec})
		wg.Go(func() { s.read(conn, kind, *codec) })
	}
	command, err := expand(p.Command, words)
	if err != nil {
		return nil, err
	}
	wg.Go(func() {
		if err := supervise(ctx, command, log); err != nil {
			s.mu.Lock()
			s.err = err
			s.mu.Unlock()
			close(s.done)
		}
	})
	return s, nil
}

func (s *pipelineSource) read(conn *net.UDPConn, kind string, codec profiles.Codec) {
	buf := make([]byte, 2048)
	line := timeLine{clock: float64(codec.ClockRate)}
	for {
		n, err := conn.Read(buf)
		if err != nil {
			return
		}
		p := &rtp.Packet{}
		if err := p.Unmarshal(append([]byte(nil), buf[:n]...)); err != nil {
			continue
		}
		line.join(p, time.Now())
		s.publish(kind, p, kind == "video" && startsKeyFrame(codec, p.Payload))
	}
}

// timeLine makes one continuous stream of what a child and its successors send: a jump
// back in sequence numbers would put SRTP at the other side out of step for good.
type timeLine struct {
	clock float64
	begun bool
	ssrc  uint32
	seq   uint16 // added to each sequence number
	stamp uint32 // added to each time stamp
	last  struct {
		seq   uint16
		stamp uint32
		at    time.Time
	}
}

func (l *timeLine) join(p *rtp.Packet, now time.Time) {
	if l.begun && p.SSRC != l.ssrc {
		l.seq = l.last.seq + 1 - p.SequenceNumber
		l.stamp = l.last.stamp + uint32(now.Sub(l.last.at).Seconds()*l.clock) - p.Timestamp
	}
	l.begun, l.ssrc = true, p.SSRC
	p.SequenceNumber += l.seq
	p.Timestamp += l.stamp
	l.last.seq, l.last.stamp, l.last.at = p.SequenceNumber, p.Timestamp, now
}

// startsKeyFrame looks for the first packet of a key frame: SPS or IDR of H.264 (RFC
// 6184), or the key bit of VP8 (RFC 7741).
func startsKeyFrame(c profiles.Codec, b []byte) bool {
	if len(b) < 4 {
		return false
	}
	if strings.EqualFold(c.Name, "VP8") {
		return vp8Key(b)
	}
	switch b[0] & 0x1f {
	case 7: // SPS alone
		return true
	case 24: // STAP-A: SPS comes first
		return b[3]&0x1f == 7
	}
	return false
}

// vp8Key skips the payload descriptor and looks at the frame tag.
func vp8Key(b []byte) bool {
	if b[0]&0x10 == 0 { // not the start of a partition
		return false
	}
	i := 1
	if b[0]&0x80 != 0 {
		x := b[1]
		i++
		if x&0x80 != 0 && i < len(b) {
			if b[i]&0x80 != 0 {
				i++
			}
			i++
		}
		if x&0x40 != 0 {
			i++
		}
		if x&0x30 != 0 {
			i++
		}
	}
	return i < len(b) && b[i]&1 == 0
}

// Tracks implements sessions.Source.
func (s *pipelineSource) Tracks() []sessions.Track { return s.tracks }

// Done implements sessions.Source.
func (s *pipelineSource) Done() <-chan struct{} { return s.done }

// Err implements sessions.Source.
func (s *pipelineSource) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}
