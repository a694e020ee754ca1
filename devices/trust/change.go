package trust

import (
	"cmp"
	"crypto/ecdsa"
	"errors"
	"fmt"
	"time"

	"github.com/hallway-home/hallway/devices"
)

// Removal says what became of the wish to remove a member.
type Removal struct {
	Done  bool
	Until time.Time // not done: when this owner may carry it out alone; zero without home time
}

// Remove takes a member out of the home for good and renews the home key. It does only
// what this owner may do alone; ErrSenior says that it is not enough.
func (l *Log) Remove(key *ecdsa.PrivateKey, slug string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, err := l.remove(key, slug)
	return err
}

// RemoveOrPropose is Remove, and where this owner may not do it alone (see settle) it
// proposes it. On a second owner it agrees to the proposal, and again here after
// removalWait it carries it out.
func (l *Log) RemoveOrPropose(key *ecdsa.PrivateKey, slug string) (Removal, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	m, err := l.remove(key, slug)
	if errors.Is(err, ErrSenior) {
		return l.removeTogether(key, l.Roster(), m)
	}
	return Removal{Done: err == nil}, err
}

func (l *Log) remove(key *ecdsa.PrivateKey, slug string) (devices.Member, error) {
	r := l.Roster()
	if r == nil {
		return devices.Member{}, ErrNoHome
	}
	m, ok := memberBySlug(r, slug)
	if !ok {
		return m, fmt.Errorf("%q: %w", slug, ErrNotFound)
	}
	if m.Role == devices.RoleOwner && owners(r) == 1 {
		return m, cmp.Or(MayEdit(r, devices.NodeIDOf(&key.PublicKey)), ErrLastOwner)
	}
	return m, l.add(key, "roster.remove", Edit{Op: OpRemove, Node: m.Node, HomeKey: randomKey()})
}

// removeTogether agrees to what another owner proposed, carries out an own proposal that
// is old enough, or proposes. mu is held.
func (l *Log) removeTogether(key *ecdsa.PrivateKey, r *devices.Roster, m devices.Member) (Removal, error) {
	now, known := l.now()
	stamp := int64(0)
	if known {
		stamp = now.Unix()
	}
	self, mine := devices.NodeIDOf(&key.PublicKey), Hash{}
	for _, h := range pending(r, m.Node) {
		if r.Pending[h].By == self {
			mine = h
			continue
		}
		err := l.add(key, "roster.agree", Edit{Op: OpAgree, Node: m.Node, Proposal: h[:], HomeKey: randomKey(), At: stamp})
		if !errors.Is(err, ErrNoSecond) {
			return Removal{Done: err == nil}, err
		}
	}
	if mine != (Hash{}) {
		until, ok := l.waited(mine)
		if !ok {
			return Removal{Until: until}, nil
		}
		err := l.add(key, "roster.agree", Edit{Op: OpAgree, Node: m.Node, Proposal: mine[:], HomeKey: randomKey(), At: stamp})
		return Removal{Done: err == nil}, err
	}
	if err := l.add(key, "roster.propose", Edit{Op: OpPropose, Node: m.Node, At: stamp}); err != nil {
		return Removal{}, err
	}
	if !known {
		return Removal{}, nil
	}
	return Removal{Until: now.Add(removalWait)}, nil
}

func memberBySlug(r *devices.Roster, slug string) (devices.Member, bool) {
	for _, m := range r.Members {
		if m.Slug == slug {
			return m, true
		}
	}
	return devices.Member{}, false
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

// Change gives a member another role or class; what is empty stays.
func (l *Log) Change(key *ecdsa.PrivateKey, slug string, role devices.Role, class devices.Class) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.Roster()
	if r == nil {
		return ErrNoHome
	}
	m, ok := memberBySlug(r, slug)
	switch {
	case !ok:
		return fmt.Errorf("%q: %w", slug, ErrNotFound)
	case m.Role == devices.RoleOwner && role == devices.RoleDevice && owners(r) == 1:
		return ErrLastOwner
	case role == m.Role:
		role = ""
	}
	if cmp.Or(class, m.Class) == m.Class {
		class = ""
	}
	if role == "" && class == "" {
		return MayEdit(r, devices.NodeIDOf(&key.PublicKey))
	}
	return l.add(key, "roster.change", Edit{Op: OpChange, Node: m.Node, Role: role, Class: class})
}

// Recover makes a member an owner by the recovery code, and removes others. It needs no
// living owner, and goes before everything that happens elsewhere at the same time.
func (l *Log) Recover(code RecoveryCode, self devices.NodeID, remove ...string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.Roster()
	root, err := code.rootOf(r)
	if err != nil {
		return err
	}
	if !r.Has(self) {
		return ErrRemoved
	}
	var edits []Edit
	if r.Members[self].Role != devices.RoleOwner {
		edits = append(edits, Edit{Op: OpChange, Node: self, Role: devices.RoleOwner})
	}
	for _, slug := range remove {
		m, ok := memberBySlug(r, slug)
		if !ok {
			return fmt.Errorf("%q: %w", slug, ErrNotFound)
		}
		edits = append(edits, Edit{Op: OpRemove, Node: m.Node, HomeKey: randomKey()})
	}
	if len(edits) == 0 {
		return nil
	}
	return l.add(root, "roster.recover", edits...)
}

