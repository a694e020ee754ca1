package media

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unicode"
)

const (
	// stderrTail is how much of a child's last words is kept, lastWords how much of it goes into an error.
	stderrTail, lastWords = 4096, 300
	// politeStop is how long a child has to end by itself.
	politeStop = 300 * time.Millisecond
	// groupGone and groupPoll: how long, and how often, the end of a killed group is looked for.
	groupGone, groupPoll = 500 * time.Millisecond, 2 * time.Millisecond
)

// patience of a supervisor. A child that fails is started again after a pause, which
// doubles; one that ran well for a while begins anew. So a camera that drops out each ten
// seconds costs a gap each time, and a program that cannot work is given up in two seconds.
type patience struct {
	pause    time.Duration // before the first restart
	restarts int           // in a row
	well     time.Duration // a child that lived this long was no failure
	first    time.Duration // a source that sent nothing by then never will
	silence  time.Duration // a source that stopped sending this long ago hangs
}

func usual() patience {
	return patience{pause: 250 * time.Millisecond, restarts: 3, well: 5 * time.Second, first: 6 * time.Second, silence: 8 * time.Second}
}

// tail keeps the last bytes written to it.
type tail struct {
	mu sync.Mutex
	b  []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, p[max(0, len(p)-stderrTail):]...)
	if n := len(t.b) - stderrTail; n > 0 {
		t.b = append(t.b[:0], t.b[n:]...)
	}
	return len(p), nil
}

// last is the line that says why: the first that GStreamer calls an error; the last of
// ffmpeg's, unless it only says that something failed before; else the last one.
func (t *tail) last() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	lines := strings.Split(strings.TrimSpace(string(t.b)), "\n")
	line := lines[len(lines)-1]
	if len(lines) > 1 && strings.HasPrefix(line, "(") { // a remark on the line before
		line = lines[len(lines)-2]
	}
	starts := func(with string) func(string) bool {
		return func(l string) bool { return strings.HasPrefix(l, with) }
	}
	if i := slices.IndexFunc(lines, starts("ERROR: ")); i >= 0 {
		line = lines[i]
	} else if i := slices.IndexFunc(lines, starts("[")); i >= 0 && strings.HasPrefix(line, "Error ") {
		line = lines[i]
	}
	line = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, line)
	return line[:min(len(line), lastWords)]
}

// expand fills the words of a command in, such as {{.Port}}; the word {{.Encoder}} alone
// becomes several. It is no template engine on purpose: one would keep every method of the
// program in the binary. An unknown word is an error.
func expand(command []string, words map[string]any, encoder []string) ([]string, error) {
	var pairs []string
	for k, v := range words {
		pairs = append(pairs, "{{."+k+"}}", fmt.Sprint(v))
	}
	r := strings.NewReplacer(pairs...)
	var out []string
	for _, c := range command {
		if c == "{{.Encoder}}" && encoder != nil {
			out = append(out, encoder...)
			continue
		}
		word := r.Replace(c)
		if strings.Contains(word, "{{") {
			return nil, fmt.Errorf("pipeline word %q: the words are {{.Port}}, {{.Input}} and {{.Encoder}} in a source's output, {{.SDP}}, {{.Volume}} and {{.Gain}} in a sink", c)
		}
		out = append(out, word)
	}
	return out, nil
}

