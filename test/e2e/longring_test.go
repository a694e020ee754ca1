package e2e

import (
	"testing"
	"time"
)

// Who lets it ring for long still sees and hears: a browser, as any caller, learns where the
// other side is only when somebody accepts.
func TestLongRinging(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	tv := newNode(t, l, "TV", "tv", "Living room", "--source-clip", clip(t, 440), "--sink-record", t.TempDir()).start().found()
	panel := newNode(t, l, "Panel", "panel", "Kitchen", "--source-clip", clip(t, 550), "--sink-record", t.TempDir())
	tv.invite(panel)
	phone := startChromium(t, l.MustHost(t, "Phone")).phone(tv, "Maria")
	began := time.Now()
	phone.run("phone.call('kitchen')")
	in := panel.incoming()
	c := ask[call](tv, "call", "kitchen", "--detach")
	panel.eventually(3*time.Second, "it rings for both", func() bool { return panel.call(c.ID).State == "incoming" })
	panel.eventually(30*time.Second, "it has rung for 18 s", func() bool {
		if s := panel.call(in.ID); s.State != "incoming" {
			t.Fatalf("it stopped ringing: %+v", s)
		}
		return time.Since(began) > 18*time.Second
	})
	panel.run("answer", in.ID)
	phone.eventually(5*time.Second, "the page sees and hears", func(s pageState) bool { return s.Frames > 10 && s.Audio > 10 })
	panel.eventually(5*time.Second, "it sees and hears the page", flows(panel, in.ID))
	panel.run("answer", c.ID)
	tv.eventually(5*time.Second, "the TV sees and hears", flows(tv, c.ID))
}
