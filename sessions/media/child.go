package media

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	// stderrTail is how much of a child's last words go into an error.
	stderrTail = 2048
	// restarts of a failing child before the call is told; then the pause doubles.
	restarts, firstPause = 3, 250 * time.Millisecond
	// politeStop is how long a child has to end by itself.
	politeStop = 300 * time.Millisecond
	// groupGone and groupPoll: how long, and how often, the end of a killed group is looked for.
	groupGone, groupPoll = 500 * time.Millisecond, 2 * time.Millisecond
)

// tail keeps the last bytes written to it.
type tail struct {
	mu sync.Mutex
	b  []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, p...)
	if len(t.b) > stderrTail {
		t.b = t.b[len(t.b)-stderrTail:]
	}
	return len(p), nil
}

func (t *tail) last() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	lines := strings.Split(strings.TrimSpace(string(t.b)), "\n")
	return lines[len(lines)-1]
}

// expand fills the words of a command in, such as {{.VideoPort}}. It is no template
// engine on purpose: one would keep every method of the program in the binary. An unknown
// word is an error.
func expand(command []string, words map[string]any) ([]string, error) {
	var pairs []string
	for k, v := range words {
		pairs = append(pairs, "{{."+k+"}}", fmt.Sprint(v))
	}
	r := strings.NewReplacer(pairs...)
	out := make([]string, len(command))
	for i, c := range command {
		out[i] = r.Replace(c)
		if strings.Contains(out[i], "{{") {
			return nil, fmt.Errorf("pipeline word %q: the words are {{.VideoPort}}, {{.AudioPort}} and {{.SDP}}, each only where it has a meaning", c)
		}
	}
	return out, nil
}

// probe says in one sentence if a program is missing.
func probe(command []string) error {
	if len(command) == 0 {
		return errors.New("the pipeline has no command")
	}
	if _, err := exec.LookPath(command[0]); err != nil {
		return fmt.Errorf("the program %s is not installed; install it (Debian: apt install %s) or choose another pipeline", command[0], packageOf(command[0]))
	}
	return nil
}

func packageOf(program string) string {
	switch program {
	case "ffplay", "ffprobe":
		return "ffmpeg"
	case "gst-launch-1.0":
		return "gstreamer1.0-tools"
	}
	return program
}

// supervise runs a program until ctx ends, in a process group of its own that dies with
// it, and starts it again a few times with growing pauses. It returns nil after ctx.
func supervise(ctx context.Context, command []string, log *slog.Logger) error {
	pause := firstPause
	for n := 0; ; n++ {
		started := time.Now()
		err := runOnce(ctx, command)
		if ctx.Err() != nil {
			return nil //nolint:nilerr // it was told to end
		}
		if time.Since(started) > time.Minute {
			n, pause = 0, firstPause
		}
		if n >= restarts {
			return fmt.Errorf("%s ended again and again: %w", command[0], err)
		}
		log.Warn("a pipeline ended; it is started again", "program", command[0], "err", err)
		t := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			t.Stop()
			return nil
		case <-t.C:
		}
		pause *= 2
	}
}

func runOnce(ctx context.Context, command []string) error {
	runtime.LockOSThread() // Pdeathsig looks at the thread that forked, not at the process
	defer runtime.UnlockOSThread()
	cmd := exec.CommandContext(ctx, command[0], command[1:]...) //nolint:gosec // from files on disk, never from the API
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	stderr := &tail{}
	cmd.Stderr = stderr
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = politeStop
	err := cmd.Run()
	if cmd.Process != nil {
		killGroup(cmd.Process.Pid) // whatever it started dies too
	}
	if last := stderr.last(); last != "" {
		return fmt.Errorf("%w: %s", errors.Join(err, errEnded), last)
	}
	return errors.Join(err, errEnded)
}

// killGroup kills what is left of a process group and waits until it let go of its
// devices; a process that the kernel cannot end is not waited for beyond groupGone.
func killGroup(pid int) {
	for end := time.Now().Add(groupGone); time.Now().Before(end); time.Sleep(groupPoll) {
		if syscall.Kill(-pid, syscall.SIGKILL) != nil {
			return
		}
	}
}

var errEnded = errors.New("the program ended")
