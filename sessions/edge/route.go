package edge

import (
	"context"

	"github.com/emiago/sipgo/sip"

	"github.com/hallway-home/hallway/sessions"
)

// fromPhone serves what a page sends.
func (e *Edge) fromPhone(s *socket, req *sip.Request, tx *sip.ServerTx) {
	_, inside := req.To().Params.Get("tag")
	e.mu.Lock()
	barred := s.barred
	e.mu.Unlock()
	switch {
	case barred && req.Method != sip.ACK:
		e.agent.Refuse(req, tx, sessions.Refusal(403, "Forbidden"))
	case inside && req.Method != sip.REGISTER:
		d, i := e.find(req)
		e.mu.Lock()
		t := s.tab
		e.mu.Unlock()
		if d == nil || t == nil || d.ends[i].tab != t { // check: phone's dialog
			e.agent.Refuse(req, tx, sessions.Refusal(481, "Call/Transaction Does Not Exist"))
			return
		}
		e.pass(d, i, req, tx)
	case req.Method == sip.REGISTER:
		e.register(s, req, tx)
	case req.Method == sip.INVITE:
		e.place(s, req, tx)
	case req.Method == sip.ACK: // of a refused INVITE
		tx.Terminate()
	case req.Method == sip.CANCEL: // its INVITE is over
		e.agent.Refuse(req, tx, sessions.Refusal(481, "Call/Transaction Does Not Exist"))
	default:
		e.agent.Refuse(req, tx, sessions.Refusal(405, "Method Not Allowed"))
	}
}

// forward is a request as it goes on (RFC 3261 section 16.6): another Via, one hop less, and
// nothing that claims an identity.
func (e *Edge) forward(req *sip.Request, to sip.Uri, dest string) *sip.Request {
	out := req.Clone()
	out.Recipient = *to.Clone()
	out.PrependHeader(e.agent.NewVia())
	hops := sip.MaxForwardsHeader(70)
	if m := out.MaxForwards(); m != nil && m.Val() > 0 {
		hops = sip.MaxForwardsHeader(m.Val() - 1)
	}
	out.RemoveHeader("Max-Forwards") // a clone shares it with its original
	out.AppendHeader(&hops)
	for _, h := range []string{"Route", "P-Asserted-Identity", "P-Preferred-Identity"} {
		for out.RemoveHeader(h) {
		}
	}
	out.SetTransport(transport)
	out.SetDestination(dest)
	return out
}

// back is a response as it goes back (RFC 3261 section 16.7).
func back(res *sip.Response) *sip.Response {
	out := res.Clone()
	out.RemoveHeader("Via")
	for out.RemoveHeader("P-Asserted-Identity") {
	}
	return out
}

// pass hands a request within a dialog to the other side, and its responses back.
func (e *Edge) pass(d *dialog, i int, req *sip.Request, tx *sip.ServerTx) {
	from, to := &d.ends[i], &d.ends[1-i]
	e.mu.Lock()
	from.seq = max(from.seq, req.CSeq().SeqNo)
	if c := req.Contact(); c != nil && (req.Method == sip.INVITE || req.Method == sip.UPDATE) {
		from.target = *c.Address.Clone() // target refresh (RFC 3261 section 12.2)
	}
	target := *to.target.Clone()
	e.mu.Unlock()
	if req.Method == sip.ACK {
		tx.Terminate()
		if dest, err := e.destination(context.Background(), to); err == nil {
			if err := e.agent.Write(e.forward(req, target, dest)); err != nil {
				e.log.Debug("an ACK was not passed on", "err", err)
			}
		}
		return
	}
	if req.Method == sip.BYE {
		e.forget(d)
	}
	if !e.agent.Spawn(func() { e.relay(to, target, req, tx) }) {
		e.agent.Refuse(req, tx, errGone)
	}
}

func (e *Edge) relay(to *end, target sip.Uri, req *sip.Request, tx *sip.ServerTx) {
	defer e.agent.Release(req)
	ctx, cancel := context.WithTimeout(context.Background(), inDialogTime)
	defer cancel()
	if req.Method == sip.INVITE && !tx.OnCancel(func(*sip.Request) { cancel() }) {
		return
	}
	dest, err := e.destination(ctx, to)
	if err == nil {
		err = e.agent.Relay(ctx, e.forward(req, target, dest), noReason, func(res *sip.Response) {
			if res.StatusCode == sip.StatusTrying {
				return
			}
			if err := tx.Respond(back(res)); err != nil {
				e.log.Debug("a response was not passed back", "err", err)
			}
		})
	}
	if err != nil {
		code, words := 480, "Temporarily Unavailable"
		if req.Method == sip.BYE { // it ends here, whatever the other side hears
			code, words = 200, "OK"
		}
		if err := tx.Respond(sip.NewResponseFromRequest(req, code, words, nil)); err != nil {
			e.log.Debug("a request could be neither passed on nor answered", "err", err)
		}
	}
}

func noReason() sip.Header { return nil }
