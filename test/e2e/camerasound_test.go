package e2e

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// aacFlashes is the flash clip as a camera with AAC has it: the file whole, and its parts.
func aacFlashes(t testing.TB) (file string, parts []string) {
	t.Helper()
	dir := t.TempDir()
	file = filepath.Join(dir, "flash.mkv")
	h264, aac := filepath.Join(dir, "flash.h264"), filepath.Join(dir, "flash.aac")
	ffmpeg(t, "-f", "lavfi", "-i", "color=black:size=320x180:rate=25,drawbox=color=white:t=fill:enable='lt(mod(t,2),0.4)'",
		"-f", "lavfi", "-i", "aevalsrc='0.5*sin(2*PI*1000*t)*lt(mod(t,2),0.4)':s=16000",
		"-t", "8", "-c:v", "libx264", "-profile:v", "baseline", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-g", "25", "-bf", "0", "-x264-params", "aud=1",
		"-c:a", "aac", "-ac", "1", "-b:a", "48k", file)
	ffmpeg(t, "-i", file, "-c", "copy", "-an", "-f", "h264", h264)
	ffmpeg(t, "-i", file, "-c", "copy", "-vn", "-f", "adts", aac)
	return file, []string{"-h264", h264, "-aac", aac}
}

// transcoders counts the programs that make Opus for a node.
func transcoders(t testing.TB, n *node) (count int) {
	t.Helper()
	dirs, err := filepath.Glob("/proc/[0-9]*/cmdline")
	must(t, err)
	for _, d := range dirs {
		b, _ := os.ReadFile(d)
		stat, _ := os.ReadFile(filepath.Join(filepath.Dir(d), "stat"))
		if f := strings.Fields(string(stat)); strings.HasPrefix(string(b), "ffmpeg\x00") && strings.Contains(string(b), "flv") && len(f) > 3 && f[3] == strconv.Itoa(n.pid()) {
			count++
		}
	}
	return count
}

// A camera that sends AAC is heard: one child makes Opus of it for all who take sound, and
// none for those who do not; sound and picture stay together (HALLWAY_DRIFT says for how long);
// the picture does not mind when the child dies, and it goes with the last viewer.
func TestA18_SoundOfACameraWithAAC(t *testing.T) {
	l := newLab(t)
	file, parts := aacFlashes(t)
	cam := cameraOf(t, l.MustHost(t, "Camera"), parts...)
	tv := newNode(t, l, "TV", "tv", "Living room").start().found()
	panel := newNode(t, l, "Panel", "panel", "Kitchen", "--sink-record", t.TempDir())
	pad := newNode(t, l, "Pad", "panel", "Bedroom", ownProfile(t, "panel", "", "H264", "")...)
	tv.invite(panel, pad)
	got := ask[struct {
		Codecs []string
		Left   string
	}](tv, "adopt", cam.url(strings.ReplaceAll(cameraAccount, "/", "%2F")), "--name", "Front door")
	if strings.Join(got.Codecs, " ") != "H264 opus" || got.Left != "" {
		t.Fatalf("%+v", got)
	}
	for _, n := range []*node{panel, pad} {
		n.eventually(5*time.Second, "the camera is reachable", func() bool { return n.adopted("front-door") == "reachable" })
	}
	deaf := ask[call](pad, "call", "front-door", "--detach")
	pad.eventually(5*time.Second, "it sees", func() bool { return pad.call(deaf.ID).Stats.Video.Received > 50 })
	if n := transcoders(t, tv); n != 0 {
		t.Errorf("%d children make sound that nobody takes", n)
	}
	c := ask[call](panel, "call", "front-door", "--detach")
	second := ask[call](panel, "call", "front-door", "--detach")
	for _, id := range []string{c.ID, second.ID} {
		panel.eventually(5*time.Second, "it sees and hears", flows(panel, id))
	}
	if n := transcoders(t, tv); n != 1 {
		t.Errorf("%d children for two that hear", n)
	}
	panel.run("hangup", second.ID)
	stay := length("HALLWAY_DRIFT", 14*time.Second)
	stays(t, stay, "the call runs", func() bool { return panel.call(c.ID).State == "active" })
	panel.run("hangup", c.ID)
	tv.eventually(3*time.Second, "the child goes with who heard it", func() bool { return transcoders(t, tv) == 0 })
	if e := pad.call(deaf.ID); e.State != "active" || cam.playing() != 1 {
		t.Errorf("the other view: %+v; %d views at the camera", e, cam.playing())
	}
	panel.eventually(3*time.Second, "it ends", func() bool { return panel.call(c.ID).State == "ended" })
	recording := panel.call(c.ID).Stats.Recording
	if r := recorded(t, recording); r != "h264 opus" {
		t.Errorf("recorded: %s", r)
	}
	together(t, file, recording, int(stay.Seconds()/2)-2, 0.060)
}

// together checks a recording of flashes: sound within a bound of the picture, all the time.
func together(t testing.TB, clip, file string, least int, bound float64) {
	t.Helper()
	own := median(offsets(t, clip))
	got := offsets(t, file)
	if len(got) < least {
		t.Fatalf("%d flashes with their tone in the recording, %d are due", len(got), least)
	}
	for i, o := range got {
		if o -= own; o < -bound || o > bound {
			t.Errorf("flash %d: sound is %.0f ms behind the picture", i, o*1000)
		}
		got[i] -= own
	}
	third := max(1, len(got)/3)
	first, last := median(got[:third]), median(got[len(got)-third:])
	t.Logf("sound behind picture, in %d flashes: at first %.0f ms, at last %.0f ms", len(got), first*1000, last*1000)
	if d := last - first; d < -0.040 || d > 0.040 { // the first report is taken as it is, later ones correct it
		t.Errorf("sound and picture drifted apart by %.0f ms", d*1000)
	}
}
