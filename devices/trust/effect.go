package trust

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/hallway-home/hallway/devices"
)

// effect changes the roster, or says why it does not.
func (f *folder) effect(en *entry) error {
	e := en.edit
	switch {
	case f.base != nil && en.parsed == f.base.last:
		return f.resume()
	case e.Op == OpGenesis:
		return f.genesis(en)
	}
	if f.r == nil || e.Home != f.r.Home {
		return ErrEditHome
	}
	v, judged := f.verdict[en.hash]
	if v != nil {
		return v
	}
	if judged && (e.Op == OpRemove || e.Op == OpAgree) {
		return f.remove(e) // settle has looked at its signers, at the point where they signed
	}
	if judged && e.Op == OpChange && e.Role == devices.RoleDevice {
		return f.change(e)
	}
	if f.cut[en.hash] {
		return errCut
	}
	if err := f.signedByOwner(en); err != nil {
		return err
	}
	if e.Version > 1 {
		return errUnknownOp
	}
	switch e.Op {
	case OpAdmit:
		return f.admit(e)
	case OpChange:
		return f.change(e)
	case OpName:
		return f.name(e)
	case OpForeign:
		return f.foreign(e)
	case OpDelete:
		return f.forget(e)
	case OpRule:
		return f.rule(e)
	case OpPropose:
		return f.propose(en)
	case OpPhone:
		return f.phone(e)
	case OpLost:
		return f.lose(e)
	case OpPerson:
		return f.person(e)
	case OpWebCA:
		f.r.WebCA = Hash(e.State)
		return nil
	case OpMerge:
		return nil
	}
	return fmt.Errorf("%w %q", errUnknownOp, e.Op)
}

func (f *folder) admit(e Edit) error {
	pub, err := devices.ParseCompressedKey(e.Key)
	if err != nil {
		return err
	}
	id := devices.NodeIDOf(pub)
	switch {
	case f.r.Removed[id]:
		return ErrRemoved
	case f.r.Has(id):
		return errKnownKey
	case len(f.r.Members) >= MaxMembers:
		return ErrFull
	}
	room := f.room(e.Room)
	f.r.Members[id] = devices.Member{
		Node: id, Key: e.Key, Role: e.Role, Name: e.Name, Room: room, Class: e.Class, Slug: f.newSlug(e.Name, "device"),
	}
	return nil
}

// room finds a room by its name or slug, or makes it.
func (f *folder) room(name string) string {
	if strings.TrimSpace(name) == "" {
		return ""
	}
	want := Slugify(name)
	for _, slug := range slices.Sorted(maps.Keys(f.r.Rooms)) {
		known := f.r.Rooms[slug].Name
		if slug == name || known == name || want != "" && (slug == want || Slugify(known) == want) {
			return slug
		}
	}
	slug := f.newSlug(name, SubjectRoom)
	f.r.Rooms[slug] = devices.Room{Slug: slug, Name: name}
	return slug
}

// remove puts a member out. The new home key is mixed with the old one: of two
// concurrent removals each brings a part that the other's removed device cannot know.
func (f *folder) remove(e Edit) error {
	m, ok := f.r.Members[e.Node]
	if !ok {
		return errNobody
	}
	f.forgetRules(m.Slug)
	for h, p := range f.r.Pending {
		if p.Target == e.Node || p.By == e.Node {
			delete(f.r.Pending, h)
		}
	}
	delete(f.r.Members, e.Node)
	f.r.Removed[e.Node] = true
	sum := sha256.Sum256(append(slices.Clone(f.r.HomeKey), e.HomeKey...))
	f.r.HomeKey = sum[:]
	return nil
}

func (f *folder) name(e Edit) error {
	if e.Kind == SubjectDevice {
		m, ok := f.r.Members[e.Node]
		if !ok {
			return errNobody
		}
		m.Name = cmp.Or(e.Name, m.Name) // a rename keeps the slug
		if e.Room != "" {
			m.Room = f.room(e.Room)
		}
		f.r.Members[e.Node] = m
		return nil
	}
	slug := e.Slug
	if slug == "" {
		slug = f.newSlug(e.Name, e.Kind)
	}
	switch e.Kind {
	case SubjectRoom:
		return put(f.r.Rooms, e, slug, devices.Room{Slug: slug, Name: e.Name})
	case SubjectGroup:
		return put(f.r.Groups, e, slug, devices.Group{Slug: slug, Name: e.Name, Members: e.Members})
	case SubjectPerson:
		p := f.r.Persons[slug]
		if err := put(f.r.Persons, e, slug, devices.Person{Slug: slug, Name: e.Name, Role: e.Role, Nodes: f.phonesAnd(slug, e.Nodes), Until: p.Until, Room: p.Room}); err != nil || e.Room == "" {
			return err
		}
		p = f.r.Persons[slug]
		p.Room = f.room(e.Room)
		f.r.Persons[slug] = p
		return nil
	}
	return errUnknownTag
}

