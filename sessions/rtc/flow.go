package rtc

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/webrtc/v4"

	"github.com/hallway-home/hallway/profiles"
	"github.com/hallway-home/hallway/sessions"
)

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
	media := l.Media()
	sends := slices.ContainsFunc(media, func(m sessions.MediaState) bool { return m.Direction.Sends() })
	receives := slices.ContainsFunc(media, func(m sessions.MediaState) bool { return m.Direction.Receives() })
	if receives {
		sink, err := l.f.cfg.Endpoint.OpenSink(ctx, l.cfg.CallID, l.cfg.Remote, media)
		if err != nil {
			return fmt.Errorf("%w: %w", sessions.ErrMediaFailed, err)
		}
		if !l.locked(func() { l.sink = sink }) {
			return errors.Join(sessions.ErrMediaFailed, sink.Close())
		}
	}
	if sends {
		src, release, err := l.f.cfg.Endpoint.OpenSource(ctx)
		if err != nil {
			return fmt.Errorf("%w: %w", sessions.ErrMediaFailed, err)
		}
		if !l.locked(func() { l.frees = append(l.frees, release) }) {
			release()
			return sessions.ErrMediaFailed
		}
		if src != nil {
			l.spawn(func() { l.send(src) })
		}
	}
	close(l.started)
	return nil
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
func (l *Leg) send(src sessions.Source) {
	select {
	case <-l.connected:
	case <-l.closed:
		return
	}
	l.mu.Lock()
	out := &outlet{leg: l, audio: outTrack{track: l.tracks["audio"]}, video: outTrack{track: l.tracks["video"]}}
	l.mu.Unlock()
	for _, t := range src.Tracks() {
		out.of(t.Kind).codec = t.Codec
	}
	l.position.Audio.Clock = out.audio.codec.ClockRate
	view := src.Subscribe(out, &l.position)
	defer view.Cancel()
	if !l.locked(func() { l.view = view }) {
		return
	}
	select {
	case <-l.closed:
	case <-src.Done():
		l.fail(fmt.Errorf("%w: %w", sessions.ErrMediaFailed, src.Err()))
	}
}

// readRequests passes on what the receiver asks for: repairs (RFC 4585 section 6.2.1) and
// key frames (section 6.3.1, RFC 5104 section 4.3.1).
func (l *Leg) readRequests(kind string, sender *webrtc.RTPSender) {
	for {
		packets, _, err := sender.ReadRTCP()
		if err != nil {
			return
		}
		l.mu.Lock()
		view := l.view
		l.mu.Unlock()
		if view == nil || kind != "video" {
			continue
		}
		for _, p := range packets {
			switch p := p.(type) {
			case *rtcp.PictureLossIndication, *rtcp.FullIntraRequest:
				view.RequestKeyFrame()
			case *rtcp.TransportLayerNack:
				for i := range p.Nacks {
					view.Resend(p.Nacks[i].PacketList())
				}
			}
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
	l.mu.Lock()
	sink, count := l.sink, l.recv[kind]
	l.mu.Unlock()
	if sink == nil || count == nil {
		return
	}
	l.spawn(func() { l.readReports(kind, receiver, sink) })
	if kind == "video" {
		l.spawn(func() { l.askKeyFrames(uint32(remote.SSRC()), sink) })
	}
	for {
		p, _, err := remote.ReadRTP()
		if err != nil {
			return
		}
		if !count.allowed.Load() { // held, or sent without being agreed
			continue
		}
		codec := codecOfTrack(remote)
		count.add(p, codec.ClockRate)
		sink.WriteRTP(kind, codec, p)
	}
}

// codecOfTrack is what the track carries now; a sender may change within what was agreed.
func codecOfTrack(remote *webrtc.TrackRemote) profiles.Codec {
	c := remote.Codec().RTPCodecCapability
	_, name, _ := strings.Cut(c.MimeType, "/")
	return profiles.Codec{Name: name, ClockRate: c.ClockRate, Channels: c.Channels}
}

func (l *Leg) readReports(kind string, receiver *webrtc.RTPReceiver, sink sessions.Sink) {
	for {
		packets, _, err := receiver.ReadRTCP()
		if err != nil {
			return
		}
		for _, p := range packets {
			if sr, ok := p.(*rtcp.SenderReport); ok {
				sink.WriteSenderReport(kind, sr)
			}
		}
	}
}

func (l *Leg) askKeyFrames(ssrc uint32, sink sessions.Sink) {
	t := time.NewTicker(keyFrameEvery)
	defer t.Stop()
	for {
		select {
		case <-l.closed:
			return
		case <-t.C:
			if sink.NeedsKeyFrame() && l.recv["video"].allowed.Load() {
				_ = l.pc.WriteRTCP([]rtcp.Packet{&rtcp.PictureLossIndication{MediaSSRC: ssrc}})
			}
		}
	}
}
