package e2e

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// maxGrowth is what an attack may add to an agent's memory, in MiB.
const maxGrowth = 16

// besieged is a home of three honest devices, two of them in a call.
type besieged struct {
	t                 *testing.T
	tv, panel, camera *node
	call              string
	pids              map[*node]int
	memory            map[*node]float64
	before            map[*node]string
	absent            []string // slugs whose own rows may change
}

// home says what a node believes: members, and what each says of itself.
func (b *besieged) home(n *node) string {
	n.t.Helper()
	var h any
	if err := json.Unmarshal([]byte(n.run("home", "show")), &h); err != nil {
		n.t.Fatal(err)
	}
	var rows []any
	for _, d := range ask[struct{ Devices []map[string]any }](n, "devices").Devices {
		delete(d, "last_heard")
		own := false
		for _, s := range b.absent {
			own = own || d["slug"] == s
		}
		if !own {
			rows = append(rows, d)
		}
	}
	out, err := json.MarshalIndent([]any{h, rows}, "", " ")
	if err != nil {
		n.t.Fatal(err)
	}
	return string(out)
}

func (b *besieged) nodes() []*node { return []*node{b.tv, b.panel, b.camera} }

// besiege makes the home and the call, and remembers how things are. The nodes of absent
// belong to it and are stopped: their keys are in other hands now.
func besiege(t *testing.T, l *labT, absent ...*node) *besieged {
	t.Helper()
	b := &besieged{t: t, pids: map[*node]int{}, memory: map[*node]float64{}, before: map[*node]string{}}
	b.tv = newNode(t, l, "TV", "tv", "Living room", "--source-clip", clip(t, 440)).start().found()
	b.panel = newNode(t, l, "Panel", "panel", "Kitchen", "--source-clip", clip(t, 550), "--auto-answer", "yes")
	b.camera = newNode(t, l, "Camera", "camera", "Garden", "--source-clip", clip(t, 660))
	b.tv.invite(append([]*node{b.panel, b.camera}, absent...)...)
	for _, n := range absent {
		n.stop()
		b.absent = append(b.absent, slugOf(n.name))
		for _, x := range b.nodes() {
			x.eventually(5*time.Second, n.name+" is gone", func() bool { return x.sees(slugOf(n.name)) == "unreachable" })
		}
	}
	c := ask[call](b.tv, "call", "panel", "--detach")
	b.call = c.ID
	b.tv.eventually(5*time.Second, "sound and picture", flows(b.tv, c.ID))
	b.panel.eventually(5*time.Second, "sound and picture", flows(b.panel, c.ID))
	time.Sleep(2 * time.Second) // memory of the call itself comes with its first packets
	for _, n := range b.nodes() {
		b.pids[n], b.memory[n], b.before[n] = n.pid(), held(t, n.pid()), b.home(n)
	}
	return b
}

// watch looks at everything once a second until over is closed.
func (b *besieged) watch(over <-chan struct{}) {
	peak := map[*node]float64{}
	last, stuck := map[*node]int{}, map[*node]int{}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for going := true; going; {
		select {
		case <-over:
			going = false
		case <-tick.C:
		}
		for _, n := range b.nodes() {
			var s struct{ PID int }
			if _, err := n.direct(b.t.Context(), "GET", "/status", &s); err != nil || n.pid() != b.pids[n] {
				b.t.Fatalf("%s does not answer: %v", n.name, err)
			}
			peak[n] = max(peak[n], held(b.t, n.pid()))
		}
		for _, n := range []*node{b.tv, b.panel} {
			c := n.call(b.call)
			if c.State != "active" {
				b.t.Fatalf("%s: the call is %s: %s", n.name, c.State, c.Reason)
			}
			if got := c.Stats.Audio.Received + c.Stats.Video.Received; got == last[n] && going {
				if stuck[n]++; stuck[n] > 2 {
					b.t.Errorf("%s: no media for %d s", n.name, stuck[n])
				}
			} else {
				last[n], stuck[n] = got, 0
			}
		}
	}
	for _, n := range b.nodes() {
		b.t.Logf("%s: %.1f MiB before, %.1f at most", n.name, b.memory[n], peak[n])
		if peak[n] > b.memory[n]+maxGrowth {
			b.t.Errorf("%s grew from %.1f to %.1f MiB", n.name, b.memory[n], peak[n])
		}
	}
}

