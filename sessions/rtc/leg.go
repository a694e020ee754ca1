package rtc

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/rtp"
	"github.com/pion/webrtc/v4"

	"github.com/hallway-home/hallway/profiles"
	"github.com/hallway-home/hallway/sessions"
)

// keyFrameEvery: how often a receiver asks while it has no picture.
const keyFrameEvery = 300 * time.Millisecond

// Leg is one pion connection with the device's source and sink.
type Leg struct {
	f   *Factory
	pc  *webrtc.PeerConnection
	cfg sessions.LegConfig
	log *slog.Logger

	started   chan struct{} // closed by Start: received media may go to the sink
	connected chan struct{}
	failed    chan struct{} // closed when the leg failed by itself
	closed    chan struct{}
	once      struct{ connected, failed, closed sync.Once }
	wg        sync.WaitGroup

	mu      sync.Mutex
	order   []string // kinds, in the order of the media sections
	tracks  map[string]*track
	media   map[string]sessions.MediaState
	offered bool
	err     error
	sink    sessions.Sink
	frees   []func()
	recv    map[string]*counter
}

func newLeg(f *Factory, pc *webrtc.PeerConnection, cfg sessions.LegConfig) *Leg {
	log := cfg.Logger
	if log == nil {
		log = f.cfg.Logger
	}
	l := &Leg{
		f: f, pc: pc, cfg: cfg, log: log,
		started: make(chan struct{}), connected: make(chan struct{}), failed: make(chan struct{}), closed: make(chan struct{}),
		tracks: map[string]*track{}, media: map[string]sessions.MediaState{}, recv: map[string]*counter{"audio": {}, "video": {}},
	}
	pc.OnConnectionStateChange(l.onState)
	pc.OnTrack(l.onTrack)
	return l
}

func (l *Leg) onState(s webrtc.PeerConnectionState) {
	switch s {
	case webrtc.PeerConnectionStateConnected:
		l.once.connected.Do(func() { close(l.connected) })
	case webrtc.PeerConnectionStateFailed:
		l.fail(fmt.Errorf("%w: the other device stopped answering", sessions.ErrMediaFailed))
	default:
	}
}

func (l *Leg) fail(err error) {
	l.once.failed.Do(func() {
		l.mu.Lock()
		l.err = err
		l.mu.Unlock()
		close(l.failed)
	})
}

// Done implements sessions.Leg.
func (l *Leg) Done() <-chan struct{} { return l.failed }

// Err implements sessions.Leg.
func (l *Leg) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

func (l *Leg) want(kind string) profiles.Medium {
	if kind == "video" {
		return l.cfg.Capabilities.Video
	}
	return l.cfg.Capabilities.Audio
}

// addTransceiver takes part in one kind of media.
func (l *Leg) addTransceiver(kind string, codecs []webrtc.RTPCodecParameters) error {
	t := newTrack(kind, l.cfg.CallID)
	tr, err := l.pc.AddTransceiverFromTrack(t, webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionSendrecv})
	if err != nil {
		return err
	}
	if err := tr.SetCodecPreferences(codecs); err != nil {
		return err
	}
	l.tracks[kind] = t
	sender := tr.Sender()
	l.wg.Go(func() { // pion wants its RTCP read; interceptors do the work
		buf := make([]byte, 1500)
		for {
			if _, _, err := sender.Read(buf); err != nil {
				return
			}
		}
	})
	return nil
}

// Offer implements sessions.Leg.
func (l *Leg) Offer(ctx context.Context) ([]byte, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var dirs []profiles.Direction
	for _, kind := range []string{"audio", "video"} {
		m := l.want(kind)
		if !m.Direction.Sends() && !m.Direction.Receives() {
			continue
		}
		if err := l.addTransceiver(kind, named(m.Codecs)); err != nil {
			return nil, fmt.Errorf("%w: %v", sessions.ErrMediaFailed, err)
		}
		l.order = append(l.order, kind)
		dirs = append(dirs, m.Direction)
	}
	l.offered = true
	offer, err := l.pc.CreateOffer(nil)
	if err != nil {
		return nil, fmt.Errorf("%w: %v", sessions.ErrMediaFailed, err)
	}
	return l.local(ctx, offer, dirs)
}

