package media

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/pion/rtp"

	"github.com/hallway-home/hallway/profiles"
	"github.com/hallway-home/hallway/sessions"
)

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

func makeClip(t testing.TB, seconds string, args ...string) string {
	t.Helper()
	needFFmpeg(t)
	path := filepath.Join(t.TempDir(), "clip.mkv")
	all := append([]string{"-hide_banner", "-loglevel", "error", "-f", "lavfi", "-i", "testsrc2=size=320x180:rate=25", "-f", "lavfi", "-i", "sine=frequency=500:sample_rate=48000", "-t", seconds}, args...)
	if out, err := exec.Command("ffmpeg", append(all, path)...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return path
}

func waitFor(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !cond(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("not within 10 s: " + what)
		}
	}
}

func TestClipsOfEveryCodec(t *testing.T) {
	h264 := []string{"-c:v", "libx264", "-profile:v", "baseline", "-pix_fmt", "yuv420p", "-g", "25", "-bf", "0"}
	for name, c := range map[string]struct {
		args  []string
		audio profiles.Codec
		video string
	}{
		"h264 opus": {append(h264, "-c:a", "libopus", "-ac", "2"), opus, "H264"},
		"vp8 pcmu":  {[]string{"-c:v", "libvpx", "-deadline", "realtime", "-c:a", "pcm_mulaw", "-ar", "8000", "-ac", "1"}, profiles.Codec{Name: "PCMU", ClockRate: 8000, Channels: 1}, "VP8"},
		"pcma":      {[]string{"-vn", "-c:a", "pcm_alaw", "-ar", "8000", "-ac", "1"}, profiles.Codec{Name: "PCMA", ClockRate: 8000, Channels: 1}, ""},
		"g722":      {[]string{"-vn", "-c:a", "g722", "-ar", "16000", "-ac", "1"}, profiles.Codec{Name: "G722", ClockRate: 8000, Channels: 1}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			f, err := loadClip(makeClip(t, "2", c.args...))
			if err != nil {
				t.Fatal(err)
			}
			count, keys := map[string]int{}, 0
			for _, x := range f.frames {
				count[x.kind]++
				if x.kind == "video" && x.key {
					keys++
				}
			}
			if c.video != "" && (count["video"] != 50 || keys < 1 || f.tracks[0].Codec.Name != c.video) {
				t.Errorf("%d pictures, %d key frames, %+v", count["video"], keys, f.tracks)
			}
			if n := count["audio"]; n < 98 || n > 103 {
				t.Errorf("%d sounds of 20 ms in 2 s", n)
			}
			if a := f.tracks[len(f.tracks)-1].Codec; a != c.audio {
				t.Errorf("sound: %+v", a)
			}
			if f.length < 1990*time.Millisecond || f.length > 2050*time.Millisecond {
				t.Errorf("length %v", f.length)
			}
		})
	}
}