// Rename changes what people read; the slug, and with it the SIP URI, stays. A room
// given with a device or person moves it there.
func (l *Log) Rename(key *ecdsa.PrivateKey, slug, name, room string) error {
	r := l.Roster()
	if r == nil {
		return ErrNoHome
	}
	e := Edit{Op: OpName, Slug: slug, Name: PlainText(name)}
	if old, ok := r.Rooms[slug]; ok {
		e.Kind, e.Name = SubjectRoom, cmp.Or(e.Name, old.Name)
	} else if g, ok := r.Groups[slug]; ok {
		e.Kind, e.Members, e.Name = SubjectGroup, g.Members, cmp.Or(e.Name, g.Name)
	} else if p, ok := r.Persons[slug]; ok {
		e.Kind, e.Role, e.Nodes, e.Name, e.Room = SubjectPerson, p.Role, p.Nodes, cmp.Or(e.Name, p.Name), PlainText(room)
	} else if a, ok := r.Adopted[slug]; ok {
		e.Op, e.Class, e.URI, e.Nodes, e.Name, e.Room = OpForeign, a.Class, a.URI, a.Speakers, cmp.Or(e.Name, a.Name), cmp.Or(PlainText(room), a.Room)
	} else {
		m, ok := memberBySlug(r, slug)
		if !ok {
			return fmt.Errorf("%q: %w", slug, ErrNotFound)
		}
		e.Kind, e.Slug, e.Room, e.Node = SubjectDevice, "", PlainText(room), m.Node
	}
	return l.append(key, "roster.name", e)
}

// SetRoom makes a room; its slug follows from the name.
func (l *Log) SetRoom(key *ecdsa.PrivateKey, name string) error {
	return l.append(key, "roster.name", Edit{Op: OpName, Kind: SubjectRoom, Name: PlainText(name)})
}

// SetGroup makes a group of devices, rooms, persons or groups, or changes the group with
// that slug.
func (l *Log) SetGroup(key *ecdsa.PrivateKey, slug, name string, members []string) error {
	return l.append(key, "roster.name", Edit{Op: OpName, Kind: SubjectGroup, Slug: slug, Name: PlainText(name), Members: members})
}

// SetPerson makes or changes a person.
func (l *Log) SetPerson(key *ecdsa.PrivateKey, slug, name string, role devices.Role, phones []devices.NodeID) error {
	return l.append(key, "roster.name", Edit{Op: OpName, Kind: SubjectPerson, Slug: slug, Name: PlainText(name), Role: role, Nodes: phones})
}

// SetForeign gives a foreign device a name and says who speaks for it; an empty slug
// makes one.
func (l *Log) SetForeign(key *ecdsa.PrivateKey, a devices.Adopted) error {
	return l.append(key, "roster.foreign", Edit{Op: OpForeign, Slug: a.Slug, Name: PlainText(a.Name), Room: PlainText(a.Room), Class: a.Class, URI: a.URI, Nodes: a.Speakers})
}

// Delete ends a room, group, person or foreign device. Its slug is never given anew.
func (l *Log) Delete(key *ecdsa.PrivateKey, slug string) error {
	r := l.Roster()
	if r == nil {
		return ErrNoHome
	}
	kind := ""
	if _, ok := r.Rooms[slug]; ok {
		kind = SubjectRoom
	} else if _, ok := r.Groups[slug]; ok {
		kind = SubjectGroup
	} else if _, ok := r.Persons[slug]; ok {
		kind = SubjectPerson
	} else if _, ok := r.Adopted[slug]; ok {
		kind = SubjectForeign
	}
	if kind == "" {
		return fmt.Errorf("%q is no room, group, person or foreign device: %w", slug, ErrNotFound)
	}
	return l.append(key, "roster.delete", Edit{Op: OpDelete, Kind: kind, Slug: slug})
}

// SetRule says who has a right; there is one rule for each subject and right.
func (l *Log) SetRule(key *ecdsa.PrivateKey, rule devices.Rule) error {
	return l.append(key, "roster.rule", Edit{Op: OpRule, Slug: rule.Subject, Right: rule.Right, Members: rule.Who, Hours: rule.Hours})
}

// DeleteRule ends a rule.
func (l *Log) DeleteRule(key *ecdsa.PrivateKey, k devices.RuleKey) error {
	return l.append(key, "roster.rule", Edit{Op: OpDelete, Kind: SubjectRule, Slug: k.Subject, Right: k.Right})
}
