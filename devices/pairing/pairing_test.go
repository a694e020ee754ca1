package pairing

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"filippo.io/nistec"
	"go.uber.org/goleak"

	"github.com/hallway-home/hallway/devices"
	"github.com/hallway-home/hallway/devices/trust"
)

func TestRFC9383Vector(t *testing.T) {
	raw, err := os.ReadFile(filepath.Join("testdata", "spake2plus-rfc9383.json"))
	if err != nil {
		t.Fatal(err)
	}
	var v map[string]string
	if err := json.Unmarshal(raw, &v); err != nil {
		t.Fatal(err)
	}
	h := func(name string) []byte {
		b, err := hex.DecodeString(v[name])
		if err != nil || len(b) == 0 {
			t.Fatalf("vector %s: %v", name, err)
		}
		return b
	}
	same := func(name string, got []byte) {
		t.Helper()
		if !bytes.Equal(got, h(name)) {
			t.Errorf("%s = %x, want %s", name, got, v[name])
		}
	}
	par := Parties{[]byte(v["idProver"]), []byte(v["idVerifier"]), []byte(v["context"])}
	l, err := registration(h("w1"))
	if err != nil {
		t.Fatal(err)
	}
	same("L", l)
	p, err := proverWith(h("w0"), h("w1"), h("x"), par)
	if err != nil {
		t.Fatal(err)
	}
	same("shareP", p.shareP)
	ver := verifierWith(h("w0"), l, h("y"), par)
	shareV, confirmV, err := ver.answer(p.shareP)
	if err != nil {
		t.Fatal(err)
	}
	same("shareV", shareV)
	same("confirmV", confirmV)
	same("K_main", ver.keys.main)
	same("K_confirmP", ver.keys.confirmP)
	same("K_confirmV", ver.keys.confirmV)
	same("K_shared", ver.keys.shared)
	x, err := unmask(p.shareP, h("w0"), constant(constM))
	if err != nil {
		t.Fatal(err)
	}
	z, _ := mult(x, h("y"))
	same("Z", z)
	lp, _ := nistec.NewP256Point().SetBytes(l)
	vv, _ := mult(lp, h("y"))
	same("V", vv)
	confirmP, err := p.finish(shareV, confirmV)
	if err != nil {
		t.Fatal(err)
	}
	same("confirmP", confirmP)
	if err := ver.confirm(confirmP); err != nil {
		t.Fatal(err)
	}
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func newStore(t testing.TB) *devices.Store {
	s, err := devices.OpenStore(t.TempDir(), devices.StoreOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func newLog(t testing.TB, s *devices.Store) *trust.Log {
	l, err := trust.OpenLog(s)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// tlsPipe is a real TLS connection on loopback between two keys.
func tlsPipe(t testing.TB, client, server *ecdsa.PrivateKey) (c, s *tls.Conn) {
	t.Helper()
	none := func() *devices.Roster { return nil }
	cc, err1 := trust.MemberTLS(client, none, trust.ALPNPair)
	sc, err2 := trust.MemberTLS(server, none, trust.ALPNPair)
	ln, err3 := net.Listen("tcp", "127.0.0.1:0")
	if err := errors.Join(err1, err2, err3); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	accepted := make(chan *tls.Conn, 1)
	go func() {
		defer close(accepted)
		raw, err := ln.Accept()
		if err != nil {
			return
		}
		conn := tls.Server(raw, sc)
		_ = conn.Handshake()
		accepted <- conn
	}()
	c, err := tls.Dial("tcp", ln.Addr().String(), cc)
	if err != nil {
		t.Fatal(err)
	}
	s = <-accepted
	t.Cleanup(func() { _ = c.NetConn().Close(); _ = s.NetConn().Close() })
	return c, s
}

// pipe is an exchange's two ends.
func pipe(t testing.TB, client, server *ecdsa.PrivateKey) (c, s *Link) {
	t.Helper()
	cc, sc := tlsPipe(t, client, server)
	c, err1 := NewLink(context.Background(), cc, &client.PublicKey, true)
	s, err2 := NewLink(context.Background(), sc, &server.PublicKey, false)
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Done(); s.Done() })
	return c, s
}

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// verify runs the verifier's side and reports how it ended.
func verify(s *Link, w *Window) <-chan error {
	out := make(chan error, 1)
	go func() {
		if kind, err := s.First(); err != nil || kind != "hello" {
			out <- errors.Join(errShare, err)
			return
		}
		out <- s.Verify(w)
	}()
	return out
}

// A device is added at once, or says first what it is and waits until it has a name.
func TestOwnerAddsDeviceByCode(t *testing.T) {
	t.Run("at once", func(t *testing.T) { addedByCode(t, false) })
	t.Run("identified first", func(t *testing.T) { addedByCode(t, true) })
}

func addedByCode(t *testing.T, first bool) {
	owner, dev := newKey(t), newKey(t)
	ownerLog, devStore := newLog(t, newStore(t)), newStore(t)
	devLog := newLog(t, devStore)
	if _, err := ownerLog.Create(owner, trust.CreateParams{HomeName: "Rose Cottage", Name: "TV"}); err != nil {
		t.Fatal(err)
	}
	code := NewCode()
	w, err := OpenWindow(devStore, string(code), 0)
	if err != nil {
		t.Fatal(err)
	}
	c, s := pipe(t, owner, dev)
	verified := verify(s, w)
	joined := make(chan error, 1)
	var shown Invitation
	go func() {
		if err := <-verified; err != nil {
			joined <- err
			return
		}
		joined <- s.Join(Joiner{Store: devStore, Log: devLog, About: About{Class: devices.ClassPanel, Name: "Panel", Room: "Kitchen"}, Identify: func(i Invitation) error { shown = i; return nil }})
	}()
	if err := c.Prove(string(code)); err != nil {
		t.Fatal(err)
	}
	if first {
		about, err := c.Identify()
		if err != nil || about.Class != devices.ClassPanel || about.Name != "Panel" || about.Room != "Kitchen" {
			t.Fatalf("%+v %v", about, err)
		}
		if ownerLog.Roster().Has(devices.NodeIDOf(&dev.PublicKey)) || shown.HomeName != "" {
			t.Fatal("it belongs before it was named")
		}
	}
	m, err := c.Admit(Owner{Log: ownerLog, Key: owner, Name: "Kitchen Panel"})
	if err != nil {
		t.Fatal(err)
	}
	if err := <-joined; err != nil {
		t.Fatal(err)
	}
	if m.Slug != "kitchen-panel" || m.Room != "kitchen" || shown.HomeName != "Rose Cottage" || !devLog.Roster().Has(devices.NodeIDOf(&dev.PublicKey)) {
		t.Fatalf("%+v %+v", m, shown)
	}
	if p, err := LoadPending(devStore); p != nil || err != nil {
		t.Fatalf("pending state left: %v %v", p, err)
	}
	if w.Err() == nil {
		t.Fatal("a used code still opens")
	}
}

func TestDeviceAsksAgainAfterCrash(t *testing.T) {
	owner, dev := newKey(t), newKey(t)
	ownerLog, devStore := newLog(t, newStore(t)), newStore(t)
	devLog := newLog(t, devStore)
	if _, err := ownerLog.Create(owner, trust.CreateParams{HomeName: "Home", Name: "TV"}); err != nil {
		t.Fatal(err)
	}
	p := Pending{Invitation{Home: ownerLog.Roster().Home}, devices.CompressedKey(&owner.PublicKey), ""}
	ask := func() error {
		c, s := pipe(t, dev, owner)
		go func() {
			if kind, _ := s.First(); kind == "resume" {
				_ = s.AnswerResume(ownerLog)
			}
		}()
		return c.Resume(devStore, devLog, p)
	}
	if err := ask(); !errors.Is(err, ErrClosed) {
		t.Fatalf("a device that was never admitted got %v", err)
	}
	if _, err := ownerLog.Admit(owner, trust.Candidate{Key: devices.CompressedKey(&dev.PublicKey), Name: "Cam"}); err != nil {
		t.Fatal(err)
	}
	if err := ask(); err != nil || !devLog.Roster().Has(devices.NodeIDOf(&dev.PublicKey)) {
		t.Fatal(err)
	}
}

func TestWrongCodeIsRefused(t *testing.T) {
	a, b := newKey(t), newKey(t)
	store := newStore(t)
	w, err := OpenWindow(store, "123123123", 0)
	if err != nil {
		t.Fatal(err)
	}
	c, s := pipe(t, a, b)
	verified := verify(s, w)
	if err := c.Prove("321321321"); !errors.Is(err, ErrWrongCode) {
		t.Fatal(err)
	}
	if err := <-verified; !errors.Is(err, ErrWrongCode) {
		t.Fatal(err)
	}
	if w.Err() != nil {
		t.Fatal("one wrong code closed the window")
	}
}

func TestRelayedExchangeIsRefused(t *testing.T) {
	owner, evil, dev := newKey(t), newKey(t), newKey(t)
	w, err := OpenWindow(newStore(t), "555666777", 0)
	if err != nil {
		t.Fatal(err)
	}
	toEvil, evilServer := pipe(t, owner, evil)
	evilClient, toDev := pipe(t, evil, dev)
	verified := verify(toDev, w)
	go relay(evilServer, evilClient)
	go relay(evilClient, evilServer)
	if err := toEvil.Prove("555666777"); !errors.Is(err, ErrWrongCode) {
		t.Fatalf("a relayed exchange gave %v", err)
	}
	if err := <-verified; err == nil {
		t.Fatal("the device was proved to through a relay")
	}
}

func relay(from, to *Link) {
	for {
		m, err := readMessage(from.conn)
		if err != nil || to.send(m) != nil {
			return
		}
	}
}

func TestReplayedExchangeIsRefused(t *testing.T) {
	a, b := newKey(t), newKey(t)
	store := newStore(t)
	w, err := OpenWindow(store, "555666777", 0)
	if err != nil {
		t.Fatal(err)
	}
	par := Parties{[]byte("p"), []byte("v"), []byte("old channel")}
	old, err := newProver("555666777", w.w.Salt, par)
	if err != nil {
		t.Fatal(err)
	}
	c, s := pipe(t, a, b)
	verified := verify(s, w)
	for _, m := range []message{{Kind: "hello"}, {Kind: "share", Share: old.shareP}, {Kind: "confirm", Tag: make([]byte, 32)}} {
		if err := c.send(m); err != nil {
			t.Fatal(err)
		}
	}
	if err := <-verified; !errors.Is(err, ErrWrongCode) {
		t.Fatal(err)
	}
}

func TestCodeAttemptsAreLimited(t *testing.T) {
	store := newStore(t)
	w, err := OpenWindow(store, "555666777", 0)
	if err != nil {
		t.Fatal(err)
	}
	for i := range maxFailures {
		if i == maxFailures/2 { // switching it off and on gains nothing
			if w, err = RestoreWindow(store); err != nil || w == nil {
				t.Fatal(err)
			}
		}
		if err := w.attempt(); err != nil {
			t.Fatalf("attempt %d: %v", i+1, err)
		}
	}
	if err := w.attempt(); !errors.Is(err, ErrGuessing) {
		t.Fatalf("guess %d gave %v", maxFailures+1, err)
	}
	if w, err := RestoreWindow(store); w != nil || err != nil {
		t.Fatalf("a restart opened a closed window: %v", err)
	}
}

func TestWindowTakesOneAtATimeAndEnds(t *testing.T) {
	w, err := OpenWindow(newStore(t), "555666777", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if left := time.Until(w.Until()); left > MaxOpen {
		t.Fatalf("open for %v", left)
	}
	release, err := w.begin()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.begin(); !errors.Is(err, ErrBusy) {
		t.Fatal(err)
	}
	release()
	w.now = func() time.Time { return time.Now().Add(MaxOpen + time.Second) }
	if _, err := w.begin(); !errors.Is(err, ErrClosed) {
		t.Fatal(err)
	}
}

func TestCodes(t *testing.T) {
	for range 200 {
		c := NewCode()
		if p, err := ParseCode(c.String()); err != nil || p != c {
			t.Fatalf("%s: %v", c, err)
		}
		b := []byte(c)
		for i := range b { // every single wrong digit
			d := append([]byte(nil), b...)
			d[i] = '0' + (d[i]-'0'+1)%10
			if _, err := ParseCode(string(d)); err == nil {
				t.Fatalf("%s passes for %s", d, c)
			}
		}
	}
	for _, bad := range []string{"", "12345678", "111111110", "abc", "1234567890"} {
		if _, err := ParseCode(bad); err == nil {
			t.Errorf("%q passes", bad)
		}
	}
	tok := NewToken(devices.NodeID{1, 2}, "192.0.2.1:5061")
	if p, err := ParseToken(tok.String()); err != nil || p != tok {
		t.Fatalf("%v %v", p, err)
	}
}

func FuzzMessage(f *testing.F) {
	f.Add([]byte{0, 0, 0, 1, 0xa0})
	f.Add([]byte{0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := readMessage(bytes.NewReader(b))
		if err != nil {
			return
		}
		v := verifierWith(make([]byte, 32), m.Share, randomScalar(), Parties{})
		_, _, _ = v.answer(m.Share)
	})
}
