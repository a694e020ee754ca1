package sessions

import (
	"github.com/emiago/sipgo/sip"

	"github.com/hallway-home/hallway/devices"
)

// dialog is one SIP dialog (RFC 3261 section 12) with its leg. Its fields are guarded by
// the call's mutex, except those that never change after it is made.
type dialog struct {
	peer          devices.NodeID
	device        devices.Device // at the other end, as the directory said
	callID        string
	local, remote sip.Uri
	localName     string
	target        sip.Uri // remote target
	localTag      string
	remoteTag     string
	session       string // our half of the Session-ID
	remoteSession string
	localSeq      uint32
	remoteSeq     uint32
	leg           Leg

	invite      *sip.Request // the INVITE that made it
	established bool         // by a 2xx: only a BYE ends it
}

// key names a dialog among all of this agent.
type dialogKey struct{ callID, localTag string }

func (d *dialog) key() dialogKey { return dialogKey{d.callID, d.localTag} }
