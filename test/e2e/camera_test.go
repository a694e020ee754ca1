package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
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
	shows   []string // arguments: what it sends
	scheme  string
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

// newCamera encodes a picture with a key frame every 2 s and starts a camera that shows it.
func newCamera(t testing.TB, h *netlab.Host) *rtspCamera {
	t.Helper()
	file := filepath.Join(t.TempDir(), "picture.h264")
	ffmpeg(t, "-f", "lavfi", "-i", "testsrc2=size=640x360:rate=25", "-t", "8", "-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency",
		"-pix_fmt", "yuv420p", "-g", "50", "-keyint_min", "50", "-sc_threshold", "0", "-b:v", "1M", "-x264-params", "aud=1", "-f", "h264", file)
	return cameraOf(t, h, "-h264", file)
}

// cameraOf builds the camera and starts it with these arguments.
func cameraOf(t testing.TB, h *netlab.Host, shows ...string) *rtspCamera {
	t.Helper()
	c := &rtspCamera{t: t, host: h, program: filepath.Join(t.TempDir(), "rtspcamera"), shows: shows, scheme: "rtsp"}
	if out, err := exec.Command("go", "build", "-o", c.program, "./rtspcamera").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	t.Cleanup(c.stop)
	c.start()
	return c
}

// ffmpeg makes a file.
func ffmpeg(t testing.TB, args ...string) {
	t.Helper()
	needs(t, "ffmpeg")
	command(t, "ffmpeg", append([]string{"-v", "error"}, args...)...)
}

func (c *rtspCamera) start(args ...string) {
	c.t.Helper()
	user, password, _ := strings.Cut(cameraAccount, ":")
	c.cmd = c.host.Command(context.Background(), c.program, slices.Concat([]string{"-listen", ":554", "-user", user, "-password", password}, c.shows, args)...)
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
	return c.scheme + "://" + account + "@" + net.JoinHostPort(c.host.IPv4, "554") + "/stream"
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
	views := map[*node][]string{panel: {first.ID}}
	attempts(t, "call to the first packets of the picture at a later viewer", 300*time.Millisecond, func(t *testing.T) time.Duration {
		start := time.Now()
		c := ask[call](pad, "call", "front-door", "--detach")
		pad.eventually(5*time.Second, "it sees", func() bool { return pad.call(c.ID).Stats.Video.Received > 20 })
		took := time.Since(start)
		pad.run("hangup", c.ID)
		return took
	})
	for i := range 9 { // the speaker itself views as well
		n := []*node{panel, pad, tv}[i%3]
		views[n] = append(views[n], ask[call](n, "call", "front-door", "--detach").ID)
	}
	for n, ids := range views {
		for _, id := range ids {
			n.eventually(8*time.Second, "it sees and hears", flows(n, id))
		}
	}
	if n := cam.playing(); n != 1 {
		t.Errorf("ten viewers are %d views at the camera", n)
	}
	if n := cam.count("play"); n != 1 {
		t.Errorf("the camera was opened %d times", n)
	}
	for n, ids := range views {
		for _, id := range ids {
			n.run("hangup", id)
		}
	}
	took := cam.await("it is closed after the last viewer", 3*time.Second, func() bool { return cam.playing() == 0 })
	t.Logf("the camera was free %v after the last hang-up", took.Round(time.Millisecond))
	if e := panel.call(first.ID); !complete(t, e.Stats.Recording) {
		t.Errorf("the recording %q does not play", e.Stats.Recording)
	}
}

// complete reports whether a recording holds pictures that decode from the first one on.
func complete(t *testing.T, file string) bool {
	t.Helper()
	out, err := exec.Command("ffmpeg", "-v", "error", "-i", file, "-f", "null", "-").CombinedOutput()
	if err != nil || len(out) > 0 {
		t.Logf("%v: %s", err, out)
		return false
	}
	return true
}

