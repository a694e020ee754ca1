package overlay

import (
	"log/slog"
	"slices"
	"testing"

	"github.com/hallway-home/hallway/devices"
	"github.com/hallway-home/hallway/devices/trust"
)

// exchange plays the three steps of a digest between two tables until neither has
// anything to send, as two meshes do, and gives how many exchanges and bodies it took.
func exchange(t testing.TB, a, b *table) (rounds, bodies int) {
	t.Helper()
	for ; rounds < 100; rounds++ {
		moved := 0
		for _, pair := range [][2]*table{{a, b}, {b, a}} {
			asks, has := pair[0], pair[1]
			r := has.lacking(asks.state(asks.differing(has.sums())))
			for _, s := range r.records {
				if _, _, err := asks.accept(s); err == nil {
					moved++
				}
			}
			taken, _, _, err := asks.acceptLog(r.entries)
			if err != nil {
				t.Fatal(err)
			}
			moved += len(taken)
		}
		if bodies += moved; moved == 0 {
			return rounds, bodies
		}
	}
	t.Fatal("two nodes exchange records for ever")
	return
}

func (w writer) append1(t testing.TB, v any) Signed {
	t.Helper()
	_, s, err := w.append(w.key, draft{kind: "call", body: body(t, v)})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// inOrder checks that a log has no gaps, and gives its ends.
func inOrder(t testing.TB, w *table) (first, last uint64) {
	t.Helper()
	list, err := w.entries("")
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range list {
		if r.Sequence != list[0].Sequence+uint64(i) {
			t.Fatalf("entry %d has number %d after %d", i, r.Sequence, list[0].Sequence)
		}
	}
	if len(list) == 0 {
		return 0, 0
	}
	return list[0].Sequence, list[len(list)-1].Sequence
}

func TestLogIsOrderedBoundedAndRepaired(t *testing.T) {
	a, b := newWriters(t)
	var all []Signed
	for i := range 3 {
		all = append(all, a.append1(t, i))
	}
	if taken, _, _, err := b.acceptLog([]Signed{all[2], all[0]}); err != nil || len(taken) != 1 {
		t.Fatalf("of 3 and 1, 1 is taken and 3 waits behind a gap: %d %v", len(taken), err)
	}
	exchange(t, a.table, b.table)
	if first, last := inOrder(t, b.table); first != 1 || last != 3 {
		t.Fatalf("after the exchange b has %d to %d", first, last)
	}
	for i := range MaxEntries + 20 {
		a.append1(t, i)
	}
	if first, last := inOrder(t, a.table); first != 24 || last != 523 {
		t.Fatalf("a keeps %d to %d", first, last)
	}
	exchange(t, a.table, b.table) // b lacks 4 to 23, which nobody has any more
	if first, last := inOrder(t, b.table); first != 24 || last != 523 {
		t.Fatalf("b caught up to %d to %d", first, last)
	}
	if rounds, _ := exchange(t, a.table, b.table); rounds != 0 {
		t.Fatal("equal logs are exchanged again")
	}
	again, err := openTable(b.store, b.self, b.log.Roster, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(again.sums(), b.sums()) {
		t.Fatal("a restart changes the log")
	}
}

// A peer that withholds entries cannot make others drop what they have: only what the
// writer signed proves that older entries have fallen off.
func TestLogGapNeedsProof(t *testing.T) {
	a, b := newWriters(t)
	var all []Signed
	for i := range 40 {
		all = append(all, a.append1(t, i))
	}
	if _, _, _, err := b.acceptLog(all[:10]); err != nil {
		t.Fatal(err)
	}
	if taken, _, _, err := b.acceptLog(all[20:]); err != nil || len(taken) != 0 {
		t.Fatalf("entries behind a gap were taken: %d %v", len(taken), err)
	}
	if first, last := inOrder(t, b.table); first != 1 || last != 10 {
		t.Fatalf("b has %d to %d", first, last)
	}
}

func TestLogEntryIsNoRegisterAndTheReverse(t *testing.T) {
	a, b := newWriters(t)
	entry, register := a.append1(t, 1), a.say(t, 1)
	if _, _, err := b.accept(entry); err == nil {
		t.Fatal("a log entry was taken as a register")
	}
	if taken, _, _, err := b.acceptLog([]Signed{register}); err == nil || len(taken) > 0 {
		t.Fatal("a register was taken as a log entry")
	}
}

func (w writer) sealEntry(t testing.TB, seq, epoch uint64, v any) Signed {
	return w.seal(t, func(r *Record) {
		r.Shape, r.Kind, r.Sequence, r.Epoch, r.Body = ShapeLog, "call", seq, epoch, body(t, v)
	})
}

// Two entries under one number: all keep the same one, whichever came first, also deep
// inside a long log.
func TestLogEquivocationConverges(t *testing.T) {
	a, b := newWriters(t)
	for i := range 200 {
		s := a.sealEntry(t, uint64(i+1), 1, i)
		other := s
		if i == 70 {
			other = a.sealEntry(t, uint64(i+1), 1, "something else")
		}
		for table, entry := range map[*table]Signed{a.table: s, b.table: other} {
			if _, _, _, err := table.acceptLog([]Signed{entry}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if slices.Equal(a.sums(), b.sums()) {
		t.Fatal("the difference does not show in the sums")
	}
	exchange(t, a.table, b.table)
	if !slices.Equal(a.sums(), b.sums()) || !a.flagged[a.self] && !b.flagged[a.self] {
		t.Fatal("they do not agree, or nobody was flagged")
	}
	if first, last := inOrder(t, b.table); first != 1 || last != 200 {
		t.Fatalf("%d to %d", first, last)
	}
}

// A writer whose store lost its tail and who used numbers twice loses no entry: it says
// what gave way again, under a new epoch.
func TestLogWriterThatLostItsTailLosesNothing(t *testing.T) {
	a, b := newWriters(t)
	for i := range 5 { // b heard five, of which a remembers three
		s := a.sealEntry(t, uint64(i+1), 1, i)
		if _, _, _, err := b.acceptLog([]Signed{s}); err != nil {
			t.Fatal(err)
		}
		if i < 3 {
			if _, _, _, err := a.acceptLog([]Signed{s}); err != nil {
				t.Fatal(err)
			}
		}
	}
	a.append1(t, "new")
	r := b.lacking(a.state(a.differing(b.sums())))
	var redo []Record
	for range 3 { // from several peers
		_, _, again, err := a.acceptLog(append(slices.Clone(r.entries), b.heldEntries(t)...))
		if err != nil {
			t.Fatal(err)
		}
		redo = append(redo, again...)
	}
	if len(redo) != 1 {
		t.Fatalf("%d entries are to be said again, want one", len(redo))
	}
	for _, x := range redo {
		if _, _, err := a.append(a.key, draft{kind: x.Kind, body: x.Body, raiseEpoch: true}); err != nil {
			t.Fatal(err)
		}
	}
	exchange(t, a.table, b.table)
	list, err := b.entries("call")
	if err != nil || len(list) != 6 || list[5].Epoch != 2 {
		t.Fatalf("%d entries, %v", len(list), err)
	}
	said := map[string]bool{}
	for _, r := range list {
		said[string(r.Body)] = true
	}
	if len(said) != 6 {
		t.Fatalf("%d different things are left of six", len(said))
	}
}

func (t *table) heldEntries(tb testing.TB) []Signed {
	tb.Helper()
	budget := 1 << 30
	var out []Signed
	for w, l := range t.logs {
		list, _ := t.span(w, l.first, l.last(), &budget)
		out = append(out, list...)
	}
	return out
}

func TestLogOfARemovedMemberIsForgotten(t *testing.T) {
	a, b := newWriters(t)
	b.append1(t, 1)
	b.say(t, 1)
	exchange(t, a.table, b.table)
	if err := a.log.Remove(a.key, a.log.Roster().Members[b.self].Slug); err != nil {
		t.Fatal(err)
	}
	if err := a.forget(); err != nil {
		t.Fatal(err)
	}
	if list, err := a.entries(""); err != nil || len(list) != 0 || len(a.all()) != 0 {
		t.Fatalf("%d entries and %d records are left, %v", len(list), len(a.all()), err)
	}
}

// What a crash between a removal and the clearing left on disk is cleared by the next.
func TestRemovedWritersLeaveTheDisk(t *testing.T) {
	a, b := newWriters(t)
	if _, _, err := b.accept(a.say(t, 1)); err != nil {
		t.Fatal(err)
	}
	if err := b.flush(); err != nil {
		t.Fatal(err)
	}
	alone := *b.log.Roster()
	alone.Members = map[devices.NodeID]devices.Member{}
	again, err := openTable(b.store, b.self, func() *devices.Roster { return &alone }, b.table.log)
	if err != nil {
		t.Fatal(err)
	}
	count := func() (n int) {
		_ = b.store.View(func(tx devices.Tx) error {
			return tx.Each(devices.BucketRecords, func(string, []byte) error { n++; return nil })
		})
		return n
	}
	if count() != 1 || len(again.all()) != 0 {
		t.Fatalf("%d on disk, %d in memory", count(), len(again.all()))
	}
	if err := again.forget(); err != nil || count() != 0 {
		t.Fatalf("%d are left, %v", count(), err)
	}
}

func FuzzLogEntry(f *testing.F) {
	a, b := newWriters(f)
	s := a.append1(f, "x")
	f.Add(s.Raw, s.Sig)
	f.Add(a.sealEntry(f, 1<<62, 1, 1).Raw, s.Sig)
	f.Fuzz(func(t *testing.T, raw, sig []byte) {
		if string(raw) == string(s.Raw) {
			return
		}
		if taken, _, _, _ := b.acceptLog([]Signed{{raw, sig}}); len(taken) > 0 {
			if r, err := parseRecord(taken[0]); err != nil || !trust.VerifyRaw(&a.key.PublicKey, raw, sig) {
				t.Fatalf("a log entry that nobody signed was accepted: %+v", r)
			}
		}
	})
}
