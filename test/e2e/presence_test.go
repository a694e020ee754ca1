package e2e

import (
	"strings"
	"testing"
	"time"
)

// presence is what a node says of a device or person: free, busy, dnd or away.
func (n *node) presence(slug string) string {
	n.t.Helper()
	type row struct{ Slug, Presence string }
	rows := ask[struct{ Devices []row }](n, "devices").Devices
	for _, r := range append(rows, ask[struct{ Persons []row }](n, "rooms").Persons...) {
		if r.Slug == slug {
			return r.Presence
		}
	}
	return ""
}

// shows waits until a node says so, and logs how long it took.
func (n *node) shows(slug, presence string, within time.Duration) {
	n.t.Helper()
	took := n.eventually(within, slug+" is "+presence, func() bool { return n.presence(slug) == presence })
	n.t.Logf("%s sees that %s is %s after %v", n.name, slug, presence, took.Round(time.Millisecond))
}

// TestPresence: who is free, busy, not to be disturbed or away is seen on every node and live in the app; a member sets their
// own do-not-disturb, a device has its own, and callers are told in words.
func TestPresence(t *testing.T) {
	withApp(t)
	l := newLab(t)
	kitchen := newNode(t, l, "Stove", "panel", "Kitchen").start().found()
	fridge := newNode(t, l, "Fridge", "panel", "Pantry", "--source-clip", clip(t, 550), "--sink-record", t.TempDir(), "--auto-answer", "yes")
	kitchen.invite(fridge)
	page, _, origin := pairedPage(t, l, kitchen, "--role", "member")
	refused := func(n *node, to, name string) {
		t.Helper()
		out, code := n.try("call", to)
		if code != 6 || !strings.Contains(out, name+" does not want to be disturbed.") {
			t.Errorf("%s calls %s: exit %d: %s", n.name, to, code, out)
		}
	}
	page.wait("[data-slug=fridge][aria-disabled=false] .state.on")
	for _, n := range []*node{kitchen, fridge} {
		n.shows("anna", "free", 5*time.Second)
		n.shows("fridge", "free", 5*time.Second)
	}

	// A call makes both sides busy, everywhere and on the page; its end frees them.
	page.click("[data-slug=fridge]")
	page.wait("text=In a call with Fridge")
	page.wait("[data-slug=fridge] .state:not(.on) >> text=In a call")
	page.wait("[data-slug=anna] .state:not(.on) >> text=In a call")
	kitchen.shows("fridge", "busy", 3*time.Second)
	fridge.shows("anna", "busy", 3*time.Second)
	page.click(button("Hang up"))
	page.click(button("Close"))
	page.wait("[data-slug=fridge] .state.on")
	page.wait("[data-slug=anna] .state.on")

	// The device's own wish: refused with words although it answers by itself, kept over a restart.
	fridge.run("dnd", "on")
	page.wait("[data-slug=fridge] .state:not(.on) >> text=Do not disturb")
	kitchen.shows("fridge", "dnd", 3*time.Second)
	refused(kitchen, "fridge", "Fridge")
	page.click("[data-slug=fridge]")
	page.wait("dialog >> text=Does not want to be disturbed")
	page.click(button("Close"))
	fridge.kill()
	fridge.start()
	kitchen.eventually(10*time.Second, "the fridge is back", func() bool { return kitchen.sees("fridge") == "reachable" })
	kitchen.shows("fridge", "dnd", 3*time.Second)
	if len(fridge.calls()) != 0 {
		t.Errorf("it rang: %+v", fridge.calls())
	}
	fridge.run("dnd", "off")
	page.wait("[data-slug=fridge] .state.on")

	// A member's own wish, which outlives a reload.
	page.screen("Settings")
	page.click("input[name=dnd]")
	for _, n := range []*node{kitchen, fridge} {
		n.shows("anna", "dnd", 3*time.Second)
		refused(n, "anna", "Anna")
	}
	if _, err := page.open(origin + "/"); err != nil {
		t.Fatal(err)
	}
	page.wait("[data-slug=anna] .state:not(.on) >> text=Do not disturb")
	page.draw("house-dnd")
	page.screen("Settings")
	page.click("input[name=dnd]")
	fridge.shows("anna", "free", 3*time.Second)

	// Without a connected phone a person is away.
	if _, err := page.open("about:blank"); err != nil {
		t.Fatal(err)
	}
	fridge.shows("anna", "away", 20*time.Second)
}
