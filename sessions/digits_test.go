package sessions

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/emiago/sipgo/sip"
)

// presses sends an INFO inside the call that runs and returns the answer.
func (p *phone) presses(t *testing.T, kind, body string, seq func(*dialog) uint32) *sip.Response {
	t.Helper()
	c, err := p.call(p.is(StateActive).ID)
	if err != nil {
		t.Fatal(err)
	}
	c.mu.Lock()
	d := c.dialog
	c.mu.Unlock()
	req := p.request(sip.INFO, d, seq(d))
	if kind != "" {
		ct := sip.ContentTypeHeader(kind)
		req.AppendHeader(&ct)
		req.SetBody([]byte(body))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	res, err := p.roundTrip(ctx, req)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

func next(d *dialog) uint32 { return d.nextSeq() }

// What the other side of a call presses is kept, told, and bounded; everything else is refused.
func TestDigits(t *testing.T) {
	tv, panel, _, _ := inCall(t)
	feed := panel.Watch(t.Context())
	for _, c := range []struct {
		kind, body string
		code       int
		digits     string
	}{
		{dtmfRelay, "Signal=5\r\nDuration=100", 200, "5"}, // JsSIP
		{dtmfRelay, "Signal= *\r\nDuration= 160\r\n", 200, "5*"},
		{dtmf, "d", 200, "5*D"},
		{"Application/DTMF-Relay; charset=utf-8", "signal=#\n", 200, "5*D#"},
		{"", "", 200, "5*D#"},
		{dtmfRelay, "Signal=55\r\n", 400, "5*D#"},
		{dtmfRelay, "Duration=100", 400, "5*D#"},
		{dtmf, "E", 400, "5*D#"},
		{"text/plain", "5", 415, "5*D#"},
	} {
		res := tv.presses(t, c.kind, c.body, next)
		if got := panel.is(StateActive).Digits; res.StatusCode != c.code || got != c.digits {
			t.Errorf("%s %q: %d, the digits are %q; want %d, %q", c.kind, c.body, res.StatusCode, got, c.code, c.digits)
		}
		if a := res.GetHeader("Accept"); c.code == 415 && (a == nil || a.Value() != dtmfRelay+", "+dtmf) {
			t.Errorf("415 says Accept: %v", a)
		}
	}
	told := ""
	for told != "5*D#" {
		select {
		case i := <-feed:
			told = i.Digits
		case <-time.After(3 * time.Second):
			t.Fatalf("the watchers heard %q", told)
		}
	}
	if res := tv.presses(t, dtmf, "7", func(*dialog) uint32 { return 1 }); res.StatusCode != 500 {
		t.Errorf("an old INFO again: %d", res.StatusCode)
	}
	for range maxDigits {
		tv.presses(t, dtmf, "1", next)
	}
	if got := panel.is(StateActive).Digits; got != strings.Repeat("1", maxDigits) {
		t.Errorf("%d digits are kept: %s", len(got), got)
	}
}

// A digit of nobody's call is refused.
func TestDigitOutsideACall(t *testing.T) {
	tv, panel, _, _ := inCall(t)
	id := tv.is(StateActive).ID
	c, _ := tv.call(id)
	c.mu.Lock()
	d := *c.dialog //nolint:govet // a copy, to ask with after the end
	c.mu.Unlock()
	if err := tv.Hangup(id); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it has ended", func() bool { return len(panel.Calls()) > 0 && panel.Calls()[0].State == StateEnded })
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	if res, err := tv.roundTrip(ctx, tv.request(sip.INFO, &d, 99)); err != nil || res.StatusCode != statusNoCall {
		t.Errorf("%v %v", res, err)
	}
}
