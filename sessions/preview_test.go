package sessions

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/emiago/sipgo/sip"

	"github.com/hallway-home/hallway/devices"
)

// An INVITE names the picture of its own caller, by a token, or it is refused.
func TestPreviewOf(t *testing.T) {
	home := devices.HomeID{0xaa}
	anna, token := devices.AOR{Slug: "anna", Home: home}, strings.Repeat("0a", 16)
	own := "<" + anna.String() + ";gr=" + token + ">;purpose=preview"
	for _, c := range []struct {
		headers []string
		want    string
		refused bool
	}{
		{nil, "", false},
		{[]string{own}, token, false},
		{[]string{"<http://192.0.2.1/anna.png>;purpose=icon, " + own}, token, false},
		{[]string{"<http://192.0.2.1/anna.png>;purpose=icon"}, "", false},
		{[]string{own, own}, "", true},
		{[]string{strings.Replace(own, "anna", "ben", 1)}, "", true},
		{[]string{strings.Replace(own, "home.arpa", "example.org", 1)}, "", true},
		{[]string{strings.Replace(own, "sip:", "sips:", 1)}, "", true},
		{[]string{strings.Replace(own, token, "phones", 1)}, "", true},
		{[]string{strings.Replace(own, token, "0a", 1)}, "", true},
		{[]string{"<" + anna.String() + ">;purpose=preview"}, "", true},
		{[]string{anna.String() + ";gr=" + token + ";purpose=preview"}, "", true},
	} {
		req := sip.NewRequest(sip.INVITE, sip.Uri{})
		req.AppendHeader(&sip.FromHeader{Address: uri(anna)})
		for _, h := range c.headers {
			req.AppendHeader(sip.NewHeader("Call-Info", h))
		}
		got, err := PreviewOf(req)
		if got != c.want || (err != nil) != c.refused {
			t.Errorf("%q: %q %v", c.headers, got, err)
		}
	}
	phone := devices.NodeID{3, 4}
	for _, c := range []struct {
		u      sip.Uri
		token  string
		only   devices.NodeID
		phones bool
	}{{PreviewURI(anna, token), token, devices.NodeID{}, false}, {PhonesURI(anna), "", devices.NodeID{}, true}, {PhoneURI(anna, phone), "", phone, true}, {uri(anna), "", devices.NodeID{}, false}} {
		only, phones := MeansPhones(c.u)
		if PreviewToken(c.u) != c.token || only != c.only || phones != c.phones {
			t.Errorf("%s: %v %v", c.u.String(), only, phones)
		}
	}
}

// watches asks another phone for the picture of its ringing call.
func (p *phone) watches(t *testing.T, to *phone, secret string) *sip.Response {
	t.Helper()
	dlg := &dialog{
		peer: to.id, callID: token(8), localTag: token(4), session: token(16),
		local: uri(selfOf(t, p).AOR), remote: uri(selfOf(t, to).AOR), target: PreviewURI(selfOf(t, to).AOR, secret),
	}
	req := p.request(sip.INVITE, dlg, 1)
	setSDP(req, []byte("v=0\r\naudio=inactive\r\nvideo=recvonly\r\n"))
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	res, err := p.roundTrip(ctx, req)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

// A device that calls with its camera shows it to who rings, unasked, until one answers: nothing
// else opens, nobody is told of it, and nobody else sees it.
func TestCallerShowsItsCameraWhileItRings(t *testing.T) {
	h := newHouse(t, member{slug: "tv"}, member{slug: "one", room: "kitchen"}, member{slug: "two", room: "kitchen"}, member{slug: "hall"})
	tv, one, two, hall := h.phones["tv"], h.phones["one"], h.phones["two"], h.phones["hall"]
	call := tv.calls("kitchen")
	secret := call.preview
	one.is(StateIncoming)
	two.is(StateIncoming)
	if n := tv.media.starts.Load(); n != 0 {
		t.Fatalf("%d cameras and microphones opened though nobody looks", n)
	}
	for what, f := range map[string]func() *sip.Response{
		"another token":    func() *sip.Response { return one.watches(t, tv, strings.Repeat("0e", 16)) },
		"who rings not":    func() *sip.Response { return hall.watches(t, tv, secret) },
		"one who is asked": func() *sip.Response { return tv.watches(t, one, secret) },
	} {
		if res := f(); res.StatusCode != statusNotFound {
			t.Errorf("%s: %d %s", what, res.StatusCode, res.Reason)
		}
	}
	if n := len(one.Calls()); n != 1 {
		t.Errorf("a preview of nothing rings: %d calls", n)
	}
	res := one.watches(t, tv, secret)
	if res.StatusCode != statusOK || !strings.Contains(string(res.Body()), "video=sendonly") || strings.Contains(string(res.Body()), "audio=send") {
		t.Fatalf("%d %s: %s", res.StatusCode, res.Reason, res.Body())
	}
	eventually(t, "the camera opens for it", func() bool { return tv.media.starts.Load() == 1 })
	if calls := tv.Calls(); len(calls) != 1 || calls[0].State != StateRinging {
		t.Errorf("people are told of it: %+v", calls)
	}
	if err := two.Answer(two.is(StateIncoming).ID); err != nil {
		t.Fatal(err)
	}
	tv.is(StateActive)
	eventually(t, "the picture of the ringing ends", func() bool { return len(tv.live()) == 1 })
	if res := one.watches(t, tv, secret); res.StatusCode != statusNotFound {
		t.Errorf("after the answer: %d", res.StatusCode)
	}
	if got := one.is(StateEnded); got.Reason != "Two took it." {
		t.Errorf("%+v", got)
	}
}

// What others write about a picture, and about who took a call, is nobody's but the caller's own
// and a name of the home, or nothing.
func FuzzCallInfoAndReason(f *testing.F) {
	home := devices.HomeID{0xaa}
	anna, secret := devices.AOR{Slug: "anna", Home: home}, strings.Repeat("0a", 16)
	f.Add("<"+anna.String()+";gr="+secret+">;purpose=preview", ReasonElsewhere(anna).Value())
	f.Add("<sip:a@b;gr=<>>;purpose=preview,<", `SIP;cause=200;by="sip:@.home.arpa"`)
	dir := devices.Fold(devices.Inputs{Roster: &devices.Roster{Home: home, Rooms: map[string]devices.Room{"anna": {Slug: "anna", Name: "Anna"}}}})
	a := &Agent{cfg: Config{Resolver: func() Resolver { return dir }}}
	f.Fuzz(func(t *testing.T, info, reason string) {
		req := sip.NewRequest(sip.INVITE, sip.Uri{})
		req.AppendHeader(&sip.FromHeader{Address: uri(anna)})
		req.AppendHeader(sip.NewHeader("Call-Info", info))
		req.AppendHeader(sip.NewHeader("Reason", reason))
		if got, err := PreviewOf(req); got != "" && (err != nil || !previewToken.MatchString(got) || !strings.Contains(info, anna.Slug)) {
			t.Errorf("%q is taken for the picture %q (%v)", info, got, err)
		}
		if by, _ := a.takenBy(req); by != "" && by != "anna" {
			t.Errorf("%q says that %q took it", reason, by)
		}
	})
}
