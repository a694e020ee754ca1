package e2e

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hallway-home/hallway/test/netlab"
)

const (
	// countBits is how many bits of the frame counter a picture of countingCamera holds.
	countBits  = 7
	countWidth = 320
	countTall  = 240
)

// countingCamera writes a film whose frames are numbered: one column for each bit, bright for 1,
// and the lower half is the negative of the upper one, so that anything else is seen to be no number.
func countingCamera(t *testing.T) string {
	t.Helper()
	var film bytes.Buffer
	fmt.Fprintf(&film, "YUV4MPEG2 W%d H%d F10:1 Ip A1:1 C420\n", countWidth, countTall)
	for n := range 1 << countBits {
		film.WriteString("FRAME\n")
		for y := range countTall {
			for x := range countWidth {
				luma := byte(16)
				if (n>>(x*countBits/countWidth))&1 == 1 != (y >= countTall/2) {
					luma = 235
				}
				film.WriteByte(luma)
			}
		}
		film.Write(bytes.Repeat([]byte{128}, countWidth*countTall/2))
	}
	file := filepath.Join(t.TempDir(), "counter.y4m")
	if err := os.WriteFile(file, film.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// counter reads the number of the frame that a page shows of the other side, through a canvas; -1
// when it shows none.
func (b *browser) counter() int {
	b.t.Helper()
	n := -1
	b.run(fmt.Sprintf(`const v = document.querySelector(".call video:not(.small)")
		if (!v?.videoWidth) return -1
		const c = Object.assign(document.createElement("canvas"), { width: %[1]d, height: %[2]d }), g = c.getContext("2d")
		g.drawImage(v, 0, 0, %[1]d, %[2]d)
		let n = 0
		for (let i = 0; i < %[3]d; i++) {
			const x = Math.round((i + 0.5) * %[1]d / %[3]d), bright = (y) => g.getImageData(x, y, 1, 1).data[1]
			const up = bright(%[2]d / 4), down = bright(%[2]d * 3 / 4)
			if (Math.abs(up - down) < 80) return -1
			if (up > down) n |= 1 << i
		}
		return n`, countWidth, countTall, countBits), &n)
	return n
}

// watched keeps what a page captures and connects, for heard, captured and connected.
func (b *browser) watched() {
	b.t.Helper()
	b.run(`globalThis.captured = []; globalThis.pcs = []
		const open = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices), P = RTCPeerConnection
		navigator.mediaDevices.getUserMedia = async (c) => { const s = await open(c); captured.push(...s.getTracks()); return s }
		globalThis.RTCPeerConnection = class extends P { constructor(...a) { super(...a); pcs.push(this) } }`, nil)
}

// heard is what arrived at a page over connections that stand: decoded frames and energy of sound.
func (b *browser) heard() (s struct {
	Frames int
	Energy float64
}) {
	b.t.Helper()
	b.run(`const s = { Frames: 0, Energy: 0 }
		for (const pc of pcs) for (const r of (await pc.getStats()).values()) if (r.type === "inbound-rtp") {
			s.Frames += r.framesDecoded ?? 0
			s.Energy += r.totalAudioEnergy ?? 0
		}
		return s`, &s)
	return s
}

// captured lists the tracks of camera and microphone that a page opened, as "audio live".
func (b *browser) captured() string {
	b.t.Helper()
	var s string
	b.run(`return captured.map((t) => t.kind + " " + t.readyState).sort().join()`, &s)
	return s
}

// soon waits for something of a page.
func (b *browser) soon(limit time.Duration, what string, f func() bool) {
	b.t.Helper()
	for end := time.Now().Add(limit); !f(); time.Sleep(30 * time.Millisecond) {
		if time.Now().After(end) {
			shown, _ := b.command(map[string]any{"do": "text"})
			b.t.Fatalf("did not happen within %v: %s; the page shows %s", limit, what, shown)
		}
	}
}

// grows waits until more frames and more sound have arrived than now.
func (b *browser) grows(what string) {
	b.t.Helper()
	was := b.heard()
	b.soon(10*time.Second, what, func() bool { now := b.heard(); return now.Frames > was.Frames+10 && now.Energy > was.Energy })
}

// counts waits for numbered frames that go on.
func (b *browser) counts(what string) {
	b.t.Helper()
	first := -1
	b.soon(10*time.Second, what, func() bool { first = b.counter(); return first >= 0 })
	b.soon(5*time.Second, what+": it goes on", func() bool {
		n := b.counter()
		ahead := (n - first + 1<<countBits) % (1 << countBits)
		return n >= 0 && ahead >= 5 && ahead < 1<<countBits-20
	})
}

// wallPanel is a page that came in as the wall panel of the kitchen and was started by a tap.
func wallPanel(t *testing.T, l *netlab.Lab, owner, at *node, name string) *browser {
	t.Helper()
	b := owner.browserOn(l.MustHost(t, name), at.host.IPv4, autoplay)
	b.pairs(owner, name, "--name", name, "--room", "Kitchen")
	if _, err := b.open(owner.origin() + "/panel"); err != nil {
		t.Fatal(err)
	}
	b.click(button("Start the panel"))
	b.wait("text=Ready")
	b.watched()
	return b
}

// ringsHome is a home whose first owner is called Hub, with one more node.
func ringsHome(t *testing.T, second, class, room string, args ...string) (l *netlab.Lab, hub, other *node) {
	t.Helper()
	withApp(t)
	l = newLab(t)
	hub = newNode(t, l, "Hub", "tv", "Cellar", "--source-clip", clip(t, 440)).start().found()
	other = newNode(t, l, second, class, room, args...)
	hub.invite(other)
	_, _ = hub.origin(), other.origin() // both can serve the app
	return l, hub, other
}

// TestAppRingsTheKitchen: a phone calls a room where a browser is the wall panel, at another node.
// The panel shows the caller's picture before it accepts and opens nothing for it; then sound and
// picture flow both ways, keys, hold and resume work, and the end frees what was captured. A tab
// that is killed in a call ends it at the other side within 15 s.
func TestAppRingsTheKitchen(t *testing.T) {
	l, hub, attic := ringsHome(t, "Loft", "tv", "Attic")
	phone := hub.browserOn(l.MustHost(t, "Pocket"), hub.host.IPv4, autoplay, "--use-file-for-fake-video-capture="+countingCamera(t))
	phone.pairs(hub, "Pocket", "--name", "Anna")
	wall := wallPanel(t, l, hub, attic, "Wall")
	phone.watched()
	phone.wait("[data-room=kitchen] [data-slug=wall][aria-disabled=false] .state.on")

	began := time.Now()
	phone.click(button("Call Kitchen"))
	wall.wait("text=Anna is calling")
	t.Logf("it rings %v after the tap", time.Since(began).Round(time.Millisecond))
	wall.counts("the panel shows the caller before it accepts")
	t.Logf("numbered frames of the caller %v after the tap, while it rings", time.Since(began).Round(time.Millisecond))
	phone.wait("text=Calling Kitchen")
	if got := wall.captured(); got != "" {
		t.Errorf("the panel opened %s before anybody accepted", got)
	}
	if got := phone.captured(); got != "audio live,video live" {
		t.Errorf("the caller captures %s", got)
	}
	if s := wall.heard(); s.Energy != 0 {
		t.Errorf("the panel hears the caller before it accepts: %+v", s)
	}
	wall.draw("incoming-preview")
	wall.click(button("Accept with picture"))
	phone.wait("text=In a call with Kitchen")
	wall.wait("text=In a call with Anna")
	phone.grows("frames and sound arrive at the caller")
	wall.grows("frames and sound arrive at the panel")
	wall.counts("the picture of the call is the caller's")
	var open int
	phone.run(`return pcs.filter((p) => p.connectionState !== "closed").length`, &open)
	if open != 1 {
		t.Errorf("the caller has %d connections in its call: the preview goes on", open)
	}

	phone.click(button("Keypad"))
	phone.click(button("5"))
	phone.click(button("Hold"))
	wall.wait("text=The other side has put you on hold")
	phone.click(button("Resume"))
	wall.gone("text=The other side has put you on hold")
	phone.grows("frames and sound arrive at the caller again")
	wall.grows("frames and sound arrive at the panel again")
	phone.click(button("Hang up"))
	for _, b := range []*browser{phone, wall} {
		b.wait("text=The call has ended")
		b.soon(3*time.Second, "camera and microphone are free", func() bool { return b.captured() == "audio ended,video ended" })
		b.click(button("Close"))
	}

	t.Run("a killed tab", func(t *testing.T) {
		phone.click(button("Call Kitchen"))
		wall.click(button("Accept with picture"))
		wall.grows("frames and sound arrive at the panel")
		_, _ = phone.open("chrome://crash") // it takes the page's process away, and says nothing
		began := time.Now()
		wall.soon(15*time.Second, "the panel's call ends", func() bool { return wall.has(".call [role=status]") && wall.shows("The call has ended") })
		t.Logf("the other side's call ended %v after the tab was killed", time.Since(began).Round(100*time.Millisecond))
		wall.soon(3*time.Second, "camera and microphone are free", func() bool { return !strings.Contains(wall.captured(), "live") })
	})
}

// shows reports whether a page shows a text now.
func (b *browser) shows(text string) bool {
	b.t.Helper()
	var shown string
	b.run(`return document.body.innerText`, &shown)
	return strings.Contains(shown, text)
}

// TestAppRingsThreePanels: two browsers at two nodes and a device ring in one room; one accepts, the
// others stop, say who took it, and log no missed call. First a device calls, then a page.
func TestAppRingsThreePanels(t *testing.T) {
	l, hub, fridge := ringsHome(t, "Fridge", "panel", "Kitchen", "--source-clip", clip(t, 550), "--sink-record", t.TempDir())
	wall := wallPanel(t, l, hub, hub, "Wall")
	shelf := wallPanel(t, l, hub, fridge, "Shelf")
	for _, n := range []*node{hub, fridge} {
		n.eventually(5*time.Second, "it knows both panels", func() bool {
			in := ask[struct{ Devices []device }](n, "resolve", "kitchen").Devices
			return len(in) == 3 && !slices.ContainsFunc(in, func(d device) bool { return d.Status != "reachable" })
		})
	}

	c := ask[call](hub, "call", "kitchen", "--detach")
	in := fridge.incoming()
	wall.wait("text=Hub is calling")
	shelf.wait("text=Hub is calling")
	for _, b := range []*browser{wall, shelf} { // a device that calls shows its camera as a page does
		b.soon(10*time.Second, "the panel shows the caller before it accepts", func() bool {
			var width int
			b.run(`const v = document.querySelector(".call video"); return v && v.currentTime > 0 ? v.videoWidth : 0`, &width)
			return width > 0
		})
		if s, got := b.heard(), b.captured(); s.Energy != 0 || got != "" {
			t.Errorf("before it accepts it hears %v and opened %s", s.Energy, got)
		}
	}
	if calls := hub.calls(); len(calls) != 1 {
		t.Errorf("people see the previews as calls: %+v", calls)
	}
	began := time.Now()
	wall.click(button("Accept without picture"))
	shelf.wait("text=Wall took it")
	t.Logf("the other browser says who took it after %v", time.Since(began).Round(time.Millisecond))
	fridge.eventually(3*time.Second, "the device says who took it", func() bool {
		e := fridge.call(in.ID)
		return e.State == "ended" && e.Reason == "Wall took it." && !e.Missed
	})
	hub.eventually(5*time.Second, "the call stands", func() bool { return hub.call(c.ID).State == "active" && hub.call(c.ID).Peer == "wall" })
	wall.grows("frames and sound arrive at the panel that took it")
	wall.click(button("Hang up"))
	wall.wait("text=The call has ended")
	wall.click(button("Close"))
	shelf.click(button("Close"))

	wall.click("[data-slug=kitchen]") // its own room: all but itself
	shelf.wait("text=Wall is calling")
	next := fridge.incoming()
	fridge.run("answer", next.ID)
	shelf.wait("text=Fridge took it")
	wall.wait("text=In a call with")
	if got := shelf.captured(); got != "" {
		t.Errorf("a panel that only rang opened %s", got)
	}
	wall.click(button("Hang up"))
	wall.wait("text=The call has ended")
	fridge.eventually(3*time.Second, "the end is known", func() bool { return fridge.call(next.ID).State == "ended" })
}
