package edge

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"time"

	"github.com/emiago/sipgo/sip"

	"github.com/hallway-home/hallway/devices"
	"github.com/hallway-home/hallway/profiles"
	"github.com/hallway-home/hallway/sessions"
)

// target is one that rings.
type target struct {
	end
	ask sip.Uri     // Request-URI
	who devices.AOR // of the device or person
}

// place serves a call of a page: its person calls, with media that the phone has signed.
func (e *Edge) place(s *socket, req *sip.Request, tx *sip.ServerTx) {
	f, targets, err := e.placed(s, req)
	if err == nil {
		f.preview, err = sessions.PreviewOf(req)
	}
	if err != nil {
		e.agent.Refuse(req, tx, err)
		return
	}
	e.start(req, tx, f, targets)
}

// placed is the call that a page wants to make, and who rings for it at once.
func (e *Edge) placed(s *socket, req *sip.Request) (*fork, []target, error) {
	e.mu.Lock()
	t, bound := s.tab, s.bound
	e.mu.Unlock()
	if t == nil {
		return nil, nil, sessions.Refusal(403, "Register First")
	}
	if err := e.speaksFor(s, req.From().Address); err != nil {
		return nil, nil, err
	}
	if !sessions.HoldsFingerprints(req.Body(), bound.Fingerprints) { // check: signed fingerprints
		return nil, nil, sessions.Refusal(403, "The Phone Did Not Sign This Fingerprint")
	}
	if !e.agent.MayInvite(s.phone.ID) {
		return nil, nil, sessions.Refusal(486, "Too Many Calls")
	}
	aor, err := e.person(s.phone.Person)
	if err != nil {
		return nil, nil, err
	}
	f := &fork{
		caller: end{tab: t}, who: devices.Device{AOR: aor, Slug: aor.Slug, Node: e.cfg.Self, Person: aor.Slug, Phones: []devices.BoundPhone{{ID: s.phone.ID}}},
	}
	targets, err := e.targets(req, aor, f)
	return f, targets, err
}

// targets finds who rings for a page's call: of members those that share sound or picture with
// it, of the persons' phones those that are connected here; other nodes ask theirs. f learns who can be woken.
func (e *Edge) targets(req *sip.Request, aor devices.AOR, f *fork) ([]target, error) {
	if !strings.EqualFold(req.Recipient.Host, aor.Home.Domain()) {
		return nil, sessions.ErrUnknown
	}
	r, ok := e.agent.Resolver().Resolve(req.Recipient.User)
	if !ok {
		return nil, sessions.ErrUnknown
	}
	if token := sessions.PreviewToken(req.Recipient); token != "" {
		return e.previewed(r, token)
	}
	f.asleep = r.Asleep
	can := e.cfg.Capability
	if !bytes.Contains(req.Body(), []byte("\r\nm=video")) {
		can.Video = profiles.Medium{Direction: profiles.Inactive}
	}
	rows := sessions.Ring(can, r)
	if len(rows) == 0 && len(r.Devices) > 0 {
		return nil, sessions.ErrNoCommonCodec
	}
	var out []target
	err := error(sessions.Refusal(480, "Temporarily Unavailable")) //nolint:unconvert // it may become another error
	for _, d := range rows {
		ask := *req.Recipient.Clone()
		ask.UriParams, ask.Headers = sip.NewParams(), sip.NewParams()
		switch {
		case d.Person != "" && d.Node == e.cfg.Self:
			pages, why := e.pages(f.who, d.AOR, f.caller.tab, devices.NodeID{})
			if why != nil {
				err = why
			}
			out = append(out, pages...)
			continue
		case d.Person != "":
			ask = sessions.PhonesURI(d.AOR)
		case d.Foreign:
			ask.User = d.AOR.Slug
		}
		out = append(out, target{end{node: d.Node}, ask, d.AOR})
	}
	if len(out) == 0 && !e.agent.Wakes(r) {
		return nil, err
	}
	return out, nil
}

// woken is where a phone rings that came because of the call.
func (f *fork) woken(d devices.Device) []target {
	phone := d.Phones[0].ID
	if d.Node != f.e.cfg.Self {
		return []target{{end{node: d.Node}, sessions.PhoneURI(d.AOR, phone), d.AOR}}
	}
	pages, err := f.e.pages(f.who, d.AOR, f.caller.tab, phone)
	if err != nil {
		f.e.log.Debug("a phone that was woken does not ring", "phone", phone, "err", err)
	}
	return pages
}

