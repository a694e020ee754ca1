package e2e

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hallway-home/hallway/test/netlab"
)

// hostOn is a host of the test on a segment.
func hostOn(t testing.TB, l *netlab.Lab, s *netlab.Segment, name string, f netlab.Families) *netlab.Host {
	t.Helper()
	h, err := l.HostOn(s, name, f)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// length of a test's slow part: short, unless the environment names a longer one.
func length(name string, short time.Duration) time.Duration {
	if d, err := time.ParseDuration(os.Getenv(name)); err == nil {
		return d
	}
	return short
}

// stays looks for a while that something remains true.
func stays(t testing.TB, d time.Duration, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if !cond() {
			t.Fatal("no longer true: " + what)
		}
	}
}

// allSee waits until everyone lists everyone as reachable, and says how long it took.
func allSee(t testing.TB, within time.Duration, nodes ...*node) time.Duration {
	t.Helper()
	start := time.Now()
	for _, n := range nodes {
		for _, p := range nodes {
			n.eventually(max(0, within-time.Since(start)), "it sees "+p.name, func() bool { return n.sees(slugOf(p.name)) == "reachable" })
		}
	}
	return time.Since(start)
}

// talk makes a call, waits until media flows both ways, and hangs up.
func talk(t testing.TB, from, to *node) time.Duration {
	t.Helper()
	start := time.Now()
	c := ask[call](from, "call", slugOf(to.name), "--detach")
	in := to.incoming()
	to.run("answer", in.ID)
	from.eventually(5*time.Second, "it sees and hears "+to.name, flows(from, c.ID))
	to.eventually(5*time.Second, "it sees and hears "+from.name, flows(to, c.ID))
	took := time.Since(start)
	from.run("hangup", c.ID)
	to.eventually(3*time.Second, "the end is known", func() bool { return to.call(c.ID).State == "ended" })
	return took
}

// roster is what must be the same on every member: everything of `home show`.
func (n *node) roster() string {
	out, code := n.try("home", "show")
	if code != 0 {
		return ""
	}
	var v map[string]any
	if json.Unmarshal([]byte(out), &v) != nil {
		return ""
	}
	b, _ := json.Marshal(v) // sorts the keys
	return string(b)
}

// allAgree waits until every node tells the same of the home and its names.
func allAgree(t testing.TB, within time.Duration, nodes ...*node) time.Duration {
	t.Helper()
	start := time.Now()
	for _, n := range nodes[1:] {
		n.eventually(max(0, within-time.Since(start)), "it agrees with "+nodes[0].name, func() bool {
			return n.roster() == nodes[0].roster() && n.run("rooms") == nodes[0].run("rooms")
		})
	}
	return time.Since(start)
}

// addrs are the contacts that a node lists for a device.
func (n *node) addrs(slug string) []string {
	for _, d := range ask[struct {
		Devices []struct {
			Slug  string
			Addrs []string
		}
	}](n, "devices").Devices {
		if d.Slug == slug {
			return d.Addrs
		}
	}
	return nil
}

// lists counts how often a device shows in the whole list, strangers' view included.
func (n *node) lists(part string) int {
	all := ask[devices](n, "devices", "--all")
	count := 0
	for _, f := range all.Foreign {
		if strings.Contains(f.Name, part) && slices.Contains(f.Kinds, "_hallway._tcp") {
			count++
		}
	}
	for _, d := range all.Devices {
		if d.Slug == part {
			count++
		}
	}
	return count
}

// A clean stop empties every list within 2 s, those of strangers too. A pulled plug shows
// within 5 s, and a call fails within 4 s, whether the loss is known already or not.
func TestA4_StopAndPulledPlug(t *testing.T) {
	l := newLab(t)
	tv := newNode(t, l, "TV", "tv", "").start().found()
	cam, panel := newNode(t, l, "Cam", "camera", ""), newNode(t, l, "Panel", "panel", "")
	tv.invite(cam, panel)
	stranger := newNode(t, l, "Stranger", "panel", "").start()
	stranger.eventually(8*time.Second, "it lists the three", func() bool { return stranger.lists("Hallway-") == 3 })
	attempts(t, "a clean stop empties every list", 2*time.Second, func(t *testing.T) time.Duration {
		start := time.Now()
		cam.stop()
		stopped := time.Since(start)
		for _, n := range []*node{tv, panel} {
			n.eventually(5*time.Second, "the camera is gone", func() bool { return n.sees("cam") == "unreachable" })
		}
		members := time.Since(start)
		stranger.eventually(5*time.Second, "the camera is gone", func() bool { return stranger.lists("Hallway-") == 2 })
		took := time.Since(start)
		t.Logf("the process ended after %v, members knew after %v, strangers after %v", stopped.Round(time.Millisecond), members.Round(time.Millisecond), took.Round(time.Millisecond))
		cam.start()
		allSee(t, 10*time.Second, tv, cam, panel)
		stranger.eventually(8*time.Second, "it lists the three", func() bool { return stranger.lists("Hallway-") == 3 })
		return took
	})
	refused := func(t *testing.T, when string) {
		start := time.Now()
		out, code := tv.try("call", "panel")
		took := time.Since(start)
		t.Logf("a call %s: exit %d after %v", when, code, took.Round(time.Millisecond))
		if code != 7 || took > 4*time.Second || !strings.Contains(out, "Panel") {
			t.Errorf("a call %s: exit %d after %v: %s", when, code, took, out)
		}
	}
	attempts(t, "a pulled plug is known to all", 5*time.Second, func(t *testing.T) time.Duration {
		start := time.Now()
		must(t, panel.host.Down())
		refused(t, "before the loss is known")
		for _, n := range []*node{tv, cam} {
			n.eventually(8*time.Second, "the panel is unreachable", func() bool { return n.sees("panel") == "unreachable" })
		}
		took := time.Since(start)
		refused(t, "after the loss is known")
		must(t, panel.host.Up())
		t.Logf("plugged in again: all see all after %v", allSee(t, 10*time.Second, tv, cam, panel).Round(time.Millisecond))
		return took
	})
}

