package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// flows waits until a side receives sound and picture.
func flows(n *node, id string) func() bool {
	return func() bool {
		c := n.call(id)
		if c.State == "ended" {
			n.t.Fatalf("%s: the call ended: %s", n.name, c.Reason)
		}
		return c.Stats.Audio.Received > 0 && c.Stats.Video.Received > 0
	}
}

// From the living room call "kitchen": it rings, is accepted, sound and picture flow
// both ways within 500 ms; BYE from either end frees camera and microphone.
func TestA16_CallTheKitchen(t *testing.T) {
	l := newLab(t)
	tv := newNode(t, l, "TV", "tv", "Living room", "--source-clip", clip(t, 440), "--sink-record", t.TempDir()).start().found()
	panel := newNode(t, l, "Panel", "panel", "Kitchen", "--source-clip", clip(t, 550), "--sink-record", t.TempDir())
	tv.invite(panel)
	turn := 0
	attempts(t, "accept to media both ways", 500*time.Millisecond, func(t *testing.T) time.Duration {
		turn++
		c := ask[call](tv, "call", "kitchen", "--detach")
		in := panel.incoming()
		if in.ID != c.ID {
			t.Fatalf("one call has two names: %s and %s", c.ID, in.ID)
		}
		start := time.Now()
		panel.run("answer", in.ID)
		tv.eventually(5*time.Second, "it sees and hears", flows(tv, c.ID))
		panel.eventually(5*time.Second, "it sees and hears", flows(panel, c.ID))
		took := time.Since(start)
		ender, other := tv, panel
		if turn%2 == 0 {
			ender, other = panel, tv
		}
		ender.run("hangup", c.ID)
		other.eventually(2*time.Second, "the end is known", func() bool { return other.call(c.ID).State == "ended" })
		for _, n := range []*node{tv, panel} {
			if e := n.call(c.ID); e.Stats.Recording == "" || e.Code != 200 {
				t.Errorf("%s: %+v", n.name, e)
			}
		}
		return took
	})
}

// A room with two devices: both ring, the first accept wins, the other stops and logs
// no missed call.
func TestA16_RoomWithTwoDevices(t *testing.T) {
	l := newLab(t)
	tv := newNode(t, l, "TV", "tv", "Living room", "--source-clip", clip(t, 440)).start().found()
	one := newNode(t, l, "Panel", "panel", "Kitchen")
	two := newNode(t, l, "Speaker", "speaker", "Kitchen")
	tv.invite(one, two)
	c := ask[call](tv, "call", "kitchen", "--detach")
	in := two.incoming()
	one.incoming()
	one.run("answer")
	two.eventually(3*time.Second, "it stops ringing", func() bool { return two.call(in.ID).State == "ended" })
	if e := two.call(in.ID); e.Missed || e.Reason != "Panel took it." {
		t.Errorf("the loser logs %+v", e)
	}
	if e := tv.call(c.ID); e.State != "active" || e.Peer != "panel" {
		t.Errorf("the caller has %+v", e)
	}
	tv.run("hangup")
	one.eventually(2*time.Second, "it ends", func() bool { return one.call(c.ID).State == "ended" })
	d := ask[call](tv, "call", "kitchen", "--detach")
	one.incoming()
	two.incoming()
	one.run("decline")
	two.run("decline")
	tv.eventually(3*time.Second, "declined by all", func() bool { return tv.call(d.ID).State == "ended" })
	if e := tv.call(d.ID); e.Code != 603 || !strings.Contains(e.Reason, "declined") {
		t.Errorf("declined by all reads %+v", e)
	}
}

