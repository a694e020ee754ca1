package agent

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"

	"golang.org/x/sync/errgroup"

	"github.com/hallway-home/hallway/cmd/hallway/internal/api"
	"github.com/hallway-home/hallway/cmd/hallway/internal/doctor"
	"github.com/hallway-home/hallway/devices"
)

const (
	// examineTime bounds the legs of one device: 5 s of dials, 4 s of SIP, 4 s of media.
	examineTime = 14 * time.Second
	// relayTime bounds what another device is asked to find out: the same and its way.
	relayTime = 18 * time.Second
	// maxExamined bounds the devices of one name that are examined: each costs a trial of
	// the media path here, and its answer goes into one SIP message.
	maxExamined = 8
	// maxFindings and maxWords bound what another member's doctor may say.
	maxFindings, maxWords = 160, 500
)

// question goes from member to member in an OPTIONS (sessions.QuestionType).
type question struct {
	Call   string `json:"call,omitempty"`   // why can you not call this name? Empty: which home do you know?
	Camera string `json:"camera,omitempty"` // an owner's: look at this camera, and speak for it once it is adopted

	Web   *webQuestion   `json:"web,omitempty"`   // of an owner: a certificate for the companion
	Phone *phoneQuestion `json:"phone,omitempty"` // of an owner: a phone came here that knows your window
	Wish  *wishQuestion  `json:"wish,omitempty"`  // of an owner: a phone came here and wants the home changed
	Wake  *wakeQuestion  `json:"wake,omitempty"`  // tell this phone that somebody calls
}

// reply answers a question.
type reply struct {
	Epoch     uint64         `json:"epoch"`
	Heads     []string       `json:"heads"`
	Diagnosis *api.Diagnosis `json:"diagnosis,omitempty"`
	Camera    *cameraReply   `json:"camera,omitempty"`
	Web       *webReply      `json:"web,omitempty"`
	Phone     *phoneReply    `json:"phone,omitempty"`
	Wish      *wishReply     `json:"wish,omitempty"`
	Wake      *wakeReply     `json:"wake,omitempty"`
}

// Doctor implements api.Backend: what only the running agent knows.
func (a *Agent) Doctor(ctx context.Context) []api.Check {
	r, err := a.home()
	if err != nil {
		return []api.Check{{Name: "home", Level: "warn", Words: err.Error()}}
	}
	out := []api.Check{{Name: "home", Level: "ok", Words: fmt.Sprintf("%s has %d devices", r.Name, len(r.Members))}}
	others := slices.DeleteFunc(slices.Clone(a.dir.Snapshot().Devices), func(d devices.Device) bool { return d.Self })
	found := make([]api.Check, len(others))
	var g errgroup.Group
	g.SetLimit(maxExamined) // side by side: each that is off costs 3 s
	for i, d := range others {
		g.Go(func() error { found[i] = a.examine(ctx, d); return nil })
	}
	_ = g.Wait()
	out = append(out, found...)
	for _, d := range a.dir.Snapshot().Spoken {
		c := api.Check{Name: d.Slug, Level: "ok", Words: "the camera answers the device that speaks for it"}
		if d.Status != devices.Reachable {
			c.Level, c.Words, c.Advice = "fail", cmp.Or(d.Fault, "the device that speaks for it cannot be reached"), "`hallway doctor "+d.Slug+"` tells why"
		}
		out = append(out, c)
	}
	return out
}

func (a *Agent) examine(ctx context.Context, d devices.Device) api.Check {
	c := api.Check{Name: d.Slug}
	ctx, cancel := context.WithTimeout(ctx, 4*time.Second)
	defer cancel()
	if d.Status == devices.NeverSeen {
		c.Level, c.Words, c.Advice = "warn", "it was admitted but has not come yet", "switch it on, on this network"
		return c
	}
	w, err := a.sip.Options(ctx, d.Node, "")
	if err != nil {
		c.Level, c.Words, c.Advice = "fail", "it does not answer: "+err.Error(), "`hallway doctor "+d.Slug+"` tells why"
		return c
	}
	c.Level, c.Words = "ok", fmt.Sprintf("answers in %.1f ms", float64(w.Took.Microseconds())/1000)
	return c
}

// Diagnose implements api.Backend. The device that would call finds out: this one by
// itself, another when it is asked over its member flow.
func (a *Agent) Diagnose(ctx context.Context, from, to string) (api.Diagnosis, error) {
	if from == "" {
		return a.diagnose(ctx, to), nil
	}
	slug := devices.Slug(from)
	r, ok := a.dir.Snapshot().Resolve(slug)
	if !ok {
		// The same words as for a callee that does not exist, about the caller.
		d := doctor.Diagnose(a.named(ctx, slug, doctor.Facts{From: a.caller(), To: slug}))
		d.From, d.To = slug, to
		d.Words = fmt.Sprintf("%s cannot call %s: %s.", from, to, legOf(d, d.Cause).Words)
		return d, nil
	}
	if r.Kind != devices.KindDevice || len(r.Devices) != 1 {
		return api.Diagnosis{}, fmt.Errorf("%w: %q is a %s; the one that calls is a device", api.ErrInput, from, r.Kind)
	}
	caller := r.Devices[0]
	if caller.Self {
		return a.diagnose(ctx, to), nil
	}
	d, err := a.relay(ctx, caller, to)
	if err != nil {
		return a.without(ctx, caller, to, err), nil
	}
	return d, nil
}

func legOf(d api.Diagnosis, name string) api.Check {
	for _, l := range d.Legs {
		if l.Name == name {
			return l
		}
	}
	return api.Check{}
}

