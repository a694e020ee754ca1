package sessions

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/emiago/sipgo/sip"
)

// inDialog sends a request of the ringing call of tv, as the far end of panel's dialog.
func (p *phone) inDialog(t *testing.T, to *phone, method sip.RequestMethod, cseq uint32) int {
	t.Helper()
	to.mu.Lock()
	var theirs *dialog
	for k, c := range to.dialogs {
		if c.dialog != nil && k == c.dialog.key() {
			theirs = c.dialog
		}
	}
	to.mu.Unlock()
	if theirs == nil {
		t.Fatal("it has no dialog")
	}
	dlg := &dialog{
		peer: to.id, callID: theirs.callID, localTag: theirs.remoteTag, remoteTag: theirs.localTag, session: token(16),
		local: theirs.remote, remote: theirs.local, target: theirs.local,
	}
	req := p.request(method, dlg, cseq)
	if method == sip.INVITE {
		setSDP(req, []byte("v=0\r\naudio=sendrecv\r\n"))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	res, err := p.roundTrip(ctx, req)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode
}

// A second offer while the first still rings is refused and disturbs nothing (RFC 3261
// section 14.2).
func TestReinviteWhileRingingIsRefused(t *testing.T) {
	h := newHouse(t, member{slug: "tv"}, member{slug: "panel"})
	tv, panel := h.phones["tv"], h.phones["panel"]
	tv.calls("panel")
	in := panel.is(StateIncoming)
	if code := tv.inDialog(t, panel, sip.INVITE, 2); code != 500 {
		t.Errorf("%d", code)
	}
	leg := panel.media.legs[0]
	leg.mu.Lock()
	if leg.answered != 1 {
		t.Errorf("the offer of the ringing call was answered %d times", leg.answered)
	}
	leg.mu.Unlock()
	if err := panel.Answer(in.ID); err != nil {
		t.Fatal(err)
	}
	tv.is(StateActive)
	if code := tv.inDialog(t, panel, sip.INVITE, 3); code != 200 {
		t.Errorf("once it is answered: %d", code)
	}
}

// A BYE while it rings ends the INVITE as a CANCEL does (RFC 3261 section 15.1.2).
func TestByeWhileRinging(t *testing.T) {
	h := newHouse(t, member{slug: "tv"}, member{slug: "panel"})
	tv, panel := h.phones["tv"], h.phones["panel"]
	tv.calls("panel")
	panel.is(StateIncoming)
	tv.is(StateRinging)
	if code := tv.inDialog(t, panel, sip.BYE, 2); code != 200 {
		t.Errorf("the BYE got %d", code)
	}
	panel.is(StateEnded)
	if got := tv.is(StateEnded); got.Code != statusCancelled {
		t.Errorf("the INVITE ended with %d %q", got.Code, got.Reason)
	}
}

// A CANCEL that comes while a slow device still makes its answer rings nowhere.
func TestCancelledBeforeItRings(t *testing.T) {
	h := newHouse(t, member{slug: "tv"}, member{slug: "panel"})
	tv, panel := h.phones["tv"], h.phones["panel"]
	panel.media.slow.Store(int64(500 * time.Millisecond)) // 100 Trying goes out after 200 ms
	events := panel.Watch(t.Context())
	c := tv.calls("panel")
	eventually(t, "the callee works on its answer", func() bool { return panel.media.living.Load() == 1 })
	if err := tv.Hangup(c.ID()); err != nil {
		t.Fatal(err)
	}
	got := panel.is(StateEnded)
	if got.Code != statusCancelled || !strings.Contains(got.Reason, "gave up calling") {
		t.Errorf("%+v", got)
	}
	for len(events) > 0 {
		if e := <-events; e.State == StateIncoming {
			t.Error("it rang")
		}
	}
}
