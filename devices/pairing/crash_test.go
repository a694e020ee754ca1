package pairing

import (
	"crypto/ecdsa"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/hallway-home/hallway/devices"
	"github.com/hallway-home/hallway/devices/trust"
)

// side is a node whose plug can be pulled at a write point: the connection dies and what
// is on disk at that moment is what it starts with again.
type side struct {
	t       *testing.T
	dir     string
	key     *ecdsa.PrivateKey
	store   *devices.Store
	log     *trust.Log
	crashAt string

	mu     sync.Mutex
	cut    func() // cuts its connection
	points []string
	image  []byte // the store when the plug was pulled
}

func newSide(t *testing.T, crashAt string) *side {
	s := &side{t: t, dir: t.TempDir(), crashAt: crashAt}
	s.open(devices.StoreOptions{Hook: s.passed})
	return s
}

func (s *side) open(opt devices.StoreOptions) {
	s.t.Helper()
	var err error
	if s.store, err = devices.OpenStore(s.dir, opt); err != nil {
		s.t.Fatal(err)
	}
	store := s.store
	s.t.Cleanup(func() { _ = store.Close() })
	if s.key, err = devices.NodeKey(s.store); err != nil {
		s.t.Fatal(err)
	}
	s.log = newLog(s.t, s.store)
}

func (s *side) passed(point string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.points = append(s.points, point)
	if point != s.crashAt || s.image != nil || s.cut == nil {
		return
	}
	b, err := os.ReadFile(filepath.Join(s.dir, "hallway.db"))
	if err != nil {
		s.t.Error(err)
	}
	s.image = b
	s.cut()
}

func (s *side) crashed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.image != nil
}

// restart starts the node again with what was on disk.
func (s *side) restart() {
	if !s.crashed() {
		return
	}
	s.dir = s.t.TempDir()
	if err := os.WriteFile(filepath.Join(s.dir, "hallway.db"), s.image, 0o600); err != nil {
		s.t.Fatal(err)
	}
	s.open(devices.StoreOptions{})
}

func (s *side) id() devices.NodeID { return devices.NodeIDOf(&s.key.PublicKey) }

// joining runs the whole exchange, the device showing the code, until it ends or breaks.
func joining(t *testing.T, owner, dev *side) {
	t.Helper()
	code := NewCode()
	cc, sc := tlsPipe(t, owner.key, dev.key)
	owner.mu.Lock()
	owner.cut = func() { _ = cc.NetConn().Close() }
	owner.mu.Unlock()
	dev.mu.Lock()
	dev.cut = func() { _ = sc.NetConn().Close() }
	dev.mu.Unlock()
	w, err := OpenWindow(dev.store, string(code), 0)
	if err != nil {
		t.Fatal(err)
	}
	c, err1 := NewLink(t.Context(), cc, &owner.key.PublicKey, true)
	s, err2 := NewLink(t.Context(), sc, &dev.key.PublicKey, false)
	switch err := errors.Join(err1, err2); {
	case err != nil && (owner.crashed() || dev.crashed()):
		return // the plug was pulled before the exchange began
	case err != nil:
		t.Fatal(err)
	}
	defer c.Done()
	defer s.Done()
	done := make(chan struct{})
	go func() {
		defer close(done)
		if <-verify(s, w) == nil {
			_ = s.Join(Joiner{Store: dev.store, Log: dev.log, About: About{Class: devices.ClassPanel, Name: "Panel"}, Identify: func(Invitation) error { return nil }})
		}
		_ = sc.NetConn().Close()
	}()
	if c.Prove(string(code)) == nil {
		_, _ = c.Admit(Owner{Log: owner.log, Key: owner.key})
	}
	_ = cc.NetConn().Close()
	<-done
}

// resume does what a starting node does with an unfinished joining.
func resume(t *testing.T, owner, dev *side) {
	t.Helper()
	p, err := LoadPending(dev.store)
	if err != nil || p == nil || dev.log.Roster() != nil {
		if err != nil {
			t.Fatal(err)
		}
		return
	}
	c, s := pipe(t, dev.key, owner.key)
	go func() {
		if kind, _ := s.First(); kind == "resume" {
			_ = s.AnswerResume(owner.log)
		}
	}()
	if err := c.Resume(dev.store, dev.log, *p); err != nil && !errors.Is(err, ErrClosed) {
		t.Fatal(err)
	}
	if p, err := LoadPending(dev.store); p != nil || err != nil {
		t.Fatal("it asks for ever", p, err)
	}
}

// The plug is pulled at every write point of both sides in turn. After the restart the
// two agree: the device belongs and has the roster, or it does not and can be added anew.
func TestJoiningSurvivesACrashAnywhere(t *testing.T) {
	run := func(t *testing.T, ownerAt, devAt string) (owner, dev *side) {
		owner, dev = newSide(t, ownerAt), newSide(t, devAt)
		if _, err := owner.log.Create(owner.key, trust.CreateParams{Name: "TV"}); err != nil {
			t.Fatal(err)
		}
		joining(t, owner, dev)
		return owner, dev
	}
	owner, dev := run(t, "", "")
	if !dev.log.Roster().Has(dev.id()) {
		t.Fatal("even without a crash it does not join")
	}
	type crash struct{ owner, dev string }
	var all []crash
	for _, p := range owner.points {
		if p == "roster.admit.before" || p == "roster.admit.after" {
			all = append(all, crash{owner: p})
		}
	}
	for _, p := range dev.points {
		if p != "node.key.before" && p != "node.key.after" && filepath.Ext(p) != ".renamed" && p[:6] != "store." {
			all = append(all, crash{dev: p})
		}
	}
	if len(all) < 14 {
		t.Fatalf("only %d points: %v", len(all), all)
	}
	joined := 0
	for _, c := range all {
		t.Run(fmt.Sprintf("%s%s", c.owner, c.dev), func(t *testing.T) {
			owner, dev := run(t, c.owner, c.dev)
			if !owner.crashed() && !dev.crashed() {
				t.Fatal("nothing crashed")
			}
			owner.restart()
			dev.restart()
			resume(t, owner, dev)
			belongs := owner.log.Roster().Has(dev.id())
			if belongs != dev.log.Roster().Has(dev.id()) {
				t.Fatalf("the owner says %v, the device %v", belongs, !belongs)
			}
			if belongs {
				joined++
				return
			}
			if c.dev != "pairing.pending.after" { // once is enough: the others are the same to the device
				if p, err := LoadPending(dev.store); p != nil || err != nil || dev.log.Roster() != nil {
					t.Fatal("it cannot be added anew", p, err)
				}
				return
			}
			owner.crashAt, dev.crashAt = "", ""
			joining(t, owner, dev)
			if !owner.log.Roster().Has(dev.id()) || !dev.log.Roster().Has(dev.id()) {
				t.Fatal("it cannot be added anew")
			}
		})
	}
	t.Logf("%d crashes, after %d of them the device belongs", len(all), joined)
}