// unmoved checks that nobody believes anything new, and that the home works.
func (b *besieged) unmoved() {
	for _, n := range b.nodes() {
		var now string
		if !within(5*time.Second, func() bool { now = b.home(n); return now == b.before[n] }) {
			b.t.Errorf("%s believes other things than before:\n%s\nwere\n%s", n.name, now, b.before[n])
		}
	}
	b.tv.run("hangup", b.call)
	b.panel.eventually(3*time.Second, "the end of the call is known", func() bool { return b.panel.call(b.call).State == "ended" })
	c := ask[call](b.camera, "call", "panel", "--detach")
	b.camera.eventually(5*time.Second, "a new call works", func() bool { return b.camera.call(c.ID).State == "active" })
	b.camera.run("hangup", c.ID)
}

// within waits for a condition without failing.
func within(d time.Duration, cond func() bool) bool {
	for end := time.Now().Add(d); !cond(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			return false
		}
	}
	return true
}

// storeOf copies the data folder of a stopped node: what somebody has who took its card out.
func storeOf(t *testing.T, n *node) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "store")
	if err := os.CopyFS(to, onlyFiles{os.DirFS(n.dir)}); err != nil {
		t.Fatal(err)
	}
	return to
}

// onlyFiles leaves sockets out of a copy.
type onlyFiles struct{ fs.FS }

// ReadDir lists regular files and folders.
func (f onlyFiles) ReadDir(name string) ([]fs.DirEntry, error) {
	all, err := fs.ReadDir(f.FS, name)
	var out []fs.DirEntry
	for _, e := range all {
		if e.IsDir() || e.Type().IsRegular() {
			out = append(out, e)
		}
	}
	return out, err
}

// A member whose key is in hostile hands speaks by hand: forged and floods of records and
// edits, lies about others, SIP in other names, broken messages. Nobody else's roster or
// records change, memory stays bounded, a call goes on.
func TestHostile_Member(t *testing.T) {
	l := newLab(t)
	member := program(t, "member")
	evil := newNode(t, l, "Evil", "speaker", "")
	b := besiege(t, l, evil)
	cmd := evil.host.Command(t.Context(), member, "-mode", "attack", "-data", storeOf(t, evil),
		"-targets", strings.Join([]string{b.tv.host.IPv4, b.panel.host.IPv4, b.camera.host.IPv4}, ","), "-for", fmt.Sprint(length("HALLWAY_HOSTILE", 10*time.Second)))
	b.during(cmd)
	b.unmoved()
}

// Two members whose keys are in the same hands: neither can end a call of the other, nor
// answer one that was meant for the other, although it knows the branch.
func TestHostile_StolenBranches(t *testing.T) {
	l := newLab(t)
	member := program(t, "member")
	tv := newNode(t, l, "TV", "tv", "", "--source-clip", clip(t, 440)).start().found()
	evil, accomplice := newNode(t, l, "Evil", "speaker", ""), newNode(t, l, "Accomplice", "speaker", "")
	tv.invite(evil, accomplice)
	evil.stop()
	accomplice.stop()
	cmd := evil.host.Command(t.Context(), member, "-mode", "stolen", "-data", storeOf(t, evil), "-second", storeOf(t, accomplice), "-targets", tv.host.IPv4, "-to", "tv")
	cmd.Stderr = os.Stderr
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	out := bufio.NewReader(pipe)
	if l, err := out.ReadString('\n'); err != nil || l != "waiting\n" {
		t.Fatalf("%q %v", l, err)
	}
	tv.eventually(5*time.Second, "it can be called", func() bool { return tv.sees("evil") == "reachable" })
	c := ask[call](tv, "call", "evil", "--detach")
	tv.eventually(5*time.Second, "it ends", func() bool { return tv.call(c.ID).State == "ended" })
	var got struct {
		Rang, Cancelled, Invited bool
		Own                      string
	}
	if err := json.NewDecoder(out).Decode(&got); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	if !got.Rang || got.Cancelled || !got.Invited || !strings.Contains(got.Own, "487") {
		t.Errorf("a CANCEL with a stolen branch: %+v", got)
	}
	if e := tv.call(c.ID); e.Code != 486 {
		t.Errorf("a call whose answer was stolen ended with %d: %s; 486 was the true one", e.Code, e.Reason)
	}
}

// during watches the home while a hostile program runs, and shows what it did.
func (b *besieged) during(cmd *exec.Cmd) {
	b.t.Helper()
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
	over := make(chan struct{})
	var err error
	go func() {
		err = cmd.Wait()
		close(over)
	}()
	b.watch(over)
	b.t.Logf("what it did: %s", out.String())
	if err != nil {
		b.t.Fatalf("the hostile program: %v", err)
	}
	if !strings.Contains(out.String(), "{") {
		b.t.Fatal("the hostile program did nothing")
	}
}
