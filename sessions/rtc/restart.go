package rtc

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	"github.com/pion/webrtc/v4"

	"github.com/hallway-home/hallway/profiles"
	"github.com/hallway-home/hallway/sessions"
)

// Broken implements sessions.Leg.
func (l *Leg) Broken() <-chan struct{} { return l.broken }

func (l *Leg) breaks() {
	select {
	case l.broken <- struct{}{}:
	default:
	}
}

// Reoffer implements sessions.Leg: an offer of what is wanted now. With restart it has new
// ICE credentials and the addresses that this device has now (RFC 8445 section 9, RFC 8839
// section 4.4.1.1.1). DTLS and the media streams go on. It becomes our description only with
// its answer, since pion cannot roll back: an offer that nobody answers leaves nothing behind
// but a section that the next offer has, too.
func (l *Leg) Reoffer(ctx context.Context, restart bool) ([]byte, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, kind := range []string{"audio", "video"} {
		if l.tracks[kind] != nil || !l.wish.Asks(kind) || l.wished(kind) == profiles.Inactive || l.wished(kind) == "" {
			continue
		}
		if err := l.addTransceiver(kind, named(l.want(kind).Codecs)); err != nil {
			return nil, fmt.Errorf("%w: %w", sessions.ErrMediaFailed, err)
		}
	}
	if restart {
		if _, err := l.pc.CreateOffer(&webrtc.OfferOptions{ICERestart: true}); err != nil {
			return nil, fmt.Errorf("%w: %w", sessions.ErrMediaFailed, err)
		}
		if err := l.gathered(ctx, webrtc.GatheringCompletePromise(l.pc)); err != nil {
			return nil, err
		}
	}
	offer, err := l.pc.CreateOffer(nil) // with the candidates
	if err != nil {
		return nil, fmt.Errorf("%w: %w", sessions.ErrMediaFailed, err)
	}
	sections, err := readSDP([]byte(offer.SDP))
	if err != nil {
		return nil, err
	}
	l.order = l.order[:0]
	clear(l.offered)
	var dirs []profiles.Direction
	for _, s := range sections {
		d := profiles.Inactive
		if !slices.Contains(l.order, s.kind) && l.tracks[s.kind] != nil {
			d = l.wished(s.kind)
			l.offered[s.kind] = d
		}
		l.order = append(l.order, s.kind)
		dirs = append(dirs, d)
	}
	l.reoffer = &offer
	out, err := l.written(offer.SDP, dirs)
	return []byte(out), err
}

// adopt makes an offer of Reoffer our description, now that its answer is here; mu is held.
func (l *Leg) adopt() error {
	if l.reoffer == nil {
		return nil
	}
	offer := *l.reoffer
	l.reoffer = nil
	if err := l.pc.SetLocalDescription(offer); err != nil {
		return fmt.Errorf("%w: %w", sessions.ErrMediaFailed, err)
	}
	return nil
}

// Moved tells the factory which addresses this node has now: legs that send from another
// one are broken, long before their silence shows it.
func (f *Factory) Moved(own []netip.Addr) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for l := range f.legs {
		if a, ok := l.sendsFrom(); ok && !slices.Contains(own, a) {
			l.breaks()
		}
	}
}

// sendsFrom is the local address of the path in use.
func (l *Leg) sendsFrom() (netip.Addr, bool) {
	select {
	case <-l.connected:
	default:
		return netip.Addr{}, false
	}
	pair, err := l.pc.SCTP().Transport().ICETransport().GetSelectedCandidatePair()
	if err != nil || pair == nil {
		return netip.Addr{}, false
	}
	a, err := netip.ParseAddr(pair.Local.Address)
	return a.WithZone(""), err == nil
}
