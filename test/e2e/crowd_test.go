package e2e

import (
	"bufio"
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hallway-home/hallway/test/netlab"
)

// crowds fills a node's HTTPS port from a host, until the given function is called.
func crowds(t *testing.T, n *node, h *netlab.Host, file string) (end func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cmd := h.Command(ctx, file, "-target", n.host.IPv4+":8443", "-host", strings.TrimPrefix(n.origin(), "https://"))
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "up\n" {
		t.Fatalf("the crowd says %q: %v", line, err)
	}
	return func() { cancel(); _ = cmd.Wait() }
}

// tabsLogIn logs out, and in from several tabs at once, as when a browser starts again: all share one session.
func tabsLogIn(t *testing.T, phone *browser, origin string) {
	t.Helper()
	if _, err := phone.open(origin + "/trust"); err != nil {
		t.Fatal(err)
	}
	phone.eval(`await hallway.login(); await hallway.logout(); return null`, nil)
	var js strings.Builder
	for range 6 {
		js.WriteString("delete globalThis.hallway\n" + client(t) + "tabs.push(hallway)\n")
	}
	var tokens []string
	phone.run(`const tabs = []
`+js.String()+`return (await Promise.all(tabs.map((x) => x.login().catch((e) => ({ csrf: String(e) }))))).map((s) => s.csrf)`, &tokens)
	if len(tokens) != 6 || len(slices.Compact(tokens)) != 1 || len(tokens[0]) != 64 {
		t.Errorf("six tabs that log in at once have %q", tokens)
	}
}

// TestACrowdBlocksNobody: 1,000 connections that say nothing and 1,000 slow ones, from one host, fill the
// port of a node; a phone there logs in and calls as before, and the node's memory is bounded.
func TestACrowdBlocksNobody(t *testing.T) {
	withApp(t)
	l := newLab(t)
	file := program(t, "crowd")
	wall := newNode(t, l, "Wall", "speaker", "Hall").start().found()
	stove := newNode(t, l, "Stove", "panel", "Kitchen", "--source-clip", clip(t, 440), "--auto-answer", "yes")
	wall.invite(stove)
	phone := wall.person(l.MustHost(t, "anna"), "Anna", "member", wall.host.IPv4)
	// use logs in, opens the app anew and calls; it gives the times of the login, of opening and of the first frame.
	use := func(what string) (login, first time.Duration) {
		if _, err := phone.open(wall.origin() + "/trust"); err != nil { // a page where the app itself does not run
			t.Fatal(err)
		}
		var ms float64
		phone.eval(`await hallway.login(); await hallway.logout(); const began = performance.now(); await hallway.login(); return performance.now() - began`, &ms)
		login = time.Duration(ms * float64(time.Millisecond))
		opened := time.Now()
		if _, err := phone.open(wall.origin() + "/"); err != nil {
			t.Fatal(err)
		}
		phone.wait("[data-slug=stove][aria-disabled=false]")
		opening := time.Since(opened)
		phone.begin(`watch.sees(8000)`)
		tapped := time.Now()
		phone.click("[data-slug=stove]")
		first = phone.finished("it sees and hears").Sub(tapped)
		phone.wait("text=In a call with Stove")
		phone.click(button("Hang up"))
		phone.click(button("Close"))
		stove.eventually(3*time.Second, "it is free", func() bool { c := stove.calls(); return c[len(c)-1].State == "ended" })
		t.Logf("%s: login %v, app ready to call %v, first frame and sound %v after the tap; the node holds %.1f MiB", what,
			login.Round(time.Millisecond), opening.Round(time.Millisecond), first.Round(time.Millisecond), held(t, wall.pid()))
		return login, first
	}
	tabsLogIn(t, phone, wall.origin())
	use("alone")
	before := held(t, wall.pid())
	end := crowds(t, wall, l.MustHost(t, "crowd"), file)
	defer end()
	var login time.Duration
	attempts(t, "tap to the first frame beside 2,000 connections", time.Second, func(t *testing.T) (first time.Duration) {
		login, first = use("beside 2,000")
		return first
	})
	if login > time.Second {
		t.Errorf("the login took %v", login)
	}
	if now := held(t, wall.pid()); now > before+12 {
		t.Errorf("the node holds %.1f MiB, %.1f before", now, before)
	}
	open := 0
	for _, s := range sockets(t, wall.pid()) {
		if s.port == 8443 && s.state == "01" {
			open++
		}
	}
	t.Logf("%d connections are open at the node", open)
	if open < 50 {
		t.Error("the crowd is not there")
	}
}
