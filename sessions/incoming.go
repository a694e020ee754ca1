package sessions

import (
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/emiago/sipgo/sip"

	"github.com/hallway-home/hallway/devices"
)

// verdict of the person, or of the owner's rule, on a ringing call.
type verdict int

const (
	accept verdict = iota + 1
	decline
)

// incoming is an INVITE that rings here.
type incoming struct {
	a        *Agent
	req      *sip.Request
	tx       *sip.ServerTx
	verdicts chan verdict
	done     chan ending

	refresher string // of the session timer

	once sync.Once
}

// settle ends the ringing from outside, with the words of the call's ending.
func (in *incoming) settle(e ending) {
	select {
	case in.done <- e:
	default:
	}
}

// final sends the final response, once.
func (in *incoming) final(res *sip.Response) (sent bool) {
	in.once.Do(func() {
		if err := in.tx.Respond(res); err != nil {
			in.a.log.Warn("cannot answer", "err", err)
			return
		}
		sent = true
	})
	return sent
}

// onRequest is called by the transaction layer, in a goroutine for each request; the
// gate has kept the order of one dialog.
func (a *Agent) onRequest(req *sip.Request, tx *sip.ServerTx) {
	a.gate.leave(req, req.Source(), req.CallID())
	if err := validate(req); err != nil {
		a.refuse(req, tx, err)
		return
	}
	if a.edge != nil && a.edge.Take(req, tx) {
		return
	}
	peer, ok := a.cfg.Flows.PeerByAddr(req.Source())
	if !ok {
		a.refuse(req, tx, refusal{statusForbidden, "Forbidden"})
		return
	}
	switch req.Method {
	case sip.INVITE:
		if _, inDialog := req.To().Params.Get("tag"); inDialog {
			a.reinvite(req, tx, peer)
			return
		}
		a.onInvite(req, tx, peer)
	case sip.UPDATE: // RFC 3311
		a.reinvite(req, tx, peer)
	case sip.ACK: // the 2xx travelled over a reliable flow: nothing waits for it
		tx.Terminate() // nobody answers an ACK, so the library would keep it as long as the flow
	case sip.BYE:
		a.onBye(req, tx, peer)
	case sip.INFO: // RFC 6086
		a.onInfo(req, tx, peer)
	case sip.CANCEL: // its INVITE is gone: the transaction layer takes the others
		a.refuse(req, tx, refusal{statusNoCall, "Call/Transaction Does Not Exist"})
	case sip.OPTIONS:
		a.onOptions(req, tx, peer)
	default: // only phones use it
		a.refuse(req, tx, refusal{405, "Method Not Allowed"})
	}
}

func (a *Agent) refuse(req *sip.Request, tx *sip.ServerTx, err error) {
	if req.Method == sip.ACK {
		tx.Terminate() // is never answered
		return
	}
	code, phrase := statusOf(err)
	if code == sip.StatusInternalServerError {
		a.log.Warn("a request could not be served", "method", req.Method, "err", err)
	}
	res := sip.NewResponseFromRequest(req, code, phrase, nil)
	decorate(res, req)
	switch code {
	case statusLater:
		res.AppendHeader(sip.NewHeader("Retry-After", strconv.Itoa(rand.N(10)))) //nolint:gosec // no secret
	case statusInterval:
		res.AppendHeader(sip.NewHeader("Min-SE", strconv.Itoa(int(a.cfg.MinSE.Seconds()))))
	}
	if err := tx.Respond(res); err != nil {
		a.log.Debug("cannot refuse", "err", err)
	}
	if req.Method == sip.INVITE {
		// Over a reliable flow nothing is sent twice: to wait 32 s for the ACK (RFC 3261
		// section 17.2.1) would only let refused calls pile up.
		tx.Terminate()
	}
	a.gate.free(taken(req))
}

// mayClaim checks that the From of a request is an AOR that the TLS peer may speak for.
func (a *Agent) mayClaim(req *sip.Request, peer devices.NodeID) (devices.Device, error) {
	d, ok := a.cfg.Resolver().Device(peer)
	if !ok {
		return d, refusal{statusForbidden, "Forbidden"}
	}
	from := req.From().Address
	if from.Scheme == "sip" && strings.EqualFold(from.Host, d.AOR.Home.Domain()) {
		if who, ok := a.awaitPhone(from.User, peer, req.Body()); ok {
			return who, nil
		}
	}
	if from.Scheme != "sip" || from.User != d.AOR.Slug || !strings.EqualFold(from.Host, d.AOR.Home.Domain()) { // check: From against TLS peer
		if a.mayWarn(peer) {
			a.log.Warn("a member spoke in another name", "peer", peer, "from", from.String())
		}
		return d, refusal{statusForbidden, "Forbidden"}
	}
	return d, nil
}

