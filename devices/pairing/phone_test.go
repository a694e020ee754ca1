package pairing

import (
	"errors"
	"testing"
	"time"
)

func phoneWindow(confirm bool) (*PhoneWindow, *time.Time) {
	now := time.Unix(1000, 0)
	return openPhoneWindow(time.Minute, confirm, func() time.Time { return now }), &now
}

func TestAPhoneComesInBySecretOrCode(t *testing.T) {
	p := Phone{Key: []byte("key"), Name: "Anna's phone"}
	for _, by := range []func(*PhoneWindow) string{func(w *PhoneWindow) string { return w.Secret }, func(w *PhoneWindow) string { return string(w.Code) }} {
		w, _ := phoneWindow(false)
		if ok, err := w.Show(p, PhoneProof(by(w), p)); !ok || err != nil {
			t.Fatal(ok, err)
		}
		w.Paired()
		if _, err := w.Show(p, PhoneProof(by(w), p)); !errors.Is(err, ErrClosed) {
			t.Error("it works twice:", err)
		}
	}
}

// Whoever carries a proof can change neither key nor name.
func TestAProofIsForOneKeyAndName(t *testing.T) {
	w, _ := phoneWindow(false)
	p := Phone{Key: []byte("key"), Name: "Anna"}
	proof := PhoneProof(w.Secret, p)
	for _, other := range []Phone{{Key: []byte("kez"), Name: "Anna"}, {Key: []byte("key"), Name: "Anne"}} {
		if _, err := w.Show(other, proof); !errors.Is(err, ErrWrongCode) {
			t.Error(other, err)
		}
	}
}

func TestAPersonHasTheLastWord(t *testing.T) {
	p, q := Phone{Key: []byte("key")}, Phone{Key: []byte("other")}
	w, _ := phoneWindow(true)
	if err := w.Confirm(true); !errors.Is(err, ErrClosed) {
		t.Error("nobody came yet:", err)
	}
	if ok, err := w.Show(p, PhoneProof(w.Secret, p)); ok || err != nil {
		t.Fatal(ok, err)
	}
	if _, err := w.Show(q, PhoneProof(w.Secret, q)); !errors.Is(err, ErrBusy) {
		t.Error("a second phone:", err)
	}
	if s, who := w.State(); s != PhoneWaits || string(who.Key) != "key" {
		t.Error(s, who)
	}
	if err := w.Confirm(true); err != nil {
		t.Fatal(err)
	}
	if ok, err := w.Show(p, PhoneProof(w.Secret, p)); !ok || err != nil {
		t.Error(ok, err)
	}
	w, _ = phoneWindow(true)
	_, _ = w.Show(p, PhoneProof(w.Secret, p))
	_ = w.Confirm(false)
	if _, err := w.Show(p, PhoneProof(w.Secret, p)); !errors.Is(err, ErrDeclined) {
		t.Error(err)
	}
}

func TestAPhoneWindowCloses(t *testing.T) {
	p := Phone{Key: []byte("key")}
	w, now := phoneWindow(false)
	*now = now.Add(time.Minute)
	if _, err := w.Show(p, PhoneProof(w.Secret, p)); !errors.Is(err, ErrClosed) {
		t.Error("after its time:", err)
	}
	w, _ = phoneWindow(false)
	for range maxFailures - 1 {
		if _, err := w.Show(p, []byte("wrong")); !errors.Is(err, ErrWrongCode) {
			t.Fatal(err)
		}
	}
	if _, err := w.Show(p, []byte("wrong")); !errors.Is(err, ErrGuessing) {
		t.Error(err)
	}
	if _, err := w.Show(p, PhoneProof(w.Secret, p)); !errors.Is(err, ErrGuessing) {
		t.Error("the right secret after 20 wrong ones:", err)
	}
	select {
	case <-w.Done():
	default:
		t.Error("it is not closed")
	}
}