// A video call to a speaker is sound only; a call to a camera is one way; no common
// codec is a clear refusal that nobody hears.
func TestA19_CapabilityMatch(t *testing.T) {
	l := newLab(t)
	odd := filepath.Join(t.TempDir(), "odd.yaml")
	profile := "class: speaker\ntitle: Odd speaker\ncapabilities:\n  audio: {direction: sendrecv, codecs: [{name: PCMA, clock: 8000, channels: 1}]}\n  video: {direction: inactive}\n" +
		"behaviour: {auto-answer: false, ring-timeout: 30s, half-duplex: true, max-calls: 1, automata: false, mobility: fixed, duplex: full}\npipelines: []\n"
	narrow := "class: panel\ntitle: Narrow panel\ncapabilities:\n  audio: {direction: sendrecv, codecs: [{name: PCMU, clock: 8000, channels: 1}]}\n  video: {direction: inactive}\n" +
		"behaviour: {auto-answer: false, ring-timeout: 30s, half-duplex: true, max-calls: 1, automata: false, mobility: fixed, duplex: full}\npipelines: []\n"
	narrowFile := filepath.Join(t.TempDir(), "narrow.yaml")
	conf := func(file, text string) string {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		c := file + ".conf"
		if err := os.WriteFile(c, []byte("pipelines: "+file+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		return c
	}
	tv := newNode(t, l, "TV", "tv", "", "--source-clip", clip(t, 440)).start().found()
	speaker := newNode(t, l, "Speaker", "speaker", "")
	cam := newNode(t, l, "Cam", "camera", "", "--source-clip", clip(t, 660))
	a := newNode(t, l, "Odd", "speaker", "", "--config", conf(odd, profile))
	b := newNode(t, l, "Narrow", "panel", "", "--config", conf(narrowFile, narrow))
	tv.invite(speaker, cam, a, b)

	c := ask[call](tv, "call", "speaker", "--detach")
	speaker.incoming()
	speaker.run("answer")
	tv.eventually(3*time.Second, "sound only", func() bool {
		return directions(tv.call(c.ID)) == "audio sendrecv"
	})
	tv.run("hangup")

	c = ask[call](tv, "call", "cam", "--detach")
	tv.eventually(3*time.Second, "the camera answers by itself, one way", func() bool {
		return directions(tv.call(c.ID)) == "audio recvonly video recvonly" && tv.call(c.ID).Stats.Video.Received > 0
	})
	if got := tv.call(c.ID).Stats.Video.Sent; got != 0 {
		t.Errorf("%d packets were sent to a camera", got)
	}
	tv.run("hangup")

	out, code := a.try("call", "narrow")
	if code != 8 || !strings.Contains(out, "codec") {
		t.Errorf("no common codec: exit %d: %s", code, out)
	}
	for _, x := range b.calls() {
		t.Errorf("the called device noticed a call that cannot work: %+v", x)
	}
}

func directions(c call) string {
	var out []string
	for _, m := range c.Media {
		if m.Direction != "inactive" {
			out = append(out, m.Kind+" "+m.Direction)
		}
	}
	return strings.Join(out, " ")
}

// The called side's camera and microphone are a child process here: it is not in the
// process table before a person accepts, and gone within 1 s of the end.
func TestA32_CameraOpensOnlyAfterAccept(t *testing.T) {
	needs(t, "ffmpeg")
	l := newLab(t)
	tv := newNode(t, l, "TV", "tv", "", "--source-clip", clip(t, 440)).start().found()
	panel := newNode(t, l, "Panel", "panel", "", "--source-pipeline", "test-picture")
	tv.invite(panel)
	running := func() int { return cameras(panel.pid()) }
	for _, ender := range []*node{tv, panel} {
		c := ask[call](tv, "call", "panel", "--detach")
		in := panel.incoming()
		for range 20 {
			if n := running(); n != 0 {
				t.Fatalf("%d camera processes while it only rings", n)
			}
			time.Sleep(10 * time.Millisecond)
		}
		panel.run("answer", in.ID)
		panel.eventually(3*time.Second, "the camera process runs", func() bool { return running() == 1 })
		tv.eventually(8*time.Second, "its picture comes", flows(tv, c.ID))
		ender.run("hangup", c.ID)
		took := panel.eventually(2*time.Second, "the camera process is gone", func() bool { return running() == 0 })
		t.Logf("camera freed %v after the end", took.Round(time.Millisecond))
		if took > time.Second {
			t.Errorf("the camera was freed after %v", took)
		}
	}
	ask[call](tv, "call", "panel", "--detach")
	panel.incoming()
	panel.run("decline")
	if n := running(); n != 0 {
		t.Errorf("%d camera processes after declining", n)
	}
}

// cameras counts the processes below pid that send RTP. The trial of an encoder is none: it
// opens no device and sends nothing.
func cameras(pid int) (n int) {
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, f := range files {
		b, _ := os.ReadFile(f)
		if strings.HasPrefix(string(b), "ffmpeg\x00") && strings.Contains(string(b), "rtp://127.0.0.1:") && descends(filepath.Base(filepath.Dir(f)), pid) {
			n++
		}
	}
	return n
}
