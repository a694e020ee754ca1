package sessions

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/emiago/sipgo/sip"

	"github.com/hallway-home/hallway/devices"
	"github.com/hallway-home/hallway/profiles"
)

func TestTwoPartyCall(t *testing.T) {
	h := newHouse(t, member{slug: "tv"}, member{slug: "panel"})
	tv, panel := h.phones["tv"], h.phones["panel"]
	tv.calls("panel")
	rings := panel.is(StateIncoming)
	tv.is(StateRinging)
	if n := tv.media.starts.Load() + panel.media.starts.Load(); n != 0 {
		t.Fatalf("%d cameras and microphones opened before anybody accepted", n)
	}
	if err := panel.Answer(rings.ID); err != nil {
		t.Fatal(err)
	}
	a, b := tv.is(StateActive), panel.is(StateActive)
	if a.ID != b.ID || a.Peer != "panel" || b.Peer != "tv" || len(a.Media) != 2 || len(b.Media) != 2 {
		t.Fatalf("caller %+v\ncallee %+v", a, b)
	}
	eventually(t, "both legs start", func() bool { return tv.media.open.Load() == 1 && panel.media.open.Load() == 1 })
	if err := panel.Hangup(b.ID); err != nil {
		t.Fatal(err)
	}
	if got := tv.is(StateEnded).Reason; got != "Panel hung up." {
		t.Errorf("caller sees %q", got)
	}
	if got := panel.is(StateEnded).Reason; got != "Hung up here." {
		t.Errorf("callee sees %q", got)
	}
	eventually(t, "cameras are free", func() bool { return tv.media.open.Load() == 0 && panel.media.open.Load() == 0 })
	for _, p := range []*phone{tv, panel} {
		for _, c := range p.Agent.calls {
			c.mu.Lock()
			if c.dialog != nil || c.incoming != nil {
				t.Error("the history holds on to the media of an ended call")
			}
			c.mu.Unlock()
		}
	}
}

func TestCallerHangsUp(t *testing.T) {
	h := newHouse(t, member{slug: "tv"}, member{slug: "panel", config: answers})
	tv, panel := h.phones["tv"], h.phones["panel"]
	c := tv.calls("sip:panel@somewhere")
	tv.is(StateActive)
	if err := tv.Hangup(c.ID()); err != nil {
		t.Fatal(err)
	}
	if got := panel.is(StateEnded).Reason; got != "Tv hung up." {
		t.Errorf("callee sees %q", got)
	}
}

func TestHowCallsFail(t *testing.T) {
	h := newHouse(t, member{slug: "tv"}, member{slug: "panel", config: func(c *Config) { c.Behaviour.RingTimeout = 50 * time.Millisecond }},
		member{slug: "busy", config: answers}, member{slug: "off"}, member{slug: "other"})
	tv, panel := h.phones["tv"], h.phones["panel"]
	t.Run("nobody answers", func(t *testing.T) {
		tv.calls("panel")
		if got := tv.is(StateEnded); got.Code != 480 || got.Reason != "Nobody answered at Panel." {
			t.Errorf("caller sees %+v", got)
		}
		if got := panel.is(StateEnded); !got.Missed {
			t.Errorf("callee sees no missed call: %+v", got)
		}
	})
	t.Run("declined", func(t *testing.T) {
		tv.calls("other")
		other := h.phones["other"]
		if err := other.Decline(other.is(StateIncoming).ID); err != nil {
			t.Fatal(err)
		}
		if got := tv.is(StateEnded); got.Code != 603 || got.Reason != "Other declined the call." {
			t.Errorf("caller sees %+v", got)
		}
		if got := other.is(StateEnded); got.Missed || got.Reason != "Declined here." {
			t.Errorf("callee sees %+v", got)
		}
	})
	t.Run("busy", func(t *testing.T) {
		c := h.phones["other"].calls("busy")
		h.phones["busy"].is(StateActive)
		tv.calls("busy")
		if got := tv.is(StateEnded); got.Code != 486 || got.Reason != "Busy is busy." {
			t.Errorf("caller sees %+v", got)
		}
		_ = h.phones["other"].Hangup(c.ID())
		h.phones["busy"].is(StateEnded)
	})
	t.Run("unreachable", func(t *testing.T) {
		cut(tv, h.phones["off"])
		start := time.Now()
		tv.calls("off")
		if got := tv.is(StateEnded); got.Code != 503 || !strings.Contains(got.Reason, "cannot be reached") || time.Since(start) > 4*time.Second {
			t.Errorf("after %v the caller sees %+v", time.Since(start), got)
		}
	})
	t.Run("unknown name", func(t *testing.T) {
		if _, err := tv.Call("nowhere", CallOptions{}); !errors.Is(err, ErrUnknown) {
			t.Error(err)
		}
	})
	t.Run("oneself", func(t *testing.T) {
		if _, err := tv.Call("tv", CallOptions{}); !errors.Is(err, ErrAlone) {
			t.Error(err)
		}
	})
}

