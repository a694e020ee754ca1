package sessions

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"

	"github.com/emiago/sipgo/sip"

	"github.com/hallway-home/hallway/devices"
	"github.com/hallway-home/hallway/profiles"
)

// branch is one device that a call tries.
type branch struct {
	device devices.Device
	match  profiles.MatchResult // of what the caller wants now
	woken  bool                 // a phone that came because of the call: it alone is meant
}

// Call rings every capable device behind a name: one INVITE each, with its own offer,
// under one Session-ID. The first to accept wins.
func (a *Agent) Call(target string, opt CallOptions) (*Call, error) {
	self, err := a.self()
	if err != nil {
		return nil, err
	}
	slug := devices.Slug(target)
	res, ok := a.cfg.Resolver().Resolve(slug)
	if !ok {
		return nil, fmt.Errorf("%q: %w; `hallway devices` and `hallway rooms` list what there is", target, ErrUnknown)
	}
	others := slices.DeleteFunc(whoRings(res), func(d devices.Device) bool { return d.Node == a.cfg.Self && !d.Foreign && d.Person == "" })
	if len(others) == 0 && !a.Wakes(res) {
		return nil, fmt.Errorf("%q: %w", target, ErrAlone)
	}
	c := a.newCall(token(16), "out", StateCalling, self.AOR, res.AOR)
	mine := a.capability()
	if !opt.Video {
		c.wish.Video = profiles.Inactive
		mine.Video = profiles.Medium{Direction: profiles.Inactive}
	}
	if mine.Video.Direction.Sends() {
		c.preview = token(16)
	}
	branches := choose(mine, others)
	for _, b := range branches {
		c.addBranch(&c.info, b)
	}
	if err := a.add(c); err != nil {
		return nil, err
	}
	a.tell(c.Info())
	if !a.spawn(func() { c.ring(self, res, branches, mine) }) {
		c.finish(ending{code: sip.StatusServiceUnavailable, words: "This device is stopping."})
	}
	return c, nil
}

// whoRings lists the devices behind a name that a call to it is for.
func whoRings(res devices.Resolution) []devices.Device {
	if res.Kind == devices.KindDevice || res.Kind == devices.KindForeign {
		return slices.Clone(res.Devices)
	}
	return people(res.Devices)
}

// choose picks who rings: every device that shares sound or picture with the caller. If
// none does all are kept, so that each says why not.
func choose(mine profiles.Capabilities, all []devices.Device) []*branch {
	var fit, rest []*branch
	for _, d := range all {
		m, err := profiles.Match(mine, d.Capabilities)
		b := &branch{device: d, match: m}
		if err != nil {
			rest = append(rest, b)
		} else {
			fit = append(fit, b)
		}
	}
	if len(fit) == 0 {
		fit = rest
	}
	return fit[:min(len(fit), maxBranches)]
}

// outcome of one branch.
type outcome struct {
	code   int
	phrase string // reason phrase of the other side
	err    error
	raised bool // 422: a longer session interval may do
}

// words says what it means to the person who called name; a refusal by policy brings its
// own reason.
func (o outcome) words(name string) string {
	if p := strings.TrimSuffix(strings.Map(printable, o.phrase), "."); o.code == statusForbidden && p != "" && p != "Forbidden" {
		return fmt.Sprintf("%s does not take the call: %s.", name, p[:min(len(p), maxPhrase)])
	}
	if _, quiet := statusOf(ErrQuiet); o.code == statusUnavailable && o.phrase == quiet {
		return name + " does not want to be disturbed."
	}
	return words(o.code, name)
}

// maxPhrase bounds what another device may say to the person who calls it.
const maxPhrase = 200

func printable(r rune) rune {
	if !unicode.IsPrint(r) {
		return -1
	}
	return r
}

// addBranch notes who rings; c.mu is held once others know the call.
func (c *Call) addBranch(info *CallInfo, b *branch) {
	c.rings = append(c.rings, b.device.Node)
	info.Branches = append(info.Branches, BranchInfo{Device: b.device.Slug, Name: b.device.Name, State: string(StateCalling)})
}

