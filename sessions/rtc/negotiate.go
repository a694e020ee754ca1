package rtc

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"

	"github.com/pion/webrtc/v4"

	"github.com/hallway-home/hallway/profiles"
	"github.com/hallway-home/hallway/sessions"
)

func (l *Leg) want(kind string) profiles.Medium {
	if kind == "video" {
		return l.cfg.Capabilities.Video
	}
	return l.cfg.Capabilities.Audio
}

// wished is the direction of one kind that this side wants now; mu is held.
func (l *Leg) wished(kind string) profiles.Direction {
	return l.wish.Of(kind, l.want(kind).Direction)
}

// SetWish implements sessions.Leg.
func (l *Leg) SetWish(w sessions.Wish) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.wish = w
	for kind := range l.media {
		l.gate(kind)
	}
}

// gate opens and closes the ways of one kind, by what was agreed and is still wanted; mu is
// held.
func (l *Leg) gate(kind string) {
	agreed, wished := l.media[kind].Direction, l.wished(kind)
	if t := l.tracks[kind]; t != nil {
		t.allow(agreed.Sends() && wished.Sends())
	}
	if c := l.recv[kind]; c != nil {
		c.allow(agreed.Receives() && wished.Receives())
	}
}

// addTransceiver takes part in one kind of media.
func (l *Leg) addTransceiver(kind string, codecs []webrtc.RTPCodecParameters) error {
	t := l.outs[kind]
	tr, err := l.pc.AddTransceiverFromTrack(t, webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionSendrecv})
	if err != nil {
		return err
	}
	if err := tr.SetCodecPreferences(codecs); err != nil {
		return err
	}
	l.tracks[kind] = t
	sender := tr.Sender()
	l.spawnLocked(func() { l.readRequests(kind, sender) })
	return nil
}

// Offer implements sessions.Leg.
func (l *Leg) Offer(ctx context.Context) ([]byte, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.offerer = true
	var dirs []profiles.Direction
	for _, kind := range []string{"audio", "video"} {
		d := l.wished(kind)
		if d == profiles.Inactive || d == "" {
			continue
		}
		if err := l.addTransceiver(kind, named(l.want(kind).Codecs)); err != nil {
			return nil, fmt.Errorf("%w: %w", sessions.ErrMediaFailed, err)
		}
		l.order = append(l.order, kind)
		l.offered[kind] = d
		dirs = append(dirs, d)
	}
	offer, err := l.pc.CreateOffer(nil)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", sessions.ErrMediaFailed, err)
	}
	out, err := l.local(ctx, offer, dirs)
	return []byte(out), err
}

// local sets our description, waits for the host candidates (milliseconds) and writes
// the directions that are meant.
func (l *Leg) local(ctx context.Context, d webrtc.SessionDescription, dirs []profiles.Direction) (string, error) {
	gathered := webrtc.GatheringCompletePromise(l.pc)
	if err := l.pc.SetLocalDescription(d); err != nil {
		return "", fmt.Errorf("%w: %w", sessions.ErrMediaFailed, err)
	}
	if err := l.gathered(ctx, gathered); err != nil {
		return "", err
	}
	return l.written(l.pc.LocalDescription().SDP, dirs)
}

func (l *Leg) gathered(ctx context.Context, done <-chan struct{}) error {
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-l.closed:
		return sessions.ErrMediaFailed
	}
}

