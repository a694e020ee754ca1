// Package rtsp owns cameras that speak RTSP (RFC 2326): what they say about themselves, one
// connection to each while somebody views it, and making what they send fit for a call.
//
// A Camera is the live source of a media.Box. Describe and Open may be called from any
// goroutine; what Open starts ends with its context. Whatever a camera sends is bounded
// here, none of its text is shown as it is, and its password is never logged. It follows no
// redirect to another host, and it decodes no picture.
package rtsp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/rtp"

	"github.com/hallway-home/hallway/profiles"
	"github.com/hallway-home/hallway/sessions"
	"github.com/hallway-home/hallway/sessions/media"
)

// Camera is an RTSP camera (RFC 2326) as this node reaches it.
type Camera struct {
	URL    string           // with user name and password, where it asks for them; never logged
	Tracks []sessions.Track // what Describe found: what the answers to calls promise
	// Certificate is what Describe found: with TLS, no other one is spoken to.
	Certificate string
	// Encoders makes Opus of the sound of cameras that send AAC; nil: it is left out.
	Encoders *media.Encoders
	// Changed is told when the camera describes itself differently than Tracks; nil: nobody.
	Changed func([]sessions.Track)

	tcp atomic.Bool // UDP was tried in vain
}

const (
	// cameraPatience is how long a camera may send nothing before its viewers are told.
	cameraPatience = 12 * time.Second
	// firstRedial doubles up to maxRedial: a camera that starts again takes half a minute, and
	// many have few connections to give.
	firstRedial, maxRedial = 250 * time.Millisecond, 8 * time.Second
	// redialReset: a connection that lived this long ends the back-off.
	redialReset = 30 * time.Second
)

// errChanged says that the camera no longer sends what the call was agreed for.
var errChanged = errors.New("the camera changed how it encodes")

// source reads a camera while somebody views it: one connection whatever the number
// of viewers, dialled again with back-off when it breaks.
type source struct {
	*media.Hub
	cam       *Camera
	timing    bounds
	log       *slog.Logger
	repackers map[string]*repacker
	aac       *transcoder // in place of the sound's repacker
	clock     clock       // of the camera, as its sender reports have it
	done      chan struct{}

	mu    sync.Mutex
	err   error
	heard time.Time // last packet
}

// bounds is what tests shorten.
type bounds struct {
	patience, first, most, reset time.Duration
	setup, silence               time.Duration // bounds of one connection
}

func defaultBounds() bounds {
	return bounds{cameraPatience, firstRedial, maxRedial, redialReset, setupTime, silenceTime}
}

// Open implements media.Live.
func (c *Camera) Open(ctx context.Context, wg *sync.WaitGroup, log *slog.Logger) sessions.Source {
	return openCamera(ctx, c, defaultBounds(), wg, log)
}

// openCamera returns at once: the tracks are known, and the picture follows.
func openCamera(ctx context.Context, cam *Camera, timing bounds, wg *sync.WaitGroup, log *slog.Logger) *source {
	s := &source{Hub: media.NewHub(), cam: cam, timing: timing, log: log, repackers: map[string]*repacker{}, done: make(chan struct{}), heard: time.Now()}
	for _, t := range cam.Tracks {
		s.repackers[t.Kind] = newRepacker(t, s.PublishAt)
	}
	s.aac = newTranscoder(s.Hub, log)
	wg.Go(func() { s.aac.run(ctx) })
	wg.Go(func() { s.run(ctx) })
	return s
}

// run keeps a connection until ctx ends or there is no hope.
func (s *source) run(ctx context.Context) {
	pause := s.timing.first
	for {
		began := time.Now()
		err := s.session(ctx)
		if ctx.Err() != nil {
			return
		}
		if time.Since(began) > s.timing.reset {
			pause = s.timing.first
		}
		if final(err) || s.silent()+pause > s.timing.patience {
			s.fail(err)
			return
		}
		s.log.Warn("the camera's connection ended; it is dialled again", "in", pause, "err", err)
		t := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case <-t.C:
		}
		pause = min(2*pause, s.timing.most)
	}
}

func (s *source) fail(err error) {
	s.mu.Lock()
	s.err = err
	s.mu.Unlock()
	close(s.done)
}

// session is one connection from its dial to its end.
func (s *source) session(ctx context.Context) error {
	c, err := dialCamera(ctx, s.cam.URL, s.cam.Certificate, s.timing, &s.cam.tcp, opusBy(s.cam.Encoders))
	if err != nil {
		return err
	}
	defer c.close()
	found, _, err := c.describe(ctx)
	if err != nil {
		return err
	}
	tracks := make([]sessions.Track, len(found))
	for i, f := range found {
		tracks[i] = f.track
	}
	if !sameTracks(s.cam.Tracks, tracks) {
		if s.cam.Changed != nil {
			s.cam.Changed(tracks)
		}
		return fmt.Errorf("%w; it sends %s now, so call it again", errChanged, tracksInWords(tracks))
	}
	for _, f := range found {
		st, err := s.stream(c, f)
		if err != nil {
			return err
		}
		if err := c.setup(f, func(p *rtp.Packet) { s.receive(st, p) }); err != nil {
			return err
		}
	}
	return c.play(s.silent)
}

// silent is how long the camera has sent nothing that could be used.
func (s *source) silent() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return time.Since(s.heard)
}

// stream is one stream of a connection.
type stream struct {
	found
	conn  *conn
	clock stampClock
	write func(p *rtp.Packet, now, at time.Time)
}

// stream makes what takes the packets of one stream of a new connection.
func (s *source) stream(c *conn, f found) (*stream, error) {
	st := &stream{found: f, conn: c, clock: stampClock{rate: time.Duration(f.form.ClockRate())}}
	if f.opus != nil {
		st.write = s.aac.write
		return st, s.aac.begin(f)
	}
	o := s.repackers[f.track.Kind]
	o.begin(f.sets)
	st.write = o.write
	return st, nil
}

func (s *source) receive(st *stream, p *rtp.Packet) {
	now := time.Now()
	s.mu.Lock()
	s.heard = now
	s.mu.Unlock()
	at := st.clock.at(p.Timestamp, now)
	if taken, ok := st.conn.client.PacketNTP(st.media, p); ok {
		at = s.clock.at(taken, now)
	} else if st.opus != nil {
		at = at.Add(-s.aac.length()) // it was taken before it came as a whole
	}
	st.write(p, now, at)
}

func sameTracks(a, b []sessions.Track) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i].Kind != b[i].Kind || !a[i].Codec.Fits(b[i].Codec) {
			return false
		}
	}
	return true
}

func tracksInWords(tracks []sessions.Track) string {
	var out []string
	for _, t := range tracks {
		out = append(out, t.Codec.Name)
	}
	return strings.Join(out, " and ")
}

// Capabilities is what a camera with these tracks can do in a call: send, and nothing else.
func Capabilities(tracks []sessions.Track) profiles.Capabilities {
	c := profiles.Capabilities{Audio: profiles.Medium{Direction: profiles.Inactive}, Video: profiles.Medium{Direction: profiles.Inactive}}
	for _, t := range tracks {
		m := profiles.Medium{Direction: profiles.SendOnly, Codecs: []profiles.Codec{t.Codec}}
		if t.Kind == "video" {
			c.Video = m
		} else {
			c.Audio = m
		}
	}
	return c
}

// Tracks implements sessions.Source.
func (s *source) Tracks() []sessions.Track { return s.cam.Tracks }

// Done implements sessions.Source.
func (s *source) Done() <-chan struct{} { return s.done }

// Err implements sessions.Source.
func (s *source) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}
