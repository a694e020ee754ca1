package e2e

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hallway-home/hallway/firmware"
)

// in1970 is the program as it ships, but for the clock of its standard library, which says
// that it is the first of January 1970: no name space of the kernel shifts the time of day, and the
// machine's own must stay. A clock without a battery starts like that.
func in1970(t testing.TB) string {
	t.Helper()
	source := filepath.Join(strings.TrimSpace(command(t, "go", "env", "GOROOT")), "src", "time", "time.go")
	b, err := os.ReadFile(source)
	must(t, err)
	const read = "	sec, nsec, mono := runtimeNow()\n"
	if strings.Count(string(b), read) != 1 {
		t.Fatalf("time.Now of this Go does not read the clock as expected; look at %s", source)
	}
	dir := t.TempDir()
	changed, overlay, file := filepath.Join(dir, "time.go"), filepath.Join(dir, "overlay.json"), filepath.Join(dir, "hallway")
	must(t, os.WriteFile(changed, []byte(strings.Replace(string(b), read, read+"	sec %= 86400 // the time of day is right, the day is not\n", 1)), 0o600))
	j, err := json.Marshal(map[string]any{"Replace": map[string]string{source: changed}})
	must(t, err)
	must(t, os.WriteFile(overlay, j, 0o600))
	args := firmware.BuildArgs("e2e", file)
	cmd := exec.Command("go", append([]string{args[0], "-overlay", overlay}, args[1:]...)...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return file
}

// A device whose clock says 1970 makes a home, admits a device whose clock is right, calls
// and is called, also after a restart; and the other way round.
func TestA30_ClockOf1970(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	file, program := clip(t, 440), in1970(t)
	old := newNode(t, l, "Old", "tv", "", "--source-clip", file)
	old.command = []string{program}
	old.start().found()
	now := newNode(t, l, "Now", "panel", "", "--source-clip", file)
	late := newNode(t, l, "Late", "panel", "", "--source-clip", file)
	late.command = []string{program}
	old.invite(now, late)
	for _, n := range []*node{old, late} {
		if !strings.Contains(n.log.String(), "time=1970-01-01T") {
			t.Fatalf("%s does not live in 1970:\n%s", n.name, lastLines(n.log, 5))
		}
	}
	talk(t, old, now)
	talk(t, now, late)
	p := newNode(t, l, "Phone", "phone", "", "--source-clip", file).start()
	w := ask[pairState](p, "pair", "--no-wait")
	old.eventually(10*time.Second, "a code is taken in 1970", func() bool {
		_, code := old.try("add", w.ShortID, w.Code)
		return code == 0
	})
	allSee(t, 15*time.Second, old, now, late, p)
	old.stop()
	now.stop()
	old.start()
	now.start()
	allSee(t, 15*time.Second, old, now, late, p)
	talk(t, late, old)
}
