package demo

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"
)

// What a recording must show.
const (
	minDistinct = 0.99
	maxSkew     = 80 * time.Millisecond
	// settle is left out at the beginning: the steady part counts.
	settle = time.Second
)

// findings of one recording.
type findings struct {
	File     string        `json:"file"`
	Frames   int           `json:"frames"`
	Distinct float64       `json:"distinct"` // share of frames of the steady part with a counter of their own, none missing
	Nonce    uint32        `json:"nonce"`
	Tone     float64       `json:"tone_hz"`
	Skew     time.Duration `json:"skew_ns"`
	Length   time.Duration `json:"length_ns"`
}

// mark is one decoded frame.
type mark struct {
	at      time.Duration
	nonce   uint32
	counter uint16
	good    bool
}

// verify decodes a recording and checks it against what the other side sent.
func verify(ctx context.Context, file string, want clipSpec, others []float64) (findings, error) {
	f := findings{File: file}
	if out, err := run(ctx, "ffmpeg", "-v", "error", "-xerror", "-i", file, "-f", "null", "-"); err != nil || len(out) > 0 {
		return f, fmt.Errorf("%s does not decode without error: %w: %s", file, errors.Join(err), out)
	}
	marks, err := readMarks(ctx, file)
	if err != nil {
		return f, err
	}
	pcm, err := run(ctx, "ffmpeg", "-v", "error", "-i", file, "-vn", "-af", "aresample=async=1:first_pts=0", "-ac", "1", "-ar", strconv.Itoa(sampleRate), "-f", "s16le", "pipe:1")
	if err != nil {
		return f, err
	}
	sound := samples(pcm)
	return f, f.judge(marks, sound, want, others)
}

// judge fills in the findings and returns every fault.
func (f *findings) judge(marks []mark, sound []float64, want clipSpec, others []float64) error {
	if len(marks) < fps || len(sound) < sampleRate {
		return fmt.Errorf("%s is too short: %d frames, %d samples", f.File, len(marks), len(sound))
	}
	f.Frames, f.Length = len(marks), marks[len(marks)-1].at
	var errs []error
	if f.Distinct, f.Nonce = steady(marks); f.Distinct < minDistinct {
		errs = append(errs, fmt.Errorf("only %.1f %% of the frames are distinct", 100*f.Distinct))
	}
	if f.Nonce != want.Nonce {
		errs = append(errs, fmt.Errorf("the picture shows number %08x, the other side sent %08x", f.Nonce, want.Nonce))
	}
	f.Tone = loudest(sound, append([]float64{want.Tone}, others...))
	if f.Tone != want.Tone {
		errs = append(errs, fmt.Errorf("the loudest tone is %.0f Hz, the other side sent %.0f Hz", f.Tone, want.Tone))
	}
	skew, err := skewOf(marks, sound, want.Tone)
	f.Skew = skew
	switch {
	case err != nil:
		errs = append(errs, err)
	case skew.Abs() > maxSkew:
		errs = append(errs, fmt.Errorf("sound and picture are %v apart", skew))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("%s: %w", f.File, err)
	}
	return nil
}

func run(ctx context.Context, name string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return append(out, stderr.Bytes()...), fmt.Errorf("%s: %w: %s", name, err, strings.TrimSpace(stderr.String()))
	}
	return append(out, stderr.Bytes()...), nil
}

// readMarks decodes the blocks of every frame.
func readMarks(ctx context.Context, file string) ([]mark, error) {
	list, err := run(ctx, "ffprobe", "-v", "error", "-select_streams", "v:0", "-show_entries", "frame=best_effort_timestamp_time", "-of", "csv=p=0", file)
	if err != nil {
		return nil, err
	}
	var times []time.Duration
	for _, l := range strings.Fields(string(list)) {
		s, err := strconv.ParseFloat(strings.Trim(l, ","), 64)
		if err != nil {
			return nil, fmt.Errorf("ffprobe said %q", l)
		}
		times = append(times, time.Duration(s*float64(time.Second)))
	}
	cmd := exec.CommandContext(ctx, "ffmpeg", "-v", "error", "-i", file, "-an", "-vsync", "passthrough", "-f", "rawvideo", "-pix_fmt", "gray", "pipe:1") //nolint:gosec // our own words
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	var marks []mark
	frame := make([]byte, width*height)
	for i := 0; ; i++ {
		if _, err := io.ReadFull(out, frame); err != nil {
			break
		}
		if i >= len(times) {
			break
		}
		m := readBlocks(frame)
		m.at = times[i]
		marks = append(marks, m)
	}
	return marks, cmd.Wait()
}

