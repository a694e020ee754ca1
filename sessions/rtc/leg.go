package rtc

import (
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/pion/webrtc/v4"

	"github.com/hallway-home/hallway/sessions"
)

// keyFrameEvery: how often a receiver asks while it has no picture.
const keyFrameEvery = 300 * time.Millisecond

// Leg is one pion connection with the device's source and sink.
type Leg struct {
	f    *Factory
	pc   *webrtc.PeerConnection
	port *port
	out  *train
	cfg  sessions.LegConfig
	log  *slog.Logger

	started   chan struct{} // closed by Start: received media may go to the sink
	connected chan struct{}
	failed    chan struct{} // closed when the leg failed by itself
	closed    chan struct{}
	broken    chan struct{} // holds one signal that the path was lost
	once      struct{ connected, failed, closed sync.Once }
	wg        sync.WaitGroup
	closeErr  error // written once, inside once.closed

	mu       sync.Mutex
	order    []string // kinds, in the order of the media sections
	tracks   map[string]*track
	media    map[string]sessions.MediaState
	err      error
	begun    bool                       // Start was called
	reoffer  *webrtc.SessionDescription // of Restart, until it is answered
	offerer  bool                       // made the first offer
	view     sessions.Subscription      // of the source
	position sessions.Position          // of what is sent; the subscription has it while there is one
	sink     sessions.Sink
	frees    []func() // of the source
	recv     map[string]*counter
}

func newLeg(f *Factory, cfg sessions.LegConfig) *Leg {
	log := cfg.Logger
	if log == nil {
		log = f.cfg.Logger
	}
	l := &Leg{
		f: f, out: &train{yard: f.yard}, cfg: cfg, log: log,
		started: make(chan struct{}), connected: make(chan struct{}), failed: make(chan struct{}), closed: make(chan struct{}), broken: make(chan struct{}, 1),
		tracks: map[string]*track{}, media: map[string]sessions.MediaState{}, recv: map[string]*counter{"audio": {}, "video": {}},
	}
	return l
}

// use gives the leg its connection.
func (l *Leg) use(pc *webrtc.PeerConnection) {
	l.pc = pc
	pc.OnConnectionStateChange(l.onState)
	pc.OnTrack(l.onTrack)
}

func (l *Leg) onState(s webrtc.PeerConnectionState) {
	switch s {
	case webrtc.PeerConnectionStateConnected:
		l.once.connected.Do(func() { close(l.connected) })
	case webrtc.PeerConnectionStateDisconnected:
		l.mu.Lock()
		ours := l.offerer // both sides notice: one of them is enough
		l.mu.Unlock()
		if ours {
			l.breaks()
		}
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

// Connected implements sessions.Leg: ICE found a pair and DTLS stands on it.
func (l *Leg) Connected() <-chan struct{} { return l.connected }

// Done implements sessions.Leg.
func (l *Leg) Done() <-chan struct{} { return l.failed }

// Err implements sessions.Leg.
func (l *Leg) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
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
	tracks, sink, view := []*track{l.tracks["audio"], l.tracks["video"]}, l.sink, l.view
	l.mu.Unlock()
	s := sessions.LegStats{Audio: l.recv["audio"].stats(), Video: l.recv["video"].stats()}
	for i, out := range []*sessions.StreamStats{&s.Audio, &s.Video} {
		if t := tracks[i]; t != nil {
			out.PacketsSent, out.BytesSent = t.sent()
		}
	}
	if view != nil {
		s.Video.Skipped = view.Skipped()
	}
	if sink != nil {
		s.Recording = sink.Path()
	}
	select {
	case <-l.connected: // pion sets its transport up in a goroutine: not to be looked at before
	default:
		return s
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
// every goroutine of the leg has ended; so does a second Close.
func (l *Leg) Close() error {
	l.once.closed.Do(func() {
		l.mu.Lock()
		close(l.closed)
		frees, sink := l.frees, l.sink
		l.mu.Unlock()
		for _, f := range frees {
			f()
		}
		l.closeErr = l.pc.GracefulClose()
		l.wg.Wait()
		if sink != nil {
			if err := sink.Close(); err != nil {
				l.closeErr = err
			}
		}
		l.f.forget(l)
	})
	return l.closeErr
}
