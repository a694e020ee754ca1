package sessions

import (
	"fmt"
	"slices"
	"strings"

	"github.com/emiago/sipgo/sip"

	"github.com/hallway-home/hallway/devices"
	"github.com/hallway-home/hallway/profiles"
)

// Spoken is a foreign device that this node speaks for, such as a camera: calls to its AOR
// come here and are answered with its media.
type Spoken struct {
	Capability profiles.Capabilities
	Behaviour  profiles.Behaviour // AutoAnswer: it answers by itself, as a camera does for viewers
	Endpoint   Endpoint
}

// persona is how this node answers for d: itself, or a foreign device that it speaks for.
func (a *Agent) persona(d devices.Device) Spoken {
	if d.Foreign {
		s, _ := a.speaks(d.Slug)
		return s
	}
	s := Spoken{Capability: a.capability(), Behaviour: a.cfg.Behaviour}
	s.Behaviour.AutoAnswer = a.cfg.AutoAnswer
	return s
}

func (a *Agent) speaks(slug string) (Spoken, bool) {
	if a.cfg.Speaks == nil {
		return Spoken{}, false
	}
	return a.cfg.Speaks(slug)
}

// callee says whom a name means at this node: itself, by its own name or that of a room,
// group or person that it belongs to, or a foreign device that it speaks for.
func (a *Agent) callee(u sip.Uri, self devices.Device) (who devices.Device, to devices.AOR, ok bool) {
	if !strings.EqualFold(u.Host, self.AOR.Home.Domain()) {
		return self, to, false
	}
	r, ok := a.cfg.Resolver().Resolve(u.User)
	if !ok {
		return self, to, false
	}
	if r.Kind == devices.KindForeign && len(r.Devices) == 1 && slices.Contains(r.Devices[0].Speakers, a.cfg.Self) {
		who = r.Devices[0]
		who.Node = a.cfg.Self // whichever speaker the directory prefers: we were asked
		_, ok = a.speaks(who.Slug)
		return who, r.AOR, ok
	}
	return self, r.AOR, slices.ContainsFunc(r.Devices, func(d devices.Device) bool { return d.Node == self.Node && !d.Foreign && d.Person == "" })
}

// idOf names a call at this node. A call to a room may reach it twice, as itself and as a
// foreign device: those are two calls with one Session-ID.
func idOf(session string, who devices.Device) string {
	if who.Foreign {
		return session + "-" + who.Slug
	}
	return session
}

// busy reports whether a device has as many calls as it takes. Its own calls do not count
// against a foreign device, nor those against it.
func (a *Agent) busy(who devices.Device) bool {
	n := 0
	for _, c := range a.live() {
		if c.of == nil && c.as.Foreign == who.Foreign && (!who.Foreign || c.as.Slug == who.Slug) {
			n++
		}
	}
	return n >= max(1, a.persona(who).Behaviour.MaxCalls)
}

// foreign is the slug of the foreign device at either end of a call, or empty.
func (c *Call) foreign(d *dialog) string {
	switch {
	case c.as.Foreign:
		return c.as.Slug
	case d.device.Foreign:
		return d.device.Slug
	}
	return ""
}

// tryHere views a foreign device that this node speaks for itself: nothing goes over the
// network, and nobody is asked but the home's rules.
func (c *Call) tryHere(self devices.Device, i int, b *branch) outcome {
	a := c.a
	s, ok := a.speaks(b.device.Slug)
	if !ok {
		return outcome{code: statusNotFound, err: ErrUnknown}
	}
	if a.cfg.Policy != nil {
		if err := a.cfg.Policy.MayCall(self, b.device.Slug); err != nil {
			return outcome{code: statusForbidden, phrase: err.Error()}
		}
	}
	leg, err := a.cfg.Media.NewLeg(LegConfig{CallID: c.id, Remote: b.device.Slug, Capabilities: b.match.Caller(), Logger: a.log, Direct: s.Endpoint})
	if err != nil {
		return outcome{code: 500, err: err}
	}
	d := c.newDialog(self, b, leg)
	if !c.establish(d) {
		_ = leg.Close()
		return outcome{code: statusCancelled}
	}
	a.log.Info("a camera of this device is viewed here", "device", b.device.Slug, "call", c.id)
	c.branchState(i, "answered", 0)
	c.open(d)
	return outcome{code: statusOK}
}

// people leaves out devices without a person behind them where there are others: a camera
// answers at once, and a call to a room would never ring.
func people(all []devices.Device) []devices.Device {
	out := slices.DeleteFunc(slices.Clone(all), func(d devices.Device) bool { return d.Behaviour.Automata })
	if len(out) == 0 {
		return all
	}
	return out
}

// reasonOf is what the other side says about the end of a call that failed (RFC 3326), fit
// to be shown.
func reasonOf(req *sip.Request) (code int, text string) {
	h := req.GetHeader("Reason")
	if h == nil {
		return 0, ""
	}
	_, rest, _ := strings.Cut(h.Value(), "cause=")
	if _, err := fmt.Sscanf(rest, "%d", &code); err != nil || code < 400 || code > 699 {
		return 0, ""
	}
	_, text, ok := strings.Cut(h.Value(), `text="`)
	text, _, closed := strings.Cut(text, `"`)
	if !ok || !closed {
		return 0, ""
	}
	text = strings.Map(printable, text)
	for _, p := range []string{callEnded, ErrMediaFailed.Error() + ": "} {
		text = strings.TrimPrefix(text, p)
	}
	return code, strings.ToValidUTF8(text[:min(len(text), maxPhrase)], "")
}
