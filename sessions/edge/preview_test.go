package edge

import (
	"strings"
	"testing"
)

// callInfo names the picture of a page's own call.
func (p *page) callInfo(token string) string {
	return "Call-Info: <sip:" + p.person + "@" + p.n.home.Domain() + ";gr=" + token + ">;purpose=preview\r\n"
}

// watches asks for the picture of a call that rings, in a call of its own: with a branch that an
// earlier refusal's transaction still has, it would be taken for that request sent again.
func (p *page) watches(person, secret string) {
	call := token()
	p.ask = ";gr=" + secret
	p.request("INVITE", person, call, call, "w", "", "", p.sdp())
	p.ask = ""
}

// While a page's call rings, whoever knows its token reaches this very page with an INVITE of its
// own; any other token, another person's name, and the token of a call that was answered or given
// up lead nowhere.
func TestPictureOfARingingCall(t *testing.T) {
	n := newNode(t)
	maria, other := n.phone("maria").open().register(), n.phone("maria").open().register()
	sam, ben := n.phone("sam").open().register(), n.phone("ben").open().register()
	secret := strings.Repeat("0b", 16)
	refused := func(p *page, person, token, why string) {
		t.Helper()
		p.watches(person, token)
		if s := p.status(); s != 404 {
			t.Errorf("%s: %d", why, s)
		}
	}
	refused(sam, "maria", secret, "before there is a call")

	call, tag := token(), token()
	maria.request("INVITE", "sam", "b1", call, tag, "", maria.callInfo(secret), maria.sdp())
	in := sam.asked("INVITE")
	if h := in.GetHeader("Call-Info"); h == nil || !strings.Contains(h.Value(), secret) {
		t.Fatalf("who rings is not told of the picture: %v", in)
	}
	sam.respond(in, 180, "s")
	maria.status()
	refused(sam, "maria", strings.Repeat("0c", 16), "a token that nobody gave")
	refused(sam, "ben", secret, "another person")

	sam.watches("maria", secret)
	asks := maria.asked("INVITE") // and the other page of hers hears nothing
	if gr, _ := asks.Recipient.UriParams.Get("gr"); gr != secret || asks.Recipient.User != maria.contact || asks.From().Address.User != "sam" {
		t.Errorf("the page hears %v", asks)
	}
	maria.respond(asks, 200, "m")
	if s := sam.status(); s != 200 {
		t.Errorf("the picture: %d", s)
	}
	sam.respond(in, 200, "s")
	if s := maria.status(); s != 200 {
		t.Fatalf("the call: %d", s)
	}
	eventually(t, "the picture is no longer shown", func() bool { return !n.shows(secret) })
	refused(ben, "maria", secret, "after the call was answered")

	maria.request("INVITE", "sam", "b2", token(), token(), "", maria.callInfo(secret), maria.sdp())
	in = sam.asked("INVITE")
	if !n.shows(secret) {
		t.Error("the next call shows nothing")
	}
	sam.respond(in, 486, "s")
	if s := maria.status(); s != 486 {
		t.Errorf("busy: %d", s)
	}
	eventually(t, "it ends with a refusal", func() bool { return !n.shows(secret) })

	// Who names the picture of somebody else would make those who ring call them.
	ben.request("INVITE", "sam", "b3", token(), token(), "", maria.callInfo(secret), ben.sdp())
	if s := ben.status(); s != 403 {
		t.Errorf("another's picture: %d", s)
	}
	other.request("INVITE", "maria", "b4", token(), token(), "", "", other.sdp())
	if s := maria.asked("INVITE"); s.Recipient.UriParams.Has("gr") {
		t.Errorf("a call is taken for a preview: %v", s)
	}
}

func (n *node) shows(token string) bool {
	n.edge.mu.Lock()
	defer n.edge.mu.Unlock()
	return n.edge.shown[token] != nil
}
