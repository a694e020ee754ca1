package sessions

import "testing"

// Do not disturb is refused with words before anything rings, whatever the owner's rule for the device says; a room rings
// at its other devices.
func TestDoNotDisturb(t *testing.T) {
	h := newHouse(t, member{slug: "tv"}, member{slug: "panel", room: "kitchen", config: answers}, member{slug: "radio", room: "kitchen", config: answers})
	tv, panel, radio := h.phones["tv"], h.phones["panel"], h.phones["radio"]
	panel.SetQuiet(true)
	tv.calls("panel")
	if i := tv.is(StateEnded); i.Code != statusUnavailable || i.Reason != "Panel does not want to be disturbed." {
		t.Errorf("the caller hears %d: %s", i.Code, i.Reason)
	}
	if len(panel.Calls()) != 0 {
		t.Errorf("it rang: %+v", panel.Calls())
	}
	tv.calls("kitchen")
	if i := tv.is(StateActive); i.Peer != "radio" {
		t.Errorf("the room was answered by %s", i.Peer)
	}
	radio.is(StateActive)
	if !tv.Engaged() || !radio.Engaged() || panel.Engaged() {
		t.Errorf("in a call: tv %v, radio %v, panel %v", tv.Engaged(), radio.Engaged(), panel.Engaged())
	}
	if err := tv.Hangup(tv.is(StateActive).ID); err != nil {
		t.Fatal(err)
	}
	eventually(t, "both are free again", func() bool { return !tv.Engaged() && !radio.Engaged() })
	panel.SetQuiet(false)
	tv.calls("panel")
	panel.is(StateActive)
}
