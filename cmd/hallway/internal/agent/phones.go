package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/hallway-home/hallway/cmd/hallway/internal/api"
	"github.com/hallway-home/hallway/cmd/hallway/internal/web"
	"github.com/hallway-home/hallway/devices"
	"github.com/hallway-home/hallway/devices/pairing"
	"github.com/hallway-home/hallway/devices/trust"
	"github.com/hallway-home/hallway/devices/trust/webca"
)

// phones is the window through which one phone may come in.
type phones struct {
	mu   sync.Mutex // held while a phone is let in: one at a time
	win  *pairing.PhoneWindow
	req  api.PhoneRequest
	slug string // of the phone that came in
}

// phoneQuestion carries a phone's proof from the node that it opened to the owner whose
// window it is.
type phoneQuestion struct {
	Key   []byte `json:"key"`
	Name  string `json:"name"`
	Proof []byte `json:"proof"`
}

type phoneReply struct {
	State string `json:"state"` // paired, waiting, or one of phoneFaults
}

// phoneFaults are the ways in which a phone is not let in, as they travel.
func phoneFaults() map[string]error {
	return map[string]error{
		"closed": pairing.ErrClosed, "wrong": pairing.ErrWrongCode, "guessing": pairing.ErrGuessing, "busy": pairing.ErrBusy,
		"declined": pairing.ErrDeclined, "lost": trust.ErrPhoneLost, "full": trust.ErrPhones,
	}
}

// OpenPhones implements api.Backend.
func (a *Agent) OpenPhones(req api.PhoneRequest) (api.PhoneWindow, error) {
	r, err := a.mayEdit()
	if err != nil {
		return api.PhoneWindow{}, err
	}
	if a.cfg.WebAddr() == "" {
		return api.PhoneWindow{}, fmt.Errorf("%w: this device does not serve the companion; remove `listen: off` from its configuration", api.ErrInput)
	}
	switch p, known := r.Persons[req.Person]; {
	case req.Person != "" && !known:
		return api.PhoneWindow{}, fmt.Errorf("the person %q: %w", req.Person, trust.ErrNotFound)
	case known:
		req.Name, req.Role = p.Name, p.Role
	default:
		req.Role = cmp.Or(req.Role, firstRole(r))
		req.Name = cmp.Or(trust.PlainText(req.Name), "Owner")
	}
	if req.Role != devices.RoleGuest && !req.Until.IsZero() {
		return api.PhoneWindow{}, fmt.Errorf("%w: only a guest has a last day", api.ErrInput)
	}
	if req.Person != "" && req.Room != "" {
		return api.PhoneWindow{}, fmt.Errorf("%w: %s belongs to the home already; `hallway home rename` moves somebody to a room", api.ErrInput, req.Name)
	}
	a.phones.mu.Lock()
	defer a.phones.mu.Unlock()
	if a.phones.win != nil {
		a.phones.win.Close()
	}
	a.phones.win = pairing.OpenPhoneWindow(time.Duration(req.Minutes)*time.Minute, !req.Trusted)
	a.phones.req, a.phones.slug = req, ""
	return a.phoneWindow(), nil
}

// firstRole: the first person with a phone owns the home.
func firstRole(r *devices.Roster) devices.Role {
	for _, p := range r.Phones {
		if r.Persons[p.Person].Role == devices.RoleOwner {
			return devices.RoleMember
		}
	}
	return devices.RoleOwner
}

// Phones implements api.Backend.
func (a *Agent) Phones() api.PhoneWindow {
	a.phones.mu.Lock()
	defer a.phones.mu.Unlock()
	return a.phoneWindow()
}

// phoneWindow shows the window; mu is held.
func (a *Agent) phoneWindow() api.PhoneWindow {
	w, r := a.phones.win, a.roster.Roster()
	if w == nil || r == nil {
		return api.PhoneWindow{State: string(pairing.PhoneClosed)}
	}
	state, phone := w.State()
	out := api.PhoneWindow{State: string(state), Until: w.Until, Person: a.phones.req.Name, Role: a.phones.req.Role, Phone: phone.Name, Slug: a.phones.slug}
	if state == pairing.PhoneOpen {
		out.URL, out.Code = pairing.PhoneQR(r.Home, a.webPort(), w.Secret), w.Code.String()
	}
	if phone.Key != nil {
		out.Words = web.PhoneWords(phone.Key)
	}
	return out
}

// ConfirmPhone implements api.Backend.
func (a *Agent) ConfirmPhone(yes bool) error {
	if w := a.phoneWindowNow(); w != nil {
		return w.Confirm(yes)
	}
	return pairing.ErrClosed
}

// ClosePhones implements api.Backend.
func (a *Agent) ClosePhones() error {
	if w := a.phoneWindowNow(); w != nil {
		w.Close()
	}
	return nil
}

