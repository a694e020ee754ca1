package rtc

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/hallway-home/hallway/profiles"
	"github.com/hallway-home/hallway/sessions"
	"github.com/hallway-home/hallway/sessions/media"
)

// TestMain lets tests that play in real time wait side by side, on any number of processors:
// it is the clock that they wait for.
func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", "6"); err != nil {
		panic(err)
	}
	dir, err := os.MkdirTemp("", "hallway-rtc")
	if err != nil {
		panic(err)
	}
	clips.dir = dir
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		_ = os.RemoveAll(dir)
		os.Exit(code)
	}))
}

// clips are made once for all tests: nobody changes them.
var clips = struct {
	sync.Mutex
	dir  string
	made map[string]string
}{made: map[string]string{}}

// needFFmpeg skips visibly without ffmpeg, and fails where peers are required.
func needFFmpeg(t testing.TB) {
	t.Helper()
	if _, err := exec.LookPath("ffmpeg"); err != nil {
		if os.Getenv("REQUIRE_PEERS") == "1" {
			t.Fatal("ffmpeg is missing; `apt install ffmpeg`")
		}
		t.Skip("SKIPPED: ffmpeg is missing; `apt install ffmpeg`")
	}
}

func makeClip(t testing.TB, codec ...string) string {
	t.Helper()
	needFFmpeg(t)
	clips.Lock()
	defer clips.Unlock()
	name := strings.Join(codec, " ")
	if path := clips.made[name]; path != "" {
		return path
	}
	path := filepath.Join(clips.dir, fmt.Sprintf("clip-%d.mkv", len(clips.made)))
	args := []string{"-hide_banner", "-loglevel", "error", "-f", "lavfi", "-i", "testsrc2=size=320x180:rate=25", "-f", "lavfi", "-i", "sine=frequency=500:sample_rate=48000", "-t", "3"}
	if len(codec) == 0 {
		codec = []string{"-c:v", "libx264", "-profile:v", "baseline", "-pix_fmt", "yuv420p", "-g", "25", "-bf", "0"}
	}
	args = append(append(args, codec...), "-c:a", "libopus", "-ac", "2", path)
	if out, err := exec.Command("ffmpeg", args...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	clips.made[name] = path
	return path
}

func caps(t testing.TB, class string) profiles.Capabilities {
	p, err := profiles.ForClass(class)
	if err != nil {
		t.Fatal(err)
	}
	return p.Capabilities
}

type side struct {
	*Factory
	leg  sessions.Leg
	file string
}

func newSide(t testing.TB, clip string, c profiles.Capabilities, record bool) *side {
	dir := t.TempDir()
	sink := media.SinkSpec{}
	if record {
		sink.Record = dir
	}
	f := New(Config{Endpoint: media.NewBox(media.SourceSpec{Clip: clip}, sink, nil), Interfaces: []string{"lo"}})
	leg, err := f.NewLeg(sessions.LegConfig{CallID: "0123456789abcdef", Remote: "other", Capabilities: c})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = leg.Close() })
	return &side{f, leg, filepath.Join(dir, "01234567-from-other.mkv")}
}

func connect(t testing.TB, a, b *side) {
	t.Helper()
	ctx := t.Context()
	offer, err := a.leg.Offer(ctx)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := b.leg.Answer(ctx, offer)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.leg.SetAnswer(ctx, answer); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(b.leg.Start(ctx), a.leg.Start(ctx)); err != nil {
		t.Fatal(err)
	}
}

func waitFor(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !cond(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("not within 20 s: " + what)
		}
	}
}

type probed struct {
	Streams []struct {
		CodecName string `json:"codec_name"`
		CodecType string `json:"codec_type"`
		Frames    string `json:"nb_read_frames"`
	} `json:"streams"`
}

func probe(t testing.TB, file string) probed {
	t.Helper()
	out, err := exec.Command("ffprobe", "-v", "error", "-count_frames", "-show_streams", "-of", "json", file).Output()
	var p probed
	if err := errors.Join(err, json.Unmarshal(out, &p)); err != nil {
		t.Fatal(err)
	}
	if msg, err := exec.Command("ffmpeg", "-v", "error", "-xerror", "-i", file, "-enc_time_base", "1:1000", "-f", "null", "-").CombinedOutput(); err != nil || len(msg) > 0 {
		t.Fatalf("%s does not decode cleanly: %v %s", file, err, msg)
	}
	return p
}

