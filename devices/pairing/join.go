package pairing

import (
	"crypto/ecdsa"
	"errors"
	"fmt"

	"github.com/fxamacker/cbor/v2"

	"github.com/hallway-home/hallway/devices"
	"github.com/hallway-home/hallway/devices/trust"
)

const pendingKey = "pending"

// Pending is what a joining device keeps from the moment it agreed until it has the
// roster: enough to ask again after a crash.
type Pending struct {
	Invitation Invitation `cbor:"1,keyasint"`
	Owner      []byte     `cbor:"2,keyasint"` // compressed key of the node that admits
	Addr       string     `cbor:"3,keyasint"` // where it was
}

// LoadPending finds an unfinished joining; nil if there is none.
func LoadPending(store *devices.Store) (*Pending, error) {
	var b []byte
	if err := store.View(func(tx devices.Tx) error { b = tx.Get(devices.BucketPairing, pendingKey); return nil }); err != nil || b == nil {
		return nil, err
	}
	var p Pending
	return &p, decMode.Unmarshal(b, &p)
}

func savePending(store *devices.Store, p Pending) error {
	b, err := cbor.Marshal(p)
	if err != nil {
		return err
	}
	return store.Update("pairing.pending", func(tx devices.Tx) error { return tx.Put(devices.BucketPairing, pendingKey, b) })
}

// ClearPending forgets an unfinished joining.
func ClearPending(store *devices.Store) error {
	return store.Update("pairing.joined", func(tx devices.Tx) error { return tx.Delete(devices.BucketPairing, pendingKey) })
}

// Owner is what the admitting side needs.
type Owner struct {
	Log  *trust.Log
	Key  *ecdsa.PrivateKey
	Name string // overrides what the device wants to be called
	Room string
	Role devices.Role
}

// Identify is the owner's first word after the proof: what the device says of itself. Admit
// may follow at once, or within NamingTime, when a person has named it.
func (l *Link) Identify() (About, error) {
	m, err := l.receive("about")
	if err != nil {
		return About{}, err
	}
	if m.About == nil {
		return About{}, l.refuse(errShare)
	}
	l.about = m.About
	l.bound(NamingTime)
	return *m.About, nil
}

// Admit is the owner's half after the proof, and after Identify if it was called: it tells the
// device what it is about to join, and when the device agrees the roster edit is the commit.
func (l *Link) Admit(o Owner) (devices.Member, error) {
	if l.about == nil {
		if _, err := l.Identify(); err != nil {
			return devices.Member{}, err
		}
	}
	l.bound(exchangeTime)
	r := o.Log.Roster()
	if r == nil {
		return devices.Member{}, l.refuse(trust.ErrNoHome)
	}
	inv := Invitation{Home: r.Home, HomeName: r.Name, Name: first(o.Name, l.about.Name, string(l.about.Class)), Room: first(o.Room, l.about.Room)}
	if err := l.send(message{Kind: "home", Home: &inv}); err != nil {
		return devices.Member{}, err
	}
	if _, err := l.receive("ready"); err != nil {
		return devices.Member{}, err
	}
	member, err := o.Log.Admit(o.Key, trust.Candidate{
		Key: devices.CompressedKey(l.Peer), Role: o.Role, Name: inv.Name, Room: inv.Room, Class: l.about.Class,
	})
	if err != nil {
		return devices.Member{}, l.refuse(err)
	}
	// From here the device belongs, whether it hears so now or asks again later.
	if l.sendRoster(o.Log) == nil {
		_, _ = l.receive("joined")
	}
	return member, nil
}

func first(words ...string) string {
	for _, w := range words {
		if w != "" {
			return w
		}
	}
	return ""
}

func (l *Link) sendRoster(log *trust.Log) error {
	waits, edits := log.Waiting(), log.Edits()
	for len(edits)+len(waits) > 0 {
		n, w := min(editsPerFrame, len(edits)), min(editsPerFrame, len(waits))
		if err := l.send(message{Kind: "roster", Edits: edits[:n], Waits: waits[:w], More: n+w < len(edits)+len(waits)}); err != nil {
			return err
		}
		edits, waits = edits[n:], waits[w:]
	}
	return nil
}

// Joiner is what the joining side needs.
type Joiner struct {
	Store    *devices.Store
	Log      *trust.Log
	About    About
	Addr     string                 // of the owner, to ask again
	Identify func(Invitation) error // shows what is about to be joined; an error stops it
}

// Join is the device's half after the proof.
func (l *Link) Join(j Joiner) error {
	if j.Log.Roster() != nil {
		return l.refuse(trust.ErrHomeExists)
	}
	if err := l.send(message{Kind: "about", About: &j.About}); err != nil {
		return err
	}
	l.bound(NamingTime)
	m, err := l.receive("home")
	if err != nil {
		return err
	}
	l.bound(exchangeTime)
	if m.Home == nil {
		return l.refuse(errShare)
	}
	if err := j.Identify(*m.Home); err != nil {
		return l.refuse(err)
	}
	if err := savePending(j.Store, Pending{*m.Home, devices.CompressedKey(l.Peer), j.Addr}); err != nil {
		return l.refuse(err)
	}
	if err := l.send(message{Kind: "ready"}); err != nil {
		return err
	}
	return l.takeRoster(j.Store, j.Log, m.Home.Home)
}

func (l *Link) takeRoster(store *devices.Store, log *trust.Log, home devices.HomeID) error {
	var edits []trust.SignedEdit
	var waits []trust.Hash
	for range maxEditFrames {
		m, err := l.receive("roster")
		if errors.Is(err, trust.ErrRemoved) || errors.Is(err, trust.ErrFull) || errors.Is(err, ErrClosed) {
			return errors.Join(err, ClearPending(store)) // a clear no: do not ask again
		}
		if err != nil {
			return err
		}
		edits, waits = append(edits, m.Edits...), append(waits, m.Waits...)
		if m.More {
			continue
		}
		if err := log.Adopt(edits, home, devices.NodeIDOf(l.Self), waits...); err != nil {
			return err
		}
		_ = l.send(message{Kind: "joined"})
		return ClearPending(store)
	}
	return errShare
}

// Resume asks an owner again after a crash: the TLS keys of both sides are the proof.
func (l *Link) Resume(store *devices.Store, log *trust.Log, p Pending) error {
	if string(devices.CompressedKey(l.Peer)) != string(p.Owner) {
		return fmt.Errorf("%w: another device answers at %s", ErrAborted, p.Addr)
	}
	if err := l.send(message{Kind: "resume"}); err != nil {
		return err
	}
	return l.takeRoster(store, log, p.Invitation.Home)
}

// AnswerResume is the owner's side of Resume; it follows First.
func (l *Link) AnswerResume(log *trust.Log) error {
	r, id := log.Roster(), devices.NodeIDOf(l.Peer)
	switch {
	case r != nil && r.Removed[id]:
		return l.refuse(trust.ErrRemoved)
	case !r.Has(id):
		return l.refuse(ErrClosed)
	}
	if err := l.sendRoster(log); err != nil {
		return err
	}
	_, _ = l.receive("joined")
	return nil
}
