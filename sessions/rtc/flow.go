package rtc

import (
	"fmt"
	"strings"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/webrtc/v4"

	"github.com/hallway-home/hallway/profiles"
	"github.com/hallway-home/hallway/sessions"
)

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
	l.position.Audio.Clock = out.audio.codec.ClockRate
	view := f.src.Subscribe(out, &l.position)
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
						view.Resend(p.Nacks[i].PacketList())
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
		if kind == "audio" {
			l.duplex.hear(codec, p.Payload, time.Now())
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
