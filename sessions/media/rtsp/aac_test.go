package rtsp

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/bluenviron/gortsplib/v4/pkg/format"
	"github.com/bluenviron/mediacommon/v2/pkg/codecs/mpeg4audio"
	"github.com/pion/rtp"

	"github.com/hallway-home/hallway/sessions"
	"github.com/hallway-home/hallway/sessions/media"
)

// aac16 is AAC-LC at 16 kHz in mono.
func aac16(t testing.TB) *format.MPEG4Audio {
	t.Helper()
	f := &format.MPEG4Audio{PayloadTyp: 97, SizeLength: 13, IndexLength: 3, IndexDeltaLength: 3}
	if err := made(&f.Config).Unmarshal([]byte{0x14, 0x08}); err != nil {
		t.Fatal(err)
	}
	return f
}

// made is a new value at a place whose type belongs to another version of a library.
func made[T any](at **T) *T {
	*at = new(T)
	return *at
}

// aacFrames are 4 s of a tone.
func aacFrames(t testing.TB) (frames [][]byte) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		if os.Getenv("REQUIRE_PEERS") == "1" {
			t.Fatal("ffmpeg is missing; `apt install ffmpeg`")
		}
		t.Skip("SKIPPED: ffmpeg is missing; `apt install ffmpeg`")
	}
	file := filepath.Join(t.TempDir(), "tone.aac")
	if out, err := exec.Command(program, "-v", "error", "-f", "lavfi", "-i", "sine=frequency=440:sample_rate=16000:duration=4", "-ac", "1", "-c:a", "aac", file).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var packets mpeg4audio.ADTSPackets
	if err := packets.Unmarshal(b); err != nil {
		t.Fatal(err)
	}
	for _, p := range packets {
		frames = append(frames, p.AU)
	}
	return frames
}

func machine(t testing.TB) *media.Encoders {
	t.Helper()
	e, err := media.NewEncoders(nil, "")
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// Without ffmpeg the sound is left out, and the sentence says what would help.
func TestAACWithoutFFmpegIsLeftOut(t *testing.T) {
	c := newFakeCamera(t, false, h264Format(), aac16(t))
	t.Setenv("PATH", t.TempDir())
	d, err := Describe(t.Context(), c.url(), machine(t))
	if err != nil || len(d.Tracks) != 1 || d.Tracks[0].Kind != "video" || !strings.Contains(d.Left, "apt install ffmpeg") {
		t.Errorf("%+v, %v", d, err)
	}
}

// children of this process that make Opus.
func children(t testing.TB) (pids []int) {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		var pid, parent int
		var name, state string
		b, _ := os.ReadFile(f)
		if n, _ := fmt.Sscanf(string(b), "%d %s %s %d", &pid, &name, &state, &parent); n == 4 && name == "(ffmpeg)" && parent == os.Getpid() {
			pids = append(pids, pid)
		}
	}
	return pids
}

// gate takes what it is told to.
type gate struct {
	outlet
	mu    sync.Mutex
	sound bool
}

func (g *gate) Takes(kind string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return kind == "video" || g.sound
}

func (g *gate) hear(yes bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.sound = yes
}

