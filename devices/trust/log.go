package trust

import (
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hallway-home/hallway/devices"
)

// What a person may run into.
var (
	ErrNoHome     = errors.New("this device belongs to no home yet; make one with `hallway home create`, or join one with `hallway pair`")
	ErrHomeExists = errors.New("this device already belongs to a home; remove it there first (`hallway home remove`), or use another data folder")
	ErrNotOwner   = errors.New("this device may not change the home")
	ErrFull       = errors.New("the home is full: 128 devices belong already; remove one first")
	ErrSenior     = errors.New("this device did not make that one an owner, so it cannot end that alone; a second owner must agree")
	ErrNoSecond   = errors.New("one of the two owners was made an owner by the other, so they count as one")
	ErrRule       = errors.New("this rule cannot be made")
	ErrRecovery   = errors.New("this recovery code belongs to another home")
	ErrLogFull    = errors.New("the home's history is full; only removals are still possible; compact it with `hallway home checkpoint` and the recovery code")
	ErrLastOwner  = errors.New("the last owner cannot be removed; make another device an owner first")
	ErrRemoved    = errors.New("this device was removed from the home")
	ErrNotFound   = errors.New("nothing in this home has that name; `hallway devices` and `hallway rooms` list them")
)

// Log is a node's copy of the roster log: stored edits and what they fold to. Safe for
// concurrent use; Roster never blocks.
type Log struct {
	store  *devices.Store
	roster atomic.Pointer[devices.Roster]

	mu      sync.Mutex
	edits   map[Hash]*parsed
	base    *base            // the checkpoint that edits begin with, see there; nil without one
	pieces  map[Hash]*parsed // of checkpoints that have not come as a whole
	beside  []*parsed        // what the last checkpoint did not know
	orphans map[Hash]*parsed // wait for their parents
	signers signers
	watch   map[chan struct{}]struct{}

	homeTime   func() (time.Time, bool)
	started    time.Time          // when the log was opened, by the monotonic clock
	awakeUntil time.Time          // this node was off from then, as far as it knows
	opened     time.Time          // until then; zero while home time is not known
	stored     time.Time          // the last awakeUntil in the store, for the next start
	seen       map[Hash]time.Time // home time at which a proposal came, see waiting
	vouched    func(Hash) bool    // which proposals that come now were waited out elsewhere; nil: none
}

// Options of a Log; the zero value is right for tests and for nodes without a home.
type Options struct {
	// HomeTime is the time that the home agrees on, and whether it is known. Without it a
	// lone owner's removal of another owner never takes force here.
	HomeTime func() (time.Time, bool)
}

// OpenLog loads the stored log.
func OpenLog(store *devices.Store, opt ...Options) (*Log, error) {
	l := &Log{
		store: store, edits: map[Hash]*parsed{}, orphans: map[Hash]*parsed{}, pieces: map[Hash]*parsed{}, seen: map[Hash]time.Time{},
		signers: newSigners(), watch: map[chan struct{}]struct{}{}, started: time.Now(),
	}
	for _, o := range opt {
		l.homeTime = o.HomeTime
	}
	if err := store.View(l.load); err != nil {
		return nil, fmt.Errorf("a stored roster edit is damaged (%w); remove the data folder and let the device join again", err)
	}
	l.publish(fold(l.edits, l.waiting(l.edits, l.seen)).r)
	return l, nil
}

func (l *Log) load(tx devices.Tx) error {
	err := tx.Each(devices.BucketRoster, func(_ string, val []byte) error {
		var e SignedEdit
		if err := decMode.Unmarshal(val, &e); err != nil {
			return err
		}
		p, err := parse(e)
		l.edits[p.hash] = p
		return err
	})
	if err != nil {
		return err
	}
	l.base = findBase(l.edits)
	l.signers = learnAll(l.base, l.edits)
	if err := l.loadBeside(tx); err != nil {
		return err
	}
	return l.loadSeen(tx)
}

// Roster is the home as folded now; nil while the node belongs to none.
func (l *Log) Roster() *devices.Roster { return l.roster.Load() }

// Watch signals (coalesced) after each change of the roster, until ctx ends.
func (l *Log) Watch(ctx context.Context) <-chan struct{} {
	ch := make(chan struct{}, 1)
	l.mu.Lock()
	l.watch[ch] = struct{}{}
	l.mu.Unlock()
	context.AfterFunc(ctx, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.watch, ch)
	})
	return ch
}

// publish makes r the roster; mu is held, or the log not shared yet.
func (l *Log) publish(r *devices.Roster) {
	l.roster.Store(r)
	for ch := range l.watch {
		select {
		case ch <- struct{}{}:
		default:
		}
	}
}

// CreateParams describe a new home and its first device.
type CreateParams struct {
	HomeName string
	Name     string // of the first device
	Room     string
	Class    devices.Class
}

