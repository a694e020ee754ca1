package media

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hallway-home/hallway/profiles"
)

const (
	// trialTime bounds the trial of one encoder; on a small machine an encoder needs seconds to load.
	trialTime = 15 * time.Second
	// trialBytes: an encoder that works makes more of a few frames than headers.
	trialBytes = 200
	// maxCache bounds the file of results.
	maxCache = 1 << 20
)

// Trial is what came out when an encoder was run for a few frames on this machine.
type Trial struct {
	Name     string        `json:"name"`
	Program  string        `json:"program"`
	Codec    string        `json:"codec"`
	Hardware bool          `json:"hardware"`
	Works    bool          `json:"works"`
	Why      string        `json:"why,omitempty"` // it does not
	Took     time.Duration `json:"took_ns"`
	Mark     string        `json:"mark"` // of program, arguments and devices; another one asks for another trial
}

// Encoders knows which encoders work on this machine. It runs each for a few frames when
// it is first needed and remembers the result in a file until the program, or the devices of the
// machine, are others. Safe for concurrent use: a call waits only for the trials that it needs.
type Encoders struct {
	table []profiles.Encoder
	file  string

	mu     sync.Mutex
	loaded bool
	trials map[string]Trial
	busy   map[string]chan struct{} // trials that run, closed at their end
	last   error                    // of writing the file
}

// NewEncoders makes the table: first those of the machine's own file, then those that
// ship. file keeps the results; empty keeps them in memory.
func NewEncoders(own []profiles.Encoder, file string) (*Encoders, error) {
	ours, err := profiles.Encoders()
	return &Encoders{table: append(slices.Clone(own), ours...), file: file, trials: map[string]Trial{}}, err
}

// Pick gives the first encoder of a program that makes the codec on this machine; the
// error says why none does.
func (e *Encoders) Pick(ctx context.Context, program, codec string) (profiles.Encoder, error) {
	var why []string
	for _, x := range e.of(program, codec) {
		t := e.try(ctx, x)
		if t.Works {
			return x, nil
		}
		why = append(why, x.Name+": "+t.Why)
	}
	if len(why) == 0 {
		why = []string{"none is known; name one under `encoders` in the file of pipelines"}
	}
	return profiles.Encoder{}, fmt.Errorf("no encoder of %s makes %s on this machine (%s); `hallway pipelines` lists all", program, codec, strings.Join(why, "; "))
}

// Makes are those of the codecs that a program can make here, as far as is known without
// running anything: one that was not tried is believed to work.
func (e *Encoders) Makes(program string, codecs []string) []string {
	return slices.DeleteFunc(slices.Clone(codecs), func(codec string) bool {
		return !slices.ContainsFunc(e.of(program, codec), func(x profiles.Encoder) bool {
			t, ok := e.known(x)
			return !ok || t.Works
		})
	})
}

// Fresh reports whether nothing is left to try for these codecs.
func (e *Encoders) Fresh(program string, codecs []string) bool {
	for _, codec := range codecs {
		for _, x := range e.of(program, codec) {
			if t, ok := e.known(x); !ok {
				return false
			} else if t.Works {
				break
			}
		}
	}
	return true
}

// Forget makes the next look at each encoder a new trial.
func (e *Encoders) Forget() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.loaded, e.trials = true, map[string]Trial{}
}

// All tries every encoder. It returns what came out, in the order of the table, and
// whether the results could be kept.
func (e *Encoders) All(ctx context.Context) ([]Trial, error) {
	var out []Trial
	for _, x := range e.table {
		out = append(out, e.try(ctx, x))
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return out, errors.Join(ctx.Err(), e.last)
}

func (e *Encoders) of(program, codec string) (out []profiles.Encoder) {
	for _, x := range e.table {
		if x.Program == filepath.Base(program) && strings.EqualFold(x.Codec, codec) {
			out = append(out, x)
		}
	}
	return out
}

func (e *Encoders) known(x profiles.Encoder) (Trial, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.lookup(x, mark(x))
}

// lookup finds a result that still holds; mu is held.
func (e *Encoders) lookup(x profiles.Encoder, mark string) (Trial, bool) {
	if !e.loaded {
		e.loaded = true
		if b, err := os.ReadFile(e.file); err == nil && len(b) < maxCache {
			_ = json.Unmarshal(b, &e.trials) // a file that cannot be read is made anew
		}
		if e.trials == nil {
			e.trials = map[string]Trial{}
		}
	}
	t, ok := e.trials[x.Program+" "+x.Name]
	return t, ok && t.Mark == mark
}

func (e *Encoders) try(ctx context.Context, x profiles.Encoder) Trial {
	m, key := mark(x), x.Program+" "+x.Name
	e.mu.Lock()
	for {
		if t, ok := e.lookup(x, m); ok {
			e.mu.Unlock()
			return t
		}
		done := e.busy[key]
		if done == nil {
			break
		}
		e.mu.Unlock()
		select {
		case <-done:
		case <-ctx.Done():
			return Trial{Name: x.Name, Program: x.Program, Codec: x.Codec, Hardware: x.Hardware, Mark: m, Why: "it was not tried to the end"}
		}
		e.mu.Lock()
	}
	done := make(chan struct{})
	if e.busy == nil {
		e.busy = map[string]chan struct{}{}
	}
	e.busy[key] = done
	e.mu.Unlock()
	t, holds := run(ctx, x, m)
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.busy, key)
	close(done)
	if holds {
		e.trials[key] = t
		e.last = e.save()
	}
	return t
}

