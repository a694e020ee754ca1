package records

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/hallway-home/hallway/devices"
	"github.com/hallway-home/hallway/devices/trust"
)

// writer is a table of one member of a home with others in its roster.
type writer struct {
	*Table
	key *ecdsa.PrivateKey
	log *trust.Log
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func newStore(t testing.TB) *devices.Store {
	t.Helper()
	s, err := devices.OpenStore(t.TempDir(), devices.StoreOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// reopen is the table that stands in a store, as another start finds it.
func (w writer) reopen(t testing.TB, change func(*Config)) *Table {
	t.Helper()
	cfg := w.cfg
	if change != nil {
		change(&cfg)
	}
	again, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return again
}

func newWriters(t testing.TB) (a, b writer) {
	t.Helper()
	make1 := func() (writer, *devices.Store) {
		s := newStore(t)
		log, err := trust.OpenLog(s)
		if err != nil {
			t.Fatal(err)
		}
		return writer{key: newKey(t), log: log}, s
	}
	open := func(w *writer, s *devices.Store) {
		tb, err := Open(Config{Key: w.key, Roster: w.log.Roster, Store: s})
		if err != nil {
			t.Fatal(err)
		}
		w.Table = tb
	}
	a, storeA := make1()
	b, storeB := make1()
	if _, err := a.log.Create(a.key, trust.CreateParams{Name: "a"}); err != nil {
		t.Fatal(err)
	}
	if _, err := a.log.Admit(a.key, trust.Candidate{Key: devices.CompressedKey(&b.key.PublicKey), Name: "b"}); err != nil {
		t.Fatal(err)
	}
	if err := b.log.Adopt(a.log.Edits(), a.log.Roster().Home, devices.NodeIDOf(&b.key.PublicKey)); err != nil {
		t.Fatal(err)
	}
	open(&a, storeA)
	open(&b, storeB)
	return a, b
}

// onlooker is another table of the same home, of a key that writes nothing.
func (w writer) onlooker(t testing.TB) *Table {
	t.Helper()
	return w.reopen(t, func(c *Config) { c.Key, c.Store = newKey(t), newStore(t) })
}

// accept takes one record as it comes from a peer.
func (t *Table) accept(s Signed) (Record, error) {
	switch x := t.Take([]Signed{s}); {
	case x.Err != nil:
		return Record{}, x.Err
	case len(x.New) == 0:
		return Record{}, errStale
	default:
		return x.New[0].Record, nil
	}
}

// all lists the registers with tombstones and expired ones.
func (t *Table) all() []stored { return slices.Collect(maps.Values(t.records)) }

func body(t testing.TB, v any) []byte {
	t.Helper()
	b, err := Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (w writer) say(t testing.TB, v any) Signed {
	t.Helper()
	p, err := w.Write(Statement{Kind: KindDevice, Body: v})
	if err != nil {
		t.Fatal(err)
	}
	return p.Signed
}

// seal signs a record of this writer by hand.
func (w writer) sign(t testing.TB, change func(*Record)) Signed {
	t.Helper()
	r := Record{Version: 1, Home: w.log.Roster().Home, Subject: w.self.String(), Kind: "device", Writer: w.self, Epoch: 1, Sequence: 1, Body: body(t, 1)}
	change(&r)
	s, err := seal(w.key, r)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestRecordSignatureIsChecked(t *testing.T) {
	a, b := newWriters(t)
	s := a.say(t, "true")
	forged := Signed{bytes.Replace(s.Raw, []byte("true"), []byte("lies"), 1), s.Sig}
	if _, err := b.accept(forged); !errors.Is(err, ErrSignature) {
		t.Fatalf("a forged record gave %v", err)
	}
	if len(b.all()) != 0 {
		t.Fatal("a forged record is stored")
	}
	if _, err := b.accept(s); err != nil {
		t.Fatal(err)
	}
}

func TestRecordSizeIsChecked(t *testing.T) {
	a, b := newWriters(t)
	big := strings.Repeat("x", MaxRecord)
	if _, err := a.Write(Statement{Kind: "device", Body: big}); !errors.Is(err, ErrSize) {
		t.Fatalf("a record too large to send was made: %v", err)
	}
	r := Record{Version: 1, Home: a.log.Roster().Home, Subject: a.self.String(), Kind: "device", Writer: a.self, Epoch: 1, Sequence: 1, Body: body(t, big)}
	raw := body(t, r)
	sig, err := trust.SignRaw(a.key, raw)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.accept(Signed{raw, sig}); !errors.Is(err, ErrSize) {
		t.Fatalf("a record of %d bytes gave %v", len(raw), err)
	}
}

func TestRecordRules(t *testing.T) {
	a, b := newWriters(t)
	seal := func(key *ecdsa.PrivateKey, f func(*Record)) Signed {
		r := Record{Version: 1, Home: a.log.Roster().Home, Subject: a.self.String(), Kind: "device", Writer: a.self, Epoch: 1, Sequence: 7, Body: body(t, 1)}
		f(&r)
		s, err := seal(key, r)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	for name, c := range map[string]struct {
		s    Signed
		want error
	}{
		"about somebody else":     {seal(a.key, func(r *Record) { r.Subject = b.self.String() }), ErrWriter},
		"in another's name":       {seal(b.key, func(r *Record) { r.Sequence = 9 }), ErrSignature},
		"by a stranger":           {seal(newKey(t), func(r *Record) { r.Writer = devices.NodeID{9}; r.Subject = r.Writer.String() }), ErrWriter},
		"of another home":         {seal(a.key, func(r *Record) { r.Home[0]++ }), ErrHome},
		"of a version unknown":    {seal(a.key, func(r *Record) { r.Version = 2 }), ErrForm},
		"garbage":                 {Signed{[]byte("garbage"), make([]byte, 64)}, ErrForm},
		"newest":                  {seal(a.key, func(*Record) {}), nil},
		"older, by sequence":      {seal(a.key, func(r *Record) { r.Sequence = 6 }), errStale},
		"newer epoch, less count": {seal(a.key, func(r *Record) { r.Epoch, r.Sequence = 2, 1 }), nil},
		"unknown kinds are kept":  {seal(a.key, func(r *Record) { r.Kind = "weather" }), nil},
	} {
		if name == "older, by sequence" || name == "newer epoch, less count" {
			continue // order matters: below
		}
		if _, err := b.accept(c.s); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	if _, err := b.accept(seal(a.key, func(r *Record) { r.Sequence = 6 })); !errors.Is(err, errStale) {
		t.Errorf("an older record: %v", err)
	}
	if _, err := b.accept(seal(a.key, func(r *Record) { r.Epoch, r.Sequence = 2, 1 })); err != nil {
		t.Errorf("a newer epoch: %v", err)
	}
}

func TestEquivocationKeepsTheLowerHashEverywhere(t *testing.T) {
	a, b := newWriters(t)
	var pair []Signed
	for _, v := range []string{"one", "two"} {
		s, err := seal(a.key, Record{Version: 1, Home: a.log.Roster().Home, Subject: a.self.String(), Kind: "device", Writer: a.self, Epoch: 1, Sequence: 1, Body: body(t, v)})
		if err != nil {
			t.Fatal(err)
		}
		pair = append(pair, s)
	}
	_, _ = b.accept(pair[0])
	_, _ = b.accept(pair[1])
	first := b.all()[0].signed.hash()
	if !b.flagged[a.self] {
		t.Error("the writer is not flagged")
	}
	delete(b.records, b.all()[0].rec.key())
	_, _ = b.accept(pair[1])
	_, _ = b.accept(pair[0])
	if b.all()[0].signed.hash() != first {
		t.Error("the order of arrival decides")
	}
}

func TestKeysPerWriterAreBounded(t *testing.T) {
	a, b := newWriters(t)
	for i := range MaxKeysPerWriter + 1 {
		kind := fmt.Sprintf("kind %d", i)
		_, err := a.Write(Statement{Kind: kind, Body: i})
		if full := i >= MaxKeysPerWriter; full != errors.Is(err, ErrKeys) {
			t.Fatalf("writing record %d: %v", i, err)
		}
		_, err = b.accept(a.sign(t, func(r *Record) { r.Kind = kind }))
		if full := i >= MaxKeysPerWriter; full != errors.Is(err, ErrKeys) {
			t.Fatalf("taking record %d: %v", i, err)
		}
	}
}

func TestRestartKeepsRecordsAndCount(t *testing.T) {
	a, _ := newWriters(t)
	a.say(t, 1)
	a.say(t, 2)
	p, err := a.reopen(t, nil).Write(Statement{Kind: KindDevice, Body: 3})
	if err != nil || p.Record.Sequence != 3 {
		t.Fatalf("%+v %v", p.Record, err)
	}
}

// A node whose store lost its tail hears of its own newer record and starts a new epoch:
// with what it said since it started, or else with what it had said.
func TestLostSequenceRaisesTheEpoch(t *testing.T) {
	for now, want := range map[string]string{"after": "after", "": "before the tail was lost"} {
		a, _ := newWriters(t)
		a.say(t, "long before")
		later := a.sign(t, func(r *Record) { r.Sequence, r.Body = 9, body(t, "before the tail was lost") })
		again := a.reopen(t, nil) // with the older store
		if now != "" {
			if _, err := again.Write(Statement{Kind: KindDevice, Body: now}); err != nil {
				t.Fatal(err)
			}
		}
		x := again.Take([]Signed{later})
		if x.Err != nil || len(x.New) != 0 || len(x.Renewed) != 1 {
			t.Fatalf("the peer's copy: %+v", x)
		}
		r := x.Renewed[0].Record
		if r.Epoch != 2 || r.Sequence != 1 || string(r.Body) != string(body(t, want)) {
			t.Errorf("renewed as %q, %d, %d; want %q", r.Body, r.Epoch, r.Sequence, want)
		}
		if x := again.Take([]Signed{later}); len(x.New)+len(x.Renewed)+x.Refused != 0 {
			t.Errorf("it is renewed again: %+v", x)
		}
	}
}

func FuzzRecord(f *testing.F) {
	a, b := newWriters(f)
	s := a.say(f, "x")
	f.Add(s.Raw, s.Sig)
	f.Fuzz(func(t *testing.T, raw, sig []byte) {
		if bytes.Equal(raw, s.Raw) {
			return
		}
		if _, err := b.accept(Signed{raw, sig}); err == nil {
			t.Fatal("a record that nobody signed was accepted")
		}
	})
}
