package sessions

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/emiago/sipgo/sip"

	"github.com/hallway-home/hallway/devices"
	"github.com/hallway-home/hallway/profiles"
)

// QuestionType is the body of an OPTIONS with which a member's doctor asks another's.
const QuestionType = "application/vnd.hallway.doctor+json"

const (
	// maxExams bounds what members can make this node do at once: a trial of the media
	// path costs as much as a call.
	maxExams = 4
	// examTime bounds an examination that a member asks for: dials, SIP and media together.
	examTime = 16 * time.Second
	// trialTime bounds a trial of the media path; on a LAN it takes milliseconds.
	trialTime = 4 * time.Second
	// trialGrace keeps the answering side of a trial until the other side knows as well.
	trialGrace = 500 * time.Millisecond
	// maxQuestion and maxAnswer: names, or what a phone signed, go there; a table of findings comes back.
	maxQuestion, maxAnswer = 6 << 10, 32 << 10
)

// Willing is what a device says to a call without being rung.
type Willing struct {
	Code  int    // the status that an INVITE would get now (RFC 3261 section 11.2); 200: it would ring
	Words string // its reason phrase
	Took  time.Duration
}

// Trial is a media path that was tried: nothing was opened and nothing rang.
type Trial struct {
	Local, Remote string // the pair that carries packets
	Took          time.Duration
}

// Why a trial gave no path.
var (
	ErrNoPath  = errors.New("no packet of the media path came through")
	ErrRefused = errors.New("the other device refused")
)

// trialMedia is offered and answered in a trial, whatever the devices can do: the trial is
// of the path, not of the codecs.
func trialMedia() profiles.Capabilities {
	pcmu := profiles.Codec{Name: "PCMU", ClockRate: 8000, Channels: 1}
	return profiles.Capabilities{
		Audio: profiles.Medium{Direction: profiles.SendRecv, Codecs: []profiles.Codec{pcmu}},
		Video: profiles.Medium{Direction: profiles.Inactive},
	}
}

// onOptions answers as RFC 3261 section 11.2 says: with the status that an INVITE would
// get. With a session description it tries the media path; with a question the doctor
// answers. Who is no member never comes here.
func (a *Agent) onOptions(req *sip.Request, tx *sip.ServerTx, peer devices.NodeID) {
	defer a.gate.free(taken(req))
	switch bodyType(req) {
	case "":
		_, _, _, err := a.screen(req, peer)
		a.respondOptions(req, tx, err, "", nil)
	case "application/sdp":
		a.examined(req, tx, peer, a.onTrial)
	case QuestionType:
		a.examined(req, tx, peer, a.onQuestion)
	default:
		a.refuse(req, tx, refusal{415, "Unsupported Media Type"})
	}
}

func (a *Agent) respondOptions(req *sip.Request, tx *sip.ServerTx, err error, kind string, body []byte) {
	code, phrase := statusOf(err)
	res := sip.NewResponseFromRequest(req, code, phrase, nil)
	decorate(res, req)
	if code == statusOK {
		res.AppendHeader(sip.NewHeader("Allow", strings.Join(methods(), ", ")))
		res.AppendHeader(sip.NewHeader("Accept", "application/sdp, "+QuestionType))
	}
	if body != nil {
		ct := sip.ContentTypeHeader(kind)
		res.AppendHeader(&ct)
		res.SetBody(body)
	}
	if err := tx.Respond(res); err != nil {
		a.log.Debug("cannot answer OPTIONS", "err", err)
	}
}