func TestCancelledWhileRinging(t *testing.T) {
	h := newHouse(t, member{slug: "tv"}, member{slug: "panel"})
	tv, panel := h.phones["tv"], h.phones["panel"]
	c := tv.calls("panel")
	tv.is(StateRinging)
	if err := tv.Hangup(c.ID()); err != nil {
		t.Fatal(err)
	}
	if got := panel.is(StateEnded); !got.Missed || got.Reason != "Tv gave up calling." {
		t.Errorf("callee sees %+v", got)
	}
}

// TestA19 is the capability match: what cannot work is refused before anything rings.
func TestA19NoCommonCodecRingsNowhere(t *testing.T) {
	h := newHouse(t, member{slug: "tv"}, member{slug: "panel"})
	tv, panel := h.phones["tv"], h.phones["panel"]
	panel.media.noCodec.Store(true)
	events := panel.Watch(t.Context())
	tv.calls("panel")
	if got := tv.is(StateEnded); got.Code != 488 || !strings.Contains(got.Reason, "no common codec") {
		t.Errorf("caller sees %+v", got)
	}
	select {
	case e := <-events:
		t.Errorf("the callee's event stream shows %+v", e)
	default:
	}
	if calls := panel.Calls(); len(calls) != 0 {
		t.Errorf("the callee lists %+v", calls)
	}
}

func TestA19WhatFlows(t *testing.T) {
	h := newHouse(t, member{slug: "tv"}, member{slug: "speaker", caps: sound, config: answers}, member{slug: "cam", caps: camera, config: answers})
	tv := h.phones["tv"]
	for _, c := range []struct {
		to   string
		want []MediaState
	}{
		{"speaker", []MediaState{{Kind: "audio", Codec: "opus", Direction: profiles.SendRecv}}},
		{"cam", []MediaState{{Kind: "audio", Codec: "opus", Direction: profiles.RecvOnly}, {Kind: "video", Codec: "H264", Direction: profiles.RecvOnly}}},
	} {
		call := tv.calls(c.to)
		eventually(t, "call to "+c.to, func() bool { return call.Info().State == StateActive && len(call.Info().Media) > 0 })
		got := call.Info().Media
		if len(got) != len(c.want) {
			t.Errorf("to %s: %+v", c.to, got)
			continue
		}
		for i := range got {
			if got[i].Codecs = nil; !reflect.DeepEqual(got[i], c.want[i]) {
				t.Errorf("to %s: %+v, want %+v", c.to, got[i], c.want[i])
			}
		}
		_ = tv.Hangup(call.ID())
	}
}

