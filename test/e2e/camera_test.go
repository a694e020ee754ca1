package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hallway-home/hallway/test/netlab"
)

// rtspCamera is a camera on a host of its own, with the account of what was done to it.
type rtspCamera struct {
	t       testing.TB
	host    *netlab.Host
	program string
	file    string
	cmd     *exec.Cmd
	done    chan struct{}

	mu     sync.Mutex
	events []cameraEvent
}

type cameraEvent struct {
	Event   string
	At      int64
	Playing int
}

const cameraAccount = "viewer:s3cret/Canary"

// newCamera builds the program, encodes a picture with a key frame every 2 s, and starts it.
func newCamera(t testing.TB, h *netlab.Host) *rtspCamera {
	t.Helper()
	if _, err := exec.LookPath("ffmpeg"); err != nil {
		missing(t, "ffmpeg is missing; apt install ffmpeg")
	}
	dir := t.TempDir()
	c := &rtspCamera{t: t, host: h, program: filepath.Join(dir, "rtspcamera"), file: filepath.Join(dir, "picture.h264")}
	if out, err := exec.Command("go", "build", "-o", c.program, "./rtspcamera").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	out, err := exec.Command("ffmpeg", "-v", "error", "-f", "lavfi", "-i", "testsrc2=size=640x360:rate=25", "-t", "8", "-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency",
		"-pix_fmt", "yuv420p", "-g", "50", "-keyint_min", "50", "-sc_threshold", "0", "-b:v", "1M", "-x264-params", "aud=1", "-f", "h264", c.file).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	t.Cleanup(c.stop)
	c.start()
	return c
}

func (c *rtspCamera) start(args ...string) {
	c.t.Helper()
	user, password, _ := strings.Cut(cameraAccount, ":")
	c.cmd = c.host.Command(context.Background(), c.program, append([]string{"-listen", ":554", "-h264", c.file, "-user", user, "-password", password}, args...)...)
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		c.t.Fatal(err)
	}
	c.cmd.Stderr = os.Stderr
	if err := c.cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	c.done = make(chan struct{})
	go func(cmd *exec.Cmd, done chan struct{}) {
		defer close(done)
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			var e cameraEvent
			if json.Unmarshal(lines.Bytes(), &e) == nil {
				c.mu.Lock()
				c.events = append(c.events, e)
				c.mu.Unlock()
			}
		}
		_ = cmd.Wait()
	}(c.cmd, c.done)
	c.await("it is ready", 5*time.Second, func() bool { return c.count("ready") > 0 })
}

func (c *rtspCamera) stop() {
	if c.cmd != nil {
		_ = syscall.Kill(-c.cmd.Process.Pid, syscall.SIGKILL)
		<-c.done
		c.cmd = nil
	}
}

func (c *rtspCamera) count(prefix string) (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, e := range c.events {
		if strings.HasPrefix(e.Event, prefix) {
			n++
		}
	}
	return n
}

// playing is how many views the camera serves now.
func (c *rtspCamera) playing() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.events) == 0 {
		return 0
	}
	return c.events[len(c.events)-1].Playing
}

func (c *rtspCamera) await(what string, within time.Duration, cond func() bool) time.Duration {
	c.t.Helper()
	start := time.Now()
	for !cond() {
		if time.Since(start) > within {
			c.t.Fatalf("the camera: not within %v: %s (%+v)", within, what, c.events)
		}
		time.Sleep(2 * time.Millisecond)
	}
	return time.Since(start)
}

func (c *rtspCamera) url(account string) string {
	return "rtsp://" + account + "@" + net.JoinHostPort(c.host.IPv4, "554") + "/stream"
}

// adopted is a row of `hallway devices` for a foreign device.
func (n *node) adopted(slug string) (status string) {
	for _, d := range ask[struct{ Adopted []device }](n, "devices").Adopted {
		if d.Slug == slug {
			return d.Status
		}
	}
	return ""
}

// An RTSP camera gets a name: every device calls it, ten viewers share one connection to it,
// and a later one sees the current picture at once although key frames are 2 s apart.
func TestA18_TenViewersOneConnection(t *testing.T) {
	l := newLab(t)
	cam := newCamera(t, l.MustHost(t, "Camera"))
	tv := newNode(t, l, "TV", "tv", "Living room", "--sink-record", t.TempDir()).start().found()
	panel := newNode(t, l, "Panel", "panel", "Kitchen", "--sink-record", t.TempDir())
	pad := newNode(t, l, "Pad", "panel", "Bedroom", "--sink-record", t.TempDir())
	tv.invite(panel, pad)
	got := ask[struct{ Slug, Speaker, Room string }](tv, "adopt", cam.url(strings.ReplaceAll(cameraAccount, "/", "%2F")), "--name", "Front door", "--room", "Hall")
	if got.Slug != "front-door" || got.Speaker != "tv" || got.Room != "hall" {
		t.Fatalf("%+v", got)
	}
	for _, n := range []*node{tv, panel, pad} {
		n.eventually(5*time.Second, "the camera is reachable", func() bool { return n.adopted("front-door") == "reachable" })
		if out := n.run("home", "members") + n.run("devices", "--all") + n.run("home", "log") + n.log.String(); strings.Contains(out, "Canary") || strings.Contains(out, "viewer") {
			t.Errorf("%s: the password of the camera is shown", n.name)
		}
	}
	if c := cam.count("setup"); c != 0 {
		t.Errorf("the camera was opened %d times before anybody called it", c)
	}
	first := ask[call](panel, "call", "front-door", "--detach")
	panel.eventually(5*time.Second, "it sees and hears", flows(panel, first.ID))
	if e := panel.call(first.ID); e.Peer != "front-door" || len(e.Media) != 2 || e.Media[0].Direction != "recvonly" {
		t.Errorf("the viewer has %+v", e)
	}
}
