package sessions

import (
	"errors"
	"regexp"
	"slices"
	"strings"

	"github.com/emiago/sipgo/sip"

	"github.com/hallway-home/hallway/devices"
	"github.com/hallway-home/hallway/profiles"
)

// A caller shows its picture while it rings: its INVITE names it by a Call-Info (RFC 3261
// section 20.9) with purpose=preview, `<sip:anna@home;gr=TOKEN>`. The token is one that nobody
// guesses; as in a GRUU (RFC 5627) it leads to the very device, or page, that calls, and only
// while its call rings.

// previewToken is 128 bits or more, in hexadecimal.
var previewToken = regexp.MustCompile(`^[0-9a-f]{32,64}$`)

// ErrPreview says that the Call-Info names a picture that is not the caller's.
var ErrPreview error = refusal{statusForbidden, "Not The Caller's Picture"}

// PreviewToken is the token of a URI that means the picture of a ringing call; else "".
func PreviewToken(u sip.Uri) string {
	if v, ok := u.UriParams.Get("gr"); ok && previewToken.MatchString(v) {
		return v
	}
	return ""
}

// PreviewOf is the token of the picture that an INVITE names; "" if it names none. Error:
// ErrPreview when it is not its caller's own: who rings would call somebody else for them.
func PreviewOf(req *sip.Request) (string, error) {
	token := ""
	for _, h := range req.GetHeaders("Call-Info") {
		for value := range strings.SplitSeq(h.Value(), ",") {
			if !strings.Contains(value, "purpose=preview") {
				continue
			}
			u, err := previewURI(value)
			from := req.From().Address
			if err != nil || token != "" || u.Scheme != "sip" || u.User != from.User || !strings.EqualFold(u.Host, from.Host) || PreviewToken(u) == "" { // check: caller's own picture
				return "", ErrPreview
			}
			token = PreviewToken(u)
		}
	}
	return token, nil
}

func previewURI(value string) (u sip.Uri, err error) {
	_, value, found := strings.Cut(value, "<")
	value, _, closed := strings.Cut(value, ">")
	if !found || !closed {
		return u, errors.New("no URI")
	}
	return u, sip.ParseUri(value, &u)
}

// PreviewURI means the picture of a ringing call of a device or person.
func PreviewURI(caller devices.AOR, token string) sip.Uri {
	u := uri(caller)
	u.UriParams = sip.HeaderParams{{K: "gr", V: token}}
	return u
}

// shows reports whether a call from here rings at that member, with that token.
func (c *Call) shows(token string, peer devices.NodeID) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.preview == "" || c.preview != token || c.over || c.dialog != nil {
		return false
	}
	for i, id := range c.rings {
		if id == peer && c.info.Branches[i].Code == 0 {
			return true
		}
	}
	return false
}

// onPreview shows the picture of a call from here to who rings for it: the camera alone, without
// asking anybody, for as long as it rings there.
func (a *Agent) onPreview(req *sip.Request, tx *sip.ServerTx, peer devices.NodeID, secret string) {
	caller, err := a.Caller(req, peer)
	if err != nil {
		a.refuse(req, tx, err)
		return
	}
	var of *Call
	for _, c := range a.live() {
		if c.shows(secret, peer) {
			of = c
		}
	}
	self, err := a.self()
	if of == nil || err != nil || req.Recipient.User != self.Slug { // check: call of a preview
		a.refuse(req, tx, ErrUnknown)
		return
	}
	can := a.capability()
	can.Audio, can.Video.Direction = profiles.Medium{Direction: profiles.Inactive}, profiles.SendOnly
	timer, refresher, err := a.answerTimer(req)
	if err != nil {
		a.refuse(req, tx, err)
		return
	}
	c := a.newCall(token(16), "in", StateIncoming, caller.AOR, self.AOR)
	c.as, c.of, c.info.unseen = self, of, true
	c.wish = Wish{Video: profiles.SendOnly}
	leg, err := a.cfg.Media.NewLeg(LegConfig{CallID: c.id, Remote: caller.Slug, Peer: peer, Capabilities: can, Wish: c.wish, Logger: a.log})
	if err != nil {
		a.refuse(req, tx, err)
		return
	}
	a.rung(c, req, tx, leg, caller, peer, timer, refresher)
}

// endPreviews ends those who watch this call ring.
func (c *Call) endPreviews() {
	if c.preview == "" {
		return
	}
	for _, p := range c.a.live() {
		if p.of == c {
			c.a.spawn(func() { p.finish(ending{code: statusOK, words: "The ringing has ended.", bye: true}) })
		}
	}
}

// drop forgets a call that people never saw.
func (a *Agent) drop(c *Call) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.calls, c.id)
	a.order = slices.DeleteFunc(a.order, func(id string) bool { return id == c.id })
}