// ring runs all branches, those of phones that wake up meanwhile too, and settles the call when
// none was accepted. mine is what the caller wants.
func (c *Call) ring(self devices.Device, res devices.Resolution, branches []*branch, mine profiles.Capabilities) {
	ctx, cancel := context.WithTimeout(c.ctx, callerPatience)
	defer cancel()
	results := make(chan outcome)
	run := func(i int, b *branch) {
		o := c.try(ctx, self, i, b)
		if o.code != statusOK {
			c.branchState(i, o.words(b.device.Name), o.code)
		}
		results <- o
	}
	for i, b := range branches {
		go run(i, b)
	}
	woken := c.a.Wake(ctx, self, res.Asleep)
	best := outcome{}
	for left := len(branches); left > 0 || woken != nil; {
		select {
		case d, more := <-woken:
			if !more {
				woken = nil
			} else if b := wokenBranch(mine, d); ctx.Err() == nil && len(branches) < maxBranches {
				c.change(func(info *CallInfo) { c.addBranch(info, b) })
				go run(len(branches), b)
				branches = append(branches, b)
				left++
			}
		case o := <-results:
			left--
			if o.code == statusOK {
				cancel() // the others stop ringing
				best = o
			}
			if best.code == 0 || best.code != statusOK && rank(o.code) < rank(best.code) {
				best = o
			}
		}
	}
	if best.code == 0 { // nobody woke up
		best.code = statusUnavailable
	}
	if best.code != statusOK {
		name := res.Name
		if len(branches) == 1 {
			name = branches[0].device.Name
		}
		c.finish(ending{code: best.code, words: best.words(name)})
	}
}

func wokenBranch(mine profiles.Capabilities, d devices.Device) *branch {
	m, _ := profiles.Match(mine, d.Capabilities) // without a match it says why not
	return &branch{device: d, match: m, woken: true}
}

func (c *Call) branchState(i int, state string, code int) {
	c.change(func(info *CallInfo) {
		info.Branches[i].State, info.Branches[i].Code = state, code
		if state == string(StateRinging) && info.State == StateCalling {
			info.State = StateRinging
		}
	})
}

// try takes one branch from its INVITE to the end of its ringing.
func (c *Call) try(ctx context.Context, self devices.Device, i int, b *branch) outcome {
	a := c.a
	if b.match.Empty() {
		return outcome{code: statusNotAccept, err: ErrNoCommonCodec}
	}
	if b.device.Node == a.cfg.Self && b.device.Foreign {
		return c.tryHere(self, i, b)
	}
	if err := a.reach(ctx, b.device.Node); err != nil {
		if ctx.Err() != nil {
			return outcome{code: statusCancelled, err: ctx.Err()}
		}
		return outcome{code: sip.StatusServiceUnavailable, err: err}
	}
	// The leg knows all that both can do, so that a picture can be added later.
	m, err := profiles.Match(a.capability(), b.device.Capabilities)
	if err != nil {
		return outcome{code: statusNotAccept, err: ErrNoCommonCodec}
	}
	leg, err := a.cfg.Media.NewLeg(LegConfig{CallID: c.id, Remote: b.device.Slug, Peer: b.device.Node, Capabilities: m.Caller(), Wish: c.wish, HalfDuplex: a.cfg.HalfDuplex, Logger: a.log})
	if err != nil {
		return outcome{code: 500, err: err}
	}
	d := c.newDialog(self, b, leg)
	offer, err := leg.Offer(ctx)
	if err != nil {
		_ = leg.Close()
		return outcome{code: 500, err: err}
	}
	o, won := c.invite(ctx, i, d, offer)
	if o.code == statusInterval && o.raised { // RFC 4028 section 7.3
		d.nextSeq()
		o, won = c.invite(ctx, i, d, offer)
	}
	if !won {
		_ = leg.Close()
	}
	return o
}

func (c *Call) newDialog(self devices.Device, b *branch, leg Leg) *dialog {
	target := uri(c.info.To)
	if b.device.Foreign {
		target = uri(b.device.AOR) // a room's name would mean its speaker, too
	}
	if b.device.Person != "" {
		target = PhonesURI(b.device.AOR)
	}
	if b.woken {
		target = PhoneURI(b.device.AOR, b.device.Phones[0].ID)
	}
	return &dialog{
		peer: b.device.Node, device: b.device, callID: token(16), localTag: token(8), session: c.id, localSeq: 1,
		local: uri(self.AOR), localName: self.Name, remote: uri(c.info.To), target: target, leg: leg,
		refreshed: make(chan struct{}, 1),
	}
}

