package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hallway-home/hallway/firmware"
)

// built is the program as it ships for a target.
func built(t testing.TB, target string) string {
	t.Helper()
	all := firmware.Targets()
	i := slices.IndexFunc(all, func(x firmware.Target) bool { return x.Name == target })
	if i < 0 {
		t.Fatalf("there is no target %q", target)
	}
	file := filepath.Join(t.TempDir(), all[i].File())
	cmd := exec.Command("go", firmware.BuildArgs("e2e", file)...)
	cmd.Env = append(os.Environ(), all[i].BuildEnv()...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", target, err, out)
	}
	return file
}

// The programs for other processors run a call. Emulation of a process (qemu-user) knows no
// multicast, so the two learn of each other by an address, and the one that runs emulated
// must go on without its discovery.
func TestA30_OtherProcessorsCall(t *testing.T) {
	for _, x := range []struct{ target, emulator string }{
		{"linux-arm-7", "qemu-arm-static"}, {"linux-arm64", "qemu-aarch64-static"}, {"linux-mipsle", "qemu-mipsel-static"},
	} {
		t.Run(x.target, func(t *testing.T) {
			emulator, err := exec.LookPath(x.emulator)
			if err != nil {
				missing(t, x.emulator+" is missing; apt install qemu-user-static")
			}
			file, program := clip(t, 440), built(t, x.target)
			l := newLab(t)
			tv := newNode(t, l, "TV", "tv", "", "--source-clip", file).start().found()
			panel := newNode(t, l, "Panel", "panel", "", "--source-clip", file)
			panel.command = []string{emulator, program}
			token := ask[struct{ Token string }](tv, "invite", "--seed", tv.host.IPv4+":5061").Token
			start := time.Now()
			panel.start("--join", token)
			ready := time.Since(start)
			allSee(t, 30*time.Second, tv, panel)
			joined := time.Since(start)
			c := ask[call](tv, "call", "panel", "--detach")
			in := panel.incoming()
			panel.run("answer", in.ID)
			const enough = 100 // packets of each kind: four seconds of picture
			for _, n := range []*node{tv, panel} {
				n.eventually(20*time.Second, "it sees and hears", func() bool {
					s := n.call(c.ID).Stats
					return s.Audio.Received >= enough && s.Video.Received >= enough
				})
			}
			seen, there := tv.call(c.ID).Stats, panel.call(c.ID).Stats
			panel.run("hangup", in.ID)
			tv.eventually(3*time.Second, "the end is known", func() bool { return tv.call(c.ID).State == "ended" })
			t.Logf("emulated: ready after %v, joined after %v; native heard %d and saw %d packets, emulated %d and %d",
				ready.Round(time.Millisecond), joined.Round(time.Millisecond), seen.Audio.Received, seen.Video.Received, there.Audio.Received, there.Video.Received)
			if !strings.Contains(panel.log.String(), "level=WARN") {
				t.Errorf("nothing says that multicast does not work:\n%s", lastLines(panel.log, 20))
			}
		})
	}
}