// readBlocks reads the code of one frame by the middle of each block.
func readBlocks(f []byte) mark {
	var code uint64
	for i := range codeBits {
		x0, y0 := codeLeft+i%perRow*block, codeTop+i/perRow*block
		sum := 0
		for y := y0 + 5; y < y0+15; y++ {
			for x := x0 + 5; x < x0+15; x++ {
				sum += int(f[y*width+x])
			}
		}
		code <<= 1
		if sum > 100*126 {
			code |= 1
		}
	}
	body := code >> 8
	return mark{nonce: uint32(body >> 16), counter: uint16(body), good: check(body) == byte(code)} //nolint:gosec // cut on purpose
}

// steady gives the share of frames that should be there and are, each once, and the
// nonce that most frames show.
func steady(marks []mark) (distinct float64, nonce uint32) {
	votes := map[uint32]int{}
	seen := map[uint16]bool{}
	var first, last mark
	total := 0
	for _, m := range marks {
		if m.at < marks[0].at+settle {
			continue
		}
		total++
		if !m.good {
			continue
		}
		votes[m.nonce]++
		if votes[m.nonce] > votes[nonce] {
			nonce = m.nonce
		}
		if len(seen) == 0 {
			first = m
		}
		seen[m.counter] = true
		last = m
	}
	span := int(last.counter) - int(first.counter)
	if span < 0 {
		span += clipSeconds * fps
	}
	return float64(len(seen)) / float64(max(total, span+1, 1)), nonce
}

func samples(pcm []byte) []float64 {
	out := make([]float64, len(pcm)/2)
	for i := range out {
		out[i] = float64(int16(binary.LittleEndian.Uint16(pcm[2*i:]))) / math.MaxInt16 //nolint:gosec // two's complement
	}
	return out
}

// goertzel is the power of one frequency in a stretch of sound.
func goertzel(s []float64, hz float64) float64 {
	k := 2 * math.Cos(2*math.Pi*hz/sampleRate)
	var a, b float64
	for _, x := range s {
		a, b = x+k*a-b, a
	}
	return (a*a + b*b - k*a*b) / float64(len(s)*len(s))
}

// loudest is the strongest of the tones, or 0 if none stands out of the sound.
func loudest(s []float64, tones []float64) float64 {
	var best, second, tone float64
	for _, hz := range tones {
		if p := goertzel(s, hz); p > best {
			best, second, tone = p, best, hz
		} else {
			second = max(second, p)
		}
	}
	if best < 1e-4 || best < 10*second {
		return 0
	}
	return tone
}

// silence is a stretch without the tone.
type silence struct{ from, length time.Duration }

// silences finds where the tone stops and how long for, in steps of 5 ms.
func silences(s []float64, hz float64) []silence {
	const step = sampleRate / 200
	var out []silence
	begin := -1
	for i := 0; i+step <= len(s); i += step {
		quiet := goertzel(s[i:i+step], hz) < 0.002
		at := func(i int) time.Duration { return time.Duration(i) * time.Second / sampleRate }
		switch {
		case quiet && begin < 0:
			begin = i
		case !quiet && begin >= 0:
			if begin > 0 {
				out = append(out, silence{at(begin), at(i) - at(begin)})
			}
			begin = -1
		}
	}
	return out
}

// skewOf compares where a second begins in the picture, by its counter, with where it
// begins in the sound, by its silence; the length of the silence tells odd seconds from
// even ones. Positive means that the sound is late.
func skewOf(marks []mark, sound []float64, hz float64) (time.Duration, error) {
	quiet := silences(sound, hz)
	var diffs []time.Duration
	for _, m := range marks {
		if !m.good || m.counter%fps != 0 || m.at < marks[0].at+settle {
			continue
		}
		want := gap(int(m.counter) / fps)
		best := time.Hour
		for _, q := range quiet {
			if (q.length-want).Abs() < (longGap-shortGap)/2 && (q.from-m.at).Abs() < best.Abs() {
				best = q.from - m.at
			}
		}
		if best != time.Hour {
			diffs = append(diffs, best)
		}
	}
	if len(diffs) < 2 {
		return 0, errors.New("sound and picture have too few marks in common")
	}
	slices.Sort(diffs)
	return diffs[len(diffs)/2], nil
}
