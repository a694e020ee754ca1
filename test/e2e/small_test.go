package e2e

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// under runs the program after a line of shell, in the same process.
func under(line string) []string {
	return []string{"sh", "-c", line + ` && exec "$@"`, "sh", binary}
}

// heavyPicture has 2 Mbit/s, as a camera sends them.
func heavyPicture(t testing.TB) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "heavy.h264")
	ffmpeg(t, "-f", "lavfi", "-i", "testsrc2=size=640x360:rate=25,noise=alls=40:allf=t", "-t", "4", "-c:v", "libx264", "-profile:v", "baseline",
		"-preset", "ultrafast", "-pix_fmt", "yuv420p", "-g", "50", "-bf", "0", "-b:v", "2M", "-minrate", "2M", "-maxrate", "2M", "-bufsize", "1M",
		"-x264-params", "nal-hrd=cbr:aud=1", "-f", "h264", file)
	return file
}

// memoryGroup is a cgroup of this size, version 1 or 2, and how to ask it.
type memoryGroup struct {
	t     testing.TB
	dir   string
	enter string // shell that enters it on a host of the test, where /sys is new
	peak  string // file
	oom   string // file with a line "oom_kill N"
}

func newMemoryGroup(t testing.TB, size int) *memoryGroup {
	t.Helper()
	g := &memoryGroup{t: t}
	name := fmt.Sprintf("hallway-test-%d", os.Getpid())
	limit := "memory.limit_in_bytes"
	if _, err := os.Stat("/sys/fs/cgroup/memory"); err == nil {
		g.dir, g.peak, g.oom = "/sys/fs/cgroup/memory/"+name, "memory.max_usage_in_bytes", "memory.oom_control"
		g.enter = "mount -t tmpfs none /sys/fs/cgroup && mkdir /sys/fs/cgroup/memory && mount -t cgroup -o memory none /sys/fs/cgroup/memory"
	} else {
		g.dir, g.peak, g.oom = "/sys/fs/cgroup/"+name, "memory.peak", "memory.events"
		g.enter, limit = "mount -t cgroup2 none /sys/fs/cgroup", "memory.max"
	}
	g.enter += " && echo $$ >" + g.dir + "/cgroup.procs"
	if err := os.Mkdir(g.dir, 0o755); err != nil {
		missing(t, "no memory cgroup can be made: "+err.Error())
	}
	t.Cleanup(func() {
		for end := time.Now().Add(5 * time.Second); os.Remove(g.dir) != nil && time.Now().Before(end); time.Sleep(20 * time.Millisecond) { // while the last process leaves
		}
	})
	if err := os.WriteFile(filepath.Join(g.dir, limit), []byte(strconv.Itoa(size)), 0o600); err != nil {
		missing(t, "no memory cgroup can be limited: "+err.Error())
	}
	return g
}

func (g *memoryGroup) read(file string) string {
	b, err := os.ReadFile(filepath.Join(g.dir, file))
	must(g.t, err)
	return strings.TrimSpace(string(b))
}

