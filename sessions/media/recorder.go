package media

import (
	"fmt"
	"log/slog"
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

const (
	// holdFor is how long frames wait for the first sender reports, which say how the
	// clocks of sound and picture belong together; senders report at least each second.
	holdFor = 3 * time.Second
	// keyWait is how long the file waits for a key frame before it goes on with sound alone.
	keyWait = 8 * time.Second
	// maxHeld bounds what waits, whatever the sender's bit rate.
	maxHeld = 16 << 20
	// maxSlew is how far one sender report may move a track: the clocks of camera and
	// microphone drift by some ms a minute, a report's own jitter is no reason to jump.
	maxSlew = 5 * time.Millisecond
	// newTimeLine: time stamps that jump this far were restarted by the sender.
	newTimeLine = 10 * time.Second
	// maxSameName bounds the recordings of one call with one device.
	maxSameName = 100
)

// recorder writes what one call receives to a Matroska file. It starts with a key frame
// and puts sound and picture on one time line by their sender reports (RFC 3550 section
// 6.4.1). Safe for concurrent use; nothing in it waits for the network.
type recorder struct {
	path string
	log  *slog.Logger

	mu        sync.Mutex
	file      *os.File // until out takes it
	out       *mkvFile
	tracks    map[string]*recTrack
	began     time.Time // first packet
	held      []sample
	heldBytes int
	zero      time.Duration // of the time line, on the sender's clock
	bySender  bool          // sender reports rule the time line
	over      bool          // closed, or the disk refused
	failed    error         // the disk refused
}

type recTrack struct {
	kind   string
	codec  profiles.Codec
	buffer *jitterBuffer
	number int // in the file

	arrival time.Time // of the first packet
	heard   time.Time // of the newest one
	last    uint32    // newest time stamp
	ticks   int64     // unwrapped, since the first one
	synced  bool
	offset  time.Duration // sender's clock at the first time stamp

	private []byte // CodecPrivate
	keyed   bool   // the picture is whole: no loss since a key frame
	begun   bool   // a first key frame came
	width   uint64
	height  uint64
}

type sample struct {
	t    *recTrack
	at   time.Duration // since the track's first time stamp
	key  bool
	data []byte
}

// newRecorder makes the file at once, so that a full or read-only disk is told before
// anything is received. A name that is taken gets a number.
func newRecorder(path string, media []sessions.MediaState, log *slog.Logger) (*recorder, error) {
	stem, taken := strings.TrimSuffix(path, ".mkv"), path
	for n := 2; ; n++ {
		f, err := os.OpenFile(taken, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if os.IsExist(err) && n <= maxSameName {
			taken = fmt.Sprintf("%s-%d.mkv", stem, n)
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("cannot record to %s: %w; free some space or choose another folder with sink.record", path, err)
		}
		r := &recorder{path: taken, log: log, file: f, tracks: map[string]*recTrack{}}
		for _, m := range media {
			if m.Direction.Receives() {
				r.tracks[m.Kind] = &recTrack{kind: m.Kind}
			}
		}
		return r, nil
	}
}

// Path implements sessions.Sink.
func (r *recorder) Path() string { return r.path }

// NeedsKeyFrame asks until the picture has begun, and again after a loss.
func (r *recorder) NeedsKeyFrame() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	v := r.tracks["video"]
	return v != nil && !v.keyed && !r.over
}

// WriteRTP implements sessions.Sink.
func (r *recorder) WriteRTP(kind string, codec profiles.Codec, p *rtp.Packet) {
	r.mu.Lock()
	defer r.mu.Unlock()
	t := r.tracks[kind]
	if t == nil || r.over || codec.ClockRate == 0 {
		return
	}
	now := time.Now()
	if r.began.IsZero() {
		r.began = now
	}
	if t.buffer == nil {
		t.arrival, t.last, t.codec, t.buffer = now, p.Timestamp, codec, newJitterBuffer(codec)
	}
	t.heard = now
	r.keep(t, t.buffer.push(p))
	r.write(now)
}

// keep takes whole frames; pictures that build on a lost one are left out.
func (r *recorder) keep(t *recTrack, frames []rawFrame) {
	for _, f := range frames {
		data, key := f.data, true
		if t.kind == "video" {
			if f.lost {
				t.keyed = false
			}
			if key = t.inspect(data); key {
				t.keyed, t.begun = true, true
			}
			if !t.keyed {
				continue
			}
		}
		r.held = append(r.held, sample{t, t.place(f.stamp), key, data})
		r.heldBytes += len(data)
	}
}

// place unwraps a time stamp and turns it into time since the first one.
func (t *recTrack) place(stamp uint32) time.Duration {
	diff := int64(int32(stamp - t.last)) //nolint:gosec // modular arithmetic of RTP time stamps
	if limit := int64(newTimeLine.Seconds()) * int64(t.codec.ClockRate); diff > limit || diff < -limit {
		elapsed := t.offsetOf(t.ticks)
		diff = int64((t.heard.Sub(t.arrival) - elapsed).Seconds() * float64(t.codec.ClockRate))
	}
	t.ticks += diff
	t.last = stamp
	return t.offsetOf(t.ticks)
}

func (t *recTrack) offsetOf(ticks int64) time.Duration {
	rate := int64(t.codec.ClockRate)
	return time.Duration(ticks/rate)*time.Second + time.Duration(ticks%rate*int64(time.Second)/rate)
}

// WriteSenderReport ties the track's time stamps to the sender's clock: at once with the
// first report, gently with later ones.
func (r *recorder) WriteSenderReport(kind string, sr *rtcp.SenderReport) {
	r.mu.Lock()
	defer r.mu.Unlock()
	t := r.tracks[kind]
	if t == nil || t.buffer == nil || sr.NTPTime == 0 || r.over || r.out != nil && !r.bySender {
		return
	}
	ntp := time.Duration(sr.NTPTime>>32)*time.Second + time.Duration((sr.NTPTime&0xffffffff)*uint64(time.Second)>>32) //nolint:gosec // below 2^63
	since := t.offsetOf(t.ticks + int64(int32(sr.RTPTime-t.last)))                                                    //nolint:gosec // modular
	if t.synced {
		t.offset += min(max((ntp-since-t.offset)/8, -maxSlew), maxSlew)
		return
	}
	t.offset, t.synced = ntp-since, true
	r.write(time.Now())
}

// write opens the file once everything needed is known, and writes what is ready.
func (r *recorder) write(now time.Time) {
	if r.over || r.began.IsZero() {
		return
	}
	if r.out == nil {
		if !r.ready(now) {
			return
		}
		if err := r.open(); err != nil {
			r.fail(err)
			return
		}
	}
	for _, s := range r.held {
		at := s.t.offset + s.at - r.zero
		if s.t.number < 0 || at < 0 {
			continue
		}
		if err := r.out.add(s.t.number, at, s.key, s.data); err != nil {
			r.fail(err)
			return
		}
	}
	r.held, r.heldBytes = r.held[:0], 0
}

// fail ends the recording, not the call.
func (r *recorder) fail(err error) {
	r.over, r.held, r.failed = true, nil, err
	if r.out != nil {
		_ = r.out.f.Close() // what is on disk plays as far as it goes
		r.out = nil
	}
	r.log.Error("the recording ended early; the call goes on", "path", r.path, "err", err)
}

// Trouble implements sessions.Fallible.
func (r *recorder) Trouble() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.failed == nil {
		return ""
	}
	return fmt.Sprintf("The recording ended early: %v. Make room on the disk; the next call is recorded again.", r.failed)
}

