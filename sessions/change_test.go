package sessions

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/emiago/sipgo/sip"

	"github.com/hallway-home/hallway/profiles"
)

func (p *phone) flowing(want string) CallInfo {
	p.house.t.Helper()
	var got CallInfo
	eventually(p.house.t, p.slug+" has "+want, func() bool {
		got = p.Calls()[len(p.Calls())-1]
		var out []string
		for _, m := range got.Media {
			out = append(out, m.Kind+" "+string(m.Direction))
		}
		return strings.Join(out, ", ") == want
	})
	return got
}

const allFlows = "audio sendrecv, video sendrecv"

// Hold by either side stops both ways, is seen on both, and is taken back.
func TestHoldAndResume(t *testing.T) {
	tv, panel, _, _ := inCall(t)
	id := tv.is(StateActive).ID
	for _, turn := range [][2]*phone{{tv, panel}, {panel, tv}} {
		holder, held := turn[0], turn[1]
		if err := holder.Hold(t.Context(), id, true); err != nil {
			t.Fatal(err)
		}
		if i := holder.flowing(""); !i.Hold || i.PeerHold {
			t.Errorf("the holder sees %+v", i)
		}
		if i := held.flowing(""); i.Hold || !i.PeerHold || i.PeerMuted {
			t.Errorf("the held side sees %+v", i)
		}
		if err := holder.Hold(t.Context(), id, false); err != nil {
			t.Fatal(err)
		}
		if i := held.flowing(allFlows); i.PeerHold {
			t.Errorf("after the hold %+v", i)
		}
		holder.flowing(allFlows)
	}
}

// Two holds are two: the call goes on when both have taken theirs back.
func TestBothHold(t *testing.T) {
	tv, panel, _, _ := inCall(t)
	id := tv.is(StateActive).ID
	for _, s := range []struct {
		p    *phone
		on   bool
		want string
	}{{tv, true, ""}, {panel, true, ""}, {tv, false, ""}, {panel, false, allFlows}} {
		if err := s.p.Hold(t.Context(), id, s.on); err != nil {
			t.Fatal(err)
		}
		tv.flowing(s.want)
		panel.flowing(s.want)
	}
}

// Muting is told, so that the other side takes silence for no fault.
func TestMuteIsTold(t *testing.T) {
	tv, panel, a, _ := inCall(t)
	id := tv.is(StateActive).ID
	if err := tv.Mute(t.Context(), id, true); err != nil {
		t.Fatal(err)
	}
	tv.flowing("audio recvonly, video sendrecv")
	if i := panel.flowing("audio sendonly, video sendrecv"); !i.PeerMuted || i.PeerHold {
		t.Errorf("%+v", i)
	}
	if err := panel.Mute(t.Context(), id, true); err != nil {
		t.Fatal(err)
	}
	if i := panel.flowing("video sendrecv"); !i.PeerMuted || i.PeerHold {
		t.Errorf("%+v", i)
	}
	for _, p := range []*phone{tv, panel} {
		if err := p.Mute(t.Context(), id, false); err != nil {
			t.Fatal(err)
		}
	}
	if i := panel.flowing(allFlows); i.PeerMuted {
		t.Errorf("%+v", i)
	}
	cut(tv, panel)
	err := tv.Mute(t.Context(), id, true)
	if err == nil || !strings.Contains(err.Error(), "Panel could not be told") {
		t.Errorf("muted without a flow: %v", err)
	}
	a.mu.Lock()
	mute := a.wish.Mute
	a.mu.Unlock()
	if !mute {
		t.Error("who cannot be told must not hear us either")
	}
	connect(tv, panel) // it is told as soon as it can be
	if i := panel.flowing("audio sendonly, video sendrecv"); !i.PeerMuted {
		t.Errorf("%+v", i)
	}
}

// A picture joins a call that began as sound: the other side sees it at once, and its own
// camera stays shut until its person opens it.
func TestPictureJoinsAndLeaves(t *testing.T) {
	h := newHouse(t, member{slug: "tv"}, member{slug: "panel", config: answers})
	tv, panel := h.phones["tv"], h.phones["panel"]
	c, err := tv.Call("panel", CallOptions{})
	if err != nil {
		t.Fatal(err)
	}
	tv.is(StateActive)
	tv.flowing("audio sendrecv")
	for _, s := range []struct {
		p          *phone
		d          profiles.Direction
		atTV, atPa string
	}{
		{tv, profiles.SendRecv, "audio sendrecv, video sendonly", "audio sendrecv, video recvonly"},
		{panel, profiles.SendRecv, allFlows, allFlows},
		{tv, profiles.RecvOnly, "audio sendrecv, video recvonly", "audio sendrecv, video sendonly"},
		{panel, profiles.Inactive, "audio sendrecv", "audio sendrecv"},
		{tv, profiles.SendRecv, "audio sendrecv", "audio sendrecv"},
	} {
		if err := s.p.Video(t.Context(), c.ID(), s.d); err != nil {
			t.Fatal(err)
		}
		tv.flowing(s.atTV)
		panel.flowing(s.atPa)
	}
}

