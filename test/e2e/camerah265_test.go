package e2e

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// counted is a picture in which eight stripes tell the number of each frame in binary, 200
// frames in H.265 with a key frame each second.
func counted(t testing.TB) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "counted.h265")
	ffmpeg(t, "-f", "lavfi", "-i", "color=black:size=320x180:rate=25,format=yuv420p,geq=lum='if(mod(floor(N/pow(2,floor(X/40))),2),235,16)':cb=128:cr=128", "-t", "8",
		"-c:v", "libx265", "-preset", "ultrafast", "-tune", "zerolatency", "-x265-params", "log-level=none:keyint=25:min-keyint=25:scenecut=0:aud=1", "-f", "hevc", file)
	return file
}

// numbers reads the frames of a recording of it.
func numbers(t testing.TB, file string) (out []int) {
	t.Helper()
	b, err := exec.Command("ffmpeg", "-v", "error", "-xerror", "-i", file, "-an", "-vsync", "passthrough", "-vf", "scale=8:1:flags=area", "-pix_fmt", "gray", "-f", "rawvideo", "-").Output()
	if err != nil {
		t.Fatalf("%s does not decode: %v", file, err)
	}
	for ; len(b) >= 8; b = b[8:] {
		n := 0
		for i, light := range b[:8] {
			if light > 128 {
				n |= 1 << i
			}
		}
		out = append(out, n)
	}
	return out
}

// A camera that sends H.265: who takes it has every frame of it, whole; who does not has its
// sound; who takes neither is refused in plain words, and the camera is not opened for that.
func TestA19_CameraWithH265(t *testing.T) {
	needs(t, "ffmpeg", "ffprobe")
	l := newLab(t)
	cam := cameraOf(t, l.MustHost(t, "Camera"), "-h265", counted(t))
	tv := newNode(t, l, "TV", "tv", "Living room").start().found()
	panel := newNode(t, l, "Panel", "panel", "Kitchen", "--sink-record", t.TempDir())
	old := newNode(t, l, "Old", "panel", "Hall", append(ownProfile(t, "panel", "opus PCMU", "H264", ""), "--sink-record", t.TempDir())...)
	mute := newNode(t, l, "Mute", "panel", "Attic", ownProfile(t, "panel", "", "H264", "")...)
	tv.invite(panel, old, mute)
	got := ask[struct{ Codecs []string }](tv, "adopt", cam.url(strings.ReplaceAll(cameraAccount, "/", "%2F")), "--name", "Front door")
	if strings.Join(got.Codecs, " ") != "H265 PCMU" {
		t.Fatalf("%+v", got)
	}
	for _, n := range []*node{panel, old, mute} {
		n.eventually(5*time.Second, "the camera is reachable", func() bool { return n.adopted("front-door") == "reachable" })
	}
	out, code := mute.try("call", "front-door")
	if code != 8 || !strings.Contains(out, "codec") {
		t.Errorf("nothing in common: exit %d: %s", code, out)
	}
	if n := cam.count("setup"); n != 0 {
		t.Errorf("the camera was opened %d times for who can show nothing of it", n)
	}
	c := ask[call](panel, "call", "front-door", "--detach")
	panel.eventually(8*time.Second, "it sees and hears", flowsIn(panel, c.ID))
	d := ask[call](old, "call", "front-door", "--detach")
	old.eventually(8*time.Second, "it hears", func() bool { return old.call(d.ID).Stats.Audio.Received > 100 })
	if e := old.call(d.ID); codecOf(e, "video") != "" || codecOf(e, "audio") != "PCMU" {
		t.Errorf("without H.265 it has %+v", e.Media)
	}
	panel.eventually(10*time.Second, "the picture goes on", func() bool { return panel.call(c.ID).Stats.Video.Received > 250 })
	if e := panel.call(c.ID); codecOf(e, "video") != "H265" {
		t.Errorf("with H.265 it has %+v", e.Media)
	}
	for n, id := range map[*node]string{panel: c.ID, old: d.ID} {
		n.run("hangup", id)
		n.eventually(3*time.Second, "it ends", func() bool { return n.call(id).State == "ended" })
	}
	file := panel.call(c.ID).Stats.Recording
	if r := recorded(t, file); r != "hevc pcm_mulaw" {
		t.Errorf("recorded: %s", r)
	}
	frames := numbers(t, file)
	t.Logf("%d frames", len(frames))
	if len(frames) < 100 || frames[0]%25 != 0 {
		t.Errorf("%d frames, the first is %v", len(frames), frames[:min(1, len(frames))])
	}
	for i := 1; i < len(frames); i++ {
		if frames[i] != (frames[i-1]+1)%200 {
			t.Errorf("frame %d has number %d after %d", i, frames[i], frames[i-1])
		}
	}
	if r := recorded(t, old.call(d.ID).Stats.Recording); r != "pcm_mulaw" {
		t.Errorf("recorded without H.265: %s", r)
	}
}
