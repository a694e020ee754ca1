package devices

import (
	"testing"
	"time"
)

func TestRulesAllow(t *testing.T) {
	tv, panel, cam, bell, guest := NodeID{1}, NodeID{2}, NodeID{3}, NodeID{4}, NodeID{5}
	base := func(rules ...Rule) *Roster {
		r := &Roster{
			Members: map[NodeID]Member{
				tv: {Node: tv, Slug: "tv", Room: "living"}, panel: {Node: panel, Slug: "panel", Room: "kitchen"},
				cam: {Node: cam, Slug: "cam"}, bell: {Node: bell, Slug: "bell", Room: "hall"}, guest: {Node: guest, Slug: "guest"},
			},
			Persons: map[string]Person{"maria": {Slug: "maria", Nodes: []NodeID{panel}}, "sam": {Slug: "sam", Nodes: []NodeID{panel}}},
			Groups:  map[string]Group{"up": {Slug: "up", Members: []string{"living", "down"}}, "down": {Slug: "down", Members: []string{"cam", "up"}}},
			Rules:   map[RuleKey]Rule{},
		}
		for _, x := range rules {
			r.Rules[RuleKey{x.Subject, x.Right}] = x
		}
		return r
	}
	noon := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	night := noon.Add(11 * time.Hour)
	for _, c := range []struct {
		what   string
		rules  []Rule
		right  Right
		caller NodeID
		callee NodeID
		at     time.Time
		known  bool
		want   bool
	}{
		{"members may call", nil, RightCall, tv, panel, noon, true, true},
		{"and view", nil, RightView, tv, cam, noon, true, true},
		{"but not drop in", nil, RightDropIn, tv, panel, noon, true, false},
		{"nor open doors", nil, RightDoor, tv, bell, noon, true, false},
		{"a stranger may nothing", nil, RightCall, NodeID{9}, panel, noon, true, false},
		{"nobody", []Rule{{"bell", RightCall, nil, ""}}, RightCall, tv, bell, noon, true, false},
		{"named", []Rule{{"bell", RightDoor, []string{"tv"}, ""}}, RightDoor, tv, bell, noon, true, true},
		{"not named", []Rule{{"bell", RightDoor, []string{"tv"}, ""}}, RightDoor, cam, bell, noon, true, false},
		{"by room", []Rule{{"bell", RightDoor, []string{"living"}, ""}}, RightDoor, tv, bell, noon, true, true},
		{"by person", []Rule{{"bell", RightDoor, []string{"maria"}, ""}}, RightDoor, panel, bell, noon, true, true},
		{"by group in a circle", []Rule{{"bell", RightDoor, []string{"down"}, ""}}, RightDoor, tv, bell, noon, true, true},
		{"not by a circle alone", []Rule{{"bell", RightDoor, []string{"down"}, ""}}, RightDoor, guest, bell, noon, true, false},
		{"an empty room is no name", []Rule{{"bell", RightDoor, []string{""}, ""}}, RightDoor, cam, bell, noon, true, false},
		{"all", []Rule{{"all", RightDoor, []string{"all"}, ""}}, RightDoor, cam, bell, noon, true, true},
		{"the room beats all", []Rule{{"all", RightCall, nil, ""}, {"kitchen", RightCall, []string{"tv"}, ""}}, RightCall, tv, panel, noon, true, true},
		{"the device beats the room", []Rule{{"panel", RightCall, nil, ""}, {"kitchen", RightCall, []string{"tv"}, ""}}, RightCall, tv, panel, noon, true, false},
		{"a person beats the room", []Rule{{"maria", RightCall, []string{"cam"}, ""}, {"kitchen", RightCall, []string{"tv"}, ""}}, RightCall, tv, panel, noon, true, false},
		{"persons of one phone must agree", []Rule{{"maria", RightCall, []string{"tv"}, ""}, {"sam", RightCall, nil, ""}}, RightCall, tv, panel, noon, true, false},
		{"by day", []Rule{{"panel", RightCall, []string{"all"}, "07:00-22:00"}}, RightCall, tv, panel, noon, true, true},
		{"not at night", []Rule{{"panel", RightCall, []string{"all"}, "07:00-22:00"}}, RightCall, tv, panel, night, true, false},
		{"over midnight", []Rule{{"panel", RightCall, []string{"all"}, "22:00-07:00"}}, RightCall, tv, panel, night, true, true},
		{"without a clock quiet hours are kept", []Rule{{"panel", RightCall, []string{"all"}, "07:00-22:00"}}, RightCall, tv, panel, noon, false, false},
		{"without a clock other rules stand", []Rule{{"panel", RightCall, []string{"all"}, ""}}, RightCall, tv, panel, time.Time{}, false, true},
	} {
		if got := base(c.rules...).Allows(c.right, c.caller, c.callee, c.at, c.known); got != c.want {
			t.Errorf("%s: %v", c.what, got)
		}
	}
	wall := NodeID{6}
	atWall := func(rules ...Rule) *Roster {
		r := base(rules...)
		r.Persons["wall"] = Person{Slug: "wall", Room: "kitchen", Nodes: []NodeID{wall}}
		r.Phones = map[NodeID]Phone{wall: {Node: wall, Person: "wall"}}
		return r
	}
	if atWall(Rule{"kitchen", RightCall, nil, ""}).AllowsToPerson(RightCall, tv, "wall", noon, true) {
		t.Error("the rule of its room does not count for a wall panel")
	}
	if !atWall(Rule{"kitchen", RightCall, nil, ""}, Rule{"wall", RightCall, []string{"tv"}, ""}).AllowsToPerson(RightCall, tv, "wall", noon, true) {
		t.Error("its own rule does not go before that of its room")
	}
	door := Rule{"bell", RightDoor, []string{"kitchen"}, ""}
	if !atWall(door).Allows(RightDoor, wall, bell, noon, true) || atWall(door).Allows(RightDoor, tv, bell, noon, true) {
		t.Error("a wall panel is not one of its room")
	}
	if (*Roster)(nil).Allows(RightCall, tv, panel, noon, true) {
		t.Error("without a home somebody may call")
	}
	for _, s := range []string{"7:00-22:00", "07:00", "24:00-01:00", "07:00-22:00x", "", "07:60-08:00"} {
		if _, _, ok := ParseHours(s); ok {
			t.Errorf("%q is taken for hours", s)
		}
	}
}
