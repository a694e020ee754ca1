package demo

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"os/exec"
	"path/filepath"
	"time"
)

// Geometry and timing of a clip. Each frame carries a number of this run, its own
// counter and a check, as black and white blocks that survive any codec; the tone is
// silent at the beginning of each second, for a time that tells odd from even ones.
const (
	width, height = 640, 360
	fps           = 25
	clipSeconds   = 20
	block         = 20 // pixels
	perRow        = 28
	codeBits      = 56 // 32 nonce, 16 counter, 8 check
	codeLeft      = 40
	codeTop       = 20
	sampleRate    = 48000
	shortGap      = 120 * time.Millisecond // in odd seconds
	longGap       = 240 * time.Millisecond // in even seconds
)

// clipSpec is one agent's clip.
type clipSpec struct {
	File  string
	Nonce uint32
	Tone  float64 // Hz
}

// bits packs nonce, counter and check.
func bits(nonce uint32, counter uint16) uint64 {
	b := uint64(nonce)<<16 | uint64(counter)
	return b<<8 | uint64(check(b))
}

// check is a small hash of the 48 bits above it.
func check(b uint64) byte {
	var raw [8]byte
	binary.BigEndian.PutUint64(raw[:], b*0x9e3779b97f4a7c15)
	return raw[0] ^ raw[3] ^ raw[6]
}

// digits are what people read of the counter: three columns and five rows each, from the top left.
var digits = [10]uint16{0b111101101101111, 0b010110010010111, 0b111001111100111, 0b111001111001111, 0b101101111001001, 0b111100111001111, 0b111100111101111, 0b111001010010010, 0b111101111101111, 0b111101111001111}

const (
	dot          = 20 // pixels
	digitsTop    = 160
	digitsLeft   = width/2 - 5*dot - dot/2
	black, white = 16, 235
)

// picture draws one frame as 8-bit luma: a wave that moves, the blocks, and the counter in digits.
func picture(nonce uint32, counter uint16) []byte {
	f := make([]byte, width*height)
	var wave [256]byte
	for i := range wave {
		wave[i] = byte(110 + 34*math.Sin(2*math.Pi*float64(i)/256))
	}
	for y := range height {
		for x := range width {
			f[y*width+x] = wave[(x+y/2+4*int(counter))%256]
		}
	}
	fill := func(x0, y0, size int, value byte) {
		for y := y0; y < y0+size; y++ {
			for x := x0; x < x0+size; x++ {
				f[y*width+x] = value
			}
		}
	}
	code := bits(nonce, counter)
	for i := range codeBits {
		value := byte(black)
		if code>>(codeBits-1-i)&1 == 1 {
			value = white
		}
		fill(codeLeft+i%perRow*block, codeTop+i/perRow*block, block, value)
	}
	for i, c := range fmt.Sprintf("%03d", counter) {
		for k := range 15 {
			if digits[c-'0']>>(14-k)&1 == 1 {
				fill(digitsLeft+4*dot*i+k%3*dot, digitsTop+k/3*dot, dot, white)
			}
		}
	}
	return f
}

// colours are both planes of chroma of all frames of a clip: another hue for each tone.
func colours(hz float64) []byte {
	const w, h = width / 2, height / 2
	f := make([]byte, 2*w*h)
	for i := range w * h {
		hue := hz/40 + float64(i/w)/h
		f[i], f[w*h+i] = byte(128+36*math.Cos(hue)), byte(128+36*math.Sin(hue))
	}
	return f
}

// gap is how long the tone is silent at the beginning of a second.
func gap(second int) time.Duration {
	if second%2 == 1 {
		return shortGap
	}
	return longGap
}

// tone makes the clip's sound: 16-bit mono.
func tone(hz float64) []byte {
	var b bytes.Buffer
	for i := range clipSeconds * sampleRate {
		second, in := i/sampleRate, time.Duration(i%sampleRate)*time.Second/sampleRate
		v := 0.0
		if in >= gap(second) {
			v = 0.4 * math.Sin(2*math.Pi*hz*float64(i)/sampleRate)
		}
		_ = binary.Write(&b, binary.LittleEndian, int16(v*math.MaxInt16))
	}
	return b.Bytes()
}

// makeClip encodes a clip with ffmpeg: H.264 constrained baseline with a key frame each
// second and Opus, in Matroska.
func makeClip(ctx context.Context, c clipSpec) error {
	if _, err := exec.LookPath("ffmpeg"); err != nil {
		return fmt.Errorf("clips are made by ffmpeg, which is not installed; install it (Debian: apt install ffmpeg)")
	}
	sound := filepath.Join(filepath.Dir(c.File), filepath.Base(c.File)+".pcm")
	if err := writeFile(sound, tone(c.Tone)); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "ffmpeg", "-hide_banner", "-loglevel", "error", "-y", //nolint:gosec // our own words
		"-f", "rawvideo", "-pix_fmt", "yuv420p", "-video_size", fmt.Sprintf("%dx%d", width, height), "-framerate", fmt.Sprint(fps), "-i", "pipe:0",
		"-f", "s16le", "-ar", fmt.Sprint(sampleRate), "-ac", "1", "-i", sound,
		"-c:v", "libx264", "-profile:v", "baseline", "-preset", "ultrafast", "-tune", "zerolatency", "-pix_fmt", "yuv420p", "-g", fmt.Sprint(fps), "-bf", "0", "-crf", "24", "-maxrate", "1M", "-bufsize", "500k",
		"-c:a", "libopus", "-ac", "2", "-b:a", "64k", "-shortest", c.File)
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		return err
	}
	err = writeFrames(in, c)
	if werr := cmd.Wait(); werr != nil {
		return fmt.Errorf("ffmpeg could not make %s: %w: %s", c.File, werr, stderr.String())
	}
	return err
}

func writeFrames(w io.WriteCloser, c clipSpec) error {
	chroma := colours(c.Tone)
	for i := range clipSeconds * fps {
		if _, err := w.Write(append(picture(c.Nonce, uint16(i)), chroma...)); err != nil { //nolint:gosec // 500 frames
			_ = w.Close()
			return err
		}
	}
	return w.Close()
}