// examined runs what a member asks for, if it may ask and not too much runs already.
func (a *Agent) examined(req *sip.Request, tx *sip.ServerTx, peer devices.NodeID, f func(context.Context, *sip.Request, *sip.ServerTx, devices.Device)) {
	from, err := a.mayClaim(req, peer)
	if err == nil && !a.mayInvite(peer) {
		err = refusal{statusBusy, "Too Many Requests"}
	}
	if err == nil {
		select {
		case a.exams <- struct{}{}:
		default:
			err = refusal{statusBusy, "Too Many Examinations"}
		}
	}
	if err != nil {
		a.refuse(req, tx, err)
		return
	}
	done := make(chan struct{})
	if !a.spawn(func() {
		defer close(done)
		ctx, cancel := context.WithTimeout(a.ctx, examTime)
		defer cancel()
		f(ctx, req, tx, from)
	}) {
		close(done)
		a.refuse(req, tx, refusal{sip.StatusServiceUnavailable, "Service Unavailable"})
	}
	<-done
	<-a.exams
}

func (a *Agent) onQuestion(ctx context.Context, req *sip.Request, tx *sip.ServerTx, from devices.Device) {
	if a.cfg.Examine == nil || len(req.Body()) > maxQuestion {
		a.refuse(req, tx, refusal{415, "Unsupported Media Type"})
		return
	}
	answer, err := a.cfg.Examine(ctx, from, req.Body())
	if err == nil && len(answer) > maxAnswer {
		err = fmt.Errorf("an answer of %d bytes", len(answer))
	}
	if err != nil {
		a.log.Warn("the doctor's question of a member could not be answered", "peer", from.Slug, "err", err)
		a.refuse(req, tx, refusal{sip.StatusInternalServerError, "Server Internal Error"})
		return
	}
	a.respondOptions(req, tx, nil, QuestionType, answer)
}

// onTrial answers a throw-away offer with a throw-away leg that is never started, so no
// camera, microphone or speaker opens, and no call exists.
func (a *Agent) onTrial(ctx context.Context, req *sip.Request, tx *sip.ServerTx, from devices.Device) {
	if a.cfg.Policy != nil {
		if err := a.cfg.Policy.MayCall(from, req.Recipient.User); err != nil {
			a.refuse(req, tx, refusal{statusForbidden, err.Error()})
			return
		}
	}
	leg, err := a.cfg.Media.NewLeg(LegConfig{CallID: token(16), Remote: from.Slug, Peer: from.Node, Capabilities: trialMedia(), Logger: a.log})
	if err != nil {
		a.refuse(req, tx, err)
		return
	}
	defer func() { _ = leg.Close() }()
	ctx, cancel := context.WithTimeout(ctx, trialTime+trialGrace)
	defer cancel()
	answer, err := leg.Answer(ctx, req.Body())
	if err != nil {
		a.refuse(req, tx, err)
		return
	}
	a.respondOptions(req, tx, nil, "application/sdp", answer)
	select {
	case <-leg.Connected():
		select {
		case <-time.After(trialGrace):
		case <-ctx.Done():
		}
	case <-leg.Done():
	case <-ctx.Done():
	}
}

// toMember prepares an OPTIONS to a member and the flow that carries it. to is the name
// that it is asked for; empty means its own.
func (a *Agent) toMember(ctx context.Context, node devices.NodeID, to string) (*sip.Request, devices.Device, error) {
	self, err := a.self()
	if err != nil {
		return nil, devices.Device{}, err
	}
	d, ok := a.cfg.Resolver().Device(node)
	if !ok {
		return nil, d, ErrUnknown
	}
	if err := a.reach(ctx, node); err != nil {
		return nil, d, err
	}
	target := d.AOR
	if to != "" {
		target.Slug = to
	}
	dlg := &dialog{peer: node, callID: token(16), localTag: token(8), local: uri(self.AOR), remote: uri(target), target: uri(target)}
	return a.request(sip.OPTIONS, dlg, 1), d, nil
}

