package sessions

import (
	"sync/atomic"
	"time"

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
	localSeq      uint32 // atomic: a BYE may overtake a re-INVITE
	remoteSeq     uint32
	leg           Leg

	invite      *sip.Request // the INVITE that made it
	established bool         // by a 2xx: only a BYE ends it

	timer     sessionTimer
	minSE     time.Duration // that the other side asks for (RFC 4028)
	refreshed chan struct{} // holds a signal that timer has changed
}

// key names a dialog among all of this agent.
type dialogKey struct{ callID, localTag string }

func (d *dialog) key() dialogKey { return dialogKey{d.callID, d.localTag} }

// nextSeq is the number of the next request in the dialog (RFC 3261 section 12.2.1.1).
func (d *dialog) nextSeq() uint32 { return atomic.AddUint32(&d.localSeq, 1) }

// direct holds for a foreign device that this node speaks for and shows itself: there is
// nobody to send requests to.
func (d *dialog) direct(a *Agent) bool { return d.peer == a.cfg.Self && d.device.Foreign }
