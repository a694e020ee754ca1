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
	"strings"
	"unicode"
	"unicode/utf8"

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
	OpMerge   Op = "merge"   // nothing; joins heads when there are more than MaxParents
	OpChange  Op = "change"  // a member gets another role or class
	OpDelete  Op = "delete"  // a room, group, person, foreign device or rule goes
	OpRule    Op = "rule"    // who has a right on whom
	OpForeign Op = "foreign" // a foreign device gets a name and its speakers
	OpPropose Op = "propose" // an owner wants another owner out
	OpAgree   Op = "agree"   // a second owner agrees, or the same one after removalWait

	OpPhone  Op = "phone"  // a person, made here or known, gets a phone
	OpLost   Op = "lost"   // a phone is out for good
	OpPerson Op = "person" // a person gets another role or last day
	OpWebCA  Op = "web-ca" // the certificate authority of the companion's origin is another

	OpCheckpoint Op = "checkpoint" // a piece of what stands for all edits so far; the root's alone
)

const (
	// MaxEdit bounds one signed edit on the wire and on disk: a member must not fill
	// everybody's memory with one.
	MaxEdit = 512
	// MaxParents bounds the concurrent heads that one edit joins.
	MaxParents = 4
	// MaxMembers bounds the living keys of a home.
	MaxMembers = 128
	// MaxEdits bounds the edits since the last checkpoint, which Log.Checkpoint compacts.
	MaxEdits = 8192
	// removalReserve is the room in a full log that is kept for removals: a home that
	// grew too long must still be able to put somebody out.
	removalReserve = 256
	// maxText bounds a name that a person typed, in bytes; maxWord a slug, class or kind.
	maxText, maxWord = 64, 48
	// maxURI bounds the address of a foreign device, in bytes.
	maxURI = 160
	// maxRules bounds the rules of a home: more than this no person can oversee, and each
	// call looks at them.
	maxRules = 256
	// homeKeyLen is the length of the secret under which members know each other on the LAN.
	homeKeyLen = 32
)

// Hash names an edit.
type Hash = [32]byte

