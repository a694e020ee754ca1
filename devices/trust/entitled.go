package trust

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hallway-home/hallway/devices"
)

// effectKind is what an edit does to members, as far as settle cares.
type effectKind int

const (
	nothing  effectKind = iota
	joins               // a device is admitted
	makes               // somebody is, or becomes, an owner
	unmakes             // a member is removed, or an owner made a device
	proposes            // an owner wants another one removed
)

func (s *settler) kind(en *entry) effectKind {
	e := en.edit
	owner := e.Role == devices.RoleOwner
	switch {
	case en == s.first, e.Op == OpAdmit && owner, e.Op == OpChange && owner:
		return makes
	case e.Op == OpAdmit:
		return joins
	case e.Op == OpRemove, e.Op == OpAgree, e.Op == OpChange && e.Role == devices.RoleDevice:
		return unmakes
	case e.Op == OpPropose:
		return proposes
	}
	return nothing
}

// look takes one edit, parents before children, and judges by its ancestors alone.
func (s *settler) look(en *entry) {
	if s.f.base != nil && en == s.first {
		s.seed(en)
		return
	}
	var anc bits
	for _, p := range en.edit.Parents {
		anc = anc.union(s.anc[p])
		if known := s.index[p]; known != nil {
			anc = anc.with(known.index)
		}
	}
	s.anc[en.hash] = anc
	if en.edit.Home != s.first.edit.Home || en.edit.Version > 1 {
		return
	}
	kind := s.kind(en)
	if kind == nothing {
		return
	}
	p := &power{entry: en, index: len(s.list), root: en.byRoot(), target: en.edit.Node}
	if id, ok := keyID(en.edit.Key); ok {
		p.target = id
	}
	err := s.mayAct(en)
	if err == nil {
		p.family = s.family(en.edit.Signer, anc)
		err = s.judge(p, kind)
	}
	s.f.verdict[en.hash] = err
	if err == nil {
		s.list = append(s.list, p)
		s.index[en.hash] = p
	}
}

// judge decides by its ancestors alone whether what an owner signed is possible.
func (s *settler) judge(p *power, kind effectKind) error {
	anc := s.anc[p.hash]
	switch kind {
	case joins:
		s.joined[p.target] = append(s.joined[p.target], p)
	case makes:
		if anyOf(s.made[p.target], anc) {
			return errOnce
		}
		if p.edit.Op == OpChange && !anyOf(s.joined[p.target], anc) {
			return errNobody
		}
		s.made[p.target] = append(s.made[p.target], p)
	case proposes:
		if !s.wasOwnerAt(p.target, anc) {
			return errNoOwner
		}
	case unmakes:
		if err := s.entitled(p); err != nil {
			return err
		}
		s.unmade[p.target] = append(s.unmade[p.target], p)
	}
	return nil
}

// mayAct checks signature and signer of an edit about owners.
func (s *settler) mayAct(en *entry) error {
	id := en.edit.Signer
	if en.byRoot() {
		return en.checkSignature(s.root)
	}
	if !s.ownerAt(id, s.anc[en.hash]) {
		return errSigner
	}
	key, ok := s.keys[id]
	if !ok {
		key, _ = devices.ParseCompressedKey(s.raw[id])
		s.keys[id] = key
	}
	return en.checkSignature(key)
}

// anyOf reports whether one of the edits of a list is an ancestor.
func anyOf(list []*power, anc bits) bool {
	return slices.ContainsFunc(list, func(p *power) bool { return anc.has(p.index) })
}

// ownerAt reports whether a key is an owner's after the ancestors given. Who was made a
// device does not become an owner again.
func (s *settler) ownerAt(id devices.NodeID, anc bits) bool {
	return anyOf(s.made[id], anc) && !anyOf(s.unmade[id], anc)
}

// wasOwnerAt reports whether a key was an owner's and was not made a device. It may have been
// removed: if that removal turns out to be void, it must still be possible to remove it.
func (s *settler) wasOwnerAt(id devices.NodeID, anc bits) bool {
	return anyOf(s.made[id], anc) && !slices.ContainsFunc(s.unmade[id], func(p *power) bool { return anc.has(p.index) && p.edit.Op == OpChange })
}

// family lists an owner and above it those who made it, the highest first. If several
// made it without knowing of each other, only those above all of them count, so that
// nobody can draw another's owner into its own family.
func (s *settler) family(id devices.NodeID, anc bits) []devices.NodeID {
	var above []devices.NodeID
	seen := map[devices.NodeID]bool{}
	for _, m := range s.made[id] {
		if by := m.edit.Signer; anc.has(m.index) && !seen[by] {
			if len(seen) == 0 {
				above = m.family
			}
			above = common(above, m.family)
			seen[by] = true
		}
	}
	if len(seen) == 0 {
		return nil // the root is above all
	}
	return append(slices.Clone(above), id)
}

// common is the beginning that two families share.
func common(a, b []devices.NodeID) []devices.NodeID {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return a[:n]
}

// entitled applies the rule of settle to one removal.
func (s *settler) entitled(p *power) error {
	e, anc := p.edit, s.anc[p.hash]
	p.by = []*power{p}
	if e.Op == OpAgree {
		first := s.index[Hash(e.Proposal)]
		if first == nil || first.edit.Op != OpPropose || !anc.has(first.index) || first.target != p.target {
			return errNoProposal
		}
		if e.Signer == p.target || first.edit.Signer == p.target {
			return errSelf // dated back, it would undo what this owner did before
		}
		if !s.ownerAt(first.edit.Signer, anc) {
			return errSigner
		}
		p.by = append(p.by, first)
	}
	if !s.wasOwnerAt(p.target, anc) {
		if e.Op != OpRemove {
			return errNoOwner
		}
		p.plain = !p.root
		return nil
	}
	if p.root {
		return nil
	}
	chain, family := s.family(p.target, anc), p.family
	for _, b := range p.by[1:] {
		family = common(family, s.family(b.edit.Signer, anc))
	}
	p.depth = len(family)
	if len(common(family, chain)) == len(family) {
		p.ofHead = len(p.by) > 1 && len(family) == len(chain)
		return nil
	}
	if len(p.by) == 1 {
		return s.notEntitled(chain, anc)
	}
	if first := p.by[1]; first.edit.Signer != e.Signer {
		return ErrNoSecond
	} else if e.At-first.edit.At < int64(removalWait/time.Second) {
		return errEarly
	}
	p.lone = true
	return nil
}

// notEntitled says who could.
func (s *settler) notEntitled(chain []devices.NodeID, anc bits) error {
	var names []string
	for _, id := range chain[:len(chain)-1] {
		if s.ownerAt(id, anc) {
			names = append(names, s.names[id])
		}
	}
	if len(names) == 0 {
		return ErrSenior
	}
	return fmt.Errorf("%w, or do it on: %s", ErrSenior, strings.Join(names, ", "))
}
