package e2e

import (
	"context"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hallway-home/hallway/test/netlab"
)

// pairedPage is a browser on a host of its own that belongs to Anna.
// more are flags of `hallway phone`.
func pairedPage(t *testing.T, l *netlab.Lab, owner *node, more ...string) (page *browser, annas *netlab.Host, origin string) {
	t.Helper()
	annas = l.MustHost(t, "anna")
	owner.takeName(nil, annas)
	page = owner.browserOn(annas, virtual)
	page.pairs(owner, "Anna's phone", append([]string{"--name", "Anna"}, more...)...)
	return page, annas, owner.origin()
}

// arm makes a page a panel by its one tap and waits until it can be called.
func (b *browser) arm(origin string) {
	b.t.Helper()
	if _, err := b.open(origin + "/panel"); err != nil {
		b.t.Fatal(err)
	}
	b.count()
	b.click(button("Start the panel"))
	b.wait(".panel .state.on")
}

// rings calls Anna again and again until the page shows it, declines, and says how long it took.
func (n *node) rings(page *browser, within time.Duration) time.Duration {
	n.t.Helper()
	began := time.Now()
	ctx, cancel := context.WithCancel(n.t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil { // each call lasts until it fails or is declined
			_ = exec.CommandContext(ctx, binary, "call", "anna", "--data", n.dir).Run()
			time.Sleep(50 * time.Millisecond)
		}
	}()
	for !page.has("dialog.call [role=alert]") {
		if time.Since(began) > within {
			n.t.Errorf("the panel does not ring within %v", within)
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	took := time.Since(began)
	cancel()
	<-done
	for _, c := range n.calls() {
		if c.State != "ended" {
			n.run("hangup", c.ID)
		}
	}
	page.wait("dialog.call >> text=The call has ended")
	page.click(button("Close"))
	page.gone("dialog.call")
	return took
}

// TestPanelOutlivesItsNode: a panel that was armed once rings again within 5 s of the return of the one
// node that serves it, whatever had happened to it, and nothing piles up.
func TestPanelOutlivesItsNode(t *testing.T) {
	withApp(t)
	l := newLab(t)
	kitchen := newNode(t, l, "Stove", "panel", "Kitchen").start().found()
	fridge := newNode(t, l, "Fridge", "panel", "Pantry", "--source-clip", clip(t, 550), "--sink-record", t.TempDir())
	kitchen.invite(fridge)
	page, anna, origin := pairedPage(t, l, kitchen)
	page.arm(origin)
	t.Logf("it rings after %v", fridge.rings(page, 5*time.Second))
	const ceiling = 5 * time.Second
	t.Run("killed while it rings", func(t *testing.T) {
		attempts(t, "from the node's return to ringing", ceiling, func(t *testing.T) time.Duration {
			fridge.run("call", "anna", "--detach")
			page.wait("dialog.call [role=alert]")
			kitchen.kill()
			page.gone("dialog.call [role=alert]")
			time.Sleep(3 * time.Second)
			kitchen.start()
			return fridge.rings(page, 20*time.Second)
		})
	})
	t.Run("asleep", func(t *testing.T) {
		attempts(t, "from waking to ringing", ceiling, func(t *testing.T) time.Duration {
			page.run(`globalThis.ticks = 0; globalThis.clock ??= setInterval(() => { ticks++ }, 100)`, nil)
			signalBrowser(t, anna, syscall.SIGSTOP)
			kitchen.kill()
			kitchen.start()
			time.Sleep(3 * time.Second)
			signalBrowser(t, anna, syscall.SIGCONT)
			var ticks int
			if page.run(`return ticks`, &ticks); ticks > 15 {
				t.Errorf("the page did not sleep: its clock ticked %d times", ticks)
			}
			return fridge.rings(page, 20*time.Second)
		})
	})
	t.Run("nothing piles up", func(t *testing.T) {
		for range 5 {
			kitchen.kill()
			kitchen.start()
			page.wait(".panel .state:not(.on)")
			page.wait(".panel .state.on")
		}
		fridge.rings(page, ceiling)
		var left struct{ Sockets, Audio, Locks int }
		page.run(`return made()`, &left)
		t.Logf("after 5 more restarts: %+v", left)
		if left.Sockets != 1 || left.Audio != 1 || left.Locks > 1 {
			t.Errorf("after restarts the page holds %+v", left)
		}
	})
	t.Run("without power", func(t *testing.T) {
		attempts(t, "from the node's return to ringing", ceiling, func(t *testing.T) time.Duration {
			kitchen.losePower()
			page.wait(".panel .state:not(.on)")
			time.Sleep(5 * time.Second)
			if err := kitchen.host.Up(); err != nil {
				t.Fatal(err)
			}
			kitchen.start()
			return fridge.rings(page, 20*time.Second)
		})
	})
}

// signalBrowser stops or continues every process of the browser on a host, as sleep does.
func signalBrowser(t *testing.T, h *netlab.Host, s syscall.Signal) {
	t.Helper()
	out, err := exec.Command("ip", "netns", "pids", h.NS).Output()
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for f := range strings.FieldsSeq(string(out)) {
		pid, _ := strconv.Atoi(f)
		if name, _ := os.ReadFile("/proc/" + f + "/comm"); strings.HasPrefix(string(name), "chrom") {
			found = syscall.Kill(pid, s) == nil || found
		}
	}
	if !found {
		t.Fatal("no browser runs there")
	}
}

// count has the page count what it opens and does not close.
func (b *browser) count() {
	b.t.Helper()
	b.run(`const sockets = new Set(), locks = []; let audio = 0
		globalThis.WebSocket = class extends WebSocket { constructor(...a) { super(...a); sockets.add(this) } }
		globalThis.AudioContext = class extends AudioContext { constructor(...a) { super(...a); audio++ } close() { audio--; return super.close() } }
		const request = navigator.wakeLock.request.bind(navigator.wakeLock)
		navigator.wakeLock.request = async (kind) => { const l = await request(kind); locks.push(l); return l }
		globalThis.made = () => ({ sockets: [...sockets].filter((s) => s.readyState < 2).length, audio, locks: locks.filter((l) => !l.released).length })`, nil)
}

// losePower ends a node so that nobody hears of it: no goodbye, no FIN and no RST leave its host.
func (n *node) losePower() {
	n.t.Helper()
	if err := n.host.Down(); err != nil {
		n.t.Fatal(err)
	}
	n.kill()
	if out, err := n.host.Command(n.t.Context(), "ss", "-K", "-t", "-a").CombinedOutput(); err != nil { // what a kernel still would send later
		n.t.Fatalf("ss: %v: %s", err, out)
	}
}

// TestPanelGoesToAnotherNode: the node that serves a panel loses its power, and the panel is called and
// calls through another one, untouched, within 10 s.
func TestPanelGoesToAnotherNode(t *testing.T) {
	withApp(t)
	l := newLab(t)
	kitchen := newNode(t, l, "Stove", "panel", "Kitchen").start().found()
	hall := newNode(t, l, "Wall", "tv", "Hall")
	fridge := newNode(t, l, "Fridge", "panel", "Pantry", "--source-clip", clip(t, 550), "--sink-record", t.TempDir(), "--auto-answer", "yes")
	kitchen.invite(hall, fridge)
	page, anna, origin := pairedPage(t, l, kitchen)
	page.arm(origin)
	at, next := kitchen, hall
	attempts(t, "from the loss of a node to ringing through another one", 10*time.Second, func(t *testing.T) time.Duration {
		defer func() { at, next = next, at }()
		began := time.Now()
		at.losePower()
		next.takeName(at, anna)
		fridge.rings(page, 30*time.Second)
		took := time.Since(began)
		page.click("[data-slug=pantry]")
		page.wait("text=In a call with Pantry")
		page.click(button("Hang up"))
		page.click(button("Close"))
		t.Logf("it has called through it as well %v after the loss", time.Since(began))
		if err := at.host.Up(); err != nil {
			t.Fatal(err)
		}
		at.start()
		return took
	})
}
