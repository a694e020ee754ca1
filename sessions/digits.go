package sessions

import (
	"regexp"
	"strings"

	"github.com/emiago/sipgo/sip"

	"github.com/hallway-home/hallway/devices"
)

const (
	// dtmfRelay and dtmf are the two bodies in which others send a digit by INFO (RFC 6086): lines with
	// Signal and Duration, or the digit alone.
	dtmfRelay, dtmf = "application/dtmf-relay", "application/dtmf"
	// maxDigits of a call are kept, the last ones: a door's code has a few.
	maxDigits = 32
)

var (
	relayedDigit = regexp.MustCompile(`(?im)^Signal\s*=\s*([0-9A-D*#])\s*$`)
	plainDigit   = regexp.MustCompile(`(?i)^\s*([0-9A-D*#])\s*$`)
)

// digitOf reads the digit of an INFO.
func digitOf(req *sip.Request) (string, error) {
	var found []string
	switch bodyType(req) {
	case dtmfRelay:
		found = relayedDigit.FindStringSubmatch(string(req.Body()))
	case dtmf:
		found = plainDigit.FindStringSubmatch(string(req.Body()))
	default:
		return "", refusal{415, "Unsupported Media Type"}
	}
	if found == nil {
		return "", refusal{400, "No Digit"}
	}
	return strings.ToUpper(found[1]), nil
}

// bodyType is the media type of a body without parameters, in lower case.
func bodyType(req *sip.Request) string {
	ct := req.ContentType()
	if ct == nil || len(req.Body()) == 0 {
		return ""
	}
	kind, _, _ := strings.Cut(ct.Value(), ";")
	return strings.ToLower(strings.TrimSpace(kind))
}

// onInfo takes a digit that the other side of a call pressed; watchers hear of each.
func (a *Agent) onInfo(req *sip.Request, tx *sip.ServerTx, peer devices.NodeID) {
	defer a.gate.free(taken(req))
	c, d, err := a.find(req, peer)
	if err != nil {
		a.refuse(req, tx, err)
		return
	}
	c.mu.Lock()
	stale := req.CSeq().SeqNo <= d.remoteSeq
	if !stale {
		d.remoteSeq = req.CSeq().SeqNo
	}
	c.mu.Unlock()
	if stale { // RFC 3261 section 12.2.2
		a.refuse(req, tx, refusal{500, "CSeq Out Of Order"})
		return
	}
	if len(req.Body()) > 0 { // without one it only asks whether the call still lives
		digit, err := digitOf(req)
		if err != nil {
			a.refuse(req, tx, err)
			return
		}
		c.pressed(digit)
	}
	if err := tx.Respond(sip.NewResponseFromRequest(req, statusOK, "OK", nil)); err != nil {
		a.log.Debug("cannot confirm a digit", "err", err)
	}
}

// pressed keeps a digit of the other side and tells the watchers.
func (c *Call) pressed(digit string) {
	c.change(func(i *CallInfo) {
		i.Digits += digit
		i.Digits = i.Digits[max(0, len(i.Digits)-maxDigits):]
	})
}