// run tries an encoder; holds is false if another trial may come out differently.
func run(ctx context.Context, x profiles.Encoder, mark string) (t Trial, holds bool) {
	t = Trial{Name: x.Name, Program: x.Program, Codec: x.Codec, Hardware: x.Hardware, Mark: mark}
	if err := installed([]string{x.Program}); err != nil {
		t.Why = x.Program + " is not installed"
		return t, false // costs nothing to find out again
	}
	start := time.Now()
	tctx, cancel := context.WithTimeout(ctx, trialTime)
	defer cancel()
	out := &byteCount{}
	err := runOnce(tctx, trial(x), nil, out)
	t.Took = time.Since(start)
	switch {
	case ctx.Err() != nil:
		t.Why = "it was not tried to the end"
		return t, false
	case tctx.Err() != nil:
		t.Why = fmt.Sprintf("it took longer than %v", trialTime)
		return t, false // perhaps the machine was busy: it is not held against it
	case err.exit != nil && !errors.Is(err.exit, exec.ErrWaitDelay): // that one says that it ended well, on a busy machine
		t.Why = cmp.Or(err.words, err.exit.Error())
	case out.n.Load() < trialBytes:
		t.Why = "it makes nothing"
	default:
		t.Works = true
	}
	return t, true
}

// byteCount may still be written to after a child is gone and its pipe was given up.
type byteCount struct{ n atomic.Int64 }

func (c *byteCount) Write(p []byte) (int, error) {
	c.n.Add(int64(len(p)))
	return len(p), nil
}

// trial is the command that runs an encoder for a few frames, to standard output.
func trial(x profiles.Encoder) []string {
	c, _ := profiles.Known(x.Codec)
	video := c.Kind() == "video"
	if x.Program == "ffmpeg" {
		in := []string{"-f", "lavfi", "-i", "sine=frequency=440:sample_rate=48000:duration=0.3"}
		if video {
			in = []string{"-f", "lavfi", "-i", "testsrc2=size=640x360:rate=25:duration=0.4"}
		}
		return slices.Concat([]string{"ffmpeg", "-hide_banner", "-nostdin", "-loglevel", "error"}, in, x.Args, []string{"-f", "nut", "-"})
	}
	in := []string{"audiotestsrc", "num-buffers=15", "!"}
	if video {
		in = []string{"videotestsrc", "num-buffers=10", "!", "video/x-raw,width=640,height=360,framerate=25/1", "!"}
	}
	return slices.Concat([]string{x.Program, "-q"}, in, x.Args, []string{"!", "fdsink"})
}

// mark changes when a trial may come out differently: with the program, the arguments, and
// the devices that hardware encoders need.
func mark(x profiles.Encoder) string {
	var b strings.Builder
	if path, err := exec.LookPath(x.Program); err == nil {
		if real, err := filepath.EvalSymlinks(path); err == nil {
			path = real
		}
		if i, err := os.Stat(path); err == nil {
			fmt.Fprintf(&b, "%s %d %d ", path, i.Size(), i.ModTime().UnixNano())
		}
	}
	if x.Hardware {
		for _, pattern := range []string{"/dev/dri/*", "/dev/video*", "/dev/media*"} {
			names, _ := filepath.Glob(pattern)
			fmt.Fprint(&b, names)
		}
	}
	fmt.Fprint(&b, x.Args)
	return b.String()
}

// save writes the results; mu is held. A crash leaves the old file or the new one.
func (e *Encoders) save() error {
	if e.file == "" {
		return nil
	}
	b, err := json.Marshal(e.trials)
	if err != nil {
		return err
	}
	if old, err := os.ReadFile(e.file); err == nil && bytes.Equal(old, b) {
		return nil
	}
	f, err := os.CreateTemp(filepath.Dir(e.file), ".encoders-*")
	if err != nil {
		return fmt.Errorf("the results are not kept: %w", err)
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), e.file)
	}
	if err != nil {
		_ = os.Remove(f.Name())
		return fmt.Errorf("the results are not kept: %w", err)
	}
	return nil
}
