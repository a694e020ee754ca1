package rtc

import (
	"testing"

	"github.com/hallway-home/hallway/devices"
	"github.com/hallway-home/hallway/profiles"
	"github.com/hallway-home/hallway/sessions"
	"github.com/hallway-home/hallway/sessions/media"
)

// Two devices may have several calls with each other at a time: a picture of who rings, and
// the call itself.
func TestTwoLegsBetweenTheSameDevices(t *testing.T) {
	t.Parallel()
	clip := makeClip(t)
	end := func() *Factory {
		return New(Config{Endpoint: media.NewBox(media.SourceSpec{Clip: clip}, media.SinkSpec{}, nil), Interfaces: []string{"lo"}})
	}
	leg := func(f *Factory, remote string, c profiles.Capabilities) sessions.Leg {
		l, err := f.NewLeg(sessions.LegConfig{CallID: "c", Remote: remote, Peer: devices.NodeID{remote[0]}, Capabilities: c})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
		return l
	}
	tv, cam := end(), end()
	var views []sessions.Leg
	for range 3 {
		a, b := leg(tv, "cam", caps(t, "tv")), leg(cam, "tv", caps(t, "camera"))
		agreeOn(t, a, b, nil)
		for _, l := range []sessions.Leg{a, b} {
			if err := l.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		views = append(views, a)
	}
	waitFor(t, "all pictures", func() bool {
		for _, v := range views {
			if s := v.Stats().Video; s.PacketsReceived < 50 || s.Lost != 0 {
				return false
			}
		}
		return true
	})
	if _ = leg(cam, "x-another", caps(t, "camera")); len(cam.ports) != 3 {
		t.Errorf("%d ports are open for three legs to one device and one to another", len(cam.ports))
	}
	_ = views[1].Close()
	if leg(tv, "cam", caps(t, "tv")); len(tv.ports) != 3 {
		t.Errorf("%d ports: that of a closed leg is not used again", len(tv.ports))
	}
}
