package rtc

import (
	"testing"

	"github.com/hallway-home/hallway/devices"
	"github.com/hallway-home/hallway/sessions"
	"github.com/hallway-home/hallway/sessions/media"
)

// A node sees two cameras that another node speaks for: both legs run between the same two
// nodes, and each gets its own media. The port of the second one is closed with it.
func TestTwoLegsToOnePeer(t *testing.T) {
	t.Parallel()
	clip := makeClip(t)
	sender := New(Config{Endpoint: media.NewBox(media.SourceSpec{Clip: clip}, media.SinkSpec{}, nil), Interfaces: []string{"lo"}})
	viewer := New(Config{Endpoint: media.NewBox(media.SourceSpec{}, media.SinkSpec{}, nil), Interfaces: []string{"lo"}})
	leg := func(f *Factory, peer byte, class string) *side {
		l, err := f.NewLeg(sessions.LegConfig{CallID: "0123456789abcdef", Remote: "other", Peer: devices.NodeID{peer}, Capabilities: caps(t, class)})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
		return &side{Factory: f, leg: l}
	}
	var views []*side
	for range 2 {
		v := leg(viewer, 1, "tv")
		connect(t, v, leg(sender, 2, "camera"))
		views = append(views, v)
	}
	received := func(i int) uint64 { return views[i].leg.Stats().Video.PacketsReceived }
	waitFor(t, "both see", func() bool { return received(0) > 0 && received(1) > 0 })
	before := []uint64{received(0), received(1)}
	waitFor(t, "both go on seeing", func() bool { return received(0) > before[0]+50 && received(1) > before[1]+50 })
	for i, v := range views {
		if lost := v.leg.Stats().Video.Lost; lost != 0 {
			t.Errorf("view %d lost %d packets to the other", i, lost)
		}
	}
	if len(viewer.ports) != 2 || len(viewer.ports[1].muxes) == 0 {
		t.Fatalf("%d ports", len(viewer.ports))
	}
	if err := views[1].leg.Close(); err != nil {
		t.Error(err)
	}
	if len(viewer.ports[1].muxes) != 0 {
		t.Error("the second port is still open")
	}
	after := received(0)
	waitFor(t, "the first goes on", func() bool { return received(0) > after+20 })
}
