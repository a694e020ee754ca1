package records

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"errors"
	"fmt"
	"net/url"
	"slices"

	"github.com/hallway-home/hallway/devices"
	"github.com/hallway-home/hallway/devices/trust"
)

// KindBinding is the kind of a record in which a node states, with the phone's own
// signature, that a phone is reached through it. Its subject is the phone's ID.
const KindBinding = "binding"

// maxFingerprints bounds the DTLS certificates of one phone: one a browser process.
const maxFingerprints = 4

// Binding is what a phone signs about where it is reached.
type Binding struct {
	Node         devices.NodeID `cbor:"1,keyasint"`           // the edge node that it uses
	Binding      string         `cbor:"2,keyasint"`           // that node's name for the phone's flow
	Fingerprints [][]byte       `cbor:"3,keyasint"`           // SHA-256 of the phone's DTLS certificates (RFC 8122)
	Sequence     uint64         `cbor:"4,keyasint"`           // of the phone: of all its bindings the highest counts
	Quiet        bool           `cbor:"5,keyasint,omitempty"` // its person does not want to be disturbed on it
	Wake         *Wake          `cbor:"6,keyasint,omitempty"` // nil: once its page is closed nobody reaches it

	// What the node says that wrote the record.
	Busy   bool `cbor:"-"` // in a call
	Asleep bool `cbor:"-"` // its page is closed: it is not reached, but it can be woken

	Signed []byte `cbor:"-"` // the body of the record
}

// Wake is how a phone whose page is closed learns that somebody calls: a push (RFC 8030) without content, by the
// service of the browser's maker.
type Wake struct {
	Endpoint string `cbor:"1,keyasint"` // URL at the push service
	// Key is the private P-256 key (32 bytes) to which the subscription is bound (RFC 8292 section 4). The phone made it
	// for this alone, and all members may use it.
	Key []byte `cbor:"2,keyasint"`
}

// maxEndpoint bounds a push service's URL in bytes; the longest in use have about 350, and a record has 1,024.
const maxEndpoint = 400

// Signer is the key of the subscription.
func (w Wake) Signer() (*ecdsa.PrivateKey, error) {
	return ecdsa.ParseRawPrivateKey(elliptic.P256(), w.Key)
}

// WakesBy is the host of the push service that wakes the phone; empty: none does.
func (b Binding) WakesBy() string {
	if b.Wake == nil {
		return ""
	}
	u, err := url.Parse(b.Wake.Endpoint)
	if err != nil {
		return ""
	}
	return u.Hostname()
}

func (w *Wake) valid() bool {
	if w == nil {
		return true
	}
	u, err := url.Parse(w.Endpoint)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || len(w.Endpoint) > maxEndpoint {
		return false
	}
	_, err = w.Signer()
	return err == nil
}

// signedBinding is the body of a binding's record. Statement is a Binding in CBOR, as
// the phone signed it.
type signedBinding struct {
	Key       []byte `cbor:"1,keyasint"` // the phone's compressed P-256 key
	Statement []byte `cbor:"2,keyasint"`
	Sig       []byte `cbor:"3,keyasint"` // raw r||s over bindingContext and Statement
	Said
}

// Said is what the node that writes a binding's record adds of its own.
type Said struct {
	Busy   bool `cbor:"4,keyasint,omitempty"` // the phone is in a call
	Asleep bool `cbor:"5,keyasint,omitempty"` // its page is closed, and it can be woken
}

// bindingContext keeps a signature from meaning anything else than a binding.
const bindingContext = "hallway-binding/1\x00"

var errBinding = errors.New("the phone did not sign this binding")

// SealBinding makes the body of a binding's record; it runs where the phone's key is.
func SealBinding(key *ecdsa.PrivateKey, b Binding) ([]byte, error) {
	raw, err := Marshal(b)
	if err != nil {
		return nil, err
	}
	sig, err := trust.SignRaw(key, append([]byte(bindingContext), raw...))
	if err != nil {
		return nil, err
	}
	return Marshal(signedBinding{Key: devices.CompressedKey(&key.PublicKey), Statement: raw, Sig: sig})
}

// Mark adds to the body of a binding's record what the node says that writes it; it is not the
// word of the phone.
func Mark(raw []byte, said Said) ([]byte, error) {
	var body signedBinding
	if err := Unmarshal(raw, &body); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrForm, err)
	}
	body.Said = said
	return Marshal(body)
}

// openBinding checks that the phone named by the record's subject signed it for the
// record's writer.
func openBinding(r Record) (Binding, error) {
	phone, err := devices.ParseNodeID(r.Subject)
	if err != nil {
		return Binding{}, fmt.Errorf("%w: %w", ErrForm, err)
	}
	return OpenBinding(r.Body, phone, r.Writer)
}

// OpenBinding reads the body of a binding's record and checks that the phone signed it for
// the node.
func OpenBinding(raw []byte, phone, node devices.NodeID) (Binding, error) {
	var body signedBinding
	var b Binding
	if err := Unmarshal(raw, &body); err != nil {
		return b, fmt.Errorf("%w: %w", ErrForm, err)
	}
	if err := Unmarshal(body.Statement, &b); err != nil {
		return b, fmt.Errorf("%w: %w", ErrForm, err)
	}
	pub, err := devices.ParseCompressedKey(body.Key)
	if err != nil {
		return b, fmt.Errorf("%w: %w", ErrForm, err)
	}
	signed := append([]byte(bindingContext), body.Statement...)
	if devices.NodeIDOf(pub) != phone || b.Node != node || len(b.Fingerprints) > maxFingerprints || !b.Wake.valid() || !trust.VerifyRaw(pub, signed, body.Sig) { // check: binding signature
		return b, fmt.Errorf("%w: %w", ErrWriter, errBinding)
	}
	b.Busy, b.Asleep, b.Signed = body.Busy, body.Asleep && b.Wake != nil, raw
	return b, nil
}

// mayWrite says whether the roster lets the writer make this statement: about itself, a
// binding of a person's phone, or about a foreign device that it speaks for.
func mayWrite(r Record, roster *devices.Roster) error {
	if roster == nil || r.Home != roster.Home {
		return ErrHome
	}
	if !roster.Has(r.Writer) {
		return ErrWriter
	}
	about, err := devices.ParseNodeID(r.Subject)
	switch {
	case r.Subject == r.Writer.String() && r.Kind != KindBinding:
		return nil
	case r.Shape != ShapeRegister: // a log is a node's own
	case r.Kind == KindBinding:
		if err == nil && roster.IsPhone(about) {
			return nil
		}
	case r.Kind == KindDevice: // of a node, by that node
	case err != nil && speaksFor(roster, r.Writer, r.Subject):
		return nil
	}
	return ErrWriter
}

// speaksFor reports whether the roster names the node a speaker of the foreign device.
func speaksFor(roster *devices.Roster, node devices.NodeID, slug string) bool {
	return slices.Contains(roster.Adopted[slug].Speakers, node)
}

// Bindings lists the newest binding of each phone that has one, by the phone's ID.
func (t *Table) Bindings() map[devices.NodeID]Binding {
	out := map[devices.NodeID]Binding{}
	for _, r := range t.Records() {
		phone, err := devices.ParseNodeID(r.Subject)
		if r.Kind != KindBinding || err != nil {
			continue
		}
		b, err := openBinding(r)
		if old, ok := out[phone]; err == nil && (!ok || b.Sequence > old.Sequence) {
			out[phone] = b
		}
	}
	return out
}
