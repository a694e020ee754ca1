package overlay

import "testing"

// A node lost its tail, starts, says something new under a number that peers know, and
// then hears its old statement from them: the new one goes on, in a new epoch.
func TestRenewalKeepsWhatWasSaidSinceTheStart(t *testing.T) {
	a, b := newWriters(t)
	a.say(t, "before")
	old := a.say(t, "before the tail was lost")
	if _, _, err := b.accept(old); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ now, want string }{{"after", "after"}, {"", "before the tail was lost"}} {
		a.records, a.said = map[recordKey]stored{}, map[recordKey][]byte{} // as after a restart with an older store
		if c.now != "" {
			a.say(t, c.now)
		}
		r, lost, err := a.accept(old)
		if err != nil || !lost {
			t.Fatalf("the peer's copy: %v, lost %v", err, lost)
		}
		s, err := a.write(a.key, r.Kind, r.Body, true)
		if err != nil || s.rec.Epoch != 2 || string(s.rec.Body) != string(body(t, c.want)) {
			t.Errorf("renewed as %q in epoch %d, %v; want %q", s.rec.Body, s.rec.Epoch, err, c.want)
		}
	}
}