// invite runs the INVITE transaction (RFC 3261 section 13.2).
func (c *Call) invite(ctx context.Context, i int, d *dialog, offer []byte) (outcome, bool) {
	a := c.a
	req := a.request(sip.INVITE, d, d.localSeq)
	a.offerTimer(req, c.interval(d), d.minSE, "uac")
	if self, err := a.self(); err == nil {
		req.AppendHeader(a.contact(self))
	}
	if c.preview != "" {
		u := PreviewURI(c.info.From, c.preview)
		req.AppendHeader(sip.NewHeader("Call-Info", "<"+u.String()+">;purpose=preview"))
	}
	setSDP(req, offer)
	d.invite = req
	var final *sip.Response
	err := a.Relay(ctx, req, func() sip.Header { return c.reasonFor(d) }, func(res *sip.Response) {
		switch {
		case !res.IsProvisional():
			final = res
		case res.StatusCode == sip.StatusRinging:
			c.branchState(i, string(StateRinging), 0)
		}
	})
	switch {
	case err != nil:
		return outcome{code: sip.StatusServiceUnavailable, err: err}, false
	case final.IsSuccess():
		return c.accepted(i, d, final)
	case ctx.Err() != nil:
		return outcome{code: c.cancelCode(ctx)}, false
	}
	return outcome{code: final.StatusCode, phrase: final.Reason, raised: final.StatusCode == statusInterval && d.raise(final)}, false
}

// reasonFor says why a branch is cancelled (RFC 3326): another device was quicker, or nil.
func (c *Call) reasonFor(d *dialog) sip.Header {
	c.mu.Lock()
	defer c.mu.Unlock()
	if won := c.info.Peer; won != "" && c.dialog != d {
		return ReasonElsewhere(devices.AOR{Slug: won, Home: c.info.To.Home})
	}
	return nil
}

// cancelCode tells a caller's own end from patience run out.
func (c *Call) cancelCode(ctx context.Context) int {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return statusUnavailable
	}
	return statusCancelled
}

// accepted handles a 2xx: ACK always; the first one becomes the call, a later one is
// ended at once with the reason.
func (c *Call) accepted(i int, d *dialog, res *sip.Response) (outcome, bool) {
	a := c.a
	if t := res.To(); t != nil {
		d.remoteTag, _ = t.Params.Get("tag")
	}
	d.remoteSession = sessionOf(res)
	if ct := res.Contact(); ct != nil {
		d.target = *ct.Address.Clone()
	}
	a.ack(d, d.invite.CSeq().SeqNo)
	d.timer = timerOf(res, true)
	if !c.establish(d) {
		why := c.reasonFor(d)
		if why == nil {
			why = ReasonGone()
		}
		a.spawn(func() { a.bye(d, why) })
		return outcome{code: statusCancelled}, false
	}
	c.branchState(i, "answered", 0)
	c.change(func(info *CallInfo) {
		for j := range info.Branches {
			if j != i && info.Branches[j].Code == 0 {
				info.Branches[j].State = elsewhere
			}
		}
	})
	if p := d.device.Person; p != "" { // what its node says must be what the phone signed
		if _, ok := a.phoneOf(p, d.peer, res.Body()); !ok { // check: answer's fingerprint
			c.finish(ending{code: statusForbidden, words: "The answer did not come from a phone of " + d.device.Name + ".", bye: true})
			return outcome{code: statusOK}, true
		}
	}
	if err := d.leg.SetAnswer(c.ctx, res.Body()); err != nil {
		c.finish(ending{code: statusNotAccept, words: "The answer of " + d.device.Name + " could not be used: " + err.Error() + ".", bye: true})
		return outcome{code: statusOK}, true
	}
	c.open(d)
	return outcome{code: statusOK}, true
}

// ack confirms a 2xx end to end (RFC 3261 section 13.2.2.4).
func (a *Agent) ack(d *dialog, seq uint32) {
	req := a.request(sip.ACK, d, seq)
	if err := a.tpl.WriteMsg(req); err != nil {
		a.log.Warn("cannot confirm the call", "peer", d.device.Slug, "err", err)
	}
}
