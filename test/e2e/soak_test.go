package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// Calls, one after the other, for HALLWAY_SOAK (a few seconds without it), with the callee
// killed now and then: no file stays open and nobody ends.
func TestSoak_CallsWithoutGrowing(t *testing.T) {
	length, err := time.ParseDuration(os.Getenv("HALLWAY_SOAK"))
	if err != nil {
		length = 5 * time.Second
	}
	l := newLab(t)
	tv := newNode(t, l, "TV", "tv", "", "--source-clip", clip(t, 440)).start().found()
	panel := newNode(t, l, "Panel", "panel", "", "--source-clip", clip(t, 550), "--auto-answer", "yes")
	tv.invite(panel)
	one := func() {
		c := ask[call](tv, "call", "panel", "--detach")
		tv.eventually(5*time.Second, "it sees and hears", flows(tv, c.ID))
		tv.run("hangup", c.ID)
		panel.eventually(5*time.Second, "the end is known", func() bool { return panel.call(c.ID).State == "ended" })
	}
	for range 3 {
		one()
	}
	before, calls, kills := openFiles(t, tv), 0, 0
	for end := time.Now().Add(length); time.Now().Before(end); calls++ {
		one()
		if calls%40 == 39 {
			panel.kill()
			tv.eventually(5*time.Second, "the panel is gone", func() bool { return tv.sees("panel") == "unreachable" })
			panel.start()
			tv.eventually(10*time.Second, "the panel is back", func() bool { return tv.sees("panel") == "reachable" })
			panel.eventually(10*time.Second, "it sees the TV", func() bool { return panel.sees("tv") == "reachable" })
			kills++
		}
	}
	var after int
	tv.eventually(5*time.Second, fmt.Sprintf("no more files are open than before (%d)", before), func() bool {
		after = openFiles(t, tv)
		return after <= before+2 // a re-dial may be under way
	})
	t.Logf("%d calls, %d kills; open files %d before, %d after", calls, kills, before, after)
}

func openFiles(t *testing.T, n *node) int {
	t.Helper()
	fds, err := os.ReadDir(filepath.Join("/proc", fmt.Sprint(n.pid()), "fd"))
	if err != nil {
		t.Fatal(err)
	}
	return len(fds)
}
