package doctor

import (
	"net/netip"
	"time"

	"github.com/hallway-home/hallway/devices"
	"github.com/hallway-home/hallway/profiles"
)

// Facts are what one node found out about a call from itself to a name. The probes fill
// them; Diagnose says what they mean.
type Facts struct {
	From    Caller
	To      string // as asked, a slug
	Kind    devices.AORKind
	Name    string // what people call it; "" when nothing has that name
	Missing Missing
	Devices []Callee // behind the name, without the caller
	More    int      // further devices that were not examined
}

// Caller is the node that examines.
type Caller struct {
	Name  string
	Fault string   // why it cannot call anybody at all, e.g. that it belongs to no home
	Links []string // interfaces that are up and connected
	Loose []string // interfaces that are up without cable or Wi-Fi
}

// Missing says what is known of a name that nothing in the home has.
type Missing struct {
	Itself    bool // the name means only the caller
	Removed   bool // a device of that name was removed
	OtherHome []string
	NoHome    []string // Hallway devices in sight, by what they call themselves
}

// Callee is one device behind the name.
type Callee struct {
	Slug, Name string
	By         string    // what people call the caller
	NeverSeen  bool      // admitted, but it has not come yet
	LastHeard  time.Time // on a flow; zero: not since this agent started
	Now        time.Time

	Sighted   bool // mDNS or another discovery protocol shows it
	SightedAt time.Time

	Addrs  []netip.AddrPort // where its member port may be
	Near   bool             // one of them is on a network of the caller
	Flow   netip.AddrPort   // of the connection that is up; zero without one
	Dialed []Dial

	SIP    Answer
	Roster Rosters
	Media  Path

	Foreign bool   // a camera: By speaks to the device that speaks for it
	Here    bool   // the caller itself speaks for it
	Speaker string // who speaks for it, as people call it
	Fault   string // why it does not answer its speaker

	Match    profiles.MatchResult
	MatchErr error
}

// Outcome of a dial.
type Outcome int

// The ways in which a dial ends.
const (
	Silent     Outcome = iota // no packet came back
	NoRoute                   // this node has no way there, or nobody has the address
	Refused                   // the machine answers, but nothing listens
	Mute                      // TCP stands, but nothing is said: a hung program, or a firewall in between
	Good                      // the device answered and takes this node
	OtherThing                // something answers that is no Hallway device
	Stranger                  // a Hallway device that does not belong to this home
	OtherNode                 // another device of this home
	Unwanted                  // the device itself does not take this node
	Full                      // it has as many connections as it takes
)

// Dial is one address and how the dial ended.
type Dial struct {
	Addr    netip.AddrPort
	Outcome Outcome
	Err     string
}

// Answer is what SIP OPTIONS brought.
type Answer struct {
	Err   string // it gave none
	Code  int    // what a call would get now
	Words string
	Took  time.Duration
}

// Rosters are the two lists of who belongs, as far as they can be compared.
type Rosters struct {
	Err    string // the other side did not say
	Equal  bool
	Mine   uint64 // number of edits
	Theirs uint64
}

// Path is the trial of the media path.
type Path struct {
	Tried         bool
	Err           string
	Blocked       bool // both sides tried and no packet came through
	Local, Remote string
	Took          time.Duration
}
