package records

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/hallway-home/hallway/devices"
	"github.com/hallway-home/hallway/devices/trust"
)

// exchangeBudget is what one exchange may bring, in bytes (conventions).
const exchangeBudget = 256 << 10

// exchange plays the three steps of a digest between two tables until neither has
// anything to send, as two meshes do, and gives how many exchanges and bodies it took.
func exchange(t testing.TB, a, b *Table) (rounds, bodies int) {
	t.Helper()
	for ; rounds < 100; rounds++ {
		moved := 0
		for _, pair := range [][2]*Table{{a, b}, {b, a}} {
			asks, has := pair[0], pair[1]
			r := has.Lacking(asks.State(asks.Differing(has.Sums())), exchangeBudget)
			x := asks.Take(slices.Concat(r.Registers, r.Entries))
			if x.Err != nil {
				t.Fatal(x.Err)
			}
			moved += len(x.New) + len(x.Renewed)
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
	p, err := w.Append("call", v)
	if err != nil {
		t.Fatal(err)
	}
	return p.Signed
}

// inOrder checks that a log has no gaps, and gives its ends.
func inOrder(t testing.TB, w *Table) (first, last uint64) {
	t.Helper()
	list, err := w.Entries("")
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
	if x := b.Take([]Signed{all[2], all[0]}); x.Err != nil || len(x.New) != 1 {
		t.Fatalf("of 3 and 1, 1 is taken and 3 waits behind a gap: %+v", x)
	}
	exchange(t, a.Table, b.Table)
	if first, last := inOrder(t, b.Table); first != 1 || last != 3 {
		t.Fatalf("after the exchange b has %d to %d", first, last)
	}
	for i := range MaxEntries + 20 {
		a.append1(t, i)
	}
	if first, last := inOrder(t, a.Table); first != 24 || last != 523 {
		t.Fatalf("a keeps %d to %d", first, last)
	}
	exchange(t, a.Table, b.Table) // b lacks 4 to 23, which nobody has any more
	if first, last := inOrder(t, b.Table); first != 24 || last != 523 {
		t.Fatalf("b caught up to %d to %d", first, last)
	}
	if rounds, _ := exchange(t, a.Table, b.Table); rounds != 0 {
		t.Fatal("equal logs are exchanged again")
	}
	if !slices.Equal(b.reopen(t, nil).Sums(), b.Sums()) {
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
	if x := b.Take(all[:10]); x.Err != nil {
		t.Fatal(x.Err)
	}
	if x := b.Take(all[20:]); x.Err != nil || len(x.New) != 0 {
		t.Fatalf("entries behind a gap were taken: %+v", x)
	}
	if first, last := inOrder(t, b.Table); first != 1 || last != 10 {
		t.Fatalf("b has %d to %d", first, last)
	}
}

func (w writer) signEntry(t testing.TB, seq, epoch uint64, v any) Signed {
	return w.sign(t, func(r *Record) {
		r.Shape, r.Kind, r.Sequence, r.Epoch, r.Body = ShapeLog, "call", seq, epoch, body(t, v)
	})
}

// Two entries under one number: all keep the same one, whichever came first, also deep
// inside a long log.
func TestLogEquivocationConverges(t *testing.T) {
	a, b := newWriters(t)
	c := b.onlooker(t)
	for i := range 200 {
		s := a.signEntry(t, uint64(i+1), 1, i)
		other := s
		if i == 70 {
			other = a.signEntry(t, uint64(i+1), 1, "something else")
		}
		for Table, entry := range map[*Table]Signed{c: s, b.Table: other} {
			if x := Table.Take([]Signed{entry}); x.Err != nil {
				t.Fatal(x.Err)
			}
		}
	}
	if slices.Equal(c.Sums(), b.Sums()) {
		t.Fatal("the difference does not show in the sums")
	}
	exchange(t, c, b.Table)
	if !slices.Equal(c.Sums(), b.Sums()) || !c.flagged[a.self] && !b.flagged[a.self] {
		t.Fatal("they do not agree, or nobody was flagged")
	}
	if first, last := inOrder(t, b.Table); first != 1 || last != 200 {
		t.Fatalf("%d to %d", first, last)
	}
}

// A writer whose store lost its tail and who used numbers twice loses no entry: it says
// what gave way again, under a new epoch.
func TestLogWriterThatLostItsTailLosesNothing(t *testing.T) {
	a, b := newWriters(t)
	for i := range 5 { // b heard five, of which a remembers three
		s := a.signEntry(t, uint64(i+1), 1, i)
		if x := b.Take([]Signed{s}); x.Err != nil {
			t.Fatal(x.Err)
		}
		if i < 3 {
			if x := a.Take([]Signed{s}); x.Err != nil {
				t.Fatal(x.Err)
			}
		}
	}
	a.append1(t, "new")
	r := b.Lacking(a.State(a.Differing(b.Sums())), exchangeBudget)
	var again []Proven
	for range 3 { // from several peers
		x := a.Take(append(slices.Clone(r.Entries), b.heldEntries(t)...))
		if x.Err != nil {
			t.Fatal(x.Err)
		}
		again = append(again, x.Renewed...)
	}
	if len(again) < 1 || len(again) > 2 { // what gave way, and where that is the new one, the fifth behind it
		t.Fatalf("%d entries were said again", len(again))
	}
	exchange(t, a.Table, b.Table)
	list, err := b.Entries("call")
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

// What a writer says after it lost its tail stays whole and in its order, whichever of two entries
// of one number gives way, and however many there are.
func TestLogKeepsItsOrderAfterALostTail(t *testing.T) {
	for _, was := range []int{1, 2, 3, 5} {
		for range 8 { // the hashes decide, and they are new each time
			a, b := newWriters(t)
			var before []Signed
			for i := range was {
				before = append(before, a.signEntry(t, uint64(i+1), 1, fmt.Sprintf("before %d", i)))
			}
			if x := b.Take(before); x.Err != nil {
				t.Fatal(x.Err)
			}
			want := []string{"one", "two", "three"}
			for _, body := range want {
				a.append1(t, body)
			}
			exchange(t, a.Table, b.Table)
			a.append1(t, "four")
			exchange(t, a.Table, b.Table)
			want = append(want, "four")
			for _, w := range []*Table{a.Table, b.Table} {
				inOrder(t, w)
				list, err := w.Entries("call")
				if err != nil {
					t.Fatal(err)
				}
				var since []string
				for _, r := range list {
					var body string
					if err := Unmarshal(r.Body, &body); err != nil {
						t.Fatal(err)
					}
					if !strings.HasPrefix(body, "before") {
						since = append(since, body)
					}
				}
				if !slices.Equal(since, want) {
					t.Fatalf("after %d lost ones: %v", was, since)
				}
			}
		}
	}
}

func (t *Table) heldEntries(tb testing.TB) []Signed {
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
	exchange(t, a.Table, b.Table)
	if err := a.log.Remove(a.key, a.log.Roster().Members[b.self].Slug); err != nil {
		t.Fatal(err)
	}
	if err := a.Forget(); err != nil {
		t.Fatal(err)
	}
	if list, err := a.Entries(""); err != nil || len(list) != 0 || len(a.all()) != 0 {
		t.Fatalf("%d entries and %d records are left, %v", len(list), len(a.all()), err)
	}
}

// What a crash between a removal and the clearing left on disk is cleared by the next.
func TestRemovedWritersLeaveTheDisk(t *testing.T) {
	a, b := newWriters(t)
	if _, err := b.accept(a.say(t, 1)); err != nil {
		t.Fatal(err)
	}
	if err := b.Flush(); err != nil {
		t.Fatal(err)
	}
	alone := *b.log.Roster()
	alone.Members = map[devices.NodeID]devices.Member{}
	again := b.reopen(t, func(c *Config) { c.Roster = func() *devices.Roster { return &alone } })
	count := func() (n int) {
		_ = b.cfg.Store.View(func(tx devices.Tx) error {
			return tx.Each(devices.BucketRecords, func(string, []byte) error { n++; return nil })
		})
		return n
	}
	if count() != 1 || len(again.all()) != 0 {
		t.Fatalf("%d on disk, %d in memory", count(), len(again.all()))
	}
	if err := again.Forget(); err != nil || count() != 0 {
		t.Fatalf("%d are left, %v", count(), err)
	}
}

func FuzzLogEntry(f *testing.F) {
	a, b := newWriters(f)
	s := a.append1(f, "x")
	f.Add(s.Raw, s.Sig)
	f.Add(a.signEntry(f, 1<<62, 1, 1).Raw, s.Sig)
	f.Fuzz(func(t *testing.T, raw, sig []byte) {
		if string(raw) == string(s.Raw) {
			return
		}
		if x := b.Take([]Signed{{raw, sig}}); len(x.New) > 0 {
			if r, err := parse(x.New[0].Signed); err != nil || !trust.VerifyRaw(&a.key.PublicKey, raw, sig) {
				t.Fatalf("a log entry that nobody signed was accepted: %+v", r)
			}
		}
	})
}
