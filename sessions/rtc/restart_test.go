package rtc

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/hallway-home/hallway/sessions"
)

func restart(t *testing.T, from, to sessions.Leg) {
	t.Helper()
	offer, err := from.Reoffer(t.Context(), true)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := to.Answer(t.Context(), offer)
	if err != nil {
		t.Fatal(err)
	}
	if err := from.SetAnswer(t.Context(), answer); err != nil {
		t.Fatal(err)
	}
}

// After an ICE restart from either side media goes on in both directions, in the same
// streams; an offer that nobody answered harms nothing.
func TestRestartKeepsMediaGoing(t *testing.T) {
	t.Parallel()
	clip := makeClip(t)
	a, b := newSide(t, clip, caps(t, "tv"), true), newSide(t, clip, caps(t, "panel"), true)
	connect(t, a, b)
	ufrags := map[string]bool{}
	for round, turn := range [][2]*side{{a, b}, {b, a}, {a, b}} {
		for _, s := range turn {
			before := s.leg.Stats()
			waitFor(t, "sound and picture", func() bool {
				now := s.leg.Stats()
				return now.Audio.PacketsReceived > before.Audio.PacketsReceived+20 && now.Video.PacketsReceived > before.Video.PacketsReceived+20
			})
		}
		if round == 1 { // the other side's offer crosses one of ours that got lost
			if _, err := turn[1].leg.Reoffer(t.Context(), true); err != nil {
				t.Fatal(err)
			}
		}
		restart(t, turn[0].leg, turn[1].leg)
		u := turn[0].leg.(*Leg).pc.LocalDescription().SDP
		u = u[strings.Index(u, "a=ice-ufrag:"):][:30]
		if ufrags[u] {
			t.Error("the credentials are old ones: that was no restart")
		}
		ufrags[u] = true
	}
	for _, s := range []*side{a, b} {
		before := s.leg.Stats()
		waitFor(t, "sound and picture go on", func() bool {
			now := s.leg.Stats()
			return now.Audio.PacketsReceived > before.Audio.PacketsReceived+50 && now.Video.PacketsReceived > before.Video.PacketsReceived+50
		})
		if m := s.leg.Media(); len(m) != 2 || m[0].Direction != "sendrecv" || m[1].Direction != "sendrecv" {
			t.Errorf("after the restarts: %+v", m)
		}
	}
	if err := errors.Join(a.leg.Close(), b.leg.Close()); err != nil {
		t.Fatal(err)
	}
}

func TestMovedLegSaysThatItIsBroken(t *testing.T) {
	t.Parallel()
	clip := makeClip(t)
	a, b := newSide(t, clip, caps(t, "tv"), false), newSide(t, clip, caps(t, "panel"), false)
	connect(t, a, b)
	waitFor(t, "media", func() bool { return a.leg.Stats().Audio.PacketsReceived > 10 })
	used, ok := a.leg.(*Leg).sendsFrom()
	if !ok {
		t.Fatal("no path")
	}
	a.Moved([]netip.Addr{used})
	select {
	case <-a.leg.Broken():
		t.Fatal("the address is still there")
	default:
	}
	a.Moved([]netip.Addr{netip.MustParseAddr("192.0.2.1")})
	select {
	case <-a.leg.Broken():
	default:
		t.Fatal("the address is gone")
	}
}

func TestLinkLocalCandidatesStandInTheFirstSection(t *testing.T) {
	raw := "v=0\r\ns=-\r\nm=audio 9 X 0\r\na=mid:0\r\nm=video 9 X 96\r\na=mid:1\r\n"
	at := []netip.AddrPort{netip.MustParseAddrPort("[fe80::1]:4000")}
	want := "v=0\r\ns=-\r\nm=audio 9 X 0\r\na=mid:0\r\na=candidate:9000 1 udp 2113929727 fe80::1 4000 typ host\r\nm=video 9 X 96\r\na=mid:1\r\n"
	if got := addLinkLocal(raw, at); got != want {
		t.Errorf("%q", got)
	}
	if got := addLinkLocal("v=0\r\nm=audio 9 X 0\r\n", at); !strings.HasSuffix(got, "typ host\r\n") {
		t.Errorf("%q", got)
	}
	if got := addLinkLocal(raw, nil); got != raw {
		t.Errorf("%q", got)
	}
}