func TestWhatCannotBeChanged(t *testing.T) {
	h := newHouse(t, member{slug: "tv"}, member{slug: "speaker", caps: sound, config: answers}, member{slug: "other"})
	tv := h.phones["tv"]
	c := tv.calls("speaker")
	tv.is(StateActive)
	if err := tv.Video(t.Context(), c.ID(), profiles.RecvOnly); !errors.Is(err, ErrNoCommonCodec) || !strings.Contains(err.Error(), "Speaker") {
		t.Errorf("a picture to a speaker: %v", err)
	}
	d := tv.calls("other")
	tv.is(StateRinging)
	if err := tv.Hold(t.Context(), d.ID(), true); !errors.Is(err, ErrNotActive) {
		t.Errorf("a call that rings: %v", err)
	}
	if err := tv.Hold(t.Context(), "none", true); !errors.Is(err, ErrNoSuchCall) {
		t.Error(err)
	}
}

// Both sides press hold at once, and answer slowly, so that the offers cross (491): each
// waits its time (RFC 3261 section 14.1) and both holds stand.
func TestHoldGlare(t *testing.T) {
	tv, panel, _, _ := inCall(t)
	id := tv.is(StateActive).ID
	for _, p := range []*phone{tv, panel} {
		p.media.slow.Store(int64(50 * time.Millisecond))
	}
	errs := make(chan error, 2)
	for _, p := range []*phone{tv, panel} {
		go func() { errs <- p.Hold(t.Context(), id, true) }()
	}
	for range 2 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	for _, p := range []*phone{tv, panel} {
		if i := p.flowing(""); !i.Hold {
			t.Errorf("%s: %+v", p.slug, i)
		}
	}
}

func TestGlarePause(t *testing.T) {
	for range 2000 {
		if p := glarePause(true); p < 2100*time.Millisecond || p > 4*time.Second || p%(10*time.Millisecond) != 0 {
			t.Fatalf("the owner of the Call-ID waits %v", p)
		}
		if p := glarePause(false); p < 0 || p > 2*time.Second || p%(10*time.Millisecond) != 0 {
			t.Fatalf("the other waits %v", p)
		}
	}
}

// dialogOf is the dialog of a phone's only call.
func dialogOf(p *phone) (*Call, *dialog) {
	c := p.live()[0]
	c.mu.Lock()
	defer c.mu.Unlock()
	return c, c.dialog
}

// An UPDATE with an offer is answered as a re-INVITE is (RFC 3311), one without changes
// nothing; before the call is accepted it is refused for now.
func TestUpdate(t *testing.T) {
	tv, panel, _, b := inCall(t)
	c, d := dialogOf(tv)
	d.leg.SetWish(Wish{Hold: true})
	offer, err := d.leg.Reoffer(t.Context(), false)
	if err != nil {
		t.Fatal(err)
	}
	res, _, err := c.inDialog(t.Context(), sip.UPDATE, d, offer)
	if err != nil {
		t.Fatal(err)
	}
	if len(res.Body()) == 0 || !strings.Contains(headerOf(res, "Allow"), "UPDATE") {
		t.Errorf("answered with %s", res)
	}
	panel.flowing("")
	before := b.agreements()
	if res, _, err = c.inDialog(t.Context(), sip.UPDATE, d, nil); err != nil || len(res.Body()) != 0 || b.agreements() != before {
		t.Errorf("an UPDATE without an offer: %v\n%s", err, res)
	}
}

func TestUpdateWhileItRings(t *testing.T) {
	h := newHouse(t, member{slug: "tv"}, member{slug: "panel"})
	tv, panel := h.phones["tv"], h.phones["panel"]
	tv.calls("panel")
	panel.is(StateIncoming)
	_, d := dialogOf(panel)
	back := &dialog{peer: panel.id, callID: d.callID, local: d.remote, remote: d.local, target: d.local, localTag: d.remoteTag, remoteTag: d.localTag}
	req := tv.request(sip.UPDATE, back, 9)
	setSDP(req, []byte("v=0\r\n"))
	res, err := tv.roundTrip(t.Context(), req)
	if err != nil || res.StatusCode != 500 || res.GetHeader("Retry-After") == nil {
		t.Errorf("%v\n%v", err, res)
	}
}

func TestWishOf(t *testing.T) {
	for _, c := range []struct {
		w    Wish
		kind string
		can  profiles.Direction
		want profiles.Direction
	}{
		{Wish{}, "audio", profiles.SendRecv, profiles.SendRecv},
		{Wish{Hold: true}, "video", profiles.RecvOnly, profiles.Inactive},
		{Wish{Mute: true}, "audio", profiles.SendRecv, profiles.RecvOnly},
		{Wish{Mute: true}, "audio", profiles.SendOnly, profiles.Inactive},
		{Wish{Mute: true}, "video", profiles.SendRecv, profiles.SendRecv},
		{Wish{Video: profiles.RecvOnly}, "video", profiles.SendRecv, profiles.RecvOnly},
		{Wish{Video: profiles.Inactive}, "audio", profiles.SendOnly, profiles.SendOnly},
		{Wish{Video: profiles.SendRecv}, "video", profiles.RecvOnly, profiles.RecvOnly},
	} {
		if got := c.w.Of(c.kind, c.can); got != c.want {
			t.Errorf("%+v of %s %s: %s, want %s", c.w, c.kind, c.can, got, c.want)
		}
	}
}

