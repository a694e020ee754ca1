package overlay

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/hallway-home/hallway/devices"
	"github.com/hallway-home/hallway/devices/records"
	"github.com/hallway-home/hallway/devices/trust"
)

const (
	// blobHolders is how many nodes hold a blob: a recording outlives the recorder.
	blobHolders = 2
	// pieceWait bounds the wait for one piece, fetchWait that for a whole blob.
	pieceWait, fetchWait = 3 * time.Second, 30 * time.Second
	// lookForBlobs: how often missing copies are looked for, also when nothing happened.
	lookForBlobs = time.Minute
	// settleBlobs gathers references before they are looked at.
	settleBlobs = 200 * time.Millisecond
	// fetchesPerWriter bounds what one writer's references may cost in one look.
	fetchesPerWriter = 4
	// pieceCost: serving a piece costs the reader this part of what reading one does.
	pieceCost = 8
)

// ErrNoBlob says that nobody has it who could be asked.
var ErrNoBlob = errors.New("no device that can be reached has this blob")

// fetches is what this node asks others for.
type fetches struct {
	wake  wake          // copies may be missing
	slots chan struct{} // fetches at a time: each holds a blob in memory

	mu    sync.Mutex
	waits map[blobWait]chan blobChunk
}

type blobWait struct {
	peer devices.NodeID
	want blobWant
}

func newFetches() fetches {
	return fetches{wake: newWake(), slots: make(chan struct{}, 2), waits: map[blobWait]chan blobChunk{}}
}