// local sets our description, waits for the host candidates (milliseconds) and writes
// the directions that are meant.
func (l *Leg) local(ctx context.Context, d webrtc.SessionDescription, dirs []profiles.Direction) ([]byte, error) {
	gathered := webrtc.GatheringCompletePromise(l.pc)
	if err := l.pc.SetLocalDescription(d); err != nil {
		return nil, fmt.Errorf("%w: %v", sessions.ErrMediaFailed, err)
	}
	select {
	case <-gathered:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	return []byte(setDirections(l.pc.LocalDescription().SDP, dirs)), nil
}

// Answer implements sessions.Leg. In an established session it answers a re-INVITE; an
// offer that cannot be used leaves the session as it is.
func (l *Leg) Answer(ctx context.Context, offer []byte) ([]byte, error) {
	sections, err := readSDP(offer)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	dirs := make([]profiles.Direction, len(sections))
	usable := false
	for i, s := range sections {
		m := l.want(s.kind)
		common := slices.DeleteFunc(slices.Clone(m.Codecs), func(c profiles.Codec) bool { return !slices.ContainsFunc(s.codecs, c.Fits) })
		dirs[i] = profiles.Inactive
		if s.kind != "audio" && s.kind != "video" || s.rejected || len(common) == 0 || slices.Contains(l.order[:min(i, len(l.order))], s.kind) {
			continue
		}
		dirs[i] = agree(m.Direction, s.direction)
		usable = usable || dirs[i] != profiles.Inactive
		if l.tracks[s.kind] == nil && dirs[i] != profiles.Inactive {
			if err := l.addTransceiver(s.kind, named(common)); err != nil {
				return nil, fmt.Errorf("%w: %v", sessions.ErrMediaFailed, err)
			}
		}
	}
	if !usable && !slices.ContainsFunc(sections, func(s section) bool { return s.direction == profiles.Inactive }) || len(sections) == 0 {
		return nil, sessions.ErrNoCommonCodec
	}
	all := make([]profiles.Direction, len(sections))
	for i := range all {
		all[i] = profiles.SendRecv
	}
	err = l.pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeOffer, SDP: setDirections(string(offer), all)})
	if err != nil {
		return nil, fmt.Errorf("%w: %v", sessions.ErrNoCommonCodec, err)
	}
	answer, err := l.pc.CreateAnswer(nil)
	if err != nil {
		return nil, fmt.Errorf("%w: %v", sessions.ErrNoCommonCodec, err)
	}
	out, err := l.local(ctx, answer, dirs)
	if err != nil {
		return nil, err
	}
	ours, err := readSDP(out)
	if err != nil {
		return nil, err
	}
	l.order = l.order[:0]
	for i, s := range ours {
		l.order = append(l.order, s.kind)
		l.agreed(s, dirs[i])
	}
	return out, nil
}

// agreed notes what one kind of media became; mu is held.
func (l *Leg) agreed(s section, d profiles.Direction) {
	if len(s.codecs) == 0 || s.rejected {
		d = profiles.Inactive
	}
	state := sessions.MediaState{Kind: s.kind, Direction: d}
	if len(s.codecs) > 0 && d != profiles.Inactive {
		state.Codec = s.codecs[0].Name
	}
	l.media[s.kind] = state
	if t := l.tracks[s.kind]; t != nil {
		t.allow(d.Sends())
	}
}

// SetAnswer implements sessions.Leg.
func (l *Leg) SetAnswer(_ context.Context, answer []byte) error {
	sections, err := readSDP(answer)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(sections) != len(l.order) {
		return fmt.Errorf("%w: the answer has %d media sections, the offer had %d", sessions.ErrMediaFailed, len(sections), len(l.order))
	}
	all := make([]profiles.Direction, len(sections))
	for i, s := range sections {
		all[i] = profiles.SendRecv
		if s.kind != l.order[i] {
			return fmt.Errorf("%w: the answer has its media in another order", sessions.ErrMediaFailed)
		}
		l.agreed(s, agree(l.want(s.kind).Direction, s.direction))
	}
	err = l.pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: setDirections(string(answer), all)})
	if err != nil {
		return fmt.Errorf("%w: %v", sessions.ErrMediaFailed, err)
	}
	return nil
}

// Start opens source and sink and lets media flow once ICE and DTLS stand.
func (l *Leg) Start(ctx context.Context) error {
	media := l.Media()
	sends := slices.ContainsFunc(media, func(m sessions.MediaState) bool { return m.Direction.Sends() })
	receives := slices.ContainsFunc(media, func(m sessions.MediaState) bool { return m.Direction.Receives() })
	if receives {
		sink, err := l.f.cfg.Endpoint.OpenSink(ctx, l.cfg.CallID, l.cfg.Remote, media)
		if err != nil {
			return fmt.Errorf("%w: %v", sessions.ErrMediaFailed, err)
		}
		l.mu.Lock()
		l.sink = sink
		l.mu.Unlock()
	}
	if sends {
		src, release, err := l.f.cfg.Endpoint.OpenSource(ctx)
		if err != nil {
			return fmt.Errorf("%w: %v", sessions.ErrMediaFailed, err)
		}
		if !l.keep(release) {
			return sessions.ErrMediaFailed
		}
		if src != nil {
			l.spawn(func() { l.send(src) })
		}
	}
	close(l.started)
	return nil
}

