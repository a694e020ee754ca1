package sessions

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/emiago/sipgo/sip"

	"github.com/hallway-home/hallway/profiles"
)

const (
	// reofferTime bounds one offer within a call.
	reofferTime = 5 * time.Second
	// changeTime bounds how long a person's change is tried: an offer, the longest pause after
	// a glare (4 s) and another offer.
	changeTime = 15 * time.Second
)

var (
	// errGlare says that the other side makes an offer, too (RFC 3261 section 14.1).
	errGlare = errors.New("both sides changed the call at once")
	// errAway says that no flow leads to the other side now.
	errAway = errors.New("there is no connection to it now")
	// errNoDialog says that the other side has forgotten the dialog.
	errNoDialog = errors.New("the other side no longer knows of this call")
)

// Hold puts a running call on hold or takes it back: neither side sends or receives. What
// this device sends stops before Hold asks the other side. An error says that the other
// side could not be told; this side keeps to the wish all the same.
func (a *Agent) Hold(ctx context.Context, id string, on bool) error {
	return a.modify(ctx, id, func(w *Wish) { w.Hold = on })
}

// Mute stops and starts the sound that this device sends. The other side is told by the
// direction of the media, so that its statistics do not count the silence as loss.
func (a *Agent) Mute(ctx context.Context, id string, on bool) error {
	return a.modify(ctx, id, func(w *Wish) { w.Mute = on })
}

// Video adds or drops the picture of a running call: SendRecv shows both sides, RecvOnly
// shows only theirs, Inactive none. The other side's camera stays as its person wants it.
func (a *Agent) Video(ctx context.Context, id string, d profiles.Direction) error {
	if c, err := a.call(id); err == nil && d.Receives() {
		c.mu.Lock()
		with := c.dialog
		c.mu.Unlock()
		if with != nil {
			if m, err := profiles.Match(a.capability(), with.device.Capabilities); err == nil && m.Video.Direction == profiles.Inactive {
				return fmt.Errorf("%w: no picture can pass between this device and %s", ErrNoCommonCodec, with.device.Name)
			}
		}
	}
	return a.modify(ctx, id, func(w *Wish) { w.Video = d })
}

// modify changes the wish of this side and agrees on it with the other one.
func (a *Agent) modify(ctx context.Context, id string, edit func(*Wish)) error {
	c, err := a.call(id)
	if err != nil {
		return err
	}
	c.mu.Lock()
	d := c.dialog
	if d == nil || !d.established || c.info.State != StateActive {
		c.mu.Unlock()
		return ErrNotActive
	}
	wish := c.wish
	edit(&wish)
	c.wish = wish
	c.info.Hold, c.info.Muted = wish.Hold, wish.Mute
	d.leg.SetWish(wish)
	c.mu.Unlock()
	if d.direct(a) { // a camera that this node speaks for: there is nobody to ask
		c.agree()
		return nil
	}
	a.tell(c.Info())
	return c.settle(ctx, d)
}

// settle offers the wish of this side until the other one has answered.
func (c *Call) settle(ctx context.Context, d *dialog) error {
	ctx, cancel := context.WithTimeout(ctx, changeTime)
	defer cancel()
	for {
		err := c.reoffer(ctx, d, false)
		if err == nil {
			return nil
		}
		if !errors.Is(err, errGlare) {
			c.mu.Lock()
			c.unsaid = errors.Is(err, errAway) || errors.Is(err, errNoDial)
			c.mu.Unlock()
			return fmt.Errorf("this side has changed, but %s could not be told: %w", d.device.Name, err)
		}
		select {
		case <-c.ctx.Done():
			return ErrNotActive
		case <-ctx.Done():
			return fmt.Errorf("this side has changed, but %s could not be told: %w", d.device.Name, err)
		case <-time.After(glarePause(c.info.Direction == "out")):
		}
	}
}

// retell offers what could not be said while no flow stood, once there is one again.
func (c *Call) retell(d *dialog) {
	c.mu.Lock()
	due := c.unsaid && c.a.HasFlow(d.peer)
	c.unsaid = c.unsaid && !due
	c.mu.Unlock()
	if due {
		c.a.spawn(func() {
			if err := c.settle(c.ctx, d); err != nil {
				c.a.log.Debug("the other side does not know of a change yet", "call", c.id, "err", err)
			}
		})
	}
}

// glarePause is RFC 3261 section 14.1: the owner of the Call-ID waits longer. Steps of
// 10 ms as it says.
func glarePause(owner bool) time.Duration {
	const step = 10 * time.Millisecond
	if owner {
		return 2100*time.Millisecond + rand.N(191*step).Truncate(step) //nolint:gosec // no secret
	}
	return rand.N(201 * step).Truncate(step) //nolint:gosec // no secret
}

