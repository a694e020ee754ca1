package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/hallway-home/hallway/cmd/hallway/internal/api"
	"github.com/hallway-home/hallway/cmd/hallway/internal/web"
	"github.com/hallway-home/hallway/devices"
	"github.com/hallway-home/hallway/devices/trust"
	"github.com/hallway-home/hallway/sessions"
)

const (
	// maxWish bounds the body of a request that is carried: 32 names, or a camera's address.
	maxWish = 3 << 10
	// wishesPerSecond and wishBurst bound what is carried out for others, and with the life of a
	// challenge what is remembered of it: a window that is looked at each second is the most.
	wishesPerSecond, wishBurst = 10, 40
	// rosterTime is how long a carrier waits until it knows the change itself.
	rosterTime = 2 * time.Second
)

// wishes is what a person wants changed while logged in to a node that may not sign it.
type wishes struct {
	challenges *web.Challenges // of this node, for who carries here
	pace       *rate.Limiter

	mu   sync.Mutex
	last devices.NodeID // the owner that did the last one: what was opened there is looked for there
}

func newWishes() wishes {
	return wishes{challenges: web.NewChallenges(), pace: rate.NewLimiter(wishesPerSecond, wishBurst)}
}

// wishQuestion asks an owner's node for a challenge, or brings what a phone has signed over one.
type wishQuestion struct {
	Challenge string `json:"challenge,omitempty"` // empty: give me one
	Method    string `json:"method,omitempty"`
	Path      string `json:"path,omitempty"`
	Body      []byte `json:"body,omitempty"`
	Key       []byte `json:"key,omitempty"`
	Signature []byte `json:"signature,omitempty"`
}

type wishReply struct {
	Challenge string          `json:"challenge,omitempty"`
	Status    int             `json:"status,omitempty"` // of HTTP
	Body      json.RawMessage `json:"body,omitempty"`
}

// Carries implements api.Carrier.
func (a *Agent) Carries() bool {
	r := a.roster.Roster()
	return r.Has(a.self) && r.Members[a.self].Role != devices.RoleOwner
}

// Carry implements api.Carrier. A wish is signed over a challenge of one owner's node and goes
// to that one alone, so nothing is done twice.
func (a *Agent) Carry(ctx context.Context, w api.Wish) api.Carried {
	r, err := a.home()
	if err != nil {
		return api.RefusedFor(err)
	}
	if len(w.Body) > maxWish {
		return api.Refused(http.StatusRequestEntityTooLarge, "this is too long to be carried to an owner's device; do it there")
	}
	owners := a.owners(r)
	if id, challenge, signature, ok := web.ParseWish(w.Authorization); ok {
		if i := slices.IndexFunc(owners, func(d devices.Device) bool { return d.Node == id }); i >= 0 {
			return a.bring(ctx, owners[i], wishQuestion{Challenge: challenge, Method: w.Method, Path: w.Path, Body: w.Body, Key: w.Key, Signature: signature})
		}
	}
	a.wishes.mu.Lock()
	last := a.wishes.last
	a.wishes.mu.Unlock()
	if i := slices.IndexFunc(owners, func(d devices.Device) bool { return d.Node == last }); i > 0 {
		owners[0], owners[i] = owners[i], owners[0]
	}
	for _, d := range owners {
		asked, cancel := context.WithTimeout(ctx, askTime)
		res, err := a.ask(asked, d, question{Wish: &wishQuestion{}})
		cancel()
		if err == nil && res.Wish != nil && res.Wish.Challenge != "" {
			out := api.Refused(http.StatusUnauthorized, "an owner's device does this once your phone has signed it")
			out.Ask = web.AskWish(r.Home, d.Node, res.Wish.Challenge)
			return out
		}
	}
	return api.Refused(http.StatusServiceUnavailable, fmt.Sprintf("only an owner's device can do this, and none can be reached; switch on %s and try again", strings.Join(trust.OwnerNames(r), " or ")))
}

