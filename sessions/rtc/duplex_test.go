package rtc

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bluenviron/mediacommon/v2/pkg/codecs/g711"

	"github.com/hallway-home/hallway/profiles"
	"github.com/hallway-home/hallway/sessions"
	"github.com/hallway-home/hallway/sessions/media"
)

// tone is 20 ms of 16-bit big-endian PCM at 8 kHz.
func tone(amplitude float64) []byte {
	var out []byte
	for i := range 160 {
		s := int16(amplitude * 32767 * math.Sin(2*math.Pi*500*float64(i)/8000))
		out = append(out, byte(uint16(s)>>8), byte(s))
	}
	return out
}

func TestDuplexShutsWhileTheFarEndSpeaks(t *testing.T) {
	pcmu, pcma := profiles.Codec{Name: "PCMU", ClockRate: 8000}, profiles.Codec{Name: "PCMA", ClockRate: 8000}
	encode := func(c profiles.Codec, amplitude float64) []byte {
		var b []byte
		var err error
		if c.Name == "PCMU" {
			b, err = g711.Mulaw(tone(amplitude)).Marshal()
		} else {
			b, err = g711.Alaw(tone(amplitude)).Marshal()
		}
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for _, c := range []profiles.Codec{pcmu, pcma} {
		d, now := &duplex{}, time.Unix(1e6, 0)
		d.hear(c, encode(c, 0.001), now) // hiss at -63 dBov
		if d.shut(now) {
			t.Errorf("%s: hiss shuts the microphone", c.Name)
		}
		d.hear(c, encode(c, 0.05), now) // speech at -29
		if !d.shut(now) || !d.shut(now.Add(hangover-time.Millisecond)) || d.shut(now.Add(hangover)) {
			t.Errorf("%s: not shut for speech and a pause", c.Name)
		}
		quiet, ok := d.silence(c, 160)
		if level, _ := d.level(c, quiet); !ok || len(quiet) != 160 || level > -70 {
			t.Errorf("%s: silence has %.0f dBov", c.Name, level)
		}
	}
	d, opus := &duplex{}, profiles.Codec{Name: "opus", ClockRate: 48000, Channels: 2}
	quiet, _ := d.silence(opus, 0)
	if level, ok := d.level(opus, quiet); !ok || level > -70 {
		t.Errorf("opus: silence has %.0f dBov, %v", level, ok)
	}
	d.hear(opus, []byte{1}, time.Now())
	d.hear(profiles.Codec{Name: "L16"}, []byte{1}, time.Now())
	var full *duplex
	full.hear(pcmu, encode(pcmu, 0.5), time.Now())
	if d.shut(time.Now()) || full.shut(time.Now()) {
		t.Error("shut by what cannot be decoded, or at full duplex")
	}
}

// G.722 as ffmpeg makes it is heard: speech shuts the microphone, hiss does not, in packets of
// 20 ms. And what is sent meanwhile is silence for ffmpeg's decoder, after speech as well.
func TestDuplexHearsG722(t *testing.T) {
	needFFmpeg(t)
	g722 := profiles.Codec{Name: "G722", ClockRate: 8000, Channels: 1}
	encode := func(amplitude string, hz int) []byte {
		out, err := exec.Command("ffmpeg", "-v", "error", "-f", "lavfi", "-i", fmt.Sprintf("aevalsrc='%s*sin(2*PI*%d*t)':s=16000:d=1", amplitude, hz), "-c:a", "g722", "-f", "g722", "-").Output()
		if err != nil || len(out) < 7900 {
			t.Fatalf("%d bytes: %v", len(out), err)
		}
		return out
	}
	for _, c := range []struct {
		amplitude string
		hz        int // 5,000 is in the upper band
		want      float64
	}{{"0.05", 500, -29}, {"0.05", 5000, -29}, {"0.3", 1000, -13.5}, {"0.001", 500, -63}} {
		d, now, sound := &duplex{}, time.Unix(1e6, 0), encode(c.amplitude, c.hz)
		var level float64
		for len(sound) >= 160 {
			level, _ = d.level(g722, sound[:160])
			d.hear(g722, sound[:160], now)
			sound = sound[160:]
		}
		t.Logf("%s at %d Hz: %.1f dBov", c.amplitude, c.hz, level)
		if math.Abs(level-c.want) > 3 || d.shut(now) != (c.want > speechLevel) {
			t.Errorf("%s at %d Hz has %.1f dBov instead of %.0f; shut: %v", c.amplitude, c.hz, level, c.want, d.shut(now))
		}
	}
	sound := encode("0.3", 700)
	far := &duplex{}
	for range 25 {
		quiet, ok := far.silence(g722, 160)
		if !ok || len(quiet) != 160 {
			t.Fatalf("%d bytes of silence, %v", len(quiet), ok)
		}
		sound = append(sound, quiet...)
	}
	cmd := exec.Command("ffmpeg", "-v", "error", "-f", "g722", "-i", "-", "-f", "s16be", "-")
	cmd.Stdin = bytes.NewReader(sound)
	pcm, err := cmd.Output()
	if err != nil || len(pcm) < 40_000 {
		t.Fatalf("%d bytes: %v", len(pcm), err)
	}
	rest := pcm[2*16000+2*16*80:] // 80 ms after the last of the tone
	if level := pcmLevel(rest); level > -55 {
		t.Errorf("silence has %.0f dBov at the other side", level)
	}
}

// FuzzLevel: the far end's sound is a stranger's bytes.
func FuzzLevel(f *testing.F) {
	f.Add(uint8(0), []byte{0xf8, 0xff, 0xfe})
	f.Add(uint8(1), []byte{0xfa, 0x00, 0xff})
	f.Fuzz(func(t *testing.T, codec uint8, b []byte) {
		names := []string{"opus", "G722", "PCMU", "PCMA"}
		d := &duplex{}
		for range 2 {
			if level, ok := d.level(profiles.Codec{Name: names[int(codec)%len(names)]}, b); ok && (math.IsNaN(level) || level > 0) {
				t.Fatalf("%.1f dBov", level)
			}
		}
	})
}

// A device whose microphone hears its loudspeaker is silent while the other side sounds, for
// the ears of the other side, in Opus; statistics see no gap.
func TestHalfDuplexIsHeard(t *testing.T) {
	t.Parallel()
	needFFmpeg(t)
	steady := makeClip(t)
	pulsing := filepath.Join(t.TempDir(), "pulsing.mkv") // 1 s of tone, 2 s of silence
	args := []string{"-v", "error", "-f", "lavfi", "-i", "aevalsrc='0.3*sin(2*PI*700*t)*lt(mod(t,3),1)':s=48000", "-t", "6", "-c:a", "libopus", "-ac", "2", pulsing}
	if out, err := exec.Command("ffmpeg", args...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, half := range []bool{true, false} {
		t.Run(fmt.Sprint(half), func(t *testing.T) {
			t.Parallel()
			halfDuplexIsHeard(t, steady, pulsing, half)
		})
	}
}

func halfDuplexIsHeard(t *testing.T, steady, pulsing string, half bool) {
	far := newSide(t, pulsing, caps(t, "tv"), true)
	f := New(Config{Endpoint: media.NewBox(media.SourceSpec{Clip: steady}, media.SinkSpec{}, nil), Interfaces: []string{"lo"}})
	leg, err := f.NewLeg(sessions.LegConfig{CallID: "0123456789abcdef", Remote: "other", Capabilities: caps(t, "panel"), HalfDuplex: half})
	if err != nil {
		t.Fatal(err)
	}
	near := &side{Factory: f, leg: leg}
	t.Cleanup(func() { _ = leg.Close() })
	connect(t, far, near)
	waitFor(t, "seven seconds of sound", func() bool { return far.leg.Stats().Audio.PacketsReceived > 350 })
	if st := far.leg.Stats().Audio; st.Lost > 3 {
		t.Errorf("half duplex %v: %+v", half, st)
	}
	if err := errors.Join(far.leg.Close(), near.leg.Close()); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("ffmpeg", "-hide_banner", "-nostats", "-i", far.file, "-vn", "-af", "silencedetect=n=-40dB:d=0.7", "-f", "null", "-").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	pauses := strings.Count(string(out), "silence_start")
	t.Logf("half duplex %v: %d pauses of the microphone", half, pauses)
	if half && pauses < 2 || !half && pauses > 0 {
		t.Errorf("half duplex %v: %d pauses in 7 s, in which the other side spoke two or three times", half, pauses)
	}
}

func FuzzDuplex(f *testing.F) {
	f.Add([]byte{0xf8, 0xff, 0xfe}, "opus")
	f.Add([]byte{0xff, 0xd5}, "PCMA")
	f.Fuzz(func(_ *testing.T, b []byte, codec string) {
		d := &duplex{}
		for range 2 {
			d.hear(profiles.Codec{Name: codec}, b, time.Now())
		}
	})
}

// listener takes the sound of a source.
type listener chan []byte

func (listener) Takes(kind string) bool { return kind == "audio" }

func (l listener) WriteRTP(b sessions.Batch) {
	for _, p := range b.Packets {
		select {
		case l <- p.Payload:
		default:
		}
	}
}

// What listening costs a device, for 20 ms of Opus.
func BenchmarkDuplexHear(b *testing.B) {
	clip := makeClip(b)
	box := media.NewBox(media.SourceSpec{Clip: clip}, media.SinkSpec{}, nil)
	src, release, err := box.OpenSource(b.Context(), nil)
	if err != nil {
		b.Fatal(err)
	}
	defer release()
	got := make(chan []byte, 100)
	view := src.Subscribe(listener(got), &sessions.Position{})
	var payloads [][]byte
	for len(payloads) < 50 {
		payloads = append(payloads, <-got)
	}
	view.Cancel()
	d, c := &duplex{}, profiles.Codec{Name: "opus", ClockRate: 48000, Channels: 2}
	for i := 0; b.Loop(); i++ {
		d.hear(c, payloads[i%50], time.Now())
	}
}
