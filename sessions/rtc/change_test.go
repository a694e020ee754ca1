package rtc

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/hallway-home/hallway/profiles"
	"github.com/hallway-home/hallway/sessions"
	"github.com/hallway-home/hallway/sessions/media"
)

// change gives one side another wish and agrees on it.
func change(t *testing.T, from, to *side, w sessions.Wish) {
	t.Helper()
	from.leg.SetWish(w)
	offer, err := from.leg.Reoffer(t.Context(), false)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := to.leg.Answer(t.Context(), offer)
	if err != nil {
		t.Fatal(err)
	}
	if err := from.leg.SetAnswer(t.Context(), answer); err != nil {
		t.Fatal(err)
	}
}

func both(t *testing.T, what string, sides ...*side) {
	t.Helper()
	for _, s := range sides {
		before := s.leg.Stats()
		waitFor(t, what, func() bool {
			now := s.leg.Stats()
			return now.Audio.PacketsReceived > before.Audio.PacketsReceived+20 && now.Video.PacketsReceived > before.Video.PacketsReceived+20
		})
	}
}

// still reports whether a counter stands still for a while, after what was under way.
func still(t *testing.T, what string, get func() uint64) {
	t.Helper()
	last, since := get(), time.Now()
	waitFor(t, what+" stops", func() bool {
		if n := get(); n != last {
			last, since = n, time.Now()
		}
		return time.Since(since) > 300*time.Millisecond
	})
}

// On hold nothing is sent either way and both sources are free; afterwards both sides see
// and hear again in the same streams, and neither counts the pause as loss.
func TestHoldIsSilentAndNoLoss(t *testing.T) {
	t.Parallel()
	clip := makeClip(t)
	a, b := newSide(t, clip, caps(t, "tv"), true), newSide(t, clip, caps(t, "panel"), true)
	connect(t, a, b)
	both(t, "sound and picture", a, b)
	for _, turn := range [][2]*side{{a, b}, {b, a}} {
		change(t, turn[0], turn[1], sessions.Wish{Hold: true})
		for _, s := range []*side{a, b} {
			still(t, "sending", func() uint64 { st := s.leg.Stats(); return st.Audio.PacketsSent + st.Video.PacketsSent })
			l := s.leg.(*Leg)
			waitFor(t, "the camera is free", func() bool { l.opening.Lock(); defer l.opening.Unlock(); return l.feed == nil })
			for _, m := range s.leg.Media() {
				if m.Direction != profiles.Inactive {
					t.Errorf("on hold %+v", m)
				}
			}
		}
		change(t, turn[0], turn[1], sessions.Wish{})
		both(t, "sound and picture after the hold", a, b)
	}
	for _, s := range []*side{a, b} {
		waitFor(t, "reports", func() bool { return s.leg.Stats().Audio.Peer.Reports > 0 && s.leg.Stats().Video.Peer.Reports > 0 })
		st := s.leg.Stats()
		if st.Audio.Lost > 3 || st.Video.Lost > 3 || st.Audio.Peer.Lost > 3 || st.Video.Peer.Lost > 3 || st.Audio.Duplicates+st.Video.Duplicates > 0 {
			t.Errorf("the pauses count as loss: %+v", st)
		}
		if err := s.leg.Close(); err != nil {
			t.Fatal(err)
		}
		if p := probe(t, s.file); len(p.Streams) != 2 {
			t.Errorf("one recording, before and after: %+v", p)
		}
	}
}

// Muting stops the sound at once, before the other side agrees, and is no loss either.
func TestMuteStopsSoundAlone(t *testing.T) {
	t.Parallel()
	clip := makeClip(t)
	a, b := newSide(t, clip, caps(t, "tv"), false), newSide(t, clip, caps(t, "panel"), false)
	connect(t, a, b)
	both(t, "sound and picture", a, b)
	a.leg.SetWish(sessions.Wish{Mute: true})
	sent := a.leg.Stats().Audio.PacketsSent
	still(t, "our sound", func() uint64 { return a.leg.Stats().Audio.PacketsSent })
	if n := a.leg.Stats().Audio.PacketsSent; n > sent+1 {
		t.Errorf("%d packets of sound left after muting", n-sent)
	}
	change(t, a, b, sessions.Wish{Mute: true})
	if m := b.leg.Media(); m[0].Direction != profiles.SendOnly || m[1].Direction != profiles.SendRecv {
		t.Errorf("the other side has %+v", m)
	}
	was := b.leg.Stats().Video.PacketsReceived
	waitFor(t, "the picture goes on", func() bool { return b.leg.Stats().Video.PacketsReceived > was+30 })
	change(t, a, b, sessions.Wish{})
	both(t, "sound and picture again", a, b)
	if st := b.leg.Stats(); st.Audio.Lost > 3 {
		t.Errorf("the muted time counts as loss: %+v", st.Audio)
	}
}