// screen decides, before anything rings or opens, whether an INVITE may come through. self
// is who is called here: this device, or a foreign one that it speaks for.
func (a *Agent) screen(req *sip.Request, peer devices.NodeID) (self, caller devices.Device, to devices.AOR, err error) {
	if self, err = a.self(); err != nil {
		return self, caller, to, refusal{statusNotFound, "Not Found"}
	}
	if caller, err = a.mayClaim(req, peer); err != nil {
		return self, caller, to, err
	}
	self, to, ok := a.callee(req.Recipient, self)
	if !ok {
		return self, caller, to, ErrUnknown
	}
	if !a.mayInvite(peer) {
		return self, caller, to, refusal{statusBusy, "Too Many Calls"}
	}
	if a.cfg.Policy != nil {
		if err := a.cfg.Policy.MayCall(caller, to.Slug); err != nil {
			return self, caller, to, refusal{statusForbidden, err.Error()}
		}
	}
	if a.quiet.Load() && !self.Foreign { // check: do not disturb
		return self, caller, to, ErrQuiet
	}
	if a.busy(self) {
		return self, caller, to, refusal{statusBusy, "Busy Here"}
	}
	return self, caller, to, nil
}

func (a *Agent) onInvite(req *sip.Request, tx *sip.ServerTx, peer devices.NodeID) {
	if token := PreviewToken(req.Recipient); token != "" {
		a.onPreview(req, tx, peer, token)
		return
	}
	self, caller, to, err := a.screen(req, peer)
	if err != nil {
		a.refuse(req, tx, err)
		return
	}
	timer, refresher, err := a.answerTimer(req)
	if err != nil {
		a.refuse(req, tx, err)
		return
	}
	id := sessionOf(req)
	if id == "" {
		id = token(16)
	}
	c := a.newCall(idOf(id, self), "in", StateIncoming, caller.AOR, to)
	c.as = self
	p := a.persona(self)
	leg, err := a.cfg.Media.NewLeg(LegConfig{CallID: c.id, Remote: caller.Slug, Peer: peer, Capabilities: p.Capability, HalfDuplex: a.cfg.HalfDuplex && p.Endpoint == nil, Logger: a.log, Endpoint: p.Endpoint})
	if err != nil {
		a.refuse(req, tx, err)
		return
	}
	// The answer is made before anything rings: what cannot work is refused unheard, and
	// accepting costs no time. It opens no camera and no microphone.
	a.rung(c, req, tx, leg, caller, peer, timer, refresher)
}

// rung makes the answer of a call that arrives, before anything rings.
func (a *Agent) rung(c *Call, req *sip.Request, tx *sip.ServerTx, leg Leg, caller devices.Device, peer devices.NodeID, timer sessionTimer, refresher string) {
	self, id := c.as, sessionOf(req)
	if id == "" {
		id, _, _ = strings.Cut(c.id, "-") // see idOf
	}
	answer, err := leg.Answer(c.ctx, req.Body())
	if err == nil {
		err = a.add(c)
	}
	if err == nil && c.of != nil && !c.of.shows(c.of.preview, peer) { // it ended in the same moment
		c.cancel()
		a.drop(c)
		err = ErrUnknown
	}
	if err != nil {
		_ = leg.Close()
		a.refuse(req, tx, err)
		return
	}
	d := &dialog{
		peer: peer, device: caller, callID: req.CallID().Value(), localTag: token(8), session: token(16), remoteSession: id,
		local: req.To().Address, localName: self.Name, remote: req.From().Address, target: req.From().Address,
		remoteSeq: req.CSeq().SeqNo, leg: leg, invite: req, refreshed: make(chan struct{}, 1),
	}
	d.remoteTag, _ = req.From().Params.Get("tag")
	if ct := req.Contact(); ct != nil {
		d.target = *ct.Address.Clone()
	}
	d.timer = timer
	in := &incoming{a: a, req: req, tx: tx, refresher: refresher, verdicts: make(chan verdict, 1), done: make(chan ending, 1)}
	c.mu.Lock()
	c.dialog, c.incoming, c.info.Peer = d, in, caller.Slug
	c.mu.Unlock()
	a.mu.Lock()
	a.dialogs[d.key()] = c
	a.mu.Unlock()
	if !a.spawn(func() { c.ringHere(in, self, d, answer) }) {
		c.finish(ending{code: sip.StatusServiceUnavailable, words: "This device is stopping."})
		a.refuse(req, tx, refusal{sip.StatusServiceUnavailable, "Service Unavailable"})
	}
}

