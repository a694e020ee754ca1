package api

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"runtime/debug"

	"github.com/danielgtaylor/huma/v2"
)

// Wish is a request that an owner's node is to carry out for the phone that signed it.
type Wish struct {
	Method    string
	Path      string // with Prefix, as it was requested
	Body      []byte
	Key       []byte // of the phone, compressed
	Challenge string // of the owner's node
	Signature []byte // raw r||s

	Authorization string // as the page sent it; empty: not signed yet
}

// wishHelp is for who writes another client.
const wishHelp = "What asks for an owner's access (x-least-access) is done by an owner's node, except home-log and invite. Another node answers over HTTPS " +
	"with 401 and WWW-Authenticate: Hallway-Wish home, owner, challenge. Repeat the request within a minute with Authorization: Hallway-Wish owner=\"...\", " +
	"challenge=\"...\", signature=\"...\": the phone's key signs (raw r||s over SHA-256, base64url) hallway-wish/1, home, owner, challenge, method, path as requested and " +
	"the SHA-256 of the body in hexadecimal, with NUL between them."

// Carried is what came of a wish.
type Carried struct {
	Status int
	Body   []byte // JSON; a problem (RFC 9457) from 400 on
	Ask    string // WWW-Authenticate: what the page is to sign
}

// Carrier has done at an owner's node what this one may not sign. Both may be
// called from many goroutines.
type Carrier interface {
	Carries() bool // whether this node needs it now
	Carry(ctx context.Context, w Wish) Carried
}

// carried are the operations that an owner's node does for a person at any other node. Those
// left out of AsOwner are answered by every node (home-log) or give the bearer of the answer
// a secret by which a device joins without anybody looking (invite).
func carried(id string) bool {
	return access()[id] == AsOwner && id != "home-log" && id != "invite"
}

// carrying sends what this node may not do to one that may.
func carrying(c Carrier) func(huma.Context, func(huma.Context)) {
	return func(ctx huma.Context, next func(huma.Context)) {
		if ctx.Operation() == nil || !carried(ctx.Operation().OperationID) || !c.Carries() {
			next(ctx)
			return
		}
		u := ctx.URL()
		w := Wish{Method: ctx.Method(), Path: u.RequestURI(), Authorization: ctx.Header("Authorization")}
		if b := ctx.BodyReader(); b != nil {
			w.Body, _ = io.ReadAll(io.LimitReader(b, maxRequest)) // web.wholeBody has it already
		}
		a := c.Carry(ctx.Context(), w)
		if a.Ask != "" {
			ctx.SetHeader("WWW-Authenticate", a.Ask)
		}
		if a.Status >= http.StatusBadRequest {
			ctx.SetHeader("Content-Type", "application/problem+json")
		} else {
			ctx.SetHeader("Content-Type", "application/json")
		}
		ctx.SetStatus(a.Status)
		_, _ = ctx.BodyWriter().Write(a.Body) // whoever hung up needs no answer
	}
}

// Refused is an answer in words (RFC 9457).
func Refused(status int, words string) Carried {
	b, _ := json.Marshal(huma.NewError(status, words)) // strings and a number
	return Carried{Status: status, Body: b}
}

// RefusedFor is the answer of an error.
func RefusedFor(err error) Carried { return Refused(statusOf(err), err.Error()) }

// maxCarried bounds an answer that is carried.
const maxCarried = 8 << 10

// CarryOut runs a wish on h as caller, whose Via says which node brought it.
func CarryOut(ctx context.Context, h http.Handler, caller Caller, w Wish, log *slog.Logger) (c Carried) {
	r, err := http.NewRequestWithContext(WithCaller(ctx, caller), w.Method, w.Path, bytes.NewReader(w.Body))
	if err != nil {
		return RefusedFor(ErrInput)
	}
	if len(w.Body) > 0 {
		r.Header.Set("Content-Type", "application/json")
	}
	defer func() {
		if p := recover(); p != nil { // as http.Server does: one request, not the agent
			log.Error("a carried request panicked", "what", w.Method+" "+w.Path, "panic", p, "stack", string(debug.Stack()))
			c = Refused(http.StatusInternalServerError, "it failed in a way that nobody thought of; look whether it was done")
		}
	}()
	out := &kept{header: http.Header{}, status: http.StatusOK}
	h.ServeHTTP(out, r)
	if out.body.Len() > maxCarried {
		return Refused(http.StatusInternalServerError, "it was done, but its answer is too long to be carried")
	}
	return Carried{Status: out.status, Body: out.body.Bytes()}
}

// kept is what a handler answers.
type kept struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (k *kept) Header() http.Header { return k.header }

func (k *kept) WriteHeader(status int) { k.status = status }

func (k *kept) Write(b []byte) (int, error) { return k.body.Write(b) }
