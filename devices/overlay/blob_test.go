package overlay

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/hallway-home/hallway/devices"
)

func message(t testing.TB, n int) []byte {
	t.Helper()
	b := make([]byte, n)
	if _, err := rand.Read(b); err != nil {
		t.Fatal(err)
	}
	return b
}

func holders(nodes []*node, ref BlobRef) (out []*node) {
	for _, x := range nodes {
		if _, ok := x.blobs.has(ref.Hash); ok {
			out = append(out, x)
		}
	}
	return out
}

// A message outlives the device that recorded it, and any device plays it (A24).
func TestBlobIsHeldTwiceAndFetchedByAll(t *testing.T) {
	t.Parallel()
	n := home(t, 4)
	meet(t, n...)
	data := message(t, 3*blobPiece+17)
	ref, err := n[0].PutBlob(data)
	if err != nil {
		t.Fatal(err)
	}
	if err := n[0].Append("message", "for the kitchen", ref); err != nil {
		t.Fatal(err)
	}
	eventually(t, 5*time.Second, "two hold it", func() bool { return len(holders(n, ref)) == 2 })
	for _, x := range n {
		if got, err := x.Blob(t.Context(), ref.Hash); err != nil || !bytes.Equal(got, data) {
			t.Fatalf("%d bytes, %v", len(got), err)
		}
	}
	if got := holders(n, ref); len(got) != 2 {
		t.Fatalf("%d hold it after all read it", len(got))
	}
	n[0].stop()
	rest := n[1:]
	eventually(t, time.Second, "the recorder is gone", func() bool { return !rest[0].reaches(n[0]) && !rest[1].reaches(n[0]) && !rest[2].reaches(n[0]) })
	for _, x := range rest {
		if got, err := x.Blob(t.Context(), ref.Hash); err != nil || !bytes.Equal(got, data) {
			t.Fatalf("after the recorder was unplugged: %d bytes, %v", len(got), err)
		}
		x.blobs.wake.look() // as every minute
	}
	eventually(t, 5*time.Second, "two of the living hold it", func() bool { return len(holders(rest, ref)) == 2 })
}

func TestBlobThatNobodyHas(t *testing.T) {
	n := home(t, 2)
	meet(t, n...)
	start := time.Now()
	if _, err := n[0].Blob(t.Context(), sha256.Sum256([]byte("x"))); !errors.Is(err, ErrNoBlob) || time.Since(start) > time.Second {
		t.Fatalf("%v after %v", err, time.Since(start))
	}
	if _, err := n[0].PutBlob(make([]byte, MaxBlob+1)); !errors.Is(err, ErrBlobSize) {
		t.Fatal(err)
	}
}

// A holder that sends something else is found out, and another is asked.
func TestBlobHashIsChecked(t *testing.T) {
	n := home(t, 3)
	meet(t, n...)
	data := message(t, 1000)
	hash := sha256.Sum256(data)
	liar, honest := n[1], n[2]
	order := slices.DeleteFunc(n[0].ranked(hash, nil), func(id devices.NodeID) bool { return id == n[0].id })
	if order[0] != liar.id { // whoever is asked first lies
		liar, honest = n[2], n[1]
	}
	if err := liar.blobs.put(hash, message(t, 1000), devices.NodeID{}); err != nil {
		t.Fatal(err)
	}
	if _, err := n[0].Blob(t.Context(), hash); !errors.Is(err, ErrNoBlob) {
		t.Fatalf("another content was taken: %v", err)
	}
	if err := honest.blobs.put(hash, data, devices.NodeID{}); err != nil {
		t.Fatal(err)
	}
	if got, err := n[0].Blob(t.Context(), hash); err != nil || !bytes.Equal(got, data) {
		t.Fatal(err)
	}
}

