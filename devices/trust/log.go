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

	"github.com/hallway-home/hallway/devices"
)

// maxOrphans bounds edits that are held until their parents come.
const maxOrphans = 256

// What a person may run into.
var (
	ErrNoHome     = errors.New("this device belongs to no home yet; make one with `hallway home create`, or join one with `hallway pair`")
	ErrHomeExists = errors.New("this device already belongs to a home; remove it there first (`hallway home remove`), or use another data folder")
	ErrNotOwner   = errors.New("this device may not change the home")
	ErrFull       = errors.New("the home is full: 128 devices belong already; remove one first")
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
	edits   map[Hash]SignedEdit
	orphans map[Hash]SignedEdit
	watch   map[chan struct{}]struct{}
}

// OpenLog loads the stored log.
func OpenLog(store *devices.Store) (*Log, error) {
	l := &Log{store: store, edits: map[Hash]SignedEdit{}, orphans: map[Hash]SignedEdit{}, watch: map[chan struct{}]struct{}{}}
	err := store.View(func(tx devices.Tx) error {
		return tx.Each(devices.BucketRoster, func(_ string, val []byte) error {
			var e SignedEdit
			if err := decMode.Unmarshal(val, &e); err != nil {
				return fmt.Errorf("a stored roster edit is damaged: %w", err)
			}
			l.edits[e.Hash()] = e
			return nil
		})
	})
	if err != nil {
		return nil, err
	}
	l.refold()
	return l, nil
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

// refold must be called with mu held, or before the log is shared.
func (l *Log) refold() {
	r, _ := Fold(slices.Collect(maps.Values(l.edits)))
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
		Key: devices.CompressedKey(&key.PublicKey), HomeKey: randomBytes(32),
		Class: p.Class, Name: clip(p.Name), Room: clip(p.Room), HomeName: clip(p.HomeName),
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
	return code, l.put("roster.create", signed)
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
	if r := l.Roster(); r != nil && r.Removed[id] {
		return devices.Member{}, fmt.Errorf("%w; it must make a new key: start it with an empty data folder", ErrRemoved)
	}
	if r := l.Roster(); r != nil && len(r.Members) >= MaxMembers {
		return devices.Member{}, ErrFull
	}
	if c.Role == "" {
		c.Role = devices.RoleDevice
	}
	err = l.append(key, "roster.admit", Edit{Op: OpAdmit, Key: c.Key, Role: c.Role, Name: clip(c.Name), Room: clip(c.Room), Class: c.Class})
	if err != nil {
		return devices.Member{}, err
	}
	m, ok := l.Roster().Members[id]
	if !ok {
		return devices.Member{}, errors.New("the home did not accept the device; look at `hallway home show`")
	}
	return m, nil
}

// Remove takes a device out of the home for good and renews the home key.
func (l *Log) Remove(key *ecdsa.PrivateKey, slug string) error {
	r := l.Roster()
	if r == nil {
		return ErrNoHome
	}
	for id, m := range r.Members {
		if m.Slug != slug {
			continue
		}
		if owners(r) == 1 && m.Role == devices.RoleOwner {
			return ErrLastOwner
		}
		return l.append(key, "roster.remove", Edit{Op: OpRemove, Node: id, HomeKey: randomBytes(32)})
	}
	return fmt.Errorf("%q: %w", slug, ErrNotFound)
}

// Rename changes what people read; the slug, and with it the SIP URI, stays. A room
// given with a device moves it there.
func (l *Log) Rename(key *ecdsa.PrivateKey, slug, name, room string) error {
	r := l.Roster()
	if r == nil {
		return ErrNoHome
	}
	e := Edit{Op: OpName, Slug: slug, Name: clip(name)}
	if _, ok := r.Rooms[slug]; ok {
		e.Kind = SubjectRoom
	} else if g, ok := r.Groups[slug]; ok {
		e.Kind, e.Members = SubjectGroup, g.Members
	} else if p, ok := r.Persons[slug]; ok {
		e.Kind, e.Role, e.Nodes = SubjectPerson, p.Role, p.Nodes
	} else {
		e.Kind, e.Slug, e.Room = SubjectDevice, "", clip(room)
		for id, m := range r.Members {
			if m.Slug == slug {
				e.Node = id
			}
		}
		if e.Node.IsZero() {
			return fmt.Errorf("%q: %w", slug, ErrNotFound)
		}
	}
	return l.append(key, "roster.name", e)
}

// SetRoom makes a room; its slug follows from the name.
func (l *Log) SetRoom(key *ecdsa.PrivateKey, name string) error {
	return l.append(key, "roster.name", Edit{Op: OpName, Kind: SubjectRoom, Name: clip(name)})
}

// SetGroup makes a group of devices, rooms, persons or groups, or changes the members of the
// group with that slug.
func (l *Log) SetGroup(key *ecdsa.PrivateKey, slug, name string, members []string) error {
	return l.append(key, "roster.name", Edit{Op: OpName, Kind: SubjectGroup, Slug: slug, Name: clip(name), Members: members})
}

// SetPerson makes or changes a person.
func (l *Log) SetPerson(key *ecdsa.PrivateKey, slug, name string, role devices.Role, phones []devices.NodeID) error {
	return l.append(key, "roster.name", Edit{Op: OpName, Kind: SubjectPerson, Slug: slug, Name: clip(name), Role: role, Nodes: phones})
}

// append signs e on top of the current heads and stores it.
func (l *Log) append(key *ecdsa.PrivateKey, point string, e Edit) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.Roster()
	if r == nil {
		return ErrNoHome
	}
	if err := MayEdit(r, devices.NodeIDOf(&key.PublicKey)); err != nil {
		return err
	}
	e.Version, e.Home, e.Signer, e.Parents = 1, r.Home, devices.NodeIDOf(&key.PublicKey), r.Heads
	if len(e.Parents) > MaxParents {
		e.Parents = e.Parents[:MaxParents]
	}
	signed, err := sign(key, e)
	if err != nil {
		return err
	}
	return l.put(point, signed)
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
	var names []string
	for _, o := range r.Members {
		if o.Role == devices.RoleOwner {
			names = append(names, o.Name)
		}
	}
	slices.Sort(names)
	return fmt.Errorf("%w; do it on an owner: %s", ErrNotOwner, strings.Join(names, ", "))
}

