package agent

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/hallway-home/hallway/cmd/hallway/internal/api"
	"github.com/hallway-home/hallway/devices"
	"github.com/hallway-home/hallway/devices/trust"
)

// CreateHome implements api.Backend.
func (a *Agent) CreateHome(name string) (string, error) {
	about := a.about()
	code, err := a.roster.Create(a.key, trust.CreateParams{HomeName: name, Name: about.Name, Room: about.Room, Class: about.Class})
	if err != nil {
		return "", err
	}
	a.settle()
	return code.String(), nil
}

// settle makes the directory show a roster change before the API answers.
func (a *Agent) settle() { a.dir.SetRoster(a.roster.Roster()) }

// Home implements api.Backend.
func (a *Agent) Home() (api.Home, error) {
	r, err := a.home()
	if err != nil {
		return api.Home{}, err
	}
	h := api.Home{
		ID: r.Home, Name: r.Name, Domain: r.Home.Domain(), Epoch: r.Epoch,
		Foreign: []devices.Adopted{}, Rules: []devices.Rule{}, Proposals: []api.Proposal{},
	}
	for _, m := range r.Members {
		h.Members = append(h.Members, api.MemberOf(m))
	}
	h.Phones = slices.AppendSeq([]devices.Phone{}, maps.Values(r.Phones))
	slices.SortFunc(h.Phones, func(x, y devices.Phone) int { return strings.Compare(x.Slug, y.Slug) })
	slices.SortFunc(h.Members, func(x, y api.Member) int { return strings.Compare(x.Slug, y.Slug) })
	for _, slug := range slices.Sorted(maps.Keys(r.Adopted)) {
		h.Foreign = append(h.Foreign, r.Adopted[slug])
	}
	h.Rules = slices.AppendSeq(h.Rules, maps.Values(r.Rules))
	slices.SortFunc(h.Rules, func(x, y devices.Rule) int {
		return strings.Compare(x.Subject+" "+string(x.Right), y.Subject+" "+string(y.Right))
	})
	for _, p := range r.Pending {
		h.Proposals = append(h.Proposals, api.Proposal{Target: r.Members[p.Target].Slug, By: r.Members[p.By].Slug})
	}
	slices.SortFunc(h.Proposals, func(x, y api.Proposal) int { return strings.Compare(x.Target+" "+x.By, y.Target+" "+y.By) })
	return h, nil
}

// History implements api.Backend.
func (a *Agent) History() ([]api.LogEntry, error) {
	if _, err := a.home(); err != nil {
		return nil, err
	}
	out := []api.LogEntry{}
	for _, e := range a.roster.History() {
		out = append(out, api.LogEntry{Number: e.Number, Hash: hex.EncodeToString(e.Hash[:8]), Op: string(e.Op), By: e.By, What: e.What, Void: e.Void})
	}
	return out, nil
}

// Remove implements api.Backend.
func (a *Agent) Remove(slug string) (api.Removal, error) {
	defer a.settle()
	if done, err := a.removePhone(slug); done || err != nil {
		return api.Removal{State: "removed"}, err
	}
	r, err := a.roster.RemoveOrPropose(a.key, slug)
	if err != nil {
		return api.Removal{}, err
	}
	if r.Done {
		return api.Removal{State: "removed"}, nil
	}
	return api.Removal{State: "proposed", Until: r.Until}, nil
}

// ChangeMember implements api.Backend.
func (a *Agent) ChangeMember(slug string, role devices.Role, class devices.Class) error {
	defer a.settle()
	return a.roster.Change(a.key, slug, role, class)
}

// Recover implements api.Backend. The code is neither logged nor stored.
func (a *Agent) Recover(code string, remove []string) error {
	c, err := trust.ParseRecoveryCode(code)
	if err != nil {
		return err
	}
	defer a.settle()
	return a.roster.Recover(c, a.self, remove...)
}

// Checkpoint implements api.Backend. What an owner did without the others' knowledge would be
// lost, so all must have been seen to know the same.
func (a *Agent) Checkpoint(code string) error {
	c, err := trust.ParseRecoveryCode(code)
	if err != nil {
		return err
	}
	r, err := a.home()
	if err != nil {
		return err
	}
	var behind []string
	for id, m := range r.Members {
		if m.Role == devices.RoleOwner && id != a.self && !a.mesh.Agrees(id) {
			behind = append(behind, m.Slug)
		}
	}
	if slices.Sort(behind); len(behind) > 0 {
		return fmt.Errorf("%w: %s", trust.ErrBehind, strings.Join(behind, ", "))
	}
	defer a.settle()
	return a.roster.Checkpoint(c)
}

