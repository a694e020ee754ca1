// Package api owns the agent's HTTP API: routes, types, errors as RFC 9457 problems and
// the event stream, served on a Unix socket for the command line and later over HTTPS
// for the companion. It runs nothing that a caller names: pipelines and programs come
// from files on disk.
//
// The server runs until its context ends; handlers call the Backend from many goroutines.
package api

import (
	"context"
	"time"

	"github.com/hallway-home/hallway/devices"
	"github.com/hallway-home/hallway/profiles"
	"github.com/hallway-home/hallway/sessions"
)

// Backend is the running agent as the API sees it.
type Backend interface {
	Status() Status
	Process() Process
	Directory() *devices.Snapshot
	Calls() []sessions.CallInfo
	Call(id string) (sessions.CallInfo, error)
	StartCall(to string, video bool) (sessions.CallInfo, error)
	Answer(id string) error
	Decline(id string) error
	Hangup(id string) error
	ChangeCall(ctx context.Context, id string, change CallChange) (sessions.CallInfo, error)
	HomeBackend
	PhoneBackend
	Volume() Volume
	SetVolume(level int) (Volume, error)
	DND() DND
	SetDND(on bool) (DND, error)
	OpenPairing(minutes int) (PairState, error)
	ClosePairing() error
	Pairing() PairState
	Identify(ctx context.Context, req AddRequest) (Candidate, error)
	Add(ctx context.Context, req AddRequest) (devices.Member, error)
	Invite(minutes int, seed string) (InviteState, error)
	Adopt(ctx context.Context, req AdoptRequest) (Adoption, error)
	Doctor(ctx context.Context) []Check
	Diagnose(ctx context.Context, from, to string) (Diagnosis, error)
	Events(ctx context.Context) <-chan Event
}

// Volume of the device's output.
type Volume struct {
	Level int  `json:"level" minimum:"0" maximum:"100" doc:"100 is the loudest"`
	Works bool `json:"works" doc:"whether the output's pipeline can be told"`
}

// DND is whether this device refuses calls, since its person does not want to be disturbed.
type DND struct {
	On bool `json:"on"`
}

// Status of the agent.
type Status struct {
	Version string         `json:"version"`
	Node    devices.NodeID `json:"node"`
	ShortID string         `json:"short_id" doc:"4 characters that name this device while it pairs"`
	Name    string         `json:"name"`
	Class   string         `json:"class"`
	Listen  string         `json:"listen" doc:"member port"`
	Home    string         `json:"home,omitempty" doc:"home ID, empty before joining"`
	URI     string         `json:"uri,omitempty" doc:"SIP URI of this device"`
	Since   time.Time      `json:"since"`
	PID     int            `json:"pid"`
}

// Process says what the agent uses, to whoever may use its socket.
type Process struct {
	Goroutines int    `json:"goroutines"`
	HeapLive   uint64 `json:"heap_live" doc:"bytes in use after the garbage collection that this question causes"`
	OpenFiles  int    `json:"open_files" doc:"-1: unknown"`
}

// CallChange is what a person wants of a running call; what is absent stays as it is.
type CallChange struct {
	Hold  *bool  `json:"hold,omitempty" doc:"nothing is sent or received, for now"`
	Mute  *bool  `json:"mute,omitempty" doc:"this device sends no sound"`
	Video string `json:"video,omitempty" enum:"on,receive,off" doc:"on: both pictures; receive: only theirs; off: none"`
}

// PairState is an open window on a new device, or the last one.
type PairState struct {
	State   string    `json:"state" enum:"closed,open,naming,joining,joined,failed" doc:"naming: the code was proved, and a person names this device"`
	Code    string    `json:"code,omitempty"`
	ShortID string    `json:"short_id,omitempty"`
	QR      string    `json:"qr,omitempty"`
	Until   time.Time `json:"until,omitzero"`
	Home    string    `json:"home,omitempty" doc:"name of the home it is about to join"`
	Name    string    `json:"name,omitempty" doc:"what it will be called there"`
	Room    string    `json:"room,omitempty"`
	Reason  string    `json:"reason,omitempty"`
}

// InviteState is a join token.
type InviteState struct {
	Token string    `json:"token"`
	Until time.Time `json:"until"`
}

// AddRequest admits a device that shows a code.
type AddRequest struct {
	Code string       `json:"code"`
	ID   string       `json:"id,omitempty" doc:"its 4 characters; needed when several devices wait"`
	Addr string       `json:"addr,omitempty" doc:"host:port, where multicast does not reach"`
	Name string       `json:"name,omitempty"`
	Room string       `json:"room,omitempty"`
	Role devices.Role `json:"role,omitempty" enum:"owner,device"`
}

// Candidate is a device whose code was proved. It belongs to nothing yet.
type Candidate struct {
	ID      string        `json:"id" doc:"its 4 characters"`
	Class   devices.Class `json:"class"`
	Is      string        `json:"is" doc:"the class in words"`
	Name    string        `json:"name" doc:"what it wants to be called"`
	Room    string        `json:"room,omitempty" doc:"where it says it stands"`
	Version string        `json:"version"`
}

// Check is one finding of the doctor.
type Check struct {
	Name   string `json:"name"`
	Device string `json:"device,omitempty" doc:"where a name has several devices: which one"`
	Level  string `json:"level" enum:"ok,warn,fail,skip" doc:"skip: could not be tried"`
	Words  string `json:"words"`
	Advice string `json:"advice,omitempty"`
}

// Diagnosis says whether one device can call a name, and if not, why.
type Diagnosis struct {
	From   string  `json:"from"`
	To     string  `json:"to"`
	OK     bool    `json:"ok"`
	Cause  string  `json:"cause,omitempty" doc:"the leg that fails first"`
	Words  string  `json:"words" doc:"the verdict, one sentence"`
	Advice string  `json:"advice,omitempty"`
	Legs   []Check `json:"legs"`
}

// Event is one entry of the stream; exactly one of the bodies is set.
type Event struct {
	Kind    string             `json:"kind" enum:"directory,call,pairing"`
	Change  *devices.Change    `json:"change,omitempty"`
	Call    *sessions.CallInfo `json:"call,omitempty"`
	Pairing *PairState         `json:"pairing,omitempty"`
}

// Alive is sent every 2 s on a browser's stream.
type Alive struct{}

// Rooms lists the names that are no devices.
type Rooms struct {
	Rooms   []devices.Room  `json:"rooms"`
	Groups  []devices.Group `json:"groups"`
	Persons []PersonNow     `json:"persons"`
}

// PersonNow is a person, and whether a call would disturb them.
type PersonNow struct {
	devices.Person
	Presence devices.Presence `json:"presence" enum:"free,busy,dnd,away" doc:"the best of the person's phones; away: none is connected"`
	WakesBy  []string         `json:"wakes_by,omitempty" doc:"push services outside the home that wake the person's phones, because these asked for it"`
}

// Devices lists members and what else is in sight.
type Devices struct {
	Devices []devices.Device  `json:"devices"`
	Adopted []devices.Device  `json:"adopted" doc:"foreign devices that have a name here; node is the one that speaks for it"`
	Panels  []devices.Device  `json:"panels" doc:"wall panels that are browsers: persons who have a room; node is the one through which it is reached"`
	Foreign []devices.Foreign `json:"foreign"`
}

// Profiles lists the classes of device.
type Profiles struct {
	Profiles []profiles.Profile `json:"profiles"`
}
