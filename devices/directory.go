package devices

import (
	"slices"
	"time"

	"github.com/hallway-home/hallway/profiles"
)

// Status of a device in the directory.
type Status string

// The states a person can tell apart.
const (
	Reachable   Status = "reachable"   // own flow up and heard
	Unreachable Status = "unreachable" // known, but no flow
	NeverSeen   Status = "never seen"  // admitted, but it has not come yet
	Present     Status = "present"     // a foreign thing in sight
)

// Device is one row of the directory.
type Device struct {
	AOR          AOR                   `json:"aor"`
	Slug         string                `json:"slug"`
	Name         string                `json:"name"`
	Room         string                `json:"room,omitempty"` // slug
	Class        Class                 `json:"class"`
	Node         NodeID                `json:"node"`
	Self         bool                  `json:"self,omitempty"`
	Role         Role                  `json:"role,omitempty"`
	Status       Status                `json:"status"`
	Presence     Presence              `json:"presence"`
	LastHeard    time.Time             `json:"last_heard,omitzero"`
	Version      string                `json:"version,omitempty"`
	Capabilities profiles.Capabilities `json:"capabilities"`
	Behaviour    RecordBehaviour       `json:"behaviour"`
	Addrs        []string              `json:"addrs,omitempty"`

	// A foreign device that the home adopted: Node is the speaker that answers for it now.
	Foreign  bool     `json:"foreign,omitempty"`
	Speakers []NodeID `json:"speakers,omitempty"`
	Fault    string   `json:"fault,omitempty"` // why it does not answer its speaker

	// The phones of a person, as they are reached through Node: the row has the person's name.
	Person string       `json:"person,omitempty"` // slug
	Phones []BoundPhone `json:"-"`
}

// BoundPhone is a phone that is reached through a node, as it has signed itself.
type BoundPhone struct {
	ID           NodeID
	Fingerprints [][]byte // SHA-256 of its DTLS certificates (RFC 8122)
}

// Binding says through which node a phone is reached now; the phone signed it.
type Binding struct {
	Node         NodeID
	Fingerprints [][]byte
	Quiet        bool   // its person does not want to be disturbed on it
	Busy         bool   // in a call, as the node says
	WakesBy      string // host of the push service that wakes it once its page is closed; empty: none does
	Asleep       bool   // as the node says: its page is closed
}

// AORKind says what sort of thing an AOR names.
type AORKind string

// Kinds of AOR.
const (
	KindDevice AORKind = "device"
	KindRoom   AORKind = "room"
	KindGroup  AORKind = "group"
	KindPerson AORKind = "person"
	// KindForeign is a foreign device that the home adopted: a member speaks for it.
	KindForeign AORKind = "foreign"
)

// Resolution is what an AOR means now: the devices behind it, in slug order.
type Resolution struct {
	AOR     AOR      `json:"aor"`
	Kind    AORKind  `json:"kind"`
	Name    string   `json:"name"`
	Devices []Device `json:"devices"`
	Asleep  []NodeID `json:"-"` // phones of persons that are not reached, but can be woken
}

// Inputs is everything the directory is folded from.
type Inputs struct {
	Self    NodeID
	Roster  *Roster
	Records map[NodeID]DeviceRecord
	Spoken  map[SpokenKey]ForeignRecord
	Live    map[NodeID]Liveness
	Foreign []Foreign

	Bindings map[NodeID]Binding // by phone
	Phone    DeviceRecord       // what a browser can do
}

// SpokenKey names what one speaker says of one foreign device.
type SpokenKey struct {
	Slug    string
	Speaker NodeID
}

// Snapshot is the directory at one moment. It is immutable: share it freely.
type Snapshot struct {
	Home    HomeID
	Devices []Device // members, by slug
	Rooms   []Room   // by slug
	Groups  []Group
	Persons []Person
	Spoken  []Device // foreign devices that the home adopted, by slug
	Bound   []Device // persons' phones, a row for each person and node, by slug
	Panels  []Device // wall panels that are browsers, reached or not, a row for each person who has a room, by slug
	Foreign []Foreign
	byAOR   map[string]Resolution // by slug
	asleep  map[string][]NodeID   // phones that can be woken, by person
	wakesBy map[string][]string   // hosts of push services, by person
}

// Resolve looks an AOR's slug up, locally and without asking anybody.
func (s *Snapshot) Resolve(slug string) (Resolution, bool) {
	r, ok := s.byAOR[slug]
	return r, ok
}

// WakesBy lists the hosts of the push services that wake phones of a person.
func (s *Snapshot) WakesBy(person string) []string { return s.wakesBy[person] }

// Awake finds the row through which a phone is reached now, with that phone alone.
func (s *Snapshot) Awake(phone NodeID) (Device, bool) {
	for _, d := range s.Bound {
		i := slices.IndexFunc(d.Phones, func(p BoundPhone) bool { return p.ID == phone })
		if i >= 0 && d.Status == Reachable {
			d.Phones = []BoundPhone{d.Phones[i]}
			return d, true
		}
	}
	return Device{}, false
}

// Device returns the row of a member node.
func (s *Snapshot) Device(id NodeID) (Device, bool) {
	i := slices.IndexFunc(s.Devices, func(d Device) bool { return d.Node == id })
	if i < 0 {
		return Device{}, false
	}
	return s.Devices[i], true
}

// HasPhone reports whether a key is that of a person's phone.
func (s *Snapshot) HasPhone(id NodeID) bool {
	return slices.ContainsFunc(s.Persons, func(p Person) bool { return slices.Contains(p.Nodes, id) })
}