func TestClipsThatCannotBePlayedSayWhy(t *testing.T) {
	text := filepath.Join(t.TempDir(), "a.mkv")
	if err := os.WriteFile(text, []byte("hello"), 0o600); err != nil {
		t.Fatal(err)
	}
	flac := makeClip(t, "0.2", "-vn", "-c:a", "flac")
	for path, want := range map[string]string{"/nowhere.mkv": "make clips", text: "cannot be played", flac: "convert it with ffmpeg"} {
		if _, err := loadClip(path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func TestClipLoopsWithoutASeam(t *testing.T) {
	box := NewBox(SourceSpec{Clip: makeClip(t, "0.4", "-c:v", "libx264", "-profile:v", "baseline", "-pix_fmt", "yuv420p", "-g", "5", "-bf", "0", "-c:a", "libopus", "-ac", "2")}, SinkSpec{}, nil)
	src, release, err := box.OpenSource(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	var mu sync.Mutex
	got := map[string][]*rtp.Packet{}
	start := time.Now()
	view := src.Subscribe(outlet(func(kind string, p *rtp.Packet) {
		mu.Lock()
		defer mu.Unlock()
		got[kind] = append(got[kind], p)
	}), &sessions.Position{})
	waitFor(t, "three rounds", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(got["audio"]) > 70
	})
	took := time.Since(start)
	view.Cancel()
	for kind, rate := range map[string]uint32{"audio": 48000, "video": 90000} {
		ps := got[kind]
		for i := 1; i < len(ps); i++ {
			step := ps[i].Timestamp - ps[i-1].Timestamp
			if ps[i].SequenceNumber != ps[i-1].SequenceNumber+1 || step > rate/10 {
				t.Fatalf("%s: a seam at packet %d: sequence %d to %d, %d ticks", kind, i, ps[i-1].SequenceNumber, ps[i].SequenceNumber, step)
			}
		}
		media := time.Duration(ps[len(ps)-1].Timestamp-ps[0].Timestamp) * time.Second / time.Duration(rate)
		if d := (media - took).Abs(); d > 150*time.Millisecond {
			t.Errorf("%s: %v of media in %v", kind, media, took)
		}
	}
}

func alive(pid int) bool { return syscall.Kill(pid, 0) == nil }

// sound is what a small source offers; its command gets the port as $0.
var sound = &profiles.Stream{Codecs: []string{"opus"}, Output: []string{"{{.Port}}"}}

// helper is a pipeline whose child starts a grandchild and writes both process ids down.
func helper(t *testing.T) (profiles.Pipeline, func() []int) {
	file := filepath.Join(t.TempDir(), "pids")
	script := "sleep 1000 & echo $$ $! > " + file + ".new; mv " + file + ".new " + file + "; wait "
	return profiles.Pipeline{Name: "helper", Kind: profiles.SourcePipeline, Command: []string{"sh", "-c", script}, Audio: sound}, func() (pids []int) {
		b, _ := os.ReadFile(file)
		for _, w := range strings.Fields(string(b)) {
			n, _ := strconv.Atoi(w)
			pids = append(pids, n)
		}
		return pids
	}
}

func TestBoxOpensWithTheFirstAndFreesWithTheLast(t *testing.T) {
	p, pids := helper(t)
	box := NewBox(SourceSpec{Pipeline: &p}, SinkSpec{}, nil)
	if pids() != nil {
		t.Fatal("something runs before anybody asked")
	}
	one, release1, err1 := box.OpenSource(t.Context(), nil)
	two, release2, err2 := box.OpenSource(t.Context(), nil)
	if err := errors.Join(err1, err2); err != nil || one != two {
		t.Fatal(err, "or not the same source")
	}
	waitFor(t, "the child and its child", func() bool { return len(pids()) == 2 })
	all := pids()
	release1()
	release1() // twice is once
	if !alive(all[0]) || !alive(all[1]) {
		t.Fatal("freed while somebody uses it")
	}
	release2()
	for _, pid := range all {
		if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); err == nil && !strings.Contains(string(b), ") Z ") {
			t.Errorf("process %d lives on after the last user: %s", pid, b)
		}
	}
	_, release3, err := box.OpenSource(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	waitFor(t, "a new child", func() bool { n := pids(); return len(n) == 2 && n[0] != all[0] })
	release3()
}

func TestManyUsersAtOnce(t *testing.T) {
	p, _ := helper(t)
	box := NewBox(SourceSpec{Pipeline: &p}, SinkSpec{}, nil)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 5 {
				_, release, err := box.OpenSource(context.Background(), nil)
				if err != nil {
					t.Error(err)
					return
				}
				release()
			}
		})
	}
	wg.Wait()
	if box.users != 0 || box.open != nil {
		t.Fatalf("%d users, and it is open: %t", box.users, box.open != nil)
	}
}

func TestDeviceWithoutMediaSendsNothing(t *testing.T) {
	box := NewBox(SourceSpec{}, SinkSpec{}, nil)
	src, release, err := box.OpenSource(t.Context(), nil)
	if src != nil || err != nil {
		t.Fatal(src, err)
	}
	release()
	sink, err := box.OpenSink(t.Context(), "call", "remote", both)
	if err != nil || sink.Path() != "" {
		t.Fatal(sink, err)
	}
	sink.WriteRTP("audio", opus, &rtp.Packet{})
	_ = sink.Close()
}

func TestMissingProgramIsOneSentence(t *testing.T) {
	p := profiles.Pipeline{Name: "x", Command: []string{"no-such-encoder"}, Audio: sound}
	_, _, err := NewBox(SourceSpec{Pipeline: &p}, SinkSpec{}, nil).OpenSource(t.Context(), nil)
	if err == nil || !strings.Contains(err.Error(), "no-such-encoder is not installed; install it") || strings.Contains(err.Error(), "\n") {
		t.Errorf("%v", err)
	}
	_, err = NewBox(SourceSpec{}, SinkSpec{Pipeline: &p}, nil).OpenSink(t.Context(), "c", "r", both)
	if err == nil || !strings.Contains(err.Error(), "not installed") {
		t.Errorf("%v", err)
	}
}

