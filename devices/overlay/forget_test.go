package overlay

import (
	"log/slog"
	"testing"

	"github.com/hallway-home/hallway/devices"
)

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
