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

// picture draws one frame as 8-bit luma.
func picture(nonce uint32, counter uint16) []byte {
	f := make([]byte, width*height)
	shift := int(counter) * 4
	for y := range height {
		for x := range width {
			f[y*width+x] = byte(96 + 32*((x+shift)/64%2) + 24*(y/60%2)) //nolint:gosec // at most 152
		}
	}
	code := bits(nonce, counter)
	for i := range codeBits {
		value := byte(16)
		if code>>(codeBits-1-i)&1 == 1 {
			value = 235
		}
		x0, y0 := codeLeft+i%perRow*block, codeTop+i/perRow*block
		for y := y0; y < y0+block; y++ {
			for x := x0; x < x0+block; x++ {
				f[y*width+x] = value
			}
		}
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
		"-f", "rawvideo", "-pix_fmt", "gray", "-video_size", fmt.Sprintf("%dx%d", width, height), "-framerate", fmt.Sprint(fps), "-i", "pipe:0",
		"-f", "s16le", "-ar", fmt.Sprint(sampleRate), "-ac", "1", "-i", sound,
		"-c:v", "libx264", "-profile:v", "baseline", "-preset", "ultrafast", "-tune", "zerolatency", "-pix_fmt", "yuv420p", "-g", fmt.Sprint(fps), "-bf", "0", "-b:v", "1M",
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
	err = writeFrames(in, c.Nonce)
	if werr := cmd.Wait(); werr != nil {
		return fmt.Errorf("ffmpeg could not make %s: %w: %s", c.File, werr, stderr.String())
	}
	return err
}

func writeFrames(w io.WriteCloser, nonce uint32) error {
	for i := range clipSeconds * fps {
		if _, err := w.Write(picture(nonce, uint16(i))); err != nil { //nolint:gosec // 500 frames
			_ = w.Close()
			return err
		}
	}
	return w.Close()
}
