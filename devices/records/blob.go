package records

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
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
	// BlobPiece is the size of one piece, on the wire and on disk.
	BlobPiece = 64 << 10
	// blobGrace is how long a blob lives that nothing refers to: its writer puts it first
	// and refers to it then.
	blobGrace = 10 * time.Minute

	bucketBlobs     = "blobs"     // pieces, by hash and number
	bucketBlobIndex = "blobindex" // what is held, by hash
)

// Why a blob is not kept.
var (
	ErrBlobSize  = errors.New("the blob is larger than 8 MiB or empty")
	ErrBlobQuota = errors.New("no room for blobs is left on this device; delete messages or raise the limit")
)

// BlobRef names a blob: the third shape of what nodes share, named by its own SHA-256.
// Whoever reads a record with references knows what to keep.
type BlobRef struct {
	_    struct{} `cbor:",toarray"`
	Hash [32]byte
	Size uint32
}

// Blobs is what this node holds. Safe for concurrent use.
type Blobs struct {
	store *devices.Store
	room  int64

	writing sync.Mutex // held while the disk works; taken before mu
	mu      sync.Mutex
	held    map[[32]byte]heldBlob
}

type heldBlob struct {
	Size  uint32         `cbor:"1,keyasint"`
	For   devices.NodeID `cbor:"2,keyasint"` // whose it is; zero: own
	since time.Time
}

// OpenBlobs reads which blobs the store holds; room is how many bytes there may be, 0
// means DefaultBlobs.
func OpenBlobs(store *devices.Store, room int64) (*Blobs, error) {
	b := &Blobs{store: store, room: cmp.Or(room, DefaultBlobs), held: map[[32]byte]heldBlob{}}
	now := time.Now()
	return b, store.View(func(tx devices.Tx) error {
		return tx.Each(bucketBlobIndex, func(key string, val []byte) error {
			h := heldBlob{since: now}
			if err := Unmarshal(val, &h); err != nil || len(key) != 32 {
				return fmt.Errorf("the list of blobs is damaged: %w", errors.Join(err, ErrForm))
			}
			b.held[[32]byte([]byte(key))] = h
			return nil
		})
	})
}

func pieceKey(hash [32]byte, offset uint32) string {
	return string(hash[:]) + string(binary.BigEndian.AppendUint32(nil, offset/BlobPiece))
}

// Put stores a blob under its hash, which the caller has checked, in one transaction and
// if there is room. owner is whose it is; zero means that it is this node's own.
func (b *Blobs) Put(hash [32]byte, data []byte, owner devices.NodeID) error {
	if len(data) == 0 || len(data) > MaxBlob {
		return ErrBlobSize
	}
	b.writing.Lock()
	defer b.writing.Unlock()
	h := heldBlob{uint32(len(data)), owner, time.Now()} //nolint:gosec // bounded above
	if done, err := b.place(hash, h); done || err != nil {
		return err
	}
	val, err := Marshal(h)
	if err != nil {
		return err
	}
	err = b.store.Update("blob.put", func(tx devices.Tx) error {
		for at := 0; at < len(data); at += BlobPiece {
			if err := tx.Put(bucketBlobs, pieceKey(hash, uint32(at)), data[at:min(at+BlobPiece, len(data))]); err != nil { //nolint:gosec // bounded above
				return err
			}
		}
		return tx.Put(bucketBlobIndex, string(hash[:]), val)
	})
	if err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.held[hash] = h
	return nil
}

// place says whether a blob has room, or is here already.
func (b *Blobs) place(hash [32]byte, h heldBlob) (done bool, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if old, ok := b.held[hash]; ok && (h.For != devices.NodeID{} || old.For == devices.NodeID{}) {
		old.since = h.since
		b.held[hash] = old
		return true, nil
	}
	if !b.fits(hash, h) {
		return false, ErrBlobQuota
	}
	return false, nil
}

// fits says whether there is room; mu is held.
func (b *Blobs) fits(hash [32]byte, h heldBlob) bool {
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

// Size is how many bytes a blob has that is held here.
func (b *Blobs) Size(hash [32]byte) (n uint32, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	h, ok := b.held[hash]
	return h.Size, ok
}

// Piece reads the piece that starts at offset, a multiple of BlobPiece; nil if it is not
// here.
func (b *Blobs) Piece(hash [32]byte, offset uint32) (data []byte, err error) {
	err = b.store.View(func(tx devices.Tx) error {
		data = tx.Get(bucketBlobs, pieceKey(hash, offset))
		return nil
	})
	return data, err
}

// Read gives a whole blob that is held here.
func (b *Blobs) Read(hash [32]byte) ([]byte, bool) {
	size, ok := b.Size(hash)
	if !ok {
		return nil, false
	}
	out := make([]byte, 0, size)
	for at := uint32(0); at < size; at += BlobPiece {
		p, err := b.Piece(hash, at)
		if err != nil {
			return nil, false
		}
		out = append(out, p...)
	}
	return out, len(out) == int(size)
}

// Sweep drops blobs that nothing refers to, when they are old enough for somebody to have
// done so.
func (b *Blobs) Sweep(refs map[[32]byte]BlobUse, now time.Time) error {
	b.writing.Lock()
	defer b.writing.Unlock()
	b.mu.Lock()
	gone := maps.Clone(b.held)
	b.mu.Unlock()
	maps.DeleteFunc(gone, func(hash [32]byte, h heldBlob) bool {
		_, used := refs[hash]
		return used || now.Sub(h.since) < blobGrace
	})
	if len(gone) == 0 {
		return nil
	}
	err := b.store.Update("blob.drop", func(tx devices.Tx) error {
		for hash, h := range gone {
			for at := uint32(0); at < h.Size; at += BlobPiece {
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
	if err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for hash := range gone {
		delete(b.held, hash)
	}
	return nil
}

// BlobUse says who refers to a blob.
type BlobUse struct {
	Size    uint32
	Writers []devices.NodeID
}

// Refs lists all blobs that living registers and log entries refer to.
func (t *Table) Refs() map[[32]byte]BlobUse {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := map[[32]byte]BlobUse{}
	add := func(w devices.NodeID, refs []BlobRef) {
		for _, r := range refs {
			u := out[r.Hash]
			if u.Size == 0 || r.Size < u.Size {
				u.Size = r.Size
			}
			if !slices.Contains(u.Writers, w) {
				u.Writers = append(u.Writers, w)
			}
			out[r.Hash] = u
		}
	}
	for k, s := range t.records {
		if !s.expired && !s.rec.Gone() {
			add(k.writer, s.rec.Blobs)
		}
	}
	for w, l := range t.logs {
		for _, refs := range l.refs {
			add(w, refs)
		}
	}
	for hash, u := range out {
		slices.SortFunc(u.Writers, func(a, b devices.NodeID) int { return bytes.Compare(a[:], b[:]) })
		out[hash] = u
	}
	return out
}
