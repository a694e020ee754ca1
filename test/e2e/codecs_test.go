package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// ownProfile writes a profile that takes only these codecs, and returns the flags for it.
func ownProfile(t testing.TB, class, audio, video, pipelines string) []string {
	t.Helper()
	medium := func(codecs, clock string) string {
		if codecs == "" {
			return "{direction: inactive}"
		}
		var list []string
		for _, c := range strings.Fields(codecs) {
			if c == "opus" {
				list = append(list, "{name: opus, clock: 48000, channels: 2}")
				continue
			}
			fmtp := ""
			if c == "H264" {
				fmtp = `, fmtp: "packetization-mode=1;profile-level-id=42e01f"`
			}
			list = append(list, fmt.Sprintf("{name: %s, %s%s}", c, clock, fmtp))
		}
		return "{direction: sendrecv, codecs: [" + strings.Join(list, ", ") + "]}"
	}
	dir := t.TempDir()
	file, conf := filepath.Join(dir, "own.yaml"), filepath.Join(dir, "hallway.yaml")
	text := "class: " + class + "\ntitle: Own\ncapabilities:\n  audio: " + medium(audio, "clock: 8000, channels: 1") + "\n  video: " + medium(video, "clock: 90000") +
		"\nbehaviour: {auto-answer: false, ring-timeout: 30s, half-duplex: true, max-calls: 4, automata: false, mobility: fixed, duplex: full}\npipelines:\n" + pipelines
	if pipelines == "" {
		text = strings.TrimSuffix(text, "pipelines:\n")
	}
	must(t, os.WriteFile(file, []byte(text), 0o600))
	must(t, os.WriteFile(conf, []byte("pipelines: "+file+"\n"), 0o600))
	return []string{"--config", conf}
}

// recorded lists the codecs in a recording, as ffprobe names them.
func recorded(t testing.TB, file string) string {
	t.Helper()
	out, err := exec.Command("ffprobe", "-v", "error", "-show_entries", "stream=codec_name", "-of", "csv=p=0", file).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return strings.Join(strings.Fields(string(out)), " ")
}

// decodes plays a recording to its end: nothing in it may be damaged.
func decodes(t testing.TB, file string) {
	t.Helper()
	if out, err := exec.Command("ffmpeg", "-v", "error", "-xerror", "-i", file, "-f", "null", "-").CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("%s does not decode: %v %s", file, err, out)
	}
}

func needs(t testing.TB, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			missing(t, p+" is missing; scripts/deps installs it")
		}
	}
}

// holdCall calls, answers if it must ring, waits until media flows as wanted, lets it flow
// for a while, and hangs up. It returns both ends as they were in the call.
func holdCall(t testing.TB, from, to *node, wait time.Duration, good func(from, to call) bool) (call, call) {
	t.Helper()
	c := ask[call](from, "call", slugOf(to.name), "--detach")
	in := to.incoming()
	to.run("answer", in.ID)
	var a, b call
	from.eventually(12*time.Second, "media flows with "+to.name, func() bool {
		a, b = from.call(c.ID), to.call(c.ID)
		return good(a, b)
	})
	time.Sleep(wait)
	a, b = from.call(c.ID), to.call(c.ID)
	from.run("hangup", c.ID)
	to.eventually(3*time.Second, "the end is known", func() bool { return to.call(c.ID).State == "ended" })
	return a, b
}

func codecOf(c call, kind string) string {
	for _, m := range c.Media {
		if m.Kind == kind && m.Direction != "inactive" {
			return m.Codec
		}
	}
	return ""
}

// A device that knows nothing but G.711: what both share is used, and a source that offers
// several codecs makes that one. Two such devices at once: each of two codecs is encoded
// once, by one child.
func TestA19_G711OnlyEnd(t *testing.T) {
	needs(t, "ffmpeg", "ffprobe")
	l := newLab(t)
	record := t.TempDir()
	tv := newNode(t, l, "TV", "tv", "", append(ownTV(t), "--source-pipeline", "test-picture", "--sink-record", record)...).start().found()
	clipFile := filepath.Join(t.TempDir(), "pcmu.mkv")
	if out, err := exec.Command("ffmpeg", "-v", "error", "-f", "lavfi", "-i", "sine=frequency=600:sample_rate=8000", "-t", "2", "-c:a", "pcm_mulaw", "-ac", "1", clipFile).CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	oldRecord := t.TempDir()
	old := newNode(t, l, "Old", "phone", "", append(ownProfile(t, "phone", "PCMU PCMA", "", ""), "--source-clip", clipFile, "--sink-record", oldRecord)...)
	panel := newNode(t, l, "Panel", "panel", "", "--sink-record", t.TempDir())
	other := newNode(t, l, "Other", "panel", "", append(ownProfile(t, "panel", "G722", "", ""), "--sink-record", t.TempDir())...)
	tv.invite(old, panel, other)

	both := func(a, b call) bool { return a.Stats.Audio.Received > 50 && b.Stats.Audio.Received > 50 }
	for _, dir := range [][2]*node{{tv, old}, {old, tv}} {
		a, b := holdCall(t, dir[0], dir[1], 500*time.Millisecond, both)
		if codecOf(a, "audio") != "PCMU" || codecOf(b, "audio") != "PCMU" || codecOf(a, "video") != "" {
			t.Errorf("%s calls %s: %+v and %+v", dir[0].name, dir[1].name, a.Media, b.Media)
		}
		for _, file := range []string{a.Stats.Recording, b.Stats.Recording} {
			if got := recorded(t, file); got != "pcm_mulaw" {
				t.Errorf("%s calls %s: %s holds %q", dir[0].name, dir[1].name, file, got)
			}
			decodes(t, file)
		}
	}

	// One viewer takes Opus, the next one G.711: one child, and the first goes on.
	c := ask[call](panel, "call", "tv", "--detach")
	tv.incoming()
	tv.run("answer", c.ID)
	panel.eventually(10*time.Second, "picture and sound come", flowsIn(panel, c.ID))
	if n := codecOf(panel.call(c.ID), "audio"); n != "opus" {
		t.Errorf("the panel got %s", n)
	}
	before := panel.call(c.ID).Stats.Audio.Received
	d := ask[call](old, "call", "tv", "--detach")
	tv.eventually(5*time.Second, "it rings", func() bool { return tv.call(d.ID).State == "incoming" })
	tv.run("answer", d.ID)
	old.eventually(10*time.Second, "sound comes", func() bool { return old.call(d.ID).Stats.Audio.Received > 50 })
	panel.eventually(10*time.Second, "the first viewer goes on", func() bool { return panel.call(c.ID).Stats.Audio.Received > before+100 })
	if n := cameras(tv.pid()); n != 1 {
		t.Errorf("%d encoders run for two viewers", n)
	}
	if got := outputs(tv.pid()); got != "libopus libx264 pcm_mulaw" {
		t.Errorf("the child encodes %q", got)
	}
	old.run("hangup", d.ID)
	panel.run("hangup", c.ID)

	// Nothing in common is refused unheard.
	out, code := old.try("call", "other")
	if code != 8 || !strings.Contains(out, "codec") {
		t.Errorf("no common codec: exit %d: %s", code, out)
	}
	if got := other.calls(); len(got) != 0 {
		t.Errorf("a call that cannot work was noticed: %+v", got)
	}
}

