package e2e

import (
	"strings"
	"testing"
	"time"
)

// TestA16_TheBedroomPanelCallsTheKitchen: a browser on the wall of the bedroom calls the room; the agent
// there rings, a person accepts, and both see and hear each other. Whoever ends it, camera and
// microphone of both are free.
func TestA16_TheBedroomPanelCallsTheKitchen(t *testing.T) {
	withApp(t)
	needs(t, "ffmpeg")
	l := newLab(t)
	wall := newNode(t, l, "Wall", "tv", "Hall").start().found()
	stove := newNode(t, l, "Stove", "panel", "Kitchen", "--source-pipeline", "test-picture", "--sink-record", t.TempDir())
	wall.invite(stove)
	panel := wall.person(l.MustHost(t, "bedroom"), "Bedroom", "member", wall.host.IPv4)
	if _, err := panel.open(wall.origin() + "/panel"); err != nil {
		t.Fatal(err)
	}
	panel.click(button("Start the panel"))
	panel.wait("[data-slug=kitchen][aria-disabled=false]")
	for _, ends := range []string{"the panel", "the kitchen"} {
		attempts(t, "accept to sound and picture both ways; then "+ends+" hangs up", 500*time.Millisecond, func(t *testing.T) time.Duration {
			panel.run(`watch.tracks.length = 0; watch.pcs.length = 0`, nil)
			panel.click("[data-slug=kitchen]")
			in := stove.incoming()
			if n := cameras(stove.pid()); n != 0 {
				t.Errorf("%d cameras are open in the kitchen while it rings", n)
			}
			panel.begin(`watch.sees(5000)`)
			start := stove.answered(in.ID)
			there := stove.media(in.ID, 5*time.Second)
			here := panel.finished("it sees and hears")
			t.Logf("the kitchen sees and hears after %v, the panel after %v", there.Sub(start).Round(time.Millisecond), here.Sub(start).Round(time.Millisecond))
			panel.wait("text=In a call with")
			if c := panel.capturing(); c.Live != 2 || cameras(stove.pid()) != 1 {
				t.Errorf("in the call: the panel has %+v open, the kitchen %d cameras", c, cameras(stove.pid()))
			}
			panel.begin(`watch.free(3000)`)
			over := time.Now()
			if ends == "the panel" {
				panel.click(button("Hang up"))
			} else {
				stove.run("hangup", in.ID)
			}
			panel.wait("text=The call has ended")
			freed := panel.finished("camera and microphone are free").Sub(over)
			stove.eventually(3*time.Second, "camera and microphone are free", func() bool { return cameras(stove.pid()) == 0 })
			took := time.Since(over)
			t.Logf("free %v after the end at the panel, %v in the kitchen", freed.Round(time.Millisecond), took.Round(time.Millisecond))
			if freed > time.Second || took > time.Second {
				t.Errorf("camera and microphone were freed late")
			}
			stove.eventually(3*time.Second, "the end is known", func() bool { return stove.call(in.ID).State == "ended" })
			panel.click(button("Close"))
			if there.After(here) {
				return there.Sub(start)
			}
			return here.Sub(start)
		})
	}
	if c := panel.capturing(); c.Live != 0 {
		t.Errorf("after all: %+v", c)
	}
}

