// Package e2e shows the acceptance lines between real processes: agents in network
// namespaces, driven through their command line, with real media. TestA16_... is the
// test of line A16.
package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hallway-home/hallway/firmware"
	"github.com/hallway-home/hallway/test/netlab"
)

// binary is the program under test, built once without -race: the ceilings are meant
// for what ships.
var binary string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "hallway-e2e")
	if err == nil {
		binary = filepath.Join(dir, "hallway")
		cmd := exec.Command("go", firmware.BuildArgs("e2e", binary)...)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		cmd.Stderr = os.Stderr
		err = cmd.Run()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "cannot build the program under test:", err)
		os.Exit(1)
	}
	code := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// missing skips visibly, or fails where peers are required.
func missing(t testing.TB, what string) {
	t.Helper()
	if os.Getenv("REQUIRE_PEERS") == "1" {
		t.Fatal(what)
	}
	t.Skip("SKIPPED: " + what)
}

// lab is a network of the test.
func newLab(t testing.TB) *netlab.Lab {
	t.Helper()
	l, err := netlab.New()
	if errors.Is(err, netlab.ErrUnsupported) {
		missing(t, err.Error())
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

// node is one agent process on a host of its own.
type node struct {
	t       testing.TB
	name    string
	dir     string
	host    *netlab.Host
	args    []string
	command []string // what runs instead of the program under test: an emulator, another build, a shell that limits it
	cmd     *exec.Cmd
	done    chan struct{}
	log     *bytes.Buffer
	began   time.Time
}

func newNode(t testing.TB, l *netlab.Lab, name, class, room string, args ...string) *node {
	t.Helper()
	h, err := l.Host(name)
	if err != nil {
		t.Fatal(err)
	}
	return nodeOn(t, h, class, room, args...)
}

// nodeOn prepares an agent on a host that is there already; both have one name.
func nodeOn(t testing.TB, h *netlab.Host, class, room string, args ...string) *node {
	t.Helper()
	name := h.Name
	n := &node{t: t, name: name, dir: t.TempDir(), host: h}
	n.args = append([]string{"up", "--data", n.dir, "--name", name, "--class", class, "--room", room, "--log-level", "debug"}, args...)
	t.Cleanup(func() {
		n.stop()
		if t.Failed() {
			t.Logf("--- log of %s\n%s", name, lastLines(n.log, 60))
		}
	})
	return n
}

func lastLines(b *bytes.Buffer, n int) string {
	if b == nil {
		return ""
	}
	lines := strings.Split(b.String(), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// start runs the agent and waits for its API.
func (n *node) start(args ...string) *node {
	n.t.Helper()
	n.log = &bytes.Buffer{}
	line := slices.Concat([]string{binary}, n.args, args)
	if n.command != nil {
		line = slices.Concat(n.command, n.args, args)
	}
	n.cmd = n.host.Command(context.Background(), line[0], line[1:]...)
	n.cmd.Stdout, n.cmd.Stderr = n.log, n.log
	n.began = time.Now()
	if err := n.cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
	n.done = make(chan struct{})
	go func(cmd *exec.Cmd, done chan struct{}) {
		_ = cmd.Wait()
		close(done)
	}(n.cmd, n.done)
	n.eventually(10*time.Second, "its API answers", func() bool {
		_, code := n.try("status-probe")
		return code == 0
	})
	return n
}

// signal reaches the agent itself, below `ip netns exec`, which became it.
func (n *node) signal(s syscall.Signal) {
	if n.cmd != nil && n.cmd.Process != nil {
		_ = syscall.Kill(-n.cmd.Process.Pid, s)
	}
}

func (n *node) stop() {
	if n.cmd == nil {
		return
	}
	n.signal(syscall.SIGTERM)
	select {
	case <-n.done:
	case <-time.After(8 * time.Second):
		n.t.Errorf("%s did not stop within 8 s", n.name)
		n.kill()
	}
	n.cmd = nil
}

func (n *node) kill() {
	n.signal(syscall.SIGKILL)
	<-n.done
	n.cmd = nil
}

func (n *node) pid() int { return n.cmd.Process.Pid }

// try runs a command of the command line against this agent.
func (n *node) try(args ...string) (string, int) {
	if args[0] == "status-probe" {
		args = []string{"rooms"}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, append(args, "--data", n.dir, "--json")...)
	out, err := cmd.CombinedOutput()
	code := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		code = exit.ExitCode()
	} else if err != nil {
		code = -1
	}
	return string(out), code
}

// run is try that must succeed.
func (n *node) run(args ...string) string {
	n.t.Helper()
	out, code := n.try(args...)
	if code != 0 {
		n.t.Fatalf("%s: hallway %s: exit %d: %s", n.name, strings.Join(args, " "), code, out)
	}
	return out
}

// ask runs a command and decodes its JSON.
func ask[T any](n *node, args ...string) T {
	n.t.Helper()
	var v T
	out := n.run(args...)
	if err := json.Unmarshal([]byte(strings.SplitN(out, "\n", 2)[0]), &v); err != nil {
		n.t.Fatalf("%s: hallway %s printed %q: %v", n.name, strings.Join(args, " "), out, err)
	}
	return v
}

type device struct {
	Slug   string `json:"slug"`
	Name   string `json:"name"`
	Status string `json:"status"`
	Self   bool   `json:"self"`
	Node   string `json:"node"`
	Caps   struct {
		Audio struct{ Direction string } `json:"audio"`
		Video struct{ Direction string } `json:"video"`
	} `json:"capabilities"`
}

type foreign struct {
	Name  string   `json:"name"`
	Kinds []string `json:"kinds"`
}

type devices struct {
	Devices []device  `json:"devices"`
	Foreign []foreign `json:"foreign"`
}

type call struct {
	ID        string `json:"id"`
	Direction string `json:"direction"`
	State     string `json:"state"`
	Peer      string `json:"peer"`
	Reason    string `json:"reason"`
	Code      int    `json:"code"`
	Missed    bool   `json:"missed"`
	Hold      bool   `json:"hold"`
	Muted     bool   `json:"muted"`
	PeerHold  bool   `json:"peer_hold"`
	PeerMuted bool   `json:"peer_muted"`
	Digits    string `json:"digits"`
	Trouble   []string
	Media     []struct {
		Kind      string `json:"kind"`
		Direction string `json:"direction"`
		Codec     string `json:"codec"`
	} `json:"media"`
	Stats struct {
		Audio     stream `json:"audio"`
		Video     stream `json:"video"`
		NoPicture bool   `json:"no_picture"`
		Recording string `json:"recording"`
	} `json:"stats"`
}

type stream struct {
	Received   int     `json:"packets_received"`
	Sent       int     `json:"packets_sent"`
	Lost       int     `json:"lost"`
	Late       int     `json:"late"`
	Duplicates int     `json:"duplicates"`
	JitterMs   float64 `json:"jitter_ms"`
	Peer       struct {
		Reports int   `json:"reports"`
		Lost    int   `json:"lost"`
		RTT     int64 `json:"rtt_ns"`
	} `json:"peer"`
}

func (n *node) sees(slug string) string {
	for _, d := range ask[devices](n, "devices").Devices {
		if d.Slug == slug {
			return d.Status
		}
	}
	return ""
}

func (n *node) calls() []call { return ask[[]call](n, "calls") }

func (n *node) call(id string) call {
	for _, c := range n.calls() {
		if c.ID == id {
			return c
		}
	}
	return call{}
}

// incoming waits until this node rings, and returns the call.
func (n *node) incoming() call {
	n.t.Helper()
	var found call
	n.eventually(5*time.Second, "it rings", func() bool {
		for _, c := range n.calls() {
			if c.State == "incoming" {
				found = c
				return true
			}
		}
		return false
	})
	return found
}

func (n *node) eventually(within time.Duration, what string, cond func() bool) time.Duration {
	n.t.Helper()
	start := time.Now()
	for !cond() {
		if time.Since(start) > within {
			n.t.Fatalf("%s: not within %v: %s", n.name, within, what)
		}
		time.Sleep(5 * time.Millisecond)
	}
	return time.Since(start)
}

// found makes the first node's home.
func (n *node) found() *node {
	n.t.Helper()
	n.run("home", "create", "Test home")
	return n
}

// invite starts further nodes with a join token of this owner and waits until they
// belong and are reachable.
func (n *node) invite(others ...*node) {
	n.t.Helper()
	for _, o := range others {
		token := ask[struct{ Token string }](n, "invite").Token
		o.start("--join", token)
		n.eventually(15*time.Second, o.name+" joins", func() bool { return n.sees(slugOf(o.name)) == "reachable" })
	}
	for _, o := range others {
		for _, p := range append(others, n) {
			o.eventually(10*time.Second, "it sees "+p.name, func() bool { return o.sees(slugOf(p.name)) == "reachable" })
		}
	}
}

func slugOf(name string) string { return strings.ReplaceAll(strings.ToLower(name), " ", "-") }

// clip makes a short clip with ffmpeg.
func clip(t testing.TB, hz int) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "clip.mkv")
	ffmpeg(t, "-f", "lavfi", "-i", "testsrc2=size=320x180:rate=25", "-f", "lavfi", "-i", "sine=frequency="+strconv.Itoa(hz)+":sample_rate=48000",
		"-t", "4", "-c:v", "libx264", "-profile:v", "baseline", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-g", "25", "-bf", "0", "-c:a", "libopus", "-ac", "2", file)
	return file
}

// attempts runs a measurement up to three times; every figure is printed, one must be
// within the ceiling.
func attempts(t *testing.T, what string, ceiling time.Duration, measure func(t *testing.T) time.Duration) {
	t.Helper()
	for i := range 3 {
		took := measure(t)
		t.Logf("%s, attempt %d: %v (ceiling %v)", what, i+1, took.Round(time.Millisecond), ceiling)
		if took <= ceiling {
			return
		}
	}
	t.Errorf("%s was never within %v", what, ceiling)
}