// ownTV takes three calls, as the stock one does not.
func ownTV(t testing.TB) []string {
	return ownProfile(t, "tv", "opus G722 PCMU PCMA", "H264 VP8 H265", "")
}

func flowsIn(n *node, id string) func() bool {
	return func() bool { s := n.call(id).Stats; return s.Audio.Received > 20 && s.Video.Received > 20 }
}

// outputs names the encoders in the command of the one child, sorted.
func outputs(pid int) string {
	var found []string
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, f := range files {
		b, _ := os.ReadFile(f)
		words := strings.Split(string(b), "\x00")
		if len(words) == 0 || words[0] != "ffmpeg" || !descends(filepath.Base(filepath.Dir(f)), pid) {
			continue
		}
		for _, w := range []string{"libopus", "libx264", "libx265", "pcm_alaw", "pcm_mulaw"} {
			for _, x := range words {
				if x == w {
					found = append(found, w)
				}
			}
		}
	}
	return strings.Join(found, " ")
}

func descends(id string, pid int) bool {
	for id != "" && id != "0" {
		if id == fmt.Sprint(pid) {
			return true
		}
		b, err := os.ReadFile("/proc/" + id + "/stat")
		if err != nil {
			return false
		}
		s := string(b)
		fields := strings.Fields(s[strings.LastIndexByte(s, ')')+1:])
		id = fields[1]
	}
	return false
}

// H.265 is passed through where both ends have it: from an encoder child and from a file,
// into a recording that decodes. An end without it gets H.264 from the same source.
func TestA19_H265(t *testing.T) {
	needs(t, "ffmpeg", "ffprobe")
	l := newLab(t)
	first := newNode(t, l, "First", "tv", "", append(ownProfile(t, "tv", "opus", "H265", ""), "--source-pipeline", "test-picture", "--sink-record", t.TempDir())...).start().found()
	file := filepath.Join(t.TempDir(), "hevc.mkv")
	if out, err := exec.Command("ffmpeg", "-v", "error", "-f", "lavfi", "-i", "testsrc2=size=320x180:rate=25", "-f", "lavfi", "-i", "sine=frequency=500:sample_rate=48000", "-t", "3",
		"-c:v", "libx265", "-preset", "ultrafast", "-tune", "zerolatency", "-x265-params", "log-level=none:keyint=25", "-pix_fmt", "yuv420p", "-c:a", "libopus", "-ac", "2", file).CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	second := newNode(t, l, "Second", "panel", "", "--source-clip", file, "--sink-record", t.TempDir())
	third := newNode(t, l, "Third", "panel", "", append(ownProfile(t, "panel", "opus", "VP8 H264", ""), "--source-pipeline", "test-picture", "--sink-record", t.TempDir())...)
	first.invite(second, third)

	pictures := func(a, b call) bool { return a.Stats.Video.Received > 100 && b.Stats.Video.Received > 100 }
	a, b := holdCall(t, first, second, time.Second, pictures)
	if codecOf(a, "video") != "H265" || codecOf(b, "video") != "H265" {
		t.Errorf("%+v and %+v", a.Media, b.Media)
	}
	for _, f := range []string{a.Stats.Recording, b.Stats.Recording} {
		if got := recorded(t, f); got != "hevc opus" && got != "opus hevc" {
			t.Errorf("the recording holds %q", got)
		}
		decodes(t, f)
	}
	// First takes nothing but H.265, Third never: sound only.
	a, _ = holdCall(t, first, third, 0, func(a, b call) bool { return a.Stats.Audio.Received > 20 && b.Stats.Audio.Received > 20 })
	if codecOf(a, "video") != "" {
		t.Errorf("a picture of %s between devices that share none", codecOf(a, "video"))
	}
	// Second's file is H.265 only: Third shows nothing of it, but Second sees Third.
	a, b = holdCall(t, second, third, 0, func(a, _ call) bool { return a.Stats.Video.Received > 50 })
	if directions(a) != "audio sendrecv video recvonly" || directions(b) != "audio sendrecv video sendonly" {
		t.Errorf("%s and %s", directions(a), directions(b))
	}
}