// Two subnets without multicast between them: nobody sees the others; one seed address on
// one agent joins them all.
func TestA15_OneSeedJoinsTwoSubnets(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	other, err := l.Segment()
	must(t, err)
	file := clip(t, 440)
	tv := newNode(t, l, "TV", "tv", "", "--source-clip", file).start().found()
	cam := newNode(t, l, "Cam", "camera", "")
	panel, stb := newNode(t, l, "Panel", "panel", "", "--source-clip", file), newNode(t, l, "Box", "stb", "")
	tv.invite(cam, panel, stb)
	all := []*node{tv, cam, panel, stb}
	for _, n := range all {
		n.stop()
	}
	must(t, l.Route(l.First(), other))
	for _, n := range []*node{panel, stb} { // new addresses: what is stored leads nowhere
		must(t, n.host.Move(other))
	}
	// The two that stayed get new ones as well, so nobody's memory can help.
	must(t, tv.host.GetIPv4(101))
	must(t, cam.host.GetIPv4(102))
	for _, n := range []*node{tv, cam} {
		must(t, n.host.Command(t.Context(), "ip", "-6", "addr", "del", n.host.IPv6+"/64", "dev", "eth0").Run())
	}
	for _, n := range all {
		n.start()
	}
	allSee(t, 10*time.Second, tv, cam)
	allSee(t, 10*time.Second, panel, stb)
	stays(t, 4*time.Second, "without a seed the other subnet is unreachable", func() bool { return tv.sees("panel") == "unreachable" }) // longer than any re-dial
	stb.stop()
	stb.start("--peer", tv.host.IPv4+":5061")
	t.Logf("one seed: all four list each other %v after its start", allSee(t, 15*time.Second, all...).Round(time.Millisecond))
	t.Logf("a call across: ringing, accepted and seen on both sides after %v", talk(t, tv, panel).Round(time.Millisecond))
	// Where no multicast passes a new device is invited with a seed, too.
	phone := nodeOn(t, hostOn(t, l, other, "Phone", netlab.Both), "phone", "")
	token := ask[struct{ Token string }](tv, "invite", "--seed", tv.host.IPv4+":5061").Token
	start := time.Now()
	phone.start("--join", token)
	allSee(t, 15*time.Second, append(all, phone)...)
	t.Logf("a device invited across: all list each other after %v", time.Since(start).Round(time.Millisecond))
}

// Where no multicast passes, the address over which a device joined is all that the two know
// of each other; it suffices, by a token and by a code.
func TestJoinedAcrossSubnetsTheyMeet(t *testing.T) {
	l := newLab(t)
	other, err := l.Segment()
	must(t, err)
	tv := newNode(t, l, "TV", "tv", "").start().found()
	must(t, l.Route(l.First(), other))
	phone := nodeOn(t, hostOn(t, l, other, "Phone", netlab.Both), "phone", "")
	phone.start("--join", ask[struct{ Token string }](tv, "invite", "--seed", tv.host.IPv4+":5061").Token)
	t.Logf("invited by a token: they list each other after %v", allSee(t, 5*time.Second, tv, phone).Round(time.Millisecond))
	phone.stop() // else it would tell the next one where the TV is

	panel := nodeOn(t, hostOn(t, l, other, "Panel", netlab.Both), "panel", "").start()
	p := ask[pairState](panel, "pair", "--no-wait")
	tv.run("add", p.ShortID, p.Code, "--addr", panel.host.IPv4+":5061")
	t.Logf("added by its code: they list each other after %v", allSee(t, 5*time.Second, tv, panel).Round(time.Millisecond))
}
