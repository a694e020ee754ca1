package demo

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// perfect is what a recording of a clip without any fault decodes to.
func perfect(c clipSpec, seconds int) ([]mark, []float64) {
	var marks []mark
	for i := range seconds * fps {
		m := readBlocks(picture(c.Nonce, uint16(i)))
		m.at = time.Duration(i) * time.Second / fps
		marks = append(marks, m)
	}
	return marks, samples(tone(c.Tone))[:seconds*sampleRate]
}

func TestVerifyCatchesEveryFault(t *testing.T) {
	want := clipSpec{Nonce: 0xdecafbad, Tone: 660}
	others := []float64{440, 880}
	for name, c := range map[string]struct {
		spoil func(m []mark, s []float64) ([]mark, []float64)
		fault string
	}{
		"none": {func(m []mark, s []float64) ([]mark, []float64) { return m, s }, ""},
		"wrong number": {func(_ []mark, s []float64) ([]mark, []float64) {
			m, _ := perfect(clipSpec{Nonce: 1, Tone: 660}, 8)
			return m, s
		}, "number"},
		"frozen picture": {func(m []mark, s []float64) ([]mark, []float64) {
			for i := 100; i < 120; i++ {
				m[i].counter = m[99].counter
			}
			return m, s
		}, "distinct"},
		"lost frames": {func(m []mark, s []float64) ([]mark, []float64) { return append(m[:100], m[110:]...), s }, "distinct"},
		"wrong tone": {func(m []mark, _ []float64) ([]mark, []float64) {
			_, s := perfect(clipSpec{Tone: 440}, 8)
			return m, s
		}, "tone"},
		"silent": {func(m []mark, s []float64) ([]mark, []float64) { return m, make([]float64, len(s)) }, "tone"},
		"late sound": {func(m []mark, s []float64) ([]mark, []float64) {
			return m, append(make([]float64, sampleRate*15/100), s...)
		}, "apart"},
		"a second late": {func(m []mark, s []float64) ([]mark, []float64) { return m, append(make([]float64, sampleRate), s...) }, "apart"},
	} {
		t.Run(name, func(t *testing.T) {
			m, s := perfect(want, 8)
			m, s = c.spoil(m, s)
			f := findings{File: "x"}
			err := f.judge(m, s, want, others)
			if c.fault == "" && err != nil || c.fault != "" && (err == nil || !strings.Contains(err.Error(), c.fault)) {
				t.Fatalf("judged %v", err)
			}
		})
	}
}

func TestClipSurvivesItsCodec(t *testing.T) {
	if _, err := exec.LookPath("ffmpeg"); err != nil {
		if os.Getenv("REQUIRE_PEERS") == "1" {
			t.Fatal("ffmpeg is missing; `apt install ffmpeg`")
		}
		t.Skip("SKIPPED: ffmpeg is missing; `apt install ffmpeg`")
	}
	c := clipSpec{File: filepath.Join(t.TempDir(), "a.mkv"), Nonce: 0x12345678, Tone: 550}
	if err := makeClip(context.Background(), c); err != nil {
		t.Fatal(err)
	}
	f, err := verify(context.Background(), c.File, c, []float64{440, 660})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v", f)
}