// Rename implements api.Backend.
func (a *Agent) Rename(slug, name, room string) error {
	defer a.settle()
	return a.roster.Rename(a.key, slug, name, room)
}

// DeleteName implements api.Backend.
func (a *Agent) DeleteName(slug string) error {
	defer a.settle()
	return a.roster.Delete(a.key, slug)
}

// SetRoom implements api.Backend.
func (a *Agent) SetRoom(name string) error {
	defer a.settle()
	return a.roster.SetRoom(a.key, name)
}

// SetGroup implements api.Backend.
func (a *Agent) SetGroup(slug, name string, members []string) error {
	if err := a.mustExist(members); err != nil {
		return err
	}
	defer a.settle()
	return a.roster.SetGroup(a.key, slug, name, members)
}

func (a *Agent) mustExist(names []string) error {
	a.settle()
	for _, m := range names {
		if _, ok := a.dir.Snapshot().Resolve(m); !ok {
			return fmt.Errorf("%q: %w", m, trust.ErrNotFound)
		}
	}
	return nil
}

// SetPerson implements api.Backend.
func (a *Agent) SetPerson(slug, name string, phones []string) error {
	nodes, err := a.nodesOf(phones)
	if err != nil {
		return err
	}
	defer a.settle()
	role := devices.RoleDevice
	if r := a.roster.Roster(); r != nil && r.Persons[slug].Slug != "" {
		role = r.Persons[slug].Role
	}
	return a.roster.SetPerson(a.key, slug, name, role, nodes)
}

// nodesOf finds devices of the home by their names.
func (a *Agent) nodesOf(names []string) ([]devices.NodeID, error) {
	var nodes []devices.NodeID
	for _, p := range names {
		r, ok := a.dir.Snapshot().Resolve(p)
		if !ok || r.Kind != devices.KindDevice {
			return nil, fmt.Errorf("the device %q: %w", p, trust.ErrNotFound)
		}
		nodes = append(nodes, r.Devices[0].Node)
	}
	return nodes, nil
}

// SetForeign implements api.Backend.
func (a *Agent) SetForeign(f api.ForeignRequest) error {
	nodes, err := a.nodesOf(f.Speakers)
	if err != nil {
		return err
	}
	if u, err := url.Parse(f.URI); err == nil && u.Host != "" && u.User != nil {
		return fmt.Errorf("%w: every device of the home can read this address, so it must not hold a password; `hallway adopt` keeps it with the speaker", api.ErrInput)
	}
	ad := devices.Adopted{Slug: f.Slug, Name: f.Name, Class: f.Class, URI: f.URI, Speakers: nodes}
	if r := a.roster.Roster(); r != nil {
		ad.Room = r.Adopted[f.Slug].Room
	}
	defer a.settle()
	return a.roster.SetForeign(a.key, ad)
}

// SetRule implements api.Backend.
func (a *Agent) SetRule(r devices.Rule) error {
	known := slices.DeleteFunc(slices.Clone(r.Who), func(s string) bool { return s == devices.Everybody })
	if err := a.mustExist(known); err != nil {
		return err
	}
	return a.roster.SetRule(a.key, r)
}

// DeleteRule implements api.Backend.
func (a *Agent) DeleteRule(k devices.RuleKey) error { return a.roster.DeleteRule(a.key, k) }

// MayCall implements sessions.Policy: the home's rules decide who may make this device ring,
// and who may see a camera that it speaks for.
func (a *Agent) MayCall(from devices.Device, to string) error {
	now, known := a.homeTime()
	who := asker(from)
	if r := a.roster.Roster(); r != nil {
		if _, foreign := r.Adopted[to]; foreign {
			for _, right := range []devices.Right{devices.RightCall, devices.RightView} {
				if !r.AllowsOn(right, who, to, now, known) {
					return errors.New("the rules of the home do not allow it")
				}
			}
			return nil
		}
	}
	if !a.roster.Roster().Allows(devices.RightCall, who, a.self, now, known) {
		return errors.New("the rules of the home do not allow it")
	}
	return nil
}

// homeTime is the time by which quiet hours and waiting go, as the overlay knows it.
func (a *Agent) homeTime() (time.Time, bool) {
	if a.mesh == nil { // the log is opened first
		return time.Time{}, false
	}
	return a.mesh.HomeTime()
}

// reviewEvery is how often this node looks whether a removal has waited long enough.
const reviewEvery = time.Minute

// reviewRoster lets the roster look at what waits.
func (a *Agent) reviewRoster(ctx context.Context) error {
	tick := time.NewTicker(reviewEvery)
	defer tick.Stop()
	for {
		if err := a.roster.Review(); err != nil {
			a.log.Error("cannot look at what waits in the roster", "err", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}
