package pairing

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"sync"
	"time"

	"github.com/hallway-home/hallway/devices"
)

// Phone is a browser's key that asks to belong to somebody.
type Phone struct {
	Key  []byte // compressed P-256
	Name string // of the phone, as it says
}

// phoneContext keeps a proof from meaning anything else.
const phoneContext = "hallway-phone/1\x00"

// ErrDeclined says that the person at the device said no to a phone.
var ErrDeclined = errors.New("the phone was declined on the device; nothing was changed")

// PhoneProof shows that a phone knows the secret of a window, for its own key and name
// alone: a node that carries the proof to the window's node cannot put another key in.
func PhoneProof(secret string, p Phone) []byte {
	m := hmac.New(sha256.New, []byte(secret))
	m.Write([]byte(phoneContext))
	m.Write(p.Key)
	m.Write([]byte(p.Name))
	return m.Sum(nil)
}

// PhoneState is where a window for a phone stands.
type PhoneState string

// The states of a window for a phone.
const (
	PhoneOpen    PhoneState = "open"    // nobody came yet
	PhoneWaits   PhoneState = "waiting" // a phone showed the secret; a person must confirm it
	PhonePaired  PhoneState = "paired"
	PhoneRefused PhoneState = "refused"
	PhoneClosed  PhoneState = "closed"
)

// PhoneWindow lets one phone in: by the secret of a QR code, or by the code that a person
// types. It lives in memory alone, so a restart closes it, and with it the count of
// failures: nothing is gained by switching the device off. Safe for concurrent use.
type PhoneWindow struct {
	Secret string // 128 bit, for the fragment of a URL
	Code   Code   // for typing
	Until  time.Time

	confirm bool
	now     func() time.Time

	mu       sync.Mutex
	failures int
	state    PhoneState
	phone    Phone
	done     chan struct{}
}

// OpenPhoneWindow opens a window for a phone. With confirm a person at the device has the last word.
func OpenPhoneWindow(open time.Duration, confirm bool) *PhoneWindow {
	return openPhoneWindow(open, confirm, time.Now)
}

func openPhoneWindow(open time.Duration, confirm bool, now func() time.Time) *PhoneWindow {
	if open <= 0 {
		open = DefaultOpen
	}
	b := make([]byte, 16)
	_, _ = rand.Read(b) // never fails (crypto/rand)
	return &PhoneWindow{
		Secret: crockford.EncodeToString(b), Code: NewCode(), Until: now().Add(min(open, MaxOpen)),
		confirm: confirm, now: now, state: PhoneOpen, done: make(chan struct{}),
	}
}

// Show looks at a proof and says whether the phone may come in now: true means that the
// caller is to sign its edit and then call Paired. The same phone may ask again and again
// while a person decides; another one finds the window busy.
func (w *PhoneWindow) Show(p Phone, proof []byte) (bool, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.err(); err != nil {
		return false, err
	}
	right := subtle.ConstantTimeCompare(proof, PhoneProof(w.Secret, p)) | subtle.ConstantTimeCompare(proof, PhoneProof(string(w.Code), p))
	if right == 0 { // check: phone secret
		if w.failures++; w.failures >= maxFailures {
			w.end(PhoneClosed)
			return false, ErrGuessing
		}
		return false, ErrWrongCode
	}
	switch {
	case w.phone.Key == nil:
		w.phone = p
		if w.confirm {
			w.state = PhoneWaits
		}
	case string(w.phone.Key) != string(p.Key):
		return false, ErrBusy
	}
	return w.state != PhoneWaits, nil
}

func (w *PhoneWindow) err() error {
	switch {
	case w.state == PhoneRefused:
		return ErrDeclined
	case w.failures >= maxFailures:
		return ErrGuessing
	case w.state == PhoneClosed || w.state == PhonePaired || !w.now().Before(w.Until):
		return ErrClosed
	}
	return nil
}

// Confirm is the word of the person at the device about the phone that waits there.
func (w *PhoneWindow) Confirm(yes bool) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.err(); err != nil {
		return err
	}
	if w.phone.Key == nil {
		return ErrClosed
	}
	if !yes {
		w.end(PhoneRefused)
		return nil
	}
	w.confirm, w.state = false, PhoneOpen
	return nil
}

// Paired closes the window behind the phone that came in.
func (w *PhoneWindow) Paired() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.end(PhonePaired)
}

// Close ends the window.
func (w *PhoneWindow) Close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.end(PhoneClosed)
}

func (w *PhoneWindow) end(s PhoneState) {
	if w.state == PhonePaired || w.state == PhoneClosed || w.state == PhoneRefused {
		return
	}
	w.state = s
	close(w.done)
}

// Done is closed when the window is, by somebody's act.
func (w *PhoneWindow) Done() <-chan struct{} { return w.done }

// State says where it stands, and which phone came.
func (w *PhoneWindow) State() (PhoneState, Phone) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.state
	if (s == PhoneOpen || s == PhoneWaits) && !w.now().Before(w.Until) {
		s = PhoneClosed
	}
	return s, w.phone
}

// PhoneQR is what a phone's camera sees: the companion's URL, with the secret in the
// fragment, where no server logs it.
func PhoneQR(home devices.HomeID, port, secret string) string {
	return "https://" + home.AppHost() + ":" + port + "/#pair=" + secret
}