// reoffer makes one re-INVITE with what this side wants now.
func (c *Call) reoffer(ctx context.Context, d *dialog, restart bool) error {
	a := c.a
	ctx, cancel := context.WithTimeout(ctx, reofferTime)
	defer cancel()
	defer context.AfterFunc(c.ctx, cancel)()
	if err := a.reach(ctx, d.peer); err != nil {
		return fmt.Errorf("%w: %w", errAway, err)
	}
	select { // an offer of ours, or an answer that is being made, comes first
	case c.changing <- struct{}{}:
		defer func() { <-c.changing }()
	case <-ctx.Done():
		return ctx.Err()
	}
	c.mu.Lock()
	restart = restart || c.restarting // a person's change must not pass for the way back
	c.mu.Unlock()
	if restart {
		select {
		case <-d.leg.Broken(): // before this offer: it is the answer to that, too
		default:
		}
	}
	offer, err := d.leg.Reoffer(ctx, restart)
	if err != nil {
		return err
	}
	res, seq, err := c.inDialog(ctx, sip.INVITE, d, offer)
	if err != nil {
		return err
	}
	a.ack(d, seq)
	if err := d.leg.SetAnswer(ctx, res.Body()); err != nil {
		return err
	}
	c.agree()
	return nil
}

// inDialog sends a re-INVITE or an UPDATE and returns its 2xx. Each refreshes the session
// (RFC 4028 section 7.4); a peer that wants longer intervals is asked once more.
func (c *Call) inDialog(ctx context.Context, method sip.RequestMethod, d *dialog, sdp []byte) (*sip.Response, uint32, error) {
	a := c.a
	self, err := a.self()
	if err != nil {
		return nil, 0, err
	}
	for again := false; ; again = true {
		seq := d.nextSeq()
		req := a.request(method, d, seq)
		req.AppendHeader(a.contact(self))
		a.offerTimer(req, c.interval(d), d.minSE, "uac")
		if sdp != nil {
			setSDP(req, sdp)
		}
		res, err := a.roundTrip(ctx, req)
		switch {
		case err != nil:
			return nil, seq, err
		case res.IsSuccess():
			c.timed(d, timerOf(res, true))
			return res, seq, nil
		case res.StatusCode == statusPending:
			return nil, seq, errGlare
		case res.StatusCode == statusInterval && !again && d.raise(res):
			continue
		case res.StatusCode == statusNoCall, res.StatusCode == sip.StatusRequestTimeout: // RFC 3261 section 12.2.1.2
			c.finish(ending{code: statusNoCall, words: d.device.Name + " no longer knows of this call."})
			return nil, seq, errNoDialog
		}
		return nil, seq, fmt.Errorf("%s answered with SIP status %d", d.device.Name, res.StatusCode)
	}
}

// agree counts finished offers and answers, and reads from them what the other side wants.
func (c *Call) agree() {
	c.mu.Lock()
	c.agreed++
	if d := c.dialog; d != nil {
		now := d.leg.Media()
		c.info.PeerHold, c.info.PeerMuted = theirs(c.first, now, c.wish, c.info.PeerMuted)
		c.first = grown(c.first, now)
	}
	c.mu.Unlock()
	c.a.tell(c.Info())
}

// theirs says what the other side has taken back of the sound that was agreed at first. Its
// answers are bounded by what we offer (RFC 3264 section 6.1), so a side that is muted sees
// less, and one that holds sees nothing.
func theirs(first, now []MediaState, wish Wish, wasMuted bool) (hold, muted bool) {
	was, is := directionOf(first, "audio"), directionOf(now, "audio")
	silent := was.Receives() && !is.Receives()
	switch {
	case wish.Hold:
		return false, false
	case wish.Mute || !was.Sends():
		return silent && !wasMuted, silent && wasMuted
	case !is.Sends():
		return true, false
	}
	return false, silent
}

func directionOf(media []MediaState, kind string) profiles.Direction {
	for _, m := range media {
		if m.Kind == kind {
			return m.Direction
		}
	}
	return profiles.Inactive
}

// grown is the most that was agreed so far.
func grown(first, now []MediaState) []MediaState {
	var out []MediaState
	for _, kind := range []string{"audio", "video"} {
		a, b := directionOf(first, kind), directionOf(now, kind)
		out = append(out, MediaState{Kind: kind, Direction: profiles.Join(a.Sends() || b.Sends(), a.Receives() || b.Receives())})
	}
	return out
}
