package devices

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"
)

func node(b byte) NodeID { return NodeID{b} }

func sampleInputs() Inputs {
	member := func(b byte, slug, room string, class Class) Member {
		return Member{Node: node(b), Slug: slug, Name: slug, Room: room, Class: class, Role: RoleDevice}
	}
	return Inputs{
		Self: node(1),
		Roster: &Roster{
			Home: HomeID{9}, Members: map[NodeID]Member{
				node(1): member(1, "living-room-tv", "living-room", ClassTV),
				node(2): member(2, "kitchen-panel", "kitchen", ClassPanel),
				node(3): member(3, "kitchen-speaker", "kitchen", ClassSpeaker),
				node(4): member(4, "marias-phone", "", ClassPhone),
			},
			Rooms:   map[string]Room{"kitchen": {"kitchen", "Kitchen"}, "living-room": {"living-room", "Living room"}},
			Groups:  map[string]Group{"downstairs": {"downstairs", "Downstairs", []string{"kitchen", "living-room-tv", "loop"}}, "loop": {"loop", "Loop", []string{"downstairs"}}},
			Persons: map[string]Person{"maria": {Slug: "maria", Name: "Maria", Nodes: []NodeID{node(4)}}},
		},
		Records: map[NodeID]DeviceRecord{
			node(2): {Version: "1", Addrs: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.2:5061")}},
			node(3): {Version: "1"},
			node(8): {Version: "evil"}, // not in the roster
		},
		Live: map[NodeID]Liveness{node(2): {Reachable: true}, node(4): {Reachable: true}},
	}
}

func TestFoldResolvesEveryKindOfName(t *testing.T) {
	s := Fold(sampleInputs())
	for _, c := range []struct {
		slug string
		kind AORKind
		want []string
	}{
		{"kitchen-panel", KindDevice, []string{"kitchen-panel"}},
		{"kitchen", KindRoom, []string{"kitchen-panel", "kitchen-speaker"}},
		{"downstairs", KindGroup, []string{"kitchen-panel", "kitchen-speaker", "living-room-tv"}},
		{"loop", KindGroup, []string{"kitchen-panel", "kitchen-speaker", "living-room-tv"}},
		{"maria", KindPerson, []string{"marias-phone"}},
	} {
		r, ok := s.Resolve(c.slug)
		var got []string
		for _, d := range r.Devices {
			got = append(got, d.Slug)
		}
		if !ok || r.Kind != c.kind || !slices.Equal(got, c.want) {
			t.Errorf("Resolve(%q) = %v %v %v, want %v %v", c.slug, ok, r.Kind, got, c.kind, c.want)
		}
	}
	if _, ok := s.Resolve("nobody"); ok {
		t.Error("an unknown name resolved")
	}
}

// A browser that is a wall panel is one of its room: called with it, shown in it, reached or not.
func TestAWallPanelIsInItsRoom(t *testing.T) {
	in := sampleInputs()
	in.Roster.Persons["wall"] = Person{Slug: "wall", Name: "Wall", Room: "kitchen", Nodes: []NodeID{node(20)}}
	slugs := func(s *Snapshot, slug string) (out []string) {
		r, _ := s.Resolve(slug)
		for _, d := range r.Devices {
			out = append(out, d.Slug)
		}
		return out
	}
	s := Fold(in)
	if len(s.Panels) != 1 || s.Panels[0].Status != Unreachable || !s.Panels[0].Node.IsZero() || !slices.Equal(slugs(s, "kitchen"), []string{"kitchen-panel", "kitchen-speaker"}) {
		t.Errorf("a panel that is off: %+v, kitchen %v", s.Panels, slugs(s, "kitchen"))
	}
	for at, want := range map[byte]Status{1: Reachable, 2: Reachable, 3: Unreachable} {
		in.Bindings = map[NodeID]Binding{node(20): {Node: node(at)}}
		s = Fold(in)
		p := s.Panels[0]
		if p.Status != want || p.Node != node(at) || p.Room != "kitchen" || p.Class != ClassPanel || p.Person != "wall" {
			t.Errorf("at node %d: %+v", at, p)
		}
		for _, name := range []string{"kitchen", "downstairs"} {
			if !slices.Contains(slugs(s, name), "wall") {
				t.Errorf("a call to %s does not reach the panel: %v", name, slugs(s, name))
			}
		}
	}
	if r, _ := s.Resolve("living-room"); len(r.Devices) != 1 {
		t.Errorf("it is in another room as well: %+v", r.Devices)
	}
}

func TestFoldStatus(t *testing.T) {
	s := Fold(sampleInputs())
	want := map[byte]Status{1: Reachable, 2: Reachable, 3: Unreachable, 4: NeverSeen}
	for b, st := range want {
		if d, _ := s.Device(node(b)); d.Status != st {
			t.Errorf("node %d is %q, want %q", b, d.Status, st)
		}
	}
	if _, ok := s.Device(node(8)); ok {
		t.Error("a record made a member of somebody who is not in the roster")
	}
	if empty := Fold(Inputs{}); len(empty.Devices) != 0 {
		t.Error("a node without a home lists devices")
	}
}

func TestDirectoryFeed(t *testing.T) {
	in := sampleInputs()
	d := NewDirectory(in.Self)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	feed := d.Subscribe(ctx)
	expect := func(kind ChangeKind, slug string) {
		t.Helper()
		select {
		case c := <-feed:
			if c.Kind != kind || c.Device == nil || c.Device.Slug != slug {
				t.Fatalf("feed said %v %+v, want %v %s", c.Kind, c.Device, kind, slug)
			}
		case <-time.After(5 * time.Second):
			t.Fatalf("feed stayed silent, want %v %s", kind, slug)
		}
	}
	d.SetRoster(&Roster{Members: map[NodeID]Member{node(2): in.Roster.Members[node(2)]}})
	expect(Added, "kitchen-panel")
	d.SetRecord(node(2), in.Records[node(2)])
	expect(Updated, "kitchen-panel")
	d.SetLive(in.Live)
	expect(Updated, "kitchen-panel")
	d.SetLive(map[NodeID]Liveness{node(2): {Reachable: true, LastHeard: time.Unix(9, 0)}}) // no change worth telling
	d.SetRoster(&Roster{})
	expect(Removed, "kitchen-panel")
	d.SetForeign([]Foreign{{ID: "mdns:x"}})
	if c := <-feed; c.Foreign == nil || c.Kind != Added {
		t.Fatalf("feed said %+v, want a foreign thing", c)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	d.SetLive(nil) // must not block after the end
}

func TestAORText(t *testing.T) {
	a := AOR{Slug: "kitchen", Home: HomeID{1, 2}}
	var b AOR
	if err := b.UnmarshalText([]byte(a.String())); err != nil || a != b {
		t.Fatalf("%v %v", b, err)
	}
	for _, bad := range []string{"", "sip:kitchen", "sips:k@00.home.arpa", "sip:k@zz.home.arpa", "sip:k@example.org"} {
		if err := b.UnmarshalText([]byte(bad)); err == nil {
			t.Errorf("%q was taken for a URI", bad)
		}
	}
}

func BenchmarkResolve(b *testing.B) {
	in := sampleInputs()
	for i := range 60 {
		id := NodeID{byte(i), 1}
		in.Roster.Members[id] = Member{Node: id, Slug: fmt.Sprintf("d%d", i)}
	}
	s := Fold(in)
	for b.Loop() {
		if _, ok := s.Resolve("kitchen"); !ok {
			b.Fatal("kitchen is gone")
		}
	}
}