// pages are those of a person here, or of one of their phones alone, but not the one that calls.
func (e *Edge) pages(caller devices.Device, person devices.AOR, own *tab, only devices.NodeID) ([]target, error) {
	if e.cfg.MayRing != nil {
		if err := e.cfg.MayRing(caller, person.Slug); err != nil {
			return nil, sessions.Refusal(403, err.Error())
		}
	}
	var out []target
	tabs, quiet := e.ringing(person.Slug, only)
	for _, t := range tabs {
		if t != own {
			out = append(out, target{end{tab: t}, t.contact, person})
		}
	}
	if len(out) == 0 && quiet {
		return nil, sessions.ErrQuiet
	}
	if len(out) == 0 {
		return nil, sessions.Refusal(480, "Temporarily Unavailable")
	}
	return out, nil
}

// fromMember rings the pages of a person, or of one phone, for a member, which wakes whom it wants.
func (e *Edge) fromMember(req *sip.Request, tx *sip.ServerTx, peer, only devices.NodeID) {
	caller, err := e.agent.Caller(req, peer)
	var targets []target
	person := devices.AOR{Slug: req.Recipient.User, Home: caller.AOR.Home}
	switch token := sessions.PreviewToken(req.Recipient); {
	case err != nil:
	case token != "":
		targets, err = e.previewedHere(person, token)
	default:
		targets, err = e.pages(caller, person, nil, only)
	}
	if err != nil {
		e.agent.Refuse(req, tx, err)
		return
	}
	e.start(req, tx, &fork{caller: end{node: peer}, who: caller}, targets)
}

func (e *Edge) start(req *sip.Request, tx *sip.ServerTx, f *fork, targets []target) {
	f.e, f.req, f.tx, f.heard, f.cancelled = e, req, tx, make(chan heard), make(chan *sip.Request, 1)
	f.ctx, f.cancel = context.WithCancelCause(context.Background())
	if !e.agent.Spawn(func() { f.run(targets) }) {
		f.cancel(nil)
		e.agent.Refuse(req, tx, sessions.Refusal(503, "Service Unavailable"))
	}
}

// fork is an INVITE that rings at several (RFC 3261 section 16): the first 2xx alone is passed
// on. Its fields belong to run.
type fork struct {
	e         *Edge
	req       *sip.Request
	tx        *sip.ServerTx
	caller    end
	who       devices.Device   // the caller
	asleep    []devices.NodeID // phones to wake
	preview   string           // token of its picture; see Edge.shown
	ctx       context.Context  // ends the ringing
	cancel    context.CancelCauseFunc
	heard     chan heard
	cancelled chan *sip.Request
	won, rung bool
	winner    devices.AOR // whose device or phone won
	gone      bool        // the caller no longer waits
	best      *sip.Response
	bestCode  int
}

// because is why the ringing ends, for those who still ring.
type because struct{ reason sip.Header }

func (because) Error() string { return "the ringing has ended" }

func (f *fork) reason() sip.Header {
	var b because
	if errors.As(context.Cause(f.ctx), &b) {
		return sip.HeaderClone(b.reason)
	}
	return nil
}

// heard is what one branch says; without a response it failed.
type heard struct {
	t    *target
	sent *sip.Request
	res  *sip.Response
	err  error
}

func (f *fork) run(targets []target) {
	defer f.cancel(nil)
	defer f.e.agent.Release(f.req)
	timer := time.AfterFunc(patience, func() { f.cancel(nil) })
	defer timer.Stop()
	if !f.tx.OnCancel(func(r *sip.Request) { f.cancelled <- r }) {
		return // it came first
	}
	defer f.e.show(f)()
	left := 0
	ring := func(targets []target) {
		for i := range targets {
			go f.branch(&targets[i]) // run waits for it: each says one final word
			left++
		}
	}
	ring(targets)
	woken := f.e.agent.Wake(f.ctx, f.who, f.asleep)
	cancelled, over := f.cancelled, f.tx.Done()
	for left > 0 || woken != nil {
		select {
		case d, more := <-woken:
			if !more {
				woken = nil
			} else if f.ctx.Err() == nil {
				ring(f.woken(d))
			}
		case h := <-f.heard:
			if f.take(h) {
				left--
			}
		case r := <-cancelled:
			cancelled, f.gone = nil, true
			var why error
			if h := r.GetHeader("Reason"); h != nil {
				why = because{h}
			}
			f.cancel(why)
		case <-over: // the caller's flow has ended
			over = nil
			f.gone = f.gone || !f.won
			f.cancel(nil)
		}
	}
	if f.won || f.gone {
		return
	}
	res := f.best
	if res == nil { // nobody could be asked, or nobody woke up
		res = sip.NewResponseFromRequest(f.req, max(f.bestCode, 480), "Temporarily Unavailable", nil)
	} else {
		res = back(res)
	}
	f.respond(res)
}

