package trust

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/big"

	"github.com/fxamacker/cbor/v2"

	"github.com/hallway-home/hallway/devices"
)

// Op is what an edit does to the home.
type Op string

// The operations. A node that does not know one keeps and passes it on, unapplied, so
// that homes with older nodes stay one.
const (
	OpGenesis Op = "genesis" // the first edit, signed by the root key: the first owner
	OpAdmit   Op = "admit"   // a node joins
	OpRemove  Op = "remove"  // a node leaves for good; carries the new home key
	OpName    Op = "name"    // a room, group or person is made or changed, a device renamed
)

const (
	// MaxEdit bounds one signed edit on the wire and on disk: a member must not fill
	// everybody's memory with one.
	MaxEdit = 512
	// MaxParents bounds the concurrent heads that one edit joins.
	MaxParents = 4
	// MaxMembers bounds the living keys of a home.
	MaxMembers = 128
	// MaxEdits bounds a log before checkpoints compact it.
	MaxEdits = 8192
	// maxText bounds a name that a person typed, in bytes.
	maxText = 64
)

// Hash names an edit.
type Hash = [32]byte

// Subject kinds of OpName.
const (
	SubjectDevice = "device"
	SubjectRoom   = "room"
	SubjectGroup  = "group"
	SubjectPerson = "person"
)

// Edit is one change of the home. Its encoding is deterministic CBOR (RFC 8949 section
// 4.2); the signature stands beside it.
type Edit struct {
	Version int            `cbor:"1,keyasint"`
	Home    devices.HomeID `cbor:"2,keyasint"`
	Parents []Hash         `cbor:"3,keyasint,omitempty"`
	Op      Op             `cbor:"4,keyasint"`
	Signer  devices.NodeID `cbor:"5,keyasint"` // the root's ID for genesis and recoveries

	Key      []byte           `cbor:"6,keyasint,omitempty"`  // admit, genesis: the new node's compressed key
	Root     []byte           `cbor:"7,keyasint,omitempty"`  // genesis: the root's compressed key
	HomeKey  []byte           `cbor:"8,keyasint,omitempty"`  // genesis, remove
	Role     devices.Role     `cbor:"9,keyasint,omitempty"`  // admit
	Class    devices.Class    `cbor:"10,keyasint,omitempty"` // admit, genesis
	Name     string           `cbor:"11,keyasint,omitempty"` // what people see
	Room     string           `cbor:"12,keyasint,omitempty"` // admit: the room's name; device: move there
	Kind     string           `cbor:"13,keyasint,omitempty"` // name: device, room, group or person
	Slug     string           `cbor:"14,keyasint,omitempty"` // name: which one; empty makes one
	Node     devices.NodeID   `cbor:"15,keyasint,omitempty"` // remove, and name of a device
	Members  []string         `cbor:"16,keyasint,omitempty"` // group
	Nodes    []devices.NodeID `cbor:"17,keyasint,omitempty"` // person
	HomeName string           `cbor:"18,keyasint,omitempty"` // genesis
}

// SignedEdit is an edit as it travels: the exact bytes that were signed.
type SignedEdit struct {
	Raw []byte `cbor:"1,keyasint"`
	Sig []byte `cbor:"2,keyasint"` // raw r||s
}

// Hash names the edit by what was signed.
func (e SignedEdit) Hash() Hash { return sha256.Sum256(e.Raw) }

// Why an edit is refused at the door, before it is folded.
var (
	ErrEditSize      = errors.New("the roster edit is larger than 512 bytes")
	ErrEditForm      = errors.New("the roster edit is malformed")
	ErrEditHome      = errors.New("the roster edit belongs to another home")
	ErrEditSignature = errors.New("the roster edit's signature does not fit its signer")
)

var encMode = mustEncMode()
var decMode = mustDecMode()

func mustEncMode() cbor.EncMode {
	m, err := cbor.CoreDetEncOptions().EncMode()
	if err != nil {
		panic(err) // constant options
	}
	return m
}

func mustDecMode() cbor.DecMode {
	m, err := cbor.DecOptions{DupMapKey: cbor.DupMapKeyEnforcedAPF, IndefLength: cbor.IndefLengthForbidden, MaxNestedLevels: 8, MaxArrayElements: 1024, MaxMapPairs: 64}.DecMode()
	if err != nil {
		panic(err) // constant options
	}
	return m
}

// sign encodes and signs an edit. The caller has checked that the key may.
func sign(key *ecdsa.PrivateKey, e Edit) (SignedEdit, error) {
	raw, err := encMode.Marshal(e)
	if err != nil {
		return SignedEdit{}, err
	}
	sig, err := SignRaw(key, raw)
	if err != nil {
		return SignedEdit{}, err
	}
	s := SignedEdit{Raw: raw, Sig: sig}
	if len(s.Raw)+len(s.Sig) > MaxEdit {
		return SignedEdit{}, fmt.Errorf("%w; use shorter names or fewer members", ErrEditSize)
	}
	return s, nil
}

// decode parses an edit and refuses what is not exactly its deterministic encoding:
// two encodings of one edit would have two hashes. Edits of operations that this
// version does not know are exempt, since they may hold keys it does not know.
func decode(s SignedEdit) (Edit, error) {
	var e Edit
	if len(s.Raw)+len(s.Sig) > MaxEdit {
		return e, ErrEditSize
	}
	if err := decMode.Unmarshal(s.Raw, &e); err != nil {
		return e, fmt.Errorf("%w: %w", ErrEditForm, err)
	}
	if known(e.Op) {
		again, err := encMode.Marshal(e)
		if err != nil || !bytes.Equal(again, s.Raw) {
			return e, fmt.Errorf("%w: it is not in its one deterministic encoding", ErrEditForm)
		}
	}
	if e.Version != 1 || len(e.Parents) > MaxParents || len(e.Name) > maxText || len(e.Room) > maxText || len(e.HomeName) > maxText {
		return e, ErrEditForm
	}
	if (e.Op == OpGenesis) != (len(e.Parents) == 0) {
		return e, fmt.Errorf("%w: only the first edit has no parents", ErrEditForm)
	}
	return e, nil
}

func known(op Op) bool {
	return op == OpGenesis || op == OpAdmit || op == OpRemove || op == OpName
}

// SignRaw signs the SHA-256 of b; the signature is r||s, 64 bytes.
func SignRaw(key *ecdsa.PrivateKey, b []byte) ([]byte, error) {
	sum := sha256.Sum256(b)
	r, s, err := ecdsa.Sign(rand.Reader, key, sum[:])
	if err != nil {
		return nil, err
	}
	sig := make([]byte, 64)
	r.FillBytes(sig[:32])
	s.FillBytes(sig[32:])
	return sig, nil
}

// VerifyRaw checks a signature made by SignRaw.
func VerifyRaw(pub *ecdsa.PublicKey, b, sig []byte) bool {
	if pub == nil || pub.Curve != elliptic.P256() || len(sig) != 64 {
		return false
	}
	sum := sha256.Sum256(b)
	return ecdsa.Verify(pub, sum[:], new(big.Int).SetBytes(sig[:32]), new(big.Int).SetBytes(sig[32:]))
}
