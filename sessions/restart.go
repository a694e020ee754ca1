package sessions

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/emiago/sipgo/sip"
)

const (
	// reofferTime bounds one attempt to find a lost path again.
	reofferTime = 5 * time.Second
	// reofferPause is the pause between attempts; checkFlows and the leg end the call when
	// none helps.
	reofferPause = 300 * time.Millisecond
)

// errGlare says that the other side makes an offer, too (RFC 3261 section 14.1).
var errGlare = errors.New("both sides changed the call at once")

// watch restarts the media of an established call whenever their path is lost, and ends
// the call when they fail for good.
func (c *Call) watch(d *dialog) {
	for {
		select {
		case <-c.ctx.Done():
			return
		case <-d.leg.Done():
			c.finish(ending{code: 500, words: mediaWords(d.leg.Err()), bye: true})
			return
		case <-d.leg.Broken():
			c.restart(d)
		}
	}
}

// restart re-offers until the other side agreed, whoever made the offer. The old flow may
// be gone with the old address: each attempt waits for the new one.
func (c *Call) restart(d *dialog) {
	c.mu.Lock()
	agreed := c.agreed
	c.mu.Unlock()
	for {
		began := time.Now()
		err := c.reoffer(d)
		if err == nil {
			c.a.log.Info("the call goes on over another path", "call", c.id, "peer", d.device.Slug)
			return
		}
		c.a.log.Debug("the call's path is not found again yet", "call", c.id, "err", err)
		pause := max(reofferPause-time.Since(began), reofferPause/3)
		if errors.Is(err, errGlare) {
			pause = glarePause(c.info.Direction == "out")
		}
		select {
		case <-c.ctx.Done():
			return
		case <-d.leg.Done():
			return // watch ends the call
		case <-time.After(pause):
		}
		c.mu.Lock()
		done := c.agreed != agreed
		c.mu.Unlock()
		if done {
			return // the other side's offer was quicker
		}
	}
}

// glarePause is RFC 3261 section 14.1: the owner of the Call-ID waits longer.
func glarePause(owner bool) time.Duration {
	if owner {
		return 2100*time.Millisecond + rand.N(1900*time.Millisecond) //nolint:gosec // no secret
	}
	return rand.N(2 * time.Second) //nolint:gosec // no secret
}

// reoffer makes one re-INVITE with an ICE restart.
func (c *Call) reoffer(d *dialog) error {
	a := c.a
	ctx, cancel := context.WithTimeout(c.ctx, reofferTime)
	defer cancel()
	if err := a.reach(ctx, d.peer); err != nil {
		return err
	}
	if !c.changing.TryLock() {
		return errGlare
	}
	defer c.changing.Unlock()
	self, err := a.self()
	if err != nil {
		return err
	}
	select {
	case <-d.leg.Broken(): // before this offer: it is the answer to that, too
	default:
	}
	offer, err := d.leg.Restart(ctx)
	if err != nil {
		return err
	}
	seq := d.nextSeq()
	req := a.request(sip.INVITE, d, seq)
	req.AppendHeader(a.contact(self))
	setSDP(req, offer)
	res, err := a.roundTrip(ctx, req)
	if err != nil {
		return err
	}
	switch {
	case res.IsSuccess():
	case res.StatusCode == statusPending:
		return errGlare
	case res.StatusCode == statusNoCall: // RFC 3261 section 12.2.1.2: the dialog is over
		c.finish(ending{code: statusNoCall, words: d.device.Name + " no longer knows of this call."})
		return nil
	default:
		return fmt.Errorf("%s answered with SIP status %d", d.device.Name, res.StatusCode)
	}
	a.ack(d, seq)
	if err := d.leg.SetAnswer(ctx, res.Body()); err != nil {
		return err
	}
	c.agree()
	return nil
}

// agree counts finished offers and answers.
func (c *Call) agree() {
	c.mu.Lock()
	c.agreed++
	c.mu.Unlock()
	c.a.tell(c.Info())
}
