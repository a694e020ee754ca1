package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hallway-home/hallway/test/netlab/impair"
)

// slowKeys is a camera whose encoder makes a key frame only every 10 s.
const slowKeys = `class: camera
title: Camera
capabilities:
  audio: {direction: inactive}
  video: {direction: sendonly, codecs: [{name: H264, clock: 90000, fmtp: "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f"}]}
behaviour: {auto-answer: true, ring-timeout: 45s, half-duplex: true, max-calls: 16, automata: true, mobility: fixed, duplex: send-only}
pipelines:
  - name: slow-keys
    kind: source
    about: moving test picture with few key frames
    command: [ffmpeg, -hide_banner, -loglevel, error]
    video:
      codecs: [H264]
      input: [-re, -f, lavfi, -i, "testsrc2=size=640x360:rate=25"]
      output: [-map, "{{.Input}}:v", -c:v, libx264, -profile:v, baseline, -pix_fmt, yuv420p, -tune, zerolatency, -preset, ultrafast, -g, "250", -keyint_min, "250", -sc_threshold, "0", -b:v, 1M,
        -f, rtp, -payload_type, "96", "rtp://127.0.0.1:{{.Port}}?pkt_size=1200"]
`

// A second and a tenth viewer share the encode of the first: one camera process in the
// process table. Each has the picture at once, from a key frame of the past.
func TestA18_SharedEncodeOfTenViewers(t *testing.T) {
	needs(t, "ffmpeg")
	l := newLab(t)
	dir := t.TempDir()
	conf := filepath.Join(dir, "camera.conf")
	must(t, os.WriteFile(filepath.Join(dir, "slow.yaml"), []byte(slowKeys), 0o600))
	must(t, os.WriteFile(conf, []byte("pipelines: "+filepath.Join(dir, "slow.yaml")+"\n"), 0o600))
	tv := newNode(t, l, "TV", "tv", "", "--sink-record", t.TempDir()).start().found()
	cam := newNode(t, l, "Cam", "camera", "", "--config", conf, "--source-pipeline", "slow-keys")
	viewers := []*node{tv}
	for i := range 4 {
		viewers = append(viewers, newNode(t, l, fmt.Sprintf("Panel %d", i+1), "panel", "", "--sink-record", t.TempDir()))
	}
	tv.invite(append(slices.Clone(viewers[1:]), cam)...)
	for _, v := range viewers[1:] {
		v.eventually(5*time.Second, "it reaches the camera", func() bool { return v.sees("cam") == "reachable" })
	}
	encoders := func() int { return cameras(cam.pid()) }
	type view struct {
		by   *node
		id   string
		took time.Duration
	}
	var all []view
	for i := range 10 {
		by := viewers[i%len(viewers)]
		c := ask[call](by, "call", "cam", "--detach")
		by.eventually(3*time.Second, "the camera answers", func() bool { return by.call(c.ID).State == "active" })
		took := by.eventually(8*time.Second, "the picture comes", func() bool { return by.call(c.ID).Stats.Video.Received > 0 })
		all = append(all, view{by, c.ID, took})
		if n := encoders(); n != 1 {
			t.Fatalf("%d encoders for %d viewers", n, len(all))
		}
	}
	var times []time.Duration
	for _, v := range all[1:] { // the first one waited for the encoder
		times = append(times, v.took)
	}
	slices.Sort(times)
	t.Logf("answer to picture, as seen by the command line: %v", times)
	if m := times[len(times)/2]; m > 500*time.Millisecond {
		t.Errorf("half of the viewers wait %v for a picture: no key frame of the past is given", m)
	}
	time.Sleep(time.Second) // a second of picture for each
	for _, v := range all {
		v.by.run("hangup", v.id)
	}
	took := cam.eventually(3*time.Second, "the encoder is gone", func() bool { return encoders() == 0 })
	t.Logf("the encoder ended %v after the last viewer", took)
	for _, v := range all {
		file := ""
		v.by.eventually(3*time.Second, "its recording is closed", func() bool {
			c := v.by.call(v.id)
			file = c.Stats.Recording
			return c.State == "ended" && file != ""
		})
		beginsWithKeyFrame(t, file)
	}
}

// What gets lost on the way to one viewer is repaired from what the source keeps, and the
// viewer on a good cable notices nothing.
func TestA18_LossesAreRepaired(t *testing.T) {
	l := newLab(t)
	cam := newNode(t, l, "Cam", "camera", "", "--source-clip", clip(t, 440)).start().found()
	near, far := newNode(t, l, "Near", "tv", "", "--sink-record", t.TempDir()), newNode(t, l, "Far", "tv", "", "--sink-record", t.TempDir())
	cam.invite(near, far)
	cable := badCable(t, l, far.host, impair.Faults{Delay: 5 * time.Millisecond, Seed: 1})
	allSee(t, 15*time.Second, cam, near, far)
	type counted struct {
		ID    string
		Stats struct {
			Video struct {
				Received int `json:"packets_received"`
				Lost     int `json:"lost"`
			}
		}
	}
	ids := map[*node]string{}
	seen := func(n *node) (c counted) {
		for _, c := range ask[[]counted](n, "calls") {
			if c.ID == ids[n] {
				return c
			}
		}
		return c
	}
	for _, n := range []*node{near, far} {
		ids[n] = ask[call](n, "call", "cam", "--detach").ID
		n.eventually(8*time.Second, "the picture comes", func() bool { return seen(n).Stats.Video.Received > 50 })
	}
	before := cable.Stats().Lost
	cable.Set(impair.Faults{Loss: 0.05, Delay: 5 * time.Millisecond, Seed: 1})
	time.Sleep(6 * time.Second)
	lost := cable.Stats().Lost - before
	cable.Set(impair.Faults{Delay: 5 * time.Millisecond, Seed: 1})
	time.Sleep(time.Second) // the last repairs
	f, n := seen(far).Stats.Video, seen(near).Stats.Video
	t.Logf("the cable lost %d packets of all kinds; the viewer behind it has %d and misses %d, the other one %d and %d", lost, f.Received, f.Lost, n.Received, n.Lost)
	if lost < 20 {
		t.Errorf("the cable lost only %d packets: nothing was tried", lost)
	}
	if int64(f.Lost)*5 > lost {
		t.Errorf("%d packets were lost, %d of the picture for good", lost, f.Lost)
	}
	if n.Lost != 0 {
		t.Errorf("the viewer on a good cable misses %d packets", n.Lost)
	}
}

// beginsWithKeyFrame decodes a recording.
func beginsWithKeyFrame(t *testing.T, file string) {
	t.Helper()
	out, err := exec.Command("ffprobe", "-v", "error", "-select_streams", "v", "-show_entries", "frame=pict_type", "-of", "csv=p=0", file).CombinedOutput()
	frames := strings.Fields(strings.ReplaceAll(string(out), ",", " "))
	if err != nil || len(frames) < 20 || frames[0] != "I" {
		t.Errorf("%s: %d frames, %v: %.200s", filepath.Base(file), len(frames), err, out)
	}
}