func (r *recorder) ready(now time.Time) bool {
	if len(r.held) == 0 {
		return false
	}
	wait := now.Sub(r.began)
	for _, t := range r.tracks {
		switch {
		case r.heldBytes > maxHeld:
			return true
		case t.buffer == nil && wait < holdFor, t.buffer != nil && !t.synced && wait < holdFor:
			return false
		case t.kind == "video" && t.buffer != nil && !t.begun && wait < keyWait:
			return false
		}
	}
	return true
}

// open decides on the tracks and the time line, and writes the header.
func (r *recorder) open() error {
	var tracks []mkvTrack
	r.bySender = true
	for _, kind := range []string{"video", "audio"} {
		t := r.tracks[kind]
		if t == nil {
			continue
		}
		t.number = -1
		if t.buffer == nil || kind == "video" && !t.begun {
			r.log.Warn("the recording goes on without a part that did not come", "path", r.path, "kind", kind)
			continue
		}
		t.number = len(tracks)
		tracks = append(tracks, t.entry())
		r.bySender = r.bySender && t.synced
	}
	r.held = slices.DeleteFunc(r.held, func(s sample) bool { return s.t.number < 0 })
	if !r.bySender { // no reports: what came together belongs together
		for _, t := range r.tracks {
			t.offset = t.arrival.Sub(r.began)
		}
	}
	for i, s := range r.held {
		if at := s.t.offset + s.at; i == 0 || at < r.zero {
			r.zero = at
		}
	}
	out, err := newMKV(r.file, tracks)
	r.file, r.out = nil, out
	return err
}

// Close writes what is held and ends the file; one in which nothing came is removed.
func (r *recorder) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, t := range r.tracks {
		if t.buffer != nil && !r.over {
			r.keep(t, t.buffer.flush())
			t.buffer = newJitterBuffer(t.codec)
		}
	}
	if !r.began.IsZero() {
		r.write(r.began.Add(time.Hour))
	}
	r.over = true
	out, file := r.out, r.file
	r.out, r.file = nil, nil
	switch {
	case out != nil:
		return out.close()
	case file != nil:
		_ = file.Close()
		return os.Remove(r.path)
	}
	return nil
}
