package sessions

import (
	"testing"
	"time"
)

// inCall sets up an established call and returns both legs.
func inCall(t *testing.T) (tv, panel *phone, a, b *fakeLeg) {
	t.Helper()
	h := newHouse(t, member{slug: "tv"}, member{slug: "panel", config: answers})
	tv, panel = h.phones["tv"], h.phones["panel"]
	tv.calls("panel")
	tv.is(StateActive)
	panel.is(StateActive)
	eventually(t, "media runs", func() bool { return tv.media.open.Load() == 1 && panel.media.open.Load() == 1 })
	return tv, panel, tv.media.legs[0], panel.media.legs[0]
}

func (l *fakeLeg) agreements() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.answered
}

// A lost path is found again by one re-INVITE, from either side.
func TestBrokenPathIsReoffered(t *testing.T) {
	tv, panel, a, b := inCall(t)
	for i, l := range []*fakeLeg{a, b} {
		l.broken <- struct{}{}
		eventually(t, "both sides agree anew", func() bool { return a.agreements() == i+2 && b.agreements() == i+2 })
	}
	if n, m := a.restarts.Load(), b.restarts.Load(); n != 1 || m != 1 {
		t.Errorf("%d and %d offers were made, one each was needed", n, m)
	}
	tv.is(StateActive)
	if err := panel.Hangup(panel.is(StateActive).ID); err != nil {
		t.Fatal(err)
	}
	tv.is(StateEnded)
}

// While no flow stands the call waits, and goes on when one does.
func TestBrokenPathWaitsForTheFlow(t *testing.T) {
	tv, panel, a, b := inCall(t)
	cut(tv, panel)
	b.broken <- struct{}{}
	time.Sleep(3 * reofferPause / 2) // an attempt or two fail
	if b.restarts.Load() != 0 {
		t.Error("an offer was made that nobody could hear")
	}
	connect(tv, panel)
	eventually(t, "both sides agree anew", func() bool { return a.agreements() == 2 && b.agreements() == 2 })
	tv.is(StateActive)
	panel.is(StateActive)
}

// Both sides offer at once: one of them steps back (RFC 3261 section 14.1), and the call
// goes on.
func TestBrokenPathOnBothSides(t *testing.T) {
	tv, panel, a, b := inCall(t)
	slow := int64(20 * time.Millisecond)
	tv.media.slow.Store(slow)
	panel.media.slow.Store(slow)
	a.broken <- struct{}{}
	b.broken <- struct{}{}
	eventually(t, "both sides agree anew", func() bool { return a.agreements() >= 2 && b.agreements() >= 2 })
	tv.is(StateActive)
	panel.is(StateActive)
}
