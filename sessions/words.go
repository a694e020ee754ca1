package sessions

import (
	"errors"
	"fmt"

	"github.com/emiago/sipgo/sip"
)

// Status codes that the library has no name for.
const (
	statusOK          = 200
	statusForbidden   = 403
	statusNotFound    = 404
	statusUnavailable = 480
	statusInterval    = 422 // RFC 4028
	statusNoCall      = 481
	statusBusy        = 486
	statusCancelled   = 487
	statusNotAccept   = 488
	statusPending     = 491
	statusLater       = 500 // with Retry-After: not now (RFC 3261 section 14.2)
	statusDecline     = 603
)

// refusal is a SIP status with the words that go with it.
type refusal struct {
	code  int
	words string
}

func (r refusal) Error() string { return r.words }

// ErrQuiet is how somebody refuses who does not want to be disturbed; the caller is told so in words.
var ErrQuiet error = refusal{statusUnavailable, "Do Not Disturb"}

// statusOf maps every error of this package to a SIP status, in this one place.
func statusOf(err error) (int, string) {
	var r refusal
	switch {
	case err == nil:
		return statusOK, "OK"
	case errors.As(err, &r):
		return r.code, r.words
	case errors.Is(err, ErrNoCommonCodec):
		return statusNotAccept, "Not Acceptable Here"
	case errors.Is(err, ErrUnknown):
		return statusNotFound, "Not Found"
	case errors.Is(err, ErrTooMany):
		return statusBusy, "Busy Here"
	}
	return sip.StatusInternalServerError, "Internal Server Error"
}

// words says what a final status means to the person who called name. It is the one
// catalogue for command line, API and app.
func words(code int, name string) string {
	switch code {
	case statusForbidden:
		return fmt.Sprintf("%s does not take calls from this device.", name)
	case statusNotFound:
		return fmt.Sprintf("%s is not known there; it may just have been renamed or removed. Try again.", name)
	case sip.StatusRequestTimeout, statusUnavailable:
		return fmt.Sprintf("Nobody answered at %s.", name)
	case statusBusy:
		return fmt.Sprintf("%s is busy.", name)
	case statusCancelled:
		return "The call was cancelled."
	case statusNotAccept, 406, 415:
		return fmt.Sprintf("%s and this device share no way to send sound or picture (no common codec).", name)
	case statusDecline:
		return fmt.Sprintf("%s declined the call.", name)
	case sip.StatusInternalServerError:
		return fmt.Sprintf("%s could not take the call for a reason of its own; its log says which.", name)
	case sip.StatusServiceUnavailable:
		return fmt.Sprintf("%s cannot be reached now. Check that it is on and connected; `hallway doctor` helps.", name)
	}
	return fmt.Sprintf("%s could not take the call (SIP status %d).", name, code)
}

// rank orders failures of several devices: the one that tells the caller most wins.
func rank(code int) int {
	order := []int{statusDecline, statusBusy, statusUnavailable, statusForbidden, statusNotAccept, sip.StatusServiceUnavailable}
	for i, c := range order {
		if c == code {
			return i
		}
	}
	return len(order)
}

// oneWay begins the sentence about media that do not get through.
func oneWay(kinds []string) string {
	switch {
	case len(kinds) > 1:
		return "Neither sound nor picture"
	case kinds[0] == "video":
		return "No picture"
	}
	return "No sound"
}
