package pairing

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hallway-home/hallway/devices"
	"github.com/hallway-home/hallway/devices/trust"
)

// A look-alike announces the device's short ID and answers with its own key. It knows
// everything but the code, so it can neither be proved to nor learn the code.
func TestLookAlikeWithAnotherKeyIsRefused(t *testing.T) {
	owner, evil := newKey(t), newKey(t)
	w, err := OpenWindow(newStore(t), "111222333", 0) // its own code, for want of the right one
	if err != nil {
		t.Fatal(err)
	}
	c, s := pipe(t, owner, evil)
	verified := verify(s, w)
	err = c.Prove("555666777")
	if !errors.Is(err, ErrWrongCode) || !strings.Contains(err.Error(), "not the device that shows it") {
		t.Fatalf("the owner's side: %v", err)
	}
	if err := <-verified; !errors.Is(err, ErrWrongCode) {
		t.Fatalf("the look-alike's side: %v", err)
	}
}

// Each thing that an exchange is bound to: with any one of them different, the right
// code proves nothing.
func TestExchangeIsBoundToKeysChannelAndWindow(t *testing.T) {
	a, b, other := newKey(t), newKey(t), newKey(t)
	salt := make([]byte, saltLen)
	w0, w1, err := scalars("555666777", salt)
	if err != nil {
		t.Fatal(err)
	}
	l, err := registration(w1)
	if err != nil {
		t.Fatal(err)
	}
	run := func(prover, verifier Parties) error {
		p, err := proverWith(w0, w1, randomScalar(), prover)
		if err != nil {
			return err
		}
		v := verifierWith(w0, l, randomScalar(), verifier)
		shareV, tag, err := v.answer(p.shareP)
		if err != nil {
			return err
		}
		confirm, err := p.finish(shareV, tag)
		if err != nil {
			return err
		}
		return v.confirm(confirm)
	}
	link := &Link{binder: bytes.Repeat([]byte{1}, 32)}
	right := link.parties(&a.PublicKey, &b.PublicKey, []byte("window"))
	if err := run(right, right); err != nil {
		t.Fatal(err)
	}
	relayed := &Link{binder: bytes.Repeat([]byte{2}, 32)}
	for what, p := range map[string]Parties{
		"another channel":      relayed.parties(&a.PublicKey, &b.PublicKey, []byte("window")),
		"another verifier key": link.parties(&a.PublicKey, &other.PublicKey, []byte("window")),
		"another prover key":   link.parties(&other.PublicKey, &b.PublicKey, []byte("window")),
		"sides changed":        link.parties(&b.PublicKey, &a.PublicKey, []byte("window")),
		"another window":       link.parties(&a.PublicKey, &b.PublicKey, []byte("other")),
	} {
		if err := run(p, right); !errors.Is(err, ErrWrongCode) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestBadSharesAreRefused(t *testing.T) {
	salt := make([]byte, saltLen)
	w0, w1, _ := scalars("555666777", salt)
	l, _ := registration(w1)
	masked, _ := share(make([]byte, 32), w0, constant(constM)) // 0*P + w0*M: the neutral element once unmasked
	off := append([]byte{4}, make([]byte, 64)...)
	for what, b := range map[string][]byte{
		"nothing": nil, "neutral element": {0}, "masked neutral element": masked, "point off the curve": off,
		"compressed point": constant(constM).BytesCompressed(), "too long": make([]byte, 66),
	} {
		v := verifierWith(w0, l, randomScalar(), Parties{})
		if _, _, err := v.answer(b); !errors.Is(err, errShare) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestTwentyWrongCodesCloseTheWindow(t *testing.T) {
	a, b := newKey(t), newKey(t)
	store := newStore(t)
	w, err := OpenWindow(store, "555666777", 0)
	if err != nil {
		t.Fatal(err)
	}
	w.w.Failures = maxFailures - 1
	c, s := pipe(t, a, b)
	verified := verify(s, w)
	if err := c.Prove("111222333"); !errors.Is(err, ErrWrongCode) {
		t.Fatal(err)
	}
	if err := <-verified; !errors.Is(err, ErrWrongCode) {
		t.Fatal(err)
	}
	select {
	case <-w.Done():
	default:
		t.Error("nobody is told that the window closed")
	}
	c, s = pipe(t, a, b)
	verified = verify(s, w)
	if err := c.Prove("555666777"); !errors.Is(err, ErrGuessing) { // right, but too late
		t.Errorf("%v", err)
	}
	if err := <-verified; !errors.Is(err, ErrGuessing) {
		t.Errorf("%v", err)
	}
}

// A guess is on disk before its answer leaves: whoever cuts the power after seeing the
// answer has spent it.
func TestGuessIsStoredBeforeItsAnswer(t *testing.T) {
	store := newStore(t)
	w, err := OpenWindow(store, "555666777", 0)
	if err != nil {
		t.Fatal(err)
	}
	p, err := newProver("111222333", w.w.Salt, Parties{})
	if err != nil {
		t.Fatal(err)
	}
	var counted int
	conn := &script{t: t, in: []message{{Kind: "share", Share: p.shareP}}, sent: func(m message) {
		if m.Kind != "answer" {
			return
		}
		if r, err := RestoreWindow(store); err == nil && r != nil {
			counted = r.w.Failures
		}
	}}
	k := newKey(t)
	if err := (&Link{conn: conn, Self: &k.PublicKey, Peer: &k.PublicKey}).Verify(w); !errors.Is(err, ErrAborted) {
		t.Fatal(err)
	}
	if counted != 1 {
		t.Fatalf("%d guesses were stored when the answer left", counted)
	}
}

// script is a peer that sends a fixed list of messages.
type script struct {
	t    testing.TB
	in   []message
	buf  bytes.Buffer
	sent func(message)
}

func (s *script) Read(b []byte) (int, error) {
	if s.buf.Len() == 0 {
		if len(s.in) == 0 {
			return 0, io.EOF
		}
		l := &Link{conn: &s.buf}
		if err := l.send(s.in[0]); err != nil {
			s.t.Fatal(err)
		}
		s.in = s.in[1:]
	}
	return s.buf.Read(b)
}

func (s *script) Write(b []byte) (int, error) {
	if m, err := readMessage(bytes.NewReader(b)); err == nil && s.sent != nil {
		s.sent(m)
	}
	return len(b), nil
}

func TestReplacedWindowDoesNotComeBack(t *testing.T) {
	store := newStore(t)
	old, err := OpenWindow(store, "555666777", 0)
	if err != nil {
		t.Fatal(err)
	}
	fresh, err := OpenWindow(store, "777666555", 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := old.attempt(); !errors.Is(err, ErrClosed) {
		t.Fatalf("a guess at a replaced code: %v", err)
	}
	if err := old.Close(); err != nil {
		t.Fatal(err)
	}
	w, err := RestoreWindow(store)
	if err != nil || w == nil || !bytes.Equal(w.w.ID, fresh.w.ID) {
		t.Fatalf("the new window is gone: %v", err)
	}
}

func TestClockCannotKeepAWindowOpen(t *testing.T) {
	store := newStore(t)
	w, err := OpenWindow(store, "555666777", 0)
	if err != nil {
		t.Fatal(err)
	}
	w.w.Until = time.Now().Add(24 * time.Hour) // opened when the clock was a day ahead
	if err := w.save("x", false); err != nil {
		t.Fatal(err)
	}
	if w, err := RestoreWindow(store); w != nil || err != nil {
		t.Fatalf("open until %v: %v", w.Until(), err)
	}
	if err := store.Update("x", func(tx devices.Tx) error { return tx.Put(devices.BucketPairing, windowKey, []byte("garbage")) }); err != nil {
		t.Fatal(err)
	}
	if w, err := RestoreWindow(store); w != nil || err != nil {
		t.Fatalf("a damaged window keeps the node from starting: %v", err)
	}
}

// invited joins dev by a token to the owner's home.
func invited(t *testing.T, owner, dev *ecdsa.PrivateKey, ownerLog, devLog *trust.Log, devStore *devices.Store, identify func(Invitation) error) (ownerErr, devErr error) {
	t.Helper()
	tok := NewToken(devices.NodeIDOf(&owner.PublicKey), "")
	w, err := OpenWindow(newStore(t), tok.Secret, 0)
	if err != nil {
		t.Fatal(err)
	}
	c, s := pipe(t, dev, owner)
	done := make(chan error, 1)
	go func() {
		if err := <-verify(s, w); err != nil {
			done <- err
			return
		}
		_, err := s.Admit(Owner{Log: ownerLog, Key: owner})
		done <- err
	}()
	if err := c.Prove(tok.Secret); err != nil {
		t.Fatal(err)
	}
	devErr = c.Join(Joiner{
		Store: devStore, Log: devLog, Identify: identify,
		About: About{Class: devices.ClassCamera, Name: "Front\x1b[31m Door\u202e", Room: "Hall"},
	})
	return <-done, devErr
}

func TestDeviceJoinsByToken(t *testing.T) {
	owner, dev := newKey(t), newKey(t)
	ownerLog, devStore := newLog(t, newStore(t)), newStore(t)
	devLog := newLog(t, devStore)
	if _, err := ownerLog.Create(owner, trust.CreateParams{HomeName: "Rose Cottage", Name: "TV"}); err != nil {
		t.Fatal(err)
	}
	no := errors.New("not my home")
	ownerErr, devErr := invited(t, owner, dev, ownerLog, devLog, devStore, func(Invitation) error { return no })
	if !errors.Is(devErr, no) || ownerErr == nil || ownerLog.Roster().Epoch != 1 {
		t.Fatalf("the device said no: %v, %v, %+v", devErr, ownerErr, ownerLog.Roster())
	}
	if p, err := LoadPending(devStore); p != nil || err != nil {
		t.Fatal("it keeps asking", p, err)
	}
	var shown Invitation
	ownerErr, devErr = invited(t, owner, dev, ownerLog, devLog, devStore, func(i Invitation) error { shown = i; return nil })
	if err := errors.Join(ownerErr, devErr); err != nil {
		t.Fatal(err)
	}
	m := devLog.Roster().Members[devices.NodeIDOf(&dev.PublicKey)]
	if m.Name != "Front[31m Door" || m.Name != shown.Name || m.Slug != "front-31m-door" || m.Room != "hall" || m.Role != devices.RoleDevice {
		t.Fatalf("%+v, shown %+v", m, shown)
	}
	if _, devErr = invited(t, owner, dev, ownerLog, devLog, devStore, nil); !errors.Is(devErr, trust.ErrHomeExists) {
		t.Fatalf("it joined twice: %v", devErr)
	}
}

// A device that crashed in mid-joining and was removed meanwhile gives up.
func TestRemovedDeviceStopsAsking(t *testing.T) {
	owner, dev := newKey(t), newKey(t)
	ownerLog, devStore := newLog(t, newStore(t)), newStore(t)
	if _, err := ownerLog.Create(owner, trust.CreateParams{Name: "TV"}); err != nil {
		t.Fatal(err)
	}
	m, err := ownerLog.Admit(owner, trust.Candidate{Key: devices.CompressedKey(&dev.PublicKey), Name: "Cam"})
	if err != nil {
		t.Fatal(err)
	}
	if err := ownerLog.Remove(owner, m.Slug); err != nil {
		t.Fatal(err)
	}
	p := Pending{Invitation{Home: ownerLog.Roster().Home}, devices.CompressedKey(&owner.PublicKey), ""}
	if err := savePending(devStore, p); err != nil {
		t.Fatal(err)
	}
	c, s := pipe(t, dev, owner)
	go func() {
		_, _ = s.First()
		_ = s.AnswerResume(ownerLog)
	}()
	if err := c.Resume(devStore, newLog(t, devStore), p); !errors.Is(err, trust.ErrRemoved) {
		t.Fatal(err)
	}
	if p, err := LoadPending(devStore); p != nil || err != nil {
		t.Fatal("it keeps asking", p, err)
	}
}

// Strangers who connect, ask and then say nothing keep nobody out.
func TestSilentStrangersDoNotBlock(t *testing.T) {
	owner, dev := newKey(t), newKey(t)
	w, err := OpenWindow(newStore(t), "555666777", 0)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		c, s := pipe(t, newKey(t), dev)
		verified := verify(s, w)
		if err := c.send(message{Kind: "hello"}); err != nil {
			t.Fatal(err)
		}
		if _, err := c.receive("window"); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := <-verified; err == nil {
				t.Error("a silent stranger was let in")
			}
		})
		t.Cleanup(func() { s.limit(0) })
	}
	c, s := pipe(t, owner, dev)
	verified := verify(s, w)
	if err := c.Prove("555666777"); err != nil {
		t.Fatal(err)
	}
	if err := <-verified; err != nil {
		t.Fatal(err)
	}
}

func TestSilenceIsBounded(t *testing.T) {
	a, b := newKey(t), newKey(t)
	_, s := pipe(t, a, b)
	var limits []time.Duration
	s.limit = func(d time.Duration) { limits = append(limits, d) }
	s.conn = &script{t: t, in: []message{{Kind: "hello"}, {Kind: "share", Share: make([]byte, 65)}}}
	w, err := OpenWindow(newStore(t), "555666777", 0)
	if err != nil {
		t.Fatal(err)
	}
	if kind, err := s.First(); kind != "hello" || err != nil {
		t.Fatal(kind, err)
	}
	if err := s.Verify(w); !errors.Is(err, errShare) {
		t.Fatal(err)
	}
	if !slices.Equal(limits, []time.Duration{exchangeTime, shareTime, exchangeTime}) || w.w.Failures != 1 {
		t.Fatalf("%v, %d guesses", limits, w.w.Failures)
	}
}

// Whatever a stranger sends, in whatever order, neither side of an exchange believes it.
func FuzzStep(f *testing.F) {
	owner, dev := newKey(f), newKey(f)
	log := newLog(f, newStore(f))
	if _, err := log.Create(owner, trust.CreateParams{Name: "TV"}); err != nil {
		f.Fatal(err)
	}
	store := newStore(f)
	w, err := OpenWindow(store, "555666777", MaxOpen)
	if err != nil {
		f.Fatal(err)
	}
	devStore := newStore(f)
	devLog := newLog(f, devStore)
	good, err := newProver("111222333", w.w.Salt, Parties{})
	if err != nil {
		f.Fatal(err)
	}
	frames := func(list ...message) []byte {
		var b bytes.Buffer
		for _, m := range list {
			if err := (&Link{conn: &b}).send(m); err != nil {
				f.Fatal(err)
			}
		}
		return b.Bytes()
	}
	f.Add(byte(0), frames(message{Kind: "share", Share: good.shareP}, message{Kind: "confirm", Tag: make([]byte, 32)}))
	f.Add(byte(1), frames(message{Kind: "window", Salt: w.w.Salt, Window: w.w.ID}, message{Kind: "answer", Share: good.shareP, Tag: make([]byte, 32)}))
	f.Add(byte(2), frames(message{Kind: "home", Home: &Invitation{Home: log.Roster().Home}}, message{Kind: "roster", Edits: log.Edits()}))
	f.Add(byte(3), frames(message{Kind: "error", Error: "busy"}))
	f.Fuzz(func(t *testing.T, side byte, b []byte) {
		l := &Link{conn: struct {
			io.Reader
			io.Writer
		}{bytes.NewReader(b), io.Discard}, binder: make([]byte, 32), Self: &dev.PublicKey, Peer: &owner.PublicKey}
		var err error
		switch side % 4 {
		case 0:
			w.w.Failures = 0
			err = l.Verify(w)
		case 1:
			err = l.Prove("555666777")
		case 2:
			err = l.Join(Joiner{Store: devStore, Log: devLog, Identify: func(Invitation) error { return nil }})
		case 3:
			err = l.Resume(devStore, devLog, Pending{Owner: devices.CompressedKey(&owner.PublicKey), Invitation: Invitation{Home: log.Roster().Home}})
		}
		if err == nil || devLog.Roster() != nil {
			t.Fatal("a stranger was believed")
		}
	})
}

func FuzzCode(f *testing.F) {
	for _, s := range []string{"123 123 123", string(NewCode()), NewToken(devices.NodeID{9}, "h:1").String(), "hw1-0000-" + strings.Repeat("0", 26), "", "١٢٣٤٥٦٧٨٩"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if c, err := ParseCode(s); err == nil {
			if again, err := ParseCode(c.String()); err != nil || again != c {
				t.Errorf("%q reads %q, which reads %q", s, c, again)
			}
		}
		if tok, err := ParseToken(s); err == nil {
			if again, err := ParseToken(tok.String()); err != nil || again != tok {
				t.Errorf("%q reads %q, which reads %q", s, tok, again)
			}
		}
	})
}

func TestExchangeEndsWithItsContext(t *testing.T) {
	a, b := newKey(t), newKey(t)
	ctx, cancel := context.WithCancel(t.Context())
	conn, _ := tlsPipe(t, a, b)
	l, err := NewLink(ctx, conn, &a.PublicKey, true)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Done()
	cancel()
	if _, err := l.First(); !errors.Is(err, ErrAborted) {
		t.Fatal(err)
	}
}
