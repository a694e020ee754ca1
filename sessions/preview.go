package sessions

import (
	"errors"
	"regexp"
	"strings"

	"github.com/emiago/sipgo/sip"

	"github.com/hallway-home/hallway/devices"
)

// A caller shows its picture while it rings: its INVITE names it by a Call-Info (RFC 3261
// section 20.9) with purpose=preview, `<sip:anna@home;gr=TOKEN>`. The token is one that nobody
// guesses; as in a GRUU (RFC 5627) it leads to the very device, or page, that calls, and only
// while its call rings.

// previewToken is 128 bits or more, in hexadecimal.
var previewToken = regexp.MustCompile(`^[0-9a-f]{32,64}$`)

// ErrPreview says that the Call-Info names a picture that is not the caller's.
var ErrPreview error = refusal{statusForbidden, "Not The Caller's Picture"}

// PreviewToken is the token of a URI that means the picture of a ringing call; else "".
func PreviewToken(u sip.Uri) string {
	if v, ok := u.UriParams.Get("gr"); ok && previewToken.MatchString(v) {
		return v
	}
	return ""
}

// PreviewOf is the token of the picture that an INVITE names; "" if it names none. Error:
// ErrPreview when it is not its caller's own: who rings would call somebody else for them.
func PreviewOf(req *sip.Request) (string, error) {
	token := ""
	for _, h := range req.GetHeaders("Call-Info") {
		for value := range strings.SplitSeq(h.Value(), ",") {
			if !strings.Contains(value, "purpose=preview") {
				continue
			}
			u, err := previewURI(value)
			from := req.From().Address
			if err != nil || token != "" || u.Scheme != "sip" || u.User != from.User || !strings.EqualFold(u.Host, from.Host) || PreviewToken(u) == "" { // check: caller's own picture
				return "", ErrPreview
			}
			token = PreviewToken(u)
		}
	}
	return token, nil
}

func previewURI(value string) (u sip.Uri, err error) {
	_, value, found := strings.Cut(value, "<")
	value, _, closed := strings.Cut(value, ">")
	if !found || !closed {
		return u, errors.New("no URI")
	}
	return u, sip.ParseUri(value, &u)
}

// PreviewURI means the picture of a ringing call of a device or person.
func PreviewURI(caller devices.AOR, token string) sip.Uri {
	u := uri(caller)
	u.UriParams = sip.HeaderParams{{K: "gr", V: token}}
	return u
}