// A device with 64 MiB, the kernel's part included, speaks for an RTSP camera: it gives four
// viewers 2 Mbit/s each, over one connection to the camera, and is not killed.
func TestA30_FourSessionsIn64MiB(t *testing.T) {
	l := newLab(t)
	g := newMemoryGroup(t, 64<<20)
	cam := cameraOf(t, l.MustHost(t, "Camera"), "-h264", heavyPicture(t))
	hub := newNode(t, l, "Hub", "panel", "")
	hub.command = under(g.enter)
	hub.start().found()
	var viewers []*node
	for i := range 4 {
		viewers = append(viewers, newNode(t, l, fmt.Sprintf("TV %d", i+1), "tv", ""))
	}
	hub.invite(viewers...)
	hub.run("adopt", cam.url(strings.ReplaceAll(cameraAccount, "/", "%2F")), "--name", "Front door")
	ids := map[*node]string{}
	for _, v := range viewers {
		v.eventually(5*time.Second, "the camera is reachable", func() bool { return v.adopted("front-door") == "reachable" })
		ids[v] = ask[call](v, "call", "front-door", "--detach").ID
	}
	for _, v := range viewers {
		v.eventually(15*time.Second, "it sees the camera", func() bool { return v.call(ids[v]).Stats.Video.Received > 0 })
	}
	const packets = 1000 // more than 4 s of 2 Mbit/s in packets of 1,200 bytes
	start := time.Now()
	before := map[*node]int{}
	for _, v := range viewers {
		before[v] = v.call(ids[v]).Stats.Video.Received
	}
	for _, v := range viewers {
		v.eventually(30*time.Second, "the picture goes on", func() bool { return v.call(ids[v]).Stats.Video.Received-before[v] >= packets })
	}
	took := time.Since(start)
	for _, v := range viewers {
		if c := v.call(ids[v]); c.State != "active" {
			t.Errorf("%s: %+v", v.name, c)
		}
	}
	t.Logf("%d packets to each of four in %v; peak of the group %s bytes, its own %.1f MiB", packets, took.Round(time.Millisecond), g.read(g.peak), held(t, hub.pid()))
	if kills := g.read(g.oom); strings.Contains(kills, "oom_kill ") && !strings.Contains(kills, "oom_kill 0") {
		t.Errorf("the kernel killed: %s", kills)
	}
	if plays := cam.count("play"); plays != 1 || cam.playing() != 1 {
		t.Errorf("the camera was opened %d times, and has %d views", plays, cam.playing())
	}
	for _, v := range viewers {
		v.run("hangup", ids[v])
	}
	cam.await("it is closed after the last viewer", 3*time.Second, func() bool { return cam.playing() == 0 })
}

// cpu is the processor time that a process has used.
func cpu(t testing.TB, pid int) time.Duration {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	must(t, err)
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+2:]))
	user, err := strconv.Atoi(f[11])
	must(t, err)
	system, err := strconv.Atoi(f[12])
	must(t, err)
	return time.Duration(user+system) * 10 * time.Millisecond
}

// With 128 file descriptors, all taken, the agent neither spins nor ends its call; what
// it cannot do fails with a sentence; when descriptors return, so does everything.
func TestA30_FewFileDescriptors(t *testing.T) {
	l := newLab(t)
	file := clip(t, 440)
	tv := newNode(t, l, "TV", "tv", "", "--source-clip", file).start().found()
	panel := newNode(t, l, "Panel", "panel", "", "--source-clip", file)
	panel.command = under("ulimit -n 128")
	speaker := newNode(t, l, "Speaker", "speaker", "", "--source-clip", file)
	tv.invite(panel, speaker)
	c := ask[call](tv, "call", "panel", "--detach")
	panel.run("answer", panel.incoming().ID)
	tv.eventually(5*time.Second, "it sees and hears", flows(tv, c.ID))

	var held []net.Conn
	release := func() {
		for _, x := range held {
			_ = x.Close()
		}
		held = nil
	}
	defer release()
	for range 200 { // the backlog takes what the agent does not
		x, err := (&net.Dialer{Timeout: time.Second}).DialContext(t.Context(), "unix", filepath.Join(panel.dir, "hallway.sock"))
		if err != nil {
			break
		}
		held = append(held, x)
	}
	descriptors := func() int {
		d, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", panel.pid()))
		must(t, err)
		return len(d)
	}
	panel.eventually(5*time.Second, "no descriptor is left", func() bool { return descriptors() >= 127 })
	seen, used, start := tv.call(c.ID).Stats.Video.Received, cpu(t, panel.pid()), time.Now()
	out, code := speaker.try("call", "panel")
	t.Logf("a new call: exit %d: %.2000s", code, strings.TrimSpace(out))
	var ended struct{ Error string }
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &ended); err != nil || code == 0 || !strings.Contains(ended.Error, "Panel ") || strings.Contains(ended.Error, "codec") {
		t.Errorf("a new call: exit %d: %s", code, out)
	}
	tv.eventually(10*time.Second, "the running call goes on", func() bool { return tv.call(c.ID).Stats.Video.Received > seen+100 })
	if strings.Contains(panel.log.String(), "another path") {
		t.Error("the running call was moved, although no address changed")
	}
	share := float64(cpu(t, panel.pid())-used) / float64(time.Since(start)) * 100
	t.Logf("%d connections held, %d descriptors open, %.0f %% of a core with a call", len(held), descriptors(), share)
	if share > 50 {
		t.Errorf("it spins: %.0f %% of a core", share)
	}
	release()
	panel.eventually(5*time.Second, "descriptors return", func() bool { return descriptors() < 100 })
	tv.run("hangup", c.ID)
	panel.eventually(5*time.Second, "the end is known", func() bool { return panel.call(c.ID).State == "ended" })
	talk(t, tv, panel)
}

