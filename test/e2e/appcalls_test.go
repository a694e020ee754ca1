package e2e

import (
	"strings"
	"testing"
	"time"
)

// TestAppCalls calls a panel from the app and is called by it: pictures and sound pass, hold, mute and
// keys work, and the end frees what was captured.
func TestAppCalls(t *testing.T) {
	withApp(t)
	l := newLab(t)
	kitchen := newNode(t, l, "Stove", "panel", "Kitchen").start().found()
	panel := newNode(t, l, "Fridge", "panel", "Pantry", "--source-clip", clip(t, 550), "--sink-record", t.TempDir(), "--auto-answer", "yes")
	kitchen.invite(panel)
	annas := l.MustHost(t, "anna")
	kitchen.takeName(nil, annas)
	phone := kitchen.browserOn(annas, virtual, autoplay)
	phone.pairs(kitchen, "Anna's phone", "--name", "Anna")
	phone.wait("[data-slug=fridge][aria-disabled=false]")
	phone.draw("house-ready")

	// What the page captures is kept here, to see that it ends.
	phone.run(`globalThis.captured = []; const open = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices)
		navigator.mediaDevices.getUserMedia = async (c) => { const s = await open(c); captured.push(...s.getTracks()); return s }`, nil)
	began := time.Now()
	phone.click("[data-slug=fridge]")
	phone.wait("text=In a call with Fridge")
	playing := func() (width int) {
		phone.run(`const v = document.querySelector(".call video"); return v ? v.videoWidth * (v.currentTime > 0 ? 1 : 0) : 0`, &width)
		return width
	}
	kitchen.eventually(10*time.Second, "their picture is shown", func() bool { return playing() > 0 })
	t.Logf("a picture %v after the tap", time.Since(began))
	phone.wait("text=Good connection")
	c := panel.calls()[0]
	panel.eventually(5*time.Second, "it sees and hears the page", flows(panel, c.ID))
	phone.draw("call")
	phone.click(button("Keypad"))
	phone.click(button("5"))
	panel.eventually(3*time.Second, "the digit arrives", func() bool { return panel.call(c.ID).Digits == "5" })
	phone.click(button("Mute"))
	phone.wait(button("Unmute"))
	phone.click(button("Camera off"))
	phone.click(button("Camera on"))
	phone.wait(button("Camera off"))
	phone.click(button("Hold"))
	phone.wait("text=On hold")
	panel.eventually(3*time.Second, "it knows of the hold", func() bool { return panel.call(c.ID).PeerHold })
	phone.click(button("Resume"))
	panel.eventually(3*time.Second, "it knows of the end of the hold", func() bool { return !panel.call(c.ID).PeerHold })
	phone.click(button("Hang up"))
	phone.wait("text=The call has ended")
	var ended string
	phone.run(`return captured.length > 2 ? captured.map(t => t.readyState).join() : "nothing was captured"`, &ended)
	if strings.ReplaceAll(strings.ReplaceAll(ended, "ended", ""), ",", "") != "" {
		t.Errorf("after the end: %s", ended)
	}
	panel.eventually(3*time.Second, "the end is known", func() bool { return panel.call(c.ID).State == "ended" })
	phone.draw("ended")
	phone.click(button("Close"))

	// The panel calls: it rings here; the first time it is declined, then accepted without a picture.
	panel.run("call", "anna", "--detach")
	phone.wait("text=Fridge is calling")
	phone.wait("text=From: Pantry")
	phone.draw("incoming")
	phone.click(button("Decline"))
	phone.wait("text=The call has ended")
	phone.click(button("Close"))
	panel.run("call", "anna", "--detach")
	phone.wait("text=Fridge is calling")
	phone.click(button("Accept without picture"))
	phone.wait("text=In a call with Fridge")
	kitchen.eventually(10*time.Second, "their picture is shown", func() bool { return playing() > 0 })
	phone.click(button("Hang up"))
	phone.wait("text=The call has ended")
}
