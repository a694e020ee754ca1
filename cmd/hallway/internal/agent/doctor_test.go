package agent

import (
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"unicode"

	"github.com/hallway-home/hallway/cmd/hallway/internal/doctor"
	"github.com/hallway-home/hallway/devices/overlay"
	"github.com/hallway-home/hallway/devices/trust"
)

func TestOutcomeOfDials(t *testing.T) {
	wrap := func(errs ...error) error { return fmt.Errorf("dial: %w", errors.Join(errs...)) }
	for _, c := range []struct {
		err  error
		want doctor.Outcome
	}{
		{nil, doctor.Good},
		{wrap(overlay.ErrNoConnection, syscall.ECONNREFUSED), doctor.Refused},
		{wrap(overlay.ErrNoConnection, syscall.EHOSTUNREACH), doctor.NoRoute},
		{wrap(overlay.ErrNoConnection, syscall.ENETUNREACH), doctor.NoRoute},
		{wrap(overlay.ErrNoConnection, os.ErrDeadlineExceeded), doctor.Silent},
		{wrap(trust.ErrStranger), doctor.Stranger},
		{wrap(overlay.ErrOtherNode), doctor.OtherNode},
		{wrap(overlay.ErrRefused), doctor.Unwanted},
		{wrap(overlay.ErrPeerFull), doctor.Full},
		{wrap(tls.RecordHeaderError{Msg: "first record does not look like a TLS handshake"}), doctor.OtherThing},
		{wrap(os.ErrDeadlineExceeded), doctor.Mute},
		{errors.New("odd"), doctor.OtherThing},
	} {
		if got := outcomeOf(c.err); got != c.want {
			t.Errorf("%v: %d, want %d", c.err, got, c.want)
		}
	}
}

// Whatever another member's doctor says, what is shown of it is short and steers no terminal.
func FuzzReply(f *testing.F) {
	f.Add([]byte(`{"epoch":3,"heads":["00"],"diagnosis":{"from":"TV","to":"Panel","ok":true,"words":"TV can call Panel.","legs":[{"name":"port","level":"ok","words":"connected"}]}}`))
	f.Add([]byte(`{"diagnosis":{"words":"` + "\\u001b[2J\\u202e" + strings.Repeat("ä", 600) + `","legs":[` + strings.Repeat(`{"name":"\u0000"},`, 200) + `{}]}}`))
	f.Add([]byte(`{"epoch":-1}`))
	f.Add([]byte(`[]`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		r, err := readReply(raw)
		if err != nil || r.Diagnosis == nil {
			return
		}
		texts := []string{r.Diagnosis.From, r.Diagnosis.To, r.Diagnosis.Cause, r.Diagnosis.Words, r.Diagnosis.Advice}
		for _, l := range r.Diagnosis.Legs {
			texts = append(texts, l.Name, l.Device, l.Level, l.Words, l.Advice)
		}
		if len(r.Diagnosis.Legs) > maxFindings {
			t.Errorf("%d findings", len(r.Diagnosis.Legs))
		}
		for _, s := range texts {
			if len(s) > maxWords || strings.ContainsFunc(s, unicode.IsControl) || strings.ContainsRune(s, 0x202e) {
				t.Errorf("%q is shown", s)
			}
		}
	})
}
