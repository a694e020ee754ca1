package api

import (
	"context"
	"fmt"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/hallway-home/hallway/devices"
)

// Access is what a caller may, each more than the one before.
type Access int

// The levels. AsLocal is whoever may use the agent's own socket: the person at the device.
const (
	AsNobody Access = iota
	AsGuest
	AsMember
	AsOwner
	AsLocal
)

func (a Access) String() string {
	return [...]string{"nobody", "guest", "member", "owner", "local"}[a]
}

// AccessOf is what a person's role gives. Persons from before roles were told apart are members.
func AccessOf(r devices.Role) Access {
	switch r {
	case devices.RoleOwner:
		return AsOwner
	case devices.RoleGuest:
		return AsGuest
	}
	return AsMember
}

// access is the one table of who may do what: the least access for each operation. The
// router is built from it; an operation without a line cannot be registered.
//
// What acts as the device itself (calling, answering, volume of a call's sound) is for the
// person at the device: from afar it would open a microphone in somebody's room.
func access() map[string]Access {
	return map[string]Access{
		"challenge": AsNobody, "login": AsNobody, "pair-phone": AsNobody, // each brings its own proof
		"whoami": AsGuest, "logout": AsGuest,

		"status": AsGuest, "devices": AsGuest, "rooms": AsGuest, "resolve": AsGuest, "profiles": AsGuest, "events": AsGuest, "trust": AsGuest,

		"home": AsMember, "calls": AsMember, "call": AsMember, "doctor": AsMember, "diagnose": AsMember, "volume": AsMember, "set-volume": AsMember, "dnd": AsMember,

		"home-log": AsOwner, "rename": AsOwner, "set-room": AsOwner, "set-group": AsOwner, "set-person": AsOwner, "remove": AsOwner, "change-member": AsOwner,
		"change-person": AsOwner, "delete-name": AsOwner, "set-rule": AsOwner, "delete-rule": AsOwner, "set-foreign": AsOwner, "adopt": AsOwner, "identify": AsOwner, "add": AsOwner, "invite": AsOwner,
		"open-phones": AsOwner, "phones": AsOwner, "confirm-phone": AsOwner, "close-phones": AsOwner,

		"process": AsLocal, "start-call": AsLocal, "change-call": AsLocal, "answer": AsLocal, "decline": AsLocal, "hangup": AsLocal, "set-dnd": AsLocal,
		"create-home": AsLocal, "recover": AsLocal, "checkpoint": AsLocal, "renew-trust": AsLocal,
		"pairing": AsLocal, "open-pairing": AsLocal, "close-pairing": AsLocal,
	}
}

// accessKey is where an operation says its level, in its description too.
const accessKey = "x-least-access"

// Caller is who asks, as whoever accepted the connection found out.
type Caller struct {
	Access Access
	Person string         // slug; empty for the local socket and for strangers
	Phone  devices.NodeID // of the phone's key
	Via    devices.NodeID // the node that carried a phone's wish here; zero: they ask themselves
}

type callerKey struct{}

// WithCaller says who asks; requests without it are of nobody.
func WithCaller(ctx context.Context, c Caller) context.Context {
	return context.WithValue(ctx, callerKey{}, c)
}

// CallerOf is who asks.
func CallerOf(ctx context.Context) Caller {
	c, _ := ctx.Value(callerKey{}).(Caller)
	return c
}

// Words of the ways to be refused at the door.
const (
	WordsLogin  = "log in first: this device must be paired with the home"
	WordsAccess = "this needs more rights than yours; ask an owner of the home"
	wordsLocal  = "this can only be done at the device itself"
)

// guard lets through who has the access that the operation's line asks for.
func guard(a huma.API) func(huma.Context, func(huma.Context)) {
	return func(ctx huma.Context, next func(huma.Context)) {
		least, ok := LeastOf(ctx.Operation())
		has := CallerOf(ctx.Context()).Access
		if !ok || has < least { // check: least access
			refuse(a, ctx, has, least)
			return
		}
		if !CallerOf(ctx.Context()).Via.IsZero() && !carried(ctx.Operation().OperationID) { // check: what may be carried
			_ = huma.WriteErr(a, ctx, http.StatusForbidden, "this is not done for a person at another device")
			return
		}
		next(ctx)
	}
}

// refuse says in which way somebody may not.
func refuse(a huma.API, ctx huma.Context, has, least Access) {
	status, words := http.StatusForbidden, WordsAccess
	switch {
	case has == AsNobody:
		status, words = http.StatusUnauthorized, WordsLogin
	case least == AsLocal:
		words = wordsLocal
	}
	_ = huma.WriteErr(a, ctx, status, words) // whoever hung up needs no answer
}

// LeastOf is the access that an operation asks for.
func LeastOf(o *huma.Operation) (Access, bool) {
	if o == nil {
		return AsLocal, false
	}
	least, ok := access()[o.OperationID]
	return least, ok
}

// withAccess puts an operation's line of the table into its description.
func withAccess(o huma.Operation) huma.Operation {
	least, ok := access()[o.OperationID]
	if !ok {
		panic(fmt.Sprintf("api: the operation %q has no line in the table of access", o.OperationID)) // found by the first test that makes the router
	}
	o.Extensions = map[string]any{accessKey: least.String()}
	return o
}