func TestTwoSidesSeeAndHearEachOther(t *testing.T) {
	t.Parallel()
	for name, codec := range map[string][]string{"h264": nil, "vp8": {"-c:v", "libvpx", "-deadline", "realtime", "-b:v", "500k"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			clip := makeClip(t, codec...)
			a, b := newSide(t, clip, caps(t, "tv"), true), newSide(t, clip, caps(t, "panel"), true)
			connect(t, a, b)
			for _, s := range []*side{a, b} {
				waitFor(t, "sound and picture on both sides", func() bool {
					st := s.leg.Stats()
					return st.Audio.PacketsReceived > 150 && st.Video.PacketsReceived > 150
				})
				if st := s.leg.Stats(); st.Local == "" || st.Audio.Lost > 3 || st.Audio.PacketsSent == 0 {
					t.Errorf("statistics: %+v", st)
				}
			}
			for _, s := range []*side{a, b} {
				if err := s.leg.Close(); err != nil {
					t.Fatal(err)
				}
			}
			p := probe(t, a.file)
			if len(p.Streams) != 2 || p.Streams[0].CodecName != name || p.Streams[1].CodecName != "opus" {
				t.Fatalf("recorded %+v", p)
			}
		})
	}
}

func TestDirectionsAreKept(t *testing.T) {
	t.Parallel()
	clip := makeClip(t)
	tv, cam := newSide(t, clip, caps(t, "tv"), true), newSide(t, clip, caps(t, "camera"), true)
	connect(t, tv, cam)
	waitFor(t, "the camera's picture", func() bool { return tv.leg.Stats().Video.PacketsReceived > 50 })
	if st := cam.leg.Stats(); st.Video.PacketsReceived+st.Audio.PacketsReceived != 0 || tv.leg.Stats().Video.PacketsSent != 0 {
		t.Errorf("something went to a camera: %+v", st)
	}
	for _, m := range cam.leg.Media() {
		if m.Direction != profiles.SendOnly {
			t.Errorf("%+v, want sendonly", m)
		}
	}
	if _, err := os.Stat(cam.file); err == nil {
		t.Error("the camera made a recording of nothing")
	}
}

func TestSoundOnlyWithASpeaker(t *testing.T) {
	a, b := newSide(t, "", caps(t, "tv"), false), newSide(t, "", caps(t, "speaker"), false)
	offer, err := a.leg.Offer(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	answer, err := b.leg.Answer(t.Context(), offer)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.leg.SetAnswer(t.Context(), answer); err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(a.leg.Media(), func(m sessions.MediaState) bool { return m.Kind == "video" })
	if m := a.leg.Media(); m[0].Direction != profiles.SendRecv || m[i].Direction != profiles.Inactive {
		t.Fatalf("%+v", m)
	}
}

func TestNoCommonCodecOpensNothing(t *testing.T) {
	a, b := newSide(t, "", caps(t, "tv"), true), newSide(t, "", caps(t, "tv"), true)
	offer, err := a.leg.Offer(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	other := strings.NewReplacer("opus/48000/2", "speex/16000", "H264/90000", "H261/90000", "H265/90000", "H262/90000", "VP8/90000", "H263/90000", " 9 0 8", "", "G722/8000", "x/1", "PCMU/8000", "y/1", "PCMA/8000", "z/1").Replace(string(offer))
	if _, err := b.leg.Answer(t.Context(), []byte(other)); !errors.Is(err, sessions.ErrNoCommonCodec) {
		t.Fatalf("answered with %v", err)
	}
}

func TestUnreadableClipIsOneSentence(t *testing.T) {
	box := media.NewBox(media.SourceSpec{Clip: "/nowhere.mkv"}, media.SinkSpec{}, nil)
	if _, _, err := box.OpenSource(context.Background(), nil); err == nil || !strings.Contains(err.Error(), "make clips") {
		t.Fatal(err)
	}
}

func FuzzAnswer(f *testing.F) {
	fac := New(Config{Endpoint: media.NewBox(media.SourceSpec{}, media.SinkSpec{}, nil), Interfaces: []string{"lo"}})
	tv, err := profiles.ForClass("tv")
	if err != nil {
		f.Fatal(err)
	}
	l, err := fac.NewLeg(sessions.LegConfig{Capabilities: tv.Capabilities})
	if err != nil {
		f.Fatal(err)
	}
	offer, err := l.Offer(context.Background())
	if err != nil {
		f.Fatal(err)
	}
	_ = l.Close()
	f.Add(offer)
	f.Add([]byte("v=0\r\no=- 0 0 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 0\r\n"))
	f.Add([]byte("m="))
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := fac.NewLeg(sessions.LegConfig{Capabilities: tv.Capabilities})
		if err != nil {
			t.Fatal(err)
		}
		_, _ = l.Answer(t.Context(), b)
		if l.(*Leg).feed != nil || l.(*Leg).sink != nil {
			t.Fatal("an offer opened media")
		}
		_ = l.Close()
	})
}
