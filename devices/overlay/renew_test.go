package overlay

import (
	"log/slog"
	"testing"

	"github.com/hallway-home/hallway/devices"
)

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

// A crash between a removal and the clearing of its records leaves them in the store; the
// next start clears them.
func TestForgetClearsWhatACrashLeft(t *testing.T) {
	a, b := newWriters(t)
	if _, _, err := b.accept(a.say(t, "still here")); err != nil {
		t.Fatal(err)
	}
	alone := func() *devices.Roster { // as b's roster is once a was removed
		r := *b.log.Roster()
		r.Members = map[devices.NodeID]devices.Member{}
		return &r
	}
	again, err := openTable(b.store, b.self, alone, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if err := again.forget(); err != nil {
		t.Fatal(err)
	}
	if err := b.store.View(func(tx devices.Tx) error {
		return tx.Each(devices.BucketRecords, func(key string, _ []byte) error {
			t.Errorf("the store still holds %s", key)
			return nil
		})
	}); err != nil {
		t.Fatal(err)
	}
}