// Options asks a member what a call of the name to (empty: its own) would get now, without
// ringing it. Any answer shows that its SIP side lives; an error says that it gave none.
func (a *Agent) Options(ctx context.Context, node devices.NodeID, to string) (Willing, error) {
	req, d, err := a.toMember(ctx, node, to)
	if err != nil {
		return Willing{}, err
	}
	start := time.Now()
	res, err := a.roundTrip(ctx, req)
	if err != nil {
		return Willing{}, errors.Join(fmt.Errorf("%s did not answer", d.Name), err)
	}
	return Willing{Code: res.StatusCode, Words: res.Reason, Took: time.Since(start)}, nil
}

// Ask puts a question of the doctor to a member and returns its answer, which only that
// member can have given.
func (a *Agent) Ask(ctx context.Context, node devices.NodeID, question []byte) ([]byte, error) {
	if len(question) > maxQuestion {
		return nil, fmt.Errorf("a question of %d bytes; at most %d are asked", len(question), maxQuestion)
	}
	req, d, err := a.toMember(ctx, node, "")
	if err != nil {
		return nil, err
	}
	res, err := a.withBody(ctx, req, d, QuestionType, question)
	if err != nil {
		return nil, err
	}
	if len(res.Body()) > maxAnswer {
		return nil, fmt.Errorf("%s answered with %d bytes; at most %d are read", d.Name, len(res.Body()), maxAnswer)
	}
	return res.Body(), nil
}

func (a *Agent) withBody(ctx context.Context, req *sip.Request, d devices.Device, kind string, body []byte) (*sip.Response, error) {
	ct := sip.ContentTypeHeader(kind)
	req.AppendHeader(&ct)
	req.SetBody(body)
	res, err := a.roundTrip(ctx, req)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s did not answer", d.Name), err)
	}
	if res.StatusCode != statusOK {
		return nil, fmt.Errorf("%w: %s answered %d %s", ErrRefused, d.Name, res.StatusCode, res.Reason)
	}
	return res, nil
}

// TryMedia tries the media path to a member with a throw-away leg on both sides: it rings
// nobody and opens nothing. Error: ErrNoPath when the other side answered but no packet
// came through, ErrRefused when it would not try.
func (a *Agent) TryMedia(ctx context.Context, node devices.NodeID) (Trial, error) {
	req, d, err := a.toMember(ctx, node, "")
	if err != nil {
		return Trial{}, err
	}
	leg, err := a.cfg.Media.NewLeg(LegConfig{CallID: token(16), Remote: d.Slug, Peer: d.Node, Capabilities: trialMedia(), Logger: a.log})
	if err != nil {
		return Trial{}, err
	}
	defer func() { _ = leg.Close() }()
	ctx, cancel := context.WithTimeout(ctx, trialTime)
	defer cancel()
	offer, err := leg.Offer(ctx)
	if err != nil {
		return Trial{}, err
	}
	res, err := a.withBody(ctx, req, d, "application/sdp", offer)
	if err != nil {
		return Trial{}, err
	}
	start := time.Now()
	if err := leg.SetAnswer(ctx, res.Body()); err != nil {
		return Trial{}, err
	}
	select {
	case <-leg.Connected():
		s := leg.Stats()
		return Trial{Local: s.Local, Remote: s.Remote, Took: time.Since(start)}, nil
	case <-leg.Done():
		return Trial{}, errors.Join(ErrNoPath, leg.Err())
	case <-ctx.Done():
		return Trial{}, fmt.Errorf("%w; tried from %s to %s", ErrNoPath, hosts(offer), hosts(res.Body()))
	}
}

// hosts lists the addresses of a description's candidates, for people.
func hosts(sdp []byte) string {
	var out []string
	for line := range strings.Lines(string(sdp)) {
		f := strings.Fields(line)
		if strings.HasPrefix(line, "a=candidate:") && len(f) > 5 && !slices.Contains(out, f[4]+" port "+f[5]) {
			out = append(out, f[4]+" port "+f[5])
		}
	}
	if len(out) == 0 {
		return "no address"
	}
	return strings.Join(out[:min(len(out), 4)], ", ")
}