// Subject kinds of OpName.
const (
	SubjectDevice = "device"
	SubjectRoom   = "room"
	SubjectGroup  = "group"
	SubjectPerson = "person"

	// These two are kinds of OpDelete only.
	SubjectForeign = "foreign"
	SubjectRule    = "rule"
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
	Room     string           `cbor:"12,keyasint,omitempty"` // admit: the room's name; name of a device or person: move there; phone: of the new person
	Kind     string           `cbor:"13,keyasint,omitempty"` // name: device, room, group or person
	Slug     string           `cbor:"14,keyasint,omitempty"` // name: which one; empty makes one
	Node     devices.NodeID   `cbor:"15,keyasint,omitempty"` // remove, and name of a device
	Members  []string         `cbor:"16,keyasint,omitempty"` // group
	Nodes    []devices.NodeID `cbor:"17,keyasint,omitempty"` // person
	HomeName string           `cbor:"18,keyasint,omitempty"` // genesis

	// Only operations that came after the first version may use what follows: an older
	// node refuses an edit of a known operation with a field that it does not know.
	Right    devices.Right `cbor:"19,keyasint,omitempty"` // rule, delete of a rule; Slug is its subject, Members who has it
	Hours    string        `cbor:"20,keyasint,omitempty"` // rule
	URI      string        `cbor:"21,keyasint,omitempty"` // foreign; Nodes are its speakers
	Proposal []byte        `cbor:"22,keyasint,omitempty"` // agree: hash of the edit that proposes
	At       int64         `cbor:"23,keyasint,omitempty"` // propose, agree: home time in Unix seconds; see removalWait
	State    []byte        `cbor:"24,keyasint,omitempty"` // checkpoint: hash of the whole state
	Number   uint64        `cbor:"25,keyasint,omitempty"` // checkpoint: one more than the one before
	Index    int           `cbor:"26,keyasint,omitempty"` // checkpoint: which piece, from 0
	Count    int           `cbor:"27,keyasint,omitempty"` // checkpoint: of how many
	Chunk    []byte        `cbor:"28,keyasint,omitempty"` // checkpoint: the piece
	Label    string        `cbor:"29,keyasint,omitempty"` // phone: what the phone is called; Name is the person's, At its last day
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
func sign(key *ecdsa.PrivateKey, e Edit) (*parsed, error) {
	raw, err := encMode.Marshal(e)
	if err != nil {
		return nil, err
	}
	sig, err := SignRaw(key, raw)
	if err != nil {
		return nil, err
	}
	p, err := parse(SignedEdit{Raw: raw, Sig: sig})
	if errors.Is(err, ErrEditSize) {
		return nil, fmt.Errorf("%w; use shorter names or fewer members", err)
	}
	p.good = true
	return p, err
}

// envelope is the part of an edit that every version of Hallway understands.
type envelope struct {
	Version int            `cbor:"1,keyasint"`
	Home    devices.HomeID `cbor:"2,keyasint"`
	Parents []Hash         `cbor:"3,keyasint,omitempty"`
	Op      Op             `cbor:"4,keyasint"`
	Signer  devices.NodeID `cbor:"5,keyasint"`
}

// decode parses an edit and refuses what is not exactly its deterministic encoding:
// two encodings of one edit would have two hashes. Of an operation or version that this
// node does not know only the envelope is read: it is kept and passed on, unapplied.
func decode(s SignedEdit) (Edit, error) {
	if len(s.Raw)+len(s.Sig) > MaxEdit {
		return Edit{}, ErrEditSize
	}
	var env envelope
	if err := decMode.Unmarshal(s.Raw, &env); err != nil {
		return Edit{}, fmt.Errorf("%w: %w", ErrEditForm, err)
	}
	if env.Version < 1 || len(env.Parents) > MaxParents || len(env.Op) > maxWord {
		return Edit{}, ErrEditForm
	}
	if (env.Op == OpGenesis) != (len(env.Parents) == 0) {
		return Edit{}, fmt.Errorf("%w: only the first edit has no parents", ErrEditForm)
	}
	if env.Version > 1 || !known(env.Op) {
		return Edit{Version: env.Version, Home: env.Home, Parents: env.Parents, Op: env.Op, Signer: env.Signer}, nil
	}
	var e Edit
	if err := decMode.Unmarshal(s.Raw, &e); err != nil {
		return e, fmt.Errorf("%w: %w", ErrEditForm, err)
	}
	again, err := encMode.Marshal(e)
	if err != nil || !bytes.Equal(again, s.Raw) {
		return e, fmt.Errorf("%w: it is not in its one deterministic encoding", ErrEditForm)
	}
	return e, wellFormed(e)
}

// wellFormed checks what an edit says without looking at the home.
func wellFormed(e Edit) error {
	words := append([]string{string(e.Role), string(e.Class), e.Kind, e.Slug, string(e.Right), e.Hours}, e.Members...)
	for _, w := range words {
		if len(w) > maxWord || !plainText(w) {
			return fmt.Errorf("%w: a word in it is too long or unreadable", ErrEditForm)
		}
	}
	for _, t := range []string{e.Name, e.Room, e.HomeName, e.Label} {
		if len(t) > maxText || !plainText(t) {
			return fmt.Errorf("%w: a name in it is too long or unreadable", ErrEditForm)
		}
	}
	if len(e.URI) > maxURI || !plainText(e.URI) {
		return fmt.Errorf("%w: an address in it is too long or unreadable", ErrEditForm)
	}
	if (e.Op == OpGenesis || e.Op == OpRemove || e.Op == OpAgree) != (len(e.HomeKey) == homeKeyLen) {
		return fmt.Errorf("%w: a first edit and a removal bring a new home key", ErrEditForm)
	}
	if (e.Op == OpAgree) != (len(e.Proposal) == len(Hash{})) {
		return fmt.Errorf("%w: an agreement names one proposal", ErrEditForm)
	}
	if (e.Op == OpPhone || e.Op == OpLost) && len(e.Nodes) != 1 || e.Op == OpWebCA && len(e.State) != len(Hash{}) {
		return fmt.Errorf("%w: it names one phone, or one certificate", ErrEditForm)
	}
	if piece := len(e.State) == len(Hash{}) && e.Number > 0 && e.Index >= 0 && e.Index < e.Count && e.Count <= MaxPieces && len(e.Chunk) > 0; (e.Op == OpCheckpoint) != piece {
		return fmt.Errorf("%w: a piece of a checkpoint says which one it is", ErrEditForm)
	}
	role := e.Role == devices.RoleOwner || e.Role == devices.RoleDevice
	if e.Op == OpAdmit && !role || e.Op == OpChange && !role && e.Role != "" {
		return fmt.Errorf("%w: unknown role", ErrEditForm)
	}
	if (e.Op == OpPhone && e.Slug == "" || e.Op == OpPerson) && !personRole(e.Role) {
		return fmt.Errorf("%w: unknown role of a person", ErrEditForm)
	}
	if e.Op == OpRule && e.Hours != "" {
		if _, _, ok := devices.ParseHours(e.Hours); !ok {
			return fmt.Errorf("%w: hours are written like 07:00-22:00", ErrEditForm)
		}
	}
	return nil
}

func personRole(r devices.Role) bool {
	return r == devices.RoleOwner || r == devices.RoleMember || r == devices.RoleGuest
}

// plainText reports whether a text is safe to show: no control characters, which steer
// terminals, and no bidirectional overrides, which make one name look like another
// (Unicode technical report 36).
func plainText(s string) bool { return strings.IndexFunc(s, unsafeRune) < 0 }

func unsafeRune(r rune) bool {
	return unicode.IsControl(r) || r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069 || r == unicode.ReplacementChar
}

// PlainText drops what plainText refuses, and bounds a name without cutting a character.
func PlainText(s string) string {
	s = strings.TrimSpace(strings.Map(func(r rune) rune {
		if unsafeRune(r) {
			return -1
		}
		return r
	}, s))
	for len(s) > maxText {
		_, n := utf8.DecodeLastRuneInString(s)
		s = s[:len(s)-n]
	}
	return strings.TrimSpace(s)
}

func known(op Op) bool {
	switch op {
	case OpGenesis, OpAdmit, OpRemove, OpName, OpMerge, OpChange, OpDelete, OpRule, OpForeign, OpPropose, OpAgree, OpCheckpoint, OpPhone, OpLost, OpPerson, OpWebCA:
		return true
	}
	return false
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