// installed says in one sentence if a program is missing.
func installed(command []string) error {
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

// supervisor keeps one program running.
type supervisor struct {
	command func() []string                       // to run now; asked before each start
	env     []string                              // beside the agent's own
	changed <-chan struct{}                       // the command is another one: run that; nil: never
	packets *atomic.Int64                         // that the child sent; nil: it sends none
	feed    func(context.Context, io.WriteCloser) // writes what each child reads, to the end of ctx; may be nil
	ended   func(error)                           // called after each end that nobody wanted; may be nil
	patience
	log *slog.Logger
}

var (
	errEnded  = errors.New("the program ended")
	errSilent = errors.New("the program runs but sends nothing")
	errStuck  = errors.New("the program stopped sending")
	errOther  = errors.New("another command is wanted")
)

// run keeps the program running until ctx ends, in a process group of its own that dies
// with it. It returns nil after ctx, else the sentence why it gave up.
func (s supervisor) run(ctx context.Context) error {
	pause := s.pause
	for failures := 0; ; {
		started, before := time.Now(), s.sent()
		select {
		case <-s.changed: // what runs now is the newest
		default:
		}
		command := s.command()
		err := s.once(ctx, command)
		switch {
		case ctx.Err() != nil:
			return nil //nolint:nilerr // it was told to end
		case errors.Is(err, errOther):
			continue
		}
		if s.ended != nil {
			s.ended(err)
		}
		if errors.Is(err, errSilent) {
			return fmt.Errorf("%s: %w", command[0], err)
		}
		if time.Since(started) > s.well && (s.packets == nil || s.sent() > before) {
			failures, pause = 0, s.pause
		}
		if failures++; failures > s.restarts {
			return fmt.Errorf("%s ended again and again: %w", command[0], err)
		}
		s.log.Warn("a pipeline ended; it is started again", "program", command[0], "err", err)
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

func (s supervisor) sent() int64 {
	if s.packets == nil {
		return 0
	}
	return s.packets.Load()
}

// once runs the program until it ends, hangs, or another command is wanted.
func (s supervisor) once(ctx context.Context, command []string) error {
	ctx, cancel := context.WithCancelCause(ctx)
	var watch sync.WaitGroup
	watch.Go(func() { s.watch(ctx, cancel) })
	in, err := s.feeds(ctx, &watch)
	if err == nil {
		err = runOnce(ctx, command, in, nil, s.env...)
	}
	if in != nil {
		_ = in.Close()
	}
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
		err = fmt.Errorf("%w%s", cause, wordsOf(err))
	}
	cancel(context.Canceled)
	watch.Wait()
	return err
}

// feeds begins to write to a new child's standard input.
func (s supervisor) feeds(ctx context.Context, wg *sync.WaitGroup) (in *os.File, err error) {
	if s.feed == nil {
		return nil, nil //nolint:nilnil // a child that reads nothing
	}
	in, out, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = out.Close() }) // ends a write that waits
	wg.Go(func() {
		s.feed(ctx, out)
		if stop() {
			_ = out.Close()
		}
	})
	return in, nil
}

// watch ends the child when it hangs or another command is wanted.
func (s supervisor) watch(ctx context.Context, cancel context.CancelCauseFunc) {
	var look <-chan time.Time
	if s.packets != nil {
		t := time.NewTicker(max(s.first/8, time.Millisecond))
		defer t.Stop()
		look = t.C
	}
	began, count := time.Now(), s.sent()
	last := began
	for heard := false; ; {
		select {
		case <-ctx.Done():
			return
		case <-s.changed:
			cancel(errOther)
			return
		case now := <-look:
			if n := s.sent(); n != count {
				count, last, heard = n, now, true
			}
			if !heard && now.Sub(began) > s.first {
				cancel(errSilent)
				return
			}
			if heard && now.Sub(last) > s.silence {
				cancel(errStuck)
				return
			}
		}
	}
}

// wordsOf are a child's last words, from the error of runOnce.
func wordsOf(err error) string {
	if e := (*childError)(nil); errors.As(err, &e) && e.words != "" {
		return ": " + e.words
	}
	return ""
}

// childError is how a child ended.
type childError struct {
	exit  error // nil: with success
	words string
}

func (e *childError) Error() string {
	s := errEnded.Error()
	if e.exit != nil {
		s += " (" + e.exit.Error() + ")"
	}
	if e.words != "" {
		s += ": " + e.words
	}
	return s
}

func (e *childError) Unwrap() error { return errEnded }

// runOnce runs a program to its end, at the latest that of ctx, and kills whatever it
// started. It never returns nil: out takes what the program writes; in may be nil.
func runOnce(ctx context.Context, command []string, in *os.File, out io.Writer, env ...string) *childError {
	runtime.LockOSThread() // Pdeathsig looks at the thread that forked, not at the process
	defer runtime.UnlockOSThread()
	cmd := exec.CommandContext(ctx, command[0], command[1:]...) //nolint:gosec // from files on disk, never from the API
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if len(env) > 0 {
		cmd.Env = append(os.Environ(), env...)
	}
	stderr := &tail{}
	cmd.Stdout, cmd.Stderr = out, stderr
	if in != nil {
		cmd.Stdin = in
	}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = politeStop
	err := cmd.Run()
	if cmd.Process != nil {
		killGroup(cmd.Process.Pid) // whatever it started dies too
	}
	return &childError{exit: err, words: stderr.last()}
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