// One child makes sound while somebody takes it. When it dies another goes on in the same
// stream, whose time agrees with the camera's; it ends when nobody listens, and with the
// source.
func TestAACBecomesOpus(t *testing.T) {
	frames := aacFrames(t)
	c := newFakeCamera(t, false, aac16(t))
	encoders := machine(t)
	d, err := Describe(t.Context(), c.url(), encoders)
	if err != nil || len(d.Tracks) != 1 || d.Tracks[0].Codec.Name != "opus" || d.Left != "" {
		t.Fatalf("%+v, %v", d, err)
	}
	ctx, cancel := contextWithCancel(t)
	var wg sync.WaitGroup
	src := (&Camera{URL: c.url(), Tracks: d.Tracks, Encoders: encoders}).Open(ctx, &wg, slog.New(slog.DiscardHandler))
	var mu sync.Mutex
	var got []rtp.Packet
	g := &gate{outlet: func(_ string, p *rtp.Packet) {
		mu.Lock()
		defer mu.Unlock()
		got = append(got, *p)
	}}
	view := src.Subscribe(g, &sessions.Position{})
	waitFor(t, "it plays", func() bool { _, p, _ := c.state(); return p == 1 })
	n := 0
	until := func(what string, cond func() bool) { // as the camera speaks on, in real time
		t.Helper()
		for end := time.Now().Add(20 * time.Second); !cond(); n++ {
			if time.Now().After(end) {
				t.Fatal("not within 20 s: " + what)
			}
			au := frames[1+n%60]
			c.send(0, uint16(n), uint32(n)*aacTicks, true, append([]byte{0, 16, byte(len(au) >> 5), byte(len(au) << 3)}, au...)...) //nolint:gosec // few
			time.Sleep(aacTicks * time.Second / 16000)
		}
	}
	count := func() int {
		mu.Lock()
		defer mu.Unlock()
		return len(got)
	}
	first := n
	until("a second goes by", func() bool { return n >= first+16 })
	if p := children(t); len(p) != 0 {
		t.Errorf("%d children for nobody", len(p))
	}
	g.hear(true)
	until("sound comes", func() bool { return count() > 50 })
	pids := children(t)
	if len(pids) != 1 {
		t.Fatalf("%d children", len(pids))
	}
	_ = syscall.Kill(pids[0], syscall.SIGKILL)
	until("the child is gone", func() bool { p := children(t); return len(p) == 0 || p[0] != pids[0] })
	before := count()
	until("sound comes again", func() bool { return count() > before+50 })
	g.hear(false)
	until("the child goes with its listener", func() bool { return len(children(t)) == 0 })
	g.hear(true)
	before = count()
	until("sound comes once more", func() bool { return count() > before+10 })
	view.Cancel()
	cancel()
	start := time.Now()
	wg.Wait()
	if p := children(t); len(p) != 0 || time.Since(start) > time.Second {
		t.Errorf("%d children after %v", len(p), time.Since(start))
	}
	jumps := 0
	for i := 1; i < len(got); i++ {
		step := int32(got[i].Timestamp - got[i-1].Timestamp)
		if got[i].SequenceNumber != got[i-1].SequenceNumber+1 || step < opusFrame {
			t.Errorf("packet %d: number %d after %d, %d ticks later", i, got[i].SequenceNumber, got[i-1].SequenceNumber, step)
		}
		if step > opusFrame {
			jumps++
		}
	}
	span := time.Duration(got[len(got)-1].Timestamp-got[0].Timestamp) * time.Second / opusRate
	if jumps > 6 || span > time.Duration(n)*aacTicks*time.Second/16000 {
		t.Errorf("%d jumps in time, which says %v", jumps, span)
	}
}

// What the child does not take is dropped: the camera's connection never waits.
func TestAACNeverWaits(t *testing.T) {
	hub := media.NewHub()
	defer hub.Subscribe(outlet(func(string, *rtp.Packet) {}), &sessions.Position{}).Cancel()
	x := newTranscoder(hub, slog.New(slog.DiscardHandler))
	if err := x.begin(found{form: aac16(t)}); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	for i := range 10 * aacQueue {
		x.write(&rtp.Packet{Header: rtp.Header{SequenceNumber: uint16(i), Timestamp: uint32(i) * aacTicks, Marker: true}, Payload: []byte{0, 16, 0, 16, 1, 2}}, start, start) //nolint:gosec // few
	}
	if len(x.queue) != aacQueue || time.Since(start) > time.Second {
		t.Errorf("%d frames wait after %v", len(x.queue), time.Since(start))
	}
	for i := range aacQueue {
		if f := <-x.queue; f.pos != int64(i)*aacTicks*3 || !bytes.Equal(f.data, []byte{1, 2}) {
			t.Fatalf("frame %d: %+v", i, f)
		}
	}
}

// Whatever a camera calls AAC, and however its time jumps: nothing waits, and the position
// never goes far without time going by.
func FuzzAAC(f *testing.F) {
	f.Add([]byte{0, 16, 0, 16, 1, 2}, uint32(1024))
	f.Add([]byte{0, 32, 0, 16, 0, 16, 1, 2, 3, 4}, uint32(0xffffff00))
	f.Fuzz(func(t *testing.T, b []byte, step uint32) {
		hub := media.NewHub()
		defer hub.Subscribe(outlet(func(string, *rtp.Packet) {}), &sessions.Position{}).Cancel()
		x := newTranscoder(hub, slog.New(slog.DiscardHandler))
		if err := x.begin(found{form: aac16(t)}); err != nil {
			t.Fatal(err)
		}
		now := time.Unix(1e9, 0)
		for i := range 8 {
			x.write(&rtp.Packet{Header: rtp.Header{SequenceNumber: uint16(i), Timestamp: uint32(i) * step, Marker: i%3 > 0}, Payload: b}, now, now) //nolint:gosec // few
			now = now.Add(64 * time.Millisecond)
		}
		if pos := x.position(0); pos < 0 || pos > 8*(aacJump+1)*opusRate {
			t.Fatalf("position %d", pos)
		}
	})
}