func TestTroublesAreSaid(t *testing.T) {
	both := []MediaState{{Kind: "audio", Codec: "opus", Direction: profiles.SendRecv}, {Kind: "video", Codec: "H264", Direction: profiles.SendRecv}}
	held := []MediaState{{Kind: "audio", Codec: "opus", Direction: profiles.Inactive}, {Kind: "video", Codec: "H264", Direction: profiles.Inactive}}
	type moves struct{ in, out, reached, inV, outV, reachedV bool }
	all := moves{true, true, true, true, true, true}
	for _, c := range []struct {
		what  string
		media []MediaState
		moves moves
		want  []string
	}{
		{"all flows", both, all, nil},
		{"nothing comes", both, moves{false, true, true, false, true, true}, []string{"Neither sound nor picture comes from Panel."}},
		{"no picture comes", both, moves{true, true, true, false, true, true}, []string{"No picture comes from Panel."}},
		{"we are not heard", both, moves{true, true, false, true, true, true}, []string{"No sound of this device reaches Panel."}},
		{"our microphone is dead", both, moves{true, false, false, true, true, true}, []string{"No sound comes from the camera or microphone of this device."}},
		{"on hold", held, moves{}, nil},
		{"muted", []MediaState{{Kind: "audio", Codec: "opus", Direction: profiles.RecvOnly}, both[1]}, moves{true, false, false, true, true, true}, nil},
	} {
		tr, now, s := troubles{}, time.Unix(1e6, 0), LegStats{}
		step := func(media []MediaState, m moves) []string {
			for i, st := range []*StreamStats{&s.Audio, &s.Video} {
				in, out, reached := []bool{m.in, m.inV}[i], []bool{m.out, m.outV}[i], []bool{m.reached, m.reachedV}[i]
				if in {
					st.PacketsReceived += 50
				}
				if out {
					st.PacketsSent += 50
				}
				if reached {
					st.Peer.HighestSequence += 50
				}
			}
			now = now.Add(time.Second)
			return tr.look(now, media, s, "Panel")
		}
		for range 3 {
			if got := step(both, all); got != nil {
				t.Fatalf("%s: %q before anything happened", c.what, got)
			}
		}
		for i := range 6 {
			got := step(c.media, c.moves)
			if i < 2 && got != nil {
				t.Errorf("%s: %q after %d s", c.what, got, i+1)
			}
			if i == 5 && !slices.Equal(got, c.want) {
				t.Errorf("%s: %q, want %q", c.what, got, c.want)
			}
		}
		if got := step(both, all); got != nil {
			t.Errorf("%s: %q when all flows again", c.what, got)
		}
	}
}

// A source or sink of this side that does not work is said at once, and instead of the
// sentence that nothing comes from it.
func TestTroubleOfThisSide(t *testing.T) {
	sound := []MediaState{{Kind: "audio", Codec: "opus", Direction: profiles.SendRecv}}
	tr, now, s := troubles{}, time.Unix(1e6, 0), LegStats{}
	look := func() []string {
		s.Audio.PacketsReceived += 50
		now = now.Add(time.Second)
		return tr.look(now, sound, s, "Panel")
	}
	look()
	s.Sink = "The loudspeaker is gone."
	if got := look(); !slices.Equal(got, []string{"The loudspeaker is gone."}) {
		t.Errorf("%q", got)
	}
	s.Sink, s.Source = "", "The microphone is gone."
	for range 5 {
		look()
	}
	if got := look(); !slices.Equal(got, []string{"The microphone is gone."}) {
		t.Errorf("%q", got)
	}
	s.Source = ""
	if got := look(); len(got) != 1 || got[0] != "No sound comes from the camera or microphone of this device." {
		t.Errorf("%q", got)
	}
}

// What does not get through is seen in the call's state, as an event, and goes when it does.
func TestTroubleIsAnEvent(t *testing.T) {
	tv, _, a, _ := inCall(t)
	events := tv.Watch(t.Context())
	now := time.Now()
	for i := range 5 {
		tv.examine(now.Add(time.Duration(i) * time.Second))
	}
	told := func(want int) {
		t.Helper()
		for {
			select {
			case e := <-events:
				if len(e.Trouble) == want {
					return
				}
			case <-time.After(5 * time.Second):
				t.Fatalf("no event with %d troubles", want)
			}
		}
	}
	told(2)
	if got := tv.Calls()[0].Trouble; got[0] != "Neither sound nor picture comes from Panel." {
		t.Errorf("%q", got)
	}
	for i := range 5 {
		a.mu.Lock()
		for _, s := range []*StreamStats{&a.stats.Audio, &a.stats.Video} {
			s.PacketsReceived++
			s.PacketsSent++
			s.Peer.HighestSequence++
		}
		a.mu.Unlock()
		tv.examine(now.Add(time.Duration(10+i) * time.Second))
	}
	told(0)
}
