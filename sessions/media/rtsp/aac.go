package rtsp

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os/exec"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bluenviron/gortsplib/v4/pkg/format"
	"github.com/bluenviron/gortsplib/v4/pkg/format/rtpmpeg4audio"
	"github.com/pion/rtp"

	"github.com/hallway-home/hallway/sessions/media"
)

const (
	// aacTicks of the source's clock is a frame of AAC-LC (ISO/IEC 14496-3 section 4.5.1.1).
	aacTicks = 1024
	// aacQueue bounds the frames that wait for the child: 2 s at 16 kHz. More are dropped: the
	// camera's connection waits for nobody.
	aacQueue = 32
	// aacLinger is how long the child outlives its last listener, aacLook how often that is
	// looked at: somebody who comes at once finds it running.
	aacLinger, aacLook = time.Second, 250 * time.Millisecond
	// aacAgain is the pause after a child was given up.
	aacAgain = 30 * time.Second
	// aacLate: sound that comes back later than this is of no use to anybody.
	aacLate = time.Second
	// aacLongest is how long one child goes on: FLV's time stamps have 31 bits, in ms.
	aacLongest = 7 * 24 * time.Hour
	// aacJump: time stamps that jump this far, in seconds, were begun anew by the camera.
	aacJump = 10
	// opusRate is Opus's clock (RFC 7587 section 4.1), opusFrame what a packet of ours lasts,
	// opusAhead how far the encoder looks ahead, by which what it says of time is late.
	opusRate, opusFrame, opusAhead = 48000, 960, 312
	opusSSRC                       = 1
)

// program makes Opus of AAC: ffmpeg alone, since one way is tested.
const program = "ffmpeg"

// opusBy asks the machine for an encoder of Opus.
func opusBy(e *media.Encoders) encoder {
	return func(ctx context.Context) ([]string, error) {
		if _, err := exec.LookPath(program); err != nil || e == nil {
			return nil, errors.New("AAC sound, of which ffmpeg would make Opus: install it where the camera is reached from (Debian: apt install ffmpeg) and adopt the camera again, or set the camera to G.711")
		}
		x, err := e.Pick(ctx, program, "opus")
		if err != nil {
			return nil, fmt.Errorf("AAC sound, since %w", err)
		}
		return x.Args, nil
	}
}

// plainAAC is AAC-LC by RFC 3640, which cameras send; other kinds count time otherwise.
func plainAAC(f *format.MPEG4Audio) bool {
	const lc = 2
	return !f.LATM && f.Config != nil && f.Config.Type == lc && f.Config.ExtensionType == 0 && f.Config.SampleRate > 0
}

// transcoded is AAC as what is made of it.
func (c *conn) transcoded(ctx context.Context, f *format.MPEG4Audio) (found, error) {
	args, err := c.opus(ctx)
	s := foundAs(f, "audio", "opus", opusRate, 2)
	s.opus = args
	return s, err
}

// transcoder makes Opus of a camera's AAC, by one child for all viewers, which lives while one
// of them takes sound. write is called from the camera's connection and never waits. A frame
// travels to the child in FLV, whose time stamps are counted from the first frame of that
// child, so that what is lost on either side moves nothing.
type transcoder struct {
	hub   *media.Hub
	log   *slog.Logger
	queue chan aacFrame
	heard atomic.Int64 // Unix time in ns at which somebody took sound

	// Of the connection.
	unpack *rtpmpeg4audio.Decoder
	line   media.TimeLine
	begun  bool
	source uint32 // newest time stamp, as the camera has it
	last   uint32 // and in the continuous stream
	before int64  // position, in ticks of Opus, at which the rate began
	ticks  int64  // since then, in those of the camera

	config []byte // AudioSpecificConfig
	rate   int64  // Hz

	mu    sync.Mutex
	args  []string // of the encoder
	fed   aacFrame // the newest that the child has
	zero  int64    // position of its first frame
	fresh bool     // nothing came back yet

	// Of what comes back.
	child uint32 // newest time stamp of the child
	pos   int64  // its position
	seq   uint16
	stamp uint32 // newest one that was sent
	sent  bool
}

