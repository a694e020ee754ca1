package sessions

import (
	"errors"
	"strings"
	"testing"

	"github.com/hallway-home/hallway/devices"
	"github.com/hallway-home/hallway/profiles"
)

// forbids lets nobody view the camera while it is shut.
type forbids struct{ shut *bool }

func (f forbids) MayCall(_ devices.Device, to string) error {
	if *f.shut && to == "door" {
		return errors.New("not now")
	}
	return nil
}

// camHouse is a home in which the TV speaks for the camera at the door; shut closes it.
func camHouse(t *testing.T) (h *house, shut *bool) {
	t.Helper()
	shut = new(bool)
	h = newHouse(t, member{slug: "tv", room: "hall", config: func(c *Config) {
		c.Behaviour.MaxCalls, c.Policy = 1, forbids{shut}
		c.Speaks = func(slug string) (Spoken, bool) {
			return Spoken{Capability: camera, Behaviour: profiles.Behaviour{AutoAnswer: true, Automata: true, MaxCalls: 2}}, slug == "door"
		}
	}}, member{slug: "panel"}, member{slug: "pad"})
	h.adopt(devices.Adopted{Slug: "door", Name: "Door", Room: "hall", Speakers: []devices.NodeID{h.phones["tv"].id}})
	return h, shut
}

// adopt gives the home its one foreign device, or takes it away.
func (h *house) adopt(ad devices.Adopted) {
	r := *h.roster
	r.Adopted = map[string]devices.Adopted{}
	spoken := map[devices.SpokenKey]devices.ForeignRecord{}
	if ad.Slug != "" {
		r.Adopted[ad.Slug] = ad
		spoken[devices.SpokenKey{Slug: ad.Slug, Speaker: ad.Speakers[0]}] = devices.ForeignRecord{Capabilities: camera, Behaviour: devices.RecordBehaviour{Automata: true}}
	}
	h.roster = &r
	h.dir.Store(devices.Fold(devices.Inputs{Roster: h.roster, Records: h.caps, Spoken: spoken}))
}

// A camera answers by itself, one way, at the device that speaks for it; that it is viewed
// keeps neither the speaker nor itself from other calls, up to its own limit.
func TestCameraIsViewed(t *testing.T) {
	h, _ := camHouse(t)
	tv, panel, pad := h.phones["tv"], h.phones["panel"], h.phones["pad"]
	c := panel.calls("door")
	got := panel.is(StateActive)
	if got.Peer != "door" || len(got.Media) != 2 || got.Media[1].Direction != profiles.RecvOnly {
		t.Errorf("the viewer has %+v", got)
	}
	at := tv.is(StateActive)
	if at.ID != c.ID()+"-door" || at.Direction != "in" || at.To.Slug != "door" || at.Peer != "panel" {
		t.Errorf("the speaker has %+v", at)
	}
	ring := pad.calls("tv")
	if got := tv.is(StateIncoming); got.To.Slug != "tv" {
		t.Errorf("the TV itself is called: %+v", got)
	}
	if err := pad.Hangup(ring.ID()); err != nil {
		t.Fatal(err)
	}
	tv.is(StateEnded)
	pad.calls("door")
	pad.is(StateActive)
	panel.calls("door")
	if got := panel.is(StateEnded); got.Code != statusBusy {
		t.Errorf("a view too many: %+v", got)
	}
	if err := panel.Hangup(c.ID()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the view ends at the speaker", func() bool { i, err := tv.Get(at.ID); return err == nil && i.State == StateEnded })
}

// Calling a room calls its people; the camera in it would answer at once and nobody would
// hear it ring. Without people the camera is what there is to see.
func TestRoomWithCamera(t *testing.T) {
	h, _ := camHouse(t)
	tv, panel := h.phones["tv"], h.phones["panel"]
	c := panel.calls("hall")
	if got := tv.is(StateIncoming); got.To.Slug != "hall" {
		t.Errorf("the speaker has %+v", got)
	}
	if got := panel.is(StateRinging); len(got.Branches) != 1 || got.Branches[0].Device != "tv" {
		t.Errorf("the caller has %+v", got)
	}
	if err := panel.Hangup(c.ID()); err != nil {
		t.Fatal(err)
	}
	tv.is(StateEnded)
	r := *h.roster
	r.Rooms = map[string]devices.Room{"hall": {Slug: "hall", Name: "Hall"}, "yard": {Slug: "yard", Name: "Yard"}}
	h.roster = &r
	h.adopt(devices.Adopted{Slug: "door", Name: "Door", Room: "yard", Speakers: []devices.NodeID{tv.id}})
	panel.calls("yard")
	if got := panel.is(StateActive); got.Peer != "door" {
		t.Errorf("the caller has %+v", got)
	}
}

// The speaker sees its own camera without any network, and as long as the rules allow it.
func TestSpeakerViewsItsCamera(t *testing.T) {
	h, shut := camHouse(t)
	tv := h.phones["tv"]
	c := tv.calls("door")
	if got := tv.is(StateActive); got.Direction != "out" || got.Peer != "door" {
		t.Errorf("%+v", got)
	}
	if err := tv.Hangup(c.ID()); err != nil {
		t.Fatal(err)
	}
	tv.is(StateEnded)
	*shut = true
	tv.calls("door")
	if got := tv.is(StateEnded); got.Code != statusForbidden || !strings.Contains(got.Reason, "not now") {
		t.Errorf("%+v", got)
	}
}

// What the rules forbid opens nothing; what fails at the camera is told to its viewer; a
// camera that leaves the home takes its views with it.
func TestCameraViewsEnd(t *testing.T) {
	h, shut := camHouse(t)
	tv, panel := h.phones["tv"], h.phones["panel"]
	*shut = true
	panel.calls("door")
	if got := panel.is(StateEnded); got.Code != statusForbidden || tv.media.starts.Load() != 0 {
		t.Errorf("a forbidden view: %+v", got)
	}
	*shut = false
	panel.calls("door")
	panel.is(StateActive)
	tv.is(StateActive)
	tv.media.fail(errors.New("the camera refuses this user name and password"))
	if got := panel.is(StateEnded); got.Reason != "Door ended the call: the camera refuses this user name and password." || got.Code != 500 {
		t.Errorf("the viewer reads %q, %d", got.Reason, got.Code)
	}
	panel.calls("door")
	panel.is(StateActive)
	h.adopt(devices.Adopted{})
	if got := panel.is(StateEnded); !strings.Contains(got.Reason, "no longer belongs to this home") {
		t.Errorf("the viewer reads %q", got.Reason)
	}
	tv.is(StateEnded)
}