func TestRoomFirstAcceptWins(t *testing.T) {
	h := newHouse(t, member{slug: "tv"}, member{slug: "one", room: "kitchen"}, member{slug: "two", room: "kitchen"}, member{slug: "three", room: "kitchen"})
	tv, two := h.phones["tv"], h.phones["two"]
	tv.calls("kitchen")
	for _, s := range []string{"one", "two", "three"} {
		h.phones[s].is(StateIncoming)
	}
	if err := two.Answer(two.is(StateIncoming).ID); err != nil {
		t.Fatal(err)
	}
	if got := tv.is(StateActive); got.Peer != "two" {
		t.Errorf("%+v", got)
	}
	for _, s := range []string{"one", "three"} {
		if got := h.phones[s].is(StateEnded); got.Missed || got.Reason != "Two took it." || got.TakenBy != "two" {
			t.Errorf("%s sees %+v", s, got)
		}
		if h.phones[s].media.starts.Load() != 0 {
			t.Errorf("%s opened its camera", s)
		}
	}
	if len(two.Calls()) != 1 || two.is(StateActive).Peer != "tv" {
		t.Error("the winner lost its call")
	}
}

// Who took a call is said by its name in the home; what is no name of the home is not shown.
func TestTakenBy(t *testing.T) {
	h := newHouse(t, member{slug: "tv"}, member{slug: "one"})
	a, home := h.phones["tv"].Agent, h.roster.Home
	for value, want := range map[string]string{
		ReasonElsewhere(devices.AOR{Slug: "one", Home: home}).Value():                        "One took it.",
		ReasonElsewhere(devices.AOR{}).Value():                                               "Answered on another device.",
		ReasonElsewhere(devices.AOR{Slug: "nobody", Home: home}).Value():                     "Answered on another device.",
		ReasonElsewhere(devices.AOR{Slug: "one", Home: devices.HomeID{1}}).Value():           "Answered on another device.",
		`SIP;cause=200;text="Call completed elsewhere";by="Send money to <b>"`:               "Answered on another device.",
		`SIP;cause=200;text="Call completed elsewhere";by=` + strings.Repeat("x", 100):       "Answered on another device.",
		`SIP;cause=200;text="Call completed elsewhere";by="sip:one@` + home.Domain():         "One took it.",
		`SIP;cause=487;text="The caller is gone.";by="sip:one@` + home.Domain() + `"`:        "",
		`SIP;cause=503;text="a";by="sip:one@` + home.Domain() + `";more="Call is completed"`: "",
	} {
		req := sip.NewRequest(sip.CANCEL, sip.Uri{})
		req.AppendHeader(sip.NewHeader("Reason", value))
		got := ""
		if by, ok := a.takenBy(req); ok {
			got = a.takenWords(by)
		}
		if got != want {
			t.Errorf("%s: %q, want %q", value, got, want)
		}
	}
	if _, ok := a.takenBy(sip.NewRequest(sip.CANCEL, sip.Uri{})); ok {
		t.Error("without a reason nobody took it")
	}
}

// TestRoomBothAccept: two 200s at once leave one call, and the later device is told.
func TestRoomBothAccept(t *testing.T) {
	for range 10 {
		h := newHouse(t, member{slug: "tv"}, member{slug: "one", room: "kitchen", config: answers}, member{slug: "two", room: "kitchen", config: answers})
		tv := h.phones["tv"]
		tv.calls("kitchen")
		got := tv.is(StateActive)
		loser := "one"
		if got.Peer == "one" {
			loser = "two"
		}
		if l := h.phones[loser]; len(l.Calls()) > 0 {
			if e := l.is(StateEnded); e.Reason != map[string]string{"one": "One", "two": "Two"}[got.Peer]+" took it." || e.TakenBy != got.Peer || e.Missed {
				t.Errorf("the loser sees %+v", e)
			}
		}
		if w := h.phones[got.Peer].is(StateActive); w.Peer != "tv" {
			t.Errorf("%+v", w)
		}
		tv.stop()
	}
}

func TestRoomWithoutCallerItself(t *testing.T) {
	h := newHouse(t, member{slug: "one", room: "kitchen"}, member{slug: "two", room: "kitchen", config: answers})
	h.phones["one"].calls("kitchen")
	if got := h.phones["one"].is(StateActive); got.Peer != "two" || len(got.Branches) != 1 {
		t.Errorf("%+v", got)
	}
}

