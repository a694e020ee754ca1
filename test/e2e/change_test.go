package e2e

import (
	"strings"
	"testing"
	"time"
)

// counts is what a side has received and sent so far.
func counts(n *node, id string) (sound, picture, sent int) {
	s := n.call(id).Stats
	return s.Audio.Received, s.Video.Received, s.Audio.Sent + s.Video.Sent
}

// comes waits until a side receives more sound and picture than before.
func comes(n *node, id string, within time.Duration) time.Duration {
	n.t.Helper()
	sound, picture, _ := counts(n, id)
	return n.eventually(within, "sound and picture come", func() bool {
		s, p, _ := counts(n, id)
		return s > sound+10 && p > picture+10
	})
}

// quiet waits until nothing arrives any more, and checks that it stays so.
func quiet(t *testing.T, n *node, id string) {
	t.Helper()
	last, _, _ := counts(n, id)
	since := time.Now()
	n.eventually(3*time.Second, "it is quiet", func() bool {
		if s, p, _ := counts(n, id); s+p != last {
			last, since = s+p, time.Now()
		}
		return time.Since(since) > 500*time.Millisecond
	})
}

// Hold, mute and the picture, by the command line of either side: each is seen at both,
// stops and starts what it says, and leaves no trace of loss or trouble.
func TestA22_HoldAndResume(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	file := clip(t, 440)
	tv := newNode(t, l, "TV", "tv", "", "--source-clip", file).start().found()
	panel := newNode(t, l, "Panel", "panel", "", "--source-clip", file)
	tv.invite(panel)
	id := active(t, tv, panel)
	for _, turn := range [][2]*node{{tv, panel}, {panel, tv}} {
		holder, held := turn[0], turn[1]
		if c := ask[call](holder, "hold"); !c.Hold {
			t.Errorf("the holder has %+v", c)
		}
		held.eventually(2*time.Second, "it sees the hold", func() bool { return held.call(id).PeerHold })
		quiet(t, tv, id)
		quiet(t, panel, id)
		stays(t, 4*time.Second, "a held call has no trouble", func() bool { return len(tv.call(id).Trouble)+len(panel.call(id).Trouble) == 0 })
		start := time.Now()
		holder.run("resume")
		for _, n := range turn {
			comes(n, id, 5*time.Second)
		}
		t.Logf("held by %s, back on both after %v", holder.name, time.Since(start).Round(time.Millisecond))
	}
	tv.run("mute", id)
	panel.eventually(2*time.Second, "it sees that the TV is muted", func() bool { return panel.call(id).PeerMuted && !panel.call(id).PeerHold })
	before, _, _ := counts(panel, id)
	stays(t, 4*time.Second, "silence is no trouble", func() bool { return len(panel.call(id).Trouble) == 0 })
	if after, _, _ := counts(panel, id); after > before+2 {
		t.Errorf("%d packets of sound came from a muted device", after-before)
	}
	tv.run("unmute")
	comes(panel, id, 5*time.Second)
	for _, n := range []*node{tv, panel} {
		c := n.call(id)
		if c.Hold || c.PeerHold || c.Muted || c.PeerMuted || c.Stats.Audio.Lost+c.Stats.Video.Lost > 5 {
			t.Errorf("%s: %+v", n.name, c)
		}
	}
	tv.run("hangup", id)
	if out, code := tv.try("hold", id); code == 0 || !strings.Contains(out, "not running") {
		t.Errorf("hold of an ended call: exit %d: %s", code, out)
	}
}

// A picture joins a call of sound and leaves it. The other side's camera, a child process
// here, does not send before its own person says so.
func TestA22_PictureJoinsAndLeaves(t *testing.T) {
	l := newLab(t)
	tv := newNode(t, l, "TV", "tv", "", "--source-clip", clip(t, 440)).start().found()
	panel := newNode(t, l, "Panel", "panel", "", "--source-clip", clip(t, 550))
	tv.invite(panel)
	c := ask[call](tv, "call", "panel", "--no-video", "--detach")
	panel.incoming()
	panel.run("answer")
	tv.eventually(3*time.Second, "sound alone", func() bool {
		return directions(tv.call(c.ID)) == "audio sendrecv" && tv.call(c.ID).Stats.Audio.Received > 10
	})
	tv.run("video", "on")
	took := panel.eventually(3*time.Second, "the picture comes", func() bool { return panel.call(c.ID).Stats.Video.Received > 0 })
	t.Logf("picture after %v", took.Round(time.Millisecond))
	stays(t, time.Second, "the panel's camera sends nothing", func() bool { return panel.call(c.ID).Stats.Video.Sent == 0 })
	panel.run("video", "on")
	comes(tv, c.ID, 3*time.Second)
	tv.run("video", "off")
	tv.eventually(2*time.Second, "sound alone", func() bool {
		return directions(tv.call(c.ID)) == "audio sendrecv" && directions(panel.call(c.ID)) == "audio sendrecv"
	})
	tv.run("hangup")
}

// What does not get through is said at both ends within seconds, in plain words: here a
// device whose clip has no sound, and one that gives nothing.
func TestOneWayIsSaid(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	tv := newNode(t, l, "TV", "tv", "", "--source-clip", clip(t, 440)).start().found()
	panel := newNode(t, l, "Panel", "panel", "")
	tv.invite(panel)
	c := ask[call](tv, "call", "panel", "--detach")
	panel.incoming()
	panel.run("answer")
	took := tv.eventually(8*time.Second, "it is said", func() bool {
		return strings.Contains(strings.Join(tv.call(c.ID).Trouble, " "), "Neither sound nor picture comes from Panel.")
	})
	t.Logf("the TV says so after %v", took.Round(time.Millisecond))
	panel.eventually(3*time.Second, "and at the panel", func() bool {
		return strings.Contains(strings.Join(panel.call(c.ID).Trouble, " "), "comes from the camera or microphone of this device")
	})
	if out, _ := tv.try("calls"); !strings.Contains(out, "Neither sound nor picture") {
		t.Errorf("`hallway calls` does not say so: %s", out)
	}
	if took > 5*time.Second {
		t.Errorf("said after %v", took)
	}
}