// TestA32_NothingOpensBeforeAPersonAccepts: an agent that a page calls starts no camera before somebody
// answers there; a page that an agent calls asks for none before the tap on Accept. Both are free within 1 s
// of the end. A camera that answers by its owner's rule shows every view in its list of calls, and the app.
func TestA32_NothingOpensBeforeAPersonAccepts(t *testing.T) {
	withApp(t)
	needs(t, "ffmpeg")
	l := newLab(t)
	gate := newNode(t, l, "Gate", "camera", "Garden", "--source-pipeline", "test-picture").start().found()
	fridge := newNode(t, l, "Fridge", "panel", "Pantry", "--source-pipeline", "test-picture")
	gate.invite(fridge)
	phone := gate.person(l.MustHost(t, "anna"), "Anna", "owner", gate.host.IPv4)
	phone.wait("[data-slug=fridge][aria-disabled=false]")
	freed := func(what string, n *node, over time.Time) {
		t.Helper()
		if n == nil {
			if took := phone.finished(what).Sub(over); took > time.Second {
				t.Errorf("%s only after %v", what, took)
			} else {
				t.Logf("%s after %v", what, took.Round(time.Millisecond))
			}
			return
		}
		n.eventually(3*time.Second, what, func() bool { return cameras(n.pid()) == 0 })
		if took := time.Since(over); took > time.Second {
			t.Errorf("%s only after %v", what, took)
		} else {
			t.Logf("%s after %v", what, took.Round(time.Millisecond))
		}
	}
	t.Run("an agent is called", func(t *testing.T) {
		phone.click("[data-slug=fridge]")
		in := fridge.incoming()
		stays(t, 500*time.Millisecond, "no camera while it rings", func() bool { return cameras(fridge.pid()) == 0 })
		start := fridge.answered(in.ID)
		phone.wait("text=In a call with Fridge")
		fridge.media(in.ID, 5*time.Second)
		if n := cameras(fridge.pid()); n != 1 {
			t.Errorf("%d cameras %v after accepting", n, time.Since(start))
		}
		over := time.Now()
		phone.click(button("Hang up"))
		freed("the agent's camera is free", fridge, over)
		phone.click(button("Close"))
		if c := fridge.call(in.ID); c.Direction != "in" || c.Peer != "anna" {
			t.Errorf("its list of calls says %+v", c)
		}
	})
	t.Run("a page is called", func(t *testing.T) {
		before := phone.capturing()
		for _, accepts := range []bool{false, true} {
			c := ask[call](fridge, "call", "anna", "--detach")
			phone.wait("text=Fridge is calling")
			time.Sleep(300 * time.Millisecond) // while it rings, and its preview, if any, plays
			if now := phone.capturing(); now.Asked != before.Asked || now.Live != 0 {
				t.Errorf("before anybody accepted: %+v, before the call %+v", now, before)
			}
			if !accepts {
				phone.click(button("Decline"))
				fridge.eventually(3*time.Second, "declined", func() bool { return fridge.call(c.ID).State == "ended" })
				if e := fridge.call(c.ID); e.Code != 603 || !strings.Contains(e.Reason, "declined") {
					t.Errorf("declined, the caller has %+v", e)
				}
				phone.click(button("Close"))
				continue
			}
			phone.click(button("Accept with picture"))
			fridge.media(c.ID, 5*time.Second)
			if now := phone.capturing(); now.Asked == before.Asked || now.Live != 2 {
				t.Errorf("after accepting: %+v, before the call %+v", now, before)
			}
			phone.begin(`watch.free(3000)`)
			over := time.Now()
			fridge.run("hangup", c.ID)
			freed("the page's camera and microphone are free", nil, over)
			phone.click(button("Close"))
		}
	})
	t.Run("a view is seen", func(t *testing.T) {
		before := phone.capturing()
		if n := cameras(gate.pid()); n != 0 {
			t.Errorf("the gate has %d cameras open before anybody views", n)
		}
		phone.click("[data-slug=gate]")
		phone.wait("text=In a call with Gate")
		var view call
		gate.eventually(3*time.Second, "the view is in its list", func() bool {
			for _, c := range gate.calls() {
				if c.State == "active" && c.Direction == "in" && c.Peer == "anna" {
					view = c
				}
			}
			return view.ID != ""
		})
		gate.eventually(3*time.Second, "its camera is open", func() bool { return cameras(gate.pid()) == 1 })
		if now := phone.capturing(); now.Asked != before.Asked {
			t.Errorf("the viewer opened its own camera or microphone: %+v", now)
		}
		over := time.Now()
		phone.click(button("Hang up"))
		freed("the gate's camera is free", gate, over)
		phone.click(button("Close"))
		if shown := phone.activity(t); !strings.Contains(shown, "Calls of Gate") || !strings.Contains(shown, "from Anna") {
			t.Errorf("the app shows no view of the gate: %s", shown)
		}
	})
}