// put stores a new name, or changes the one that the edit's slug names.
func put[T any](m map[string]T, e Edit, slug string, v T) error {
	if _, ok := m[e.Slug]; e.Slug != "" && !ok {
		return fmt.Errorf("%q: %w", e.Slug, ErrNotFound)
	}
	m[slug] = v
	return nil
}

// change gives a member another role or class. Whether it may become an owner, or cease to be
// one, settle has decided.
func (f *folder) change(e Edit) error {
	m, ok := f.r.Members[e.Node]
	if !ok {
		return errNobody
	}
	if f.demoted[e.Node] && e.Role == devices.RoleOwner {
		return errOnce
	}
	if m.Role == devices.RoleOwner && e.Role == devices.RoleDevice {
		f.demoted[e.Node] = true
	}
	m.Role, m.Class = cmp.Or(e.Role, m.Role), cmp.Or(e.Class, m.Class)
	f.r.Members[e.Node] = m
	for h, p := range f.r.Pending {
		if m.Role != devices.RoleOwner && (p.Target == e.Node || p.By == e.Node) {
			delete(f.r.Pending, h)
		}
	}
	return nil
}

// propose notes the wish to remove an owner; settle decides what comes of it.
func (f *folder) propose(en *entry) error {
	m, ok := f.r.Members[en.edit.Node]
	if !ok {
		return errNobody
	}
	if m.Role != devices.RoleOwner {
		return errNoOwner
	}
	f.r.Pending[en.hash] = devices.Proposal{Target: en.edit.Node, By: en.edit.Signer}
	return nil
}

func (f *folder) foreign(e Edit) error {
	slug := e.Slug
	if slug == "" {
		slug = f.newSlug(e.Name, SubjectForeign)
	}
	return put(f.r.Adopted, e, slug, devices.Adopted{
		Slug: slug, Name: e.Name, Room: f.room(e.Room), Class: e.Class, URI: e.URI, Speakers: e.Nodes,
	})
}

func (f *folder) rule(e Edit) error {
	if !slices.Contains(devices.Rights(), e.Right) {
		return fmt.Errorf("%w %q", errUnknownRight, e.Right)
	}
	if _, ok := f.r.Groups[e.Slug]; ok {
		return errRuleOnGroup
	}
	if e.Slug != devices.Everybody && !f.exists(e.Slug) {
		return fmt.Errorf("%q: %w", e.Slug, ErrNotFound)
	}
	key := devices.RuleKey{Subject: e.Slug, Right: e.Right}
	if _, ok := f.r.Rules[key]; !ok && len(f.r.Rules) >= maxRules {
		return errRules
	}
	f.r.Rules[key] = devices.Rule{Subject: e.Slug, Right: e.Right, Who: e.Members, Hours: e.Hours}
	return nil
}

// exists reports whether a rule can be about a slug.
func (f *folder) exists(slug string) bool {
	_, room := f.r.Rooms[slug]
	_, person := f.r.Persons[slug]
	_, foreign := f.r.Adopted[slug]
	return room || person || foreign || slices.ContainsFunc(slices.Collect(maps.Values(f.r.Members)), func(m devices.Member) bool { return m.Slug == slug })
}

// forget deletes a name or a rule. The slug stays taken: an old URI must not come to mean
// something else.
func (f *folder) forget(e Edit) error {
	var ok bool
	switch e.Kind {
	case SubjectRule:
		key := devices.RuleKey{Subject: e.Slug, Right: e.Right}
		if _, ok = f.r.Rules[key]; ok {
			delete(f.r.Rules, key)
			return nil
		}
	case SubjectRoom:
		if _, ok = f.r.Rooms[e.Slug]; ok {
			delete(f.r.Rooms, e.Slug)
			for id, m := range f.r.Members {
				if m.Room == e.Slug {
					m.Room = ""
					f.r.Members[id] = m
				}
			}
			for slug, p := range f.r.Persons {
				if p.Room == e.Slug {
					p.Room = ""
					f.r.Persons[slug] = p
				}
			}
			for slug, a := range f.r.Adopted {
				if a.Room == e.Slug {
					a.Room = ""
					f.r.Adopted[slug] = a
				}
			}
		}
	case SubjectGroup:
		_, ok = f.r.Groups[e.Slug]
		delete(f.r.Groups, e.Slug)
	case SubjectPerson:
		_, ok = f.r.Persons[e.Slug]
		f.losePhones(e.Slug)
		delete(f.r.Persons, e.Slug)
	case SubjectForeign:
		_, ok = f.r.Adopted[e.Slug]
		delete(f.r.Adopted, e.Slug)
	default:
		return errUnknownTag
	}
	if !ok {
		return fmt.Errorf("%q: %w", e.Slug, ErrNotFound)
	}
	f.forgetRules(e.Slug)
	return nil
}

// forgetRules drops the rules about a name that is gone. What others' rules say of it stays: it
// names nobody any more, and nobody new will have that slug.
func (f *folder) forgetRules(slug string) {
	for _, right := range devices.Rights() {
		delete(f.r.Rules, devices.RuleKey{Subject: slug, Right: right})
	}
}
