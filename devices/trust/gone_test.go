package trust

import (
	"testing"

	"github.com/hallway-home/hallway/devices"
)

func TestWasRemoved(t *testing.T) {
	l, owner := newLog(t), newKey(t)
	if l.WasRemoved("tv") {
		t.Error("nobody was removed from no home")
	}
	if _, err := l.Create(owner, CreateParams{HomeName: "Home", Name: "TV"}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"Garden cam", "Garden cam", "Radio 3"} {
		if _, err := l.Admit(owner, Candidate{Key: devices.CompressedKey(&newKey(t).PublicKey), Name: name}); err != nil {
			t.Fatal(err)
		}
	}
	for _, slug := range []string{"garden-cam-2", "radio-3"} {
		if err := l.Remove(owner, slug); err != nil {
			t.Fatal(err)
		}
	}
	for slug, want := range map[string]bool{"garden-cam-2": true, "radio-3": true, "radio": false, "tv": false, "nobody": false, "": false} {
		if got := l.WasRemoved(slug); got != want {
			t.Errorf("%q: %v", slug, got)
		}
	}
}
