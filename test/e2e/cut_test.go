package e2e

import (
	"strings"
	"testing"
	"time"

	"github.com/hallway-home/hallway/test/netlab"
)

// owner adds a device as a second owner.
func (n *node) owner(o *node) {
	n.t.Helper()
	o.start()
	p := ask[pairState](o, "pair", "--no-wait")
	n.eventually(8*time.Second, o.name+" becomes an owner", func() bool {
		_, code := n.try("add", p.ShortID, p.Code, "--role", "owner")
		return code == 0
	})
	allSee(n.t, 10*time.Second, n, o)
}

// The LAN is cut in two: both halves call and edit on; healed they agree within 5 s, and a
// device that was removed in one half while it was in the other does not come back. A
// longer cut: HALLWAY_CUT=9m.
func TestA12_CutInTwo(t *testing.T) {
	l := newLab(t)
	file := clip(t, 440)
	cutFor := length("HALLWAY_CUT", 8*time.Second)
	tv := newNode(t, l, "TV", "tv", "", "--source-clip", file).start().found()
	panel := newNode(t, l, "Panel", "panel", "", "--source-clip", file)
	phone, desk := newNode(t, l, "Phone", "panel", "", "--source-clip", file), newNode(t, l, "Desk", "panel", "", "--source-clip", file)
	tv.owner(panel)
	tv.invite(phone, desk)
	allSee(t, 10*time.Second, tv, panel, phone, desk)
	gone := ""
	for _, d := range ask[devices](tv, "devices").Devices {
		if d.Slug == "desk" {
			gone = d.Node
		}
	}
	round := 0
	attempts(t, "healed and agreed", 5*time.Second, func(t *testing.T) time.Duration {
		round++
		start := time.Now()
		must(t, l.Cut(panel.host, desk.host))
		for _, x := range [][2]*node{{tv, panel}, {phone, panel}, {panel, tv}, {panel, phone}} {
			x[0].eventually(6*time.Second, "it misses "+x[1].name, func() bool { return x[0].sees(slugOf(x[1].name)) == "unreachable" })
		}
		t.Logf("both halves know of the cut after %v", time.Since(start).Round(time.Millisecond))
		if round == 1 { // the same subjects on both sides, and a removal nobody over there sees
			tv.run("home", "room", "Attic")
			panel.run("home", "room", "Attic")
			tv.run("home", "rename", "phone", "Pocket phone")
			panel.run("home", "rename", "phone", "Telephone")
			panel.run("home", "rename", "desk", "Office desk")
			panel.run("home", "group", "Upstairs", "phone", "desk")
			tv.run("home", "group", "Downstairs", "phone", "tv")
			tv.run("home", "remove", "desk")
		} else {
			tv.run("home", "room", "Here "+strings.Repeat("I", round))
			panel.run("home", "room", "There "+strings.Repeat("I", round))
		}
		t.Logf("calls inside the halves: %v and %v", talk(t, tv, phone).Round(time.Millisecond), talk(t, panel, map[bool]*node{true: desk, false: tv}[round == 1]).Round(time.Millisecond))
		stays(t, cutFor-time.Since(start), "the halves are apart", func() bool { return tv.sees("panel") == "unreachable" && panel.sees("tv") == "unreachable" })
		if tv.roster() == panel.roster() {
			t.Fatal("the halves did not differ: nothing is shown")
		}
		start = time.Now()
		must(t, l.Heal(panel.host, desk.host))
		seen := allSee(t, 20*time.Second, tv, panel, phone)
		allAgree(t, 20*time.Second, tv, panel, phone)
		took := time.Since(start)
		t.Logf("after a cut of %v all see all after %v and agree after %v", cutFor, seen.Round(time.Millisecond), took.Round(time.Millisecond))
		return took
	})
	absent := func(when string) {
		t.Helper()
		for _, n := range []*node{tv, panel, phone} {
			if strings.Contains(n.run("home", "show"), gone) || n.sees("desk") != "" {
				t.Errorf("%s, %s: the removed device is back: %s", when, n.name, n.roster())
			}
		}
	}
	absent("after healing")
	if out, code := desk.try("call", "tv"); code != 7 {
		t.Errorf("the removed device calls: exit %d: %s", code, out)
	}
	desk.stop()
	desk.start()
	stays(t, 3*time.Second, "nobody lists the removed device", func() bool { return tv.sees("desk") == "" && panel.sees("desk") == "" }) // longer than its first dials
	absent("after the removed device started again")
	if s := desk.sees("tv"); s != "unreachable" {
		t.Errorf("the removed device sees the TV as %s", s)
	}
	out := tv.run("rooms")
	t.Logf("folded everywhere to: %s %s", tv.roster(), strings.TrimSpace(out))
	for _, word := range []string{"attic", "upstairs", "downstairs"} {
		if !strings.Contains(out, word) {
			t.Errorf("an edit of one half is lost: no %s in %s", word, out)
		}
	}
}

// The power comes back: every agent starts while nobody has an address; some seconds
// later all get one, another than before. All see all without a hand. The same again with
// multicast blocked: with the old addresses what is stored suffices, with new ones one seed address does.
func TestA12_PowerFailure(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	dark := length("HALLWAY_DARK", 3*time.Second)
	var all []*node
	for _, name := range []string{"TV", "Panel", "Phone", "Desk"} {
		all = append(all, nodeOn(t, hostOn(t, l, l.First(), name, netlab.IPv4Only), "panel", ""))
	}
	all[0].start().found().invite(all[1:]...)
	blackout := func(what string, base int, seed ...string) {
		t.Helper()
		for _, n := range all {
			n.kill()
			must(t, n.host.LoseIPv4())
		}
		for i, n := range all {
			if i == 0 {
				n.start() // it is the seed
			} else {
				n.start(seed...)
			}
		}
		stays(t, dark, "without an address nobody is reached", func() bool { return all[0].sees("panel") != "reachable" })
		start := time.Now()
		for i, n := range all {
			must(t, n.host.GetIPv4(base+i))
		}
		given := time.Since(start)
		allSee(t, 20*time.Second, all...)
		took := time.Since(start)
		t.Logf("%s: all see all %v after the first address (the last came after %v)", what, took.Round(time.Millisecond), given.Round(time.Millisecond))
		if took > 8*time.Second {
			t.Errorf("%s: that took %v", what, took)
		}
	}
	blackout("new addresses", 100)
	blackout("the same addresses", 100)
	must(t, l.First().BlockMulticast())
	blackout("multicast blocked, the same addresses, from what is stored", 100)
	blackout("multicast blocked, new addresses, one seed", 150, "--peer", "10.77.0.150:5061")
}
