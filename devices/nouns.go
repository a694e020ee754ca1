package devices

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/hallway-home/hallway/profiles"
)

// NodeID names one running agent for good: the first 128 bits of the SHA-256 of its
// compressed public key (RFC 6940 section 3.1 asks for 128 to 160 bits).
type NodeID [16]byte

// HomeID names a home: the first 128 bits of the SHA-256 of its compressed root key.
type HomeID [16]byte

// CompressedKey returns the 33-byte form in which keys are stored and hashed (SEC 1, 2.3.3).
func CompressedKey(pub *ecdsa.PublicKey) []byte {
	b, err := pub.Bytes()
	if err != nil || len(b) != 65 {
		panic("devices: not a P-256 key") // keys are made here or checked on their way in
	}
	return append([]byte{2 + b[64]&1}, b[1:33]...)
}

// ParseCompressedKey reverses CompressedKey and refuses points off the curve.
func ParseCompressedKey(b []byte) (*ecdsa.PublicKey, error) {
	x, y := elliptic.UnmarshalCompressed(elliptic.P256(), b)
	if x == nil {
		return nil, errors.New("not a compressed P-256 point")
	}
	full := make([]byte, 65)
	full[0] = 4
	x.FillBytes(full[1:33])
	y.FillBytes(full[33:])
	return ecdsa.ParseUncompressedPublicKey(elliptic.P256(), full)
}

// NodeIDOf hashes a node's public key.
func NodeIDOf(pub *ecdsa.PublicKey) NodeID {
	sum := sha256.Sum256(CompressedKey(pub))
	return NodeID(sum[:16])
}

// HomeIDOf hashes a home's root key.
func HomeIDOf(root *ecdsa.PublicKey) HomeID { return HomeID(NodeIDOf(root)) }

func (id NodeID) String() string { return hex.EncodeToString(id[:]) }

// Short is the 8-digit form used in instance and host names.
func (id NodeID) Short() string { return hex.EncodeToString(id[:4]) }

// Prefix is the 16-digit form carried in the TXT key "id".
func (id NodeID) Prefix() string { return hex.EncodeToString(id[:8]) }

// IsZero reports whether no node is named.
func (id NodeID) IsZero() bool { return id == NodeID{} }

