package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"fmt"
	"math"
	"net/netip"
	"time"

	"github.com/hallway-home/hallway/devices"
	"github.com/hallway-home/hallway/devices/trust"
)

func overlayBouts() []bout {
	return []bout{
		{name: "forged records", run: forgedRecords},
		{name: "equivocation", run: equivocation},
		{name: "highest sequence", run: highest},
		{name: "record flood", run: recordFlood},
		{name: "edit flood", run: editFlood},
		{name: "own edits", run: ownEdits},
		{name: "stale heads", run: staleHeads},
		{name: "stale heads, not reading", deaf: true, run: staleHeads},
		{name: "lies about what others wrote", run: digestLies},
		{name: "log and blob flood", run: logFlood},
		{name: "lies about the time", run: clockLies},
		{name: "broken frames", run: brokenFrames},
	}
}

// about makes a record that would be good if the writer had signed it.
func (a *assault) about(id devices.NodeID, kind string, sequence uint64) record {
	body := encode(devices.DeviceRecord{Version: "forged", Addrs: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.66:5061")}})
	return record{Version: 1, Home: a.me.roster.Home, Subject: id.String(), Kind: kind, Writer: id, Epoch: 9, Sequence: sequence, Body: body}
}

func (a *assault) records(r ...signed) error {
	return a.write(frameOf(kindRecords, encode(frame{Records: r})))
}

// forgedRecords writes for others: in their name, or in its own about them.
func forgedRecords(_ context.Context, a *assault) error {
	for _, m := range a.me.others() {
		inTheirName := sign(a.me.key, a.about(m.Node, "device", 1000))
		aboutThem := a.about(m.Node, "device", 1000)
		aboutThem.Writer = a.me.id
		moved := a.about(a.me.id, "device", 1000)
		moved.Home[0] ^= 1
		if err := a.records(inTheirName, sign(a.me.key, aboutThem), sign(a.me.key, moved)); err != nil {
			return err
		}
	}
	return nil
}

// equivocation says two things under one number.
func equivocation(_ context.Context, a *assault) error {
	seq := uint64(2000 + a.round)
	for i := range 2 {
		r := a.about(a.me.id, "device", seq)
		r.TTL = uint32(i)
		if err := a.records(sign(a.me.key, r)); err != nil {
			return err
		}
	}
	return nil
}

// highest leaves no number after its own.
func highest(_ context.Context, a *assault) error {
	for i := range 3 {
		r := a.about(a.me.id, "device", math.MaxUint64)
		r.Epoch, r.TTL = math.MaxUint64, uint32(i)
		if err := a.records(sign(a.me.key, r)); err != nil {
			return err
		}
	}
	return nil
}

// recordFlood writes as many records under as many names as it can.
func recordFlood(ctx context.Context, a *assault) error {
	for i := 0; ctx.Err() == nil && i < 4000; i++ {
		if err := a.records(sign(a.me.key, a.about(a.me.id, fmt.Sprintf("kind-%d", i%200), uint64(a.round*10_000+i)))); err != nil {
			return err
		}
	}
	return nil
}

// edits of the roster, as many as one frame holds.
func (a *assault) edits(e []signed) error {
	return a.write(frameOf(kindEdits, encode(frame{Edits: e})))
}

// edit is a removal of somebody, as an owner would write it.
func (a *assault) edit(signer devices.NodeID, subject devices.NodeID, parent [32]byte) trust.Edit {
	homeKey := make([]byte, 32)
	_, _ = rand.Read(homeKey)
	return trust.Edit{Version: 1, Home: a.me.roster.Home, Parents: []trust.Hash{parent}, Op: trust.OpRemove, Signer: signer, Node: subject, HomeKey: homeKey}
}

// editFlood claims that owners removed others, with signatures that do not fit, and hangs
// edits on parents that do not exist.
func editFlood(ctx context.Context, a *assault) error {
	var owner devices.NodeID
	for id, m := range a.me.roster.Members {
		if m.Role == devices.RoleOwner {
			owner = id
		}
	}
	var batch []signed
	for i, m := range a.me.others() {
		for j := range 60 {
			parent := a.me.roster.Heads[0]
			if j%2 == 1 {
				parent = [32]byte{byte(i), byte(j), byte(a.round)}
			}
			batch = append(batch, sign(a.me.key, a.edit(owner, m.Node, parent)))
		}
	}
	for i := 0; ctx.Err() == nil && i < 40; i++ {
		if err := a.edits(batch); err != nil {
			return err
		}
	}
	return nil
}

// ownEdits changes the home without being an owner: removes all others, makes itself an
// owner, admits a friend; and repeats the first edit.
func ownEdits(_ context.Context, a *assault) error {
	head := a.me.roster.Heads[0]
	var batch []signed
	for _, m := range a.me.others() {
		batch = append(batch, sign(a.me.key, a.edit(a.me.id, m.Node, head)))
	}
	friend, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	for _, key := range [][]byte{devices.CompressedKey(&friend.PublicKey), devices.CompressedKey(&a.me.key.PublicKey)} {
		batch = append(batch, sign(a.me.key, trust.Edit{
			Version: 1, Home: a.me.roster.Home, Parents: []trust.Hash{head}, Op: trust.OpAdmit, Signer: a.me.id,
			Key: key, Role: devices.RoleOwner, Class: devices.ClassTV, Name: "Friend",
		}))
	}
	for _, e := range a.me.edits {
		batch = append(batch, signed{e.Raw, e.Sig}, signed{e.Raw, make([]byte, 64)})
	}
	return a.edits(batch)
}

// staleHeads asks for everything again and again.
func staleHeads(ctx context.Context, a *assault) error {
	for i := 0; ctx.Err() == nil && i < 4000; i++ {
		head := [32]byte{byte(i), byte(i >> 8), 7}
		if err := a.write(append(frameOf(kindHello, encode(frame{Heads: [][32]byte{head}})), a.me.giveMe()...)); err != nil {
			return err
		}
	}
	return nil
}

// digestLies says that it has newer records of others, and withholds them; and that it has
// records of thousands who do not exist.
func digestLies(ctx context.Context, a *assault) error {
	var sums []writerSum
	var states []writerState
	for _, m := range a.me.others() {
		sums = append(sums, writerSum{Writer: m.Node, Sum: [8]byte{byte(a.round)}})
		newer := registerState{Kind: "device", Subject: m.Node.String(), Epoch: math.MaxUint64, Sequence: math.MaxUint64}
		states = append(states, writerState{Writer: m.Node, Registers: []registerState{newer}, First: 1, Count: 1 << 40})
	}
	for i := range 2000 {
		sums = append(sums, writerSum{Writer: devices.NodeID{byte(i), byte(i >> 8), 1}})
	}
	for i := 0; ctx.Err() == nil && i < 100; i++ {
		b := frameOf(kindDigest, encode(frame{Digest: sums}))
		if err := a.write(append(b, frameOf(kindState, encode(frame{State: states, More: true}))...)); err != nil {
			return err
		}
	}
	return nil
}

// logFlood writes log entries: far ahead, out of order, in the name of others; and asks
// for blobs that nobody has, and sends pieces that nobody asked for.
func logFlood(ctx context.Context, a *assault) error {
	for i := 0; ctx.Err() == nil && i < 1500; i++ {
		writer := a.me.id
		if i%3 == 0 {
			writer = a.me.others()[0].Node
		}
		r := a.about(writer, "call", uint64(i*i)+1)
		r.Shape, r.Epoch = 1, 0
		f := frame{Records: []signed{sign(a.me.key, r)}, More: true}
		b := frameOf(kindLog, encode(f))
		b = append(b, frameOf(kindWant, encode(frame{Want: &piece{Hash: [32]byte{byte(i)}}}))...)
		b = append(b, frameOf(kindChunk, encode(frame{Chunk: &piece{Hash: [32]byte{byte(i)}, Total: 1 << 30, Data: make([]byte, 1000)}}))...)
		if err := a.write(b); err != nil {
			return err
		}
	}
	return nil
}

// clockLies says that it is the year 2200, and 1970.
func clockLies(_ context.Context, a *assault) error {
	for _, ms := range []int64{7_258_118_400_000, 1, -1, math.MaxInt64, math.MinInt64} {
		if err := a.write(frameOf(kindPing, encode(frame{Clock: ms}))); err != nil {
			return err
		}
	}
	return nil
}

// brokenFrames are of unknown kind, not CBOR, empty, half, and too long.
func brokenFrames(_ context.Context, a *assault) error {
	noise := make([]byte, 200<<10)
	_, _ = rand.Read(noise)
	broken := [][]byte{
		frameOf(200, noise), frameOf(kindPing, noise), frameOf(kindHello, noise[:100]), frameOf(kindRecords, []byte{0xa1, 0x05, 0x9f}),
		frameOf(kindRecords, []byte{0xa1, 0x05, 0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}), {0, 0, 0, 0, 5}, {0xff, 0xff, 0xff, 0xff, 5}, {0, 3, 0xff, 0xff, 5, 1},
	}
	err := a.write(broken[a.round/10%len(broken)])
	time.Sleep(50 * time.Millisecond)
	return err
}