// keep registers what Close must free; after Close it frees at once.
func (l *Leg) keep(free func()) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-l.closed:
		free()
		return false
	default:
		l.frees = append(l.frees, free)
		return true
	}
}

// spawn runs f as a goroutine that Close waits for; after Close it does nothing.
func (l *Leg) spawn(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
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
	codecs := map[string]profiles.Codec{}
	for _, t := range src.Tracks() {
		codecs[t.Kind] = t.Codec
	}
	l.mu.Lock()
	tracks := map[string]*track{"audio": l.tracks["audio"], "video": l.tracks["video"]}
	l.mu.Unlock()
	cancel := src.Subscribe(func(kind string, p *rtp.Packet) {
		if t := tracks[kind]; t != nil {
			t.write(codecs[kind], p)
		}
	})
	defer cancel()
	src.RequestKeyFrame()
	select {
	case <-l.closed:
	case <-src.Done():
		l.fail(fmt.Errorf("%w: %v", sessions.ErrMediaFailed, src.Err()))
	}
}

// onTrack receives one kind of media, into the sink once the call is accepted.
func (l *Leg) onTrack(remote *webrtc.TrackRemote, receiver *webrtc.RTPReceiver) {
	kind := remote.Kind().String()
	cap := remote.Codec().RTPCodecCapability
	_, name, _ := strings.Cut(cap.MimeType, "/")
	codec := profiles.Codec{Name: name, ClockRate: cap.ClockRate, Channels: cap.Channels}
	select {
	case <-l.started:
	case <-l.closed:
		return
	}
	l.mu.Lock()
	sink, allowed, count := l.sink, l.media[kind].Direction.Receives(), l.recv[kind]
	l.mu.Unlock()
	if sink == nil || !allowed {
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
		count.add(p, codec.ClockRate)
		select {
		case <-l.closed:
			return
		default:
			sink.WriteRTP(kind, codec, p)
		}
	}
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
			if sink.NeedsKeyFrame() {
				_ = l.pc.WriteRTCP([]rtcp.Packet{&rtcp.PictureLossIndication{MediaSSRC: ssrc}})
			}
		}
	}
}

// Media implements sessions.Leg.
func (l *Leg) Media() []sessions.MediaState {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []sessions.MediaState
	for _, kind := range []string{"audio", "video"} {
		if m, ok := l.media[kind]; ok {
			out = append(out, m)
		}
	}
	return out
}

// Stats implements sessions.Leg.
func (l *Leg) Stats() sessions.LegStats {
	l.mu.Lock()
	tracks, sink := []*track{l.tracks["audio"], l.tracks["video"]}, l.sink
	l.mu.Unlock()
	s := sessions.LegStats{Audio: l.recv["audio"].stats(), Video: l.recv["video"].stats()}
	for i, out := range []*sessions.StreamStats{&s.Audio, &s.Video} {
		if t := tracks[i]; t != nil {
			out.PacketsSent, out.BytesSent = t.sent()
		}
	}
	if sink != nil {
		s.Recording = sink.Path()
	}
	ice := l.pc.SCTP().Transport().ICETransport()
	if pair, err := ice.GetSelectedCandidatePair(); err == nil && pair != nil {
		s.Local, s.Remote = pair.Local.String(), pair.Remote.String()
	}
	if st, ok := ice.GetSelectedCandidatePairStats(); ok {
		s.RTT = time.Duration(st.CurrentRoundTripTime * float64(time.Second))
	}
	return s
}

// Close implements sessions.Leg: it returns after camera and microphone are freed and
// every goroutine of the leg has ended.
func (l *Leg) Close() error {
	var err error
	l.once.closed.Do(func() {
		l.mu.Lock()
		close(l.closed)
		frees, sink := l.frees, l.sink
		l.mu.Unlock()
		for _, f := range frees {
			f()
		}
		err = l.pc.GracefulClose()
		l.wg.Wait()
		if sink != nil {
			if e := sink.Close(); e != nil {
				err = e
			}
		}
	})
	return err
}
