package rtc

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/webrtc/v4"

	"github.com/hallway-home/hallway/profiles"
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

// locked runs f under the lock, unless the leg is closed.
func (l *Leg) locked(f func()) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-l.closed:
		return false
	default:
		f()
		return true
	}
}

// spawn runs f as a goroutine that Close waits for; after Close it does nothing.
func (l *Leg) spawn(f func()) { l.locked(func() { l.wg.Go(f) }) }

// spawnLocked is spawn where mu is held.
func (l *Leg) spawnLocked(f func()) {
	select {
	case <-l.closed:
	default:
		l.wg.Go(f)
	}
}

// send forwards the source once the connection stands, so that nothing of its first
// picture is lost on the way.
func (l *Leg) send(f *feed) {
	select {
	case <-l.connected:
	case <-l.closed:
		return
	case <-f.stop:
		return
	}
	out := &outlet{leg: l, audio: outTrack{track: l.outs["audio"]}, video: outTrack{track: l.outs["video"]}}
	for _, t := range f.src.Tracks() {
		out.of(t.Kind).codec = t.Codec
	}
	out.audio.joins.Store(true)
	out.video.joins.Store(true)
	view := f.src.Subscribe(out)
	defer view.Cancel()
	if !l.locked(func() { f.view = view }) {
		return
	}
	select {
	case <-l.closed:
	case <-f.stop:
	case <-f.src.Done():
		l.fail(fmt.Errorf("%w: %w", sessions.ErrMediaFailed, f.src.Err()))
	}
}

// readRequests passes on what the receiver asks for, repairs (RFC 4585 section 6.2.1) and key
// frames (section 6.3.1, RFC 5104 section 4.3.1), and notes what it reports.
func (l *Leg) readRequests(kind string, sender *webrtc.RTPSender) {
	for {
		packets, _, err := sender.ReadRTCP()
		if err != nil {
			return
		}
		for _, p := range packets {
			switch p := p.(type) {
			case *rtcp.PictureLossIndication, *rtcp.FullIntraRequest:
				if view := l.view(kind); view != nil {
					view.RequestKeyFrame()
				}
			case *rtcp.TransportLayerNack:
				if view := l.view(kind); view != nil {
					for i := range p.Nacks {
						view.Resend(l.outs[kind].own(p.Nacks[i].PacketList()))
					}
				}
			case *rtcp.ReceiverReport:
				l.heard(kind, p.Reports)
			case *rtcp.SenderReport:
				l.heard(kind, p.Reports)
			}
		}
	}
}

// view is this side's hold on its source; nil while there is none. Only the picture is
// repaired: sound would come too late.
func (l *Leg) view(kind string) sessions.Subscription {
	l.mu.Lock()
	defer l.mu.Unlock()
	if kind != "video" || l.feed == nil {
		return nil
	}
	return l.feed.view
}

// heard notes the reports on our own stream of a kind.
func (l *Leg) heard(kind string, reports []rtcp.ReceptionReport) {
	ssrc, clock := l.outs[kind].stream()
	for _, r := range reports {
		if r.SSRC == ssrc {
			l.said[kind].take(r, clock, time.Now())
		}
	}
}

// onTrack receives one kind of media, into the sink once the call is accepted.
func (l *Leg) onTrack(remote *webrtc.TrackRemote, receiver *webrtc.RTPReceiver) {
	l.spawn(func() { l.receive(remote, receiver) })
}

func (l *Leg) receive(remote *webrtc.TrackRemote, receiver *webrtc.RTPReceiver) {
	kind := remote.Kind().String()
	select {
	case <-l.started:
	case <-l.closed:
		return
	}
	count := l.recv[kind]
	if count == nil {
		return
	}
	l.spawn(func() { l.readReports(kind, receiver) })
	if kind == "video" {
		l.spawn(func() { l.askKeyFrames(uint32(remote.SSRC())) })
	}
	for {
		p, _, err := remote.ReadRTP()
		if err != nil {
			return
		}
		codec := codecOfTrack(remote)
		if !count.add(p, codec.ClockRate) { // held, sent without being agreed, or twice
			continue
		}
		l.withSink(func(s sessions.Sink) { s.WriteRTP(kind, codec, p) })
	}
}

// withSink keeps the sink open while f uses it.
func (l *Leg) withSink(f func(sessions.Sink)) {
	l.sinkMu.RLock()
	defer l.sinkMu.RUnlock()
	if l.sink != nil {
		f(l.sink)
	}
}

// codecOfTrack is what the track carries now; a sender may change within what was agreed.
func codecOfTrack(remote *webrtc.TrackRemote) profiles.Codec {
	c := remote.Codec().RTPCodecCapability
	_, name, _ := strings.Cut(c.MimeType, "/")
	return profiles.Codec{Name: name, ClockRate: c.ClockRate, Channels: c.Channels}
}

func (l *Leg) readReports(kind string, receiver *webrtc.RTPReceiver) {
	for {
		packets, _, err := receiver.ReadRTCP()
		if err != nil {
			return
		}
		for _, p := range packets {
			if sr, ok := p.(*rtcp.SenderReport); ok {
				l.withSink(func(s sessions.Sink) { s.WriteSenderReport(kind, sr) })
			}
		}
	}
}

func (l *Leg) askKeyFrames(ssrc uint32) {
	t := time.NewTicker(keyFrameEvery)
	defer t.Stop()
	for {
		select {
		case <-l.closed:
			return
		case <-t.C:
			needs := false
			l.withSink(func(s sessions.Sink) { needs = s.NeedsKeyFrame() })
			if needs && l.recv["video"].wanted() {
				_ = l.pc.WriteRTCP([]rtcp.Packet{&rtcp.PictureLossIndication{MediaSSRC: ssrc}})
			}
		}
	}
}
