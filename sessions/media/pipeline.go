package media

import (
	"context"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/rtp"

	"github.com/hallway-home/hallway/profiles"
	"github.com/hallway-home/hallway/sessions"
)

// program is a child that makes whatever codecs its viewers have agreed on: one encode of
// each, in one process, since a camera opens once. A codec that nobody had before starts
// the child anew; viewers of the others notice a gap of a moment.
type program struct {
	ctx      context.Context // ends with the last viewer
	pipe     profiles.Pipeline
	encoders *Encoders
	wg       *sync.WaitGroup
	log      *slog.Logger
	packets  atomic.Int64
	changed  chan struct{}
	health   *health

	mu      sync.RWMutex
	feeds   []*feed // audio before video, in the order in which they were asked for
	command []string
	views   map[string]*pipelineSource // by the codecs that they have
	done    chan struct{}
	err     error
}

// feed is one codec of a program, as RTP on a port of loopback.
type feed struct {
	kind    string
	codec   profiles.Codec
	encoder []string
	conn    *net.UDPConn
	views   []*pipelineSource
}

// pipelineSource is what one set of codecs gets from a program.
type pipelineSource struct {
	*Hub
	p      *program
	tracks []sessions.Track
}

func openProgram(ctx context.Context, p profiles.Pipeline, encoders *Encoders, wg *sync.WaitGroup, log *slog.Logger) (*program, error) {
	if err := installed(p.Command); err != nil {
		return nil, err
	}
	return &program{
		ctx: ctx, pipe: p, encoders: encoders, wg: wg, log: log,
		health: &health{what: "The camera or microphone of this device"}, changed: make(chan struct{}, 1), views: map[string]*pipelineSource{}, done: make(chan struct{}),
	}, nil
}

// view gives the source for what a leg has agreed on; nil: this pipeline makes nothing of
// it. Without media it gives every kind in its first codec.
func (p *program) view(ctx context.Context, media []sessions.MediaState) (sessions.Source, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var key string
	var feeds []*feed
	begin := len(p.feeds) == 0
	before := len(p.feeds)
	for _, kind := range profiles.Kinds() {
		codec, ok := p.choose(kind, media)
		if !ok {
			continue
		}
		f, err := p.feed(ctx, kind, codec)
		if err != nil {
			return nil, err
		}
		feeds = append(feeds, f)
		key += codec.Name + " "
	}
	if len(feeds) == 0 {
		return nil, nil //nolint:nilnil // a device that sends nothing is no error
	}
	v := p.views[key]
	if v == nil {
		v = &pipelineSource{Hub: NewHub(), p: p}
		for _, f := range feeds {
			v.tracks = append(v.tracks, sessions.Track{Kind: f.kind, Codec: f.codec})
			f.views = append(f.views, v)
		}
		p.views[key] = v
	}
	if len(p.feeds) == before {
		return v, nil
	}
	command, err := p.compose()
	if err != nil {
		return nil, err
	}
	p.command = command
	if begin {
		p.wg.Go(p.run)
		return v, nil
	}
	select {
	case p.changed <- struct{}{}:
	default: // the supervisor knows already
	}
	return v, nil
}

// choose picks the codec for one kind: the first that was agreed and that the pipeline has.
func (p *program) choose(kind string, media []sessions.MediaState) (profiles.Codec, bool) {
	s := p.pipe.Of(kind)
	if s == nil {
		return profiles.Codec{}, false
	}
	if media == nil {
		return profiles.Known(s.Codecs[0])
	}
	for _, m := range media {
		if m.Kind == kind && m.Direction.Sends() {
			return profiles.Medium{Makes: s.Codecs}.Choose(m.Codecs)
		}
	}
	return profiles.Codec{}, false
}

// feed finds or opens the port of one codec; mu is held.
func (p *program) feed(ctx context.Context, kind string, codec profiles.Codec) (*feed, error) {
	for _, f := range p.feeds {
		if f.codec.Name == codec.Name {
			return f, nil
		}
	}
	f := &feed{kind: kind, codec: codec}
	if slices.Contains(p.pipe.Of(kind).Output, "{{.Encoder}}") {
		e, err := p.encoders.Pick(ctx, p.pipe.Command[0], codec.Name)
		if err != nil {
			return nil, err
		}
		f.encoder = e.Args
	}
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return nil, err
	}
	f.conn = conn
	context.AfterFunc(p.ctx, func() { _ = conn.Close() })
	p.wg.Go(func() { p.read(f) })
	p.feeds = append(p.feeds, f)
	return f, nil
}