// Create makes a home whose first owner is key. The returned code is the only way to
// recover the home; it is stored nowhere.
func (l *Log) Create(key *ecdsa.PrivateKey, p CreateParams) (RecoveryCode, error) {
	code := NewRecoveryCode()
	root, err := code.rootKey()
	if err != nil {
		return RecoveryCode{}, err
	}
	e := Edit{
		Version: 1, Home: devices.HomeIDOf(&root.PublicKey), Op: OpGenesis,
		Signer: devices.NodeIDOf(&root.PublicKey), Root: devices.CompressedKey(&root.PublicKey),
		Key: devices.CompressedKey(&key.PublicKey), HomeKey: randomKey(),
		Class: p.Class, Name: PlainText(p.Name), Room: PlainText(p.Room), HomeName: PlainText(p.HomeName),
	}
	signed, err := sign(root, e)
	if err != nil {
		return RecoveryCode{}, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.Roster() != nil {
		return RecoveryCode{}, ErrHomeExists
	}
	if err := l.put("roster.create", true, signed); err != nil {
		return RecoveryCode{}, err
	}
	return code, nil
}

// Candidate is a node that asks to join.
type Candidate struct {
	Key   []byte // compressed
	Role  devices.Role
	Name  string
	Room  string // name or slug; made when new
	Class devices.Class
}

// Admit signs the edit that makes the candidate a member. A key that belongs already
// is returned as it is: asking twice after a crash is no error.
func (l *Log) Admit(key *ecdsa.PrivateKey, c Candidate) (devices.Member, error) {
	pub, err := devices.ParseCompressedKey(c.Key)
	if err != nil {
		return devices.Member{}, err
	}
	id := devices.NodeIDOf(pub)
	if r := l.Roster(); r.Has(id) {
		return r.Members[id], nil
	}
	if c.Role == "" {
		c.Role = devices.RoleDevice
	}
	err = l.append(key, "roster.admit", Edit{Op: OpAdmit, Key: c.Key, Role: c.Role, Name: PlainText(c.Name), Room: PlainText(c.Room), Class: c.Class})
	switch {
	case errors.Is(err, errKnownKey): // somebody admitted it in between
	case errors.Is(err, ErrRemoved):
		return devices.Member{}, fmt.Errorf("%w; it must make a new key: start it with an empty data folder", err)
	case err != nil:
		return devices.Member{}, err
	}
	return l.Roster().Members[id], nil
}

// append signs an edit on top of the current heads and stores it; an edit that would have
// no effect is refused with the reason.
func (l *Log) append(key *ecdsa.PrivateKey, point string, e Edit) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.add(key, point, e)
}

// add is append for several edits, one on top of the other, stored together or not at
// all; mu is held.
func (l *Log) add(key *ecdsa.PrivateKey, point string, edits ...Edit) error {
	r := l.Roster()
	if r == nil {
		return ErrNoHome
	}
	signer, limit := devices.NodeIDOf(&key.PublicKey), MaxEdits-removalReserve
	if signer == devices.NodeID(r.Home) {
		limit = MaxEdits
	} else if err := MayEdit(r, signer); err != nil {
		return err
	}
	if op := edits[0].Op; op == OpRemove || op == OpPropose || op == OpAgree || op == OpLost {
		limit = MaxEdits
	}
	if l.length() >= limit {
		return ErrLogFull
	}
	var out []*parsed
	heads := slices.Clone(r.Heads)
	for len(edits) > 0 {
		// An edit must be on top of everything that is here: a removal cuts what it does
		// not know (see settle).
		e, parents := Edit{Op: OpMerge}, heads[:min(len(heads), MaxParents)]
		heads = heads[len(parents):]
		if len(heads) == 0 {
			e, edits = edits[0], edits[1:]
		}
		e.Version, e.Home, e.Signer, e.Parents = 1, r.Home, signer, slices.Clone(parents)
		p, err := sign(key, e)
		if err != nil {
			return err
		}
		out, heads = append(out, p), append(heads, p.hash)
	}
	return l.put(point, true, out...)
}

// MayEdit reports whether a node may change the home, and if not, says where that can be done.
func MayEdit(r *devices.Roster, self devices.NodeID) error {
	m, ok := r.Members[self]
	if !ok {
		return ErrRemoved
	}
	if m.Role == devices.RoleOwner {
		return nil
	}
	return fmt.Errorf("%w; do it on an owner: %s", ErrNotOwner, strings.Join(OwnerNames(r), ", "))
}

// OwnerNames are the owner nodes' names, sorted.
func OwnerNames(r *devices.Roster) []string {
	var names []string
	for _, o := range r.Members {
		if o.Role == devices.RoleOwner {
			names = append(names, o.Name)
		}
	}
	slices.Sort(names)
	return names
}

// put stores edits and what they fold to; strict refuses those without effect. mu is
// held. When it fails nothing has changed.
func (l *Log) put(point string, strict bool, edits ...*parsed) error {
	all := maps.Clone(l.edits)
	for _, p := range edits {
		all[p.hash] = p
	}
	b := findBase(all)
	if b != l.base {
		all = prune(all)
	}
	seen := l.firstSeen(b, edits)
	f := fold(all, l.waiting(all, seen))
	for _, p := range edits {
		if err := f.voids[p.hash]; strict && err != nil {
			return err
		}
	}
	beside := l.lost(b, all)
	err := l.store.Update(point, func(tx devices.Tx) error {
		for _, p := range edits {
			if all[p.hash] == nil {
				continue
			}
			val, err := encMode.Marshal(p.signed())
			if err != nil {
				return err
			}
			if err := tx.Put(devices.BucketRoster, hex.EncodeToString(p.hash[:]), val); err != nil {
				return err
			}
		}
		if b != l.base {
			if err := l.compact(tx, all, beside); err != nil {
				return err
			}
		}
		return l.storeSeen(tx, seen)
	})
	if err != nil {
		return err
	}
	if b != l.base {
		l.base, l.beside, l.signers = b, beside, learnAll(b, all)
		clear(l.pieces)
		clear(l.orphans)
	}
	l.edits, l.seen = all, seen
	for _, p := range edits {
		l.signers.learn(p)
	}
	l.publish(f.r)
	return nil
}

// randomKey draws a home key.
func randomKey() []byte {
	b := make([]byte, homeKeyLen)
	_, _ = rand.Read(b) // never fails (crypto/rand)
	return b
}
