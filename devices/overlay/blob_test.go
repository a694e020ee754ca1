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
	"github.com/hallway-home/hallway/devices/records"
)

func message(t testing.TB, n int) []byte {
	t.Helper()
	b := make([]byte, n)
	if _, err := rand.Read(b); err != nil {
		t.Fatal(err)
	}
	return b
}

func holders(nodes []*node, ref records.BlobRef) (out []*node) {
	for _, x := range nodes {
		if _, ok := x.blobs.Size(ref.Hash); ok {
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
	data := message(t, 3*records.BlobPiece+17)
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
		x.fetch.wake.look() // as every minute
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
	if _, err := n[0].PutBlob(make([]byte, records.MaxBlob+1)); !errors.Is(err, records.ErrBlobSize) {
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
	if err := liar.blobs.Put(hash, message(t, 1000), devices.NodeID{}); err != nil {
		t.Fatal(err)
	}
	if _, err := n[0].Blob(t.Context(), hash); !errors.Is(err, ErrNoBlob) {
		t.Fatalf("another content was taken: %v", err)
	}
	if err := honest.blobs.Put(hash, data, devices.NodeID{}); err != nil {
		t.Fatal(err)
	}
	if got, err := n[0].Blob(t.Context(), hash); err != nil || !bytes.Equal(got, data) {
		t.Fatal(err)
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
	b := newFetches()
	f.Fuzz(func(t *testing.T, raw []byte) {
		fr, _, err := readDecoded(bytes.NewReader(raw))
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
	n[0].fetch.slots <- struct{}{}
	n[0].fetch.slots <- struct{}{}
	cancel()
	if _, err := n[0].Blob(ctx, [32]byte{1}); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}
