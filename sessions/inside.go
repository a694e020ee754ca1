package sessions

import (
	"github.com/emiago/sipgo/sip"

	"github.com/hallway-home/hallway/devices"
)

// find returns the dialog that a request of peer belongs to.
func (a *Agent) find(req *sip.Request, peer devices.NodeID) (*Call, *dialog, error) {
	tag, _ := req.To().Params.Get("tag")
	remote, _ := req.From().Params.Get("tag")
	a.mu.Lock()
	c := a.dialogs[dialogKey{req.CallID().Value(), tag}]
	a.mu.Unlock()
	if c == nil {
		return nil, nil, refusal{statusNoCall, "Call/Transaction Does Not Exist"}
	}
	c.mu.Lock()
	d := c.dialog
	c.mu.Unlock()
	if d == nil || d.peer != peer || d.remoteTag != remote {
		return nil, nil, refusal{statusNoCall, "Call/Transaction Does Not Exist"}
	}
	return c, d, nil
}

func (a *Agent) onBye(req *sip.Request, tx *sip.ServerTx, peer devices.NodeID) {
	c, d, err := a.find(req, peer)
	if err != nil {
		a.refuse(req, tx, err)
		return
	}
	if err := tx.Respond(sip.NewResponseFromRequest(req, statusOK, "OK", nil)); err != nil {
		a.log.Debug("cannot confirm the end of a call", "err", err)
	}
	words := d.device.Name + " hung up."
	by, taken := a.takenBy(req)
	if taken {
		words = a.takenWords(by)
	}
	code, why := reasonOf(req)
	if why != "" {
		words = d.device.Name + " ended the call: " + why
	}
	c.finish(ending{code: max(code, statusOK), words: words, takenBy: by})
}

// reinvite answers a changed offer with what the leg can do and its person wants (RFC 3261
// section 14.2), in a re-INVITE or an UPDATE (RFC 3311); an UPDATE without one only says
// that the session still lives (RFC 4028).
func (a *Agent) reinvite(req *sip.Request, tx *sip.ServerTx, peer devices.NodeID) {
	c, d, err := a.find(req, peer)
	if err != nil {
		a.refuse(req, tx, err)
		return
	}
	self, err := a.self()
	if err != nil {
		a.refuse(req, tx, err)
		return
	}
	c.mu.Lock()
	stale, early := req.CSeq().SeqNo <= d.remoteSeq, !d.established
	if !stale {
		d.remoteSeq = req.CSeq().SeqNo
	}
	c.mu.Unlock()
	switch {
	case stale: // RFC 3261 section 12.2.2
		a.refuse(req, tx, refusal{500, "CSeq Out Of Order"})
		return
	case early: // RFC 3261 section 14.2, RFC 3311 section 5.2: the first INVITE has no final response yet
		a.refuse(req, tx, refusal{statusLater, "Still Ringing"})
		return
	}
	if c.as.Foreign {
		self = c.as
	}
	timer, refresher, err := a.answerTimer(req)
	if err != nil {
		a.refuse(req, tx, err)
		return
	}
	res := c.response(req, d, self, statusOK, "OK")
	if req.Method == sip.INVITE || len(req.Body()) > 0 {
		select {
		case c.changing <- struct{}{}:
			defer func() { <-c.changing }()
		default: // RFC 3261 section 14.2
			a.refuse(req, tx, refusal{statusPending, "Request Pending"})
			return
		}
		if p := d.device.Person; p != "" && len(req.Body()) > 0 {
			if _, ok := a.phoneOf(p, d.peer, req.Body()); !ok {
				a.refuse(req, tx, refusal{statusForbidden, "Forbidden"})
				return
			}
		}
		answer, err := d.leg.Answer(c.ctx, req.Body())
		if err != nil {
			a.refuse(req, tx, ErrNoCommonCodec) // the session goes on unchanged
			return
		}
		c.agree()
		setSDP(res, answer)
	}
	sayTimer(res, timer, refresher)
	if err := tx.Respond(res); err != nil {
		a.log.Debug("cannot answer a re-INVITE", "err", err)
	}
	if timer.interval > 0 {
		c.timed(d, timer)
	}
	a.gate.free(taken(req))
}