func TestFailingChildGivesUpWithItsLastWords(t *testing.T) {
	p := profiles.Pipeline{Name: "x", Command: []string{"sh", "-c", "echo cannot open /dev/video0 >&2; exit 3"}, Audio: sound}
	src, release, err := NewBox(SourceSpec{Pipeline: &p}, SinkSpec{}, nil).OpenSource(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	select {
	case <-src.Done():
	case <-time.After(10 * time.Second):
		t.Fatal("it is started for ever")
	}
	if err := src.Err(); err == nil || !strings.Contains(err.Error(), "cannot open /dev/video0") {
		t.Error(err)
	}
}

func TestUnknownWordInACommandIsAnError(t *testing.T) {
	if _, err := expand([]string{"ffmpeg", "{{.Camera}}"}, map[string]any{"Port": 1}, nil); err == nil || !strings.Contains(err.Error(), "{{.Camera}}") {
		t.Error(err)
	}
}

func TestRestartedChildContinuesTheStream(t *testing.T) {
	l := TimeLine{Clock: 90000}
	now := time.Now()
	in := []rtp.Header{{SSRC: 1, SequenceNumber: 50000, Timestamp: 4_000_000_000}, {SSRC: 1, SequenceNumber: 50001, Timestamp: 4_000_003_600}, {SSRC: 2, SequenceNumber: 7, Timestamp: 100}, {SSRC: 2, SequenceNumber: 8, Timestamp: 3700}}
	for i, h := range in {
		p := &rtp.Packet{Header: h}
		l.Join(p, now.Add(time.Duration(i)*40*time.Millisecond))
		if want := uint32(4_000_000_000 + i*3600); p.SequenceNumber != uint16(50000+i) || p.Timestamp-want+2 > 4 {
			t.Errorf("packet %d: sequence %d, stamp %d, want %d", i, p.SequenceNumber, p.Timestamp, want)
		}
	}
}

func TestTestPictureOfEveryProfileRuns(t *testing.T) {
	needFFmpeg(t)
	p, err := profiles.ForClass("camera")
	if err != nil {
		t.Fatal(err)
	}
	pipe, err := p.Pipeline(profiles.SourcePipeline, "test-picture")
	if err != nil {
		t.Fatal(err)
	}
	src, release, err := NewBox(SourceSpec{Pipeline: &pipe}, SinkSpec{}, nil).OpenSource(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	rec := record(t, []sessions.MediaState{{Kind: "audio", Direction: profiles.RecvOnly}, {Kind: "video", Direction: profiles.RecvOnly}})
	codecs, count := map[string]profiles.Codec{}, map[string]*atomic.Int32{"audio": {}, "video": {}}
	for _, tr := range src.Tracks() {
		codecs[tr.Kind] = tr.Codec
	}
	view := src.Subscribe(outlet(func(kind string, p *rtp.Packet) {
		rec.WriteRTP(kind, codecs[kind], p)
		count[kind].Add(1)
	}), &sessions.Position{})
	waitFor(t, "sound and picture", func() bool { return count["audio"].Load() > 60 && count["video"].Load() > 30 })
	view.Cancel()
	if err := rec.Close(); err != nil {
		t.Fatal(err)
	}
	if msg, err := exec.Command("ffmpeg", "-v", "error", "-xerror", "-i", rec.Path(), "-f", "null", "-").CombinedOutput(); err != nil || len(msg) > 0 {
		t.Fatalf("the recording does not decode: %v %s", err, msg)
	}
	c, err := loadClip(rec.Path())
	if err != nil || len(c.tracks) != 2 {
		t.Fatal(c, err)
	}
}

func TestRenderPipelineGetsTheMedia(t *testing.T) {
	needFFmpeg(t)
	out := filepath.Join(t.TempDir(), "heard.wav")
	p := profiles.Pipeline{Name: "out", Kind: profiles.SinkPipeline, Command: []string{"ffmpeg", "-hide_banner", "-loglevel", "error", "-y", "-protocol_whitelist", "file,udp,rtp", "-i", "{{.SDP}}", "-t", "0.5", out}}
	pcmu := profiles.Codec{Name: "PCMU", ClockRate: 8000, Channels: 1}
	sink, err := NewBox(SourceSpec{}, SinkSpec{Pipeline: &p}, nil).OpenSink(t.Context(), "c", "r", []sessions.MediaState{{Kind: "audio", Codec: "PCMU", Direction: profiles.RecvOnly}})
	if err != nil {
		t.Fatal(err)
	}
	file := sink.(*pipelineSink).file
	s := newStream(pcmu, 0)
	var at time.Duration
	waitFor(t, "the program to write half a second", func() bool {
		for range 5 {
			for _, p := range s.at(at, make([]byte, 160)) {
				sink.WriteRTP("audio", pcmu, p)
			}
			at += 20 * time.Millisecond
		}
		i, err := os.Stat(out)
		return err == nil && i.Size() > 4000
	})
	if err := sink.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(file); err == nil {
		t.Error("the SDP file is left behind")
	}
}

func FuzzClip(f *testing.F) {
	b := seedFile(f)
	f.Add(b)
	f.Add(b[:len(b)/2])
	f.Add([]byte{0x1a, 0x45, 0xdf, 0xa3, 0x80})
	f.Fuzz(func(_ *testing.T, b []byte) { _, _ = parseClip(b) })
}

// seedFile makes a small valid file with our own writer.
func seedFile(f *testing.F) []byte {
	path := filepath.Join(f.TempDir(), "seed.mkv")
	file, err := os.Create(path)
	if err != nil {
		f.Fatal(err)
	}
	m, err := newMKV(file, []mkvTrack{{video: true, codec: "V_MPEG4/ISO/AVC", private: avcC([]byte{0x67, 0x42, 0xe0, 0x1f}, []byte{0x68, 1}), width: 16, height: 16}, {codec: "A_OPUS", sampling: 48000, channels: 2}})
	if err != nil {
		f.Fatal(err)
	}
	for i := range 4 {
		_ = m.add(i%2, time.Duration(i)*20*time.Millisecond, true, []byte{0, 0, 0, 2, 0x65, byte(i)})
	}
	if err := m.close(); err != nil {
		f.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	return b
}
