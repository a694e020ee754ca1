package e2e

import (
	"testing"
	"time"

	"github.com/hallway-home/hallway/test/netlab"
)

// Finding, joining and calling work on IPv4 only, on IPv6 only, with link-local addresses
// only, and on both.
func TestA6_EveryFamily(t *testing.T) {
	file := clip(t, 440)
	for _, f := range []struct {
		name string
		netlab.Families
	}{{"IPv4 only", netlab.IPv4Only}, {"IPv6 only", netlab.IPv6Only}, {"link-local only", netlab.LinkLocalOnly}, {"both", netlab.Both}} {
		t.Run(f.name, func(t *testing.T) {
			l := newLab(t)
			tv := nodeOn(t, hostOn(t, l, l.First(), "TV", f.Families), "tv", "", "--source-clip", file).start().found()
			panel := nodeOn(t, hostOn(t, l, l.First(), "Panel", f.Families), "panel", "", "--source-clip", file)
			stranger := nodeOn(t, hostOn(t, l, l.First(), "Stranger", f.Families), "panel", "").start()
			start := time.Now()
			tv.invite(panel)
			t.Logf("joined and seen on both sides after %v", time.Since(start).Round(time.Millisecond))
			stranger.eventually(8*time.Second, "it lists both", func() bool { return stranger.lists("Hallway-") == 2 })
			attempts(t, "found again after a start", time.Second, func(t *testing.T) time.Duration {
				panel.stop()
				tv.eventually(2*time.Second, "the panel is gone", func() bool { return tv.sees("panel") == "unreachable" })
				panel.start()
				allSee(t, 5*time.Second, tv, panel)
				return time.Since(panel.began)
			})
			t.Logf("a call, from asking to seen on both sides: %v", talk(t, tv, panel).Round(time.Millisecond))
			t.Logf("a call back: %v", talk(t, panel, tv).Round(time.Millisecond))
		})
	}
}

// A device on two interfaces of one LAN, as with cable and Wi-Fi, is listed once, also
// while the second one comes late and the first one goes.
func TestA6_TwoInterfacesAreOneDevice(t *testing.T) {
	l := newLab(t)
	tv := newNode(t, l, "TV", "tv", "").start().found()
	panel := newNode(t, l, "Panel", "panel", "")
	must(t, panel.host.Attach(l.First()))
	tv.invite(panel)
	stranger := newNode(t, l, "Stranger", "panel", "").start()
	once := func(when string) {
		t.Helper()
		stranger.eventually(8*time.Second, "it lists both "+when, func() bool { return stranger.lists("Hallway-") == 2 })
		for range 20 { // and never more: each answer of each interface has come by then
			if n := stranger.lists("Hallway-"); n != 2 {
				t.Fatalf("%s: the stranger lists %d devices, there are 2", when, n)
			}
			if n := tv.lists("panel"); n != 1 {
				t.Fatalf("%s: the TV lists the panel %d times", when, n)
			}
		}
	}
	once("on two interfaces")
	must(t, tv.host.Attach(l.First()))
	took := stranger.eventually(5*time.Second, "the late interface is announced", func() bool {
		return len(tv.addrs("tv")) == 4
	})
	t.Logf("a late interface is in the device's own record after %v", took.Round(time.Millisecond))
	once("with a late interface")
	must(t, panel.host.Unplug(0))
	start := time.Now()
	tv.eventually(10*time.Second, "the panel is reached over the other interface", func() bool {
		_, code := tv.try("call", "panel", "--detach")
		if code != 0 {
			return false
		}
		for range 100 {
			if calls := panel.calls(); len(calls) > 0 && calls[len(calls)-1].State == "incoming" {
				return true
			}
			time.Sleep(20 * time.Millisecond)
		}
		return false
	})
	t.Logf("one of two cables pulled: a call rings over the other after %v", time.Since(start).Round(time.Millisecond))
	once("with one cable pulled")
}
