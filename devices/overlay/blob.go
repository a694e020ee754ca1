package overlay

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/hallway-home/hallway/devices"
)

const (
	// MaxBlob bounds one blob: a video message of a minute at 1 Mbit/s. It is held in
	// memory while it travels.
	MaxBlob = 8 << 20
	// DefaultBlobs is the room for blobs at one node. Half is for own ones, half for those
	// that it holds for others.
	DefaultBlobs = 64 << 20
	// blobShare: one other writer may take this part of a node's room.
	blobShare = 8
	// blobPiece is one piece on the wire and on disk; pings pass between two.
	blobPiece = 64 << 10
	// blobGrace is how long a blob lives that nothing refers to: its writer puts it first
	// and refers to it then.
	blobGrace = 10 * time.Minute

	bucketBlobs     = "blobs"     // pieces, by hash and number
	bucketBlobIndex = "blobindex" // what is held, by hash
)

// Why a blob is not kept or not there.
var (
	ErrBlobSize  = errors.New("the blob is larger than 8 MiB or empty")
	ErrBlobQuota = errors.New("no room for blobs is left on this device; delete messages or raise the limit")
	ErrNoBlob    = errors.New("no device that can be reached has this blob")
)

// BlobRef names a blob: the third shape of what nodes share, named by its own SHA-256.
// Whoever reads a record with references knows what to keep.
type BlobRef struct {
	_    struct{} `cbor:",toarray"`
	Hash [32]byte
	Size uint32
}

// blobWant asks for the piece that starts at Offset.
type blobWant struct {
	Hash   [32]byte `cbor:"1,keyasint"`
	Offset uint32   `cbor:"2,keyasint"`
}

// blobChunk is one piece; Total is the size of the blob, 0 if it is not here.
type blobChunk struct {
	Hash   [32]byte `cbor:"1,keyasint"`
	Offset uint32   `cbor:"2,keyasint"`
	Total  uint32   `cbor:"3,keyasint"`
	Data   []byte   `cbor:"4,keyasint"`
}

// blobs is what this node holds and what it waits for.
type blobs struct {
	store *devices.Store
	room  int64
	wake  wake          // copies may be missing
	slots chan struct{} // fetches at a time: each holds a blob in memory

	mu    sync.Mutex
	held  map[[32]byte]heldBlob
	waits map[blobWait]chan blobChunk
}

type heldBlob struct {
	Size  uint32         `cbor:"1,keyasint"`
	For   devices.NodeID `cbor:"2,keyasint"` // whose it is; zero: own
	since time.Time
}

type blobWait struct {
	peer devices.NodeID
	want blobWant
}

func openBlobs(store *devices.Store, room int64) (*blobs, error) {
	b := &blobs{
		store: store, room: room, wake: newWake(), slots: make(chan struct{}, 2),
		held: map[[32]byte]heldBlob{}, waits: map[blobWait]chan blobChunk{},
	}
	now := time.Now()
	return b, store.View(func(tx devices.Tx) error {
		return tx.Each(bucketBlobIndex, func(key string, val []byte) error {
			h := heldBlob{since: now}
			if err := decMode.Unmarshal(val, &h); err != nil || len(key) != 32 {
				return fmt.Errorf("the list of blobs is damaged: %w", errors.Join(err, ErrRecordForm))
			}
			b.held[[32]byte([]byte(key))] = h
			return nil
		})
	})
}

func pieceKey(hash [32]byte, offset uint32) string {
	return string(hash[:]) + string(binary.BigEndian.AppendUint32(nil, offset/blobPiece))
}

