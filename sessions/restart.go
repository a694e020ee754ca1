package sessions

import (
	"errors"
	"time"
)

// reofferPause is the pause between attempts to find a lost path again; checkFlows and the
// leg end the call when none helps.
const reofferPause = 300 * time.Millisecond

// watch restarts the media of an established call whenever their path is lost, keeps its
// session timer, and ends the call when media fail for good.
func (c *Call) watch(d *dialog) {
	timer := time.NewTimer(c.timer(d).wait())
	defer timer.Stop()
	for {
		select {
		case <-c.ctx.Done():
			return
		case <-d.leg.Done():
			c.finish(ending{code: 500, words: mediaWords(d.leg.Err()), bye: true})
			return
		case <-d.leg.Broken():
			c.restart(d)
		case <-d.refreshed:
		case <-timer.C:
			c.due(d)
		}
		timer.Reset(c.timer(d).wait())
	}
}

// restart re-offers until the other side agreed, whoever made the offer. The old flow may
// be gone with the old address: each attempt waits for the new one.
func (c *Call) restart(d *dialog) {
	c.mu.Lock()
	agreed := c.agreed
	c.restarting = true
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		c.restarting = false
		c.mu.Unlock()
	}()
	for {
		began := time.Now()
		err := c.reoffer(c.ctx, d, true)
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
