package rtc

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/pion/rtcp"

	"github.com/hallway-home/hallway/profiles"
	"github.com/hallway-home/hallway/sessions"
)

// direct is a leg without a network: a camera that this node speaks for, shown by this node.
type direct struct {
	own, from sessions.Endpoint
	cfg       sessions.LegConfig
	connected chan struct{}
	failed    chan struct{}
	closed    chan struct{}
	once      sync.Once
	closeErr  error // written once, inside once
	wg        sync.WaitGroup

	mu     sync.Mutex
	err    error
	begun  bool
	sink   sessions.Sink
	free   func()
	counts map[string]*counter
	wish   sessions.Wish
}

func newDirect(own sessions.Endpoint, cfg sessions.LegConfig) *direct {
	return &direct{
		own: own, from: cfg.Direct, cfg: cfg, wish: cfg.Wish, counts: map[string]*counter{"audio": {}, "video": {}},
		connected: make(chan struct{}), failed: make(chan struct{}), closed: make(chan struct{}),
	}
}

var errDirect = errors.New("there is nobody to negotiate with")

// Offer implements sessions.Leg.
func (d *direct) Offer(context.Context) ([]byte, error) { return nil, errDirect }

// Answer implements sessions.Leg.
func (d *direct) Answer(context.Context, []byte) ([]byte, error) { return nil, errDirect }

// SetAnswer implements sessions.Leg.
func (d *direct) SetAnswer(context.Context, []byte) error { return errDirect }

// Reoffer implements sessions.Leg.
func (d *direct) Reoffer(context.Context, bool) ([]byte, error) { return nil, errDirect }

// SetWish implements sessions.Leg.
func (d *direct) SetWish(w sessions.Wish) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.wish = w
	d.gate()
}

// gate lets in what is wanted; mu is held.
func (d *direct) gate() {
	for _, m := range d.mediaLocked() {
		d.counts[m.Kind].allow(m.Direction.Receives())
	}
}

// Broken implements sessions.Leg: there is no path that could break.
func (d *direct) Broken() <-chan struct{} { return nil }

// Media implements sessions.Leg.
func (d *direct) Media() []sessions.MediaState {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.mediaLocked()
}

func (d *direct) mediaLocked() []sessions.MediaState {
	var out []sessions.MediaState
	for _, m := range []struct {
		kind string
		profiles.Medium
	}{{"audio", d.cfg.Capabilities.Audio}, {"video", d.cfg.Capabilities.Video}} {
		if m.Direction.Receives() && len(m.Codecs) > 0 {
			out = append(out, sessions.MediaState{Kind: m.kind, Codec: m.Codecs[0].Name, Direction: d.wish.Of(m.kind, profiles.RecvOnly)})
		}
	}
	return out
}

// Start implements sessions.Leg.
func (d *direct) Start(ctx context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	select {
	case <-d.closed:
		return sessions.ErrMediaFailed
	default:
	}
	if d.begun {
		return nil
	}
	d.begun = true
	sink, err := d.own.OpenSink(ctx, d.cfg.CallID, d.cfg.Remote, d.mediaLocked())
	if err != nil {
		return fmt.Errorf("%w: %w", sessions.ErrMediaFailed, err)
	}
	src, free, err := d.from.OpenSource(ctx, nil)
	if err != nil {
		return errors.Join(fmt.Errorf("%w: %w", sessions.ErrMediaFailed, err), sink.Close())
	}
	d.sink, d.free = sink, free
	d.gate()
	close(d.connected)
	if src != nil {
		d.wg.Go(func() { d.carry(src, sink) })
	}
	return nil
}

// carry hands the source's packets to the sink until either ends.
func (d *direct) carry(src sessions.Source, sink sessions.Sink) {
	codecs := map[string]profiles.Codec{}
	for _, t := range src.Tracks() {
		codecs[t.Kind] = t.Codec
	}
	defer src.Subscribe(&shown{d: d, sink: sink, codecs: codecs}, &sessions.Position{}).Cancel()
	select {
	case <-d.closed:
	case <-src.Done():
		d.mu.Lock()
		d.err = fmt.Errorf("%w: %w", sessions.ErrMediaFailed, src.Err())
		d.mu.Unlock()
		close(d.failed)
	}
}

// shown takes what the source delivers into the sink. It implements sessions.Outlet.
type shown struct {
	d      *direct
	sink   sessions.Sink
	codecs map[string]profiles.Codec

	audio, video time.Time // of the last report
}

// Takes implements sessions.Outlet.
func (s *shown) Takes(kind string) bool {
	return s.d.counts[kind].wanted()
}

// WriteRTP implements sessions.Outlet.
func (s *shown) WriteRTP(b sessions.Batch) {
	for i := range b.Packets {
		p := b.Packets[i] // the sink keeps it, the source uses its slice again
		if s.d.counts[b.Kind].add(&p, s.codecs[b.Kind].ClockRate) {
			s.sink.WriteRTP(b.Kind, s.codecs[b.Kind], &p)
		}
	}
	if b.Live {
		s.report(b)
	}
}

// report ties the two clocks together as sender reports do elsewhere.
func (s *shown) report(b sessions.Batch) {
	last := &s.audio
	if b.Kind == "video" {
		last = &s.video
	}
	if now := time.Now(); now.Sub(*last) >= reportEvery && s.Takes(b.Kind) {
		*last = now
		s.sink.WriteSenderReport(b.Kind, &rtcp.SenderReport{NTPTime: ntp(b.At), RTPTime: b.Packets[len(b.Packets)-1].Timestamp})
	}
}

// Stats implements sessions.Leg; there is no path.
func (d *direct) Stats() sessions.LegStats { return d.Counters() }

// Counters implements sessions.Leg.
func (d *direct) Counters() sessions.LegStats {
	d.mu.Lock()
	sink := d.sink
	d.mu.Unlock()
	s := sessions.LegStats{Audio: d.counts["audio"].stats(), Video: d.counts["video"].stats()}
	if sink != nil {
		s.Recording, s.Sink = sink.Path(), troubleOf(sink)
	}
	return s
}

// Connected implements sessions.Leg.
func (d *direct) Connected() <-chan struct{} { return d.connected }

// Done implements sessions.Leg.
func (d *direct) Done() <-chan struct{} { return d.failed }

// Err implements sessions.Leg.
func (d *direct) Err() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.err
}

// Close implements sessions.Leg.
func (d *direct) Close() error {
	d.once.Do(func() {
		d.mu.Lock()
		close(d.closed)
		sink, free := d.sink, d.free
		d.mu.Unlock()
		d.wg.Wait()
		if free != nil {
			free()
		}
		if sink != nil {
			d.closeErr = sink.Close()
		}
	})
	return d.closeErr
}
