package edge

import (
	"context"

	"github.com/emiago/sipgo/sip"

	"github.com/hallway-home/hallway/devices"
	"github.com/hallway-home/hallway/sessions"
)

// show lets those who ring see the picture of a page, until the ringing ends: answered, given up
// or refused. The function that it gives makes an end of it in every case.
func (e *Edge) show(f *fork) func() {
	if f.preview == "" {
		return func() {}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if _, taken := e.shown[f.preview]; taken { // the token of another call: it stays that one's
		return func() {}
	}
	e.shown[f.preview] = f.caller.tab
	hide := func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		delete(e.shown, f.preview)
	}
	stop := context.AfterFunc(f.ctx, hide)
	return func() { stop(); hide() }
}

// meansPreview reports whether a URI means the picture of a page that calls, here or elsewhere.
func (e *Edge) meansPreview(u sip.Uri) bool {
	if sessions.PreviewToken(u) == "" {
		return false
	}
	r, ok := e.agent.Resolver().Resolve(u.User)
	return ok && r.Kind == devices.KindPerson
}

// previewedHere finds the page of a person whose call rings with that token: it alone is asked.
func (e *Edge) previewedHere(person devices.AOR, token string) ([]target, error) {
	e.mu.Lock()
	t := e.shown[token]
	e.mu.Unlock()
	if t == nil {
		return nil, sessions.ErrUnknown
	}
	if t.phone.Person != person.Slug { // check: page of a preview
		return nil, sessions.ErrUnknown
	}
	ask := *t.contact.Clone()
	ask.UriParams.Add("gr", token)
	return []target{{end{tab: t}, ask, person}}, nil
}

// previewed finds who may have the picture that a page here wants to see: a page here, or the
// nodes where the device or the person's phones are. At most one of them knows the token.
func (e *Edge) previewed(r devices.Resolution, token string) ([]target, error) {
	if r.Kind != devices.KindPerson && r.Kind != devices.KindDevice {
		return nil, sessions.ErrUnknown
	}
	if here, err := e.previewedHere(r.AOR, token); err == nil {
		return here, nil
	}
	var out []target
	for _, d := range r.Devices {
		if d.Person == "" && r.Kind == devices.KindDevice || d.Person != "" && d.Node != e.cfg.Self {
			out = append(out, target{end{node: d.Node}, sessions.PreviewURI(r.AOR, token), r.AOR})
		}
	}
	if len(out) == 0 {
		return nil, sessions.ErrUnknown
	}
	return out, nil
}
