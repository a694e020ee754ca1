package devices

import (
	"slices"
	"testing"
	"time"
)

// A foreign device resolves to the speaker of which most is true, stands in its room, and
// is no member by that.
func TestFoldForeign(t *testing.T) {
	in := sampleInputs()
	in.Roster.Adopted = map[string]Adopted{"door": {Slug: "door", Name: "Door", Room: "kitchen", Class: ClassCamera, Speakers: []NodeID{node(9), node(3), node(2), node(1)}}}
	says := func(fault map[byte]string) Device {
		in.Spoken = map[SpokenKey]ForeignRecord{}
		for b, f := range fault {
			in.Spoken[SpokenKey{"door", node(b)}] = ForeignRecord{Fault: f}
		}
		r, ok := Fold(in).Resolve("door")
		if !ok || r.Kind != KindForeign || len(r.Devices) != 1 || !r.Devices[0].Foreign {
			t.Fatalf("%+v", r)
		}
		return r.Devices[0]
	}
	for name, c := range map[string]struct {
		fault  map[byte]string
		by     byte
		status Status
	}{
		"nobody has told":          {nil, 3, NeverSeen},
		"a removed one told":       {map[byte]string{9: ""}, 3, NeverSeen},
		"one that is off told":     {map[byte]string{3: ""}, 3, Unreachable},
		"one that is on is better": {map[byte]string{3: "", 2: ""}, 2, Reachable},
		"one it answers is better": {map[byte]string{2: "it is off", 1: ""}, 1, Reachable},
		"none that it answers":     {map[byte]string{2: "it is off"}, 2, Unreachable},
	} {
		if d := says(c.fault); d.Node != node(c.by) || d.Status != c.status {
			t.Errorf("%s: by %v, %s", name, d.Node, d.Status)
		}
	}
	s := Fold(in)
	var room []string
	for _, d := range s.byAOR["kitchen"].Devices {
		room = append(room, d.Slug)
	}
	if !slices.Equal(room, []string{"door", "kitchen-panel", "kitchen-speaker"}) || len(s.Devices) != 4 {
		t.Errorf("the room holds %v, and the home has %d devices", room, len(s.Devices))
	}
	if d, _ := s.Device(node(2)); d.Foreign {
		t.Error("a speaker became a foreign device")
	}
}

// Rules about a foreign device: its own, then its room's, then that for all.
func TestRulesAllowOnForeign(t *testing.T) {
	tv, guest := NodeID{1}, NodeID{2}
	r := &Roster{
		Members: map[NodeID]Member{tv: {Node: tv, Slug: "tv"}, guest: {Node: guest, Slug: "guest"}},
		Adopted: map[string]Adopted{"door": {Slug: "door", Room: "hall"}}, Rules: map[RuleKey]Rule{},
	}
	may := func(who NodeID, slug string) bool { return r.AllowsOn(RightView, who, slug, time.Time{}, false) }
	if !may(tv, "door") || may(NodeID{7}, "door") || may(tv, "other") || (*Roster)(nil).AllowsOn(RightView, tv, "door", time.Time{}, false) {
		t.Error("without rules members view what is adopted, and nothing else")
	}
	if r.AllowsOn(RightDoor, tv, "door", time.Time{}, false) {
		t.Error("a door opens without a rule")
	}
	r.Rules[RuleKey{Everybody, RightView}] = Rule{Who: []string{}}
	r.Rules[RuleKey{"hall", RightView}] = Rule{Who: []string{"tv"}}
	if !may(tv, "door") || may(guest, "door") {
		t.Error("the room's rule does not come before that for all")
	}
	r.Rules[RuleKey{"door", RightView}] = Rule{Who: []string{"guest"}}
	if may(tv, "door") || !may(guest, "door") {
		t.Error("its own rule does not come first")
	}
}

func TestDirectoryFeedsForeign(t *testing.T) {
	in := sampleInputs()
	before := Fold(in)
	in.Roster.Adopted = map[string]Adopted{"door": {Slug: "door", Speakers: []NodeID{node(2)}}}
	after := Fold(in)
	if c := diff(before, after); len(c) != 1 || c[0].Kind != Added || c[0].Device.Slug != "door" {
		t.Errorf("%+v", c)
	}
	in.Spoken = map[SpokenKey]ForeignRecord{{"door", node(2)}: {}}
	if c := diff(after, Fold(in)); len(c) != 1 || c[0].Kind != Updated || c[0].Device.Status != Reachable {
		t.Errorf("%+v", c)
	}
}