// The camera is not opened before a call is accepted by the owner's rule that cameras answer,
// and is closed within 1 s of its end, seen at the RTSP server; the view is in the list of
// the device that speaks for it. Who may not view opens nothing. A foreign device in sight is
// trusted no more for all that.
func TestA32_CameraOpenOnlyWhileViewed(t *testing.T) {
	l := newLab(t)
	cam := newCamera(t, l.MustHost(t, "Camera"))
	tv := newNode(t, l, "TV", "tv", "Living room").start().found()
	panel := newNode(t, l, "Panel", "panel", "Hall")
	tv.invite(panel)
	account := strings.ReplaceAll(cameraAccount, "/", "%2F")
	for name, c := range map[string]struct{ url, words string }{
		"wrong password": {cam.url("viewer:wrong"), "refuses this user name and password"},
		"no password":    {"rtsp://" + cam.host.IPv4 + "/stream", "asks for a user name and a password"},
		"wrong path":     {strings.ReplaceAll(cam.url(account), "/stream", "/other"), "no stream at this address"},
		"nobody there":   {strings.ReplaceAll(cam.url(account), ":554", ":555"), "nothing listens at"},
		"not RTSP":       {"rtsp://" + tv.host.IPv4 + ":5061/x", "RTSP"},
		"no address":     {"http://" + cam.host.IPv4 + "/", "no address of an RTSP camera"},
	} {
		if out, exit := tv.try("adopt", c.url, "--name", "Door"); exit == 0 || !strings.Contains(out, c.words) || strings.Contains(out, "Canary") {
			t.Errorf("%s: exit %d: %s", name, exit, out)
		}
	}
	if out, exit := panel.try("adopt", cam.url(account), "--name", "Door"); exit != 5 || !strings.Contains(out, "TV") {
		t.Errorf("a device adopted a camera: exit %d: %s", exit, out)
	}
	if out, exit := tv.try("home", "foreign", "Door", cam.url(account), "--speaker", "tv"); exit != 2 || !strings.Contains(out, "must not hold a password") {
		t.Errorf("a password for the roster: exit %d: %s", exit, out)
	}
	if n := len(ask[struct{ Foreign []any }](tv, "home", "show").Foreign); n != 0 {
		t.Fatalf("%d cameras were adopted although none could be tried", n)
	}
	tv.run("adopt", cam.url(account), "--name", "Front door", "--room", "Hall", "--via", "panel")
	for _, n := range []*node{tv, panel} {
		n.eventually(5*time.Second, "the camera is reachable", func() bool { return n.adopted("front-door") == "reachable" })
	}
	if files := holds(t, tv.dir, "Canary"); len(files) > 0 {
		t.Errorf("the password is also kept where the camera was adopted: %v", files)
	}
	if files := holds(t, panel.dir, "Canary"); len(files) != 1 {
		t.Errorf("the password lies in %v of its speaker", files)
	}
	c := ask[call](tv, "call", "front-door", "--detach")
	tv.eventually(5*time.Second, "it sees and hears", flows(tv, c.ID))
	if n := cam.playing(); n != 1 {
		t.Errorf("%d views", n)
	}
	seen := false
	for _, v := range panel.calls() {
		seen = seen || v.Direction == "in" && v.State == "active" && strings.HasSuffix(v.ID, "front-door") && v.Peer == "tv"
	}
	if !seen || !strings.Contains(panel.log.String(), "a camera is viewed") {
		t.Errorf("the view is not visible at the speaker: %+v", panel.calls())
	}
	start := time.Now()
	tv.run("hangup", c.ID)
	cam.await("it is closed", 3*time.Second, func() bool { return cam.playing() == 0 })
	if took := time.Since(start); took > time.Second {
		t.Errorf("the camera was closed after %v", took)
	}
	room := ask[call](tv, "call", "hall", "--detach") // rings the panel, does not end at the camera
	in := panel.incoming()
	if e := tv.call(room.ID); e.State != "ringing" || cam.playing() != 0 {
		t.Errorf("a call to a room with a camera: %+v", e)
	}
	panel.run("decline", in.ID)
	plays := cam.count("play")
	tv.run("home", "rule", "front-door", "view", "--nobody")
	panel.eventually(5*time.Second, "it knows the rule", func() bool { return strings.Contains(panel.run("home", "show"), `"view"`) })
	if out, exit := tv.try("call", "front-door"); exit != 5 || !strings.Contains(out, "rules of the home") {
		t.Errorf("a view against the rules: exit %d: %s", exit, out)
	}
	if out, exit := panel.try("call", "front-door"); exit != 5 {
		t.Errorf("the speaker views against the rules: exit %d: %s", exit, out)
	}
	if cam.count("play") != plays {
		t.Error("the camera was opened for somebody who may not view")
	}
	tv.run("home", "rule", "front-door", "view", "--delete")
	panel.stop() // what is needed survives a restart
	panel.start()
	tv.eventually(10*time.Second, "the camera is reachable again", func() bool { return tv.adopted("front-door") == "reachable" })
	c = ask[call](tv, "call", "front-door", "--detach")
	tv.eventually(5*time.Second, "it sees and hears", flows(tv, c.ID))
	if out := tv.run("doctor", "front-door"); !strings.Contains(out, "camera") || !strings.Contains(out, `"ok":true`) {
		t.Errorf("doctor: %s", out)
	}
	tv.run("home", "foreign", "front-door", "--delete")
	tv.eventually(5*time.Second, "the view ends with the camera's name", func() bool { return tv.call(c.ID).State == "ended" })
	cam.await("it is closed", 2*time.Second, func() bool { return cam.playing() == 0 })
}

// holds lists the files under a folder in which a word stands.
func holds(t *testing.T, dir, word string) (files []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(p string, e os.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(p)
		if bytes.Contains(b, []byte(word)) {
			files = append(files, filepath.Base(p))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// The camera's connection breaks while somebody views: it is dialled again, and the view goes
// on in the same call. A camera that stays away ends it with a sentence at the viewer.
func TestA18_CameraComesBack(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	cam := newCamera(t, l.MustHost(t, "Camera"))
	tv := newNode(t, l, "TV", "tv", "Living room").start().found()
	panel := newNode(t, l, "Panel", "panel", "Hall")
	tv.invite(panel)
	tv.run("adopt", cam.url(strings.ReplaceAll(cameraAccount, "/", "%2F")), "--name", "Front door")
	panel.eventually(5*time.Second, "the camera is reachable", func() bool { return panel.adopted("front-door") == "reachable" })
	c := ask[call](panel, "call", "front-door", "--detach")
	panel.eventually(5*time.Second, "it sees and hears", flows(panel, c.ID))
	cam.stop()
	cam.start()
	before := panel.call(c.ID).Stats.Video.Received
	panel.eventually(10*time.Second, "the picture goes on", func() bool { return panel.call(c.ID).Stats.Video.Received > before+50 })
	cam.stop()
	panel.eventually(25*time.Second, "the view ends", func() bool { return panel.call(c.ID).State == "ended" })
	if e := panel.call(c.ID); !strings.Contains(e.Reason, "nothing listens at") {
		t.Errorf("the viewer reads %q", e.Reason)
	}
	if out, exit := panel.try("call", "front-door", "--for", "30s"); exit == 0 || !strings.Contains(out, "nothing listens at") {
		t.Errorf("a call to a camera that is off: exit %d: %s", exit, out)
	}
}
