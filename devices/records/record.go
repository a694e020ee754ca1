package records

import (
	"bytes"
	"cmp"
	"crypto/ecdsa"
	"crypto/sha256"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/fxamacker/cbor/v2"

	"github.com/hallway-home/hallway/devices"
	"github.com/hallway-home/hallway/devices/trust"
)

const (
	// MaxRecord bounds one signed record, signature included: a member must not fill
	// everybody's memory with one.
	MaxRecord = 1024
	// MaxKeysPerWriter bounds the records of one writer. Tombstones do not expire, so
	// this is what keeps a store finite.
	MaxKeysPerWriter = 32
	// maxKind bounds the name of a kind, in bytes; maxSubject that of a subject: a
	// Node-ID has 32, a slug at most 48.
	maxKind, maxSubject = 32, 64
	// maxRefs bounds the blobs that one record keeps alive.
	maxRefs = 4
)

// KindDevice is the kind of a node's record about itself (devices.DeviceRecord).
const KindDevice = "device"

// Shape says how records of one key follow each other. The third shape, the blob, is
// named by its hash and needs no signature.
type Shape uint8

// The signed shapes.
const (
	ShapeRegister Shape = 0 // the last one wins
	ShapeLog      Shape = 1 // all count, in order; the oldest fall off
)

// Record is a signed, replicated statement of a node. As a register its key is (subject,
// kind, writer) and the higher (epoch, sequence) wins; as a log entry its place is
// (writer, sequence).
type Record struct {
	Version  int             `cbor:"1,keyasint"`
	Home     devices.HomeID  `cbor:"2,keyasint"`
	Subject  string          `cbor:"3,keyasint"` // what it speaks about: a Node-ID, a phone's ID, or the slug of a foreign device
	Kind     string          `cbor:"4,keyasint"`
	Writer   devices.NodeID  `cbor:"5,keyasint"`
	Epoch    uint64          `cbor:"6,keyasint"` // raised when the sequence may be lost
	Sequence uint64          `cbor:"7,keyasint"`
	TTL      uint32          `cbor:"8,keyasint"`  // seconds on the receiver's clock; 0 = for ever
	Head     [32]byte        `cbor:"9,keyasint"`  // a roster head of the writer, a hint
	Body     cbor.RawMessage `cbor:"10,keyasint"` // deterministic CBOR; null is a tombstone
	Shape    Shape           `cbor:"11,keyasint,omitempty"`
	Blobs    []BlobRef       `cbor:"12,keyasint,omitempty"` // blobs that must live as long as this
}

// Gone reports whether the record says that nothing is stated any more.
func (r Record) Gone() bool { return len(r.Body) == 0 || bytes.Equal(r.Body, tombstone) }

// tombstone is CBOR null.
var tombstone = cbor.RawMessage{0xf6}

// Signed is a record as it travels and is stored: the exact bytes that were signed.
// Keys that this version does not know stay inside Raw and are passed on.
type Signed struct {
	Raw []byte `cbor:"1,keyasint"`
	Sig []byte `cbor:"2,keyasint"` // raw r||s
}

// Size is about what it takes on the wire, in bytes.
func (s Signed) Size() int { return len(s.Raw) + len(s.Sig) + 8 }

// Proven is a record with the bytes that prove it.
type Proven struct {
	Record Record
	Signed Signed
}

// Why a record is refused.
var (
	ErrSize      = errors.New("the record is larger than 1,024 bytes")
	ErrForm      = errors.New("the record is malformed")
	ErrHome      = errors.New("the record belongs to another home")
	ErrWriter    = errors.New("the record's writer may not write it")
	ErrSignature = errors.New("the record's signature does not fit its writer")
	ErrKeys      = errors.New("the record's writer has 32 records already")
	ErrRate      = errors.New("the record's writer changes more than 20 records a second")
)

// Reason names the kind of a fault, in one of few texts.
func Reason(err error) string {
	for _, e := range []error{ErrSize, ErrForm, ErrHome, ErrWriter, ErrSignature, ErrKeys, ErrRate} {
		if errors.Is(err, e) {
			return e.Error()
		}
	}
	return "it could not be stored"
}

var (
	encMode, encErr = cbor.CoreDetEncOptions().EncMode()
	decMode, decErr = cbor.DecOptions{
		DupMapKey: cbor.DupMapKeyEnforcedAPF, IndefLength: cbor.IndefLengthForbidden,
		MaxNestedLevels: 8, MaxArrayElements: 4096, MaxMapPairs: 256,
	}.DecMode()
)

// Marshal gives the deterministic CBOR (RFC 8949 section 4.2.1) of what nodes share.
func Marshal(v any) ([]byte, error) {
	if err := errors.Join(encErr, decErr); err != nil {
		return nil, err
	}
	return encMode.Marshal(v)
}

