package rtc

import (
	"context"
	"fmt"
	"slices"

	"github.com/hallway-home/hallway/sessions"
)

// feed is the device's source, open for this leg.
type feed struct {
	src     sessions.Source
	view    sessions.Subscription // nil until the connection stands
	media   []sessions.MediaState // that it was opened for
	release func()
	stop    chan struct{}
	ended   chan struct{}
}

// covers reports whether the source was opened for all that is to be sent.
func (f *feed) covers(media []sessions.MediaState) bool {
	return f != nil && !slices.ContainsFunc(media, func(m sessions.MediaState) bool {
		return m.Direction.Sends() && !slices.ContainsFunc(f.media, func(o sessions.MediaState) bool {
			return o.Kind == m.Kind && o.Codec == m.Codec && o.Direction.Sends()
		})
	})
}

// Start implements sessions.Leg: it opens source and sink and lets media flow once ICE and
// DTLS stand. Camera and microphone are not touched before. What it opened is freed by
// Close, also if Close came first.
func (l *Leg) Start(ctx context.Context) error {
	l.mu.Lock()
	if l.begun {
		l.mu.Unlock()
		return nil
	}
	l.begun = true
	l.mu.Unlock()
	select {
	case <-l.connected:
	default:
		l.wait(iceFailed)
		select {
		case <-l.connected: // in the same moment
			l.wait(0)
		default:
		}
	}
	if err := l.open(ctx); err != nil {
		return err
	}
	close(l.started)
	return nil
}

// renew opens and closes source and sink as an offer and its answer have changed what
// flows; mu is held.
func (l *Leg) renew() {
	if !l.begun {
		return
	}
	l.spawnLocked(func() {
		select {
		case <-l.started:
		case <-l.closed:
			return
		}
		if err := l.open(context.Background()); err != nil && !l.isClosed() {
			l.fail(err)
		}
	})
}

func (l *Leg) isClosed() bool {
	select {
	case <-l.closed:
		return true
	default:
		return false
	}
}

// open brings source and sink to what is agreed now. A sink is made for what comes: when
// the picture joins or leaves, a new one begins; on hold the old one waits. A source whose
// every way is closed is freed, and the lamp of the camera goes out; muting alone keeps the
// microphone at hand.
func (l *Leg) open(ctx context.Context) error {
	l.opening.Lock()
	defer l.opening.Unlock()
	l.mu.Lock()
	media := l.mediaLocked()
	sends := slices.ContainsFunc(media, func(m sessions.MediaState) bool { return m.Direction.Sends() })
	keeps := sends || l.wish.Mute && !l.wish.Hold
	l.mu.Unlock()
	var kinds string
	for _, m := range media {
		if m.Direction.Receives() {
			kinds += m.Kind + " "
		}
	}
	if l.isClosed() {
		return sessions.ErrMediaFailed
	}
	if kinds != "" && kinds != l.kinds {
		sink, err := l.endpoint().OpenSink(ctx, l.cfg.CallID, l.cfg.Remote, media)
		if err != nil {
			return fmt.Errorf("%w: %w", sessions.ErrMediaFailed, err)
		}
		if err := l.swapSink(sink, kinds); err != nil {
			l.log.Warn("closing an output", "err", err)
		}
	}
	switch {
	case !keeps:
		l.stopFeed()
	case sends && !l.feed.covers(media):
		l.stopFeed()
		return l.startFeed(ctx, media)
	}
	return nil
}

// endpoint is where media comes from and goes to.
func (l *Leg) endpoint() sessions.Endpoint {
	if l.cfg.Endpoint != nil {
		return l.cfg.Endpoint
	}
	return l.f.cfg.Endpoint
}

// swapSink takes another sink and closes the one before; after the leg's end it closes both.
func (l *Leg) swapSink(sink sessions.Sink, kinds string) error {
	l.sinkMu.Lock()
	before := l.sink
	l.sink, l.kinds = sink, kinds
	l.sinkMu.Unlock()
	if before != nil {
		return before.Close()
	}
	return nil
}

// startFeed and stopFeed are called with opening held.
func (l *Leg) startFeed(ctx context.Context, media []sessions.MediaState) error {
	src, release, err := l.endpoint().OpenSource(ctx, media)
	if err != nil {
		return fmt.Errorf("%w: %w", sessions.ErrMediaFailed, err)
	}
	f := &feed{src: src, media: media, release: release, stop: make(chan struct{}), ended: make(chan struct{})}
	if src == nil {
		close(f.ended)
		l.setFeed(f)
		return nil
	}
	if !l.locked(func() {
		l.feed = f
		l.wg.Go(func() {
			defer close(f.ended)
			l.send(f)
		})
	}) {
		release()
		return sessions.ErrMediaFailed
	}
	return nil
}

func (l *Leg) setFeed(f *feed) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.feed = f
}

func (l *Leg) stopFeed() {
	f := l.feed
	if f == nil {
		return
	}
	close(f.stop)
	<-f.ended
	f.release()
	l.setFeed(nil)
}
