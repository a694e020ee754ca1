package overlay

import (
	"bytes"
	"crypto/ecdsa"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/hallway-home/hallway/devices"
	"github.com/hallway-home/hallway/devices/trust"
)

// writer is a table of one member of a home with others in its roster.
type writer struct {
	*table
	key *ecdsa.PrivateKey
	log *trust.Log
}

func newWriters(t testing.TB) (a, b writer) {
	t.Helper()
	make1 := func() writer {
		s, err := devices.OpenStore(t.TempDir(), devices.StoreOptions{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() })
		log, err := trust.OpenLog(s)
		if err != nil {
			t.Fatal(err)
		}
		return writer{key: strangerKey(t), log: log, table: &table{store: s}}
	}
	open := func(w *writer) {
		tb, err := openTable(w.store, devices.NodeIDOf(&w.key.PublicKey), w.log.Roster, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		w.table = tb
	}
	a, b = make1(), make1()
	if _, err := a.log.Create(a.key, trust.CreateParams{Name: "a"}); err != nil {
		t.Fatal(err)
	}
	if _, err := a.log.Admit(a.key, trust.Candidate{Key: devices.CompressedKey(&b.key.PublicKey), Name: "b"}); err != nil {
		t.Fatal(err)
	}
	if err := b.log.Adopt(a.log.Edits(), a.log.Roster().Home, devices.NodeIDOf(&b.key.PublicKey)); err != nil {
		t.Fatal(err)
	}
	open(&a)
	open(&b)
	return a, b
}

func body(t testing.TB, v any) []byte {
	t.Helper()
	b, err := marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (w writer) say(t testing.TB, v any) Signed {
	t.Helper()
	s, err := w.write(w.key, draft{kind: "device", body: body(t, v)})
	if err != nil {
		t.Fatal(err)
	}
	return s.signed
}

// seal signs a record of this writer by hand.
func (w writer) seal(t testing.TB, change func(*Record)) Signed {
	t.Helper()
	r := Record{Version: 1, Home: w.log.Roster().Home, Subject: w.self.String(), Kind: "device", Writer: w.self, Epoch: 1, Sequence: 1, Body: body(t, 1)}
	change(&r)
	s, err := sealRecord(w.key, r)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestRecordSignatureIsChecked(t *testing.T) {
	a, b := newWriters(t)
	s := a.say(t, "true")
	forged := Signed{bytes.Replace(s.Raw, []byte("true"), []byte("lies"), 1), s.Sig}
	if _, _, err := b.accept(forged); !errors.Is(err, ErrRecordSignature) {
		t.Fatalf("a forged record gave %v", err)
	}
	if len(b.all()) != 0 {
		t.Fatal("a forged record is stored")
	}
	if _, _, err := b.accept(s); err != nil {
		t.Fatal(err)
	}
}

func TestRecordSizeIsChecked(t *testing.T) {
	a, b := newWriters(t)
	big := body(t, strings.Repeat("x", MaxRecord))
	if _, err := a.write(a.key, draft{kind: "device", body: big}); !errors.Is(err, ErrRecordSize) {
		t.Fatalf("a record too large to send was made: %v", err)
	}
	r := Record{Version: 1, Home: a.log.Roster().Home, Subject: a.self.String(), Kind: "device", Writer: a.self, Epoch: 1, Sequence: 1, Body: big}
	raw := body(t, r)
	sig, err := trust.SignRaw(a.key, raw)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := b.accept(Signed{raw, sig}); !errors.Is(err, ErrRecordSize) {
		t.Fatalf("a record of %d bytes gave %v", len(raw), err)
	}
}

func TestRecordRules(t *testing.T) {
	a, b := newWriters(t)
	seal := func(key *ecdsa.PrivateKey, f func(*Record)) Signed {
		r := Record{Version: 1, Home: a.log.Roster().Home, Subject: a.self.String(), Kind: "device", Writer: a.self, Epoch: 1, Sequence: 7, Body: body(t, 1)}
		f(&r)
		s, err := sealRecord(key, r)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	for name, c := range map[string]struct {
		s    Signed
		want error
	}{
		"about somebody else":     {seal(a.key, func(r *Record) { r.Subject = b.self.String() }), ErrRecordWriter},
		"in another's name":       {seal(b.key, func(r *Record) { r.Sequence = 9 }), ErrRecordSignature},
		"by a stranger":           {seal(strangerKey(t), func(r *Record) { r.Writer = devices.NodeID{9}; r.Subject = r.Writer.String() }), ErrRecordWriter},
		"of another home":         {seal(a.key, func(r *Record) { r.Home[0]++ }), ErrRecordHome},
		"of a version unknown":    {seal(a.key, func(r *Record) { r.Version = 2 }), ErrRecordForm},
		"garbage":                 {Signed{[]byte("garbage"), make([]byte, 64)}, ErrRecordForm},
		"newest":                  {seal(a.key, func(*Record) {}), nil},
		"older, by sequence":      {seal(a.key, func(r *Record) { r.Sequence = 6 }), errStale},
		"newer epoch, less count": {seal(a.key, func(r *Record) { r.Epoch, r.Sequence = 2, 1 }), nil},
		"unknown kinds are kept":  {seal(a.key, func(r *Record) { r.Kind = "weather" }), nil},
	} {
		if name == "older, by sequence" || name == "newer epoch, less count" {
			continue // order matters: below
		}
		if _, _, err := b.accept(c.s); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	if _, _, err := b.accept(seal(a.key, func(r *Record) { r.Sequence = 6 })); !errors.Is(err, errStale) {
		t.Errorf("an older record: %v", err)
	}
	if _, _, err := b.accept(seal(a.key, func(r *Record) { r.Epoch, r.Sequence = 2, 1 })); err != nil {
		t.Errorf("a newer epoch: %v", err)
	}
}

func TestEquivocationKeepsTheLowerHashEverywhere(t *testing.T) {
	a, b := newWriters(t)
	var pair []Signed
	for _, v := range []string{"one", "two"} {
		s, err := sealRecord(a.key, Record{Version: 1, Home: a.log.Roster().Home, Subject: a.self.String(), Kind: "device", Writer: a.self, Epoch: 1, Sequence: 1, Body: body(t, v)})
		if err != nil {
			t.Fatal(err)
		}
		pair = append(pair, s)
	}
	_, c := newWriters(t) // another table, of another home: only its comparison is used
	_ = c
	_, _, _ = b.accept(pair[0])
	_, _, _ = b.accept(pair[1])
	first := b.all()[0].signed.hash()
	if !b.flagged[a.self] {
		t.Error("the writer is not flagged")
	}
	delete(b.records, b.all()[0].rec.key())
	_, _, _ = b.accept(pair[1])
	_, _, _ = b.accept(pair[0])
	if b.all()[0].signed.hash() != first {
		t.Error("the order of arrival decides")
	}
}

func TestKeysPerWriterAreBounded(t *testing.T) {
	a, b := newWriters(t)
	for i := range MaxKeysPerWriter + 1 {
		kind := fmt.Sprintf("kind %d", i)
		_, err := a.write(a.key, draft{kind: kind, body: body(t, i)})
		if full := i >= MaxKeysPerWriter; full != errors.Is(err, ErrRecordKeys) {
			t.Fatalf("writing record %d: %v", i, err)
		}
		_, _, err = b.accept(a.seal(t, func(r *Record) { r.Kind = kind }))
		if full := i >= MaxKeysPerWriter; full != errors.Is(err, ErrRecordKeys) {
			t.Fatalf("taking record %d: %v", i, err)
		}
	}
}

func TestRestartKeepsRecordsAndCount(t *testing.T) {
	a, _ := newWriters(t)
	a.say(t, 1)
	a.say(t, 2)
	again, err := openTable(a.store, a.self, a.log.Roster, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	s, err := again.write(a.key, draft{kind: "device", body: body(t, 3)})
	if err != nil || s.rec.Sequence != 3 {
		t.Fatalf("%+v %v", s.rec, err)
	}
}

// A node whose store lost its tail hears of its own newer record and starts a new epoch:
// with what it said since it started, or else with what it had said.
func TestLostSequenceRaisesTheEpoch(t *testing.T) {
	for now, want := range map[string]string{"after": "after", "": "before the tail was lost"} {
		a, _ := newWriters(t)
		a.say(t, "long before")
		later := a.seal(t, func(r *Record) { r.Sequence, r.Body = 9, body(t, "before the tail was lost") })
		again, err := openTable(a.store, a.self, a.log.Roster, a.table.log) // with the older store
		if err != nil {
			t.Fatal(err)
		}
		if now != "" {
			if _, err := again.write(a.key, draft{kind: "device", body: body(t, now)}); err != nil {
				t.Fatal(err)
			}
		}
		_, lost, err := again.accept(later)
		if err != nil || lost == nil {
			t.Fatalf("the peer's copy: %v, lost %v", err, lost)
		}
		s, err := again.write(a.key, draft{kind: lost.Kind, body: lost.Body, raiseEpoch: true})
		if err != nil || s.rec.Epoch != 2 || s.rec.Sequence != 1 || string(s.rec.Body) != string(body(t, want)) {
			t.Errorf("renewed as %q, %d, %d, %v; want %q", s.rec.Body, s.rec.Epoch, s.rec.Sequence, err, want)
		}
	}
}

func TestFrames(t *testing.T) {
	f := frame{Kind: frameHello, Heads: []trust.Hash{{1}}, Reply: true}
	b, err := encodeFrame(f)
	if err != nil {
		t.Fatal(err)
	}
	got, n, err := readFrame(bytes.NewReader(b))
	if err != nil || n != len(b) || !reflect.DeepEqual(f, got) {
		t.Fatalf("%+v %v", got, err)
	}
	if _, _, err := readFrame(bytes.NewReader([]byte{0xff, 0xff, 0xff, 0xff, 1})); !errors.Is(err, errFrame) {
		t.Fatalf("a frame of 4 GiB: %v", err)
	}
	if _, err := encodeFrame(frame{Kind: frameRecords, Records: []Signed{{Raw: make([]byte, MaxFrame)}}}); !errors.Is(err, errFrame) {
		t.Fatal(err)
	}
	if got, _, err := readFrame(bytes.NewReader([]byte{0, 0, 0, 2, 99, 0})); err != nil || got.Kind != 99 {
		t.Fatalf("a kind unknown must be skipped: %v", err)
	}
}

// fuzzFrames is one frame of each kind.
func fuzzFrames(a writer) []frame {
	return []frame{
		{Kind: framePing}, {Kind: framePing, Clock: 1 << 40}, {Kind: frameHello, Heads: []trust.Hash{{1}}, Reply: true, Clock: 1},
		{Kind: frameEdits, Edits: a.log.Edits()}, {Kind: frameDigest, Digest: a.sums()}, {Kind: frameState, State: a.state([]devices.NodeID{a.self})},
		{Kind: frameRecords, Records: []Signed{{[]byte{1}, []byte{2}}}, More: true}, {Kind: frameLog, Records: []Signed{{[]byte{1}, []byte{2}}}},
		{Kind: frameWant, Want: &blobWant{Offset: 1}}, {Kind: frameChunk, Chunk: &blobChunk{Data: []byte{1}}},
		{Kind: frameState, State: []writerState{{Writer: a.self, First: math.MaxUint64, Count: math.MaxUint64, Blocks: make([][8]byte, 2)}}},
	}
}

func FuzzFrame(f *testing.F) {
	a, _ := newWriters(f)
	a.say(f, 1)
	for i := range 70 {
		a.append1(f, i)
	}
	for _, fr := range fuzzFrames(a) {
		b, err := encodeFrame(fr)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		fr, n, err := readFrame(bytes.NewReader(b))
		if err != nil {
			return
		}
		if n > len(b) {
			t.Fatalf("%d bytes were counted of %d", n, len(b))
		}
		for _, s := range fr.Records {
			if _, err := openRecord(s, nil); err == nil {
				t.Fatal("a record was accepted without a home")
			}
		}
		r := a.lacking(fr.State)
		size := 0
		for _, s := range slices.Concat(r.records, r.entries) {
			size += len(s.Raw) + len(s.Sig)
		}
		if size > maxExchange {
			t.Fatalf("an answer of %d bytes", size)
		}
		if list := a.differing(fr.Digest); len(list) > len(a.log.Roster().Members) {
			t.Fatalf("a digest makes %d writers differ", len(list))
		}
	})
}

func FuzzRecord(f *testing.F) {
	a, b := newWriters(f)
	s := a.say(f, "x")
	f.Add(s.Raw, s.Sig)
	f.Fuzz(func(t *testing.T, raw, sig []byte) {
		if bytes.Equal(raw, s.Raw) {
			return
		}
		if _, _, err := b.accept(Signed{raw, sig}); err == nil {
			t.Fatal("a record that nobody signed was accepted")
		}
	})
}
