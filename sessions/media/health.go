package media

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

const (
	// provenAfter: a child that lives this long after a failure works again. A device that
	// cannot be opened is noticed in far less.
	provenAfter = 2 * time.Second
	// againAfter is how long an output that was given up is left alone before it is tried again:
	// a loudspeaker that was pulled out comes back by itself, for little work.
	againAfter = 10 * time.Second
)

// health is what is wrong with a child now, in plain words. Safe for concurrent use.
type health struct {
	mu      sync.Mutex
	what    string // of the device, for the sentence
	program string
	why     string // empty: nothing is wrong
	started time.Time
	runs    bool
}

func (h *health) begins(program string, now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.program, h.started, h.runs = program, now, true
}

// fails notes how a child ended; it may be started again.
func (h *health) fails(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.runs = false
	end := (*childError)(nil)
	switch {
	case errors.As(err, &end) && end.words != "":
		h.why = fmt.Sprintf("says %q", end.words)
	case errors.As(err, &end) && end.exit == nil:
		h.why = "ended by itself"
	case errors.As(err, &end):
		h.why = "ended: " + end.exit.Error()
	default:
		h.why = "failed: " + err.Error()
	}
}

// trouble is the sentence for what is wrong at a time; empty if nothing is.
func (h *health) trouble(now time.Time) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.why != "" && h.runs && now.Sub(h.started) >= provenAfter {
		h.why = ""
	}
	if h.why == "" {
		return ""
	}
	return fmt.Sprintf("%s does not work: %s %s. %s", h.what, h.program, h.why, advice(h.why, os.Getenv("DISPLAY")+os.Getenv("WAYLAND_DISPLAY") != ""))
}

// advice is what to do about a program's last words.
func advice(words string, display bool) string {
	has := func(any ...string) bool {
		for _, w := range any {
			if strings.Contains(strings.ToLower(words), w) {
				return true
			}
		}
		return false
	}
	switch {
	case has("permission denied", "not permitted"):
		return "The agent may not open the device: add its user to the groups video and audio."
	case has("device or resource busy", "in use"):
		return "Another program uses the device: end that one."
	case has("video device", "not available", "initialize sdl", "open display", "x display", "wayland", "x11", "xdg_runtime_dir") && !display:
		return "The agent knows no screen: start it with DISPLAY or WAYLAND_DISPLAY set."
	case has("video device", "not available", "initialize sdl", "open display", "x display", "wayland", "x11", "xdg_runtime_dir"):
		return "The screen does not answer: see that it runs and that the agent's user may open it."
	case has("alsa", "audio", "pulse", "pipewire", "pcm", "sound"):
		return "See that the sound device is plugged in and its sound server runs."
	case has("no such file", "no such device", "cannot identify device", "cannot find"):
		return "See that the device is plugged in, or name another one in a pipeline of your own."
	case has("unknown encoder", "no element", "erroneous pipeline", "not found"):
		return "A part of the program is missing: `hallway pipelines` says what to install."
	}
	return "See with `hallway pipelines` what runs here, or choose another pipeline."
}

// screenEnv prepares the programs that show a picture. SDL, which ffplay stands on, gets the
// driver of the screen that is there: left to itself it shows the picture nowhere when the
// screen does not answer, without a word. Under a window system GStreamer tries the bare
// console last: it loads one kernel module after the other, for half a second.
func screenEnv(get func(string) string) (env []string) {
	windows := get("DISPLAY") + get("WAYLAND_DISPLAY")
	if windows != "" && get("GST_PLUGIN_FEATURE_RANK") == "" {
		env = append(env, "GST_PLUGIN_FEATURE_RANK=kmssink:1")
	}
	if get("SDL_VIDEODRIVER") != "" {
		return env
	}
	driver := "x11" // without any screen: fails, and says so
	cards, _ := filepath.Glob("/dev/dri/card*")
	switch {
	case get("DISPLAY") != "":
	case windows != "":
		driver = "wayland"
	case len(cards) > 0: // a console without a window system
		driver = "kmsdrm"
	}
	return append(env, "SDL_VIDEODRIVER="+driver)
}

// run keeps the output's child running until ctx ends. One that ends again and again is
// left alone for a while, and then tried again: the call goes on without it.
func (s *pipelineSink) run(ctx context.Context) {
	for {
		err := supervisor{command: s.next, env: screenEnv(os.Getenv), changed: s.changed, ended: s.health.fails, patience: usual(), log: s.log}.run(ctx)
		if err == nil {
			return
		}
		s.log.Error("the output failed; the call goes on without it, and it is tried again", "err", err)
		select {
		case <-ctx.Done():
			return
		case <-s.changed:
		case <-time.After(againAfter):
		}
	}
}

// Trouble implements sessions.Fallible.
func (s *pipelineSink) Trouble() string { return s.health.trouble(time.Now()) }

// Trouble implements sessions.Fallible.
func (s *pipelineSource) Trouble() string { return s.p.health.trouble(time.Now()) }
