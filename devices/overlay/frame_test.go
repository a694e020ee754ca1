package overlay

import (
	"bytes"
	"errors"
	"io"
	"math"
	"reflect"
	"slices"
	"testing"

	"github.com/hallway-home/hallway/devices"
	"github.com/hallway-home/hallway/devices/records"
	"github.com/hallway-home/hallway/devices/trust"
)

// readDecoded reads one frame with its size.
func readDecoded(r io.Reader) (frame, int, error) {
	raw, err := readFrame(r)
	if err != nil {
		return frame{}, 0, err
	}
	fr, err := raw.decode()
	return fr, raw.size(), err
}

func TestFrames(t *testing.T) {
	f := frame{Kind: frameHello, Heads: []trust.Hash{{1}}, Reply: true}
	b, err := encodeFrame(f)
	if err != nil {
		t.Fatal(err)
	}
	got, n, err := readDecoded(bytes.NewReader(b))
	if err != nil || n != len(b) || !reflect.DeepEqual(f, got) {
		t.Fatalf("%+v %v", got, err)
	}
	if _, _, err := readDecoded(bytes.NewReader([]byte{0xff, 0xff, 0xff, 0xff, 1})); !errors.Is(err, errFrame) {
		t.Fatalf("a frame of 4 GiB: %v", err)
	}
	if _, err := encodeFrame(frame{Kind: frameRecords, Records: []records.Signed{{Raw: make([]byte, MaxFrame)}}}); !errors.Is(err, errFrame) {
		t.Fatal(err)
	}
	if got, _, err := readDecoded(bytes.NewReader([]byte{0, 0, 0, 2, 99, 0})); err != nil || got.Kind != 99 {
		t.Fatalf("a kind unknown must be skipped: %v", err)
	}
}

// fuzzFrames is one frame of each kind.
func fuzzFrames(a *node) []frame {
	return []frame{
		{Kind: framePing}, {Kind: framePing, Clock: 1 << 40}, {Kind: frameHello, Heads: []trust.Hash{{1}}, Reply: true, Clock: 1},
		{Kind: frameEdits, Edits: a.log.Edits()}, {Kind: frameDigest, Digest: a.table.Sums()}, {Kind: frameState, State: a.table.State([]devices.NodeID{a.self})},
		{Kind: frameRecords, Records: []records.Signed{{Raw: []byte{1}, Sig: []byte{2}}}, More: true}, {Kind: frameLog, Records: []records.Signed{{Raw: []byte{1}, Sig: []byte{2}}}},
		{Kind: frameWant, Want: &blobWant{Offset: 1}}, {Kind: frameChunk, Chunk: &blobChunk{Data: []byte{1}}},
		{Kind: frameState, State: []records.State{{Writer: a.self, First: math.MaxUint64, Count: math.MaxUint64, Blocks: make([][8]byte, 2)}}},
	}
}

func FuzzFrame(f *testing.F) {
	a := home(f, 1)[0]
	for i := range 70 {
		if err := errors.Join(a.Publish(records.KindDevice, i), a.Append("call", i)); err != nil {
			f.Fatal(err)
		}
	}
	for _, fr := range fuzzFrames(a) {
		b, err := encodeFrame(fr)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		fr, n, err := readDecoded(bytes.NewReader(b))
		if err != nil {
			return
		}
		if n > len(b) {
			t.Fatalf("%d bytes were counted of %d", n, len(b))
		}
		if x := a.table.Take(fr.Records); len(x.New) > 0 {
			t.Fatal("a record that nobody signed was accepted")
		}
		r := a.table.Lacking(fr.State, maxExchange)
		size := 0
		for _, s := range slices.Concat(r.Registers, r.Entries) {
			size += len(s.Raw) + len(s.Sig)
		}
		if size > maxExchange {
			t.Fatalf("an answer of %d bytes", size)
		}
		if list := a.table.Differing(fr.Digest); len(list) > len(a.log.Roster().Members) {
			t.Fatalf("a digest makes %d writers differ", len(list))
		}
	})
}

// All that one may say about what it has goes out in bounded frames, and no more than one
// exchange may take.
func TestStatesAreCutIntoFrames(t *testing.T) {
	registers := make([]records.RegisterState, records.MaxKeysPerWriter)
	for i := range registers {
		registers[i] = records.RegisterState{Kind: "a kind of thirty bytes, or near", Subject: devices.NodeID{}.String(), Epoch: 1 << 40, Sequence: 1 << 60}
	}
	var all []records.State
	for i := range DefaultMaxPeers {
		all = append(all, records.State{Writer: devices.NodeID{byte(i)}, Registers: registers, First: 1 << 40, Count: records.MaxEntries, Blocks: make([][8]byte, 9)})
	}
	f := &flow{out: outbox{ready: make(chan struct{}, 1)}, cancel: func() { t.Error("the flow was cut off") }}
	f.sendState(all, false)
	if n := f.out.queued(); n > maxExchange || n < maxExchange/2 {
		t.Fatalf("all states take %d bytes", n)
	}
	for _, b := range f.out.list {
		if len(b) > frameTarget+4<<10 {
			t.Fatalf("a frame of %d bytes", len(b))
		}
	}
}
