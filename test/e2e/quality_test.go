package e2e

import (
	"context"
	"math"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hallway-home/hallway/test/netlab"
	"github.com/hallway-home/hallway/test/netlab/impair"
)

// flashClip is black and silent but for a white picture and a tone in the first fifth of
// each 2 s, together.
func flashClip(t testing.TB) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "flash.mkv")
	ffmpeg(t,
		"-f", "lavfi", "-i", "color=black:size=320x180:rate=25,drawbox=color=white:t=fill:enable='lt(mod(t,2),0.4)'",
		"-f", "lavfi", "-i", "aevalsrc='0.5*sin(2*PI*1000*t)*lt(mod(t,2),0.4)':s=48000",
		"-t", "8", "-c:v", "libx264", "-profile:v", "baseline", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-g", "25", "-bf", "0", "-c:a", "libopus", "-ac", "2", file)
	return file
}

// flashes are the times in a file at which the picture turns white.
func flashes(t testing.TB, file string) (at []float64) {
	t.Helper()
	out, err := exec.Command("ffprobe", "-v", "error", "-f", "lavfi", "-i", "movie="+file+",signalstats",
		"-show_entries", "frame=pts_time:frame_tags=lavfi.signalstats.YAVG", "-of", "csv=p=0").Output()
	if err != nil {
		t.Fatal(err)
	}
	dark := false
	for _, line := range strings.Fields(string(out)) {
		f := strings.Split(line, ",")
		if len(f) < 2 {
			continue
		}
		when, err1 := strconv.ParseFloat(f[0], 64)
		light, err2 := strconv.ParseFloat(f[1], 64)
		if err1 != nil || err2 != nil {
			t.Fatalf("%q", line)
		}
		if light > 128 && dark {
			at = append(at, when)
		}
		dark = light < 128
	}
	return at
}

// tones are the times in a file at which the sound begins.
func tones(t testing.TB, file string) (at []float64) {
	t.Helper()
	out, err := exec.Command("ffmpeg", "-hide_banner", "-nostats", "-i", file, "-vn", "-af", "silencedetect=n=-30dB:d=0.5", "-f", "null", "-").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, line := range strings.Split(string(out), "\n") {
		_, rest, ok := strings.Cut(line, "silence_end: ")
		if !ok {
			continue
		}
		when, err := strconv.ParseFloat(strings.Fields(rest)[0], 64)
		if err != nil {
			t.Fatalf("%q", line)
		}
		at = append(at, when)
	}
	return at
}

// offsets are by how many seconds each tone comes behind its flash.
func offsets(t testing.TB, file string) (out []float64) {
	t.Helper()
	heard := tones(t, file)
	for _, f := range flashes(t, file) {
		for _, h := range heard {
			if d := h - f; math.Abs(d) < 0.9 {
				out = append(out, d)
			}
		}
	}
	return out
}

func median(x []float64) float64 {
	s := slices.Sorted(slices.Values(x))
	return s[len(s)/2]
}

// inSync checks a recording of the flash clip: sound at most 45 ms before and 125 ms behind
// the picture (ITU-R BT.1359), as in the clip itself, and no drift between them.
func inSync(t *testing.T, clip, file string, least int) {
	t.Helper()
	own := median(offsets(t, clip))
	got := offsets(t, file)
	if len(got) < least {
		t.Fatalf("%d flashes with their tone in the recording, %d are due", len(got), least)
	}
	third := max(1, len(got)/3)
	first, last := median(got[:third])-own, median(got[len(got)-third:])-own
	t.Logf("sound behind picture, in %d flashes: at first %.0f ms, at last %.0f ms (in the clip itself %.0f ms)", len(got), first*1000, last*1000, own*1000)
	for _, o := range []float64{first, last} {
		if o < -0.045 || o > 0.125 {
			t.Errorf("sound is %.0f ms behind the picture", o*1000)
		}
	}
	if d := math.Abs(last - first); d > 0.025 {
		t.Errorf("sound and picture drifted apart by %.0f ms", d*1000)
	}
}