// ringHere rings until a person, the owner's rule, the caller or time decides.
func (c *Call) ringHere(in *incoming, self devices.Device, d *dialog, answer []byte) {
	a := c.a
	defer a.gate.free(taken(in.req))
	cancelled := make(chan *sip.Request, 1)
	if !in.tx.OnCancel(func(r *sip.Request) { cancelled <- r }) { // it came while the answer was made
		in.once.Do(func() {})
		c.finish(ending{code: statusCancelled, words: d.device.Name + " gave up calling.", missed: true})
		return
	}
	a.tell(c.Info())
	b := a.persona(self).Behaviour
	if b.AutoAnswer || c.of != nil {
		in.verdicts <- accept
	} else if err := in.tx.Respond(c.response(in.req, d, self, sip.StatusRinging, "Ringing")); err != nil {
		a.log.Warn("cannot ring", "err", err)
	}
	ring := b.RingTimeout
	if ring <= 0 {
		ring = defaultRing
	}
	timer := time.NewTimer(ring)
	defer timer.Stop()
	select {
	case v := <-in.verdicts:
		if v == decline {
			c.refuseHere(in, d, self, statusDecline, "Decline", "Declined here.", false)
			return
		}
		c.acceptHere(in, self, d, answer)
	case r := <-cancelled:
		in.once.Do(func() {}) // the transaction layer has sent 487
		e := ending{code: statusCancelled, words: d.device.Name + " gave up calling.", missed: true}
		if by, taken := a.takenBy(r); taken {
			e.words, e.missed, e.takenBy = a.takenWords(by), false, by
		}
		c.finish(e)
	case <-in.tx.Done():
		c.finish(ending{code: sip.StatusServiceUnavailable, words: "The connection to " + d.device.Name + " was lost.", missed: true})
	case <-timer.C:
		c.refuseHere(in, d, self, statusUnavailable, "Temporarily Unavailable", "Nobody answered here.", true)
	case e := <-in.done:
		in.final(c.response(in.req, d, self, e.unanswered(), e.words))
	}
}

func (c *Call) refuseHere(in *incoming, d *dialog, self devices.Device, code int, phrase, words string, missed bool) {
	in.final(c.response(in.req, d, self, code, phrase))
	c.finish(ending{code: code, words: words, missed: missed})
}

// acceptHere sends the 200 and opens the media: only now camera and microphone.
func (c *Call) acceptHere(in *incoming, self devices.Device, d *dialog, answer []byte) {
	res := c.response(in.req, d, self, statusOK, "OK")
	d.timer.since = time.Now()
	sayTimer(res, d.timer, in.refresher)
	setSDP(res, answer)
	if !c.establish(d) { // the call ended in the same moment
		in.final(c.response(in.req, d, self, sip.StatusServiceUnavailable, "Service Unavailable"))
		return
	}
	if !in.final(res) {
		c.finish(ending{code: sip.StatusServiceUnavailable, words: "The connection to " + d.device.Name + " was lost."})
		return
	}
	if self.Foreign {
		c.a.log.Info("a camera is viewed", "device", self.Slug, "by", d.device.Slug, "call", c.id)
	}
	c.open(d)
}

func (c *Call) response(req *sip.Request, d *dialog, self devices.Device, code int, phrase string) *sip.Response {
	res := sip.NewResponseFromRequest(req, code, phrase, nil)
	if to := res.To(); to != nil {
		to.Params.Add("tag", d.localTag)
	}
	res.AppendHeader(sessionHeader(d.session, d.remoteSession))
	if code < 300 {
		res.AppendHeader(c.a.contact(self))
		res.AppendHeader(sip.NewHeader("Allow", strings.Join(methods(), ", ")))
		res.AppendHeader(sip.NewHeader("Supported", "timer"))
	}
	return res
}

// decide hands a person's verdict to the ringing call.
func (c *Call) decide(v verdict) error {
	c.mu.Lock()
	in, ringing := c.incoming, c.info.State == StateIncoming
	c.mu.Unlock()
	if in == nil || !ringing {
		return ErrNotRinging
	}
	select {
	case in.verdicts <- v:
		return nil
	default:
		return ErrNotRinging
	}
}