// put stores and folds edits; mu is held.
func (l *Log) put(point string, edits ...SignedEdit) error {
	err := l.store.Update(point, func(tx devices.Tx) error {
		for _, e := range edits {
			val, err := encMode.Marshal(e)
			if err != nil {
				return err
			}
			h := e.Hash()
			if err := tx.Put(devices.BucketRoster, hex.EncodeToString(h[:]), val); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, e := range edits {
		l.edits[e.Hash()] = e
		delete(l.orphans, e.Hash())
	}
	l.refold()
	return nil
}

// Merge takes edits from a member. Malformed ones, and those of another home, are
// refused; those whose parents are missing are held, bounded, until they come. A node
// without a home merges nothing.
func (l *Log) Merge(edits []SignedEdit) (added int, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.Roster()
	if r == nil {
		return 0, ErrNoHome
	}
	var errs []error
	for _, s := range edits {
		h := s.Hash()
		if _, ok := l.edits[h]; ok {
			continue
		}
		e, err := decode(s)
		switch {
		case err != nil:
			errs = append(errs, err)
		case e.Home != r.Home:
			errs = append(errs, ErrEditHome)
		case e.Op == OpGenesis:
			errs = append(errs, fmt.Errorf("%w: a second first edit", ErrEditForm))
		case !signerKnown(l.allEdits(edits), s, e):
			errs = append(errs, ErrEditSignature)
		case len(l.orphans) < maxOrphans && len(l.edits) < MaxEdits:
			l.orphans[h] = s
		}
	}
	take := l.complete()
	if len(take) > 0 {
		if err := l.put("roster.merge", take...); err != nil {
			return 0, err
		}
	}
	return len(take), errors.Join(errs...)
}

// allEdits lists what is stored, held and just received.
func (l *Log) allEdits(more []SignedEdit) []SignedEdit {
	out := slices.Collect(maps.Values(l.edits))
	out = append(out, slices.Collect(maps.Values(l.orphans))...)
	return append(out, more...)
}

// signerKnown checks an edit's signature against every key that any edit at hand admits
// under its signer's Node-ID (the ID is the key's hash, so there is at most one key).
// Whether the signer belonged at that point is the fold's question; here only forgeries
// are kept off the disk.
func signerKnown(all []SignedEdit, s SignedEdit, e Edit) bool {
	for _, o := range all {
		oe, err := decode(o)
		if err != nil {
			continue
		}
		for _, raw := range [][]byte{oe.Key, oe.Root} {
			pub, err := devices.ParseCompressedKey(raw)
			if err == nil && devices.NodeIDOf(pub) == e.Signer {
				return VerifyRaw(pub, s.Raw, s.Sig)
			}
		}
	}
	return false
}

// complete moves the held edits whose parents are all here, in order; mu is held.
func (l *Log) complete() []SignedEdit {
	var take []SignedEdit
	have := func(h Hash) bool {
		if _, ok := l.edits[h]; ok {
			return true
		}
		return slices.ContainsFunc(take, func(s SignedEdit) bool { return s.Hash() == h })
	}
	for again := true; again; {
		again = false
		for h, s := range l.orphans {
			e, err := decode(s)
			if err == nil && !slices.ContainsFunc(e.Parents, func(p Hash) bool { return !have(p) }) {
				take = append(take, s)
				delete(l.orphans, h)
				again = true
			}
		}
	}
	return take
}

// Adopt takes a whole log at joining. It must fold to the home that was promised, with
// self in it.
func (l *Log) Adopt(edits []SignedEdit, home devices.HomeID, self devices.NodeID) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if r := l.Roster(); r != nil {
		if r.Home == home {
			return nil
		}
		return ErrHomeExists
	}
	r, _ := Fold(edits)
	if r == nil || r.Home != home || !r.Has(self) {
		return errors.New("the home's log does not name this device; start the joining again")
	}
	return l.put("roster.adopt", edits...)
}

// Heads are the hashes of the newest edits.
func (l *Log) Heads() []Hash {
	if r := l.Roster(); r != nil {
		return r.Heads
	}
	return nil
}

// Edits returns the named edits that are here, parents first; without names all.
func (l *Log) Edits(hashes ...Hash) []SignedEdit {
	l.mu.Lock()
	defer l.mu.Unlock()
	sorted := topological(l.edits)
	if len(hashes) == 0 {
		return sorted
	}
	return slices.DeleteFunc(sorted, func(s SignedEdit) bool { return !slices.Contains(hashes, s.Hash()) })
}

// Since returns what a peer whose newest edits are heads lacks, parents first.
func (l *Log) Since(heads []Hash) []SignedEdit {
	l.mu.Lock()
	defer l.mu.Unlock()
	has := map[Hash]bool{}
	var mark func(h Hash)
	mark = func(h Hash) {
		s, ok := l.edits[h]
		if !ok || has[h] {
			return
		}
		has[h] = true
		if e, err := decode(s); err == nil {
			for _, p := range e.Parents {
				mark(p)
			}
		}
	}
	for _, h := range heads {
		mark(h)
	}
	return slices.DeleteFunc(topological(l.edits), func(s SignedEdit) bool { return has[s.Hash()] })
}

// Missing reports whether edits are held whose parents have not come.
func (l *Log) Missing() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.orphans) > 0
}

func topological(edits map[Hash]SignedEdit) []SignedEdit {
	var out []SignedEdit
	done := map[Hash]bool{}
	var visit func(h Hash)
	visit = func(h Hash) {
		s, ok := edits[h]
		if !ok || done[h] {
			return
		}
		done[h] = true
		if e, err := decode(s); err == nil {
			for _, p := range e.Parents {
				visit(p)
			}
		}
		out = append(out, s)
	}
	for _, h := range slices.SortedFunc(maps.Keys(edits), func(a, b Hash) int { return slices.Compare(a[:], b[:]) }) {
		visit(h)
	}
	return out
}

func owners(r *devices.Roster) int {
	n := 0
	for _, m := range r.Members {
		if m.Role == devices.RoleOwner {
			n++
		}
	}
	return n
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails (crypto/rand)
	return b
}

// clip bounds a typed name without cutting a character in two.
func clip(s string) string {
	s = strings.TrimSpace(s)
	for len(s) > maxText {
		r := []rune(s)
		s = string(r[:len(r)-1])
	}
	return s
}
