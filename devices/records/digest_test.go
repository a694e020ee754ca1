package records

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hallway-home/hallway/devices"
)

func TestDigestNamesWhatIsLacking(t *testing.T) {
	a, b := newWriters(t)
	a.say(t, 1)
	b.say(t, 1)
	if _, bodies := exchange(t, a.Table, b.Table); bodies != 2 {
		t.Fatalf("%d records moved", bodies)
	}
	if d := a.Differing(b.Sums()); len(d) != 0 {
		t.Fatalf("equal tables differ in %v", d)
	}
	a.say(t, 2)
	r := b.Lacking(a.State([]devices.NodeID{a.self}), exchangeBudget)
	if len(r.Registers) != 0 || len(r.Ask) != 1 {
		t.Fatalf("the older one sends %d, asks for %d", len(r.Registers), len(r.Ask))
	}
	if r := a.Lacking(b.State([]devices.NodeID{a.self}), exchangeBudget); len(r.Registers) != 1 || len(r.Ask) != 0 {
		t.Fatalf("the newer one sends %d, asks for %d", len(r.Registers), len(r.Ask))
	}
}

// crowd is a home of n members whose tables are one: each has keys registers.
func crowd(t testing.TB, n, keys int) *Table {
	a, _ := newWriters(t)
	roster := *a.log.Roster()
	roster.Members = map[devices.NodeID]devices.Member{}
	tb := a.reopen(t, func(c *Config) { c.Roster = func() *devices.Roster { return &roster } })
	for i := range n {
		w := writer{key: newKey(t), log: a.log, Table: &Table{}}
		w.self = devices.NodeIDOf(&w.key.PublicKey)
		roster.Members[w.self] = devices.Member{Node: w.self, Key: devices.CompressedKey(&w.key.PublicKey), Slug: fmt.Sprint(i)}
		for k := range keys {
			s := w.sign(t, func(r *Record) {
				r.Kind, r.Sequence, r.Body = fmt.Sprintf("%030d", k), 1<<60, body(t, strings.Repeat("x", 700))
			})
			if _, err := tb.accept(s); err != nil {
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
	if sums, err := Marshal(full.Sums()); err != nil || len(sums) > 4<<10 {
		t.Fatalf("one line for each of 64 writers takes %d bytes, %v", len(sums), err)
	}
	empty := writer{Table: full}.onlooker(t)
	for _, st := range full.State(full.Differing(nil)) {
		if b, err := Marshal(st); err != nil || len(b) > st.Size()+st.Size()/8 || len(b) < st.Size()/2 {
			t.Fatalf("a state of %d bytes counts as %d, %v", len(b), st.Size(), err)
		}
	}
	rounds := 0
	for ; len(empty.Differing(full.Sums())) > 0; rounds++ {
		r := full.Lacking(empty.State(empty.Differing(full.Sums())), exchangeBudget)
		n := 0
		for _, s := range r.Registers {
			n += s.Size()
			if _, err := empty.accept(s); err != nil {
				t.Fatal(err)
			}
		}
		if n > exchangeBudget+64<<10 || len(r.Registers) == 0 {
			t.Fatalf("round %d brings %d records, %d bytes", rounds, len(r.Registers), n)
		}
		if more := len(empty.Differing(full.Sums())) > 0; more && !r.More {
			t.Fatal("a cut answer does not say that there is more")
		}
	}
	t.Logf("%d exchanges", rounds)
}

func TestRecordThatRanOutLeavesAndDoesNotComeBack(t *testing.T) {
	a, b := newWriters(t)
	s, err := a.Write(Statement{Kind: "guest", Body: 1, TTL: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.accept(s.Signed); err != nil {
		t.Fatal(err)
	}
	if err := b.Flush(); err != nil {
		t.Fatal(err)
	}
	stored := func() (n int) {
		_ = b.cfg.Store.View(func(tx devices.Tx) error {
			return tx.Each(devices.BucketRecords, func(string, []byte) error { n++; return nil })
		})
		return n
	}
	gone := b.Watch(t.Context(), ShapeRegister)
	if out := b.Expire(time.Now().Add(59 * time.Second)); len(out) != 0 || len(gone) != 0 || stored() != 1 {
		t.Fatal("it ran out too early")
	}
	if out := b.Expire(time.Now().Add(61 * time.Second)); len(out) != 0 || len(gone) != 1 || len(b.Records()) != 0 {
		t.Fatalf("%d of others are to be retracted, %d said to be gone", len(out), len(gone))
	}
	if r := <-gone; !r.Gone() {
		t.Fatal("who watches is not told that it is gone")
	}
	if err := b.Flush(); err != nil || stored() != 0 {
		t.Fatalf("%d are left on disk, %v", stored(), err)
	}
	exchange(t, a.Table, b.Table)
	if !b.all()[0].expired {
		t.Fatal("a peer that has it longer brought it back")
	}
	if r := b.Lacking([]State{{Writer: a.self}}, exchangeBudget); len(r.Registers) != 0 {
		t.Fatal("what ran out is still sent")
	}
	// The writer retracts its own: all agree then.
	if out := a.Expire(time.Now().Add(61 * time.Second)); len(out) != 1 {
		t.Fatal("the writer does not notice")
	}
	if _, err := a.Write(Statement{Kind: "guest"}); err != nil {
		t.Fatal(err)
	}
	exchange(t, a.Table, b.Table)
	if x := b.all()[0]; x.expired || !x.rec.Gone() || x.rec.Sequence != 2 || !slices.Equal(a.Sums(), b.Sums()) {
		t.Fatalf("%+v", x.rec)
	}
	if b.Expire(time.Now().Add(1e6*time.Hour)) != nil {
		t.Fatal("a tombstone ran out")
	}
}

// One writer cannot change things faster than 20 times a second, whoever relays it, and
// the last state arrives nevertheless.
func TestChangesOfOneWriterAreLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newWriters(t)
		var last Signed
		taken := 0
		for i := range 500 {
			last = a.sign(t, func(r *Record) { r.Sequence, r.Body = uint64(i+1), body(t, i) })
			if _, err := b.accept(last); err == nil {
				taken++
			}
		}
		if taken != registerBurst {
			t.Fatalf("%d of 500 changes at once were taken", taken)
		}
		if _, err := b.accept(last); !errors.Is(err, ErrRate) {
			t.Fatal(err)
		}
		time.Sleep(time.Second / changesPerSecond)
		if _, err := b.accept(last); err != nil {
			t.Fatal(err)
		}
	})
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
	if _, err := b.accept(s); err != nil {
		t.Fatal(err)
	}
	c := b.onlooker(t)
	exchange(t, b.Table, c)
	if got := c.all(); len(got) != 1 || string(got[0].signed.Raw) != string(raw) {
		t.Fatalf("passed on: %+v", got)
	}
}