// relay asks another device's doctor. What comes back is a member's word and only shown.
func (a *Agent) relay(ctx context.Context, caller devices.Device, to string) (api.Diagnosis, error) {
	ctx, cancel := context.WithTimeout(ctx, relayTime)
	defer cancel()
	r, err := a.ask(ctx, caller, question{Call: to})
	if err != nil {
		return api.Diagnosis{}, err
	}
	if r.Diagnosis == nil {
		return api.Diagnosis{}, fmt.Errorf("%s answered without a finding", caller.Name)
	}
	return *r.Diagnosis, nil
}

// readReply reads what another member's doctor says: bounded, and fit to be shown.
func readReply(raw []byte) (reply, error) {
	var r reply
	if err := json.Unmarshal(raw, &r); err != nil {
		return reply{}, err
	}
	if c := r.Camera; c != nil {
		c.Certificate = shown(c.Certificate)
		c.Fault, c.Left, c.Tracks = shown(c.Fault), shown(c.Left), c.Tracks[:min(len(c.Tracks), maxReplyTracks)]
	}
	d := r.Diagnosis
	if d == nil {
		return r, nil
	}
	for _, s := range []*string{&d.From, &d.To, &d.Cause, &d.Words, &d.Advice} {
		*s = shown(*s)
	}
	d.Legs = d.Legs[:min(len(d.Legs), maxFindings)]
	for i := range d.Legs {
		l := &d.Legs[i]
		for _, s := range []*string{&l.Name, &l.Device, &l.Level, &l.Words, &l.Advice} {
			*s = shown(*s)
		}
	}
	return r, nil
}

// shown is what another device said, fit for a terminal.
func shown(s string) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || unicode.Is(unicode.Cf, r) { // steer terminals and reading direction
			return -1
		}
		return r
	}, s)
	return strings.ToValidUTF8(s[:min(len(s), maxWords)], "")
}

func (a *Agent) ask(ctx context.Context, d devices.Device, q question) (reply, error) {
	raw, err := json.Marshal(q)
	if err != nil {
		return reply{}, err
	}
	answer, err := a.sip.Ask(ctx, d.Node, raw)
	if err != nil {
		return reply{}, err
	}
	r, err := readReply(answer)
	if err != nil {
		return r, fmt.Errorf("%s answered what cannot be read", d.Name)
	}
	return r, nil
}

// without is what this node knows when the caller cannot be asked.
func (a *Agent) without(ctx context.Context, caller devices.Device, to string, why error) api.Diagnosis {
	mine := a.diagnose(ctx, caller.Slug)
	d := api.Diagnosis{From: caller.Name, To: to, Cause: mine.Cause, Advice: mine.Advice}
	if mine.OK {
		d.Cause, d.Advice = doctor.LegSIP, "run this on "+caller.Name+" itself: `hallway doctor "+to+"`"
		d.Words = fmt.Sprintf("%s could not be asked, although it answers: %s.", caller.Name, why)
	} else {
		d.Words = fmt.Sprintf("%s cannot be reached, so it cannot call and could not be asked: %s.", caller.Name, legOf(mine, mine.Cause).Words)
	}
	for _, l := range mine.Legs {
		l.Device = caller.Slug
		d.Legs = append(d.Legs, l)
	}
	if r, ok := a.dir.Snapshot().Resolve(devices.Slug(to)); ok && len(r.Devices) == 1 && r.Devices[0].Self {
		return d
	}
	other := a.diagnose(ctx, to)
	for _, l := range other.Legs {
		if l.Name == doctor.LegCaller {
			continue
		}
		if l.Device == "" {
			l.Device = devices.Slug(to)
		}
		d.Legs = append(d.Legs, l)
	}
	return d
}

// answerDoctor answers another member's doctor (sessions.Config.Examine). It always speaks
// of calls from this node itself, so a question can go no further.
func (a *Agent) answerDoctor(ctx context.Context, from devices.Device, raw []byte) ([]byte, error) {
	var q question
	if err := json.Unmarshal(raw, &q); err != nil {
		return nil, fmt.Errorf("a question that cannot be read: %w", err)
	}
	r := reply{Epoch: a.epoch(), Heads: a.heads()}
	if q.Camera != "" {
		var err error
		if r.Camera, err = a.answerCamera(ctx, from, q.Camera); err != nil {
			return nil, err
		}
	}
	if q.Web != nil {
		var err error
		if r.Web, err = a.answerWeb(from, *q.Web); err != nil {
			return nil, err
		}
	}
	if q.Phone != nil {
		r.Phone = a.answerPhone(from, *q.Phone)
	}
	if q.Wish != nil {
		r.Wish = a.answerWish(ctx, from, *q.Wish)
		r.Epoch, r.Heads = a.epoch(), a.heads()
	}
	if q.Wake != nil {
		r.Wake = a.answerWake(ctx, *q.Wake)
	}
	if q.Call != "" {
		a.log.Info("a member's doctor asks about calls from here", "peer", from.Slug)
		d := a.diagnose(ctx, q.Call)
		r.Diagnosis = &d
	}
	return json.Marshal(r)
}

func (a *Agent) epoch() uint64 {
	if r := a.roster.Roster(); r != nil {
		return r.Epoch
	}
	return 0
}

func (a *Agent) heads() []string {
	var out []string
	for _, h := range a.roster.Heads() {
		out = append(out, fmt.Sprintf("%x", h[:8]))
	}
	return out
}