func (a *Agent) phoneWindowNow() *pairing.PhoneWindow {
	a.phones.mu.Lock()
	defer a.phones.mu.Unlock()
	return a.phones.win
}

// pairPhone lets a phone in by this node's window, or asks the owners whose window it is: the
// phone opened the home's one origin, and came to whichever node answered.
func (a *Agent) pairPhone(ctx context.Context, p web.Phone) (bool, error) {
	in, err := a.letIn(p)
	if !errors.Is(err, pairing.ErrClosed) {
		return in, err
	}
	r, homeErr := a.home()
	if homeErr != nil {
		return false, homeErr
	}
	for _, d := range a.owners(r) {
		asked, cancel := context.WithTimeout(ctx, askTime)
		res, askErr := a.ask(asked, d, question{Phone: &phoneQuestion{p.Key, p.Name, p.Proof}})
		cancel()
		if askErr != nil || res.Phone == nil || res.Phone.State == "closed" {
			continue
		}
		switch s := res.Phone.State; s {
		case "paired", "waiting":
			return s == "paired", nil
		default:
			return false, cmp.Or(phoneFaults()[s], err)
		}
	}
	return false, err
}

// letIn tries a phone on the window of this node.
func (a *Agent) letIn(p web.Phone) (bool, error) {
	a.phones.mu.Lock()
	defer a.phones.mu.Unlock()
	pub, err := devices.ParseCompressedKey(p.Key)
	if err != nil {
		return false, pairing.ErrWrongCode
	}
	r, err := a.home()
	if err != nil {
		return false, err
	}
	w := a.phones.win
	if w == nil {
		return false, pairing.ErrClosed
	}
	phone := pairing.Phone{Key: p.Key, Name: p.Name}
	if known := r.Phones[devices.NodeIDOf(pub)]; known.Slug != "" && known.Slug == a.phones.slug {
		return true, nil // its answer was lost on the way
	}
	in, err := w.Show(phone, p.Proof)
	if err != nil || !in {
		return in, err
	}
	req := a.phones.req
	added, err := a.roster.AddPhone(a.key, trust.NewPhone{Key: pub, Label: cmp.Or(p.Name, "Phone"), Person: req.Person, Name: req.Name, Role: req.Role, Until: req.Until, Room: req.Room})
	if err != nil {
		return false, err
	}
	a.log.Info("a phone belongs to the home now", "phone", added.Slug, "person", added.Person)
	a.phones.slug = added.Slug
	w.Paired()
	a.settle()
	return true, nil
}

// answerPhone is letIn for a member that a phone came to.
func (a *Agent) answerPhone(from devices.Device, q phoneQuestion) *phoneReply {
	in, err := a.letIn(web.Phone{Key: q.Key, Name: trust.PlainText(q.Name), Proof: q.Proof})
	for _, name := range slices.Sorted(maps.Keys(phoneFaults())) {
		if errors.Is(err, phoneFaults()[name]) {
			return &phoneReply{State: name}
		}
	}
	switch {
	case err != nil:
		a.log.Warn("a phone could not be let in", "by", from.Slug, "err", err)
		return &phoneReply{State: "closed"}
	case in:
		return &phoneReply{State: "paired"}
	}
	return &phoneReply{State: "waiting"}
}

// ChangePerson implements api.Backend.
func (a *Agent) ChangePerson(slug string, role devices.Role, until time.Time) error {
	if role != devices.RoleGuest && !until.IsZero() {
		return fmt.Errorf("%w: only a guest has a last day", api.ErrInput)
	}
	defer a.settle()
	return a.roster.ChangePerson(a.key, slug, role, until)
}

// Trust implements api.Backend.
func (a *Agent) Trust() (api.Trust, error) {
	r, err := a.home()
	if err != nil {
		return api.Trust{}, err
	}
	t := api.Trust{URL: "https://" + r.Home.AppHost() + ":" + a.webPort() + "/", Own: a.cfg.Web.Cert != "", Ready: a.web.shown.Load() != nil}
	if r.WebCA != ([32]byte{}) {
		t.Words, t.Fingerprint = webca.Words(r.WebCA), webca.Fingerprint(r.WebCA)
	}
	return t, nil
}

// RenewTrust implements api.Backend.
func (a *Agent) RenewTrust() (api.Trust, error) {
	r, err := a.mayEdit()
	if err != nil {
		return api.Trust{}, err
	}
	if err := a.makeCA(r); err != nil {
		return api.Trust{}, err
	}
	return a.Trust()
}

// removePhone removes a phone, if that is what the name means.
func (a *Agent) removePhone(slug string) (bool, error) {
	r := a.roster.Roster()
	if r == nil {
		return false, nil
	}
	for _, p := range r.Phones {
		if p.Slug == slug {
			return true, a.roster.RemovePhone(a.key, slug)
		}
	}
	return false, nil
}