func (f *fork) respond(res *sip.Response) bool {
	if err := f.tx.Respond(res); err != nil {
		f.e.log.Debug("a response was not passed back", "err", err)
		return false
	}
	return true
}

// branch runs one INVITE.
func (f *fork) branch(t *target) {
	dest, err := f.e.destination(f.ctx, &t.end)
	if err != nil {
		f.heard <- heard{t: t, err: err}
		return
	}
	out := f.e.forward(f.req, t.ask, dest)
	sessions.AppendSession(out)
	final := false
	err = f.e.agent.Relay(f.ctx, out, f.reason, func(res *sip.Response) {
		final = !res.IsProvisional()
		f.heard <- heard{t: t, sent: out, res: res}
	})
	if err != nil && !final {
		f.heard <- heard{t: t, err: err}
	}
}

// take reports whether a branch is done.
func (f *fork) take(h heard) bool {
	switch {
	case h.res == nil:
		f.failed(nil, 480)
	case h.res.IsProvisional():
		if !f.won && !f.gone && !f.rung && h.res.StatusCode > sip.StatusTrying {
			f.rung = true
			f.respond(back(h.res))
		}
		return false
	case h.res.IsSuccess():
		f.answered(h)
	default:
		f.failed(h.res, h.res.StatusCode)
	}
	return true
}

// failed keeps what tells the caller most.
func (f *fork) failed(res *sip.Response, code int) {
	if f.bestCode == 0 || sessions.Better(code, f.bestCode) {
		f.best, f.bestCode = res, code
	}
}

// answered passes the first 2xx on; a later one is confirmed and ended with the reason.
func (f *fork) answered(h heard) {
	d := f.dialog(h)
	if !f.won && !f.gone && f.e.begin(d) {
		f.won, f.winner = true, h.t.who
		if f.respond(back(h.res)) {
			f.cancel(because{sessions.ReasonElsewhere(f.winner)})
			return
		}
		f.e.forget(d)
	}
	why := sessions.ReasonElsewhere(f.winner)
	if !f.won {
		why = sessions.ReasonGone()
	}
	f.won = true // nothing more is passed on
	f.cancel(nil)
	f.e.agent.Spawn(func() { f.e.tooLate(d, why) })
}

// tooLate ends a call that nobody waits for any more.
func (e *Edge) tooLate(d *dialog, why sip.Header) {
	ctx, cancel := context.WithTimeout(context.Background(), byeTime)
	defer cancel()
	from, to := &d.ends[0], &d.ends[1]
	dest, err := e.destination(ctx, to)
	if err != nil {
		return
	}
	ack := e.request(sip.ACK, d.callID, from, to, from.seq)
	ack.SetDestination(dest)
	if err := e.agent.Write(ack); err != nil {
		e.log.Debug("a late answer was not confirmed", "err", err)
	}
	e.bye(ctx, d.callID, from, to, from.seq+1, why)
}

// dialog is what a 2xx makes.
func (f *fork) dialog(h heard) *dialog {
	d := &dialog{callID: f.req.CallID().Value(), ends: [2]end{f.caller, h.t.end}, sound: bytes.Contains(f.req.Body(), []byte("m=audio"))}
	from, to := &d.ends[0], &d.ends[1]
	from.name, from.uri, from.seq = f.req.From().DisplayName, f.req.From().Address, f.req.CSeq().SeqNo
	from.tag, _ = f.req.From().Params.Get("tag")
	from.target = from.uri
	if c := f.req.Contact(); c != nil {
		from.target = *c.Address.Clone()
	}
	to.name, to.uri, to.target = f.req.To().DisplayName, f.req.To().Address, h.t.ask
	if t := h.res.To(); t != nil {
		to.tag, _ = t.Params.Get("tag")
	}
	if c := h.res.Contact(); c != nil {
		to.target = *c.Address.Clone()
	}
	return d
}
