package sessions

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/emiago/sipgo/sip"
)

func timers(expires, least time.Duration) func(*Config) {
	return func(c *Config) { c.SessionExpires, c.MinSE, c.AutoAnswer = expires, least, true }
}

func timerCall(t *testing.T, tvTimers, panelTimers func(*Config)) (tv, panel *phone) {
	t.Helper()
	h := newHouse(t, member{slug: "tv", config: tvTimers}, member{slug: "panel", config: panelTimers})
	tv, panel = h.phones["tv"], h.phones["panel"]
	tv.calls("panel")
	tv.is(StateActive)
	panel.is(StateActive)
	return tv, panel
}

// The caller refreshes at half of the interval, without an offer; both sides go on long
// after the interval's end.
func TestSessionIsRefreshed(t *testing.T) {
	tv, panel := timerCall(t, timers(2*time.Second, time.Second), timers(time.Hour, time.Second))
	c, d := dialogOf(tv)
	if timer := c.timer(d); !timer.ours || timer.interval != 2*time.Second {
		t.Fatalf("the caller has %+v", timer)
	}
	pc, pd := dialogOf(panel)
	first := pc.timer(pd)
	if first.ours || first.interval != 2*time.Second {
		t.Fatalf("the called has %+v", first)
	}
	eventually(t, "two intervals pass", func() bool { return pc.timer(pd).since.Sub(first.since) > 2500*time.Millisecond })
	tv.is(StateActive)
	panel.is(StateActive)
	if n := tv.media.legs[0].agreements(); n != 1 {
		t.Errorf("media were negotiated %d times", n)
	}
}

// A side that hears no refresh ends the call, in words, and tells the other one.
func TestSessionThatNobodyRefreshesEnds(t *testing.T) {
	tv, panel := timerCall(t, timers(time.Hour, time.Second), timers(time.Hour, time.Second))
	c, d := dialogOf(panel)
	c.timed(d, sessionTimer{interval: time.Second, since: time.Now()}) // tv knows of no such hurry
	if got := panel.is(StateEnded); got.Code != 408 || !strings.Contains(got.Reason, "Tv did not confirm") {
		t.Errorf("%+v", got)
	}
	if got := tv.is(StateEnded); got.Code != 408 || !strings.Contains(got.Reason, "did not confirm") {
		t.Errorf("the other side sees %+v", got)
	}
}

// A peer that has forgotten the call answers the refresh with 481, and the call ends.
func TestRefreshOfAForgottenCall(t *testing.T) {
	tv, panel := timerCall(t, timers(2*time.Second, time.Second), timers(time.Hour, time.Second))
	_, pd := dialogOf(panel)
	panel.mu.Lock()
	delete(panel.dialogs, pd.key())
	panel.mu.Unlock()
	if got := tv.is(StateEnded); got.Code != 481 || !strings.Contains(got.Reason, "no longer knows") {
		t.Errorf("%+v", got)
	}
}

// An interval below the other side's least is refused with 422 and asked for anew, longer.
func TestIntervalTooSmall(t *testing.T) {
	tv, panel := timerCall(t, timers(2*time.Second, time.Second), timers(time.Hour, 200*time.Second))
	for _, p := range []*phone{tv, panel} {
		c, d := dialogOf(p)
		if timer := c.timer(d); timer.interval != 200*time.Second {
			t.Errorf("%s: %+v", p.slug, timer)
		}
	}
	c, d := dialogOf(tv)
	d.minSE = 0 // a re-INVITE is refused and asked anew, too
	if _, _, err := c.inDialog(t.Context(), sip.UPDATE, d, nil); err != nil || d.minSE != 200*time.Second {
		t.Errorf("%v, %v", err, d.minSE)
	}
}

func TestAnswerTimer(t *testing.T) {
	a := &Agent{cfg: Config{SessionExpires: 1800 * time.Second, MinSE: 90 * time.Second}}
	for _, c := range []struct {
		what      string
		headers   string
		interval  time.Duration
		refresher string
		ours      bool
		code      int
	}{
		{"no timer", "Supported: timer", 0, "", false, 0},
		{"plain", "Supported: timer\r\nSession-Expires: 600", 600 * time.Second, "uac", false, 0},
		{"compact form", "k: timer\r\nx: 600;refresher=uas", 600 * time.Second, "uas", true, 0},
		{"not supported by the caller", "Session-Expires: 600;refresher=uac", 600 * time.Second, "uas", true, 0},
		{"too long: lowered", "Supported: 100rel, timer\r\nSession-Expires: 9000;refresher=uac", 1800 * time.Second, "uac", false, 0},
		{"lowered no further than asked", "Supported: timer\r\nSession-Expires: 9000\r\nMin-SE: 4000", 4000 * time.Second, "uac", false, 0},
		{"too small", "Supported: timer\r\nSession-Expires: 60", 0, "", false, 422},
		{"too small, but it cannot know", "Session-Expires: 60", 60 * time.Second, "uas", true, 0},
		{"nonsense", "Supported: timer\r\nSession-Expires: soon", 0, "", false, 0},
		{"negative", "Supported: timer\r\nSession-Expires: -5", 0, "", false, 0},
		{"huge", "Supported: timer\r\nSession-Expires: 4294967295\r\nMin-SE: 4294967295", maxExpires, "uac", false, 0},
	} {
		msg, err := sip.ParseMessage([]byte("INVITE sip:x@y SIP/2.0\r\nVia: SIP/2.0/TLS a;branch=z9hG4bKx\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:x@y>\r\nCall-ID: 1\r\nCSeq: 1 INVITE\r\n" + c.headers + "\r\nContent-Length: 0\r\n\r\n"))
		if err != nil {
			t.Fatal(err)
		}
		timer, refresher, err := a.answerTimer(msg.(*sip.Request))
		var r refusal
		if errors.As(err, &r); r.code != c.code || timer.interval != c.interval || refresher != c.refresher || timer.ours != c.ours {
			t.Errorf("%s: %+v %q %v", c.what, timer, refresher, err)
		}
	}
}

// Times of RFC 4028 section 10.
func TestWhenATimerIsDue(t *testing.T) {
	start := time.Unix(1e6, 0)
	for _, c := range []struct {
		interval, refresh, expire time.Duration
	}{{1800 * time.Second, 900 * time.Second, 1768 * time.Second}, {90 * time.Second, 45 * time.Second, 60 * time.Second}} {
		s := sessionTimer{interval: c.interval, since: start}
		if s.refreshAt() != start.Add(c.refresh) || s.expireAt() != start.Add(c.expire) {
			t.Errorf("%v: refresh %v, expire %v", c.interval, s.refreshAt().Sub(start), s.expireAt().Sub(start))
		}
	}
}

func FuzzSessionTimer(f *testing.F) {
	f.Add("600;refresher=uac", "90", "timer")
	f.Add("99999999999999999999", "-1", ",,")
	a := &Agent{cfg: Config{SessionExpires: defaultExpires, MinSE: defaultMinSE}}
	f.Fuzz(func(t *testing.T, expires, least, supported string) {
		req := sip.NewRequest(sip.INVITE, sip.Uri{Scheme: "sip", Host: "x"})
		req.AppendHeader(sip.NewHeader("Session-Expires", expires))
		req.AppendHeader(sip.NewHeader("Min-SE", least))
		req.AppendHeader(sip.NewHeader("Supported", supported))
		timer, refresher, err := a.answerTimer(req)
		if timer.interval < 0 || timer.interval > maxExpires || err == nil && timer.interval > 0 && refresher != "uac" && refresher != "uas" {
			t.Fatalf("%+v %q %v", timer, refresher, err)
		}
	})
}