// deliver hands a piece to who waits for it; what nobody asked for is dropped.
func (b *fetches) deliver(peer devices.NodeID, c *blobChunk) (wanted bool) {
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

func (b *fetches) expect(w blobWait) (got chan blobChunk, forget func()) {
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

// PutBlob stores bytes here and gives their name. Refer to it by a record or a log entry
// within ten minutes: what nothing refers to is dropped. A second node fetches a copy.
func (m *Mesh) PutBlob(data []byte) (records.BlobRef, error) {
	ref := records.BlobRef{Hash: sha256.Sum256(data), Size: uint32(min(len(data), records.MaxBlob+1))} //nolint:gosec // bounded
	return ref, m.blobs.Put(ref.Hash, data, devices.NodeID{})
}

// Blob returns the bytes of a blob, from here or from a node that has it; they are
// checked against the hash. It gives ErrNoBlob when nobody who can be reached has it.
func (m *Mesh) Blob(ctx context.Context, hash [32]byte) ([]byte, error) {
	if data, ok := m.blobs.Read(hash); ok {
		return data, nil
	}
	select {
	case m.fetch.slots <- struct{}{}:
		defer func() { <-m.fetch.slots }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	return m.fetchFirst(ctx, hash, m.ranked(hash, m.table.Refs()[hash].Writers))
}

// ranked lists the members that can be reached, and this node, in the order in which
// they should hold a blob: who refers to it first, then by a hash that all agree on.
func (m *Mesh) ranked(hash [32]byte, writers []devices.NodeID) []devices.NodeID {
	live := []devices.NodeID{m.self}
	for _, f := range m.overlayFlows() {
		live = append(live, f.key.peer)
	}
	rank := func(id devices.NodeID) []byte {
		sum := sha256.Sum256(slices.Concat(hash[:], id[:]))
		if slices.Contains(writers, id) {
			return append([]byte{0}, sum[:]...)
		}
		return append([]byte{1}, sum[:]...)
	}
	slices.SortFunc(live, func(a, b devices.NodeID) int { return bytes.Compare(rank(a), rank(b)) })
	return live
}

// fetchFirst asks one node after the other.
func (m *Mesh) fetchFirst(ctx context.Context, hash [32]byte, from []devices.NodeID) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchWait)
	defer cancel()
	for _, id := range from {
		f := m.flow(id, trust.ALPNOverlay)
		if f == nil {
			continue
		}
		data, err := m.fetchFrom(ctx, f, hash)
		if err == nil {
			return data, nil
		}
		if ctx.Err() != nil {
			return nil, fmt.Errorf("%w: %w", ErrNoBlob, ctx.Err())
		}
		if !errors.Is(err, ErrNoBlob) {
			m.complain(id, "a blob that is not what was asked for", err)
		}
	}
	return nil, ErrNoBlob
}

func (m *Mesh) fetchFrom(ctx context.Context, f *flow, hash [32]byte) ([]byte, error) {
	var out []byte
	for {
		c, err := m.askPiece(ctx, f, blobWant{hash, uint32(len(out))}) //nolint:gosec // at most records.MaxBlob
		switch {
		case err != nil:
			return nil, err
		case c.Total == 0:
			return nil, ErrNoBlob
		case c.Total > records.MaxBlob || len(c.Data) == 0 || len(out)+len(c.Data) > int(c.Total) || len(c.Data) > records.BlobPiece:
			return nil, errFrame
		}
		out = append(out, c.Data...)
		if len(out) < int(c.Total) {
			continue
		}
		if sha256.Sum256(out) != hash { // check: blob hash
			return nil, errors.New("its hash is another")
		}
		return out, nil
	}
}

func (m *Mesh) askPiece(ctx context.Context, f *flow, w blobWant) (blobChunk, error) {
	got, forget := m.fetch.expect(blobWait{f.key.peer, w})
	defer forget()
	f.send(frame{Kind: frameWant, Want: &w})
	t := time.NewTimer(pieceWait)
	defer t.Stop()
	select {
	case c := <-got:
		return c, nil
	case <-t.C:
		return blobChunk{}, ErrNoBlob
	case <-f.ctx.Done():
		return blobChunk{}, ErrNoBlob
	case <-ctx.Done():
		return blobChunk{}, ctx.Err()
	}
}

// serveBlob answers one want. Who asks faster than it reads waits.
func (m *Mesh) serveBlob(f *flow, w *blobWant) {
	if w == nil || f.out.queued() > maxQueued/2 {
		return
	}
	c := blobChunk{Hash: w.Hash, Offset: w.Offset}
	if size, ok := m.blobs.Size(w.Hash); ok && w.Offset < size && w.Offset%records.BlobPiece == 0 {
		data, err := m.blobs.Piece(w.Hash, w.Offset)
		if err == nil && len(data) > 0 {
			c.Total, c.Data = size, data
		}
	}
	f.fines += len(c.Data) / pieceCost
	f.send(frame{Kind: frameChunk, Chunk: &c})
}

// keepBlobs fetches copies that this node should hold and drops what nothing refers to.
func (m *Mesh) keepBlobs() {
	every := time.NewTicker(lookForBlobs)
	defer every.Stop()
	for {
		select {
		case <-m.ctx.Done():
			return
		case <-every.C:
		case <-m.fetch.wake:
			t := time.NewTimer(settleBlobs)
			select {
			case <-m.ctx.Done():
			case <-t.C:
			}
			t.Stop()
		}
		refs := m.table.Refs()
		m.trouble("cannot drop blobs that nothing refers to", m.blobs.Sweep(refs, time.Now()))
		m.fetchCopies(refs)
	}
}

func (m *Mesh) fetchCopies(refs map[[32]byte]records.BlobUse) {
	tried := map[devices.NodeID]int{}
	for hash, use := range refs { // map order: no writer's references come first for ever
		ranked := m.ranked(hash, use.Writers)
		at := slices.Index(ranked, m.self)
		if _, ok := m.blobs.Size(hash); ok || at >= blobHolders || m.ctx.Err() != nil || use.Size > records.MaxBlob {
			continue
		}
		owners := slices.DeleteFunc(slices.Clone(use.Writers), func(w devices.NodeID) bool { return tried[w] >= fetchesPerWriter })
		if len(owners) == 0 {
			continue
		}
		tried[owners[0]]++
		m.fetch.slots <- struct{}{}
		data, err := m.fetchFirst(m.ctx, hash, ranked)
		<-m.fetch.slots
		for _, owner := range owners { // whoever refers to it and has room here
			if err == nil || errors.Is(err, records.ErrBlobQuota) {
				err = m.blobs.Put(hash, data, owner)
			}
		}
		if err != nil {
			m.log.Debug("cannot hold a copy of a blob", "owners", owners, "err", err)
		}
	}
}
