package overlay

import (
	"reflect"
	"testing"
	"time"

	"github.com/hallway-home/hallway/devices"
	"github.com/hallway-home/hallway/devices/trust"
)

// A node is off while the home makes a checkpoint of more than one frame and goes on. When it is
// back it has only old edits, and nobody has those any more: all agree again.
func TestSleptThroughACheckpoint(t *testing.T) {
	t.Parallel()
	n := []*node{newNode(t, "tv"), newNode(t, "pad"), newNode(t, "panel")}
	code, err := n[0].log.Create(n[0].key, trust.CreateParams{HomeName: "Home", Name: "TV"})
	if err != nil {
		t.Fatal(err)
	}
	for i, x := range n[1:] {
		c := trust.Candidate{Key: devices.CompressedKey(&x.key.PublicKey), Name: "Panel", Role: []devices.Role{devices.RoleOwner, devices.RoleDevice}[i]}
		if _, err := n[0].log.Admit(n[0].key, c); err != nil {
			t.Fatal(err)
		}
	}
	for _, x := range n[1:] {
		if err := x.log.Adopt(n[0].log.Edits(), n[0].log.Roster().Home, x.id); err != nil {
			t.Fatal(err)
		}
	}
	for _, x := range n[:2] {
		x.start()
	}
	meet(t, n[:2]...)
	for range 300 {
		if err := n[0].log.SetRoom(n[0].key, "A room with a name of a good length"); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, 10*time.Second, "the owners agree", func() bool { return n[0].Agrees(n[1].id) && n[1].Agrees(n[0].id) })
	if n[0].Agrees(n[2].id) {
		t.Error("who is off agrees")
	}
	if err := n[0].log.Checkpoint(code); err != nil {
		t.Fatal(err)
	}
	if err := n[0].log.SetRoom(n[0].key, "Attic"); err != nil {
		t.Fatal(err)
	}
	same := func(list ...*node) func() bool {
		return func() bool {
			for _, x := range list {
				if !reflect.DeepEqual(x.log.Roster(), n[0].log.Roster()) || len(x.log.Edits()) != len(n[0].log.Edits()) {
					return false
				}
			}
			return true
		}
	}
	eventually(t, 10*time.Second, "who was there follows", same(n[:2]...))
	n[2].start()
	meet(t, n...)
	took := eventually(t, 10*time.Second, "who slept follows", same(n...))
	t.Logf("%d edits; who slept agrees after %v", len(n[2].log.Edits()), took)
	if err := n[1].log.SetRoom(n[1].key, "Cellar"); err != nil {
		t.Fatal(err)
	}
	eventually(t, 10*time.Second, "edits go on", func() bool { return len(n[0].log.Roster().Rooms) == 302 && same(n...)() })
}