// Sound and picture stay together in the recording of a call of HALLWAY_DRIFT (12 s without
// it; ten minutes when it matters), also across a hold.
func TestSoak_SoundAndPictureStayTogether(t *testing.T) {
	l := newLab(t)
	file := flashClip(t)
	tv := newNode(t, l, "TV", "tv", "", "--source-clip", file).start().found()
	panel := newNode(t, l, "Panel", "panel", "", "--sink-record", t.TempDir())
	tv.invite(panel)
	id := active1(t, tv, panel)
	stay := length("HALLWAY_DRIFT", 12*time.Second)
	stays(t, stay/2, "the call runs", func() bool { return panel.call(id).State == "active" })
	tv.run("hold")
	stays(t, time.Second, "the call is kept", func() bool { return panel.call(id).State == "active" })
	tv.run("resume")
	stays(t, stay/2, "the call runs", func() bool { return panel.call(id).State == "active" })
	tv.run("hangup", id)
	panel.eventually(3*time.Second, "it ends", func() bool { return panel.call(id).State == "ended" })
	inSync(t, file, panel.call(id).Stats.Recording, int(stay.Seconds()/2)-3)
}

// active1 is a call in which only the caller sends.
func active1(t *testing.T, from, to *node) string {
	t.Helper()
	c := ask[call](from, "call", slugOf(to.name), "--detach")
	to.incoming()
	to.run("answer", c.ID)
	to.eventually(5*time.Second, "media flows", flows(to, c.ID))
	return c.ID
}

