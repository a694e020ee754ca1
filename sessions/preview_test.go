package sessions

import (
	"strings"
	"testing"

	"github.com/emiago/sipgo/sip"

	"github.com/hallway-home/hallway/devices"
)

// An INVITE names the picture of its own caller, by a token, or it is refused.
func TestPreviewOf(t *testing.T) {
	home := devices.HomeID{0xaa}
	anna, token := devices.AOR{Slug: "anna", Home: home}, strings.Repeat("0a", 16)
	own := "<" + anna.String() + ";gr=" + token + ">;purpose=preview"
	for _, c := range []struct {
		headers []string
		want    string
		refused bool
	}{
		{nil, "", false},
		{[]string{own}, token, false},
		{[]string{"<http://192.0.2.1/anna.png>;purpose=icon, " + own}, token, false},
		{[]string{"<http://192.0.2.1/anna.png>;purpose=icon"}, "", false},
		{[]string{own, own}, "", true},
		{[]string{strings.Replace(own, "anna", "ben", 1)}, "", true},
		{[]string{strings.Replace(own, "home.arpa", "example.org", 1)}, "", true},
		{[]string{strings.Replace(own, "sip:", "sips:", 1)}, "", true},
		{[]string{strings.Replace(own, token, "phones", 1)}, "", true},
		{[]string{strings.Replace(own, token, "0a", 1)}, "", true},
		{[]string{"<" + anna.String() + ">;purpose=preview"}, "", true},
		{[]string{anna.String() + ";gr=" + token + ";purpose=preview"}, "", true},
	} {
		req := sip.NewRequest(sip.INVITE, sip.Uri{})
		req.AppendHeader(&sip.FromHeader{Address: uri(anna)})
		for _, h := range c.headers {
			req.AppendHeader(sip.NewHeader("Call-Info", h))
		}
		got, err := PreviewOf(req)
		if got != c.want || (err != nil) != c.refused {
			t.Errorf("%q: %q %v", c.headers, got, err)
		}
	}
	if u := PreviewURI(anna, token); PreviewToken(u) != token || MeansPhones(u) || PreviewToken(PhonesURI(anna)) != "" {
		t.Errorf("%v", u)
	}
}