// The system's own disk is read-only, only the data folder is not: as on many devices.
func TestA30_ReadOnlyRoot(t *testing.T) {
	l := newLab(t)
	file := clip(t, 440)
	tv := newNode(t, l, "TV", "tv", "", "--source-clip", file).start().found()
	panel := newNode(t, l, "Panel", "panel", "", "--source-clip", file)
	readOnly := fmt.Sprintf("mount --make-rprivate / && mount --bind %[1]s %[1]s && mount -o remount,bind,ro / && ! touch /hallway-test 2>/dev/null", panel.dir)
	panel.command = append([]string{"unshare", "--mount"}, under(readOnly)...)
	tv.invite(panel)
	talk(t, tv, panel)
	panel.stop()
	panel.start()
	allSee(t, 10*time.Second, tv, panel)
	talk(t, panel, tv)
}

// A full disk: what must be written is refused in plain words, calls go on, a restart
// comes up with all that was known, and when there is space again all is as before.
func TestA30_FullDisk(t *testing.T) {
	l := newLab(t)
	file := clip(t, 440)
	tv := newNode(t, l, "TV", "tv", "", "--source-clip", file)
	command(t, "mount", "-t", "tmpfs", "-o", "size=1m", "hallway-test", tv.dir)
	t.Cleanup(func() {
		tv.stop()
		command(t, "umount", tv.dir)
	})
	tv.start().found()
	panel := newNode(t, l, "Panel", "panel", "", "--source-clip", file)
	tv.invite(panel)
	filler := filepath.Join(tv.dir, "filler")
	fill := func() {
		f, err := os.Create(filler)
		must(t, err)
		defer func() { _ = f.Close() }()
		for size := 65536; size > 0; { // to the last byte
			if _, err := f.Write(make([]byte, size)); err != nil {
				size /= 2
			}
		}
	}
	fill()
	talk(t, tv, panel)
	// Small changes may still fit into pages that the store has; sooner or later none is left.
	var out string
	refused := 0
	for i := 0; i < 200 && refused == 0; i++ {
		var code int
		if out, code = tv.try("home", "room", fmt.Sprintf("Room %03d", i)); code != 0 {
			refused = code
		}
	}
	t.Logf("exit %d: %s", refused, strings.TrimSpace(out))
	var said struct{ Error string }
	if refused == 0 || json.Unmarshal([]byte(out), &said) != nil || !strings.Contains(said.Error, "disk is full") {
		t.Errorf("a change that cannot be stored: exit %d: %s", refused, out)
	}
	talk(t, tv, panel)
	known := tv.run("rooms")
	tv.stop()
	tv.start()
	if now := tv.run("rooms"); now != known {
		t.Errorf("lost by a restart on a full disk:\n%s\n%s", known, now)
	}
	allSee(t, 10*time.Second, tv, panel)
	talk(t, tv, panel)
	must(t, os.Remove(filler))
	tv.run("home", "room", "Garden room")
	allAgree(t, 5*time.Second, tv, panel)
	tv.stop()
	tv.start()
	if !strings.Contains(tv.run("rooms"), "garden-room") {
		t.Error("what was done after space returned is lost")
	}
	allSee(t, 10*time.Second, tv, panel)
}