// written is our description as the other side gets it.
func (l *Leg) written(sdp string, dirs []profiles.Direction) (string, error) {
	sdp = addLinkLocal(sdp, l.port.linkLocal())
	if !strings.Contains(sdp, "a=candidate:") {
		return "", fmt.Errorf("%w: this device has no network address that may carry media; check the cable or Wi-Fi and the setting interfaces", sessions.ErrMediaFailed)
	}
	return setDirections(sdp, dirs), nil
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
	l.reoffer = nil // theirs is here first
	dirs, reject, err := l.choose(sections)
	if err != nil {
		return nil, err
	}
	clean, names := sift(setDirections(string(offer), sendRecv(len(sections))))
	err = l.pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeOffer, SDP: clean})
	if err != nil {
		return nil, unusable(err)
	}
	answer, err := l.pc.CreateAnswer(nil)
	if err != nil {
		return nil, unusable(err)
	}
	out, err := l.local(ctx, answer, dirs)
	if err != nil {
		return nil, err
	}
	out = rejectSections(out, reject)
	ours, err := readSDP([]byte(out))
	if err != nil {
		return nil, err
	}
	l.resolve(names)
	l.order = l.order[:0]
	for i, s := range ours {
		l.order = append(l.order, s.kind)
		if i == slices.Index(l.order, s.kind) { // a second section of a kind was rejected
			l.agreed(s, dirs[i])
		}
	}
	l.renew()
	return []byte(out), nil
}

// unusable says whose fault it is that an offer cannot be answered: theirs, unless this
// device is out of file descriptors.
func unusable(err error) error {
	if errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) {
		return fmt.Errorf("%w: %w", sessions.ErrMediaFailed, err)
	}
	return fmt.Errorf("%w: %w", sessions.ErrNoCommonCodec, err)
}

// choose decides on each offered section: which way media goes, and which is rejected
// for good because nothing is shared. mu is held.
func (l *Leg) choose(sections []section) (dirs []profiles.Direction, reject []bool, err error) {
	dirs, reject = make([]profiles.Direction, len(sections)), make([]bool, len(sections))
	usable, seen := false, map[string]bool{}
	for i, s := range sections {
		m := l.want(s.kind)
		common := slices.DeleteFunc(slices.Clone(m.Codecs), func(c profiles.Codec) bool { return !slices.ContainsFunc(s.codecs, c.Fits) })
		dirs[i], reject[i] = profiles.Inactive, true
		if seen[s.kind] || s.rejected || len(common) == 0 || !m.Direction.Sends() && !m.Direction.Receives() {
			continue
		}
		seen[s.kind], reject[i] = true, false
		can := m.Within(common) // what is passed through must be made in a common codec
		dirs[i] = agree(l.wish.Of(s.kind, can), s.direction)
		usable = usable || agree(can, s.direction) != profiles.Inactive || s.direction == profiles.Inactive // held is usable too
		if l.tracks[s.kind] == nil {
			if err := l.addTransceiver(s.kind, s.as(named(common))); err != nil {
				return nil, nil, fmt.Errorf("%w: %w", sessions.ErrMediaFailed, err)
			}
		}
	}
	if !usable {
		return nil, nil, sessions.ErrNoCommonCodec
	}
	return dirs, reject, nil
}

// agreed notes what one kind of media became; mu is held.
func (l *Leg) agreed(s section, d profiles.Direction) {
	if len(s.codecs) == 0 || s.rejected {
		d = profiles.Inactive
	}
	state := sessions.MediaState{Kind: s.kind, Direction: d}
	if len(s.codecs) > 0 && d != profiles.Inactive {
		state.Codecs = s.codecs
		state.Codec = s.codecs[0].Name
		if c, ok := l.want(s.kind).Choose(s.codecs); ok && d.Sends() {
			state.Codec = c.Name
		}
	}
	l.media[s.kind] = state
	l.gate(s.kind)
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
	for i, s := range sections {
		if s.kind != l.order[i] {
			return fmt.Errorf("%w: the answer has its media in another order", sessions.ErrMediaFailed)
		}
	}
	if err := l.adopt(); err != nil {
		return err
	}
	clean, names := sift(setDirections(string(answer), sendRecv(len(sections))))
	err = l.pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: clean})
	if err != nil {
		return fmt.Errorf("%w: %w", sessions.ErrMediaFailed, err)
	}
	l.resolve(names)
	for i, s := range sections {
		if i == slices.Index(l.order, s.kind) {
			offered, can := l.offered[s.kind], l.want(s.kind).Within(s.codecs)
			l.agreed(s, agree(profiles.Join(offered.Sends() && can.Sends(), offered.Receives() && can.Receives()), s.direction))
		}
	}
	l.renew()
	return nil
}
