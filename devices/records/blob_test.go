package records

import (
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/hallway-home/hallway/devices"
)

func TestBlobQuotasAndGarbage(t *testing.T) {
	store := newStore(t)
	const room = 1 << 20
	b, err := OpenBlobs(store, room)
	if err != nil {
		t.Fatal(err)
	}
	other := devices.NodeID{1}
	put := func(n int, owner devices.NodeID) ([32]byte, error) {
		data := make([]byte, n)
		_, _ = rand.Read(data)
		hash := sha256.Sum256(data)
		return hash, b.Put(hash, data, owner)
	}
	if _, err := put(room/2+1, devices.NodeID{}); !errors.Is(err, ErrBlobQuota) {
		t.Fatalf("own ones take more than half: %v", err)
	}
	if _, err := put(room/blobShare+1, other); !errors.Is(err, ErrBlobQuota) {
		t.Fatalf("one other takes more than its share: %v", err)
	}
	used := map[[32]byte]BlobUse{}
	for i := range 4 { // others fill their half
		hash, err := put(room/blobShare, devices.NodeID{byte(i + 1)})
		if err != nil {
			t.Fatal(err)
		}
		used[hash] = BlobUse{}
	}
	if _, err := put(1, devices.NodeID{9}); !errors.Is(err, ErrBlobQuota) {
		t.Fatalf("others take more than half: %v", err)
	}
	own, err := put(room/2, devices.NodeID{})
	if err != nil {
		t.Fatalf("others took the room for own ones: %v", err)
	}
	if err := b.Sweep(used, time.Now()); err != nil {
		t.Fatal(err)
	}
	if _, ok := b.Size(own); !ok {
		t.Fatal("a blob was dropped before anybody could refer to it")
	}
	if err := b.Sweep(used, time.Now().Add(blobGrace)); err != nil {
		t.Fatal(err)
	}
	again, err := OpenBlobs(store, room)
	if err != nil || len(again.held) != 4 || len(b.held) != 4 {
		t.Fatalf("%d blobs are left, %d after a restart, %v", len(b.held), len(again.held), err)
	}
	pieces := 0
	_ = store.View(func(tx devices.Tx) error {
		return tx.Each(bucketBlobs, func(string, []byte) error { pieces++; return nil })
	})
	if pieces != 4*room/blobShare/BlobPiece {
		t.Fatalf("%d pieces are left on disk", pieces)
	}
}

// References fall off with their entry.
func TestBlobReferencesFollowTheLog(t *testing.T) {
	a, _ := newWriters(t)
	ref := BlobRef{Hash: [32]byte{1}, Size: 1}
	if _, err := a.Append("message", 1, ref); err != nil {
		t.Fatal(err)
	}
	if u := a.Refs()[ref.Hash]; !slices.Equal(u.Writers, []devices.NodeID{a.self}) {
		t.Fatalf("%+v", u)
	}
	if again := a.reopen(t, nil); len(again.Refs()) != 1 {
		t.Fatalf("after a restart: %v", again.Refs())
	}
	for i := range MaxEntries {
		a.append1(t, i)
	}
	if len(a.Refs()) != 0 {
		t.Fatal("an entry that fell off still keeps its blob")
	}
}
