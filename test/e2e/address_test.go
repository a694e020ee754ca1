package e2e

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hallway-home/hallway/test/netlab"
)

// ear hears one side of a running call.
type ear struct {
	n            *node
	sound, looks int
	picture      int
	heard        time.Time
	longest      time.Duration
}

func newEar(n *node, id string) *ear {
	c := n.call(id)
	return &ear{n: n, sound: c.Stats.Audio.Received, picture: c.Stats.Video.Received, heard: time.Now()}
}

// listen looks once; the call must be running.
func (e *ear) listen(t *testing.T, id string) {
	t.Helper()
	c := e.n.call(id)
	if c.State != "active" {
		t.Fatalf("%s: the call is %s: %s", e.n.name, c.State, c.Reason)
	}
	if now := time.Now(); c.Stats.Audio.Received > e.sound {
		e.longest = max(e.longest, now.Sub(e.heard))
		e.sound, e.heard = c.Stats.Audio.Received, now
		e.looks++
	}
	if e.looks >= 20 { // the picture of later than the first sound
		e.picture = max(e.picture, c.Stats.Video.Received)
	}
}

// outage watches a running call on both sides from start on, until media has flowed for a
// while on both and fresh is true; it says how long the longest silence of either was, and
// when fresh became true.
func outage(t *testing.T, start time.Time, a, b *node, id string, fresh func() bool) (silent, since time.Duration) {
	t.Helper()
	ears := []*ear{newEar(a, id), newEar(b, id)}
	pictures := []int{ears[0].picture, ears[1].picture}
	for {
		flowing := true
		for i, e := range ears {
			e.listen(t, id)
			// 40 looks that brought sound are about a second of it.
			flowing = flowing && e.looks >= 40 && e.picture > pictures[i]
		}
		if since == 0 && fresh() {
			since = time.Since(start)
		}
		if flowing && since > 0 && time.Since(start) > 3*time.Second {
			return max(ears[0].longest, ears[1].longest), since
		}
		if time.Since(start) > 25*time.Second {
			t.Fatalf("fresh after %v; sound and picture did not come back: %+v %+v", since, *ears[0], *ears[1])
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func active(t *testing.T, from, to *node) string {
	t.Helper()
	c := ask[call](from, "call", slugOf(to.name), "--detach")
	to.incoming()
	to.run("answer", c.ID)
	from.eventually(5*time.Second, "media flows", flows(from, c.ID))
	to.eventually(5*time.Second, "media flows", flows(to, c.ID))
	return c.ID
}

// A new address by DHCP: the URI stays, the contact is fresh on the others within 5 s, and
// a running call goes on, whichever side moves, and when both do at once.
func TestA13_NewAddress(t *testing.T) {
	l := newLab(t)
	file := clip(t, 440)
	tv := nodeOn(t, hostOn(t, l, l.First(), "TV", netlab.IPv4Only), "tv", "", "--source-clip", file).start().found()
	panel := nodeOn(t, hostOn(t, l, l.First(), "Panel", netlab.IPv4Only), "panel", "", "--source-clip", file)
	desk := nodeOn(t, hostOn(t, l, l.First(), "Desk", netlab.IPv4Only), "panel", "")
	tv.invite(panel, desk)
	uri := func() string {
		return ask[struct{ AOR any }](desk, "resolve", "panel").AOR.(string)
	}
	before, number := uri(), 100
	move := func(t *testing.T, movers ...*node) time.Duration {
		t.Helper()
		id := active(t, tv, panel)
		start := time.Now()
		for _, m := range movers {
			number++
			must(t, m.host.GetIPv4(number))
		}
		silent, took := outage(t, start, tv, panel, id, func() bool {
			for _, m := range movers {
				for _, n := range []*node{tv, panel, desk} {
					if !slices.Equal(n.addrs(slugOf(m.name)), []string{m.host.IPv4 + ":5061"}) || n.sees(slugOf(m.name)) != "reachable" {
						return false
					}
				}
			}
			return true
		})
		t.Logf("contact fresh on all after %v; the call went on after a silence of %v", took.Round(time.Millisecond), silent.Round(time.Millisecond))
		tv.run("hangup", id)
		panel.eventually(3*time.Second, "the end is known", func() bool { return panel.call(id).State == "ended" })
		return took
	}
	for what, movers := range map[string][]*node{"the called moves": {panel}, "the caller moves": {tv}, "both move": {tv, panel}} {
		attempts(t, "contact fresh, "+what, 5*time.Second, func(t *testing.T) time.Duration { return move(t, movers...) })
	}
	if after := uri(); after != before || !strings.HasPrefix(after, "sip:panel@") {
		t.Errorf("the URI changed from %s to %s", before, after)
	}
}

// On both families the call does not even notice: it runs over addresses that stay, or
// moves. A cable pulled for 8 s does not end it either.
func TestA13_PulledPlugWhileTalking(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	file := clip(t, 440)
	tv := newNode(t, l, "TV", "tv", "", "--source-clip", file).start().found()
	panel := newNode(t, l, "Panel", "panel", "", "--source-clip", file)
	tv.invite(panel)
	id := active(t, tv, panel)
	see := func() bool { return tv.sees("panel") == "reachable" && panel.sees("tv") == "reachable" }
	start := time.Now()
	must(t, panel.host.GetIPv4(120))
	silent, _ := outage(t, start, tv, panel, id, see)
	t.Logf("a new IPv4 address beside IPv6: silence of %v", silent.Round(time.Millisecond))
	must(t, panel.host.Down())
	stays(t, 8*time.Second, "the call is kept", func() bool { return tv.call(id).State == "active" && panel.call(id).State == "active" })
	start = time.Now()
	must(t, panel.host.Up())
	silent, back := outage(t, start, tv, panel, id, see)
	t.Logf("a cable pulled for 8 s: sound again %v after it was back, each sees the other after %v", silent.Round(time.Millisecond), back.Round(time.Millisecond))
	allSee(t, 10*time.Second, tv, panel)
	tv.run("hangup", id)
	panel.eventually(3*time.Second, "the end is known", func() bool { return panel.call(id).State == "ended" })
}