func TestBlobQuotasAndGarbage(t *testing.T) {
	store, err := devices.OpenStore(t.TempDir(), devices.StoreOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	const room = 1 << 20
	b, err := openBlobs(store, room)
	if err != nil {
		t.Fatal(err)
	}
	other := devices.NodeID{1}
	put := func(n int, owner devices.NodeID) ([32]byte, error) {
		data := message(t, n)
		hash := sha256.Sum256(data)
		return hash, b.put(hash, data, owner)
	}
	if _, err := put(room/2+1, devices.NodeID{}); !errors.Is(err, ErrBlobQuota) {
		t.Fatalf("own ones take more than half: %v", err)
	}
	if _, err := put(room/blobShare+1, other); !errors.Is(err, ErrBlobQuota) {
		t.Fatalf("one other takes more than its share: %v", err)
	}
	used := map[[32]byte]blobUse{}
	for i := range 4 { // others fill their half
		hash, err := put(room/blobShare, devices.NodeID{byte(i + 1)})
		if err != nil {
			t.Fatal(err)
		}
		used[hash] = blobUse{}
	}
	if _, err := put(1, devices.NodeID{9}); !errors.Is(err, ErrBlobQuota) {
		t.Fatalf("others take more than half: %v", err)
	}
	own, err := put(room/2, devices.NodeID{})
	if err != nil {
		t.Fatalf("others took the room for own ones: %v", err)
	}
	if err := b.sweep(used, time.Now()); err != nil {
		t.Fatal(err)
	}
	if _, ok := b.has(own); !ok {
		t.Fatal("a blob was dropped before anybody could refer to it")
	}
	if err := b.sweep(used, time.Now().Add(blobGrace)); err != nil {
		t.Fatal(err)
	}
	again, err := openBlobs(store, room)
	if err != nil || len(again.held) != 4 || len(b.held) != 4 {
		t.Fatalf("%d blobs are left, %d after a restart, %v", len(b.held), len(again.held), err)
	}
	pieces := 0
	_ = store.View(func(tx devices.Tx) error {
		return tx.Each(bucketBlobs, func(string, []byte) error { pieces++; return nil })
	})
	if pieces != 4*room/blobShare/blobPiece {
		t.Fatalf("%d pieces are left on disk", pieces)
	}
}

// References fall off with their entry.
func TestBlobReferencesFollowTheLog(t *testing.T) {
	a, _ := newWriters(t)
	ref := BlobRef{Hash: [32]byte{1}, Size: 1}
	if _, _, err := a.append(a.key, draft{kind: "message", body: body(t, 1), blobs: []BlobRef{ref}}); err != nil {
		t.Fatal(err)
	}
	if u := a.blobRefs()[ref.Hash]; !slices.Equal(u.writers, []devices.NodeID{a.self}) {
		t.Fatalf("%+v", u)
	}
	again, err := openTable(a.store, a.self, a.log.Roster, a.table.log)
	if err != nil || len(again.blobRefs()) != 1 {
		t.Fatalf("after a restart: %v %v", again.blobRefs(), err)
	}
	for i := range MaxEntries {
		a.append1(t, i)
	}
	if len(a.blobRefs()) != 0 {
		t.Fatal("an entry that fell off still keeps its blob")
	}
}

// Pieces come from whoever is asked, in whatever form: nothing but the right bytes is
// ever returned.
func FuzzBlobChunk(f *testing.F) {
	data := []byte("a blob")
	hash := sha256.Sum256(data)
	good, err := encodeFrame(frame{Kind: frameChunk, Chunk: &blobChunk{Hash: hash, Total: uint32(len(data)), Data: data}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte{0, 0, 0, 2, 9, 0xa0})
	b := &blobs{waits: map[blobWait]chan blobChunk{}}
	f.Fuzz(func(t *testing.T, raw []byte) {
		fr, _, err := readFrame(bytes.NewReader(raw))
		if err != nil || fr.Kind != frameChunk {
			return
		}
		got, forget := b.expect(blobWait{devices.NodeID{1}, blobWant{Hash: hash}})
		defer forget()
		if b.deliver(devices.NodeID{2}, fr.Chunk) {
			t.Fatal("a piece of another peer was taken")
		}
		if b.deliver(devices.NodeID{1}, fr.Chunk) {
			if c := <-got; c.Hash != hash || c.Offset != 0 {
				t.Fatal("another piece was taken")
			}
		}
	})
}

// Fetching ends with its caller.
func TestBlobFetchEndsWithItsCaller(t *testing.T) {
	n := home(t, 2)
	ctx, cancel := context.WithCancel(t.Context())
	n[0].blobs.slots <- struct{}{}
	n[0].blobs.slots <- struct{}{}
	cancel()
	if _, err := n[0].Blob(ctx, [32]byte{1}); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}
