package e2e

import (
	"testing"
	"time"

	"github.com/hallway-home/hallway/test/netlab/impair"
)

// Over bad Wi-Fi, which loses, delays, repeats and reorders packets, a device joins, is
// found, stays reachable, takes edits and talks; when nothing passes any more it is
// missed, and back soon after.
func TestBadWiFi(t *testing.T) {
	l := newLab(t)
	file := clip(t, 440)
	tv := newNode(t, l, "TV", "tv", "", "--source-clip", file).start().found()
	panel := newNode(t, l, "Panel", "panel", "", "--source-clip", file)
	bad := impair.Faults{Loss: 0.05, Duplicate: 0.02, Reorder: 0.02, Delay: 15 * time.Millisecond, Jitter: 10 * time.Millisecond, Seed: 1}
	cable := badCable(t, l, panel.host, bad)
	start := time.Now()
	panel.start("--join", ask[struct{ Token string }](tv, "invite").Token)
	tv.eventually(30*time.Second, "the panel joins", func() bool { return tv.sees("panel") == "reachable" })
	allSee(t, 15*time.Second, tv, panel)
	t.Logf("5 %% loss and 15 ms each way: joined and seen on both sides after %v", time.Since(start).Round(time.Millisecond))
	for range 3 {
		t.Logf("a call, from asking to seen on both sides: %v", talk(t, tv, panel).Round(time.Millisecond))
	}
	tv.run("home", "room", "Attic")
	t.Logf("an edit is on the other side after %v", allAgree(t, 10*time.Second, tv, panel).Round(time.Millisecond))
	stay := length("HALLWAY_BAD", 5*time.Second)
	stays(t, stay, "each sees the other", func() bool { return tv.sees("panel") == "reachable" && panel.sees("tv") == "reachable" })
	cable.Set(impair.Faults{Loss: 1})
	took := tv.eventually(8*time.Second, "the panel is missed", func() bool { return tv.sees("panel") == "unreachable" })
	cable.Set(bad)
	back := allSee(t, 15*time.Second, tv, panel)
	t.Logf("reachable throughout %v; nothing passes: missed after %v; back %v after packets passed again; %+v", stay, took.Round(time.Millisecond), back.Round(time.Millisecond), cable.Stats())
	if took > 5*time.Second || back > 8*time.Second {
		t.Errorf("missed after %v, back after %v", took, back)
	}
}