// bring has an owner's node carry a signed wish out. Without an answer nobody knows whether it
// did, so no other one is asked.
func (a *Agent) bring(ctx context.Context, owner devices.Device, q wishQuestion) api.Carried {
	ctx, cancel := context.WithTimeout(ctx, relayTime)
	defer cancel()
	res, err := a.ask(ctx, owner, question{Wish: &q})
	switch {
	case errors.Is(err, sessions.ErrRefused):
		return api.Refused(http.StatusServiceUnavailable, owner.Name+" cannot do this now; try again in a moment")
	case err != nil:
		return api.Refused(http.StatusGatewayTimeout, owner.Name+" was asked and has not answered; look whether it was done before you try again")
	case res.Wish == nil || res.Wish.Status < http.StatusOK || res.Wish.Status > 599:
		return api.Refused(http.StatusBadGateway, owner.Name+" answered what cannot be read; update Hallway there")
	}
	a.wishes.mu.Lock()
	a.wishes.last = owner.Node
	a.wishes.mu.Unlock()
	if q.Method != http.MethodGet && res.Wish.Status < http.StatusMultipleChoices {
		a.waitForEpoch(ctx, res.Epoch)
	}
	return api.Carried{Status: res.Wish.Status, Body: res.Wish.Body}
}

// waitForEpoch gives the overlay a moment to bring the change, so that the page reads it here.
func (a *Agent) waitForEpoch(ctx context.Context, epoch uint64) {
	ctx, cancel := context.WithTimeout(ctx, rosterTime)
	defer cancel()
	changed := a.roster.Watch(ctx)
	for a.epoch() < epoch {
		select {
		case <-ctx.Done():
			return
		case <-changed:
		}
	}
	a.settle()
}

// answerWish gives a challenge, or does what a phone of the home has signed over one.
func (a *Agent) answerWish(ctx context.Context, from devices.Device, q wishQuestion) *wishReply {
	if q.Challenge == "" {
		return &wishReply{Challenge: a.wishes.challenges.New()}
	}
	w := api.Wish{Method: q.Method, Path: q.Path, Body: q.Body, Key: q.Key, Challenge: q.Challenge, Signature: q.Signature}
	who, err := a.wisher(w)
	if err != nil {
		a.log.Warn("a wish that a member brought was refused", "by", from.Slug, "err", err)
		c := api.RefusedFor(err)
		if errors.Is(err, web.ErrChallenge) { // nothing was done: the page may sign another one
			c = api.Refused(http.StatusUnauthorized, err.Error())
		}
		return &wishReply{Status: c.Status, Body: c.Body}
	}
	who.Via = from.Node
	if w.Method != http.MethodGet {
		a.log.Info("a person changes the home through another device", "person", who.Person, "by", from.Slug, "what", w.Method+" "+w.Path)
	}
	c := api.CarryOut(ctx, a.routes, who, w, a.log)
	return &wishReply{Status: c.Status, Body: c.Body}
}

// wisher says whose wish it is, as this node knows the home now.
func (a *Agent) wisher(w api.Wish) (api.Caller, error) {
	r, err := a.mayEdit()
	if err != nil {
		return api.Caller{}, err
	}
	if !a.wishes.challenges.Fresh(w.Challenge) { // check: fresh wish
		return api.Caller{}, web.ErrChallenge
	}
	pub, err := web.CheckWish(r.Home, a.self, w)
	if err != nil {
		return api.Caller{}, fmt.Errorf("%w: %w", api.ErrInput, err)
	}
	id := devices.NodeIDOf(pub)
	if r.Lost[id] {
		return api.Caller{}, trust.ErrPhoneLost
	}
	p, access := web.Who(r, a.homeTime, id)
	if access == api.AsNobody { // check: phone of a wish
		return api.Caller{}, api.ErrLogin
	}
	if !a.wishes.pace.Allow() {
		return api.Caller{}, api.ErrOften
	}
	if !a.wishes.challenges.Once(w.Challenge) { // check: wish once
		return api.Caller{}, fmt.Errorf("%w: it was brought before, and nothing is done twice", api.ErrInput)
	}
	return api.Caller{Access: access, Person: p.Slug, Phone: id}, nil
}