// compose makes the command for the codecs in use: inputs first, as ffmpeg wants it.
func (p *program) compose() ([]string, error) {
	command := slices.Clone(p.pipe.Command)
	input, n := map[string]int{}, 0
	for _, kind := range profiles.Kinds() {
		used := slices.ContainsFunc(p.feeds, func(f *feed) bool { return f.kind == kind })
		if used && len(p.pipe.Of(kind).Input) > 0 {
			command = append(command, p.pipe.Of(kind).Input...)
			input[kind] = n
			n++
		}
	}
	command, err := expand(command, nil, nil)
	for _, f := range p.feeds {
		var out []string
		if err == nil {
			out, err = expand(p.pipe.Of(f.kind).Output, map[string]any{"Input": input[f.kind], "Port": f.conn.LocalAddr().(*net.UDPAddr).Port}, f.encoder)
		}
		command = append(command, out...)
	}
	return command, err
}

func (p *program) run() {
	err := supervisor{
		command: func() []string {
			p.mu.RLock()
			defer p.mu.RUnlock()
			p.health.begins(p.command[0], time.Now())
			return p.command
		},
		changed: p.changed, packets: &p.packets, ended: p.health.fails, patience: usual(), log: p.log,
	}.run(p.ctx)
	if err != nil {
		p.mu.Lock()
		p.err = err
		p.mu.Unlock()
		close(p.done)
	}
}

func (p *program) read(f *feed) {
	buf := make([]byte, 2048)
	line := TimeLine{Clock: float64(f.codec.ClockRate)}
	for {
		n, err := f.conn.Read(buf)
		if err != nil {
			return
		}
		packet := &rtp.Packet{}
		if err := packet.Unmarshal(append([]byte(nil), buf[:n]...)); err != nil {
			continue
		}
		p.packets.Add(1)
		line.Join(packet, time.Now())
		key := f.kind == "video" && startsKeyFrame(f.codec, packet.Payload)
		p.mu.RLock()
		for _, v := range f.views {
			v.Publish(f.kind, packet, key)
		}
		p.mu.RUnlock()
	}
}

// TimeLine makes one continuous stream of what a child and its successors send, or the
// connections to a camera: a jump back in sequence numbers would put SRTP at the other side
// out of step for good. One goroutine uses it at a time.
type TimeLine struct {
	Clock float64 // Hz
	begun bool
	renew bool
	ssrc  uint32
	seq   uint16 // added to each sequence number
	stamp uint32 // added to each time stamp
	last  struct {
		seq   uint16
		stamp uint32
		at    time.Time
	}
}

// Join gives a packet the number and the time stamp that it has in the continuous stream.
func (l *TimeLine) Join(p *rtp.Packet, now time.Time) {
	if l.begun && (p.SSRC != l.ssrc || l.renew) {
		l.seq = l.last.seq + 1 - p.SequenceNumber
		l.stamp = l.last.stamp + uint32(now.Sub(l.last.at).Seconds()*l.Clock) - p.Timestamp
	}
	l.begun, l.renew, l.ssrc = true, false, p.SSRC
	p.SequenceNumber += l.seq
	p.Timestamp += l.stamp
	l.last.seq, l.last.stamp, l.last.at = p.SequenceNumber, p.Timestamp, now
}

// Renew says that the next packet is of a new stream, whatever its SSRC.
func (l *TimeLine) Renew() { l.renew = true }

// Skip says that n more numbers were used after the last packet.
func (l *TimeLine) Skip(n uint16) {
	l.seq += n
	l.last.seq += n
}

// Extra is the header of one packet more after the last, of the same time.
func (l *TimeLine) Extra() rtp.Header {
	l.Skip(1)
	return rtp.Header{Version: 2, SSRC: l.ssrc, SequenceNumber: l.last.seq, Timestamp: l.last.stamp}
}

// startsKeyFrame looks for the first packet of a key frame: SPS of H.264 (RFC 6184), VPS or
// SPS of H.265 (RFC 7798), or the key bit of VP8 (RFC 7741).
func startsKeyFrame(c profiles.Codec, b []byte) bool {
	if len(b) < 5 {
		return false
	}
	switch strings.ToUpper(c.Name) {
	case "VP8":
		return vp8Key(b)
	case "H265":
		return h265Starts(b)
	}
	switch b[0] & 0x1f {
	case 7: // SPS alone
		return true
	case 24: // STAP-A: SPS comes first
		return b[3]&0x1f == 7
	}
	return false
}

// h265Starts: the parameter sets stand before the picture, alone or in an aggregation
// packet (RFC 7798 sections 4.4.1 and 4.4.2).
func h265Starts(b []byte) bool {
	kind := b[0] >> 1 & 0x3f
	if kind == 48 {
		kind = b[4] >> 1 & 0x3f
	}
	return kind == 32
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
func (s *pipelineSource) Done() <-chan struct{} { return s.p.done }

// Err implements sessions.Source.
func (s *pipelineSource) Err() error {
	s.p.mu.RLock()
	defer s.p.mu.RUnlock()
	return s.p.err
}