// MarshalText and UnmarshalText make JSON show hexadecimal.
func (id NodeID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText parses 32 hexadecimal digits.
func (id *NodeID) UnmarshalText(b []byte) error {
	p, err := ParseNodeID(string(b))
	*id = p
	return err
}

// ParseNodeID parses 32 hexadecimal digits.
func ParseNodeID(s string) (NodeID, error) {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != len(NodeID{}) {
		return NodeID{}, fmt.Errorf("%q is not a Node-ID: expected 32 hexadecimal digits", s)
	}
	return NodeID(b), nil
}

func (id HomeID) String() string { return hex.EncodeToString(id[:]) }

// IsZero reports whether no home is named.
func (id HomeID) IsZero() bool { return id == HomeID{} }

// Domain is the home's own domain (RFC 8375); it is never sent to an outside resolver.
func (id HomeID) Domain() string { return id.String() + ".home.arpa" }

// AppHost is the one host name of the companion app on the LAN: every node of the home
// leads it to itself.
func (id HomeID) AppHost() string { return "hallway-" + hex.EncodeToString(id[:4]) + ".local" }

// MarshalText makes JSON show hexadecimal.
func (id HomeID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText parses 32 hexadecimal digits.
func (id *HomeID) UnmarshalText(b []byte) error {
	p, err := ParseNodeID(string(b))
	*id = HomeID(p)
	return err
}

// AOR is an address of record: the stable name of a device, room, group or person
// (RFC 3261 section 6).
type AOR struct {
	Slug string
	Home HomeID
}

func (a AOR) String() string { return "sip:" + a.Slug + "@" + a.Home.Domain() }

// MarshalText makes JSON show the SIP URI.
func (a AOR) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// UnmarshalText parses the SIP URI form.
func (a *AOR) UnmarshalText(b []byte) error {
	s, ok := strings.CutPrefix(string(b), "sip:")
	slug, host, ok2 := strings.Cut(s, "@")
	hex, ok3 := strings.CutSuffix(host, ".home.arpa")
	if !ok || !ok2 || !ok3 {
		return fmt.Errorf("%q is not the URI of something in a home: expected sip:NAME@HOME.home.arpa", b)
	}
	a.Slug = slug
	return a.Home.UnmarshalText([]byte(hex))
}

// Class is the public kind of a device, as in the DNS-SD subtypes.
type Class string

// The classes that have a profile.
const (
	ClassTV       Class = "tv"
	ClassCamera   Class = "camera"
	ClassDoorbell Class = "doorbell"
	ClassSTB      Class = "stb"
	ClassSpeaker  Class = "speaker"
	ClassPanel    Class = "panel"
	ClassPhone    Class = "phone"
)

// Role says what a member may do.
type Role string

// The roles of nodes.
const (
	RoleOwner  Role = "owner"  // its key may sign roster edits
	RoleDevice Role = "device" // may call and be called

	// These two are roles of persons, who may be owners too.
	RoleMember Role = "member" // sees and calls everything that the rules allow
	RoleGuest  Role = "guest"  // sees who is there, until its last day
)

// Member is one node that belongs to the home, as the roster says.
type Member struct {
	Node  NodeID
	Key   []byte // compressed P-256
	Role  Role
	Slug  string
	Name  string
	Room  string // slug of its room, may be empty
	Class Class
}

// Room is a place; calling it calls its devices.
type Room struct {
	Slug string `json:"slug"`
	Name string `json:"name"`
}

// Group is a named set of devices and rooms, by slug.
type Group struct {
	Slug    string   `json:"slug"`
	Name    string   `json:"name"`
	Members []string `json:"members"`
}

// Person owns phones; calling a person calls them.
type Person struct {
	Slug  string   `json:"slug"`
	Name  string   `json:"name"`
	Role  Role     `json:"role"`
	Nodes []NodeID `json:"nodes"` // the phones, by the Node-ID of their key

	// Room is the slug of the room where the phones are for good: a wall panel that is a
	// browser. Empty: they are carried about.
	Room string `json:"room,omitempty"`

	// Until is when a guest's rights end, in Unix seconds of home time; 0: never.
	Until int64 `json:"until,omitempty"`
}

// Phone is a browser with a key of its own that belongs to a person. It is no member: its
// key opens the companion, never the member port.
type Phone struct {
	Node   NodeID `json:"node"` // of its key
	Slug   string `json:"slug"`
	Name   string `json:"name"`
	Person string `json:"person"` // slug
}

// Roster is what the home's log of edits folds to. It is immutable once made.
type Roster struct {
	Home    HomeID
	Name    string             // what people call the home
	Epoch   uint64             // number of folded edits
	Heads   [][32]byte         // hashes of edits without children, ascending
	HomeKey []byte             // 32 random bytes, anew at each removal
	Members map[NodeID]Member  // who belongs now
	Removed map[NodeID]bool    // keys that never return
	Rooms   map[string]Room    // by slug
	Groups  map[string]Group   // by slug
	Persons map[string]Person  // by slug
	Phones  map[NodeID]Phone   // by their key; each is among its person's Nodes
	Lost    map[NodeID]bool    // keys of phones that never return
	WebCA   [32]byte           // SHA-256 of the certificate under which the companion is served; zero: none yet
	Adopted map[string]Adopted // by slug; foreign things that members speak for
	Rules   map[RuleKey]Rule
	Pending map[[32]byte]Proposal // by the hash of the edit that proposes
}

// Adopted is a foreign thing to which the owners gave a name: a plain SIP phone, a
// camera. It has no key; the nodes that are its speakers answer for it.
type Adopted struct {
	Slug     string   `json:"slug"`
	Name     string   `json:"name"`
	Room     string   `json:"room,omitempty"` // slug of its room, may be empty
	Class    Class    `json:"class"`
	URI      string   `json:"uri"`      // where a speaker reaches it, e.g. "rtsp://192.0.2.9/stream"; never with a password
	Speakers []NodeID `json:"speakers"` // who may speak for it
}

// Proposal is the wish of one owner to remove another, which waits for a second owner
// or for its time.
type Proposal struct {
	Target NodeID `json:"target"`
	By     NodeID `json:"by"`
}

// Has reports whether the node belongs to the home now. A nil roster has nobody.
func (r *Roster) Has(id NodeID) bool {
	if r == nil {
		return false
	}
	_, ok := r.Members[id]
	return ok
}

// DeviceRecord is the body of a node's own "device" record: what it can do and where
// it is. Unknown CBOR keys are kept by the overlay.
type DeviceRecord struct {
	Capabilities profiles.Capabilities `cbor:"1,keyasint"`
	Addrs        []netip.AddrPort      `cbor:"2,keyasint"` // member port on every usable address
	Version      string                `cbor:"3,keyasint"`
	Behaviour    RecordBehaviour       `cbor:"4,keyasint"`
	Presence     Presence              `cbor:"5,keyasint,omitempty"` // Busy or DND; else nothing
}

// ForeignRecord is the body of a speaker's record about a foreign device: what that can do,
// and whether it answers, as this speaker finds.
type ForeignRecord struct {
	Capabilities profiles.Capabilities `cbor:"1,keyasint"`
	Behaviour    RecordBehaviour       `cbor:"2,keyasint"`
	Fault        string                `cbor:"3,keyasint,omitempty"` // why it does not answer, in words
}

// RecordBehaviour is the part of a profile's behaviour that callers need to know.
type RecordBehaviour struct {
	Automata bool   `cbor:"1,keyasint,omitempty" json:"automata"`
	Mobility string `cbor:"2,keyasint,omitempty" json:"mobility"`
	Duplex   string `cbor:"3,keyasint,omitempty" json:"duplex"`
}

// Liveness is what this node knows itself about another node's reachability; hearsay
// never enters it.
type Liveness struct {
	Reachable bool
	LastHeard time.Time      // zero if never heard since the start
	Addr      netip.AddrPort // the flow's remote address
}

// Foreign is something on the LAN that is not a member: a hint, never trusted.
type Foreign struct {
	ID        string           `json:"id"` // stable for the thing, e.g. "mdns:Kitchen@speaker.local"
	Name      string           `json:"name"`
	Is        string           `json:"is"`    // in plain words, e.g. "camera"
	Kinds     []string         `json:"kinds"` // service and device types seen, e.g. "_rtsp._tcp"
	Addrs     []netip.AddrPort `json:"addrs"`
	Protocols []string         `json:"protocols"` // "mdns", "ssdp", "wsd"
	LastSeen  time.Time        `json:"last_seen"`
}
