package trust

import (
	"cmp"
	"crypto/ecdsa"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/hallway-home/hallway/devices"
)

// MaxPhones bounds the phones of a home: with its members they are the keys that a
// household holds (decisions: 128 living keys).
const MaxPhones = 128

// What a person may run into with phones.
var (
	ErrPhoneLost = errors.New("this phone was removed from the home; clear its site data and pair it again, it then makes a new key")
	ErrPhones    = errors.New("the home is full: 128 phones belong already; remove one first")
)

// phone gives a person a phone; without a slug the person is made.
func (f *folder) phone(e Edit) error {
	id := e.Nodes[0]
	_, known := f.r.Phones[id]
	switch {
	case f.r.Lost[id]:
		return ErrPhoneLost
	case known || f.r.Has(id) || f.r.Removed[id]:
		return errKnownKey
	case len(f.r.Phones) >= MaxPhones:
		return ErrPhones
	}
	p, ok := f.r.Persons[e.Slug]
	switch {
	case e.Slug != "" && !ok:
		return fmt.Errorf("%q: %w", e.Slug, ErrNotFound)
	case e.Slug == "":
		p = devices.Person{Slug: f.newSlug(e.Name, SubjectPerson), Name: e.Name, Role: e.Role, Until: e.At, Room: f.room(e.Room)}
	}
	p.Nodes = append(slices.Clone(p.Nodes), id)
	f.r.Persons[p.Slug] = p
	f.r.Phones[id] = devices.Phone{Node: id, Slug: f.newSlug(e.Label, "phone"), Name: e.Label, Person: p.Slug}
	return nil
}

// lose puts a phone out. A key that was never here is lost as well: the edit that brings it
// may come later.
func (f *folder) lose(e Edit) error {
	id := e.Nodes[0]
	phone, ok := f.r.Phones[id]
	f.r.Lost[id] = true
	if !ok {
		return errNobody
	}
	delete(f.r.Phones, id)
	p := f.r.Persons[phone.Person]
	p.Nodes = slices.DeleteFunc(slices.Clone(p.Nodes), func(n devices.NodeID) bool { return n == id })
	f.r.Persons[phone.Person] = p
	f.forgetRules(phone.Slug)
	return nil
}

func (f *folder) losePhones(person string) {
	for _, id := range slices.SortedFunc(maps.Keys(f.r.Phones), compareNode) {
		if f.r.Phones[id].Person == person {
			_ = f.lose(Edit{Nodes: []devices.NodeID{id}}) // it is there
		}
	}
}

// phonesAnd keeps a person's phones when the edit lists only their devices, and keeps those
// out that are lost: the edit may have been made elsewhere at the same time.
func (f *folder) phonesAnd(person string, nodes []devices.NodeID) []devices.NodeID {
	out := slices.DeleteFunc(slices.Clone(nodes), func(id devices.NodeID) bool {
		return f.r.Lost[id] || f.r.Phones[id].Person != "" && f.r.Phones[id].Person != person
	})
	for _, id := range f.r.Persons[person].Nodes {
		if f.r.Phones[id].Person == person && !slices.Contains(out, id) {
			out = append(out, id)
		}
	}
	return out
}

func (f *folder) person(e Edit) error {
	p, ok := f.r.Persons[e.Slug]
	if !ok {
		return fmt.Errorf("%q: %w", e.Slug, ErrNotFound)
	}
	p.Role, p.Until = e.Role, e.At
	f.r.Persons[e.Slug] = p
	return nil
}

// NewPhone is a phone that was let in, and whose it is.
type NewPhone struct {
	Key   *ecdsa.PublicKey
	Label string // what the phone is called

	Person string // slug of somebody known; else the following make a person
	Name   string
	Role   devices.Role
	Until  time.Time // last moment of a guest by home time; zero: no end
	Room   string    // of a wall panel, by name or slug
}

// AddPhone signs the edit that gives a person a phone. A key that belongs already is
// returned as it is: asking twice is no error.
func (l *Log) AddPhone(key *ecdsa.PrivateKey, p NewPhone) (devices.Phone, error) {
	id := devices.NodeIDOf(p.Key)
	if r := l.Roster(); r != nil && r.Phones[id].Person != "" {
		return r.Phones[id], nil
	}
	e := Edit{Op: OpPhone, Nodes: []devices.NodeID{id}, Label: PlainText(p.Label), Slug: p.Person}
	if p.Person == "" {
		e.Name, e.Role, e.Room = PlainText(cmp.Or(p.Name, "Owner")), p.Role, PlainText(p.Room)
		if !p.Until.IsZero() {
			e.At = p.Until.Unix()
		}
	}
	if err := l.append(key, "roster.phone", e); err != nil {
		return devices.Phone{}, err
	}
	return l.Roster().Phones[id], nil
}

// RemovePhone puts a phone out for good, by its slug.
func (l *Log) RemovePhone(key *ecdsa.PrivateKey, slug string) error {
	r := l.Roster()
	if r == nil {
		return ErrNoHome
	}
	for id, p := range r.Phones {
		if p.Slug == slug {
			return l.append(key, "roster.lost", Edit{Op: OpLost, Nodes: []devices.NodeID{id}})
		}
	}
	return fmt.Errorf("%q is no phone: %w", slug, ErrNotFound)
}

// ChangePerson gives a person another role and last day.
func (l *Log) ChangePerson(key *ecdsa.PrivateKey, slug string, role devices.Role, until time.Time) error {
	e := Edit{Op: OpPerson, Slug: slug, Role: role}
	if !until.IsZero() {
		e.At = until.Unix()
	}
	return l.append(key, "roster.person", e)
}

// SetWebCA names the certificate under which the companion is served, by its SHA-256.
func (l *Log) SetWebCA(key *ecdsa.PrivateKey, sum [32]byte) error {
	return l.append(key, "roster.web-ca", Edit{Op: OpWebCA, State: sum[:]})
}