// put stores a blob in one transaction, if there is room.
func (b *blobs) put(hash [32]byte, data []byte, owner devices.NodeID) error {
	if len(data) == 0 || len(data) > MaxBlob {
		return ErrBlobSize
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	h := heldBlob{uint32(len(data)), owner, time.Now()} //nolint:gosec // bounded above
	if old, ok := b.held[hash]; ok && (owner != devices.NodeID{} || old.For == devices.NodeID{}) {
		old.since = h.since
		b.held[hash] = old
		return nil
	}
	if !b.fits(hash, h) {
		return ErrBlobQuota
	}
	val, err := marshal(h)
	if err != nil {
		return err
	}
	err = b.store.Update("blob.put", func(tx devices.Tx) error {
		for at := 0; at < len(data); at += blobPiece {
			if err := tx.Put(bucketBlobs, pieceKey(hash, uint32(at)), data[at:min(at+blobPiece, len(data))]); err != nil { //nolint:gosec // bounded above
				return err
			}
		}
		return tx.Put(bucketBlobIndex, string(hash[:]), val)
	})
	if err == nil {
		b.held[hash] = h
	}
	return err
}

// fits says whether there is room; mu is held.
func (b *blobs) fits(hash [32]byte, h heldBlob) bool {
	var own, others, his int64
	for k, x := range b.held {
		switch {
		case k == hash:
		case x.For == devices.NodeID{}:
			own += int64(x.Size)
		case x.For == h.For:
			his += int64(x.Size)
			others += int64(x.Size)
		default:
			others += int64(x.Size)
		}
	}
	if h.For == (devices.NodeID{}) {
		return own+int64(h.Size) <= b.room/2
	}
	return others+int64(h.Size) <= b.room/2 && his+int64(h.Size) <= b.room/blobShare
}

func (b *blobs) has(hash [32]byte) (heldBlob, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	h, ok := b.held[hash]
	return h, ok
}

// piece reads one piece; nil if it is not here.
func (b *blobs) piece(hash [32]byte, offset uint32) (data []byte, err error) {
	err = b.store.View(func(tx devices.Tx) error {
		data = tx.Get(bucketBlobs, pieceKey(hash, offset))
		return nil
	})
	return data, err
}

// read gives a whole blob that is held here.
func (b *blobs) read(hash [32]byte) ([]byte, bool) {
	h, ok := b.has(hash)
	if !ok {
		return nil, false
	}
	out := make([]byte, 0, h.Size)
	for at := uint32(0); at < h.Size; at += blobPiece {
		p, err := b.piece(hash, at)
		if err != nil {
			return nil, false
		}
		out = append(out, p...)
	}
	return out, len(out) == int(h.Size)
}

// sweep drops blobs that nothing refers to.
func (b *blobs) sweep(refs map[[32]byte]blobUse, now time.Time) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	gone := maps.Clone(b.held)
	maps.DeleteFunc(gone, func(hash [32]byte, h heldBlob) bool {
		_, used := refs[hash]
		return used || now.Sub(h.since) < blobGrace
	})
	if len(gone) == 0 {
		return nil
	}
	err := b.store.Update("blob.drop", func(tx devices.Tx) error {
		for hash, h := range gone {
			for at := uint32(0); at < h.Size; at += blobPiece {
				if err := tx.Delete(bucketBlobs, pieceKey(hash, at)); err != nil {
					return err
				}
			}
			if err := tx.Delete(bucketBlobIndex, string(hash[:])); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		for hash := range gone {
			delete(b.held, hash)
		}
	}
	return err
}

// deliver hands a piece to who waits for it; what nobody asked for is dropped.
func (b *blobs) deliver(peer devices.NodeID, c *blobChunk) (wanted bool) {
	if c == nil {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	ch, ok := b.waits[blobWait{peer, blobWant{c.Hash, c.Offset}}]
	if !ok {
		return false
	}
	select {
	case ch <- *c:
		return true
	default:
		return false
	}
}

func (b *blobs) expect(w blobWait) (got chan blobChunk, forget func()) {
	got = make(chan blobChunk, 1)
	b.mu.Lock()
	b.waits[w] = got
	b.mu.Unlock()
	return got, func() {
		b.mu.Lock()
		delete(b.waits, w)
		b.mu.Unlock()
	}
}
