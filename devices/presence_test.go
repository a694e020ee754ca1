package devices

import "testing"

func TestFoldSaysPresence(t *testing.T) {
	in := sampleInputs()
	in.Roster.Persons["sam"] = Person{Slug: "sam", Name: "Sam", Nodes: []NodeID{{20}, {21}, {22}}}
	in.Roster.Persons["ada"] = Person{Slug: "ada", Name: "Ada", Nodes: []NodeID{{23}}}
	panel := in.Records[node(2)]
	for _, c := range []struct {
		what     string
		panel    Presence // what the kitchen's panel says of itself
		bindings map[NodeID]Binding
		device   Presence
		sam, ada Presence
	}{
		{"nobody is connected", "", nil, Free, Away, Away},
		{"in a call", Busy, map[NodeID]Binding{{20}: {Node: node(2), Busy: true}}, Busy, Busy, Away},
		{"another phone is free", DND, map[NodeID]Binding{{20}: {Node: node(2), Busy: true}, {21}: {Node: node(2)}, {23}: {Node: node(2), Quiet: true}}, DND, Free, DND},
		{"one talks, one is quiet", "", map[NodeID]Binding{{20}: {Node: node(2), Quiet: true}, {21}: {Node: node(1), Busy: true}}, Free, Busy, Away},
		{"quiet while it talks", "", map[NodeID]Binding{{20}: {Node: node(2), Quiet: true, Busy: true}}, Free, DND, Away},
		{"its node is gone", "what nobody knows", map[NodeID]Binding{{20}: {Node: node(3)}}, Free, Away, Away},
	} {
		panel.Presence = c.panel
		in.Records[node(2)] = panel
		in.Bindings = c.bindings
		s := Fold(in)
		d, _ := s.Device(node(2))
		if d.Presence != c.device || s.Presence("sam") != c.sam || s.Presence("ada") != c.ada {
			t.Errorf("%s: the panel is %s, Sam %s, Ada %s; want %s, %s, %s", c.what, d.Presence, s.Presence("sam"), s.Presence("ada"), c.device, c.sam, c.ada)
		}
	}
	in.Live = nil
	if s := Fold(in); s.Presence("kitchen-panel") != Away || s.Presence("living-room-tv") != Free || s.Presence("nobody") != Away {
		t.Errorf("without connections: %s, this device itself: %s, nobody: %s", s.Presence("kitchen-panel"), s.Presence("living-room-tv"), s.Presence("nobody"))
	}
}