func TestMediaFailureEndsBothSides(t *testing.T) {
	h := newHouse(t, member{slug: "tv"}, member{slug: "panel", config: answers})
	tv, panel := h.phones["tv"], h.phones["panel"]
	tv.calls("panel")
	tv.is(StateActive)
	eventually(t, "media runs", func() bool { return tv.media.open.Load() == 1 && panel.media.open.Load() == 1 })
	tv.media.fail(ErrMediaFailed)
	if got := tv.is(StateEnded).Reason; !strings.Contains(got, ErrMediaFailed.Error()) {
		t.Errorf("caller sees %q", got)
	}
	panel.is(StateEnded)
}

func TestFlowComesBack(t *testing.T) {
	h := newHouse(t, member{slug: "tv"}, member{slug: "panel", config: answers})
	tv, panel := h.phones["tv"], h.phones["panel"]
	tv.calls("panel")
	tv.is(StateActive)
	panel.is(StateActive)
	cut(tv, panel)
	tv.checkFlows()
	panel.checkFlows()
	connect(tv, panel)
	tv.checkFlows()
	if tv.is(StateActive).State != StateActive || panel.is(StateActive).State != StateActive {
		t.Fatal("a flow that came back did not keep the call")
	}
	if err := panel.Hangup(panel.is(StateActive).ID); err != nil {
		t.Fatal(err)
	}
	if got := tv.is(StateEnded).Reason; got != "Panel hung up." {
		t.Errorf("after the flow came back the caller sees %q", got)
	}
}

func TestRemovedMemberLosesItsCalls(t *testing.T) {
	h := newHouse(t, member{slug: "tv"}, member{slug: "panel", config: answers})
	tv := h.phones["tv"]
	tv.calls("panel")
	tv.is(StateActive)
	h.remove("panel")
	tv.checkFlows()
	if got := tv.is(StateEnded).Reason; !strings.Contains(got, "no longer belongs") {
		t.Errorf("%q", got)
	}
}

// The beginning of an ID names a call only while it is unique.
func TestBeginningOfACallID(t *testing.T) {
	h := newHouse(t, member{slug: "tv"})
	tv := h.phones["tv"]
	for _, id := range []string{"abcd11", "abcd22"} {
		if err := tv.add(tv.newCall(id, "out", StateEnded, selfOf(t, tv).AOR, selfOf(t, tv).AOR)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := tv.Get("abcd"); err == nil || !strings.Contains(err.Error(), "2 calls") {
		t.Errorf("an ambiguous beginning: %v", err)
	}
	if c, err := tv.Get("abcd1"); err != nil || c.ID != "abcd11" {
		t.Errorf("%+v %v", c, err)
	}
}

// What the policy of the called device says reaches the person who calls.
func TestPolicySpeaksToTheCaller(t *testing.T) {
	h := newHouse(t, member{slug: "tv"}, member{slug: "nursery", config: func(c *Config) { c.Policy = noCalls{} }})
	h.phones["tv"].calls("nursery")
	if got := h.phones["tv"].is(StateEnded); got.Code != 403 || got.Reason != "Nursery does not take the call: Not Before Eight." {
		t.Errorf("%+v", got)
	}
	if n := len(h.phones["nursery"].Calls()); n != 0 {
		t.Errorf("the nursery noticed %d calls", n)
	}
	for phrase, want := range map[string]string{"": "takes", "Forbidden": "takes", "a\x1b[2Jb": "a[2Jb", strings.Repeat("x", 999): "xxx"} {
		got := outcome{code: 403, phrase: phrase}.words("It")
		if want = strings.Replace(want, "takes", "does not take calls", 1); !strings.Contains(got, want) || len(got) > 300 || strings.Contains(got, "\x1b") {
			t.Errorf("%q became %q", phrase, got)
		}
	}
}
