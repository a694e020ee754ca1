package devices

import (
	"slices"
	"testing"
)

// Who can be woken is known behind every name: a person's, that of a panel's room, a group's.
func TestFold_Asleep(t *testing.T) {
	node, gone := NodeID{1}, NodeID{2}
	closed, open, lost, quiet, panel, dead := NodeID{0xa}, NodeID{0xb}, NodeID{0xc}, NodeID{0xd}, NodeID{0xe}, NodeID{0xf}
	const by = "push.example"
	s := Fold(Inputs{
		Self: node,
		Roster: &Roster{
			Home: HomeID{9}, Members: map[NodeID]Member{node: {Node: node, Slug: "tv"}, gone: {Node: gone, Slug: "door"}},
			Rooms: map[string]Room{"hall": {Slug: "hall"}},
			Persons: map[string]Person{
				"anna": {Slug: "anna", Nodes: []NodeID{closed, open}}, "ben": {Slug: "ben", Nodes: []NodeID{lost, dead}},
				"carl": {Slug: "carl", Nodes: []NodeID{quiet}}, "kit": {Slug: "kit", Nodes: []NodeID{panel}, Room: "hall"},
			},
			Groups: map[string]Group{"family": {Slug: "family", Members: []string{"anna", "ben"}}, "all": {Slug: "all", Members: []string{"family", "hall", "carl"}}},
		},
		Bindings: map[NodeID]Binding{
			closed: {Node: node, WakesBy: by, Asleep: true}, open: {Node: node, WakesBy: by}, lost: {Node: gone, WakesBy: "other.example"},
			dead: {Node: gone}, quiet: {Node: node, WakesBy: by, Asleep: true, Quiet: true}, panel: {Node: node, WakesBy: by, Asleep: true},
		},
	})
	for slug, want := range map[string][]NodeID{
		"anna": {closed}, "ben": {lost}, "carl": nil, "kit": {panel}, "hall": {panel}, "family": {closed, lost}, "all": {closed, lost, panel}, "tv": nil,
	} {
		r, ok := s.Resolve(slug)
		if !ok || !slices.Equal(r.Asleep, want) {
			t.Errorf("%s: %v, not %v", slug, r.Asleep, want)
		}
	}
	if d, ok := s.Awake(open); !ok || d.Slug != "anna" || len(d.Phones) != 1 || d.Phones[0].ID != open {
		t.Errorf("the open page is reached by %+v", d)
	}
	for _, id := range []NodeID{closed, lost, panel} {
		if d, ok := s.Awake(id); ok {
			t.Errorf("%v sleeps and is reached by %+v", id, d)
		}
	}
	if got := s.WakesBy("anna"); !slices.Equal(got, []string{by}) {
		t.Errorf("anna is woken by %v", got)
	}
	if p := s.Presence("kit"); p != Away {
		t.Errorf("who sleeps is %v", p)
	}
}
