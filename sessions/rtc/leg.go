package rtc

import (
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/pion/webrtc/v4"

	"github.com/hallway-home/hallway/profiles"
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

	mu      sync.Mutex
	order   []string // kinds, in the order of the media sections
	tracks  map[string]*track
	media   map[string]sessions.MediaState
	err     error
	begun   bool        // Start was called
	giveUp  *time.Timer // while no path stands
	wish    sessions.Wish
	offered map[string]profiles.Direction // by our offer that waits for its answer
	reoffer *webrtc.SessionDescription    // of Reoffer, until it is answered
	offerer bool                          // made the first offer
	feed    *feed                         // of the source, while something is sent

	outs map[string]*track   // both kinds, whether they are taken part in or not
	recv map[string]*counter // likewise
	said map[string]*hearsay // likewise

	duplex *duplex // nil: full duplex

	position sessions.Position // of what is sent; the subscription has it while there is one

	opening sync.Mutex // one goroutine at a time opens and closes source and sink
	sinkMu  sync.RWMutex
	sink    sessions.Sink
	kinds   string // that the sink was opened for
}

func newLeg(f *Factory, cfg sessions.LegConfig) *Leg {
	log := cfg.Logger
	if log == nil {
		log = f.cfg.Logger
	}
	l := &Leg{
		f: f, out: &train{yard: f.yard}, cfg: cfg, log: log,
		started: make(chan struct{}), connected: make(chan struct{}), failed: make(chan struct{}), closed: make(chan struct{}), broken: make(chan struct{}, 1),
		wish: cfg.Wish, offered: map[string]profiles.Direction{},
		tracks: map[string]*track{}, media: map[string]sessions.MediaState{}, recv: map[string]*counter{"audio": {}, "video": {}},
		said: map[string]*hearsay{"audio": {}, "video": {}},
		outs: map[string]*track{"audio": newTrack("audio", cfg.CallID), "video": newTrack("video", cfg.CallID)},
	}
	if cfg.HalfDuplex {
		l.duplex = &duplex{}
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
		l.wait(0)
	case webrtc.PeerConnectionStateConnecting:
		l.wait(iceFailed)
	case webrtc.PeerConnectionStateDisconnected:
		l.wait(iceFailed - iceQuiet)
		l.mu.Lock()
		ours := l.offerer // both sides notice: one of them is enough
		l.mu.Unlock()
		if ours {
			l.breaks()
		}
	case webrtc.PeerConnectionStateFailed:
		l.fail(errSilent)
	default:
	}
}

var errSilent = fmt.Errorf("%w: the other device stopped answering", sessions.ErrMediaFailed)

// wait gives the path up after a time, or, with 0, no more. pion would count from the answer
// on, but who rings has answered already, and the caller cannot know before somebody accepts.
func (l *Leg) wait(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.giveUp != nil {
		l.giveUp.Stop()
		l.giveUp = nil
	}
	if d > 0 && (l.begun || l.offerer) && !l.isClosed() { // an offerer has heard that it was accepted
		l.giveUp = time.AfterFunc(d, func() { l.fail(errSilent) })
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
	return l.mediaLocked()
}

func (l *Leg) mediaLocked() []sessions.MediaState {
	var out []sessions.MediaState
	for _, kind := range []string{"audio", "video"} {
		if m, ok := l.media[kind]; ok {
			out = append(out, m)
		}
	}
	return out
}

// Counters implements sessions.Leg.
func (l *Leg) Counters() sessions.LegStats {
	s := sessions.LegStats{Audio: l.stream("audio"), Video: l.stream("video")}
	l.mu.Lock()
	if l.feed != nil && l.feed.view != nil {
		s.Video.Skipped = l.feed.view.Skipped()
	}
	if l.feed != nil {
		s.Source = troubleOf(l.feed.src)
	}
	l.mu.Unlock()
	l.sinkMu.RLock()
	if l.sink != nil {
		s.Recording, s.Sink = l.sink.Path(), troubleOf(l.sink)
		s.NoPicture = l.sink.NeedsKeyFrame() && l.recv["video"].wanted()
	}
	l.sinkMu.RUnlock()
	return s
}

// Stats implements sessions.Leg; each time ICE is asked in its own goroutine.
func (l *Leg) Stats() sessions.LegStats {
	s := l.Counters()
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

// troubleOf is what a source or sink says is wrong with it.
func troubleOf(end any) string {
	if f, ok := end.(sessions.Fallible); ok {
		return f.Trouble()
	}
	return ""
}

func (l *Leg) stream(kind string) sessions.StreamStats {
	s := l.recv[kind].stats()
	s.PacketsSent, s.BytesSent = l.outs[kind].sent()
	s.Peer = l.said[kind].get()
	return s
}

// Close implements sessions.Leg: it returns after camera and microphone are freed and
// every goroutine of the leg has ended; so does a second Close.
func (l *Leg) Close() error {
	l.once.closed.Do(func() {
		l.mu.Lock()
		close(l.closed)
		l.mu.Unlock()
		l.opening.Lock() // what is being opened is seen below
		l.stopFeed()
		l.opening.Unlock()
		l.wait(0)
		l.closeErr = l.pc.GracefulClose()
		l.wg.Wait()
		if err := l.swapSink(nil, ""); err != nil {
			l.closeErr = err
		}
		l.f.forget(l)
	})
	return l.closeErr
}
