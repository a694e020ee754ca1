package sessions

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"github.com/hallway-home/hallway/devices"
	"github.com/hallway-home/hallway/profiles"
)

const (
	// maxBranches bounds a ring group (conventions: 32).
	maxBranches = 32
	// maxCalls bounds what members can make this node hold: 100 viewers of a camera, and some
	// more. One that is only sent to costs 0.4 MB. A class of device may set less (max-calls).
	maxCalls = 128
	// callsPerSecond bounds INVITEs from one member: the transaction layer holds about
	// 12 kB for 32 s after each.
	callsPerSecond, callBurst = 20, 40
	// warnEvery: the misbehaviour of one member is logged once in this time.
	warnEvery = time.Minute
	// goneAfter: a dialog outlives its flow this long (decisions: 10 s).
	goneAfter = 10 * time.Second
	// callerPatience bounds how long a caller lets the other side ring.
	callerPatience = 2 * time.Minute
	// defaultRing is how long a device rings before 480 when its profile says nothing.
	defaultRing = 45 * time.Second
	// historyLen is how many ended calls are remembered.
	historyLen = 50
)

// Flows is what the agent needs of the overlay.
type Flows interface {
	SIP() net.Listener
	EnsureSIP(context.Context, devices.NodeID) error
	HasSIP(devices.NodeID) bool
	PeerByAddr(string) (devices.NodeID, bool)
	Addr(devices.NodeID) netip.AddrPort
}

// Resolver looks names up locally; *devices.Snapshot is one.
type Resolver interface {
	Resolve(slug string) (devices.Resolution, bool)
	Device(devices.NodeID) (devices.Device, bool)
	HasPhone(devices.NodeID) bool // of a person
}

// Policy is asked by the called node before anything rings. An error says why not, in
// words for the caller.
type Policy interface {
	MayCall(from devices.Device, to string) error
}

// Config of an Agent. Self, Flows, Resolver and Media are required.
type Config struct {
	Self       devices.NodeID
	Flows      Flows
	Resolver   func() Resolver // the directory as it is now
	Media      Media
	Policy     Policy // nil: every member may call
	Behaviour  profiles.Behaviour
	Capability profiles.Capabilities // of this device, at the start
	AutoAnswer bool                  // the owner's rule for this device
	HalfDuplex bool                  // its loudspeaker is heard by its microphone, and nothing cancels the echo
	Version    string
	// Wake tells phones whose page is closed that somebody calls, and gives each as it comes: the row through which it is
	// reached, with that phone alone. It closes the channel once nobody more can be expected, or ctx ends; nil: none is woken.
	Wake func(ctx context.Context, caller devices.Device, phones []devices.NodeID) <-chan devices.Device
	// Speaks finds a foreign device that this node speaks for now; nil: it speaks for none.
	Speaks func(slug string) (Spoken, bool)
	Logger *slog.Logger // nil discards
	// SessionExpires is how long a call lives without a sign of the other side, and MinSE the
	// shortest that is accepted (RFC 4028); zero: 30 minutes and 90 seconds.
	SessionExpires, MinSE time.Duration
	// Examine answers a question of another member's doctor, a body of QuestionType; nil
	// refuses. It is called for few members at a time, and its context is bounded.
	Examine func(ctx context.Context, from devices.Device, question []byte) (answer []byte, err error)
}

// Errors of the methods.
var (
	ErrNoHome     = errors.New("this device belongs to no home yet")
	ErrUnknown    = errors.New("nothing in this home has that name")
	ErrNoSuchCall = errors.New("there is no such call")
	ErrNotRinging = errors.New("the call is not ringing here")
	ErrNotActive  = errors.New("the call is not running; it can be changed once it was answered")
	ErrTooMany    = errors.New("too many calls at once")
	ErrAlone      = errors.New("there is no other device behind that name")
)

// State of a call, as people see it.
type State string

// The states of a call.
const (
	StateCalling  State = "calling"  // sent, nobody rings yet
	StateRinging  State = "ringing"  // somebody rings
	StateIncoming State = "incoming" // rings here
	StateActive   State = "active"
	StateEnded    State = "ended"
)

// CallOptions say what the caller wants.
type CallOptions struct {
	Video bool // false: sound only
}

// BranchInfo is one device that a call tried.
type BranchInfo struct {
	Device string `json:"device"` // slug
	Name   string `json:"name"`
	State  string `json:"state"` // calling, ringing, answered, or why not
	Code   int    `json:"code,omitempty"`
}

// CallInfo is a call as people see it.
type CallInfo struct {
	ID        string       `json:"id"` // Session-ID (RFC 7989)
	Direction string       `json:"direction"`
	State     State        `json:"state"`
	From      devices.AOR  `json:"from"`
	To        devices.AOR  `json:"to"`
	Peer      string       `json:"peer,omitempty"` // slug of the device at the other end
	Branches  []BranchInfo `json:"branches,omitempty"`
	Started   time.Time    `json:"started"`
	Answered  time.Time    `json:"answered,omitzero"`
	Ended     time.Time    `json:"ended,omitzero"`
	Code      int          `json:"code,omitempty"`   // final SIP status
	Reason    string       `json:"reason,omitempty"` // in plain words
	Missed    bool         `json:"missed,omitempty"`
	TakenBy   string       `json:"taken_by,omitempty"` // slug of the other device or person that took the call
	Media     []MediaState `json:"media,omitempty"`
	Hold      bool         `json:"hold,omitempty"`       // on hold, by this side
	Muted     bool         `json:"muted,omitempty"`      // this side sends no sound
	PeerHold  bool         `json:"peer_hold,omitempty"`  // the other side has put us on hold
	PeerMuted bool         `json:"peer_muted,omitempty"` // the other side sends no sound for now
	Digits    string       `json:"digits,omitempty"`     // the last that the other side pressed (DTMF), at most 32
	Trouble   []string     `json:"trouble,omitempty"`    // what does not get through, in plain words
	Stats     LegStats     `json:"stats"`

	unseen bool // people are not told of it
}