// aacFrame is one frame, where in the stream its first sample is, and when that would have
// come (as Hub.PublishAt means it).
type aacFrame struct {
	data   []byte
	pos    int64
	at     time.Time
	config []byte
}

func newTranscoder(hub *media.Hub, log *slog.Logger) *transcoder {
	return &transcoder{hub: hub, log: log, queue: make(chan aacFrame, aacQueue)}
}

// begin takes what a new connection's description says.
func (x *transcoder) begin(f found) error {
	form, ok := f.form.(*format.MPEG4Audio)
	if !ok {
		return ErrCodec
	}
	config, err := form.Config.Marshal()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrCodec, err)
	}
	if x.unpack, err = form.CreateDecoder(); err != nil {
		return fmt.Errorf("%w: %w", ErrCodec, err)
	}
	if rate := int64(form.Config.SampleRate); rate != x.rate {
		x.before, x.ticks = x.position(0), 0
		x.rate, x.line.Clock = rate, float64(rate)
	}
	x.config = config
	x.line.Renew()
	x.mu.Lock()
	defer x.mu.Unlock()
	x.args = f.opus
	return nil
}

// position is where the newest packet, and more ticks, are in the stream.
func (x *transcoder) position(more int64) int64 {
	return x.before + (x.ticks+more)*opusRate/max(1, x.rate)
}

// length is what one frame lasts; it is of the connection, too.
func (x *transcoder) length() time.Duration {
	return time.Duration(aacTicks * int64(time.Second) / max(1, x.rate))
}

// write takes a packet; at is when its first sample would have come.
func (x *transcoder) write(p *rtp.Packet, now, at time.Time) {
	if jump := int32(p.Timestamp - x.source); x.begun && (jump < 0 || float64(jump) > aacJump*x.line.Clock) { //nolint:gosec // modular arithmetic
		x.line.Renew()
	}
	q := &rtp.Packet{Header: rtp.Header{SSRC: p.SSRC, SequenceNumber: p.SequenceNumber, Timestamp: p.Timestamp}}
	x.line.Join(q, now)
	if !x.begun {
		x.last = q.Timestamp
	}
	x.ticks += int64(int32(q.Timestamp - x.last)) //nolint:gosec // modular arithmetic
	x.begun, x.source, x.last = true, p.Timestamp, q.Timestamp
	frames, err := x.unpack.Decode(p)
	if err != nil || !x.hub.Takes("audio") {
		return
	}
	x.heard.Store(now.UnixNano())
	for i, data := range frames {
		more := int64(i) * aacTicks
		select {
		case x.queue <- aacFrame{data, x.position(more), at.Add(time.Duration(i) * x.length()), x.config}:
		default: // the child is stuck; its supervisor ends it
		}
	}
}

// run keeps a child while somebody takes sound.
func (x *transcoder) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-x.queue: // before there is a child
		}
		err := x.keep(ctx)
		if err == nil {
			continue
		}
		x.log.Error("the sound of a camera is left out for now; the picture goes on", "again", aacAgain, "err", err)
		t := time.NewTimer(aacAgain)
		select {
		case <-ctx.Done():
		case <-t.C:
		}
		t.Stop()
	}
}

// keep runs a child, and its successors, until nobody has taken sound for a while.
func (x *transcoder) keep(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var watch sync.WaitGroup
	defer watch.Wait()
	defer cancel()
	watch.Go(func() {
		look := time.NewTicker(aacLook)
		defer look.Stop()
		for time.Since(time.Unix(0, x.heard.Load())) < aacLinger {
			select {
			case <-ctx.Done():
				return
			case <-look.C:
			}
		}
		cancel()
	})
	f := media.Filter{Command: x.command, Feed: x.feed, Out: x.out, Log: x.log}
	return f.Run(ctx)
}

