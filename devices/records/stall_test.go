package records

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hallway-home/hallway/devices"
)

// stalling is a card that writes nothing between stall and release. reached tells of each
// write that waits.
func stalling(t testing.TB) (s *devices.Store, reached chan string, stall, release func()) {
	t.Helper()
	var card sync.Mutex
	reached = make(chan string, 16)
	s, err := devices.OpenStore(t.TempDir(), devices.StoreOptions{Hook: func(point string) {
		if !strings.HasSuffix(point, ".before") {
			return
		}
		if !card.TryLock() {
			reached <- point
			card.Lock()
		}
		card.Unlock()
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s, reached, card.Lock, card.Unlock
}

// While the disk stalls nothing else does: what is known is read and compared, and what
// others say is taken. What this node says is said when the disk has it, and not before.
func TestStalledDiskHoldsUpNothingElse(t *testing.T) {
	a, b := newWriters(t)
	store, reached, stall, release := stalling(t)
	a.Table = a.reopen(t, func(c *Config) { c.Store = store })
	blobs, err := OpenBlobs(store, 0)
	if err != nil {
		t.Fatal(err)
	}
	data := []byte("a blob")
	hash := sha256.Sum256(data)
	a.say(t, "before")
	lost := a.sign(t, func(r *Record) { r.Sequence = 9 })
	others, register := b.append1(t, 1), b.say(t, 1)
	said := a.Watch(t.Context(), ShapeRegister)
	stall()
	writes := []func() error{
		func() error { _, err := a.Write(Statement{Kind: KindDevice, Body: "meanwhile"}); return err },
		func() error { _, err := a.Append("call", 1); return err },
		func() error { return a.Take([]Signed{others}).Err },
		func() error { return a.Take([]Signed{lost}).Err },
		a.Flush,
		a.Forget,
		func() error { return blobs.Put(hash, data, devices.NodeID{}) },
	}
	ended := make(chan error, len(writes))
	for i, f := range writes {
		go func() { ended <- f() }()
		if i == 0 || i == len(writes)-1 { // the first, and the one with a lock of its own
			t.Log("stalled at", <-reached)
		}
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		if x := a.Take([]Signed{register}); x.Err != nil || len(x.New) != 1 {
			t.Errorf("another's register: %+v", x)
		}
		if n := len(a.Records()); n != 2 || len(said) != 1 {
			t.Errorf("%d registers are known and %d were told of; this node's is not durable", n, len(said))
		}
		if d := a.Differing(b.Sums()); len(d) == 0 || len(a.State(d)) == 0 {
			t.Error("nothing differs")
		}
		if r := a.Lacking([]State{{Writer: a.self}}, exchangeBudget); len(r.Registers) != 1 {
			t.Errorf("%+v", r)
		}
		if _, err := a.Entries(""); err != nil || len(a.Refs()) != 0 || a.Expire(time.Now()) != nil {
			t.Error(err)
		}
		if _, ok := blobs.Size(hash); ok {
			t.Error("a blob is held that is not on disk")
		}
	}()
	select {
	case <-read:
	case <-time.After(10 * time.Second):
		t.Error("reading waits for the disk")
	}
	release()
	var errs []error
	for range writes {
		errs = append(errs, <-ended)
	}
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	if r := a.records[registerKey{a.self, a.self.String(), KindDevice}].rec; !bytes.Equal(r.Body, body(t, "meanwhile")) {
		t.Errorf("in the end this node says %q, %d, %d", r.Body, r.Epoch, r.Sequence)
	}
	if err := a.Flush(); err != nil {
		t.Fatal(err)
	}
	again := a.reopen(t, func(c *Config) { c.Store = store })
	if list, err := again.Entries(""); err != nil || len(list) != 2 || len(again.Records()) != 2 {
		t.Fatalf("on disk are %d entries and %d registers, %v", len(list), len(again.Records()), err)
	}
}