// badCable joins a host to the lab by an impairer.
func badCable(t *testing.T, l *netlab.Lab, h *netlab.Host, f impair.Faults) *impair.Cable {
	t.Helper()
	must(t, l.Cut(h))
	cable, err := impair.Join(l, f)
	if err != nil {
		netlab.Missing(t, err.Error())
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- cable.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return cable
}

// since is what happened to one stream between two looks.
type since struct {
	received, lost, late, twice, peerLost int
	sent                                  int
}

func between(a, b stream) since {
	return since{b.Received - a.Received, b.Lost - a.Lost, b.Late - a.Late, b.Duplicates - a.Duplicates, b.Peer.Lost - a.Peer.Lost, b.Sent - a.Sent}
}

// Loss, jitter, reordering and copies on the way, made by the impairer: the statistics of
// both sides tell what it did, the picture is whole within 2 s of calm, and sound and
// picture are still together.
func TestLossIsToldAndOvercome(t *testing.T) {
	l := newLab(t)
	file := flashClip(t)
	tv := newNode(t, l, "TV", "tv", "", "--source-clip", file).start().found()
	panel := newNode(t, l, "Panel", "panel", "", "--source-clip", file, "--sink-record", t.TempDir())
	cable := badCable(t, l, panel.host, impair.Faults{Seed: 7})
	tv.invite(panel)
	id := active(t, tv, panel)
	stay := length("HALLWAY_LOSS", 8*time.Second)
	at1, at2 := apiOf(panel), apiOf(tv)
	look := func() (here, there call, apart time.Duration) { // both sides at one moment, nearly
		start := time.Now()
		must(t, at1.do("GET", "/calls/"+id, nil, &here))
		must(t, at2.do("GET", "/calls/"+id, nil, &there))
		return here, there, time.Since(start)
	}
	for _, c := range []struct {
		what string
		f    impair.Faults
	}{
		{"loss of 1 %", impair.Faults{Loss: 0.01}},
		{"loss of 5 %", impair.Faults{Loss: 0.05}},
		{"loss of 20 %", impair.Faults{Loss: 0.20}},
		{"200 ms of jitter", impair.Faults{Delay: 200 * time.Millisecond, Jitter: 200 * time.Millisecond}},
		{"10 % overtake", impair.Faults{Delay: 30 * time.Millisecond, Reorder: 0.10}},
		{"10 % twice", impair.Faults{Duplicate: 0.10}},
	} {
		before, heBefore, skew := look()
		cableBefore := cable.Stats()
		cable.Set(c.f)
		stays(t, stay, "the call goes on", func() bool { return panel.call(id).State == "active" && tv.call(id).State == "active" })
		shaken := panel.call(id).Stats.Audio.JitterMs
		cable.Set(impair.Faults{})
		calm := time.Now()
		whole := panel.eventually(10*time.Second, "the picture is whole", func() bool { return !panel.call(id).Stats.NoPicture })
		at := comes(panel, id, 5*time.Second)
		stays(t, 2*time.Second, "reports come", func() bool { return true })
		after, heAfter, more := look()
		cableAfter := cable.Stats()
		apart := 12 + int((skew+more).Seconds()*50) // packets of sound between the looks at both sides
		sound, picture := between(before.Stats.Audio, after.Stats.Audio), between(before.Stats.Video, after.Stats.Video)
		his := between(heBefore.Stats.Audio, heAfter.Stats.Audio)
		hisPicture := between(heBefore.Stats.Video, heAfter.Stats.Video)
		truth := float64(cableAfter.Lost-cableBefore.Lost) / float64(cableAfter.Taken-cableBefore.Taken)
		t.Logf("%s: picture whole %v after calm, sound and picture %v later; dropped %.1f %%; here %+v %+v, jitter %.0f ms; there %+v %+v",
			c.what, whole.Round(time.Millisecond), at.Round(time.Millisecond), truth*100, sound, picture, shaken, his, hisPicture)
		if whole > 2*time.Second {
			t.Errorf("%s: the picture was whole %v after %v", c.what, whole, calm)
		}
		agrees(t, c.what+": sound lost here", sound.lost+his.lost, sound.received+his.received+sound.lost+his.lost, truth)
		if c.f.Jitter == 0 && c.f.Reorder == 0 { // else late says both
			agrees(t, c.what+": pictures that did not come at first", picture.lost+picture.late+hisPicture.lost+hisPicture.late,
				picture.received+hisPicture.received+picture.lost+hisPicture.lost, truth)
		}
		// A report counts what is late as lost, and never takes it back.
		if d := his.peerLost - sound.lost; d < -apart-sound.lost/4 || d > apart+sound.lost/4+sound.late {
			t.Errorf("%s: the panel lost %d packets of sound, the TV was told of %d", c.what, sound.lost, his.peerLost)
		}
		if d := his.sent - sound.received - sound.lost; d < -apart || d > apart {
			t.Errorf("%s: of %d packets of sound sent %d came and %d are said to be lost", c.what, his.sent, sound.received, sound.lost)
		}
		if c.f.Jitter > 0 && (sound.late < his.sent/10 || shaken < 40 || shaken > 250) { // 133 ms is the mean of even jitter
			t.Errorf("%s: of %d packets %d came late, jitter %.0f ms", c.what, his.sent, sound.late, shaken)
		}
		if c.f.Reorder > 0 && (sound.late > his.sent/2 || sound.late < his.sent/50) {
			t.Errorf("%s: of %d packets %d came late", c.what, his.sent, sound.late)
		}
	}
	tv.run("hangup", id)
	panel.eventually(3*time.Second, "it ends", func() bool { return panel.call(id).State == "ended" })
	inSync(t, file, panel.call(id).Stats.Recording, 10)
}

// agrees checks a share against the truth: four standard deviations of the binomial, and
// half a percent for what the cable drops beside the media.
func agrees(t *testing.T, what string, n, of int, truth float64) {
	t.Helper()
	got := float64(n) / float64(max(1, of))
	margin := 4*math.Sqrt(truth*(1-truth)/float64(max(1, of))) + 0.005
	if math.Abs(got-truth) > margin {
		t.Errorf("%s: %.1f %% (%d of %d), the cable dropped %.1f %% (margin %.1f)", what, got*100, n, of, truth*100, margin*100)
	}
}

// A device that hangs, its connections open, has lost its consent to media (RFC 7675): within
// 30 s the other side sends it no more, ends the call and says why; the device does the
// same when it wakes.
func TestConsentLostEndsTheCall(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	file := clip(t, 440)
	tv := newNode(t, l, "TV", "tv", "", "--source-clip", file).start().found()
	panel := newNode(t, l, "Panel", "panel", "", "--source-clip", file)
	tv.invite(panel)
	id := active(t, tv, panel)
	panel.signal(syscall.SIGSTOP)
	defer panel.signal(syscall.SIGCONT)
	took := tv.eventually(30*time.Second, "the call ends", func() bool { return tv.call(id).State == "ended" })
	if c := tv.call(id); !strings.Contains(c.Reason, "lost") && !strings.Contains(c.Reason, "stopped answering") {
		t.Errorf("it says %q", c.Reason)
	}
	sent := tv.call(id).Stats.Audio.Sent
	stays(t, time.Second, "nothing is sent any more", func() bool { return tv.call(id).Stats.Audio.Sent == sent })
	panel.signal(syscall.SIGCONT)
	woke := panel.eventually(30*time.Second, "the call ends", func() bool { return panel.call(id).State == "ended" })
	t.Logf("ended after %v: %q; the device that hung ends it %v after it woke", took.Round(time.Millisecond), tv.call(id).Reason, woke.Round(time.Millisecond))
}