func (x *transcoder) command(port int, ssrc uint32) []string {
	x.mu.Lock()
	defer x.mu.Unlock()
	return slices.Concat([]string{program, "-hide_banner", "-nostdin", "-loglevel", "error", "-probesize", "32", "-analyzeduration", "0", "-f", "flv", "-i", "pipe:0"},
		x.args, []string{"-seq", "0", "-ssrc", strconv.FormatUint(uint64(ssrc), 10), "-f", "rtp", "rtp://127.0.0.1:" + strconv.Itoa(port)})
}

// feed gives one child what comes from now on. It returns, and the child ends, also when the
// camera's AAC is another one, or FLV's time would run out.
func (x *transcoder) feed(ctx context.Context, to io.Writer) {
	var config []byte
	var zero int64
	for {
		var f aacFrame
		select {
		case <-ctx.Done():
			return
		case f = <-x.queue:
		}
		if time.Since(f.at) > aacLate {
			continue
		}
		first := config == nil
		if first {
			config, zero = f.config, f.pos
		}
		ms := (f.pos - zero) / (opusRate / 1000)
		if !slices.Equal(config, f.config) || ms < 0 || ms > aacLongest.Milliseconds() {
			return
		}
		x.mu.Lock()
		if x.fed = f; first {
			x.zero, x.fresh = zero, true
		}
		x.mu.Unlock()
		var b []byte
		if first {
			b = flvTag([]byte("FLV\x01\x04\x00\x00\x00\x09\x00\x00\x00\x00"), 0, 0, config)
		}
		if _, err := to.Write(flvTag(b, uint32(ms), 1, f.data)); err != nil { //nolint:gosec // bounded above
			return
		}
	}
}

// flvTag appends one tag of AAC (Adobe Flash Video File Format 10.1, annex E.4): kind is 0 for
// the configuration and 1 for a frame.
func flvTag(b []byte, ms uint32, kind byte, data []byte) []byte {
	size := uint32(len(data) + 2) //nolint:gosec // a frame has at most 8 kB
	b = append(b, 8, byte(size>>16), byte(size>>8), byte(size), byte(ms>>16), byte(ms>>8), byte(ms), byte(ms>>24), 0, 0, 0, 0xaf, kind)
	return binary.BigEndian.AppendUint32(append(b, data...), size+11)
}

// out sends on what the child made. Stamps go on in even steps as long as that is true within
// a packet, since cameras' own stamps tremble; what is off is made up for in at.
func (x *transcoder) out(p *rtp.Packet) {
	x.mu.Lock()
	if x.fresh {
		x.fresh, x.pos = false, x.zero-opusAhead
		x.child = p.Timestamp - uint32(p.SequenceNumber)*opusFrame // the first one may be lost
	}
	x.pos += int64(int32(p.Timestamp - x.child)) //nolint:gosec // modular arithmetic
	x.child = p.Timestamp
	at := x.fed.at.Add(time.Duration(x.pos-x.fed.pos) * time.Second / opusRate)
	x.mu.Unlock()
	stamp := uint32(x.pos)                    //nolint:gosec // RTP time stamps wrap
	off := int32(stamp - x.stamp - opusFrame) //nolint:gosec // modular arithmetic
	switch {
	case len(p.Payload) == 0 || len(p.Payload) > media.MTU || time.Since(at) > aacLate:
		return
	case x.sent && off < -2*opusFrame: // more sound than time
		return
	case x.sent && off <= opusFrame:
		stamp -= uint32(off) //nolint:gosec // modular arithmetic
		at = at.Add(-time.Duration(off) * time.Second / opusRate)
	}
	x.seq++
	x.sent, x.stamp = true, stamp
	x.hub.PublishAt("audio", &rtp.Packet{Header: rtp.Header{Version: 2, SSRC: opusSSRC, SequenceNumber: x.seq, Timestamp: stamp}, Payload: p.Payload}, false, at)
}
