package records

import (
	"bytes"
	"crypto/ecdsa"
	"errors"
	"maps"
	"reflect"
	"strings"
	"testing"

	"github.com/fxamacker/cbor/v2"

	"github.com/hallway-home/hallway/devices"
	"github.com/hallway-home/hallway/devices/trust"
)

func sealRaw(key *ecdsa.PrivateKey, raw []byte) (Signed, error) {
	sig, err := trust.SignRaw(key, raw)
	return Signed{raw, sig}, err
}

// withPhone lets both homes know a person with one phone.
func withPhone(t testing.TB, a, b *writer) *ecdsa.PrivateKey {
	t.Helper()
	phone := newKey(t)
	r := *a.log.Roster()
	r.Persons = map[string]devices.Person{"eve": {Slug: "eve", Nodes: []devices.NodeID{devices.NodeIDOf(&phone.PublicKey)}}}
	for _, w := range []*writer{a, b} {
		w.Table = w.reopen(t, func(c *Config) { c.Roster = func() *devices.Roster { return &r } })
	}
	return phone
}

func TestBindingNeedsThePhonesSignature(t *testing.T) {
	a, b := newWriters(t)
	phone := withPhone(t, &a, &b)
	id := devices.NodeIDOf(&phone.PublicKey)
	bind := func(key *ecdsa.PrivateKey, node devices.NodeID) []byte {
		raw, err := SealBinding(key, Binding{Node: node, Binding: "flow-1", Fingerprints: [][]byte{make([]byte, 32)}, Sequence: 1})
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	say := func(subject devices.NodeID, raw []byte) Signed {
		return a.sign(t, func(r *Record) { r.Subject, r.Kind, r.Body = subject.String(), KindBinding, raw })
	}
	changed := bind(phone, a.self)
	changed[len(changed)-1]++
	stranger := newKey(t)
	strangerID := devices.NodeIDOf(&stranger.PublicKey)
	for name, s := range map[string]Signed{
		"signed by another key":       say(id, bind(stranger, a.self)),
		"of a phone that nobody owns": say(strangerID, bind(stranger, a.self)),
		"with another node":           say(id, bind(phone, b.self)),
		"with a changed signature":    say(id, changed),
		"about the node itself":       say(a.self, bind(phone, a.self)),
		"without any signature":       say(id, body(t, "x")),
		"as a log entry": a.sign(t, func(r *Record) {
			r.Subject, r.Kind, r.Body, r.Shape = id.String(), KindBinding, bind(phone, a.self), ShapeLog
		}),
		"as another kind of statement": a.sign(t, func(r *Record) { r.Subject, r.Kind, r.Body = id.String(), KindDevice, bind(phone, a.self) }),
	} {
		if _, err := b.accept(s); !errors.Is(err, ErrWriter) && !errors.Is(err, ErrForm) {
			t.Errorf("a binding %s gave %v", name, err)
		}
	}
	if len(b.all()) != 0 {
		t.Fatal("one of them was stored")
	}
	if _, err := a.Write(Statement{Subject: id.String(), Kind: KindBinding, Body: cbor.RawMessage(bind(stranger, a.self))}); err == nil {
		t.Fatal("a binding that nobody would take was written")
	}
	s, err := a.Write(Statement{Subject: id.String(), Kind: KindBinding, Body: cbor.RawMessage(bind(phone, a.self))})
	if err != nil {
		t.Fatal(err)
	}
	if r, err := b.accept(s.Signed); err != nil {
		t.Fatal(err)
	} else if got, err := openBinding(r); err != nil || got.Binding != "flow-1" {
		t.Fatalf("%+v %v", got, err)
	}
	if s, err = a.Write(Statement{Subject: id.String(), Kind: KindBinding}); err != nil {
		t.Fatal(err)
	}
	if r, err := b.accept(s.Signed); err != nil || !r.Gone() {
		t.Fatalf("a node cannot end a binding: %v", err)
	}
	// The person loses the phone: the binding goes.
	r := *b.cfg.Roster()
	r.Persons = maps.Clone(r.Persons)
	delete(r.Persons, "eve")
	b.cfg.Roster = func() *devices.Roster { return &r }
	if err := b.Forget(); err != nil || len(b.all()) != 0 {
		t.Fatalf("%d bindings are left, %v", len(b.all()), err)
	}
}

func TestForeignDeviceNeedsASpeaker(t *testing.T) {
	a, b := newWriters(t)
	for _, subject := range []string{"renderer", "", "../x", b.self.String()} {
		s := a.sign(t, func(r *Record) { r.Subject, r.Kind = subject, "foreign" })
		if _, err := b.accept(s); !errors.Is(err, ErrWriter) {
			t.Errorf("a statement about %q gave %v", subject, err)
		}
	}
	about := func(slug string) Signed {
		return a.sign(t, func(r *Record) { r.Subject, r.Kind = slug, "foreign" })
	}
	r := *b.cfg.Roster()
	r.Adopted = map[string]devices.Adopted{"renderer": {Slug: "renderer", Speakers: []devices.NodeID{a.self}}, "porch": {Slug: "porch", Speakers: []devices.NodeID{b.self}}}
	b.cfg.Roster = func() *devices.Roster { return &r }
	if _, err := b.accept(about("renderer")); err != nil {
		t.Errorf("its speaker is refused: %v", err)
	}
	if _, err := b.accept(about("porch")); !errors.Is(err, ErrWriter) {
		t.Errorf("the speaker of another thing gave %v", err)
	}
}

// What is new in a binding leaves the bytes of one without it as they were, and who writes the record may
// add that the phone is in a call, and nothing else.
func TestBindingSaysPresence(t *testing.T) {
	phone := newKey(t)
	id := devices.NodeIDOf(&phone.PublicKey)
	b := Binding{Node: devices.NodeID{1}, Binding: "flow", Fingerprints: [][]byte{make([]byte, 32)}, Sequence: 3}
	var old struct {
		Node         devices.NodeID `cbor:"1,keyasint"`
		Binding      string         `cbor:"2,keyasint"`
		Fingerprints [][]byte       `cbor:"3,keyasint"`
		Sequence     uint64         `cbor:"4,keyasint"`
	}
	old.Node, old.Binding, old.Fingerprints, old.Sequence = b.Node, b.Binding, b.Fingerprints, b.Sequence
	before, err1 := Marshal(old)
	now, err2 := Marshal(b)
	if err := errors.Join(err1, err2); err != nil || !bytes.Equal(before, now) {
		t.Errorf("a binding without a wish is another than before: %x, %x, %v", before, now, err)
	}
	for _, quiet := range []bool{false, true} {
		b.Quiet = quiet
		raw, err := SealBinding(phone, b)
		if err != nil {
			t.Fatal(err)
		}
		for _, busy := range []bool{true, false} {
			marked, err := Mark(raw, Said{Busy: busy})
			if err != nil {
				t.Fatal(err)
			}
			got, err := OpenBinding(marked, id, b.Node)
			if err != nil || got.Busy != busy || got.Quiet != quiet {
				t.Errorf("busy %v, quiet %v: %+v %v", busy, quiet, got, err)
			}
			if !busy && !bytes.Equal(marked, raw) {
				t.Errorf("a mark that was taken back is still there: %x", marked)
			}
		}
	}
}

func TestBinding_Wake(t *testing.T) {
	phone, vapid := newKey(t), newKey(t)
	id := devices.NodeIDOf(&phone.PublicKey)
	secret, err := vapid.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	long := "https://push.example/" + strings.Repeat("x", maxEndpoint-21)
	for name, tc := range map[string]struct {
		wake *Wake
		ok   bool
	}{
		"none":            {nil, true},
		"good":            {&Wake{"https://push.example/send/abc", secret}, true},
		"longest":         {&Wake{long, secret}, true},
		"too long":        {&Wake{long + "x", secret}, false},
		"no TLS":          {&Wake{"http://push.example/send/abc", secret}, false},
		"a password":      {&Wake{"https://a:b@push.example/send/abc", secret}, false},
		"no host":         {&Wake{"https:///send", secret}, false},
		"no URL":          {&Wake{"https://push.example/\x00", secret}, false},
		"a short key":     {&Wake{"https://push.example/", secret[1:]}, false},
		"zero for a key":  {&Wake{"https://push.example/", make([]byte, 32)}, false},
		"neither of both": {&Wake{}, false},
	} {
		b := Binding{Node: devices.NodeID{1}, Binding: "0123456789abcdef0123456789abcdef", Fingerprints: [][]byte{make([]byte, 32)}, Sequence: 1 << 60, Quiet: true, Wake: tc.wake}
		raw, err := SealBinding(phone, b)
		if err != nil {
			t.Fatal(err)
		}
		marked, err := Mark(raw, Said{Busy: true, Asleep: true})
		if err != nil {
			t.Fatal(err)
		}
		got, err := OpenBinding(marked, id, b.Node)
		if (err == nil) != tc.ok {
			t.Errorf("%s: %v", name, err)
		}
		if err == nil && got.Asleep != (tc.wake != nil) { // who cannot be woken is not asleep, but gone
			t.Errorf("%s: %+v", name, got)
		}
		if tc.ok && len(marked) > MaxRecord-300 {
			t.Errorf("%s: the body has %d bytes", name, len(marked))
		}
	}
}

func FuzzBinding(f *testing.F) {
	phone := newKey(f)
	secret, err := newKey(f).Bytes()
	if err != nil {
		f.Fatal(err)
	}
	b := Binding{Node: devices.NodeID{1}, Binding: "flow", Fingerprints: [][]byte{make([]byte, 32)}, Sequence: 3, Wake: &Wake{"https://push.example/x", secret}}
	good, err := SealBinding(phone, b)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte{0xa1, 1, 0x40})
	r := Record{Subject: devices.NodeIDOf(&phone.PublicKey).String(), Writer: b.Node, Kind: KindBinding}
	f.Fuzz(func(t *testing.T, raw []byte) {
		r.Body = raw
		got, err := openBinding(r)
		got.Busy, got.Asleep, got.Signed = false, false, nil // the node's word, not the phone's
		if err == nil && !reflect.DeepEqual(got, b) {
			t.Fatalf("a binding that the phone did not sign: %+v", got)
		}
	})
}