// Unmarshal reads CBOR that somebody sent: no key twice, no indefinite length, and bounds
// on depth and length. Keys that v does not know are skipped.
func Unmarshal(b []byte, v any) error {
	if err := errors.Join(encErr, decErr); err != nil {
		return err
	}
	return decMode.Unmarshal(b, v)
}

// registerKey is what later records replace; for one writer, subject and kind.
type registerKey struct {
	writer        devices.NodeID
	subject, kind string
}

func (r Record) key() registerKey { return registerKey{r.Writer, r.Subject, r.Kind} }

func (k registerKey) String() string { return k.writer.String() + "/" + k.kind + "/" + k.subject }

// seal encodes and signs.
func seal(key *ecdsa.PrivateKey, r Record) (Signed, error) {
	raw, err := Marshal(r)
	if err != nil {
		return Signed{}, err
	}
	sig, err := trust.SignRaw(key, raw)
	if err != nil {
		return Signed{}, err
	}
	if len(raw)+len(sig) > MaxRecord {
		return Signed{}, fmt.Errorf("%w; say less in it", ErrSize)
	}
	return Signed{raw, sig}, nil
}

// parse checks size and form alone.
func parse(s Signed) (Record, error) {
	var r Record
	if len(s.Raw)+len(s.Sig) > MaxRecord { // check: record size
		return r, ErrSize
	}
	if err := Unmarshal(s.Raw, &r); err != nil {
		return r, fmt.Errorf("%w: %w", ErrForm, err)
	}
	if r.Version != 1 || len(r.Kind) == 0 || len(r.Kind) > maxKind || len(r.Subject) > maxSubject || len(r.Blobs) > maxRefs || r.Shape > ShapeLog {
		return r, ErrForm
	}
	if r.Sequence == 0 || r.Shape == ShapeLog && r.Sequence > math.MaxInt64 { // room for sums
		return r, ErrForm
	}
	return r, nil
}

// open checks everything about a record that does not depend on what is stored:
// size, form, home, that the writer belongs and may speak about the subject, and the
// signatures.
func open(s Signed, roster *devices.Roster) (Record, error) {
	r, err := parse(s)
	if err != nil {
		return r, err
	}
	if err := mayWrite(r, roster); err != nil {
		return r, err
	}
	return r, verify(r, s, roster)
}

func verify(r Record, s Signed, roster *devices.Roster) error {
	pub, err := devices.ParseCompressedKey(roster.Members[r.Writer].Key)
	if err != nil {
		return err
	}
	if !trust.VerifyRaw(pub, s.Raw, s.Sig) { // check: record signature
		return ErrSignature
	}
	if r.Kind == KindBinding && !r.Gone() {
		_, err = openBinding(r)
	}
	return err
}

// hash leaves the signature out: ECDSA signs the same statement in many ways.
func (s Signed) hash() [32]byte { return sha256.Sum256(s.Raw) }

// verdict of comparing a stored record with a newcomer of the same key.
type verdict int

const (
	keepOld verdict = iota
	takeNew
	equivocation // same order, other content: the lower hash stays, the writer is flagged
)

// compare orders two records of one key by (epoch, sequence).
func compare(old, next stored) (verdict, bool) {
	if c := cmp.Or(cmp.Compare(next.rec.Epoch, old.rec.Epoch), cmp.Compare(next.rec.Sequence, old.rec.Sequence)); c != 0 {
		if c > 0 {
			return takeNew, true
		}
		return keepOld, false
	}
	if old.hash == next.hash {
		return keepOld, false
	}
	return equivocation, bytes.Compare(next.hash[:], old.hash[:]) < 0
}

type stored struct {
	rec     Record
	signed  Signed
	hash    [32]byte
	until   time.Time // on this node's monotonic clock; zero: for ever
	expired bool      // kept as a marker, so that a peer who has it longer cannot bring it back
}

func newStored(r Record, s Signed, now time.Time) stored {
	st := stored{rec: r, signed: s, hash: s.hash()}
	if r.TTL > 0 && !r.Gone() {
		st.until = now.Add(time.Duration(r.TTL) * time.Second)
	}
	return st
}

// KindForeign is the kind of a speaker's record about a foreign device
// (devices.ForeignRecord); its subject is that device's slug.
const KindForeign = "foreign"

// DecodeForeign reads the body of a speaker's record about a foreign device.
func DecodeForeign(r Record) (devices.ForeignRecord, error) {
	var d devices.ForeignRecord
	err := decMode.Unmarshal(r.Body, &d)
	return d, err
}

// DecodeDevice reads the body of a node's record about itself.
func DecodeDevice(r Record) (devices.DeviceRecord, error) {
	var d devices.DeviceRecord
	err := Unmarshal(r.Body, &d)
	return d, err
}