// A picture joins a call of sound, first from one side, then from both, and leaves. The
// recording of each part plays.
func TestPictureJoinsACallOfSound(t *testing.T) {
	t.Parallel()
	clip := makeClip(t)
	a, b := newSide(t, clip, caps(t, "tv"), true), newSide(t, clip, caps(t, "panel"), true)
	a.leg.SetWish(sessions.Wish{Video: profiles.Inactive})
	connect(t, a, b)
	waitFor(t, "sound", func() bool {
		return b.leg.Stats().Audio.PacketsReceived > 50 && a.leg.Stats().Audio.PacketsReceived > 50
	})
	if n := len(b.leg.Media()); n != 1 {
		t.Fatalf("%d kinds of media", n)
	}
	b.leg.SetWish(sessions.Wish{Video: profiles.RecvOnly})
	if _, err := a.leg.Reoffer(t.Context(), false); err != nil { // gets lost: harms nothing
		t.Fatal(err)
	}
	change(t, a, b, sessions.Wish{})
	waitFor(t, "the picture comes", func() bool { return b.leg.Stats().Video.PacketsReceived > 50 })
	if n := a.leg.Stats().Video.PacketsReceived + b.leg.Stats().Video.PacketsSent; n != 0 {
		t.Errorf("the other camera sent %d packets that nobody allowed", n)
	}
	change(t, b, a, sessions.Wish{})
	both(t, "both pictures", a, b)
	change(t, a, b, sessions.Wish{Video: profiles.Inactive})
	still(t, "the picture", func() uint64 { return a.leg.Stats().Video.PacketsSent + b.leg.Stats().Video.PacketsSent })
	was := b.leg.Stats().Audio.PacketsReceived
	waitFor(t, "the sound goes on", func() bool { return b.leg.Stats().Audio.PacketsReceived > was+50 })
	restart(t, b.leg, a.leg) // an ICE restart keeps what each wants
	if m := a.leg.Media(); m[0].Direction != profiles.SendRecv || m[1].Direction != profiles.Inactive {
		t.Errorf("after a restart %+v", m)
	}
	if err := b.leg.Close(); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(filepath.Dir(b.file), "*.mkv"))
	if err != nil || len(files) != 3 {
		t.Fatalf("sound, both, sound are three recordings: %v %v", files, err)
	}
	for i, f := range files {
		if p := probe(t, f); len(p.Streams) == 0 {
			t.Errorf("recording %d is empty", i)
		}
	}
}

// A call with a speaker, whose picture was refused for good, is held and taken back.
func TestHoldWithARejectedSection(t *testing.T) {
	t.Parallel()
	clip := makeClip(t)
	a, b := newSide(t, clip, caps(t, "tv"), false), newSide(t, clip, caps(t, "speaker"), false)
	connect(t, a, b)
	for _, w := range []sessions.Wish{{Hold: true}, {}} {
		change(t, a, b, w)
		change(t, b, a, sessions.Wish{})
	}
	was := b.leg.Stats().Audio.PacketsReceived
	waitFor(t, "sound", func() bool { return b.leg.Stats().Audio.PacketsReceived > was+50 })
	if m := b.leg.Media(); m[0].Direction != profiles.SendRecv && m[0].Direction != profiles.RecvOnly {
		t.Errorf("%+v", m)
	}
}

// Each side learns from the other's reports what it receives, and how long the way is.
func TestReportsOfTheOtherSide(t *testing.T) {
	t.Parallel()
	clip := makeClip(t)
	a, b := newSide(t, clip, caps(t, "tv"), false), newSide(t, clip, caps(t, "panel"), false)
	connect(t, a, b)
	for _, s := range []*side{a, b} {
		waitFor(t, "reports with a round trip", func() bool {
			st := s.leg.Stats()
			return st.Audio.Peer.Reports > 2 && st.Video.Peer.Reports > 2 && st.Audio.Peer.RTT > 0
		})
		if p := s.leg.Stats().Audio.Peer; p.HighestSequence == 0 || p.Lost > 3 || p.RTT > time.Second || p.JitterMs > 100 {
			t.Errorf("%+v", p)
		}
	}
}

// A sink that cannot be opened when the picture joins ends the leg with the reason.
func TestPictureThatCannotBeShownEndsTheLeg(t *testing.T) {
	t.Parallel()
	clip := makeClip(t)
	a, b := newSide(t, clip, caps(t, "tv"), false), newSide(t, clip, caps(t, "panel"), true)
	a.leg.SetWish(sessions.Wish{Video: profiles.Inactive})
	connect(t, a, b)
	waitFor(t, "sound", func() bool { return b.leg.Stats().Audio.PacketsReceived > 20 })
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	b.cfg.Endpoint = media.NewBox(media.SourceSpec{Clip: clip}, media.SinkSpec{Record: filepath.Join(file, "no-folder")}, nil)
	change(t, a, b, sessions.Wish{})
	select {
	case <-b.leg.Done():
	case <-time.After(5 * time.Second):
		t.Fatal("the leg goes on with a picture that nobody sees")
	}
}
