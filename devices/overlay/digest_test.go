package overlay

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hallway-home/hallway/devices"
)

func TestDigestNamesWhatIsLacking(t *testing.T) {
	a, b := newWriters(t)
	a.say(t, 1)
	b.say(t, 1)
	if _, bodies := exchange(t, a.table, b.table); bodies != 2 {
		t.Fatalf("%d records moved", bodies)
	}
	if d := a.differing(b.sums()); len(d) != 0 {
		t.Fatalf("equal tables differ in %v", d)
	}
	a.say(t, 2)
	r := b.lacking(a.state([]devices.NodeID{a.self}))
	if len(r.records) != 0 || len(r.ask) != 1 {
		t.Fatalf("the older one sends %d, asks for %d", len(r.records), len(r.ask))
	}
	if r := a.lacking(b.state([]devices.NodeID{a.self})); len(r.records) != 1 || len(r.ask) != 0 {
		t.Fatalf("the newer one sends %d, asks for %d", len(r.records), len(r.ask))
	}
}

// crowd is a home of n members whose tables are one: each has keys registers.
func crowd(t testing.TB, n, keys int) *table {
	a, _ := newWriters(t)
	roster := *a.log.Roster()
	roster.Members = map[devices.NodeID]devices.Member{}
	tb, err := openTable(a.store, a.self, func() *devices.Roster { return &roster }, a.table.log)
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		w := writer{key: strangerKey(t), log: a.log, table: &table{}}
		w.self = devices.NodeIDOf(&w.key.PublicKey)
		roster.Members[w.self] = devices.Member{Node: w.self, Key: devices.CompressedKey(&w.key.PublicKey), Slug: fmt.Sprint(i)}
		for k := range keys {
			s := w.seal(t, func(r *Record) {
				r.Kind, r.Sequence, r.Body = fmt.Sprintf("%030d", k), 1<<60, body(t, strings.Repeat("x", 700))
			})
			if _, _, err := tb.accept(s); err != nil {
				t.Fatal(err)
			}
		}
	}
	return tb
}

// The worst home there may be, 64 nodes with 32 large records each, is exchanged in
// bounded frames.
func TestDigestsOfALargeHomeAreBounded(t *testing.T) {
	full := crowd(t, 64, MaxKeysPerWriter)
	sums, err := encodeFrame(frame{Kind: frameDigest, Digest: full.sums()})
	if err != nil || len(sums) > 4<<10 {
		t.Fatalf("one line for each of 64 writers takes %d bytes, %v", len(sums), err)
	}
	empty, err := openTable(newNode(t, "empty").cfg.Store, full.self, full.roster, full.log)
	if err != nil {
		t.Fatal(err)
	}
	f := &flow{out: outbox{ready: make(chan struct{}, 1)}, cancel: func() { t.Error("the flow was cut off") }}
	f.sendState(full.state(full.differing(nil)), false)
	if n := f.out.queued(); n > maxExchange || n < maxExchange/2 {
		t.Fatalf("all states take %d bytes", n)
	}
	for _, b := range f.out.list {
		if len(b) > frameTarget+4<<10 {
			t.Fatalf("a frame of %d bytes", len(b))
		}
	}
	rounds := 0
	for ; len(empty.differing(full.sums())) > 0; rounds++ {
		r := full.lacking(empty.state(empty.differing(full.sums())))
		n := 0
		for _, s := range r.records {
			n += signedSize(s)
			if _, _, err := empty.accept(s); err != nil {
				t.Fatal(err)
			}
		}
		if n > maxExchange+64<<10 || len(r.records) == 0 {
			t.Fatalf("round %d brings %d records, %d bytes", rounds, len(r.records), n)
		}
		if more := len(empty.differing(full.sums())) > 0; more && !r.more {
			t.Fatal("a cut answer does not say that there is more")
		}
	}
	t.Logf("%d exchanges", rounds)
}

func TestRecordThatRanOutLeavesAndDoesNotComeBack(t *testing.T) {
	a, b := newWriters(t)
	s, err := a.write(a.key, draft{kind: "guest", body: body(t, 1), ttl: 60})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := b.accept(s.signed); err != nil {
		t.Fatal(err)
	}
	if err := b.flush(); err != nil {
		t.Fatal(err)
	}
	stored := func() (n int) {
		_ = b.store.View(func(tx devices.Tx) error {
			return tx.Each(devices.BucketRecords, func(string, []byte) error { n++; return nil })
		})
		return n
	}
	if out := b.expire(time.Now().Add(59 * time.Second)); len(out) != 0 || stored() != 1 {
		t.Fatalf("%d ran out too early", len(out))
	}
	if out := b.expire(time.Now().Add(61 * time.Second)); len(out) != 1 {
		t.Fatalf("%d ran out", len(out))
	}
	if err := b.flush(); err != nil || stored() != 0 {
		t.Fatalf("%d are left on disk, %v", stored(), err)
	}
	exchange(t, a.table, b.table)
	if !b.all()[0].expired {
		t.Fatal("a peer that has it longer brought it back")
	}
	if r := b.lacking(nil); len(r.records) != 0 {
		t.Fatal("what ran out is still sent")
	}
	// The writer retracts its own: all agree then.
	if out := a.expire(time.Now().Add(61 * time.Second)); len(out) != 1 {
		t.Fatal("the writer does not notice")
	}
	if _, err := a.write(a.key, draft{kind: "guest", body: tombstone}); err != nil {
		t.Fatal(err)
	}
	exchange(t, a.table, b.table)
	if x := b.all()[0]; x.expired || !x.rec.Gone() || x.rec.Sequence != 2 || !slices.Equal(a.sums(), b.sums()) {
		t.Fatalf("%+v", x.rec)
	}
	if b.expire(time.Now().Add(1e6*time.Hour)) != nil {
		t.Fatal("a tombstone ran out")
	}
}

// One writer cannot change things faster than 20 times a second, whoever relays it, and
// the last state arrives nevertheless.
func TestChangesOfOneWriterAreLimited(t *testing.T) {
	a, b := newWriters(t)
	var last Signed
	taken := 0
	for i := range 500 {
		last = a.seal(t, func(r *Record) { r.Sequence, r.Body = uint64(i+1), body(t, i) })
		if _, _, err := b.accept(last); err == nil {
			taken++
		}
	}
	if taken < registerBurst || taken > registerBurst+50 {
		t.Fatalf("%d of 500 changes at once were taken", taken)
	}
	b.rates[a.self].registers.at = time.Now().Add(-time.Second)
	if _, _, err := b.accept(last); err != nil {
		t.Fatal(err)
	}
}

func TestUnknownKeysAndKindsArePassedOn(t *testing.T) {
	a, b := newWriters(t)
	r := map[int]any{
		1: 1, 2: a.log.Roster().Home, 3: a.self.String(), 4: "weather", 5: a.self, 6: uint64(1), 7: uint64(1), 8: 0, 9: [32]byte{}, 10: "rain", 77: "later",
	}
	raw := body(t, r)
	s, err := sealRaw(a.key, raw)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := b.accept(s); err != nil {
		t.Fatal(err)
	}
	exchange(t, a.table, b.table)
	if got := a.all(); len(got) != 1 || string(got[0].signed.Raw) != string(raw) {
		t.Fatalf("passed on: %+v", got)
	}
}
