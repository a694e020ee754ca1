package e2e

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// holdOpen opens an event stream and a SIP flow of the page's own, which only the node ends, and keeps
// when it does.
const holdOpen = `watch.stream = watch.socket = 0
const w = new WebSocket("wss://" + location.host + "/sip", "sip")
await new Promise((yes, no) => { w.onopen = yes; w.onerror = no })
w.onclose = () => { watch.socket = Date.now() }
const r = (await fetch("/api/v1/events")).body.getReader()
await r.read()
void (async () => { try { while (!(await r.read()).done); } catch {} watch.stream = Date.now() })()
return null`

// TestA9_ThePhoneRemovesADeviceAndAPhone: an owner removes in the app a device that is in a call with
// Ben's phone, and then that phone while it is in another. Calls with their media, the event stream, the
// SIP flow end within 10 s; no node lets the phone in again, nor does one that was off.
func TestA9_ThePhoneRemovesADeviceAndAPhone(t *testing.T) {
	withApp(t)
	l := newLab(t)
	stove := newNode(t, l, "Stove", "panel", "Kitchen", "--source-clip", clip(t, 440), "--auto-answer", "yes").start().found()
	wall := newNode(t, l, "Wall", "speaker", "Hall")
	attic := newNode(t, l, "Attic", "speaker", "")
	lost := newNode(t, l, "Lost", "panel", "Pantry", "--source-clip", clip(t, 550), "--auto-answer", "yes")
	stove.invite(wall, attic, lost)
	anna := stove.person(l.MustHost(t, "anna"), "Anna", "owner", stove.host.IPv4)
	bens := l.MustHost(t, "ben")
	wall.takeName(nil, bens)
	ben := stove.person(bens, "Ben", "member", virtual)
	lostAddrs := addresses(t, lost.pid())
	ben.run(holdOpen, nil)
	attic.kill()

	// removes does in the app what an owner does, and gives when.
	removes := func(at string) time.Time {
		anna.screen("People and devices")
		anna.click(at + " >> role=button[name=/Remove/]")
		began := time.Now()
		anna.click("dialog >> " + button("Remove"))
		return began
	}
	calls := func(n *node) call {
		ben.run(`watch.tracks.length = 0; watch.pcs.length = 0`, nil)
		ben.click("[data-slug=" + slugOf(n.name) + "][aria-disabled=false]")
		ben.begin(`watch.sees(8000)`)
		ben.wait("text=In a call with " + n.name)
		ben.finished("it sees and hears " + n.name)
		c := n.calls()[len(n.calls())-1]
		n.eventually(5*time.Second, "it sees and hears the phone", flows(n, c.ID))
		return c
	}
	over := func(what string, removal time.Time) {
		t.Helper()
		if took := ben.finished(what).Sub(removal); took > 10*time.Second {
			t.Errorf("%s after %v", what, took)
		} else {
			t.Logf("%s %v after the removal", what, took.Round(time.Millisecond))
		}
	}
	left := func(removal time.Time) time.Duration { return 10*time.Second - time.Since(removal) }

	t.Run("a device", func(t *testing.T) {
		calls(lost)
		if flowsTo(t, stove.pid(), lostAddrs...) == 0 {
			t.Fatal("no connection is seen before the removal; the look at the kernel is blind")
		}
		ben.begin(`watch.free(12000)`)
		removal := removes("li[data-slug=lost]")
		over("Ben's call, his camera and microphone end", removal)
		ben.wait("text=The call has ended")
		for _, n := range []*node{stove, wall} {
			n.eventually(left(removal), "it lists the device no more", func() bool { return n.sees("lost") == "" })
			n.eventually(left(removal), "no connection with the device is open", func() bool { return flowsTo(t, n.pid(), lostAddrs...) == 0 })
		}
		t.Logf("all is over %v after the removal", time.Since(removal).Round(time.Millisecond))
		ben.click(button("Close"))
		ben.gone("[data-slug=lost]")
	})
	t.Run("a phone", func(t *testing.T) {
		c := calls(stove)
		ben.begin(`watch.free(12000)`)
		removal := removes("[data-slug=bens-phone]")
		over("Ben's call, his camera and microphone end", removal)
		stove.eventually(left(removal), "the called device's call ends", func() bool { return stove.call(c.ID).State == "ended" })
		for what, at := range map[string]string{"event stream": "watch.stream", "SIP flow": "watch.socket"} {
			ben.begin(`(async () => { for (let i = 0; i < 1000 && !` + at + `; i++) await new Promise((done) => setTimeout(done, 10)); return ` + at + ` })()`)
			over("the "+what+" is ended by the node", removal)
		}
		ben.wait(`role=heading[name="Make this your phone"]`)
		// What Chromium still keeps is a connection that any stranger may open; it gives nothing.
		var got []int
		ben.run(`return Promise.all(["/api/v1/status", "/api/v1/devices", "/sip"].map(async (path) => (await fetch(path)).status))`, &got)
		if !slices.Equal(got, []int{401, 401, 401}) {
			t.Errorf("with its old cookie the removed phone is answered %v", got)
		}
		t.Logf("all is over %v after the removal", time.Since(removal).Round(time.Millisecond))
	})
	t.Run("no node lets it in", func(t *testing.T) {
		was := wall
		for _, n := range []*node{wall, stove, attic} {
			if n == attic {
				n.start()
			}
			n.takeName(was, bens)
			was = n
			refused := func() bool {
				if err := ben.try(`return hallway.login()`, nil); err == nil {
					t.Fatalf("%s let the removed phone in", n.name)
				}
				return strings.Contains(n.log.String(), `msg="a login was refused" from=`+bens.IPv4)
			}
			took := n.eventually(20*time.Second, "it refuses the removed phone", refused)
			t.Logf("%s refused it after %v", n.name, took.Round(time.Millisecond))
		}
		attic.eventually(5*time.Second, "it knows of the device's removal", func() bool { return attic.sees("lost") == "" })
		attic.eventually(5*time.Second, "no connection with the device is open", func() bool { return flowsTo(t, attic.pid(), lostAddrs...) == 0 })
		if out, code := lost.try("call", "attic"); code == 0 {
			t.Errorf("the removed device calls the node that was off: %s", out)
		}
	})
}
